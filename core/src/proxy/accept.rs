//! Client connections: how they come, and how they go.

use std::time::Duration;

use super::exchange::Phase;
use super::{Accepted, Effect, Proxy, Refused};
use crate::config::ListenerKind;
use crate::conn::{Client, Conn, Inbox, Role};
use crate::h1::{Event, MessageStates, Side};
use crate::http::ip::IpText;
use crate::id::ConnId;
use crate::observe::{Level, Observer};
use crate::planted::planted;
use crate::shared::TooMany;
use crate::time::Instant;

/// How long what a client still sends is read and dropped after our last answer (RFC 9112 §9.6).
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// A drain should not be late for those who linger.
pub(super) const BEFORE_DRAINED: Duration = Duration::from_millis(20);
/// Refused connections are told of this often.
const NOTE_EVERY: Duration = Duration::from_secs(10);

impl Conn {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            machine: MessageStates::new(),
            inbox: Inbox::default(),
            exchange: None,
            deadline: Instant::NEVER,
            filed: Instant::NEVER,
            window_bytes: 0,
            window_start: Instant::NEVER,
            listed: 0,
            starved: false,
            handed: super::Wants::default(),
            recv_ended: false,
            broken: false,
        }
    }

    pub(super) fn client(&self) -> &Client {
        match &self.role {
            Role::Client(client) => client,
            _ => unreachable!("a client connection"),
        }
    }

    pub(super) fn client_mut(&mut self) -> &mut Client {
        match &mut self.role {
            Role::Client(client) => client,
            _ => unreachable!("a client connection"),
        }
    }
}

impl<O: Observer> Proxy<O> {
    /// A listener accepted a connection: caps are checked and timers run from now, before its first byte.
    ///
    /// # Errors
    /// If it is not taken; the driver closes it.
    pub fn handle_accept(&mut self, a: &Accepted, now: Instant) -> Result<ConnId, Refused> {
        if self.drain.is_some() {
            return Err(Refused::Draining);
        }
        let config = &self.routing.config;
        let limits = &config.limits;
        // Our own page must answer when everything else is full.
        let kind = config.listeners.get(a.listener.0 as usize).map_or(ListenerKind::Http, |l| l.kind);
        let (total, per_ip) = if kind == ListenerKind::Admin {
            (u32::MAX, 0)
        } else {
            (limits.connections, limits.connections_per_ip)
        };
        if let Err(e) = self.shared.admit(a.peer.ip(), total, per_ip) {
            let (refused, limit) = match e {
                TooMany::Total => (Refused::TooManyConnections, "limits.connections"),
                TooMany::FromAddress => (Refused::TooManyFromAddress, "limits.connections_per_ip"),
            };
            if self.refusing_noted.is_none_or(|at| now.since(at) >= NOTE_EVERY) {
                self.refusing_noted = Some(now);
                self.observer.note(
                    Level::Warning,
                    &format!("{limit} is reached: connections are refused, last that of {}", a.peer.ip()),
                );
            }
            return Err(refused);
        }
        let peer_ip = a.peer.ip().to_canonical();
        let client = Client {
            peer: a.peer,
            peer_text: IpText::new(peer_ip),
            local_port: a.local.port(),
            kind,
            counted: per_ip > 0,
            requests: 0,
            trusted: config.trusted_proxies.iter().any(|net| net.contains(&peer_ip)),
            lingering: false,
        };
        let head = config.timeouts.head;
        let mut conn = Conn::new(Role::Client(client));
        conn.window_start = now;
        let c = self.conns.insert(conn);
        self.clients += 1;
        self.set_deadline(c, now + head);
        self.list(c);
        Ok(c)
    }

    /// The client closed its direction.
    pub(super) fn client_ended(&mut self, c: ConnId, now: Instant) {
        let conn = &mut self.conns[c];
        match conn.exchange {
            None => {
                let _ = conn.machine.apply(Side::Client, Event::Close);
                self.close(c);
            }
            Some(x) => {
                let e = &mut self.exchanges[x.0];
                if e.phase == Phase::Tunnel {
                    self.tunnel_ended(x, now);
                } else if !e.request.ended {
                    // What is missing will never come; half a request must not look like a whole one.
                    self.break_exchange(x, crate::Cause::ClientGone, now);
                }
                // Else: half closed and waiting for its answers (RFC 9112 §9.6).
            }
        }
    }

    /// The client's connection broke: whatever it waited for is of no use any more.
    pub(super) fn client_gone(&mut self, c: ConnId, now: Instant) {
        match self.conns[c].exchange {
            None => self.close(c),
            Some(x) => self.abort(x, crate::Cause::ClientGone, now),
        }
    }

    /// Reads and drops what the client still sends, so that the last answer is not lost to a reset.
    pub(super) fn linger(&mut self, c: ConnId, now: Instant) {
        let conn = &mut self.conns[c];
        if conn.recv_ended {
            return self.close(c);
        }
        conn.client_mut().lingering = true;
        conn.inbox.clear(&mut self.pages);
        self.effects.push_back(Effect::Shutdown(c));
        let at = self.drain.map_or(now + LINGER, |until| (now + LINGER).min(until - BEFORE_DRAINED));
        self.set_deadline(c, at);
        self.list(c);
    }

    /// Closes a connection that serves no exchange.
    pub(super) fn close(&mut self, c: ConnId) {
        if self.forget(c) {
            self.effects.push_back(Effect::Close(c));
        }
    }

    /// The same, so that the peer notices that something is missing.
    pub(super) fn reset(&mut self, c: ConnId) {
        if self.forget(c) {
            self.effects.push_back(if planted!(20) { Effect::Close(c) } else { Effect::Reset(c) });
        }
    }

    /// Takes a connection out of every table.
    fn forget(&mut self, c: ConnId) -> bool {
        let Some(mut conn) = self.conns.remove(c) else { return false };
        debug_assert!(conn.exchange.is_none());
        conn.inbox.clear(&mut self.pages);
        self.wheel.clear(c.slot);
        match &conn.role {
            Role::Client(client) => {
                if !(planted!(29) && client.lingering) {
                    self.shared.leave(client.peer.ip(), client.counted);
                }
                self.clients -= 1;
            }
            Role::Backend(b) if b.idle => self.locals[b.local as usize].idle.remove(&mut self.links, c.slot),
            Role::Backend(_) | Role::Probe(_) => {}
        }
        self.finish_drain();
        true
    }
}
