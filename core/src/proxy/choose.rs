//! From a request to a connection: a backend is chosen, a connection found or opened, and another one tried
//! when that fails.

use std::net::SocketAddr;
use std::time::Duration;

use super::Proxy;
use super::exchange::{Leg, Phase, Window};
use super::secured::Secured;
use crate::balance::{Choice, SelectionInput, WaitingShards};
use crate::cause::Cause;
use crate::config::ListenerKind;
use crate::conn::{Backend, Conn, Role};
use crate::event::{Effect, Fault};
use crate::h1::{RequestForward, Side};
use crate::http::Framing;
use crate::id::{ConnId, ExchangeId};
use crate::observe::{HealthState, Observer, Step};
use crate::planted::planted;
use crate::time::Instant;
use crate::wire::Wire;

/// Stale idle connections that one exchange may meet before it counts as failing.
const MAX_REPLAYS: u8 = 3;
/// Connections that a backend may leave with the streams of one exchange before that counts as failing: one
/// that takes few requests on each turns away many of a crowd.
const MAX_LEFT_BEHIND: u8 = 16;
/// Addresses of one backend that may take no connection before another backend is tried.
const MAX_ADDRESSES_FAILED: u8 = 8;
/// How long an address may take to connect before the next one of the same name is tried. (RFC 8305 §8 has
/// the same time; it goes on with the first attempt, which is not worth its complexity between machines that
/// are near each other.)
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Exchanges at the front of a queue that may be passed over, since each waits for a backend of its own.
const MAX_PASSED_OVER: usize = 128;

/// What an attempt has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Its connection, or nothing but time.
    Connection,
    /// A stream of a connection that goes on.
    Stream,
    /// A stream on which the backend has not looked at the request.
    Refused,
}

impl<O: Observer> Proxy<O> {
    /// Chooses a backend for an exchange that has none.
    pub(super) fn choose(&mut self, x: ExchangeId, now: Instant) {
        if !self.bound.is_empty() && !planted!(81) && self.attach_bound(x, now) {
            return;
        }
        match self.try_choose(x, now) {
            Choice::Backend(_) => self.attach(x, true, now),
            Choice::None => self.refuse_waiting(x, Cause::NoBackend),
            Choice::Full => self.enqueue(x, now),
        }
    }

    fn try_choose(&mut self, x: ExchangeId, now: Instant) -> Choice {
        let e = &mut self.tables.exchanges[x];
        let client = e.client_ip;
        let pool = self.pools.get_mut(e.pool.expect("routed"));
        let choice =
            pool.balancer.choose(&SelectionInput { client, sticky: e.sticky_choice, tried: &e.tried }, now);
        if let Choice::Backend(b) = choice {
            e.choice = Some(b);
            e.holds_slot = true;
            e.times.chosen = e.times.chosen.min(now);
        }
        self.step_choice(x, &choice);
        choice
    }

    /// Waits for a backend below its `max_connections`.
    fn enqueue(&mut self, x: ExchangeId, now: Instant) {
        let shard = self.identity.shard;
        let e = &mut self.tables.exchanges[x];
        let slot = e.pool.expect("routed");
        let pool = self.pools.get_mut(slot);
        if pool.waiting + u32::from(planted!(96)) >= pool.pool().limits.queue + u32::from(planted!(38)) {
            return self.refuse_waiting(x, Cause::QueueFull);
        }
        (e.phase, e.queued) = (Phase::Choosing, true);
        let within = pool.pool().timeouts.queue / (1 + u32::from(planted!(37)));
        e.client_due = (now + within).min(e.fin_due);
        // Who has left the queue still stands in it: now and then those are removed, so that each costs O(1).
        if pool.queue.len() > 2 * pool.waiting as usize + 32 {
            let exchanges = &self.tables.exchanges;
            pool.queue.retain(|q| exchanges.get(*q).is_some_and(|e| e.queued && *q != x));
        }
        pool.waiting += 1;
        pool.queue.push_back(x);
        pool.state.wait(shard);
        self.promise_page(x);
        self.file_exchange(x);
        // A slot that came free just before nudges nobody.
        self.signals.to_serve.push(slot);
    }

