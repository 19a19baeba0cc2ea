//! What a shard keeps for each pool and backend of a configuration, and how a new configuration takes the
//! place of an old one.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::balance::Balancer;
use crate::balance::{BackendState, PoolState};
use crate::config::{self, Config};
use crate::h1::HeadLimits;
use crate::health::check::{Expectation, request_bytes};
use crate::id::{ConnId, ExchangeId};
use crate::middleware::Chain;
use crate::observe::Observer;
use crate::pool::{IdleLinks, IdleList};
use crate::proxy::Proxy;
use crate::route::{CertificateNames, ListenerIds, Router};
use crate::time::Instant;

/// Retries that may be saved up, in tenths. With the refill this allows one retry for five requests, and a
/// burst of a thousand when a backend dies under load.
const RETRY_BUDGET_TENTHS: u32 = 10_000;
const RETRY_REFILL_TENTHS: u32 = 2;

/// The newest configuration, ready to route, and every pool and backend that is still in use.
pub(crate) struct PoolTable {
    pub(crate) config: Arc<Config>,
    /// Of client heads, before a pool is known.
    pub(crate) head_limits: HeadLimits,
    pub(crate) router: Router,
    pub(crate) certificate_names: CertificateNames,
    /// Configurations so far.
    pub(crate) generation: u32,
    pub(crate) listeners: ListenerIds,
    /// Slot of each pool of the newest configuration, in its order.
    pub(crate) current: Box<[u32]>,
    pub(crate) slots: Vec<Option<ShardPool>>,
    pub(crate) backends: Vec<ShardBackend>,
    pub(crate) links: IdleLinks,
}

/// A pool as one shard runs it. It lives as long as an exchange uses it: a reload closes nothing.
pub(crate) struct ShardPool {
    config: Arc<Config>,
    /// Place in `config.pools`.
    index: u16,
    /// Of the heads of its backends' responses.
    pub(crate) head_limits: HeadLimits,
    pub(crate) state: Arc<PoolState>,
    pub(crate) balancer: Balancer,
    /// Place in the shard's table of backends, by place in the pool.
    pub(crate) backends: Box<[u32]>,
    /// Waiting for a backend below its `max_connections`, oldest first. Ids of exchanges that have ended are
    /// skipped.
    pub(crate) queue: VecDeque<ExchangeId>,
    /// How many of `queue` still wait.
    pub(crate) waiting: u32,
    /// Exchanges and health checks that use it.
    pub(crate) users: u32,
    pub(crate) retired: bool,
    retry_tenths: u32,
    pub(crate) chain: Chain,
    /// The health check of each backend, as bytes.
    pub(crate) probes: Box<[Box<[u8]>]>,
    /// What its response has to be.
    pub(crate) expected: Expectation,
}

/// A backend as one shard sees it, whichever configurations name it.
pub(crate) struct ShardBackend {
    pub(crate) state: Arc<BackendState>,
    pub(crate) idle: IdleList,
    /// Connections that carry many streams.
    pub(crate) shared_conns: Vec<ConnId>,
    /// Round robin over the addresses of a name.
    pub(crate) turn: u32,
    /// The state's epoch when the idle connections were last looked through.
    pub(crate) seen_epoch: u32,
    /// Not named by the newest configuration: its idle connections are closed.
    pub(crate) retired: bool,
}

