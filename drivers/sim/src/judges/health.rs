//! Changes of a backend's health: each needs its reason in the simulated world, follows from the state
//! before, is told to all shards, and comes when the documentation says so.

use ruststrom_core::observe::HealthState;

use super::record::backend_of;
use crate::net::{HealthEntry, Net, Peer, Socket};
use crate::scenario::MS;

/// How many failed connects of client requests make a backend unhealthy.
const CONNECT_FAILURES: u64 = 3;

/// How a health probe has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeEnd {
    /// 200 to 399, after this time.
    Good(u64),
    Bad,
    /// It was given up for another reason, or how it ended is not known.
    Unknown,
}

impl Net {
    /// A shard has told of this change, in its turn that has just ended.
    pub(crate) fn judge_health_change(&mut self, change: &HealthEntry) {
        if let Err(why) = self.check_health_change(change) {
            self.ledger.fail("health-has-reason", format!("{why}: {change:?}"));
        }
    }

    fn check_health_change(&self, change: &HealthEntry) -> Result<(), String> {
        let before = self.health_before(&change.pool, &change.label);
        let (from, since) = before.map_or((HealthState::Unknown, 0), |c| (c.to, c.at));
        let replaced = self.was_replaced(&change.pool, &change.label);
        if change.from != from && !replaced {
            return Err(format!("it was {from:?}"));
        }
        // One that was removed and came back may have been remembered, or not.
        let (from, since) = match change.from {
            known if !replaced || known != HealthState::Unknown => (known, if replaced { 0 } else { since }),
            unknown => (unknown, self.added_at(&change.pool, &change.label)),
        };
        let Some(backend) = backend_of(&change.label) else { return Ok(()) };
        let checks = self.scenario.check_every_ms > 0;
        let settings = &self.scenario.pool;
        if change.to == HealthState::Unhealthy {
            let need = match (change.by_check, from) {
                (true, HealthState::Unknown) => 1,
                (true, _) => settings.fall,
                (false, _) => CONNECT_FAILURES,
            };
            if change.by_check && !checks {
                return Err("there are no checks".into());
            }
            // A check that found it slow, or well again, counts no request's connects anew.
            let told = |c: &&HealthEntry| c.pool == change.pool && c.label == change.label;
            let away = |c: &&HealthEntry| [c.from, c.to].contains(&HealthState::Unhealthy);
            let since = match self.health_log.iter().rev().filter(told).find(away) {
                Some(last) if !change.by_check && !replaced => last.at,
                None if !change.by_check => 0,
                _ => since,
            };
            let failed = self.failures_since(backend, change.label.starts_with('m'), since);
            // A name without an address fails without a connect.
            let faults = &self.scenario.system;
            let unresolved = faults.failed_lookup + faults.lost_lookup + faults.slow_lookup > 0;
            let named = change.label.starts_with('m') && unresolved;
            return if failed >= need || named {
                Ok(())
            } else {
                Err(format!("{failed} failures since {since}, not {need}"))
            };
        }
        if !change.by_check {
            // A turn may hear of a connection after a failure that came later.
            let since = since.saturating_sub(MS);
            let took = |s: &&Socket| s.times.established(s.secure).is_some_and(|at| at >= since);
            return match self.connections_to(backend).find(took) {
                Some(_) => Ok(()),
                None => Err(format!("no connection since {since}")),
            };
        }
        let class = |end| match end {
            ProbeEnd::Good(after) if self.is_slow(after) => Some(HealthState::Slow),
            ProbeEnd::Good(_) => Some(HealthState::Healthy),
            ProbeEnd::Bad | ProbeEnd::Unknown => None,
        };
        let now = |s: &&Socket| s.times.closed == Some(self.now);
        let same = |s: &Socket| class(self.probe_end(s)) == Some(change.to);
        // Of a name's addresses the best one decides, and it need not be the last one.
        let several = change.label.starts_with('m');
        if !several && !self.connections_to(backend).filter(now).any(same) {
            return Err("no probe has just said so".into());
        }
        let good = |s: &&Socket| {
            s.times.closed.is_some_and(|at| at >= since) && matches!(self.probe_end(s), ProbeEnd::Good(_))
        };
        let good = self.connections_to(backend).filter(good).count() as u64;
        if from == HealthState::Unhealthy && good < settings.rise && !several {
            return Err(format!("{good} good probes, not {}", settings.rise));
        }
        Ok(())
    }

    fn is_slow(&self, after: u64) -> bool {
        after >= self.scenario.pool.slow_threshold && self.scenario.pool.slow_threshold > 0
    }

    /// The last change of a backend's health.
    fn health_before(&self, pool: &str, label: &str) -> Option<&HealthEntry> {
        self.health_log.iter().rev().find(|c| c.pool == pool && c.label == label)
    }

    /// Whether some configuration does not have the backend: then it may have been forgotten.
    fn was_replaced(&self, pool: &str, label: &str) -> bool {
        !self.config_versions.iter().all(|version| {
            version.iter().any(|p| p.name == pool && p.backends.iter().any(|b| b.label() == label))
        })
    }

