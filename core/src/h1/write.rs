//! Heads on the way out: framing and hop-by-hop fields are re-made, never copied.

use http::{StatusCode, Version};

use super::trailers::TrailerFields;
use crate::http::hex;
use crate::http::ip::IpText;
use crate::http::{Framing, HeaderKind, RequestHead, ResponseHead};

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

    fn content_length(&mut self, n: u64) {
        self.put(b"Content-Length: ");
        self.decimal(n);
        self.put(b"\r\n");
    }

    #[inline(always)]
    fn framing(&mut self, framing: Framing) {
        match framing {
            Framing::Length(n) => self.content_length(n),
            Framing::Chunked => self.put(b"Transfer-Encoding: chunked\r\n"),
            Framing::None | Framing::Close => {}
        }
    }
}

/// What backends are told of the listener that a client came by, in one piece that is made once.
#[derive(Clone, Debug)]
pub struct ForwardedHeaders {
    proto: &'static str,
    port: u16,
    server: Box<[u8]>,
    text: Box<[u8]>,
}

impl ForwardedHeaders {
    /// `proto` is `http` or `https`, `port` that of the listener, `server` the name of this host.
    #[must_use]
    pub fn new(proto: &'static str, port: u16, server: &str) -> Self {
        let text = format!(
            "\r\nX-Forwarded-Proto: {proto}\r\nX-Forwarded-Port: {port}\r\n\
             X-Forwarded-Server: {server}\r\nX-Request-ID: "
        );
        Self { proto, port, server: server.as_bytes().into(), text: text.into_bytes().into() }
    }

    /// The port of the listener.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether these are for a listener of this protocol and port.
    #[inline]
    #[must_use]
    pub fn is_for(&self, proto: &'static str, port: u16) -> bool {
        self.port == port && self.proto == proto
    }
}

/// What a request to a backend says beyond what the client said.
#[derive(Clone, Copy, Debug)]
pub struct RequestForward<'a> {
    /// The client's address.
    pub peer: &'a IpText,
    /// Of the listener that it came by.
    pub forwarded_headers: &'a ForwardedHeaders,
    /// For `X-Request-ID`, unless a trusted peer sent one.
    pub request_id: &'a RequestId,
    /// The peer is a trusted proxy: what it says of its own clients is kept and added to.
    pub trusted: bool,
    /// The client that a trusted proxy speaks for; the peer where there is none.
    pub client: &'a IpText,
    /// What is known of the client's certificate, where clients are asked for one.
    pub client_certificate: Option<ClientCertificate<'a>>,
    /// Say in `Via` that the request has passed here (RFC 9110 §7.6.3).
    pub via: bool,
    /// Pass `Expect: 100-continue` on.
    pub keep_expect: bool,
    /// How the content goes out, where that is not as it came in.
    pub own_body: Option<Framing>,
    /// `Host` for a client of HTTP/1.0 that named none (RFC 9112 §3.3): say, the backend's own name.
    pub default_host: &'a [u8],
}

/// What backends are told of a client's certificate.
#[derive(Clone, Copy, Debug)]
pub struct ClientCertificate<'a> {
    /// For `X-Client-Verify`: `SUCCESS`, or `NONE` if it has shown none.
    pub verify: &'static str,
    /// For `X-Client-Subject`: whom it was made for; empty if it has shown none.
    pub subject: &'a [u8],
}

/// A request's id, as it is sent: hexadecimal digits.
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
/// What the proxy sets itself in requests, and other spellings of it.
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
/// What only a trusted proxy may say.
const HOP_CLAIM: u64 = HeaderKind::set(&[HeaderKind::HopClaim, HeaderKind::ClientCertificate]);
/// What nobody may say of a client whose certificate is asked for here.
const CLIENT_CERTIFICATE: u64 = HeaderKind::set(&[HeaderKind::ClientCertificate]);
const TRAILER: u64 = HeaderKind::set(&[HeaderKind::Trailer]);

