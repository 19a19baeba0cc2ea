//! Clients to backends by hash: everyone's own backend stays the same while the set of configured backends does, in every process.
//!
//! A table of 65536 entries, each given to the backend with the highest score for it (weighted rendezvous hashing). So adding or
//! removing one of n backends moves 1 / n of the entries and no more, and a choice is one look. Making it costs 65536 scores a backend,
//! once for a configuration and for all shards.
//!
//! The keys are fixed, not taken from the seed: several instances and the time after a restart must agree. A client that could choose its
//! address could choose its backend, as it could with any published hash; it gains nothing else by that, no table grows or slows.

use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

const ENTRIES: usize = 1 << 16;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Rendezvous {
    /// Empty if there are no backends.
    entries: Box<[u16]>,
}

impl Rendezvous {
    /// `backends` are place, hash and weight; those of weight 0 get nothing.
    pub(crate) fn new(backends: &[(u16, u64, u32)]) -> Self {
        let backends: Vec<_> = backends.iter().filter(|(.., weight)| *weight > 0).collect();
        if backends.is_empty() {
            return Self::default();
        }
        let best = |entry: usize| {
            let entry_hash = mix(entry as u64 + 1);
            // The hash breaks a tie, so that the order in the file doesn't matter.
            let cost = |&&&(_, hash, weight): &&&(u16, u64, u32)| (minus_log2(Self::score(entry_hash, hash)) / u64::from(weight), hash);
            backends.iter().min_by_key(|backend| cost(backend)).map_or(0, |(place, ..)| *place)
        };
        Self { entries: (0..ENTRIES).map(best).collect() }
    }

    /// Of a client. IPv4 written as IPv6 is IPv4.
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

    /// The client's own backend, then its next choices, with repetitions and without end; nothing if there are no backends.
    pub(crate) fn walk(&self, hash: u64) -> impl Iterator<Item = u16> + '_ {
        let steps = std::iter::successors(Some(hash), |&hash| Some(mix(hash.wrapping_add(0x9e37_79b9_7f4a_7c15))));
        steps.map_while(|hash| self.entries.get(hash as usize % ENTRIES).copied())
    }
}

/// SplitMix64's finisher: every bit of the input changes half of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// -log2 of x / 2^64, in 1 / 2^48. Whole numbers only: floating point logarithms differ between machines. Exact to 1 / 2^20, which is finer
/// than any share that 65536 entries can show; never grows with x.
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
