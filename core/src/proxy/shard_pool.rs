//! What a shard keeps for each pool and backend of a configuration, and how a new configuration takes the
//! place of an old one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::balance::Balancer;
use crate::balance::{BackendState, PoolState};
use crate::config::{self, Config, Http2Use};
use crate::h1::HeadLimits;
use crate::health::check::{Expectation, request_bytes};
use crate::id::{ConnId, ExchangeId, ListenerId};
use crate::middleware::Chain;
use crate::observe::Observer;
use crate::pool::{IdleLinks, IdleList};
use crate::proxy::Proxy;
use crate::route::{CertificateNames, ListenerIds, Router};
use crate::shared::Prepared;
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
    pub(crate) certificate_names: Arc<CertificateNames>,
    /// Configurations so far.
    pub(crate) generation: u32,
    pub(crate) listeners: ListenerIds,
    /// Slot of each pool of the newest configuration, in its order.
    pub(crate) current: Box<[u32]>,
    /// Of each of them its number in [`Prepared`].
    definitions: Arc<[u64]>,
    /// Places of the newest configuration's listeners, by their ids.
    places: Vec<u16>,
    free_slots: Vec<u32>,
    /// Entries of backends that no pool uses, or did not use when they were put here.
    unused: Vec<u32>,
    pub(crate) slots: Vec<Option<ShardPool>>,
    pub(crate) backends: Vec<ShardBackend>,
    pub(crate) links: IdleLinks,
}

/// A pool as one shard runs it. It lives as long as an exchange uses it: a reload closes nothing.
pub(crate) struct ShardPool {
    /// What the configuration that it was adopted from says of it, and every one since that says the same.
    pool: Arc<config::Pool>,
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

/// What a backend is known to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Unknown,
    Http1,
    Http2,
}

/// A backend as one shard sees it, whichever configurations name it.
pub(crate) struct ShardBackend {
    pub(crate) state: Arc<BackendState>,
    pub(crate) idle: IdleList,
    /// Connections that carry many streams, those that are being opened among them.
    pub(crate) shared_conns: Vec<ConnId>,
    pub(crate) http2: Http2Use,
    /// What it chose last of what it is offered.
    pub(crate) spoken: Spoken,
    /// It has announced that it takes WebSockets over HTTP/2, on the newest connection.
    pub(crate) websockets: bool,
    /// Streams that it has said to take on a connection.
    pub(crate) streams: u32,
    /// When it was last said that it breaks rules.
    pub(crate) noted: Option<Instant>,
    /// Round robin over the addresses of a name.
    pub(crate) turn: u32,
    /// The state's epoch when the idle connections were last looked through.
    pub(crate) seen_epoch: u32,
    /// Pools that use it.
    users: u32,
    /// Pools of the newest configuration that use it. None: its idle connections are closed.
    named: u32,
    /// It is in [`PoolTable::unused`].
    listed: bool,
}

