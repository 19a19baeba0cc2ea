//! Tells the observer what connections go through, if it wants to know: each call is one test of a flag
//! otherwise.

use super::Proxy;
use super::exchange::Exchange;
use super::request::route_input;
use super::shard_pool::PoolTable;
use crate::balance::Choice;
use crate::cause::Cause;
use crate::config::Strategy;
use crate::conn::{Conn, Role};
use crate::endpoint::Endpoint;
use crate::event::Accepted;
use crate::id::{ConnId, ExchangeId};
use crate::observe::{Observer, Step};

impl<O: Observer> Proxy<O> {
    /// A step that needs nothing to be looked up.
    #[inline]
    pub(super) fn step(&mut self, c: ConnId, step: Step<'_>) {
        if self.observer.wants_steps() {
            self.observer.step(c, &step);
        }
    }

    #[inline]
    pub(super) fn step_bytes(&mut self, c: ConnId, step: Step<'_>) {
        if self.observer.wants_bytes() {
            self.observer.step(c, &step);
        }
    }

    #[inline]
    pub(super) fn step_accepted(&mut self, c: ConnId, a: &Accepted) {
        self.step(c, Step::Accepted { peer: a.peer, port: a.local.port(), kind: a.kind });
    }

    /// `place`: that of the pool that takes a request.
    #[inline]
    pub(super) fn step_routed(&mut self, x: ExchangeId, place: Option<u16>) {
        if self.observer.wants_steps() {
            self.tell_routed(x, place);
        }
    }

    #[cold]
    fn tell_routed(&mut self, x: ExchangeId, place: Option<u16>) {
        let e = &self.tables.exchanges[x];
        let pools = &self.pools.config.pools;
        let pool = place.map(|place| &pools[usize::from(place)]);
        let client = self.tables.conns[e.client.conn].client();
        let asked = route_input(client, self.pools.place_of(client.listener), e);
        let step = Step::Routed {
            asked: &asked,
            target: e.head.target(),
            pool: pool.map(|pool| (&*pool.name, &pool.matcher)),
            passed: place.map_or(pools.len(), usize::from),
        };
        self.observer.exchange_step(e.client.conn, e.client.stream, &step);
    }

    /// What came of choosing a backend.
    #[inline]
    pub(super) fn step_choice(&mut self, x: ExchangeId, choice: &Choice) {
        if self.observer.wants_steps() {
            self.tell_choice(x, choice);
        }
    }

    #[cold]
    fn tell_choice(&mut self, x: ExchangeId, choice: &Choice) {
        let e = &self.tables.exchanges[x];
        let pool = self.pools.get(e.pool.expect("routed")).pool();
        let step = match *choice {
            Choice::Backend(place) if e.sticky_choice == Some(place) => {
                Step::Chosen { backend: &pool.backends[usize::from(place)].label, by: "its cookie" }
            }
            Choice::Backend(place) => Step::Chosen {
                backend: &pool.backends[usize::from(place)].label,
                by: strategy_name(&pool.strategy),
            },
            Choice::Full => Step::Full,
            Choice::None => Step::NoneLeft { tried: e.failed.len() },
        };
        self.observer.exchange_step(e.client.conn, e.client.stream, &step);
    }

    /// The exchange's connection to its backend: a new one to this address, or one that is there already.
    #[inline]
    pub(super) fn step_attached(&mut self, x: ExchangeId, b: ConnId, to: Option<&Endpoint>) {
        if self.observer.wants_steps() {
            self.tell_attached(x, b, to);
        }
    }

    #[cold]
    fn tell_attached(&mut self, x: ExchangeId, conn: ConnId, to: Option<&Endpoint>) {
        let e = &self.tables.exchanges[x];
        let backend = label(&self.pools, e);
        let step = match (to, &self.tables.conns[conn].role) {
            (Some(to), _) => Step::Connecting { backend, conn, to },
            (None, Role::Backend(role)) if !role.connected => Step::Joined { backend, conn },
            (None, Role::Backend(role)) => Step::Reused { backend, conn, uses: role.uses },
            (None, _) => return,
        };
        self.observer.exchange_step(e.client.conn, e.client.stream, &step);
    }

    #[cold]
    pub(super) fn step_failed(&mut self, x: ExchangeId, cause: Cause) {
        if self.observer.wants_steps() {
            let e = &self.tables.exchanges[x];
            let step = Step::AttemptFailed { backend: label(&self.pools, e), cause };
            self.observer.exchange_step(e.client.conn, e.client.stream, &step);
        }
    }

    #[inline]
    pub(super) fn step_responded(&mut self, x: ExchangeId) {
        if self.observer.wants_steps() {
            let e = &self.tables.exchanges[x];
            let step = Step::Responded { backend: label(&self.pools, e), status: e.status };
            self.observer.exchange_step(e.client.conn, e.client.stream, &step);
        }
    }

    #[inline]
    pub(super) fn step_ended(&mut self, x: ExchangeId) {
        if self.observer.wants_steps() {
            let e = &self.tables.exchanges[x];
            self.observer.exchange_step(
                e.client.conn,
                e.client.stream,
                &Step::Ended { status: e.status, cause: e.cause },
            );
        }
    }

    /// A connection that has been taken out of every table.
    #[inline]
    pub(super) fn step_closed(&mut self, c: ConnId, conn: &Conn, reset: bool) {
        if self.observer.wants_steps() {
            let why = close_reason(conn, reset, self.drain.until.is_some());
            self.observer.step(c, &Step::Closed { reset, why });
        }
    }
}

/// Label of the backend that an exchange has chosen.
fn label<'p>(pools: &'p PoolTable, e: &Exchange) -> &'p str {
    let backend = e.pool.zip(e.choice);
    backend.map_or("", |(slot, place)| &pools.get(slot).pool().backends[usize::from(place)].label)
}

fn strategy_name(strategy: &Strategy) -> &'static str {
    match strategy {
        Strategy::RoundRobin => "RoundRobin",
        Strategy::Random => "Random",
        Strategy::IpHash => "IPHash",
        Strategy::LeastConnection => "LeastConnection",
        Strategy::StickyCookie(cookie) => match &*cookie.inner {
            Strategy::Random => "StickyCookie's Random",
            Strategy::IpHash => "StickyCookie's IPHash",
            Strategy::LeastConnection => "StickyCookie's LeastConnection",
            _ => "StickyCookie's RoundRobin",
        },
    }
}

fn close_reason(conn: &Conn, reset: bool, draining: bool) -> &'static str {
    match &conn.role {
        _ if reset => "an exchange was cut",
        Role::Probe(_) => "the health check is over",
        _ if conn.broken => "it broke",
        _ if conn.recv_ended || conn.peer_closing => "its peer has closed it",
        Role::Client(client) if client.lingering => "its last response has been sent",
        _ if draining => "the process stops",
        Role::Client(_) => "no request will follow",
        Role::Backend(backend) if !backend.connected => "it did not come about",
        Role::Backend(_) => "it is not used again",
    }
}
