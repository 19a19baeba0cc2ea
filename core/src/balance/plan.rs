//! Which backends are usable and in which order they take turns, until something changes. A plan is made by
//! the shard that sees a change first; all shards follow it.

use std::sync::Arc;
use std::time::Duration;

use super::backend::BackendState;
use super::smooth;
use crate::config;
use crate::health::Rules;
use crate::planted::planted;
use crate::time::Instant;

/// How much of a [`SelectionPlan`] a strategy uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlanNeeds {
    /// The set of usable backends.
    Set,
    /// The set, and the share of each.
    Weights,
    /// The set, the shares, and an order of turns that keeps to the shares.
    Order,
}

/// What a plan is made from: the state of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlanInput<'a> {
    pub(super) backends: &'a [Arc<BackendState>],
    /// The configuration of each backend.
    pub(super) configured: &'a [config::Backend],
    pub(super) rules: &'a Rules,
    /// The version that the plan gets.
    pub(super) version: u64,
    /// The round-robin cursor.
    pub(super) cursor: u64,
}

impl PlanInput<'_> {
    fn backend(&self, index: u16) -> &BackendState {
        &self.backends[usize::from(index)]
    }

    fn configured(&self, index: u16) -> &config::Backend {
        &self.configured[usize::from(index)]
    }

    /// Share of the backend's weight that it gets now, in thousandths; while it grows, a multiple of ten, so
    /// that orders stay short.
    fn share(&self, index: u16, now: Instant) -> u32 {
        let health = self.backend(index).health();
        let permille = health.weight_permille(self.rules, now);
        // At least 1: a backend that became unhealthy after `usable` was found is still in this plan; the
        // next version takes it out.
        let ramping = health.ramp_end(self.rules, now).is_some();
        if planted!(83) && ramping {
            return 1000;
        }
        if planted!(84) && !ramping {
            return 1000;
        }
        if ramping { (permille / 10 * 10).max(1) } else { permille.max(1) }
    }
}

/// While shares grow, a plan lasts for a hundredth of `ramp_up`, but at least this long.
const MIN_RAMP_STEP: Duration = Duration::from_millis(50);

/// One turn, in the unit in which `carry` counts.
const ONE_TURN: i64 = 1 << 32;

/// The usable backends of a pool and their order, as of one version of the pool.
#[derive(Debug)]
pub(crate) struct SelectionPlan {
    /// The pool's version when this was made.
    pub(super) version: u64,
    /// When shares will have grown so far that a new plan is due.
    pub(super) expires: Instant,
    /// The backends that may be chosen, in the configuration's order: main ones, or the backups if no main
    /// one is usable.
    pub(super) usable: Box<[u16]>,
    /// Whether `usable` are backups.
    pub(super) on_backups: bool,
    /// Usable backups while main ones are used.
    pub(super) backups: Box<[u16]>,
    /// Shares of `usable`: weight times thousandths of it.
    pub(super) weights: Box<[u32]>,
    /// Whether all shares are the same.
    pub(super) equal: bool,
    /// The order of turns, repeated without end; its first turn is when the pool's cursor is at `base`.
    pub(super) order: Box<[u16]>,
    base: u64,
    /// How often each of `usable` is in `order`.
    units: Box<[u32]>,
    /// By how much each of `usable` was behind its share when this plan began, in 1 / 2^32 of one turn.
    carry: Box<[i64]>,
    /// Unhealthy backends; without probes, one real request at a time tries them (half-open).
    pub(super) unhealthy: Box<[u16]>,
    /// When the first of them is due for that.
    pub(super) half_open_at: Instant,
    /// Those of `unhealthy` that are tried while nothing is usable: requests could not connect to them, but
    /// no check has found them ill.
    pub(super) last_resort: Box<[u16]>,
    /// For each backend whether it is among `usable`.
    is_usable: Box<[bool]>,
}

impl SelectionPlan {
    /// An empty plan that is out of date in every version of a pool.
    pub(super) fn outdated() -> Self {
        Self {
            version: 0,
            expires: Instant::ZERO,
            usable: Box::default(),
            on_backups: false,
            backups: Box::default(),
            weights: Box::default(),
            equal: true,
            order: Box::default(),
            base: 0,
            units: Box::default(),
            carry: Box::default(),
            unhealthy: Box::default(),
            half_open_at: Instant::NEVER,
            last_resort: Box::default(),
            is_usable: Box::default(),
        }
    }

