//! One run: shards with their pumps, clients and machines, until everybody is done, all is healed, and nothing is left.

mod judges;
mod log;
mod phases;
mod world;

use std::collections::VecDeque;
use std::sync::Arc;

use ruststrom_core::config::Config;
use ruststrom_core::{Accepted, Instant, ListenerId, Proxy, Shared, Wall};
use ruststrom_driver::pump::Pump;

use self::log::Log;
use self::phases::Phase;
use crate::client::{self, Client};
use crate::coverage::{Coverage, Mark};
use crate::draw::{Draw, MS, SEC};
use crate::ledger::Violation;
use crate::net::{Event, Far, Net, View};
use crate::server::Server;
use crate::stages::{Asks, Copies};

/// Everything of one run.
pub(crate) struct Sim {
    pub(crate) net: Net,
    pumps: Vec<Pump<Proxy<Log>>>,
    shared: Arc<Shared>,
    clients: Vec<Client>,
    /// So many of the first ones are done.
    clients_seen_done: usize,
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
            clients_seen_done: 0,
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
        } else if self.phase == Phase::Traffic && self.net.count.is_multiple_of(64) && self.clients_done() {
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
                self.net.found[shard].push((id, *answer));
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
        batch.retain(|s| self.net.socks[*s].open);
        let told: Vec<_> = batch.iter().map(|s| (self.net.socks[*s].conn, self.net.readiness(*s))).collect();
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

    pub(crate) fn result(self) -> (Option<Violation>, Coverage, u64, u64, Vec<String>) {
        let net = self.net;
        let trace = net.trace.map(Vec::from).unwrap_or_default();
        (net.ledger.violation, net.coverage, net.hash, net.count, trace)
    }
}
