//! Time: what a deadline is for follows from the state, when it is set and again when it fires. Connections
//! have deadlines of their own (connecting, between requests, lingering), and so has each exchange.

use std::time::Duration;

use super::exchange::{Exchange, Phase, Window};
use super::{Proxy, Timers};
use crate::cause::Cause;
use crate::conn::{Conn, Role};
use crate::event::{Effect, Fault, TimeoutReason};
use crate::id::{ConnId, ExchangeId};
use crate::observe::{Observer, Step};
use crate::planted::planted;
use crate::time::Instant;
use crate::wheel::TimerKey;
use crate::wire::Wire;

/// Who has had a response within this time before a drain begins has as long to ask for the next one: else
/// the question and the end would cross each other on the wire.
const LATELY: Duration = Duration::from_secs(1);

/// What one end of an exchange is waited for.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// Enough bytes must move before a window of the stall time is over.
    Window,
    At(Instant),
    Never,
}

impl<O: Observer> Proxy<O> {
    /// Time has passed; late or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.timers.now = now;
        while let Some(key) = self.timers.wheel.expire(now) {
            match key {
                TimerKey::Conn(slot) => self.expire_conn(slot, now),
                TimerKey::Exchange(slot) => self.expire_exchange(slot, now),
            }
        }
        self.lookup_due(now);
        self.probe_due(now);
        if self.drain.until.is_some_and(|until| until <= now) {
            self.cut_all(now);
        }
        self.settle(now);
    }

    /// When to call [`Proxy::handle_timeout`] at the latest, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        [
            (self.timers.wheel.next(), TimeoutReason::Deadline),
            (self.checks.next_at(), TimeoutReason::HealthCheck),
            (self.lookups.next_at(), TimeoutReason::Lookup),
            (self.drain.until.filter(|_| !self.drain.ended), TimeoutReason::DrainEnd),
        ]
        .into_iter()
        .filter_map(|(at, reason)| Some((at?, reason)))
        .min()
    }

    /// Moves a connection's deadline.
    #[inline]
    pub(super) fn set_deadline(&mut self, c: ConnId, at: Instant) {
        self.timers.set_deadline(c, &mut self.tables.conns[c], at);
    }

    fn expire_conn(&mut self, slot: u32, now: Instant) {
        let Some(c) = self.tables.conns.at(slot) else { return };
        let conn = &mut self.tables.conns[c];
        conn.filed = Instant::NEVER;
        let deadline = conn.deadline;
        if deadline > now {
            // Activity has moved it since it was filed, or it is time to ask whether the peer is there.
            return self.ask_next(c, deadline, now);
        }
        conn.deadline = Instant::NEVER;
        self.step(c, Step::Expired);
        if self.is_handshaking(c) {
            return self.handshake_failed(c, Fault::TimedOut, now);
        }
        let conn = &self.tables.conns[c];
        match &conn.role {
            Role::Client(client) => {
                if !client.lingering && conn.exchange.is_none() && conn.wire.unparsed_len() > 0 {
                    self.scratch.request.reset();
                    return self.reject(c, Cause::HeadTimeout, now);
                }
                if self.tables.conns[c].is_busy() || !self.leave_streams(c, now) {
                    self.close_idle(c);
                }
                self.ask_next(c, Instant::NEVER, now);
            }
            Role::Backend(backend) if !backend.connected => match conn.exchange {
                Some(x) => {
                    let whole = self.tables.exchanges[x].connect_until;
                    let state = &self.pools.backends[backend.backend as usize].state;
                    if now < whole && !(state.has_other_than(backend.to) && state.health().usable()) {
                        // The other addresses have failed meanwhile, or the backend has.
                        return self.set_deadline(c, whole);
                    }
                    self.connect_failed(x, Cause::ConnectTimeout, now);
                }
                None => self.streams_connect_due(c, now),
            },
            Role::Backend(_) if conn.wire.streams().is_some() => self.look_after(c, now),
            Role::Backend(_) => self.close_idle(c),
            Role::Probe(_) => self.probe_timed_out(c, now),
        }
    }

    /// Asks a client whether it is there if that is due, and files it for the next time, or for its deadline.
    /// It may be gone.
    fn ask_next(&mut self, c: ConnId, deadline: Instant, now: Instant) {
        if self.tables.conns.get(c).is_none() {
            return;
        }
        let asks = self.keep_alive(c, now);
        if let Some(conn) = self.tables.conns.get_mut(c) {
            self.timers.file_conn(c, conn, deadline.min(asks));
        }
    }

    /// Closes a connection that has waited in vain, unless it serves an exchange.
    fn close_idle(&mut self, c: ConnId) {
        let conn = &self.tables.conns[c];
        if conn.is_busy() {
            return;
        }
        if conn.wire.streams().is_some_and(|streams| streams.flushing) {
            // Something of its last responses is missing.
            return self.reset(c);
        }
        self.close(c);
    }

    /// Files the nearest of an exchange's deadlines, if it has come nearer.
    #[inline]
    pub(super) fn file_exchange(&mut self, x: ExchangeId) {
        let e = &self.tables.exchanges[x];
        self.timers.file_exchange(x.0.slot, e.due());
    }

    fn expire_exchange(&mut self, slot: u32, now: Instant) {
        self.timers.exchange_filed[slot as usize] = Instant::NEVER;
        let Some(x) = self.tables.exchanges.at(slot) else { return };
        let e = &mut self.tables.exchanges[x];
        if e.call_due <= now {
            e.call_due = Instant::NEVER;
            self.call_overdue(x, now);
        } else if e.client_due <= now {
            e.client_due = Instant::NEVER;
            self.client_overdue(x, now);
        } else if e.backend_due <= now {
            e.backend_due = Instant::NEVER;
            self.backend_overdue(x, now);
        }
        // Activity may have moved them since they were filed, and the other one may be due next.
        if self.tables.exchanges.get(x).is_some() {
            self.file_exchange(x);
        }
    }

    /// Something about an exchange has changed: its deadlines are set anew once everything has settled.
    #[inline]
    pub(super) fn mark_dirty(&mut self, x: ExchangeId) {
        if let Some(e) = self.tables.exchanges.get_mut(x) {
            self.signals.mark_dirty(x, e);
        }
    }

    /// Sets the deadlines of every exchange of which something has changed.
    #[inline]
    pub(super) fn rearm_dirty(&mut self) {
        while let Some(x) = self.signals.dirty.pop() {
            if let Some(e) = self.tables.exchanges.get_mut(x) {
                e.dirty = false;
                self.rearm(x, self.timers.now);
            }
        }
    }

    /// Sets the deadlines that the state of an exchange asks for.
    #[inline]
    fn rearm(&mut self, x: ExchangeId, now: Instant) {
        let Some(e) = self.tables.exchanges.get_mut(x) else { return };
        let timeouts = match e.pool {
            Some(slot) => &self.pools.get(slot).pool().timeouts,
            None => &self.pools.config.timeouts,
        };
        let (stall, tunnel, backend_head) = (timeouts.stall, timeouts.tunnel, timeouts.backend_head);
        match e.phase {
            // Their deadlines were set when they began.
            Phase::Choosing | Phase::Asking(_) => return,
            Phase::Tunnel if planted!(39) => e.arm(Due::Never, Due::Never, stall, now),
            Phase::Tunnel if planted!(36) => {
                e.arm(Due::Never, Due::At(e.times.responded + tunnel), stall, now)
            }
            Phase::Tunnel => e.arm(Due::Never, Due::At(now + tunnel), stall, now),
            // By far the commonest wait, and what the looks below would come to: the request has been sent,
            // and no byte of a response has come.
            Phase::Sending if e.request_sent && e.interims == 0 => {
                let within = if planted!(30) { backend_head / 2 } else { backend_head };
                let due = if planted!(31) { Due::Never } else { Due::At(e.waits_since + within) };
                e.arm(Due::At(e.fin_due), due, stall, now);
            }
            _ => return self.rearm_both(x, stall, backend_head, now),
        }
        self.timers.file_exchange(x.0.slot, e.due());
    }

    /// Sets the deadlines by what each leg can do now.
    fn rearm_both(&mut self, x: ExchangeId, stall: Duration, backend_head: Duration, now: Instant) {
        let e = &self.tables.exchanges[x];
        let (client, backend) = (self.client_due(e), self.backend_due(e, backend_head));
        let stall = if planted!(40) { stall / 2 } else { stall };
        self.tables.exchanges[x].arm(client, backend, stall, now);
        self.file_exchange(x);
    }

    /// What the client is waited for.
    fn client_due(&self, e: &Exchange) -> Due {
        let (recv, send) = self.client_wants(e);
        match e.phase {
            _ if (recv && !e.awaits_continue) || send => Due::Window,
            Phase::Connecting | Phase::Sending => Due::At(e.fin_due),
            _ => Due::Never,
        }
    }

    /// Whether the client's leg would read, and whether it has something to send.
    fn client_wants(&self, e: &Exchange) -> (bool, bool) {
        let conn = &self.tables.conns[e.client.conn];
        match &conn.wire {
            Wire::Multiplexed(streams) => {
                let ready = e.response.ready_len(e.backend.map(|leg| &self.tables.conns[leg.conn].wire));
                let room = e.request.ready_len(None) < crate::wire::STREAM_CREDIT
                    && streams.may_receive(e.client.stream);
                let begun = matches!(e.phase, Phase::Responding | Phase::LocalReply);
                let unsent = ready > 0 || (begun && streams.protocol.has_output());
                (!e.request.ended && e.takes_request_body() && room, unsent)
            }
            _ => (super::wants_recv(conn, Some(e)), self.wants_send(conn)),
        }
    }

    /// What the backend is waited for.
    fn backend_due(&self, e: &Exchange, backend_head: Duration) -> Due {
        let Some(leg) = e.backend else { return Due::Never };
        let conn = &self.tables.conns[leg.conn];
        let (recv, send) = match &conn.wire {
            Wire::Multiplexed(streams) => {
                let ready = e.request.ready_len(Some(&self.tables.conns[e.client.conn].wire));
                let room = e.response.ready_len(None) < crate::wire::STREAM_CREDIT
                    && streams.may_receive(leg.stream);
                (!e.response.ended && room, ready > 0)
            }
            _ => (super::wants_recv(conn, Some(e)), self.wants_send(conn)),
        };
        match e.phase {
            // The connection has its own.
            Phase::Connecting => Due::Never,
            _ if send => Due::Window,
            Phase::Responding if !e.response.ended && recv => Due::Window,
            Phase::Responding => Due::Never,
            _ if e.times.sent == Instant::NEVER => Due::Never,
            _ => Due::At(e.waits_since + backend_head),
        }
    }

    /// The client, or whoever is waited for on its behalf, has not done what it should in time.
    fn client_overdue(&mut self, x: ExchangeId, now: Instant) {
        let e = &self.tables.exchanges[x];
        match e.phase {
            Phase::Choosing | Phase::Connecting | Phase::Sending if e.fin_due <= now => {
                return self.client_fin_due(x, now);
            }
            Phase::Choosing => return self.refuse_waiting(x, Cause::QueueTimeout),
            Phase::Asking(_) => return self.fail_exchange(x, Cause::LookupFailed),
            _ => {}
        }
        let limits = match e.pool {
            Some(slot) => &self.pools.get(slot).pool().limits,
            None => &self.pools.config.limits,
        };
        let (recv, send) = self.client_wants(e);
        let least = if recv { limits.min_upload_rate } else { limits.min_download_rate };
        if !self.tables.exchanges[x].client_window.is_over(least, now) {
            return self.rearm(x, now);
        }
        // Who takes nothing of a response takes nothing of another one either.
        if send {
            self.abort(x, Cause::ClientStalled, now);
        } else {
            self.break_exchange(x, Cause::ClientStalled, now);
        }
    }

    /// The backend has not done what it should in time.
    fn backend_overdue(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        match e.phase {
            Phase::Tunnel => self.abort(x, Cause::TunnelTimeout, now),
            Phase::Responding if e.backend_window.is_over(0, now) => {
                let since = e.backend_window.start;
                self.distrust_silence(x, since);
                self.break_exchange(x, Cause::BackendStalled, now);
            }
            Phase::Sending if e.times.sent != Instant::NEVER => {
                let since = e.times.sent;
                self.distrust_silence(x, since);
                self.attempt_failed(x, Cause::BackendTimeout, now);
            }
            Phase::Sending if e.backend_window.is_over(0, now) => {
                let since = e.backend_window.start;
                self.distrust_silence(x, since);
                self.attempt_failed(x, Cause::BackendStalled, now);
            }
            _ => self.rearm(x, now),
        }
    }

    /// A drain will begin soon: whoever asks is told to send nothing any more. Everything is served on.
    pub fn announce_drain(&mut self) {
        self.drain.announced = true;
    }

    /// Takes nothing new, ends what runs, cuts what is left at `until`; [`Effect::Drained`] says when nothing
    /// is left.
    pub fn drain(&mut self, until: Instant, now: Instant) {
        self.drain.announced = true;
        let first = self.drain.until.is_none();
        self.drain.until = Some(self.drain.until.map_or(until, |before| before.min(until)));
        if !first {
            return;
        }
        let lingering = |conn: &Conn| matches!(&conn.role, Role::Client(client) if client.lingering);
        for c in self.conns_that(lingering) {
            let at = self.tables.conns[c].deadline.min(until - super::accept::BEFORE_DRAINED);
            self.set_deadline(c, at);
        }
        self.drain_streams(now);
        let idle = |conn: &Conn| !conn.is_busy() && conn.wire.is_drained() && !is_multiplexed_client(conn);
        for c in self.conns_that(idle) {
            match self.tables.conns.get(c).map(|conn| &conn.role) {
                // Who has just come may have asked already, and may not ask again by itself: it has a moment,
                // and then its response. So may who asks one thing after another.
                Some(Role::Client(client))
                    if !client.lingering && (client.requests == 0 || self.was_served_lately(c, now)) =>
                {
                    let moment = if client.requests == 0 { super::accept::LINGER } else { LATELY };
                    let deadline = self.tables.conns[c].deadline;
                    let at = deadline.min(now + moment).min(until - super::accept::BEFORE_DRAINED);
                    self.set_deadline(c, at);
                }
                // What has reached the socket but has not been read would be lost to a reset.
                Some(Role::Client(client)) if !client.lingering => self.linger(c, now),
                Some(Role::Backend(_)) => self.close(c),
                _ => {}
            }
        }
        self.finish_drain();
    }

    /// Whether the last response on a connection that lies idle now ended a short while ago.
    fn was_served_lately(&self, c: ConnId, now: Instant) -> bool {
        // Its deadline was set then. Without a timeout nobody knows.
        self.tables.conns[c].deadline + LATELY >= now + self.pools.config.timeouts.idle
    }

    pub(super) fn conns_that(&self, test: impl Fn(&Conn) -> bool) -> Vec<ConnId> {
        self.tables.conns.iter().filter(|(_, conn)| test(conn)).map(|(c, _)| c).collect()
    }

    fn cut_all(&mut self, now: Instant) {
        let all: Vec<ExchangeId> = self.tables.exchanges.iter().map(|(x, _)| x).collect();
        for x in all {
            if self.tables.exchanges.get(x).is_some() {
                self.abort(x, Cause::Drained, now);
            }
        }
        for c in self.conns_that(|_| true) {
            match self.tables.conns.get(c).map(|conn| &conn.role) {
                Some(Role::Probe(_)) => self.probe_failed(c, Cause::Drained, now),
                Some(_) => self.close(c),
                None => {}
            }
        }
        self.finish_drain();
    }

    /// Says once that nothing is left, when that is so.
    #[inline]
    pub(super) fn finish_drain(&mut self) {
        if self.drain.until.is_some() && !self.drain.ended {
            self.end_drain_if_empty();
        }
    }

    #[cold]
    fn end_drain_if_empty(&mut self) {
        if self.tables.clients > 0 || !self.tables.exchanges.is_empty() {
            return;
        }
        self.drain.ended = true;
        for c in self.conns_that(|_| true) {
            self.close(c);
        }
        self.timers.forget_exchanges();
        if !(planted!(22) && self.identity.shard == 1) {
            self.signals.effects.push_back(Effect::Drained);
        }
    }
}

