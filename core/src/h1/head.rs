//! Heads of requests and responses. httparse cuts them into their parts; what it lets pass and the rules of
//! RFC 9112 and RFC 9110 do not is refused here.

use httparse::Status;

use super::diagnose::{Start, diagnose, lines_are_right};
use super::field_lines::{MAX_HEAD_BYTES, ParsedLines, header_room};
use super::head_end::{empty_lines, too_large};
use super::parsed::{FieldIndex, HeadLimits, ParsedRequest, ParsedResponse, ResponseContext};
use super::upgrade::carries_http;
use crate::http::target::valid_host;
use crate::http::{Framing, HeaderKind, Method, RequestTarget, StatusCode, Version, Violation};

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
#[inline]
pub fn parse_request_prefix<'s>(
    buf: &'s [u8],
    index: &'s mut FieldIndex,
    limits: &HeadLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<Option<(ParsedRequest<'s>, usize)>, ParseError> {
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
    let parsed = ParsedLines::index(raw, parsed.headers, lines).ok_or(ParseError::Malformed)?;
    if empty + len > limits.head_bytes {
        return Err(ParseError::Violation(too_large(&buf[..empty + len], limits)));
    }
    if target.len() > limits.target_bytes {
        return Err(ParseError::Violation(Violation::TargetTooLong));
    }
    let fields = parsed.fields(raw, lines)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Violation::Method)?;
    let target = RequestTarget::parse(&method, target.as_bytes(), scratch)?;
    let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let framing_fields = &parsed.framing;
    let host = match framing_fields.host_count {
        1 if valid_host(framing_fields.host) => target.authority.unwrap_or(framing_fields.host),
        1 => return Err(Violation::Host.into()),
        0 if version == Version::HTTP_11 => return Err(Violation::MissingHost.into()),
        0 => target.authority.unwrap_or_default(),
        _ => return Err(Violation::DuplicateHost.into()),
    };
    let framing = framing_fields.declared(version)?.unwrap_or(Framing::None);
    let is_trace = method == Method::TRACE;
    if is_trace && !framing.is_empty() {
        return Err(Violation::TraceContent.into());
    }
    // HTTP/1.0 has no expectations and no upgrades: they are ignored (RFC 9110 §7.8, §10.1.1).
    let is_http_11 = version == Version::HTTP_11;
    if framing_fields.unknown_expectation && is_http_11 {
        return Err(Violation::Expectation.into());
    }
    let is_head = method == Method::HEAD;
    let counts_forwards = is_trace || method == Method::OPTIONS;
    let request = ParsedRequest {
        method,
        target,
        version,
        fields,
        framing,
        host,
        keep_alive: framing_fields.persists(version),
        expect_continue: framing_fields.expect_continue && is_http_11 && !framing.is_empty(),
        upgrade: framing_fields.upgrade().filter(|protocols| is_http_11 && !carries_http(protocols)),
        is_head,
        te_trailers: framing_fields.te_trailers,
        max_forwards: if counts_forwards { framing_fields.max_forwards } else { None },
        lists_fields: framing_fields.lists_fields(),
    };
    Ok(Some((request, empty + len)))
}

/// The most bytes that a head can have: what lies behind them is never looked at.
#[inline]
fn longest_head(buf: &[u8]) -> &[u8] {
    &buf[..buf.len().min(MAX_HEAD_BYTES)]
}

/// What an error of httparse means, which stopped at the line behind the last field that there is room for, or
/// somewhere else.
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
    if buf.len() > limits.head_bytes {
        return too_large(buf, limits);
    }
    let head = match empty_lines(buf) {
        Ok(empty) => &buf[empty..],
        Err(violation) => return violation,
    };
    match diagnose(head, Start::Request) {
        Violation::Target => refused_target(head, limits),
        violation => violation,
    }
}

/// The rule that a head with wrong bytes in its target breaks. httparse refuses some of them before it has
/// seen the rest, but limits come before the target: what does the head break with any other target?
#[cold]
fn refused_target(head: &[u8], limits: &HeadLimits) -> Violation {
    let mut parts = head.splitn(3, |&b| b == b' ');
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut other = head.to_vec();
    other[method.len() + 1..][..target.len()].fill(b'/');
    match parse_request_prefix(&other, &mut FieldIndex::new(), limits, &mut Vec::new()) {
        Err(ParseError::Malformed) | Ok(None) => return Violation::Target,
        Err(ParseError::Violation(
            limit @ (Violation::TooManyFields | Violation::TargetTooLong | Violation::TooManyOptions),
        )) => return limit,
        _ => {}
    }
    let Ok(method) = Method::from_bytes(method) else { return Violation::Method };
    RequestTarget::parse(&method, target, &mut Vec::new()).err().unwrap_or(Violation::Target)
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
#[inline]
pub fn parse_response_prefix<'s>(
    buf: &'s [u8],
    index: &'s mut FieldIndex,
    limits: &HeadLimits,
    context: ResponseContext,
) -> Result<Option<(ParsedResponse<'s>, usize)>, ParseError> {
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
    let len = match config.parse_response_with_uninit_headers(&mut parsed, head, &mut room[..lines.len()]) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(refused(error, head, lines.len(), Start::Response)),
    };
    let (Some(code), Some(version)) = (parsed.code, parsed.version) else {
        return Err(ParseError::Malformed);
    };
    let raw = &head[..len];
    let parsed = ParsedLines::index(raw, parsed.headers, lines).ok_or(ParseError::Malformed)?;
    if len > limits.head_bytes {
        return Err(ParseError::Violation(Violation::HeadTooLarge));
    }
    let status = StatusCode::from_u16(code).map_err(|_| Violation::StatusLine)?;
    // Behind `HTTP/1.1 200`; httparse shows no reason that has bytes beyond ASCII.
    let reason = raw.get(13..parsed.start_line_len - 2).unwrap_or_default();
    let fields = parsed.fields(raw, lines)?;
    let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let framing_fields = &parsed.framing;
    let upgrade = if matches!(code, 101 | 426) { framing_fields.upgrade() } else { None };
    if code == 101 && (!context.upgrade || version == Version::HTTP_10 || upgrade.is_none()) {
        return Err(Violation::UnexpectedSwitch.into());
    }
    // RFC 9112 §6.3: these end with their head, whatever it says; the first two may not even say it.
    let (framing, content_length) = if code < 200 || code == 204 {
        (Framing::None, None)
    } else {
        let declared = framing_fields.declared(version)?.unwrap_or(Framing::Close);
        let content_length = if let Framing::Length(n) = declared { Some(n) } else { None };
        (if context.head || code == 304 { Framing::None } else { declared }, content_length)
    };
    let response = ParsedResponse {
        status,
        reason,
        version,
        fields,
        framing,
        content_length,
        keep_alive: framing != Framing::Close && framing_fields.persists(version),
        keep_alive_timeout: framing_fields.keep_alive_timeout,
        upgrade,
        has_date: fields.has(HeaderKind::Date),
        lists_fields: framing_fields.lists_fields(),
    };
    Ok(Some((response, len)))
}
