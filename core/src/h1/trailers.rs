//! Trailer sections (RFC 9112 §7.1.2): found, parsed and filtered.

use httparse::{EMPTY_HEADER, Error, Status};

use super::diagnose::{Start, diagnose, lines_are_right};
use super::field_lines::ParsedLines;
use super::head_end::find_empty_line;
use super::head_limits::HeadLimits;
use crate::http::fields::FieldLine;
use crate::http::{Field, Violation, may_trail};

/// The most trailer fields that a message can have.
pub const MAX_TRAILERS: usize = 64;
/// The most bytes of a trailer section, however long heads may be: it lies in the page of the content.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// Where the fields of a trailer section lie: written by [`parse_trailers`] and borrowed by what it returns.
pub struct TrailerIndex {
    lines: [FieldLine; MAX_TRAILERS],
}

impl TrailerIndex {
    /// An empty index.
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

/// What [`parse_trailers`] found.
#[derive(Clone, Copy, Debug)]
pub enum Trailers<'a> {
    /// The section is not complete.
    Partial,
    /// The section is complete.
    Done {
        /// Bytes of the section with its empty line.
        len: usize,
        /// The fields that may be forwarded.
        fields: TrailerFields<'a>,
    },
}

/// The fields of a trailer section that may be forwarded (RFC 9110 §6.5.1): none that frames, routes,
/// authenticates, controls or describes content.
#[derive(Clone, Copy, Debug)]
pub struct TrailerFields<'a> {
    section: &'a [u8],
    lines: &'a [FieldLine],
}

impl<'a> TrailerFields<'a> {
    /// The fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let (section, lines) = (self.section, self.lines);
        lines.iter().map(|line| line.field(section)).filter(may_trail)
    }
}

/// Parses the trailer section at the front of `buf`, the first `from` bytes of which were searched for its
/// end before.
///
/// # Errors
/// The rule that the section breaks, or will break however it goes on.
pub fn parse_trailers<'s>(
    buf: &'s [u8],
    from: usize,
    index: &'s mut TrailerIndex,
    limits: &HeadLimits,
) -> Result<Trailers<'s>, Violation> {
    let end = match buf {
        [] | [b'\r'] => None,
        [b'\r', b'\n', ..] => Some(2),
        [b'\r', ..] => return Err(Violation::BareCr),
        _ => find_empty_line(buf, 0, from)?,
    };
    let len = match end {
        Some(len) if len <= limits.head_bytes.min(MAX_TRAILER_BYTES) => len,
        None if buf.len() < limits.head_bytes.min(MAX_TRAILER_BYTES) => return Ok(Trailers::Partial),
        _ => return Err(Violation::TrailersTooLarge),
    };
    let section = &buf[..len];
    let lines = &mut index.lines[..limits.fields.min(MAX_TRAILERS)];
    let most = lines.len();
    let mut room = [EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(section, &mut room[..most]) {
        Ok(Status::Complete((n, headers))) if n == len => {
            if let Some(parsed) = ParsedLines::index(section, headers, lines) {
                let lines = &lines[..parsed.count];
                return Ok(Trailers::Done { len, fields: TrailerFields { section, lines } });
            }
        }
        Err(Error::TooManyHeaders) if lines_are_right(section, most + 1, Start::Field) => {
            return Err(Violation::TrailersTooLarge);
        }
        _ => {}
    }
    Err(diagnose(section, Start::Field))
}

#[cfg(test)]
mod tests {
    use super::{HeadLimits, TrailerIndex, Trailers, parse_trailers};
    use crate::http::Violation;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 200, fields: 5, target_bytes: 10 };

    /// `None` for more to come, else the fields that pass.
    fn read(raw: &str) -> Result<Option<String>, Violation> {
        let mut index = TrailerIndex::new();
        let whole = match parse_trailers(raw.as_bytes(), 0, &mut index, &LIMITS)? {
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
            let mut index = TrailerIndex::new();
            match parse_trailers(&raw.as_bytes()[..n], n.saturating_sub(1), &mut index, &LIMITS)? {
                Trailers::Partial => {}
                Trailers::Done { len, .. } => assert_eq!(Some(len), whole.as_ref().map(|w| w.0)),
            }
        }
        Ok(whole.map(|(_, text)| text))
    }

    #[test]
    fn sections() {
        let many = "A: b\r\n".repeat(6) + "\r\n";
        let bad_behind_them = "A: b\r\n".repeat(5) + "A: b\n\r\n";
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
            ("X-Remote-User: a\r\nx_remote_user: b\r\n\r\n", Ok(Some(""))),
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
            (&bad_behind_them, Err(Violation::BareLf)),
            (&long, Err(Violation::TrailersTooLarge)),
        ];
        for (raw, expected) in table {
            assert_eq!(read(raw), expected.map(|e| e.map(str::to_owned)), "{raw:?}");
        }
    }
}
