//! Payload on its way: what lies ready is framed and offered, what has been sent is let go of, and an
//! exchange whose last byte has been sent ends.

use super::exchange::{Exchange, Leg, Phase};
use super::{Proxy, Tables};
use crate::conn::Conn;
use crate::event::Effect;
use crate::h1::conn::Conn as H1;
use crate::h1::conn::MAX_JOINED_BYTES;
use crate::id::{ConnId, ExchangeId};
use crate::observe::Observer;
use crate::page::Pages;
use crate::planted::planted;
use crate::time::Instant;
use crate::wire::{STREAM_CREDIT, Streams, Wire};

/// Whether a client may wait for more credit: on a stream, or on its connection alone if that is 0.
fn waits(streams: &Streams, stream: u32) -> bool {
    let little = STREAM_CREDIT as u32 / 2;
    streams.protocol.credit(0) < 2 * little || stream > 0 && streams.protocol.credit(stream) < little
}

impl<O: Observer> Proxy<O> {
    /// Frames what lies ready for the backend and lets the connections look.
    pub(super) fn push_request(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        let c = e.client.conn;
        if e.request.is_transformed()
            && let Err(reply) = self.transform_request_body(x)
        {
            return self.refuse_body(x, *reply, now);
        }
        let e = &mut self.tables.exchanges[x];
        let source = &self.tables.conns[c].wire;
        let (ready, last, trailers) =
            (e.request.ready_len(Some(source)), e.request.is_last(), e.request.trailers.len());
        // What has been sent stays for a retry only as long as it is not in the way of what comes.
        if e.retained
            && !e.request.ended
            && (!e.request.has_room(source) || source.streams().is_some_and(|s| waits(s, e.client.stream)))
        {
            e.retained = false;
        }
        if let Some(leg) = e.backend.filter(|_| e.phase != Phase::Connecting) {
            let output = match &mut self.tables.conns[leg.conn].wire {
                Wire::H1(h1) => {
                    h1.frame(ready, last, trailers);
                    let output = h1.has_output(ready);
                    if !output {
                        // Its end may come behind all of it.
                        note_request_sent(e, h1, ready, &mut self.tables.pages, now);
                    }
                    output
                }
                Wire::Tunnel(_) => ready > 0,
                Wire::Multiplexed(_) => self.push_request_to_stream(x, now),
            };
            if output {
                self.mark_ready(leg.conn);
            }
        }
        self.release_sent_request(x);
        let e = &self.tables.exchanges[x];
        if !e.request.ended {
            self.mark_readable(c);
        }
    }

    /// What has been sent of requests on a connection stays for retries only as long as its client may send
    /// more: else each of them could wait for what the others keep.
    pub(super) fn let_go_for_credit(&mut self, c: ConnId) {
        let Some(streams) = self.tables.conns.get(c).and_then(|conn| conn.wire.streams()) else { return };
        if !waits(streams, 0) {
            return;
        }
        let all: Vec<ExchangeId> = streams.exchanges.iter().map(|(_, x)| *x).collect();
        for x in all {
            let e = &mut self.tables.exchanges[x];
            if e.client.conn == c && e.request_begun && !e.request.ended && e.retained {
                e.retained = false;
                self.release_sent_request(x);
            }
        }
    }

    /// What of the request has been sent is let go of, unless it stays for a retry.
    fn release_sent_request(&mut self, x: ExchangeId) {
        let e = &mut self.tables.exchanges[x];
        let source = &mut self.tables.conns[e.client.conn].wire;
        if !e.retained || e.request.is_transformed() {
            let released = e.request.release(Some(source), &mut self.tables.pages);
            if released > 0 && source.streams().is_some() {
                let Leg { conn, stream } = e.client;
                return self.release_stream(conn, stream, released);
            }
        }
        // While there is nothing to say no page is held: long polls and quiet tunnels must not use up all.
        source.trim(&mut self.tables.pages);
    }

    /// Frames what lies ready for the client and lets the connections look. Whether there is anything to
    /// send.
    pub(super) fn push_response(&mut self, x: ExchangeId, now: Instant) -> bool {
        let e = &mut self.tables.exchanges[x];
        let (client, backend) = (e.client, e.backend);
        if e.response.is_transformed() {
            if let Err(reply) = self.transform_response_body(x) {
                self.refuse_body(x, *reply, now);
                return false;
            }
            self.release_response(x);
        }
        let Tables { conns, exchanges, pages, .. } = &mut self.tables;
        let e = &mut exchanges[x];
        let (mut source, sink) = match backend {
            Some(leg) => {
                let both = conns.pair_mut(leg.conn, client.conn).expect("both legs are there");
                (Some(both.0), both.1)
            }
            None => (None, &mut conns[client.conn]),
        };
        if let Wire::Multiplexed(_) = sink.wire {
            return self.push_response_to_stream(x, now);
        }
        if let (Some(source), Phase::Responding, true) = (&mut source, e.phase, e.response.ended) {
            join_response(e, source, sink, &mut self.scratch.line, pages);
        }
        let (ready, last, trailers) = (
            e.response.ready_len(source.as_deref().map(|conn| &conn.wire)),
            e.response.is_last(),
            e.response.trailers.len(),
        );
        let output = match &mut sink.wire {
            Wire::H1(h1) => {
                h1.frame(ready, last, trailers);
                h1.has_output(ready)
            }
            wire => wire.has_output(ready),
        };
        if let (Some(leg), Some(source)) = (backend, source) {
            source.wire.trim(pages);
            if !e.response.ended {
                self.signals.mark_readable(leg.conn, source);
            }
        }
        if output && !planted!(28) {
            self.signals.mark_ready(client.conn, sink);
        }
        output
    }

