//! How exchanges end: with a response, refused, broken or cut. Each ends once and is recorded once.

use std::time::Duration;

use super::Proxy;
use super::exchange::{Leg, Phase, Window};
use super::pipe::MessagePipe;
use crate::cause::Cause;
use crate::config::ListenerKind;
use crate::conn::Role;
use crate::h2::Reason;
use crate::http::Framing;
use crate::id::{ConnId, ExchangeId};
use crate::local_reply::{Body, LocalReply};
use crate::middleware::{Transform, transform_whole};
use crate::observe::{FailedAttempts, Observer, Record};
use crate::planted::planted;
use crate::time::Instant;
use crate::wire::Wire;

/// Buffers kept for exchanges to come; each uses one of either kind.
const MAX_SPARE: usize = 512;
/// Longer ones are not kept: it is enough for the longest texts of a head with what a log line has between
/// them.
const MAX_SPARE_BYTES: usize = 2304;
/// The same for whole heads.
const MAX_SPARE_HEAD_BYTES: usize = 4096;
/// Content of our own up to this length passes transforms at once, so that its new length can be said.
const MAX_WHOLE_BYTES: usize = 16 * 1024;

impl<O: Observer> Proxy<O> {
    /// Answers with an error of our own.
    pub(super) fn fail_exchange(&mut self, x: ExchangeId, cause: Cause) {
        self.respond_locally(x, LocalReply::error(cause));
    }

    /// Answers without a backend. The reply passes the middlewares that the request has passed.
    pub(super) fn respond_locally(&mut self, x: ExchangeId, reply: LocalReply) {
        self.leave_phase(x);
        self.detach_backend(x);
        self.release_slot(x);
        self.redeem_page(x);
        let now = self.timers.now;
        let e = &mut self.tables.exchanges[x];
        e.phase = Phase::LocalReply;
        e.request.drop_pages(&mut self.tables.pages);
        e.response.drop_pages(&mut self.tables.pages);
        e.cause = reply.cause;
        // A client that was too slow with its body has its whole time for the response that tells it so.
        e.client_window = Window::NONE;
        self.tables.conns[e.client.conn].wire.drop_payload();

        let body = reply.into_parts(&mut self.scratch.response).unwrap_or_default();
        let passed = self.pass_response(x, now);
        if self.answer_call(x) {
            return self.send_own_content(x, Body::Empty, Vec::new(), false, now);
        }
        let body = passed.content.unwrap_or(body);
        self.send_own_content(x, body, passed.transforms, false, now);
    }

    /// A middleware has put other content in the place of a backend's, whose head lies in `scratch.response`.
    /// What is still to come of the backend's is not waited for: its connection goes on if nothing is.
    pub(super) fn replace_content(
        &mut self,
        x: ExchangeId,
        content: Body,
        transforms: Vec<Box<dyn Transform>>,
        now: Instant,
    ) {
        let ended = self.has_whole_response(x);
        let e = &mut self.tables.exchanges[x];
        let owner = e.binds.then_some(e.client.conn);
        match (e.backend, e.pool) {
            (Some(leg), Some(pool)) if ended => {
                e.backend = None;
                self.free_backend(leg, pool, owner, now);
            }
            _ => self.detach_backend(x),
        }
        self.release_slot(x);
        self.redeem_page(x);
        let e = &mut self.tables.exchanges[x];
        e.phase = Phase::LocalReply;
        e.request.drop_pages(&mut self.tables.pages);
        e.response.drop_pages(&mut self.tables.pages);
        e.client_window = Window::NONE;
        self.tables.conns[e.client.conn].wire.drop_payload();
        self.send_own_content(x, content, transforms, true, now);
    }

    /// Whether request and response are complete with the backend. What has come of the content is dropped.
    fn has_whole_response(&mut self, x: ExchangeId) -> bool {
        let e = &mut self.tables.exchanges[x];
        let Some(leg) = e.backend.filter(|_| e.request_sent) else { return false };
        match &mut self.tables.conns[leg.conn].wire {
            Wire::H1(h1) => {
                let trailers = &mut e.response.trailers;
                let read = h1.receive_body(&mut self.tables.pages, &self.pools.head_limits, trailers);
                trailers.clear();
                h1.buffer_mut().drop_payload();
                read.is_ok_and(|read| read.ended)
            }
            Wire::Multiplexed(_) => e.response.ended && !e.head.opens_websocket(),
            Wire::Tunnel(_) => false,
        }
    }

