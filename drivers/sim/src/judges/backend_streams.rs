//! Streams of connections to backends: what is sent again, when a connection is dead, and what has to happen
//! on a stream in its time.

use ruststrom_core::ConnId;

use super::LATE;
use crate::coverage::Mark;
use crate::exchanges::{ExchangeEntry, ObservedRecord};
use crate::net::{Net, Sending, Socket};
use crate::scenario::{MS, SEC};

/// A backend that has been silent for so long while requests wait for it gets a PING (README).
const SILENCE: u64 = 30 * SEC;
/// The time for its answer, and for the acknowledgement of SETTINGS.
const ANSWER: u64 = 10 * SEC;
/// The time that what is said last has to go out.
const LAST_WORDS: u64 = 2 * SEC;

impl Net {
    /// A request has just been written to a backend, perhaps not for the first time: one that is not
    /// idempotent must not have been looked at by another one before.
    pub(crate) fn judge_sent_again(&mut self, at: usize) {
        let id = self.sendings[at].id;
        let entry = self.ledger.get(id);
        if entry.is_idempotent() || entry.sendings.len() < 2 {
            return;
        }
        let looked_at = |s: &&Sending| self.unprocessed_since(s.socket, s.stream).is_none();
        let all: Vec<(usize, u32)> =
            self.sendings_of(entry).filter(looked_at).map(|s| (s.socket, s.stream)).collect();
        if all.len() > 1 {
            let details = format!("{} {id} was sent on {all:?}", entry.method);
            self.ledger.fail("sent-once", details);
        }
    }

    /// A backend that leaves a connection with a request that it has not looked at is no reason for an error:
    /// the request goes on elsewhere, as long as all of it is there.
    pub(super) fn judge_left_behind(
        &self,
        entry: &ExchangeEntry,
        record: &ObservedRecord,
    ) -> Result<(), String> {
        /// Connections that may be left with one request.
        const MOST: usize = 16;
        let Some(last) = self.sendings_of(entry).last() else { return Ok(()) };
        let Some(log) = self.sockets[last.socket].streams.as_ref() else { return Ok(()) };
        let told = log.goaways.iter().find(|(_, number)| last.stream > *number);
        let known = told.is_some_and(|(end, _)| self.sockets[last.socket].to_proxy.read_total >= *end);
        let of_connection = ["backend_reset", "backend_closed"].map(Some).contains(&record.cause_kind);
        let conn = self.sockets[last.socket].conn;
        let elsewhere = entry.connections.last().is_some_and(|last| *last != conn);
        if known && of_connection && entry.len == 0 && !elsewhere && entry.sendings.len() < MOST {
            return Err(format!("the backend has left {} with stream {}", last.socket, last.stream));
        }
        Ok(())
    }

    /// An exchange has ended: if its backend was waited for in vain, and nothing at all has come on the
    /// connection meanwhile, that gets no further requests.
    pub(crate) fn note_silence(&mut self, id: u64) {
        let entry = self.ledger.get(id);
        let Some(record) = &entry.record else { return };
        let in_vain = ["backend_timeout", "backend_stalled"].map(Some).contains(&record.cause);
        let Some(last) = self.sendings_of(entry).last().filter(|_| in_vain && record.attempts == 1) else {
            return;
        };
        let (socket, began) = (last.socket, last.began);
        let silent = self.sockets[socket].reads.last().is_none_or(|read| read.1 < began);
        let now = self.now;
        if let Some(log) = self.sockets[socket].streams.as_mut().filter(|_| silent) {
            log.distrusted.get_or_insert(now);
            self.mark(Mark::Http2Distrusted);
        }
    }

    /// An exchange is to go on a connection.
    pub(crate) fn judge_trust(&mut self, id: u64, shard: usize, to: ConnId) {
        let Some(socket) = self.socket_of(shard, to) else { return };
        let log = self.sockets[socket].streams.as_ref();
        let Some(since) = log.and_then(|log| log.distrusted).filter(|since| *since < self.now) else {
            return;
        };
        let details = format!("request {id} is to go on {socket}, which has been silent up to {since}");
        self.ledger.fail("silence-is-left", details);
    }

    /// Whether the stream of an exchange, or all of its connection, was lost: if its response was whole, its
    /// backend is free before the exchange ends.
    pub(crate) fn has_lost_stream(&self, entry: &ExchangeEntry) -> bool {
        let lost = |s: &Sending| {
            let times = &self.sockets[s.socket].times;
            let broken = times.fin.or(times.reset).or(times.violated).or(times.closed).is_some();
            s.stream > 0 && (broken || self.reset_read(s.socket, s.stream).is_some())
        };
        self.sendings_of(entry).any(lost)
    }

