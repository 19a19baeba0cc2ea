//! Heads of requests and responses. httparse cuts them into their parts; what it lets pass and the rules of
//! RFC 9112 and RFC 9110 do not is refused here.

use httparse::Status;

use super::diagnose::{Start, diagnose, lines_are_right};
use super::field_lines::{MAX_HEAD_BYTES, ParsedLines, header_room};
use super::framing_fields::FramingFields;
use super::head_end::{empty_lines, too_large};
use super::head_limits::{FieldIndex, HeadLimits, ResponseContext};
use super::upgrade::carries_http;
use crate::http::fields::FieldLine;
use crate::http::target::valid_host;
use crate::http::{Fields, Framing, HeaderKind, Method, RequestTarget, StatusCode, Version, Violation};
use crate::http::{ParsedRequest, ParsedResponse};
use crate::planted::planted;

/// Why no head was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The head breaks this rule, whatever bytes come behind.
    Violation(Violation),
    /// The head breaks a rule that [`parse_request`] or [`parse_response`] finds once its end is there.
    Malformed,
}

impl std::error::Error for ParseError {}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Violation(violation) => violation.name(),
            Self::Malformed => "malformed head",
        })
    }
}

impl From<Violation> for ParseError {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// Parses a whole head of a request: `buf` begins with it and ends with its empty line, as
/// [`super::find_request_end`] found it. `scratch` holds the target if it has to be normalised.
///
/// # Errors
/// The rule that the head breaks.
pub fn parse_request<'s>(
    buf: &'s [u8],
    index: &'s mut FieldIndex,
    limits: &HeadLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<ParsedRequest<'s>, Violation> {
    match parse_request_prefix(buf, index, limits, scratch) {
        Ok(Some((request, n))) if n == buf.len() => Ok(request),
        Err(ParseError::Violation(violation)) => Err(violation),
        _ => Err(refused_request(buf, limits)),
    }
}

/// Parses the head of a request at the front of `buf`, whatever follows it, and returns it with its length.
/// `None` if it is not complete. For heads that arrive whole this saves the search for their end; those that
/// do not are left to [`super::find_request_end`], or bytes would be parsed again and again.
///
/// # Errors
/// See [`ParseError`].
pub fn parse_request_prefix<'s>(
    buf: &'s [u8],
    index: &'s mut FieldIndex,
    limits: &HeadLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<Option<(ParsedRequest<'s>, usize)>, ParseError> {
    let Some(parts) = RequestParts::split(buf, index, limits)? else { return Ok(None) };
    let len = parts.len;
    let request = match parts.plain_target() {
        Some(target) => parts.plain(target)?,
        None => parts.checked(scratch)?,
    };
    Ok(Some((request, len)))
}

/// A head of a request that httparse has cut into its parts, each of which is right by itself.
pub(super) struct RequestParts<'s> {
    method: &'s str,
    target: &'s str,
    version: Version,
    raw: &'s [u8],
    lines: &'s mut [FieldLine],
    parsed: ParsedLines,
    /// Bytes of the head, with the empty lines before it.
    pub(super) len: usize,
}

