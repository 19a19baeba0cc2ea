//! Which backend gets the next exchange.
//!
//! One [`Balancer`] for each shard and pool; what must be exact over all shards (whose turn it is, how many
//! are in flight, who is usable) lies in the [`PoolState`] they share. A choice is O(1) but for least
//! connection, which looks at every usable backend.
//!
//! Who may be chosen: backends that are not Unhealthy, have an address and a weight; backups only while no
//! other is left. Those that this exchange has tried are avoided while another is usable; if all main ones
//! have been tried, backups come first, then the tried again.

pub(crate) mod plan;
pub(crate) mod rendezvous;
mod smooth;
mod sticky;

use crate::sync::Ordering;
use std::cmp::Ordering::{Equal, Greater, Less};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{self, Strategy};
use crate::planted::planted;
use crate::rng::Rng;
use crate::shared::PoolState;
use crate::time::Instant;

use plan::{Needs, Plan};
use rendezvous::Rendezvous;
pub use sticky::Sticky;

/// What is asked of a [`Balancer`].
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The backend that the client's cookie names ([`Sticky::find`]).
    pub sticky: Option<u16>,
    /// Backends that this exchange has tried before.
    pub tried: &'a Tried,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This one, and a slot of it is taken: give it back with [`PoolState::finish`].
    Backend(u16),
    /// The one that has to be used, or every usable one, is at its `max_connections`: wait
    /// ([`PoolState::wait`]).
    Full,
    /// No backend is usable.
    None,
}

/// A small set of backends.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    few: [u16; Tried::FEW],
    used: u8,
    more: Vec<u16>,
}

impl Tried {
    /// As many need no allocation.
    const FEW: usize = 8;

    /// Nothing tried yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { few: [0; Self::FEW], used: 0, more: Vec::new() }
    }

    /// Adds a backend.
    pub fn add(&mut self, backend: u16) {
        if self.contains(backend) {
            return;
        }
        match self.few.get_mut(usize::from(self.used)) {
            Some(free) => {
                *free = backend;
                self.used += 1;
            }
            None => self.more.push(backend),
        }
    }

    /// Whether `backend` has been added.
    #[must_use]
    #[inline]
    pub fn contains(&self, backend: u16) -> bool {
        !self.is_empty() && self.holds(backend)
    }

    fn holds(&self, backend: u16) -> bool {
        self.few[..usize::from(self.used)].contains(&backend) || self.more.contains(&backend)
    }

    /// Whether nothing has been added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.used = 0;
        self.more.clear();
    }
}

/// Draws of a strategy that may meet full or tried backends before it looks at all of them in turn.
const DRAWS: usize = 64;

/// Chooses for one shard and pool.
#[derive(Debug)]
pub struct Balancer {
    state: Arc<PoolState>,
    strategy: Kind,
    needs: Needs,
    sticky: Option<Sticky>,
    caps: Box<[Option<u32>]>,
    plan: Arc<Plan>,
    rng: Rng,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    RoundRobin,
    Random,
    IpHash,
    LeastConnection,
}

impl Kind {
    fn of(strategy: &Strategy) -> Self {
        match strategy {
            Strategy::RoundRobin => Self::RoundRobin,
            Strategy::Random => Self::Random,
            Strategy::IpHash => Self::IpHash,
            Strategy::LeastConnection => Self::LeastConnection,
            Strategy::StickyCookie(sticky) => Self::of(&sticky.inner),
        }
    }
}

impl Balancer {
    /// For `pool` with the state that [`crate::Shared::adopt`] gave for it. `seed` matters for what is random
    /// only.
    #[must_use]
    pub fn new(pool: &config::Pool, state: Arc<PoolState>, seed: u64) -> Self {
        debug_assert_eq!(pool.backends.len(), state.backends().len(), "the state of another pool");
        let strategy = Kind::of(&pool.strategy);
        let needs = match strategy {
            Kind::RoundRobin | Kind::Random => Needs::Order,
            Kind::LeastConnection => Needs::Weights,
            Kind::IpHash => Needs::Set,
        };
        Self {
            strategy,
            needs,
            sticky: match &pool.strategy {
                Strategy::StickyCookie(cookie) => Some(Sticky::new(cookie, &state)),
                _ => None,
            },
            caps: pool.backends.iter().map(|backend| backend.max_connections).collect(),
            plan: Arc::new(Plan::outdated()),
            rng: Rng::new(seed),
            state,
        }
    }

