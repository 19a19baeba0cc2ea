//! The lines of a head, cut and checked in one pass, eight bytes at a time. Only what is wholly right gets
//! through; what is wrong with the rest, [`super::diagnose`] finds out.
//!
//! Own code, since this is a quarter of what a small request costs: httparse and a second walk over what it
//! had found took twice as many instructions. It serves as the oracle in the tests.

use crate::http::HeaderKind;
use crate::http::fields::{FieldLine, is_token};

/// Why a head was not cut into lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanError {
    /// Good so far, but not all there.
    Partial,
    /// Against a rule.
    Wrong,
    /// More field lines than there is room for.
    TooMany,
}

/// Offsets in a head are kept in 16 bits; no head may be that long (`limits.head_bytes`).
pub(super) const LONGEST: usize = u16::MAX as usize;

/// That the byte at `at` is `b`.
#[inline(always)]
pub(super) fn expect(buf: &[u8], at: usize, b: u8) -> Result<(), ScanError> {
    match buf.get(at) {
        Some(&found) if found == b => Ok(()),
        Some(_) => Err(ScanError::Wrong),
        None => Err(ScanError::Partial),
    }
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGH: u64 = u64::from_le_bytes([0x80; 8]);

/// The high bit of each byte that is below `n`, which is at most 128. The lowest bit set is right; one above
/// it may be a false alarm.
#[inline(always)]
const fn below(word: u64, n: u8) -> u64 {
    word.wrapping_sub(ONES * n as u64) & !word & HIGH
}

/// The same for control characters, tabs too. Behind 0xff the lowest bit may be a false alarm as well.
#[inline(always)]
const fn control(word: u64) -> u64 {
    (word.wrapping_sub(ONES * b' ' as u64) | word.wrapping_add(ONES)) & !word & HIGH
}

/// Where the first byte from `at` on is whose bit `mask` sets; the length of `buf` if there is none. Offsets
/// have 32 bits: then one comparison says whether a word is there.
#[inline(always)]
fn find(buf: &[u8], mut at: u32, mask: impl Fn(u64) -> u64) -> u32 {
    while let Some(bytes) = buf.get(at as usize..at as usize + 8).and_then(<[u8]>::first_chunk) {
        let found = mask(u64::from_le_bytes(*bytes));
        if found != 0 {
            return at + found.trailing_zeros() / 8;
        }
        at += 8;
    }
    find_in_rest(buf, at, mask)
}

/// The same where less than a word is left.
#[inline(always)]
fn find_in_rest(buf: &[u8], at: u32, mask: impl Fn(u64) -> u64) -> u32 {
    let rest = (buf.len() as u32).saturating_sub(at);
    // The last bytes, and zeros behind them.
    let last = match buf.last_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes).checked_shr(64 - 8 * rest).unwrap_or(0),
        None => buf.iter().skip(at as usize).rev().fold(0, |word, &b| word << 8 | u64::from(b)),
    };
    at + rest.min(mask(last).trailing_zeros() / 8)
}

/// The first blank or control character from `at` on.
#[inline(always)]
pub(super) fn find_gap(buf: &[u8], at: u32) -> u32 {
    find(buf, at, |word| below(word, b' ' + 1))
}

/// Where the text that begins at `at` ends with CRLF. It has no control characters but tabs (RFC 9110 §5.5).
#[inline(always)]
pub(super) fn find_line_end(buf: &[u8], at: u32) -> Result<u32, ScanError> {
    let end = find(buf, at, control);
    // It nearly always is as it should be.
    if let Some(b"\r\n") = buf.get(end as usize..end as usize + 2) {
        Ok(end)
    } else {
        find_line_end_slowly(buf, end)
    }
}

/// The same behind a tab, a false alarm, or where it is not so.
#[cold]
fn find_line_end_slowly(buf: &[u8], from: u32) -> Result<u32, ScanError> {
    let is_control = |b: &u8| b.is_ascii_control() && *b != b'\t';
    let end = buf.iter().skip(from as usize).position(is_control).map_or(buf.len(), |at| from as usize + at);
    expect(buf, end, b'\r')?;
    expect(buf, end + 1, b'\n')?;
    Ok(end as u32)
}

/// What [`field_lines`] has cut.
#[derive(Clone, Copy)]
pub(super) struct ParsedLines {
    /// Field lines.
    pub(super) count: u32,
    /// Where the empty line behind them ends.
    pub(super) end: u32,
    /// The kinds of fields that are there, and [`NOT_PLAIN`].
    sum: u64,
}

