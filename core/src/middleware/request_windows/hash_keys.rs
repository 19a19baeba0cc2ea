//! The hash by which clients are found.

use siphasher::sip::SipHasher13;

/// The keys of a hash that nobody can choose clients for: for any two clients all pairs of hashes are equally
/// likely, whoever they are (Dietzfelbinger 1996, "Universal hashing and k-wise independent random variables
/// via integer arithmetic without primes": the upper half of `a x + b` in 128 bits). It holds for who sees no
/// hashes, and nobody is shown any: all that can be seen is that there is no place.
#[derive(Clone, Copy, Debug)]
pub(super) struct HashKeys {
    pub(super) a: u128,
    pub(super) b: u128,
}

impl HashKeys {
    /// `seed` is random.
    pub(super) fn of(seed: [u64; 2]) -> Self {
        let sip = SipHasher13::new_with_keys(seed[0], seed[1]);
        let half = |n: u8| u128::from(sip.hash(&[n]));
        Self { a: half(0) << 64 | half(1), b: half(2) << 64 | half(3) }
    }

    #[inline]
    pub(super) fn hash(&self, key: u64) -> u64 {
        let linear = (self.a.wrapping_mul(u128::from(key)).wrapping_add(self.b) >> 64) as u64;
        // Keys at equal distances have hashes at equal distances so far, and with one factor in a hundred
        // those leave most buckets empty. What splitmix64 ends with is one to one: what is said of pairs
        // stays.
        let mixed = (linear ^ linear >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of any two clients the hashes have nothing to do with each other: over random keys they agree in as
    /// many bits as random ones do, and never in all.
    #[test]
    fn hashes_of_two_clients_agree_by_chance() {
        for (a, b) in [(1_u64, 2_u64), (1 << 32, 2 << 32), (5, !5), (1 << 63, 0)] {
            let mut agreed = [0_u32; 64];
            for seed in 0..4_000 {
                let keys = HashKeys::of([seed, !seed]);
                let differing = keys.hash(a) ^ keys.hash(b);
                assert_ne!(differing, 0);
                (0..64).filter(|bit| differing >> bit & 1 == 0).for_each(|bit| agreed[bit as usize] += 1);
            }
            // Five standard deviations of 4000 fair coins are 158.
            assert!(agreed.iter().all(|n| (1_800..=2_200).contains(n)), "{a:#x} {b:#x}: {agreed:?}");
        }
    }
}
