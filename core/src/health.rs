//! Whether a backend may get traffic: one small state machine for each backend, whose inputs are the results
//! of probes and of connects by real traffic.
//!
//! The whole state is one atomic word, so each input is one atomic step and several shards may report at
//! once. This module sends no probe ([`schedule`] says when, [`check`] what, and the proxy sends it) and
//! chooses no backend.
//!
//! | state | good probe | bad probe | third failed connect in a row |
//! |---|---|---|---|
//! | Unknown | Healthy or Slow at once, no ramp | Unhealthy at once | Unhealthy |
//! | Healthy, Slow | Healthy or Slow at once | Unhealthy after `fall` in a row | Unhealthy |
//! | Unhealthy | Healthy or Slow after `rise` in a row, then a ramp | stays | stays; a new half-open pause |
//!
//! A backend that only failed connects have made Unhealthy is the last resort of a pool that has nothing
//! better; a connect that succeeds makes it Healthy again, as long as no probe has failed.
//!
//! With probes off (`check_every` zero) an Unhealthy backend is half-open after a pause, as a circuit breaker
//! is: one real request may try it ([`Health::try_half_open`]). The pause doubles with each attempt from 1 s
//! to 60 s; a connect that succeeds makes the backend Healthy, with a ramp. A *ramp* is the time after
//! recovery in which the backend's share of traffic grows from almost nothing to the whole.

pub mod check;
pub mod grpc;
mod packed_state;
pub mod schedule;

use std::fmt;
use std::time::Duration;

use crate::cause::Cause;
use crate::config;
use crate::observe::HealthState;
use crate::planted::planted;
use crate::sync::{AtomicU64, Ordering};
use crate::time::Instant;

use packed_state::PackedState;
pub use schedule::{ProbeTarget, ProbedBackend, Schedule};

/// Failed connects of real traffic in a row, over all shards, that mark a backend Unhealthy before its next
/// probe.
pub const CONNECT_FAILURES: u8 = 3;

/// The pause before the first half-open attempt at an Unhealthy backend when there are no probes. It doubles
/// with each attempt.
const MIN_HALF_OPEN_PAUSE_MS: u64 = 1_000;
/// The longest pause between two half-open attempts.
const MAX_HALF_OPEN_PAUSE_MS: u64 = 60_000;

/// What goes to another process of a [`PackedState`] beside the stamp.
const CARRIED_BITS: u64 = 0xff_ffff;

/// The part of a pool's configuration that health depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Interval between probes; zero: no probes.
    pub check_every: Duration,
    /// A probe's response that takes this long or longer is slow.
    pub slow_threshold: Duration,
    /// How many good probes in a row end Unhealthy, 1..=65535.
    pub rise: u32,
    /// How many bad probes in a row make a backend Unhealthy, 1..=65535.
    pub fall: u32,
    /// How long a backend's share grows after recovery.
    pub ramp_up: Duration,
    /// Share of a slow backend in thousandths, 1..=1000.
    pub slow_permille: u32,
    /// How long a connect may take; no second half-open attempt begins within that time.
    pub connect: Duration,
}

impl Rules {
    /// The rules of a pool.
    #[must_use]
    pub fn of(pool: &config::Pool) -> Self {
        let health = &pool.health;
        Self {
            check_every: health.check_every,
            slow_threshold: health.slow_threshold,
            rise: health.rise.clamp(1, u32::from(u16::MAX)),
            fall: health.fall.clamp(1, u32::from(u16::MAX)),
            ramp_up: health.ramp_up,
            slow_permille: health.slow_weight_permille.clamp(1, 1000),
            connect: pool.timeouts.connect,
        }
    }
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The response was as expected.
    Good {
        /// Its status code.
        status: u16,
        /// Time from the start of the probe until that was known.
        after: Duration,
    },
    /// A response came with another status than those expected.
    UnexpectedStatus {
        /// Its status code.
        status: u16,
    },
    /// A response came whose content, as far as it is looked at, does not have the text expected.
    TextMissing {
        /// Its status code.
        status: u16,
    },
    /// A server of gRPC said that the service takes no calls.
    NotServing,
    /// The call that asks a server of gRPC failed.
    CallFailed {
        /// Its `grpc-status`; `None`: what came is no answer to such a call.
        status: Option<u32>,
    },
    /// It took longer than a check may.
    TimedOut {
        /// How long that is.
        limit: Duration,
        /// What there was of it by then.
        reached: Reached,
    },
    /// No response came.
    Failed {
        /// What went wrong.
        why: Cause,
    },
}