impl PoolTable {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Self {
            head_limits: head_limits(&config.limits),
            listeners: ListenerIds::new(&config.listeners),
            config,
            router: Router::new(&[]),
            certificate_names: CertificateNames::new(&[]),
            generation: 0,
            current: Box::new([]),
            slots: Vec::new(),
            backends: Vec::new(),
            links: IdleLinks::default(),
        }
    }

    /// Routes requests as this configuration says from now on.
    fn route(&mut self, config: &Config) {
        let ids = self.listeners.adopt(&config.listeners);
        self.router = Router::with_listeners(&config.pools, &|place| ids[usize::from(place)]);
    }

    /// The listeners have these ids, whatever the order of the newest configuration.
    pub(crate) fn keep_listener_ids(&mut self, ids: ListenerIds) {
        self.listeners = ids;
        let config = self.config.clone();
        self.route(&config);
    }

    /// Slots, those that are free among them.
    pub(crate) fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    /// A pool in use.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> &ShardPool {
        self.slots[slot as usize].as_ref().expect("a pool in use")
    }

    /// A pool in use.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut ShardPool {
        self.slots[slot as usize].as_mut().expect("a pool in use")
    }

    /// Drops a pool that nothing uses any more.
    #[inline]
    pub(crate) fn retire(&mut self, slot: u32) {
        if self.slots[slot as usize].as_ref().is_some_and(|pool| pool.retired && pool.users == 0) {
            self.slots[slot as usize] = None;
        }
    }

    /// One user of a pool has gone.
    #[inline]
    pub(crate) fn leave(&mut self, slot: u32) {
        self.get_mut(slot).users -= 1;
        self.retire(slot);
    }

    /// Puts a pool into a free slot.
    fn insert(&mut self, pool: ShardPool) -> u32 {
        match self.slots.iter().position(Option::is_none) {
            Some(free) => {
                self.slots[free] = Some(pool);
                free as u32
            }
            None => {
                self.slots.push(Some(pool));
                self.slots.len() as u32 - 1
            }
        }
    }

    /// The shard's own entry for a backend; the same one as long as the process knows the backend. Entries
    /// that are not `used` by any pool are given to others.
    fn backend(&mut self, state: &Arc<BackendState>, used: &mut Vec<bool>) -> u32 {
        let known = self.backends.iter().position(|b| Arc::ptr_eq(&b.state, state));
        let free = || {
            let unused = |(b, used): (&ShardBackend, &bool)| {
                !used && b.retired && b.idle.is_empty() && b.shared_conns.is_empty()
            };
            self.backends.iter().zip(&*used).position(unused)
        };
        let at = match known.or_else(free) {
            Some(at) => at,
            None => {
                self.backends.push(ShardBackend {
                    state: state.clone(),
                    idle: IdleList::default(),
                    shared_conns: Vec::new(),
                    turn: 0,
                    seen_epoch: 0,
                    retired: false,
                });
                used.push(true);
                self.backends.len() - 1
            }
        };
        let backend = &mut self.backends[at];
        if known.is_none() {
            (backend.state, backend.turn) = (state.clone(), 0);
        }
        (backend.retired, used[at]) = (false, true);
        at as u32
    }
}

impl ShardBackend {
    /// Idle connections that were good may not be good any more.
    #[inline]
    pub(crate) fn has_doubtful_idle(&self) -> bool {
        self.seen_epoch != self.state.epoch()
    }
}

impl ShardPool {
    /// What the configuration that it was adopted from says of it.
    #[inline]
    pub(crate) fn pool(&self) -> &config::Pool {
        &self.config.pools[self.index as usize]
    }

    /// A request more: a fifth of a retry is saved up.
    #[inline]
    pub(crate) fn count_request(&mut self) {
        self.retry_tenths = (self.retry_tenths + RETRY_REFILL_TENTHS).min(RETRY_BUDGET_TENTHS);
    }

    /// Spends one retry, if there is one: when everything fails, retries must not double the load.
    pub(crate) fn spend_retry(&mut self) -> bool {
        let enough = self.retry_tenths >= 10;
        if enough {
            self.retry_tenths -= 10;
        }
        enough
    }
}

/// The limits of heads, as the parser takes them.
fn head_limits(limits: &config::Limits) -> HeadLimits {
    HeadLimits {
        // Places in a head are 16 bits wide.
        head_bytes: (limits.head_bytes as usize).min(usize::from(u16::MAX)),
        fields: limits.fields as usize,
        target_bytes: limits.target_bytes as usize,
    }
}