/// A line is not [plain](FieldLine::plain): a bit that no kind has.
const NOT_PLAIN: u64 = 1 << 63;

impl ParsedLines {
    /// The kinds of fields that are there.
    pub(super) fn kinds(&self) -> u64 {
        self.sum & !NOT_PLAIN
    }

    /// Every line is [plain](FieldLine::plain).
    pub(super) fn plain(&self) -> bool {
        self.sum & NOT_PLAIN == 0
    }
}

/// Cuts the field lines at `at` and the empty line behind them. `buf` is not longer than [`LONGEST`].
///
/// `loose`: blanks before a colon are removed (RFC 9112 §5.1, answers), else they are wrong.
#[inline(never)]
pub(super) fn field_lines(
    buf: &[u8],
    mut at: u32,
    lines: &mut [FieldLine],
    loose: bool,
) -> Result<ParsedLines, ScanError> {
    debug_assert!(buf.len() <= LONGEST);
    let (mut sum, room) = (0, lines.len());
    let mut lines = lines.iter_mut();
    loop {
        if buf.get(at as usize) == Some(&b'\r') {
            expect(buf, at as usize + 1, b'\n')?;
            return Ok(ParsedLines { count: (room - lines.len()) as u32, end: at + 2, sum });
        }
        let colon = find(buf, at, |word| below(word ^ (ONES * u64::from(b':')), 1));
        let Some(name) = buf.get(at as usize..colon as usize) else { return Err(ScanError::Partial) };
        let (mut kind, mut name_len) = (HeaderKind::of(name), name.len());
        // The names that are known are tokens; what only looks like one of them may be anything, line ends
        // too.
        if matches!(kind, HeaderKind::Other | HeaderKind::UnderscoreAlias)
            && (name.is_empty() || !is_token(name))
        {
            if at as usize == buf.len() {
                return Err(ScanError::Partial);
            }
            (kind, name_len) = loose_name(name, loose)?;
        }
        // Colon, blank, and something.
        let (value, mut plain) = match buf.get(colon as usize..colon as usize + 3) {
            Some(&[_, b' ', first]) if first > b' ' => (colon + 2, name_len == name.len()),
            _ => (behind_blanks(buf, colon, at)?, false),
        };
        let line_end = find_line_end(buf, value)?;
        let mut end = line_end;
        if buf[end as usize - 1] <= b' ' {
            (end, plain) = (before_blanks(buf, value, end), false);
        }
        let Some(place) = lines.next() else { return Err(ScanError::TooMany) };
        *place = FieldLine {
            name: at as u16,
            name_len: name_len as u16,
            value: value as u16,
            value_end: end as u16,
            kind,
            plain,
        };
        sum |= HeaderKind::set(&[kind]) | u64::from(!plain) << 63;
        at = line_end + 2;
    }
}

/// A name that has blanks behind it, where that is allowed.
#[cold]
fn loose_name(name: &[u8], loose: bool) -> Result<(HeaderKind, usize), ScanError> {
    let mut bare = name;
    while loose && let [rest @ .., b' ' | b'\t'] = bare {
        bare = rest;
    }
    if bare.is_empty() || !is_token(bare) {
        Err(ScanError::Wrong)
    } else {
        Ok((HeaderKind::of(bare), bare.len()))
    }
}

/// Where a value begins that has not just one blank before it, if there is a colon. Such a line is not plain.
#[cold]
fn behind_blanks(buf: &[u8], colon: u32, at: u32) -> Result<u32, ScanError> {
    if colon as usize == buf.len() {
        return Err(no_colon(&buf[at as usize..]));
    }
    let blanks = buf.iter().skip(colon as usize + 1).take_while(|b| matches!(b, b' ' | b'\t')).count();
    Ok(colon + 1 + blanks as u32)
}

/// Where a value ends that has blanks behind it, or that is none. Such a line is not plain.
#[cold]
fn before_blanks(buf: &[u8], value: u32, mut end: u32) -> u32 {
    while end > value && matches!(buf[end as usize - 1], b' ' | b'\t') {
        end -= 1;
    }
    end
}

#[cold]
fn no_colon(rest: &[u8]) -> ScanError {
    if rest.contains(&b'\n') { ScanError::Wrong } else { ScanError::Partial }
}
