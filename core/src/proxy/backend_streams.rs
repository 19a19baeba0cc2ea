//! Connections to backends that carry streams of many exchanges: which one an exchange gets, what becomes of
//! it when that one turns out to speak HTTP/1.1, and how they end.

use std::time::Duration;

use super::Proxy;
use super::choose::Loss;
use super::exchange::{Exchange, Leg, Phase, Window};
use super::shard_pool::Spoken;
use crate::cause::Cause;
use crate::config::{Http2Use, Pool};
use crate::conn::Role;
use crate::h1::Side;
use crate::h1::conn::Conn as H1;
use crate::h2::Reason;
use crate::h2::keepalive::Verdict;
use crate::http::Violation;
use crate::id::{ConnId, ExchangeId};
use crate::observe::{Level, Observer};
use crate::planted::planted;
use crate::time::Instant;
use crate::wire::{self, Multiplexed, Streams, Wire};

impl Exchange {
    /// Its connection to the backend must be one of HTTP/1.1, where there is a choice: HTTP/2 knows neither
    /// credentials of a connection nor upgrades, but for WebSockets where the backend takes them.
    #[inline]
    pub(super) fn needs_http1(&self, websockets: bool) -> bool {
        let upgrades = self.head.upgrade().is_some() && !(websockets && self.head.opens_websocket());
        self.binds || self.http1_only || upgrades
    }
}

impl<O: Observer> Proxy<O> {
    /// Whether the exchange goes on a stream of a connection that others share.
    #[inline]
    pub(super) fn goes_on_stream(&self, x: ExchangeId, at: u32) -> bool {
        let of = &self.pools.backends[at as usize];
        match of.http2 {
            Http2Use::Never => self.backend_protocol.is_some(),
            Http2Use::Always => true,
            // As long as nobody knows, one connection is made for all who wait: it will be one of HTTP/2 or
            // tell that there is none.
            Http2Use::Offered => {
                of.spoken != Spoken::Http1 && !self.tables.exchanges[x].needs_http1(self.takes_websockets(at))
            }
        }
    }

    /// Finds a connection to the chosen backend that takes one more stream, or opens one.
    pub(super) fn attach_stream(&mut self, x: ExchangeId, at: u32, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        e.attempts = e.attempts.saturating_add(1);
        (e.reused, e.backend_window) = (false, Window::NONE);
        // Credentials that might authenticate a connection go on one that nobody shares.
        let alone = e.binds;
        let mut place = if alone { usize::MAX } else { 0 };
        while let Some(&b) = self.pools.backends[at as usize].shared_conns.get(place) {
            place += 1;
            let conn = &mut self.tables.conns[b];
            let busy = conn.is_busy();
            let Role::Backend(role) = &mut conn.role else { continue };
            let state = &self.pools.backends[at as usize].state;
            if role.epoch != state.epoch() {
                if !state.trusts(role.to, role.epoch) {
                    // It ends with the streams that it has.
                    if !busy {
                        place -= 1;
                        self.close(b);
                    }
                    continue;
                }
                role.epoch = state.epoch();
            }
            // Only a connection that comes about says that a half-open backend is well.
            if role.connected && !state.health().usable() {
                continue;
            }
            let connected = role.connected;
            let Some(streams) = conn.wire.streams_mut() else { continue };
            let expected = &mut self.pools.backends[at as usize].streams;
            *expected = streams.protocol.peer_streams().unwrap_or(*expected);
            if let Some(stream) = streams.open(*expected) {
                if !connected {
                    self.step_attached(x, b, None);
                }
                return self.attach_to(x, Leg { conn: b, stream }, connected, now);
            }
        }
        let mut streams = self.new_streams(x, at, now);
        let Some(stream) = streams.open(u32::MAX) else {
            return self.attempt_failed(x, Cause::ConnectFailed, now);
        };
        match self.open_backend(at, x, Wire::Multiplexed(streams), now) {
            Some(b) => {
                if !alone {
                    self.pools.backends[at as usize].shared_conns.push(b);
                }
                self.attach_to(x, Leg { conn: b, stream }, false, now);
            }
            None => self.attempt_failed(x, Cause::ConnectUnreachable, now),
        }
    }