    /// No backend for an exchange that may have tried some: the last error is the one reported.
    pub(super) fn refuse_waiting(&mut self, x: ExchangeId, cause: Cause) {
        let cause = self.tables.exchanges[x].failed.last().map_or(cause, |attempt| attempt.cause);
        self.fail_exchange(x, cause);
    }

    /// Slots may have come free for everyone who waits here. Several slots may run one pool: a reload leaves
    /// the older ones to those who wait in them.
    pub(super) fn serve_soon(&mut self) {
        let slots = self.pools.slots.iter().enumerate();
        let waiting = slots.filter(|(_, pool)| pool.as_ref().is_some_and(|pool| pool.waiting > 0));
        self.signals.to_serve.extend(waiting.map(|(slot, _)| slot as u32));
    }

    /// Serves every queue that is to be served.
    #[inline]
    pub(super) fn serve_queues(&mut self, now: Instant) {
        if !self.signals.to_serve.is_empty() {
            self.serve_named_queues(now);
        }
    }

    #[cold]
    fn serve_named_queues(&mut self, now: Instant) {
        while let Some(slot) = self.signals.to_serve.pop() {
            self.serve_queue(slot, now);
        }
    }

    /// Exchanges that wait get the slots that came free, oldest first.
    pub(super) fn serve_queue(&mut self, slot: u32, now: Instant) {
        let shard = self.identity.shard;
        let mut at = 0;
        if let Some(pool) = self.pools.slots[slot as usize].as_mut().filter(|pool| pool.waiting > 0) {
            // Before looking: a slot that comes free from now on nudges.
            pool.state.wait(shard);
        }
        while let Some(pool) = self.pools.slots[slot as usize].as_mut() {
            let Some(&x) = pool.queue.get(at) else { return };
            if !self.tables.exchanges.get(x).is_some_and(|e| e.queued) {
                if at == 0 {
                    pool.queue.pop_front();
                } else {
                    at += 1;
                }
                continue;
            }
            match self.try_choose(x, now) {
                // It may wait for one backend alone (by its cookie, its address, or what it has tried): the
                // next may have another.
                Choice::Full if at < MAX_PASSED_OVER && self.waits_for_one(x) => at += 1,
                Choice::Full => return,
                choice => {
                    let pool = self.pools.get_mut(slot);
                    pool.queue.remove(at);
                    pool.waiting -= 1;
                    let e = &mut self.tables.exchanges[x];
                    (e.phase, e.queued, e.client_due) = (Phase::Connecting, false, Instant::NEVER);
                    match choice {
                        Choice::None => self.refuse_waiting(x, Cause::NoBackend),
                        _ => self.attach(x, true, now),
                    }
                }
            }
        }
    }

    /// Whether another exchange might get a backend where this one gets none.
    fn waits_for_one(&self, x: ExchangeId) -> bool {
        let e = &self.tables.exchanges[x];
        e.sticky_choice.is_some()
            || !e.tried.is_empty()
            || self.pools.get(e.pool.expect("routed")).balancer.is_by_client()
    }

    /// Leaves the queue, if the exchange is in it.
    pub(super) fn leave_queue(&mut self, x: ExchangeId) {
        let e = &mut self.tables.exchanges[x];
        if std::mem::replace(&mut e.queued, false) {
            self.pools.get_mut(e.pool.expect("routed")).waiting -= 1;
        }
        e.client_due = Instant::NEVER;
    }

