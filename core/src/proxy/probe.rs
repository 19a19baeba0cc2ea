//! Health checks: each is a connection of its own that asks once and closes.

use std::collections::BTreeMap;

use super::Proxy;
use super::probe_streams::request_on_stream;
use crate::cause::Cause;
use crate::config::{CheckMethod, Http2Use, TlsTarget};
use crate::conn::{Conn, Probe, Role};
use crate::endpoint::Endpoint;
use crate::event::Effect;
use crate::h1::Side;
use crate::h1::conn::{Conn as H1, HeadRead, StreamEnd};
use crate::health::check::{Found, Search};
use crate::health::grpc::Answer;
use crate::health::{Change, ProbeOutcome, ProbeTarget, Reached};
use crate::http::RequestHead;
use crate::id::ConnId;
use crate::observe::{Check, HealthChange, HealthSource, HealthState, Level, Observer, Step};
use crate::planted::planted;
use crate::time::Instant;
use crate::wire::Wire;

/// A check of one backend: all of its addresses are asked at once.
#[derive(Debug)]
struct ProbeRound {
    pool: u32,
    addresses: Box<[Endpoint]>,
    /// Addresses that have not answered yet.
    left: u8,
    /// The best outcome so far.
    outcome: Option<ProbeOutcome>,
}

/// Rounds under way. Each has a number of its own: a backend that leaves the configuration and comes back may
/// be in two of them.
#[derive(Debug, Default)]
pub(super) struct ProbeRounds {
    rounds: BTreeMap<u32, ProbeRound>,
    last: u32,
    /// What has come of the answers of servers of gRPC.
    pub(super) answers: BTreeMap<ConnId, Answer>,
}

impl<O: Observer> Proxy<O> {
    /// Starts every check that is due.
    pub(super) fn probe_due(&mut self, now: Instant) {
        if self.drain.until.is_some() {
            return self.checks.adopt(&[], now);
        }
        while let Some(target) = self.checks.due(now) {
            let slot = self.pools.current[usize::from(target.pool)];
            let backend = &self.pools.get(slot).state.backends()[usize::from(target.backend)];
            let addresses = backend.addresses();
            if addresses.is_empty() {
                if self.lookups.is_open(slot, target.backend) {
                    // That says nothing about the backend: it waits for its address.
                    self.checks.postpone(target, now + super::lookup::LOOKUP_TIMEOUT);
                    continue;
                }
                let failed = ProbeOutcome::Failed { why: Cause::ConnectUnreachable };
                self.probe_ended(slot, target, &failed, now);
                continue;
            }
            // It is counted so that a reload does not take the pool away from under it.
            self.pools.get_mut(slot).users += 1;
            let (pool, left) = (slot, addresses.len() as u8);
            let round = ProbeRound { pool, addresses: addresses.clone().into(), left, outcome: None };
            let rounds = &mut self.probe_rounds;
            rounds.last = rounds.last.wrapping_add(1);
            rounds.rounds.insert(rounds.last, round);
            let round = rounds.last;
            for (address, to) in addresses.into_iter().enumerate() {
                let (address, status, search) = (address as u8, 0, Search::default());
                let probe =
                    Probe { round, target, pool, connected: false, address, started: now, status, search };
                self.probe(probe, to, now);
            }
        }
    }

