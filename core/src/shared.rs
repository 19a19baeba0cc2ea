//! What worker shards share: counts of client connections, the state of each pool and backend (round-robin
//! cursors, health, exchanges in flight), and what authorities are answered that make certificates. Nothing
//! else is shared.
//!
//! Each operation is one atomic step, a short loop on one atomic word, or one short section under a lock. No
//! lock is taken in the course of a request (but of one for an authority's token, while there are any); only
//! accepting (if connections are counted by address), connecting to a host name, and making a new plan after
//! a change take one.

mod clients;
mod http_challenges;
mod prepared;
mod restore;
mod snapshot;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, Weak};

pub use clients::TooMany;
pub use http_challenges::HttpChallenge;
pub use prepared::Prepared;
pub use restore::{Restore, Restored};
pub use snapshot::{Extent, HeldLimiters, Snapshot};

use crate::balance::{BackendState, PoolCounters, PoolState};
use crate::config::{self, Config};
use crate::health::{ProbeTarget, ProbedBackend};
use crate::middleware::Chain;
use crate::middleware::factory::{self, BuiltIn, MiddlewareFactory, MiddlewareStates};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};
use clients::ClientCounts;
use http_challenges::HttpChallenges;

/// What the shards of one process share.
#[derive(Debug)]
pub struct Shared {
    hostname: Box<str>,
    shards: u16,
    clients: ClientCounts,
    http_challenges: HttpChallenges,
    /// For each shard, whether its first round of probes is over.
    ready: Box<[AtomicBool]>,
    /// How often requests have found a backend to be away.
    marked_down: AtomicU64,
    registry: Mutex<Registry>,
    factory: Arc<dyn MiddlewareFactory>,
    middlewares: MiddlewareStates,
}

/// Every pool state that is still in use.
#[derive(Debug, Default)]
struct Registry {
    /// The pools of the configuration adopted last: kept even while no shard holds them.
    latest: Vec<Arc<PoolState>>,
    /// All pools; those of older configurations as long as a shard or an exchange holds them.
    pools: Vec<Weak<PoolState>>,
    /// How many identities have been given to backends.
    identities: u64,
    /// The configuration that was prepared last.
    prepared: Option<Arc<Prepared>>,
    /// How many numbers have been given to definitions of pools.
    definitions: u64,
    /// Configurations that were prepared, as long as anybody has them: nobody but who prepares the next one
    /// has the work of freeing one.
    configs: Vec<Arc<Config>>,
}

impl Shared {
    /// For a process with `shards` workers on the host `hostname`.
    #[must_use]
    pub fn new(hostname: &str, shards: u16) -> Self {
        Self::with_middlewares(hostname, shards, Arc::new(BuiltIn))
    }

    /// For a process whose middlewares this factory makes.
    #[must_use]
    pub fn with_middlewares(hostname: &str, shards: u16, factory: Arc<dyn MiddlewareFactory>) -> Self {
        let ready = (0..shards).map(|_| AtomicBool::new(false)).collect();
        Self {
            hostname: hostname.into(),
            shards,
            clients: ClientCounts::default(),
            http_challenges: HttpChallenges::default(),
            ready,
            marked_down: AtomicU64::new(0),
            registry: Mutex::default(),
            factory,
            middlewares: MiddlewareStates::default(),
        }
    }

    /// Marks that every backend that `shard` probes has been probed once. The mark stays: backends that a
    /// later configuration adds do not take the process out of service.
    pub fn set_ready(&self, shard: u16) {
        if let Some(ready) = self.ready.get(usize::from(shard)) {
            ready.store(true, Ordering::Release);
        }
    }

    /// Requests have made a backend Unhealthy: whichever shard checks it does so at once when it is nudged.
    pub(crate) fn mark_down(&self) {
        self.marked_down.fetch_add(1, Ordering::AcqRel);
    }

    /// How often [`Shared::mark_down`] has been called.
    pub(crate) fn marked_down(&self) -> u64 {
        self.marked_down.load(Ordering::Acquire)
    }

    /// Whether [`Shared::set_ready`] has been called for every shard.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.ready.iter().all(|ready| ready.load(Ordering::Acquire))
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The host's name, for `X-Forwarded-Server`.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Counts a client connection that arrives. `max_per_ip` zero: addresses are not counted. A connection
    /// that was admitted is counted out with [`Shared::leave`].
    ///
    /// # Errors
    /// If there are `max_total` already, or `max_per_ip` from this address (IPv6: from its /64).
    pub fn admit(&self, ip: IpAddr, max_total: u32, max_per_ip: u32) -> Result<(), TooMany> {
        self.clients.admit(ip, max_total, max_per_ip)
    }

    /// Counts out a client connection that was admitted. `counted`: it was admitted with a `max_per_ip` above
    /// zero.
    pub fn leave(&self, ip: IpAddr, counted: bool) {
        self.clients.leave(ip, counted);
    }

    /// Sets the challenges of HTTP-01 (RFC 8555 §8.3) in the place of those before: a plain request for
    /// `/.well-known/acme-challenge/TOKEN` gets its answer before it is routed.
    pub fn set_http_challenges(&self, answers: Vec<HttpChallenge>) {
        self.http_challenges.set(answers);
    }

