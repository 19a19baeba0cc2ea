//! Connections that carry many streams: each stream is a leg of an exchange of its own, and what ends one
//! ends no other.

use std::time::Duration;

use super::exchange::{Leg, Phase, REQUEST, RESPONSE};
use super::{Proxy, Tables};
use crate::cause::Cause;
use crate::conn::Role;
use crate::h2::Reason;
use crate::h2::keepalive::Verdict;
use crate::http::forward::{RequestForward, ResponseForward};
use crate::http::{Framing, RequestHead, ResponseHead, Violation, websocket};
use crate::id::{ConnId, ExchangeId};
use crate::observe::Observer;
use crate::planted::planted;
use crate::time::Instant;
use crate::wire::{StreamEvent, Streams, Wire};

/// How often a stream that has waited may send when there is room again: one frame each time.
const TURNS: usize = 4;

impl<O: Observer> Proxy<O> {
    /// Bytes came on a connection of many streams.
    pub(super) fn streams_input(&mut self, c: ConnId, now: Instant) {
        if let Some(streams) = self.tables.conns.get_mut(c).and_then(|conn| conn.wire.streams_mut()) {
            streams.keepalive.heard(now);
        }
        while let Some(conn) = self.tables.conns.get_mut(c)
            && let Wire::Multiplexed(streams) = &mut conn.wire
            && let Some(event) = streams.protocol.poll_event(&mut self.scratch.received, now)
        {
            let from_client = matches!(conn.role, Role::Client(_));
            self.stream_event(c, event, from_client, now);
        }
        let streams = self.tables.conns.get_mut(c).and_then(|conn| conn.wire.streams_mut());
        if streams.is_some_and(Streams::has_announced) {
            self.backend_announced(c, now);
        }
        self.let_go_for_credit(c);
        self.recount_held(c, now);
        self.leave_buffers(c);
        self.mark_ready(c);
    }

    /// What a connection holds beyond the pages counts as if it lay in them. Where that is too much the
    /// stream that holds most is given up.
    pub(super) fn recount_held(&mut self, c: ConnId, now: Instant) {
        let Some(conn) = self.tables.conns.get_mut(c) else { return };
        let Some(streams) = conn.wire.streams_mut() else { return };
        let held = streams.protocol.held_bytes();
        let before = std::mem::replace(&mut streams.charged, held);
        if before == held || self.tables.pages.recount_outside(before, held) {
            return;
        }
        let Some(stream) = streams.protocol.holds_most() else { return };
        match streams.exchange(stream) {
            Some(x) => self.abort(x, Cause::NoPages, now),
            None => {
                streams.protocol.reset(stream, Reason::ENHANCE_YOUR_CALM);
                self.recount_held(c, now);
            }
        }
    }

    /// A client that has been silent for long is asked to show that it is there, and given up if it does not,
    /// or if it does not acknowledge our SETTINGS (RFC 9113 §6.5.3): it may not know what it is held to.
    /// When it has to be looked at next; it may be gone.
    pub(super) fn keep_alive(&mut self, c: ConnId, now: Instant) -> Instant {
        let conn = &mut self.tables.conns[c];
        let (Role::Client(_), Wire::Multiplexed(streams)) = (&conn.role, &mut conn.wire) else {
            return Instant::NEVER;
        };
        if streams.protocol.is_broken() {
            return Instant::NEVER;
        }
        // It is asked even if it carries nothing.
        match streams.keepalive.look(true, streams.protocol.is_settled(), now) {
            Verdict::Wait(until) => until,
            Verdict::Ping(until) => {
                streams.protocol.ping();
                self.mark_ready(c);
                until
            }
            Verdict::Lost => {
                for x in self.exchanges_of(c) {
                    self.abort(x, Cause::ClientStalled, now);
                }
                self.close(c);
                Instant::NEVER
            }
            Verdict::Unsettled => {
                streams.protocol.give_up(Reason::SETTINGS_TIMEOUT);
                self.streams_broken(c, Cause::ClientStalled, now);
                self.mark_ready(c);
                Instant::NEVER
            }
        }
    }

