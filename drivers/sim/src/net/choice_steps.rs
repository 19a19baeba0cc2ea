//! Follows the choices of backends from turn to turn, by what the core tells of them.

use ruststrom_core::observe::HealthState;

use super::Net;
use crate::choices::{Candidate, ChoiceStep, Choices, Followed, KnownHealth, Situation};
use crate::scenario::{BackendSpec, MS, PoolSpec};

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
                let connects_since = None;
                let followed = Followed { shard, pool, version, tried, held, last, waits, connects_since };
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
                e.connects_since = None;
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
            ChoiceStep::Attached { conn, to, connects } => {
                let Some(id) = id_of(&self.choices, conn) else { return };
                self.trace(54 << 20 | id, || format!("{id} is to go on {to:?} of shard {shard}"));
                let entry = self.ledger.get_mut(id);
                entry.connections.push(to);
                entry.reused.push(!connects);
                let Some(e) = self.choices.exchanges.get_mut(&id) else { return };
                if connects {
                    let since = *e.connects_since.get_or_insert(self.now);
                    let all = self.choices.awaited_since.entry((shard, to)).or_insert((since, since));
                    *all = (since.min(all.0), since.max(all.1));
                }
                // A connection that was stale is replaced without another choice.
                if e.held.is_none() {
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
                let held = ended.is_some_and(|e| e.held.is_some());
                // A backend whose error is replaced by a page is free before the exchange ends.
                let freed = self.scenario.has_error_pages(self.ledger.get(id).pool);
                if held && (failed || freed) {
                    self.choices.unclear.insert(id);
                }
            }
        }
    }

    /// Whether an exchange is in flight at a backend, as the core tells.
    pub(crate) fn is_in_flight(&self, id: u64) -> bool {
        self.choices.exchanges.get(&id).is_some_and(|e| e.held.is_some())
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

    /// Whether an exchange began with another configuration than its shard has, or may have.
    pub(crate) fn situation_changed(&self, id: u64) -> bool {
        self.choices.exchanges.get(&id).is_none_or(|e| {
            e.version != self.shard_version[e.shard]
                || self.choices.taken_in.get(&e.shard) == Some(&self.turn)
        })
    }

    /// What an exchange can choose from now; `None`: that is not clear.
    pub(crate) fn situation(&self, id: u64) -> Option<Situation> {
        let e = self.choices.exchanges.get(&id)?;
        let version = self.shard_version[e.shard];
        let settled = !self.situation_changed(id);
        let spec = self.config_versions[version].iter().find(|p| p.name == e.pool)?;
        // Which addresses a name has when is not followed; connections of clients alone are taken without a
        // choice.
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
    pub(crate) fn health_is_unclear(&self, pool: &PoolSpec, b: &BackendSpec) -> bool {
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

    pub(crate) fn is_usable(&self, pool: &PoolSpec, b: &BackendSpec) -> bool {
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
