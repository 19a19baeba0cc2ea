//! Who is usable and in which order, until something changes: made by the shard that first sees the change,
//! followed by all.

use crate::sync::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::smooth;
use crate::planted::planted;
use crate::shared::PoolState;
use crate::time::Instant;

/// How much of a [`Plan`] a strategy uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Who is usable.
    Set,
    /// And their shares.
    Weights,
    /// And an order that keeps to them.
    Order,
}

/// While shares grow, a plan lasts for a hundredth of `ramp_up`, but at least so long.
const STEP_MIN: Duration = Duration::from_millis(50);

/// One turn, in the unit of what is owed.
const ONE: i64 = 1 << 32;

/// One state of affairs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Of the pool, when this was made.
    pub(crate) version: u64,
    /// When shares will have grown so far that it is worth a new plan.
    pub(crate) expires: Instant,
    /// Who may be chosen, in the configuration's order: main backends, or the backups if there is no main
    /// one.
    pub(crate) usable: Box<[u16]>,
    /// Whether `usable` are backups.
    pub(crate) on_backups: bool,
    /// Usable backups while main ones are used.
    pub(crate) backups: Box<[u16]>,
    /// Shares of `usable`, thousandths of the weight included.
    pub(crate) weights: Box<[u32]>,
    /// Whether all shares are the same.
    pub(crate) equal: bool,
    /// Whose turn it is, over and over; starts at `base` of the pool's cursor.
    pub(crate) order: Box<[u16]>,
    base: u64,
    /// How often each of `usable` is in `order`.
    units: Box<[u32]>,
    /// What each of `usable` had got too little of (in 1 / 2^32 of one turn) before this plan began.
    carry: Box<[i64]>,
    /// Unhealthy ones that real traffic has to try.
    pub(crate) sick: Box<[u16]>,
    /// When the first of them is due.
    pub(crate) trial_at: Instant,
    /// For each backend whether it is among `usable`.
    is_usable: Box<[bool]>,
}