    /// What of the response has been sent is let go of.
    pub(super) fn release_response(&mut self, x: ExchangeId) {
        let e = &mut self.tables.exchanges[x];
        let Some(leg) = e.backend else { return };
        let source = &mut self.tables.conns[leg.conn].wire;
        let released = e.response.release(Some(source), &mut self.tables.pages);
        if released > 0 && source.streams().is_some() {
            self.release_stream(leg.conn, leg.stream, released);
        }
    }

    /// `n` bytes have been sent to a client that carries one exchange at a time.
    pub(super) fn client_sent(&mut self, x: ExchangeId, c: ConnId, n: usize, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        let wire = &mut self.tables.conns[c].wire;
        let payload = wire.sent(n);
        e.client_window.bytes += n as u64;
        e.response.advance(payload);
        e.bytes_out += payload as u64;
        e.response_begun |= matches!(e.phase, Phase::Responding | Phase::Tunnel | Phase::LocalReply);
        match wire {
            Wire::H1(h1) => h1.drop_sent_heads(&mut self.tables.pages),
            Wire::Tunnel(tunnel) => tunnel.drop_sent_heads(&mut self.tables.pages),
            Wire::Multiplexed(_) => {}
        }
        if payload > 0 {
            self.release_response(x);
        }
        if self.finish_now(x, now) {
            return;
        }
        if self.tables.exchanges[x].phase != Phase::LocalReply
            || self.tables.exchanges[x].response.is_transformed()
        {
            self.push_response(x, now);
        }
        // The rest of a transformed one may be nothing.
        self.finish_if_done(x, now);
    }

    /// `n` bytes have been sent to a backend that carries one exchange at a time.
    pub(super) fn backend_sent(&mut self, x: ExchangeId, b: ConnId, n: usize, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        let Some((conn, source)) = self.tables.conns.pair_mut(b, e.client.conn) else { return };
        let payload = conn.wire.sent(n);
        e.backend_window.bytes += n as u64;
        e.request_begun = true;
        e.request.advance(payload);
        self.signals.mark_dirty(x, e);
        if e.request.is_through(&source.wire) {
            if let Wire::H1(h1) = &mut conn.wire {
                return note_request_sent(e, h1, 0, &mut self.tables.pages, now);
            }
        } else {
            self.push_request(x, now);
        }
        self.request_sent(x, b, now);
    }

    /// Notes when the whole request has been sent.
    fn request_sent(&mut self, x: ExchangeId, b: ConnId, now: Instant) {
        let Some(e) = self.tables.exchanges.get_mut(x) else { return };
        if e.backend.is_none_or(|leg| leg.conn != b) {
            return;
        }
        let source = &self.tables.conns[e.client.conn].wire;
        let (ready, last) = (e.request.ready_len(Some(source)), e.request.is_last());
        let conn = &mut self.tables.conns[b];
        match &mut conn.wire {
            Wire::H1(h1) => note_request_sent(e, h1, ready, &mut self.tables.pages, now),
            Wire::Tunnel(tunnel) => {
                if last && ready == 0 {
                    if !std::mem::replace(&mut tunnel.shut, true) {
                        self.signals.effects.push_back(Effect::Shutdown(b));
                    }
                    self.finish_if_done(x, now);
                }
            }
            Wire::Multiplexed(_) => {}
        }
    }

    /// Ends the exchange if the whole response has been sent.
    pub(super) fn finish_if_done(&mut self, x: ExchangeId, now: Instant) {
        if !self.finish_now(x, now) {
            self.mark_dirty(x);
        }
    }

    /// Whether the exchange is over, by this or before.
    #[inline]
    pub(super) fn finish_now(&mut self, x: ExchangeId, now: Instant) -> bool {
        let Some(e) = self.tables.exchanges.get(x) else { return true };
        match e.phase {
            Phase::Responding | Phase::LocalReply => {
                let source = e.backend.map(|leg| &self.tables.conns[leg.conn].wire);
                let (ready, last) = (e.response.ready_len(source), e.response.is_last());
                let done = self.tables.conns[e.client.conn].wire.is_message_sent(ready, last);
                if done {
                    self.finish(x, now);
                }
                done
            }
            Phase::Tunnel => self.tunnel_sent(x, now),
            _ => false,
        }
    }
}

/// A short and complete response joins its head, by way of `memory`: pages are lent one at a time.
#[inline]
fn join_response(
    e: &mut Exchange,
    source: &mut Conn,
    sink: &mut Conn,
    memory: &mut Vec<u8>,
    pages: &mut Pages,
) {
    let len = source.wire.payload_len();
    if !e.response.is_direct() || len == 0 || len > MAX_JOINED_BYTES {
        return;
    }
    if let Wire::H1(sink) = &mut sink.wire {
        memory.clear();
        memory.extend_from_slice(source.wire.payload(pages));
        if sink.join(memory, pages) {
            e.bytes_out += if planted!(45) { 0 } else { len as u64 };
            source.wire.release(len);
        }
    }
}

/// Notes when the whole request has been sent. `ready`: unsent payload at its source.
#[inline]
fn note_request_sent(e: &mut Exchange, h1: &mut H1, ready: usize, pages: &mut Pages, now: Instant) {
    if e.awaits_continue && h1.heads_sent() {
        // The backend has all that it gets before it says something.
        e.sent_at(now);
    }
    if !h1.is_message_sent(ready, e.request.is_last()) {
        return;
    }
    if !std::mem::replace(&mut e.request_sent, true) {
        e.sent_at(now);
        h1.message_sent();
    }
    if e.phase == Phase::Responding {
        h1.drop_sent_heads(pages);
    }
}
