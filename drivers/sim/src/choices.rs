//! Which backends were chosen, as the core tells of it step by step: followed from turn to turn, so that the
//! judges know who is in flight where, who waits, and which backends a choice was made from.

use std::collections::{BTreeMap, BTreeSet};

use ruststrom_core::ConnId;
use ruststrom_core::observe::HealthState;

use crate::net::Net;
use crate::scenario::{BackendSpec, MS, PoolSpec};

/// What the core told of, in its order.
#[derive(Clone, Debug)]
pub(crate) enum ChoiceStep {
    /// The head of a request has been read.
    Routed {
        conn: ConnId,
        target: String,
    },
    Chosen {
        conn: ConnId,
        label: &'static str,
    },
    /// Every usable backend is at its limit.
    Full {
        conn: ConnId,
    },
    /// No backend can be chosen.
    NoneLeft {
        conn: ConnId,
    },
    /// A connection is taken or opened.
    Attached {
        conn: ConnId,
    },
    AttemptFailed {
        conn: ConnId,
    },
    /// `failed`: with a cause.
    Ended {
        conn: ConnId,
        failed: bool,
    },
    Health {
        pool: &'static str,
        label: &'static str,
        to: HealthState,
        by_check: bool,
    },
}

/// An exchange that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    pub(crate) shard: usize,
    pub(crate) pool: &'static str,
    /// The configuration with which it began.
    pub(crate) version: usize,
    /// Labels of backends that have failed it.
    pub(crate) tried: Vec<&'static str>,
    /// The backend where it is in flight.
    pub(crate) held: Option<&'static str>,
    last: Option<&'static str>,
    pub(crate) waits: bool,
}

/// What the log said last of a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownHealth {
    pub(crate) state: HealthState,
    pub(crate) by_check: bool,
    /// When it was unhealthy last, and a check found it well.
    pub(crate) recovered: Option<u64>,
    /// When it was found, or tried, in vain.
    pub(crate) since: u64,
}

/// A violation that holds only if these exchanges kept their places until they ended.
#[derive(Clone, Debug)]
pub(crate) struct Suspicion {
    pub(crate) invariant: &'static str,
    pub(crate) details: String,
    pub(crate) depends_on: Vec<u64>,
}

/// All that is known of choices.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    by_conn: BTreeMap<(usize, ConnId), u64>,
    pub(crate) exchanges: BTreeMap<u64, Followed>,
    pub(crate) health: BTreeMap<(&'static str, &'static str), KnownHealth>,
    /// Exchanges that gave their places up at a time that is not known.
    unclear: BTreeSet<u64>,
    pub(crate) suspicions: Vec<Suspicion>,
    /// The turn in which each shard took a configuration last.
    pub(crate) taken_in: BTreeMap<usize, u64>,
    pub(crate) shares: crate::judges::Shares,
    pub(crate) homes: crate::judges::Homes,
    pub(crate) cookies: crate::judges::Cookies,
}

/// A backend that may be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) label: &'static str,
    pub(crate) weight: u32,
    /// Its weight by its state.
    pub(crate) share: f64,
    /// The least that it may be taken for while it grows.
    pub(crate) least_share: f64,
    pub(crate) ramps: bool,
    /// Exchanges that are, or may be, in flight.
    pub(crate) in_flight: Vec<u64>,
    /// 0: no limit.
    pub(crate) max: u64,
}

impl Candidate {
    /// Whether it may be at its limit.
    pub(crate) fn may_be_full(&self) -> bool {
        self.max > 0 && self.in_flight.len() as u64 >= self.max
    }
}

/// What a choice was made from.
#[derive(Clone, Debug)]
pub(crate) struct Situation {
    pub(crate) id: u64,
    pub(crate) strategy: &'static str,
    pub(crate) pool: &'static str,
    pub(crate) version: usize,
    /// Those in use: backups only if there is nobody else. In the order of the configuration.
    pub(crate) usable: Vec<Candidate>,
    /// Backups that can be used once all others have been tried.
    pub(crate) backups: Vec<Candidate>,
    pub(crate) tried: Vec<&'static str>,
}

