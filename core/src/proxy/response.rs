//! The way back: from a backend's bytes to a response that is on its way to the client.

use super::chain::PassedResponse;
use super::exchange::{Exchange, Phase, REQUEST, RESPONSE};
use super::pipe::MessagePipe;
use super::shard_pool::PoolTable;
use super::{Proxy, Tables};
use crate::cause::Cause;
use crate::conn::{Conn, Role};
use crate::h1::conn::{HeadRead, SendResponse, StreamEnd};
use crate::h1::was_offered;
use crate::http::{Framing, ResponseHead, StatusCode, Violation, websocket};
use crate::id::{ConnId, ExchangeId};
use crate::middleware::Transform;
use crate::observe::{Level, Observer};
use crate::page::Pages;
use crate::planted::planted;
use crate::time::Instant;
use crate::wire::Wire;

/// Interim responses that one exchange may have: more is a backend gone wild.
const MAX_INTERIMS: u8 = 32;

impl<O: Observer> Proxy<O> {
    /// `n` bytes came from a backend that carries one exchange at a time.
    pub(super) fn backend_input(&mut self, x: ExchangeId, b: ConnId, n: usize, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        e.backend_window.bytes += n as u64;
        if e.phase == Phase::Sending && !e.request_begun && e.reused {
            // What comes before a byte of the request has been sent belongs to an earlier one: nothing on
            // this connection can be believed.
            return self.attempt_failed(x, Cause::BackendReset, now);
        }
        e.response_seen = true;
        e.response.more_follows = self.tables.conns[b].wire.h1().is_some_and(|h1| h1.buffer().is_full());
        while self.tables.exchanges.get(x).is_some_and(|e| e.phase == Phase::Sending) {
            match self.receive_response_head(x, b) {
                Ok(false) => break,
                Ok(true) => {
                    if let Err(cause) = self.take_response(x, now) {
                        return self.break_exchange(x, cause, now);
                    }
                }
                Err(violation) => {
                    self.note_forgiven(x);
                    return self.break_exchange(x, Cause::BadResponse(violation), now);
                }
            }
        }
        match self.tables.exchanges.get(x).map(|e| e.phase) {
            Some(Phase::Responding | Phase::Tunnel) => self.receive_response(x, now),
            _ => self.mark_dirty(x),
        }
    }

    /// Reads the next head of a response into `scratch.response`; false if it is not complete.
    fn receive_response_head(&mut self, x: ExchangeId, b: ConnId) -> Result<bool, Violation> {
        let e = &self.tables.exchanges[x];
        let limits = &self.pools.get(e.pool.expect("routed")).head_limits;
        let conn = &mut self.tables.conns[b];
        let Wire::H1(h1) = &mut conn.wire else { return Ok(false) };
        if h1.buffer().unparsed_len() == 0 {
            return Ok(false);
        }
        let (pages, scratch) = (&mut self.tables.pages, &mut self.scratch);
        match h1.receive_response(pages, &mut scratch.parser, limits, &e.head, &mut scratch.response)? {
            HeadRead::Partial => {
                if !h1.buffer().has_room() && !h1.buffer_mut().grow(pages) {
                    self.break_exchange(x, Cause::NoPages, self.timers.now);
                }
                self.mark_ready(b);
                Ok(false)
            }
            HeadRead::Whole => {
                let forgiven = scratch.parser.forgiven.is_some();
                if let Role::Backend(role) = &mut conn.role {
                    role.keep_alive_secs = scratch.response.keep_alive_secs.unwrap_or(u32::MAX);
                }
                if forgiven {
                    self.note_forgiven(x);
                }
                Ok(true)
            }
        }
    }

