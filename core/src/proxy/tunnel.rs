//! After a 101 bytes pass both ways until both sides have ended (RFC 9110 §7.8). Each direction ends by
//! itself: half-close passes.

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
        client.wire.switch();
        if planted!(161) {
            client.wire.drop_payload();
        }
        e.request.ended = client.recv_ended;
        e.request.payload_bytes += client.wire.payload_len() as u64;
        let backend = &mut self.tables.conns[e.backend.expect("a tunnel has two ends").conn];
        if let Wire::H1(h1) = &mut backend.wire {
            h1.drop_sent_heads(&mut self.tables.pages);
        }
        backend.wire.switch();
        e.response.ended = false;
        e.response.payload_bytes += backend.wire.payload_len() as u64;
        self.push_request(x, now);
    }

    /// One side has ended: the other hears of it once everything before it has been sent.
    pub(super) fn tunnel_ended(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        e.request.ended |= self.tables.conns[e.client.conn].recv_ended;
        e.response.ended |= e.backend.is_some_and(|leg| self.tables.conns[leg.conn].recv_ended);
        if !self.tunnel_sent(x, now) {
            self.mark_dirty(x);
        }
    }

    /// Passes on what has ended; true if both directions have, and with them the exchange.
    pub(super) fn tunnel_sent(&mut self, x: ExchangeId, now: Instant) -> bool {
        let e = &self.tables.exchanges[x];
        debug_assert_eq!(e.phase, Phase::Tunnel);
        let (c, b) = (e.client.conn, e.backend.expect("a tunnel has two ends").conn);
        let (client, backend) = (&self.tables.conns[c].wire, &self.tables.conns[b].wire);
        let to_backend = backend.is_message_sent(e.request.ready_len(Some(client)), e.request.ended);
        let to_client = client.is_message_sent(e.response.ready_len(Some(backend)), e.response.ended);
        if to_backend && to_client {
            self.finish(x, now);
            return true;
        }
        for (conn, ended) in [(b, to_backend && !planted!(7)), (c, to_client)] {
            if ended
                && let Wire::Tunnel(tunnel) = &mut self.tables.conns[conn].wire
                && !std::mem::replace(&mut tunnel.shut, true)
            {
                self.signals.effects.push_back(Effect::Shutdown(conn));
            }
        }
        false
    }
}
