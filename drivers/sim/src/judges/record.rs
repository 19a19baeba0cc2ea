//! The record of an exchange says what happened: compared with what was seen on the network, as soon as it
//! comes.

use std::collections::BTreeSet;

use crate::exchanges::{ExchangeEntry, ObservedRecord, response_body_len};
use crate::http1::BodyFraming;
use crate::http2::HTTP_2;
use crate::net::{Net, Sending, Socket};
use crate::scenario::UNIX_PREFIX;

/// The number of the simulated backend that a label stands for.
pub(crate) fn backend_of(label: &str) -> Option<usize> {
    let label = label.strip_prefix("https://").unwrap_or(label);
    if let Some(rest) = label.strip_prefix('m') {
        return rest.split('.').next()?.parse().ok();
    }
    if let Some(path) = label.strip_prefix("unix:") {
        return path.strip_prefix(UNIX_PREFIX)?.parse().ok();
    }
    if let Some(rest) = label.strip_prefix('[') {
        let last = rest.split(']').next()?.rsplit(':').next()?;
        return usize::from_str_radix(last, 16).ok()?.checked_sub(1);
    }
    let last = label.split(':').next()?.rsplit('.').next()?;
    last.parse::<usize>().ok()?.checked_sub(1)
}

impl Net {
    /// The record of this exchange has just come.
    pub(crate) fn judge_record(&mut self, id: u64) {
        let entry = self.ledger.get(id);
        let Some(record) = &entry.record else { return };
        let judged = self
            .judge_times(entry, record)
            .map_err(|why| ("times-recorded", why))
            .and_then(|()| self.judge_attempts(entry, record).map_err(|why| ("attempts-recorded", why)))
            .and_then(|()| self.judge_bytes(entry, record).map_err(|why| ("bytes-recorded", why)))
            .and_then(|()| self.judge_left_behind(entry, record).map_err(|why| ("left-behind-goes-on", why)))
            .and_then(|()| self.judge_cause(entry, record).map_err(|why| ("cause-has-reason", why)));
        if let Err((invariant, why)) = judged {
            let details = format!("exchange {id}: {why}: {record:?}");
            self.ledger.fail(invariant, details);
        }
    }

    /// The requests of this exchange that have been sent to backends, in their order.
    pub(super) fn sendings_of<'a>(&'a self, entry: &'a ExchangeEntry) -> impl Iterator<Item = &'a Sending> {
        entry.sendings.iter().map(|at| &self.sendings[*at])
    }

    /// When the head of the final response to a request was read; `None`: it was not, or is not one.
    pub(super) fn response_head_read(&self, entry: &ExchangeEntry, socket: usize) -> Option<u64> {
        let plan = entry.attempts.iter().rfind(|a| a.socket == socket)?.response?;
        self.read_at(socket, plan.head_end - 1)
    }

    fn judge_times(&self, entry: &ExchangeEntry, record: &ObservedRecord) -> Result<(), String> {
        let t = &record.times;
        if t.ended != self.now {
            return Err(format!("it ended at {}, not {}", self.now, t.ended));
        }
        let in_order = [Some(t.started), t.head, t.chosen, t.connected, t.sent.max(t.responded)];
        let known: Vec<u64> = in_order.into_iter().flatten().collect();
        if !known.is_sorted() || known.last() > Some(&t.ended) {
            return Err("its times are not in order".into());
        }
        let client = self.client_sockets[entry.client];
        let begins = entry.head_end - entry.head_len;
        let previous = self.client_exchanges[entry.client].last_end;
        // What was sent early waits for the end of the exchange before.
        let within = |offset: u64, at: u64| {
            let read = self.read_at(client, offset);
            read.is_some_and(|read| read <= at && at <= read.max(previous))
        };
        // The first byte may have come before the rest: that is not told apart yet.
        let first = self.read_at(client, begins);
        if first.is_none_or(|first| first > t.started) && t.started != self.sockets[client].times.opened {
            return Err(format!("its first byte was read at {:?}", self.read_at(client, begins)));
        }
        if t.head.is_some_and(|head| !within(entry.head_end - 1, head)) {
            return Err(format!("its head was read at {:?}", self.read_at(client, entry.head_end - 1)));
        }
        let Some(last) = self.answered(entry).filter(|_| record.cause.is_none()) else { return Ok(()) };
        // Over HTTP/2 the end of a request may come behind its last byte, or behind its response.
        let by_length = entry.version == HTTP_2 && matches!(entry.framing, BodyFraming::Length(_));
        let late = by_length && t.sent.is_none_or(|sent| Some(sent) > last.complete);
        // To a stream it counts as sent before it is written.
        let late = late || last.stream > 0 && t.sent <= last.complete;
        if last.complete.is_some() && t.sent != last.complete && !late {
            return Err(format!("it was sent at {:?}", last.complete));
        }
        let responded = self.response_head_read(entry, last.socket);
        if responded.is_some() && t.responded != responded {
            return Err(format!("the response was read at {responded:?}"));
        }
        Ok(())
    }