    /// A client's connection has been idle for its time: it is told before it ends. False if it has been.
    pub(super) fn leave_streams(&mut self, c: ConnId, now: Instant) -> bool {
        let Some(streams) = self.tables.conns[c].wire.streams_mut() else { return false };
        // Who has not read what came before will not read that either.
        if streams.protocol.is_leaving() || streams.flushing {
            return false;
        }
        streams.protocol.drain();
        self.set_deadline(c, now + super::accept::LINGER);
        self.mark_ready(c);
        true
    }

    /// A connection that has nothing to do keeps no buffers.
    fn leave_buffers(&mut self, c: ConnId) {
        if let Some(streams) = self.tables.conns.get_mut(c).and_then(|conn| conn.wire.streams_mut()) {
            streams.protocol.rest(&mut self.scratch.received);
        }
    }

    fn stream_event(&mut self, c: ConnId, event: StreamEvent, from_client: bool, now: Instant) {
        let exchange = |stream| {
            self.tables.conns[c].wire.streams().and_then(|streams: &Streams| streams.exchange(stream))
        };
        match event {
            StreamEvent::Request { stream, ended } => {
                self.stream_request(Leg { conn: c, stream }, None, ended, now);
            }
            StreamEvent::Rejected { stream, violation, .. } if !from_client => {
                if let Some(x) = exchange(stream) {
                    self.tables.exchanges[x].response_seen = true;
                    self.break_exchange(x, Cause::BadResponse(violation), now);
                }
            }
            StreamEvent::Rejected { stream, violation, ended } => {
                self.stream_request(Leg { conn: c, stream }, Some(violation), ended, now);
            }
            StreamEvent::Response { stream, ended } => {
                if let Some(x) = exchange(stream) {
                    self.stream_response(x, ended, now);
                }
            }
            StreamEvent::Data { stream } => {
                let x = exchange(stream);
                self.stream_data(Leg { conn: c, stream }, x, from_client, now);
            }
            StreamEvent::End { stream } => {
                let trailers = std::mem::take(&mut self.scratch.received.trailers);
                if let Some(x) = exchange(stream) {
                    self.stream_ended(x, trailers, from_client, now);
                }
            }
            StreamEvent::Reset { stream, reason, unprocessed } => match exchange(stream) {
                Some(_) if from_client && planted!(175) => self.streams_lost(c, true, now),
                Some(x) if from_client => self.abort(x, Cause::ClientClosed, now),
                Some(x) => self.backend_reset_stream(x, reason, unprocessed, now),
                None => {}
            },
            StreamEvent::Writable { stream: 0 } if planted!(174) => {}
            StreamEvent::Writable { stream: 0 } => self.streams_sent(c, now),
            StreamEvent::Writable { stream } => match exchange(stream) {
                Some(x) if from_client => drop(self.push_response_to_stream(x, now)),
                Some(x) => self.resume_request(x, now),
                None => {}
            },
            StreamEvent::GoingAway if from_client => {}
            StreamEvent::GoingAway => self.stream_gone(c, now),
            StreamEvent::Broken(reason) if !from_client => self.backend_streams_broken(c, reason, now),
            StreamEvent::Broken(_) => self.streams_broken(c, Cause::ClientClosed, now),
        }
    }

    /// A request on a new stream of a client, and the rule that it breaks.
    fn stream_request(&mut self, leg: Leg, broken: Option<Violation>, ended: bool, now: Instant) {
        std::mem::swap(&mut *self.scratch.request, &mut self.scratch.received.request);
        self.scratch.request.on_stream(ended);
        let x = self.begin_exchange(leg, now);
        let e = &mut self.tables.exchanges[x];
        let mut broken = broken;
        if e.head.is_extended_connect() {
            e.request.wait(ended);
            let random =
                u128::from(self.identity.rng.next_u64()) << 64 | u128::from(self.identity.rng.next_u64());
            let key = websocket::key(random.to_be_bytes());
            if e.head.set_field(websocket::KEY_FIELD, &key).is_err() {
                broken = Some(Violation::HeadTooLarge);
            }
        } else {
            e.request.ended = ended;
        }
        if !e.persist
            && let Some(streams) = self.tables.conns[leg.conn].wire.streams_mut()
        {
            // As many requests as a connection may have.
            streams.protocol.drain();
        }
        match broken {
            None => self.take_request(x, now),
            Some(violation) => {
                self.tables.conns[leg.conn].deadline = Instant::NEVER;
                self.record_rejected(x);
                self.fail_exchange(x, Cause::BadRequest(violation));
            }
        }
    }