    /// Finds or opens a connection to the chosen backend.
    pub(super) fn attach(&mut self, x: ExchangeId, reuse: bool, now: Instant) {
        let e = &self.tables.exchanges[x];
        let pool = self.pools.get(e.pool.expect("routed"));
        let at = pool.backends[usize::from(e.choice.expect("chosen"))];
        if self.goes_on_stream(x, at) {
            return self.attach_stream(x, at, now);
        }
        if self.pools.backends[at as usize].has_doubtful_idle() {
            self.drop_doubtful_idle(at);
        }
        let e = &mut self.tables.exchanges[x];
        let of = &mut self.pools.backends[at as usize];
        e.attempts = e.attempts.saturating_add(1);
        e.backend_window = Window::NONE;
        // Only a connection that comes about says that a half-open backend is well.
        // One that is to be authenticated must not turn out to be stale: it could not be replaced.
        let idle = if reuse && !e.binds && of.state.health().usable() {
            of.idle.newest().and_then(|slot| self.tables.conns.at(slot))
        } else {
            None
        };
        if let Some(b) = idle {
            of.idle.remove(&mut self.pools.links, b.slot);
            let conn = &mut self.tables.conns[b];
            let Role::Backend(role) = &mut conn.role else {
                unreachable!("idle connections lead to backends")
            };
            role.idle = false;
            conn.exchange = Some(x);
            conn.deadline = Instant::NEVER;
            e.reused = true;
            e.attempts -= u8::from(planted!(42) && e.attempts > 1);
            e.backend = Some(Leg::only(b));
            self.step_attached(x, b, None);
            return self.start_sending(x, now);
        }
        e.reused &= planted!(43);
        match self.open_backend(at, x, Wire::H1(crate::h1::conn::Conn::new(Side::Server)), now) {
            Some(b) => {
                self.tables.conns[b].exchange = Some(x);
                let e = &mut self.tables.exchanges[x];
                (e.backend, e.phase) = (Some(Leg::only(b)), Phase::Connecting);
                self.promise_page(x);
                self.mark_dirty(x);
            }
            None => self.attempt_failed(x, Cause::ConnectUnreachable, now),
        }
    }

    /// Something has happened to a backend: connections that lie idle may lead to where it is no more, or to
    /// what is frozen. They are closed.
    #[cold]
    fn drop_doubtful_idle(&mut self, at: u32) {
        let backend = &mut self.pools.backends[at as usize];
        backend.seen_epoch = backend.state.epoch();
        let idle = backend.idle.iter(&self.pools.links).filter_map(|slot| self.tables.conns.at(slot));
        let doubtful: Vec<ConnId> = idle
            .filter(|b| {
                matches!(&self.tables.conns[*b].role, Role::Backend(role)
                    if !backend.state.trusts(role.to, role.epoch))
            })
            .collect();
        for b in doubtful {
            self.close(b);
        }
    }

    /// Opens a connection to a backend, if it has an address.
    pub(super) fn open_backend(
        &mut self,
        at: u32,
        x: ExchangeId,
        wire: Wire,
        now: Instant,
    ) -> Option<ConnId> {
        let http1 = self.tables.exchanges[x].needs_http1(self.takes_websockets(at));
        let of = &mut self.pools.backends[at as usize];
        of.turn = of.turn.wrapping_add(1);
        let to = of.state.pick(of.turn)?;
        let tls = of.state.tls().map(|target| if http1 { target.for_http1() } else { target }).cloned();
        let role = Role::Backend(Backend {
            backend: at,
            to: to.ip(),
            epoch: of.state.epoch(),
            connected: false,
            idle: false,
            bound: false,
            uses: 0,
            keep_alive_secs: u32::MAX,
        });
        // An attempt at a backend that is known to be away tries one address, for all of the time.
        let one_of_several = of.state.health().usable() && of.state.has_other_than(to.ip());
        let b = self.tables.conns.insert(Conn::new(role, wire));
        let e = &mut self.tables.exchanges[x];
        let pool = self.pools.get(e.pool.expect("routed"));
        e.connect_until = e.connect_until.min(now + pool.pool().timeouts.connect);
        let until =
            e.connect_until.min(if one_of_several { now + NEXT_ADDRESS_AFTER } else { Instant::NEVER });
        let until = if planted!(32) { until + std::time::Duration::from_secs(1) } else { until };
        self.set_deadline(b, until);
        self.step_attached(x, b, Some(&to));
        self.signals.effects.push_back(Effect::Connect { conn: b, to, tls });
        Some(b)
    }