impl<'s> RequestParts<'s> {
    /// Looks for a head at the front of `buf`. `None` if it is not complete.
    // Inlined with what follows, so that the parts are never put together in memory.
    #[inline(always)]
    pub(super) fn split(
        buf: &'s [u8],
        index: &'s mut FieldIndex,
        limits: &HeadLimits,
    ) -> Result<Option<Self>, ParseError> {
        let empty = if matches!(buf, [b'\r' | b'\n', ..]) { empty_lines(buf)? } else { 0 };
        let head = longest_head(&buf[empty..]);
        let lines = index.room(limits);
        let mut room = header_room();
        let mut parsed = httparse::Request::new(&mut []);
        let len = match parsed.parse_with_uninit_headers(head, &mut room[..lines.len()]) {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(refused(error, head, lines.len(), Start::Request)),
        };
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(ParseError::Malformed);
        };
        let raw = &head[..len];
        let Some(parsed) = ParsedLines::index(raw, parsed.headers, lines) else {
            return Err(ParseError::Malformed);
        };
        let len = empty + len;
        if len > limits.head_bytes {
            return Err(ParseError::Violation(too_large(&buf[..len], limits)));
        }
        if target.len() > limits.target_bytes + usize::from(planted!(158)) {
            return Err(ParseError::Violation(Violation::TargetTooLong));
        }
        let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
        Ok(Some(Self { method, target, version, raw, lines, parsed, len }))
    }

    /// The target of a request like most: a GET of a plain path, whose fields say nothing about its content,
    /// its connection or this hop.
    #[inline(always)]
    pub(super) fn plain_target(&self) -> Option<RequestTarget<'s>> {
        if self.parsed.kinds & (FramingFields::KINDS | CONTENT_LENGTH) == 0 && self.method == "GET" {
            RequestTarget::plain_path(self.target.as_bytes())
        } else {
            None
        }
    }

    /// The request that has a [`RequestParts::plain_target`], if its head as a whole breaks no rule: nearly
    /// all that it says is known without looking.
    #[inline(always)]
    pub(super) fn plain(self, target: RequestTarget<'s>) -> Result<ParsedRequest<'s>, Violation> {
        let Self { version, parsed, .. } = self;
        let fields = Fields::new(self.raw, &self.lines[..parsed.count], parsed.kinds, parsed.plain);
        let host = host(&parsed, &fields, &target, version)?;
        let keep_alive = version == Version::HTTP_11;
        let semantics = RequestSemantics { keep_alive, ..RequestSemantics::NOTHING };
        Ok(semantics.request(Method::GET, target, version, fields, host))
    }

    /// The request, if its head as a whole breaks no rule.
    #[inline(never)]
    pub(super) fn checked(self, scratch: &'s mut Vec<u8>) -> Result<ParsedRequest<'s>, Violation> {
        let Self { version, parsed, .. } = self;
        let (fields, framing_fields) = listed_fields(self.raw, self.lines, &parsed)?;
        let method = Method::from_bytes(self.method.as_bytes()).map_err(|_| Violation::Method)?;
        let target = RequestTarget::parse(&method, self.target.as_bytes(), scratch)?;
        let host = host(&parsed, &fields, &target, version)?;
        let semantics = RequestSemantics::of(&method, version, &parsed, &fields, framing_fields.as_ref())?;
        Ok(semantics.request(method, target, version, fields, host))
    }
}

/// The host that a request is for (RFC 9112 §3.2): the authority of its target goes before `Host`, which has
/// to be right nevertheless.
#[inline(always)]
fn host<'s>(
    parsed: &ParsedLines,
    fields: &Fields<'s>,
    target: &RequestTarget<'s>,
    version: Version,
) -> Result<&'s [u8], Violation> {
    // `Host` is the first field of most.
    let host = match fields.lines() {
        [line, ..] if line.kind == HeaderKind::Host => Some(line.value(fields.raw())),
        _ => fields.get(HeaderKind::Host),
    };
    match host {
        Some(_) if HeaderKind::Host.in_set(parsed.repeated) => Err(Violation::DuplicateHost),
        Some(host) if valid_host(host) => Ok(target.authority.unwrap_or(host)),
        Some(_) => Err(Violation::Host),
        None if version == Version::HTTP_11 => Err(Violation::MissingHost),
        None => Ok(target.authority.unwrap_or_default()),
    }
}

const CONTENT_LENGTH: u64 = HeaderKind::set(&[HeaderKind::ContentLength]);

/// What a request says about its content, its connection and this hop: see [`ParsedRequest`].
struct RequestSemantics<'a> {
    framing: Framing,
    keep_alive: bool,
    expect_continue: bool,
    upgrade: Option<&'a [u8]>,
    te_trailers: bool,
    max_forwards: Option<u64>,
    lists_fields: bool,
}

impl<'a> RequestSemantics<'a> {
    const NOTHING: Self = Self {
        framing: Framing::None,
        keep_alive: false,
        expect_continue: false,
        upgrade: None,
        te_trailers: false,
        max_forwards: None,
        lists_fields: false,
    };

