//! Heads of requests and answers: what their lines say, held against the rules.

use std::sync::LazyLock;

use memchr::{memchr_iter, memmem};

use super::diagnose::{Start, diagnose};
use super::scan::{Cut, LONGEST, Uncut, expect, field_lines, find_gap, find_line_end};
use super::seen::Seen;
use super::upgrade::carries_http;
use crate::http::fields::{Line, is_token, is_token_char};
use crate::http::target::valid_host;
use crate::http::{Fields, Framing, HeaderKind, Target, Violation};

/// The most fields a head can have, whatever the limits say.
pub const MAX_FIELDS: usize = 256;

/// Limits of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of a whole head.
    pub head_bytes: usize,
    /// Field lines, at most [`MAX_FIELDS`].
    pub fields: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
}

/// Room for the fields of one head. It is 2.5 KiB: keep it.
#[derive(Debug, Default)]
pub struct FieldIndex {
    /// Made when it is used first.
    lines: Option<Box<[Line; MAX_FIELDS]>>,
}

impl FieldIndex {
    /// Empty room.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[inline]
    fn room(&mut self, limits: &HeadLimits) -> &mut [Line] {
        let lines = self.lines.get_or_insert_with(|| Box::new([Line::NONE; MAX_FIELDS]));
        &mut lines[..limits.fields.min(MAX_FIELDS)]
    }
}

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Case-sensitive.
    pub method: &'a [u8],
    /// Normalised.
    pub target: Target<'a>,
    /// 10 or 11.
    pub version: u8,
    /// All of them, marked.
    pub fields: Fields<'a>,
    /// Never [`Framing::Close`].
    pub framing: Framing,
    /// The authority if the target has one, else `Host`; empty only for HTTP/1.0 without `Host`.
    pub host: &'a [u8],
    /// Whether the connection outlives this exchange as far as the client is concerned (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The client waits for a 100 before its content.
    pub expect_continue: bool,
    /// The protocols of `Upgrade`, if this asks for one that we pass on.
    pub upgrade: Option<&'a [u8]>,
    /// RFC 9110 §9.2.2.
    pub idempotent: bool,
    /// The method is HEAD: the answer has no content.
    pub is_head: bool,
    /// The client said `TE: trailers`.
    pub te_trailers: bool,
    /// `Max-Forwards` of OPTIONS and TRACE (RFC 9110 §7.6.2): at 0 we answer ourselves, else one less is
    /// forwarded.
    pub max_forwards: Option<u64>,
    /// `Connection` names fields: trailers of that name may not pass, so none does (RFC 9110 §7.6.1).
    pub nominates: bool,
}

/// What an answer is an answer to.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseContext {
    /// The method was HEAD.
    pub head: bool,
    /// An `Upgrade` was forwarded.
    pub upgrade: bool,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// 100..=999.
    pub status: u16,
    /// The reason phrase, maybe empty.
    pub reason: &'a [u8],
    /// 10 or 11.
    pub version: u8,
    /// All of them, marked.
    pub fields: Fields<'a>,
    /// How the content that follows here is framed: `None` for 1xx, 204, 304 and answers to HEAD.
    pub framing: Framing,
    /// `Content-Length` as a statement, also where no content follows (HEAD, 304).
    pub content_length: Option<u64>,
    /// Whether the connection outlives this exchange as far as the backend is concerned.
    pub keep_alive: bool,
    /// `Keep-Alive: timeout=`, in seconds.
    pub keep_alive_timeout: Option<u32>,
    /// `Upgrade` of a 101.
    pub upgrade: Option<&'a [u8]>,
    /// There is a `Date`.
    pub has_date: bool,
    /// `Connection` names fields: trailers of that name may not pass, so none does (RFC 9110 §7.6.1).
    pub nominates: bool,
}

impl ResponseHead<'_> {
    /// 1xx other than 101: another answer follows.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Empty lines that may precede a request line (RFC 9112 §2.2 asks for one at least).
const BLANK_LINES: usize = 4;

/// Looks for the end of a request's head in `buf`, of which the first `from` bytes were already looked at.
/// `Some(end)` is the length of the head with its empty line (and empty lines before it). Bytes that can
/// become no head are an error at once. `None` and a full buffer, or more than `head_bytes`: see
/// [`too_large`].
pub fn find_request_end(buf: &[u8], from: usize) -> Result<Option<usize>, Violation> {
    let start = blank_lines(buf)?;
    // What is no method needs no patience: TLS on this port, binary noise.
    for &b in buf[start..].iter().take(16).take_while(|&&b| !matches!(b, b' ' | b'\r' | b'\n')) {
        if !is_token_char(b) {
            return Err(Violation::Method);
        }
    }
    find_empty_line(buf, start, from)
}

