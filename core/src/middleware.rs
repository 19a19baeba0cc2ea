//! The contract of middlewares: what one sees of an exchange, and what it may do to it. The middlewares
//! themselves come one file each.
//!
//! A pool's middlewares stand in a chain, in file order. A request passes them from the first to the last,
//! the response from the last to the first. Each may reply to the request itself, let the driver look
//! something up and go on when the result is there, change both heads, and put a transform into either body's
//! way.
//!
//! Local replies, errors included, pass the response side of the middlewares that the request has passed: the
//! reply of one passes those before it in file order. The request side of a middleware runs once for each
//! exchange, however many backends are tried, and interim responses (1xx) pass none. A request without a
//! route belongs to no pool: its 404 passes no middleware.

mod authentication;
pub mod basic_credentials;
mod compression;
mod custom_error_pages;
pub mod factory;
mod headers;
mod https_redirector;
mod ip_filter;
mod max_body_size;
mod path_rewriting;
mod rate_limiter;
mod redirect;
pub mod request_windows;
mod respond;
mod success_cache;

use std::any::Any;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use crate::event::{LookupResult, Query};
use crate::http::ip::IpText;
use crate::http::{HeaderKind, RequestHead, ResponseHead, Scheme};
use crate::local_reply::{Body, LocalReply};
use crate::planted::planted;
use crate::rng::Rng;
use crate::time::Instant;

/// One middleware of a pool, as configured. Each worker shares it; what belongs to one exchange lies in the
/// exchange ([`Ctx::state`]).
pub trait Middleware: Debug + Send + Sync {
    /// A request on its way in.
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        let _ = ctx;
        Action::Continue
    }

    /// The lookup that this middleware asked for has ended.
    fn on_lookup(&self, ctx: &mut Ctx<'_>, result: &LookupResult) -> Action {
        let _ = (ctx, result);
        Action::Continue
    }

    /// The head of a final response on its way out: a backend's, or a local reply's. Its status may change,
    /// but not from one that has content to one that must not have any (204, 304), nor the other way round:
    /// how the content is framed has been decided. If a backend's response is withdrawn before anything of it
    /// was sent, the error that takes its place passes here too. [`Ctx::replace_content`] puts other content
    /// in the place of the response's.
    fn on_response(&self, ctx: &mut Ctx<'_>, head: &mut ResponseHead) {
        let _ = (ctx, head);
    }

    /// Whether [`Middleware::on_response`] does anything: where none does a response costs nothing. Asked
    /// once, when a chain is made.
    fn sees_responses(&self) -> bool {
        true
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Action {
    /// The next middleware sees it, or a backend gets it.
    Continue,
    /// This is the response; no further middleware and no backend sees the request.
    Respond(Box<LocalReply>),
    /// The driver has to find something out first: [`Middleware::on_lookup`] gets the result, and may ask
    /// again. A lookup that takes longer than 20 s ends the exchange with
    /// [`LookupFailed`](crate::Cause::LookupFailed).
    Lookup(Box<Query>),
}

impl Action {
    /// Replies to the request.
    #[must_use]
    pub fn reply(reply: LocalReply) -> Self {
        Self::Respond(Box::new(reply))
    }

    /// Asks the driver.
    #[must_use]
    pub fn look_up(query: Query) -> Self {
        Self::Lookup(Box::new(query))
    }
}

/// What a middleware sees of an exchange.
pub struct Ctx<'a> {
    /// The time of the input that led here.
    pub now: Instant,
    /// The client's address: the peer's, or what `X-Forwarded-For` says if the peer is one of
    /// `trusted_proxies`.
    pub client: IpAddr,
    /// How the client is connected.
    pub connection: Connection,
    /// The head of the request, to read and on the way in to change. What a request says when its response
    /// passes is what was sent to the backend.
    pub request: &'a mut RequestHead,
    /// The backend whose response passes, as configured: nothing on the way in, nor with a local reply.
    pub backend: Option<&'a str>,
    /// The peer's address, and its text.
    pub(crate) peer: (&'a IpAddr, &'a IpText),
    /// What `X-Request-ID` says, unless a trusted peer has said it.
    pub(crate) request_id: &'a [u8],
    /// What each middleware keeps of the exchange: only those that keep something take memory.
    pub(crate) states: &'a mut Vec<Option<Box<dyn Any + Send>>>,
    /// The place of this middleware in its chain.
    pub(crate) stage: usize,
    pub(crate) body_limit: &'a mut u64,
    /// Seldom anything.
    pub(crate) put: &'a mut Option<Box<Put>>,
    pub(crate) counter: &'a mut dyn FnMut(Counter),
    pub(crate) user: &'a mut Option<Box<str>>,
    pub(crate) rng: &'a mut Rng,
}

