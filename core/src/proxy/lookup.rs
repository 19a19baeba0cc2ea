//! What the core has to ask the world: addresses of backends that are named, and whatever a stage wants to
//! know.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Proxy;
use super::admin;
use super::exchange::Phase;
use crate::config::{Address, ListenerKind};
use crate::event::{Effect, LookupResult, Query};
use crate::id::{ExchangeId, LookupId};
use crate::observe::{Level, Observer};
use crate::time::Instant;

/// A name is asked for again after this, and sooner while it has never been found.
const REFRESH: Duration = Duration::from_secs(30);
const RETRY_UNRESOLVED: Duration = Duration::from_secs(2);
/// A lookup that has not been answered by then counts as failed.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);

/// Lookups under way and to come.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    last: u64,
    names: Vec<Name>,
    /// Which exchange waits for which.
    waiting: BTreeMap<LookupId, ExchangeId>,
    /// When the first of the names is due.
    next: Option<Instant>,
}

/// A named backend of the newest configuration that this shard looks up for all.
#[derive(Debug)]
struct Name {
    /// Slot of its pool.
    pool: u32,
    backend: u16,
    due: Instant,
    running: Option<LookupId>,
    failing: bool,
    /// Its first lookup is under way: nobody knows yet whether there is an address.
    unknown: bool,
}

impl Lookups {
    fn id(&mut self) -> LookupId {
        self.last += 1;
        LookupId(self.last)
    }

    /// When the next name is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.next
    }

    fn update_next(&mut self) {
        self.next = self.names.iter().map(|n| n.due).min();
    }

    /// Whether the first lookup of a backend's address has not been answered yet.
    pub(super) fn is_open(&self, pool: u32, backend: u16) -> bool {
        self.names.iter().any(|n| n.unknown && n.pool == pool && n.backend == backend)
    }

    /// Lookups that exchanges wait for.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl<O: Observer> Proxy<O> {
    /// The names of a new configuration are due at once.
    pub(super) fn schedule_lookups(&mut self, names: &[(u16, u16)], now: Instant) {
        self.lookups.names.clear();
        for (pool, backend) in names {
            self.lookups.names.push(Name {
                pool: self.pools.current[usize::from(*pool)],
                backend: *backend,
                due: now,
                running: None,
                failing: false,
                unknown: true,
            });
        }
        self.lookups.update_next();
        self.lookup_due(now);
    }

    pub(super) fn lookup_due(&mut self, now: Instant) {
        if self.drain.until.is_some() {
            self.lookups.names.clear();
            return self.lookups.update_next();
        }
        if self.lookups.next.is_none_or(|next| next > now) {
            return;
        }
        for at in 0..self.lookups.names.len() {
            if self.lookups.names[at].due > now {
                continue;
            }
            // One that was not answered in time is looked up again; its late result is stale.
            let id = self.lookups.id();
            let name = &mut self.lookups.names[at];
            name.unknown &= name.running.is_none();
            (name.due, name.running) = (now + LOOKUP_TIMEOUT, Some(id));
            let pool = self.pools.get(name.pool).pool();
            if let Address::Name { host, port } = &pool.backends[usize::from(name.backend)].address {
                let query = Query::Resolve { host: host.clone(), port: *port };
                self.signals.effects.push_back(Effect::Lookup { id, query });
            }
        }
        self.lookups.update_next();
    }

    /// Something has to be found out before the request goes on.
    pub(super) fn start_lookup(&mut self, x: ExchangeId, query: Query, now: Instant) {
        let id = self.lookups.id();
        self.lookups.waiting.insert(id, x);
        let e = &mut self.tables.exchanges[x];
        e.phase = Phase::Asking(id);
        e.client_due = now + LOOKUP_TIMEOUT;
        self.signals.effects.push_back(Effect::Lookup { id, query });
        self.promise_page(x);
        self.file_exchange(x);
    }

    /// A lookup ended. A stale id is ignored.
    pub fn handle_lookup(&mut self, l: LookupId, result: LookupResult, now: Instant) {
        self.timers.now = now;
        if let Some(x) = self.lookups.waiting.remove(&l) {
            if let Some(e) = self.tables.exchanges.get_mut(x)
                && e.phase == Phase::Asking(l)
            {
                (e.phase, e.client_due) = (Phase::Choosing, Instant::NEVER);
                if self.tables.conns[e.client.conn].client().kind == ListenerKind::Admin {
                    self.respond_locally(x, admin::found(&result));
                } else if self.pass_request(x, Some(&result), now) {
                    self.forward(x, now);
                }
            }
        } else if let Some(at) = self.lookups.names.iter().position(|n| n.running == Some(l)) {
            self.resolved(at, &result, now);
        }
        self.settle(now);
    }

    fn resolved(&mut self, at: usize, result: &LookupResult, now: Instant) {
        let name = &self.lookups.names[at];
        let (slot, backend, was_failing) = (name.pool, name.backend, name.failing);
        let pool = self.pools.get(slot);
        let known = pool.state.backends()[usize::from(backend)].resolved();
        let label = pool.pool().backends[usize::from(backend)].label.clone();
        let mut usable = false;
        let why = match result {
            LookupResult::Addresses(found) => {
                usable = pool.state.resolved(backend, found);
                if was_failing {
                    self.observer.note(Level::Info, &format!("{label}: the name resolves again"));
                }
                None
            }
            LookupResult::Failed(why) => Some(&**why),
            _ => Some("the lookup found something else than addresses"),
        };
        if let (Some(why), false) = (why, was_failing) {
            let kept = if known { "; the last good addresses are kept" } else { "" };
            self.observer.note(Level::Warning, &format!("{label}: the name does not resolve: {why}{kept}"));
        }
        let again = if why.is_some() && !known { RETRY_UNRESOLVED } else { REFRESH };
        let name = &mut self.lookups.names[at];
        let first = std::mem::replace(&mut name.unknown, false);
        (name.due, name.running, name.failing) = (now + again, None, why.is_some());
        self.lookups.update_next();
        if usable {
            self.nudge_shards();
        }
        if usable || first {
            // What is known of it is out of date.
            let identity = self.pools.get(slot).state.backends()[usize::from(backend)].identity();
            self.checks.make_due(identity, now);
            self.probe_due(now);
        }
    }

    /// An exchange that waited for a lookup is gone.
    pub(super) fn forget_lookup(&mut self, id: LookupId) {
        self.lookups.waiting.remove(&id);
    }
}