    /// A backend took a connection.
    pub(super) fn backend_connected(&mut self, b: ConnId, now: Instant) {
        self.step(b, Step::Connected);
        self.set_deadline(b, Instant::NEVER);
        if self.tables.conns[b].wire.streams().is_some() {
            return self.streams_connected(b, now);
        }
        let conn = &self.tables.conns[b];
        let Some(x) = conn.exchange else { return };
        if let Role::Backend(role) = &conn.role {
            self.pools.backends[role.backend as usize].state.connected_to(role.to);
        }
        self.backend_is_up(x, now);
        self.start_sending(x, now);
    }

    /// A connection to the backend of this exchange has come about.
    pub(super) fn backend_is_up(&mut self, x: ExchangeId, now: Instant) {
        let e = &self.tables.exchanges[x];
        let (pool, choice) = (e.pool.expect("routed"), e.choice.expect("chosen"));
        if let Some(change) = self.pools.get(pool).state.connected(choice, now) {
            self.health_changed(pool, choice, change, "a connection was taken");
        }
    }

    /// The request is sent on the exchange's connection.
    pub(super) fn start_sending(&mut self, x: ExchangeId, now: Instant) {
        self.redeem_page(x);
        if !self.may_be_sent(x, now) {
            return;
        }
        let e = &mut self.tables.exchanges[x];
        let leg = e.backend.expect("attached");
        e.phase = Phase::Sending;
        e.times.connected = e.times.connected.min(now);
        let pool = self.pools.get(e.pool.expect("routed"));
        let Some((conn, source)) = self.tables.conns.pair_mut(leg.conn, e.client.conn) else { return };
        let client = source.client();
        let theirs = &mut self.scratch.client_text;
        if client.trusted {
            theirs.assign(e.client_ip);
        }
        let forward = RequestForward {
            peer: &client.peer_text,
            client: if client.trusted { theirs } else { &client.peer_text },
            client_certificate: match client.kind {
                ListenerKind::Https => self.secured.get(e.client.conn).and_then(Secured::client_certificate),
                _ => None,
            },
            via: self.pools.config.via,
            forwarded_headers: &self.identity.forwarded_headers[usize::from(client.forwarded_headers)],
            request_id: &e.request_id,
            trusted: client.trusted,
            keep_expect: !e.head.framing().is_empty(),
            own_body: e.request.is_transformed().then_some(Framing::Chunked),
            default_host: pool.pool().backends.first().map_or(&[][..], |b| b.host.as_bytes()),
        };
        let sent = match &mut conn.wire {
            Wire::H1(h1) => {
                h1.set_lenient(pool.pool().lenient);
                h1.send_request(&mut self.tables.pages, &e.head, &forward)
            }
            Wire::Multiplexed(to) => super::streams::send_request(&mut *to, leg.stream, &e.head, &forward),
            Wire::Tunnel(_) => Err(Cause::BackendReset),
        };
        if let Err(cause) = sent {
            return self.send_failed(x, cause, now);
        }
        if e.request.is_through(&source.wire)
            && let Wire::H1(h1) = &mut conn.wire
        {
            // No content: the head is all that there is to send.
            h1.frame(0, true, e.request.trailers.len());
            source.wire.trim(&mut self.tables.pages);
            self.signals.mark_ready(leg.conn, conn);
            return self.signals.mark_dirty(x, e);
        }
        self.push_request(x, now);
        self.mark_dirty(x);
    }

    /// The request's head could not be written: nothing of it has been sent, and the connection is as it was,
    /// its client's alone if it was that before.
    #[cold]
    fn send_failed(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        let pool = e.pool.expect("routed");
        let owner = (e.binds && e.reused).then_some(e.client.conn);
        if let Some(leg) = e.backend.filter(|leg| self.tables.conns[leg.conn].wire.h1().is_some()) {
            e.backend = None;
            self.tables.conns[leg.conn].exchange = None;
            if let Wire::H1(h1) = &mut self.tables.conns[leg.conn].wire {
                h1.drop_sent_heads(&mut self.tables.pages);
            }
            match owner {
                None => self.keep_idle(leg.conn, pool, now),
                Some(client) => self.bind(client, leg.conn, pool, now),
            }
        }
        if cause == Cause::BackendReset {
            // The connection takes no new stream any more.
            return self.attempt_failed(x, cause, now);
        }
        self.fail_exchange(x, cause);
    }

