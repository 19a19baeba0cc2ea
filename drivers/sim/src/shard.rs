//! A simulated worker: its pump, the clients that wait to be accepted, and the turns of its event loop. It
//! does not know what plays the clients.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ruststrom_core::{Accepted, ConnId, Instant, ListenerId, Observer, Proxy, Wall};
use ruststrom_driver::pump::Pump;

use crate::coverage::Mark;
use crate::net::{Net, ShardWorld};
use crate::scenario::{MS, SEC};

/// The one listener.
const LISTENER: ListenerId = ListenerId(0);
/// Connections taken in one turn.
const ACCEPTS: usize = 16;

/// Clients, as a shard that accepts them sees them: by number.
pub(crate) trait ClientSource {
    /// Where it connects from, and where to.
    fn addresses(&self, client: usize) -> (SocketAddr, SocketAddr);
    /// It was accepted: puts its socket into the net.
    fn accepted(&mut self, client: usize, shard: usize, c: ConnId, net: &mut Net);
    /// The core would not have it, or nobody listens any more.
    fn refused(&mut self, client: usize, net: &mut Net);
}

/// One shard.
pub(crate) struct Shard<O: Observer> {
    pub(crate) pump: Pump<Proxy<O>>,
    number: usize,
    queue: VecDeque<usize>,
    paused: u64,
    wall_at: u64,
    /// Its listener is closed.
    pub(crate) draining: bool,
    spin: (u64, u64),
}

impl<O: Observer> Shard<O> {
    pub(crate) fn new(pump: Pump<Proxy<O>>, number: usize) -> Self {
        Self { pump, number, queue: VecDeque::new(), paused: 0, wall_at: 0, draining: false, spin: (0, 0) }
    }

    /// A client has connected.
    pub(crate) fn client_connects(&mut self, client: usize, clients: &mut impl ClientSource, net: &mut Net) {
        if self.draining {
            return clients.refused(client, net);
        }
        self.queue.push_back(client);
        let soon = net.now + net.delay();
        net.wake(self.number, soon);
    }

    /// Tries to accept again, whatever it ran out of.
    pub(crate) fn unpause(&mut self, net: &mut Net) {
        self.paused = 0;
        net.wake(self.number, 0);
    }

    /// One turn of the event loop, as a worker does it. `drain`: by when, once that is wanted.
    pub(crate) fn turn(&mut self, drain: Option<Instant>, clients: &mut impl ClientSource, net: &mut Net) {
        let (now, shard) = (net.now, self.number);
        net.turn += 1;
        self.pump.begin(Instant::from_nanos(now));
        // The poller tells of a whole batch at once; what happens meanwhile makes some of it stale.
        let mut batch: Vec<usize> = std::mem::take(&mut net.ready[shard]);
        for i in (1..batch.len()).rev() {
            batch.swap(i, net.rng.below(i as u64 + 1) as usize);
        }
        batch.retain(|s| net.sockets[*s].open);
        let told: Vec<_> = batch.iter().map(|s| (net.sockets[*s].conn, net.readiness(*s))).collect();
        net.trace(30 << 40 | (shard as u64) << 20 | told.len() as u64, || {
            format!("shard {shard} turns: {told:?}")
        });
        let mut view = ShardWorld { net, shard };
        if now >= self.wall_at {
            self.wall_at = now + SEC;
            self.pump.wall(Wall { unix_secs: 1_700_000_000 + now / SEC, millis: 0 }, &mut view);
        }
        let often = view.net.scenario.check_each_input;
        for (c, readiness) in told {
            if view.net.socket_of(shard, c).is_none() {
                view.net.mark(Mark::StaleEvent);
            }
            self.pump.ready(c, readiness, &mut view);
            if often {
                self.pump.machine().check();
                self.pump.check();
            }
        }
        if std::mem::take(&mut view.net.nudged[shard]) {
            self.pump.nudged(&mut view);
        }
        for (id, response) in std::mem::take(&mut view.net.lookup_results[shard]) {
            self.pump.response(id, response, &mut view);
        }
        self.pump.resume(&mut view);
        self.accept(ACCEPTS, clients, net);
        let mut view = ShardWorld { net, shard };
        self.pump.tick(&mut view);
        self.pump.settle(&mut view);
        if let Some(until) = drain.filter(|_| !self.draining) {
            self.draining = true;
            self.accept(usize::MAX, clients, net);
            for client in std::mem::take(&mut self.queue) {
                clients.refused(client, net);
            }
            self.pump.drain(until, &mut ShardWorld { net, shard });
        }
    }

    fn accept(&mut self, most: usize, clients: &mut impl ClientSource, net: &mut Net) {
        let (shard, files) = (self.number, net.scenario.system.files as usize);
        for _ in 0..most {
            if self.queue.is_empty() || (!self.pump.accepting(LISTENER) && most < usize::MAX) {
                return;
            }
            if net.faults_on && files > 0 && net.open_sockets[shard] >= files {
                if self.paused <= net.now {
                    net.mark(Mark::AcceptPaused);
                    self.paused = net.now + 100 * MS;
                }
                return;
            }
            let Some(client) = self.queue.pop_front() else { return };
            let (peer, local) = clients.addresses(client);
            match self.pump.accept(&Accepted { listener: LISTENER, peer, local }) {
                Ok(c) => {
                    clients.accepted(client, shard, c, net);
                    self.pump.opened(c, true, &mut ShardWorld { net, shard });
                }
                Err(_) => {
                    net.mark(Mark::Refused);
                    clients.refused(client, net);
                }
            }
        }
    }

    /// When the loop turns again, after a turn.
    pub(crate) fn schedule(&mut self, net: &mut Net) {
        let shard = self.number;
        if net.drained[shard] {
            return;
        }
        let ms = net.now / MS;
        self.spin = if self.spin.0 == ms { (ms, self.spin.1 + 1) } else { (ms, 0) };
        if self.spin.1 > 20_000 {
            net.ledger.fail("spins", format!("shard {shard} turns and turns"));
        }
        if self.pump.has_backlog() {
            net.mark(Mark::Backlogged);
            net.wake(shard, net.now + 1_000);
        }
        if self.paused > net.now {
            net.wake(shard, self.paused);
        } else if !self.queue.is_empty() && self.pump.accepting(LISTENER) {
            net.wake(shard, net.now + 1_000);
        }
        if let Some(at) = self.pump.poll_timeout().filter(|t| *t != Instant::NEVER) {
            let mut at = at.as_nanos();
            if net.rng.chance(net.scenario.sockets.late_timer) {
                net.mark(Mark::LateTimer);
                at += net.rng.size(50 * MS);
            }
            net.wake(shard, at);
        }
    }
}
