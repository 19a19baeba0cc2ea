//! Clients to backends by hash (weighted rendezvous hashing): a client keeps its backend as long as the set
//! of configured backends stays the same, in every process.
//!
//! A table of 65536 entries, each given to the backend with the highest score for it. So adding or removing
//! one of n backends moves 1 / n of the entries and no more, and a choice is one look-up. An entry is worked
//! out when the first client needs it: all entries at once are 65536 scores a backend, and every client of
//! the shard would have to wait for that on a reload.
//!
//! The keys are fixed, not taken from the seed: several instances and the time after a restart must agree. A
//! client that can choose its address can therefore choose its backend; it gains nothing else by that, since
//! no table grows or becomes slower.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use siphasher::sip::SipHasher13;

const ENTRIES: usize = 1 << 16;
/// Bounds the arithmetic; the configuration allows no weight this large.
const MAX_WEIGHT: u32 = 1023;

/// The table from hashes of clients to backends.
#[derive(Debug, Default)]
pub(crate) struct Rendezvous {
    /// Place, hash and weight of each backend.
    backends: Box<[(u16, u64, u32)]>,
    /// The backend's place plus one; 0: not worked out yet. Empty if there are no backends. Two shards that
    /// work out the same entry write the same value, so `Relaxed` is enough.
    entries: Box<[AtomicU16]>,
}

impl Rendezvous {
    /// `backends` are place, hash and weight; those of weight 0 get nothing.
    pub(crate) fn new(backends: &[(u16, u64, u32)]) -> Self {
        // Sorted by hash: which of two equal scores wins does not depend on the order in the file.
        let mut backends: Vec<_> = backends.iter().copied().filter(|(.., weight)| *weight > 0).collect();
        backends.sort_unstable_by_key(|&(_, hash, _)| hash);
        if backends.is_empty() {
            return Self::default();
        }
        Self { backends: backends.into(), entries: (0..ENTRIES).map(|_| AtomicU16::new(0)).collect() }
    }

    /// The hash of a client's address. An IPv4 address mapped into IPv6 is taken as IPv4.
    pub(crate) fn hash(client: IpAddr) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(0x636c_6965_6e74_2074, 0x6f20_6261_636b_656e);
        match client.to_canonical() {
            IpAddr::V4(v4) => hasher.write(&v4.octets()),
            IpAddr::V6(v6) => hasher.write(&v6.octets()),
        }
        hasher.finish()
    }

    /// How much `hash` prefers the backend with `backend_hash`.
    pub(crate) fn score(hash: u64, backend_hash: u64) -> u64 {
        mix(hash ^ backend_hash)
    }

    /// The backend of the client with this hash, then its next choices, with repetitions and without end;
    /// empty if there are no backends.
    pub(crate) fn walk(&self, hash: u64) -> impl Iterator<Item = u16> + '_ {
        let steps =
            std::iter::successors(Some(hash), |&hash| Some(mix(hash.wrapping_add(0x9e37_79b9_7f4a_7c15))));
        steps.map_while(|hash| self.entry(hash as usize % ENTRIES))
    }

    fn entry(&self, at: usize) -> Option<u16> {
        let entry = self.entries.get(at)?;
        let known = entry.load(Ordering::Relaxed);
        if known > 0 {
            return Some(known - 1);
        }
        let place = best(mix(at as u64 + 1), &self.backends);
        // A pool has at most 65535 backends: the last place is one less.
        entry.store(place + 1, Ordering::Relaxed);
        Some(place)
    }
}

/// The backend with the least -log2(score) / weight: each wins with a probability of its weight over all
/// weights.
fn best(entry: u64, backends: &[(u16, u64, u32)]) -> u16 {
    // Cost and weight of the best so far; compared by cross-multiplication, which stays below 2^64.
    let mut best = (0, u64::MAX >> 10, 1);
    for &(place, hash, weight) in backends {
        let (score, weight) = (Rendezvous::score(entry, hash), u64::from(weight.min(MAX_WEIGHT)));
        // The logarithm is expensive: most backends are ruled out by -log2(1 - y) >= 1.4375 y.
        let gap = !score >> 16;
        if (gap + gap / 16 * 7) * best.2 < best.1 * weight {
            let cost = minus_log2(score);
            if cost * best.2 < best.1 * weight {
                best = (place, cost, weight);
            }
        }
    }
    best.0
}

