//! Heads of requests and answers: httparse for the bytes, our own strict rules around it.

use std::mem::MaybeUninit;

use crate::http::{Fields, Framing, Known, Target, Violation};

/// The most fields a head can have, whatever the limits say.
pub const MAX_FIELDS: usize = 256;

/// Limits of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of a whole head.
    pub head_bytes: usize,
    /// Field lines, at most [`MAX_FIELDS`].
    pub fields: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
}

/// Room for the fields of one head: on the stack, not initialised beforehand.
pub struct Store<'b> {
    headers: [MaybeUninit<httparse::Header<'b>>; MAX_FIELDS],
    tags: [Known; MAX_FIELDS],
}

impl Store<'_> {
    /// Empty room.
    #[must_use]
    #[inline]
    pub fn new() -> Self {
        Self { headers: [const { MaybeUninit::uninit() }; MAX_FIELDS], tags: [Known::Other; MAX_FIELDS] }
    }
}

impl Default for Store<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Case-sensitive.
    pub method: &'a [u8],
    /// Normalised.
    pub target: Target<'a>,
    /// 10 or 11.
    pub version: u8,
    /// All of them, marked.
    pub fields: Fields<'a>,
    /// Never [`Framing::Close`].
    pub framing: Framing,
    /// The authority if the target has one, else `Host`; empty only for HTTP/1.0 without `Host`.
    pub host: &'a [u8],
    /// Whether the connection outlives this exchange as far as the client is concerned (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The client waits for a 100 before its content.
    pub expect_continue: bool,
    /// The protocols of `Upgrade`, if this asks for one that we pass on.
    pub upgrade: Option<&'a [u8]>,
    /// RFC 9110 §9.2.2.
    pub idempotent: bool,
    /// The method is HEAD: the answer has no content.
    pub is_head: bool,
    /// The client said `TE: trailers`.
    pub te_trailers: bool,
    /// `Max-Forwards` of OPTIONS and TRACE (RFC 9110 §7.6.2): at 0 we answer ourselves, else one less is forwarded.
    pub max_forwards: Option<u64>,
    /// `Connection` names fields: trailers of that name may not pass, so none does (RFC 9110 §7.6.1).
    pub nominates: bool,
}

/// What an answer is an answer to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// The method was HEAD.
    pub head: bool,
    /// An `Upgrade` was forwarded.
    pub upgrade: bool,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerHead<'a> {
    /// 100..=999.
    pub status: u16,
    /// The reason phrase, maybe empty.
    pub reason: &'a [u8],
    /// 10 or 11.
    pub version: u8,
    /// All of them, marked.
    pub fields: Fields<'a>,
    /// How the content that follows here is framed: `None` for 1xx, 204, 304 and answers to HEAD.
    pub framing: Framing,
    /// `Content-Length` as a statement, also where no content follows (HEAD, 304).
    pub content_length: Option<u64>,
    /// Whether the connection outlives this exchange as far as the backend is concerned.
    pub keep_alive: bool,
    /// `Keep-Alive: timeout=`, in seconds.
    pub keep_alive_timeout: Option<u32>,
    /// `Upgrade` of a 101.
    pub upgrade: Option<&'a [u8]>,
    /// There is a `Date`.
    pub has_date: bool,
    /// `Connection` names fields: trailers of that name may not pass, so none does (RFC 9110 §7.6.1).
    pub nominates: bool,
}

impl AnswerHead<'_> {
    /// 1xx other than 101: another answer follows.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Looks for the end of a request's head in `buf`, of which the first `from` bytes were already looked at. `Some(end)` is the length of the
/// head with its empty line (and empty lines before it). Bytes that can become no head are an error at once.
pub fn find_end(_buf: &[u8], _from: usize) -> Result<Option<usize>, Violation> {
    todo!()
}

/// The same for an answer.
pub fn find_answer_end(_buf: &[u8], _from: usize) -> Result<Option<usize>, Violation> {
    todo!()
}

/// Reads a complete head of a request: `buf` ends with its empty line.
pub fn request<'s, 'b: 's>(
    _buf: &'b [u8],
    _store: &'s mut Store<'b>,
    _limits: &HeadLimits,
    _scratch: &'s mut Vec<u8>,
) -> Result<Request<'s>, Violation> {
    todo!()
}

/// Reads a complete head of an answer: `buf` ends with its empty line.
pub fn answer<'s, 'b: 's>(
    _buf: &'b [u8],
    _store: &'s mut Store<'b>,
    _limits: &HeadLimits,
    _asked: Asked,
) -> Result<AnswerHead<'s>, Violation> {
    todo!()
}