    /// The protocol of a new connection.
    fn new_streams(&self, x: ExchangeId, at: u32, now: Instant) -> Streams {
        let pool = self.pools.get(self.tables.exchanges[x].pool.expect("routed"));
        let protocol: Box<dyn Multiplexed> = match self.backend_protocol {
            Some(make) => make(),
            None => {
                let secure = self.pools.backends[at as usize].state.tls().is_some();
                let window = self.pools.config.http2.backend_window;
                wire::http2_client(&pool.head_limits, window, secure, now)
            }
        };
        let keepalive = self.pools.config.http2.backend_keepalive;
        Streams::to_backend(protocol, keepalive, idle_timeout(pool.pool()), now)
    }

    fn attach_to(&mut self, x: ExchangeId, leg: Leg, connected: bool, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        (e.backend, e.phase, e.reused) = (Some(leg), Phase::Connecting, connected);
        let pool = self.pools.get(e.pool.expect("routed")).pool();
        let idle_timeout = idle_timeout(pool);
        if !connected {
            e.connect_until = e.connect_until.min(now + pool.timeouts.connect);
        }
        let mut begins = false;
        if let Some(streams) = self.tables.conns[leg.conn].wire.streams_mut() {
            begins = streams.exchanges.is_empty();
            streams.exchanges.push((leg.stream, x));
            if begins {
                streams.keepalive.heard(now);
            }
            if let Some(life) = &mut streams.life {
                life.idle_timeout = idle_timeout;
            }
        }
        if !connected {
            return self.mark_dirty(x);
        }
        self.step_attached(x, leg.conn, None);
        if let Role::Backend(role) = &mut self.tables.conns[leg.conn].role {
            role.uses = role.uses.saturating_add(1);
        }
        self.start_sending(x, now);
        // Last: it may turn out to be dead.
        if begins {
            self.look_after(leg.conn, now);
        }
    }

    /// The backend took the connection: everybody who waits for it sends.
    pub(super) fn streams_connected(&mut self, b: ConnId, now: Instant) {
        if let Role::Backend(role) = &self.tables.conns[b].role {
            self.pools.backends[role.backend as usize].state.connected_to(role.to);
        }
        if let Some(streams) = self.tables.conns.get_mut(b).and_then(|conn| conn.wire.streams_mut()) {
            streams.keepalive.connected(now);
            if let Some(life) = &mut streams.life {
                life.idle_since = now;
            }
        }
        self.look_after(b, now);
        let all = self.exchanges_of(b);
        if let Some(Role::Backend(role)) = self.tables.conns.get_mut(b).map(|conn| &mut conn.role) {
            role.uses = all.len() as u32;
        }
        for x in all {
            if self.tables.exchanges.get(x).is_some_and(|e| e.phase == Phase::Connecting) {
                self.backend_is_up(x, now);
                self.start_sending(x, now);
            }
        }
        self.mark_ready(b);
    }

    /// When a connection must have come about, whichever address it leads to; `None`: nobody waits for it.
    pub(super) fn connect_until(&self, b: ConnId) -> Option<Instant> {
        let conn = self.tables.conns.get(b)?;
        let streams = conn.wire.streams().map_or(&[][..], |streams| &streams.exchanges);
        let all = conn.exchange.iter().chain(streams.iter().map(|(_, x)| x));
        all.map(|x| self.tables.exchanges[*x].connect_until).min()
    }

    /// A connection that is to carry streams has not come about in time.
    pub(super) fn streams_connect_due(&mut self, b: ConnId, now: Instant) {
        let Role::Backend(role) = &self.tables.conns[b].role else { return };
        let state = &self.pools.backends[role.backend as usize].state;
        let others = state.has_other_than(role.to) && state.health().usable();
        match self.connect_until(b) {
            // The other addresses have failed meanwhile, or the backend has.
            Some(whole) if now < whole && !others => self.set_deadline(b, whole),
            _ => self.backend_streams_lost(b, Cause::ConnectTimeout, now),
        }
    }

    // What TLS has agreed on.

    /// A backend that TLS is spoken with has chosen nothing. False if the connection is of no use.
    pub(super) fn chose_http1(&mut self, b: ConnId, now: Instant) -> bool {
        let tls = match self.tables.conns.get(b).map(|conn| &conn.role) {
            Some(Role::Backend(role)) => self.pools.backends[role.backend as usize].state.tls().is_some(),
            _ => false,
        };
        !tls || self.backend_chose(b, false, now)
    }

