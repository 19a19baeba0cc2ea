//! Client connections: how they come, and how they go.

use std::time::Duration;

use super::Proxy;
use super::exchange::Phase;
use crate::cause::Cause;
use crate::config::ListenerKind;
use crate::conn::{Client, Conn, Role};
use crate::event::{Accepted, Effect, Refused};
use crate::h1::Side;
use crate::h1::conn::Conn as H1;
use crate::http::ip::IpText;
use crate::id::{ConnId, ExchangeId};
use crate::observe::{Level, Observer};
use crate::planted::planted;
use crate::shared::TooMany;
use crate::time::Instant;
use crate::wheel::TimerKey;
use crate::wire::Wire;

/// How long what a client still sends is read and dropped after our last response (RFC 9112 §9.6).
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// A drain should not be late for those who linger.
pub(super) const BEFORE_DRAINED: Duration = Duration::from_millis(20);
/// Refused connections are told of this often.
pub(super) const NOTE_EVERY: Duration = Duration::from_secs(10);

impl<O: Observer> Proxy<O> {
    /// A listener accepted a connection: caps are checked and timers run from now, before its first byte.
    ///
    /// # Errors
    /// If it is not taken; the driver closes it.
    pub fn handle_accept(&mut self, a: &Accepted, now: Instant) -> Result<ConnId, Refused> {
        if self.drain.until.is_some() {
            return Err(Refused::Draining);
        }
        let limits = &self.pools.config.limits;
        // The admin listener must answer when everything else is full.
        let admin = a.kind == ListenerKind::Admin;
        let (total, per_ip) = if admin && !planted!(160) {
            (u32::MAX, 0)
        } else {
            (limits.connections, limits.connections_per_ip)
        };
        if let Err(too_many) = self.identity.shared.admit(a.peer.ip(), total, per_ip) {
            return Err(self.refuse(too_many, a, now));
        }
        let config = &self.pools.config;
        let peer_ip = if planted!(159) { a.peer.ip() } else { a.peer.ip().to_canonical() };
        let client = Client {
            ip: peer_ip,
            port: a.peer.port(),
            peer_text: IpText::new(peer_ip),
            kind: a.kind,
            listener: a.listener,
            forwarded_headers: self.identity.forwarded_headers(a.kind, a.local.port()),
            counted: per_ip > 0,
            requests: 0,
            trusted: config.trusted_proxies.iter().any(|net| net.contains(&peer_ip)),
            lingering: false,
        };
        let timeouts = &config.timeouts;
        let handshakes = a.kind == ListenerKind::Https;
        let until = now + if handshakes { timeouts.handshake } else { timeouts.head };
        let until = if handshakes && planted!(137) { now + timeouts.handshake / 2 } else { until };
        let conn = Conn::new(Role::Client(client), Wire::H1(H1::new(Side::Client)));
        let c = self.tables.conns.insert(conn);
        self.tables.clients += 1;
        self.step_accepted(c, a);
        let until = if handshakes && planted!(124) { Instant::NEVER } else { until };
        if !planted!(35) {
            self.set_deadline(c, until);
        }
        self.mark_ready(c);
        Ok(c)
    }

    /// Notes now and then that connections are refused.
    #[cold]
    fn refuse(&mut self, too_many: TooMany, a: &Accepted, now: Instant) -> Refused {
        let (refused, limit) = match too_many {
            TooMany::Total => (Refused::TooManyConnections, "limits.connections"),
            TooMany::FromAddress => (Refused::TooManyFromAddress, "limits.connections_per_ip"),
        };
        if self.refusing_noted.is_none_or(|at| now.since(at) >= NOTE_EVERY) {
            self.refusing_noted = Some(now);
            let last = a.peer.ip();
            let text = format!("{limit} is reached: connections are refused, last that of {last}");
            self.observer.note(Level::Warning, &text);
        }
        refused
    }

    /// The client closed its direction.
    pub(super) fn client_ended(&mut self, c: ConnId, now: Instant) {
        let conn = &mut self.tables.conns[c];
        let Some(x) = conn.exchange else { return self.close(c) };
        if let Wire::H1(h1) = &mut conn.wire {
            h1.stream_ended();
        }
        let e = &self.tables.exchanges[x];
        if e.phase == Phase::Tunnel {
            self.tunnel_ended(x, now);
        } else if !e.request.ended {
            // What is missing will never come; half a request must not look like a whole one.
            self.break_exchange(x, Cause::ClientClosed, now);
        }
        // Else: half closed and waiting for its responses (RFC 9112 §9.6).
    }

