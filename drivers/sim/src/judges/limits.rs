//! Limits of client connections, of waiting requests and of idle connections: none above one, and none
//! refused below it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::exchanges::{ExchangeEntry, ObservedRecord};
use crate::net::{Net, Peer};
use crate::scenario::client_ip;

impl Net {
    /// Client connections that are open, of all and of one address. `admin`: those of the admin listener too.
    fn open_clients(&self, ip: IpAddr, admin: bool) -> (u64, u64) {
        let open = self.open_by_shard.iter().flatten().filter_map(|s| match self.sockets[*s].peer {
            Peer::Client(client) if !admin && self.scenario.admin_request(client).is_some() => None,
            Peer::Client(client) => Some(client_ip(client)),
            Peer::Backend(_) => None,
        });
        // All clients of IPv6 are of one network, which counts as one address.
        let is_same = |other: IpAddr| other == ip || other.is_ipv6() && ip.is_ipv6();
        open.fold((0, 0), |(all, same), other| (all + 1, same + u64::from(is_same(other))))
    }

    /// No more connections to a backend lie idle than are allowed, by pool and shard.
    pub(crate) fn judge_idle(&mut self, shard: usize) {
        let mut idle: BTreeMap<(&str, usize), u64> = BTreeMap::new();
        for s in self.open_by_shard[shard].iter().map(|at| &self.sockets[*at]) {
            // Those that carry streams are for all.
            let last = s.sendings.last().filter(|_| s.streams.is_none());
            let (Peer::Backend(backend), Some(sending)) = (s.peer, last) else { continue };
            let sending = &self.sendings[*sending];
            let entry = self.ledger.get(sending.id);
            // Bytes of a new request may wait for room.
            let taken = s.write_blocked || s.tap.head_begun();
            if entry.record.is_some() && sending.complete.is_some() && !taken && self.owner(s).is_none() {
                *idle.entry((entry.pool.unwrap_or_default(), backend)).or_default() += 1;
            }
        }
        let most = self.scenario.pool.max_idle;
        // A page that is missing leaves a connection without a request for a while; a reload may leave those
        // of an older pool.
        let unclear = self.scenario.page_limit > 0 || self.config_versions.len() > 1;
        if let Some((which, n)) = idle.into_iter().find(|(_, n)| *n > most && !unclear) {
            let details = format!("shard {shard}: {n} idle connections to {which:?}, {most} allowed");
            self.ledger.fail("idle-limited", details);
        }
    }

    /// The run is over: never more requests waited for a backend than may.
    pub(crate) fn judge_queues(&mut self) {
        let Some(limit) = self.scenario.limits.queue else { return };
        // Who waits over a reload waits in the queue of the older configuration, beside the new one.
        if self.scenario.has_lookups() || self.config_versions.len() > 1 {
            return;
        }
        let waits: Vec<Wait> = self
            .ledger
            .entries
            .iter()
            .filter_map(|entry| Wait::of(entry, self.scenario.timeouts.queue))
            .collect();
        for wait in &waits {
            let same = |w: &&Wait| w.id != wait.id && (w.shard, &w.pool) == (wait.shard, &wait.pool);
            let others = || waits.iter().filter(same);
            let at = wait.from;
            let surely = others().filter(|w| w.surely && w.from < at && w.to > at).count() as u64;
            if wait.surely && surely >= limit {
                let details = format!("request {} waits as one of {}, {limit} allowed", wait.id, surely + 1);
                return self.ledger.fail("queue-limited", details);
            }
        }
    }

    /// A client was accepted: it is counted already.
    pub(crate) fn judge_accepted(&mut self, client: usize) {
        let (all, same) = self.open_clients(client_ip(client), false);
        let limits = &self.scenario.limits;
        let above = |n: u64, limit: u64| limit > 0 && n > limit;
        if above(all, limits.connections) || above(same, limits.connections_per_ip) {
            let details = format!("{all} clients, {same} from one address: {limits:?}");
            self.ledger.fail("connections-limited", details);
        }
    }

    /// A listener has closed before it took a client: only a drain does that.
    pub(crate) fn judge_turned_away(&mut self, client: usize) {
        if !self.drains() {
            self.ledger.fail("connected-is-taken", format!("client {client} was not"));
        }
    }

    /// A client was refused.
    pub(crate) fn judge_refused(&mut self, client: usize) {
        let (all, same) = self.open_clients(client_ip(client), true);
        let limits = &self.scenario.limits;
        let at = |n: u64, limit: u64| limit > 0 && n >= limit;
        let full = at(all, limits.connections) || at(same, limits.connections_per_ip);
        if !full && !self.drains() && self.scenario.page_limit == 0 {
            let details = format!("{all} clients, {same} from one address: {limits:?}");
            self.ledger.fail("refused-below-limit", details);
        }
    }
}

/// The time in which a request may have waited for a backend.
struct Wait {
    id: u64,
    shard: usize,
    pool: String,
    from: u64,
    to: u64,
    /// It waited all that time, and for nothing else.
    surely: bool,
}

impl Wait {
    fn of(entry: &ExchangeEntry, timeout: u64) -> Option<Self> {
        let record: &ObservedRecord = entry.record.as_ref()?;
        let from = record.times.head?;
        let full = record.cause == Some("queue_full");
        // Who is chosen may have waited again for another attempt.
        let first = record.times.chosen.unwrap_or(record.times.ended);
        let to = if record.attempts > 1 || full { record.times.ended } else { first };
        // The client may take its time to read that it has waited in vain.
        let in_vain = record.cause == Some("queue_timeout");
        let to = if in_vain { to.min(from + timeout) } else { to };
        let surely = record.attempts == 1 && first > from || record.cause == Some("queue_timeout");
        let surely = surely && record.attempts <= 1;
        Some(Self { id: entry.id, shard: record.shard, pool: record.pool.clone(), from, to, surely })
    }
}
