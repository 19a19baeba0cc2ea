//! Health checks: each is a connection of its own that asks once and closes.

use std::net::SocketAddr;

use super::{Effect, Proxy};
use crate::cause::Cause;
use crate::conn::{Conn, Probe, Role};
use crate::h1::{FieldIndex, ResponseContext, find_response_end, parse_response};
use crate::health::{self, Change, Target};
use crate::http::Violation;
use crate::id::ConnId;
use crate::observe::{HealthChange, Observer};
use crate::time::Instant;

impl<O: Observer> Proxy<O> {
    /// Starts every probe that is due.
    pub(super) fn probe_due(&mut self, now: Instant) {
        if self.drain.is_some() {
            return self.schedule.adopt(&[], now);
        }
        while let Some(target) = self.schedule.due(now) {
            let runtime = self.routing.runtimes[target.pool as usize];
            let rt = self.rt(runtime);
            let Some((place, to)) = rt.state.backends()[target.backend as usize].pick(0) else {
                if self.lookups.is_open(runtime, target.backend) {
                    // Not a word about the backend: it waits for its address.
                    self.schedule.put_off(target, now + super::lookup::PATIENCE);
                    continue;
                }
                self.probe_ended(
                    runtime,
                    target,
                    &health::Probe::Failed { why: Cause::ConnectUnreachable },
                    now,
                );
                continue;
            };
            // It is counted so that a reload does not take the pool away from under it.
            let rt = self.rt_mut(runtime);
            rt.exchanges += 1;
            self.probe(Probe { target, runtime, connected: false, place, started: now, sent: 0 }, to);
        }
    }

    fn probe(&mut self, probe: Probe, to: SocketAddr) {
        let until = probe.started + self.rt(probe.runtime).pool().health.timeout;
        let c = self.conns.insert(Conn::new(Role::Probe(probe)));
        self.set_deadline(c, until);
        self.effects.push_back(Effect::Connect { conn: c, to });
    }

    pub(super) fn probe_bytes(&self, p: &Probe) -> &[u8] {
        &self.rt(p.runtime).probes[p.target.backend as usize]
    }

    /// Bytes came: the head is enough.
    pub(super) fn probe_input(&mut self, c: ConnId, now: Instant) {
        let limits = super::request::head_limits(&self.routing.config.limits);
        let conn = &mut self.conns[c];
        let Role::Probe(Probe { target, runtime, started, .. }) = conn.role else { return };
        let outcome = loop {
            let page = conn.inbox.page.as_ref().expect("bytes lie in a page");
            let raw = &self.pages.bytes(page)[conn.inbox.raw as usize..conn.inbox.end as usize];
            match find_response_end(raw, conn.inbox.scanned as usize) {
                Ok(Some(len)) => {
                    match parse_response(
                        &raw[..len],
                        &mut FieldIndex::new(),
                        &limits,
                        ResponseContext::default(),
                    ) {
                        Ok(head) if head.is_interim() => conn.inbox.consume_raw(len),
                        Ok(head) => {
                            break health::Probe::Responded {
                                status: head.status.as_u16(),
                                after: now.since(started),
                            };
                        }
                        Err(violation) => break health::Probe::Failed { why: Cause::BadResponse(violation) },
                    }
                }
                Ok(None) if raw.len() < limits.head_bytes => {
                    conn.inbox.scanned = raw.len() as u32;
                    return self.list_recv(c);
                }
                Ok(None) => break health::Probe::Failed { why: Cause::BadResponse(Violation::HeadTooLarge) },
                Err(violation) => break health::Probe::Failed { why: Cause::BadResponse(violation) },
            }
        };
        self.close(c);
        self.probe_over(runtime, target, &outcome, now);
    }

    /// No answer came of it.
    pub(super) fn probe_failed(&mut self, c: ConnId, why: Cause, now: Instant) {
        let Role::Probe(Probe { target, runtime, place, started, .. }) = self.conns[c].role else { return };
        self.close(c);
        let backend = &self.rt(runtime).state.backends()[target.backend as usize];
        if matches!(why, Cause::ConnectRefused | Cause::ConnectUnreachable)
            && self.drain.is_none()
            && backend.refused(place)
            && let Some((place, to)) = backend.pick(0)
        {
            // Another address of its name may be better, in what is left of the time.
            return self.probe(Probe { target, runtime, connected: false, place, started, sent: 0 }, to);
        }
        self.probe_over(runtime, target, &health::Probe::Failed { why }, now);
    }

    fn probe_over(&mut self, runtime: u32, target: Target, outcome: &health::Probe, now: Instant) {
        self.probe_ended(runtime, target, outcome, now);
        self.rt_mut(runtime).exchanges -= 1;
        self.retire(runtime);
    }

    fn probe_ended(&mut self, runtime: u32, target: Target, outcome: &health::Probe, now: Instant) {
        // The end of a drain says nothing about a backend.
        let change = if self.drain.is_none() {
            self.rt(runtime).state.probed(target.backend, outcome, now)
        } else {
            None
        };
        let rt = self.rt(runtime);
        let timeout = rt.pool().health.timeout;
        if !outcome.is_good() && rt.state.backends()[target.backend as usize].health().usable() {
            self.schedule.done_in_doubt(target, timeout);
        } else {
            self.schedule.done(target);
        }
        self.tell_if_ready();
        if let Some(change) = change {
            self.health_changed(runtime, target.backend, change, &outcome.to_string());
        }
    }

    /// Whichever shard is asked has to know whether all are ready.
    pub(super) fn tell_if_ready(&self) {
        if self.schedule.first_round_done() {
            self.shared.set_ready(self.shard);
        }
    }

    /// A backend's health changed here: it is told, and the other shards look again.
    pub(super) fn health_changed(&mut self, runtime: u32, backend: u16, change: Change, why: &str) {
        let pool = self.runtimes[runtime as usize].as_ref().expect("a runtime in use").pool();
        let label = &*pool.backends[backend as usize].label;
        self.observer.health(&HealthChange {
            pool: &pool.name,
            backend: label,
            from: change.from,
            to: change.to,
            why,
        });
        self.tell_shards();
    }

    /// Something that all shards share has changed.
    pub(super) fn tell_shards(&mut self) {
        self.serve_soon();
        let others = (0..self.shared.shards()).filter(|s| *s != self.shard);
        self.effects.extend(others.map(Effect::Nudge));
    }
}