    #[inline(always)]
    fn request(
        self,
        method: Method,
        target: RequestTarget<'a>,
        version: Version,
        fields: Fields<'a>,
        host: &'a [u8],
    ) -> ParsedRequest<'a> {
        ParsedRequest {
            is_head: matches!(method, Method::HEAD),
            method,
            target,
            version,
            fields,
            host,
            framing: self.framing,
            keep_alive: self.keep_alive,
            expect_continue: self.expect_continue,
            upgrade: self.upgrade,
            te_trailers: self.te_trailers,
            max_forwards: self.max_forwards,
            lists_fields: self.lists_fields,
        }
    }

    fn of(
        method: &Method,
        version: Version,
        parsed: &ParsedLines,
        fields: &Fields<'_>,
        framing_fields: Option<&FramingFields<'a>>,
    ) -> Result<Self, Violation> {
        let framing = declared_framing(version, parsed, fields, framing_fields)?.unwrap_or(Framing::None);
        let is_trace = *method == Method::TRACE;
        if is_trace && !framing.is_empty() {
            return Err(Violation::TraceContent);
        }
        let is_http_11 = version == Version::HTTP_11;
        let Some(fields) = framing_fields else {
            return Ok(Self { framing, keep_alive: is_http_11, ..Self::NOTHING });
        };
        // HTTP/1.0 has no expectations and no upgrades: they are ignored (RFC 9110 §7.8, §10.1.1).
        if fields.unknown_expectation && is_http_11 {
            return Err(Violation::Expectation);
        }
        let counts_forwards = is_trace || *method == Method::OPTIONS;
        Ok(Self {
            framing,
            keep_alive: fields.persists(version),
            expect_continue: fields.expect_continue && is_http_11 && !framing.is_empty(),
            upgrade: fields.upgrade().filter(|protocols| is_http_11 && !carries_http(protocols)),
            te_trailers: fields.te_trailers,
            max_forwards: fields.max_forwards.filter(|_| counts_forwards),
            lists_fields: fields.lists_fields(),
        })
    }
}

/// The framing that a head declares (RFC 9112 §6.3); `None` if it declares nothing.
#[inline(always)]
fn declared_framing(
    version: Version,
    parsed: &ParsedLines,
    fields: &Fields<'_>,
    framing_fields: Option<&FramingFields<'_>>,
) -> Result<Option<Framing>, Violation> {
    if let Some(framing_fields) = framing_fields
        && let Some(chunked) = framing_fields.coding(version, parsed.kinds & CONTENT_LENGTH != 0)?
    {
        return Ok(Some(chunked));
    }
    Ok(parsed.content_length(fields)?.map(Framing::Length))
}

/// The fields of a head, those that `Connection` lists marked, and what the rarer of them say.
#[inline(always)]
fn listed_fields<'s>(
    raw: &'s [u8],
    lines: &'s mut [FieldLine],
    parsed: &ParsedLines,
) -> Result<(Fields<'s>, Option<FramingFields<'s>>), Violation> {
    let lines = &mut lines[..parsed.count];
    if parsed.kinds & FramingFields::KINDS == 0 {
        return Ok((Fields::new(raw, lines, parsed.kinds, parsed.plain), None));
    }
    let framing_fields = FramingFields::read(raw, lines);
    let mut kinds = parsed.kinds;
    if framing_fields.lists_fields() {
        kinds = framing_fields.mark_connection_listed(raw, lines)?;
    }
    Ok((Fields::new(raw, lines, kinds, parsed.plain), Some(framing_fields)))
}

/// The most bytes that a head can have: what lies behind them is never looked at.
#[inline]
fn longest_head(buf: &[u8]) -> &[u8] {
    &buf[..buf.len().min(MAX_HEAD_BYTES)]
}

/// What an error of httparse means, which stopped at the line behind the last field that there is room for,
/// or somewhere else.
#[cold]
fn refused(error: httparse::Error, head: &[u8], fields: usize, start: Start) -> ParseError {
    // httparse counts lines that end with LF alone too.
    if error == httparse::Error::TooManyHeaders && lines_are_right(head, fields + 1, start) {
        ParseError::Violation(Violation::TooManyFields)
    } else {
        ParseError::Malformed
    }
}

