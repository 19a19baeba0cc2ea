//! When a shard probes which of its backends. The proxy sends the probes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use crate::rng::Rng;
use crate::time::Instant;

/// The pause before the second of the probes that follow a failure of requests.
pub const MIN_RECHECK: Duration = Duration::from_millis(250);

/// A backend to probe, by its place in the configuration that was adopted last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeTarget {
    /// Place of the pool in the configuration.
    pub pool: u16,
    /// Place of the backend in the pool.
    pub backend: u16,
    /// Which backend it is, whatever its place: unique in the process, kept over reloads.
    pub identity: u64,
}

/// A backend to probe, with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbedBackend {
    /// The backend.
    pub target: ProbeTarget,
    /// From the start of a probe to the start of the next; zero: it is not probed.
    pub every: Duration,
}

/// The probes of one shard.
///
/// A backend is due at once when it is added, for the second time after half an interval to one interval
/// (backends that were added together are spread evenly over that time), then every interval with a tenth of
/// jitter either way. It is not due while a probe of it runs.
#[derive(Debug)]
pub struct Schedule {
    /// What was adopted last: most reloads change none of it.
    adopted: Vec<ProbedBackend>,
    entries: BTreeMap<u64, Entry>,
    /// When each entry that is not running is due.
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    rng: Rng,
    unprobed: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    item: ProbedBackend,
    running: bool,
    probed: bool,
    /// When the next probe is due; kept also while one runs.
    at: Instant,
    /// When the last probe began.
    started: Instant,
    /// Requests have found the backend to be away: how long after its start the next probe follows.
    recheck: Option<Duration>,
    /// The wait before the second probe, in thousandths of the interval; taken once.
    first_wait_permille: Option<u64>,
}

