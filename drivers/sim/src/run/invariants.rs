//! Invariants that concern more than one party: checked after every turn of a shard, when the last clients
//! are served, and when all is over. The others are checked where the bytes are: by clients, by backends, in
//! the ledger and in the sockets.

use std::collections::BTreeSet;

use ruststrom_core::Cause;
use ruststrom_core::http::Violation;
use ruststrom_core::observe::HealthState;
use ruststrom_core::proxy::Counts;

use super::Simulation;
use super::observer::ExchangeRecord;
use super::phases::FINAL_CLIENTS;
use crate::chains::Chain;
use crate::coverage::Mark;
use crate::exchanges::{ClientResult, ExchangeEntry, ObservedRecord};
use crate::net::{HealthEntry, Peer};
use crate::scenario::{BackendSpec, MS, PoolSpec};

/// With fewer pages than this one exchange alone may not have enough, and gets a local reply for that.
const ENOUGH_PAGES: u64 = 12;

impl Simulation {
    fn newest_pools(&self) -> &[PoolSpec] {
        self.net.config_versions.last().expect("the first one at least")
    }

    /// Clients that come when everything is healthy again get the responses of backends.
    pub(super) fn check_final_clients(&mut self) {
        if self.net.scenario.page_limit > 0 && self.net.scenario.page_limit < ENOUGH_PAGES {
            return;
        }
        let without_backend = |name: Option<&'static str>| {
            self.newest_pools()
                .iter()
                .any(|p| Some(p.name) == name && p.backends.iter().all(|b| b.weight == 0))
        };
        let not_served = self.net.ledger.entries.iter().find(|entry| {
            entry.client + FINAL_CLIENTS >= self.clients.len()
                && matches!(entry.result, ClientResult::LocalReply(_))
                && !without_backend(entry.pool)
                && !self.refused_rightly(entry)
                && !self.queueing_failed_rightly(entry)
        });
        if let Some(entry) = not_served {
            let pool = self.newest_pools().iter().find(|p| Some(p.name) == entry.pool);
            let details = format!(
                "request {} of client {} to {pool:?}: {:?}, {:?}",
                entry.id, entry.client, entry.result, entry.record
            );
            self.net.ledger.fail("final-clients-served", details);
        }
    }

    /// Whether a middleware has reason to refuse a request with an error.
    fn refused_rightly(&self, entry: &ExchangeEntry) -> bool {
        if !self.net.scenario.above_limits(entry).is_empty() {
            return true;
        }
        let too_large = Some(Cause::BadRequest(Violation::ContentTooLarge).name());
        entry.reply_cause.as_deref() == too_large && Chain::of(&self.net.scenario, entry).is_too_large()
    }

    /// Whether a request waited for a backend below its limit until the timeout, or found no place to wait,
    /// while another request was on one, such as a long body over a slow network. Had that one ended, this
    /// request would have gone on.
    fn queueing_failed_rightly(&self, entry: &ExchangeEntry) -> bool {
        // A timer may be late, and it takes time to connect before anything is sent.
        const SLACK: u64 = 60 * MS;
        let Some(pool) = self.newest_pools().iter().find(|p| Some(p.name) == entry.pool) else {
            return false;
        };
        let weighty = || pool.backends.iter().filter(|b| b.weight > 0);
        let on_backups = weighty().all(|b| b.backup);
        let mut in_use = weighty().filter(|b| b.backup == on_backups);
        let is_limited = |b: &BackendSpec| b.max_connections > 0;
        // A client that hashes to a full backend waits for that one, whatever the others do.
        let limited = if pool.strategy == "IPHash" { in_use.any(is_limited) } else { in_use.all(is_limited) };
        let overlaps = |other: &ExchangeEntry| {
            let began = other.attempts.first().is_some_and(|a| a.sent_at <= entry.recorded_at + SLACK);
            other.id != entry.id
                && other.pool == entry.pool
                && began
                && (other.record.is_none() || other.recorded_at + SLACK >= entry.recorded_at)
        };
        let queueing_failed = [Cause::QueueTimeout, Cause::QueueFull].map(|cause| Some(cause.name()));
        entry.record.as_ref().is_some_and(|record| queueing_failed.contains(&record.cause))
            && limited
            && self.net.ledger.entries.iter().any(overlaps)
    }

    /// After a drain nothing is left, and every exchange has been recorded.
    pub(super) fn check_nothing_left(&mut self) {
        for shard in 0..self.shards.len() {
            let counts = self.shards[shard].proxy().counts();
            if counts != Counts::default() {
                self.net.ledger.fail("nothing-left", format!("shard {shard}: {counts:?}"));
            }
            let open = self.net.open_sockets[shard];
            if open > 0 {
                self.net.ledger.fail("no-socket-left", format!("shard {shard}: {open} open"));
            }
        }
        if self.shared.connections() > 0 {
            self.net.ledger.fail("clients-counted", format!("{} left", self.shared.connections()));
        }
        self.net.judge_results();
        let not_recorded = self.net.ledger.entries.iter().find(|entry| {
            // A head that is malformed or late is recorded without the target of its request.
            let head_failed = matches!(entry.result, ClientResult::LocalReply(400 | 408 | 414 | 431));
            let complete =
                !matches!(entry.result, ClientResult::Pending | ClientResult::Incomplete) && !head_failed;
            entry.record.is_none() && (complete || !entry.attempts.is_empty())
        });
        if let Some(entry) = not_recorded {
            let details = format!("exchange {} was never recorded: {:?}", entry.id, entry.result);
            self.net.ledger.fail("one-end-record", details);
        }
        self.net.judge_suspicions();
        self.check_round_robin();
    }

    /// Without faults and reloads, round robin over equal backends is exact.
    fn check_round_robin(&mut self) {
        // A connection of a client alone carries its requests whoever's turn it is.
        let scenario = &self.net.scenario;
        if !scenario.fault_free || scenario.identities || !scenario.has_good_probes_only() {
            return;
        }
        // What a middleware cuts off has had its turn, and so has a backend that takes no WebSockets.
        let websockets = self.net.ledger.entries.iter().any(|entry| entry.websocket);
        if scenario.has_middlewares() || websockets && scenario.http2.backends.refuses_websockets() {
            return;
        }
        for pool in &self.net.scenario.pools {
            let plain =
                |b: &BackendSpec| !b.is_named() && b.weight == 1 && b.max_connections == 0 && !b.backup;
            if pool.strategy != "RoundRobin" || pool.sticky || !pool.backends.iter().all(plain) {
                continue;
            }
            let executed = &self.net.ledger.executed;
            let count = |b: &BackendSpec| executed.get(&(pool.name, b.backend)).copied().unwrap_or(0);
            let counts: Vec<u64> = pool.backends.iter().map(count).collect();
            let min = counts.iter().min().copied().unwrap_or(0);
            let max = counts.iter().max().copied().unwrap_or(0);
            if max > min + 1 {
                let details = format!("pool {}: {counts:?}", pool.name);
                return self.net.ledger.fail("round-robin", details);
            }
        }
    }

    /// A backend has no more requests of a pool at once than its `max_connections`. Called when one of its
    /// connections has had a turn.
    pub(super) fn check_max_connections(&mut self, socket: usize) {
        if self.net.scenario.system.reloads > 0 {
            return;
        }
        let (Peer::Backend(backend), Some(Some(conn))) =
            (self.net.sockets[socket].peer, self.backend_conns.get(socket))
        else {
            return;
        };
        if self.net.is_reused_by_owner(socket) {
            return;
        }
        let pools: BTreeSet<_> =
            conn.busy(&self.net).into_iter().filter_map(|id| self.net.ledger.get(id).pool).collect();
        for pool in pools {
            self.check_max_connections_of(backend, pool);
        }
    }

    fn check_max_connections_of(&mut self, backend: usize, pool: &'static str) {
        let spec = self.net.scenario.pools.iter().find(|p| p.name == pool);
        let spec = spec.and_then(|p| p.backends.iter().find(|b| b.backend == backend));
        let Some(limit) = spec.map(|b| b.max_connections as usize).filter(|limit| *limit > 0) else { return };
        let conns = self.backend_conns.iter().flatten().filter(|conn| {
            self.net.sockets[conn.socket].peer == Peer::Backend(backend)
                && !self.net.is_reused_by_owner(conn.socket)
        });
        let of_pool = |id: &u64| self.net.ledger.get(*id).pool == Some(pool);
        let busy = conns.map(|conn| conn.busy(&self.net).into_iter().filter(of_pool).count());
        let busy: usize = busy.sum();
        if busy > limit {
            let details = format!("backend {backend} of pool {pool}: {busy} at once, {limit} allowed");
            self.net.ledger.fail("max-connections", details);
        }
    }

    /// Checks the structure of core and pump, and takes what the core has recorded.
    pub(super) fn check_after_turn(&mut self, shard: usize) {
        let event_loop = &mut self.shards[shard].event_loop;
        event_loop.check();
        let observer = event_loop.pump_mut().proxy_mut().observer_mut();
        let (records, health) = (std::mem::take(&mut observer.records), std::mem::take(&mut observer.health));
        let choices = std::mem::take(&mut observer.choices);
        self.net.follow_choices(shard, choices);
        let entered = self.entered.lock().map(|mut entered| std::mem::take(&mut *entered));
        for (target, chain) in entered.unwrap_or_default() {
            self.net.judge_entered(shard, &target, chain);
        }
        let decided = self.decisions.lock().map(|mut decided| std::mem::take(&mut *decided));
        for decision in decided.unwrap_or_default() {
            self.net.judge_decision(&decision);
        }
        let changed = !health.is_empty();
        for change in health {
            self.health_changed(change);
        }
        self.net.judge_health(shard, changed);
        for ExchangeRecord { target, record, waited } in records {
            self.net.trace(35 << 16 | u64::from(record.status), || format!("ended {target}: {record:?}"));
            if let Some(cause) = record.cause_kind {
                self.net.coverage.cause(cause);
            }
            if waited && !self.net.scenario.has_lookups() {
                self.net.mark(Mark::Queued);
            }
            self.take_record(&target, record);
        }
        self.net.judge_idle(shard);
        self.net.judge_owners(shard);
        self.net.suspect_connects.clear();
        if self.net.scenario.check_each_input || self.net.scenario.page_limit > 0 {
            let counts = self.shards[shard].proxy().counts();
            self.check_counts(counts);
        }
    }

    /// The core has told of the end of an exchange.
    fn take_record(&mut self, target: &str, record: ObservedRecord) {
        let now = self.net.now;
        let id = self.net.ledger.id_of(target);
        let Some(client) = id.map(|id| self.net.ledger.get(id).client).or(record.client) else {
            return self.net.ledger.fail("client-recorded", format!("{record:?}"));
        };
        self.net.judge_cause_alone(client, id, &record);
        if let Some(id) = id {
            self.net.ledger.add_record(id, record, now);
            self.net.judge_record(id);
            self.net.note_silence(id);
        }
        let exchanges = &mut self.net.client_exchanges[client];
        exchanges.ended += 1;
        exchanges.last_end = now;
        if let Some(id) = id {
            exchanges.read_at_end = self.net.ledger.get(id).request_end;
        }
    }

    fn health_changed(&mut self, change: HealthEntry) {
        let change = HealthEntry { at: self.net.now, ..change };
        self.net.judge_health_change(&change);
        let (pool, label, to) = (change.pool.clone(), change.label.clone(), change.to);
        let (seen, by_check) = (change.seen.clone(), change.by_check);
        self.net.health_log.push(change);
        self.net.trace(36, || format!("{label} of {pool} is {to:?}: {seen}"));
        if to == HealthState::Unhealthy {
            self.net.mark(Mark::BecameUnhealthy);
            // Who was found to be away by requests alone may be tried while nobody else is usable.
            let known_from = if by_check { self.net.turn } else { u64::MAX };
            self.net.unhealthy.insert((pool, label), known_from);
        } else {
            self.net.mark(if to == HealthState::Slow { Mark::BecameSlow } else { Mark::BecameHealthy });
            self.net.unhealthy.remove(&(pool, label));
            // It may have become healthy before the connections of this turn were made.
            for socket in std::mem::take(&mut self.net.suspect_connects) {
                self.net.sockets[socket].suspect = false;
            }
        }
    }

    /// Connections carry as many exchanges as the backends' counters of requests in flight say.
    fn check_counts(&mut self, counts: Counts) {
        let page_limit = self.net.scenario.page_limit;
        if page_limit > 0 && counts.pages as u64 >= page_limit {
            self.net.mark(Mark::NoPageToRead);
        }
        if self.net.scenario.system.reloads > 0 {
            return;
        }
        let carried: usize = self.shards.iter().map(|s| s.proxy().counts().exchanges_on_backends).sum();
        if carried != counts.in_flight {
            self.net.ledger.fail(
                "in-flight",
                format!("connections carry {carried} exchanges, {} are counted in flight", counts.in_flight),
            );
        }
    }
}
