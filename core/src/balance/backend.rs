//! One backend of one pool, as all shards see it.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use crate::config::{self, Address, Http2Use, Protocol, TlsTarget};
use crate::endpoint::Endpoint;
use crate::health::Health;
use crate::planted::planted;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, Padded};

/// What all shards share of one backend: health, exchanges in flight, resolved addresses. It is kept over
/// reloads as long as its pool's name, its label, its address and what is spoken to it stay.
#[derive(Debug)]
pub struct BackendState {
    label: Box<str>,
    configured: Address,
    protocol: Protocol,
    identity: u64,
    hash: u64,
    health: Padded<Health>,
    in_flight: Padded<AtomicU32>,
    /// Where it is, if no name has to be resolved for that.
    literal: Option<Endpoint>,
    resolved: AtomicBool,
    addresses: Mutex<Addresses>,
    /// Responses that broke a rule which lenient pools forgive.
    forgiven: AtomicU64,
    /// Counts what makes connections of before doubtful: see [`BackendState::trusts`].
    epoch: AtomicU32,
    /// The epoch in which the backend last became Unhealthy.
    unhealthy_epoch: AtomicU32,
}

/// What a name resolved to: each address is an endpoint of its own.
#[derive(Debug, Default)]
struct Addresses {
    found: Vec<SocketAddr>,
    /// Those that took no connection of a request since they last took one, passed a check or were looked
    /// up: a bit for each of the first 64.
    refused: u64,
    /// Those that failed their last check.
    failing: u64,
}

impl Addresses {
    fn count(&self) -> usize {
        self.found.len().min(64)
    }

    fn place(&self, address: Option<SocketAddr>) -> Option<usize> {
        self.found.iter().take(64).position(|found| Some(*found) == address)
    }

    fn is_well(&self, place: usize) -> bool {
        (self.refused | self.failing) >> place & 1 == 0
    }
}

impl BackendState {
    /// A backend of unknown health. `identity` is unique in the process; `hash` differs between backends and
    /// is the same in every process.
    pub(crate) fn new(backend: &config::Backend, identity: u64, hash: u64) -> Self {
        let literal = match &backend.address {
            Address::Ip(address) => Some(Endpoint::Ip(*address)),
            Address::Unix(path) => Some(Endpoint::Unix(path.clone())),
            Address::Name { .. } => None,
        };
        Self {
            label: backend.label.clone(),
            configured: backend.address.clone(),
            protocol: backend.protocol.clone(),
            identity,
            hash,
            health: Padded(Health::new(hash)),
            in_flight: Padded(AtomicU32::new(0)),
            resolved: AtomicBool::new(literal.is_some()),
            literal,
            addresses: Mutex::default(),
            forgiven: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            unhealthy_epoch: AtomicU32::new(0),
        }
    }

    /// Whether its label still stands for this address, and the same is spoken there: connections that lie
    /// idle, and what is known of its health, are good for `backend`.
    pub(crate) fn is_same(&self, backend: &config::Backend) -> bool {
        self.configured == backend.address && self.protocol == backend.protocol
    }

