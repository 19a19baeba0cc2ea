//! Heads on the way out: framing and hop-by-hop fields are re-made, never copied.

use http::{StatusCode, Version};

use super::trailers::TrailerFields;
use crate::http::forward::{self, HeadSink, RequestForward, ResponseForward};
use crate::http::hex;
use crate::http::ip::IpText;
use crate::http::{Framing, HeaderKind, RequestHead, ResponseHead};
use crate::planted::planted;

/// Writes into lent room. What does not fit is dropped and remembered; it never panics.
pub struct Writer<'a> {
    buf: &'a mut [u8],
    len: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    /// Writes to the front of `buf`.
    pub fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, len: 0, full: false }
    }

    /// Bytes.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        // Two lengths of slices: their sum is far from overflowing.
        let end = self.len + bytes.len();
        match self.buf.get_mut(self.len..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.overflow(),
        }
    }

    /// A text of known length: a few moves.
    #[inline(always)]
    pub(crate) fn lit<const N: usize>(&mut self, text: &[u8; N]) {
        self.padded(text, N);
    }

    /// The first `len` bytes of `text`, where there is room for all of it; else they are put as any others.
    #[inline(always)]
    fn padded<const N: usize>(&mut self, text: &[u8; N], len: usize) {
        match self.buf[self.len..].first_chunk_mut() {
            Some(room) => {
                *room = *text;
                self.len += len;
            }
            None => self.put(&text[..len]),
        }
    }

    /// Nothing fits from now on, so that nothing is left out in the middle.
    #[inline(always)]
    fn overflow(&mut self) {
        self.full = true;
        self.buf = std::mem::take(&mut self.buf).get_mut(..self.len).unwrap_or_default();
    }

    /// A whole field line.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        for piece in [name, b": ", value, b"\r\n"] {
            self.put(piece);
        }
    }

    /// A decimal number.
    pub fn decimal(&mut self, n: u64) {
        self.put(itoa::Buffer::new().format(n).as_bytes());
    }

    /// A hexadecimal number, lower case, without leading zeros.
    pub fn hex(&mut self, n: u64) {
        self.put(hex::digits(n, &mut [0; 16]));
    }

    /// An address; IPv4 in IPv6 is written as IPv4, the rest of IPv6 as RFC 5952 has it.
    #[inline]
    fn address(&mut self, ip: &IpText) {
        match ip.short() {
            Some((text, len)) => self.padded(text, len),
            None => self.put(ip.as_bytes()),
        }
    }

    /// How many bytes were written; `None` if they did not all fit.
    #[must_use]
    pub fn finish(self) -> Option<usize> {
        (!self.full).then_some(self.len)
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

/// Writes the head of the request to a backend, in one pass.
pub fn forward_request(w: &mut Writer<'_>, request: &RequestHead, f: &RequestForward<'_>) {
    forward::pass_request(w, request, f);
}

/// Writes the head of a final response (or a 101) to the client.
pub fn forward_response(w: &mut Writer<'_>, response: &ResponseHead, f: &ResponseForward<'_>) {
    forward::pass_response(w, response, f);
}

/// Writes an interim response (1xx) to a client of HTTP/1.1.
pub fn forward_interim(w: &mut Writer<'_>, response: &ResponseHead) {
    forward::pass_interim(w, response);
}

/// How content framed so by its source goes out to a client of this version: chunked where the length is
/// unknown, until close for HTTP/1.0.
#[must_use]
pub fn client_framing(framing: Framing, client_version: Version) -> Framing {
    match framing {
        Framing::Chunked | Framing::Close if client_version == Version::HTTP_11 => Framing::Chunked,
        Framing::Chunked | Framing::Close => Framing::Close,
        known => known,
    }
}

impl HeadSink for Writer<'_> {
    /// Trailers are a part of chunked content.
    const ENDS_STREAMS: bool = false;

    #[inline(always)]
    fn request(&mut self, request: &RequestHead, host: &[u8], pass: u64) {
        // Most requests begin as they are to go on: with a line in which nothing has to be changed, and
        // `Host`.
        let host_first = request.line_as_received && request.fields.begins_with(HeaderKind::Host, host);
        if !host_first {
            for piece in [request.method().as_str().as_bytes(), b" ", request.target(), b" HTTP/1.1\r\n"] {
                self.put(piece);
            }
            Writer::field(self, b"Host", host);
        }
        request.fields.copy(host_first, host_first, pass, |piece| self.put(piece));
    }

    #[inline(always)]
    fn status(&mut self, response: &ResponseHead, interim: bool) {
        if !response.line_as_received || interim {
            status_line(self, response);
        }
    }

    #[inline(always)]
    fn fields(&mut self, response: &ResponseHead, first: bool, pass: u64) {
        response.fields.copy(first && response.line_as_received, false, pass, |piece| self.put(piece));
    }

    #[inline(always)]
    fn begin_field(&mut self, _: HeaderKind, name: &[u8]) {
        self.put(name);
        self.put(b": ");
    }

    #[inline(always)]
    fn value(&mut self, piece: &[u8]) {
        self.put(piece);
    }

    #[inline(always)]
    fn end_field(&mut self) {
        self.put(b"\r\n");
    }

    #[inline(always)]
    fn lines(&mut self, lines: &[u8]) {
        self.put(lines);
    }

    #[inline(always)]
    fn chunked(&mut self) {
        self.put(b"Transfer-Encoding: chunked\r\n");
    }

    /// `TE`, `Connection` and `Upgrade` of this hop.
    #[inline(always)]
    fn request_connection(&mut self, request: &RequestHead) {
        let upgrade = request.upgrade();
        if request.te_trailers {
            self.put(b"TE: trailers\r\n");
        }
        match (upgrade, request.te_trailers) {
            (None, false) => {}
            (None, true) => self.put(b"Connection: TE\r\n"),
            (Some(_), true) => self.put(b"Connection: upgrade, TE\r\n"),
            (Some(_), false) => self.put(b"Connection: upgrade\r\n"),
        }
        if let Some(protocols) = upgrade {
            Writer::field(self, b"Upgrade", protocols);
        }
    }

    /// `Connection` and `Upgrade` of this hop.
    #[inline(always)]
    fn response_connection(&mut self, response: &ResponseHead, f: &ResponseForward<'_>) {
        let persists = f.keep_alive && f.framing != Framing::Close;
        let Some(protocols) = response.upgrade() else {
            if !persists {
                self.lit(b"Connection: close\r\n");
            } else if f.client_version == Version::HTTP_10 {
                self.lit(b"Connection: keep-alive\r\n");
            }
            return;
        };
        if persists || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.lit(b"Connection: upgrade\r\n");
        } else {
            self.lit(b"Connection: upgrade, close\r\n");
        }
        Writer::field(self, b"Upgrade", protocols);
    }

    /// As `forward::forwarded_fields`, in few pieces.
    #[inline(always)]
    fn forwarded(&mut self, host: &[u8], f: &RequestForward<'_>) {
        // Worked on here, and not through a reference: place and room stay in registers.
        let mut own = Writer { buf: std::mem::take(&mut self.buf), ..*self };
        own.lit(b"X-Forwarded-For: ");
        own.address(f.peer);
        own.lit(b"\r\nX-Real-IP: ");
        own.address(f.peer);
        own.lit(b"\r\nX-Forwarded-Host: ");
        own.put(if planted!(59) { b"" } else { host });
        own.put(&f.forwarded_headers.text);
        own.lit(f.request_id);
        own.lit(b"\r\n\r\n");
        *self = own;
    }

    #[inline(always)]
    fn end(&mut self) {
        self.lit(b"\r\n");
    }
}

