//! Limits of client connections: none above one, and none refused below it.

use std::net::IpAddr;

use crate::net::{Net, Peer};
use crate::scenario::client_address;

impl Net {
    /// Client connections that are open, of all and of one address.
    fn open_clients(&self, ip: IpAddr) -> (u64, u64) {
        let open = self.open_by_shard.iter().flatten().filter_map(|s| match self.sockets[*s].peer {
            Peer::Client(client) => Some(client_address(client).ip()),
            Peer::Backend(_) => None,
        });
        open.fold((0, 0), |(all, same), other| (all + 1, same + u64::from(other == ip)))
    }

    /// A client was accepted: it is counted already.
    pub(crate) fn judge_accepted(&mut self, client: usize) {
        let (all, same) = self.open_clients(client_address(client).ip());
        let limits = &self.scenario.limits;
        let above = |n: u64, limit: u64| limit > 0 && n > limit;
        if above(all, limits.connections) || above(same, limits.connections_per_ip) {
            let details = format!("{all} clients, {same} from one address: {limits:?}");
            self.ledger.fail("connections-limited", details);
        }
    }

    /// A client was refused.
    pub(crate) fn judge_refused(&mut self, client: usize) {
        let (all, same) = self.open_clients(client_address(client).ip());
        let limits = &self.scenario.limits;
        let at = |n: u64, limit: u64| limit > 0 && n >= limit;
        let full = at(all, limits.connections) || at(same, limits.connections_per_ip);
        if !full && self.drain_by.is_none() && self.scenario.page_limit == 0 {
            let details = format!("{all} clients, {same} from one address: {limits:?}");
            self.ledger.fail("refused-below-limit", details);
        }
    }
}