    /// Sends the head in `scratch.response` with content that lies in memory. `from_backend`: the head is a
    /// backend's.
    fn send_own_content(
        &mut self,
        x: ExchangeId,
        mut body: Body,
        transforms: Vec<Box<dyn Transform>>,
        from_backend: bool,
        now: Instant,
    ) {
        let head = &mut self.scratch.response;
        let e = &mut self.tables.exchanges[x];
        if e.head.is_extended_connect() && head.status().is_success() {
            // Success would say that the tunnel is there (RFC 8441 §5).
            head.set_status(http::StatusCode::NOT_IMPLEMENTED);
        }
        e.status = head.status().as_u16();
        let head_only = *e.head.method() == http::Method::HEAD;
        let mut streamed = Vec::new();
        if !transforms.is_empty() && head.allows_content() && !head_only {
            if body.bytes().len() <= MAX_WHOLE_BYTES {
                let pool = e.pool.map(|slot| self.pools.get(slot));
                let (name, identity) =
                    pool.map_or(("", 0), |pool| (&*pool.pool().name, pool.state.identity()));
                let count = |counter| self.observer.count(name, identity, counter);
                let Some(changed) = transform_whole(body.bytes(), transforms, count) else {
                    return self.abort(x, Cause::NoPages, now);
                };
                body = Body::Owned(changed);
                head.content_length = Some(body.bytes().len() as u64);
            } else {
                (streamed, head.content_length) = (transforms, None);
            }
        }
        if !head.allows_content() {
            head.content_length = None;
        }
        let framing = match head.content_length {
            _ if !head.allows_content() => Framing::None,
            // Content is announced but not sent (RFC 9110 §9.3.2).
            _ if head_only => Framing::None,
            Some(len) => Framing::Length(len),
            None if !head.allows_content() => Framing::Length(0),
            None => Framing::Chunked,
        };
        e.response = MessagePipe::local(if head_only { Body::Empty } else { body });
        for transform in streamed {
            if e.response.add_transform(transform, &mut self.tables.pages).is_err() {
                return self.abort(x, Cause::NoPages, now);
            }
        }
        if let Err(cause) = self.send_local_head(x, framing, from_backend) {
            return self.abort(x, cause, now);
        }
        let c = self.tables.exchanges[x].client.conn;
        self.mark_ready(c);
        self.mark_dirty(x);
        self.push_response(x, now);
    }

    /// An exchange cannot go on. If the client has not seen anything of a response yet it gets an error, else
    /// it is cut: half a response must not look like a whole one.
    pub(super) fn break_exchange(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        let e = &self.tables.exchanges[x];
        // An interim response may have been sent, but not half of one.
        if e.phase != Phase::LocalReply && !e.response_begun && !self.has_sent_head(x) {
            self.drop_unsent_response(x);
            return self.fail_exchange(x, cause);
        }
        self.abort(x, cause, now);
    }

    /// A response of which nothing has been sent will not be sent.
    pub(super) fn drop_unsent_response(&mut self, x: ExchangeId) {
        let c = self.tables.exchanges[x].client.conn;
        if let Wire::H1(h1) = &mut self.tables.conns[c].wire {
            h1.withdraw_response();
        }
    }

    /// Cuts both legs of an exchange.
    pub(super) fn abort(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        self.leave_phase(x);
        let e = &mut self.tables.exchanges[x];
        let (client, tunnel) = (e.client, e.phase == Phase::Tunnel);
        let cause = *e.cause.get_or_insert(cause);
        if cause == Cause::ClientClosed && !e.response_begun {
            e.status = cause.status();
        }
        self.detach_backend(x);
        self.end(x, now);
        // RFC 8441 §5.
        self.reset_leg(client, if tunnel { Reason::CANCEL } else { Reason::INTERNAL_ERROR });
    }