    /// A backend has broken a rule that a lenient pool forgives. It is counted, and said once.
    #[cold]
    fn note_forgiven(&mut self, x: ExchangeId) {
        let Some(violation) = self.scratch.parser.forgiven else { return };
        let e = &self.tables.exchanges[x];
        let (slot, choice) = (e.pool.expect("routed"), usize::from(e.choice.expect("chosen")));
        let used = self.pools.get(slot);
        let pool = used.pool();
        if !used.state.backends()[choice].count_forgiven() {
            return;
        }
        let (name, label, rule) = (&pool.name, &pool.backends[choice].label, violation.name());
        let taken = if pool.lenient {
            "the pool is lenient, so its responses are taken"
        } else {
            "its responses are refused; `lenient = true` in the pool takes them"
        };
        let text = format!("pool {name}: backend {label} breaks a rule of HTTP, {rule}: {taken}");
        self.observer.note(Level::Warning, &text);
    }

    /// The head of a response lies in `scratch.response`: it is passed on.
    pub(super) fn take_response(&mut self, x: ExchangeId, now: Instant) -> Result<(), Cause> {
        let head = &self.scratch.response;
        if head.is_interim() {
            self.pass_interim(x, now)?;
            let c = self.tables.exchanges[x].client.conn;
            self.mark_ready(c);
            return Ok(());
        }
        let switches = head.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches {
            let offered = self.tables.exchanges[x].head.upgrade().unwrap_or_default();
            if !head.upgrade().is_some_and(|protocols| was_offered(offered, protocols)) {
                return Err(Cause::BadResponse(Violation::UnexpectedSwitch));
            }
            let asked = &self.tables.exchanges[x].head;
            // The key is ours: the client knows nothing of it.
            if asked.is_extended_connect() && !websocket::is_accepted(asked.fields(), head.fields()) {
                return Err(Cause::BadResponse(Violation::WebSocketAccept));
            }
        }
        if let Some(passed) = self.pass_head(x, now)? {
            self.step_responded(x);
            self.replace_content(x, passed.content.unwrap_or_default(), passed.transforms, now);
            return Ok(());
        }
        self.step_responded(x);
        if switches {
            self.tunnel_began(x, now)
        } else {
            self.response_began(x, now)
        }
        Ok(())
    }

    /// RFC 9110 §15.2: interim responses pass, and each shows that the backend is at work.
    fn pass_interim(&mut self, x: ExchangeId, now: Instant) -> Result<(), Cause> {
        let e = &mut self.tables.exchanges[x];
        e.interims += 1;
        if e.waits_since != Instant::NEVER {
            // The backend is at work: its time begins anew.
            e.waits_since = now;
        }
        if e.interims > MAX_INTERIMS {
            return Err(Cause::BadResponse(Violation::TooManyInterims));
        }
        if self.scratch.response.status() == http::StatusCode::CONTINUE {
            e.expectation_met();
            if planted!(24) {
                return Ok(());
            }
        }
        let client = e.client;
        match &mut self.tables.conns[client.conn].wire {
            Wire::H1(h1) => h1.send_interim(&mut self.tables.pages, &self.scratch.response),
            Wire::Tunnel(_) => Ok(()),
            Wire::Multiplexed(streams) => {
                streams.protocol.send_interim(client.stream, &self.scratch.response);
                Ok(())
            }
        }
    }