impl Schedule {
    /// An empty schedule. `seed` is for jitter.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            adopted: Vec::new(),
            entries: BTreeMap::new(),
            heap: BinaryHeap::new(),
            rng: Rng::new(seed),
            unprobed: 0,
        }
    }

    /// From now on, exactly `backends` are probed. Those that were probed before keep their times; new ones
    /// are due at once.
    pub fn adopt(&mut self, backends: &[ProbedBackend], now: Instant) {
        if self.adopted == backends {
            return;
        }
        self.adopted.clear();
        self.adopted.extend_from_slice(backends);
        let before = std::mem::take(&mut self.entries);
        self.heap.clear();
        let added = backends.iter().filter(|item| !before.contains_key(&item.target.identity)).count() as u64;
        let mut nth = 0;
        for &item in backends.iter().filter(|item| !item.every.is_zero()) {
            let identity = item.target.identity;
            let entry = match before.get(&identity) {
                Some(&old) => Entry { item, at: old.at.min(now + item.every), ..old },
                None => {
                    nth += 1;
                    let spread = 500 + (500 * nth - self.rng.below(500)) / added.max(1);
                    Entry {
                        item,
                        running: false,
                        probed: false,
                        at: now,
                        started: now,
                        recheck: None,
                        first_wait_permille: Some(spread.min(1000)),
                    }
                }
            };
            if !entry.running {
                self.heap.push(Reverse((entry.at, identity)));
            }
            self.entries.insert(identity, entry);
        }
        self.unprobed = self.entries.values().filter(|entry| !entry.probed).count();
    }

    /// The next backend to probe now, if one is due. Its probe runs until [`Schedule::done`] or
    /// [`Schedule::postpone`].
    pub fn due(&mut self, now: Instant) -> Option<ProbeTarget> {
        loop {
            let &Reverse((at, identity)) = self.heap.peek()?;
            if at > now {
                return None;
            }
            self.heap.pop();
            // A backend whose time was moved has its old time left in the heap.
            let Some(entry) =
                self.entries.get_mut(&identity).filter(|entry| !entry.running && entry.at == at)
            else {
                continue;
            };
            let jitter = match entry.first_wait_permille.take() {
                Some(permille) => permille,
                None => 900 + self.rng.below(201),
            };
            entry.running = true;
            entry.started = now;
            // From when it was due, not from now: a late timer does not make the interval longer. But probes
            // that were missed are not made up for.
            let start = if now.since(at) < entry.item.every / 2 { at } else { now };
            let wait = u64::try_from(entry.item.every.as_nanos()).unwrap_or(u64::MAX);
            entry.at = start + Duration::from_nanos((u128::from(wait) * u128::from(jitter) / 1000) as u64);
            return Some(entry.item.target);
        }
    }

    /// `target` was due, but cannot be probed before `until` or [`Schedule::make_due`]. It counts as not
    /// probed.
    pub fn postpone(&mut self, target: ProbeTarget, until: Instant) {
        let Some(entry) = self.entries.get_mut(&target.identity).filter(|entry| entry.running) else {
            return;
        };
        (entry.running, entry.at) = (false, until);
        entry.first_wait_permille = Some(500 + self.rng.below(501));
        self.heap.push(Reverse((until, target.identity)));
    }

    /// Makes the backend due at once, unless a probe of it runs.
    pub fn make_due(&mut self, identity: u64, now: Instant) {
        let Some(entry) = self.entries.get_mut(&identity).filter(|entry| !entry.running && entry.at > now)
        else {
            return;
        };
        entry.at = now;
        self.heap.push(Reverse((now, identity)));
    }

    /// Requests have found the backend to be away: it is due at once, and then after [`MIN_RECHECK`], twice
    /// as long each time, until it is well or the interval is reached.
    pub fn recheck(&mut self, identity: u64, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&identity) {
            entry.recheck = Some(MIN_RECHECK);
            self.make_due(identity, now);
        }
    }

    /// The probe of `target` has ended, and its backend is unhealthy.
    pub fn done_unhealthy(&mut self, target: ProbeTarget) {
        let Some(entry) = self.entries.get_mut(&target.identity).filter(|entry| entry.running) else {
            return;
        };
        let recheck = entry.recheck;
        if let Some(pause) = recheck {
            entry.at = entry.at.min(entry.started + pause);
        }
        self.done(target);
        if let Some(entry) = self.entries.get_mut(&target.identity) {
            entry.recheck = recheck.map(|pause| pause * 2).filter(|pause| *pause < entry.item.every);
        }
    }

    /// The probe of `target` has ended, well or not. A target that is no longer probed, or not running, is
    /// ignored.
    pub fn done(&mut self, target: ProbeTarget) {
        let Some(entry) = self.entries.get_mut(&target.identity).filter(|entry| entry.running) else {
            return;
        };
        (entry.running, entry.recheck) = (false, None);
        if !entry.probed {
            entry.probed = true;
            self.unprobed -= 1;
        }
        self.heap.push(Reverse((entry.at, target.identity)));
    }

    /// The probe of `target` has failed, but one failure does not decide: the next probe follows `timeout`
    /// after the start of this one, so that a backend that hangs gets no more traffic, at the latest, an
    /// interval and `fall` timeouts after it began to hang.
    pub fn done_undecided(&mut self, target: ProbeTarget, timeout: Duration) {
        if let Some(entry) = self.entries.get_mut(&target.identity).filter(|entry| entry.running) {
            entry.at = entry.at.min(entry.started + timeout);
        }
        self.done(target);
    }

    /// When [`Schedule::due`] has a backend next.
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

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);
    const PROBE: Duration = Duration::from_millis(5);

    fn items(count: u16, every: Duration) -> Vec<ProbedBackend> {
        (0..count)
            .map(|backend| ProbedBackend {
                target: ProbeTarget { pool: 0, backend, identity: 100 + u64::from(backend) },
                every,
            })
            .collect()
    }

    /// Starts of all probes until `end`, each probe lasting [`PROBE`].
    fn run(schedule: &mut Schedule, from: Instant, end: Instant) -> Vec<(Instant, u16)> {
        let mut starts = Vec::new();
        let mut running: BinaryHeap<Reverse<(Instant, ProbeTarget)>> = BinaryHeap::new();
        let mut now = from;
        while now < end {
            while let Some(target) = schedule.due(now) {
                assert!(
                    running.iter().all(|Reverse((_, other))| *other != target),
                    "two probes of one backend"
                );
                starts.push((now, target.backend));
                running.push(Reverse((now + PROBE, target)));
            }
            let ended = running.peek().map(|&Reverse((at, _))| at);
            let Some(next) = ended.into_iter().chain(schedule.next_at()).min() else { break };
            assert!(next > now || ended == Some(next), "no progress");
            now = next;
            while let Some(&Reverse((_, target))) = running.peek().filter(|&&Reverse((at, _))| at <= now) {
                running.pop();
                schedule.done(target);
            }
        }
        starts
    }

    #[test]
    fn at_once_then_every_interval_with_a_tenth_of_jitter() {
        let mut schedule = Schedule::new(1);
        assert!(schedule.first_round_done() && schedule.next_at().is_none());
        schedule.adopt(&items(3, EVERY), Instant::ZERO);
        assert!(!schedule.first_round_done());
        let starts = run(&mut schedule, Instant::ZERO, Instant::from_millis(300_000));
        assert!(schedule.first_round_done());
        for backend in 0..3 {
            let times: Vec<_> = starts.iter().filter(|(_, of)| *of == backend).map(|(at, _)| *at).collect();
            assert_eq!(times[0], Instant::ZERO);
            let waits: Vec<_> = times.windows(2).map(|pair| pair[1].since(pair[0]).as_millis()).collect();
            assert!((5_000..=10_000).contains(&waits[0]), "{waits:?}");
            assert!(waits[1..].iter().all(|wait| (9_000..=11_000).contains(wait)), "{waits:?}");
            assert!(waits[1..].windows(2).any(|pair| pair[0] != pair[1]), "no jitter: {waits:?}");
        }
    }

    #[test]
    fn undecided_the_next_follows_a_timeout_after_the_start_of_the_last() {
        // When the failed one began and ended, its timeout, and when the next is due; all in milliseconds.
        for (began, ended, timeout, next) in
            [(0, 500, 500, 500), (0, 3, 500, 500), (0, 500, 20_000, 10_000), (70, 90, 1_000, 1_070)]
        {
            let mut schedule = Schedule::new(1);
            schedule.adopt(&items(1, EVERY), Instant::ZERO);
            let target = schedule.due(Instant::from_millis(began)).expect("new");
            schedule.done_undecided(target, Duration::from_millis(timeout));
            let at = schedule.next_at().expect("scheduled");
            assert!(
                at <= Instant::from_millis(next) && (next == 10_000 || at == Instant::from_millis(next)),
                "{at:?} after {ended}"
            );
            // Reported twice, or without a probe: nothing changes.
            schedule.done_undecided(target, Duration::ZERO);
            assert_eq!(schedule.next_at(), Some(at));
        }
    }

    #[test]
    fn a_thousand_are_spread_after_the_first_round() {
        let mut schedule = Schedule::new(2);
        schedule.adopt(&items(1000, EVERY), Instant::ZERO);
        let starts = run(&mut schedule, Instant::ZERO, Instant::from_millis(60_000));
        assert_eq!(starts.iter().filter(|(at, _)| *at == Instant::ZERO).count(), 1000);
        let mut per_100ms = [0; 600];
        starts[1000..].iter().for_each(|(at, _)| per_100ms[(at.as_nanos() / 100_000_000) as usize] += 1);
        // The even spread over half an interval is 20.
        assert!(per_100ms.iter().all(|&count| count <= 60), "{per_100ms:?}");
        assert!(starts.len() >= 1000 * 6, "{}", starts.len());
    }

    #[test]
    fn a_long_probe_is_not_doubled_and_not_made_up_for() {
        let mut schedule = Schedule::new(3);
        schedule.adopt(&items(1, EVERY), Instant::ZERO);
        let target = schedule.due(Instant::ZERO).expect("at once");
        let late = Instant::from_millis(95_000);
        assert_eq!((schedule.due(late), schedule.next_at()), (None, None));
        schedule.done(target);
        schedule.done(target);
        assert_eq!(schedule.due(late), Some(target));
        schedule.done(target);
        assert_eq!(schedule.due(late), None);
        assert!(schedule.next_at().is_some_and(|at| at >= late + EVERY * 9 / 10));
    }

    #[test]
    fn a_reload_keeps_the_times_and_probes_the_new_at_once() {
        let mut schedule = Schedule::new(4);
        schedule.adopt(&items(2, EVERY), Instant::ZERO);
        let (a, b) = (schedule.due(Instant::ZERO).expect("a"), schedule.due(Instant::ZERO).expect("b"));
        schedule.done(a);
        let next_a = schedule.next_at().expect("a again");
        let now = Instant::from_millis(1_000);
        // `a` has moved to another place, `b` is still being probed, one is new, one has no probes.
        let mut new = items(4, EVERY);
        new[0].target.pool = 5;
        new[3].every = Duration::ZERO;
        schedule.adopt(&new, now);
        assert!(!schedule.first_round_done());
        assert_eq!(schedule.due(now), Some(new[2].target));
        assert_eq!(schedule.due(now), None);
        assert_eq!(schedule.next_at(), Some(next_a));
        schedule.done(new[2].target);
        assert!(!schedule.first_round_done());
        schedule.done(b);
        assert!(schedule.first_round_done());
        assert_eq!(schedule.due(next_a), Some(new[0].target));
        // All gone.
        schedule.adopt(&[], now);
        schedule.done(b);
        assert_eq!((schedule.next_at(), schedule.first_round_done()), (None, true));
        // A shorter interval holds from now on.
        schedule.adopt(&items(1, EVERY * 100), now);
        assert!(schedule.due(now).map(|target| schedule.done(target)).is_some());
        schedule.adopt(&items(1, EVERY), now);
        assert!(schedule.next_at().is_some_and(|at| at <= now + EVERY));
    }
}
