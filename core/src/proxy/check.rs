//! What must hold between any two inputs. For tests and debug builds: it looks at everything.

use super::Proxy;
use super::exchange::{Leg, Phase};
use crate::config::ListenerKind;
use crate::conn::{Conn, Role};
use crate::id::{ConnId, ExchangeId};
use crate::observe::Observer;
use crate::time::Instant;

/// How much of everything there is: a shard without traffic has none but idle backend connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted connections.
    pub clients: usize,
    /// Those of them that are of the admin listener.
    pub admin_clients: usize,
    /// Connections to backends that carry an exchange, or more.
    pub backends_busy: usize,
    /// Exchanges that they carry, or will when they have come about.
    pub exchanges_on_backends: usize,
    /// Connections to backends that are idle.
    pub backends_idle: usize,
    /// Health checks under way.
    pub probes: usize,
    /// Exchanges.
    pub exchanges: usize,
    /// Pages lent.
    pub pages: usize,
    /// Entries of the timing wheel.
    pub timers: usize,
    /// Exchanges in flight at any backend of the newest configuration, over all shards.
    pub in_flight: usize,
    /// Exchanges that wait for a backend below its `max_connections`.
    pub queued: usize,
    /// Lookups that exchanges wait for.
    pub lookups: usize,
}