/// SplitMix64's finisher: every bit of the input changes half of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// -log2 of x / 2^64, in 1 / 2^48. Whole numbers only: floating point logarithms differ between machines.
/// Exact to 1 / 2^20, which is finer than any share that 65536 entries can show; never grows with x.
fn minus_log2(x: u64) -> u64 {
    let x = x.max(1);
    let zeros = x.leading_zeros();
    // The mantissa in 1.63; squaring it doubles its logarithm, and a carry is the next bit of it.
    let mut mantissa = x << zeros;
    let mut fraction: u64 = 0;
    for _ in 0..24 {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        fraction <<= 1;
        if square >> 64 != 0 {
            fraction |= 1;
            mantissa = (square >> 1) as u64;
        } else {
            mantissa = square as u64;
        }
    }
    let log2 = (63 - u64::from(zeros)) << 48 | fraction << 24;
    (64 << 48) - log2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(count: u16, weight: u32) -> Vec<(u16, u64, u32)> {
        (0..count).map(|place| (place, mix(u64::from(place) + 77), weight)).collect()
    }

    fn all(table: &Rendezvous) -> Vec<u16> {
        (0..ENTRIES).map_while(|at| table.entry(at)).collect()
    }

    fn counts(table: &Rendezvous, count: usize) -> Vec<usize> {
        let mut counts = vec![0; count];
        all(table).into_iter().for_each(|place| counts[usize::from(place)] += 1);
        counts
    }

    #[test]
    fn the_logarithm() {
        let table = [
            (1, 64.0),
            (1 << 63, 1.0),
            (1 << 62, 2.0),
            (3 << 62, 0.415_037_499_278_843_8),
            (u64::MAX, 0.0),
            (0, 64.0),
        ];
        for (x, expected) in table {
            let found = minus_log2(x) as f64 / 2f64.powi(48);
            assert!((found - expected).abs() < 1e-6, "{x}: {found}");
        }
        let mut x = 0x1234_5678_9abc_def0u64;
        for _ in 0..10_000 {
            x = mix(x.wrapping_add(1));
            let found = minus_log2(x) as f64 / 2f64.powi(48);
            assert!((found - (64.0 - (x as f64).log2())).abs() < 1e-6, "{x}: {found}");
        }
    }

    #[test]
    fn shortcuts_change_nothing() {
        let mut uneven = backends(20, 1);
        uneven.iter_mut().for_each(|backend| backend.2 = 1 + u32::from(backend.0) % 7 * 50);
        for entry in 0..5_000 {
            let entry = mix(entry);
            let cost = |&&(_, hash, weight): &&(u16, u64, u32)| {
                u128::from(minus_log2(Rendezvous::score(entry, hash))) * 1_000_000 / u128::from(weight)
            };
            let slow = uneven.iter().min_by_key(cost).map(|backend| backend.0);
            assert_eq!(Some(best(entry, &uneven)), slow);
        }
    }

    #[test]
    fn shares_are_by_weight() {
        for (weights, tolerance) in [
            (vec![1; 3], 0.02),
            (vec![1; 50], 0.12),
            (vec![1, 2, 3, 10], 0.03),
            (vec![1000, 1, 1000], 0.5),
            (vec![0, 5, 5], 0.02),
        ] {
            let mut all = backends(weights.len() as u16, 0);
            all.iter_mut().zip(&weights).for_each(|(backend, &weight)| backend.2 = weight);
            let whole: u32 = weights.iter().sum();
            for (count, weight) in counts(&Rendezvous::new(&all), weights.len()).into_iter().zip(weights) {
                let expected = ENTRIES as f64 * f64::from(weight) / f64::from(whole);
                assert!((count as f64 - expected).abs() <= tolerance * expected, "{count} for {expected}");
            }
        }
    }

    #[test]
    fn adding_one_moves_only_to_it_and_about_its_share() {
        for (count, weight) in [(1, 1), (2, 1), (3, 7), (10, 1), (100, 1)] {
            let (before, after) =
                (Rendezvous::new(&backends(count, weight)), Rendezvous::new(&backends(count + 1, weight)));
            let (before, after) = (all(&before), all(&after));
            let moved: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
            assert!(moved.iter().all(|(_, to)| **to == count));
            let share = ENTRIES as f64 / f64::from(count + 1);
            assert!((0.8 * share..1.2 * share).contains(&(moved.len() as f64)), "{} of {share}", moved.len());
        }
    }

    #[test]
    fn the_order_in_the_file_does_not_matter() {
        let mut turned = backends(7, 3);
        let forward = all(&Rendezvous::new(&turned));
        turned.reverse();
        assert_eq!(forward, all(&Rendezvous::new(&turned)));
    }

    #[test]
    fn an_entry_is_worked_out_once_and_the_same_by_whoever_is_first() {
        let of = backends(9, 2);
        let (asked, whole) = (Rendezvous::new(&of), all(&Rendezvous::new(&of)));
        let known = |table: &Rendezvous| {
            table.entries.iter().filter(|entry| entry.load(Ordering::Relaxed) > 0).count()
        };
        assert_eq!(known(&asked), 0);
        for _ in 0..2 {
            assert_eq!(asked.walk(77).next(), Some(whole[77]));
            assert_eq!(known(&asked), 1);
        }
        let threads = std::thread::scope(|s| {
            [0, 1, 2].map(|_| s.spawn(|| all(&asked))).map(|t| t.join().expect("no panic"))
        });
        assert!(threads.iter().all(|found| *found == whole));
        assert_eq!(known(&asked), ENTRIES);
        // The highest place there can be.
        assert_eq!(Rendezvous::new(&[(u16::MAX - 1, 3, 1)]).walk(0).next(), Some(u16::MAX - 1));
    }

    #[test]
    fn empty_tables_and_walks() {
        for none in [vec![], backends(3, 0)] {
            assert_eq!(Rendezvous::new(&none).walk(5).next(), None);
        }
        let table = Rendezvous::new(&backends(5, 1));
        for hash in 0..200 {
            let mut met: Vec<_> = table.walk(mix(hash)).take(64).collect();
            met.sort_unstable();
            met.dedup();
            assert_eq!(met, [0, 1, 2, 3, 4]);
        }
    }
}
