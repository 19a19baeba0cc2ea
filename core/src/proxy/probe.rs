//! Health checks: each is a connection of its own that asks once and closes.

use std::net::SocketAddr;

use super::Proxy;
use crate::cause::Cause;
use crate::conn::{Conn, Probe, Role};
use crate::event::Effect;
use crate::h1::Side;
use crate::h1::conn::{Conn as H1, HeadRead};
use crate::health::{Change, ProbeOutcome, ProbeTarget};
use crate::http::RequestHead;
use crate::id::ConnId;
use crate::observe::{HealthChange, Observer};
use crate::time::Instant;
use crate::wire::Wire;

impl<O: Observer> Proxy<O> {
    /// Starts every check that is due.
    pub(super) fn probe_due(&mut self, now: Instant) {
        if self.drain.until.is_some() {
            return self.checks.adopt(&[], now);
        }
        while let Some(target) = self.checks.due(now) {
            let slot = self.pools.current[usize::from(target.pool)];
            let backend = &self.pools.get(slot).state.backends()[usize::from(target.backend)];
            let Some((address, to)) = backend.pick(0) else {
                if self.lookups.is_open(slot, target.backend) {
                    // That says nothing about the backend: it waits for its address.
                    self.checks.postpone(target, now + super::lookup::LOOKUP_TIMEOUT);
                    continue;
                }
                let failed = ProbeOutcome::Failed { why: Cause::ConnectUnreachable };
                self.probe_ended(slot, target, &failed, now);
                continue;
            };
            // It is counted so that a reload does not take the pool away from under it.
            self.pools.get_mut(slot).users += 1;
            self.probe(Probe { target, pool: slot, connected: false, address, started: now }, to, now);
        }
    }

    fn probe(&mut self, probe: Probe, to: SocketAddr, now: Instant) {
        let pool = self.pools.get(probe.pool);
        let until = probe.started + pool.pool().health.timeout;
        let mut h1 = H1::new(Side::Server);
        let request = &pool.probes[usize::from(probe.target.backend)];
        let written = h1.send_probe(&mut self.tables.pages, request);
        let c = self.tables.conns.insert(Conn::new(Role::Probe(probe), Wire::H1(h1)));
        if written.is_err() {
            // For want of memory: that says nothing about the backend.
            self.close(c);
            self.checks.postpone(probe.target, now + super::lookup::LOOKUP_TIMEOUT);
            return self.pools.leave(probe.pool);
        }
        self.set_deadline(c, until);
        self.signals.effects.push_back(Effect::Connect { conn: c, to });
    }

    /// Bytes came: the head is enough.
    pub(super) fn probe_input(&mut self, c: ConnId, now: Instant) {
        let conn = &mut self.tables.conns[c];
        let (Role::Probe(probe), Wire::H1(h1)) = (&conn.role, &mut conn.wire) else { return };
        let probe = *probe;
        let limits = &self.pools.head_limits;
        let request = RequestHead::default();
        let (pages, scratch) = (&mut self.tables.pages, &mut self.scratch);
        let outcome = loop {
            let head = &mut scratch.response;
            match h1.receive_response(pages, &mut scratch.parser, limits, &request, head) {
                Ok(HeadRead::Whole) if head.is_interim() => {}
                Ok(HeadRead::Whole) => {
                    let status = head.status().as_u16();
                    break ProbeOutcome::Responded { status, after: now.since(probe.started) };
                }
                Ok(HeadRead::Partial) => return self.mark_readable(c),
                Err(violation) => break ProbeOutcome::Failed { why: Cause::BadResponse(violation) },
            }
        };
        self.close(c);
        self.probe_over(probe.pool, probe.target, &outcome, now);
    }

    /// No response came of it.
    pub(super) fn probe_failed(&mut self, c: ConnId, why: Cause, now: Instant) {
        let Role::Probe(probe) = self.tables.conns[c].role else { return };
        self.close(c);
        let backend = &self.pools.get(probe.pool).state.backends()[usize::from(probe.target.backend)];
        if matches!(why, Cause::ConnectRefused | Cause::ConnectUnreachable)
            && self.drain.until.is_none()
            && backend.refused(probe.address)
            && let Some((address, to)) = backend.pick(0)
        {
            // Another address of its name may be better, in what is left of the time.
            return self.probe(Probe { connected: false, address, ..probe }, to, now);
        }
        self.probe_over(probe.pool, probe.target, &ProbeOutcome::Failed { why }, now);
    }

    fn probe_over(&mut self, pool: u32, target: ProbeTarget, outcome: &ProbeOutcome, now: Instant) {
        self.probe_ended(pool, target, outcome, now);
        self.pools.leave(pool);
    }

    fn probe_ended(&mut self, slot: u32, target: ProbeTarget, outcome: &ProbeOutcome, now: Instant) {
        let pool = self.pools.get(slot);
        // The end of a drain says nothing about a backend.
        let change =
            if self.drain.until.is_none() { pool.state.probed(target.backend, outcome, now) } else { None };
        let timeout = pool.pool().health.timeout;
        if !outcome.is_good() && pool.state.backends()[usize::from(target.backend)].health().usable() {
            self.checks.done_undecided(target, timeout);
        } else {
            self.checks.done(target);
        }
        self.report_if_ready();
        if let Some(change) = change {
            self.health_changed(slot, target.backend, change, &outcome.to_string());
        }
    }

    /// Whichever shard is asked has to know whether all are ready.
    pub(super) fn report_if_ready(&self) {
        if self.checks.first_round_done() {
            self.identity.shared.set_ready(self.identity.shard);
        }
    }

    /// A backend's health changed here: it is noted, and the other shards look again.
    pub(super) fn health_changed(&mut self, slot: u32, backend: u16, change: Change, why: &str) {
        let pool = self.pools.get(slot).pool();
        let label = &*pool.backends[usize::from(backend)].label;
        let change = HealthChange { pool: &pool.name, backend: label, from: change.from, to: change.to, why };
        self.observer.health(&change);
        self.nudge_shards();
    }

    /// Something that all shards share has changed.
    pub(super) fn nudge_shards(&mut self) {
        self.serve_soon();
        let own = self.identity.shard;
        let others = (0..self.identity.shared.shards()).filter(|shard| *shard != own);
        self.signals.effects.extend(others.map(Effect::Nudge));
    }
}
