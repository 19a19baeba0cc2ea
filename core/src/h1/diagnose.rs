//! Which rule a refused head breaks. Only refused heads come here: one linear walk, line by line.

use crate::http::Violation;
use crate::http::fields::is_token;

/// What a section of lines begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// A request line.
    Request,
    /// A status line.
    Response,
    /// A field line: the section is one of trailers.
    Field,
}

impl Start {
    /// The rule that is said to be broken where no other is found.
    fn violation(self) -> Violation {
        match self {
            Self::Request => Violation::StartLine,
            Self::Response => Violation::StatusLine,
            Self::Field => Violation::FieldName,
        }
    }
}

/// The first rule that these lines break. They were refused: if no other rule is found, it is that of the
/// first line.
#[cold]
pub(super) fn diagnose(lines: &[u8], start: Start) -> Violation {
    let mut kind = start;
    for line in lines.split_inclusive(|&b| b == b'\n') {
        if kind == Start::Field && line == b"\r\n" {
            break;
        }
        if let Some(violation) = line_violation(line, kind, start) {
            return violation;
        }
        kind = Start::Field;
    }
    start.violation()
}

/// Whether the start line and the first `fields` field lines break no rule but that of the target, which is
/// judged after them.
#[cold]
pub(super) fn lines_are_right(lines: &[u8], fields: usize, start: Start) -> bool {
    let before = usize::from(start != Start::Field);
    lines.split_inclusive(|&b| b == b'\n').take(before + fields).enumerate().all(|(n, line)| {
        let kind = if n == 0 { start } else { Start::Field };
        matches!(line_violation(line, kind, start), None | Some(Violation::Target))
    })
}

/// The rule that one line, of a section that begins with `section`, breaks.
fn line_violation(line: &[u8], kind: Start, section: Start) -> Option<Violation> {
    let line = match line {
        [line @ .., b'\r', b'\n'] => line,
        [.., b'\n'] => return Some(Violation::BareLf),
        // The head ends within this line.
        _ => return Some(section.violation()),
    };
    if line.contains(&b'\r') {
        return Some(Violation::BareCr);
    }
    match kind {
        Start::Request => request_line(line),
        Start::Response => status_line(line),
        Start::Field => field_line(line, section),
    }
}

fn request_line(line: &[u8]) -> Option<Violation> {
    let mut parts = line.splitn(3, |&b| b == b' ');
    let method = parts.next().unwrap_or_default();
    if !is_token(method) {
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
    if matches!(line, [b' ' | b'\t', ..]) {
        return Some(Violation::ObsFold);
    }
    let Some(colon) = line.iter().position(|&b| b == b':') else { return Some(Violation::FieldName) };
    let (name, value) = line.split_at(colon);
    let bare = name.trim_ascii_end();
    if !is_token(bare) {
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
