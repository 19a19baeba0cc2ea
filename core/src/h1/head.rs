//! Heads of requests and answers: what their lines say, held against the rules.

use super::diagnose::{Start, diagnose};
use super::framing_fields::FramingFields;
use super::head_end::{empty_lines, too_large};
use super::parsed::{FieldIndex, HeadLimits, ParsedRequest, ParsedResponse, ResponseContext};
use super::scan::{LONGEST, ParsedLines, ScanError, expect, field_lines, find_gap, find_line_end};
use super::upgrade::carries_http;
use crate::http::fields::{FieldLine, is_token};
use crate::http::target::valid_host;
use crate::http::{Framing, HeaderKind, Method, RequestTarget, StatusCode, Version, Violation};

/// Reads a complete head of a request: `buf` ends with its empty line.
pub fn parse_request<'s>(
    buf: &'s [u8],
    store: &'s mut FieldIndex,
    limits: &HeadLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<ParsedRequest<'s>, Violation> {
    match parse_request_prefix(buf, store, limits, scratch) {
        Ok(Some((request, n))) if n == buf.len() => Ok(request),
        Err(ParseError::Violation(violation)) => Err(violation),
        _ => {
            if buf.len() > limits.head_bytes {
                return Err(too_large(buf, limits));
            }
            Err(diagnose(&buf[empty_lines(buf)?..], Start::Request))
        }
    }
}

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

#[cold]
fn not_cut<T>(uncut: ScanError) -> Result<Option<T>, ParseError> {
    match uncut {
        ScanError::Partial => Ok(None),
        ScanError::Wrong => Err(ParseError::Malformed),
        ScanError::TooMany => Err(ParseError::Violation(Violation::TooManyFields)),
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
) -> Result<Option<(ParsedRequest<'s>, usize)>, ParseError> {
    let blank = if matches!(buf, [b'\r' | b'\n', ..]) { empty_lines(buf)? } else { 0 };
    let head = clipped(&buf[blank..]);
    let lines = store.room(limits);
    let (start, cut) =
        match request_line(head).and_then(|start| Ok((field_lines(head, start.end, lines, false)?, start))) {
            Ok((cut, start)) => (start, cut),
            Err(uncut) => return not_cut(uncut),
        };
    let n = cut.end as usize;
    if blank + n > limits.head_bytes {
        return Err(ParseError::Violation(too_large(&buf[..blank + n], limits)));
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
    version: Version,
    /// Where the field lines begin.
    end: u32,
}

/// Method, target and version, one blank between each two (RFC 9112 §3). What the target is made of is not
/// looked at.
#[inline(always)]
fn request_line(head: &[u8]) -> Result<RequestLine<'_>, ScanError> {
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
        return Err(ScanError::Wrong);
    }
    expect(head, at + 8, b'\r')?;
    expect(head, at + 9, b'\n')?;
    Ok(RequestLine { method, target, version, end: target_end + 11 })
}

#[inline(always)]
fn version(head: &[u8], at: usize) -> Result<Version, ScanError> {
    const HTTP_1_1: u64 = u64::from_le_bytes(*b"HTTP/1.1");
    const HTTP_1_0: u64 = u64::from_le_bytes(*b"HTTP/1.0");
    match head.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u64::from_le_bytes(*bytes)) {
        Some(HTTP_1_1) => Ok(Version::HTTP_11),
        Some(HTTP_1_0) => Ok(Version::HTTP_10),
        Some(_) => Err(ScanError::Wrong),
        None => Err(short_version(head.get(at..).unwrap_or_default())),
    }
}

/// A version that ends too early is not waited for if it cannot become one: the whole head may be there.
#[cold]
fn short_version(text: &[u8]) -> ScanError {
    if b"HTTP/1.1".starts_with(text) || b"HTTP/1.0".starts_with(text) {
        ScanError::Partial
    } else {
        ScanError::Wrong
    }
}

/// A head that has been cut into lines, held against the rules.
#[inline(always)]
fn checked_request<'s>(
    head: &'s [u8],
    line: &RequestLine<'s>,
    cut: &ParsedLines,
    lines: &'s mut [FieldLine],
    limits: &HeadLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<ParsedRequest<'s>, Violation> {
    let RequestLine { method, target: raw, version, .. } = *line;
    let method = Method::from_bytes(method).map_err(|_| Violation::Method)?;
    if raw.len() > limits.target_bytes {
        return Err(Violation::TargetTooLong);
    }
    let lines = &mut lines[..cut.count as usize];
    let mut seen = FramingFields::default();
    seen.read_all(head, lines, cut.kinds());
    let fields = seen.fields(head, lines, cut)?;
    let target = RequestTarget::parse(&method, raw, scratch)?;
    let host = match seen.hosts {
        1 if valid_host(seen.host) => target.authority.unwrap_or(seen.host),
        1 => return Err(Violation::Host),
        0 if version == Version::HTTP_11 => return Err(Violation::MissingHost),
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
    if method == Method::TRACE && !framing.is_empty() {
        return Err(Violation::TraceContent);
    }
    // HTTP/1.0 knows no expectations and no upgrades: ignored (RFC 9110 §7.8, §10.1.1).
    if seen.strange_expectation && version == Version::HTTP_11 {
        return Err(Violation::Expectation);
    }
    Ok(ParsedRequest {
        target,
        version,
        fields,
        framing,
        host,
        keep_alive: seen.keep_alive(version),
        expect_continue: seen.expect_continue && version == Version::HTTP_11 && !framing.is_empty(),
        upgrade: seen.upgrade().filter(|protocols| version == Version::HTTP_11 && !carries_http(protocols)),
        is_head: method == Method::HEAD,
        te_trailers: seen.te_trailers,
        max_forwards: if matches!(method, Method::OPTIONS | Method::TRACE) {
            seen.max_forwards
        } else {
            None
        },
        method,
        lists_fields: seen.options > 0,
    })
}

