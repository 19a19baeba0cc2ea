//! What a parsed head says, borrowed from the bytes that it was parsed from. [`super::RequestHead`] and
//! [`super::ResponseHead`] own a copy.

use super::{Fields, Framing, Method, RequestTarget, StatusCode, Version};

/// The head of a request, which every rule of RFC 9110 and RFC 9112 holds for.
#[derive(Clone, Debug)]
pub struct ParsedRequest<'a> {
    /// Case-sensitive; any token.
    pub method: Method,
    /// The request target with its path normalised.
    pub target: RequestTarget<'a>,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// Every field line, and the bytes of the head that they lie in.
    pub fields: Fields<'a>,
    /// How the content is framed; never [`Framing::Close`].
    pub framing: Framing,
    /// The authority if the target has one, else the value of `Host`; empty only for HTTP/1.0 without
    /// `Host`.
    pub host: &'a [u8],
    /// Whether the client lets the connection outlive this exchange (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The client waits for a 100 (Continue) before it sends its content (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    /// The value of `Upgrade`, if the request asks for a protocol that may be passed on (RFC 9110 §7.8).
    pub upgrade: Option<&'a [u8]>,
    /// The method is HEAD: the response has no content.
    pub is_head: bool,
    /// The client sent `TE: trailers`.
    pub te_trailers: bool,
    /// `Max-Forwards` of OPTIONS and TRACE (RFC 9110 §7.6.2).
    pub max_forwards: Option<u64>,
    /// `Connection` lists names of fields. Trailers of those names may not pass, so none does
    /// (RFC 9110 §7.6.1).
    pub lists_fields: bool,
}

impl<'a> ParsedRequest<'a> {
    /// The bytes of the head, from the start line to the empty line, both included.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.fields.raw()
    }
}

/// The head of a response, which every rule of RFC 9110 and RFC 9112 holds for.
#[derive(Clone, Copy, Debug)]
pub struct ParsedResponse<'a> {
    /// 100..=999.
    pub status: StatusCode,
    /// The reason phrase, perhaps empty.
    pub reason: &'a [u8],
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// Every field line, and the bytes of the head that they lie in.
    pub fields: Fields<'a>,
    /// How the content that follows is framed: `None` for 1xx, 204, 304 and responses to HEAD.
    pub framing: Framing,
    /// `Content-Length` in bytes, also where no content follows (HEAD, 304).
    pub content_length: Option<u64>,
    /// Whether the backend lets the connection outlive this exchange.
    pub keep_alive: bool,
    /// `Keep-Alive: timeout=`, in seconds.
    pub keep_alive_timeout: Option<u32>,
    /// The value of `Upgrade` in a 101 or 426.
    pub upgrade: Option<&'a [u8]>,
    /// There is a `Date`.
    pub has_date: bool,
    /// `Connection` lists names of fields. Trailers of those names may not pass, so none does
    /// (RFC 9110 §7.6.1).
    pub lists_fields: bool,
}

impl<'a> ParsedResponse<'a> {
    /// 1xx other than 101: another response follows.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// The bytes of the head, from the status line to the empty line, both included.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.fields.raw()
    }
}