impl PoolTable {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Self {
            head_limits: head_limits(&config.limits),
            listeners: ListenerIds::new(&config.listeners),
            config,
            router: Router::new::<config::Pool>(&[]),
            certificate_names: Arc::new(CertificateNames::new(&[])),
            generation: 0,
            current: Box::new([]),
            definitions: Arc::new([]),
            places: Vec::new(),
            free_slots: Vec::new(),
            unused: Vec::new(),
            slots: Vec::new(),
            backends: Vec::new(),
            links: IdleLinks::default(),
        }
    }

    /// The listeners of this configuration are served from now on.
    fn place_listeners(&mut self, config: &Config) {
        let ids = self.listeners.adopt(&config.listeners);
        self.places.clear();
        for (place, id) in (0..).zip(ids) {
            let at = usize::from(id.0);
            self.places.resize(self.places.len().max(at + 1), u16::MAX);
            self.places[at] = place;
        }
    }

    /// Where the newest configuration has the listener with this id, for the router; one that it has no
    /// longer is nowhere.
    #[inline]
    pub(crate) fn place_of(&self, listener: ListenerId) -> ListenerId {
        ListenerId(self.places.get(usize::from(listener.0)).copied().unwrap_or(u16::MAX))
    }

    /// The listeners have these ids, whatever the order of the newest configuration.
    pub(crate) fn keep_listener_ids(&mut self, ids: ListenerIds) {
        self.listeners = ids;
        let config = self.config.clone();
        self.place_listeners(&config);
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
            self.drop_pool(slot);
        }
    }

    #[cold]
    fn drop_pool(&mut self, slot: u32) {
        let Some(pool) = self.slots[slot as usize].take() else { return };
        self.free_slots.push(slot);
        for at in &pool.backends {
            let backend = &mut self.backends[*at as usize];
            backend.users -= 1;
            if backend.users == 0 && !backend.listed {
                backend.listed = true;
                self.unused.push(*at);
            }
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
        match self.free_slots.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(pool);
                slot
            }
            None => {
                self.slots.push(Some(pool));
                self.slots.len() as u32 - 1
            }
        }
    }

    /// The shard's own entry for a backend; the same one as long as the process knows the backend. Entries
    /// that no pool uses are given to others. One user more.
    fn backend(&mut self, state: &Arc<BackendState>, known: &Known) -> u32 {
        let at = match known.place(&self.backends, state).or_else(|| self.free_backend()) {
            Some(at) => at,
            None => {
                self.backends.push(ShardBackend {
                    state: state.clone(),
                    idle: IdleList::default(),
                    shared_conns: Vec::new(),
                    http2: state.http2(),
                    spoken: Spoken::Unknown,
                    websockets: false,
                    streams: u32::MAX,
                    noted: None,
                    turn: 0,
                    seen_epoch: 0,
                    users: 0,
                    named: 0,
                    listed: false,
                });
                self.backends.len() - 1
            }
        };
        let backend = &mut self.backends[at];
        if !Arc::ptr_eq(&backend.state, state) {
            (backend.state, backend.turn, backend.noted) = (state.clone(), 0, None);
            (backend.http2, backend.spoken, backend.streams) = (state.http2(), Spoken::Unknown, u32::MAX);
            backend.websockets = false;
        }
        backend.users += 1;
        at as u32
    }

    /// An entry that no pool uses any more.
    fn free_backend(&mut self) -> Option<usize> {
        let backends = &mut self.backends;
        self.unused.retain(|at| {
            let b = &mut backends[*at as usize];
            b.listed = b.users == 0;
            b.listed
        });
        let is_free = |at: &u32| {
            let b = &backends[*at as usize];
            b.idle.is_empty() && b.shared_conns.is_empty()
        };
        let found = self.unused.iter().position(is_free)?;
        let at = self.unused.swap_remove(found) as usize;
        backends[at].listed = false;
        Some(at)
    }
}

/// Where a shard has its entries of backends.
enum Known {
    /// Look through all of them: there are few to find.
    Few,
    /// By the address of the state.
    Many(BTreeMap<*const BackendState, usize>),
}

impl Known {
    /// To find the backends of so many pools.
    fn of(backends: &[ShardBackend], pools: usize) -> Self {
        const FEW: usize = 8;
        if pools <= FEW {
            return Self::Few;
        }
        let places = backends.iter().enumerate();
        Self::Many(places.map(|(at, backend)| (Arc::as_ptr(&backend.state), at)).collect())
    }

    fn place(&self, backends: &[ShardBackend], state: &Arc<BackendState>) -> Option<usize> {
        match self {
            // One that was added meanwhile is at the end.
            Self::Few => backends.iter().rposition(|b| Arc::ptr_eq(&b.state, state)),
            Self::Many(known) => {
                let at = known.get(&Arc::as_ptr(state)).copied();
                at.filter(|at| Arc::ptr_eq(&backends[*at].state, state))
            }
        }
    }
}

impl ShardBackend {
    /// Nobody else gets a stream on this connection.
    pub(crate) fn unshare(&mut self, b: ConnId) {
        self.shared_conns.retain(|shared| *shared != b);
    }

    /// Idle connections that were good may not be good any more.
    #[inline]
    pub(crate) fn has_doubtful_idle(&self) -> bool {
        self.seen_epoch != self.state.epoch()
    }

    /// The newest configuration does not name it: its idle connections are closed.
    #[inline]
    pub(crate) fn retired(&self) -> bool {
        self.named == 0
    }
}

