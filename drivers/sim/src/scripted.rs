//! A simulated network for tests that play the clients and backends themselves: one shard with the same
//! sockets, pump and turns as in a run. The clock jumps from event to event, so that waiting costs no time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::{Config, ListenerKind};
use ruststrom_core::proxy::Counts;
use ruststrom_core::{ConnId, Instant, ListenerId, Proxy, Shared};
use ruststrom_driver::mailbox::Command;
use ruststrom_driver::observer::WorkerObserver;
use ruststrom_driver::stop::Stage;
use ruststrom_driver::turn::DrainEnd;

use crate::exchanges::InvariantViolation;
use crate::net::{BackendMode, ClientSource, Net, Peer, PeerRead, SimEvent};
use crate::scenario::{MS, SEC, Scenario};
use crate::shard::{ListenerPlace, Shard};

/// How long [`Scripted`] waits for something that a test asks for, in nanoseconds of simulated time.
const WAIT_TIMEOUT: u64 = 20 * SEC;

/// Whether a backend accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendListener {
    /// It accepts every connection.
    Accepting,
    /// Nobody listens: connections are refused.
    Refusing,
    /// Connections are neither accepted nor refused.
    Unresponsive,
}

/// What a peer has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// These bytes; more may follow.
    Bytes(Vec<u8>),
    /// The end of what the proxy sends.
    End,
    /// A reset.
    Reset,
}

/// A client's or a backend's end of a connection of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHandle(usize);

/// One proxy in a simulated network. Its clients and backends are played by the caller.
pub struct Scripted<O: WorkerObserver> {
    net: Net,
    shard: Shard<O>,
    peers: Peers,
    drain_wanted: bool,
    /// How much time passes after each thing that the caller does.
    step_delay: u64,
}

/// The sockets of the clients and backends.
struct Peers {
    /// By client.
    clients: Vec<usize>,
    /// By backend: connections that the caller has not accepted yet.
    waiting: Vec<VecDeque<usize>>,
}

impl ClientSource for Peers {
    fn address(&self, client: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 50_000 + client as u16))
    }

    fn accepted(&mut self, client: usize, shard: usize, c: ConnId, net: &mut Net) {
        let socket = self.clients[client];
        net.adopt(socket, shard, c);
        // A poller reports at once what has arrived before the socket was registered, as epoll does.
        net.edge(socket);
    }

    fn refused(&mut self, client: usize, net: &mut Net) {
        net.close_proxy_end(self.clients[client], false);
    }
}

/// The address that the proxy listens on, whatever its configuration says.
#[must_use]
pub fn proxy_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 40_961))
}

/// The address of the `nth` backend, from 0 on.
#[must_use]
pub fn backend_address(nth: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, nth as u8 + 1], 8000))
}