impl<O: Observer> Proxy<O> {
    /// How much of everything there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            exchanges: self.tables.exchanges.len(),
            pages: self.tables.pages.lent(),
            timers: self.timers.len(|slot| self.tables.exchanges.at(slot).is_some()),
            lookups: self.lookups.waiting(),
            ..Counts::default()
        };
        for (_, conn) in self.tables.conns.iter() {
            match &conn.role {
                Role::Client(client) => {
                    counts.clients += 1;
                    counts.admin_clients += usize::from(client.kind == ListenerKind::Admin);
                }
                Role::Backend(b) if b.idle || !conn.is_busy() => counts.backends_idle += 1,
                Role::Backend(_) => {
                    counts.backends_busy += 1;
                    let streams = conn.wire.streams().map_or(0, |streams| streams.exchanges.len());
                    counts.exchanges_on_backends += usize::from(conn.exchange.is_some()) + streams;
                }
                Role::Probe(_) => counts.probes += 1,
            }
        }
        for pool in self.pools.slots.iter().flatten() {
            counts.queued += pool.waiting as usize;
            if !pool.retired {
                counts.in_flight +=
                    pool.state.backends().iter().map(|b| b.in_flight() as usize).sum::<usize>();
            }
        }
        counts
    }

    /// How many exchanges of each pool of the newest configuration wait for a backend below its
    /// `max_connections`, for those pools that have any.
    pub fn queues(&self) -> impl Iterator<Item = (&str, u32)> {
        let pools = self.pools.current.iter().map(|slot| self.pools.get(*slot));
        pools.filter(|pool| pool.waiting > 0).map(|pool| (&*pool.pool().name, pool.waiting))
    }

    /// Every structural invariant.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        let (mut pages, mut held) = (0, 0);
        let mut clients = 0;
        for (c, conn) in self.tables.conns.iter() {
            conn.wire.check();
            pages += conn.wire.pages();
            held += conn.wire.streams().map_or(0, |streams| streams.protocol.held_bytes());
            clients += usize::from(matches!(conn.role, Role::Client(_)));
            self.check_timer(c, conn);
            self.check_page_waiter(c, conn);
            #[cfg(debug_assertions)]
            self.check_wants(c, conn);
            self.check_role(c, conn);
        }
        assert_eq!(clients, self.tables.clients, "clients are miscounted");
        for (x, e) in self.tables.exchanges.iter() {
            self.check_exchange(x);
            pages += e.request.pages() + e.response.pages();
        }
        assert_eq!(pages, self.tables.pages.lent(), "pages are lost or counted twice");
        assert_eq!(held as u64, self.tables.pages.outside_bytes(), "memory of streams is miscounted");
        let promised = self.tables.exchanges.iter().filter(|(_, e)| e.page_promised).count();
        assert_eq!(promised, self.tables.pages.promised(), "promised pages are miscounted");
        let idle: usize = self.pools.backends.iter().map(|backend| backend.idle.len() as usize).sum();
        let is_idle = |conn: &Conn| matches!(&conn.role, Role::Backend(b) if b.idle);
        let idle_conns = self.tables.conns.iter().filter(|(_, conn)| is_idle(conn)).count();
        assert_eq!(idle, idle_conns, "idle lists");
        for (at, backend) in self.pools.backends.iter().enumerate() {
            for b in &backend.shared_conns {
                let conn = &self.tables.conns[*b];
                let leads_there = matches!(&conn.role, Role::Backend(b) if b.backend as usize == at);
                assert!(leads_there && conn.wire.streams().is_some(), "{b:?} is shared, and should not be");
            }
        }
        for pool in self.pools.slots.iter().flatten() {
            let waits = |x: &ExchangeId| {
                self.tables.exchanges.get(*x).is_some_and(|e| e.queued && e.phase == Phase::Choosing)
            };
            let waiting = pool.queue.iter().filter(|x| waits(x)).count();
            assert_eq!(waiting, pool.waiting as usize, "the queue is miscounted");
        }
    }

    /// Who waits for a page stands where pages that come back are given out.
    fn check_page_waiter(&self, c: ConnId, conn: &Conn) {
        assert!(
            !conn.waits_for_page || self.signals.waiters.contains(c),
            "{c:?}: waits for a page, and nobody knows"
        );
    }

    fn check_timer(&self, c: ConnId, conn: &Conn) {
        assert!(
            conn.deadline == Instant::NEVER || conn.filed <= conn.deadline,
            "{c:?}: a deadline that the wheel does not know"
        );
    }

    /// Only debug builds remember what the driver was shown.
    #[cfg(debug_assertions)]
    fn check_wants(&self, c: ConnId, conn: &Conn) {
        let (wants, shown) = (self.wants(c), conn.shown);
        let covered = (!wants.recv || shown.recv) && (!wants.send || shown.send);
        assert!(
            conn.ready != crate::conn::InReadyQueue::No || conn.waits_for_page || covered,
            "{c:?}: a lost wake-up: {wants:?}, but the driver was shown {shown:?}"
        );
    }

    fn check_role(&self, c: ConnId, conn: &Conn) {
        match &conn.role {
            Role::Client(client) => {
                assert!(!client.lingering || conn.exchange.is_none(), "{c:?}: lingers with an exchange");
                if let Some(x) = conn.exchange {
                    assert_eq!(self.tables.exchanges[x].client, Leg::only(c));
                }
            }
            Role::Backend(b) => {
                let clean = conn.wire.h1().is_some_and(|h1| h1.may_request()) && conn.wire.is_drained();
                assert!(!b.idle || (b.connected && clean), "{c:?}: idle but not clean");
                assert!(
                    conn.wire.streams().is_some() || (b.idle || b.bound) == conn.exchange.is_none(),
                    "{c:?}: neither idle nor in use"
                );
                if let Some(x) = conn.exchange {
                    assert_eq!(self.tables.exchanges[x].backend, Some(Leg::only(c)));
                }
            }
            Role::Probe(_) => assert!(conn.exchange.is_none()),
        }
        for (stream, x) in conn.wire.streams().map_or(&[][..], |streams| &streams.exchanges) {
            let leg = Leg { conn: c, stream: *stream };
            let e = &self.tables.exchanges[*x];
            assert!(e.client == leg || e.backend == Some(leg), "{leg:?} serves another exchange");
        }
    }

    fn check_exchange(&self, x: ExchangeId) {
        let e = &self.tables.exchanges[x];
        let serves = |leg: Leg| {
            let conn = &self.tables.conns[leg.conn];
            match conn.wire.streams() {
                Some(streams) => streams.exchange(leg.stream) == Some(x),
                None => conn.exchange == Some(x),
            }
        };
        assert!(serves(e.client), "an exchange without its client");
        assert!(e.backend.is_none_or(serves), "an exchange without its backend");
        // A response that is complete and lies in the exchange's own page outlives its stream.
        let outlives =
            matches!(e.phase, Phase::Responding | Phase::Tunnel) && e.response.ended && !e.response.is_lent();
        let attached =
            matches!(e.phase, Phase::Connecting | Phase::Sending | Phase::Responding | Phase::Tunnel);
        assert!(e.backend.is_some() == attached || outlives, "{:?} and its connection", e.phase);
        assert!(e.holds_slot == e.backend.is_some(), "a slot without a connection, or the other way round");
        if !e.dirty {
            self.timers.check_exchange(x.0.slot, e.due());
        }
    }
}