/// Writes the head of the request to a backend, in one pass.
pub fn forward_request(w: &mut Writer<'_>, request: &RequestHead, f: &RequestForward<'_>) {
    let framing = f.own_body.unwrap_or(request.framing());
    let host = if request.host().is_empty() { f.default_host } else { request.host() };

    // Most requests begin as they are to go on: with a line in which nothing has to be changed, and `Host`.
    let host_first = request.line_as_received && request.fields.begins_with(HeaderKind::Host, host);
    if !host_first {
        for piece in [request.method().as_str().as_bytes(), b" ", request.target(), b" HTTP/1.1\r\n"] {
            w.put(piece);
        }
        w.field(b"Host", host);
    }

    let mut pass = !(HOP_BY_HOP | PROXY_SET);
    if framing == Framing::Chunked {
        pass |= TRAILER;
    }
    if request.max_forwards.is_some() {
        pass &= !HeaderKind::set(&[HeaderKind::MaxForwards]);
    }
    if !f.trusted && !crate::planted::planted!(135) {
        pass &= !HOP_CLAIM;
    }
    if f.client_certificate.is_some() && !crate::planted::planted!(135) {
        pass &= !CLIENT_CERTIFICATE;
    }
    if crate::planted::planted!(50) {
        pass |= HeaderKind::set(&[HeaderKind::ConnectionListed]);
    }
    if crate::planted::planted!(51) {
        pass |= HeaderKind::set(&[HeaderKind::UnderscoreAlias]);
    }
    if crate::planted::planted!(52) {
        pass |= HeaderKind::set(&[HeaderKind::KeepAlive]);
    }
    request.fields.copy(host_first, host_first, pass, |piece| w.put(piece));

    if f.keep_expect && request.expect_continue {
        w.put(b"Expect: 100-continue\r\n");
    }
    if let Some(hops) = request.max_forwards {
        w.put(b"Max-Forwards: ");
        w.decimal(hops.saturating_sub(1));
        w.put(b"\r\n");
    }
    w.framing(framing);
    connection_of_request(w, request);
    if let Some(certificate) = &f.client_certificate {
        client_certificate(w, certificate);
    }
    if f.trusted || crate::planted::planted!(53) {
        return forwarded_by_trusted(w, request, host, f);
    }
    // Worked on here, and not through a reference: place and room stay in registers.
    let mut own = Writer { buf: std::mem::take(&mut w.buf), ..*w };
    if f.via {
        via(&mut own, request);
    }
    own.lit(b"X-Forwarded-For: ");
    own.address(f.peer);
    own.lit(b"\r\nX-Real-IP: ");
    own.address(f.peer);
    own.lit(b"\r\nX-Forwarded-Host: ");
    own.put(if crate::planted::planted!(59) { b"" } else { host });
    own.put(&f.forwarded_headers.text);
    own.lit(f.request_id);
    own.lit(b"\r\n\r\n");
    *w = own;
}

#[cold]
fn client_certificate(w: &mut Writer<'_>, certificate: &ClientCertificate<'_>) {
    w.field(b"X-Client-Verify", certificate.verify.as_bytes());
    if !certificate.subject.is_empty() {
        w.field(b"X-Client-Subject", certificate.subject);
    }
}

/// Many servers take a request with it for one that cannot take compressed content.
#[cold]
fn via(w: &mut Writer<'_>, request: &RequestHead) {
    w.put(match request.version() {
        Version::HTTP_10 => b"Via: 1.0 rust-strom\r\n",
        Version::HTTP_2 => b"Via: 2.0 rust-strom\r\n",
        _ => b"Via: 1.1 rust-strom\r\n",
    });
}

/// `TE`, `Connection` and `Upgrade` of this hop.
#[inline]
fn connection_of_request(w: &mut Writer<'_>, request: &RequestHead) {
    let upgrade = request.upgrade();
    if request.te_trailers {
        w.put(b"TE: trailers\r\n");
    }
    match (upgrade, request.te_trailers) {
        (None, false) => {}
        (None, true) => w.put(b"Connection: TE\r\n"),
        (Some(_), true) => w.put(b"Connection: upgrade, TE\r\n"),
        (Some(_), false) => w.put(b"Connection: upgrade\r\n"),
    }
    if let Some(protocols) = upgrade {
        w.field(b"Upgrade", protocols);
    }
}

/// What backends are told of a trusted proxy's client: its lists are continued and its single values kept.
/// Nobody else's are believed.
#[cold]
fn forwarded_by_trusted(w: &mut Writer<'_>, request: &RequestHead, host: &[u8], f: &RequestForward<'_>) {
    let fields = request.fields();
    let sent = |kind| fields.get(kind).filter(|value| !value.is_empty());
    let list = |w: &mut Writer<'_>, kind| {
        for before in fields.iter().filter(|field| field.kind == kind && !field.value.is_empty()) {
            w.put(before.value);
            w.put(b", ");
        }
    };

    let peer = f.peer.as_bytes();
    let own = f.forwarded_headers;
    if f.via {
        via(w, request);
    }
    w.put(b"X-Forwarded-For: ");
    list(w, HeaderKind::XForwardedFor);
    w.put(peer);
    w.put(b"\r\nX-Real-IP: ");
    match sent(HeaderKind::XRealIp) {
        Some(client) => w.put(client),
        None => w.address(f.client),
    }
    w.put(b"\r\nX-Forwarded-Host: ");
    w.put(sent(HeaderKind::XForwardedHost).unwrap_or(host));
    w.put(b"\r\nX-Forwarded-Proto: ");
    let proto = sent(HeaderKind::XForwardedProto).filter(|_| !crate::planted::planted!(54));
    w.put(proto.unwrap_or(own.proto.as_bytes()));
    w.put(b"\r\nX-Forwarded-Port: ");
    match sent(HeaderKind::XForwardedPort) {
        Some(port) => w.put(port),
        None => w.decimal(u64::from(own.port)),
    }
    w.put(b"\r\nX-Forwarded-Server: ");
    list(w, HeaderKind::XForwardedServer);
    w.put(&own.server);
    w.put(b"\r\nX-Request-ID: ");
    w.put(sent(HeaderKind::XRequestId).unwrap_or(f.request_id));
    w.put(b"\r\n\r\n");
}

