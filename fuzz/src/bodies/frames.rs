//! Frames of HTTP/2 as a fuzzer's bytes choose them: good ones, and such that break a rule or two.

use ruststrom_core::h2::frame::{FrameHeader, flag, kind};
use ruststrom_core::h2::hpack::Encoder;
use ruststrom_core::http::HeaderKind;

use super::input::Input;

const METHODS: [&[u8]; 8] =
    [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE", b"GET / HTTP/1.1\r\n"];
const PATHS: [&[u8]; 8] =
    [b"/", b"/a/b?c=d", b"/a b", b"*", b"", b"/\r\nX: y", b"http://a.test/c", b"/a/../%2e/%00"];
const HOSTS: [&[u8]; 8] =
    [b"a.test", b"a.test", b"a.test:80", b"b.test", b"", b"u@a.test", b"a.test\r\n", b"[::1]"];
const FIELDS: [(&[u8], &[u8]); 24] = [
    (b"content-length", b"0"),
    (b"content-length", b"5"),
    (b"content-length", b"5, 5"),
    (b"content-length", b"+5"),
    (b"content-length", b"300"),
    (b"host", b"a.test"),
    (b"cookie", b"a=b"),
    (b"cookie", b"c=d; e"),
    (b"transfer-encoding", b"chunked"),
    (b"connection", b"close"),
    (b"te", b"trailers"),
    (b"te", b"gzip"),
    (b"expect", b"100-continue"),
    (b"priority", b"u=1, i"),
    (b"upgrade", b"h2c"),
    (b"Accept", b"*/*"),
    (b"x-line", b"a\r\nTransfer-Encoding: chunked"),
    (b"x-nul", b"a\0b"),
    (b"x name", b"y"),
    (b"x-blank", b" y "),
    (b":protocol", b"websocket"),
    (b"content_length", b"7"),
    (b"x-forwarded-for", b"10.0.0.1"),
    (b"accept-encoding", b"gzip, deflate"),
];
const STATUSES: [&[u8]; 8] = [b"200", b"204", b"304", b"103", b"101", b"404", b"999", b"20"];
/// Of settings, and increments of windows.
const NUMBERS: [u32; 10] = [0, 1, 100, 4096, 16_384, 65_535, 100_000, (1 << 31) - 1, 1 << 31, u32::MAX];
const SETTING_IDS: [u16; 8] = [1, 2, 3, 4, 5, 6, 8, 9];

/// Writes to one connection.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) encoder: Encoder,
    /// Appended to each head, where the other side should tell which request it was.
    pub(super) mark: Option<Vec<u8>>,
}

impl Writer {
    /// One of nine sorts of frames.
    pub(super) fn any(
        &mut self,
        sort: u8,
        stream: u32,
        to_server: bool,
        input: &mut Input<'_>,
        out: &mut Vec<u8>,
    ) {
        match sort {
            1 => {
                let (kind, flags, of) = (input.byte() % 18, input.byte(), input.byte());
                let stream = if of & 7 == 0 { u32::from(of >> 3) } else { stream };
                put(kind, flags, stream, input.piece(), out);
            }
            2 => self.head(stream, to_server, false, input, out),
            3 => self.head(stream, to_server, true, input, out),
            4 | 5 => {
                let choice = input.byte();
                let end = u8::from(sort == 5);
                // Mostly what fits into a frame.
                let len = [5, 1, 300, 0, 60, 1000, 9000, 16_384][usize::from(choice & 7)];
                let mut payload: Vec<u8> = (0..len).map(|i| stream as u8 ^ (i / 3) as u8).collect();
                let mut flags = end * flag::END_STREAM;
                if choice & 0x30 == 0x30 {
                    flags |= flag::PADDED;
                    payload.truncate(16_000);
                    payload.insert(0, choice);
                    payload.resize(payload.len() + usize::from(choice), 0);
                }
                put(kind::DATA, flags, stream, &payload, out);
            }
            6 => {
                let mut payload = Vec::new();
                for _ in 0..input.below(4) {
                    payload.extend_from_slice(&SETTING_IDS[input.below(SETTING_IDS.len())].to_be_bytes());
                    payload.extend_from_slice(&NUMBERS[input.below(NUMBERS.len())].to_be_bytes());
                }
                put(kind::SETTINGS, 0, 0, &payload, out);
            }
            7 => {
                let choice = input.byte();
                let more = NUMBERS[usize::from(choice >> 1) % NUMBERS.len()];
                let stream = if choice & 1 == 0 { 0 } else { stream };
                put(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes(), out);
            }
            8 => self.control(stream, input, out),
            _ => {
                let mut block = Vec::new();
                self.encoder.begin(&mut block);
                for _ in 0..input.below(3) {
                    self.field(input, &mut block);
                }
                self.block(stream, true, input.byte(), &block, out);
            }
        }
    }

