//! Which backend gets the next exchange.
//!
//! Each shard has one [`Balancer`] for each pool; what must be exact over all shards (whose turn it is, how
//! many exchanges are in flight, which backends are usable) lies in the [`PoolState`] they share. A choice is
//! O(1), except for least connection, which looks at every usable backend.
//!
//! Which backends may be chosen: those that are not Unhealthy, have an address and a weight above zero;
//! backups only while no main backend is usable. Backends that this exchange has tried are never chosen
//! again: if all main ones have been tried, untried backups come next, and then none. While nothing is
//! usable, backends that only failed connects of requests have made Unhealthy are tried.

mod algorithm;
mod backend;
mod plan;
mod pool_state;
mod rendezvous;
mod smooth;
mod sticky;

use std::cmp::Ordering::{Equal, Greater, Less};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{self, Strategy};
use crate::planted::planted;
use crate::rng::Rng;
use crate::sync::Ordering;
use crate::time::Instant;

use algorithm::Algorithm;
pub use backend::BackendState;
use plan::{PlanNeeds, SelectionPlan};
pub(crate) use pool_state::PoolCounters;
pub use pool_state::{PoolState, WaitingShards};
use rendezvous::Rendezvous;
pub use sticky::Sticky;

/// What a [`Balancer`] has to know of an exchange to choose a backend for it.
#[derive(Clone, Copy, Debug)]
pub struct SelectionInput<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The backend that the client's cookie names ([`Sticky::find`]).
    pub sticky: Option<u16>,
    /// Backends that this exchange has tried before.
    pub tried: &'a Tried,
}

/// What a [`Balancer`] chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The backend at this place in the pool. A slot of it is taken: give it back with
    /// [`PoolState::finish`].
    Backend(u16),
    /// The backend that has to be used, or every usable one, is at its `max_connections`: wait for a slot
    /// ([`PoolState::wait`]).
    Full,
    /// No backend is usable.
    None,
}

/// The backends that an exchange has tried, by their places in the pool. Nearly every exchange tries one only
/// and never asks: then it takes no memory.
#[derive(Clone, Debug, Default)]
pub struct Tried(Vec<u16>);

impl Tried {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a backend, if it is not in the set yet.
    pub fn add(&mut self, backend: u16) {
        if !self.contains(backend) {
            self.0.push(backend);
        }
    }

    /// Whether `backend` is in the set.
    #[must_use]
    #[inline]
    pub fn contains(&self, backend: u16) -> bool {
        !self.is_empty() && self.0.contains(&backend)
    }

    /// Whether the set is empty.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the set empty; its memory is kept.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// How many full or tried backends round robin and random may meet before they look at all backends in order.
const MAX_DRAWS: usize = 64;

/// Chooses for one shard and pool.
#[derive(Debug)]
pub struct Balancer {
    state: Arc<PoolState>,
    algorithm: Algorithm,
    needs: PlanNeeds,
    sticky: Option<Sticky>,
    /// `max_connections` of each backend.
    max_in_flight: Box<[Option<u32>]>,
    plan: Arc<SelectionPlan>,
    rng: Rng,
}

impl Balancer {
    /// A balancer for `pool` with the state that `Shared::adopt` gave for it. `seed` is for random choices
    /// only.
    #[must_use]
    pub fn new(pool: &config::Pool, state: Arc<PoolState>, seed: u64) -> Self {
        debug_assert_eq!(pool.backends.len(), state.backends().len(), "the state of another pool");
        let algorithm = Algorithm::of(&pool.strategy);
        let needs = match algorithm {
            Algorithm::RoundRobin | Algorithm::Random => PlanNeeds::Order,
            Algorithm::LeastConnection => PlanNeeds::Weights,
            Algorithm::IpHash => PlanNeeds::Set,
        };
        Self {
            algorithm,
            needs,
            sticky: match &pool.strategy {
                Strategy::StickyCookie(cookie) => Some(Sticky::new(cookie, state.backends())),
                _ => None,
            },
            max_in_flight: pool.backends.iter().map(|backend| backend.max_connections).collect(),
            plan: Arc::new(SelectionPlan::outdated()),
            rng: Rng::new(seed),
            state,
        }
    }

    /// The shared state of its pool.
    #[must_use]
    pub fn state(&self) -> &Arc<PoolState> {
        &self.state
    }

    /// Whether the choice depends on the client, so that [`Choice::Full`] for one client does not mean it for
    /// another.
    #[must_use]
    pub fn is_by_client(&self) -> bool {
        self.algorithm == Algorithm::IpHash
    }

    /// The places of the backends among which the next exchange's is chosen: the usable main ones, or else
    /// the usable backups.
    pub fn candidates(&mut self, now: Instant) -> Vec<u16> {
        self.follow(now);
        self.plan.usable.to_vec()
    }

    /// Takes the plan for now, if it has another one.
    #[inline]
    fn follow(&mut self, now: Instant) {
        if self.plan.version != self.state.version() || now >= self.plan.expires {
            self.plan = self.state.current_plan(self.needs, now);
        }
    }

