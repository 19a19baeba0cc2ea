//! Whether a backend is used: one small machine for each, fed by probes and by real traffic.
//!
//! The whole state is one atomic word, so each input is one atomic step and several shards may speak at once.
//! What it is not: it sends no probe ([`schedule`] says when, the proxy does it) and chooses no backend.
//!
//! | state | good probe | bad probe | third failed connect in a row |
//! |---|---|---|---|
//! | Unknown | Healthy or Slow at once, no ramp | Unhealthy at once | Unhealthy |
//! | Healthy, Slow | Healthy or Slow at once | Unhealthy after `fall` in a row | Unhealthy |
//! | Unhealthy | Healthy or Slow after `rise` in a row, then a ramp | stays | stays; the pause before the next trial starts anew |
//!
//! With probes off (`check_every` zero) an Unhealthy backend is tried by one real request
//! ([`Health::try_trial`]) after a pause that doubles from 1 s to 60 s; a connection that comes about makes
//! it Healthy, with a ramp.

pub mod schedule;
mod word;

use std::fmt;
use std::time::Duration;

use crate::cause::Cause;
use crate::config;
use crate::observe::HealthState;
use crate::sync::{AtomicU64, Ordering};
use crate::time::Instant;

pub use schedule::{Item, Schedule, Target};
use word::Word;

/// Failed connects of real traffic in a row, over all shards, that mark a backend Unhealthy before its next
/// probe.
pub const CONNECT_FAILURES: u8 = 3;

/// The pause before the first trial of an Unhealthy backend when there are no probes. It doubles with each
/// trial.
const TRIAL_PAUSE_MS: u64 = 1_000;
/// The longest such pause.
const TRIAL_PAUSE_MAX_MS: u64 = 60_000;

/// What the machine needs to know of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Between probes; zero: none.
    pub check_every: Duration,
    /// At or above it an answer is slow.
    pub slow_threshold: Duration,
    /// Good probes in a row that end Unhealthy, 1..=65535.
    pub rise: u32,
    /// Bad probes in a row that begin it, 1..=65535.
    pub fall: u32,
    /// How long the share grows after recovery.
    pub ramp_up: Duration,
    /// Share of a slow backend in thousandths, 1..=1000.
    pub slow_permille: u32,
    /// How long a connect may take: so long a trial has for itself.
    pub connect: Duration,
}

impl Rules {
    /// Those of a pool.
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
pub enum Probe {
    /// With an answer.
    Responded {
        /// Its status.
        status: u16,
        /// From the start of the probe to the end of the answer's head.
        after: Duration,
    },
    /// Without one.
    Failed {
        /// What went wrong.
        why: Cause,
    },
}

impl Probe {
    /// 200 to 399, in time.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Responded { status: 200..=399, .. })
    }
}

impl fmt::Display for Probe {
    /// For the log: "status 500 after 12 ms", "connect_refused".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Responded { status, after } => write!(f, "status {status} after {} ms", after.as_millis()),
            Self::Failed { why } => f.write_str(why.name()),
        }
    }
}

/// A backend went from one state to another: log it, count it, nudge the other shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: HealthState,
    /// After; never equal to `from`.
    pub to: HealthState,
}

/// One backend's health.
#[derive(Debug)]
pub struct Health {
    word: AtomicU64,
    /// Makes the jitter of this backend differ from its neighbours'.
    salt: u64,
}

impl Health {
    /// Unknown. `salt` is anything that differs between backends.
    #[must_use]
    pub fn new(salt: u64) -> Self {
        Self { word: AtomicU64::new(Word::UNKNOWN.to_bits()), salt }
    }

    fn load(&self) -> Word {
        Word::from_bits(self.word.load(Ordering::Acquire))
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> HealthState {
        self.load().state
    }

    /// Whether it may get traffic at all.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.state() != HealthState::Unhealthy
    }

    /// The part of its weight that it gets now, in thousandths: 0 only while Unhealthy.
    #[must_use]
    pub fn weight_permille(&self, rules: &Rules, now: Instant) -> u32 {
        let word = self.load();
        let whole = match word.state {
            HealthState::Unhealthy => return 0,
            HealthState::Slow => rules.slow_permille,
            HealthState::Unknown | HealthState::Healthy => 1000,
        };
        if !word.ramping || rules.ramp_up.is_zero() || now >= word.stamp() + rules.ramp_up {
            return whole;
        }
        let part = now.since(word.stamp()).as_nanos() * u128::from(whole) / rules.ramp_up.as_nanos();
        (part as u32).max(1)
    }

    /// When its share will be whole, if it is still growing.
    #[must_use]
    pub fn ramp_end(&self, rules: &Rules, now: Instant) -> Option<Instant> {
        let word = self.load();
        let end = word.stamp() + rules.ramp_up;
        (word.ramping && word.state != HealthState::Unhealthy && now < end).then_some(end)
    }