/// What a middleware has put somewhere while it was called.
#[derive(Default)]
pub(crate) struct Put {
    pub(crate) transform: Option<Box<dyn Transform>>,
    pub(crate) content: Option<Body>,
    pub(crate) warning: Option<String>,
}

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Whether it came by an HTTPS listener.
    pub secure: bool,
    /// The port of ours that it connected to.
    pub port: u16,
    /// The peer is one of `trusted_proxies`: what it says of its own client is believed.
    pub trusted: bool,
}

impl Ctx<'_> {
    /// What this middleware keeps of this exchange; made when it is used first. It is of one type: asking for
    /// another begins anew.
    pub fn state<T: Default + Send + 'static>(&mut self) -> &mut T {
        if self.states.len() <= self.stage {
            self.states.resize_with(self.stage + 1, || None);
        }
        let state = &mut self.states[self.stage];
        if !state.as_ref().is_some_and(|state| state.is::<T>()) {
            *state = Some(Box::<T>::default());
        }
        state.as_mut().and_then(|state| state.downcast_mut()).expect("just made")
    }

    /// What this middleware has kept of this exchange, if it has kept any.
    #[must_use]
    pub fn kept<T: 'static>(&self) -> Option<&T> {
        self.states.get(self.stage)?.as_ref()?.downcast_ref()
    }

    /// The scheme that the client used: what `X-Forwarded-Proto` says, in one value on every of its lines, if
    /// the peer is one of `trusted_proxies`; else that of the connection.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        let own = if self.connection.secure { Scheme::Https } else { Scheme::Http };
        let trusted = self.connection.trusted && !planted!(143);
        if trusted { told_scheme(self.request).unwrap_or(own) } else { own }
    }

    /// What names this request to backends and in the log: what a trusted proxy calls it, or 32 hexadecimal
    /// digits.
    #[must_use]
    pub fn request_id(&self) -> &[u8] {
        let told = || self.request.field(HeaderKind::XRequestId).filter(|id| !id.is_empty());
        self.connection.trusted.then(told).flatten().unwrap_or(self.request_id)
    }

    /// Gives the text of [`Ctx::client`] to `f`.
    pub fn with_client_text<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        match self.peer {
            (peer, text) if *peer == self.client => f(text.as_bytes()),
            _ => f(IpText::write(self.client, &mut [0; IpText::MAX_BYTES])),
        }
    }

    /// Puts a transform into the way of the body that is passing: the request's in
    /// [`Middleware::on_request`], the response's in [`Middleware::on_response`]. The body's length is then
    /// unknown, and a request cannot be sent again once a part of it has been sent. It stands behind those of
    /// middlewares that were passed before; of two in one call the last one counts. Where there is no content
    /// (requests without a body, responses to HEAD, 204, 304) it has no effect; a response whose content is
    /// empty passes it.
    pub fn transform(&mut self, transform: Box<dyn Transform>) {
        self.put.get_or_insert_default().transform = Some(transform);
    }

    /// Lets the request have at most so many bytes of content, counted as they come, before any transform: of
    /// several limits the least one holds. What has more is refused with
    /// [`ContentTooLarge`](crate::http::Violation::ContentTooLarge) as soon as that is seen: its client gets
    /// a 413 if nothing of a response has been sent, and its backend sees a request that was cut off. Nothing
    /// is copied for it, and the request can be sent again. To be called on the way in.
    pub fn limit_body(&mut self, bytes: u64) {
        *self.body_limit = bytes.min(*self.body_limit);
    }

    /// Puts other content in the place of the response's, in [`Middleware::on_response`]. The fields of
    /// `head` that describe the old content go, `Content-Type` is set, and the length is that of the new
    /// content; middlewares that the response passes later see it so, and what earlier ones have put into
    /// the way of the old content is dropped. What a backend still sends of its own is not waited for. A
    /// response to HEAD says the same and has no content; one that must not have any (1xx, 204, 304) stays
    /// as it is.
    pub fn replace_content(&mut self, head: &mut ResponseHead, content: Body, content_type: &str) {
        if !head.allows_content() {
            return;
        }
        head.replace_content(content.bytes().len() as u64, content_type.as_bytes());
        let put = self.put.get_or_insert_default();
        (put.content, put.transform) = (Some(content), None);
    }

    /// Says whose request it is, for the log. The name has no control characters.
    pub fn set_user(&mut self, user: &str) {
        *self.user = Some(user.into());
    }

    /// A random number, from the driver's entropy.
    pub fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Counts something, under the pool's name.
    pub fn count(&mut self, counter: Counter) {
        (self.counter)(counter);
    }

    /// Tells the operator something in the log: whoever calls sees to it that it is not said often. Of two in
    /// one call the last one is told.
    pub fn warn(&mut self, text: String) {
        self.put.get_or_insert_default().warning = Some(text);
    }
}