/// The same for an answer.
pub fn find_response_end(buf: &[u8], from: usize) -> Result<Option<usize>, Violation> {
    let expected = b"HTTP/1.";
    let n = buf.len().min(expected.len());
    if buf[..n] != expected[..n] {
        return Err(if buf.starts_with(b"HTTP/") { Violation::Version } else { Violation::StatusLine });
    }
    find_empty_line(buf, 0, from)
}

/// The fault of a head that has no end within its limit: the target, if that alone is too long.
#[must_use]
#[cold]
pub fn too_large(buf: &[u8], limits: &HeadLimits) -> Violation {
    let start = blank_lines(buf).unwrap_or(0);
    let line = buf[start..].split(|&b| b == b'\n').next().unwrap_or_default();
    let target = line.splitn(3, |&b| b == b' ').nth(1);
    if target.is_some_and(|t| t.len() > limits.target_bytes) {
        Violation::TargetTooLong
    } else {
        Violation::HeadTooLarge
    }
}

/// How many bytes of empty lines `buf` begins with.
fn blank_lines(buf: &[u8]) -> Result<usize, Violation> {
    let mut at = 0;
    while let Some(b @ (b'\r' | b'\n')) = buf.get(at) {
        match (b, buf.get(at + 1)) {
            _ if at == 2 * BLANK_LINES => return Err(Violation::StartLine),
            (b'\n', _) => return Err(Violation::BareLf),
            (_, None) => break,
            (_, Some(b'\n')) => at += 2,
            _ => return Err(Violation::BareCr),
        }
    }
    Ok(at)
}

/// Built once: that takes longer than the search through a small head.
static EMPTY_LINE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\r\n\r\n"));

/// The empty line that ends a section of lines which begins at `start`, where no empty line is. A bare LF is
/// an error here only while there is no end (why wait for one?); whoever reads the section finds those in it.
pub(super) fn find_empty_line(buf: &[u8], start: usize, from: usize) -> Result<Option<usize>, Violation> {
    let resumed = from.saturating_sub(3).clamp(start, buf.len());
    if let Some(at) = EMPTY_LINE.find(&buf[resumed..]) {
        return Ok(Some(resumed + at + 4));
    }
    let first = from.clamp(start, buf.len());
    for at in memchr_iter(b'\n', &buf[first..]) {
        let at = first + at;
        if at == start || buf[at - 1] != b'\r' {
            return Err(Violation::BareLf);
        }
    }
    Ok(None)
}

/// Reads a complete head of a request: `buf` ends with its empty line.
pub fn request<'s>(
    buf: &'s [u8],
    store: &'s mut FieldIndex,
    limits: &HeadLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<Request<'s>, Violation> {
    match parse_request_prefix(buf, store, limits, scratch) {
        Ok(Some((request, n))) if n == buf.len() => Ok(request),
        Err(ParseError::By(violation)) => Err(violation),
        _ => {
            if buf.len() > limits.head_bytes {
                return Err(too_large(buf, limits));
            }
            Err(diagnose(&buf[blank_lines(buf)?..], Start::Request))
        }
    }
}

/// Why [`request_before`] or [`answer_before`] read nothing.
pub enum ParseError {
    /// A rule that is broken, whatever else comes.
    By(Violation),
    /// Something is wrong: look for the end, and read what ends there to know what.
    Somewhere,
}

impl From<Violation> for ParseError {
    fn from(violation: Violation) -> Self {
        Self::By(violation)
    }
}

#[cold]
fn not_cut<T>(uncut: Uncut) -> Result<Option<T>, ParseError> {
    match uncut {
        Uncut::Partial => Ok(None),
        Uncut::Wrong => Err(ParseError::Somewhere),
        Uncut::TooMany => Err(ParseError::By(Violation::TooManyFields)),
    }
}

/// Reads the head of a request at the front of `buf`, whatever follows it, and says where it ends; `None`: it
/// is not complete. One pass where [`find_end`] and [`request`] take two.
#[inline]
pub fn parse_request_prefix<'s>(
    buf: &'s [u8],
    store: &'s mut FieldIndex,
    limits: &HeadLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<Option<(Request<'s>, usize)>, ParseError> {
    let blank = if matches!(buf, [b'\r' | b'\n', ..]) { blank_lines(buf)? } else { 0 };
    let head = clipped(&buf[blank..]);
    let lines = store.room(limits);
    let (start, cut) =
        match request_line(head).and_then(|start| Ok((field_lines(head, start.end, lines, false)?, start))) {
            Ok((cut, start)) => (start, cut),
            Err(uncut) => return not_cut(uncut),
        };
    let n = cut.end as usize;
    if blank + n > limits.head_bytes {
        return Err(ParseError::By(too_large(&buf[..blank + n], limits)));
    }
    let request = checked_request(&head[..n], &start, &cut, lines, limits, scratch)?;
    Ok(Some((request, blank + n)))
}

