//! Judges that look at more than one party: after every turn of a shard, when all is well again, and when all
//! is over. The others stand where the bytes are: in `client`, `server`, `ledger` and the sockets.

use ruststrom_core::observe::HealthState;

use super::Sim;
use crate::coverage::Mark;
use crate::draw::MS;
use crate::ledger::{Request, Seen};
use crate::net::Far;

impl Sim {
    pub(super) fn judge_last(&mut self) {
        let count = self.clients.len();
        let draw = &self.net.draw;
        // A few pages may be too few for one exchange, and then it is told so.
        if draw.pages > 0 && draw.pages < 12 {
            return;
        }
        let empty = |pool: Option<&'static str>| {
            self.net
                .versions
                .last()
                .expect("one")
                .iter()
                .any(|p| Some(p.name) == pool && p.backends.is_empty())
        };
        let lost = self.net.ledger.requests.iter().find(|r| {
            let cut = r.seen == Seen::Cut || r.seen == Seen::Nothing;
            r.client + 3 >= count
                && !matches!(r.seen, Seen::Responded(_))
                && !empty(r.pool)
                && !cut
                && !self.waited_rightly(r)
        });
        if let Some(r) = lost {
            let pool = self.net.versions.last().expect("one").iter().find(|p| Some(p.name) == r.pool);
            let text =
                format!("request {} of client {} to {pool:?}: {:?}, {:?}", r.id, r.client, r.seen, r.told);
            self.net.ledger.fail("well-again", text);
        }
    }

    /// It waited for a slot until its time was over, and until then another request had it: a long body over
    /// a slow way. Had the slot come free before, the one that waited would have been told of it.
    fn waited_rightly(&self, r: &Request) -> bool {
        // A timer may be late, and a connection takes its time before anything is sent on it.
        const SLACK: u64 = 60 * MS;
        let Some(pool) =
            self.net.versions.last().and_then(|pools| pools.iter().find(|p| Some(p.name) == r.pool))
        else {
            return false;
        };
        let on_backups = pool.backends.iter().all(|b| b.backup);
        let mut in_use = pool.backends.iter().filter(|b| b.backup == on_backups);
        // Whose client hashes to a full backend waits for that one.
        let limited =
            if pool.strategy == "IPHash" { in_use.any(|b| b.cap > 0) } else { in_use.all(|b| b.cap > 0) };
        let held = |other: &Request| {
            let began = other.attempts.first().is_some_and(|a| a.sent_at <= r.told_at + SLACK);
            other.id != r.id
                && other.pool == r.pool
                && began
                && (other.told.is_none() || other.told_at + SLACK >= r.told_at)
        };
        r.told.as_ref().is_some_and(|told| told.cause == Some("queue_timeout"))
            && limited
            && self.net.ledger.requests.iter().any(held)
    }

    /// After a drain nothing is left.
    pub(super) fn judge_empty(&mut self) {
        for shard in 0..self.shards.len() {
            let counts = self.shards[shard].pump.machine().counts();
            if counts != ruststrom_core::proxy::Counts::default() {
                self.net.ledger.fail("nothing-left", format!("shard {shard}: {counts:?}"));
            }
            if self.net.open[shard] > 0 {
                self.net
                    .ledger
                    .fail("no-socket-left", format!("shard {shard}: {} open", self.net.open[shard]));
            }
        }
        if self.shared.connections() > 0 {
            self.net.ledger.fail("clients-counted", format!("{} left", self.shared.connections()));
        }
        let missing = self.net.ledger.requests.iter().find(|r| {
            r.told.is_none()
                && (matches!(r.seen, Seen::Responded(_) | Seen::Own(_))
                    && !matches!(r.seen, Seen::Own(400 | 408))
                    || !r.attempts.is_empty())
        });
        if let Some(r) = missing {
            let text = format!("exchange {} was never told of: {:?}", r.id, r.seen);
            self.net.ledger.fail("one-end-record", text);
        }
        self.judge_turns();
    }

    /// Round robin over an unchanged set of equals is exact.
    pub(super) fn judge_turns(&mut self) {
        let draw = &self.net.draw;
        if !draw.fault_free {
            return;
        }
        for pool in &draw.pools {
            let plain = |b: &crate::draw::BackendDef| !b.named && b.weight == 1 && b.cap == 0 && !b.backup;
            if pool.strategy != "RoundRobin" || pool.sticky || !pool.backends.iter().all(plain) {
                continue;
            }
            let counts: Vec<u64> = pool
                .backends
                .iter()
                .map(|b| self.net.ledger.executed.get(&(pool.name, b.at)).copied().unwrap_or(0))
                .collect();
            let (least, most) =
                (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
            if most > least + 1 {
                let text = format!("pool {}: {counts:?}", pool.name);
                return self.net.ledger.fail("round-robin", text);
            }
        }
    }

    /// No backend has more at once than it takes.
    pub(super) fn judge_caps(&mut self, sock: usize) {
        if self.net.draw.world.reloads > 0 {
            return;
        }
        let (Far::Machine(machine), Some(Some(server))) = (self.net.socks[sock].far, self.servers.get(sock))
        else {
            return;
        };
        if !server.is_busy(&self.net) {
            return;
        }
        let Some(pool) = self.net.ledger.get(server.current).pool else { return };
        let Some(cap) = self
            .net
            .draw
            .pools
            .iter()
            .find(|p| p.name == pool)
            .and_then(|p| p.backends.iter().find(|b| b.at == machine))
        else {
            return;
        };
        if cap.cap == 0 {
            return;
        }
        let busy = self.servers.iter().flatten().filter(|s| {
            s.is_busy(&self.net)
                && self.net.socks[s.sock].far == Far::Machine(machine)
                && self.net.ledger.get(s.current).pool == Some(pool)
        });
        let busy = busy.count();
        if busy > cap.cap as usize {
            let text = format!("machine {machine} of pool {pool}: {busy} at once, {} allowed", cap.cap);
            self.net.ledger.fail("max-connections", text);
        }
    }

    /// What must hold whenever a shard has settled.
    pub(super) fn judge(&mut self, shard: usize) {
        let pump = &mut self.shards[shard].pump;
        pump.machine().check();
        pump.check();
        let log = pump.machine_mut().observer_mut();
        let (records, health) = (std::mem::take(&mut log.records), std::mem::take(&mut log.health));
        for (target, told, waited) in records {
            self.net.say(35 << 16 | u64::from(told.status), || format!("ended {target}: {told:?}"));
            if let Some(cause) = told.cause {
                self.net.coverage.cause(cause);
            }
            if waited && !self.net.draw.asks {
                self.net.mark(Mark::Queued);
            }
            self.net.ledger.tell(&target, told, self.net.now);
        }
        for (pool, label, to) in health {
            self.net.say(36, || format!("{label} of {pool} is {to:?}"));
            if to == HealthState::Unhealthy {
                self.net.mark(Mark::BecameUnhealthy);
                self.net.unhealthy.insert((pool, label), self.net.turn);
            } else {
                self.net.mark(if to == HealthState::Slow { Mark::BecameSlow } else { Mark::BecameHealthy });
                self.net.unhealthy.remove(&(pool, label));
                // It may have become usable earlier in this very turn.
                for sock in std::mem::take(&mut self.net.suspects) {
                    self.net.socks[sock].suspect = false;
                }
            }
        }
        self.net.suspects.clear();
        let counts = (self.net.draw.check_often || self.net.draw.pages > 0)
            .then(|| self.shards[shard].pump.machine().counts());
        if let Some(counts) = counts {
            if self.net.draw.pages > 0 && counts.pages as u64 >= self.net.draw.pages {
                self.net.mark(Mark::Starved);
            }
            if self.net.draw.world.reloads == 0 {
                let busy: usize = self.shards.iter().map(|s| s.pump.machine().counts().backends_busy).sum();
                if busy != counts.in_flight {
                    self.net.ledger.fail(
                        "slots",
                        format!("{busy} connections carry exchanges, {} slots are taken", counts.in_flight),
                    );
                }
            }
        }
    }
}