    /// Passes the head of a final response on, or that of a 101; but not if its content is replaced.
    fn pass_head(&mut self, x: ExchangeId, now: Instant) -> Result<Option<PassedResponse>, Cause> {
        let passed = self.pass_response(x, now);
        let head = &mut self.scratch.response;
        let Tables { conns, exchanges, pages, .. } = &mut self.tables;
        let e = &mut exchanges[x];
        let backend = e.backend.expect("a response comes from a backend");
        let (source, sink) = conns.pair_mut(backend.conn, e.client.conn).expect("both legs are there");
        e.status = head.status().as_u16();
        if e.head.is_extended_connect() {
            // Any success would tell the client that the tunnel is there.
            if head.status().is_success() {
                return Err(Cause::BadResponse(Violation::NotSwitched));
            }
            if head.status() == StatusCode::SWITCHING_PROTOCOLS {
                e.status = StatusCode::OK.as_u16();
            }
        }
        if matches!(e.status, 401 | 407) {
            e.binds |= crate::http::asks_for_connection_credentials(e.status, head.fields());
        }
        e.times.responded = if planted!(47) { e.times.sent } else { now };
        if passed.content.is_some() {
            return Ok(Some(passed));
        }
        e.trailers_pass[RESPONSE] = !head.lists_fields;
        match &mut source.wire {
            Wire::H1(h1) => {
                // No attempt follows a response: its head gets the page of the request's. Where pages are
                // scarce there might be no other.
                if e.request_sent
                    && let Some(page) = h1.take_head_page()
                {
                    match &mut sink.wire {
                        Wire::H1(client) => client.give_head_page(page, pages),
                        _ => pages.give_back(page),
                    }
                }
                e.response.ended = h1.message_ended();
            }
            Wire::Multiplexed(_) => e.response = MessagePipe::own(),
            Wire::Tunnel(_) => {}
        }
        let framing = if passed.transforms.is_empty() {
            head.framing()
        } else {
            transform_response(&mut e.response, head, passed.transforms, pages)?
        };
        let how = SendResponse {
            framing,
            persist: e.persist && self.drain.until.is_none(),
            date: &self.identity.date,
            extra: sticky_cookie(&self.pools, e),
            local: false,
        };
        send_head(sink, e.client.stream, head, how, pages)?;
        Ok(None)
    }

    /// Sends the head in `scratch.response` to the client, with content of our own. `from_backend`: the head
    /// is a backend's.
    pub(super) fn send_local_head(
        &mut self,
        x: ExchangeId,
        framing: Framing,
        from_backend: bool,
    ) -> Result<(), Cause> {
        let e = &self.tables.exchanges[x];
        let how = SendResponse {
            framing,
            persist: e.persist && self.drain.until.is_none(),
            date: &self.identity.date,
            extra: if from_backend { sticky_cookie(&self.pools, e) } else { b"" },
            local: true,
        };
        let conn = &mut self.tables.conns[e.client.conn];
        send_head(conn, e.client.stream, &self.scratch.response, how, &mut self.tables.pages)
    }

    /// The final head is there: no other attempt will be needed. What has come behind it is received next.
    fn response_began(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        e.phase = Phase::Responding;
        e.retained = false;
        if e.head.opens_websocket()
            && let Some(leg) = e.backend
            && let Wire::Multiplexed(streams) = &mut self.tables.conns[leg.conn].wire
        {
            // It is refused: nothing follows the request.
            streams.protocol.send_end(leg.stream, &[]);
            self.mark_ready(leg.conn);
        }
        let e = &mut self.tables.exchanges[x];
        let source = &mut self.tables.conns[e.client.conn].wire;
        if e.request_sent && (e.request.is_through(source) || (e.request.ended && e.request.is_direct())) {
            // What was retained of the request's body is needed no more.
            e.request.release(Some(source), &mut self.tables.pages);
            source.trim(&mut self.tables.pages);
            debug_assert!(e.trailers_pass[REQUEST] || e.request.trailers.is_empty());
        } else {
            self.push_request(x, now);
        }
    }

    /// A backend that had filled a page has said nothing more: transforms put out what they hold back.
    #[cold]
    pub(super) fn response_pauses(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        e.response.more_follows = false;
        if e.phase == Phase::Responding && e.response.is_transformed() {
            self.response_received(x, now);
        }
    }

    /// Decodes what has been received from the backend.
    pub(super) fn receive_response(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        let conn = &mut self.tables.conns[e.backend.expect("responding").conn];
        let read = match &mut conn.wire {
            Wire::H1(h1) => {
                let trailers = &mut e.response.trailers;
                h1.receive_body(&mut self.tables.pages, &self.pools.head_limits, trailers)
            }
            Wire::Tunnel(tunnel) => {
                e.response.payload_bytes += tunnel.receive() as u64;
                return self.response_received(x, now);
            }
            Wire::Multiplexed(_) => return,
        };
        match read {
            Ok(read) => {
                e.response.payload_bytes += read.payload as u64;
                e.response.ended = read.ended;
                let forgiven = read.ended && matches!(&conn.wire, Wire::H1(h1) if h1.has_forgiven());
                if !e.trailers_pass[RESPONSE] || planted!(49) {
                    e.response.trailers.clear();
                }
                if forgiven {
                    self.scratch.parser.forgiven = Some(Violation::ChunkExtension);
                    self.note_forgiven(x);
                }
                self.response_received(x, now);
            }
            Err(violation) => self.break_exchange(x, Cause::BadResponse(violation), now),
        }
    }