    /// A backend has chosen what is spoken. False if the connection is of no use.
    pub(super) fn backend_chose(&mut self, b: ConnId, http2: bool, now: Instant) -> bool {
        let conn = &self.tables.conns[b];
        let Role::Backend(role) = &conn.role else { return true };
        let of = &mut self.pools.backends[role.backend as usize];
        let shared = conn.wire.streams().is_some();
        match (of.http2, http2) {
            (Http2Use::Always, false) => {
                self.backend_streams_lost(b, Cause::BadResponse(Violation::NotHttp2), now);
                return false;
            }
            (_, true) => {
                of.spoken = Spoken::Http2;
                if !shared {
                    self.becomes_shared(b, now);
                }
            }
            (_, false) if shared => {
                of.spoken = Spoken::Http1;
                self.becomes_single(b, now);
            }
            (_, false) => {}
        }
        self.tables.conns.get(b).is_some()
    }

    /// A connection that was made for one exchange carries many.
    fn becomes_shared(&mut self, b: ConnId, now: Instant) {
        let conn = &mut self.tables.conns[b];
        let (Some(x), Role::Backend(role)) = (conn.exchange.take(), &conn.role) else { return };
        let at = role.backend;
        conn.wire.clear(&mut self.tables.pages);
        let mut streams = self.new_streams(x, at, now);
        let stream = streams.open(u32::MAX);
        self.tables.conns[b].wire = Wire::Multiplexed(streams);
        self.pools.backends[at as usize].shared_conns.push(b);
        self.redeem_page(x);
        match stream {
            Some(stream) => self.attach_to(x, Leg { conn: b, stream }, false, now),
            None => {
                self.tables.exchanges[x].backend = None;
                self.attempt_failed(x, Cause::ConnectFailed, now);
            }
        }
    }

    /// A connection that was made for many exchanges carries one: the others get connections of their own.
    /// That is no attempt more.
    fn becomes_single(&mut self, b: ConnId, now: Instant) {
        let all = self.exchanges_of(b);
        let conn = &mut self.tables.conns[b];
        if let Role::Backend(role) = &conn.role {
            self.pools.backends[role.backend as usize].unshare(b);
        }
        conn.wire = Wire::H1(H1::new(Side::Server));
        let Some((first, others)) = all.split_first() else {
            // Whoever wanted it has gone.
            return self.close(b);
        };
        conn.exchange = Some(*first);
        self.tables.exchanges[*first].backend = Some(Leg::only(b));
        for x in others {
            self.tables.exchanges[*x].backend = None;
        }
        for x in others {
            self.attach_anew(*x, now);
        }
    }

    /// The exchange needs another connection to the same backend, through no fault of anybody's.
    pub(super) fn attach_anew(&mut self, x: ExchangeId, now: Instant) {
        if let Some(e) = self.tables.exchanges.get_mut(x) {
            e.take_back_attempt();
            self.attach(x, true, now);
        }
    }

    // How streams end.

    /// The backend ended a stream at once.
    pub(super) fn backend_reset_stream(
        &mut self,
        x: ExchangeId,
        reason: Reason,
        unprocessed: bool,
        now: Instant,
    ) {
        let unprocessed = unprocessed || planted!(176);
        let e = &mut self.tables.exchanges[x];
        let Some(leg) = e.backend.take() else { return };
        // It has said all that it has to say, and reads nothing any more: both directions of a tunnel are
        // closed. (HAProxy says so with CANCEL.)
        let quiet = matches!(reason, Reason::NO_ERROR | Reason::CANCEL);
        e.request_sent |= quiet && e.phase == Phase::Tunnel && e.response.ended;
        let mut leaving = false;
        if let Some(streams) = self.tables.conns[leg.conn].wire.streams_mut() {
            streams.forget(leg.stream);
            leaving = streams.protocol.is_leaving();
            if unprocessed && !leaving {
                streams.refused();
            }
        }
        if planted!(179) && unprocessed && !leaving {
            self.count_failed_connect(x, Cause::BackendReset, now);
        }
        let e = &mut self.tables.exchanges[x];
        let responded = matches!(e.phase, Phase::Responding | Phase::Tunnel);
        if reason == Reason::HTTP_1_1_REQUIRED && !responded && self.may_speak_http1(x) {
            self.tables.exchanges[x].http1_only = true;
            self.attempt_unprocessed(x, Cause::BackendReset, true, now);
        } else if unprocessed && !responded {
            // Whoever says in time that he leaves has not failed.
            self.attempt_unprocessed(x, Cause::BackendReset, leaving, now);
        } else {
            // The exchange still counts as attached until it is decided what becomes of it.
            self.lose_backend_leg(x, Cause::BackendReset, Loss::Stream, now);
        }
        self.stream_gone(leg.conn, now);
    }

