//! Runs that show what many choices of backends come to: either nothing is wrong but that some backends are
//! slow, or recover, or there are so many clients that even random choices show what they go by.

use super::{AddressKind, BackendSpec, MS, POOLS, PoolSpec, Scenario};
use crate::random::SplitMix64;

/// How a backend responds to probes where nothing else is wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KnownProbes {
    /// It has recovered from then on.
    pub(crate) fails_until: u64,
    pub(crate) slow: bool,
}

impl Scenario {
    /// Draws a steady run: one pool whose backends have weights, and nobody waits.
    pub(super) fn draw_steady(&mut self, rng: &mut SplitMix64) {
        self.backend_count = rng.between(2, 4) as usize;
        (self.clients, self.max_requests, self.max_body) = (rng.between(30, 60) as usize, 4, 100);
        self.check_every_ms = 100;
        let weights = rng.below(2) == 0;
        let backend = |backend| {
            let weight = if weights { rng.between(1, 4) as u32 } else { 1 };
            BackendSpec {
                backend,
                address: AddressKind::Ip,
                weight,
                max_connections: 0,
                backup: false,
                tls: false,
                http2: false,
            }
        };
        let backends = (0..self.backend_count).map(backend).collect();
        let strategy =
            rng.pick(&["RoundRobin", "RoundRobin", "RoundRobin", "Random", "IPHash", "LeastConnection"]);
        self.pools = vec![PoolSpec {
            name: POOLS[0],
            backends,
            strategy,
            sticky: false,
            middlewares: Vec::new(),
            chains: Vec::new(),
            chain: 0,
        }];
        // The first one is there all the time.
        self.known_probes = vec![KnownProbes::default(); self.backend_count];
        for known in &mut self.known_probes[1..] {
            known.slow = rng.below(3) == 0;
            known.fails_until = if rng.below(3) == 0 { rng.between(20, 800) * MS } else { 0 };
        }
    }

    /// Whether all backends are well all the time.
    pub(crate) fn has_good_probes_only(&self) -> bool {
        self.known_probes.iter().all(|known| !known.slow && known.fails_until == 0)
    }

    /// Draws that many clients come, with little to say.
    pub(super) fn draw_crowd(&mut self, rng: &mut SplitMix64) {
        (self.clients, self.max_requests, self.max_body) = (rng.between(60, 120) as usize, 6, 100);
        self.crowd = true;
    }
}
