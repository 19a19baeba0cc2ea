//! What must hold between any two inputs. For tests and debug builds: it looks at everything.

use super::Proxy;
use super::exchange::Phase;
use crate::conn::Role;
use crate::observe::Observer;

/// How much of everything there is: a shard without traffic has none but idle backend connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted connections.
    pub clients: usize,
    /// Connections to backends that carry an exchange.
    pub backends_busy: usize,
    /// Connections to backends that lie idle.
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
            exchanges: self.exchanges.len(),
            pages: self.pages.lent(),
            timers: self.wheel.len(),
            lookups: self.lookups.waiting(),
            ..Counts::default()
        };
        for (_, conn) in self.conns.iter() {
            match &conn.role {
                Role::Client(_) => counts.clients += 1,
                Role::Backend(b) if b.idle => counts.backends_idle += 1,
                Role::Backend(_) => counts.backends_busy += 1,
                Role::Probe(_) => counts.probes += 1,
            }
        }
        for rt in self.runtimes.iter().flatten() {
            counts.queued += rt.waiting as usize;
            if !rt.retired {
                counts.in_flight += rt.state.backends().iter().map(|b| b.in_flight() as usize).sum::<usize>();
            }
        }
        counts
    }

    /// Every structural invariant.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        let mut pages = 0;
        let mut clients = 0;
        for (c, conn) in self.conns.iter() {
            conn.inbox.check();
            pages += usize::from(conn.inbox.page.is_some());
            assert!(
                conn.filed <= conn.deadline
                    || conn.filed == crate::Instant::NEVER
                    || conn.deadline == crate::Instant::NEVER,
                "{c:?}: filed too late"
            );
            assert!(
                conn.deadline == crate::Instant::NEVER || conn.filed <= conn.deadline,
                "{c:?}: a deadline that the wheel does not know"
            );
            let wants = self.wants(c);
            let handed = conn.handed;
            let covered = (!wants.recv || handed.recv) && (!wants.send || handed.send);
            assert!(
                cfg!(not(debug_assertions)) || conn.listed != 0 || conn.starved || covered,
                "{c:?}: a lost wake-up: {wants:?} but handed out {handed:?}"
            );
            match &conn.role {
                Role::Client(client) => {
                    clients += 1;
                    assert!(!client.lingering || conn.exchange.is_none(), "{c:?}: lingers with an exchange");
                    if let Some(x) = conn.exchange {
                        assert_eq!(self.exchanges[x.0].client.conn, c);
                    }
                }
                Role::Backend(b) => {
                    assert_eq!(b.idle, conn.exchange.is_none(), "{c:?}: neither idle nor in use");
                    assert!(
                        !b.idle || (b.connected && conn.machine.may_request() && conn.inbox.is_empty()),
                        "{c:?}: idle but not clean"
                    );
                    if let Some(x) = conn.exchange {
                        assert_eq!(self.exchanges[x.0].backend.map(|leg| leg.conn), Some(c));
                    }
                }
                Role::Probe(_) => assert!(conn.exchange.is_none()),
            }
        }
        assert_eq!(clients, self.clients, "clients are miscounted");
        for (id, e) in self.exchanges.iter() {
            assert_eq!(
                self.conns[e.client.conn].exchange.map(|x| x.0),
                Some(id),
                "an exchange without its client"
            );
            assert!(
                e.backend.is_none_or(|leg| self.conns[leg.conn].exchange.map(|x| x.0) == Some(id)),
                "an exchange without its backend"
            );
            assert_eq!(
                e.backend.is_some(),
                matches!(e.phase, Phase::Connecting | Phase::Sending | Phase::Responding | Phase::Tunnel),
                "{:?} and its connection",
                e.phase
            );
            assert!(e.backend.is_none() || e.holds_slot, "a connection without a slot");
            assert!(e.holds_slot == e.backend.is_some(), "a slot without a connection");
            pages += e.request.pages() + e.response.pages();
        }
        assert_eq!(pages, self.pages.lent(), "pages are lost or counted twice");
        let idle: usize = self.locals.iter().map(|l| l.idle.len() as usize).sum();
        assert_eq!(
            idle,
            self.conns.iter().filter(|(_, c)| matches!(&c.role, Role::Backend(b) if b.idle)).count(),
            "idle lists"
        );
        for rt in self.runtimes.iter().flatten() {
            let waiting = rt
                .queue
                .iter()
                .filter(|x| self.exchanges.get(x.0).is_some_and(|e| e.queued && e.phase == Phase::Choosing))
                .count();
            assert_eq!(waiting, rt.waiting as usize, "the queue is miscounted");
        }
    }
}