    /// Connections that an exchange was to go on.
    pub(super) fn attached<'a>(
        &'a self,
        entry: &'a ExchangeEntry,
        record: &ObservedRecord,
    ) -> impl Iterator<Item = &'a Socket> {
        let shard = record.shard;
        self.sockets.iter().filter(move |s| s.shard == shard && entry.connections.contains(&s.conn))
    }

    /// Whether a request has been sent on a connection that was there when it was taken; `None`: nobody told.
    pub(super) fn was_reused(&self, entry: &ExchangeEntry, sending: &Sending) -> Option<bool> {
        entry.reused.get(self.taken_at(entry, sending)?).copied()
    }

    /// When an exchange has taken the connection of a sending, by its place among those that it took; `None`:
    /// nobody told.
    pub(super) fn taken_at(&self, entry: &ExchangeEntry, sending: &Sending) -> Option<usize> {
        let conn = self.sockets[sending.socket].conn;
        entry.connections.iter().rposition(|known| *known == conn)
    }

    /// What of an exchange was sent last and has been answered, if it is over. The head of a request that was
    /// given up on one stream may be written only when the next one has gone.
    pub(super) fn answered<'a>(&'a self, entry: &'a ExchangeEntry) -> Option<&'a Sending> {
        let goes_on = |s: &&Sending| {
            let broken = s.stream > 0 && self.sockets[s.socket].times.violated.is_some();
            s.given_up.is_none() && !broken && self.unprocessed_since(s.socket, s.stream).is_none()
        };
        // A whole response may be followed by what breaks its stream or its connection.
        let on_last = |s: &&Sending| entry.connections.last() == Some(&self.sockets[s.socket].conn);
        let last = entry.sendings.last().map(|at| &self.sendings[*at]);
        let taken_last = self.sendings_of(entry).filter(on_last).last();
        taken_last.or_else(|| self.sendings_of(entry).filter(goes_on).last()).or(last)
    }

    /// A stream whose backend gives it no credit holds up no other: a request that the proxy has read whole,
    /// for which there has been credit and room for a while, has gone. `on`: its connection and stream.
    pub(crate) fn judge_independence(&mut self, id: u64, on: (usize, u32), credit_since: u64) {
        const WHILE: u64 = 200 * MS;
        let entry = self.ledger.get(id);
        let client = self.client_sockets[entry.client];
        let read = entry.request_end.checked_sub(1).and_then(|last| self.read_at(client, last));
        let Some(read) = read.filter(|_| self.scenario.page_limit == 0) else { return };
        let its = self.sendings_of(entry).find(|s| (s.socket, s.stream) == on);
        let waits = its.is_some_and(|s| s.complete.is_none() && s.given_up.is_none());
        let goes_on = self.is_in_flight(id) && self.reset_read(on.0, on.1).is_none();
        if waits && goes_on && self.now > read.max(credit_since) + WHILE && self.is_quiet(on.0) {
            let details = format!("request {id} on {on:?} is whole since {read}, and has credit");
            self.ledger.fail("streams-independent", details);
        }
    }

    /// Sendings whose streams a backend has refused or left behind, as the proxy knows.
    pub(super) fn unprocessed<'a>(&'a self, entry: &'a ExchangeEntry) -> impl Iterator<Item = &'a Sending> {
        self.sendings_of(entry).filter(|s| self.unprocessed_since(s.socket, s.stream).is_some())
    }

    /// Whether the proxy has reason to take the backend at the other end of a connection for lost.
    pub(super) fn is_lost(&self, s: &Socket) -> bool {
        let Some(log) = s.streams.as_ref() else { return false };
        let at = s.times.closed.unwrap_or(self.now);
        let Some(established) = s.times.established(s.secure) else { return false };
        let read = |end: u64| s.to_proxy.read_total >= end;
        let settled = log.settled.is_some_and(read);
        let heard = s.reads.last().map_or(established, |read| read.1);
        at >= heard + SILENCE + ANSWER || !settled && at >= established + ANSWER
    }

    /// Whether a connection that carries streams should have been given up, or something on one of them; and
    /// since when.
    pub(super) fn late_streams(&self, s: &Socket) -> Option<(&'static str, u64)> {
        let established = s.times.established(s.secure)?;
        let log = s.streams.as_ref()?;
        let is_open = |sending: &&Sending| {
            let entry = self.ledger.get(sending.id);
            let last = entry.sendings.last().map(|at| &self.sendings[*at]);
            entry.record.is_none()
                && last.is_some_and(|last| std::ptr::eq(last, *sending))
                && sending.given_up.is_none()
                && self.reset_read(sending.socket, sending.stream).is_none()
                && self.unprocessed_since(sending.socket, sending.stream).is_none()
                && self.is_in_flight(sending.id)
        };
        let settled = log.settled.is_some_and(|end| s.to_proxy.read_total >= end);
        let sendings = || s.sendings.iter().map(|at| &self.sendings[*at]);
        let open: Vec<&Sending> = sendings().filter(is_open).collect();
        // One that carries nothing any more may be about to be closed.
        let last_words = if open.is_empty() { LAST_WORDS } else { 0 };
        if !settled && self.now > established + ANSWER + last_words + LATE {
            return Some(("settings-time-out", established));
        }
        if open.is_empty() {
            return self.late_idle_streams(s, established);
        }
        // It may have carried nothing before the first of them.
        let heard = s.reads.last().map_or(established, |read| read.1);
        let oldest = open.iter().map(|sending| sending.began).min().unwrap_or(0);
        let since = heard.max(oldest);
        if self.now > since + SILENCE + ANSWER + LATE {
            return Some(("silence-times-out", since));
        }
        open.iter().find_map(|sending| self.late_stream(s, sending))
    }

    /// A connection without streams is closed when it has been idle for its time.
    fn late_idle_streams(&self, s: &Socket, established: u64) -> Option<(&'static str, u64)> {
        let entries = s.sendings.iter().map(|at| self.ledger.get(self.sendings[*at].id));
        // Some may be waiting for their turn to be sent.
        let all_over = entries.clone().all(|entry| entry.record.is_some());
        let since = entries.map(|entry| entry.recorded_at).max().unwrap_or(established).max(established);
        let unsent = self.choices.exchanges.keys().any(|id| {
            let entry = self.ledger.get(*id);
            entry.connections.last() == Some(&s.conn)
        });
        let (idle, keeps) = (self.scenario.pool.idle, self.scenario.pool.max_idle > 0);
        // What the backend is to be told of the last stream goes first.
        let is_late = |since: u64| {
            (idle > 0 || !keeps) && self.now > since + if keeps { idle } else { 0 } + LAST_WORDS + LATE
        };
        if !is_late(since) || !all_over || unsent || self.scenario.page_limit > 0 {
            return None;
        }
        // Others may have waited for it, or for room on it, in vain.
        let joined = |entry: &&ExchangeEntry| {
            let its = entry.record.as_ref().is_some_and(|record| record.shard == s.shard);
            its && entry.connections.contains(&s.conn)
        };
        let joined = self.ledger.entries.iter().filter(joined).map(|entry| entry.recorded_at).max();
        let since = since.max(joined.unwrap_or(0));
        is_late(since).then_some(("backend-idle-fires", since))
    }

    /// A request on a stream that should have had a response, or more of it.
    fn late_stream(&self, s: &Socket, sending: &Sending) -> Option<(&'static str, u64)> {
        let timeouts = &self.scenario.timeouts;
        let entry = self.ledger.get(sending.id);
        let client = &self.sockets[self.client_sockets[entry.client]];
        let over = |since: u64, timeout: u64| timeout > 0 && self.now > since + timeout + LATE;
        let attempt =
            entry.attempts.iter().find(|a| (a.socket, a.stream) == (sending.socket, sending.stream));
        let plan = attempt.and_then(|a| a.response);
        let read = s.to_proxy.read_total;
        let moved = self.stream_moved(sending);
        let since = sending.complete.map(|complete| complete.max(moved));
        let began = plan.is_some_and(|plan| read >= plan.head_end);
        if began && entry.tunnelled == Some((sending.socket, sending.stream)) {
            let last = |log: &[(u64, u64)]| log.last().map_or(0, |l| l.1);
            let since = moved.max(last(&client.reads)).max(last(&client.writes));
            return over(since, timeouts.tunnel).then_some(("tunnel-fires", since));
        }
        if !began {
            // Nothing but the head of the request has come, which its client does not go on with before it is
            // told to.
            let awaits = entry.expect
                && sending.body == 0
                && moved == sending.moved
                && client.to_proxy.read_total <= entry.head_end;
            let since = since.or((awaits || entry.websocket).then_some(moved))?;
            return over(since, timeouts.backend_head).then_some(("backend-head-fires", since));
        }
        let unended = plan.is_some_and(|plan| read < plan.end);
        let taken = entry.version != crate::http2::HTTP_2
            && !self.has_no_room(client)
            && s.to_proxy.arrived == 0
            && self.scenario.page_limit == 0;
        // Some of what comes next may be there.
        let partly = self
            .said_on(sending.socket, sending.stream)
            .is_some_and(|said| said.frames.last().is_some_and(|end| *end > read));
        let last_read = s.reads.last().map_or(0, |read| read.1);
        // A slow client may have had room for more only now.
        let last_write = client.writes.last().map_or(0, |write| write.1);
        let since = since?.max(if partly { last_read } else { 0 }).max(last_write);
        (taken && unended && over(since, 2 * timeouts.stall)).then_some(("backend-stall-fires", since))
    }
}
