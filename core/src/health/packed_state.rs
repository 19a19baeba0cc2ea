//! The state of a backend's health, packed into 64 bits.

use crate::observe::HealthState;
use crate::time::Instant;

/// | bits | what |
/// |---|---|
/// | 0–1 | state |
/// | 2–3 | failed connects in a row; while Unhealthy 3 if nothing else says so, and 0 if a probe does |
/// | 4 | recovered from Unhealthy: the share grows from `stamp` on |
/// | 5–7 | half-open attempts since it became Unhealthy, at most 7 |
/// | 8–23 | `streak`: probes in a row that contradict the state (bad ones, or good ones while Unhealthy) |
/// | 24–63 | `stamp`: milliseconds since the driver's epoch (34 years) |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedState {
    pub(super) state: HealthState,
    pub(super) failures: u8,
    pub(super) ramping: bool,
    pub(super) attempts: u8,
    pub(super) streak: u16,
    pub(super) stamp_ms: u64,
}

const STAMP_MAX_MS: u64 = (1 << 40) - 1;

impl PackedState {
    pub(super) const UNKNOWN: PackedState = PackedState {
        state: HealthState::Unknown,
        failures: 0,
        ramping: false,
        attempts: 0,
        streak: 0,
        stamp_ms: 0,
    };

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
            | (self.attempts as u64) << 5
            | (self.streak as u64) << 8
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
            attempts: (bits >> 5 & 7) as u8,
            streak: (bits >> 8) as u16,
            stamp_ms: bits >> 24,
        }
    }

    /// This state with a stamp `after_ms` from now.
    pub(super) fn stamped(self, now: Instant, after_ms: u64) -> Self {
        Self { stamp_ms: (now.as_nanos() / 1_000_000).saturating_add(after_ms).min(STAMP_MAX_MS), ..self }
    }

    /// This state with one half-open attempt more.
    pub(super) fn attempted(self) -> Self {
        Self { attempts: (self.attempts + 1).min(7), ..self }
    }

    pub(super) fn is_unhealthy_by_traffic(self) -> bool {
        self.state == HealthState::Unhealthy && self.failures > 0
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
            prop_assert_eq!(PackedState::from_bits(bits).to_bits(), bits);
        }
    }
}
