//! One run: shards with their pumps, clients and backends, from the first connection to the end of the drain.

mod accepted_clients;
mod invariants;
mod observer;
mod operations;
mod phases;

use std::sync::Arc;

use ruststrom_core::config::{Config, Listener};
use ruststrom_core::route::ListenerIds;
use ruststrom_core::{Instant, ListenerId, Proxy, Shared};
use ruststrom_driver::mailbox::Command;
use ruststrom_driver::stop::Stage;

use self::observer::RunObserver;
use self::phases::RunPhase;
use crate::backend::BackendConn;
use crate::client::{self, Client};
use crate::coverage::{Coverage, Mark};
use crate::exchanges::InvariantViolation;
use crate::net::{ClientExchanges, Net, Peer, SimEvent};
use crate::scenario::{ListenPorts, SEC, Scenario};
use crate::shard::{ListenerPlace, Shard};
use crate::stages::{Decisions, Entered, SimFactory};

/// More events than any run needs: one that has more does not end.
const MAX_EVENTS: u64 = 3_000_000;

/// A configuration, as shards are given it.
struct GivenConfig {
    config: Arc<Config>,
    listeners: Vec<ListenerPlace>,
    /// Those of them that it has brought, with their numbers, which are the same in each shard.
    bound: Vec<(ListenerPlace, usize)>,
}

/// The listeners of a configuration by their ids.
fn listener_places(config: &Config, ids: &[ListenerId]) -> Vec<ListenerPlace> {
    let place =
        |(l, id): (&Listener, &ListenerId)| ListenerPlace { id: *id, kind: l.kind, address: l.address };
    config.listeners.iter().zip(ids).map(place).collect()
}

/// What a run leaves behind.
pub(crate) struct RunResult {
    pub(crate) violation: Option<InvariantViolation>,
    pub(crate) coverage: Coverage,
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) trace: Vec<String>,
}

/// The state of one run.
pub(crate) struct Simulation {
    pub(crate) net: Net,
    shards: Vec<Shard<RunObserver>>,
    shared: Arc<Shared>,
    /// Of rate limits, in this turn.
    decisions: Decisions,
    /// Chains that requests went into, in this turn.
    entered: Entered,
    /// Where it listens by the newest configuration.
    ports: ListenPorts,
    listener_ids: ListenerIds,
    clients: Vec<Client>,
    /// How many of the first clients are known to be done.
    first_done: usize,
    /// The backend's end of connections, by socket.
    backend_conns: Vec<Option<BackendConn>>,
    drain_wanted: bool,
    /// The deadline of the drain.
    drain_by: u64,
    /// Every configuration so far.
    configs: Vec<GivenConfig>,
    phase: RunPhase,
    /// By when the phase has to be complete.
    phase_until: u64,
    /// When the recovery may be complete at the earliest.
    recover_from: u64,
}

impl Simulation {
    pub(crate) fn new(scenario: &Scenario, traced: bool) -> Self {
        let mut net = Net::new(scenario.clone(), traced);
        let ports = scenario.first_ports();
        let config = scenario.config(&scenario.pools, &ports);
        let (decisions, entered) = (Decisions::default(), Entered::default());
        let factory = Arc::new(SimFactory { decisions: decisions.clone(), entered: entered.clone() });
        let shared = Arc::new(Shared::with_middlewares("lb.test", scenario.shards, factory));
        let now = Instant::from_nanos(net.now);
        let proxy = |shard: u16| {
            let seed = scenario.seed ^ u64::from(shard);
            let observer = RunObserver::new(usize::from(shard));
            Proxy::new(config.clone(), shared.clone(), shard, seed, observer, now)
        };
        let listeners =
            listener_places(&config, &ListenerIds::new(&config.listeners).adopt(&config.listeners));
        let shard = |s: u16| Shard::new(proxy(s), config.clone(), usize::from(s), &listeners, &net);
        let shards = (0..scenario.shards).map(shard).collect();
        let heal_at = net.rng.between(2, 9) * SEC;
        let mut sim = Self {
            shards,
            shared,
            decisions,
            entered,
            ports,
            listener_ids: ListenerIds::new(&config.listeners),
            clients: Vec::new(),
            first_done: 0,
            backend_conns: Vec::new(),
            drain_wanted: false,
            drain_by: 0,
            configs: vec![GivenConfig { config, listeners, bound: Vec::new() }],
            phase: RunPhase::Traffic,
            phase_until: heal_at,
            recover_from: 0,
            net,
        };
        for shard in 0..sim.shards.len() {
            sim.net.wake(shard, 0);
        }
        sim.schedule_all();
        sim
    }