    /// What connections to it speak TLS with; `None`: they are plain.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<TlsTarget>> {
        self.protocol.tls()
    }

    /// Whether HTTP/2 is spoken to it.
    #[must_use]
    pub fn http2(&self) -> Http2Use {
        self.protocol.http2()
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

    /// Where to connect: of a name's several addresses the one whose turn it is. An address that took no
    /// connection or failed its check is picked only if all did. `None`: the name has not been resolved yet.
    #[must_use]
    pub fn pick(&self, turn: u32) -> Option<Endpoint> {
        if self.literal.is_some() {
            return self.literal.clone();
        }
        let addresses = self.lock();
        let n = addresses.count();
        let mut places = (0..n).map(|i| (turn as usize % n + i) % n);
        let first = places.clone().next()?;
        let place = places.find(|place| addresses.is_well(*place)).unwrap_or(first);
        Some(Endpoint::Ip(addresses.found[place]))
    }

    /// All addresses that are known, at most 64: each is to be checked.
    #[must_use]
    pub fn addresses(&self) -> Vec<Endpoint> {
        match &self.literal {
            Some(literal) => vec![literal.clone()],
            None => {
                let addresses = self.lock();
                addresses.found[..addresses.count()].iter().copied().map(Endpoint::Ip).collect()
            }
        }
    }

    /// Whether there is another address to connect to that has not failed. Here and below `None` is that of
    /// a Unix socket.
    #[must_use]
    pub fn has_other_than(&self, address: Option<SocketAddr>) -> bool {
        if self.literal.is_some() {
            return false;
        }
        let addresses = self.lock();
        (0..addresses.count())
            .any(|place| addresses.is_well(place) && Some(addresses.found[place]) != address)
    }

    /// A request could not connect to this address. True if there is another one that has not failed.
    pub fn refused(&self, address: Option<SocketAddr>) -> bool {
        if self.literal.is_some() {
            return false;
        }
        let mut addresses = self.lock();
        let Some(place) = addresses.place(address) else { return addresses.count() > 0 };
        addresses.refused |= 1 << place;
        let others = (0..addresses.count()).any(|place| addresses.is_well(place));
        if others {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        } else {
            // All failed: none is better than another for the next attempts.
            addresses.refused = 0;
        }
        others
    }

    /// A request has connected to this address.
    pub fn connected_to(&self, address: Option<SocketAddr>) {
        if self.literal.is_none() {
            let mut addresses = self.lock();
            if let Some(place) = addresses.place(address) {
                addresses.refused &= !(1 << place);
            }
        }
    }

    /// A check of this address has ended, well or not. True if that is new, where there are several.
    pub fn checked(&self, address: Option<SocketAddr>, good: bool) -> bool {
        if self.literal.is_some() {
            return false;
        }
        let mut addresses = self.lock();
        let Some(place) = addresses.place(address).filter(|_| addresses.count() > 1) else { return false };
        let was_failing = addresses.failing >> place & 1 == 1;
        if good {
            addresses.refused &= !(1 << place);
            addresses.failing &= !(1 << place);
        } else {
            addresses.failing |= 1 << place;
            if !was_failing {
                self.epoch.fetch_add(1, Ordering::AcqRel);
            }
        }
        was_failing == good
    }

    /// Counts a response that broke a rule which lenient pools forgive; true for the first one.
    pub(crate) fn count_forgiven(&self) -> bool {
        self.forgiven.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Responses that broke a rule which lenient pools forgive, whether they were taken or not.
    #[must_use]
    pub fn forgiven(&self) -> u64 {
        self.forgiven.load(Ordering::Relaxed)
    }

    /// Counts what makes connections of before doubtful. As long as it stays, so do they.
    #[must_use]
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether a connection to this address that was good in an earlier epoch may still be used: the name
    /// has the address still, it has not failed, and the backend has not been Unhealthy since.
    #[must_use]
    pub fn trusts(&self, address: Option<SocketAddr>, epoch: u32) -> bool {
        let unhealthy = self.unhealthy_epoch.load(Ordering::Acquire);
        if unhealthy.wrapping_sub(epoch) as i32 > 0 {
            return false;
        }
        if self.literal.is_some() {
            return true;
        }
        let addresses = self.lock();
        addresses.place(address).is_some_and(|place| addresses.is_well(place))
    }

    /// The backend has become Unhealthy: what was connected before is not to be trusted afterwards.
    pub(super) fn distrust(&self) {
        // In this order: whoever sees the new epoch sees why there is one.
        self.unhealthy_epoch.store(self.epoch().wrapping_add(1), Ordering::Release);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the addresses that a lookup found; an empty list keeps the last good ones, and another order of
    /// the same ones changes nothing. True if the backend has become usable by this.
    pub(super) fn set_addresses(&self, found: &[SocketAddr]) -> bool {
        if self.literal.is_some() || found.is_empty() {
            return false;
        }
        let mut addresses = self.lock();
        addresses.refused = 0;
        // A resolver may name one twice.
        let all_in = |some: &[SocketAddr], others: &[SocketAddr]| some.iter().all(|a| others.contains(a));
        let same = all_in(&addresses.found, found) && all_in(found, &addresses.found);
        if !same {
            let failing = found
                .iter()
                .take(64)
                .enumerate()
                .filter(|(_, a)| {
                    addresses.place(Some(**a)).is_some_and(|was| addresses.failing >> was & 1 == 1)
                })
                .fold(0, |bits, (place, _)| bits | 1 << place);
            *addresses = Addresses { found: found.to_vec(), refused: 0, failing };
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        !self.resolved.swap(true, Ordering::AcqRel)
    }
}