    /// The answer for this path, if it is one for a token that there is.
    #[inline]
    pub(crate) fn http_challenge(&self, path: &[u8]) -> Option<Arc<[u8]>> {
        self.http_challenges.answer(path)
    }

    /// The middlewares of a pool, made from its configuration.
    pub(crate) fn chain(&self, config: &Config, pool: &config::Pool, seed: [u64; 2]) -> Chain {
        factory::chain(config, pool, &*self.factory, &self.middlewares, seed)
    }

    /// Client connections now, over all shards.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.clients.total()
    }

    /// Makes a configuration ready for all shards, once: whoever loads one does so before the shards get it,
    /// so that none of them has the work in one of its turns. It takes time and a lock.
    #[must_use]
    pub fn prepare(&self, config: &Arc<Config>) -> Arc<Prepared> {
        let is_of = |prepared: &&Arc<Prepared>| Arc::ptr_eq(&prepared.config, config);
        let known = self.registry().prepared.as_ref().filter(is_of).cloned();
        known.unwrap_or_else(|| {
            let states: Box<[_]> = self.adopt(config).into();
            let probes = (0..self.shards).map(|shard| self.probes(&states, shard)).collect::<Vec<_>>();
            let registry = &mut *self.registry();
            let before = registry.prepared.as_deref();
            let definitions = Prepared::definitions(before, config, &states, &mut registry.definitions);
            let prepared = Arc::new(Prepared::new(before, config, states, definitions, probes.into_iter()));
            registry.prepared = Some(prepared.clone());
            registry.configs.retain(|config| Arc::strong_count(config) > 1);
            registry.configs.push(config.clone());
            prepared
        })
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The states of the pools of the configuration that was adopted last, in its order.
    #[must_use]
    pub fn pools(&self) -> Vec<Arc<PoolState>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).latest.clone()
    }

    /// The states of a configuration's pools, in its order. The state of a pool or a backend that was there
    /// before (by pool name and label) is carried over; every shard gets the same states for the same
    /// configuration. To be called when a configuration is loaded: it takes a lock.
    #[must_use]
    pub fn adopt(&self, config: &Config) -> Vec<Arc<PoolState>> {
        let registry = &mut *self.registry();
        registry.pools.retain(|pool| pool.strong_count() > 0);
        let known: Vec<_> = registry.pools.iter().filter_map(Weak::upgrade).collect();
        let mut by_name: BTreeMap<&str, Vec<&Arc<PoolState>>> = BTreeMap::new();
        for known in known.iter().rev() {
            by_name.entry(known.name()).or_default().push(known);
        }
        let adopted: Vec<_> = config
            .pools
            .iter()
            .map(|pool| {
                let same_name = || by_name.get(&*pool.name).into_iter().flatten();
                if let Some(same) = same_name().find(|known| known.is_for(pool)) {
                    return Arc::clone(same);
                }
                let counters = same_name().next().map_or_else(
                    || {
                        registry.identities += 1;
                        Arc::new(PoolCounters::new(self.shards, registry.identities))
                    },
                    |known| Arc::clone(&known.counters),
                );
                let backends = pool.backends.iter().map(|backend| {
                    let known = same_name()
                        .flat_map(|known| known.backends())
                        .find(|known| known.label() == &*backend.label);
                    let known = known.filter(|known| known.is_same(backend));
                    known
                        .filter(|known| known.health().usable() || !crate::planted::planted!(58))
                        .map_or_else(
                            || {
                                registry.identities += 1;
                                let hash = stable_hash(&pool.name, &backend.label);
                                Arc::new(BackendState::new(backend, registry.identities, hash))
                            },
                            Arc::clone,
                        )
                });
                let made = Arc::new(PoolState::new(pool, counters, backends.collect()));
                registry.pools.push(Arc::downgrade(&made));
                made
            })
            .collect();
        registry.latest.clone_from(&adopted);
        adopted
    }

    /// The backends of `pools` (as [`Shared::adopt`] gave them) that `shard` has to probe.
    #[must_use]
    pub fn probes(&self, pools: &[Arc<PoolState>], shard: u16) -> Vec<ProbedBackend> {
        let mut items = Vec::new();
        for (pool, state) in pools.iter().enumerate() {
            for (backend, known) in state.backends().iter().enumerate() {
                if known.owner(self.shards) == shard && !state.rules().check_every.is_zero() {
                    let target = ProbeTarget {
                        pool: pool as u16,
                        backend: backend as u16,
                        identity: known.identity(),
                    };
                    items.push(ProbedBackend { target, every: state.rules().check_every });
                }
            }
        }
        items
    }
}

/// A hash of a backend's pool and label, the same in every process and after every restart: sticky cookies
/// and client hashing rest on it.
fn stable_hash(pool: &str, label: &str) -> u64 {
    use siphasher::sip::SipHasher13;
    use std::hash::Hasher as _;
    let mut hasher = SipHasher13::new_with_keys(0x5275_7374_5374_726f, 0x6d20_6261_636b_656e);
    hasher.write(&(pool.len() as u64).to_le_bytes());
    hasher.write(pool.as_bytes());
    hasher.write(label.as_bytes());
    hasher.finish()
}
