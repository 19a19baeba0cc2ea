//! What happens to the whole system: reloads, backends that change their state, the drain, and the healing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::Config;
use ruststrom_driver::acceptor::Placed;
use ruststrom_driver::mailbox::Command;

use super::phases::RunPhase;
use super::{GivenConfig, Simulation, listener_places};
use crate::coverage::Mark;
use crate::net::{BackendMode, SimEvent, Socket};
use crate::scenario::{ListenPorts, MS, MiddlewareSpec, PoolSpec, SEC};
use crate::shard::ListenerPlace;

impl Simulation {
    /// Draws a new configuration; each shard gets it a little later.
    pub(super) fn reload(&mut self) {
        if self.phase != RunPhase::Traffic || self.drain_wanted {
            return;
        }
        let mut pools = self.net.config_versions.last().expect("one").clone();
        for pool in &mut pools {
            self.change_pool(pool);
        }
        self.net.mark(Mark::Reloaded);
        let ports = if self.net.rng.below(3) == 0 {
            self.net.mark(Mark::ListenersChanged);
            self.net.scenario.draw_ports(&mut self.net.rng)
        } else {
            self.ports.clone()
        };
        let config = self.net.scenario.config(&pools, &ports);
        self.bind(config.clone(), ports);
        // As the daemon does it: what is the same for all shards is made by nobody's turn.
        let prepared = self.shared.prepare(&config);
        drop(prepared);
        self.net.config_versions.push(pools);
        let now = self.net.now;
        self.net.config_times.push(now);
        for shard in 0..self.shards.len() {
            let at = self.net.now + self.net.rng.below(20 * MS);
            self.net.schedule(at, SimEvent::ReloadShard(shard));
        }
    }

    /// Binds the listeners that a newer configuration brings, for each shard: clients may connect there from
    /// now on.
    fn bind(&mut self, config: Arc<Config>, ports: ListenPorts) {
        let ids = self.listener_ids.adopt(&config.listeners);
        let listeners = listener_places(&config, &ids);
        let before = &self.configs.last().expect("one").listeners;
        let is_new = |place: &&ListenerPlace| !before.iter().any(|old| old.id == place.id);
        let new: Vec<ListenerPlace> = listeners.iter().filter(is_new).copied().collect();
        let mut bound = Vec::new();
        for place in new {
            let numbers = self.shards.iter_mut().map(|shard| shard.bind(&place));
            bound.push((place, numbers.last().expect("a shard")));
        }
        self.ports = ports;
        self.configs.push(GivenConfig { config, listeners, bound });
    }

    /// Removes, adds or changes a backend, or changes the strategy; may change limits of requests too.
    fn change_pool(&mut self, pool: &mut PoolSpec) {
        let net = &mut self.net;
        match net.rng.below(4) {
            0 if pool.backends.len() > 1 => {
                let at = net.rng.below(pool.backends.len() as u64) as usize;
                let removed = pool.backends.remove(at);
                net.reload_changed.insert(removed.label().to_owned());
                net.mark(Mark::BackendRemoved);
            }
            1 => {
                let backend = net.rng.below(net.backend_modes.len() as u64) as usize;
                if pool.backends.iter().all(|b| b.backend != backend) {
                    let added = net.scenario.draw_backend(&mut net.rng, backend);
                    net.reload_changed.insert(added.label().to_owned());
                    pool.backends.push(added);
                    net.mark(Mark::BackendAdded);
                }
            }
            2 if !pool.backends.is_empty() => {
                let at = net.rng.below(pool.backends.len() as u64) as usize;
                let old = &pool.backends[at];
                net.reload_changed.insert(old.label().to_owned());
                let new = net.scenario.draw_backend(&mut net.rng, old.backend);
                net.reload_changed.insert(new.label().to_owned());
                pool.backends[at] = new;
            }
            _ => pool.strategy = net.rng.pick(&["RoundRobin", "Random", "IPHash", "LeastConnection"]),
        }
        if !pool.chains.is_empty() && net.rng.below(2) == 0 {
            pool.chain = net.rng.below(pool.chains.len() as u64) as usize;
            let is_limit = |spec: &&MiddlewareSpec| matches!(spec, MiddlewareSpec::RateLimiter { .. });
            let mut limits: VecDeque<_> = pool.middlewares.iter().filter(is_limit).cloned().collect();
            let mut chain = pool.chains[pool.chain].clone();
            for spec in chain.iter_mut().filter(|spec| is_limit(&&**spec)) {
                *spec = limits.pop_front().expect("as many in each chain");
            }
            pool.middlewares = chain;
            net.mark(Mark::ChainChanged);
        }
        for spec in &mut pool.middlewares {
            if let MiddlewareSpec::RateLimiter { limit, .. } = spec
                && net.rng.below(3) == 0
            {
                *limit = net.rng.between(1, 20);
                net.limits_changed = true;
                net.mark(Mark::LimitChanged);
            }
        }
    }

