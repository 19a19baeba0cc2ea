//! Heads on the way out: framing and hop-by-hop fields are re-made, never copied.

use super::parsed::{ParsedRequest, ParsedResponse};
use super::trailers::TrailerFields;
use crate::http::hex;
use crate::http::ip::IpText;
use crate::http::{Framing, HeaderKind, StatusCode, Version};

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
        match self.buf.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut) {
            Some(room) => {
                *room = *text;
                self.len += len;
            }
            None => self.put(&text[..len]),
        }
    }

    /// Nothing fits from now on, so that nothing is left out in the middle.
    #[cold]
    fn overflow(&mut self) {
        self.full = true;
        self.buf = &mut std::mem::take(&mut self.buf)[..self.len];
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

    fn framing(&mut self, framing: Framing) {
        match framing {
            Framing::Length(n) => {
                self.put(b"Content-Length: ");
                self.decimal(n);
                self.put(b"\r\n");
            }
            Framing::Chunked => self.put(b"Transfer-Encoding: chunked\r\n"),
            Framing::None | Framing::Close => {}
        }
    }
}

/// Where clients arrive: what backends are told of it, in one piece that is made once.
#[derive(Clone, Debug)]
pub struct ForwardedHeaders {
    proto: &'static str,
    port: u16,
    server: Box<[u8]>,
    text: Box<[u8]>,
}

impl ForwardedHeaders {
    /// `proto` is `http` or `https`, `port` that of the listener, `server` our name.
    #[must_use]
    pub fn new(proto: &'static str, port: u16, server: &str) -> Self {
        let text = format!(
            "\r\nX-Forwarded-Proto: {proto}\r\nX-Forwarded-Port: {port}\r\nX-Forwarded-Server: {server}\r\nX-Request-ID: "
        );
        Self { proto, port, server: server.as_bytes().into(), text: text.into_bytes().into() }
    }

    /// Whether it is this one.
    #[inline]
    #[must_use]
    pub fn is(&self, proto: &'static str, port: u16) -> bool {
        self.port == port && self.proto == proto
    }
}

/// What a request to a backend says beyond what the client said.
#[derive(Clone, Copy, Debug)]
pub struct RequestForward<'a> {
    /// The client.
    pub peer: &'a IpText,
    /// Where it arrived.
    pub forwarded_headers: &'a ForwardedHeaders,
    /// For `X-Request-ID`, unless a trusted peer sent one.
    pub request_id: &'a RequestId,
    /// The peer is a trusted proxy: what it says of its own clients is kept and added to.
    pub trusted: bool,
    /// Pass `Expect: 100-continue` on.
    pub keep_expect: bool,
    /// Framing of the content when it is not the client's any more.
    pub own_body: Option<Framing>,
    /// `Host` for a client of HTTP/1.0 that named none (RFC 9112 §3.3): say, the backend's own name.
    pub default_host: &'a [u8],
}

/// A request's id, as it is sent.
pub type RequestId = [u8; 32];

/// What never passes by itself in either direction: framing and hop-by-hop fields (RFC 9110 §7.6.1).
/// `Trailer` passes where trailers can.
const HOP_BY_HOP: u64 = HeaderKind::set(&[
    HeaderKind::ContentLength,
    HeaderKind::TransferEncoding,
    HeaderKind::Connection,
    HeaderKind::KeepAlive,
    HeaderKind::ProxyConnection,
    HeaderKind::Te,
    HeaderKind::Trailer,
    HeaderKind::Upgrade,
    HeaderKind::ConnectionListed,
]);
/// What we say ourselves in requests, and other spellings of it.
const PROXY_SET: u64 = HeaderKind::set(&[
    HeaderKind::Host,
    HeaderKind::Expect,
    HeaderKind::UnderscoreAlias,
    HeaderKind::XForwardedFor,
    HeaderKind::XForwardedProto,
    HeaderKind::XForwardedHost,
    HeaderKind::XForwardedPort,
    HeaderKind::XForwardedServer,
    HeaderKind::XRealIp,
    HeaderKind::XRequestId,
]);
const TRAILER: u64 = HeaderKind::set(&[HeaderKind::Trailer]);

