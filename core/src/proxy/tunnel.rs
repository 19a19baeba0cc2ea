//! After a 101 bytes pass both ways until both sides have ended (RFC 9110 §7.8). Each direction ends by
//! itself: half-close passes.

use super::exchange::Phase;
use super::{Effect, Proxy};
use crate::id::ExchangeId;
use crate::observe::Observer;
use crate::planted::planted;
use crate::time::Instant;

impl<O: Observer> Proxy<O> {
    /// The head of the 101 is on its way to the client: what came early from either side follows it.
    pub(super) fn tunnel_began(&mut self, x: ExchangeId) {
        let e = &mut self.exchanges[x.0];
        e.phase = Phase::Tunnel;
        e.retained = false;
        e.keep_alive = false;
        e.request.drop_head(&mut self.pages);
        e.request.tunnel();
        e.response.tunnel();
        let client = &mut self.conns[e.client.conn];
        // The content has gone: what came after it must not be taken for more of it.
        e.request.release(&mut client.inbox);
        // Bytes just pass: no rule can be broken, so no error can come of it.
        let limits = super::request::head_limits(&self.routing.config.limits);
        let _ = e.request.receive(&mut client.inbox, &mut self.pages, &limits);
        if client.recv_ended {
            e.request.ended = true;
        }
        self.push_request(x);
    }

    /// One side has ended: the other hears of it once everything before it has gone.
    pub(super) fn tunnel_ended(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.exchanges[x.0];
        e.request.ended |= self.conns[e.client.conn].recv_ended;
        e.response.ended |= e.backend.is_some_and(|leg| self.conns[leg.conn].recv_ended);
        if !self.tunnel_sent(x, now) {
            self.touch(x);
        }
    }

    /// Passes on what has ended; true if both directions have, and with them the exchange.
    pub(super) fn tunnel_sent(&mut self, x: ExchangeId, now: Instant) -> bool {
        let e = &mut self.exchanges[x.0];
        debug_assert_eq!(e.phase, Phase::Tunnel);
        let (c, b) = (e.client.conn, e.backend.expect("a tunnel has two ends").conn);
        let to_backend = e.request.is_done(Some(&self.conns[c].inbox));
        let to_client = e.response.is_done(Some(&self.conns[b].inbox));
        if to_backend && to_client {
            self.finish(x, now);
            return true;
        }
        if to_backend && !planted!(7) && !std::mem::replace(&mut e.shut_backend, true) {
            self.effects.push_back(Effect::Shutdown(b));
        }
        if to_client && !std::mem::replace(&mut e.shut_client, true) {
            self.effects.push_back(Effect::Shutdown(c));
        }
        false
    }
}
