//! When a shard probes which of its backends. It sends nothing; the proxy does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use crate::rng::Rng;
use crate::time::Instant;

/// A backend to probe, by its places in the configuration that was adopted last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Place of the pool.
    pub pool: u16,
    /// Place of the backend in the pool.
    pub backend: u16,
    /// Which backend it is, whatever its place: unique in the process, kept over reloads.
    pub identity: u64,
}

/// A backend with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub target: Target,
    /// From the start of a probe to the next; zero: never.
    pub every: Duration,
}

/// The probes of one shard.
///
/// A backend is due at once when added, for the second time after half to one interval (those that were added together are spread evenly
/// over that half), then every interval with a tenth of jitter either way. It is not due while a probe of it runs.
#[derive(Debug)]
pub struct Schedule {
    entries: BTreeMap<u64, Entry>,
    /// When each entry that is not running is due.
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    rng: Rng,
    unprobed: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    item: Item,
    running: bool,
    probed: bool,
    /// When the next is due, also while one runs.
    at: Instant,
    /// The wait before the second probe, in thousandths of the interval; taken once.
    first_wait_permille: Option<u64>,
}

impl Schedule {
    /// Nothing to probe yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { entries: BTreeMap::new(), heap: BinaryHeap::new(), rng: Rng::new(seed), unprobed: 0 }
    }

    /// From now on, probe exactly `items`. Those that were there keep their time; new ones are due at once.
    pub fn adopt(&mut self, items: &[Item], now: Instant) {
        let before = std::mem::take(&mut self.entries);
        self.heap.clear();
        let added = items.iter().filter(|item| !before.contains_key(&item.target.identity)).count() as u64;
        let mut nth = 0;
        for &item in items.iter().filter(|item| !item.every.is_zero()) {
            let identity = item.target.identity;
            let entry = match before.get(&identity) {
                Some(&old) => Entry { item, at: old.at.min(now + item.every), ..old },
                None => {
                    nth += 1;
                    let spread = 500 + (500 * nth - self.rng.below(500)) / added.max(1);
                    Entry { item, running: false, probed: false, at: now, first_wait_permille: Some(spread.min(1000)) }
                }
            };
            if !entry.running {
                self.heap.push(Reverse((entry.at, identity)));
            }
            self.entries.insert(identity, entry);
        }
        self.unprobed = self.entries.values().filter(|entry| !entry.probed).count();
    }

    /// The next backend to probe now, if one is due. Its probe runs until [`Schedule::done`].
    pub fn due(&mut self, now: Instant) -> Option<Target> {
        let &Reverse((at, identity)) = self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        let entry = self.entries.get_mut(&identity).filter(|entry| !entry.running)?;
        let jitter = match entry.first_wait_permille.take() {
            Some(permille) => permille,
            None => 900 + self.rng.below(201),
        };
        entry.running = true;
        // From when it was due, not from now: a late timer does not slow the rhythm. But no probe is made up for.
        let start = if now.since(at) < entry.item.every / 2 { at } else { now };
        let wait = u64::try_from(entry.item.every.as_nanos()).unwrap_or(u64::MAX);
        entry.at = start + Duration::from_nanos((u128::from(wait) * u128::from(jitter) / 1000) as u64);
        Some(entry.item.target)
    }

    /// The probe of `target` has ended, well or not. A target that is no longer probed, or not running, is ignored.
    pub fn done(&mut self, target: Target) {
        let Some(entry) = self.entries.get_mut(&target.identity).filter(|entry| entry.running) else { return };
        entry.running = false;
        if !entry.probed {
            entry.probed = true;
            self.unprobed -= 1;
        }
        self.heap.push(Reverse((entry.at, target.identity)));
    }

    /// When [`Schedule::due`] has something next.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|&Reverse((at, _))| at)
    }

    /// Whether every backend of this shard has been probed once.
    #[must_use]
    pub fn first_round_done(&self) -> bool {
        self.unprobed == 0
    }
}
