//! Once a backend has switched protocols bytes pass both ways until both sides have ended (RFC 9110 §7.8).
//! Each direction ends by itself: half-close passes.
//!
//! A leg is the whole of a connection of HTTP/1.1, after a 101, or a stream of HTTP/2 (RFC 8441): there
//! the bytes are its data, a half-close is the end of the stream in one direction, and a reset is one with
//! CANCEL.

use super::Proxy;
use super::exchange::Phase;
use crate::event::Effect;
use crate::id::ExchangeId;
use crate::observe::Observer;
use crate::planted::planted;
use crate::time::Instant;
use crate::wire::Wire;

impl<O: Observer> Proxy<O> {
    /// The head of the 101 is on its way to the client: what came early from either side follows it.
    pub(super) fn tunnel_began(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        e.phase = Phase::Tunnel;
        e.retained = false;
        // The content has been sent: what came after it must not be taken for more of it.
        let client = &mut self.tables.conns[e.client.conn];
        e.request.release(Some(&mut client.wire), &mut self.tables.pages);
        if client.wire.streams().is_some() {
            e.request.open();
            e.response_begun = true;
        } else {
            client.wire.switch();
            if planted!(161) {
                client.wire.drop_payload();
            }
            e.request.ended = client.recv_ended;
            e.request.payload_bytes += client.wire.payload_len() as u64;
        }
        let backend = &mut self.tables.conns[e.backend.expect("a tunnel has two ends").conn];
        if let Wire::H1(h1) = &mut backend.wire {
            h1.drop_sent_heads(&mut self.tables.pages);
        }
        // The stream of a backend ends when what the client sends has.
        e.request_sent &= backend.wire.streams().is_none();
        backend.wire.switch();
        e.response.ended = false;
        e.response.payload_bytes += backend.wire.payload_len() as u64;
        self.push_request(x, now);
    }

    /// One side has ended: the other hears of it once everything before it has been sent.
    pub(super) fn tunnel_ended(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        let ended = |wire: &Wire, recv_ended: bool| recv_ended && matches!(wire, Wire::Tunnel(_));
        let client = &self.tables.conns[e.client.conn];
        e.request.ended |= ended(&client.wire, client.recv_ended);
        if let Some(backend) = e.backend.map(|leg| &self.tables.conns[leg.conn]) {
            e.response.ended |= ended(&backend.wire, backend.recv_ended);
        }
        self.push_request(x, now);
        self.push_response(x, now);
        self.finish_if_done(x, now);
    }

    /// Passes on what has ended; true if both directions have, and with them the exchange.
    pub(super) fn tunnel_sent(&mut self, x: ExchangeId, now: Instant) -> bool {
        let e = &self.tables.exchanges[x];
        debug_assert_eq!(e.phase, Phase::Tunnel);
        let client = &self.tables.conns[e.client.conn].wire;
        // A backend that has ended both directions of its stream may be gone.
        let backend = e.backend.map(|leg| &self.tables.conns[leg.conn].wire);
        let to_backend = match backend {
            None | Some(Wire::Multiplexed(_)) => e.request_sent,
            Some(wire) => wire.is_message_sent(e.request.ready_len(Some(client)), e.request.ended),
        };
        let to_client = match client {
            Wire::Multiplexed(_) => e.tunnel_end_sent,
            wire => wire.is_message_sent(e.response.ready_len(backend), e.response.ended),
        };
        if to_backend && to_client {
            self.finish(x, now);
            return true;
        }
        let ends = [(e.backend, to_backend && !planted!(7)), (Some(e.client), to_client)];
        for (leg, ended) in ends {
            if let Some(leg) = leg.filter(|_| ended)
                && let Wire::Tunnel(tunnel) = &mut self.tables.conns[leg.conn].wire
                && !std::mem::replace(&mut tunnel.shut, true)
            {
                self.signals.effects.push_back(Effect::Shutdown(leg.conn));
            }
        }
        false
    }
}
