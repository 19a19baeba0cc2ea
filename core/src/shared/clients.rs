//! How many client connections there are, in all and from each address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::PoisonError;

use crate::sync::{AtomicU32, Mutex, Ordering, Padded};

/// Why a client connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// There are `max_total` connections already.
    Total,
    /// There are `max_per_ip` connections from this address already.
    FromAddress,
}

/// Number of locks: an address always uses the same one, two addresses seldom use one together.
const STRIPES: usize = 64;

/// Counts by address are in ordered trees, so no choice of addresses makes them slow; an address without
/// connections has no entry, so they are never more than the connections.
#[derive(Debug)]
pub(super) struct ClientCounts {
    total: Padded<AtomicU32>,
    stripes: Box<[Stripe]>,
}

type Stripe = Padded<Mutex<BTreeMap<u128, u32>>>;

impl Default for ClientCounts {
    fn default() -> Self {
        Self {
            total: Padded(AtomicU32::new(0)),
            stripes: (0..STRIPES).map(|_| Padded(Mutex::default())).collect(),
        }
    }
}

impl ClientCounts {
    pub(super) fn admit(&self, ip: IpAddr, max_total: u32, max_per_ip: u32) -> Result<(), TooMany> {
        if max_per_ip == 0 {
            return self.count_in(max_total);
        }
        let key = key(ip);
        let mut stripe = self.stripe(key).lock().unwrap_or_else(PoisonError::into_inner);
        let count = stripe.get(&key).copied().unwrap_or(0);
        if count >= max_per_ip + u32::from(crate::planted::planted!(66)) {
            return Err(TooMany::FromAddress);
        }
        // Last: a count taken only to be given back would keep out a client of another address meanwhile.
        self.count_in(max_total)?;
        stripe.insert(key, count + 1);
        Ok(())
    }

    fn count_in(&self, max_total: u32) -> Result<(), TooMany> {
        let one_more = |n| (n < max_total || crate::planted::planted!(67)).then_some(n + 1);
        self.total
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .map(drop)
            .map_err(|_| TooMany::Total)
    }

    /// `counted`: the connection was counted for its address too; else it has no entry there.
    pub(super) fn leave(&self, ip: IpAddr, counted: bool) {
        let key = key(ip);
        // Held over both counts, as in `admit`, so that they agree.
        let stripe = counted.then(|| self.stripe(key).lock().unwrap_or_else(PoisonError::into_inner));
        let before = self.total.0.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a client left twice");
        if let Some(mut stripe) = stripe
            && let Some(count) = stripe.get_mut(&key)
        {
            *count -= 1;
            if *count == 0 {
                stripe.remove(&key);
            }
        }
    }

    pub(super) fn total(&self) -> u32 {
        self.total.0.load(Ordering::Acquire)
    }

    fn stripe(&self, key: u128) -> &Mutex<BTreeMap<u128, u32>> {
        // The high bits of the product depend on all bits of the address. A client that aims at one stripe
        // gains nothing but a lock held for a short time.
        let mixed = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.stripes[(mixed >> 58) as usize % STRIPES].0
    }

    #[cfg(test)]
    fn entries(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.0.lock().unwrap().len()).sum()
    }
}

/// What is counted as one address: an IPv4 address, also one mapped into IPv6; of an IPv6 address the first
/// 64 bits, since one client usually has all addresses of a /64.
fn key(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => Ipv6Addr::to_bits(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_count_as_one() {
        let same = [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ];
        for (a, b, one) in same {
            assert_eq!(key(a.parse().unwrap()) == key(b.parse().unwrap()), one, "{a} {b}");
        }
    }

    #[test]
    fn caps_hold_and_nothing_is_left() {
        let clients = ClientCounts::default();
        let [a, b]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(clients.admit(a, 3, 2), Ok(()));
        assert_eq!(clients.admit(a, 3, 2), Ok(()));
        assert_eq!(clients.admit(a, 3, 2), Err(TooMany::FromAddress));
        assert_eq!(clients.total(), 2);
        assert_eq!(clients.admit(b, 3, 2), Ok(()));
        assert_eq!(clients.admit(b, 3, 2), Err(TooMany::Total));
        assert_eq!(clients.entries(), 2);
        clients.leave(a, true);
        assert_eq!(clients.admit(a, 3, 2), Ok(()));
        for ip in [a, a, b] {
            clients.leave(ip, true);
        }
        assert_eq!((clients.total(), clients.entries()), (0, 0));
    }

    /// Neighbours do not share a lock, in whichever bits they differ.
    #[test]
    fn addresses_are_spread_over_the_stripes() {
        let places = |make: &dyn Fn(u32) -> IpAddr| {
            let clients = ClientCounts::default();
            (0..6400).for_each(|n| clients.admit(make(n), u32::MAX, 1).unwrap());
            clients.stripes.iter().map(|stripe| stripe.0.lock().unwrap().len()).max().unwrap()
        };
        let high = |n: u32| Ipv6Addr::from_bits((0x2001_0db8_0000_0000 | u128::from(n)) << 64);
        let low = |n: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 | n);
        for (what, most) in [("IPv6", places(&|n| high(n).into())), ("IPv4", places(&|n| low(n).into()))] {
            assert!((100..200).contains(&most), "{what}: {most} of 6400 in one of 64");
        }
    }

    #[test]
    fn uncounted_addresses_cost_no_entry() {
        let clients = ClientCounts::default();
        let a: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..100 {
            clients.admit(a, 100, 0).unwrap();
        }
        assert_eq!(clients.entries(), 0);
        (0..100).for_each(|_| clients.leave(a, false));
        assert_eq!(clients.total(), 0);
    }
}
