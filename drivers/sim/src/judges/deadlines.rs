//! Timeouts that are over and have not fired: looked for whenever a shard has a turn, before it does
//! anything in that turn.

use super::LATE;
use crate::exchanges::ExchangeEntry;
use crate::http2::HTTP_2;
use crate::net::{Net, Peer, Sending, Socket};

impl Net {
    /// A shard has a turn: what should have ended before has.
    pub(crate) fn judge_deadlines(&mut self, shard: usize) {
        if self.ledger.violation.is_some() {
            return;
        }
        for at in 0..self.open_by_shard[shard].len() {
            let socket = self.open_by_shard[shard][at];
            let s = &self.sockets[socket];
            let late = match s.peer {
                Peer::Client(client) => self.late_client(client, s),
                Peer::Backend(_) => self.late_backend(s),
            };
            if let Some((what, since)) = late {
                let details = format!("socket {socket} waits since {since}, it is {}", self.now);
                return self.ledger.fail(what, details);
            }
        }
    }

    /// Whether the proxy has something to write that its peer does not take.
    pub(super) fn has_no_room(&self, s: &Socket) -> bool {
        (if s.secure { s.send_blocked } else { s.write_blocked }) && !self.is_writable(s)
    }

    /// Whether a timeout that began at `since` is over for so long that it must have fired.
    fn is_late(&self, since: u64, timeout: u64) -> bool {
        timeout > 0 && self.now > since + timeout + LATE
    }

    fn late_client(&self, client: usize, s: &Socket) -> Option<(&'static str, u64)> {
        let timeouts = &self.scenario.timeouts;
        if s.secure && s.times.secured.is_none() {
            let over = s.from_proxy.ended || s.broken || s.times.unsecured.is_some();
            let late = !over && self.is_late(s.times.opened, timeouts.handshake);
            return late.then_some(("handshake-fires", s.times.opened));
        }
        // How long what it does may take is not told from its bytes.
        if self.scenario.client_http2(client).is_some() {
            return None;
        }
        // It is closing, or what it sends is not read for want of pages.
        if s.from_proxy.ended || s.broken || s.times.fin.is_some() || self.scenario.page_limit > 0 {
            return None;
        }
        // The close_notify of its last response has no room, or has had none before this turn.
        let has_room_now = self.ready[s.shard].contains(&self.client_sockets[client]);
        if s.secure && (s.write_blocked || has_room_now) {
            return None;
        }
        let exchanges = self.client_exchanges[client];
        let read = s.to_proxy.read_total;
        if exchanges.ended > 0 && read <= exchanges.read_at_end {
            let since = exchanges.last_end;
            return self.is_late(since, timeouts.idle).then_some(("idle-fires", since));
        }
        let next = self.next_entry(client)?;
        if read < next.head_end {
            let since = self.head_began(client);
            if s.writes.last().is_some_and(|w| w.1 > since) || self.drains() {
                // It is being told so, or a drain has given it another time.
                return None;
            }
            return self.is_late(since, timeouts.head).then_some(("head-fires", since));
        }
        if next.tunnelled.is_some() {
            return None;
        }
        let last_write = s.writes.last().map_or(s.times.secured.unwrap_or(s.times.opened), |w| w.1);
        if self.has_no_room(s) && self.is_late(last_write, 2 * timeouts.stall) {
            return Some(("client-stall-fires", last_write));
        }
        None
    }

    /// The request of a client that is being read, or served.
    fn next_entry(&self, client: usize) -> Option<&ExchangeEntry> {
        let id = *self.client_requests.get(client)?.get(self.client_exchanges[client].ended)?;
        Some(self.ledger.get(id))
    }

    fn late_backend(&self, s: &Socket) -> Option<(&'static str, u64)> {
        let timeouts = &self.scenario.timeouts;
        let opened = s.times.opened;
        if s.probe {
            return self.is_late(opened, self.scenario.pool.probe_timeout).then_some(("probe-fires", opened));
        }
        if s.broken || s.times.fin.is_some() {
            return None;
        }
        if s.connecting || s.secure && s.times.secured.is_none() {
            // It may be a probe, and whoever has joined others waits as long as they.
            let most = timeouts.connect.max(self.scenario.pool.probe_timeout);
            let joined = self.choices.awaited_since.get(&(s.shard, s.conn));
            let since = joined.map_or(opened, |(_, last)| opened.max(*last));
            let late = timeouts.connect > 0 && self.is_late(since, most);
            return late.then_some(("connect-fires", since));
        }
        if s.streams.is_some() {
            return self.late_streams(s);
        }
        let sending = self.sendings[*s.sendings.last()?];
        let entry = self.ledger.get(sending.id);
        let last_read = s.reads.last().map_or(opened, |r| r.1);
        let last_write = s.writes.last().map_or(opened, |w| w.1);
        if entry.record.is_some() {
            if s.tap.head_begun() {
                return None;
            }
            // The connection lies idle.
            let idle = self.scenario.pool.idle;
            let since = entry.recorded_at;
            // For want of a page it may have been taken, and given back.
            let late = self.scenario.page_limit == 0 && self.is_late(since, idle);
            return late.then_some(("backend-idle-fires", since));
        }
        let Some(complete) = sending.complete else {
            let late = self.has_no_room(s) && self.is_late(last_write.max(last_read), 2 * timeouts.stall);
            return late.then_some(("backend-stall-fires", last_write));
        };
        let switched = self.response_head_read(entry, sending.socket).is_some();
        if switched && entry.tunnelled == Some((sending.socket, 0)) {
            let client = &self.sockets[self.client_sockets[entry.client]];
            let of_client = |log: &[(u64, u64)]| log.last().map_or(0, |l| l.1);
            let moved = [last_read, last_write, of_client(&client.reads), of_client(&client.writes)];
            let since = moved.into_iter().max().unwrap_or(0);
            return self.is_late(since, timeouts.tunnel).then_some(("tunnel-fires", since));
        }
        self.late_response(s, &sending, complete.max(last_read), entry)
    }

    /// A request has been sent whole; the proxy has read from the backend, or written to it, at `since` last.
    fn late_response(
        &self,
        s: &Socket,
        sending: &Sending,
        since: u64,
        entry: &ExchangeEntry,
    ) -> Option<(&'static str, u64)> {
        let timeouts = &self.scenario.timeouts;
        let client = &self.sockets[self.client_sockets[entry.client]];
        // Over HTTP/2 a request ends with its stream, which may be told long after its last byte.
        let ended = (entry.version == HTTP_2).then(|| client.reads.last().map_or(0, |read| read.1));
        let since = since.max(ended.unwrap_or(0));
        let plan = entry.attempts.iter().find(|a| a.socket == sending.socket).and_then(|a| a.response);
        let read = s.to_proxy.read_total;
        if plan.is_none_or(|plan| read < plan.head_end) {
            // Without a plan it may have read garbage whose head does not end.
            return self.is_late(since, timeouts.backend_head).then_some(("backend-head-fires", since));
        }
        let taken = entry.version != HTTP_2
            && !self.has_no_room(client)
            && s.to_proxy.arrived == 0
            && self.scenario.page_limit == 0;
        let unended = plan.is_some_and(|plan| read < plan.end);
        let late = taken && unended && self.is_late(since, 2 * timeouts.stall);
        late.then_some(("backend-stall-fires", since))
    }
}
