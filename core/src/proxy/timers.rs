//! Time: what each connection's deadline is for follows from its state, when it is set and again when it
//! fires.

use std::time::Duration;

use super::exchange::Phase;
use super::{Effect, Proxy};
use crate::cause::Cause;
use crate::conn::Role;
use crate::id::ConnId;
use crate::observe::Observer;
use crate::planted::planted;
use crate::time::Instant;
use crate::wheel::TimerKey;

impl<O: Observer> Proxy<O> {
    /// Time has passed; late or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.wheel.expire(now) {
            let TimerKey::Conn(slot) = key else { continue };
            let Some(c) = self.conns.at(slot) else { continue };
            let conn = &mut self.conns[c];
            conn.filed = Instant::NEVER;
            let deadline = conn.deadline;
            if deadline > now {
                // Activity has moved it since it was filed.
                self.set_deadline(c, deadline);
            } else {
                conn.deadline = Instant::NEVER;
                self.expire(c, now);
            }
        }
        self.lookup_due(now);
        self.probe_due(now);
        if self.drain.is_some_and(|until| until <= now) {
            self.cut_all(now);
        }
        self.settle(now);
    }

    /// When to call [`Proxy::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.wheel.next(),
            self.schedule.next_at(),
            self.lookups.next_at(),
            self.drain.filter(|_| !self.drained),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Moves a connection's deadline. The wheel hears of it only when it comes nearer: activity costs one
    /// store.
    pub(super) fn set_deadline(&mut self, c: ConnId, at: Instant) {
        let conn = &mut self.conns[c];
        conn.deadline = at;
        if at < conn.filed && !(planted!(9) && conn.filed != Instant::NEVER) {
            conn.filed = at;
            self.wheel.set(TimerKey::Conn(c.slot), at);
        }
    }

    /// Something about an exchange has changed: its deadlines are looked at once, when everything has
    /// settled.
    pub(super) fn touch(&mut self, x: crate::id::ExchangeId) {
        if let Some(e) = self.exchanges.get_mut(x.0)
            && !std::mem::replace(&mut e.touched, true)
        {
            self.touched.push(x);
        }
    }

    /// Sets the deadlines of every exchange that was touched.
    pub(super) fn rearm_touched(&mut self) {
        while let Some(x) = self.touched.pop() {
            if let Some(e) = self.exchanges.get_mut(x.0) {
                e.touched = false;
                self.rearm(x, self.now);
            }
        }
    }

    /// Sets the deadline that the state of an exchange's connections asks for.
    pub(super) fn rearm(&mut self, x: crate::id::ExchangeId, now: Instant) {
        let Some(e) = self.exchanges.get(x.0) else { return };
        let (client, backend) = (e.client.conn, e.backend.map(|leg| leg.conn));
        let timeouts = match e.runtime {
            Some(r) => &self.rt(r).pool().timeouts,
            None => &self.routing.config.timeouts,
        };
        let (stall, tunnel, backend_head) = (timeouts.stall, timeouts.tunnel, timeouts.backend_head);
        match e.phase {
            // Their deadlines were set when they began.
            Phase::Choosing | Phase::Asking(_) => return,
            Phase::Tunnel => {
                self.set_deadline(client, Instant::NEVER);
                if let Some(b) = backend {
                    self.set_deadline(b, now + tunnel);
                }
                return;
            }
            _ => {}
        }
        // By far the commonest wait, and what all the looks below would come to: the request has gone, and no
        // byte of an answer has come.
        if let (Phase::Sending, true, 0, Some(b)) = (e.phase, e.request_gone, e.interims, backend) {
            let sent = e.times.sent;
            self.arm(client, Due::Never, stall, now);
            return self.arm(b, Due::At(sent + backend_head), stall, now);
        }
        let wants = self.wants(client);
        let waits_for_client = (wants.recv && !e.awaits_continue) || wants.send;
        let e = &self.exchanges[x.0];
        let for_backend = backend.map(|b| {
            let wants = self.wants(b);
            match e.phase {
                Phase::Connecting => None,
                _ if wants.send => Some(Due::Window),
                Phase::Responding if e.response.ended => Some(Due::Never),
                Phase::Responding if wants.recv => Some(Due::Window),
                Phase::Responding => Some(Due::Never),
                // Never, as long as it has not gone.
                _ => Some(Due::At(e.times.sent + backend_head)),
            }
        });
        self.arm(client, if waits_for_client { Due::Window } else { Due::Never }, stall, now);
        if let (Some(b), Some(Some(due))) = (backend, for_backend) {
            self.arm(b, due, stall, now);
        }
    }

    fn arm(&mut self, c: ConnId, due: Due, stall: Duration, now: Instant) {
        let conn = &mut self.conns[c];
        let at = match due {
            Due::Window => {
                if conn.window_start == Instant::NEVER {
                    (conn.window_start, conn.window_bytes) = (now, 0);
                }
                conn.window_start + stall
            }
            Due::At(at) => at,
            Due::Never => Instant::NEVER,
        };
        if !matches!(due, Due::Window) {
            conn.window_start = Instant::NEVER;
        }
        self.set_deadline(c, at);
    }

    fn expire(&mut self, c: ConnId, now: Instant) {
        let conn = &self.conns[c];
        let exchange = conn.exchange;
        match &conn.role {
            Role::Client(client) => match exchange {
                None if !client.lingering && conn.inbox.raw_len() > 0 => {
                    self.reject(c, Cause::HeadTimeout, now)
                }
                None => self.close(c),
                Some(x) if self.exchanges[x.0].phase == Phase::Choosing => {
                    self.refuse_waiting(x, Cause::QueueTimeout)
                }
                Some(x) if matches!(self.exchanges[x.0].phase, Phase::Asking(_)) => {
                    self.refuse(x, Cause::LookupFailed)
                }
                Some(x) => {
                    let limits = match self.exchanges[x.0].runtime {
                        Some(r) => &self.rt(r).pool().limits,
                        None => &self.routing.config.limits,
                    };
                    let wants = self.wants(c);
                    let least = if wants.recv { limits.min_upload_rate } else { limits.min_download_rate };
                    if self.window_over(c, least, now) {
                        // Who takes nothing of an answer takes nothing of another one either.
                        if wants.send {
                            self.abort(x, Cause::ClientStalled, now);
                        } else {
                            self.break_exchange(x, Cause::ClientStalled, now);
                        }
                    } else {
                        self.rearm(x, now);
                    }
                }
            },
            Role::Backend(b) => {
                let Some(x) = exchange else { return self.close(c) };
                if !b.connected {
                    return self.connect_failed(x, Cause::ConnectTimeout, now);
                }
                let phase = self.exchanges[x.0].phase;
                match phase {
                    Phase::Tunnel => self.abort(x, Cause::TunnelTimeout, now),
                    Phase::Responding => {
                        if self.window_over(c, 0, now) {
                            self.break_exchange(x, Cause::BackendStalled, now);
                        } else {
                            self.rearm(x, now);
                        }
                    }
                    _ if self.exchanges[x.0].times.sent != Instant::NEVER => {
                        self.attempt_failed(x, Cause::BackendTimeout, now)
                    }
                    _ if self.window_over(c, 0, now) => self.attempt_failed(x, Cause::BackendStalled, now),
                    _ => self.rearm(x, now),
                }
            }
            Role::Probe(p) => {
                let cause = if p.connected { Cause::BackendTimeout } else { Cause::ConnectTimeout };
                self.probe_failed(c, cause, now);
            }
        }
    }

    /// A window of the stall time is over: whether too few bytes moved in it. If enough did, the next one
    /// begins.
    fn window_over(&mut self, c: ConnId, least_per_sec: u32, now: Instant) -> bool {
        let conn = &mut self.conns[c];
        let secs = now.since(conn.window_start).as_secs().max(1);
        let least = (u64::from(least_per_sec) * secs).max(1);
        if conn.window_bytes < least {
            return true;
        }
        (conn.window_start, conn.window_bytes) = (now, 0);
        false
    }

    /// Takes nothing new, ends what runs, cuts what is left at `until`; [`Effect::Drained`] says when nothing
    /// is left.
    pub fn drain(&mut self, until: Instant, now: Instant) {
        let first = self.drain.is_none();
        self.drain = Some(self.drain.map_or(until, |before| before.min(until)));
        if !first {
            return;
        }
        let lingering: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| matches!(&conn.role, Role::Client(client) if client.lingering))
            .map(|(c, _)| c)
            .collect();
        for c in lingering {
            let at = self.conns[c].deadline.min(until - super::accept::BEFORE_DRAINED);
            self.set_deadline(c, at);
        }
        let idle: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.exchange.is_none() && conn.inbox.is_empty())
            .map(|(c, _)| c)
            .collect();
        for c in idle {
            match self.conns.get(c).map(|conn| &conn.role) {
                // Who has just come may have asked already, and may not ask again by itself: it has a moment,
                // and then its answer.
                Some(Role::Client(client)) if !client.lingering && client.requests == 0 => {
                    let at = self.conns[c]
                        .deadline
                        .min(now + super::accept::LINGER)
                        .min(until - super::accept::BEFORE_DRAINED);
                    self.set_deadline(c, at);
                }
                Some(Role::Client(client)) if !client.lingering => {
                    // What has reached the socket but not yet us would be lost to a reset.
                    self.linger(c, now);
                }
                Some(Role::Backend(_)) => self.close(c),
                _ => {}
            }
        }
        self.finish_drain();
    }

    fn cut_all(&mut self, now: Instant) {
        let all: Vec<ConnId> = self.conns.iter().map(|(c, _)| c).collect();
        for c in all {
            let Some(conn) = self.conns.get(c) else { continue };
            match (&conn.role, conn.exchange) {
                (_, Some(x)) => self.abort(x, Cause::Drained, now),
                (Role::Probe(_), None) => self.probe_failed(c, Cause::Drained, now),
                (_, None) => self.close(c),
            }
        }
        self.finish_drain();
    }

    /// Says once that nothing is left, when that is so.
    pub(super) fn finish_drain(&mut self) {
        if self.drain.is_none() || self.drained || self.clients > 0 || !self.exchanges.is_empty() {
            return;
        }
        self.drained = true;
        let rest: Vec<ConnId> = self.conns.iter().map(|(c, _)| c).collect();
        for c in rest {
            self.close(c);
        }
        if !(planted!(22) && self.shard == 1) {
            self.effects.push_back(Effect::Drained);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Due {
    /// At the end of a window in which enough bytes must move.
    Window,
    At(Instant),
    Never,
}
