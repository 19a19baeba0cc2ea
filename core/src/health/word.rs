//! A backend's health packed into 64 bits.

use crate::observe::HealthState;
use crate::time::Instant;

/// | bits | what |
/// |---|---|
/// | 0–1 | state |
/// | 2–3 | failed connects in a row |
/// | 4 | recovered from Unhealthy: the share grows from `stamp` on |
/// | 5–7 | trials since it fell, at most 7 |
/// | 8–23 | probes in a row that speak against the state |
/// | 24–63 | `stamp`: milliseconds since the driver's epoch (34 years) |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) state: HealthState,
    pub(super) failures: u8,
    pub(super) ramping: bool,
    pub(super) trials: u8,
    pub(super) run: u16,
    pub(super) stamp_ms: u64,
}

const STAMP_MAX_MS: u64 = (1 << 40) - 1;

impl Word {
    pub(super) const UNKNOWN: Word =
        Word { state: HealthState::Unknown, failures: 0, ramping: false, trials: 0, run: 0, stamp_ms: 0 };

    pub(super) const fn to_bits(self) -> u64 {
        let state = match self.state {
            HealthState::Unknown => 0,
            HealthState::Healthy => 1,
            HealthState::Slow => 2,
            HealthState::Unhealthy => 3,
        };
        state
            | (self.failures as u64) << 2
            | (self.ramping as u64) << 4
            | (self.trials as u64) << 5
            | (self.run as u64) << 8
            | self.stamp_ms << 24
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        let state = match bits & 3 {
            0 => HealthState::Unknown,
            1 => HealthState::Healthy,
            2 => HealthState::Slow,
            _ => HealthState::Unhealthy,
        };
        Self {
            state,
            failures: (bits >> 2 & 3) as u8,
            ramping: bits >> 4 & 1 == 1,
            trials: (bits >> 5 & 7) as u8,
            run: (bits >> 8) as u16,
            stamp_ms: bits >> 24,
        }
    }

    /// With the stamp `after_ms` from now.
    pub(super) fn stamped(self, now: Instant, after_ms: u64) -> Self {
        Self { stamp_ms: (now.as_nanos() / 1_000_000).saturating_add(after_ms).min(STAMP_MAX_MS), ..self }
    }

    /// With one trial more.
    pub(super) fn tried(self) -> Self {
        Self { trials: (self.trials + 1).min(7), ..self }
    }

    pub(super) fn stamp(self) -> Instant {
        Instant::from_millis(self.stamp_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_and_back(bits: u64) {
            prop_assert_eq!(Word::from_bits(bits).to_bits(), bits);
        }
    }
}