impl ShardPool {
    /// What its configuration says of it.
    #[inline]
    pub(crate) fn pool(&self) -> &config::Pool {
        &self.pool
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
    /// Takes a configuration into use. Exchanges under way keep the one they began with. What has not changed
    /// is left as it is: the rest was made before, for all shards, if somebody has prepared the
    /// configuration by [`Shared::prepare`](crate::Shared::prepare).
    pub(crate) fn adopt(&mut self, config: &Arc<Config>, now: Instant) {
        let prepared = self.identity.shared.prepare(config);
        let shard = self.identity.shard;
        self.tables.pages.set_cap(config.limits.buffer_bytes);
        self.checks.adopt(prepared.probes(shard), now);
        self.report_if_ready();
        let left = self.adopt_pools(&prepared);
        let table = &mut self.pools;
        table.place_listeners(config);
        table.generation = table.generation.wrapping_add(1);
        table.head_limits = head_limits(&config.limits);
        prepared.exchange(shard, &mut table.config, &mut table.router);
        table.certificate_names = prepared.certificate_names.clone();
        self.leave_pools(&left);
        self.close_bound_to_retired();
        self.schedule_lookups(prepared.names(shard), now);
    }

    /// Every pool of a configuration gets its slot; those of the configuration before it that have changed
    /// or are gone.
    fn adopt_pools(&mut self, prepared: &Prepared) -> Vec<u32> {
        let old = std::mem::take(&mut self.pools.current);
        let numbers = std::mem::replace(&mut self.pools.definitions, prepared.definitions.clone());
        let mut kept = vec![false; old.len()];
        // Numbers are given once: one above all of those is new.
        let newest = numbers.iter().copied().max().unwrap_or(0);
        let mut elsewhere: Option<BTreeMap<u64, usize>> = None;
        let mut find = |place: usize, number: u64| {
            if numbers.get(place) == Some(&number) {
                return Some(place);
            }
            if number > newest {
                return None;
            }
            let all = || numbers.iter().enumerate().map(|(at, number)| (*number, at)).collect();
            elsewhere.get_or_insert_with(all).get(&number).copied()
        };
        let mut current = vec![u32::MAX; prepared.states.len()];
        let mut changed = Vec::new();
        for (place, number) in prepared.definitions.iter().enumerate() {
            match find(place, *number) {
                Some(at) => {
                    kept[at] = true;
                    current[place] = old[at];
                }
                None => changed.push(place),
            }
        }
        let known = Known::of(&self.pools.backends, changed.len());
        for place in changed {
            current[place] = self.adopt_pool(prepared, place, &known);
        }
        self.pools.current = current.into();
        old.iter().zip(kept).filter(|(_, kept)| !kept).map(|(slot, _)| *slot).collect()
    }

    /// These pools take no new requests.
    fn leave_pools(&mut self, left: &[u32]) {
        for slot in left {
            let pool = self.pools.slots[*slot as usize].as_mut().expect("a current pool");
            pool.retired = true;
            let backends = pool.backends.clone();
            for at in &backends {
                self.pools.backends[*at as usize].named -= 1;
            }
            for at in backends {
                while self.pools.backends[at as usize].retired()
                    && !self.pools.backends[at as usize].idle.is_empty()
                {
                    self.close_oldest_idle(at);
                }
                if self.pools.backends[at as usize].retired() {
                    self.close_idle_streams(at);
                }
            }
            self.pools.retire(*slot);
        }
    }

    fn adopt_pool(&mut self, prepared: &Prepared, place: usize, known: &Known) -> u32 {
        let Prepared { config, states, .. } = prepared;
        let (pool, state) = (&config.pools[place], states[place].clone());
        let table = &mut self.pools;
        let backends: Box<[u32]> =
            state.backends().iter().map(|backend| table.backend(backend, known)).collect();
        for at in &backends {
            table.backends[*at as usize].named += 1;
        }
        // Numbers that are drawn for middlewares change none that others get.
        let mut rng = self.identity.rng.clone();
        let seed = [rng.next_u64(), rng.next_u64()];
        let adopted = ShardPool {
            pool: pool.clone(),
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
            assert!(named.iter().all(|at| !proxy.pools.backends[*at as usize].retired()), "{n}");
        }
        // Two pools and three backends, and as many that were before them.
        assert!(
            proxy.pools.slots.len() <= 4 && proxy.pools.backends.len() <= 6,
            "{} {}",
            proxy.pools.slots.len(),
            proxy.pools.backends.len()
        );
    }

    /// What is large and belongs to all of a configuration goes with the next one, by whoever loads that: to
    /// free it takes an allocator milliseconds, in which a shard would serve nobody.
    #[test]
    fn no_shard_frees_what_it_had_before() {
        let config = |port: u16| {
            let text =
                format!("http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [\"10.0.0.1:{port}\"]");
            Arc::new(config::parse(&text).config.expect("a good configuration"))
        };
        let shared = Arc::new(Shared::new("host", 1));
        let mut proxy = Proxy::new(config(1), shared.clone(), 0, 1, Silent, Instant::ZERO);
        let numbers = Arc::downgrade(&proxy.pools.definitions);
        let names = Arc::downgrade(&proxy.pools.certificate_names);
        let kept = || (numbers.strong_count(), names.strong_count());
        let next = config(2);
        drop(shared.prepare(&next));
        proxy.handle_config(next, Instant::ZERO);
        assert_eq!(kept(), (1, 1));
        drop(shared.prepare(&config(3)));
        assert_eq!(kept(), (0, 0));
    }
}
