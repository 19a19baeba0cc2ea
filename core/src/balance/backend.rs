//! One backend of one pool, as all shards see it.

use std::net::SocketAddr;
use std::sync::PoisonError;

use crate::config::Address;
use crate::health::Health;
use crate::planted::planted;
use crate::sync::{AtomicBool, AtomicU32, Mutex, MutexGuard, Ordering, Padded};

/// What all shards share of one backend: health, exchanges in flight, resolved addresses. It is kept over
/// reloads as long as its pool's name, its label and its address stay.
#[derive(Debug)]
pub struct BackendState {
    label: Box<str>,
    configured: Address,
    identity: u64,
    hash: u64,
    health: Padded<Health>,
    in_flight: Padded<AtomicU32>,
    literal: Option<SocketAddr>,
    resolved: AtomicBool,
    addresses: Mutex<Addresses>,
}

/// What a name resolved to.
#[derive(Debug, Default)]
struct Addresses {
    found: Vec<SocketAddr>,
    /// Those that took no connection since the last lookup, a bit for each of the first 64: a backend that
    /// listens on one address of a name that has two (`localhost` is ::1 and 127.0.0.1) is not down.
    refused: u64,
}

impl BackendState {
    /// A backend of unknown health. `identity` is unique in the process; `hash` differs between backends and
    /// is the same in every process.
    pub(crate) fn new(label: &str, address: &Address, identity: u64, hash: u64) -> Self {
        let literal = match address {
            Address::Ip(address) => Some(*address),
            Address::Name { .. } => None,
        };
        Self {
            label: label.into(),
            configured: address.clone(),
            identity,
            hash,
            health: Padded(Health::new(hash)),
            in_flight: Padded(AtomicU32::new(0)),
            literal,
            resolved: AtomicBool::new(literal.is_some()),
            addresses: Mutex::default(),
        }
    }

    /// Whether its label still stands for this address.
    pub(crate) fn is_at(&self, address: &Address) -> bool {
        self.configured == *address
    }

    /// Its label in the configuration.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A number unique in this process, kept over reloads as the state is.
    #[must_use]
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// A hash of pool name and label, the same in every process.
    pub(crate) fn stable_hash(&self) -> u64 {
        self.hash
    }

    /// The shard that probes it, of `shards` in all.
    #[must_use]
    pub fn owner(&self, shards: u16) -> u16 {
        (self.hash % u64::from(shards.max(1))) as u16
    }

    /// Its health. Change it through [`super::PoolState`], which makes every shard
    /// look again.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health.0
    }

    /// Takes a slot for an exchange unless `max_in_flight` are in flight. Whoever gets a slot gives it back
    /// with [`super::PoolState::finish`].
    #[must_use]
    pub fn try_start(&self, max_in_flight: Option<u32>) -> bool {
        match max_in_flight {
            None => {
                self.in_flight.0.fetch_add(1, Ordering::SeqCst);
                true
            }
            Some(max) => self
                .in_flight
                .0
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                    (n < max || planted!(14)).then_some(n + 1)
                })
                .is_ok(),
        }
    }

    /// Gives a slot back.
    pub(super) fn finish(&self) {
        let before = self.in_flight.0.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "a slot was given back twice");
    }

    /// Exchanges in flight now, over all shards.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.0.load(Ordering::SeqCst)
    }

    /// Whether an address is known.
    #[must_use]
    pub fn resolved(&self) -> bool {
        self.literal.is_some() || self.resolved.load(Ordering::Acquire)
    }

    /// Where to connect: of a name's several addresses the one whose turn it is, with its place for
    /// [`BackendState::refused`]. An address that took no connection is picked only if none did. `None`: the
    /// name has not been resolved yet.
    #[must_use]
    pub fn pick(&self, turn: u32) -> Option<(u8, SocketAddr)> {
        if let Some(literal) = self.literal {
            return Some((0, literal));
        }
        let addresses = self.lock();
        let n = addresses.found.len().min(64);
        let places = (0..n).map(|i| (turn as usize % n + i) % n);
        let first = places.clone().next()?;
        let place = places.into_iter().find(|place| addresses.refused >> place & 1 == 0).unwrap_or(first);
        Some((place as u8, addresses.found[place]))
    }

    /// Connecting to the address at `place` failed. True if there is another address that has not failed
    /// since the last lookup.
    pub fn refused(&self, place: u8) -> bool {
        if self.literal.is_some() {
            return false;
        }
        let mut addresses = self.lock();
        let n = addresses.found.len().min(64);
        addresses.refused |= 1 << place;
        let others = (0..n).any(|place| addresses.refused >> place & 1 == 0);
        if !others {
            // All failed: none is better than another for the next attempts.
            addresses.refused = 0;
        }
        others
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the addresses that a lookup found; an empty list keeps the last good ones. True if the backend
    /// has become usable by this.
    pub(super) fn set_addresses(&self, found: &[SocketAddr]) -> bool {
        if self.literal.is_some() || found.is_empty() {
            return false;
        }
        let mut addresses = self.lock();
        addresses.refused = 0;
        if addresses.found != found {
            addresses.found.clear();
            addresses.found.extend_from_slice(found);
        }
        !self.resolved.swap(true, Ordering::AcqRel)
    }
}
