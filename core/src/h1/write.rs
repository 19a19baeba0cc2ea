//! Heads on the way out: framing and hop-by-hop fields are re-made, never copied.

use std::net::IpAddr;

use super::head::{AnswerHead, Request};
use crate::http::Framing;

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
    pub fn put(&mut self, _bytes: &[u8]) {
        todo!()
    }
    /// A decimal number.
    pub fn decimal(&mut self, _n: u64) {
        todo!()
    }
    /// A hexadecimal number, lower case, without leading zeros.
    pub fn hex(&mut self, _n: u64) {
        todo!()
    }
    /// An address; IPv4 in IPv6 is written as IPv4 (RFC 5952 otherwise).
    pub fn ip(&mut self, _ip: IpAddr) {
        todo!()
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

/// What a request to a backend says beyond what the client said.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// The client.
    pub peer: IpAddr,
    /// `http` or `https`.
    pub proto: &'static str,
    /// Where the client arrived.
    pub local_port: u16,
    /// Our name, for `X-Forwarded-Server`.
    pub server: &'a [u8],
    /// For `X-Request-ID`, unless a trusted peer sent one.
    pub request_id: &'a [u8],
    /// The peer is a trusted proxy: what it says of its own clients is kept and added to.
    pub trusted: bool,
    /// Pass `Expect: 100-continue` on.
    pub keep_expect: bool,
    /// Framing of the content when it is not the client's any more.
    pub own_body: Option<Framing>,
    /// `Host` for a client of HTTP/1.0 that named none (RFC 9112 §3.3): say, the backend's own name.
    pub default_host: &'a [u8],
}

/// Writes the head of the request to a backend.
pub fn forward_request(_w: &mut Writer<'_>, _request: &Request<'_>, _f: &Forward<'_>) {
    todo!()
}

/// What an answer to a client says beyond what the backend said.
#[derive(Clone, Copy, Debug)]
pub struct AnswerForward<'a> {
    /// Written if the answer has none.
    pub date: &'a [u8; 29],
    /// The client's version, 10 or 11.
    pub client_version: u8,
    /// How the content goes out: [`client_framing`] of the answer's, or what a transform made of it.
    pub framing: Framing,
    /// Whether the client may send another request.
    pub keep_alive: bool,
    /// Whole field lines, each with its CRLF, or nothing.
    pub extra: &'a [u8],
}

/// How content framed so by the backend goes out to a client of this version: chunked where the length is unknown, until close for HTTP/1.0.
#[must_use]
pub fn client_framing(framing: Framing, client_version: u8) -> Framing {
    match framing {
        Framing::Chunked | Framing::Close => {
            if client_version == 11 {
                Framing::Chunked
            } else {
                Framing::Close
            }
        }
        known => known,
    }
}

/// Writes the head of a final answer (or a 101) to the client.
pub fn forward_answer(_w: &mut Writer<'_>, _answer: &AnswerHead<'_>, _f: &AnswerForward<'_>) {
    todo!()
}

/// Writes an interim answer (1xx) to a client of HTTP/1.1.
pub fn forward_interim(_w: &mut Writer<'_>, _answer: &AnswerHead<'_>) {
    todo!()
}

/// Writes a trailer section with its empty line: for [`super::ChunkWriter::finish`].
pub fn forward_trailers(_w: &mut Writer<'_>, _fields: &super::trailers::TrailerFields<'_>) {
    todo!()
}