    /// The head of a response on a stream of a backend.
    fn stream_response(&mut self, x: ExchangeId, ended: bool, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        if e.phase != Phase::Sending {
            return self.break_exchange(x, Cause::BadResponse(Violation::UnexpectedSwitch), now);
        }
        e.response_seen = true;
        std::mem::swap(&mut self.scratch.response, &mut self.scratch.received.response);
        self.scratch.response.on_stream(ended);
        if self.scratch.response.status().is_success() && e.head.opens_websocket() {
            let accept = websocket::accept(e.head.fields()).filter(|_| !planted!(191)).unwrap_or_default();
            if self.scratch.response.opens_websocket(&accept).is_err() {
                return self.break_exchange(x, Cause::BadResponse(Violation::HeadTooLarge), now);
            }
        }
        let e = &mut self.tables.exchanges[x];
        // It may be that nobody wants to see the rest.
        e.response.ended = ended;
        match self.take_response(x, now) {
            // Its content was replaced, and the stream is given up.
            Ok(()) if self.tables.exchanges.get(x).is_none_or(|e| e.phase == Phase::LocalReply) => {}
            Ok(()) if ended => self.stream_ended(x, Vec::new(), false, now),
            Ok(()) => {
                // The head of a final response goes out before any of its content has come.
                let phase = self.tables.exchanges.get(x).map(|e| e.phase);
                if matches!(phase, Some(Phase::Responding | Phase::Tunnel)) {
                    self.push_response(x, now);
                }
                self.mark_dirty(x);
            }
            Err(cause) => self.break_exchange(x, cause, now),
        }
    }

    /// Data of a stream: it goes into a page of its exchange's own.
    fn stream_data(&mut self, leg: Leg, x: Option<ExchangeId>, from_client: bool, now: Instant) {
        let Tables { conns, exchanges, pages, .. } = &mut self.tables;
        let Some(streams) = conns[leg.conn].wire.streams() else { return };
        let data = streams.protocol.data();
        let Some((x, e)) = x.and_then(|x| exchanges.get_mut(x).map(|e| (x, e))) else {
            let len = data.len();
            return self.release_stream(leg.conn, leg.stream, len);
        };
        let (pipe, window, wanted) = if from_client {
            let wanted = match e.phase {
                Phase::LocalReply => false,
                // A tunnel that is refused.
                Phase::Responding => !e.request.is_waiting(),
                Phase::Tunnel => e.backend.is_some(),
                _ => true,
            };
            (&mut e.request, &mut e.client_window, wanted)
        } else {
            let wanted = matches!(e.phase, Phase::Responding | Phase::Tunnel);
            (&mut e.response, &mut e.backend_window, wanted)
        };
        window.bytes += data.len() as u64;
        if !wanted {
            let len = data.len();
            return self.release_stream(leg.conn, leg.stream, len);
        }
        if pipe.put(data, pages).is_err() {
            return self.break_exchange(x, Cause::NoPages, now);
        }
        if from_client {
            e.expectation_met();
            let content = e.phase != Phase::Tunnel && !e.request.is_waiting();
            if content && e.body_too_large() {
                return self.break_exchange(x, Cause::BadRequest(Violation::ContentTooLarge), now);
            }
            self.push_request(x, now);
            self.mark_dirty(x);
        } else {
            self.response_received(x, now);
        }
    }

    /// The message on a stream is complete.
    fn stream_ended(&mut self, x: ExchangeId, trailers: Vec<u8>, from_client: bool, now: Instant) {
        let Some(e) = self.tables.exchanges.get_mut(x) else { return };
        let pipe = if from_client { &mut e.request } else { &mut e.response };
        pipe.source_ended();
        pipe.trailers = trailers;
        if e.phase == Phase::Tunnel {
            self.tunnel_ended(x, now);
        } else if from_client {
            if !e.trailers_pass[REQUEST] {
                e.request.trailers.clear();
            }
            if e.phase != Phase::LocalReply {
                self.push_request(x, now);
            }
            self.mark_dirty(x);
        } else if e.phase == Phase::Responding {
            if !e.trailers_pass[RESPONSE] {
                e.response.trailers.clear();
            }
            self.response_received(x, now);
        } else {
            self.break_exchange(x, Cause::ResponseTruncated, now);
        }
    }