/// How far a probe came that took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// There was no connection.
    Nothing,
    /// The backend took a connection.
    Connection,
    /// A head with this status.
    Head(u16),
}

impl ProbeOutcome {
    /// Whether the response was as expected.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Good { .. })
    }

    /// The better of two outcomes; the earlier one of two that are equally good.
    #[must_use]
    pub fn better(self, later: Self) -> Self {
        match (self, later) {
            (Self::Good { after, .. }, Self::Good { after: other, .. }) if other < after => later,
            (Self::Good { .. }, _) => self,
            (_, Self::Good { .. }) => later,
            _ => self,
        }
    }

    /// One stable word for it, for logs. Those of connections and broken responses are the names of causes;
    /// the others begin with `check_`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Good { .. } => "check_passed",
            Self::UnexpectedStatus { .. } => "check_status",
            Self::TextMissing { .. } => "check_body",
            Self::NotServing | Self::CallFailed { .. } => "check_grpc",
            Self::TimedOut { .. } => "check_timeout",
            Self::Failed { why } => why.name(),
        }
    }
}

impl fmt::Display for ProbeOutcome {
    /// What was seen, for the log: "HTTP 500", "no answer in 500 ms".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good { status, after } => write!(f, "HTTP {status} after {} ms", after.as_millis()),
            Self::UnexpectedStatus { status } => write!(f, "HTTP {status}"),
            Self::TextMissing { status } => write!(f, "HTTP {status} without the text of body_contains"),
            Self::NotServing => f.write_str("NOT_SERVING"),
            Self::CallFailed { status: Some(status) } => write!(f, "grpc-status {status}"),
            Self::CallFailed { status: None } => f.write_str("no answer of grpc.health.v1"),
            Self::TimedOut { limit, reached } => {
                let ms = limit.as_millis();
                match reached {
                    Reached::Nothing => write!(f, "no connection in {ms} ms"),
                    Reached::Connection => write!(f, "no answer in {ms} ms"),
                    Reached::Head(status) => write!(f, "HTTP {status}, but no whole answer in {ms} ms"),
                }
            }
            Self::Failed { why } => f.write_str(why.name()),
        }
    }
}

/// A backend's change from one state to another: log it, count it, nudge the other shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub from: HealthState,
    /// The state after; never equal to `from`.
    pub to: HealthState,
}

/// The health of one backend.
#[derive(Debug)]
pub struct Health {
    /// A [`PackedState`].
    packed: AtomicU64,
    /// Makes the jitter of this backend differ from that of others.
    salt: u64,
}

impl Health {
    /// The state Unknown. `salt` is any number that differs between backends.
    #[must_use]
    pub fn new(salt: u64) -> Self {
        Self { packed: AtomicU64::new(PackedState::UNKNOWN.to_bits()), salt }
    }

    fn load(&self) -> PackedState {
        PackedState::from_bits(self.packed.load(Ordering::Acquire))
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> HealthState {
        self.load().state
    }

    /// Whether the backend may get traffic.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.state() != HealthState::Unhealthy
    }

    /// Whether it is Unhealthy, and only because requests could not connect: no probe has said so since.
    #[must_use]
    pub fn is_unhealthy_by_traffic(&self) -> bool {
        self.load().is_unhealthy_by_traffic()
    }

    /// The part of the backend's weight that counts now, in thousandths, 0..=1000; 0 only while Unhealthy.
    #[must_use]
    pub fn weight_permille(&self, rules: &Rules, now: Instant) -> u32 {
        let packed = self.load();
        let whole = match packed.state {
            HealthState::Unhealthy => return 0,
            HealthState::Slow => rules.slow_permille,
            HealthState::Unknown | HealthState::Healthy => 1000,
        };
        if !packed.ramping || rules.ramp_up.is_zero() || now >= packed.stamp() + rules.ramp_up {
            return whole;
        }
        let part = now.since(packed.stamp()).as_nanos() * u128::from(whole) / rules.ramp_up.as_nanos();
        (part as u32).max(1)
    }