    pub(super) fn may_speak_http1(&self, x: ExchangeId) -> bool {
        let e = &self.tables.exchanges[x];
        let pool = self.pools.get(e.pool.expect("routed"));
        let at = pool.backends[usize::from(e.choice.expect("chosen"))];
        !e.http1_only && self.pools.backends[at as usize].http2 == Http2Use::Offered
    }

    /// The backend leg of an exchange is gone, and its connection knows nothing of it any more.
    fn lose_backend_leg(&mut self, x: ExchangeId, cause: Cause, loss: Loss, now: Instant) {
        let e = &self.tables.exchanges[x];
        match e.phase {
            // All of the response lies in the exchange's own page: it only has to be sent.
            Phase::Responding if e.response.ended => self.release_slot(x),
            Phase::Tunnel if e.response.ended && e.request_sent => {
                self.release_slot(x);
                self.finish_if_done(x, now);
            }
            Phase::Tunnel => self.abort(x, cause, now),
            // Why it broke is known.
            Phase::Responding if matches!(cause, Cause::BadResponse(_)) => self.break_exchange(x, cause, now),
            Phase::Responding => self.break_exchange(x, Cause::ResponseTruncated, now),
            _ => self.attempt_over(x, cause, loss, now),
        }
    }

    /// A stream of a connection to a backend is through: an idle connection may have to go.
    pub(super) fn stream_gone(&mut self, b: ConnId, now: Instant) {
        let Some(conn) = self.tables.conns.get_mut(b) else { return };
        self.signals.mark_ready(b, conn);
        if conn.is_busy() {
            return;
        }
        let Role::Backend(role) = &conn.role else { return };
        let of = &mut self.pools.backends[role.backend as usize];
        let doubtful = role.epoch != of.state.epoch() && !of.state.trusts(role.to, role.epoch);
        let (shared, connected) = (of.shared_conns.contains(&b), role.connected);
        let Some(streams) = conn.wire.streams_mut() else { return };
        let over = streams.protocol.is_leaving() || streams.most == 0;
        if over || doubtful || !shared || of.retired() || self.drain.until.is_some() {
            if !connected || !streams.protocol.has_output() {
                self.close(b);
            } else {
                // What the backend is to be told of the last stream goes first, for a moment.
                of.unshare(b);
                self.set_deadline(b, now + super::accept::LINGER);
            }
            return;
        }
        if !connected {
            // Whoever wants it next finds it under way: its time to come about goes on.
            return;
        }
        if let Some(life) = &mut streams.life {
            life.idle_since = now;
        }
        self.look_after(b, now);
    }

    // Whether a connection is kept.

    /// Sets the deadline that the state of a connection to a backend asks for, and does what is due.
    pub(super) fn look_after(&mut self, b: ConnId, now: Instant) {
        let Some(conn) = self.tables.conns.get_mut(b) else { return };
        let busy = conn.is_busy();
        let Role::Backend(role) = &conn.role else { return };
        let shared = self.pools.backends[role.backend as usize].shared_conns.contains(&b);
        let Some(streams) = conn.wire.streams_mut() else { return };
        if !busy && !shared {
            return self.close(b);
        }
        let settled = streams.protocol.is_settled();
        let Some(life) = &mut streams.life else { return };
        let verdict = streams.keepalive.look(busy, settled, now);
        let idle_until = if busy { Instant::NEVER } else { life.idle_since + life.idle_timeout };
        match verdict {
            Verdict::Lost | Verdict::Unsettled => self.backend_streams_lost(b, Cause::BackendLost, now),
            _ if idle_until <= now => self.close(b),
            Verdict::Wait(until) => self.set_deadline(b, until.min(idle_until)),
            Verdict::Ping(_) if planted!(187) => self.set_deadline(b, idle_until),
            Verdict::Ping(until) => {
                streams.protocol.ping();
                self.set_deadline(b, until.min(idle_until));
                self.mark_ready(b);
            }
        }
    }