    /// Ends a leg so that its peer notices that something is missing: a stream, for this reason, or the
    /// connection where it has but one.
    pub(super) fn reset_leg(&mut self, leg: Leg, reason: Reason) {
        let Some(conn) = self.tables.conns.get_mut(leg.conn) else { return };
        let conn_is_client = matches!(conn.role, Role::Client(_));
        match conn.wire.streams_mut() {
            Some(streams) => {
                streams.protocol.reset(leg.stream, reason);
                streams.forget(leg.stream);
                self.recount_held(leg.conn, self.timers.now);
                if conn_is_client {
                    self.mark_ready(leg.conn);
                } else {
                    self.stream_gone(leg.conn, self.timers.now);
                }
            }
            None => {
                conn.exchange = None;
                self.reset(leg.conn);
            }
        }
    }

    /// The whole response has been sent.
    pub(super) fn finish(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        let (leg, tunnel, pool) = (e.client, e.phase == Phase::Tunnel, e.pool);
        let request_ended = e.request.has_source_ended();
        let owner = e.binds.then_some(leg.conn);
        if let (Some(backend), Some(pool)) = (e.backend.take(), pool) {
            if !e.request_sent
                && let Some(streams) = self.tables.conns[backend.conn].wire.streams_mut()
            {
                // Nor does the backend get the rest of the request.
                streams.protocol.reset(backend.stream, Reason::CANCEL);
            }
            self.free_backend(backend, pool, owner, now);
        }
        self.end(x, now);
        let c = leg.conn;
        let conn = &mut self.tables.conns[c];
        if let Some(streams) = conn.wire.streams_mut() {
            streams.forget(leg.stream);
            if !request_ended {
                // Nobody will read the rest of the request (RFC 9113 §8.1).
                streams.protocol.reset(leg.stream, Reason::NO_ERROR);
            }
            return self.stream_finished(c, now);
        }
        conn.exchange = None;
        conn.wire.drop_payload();
        if tunnel {
            // A backend may have closed both directions: its last words must not be lost to a reset.
            return if request_ended { self.close(c) } else { self.linger(c, now) };
        }
        let Wire::H1(h1) = &mut conn.wire else { return };
        let request_ended = h1.message_ended();
        h1.message_sent();
        if h1.next_exchange() {
            let until = now + self.pools.config.timeouts.idle;
            if h1.buffer().unparsed_len() > 0 {
                self.set_deadline(c, until);
                return self.read_request(c, now);
            }
            conn.wire.trim(&mut self.tables.pages);
            if conn.recv_ended || self.drain.until.is_some() {
                return self.close(c);
            }
            let until = if planted!(33) { Instant::NEVER } else { until };
            self.timers.set_deadline(c, conn, until);
            return self.signals.mark_readable(c, conn);
        }
        // A client that asked for the end has nothing more to say; anyone else might, and its words must not
        // reset the last ones to it.
        let silent = request_ended && h1.buffer().unparsed_len() == 0 && h1.peer_closes();
        if silent { self.close(c) } else { self.linger(c, now) }
    }

    /// Lets go of a backend leg whose exchange is over: its connection lies idle if it can be used again.
    /// `owner`: the client that it belongs to, if not to all.
    fn free_backend(&mut self, leg: Leg, pool: u32, owner: Option<ConnId>, now: Instant) {
        let b = leg.conn;
        let conn = &mut self.tables.conns[b];
        if let Some(streams) = conn.wire.streams_mut() {
            streams.forget(leg.stream);
            streams.served();
            return self.stream_gone(b, now);
        }
        conn.exchange = None;
        let recv_ended = conn.recv_ended;
        let clean = conn.wire.is_drained() || planted!(10);
        let reusable = match &mut conn.wire {
            Wire::H1(h1) => {
                h1.drop_sent_heads(&mut self.tables.pages);
                clean && !recv_ended && h1.next_exchange()
            }
            _ => false,
        };
        match owner {
            _ if !reusable => self.close(b),
            None => self.keep_idle(b, pool, now),
            Some(client) => self.bind(client, b, pool, now),
        }
    }

