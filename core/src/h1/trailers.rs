//! Trailer sections (RFC 9112 §7.1.2): found, read and filtered.

use super::diagnose::{Start, diagnose};
use super::head_end::find_empty_line;
use super::parsed::HeadLimits;
use super::scan::{LONGEST, ScanError, field_lines};
use crate::http::fields::FieldLine;
use crate::http::{Field, HeaderKind, Violation};

/// The most trailer fields a message can have.
pub const MAX_TRAILERS: usize = 64;

/// Room for the fields of a trailer section.
pub struct TrailerIndex {
    lines: [FieldLine; MAX_TRAILERS],
}

impl TrailerIndex {
    /// Empty room.
    #[must_use]
    pub fn new() -> Self {
        Self { lines: [FieldLine::EMPTY; MAX_TRAILERS] }
    }
}

impl Default for TrailerIndex {
    fn default() -> Self {
        Self::new()
    }
}

/// A trailer section, or the wait for one.
#[derive(Clone, Copy, Debug)]
pub enum Trailers<'a> {
    /// Not all of it is there.
    Partial,
    /// All of it.
    Done {
        /// Bytes with the empty line.
        len: usize,
        /// The fields that may pass.
        fields: TrailerFields<'a>,
    },
}

/// The fields of a trailer section that may pass (RFC 9110 §6.5.1): none that frames, routes, authenticates,
/// controls or describes content.
#[derive(Clone, Copy, Debug)]
pub struct TrailerFields<'a> {
    section: &'a [u8],
    lines: &'a [FieldLine],
}

impl<'a> TrailerFields<'a> {
    /// Them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let (section, lines) = (self.section, self.lines);
        lines.iter().map(|line| line.field(section)).filter(may_trail)
    }
}

/// Reads a trailer section that begins at `buf[0]` and of which the first `from` bytes were already looked
/// at.
pub fn parse_trailers<'s>(
    buf: &'s [u8],
    from: usize,
    store: &'s mut TrailerIndex,
    limits: &HeadLimits,
) -> Result<Trailers<'s>, Violation> {
    let end = match buf {
        [] | [b'\r'] => None,
        [b'\r', b'\n', ..] => Some(2),
        [b'\r', ..] => return Err(Violation::BareCr),
        _ => find_empty_line(buf, 0, from)?,
    };
    let len = match end {
        Some(len) if len <= limits.head_bytes.min(LONGEST) => len,
        None if buf.len() < limits.head_bytes => return Ok(Trailers::Partial),
        _ => return Err(Violation::TrailersTooLarge),
    };
    let section = &buf[..len];
    let room = &mut store.lines[..limits.fields.min(MAX_TRAILERS)];
    match field_lines(section, 0, room, false) {
        Ok(cut) if cut.end as usize == len => {
            Ok(Trailers::Done { len, fields: TrailerFields { section, lines: &room[..cut.count as usize] } })
        }
        Err(ScanError::TooMany) => Err(Violation::TrailersTooLarge),
        _ => Err(diagnose(section, Start::Field)),
    }
}

fn may_trail(field: &Field<'_>) -> bool {
    let name = field.name;
    const PREFIXES: [&str; 4] = ["content-", "if-", "x-forwarded-", "proxy-"];
    const NAMES: [&str; 12] = [
        "age",
        "allow",
        "expires",
        "forwarded",
        "http2-settings",
        "location",
        "pragma",
        "range",
        "vary",
        "warning",
        "www-authenticate",
        "accept-ranges",
    ];
    field.kind == HeaderKind::Other
        && !PREFIXES.iter().any(|p| name.get(..p.len()).is_some_and(|n| n.eq_ignore_ascii_case(p.as_bytes())))
        && !NAMES.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{HeadLimits, TrailerIndex, Trailers, parse_trailers};
    use crate::http::Violation;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 200, fields: 5, target_bytes: 10 };

    /// `None` for more to come, else the fields that pass.
    fn read(raw: &str) -> Result<Option<String>, Violation> {
        let mut store = TrailerIndex::new();
        let whole = match parse_trailers(raw.as_bytes(), 0, &mut store, &LIMITS)? {
            Trailers::Partial => None,
            Trailers::Done { len, fields } => {
                assert!(len == 2 || raw[..len].ends_with("\r\n\r\n"), "{raw:?}");
                let text: Vec<String> = fields
                    .iter()
                    .map(|f| {
                        format!("{}={}", String::from_utf8_lossy(f.name), String::from_utf8_lossy(f.value))
                    })
                    .collect();
                Some((len, text.join(" ")))
            }
        };
        // A byte at a time, resuming, comes to the same.
        for n in 0..raw.len() {
            let mut store = TrailerIndex::new();
            match parse_trailers(&raw.as_bytes()[..n], n.saturating_sub(1), &mut store, &LIMITS)? {
                Trailers::Partial => {}
                Trailers::Done { len, .. } => assert_eq!(Some(len), whole.as_ref().map(|w| w.0)),
            }
        }
        Ok(whole.map(|(_, text)| text))
    }

    #[test]
    fn sections() {
        let many = "A: b\r\n".repeat(6) + "\r\n";
        let long = format!("A: {}\r\n\r\n", "x".repeat(300));
        let table: &[(&str, Result<Option<&str>, Violation>)] = &[
            ("", Ok(None)),
            ("\r", Ok(None)),
            ("\r\n", Ok(Some(""))),
            ("\r\nGET", Ok(Some(""))),
            ("A: b\r\n", Ok(None)),
            ("A: b\r\n\r", Ok(None)),
            ("A: b\r\n\r\nrest", Ok(Some("A=b"))),
            ("A: b\r\nGrpc-Status:0\r\n\r\n", Ok(Some("A=b Grpc-Status=0"))),
            ("Content-Length: 3\r\nA: b\r\nHost: x\r\n\r\n", Ok(Some("A=b"))),
            ("Transfer_Encoding: x\r\nX-Forwarded-For: 1\r\n\r\n", Ok(Some(""))),
            ("Authorization: a\r\nCookie: b\r\nSet-Cookie: c\r\n\r\n", Ok(Some(""))),
            ("Content-Type: a\r\nIF-Match: b\r\nVary: c\r\nETag: d\r\n\r\n", Ok(Some("ETag=d"))),
            ("A: b\n\r\n", Err(Violation::BareLf)),
            ("\n", Err(Violation::BareLf)),
            ("\rA", Err(Violation::BareCr)),
            ("A: b\rc\r\n\r\n", Err(Violation::BareCr)),
            ("A : b\r\n\r\n", Err(Violation::BlankBeforeColon)),
            ("A: b\r\n c\r\n\r\n", Err(Violation::ObsFold)),
            (" A: b\r\n\r\n", Err(Violation::ObsFold)),
            ("A\r\n\r\n", Err(Violation::FieldName)),
            ("A: \0\r\n\r\n", Err(Violation::FieldValue)),
            (&many, Err(Violation::TrailersTooLarge)),
            (&long, Err(Violation::TrailersTooLarge)),
        ];
        for (raw, expected) in table {
            assert_eq!(read(raw), expected.map(|e| e.map(str::to_owned)), "{raw:?}");
        }
    }
}