    /// A plan for now; `before` is the one that it replaces.
    pub(super) fn make(input: &PlanInput<'_>, needs: PlanNeeds, now: Instant, before: Option<&Self>) -> Self {
        let (mut main, mut backups, mut unhealthy) = (Vec::new(), Vec::new(), Vec::new());
        for (index, backend) in input.backends.iter().enumerate() {
            let index = index as u16;
            let configured = input.configured(index);
            if configured.weight == 0 && !planted!(92) || !backend.resolved() {
                continue;
            }
            match (backend.health().usable() || planted!(15), configured.backup && !planted!(91)) {
                (true, false) => main.push(index),
                (true, true) => backups.push(index),
                (false, _) => unhealthy.push(index),
            }
        }
        let on_backups = main.is_empty();
        let (usable, backups) = if on_backups { (backups, Vec::new()) } else { (main, backups) };
        unhealthy.retain(|&index| on_backups || !input.configured(index).backup);
        let attempts =
            unhealthy.iter().filter_map(|&index| input.backend(index).health().half_open_at(input.rules));
        let mut plan = Self {
            version: input.version,
            expires: Instant::NEVER,
            on_backups,
            half_open_at: attempts.min().unwrap_or(Instant::NEVER),
            ..Self::outdated()
        };
        plan.is_usable =
            (0..input.backends.len() as u16).map(|index| usable.binary_search(&index).is_ok()).collect();
        if needs != PlanNeeds::Set {
            let step = (input.rules.ramp_up / 100).max(MIN_RAMP_STEP);
            let ends =
                usable.iter().filter_map(|&index| input.backend(index).health().ramp_end(input.rules, now));
            plan.expires = ends.map(|end| end.min(now + step)).min().unwrap_or(Instant::NEVER);
            plan.weights = usable
                .iter()
                .map(|&index| input.configured(index).weight.saturating_mul(input.share(index, now)))
                .collect();
            plan.equal = plan.weights.iter().all(|weight| *weight == plan.weights[0]) || planted!(82);
        }
        if needs == PlanNeeds::Order && !usable.is_empty() {
            plan.put_in_order(&usable, input.cursor, before);
        }
        if usable.is_empty() {
            let by_traffic = |index: &u16| input.backend(*index).health().is_unhealthy_by_traffic();
            plan.last_resort = unhealthy.iter().copied().filter(by_traffic).collect();
        }
        plan.usable = usable.into();
        plan.backups = backups.into();
        plan.unhealthy = unhealthy.into();
        plan
    }

    fn put_in_order(&mut self, usable: &[u16], cursor: u64, before: Option<&Self>) {
        self.base = cursor;
        let before = before.filter(|before| !before.order.is_empty());
        if self.equal {
            self.units = vec![1; usable.len()].into();
            self.carry = vec![0; usable.len()].into();
            // Continue after the backend that had the last turn.
            let last = before.map(|before| before.at(cursor.wrapping_sub(1)));
            let start = last.map_or(0, |last| usable.partition_point(|&index| index <= last) % usable.len());
            self.order = [&usable[start..], &usable[..start]].concat().into();
            return;
        }
        self.units = smooth::units(&self.weights).into();
        let deficits = before.map(|before| before.deficits(cursor)).unwrap_or_default();
        let find = |index: &u16| {
            deficits
                .binary_search_by_key(index, |&(backend, _)| backend)
                .map_or(0, |place| deficits[place].1.clamp(-ONE_TURN, ONE_TURN))
        };
        self.carry = usable.iter().map(find).collect();
        self.order = smooth::order(&self.units, &self.carry)
            .into_iter()
            .map(|place| usable[usize::from(place)])
            .collect();
    }

    /// The backend whose turn it is at `cursor`. Only for [`PlanNeeds::Order`] and with a usable backend.
    pub(super) fn at(&self, cursor: u64) -> u16 {
        self.order[(cursor.wrapping_sub(self.base) % self.order.len() as u64) as usize]
    }

    /// By how much each usable backend is behind its share when the cursor is at `cursor`, in 1 / 2^32 of one
    /// turn.
    fn deficits(&self, cursor: u64) -> Vec<(u16, i64)> {
        let length = self.order.len() as i64;
        let turns = (cursor.wrapping_sub(self.base) % self.order.len() as u64) as usize;
        let mut counts = vec![0i64; self.is_usable.len()];
        self.order[..turns].iter().for_each(|&index| counts[usize::from(index)] += 1);
        let one = |((&index, &units), &carry): ((&u16, &u32), &i64)| {
            let deficit = i64::from(units) * turns as i64 - length * counts[usize::from(index)];
            (index, carry + ((i128::from(deficit) << 32) / i128::from(length)) as i64)
        };
        self.usable.iter().zip(&self.units).zip(&self.carry).map(one).collect()
    }

    /// Whether `backend` is among those that may be chosen.
    pub(super) fn is_usable(&self, backend: u16) -> bool {
        self.is_usable.get(usize::from(backend)).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::ProbeOutcome;

    /// A plan with growing shares lasts for one step of theirs, and not beyond the end of the first.
    #[test]
    fn a_plan_expires_as_shares_grow() {
        let text = "http_address = \"192.0.2.1:80\"\n[[backend_pools]]\naddresses = [\"10.0.0.1:80\"]\n\
                    [backend_pools.health_config]\nrise = 1\nfall = 1\nramp_up = 10\n";
        let config = config::parse(text).config.expect("a good text");
        let rules = Rules::of(&config.pools[0]);
        let backends = [Arc::new(BackendState::new(&config.pools[0].backends[0], 1, 1))];
        let plan = |now| {
            let configured = &config.pools[0].backends;
            let input = PlanInput { backends: &backends, configured, rules: &rules, version: 1, cursor: 0 };
            SelectionPlan::make(&input, PlanNeeds::Order, now, None)
        };
        let start = Instant::from_millis(1_000_000);
        assert_eq!(plan(start).expires, Instant::NEVER);
        let health = backends[0].health();
        health.probed(&ProbeOutcome::UnexpectedStatus { status: 500 }, &rules, start);
        health.probed(&ProbeOutcome::Good { status: 200, after: Duration::ZERO }, &rules, start);
        for (after, lasts) in [(0, 100), (5_000, 100), (9_850, 100), (9_930, 70)] {
            let now = start + Duration::from_millis(after);
            assert_eq!(plan(now).expires, now + Duration::from_millis(lasts), "{after}");
        }
        assert_eq!(plan(start + Duration::from_millis(10_001)).expires, Instant::NEVER);
    }
}
