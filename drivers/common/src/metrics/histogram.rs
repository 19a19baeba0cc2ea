//! A histogram in plain cells.

/// The upper edges of the buckets, in nanoseconds, each of them inside. What is longer than the last one is
/// in one more.
pub const EDGES_NS: [u64; 15] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

const BUCKETS: usize = EDGES_NS.len() + 1;

/// How many bits a number has, and the first bucket that such a number may be in; it is in that one or the
/// next, since no two edges have the same number of bits.
const FIRST: [u8; 65] = {
    let mut first = [0; 65];
    let mut bits = 1;
    while bits <= 64 {
        let least = 1 << (bits - 1);
        let mut bucket = 0;
        while bucket < EDGES_NS.len() && EDGES_NS[bucket] < least {
            bucket += 1;
        }
        first[bits] = bucket as u8;
        bits += 1;
    }
    first
};

const _: () = {
    let mut bucket = 1;
    while bucket < EDGES_NS.len() {
        assert!(EDGES_NS[bucket - 1].leading_zeros() > EDGES_NS[bucket].leading_zeros());
        bucket += 1;
    }
};

/// [`EDGES_NS`], with an edge behind the last bucket that nothing is beyond.
const LIMITS: [u64; BUCKETS] = {
    let mut limits = [u64::MAX; BUCKETS];
    let mut bucket = 0;
    while bucket < EDGES_NS.len() {
        limits[bucket] = EDGES_NS[bucket];
        bucket += 1;
    }
    limits
};

/// How many durations there were of each length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    /// In nanoseconds. Long ones of many connections at once would be too much for 64 bits within weeks.
    sum: u128,
}

impl Histogram {
    /// Counts a duration, in nanoseconds.
    #[inline]
    pub fn observe(&mut self, ns: u64) {
        let first = usize::from(FIRST[(u64::BITS - ns.leading_zeros()) as usize]);
        let bucket = first + usize::from(ns > LIMITS[first]);
        self.buckets[bucket] += 1;
        self.sum += u128::from(ns);
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.sum += other.sum;
    }

    /// How many of each length: one for each of [`EDGES_NS`], and what is longer.
    #[must_use]
    pub fn buckets(&self) -> &[u64; EDGES_NS.len() + 1] {
        &self.buckets
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together, in seconds.
    #[must_use]
    pub fn sum_secs(&self) -> f64 {
        self.sum as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_the_bucket_of_the_next_edge() {
        let around = EDGES_NS.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]);
        let powers = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for ns in around.chain(powers).chain([0, 3, 77_777, u64::MAX]) {
            let mut histogram = Histogram::default();
            histogram.observe(ns);
            let expected = EDGES_NS.iter().position(|edge| ns <= *edge).unwrap_or(EDGES_NS.len());
            assert_eq!(histogram.buckets().iter().position(|n| *n == 1), Some(expected), "{ns}");
            assert_eq!((histogram.count(), histogram.sum_secs()), (1, ns as f64 / 1e9));
        }
    }

    #[test]
    fn sums_are_exact_and_add_up() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        for _ in 0..3 {
            one.observe(u64::MAX);
            other.observe(400_000);
        }
        one.add(&other);
        assert_eq!(one.count(), 6);
        assert_eq!(one.sum, 3 * (u128::from(u64::MAX) + 400_000));
        assert_eq!((one.buckets[0], one.buckets[BUCKETS - 1]), (3, 3));
    }
}
