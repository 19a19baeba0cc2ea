//! The network and the clock of a run: sockets without a kernel, the queue of events to come, the random
//! source, and what the invariant checks have to know. Everything but the proxies and the scripts of their
//! peers.

mod backend_choice;
mod choice_steps;
mod event_queue;
mod listener;
mod peer_io;
mod peer_tls;
mod plaintext_world;
mod shard_world;
mod socket;
mod stream_log;
mod tap;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use ruststrom_core::observe::HealthState;
use ruststrom_core::{ConnId, Endpoint};

use self::event_queue::EventQueue;
use crate::choices::Choices;
use crate::coverage::{Coverage, Mark};
use crate::exchanges::ExchangeLedger;
use crate::random::{SplitMix64, mix};
use crate::scenario::{MS, PoolSpec, Scenario, backend_at};

pub(crate) use self::event_queue::SimEvent;
pub(crate) use self::listener::{ClientSource, SimListener};
pub(crate) use self::peer_tls::{PeerTls, Tamper};
pub(crate) use self::plaintext_world::{HANDSHAKE_FAILED, PlaintextWorld};
pub(crate) use self::shard_world::{ListenerHandle, ShardWorld};
pub(crate) use self::socket::{Peer, PeerRead, Socket};
pub(crate) use self::tap::Sending;

/// How many of the newest lines of a trace are kept.
const MAX_TRACE_LINES: usize = 100_000;

/// The state of a run but for the proxies and the scripts of their peers. All times are nanoseconds of
/// simulated time; sockets, shards, clients and backends go by their number.
pub(crate) struct Net {
    pub(crate) scenario: Scenario,
    pub(crate) rng: SplitMix64,
    pub(crate) now: u64,
    queue: EventQueue,
    /// Every socket that was ever opened.
    pub(crate) sockets: Vec<Socket>,
    /// The socket of a connection of the core, by shard and slot.
    by_slot: Vec<Vec<Option<usize>>>,
    /// How many sockets each shard has open.
    pub(crate) open_sockets: Vec<usize>,
    /// Sockets that the poller of each shard will report at its next turn.
    pub(crate) ready: Vec<Vec<usize>>,
    /// When each shard's next turn is due.
    turn_at: Vec<u64>,
    /// Shards whose drain has ended.
    pub(crate) drained: Vec<bool>,
    pub(crate) backend_modes: Vec<BackendMode>,
    /// Faults happen. False in fault-free runs, and from the healing on.
    pub(crate) faults_on: bool,
    pub(crate) ledger: ExchangeLedger,
    pub(crate) coverage: Coverage,
    /// Over everything that was traced, so that two runs can be compared.
    pub(crate) hash: u64,
    /// How many events have happened.
    pub(crate) event_count: u64,
    pub(crate) trace_lines: Option<VecDeque<String>>,
    /// The pools of every configuration so far.
    pub(crate) config_versions: Vec<Vec<PoolSpec>>,
    /// When each of them came.
    pub(crate) config_times: Vec<u64>,
    /// Which of them each shard has.
    pub(crate) shard_version: Vec<usize>,
    /// Which of them each shard was given last: it takes that one when it reads its mailbox.
    pub(crate) posted_version: Vec<usize>,
    /// How many turns all shards together have had.
    pub(crate) turn: u64,
    /// Backends that are known to be unhealthy, by pool and label, with the turn in which that was recorded.
    pub(crate) unhealthy: BTreeMap<(String, String), u64>,
    /// Labels of backends that a reload added, removed or changed: what was known of their health may be
    /// lost.
    pub(crate) reload_changed: BTreeSet<String>,
    /// Sockets that were opened in this turn to backends that were unhealthy before it.
    pub(crate) suspect_connects: Vec<usize>,
    /// The latest turn in which a shard closed a used connection to a backend, as (turn, shard, backend):
    /// the request may be sent again to that backend, healthy or not.
    replay_allowed: (u64, usize, usize),
    /// Choices of backends so far.
    pub(crate) choices: Choices,
    /// Requests of this turn that did not go over a connection of their client alone, and that connection.
    pub(crate) left_connections: Vec<(u64, usize)>,
    /// Connections to backends that did not react: established when the run heals.
    pub(crate) unanswered_connects: Vec<usize>,
    /// Every request that the proxy has sent to a backend, in the order of their beginning.
    pub(crate) sendings: Vec<Sending>,
    /// Connections that failed at once, without a socket.
    pub(crate) connect_errors: Vec<ConnectError>,
    /// Each change of a backend's health, as the proxy told of it, in its order.
    pub(crate) health_log: Vec<HealthEntry>,
    /// Shards that were nudged in this turn.
    pub(crate) nudged: BTreeSet<usize>,
    /// Health probes that ended in this turn, by their sockets.
    pub(crate) ended_probes: Vec<usize>,
    /// What is known of each client's exchanges.
    pub(crate) client_exchanges: Vec<ClientExchanges>,
    /// The ids of each client's requests.
    pub(crate) client_requests: Vec<Vec<u64>>,
    /// The sockets that each shard has open.
    pub(crate) open_by_shard: Vec<Vec<usize>>,
    /// When which client was admitted by a rate limit, by pool, place of the limit among those of the pool,
    /// and client.
    pub(crate) admissions: BTreeMap<(&'static str, usize, String), Vec<u64>>,
    /// A reload has changed a rate limit.
    pub(crate) limits_changed: bool,
    /// When the drain begins, once a stop is wanted: until then everything is served.
    pub(crate) drain_from: Option<u64>,
    /// The deadline of the drain, once there is one.
    pub(crate) drain_by: Option<u64>,
    /// Where each client was accepted.
    pub(crate) accepted_at: BTreeMap<usize, SocketAddr>,
    /// The version that each shard had before the one that it has.
    pub(crate) version_before: Vec<usize>,
    /// The socket of each client; `usize::MAX`: not accepted yet.
    pub(crate) client_sockets: Vec<usize>,
    /// Lent to whichever peer reads, so that reading allocates nothing.
    pub(crate) read_buffer: Vec<u8>,
}

/// A connect that failed before there was a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectError {
    pub(crate) at: u64,
    pub(crate) shard: usize,
    /// The number of the simulated backend.
    pub(crate) backend: usize,
    pub(crate) errno: i32,
    pub(crate) conn: ConnId,
}