    /// When a real request may try it again, if it is Unhealthy and there are no probes.
    #[must_use]
    pub fn trial_at(&self, rules: &Rules) -> Option<Instant> {
        let word = self.load();
        (word.state == HealthState::Unhealthy && rules.check_every.is_zero()).then(|| word.stamp())
    }

    /// Claims the one trial that is due. True for one caller only, over all shards; the next is due a pause
    /// later. Whoever got it must send a request there and tell how connecting went (if it never comes to
    /// that, the next trial decides).
    pub fn try_trial(&self, rules: &Rules, now: Instant) -> bool {
        let bits = self.word.load(Ordering::Acquire);
        let word = Word::from_bits(bits);
        if word.state != HealthState::Unhealthy || !rules.check_every.is_zero() || now < word.stamp() {
            return false;
        }
        // The connect itself gets its time, so that no second trial runs beside it.
        let lease =
            self.pause_ms(word.trials + 1, now).max(millis(rules.connect).min(TRIAL_PAUSE_MAX_MS) + 1);
        let next = word.stamped(now, lease).tried();
        self.word.compare_exchange(bits, next.to_bits(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// A probe has ended.
    pub fn probed(&self, probe: &Probe, rules: &Rules, now: Instant) -> Option<Change> {
        let good = match *probe {
            Probe::Responded { status: 200..=399, after } if after < rules.slow_threshold => {
                Some(HealthState::Healthy)
            }
            Probe::Responded { status: 200..=399, .. } => Some(HealthState::Slow),
            Probe::Responded { .. } | Probe::Failed { .. } => None,
        };
        self.step(|word| match (word.state, good) {
            (HealthState::Unknown, None) => self.fallen(now),
            (HealthState::Unknown | HealthState::Healthy | HealthState::Slow, Some(to)) => {
                Word { state: to, run: 0, ..word }
            }
            (HealthState::Healthy | HealthState::Slow, None) if u32::from(word.run) + 1 >= rules.fall => {
                self.fallen(now)
            }
            (HealthState::Unhealthy, Some(to)) if u32::from(word.run) + 1 >= rules.rise => recovered(to, now),
            (HealthState::Healthy | HealthState::Slow, None) | (HealthState::Unhealthy, Some(_)) => {
                Word { run: word.run.saturating_add(1), ..word }
            }
            (HealthState::Unhealthy, None) => Word { run: 0, ..word },
        })
    }

    /// Real traffic could not connect.
    pub fn connect_failed(&self, rules: &Rules, now: Instant) -> Option<Change> {
        self.step(|word| match word.state {
            HealthState::Unhealthy if rules.check_every.is_zero() => {
                word.stamped(now, self.pause_ms(word.trials, now))
            }
            HealthState::Unhealthy => word,
            _ if word.failures + 1 >= CONNECT_FAILURES => self.fallen(now),
            _ => Word { failures: word.failures + 1, ..word },
        })
    }

    /// Real traffic has connected. Without a failure before, it is one load.
    pub fn connected(&self, rules: &Rules, now: Instant) -> Option<Change> {
        let word = self.load();
        if word.failures == 0 && (word.state != HealthState::Unhealthy || !rules.check_every.is_zero()) {
            return None;
        }
        self.step(|word| match word.state {
            HealthState::Unhealthy if rules.check_every.is_zero() => recovered(HealthState::Healthy, now),
            HealthState::Unhealthy => word,
            _ => Word { failures: 0, ..word },
        })
    }

    fn fallen(&self, now: Instant) -> Word {
        Word { state: HealthState::Unhealthy, ..Word::UNKNOWN }.stamped(now, self.pause_ms(0, now))
    }

    /// 1 s doubled `trials` times, at most 60 s, and up to a tenth more or less.
    fn pause_ms(&self, trials: u8, now: Instant) -> u64 {
        let pause = (TRIAL_PAUSE_MS << trials.min(6)).min(TRIAL_PAUSE_MAX_MS);
        pause - pause / 10 + mix(self.salt ^ now.as_nanos()) % (pause / 5)
    }

    fn step(&self, next: impl Fn(Word) -> Word) -> Option<Change> {
        let mut bits = self.word.load(Ordering::Acquire);
        loop {
            let from = Word::from_bits(bits);
            let to = next(from);
            if to.to_bits() == bits {
                return None;
            }
            match self.word.compare_exchange_weak(bits, to.to_bits(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    return (from.state != to.state).then_some(Change { from: from.state, to: to.state });
                }
                Err(other) => bits = other,
            }
        }
    }
}

fn recovered(to: HealthState, now: Instant) -> Word {
    Word { state: to, ramping: true, ..Word::UNKNOWN }.stamped(now, 0)
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// SplitMix64's finisher: enough for jitter.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