    fn judge_attempts(&self, entry: &ExchangeEntry, record: &ObservedRecord) -> Result<(), String> {
        if record.pool != entry.pool.unwrap_or_default() && record.times.head.is_some() {
            return Err(format!("its pool is {:?}", entry.pool));
        }
        if record.backend.is_empty() != (record.attempts == 0) {
            return Err("a backend without an attempt, or an attempt without one".into());
        }
        let sent: Vec<&Sending> = self.sendings_of(entry).collect();
        let not_sent = self.failed_connects(entry, record).count()
            + self.stale_connections(entry, record).count()
            + self.left_unsent(entry, record)
            + usize::from(self.has_left(entry, record));
        // What nobody has looked at may be no attempt.
        let unprocessed = self.unprocessed(entry).count();
        if usize::from(record.attempts) + unprocessed < sent.len() {
            return Err(format!("it was sent {} times", sent.len()));
        }
        // For want of a page nothing may have been sent on a connection that is kept.
        if usize::from(record.attempts) > sent.len() + not_sent && self.scenario.page_limit == 0 {
            return Err(format!("it was sent {} times, {not_sent} connects failed", sent.len()));
        }
        // Several shared connections may turn out to be stale, one after the other.
        let stale = if self.attached(entry, record).any(|s| s.streams.is_some()) { 3 } else { 0 };
        let most = 2 * (1 + self.scenario.pool.retries) + unprocessed as u64 + stale;
        if u64::from(record.attempts) > most {
            return Err(format!("at most {most} attempts are allowed"));
        }
        // For want of a page one may have been reused that had carried nothing.
        let few_pages = self.scenario.page_limit > 0;
        // The head of a request that was given up may be written behind the next one.
        let mut sent = sent;
        sent.sort_by_key(|s| self.taken_at(entry, s));
        for (at, first) in sent.iter().enumerate() {
            let again = sent[at + 1..].iter().position(|s| s.backend == first.backend);
            // But for a reused connection that was stale: then it is asked at once on a fresh one.
            let refused = self.unprocessed_since(first.socket, first.stream).is_some();
            if let Some(again) = again
                && !refused
                && !(again == 0
                    && (self.was_used(entry, first) || few_pages)
                    && (first.stream > 0 || sent[at + 1].nth == 0))
            {
                return Err(format!("backend {} was asked again", first.backend));
            }
        }
        let failed = record.failed.iter().filter_map(|(label, _)| backend_of(label));
        let asked: BTreeSet<usize> = failed.chain(sent.iter().map(|s| s.backend)).collect();
        if asked.len() as u64 > 1 + self.scenario.pool.retries {
            return Err(format!("{asked:?} were asked, {} retries are allowed", self.scenario.pool.retries));
        }
        if record.failed.len() > usize::from(record.attempts) {
            return Err("more attempts failed than there were".into());
        }
        let Some(last) = self.answered(entry).filter(|_| record.cause.is_none()) else { return Ok(()) };
        if backend_of(&record.backend) != Some(last.backend) {
            return Err(format!("backend {} has responded", last.backend));
        }
        // For want of a page the head of a request may not have been written on a fresh connection.
        let unused = self.scenario.page_limit > 0 && record.reused;
        if record.reused != self.was_used(entry, last) && !unused {
            return Err(format!("its connection had carried {} requests before", last.nth));
        }
        Ok(())
    }