impl Exchange {
    /// Sets both deadlines.
    #[inline]
    fn arm(&mut self, client: Due, backend: Due, stall: Duration, now: Instant) {
        self.client_due = self.client_window.arm(client, stall, now);
        self.backend_due = self.backend_window.arm(backend, stall, now);
    }
}

impl Window {
    /// When the wait is over; a window that is not wanted ends.
    #[inline]
    fn arm(&mut self, due: Due, stall: Duration, now: Instant) -> Instant {
        match due {
            Due::Window => {
                if self.start == Instant::NEVER {
                    *self = Self { start: now, bytes: 0 };
                }
                self.start + stall
            }
            Due::At(at) => {
                self.start = Instant::NEVER;
                at
            }
            Due::Never => {
                self.start = Instant::NEVER;
                Instant::NEVER
            }
        }
    }

    /// The stall time is over: whether too few bytes moved in it. If enough did, the next window begins.
    fn is_over(&mut self, least_per_sec: u32, now: Instant) -> bool {
        let secs = now.since(self.start).as_secs().max(1);
        let least = (u64::from(least_per_sec) * secs).max(1);
        if self.bytes < least {
            return true;
        }
        *self = Self { start: now, bytes: 0 };
        false
    }
}

impl Timers {
    /// Moves a connection's deadline. The wheel hears of it only when it comes nearer: activity costs one
    /// store.
    #[inline]
    pub(super) fn set_deadline(&mut self, c: ConnId, conn: &mut Conn, at: Instant) {
        conn.deadline = at;
        self.file_conn(c, conn, at);
    }