/// The rule that a head breaks which [`parse_request_prefix`] refuses without saying why.
#[cold]
fn refused_request(buf: &[u8], limits: &HeadLimits) -> Violation {
    let head = match empty_lines(buf) {
        Ok(empty) => &buf[empty..],
        Err(_) if buf.len() > limits.head_bytes => return too_large(buf, limits),
        Err(violation) => return violation,
    };
    let violation = diagnose(head, Start::Request);
    let judged = if violation == Violation::Target { refused_target(head, limits) } else { None };
    match judged {
        Some(violation) => violation,
        None if buf.len() > limits.head_bytes => too_large(buf, limits),
        None => violation,
    }
}

/// The rule that a head with wrong bytes in its target breaks, if its lines are right apart from that.
/// httparse refuses some of those bytes before it has seen the rest, but limits come before the target: what
/// does the head break with any other target?
#[cold]
fn refused_target(head: &[u8], limits: &HeadLimits) -> Option<Violation> {
    let mut parts = head.splitn(3, |&b| b == b' ');
    let (method, target) = (parts.next()?, parts.next()?);
    if target.iter().any(|&b| b <= b' ') {
        return None;
    }
    let mut other = head.to_vec();
    other[method.len() + 1..][..target.len()].fill(b'/');
    match parse_request_prefix(&other, &mut FieldIndex::new(), limits, &mut Vec::new()) {
        Err(ParseError::Malformed) | Ok(None) => None,
        Err(ParseError::Violation(
            limit @ (Violation::TooManyFields
            | Violation::HeadTooLarge
            | Violation::TargetTooLong
            | Violation::TooManyOptions),
        )) => Some(limit),
        _ => RequestTarget::parse(&Method::from_bytes(method).ok()?, target, &mut Vec::new()).err(),
    }
}

/// Parses a whole head of a response: `buf` begins with it and ends with its empty line, as
/// [`super::find_response_end`] found it.
///
/// # Errors
/// The rule that the head breaks.
pub fn parse_response<'s>(
    buf: &'s [u8],
    index: &'s mut FieldIndex,
    limits: &HeadLimits,
    context: ResponseContext,
) -> Result<ParsedResponse<'s>, Violation> {
    match parse_response_prefix(buf, index, limits, context) {
        Ok(Some((response, n))) if n == buf.len() => Ok(response),
        Err(ParseError::Violation(violation)) => Err(violation),
        _ if buf.len() > limits.head_bytes => Err(Violation::HeadTooLarge),
        _ => Err(diagnose(buf, Start::Response)),
    }
}

/// Parses the head of a response at the front of `buf`, whatever follows it, and returns it with its length.
/// `None` if it is not complete.
///
/// # Errors
/// See [`ParseError`].
pub fn parse_response_prefix<'s>(
    buf: &'s [u8],
    index: &'s mut FieldIndex,
    limits: &HeadLimits,
    context: ResponseContext,
) -> Result<Option<(ParsedResponse<'s>, usize)>, ParseError> {
    let Some(parts) = ResponseParts::split(buf, index, limits)? else { return Ok(None) };
    let len = parts.len;
    let response = if parts.is_plain(context) { parts.plain()? } else { parts.checked(context)? };
    Ok(Some((response, len)))
}

/// A head of a response that httparse has cut into its parts, each of which is right by itself.
pub(super) struct ResponseParts<'s> {
    line: StatusLine<'s>,
    raw: &'s [u8],
    lines: &'s mut [FieldLine],
    parsed: ParsedLines,
    /// Bytes of the head.
    pub(super) len: usize,
}