    /// Keeps a connection to a backend for exchanges to come, if there may be one more.
    pub(super) fn keep_idle(&mut self, b: ConnId, pool: u32, now: Instant) {
        let client = self.pools.get(pool).pool().client;
        let conn = &mut self.tables.conns[b];
        let Role::Backend(role) = &mut conn.role else { unreachable!("a backend's connection") };
        let at = role.backend;
        let backend = &mut self.pools.backends[at as usize];
        if self.drain.until.is_some() || backend.retired() || client.max_idle_per_host == 0 {
            return self.close(b);
        }
        if role.epoch != backend.state.epoch() {
            if !backend.state.trusts(role.to, role.epoch) {
                return self.close(b);
            }
            role.epoch = backend.state.epoch();
        }
        role.uses = role.uses.saturating_add(1);
        role.idle = true;
        conn.wire.trim(&mut self.tables.pages);
        // A backend that says how long it keeps an idle connection will not be met in the act of closing it.
        let kept =
            Duration::from_secs(u64::from(role.keep_alive_secs)).saturating_sub(Duration::from_secs(1));
        backend.idle.push(&mut self.pools.links, b.slot);
        let full = backend.idle.len() > client.max_idle_per_host + u32::from(planted!(72));
        let kept = if planted!(69) { Duration::MAX } else { client.idle_timeout.min(kept) };
        self.timers.set_deadline(b, conn, now + kept);
        self.signals.mark_readable(b, conn);
        if full {
            self.close_oldest_idle(at);
        }
    }

    /// Closes the connection to a backend that has been idle for the longest time.
    pub(super) fn close_oldest_idle(&mut self, backend: u32) {
        let oldest = self.pools.backends[backend as usize].idle.oldest();
        if let Some(b) = oldest.and_then(|slot| self.tables.conns.at(slot)) {
            self.close(b);
        }
    }

    /// Ends the backend leg of an exchange that does not need it any more. In a tunnel nothing else says that
    /// something is missing.
    pub(super) fn detach_backend(&mut self, x: ExchangeId) {
        let e = &mut self.tables.exchanges[x];
        let tunnel = e.phase == Phase::Tunnel;
        let Some(leg) = e.backend.take() else { return };
        let conn = &mut self.tables.conns[leg.conn];
        if conn.wire.streams().is_some() || (tunnel && !planted!(21)) {
            return self.reset_leg(leg, Reason::CANCEL);
        }
        conn.exchange = None;
        self.close(leg.conn);
    }

    /// Takes an exchange out of every table and records it.
    pub(super) fn end(&mut self, x: ExchangeId, now: Instant) {
        self.release_slot(x);
        self.redeem_page(x);
        self.step_ended(x);
        if self.observer.wants_records() {
            self.record(x, now);
        }
        if planted!(18) {
            self.record(x, now);
        }
        let e = &mut self.tables.exchanges[x];
        e.request.drop_pages(&mut self.tables.pages);
        e.response.drop_pages(&mut self.tables.pages);
        let pool = e.pool;
        let scratch = &mut self.scratch;
        if scratch.spare_heads.len() < MAX_SPARE {
            // Who wants long ones has them made.
            scratch.spare_heads.extend(e.head.take().filter(|head| head.capacity() <= MAX_SPARE_HEAD_BYTES));
            let kept = std::mem::take(&mut e.kept).into_bytes();
            scratch.spare_kept.push(if kept.capacity() <= MAX_SPARE_BYTES { kept } else { Vec::new() });
        }
        self.tables.exchanges.discard(x);
        if let Some(pool) = pool {
            self.pools.leave(pool);
        }
    }

    /// Nothing waits for it any more.
    fn leave_phase(&mut self, x: ExchangeId) {
        match self.tables.exchanges[x].phase {
            Phase::Choosing => self.leave_queue(x),
            Phase::Asking(id) => self.forget_lookup(id),
            _ => {}
        }
    }