    /// Data of a stream is needed no more: more may come, or be there already.
    pub(super) fn release_stream(&mut self, c: ConnId, stream: u32, bytes: usize) {
        if let Some(streams) = self.tables.conns.get_mut(c).and_then(|conn| conn.wire.streams_mut()) {
            streams.protocol.release(stream, bytes);
            if streams.protocol.has_events() {
                self.signals.resumed.push(c);
            }
        }
        self.mark_ready(c);
    }

    /// A client broke the protocol, or is given up. It is told before the connection ends.
    fn streams_broken(&mut self, c: ConnId, cause: Cause, now: Instant) {
        for x in self.exchanges_of(c) {
            self.abort(x, cause, now);
        }
        self.set_deadline(c, now + super::accept::LINGER);
        self.end_streams(c, now);
    }

    /// Ends a connection that carries nothing any more, once all has been sent, if it is broken or has been
    /// drained.
    fn end_streams(&mut self, c: ConnId, now: Instant) {
        let Some(conn) = self.tables.conns.get(c).filter(|conn| !conn.is_busy()) else { return };
        let Some(streams) = conn.wire.streams() else { return };
        let over = match &conn.role {
            Role::Backend(role) => !self.pools.backends[role.backend as usize].shared_conns.contains(&c),
            Role::Client(_) => streams.protocol.is_broken() || streams.protocol.is_drained(),
            Role::Probe(_) => false,
        };
        if over && !streams.protocol.has_output() {
            match conn.role {
                Role::Client(_) => self.linger(c, now),
                _ => self.close(c),
            }
        }
    }

    /// The connection is gone, and every leg that it carried. `broken`: by an error, else the peer closed its
    /// direction.
    pub(super) fn streams_lost(&mut self, c: ConnId, broken: bool, now: Instant) {
        let Some(conn) = self.tables.conns.get(c) else { return };
        if matches!(conn.role, Role::Backend(_)) {
            let cause = if broken { Cause::BackendReset } else { Cause::BackendClosed };
            return self.backend_streams_lost(c, cause, now);
        }
        for x in self.exchanges_of(c) {
            self.abort(x, Cause::ClientClosed, now);
        }
        self.close(c);
    }

    pub(super) fn exchanges_of(&self, c: ConnId) -> Vec<ExchangeId> {
        let streams = self.tables.conns.get(c).and_then(|conn| conn.wire.streams());
        streams.map_or_else(Vec::new, |streams| streams.exchanges.iter().map(|(_, x)| *x).collect())
    }

    /// Gives a stream as much of the request as it takes; whether the connection has anything to send.
    pub(super) fn push_request_to_stream(&mut self, x: ExchangeId, now: Instant) -> bool {
        let e = &mut self.tables.exchanges[x];
        let Some(leg) = e.backend else { return false };
        if e.request_sent || e.phase == Phase::Connecting {
            return false;
        }
        let Some((sink, source)) = self.tables.conns.pair_mut(leg.conn, e.client.conn) else { return false };
        let Wire::Multiplexed(streams) = &mut sink.wire else { return false };
        e.request_begun = true;
        if e.phase != Phase::Tunnel && e.head.opens_websocket() {
            // All that is to be said before the backend answers has been.
            e.request_sent = true;
            e.sent_at(now);
            return streams.protocol.has_output();
        }
        let ready = e.request.ready(Some(&source.wire), &self.tables.pages);
        let stream = match streams.exchanges.last() {
            Some((other, _)) if planted!(190) && e.phase == Phase::Tunnel => *other,
            _ => leg.stream,
        };
        let taken = streams.send_data(stream, ready, e.request.is_last());
        let all = taken == ready.len();
        e.request.advance(taken);
        e.backend_window.bytes += taken as u64;
        if all && e.request.is_last() {
            if !(planted!(189) && e.phase == Phase::Tunnel) {
                streams.protocol.send_end(leg.stream, &e.request.trailers);
            }
            e.request_sent = true;
            e.sent_at(now);
            // What is waited for is another thing from now on.
            if !planted!(184) {
                self.signals.mark_dirty(x, e);
            }
        } else if taken > 0 && e.phase == Phase::Tunnel {
            // Some of it may have waited for credit: it moves now.
            self.signals.mark_dirty(x, e);
        } else if e.awaits_continue && e.times.sent == Instant::NEVER && !planted!(186) {
            // The backend has all that it gets before it says something.
            e.sent_at(now);
        }
        streams.protocol.has_output()
    }