    fn probe(&mut self, probe: Probe, mut to: Endpoint, now: Instant) {
        let pool = self.pools.get(probe.pool);
        let health = &pool.pool().health;
        let until = probe.started + health.timeout;
        // A Unix socket has none: the configuration refuses that.
        if let (Endpoint::Ip(address), Some(port)) = (&mut to, health.port) {
            address.set_port(port);
        }
        let backend = usize::from(probe.target.backend);
        let state = &pool.state.backends()[backend];
        // HTTP/1.1 is enough for a check, where it is spoken, but not for gRPC.
        let over_http2 = health.grpc.is_some() || state.http2() == Http2Use::Always;
        let tls = if over_http2 { state.tls() } else { state.tls().map(TlsTarget::for_http1) }.cloned();
        let request = &pool.probes[backend];
        let (wire, written) = if over_http2 {
            (request_on_stream(&pool.head_limits, request, tls.is_some(), now), Ok(()))
        } else {
            let mut h1 = H1::new(Side::Server);
            h1.set_lenient(pool.pool().lenient);
            let written = h1.send_probe(&mut self.tables.pages, request);
            (Wire::H1(h1), written)
        };
        let c = self.tables.conns.insert(Conn::new(Role::Probe(probe), wire));
        if written.is_err() {
            // For want of memory: that says nothing about the backend.
            self.close(c);
            return self.probe_of_address_over(&probe, None, now);
        }
        if self.observer.wants_steps() {
            let pool = self.pools.get(probe.pool).pool();
            let backend = &pool.backends[usize::from(probe.target.backend)].label;
            self.observer.step(c, &Step::Checking { backend, to: &to });
        }
        self.set_deadline(c, until);
        self.signals.effects.push_back(Effect::Connect { conn: c, to, tls });
    }

    /// Bytes came.
    pub(super) fn probe_input(&mut self, c: ConnId, now: Instant) {
        let Role::Probe(probe) = &self.tables.conns[c].role else { return };
        let mut outcome = None;
        if self.tables.conns[c].wire.streams().is_some() {
            outcome = self.read_probe_stream(c, now);
            // It may have to answer something.
            self.mark_ready(c);
        } else if probe.status == 0 {
            outcome = self.read_probe_head(c, now);
        }
        if let Role::Probe(probe) = &self.tables.conns[c].role
            && outcome.is_none()
            && probe.status != 0
        {
            outcome = self.read_probe_content(c, now);
        }
        match outcome {
            Some(outcome) => self.probe_over(c, &outcome, now),
            None => self.mark_readable(c),
        }
    }

    /// Reads the head of a check's response. Mostly it is enough; otherwise its content is read from now on.
    fn read_probe_head(&mut self, c: ConnId, now: Instant) -> Option<ProbeOutcome> {
        let conn = &mut self.tables.conns[c];
        let (Role::Probe(probe), Wire::H1(h1)) = (&mut conn.role, &mut conn.wire) else { return None };
        let pool = self.pools.get(probe.pool);
        let mut request = RequestHead::default();
        if pool.pool().health.method == CheckMethod::Head {
            request.method = http::Method::HEAD;
        }
        let scratch = &mut self.scratch;
        loop {
            let head = &mut scratch.response;
            let limits = &self.pools.head_limits;
            match h1.receive_response(&self.tables.pages, &mut scratch.parser, limits, &request, head) {
                Ok(HeadRead::Whole) if head.is_interim() => {}
                Ok(HeadRead::Whole) => break,
                Ok(HeadRead::Partial) => {
                    if !h1.buffer().has_room() && !h1.buffer_mut().grow(&mut self.tables.pages) {
                        return Some(ProbeOutcome::Failed { why: Cause::NoPages });
                    }
                    return None;
                }
                Err(violation) => return Some(ProbeOutcome::Failed { why: Cause::BadResponse(violation) }),
            }
        }
        let status = scratch.response.status().as_u16();
        if !pool.expected.has_status(status) {
            return Some(ProbeOutcome::UnexpectedStatus { status });
        }
        if !pool.expected.wants_content() {
            return Some(ProbeOutcome::Good { status, after: now.since(probe.started) });
        }
        probe.status = status;
        h1.message_ended().then_some(ProbeOutcome::TextMissing { status })
    }