    /// Whether a pool of this strategy needs [`PoolState::rendezvous`].
    pub(crate) fn hashes_clients(strategy: &Strategy) -> bool {
        Kind::of(strategy) == Kind::IpHash
    }

    /// The shared state it chooses by.
    #[must_use]
    pub fn state(&self) -> &Arc<PoolState> {
        &self.state
    }

    /// Whether what one client gets says nothing of what another would get.
    #[must_use]
    pub fn is_by_client(&self) -> bool {
        self.strategy == Kind::IpHash
    }

    /// The sticky cookie, if the strategy is one.
    #[must_use]
    pub fn sticky(&self) -> Option<&Sticky> {
        self.sticky.as_ref()
    }

    /// Chooses, and takes a slot of what it chose.
    pub fn choose(&mut self, ask: &Ask<'_>, now: Instant) -> Choice {
        if self.plan.version != self.state.version() || now >= self.plan.expires {
            self.plan = Plan::current(&self.state, self.needs, now);
        }
        if let Some(choice) = self.stuck(ask, now) {
            return choice;
        }
        if self.strategy != Kind::IpHash
            && self.trial_due(ask.tried, now)
            && let Some(backend) =
                self.plan.sick.iter().copied().find(|&sick| self.trial(sick, ask.tried, now))
        {
            return Choice::Backend(backend);
        }
        let tried = ask.tried;
        let avoided = |backend: &u16| tried.contains(*backend);
        if tried.is_empty() || !self.plan.usable.iter().all(avoided) {
            self.choose_from_usable(ask, tried, now)
        } else if !self.plan.backups.iter().all(avoided) {
            Self::least(&self.state, &self.caps, &mut self.rng, (&self.plan.backups, Some(&[])), tried)
        } else {
            self.choose_from_usable(ask, &Tried::new(), now)
        }
    }

    fn choose_from_usable(&mut self, ask: &Ask<'_>, tried: &Tried, now: Instant) -> Choice {
        match self.strategy {
            Kind::IpHash => self.hashed(ask.client, tried, now),
            _ if self.plan.usable.is_empty() => Choice::None,
            Kind::RoundRobin => self.in_turn(tried),
            Kind::Random => self.at_random(tried),
            Kind::LeastConnection => {
                let among = (&*self.plan.usable, (!self.plan.equal).then_some(&*self.plan.weights));
                let choice = Self::least(&self.state, &self.caps, &mut self.rng, among, tried);
                if let Choice::Backend(backend) = choice {
                    // The one after it is the first to be looked at next.
                    self.state.cursor().store(u64::from(backend) + 1, Ordering::Relaxed);
                }
                choice
            }
        }
    }

    fn take(&self, backend: u16) -> bool {
        self.state.backends()[usize::from(backend)].try_start(self.caps[usize::from(backend)])
    }

    /// The backend of the client's cookie, if it is usable.
    fn stuck(&self, ask: &Ask<'_>, now: Instant) -> Option<Choice> {
        let wanted = ask.sticky.filter(|&wanted| self.sticky.is_some() && !ask.tried.contains(wanted))?;
        if self.plan.is_usable(wanted) {
            return Some(if self.take(wanted) { Choice::Backend(wanted) } else { Choice::Full });
        }
        let trial = self.trial_due(ask.tried, now)
            && self.plan.sick.contains(&wanted)
            && self.trial(wanted, ask.tried, now);
        trial.then_some(Choice::Backend(wanted))
    }

    /// Whether this exchange may try an Unhealthy backend: one that has failed once already has no attempt to
    /// spare while there are others.
    fn trial_due(&self, tried: &Tried, now: Instant) -> bool {
        now >= self.plan.trial_at && (tried.is_empty() || self.plan.usable.is_empty())
    }

