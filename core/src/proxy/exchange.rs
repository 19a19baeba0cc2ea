//! An exchange: one request, its response, and the two legs they travel on.

use std::any::Any;
use std::net::IpAddr;

use super::pipe::MessagePipe;
use crate::balance::Tried;
use crate::cause::Cause;
use crate::h1::RequestId;
use crate::http::RequestHead;
use crate::id::{ConnId, LookupId};
use crate::observe::{FailedAttempt, Kept, Timings};
use crate::time::Instant;

/// One end of an exchange: a stream of a connection. HTTP/1.1 connections have the one stream 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leg {
    pub(crate) conn: ConnId,
    pub(crate) stream: u32,
}

impl Leg {
    /// The one leg of an HTTP/1.1 connection.
    pub(crate) fn only(conn: ConnId) -> Self {
        Self { conn, stream: 0 }
    }
}

/// Where an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A middleware waits for a lookup.
    Asking(LookupId),
    /// No backend yet. If it waits in its pool's queue, every usable one is at its `max_connections`.
    Choosing,
    /// A connection is being opened.
    Connecting,
    /// The request is being sent; no final response yet (interim ones may have passed).
    Sending,
    /// The head of the final response is there.
    Responding,
    /// Bytes pass both ways (RFC 9110 §7.8).
    Tunnel,
    /// The response is a local reply.
    LocalReply,
}

/// A time in which enough bytes have to move; it begins when there is something to wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// [`Instant::NEVER`]: none is running.
    pub(crate) start: Instant,
    pub(crate) bytes: u64,
}

impl Window {
    pub(crate) const NONE: Self = Self { start: Instant::NEVER, bytes: 0 };
}

/// One request and its response.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) client: Leg,
    pub(crate) backend: Option<Leg>,
    pub(crate) phase: Phase,
    /// Slot of its pool; `None` before routing.
    pub(crate) pool: Option<u32>,
    /// Place of the chosen backend in the pool.
    pub(crate) choice: Option<u16>,
    /// It waits in its pool's queue.
    pub(crate) queued: bool,
    /// An in-flight slot of the chosen backend is held.
    pub(crate) holds_slot: bool,

    pub(crate) head: OwnedHead,
    /// The client's address, after `trusted_proxies`.
    pub(crate) client_ip: IpAddr,
    /// How it is named to backends and in the log, unless a trusted peer has named it.
    pub(crate) request_id: RequestId,
    pub(crate) request: MessagePipe,
    pub(crate) response: MessagePipe,
    /// Trailers of the request, or of the response, may pass.
    pub(crate) trailers_pass: [bool; 2],

    pub(crate) tried: Tried,
    /// The backend that the client's cookie names.
    pub(crate) sticky_choice: Option<u16>,
    pub(crate) attempts: u8,
    pub(crate) retries_left: u8,
    /// When the chosen backend must have taken a connection, whichever of its addresses.
    pub(crate) connect_until: Instant,
    /// Addresses of the chosen backend that took none.
    pub(crate) addresses_failed: u8,
    /// Stale connections replaced so far: each costs nothing, but their number is bounded.
    pub(crate) replays: u8,
    /// Connections that were left with its stream, through no fault of anybody's.
    pub(crate) left_behind: u8,
    /// Attempts that failed, oldest first; only they take memory.
    pub(crate) failed: Vec<FailedAttempt>,
    /// The last attempt used an idle connection.
    pub(crate) reused: bool,
    /// Its connection to the backend belongs to its client alone from now on.
    pub(crate) binds: bool,
    /// Its backend wants it over HTTP/1.1.
    pub(crate) http1_only: bool,
    /// It will need a page for the head that its backend gets, and has it promised.
    pub(crate) page_promised: bool,
    /// All of the request that was received is still here.
    pub(crate) retained: bool,
    /// A byte of this attempt's request has been sent.
    pub(crate) request_begun: bool,
    /// The whole request has been sent.
    pub(crate) request_sent: bool,
    /// The client's stream of a tunnel has been told that nothing more comes.
    pub(crate) tunnel_end_sent: bool,
    /// A byte of the backend's response has been seen.
    pub(crate) response_seen: bool,
    /// Bytes of the final response have been sent.
    pub(crate) response_begun: bool,
    /// The client holds its content back until the backend says 100 (RFC 9110 §10.1.1).
    pub(crate) awaits_continue: bool,
    /// Interim responses so far.
    pub(crate) interims: u8,
    /// The client's connection may carry another request afterwards, as far as we are concerned.
    pub(crate) persist: bool,

    /// Most bytes of content that the request may have, as its middlewares say.
    pub(crate) body_limit: u64,
    /// Middlewares of the chain that the request has passed.
    pub(crate) stage: u8,
    /// What each middleware keeps of this exchange.
    pub(crate) states: Vec<Option<Box<dyn Any + Send>>>,
    /// Whose request it is, if a middleware has found out.
    pub(crate) user: Option<Box<str>>,

    pub(crate) client_window: Window,
    pub(crate) backend_window: Window,
    /// When the client, or whoever is waited for on its behalf, must have done something.
    pub(crate) client_due: Instant,
    /// When a client that has closed its direction is given up; [`Instant::NEVER`]: it has not.
    pub(crate) fin_due: Instant,
    /// When the backend must have done something.
    pub(crate) backend_due: Instant,
    /// When the client of a call does not wait any longer (`grpc-timeout`).
    pub(crate) call_due: Instant,
    /// Since when the head of a response is waited for, over all attempts: since a request was whole with a
    /// backend, or the last interim response. [`Instant::NEVER`]: not yet.
    pub(crate) waits_since: Instant,
    /// It stands among those whose deadlines are to be set anew.
    pub(crate) dirty: bool,

    pub(crate) status: u16,
    pub(crate) cause: Option<Cause>,
    /// Payload sent to the client.
    pub(crate) bytes_out: u64,
    pub(crate) times: Timings,
    /// What the observer wants of the head.
    pub(crate) kept: Kept,
}

