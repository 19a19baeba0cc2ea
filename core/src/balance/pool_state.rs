//! What all shards share of one pool: its backends, the cursor of its strategy, the plan that all follow,
//! and which shards have exchanges waiting.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use super::algorithm::Algorithm;
use super::backend::BackendState;
use super::plan::{PlanInput, PlanNeeds, SelectionPlan};
use super::rendezvous::Rendezvous;
use crate::config;
use crate::health::{Change, ProbeOutcome, Rules};
use crate::observe::HealthState;
use crate::observe::Usable;
use crate::planted::planted;
use crate::sync::{AtomicU64, Mutex, Ordering, Padded, in_one_order};
use crate::time::Instant;

/// What a pool keeps over reloads by its name, whatever its backends are.
#[derive(Debug)]
pub(crate) struct PoolCounters {
    /// Whose turn it is; the strategy says what the number means.
    cursor: Padded<AtomicU64>,
    /// Counts the changes of any backend's usability or share.
    version: Padded<AtomicU64>,
    /// A bit for each shard that has exchanges waiting for a slot; with more than [`MARKS`] shards several
    /// share one.
    waiting: Padded<[AtomicU64; WORDS]>,
    shards: u16,
    /// Unique in this process.
    identity: u64,
}

const WORDS: usize = 4;
/// Shards that have a bit of their own.
const MARKS: u16 = 64 * WORDS as u16;

impl PoolCounters {
    pub(crate) fn new(shards: u16, identity: u64) -> Self {
        Self {
            cursor: Padded(AtomicU64::new(0)),
            version: Padded(AtomicU64::new(1)),
            waiting: Padded(std::array::from_fn(|_| AtomicU64::new(0))),
            shards,
            identity,
        }
    }
}

/// A pool's shared state for one definition of it. Backends have the places they have in the configuration.
#[derive(Debug)]
pub struct PoolState {
    pub(crate) counters: Arc<PoolCounters>,
    backends: Box<[Arc<BackendState>]>,
    name: Box<str>,
    configured: Box<[config::Backend]>,
    strategy: config::Strategy,
    rules: Rules,
    /// The plan that all shards follow while nothing changes.
    plan: Mutex<Option<Arc<SelectionPlan>>>,
    /// Tables of clients to main backends and to backups; empty for a strategy that does not hash clients.
    rendezvous: (Rendezvous, Rendezvous),
}

impl PoolState {
    /// For `pool`, whose backends' states are `backends`, in its order.
    pub(crate) fn new(
        pool: &config::Pool,
        counters: Arc<PoolCounters>,
        backends: Box<[Arc<BackendState>]>,
    ) -> Self {
        let table = |backup| {
            let places = pool.backends.iter().zip(&backends).enumerate();
            let those = places.filter(|(_, (configured, _))| configured.backup == backup);
            Rendezvous::new(
                &those
                    .map(|(index, (configured, known))| {
                        (index as u16, known.stable_hash(), configured.weight)
                    })
                    .collect::<Vec<_>>(),
            )
        };
        // Made here, so that no request has to wait for it.
        let rendezvous = if Algorithm::of(&pool.strategy) == Algorithm::IpHash {
            (table(false), table(true))
        } else {
            Default::default()
        };
        Self {
            counters,
            name: pool.name.clone(),
            configured: pool.backends.clone().into(),
            strategy: pool.strategy.clone(),
            rules: Rules::of(pool),
            plan: Mutex::new(None),
            rendezvous,
            backends,
        }
    }

    /// Whether it serves `pool` as it is: everything that bears on choosing and probing is the same.
    pub(crate) fn is_for(&self, pool: &config::Pool) -> bool {
        self.name == pool.name
            && *self.configured == *pool.backends
            && self.strategy == pool.strategy
            && self.rules == Rules::of(pool)
    }

    /// Unique in this process, and the same over reloads as long as the pool's name stays.
    #[must_use]
    pub fn identity(&self) -> u64 {
        self.counters.identity
    }

    /// Its backends in the configuration's order.
    #[must_use]
    pub fn backends(&self) -> &[Arc<BackendState>] {
        &self.backends
    }

    /// Its backends as they are configured, in the same order.
    #[must_use]
    pub fn configured(&self) -> &[config::Backend] {
        &self.configured
    }

    /// The pool's name, for logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rules of its health checks.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How many of its backends take requests now.
    #[must_use]
    pub fn usable(&self) -> Usable {
        let mut left = Usable::default();
        for (configured, known) in self.configured.iter().zip(&self.backends) {
            let (usable, total) = match configured.backup {
                false => (&mut left.main, &mut left.main_total),
                true => (&mut left.backup, &mut left.backup_total),
            };
            *total += u16::from(configured.weight > 0);
            *usable += u16::from(configured.weight > 0 && known.resolved() && known.health().usable());
        }
        left
    }