impl<O: Observer> Proxy<O> {
    /// Takes a configuration into use. Exchanges under way keep the one they began with.
    pub(crate) fn adopt(&mut self, config: Arc<Config>, now: Instant) {
        self.tables.pages.set_cap(config.limits.buffer_bytes);
        let table = &mut self.pools;
        for old in &table.current {
            table.slots[*old as usize].as_mut().expect("a current pool").retired = true;
        }
        for backend in &mut table.backends {
            backend.retired = true;
        }
        let states = self.identity.shared.adopt(&config);
        let probes = self.identity.shared.probes(&states, self.identity.shard);
        self.checks.adopt(&probes, now);
        self.report_if_ready();
        let mut used = vec![false; self.pools.backends.len()];
        for at in self.pools.slots.iter().flatten().flat_map(|pool| pool.backends.iter()) {
            used[*at as usize] = true;
        }
        let places = config.pools.iter().zip(states).enumerate();
        let current = places.map(|(i, (_, state))| self.adopt_pool(&config, i, state, &mut used)).collect();
        let table = &mut self.pools;
        table.route(&config);
        table.generation = table.generation.wrapping_add(1);
        table.certificate_names = CertificateNames::new(&config.certificates);
        table.head_limits = head_limits(&config.limits);
        table.config = config;
        for slot in std::mem::replace(&mut table.current, current) {
            table.retire(slot);
        }
        for at in 0..self.pools.backends.len() as u32 {
            while self.pools.backends[at as usize].retired
                && !self.pools.backends[at as usize].idle.is_empty()
            {
                self.close_oldest_idle(at);
            }
        }
        self.close_bound_to_retired();
        self.schedule_lookups(now);
    }

    fn adopt_pool(
        &mut self,
        config: &Arc<Config>,
        index: usize,
        state: Arc<PoolState>,
        used: &mut Vec<bool>,
    ) -> u32 {
        let pool = &config.pools[index];
        let table = &mut self.pools;
        let backends = state.backends().iter().map(|backend| table.backend(backend, used)).collect();
        // Numbers that are drawn for middlewares change none that others get.
        let mut rng = self.identity.rng.clone();
        let seed = [rng.next_u64(), rng.next_u64()];
        let adopted = ShardPool {
            config: config.clone(),
            index: index as u16,
            head_limits: head_limits(&pool.limits),
            balancer: Balancer::new(pool, state.clone(), self.identity.rng.next_u64()),
            chain: self.identity.shared.chain(config, pool, seed),
            state,
            backends,
            queue: VecDeque::new(),
            waiting: 0,
            users: 0,
            retired: false,
            retry_tenths: RETRY_BUDGET_TENTHS,
            probes: pool.backends.iter().map(|backend| request_bytes(&pool.health, backend)).collect(),
            expected: Expectation::of(&pool.health),
        };
        table.insert(adopted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{HealthChange, Level, Record};
    use crate::shared::Shared;

    struct Silent;

    impl Observer for Silent {
        fn exchange(&mut self, _: &Record<'_>) {}
        fn health(&mut self, _: &HealthChange<'_>) {}
        fn note(&mut self, _: Level, _: &str) {}
    }

    #[test]
    fn reloads_pile_nothing_up() {
        let config = |n: usize| {
            let text = format!(
                "http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [\"10.0.0.{}:80\", \"10.0.1.{}:80\"]\n[[backend_pools]]\n\
                 addresses = [\"10.0.2.1:80\"]\n",
                n % 250,
                (n + 1) % 250
            );
            Arc::new(config::parse(&text).config.expect("a good configuration"))
        };
        let shared = Arc::new(Shared::new("host", 1));
        let mut proxy = Proxy::new(config(0), shared, 0, 1, Silent, Instant::ZERO);
        for n in 0..1_000 {
            proxy.handle_config(config(n), Instant::ZERO);
            let named: Vec<u32> =
                proxy.pools.slots.iter().flatten().flat_map(|pool| pool.backends.iter().copied()).collect();
            assert!(named.iter().all(|at| !proxy.pools.backends[*at as usize].retired), "{n}");
        }
        // Two pools and three backends, and as many that were before them.
        assert!(
            proxy.pools.slots.len() <= 4 && proxy.pools.backends.len() <= 6,
            "{} {}",
            proxy.pools.slots.len(),
            proxy.pools.backends.len()
        );
    }
}
