//! What the core has to ask the world: addresses of backends that are named, and whatever a stage wants to
//! know.

use std::collections::BTreeMap;
use std::time::Duration;

use super::exchange::Phase;
use super::{Effect, LookupResult, Proxy, Query};
use crate::config::Address;
use crate::id::{ExchangeId, LookupId};
use crate::observe::{Level, Observer};
use crate::time::Instant;

/// A name is asked for again after this, and sooner while it has never been found.
const AGAIN: Duration = Duration::from_secs(30);
const AGAIN_UNRESOLVED: Duration = Duration::from_secs(2);
/// A lookup that has not been answered by then counts as failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Questions under way and to come.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    last: u64,
    names: Vec<Name>,
    asking: BTreeMap<LookupId, ExchangeId>,
    /// When the first of the names is due.
    next: Option<Instant>,
}

/// A named backend of the newest configuration that this shard looks up for all.
#[derive(Debug)]
struct Name {
    runtime: u32,
    backend: u16,
    due: Instant,
    running: Option<LookupId>,
    failing: bool,
    /// Its first question is under way: nobody knows yet whether there is an address.
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

    fn reckon(&mut self) {
        self.next = self.names.iter().map(|n| n.due).min();
    }

    /// Whether the first question after a backend's address has not been answered yet.
    pub(super) fn is_open(&self, runtime: u32, backend: u16) -> bool {
        self.names.iter().any(|n| n.unknown && n.runtime == runtime && n.backend == backend)
    }

    /// Questions that exchanges wait for.
    pub(super) fn waiting(&self) -> usize {
        self.asking.len()
    }
}

impl<O: Observer> Proxy<O> {
    /// The names of a new configuration are due at once.
    pub(super) fn schedule_lookups(&mut self, now: Instant) {
        self.lookups.names.clear();
        for &runtime in &self.routing.runtimes {
            let rt = self.runtimes[runtime as usize].as_ref().expect("a current runtime");
            for (i, (backend, state)) in rt.pool().backends.iter().zip(rt.state.backends()).enumerate() {
                if matches!(backend.address, Address::Name { .. })
                    && state.owner(self.shared.shards()) == self.shard
                {
                    self.lookups.names.push(Name {
                        runtime,
                        backend: i as u16,
                        due: now,
                        running: None,
                        failing: false,
                        unknown: true,
                    });
                }
            }
        }
        self.lookups.reckon();
        self.lookup_due(now);
    }

    pub(super) fn lookup_due(&mut self, now: Instant) {
        if self.drain.is_some() {
            self.lookups.names.clear();
            return self.lookups.reckon();
        }
        if self.lookups.next.is_none_or(|next| next > now) {
            return;
        }
        for at in 0..self.lookups.names.len() {
            if self.lookups.names[at].due > now {
                continue;
            }
            // One that was not answered in time is asked again; its late answer is stale.
            let id = self.lookups.id();
            let name = &mut self.lookups.names[at];
            name.unknown &= name.running.is_none();
            (name.due, name.running) = (now + PATIENCE, Some(id));
            let (runtime, backend) = (name.runtime, name.backend);
            if let Address::Name { host, port } = &self.rt(runtime).pool().backends[backend as usize].address
            {
                let query = Query::Resolve { host: host.clone(), port: *port };
                self.effects.push_back(Effect::Lookup { id, query });
            }
        }
        self.lookups.reckon();
    }

    /// A stage has to know something before the request goes on.
    pub(super) fn ask(&mut self, x: ExchangeId, query: Query, now: Instant) {
        let id = self.lookups.id();
        self.lookups.asking.insert(id, x);
        self.exchanges[x.0].phase = Phase::Asking(id);
        self.effects.push_back(Effect::Lookup { id, query });
        let c = self.exchanges[x.0].client.conn;
        self.set_deadline(c, now + PATIENCE);
    }

    /// A lookup ended. A stale id is ignored.
    pub fn handle_lookup(&mut self, l: LookupId, a: LookupResult, now: Instant) {
        if let Some(x) = self.lookups.asking.remove(&l) {
            if let Some(e) = self.exchanges.get_mut(x.0)
                && e.phase == Phase::Asking(l)
            {
                e.phase = Phase::Choosing;
                let len = self.conns[e.client.conn].inbox.scanned as usize;
                self.take_head(x, len, Some(&a), now);
            }
        } else if let Some(at) = self.lookups.names.iter().position(|n| n.running == Some(l)) {
            self.resolved(at, &a, now);
        }
        self.settle(now);
    }

    fn resolved(&mut self, at: usize, response: &LookupResult, now: Instant) {
        let name = &self.lookups.names[at];
        let (runtime, backend, was_failing) = (name.runtime, name.backend, name.failing);
        let rt = self.rt(runtime);
        let known = rt.state.backends()[backend as usize].resolved();
        let label = rt.pool().backends[backend as usize].label.clone();
        let mut usable = false;
        let failing = match response {
            LookupResult::Addresses(found) => {
                usable = self.rt(runtime).state.resolved(backend, found);
                if was_failing {
                    self.observer.note(Level::Info, &format!("{label}: the name resolves again"));
                }
                false
            }
            LookupResult::Failed(why) => {
                if !was_failing {
                    let kept = if known { "; the last good addresses are kept" } else { "" };
                    self.observer
                        .note(Level::Warning, &format!("{label}: the name does not resolve: {why}{kept}"));
                }
                true
            }
        };
        let again = if failing && !known { AGAIN_UNRESOLVED } else { AGAIN };
        let name = &mut self.lookups.names[at];
        let first = std::mem::replace(&mut name.unknown, false);
        (name.due, name.running, name.failing) = (now + again, None, failing);
        self.lookups.reckon();
        if usable {
            self.tell_shards();
        }
        if usable || first {
            // What is known of it is out of date.
            let identity = self.rt(runtime).state.backends()[backend as usize].identity();
            self.schedule.make_due(identity, now);
            self.probe_due(now);
        }
    }

    /// An exchange that waited for a lookup is gone.
    pub(super) fn forget_lookup(&mut self, id: LookupId) {
        self.lookups.asking.remove(&id);
    }
}
