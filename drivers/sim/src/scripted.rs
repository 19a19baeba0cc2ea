//! A world that does as it is told: one shard with the same sockets, pump and turns as under the dice, but
//! clients and machines are whoever calls. Time is nobody's but the simulator's: it jumps to the next thing
//! that happens, so that waiting costs nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::Config;
use ruststrom_core::proxy::Counts;
use ruststrom_core::{ConnId, Instant, Observer, Proxy, Shared};
use ruststrom_driver::pump::Pump;
use ruststrom_driver::worker::Outcome;

use crate::draw::{Draw, MS, SEC, machine_address};
use crate::ledger::Violation;
use crate::net::{Event, Far, Mode, Net, Read};
use crate::shard::{Callers, Shard};

/// Nobody waits longer than this for anything.
const PATIENCE: u64 = 20 * SEC;
/// A drain that is not over so long after its deadline is given up, as a worker does it.
const GRACE: u64 = 2 * SEC;

/// How a machine takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Whoever comes is let in.
    Open,
    /// Nobody listens.
    Refusing,
    /// Nobody answers.
    Silent,
}

/// What a far end got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// These, and maybe more behind them.
    Bytes(Vec<u8>),
    /// The end of what the proxy sends.
    End,
    /// A reset.
    Reset,
}

/// The far end of a connection: a client's, or a machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FarEnd(usize);

/// The world.
pub struct Scripted<O: Observer> {
    net: Net,
    shard: Shard<O>,
    cast: Cast,
    drain_within: Duration,
    /// The deadline of a drain.
    until: Option<u64>,
    /// What passes between two things that are told.
    moment: u64,
}

/// Who is at the far ends.
struct Cast {
    /// Sockets of clients.
    clients: Vec<usize>,
    /// Sockets that nobody has taken yet, by machine.
    waiting: Vec<VecDeque<usize>>,
}

impl Callers for Cast {
    fn addresses(&self, client: usize) -> (SocketAddr, SocketAddr) {
        (SocketAddr::from(([127, 0, 0, 1], 50_000 + client as u16)), address())
    }

    fn accepted(&mut self, client: usize, shard: usize, c: ConnId, net: &mut Net) {
        let sock = self.clients[client];
        net.adopt(sock, shard, c);
        // Whoever begins to poll a socket is told what has come to it before, as by epoll.
        net.edge(sock);
    }

    fn refused(&mut self, client: usize, net: &mut Net) {
        net.part(self.clients[client], false);
    }
}

/// Where the proxy listens, whatever its configuration says of that.
#[must_use]
pub fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 40_961))
}

/// Where a machine is.
#[must_use]
pub fn machine(nth: usize) -> SocketAddr {
    machine_address(nth, false)
}

impl<O: Observer> Scripted<O> {
    /// A proxy and its machines. All seeds are alike to whoever looks on from outside; what differs is all
    /// that a kernel may do as it likes: delays, calls that would block or are interrupted, the order of
    /// events, timers that are late.
    #[must_use]
    pub fn new(config: Arc<Config>, host: &str, seed: u64, observer: O, doors: &[Door]) -> Self {
        let draw = Draw::scripted(seed, doors.len());
        let mut net = Net::new(draw, false);
        // Mostly what was told first has come about before the next; but a script may not lean on that.
        let moment = net.dice.one(&[0, 5 * MS, 5 * MS]);
        for (mode, door) in net.machines.iter_mut().zip(doors) {
            *mode = match door {
                Door::Open => Mode::Up,
                Door::Refusing => Mode::Refuses,
                Door::Silent => Mode::BlackHole,
            };
        }
        let now = Instant::from_nanos(net.now);
        let drain_within = config.timeouts.drain;
        let proxy = Proxy::new(config, Arc::new(Shared::new(host, 1)), 0, seed, observer, now);
        let cast = Cast { clients: Vec::new(), waiting: vec![VecDeque::new(); doors.len()] };
        net.wake(0, 0);
        Self { net, shard: Shard::new(Pump::new(proxy, now), 0), cast, drain_within, until: None, moment }
    }

    /// A client connects; `None` if nobody listens any more.
    pub fn connect(&mut self) -> Option<FarEnd> {
        if self.shard.draining {
            return None;
        }
        let client = self.cast.clients.len();
        let sock = self.net.open_sock(Far::Client(client), false);
        self.cast.clients.push(sock);
        self.shard.call(client, &mut self.cast, &mut self.net);
        self.pass();
        Some(FarEnd(sock))
    }

