//! Our HPACK decoder against that of the `h2` crate, which can be reached through its codec of frames alone:
//! each block goes into a HEADERS frame of a stream of its own. Fields, their order under each name, what is
//! broken, and the tables, for as many blocks as both can read.
//!
//! Three differences are known, and each is looked for: the other decoder takes names, values, methods and
//! statuses that it can't represent for broken blocks; it takes integers of at most four bytes behind the
//! prefix, ours of five; and it doesn't insist on the size update that a smaller setting calls for.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use h2::frame::{Frame, Headers};
use ruststrom_core::h2::frame::{FrameHeader, flag, kind};
use ruststrom_core::h2::hpack::{BlockLimits, Decoder, FieldBlock, Fit, HpackError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::input::Input;

const LIMITS: BlockLimits = BlockLimits { list_bytes: 65_535, fields: u32::MAX, hard_bytes: 1 << 20 };

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let (mut decoder, mut into) = (Decoder::new(), FieldBlock::new());
    let mut theirs = Theirs::new();
    while !input.is_empty() {
        let setting = input.byte();
        if setting & 7 == 0 {
            let bytes = u32::from(setting >> 3) * 200;
            decoder.set_allowed(bytes);
            theirs.codec.set_recv_header_table_size(bytes as usize);
        }
        let block = input.piece();
        let ours = decoder.decode(block, &LIMITS, &mut into);
        let fields: Fields = into.iter().map(|f| (f.name.to_vec(), f.value.to_vec())).collect();
        let other = theirs.decode(block);
        match (ours, other) {
            (Err(HpackError::MissingSizeUpdate | HpackError::TooLarge), _) => return,
            (Err(_), Decoded::Broken) => return,
            (Err(why), other) => panic!("{why:?} although the other decoder has {other:?}"),
            // Not all fields are known.
            (Ok(Fit::TooLarge), Decoded::Broken) => return,
            (Ok(Fit::TooLarge), _) => {}
            (Ok(Fit::Whole), Decoded::Broken) => {
                let strange = fields.iter().any(|(name, value)| !can_represent(name, value));
                assert!(strange || has_long_integer(block), "{fields:?}");
                return;
            }
            (Ok(Fit::Whole), Decoded::Malformed) => assert!(is_malformed(&fields), "{fields:?}"),
            (Ok(Fit::Whole), Decoded::Fields(other)) => {
                assert!(!is_malformed(&fields), "{fields:?}");
                assert_eq!(by_name(fields), by_name(other));
            }
        }
    }
}

/// The other decoder keeps the order of the values of each name only.
fn by_name(mut fields: Fields) -> Fields {
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    fields
}

/// Whether the `h2` crate has a type for this field.
fn can_represent(name: &[u8], value: &[u8]) -> bool {
    match name {
        b":authority" | b":scheme" | b":path" | b":protocol" => std::str::from_utf8(value).is_ok(),
        b":method" => http::Method::from_bytes(value).is_ok(),
        b":status" => http::StatusCode::from_bytes(value).is_ok(),
        _ => http::HeaderName::from_lowercase(name).is_ok() && http::HeaderValue::from_bytes(value).is_ok(),
    }
}

/// What the other decoder takes for an error of the stream (RFC 9113 §8.2.2, §8.3).
fn is_malformed(fields: &Fields) -> bool {
    let (mut regular, mut seen) = (false, Vec::new());
    for (name, value) in fields {
        if name.starts_with(b":") {
            if regular || seen.contains(&name) {
                return true;
            }
            seen.push(name);
            continue;
        }
        match &name[..] {
            b"connection" | b"transfer-encoding" | b"upgrade" | b"keep-alive" | b"proxy-connection" => {
                return true;
            }
            b"te" if value != b"trailers" => return true,
            _ => regular = true,
        }
    }
    false
}

/// Whether a block, which is not broken, has an integer of more than four bytes behind its prefix.
fn has_long_integer(block: &[u8]) -> bool {
    let (mut at, mut found) = (0, false);
    let mut integer = |at: &mut usize, mask: u8| {
        let mut value = usize::from(block[*at] & mask);
        *at += 1;
        if value == usize::from(mask) {
            for n in 0.. {
                let byte = block[*at];
                *at += 1;
                found |= n >= 4 || (n == 3 && byte & 0x80 != 0);
                value += usize::from(byte & 0x7f) << (7 * n);
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        value
    };
    while let Some(&first) = block.get(at) {
        if first & 0x80 != 0 {
            integer(&mut at, 0x7f);
            continue;
        }
        if first & 0xe0 == 0x20 {
            integer(&mut at, 0x1f);
            continue;
        }
        let index = integer(&mut at, if first & 0x40 != 0 { 0x3f } else { 0x0f });
        for _ in 0..if index == 0 { 2 } else { 1 } {
            at += integer(&mut at, 0x7f);
        }
    }
    found
}

#[derive(Debug)]
enum Decoded {
    Fields(Fields),
    /// The block is good, the message is not.
    Malformed,
    Broken,
}

struct Theirs {
    codec: h2::Codec<Bytes, bytes::Bytes>,
    stream: u32,
}

impl Theirs {
    fn new() -> Self {
        Self { codec: h2::Codec::new(Bytes(Vec::new())), stream: 1 }
    }

    fn decode(&mut self, block: &[u8]) -> Decoded {
        let flags = flag::END_HEADERS | flag::END_STREAM;
        let header = FrameHeader { len: block.len() as u32, kind: kind::HEADERS, flags, stream: self.stream };
        self.stream += 2;
        let bytes = &mut self.codec.get_mut().0;
        assert!(bytes.is_empty(), "a frame was not read");
        bytes.extend_from_slice(&header.bytes());
        bytes.extend_from_slice(block);
        let polled = Pin::new(&mut self.codec).poll_next(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(Some(Ok(Frame::Headers(headers)))) => Decoded::Fields(fields_of(headers)),
            Poll::Ready(Some(Err(error))) => {
                let error = format!("{error:?}");
                if error.starts_with("Reset(") {
                    Decoded::Malformed
                } else {
                    assert!(error.starts_with("GoAway("), "{error}");
                    Decoded::Broken
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn fields_of(headers: Headers) -> Fields {
    let (pseudo, regular) = headers.into_parts();
    let pseudo: [(&str, Option<Vec<u8>>); 6] = [
        (":method", pseudo.method.map(|m| m.as_str().as_bytes().to_vec())),
        (":scheme", pseudo.scheme.map(|s| s.as_bytes().to_vec())),
        (":authority", pseudo.authority.map(|s| s.as_bytes().to_vec())),
        (":path", pseudo.path.map(|s| s.as_bytes().to_vec())),
        (":protocol", pseudo.protocol.map(|p| p.as_str().as_bytes().to_vec())),
        (":status", pseudo.status.map(|s| s.as_str().as_bytes().to_vec())),
    ];
    let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some((name.into(), value?)));
    let regular = regular.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec()));
    pseudo.chain(regular).collect()
}

/// Bytes to read; nothing is written.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl AsyncRead for Bytes {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context, buf: &mut ReadBuf) -> Poll<std::io::Result<()>> {
        let n = self.0.len().min(buf.remaining());
        buf.put_slice(&self.0[..n]);
        self.0.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bytes {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
