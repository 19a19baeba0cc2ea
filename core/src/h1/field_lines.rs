//! The field lines that httparse found: checked for what it lets pass, classified, and kept as offsets.
//!
//! httparse accepts a line that ends with LF alone (RFC 9112 §2.2 allows it); here every line ends with CRLF.
//! Since httparse has looked at every byte, one comparison for each line is enough to know.

use std::mem::MaybeUninit;

use httparse::Header;
use memchr::memchr;

use super::framing_fields::decimal;
use super::head_limits::MAX_FIELDS;
use crate::http::fields::FieldLine;
use crate::http::{Fields, HeaderKind, Violation};

/// Offsets in a head are kept in 16 bits, so no head may be longer.
pub(super) const MAX_HEAD_BYTES: usize = u16::MAX as usize;

/// Room for what httparse finds. It stays on the stack and is not initialised: httparse says how much of it
/// was written.
pub(super) type HeaderRoom<'a> = [MaybeUninit<Header<'a>>; MAX_FIELDS];

/// [`HeaderRoom`] without contents.
#[inline(always)]
pub(super) fn header_room<'a>() -> HeaderRoom<'a> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

/// The field lines of a head.
#[derive(Clone, Copy)]
pub(super) struct ParsedLines {
    /// The number of lines.
    pub(super) count: usize,
    /// The kinds of fields that are there, see [`HeaderKind::set`].
    pub(super) kinds: u64,
    /// The kinds that are there more than once.
    pub(super) repeated: u64,
    /// Every line is [plain](FieldLine::plain).
    pub(super) plain: bool,
    /// Bytes of the start line with its CRLF.
    pub(super) start_line_len: usize,
}

impl ParsedLines {
    /// Goes through the `headers` that httparse found in `raw`, which is a whole head or trailer section, and
    /// writes their offsets to `lines`, which has room for all of them. `None` if a line does not end with
    /// CRLF.
    #[inline(always)]
    pub(super) fn index(raw: &[u8], headers: &[Header<'_>], lines: &mut [FieldLine]) -> Option<Self> {
        debug_assert!(raw.len() <= MAX_HEAD_BYTES);
        let base = raw.as_ptr().addr();
        let empty_line = raw.len().checked_sub(2)?;
        let start_line_len = headers.first().map_or(empty_line, |h| h.name.as_ptr().addr() - base);
        let start_line_ends = start_line_len == 0 || raw.get(start_line_len - 2) == Some(&b'\r');
        if !start_line_ends || raw[empty_line] != b'\r' {
            return None;
        }
        let (mut kinds, mut repeated, mut all_plain) = (0, 0, true);
        for (header, line) in headers.iter().zip(lines) {
            let name = header.name.as_ptr().addr() - base;
            let value = header.value.as_ptr().addr() - base;
            let value_end = value + header.value.len();
            let kind = HeaderKind::of(header.name.as_bytes());
            let mut plain = name + header.name.len() + 2 == value && raw.get(value - 1) == Some(&b' ');
            // Behind a value lie blanks, if any, and the end of the line.
            if raw.get(value_end) != Some(&b'\r') {
                plain = false;
                if !ends_with_crlf(raw, value_end) {
                    return None;
                }
            }
            *line = FieldLine {
                name: name as u16,
                name_len: header.name.len() as u16,
                value: value as u16,
                value_end: value_end as u16,
                kind,
                plain,
            };
            repeated |= kinds & HeaderKind::set(&[kind]);
            kinds |= HeaderKind::set(&[kind]);
            all_plain &= plain;
        }
        Some(Self { count: headers.len(), kinds, repeated, plain: all_plain, start_line_len })
    }

    /// The `Content-Length` of these lines, if there is one (RFC 9112 §6.3).
    #[inline(always)]
    pub(super) fn content_length(&self, fields: &Fields<'_>) -> Result<Option<u64>, Violation> {
        if !HeaderKind::ContentLength.in_set(self.kinds) {
            return Ok(None);
        }
        // It is often the last line. If there are more of this kind, it does not matter which is read.
        let line = fields.lines().iter().rfind(|line| line.kind == HeaderKind::ContentLength);
        let value = line.map_or(&[][..], |line| line.value(fields.raw()));
        let once = !HeaderKind::ContentLength.in_set(self.repeated);
        match decimal(value) {
            Some(length) if once => Ok(Some(length)),
            None if once && memchr(b',', value).is_none() => {
                // Digits that no counter can hold are a length all the same (RFC 9110 §8.6).
                let number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                Err(if number { Violation::ContentTooLarge } else { Violation::Length })
            }
            _ => Err(Violation::SeveralLengths),
        }
    }
}

/// Whether only blanks lie between the end of a value and the next line end, and that is a CRLF. httparse
/// accepts no other CR.
#[cold]
fn ends_with_crlf(raw: &[u8], value_end: usize) -> bool {
    raw[value_end..].iter().find(|b| !matches!(b, b' ' | b'\t')) == Some(&b'\r')
}
