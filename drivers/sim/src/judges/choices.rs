//! Choices of backends: who may be chosen at all, and the fewest in flight. What follows from many choices
//! together is judged in `shares`, what follows from who asks in `homes` and `cookies`.

use ruststrom_core::observe::HealthState;

use crate::choices::{Candidate, Situation, Suspicion, TICK};
use crate::net::Net;
use crate::scenario::SEC;

impl Net {
    /// A backend has been chosen for an exchange.
    pub(crate) fn judge_choice(&mut self, id: u64, label: &'static str) {
        if self.ledger.violation.is_some() {
            return;
        }
        if self.scenario.check_every_ms == 0 {
            self.judge_pause(id, label);
        }
        let Some(s) = self.situation(id) else {
            let pool = self.choices.exchanges.get(&id).map(|e| e.pool);
            return pool.into_iter().for_each(|pool| self.choices.shares.interrupted(pool));
        };
        if let Err((invariant, why)) = self.check_choice(&s, label) {
            let details = format!("request {id} goes to {label}: {why}: {s:?}");
            self.ledger.fail(invariant, details);
        }
    }

    fn check_choice(&mut self, s: &Situation, label: &'static str) -> Result<(), (&'static str, String)> {
        let named = self.cookie_names(s.id, s.pool);
        let is = |c: &&Candidate| c.label == label;
        if s.tried.contains(&label) {
            return Err(("choice-allowed", "it has failed this request".into()));
        }
        let Some(chosen) = s.usable.iter().find(is) else {
            return self.check_other_choice(s, label).map_err(|why| ("choice-allowed", why));
        };
        if let Some(named) = named
            && let Some(named) = s.untried(&s.usable).find(|c| c.label == named)
        {
            // Choices by a cookie take no turn of the others.
            return if named.label == label {
                Ok(())
            } else {
                Err(("cookie-followed", format!("its cookie names {}", named.label)))
            };
        }
        match s.strategy {
            "RoundRobin" => self.check_turn(s, chosen),
            "Random" => self.check_random(s, chosen),
            "IPHash" => self.check_home(s, label),
            _ => {
                self.check_least_connection(s, chosen);
                Ok(())
            }
        }
    }

    /// Without checks, an unhealthy backend gets a request only after a pause, while others are usable.
    fn judge_pause(&mut self, id: u64, label: &'static str) {
        let Some(e) = self.choices.exchanges.get(&id) else { return };
        let (pool, tried) = (e.pool, e.tried.clone());
        let specs = self.config_versions[self.shard_version[e.shard]].iter().find(|p| p.name == pool);
        let Some(specs) = specs.filter(|p| !p.backends.iter().any(|b| self.health_is_unclear(p, b))) else {
            return;
        };
        let others = specs.backends.iter().filter(|b| !b.is_named() && b.weight > 0 && b.label() != label);
        let mut usable = others.filter(|b| !tried.contains(&b.label()) && self.is_usable(specs, b));
        // An exchange that began before a reload may have had no other one.
        let alone = usable.next().is_none() || self.situation_changed(id);
        let now = self.now;
        let Some(known) = self.choices.health.get_mut(&(pool, label)) else { return };
        if known.state != HealthState::Unhealthy {
            return;
        }
        let since = std::mem::replace(&mut known.since, now);
        // The pause of a second has a tenth of jitter.
        if !alone && now + TICK < since + SEC / 10 * 9 {
            let details =
                format!("request {id} goes to {label}, which is unhealthy and was tried at {since}");
            self.ledger.fail("half-open-pause", details);
        }
    }

    /// A backend that is not among the usable ones.
    fn check_other_choice(&mut self, s: &Situation, label: &'static str) -> Result<(), String> {
        let pools = &self.config_versions[s.version];
        let mut backends = pools.iter().filter(|p| p.name == s.pool).flat_map(|p| &p.backends);
        let Some(spec) = backends.find(|b| b.label() == label) else {
            return Err("its pool does not have it".into());
        };
        if spec.weight == 0 {
            return Err("its weight is 0".into());
        }
        if s.backups.iter().any(|c| c.label == label) {
            return match s.untried(&s.usable).next() {
                Some(other) => Err(format!("it is a backup, and {} is usable", other.label)),
                None => Ok(()),
            };
        }
        let key = (s.pool, label);
        let Some(known) = self.choices.health.get(&key) else { return Ok(()) };
        let alone = s.usable.is_empty();
        if self.scenario.check_every_ms > 0 {
            // Requests alone never empty a pool.
            return if alone && !known.by_check {
                Ok(())
            } else {
                Err(format!("it is unhealthy: {known:?}"))
            };
        }
        Ok(())
    }