    /// Whether the connection that a request was sent on was there before.
    fn was_used(&self, entry: &ExchangeEntry, sending: &Sending) -> bool {
        match sending.stream {
            0 => sending.nth > 0,
            _ => self.was_reused(entry, sending).unwrap_or(sending.nth > 0),
        }
    }

    /// On how many connections that go on an exchange was not sent: for want of room, or because the backend
    /// leaves them.
    fn left_unsent(&self, entry: &ExchangeEntry, record: &ObservedRecord) -> usize {
        let left =
            |s: &&Socket| s.streams.is_some() && s.times.closed.is_none() && !self.carries(s, entry.id);
        self.attached(entry, record).filter(left).count()
    }

    /// Whether a request was sent on a connection.
    fn carries(&self, s: &Socket, id: u64) -> bool {
        s.sendings.iter().any(|at| self.sendings[*at].id == id)
    }

    /// Whether an exchange has ended while it waited for a connection that goes on with others.
    fn has_left(&self, entry: &ExchangeEntry, record: &ObservedRecord) -> bool {
        let unfailed = record.failed.len() < usize::from(record.attempts);
        let last = entry.connections.last();
        let of_others = |s: &Socket| {
            s.shard == record.shard
                && Some(&s.conn) == last
                && s.times.closed.is_none()
                && self.is_of_others(s, entry.id)
        };
        record.cause.is_some() && unfailed && self.sockets.iter().rev().any(of_others)
    }

    /// Connections that an exchange has taken, that others had used, and that were closed in its time: it may
    /// have sent nothing on them, or not a whole head.
    pub(super) fn stale_connections<'a>(
        &'a self,
        entry: &'a ExchangeEntry,
        record: &'a ObservedRecord,
    ) -> impl Iterator<Item = &'a Socket> {
        let from = record.times.head.unwrap_or(record.times.started);
        let of_others = move |s: &&Socket| {
            s.shard == record.shard && entry.connections.contains(&s.conn) && self.is_of_others(s, entry.id)
        };
        self.sockets.iter().filter(of_others).filter(move |s| s.times.closed.is_some_and(|at| at >= from))
    }

    /// Whether others have used a connection, and the request with this id has not been sent on it since.
    fn is_of_others(&self, s: &Socket, id: u64) -> bool {
        match s.streams {
            Some(_) => !s.sendings.is_empty() && !self.carries(s, id),
            None => s.sendings.last().is_some_and(|at| self.sendings[*at].id != id),
        }
    }

    fn judge_bytes(&self, entry: &ExchangeEntry, record: &ObservedRecord) -> Result<(), String> {
        let sent = self.sendings_of(entry).map(|s| s.body).max().unwrap_or(0);
        let up = entry.attempts.iter().map(|a| a.up).max().unwrap_or(0);
        let most = if entry.upgrade { entry.tunnel.0 } else { entry.len };
        if record.bytes_in > most || record.bytes_in < sent.max(up) {
            return Err(format!("{most} bytes were to go up, {sent} were sent, {up} received"));
        }
        let switched = record.is_of_tunnel(entry);
        let complete = record.cause.is_none() && !record.is_by_middleware();
        let changes = entry.content_changes;
        if complete
            && !switched
            && self.sendings_of(entry).any(|s| s.complete.is_some())
            && record.bytes_in != entry.len
            && !(entry.websocket && record.bytes_in <= entry.early)
        {
            return Err(format!("{} bytes went up", entry.len));
        }
        let most = if switched { entry.tunnel.1 } else { response_body_len(entry) };
        if complete && !switched && !changes && record.bytes_out != most && entry.method != "HEAD" {
            return Err(format!("{most} bytes went down"));
        }
        if complete && record.status != entry.status && !switched {
            return Err(format!("its backend responds with {}", entry.status));
        }
        // With TLS the core hears of the last byte behind all others, and may not hear of it any more.
        let untold = u64::from(self.sockets[self.client_sockets[entry.client]].secure);
        if record.bytes_out + untold < entry.down {
            return Err(format!("the client has received {} bytes", entry.down));
        }
        Ok(())
    }
}