/// What a response to a client says beyond what its head says.
#[derive(Clone, Copy, Debug)]
pub struct ResponseForward<'a> {
    /// Written if the response has none (RFC 9110 §6.6.1).
    pub date: &'a [u8; 29],
    /// The version that the client speaks.
    pub client_version: Version,
    /// How the content goes out: [`client_framing`] of the response's, or what a transform made of it.
    pub framing: Framing,
    /// Whether the client may send another request. Ignored with [`Framing::Close`]: then it may not.
    pub keep_alive: bool,
    /// Whole field lines, each with its CRLF, or nothing.
    pub extra: &'a [u8],
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

/// Writes the head of a final response (or a 101) to the client.
pub fn forward_response(w: &mut Writer<'_>, response: &ResponseHead, f: &ResponseForward<'_>) {
    let status = response.status();
    if !response.line_as_received {
        status_line(w, response);
    }
    let mut pass = if f.framing == Framing::Chunked { !HOP_BY_HOP | TRAILER } else { !HOP_BY_HOP };
    if crate::planted::planted!(55) {
        pass |= HeaderKind::set(&[HeaderKind::KeepAlive]);
    }
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    // A length that stands last already, where ours would stand, passes as it is.
    let same_length = response.has_date
        && matches!(f.framing, Framing::Length(n) if response.content_length == Some(n) && !bodiless)
        && response
            .fields
            .last(HeaderKind::ContentLength)
            .is_some_and(|digits| digits.len() == 1 || digits[0] != b'0');
    if same_length {
        pass |= HeaderKind::set(&[HeaderKind::ContentLength]);
    }
    let framing = match (f.framing, response.content_length) {
        // RFC 9110 §8.6: not even as a statement.
        _ if bodiless || same_length => Framing::None,
        (Framing::None, Some(n)) => Framing::Length(n),
        (framing, _) => framing,
    };
    if response.is_local {
        const CONTENT_TYPE: u64 = HeaderKind::set(&[HeaderKind::ContentType]);
        // What describes the content stands together.
        if !response.has_date {
            w.field(b"Date", f.date);
        }
        response.fields.copy(false, false, pass & CONTENT_TYPE, |piece| w.put(piece));
        w.framing(framing);
        response.fields.copy(false, false, pass & !CONTENT_TYPE, |piece| w.put(piece));
    } else {
        response.fields.copy(response.line_as_received, false, pass, |piece| w.put(piece));
        if !response.has_date {
            w.field(b"Date", f.date);
        }
        w.framing(framing);
    }
    if !f.extra.is_empty() {
        w.put(f.extra);
    }
    connection_of_response(w, response, f);
    w.lit(b"\r\n");
}

/// `Connection` and `Upgrade` of this hop.
#[inline]
fn connection_of_response(w: &mut Writer<'_>, response: &ResponseHead, f: &ResponseForward<'_>) {
    let persists = f.keep_alive && f.framing != Framing::Close;
    let Some(protocols) = response.upgrade() else {
        if !persists {
            w.lit(b"Connection: close\r\n");
        } else if f.client_version == Version::HTTP_10 {
            w.lit(b"Connection: keep-alive\r\n");
        }
        return;
    };
    if persists || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        w.lit(b"Connection: upgrade\r\n");
    } else {
        w.lit(b"Connection: upgrade, close\r\n");
    }
    w.field(b"Upgrade", protocols);
}

/// Writes an interim response (1xx) to a client of HTTP/1.1.
pub fn forward_interim(w: &mut Writer<'_>, response: &ResponseHead) {
    status_line(w, response);
    response.fields.copy(false, false, !HOP_BY_HOP, |piece| w.put(piece));
    w.put(b"\r\n");
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
