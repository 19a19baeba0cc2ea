//! How long to wait after failures.

use crate::rng::Rng;

const MINUTE: u64 = 60;

/// Seconds after the `n`th failure in a row: from a minute, twice as many each time up to `most`, give or
/// take a tenth.
pub(super) fn after(n: u32, most: u64, rng: &mut Rng) -> u64 {
    let doublings = n.saturating_sub(1).min(20);
    let base = (MINUTE << doublings).min(most);
    (base - base / 10 + rng.below(base / 5 + 1)).clamp(MINUTE, most.max(MINUTE))
}