/// A backend's health changed.
#[derive(Clone, Debug)]
pub(crate) struct HealthEntry {
    pub(crate) at: u64,
    pub(crate) pool: String,
    pub(crate) label: String,
    pub(crate) from: HealthState,
    pub(crate) to: HealthState,
    /// A health check noticed it, not a request.
    pub(crate) by_check: bool,
    /// What was seen.
    pub(crate) seen: String,
}

/// The exchanges of one client that have ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientExchanges {
    /// How many.
    pub(crate) ended: usize,
    /// When the last one ended; 0: none has.
    pub(crate) last_end: u64,
    /// How many bytes of the client belong to those.
    pub(crate) read_at_end: u64,
}

/// What state a backend is in as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackendMode {
    Healthy,
    /// Nobody listens.
    Refusing,
    /// Connections are neither accepted nor refused.
    Unresponsive,
    /// Probes succeed, all other requests fail.
    FailingTraffic,
    /// Probes fail, all other requests succeed.
    FailingProbes,
    /// Probes take as long as a slow backend's.
    SlowProbes,
    /// Every handshake fails.
    FailingHandshakes,
}

impl Net {
    /// A drain has begun.
    pub(crate) fn drains(&self) -> bool {
        self.drain_from.is_some_and(|from| self.now >= from)
    }

    pub(crate) fn new(scenario: Scenario, traced: bool) -> Self {
        let shards = usize::from(scenario.shards);
        let backend_modes = vec![BackendMode::Healthy; scenario.backend_count + 2];
        Self {
            rng: SplitMix64::new(mix(scenario.seed ^ 0xfeed)),
            now: MS,
            queue: EventQueue::default(),
            sockets: Vec::new(),
            by_slot: vec![Vec::new(); shards],
            open_sockets: vec![0; shards],
            ready: vec![Vec::new(); shards],
            turn_at: vec![u64::MAX; shards],
            drained: vec![false; shards],
            backend_modes,
            faults_on: !scenario.fault_free,
            ledger: ExchangeLedger::default(),
            coverage: Coverage::default(),
            hash: scenario.seed,
            event_count: 0,
            trace_lines: traced.then(VecDeque::new),
            choices: Choices::default(),
            left_connections: Vec::new(),
            unanswered_connects: Vec::new(),
            sendings: Vec::new(),
            connect_errors: Vec::new(),
            health_log: Vec::new(),
            nudged: BTreeSet::new(),
            ended_probes: Vec::new(),
            client_exchanges: Vec::new(),
            client_requests: Vec::new(),
            open_by_shard: vec![Vec::new(); shards],
            admissions: BTreeMap::new(),
            limits_changed: false,
            drain_from: None,
            drain_by: None,
            accepted_at: BTreeMap::new(),
            version_before: vec![0; shards],
            client_sockets: Vec::new(),
            read_buffer: Vec::new(),
            config_times: vec![0],
            config_versions: vec![scenario.pools.clone()],
            shard_version: vec![0; shards],
            posted_version: vec![0; shards],
            turn: 0,
            unhealthy: BTreeMap::new(),
            reload_changed: BTreeSet::new(),
            suspect_connects: Vec::new(),
            replay_allowed: (0, 0, 0),
            scenario,
        }
    }

