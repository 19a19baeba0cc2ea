//! The seeded random number generator: the same seed gives the same numbers, on every machine.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// A ChaCha generator with twelve rounds. The driver seeds it with the system's entropy, a test with a
/// number.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// A generator whose numbers depend on `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha12Rng::seed_from_u64(seed))
    }

    /// The next number, each `u64` equally likely.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// The next number in `0..n`, each equally likely; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // Lemire's multiplication: the high word is the result; the few low words that would favour some
        // results are drawn again.
        let mut wide = u128::from(self.next_u64()) * u128::from(n);
        if (wide as u64) < n {
            let unfair = n.wrapping_neg() % n;
            while (wide as u64) < unfair {
                wide = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (wide >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn below_stays_below_and_reaches_everything() {
        for (seed, n) in [(1, 1), (2, 2), (3, 3), (4, 7), (5, 64)] {
            let mut rng = Rng::new(seed);
            let mut seen = vec![0u32; n as usize];
            for _ in 0..n * 200 {
                seen[rng.below(n) as usize] += 1;
            }
            assert!(seen.iter().all(|&count| count > 100), "n {n}: {seen:?}");
        }
        assert_eq!(Rng::new(9).below(0), 0);
        let mut rng = Rng::new(6);
        assert!((0..100).all(|_| rng.below(u64::MAX) < u64::MAX));
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let run = |seed| {
            let mut rng = Rng::new(seed);
            (0..8).map(|_| rng.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