    fn control(&mut self, stream: u32, input: &mut Input<'_>, out: &mut Vec<u8>) {
        let choice = input.byte();
        match choice & 7 {
            0..=2 => put(kind::RST_STREAM, 0, stream, &u32::from(choice >> 4).to_be_bytes(), out),
            3 => put(kind::PING, choice >> 7, 0, b"12345678", out),
            4 => {
                let last = if choice & 8 == 0 { stream } else { u32::MAX >> 1 };
                let payload = [last.to_be_bytes(), u32::from(choice >> 4).to_be_bytes()];
                put(kind::GOAWAY, 0, 0, payload.as_flattened(), out);
            }
            5 => put(kind::PRIORITY, 0, stream, &[0, 0, 0, choice >> 3, 7], out),
            6 => {
                let payload = [&stream.to_be_bytes()[..], b"u=0"].concat();
                put(kind::PRIORITY_UPDATE, 0, 0, &payload, out);
            }
            // Ours are known; that we have drained, or that it is there.
            _ => match choice >> 3 & 3 {
                0 => put(kind::PING, flag::ACK, 0, b"draining", out),
                1 => put(kind::PING, flag::ACK, 0, b"are you?", out),
                _ => put(kind::SETTINGS, flag::ACK, 0, b"", out),
            },
        }
    }

    fn head(&mut self, stream: u32, to_server: bool, end: bool, input: &mut Input<'_>, out: &mut Vec<u8>) {
        let mut block = Vec::new();
        self.encoder.begin(&mut block);
        let (choice, hosts) = (input.byte(), input.byte());
        let mut pseudo = |name: &[u8], value: &[u8]| {
            self.encoder.field(name, value, HeaderKind::Other, false, &mut block);
        };
        if to_server {
            pseudo(b":method", METHODS[usize::from(choice & 7)]);
            pseudo(b":scheme", if hosts & 8 == 0 { b"http" } else { b"https" });
            if hosts & 16 == 0 {
                pseudo(b":authority", HOSTS[usize::from(hosts & 7)]);
            }
            if hosts & 32 == 0 {
                pseudo(b":path", PATHS[usize::from(choice >> 3 & 7)]);
            }
        } else {
            pseudo(b":status", STATUSES[usize::from(choice & 7)]);
        }
        if let Some(mark) = &self.mark {
            let mark = [mark, &stream.to_string().into_bytes()[..]].concat();
            self.encoder.field(b"x-stream", &mark, HeaderKind::Other, true, &mut block);
        }
        for _ in 0..usize::from(choice >> 6) + usize::from(hosts >> 6) {
            self.field(input, &mut block);
        }
        self.block(stream, end, input.byte(), &block, out);
    }

    fn field(&mut self, input: &mut Input<'_>, block: &mut Vec<u8>) {
        let choice = usize::from(input.byte());
        match FIELDS.get(choice % 32) {
            Some((name, value)) => {
                let kind = HeaderKind::of(name);
                if choice < 128 && !name.iter().any(u8::is_ascii_uppercase) {
                    self.encoder.field(name, value, kind, choice >= 96, block);
                } else {
                    literal(name, value, block);
                }
            }
            None => literal(input.piece(), input.piece(), block),
        }
    }

    /// HEADERS, and CONTINUATION if `shape` says so.
    fn block(&mut self, stream: u32, end: bool, shape: u8, block: &[u8], out: &mut Vec<u8>) {
        let mut flags = if end { flag::END_STREAM } else { 0 };
        let cut = if shape & 3 == 3 { block.len() * usize::from(shape >> 4) / 16 } else { block.len() };
        let (first, rest) = block.split_at(cut);
        let mut payload = Vec::new();
        if shape & 4 != 0 {
            flags |= flag::PADDED;
            payload.push(shape >> 4);
        }
        if shape & 8 != 0 {
            flags |= flag::PRIORITY;
            payload.extend_from_slice(&[0, 0, 0, shape >> 4, 16]);
        }
        payload.extend_from_slice(first);
        payload.resize(payload.len() + if shape & 4 != 0 { usize::from(shape >> 4) } else { 0 }, 0);
        if rest.is_empty() {
            return put(kind::HEADERS, flags | flag::END_HEADERS, stream, &payload, out);
        }
        put(kind::HEADERS, flags, stream, &payload, out);
        let (second, third) = rest.split_at(rest.len() / 2);
        put(kind::CONTINUATION, 0, stream, second, out);
        put(kind::CONTINUATION, flag::END_HEADERS, stream, third, out);
    }
}

/// A field as it is, in no table; what is too long is cut.
fn literal(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    block.push(0);
    for text in [name, value] {
        let text = &text[..text.len().min(126)];
        block.push(text.len() as u8);
        block.extend_from_slice(text);
    }
}

fn put(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let len = payload.len() as u32;
    out.extend_from_slice(&FrameHeader { len, kind, flags, stream }.bytes());
    out.extend_from_slice(payload);
}