    /// The sticky cookie, if the strategy has one.
    #[must_use]
    pub fn sticky(&self) -> Option<&Sticky> {
        self.sticky.as_ref()
    }

    /// Chooses a backend and takes a slot of it.
    pub fn choose(&mut self, input: &SelectionInput<'_>, now: Instant) -> Choice {
        match self.choose_usable(input, now) {
            Choice::None if !self.plan.last_resort.is_empty() => self.choose_last_resort(input.tried),
            choice => choice,
        }
    }

    /// Of the backends that only requests have found to be away, the one with the fewest exchanges in flight:
    /// requests alone never empty a pool.
    #[cold]
    fn choose_last_resort(&mut self, tried: &Tried) -> Choice {
        let among = &self.plan.last_resort;
        if among.iter().all(|backend| tried.contains(*backend)) {
            return Choice::None;
        }
        Self::least_connection(&self.state, &self.max_in_flight, &mut self.rng, (among, Some(&[])), tried)
    }

    fn choose_usable(&mut self, input: &SelectionInput<'_>, now: Instant) -> Choice {
        self.follow(now);
        if let Some(choice) = self.sticky_choice(input, now) {
            return choice;
        }
        let tried = input.tried;
        if self.algorithm != Algorithm::IpHash
            && self.half_open_due(tried, now)
            && let Some(backend) =
                self.plan.unhealthy.iter().copied().find(|&backend| self.try_half_open(backend, tried, now))
        {
            return Choice::Backend(backend);
        }
        let avoided = |backend: &u16| tried.contains(*backend);
        if tried.is_empty() || !self.plan.usable.iter().all(avoided) {
            self.choose_from_usable(input, tried, now)
        } else if !self.plan.backups.iter().all(avoided) {
            Self::least_connection(
                &self.state,
                &self.max_in_flight,
                &mut self.rng,
                (&self.plan.backups, Some(&[])),
                tried,
            )
        } else if self.algorithm == Algorithm::IpHash {
            // Half-open attempts are part of it.
            self.ip_hash(input.client, tried, now)
        } else {
            // What has failed this exchange once is not asked again.
            Choice::None
        }
    }

    fn choose_from_usable(&mut self, input: &SelectionInput<'_>, tried: &Tried, now: Instant) -> Choice {
        match self.algorithm {
            Algorithm::IpHash => self.ip_hash(input.client, tried, now),
            _ if self.plan.usable.is_empty() => Choice::None,
            Algorithm::RoundRobin => self.round_robin(tried),
            Algorithm::Random => self.random(tried),
            Algorithm::LeastConnection => {
                let among =
                    (&*self.plan.usable, (!self.plan.equal && !planted!(86)).then_some(&*self.plan.weights));
                let choice =
                    Self::least_connection(&self.state, &self.max_in_flight, &mut self.rng, among, tried);
                if let Choice::Backend(backend) = choice
                    && !planted!(94)
                {
                    // Next time, the search starts at the backend after this one.
                    self.state.cursor().store(u64::from(backend) + 1, Ordering::Relaxed);
                }
                choice
            }
        }
    }

    fn take_slot(&self, backend: u16) -> bool {
        self.state.backends()[usize::from(backend)].try_start(self.max_in_flight[usize::from(backend)])
    }

    /// The backend of the client's cookie, if it is usable or due for a half-open attempt.
    fn sticky_choice(&self, input: &SelectionInput<'_>, now: Instant) -> Option<Choice> {
        let tried = input.tried;
        let wanted = input.sticky.filter(|&wanted| self.sticky.is_some() && !tried.contains(wanted))?;
        if self.plan.is_usable(wanted) && !planted!(87) {
            return Some(if self.take_slot(wanted) { Choice::Backend(wanted) } else { Choice::Full });
        }
        let half_open = self.half_open_due(tried, now)
            && self.plan.unhealthy.contains(&wanted)
            && self.try_half_open(wanted, tried, now);
        half_open.then_some(Choice::Backend(wanted))
    }

    /// Whether an Unhealthy backend is due for a half-open attempt and this exchange may make it: an exchange
    /// that has failed before makes none while other backends are usable.
    fn half_open_due(&self, tried: &Tried, now: Instant) -> bool {
        now >= self.plan.half_open_at && (tried.is_empty() || self.plan.usable.is_empty())
    }

    /// Claims the half-open attempt of an Unhealthy backend (without probes, one real request when its pause
    /// is over) and a slot for it.
    fn try_half_open(&self, unhealthy: u16, tried: &Tried, now: Instant) -> bool {
        let backend = &self.state.backends()[usize::from(unhealthy)];
        let full = self.max_in_flight[usize::from(unhealthy)].is_some_and(|max| backend.in_flight() >= max);
        if full || tried.contains(unhealthy) || !backend.health().try_half_open(self.state.rules(), now) {
            return false;
        }
        // The time of the next half-open attempt has moved.
        self.state.bump();
        self.take_slot(unhealthy)
    }

