//! What worker shards share, and nothing else is: client counts, the round-robin cursors, health, exchanges
//! in flight.
//!
//! Each operation is one atomic step, a short loop on one atomic word, or one short section under a lock. On
//! a request's way no lock is taken: only accepting (if connections are counted by address), connecting to a
//! host name, and rebuilding an order after a change take one.

mod backend;
mod clients;
mod pool;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, Weak};

pub use backend::BackendState;
pub use clients::TooMany;
pub use pool::{PoolState, Waiting};

use crate::config::Config;
use crate::health::{Item, Target};
use crate::sync::{AtomicBool, Mutex, Ordering};
use clients::Clients;
use pool::Common;

/// A value alone on its cache lines: what one shard writes does not slow what another reads beside it.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

/// What the shards of one process share.
#[derive(Debug)]
pub struct Shared {
    hostname: Box<str>,
    shards: u16,
    clients: Clients,
    /// By shard: its first round of probes is over.
    ready: Box<[AtomicBool]>,
    registry: Mutex<Registry>,
}

/// Every pool state that is still in use.
#[derive(Debug, Default)]
struct Registry {
    /// Those of the configuration adopted last: kept even while no shard holds them.
    latest: Vec<Arc<PoolState>>,
    /// All, the older ones as long as a shard or an exchange holds them.
    pools: Vec<Weak<PoolState>>,
    identities: u64,
}

impl Shared {
    /// For a process with `shards` workers on the host `hostname`.
    #[must_use]
    pub fn new(hostname: &str, shards: u16) -> Self {
        let ready = (0..shards).map(|_| AtomicBool::new(false)).collect();
        Self {
            hostname: hostname.into(),
            shards,
            clients: Clients::default(),
            ready,
            registry: Mutex::default(),
        }
    }

    /// Every backend of this shard has been probed once. It stays so: what a later configuration adds does
    /// not take the process out of service.
    pub fn set_ready(&self, shard: u16) {
        if let Some(ready) = self.ready.get(usize::from(shard)) {
            ready.store(true, Ordering::Release);
        }
    }

    /// Whether that is so of every shard.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.ready.iter().all(|ready| ready.load(Ordering::Acquire))
    }

    /// How many shards.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// For `X-Forwarded-Server`.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// A client connection arrives. `max_per_ip` zero: addresses are not counted. Whoever is admitted leaves
    /// with [`Shared::leave`].
    ///
    /// # Errors
    /// If there are `max_total` already, or `max_per_ip` from this address (IPv6: from its /64).
    pub fn admit(&self, ip: IpAddr, max_total: u32, max_per_ip: u32) -> Result<(), TooMany> {
        self.clients.admit(ip, max_total, max_per_ip)
    }

    /// A client connection that was admitted is gone. `counted`: it was admitted with a `max_per_ip`.
    pub fn leave(&self, ip: IpAddr, counted: bool) {
        self.clients.leave(ip, counted);
    }

    /// Client connections now, over all shards.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.clients.total()
    }

    /// The states of a configuration's pools, in its order. What was known of a pool or a backend (by pool
    /// name and label) is carried over; every shard gets the same states for the same configuration. For
    /// config load only: it takes a lock.
    #[must_use]
    pub fn adopt(&self, config: &Config) -> Vec<Arc<PoolState>> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.pools.retain(|pool| pool.strong_count() > 0);
        let known: Vec<_> = registry.pools.iter().filter_map(Weak::upgrade).collect();
        let adopted: Vec<_> = config
            .pools
            .iter()
            .map(|pool| {
                let same_name = || known.iter().rev().filter(|known| known.name() == &*pool.name);
                if let Some(same) = same_name().find(|known| known.is_for(pool)) {
                    return Arc::clone(same);
                }
                let common = same_name()
                    .next()
                    .map_or_else(|| Arc::new(Common::new(self.shards)), |known| Arc::clone(&known.common));
                let backends = pool.backends.iter().map(|backend| {
                    let known = same_name()
                        .flat_map(|known| known.backends())
                        .find(|known| known.label() == &*backend.label);
                    known.filter(|known| known.is_at(&backend.address)).map_or_else(
                        || {
                            registry.identities += 1;
                            let hash = stable_hash(&pool.name, &backend.label);
                            Arc::new(BackendState::new(
                                &backend.label,
                                &backend.address,
                                registry.identities,
                                hash,
                            ))
                        },
                        Arc::clone,
                    )
                });
                let made = Arc::new(PoolState::new(pool, common, backends.collect()));
                registry.pools.push(Arc::downgrade(&made));
                made
            })
            .collect();
        registry.latest.clone_from(&adopted);
        adopted
    }

    /// What `shard` has to probe of `pools` (as [`Shared::adopt`] gave them).
    #[must_use]
    pub fn probes(&self, pools: &[Arc<PoolState>], shard: u16) -> Vec<Item> {
        let mut items = Vec::new();
        for (pool, state) in pools.iter().enumerate() {
            for (backend, known) in state.backends().iter().enumerate() {
                if known.owner(self.shards) == shard && !state.rules().check_every.is_zero() {
                    let target =
                        Target { pool: pool as u16, backend: backend as u16, identity: known.identity() };
                    items.push(Item { target, every: state.rules().check_every });
                }
            }
        }
        items
    }
}

/// The same in every process and after every restart: cookies and client hashing rest on it.
fn stable_hash(pool: &str, label: &str) -> u64 {
    use siphasher::sip::SipHasher13;
    use std::hash::Hasher as _;
    let mut hasher = SipHasher13::new_with_keys(0x5275_7374_5374_726f, 0x6d20_6261_636b_656e);
    hasher.write(&(pool.len() as u64).to_le_bytes());
    hasher.write(pool.as_bytes());
    hasher.write(label.as_bytes());
    hasher.finish()
}
