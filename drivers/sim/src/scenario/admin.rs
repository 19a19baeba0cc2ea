//! Which clients ask the admin listener, and for what.

use super::Scenario;
use crate::random::{SplitMix64, mix};

/// What is asked for, and what the response may be when nothing goes wrong.
pub(crate) const ADMIN_REQUESTS: &[(&str, &[&str])] = &[
    ("GET /healthz", &["200"]),
    ("GET /readyz", &["200", "503"]),
    ("GET /metrics", &["200"]),
    ("GET /status", &["200"]),
    ("GET /x", &["404"]),
    ("POST /metrics", &["405"]),
];

/// The page that lookups of the admin listener find.
pub(crate) const ADMIN_PAGE: &str = "simulated_total 1\n";

impl Scenario {
    /// What a client asks the admin listener for; `None`: it is a client like others.
    pub(crate) fn admin_request(&self, client: usize) -> Option<usize> {
        let rng = &mut SplitMix64::new(mix(self.seed ^ mix(0xad41 ^ client as u64)));
        let asks = mix(self.seed ^ 0xad42).is_multiple_of(3) && client < self.clients && rng.below(10) == 0;
        asks.then(|| rng.below(ADMIN_REQUESTS.len() as u64) as usize)
    }
}
