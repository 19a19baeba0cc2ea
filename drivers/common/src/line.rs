//! Writing log lines into a slice, without `fmt` and without allocating: numbers, addresses, times and
//! escaped texts.
//!
//! The slice must be long enough: see [`MARGIN`] and [`ESCAPED`]. A short one is a programming error and
//! panics, it never cuts a line in silence.

use std::net::SocketAddr;

use ruststrom_core::Wall;
use ruststrom_core::http::date::civil_date;
use ruststrom_core::http::ip::IpText;

/// One byte of text takes at most so many bytes in a line: `\u00ff`.
pub const ESCAPED: usize = 6;
/// Bytes for everything of a line that is not text from outside.
pub const MARGIN: usize = 1024;

/// A line that is being written.
#[derive(Default)]
pub struct Line<'a> {
    /// What is left of the room.
    rest: &'a mut [u8],
    room: usize,
}

/// The last day of the year 9999, in days since 1970-01-01: later ones are written as that.
const LAST_DAY: u64 = 2_932_896;

/// Room for a key and a short time.
const PIECE: usize = 24;

const HEX: &[u8; 16] = b"0123456789abcdef";

impl<'a> Line<'a> {
    /// A line at the start of `buf`.
    pub fn new(buf: &'a mut [u8]) -> Self {
        Self { room: buf.len(), rest: buf }
    }