/// Direction of a message: place in [`Exchange::trailers_pass`].
pub(crate) const REQUEST: usize = 0;
/// Direction of a message: place in [`Exchange::trailers_pass`].
pub(crate) const RESPONSE: usize = 1;

impl Exchange {
    /// The nearest of its deadlines.
    #[inline]
    pub(crate) fn due(&self) -> Instant {
        self.client_due.min(self.backend_due).min(self.call_due)
    }

    /// Its backend has not looked at it, and nobody is to blame: that was no attempt. The backend had taken a
    /// connection in time: for the next one there is as much.
    pub(super) fn take_back_attempt(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        (self.connect_until, self.addresses_failed) = (Instant::NEVER, 0);
    }

    /// The client need not hold its content back any more. The time for the response begins when all of that
    /// has been sent.
    pub(crate) fn expectation_met(&mut self) {
        // One whose content is empty may have been sent before anything was said.
        if std::mem::replace(&mut self.awaits_continue, false) && !self.request_sent {
            (self.times.sent, self.waits_since) = (Instant::NEVER, Instant::NEVER);
        }
    }

    /// The backend has all that it needs to respond.
    #[inline]
    pub(crate) fn sent_at(&mut self, now: Instant) {
        self.times.sent = if crate::planted::planted!(46) { self.times.chosen } else { now };
        self.waits_since = self.waits_since.min(now);
    }

    /// More of the request's content has come than its middlewares allow.
    #[inline]
    pub(crate) fn body_too_large(&self) -> bool {
        self.request.payload_bytes > self.body_limit
    }

    /// Whether the rest of the request is read on: not while a lookup runs, nor beside a local reply.
    pub(crate) fn takes_request_body(&self) -> bool {
        !matches!(self.phase, Phase::Asking(_) | Phase::LocalReply)
    }

    /// The attempt under way has failed.
    #[cold]
    pub(crate) fn attempt_failed(&mut self, cause: Cause) {
        if let Some(backend) = self.choice {
            self.failed.push(FailedAttempt { backend, cause });
        }
    }

    /// The request is sent once more, from the start.
    pub(crate) fn rewind_request(&mut self) {
        self.request.rewind();
        (self.request_begun, self.request_sent) = (false, false);
        self.times.sent = Instant::NEVER;
    }
}

/// The head of an exchange's request, in memory that goes to another exchange afterwards.
#[derive(Debug)]
pub(crate) struct OwnedHead(Option<Box<RequestHead>>);

impl OwnedHead {
    #[inline]
    pub(crate) fn new(head: Box<RequestHead>) -> Self {
        Self(Some(head))
    }

    /// Takes the memory; only at the end of the exchange.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Box<RequestHead>> {
        self.0.take()
    }
}

impl std::ops::Deref for OwnedHead {
    type Target = RequestHead;

    #[inline]
    fn deref(&self) -> &RequestHead {
        self.0.as_deref().expect("an exchange under way has its head")
    }
}

impl std::ops::DerefMut for OwnedHead {
    #[inline]
    fn deref_mut(&mut self) -> &mut RequestHead {
        self.0.as_deref_mut().expect("an exchange under way has its head")
    }
}
