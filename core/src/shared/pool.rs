//! One pool, as all shards see it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{BackendState, Padded};
use crate::balance::Balancer;
use crate::balance::plan::Plan;
use crate::balance::rendezvous::Rendezvous;
use crate::config;
use crate::health::{Change, Probe, Rules};
use crate::planted::planted;
use crate::sync::{AtomicU64, Mutex, Ordering, in_one_order};
use crate::time::Instant;

/// What a pool keeps over reloads by its name, whatever becomes of its backends.
#[derive(Debug)]
pub(super) struct Common {
    /// Whose turn it is; the strategy says what the number means.
    cursor: Padded<AtomicU64>,
    /// Counts the changes of any backend's usability or share.
    version: Padded<AtomicU64>,
    /// A bit for each shard that has exchanges waiting for a slot; above [`BITS`] shards several share one.
    waiting: Padded<[AtomicU64; WORDS]>,
    shards: u16,
}

const WORDS: usize = 4;
const BITS: u16 = 64 * WORDS as u16;

impl Common {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            cursor: Padded(AtomicU64::new(0)),
            version: Padded(AtomicU64::new(1)),
            waiting: Padded(std::array::from_fn(|_| AtomicU64::new(0))),
            shards,
        }
    }
}

/// A pool's shared state for one definition of it. Backends have the places they have in the configuration.
#[derive(Debug)]
pub struct PoolState {
    pub(super) common: Arc<Common>,
    backends: Box<[Arc<BackendState>]>,
    name: Box<str>,
    configured: Box<[config::Backend]>,
    strategy: config::Strategy,
    rules: Rules,
    /// The order that all shards follow while nothing changes.
    pub(crate) plan: Mutex<Option<Arc<Plan>>>,
    /// For hashing clients, main backends and backups; empty for a strategy that does not.
    rendezvous: (Rendezvous, Rendezvous),
}

impl PoolState {
    pub(super) fn new(pool: &config::Pool, common: Arc<Common>, backends: Box<[Arc<BackendState>]>) -> Self {
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
        // Now, not on some request's way.
        let rendezvous = if Balancer::hashes_clients(&pool.strategy) {
            (table(false), table(true))
        } else {
            Default::default()
        };
        Self {
            common,
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
    pub(super) fn is_for(&self, pool: &config::Pool) -> bool {
        self.name == pool.name
            && *self.configured == *pool.backends
            && self.strategy == pool.strategy
            && self.rules == Rules::of(pool)
    }

    /// Its backends in the configuration's order.
    #[must_use]
    pub fn backends(&self) -> &[Arc<BackendState>] {
        &self.backends
    }

    /// What the configuration says of the backend at `index`.
    pub(crate) fn configured(&self, index: u16) -> &config::Backend {
        &self.configured[usize::from(index)]
    }

    /// Pool name, for logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rules of its health checks.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Counts the changes of any backend's usability or share.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.common.version.0.load(Ordering::Acquire)
    }

    /// Every shard looks again before its next choice.
    pub(crate) fn bump(&self) -> u64 {
        self.common.version.0.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(crate) fn cursor(&self) -> &AtomicU64 {
        &self.common.cursor.0
    }

    /// For hashing clients: the tables of main backends and of backups.
    pub(crate) fn rendezvous(&self) -> &(Rendezvous, Rendezvous) {
        &self.rendezvous
    }

    /// A probe of backend `index` has ended. `Some`: log it and nudge the other shards.
    pub fn probed(&self, index: u16, probe: &Probe, now: Instant) -> Option<Change> {
        if planted!(6) {
            return None;
        }
        self.changed(self.backends.get(usize::from(index))?.health().probed(probe, &self.rules, now))
    }

    /// Real traffic could not connect to backend `index`.
    pub fn connect_failed(&self, index: u16, now: Instant) -> Option<Change> {
        let health = self.backends.get(usize::from(index))?.health();
        let change = health.connect_failed(&self.rules, now);
        if change.is_none() && health.trial_at(&self.rules).is_some() {
            // The next trial has moved.
            self.bump();
        }
        self.changed(change)
    }

    /// Real traffic has connected to backend `index`.
    pub fn connected(&self, index: u16, now: Instant) -> Option<Change> {
        self.changed(self.backends.get(usize::from(index))?.health().connected(&self.rules, now))
    }

    /// A lookup found the addresses of backend `index`; none keeps the last good ones. True if it has become
    /// usable by this: nudge the other shards.
    pub fn resolved(&self, index: u16, found: &[SocketAddr]) -> bool {
        let usable =
            self.backends.get(usize::from(index)).is_some_and(|backend| backend.set_addresses(found));
        if usable {
            self.bump();
        }
        usable
    }

    fn changed(&self, change: Option<Change>) -> Option<Change> {
        if change.is_some() {
            self.bump();
        }
        change
    }

    /// Gives back the slot that a choice of backend `index` took. What it returns are the shards with
    /// exchanges waiting for one: nudge each (the caller's own among them, it may serve itself at once).
    #[inline]
    pub fn finish(&self, index: u16) -> Waiting {
        if let Some(backend) = self.backends.get(usize::from(index))
            && !planted!(2)
        {
            backend.finish();
        }
        self.take_waiting()
    }

    /// `shard` has an exchange waiting for a slot. **Choose once more after this**: a slot that came free
    /// just before nudges nobody. The mark is gone with the first nudge; a shard that still waits sets it
    /// again.
    pub fn wait(&self, shard: u16) {
        let bit = shard % BITS;
        self.common.waiting.0[usize::from(bit / 64)].fetch_or(1 << (bit % 64), Ordering::SeqCst);
        in_one_order();
    }

    /// The shards that wait, their marks taken away: a change of health or of addresses may have made room
    /// too.
    #[inline]
    pub fn take_waiting(&self) -> Waiting {
        in_one_order();
        // A look first: on the usual way nobody waits, and a swap would take the line from the other shards.
        if self.common.waiting.0.iter().fold(0, |all, word| all | word.load(Ordering::SeqCst)) == 0 {
            return Waiting { words: [0; WORDS], shards: self.common.shards, last: None };
        }
        self.take_marks()
    }

    #[cold]
    fn take_marks(&self) -> Waiting {
        let mut waiting = Waiting { words: [0; WORDS], shards: self.common.shards, last: None };
        for (taken, word) in waiting.words.iter_mut().zip(&self.common.waiting.0) {
            if word.load(Ordering::SeqCst) != 0 {
                *taken = word.swap(0, Ordering::SeqCst);
            }
        }
        waiting
    }
}

/// Shards to nudge, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    words: [u64; WORDS],
    shards: u16,
    /// The last one given out, if more share its bit.
    last: Option<u16>,
}

impl Waiting {
    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words == [0; WORDS] && self.last.is_none()
    }
}

impl Iterator for Waiting {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        let shard = match self.last {
            Some(last) => last + BITS,
            None => {
                let (place, word) = self.words.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
                let bit = word.trailing_zeros() as u16;
                *word &= *word - 1;
                place as u16 * 64 + bit
            }
        };
        self.last = (shard.checked_add(BITS).is_some_and(|next| next < self.shards)).then_some(shard);
        Some(shard)
    }
}