    /// Draws the clients, and when they and the changes of the system come.
    fn schedule_all(&mut self) {
        let net = &mut self.net;
        let arrival_times = client::arrival_times(&mut net.rng, net.scenario.clients);
        for (index, at) in arrival_times.into_iter().enumerate() {
            let max_requests = net.scenario.max_requests;
            let client = Client::new(index, net, false, max_requests);
            self.clients.push(client);
            net.client_sockets.push(usize::MAX);
            net.client_exchanges.push(ClientExchanges::default());
            net.schedule(at, SimEvent::ClientConnects(index));
        }
        let scenario = net.scenario.clone();
        for _ in 0..scenario.system.reloads {
            let at = net.rng.below(4 * SEC);
            net.schedule(at, SimEvent::Reload);
        }
        for _ in 0..scenario.backend.mode_changes {
            // Half of them while most clients come.
            let within = if net.rng.below(2) == 0 { SEC / 5 } else { 4 * SEC };
            let at = net.rng.below(within);
            net.schedule(at, SimEvent::ChangeBackendMode);
        }
        if scenario.system.drains {
            let at = net.rng.below(3 * SEC);
            net.schedule(at, SimEvent::Drain);
        }
        if scenario.sockets.tiny {
            net.mark(Mark::TinyWindow);
        }
        if !scenario.known_probes.is_empty() {
            net.mark(Mark::Steady);
        }
        if scenario.defaults {
            net.mark(Mark::Defaults);
        }
        if scenario.crowd {
            net.mark(Mark::Crowd);
        }
        if scenario.lookup_stage {
            net.mark(Mark::LookupStage);
        }
        if scenario.transform_stage {
            net.mark(Mark::Transformed);
        }
        if scenario.page_limit > 0 {
            net.mark(Mark::FewBufferPages);
        }
    }

    /// Runs to the end, or until an invariant is violated.
    pub(crate) fn run(&mut self) {
        while self.phase != RunPhase::Over && self.net.ledger.violation.is_none() {
            self.step();
        }
    }

    fn step(&mut self) {
        if self.net.next_at().is_none_or(|at| at >= self.phase_until) {
            self.net.now = self.net.now.max(self.phase_until);
            return self.deadline();
        }
        let Some(event) = self.net.next() else { return };
        self.handle_event(event);
        if self.net.event_count > MAX_EVENTS {
            self.net.ledger.fail("run-ends", format!("no end after {MAX_EVENTS} events"));
        }
        if self.phase != RunPhase::Traffic && self.phase_complete() {
            self.next_phase();
        } else if self.phase == RunPhase::Traffic
            && self.net.event_count.is_multiple_of(64)
            && self.clients_done()
        {
            self.heal();
        }
    }

    fn handle_event(&mut self, event: SimEvent) {
        match event {
            SimEvent::WorkerTurn(shard) => {
                if self.net.turn_due(shard) {
                    self.turn(shard);
                }
            }
            SimEvent::Arrive { socket, to_proxy, .. }
            | SimEvent::Fin { socket, to_proxy }
            | SimEvent::Rst { socket, to_proxy } => self.net.arrive(socket, to_proxy, &event),
            SimEvent::ReadinessEdge(socket) => self.net.edge(socket),
            SimEvent::PeerTurn(socket) => {
                if self.net.peer_due(socket) {
                    self.peer_turn(socket);
                }
            }
            SimEvent::Connected(socket) => self.connected(socket),
            SimEvent::ConnectFailed(socket, code) => self.net.connect_failed(socket, code),
            SimEvent::ClientConnects(index) => {
                let shard = self.net.rng.below(self.shards.len() as u64) as usize;
                self.shards[shard].client_connects(index, &mut self.clients, &mut self.net);
            }
            SimEvent::Nudge(shard) => {
                self.shards[shard].post(Command::Nudge, &mut self.net);
            }
            SimEvent::LookupDone(shard, id, result) => {
                let done = Command::LookupDone { generation: 0, id, result: *result };
                self.shards[shard].post(done, &mut self.net);
            }
            SimEvent::Reload => self.reload(),
            SimEvent::ReloadShard(shard) => self.reload_shard(shard),
            SimEvent::ChangeBackendMode => self.change_backend_mode(),
            SimEvent::Drain => {
                if self.phase == RunPhase::Traffic {
                    self.net.mark(Mark::DrainedUnderTraffic);
                    self.drain();
                }
            }
        }
    }

    fn peer_turn(&mut self, socket: usize) {
        self.net.tls_turn(socket);
        match self.net.sockets[socket].peer {
            Peer::Client(client) => self.clients[client].turn(&mut self.net),
            Peer::Backend(_) => {
                if let Some(conn) = self.backend_conns.get_mut(socket).and_then(Option::as_mut) {
                    conn.turn(&mut self.net);
                    self.check_max_connections(socket);
                }
            }
        }
    }

    /// A backend accepts a connection, unless the proxy has given it up.
    fn connected(&mut self, socket: usize) {
        let s = &mut self.net.sockets[socket];
        if s.open && s.connecting {
            s.connecting = false;
            s.times.connected = Some(self.net.now);
            let conn = BackendConn::new(socket, &mut self.net);
            if self.backend_conns.len() <= socket {
                self.backend_conns.resize_with(socket + 1, || None);
            }
            self.backend_conns[socket] = Some(conn);
            self.net.edge(socket);
        }
    }

    /// A shard's event loop has a turn.
    fn turn(&mut self, shard: usize) {
        if self.net.drained[shard] {
            return;
        }
        self.net.judge_deadlines(shard);
        let stage = if self.drain_wanted { Stage::Notice } else { Stage::Run };
        self.shards[shard].turn(stage, &mut self.clients, &mut self.net);
        self.check_after_turn(shard);
        self.shards[shard].schedule(&mut self.net);
    }

    pub(crate) fn result(self) -> RunResult {
        let net = self.net;
        RunResult {
            violation: net.ledger.violation,
            coverage: net.coverage,
            hash: net.hash,
            events: net.event_count,
            trace: net.trace_lines.map(Vec::from).unwrap_or_default(),
        }
    }
}