    /// The next connection to a machine, once the proxy has made it; `None` if it never does.
    ///
    /// # Panics
    /// If there is no such machine.
    pub fn take(&mut self, machine: usize) -> Option<FarEnd> {
        self.wait_for(|s| s.cast.waiting[machine].pop_front()).map(FarEnd)
    }

    /// Writes everything; false if the connection is broken or nobody reads.
    pub fn write(&mut self, end: FarEnd, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let wrote = self.wait_for(|s| {
                let broken = s.net.socks[end.0].far_reset;
                let n = if broken { 0 } else { s.net.far_write(end.0, rest) };
                (broken || n > 0).then_some(n)
            });
            match wrote {
                Some(n) if n > 0 => rest = &rest[n..],
                _ => return false,
            }
        }
        self.pass();
        true
    }

    /// What comes next; `None` if nothing ever does.
    pub fn read(&mut self, end: FarEnd) -> Option<Came> {
        self.wait_for(|s| {
            let mut bytes = Vec::new();
            match s.net.far_read(end.0, usize::MAX, &mut bytes) {
                Read::Bytes => Some(Came::Bytes(bytes)),
                Read::Nothing => None,
                Read::End => Some(Came::End),
                Read::Reset => Some(Came::Reset),
            }
        })
    }

    /// Sends no more.
    pub fn finish(&mut self, end: FarEnd) {
        self.net.far_end(end.0);
        self.pass();
    }

    /// Closes: by a reset if something was left unread.
    pub fn close(&mut self, end: FarEnd) {
        self.net.far_close(end.0);
        self.pass();
    }

    /// Resets.
    pub fn reset(&mut self, end: FarEnd) {
        self.net.far_abort(end.0);
        self.pass();
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        self.run_until(self.net.now + time.as_nanos() as u64);
    }

    /// Begins a graceful stop.
    pub fn drain(&mut self) {
        if self.until.is_none() {
            self.until = Some(self.net.now + self.drain_within.as_nanos() as u64);
            self.net.wake(0, 0);
            self.pass();
        }
    }

    /// Stops gracefully. An error is a rule that was broken at any time, and the proxy's or the pump's fault.
    pub fn end(&mut self) -> Result<Outcome, Violation> {
        self.drain();
        let until = self.until.unwrap_or(0);
        while !self.net.drained[0] && self.net.next_at().is_some_and(|at| at <= until + GRACE) {
            self.step();
        }
        let finished = self.net.drained[0] && self.net.now < until;
        let counts = self.shard.pump.machine().counts();
        if !self.net.drained[0] || counts != Counts::default() || self.net.open[0] > 0 {
            self.net
                .ledger
                .fail("nothing-left", format!("{counts:?}, {} sockets are open", self.net.open[0]));
        }
        match self.net.ledger.violation.take() {
            Some(violation) => Err(violation),
            None => Ok(if finished { Outcome::Finished } else { Outcome::Cut }),
        }
    }

    /// Between two things that are told, what was told first comes first.
    fn pass(&mut self) {
        self.run_until(self.net.now + self.moment);
    }

    fn wait_for<T>(&mut self, mut there: impl FnMut(&mut Self) -> Option<T>) -> Option<T> {
        let give_up = self.net.now + PATIENCE;
        loop {
            if let Some(found) = there(self) {
                return Some(found);
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
            Event::Turn(shard) => {
                if self.net.turns(shard) && !self.net.drained[shard] {
                    self.shard.turn(self.until.map(Instant::from_nanos), &mut self.cast, &mut self.net);
                    self.shard.pump.machine().check();
                    self.shard.pump.check();
                    self.shard.schedule(&mut self.net);
                }
            }
            Event::Arrive { sock, up, .. } | Event::Fin { sock, up } | Event::Rst { sock, up } => {
                self.net.arrive(sock, up, &event)
            }
            Event::Edge(sock) => self.net.edge(sock),
            Event::Connected(sock) => {
                let s = &mut self.net.socks[sock];
                if s.open && s.connecting {
                    s.connecting = false;
                    if let Far::Machine(machine) = s.far {
                        self.cast.waiting[machine].push_back(sock);
                    }
                    self.net.edge(sock);
                }
            }
            Event::ConnectFails(sock, code) => self.net.connect_fails(sock, code),
            Event::Nudge(shard) => {
                self.net.nudged[shard] = true;
                self.net.wake(shard, 0);
            }
            Event::Found(shard, id, response) => {
                self.net.found[shard].push((id, *response));
                self.net.wake(shard, 0);
            }
            // Nobody at a far end acts by himself, and nothing is drawn.
            Event::Peer(sock) => {
                self.net.far_turns(sock);
            }
            Event::Client(_) | Event::Reload | Event::ReloadShard(_) | Event::Flap | Event::Drain => {}
        }
    }
}