impl<O: WorkerObserver> Scripted<O> {
    /// A proxy with this configuration, and its backends. What a peer sees must not depend on the seed: it
    /// draws only what every kernel may do, such as delays, calls that would block or are interrupted, the
    /// order of events, late timers.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        host: &str,
        seed: u64,
        observer: O,
        listeners: &[BackendListener],
    ) -> Self {
        let scenario = Scenario::scripted(seed, listeners.len());
        let mut net = Net::new(scenario, false);
        // Usually what the caller does has its effect before the next thing that it does; a test must not
        // rely on that.
        let step_delay = net.rng.pick(&[0, 5 * MS, 5 * MS]);
        for (mode, listener) in net.backend_modes.iter_mut().zip(listeners) {
            *mode = match listener {
                BackendListener::Accepting => BackendMode::Healthy,
                BackendListener::Refusing => BackendMode::Refusing,
                BackendListener::Unresponsive => BackendMode::Unresponsive,
            };
        }
        let now = Instant::from_nanos(net.now);
        let proxy = Proxy::new(config.clone(), Arc::new(Shared::new(host, 1)), 0, seed, observer, now);
        let peers = Peers { clients: Vec::new(), waiting: vec![VecDeque::new(); listeners.len()] };
        net.wake(0, 0);
        let (id, kind) = (ListenerId(0), ListenerKind::Http);
        let place = ListenerPlace { id, kind, address: proxy_address() };
        let shard = Shard::new(proxy, config, 0, &[place], &net);
        Self { net, shard, peers, drain_wanted: false, step_delay }
    }

    /// A client connects; `None` if the proxy listens no more.
    pub fn connect(&mut self) -> Option<PeerHandle> {
        if self.shard.is_closed() {
            return None;
        }
        let client = self.peers.clients.len();
        let socket = self.net.open_socket(Peer::Client(client), false);
        self.peers.clients.push(socket);
        self.shard.client_connects(client, &mut self.peers, &mut self.net);
        self.pass_step();
        Some(PeerHandle(socket))
    }

    /// A backend accepts the next connection of the proxy; `None` if none comes.
    ///
    /// # Panics
    /// If there is no such backend.
    pub fn accept(&mut self, backend: usize) -> Option<PeerHandle> {
        self.wait_for(|s| s.peers.waiting[backend].pop_front()).map(PeerHandle)
    }

    /// A peer writes all bytes; false if the connection is reset or the proxy does not read them.
    pub fn write(&mut self, end: PeerHandle, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let wrote = self.wait_for(|s| {
                let broken = s.net.sockets[end.0].peer_got_reset;
                let n = if broken { 0 } else { s.net.peer_write(end.0, rest) };
                (broken || n > 0).then_some(n)
            });
            match wrote {
                Some(n) if n > 0 => rest = &rest[n..],
                _ => return false,
            }
        }
        self.pass_step();
        true
    }

    /// A peer reads what comes next; `None` if nothing comes.
    pub fn read(&mut self, end: PeerHandle) -> Option<Received> {
        self.wait_for(|s| {
            let mut bytes = Vec::new();
            match s.net.peer_read(end.0, usize::MAX, &mut bytes) {
                PeerRead::Bytes => Some(Received::Bytes(bytes)),
                PeerRead::WouldBlock => None,
                PeerRead::End => Some(Received::End),
                PeerRead::Reset => Some(Received::Reset),
            }
        })
    }

    /// A peer ends its half of the connection.
    pub fn finish(&mut self, end: PeerHandle) {
        self.net.peer_shutdown(end.0);
        self.pass_step();
    }

    /// A peer closes its connection: with a reset if it leaves anything unread, as kernels do.
    pub fn close(&mut self, end: PeerHandle) {
        self.net.peer_close(end.0);
        self.pass_step();
    }

    /// A peer resets its connection.
    pub fn reset(&mut self, end: PeerHandle) {
        self.net.peer_reset(end.0);
        self.pass_step();
    }

    /// Lets simulated time pass.
    pub fn wait(&mut self, time: Duration) {
        self.run_until(self.net.now + time.as_nanos() as u64);
    }

    /// Begins a drain, whose deadline is the configured one.
    pub fn drain(&mut self) {
        if !std::mem::replace(&mut self.drain_wanted, true) {
            self.net.wake(0, 0);
            self.pass_step();
        }
    }

    /// Drains to the end, and tells how that ended.
    ///
    /// # Errors
    /// The first invariant that was violated at any time since the beginning, which is a bug of core or pump.
    pub fn end(&mut self) -> Result<DrainEnd, InvariantViolation> {
        self.drain();
        let drain_end = loop {
            match self.shard.event_loop.drain_end() {
                Some(end) => break end,
                // A drain that the core does not end is given up some time after its deadline.
                None => self.step(),
            }
        };
        let counts = self.shard.proxy().counts();
        if !self.net.drained[0] || counts != Counts::default() || self.net.open_sockets[0] > 0 {
            self.net
                .ledger
                .fail("nothing-left", format!("{counts:?}, {} sockets are open", self.net.open_sockets[0]));
        }
        match self.net.ledger.violation.take() {
            Some(violation) => Err(violation),
            None => Ok(drain_end),
        }
    }

    /// Lets what the caller has done have its effect.
    fn pass_step(&mut self) {
        self.run_until(self.net.now + self.step_delay);
    }

    /// Runs until `found` finds something, at most for [`WAIT_TIMEOUT`].
    fn wait_for<T>(&mut self, mut found: impl FnMut(&mut Self) -> Option<T>) -> Option<T> {
        let give_up = self.net.now + WAIT_TIMEOUT;
        loop {
            if let Some(result) = found(self) {
                return Some(result);
            }
            if self.net.next_at().is_none_or(|at| at > give_up) {
                return None;
            }
            self.step();
        }
    }

    fn run_until(&mut self, at: u64) {
        while self.net.next_at().is_some_and(|next| next <= at) {
            self.step();
        }
        self.net.now = self.net.now.max(at);
    }

    fn step(&mut self) {
        let Some(event) = self.net.next() else { return };
        match event {
            SimEvent::WorkerTurn(shard) => {
                if self.net.turn_due(shard) && !self.net.drained[shard] {
                    let stage = if self.drain_wanted { Stage::Notice } else { Stage::Run };
                    self.shard.turn(stage, &mut self.peers, &mut self.net);
                    self.shard.event_loop.check();
                    self.shard.schedule(&mut self.net);
                }
            }
            SimEvent::Arrive { socket, to_proxy, .. }
            | SimEvent::Fin { socket, to_proxy }
            | SimEvent::Rst { socket, to_proxy } => self.net.arrive(socket, to_proxy, &event),
            SimEvent::ReadinessEdge(socket) => self.net.edge(socket),
            SimEvent::Connected(socket) => {
                let s = &mut self.net.sockets[socket];
                if s.open && s.connecting {
                    s.connecting = false;
                    if let Peer::Backend(backend) = s.peer {
                        self.peers.waiting[backend].push_back(socket);
                    }
                    self.net.edge(socket);
                }
            }
            SimEvent::ConnectFailed(socket, code) => self.net.connect_failed(socket, code),
            SimEvent::Nudge(shard) => {
                debug_assert_eq!(shard, 0, "there is one shard");
                self.shard.post(Command::Nudge, &mut self.net);
            }
            SimEvent::LookupDone(_, id, result) => {
                let done = Command::LookupDone { generation: 0, id, result: *result };
                self.shard.post(done, &mut self.net);
            }
            // Peers do only what the caller says, and nothing else is scheduled.
            SimEvent::PeerTurn(socket) => {
                self.net.peer_due(socket);
            }
            SimEvent::ClientConnects(_)
            | SimEvent::Reload
            | SimEvent::ReloadShard(_)
            | SimEvent::ChangeBackendMode
            | SimEvent::Drain => {}
        }
    }
}
