//! Where a head ends, found piece by piece: no byte is searched twice, so a head that comes a byte at a time
//! costs no more than its length. Nothing here parses it.

use std::sync::LazyLock;

use memchr::{memchr_iter, memmem};

use super::head_limits::HeadLimits;
use crate::http::Violation;
use crate::http::fields::is_token_char;

/// Empty lines that may precede a request line (RFC 9112 §2.2 asks for at least one).
const EMPTY_LINES: usize = 4;

/// Looks for the end of a request's head in `buf`, the first `from` bytes of which were searched before.
/// `Some(end)` is the length of the head with the empty lines before it and the empty line behind it. If
/// there is none and the buffer is full or `head_bytes` are reached: see [`too_large`].
///
/// # Errors
/// The rule that the bytes break, if no head can begin with them.
pub fn find_request_end(buf: &[u8], from: usize) -> Result<Option<usize>, Violation> {
    let start = empty_lines(buf)?;
    // TLS or binary data on this port is refused with its first bytes: an end may never come.
    for &b in buf[start..].iter().take(16).take_while(|&&b| !matches!(b, b' ' | b'\r' | b'\n')) {
        if !is_token_char(b) {
            return Err(Violation::Method);
        }
    }
    find_empty_line(buf, start, from)
}

/// Looks for the end of a response's head in `buf`, the first `from` bytes of which were searched before.
/// `Some(end)` is the length of the head with its empty line.
///
/// # Errors
/// The rule that the bytes break, if no head can begin with them.
pub fn find_response_end(buf: &[u8], from: usize) -> Result<Option<usize>, Violation> {
    let expected = b"HTTP/1.";
    let n = buf.len().min(expected.len());
    if buf[..n] != expected[..n] {
        return Err(if buf.starts_with(b"HTTP/") { Violation::Version } else { Violation::StatusLine });
    }
    find_empty_line(buf, 0, from)
}

/// The rule that a request's head breaks which has no end within its limit: that of the target, if the target
/// alone is too long.
#[must_use]
#[cold]
pub fn too_large(buf: &[u8], limits: &HeadLimits) -> Violation {
    let start = empty_lines(buf).unwrap_or(0);
    let line = buf[start..].split(|&b| b == b'\n').next().unwrap_or_default();
    let target = line.splitn(3, |&b| b == b' ').nth(1);
    if target.is_some_and(|t| t.len() > limits.target_bytes) {
        Violation::TargetTooLong
    } else {
        Violation::HeadTooLarge
    }
}

/// How many bytes of empty lines `buf` begins with.
pub(super) fn empty_lines(buf: &[u8]) -> Result<usize, Violation> {
    let mut at = 0;
    while let Some(b @ (b'\r' | b'\n')) = buf.get(at) {
        match (b, buf.get(at + 1)) {
            _ if at == 2 * EMPTY_LINES => return Err(Violation::StartLine),
            (b'\n', _) => return Err(Violation::BareLf),
            (_, None) => break,
            (_, Some(b'\n')) => at += 2,
            _ => return Err(Violation::BareCr),
        }
    }
    Ok(at)
}

/// Built once: building it takes longer than a search through a small head.
static EMPTY_LINE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\r\n\r\n"));

/// The end of the empty line that ends a section of lines. The section begins at `start`, and not with an
/// empty line. A bare LF is an error here only while the section has no end, so that a sender is not waited
/// for whose lines are wrong already; in a whole section the parser finds it.
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