    /// Something has happened: it goes into the hash by its number, and into the trace, if that is kept, by
    /// its text. The number is made of the kind of event and what matters of it.
    pub(crate) fn trace(&mut self, what: u64, text: impl FnOnce() -> String) {
        self.hash = mix(self.hash ^ what ^ self.now.rotate_left(32));
        if let Some(lines) = &mut self.trace_lines {
            let line = format!("{:>6} {:>12.6} {}", self.event_count, self.now as f64 / 1e9, text());
            lines.push_back(line);
            if lines.len() > MAX_TRACE_LINES {
                lines.pop_front();
            }
        }
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        self.coverage.mark(mark);
    }

    /// Whether a fault that happens `permille` times of a thousand happens now. Never while faults are off.
    pub(crate) fn fault(&mut self, permille: u32, mark: Mark) -> bool {
        let hit = self.faults_on && self.rng.chance(permille);
        if hit {
            self.mark(mark);
        }
        hit
    }

    /// Whether a socket does something unusual that every kernel may do: in fault-free runs too.
    fn kernel_quirk(&mut self, permille: u32, mark: Mark) -> bool {
        let hit = self.rng.chance(permille);
        if hit {
            self.mark(mark);
        }
        hit
    }

    /// In what state a backend is for a probe that has come.
    pub(crate) fn probed_mode(&self, backend: usize) -> BackendMode {
        let known = self.scenario.known_probes.get(backend).filter(|_| self.scenario.fault_free);
        match known {
            _ if self.faults_on => self.backend_modes[backend],
            Some(known) if self.now < known.fails_until => BackendMode::FailingProbes,
            Some(known) if known.slow => BackendMode::SlowProbes,
            _ => BackendMode::Healthy,
        }
    }

    /// Something will happen at `when`, or as soon as possible if that is over.
    pub(crate) fn schedule(&mut self, when: u64, event: SimEvent) {
        self.queue.push(when.max(self.now + 1), event);
    }

    /// A backend sends what violates HTTP, or what nobody asked for.
    pub(crate) fn violates(&mut self, socket: usize) {
        let now = self.now;
        self.sockets[socket].times.violated.get_or_insert(now);
    }

    /// Connecting failed at once.
    fn connect_error(&mut self, shard: usize, conn: ConnId, to: &Endpoint, errno: i32) {
        if let Some(backend) = backend_at(to) {
            self.connect_errors.push(ConnectError { at: self.now, shard, backend, errno, conn });
        }
    }

    /// A shard reads its mailbox, and takes the newest configuration that is there.
    fn take_version(&mut self, shard: usize) {
        let version = self.posted_version[shard];
        let before = std::mem::replace(&mut self.shard_version[shard], version);
        if before == version {
            return;
        }
        self.version_before[shard] = before;
        self.choices.taken_in.insert(shard, self.turn);
        self.trace(32 << 40 | shard as u64, || format!("shard {shard} takes version {version}"));
        for socket in self.client_sockets.iter().filter(|s| **s != usize::MAX) {
            let s = &mut self.sockets[*socket];
            if s.shard == shard {
                s.read_at_reload.push((s.to_proxy.read_total, version));
            }
        }
    }

    /// The version by which a shard serves whoever it accepts now, or a newer one: those who had connected to
    /// a listener that a reload takes away are taken before the rest of it counts.
    pub(crate) fn accepting_version(&self, shard: usize) -> usize {
        let takes = self.choices.taken_in.get(&shard) == Some(&self.turn);
        if takes { self.version_before[shard] } else { self.shard_version[shard] }
    }

    /// A shard's turn is over: whoever it accepted while it took a configuration has that one now.
    pub(crate) fn taken(&mut self, shard: usize) {
        if self.choices.taken_in.get(&shard) != Some(&self.turn) {
            return;
        }
        let version = self.shard_version[shard];
        for socket in self.client_sockets.iter().filter(|s| **s != usize::MAX) {
            let s = &mut self.sockets[*socket];
            if s.shard == shard && s.read_at_reload.last().is_some_and(|(_, known)| *known < version) {
                s.read_at_reload.push((s.to_proxy.read_total, version));
            }
        }
    }

    /// The next event; the clock moves on to it.
    pub(crate) fn next(&mut self) -> Option<SimEvent> {
        let (when, event) = self.queue.pop()?;
        self.now = when;
        self.event_count += 1;
        Some(event)
    }

    /// When the next event is due.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.queue.next_at()
    }

    /// Draws how long something is under way.
    pub(crate) fn delay(&mut self) -> u64 {
        let max = self.scenario.sockets.delay;
        1 + self.rng.below(max + 1)
    }

    /// The event loop of a shard has its next turn at `when` at the latest.
    pub(crate) fn wake(&mut self, shard: usize, when: u64) {
        let when = when.max(self.now + 1);
        if when < self.turn_at[shard] {
            self.turn_at[shard] = when;
            self.schedule(when, SimEvent::WorkerTurn(shard));
        }
    }

    /// Whether a shard's turn is due now; an event for a turn that was moved forward is not.
    pub(crate) fn turn_due(&mut self, shard: usize) -> bool {
        if self.turn_at[shard] != self.now {
            return false;
        }
        self.turn_at[shard] = u64::MAX;
        true
    }
}