impl Situation {
    pub(crate) fn untried<'a>(&'a self, of: &'a [Candidate]) -> impl Iterator<Item = &'a Candidate> {
        of.iter().filter(|c| !self.tried.contains(&c.label))
    }
}

impl Net {
    /// A shard's turn is over, and it has told of these.
    pub(crate) fn follow_choices(&mut self, shard: usize, steps: Vec<ChoiceStep>) {
        for step in steps {
            self.follow_choice(shard, step);
        }
    }

    fn follow_choice(&mut self, shard: usize, step: ChoiceStep) {
        let id_of = |choices: &Choices, conn| choices.by_conn.get(&(shard, conn)).copied();
        match step {
            ChoiceStep::Routed { conn, target } => {
                self.choices.by_conn.remove(&(shard, conn));
                let Some(id) = self.ledger.id_of(&target) else { return };
                let Some(pool) = self.ledger.get(id).pool else { return };
                self.choices.by_conn.insert((shard, conn), id);
                let version = self.shard_version[shard];
                let (tried, held, last, waits) = (Vec::new(), None, None, false);
                let followed = Followed { shard, pool, version, tried, held, last, waits };
                self.choices.exchanges.insert(id, followed);
            }
            ChoiceStep::Health { pool, label, to, by_check } => {
                self.choices.shares.health_changed(pool);
                self.health_known(pool, label, to, by_check);
            }
            ChoiceStep::Chosen { conn, label } => {
                let Some(id) = id_of(&self.choices, conn) else { return };
                self.judge_choice(id, label);
                self.ledger.get_mut(id).chosen = Some(label);
                let Some(e) = self.choices.exchanges.get_mut(&id) else { return };
                (e.waits, e.last, e.held) = (false, Some(label), Some(label));
            }
            ChoiceStep::Full { conn } => {
                let Some(id) = id_of(&self.choices, conn) else { return };
                self.judge_full(id);
                if let Some(e) = self.choices.exchanges.get_mut(&id) {
                    e.waits = true;
                }
            }
            ChoiceStep::NoneLeft { conn } => {
                let Some(id) = id_of(&self.choices, conn) else { return };
                self.judge_none_left(id);
                if let Some(e) = self.choices.exchanges.get_mut(&id) {
                    e.waits = false;
                }
            }
            ChoiceStep::Attached { conn } => {
                let id = id_of(&self.choices, conn);
                let e = id.and_then(|id| self.choices.exchanges.get_mut(&id));
                // A connection that was stale is replaced without another choice.
                if let Some(e) = e
                    && e.held.is_none()
                {
                    e.held = e.last;
                    if e.tried.last().copied() == e.last {
                        e.tried.pop();
                    }
                }
            }
            ChoiceStep::AttemptFailed { conn } => {
                let id = id_of(&self.choices, conn);
                if let Some(e) = id.and_then(|id| self.choices.exchanges.get_mut(&id)) {
                    e.tried.extend(e.held.take());
                }
            }
            ChoiceStep::Ended { conn, failed } => {
                let Some(id) = self.choices.by_conn.remove(&(shard, conn)) else { return };
                let ended = self.choices.exchanges.remove(&id);
                if failed && ended.is_some_and(|e| e.held.is_some()) {
                    self.choices.unclear.insert(id);
                }
            }
        }
    }

    fn health_known(&mut self, pool: &'static str, label: &'static str, to: HealthState, by_check: bool) {
        let now = self.now;
        let before = self.choices.health.get(&(pool, label)).copied();
        let was_away = before.is_some_and(|b| b.state == HealthState::Unhealthy);
        let recovered = match to {
            HealthState::Unhealthy => None,
            _ if was_away => Some(now),
            _ => before.and_then(|b| b.recovered),
        };
        let known = KnownHealth { state: to, by_check, recovered, since: now };
        self.choices.health.insert((pool, label), known);
    }

