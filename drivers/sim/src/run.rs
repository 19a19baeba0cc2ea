//! One run: shards with their pumps, clients and machines, until everybody is done, all is healed, and nothing is left.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::Config;
use ruststrom_core::observe::{HealthChange, HealthState, Level, Record};
use ruststrom_core::{Accepted, Cause, Instant, ListenerId, Observer, Proxy, Shared, Wall};
use ruststrom_driver::pump::Pump;

use crate::client::{self, Client};
use crate::coverage::{Coverage, Mark};
use crate::draw::{Draw, MS, SEC};
use crate::ledger::{Seen, Told, Violation};
use crate::net::{Event, Far, Mode, Net, View};
use crate::server::Server;
use crate::stages::{Asks, Copies};

/// What the core tells.
#[derive(Debug, Default)]
pub(crate) struct Log {
    records: Vec<(String, Told, bool)>,
    health: Vec<(String, String, HealthState)>,
}

fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::BadRequest(_) => "bad_request",
        Cause::BadAnswer(_) => "bad_answer",
        other => other.name(),
    }
}

impl Observer for Log {
    fn wants_texts(&self) -> bool {
        true
    }
    fn exchange(&mut self, r: &Record<'_>) {
        let told =
            Told { status: r.status, cause: r.cause.map(cause_name), bytes_in: r.bytes_in, bytes_out: r.bytes_out, attempts: r.attempts };
        let waited = r.timings.chosen.is_some_and(|chosen| chosen > r.timings.head);
        self.records.push((String::from_utf8_lossy(r.target).into_owned(), told, waited));
    }
    fn health(&mut self, c: &HealthChange<'_>) {
        self.health.push((c.pool.to_owned(), c.backend.to_owned(), c.to));
    }
    fn note(&mut self, _: Level, _: &str) {}
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Traffic,
    Healed,
    Recovering,
    Last,
    Draining,
    Over,
}

/// Everything of one run.
pub(crate) struct Sim {
    pub(crate) net: Net,
    pumps: Vec<Pump<Proxy<Log>>>,
    shared: Arc<Shared>,
    clients: Vec<Client>,
    servers: Vec<Option<Server>>,
    queues: Vec<VecDeque<usize>>,
    paused: Vec<u64>,
    wall_at: Vec<u64>,
    draining: Vec<bool>,
    drain_wanted: bool,
    drain_by: u64,
    configs: Vec<Arc<Config>>,
    phase: Phase,
    phase_until: u64,
    recover_from: u64,
    spin: (u64, u64),
}

const LISTENER: ListenerId = ListenerId(0);

impl Sim {
    pub(crate) fn new(draw: &Draw, traced: bool) -> Self {
        let mut net = Net::new(draw.clone(), traced);
        let config = draw.config(&draw.pools);
        let shards = usize::from(draw.shards);
        let shared = Arc::new(Shared::new("lb.test", draw.shards));
        let now = Instant::from_nanos(net.now);
        let pumps = (0..draw.shards)
            .map(|s| Pump::new(Proxy::new(config.clone(), shared.clone(), s, draw.seed ^ u64::from(s), Log::default(), now), now))
            .collect();
        let heal_at = net.dice.between(2, 9) * SEC;
        let mut sim = Self {
            pumps,
            shared,
            clients: Vec::new(),
            servers: Vec::new(),
            queues: vec![VecDeque::new(); shards],
            paused: vec![0; shards],
            wall_at: vec![0; shards],
            draining: vec![false; shards],
            drain_wanted: false,
            drain_by: 0,
            configs: vec![config],
            phase: Phase::Traffic,
            phase_until: heal_at,
            recover_from: 0,
            spin: (0, 0),
            net,
        };
        for shard in 0..shards {
            sim.set_chains(shard);
            sim.net.wake(shard, 0);
        }
        sim.begin();
        sim
    }