    /// The backend's socket broke.
    pub(super) fn backend_fault(&mut self, b: ConnId, f: Fault, now: Instant) {
        let conn = &mut self.tables.conns[b];
        let Role::Backend(role) = &conn.role else { return };
        let (connected, cause) = (role.connected, super::socket_cause(f, role.connected));
        if conn.wire.streams().is_some() {
            return self.backend_streams_lost(b, cause, now);
        }
        let Some(x) = conn.exchange else { return self.close(b) };
        if !connected {
            return self.connect_failed(x, cause, now);
        }
        if let Wire::H1(h1) = &mut conn.wire {
            h1.fail();
        }
        self.backend_lost(x, cause, now);
    }

    /// The backend's leg is gone: what that means depends on how far the response was.
    pub(super) fn backend_lost(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        let e = &self.tables.exchanges[x];
        match e.phase {
            Phase::Tunnel => self.abort(x, cause, now),
            Phase::Responding if e.response.ended => {
                // All of the response is here: it only has to be sent. The connection just cannot be used
                // again.
                let conn = &mut self.tables.conns[e.backend.expect("responding").conn];
                if let Wire::H1(h1) = &mut conn.wire {
                    h1.fail();
                }
                (conn.recv_ended, conn.broken) = (true, true);
            }
            Phase::Responding => self.break_exchange(x, Cause::ResponseTruncated, now),
            _ => self.attempt_failed(x, cause, now),
        }
    }

    /// No connection came about.
    pub(super) fn connect_failed(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        let e = &self.tables.exchanges[x];
        let role = e.backend.map(|leg| &self.tables.conns[leg.conn].role);
        let other = match role {
            Some(Role::Backend(role)) => self.connect_refused_at(role.backend, role.to, cause),
            _ => false,
        };
        if self.tries_next_address(x, other, now) {
            return;
        }
        self.count_failed_connect(x, cause, now);
        self.attempt_failed(x, cause, now);
    }

    /// An address of a backend has taken no connection: whether another one may be better.
    pub(super) fn connect_refused_at(&self, at: u32, to: Option<SocketAddr>, cause: Cause) -> bool {
        let of_address = matches!(
            cause,
            Cause::ConnectRefused | Cause::ConnectUnreachable | Cause::ConnectTimeout | Cause::BackendTls(_)
        );
        let backend = &self.pools.backends[at as usize].state;
        of_address && backend.refused(to) && backend.health().usable()
    }

    /// Whether the exchange goes on at another address of its backend's name, if there is one that may be
    /// better: that is no further attempt.
    pub(super) fn tries_next_address(&mut self, x: ExchangeId, other: bool, now: Instant) -> bool {
        let e = &mut self.tables.exchanges[x];
        if !other || e.addresses_failed >= MAX_ADDRESSES_FAILED || now >= e.connect_until {
            return false;
        }
        e.attempts -= 1;
        e.addresses_failed += 1;
        self.detach_backend(x);
        self.attach(x, false, now);
        true
    }

    /// No connection to the backend of this exchange has come about.
    pub(super) fn count_failed_connect(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        let e = &self.tables.exchanges[x];
        let (pool, choice) = (e.pool.expect("routed"), e.choice.expect("chosen"));
        // A shortage of our own says nothing about the backend.
        if (cause != Cause::ConnectFailed || planted!(57))
            && let Some(change) = self.pools.get(pool).state.connect_failed(choice, now)
        {
            if change.to == HealthState::Unhealthy {
                self.identity.shared.mark_down();
            }
            self.health_changed(pool, choice, change, cause.name());
            self.recheck_by_traffic(now);
        }
    }