impl Plan {
    /// One that no version fits.
    pub(crate) fn outdated() -> Self {
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
            sick: Box::default(),
            trial_at: Instant::NEVER,
            is_usable: Box::default(),
        }
    }

    /// The plan for now, made if need be. `needs` is the same for all shards of a pool.
    pub(crate) fn current(state: &PoolState, needs: Needs, now: Instant) -> Arc<Self> {
        let mut shared = state.plan.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before the backends are: what changes meanwhile gives a new version.
        let mut version = state.version();
        if let Some(plan) = &*shared
            && plan.version == version
        {
            if now < plan.expires {
                return Arc::clone(plan);
            }
            version = state.bump();
        }
        let plan = Arc::new(Self::make(state, needs, version, now, shared.as_deref()));
        *shared = Some(Arc::clone(&plan));
        plan
    }

    fn make(state: &PoolState, needs: Needs, version: u64, now: Instant, before: Option<&Self>) -> Self {
        let rules = state.rules();
        let (mut main, mut backups, mut sick) = (Vec::new(), Vec::new(), Vec::new());
        for (index, backend) in state.backends().iter().enumerate() {
            let index = index as u16;
            let configured = state.configured(index);
            if configured.weight == 0 || !backend.resolved() {
                continue;
            }
            match (backend.health().usable() || planted!(15), configured.backup) {
                (true, false) => main.push(index),
                (true, true) => backups.push(index),
                (false, _) => sick.push(index),
            }
        }
        let on_backups = main.is_empty();
        let (usable, backups) = if on_backups { (backups, Vec::new()) } else { (main, backups) };
        sick.retain(|&index| on_backups || !state.configured(index).backup);
        let trials =
            sick.iter().filter_map(|&index| state.backends()[usize::from(index)].health().trial_at(rules));
        let mut plan = Self {
            version,
            expires: Instant::NEVER,
            on_backups,
            trial_at: trials.min().unwrap_or(Instant::NEVER),
            ..Self::outdated()
        };
        plan.is_usable =
            (0..state.backends().len() as u16).map(|index| usable.binary_search(&index).is_ok()).collect();
        if needs != Needs::Set {
            let step = (rules.ramp_up / 100).max(STEP_MIN);
            let ends = usable
                .iter()
                .filter_map(|&index| state.backends()[usize::from(index)].health().ramp_end(rules, now));
            plan.expires = ends.map(|end| end.min(now + step)).min().unwrap_or(Instant::NEVER);
            plan.weights = usable
                .iter()
                .map(|&index| state.configured(index).weight.saturating_mul(share(state, index, now)))
                .collect();
            plan.equal = plan.weights.iter().all(|weight| *weight == plan.weights[0]);
        }
        if needs == Needs::Order && !usable.is_empty() {
            plan.put_in_order(&usable, state.cursor().load(Ordering::Relaxed), before);
        }
        plan.usable = usable.into();
        plan.backups = backups.into();
        plan.sick = sick.into();
        plan
    }

    fn put_in_order(&mut self, usable: &[u16], cursor: u64, before: Option<&Self>) {
        self.base = cursor;
        let before = before.filter(|before| !before.order.is_empty());
        if self.equal {
            self.units = vec![1; usable.len()].into();
            self.carry = vec![0; usable.len()].into();
            // Go on after the one that was last.
            let last = before.map(|before| before.at(cursor.wrapping_sub(1)));
            let start = last.map_or(0, |last| usable.partition_point(|&index| index <= last) % usable.len());
            self.order = [&usable[start..], &usable[..start]].concat().into();
            return;
        }
        self.units = smooth::units(&self.weights).into();
        let owed = before.map(|before| before.owed(cursor)).unwrap_or_default();
        let find = |index: &u16| {
            owed.binary_search_by_key(index, |&(owed, _)| owed)
                .map_or(0, |place| owed[place].1.clamp(-ONE, ONE))
        };
        self.carry = usable.iter().map(find).collect();
        self.order = smooth::order(&self.units, &self.carry)
            .into_iter()
            .map(|place| usable[usize::from(place)])
            .collect();
    }

    /// Whose turn it is at `cursor`. Only with [`Needs::Order`] and someone usable.
    pub(crate) fn at(&self, cursor: u64) -> u16 {
        self.order[(cursor.wrapping_sub(self.base) % self.order.len() as u64) as usize]
    }

    /// What each backend has got too little of when the cursor is at `cursor`, in 1 / 2^32 of one turn.
    fn owed(&self, cursor: u64) -> Vec<(u16, i64)> {
        let length = self.order.len() as i64;
        let turns = (cursor.wrapping_sub(self.base) % self.order.len() as u64) as usize;
        let mut counts = vec![0i64; self.is_usable.len()];
        self.order[..turns].iter().for_each(|&index| counts[usize::from(index)] += 1);
        let one = |((&index, &units), &carry): ((&u16, &u32), &i64)| {
            let owed = i64::from(units) * turns as i64 - length * counts[usize::from(index)];
            (index, carry + ((i128::from(owed) << 32) / i128::from(length)) as i64)
        };
        self.usable.iter().zip(&self.units).zip(&self.carry).map(one).collect()
    }

    /// Whether `backend` is among those that may be chosen.
    pub(crate) fn is_usable(&self, backend: u16) -> bool {
        self.is_usable.get(usize::from(backend)).copied().unwrap_or(false)
    }
}

/// In thousandths; while it grows, in hundredths, so that orders stay short.
fn share(state: &PoolState, index: u16, now: Instant) -> u32 {
    let health = state.backends()[usize::from(index)].health();
    let permille = health.weight_permille(state.rules(), now);
    // A backend that fell after `usable` was found still gets a place: the next version takes it away.
    if health.ramp_end(state.rules(), now).is_some() { (permille / 10 * 10).max(1) } else { permille.max(1) }
}
