//! The decoder of the chunked coding (RFC 9112 §7.1): strict, in place, linear.
//!
//! Every framing byte changes the state, so none is ever read twice. Extensions are checked, limited and
//! dropped.

use super::body_progress::{BodyProgress, Received};
use crate::http::Violation;
use crate::http::fields::is_token_char;

/// The most bytes of extensions in a message, beyond one for each [`PAYLOAD_PER_EXTENSION_BYTE`] bytes of
/// payload.
const MAX_EXTENSION_BYTES: u32 = 16 * 1024;
const PAYLOAD_PER_EXTENSION_BYTE: u64 = 8;
/// The most digits of a chunk size, leading zeros included.
const MAX_SIZE_DIGITS: u8 = 16;

/// What the next byte is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A digit of the size, or what ends it.
    Size,
    /// A blank after the size, or `;`.
    SizeBlank,
    /// After `;`: blanks, then a name.
    ExtensionStart,
    ExtensionName,
    /// A blank after a name, `=` or `;`.
    NameBlank,
    /// After `=`: blanks, then a token or a quoted string.
    ValueStart,
    ValueToken,
    ValueQuoted,
    /// After `\` in a quoted string.
    ValueEscaped,
    /// After the closing quote.
    ValueEnd,
    /// A blank after a value, or `;`.
    ValueBlank,
    /// The LF that ends the line of the size.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// Decodes one chunked message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    /// The size as far as it has been read; then the bytes left of the chunk.
    left: u64,
    /// Bytes of extensions that no payload stands against yet.
    extensions: u32,
    digits: u8,
    next: Next,
    /// Blanks between a chunk size and the end of its line are taken.
    lenient: bool,
    /// There were such blanks.
    blanks: bool,
}

impl Decoder {
    pub(super) fn new(lenient: bool) -> Self {
        Self { left: 0, extensions: 0, digits: 0, next: Next::Size, lenient, blanks: false }
    }

    /// A rule was broken and forgiven.
    pub(super) fn has_forgiven(self) -> bool {
        self.blanks
    }

    pub(super) fn progress(self) -> BodyProgress {
        match self.next {
            Next::Trailers => BodyProgress::Trailers,
            Next::Done => BodyProgress::Done,
            _ => BodyProgress::More,
        }
    }

    pub(super) fn trailers_done(&mut self) {
        debug_assert_eq!(self.next, Next::Trailers);
        self.next = Next::Done;
    }

