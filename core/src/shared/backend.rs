//! One backend of one pool, as all shards see it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Padded;
use crate::config::Address;
use crate::health::Health;

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
    addresses: Mutex<Vec<SocketAddr>>,
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
            addresses: Mutex::new(Vec::new()),
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

    /// Takes a slot for an exchange unless `cap` are in flight. Who got one gives it back with [`super::PoolState::finish`].
    #[must_use]
    pub fn try_start(&self, cap: Option<u32>) -> bool {
        match cap {
            None => {
                self.in_flight.0.fetch_add(1, Ordering::SeqCst);
                true
            }
            Some(cap) => self.in_flight.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < cap).then_some(n + 1)).is_ok(),
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

    /// Where to connect: of a name's several addresses the one whose turn it is. `None`: the name has not been resolved yet.
    #[must_use]
    pub fn address(&self, turn: u32) -> Option<SocketAddr> {
        if self.literal.is_some() {
            return self.literal;
        }
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        (!addresses.is_empty()).then(|| addresses[turn as usize % addresses.len()])
    }

    /// What a lookup found; nothing found keeps the last good ones. True if it has become usable by this.
    pub(super) fn set_addresses(&self, found: &[SocketAddr]) -> bool {
        if self.literal.is_some() || found.is_empty() {
            return false;
        }
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if *addresses != found {
            addresses.clear();
            addresses.extend_from_slice(found);
        }
        !self.resolved.swap(true, Ordering::AcqRel)
    }
}
