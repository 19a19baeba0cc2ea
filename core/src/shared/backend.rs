//! One backend of one pool, as all shards see it.

use std::net::SocketAddr;
use std::sync::PoisonError;

use super::Padded;
use crate::config::Address;
use crate::health::Health;
use crate::planted::planted;
use crate::sync::{AtomicBool, AtomicU32, Mutex, MutexGuard, Ordering};

/// What is known of a backend. It outlives reloads as long as its pool's name and its label stay.
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
    /// Those that refused us since the last lookup, a bit for each of the first 64: a backend that listens
    /// on one address of a name that has two (`localhost` is ::1 and 127.0.0.1) is not down.
    bad: u64,
}

impl BackendState {
    /// A new one. `hash` differs between backends and is the same in every process.
    pub(super) fn new(label: &str, address: &Address, identity: u64, hash: u64) -> Self {
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
    pub(super) fn is_at(&self, address: &Address) -> bool {
        self.configured == *address
    }

    /// As configured.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Unique in this process.
    #[must_use]
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// A hash of pool name and label, the same in every process.
    pub(crate) fn stable_hash(&self) -> u64 {
        self.hash
    }

    /// The shard that probes it.
    #[must_use]
    pub fn owner(&self, shards: u16) -> u16 {
        (self.hash % u64::from(shards.max(1))) as u16
    }

    /// Its health. Change it through [`super::PoolState`], which tells the other shards.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health.0
    }

    /// Takes a slot for an exchange unless `cap` are in flight. Who got one gives it back with
    /// [`super::PoolState::finish`].
    #[must_use]
    pub fn try_start(&self, cap: Option<u32>) -> bool {
        match cap {
            None => {
                self.in_flight.0.fetch_add(1, Ordering::SeqCst);
                true
            }
            Some(cap) => self
                .in_flight
                .0
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                    (n < cap || planted!(14)).then_some(n + 1)
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

    /// Where to connect: of a name's several addresses the one whose turn it is. `None`: the name has not
    /// been resolved yet.
    #[must_use]
    pub fn address(&self, turn: u32) -> Option<SocketAddr> {
        self.pick(turn).map(|(_, address)| address)
    }

    /// The same with its place, for [`BackendState::refused`]. One that refused us is used only if all did.
    #[must_use]
    pub fn pick(&self, turn: u32) -> Option<(u8, SocketAddr)> {
        if let Some(literal) = self.literal {
            return Some((0, literal));
        }
        let addresses = self.lock();
        let n = addresses.found.len().min(64);
        let places = (0..n).map(|i| (turn as usize % n + i) % n);
        let first = places.clone().next()?;
        let place = places.into_iter().find(|place| addresses.bad >> place & 1 == 0).unwrap_or(first);
        Some((place as u8, addresses.found[place]))
    }

    /// No connection came about to the address at `place`. True if another one has not refused us yet.
    pub fn refused(&self, place: u8) -> bool {
        if self.literal.is_some() {
            return false;
        }
        let mut addresses = self.lock();
        let n = addresses.found.len().min(64);
        addresses.bad |= 1 << place;
        let others = (0..n).any(|place| addresses.bad >> place & 1 == 0);
        if !others {
            // All did: the next attempts are as good with one as with another.
            addresses.bad = 0;
        }
        others
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a lookup found; nothing found keeps the last good ones. True if it has become usable by this.
    pub(super) fn set_addresses(&self, found: &[SocketAddr]) -> bool {
        if self.literal.is_some() || found.is_empty() {
            return false;
        }
        let mut addresses = self.lock();
        addresses.bad = 0;
        if addresses.found != found {
            addresses.found.clear();
            addresses.found.extend_from_slice(found);
        }
        !self.resolved.swap(true, Ordering::AcqRel)
    }
}