/// What a head can be at most: the bytes behind that are never looked at.
#[inline]
fn clipped(buf: &[u8]) -> &[u8] {
    &buf[..buf.len().min(LONGEST)]
}

/// A request line, cut.
struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: u8,
    /// Where the field lines begin.
    end: u32,
}

/// Method, target and version, one blank between each two (RFC 9112 §3). What the target is made of is not
/// looked at.
#[inline(always)]
fn request_line(head: &[u8]) -> Result<RequestLine<'_>, Uncut> {
    let method_end = find_gap(head, 0);
    expect(head, method_end as usize, b' ')?;
    let target_end = find_gap(head, method_end + 1);
    expect(head, target_end as usize, b' ')?;
    let (method, target) =
        (&head[..method_end as usize], &head[method_end as usize + 1..target_end as usize]);
    let at = target_end as usize + 1;
    let version = version(head, at)?;
    // Any token is a method; these are nearly all.
    if target.is_empty()
        || !(matches!(method, b"GET" | b"POST" | b"HEAD" | b"PUT") || !method.is_empty() && is_token(method))
    {
        return Err(Uncut::Wrong);
    }
    expect(head, at + 8, b'\r')?;
    expect(head, at + 9, b'\n')?;
    Ok(RequestLine { method, target, version, end: target_end + 11 })
}

/// 11 or 10.
#[inline(always)]
fn version(head: &[u8], at: usize) -> Result<u8, Uncut> {
    const HTTP_1_1: u64 = u64::from_le_bytes(*b"HTTP/1.1");
    const HTTP_1_0: u64 = u64::from_le_bytes(*b"HTTP/1.0");
    match head.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u64::from_le_bytes(*bytes)) {
        Some(HTTP_1_1) => Ok(11),
        Some(HTTP_1_0) => Ok(10),
        Some(_) => Err(Uncut::Wrong),
        None => Err(short_version(head.get(at..).unwrap_or_default())),
    }
}

/// A version that ends too early is not waited for if it cannot become one: the whole head may be there.
#[cold]
fn short_version(text: &[u8]) -> Uncut {
    if b"HTTP/1.1".starts_with(text) || b"HTTP/1.0".starts_with(text) { Uncut::Partial } else { Uncut::Wrong }
}

/// A head that has been cut into lines, held against the rules.
#[inline(always)]
fn checked_request<'s>(
    head: &'s [u8],
    line: &RequestLine<'s>,
    cut: &Cut,
    lines: &'s mut [Line],
    limits: &HeadLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<Request<'s>, Violation> {
    let RequestLine { method, target: raw, version, .. } = *line;
    if raw.len() > limits.target_bytes {
        return Err(Violation::TargetTooLong);
    }
    let lines = &mut lines[..cut.count as usize];
    let mut seen = Seen::default();
    seen.read_all(head, lines, cut.kinds());
    let fields = seen.fields(head, lines, cut)?;
    let target = Target::parse(method, raw, scratch)?;
    let host = match seen.hosts {
        1 if valid_host(seen.host) => target.authority.unwrap_or(seen.host),
        1 => return Err(Violation::Host),
        0 if version == 11 => return Err(Violation::MissingHost),
        0 => target.authority.unwrap_or_default(),
        _ => return Err(Violation::DuplicateHost),
    };
    let framing = match seen.coded {
        false => match seen.length()? {
            Some(n) => Framing::Length(n),
            None => Framing::None,
        },
        true => seen.chunked(version)?,
    };
    if method == b"TRACE" && !framing.is_empty() {
        return Err(Violation::TraceContent);
    }
    // HTTP/1.0 knows no expectations and no upgrades: ignored (RFC 9110 §7.8, §10.1.1).
    if seen.strange_expectation && version == 11 {
        return Err(Violation::Expectation);
    }
    Ok(Request {
        method,
        target,
        version,
        fields,
        framing,
        host,
        keep_alive: seen.keep_alive(version),
        expect_continue: seen.expect_continue && version == 11 && !framing.is_empty(),
        upgrade: seen.upgrade().filter(|protocols| version == 11 && !carries_http(protocols)),
        idempotent: matches!(method, b"GET" | b"HEAD" | b"PUT" | b"DELETE" | b"OPTIONS" | b"TRACE"),
        is_head: method == b"HEAD",
        te_trailers: seen.te_trailers,
        max_forwards: if matches!(method, b"OPTIONS" | b"TRACE") { seen.max_forwards } else { None },
        nominates: seen.options > 0,
    })
}