impl<'s> ResponseParts<'s> {
    /// Looks for a head at the front of `buf`. `None` if it is not complete.
    // Inlined with what follows, so that the parts are never put together in memory.
    #[inline(always)]
    pub(super) fn split(
        buf: &'s [u8],
        index: &'s mut FieldIndex,
        limits: &HeadLimits,
    ) -> Result<Option<Self>, ParseError> {
        let head = longest_head(buf);
        // httparse would skip empty lines, which only requests may have before them.
        if matches!(head, [b'\r' | b'\n', ..]) {
            return Err(ParseError::Malformed);
        }
        let lines = index.room(limits);
        let mut room = header_room();
        let mut parsed = httparse::Response::new(&mut []);
        let mut config = httparse::ParserConfig::default();
        // RFC 9112 §5.1: a proxy removes blanks before the colon from responses.
        config.allow_spaces_after_header_name_in_responses(true);
        let len = match config.parse_response_with_uninit_headers(&mut parsed, head, &mut room[..lines.len()])
        {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(refused(error, head, lines.len(), Start::Response)),
        };
        let (Some(code), Some(version)) = (parsed.code, parsed.version) else {
            return Err(ParseError::Malformed);
        };
        let raw = &head[..len];
        let Some(parsed) = ParsedLines::index(raw, parsed.headers, lines) else {
            return Err(ParseError::Malformed);
        };
        if len > limits.head_bytes {
            return Err(ParseError::Violation(Violation::HeadTooLarge));
        }
        let status = StatusCode::from_u16(code).map_err(|_| Violation::StatusLine)?;
        // Behind `HTTP/1.1 200`; httparse shows no reason that has bytes beyond ASCII.
        let reason = raw.get(13..parsed.start_line_len - 2).unwrap_or_default();
        let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
        let line = StatusLine { status, reason, version };
        Ok(Some(Self { line, raw, lines, parsed, len }))
    }

    /// Whether it is like most: a 200 with its content, whose fields say nothing about its connection.
    #[inline(always)]
    pub(super) fn is_plain(&self, context: ResponseContext) -> bool {
        self.parsed.kinds & FramingFields::KINDS == 0 && self.line.status == StatusCode::OK && !context.head
    }

    /// The response that is plain, if its head as a whole breaks no rule.
    #[inline(always)]
    pub(super) fn plain(self) -> Result<ParsedResponse<'s>, Violation> {
        let parsed = self.parsed;
        let fields = Fields::new(self.raw, &self.lines[..parsed.count], parsed.kinds, parsed.plain);
        let line = StatusLine { status: StatusCode::OK, ..self.line };
        checked_response(line, &parsed, fields, None, ResponseContext::default())
    }

    /// The response, if its head as a whole breaks no rule.
    #[inline(never)]
    pub(super) fn checked(self, context: ResponseContext) -> Result<ParsedResponse<'s>, Violation> {
        let (fields, framing_fields) = listed_fields(self.raw, self.lines, &self.parsed)?;
        checked_response(self.line, &self.parsed, fields, framing_fields.as_ref(), context)
    }
}

/// A parsed status line (RFC 9112 §4).
struct StatusLine<'a> {
    status: StatusCode,
    reason: &'a [u8],
    version: Version,
}

/// The response of these parts, if its head as a whole breaks no rule.
#[inline(always)]
fn checked_response<'s>(
    line: StatusLine<'s>,
    parsed: &ParsedLines,
    fields: Fields<'s>,
    said: Option<&FramingFields<'s>>,
    context: ResponseContext,
) -> Result<ParsedResponse<'s>, Violation> {
    let StatusLine { status, reason, version } = line;
    let code = status.as_u16();
    let upgrade = if matches!(code, 101 | 426) { said.and_then(FramingFields::upgrade) } else { None };
    if code == 101 && (!context.upgrade || version == Version::HTTP_10 || upgrade.is_none()) {
        return Err(Violation::UnexpectedSwitch);
    }
    // RFC 9112 §6.3: these end with their head, whatever it says; the first two may not even say it.
    let (framing, content_length) = if code < 200 || code == 204 {
        (Framing::None, None)
    } else {
        let declared = declared_framing(version, parsed, &fields, said)?.unwrap_or(Framing::Close);
        let content_length = if let Framing::Length(n) = declared { Some(n) } else { None };
        (if context.head || code == 304 { Framing::None } else { declared }, content_length)
    };
    let persists = said.map_or(version == Version::HTTP_11, |fields| fields.persists(version));
    Ok(ParsedResponse {
        status,
        reason,
        version,
        fields,
        framing,
        content_length,
        keep_alive: framing != Framing::Close && persists,
        keep_alive_timeout: said.and_then(|fields| fields.keep_alive_timeout),
        upgrade,
        has_date: fields.has(HeaderKind::Date),
        lists_fields: said.is_some_and(FramingFields::lists_fields),
    })
}
