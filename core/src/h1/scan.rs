//! The lines of a head, cut and checked in one pass, eight bytes at a time. Only what is wholly right gets through; what is wrong with the rest,
//! [`super::diagnose`] finds out.
//!
//! Own code, since this is a quarter of what a small request costs: httparse and a second walk over what it had found took twice as many
//! instructions. It serves as the oracle in the tests.

use crate::http::Known;
use crate::http::fields::{Line, is_token};

/// Why a head was not cut into lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uncut {
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
pub(super) fn expect(buf: &[u8], at: usize, b: u8) -> Result<(), Uncut> {
    match buf.get(at) {
        Some(&found) if found == b => Ok(()),
        Some(_) => Err(Uncut::Wrong),
        None => Err(Uncut::Partial),
    }
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGH: u64 = u64::from_le_bytes([0x80; 8]);

/// The high bit of each byte that is below `n`, which is at most 128. The lowest bit set is right; one above it may be a false alarm.
#[inline(always)]
const fn below(word: u64, n: u8) -> u64 {
    word.wrapping_sub(ONES * n as u64) & !word & HIGH
}

/// The same for control characters, tabs too. Behind 0xff the lowest bit may be a false alarm as well.
#[inline(always)]
const fn control(word: u64) -> u64 {
    (word.wrapping_sub(ONES * b' ' as u64) | word.wrapping_add(ONES)) & !word & HIGH
}

/// Where the first byte is whose bit `mask` sets; the length if there is none.
#[inline(always)]
fn find(text: &[u8], mask: impl Fn(u64) -> u64) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (at, bytes) in words.iter().enumerate() {
        let found = mask(u64::from_le_bytes(*bytes));
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    // The last bytes, and zeros behind them.
    let last = match text.last_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes).checked_shr(64 - 8 * rest.len() as u32).unwrap_or(0),
        None => rest.iter().rev().fold(0, |word, &b| word << 8 | u64::from(b)),
    };
    text.len() - rest.len() + rest.len().min(mask(last).trailing_zeros() as usize / 8)
}

/// The first blank or control character.
#[inline(always)]
pub(super) fn find_gap(text: &[u8]) -> usize {
    find(text, |word| below(word, b' ' + 1))
}

/// Where a text ends with CRLF. It has no control characters but tabs (RFC 9110 §5.5).
#[inline(always)]
pub(super) fn find_line_end(text: &[u8]) -> Result<usize, Uncut> {
    let mut end = find(text, control);
    // It nearly always is as it should be.
    if let Some([b'\r', b'\n', ..]) = text.get(end..) {
        return Ok(end);
    }
    end = find_slowly(text, end);
    expect(text, end, b'\r')?;
    expect(text, end + 1, b'\n')?;
    Ok(end)
}

/// The same behind a tab or a false alarm.
#[cold]
fn find_slowly(text: &[u8], from: usize) -> usize {
    let is_control = |b: &u8| b.is_ascii_control() && *b != b'\t';
    text[from.min(text.len())..].iter().position(is_control).map_or(text.len(), |at| from + at)
}

/// What [`field_lines`] has cut.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Field lines.
    pub(super) count: usize,
    /// Where the empty line behind them ends.
    pub(super) end: usize,
    /// The kinds of fields that are there.
    pub(super) kinds: u64,
    /// Every line is [plain](Line::plain).
    pub(super) plain: bool,
}

/// Cuts the field lines at `at` and the empty line behind them. `buf` is not longer than [`LONGEST`].
///
/// `loose`: blanks before a colon are removed (RFC 9112 §5.1, answers), else they are wrong.
#[inline(never)]
pub(super) fn field_lines(buf: &[u8], mut at: usize, lines: &mut [Line], loose: bool) -> Result<Cut, Uncut> {
    debug_assert!(buf.len() <= LONGEST);
    // In one word: the kinds, and in the highest bit whether a line is not plain.
    let (mut sum, room) = (0, lines.len());
    let mut lines = lines.iter_mut();
    loop {
        let line = &buf[at..];
        if line.first() == Some(&b'\r') {
            expect(line, 1, b'\n')?;
            return Ok(Cut { count: room - lines.len(), end: at + 2, kinds: sum & !NOT_PLAIN, plain: sum & NOT_PLAIN == 0 });
        }
        let colon = find(line, |word| below(word ^ (ONES * u64::from(b':')), 1));
        let Some((name, behind @ [_, ..])) = line.split_at_checked(colon) else { return Err(no_colon(line)) };
        let mut known = Known::of(name);
        let mut name_len = colon;
        // The names that are known are tokens.
        if known == Known::Other && !is_token(name) || name.is_empty() {
            (known, name_len) = loose_name(name, loose)?;
        }
        // Colon, blank, and something.
        let (skip, mut plain) = match behind {
            &[_, b' ', first, ..] if first > b' ' => (2, name_len == colon),
            _ => (blanks(behind), false),
        };
        let text = &behind[skip..];
        let mut len = find_line_end(text)?;
        let next = at + colon + skip + len + 2;
        if text[..len].last().is_none_or(|b| *b <= b' ') {
            (len, plain) = (without_blanks(&text[..len]), false);
        }
        let value = (at + colon + skip) as u16;
        let Some(place) = lines.next() else { return Err(Uncut::TooMany) };
        *place = Line { name: at as u16, name_len: name_len as u16, value, value_end: value + len as u16, known, plain };
        sum |= Known::set(&[known]) | if plain { 0 } else { NOT_PLAIN };
        at = next;
    }
}

const NOT_PLAIN: u64 = 1 << 63;

/// A name that has blanks behind it, where that is allowed.
#[cold]
fn loose_name(name: &[u8], loose: bool) -> Result<(Known, usize), Uncut> {
    let mut bare = name;
    while loose && let [rest @ .., b' ' | b'\t'] = bare {
        bare = rest;
    }
    if bare.is_empty() || !is_token(bare) { Err(Uncut::Wrong) } else { Ok((Known::of(bare), bare.len())) }
}

/// How long the colon at the front of `behind` and the blanks after it are. Such a line is not plain.
#[cold]
fn blanks(behind: &[u8]) -> usize {
    1 + behind[1..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count()
}

/// The length of a value without the blanks at its end. Such a line is not plain, nor is one without a value.
#[cold]
fn without_blanks(value: &[u8]) -> usize {
    value.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |last| last + 1)
}

#[cold]
fn no_colon(rest: &[u8]) -> Uncut {
    if rest.contains(&b'\n') { Uncut::Wrong } else { Uncut::Partial }
}