    /// Payload of the response, or its end, is there.
    pub(super) fn response_received(&mut self, x: ExchangeId, now: Instant) {
        let responding = self.tables.exchanges[x].phase == Phase::Responding;
        if self.push_response(x, now) && responding {
            return self.mark_dirty(x);
        }
        // The end of a body may be framing alone, with nothing to send.
        self.finish_if_done(x, now);
    }

    /// The backend closed its direction.
    pub(super) fn backend_ended(&mut self, b: ConnId, now: Instant) {
        let conn = &mut self.tables.conns[b];
        let Some(x) = conn.exchange else { return self.close(b) };
        let end = match &mut conn.wire {
            Wire::H1(h1) => h1.stream_ended(),
            _ => StreamEnd::Truncated,
        };
        let e = &mut self.tables.exchanges[x];
        match e.phase {
            Phase::Tunnel => self.tunnel_ended(x, now),
            Phase::Responding if (end == StreamEnd::Message || planted!(27)) && !e.response.ended => {
                e.response.ended = true;
                self.push_response(x, now);
                self.mark_dirty(x);
                self.finish_if_done(x, now);
            }
            _ => self.backend_lost(x, Cause::BackendClosed, now),
        }
    }

    /// Whether a byte of a final response's head has been sent to the client, or will be.
    pub(super) fn has_sent_head(&self, x: ExchangeId) -> bool {
        let e = &self.tables.exchanges[x];
        match &self.tables.conns[e.client.conn].wire {
            Wire::H1(h1) => h1.has_sent_of_head(),
            Wire::Tunnel(_) => true,
            Wire::Multiplexed(_) => matches!(e.phase, Phase::Responding | Phase::Tunnel),
        }
    }
}

/// The field that makes a client stick to its backend, where it doesn't do so already.
#[inline]
fn sticky_cookie<'p>(pools: &'p PoolTable, e: &Exchange) -> &'p [u8] {
    let pool = pools.get(e.pool.expect("routed"));
    match (pool.balancer.sticky(), e.choice) {
        (Some(sticky), Some(choice)) if e.sticky_choice != Some(choice) || planted!(88) => {
            sticky.set_cookie(choice)
        }
        _ => &[],
    }
}

/// Puts what the middlewares have put into a response's way into its pipe: its length is not known any more.
#[cold]
fn transform_response(
    pipe: &mut MessagePipe,
    head: &mut ResponseHead,
    transforms: Vec<Box<dyn Transform>>,
    pages: &mut Pages,
) -> Result<Framing, Cause> {
    // A transform may put something in the place of no bytes, where there may be any.
    let has_content = head.framing() != Framing::None;
    head.content_length = None;
    if !has_content {
        return Ok(head.framing());
    }
    let framing = if head.framing() == Framing::Chunked { Framing::Chunked } else { Framing::Close };
    for transform in transforms {
        pipe.add_transform(transform, pages).map_err(|_| Cause::NoPages)?;
    }
    Ok(framing)
}

/// Sends the head of a response to a client.
fn send_head(
    conn: &mut Conn,
    stream: u32,
    head: &ResponseHead,
    mut how: SendResponse<'_>,
    pages: &mut Pages,
) -> Result<(), Cause> {
    match &mut conn.wire {
        Wire::H1(h1) => {
            // Nobody is left who could ask again.
            how.persist &= !(conn.recv_ended && h1.buffer().unparsed_len() == 0);
            h1.send_response(pages, head, &how)
        }
        Wire::Tunnel(_) => Err(Cause::BadResponse(Violation::UnexpectedSwitch)),
        Wire::Multiplexed(streams) => {
            super::streams::send_response(streams, stream, head, how.framing, how.date, how.extra);
            Ok(())
        }
    }
}