    /// Fewest exchanges in flight, relative to the weight; equal backends take turns.
    fn check_least_connection(&mut self, s: &Situation, chosen: &Candidate) {
        let load = |c: &Candidate, share: f64| c.in_flight.len() as f64 / share.max(1e-9);
        let open = || s.untried(&s.usable).filter(|c| !c.may_be_full());
        let limit = |c: &Candidate| load(c, c.least_share) * 1.000_001;
        let certain = s.usable.iter().all(|c| c.share >= 0.02);
        let better =
            open().filter(|c| load(chosen, chosen.share) > limit(c)).min_by_key(|c| c.in_flight.len());
        let suspicion = |why: String, depends_on: Vec<u64>| Suspicion {
            invariant: "least-connection",
            details: format!("request {} goes to {}: {why}: {s:?}", s.id, chosen.label),
            depends_on,
        };
        let mut found = None;
        if let Some(better) = better.filter(|_| certain) {
            let depends_on = chosen.in_flight.clone();
            found = Some(suspicion(format!("{} has less to do", better.label), depends_on));
        }
        let place = |label: &str| s.usable.iter().position(|c| c.label == label);
        let equal = s.usable.iter().all(|c| !c.ramps && (c.share - chosen.share).abs() < 1e-9);
        let limited = s.usable.iter().any(|c| c.max > 0);
        let last = self.choices.shares.last_of(s).and_then(place);
        if let (Some(last), true, false, true) = (last, equal, limited, s.tried.is_empty()) {
            let fewest = open().map(|c| c.in_flight.len()).min().unwrap_or(0);
            let n = s.usable.len();
            let turn = (1..=n).map(|step| &s.usable[(last + step) % n]);
            let next = turn.into_iter().find(|c| c.in_flight.len() == fewest);
            if let Some(next) = next.filter(|next| next.label != chosen.label) {
                let depends_on = s.usable.iter().flat_map(|c| c.in_flight.clone()).collect();
                found = found.or(Some(suspicion(format!("it is the turn of {}", next.label), depends_on)));
            }
        }
        self.choices.suspicions.extend(found);
        self.choices.shares.least_connection_chose(s, chosen);
    }

    /// An exchange has to wait.
    pub(crate) fn judge_full(&mut self, id: u64) {
        let Some(e) = self.choices.exchanges.get(&id) else { return };
        let (shard, pool, waits) = (e.shard, e.pool, e.waits);
        let before = self.may_wait(shard, pool) - u64::from(waits);
        self.ledger.get_mut(id).waited_behind = Some(before);
        // Looking for room takes turns, also of a newer configuration.
        self.choices.shares.interrupted(pool);
        let Some(s) = self.situation(id).filter(|_| self.ledger.violation.is_none()) else { return };
        // It may wait for one backend alone.
        if s.strategy == "IPHash" || self.cookie_names(id, pool).is_some() {
            return;
        }
        let left = s.untried(&s.usable).next().map_or(&s.backups, |_| &s.usable);
        if let Some(free) = s.untried(left).find(|c| !c.may_be_full()) {
            let details = format!("request {id} waits, and {} has room: {s:?}", free.label);
            self.ledger.fail("waits-rightly", details);
        }
    }

    /// No backend was left for an exchange.
    pub(crate) fn judge_none_left(&mut self, id: u64) {
        let Some(s) = self.situation(id).filter(|_| self.ledger.violation.is_none()) else { return };
        if let Some(left) = s.untried(&s.usable).chain(s.untried(&s.backups)).next() {
            let details = format!("request {id} finds no backend, and {} is usable: {s:?}", left.label);
            self.ledger.fail("none-left-rightly", details);
        }
    }
}