    fn record(&mut self, x: ExchangeId, now: Instant) {
        if planted!(19) && self.tables.exchanges[x].attempts > 1 {
            return;
        }
        let e = &mut self.tables.exchanges[x];
        let client = self.tables.conns[e.client.conn].client();
        if client.kind == ListenerKind::Admin {
            return;
        }
        e.times.ended = now;
        if let Some(cause) = e.cause.filter(|cause| cause.is_of_attempt())
            && e.failed.len() < usize::from(e.attempts)
        {
            // It broke when its response had begun, or after it.
            e.attempt_failed(cause);
        }
        let mut record = Record {
            kept: &e.kept,
            client: client.peer(),
            pool: "",
            backend: "",
            pool_identity: None,
            backend_identity: None,
            user: e.user.as_deref().unwrap_or_default(),
            status: e.status,
            cause: e.cause,
            attempts: e.attempts,
            failed: FailedAttempts::default(),
            reused: e.reused,
            bytes_in: e.request.payload_bytes,
            bytes_out: e.bytes_out,
            timings: &e.times,
        };
        if let Some(slot) = e.pool {
            let pool = self.pools.get(slot);
            let named = pool.pool();
            record.pool = &named.name;
            record.failed = FailedAttempts::new(&named.backends, &e.failed);
            record.pool_identity = Some(pool.state.identity());
            if let Some(mut choice) = e.choice {
                if planted!(41) {
                    choice = e.failed.first().map_or(choice, |failed| failed.backend);
                }
                record.backend = &named.backends[usize::from(choice)].label;
                record.backend_identity = Some(pool.state.backends()[usize::from(choice)].identity());
            }
        }
        self.observer.exchange(&record);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config;
    use crate::config::ListenerKind;
    use crate::event::Accepted;
    use crate::id::ListenerId;
    use crate::observe::{Head, HealthChange, Kept, Level};
    use crate::shared::Shared;

    /// Keeps as many bytes of each request as it says.
    struct Greedy(usize);

    impl Observer for Greedy {
        fn head(&mut self, _: &Head<'_>, kept: &mut Kept) {
            kept.copy(&vec![b'x'; self.0]);
        }
        fn exchange(&mut self, _: &Record<'_>) {}
        fn health(&mut self, _: &HealthChange<'_>) {}
        fn note(&mut self, _: Level, _: &str) {}
    }

    #[test]
    fn buffers_are_used_again_unless_they_are_long() {
        for (wanted, stays) in
            [(100, true), (MAX_SPARE_BYTES, true), (MAX_SPARE_BYTES + 1, false), (100_000, false)]
        {
            let text = "http_address = \"127.0.0.1:80\"\n[[backend_pools]]\nmatcher = \"Path('/there')\"\naddresses = [\"10.0.0.1:80\"]\n";
            let config = Arc::new(config::parse(text).config.expect("a good configuration"));
            let mut proxy =
                Proxy::new(config, Arc::new(Shared::new("host", 1)), 0, 1, Greedy(wanted), Instant::ZERO);
            let (peer, local) =
                ("192.0.2.7:5000".parse().expect("an address"), "192.0.2.1:80".parse().expect("an address"));
            let c = proxy
                .handle_accept(
                    &Accepted { listener: ListenerId(0), kind: ListenerKind::Http, peer, local },
                    Instant::ZERO,
                )
                .expect("room");
            let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
            for _ in 0..3 {
                proxy.recv_buf(c)[..head.len()].copy_from_slice(head);
                proxy.handle_recv(c, head.len(), Instant::ZERO);
                let sent = proxy.with_transmit(c, |slices| slices.iter().map(|s| s.len()).sum());
                proxy.handle_sent(c, sent, Instant::ZERO);
            }
            let spare = &proxy.scratch.spare_kept;
            assert_eq!(spare.len(), 1, "that of one exchange, again and again");
            assert_eq!(proxy.scratch.spare_heads.len(), 1);
            assert_eq!(spare.iter().any(|b| b.capacity() >= wanted), stays, "{wanted}");
            assert!(spare.iter().all(|b| b.capacity() <= MAX_SPARE_BYTES));
        }
    }
}