    /// When the ramp ends, if the backend is in one.
    #[must_use]
    pub fn ramp_end(&self, rules: &Rules, now: Instant) -> Option<Instant> {
        let packed = self.load();
        let end = packed.stamp() + rules.ramp_up;
        (packed.ramping && packed.state != HealthState::Unhealthy && now < end).then_some(end)
    }

    /// When the backend is half-open, if it is Unhealthy and there are no probes.
    #[must_use]
    pub fn half_open_at(&self, rules: &Rules) -> Option<Instant> {
        let packed = self.load();
        (packed.state == HealthState::Unhealthy && rules.check_every.is_zero())
            .then(|| if planted!(93) { Instant::ZERO } else { packed.stamp() })
    }

    /// Claims the half-open attempt that is due. True for one caller only, over all shards; the next attempt
    /// is due a pause later. The caller must send a request to the backend and report how connecting went (if
    /// it does not come to that, the next attempt decides).
    pub fn try_half_open(&self, rules: &Rules, now: Instant) -> bool {
        let bits = self.packed.load(Ordering::Acquire);
        let packed = PackedState::from_bits(bits);
        if packed.state != HealthState::Unhealthy
            || !rules.check_every.is_zero()
            || now < packed.stamp() && !planted!(93)
        {
            return false;
        }
        // At least the connect timeout, so that no second attempt begins while this one connects.
        let lease = self
            .pause_ms(packed.attempts + 1, now)
            .max(millis(rules.connect).min(MAX_HALF_OPEN_PAUSE_MS) + 1);
        let next = packed.stamped(now, lease).attempted();
        self.packed.compare_exchange(bits, next.to_bits(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Records the outcome of a probe.
    pub fn probed(&self, probe: &ProbeOutcome, rules: &Rules, now: Instant) -> Option<Change> {
        change_between(self.step_probed(probe, rules, now)?)
    }

    /// As [`Health::probed`]; also says whether the backend was Unhealthy by traffic alone and is no more.
    pub(crate) fn probed_by_pool(
        &self,
        probe: &ProbeOutcome,
        rules: &Rules,
        now: Instant,
    ) -> (Option<Change>, bool) {
        let Some((from, to)) = self.step_probed(probe, rules, now) else { return (None, false) };
        (change_between((from, to)), from.is_unhealthy_by_traffic() && !to.is_unhealthy_by_traffic())
    }

    fn step_probed(
        &self,
        probe: &ProbeOutcome,
        rules: &Rules,
        now: Instant,
    ) -> Option<(PackedState, PackedState)> {
        let good = match *probe {
            ProbeOutcome::Good { after, .. } if after < rules.slow_threshold || planted!(64) => {
                Some(HealthState::Healthy)
            }
            ProbeOutcome::Good { .. } => Some(HealthState::Slow),
            _ => None,
        };
        self.step_states(|packed| match (packed.state, good) {
            (HealthState::Unknown, None) => self.marked_unhealthy(now),
            (HealthState::Unknown | HealthState::Healthy | HealthState::Slow, Some(to)) => {
                PackedState { state: to, streak: 0, ..packed }
            }
            (HealthState::Healthy | HealthState::Slow, None)
                if u32::from(packed.streak) + 1 >= rules.fall || planted!(63) =>
            {
                self.marked_unhealthy(now)
            }
            (HealthState::Unhealthy, Some(to))
                if u32::from(packed.streak) + 1 >= rules.rise || planted!(62) =>
            {
                recovered(to, now)
            }
            (HealthState::Healthy | HealthState::Slow, None) | (HealthState::Unhealthy, Some(_)) => {
                PackedState { streak: packed.streak.saturating_add(1), ..packed }
            }
            (HealthState::Unhealthy, None) => PackedState { streak: 0, failures: 0, ..packed },
        })
    }

    /// Records that real traffic could not connect.
    pub fn connect_failed(&self, rules: &Rules, now: Instant) -> Option<Change> {
        self.step(|packed| match packed.state {
            HealthState::Unhealthy if rules.check_every.is_zero() => {
                packed.stamped(now, self.pause_ms(packed.attempts, now))
            }
            HealthState::Unhealthy => packed,
            _ if packed.failures + 1 + u8::from(planted!(65)) >= CONNECT_FAILURES => {
                PackedState { failures: CONNECT_FAILURES, ..self.marked_unhealthy(now) }
            }
            _ => PackedState { failures: packed.failures + 1, ..packed },
        })
    }

    /// Records that real traffic has connected. Costs one load unless there was a failure before.
    pub fn connected(&self, rules: &Rules, now: Instant) -> Option<Change> {
        let packed = self.load();
        if packed.failures == 0 && (packed.state != HealthState::Unhealthy || !rules.check_every.is_zero()) {
            return None;
        }
        self.step(|packed| match packed.state {
            HealthState::Unhealthy if rules.check_every.is_zero() || packed.failures > 0 => {
                recovered(HealthState::Healthy, now)
            }
            HealthState::Unhealthy => packed,
            _ => PackedState { failures: 0, ..packed },
        })
    }

    /// What is known, for another process: everything but the stamp in the lower 24 bits of a word, as
    /// [`PackedState`] has it, and the stamp in milliseconds. `None`: nothing is.
    pub(crate) fn carried(&self) -> Option<(u32, u64)> {
        let bits = self.packed.load(Ordering::Acquire);
        let known = bits != PackedState::UNKNOWN.to_bits();
        known.then(|| ((bits & CARRIED_BITS) as u32, PackedState::from_bits(bits).stamp_ms))
    }

    /// Takes what another process has known ([`Health::carried`]), with the stamp on this one's clock,
    /// unless a probe of this one has said something already. The state then, if that changed it. A stamp
    /// that lies ahead by more than any pause lies ahead by that.
    pub(crate) fn restore(
        &self,
        bits: u32,
        stamp_ms: u64,
        rules: &Rules,
        now: Instant,
    ) -> Option<HealthState> {
        let known = PackedState::from_bits(u64::from(bits) & CARRIED_BITS);
        let latest = PackedState::UNKNOWN.stamped(now, MAX_HALF_OPEN_PAUSE_MS * 11 / 10 + 1).stamp_ms;
        let known = PackedState { stamp_ms: stamp_ms.min(latest), ..known };
        let (_, to) = self.step_states(|packed| {
            let own = packed.state != HealthState::Unknown && !rules.check_every.is_zero();
            if own { packed } else { known }
        })?;
        Some(to.state)
    }

    fn marked_unhealthy(&self, now: Instant) -> PackedState {
        PackedState { state: HealthState::Unhealthy, ..PackedState::UNKNOWN }
            .stamped(now, self.pause_ms(0, now))
    }

    /// The pause after so many half-open attempts: 1 s doubled each time, at most 60 s, give or take a tenth.
    fn pause_ms(&self, attempts: u8, now: Instant) -> u64 {
        let pause = (MIN_HALF_OPEN_PAUSE_MS << attempts.min(6)).min(MAX_HALF_OPEN_PAUSE_MS);
        pause - pause / 10 + mix(self.salt ^ now.as_nanos()) % (pause / 5)
    }

    fn step(&self, next: impl Fn(PackedState) -> PackedState) -> Option<Change> {
        change_between(self.step_states(next)?)
    }

    /// The states before and after a step that changed something.
    fn step_states(&self, next: impl Fn(PackedState) -> PackedState) -> Option<(PackedState, PackedState)> {
        let mut bits = self.packed.load(Ordering::Acquire);
        loop {
            let from = PackedState::from_bits(bits);
            let to = next(from);
            if to.to_bits() == bits {
                return None;
            }
            match self.packed.compare_exchange_weak(bits, to.to_bits(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((from, to)),
                Err(other) => bits = other,
            }
        }
    }
}

fn change_between((from, to): (PackedState, PackedState)) -> Option<Change> {
    (from.state != to.state).then_some(Change { from: from.state, to: to.state })
}

fn recovered(to: HealthState, now: Instant) -> PackedState {
    PackedState { state: to, ramping: true, ..PackedState::UNKNOWN }.stamped(now, 0)
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// The last step of SplitMix64: enough for jitter.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
