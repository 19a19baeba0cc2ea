//! A cause needs a reason in the simulated world, and a timeout that is named is not early.

use ruststrom_core::ConnId;
use ruststrom_core::observe::HealthState;

use crate::chains::Chain;
use crate::exchanges::{ExchangeEntry, ObservedRecord};
use crate::http2::HTTP_2;
use crate::net::{ConnectError, Net, Sending, Socket};
use crate::scenario::SEC;

/// An attempt to connect that has come to nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum FailedConnect<'a> {
    /// Without a socket.
    AtOnce(&'a ConnectError),
    /// This socket.
    Later(&'a Socket),
}

impl FailedConnect<'_> {
    fn errno(&self) -> Option<i32> {
        match self {
            Self::AtOnce(error) => Some(error.errno),
            Self::Later(socket) => socket.times.failed.map(|(_, errno)| errno),
        }
    }

    /// The backend took the connection, but nothing was sent on it.
    fn took(&self) -> bool {
        matches!(self, Self::Later(socket) if socket.times.established(socket.secure).is_some())
    }

    /// When it was given up without a result.
    fn given_up(&self) -> Option<u64> {
        match self {
            Self::Later(s) if s.times.failed.is_none() && s.times.established(s.secure).is_none() => {
                s.times.closed
            }
            _ => None,
        }
    }
}