    /// A shard is given all configurations up to the newest, as by a driver: it takes them in its next turn.
    pub(super) fn reload_shard(&mut self, shard: usize) {
        let version = self.configs.len() - 1;
        if self.net.posted_version[shard] == version || self.net.drained[shard] {
            return;
        }
        let before = std::mem::replace(&mut self.net.posted_version[shard], version);
        for GivenConfig { config, listeners, bound } in &self.configs[before + 1..=version] {
            let placed = listeners.iter().map(|place| {
                let new = bound.iter().find(|(new, _)| new.id == place.id);
                new.map_or(Placed::Kept(place.id), |(place, number)| Placed::Bound(place.slot(*number)))
            });
            let command = Command::Listeners(config.clone(), placed.collect());
            self.shards[shard].post(command, &mut self.net);
        }
    }

    /// Some backend changes its state.
    pub(super) fn change_backend_mode(&mut self) {
        if !self.net.faults_on {
            return;
        }
        let backend = self.net.rng.below(self.net.backend_modes.len() as u64) as usize;
        let mode = self.net.rng.pick(&[
            BackendMode::Healthy,
            BackendMode::Refusing,
            BackendMode::Refusing,
            BackendMode::Unresponsive,
            BackendMode::FailingTraffic,
            BackendMode::FailingProbes,
            BackendMode::SlowProbes,
        ]);
        let mode = match mode {
            // Half of those who could: a run without TLS draws what it always did.
            BackendMode::Healthy | BackendMode::FailingTraffic
                if self.net.scenario.tls.is_backend(backend) =>
            {
                self.net.rng.pick(&[mode, BackendMode::FailingHandshakes])
            }
            mode => mode,
        };
        self.net.mark(Mark::BackendModeChanged);
        self.net.backend_modes[backend] = mode;
        self.net.trace(33, || format!("backend {backend} is {mode:?}"));
    }

    /// Begins a graceful stop of all shards.
    pub(super) fn drain(&mut self) {
        self.drain_wanted = true;
        let in_handshake = |s: &Socket| s.secure && s.open && s.times.secured.is_none();
        let clients = self.net.client_sockets.iter().filter(|s| **s != usize::MAX);
        if clients.map(|s| &self.net.sockets[*s]).any(in_handshake) {
            self.net.mark(Mark::DrainedInHandshake);
        }
        let timeouts = &self.configs.last().expect("one").config.timeouts;
        let within = timeouts.drain.min(Duration::from_secs(3600));
        let drain_from = self.net.now + timeouts.shutdown_delay.as_nanos() as u64;
        if drain_from > self.net.now {
            self.net.mark(Mark::DrainAnnounced);
        }
        self.net.drain_from = Some(drain_from);
        self.drain_by = drain_from + within.as_nanos() as u64;
        self.net.drain_by = Some(self.drain_by);
        self.phase = RunPhase::Draining;
        self.phase_until = self.drain_by + 2 * SEC;
        for shard in 0..self.shards.len() {
            self.net.wake(shard, 0);
        }
    }

    /// Ends all faults: from here on every request must get a response.
    pub(super) fn heal(&mut self) {
        self.net.trace(34, || "the run heals".into());
        self.phase = RunPhase::Healed;
        self.phase_until = self.net.now + 240 * SEC;
        self.net.faults_on = false;
        for mode in &mut self.net.backend_modes {
            *mode = BackendMode::Healthy;
        }
        for socket in std::mem::take(&mut self.net.unanswered_connects) {
            let soon = self.net.now + self.net.delay();
            self.net.schedule(soon, SimEvent::Connected(socket));
        }
        for client in &mut self.clients {
            client.heal(&mut self.net);
        }
        for conn in self.backend_conns.iter_mut().flatten() {
            conn.heal(&mut self.net);
        }
        for shard in 0..self.shards.len() {
            self.net.wake(shard, 0);
        }
    }
}