    /// Searches what has come of the content of a check's response.
    fn read_probe_content(&mut self, c: ConnId, now: Instant) -> Option<ProbeOutcome> {
        let conn = &mut self.tables.conns[c];
        let (Role::Probe(probe), Wire::H1(h1)) = (&mut conn.role, &mut conn.wire) else { return None };
        let expected = &self.pools.get(probe.pool).expected;
        let status = probe.status;
        let pages = &mut self.tables.pages;
        let read = match h1.receive_body(pages, &self.pools.head_limits, &mut Vec::new()) {
            Ok(read) => read,
            Err(violation) => return Some(ProbeOutcome::Failed { why: Cause::BadResponse(violation) }),
        };
        let found = expected.search(&mut probe.search, h1.buffer().payload(pages));
        h1.buffer_mut().drop_payload();
        match found {
            Found::Yes => Some(ProbeOutcome::Good { status, after: now.since(probe.started) }),
            Found::No => Some(ProbeOutcome::TextMissing { status }),
            Found::NotYet => read.ended.then_some(ProbeOutcome::TextMissing { status }),
        }
    }

    /// The backend closed its direction.
    pub(super) fn probe_stream_ended(&mut self, c: ConnId, now: Instant) {
        let conn = &mut self.tables.conns[c];
        let Role::Probe(probe) = &conn.role else { return };
        let end = match &mut conn.wire {
            Wire::H1(h1) => h1.stream_ended(),
            _ => StreamEnd::Truncated,
        };
        match (probe.status, end) {
            (0, _) => self.probe_failed(c, Cause::BackendClosed, now),
            // All of the content is here, and the text is not in it.
            (status, StreamEnd::Message) => self.probe_over(c, &ProbeOutcome::TextMissing { status }, now),
            _ => self.probe_failed(c, Cause::ResponseTruncated, now),
        }
    }

    /// It has had all of its time.
    pub(super) fn probe_timed_out(&mut self, c: ConnId, now: Instant) {
        let Role::Probe(probe) = &self.tables.conns[c].role else { return };
        let reached = match (probe.connected, probe.status) {
            (false, _) => Reached::Nothing,
            (true, 0) => Reached::Connection,
            (true, status) => Reached::Head(status),
        };
        let limit = self.pools.get(probe.pool).pool().health.timeout;
        self.probe_over(c, &ProbeOutcome::TimedOut { limit, reached }, now);
    }

    /// No response came of it.
    pub(super) fn probe_failed(&mut self, c: ConnId, why: Cause, now: Instant) {
        self.probe_over(c, &ProbeOutcome::Failed { why }, now);
    }

    fn probe_over(&mut self, c: ConnId, outcome: &ProbeOutcome, now: Instant) {
        let Role::Probe(probe) = self.tables.conns[c].role else { return };
        if self.observer.wants_steps() {
            self.observer.step(c, &Step::Checked { seen: &outcome.to_string() });
        }
        self.probe_rounds.answers.remove(&c);
        self.close(c);
        // A shortage of our own says nothing about the backend, nor does the end of a drain.
        let own = matches!(outcome, ProbeOutcome::Failed { why: Cause::ConnectFailed | Cause::NoPages });
        let learned = (!own || planted!(56)) && self.drain.until.is_none();
        self.probe_of_address_over(&probe, learned.then_some(outcome), now);
    }

    /// One address of a backend has been checked; `None` if nothing was learned of it. The backend is as well
    /// as the best of its addresses.
    fn probe_of_address_over(&mut self, probe: &Probe, outcome: Option<&ProbeOutcome>, now: Instant) {
        let target = probe.target;
        let Some(round) = self.probe_rounds.rounds.get_mut(&probe.round) else { return };
        let address = round.addresses[usize::from(probe.address)].clone();
        round.left -= 1;
        if let Some(outcome) = outcome {
            round.outcome = Some(round.outcome.map_or(*outcome, |best| best.better(*outcome)));
        }
        let ended = round.left == 0;
        if let Some(outcome) = outcome {
            self.note_address(probe, &address, outcome);
        }
        if !ended {
            return;
        }
        let Some(round) = self.probe_rounds.rounds.remove(&probe.round) else { return };
        match round.outcome {
            Some(outcome) => self.probe_ended(round.pool, target, &outcome, now),
            None => self.checks.postpone(target, now + super::lookup::LOOKUP_TIMEOUT),
        }
        self.pools.leave(round.pool);
    }