    /// Its length so far, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.room - self.rest.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn advance(&mut self, n: usize) {
        self.rest = &mut std::mem::take(&mut self.rest)[n..];
    }

    /// Calls what is rarely needed, with the line by value: otherwise the compiler would keep it in memory
    /// for a call that hardly ever happens.
    #[inline(always)]
    pub fn apart(&mut self, rare: impl FnOnce(Self) -> Self) {
        *self = rare(std::mem::take(self));
    }

    /// Appends a text whose length is known when compiling: a few moves.
    #[inline]
    pub fn lit<const N: usize>(&mut self, text: &[u8; N]) {
        let (head, rest) =
            std::mem::take(&mut self.rest).split_first_chunk_mut::<N>().expect("room for a line");
        *head = *text;
        self.rest = rest;
    }

    /// Appends one byte.
    #[inline]
    pub fn byte(&mut self, b: u8) {
        self.lit(&[b]);
    }

    /// Appends bytes as they are.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        let to = &mut self.rest[..bytes.len()];
        if let (..=16, Some(first), Some(last)) =
            (bytes.len(), bytes.first_chunk::<8>(), bytes.last_chunk::<8>())
        {
            // Names and hosts are short: two moves, which may overlap, cost less than a call.
            if let Some(to) = to.first_chunk_mut() {
                *to = *first;
            }
            if let Some(to) = to.last_chunk_mut() {
                *to = *last;
            }
        } else {
            to.copy_from_slice(bytes);
        }
        self.advance(bytes.len());
    }

    /// Appends a decimal number.
    #[inline]
    pub fn number(&mut self, n: u64) {
        self.raw(itoa::Buffer::new().format(n).as_bytes());
    }

    /// Appends a key and a decimal number.
    #[inline]
    pub fn keyed_number<const N: usize>(&mut self, key: &[u8; N], n: u64) {
        self.lit(key);
        self.number(n);
    }

    /// Appends microseconds as milliseconds with three decimals.
    pub fn millis(&mut self, us: u64) {
        self.number(us / 1000);
        self.lit(&decimals((us % 1000) as u16));
    }

    /// A key that ends with `0.000`, and nanoseconds as milliseconds with three decimals instead of that.
    /// Only if they are less than ten: `false`, and nothing is written, if they are not. Most phases of
    /// an exchange take no time at all.
    #[inline(always)]
    pub fn short_millis<const N: usize>(&mut self, key: &[u8; N], ns: u64) -> bool {
        const { assert!(5 <= N && N <= PIECE) };
        let Some(piece) = self.rest.first_chunk_mut::<PIECE>() else { return false };
        if ns >= 10_000_000 {
            return false;
        }
        piece[..N].copy_from_slice(key);
        if ns >= 1000 {
            let us = ns as u32 / 1000;
            piece[N - 5] = b'0' + (us / 1000) as u8;
            piece[N - 4..N].copy_from_slice(&decimals((us % 1000) as u16));
        }
        self.advance(N);
        true
    }

    /// Address and port; `ip` is its text. A v4-mapped address is written as what it is.
    #[inline(always)]
    pub fn address(&mut self, a: SocketAddr, ip: &IpText) {
        if a.port() == 0 {
            return self.apart(|mut line| {
                line.raw(ip.as_bytes());
                line
            });
        }
        match ip.short() {
            Some((text, len)) if a.is_ipv4() => {
                *self.rest.first_chunk_mut().expect("room for a line") = *text;
                self.advance(len);
            }
            _ => self.apart(|line| line.other_address(ip)),
        }
        self.keyed_number(b":", u64::from(a.port()));
    }

    #[inline(never)]
    fn other_address(mut self, ip: &IpText) -> Self {
        if ip.as_bytes().contains(&b':') {
            self.byte(b'[');
            self.raw(ip.as_bytes());
            self.byte(b']');
        } else {
            self.raw(ip.as_bytes());
        }
        self
    }

    /// Writes a text that needs no escapes; false, and nothing is written, if it does need some. Looks at and
    /// copies eight bytes at a time, the last eight overlapping those before.
    #[inline]
    pub fn plain(&mut self, text: &[u8]) -> bool {
        text.is_empty() || self.plain_text(text)
    }

    fn plain_text(&mut self, text: &[u8]) -> bool {
        let to = &mut self.rest[..text.len()];
        let seen = if let Some(last) = text.last_chunk::<8>() {
            // Leaving at the first such word also keeps the compiler from splitting this into two loops for
            // long texts: most are short.
            for (word, to) in text.as_chunks::<8>().0.iter().zip(to.as_chunks_mut::<8>().0) {
                if needs_escape(u64::from_ne_bytes(*word)) != 0 {
                    return false;
                }
                *to = *word;
            }
            if let Some(to) = to.last_chunk_mut() {
                *to = *last;
            }
            needs_escape(u64::from_ne_bytes(*last))
        } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
            if let Some(to) = to.first_chunk_mut() {
                *to = *first;
            }
            if let Some(to) = to.last_chunk_mut() {
                *to = *last;
            }
            needs_escape(u64::from(u32::from_ne_bytes(*first)) | u64::from(u32::from_ne_bytes(*last)) << 32)
        } else if let [first, .., last] = text {
            // Two or three bytes: the one in the middle, if there is none, is one of them.
            let middle = text[text.len() / 2];
            to[text.len() / 2] = middle;
            to[0] = *first;
            to[text.len() - 1] = *last;
            needs_escape(u64::from_ne_bytes([*first, middle, *last, *last, *last, *last, *last, *last]))
        } else if let ([one], [to]) = (text, to) {
            *to = *one;
            needs_escape(ONES * u64::from(*one))
        } else {
            0
        };
        if seen == 0 {
            self.advance(text.len());
        }
        seen == 0
    }

    /// A text between quotes that are already there, as JSON wants it (RFC 8259 §7). Bytes that are no UTF-8
    /// become the characters of the same number, so that any bytes make valid JSON; characters that a
    /// terminal or a viewer obeys instead of showing them ([`is_unsafe`]) are escaped.
    #[inline]
    pub fn json(&mut self, text: &[u8]) {
        if !self.plain(text) {
            self.json_escaped(text);
        }
    }

    #[cold]
    fn json_escaped(&mut self, text: &[u8]) {
        for chunk in text.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' | '\\' => self.lit(&[b'\\', c as u8]),
                    _ if is_unsafe(c) => {
                        for unit in c.encode_utf16(&mut [0; 2]) {
                            self.json_number(*unit);
                        }
                    }
                    _ => self.raw(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            for b in chunk.invalid() {
                self.json_number(u16::from(*b));
            }
        }
    }

    fn json_number(&mut self, n: u16) {
        let digit = |shift: u16| HEX[usize::from(n >> shift & 15)];
        self.lit(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
    }

    /// A text for people in which UTF-8 stays readable: controls are blanks, other characters that are
    /// [unsafe](is_unsafe) are escaped as `\u{202e}`, so that one text is one line and looks like what it is.
    pub fn message(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                _ if c.is_ascii_control() => self.byte(b' '),
                _ if is_unsafe(c) => {
                    for escaped in c.escape_unicode() {
                        self.byte(escaped as u8);
                    }
                }
                _ => self.raw(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    /// A text between quotes that are already there, for people: quotes, backslashes and whatever is not
    /// printable ASCII escaped, so that nobody writes lines of their own into the log.
    #[inline]
    pub fn quoted(&mut self, text: &[u8]) {
        if !self.plain(text) {
            self.quoted_escaped(text);
        }
    }

    /// A short name: printable ASCII without quotes and backslashes as it is, anything else escaped.
    #[inline]
    pub fn name(&mut self, name: &str, escape: impl Fn(&mut Self, &[u8])) {
        if name.bytes().all(|b| matches!(b, 0x20..0x7f) && b != b'"' && b != b'\\') {
            self.raw(name.as_bytes());
        } else {
            self.apart(|mut line| {
                escape(&mut line, name.as_bytes());
                line
            });
        }
    }

    #[cold]
    fn quoted_escaped(&mut self, text: &[u8]) {
        for &b in text {
            match b {
                b'"' | b'\\' => self.lit(&[b'\\', b]),
                0x20..0x7f => self.byte(b),
                _ => self.lit(&[b'\\', b'x', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]),
            }
        }
    }
}

/// Whether a character in a log may do something other than being seen: end a line, command a terminal, turn
/// the direction of writing, hide. Those are controls (Cc), format characters (Cf), line and paragraph
/// separators (Zl, Zp), blanks that fill a line, and what is reserved for such (Unicode 16).
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// `.000` to `.999` of 0..=999.
#[inline]
fn decimals(n: u16) -> [u8; 4] {
    let digit = |n: u16| b'0' + (n % 10) as u8;
    [b'.', digit(n / 100), digit(n / 10), digit(n)]
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// Non-zero if one of eight bytes is a control, `"`, `\`, or beyond printable ASCII. Sums may carry into the
/// byte above, but only out of such a byte.
#[inline]
fn needs_escape(w: u64) -> u64 {
    let above = w | w.wrapping_add(ONES);
    let below = w.wrapping_sub(ONES * 0x20);
    let quote = (w ^ (ONES * 0x22)).wrapping_sub(ONES);
    let backslash = (w ^ (ONES * 0x5c)).wrapping_sub(ONES);
    (above | below | quote | backslash) & (ONES * 0x80)
}

/// The text of a wall-clock time, `2026-11-23T11:58:03.123Z` (RFC 3339). Writing another time of the same
/// second costs little.
pub struct Timestamp {
    secs: u64,
    text: [u8; 24],
}

impl Default for Timestamp {
    fn default() -> Self {
        let mut s = Self { secs: 0, text: *b"0000-00-00T00:00:00.000Z" };
        s.make(0);
        s
    }
}

impl Timestamp {
    /// The text of this time.
    pub fn at(&mut self, wall: Wall) -> &[u8; 24] {
        if wall.unix_secs != self.secs {
            self.make(wall.unix_secs);
        }
        self.text[19..23].copy_from_slice(&decimals(wall.millis.min(999)));
        &self.text
    }

    /// The text of the last time.
    #[inline]
    #[must_use]
    pub fn last(&self) -> &[u8; 24] {
        &self.text
    }

    #[cold]
    fn make(&mut self, secs: u64) {
        self.secs = secs;
        let (days, of_day) = ((secs / 86_400).min(LAST_DAY), secs % 86_400);
        let (year, month, day) = civil_date(days);
        let pair = |n: u64| [b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
        for (at, n) in [
            (0, year / 100),
            (2, year),
            (5, month),
            (8, day),
            (11, of_day / 3600),
            (14, of_day / 60 % 60),
            (17, of_day % 60),
        ] {
            self.text[at..at + 2].copy_from_slice(&pair(n));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(f: impl FnOnce(&mut Line<'_>)) -> String {
        let mut buf = [0; 4096];
        let mut line = Line::new(&mut buf);
        f(&mut line);
        let len = line.len();
        String::from_utf8(buf[..len].to_vec()).expect("UTF-8")
    }

    #[test]
    fn numbers_are_as_fmt_writes_them() {
        let mut n = 1_u64;
        for step in 0..2000_u64 {
            for n in [step, n.wrapping_sub(1), n, u64::MAX - step] {
                assert_eq!(text(|l| l.number(n)), n.to_string());
            }
            n = n.wrapping_mul(10).wrapping_add(step & 1).max(1);
        }
        for (us, expected) in
            [(0, "0.000"), (7, "0.007"), (9_999, "9.999"), (10_000, "10.000"), (12_034, "12.034")]
        {
            assert_eq!(text(|l| l.millis(us)), expected);
        }
        assert_eq!(text(|l| l.millis(u64::MAX)), "18446744073709551.615");
    }

    #[test]
    fn short_times_are_one_piece_with_their_key() {
        let table = [
            (0, " k=0.000"),
            (999, " k=0.000"),
            (1000, " k=0.001"),
            (999_999, " k=0.999"),
            (1_000_000, " k=1.000"),
            (9_999_999, " k=9.999"),
        ];
        for (ns, expected) in table {
            assert_eq!(text(|l| assert!(l.short_millis(b" k=0.000", ns))), expected);
        }
        for ns in [10_000_000, u64::MAX] {
            assert_eq!(text(|l| assert!(!l.short_millis(b" k=0.000", ns))), "");
        }
    }

    #[test]
    fn addresses_are_as_fmt_writes_them() {
        let table = [
            "127.0.0.1:80",
            "255.10.9.100:65535",
            "[::]:1",
            "[::1]:443",
            "[2001:db8::1]:8080",
            "[2001:db8:0:1:1:1:1:1]:1",
            "[1:0:0:2:0:0:0:3]:1",
            "[1::2:0:0:3:4]:1",
            "[fe80::]:9",
            "[1:2:3:4:5:6:7:8]:10",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:1",
            "[0:1::]:1",
        ];
        for a in table {
            let a: SocketAddr = a.parse().expect("an address");
            assert_eq!(text(|l| l.address(a, &IpText::new(a.ip()))), a.to_string());
        }
        for text_of in ["192.0.2.9", "2001:db8::9"] {
            let a = SocketAddr::new(text_of.parse().expect("an address"), 0);
            assert_eq!(text(|l| l.address(a, &IpText::new(a.ip()))), text_of, "whose port nobody knows");
        }
        let mapped: SocketAddr = "[::ffff:10.1.2.3]:5".parse().expect("an address");
        assert_eq!(text(|l| l.address(mapped, &IpText::new(mapped.ip()))), "10.1.2.3:5");
        let mut state = 1_u64;
        for _ in 0..5000 {
            let mut segments = [0_u16; 8];
            for s in &mut segments {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *s = if state >> 62 == 0 { (state >> 40) as u16 } else { (state >> 60) as u16 & 1 };
            }
            let a = SocketAddr::from((segments, 1));
            let want = SocketAddr::new(a.ip().to_canonical(), 1).to_string();
            // fmt writes v4-compatible tails (::a.b.c.d) like any other since Rust 1.73, as RFC 5952 §5
            // allows.
            assert_eq!(text(|l| l.address(a, &IpText::new(a.ip()))), want);
        }
    }

    #[test]
    fn times() {
        let table = [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, 7, "2000-02-28T23:59:59.007Z"),
            (951_782_400, 80, "2000-02-29T00:00:00.080Z"),
            (951_868_800, 999, "2000-03-01T00:00:00.999Z"),
            (1_795_435_083, 123, "2026-11-23T11:58:03.123Z"),
            (4_107_542_400, 1, "2100-03-01T00:00:00.001Z"),
            (253_402_300_799, 5, "9999-12-31T23:59:59.005Z"),
        ];
        let mut timestamp = Timestamp::default();
        for (unix_secs, millis, want) in table {
            for _ in 0..2 {
                assert_eq!(text(|l| l.lit(timestamp.at(Wall { unix_secs, millis }))), want);
            }
        }
    }

    #[test]
    fn escapes() {
        let table: &[(&[u8], &str, &str)] = &[
            (b"", "", ""),
            (b"/plain?a=1", "/plain?a=1", "/plain?a=1"),
            (b"say \"hi\" \\ there", r#"say \"hi\" \\ there"#, r#"say \"hi\" \\ there"#),
            (b"a\nb\x00\x7f", r"a\u000ab\u0000\u007f", r"a\x0ab\x00\x7f"),
            ("grün".as_bytes(), "grün", r"gr\xc3\xbcn"),
            ("a\u{85}\u{9b}2J".as_bytes(), r"a\u0085\u009b2J", r"a\xc2\x85\xc2\x9b2J"),
            ("\u{2028}\u{2029}".as_bytes(), r"\u2028\u2029", r"\xe2\x80\xa8\xe2\x80\xa9"),
            ("x\u{202e}y\u{2066}".as_bytes(), r"x\u202ey\u2066", r"x\xe2\x80\xaey\xe2\x81\xa6"),
            ("\u{e0041}\u{1f600}".as_bytes(), "\\udb40\\udc41\u{1f600}", r"\xf3\xa0\x81\x81\xf0\x9f\x98\x80"),
            (b"bad\xff\xc3", r"bad\u00ff\u00c3", r"bad\xff\xc3"),
        ];
        for (bytes, json, quoted) in table {
            assert_eq!(text(|l| l.json(bytes)), *json);
            assert_eq!(text(|l| l.quoted(bytes)), *quoted);
        }
    }

    #[test]
    fn messages() {
        let table = [
            ("plain grün \"x\" \\", "plain grün \"x\" \\"),
            ("two\nlines\r\t\u{1b}[2J\u{7f}", "two lines   [2J "),
            ("\u{85}\u{9b}2J", "\\u{85}\\u{9b}2J"),
            ("a\u{2028}b\u{2029}c", "a\\u{2028}b\\u{2029}c"),
            ("\u{202e}gpj.exe\u{200b}", "\\u{202e}gpj.exe\\u{200b}"),
        ];
        for (message, expected) in table {
            assert_eq!(text(|l| l.message(message)), expected);
        }
        let longest = ('\0'..=char::MAX)
            .map(|c| text(|l| l.message(c.encode_utf8(&mut [0; 4]))).len().div_ceil(c.len_utf8()))
            .max();
        assert!(longest.is_some_and(|n| n <= ESCAPED), "{longest:?}");
    }

    /// Everything of the kind, told by its name in Unicode's tables, not by the list above.
    #[test]
    fn no_character_is_obeyed_instead_of_shown() {
        for c in ('\0'..=char::MAX).filter(|c| c.is_control()) {
            assert!(is_unsafe(c), "{c:?}");
        }
        // Every other one that Rust takes for not printable, which is Cc, Cf, Zl, Zp and more, but blanks.
        let hidden = |c: &char| c.escape_debug().len() > 1 && !matches!(c, '"' | '\'' | '\\');
        for c in ('\u{80}'..='\u{2ff}').chain('\u{2000}'..='\u{206f}').filter(hidden) {
            assert!(is_unsafe(c) || c.is_whitespace(), "{c:?}");
        }
        for c in ['a', 'é', '文', '\u{301}', '\u{1f600}', ' ', '\u{a0}', '\u{2014}', '\u{fffd}'] {
            assert!(!is_unsafe(c), "{c:?}");
        }
    }

    #[test]
    fn one_byte_to_escape_is_found_wherever_it_stands() {
        for len in 0..40 {
            for at in 0..len {
                for b in 0..=255_u8 {
                    let mut text = vec![b'x'; len];
                    text[at] = b;
                    let clean = (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\';
                    let mut buf = [0; 64];
                    let mut line = Line::new(&mut buf);
                    assert_eq!(line.plain(&text), clean, "{b} at {at} of {len}");
                    let written = line.len();
                    assert_eq!(&buf[..written], if clean { &text[..] } else { b"" });
                }
            }
        }
    }
}