    fn round_robin(&self, tried: &Tried) -> Choice {
        let plan = &*self.plan;
        let mut turn = 0;
        for _ in 0..plan.order.len().min(MAX_DRAWS) {
            turn = self.state.cursor().fetch_add(1 + u64::from(planted!(25)), Ordering::Relaxed);
            let backend = plan.at(turn);
            let max = self.max_in_flight[usize::from(backend)];
            if planted!(95)
                && max.is_some_and(|max| self.state.backends()[usize::from(backend)].in_flight() >= max)
            {
                return Choice::Full;
            }
            if !tried.contains(backend) && self.take_slot(backend) {
                return Choice::Backend(backend);
            }
        }
        self.first_free(turn as usize, tried)
    }

    fn random(&mut self, tried: &Tried) -> Choice {
        for _ in 0..MAX_DRAWS {
            let turn = if planted!(90) { 0 } else { self.rng.below(self.plan.order.len() as u64) as usize };
            let backend = self.plan.order[turn];
            if !tried.contains(backend) && self.take_slot(backend) {
                return Choice::Backend(backend);
            }
        }
        let start = self.rng.below(self.plan.usable.len() as u64) as usize;
        self.first_free(start, tried)
    }

    /// The first usable backend with a free slot from `start` on, for when nearly all are full.
    fn first_free(&self, start: usize, tried: &Tried) -> Choice {
        let usable = &self.plan.usable;
        let (before, after) = usable.split_at(start % usable.len());
        let free = after
            .iter()
            .chain(before)
            .copied()
            .find(|&backend| !tried.contains(backend) && self.take_slot(backend));
        free.map_or(Choice::Full, Choice::Backend)
    }

    /// The backend with the fewest exchanges in flight for its weight. Equals take turns; if there are
    /// `weights` (missing ones are 1), one of the equals is drawn at random instead.
    fn least_connection(
        state: &PoolState,
        max_in_flight: &[Option<u32>],
        rng: &mut Rng,
        (among, weights): (&[u16], Option<&[u32]>),
        tried: &Tried,
    ) -> Choice {
        // Another shard may take the last slot of the backend found: look again, a few times.
        for _ in 0..4 {
            let cursor = state.cursor().load(Ordering::Relaxed);
            let start = among.partition_point(|&backend| u64::from(backend) < cursor);
            let mut best: Option<(u16, u64, u64)> = None;
            let mut tied_weight = 0;
            for place in (start..among.len()).chain(0..start) {
                let backend = among[place];
                let in_flight = state.backends()[usize::from(backend)].in_flight();
                let in_flight = if planted!(85) { in_flight.min(1) } else { in_flight };
                if tried.contains(backend)
                    || max_in_flight[usize::from(backend)].is_some_and(|max| in_flight >= max)
                {
                    continue;
                }
                let (in_flight, weight) = (
                    u64::from(in_flight),
                    weights.and_then(|weights| weights.get(place)).map_or(1, |&weight| u64::from(weight)),
                );
                let order = best
                    .map_or(Less, |(_, fewest, its_weight)| (in_flight * its_weight).cmp(&(fewest * weight)));
                match order {
                    Less => tied_weight = weight,
                    Equal => tied_weight += weight,
                    Greater => continue,
                }
                if order == Less || (order == Equal && weights.is_some() && rng.below(tied_weight) < weight) {
                    best = Some((backend, in_flight, weight));
                }
            }
            let Some((backend, ..)) = best else { return Choice::Full };
            if state.backends()[usize::from(backend)].try_start(max_in_flight[usize::from(backend)]) {
                return Choice::Backend(backend);
            }
        }
        Choice::Full
    }

    /// The backend that the hash of the client's address leads to; if it is unusable, the hash's next choice,
    /// so that the clients of an unusable backend spread over all others.
    fn ip_hash(&self, client: IpAddr, tried: &Tried, now: Instant) -> Choice {
        let plan = &*self.plan;
        let (main, backups) = self.state.rendezvous();
        let choose = |backend| if self.take_slot(backend) { Choice::Backend(backend) } else { Choice::Full };
        let hash = Rendezvous::hash(client);
        let half_open_due = self.half_open_due(tried, now);
        // While backups are in use, a main backend can only get a half-open attempt.
        let on_main = if plan.on_backups && !half_open_due { 0 } else { MAX_DRAWS };
        let on_backups = if plan.on_backups { MAX_DRAWS } else { 0 };
        for backend in main.walk(hash).take(on_main).chain(backups.walk(hash).take(on_backups)) {
            if planted!(89) && !plan.usable.is_empty() && tried.is_empty() {
                return choose(plan.usable[hash as usize % plan.usable.len()]);
            }
            if plan.is_usable(backend) && !tried.contains(backend) {
                return choose(backend);
            }
            if half_open_due && plan.unhealthy.contains(&backend) && self.try_half_open(backend, tried, now) {
                return Choice::Backend(backend);
            }
        }
        let left = plan.usable.iter().copied().filter(|&backend| !tried.contains(backend));
        let next = left.max_by_key(|&backend| {
            Rendezvous::score(hash, self.state.backends()[usize::from(backend)].stable_hash())
        });
        next.map_or(Choice::None, choose)
    }
}