    /// Files a connection to be looked at then, unless it will be earlier.
    #[inline]
    pub(super) fn file_conn(&mut self, c: ConnId, conn: &mut Conn, at: Instant) {
        if at < conn.filed && !(planted!(9) && conn.filed != Instant::NEVER) {
            conn.filed = at;
            self.wheel.set(TimerKey::Conn(c.slot), at);
        }
    }

    /// Files the exchange in this slot, if its deadline has come nearer than what is filed.
    #[inline]
    fn file_exchange(&mut self, slot: u32, at: Instant) {
        if self.exchange_filed.len() <= slot as usize {
            self.exchange_filed.resize(slot as usize + 1, Instant::NEVER);
        }
        let filed = &mut self.exchange_filed[slot as usize];
        if at < *filed && !(planted!(9) && *filed != Instant::NEVER) {
            *filed = at;
            self.wheel.set(TimerKey::Exchange(slot), at);
        }
    }

    /// Entries of the wheel but those that exchanges have left behind. `lives`: whether there is one in a
    /// slot.
    pub(super) fn len(&self, lives: impl Fn(u32) -> bool) -> usize {
        let left = self.exchange_filed.iter().enumerate();
        let left = left.filter(|(slot, filed)| **filed != Instant::NEVER && !lives(*slot as u32)).count();
        self.wheel.len() - left
    }

    /// No exchange is left: nor are entries of any.
    fn forget_exchanges(&mut self) {
        for (slot, filed) in self.exchange_filed.iter_mut().enumerate() {
            if std::mem::replace(filed, Instant::NEVER) != Instant::NEVER {
                self.wheel.clear(TimerKey::Exchange(slot as u32));
            }
        }
    }

    /// What is filed for exchanges is never later than it should be; for tests and debug builds.
    pub(super) fn check_exchange(&self, slot: u32, at: Instant) {
        let filed = self.exchange_filed.get(slot as usize).copied().unwrap_or(Instant::NEVER);
        assert!(filed <= at, "a deadline of an exchange that the wheel does not know");
    }
}

/// It is told that it ends, and ends when it knows.
fn is_multiplexed_client(conn: &Conn) -> bool {
    matches!(conn.role, Role::Client(_)) && conn.wire.streams().is_some()
}
