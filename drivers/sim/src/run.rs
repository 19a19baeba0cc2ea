//! One run: shards with their pumps, clients and machines, until everybody is done, all is healed, and
//! nothing is left.

mod callers;
mod judges;
mod log;
mod phases;
mod world;

use std::sync::Arc;

use ruststrom_core::config::Config;
use ruststrom_core::{Instant, Proxy, Shared};
use ruststrom_driver::pump::Pump;

use self::log::Log;
use self::phases::Phase;
use crate::client::{self, Client};
use crate::coverage::{Coverage, Mark};
use crate::draw::{Draw, SEC};
use crate::ledger::Violation;
use crate::net::{Event, Far, Net};
use crate::server::Server;
use crate::shard::Shard;
use crate::stages::{Asks, Copies};

/// Everything of one run.
pub(crate) struct Sim {
    pub(crate) net: Net,
    shards: Vec<Shard<Log>>,
    shared: Arc<Shared>,
    clients: Vec<Client>,
    /// So many of the first ones are done.
    clients_seen_done: usize,
    servers: Vec<Option<Server>>,
    drain_wanted: bool,
    drain_by: u64,
    configs: Vec<Arc<Config>>,
    phase: Phase,
    phase_until: u64,
    recover_from: u64,
}

impl Sim {
    pub(crate) fn new(draw: &Draw, traced: bool) -> Self {
        let mut net = Net::new(draw.clone(), traced);
        let config = draw.config(&draw.pools);
        let shared = Arc::new(Shared::new("lb.test", draw.shards));
        let now = Instant::from_nanos(net.now);
        let proxy =
            |s| Proxy::new(config.clone(), shared.clone(), s, draw.seed ^ u64::from(s), Log::default(), now);
        let shards = (0..draw.shards).map(|s| Shard::new(Pump::new(proxy(s), now), usize::from(s))).collect();
        let heal_at = net.dice.between(2, 9) * SEC;
        let mut sim = Self {
            shards,
            shared,
            clients: Vec::new(),
            clients_seen_done: 0,
            servers: Vec::new(),
            drain_wanted: false,
            drain_by: 0,
            configs: vec![config],
            phase: Phase::Traffic,
            phase_until: heal_at,
            recover_from: 0,
            net,
        };
        for shard in 0..sim.shards.len() {
            sim.set_chains(shard);
            sim.net.wake(shard, 0);
        }
        sim.begin();
        sim
    }

    fn begin(&mut self) {
        let net = &mut self.net;
        let forwarded_headers = client::forwarded_headers(&mut net.dice, net.draw.clients);
        for (index, at) in forwarded_headers.into_iter().enumerate() {
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
                self.net.mark(Mark::ResponseContext);
            }
            if transforms {
                chain.push(Box::new(Copies));
                self.net.mark(Mark::Transformed);
            }
            self.shards[shard].pump.machine_mut().set_chain(pool, chain);
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
            Event::Arrive { sock, up, .. } | Event::Fin { sock, up } | Event::Rst { sock, up } => {
                self.net.arrive(sock, up, &event)
            }
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
                let shard = self.net.dice.below(self.shards.len() as u64) as usize;
                self.shards[shard].call(index, &mut self.clients, &mut self.net);
            }
            Event::Nudge(shard) => {
                self.net.nudged[shard] = true;
                self.net.wake(shard, 0);
            }
            Event::Found(shard, id, response) => {
                self.net.found[shard].push((id, *response));
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

    fn turn(&mut self, shard: usize) {
        if self.net.drained[shard] {
            return;
        }
        let drain = self.drain_wanted.then(|| Instant::from_nanos(self.drain_by));
        self.shards[shard].turn(drain, &mut self.clients, &mut self.net);
        self.judge(shard);
        self.shards[shard].schedule(&mut self.net);
    }

    pub(crate) fn result(self) -> (Option<Violation>, Coverage, u64, u64, Vec<String>) {
        let net = self.net;
        let trace = net.trace.map(Vec::from).unwrap_or_default();
        (net.ledger.violation, net.coverage, net.hash, net.count, trace)
    }
}