/// Reads a complete head of an answer: `buf` ends with its empty line.
pub fn parse_response<'s>(
    buf: &'s [u8],
    store: &'s mut FieldIndex,
    limits: &HeadLimits,
    asked: ResponseContext,
) -> Result<ParsedResponse<'s>, Violation> {
    match parse_response_prefix(buf, store, limits, asked) {
        Ok(Some((response, n))) if n == buf.len() => Ok(response),
        Err(ParseError::Violation(violation)) => Err(violation),
        _ if buf.len() > limits.head_bytes => Err(Violation::HeadTooLarge),
        _ => Err(diagnose(buf, Start::Response)),
    }
}

/// Reads the head of an answer at the front of `buf`, as [`request_before`] does for requests.
#[inline]
pub fn parse_response_prefix<'s>(
    buf: &'s [u8],
    store: &'s mut FieldIndex,
    limits: &HeadLimits,
    asked: ResponseContext,
) -> Result<Option<(ParsedResponse<'s>, usize)>, ParseError> {
    let head = clipped(buf);
    let lines = store.room(limits);
    let (start, cut) =
        match status_line(head).and_then(|start| Ok((field_lines(head, start.end, lines, true)?, start))) {
            Ok((cut, start)) => (start, cut),
            Err(uncut) => return not_cut(uncut),
        };
    let n = cut.end as usize;
    if n > limits.head_bytes {
        return Err(ParseError::Violation(Violation::HeadTooLarge));
    }
    let response = checked_response(&head[..n], &start, &cut, lines, asked)?;
    Ok(Some((response, n)))
}

/// A status line, cut.
struct StatusLine<'a> {
    status: StatusCode,
    reason: &'a [u8],
    version: Version,
    /// Where the field lines begin.
    end: u32,
}

/// Version, status and reason (RFC 9112 §4), the last one with its blank or neither.
#[inline(always)]
fn status_line(head: &[u8]) -> Result<StatusLine<'_>, ScanError> {
    let version = version(head, 0)?;
    let &[b' ', a, b, c] = head.get(8..12).and_then(<[u8]>::first_chunk).ok_or(ScanError::Partial)? else {
        return Err(ScanError::Wrong);
    };
    let digits = [a, b, c].map(|d| u16::from(d.wrapping_sub(b'0')));
    if digits.iter().any(|&d| d > 9) {
        return Err(ScanError::Wrong);
    }
    let line_end = find_line_end(head, 12)?;
    let reason = match &head[12..line_end as usize] {
        [b' ', reason @ ..] => reason,
        [] => &[],
        _ => return Err(ScanError::Wrong),
    };
    Ok(StatusLine {
        status: StatusCode::from_u16(digits[0] * 100 + digits[1] * 10 + digits[2])
            .map_err(|_| ScanError::Wrong)?,
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
    cut: &ParsedLines,
    lines: &'s mut [FieldLine],
    asked: ResponseContext,
) -> Result<ParsedResponse<'s>, Violation> {
    let StatusLine { status, reason, version, .. } = *line;
    let lines = &mut lines[..cut.count as usize];
    let mut seen = FramingFields::default();
    seen.read_all(head, lines, cut.kinds());
    let fields = seen.fields(head, lines, cut)?;
    let upgrade = if matches!(status.as_u16(), 101 | 426) { seen.upgrade() } else { None };
    if status == StatusCode::SWITCHING_PROTOCOLS
        && (!asked.upgrade || version == Version::HTTP_10 || upgrade.is_none())
    {
        return Err(Violation::UnexpectedSwitch);
    }

    // RFC 9112 §6.3: these end with their head, whatever it says; the first two may not even say it.
    let (framing, content_length) = if status.is_informational() || status == StatusCode::NO_CONTENT {
        (Framing::None, None)
    } else {
        let declared = match seen.coded {
            false => seen.length()?.map_or(Framing::Close, Framing::Length),
            true => seen.chunked(version)?,
        };
        let content_length = if let Framing::Length(n) = declared { Some(n) } else { None };
        (
            if asked.head || status == StatusCode::NOT_MODIFIED { Framing::None } else { declared },
            content_length,
        )
    };
    Ok(ParsedResponse {
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
        lists_fields: seen.options > 0,
    })
}
