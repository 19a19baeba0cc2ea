//! What befalls all at once: reloads, machines that go and come, the drain, and the healing of everything.

use std::time::Duration;

use ruststrom_core::Instant;

use super::Sim;
use super::phases::Phase;
use crate::coverage::Mark;
use crate::draw::{MS, SEC};
use crate::net::{Event, Mode, View};

impl Sim {
    pub(super) fn reload(&mut self) {
        if self.phase != Phase::Traffic || self.drain_wanted {
            return;
        }
        let mut pools = self.net.versions.last().expect("one").clone();
        let draw = self.net.draw.clone();
        let machines = self.net.machines.len();
        for pool in &mut pools {
            match self.net.dice.below(4) {
                0 if pool.backends.len() > 1 => {
                    let at = self.net.dice.below(pool.backends.len() as u64) as usize;
                    let gone = pool.backends.remove(at);
                    self.net.tainted.insert(gone.label());
                    self.net.mark(Mark::BackendRemoved);
                }
                1 => {
                    let at = self.net.dice.below(machines as u64) as usize;
                    if pool.backends.iter().all(|b| b.at != at) {
                        let new = draw.draw_backend(&mut self.net.dice, at);
                        self.net.tainted.insert(new.label());
                        pool.backends.push(new);
                        self.net.mark(Mark::BackendAdded);
                    }
                }
                2 if !pool.backends.is_empty() => {
                    let at = self.net.dice.below(pool.backends.len() as u64) as usize;
                    let machine = pool.backends[at].at;
                    self.net.tainted.insert(pool.backends[at].label());
                    pool.backends[at] = draw.draw_backend(&mut self.net.dice, machine);
                    self.net.tainted.insert(pool.backends[at].label());
                }
                _ => {
                    pool.strategy = self.net.dice.one(&["RoundRobin", "Random", "IPHash", "LeastConnection"])
                }
            }
        }
        self.net.mark(Mark::Reloaded);
        self.configs.push(draw.config(&pools));
        self.net.versions.push(pools);
        for shard in 0..self.shards.len() {
            let at = self.net.now + self.net.dice.below(20 * MS);
            self.net.at(at, Event::ReloadShard(shard));
        }
    }

    pub(super) fn reload_shard(&mut self, shard: usize) {
        let version = self.configs.len() - 1;
        if self.net.version_of[shard] == version || self.net.drained[shard] {
            return;
        }
        self.net.say(32 << 40 | shard as u64, || format!("shard {shard} takes version {version}"));
        self.net.version_of[shard] = version;
        for sock in self.net.client_socks.clone().into_iter().filter(|s| *s != usize::MAX) {
            let s = &mut self.net.socks[sock];
            if s.shard == shard {
                s.read_at_reload.push((s.up.read_total, version));
            }
        }
        let now = Instant::from_nanos(self.net.now);
        let config = self.configs[version].clone();
        let pump = &mut self.shards[shard].pump;
        pump.begin(now);
        pump.machine_mut().handle_config(config, now);
        pump.settle(&mut View { net: &mut self.net, shard });
        self.set_chains(shard);
        self.judge(shard);
        self.net.wake(shard, 0);
    }

    pub(super) fn flap(&mut self) {
        if !self.net.faults {
            return;
        }
        let machine = self.net.dice.below(self.net.machines.len() as u64) as usize;
        let mode =
            self.net.dice.one(&[Mode::Up, Mode::Refuses, Mode::BlackHole, Mode::ProbeFine, Mode::ProbeBad]);
        self.net.mark(Mark::Flapped);
        self.net.machines[machine] = mode;
        self.net.say(33, || format!("machine {machine} is {mode:?}"));
    }

    pub(super) fn drain(&mut self) {
        self.drain_wanted = true;
        let within = self.configs.last().expect("one").timeouts.drain.min(Duration::from_secs(3600));
        self.drain_by = self.net.now + within.as_nanos() as u64;
        self.phase = Phase::Draining;
        self.phase_until = self.drain_by + 2 * SEC;
        for shard in 0..self.shards.len() {
            self.net.wake(shard, 0);
        }
    }

    /// Faults end.
    pub(super) fn heal(&mut self) {
        self.net.say(34, || "all heals".into());
        self.phase = Phase::Healed;
        self.phase_until = self.net.now + 240 * SEC;
        self.net.faults = false;
        for mode in &mut self.net.machines {
            *mode = Mode::Up;
        }
        for sock in std::mem::take(&mut self.net.holes) {
            let soon = self.net.now + self.net.delay();
            self.net.at(soon, Event::Connected(sock));
        }
        for c in &mut self.clients {
            c.heal(&mut self.net);
        }
        for s in self.servers.iter_mut().flatten() {
            s.heal(&mut self.net);
        }
        for shard in 0..self.shards.len() {
            self.shards[shard].unpause(&mut self.net);
        }
    }
}
