//! Which rule a refused head broke. Only bad heads come here: one linear walk, line by line.

use crate::http::Violation;
use crate::http::fields::is_token_char;

/// What a section of lines begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Request,
    Response,
    /// Trailers: with a field at once.
    Field,
}

/// The first rule that these lines break. For bytes that were refused: if nothing is found, the start line is
/// blamed.
#[cold]
pub(super) fn diagnose(lines: &[u8], start: Start) -> Violation {
    let otherwise = match start {
        Start::Request => Violation::StartLine,
        Start::Response => Violation::StatusLine,
        Start::Field => Violation::FieldName,
    };
    let mut first = start;
    for line in lines.split_inclusive(|&b| b == b'\n') {
        let line = match line {
            [line @ .., b'\r', b'\n'] => line,
            [_, .., b'\n'] | [b'\n'] => return Violation::BareLf,
            // Without an end: the head is cut.
            _ => return otherwise,
        };
        if line.contains(&b'\r') {
            return Violation::BareCr;
        }
        let broken = match first {
            Start::Request => request_line(line),
            Start::Response => status_line(line),
            Start::Field if line.is_empty() => return otherwise,
            Start::Field => field_line(line, start),
        };
        if let Some(violation) = broken {
            return violation;
        }
        first = Start::Field;
    }
    otherwise
}

fn request_line(line: &[u8]) -> Option<Violation> {
    let mut parts = line.splitn(3, |&b| b == b' ');
    let method = parts.next().unwrap_or_default();
    if method.is_empty() || !method.iter().all(|&b| is_token_char(b)) {
        return Some(Violation::Method);
    }
    let (Some(target), Some(version)) = (parts.next(), parts.next()) else {
        return Some(Violation::StartLine);
    };
    if target.is_empty() {
        return Some(Violation::StartLine);
    }
    if !target.iter().all(|b| matches!(b, b'!'..=b'~')) {
        return Some(Violation::Target);
    }
    bad_version(version, Violation::StartLine)
}

fn status_line(line: &[u8]) -> Option<Violation> {
    let (version, rest) = line.split_at(line.len().min(8));
    if let Some(violation) = bad_version(version, Violation::StatusLine) {
        return Some(violation);
    }
    match rest {
        [b' ', a, b, c, reason @ ..]
            if [a, b, c].iter().all(|d| d.is_ascii_digit())
                && matches!(reason, [] | [b' ', ..])
                && !reason.iter().any(|&b| is_control(b)) =>
        {
            None
        }
        _ => Some(Violation::StatusLine),
    }
}

fn bad_version(version: &[u8], otherwise: Violation) -> Option<Violation> {
    match version {
        b"HTTP/1.0" | b"HTTP/1.1" => None,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Some(Violation::Version)
        }
        _ => Some(otherwise),
    }
}

fn field_line(line: &[u8], section: Start) -> Option<Violation> {
    if matches!(line[0], b' ' | b'\t') {
        return Some(Violation::ObsFold);
    }
    let Some(colon) = line.iter().position(|&b| b == b':') else { return Some(Violation::FieldName) };
    let (name, value) = line.split_at(colon);
    let bare = name.trim_ascii_end();
    if bare.is_empty() || !bare.iter().all(|&b| is_token_char(b)) {
        return Some(Violation::FieldName);
    }
    if bare.len() != name.len() && section != Start::Response {
        return Some(Violation::BlankBeforeColon);
    }
    value.iter().any(|&b| is_control(b)).then_some(Violation::FieldValue)
}

fn is_control(b: u8) -> bool {
    b < b' ' && b != b'\t' || b == 0x7f
}