    /// When a configuration last added a backend; 0: the first one has it.
    fn added_at(&self, pool: &str, label: &str) -> u64 {
        let mut added = 0;
        let mut there = true;
        for (version, at) in self.config_versions.iter().zip(&self.config_times) {
            let is = version.iter().any(|p| p.name == pool && p.backends.iter().any(|b| b.label() == label));
            if is && !there {
                added = *at;
            }
            there = is;
        }
        added
    }

    fn connections_to(&self, backend: usize) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().rev().filter(move |s| s.peer == Peer::Backend(backend))
    }

    /// How a connection ended, if it was a probe.
    fn probe_end(&self, s: &Socket) -> ProbeEnd {
        let Some(closed) = s.times.closed.filter(|_| s.probe) else { return ProbeEnd::Unknown };
        let read = s.to_proxy.read_total;
        match s.probe_reply {
            Some((status, len)) if read >= len => {
                let at = s.reads.partition_point(|(before, _)| *before < len) - 1;
                if status < 400 { ProbeEnd::Good(s.reads[at].1 - s.times.opened) } else { ProbeEnd::Bad }
            }
            _ if closed >= s.times.opened + self.scenario.pool.probe_timeout => ProbeEnd::Bad,
            _ if s.times.fin.or(s.times.reset).is_some() => ProbeEnd::Bad,
            _ => ProbeEnd::Unknown,
        }
    }

    /// How many connects or probes of a backend have come to nothing since then. What may be one counts.
    fn failures_since(&self, backend: usize, named: bool, since: u64) -> u64 {
        let in_vain = |s: &&Socket| {
            let failed = s.times.failed.or(s.times.reset.map(|at| (at, 0)));
            let given_up = s.times.closed.filter(|_| s.sendings.is_empty());
            // A failure counts when it is heard of, and then the connection is closed.
            let heard = s.times.closed.filter(|_| failed.is_some() || given_up.is_some());
            let ended = heard.or(failed.map(|(at, _)| at)).is_some_and(|at| at >= since);
            let long = s.times.closed.is_some_and(|at| {
                let (probe, connect) = (self.scenario.pool.probe_timeout, self.scenario.timeouts.connect);
                // The next address of a name is tried after 250 ms.
                let probe = if named { probe.min(250 * MS) } else { probe };
                at >= s.times.opened + if connect > 0 { probe.min(connect) } else { probe }
            });
            let bad_probe = s.probe && self.probe_end(s) == ProbeEnd::Bad;
            ended && (failed.is_some() || bad_probe || (long && !s.probe))
        };
        let sockets = self.connections_to(backend).filter(in_vain).count();
        let errors = self
            .connect_errors
            .iter()
            .filter(|e| e.backend == backend && e.at >= since && e.errno != libc::EMFILE);
        (sockets + errors.count()) as u64
    }

    /// A shard's turn has ended, and its changes of health are in the log: they were told to all others, and
    /// probes that ended in it were taken into account.
    pub(crate) fn judge_health(&mut self, shard: usize, changed: bool) {
        let nudged = std::mem::take(&mut self.nudged);
        let ended = std::mem::take(&mut self.ended_probes);
        let not_told = |other: &usize| *other != shard && !nudged.contains(other) && !self.drained[*other];
        if changed && let Some(other) = (0..self.drained.len()).find(not_told) {
            self.ledger.fail("health-told", format!("shard {shard} has not told {other}"));
        }
        for socket in ended {
            self.judge_probe(socket);
        }
    }

    /// A probe has ended: where one good or bad one decides, the state is what it says.
    fn judge_probe(&mut self, socket: usize) {
        let s = &self.sockets[socket];
        let Peer::Backend(backend) = s.peer else { return };
        let end = self.probe_end(s);
        let pools = &self.config_versions[0];
        let mut named = pools.iter().flat_map(|p| p.backends.iter().map(move |b| (p, b)));
        let mut named = named.by_ref().filter(|(_, b)| b.backend == backend);
        let (Some((pool, spec)), None) = (named.next(), named.next()) else { return };
        if self.config_versions.len() > 1 || spec.is_named() || self.drains() {
            return;
        }
        let label = spec.label();
        let log = self.health_log.iter().filter(|c| c.pool == pool.name && c.label == label);
        let state = log.clone().next_back().map_or(HealthState::Unknown, |c| c.to);
        let changes = log.filter(|c| c.at == self.now).count();
        // In a turn that is late the next check may have failed at once.
        let errors = self.connect_errors.iter().rev().take_while(|e| e.at == self.now);
        let again = errors.filter(|e| e.backend == backend).count() > 0;
        let wrong = match end {
            _ if changes > 1 || again => false,
            ProbeEnd::Good(after) if self.scenario.pool.rise == 1 => {
                (state == HealthState::Slow) != self.is_slow(after) || state == HealthState::Unhealthy
            }
            ProbeEnd::Bad if self.scenario.pool.fall == 1 => state != HealthState::Unhealthy,
            _ => state == HealthState::Unknown && end != ProbeEnd::Unknown,
        };
        if wrong {
            let details = format!("probe {socket} of {label} ended: {end:?}, it is {state:?}");
            self.ledger.fail("health-follows-probe", details);
        }
    }
}