    /// The client has closed its direction while a request of it is under way. Nobody can tell whether it has
    /// left or waits for the response; most have left. It gets a moment.
    #[cold]
    pub(super) fn client_closing(&mut self, c: ConnId, now: Instant) {
        let Some(x) = self.tables.conns[c].exchange else { return };
        let e = &mut self.tables.exchanges[x];
        if e.phase == Phase::Tunnel {
            // Each direction of a tunnel ends by itself.
            return;
        }
        e.fin_due = now + self.pools.config.timeouts.client_fin;
        if e.queued {
            e.client_due = e.client_due.min(e.fin_due);
            self.file_exchange(x);
        }
        self.mark_dirty(x);
    }

    /// The moment of [`Proxy::client_closing`] is over. A request without effect is given up, and so is one
    /// of which the backend has got nothing; the backend does what it has been told by any other.
    #[cold]
    pub(super) fn client_fin_due(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        if !e.request.ended {
            // Its end is still on its way here.
            e.fin_due = now + self.pools.config.timeouts.client_fin;
        } else if e.head.method().is_safe() || !e.request_begun {
            return self.abort(x, Cause::ClientClosed, now);
        } else {
            e.fin_due = Instant::NEVER;
        }
        self.mark_dirty(x);
    }

    /// The client's connection broke: whatever it waited for is of no use any more.
    pub(super) fn client_lost(&mut self, c: ConnId, now: Instant) {
        match self.tables.conns[c].exchange {
            None => self.close(c),
            Some(x) => self.abort(x, Cause::ClientClosed, now),
        }
    }

    /// Reads and drops what the client still sends, so that the last response is not lost to a reset.
    pub(super) fn linger(&mut self, c: ConnId, now: Instant) {
        let conn = &mut self.tables.conns[c];
        if conn.recv_ended {
            return self.close(c);
        }
        conn.client_mut().lingering = true;
        conn.wire.deafen(&mut self.tables.pages);
        self.signals.effects.push_back(Effect::Shutdown(c));
        let at = self.drain.until.map_or(now + LINGER, |until| (now + LINGER).min(until - BEFORE_DRAINED));
        self.set_deadline(c, at);
        self.mark_ready(c);
    }

    /// Closes a connection that serves no exchange.
    pub(super) fn close(&mut self, c: ConnId) {
        if self.forget(c, false) {
            self.signals.effects.push_back(Effect::Close(c));
        }
    }

    /// Closes a connection that serves no exchange so that the peer notices that something is missing.
    pub(super) fn reset(&mut self, c: ConnId) {
        if self.forget(c, true) {
            let effect = if planted!(20) { Effect::Close(c) } else { Effect::Reset(c) };
            self.signals.effects.push_back(effect);
        }
    }

    /// Takes a connection out of every table.
    fn forget(&mut self, c: ConnId, reset: bool) -> bool {
        let Some(mut conn) = self.tables.conns.remove(c) else { return false };
        debug_assert!(!conn.is_busy());
        self.step_closed(c, &conn, reset);
        conn.wire.clear(&mut self.tables.pages);
        self.timers.wheel.clear(TimerKey::Conn(c.slot));
        match &conn.role {
            Role::Client(client) => {
                if !(planted!(29) && client.lingering) {
                    self.identity.shared.leave(client.ip, client.counted);
                }
                if client.kind == ListenerKind::Https {
                    self.secured.remove(c);
                }
                self.tables.clients -= 1;
            }
            Role::Backend(b) => {
                let backend = &mut self.pools.backends[b.backend as usize];
                if b.idle {
                    backend.idle.remove(&mut self.pools.links, c.slot);
                } else if conn.wire.streams().is_some() {
                    backend.unshare(c);
                }
            }
            Role::Probe(_) => {}
        }
        if !self.bound.is_empty() {
            self.unbind(c);
        }
        self.finish_drain();
        true
    }
}