    /// Counts the changes of any backend's usability or share.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.counters.version.0.load(Ordering::Acquire)
    }

    /// A new version: every shard makes or fetches a new plan before its next choice.
    pub(super) fn bump(&self) -> u64 {
        self.counters.version.0.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whose turn it is; the strategy says what the number means.
    pub(super) fn cursor(&self) -> &AtomicU64 {
        &self.counters.cursor.0
    }

    /// The plan for now, made if need be. `needs` is the same for all shards of a pool.
    pub(super) fn current_plan(&self, needs: PlanNeeds, now: Instant) -> Arc<SelectionPlan> {
        let mut shared = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before the backends are: what changes meanwhile gives a new version.
        let mut version = self.version();
        if let Some(plan) = &*shared
            && plan.version == version
        {
            if now < plan.expires {
                return Arc::clone(plan);
            }
            version = self.bump();
        }
        let input = PlanInput {
            backends: &self.backends,
            configured: &self.configured,
            rules: &self.rules,
            version,
            cursor: self.cursor().load(Ordering::Relaxed),
        };
        let plan = Arc::new(SelectionPlan::make(&input, needs, now, shared.as_deref()));
        *shared = Some(Arc::clone(&plan));
        plan
    }

    /// The tables of clients to main backends and to backups.
    pub(super) fn rendezvous(&self) -> &(Rendezvous, Rendezvous) {
        &self.rendezvous
    }

    /// A probe of backend `index` has ended. `Some`: log it and nudge the other shards.
    pub fn probed(&self, index: u16, probe: &ProbeOutcome, now: Instant) -> Option<Change> {
        if planted!(6) {
            return None;
        }
        let health = self.backends.get(usize::from(index))?.health();
        let (change, no_last_resort) = health.probed_by_pool(probe, &self.rules, now);
        if change.is_none() && no_last_resort {
            // It is no last resort any more.
            self.bump();
        }
        self.changed(index, change)
    }

    /// Real traffic could not connect to backend `index`.
    pub fn connect_failed(&self, index: u16, now: Instant) -> Option<Change> {
        let health = self.backends.get(usize::from(index))?.health();
        let change = health.connect_failed(&self.rules, now);
        if change.is_none() && health.half_open_at(&self.rules).is_some() {
            // The time of the next half-open attempt has moved.
            self.bump();
        }
        self.changed(index, change)
    }

    /// Real traffic has connected to backend `index`.
    pub fn connected(&self, index: u16, now: Instant) -> Option<Change> {
        self.changed(index, self.backends.get(usize::from(index))?.health().connected(&self.rules, now))
    }

    /// Another process has known this of the health of backend `index`: see
    /// [`Health::restore`](crate::health::Health::restore).
    pub(crate) fn restore(
        &self,
        index: u16,
        (bits, stamp_ms): (u32, u64),
        now: Instant,
    ) -> Option<HealthState> {
        let health = self.backends.get(usize::from(index))?.health();
        let state = health.restore(bits, stamp_ms, &self.rules, now)?;
        self.bump();
        Some(state)
    }

    /// A lookup found these addresses of backend `index`; an empty list keeps the last good ones. True if the
    /// backend has become usable by this: nudge the other shards.
    pub fn resolved(&self, index: u16, found: &[SocketAddr]) -> bool {
        let usable =
            self.backends.get(usize::from(index)).is_some_and(|backend| backend.set_addresses(found));
        if usable {
            self.bump();
        }
        usable
    }

    fn changed(&self, index: u16, change: Option<Change>) -> Option<Change> {
        if let Some(Change { to, .. }) = change {
            if to == HealthState::Unhealthy {
                self.backends[usize::from(index)].distrust();
            }
            self.bump();
        }
        change
    }

    /// Gives back the slot that a choice of backend `index` took. Returns the shards with exchanges that wait
    /// for a slot: nudge each (the caller's own may be among them and can be served at once).
    #[inline]
    pub fn finish(&self, index: u16) -> WaitingShards {
        if let Some(backend) = self.backends.get(usize::from(index))
            && !planted!(2)
        {
            backend.finish();
        }
        self.take_waiting()
    }

    /// Marks `shard` as having an exchange that waits for a slot. **Choose once more after this**: a slot
    /// that came free just before nudges nobody. The first nudge takes the mark away; a shard that still
    /// waits sets it again.
    pub fn wait(&self, shard: u16) {
        let bit = shard % MARKS;
        self.counters.waiting.0[usize::from(bit / 64)].fetch_or(1 << (bit % 64), Ordering::SeqCst);
        in_one_order();
    }

    /// Takes away the marks of all waiting shards and returns the shards: for a change of health or of
    /// addresses, which may have made room too.
    #[inline]
    pub fn take_waiting(&self) -> WaitingShards {
        in_one_order();
        // A load first: mostly nobody waits, and a swap would take the cache line from the other shards.
        if self.counters.waiting.0.iter().fold(0, |all, word| all | word.load(Ordering::SeqCst)) == 0 {
            return WaitingShards { words: [0; WORDS], shards: self.counters.shards, last: None };
        }
        self.take_marks()
    }

    #[cold]
    fn take_marks(&self) -> WaitingShards {
        let mut waiting = WaitingShards { words: [0; WORDS], shards: self.counters.shards, last: None };
        for (taken, word) in waiting.words.iter_mut().zip(&self.counters.waiting.0) {
            if word.load(Ordering::SeqCst) != 0 {
                *taken = word.swap(0, Ordering::SeqCst);
            }
        }
        waiting
    }
}

/// Iterates over the shards to nudge, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingShards {
    words: [u64; WORDS],
    shards: u16,
    /// The last one given out, if more share its bit.
    last: Option<u16>,
}

impl WaitingShards {
    /// Whether no shard waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words == [0; WORDS] && self.last.is_none()
    }
}

impl Iterator for WaitingShards {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        let shard = match self.last {
            Some(last) => last + MARKS,
            None => {
                let (place, word) = self.words.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
                let bit = word.trailing_zeros() as u16;
                *word &= *word - 1;
                place as u16 * 64 + bit
            }
        };
        self.last = (shard.checked_add(MARKS).is_some_and(|next| next < self.shards)).then_some(shard);
        Some(shard)
    }
}