    /// An address of a name fails while others may be well, or is well again.
    fn note_address(&mut self, probe: &Probe, address: &Endpoint, outcome: &ProbeOutcome) {
        let pool = self.pools.get(probe.pool);
        let place = usize::from(probe.target.backend);
        if !pool.state.backends()[place].checked(address.ip(), outcome.is_good()) {
            return;
        }
        let (name, label) = (&pool.pool().name, &pool.pool().backends[place].label);
        let (level, what) = if outcome.is_good() {
            (Level::Info, format!("pool {name}: address {address} of backend {label} is healthy: {outcome}"))
        } else {
            (
                Level::Warning,
                format!("pool {name}: address {address} of backend {label} is unhealthy: {outcome}"),
            )
        };
        self.observer.note(level, &what);
    }

    fn probe_ended(&mut self, slot: u32, target: ProbeTarget, outcome: &ProbeOutcome, now: Instant) {
        let pool = self.pools.get(slot);
        let configured = pool.pool();
        self.observer.check(&Check {
            pool: &configured.name,
            backend: &configured.backends[usize::from(target.backend)].label,
            identity: target.identity,
            took: match outcome {
                ProbeOutcome::Good { after, .. } => Some(*after),
                _ => None,
            },
            reason: outcome.reason(),
            seen: outcome,
        });
        // The end of a drain says nothing about a backend.
        let change =
            if self.drain.until.is_none() { pool.state.probed(target.backend, outcome, now) } else { None };
        let timeout = pool.pool().health.timeout;
        match (outcome.is_good(), pool.state.backends()[usize::from(target.backend)].health().usable()) {
            (false, true) => self.checks.done_undecided(target, timeout),
            (_, true) => self.checks.done(target),
            (_, false) => self.checks.done_unhealthy(target),
        }
        self.report_if_ready();
        if let Some(change) = change {
            let seen = outcome.to_string();
            self.report_health(slot, target.backend, change, (HealthSource::Check, outcome.reason(), &seen));
        }
    }

    /// Whichever shard is asked has to know whether all are ready.
    pub(super) fn report_if_ready(&self) {
        if self.checks.first_round_done() {
            self.identity.shared.set_ready(self.identity.shard);
        }
    }

    /// Requests found out that a backend's health has changed, for the reason `why`.
    pub(super) fn health_changed(&mut self, slot: u32, backend: u16, change: Change, why: &str) {
        let reason = if change.to == HealthState::Unhealthy { why } else { "connected" };
        self.report_health(slot, backend, change, (HealthSource::Traffic, reason, why));
    }

    /// Requests have found backends to be away: those that this shard checks are checked at once.
    pub(super) fn recheck_by_traffic(&mut self, now: Instant) {
        let seen = self.identity.shared.marked_down();
        if std::mem::replace(&mut self.marked_down, seen) == seen {
            return;
        }
        let shards = self.identity.shared.shards();
        for slot in &self.pools.current {
            for backend in self.pools.get(*slot).state.backends() {
                if backend.owner(shards) == self.identity.shard && backend.health().is_unhealthy_by_traffic()
                {
                    self.checks.recheck(backend.identity(), now);
                }
            }
        }
    }

    /// A backend's health changed here: it is noted, and the other shards look again.
    fn report_health(
        &mut self,
        slot: u32,
        backend: u16,
        change: Change,
        (source, reason, seen): (HealthSource, &str, &str),
    ) {
        let pool = self.pools.get(slot);
        let (left, pool) = (pool.state.usable(), pool.pool());
        let configured = &pool.backends[usize::from(backend)];
        let Change { from, to } = change;
        self.observer.health(&HealthChange {
            pool: &pool.name,
            backend: &configured.label,
            scheme: configured.protocol.scheme(),
            from,
            to,
            source,
            reason,
            seen,
            left,
        });
        self.nudge_shards();
    }

    /// Something that all shards share has changed.
    pub(super) fn nudge_shards(&mut self) {
        self.serve_soon();
        let own = self.identity.shard;
        let others = (0..self.identity.shared.shards())
            .filter(|shard| *shard < own || (*shard > own && !planted!(60)));
        self.signals.effects.extend(others.map(Effect::Nudge));
    }
}