/// Reads a complete head of an answer: `buf` ends with its empty line.
pub fn response<'s>(
    buf: &'s [u8],
    store: &'s mut FieldIndex,
    limits: &HeadLimits,
    asked: ResponseContext,
) -> Result<ResponseHead<'s>, Violation> {
    match parse_response_prefix(buf, store, limits, asked) {
        Ok(Some((response, n))) if n == buf.len() => Ok(response),
        Err(ParseError::By(violation)) => Err(violation),
        _ if buf.len() > limits.head_bytes => Err(Violation::HeadTooLarge),
        _ => Err(diagnose(buf, Start::LookupResult)),
    }
}

/// Reads the head of an answer at the front of `buf`, as [`request_before`] does for requests.
#[inline]
pub fn parse_response_prefix<'s>(
    buf: &'s [u8],
    store: &'s mut FieldIndex,
    limits: &HeadLimits,
    asked: ResponseContext,
) -> Result<Option<(ResponseHead<'s>, usize)>, ParseError> {
    let head = clipped(buf);
    let lines = store.room(limits);
    let (start, cut) =
        match status_line(head).and_then(|start| Ok((field_lines(head, start.end, lines, true)?, start))) {
            Ok((cut, start)) => (start, cut),
            Err(uncut) => return not_cut(uncut),
        };
    let n = cut.end as usize;
    if n > limits.head_bytes {
        return Err(ParseError::By(Violation::HeadTooLarge));
    }
    let response = checked_response(&head[..n], &start, &cut, lines, asked)?;
    Ok(Some((response, n)))
}

/// A status line, cut.
struct StatusLine<'a> {
    status: u16,
    reason: &'a [u8],
    version: u8,
    /// Where the field lines begin.
    end: u32,
}

/// Version, status and reason (RFC 9112 §4), the last one with its blank or neither.
#[inline(always)]
fn status_line(head: &[u8]) -> Result<StatusLine<'_>, Uncut> {
    let version = version(head, 0)?;
    let &[b' ', a, b, c] = head.get(8..12).and_then(<[u8]>::first_chunk).ok_or(Uncut::Partial)? else {
        return Err(Uncut::Wrong);
    };
    let digits = [a, b, c].map(|d| u16::from(d.wrapping_sub(b'0')));
    if digits.iter().any(|&d| d > 9) {
        return Err(Uncut::Wrong);
    }
    let line_end = find_line_end(head, 12)?;
    let reason = match &head[12..line_end as usize] {
        [b' ', reason @ ..] => reason,
        [] => &[],
        _ => return Err(Uncut::Wrong),
    };
    Ok(StatusLine {
        status: digits[0] * 100 + digits[1] * 10 + digits[2],
        reason,
        version,
        end: line_end + 2,
    })
}

/// A head that has been cut into lines, held against the rules.
#[inline(always)]
fn checked_response<'s>(
    head: &'s [u8],
    line: &StatusLine<'s>,
    cut: &Cut,
    lines: &'s mut [Line],
    asked: ResponseContext,
) -> Result<ResponseHead<'s>, Violation> {
    let StatusLine { status, reason, version, .. } = *line;
    if status < 100 {
        return Err(Violation::StatusLine);
    }
    let lines = &mut lines[..cut.count as usize];
    let mut seen = Seen::default();
    seen.read_all(head, lines, cut.kinds());
    let fields = seen.fields(head, lines, cut)?;
    let upgrade = if matches!(status, 101 | 426) { seen.upgrade() } else { None };
    if status == 101 && (!asked.upgrade || version == 10 || upgrade.is_none()) {
        return Err(Violation::UnexpectedSwitch);
    }

    // RFC 9112 §6.3: these end with their head, whatever it says; the first two may not even say it.
    let (framing, content_length) = if status < 200 || status == 204 {
        (Framing::None, None)
    } else {
        let declared = match seen.coded {
            false => seen.length()?.map_or(Framing::Close, Framing::Length),
            true => seen.chunked(version)?,
        };
        let content_length = if let Framing::Length(n) = declared { Some(n) } else { None };
        (if asked.head || status == 304 { Framing::None } else { declared }, content_length)
    };
    Ok(ResponseHead {
        status,
        reason,
        version,
        fields,
        framing,
        content_length,
        keep_alive: framing != Framing::Close && seen.keep_alive(version),
        keep_alive_timeout: seen.keep_alive_timeout,
        upgrade,
        has_date: fields.has(HeaderKind::Date),
        nominates: seen.options > 0,
    })
}
