//! What a head says when it is passed on, whatever wire it leaves by: which fields pass, which are made anew
//! and which are added. It is said once, to a `HeadSink`: HTTP/1.1 makes text of it, HTTP/2 fields.

use super::ip::IpText;
use super::{Framing, HeaderKind, RequestHead, ResponseHead, StatusCode, Version};
use crate::planted::planted;

/// Takes a head that goes out. What differs between wires is in here: their start lines, how they frame
/// content, and what they say of a connection.
pub(crate) trait HeadSink {
    /// Trailers can follow, however the content is framed.
    const ENDS_STREAMS: bool;

    /// The start line of a request for `host`, and its fields whose kinds are in `pass`.
    fn request(&mut self, request: &RequestHead, host: &[u8], pass: u64);
    /// The start line of a response; `interim`: one that another follows.
    fn status(&mut self, response: &ResponseHead, interim: bool);
    /// Fields whose kinds are in `pass`, of a response. `first`: they stand behind its start line.
    fn fields(&mut self, response: &ResponseHead, first: bool, pass: u64);
    /// Begins a field.
    fn begin_field(&mut self, kind: HeaderKind, name: &[u8]);
    /// A piece of its value.
    fn value(&mut self, piece: &[u8]);
    /// Ends it.
    fn end_field(&mut self);
    /// Whole field lines, each with its CRLF.
    fn lines(&mut self, lines: &[u8]);
    /// That content follows which ends by itself; [`Framing::Length`] is said by a field.
    fn chunked(&mut self);
    /// What a request says of its connection.
    fn request_connection(&mut self, request: &RequestHead);
    /// What a response says of its connection.
    fn response_connection(&mut self, response: &ResponseHead, f: &ResponseForward<'_>);
    /// What backends are told of a client that is no trusted proxy, which is most: all in one, with the end
    /// of the head.
    fn forwarded(&mut self, host: &[u8], f: &RequestForward<'_>);
    /// The head is complete.
    fn end(&mut self);

    /// A whole field.
    #[inline(always)]
    fn field(&mut self, kind: HeaderKind, name: &[u8], value: &[u8]) {
        self.begin_field(kind, name);
        self.value(value);
        self.end_field();
    }

    /// A field whose value is a number.
    fn number(&mut self, kind: HeaderKind, name: &[u8], n: u64) {
        self.field(kind, name, itoa::Buffer::new().format(n).as_bytes());
    }

    /// How the content is framed.
    #[inline(always)]
    fn framing(&mut self, framing: Framing) {
        match framing {
            Framing::Length(n) => self.number(HeaderKind::ContentLength, b"Content-Length", n),
            Framing::Chunked => self.chunked(),
            Framing::None | Framing::Close => {}
        }
    }
}

/// What backends are told of the listener that a client came by, in one piece that is made once.
#[derive(Clone, Debug)]
pub struct ForwardedHeaders {
    pub(crate) proto: &'static str,
    port: u16,
    pub(crate) port_text: Box<[u8]>,
    pub(crate) server: Box<[u8]>,
    /// The middle of what HTTP/1.1 says to a backend: from behind the host to before the request's id.
    pub(crate) text: Box<[u8]>,
}

impl ForwardedHeaders {
    /// `proto` is `http` or `https`, `port` that of the listener, `server` the name of this host.
    #[must_use]
    pub fn new(proto: &'static str, port: u16, server: &str) -> Self {
        let text = format!(
            "\r\nX-Forwarded-Proto: {proto}\r\nX-Forwarded-Port: {port}\r\n\
             X-Forwarded-Server: {server}\r\nX-Request-ID: "
        );
        let port_text = port.to_string().into_bytes().into();
        Self { proto, port, port_text, server: server.as_bytes().into(), text: text.into_bytes().into() }
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

/// What a response to a client says beyond what its head says.
#[derive(Clone, Copy, Debug)]
pub struct ResponseForward<'a> {
    /// Written if the response has none (RFC 9110 §6.6.1).
    pub date: &'a [u8; 29],
    /// The version that the client speaks.
    pub client_version: Version,
    /// How the content goes out: [`client_framing`](crate::h1::client_framing) of the response's, or what a
    /// transform made of it.
    pub framing: Framing,
    /// Whether the client may send another request. Ignored with [`Framing::Close`]: then it may not.
    pub keep_alive: bool,
    /// Whole field lines, each with its CRLF, or nothing.
    pub extra: &'a [u8],
}

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

/// Passes the head of a request on to a backend.
#[inline(always)]
pub(crate) fn pass_request<S: HeadSink>(w: &mut S, request: &RequestHead, f: &RequestForward<'_>) {
    let framing = f.own_body.unwrap_or(request.framing());
    let host = if request.host().is_empty() { f.default_host } else { request.host() };
    let mut pass = !(HOP_BY_HOP | PROXY_SET);
    if S::ENDS_STREAMS || framing == Framing::Chunked {
        pass |= TRAILER;
    }
    if request.max_forwards.is_some() {
        pass &= !HeaderKind::set(&[HeaderKind::MaxForwards]);
    }
    if !f.trusted && !planted!(135) {
        pass &= !HOP_CLAIM;
    }
    if f.client_certificate.is_some() && !planted!(135) {
        pass &= !CLIENT_CERTIFICATE;
    }
    if planted!(50) {
        pass |= HeaderKind::set(&[HeaderKind::ConnectionListed]);
    }
    if planted!(51) {
        pass |= HeaderKind::set(&[HeaderKind::UnderscoreAlias]);
    }
    if planted!(52) {
        pass |= HeaderKind::set(&[HeaderKind::KeepAlive]);
    }
    w.request(request, host, pass);
    if f.keep_expect && request.expect_continue {
        w.field(HeaderKind::Expect, b"Expect", b"100-continue");
    }
    if let Some(hops) = request.max_forwards {
        w.number(HeaderKind::MaxForwards, b"Max-Forwards", hops.saturating_sub(1));
    }
    w.framing(framing);
    w.request_connection(request);
    if let Some(certificate) = &f.client_certificate {
        client_certificate(w, certificate);
    }
    if f.via {
        via(w, request);
    }
    if f.trusted || planted!(53) {
        forwarded_by_trusted(w, request, host, f);
        return w.end();
    }
    w.forwarded(host, f);
}

#[cold]
fn client_certificate<S: HeadSink>(w: &mut S, certificate: &ClientCertificate<'_>) {
    let kind = HeaderKind::ClientCertificate;
    w.field(kind, b"X-Client-Verify", certificate.verify.as_bytes());
    if !certificate.subject.is_empty() {
        w.field(kind, b"X-Client-Subject", certificate.subject);
    }
}

/// Many servers take a request with it for one that cannot take compressed content.
#[cold]
fn via<S: HeadSink>(w: &mut S, request: &RequestHead) {
    let value: &[u8] = match request.version() {
        Version::HTTP_10 => b"1.0 rust-strom",
        Version::HTTP_2 => b"2.0 rust-strom",
        _ => b"1.1 rust-strom",
    };
    w.field(HeaderKind::Via, b"Via", value);
}

/// What backends are told of a client that is no trusted proxy, field by field.
pub(crate) fn forwarded_fields<S: HeadSink>(w: &mut S, host: &[u8], f: &RequestForward<'_>) {
    let (peer, own) = (f.peer.as_bytes(), f.forwarded_headers);
    w.field(HeaderKind::XForwardedFor, b"X-Forwarded-For", peer);
    w.field(HeaderKind::XRealIp, b"X-Real-IP", peer);
    w.field(HeaderKind::XForwardedHost, b"X-Forwarded-Host", if planted!(59) { b"" } else { host });
    w.field(HeaderKind::XForwardedProto, b"X-Forwarded-Proto", own.proto.as_bytes());
    w.field(HeaderKind::XForwardedPort, b"X-Forwarded-Port", &own.port_text);
    w.field(HeaderKind::XForwardedServer, b"X-Forwarded-Server", &own.server);
    w.field(HeaderKind::XRequestId, b"X-Request-ID", f.request_id);
}

/// What backends are told of a trusted proxy's client: its lists are continued and its single values kept.
/// Nobody else's are believed.
#[cold]
fn forwarded_by_trusted<S: HeadSink>(w: &mut S, request: &RequestHead, host: &[u8], f: &RequestForward<'_>) {
    let fields = request.fields();
    let sent = |kind| fields.get(kind).filter(|value| !value.is_empty());
    let list = |w: &mut S, kind, name: &[u8], last: &[u8]| {
        w.begin_field(kind, name);
        for before in fields.iter().filter(|field| field.kind == kind && !field.value.is_empty()) {
            w.value(before.value);
            w.value(b", ");
        }
        w.value(last);
        w.end_field();
    };
    let own = f.forwarded_headers;
    let one = |w: &mut S, kind, name: &[u8], else_own: &[u8]| {
        w.field(kind, name, sent(kind).unwrap_or(else_own));
    };
    list(w, HeaderKind::XForwardedFor, b"X-Forwarded-For", f.peer.as_bytes());
    one(w, HeaderKind::XRealIp, b"X-Real-IP", f.client.as_bytes());
    one(w, HeaderKind::XForwardedHost, b"X-Forwarded-Host", host);
    let proto = sent(HeaderKind::XForwardedProto).filter(|_| !planted!(54));
    w.field(HeaderKind::XForwardedProto, b"X-Forwarded-Proto", proto.unwrap_or(own.proto.as_bytes()));
    one(w, HeaderKind::XForwardedPort, b"X-Forwarded-Port", &own.port_text);
    list(w, HeaderKind::XForwardedServer, b"X-Forwarded-Server", &own.server);
    one(w, HeaderKind::XRequestId, b"X-Request-ID", f.request_id);
}

/// Passes the head of a final response (or a 101) on to the client.
#[inline(always)]
pub(crate) fn pass_response<S: HeadSink>(w: &mut S, response: &ResponseHead, f: &ResponseForward<'_>) {
    let status = response.status();
    w.status(response, false);
    let trailers = S::ENDS_STREAMS || f.framing == Framing::Chunked;
    let mut pass = if trailers { !HOP_BY_HOP | TRAILER } else { !HOP_BY_HOP };
    if planted!(55) {
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
            w.field(HeaderKind::Date, b"Date", f.date);
        }
        w.fields(response, false, pass & CONTENT_TYPE);
        w.framing(framing);
        w.fields(response, false, pass & !CONTENT_TYPE);
    } else {
        w.fields(response, true, pass);
        if !response.has_date {
            w.field(HeaderKind::Date, b"Date", f.date);
        }
        w.framing(framing);
    }
    if !f.extra.is_empty() {
        w.lines(f.extra);
    }
    w.response_connection(response, f);
    w.end();
}

/// Passes an interim response (1xx) on to a client.
pub(crate) fn pass_interim<S: HeadSink>(w: &mut S, response: &ResponseHead) {
    w.status(response, true);
    w.fields(response, false, !HOP_BY_HOP);
    w.end();
}