    pub(super) fn receive(&mut self, buf: &mut [u8]) -> Result<Received, Violation> {
        let (mut consumed, mut payload) = (0, 0);
        while consumed < buf.len() {
            match self.next {
                Next::Data => {
                    let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len() - consumed);
                    if payload != consumed {
                        buf.copy_within(consumed..consumed + n, payload);
                    }
                    consumed += n;
                    payload += n;
                    self.left -= n as u64;
                    if self.left == 0 {
                        self.next = Next::DataCr;
                    }
                }
                Next::Trailers => {
                    // Most sections are empty: those need no parser.
                    if buf[consumed..].starts_with(b"\r\n") {
                        consumed += 2;
                        self.next = Next::Done;
                    }
                    break;
                }
                Next::Done => break,
                _ => {
                    self.framing_byte(buf[consumed])?;
                    consumed += 1;
                }
            }
        }
        Ok(Received { payload, consumed, state: self.progress() })
    }

    fn framing_byte(&mut self, b: u8) -> Result<(), Violation> {
        self.next = match self.next {
            Next::Size => return self.size_byte(b),
            Next::SizeLf => match b {
                b'\n' => {
                    self.digits = 0;
                    self.extensions = self.extensions.saturating_sub(
                        u32::try_from(self.left / PAYLOAD_PER_EXTENSION_BYTE).unwrap_or(u32::MAX),
                    );
                    if self.left == 0 { Next::Trailers } else { Next::Data }
                }
                _ => return Err(Violation::BareCr),
            },
            Next::DataCr => match b {
                b'\r' => Next::DataLf,
                b'\n' => return Err(Violation::BareLf),
                _ => return Err(Violation::ChunkEnd),
            },
            Next::DataLf => match b {
                b'\n' => Next::Size,
                _ => return Err(Violation::ChunkEnd),
            },
            Next::Data | Next::Trailers | Next::Done => unreachable!("not framing"),
            _ => self.extension_byte(b)?,
        };
        Ok(())
    }

    fn size_byte(&mut self, b: u8) -> Result<(), Violation> {
        if let Some(digit) = char::from(b).to_digit(16) {
            // Sizes stay below 2^63, so nothing can overflow.
            if self.digits == MAX_SIZE_DIGITS || self.left >> 59 != 0 {
                return Err(Violation::ChunkSize);
            }
            self.digits += 1;
            self.left = self.left << 4 | u64::from(digit);
            return Ok(());
        }
        self.next = match b {
            _ if self.digits == 0 => return Err(Violation::ChunkSize),
            b'\r' => Next::SizeLf,
            b'\n' => return Err(Violation::BareLf),
            b';' => Next::ExtensionStart,
            b' ' | b'\t' => Next::SizeBlank,
            _ => return Err(Violation::ChunkSize),
        };
        Ok(())
    }

    /// chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ), RFC 9112 §7.1.1.
    fn extension_byte(&mut self, b: u8) -> Result<Next, Violation> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSION_BYTES {
            return Err(Violation::ChunkExtensionsTooLarge);
        }
        let blank = matches!(b, b' ' | b'\t');
        Ok(match (self.next, b) {
            (
                Next::SizeBlank
                | Next::ExtensionStart
                | Next::NameBlank
                | Next::ValueStart
                | Next::ValueBlank,
                _,
            ) if blank => self.next,
            (
                Next::SizeBlank
                | Next::ExtensionName
                | Next::NameBlank
                | Next::ValueToken
                | Next::ValueEnd
                | Next::ValueBlank,
                b';',
            ) => Next::ExtensionStart,
            (Next::ExtensionName | Next::NameBlank, b'=') => Next::ValueStart,
            (Next::ExtensionName | Next::ValueToken | Next::ValueEnd, b'\r') => Next::SizeLf,
            (Next::SizeBlank, b'\r') if self.lenient => {
                self.blanks = true;
                Next::SizeLf
            }
            (Next::ExtensionName, _) if blank => Next::NameBlank,
            (Next::ValueToken | Next::ValueEnd, _) if blank => Next::ValueBlank,
            (Next::ExtensionStart | Next::ExtensionName, _) if is_token_char(b) => Next::ExtensionName,
            (Next::ValueStart, b'"') => Next::ValueQuoted,
            (Next::ValueStart | Next::ValueToken, _) if is_token_char(b) => Next::ValueToken,
            (Next::ValueQuoted, b'"') => Next::ValueEnd,
            (Next::ValueQuoted, b'\\') => Next::ValueEscaped,
            (Next::ValueQuoted | Next::ValueEscaped, b'\t' | b' '..=b'~' | 0x80..) => Next::ValueQuoted,
            (_, b'\n') => return Err(Violation::BareLf),
            _ => return Err(Violation::ChunkExtension),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BodyProgress, BodyReader};
    use crate::http::{Framing, Violation};
    use proptest::prelude::*;

    /// Decodes `raw` in pieces cut at `cuts`; returns the payload, the bytes that were not read and how far
    /// the reader came.
    fn decode(raw: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<u8>, BodyProgress), Violation> {
        let mut reader = BodyReader::new(Framing::Chunked);
        let (mut payload, mut held, mut at) = (Vec::new(), Vec::new(), 0);
        for &cut in cuts.iter().chain([&raw.len()]) {
            held.extend_from_slice(&raw[at..cut]);
            at = cut;
            let received = reader.receive(&mut held)?;
            assert!(received.payload <= received.consumed && received.consumed <= held.len());
            payload.extend_from_slice(&held[..received.payload]);
            held.drain(..received.consumed);
            assert_eq!(received.state, reader.progress());
            if received.state == BodyProgress::More {
                assert!(held.is_empty(), "all framing is consumed");
            }
        }
        Ok((payload, held, reader.progress()))
    }

    #[test]
    fn good() {
        let table: &[(&str, &str, &str, BodyProgress)] = &[
            ("0\r\n\r\n", "", "", BodyProgress::Done),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", "", BodyProgress::Done),
            ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET /", "hello world", "GET /", BodyProgress::Done),
            ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789", "", BodyProgress::Done),
            ("A\r\n0123456789\r\n000\r\n\r\n", "0123456789", "", BodyProgress::Done),
            ("0000000000000001\r\nx\r\n0\r\n\r\n", "x", "", BodyProgress::Done),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", "", BodyProgress::Done),
            ("0\r\nA: b\r\n\r\n", "", "A: b\r\n\r\n", BodyProgress::Trailers),
            ("0\r\n\r", "", "\r", BodyProgress::Trailers),
            ("0\r\n", "", "", BodyProgress::Trailers),
            ("5\r\nhel", "hel", "", BodyProgress::More),
            ("7fffffffffffffff\r\nx", "x", "", BodyProgress::More),
            ("1;a\r\nx\r\n0;b=c;d=\"e;\\\" \"\r\n\r\n", "x", "", BodyProgress::Done),
            ("1 ;a\r\nx\r\n0\t; b\t = c ;d = \"\" ; e\r\n\r\n", "x", "", BodyProgress::Done),
            ("1;name=value\r\nx\r\n0;sum=1234 ;long=\"quoted\" ;last\r\n\r\n", "x", "", BodyProgress::Done),
        ];
        for (raw, payload, rest, end) in table {
            let found = decode(raw.as_bytes(), &[]);
            assert_eq!(found, Ok((payload.as_bytes().to_vec(), rest.as_bytes().to_vec(), *end)), "{raw:?}");
        }
    }

    #[test]
    fn bad() {
        let table: &[(&str, Violation)] = &[
            ("\r\n", Violation::ChunkSize),
            ("\n", Violation::ChunkSize),
            (";a\r\n", Violation::ChunkSize),
            (" 5\r\n", Violation::ChunkSize),
            ("+5\r\n", Violation::ChunkSize),
            ("-1\r\n", Violation::ChunkSize),
            ("0x5\r\n", Violation::ChunkSize),
            ("5,\r\n", Violation::ChunkSize),
            ("g\r\n", Violation::ChunkSize),
            ("8000000000000000\r\n", Violation::ChunkSize),
            ("ffffffffffffffff\r\n", Violation::ChunkSize),
            ("10000000000000000\r\n", Violation::ChunkSize),
            ("00000000000000001\r\n", Violation::ChunkSize),
            ("5\n", Violation::BareLf),
            ("5\rx", Violation::BareCr),
            ("5 \r\n", Violation::ChunkExtension),
            ("5 5\r\n", Violation::ChunkExtension),
            ("5;\r\n", Violation::ChunkExtension),
            ("5;=a\r\n", Violation::ChunkExtension),
            ("5;a=\r\n", Violation::ChunkExtension),
            ("5;a=b c\r\n", Violation::ChunkExtension),
            ("5;a b\r\n", Violation::ChunkExtension),
            ("5;a=\"b\r\n", Violation::ChunkExtension),
            ("5;a=\"b\"c\r\n", Violation::ChunkExtension),
            ("5;a=\"\0\"\r\n", Violation::ChunkExtension),
            ("5;a\n", Violation::BareLf),
            ("5;a=\"\n\"\r\n", Violation::BareLf),
            ("5;a\rb", Violation::BareCr),
            ("5;a;;b\r\n", Violation::ChunkExtension),
            ("1\r\nxy", Violation::ChunkEnd),
            ("1\r\nx\n", Violation::BareLf),
            ("1\r\nx\r\r", Violation::ChunkEnd),
            ("1\r\nx0\r\n\r\n", Violation::ChunkEnd),
            ("1\r\nx\r\n\r\n", Violation::ChunkSize),
        ];
        for (raw, violation) in table {
            let every: Vec<usize> = (1..raw.len()).collect();
            assert_eq!(decode(raw.as_bytes(), &[]), Err(*violation), "{raw:?}");
            assert_eq!(decode(raw.as_bytes(), &every), Err(*violation), "{raw:?} byte by byte");
        }
    }

    #[test]
    fn extensions_are_bounded_by_what_they_carry() {
        let big = "x".repeat(20_000);
        assert_eq!(decode(format!("1;{big}\r\n").as_bytes(), &[]), Err(Violation::ChunkExtensionsTooLarge));
        let tiny = format!("1;{}\r\nx\r\n", "x".repeat(99)).repeat(200);
        assert_eq!(decode(tiny.as_bytes(), &[]), Err(Violation::ChunkExtensionsTooLarge));
        let signed = format!("400;{}\r\n{}\r\n", "x".repeat(99), "y".repeat(1024)).repeat(400);
        assert_eq!(decode(signed.as_bytes(), &[]).unwrap().0.len(), 400 * 1024);
    }

    #[test]
    fn the_reader_is_small() {
        assert!(size_of::<BodyReader>() <= 32);
    }

    /// Chunks as strange as they may be, and what they carry.
    fn chunked() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let extension =
            prop_oneof![Just(""), Just(";a"), Just(" ; a=b"), Just(";q=\"a;\\\"\""), Just(";a;b=c")];
        let chunk = (proptest::collection::vec(any::<u8>(), 1..40), extension, 0..4usize, any::<bool>());
        proptest::collection::vec(chunk, 0..12).prop_map(|chunks| {
            let (mut raw, mut payload) = (Vec::new(), Vec::new());
            for (data, extension, zeros, upper) in chunks {
                let size = if upper { format!("{:X}", data.len()) } else { format!("{:x}", data.len()) };
                raw.extend_from_slice(format!("{}{size}{extension}\r\n", "0".repeat(zeros)).as_bytes());
                raw.extend_from_slice(&data);
                raw.extend_from_slice(b"\r\n");
                payload.extend_from_slice(&data);
            }
            raw.extend_from_slice(b"0\r\n\r\n");
            (raw, payload)
        })
    }

    /// Up to `n` places below `most` to cut at.
    fn cuts(most: usize, n: usize) -> impl Strategy<Value = Vec<usize>> {
        proptest::collection::vec(0..most, 0..n)
    }

    /// Bytes, most of them of those that mean something to the decoder.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let meaning = prop::sample::select(b"\r\n01;=\"".to_vec());
        proptest::collection::vec(prop_oneof![7 => meaning, 1 => any::<u8>()], 0..200)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_payload((raw, payload) in chunked(), mut cuts in cuts(400, 20)) {
            for cut in &mut cuts { *cut = (*cut).min(raw.len()); }
            cuts.sort_unstable();
            let whole = [raw.as_slice(), b"NEXT"].concat();
            let decoded = (payload.clone(), b"NEXT".to_vec(), BodyProgress::Done);
            prop_assert_eq!(decode(&whole, &cuts), Ok(decoded));
            let every: Vec<usize> = (1..raw.len()).collect();
            prop_assert_eq!(decode(&raw, &every), Ok((payload, Vec::new(), BodyProgress::Done)));
        }

        #[test]
        fn garbage_is_no_harm(raw in bytes(), cuts in cuts(200, 10)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(raw.len())).collect();
            cuts.sort_unstable();
            // How it is cut changes nothing about the verdict.
            prop_assert_eq!(decode(&raw, &cuts), decode(&raw, &[]));
        }
    }
}
