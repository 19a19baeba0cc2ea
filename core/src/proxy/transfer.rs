//! Bytes have gone: pages come back, the next ones are framed, and an exchange whose last byte has gone ends.

use super::exchange::Phase;
use super::{Effect, Proxy};
use crate::h1::{Event, Side};
use crate::id::{ConnId, ExchangeId};
use crate::observe::Observer;
use crate::time::Instant;

impl<O: Observer> Proxy<O> {
    /// `n` bytes have gone to a client.
    pub(super) fn client_sent(&mut self, x: ExchangeId, n: usize, now: Instant) {
        let e = &mut self.exchanges[x.0];
        e.bytes_out += e.response.sent(n) as u64;
        if e.phase == Phase::Own {
            // Head and body are one piece there.
            e.bytes_out = u64::from(e.own_body.saturating_sub(e.response.head_len - e.response.head_sent));
        }
        e.response_begun |= matches!(e.phase, Phase::Responding | Phase::Tunnel | Phase::Own);
        if e.phase != Phase::Own && e.response.head_sent == e.response.head_len {
            e.response.drop_head(&mut self.pages);
        }
        let Some(leg) = e.backend else { return self.finish_if_done(x, now) };
        let backend = &mut self.conns[leg.conn];
        e.response.release(&mut backend.inbox);
        if self.finish_now(x, now) {
            return;
        }
        self.push_response(x);
        self.touch(x);
    }

    /// `n` bytes have gone to a backend.
    pub(super) fn backend_sent(&mut self, x: ExchangeId, b: ConnId, n: usize, now: Instant) {
        let e = &mut self.exchanges[x.0];
        e.request.sent(n);
        if !e.request.is_bare(&self.conns[e.client.conn].inbox) {
            self.push_request(x);
        }
        let e = &mut self.exchanges[x.0];
        if e.awaits_continue && e.request.head_sent == e.request.head_len {
            // The backend has all that it gets before it says something.
            e.times.sent = now;
        }
        let inbox = &self.conns[e.client.conn].inbox;
        if e.request.is_done(Some(inbox)) {
            if e.phase == Phase::Tunnel {
                if !std::mem::replace(&mut e.shut_backend, true) {
                    self.effects.push_back(Effect::Shutdown(b));
                }
                return self.finish_if_done(x, now);
            }
            if !std::mem::replace(&mut e.request_gone, true) {
                e.times.sent = now;
                let _ = self.conns[b].machine.apply(Side::Client, Event::End);
            }
            if e.phase == Phase::Responding {
                e.request.drop_head(&mut self.pages);
            }
        }
        self.touch(x);
    }

    /// Ends the exchange if the whole answer has gone.
    pub(super) fn finish_if_done(&mut self, x: ExchangeId, now: Instant) {
        if !self.finish_now(x, now) {
            self.touch(x);
        }
    }

    fn finish_now(&mut self, x: ExchangeId, now: Instant) -> bool {
        let e = &self.exchanges[x.0];
        let from = e.backend.map(|leg| &self.conns[leg.conn].inbox);
        match e.phase {
            Phase::Responding | Phase::Own if e.response.is_done(from) => {
                self.finish(x, now);
                true
            }
            Phase::Tunnel => self.tunnel_sent(x, now),
            _ => false,
        }
    }
}