    /// Without probes, an Unhealthy backend is tried by one real request when its pause is over.
    fn trial(&self, sick: u16, tried: &Tried, now: Instant) -> bool {
        let backend = &self.state.backends()[usize::from(sick)];
        let full = self.caps[usize::from(sick)].is_some_and(|cap| backend.in_flight() >= cap);
        if full || tried.contains(sick) || !backend.health().try_trial(self.state.rules(), now) {
            return false;
        }
        // The next trial has moved.
        self.state.bump();
        self.take(sick)
    }

    fn in_turn(&self, tried: &Tried) -> Choice {
        let plan = &*self.plan;
        let mut turn = 0;
        for _ in 0..plan.order.len().min(DRAWS) {
            turn = self.state.cursor().fetch_add(1 + u64::from(planted!(25)), Ordering::Relaxed);
            let backend = plan.at(turn);
            if !tried.contains(backend) && self.take(backend) {
                return Choice::Backend(backend);
            }
        }
        self.any_from(turn as usize, tried)
    }

    fn at_random(&mut self, tried: &Tried) -> Choice {
        for _ in 0..DRAWS {
            let backend = self.plan.order[self.rng.below(self.plan.order.len() as u64) as usize];
            if !tried.contains(backend) && self.take(backend) {
                return Choice::Backend(backend);
            }
        }
        let start = self.rng.below(self.plan.usable.len() as u64) as usize;
        self.any_from(start, tried)
    }

    /// The first with a free slot, from some place on: for when nearly all are full.
    fn any_from(&self, start: usize, tried: &Tried) -> Choice {
        let usable = &self.plan.usable;
        let (before, after) = usable.split_at(start % usable.len());
        let free = after
            .iter()
            .chain(before)
            .copied()
            .find(|&backend| !tried.contains(backend) && self.take(backend));
        free.map_or(Choice::Full, Choice::Backend)
    }

    /// The one with the fewest in flight for its weight. Among equals: by turns, or, if there are `weights`,
    /// by lot (missing ones are 1).
    fn least(
        state: &PoolState,
        caps: &[Option<u32>],
        rng: &mut Rng,
        (among, weights): (&[u16], Option<&[u32]>),
        tried: &Tried,
    ) -> Choice {
        // Another shard may take the last slot of the one found: look again, some times.
        for _ in 0..4 {
            let cursor = state.cursor().load(Ordering::Relaxed);
            let start = among.partition_point(|&backend| u64::from(backend) < cursor);
            let mut best: Option<(u16, u64, u64)> = None;
            let mut tied_weight = 0;
            for place in (start..among.len()).chain(0..start) {
                let backend = among[place];
                let in_flight = state.backends()[usize::from(backend)].in_flight();
                if tried.contains(backend) || caps[usize::from(backend)].is_some_and(|cap| in_flight >= cap) {
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
            if state.backends()[usize::from(backend)].try_start(caps[usize::from(backend)]) {
                return Choice::Backend(backend);
            }
        }
        Choice::Full
    }

    /// The client's own backend; where that one is unusable, the client's next, which differs among the
    /// clients of one backend.
    fn hashed(&self, client: IpAddr, tried: &Tried, now: Instant) -> Choice {
        let plan = &*self.plan;
        let (main, backups) = self.state.rendezvous();
        let taken = |backend| if self.take(backend) { Choice::Backend(backend) } else { Choice::Full };
        let hash = Rendezvous::hash(client);
        let trial_due = self.trial_due(tried, now);
        // While backups stand in, a main one can only be tried again.
        let on_main = if plan.on_backups && !trial_due { 0 } else { DRAWS };
        let on_backups = if plan.on_backups { DRAWS } else { 0 };
        for backend in main.walk(hash).take(on_main).chain(backups.walk(hash).take(on_backups)) {
            if plan.is_usable(backend) && !tried.contains(backend) {
                return taken(backend);
            }
            if trial_due && plan.sick.contains(&backend) && self.trial(backend, tried, now) {
                return Choice::Backend(backend);
            }
        }
        let left = plan.usable.iter().copied().filter(|&backend| !tried.contains(backend));
        let next = left.max_by_key(|&backend| {
            Rendezvous::score(hash, self.state.backends()[usize::from(backend)].stable_hash())
        });
        next.map_or(Choice::None, taken)
    }
}
