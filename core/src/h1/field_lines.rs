//! The field lines that httparse found: checked for what it lets pass, classified, and kept as offsets.
//!
//! httparse accepts a line that ends with LF alone (RFC 9112 §2.2 allows it); here every line ends with CRLF.
//! Since httparse has looked at every byte, one comparison for each line is enough to know.

use std::mem::MaybeUninit;

use httparse::Header;

use super::framing_fields::FramingFields;
use super::parsed::MAX_FIELDS;
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

/// The field lines of a head, and what they say about framing.
pub(super) struct ParsedLines<'a> {
    /// The number of lines.
    pub(super) count: usize,
    /// The kinds of fields that are there, see [`HeaderKind::set`].
    kinds: u64,
    /// Every line is [plain](FieldLine::plain).
    plain: bool,
    /// Bytes of the start line with its CRLF.
    pub(super) start_line_len: usize,
    pub(super) framing: FramingFields<'a>,
}

impl<'a> ParsedLines<'a> {
    /// Goes through the `headers` that httparse found in `raw`, which is a whole head or trailer section, and
    /// writes their offsets to `lines`, which has room for all of them. `None` if a line does not end with
    /// CRLF.
    #[inline(always)]
    pub(super) fn index(raw: &'a [u8], headers: &[Header<'a>], lines: &mut [FieldLine]) -> Option<Self> {
        debug_assert!(raw.len() <= MAX_HEAD_BYTES);
        let base = raw.as_ptr().addr();
        let empty_line = raw.len().checked_sub(2)?;
        let mut parsed = Self {
            count: headers.len(),
            kinds: 0,
            plain: true,
            start_line_len: headers.first().map_or(empty_line, |h| h.name.as_ptr().addr() - base),
            framing: FramingFields::default(),
        };
        for (header, line) in headers.iter().zip(lines) {
            let name = header.name.as_ptr().addr() - base;
            let value = header.value.as_ptr().addr() - base;
            let value_end = value + header.value.len();
            let kind = HeaderKind::of(header.name.as_bytes());
            // Behind a value lie blanks, if any, and the end of the line.
            let mut plain = name + header.name.len() + 2 == value && raw.get(value - 1) == Some(&b' ');
            if raw.get(value_end) != Some(&b'\r') {
                plain = false;
                if !ends_with_crlf(&raw[value_end..]) {
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
            parsed.kinds |= HeaderKind::set(&[kind]);
            parsed.plain &= plain;
            if kind.in_set(FramingFields::KINDS) {
                parsed.framing.read(kind, header.value);
            }
        }
        let start_line_ends =
            parsed.start_line_len == 0 || raw.get(parsed.start_line_len - 2) == Some(&b'\r');
        (start_line_ends && raw.get(empty_line) == Some(&b'\r')).then_some(parsed)
    }

    /// The fields, of which `lines` are what [`ParsedLines::index`] wrote; those that `Connection` lists are
    /// marked.
    #[inline]
    pub(super) fn fields<'s>(
        &self,
        raw: &'s [u8],
        lines: &'s mut [FieldLine],
    ) -> Result<Fields<'s>, Violation> {
        let lines = &mut lines[..self.count];
        let kinds = if self.framing.lists_fields() {
            self.framing.mark_connection_listed(raw, lines)?
        } else {
            self.kinds
        };
        Ok(Fields::new(raw, lines, kinds, self.plain))
    }
}

/// Whether there are only blanks before the next line end, which is a CRLF. httparse accepts no other CR.
#[cold]
fn ends_with_crlf(rest: &[u8]) -> bool {
    rest.iter().find(|b| !matches!(b, b' ' | b'\t')) == Some(&b'\r')
}