    /// What an exchange can choose from now; `None`: that is not clear.
    pub(crate) fn situation(&self, id: u64) -> Option<Situation> {
        let e = self.choices.exchanges.get(&id)?;
        let version = self.shard_version[e.shard];
        let settled = e.version == version && self.choices.taken_in.get(&e.shard) != Some(&self.turn);
        let spec = self.config_versions[version].iter().find(|p| p.name == e.pool)?;
        // Which addresses a name has when is not followed; connections of clients alone are not told of.
        if !settled || spec.backends.iter().any(|b| b.is_named()) || self.scenario.identities {
            return None;
        }
        let all = spec.backends.iter().filter(|b| b.weight > 0);
        if all.clone().any(|b| self.health_is_unclear(spec, b)) {
            return None;
        }
        let usable = all.filter(|b| self.is_usable(spec, b));
        let (main, backups): (Vec<_>, Vec<_>) = usable.partition(|b| !b.backup);
        let candidates = |of: Vec<&BackendSpec>| of.into_iter().map(|b| self.candidate(spec, b)).collect();
        let (main, backups): (Vec<_>, Vec<_>) = (candidates(main), candidates(backups));
        let (usable, backups) = if main.is_empty() { (backups, main) } else { (main, backups) };
        let (strategy, pool, tried) = (spec.strategy, e.pool, e.tried.clone());
        Some(Situation { id, strategy, pool, version, usable, backups, tried })
    }

    /// A backend that some configuration does not have may have been forgotten meanwhile, or not.
    fn health_is_unclear(&self, pool: &PoolSpec, b: &BackendSpec) -> bool {
        let label = b.label();
        let always = || {
            self.config_versions.iter().all(|version| {
                version.iter().any(|p| p.name == pool.name && p.backends.iter().any(|b| b.label() == label))
            })
        };
        self.config_versions.len() > 1 && self.choices.health.contains_key(&(pool.name, label)) && !always()
    }

    fn known_health(&self, pool: &'static str, label: &'static str) -> Option<&KnownHealth> {
        if self.choices.health.is_empty() {
            return None;
        }
        self.choices.health.get(&(pool, label))
    }

    fn is_usable(&self, pool: &PoolSpec, b: &BackendSpec) -> bool {
        self.known_health(pool.name, b.label()).is_none_or(|h| h.state != HealthState::Unhealthy)
    }

    fn candidate(&self, pool: &PoolSpec, b: &BackendSpec) -> Candidate {
        /// Of a slow backend, by the documentation.
        const SLOW_WEIGHT: f64 = 0.25;
        let label = b.label();
        let known = self.known_health(pool.name, label);
        let ramp_up = self.scenario.pool.ramp_up;
        let since = known.and_then(|h| h.recovered).map(|at| self.now - at).filter(|since| *since < ramp_up);
        let ramp = since.map_or(1.0, |since| since as f64 / ramp_up as f64);
        let slow = known.is_some_and(|h| h.state == HealthState::Slow);
        let whole = f64::from(b.weight) * if slow { SLOW_WEIGHT } else { 1.0 };
        let share = whole * ramp;
        // A share that grows does so in steps of 50 ms or a hundredth, and is rounded down.
        let steps = if since.is_some() { 0.02 + (50 * MS) as f64 / ramp_up as f64 } else { 0.0 };
        let least_share = share - whole * steps;
        let held = self.choices.exchanges.iter();
        let held = held.filter(|(_, e)| e.pool == pool.name && e.held == Some(label));
        let in_flight = held.map(|(id, _)| *id).collect();
        let (weight, max) = (b.weight, u64::from(b.max_connections));
        Candidate { label, weight, share, least_share, ramps: since.is_some(), in_flight, max }
    }

    /// How many exchanges may wait in the queue of a pool and shard.
    pub(crate) fn may_wait(&self, shard: usize, pool: &str) -> u64 {
        let waits = |e: &&Followed| e.waits && e.shard == shard && e.pool == pool;
        self.choices.exchanges.values().filter(waits).count() as u64
    }

    /// The run is over: what was suspected is a violation if all that it depends on is known.
    pub(crate) fn judge_suspicions(&mut self) {
        let unclear = std::mem::take(&mut self.choices.unclear);
        for suspicion in std::mem::take(&mut self.choices.suspicions) {
            if !suspicion.depends_on.iter().any(|id| unclear.contains(id)) {
                return self.ledger.fail(suspicion.invariant, suspicion.details);
            }
        }
    }
}

/// A time that a timer of the core may be off by.
pub(crate) const TICK: u64 = 2 * MS;