/// Writes the head of the request to a backend, in one pass.
pub fn forward_request(w: &mut Writer<'_>, request: &ParsedRequest<'_>, f: &RequestForward<'_>) {
    let fields = &request.fields;
    let framing = f.own_body.unwrap_or(request.framing);
    let host = if request.host.is_empty() { f.default_host } else { request.host };

    // Most requests begin as they are to go on: with a line that nothing has to be changed in, and with
    // `Host`.
    let line = fields.line();
    let (method_len, target_len) = (request.method.as_str().len(), request.target.normalised.len());
    let same_line = request.version == Version::HTTP_11
        && line.len() == method_len + 1 + target_len + 9
        && line
            .get(method_len + 1..method_len + 1 + target_len)
            .is_some_and(|t| std::ptr::eq(t, request.target.normalised));
    let host_first = same_line && fields.begins_with(HeaderKind::Host, host);
    if !host_first {
        w.put(request.method.as_str().as_bytes());
        w.put(b" ");
        w.put(request.target.normalised);
        w.put(b" HTTP/1.1\r\n");
        w.field(b"Host", host);
    }

    let mut pass = !(HOP_BY_HOP | PROXY_SET);
    if framing == Framing::Chunked {
        pass |= TRAILER;
    }
    if request.max_forwards.is_some() {
        pass &= !HeaderKind::set(&[HeaderKind::MaxForwards]);
    }
    fields.copy(host_first, host_first, pass, |piece| w.put(piece));

    if f.keep_expect && request.expect_continue {
        w.put(b"Expect: 100-continue\r\n");
    }
    if let Some(hops) = request.max_forwards {
        w.put(b"Max-Forwards: ");
        w.decimal(hops.saturating_sub(1));
        w.put(b"\r\n");
    }
    w.framing(framing);
    if request.te_trailers {
        w.put(b"TE: trailers\r\n");
    }
    match (request.upgrade, request.te_trailers) {
        (None, false) => {}
        (None, true) => w.put(b"Connection: TE\r\n"),
        (Some(_), true) => w.put(b"Connection: upgrade, TE\r\n"),
        (Some(_), false) => w.put(b"Connection: upgrade\r\n"),
    }
    if let Some(protocols) = request.upgrade {
        w.field(b"Upgrade", protocols);
    }
    if request.version == Version::HTTP_10 {
        w.lit(b"Via: 1.0 rust-strom\r\nX-Forwarded-For: ");
    } else {
        w.lit(b"Via: 1.1 rust-strom\r\nX-Forwarded-For: ");
    }
    if f.trusted {
        return forwarded(w, request, host, f);
    }
    w.address(f.peer);
    w.lit(b"\r\nX-Real-IP: ");
    w.address(f.peer);
    w.lit(b"\r\nX-Forwarded-Host: ");
    w.put(host);
    w.put(&f.forwarded_headers.text);
    w.lit(f.request_id);
    w.lit(b"\r\n\r\n");
}

/// What backends are told of a trusted proxy's client: its lists are continued and its single values kept.
/// Nobody else's are believed.
#[cold]
fn forwarded(w: &mut Writer<'_>, request: &ParsedRequest<'_>, host: &[u8], f: &RequestForward<'_>) {
    let said = |kind| request.fields.get(kind).filter(|value| !value.is_empty());
    let list = |w: &mut Writer<'_>, kind| {
        for before in request.fields.iter().filter(|field| field.kind == kind && !field.value.is_empty()) {
            w.put(before.value);
            w.put(b", ");
        }
    };

    let peer = f.peer.as_bytes();
    list(w, HeaderKind::XForwardedFor);
    w.put(peer);
    w.put(b"\r\nX-Real-IP: ");
    w.put(said(HeaderKind::XRealIp).unwrap_or(peer));
    w.put(b"\r\nX-Forwarded-Host: ");
    w.put(said(HeaderKind::XForwardedHost).unwrap_or(host));
    w.put(b"\r\nX-Forwarded-Proto: ");
    w.put(said(HeaderKind::XForwardedProto).unwrap_or(f.forwarded_headers.proto.as_bytes()));
    w.put(b"\r\nX-Forwarded-Port: ");
    match said(HeaderKind::XForwardedPort) {
        Some(port) => w.put(port),
        None => w.decimal(u64::from(f.forwarded_headers.port)),
    }
    w.put(b"\r\nX-Forwarded-Server: ");
    list(w, HeaderKind::XForwardedServer);
    w.put(&f.forwarded_headers.server);
    w.put(b"\r\nX-Request-ID: ");
    w.put(said(HeaderKind::XRequestId).unwrap_or(f.request_id));
    w.put(b"\r\n\r\n");
}