    fn begin(&mut self) {
        let net = &mut self.net;
        let arrivals = client::arrivals(&mut net.dice, net.draw.clients);
        for (index, at) in arrivals.into_iter().enumerate() {
            let most = net.draw.most_requests;
            let client = Client::new(index, net, false, most);
            self.clients.push(client);
            net.client_socks.push(usize::MAX);
            net.at(at, Event::Client(index));
        }
        let draw = net.draw.clone();
        for _ in 0..draw.world.reloads {
            let at = net.dice.below(4 * SEC);
            net.at(at, Event::Reload);
        }
        for _ in 0..draw.backend.flaps {
            let at = net.dice.below(4 * SEC);
            net.at(at, Event::Flap);
        }
        if draw.world.drains {
            let at = net.dice.below(3 * SEC);
            net.at(at, Event::Drain);
        }
        if draw.net.tiny {
            net.mark(Mark::TinyWindow);
        }
        if draw.pages > 0 {
            net.mark(Mark::FewPages);
        }
    }

    fn set_chains(&mut self, shard: usize) {
        let (asks, transforms) = (self.net.draw.asks, self.net.draw.transforms);
        if !asks && !transforms {
            return;
        }
        let pools = self.configs[self.net.version_of[shard]].pools.len() as u16;
        for pool in 0..pools {
            let mut chain: Vec<Box<dyn ruststrom_core::middleware::Stage>> = Vec::new();
            if asks {
                chain.push(Box::new(Asks));
                self.net.mark(Mark::Asked);
            }
            if transforms {
                chain.push(Box::new(Copies));
                self.net.mark(Mark::Transformed);
            }
            self.pumps[shard].machine_mut().set_chain(pool, chain);
        }
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(&mut self) {
        while self.phase != Phase::Over && self.net.ledger.violation.is_none() {
            self.step();
        }
    }

    fn step(&mut self) {
        if self.net.next_at().is_none_or(|at| at >= self.phase_until) {
            self.net.now = self.net.now.max(self.phase_until);
            return self.deadline();
        }
        let Some(event) = self.net.next() else { return };
        self.happen(event);
        if self.net.count > 3_000_000 {
            self.net.ledger.fail("ends", "three million events and no end");
        }
        if self.phase != Phase::Traffic && self.settled() {
            self.next_phase();
        } else if self.phase == Phase::Traffic && self.net.count.is_multiple_of(64) && self.clients.iter().all(|c| c.done) {
            self.heal();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn(shard) => {
                if self.net.turns(shard) {
                    self.turn(shard);
                }
            }
            Event::Arrive { sock, up, .. } | Event::Fin { sock, up } | Event::Rst { sock, up } => self.net.arrive(sock, up, &event),
            Event::Edge(sock) => self.net.edge(sock),
            Event::Peer(sock) => {
                if self.net.far_turns(sock) {
                    match self.net.socks[sock].far {
                        Far::Client(c) => self.clients[c].turn(&mut self.net),
                        Far::Machine(_) => {
                            if let Some(server) = self.servers.get_mut(sock).and_then(Option::as_mut) {
                                server.turn(&mut self.net);
                                self.judge_caps(sock);
                            }
                        }
                    }
                }
            }
            Event::Connected(sock) => {
                let s = &mut self.net.socks[sock];
                if s.open && s.connecting {
                    s.connecting = false;
                    let server = Server::new(sock, &mut self.net);
                    if self.servers.len() <= sock {
                        self.servers.resize_with(sock + 1, || None);
                    }
                    self.servers[sock] = Some(server);
                    self.net.edge(sock);
                }
            }
            Event::ConnectFails(sock, code) => self.net.connect_fails(sock, code),
            Event::Client(index) => {
                let shard = self.net.dice.below(self.pumps.len() as u64) as usize;
                if self.draining[shard] {
                    self.clients[index].refused(&mut self.net);
                } else {
                    self.queues[shard].push_back(index);
                    let soon = self.net.now + self.net.delay();
                    self.net.wake(shard, soon);
                }
            }
            Event::Nudge(shard) => {
                self.net.nudged[shard] = true;
                self.net.wake(shard, 0);
            }
            Event::Found(shard, id, answer) => {
                self.net.found[shard].push((id, answer));
                self.net.wake(shard, 0);
            }
            Event::Reload => self.reload(),
            Event::ReloadShard(shard) => self.reload_shard(shard),
            Event::Flap => self.flap(),
            Event::Drain => {
                if self.phase == Phase::Traffic {
                    self.net.mark(Mark::DrainedUnderTraffic);
                    self.drain();
                }
            }
        }
    }

    /// One turn of a shard's event loop, as a worker does it.
    fn turn(&mut self, shard: usize) {
        if self.net.drained[shard] {
            return;
        }
        self.net.turn += 1;
        let now = self.net.now;
        let pump = &mut self.pumps[shard];
        pump.begin(Instant::from_nanos(now));
        // The poller tells of a whole batch at once; what happens meanwhile makes some of it stale.
        let mut batch: Vec<usize> = std::mem::take(&mut self.net.ready[shard]);
        for i in (1..batch.len()).rev() {
            batch.swap(i, self.net.dice.below(i as u64 + 1) as usize);
        }
        let told: Vec<_> = batch.iter().filter(|s| self.net.socks[**s].open).copied().collect();
        let told: Vec<_> = told.into_iter().map(|s| (self.net.socks[s].conn, self.net.readiness(s))).collect();
        self.net.say(30 << 40 | (shard as u64) << 20 | told.len() as u64, || format!("shard {shard} turns: {told:?}"));
        let mut view = View { net: &mut self.net, shard };
        if now >= self.wall_at[shard] {
            self.wall_at[shard] = now + SEC;
            pump.wall(Wall { unix_secs: 1_700_000_000 + now / SEC, millis: 0 }, &mut view);
        }
        let often = view.net.draw.check_often;
        for (c, readiness) in told {
            if view.net.sock_of(shard, c).is_none() {
                view.net.mark(Mark::StaleEvent);
            }
            pump.ready(c, readiness, &mut view);
            if often {
                pump.machine().check();
                pump.check();
            }
        }
        if std::mem::take(&mut view.net.nudged[shard]) {
            pump.nudged(&mut view);
        }
        for (id, answer) in std::mem::take(&mut view.net.found[shard]) {
            pump.answer(id, answer, &mut view);
        }
        pump.resume(&mut view);
        self.accept(shard, 16);
        let pump = &mut self.pumps[shard];
        let mut view = View { net: &mut self.net, shard };
        pump.tick(&mut view);
        pump.settle(&mut view);
        if self.drain_wanted && !self.draining[shard] {
            self.draining[shard] = true;
            self.accept(shard, usize::MAX);
            for index in std::mem::take(&mut self.queues[shard]) {
                self.clients[index].refused(&mut self.net);
            }
            let until = Instant::from_nanos(self.drain_by);
            self.pumps[shard].drain(until, &mut View { net: &mut self.net, shard });
        }
        self.judge(shard);
        self.schedule(shard);
    }

    fn accept(&mut self, shard: usize, most: usize) {
        let files = self.net.draw.world.files as usize;
        for _ in 0..most {
            if self.queues[shard].is_empty() || (!self.pumps[shard].accepting(LISTENER) && most < usize::MAX) {
                return;
            }
            if self.net.faults && files > 0 && self.net.open[shard] >= files {
                if self.paused[shard] <= self.net.now {
                    self.net.mark(Mark::AcceptPaused);
                    self.paused[shard] = self.net.now + 100 * MS;
                }
                return;
            }
            let Some(index) = self.queues[shard].pop_front() else { return };
            let peer = self.clients[index].address;
            let local = "192.0.2.1:80".parse().expect("an address");
            let pump = &mut self.pumps[shard];
            match pump.accept(&Accepted { listener: LISTENER, peer, local }) {
                Ok(c) => {
                    let sock = self.net.insert(shard, c, Far::Client(index), false);
                    self.net.say(31 << 40 | sock as u64, || format!("shard {shard} accepts client {index} as {sock}, {c:?}"));
                    self.net.client_socks[index] = sock;
                    let version = self.net.version_of[shard];
                    self.net.socks[sock].read_at_reload.push((0, version));
                    let client = &mut self.clients[index];
                    client.sock = Some(sock);
                    client.turn(&mut self.net);
                    self.pumps[shard].opened(c, &mut View { net: &mut self.net, shard });
                }
                Err(_) => {
                    self.net.mark(Mark::Refused);
                    self.clients[index].refused(&mut self.net);
                }
            }
        }
    }

    /// When the shard's loop turns again.
    fn schedule(&mut self, shard: usize) {
        if self.net.drained[shard] {
            return;
        }
        let ms = self.net.now / MS;
        self.spin = if self.spin.0 == ms { (ms, self.spin.1 + 1) } else { (ms, 0) };
        if self.spin.1 > 20_000 {
            self.net.ledger.fail("spins", format!("shard {shard} turns and turns"));
        }
        if self.pumps[shard].has_backlog() {
            self.net.mark(Mark::Backlogged);
            let soon = self.net.now + 1_000;
            self.net.wake(shard, soon);
        }
        if self.paused[shard] > self.net.now {
            let until = self.paused[shard];
            self.net.wake(shard, until);
        } else if !self.queues[shard].is_empty() && self.pumps[shard].accepting(LISTENER) {
            let soon = self.net.now + 1_000;
            self.net.wake(shard, soon);
        }
        if let Some(at) = self.pumps[shard].poll_timeout().filter(|t| *t != Instant::NEVER) {
            let mut at = at.as_nanos();
            let late = self.net.draw.net.late_timer;
            if self.net.dice.hits(late) {
                self.net.mark(Mark::LateTimer);
                at += self.net.dice.size(50 * MS);
            }
            self.net.wake(shard, at);
        }
    }

    fn reload(&mut self) {
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
                _ => pool.strategy = self.net.dice.one(&["RoundRobin", "Random", "IPHash", "LeastConnection"]),
            }
        }
        self.net.mark(Mark::Reloaded);
        self.configs.push(draw.config(&pools));
        self.net.versions.push(pools);
        for shard in 0..self.pumps.len() {
            let at = self.net.now + self.net.dice.below(20 * MS);
            self.net.at(at, Event::ReloadShard(shard));
        }
    }

    fn reload_shard(&mut self, shard: usize) {
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
        let pump = &mut self.pumps[shard];
        pump.begin(now);
        pump.machine_mut().handle_config(config, now);
        pump.settle(&mut View { net: &mut self.net, shard });
        self.set_chains(shard);
        self.judge(shard);
        self.net.wake(shard, 0);
    }

    fn flap(&mut self) {
        if !self.net.faults {
            return;
        }
        let machine = self.net.dice.below(self.net.machines.len() as u64) as usize;
        let mode = self.net.dice.one(&[Mode::Up, Mode::Refuses, Mode::BlackHole, Mode::ProbeFine, Mode::ProbeBad]);
        self.net.mark(Mark::Flapped);
        self.net.machines[machine] = mode;
        self.net.say(33, || format!("machine {machine} is {mode:?}"));
    }

    fn drain(&mut self) {
        self.drain_wanted = true;
        let within = self.configs.last().expect("one").timeouts.drain.min(Duration::from_secs(3600));
        self.drain_by = self.net.now + within.as_nanos() as u64;
        self.phase = Phase::Draining;
        self.phase_until = self.drain_by + 2 * SEC;
        for shard in 0..self.pumps.len() {
            self.net.wake(shard, 0);
        }
    }

    /// Faults end.
    fn heal(&mut self) {
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
        for shard in 0..self.pumps.len() {
            self.paused[shard] = 0;
            self.net.wake(shard, 0);
        }
    }

    fn settled(&self) -> bool {
        match self.phase {
            Phase::Traffic | Phase::Over => false,
            Phase::Healed | Phase::Last => self.clients.iter().all(|c| c.done),
            Phase::Recovering => self.net.now >= self.recover_from && self.recovered(),
            Phase::Draining => self.net.drained.iter().all(|d| *d),
        }
    }

    /// Every backend of the configuration is known to be well.
    fn recovered(&self) -> bool {
        if self.net.draw.check_every_ms == 0 {
            return self.net.unhealthy.is_empty();
        }
        let pools = self.net.versions.last().expect("one");
        let bad = |name: &str, label: String| self.net.unhealthy.contains_key(&(name.to_owned(), label));
        !pools.iter().any(|p| p.backends.iter().any(|b| bad(p.name, b.label())))
    }

    fn next_phase(&mut self) {
        match self.phase {
            Phase::Healed => {
                self.phase = Phase::Recovering;
                self.phase_until = self.net.now + 120 * SEC;
                // Probes that were under way may still speak against a backend; a lost lookup is asked again after 20 s.
                let named = self.net.versions.last().expect("one").iter().any(|p| p.backends.iter().any(|b| b.named));
                let w = &self.net.draw.world;
                let lost = named && w.slow_lookup + w.lost_lookup + w.failed_lookup > 0;
                self.recover_from = self.net.now + if lost { 50 * SEC } else { 5 * SEC };
            }
            Phase::Recovering => self.last_clients(),
            Phase::Last => {
                self.judge_last();
                self.drain();
            }
            Phase::Draining => {
                self.judge_empty();
                self.phase = Phase::Over;
            }
            Phase::Traffic | Phase::Over => {}
        }
    }

    /// A phase has lasted as long as it may.
    fn deadline(&mut self) {
        match self.phase {
            Phase::Traffic => self.heal(),
            Phase::Recovering if self.net.draw.check_every_ms == 0 || self.recovered() => self.last_clients(),
            Phase::Recovering => {
                let left = format!("{:?}", self.net.unhealthy);
                self.net.ledger.fail("healthy-again", left);
            }
            Phase::Healed | Phase::Last => {
                let left: Vec<String> = self.clients.iter().filter(|c| !c.done).map(Client::state).collect();
                let counts: Vec<_> = self.pumps.iter().map(|p| p.machine().counts()).collect();
                self.net.ledger.fail("everybody-answered", format!("{left:?} {counts:?}"));
            }
            Phase::Draining => {
                let counts: Vec<_> = self.pumps.iter().map(|p| p.machine().counts()).collect();
                self.net.ledger.fail("drain-ends", format!("{counts:?}"));
            }
            Phase::Over => {}
        }
    }

    /// When all is well, whoever asks is answered.
    fn last_clients(&mut self) {
        self.net.mark(Mark::HealedAll);
        self.phase = Phase::Last;
        self.phase_until = self.net.now + 120 * SEC;
        let mut at = self.net.now;
        for _ in 0..3 {
            let index = self.clients.len();
            let client = Client::new(index, &mut self.net, true, 2);
            self.clients.push(client);
            self.net.client_socks.push(usize::MAX);
            at += 100 * MS;
            self.net.at(at, Event::Client(index));
        }
    }

    fn judge_last(&mut self) {
        let count = self.clients.len();
        let draw = &self.net.draw;
        // A few pages may be too few for one exchange, and then it is told so.
        if draw.pages > 0 && draw.pages < 12 {
            return;
        }
        let empty = |pool: Option<&'static str>| {
            self.net.versions.last().expect("one").iter().any(|p| Some(p.name) == pool && p.backends.is_empty())
        };
        let lost = self.net.ledger.requests.iter().find(|r| {
            let cut = r.seen == Seen::Cut || r.seen == Seen::Nothing;
            r.client + 3 >= count && !matches!(r.seen, Seen::Answered(_)) && !empty(r.pool) && !cut
        });
        if let Some(r) = lost {
            let text = format!("request {} of client {} to pool {:?}: {:?}, {:?}", r.id, r.client, r.pool, r.seen, r.told);
            self.net.ledger.fail("well-again", text);
        }
    }

    /// After a drain nothing is left.
    fn judge_empty(&mut self) {
        for shard in 0..self.pumps.len() {
            let counts = self.pumps[shard].machine().counts();
            if counts != ruststrom_core::proxy::Counts::default() {
                self.net.ledger.fail("nothing-left", format!("shard {shard}: {counts:?}"));
            }
            if self.net.open[shard] > 0 {
                self.net.ledger.fail("no-socket-left", format!("shard {shard}: {} open", self.net.open[shard]));
            }
        }
        if self.shared.connections() > 0 {
            self.net.ledger.fail("clients-counted", format!("{} left", self.shared.connections()));
        }
        let missing = self.net.ledger.requests.iter().find(|r| {
            r.told.is_none()
                && (matches!(r.seen, Seen::Answered(_) | Seen::Own(_)) && !matches!(r.seen, Seen::Own(400 | 408)) || !r.attempts.is_empty())
        });
        if let Some(r) = missing {
            let text = format!("exchange {} was never told of: {:?}", r.id, r.seen);
            self.net.ledger.fail("one-end-record", text);
        }
        self.judge_turns();
    }

    /// Round robin over an unchanged set of equals is exact.
    fn judge_turns(&mut self) {
        let draw = &self.net.draw;
        if !draw.fault_free {
            return;
        }
        for pool in &draw.pools {
            let plain = |b: &crate::draw::BackendDef| !b.named && b.weight == 1 && b.cap == 0 && !b.backup;
            if pool.strategy != "RoundRobin" || pool.sticky || !pool.backends.iter().all(plain) {
                continue;
            }
            let counts: Vec<u64> =
                pool.backends.iter().map(|b| self.net.ledger.executed.get(&(pool.name, b.at)).copied().unwrap_or(0)).collect();
            let (least, most) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
            if most > least + 1 {
                let text = format!("pool {}: {counts:?}", pool.name);
                return self.net.ledger.fail("round-robin", text);
            }
        }
    }

    /// No backend has more at once than it takes.
    fn judge_caps(&mut self, sock: usize) {
        if self.net.draw.world.reloads > 0 {
            return;
        }
        let (Far::Machine(machine), Some(Some(server))) = (self.net.socks[sock].far, self.servers.get(sock)) else { return };
        if !server.is_busy(&self.net) {
            return;
        }
        let Some(pool) = self.net.ledger.get(server.current).pool else { return };
        let Some(cap) = self.net.draw.pools.iter().find(|p| p.name == pool).and_then(|p| p.backends.iter().find(|b| b.at == machine))
        else {
            return;
        };
        if cap.cap == 0 {
            return;
        }
        let busy = self.servers.iter().flatten().filter(|s| {
            s.is_busy(&self.net) && self.net.socks[s.sock].far == Far::Machine(machine) && self.net.ledger.get(s.current).pool == Some(pool)
        });
        let busy = busy.count();
        if busy > cap.cap as usize {
            let text = format!("machine {machine} of pool {pool}: {busy} at once, {} allowed", cap.cap);
            self.net.ledger.fail("max-connections", text);
        }
    }

    /// What must hold whenever a shard has settled.
    fn judge(&mut self, shard: usize) {
        let pump = &mut self.pumps[shard];
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
            self.net.ledger.tell(&target, told);
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
        let counts = (self.net.draw.check_often || self.net.draw.pages > 0).then(|| self.pumps[shard].machine().counts());
        if let Some(counts) = counts {
            if self.net.draw.pages > 0 && counts.pages as u64 >= self.net.draw.pages {
                self.net.mark(Mark::Starved);
            }
            if self.net.draw.world.reloads == 0 {
                let busy: usize = self.pumps.iter().map(|p| p.machine().counts().backends_busy).sum();
                if busy != counts.in_flight {
                    self.net.ledger.fail("slots", format!("{busy} connections carry exchanges, {} slots are taken", counts.in_flight));
                }
            }
        }
    }

    pub(crate) fn result(self) -> (Option<Violation>, Coverage, u64, u64, Vec<String>) {
        let net = self.net;
        let trace = net.trace.map(Vec::from).unwrap_or_default();
        (net.ledger.violation, net.coverage, net.hash, net.count, trace)
    }
}
