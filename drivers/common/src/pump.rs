//! The heart of every driver: carries bytes between the core and a world of sockets. It knows no poller and
//! no socket: the simulator runs this very code on sockets of its own.
//!
//! Readiness is edge triggered: what an event said is remembered until a call would block, falls short, or
//! ends. Each entry point is one input to the core followed by [settling](Pump::settle): the core's two lists
//! are drained until both are empty. One connection gets at most [`ROUNDS`] rounds in a turn of the event
//! loop and is then put on the backlog for the next, or a quick pair of peers would starve the rest.

mod lane;
mod machine;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;

use ruststrom_core::{
    Accepted, ConnId, Effect, Fault, Instant, Listed, ListenerId, LookupId, LookupResult, Query, Refused,
    Wall,
};

use lane::Lane;
pub use machine::Machine;

/// Rounds (at most one write and one read each) for one connection in one turn.
pub const ROUNDS: u8 = 16;

/// The clock is read again after so many connections served in one turn.
const SERVED_PER_CLOCK: u32 = 64;

/// Sockets and the rest of the world. None of the calls blocks.
pub trait World {
    /// Reads; `Ok(0)` is the end of the stream.
    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes; fewer bytes than given means that more would block.
    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Starts connecting; a writable or an error event follows.
    fn connect(&mut self, c: ConnId, to: SocketAddr) -> io::Result<()>;
    /// Why an error event came; `None` if the socket knows no reason (any more).
    fn take_error(&mut self, c: ConnId) -> Option<io::Error>;
    /// Shuts the sending half down.
    fn shutdown(&mut self, c: ConnId);
    /// Closes and forgets the socket, if there is one.
    fn close(&mut self, c: ConnId);
    /// The same by a reset.
    fn reset(&mut self, c: ConnId);
    /// Starts a lookup.
    fn lookup(&mut self, id: LookupId, q: Query);
    /// Wakes another shard.
    fn nudge(&mut self, shard: u16);
    /// The core has nothing left.
    fn drained(&mut self);
    /// The time.
    fn now(&mut self) -> Instant;
}

/// What an event said of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Bytes, or the end, can be read.
    pub readable: bool,
    /// Bytes can be written.
    pub writable: bool,
    /// The peer will send no more (EPOLLRDHUP, EPOLLHUP).
    pub closed: bool,
    /// The socket has an error (EPOLLERR).
    pub error: bool,
}

const OPEN: u8 = 1;
const READABLE: u8 = 1 << 1;
const WRITABLE: u8 = 1 << 2;
/// Every byte there will ever be has arrived: a short read is not the last one.
const READ_CLOSED: u8 = 1 << 3;
const CONNECTING: u8 = 1 << 4;
/// On the backlog.
const QUEUED: u8 = 1 << 5;
/// To be shut down once all has been sent.
const SHUT: u8 = 1 << 6;
/// The core has listed it, and it has not been found without anything to send since.
const LISTED: u8 = 1 << 7;

/// What is remembered of a connection: eight bytes.
#[derive(Clone, Copy, Default)]
struct Flags {
    epoch: u32,
    /// The turn that `rounds` counts in; a stale number costs one trip over the backlog at worst.
    turn: u16,
    bits: u8,
    /// Rounds of this turn in the low five bits; above them a broken socket's fault, told once nothing is
    /// left to read (0: none).
    rounds_fault: u8,
}

const FAULTS: [Fault; 6] =
    [Fault::Refused, Fault::Unreachable, Fault::Reset, Fault::TimedOut, Fault::NoResources, Fault::Other];