    /// A backend takes more of a request: what has waited goes on, and a tunnel may end by that.
    fn resume_request(&mut self, x: ExchangeId, now: Instant) {
        self.push_request(x, now);
        if self.tables.exchanges.get(x).is_some_and(|e| e.phase == Phase::Tunnel && e.request_sent) {
            self.finish_now(x, now);
        }
    }

    /// Gives a stream as much of the response as it takes; whether the exchange goes on and its connection
    /// has anything to send.
    pub(super) fn push_response_to_stream(&mut self, x: ExchangeId, now: Instant) -> bool {
        let e = &mut self.tables.exchanges[x];
        let leg = e.client;
        let tunnel = e.phase == Phase::Tunnel && !e.tunnel_end_sent;
        if !tunnel && !matches!(e.phase, Phase::Responding | Phase::LocalReply) {
            return false;
        }
        let Tables { conns, exchanges, pages, .. } = &mut self.tables;
        let e = &mut exchanges[x];
        let (source, sink) = match e.backend {
            Some(backend) => {
                let Some((source, sink)) = conns.pair_mut(backend.conn, leg.conn) else { return false };
                (Some(&source.wire), sink)
            }
            None => (None, &mut conns[leg.conn]),
        };
        let Wire::Multiplexed(streams) = &mut sink.wire else { return false };
        let (ready, last) = (e.response.ready(source, pages), e.response.is_last());
        let len = ready.len();
        let stream = match streams.exchanges.last() {
            Some((other, _)) if planted!(171) => *other,
            _ => leg.stream,
        };
        let taken = streams.send_data(stream, ready, last);
        e.response.advance(taken);
        e.bytes_out += taken as u64;
        e.client_window.bytes += taken as u64;
        e.response_begun |= taken > 0;
        if taken == len && last {
            let trailers = if planted!(172) { &[] } else { &e.response.trailers[..] };
            streams.protocol.send_end(leg.stream, trailers);
            self.mark_ready(leg.conn);
            // A backend's connection can be used again only if nothing lies in it.
            self.release_response(x);
            if tunnel {
                self.tables.exchanges[x].tunnel_end_sent = true;
                return !self.tunnel_sent(x, now);
            }
            self.finish(x, now);
            return false;
        }
        self.mark_ready(leg.conn);
        self.release_response(x);
        let e = &mut self.tables.exchanges[x];
        if let Some(backend) = e.backend
            && !e.response.ended
        {
            // There is room for more of the response. While there is nothing to say no page is held.
            let source = &mut self.tables.conns[backend.conn];
            source.wire.trim(&mut self.tables.pages);
            self.signals.mark_readable(backend.conn, source);
        }
        if taken > 0 && e.response.is_transformed() {
            // There is room for more of the output again.
            if let Err(reply) = self.transform_response_body(x) {
                self.refuse_body(x, *reply, now);
                return false;
            }
            return self.push_response_to_stream(x, now);
        }
        // A tunnel waits for bytes, not for credit.
        if taken > 0 || !tunnel {
            self.mark_dirty(x);
        }
        true
    }

    /// Bytes of a connection of many streams have been sent: those that have waited fill the room.
    pub(super) fn streams_sent(&mut self, c: ConnId, now: Instant) {
        let Some(conn) = self.tables.conns.get(c) else { return };
        let from_client = matches!(conn.role, Role::Client(_));
        // A stream that waits again has its turn again, for a while.
        let turns = conn.wire.streams().map_or(0, |streams| TURNS * streams.schedule.len());
        for _ in 0..turns {
            let Some(streams) = self.tables.conns.get_mut(c).and_then(|conn| conn.wire.streams_mut()) else {
                break;
            };
            let Some(stream) = streams.next_waiting() else { break };
            match streams.exchange(stream) {
                Some(x) if from_client => drop(self.push_response(x, now)),
                Some(x) => self.resume_request(x, now),
                None => {}
            }
        }
        self.flushed(c, now);
        let Tables { conns, exchanges, .. } = &mut self.tables;
        if let Some(streams) = conns.get(c).and_then(|conn| conn.wire.streams())
            && !streams.protocol.has_output()
        {
            // Nobody waits for its peer any more.
            for (_, x) in &streams.exchanges {
                if let Some(e) = exchanges.get_mut(*x)
                    && matches!(e.phase, Phase::Responding | Phase::LocalReply)
                {
                    self.signals.mark_dirty(*x, e);
                }
            }
        }
        self.leave_buffers(c);
        self.mark_ready(c);
        self.end_streams(c, now);
    }

