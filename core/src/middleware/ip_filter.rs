//! `IpAllow` and `IpDeny`: clients by their addresses.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use http::StatusCode;
use ipnet::IpNet;

use super::{Action, Ctx, Middleware};
use crate::local_reply::LocalReply;

/// Lets clients pass by their addresses.
#[derive(Debug)]
pub(super) struct IpFilter {
    ranges: Ranges,
    /// Whether those in the ranges pass, or those outside of them.
    allows: bool,
}

impl IpFilter {
    /// Lets in only who is in one of these.
    pub(super) fn allowing(ranges: &[IpNet]) -> Self {
        Self { ranges: Ranges::new(ranges), allows: true }
    }

    /// Keeps out who is in one of these.
    pub(super) fn denying(ranges: &[IpNet]) -> Self {
        Self { ranges: Ranges::new(ranges), allows: false }
    }
}

impl Middleware for IpFilter {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        if self.ranges.contains(ctx.client) == self.allows {
            return Action::Continue;
        }
        Action::reply(LocalReply::text(StatusCode::FORBIDDEN, b"403 Forbidden: your address is not let in\n"))
    }

    fn sees_responses(&self) -> bool {
        false
    }
}

/// Ranges of addresses, apart from each other and in order: thousands are searched as fast as a few.
#[derive(Debug)]
struct Ranges {
    v4: Vec<RangeInclusive<u32>>,
    v6: Vec<RangeInclusive<u128>>,
}

impl Ranges {
    fn new(nets: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match net {
                IpNet::V4(net) => v4.push(net.network().to_bits()..=net.broadcast().to_bits()),
                IpNet::V6(net) => v6.push(net.network().to_bits()..=net.broadcast().to_bits()),
            }
        }
        Self { v4: apart(v4), v6: apart(v6) }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => holds(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => holds(&self.v6, ip.to_bits()),
        }
    }
}

/// In order, and those that overlap made one.
fn apart<T: Copy + Ord>(mut ranges: Vec<RangeInclusive<T>>) -> Vec<RangeInclusive<T>> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut found: Vec<RangeInclusive<T>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match found.last_mut() {
            Some(last) if range.start() <= last.end() => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => found.push(range),
        }
    }
    found
}

fn holds<T: Ord>(ranges: &[RangeInclusive<T>], ip: T) -> bool {
    let behind = ranges.partition_point(|range| *range.start() <= ip);
    behind.checked_sub(1).is_some_and(|at| ip <= *ranges[at].end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(nets: &[&str]) -> Ranges {
        Ranges::new(&nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>())
    }

    #[test]
    fn edges_of_ranges() {
        let some =
            ranges(&["10.1.0.0/16", "10.1.2.0/24", "192.0.2.7/32", "255.255.255.255/32", "2001:db8::/32"]);
        assert_eq!((some.v4.len(), some.v6.len()), (3, 1), "one lies in another");
        let table = [
            ("10.0.255.255", false),
            ("10.1.0.0", true),
            ("10.1.2.3", true),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("192.0.2.6", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("255.255.255.255", true),
            ("::ffff:10.1.2.3", true),
            ("::ffff:10.2.2.3", false),
            ("::10.1.2.3", false),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
        ];
        for (ip, expected) in table {
            assert_eq!(some.contains(ip.parse().unwrap()), expected, "{ip}");
        }
        let (all, none) = (ranges(&["0.0.0.0/0", "::/0"]), ranges(&[]));
        for (ip, _) in table {
            assert!(all.contains(ip.parse().unwrap()) && !none.contains(ip.parse().unwrap()), "{ip}");
        }
    }

    proptest! {
        #[test]
        fn it_is_in_one_of_them(
            nets in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..40),
            ips in prop::collection::vec(any::<u32>(), 1..40),
        ) {
            let net = |(bits, len): &(u32, u8)| IpNet::new(IpAddr::V4((*bits).into()), *len).unwrap();
            let nets: Vec<IpNet> = nets.iter().map(net).collect();
            let ranges = Ranges::new(&nets);
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            for ip in ips.iter().map(|bits| IpAddr::V4((*bits).into())).chain(edges) {
                prop_assert_eq!(ranges.contains(ip), nets.iter().any(|net| net.contains(&ip)));
            }
        }
    }
}