impl Flags {
    fn has(self, bits: u8) -> bool {
        self.bits & bits == bits
    }
    fn set(&mut self, bits: u8) {
        self.bits |= bits;
    }
    fn clear(&mut self, bits: u8) {
        self.bits &= !bits;
    }
    fn fault(self) -> Option<Fault> {
        FAULTS.get(usize::from(self.rounds_fault >> 5).wrapping_sub(1)).copied()
    }
    /// Rounds of this turn so far.
    fn rounds(self) -> u8 {
        self.rounds_fault & 0x1f
    }
    /// Served in this turn: rounds of another one do not count.
    fn begin(&mut self, turn: u16) {
        if self.turn != turn {
            self.turn = turn;
            self.rounds_fault &= !0x1f;
        }
    }
    /// Something is left to do with it once its bytes have been dealt with.
    fn parts(self) -> bool {
        self.has(SHUT) || self.rounds_fault > 0x1f
    }
    fn set_fault(&mut self, f: Fault) {
        let code = FAULTS.iter().position(|x| *x == f).unwrap_or(FAULTS.len() - 1) as u8 + 1;
        self.rounds_fault = self.rounds_fault & 0x1f | code << 5;
    }
}

/// An errno as the core knows it.
#[must_use]
pub fn fault_of(e: &io::Error) -> Fault {
    match e.raw_os_error() {
        Some(libc::ECONNREFUSED) => Fault::Refused,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => Fault::Unreachable,
        Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN | libc::ESHUTDOWN) => {
            Fault::Reset
        }
        Some(libc::ETIMEDOUT) => Fault::TimedOut,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL) => {
            Fault::NoResources
        }
        _ => Fault::Other,
    }
}

/// The pump of one shard; owns its machine.
pub struct Pump<M> {
    machine: M,
    /// By slot.
    flags: Vec<Flags>,
    backlog: VecDeque<ConnId>,
    turn: u16,
    served: u32,
    /// Reads that brought bytes.
    reads: u64,
    now: Instant,
    serving: Option<ConnId>,
}