    /// Bytes have gone of what streams had to say that are through.
    fn flushed(&mut self, c: ConnId, now: Instant) {
        let Some(conn) = self.tables.conns.get(c).filter(|conn| !conn.is_busy()) else { return };
        let over = |s: &Streams| s.flushing && !s.protocol.has_output();
        if conn.wire.streams().is_some_and(over) {
            self.await_next_stream(c, now);
        }
    }

    /// A stream of this client is through: an idle connection may have to go.
    pub(super) fn stream_finished(&mut self, c: ConnId, now: Instant) {
        self.recount_held(c, now);
        let conn = &self.tables.conns[c];
        if !conn.is_busy() {
            self.await_next_stream(c, now);
        }
        self.mark_ready(c);
        self.end_streams(c, now);
    }

    /// No stream is left on a connection: it rests, once all that they had to say has been sent. For that
    /// it has the time that an exchange would have: what is left at the least rate, and a stall.
    fn await_next_stream(&mut self, c: ConnId, now: Instant) {
        let draining = self.drain.until.is_some();
        let config = &self.pools.config;
        let Some(streams) = self.tables.conns[c].wire.streams_mut() else { return };
        streams.flushing = streams.protocol.has_output();
        let wait = if streams.flushing {
            let unsent = streams.protocol.pending_bytes() as u64;
            let secs = unsent / u64::from(config.limits.min_download_rate.max(1));
            config.timeouts.stall.saturating_add(Duration::from_secs(secs))
        } else if draining {
            super::accept::LINGER
        } else {
            config.timeouts.idle
        };
        self.set_deadline(c, now + wait);
    }

    /// No new streams on the connections of clients, as soon as they know.
    pub(super) fn drain_streams(&mut self, now: Instant) {
        for c in self.conns_that(|conn| conn.wire.streams().is_some()) {
            let conn = &mut self.tables.conns[c];
            let idle = !conn.is_busy();
            let Role::Client(_) = conn.role else { continue };
            if planted!(173) && !idle {
                self.streams_lost(c, true, now);
                continue;
            }
            if let Some(streams) = conn.wire.streams_mut() {
                streams.protocol.drain();
            }
            if planted!(195) {
                for x in self.exchanges_of(c) {
                    if self.tables.exchanges[x].phase == Phase::Tunnel {
                        self.abort(x, Cause::Drained, now);
                    }
                }
            }
            if idle {
                self.set_deadline(c, now + super::accept::LINGER);
            }
            self.mark_ready(c);
        }
    }
}

/// Sends the head of a request on a stream.
pub(super) fn send_request(
    streams: &mut Streams,
    stream: u32,
    head: &RequestHead,
    forward: &RequestForward<'_>,
) -> Result<(), Cause> {
    // The stream has an end of its own: a length is but a statement, and of a tunnel there is none.
    let framing = match forward.own_body.unwrap_or(head.framing()) {
        Framing::Length(n) if !head.opens_websocket() => Framing::Length(n),
        _ => Framing::None,
    };
    let forward = RequestForward { own_body: Some(framing), ..*forward };
    if streams.protocol.send_request(stream, head, &forward) { Ok(()) } else { Err(Cause::BackendReset) }
}

/// Sends the head of a final response on a stream.
pub(super) fn send_response(
    streams: &mut Streams,
    stream: u32,
    head: &ResponseHead,
    framing: Framing,
    date: &[u8; 29],
    extra: &[u8],
) {
    let framing = match framing {
        Framing::Chunked | Framing::Close => Framing::None,
        known => known,
    };
    let forward =
        ResponseForward { date, client_version: http::Version::HTTP_11, framing, keep_alive: true, extra };
    streams.protocol.send_response(stream, head, &forward);
}