/// The scheme that a trusted peer says its client used; `None` if it says none, or different ones.
fn told_scheme(head: &RequestHead) -> Option<Scheme> {
    let fields = head.fields();
    let mut told = fields.iter().filter(|field| field.kind == HeaderKind::XForwardedProto).map(|field| {
        let value = field.value.trim_ascii();
        match () {
            () if value.eq_ignore_ascii_case(b"https") => Some(Scheme::Https),
            () if value.eq_ignore_ascii_case(b"http") => Some(Scheme::Http),
            () => None,
        }
    });
    let first = match told.next() {
        Some(first) => first?,
        // A target in the absolute form says it too.
        None => return head.scheme,
    };
    told.all(|scheme| scheme == Some(first)).then_some(first)
}

/// What middlewares count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// A request was refused by a rate limit.
    RateLimitExceeded,
    /// A name and a password were wrong, or one of them empty.
    AuthFailure,
    /// A body was compressed.
    Compressed {
        /// The coding (RFC 9110 §8.4.1).
        encoding: &'static str,
        /// Bytes before.
        original: u64,
        /// Bytes after.
        compressed: u64,
    },
}

/// Changes a body as it passes; it keeps what it needs between calls. Its output lies in a page of the
/// exchange's own, so it has to wait for a peer that takes nothing.
pub trait Transform: Debug + Send {
    /// Takes from `input`, puts into `output`, which is not empty. `ended`: nothing comes after `input`,
    /// which may be empty. It is called again when there is more input or more room, but not once it is done.
    ///
    /// # Errors
    /// If the body must not pass. The reply is sent if nothing of a response has been sent; else, or if the
    /// body is a local reply's, the exchange is cut.
    fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        ended: bool,
    ) -> Result<TransformProgress, Box<LocalReply>>;

    /// All input that there is has been taken, and no more is known to be on its way: what is held back of it
    /// is put into `output`, which is not empty, so that the peer sees all that was sent so far. Returns how
    /// many bytes that are; it is called again as long as it puts any.
    ///
    /// # Errors
    /// As [`Transform::run`].
    fn flush(&mut self, output: &mut [u8]) -> Result<usize, Box<LocalReply>> {
        let _ = output;
        Ok(0)
    }

    /// What there is to count under the pool's name, now that it is done. It is asked once.
    fn counter(&self) -> Option<Counter> {
        None
    }
}

/// What one call of [`Transform::run`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformProgress {
    /// Bytes taken from the input.
    pub taken: usize,
    /// Bytes put into the output.
    pub put: usize,
    /// The whole body has been put; only possible once `ended`.
    pub done: bool,
}

/// Lets a whole body pass transforms at once, in their order; what they count goes to `count`. Nothing if one
/// of them refuses it or does not come to an end.
pub(crate) fn transform_whole(
    body: &[u8],
    transforms: Vec<Box<dyn Transform>>,
    mut count: impl FnMut(Counter),
) -> Option<Vec<u8>> {
    let mut body = body.to_vec();
    for mut transform in transforms {
        let (mut input, mut output) = (&body[..], Vec::new());
        let mut room = [0; 4096];
        loop {
            let progress = transform.run(input, &mut room, true).ok()?;
            input = &input[progress.taken..];
            output.extend_from_slice(&room[..progress.put]);
            if progress.done {
                transform.counter().into_iter().for_each(&mut count);
                break;
            }
            if progress.taken == 0 && progress.put == 0 {
                return None;
            }
        }
        body = output;
    }
    Some(body)
}

/// The middlewares of a pool, in file order. Every exchange has one: a copy is a pointer.
#[derive(Clone, Debug)]
pub struct Chain(Arc<Links>);

#[derive(Debug)]
struct Links {
    middlewares: Box<[Box<dyn Middleware>]>,
    /// The places of those that see responses.
    seeing: Box<[u8]>,
}

impl Chain {
    /// The places of those that see responses, of the first `passed`, from the last to the first.
    pub(crate) fn seeing_responses(&self, passed: u8) -> impl Iterator<Item = u8> + '_ {
        self.0.seeing.iter().rev().copied().filter(move |place| *place < passed)
    }
}

impl FromIterator<Box<dyn Middleware>> for Chain {
    fn from_iter<I: IntoIterator<Item = Box<dyn Middleware>>>(middlewares: I) -> Self {
        let middlewares: Box<[_]> = middlewares.into_iter().collect();
        let places = (0..=u8::MAX).zip(&middlewares);
        let seeing = places.filter(|(_, middleware)| middleware.sees_responses()).map(|(place, _)| place);
        Self(Arc::new(Links { seeing: seeing.collect(), middlewares }))
    }
}

impl std::ops::Deref for Chain {
    type Target = [Box<dyn Middleware>];

    fn deref(&self) -> &Self::Target {
        &self.0.middlewares
    }
}