impl<M: Machine> Pump<M> {
    /// A pump without connections.
    pub fn new(machine: M, now: Instant) -> Self {
        Self {
            machine,
            flags: Vec::new(),
            backlog: VecDeque::with_capacity(64),
            turn: 0,
            served: 0,
            reads: 0,
            now,
            serving: None,
        }
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, for what is no input (its observer).
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The turn's time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The connection that is being served: after a panic, the one to give up.
    pub fn serving(&self) -> Option<ConnId> {
        self.serving
    }

    /// A turn of the event loop begins.
    pub fn begin(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.turn = self.turn.wrapping_add(1);
        self.serving = None;
    }

    /// Connections are waiting for another turn: poll without sleeping.
    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// When to turn at the latest, whatever happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// Whether to accept on a listener.
    pub fn accepting(&self, l: ListenerId) -> bool {
        self.machine.accepting(l)
    }

    /// A connection was accepted. Unless it is refused, put its socket into the world under the id and call
    /// [`Pump::opened`].
    pub fn accept(&mut self, a: &Accepted) -> Result<ConnId, Refused> {
        let c = self.machine.handle_accept(a, self.now)?;
        // A fresh socket has room.
        self.remember(c, OPEN | WRITABLE);
        Ok(c)
    }

    /// The socket of an accepted connection is in the world. `at_once`: what lies there is read without an
    /// event. Returns whether anything did.
    pub fn opened<W: World>(&mut self, c: ConnId, at_once: bool, w: &mut W) -> bool {
        let before = self.reads;
        if at_once && let Some(f) = self.live(c) {
            f.set(READABLE);
            self.serve(c, w);
        }
        let read = self.reads != before;
        self.settle(w);
        read
    }

    /// An event.
    pub fn ready<W: World>(&mut self, c: ConnId, r: Readiness, w: &mut W) {
        self.serving = Some(c);
        let Some(f) = self.live(c) else { return };
        let mut bits = 0;
        if r.readable {
            bits |= READABLE;
        }
        if r.closed {
            bits |= READABLE | READ_CLOSED;
        }
        if r.writable {
            bits |= WRITABLE;
        }
        if f.has(CONNECTING) {
            if r.error || r.closed {
                let fault = w.take_error(c).map_or(Fault::Refused, |e| fault_of(&e));
                self.break_off(c, fault);
            } else if r.writable {
                f.clear(CONNECTING);
                f.set(bits);
                self.machine.handle_connected(c, self.now);
            } else {
                f.set(bits);
            }
        } else {
            f.set(bits);
            if r.error {
                let fault = w.take_error(c).map_or(Fault::Reset, |e| fault_of(&e));
                self.broken(c, fault);
            }
        }
        self.serve(c, w);
        self.settle(w);
    }

    /// The world lost a socket for a reason of its own.
    pub fn fault<W: World>(&mut self, c: ConnId, fault: Fault, w: &mut W) {
        if self.live(c).is_some() {
            self.break_off(c, fault);
        }
        self.settle(w);
    }

    /// Closes a connection behind the machine's back, after a panic that left it in no state to be told.
    pub fn abandon<W: World>(&mut self, c: ConnId, w: &mut W) {
        self.serving = None;
        if self.forget(c) {
            w.close(c);
        }
    }

    /// A lookup ended.
    pub fn response<W: World>(&mut self, l: LookupId, a: LookupResult, w: &mut W) {
        self.machine.handle_lookup(l, a, self.now);
        self.settle(w);
    }

    /// Another shard nudged this one.
    pub fn nudged<W: World>(&mut self, w: &mut W) {
        self.machine.handle_shared(self.now);
        self.settle(w);
    }

    /// The wall clock, at most once a second.
    pub fn wall<W: World>(&mut self, wall: Wall, w: &mut W) {
        self.machine.handle_wall(wall);
        self.settle(w);
    }

    /// Tells the time if the machine waits for it.
    pub fn tick<W: World>(&mut self, w: &mut W) {
        if self.machine.poll_timeout().is_some_and(|t| t <= self.now) {
            self.machine.handle_timeout(self.now);
            self.settle(w);
        }
    }

    /// Begins a drain.
    pub fn drain<W: World>(&mut self, until: Instant, w: &mut W) {
        self.machine.drain(until, self.now);
        self.settle(w);
    }

    /// Goes on with those that had used up their rounds in an earlier turn.
    pub fn resume<W: World>(&mut self, w: &mut W) {
        for _ in 0..self.backlog.len() {
            let Some(c) = self.backlog.pop_front() else { break };
            let Some(f) = self.live(c) else { continue };
            f.clear(QUEUED);
            self.serve(c, w);
            self.settle(w);
        }
    }

    /// Drains the machine's lists until both are empty.
    pub fn settle<W: World>(&mut self, w: &mut W) {
        loop {
            if let Some(Listed { conn, send }) = self.machine.poll_conn() {
                if let Some(f) = self.live(conn) {
                    f.bits |= if send { LISTED } else { 0 };
                    if f.bits & (LISTED | READABLE | SHUT) != 0 || f.fault().is_some() {
                        self.serve(conn, w);
                    }
                }
            } else if let Some(e) = self.machine.poll_effect() {
                self.effect(e, w);
            } else {
                return;
            }
        }
    }

    fn effect<W: World>(&mut self, e: Effect, w: &mut W) {
        match e {
            Effect::Connect { conn, to } => {
                self.remember(conn, OPEN | CONNECTING);
                if let Err(e) = w.connect(conn, to) {
                    self.break_off(conn, fault_of(&e));
                }
            }
            Effect::Shutdown(c) => {
                if let Some(f) = self.live(c) {
                    f.set(SHUT);
                    self.serve(c, w);
                }
            }
            Effect::Close(c) => {
                if self.forget(c) {
                    w.close(c);
                }
            }
            Effect::Reset(c) => {
                if self.forget(c) {
                    w.reset(c);
                }
            }
            Effect::Lookup { id, query } => w.lookup(id, query),
            Effect::Nudge(shard) => w.nudge(shard),
            Effect::Drained => w.drained(),
        }
    }

    fn remember(&mut self, c: ConnId, bits: u8) {
        let slot = c.slot as usize;
        if slot >= self.flags.len() {
            self.flags.resize(slot + 1, Flags::default());
        }
        self.flags[slot] = Flags { epoch: c.epoch, turn: self.turn, bits, rounds_fault: 0 };
    }

    /// Whether there was something to forget.
    fn forget(&mut self, c: ConnId) -> bool {
        let live = self.live(c);
        let found = live.is_some();
        if let Some(f) = live {
            f.bits = 0;
            f.rounds_fault = 0;
        }
        found
    }

    fn live(&mut self, c: ConnId) -> Option<&mut Flags> {
        self.flags.get_mut(c.slot as usize).filter(|f| f.has(OPEN) && f.epoch == c.epoch)
    }

    /// Writes and reads as wanted and possible.
    fn serve<W: World>(&mut self, c: ConnId, w: &mut W) {
        self.serving = Some(c);
        self.serve_rounds(c, w);
        self.serving = None;
    }

    fn serve_rounds<W: World>(&mut self, c: ConnId, w: &mut W) {
        let live = |f: &&mut Flags| f.epoch == c.epoch && f.bits & (OPEN | CONNECTING) == OPEN;
        let Some(f) = self.flags.get_mut(c.slot as usize).filter(live) else { return };
        self.served += 1;
        if self.served >= SERVED_PER_CLOCK {
            self.served = 0;
            self.now = self.now.max(w.now());
        }
        f.begin(self.turn);
        let mut lane = Lane { machine: &mut self.machine, f, c, now: self.now };
        while lane.could_move() {
            if lane.f.rounds() >= ROUNDS {
                // This turn's are used up: the backlog has it.
                if !lane.f.has(QUEUED) {
                    lane.f.set(QUEUED);
                    self.backlog.push_back(c);
                }
                return;
            }
            let mut moved = lane.could_write() && lane.write(w);
            // Writing may have broken the socket, so look again.
            if lane.f.has(READABLE) {
                moved |= lane.read(w, &mut self.reads);
            }
            if !moved {
                break;
            }
            lane.f.rounds_fault += 1;
        }
        if lane.f.parts() {
            lane.part(w);
        }
    }

    /// The lane of a connection that is open.
    fn lane(&mut self, c: ConnId) -> Option<Lane<'_, M>> {
        let now = self.now;
        let f = self.flags.get_mut(c.slot as usize).filter(|f| f.has(OPEN) && f.epoch == c.epoch)?;
        Some(Lane { machine: &mut self.machine, f, c, now })
    }

    fn broken(&mut self, c: ConnId, fault: Fault) {
        if let Some(mut lane) = self.lane(c) {
            lane.broken(fault);
        }
    }

    fn break_off(&mut self, c: ConnId, fault: Fault) {
        match self.lane(c) {
            Some(mut lane) => lane.break_off(fault),
            None => self.machine.handle_fault(c, fault, self.now),
        }
    }

    /// No connection that could be written to, or told of a fault, is forgotten. For tests, between turns.
    pub fn check(&self) {
        for (slot, f) in self.flags.iter().enumerate().filter(|(_, f)| f.has(OPEN)) {
            let c = ConnId { slot: slot as u32, epoch: f.epoch };
            let wants = self.machine.wants(c);
            assert!(f.has(QUEUED) || !(wants.send && f.has(WRITABLE)), "{c:?} wants to send and could");
            assert!(
                f.has(QUEUED) || f.fault().is_none() || wants.recv,
                "{c:?} is broken and the core does not know"
            );
            assert_eq!(f.has(QUEUED), self.backlog.contains(&c), "{c:?} and the backlog disagree");
        }
    }
}

#[cfg(test)]
mod tests;