impl Net {
    /// The connections that were to carry an exchange, opened for it or for another one that wanted the same
    /// backend, and on which no request has been sent.
    pub(super) fn failed_connects<'a>(
        &'a self,
        entry: &'a ExchangeEntry,
        record: &ObservedRecord,
    ) -> impl Iterator<Item = FailedConnect<'a>> {
        let shard = record.shard;
        let its = move |of: usize, conn: ConnId| of == shard && entry.connections.contains(&conn);
        let at_once = self.connect_errors.iter().filter(move |e| its(e.shard, e.conn));
        let later = self.sockets.iter().filter(move |s| its(s.shard, s.conn) && s.sendings.is_empty());
        at_once.map(FailedConnect::AtOnce).chain(later.map(FailedConnect::Later))
    }

    /// How long an exchange, or another one that wanted the same connection, has waited for it in vain.
    fn waited_in_vain(&self, connect: &FailedConnect<'_>) -> Option<u64> {
        let FailedConnect::Later(socket) = connect else { return None };
        let since = self.choices.awaited_since.get(&(socket.shard, socket.conn));
        Some(connect.given_up()? - since.map_or(socket.times.opened, |(first, _)| *first))
    }

    /// What can be said of a record without the request that it is of.
    pub(crate) fn judge_cause_alone(&mut self, client: usize, id: Option<u64>, record: &ObservedRecord) {
        let Some(cause) = record.cause else { return };
        let socket = &self.sockets[self.client_sockets[client]];
        let times = &record.times;
        let given_up = id.is_some_and(|id| self.ledger.get(id).given_up);
        let left = socket.times.fin.or(socket.times.reset).or(socket.times.violated);
        let client_left = left.is_some() || given_up;
        let why = match cause {
            "head_timeout" => {
                let timeout = self.scenario.timeouts.head;
                let early = timeout == 0 || times.ended < self.head_began(client) + timeout;
                early.then(|| format!("the head began at {}", self.head_began(client)))
            }
            "client_closed" => (!client_left).then(|| "the client is there".to_owned()),
            "drained" => (!self.drain_over()).then(|| "there is no drain, or it is not over".to_owned()),
            "no_pages" => (self.scenario.page_limit == 0).then(|| "there are pages".to_owned()),
            "lookup_failed" => (!self.lookups_may_fail()).then(|| "all lookups are well".to_owned()),
            _ => None,
        };
        if let Some(why) = why {
            self.ledger.fail("cause-has-reason", format!("{why}: {record:?}"));
        }
    }

    /// When the head that a client is sending began, as far as its timeout goes.
    pub(super) fn head_began(&self, client: usize) -> u64 {
        let socket = &self.sockets[self.client_sockets[client]];
        let exchanges = self.client_exchanges[client];
        if exchanges.ended == 0 {
            return socket.times.secured.unwrap_or(socket.times.opened);
        }
        // When the first byte behind the last request was read; it may have come with the end of that.
        let end = exchanges.read_at_end;
        let read = socket.reads.partition_point(|(before, _)| *before <= end).saturating_sub(1);
        let read = if socket.to_proxy.read_total > end { socket.reads.get(read) } else { None };
        read.map_or(exchanges.last_end, |(_, at)| (*at).max(exchanges.last_end))
    }

    fn lookups_may_fail(&self) -> bool {
        let faults = &self.scenario.system;
        self.scenario.has_lookups() && faults.slow_lookup + faults.lost_lookup + faults.failed_lookup > 0
    }

    fn drain_over(&self) -> bool {
        self.drain_by.is_some_and(|by| self.now >= by)
    }

    /// Whether the cause of an exchange is one that the world gives reason for.
    pub(super) fn judge_cause(&self, entry: &ExchangeEntry, record: &ObservedRecord) -> Result<(), String> {
        let Some(kind) = record.cause_kind else { return Ok(()) };
        let times = &record.times;
        if (entry.pool.is_none() && times.head.is_some()) != (kind == "no_route") {
            let before_routing = ["client_closed", "drained", "no_pages", "client_stalled"];
            let misdirected = entry.misdirected && record.cause == Some("misdirected_request");
            if kind == "no_route" || !(before_routing.contains(&kind) || misdirected) {
                return Err(format!("its pool is {:?}", entry.pool));
            }
        }
        for (label, kind) in &record.failed {
            if !self.has_reason(kind, entry, record)? {
                return Err(format!("nothing gives reason for {kind} of {label}"));
            }
        }
        if let Some((label, failed)) = record.failed.last().filter(|(_, failed)| *failed == kind)
            && *label != record.backend
        {
            return Err(format!("{failed} is of {label}"));
        }
        if self.has_reason(kind, entry, record)? {
            Ok(())
        } else {
            Err(format!("nothing gives reason for {kind}"))
        }
    }

    /// Whether the world gives reason for a cause. `Err`: it speaks against it.
    fn has_reason(&self, kind: &str, entry: &ExchangeEntry, record: &ObservedRecord) -> Result<bool, String> {
        let timeouts = &self.scenario.timeouts;
        let times = &record.times;
        let errno = |codes: &[i32]| {
            self.failed_connects(entry, record).any(|c| c.errno().is_some_and(|e| codes.contains(&e)))
        };
        Ok(match kind {
            "connect_refused" => errno(&[libc::ECONNREFUSED]),
            "connect_unreachable" => {
                errno(&[libc::ENETUNREACH, libc::EHOSTUNREACH]) || record.backend.starts_with('m')
            }
            "connect_no_socket" => errno(&[libc::ENOENT]),
            "connect_denied" => errno(&[libc::EACCES]),
            "connect_backlog_full" => errno(&[libc::EAGAIN]),
            "connect_failed" => errno(&[libc::EMFILE]),
            "connect_timeout" => {
                let enough = |waited| timeouts.connect > 0 && waited >= timeouts.connect;
                errno(&[libc::ETIMEDOUT])
                    || self
                        .failed_connects(entry, record)
                        .any(|c| self.waited_in_vain(&c).is_some_and(enough))
            }
            "backend_closed" => {
                let left = |s: &Socket| s.times.fin.is_some();
                self.sending_sockets(entry).chain(self.stale_connections(entry, record)).any(left)
                    || self
                        .failed_connects(entry, record)
                        .any(|c| matches!(c, FailedConnect::Later(s) if left(s)))
            }
            "backend_reset" => {
                let left = |s: &Socket| {
                    let leaves = s.streams.as_ref().is_some_and(|log| !log.goaways.is_empty());
                    s.times.reset.is_some() || s.times.violated.is_some() || leaves
                };
                self.was_reset(entry)
                    || self.sending_sockets(entry).chain(self.stale_connections(entry, record)).any(left)
                    || self
                        .failed_connects(entry, record)
                        .any(|c| c.took() || matches!(c, FailedConnect::Later(s) if left(s)))
            }
            "bad_response" => {
                self.sending_sockets(entry)
                    .chain(self.stale_connections(entry, record))
                    .chain(self.attached(entry, record).filter(|s| s.streams.is_some()))
                    .any(|s| s.times.violated.is_some())
                    || self
                        .sendings_of(entry)
                        .any(|s| self.said_on(s.socket, s.stream).is_some_and(|said| said.violated.is_some()))
            }
            "backend_lost" => self.attached(entry, record).any(|s| self.is_lost(s)),
            "backend_timeout" => {
                let waited = |s: &Sending| {
                    // On a stream it counts as sent before it is written.
                    // When it was sent before, on a connection that was left, is not told.
                    let several = entry.connections.len() > 1;
                    let earlier = times.connected.filter(|_| several);
                    let on_stream = earlier.or(times.sent).map_or(s.began, |at| at.min(s.began));
                    let on_stream = times.sent.filter(|_| !several).unwrap_or(on_stream);
                    let sent = if s.stream > 0 { Some(on_stream) } else { s.complete };
                    // A client that waits for a 100 (continue) has sent what it sends.
                    let sent = sent.or(entry.expect.then_some(s.began));
                    sent.is_some_and(|at| times.ended >= at + timeouts.backend_head)
                };
                // For want of room it may not have been written, or nobody knows of it yet.
                let several = entry.connections.len() > 1;
                let since = times.connected.filter(|_| several).or(times.sent);
                let unsent = (several || entry.sendings.is_empty())
                    && self.attached(entry, record).any(|s| s.streams.is_some())
                    && since.is_some_and(|since| times.ended >= since + timeouts.backend_head);
                timeouts.backend_head > 0 && (unsent || self.sendings_of(entry).any(waited))
            }
            "response_truncated" => {
                let ended = |s: &Socket| s.times.fin.or(s.times.reset).is_some() || self.is_lost(s);
                self.was_reset(entry) || self.sending_sockets(entry).any(ended)
            }
            "backend_stalled" => {
                let waited = |s: &Socket| stalled(s, s.times.closed.unwrap_or(self.now), timeouts.stall);
                // What is written of a request may have been taken before.
                let taken = times.connected.is_some_and(|at| times.ended >= at + timeouts.stall);
                let stream_waited = |s: &Sending| {
                    let waited = self.now >= self.stream_moved(s) + timeouts.stall;
                    s.stream > 0 && if s.complete.is_some() { waited } else { taken }
                };
                // For want of room it may not have been written.
                let unsent = entry.sendings.is_empty()
                    && self.attached(entry, record).any(|s| s.streams.is_some())
                    && taken;
                let sockets = self.sending_sockets(entry).chain(self.stale_connections(entry, record));
                let stalls = unsent || self.sendings_of(entry).any(stream_waited);
                timeouts.stall > 0 && (stalls || { sockets }.any(waited))
            }
            "tunnel_timeout" => {
                let stalled = |s: &Socket| stalled(s, self.now, timeouts.tunnel);
                // What a stream takes may be written later than it was taken, and others move beside it.
                let since = times.responded.unwrap_or(times.started);
                let backend_stalled = |s: &Sending| match s.stream {
                    0 => stalled(&self.sockets[s.socket]),
                    _ => self.now >= since + timeouts.tunnel,
                };
                let client = &self.sockets[self.client_sockets[entry.client]];
                timeouts.tunnel > 0
                    && record.is_of_tunnel(entry)
                    && self.sendings_of(entry).any(backend_stalled)
                    && (entry.version == HTTP_2 || stalled(client))
            }
            "websocket_not_announced" => {
                let silent = |s: &Socket| s.streams.as_ref().is_some_and(|log| log.websockets.is_none());
                entry.websocket && self.attached(entry, record).any(silent)
            }
            "client_stalled" => self.client_may_have_stalled(entry, record),
            "bad_request" => match record.cause {
                Some("misdirected_request") => entry.misdirected,
                Some("content_too_large") => Chain::of(&self.scenario, entry).is_too_large(),
                Some(cause) => self.scenario.above_limits(entry).contains(&cause),
                None => false,
            },
            "no_backend" => self.no_backend_usable(entry, record)?,
            "queue_timeout" => self.queue_is_over(record)?,
            _ if kind.starts_with("backend_tls_") => {
                let left = |s: &Socket| s.times.fin.or(s.times.reset).is_some() && s.times.secured.is_none();
                let blamed = |s: &Socket| {
                    s.blame.contains(&kind) || kind == "backend_tls_closed" && s.secure && left(s)
                };
                self.sending_sockets(entry).chain(self.stale_connections(entry, record)).any(blamed)
                    || self
                        .failed_connects(entry, record)
                        .any(|c| matches!(c, FailedConnect::Later(s) if blamed(s)))
            }
            "queue_full" => self.queue_was_full(entry),
            _ => true,
        })
    }

    /// Whether a backend has reset a stream of an exchange.
    fn was_reset(&self, entry: &ExchangeEntry) -> bool {
        self.sendings_of(entry).any(|s| self.reset_read(s.socket, s.stream).is_some())
    }

    /// The connections on which an exchange was sent.
    fn sending_sockets<'a>(&'a self, entry: &'a ExchangeEntry) -> impl Iterator<Item = &'a Socket> {
        self.sendings_of(entry).map(|s| &self.sockets[s.socket])
    }

    /// Whether less than the minimum rate has moved in the last part of an exchange.
    fn client_may_have_stalled(&self, entry: &ExchangeEntry, record: &ObservedRecord) -> bool {
        let stall = self.scenario.timeouts.stall;
        if stall == 0 {
            return false;
        }
        if self.scenario.page_limit > 0 {
            // What a client has sent may lie in its socket for want of a page, and it is blamed all the same.
            return true;
        }
        let socket = &self.sockets[self.client_sockets[entry.client]];
        // A local reply follows the decision; without one they are the same.
        let decided = match socket.times.closed {
            Some(closed) if closed == record.times.ended && record.status != 408 => closed,
            _ => return record.times.ended >= record.times.started + stall,
        };
        if decided < record.times.started + stall {
            return false;
        }
        let from = decided - stall;
        let rate = self.scenario.limits.min_rate * stall / SEC;
        let moved = |log: &[(u64, u64)], total: u64| {
            let at = log.partition_point(|(_, at)| *at <= from);
            total - log.get(at).map_or(total, |(before, _)| *before)
        };
        let read = moved(&socket.reads, socket.to_proxy.read_total);
        let written = moved(&socket.writes, socket.from_proxy.written_total);
        read.min(written) <= rate.max(1)
    }

    /// Whether no backend could be chosen. `Err`: one could.
    fn no_backend_usable(&self, entry: &ExchangeEntry, record: &ObservedRecord) -> Result<bool, String> {
        if record.attempts > 0 {
            return Err("the first failure has another cause".into());
        }
        let (Some(pool), Some(from)) = (entry.pool, record.times.head) else { return Ok(true) };
        let versions = &self.config_versions[..];
        let [version] = versions else { return Ok(true) };
        let spec = version.iter().find(|p| p.name == pool);
        let usable = spec.into_iter().flat_map(|p| &p.backends).find(|b| {
            !b.is_named() && b.weight > 0 && !self.was_unhealthy(pool, b.label(), from, record.times.ended)
        });
        match usable {
            Some(backend) => Err(format!("{} was usable all the time", backend.label())),
            None => Ok(true),
        }
    }

    /// Whether a backend was known to be unhealthy at some time between these.
    pub(super) fn was_unhealthy(&self, pool: &str, label: &str, from: u64, to: u64) -> bool {
        let changes = self.health_log.iter().filter(|c| c.at <= to && c.label == label && c.pool == pool);
        let mut unhealthy = false;
        let mut found = false;
        for change in changes {
            // What it was until this change counts if the change came within the time.
            found |= unhealthy && change.at >= from;
            unhealthy = change.to == HealthState::Unhealthy;
            found |= unhealthy && change.at >= from;
        }
        found || unhealthy
    }

    /// Whether as many others as may wait may have waited when a request had to.
    fn queue_was_full(&self, entry: &ExchangeEntry) -> bool {
        // Over a reload requests wait in the queues of two configurations.
        let unclear = self.config_versions.len() > 1 || entry.waited_behind.is_none();
        let others = entry.waited_behind.unwrap_or(0);
        self.scenario.limits.queue.is_some_and(|limit| unclear || others >= limit)
    }

    /// Whether a request waited so long for a backend below its limit. `Err`: it waited too long.
    fn queue_is_over(&self, record: &ObservedRecord) -> Result<bool, String> {
        let queue = self.scenario.timeouts.queue;
        let Some(head) = record.times.head else { return Ok(false) };
        let limited = self.config_versions.iter().flatten().flat_map(|p| &p.backends);
        if queue == 0 || !limited.into_iter().any(|b| b.max_connections > 0) {
            return Ok(false);
        }
        Ok(record.times.ended >= head + queue)
    }
}

/// Whether nothing moved on a connection for this time before `until`.
fn stalled(socket: &Socket, until: u64, time: u64) -> bool {
    let last = |log: &[(u64, u64)]| {
        let before = log.partition_point(|(_, at)| *at < until);
        before.checked_sub(1).map_or(socket.times.opened, |at| log[at].1)
    };
    until >= last(&socket.reads).max(last(&socket.writes)) + time
}