    /// The backend has not looked at the request: it may be sent again, whatever it is. `blameless`: that is
    /// not even an attempt.
    pub(super) fn attempt_unprocessed(&mut self, x: ExchangeId, cause: Cause, blameless: bool, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        let repeatable = !e.response_seen && (!e.request_begun || e.retained);
        if !blameless || !repeatable || e.left_behind >= MAX_LEFT_BEHIND {
            return self.attempt_over(x, cause, Loss::Refused, now);
        }
        e.left_behind += 1;
        e.take_back_attempt();
        e.rewind_request();
        self.attach(x, false, now);
    }

    /// An attempt failed before any of its response reached the client: try again if that is safe, else say
    /// what went wrong.
    pub(super) fn attempt_failed(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        self.attempt_over(x, cause, Loss::Connection, now);
    }

    pub(super) fn attempt_over(&mut self, x: ExchangeId, cause: Cause, loss: Loss, now: Instant) {
        let e = &self.tables.exchanges[x];
        // What has not been sent has not been let go of either.
        let idempotent = e.head.method().is_idempotent() || loss == Loss::Refused || planted!(3);
        let repeatable = !e.request_begun || (e.retained && idempotent);
        // What authenticates a connection is worth nothing on another one.
        let bound = e.binds && e.request_begun && !planted!(79);
        let safe = (!e.response_seen || planted!(12)) && repeatable && !bound;
        let closed = e.reused && matches!(cause, Cause::BackendClosed | Cause::BackendReset);
        let stale = match loss {
            Loss::Connection => closed,
            Loss::Stream => false,
            Loss::Refused => true,
        };
        self.detach_backend(x);
        let e = &mut self.tables.exchanges[x];
        e.attempt_failed(cause);
        self.step_failed(x, cause);
        let e = &mut self.tables.exchanges[x];
        if safe && stale && e.replays < MAX_REPLAYS {
            // The backend closed an idle connection as it was taken, or has refused the stream: the request
            // was not served. The same backend, another connection.
            e.replays += 1;
            e.rewind_request();
            return self.attach(x, false, now);
        }
        let (pool, choice) = (e.pool.expect("routed"), e.choice.expect("chosen"));
        // Who lets its time go by may still be at work, and the client has waited long enough.
        let timed_out = matches!(cause, Cause::BackendTimeout | Cause::BackendStalled);
        let repeatable = safe && e.retries_left > 0;
        let used = self.pools.get_mut(pool);
        let again = repeatable && (!timed_out || used.pool().retries_on_timeout) && used.spend_retry();
        if timed_out {
            self.tables.exchanges[x].waits_since = Instant::NEVER;
        }
        self.release_slot(x);
        if !again {
            return self.break_exchange(x, cause, now);
        }
        let e = &mut self.tables.exchanges[x];
        e.retries_left -= u8::from(!planted!(73));
        if !planted!(70) {
            e.tried.add(choice);
        }
        (e.connect_until, e.addresses_failed) = (Instant::NEVER, 0);
        e.rewind_request();
        e.phase = Phase::Choosing;
        self.choose(x, now);
    }

    /// Gives back the in-flight slot, and lets those who wait have it.
    #[inline]
    pub(super) fn release_slot(&mut self, x: ExchangeId) {
        let e = &mut self.tables.exchanges[x];
        if !std::mem::replace(&mut e.holds_slot, false) {
            return;
        }
        let (pool, choice) = (e.pool.expect("routed"), e.choice.expect("chosen"));
        let waiting = self.pools.get(pool).state.finish(choice);
        if !waiting.is_empty() && !planted!(16) {
            self.nudge_waiting(waiting);
        }
    }

    /// A slot has come free, and these shards wait for one.
    #[cold]
    fn nudge_waiting(&mut self, waiting: WaitingShards) {
        for shard in waiting {
            if shard == self.identity.shard {
                self.serve_soon();
            } else if !planted!(17) {
                self.signals.effects.push_back(Effect::Nudge(shard));
            }
        }
    }
}
