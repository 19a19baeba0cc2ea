//! The way back: from a backend's bytes to a response that is on its way to the client.

use super::Proxy;
use super::exchange::{Leg, Phase, REQUEST, RESPONSE};
use super::pipe::MessagePipe;
use crate::cause::Cause;
use crate::conn::Role;
use crate::h1::conn::{HeadRead, SendResponse, StreamEnd};
use crate::h1::was_offered;
use crate::http::{Framing, Violation};
use crate::id::{ConnId, ExchangeId};
use crate::observe::Observer;
use crate::planted::planted;
use crate::time::Instant;
use crate::wire::Wire;

/// Interim responses that one exchange may have: more is a backend gone wild.
const MAX_INTERIMS: u8 = 32;

/// What a response head turned out to be.
pub(super) enum Received {
    /// Another head follows.
    Interim,
    /// Its content follows.
    Final,
    /// Bytes of another protocol follow.
    Switched,
}

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
        while self.tables.exchanges.get(x).is_some_and(|e| e.phase == Phase::Sending) {
            match self.receive_response_head(x, b) {
                Ok(false) => break,
                Ok(true) => {
                    if let Err(cause) = self.take_response(x, now) {
                        return self.break_exchange(x, cause, now);
                    }
                }
                Err(violation) => return self.break_exchange(x, Cause::BadResponse(violation), now),
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
                self.mark_ready(b);
                Ok(false)
            }
            HeadRead::Whole => {
                if let Role::Backend(role) = &mut conn.role {
                    role.keep_alive_secs = scratch.response.keep_alive_secs.unwrap_or(u32::MAX);
                }
                Ok(true)
            }
        }
    }

    /// The head of a response lies in `scratch.response`: it is passed on.
    pub(super) fn take_response(&mut self, x: ExchangeId, now: Instant) -> Result<(), Cause> {
        let head = &self.scratch.response;
        let received = if head.is_interim() {
            self.pass_interim(x)?;
            Received::Interim
        } else if head.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            let offered = self.tables.exchanges[x].head.upgrade().unwrap_or_default();
            if !head.upgrade().is_some_and(|protocols| was_offered(offered, protocols)) {
                return Err(Cause::BadResponse(Violation::UnexpectedSwitch));
            }
            self.pass_head(x, now)?;
            Received::Switched
        } else {
            self.pass_head(x, now)?;
            Received::Final
        };
        match received {
            Received::Interim => {
                let c = self.tables.exchanges[x].client.conn;
                self.mark_ready(c);
            }
            Received::Final => self.response_began(x, now),
            Received::Switched => self.tunnel_began(x, now),
        }
        Ok(())
    }

    /// RFC 9110 §15.2: interim responses pass.
    fn pass_interim(&mut self, x: ExchangeId) -> Result<(), Cause> {
        let e = &mut self.tables.exchanges[x];
        e.interims += 1;
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
                super::streams::send_interim(streams, client.stream, &self.scratch.response);
                Ok(())
            }
        }
    }

    fn pass_head(&mut self, x: ExchangeId, now: Instant) -> Result<(), Cause> {
        let transforms = self.pass_response(x, now);
        let head = &mut self.scratch.response;
        // A transform may put something in the place of no bytes, where there may be any.
        let has_content = head.framing() != Framing::None;
        if !transforms.is_empty() {
            head.content_length = None;
        }
        let e = &mut self.tables.exchanges[x];
        let backend = e.backend.expect("a response comes from a backend");
        e.status = head.status().as_u16();
        e.times.responded = now;
        e.trailers_pass[RESPONSE] = !head.lists_fields;
        let source = &mut self.tables.conns[backend.conn].wire;
        e.response = match source {
            Wire::Multiplexed(_) => MessagePipe::own(),
            _ => MessagePipe::lent(),
        };
        e.response.ended = match &mut *source {
            Wire::H1(h1) => {
                // No attempt follows a response: its head gets the page of the request's. Where pages are
                // scarce there might be no other.
                let page = if e.request_sent { h1.take_head_page() } else { None };
                let ended = h1.message_ended();
                if let Some(page) = page {
                    match &mut self.tables.conns[e.client.conn].wire {
                        Wire::H1(client) => client.give_head_page(page, &mut self.tables.pages),
                        _ => self.tables.pages.give_back(page),
                    }
                }
                ended
            }
            _ => false,
        };
        let mut framing = head.framing();
        if has_content && !transforms.is_empty() {
            framing = if framing == Framing::Chunked { Framing::Chunked } else { Framing::Close };
            for transform in transforms {
                let added = e.response.add_transform(transform, &mut self.tables.pages);
                added.map_err(|_| Cause::NoPages)?;
            }
        }
        let pool = self.pools.get(e.pool.expect("routed"));
        let mut line = std::mem::take(&mut self.scratch.line);
        line.clear();
        if let (Some(sticky), Some(choice)) = (pool.balancer.sticky(), e.choice)
            && e.sticky_choice != Some(choice)
        {
            line.extend_from_slice(sticky.set_cookie(choice));
        }
        let sent = self.send_response_head(x, framing, &line, false);
        self.scratch.line = line;
        sent
    }

    /// Sends the head in `scratch.response` to the client. `local`: it is one of our own.
    pub(super) fn send_response_head(
        &mut self,
        x: ExchangeId,
        framing: Framing,
        extra: &[u8],
        local: bool,
    ) -> Result<(), Cause> {
        let e = &self.tables.exchanges[x];
        let Leg { conn, stream } = e.client;
        let conn = &mut self.tables.conns[conn];
        let head = &self.scratch.response;
        match &mut conn.wire {
            Wire::H1(h1) => {
                // Nobody is left who could ask again.
                let last = conn.recv_ended && h1.buffer().unparsed_len() == 0;
                let how = SendResponse {
                    framing,
                    persist: e.persist && !last && self.drain.until.is_none(),
                    date: &self.identity.date,
                    extra,
                    local,
                };
                h1.send_response(&mut self.tables.pages, head, &how)
            }
            Wire::Tunnel(_) => Err(Cause::BadResponse(Violation::UnexpectedSwitch)),
            Wire::Multiplexed(streams) => {
                super::streams::send_response(streams, stream, head, framing, &self.identity.date, extra);
                Ok(())
            }
        }
    }

    /// The final head is there: no other attempt will be needed. What has come behind it is received next.
    fn response_began(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        e.phase = Phase::Responding;
        e.retained = false;
        if !(e.request_sent && e.request.ended && e.request.is_direct()) {
            self.push_request(x, now);
        } else {
            // What was retained of the request's body is needed no more.
            self.release_request(x);
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
                if !e.trailers_pass[RESPONSE] {
                    e.response.trailers.clear();
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

    /// The request's content is needed no more.
    fn release_request(&mut self, x: ExchangeId) {
        let e = &mut self.tables.exchanges[x];
        let source = &mut self.tables.conns[e.client.conn].wire;
        e.request.release(Some(source), &mut self.tables.pages);
        source.trim(&mut self.tables.pages);
        debug_assert!(e.trailers_pass[REQUEST] || e.request.trailers.is_empty());
    }
}