    /// A stream has been waited for in vain. If nothing at all has come on its connection since then, that
    /// gets no further streams, as a connection of HTTP/1.1 gets no further requests: it may be dead, and who
    /// asks one thing after another would wait each time.
    pub(super) fn distrust_silence(&mut self, x: ExchangeId, since: Instant) {
        let Some(leg) = self.tables.exchanges[x].backend else { return };
        let conn = &self.tables.conns[leg.conn];
        let (Role::Backend(role), Some(streams)) = (&conn.role, conn.wire.streams()) else { return };
        if !streams.keepalive.heard_since(since) && !planted!(188) {
            self.pools.backends[role.backend as usize].unshare(leg.conn);
        }
    }

    /// The backend broke the protocol. It is told, and nothing else is spoken with it.
    pub(super) fn backend_streams_broken(&mut self, b: ConnId, reason: Reason, now: Instant) {
        let Some(streams) = self.tables.conns[b].wire.streams() else { return };
        let foreign = streams.protocol.is_foreign();
        let violation = if foreign { Violation::NotHttp2 } else { Violation::Http2Connection };
        self.note_broken(b, foreign, reason, now);
        self.lose_exchanges(b, Cause::BadResponse(violation), now);
        if foreign || self.tables.conns.get(b).is_none_or(|conn| !conn.wire.has_output(0)) {
            return self.close(b);
        }
        self.set_deadline(b, now + super::accept::LINGER);
        self.mark_ready(b);
    }

    /// Says what a backend has done, but not all the time.
    #[cold]
    fn note_broken(&mut self, b: ConnId, foreign: bool, reason: Reason, now: Instant) {
        let conn = &self.tables.conns[b];
        let Role::Backend(role) = &conn.role else { return };
        let of = &mut self.pools.backends[role.backend as usize];
        if of.noted.is_some_and(|at| now.since(at) < super::accept::NOTE_EVERY) {
            return;
        }
        of.noted = Some(now);
        let label = of.state.label();
        let what = if foreign {
            "it answers in HTTP/1, where HTTP/2 is to be spoken".to_owned()
        } else {
            format!("it broke a rule of HTTP/2, and the connection ends with {reason}")
        };
        self.observer.note(Level::Warning, &format!("backend {label}: {what}"));
    }

    /// A connection to a backend is gone: each of its exchanges goes on as it can.
    pub(super) fn backend_streams_lost(&mut self, b: ConnId, cause: Cause, now: Instant) {
        self.lose_exchanges(b, cause, now);
        self.close(b);
    }

    /// Nothing that a connection to a backend carries goes on there.
    fn lose_exchanges(&mut self, b: ConnId, cause: Cause, now: Instant) {
        let lost = self.exchanges_of(b);
        let Some(conn) = self.tables.conns.get_mut(b) else { return };
        let Role::Backend(role) = &conn.role else { return };
        let (connected, to, at) = (role.connected, role.to, role.backend);
        if let Some(streams) = conn.wire.streams_mut() {
            streams.exchanges.clear();
        }
        // Nobody else gets it.
        self.pools.backends[at as usize].unshare(b);
        for x in &lost {
            self.tables.exchanges[*x].backend = None;
        }
        if connected {
            for x in lost {
                if self.tables.exchanges.get(x).is_some() {
                    self.lose_backend_leg(x, cause, Loss::Connection, now);
                }
            }
            return;
        }
        let other_address = self.connect_refused_at(at, to, cause);
        let mut counted = false;
        for x in lost {
            if self.tables.exchanges.get(x).is_none() || self.tries_next_address(x, other_address, now) {
                continue;
            }
            // It is one connection that did not come about, however many have waited for it.
            if !std::mem::replace(&mut counted, true) {
                self.count_failed_connect(x, cause, now);
            }
            self.attempt_failed(x, cause, now);
        }
    }

    /// Connections of many streams that nothing uses and nobody will use.
    pub(super) fn close_idle_streams(&mut self, at: u32) {
        let shared = self.pools.backends[at as usize].shared_conns.clone();
        for b in shared {
            if !self.tables.conns[b].is_busy() {
                self.close(b);
            }
        }
    }
}

/// How long a connection without streams is kept: not at all by pools that keep none.
fn idle_timeout(pool: &Pool) -> Duration {
    if pool.client.max_idle_per_host == 0 { Duration::ZERO } else { pool.client.idle_timeout }
}