/// What an answer to a client says beyond what the backend said.
#[derive(Clone, Copy, Debug)]
pub struct ResponseForward<'a> {
    /// Written if the answer has none.
    pub date: &'a [u8; 29],
    /// The client's version, 10 or 11.
    pub client_version: u8,
    /// How the content goes out: [`client_framing`] of the answer's, or what a transform made of it.
    pub framing: Framing,
    /// Whether the client may send another request. Ignored with [`Framing::Close`]: then it may not.
    pub keep_alive: bool,
    /// Whole field lines, each with its CRLF, or nothing.
    pub extra: &'a [u8],
}

/// How content framed so by the backend goes out to a client of this version: chunked where the length is
/// unknown, until close for HTTP/1.0.
#[must_use]
pub fn client_framing(framing: Framing, client_version: u8) -> Framing {
    match framing {
        Framing::Chunked | Framing::Close if client_version == 11 => Framing::Chunked,
        Framing::Chunked | Framing::Close => Framing::Close,
        kind => kind,
    }
}

/// Writes the head of a final answer (or a 101) to the client.
pub fn forward_response(w: &mut Writer<'_>, response: &ParsedResponse<'_>, f: &ResponseForward<'_>) {
    let same_line =
        response.version == Version::HTTP_11 && response.fields.line().len() == 13 + response.reason.len();
    if !same_line {
        status_line(w, response);
    }
    let mut pass = if f.framing == Framing::Chunked { !HOP_BY_HOP | TRAILER } else { !HOP_BY_HOP };
    // A length that stands last already, where ours would stand, passes as it is.
    let same_length = response.has_date
        && matches!(f.framing, Framing::Length(n) if response.content_length == Some(n) && response.status.as_u16() >= 200 && response.status != StatusCode::NO_CONTENT)
        && response
            .fields
            .last(HeaderKind::ContentLength)
            .is_some_and(|digits| digits.len() == 1 || digits[0] != b'0');
    if same_length {
        pass |= HeaderKind::set(&[HeaderKind::ContentLength]);
    }
    response.fields.copy(same_line, false, pass, |piece| w.put(piece));
    if !response.has_date {
        w.field(b"Date", f.date);
    }
    match (response.status.as_u16(), f.framing, response.content_length) {
        // RFC 9110 §8.6: not even as a statement.
        (..200 | 204, ..) => {}
        _ if same_length => {}
        (_, Framing::None, Some(n)) => w.framing(Framing::Length(n)),
        (_, framing, _) => w.framing(framing),
    }
    w.put(f.extra);
    let persists = f.keep_alive && f.framing != Framing::Close;
    w.put(match (response.upgrade, persists, f.client_version) {
        (Some(_), ..) if response.status == StatusCode::SWITCHING_PROTOCOLS => b"Connection: upgrade\r\n",
        (Some(_), true, _) => b"Connection: upgrade\r\n",
        (Some(_), false, _) => b"Connection: upgrade, close\r\n",
        (None, false, _) => b"Connection: close\r\n",
        (None, true, 10) => b"Connection: keep-alive\r\n",
        (None, true, _) => b"",
    });
    if let Some(protocols) = response.upgrade {
        w.field(b"Upgrade", protocols);
    }
    w.put(b"\r\n");
}

/// Writes an interim answer (1xx) to a client of HTTP/1.1.
pub fn forward_interim(w: &mut Writer<'_>, response: &ParsedResponse<'_>) {
    status_line(w, response);
    response.fields.copy(false, false, !HOP_BY_HOP, |piece| w.put(piece));
    w.put(b"\r\n");
}

fn status_line(w: &mut Writer<'_>, response: &ParsedResponse<'_>) {
    w.put(b"HTTP/1.1 ");
    w.put(response.status.as_str().as_bytes());
    w.put(b" ");
    w.put(response.reason);
    w.put(b"\r\n");
}

/// Writes a trailer section with its empty line: for [`super::ChunkWriter::finish`].
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