fn status_line(w: &mut Writer<'_>, response: &ResponseHead) {
    for piece in [b"HTTP/1.1 ", response.status().as_str().as_bytes(), b" ", response.reason(), b"\r\n"] {
        w.put(piece);
    }
}

/// Writes a trailer section with its empty line: for [`super::ChunkEncoder::finish`].
pub fn forward_trailers(w: &mut Writer<'_>, fields: &TrailerFields<'_>) {
    for field in fields.iter() {
        w.field(field.name, field.value);
    }
    w.put(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::Writer;

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut room = [0; 100];
        let mut w = Writer::new(&mut room);
        write(&mut w);
        String::from_utf8(w.written().to_vec()).unwrap()
    }

    #[test]
    fn numbers() {
        for n in [0, 1, 9, 10, 99, 100, 255, 256, 4095, 65536, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(written(|w| w.decimal(n)), n.to_string());
            assert_eq!(written(|w| w.hex(n)), format!("{n:x}"));
        }
    }

    #[test]
    fn a_full_writer_stays_full() {
        let mut room = [0; 4];
        let mut w = Writer::new(&mut room);
        w.put(b"abc");
        w.put(b"de");
        w.put(b"f");
        assert_eq!((w.written(), w.full), (&b"abc"[..], true));
        assert_eq!(w.finish(), None);
        let mut w = Writer::new(&mut room);
        w.put(b"abcd");
        w.put(b"");
        assert_eq!(w.finish(), Some(4));
    }
}
