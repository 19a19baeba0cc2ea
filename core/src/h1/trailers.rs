//! Trailer sections (RFC 9112 §7.1.2): found, read and filtered.

use super::diagnose::{Start, diagnose};
use super::head::{HeadLimits, find_empty_line};
use crate::http::fields::offset;
use crate::http::{Field, Known, Violation};

/// The most trailer fields a message can have.
pub const MAX_TRAILERS: usize = 64;

/// Room for the fields of a trailer section.
pub struct TrailerStore<'b> {
    headers: [httparse::Header<'b>; MAX_TRAILERS],
}

impl TrailerStore<'_> {
    /// Empty room.
    #[must_use]
    pub fn new() -> Self {
        Self { headers: [httparse::EMPTY_HEADER; MAX_TRAILERS] }
    }
}

impl Default for TrailerStore<'_> {
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

/// The fields of a trailer section that may pass (RFC 9110 §6.5.1): none that frames, routes, authenticates, controls or describes content.
#[derive(Clone, Copy, Debug)]
pub struct TrailerFields<'a> {
    headers: &'a [httparse::Header<'a>],
}

impl<'a> TrailerFields<'a> {
    /// Them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let headers = self.headers;
        let fields = headers.iter().map(|h| Field { name: h.name.as_bytes(), value: h.value, known: Known::Other });
        fields.filter(|f| may_trail(f.name))
    }
}

/// Reads a trailer section that begins at `buf[0]` and of which the first `from` bytes were already looked at.
pub fn trailers<'s, 'b: 's>(
    buf: &'b [u8],
    from: usize,
    store: &'s mut TrailerStore<'b>,
    limits: &HeadLimits,
) -> Result<Trailers<'s>, Violation> {
    let end = match buf {
        [] | [b'\r'] => None,
        [b'\r', b'\n', ..] => Some(2),
        [b'\r', ..] => return Err(Violation::BareCr),
        _ => find_empty_line(buf, 0, from)?,
    };
    let len = match end {
        Some(len) if len <= limits.head_bytes => len,
        None if buf.len() < limits.head_bytes => return Ok(Trailers::Partial),
        _ => return Err(Violation::TrailersTooLarge),
    };
    let section = &buf[..len];
    let headers = match httparse::parse_headers(section, &mut store.headers[..limits.fields.min(MAX_TRAILERS)]) {
        Ok(httparse::Status::Complete((n, headers))) if n == len => headers,
        Err(httparse::Error::TooManyHeaders) => return Err(Violation::TrailersTooLarge),
        _ => return Err(diagnose(section, Start::Field)),
    };
    // As in a head: httparse lets a bare LF end a line.
    for header in headers.iter().skip(1) {
        if section.get(offset(section, header.name.as_bytes()).wrapping_sub(2)) != Some(&b'\r') {
            return Err(Violation::BareLf);
        }
    }
    Ok(Trailers::Done { len, fields: TrailerFields { headers } })
}

fn may_trail(name: &[u8]) -> bool {
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
    Known::of(name) == Known::Other
        && !PREFIXES.iter().any(|p| name.get(..p.len()).is_some_and(|n| n.eq_ignore_ascii_case(p.as_bytes())))
        && !NAMES.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{HeadLimits, TrailerStore, Trailers, trailers};
    use crate::http::Violation;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 200, fields: 5, target_bytes: 10 };

    /// `None` for more to come, else the fields that pass.
    fn read(raw: &str) -> Result<Option<String>, Violation> {
        let mut store = TrailerStore::new();
        let whole = match trailers(raw.as_bytes(), 0, &mut store, &LIMITS)? {
            Trailers::Partial => None,
            Trailers::Done { len, fields } => {
                assert!(len == 2 || raw[..len].ends_with("\r\n\r\n"), "{raw:?}");
                let text: Vec<String> =
                    fields.iter().map(|f| format!("{}={}", String::from_utf8_lossy(f.name), String::from_utf8_lossy(f.value))).collect();
                Some((len, text.join(" ")))
            }
        };
        // A byte at a time, resuming, comes to the same.
        for n in 0..raw.len() {
            let mut store = TrailerStore::new();
            match trailers(&raw.as_bytes()[..n], n.saturating_sub(1), &mut store, &LIMITS)? {
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
