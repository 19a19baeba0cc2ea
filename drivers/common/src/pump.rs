//! Carries bytes between the core and a [`World`] of sockets. It knows no poller and no kernel: the simulator
//! runs the same code on sockets of its own.
//!
//! Readiness is edge triggered: what an event said is remembered until the world says that the socket is
//! drained, or would block. Each entry point is one input to the core followed by [settling](Pump::settle):
//! the core's two lists are drained until both are empty. One connection gets at most [`MAX_ROUNDS`] rounds
//! in a turn of the event loop and is then put on the backlog for the next turn, or a quick pair of peers
//! would keep all others waiting.

mod conn_io;
mod proxy_api;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use ruststrom_core::config::ListenerKind;
use ruststrom_core::{
    Accepted, Config, ConnId, Effect, Fault, Instant, LookupId, LookupResult, Ready, Refused, Wall,
};

use crate::event::Readiness;
use crate::world::{SecurityError, World};
use conn_io::ConnIo;
pub use proxy_api::ProxyApi;

/// Rounds (at most one write and one read each) for one connection in one turn.
pub const MAX_ROUNDS: u8 = 16;

/// The clock is read again each time that so many connections have been served.
const SERVED_PER_CLOCK: u32 = 64;

const OPEN: u8 = 1;
const READABLE: u8 = 1 << 1;
const WRITABLE: u8 = 1 << 2;
const CONNECTING: u8 = 1 << 3;
/// On the backlog.
const QUEUED: u8 = 1 << 4;
/// To be shut down once all has been sent.
const SHUT: u8 = 1 << 5;
/// The core has listed it, and it has not been found without anything to send since.
const LISTED: u8 = 1 << 6;
/// Its security layer has not agreed on anything yet: the core neither reads nor writes.
const HANDSHAKING: u8 = 1 << 7;

/// What is remembered of a connection: eight bytes.
#[derive(Clone, Copy, Default)]
struct Flags {
    epoch: u32,
    /// The turn that `rounds` counts in; a stale number costs one trip over the backlog at worst.
    turn: u16,
    bits: u8,
    /// Rounds of this turn in the low five bits; above them a broken socket's fault, reported once nothing
    /// is left to read (0: none).
    rounds_fault: u8,
}

/// Those that may have to wait until a socket has been read. The ones of connecting never do.
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
    /// A fault, or a shutdown, waits until its bytes have been read, or sent.
    fn has_pending(self) -> bool {
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
    if let Some(SecurityError(fault)) = e.get_ref().and_then(|source| source.downcast_ref()) {
        return *fault;
    }
    match e.raw_os_error() {
        Some(libc::EMFILE) if crate::planted::planted!(74) => Fault::Refused,
        Some(libc::ECONNREFUSED) => Fault::Refused,
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EPROTOTYPE) => Fault::NoSocket,
        Some(libc::EACCES) => Fault::Denied,
        Some(libc::EAGAIN) => Fault::BacklogFull,
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

/// The pump of one shard; owns the core of that shard.
pub struct Pump<P> {
    proxy: P,
    /// By slot.
    flags: Vec<Flags>,
    backlog: VecDeque<ConnId>,
    /// Connections that gather what they have to send until the turn ends. They are listed.
    gathering: Vec<ConnId>,
    turn: u16,
    served: u32,
    /// Reads that brought bytes.
    reads: u64,
    now: Instant,
    serving: Option<ConnId>,
    drained: bool,
}

impl<P: ProxyApi> Pump<P> {
    /// A pump without connections.
    pub fn new(proxy: P, now: Instant) -> Self {
        Self {
            proxy,
            flags: Vec::new(),
            backlog: VecDeque::with_capacity(64),
            gathering: Vec::new(),
            turn: 0,
            served: 0,
            reads: 0,
            now,
            serving: None,
            drained: false,
        }
    }

    /// The core.
    pub fn proxy(&self) -> &P {
        &self.proxy
    }

    /// The core, for what is no input (its observer).
    pub fn proxy_mut(&mut self) -> &mut P {
        &mut self.proxy
    }

    /// When the turn began, or the clock was read again in it.
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

    /// When the next turn is due at the latest, whatever happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.proxy.poll_timeout().map(|(at, _)| at)
    }

    /// Whether to accept on a listener.
    pub fn accepting(&self, kind: ListenerKind) -> bool {
        self.proxy.accepting(kind)
    }

    /// A connection was accepted. Unless it is refused, put its socket into the world under the id and call
    /// [`Pump::opened`].
    pub fn accept(&mut self, a: &Accepted) -> Result<ConnId, Refused> {
        let c = self.proxy.handle_accept(a, self.now)?;
        // A fresh socket has room.
        let handshaking = if a.kind == ListenerKind::Https { HANDSHAKING } else { 0 };
        self.remember(c, OPEN | WRITABLE | handshaking);
        Ok(c)
    }

    /// The socket of an accepted connection is in the world. `read_now`: try to read without an event.
    /// Returns whether bytes were read.
    pub fn opened<W: World>(&mut self, c: ConnId, read_now: bool, w: &mut W) -> bool {
        let before = self.reads;
        let mut read = false;
        if let Some(f) = self.live(c) {
            if f.has(HANDSHAKING) {
                w.accept_tls(c);
            }
            if read_now && let Some(f) = self.live(c) {
                if f.has(HANDSHAKING) {
                    read = self.handshake(c, w);
                } else {
                    f.set(READABLE);
                }
                self.serve(c, w);
            }
        }
        read |= self.reads != before;
        self.settle(w);
        read
    }

    /// An event.
    pub fn ready<W: World>(&mut self, c: ConnId, r: Readiness, w: &mut W) {
        self.serving = Some(c);
        let Some(f) = self.live(c) else { return };
        let mut bits = 0;
        if r.readable || r.closed {
            bits |= READABLE;
        }
        if r.writable {
            bits |= WRITABLE;
        }
        if f.has(CONNECTING) {
            if r.error || r.closed {
                let fault = w.take_error(c).map_or(Fault::Refused, |e| fault_of(&e));
                self.report_fault(c, fault);
            } else if r.writable {
                f.clear(CONNECTING);
                f.set(bits);
                if f.has(HANDSHAKING) {
                    self.proxy.handle_handshaking(c, self.now);
                    self.handshake(c, w);
                } else {
                    self.proxy.handle_connected(c, self.now);
                }
            } else {
                f.set(bits);
            }
        } else if f.has(HANDSHAKING) {
            self.handshake(c, w);
        } else {
            f.set(bits);
            if r.error {
                let fault = w.take_error(c).map_or(Fault::Reset, |e| fault_of(&e));
                self.socket_broke(c, fault);
            }
        }
        self.serve(c, w);
        if r.readable || r.closed {
            self.note_closing(c, r.closed, w);
        }
        self.settle(w);
    }

    /// Goes on with a handshake; whether it has ended, well or not.
    #[cold]
    fn handshake<W: World>(&mut self, c: ConnId, w: &mut W) -> bool {
        self.serving = Some(c);
        match w.handshake(c) {
            Ok(None) => return false,
            Ok(Some(negotiated)) => {
                if let Some(f) = self.live(c) {
                    // Whatever came behind the handshake is no event of its own any more.
                    f.clear(HANDSHAKING);
                    f.set(if crate::planted::planted!(140) { WRITABLE } else { READABLE | WRITABLE });
                }
                self.proxy.handle_negotiated(c, &negotiated, self.now);
            }
            Err(fault) => {
                if let Some(f) = self.live(c) {
                    f.clear(HANDSHAKING);
                }
                self.handshake_failed(c, fault);
            }
        }
        true
    }

    /// A client hears of it, by an alert or in plain HTTP, which must not be lost to a reset: the core reads
    /// and drops what it still sends.
    fn handshake_failed(&mut self, c: ConnId, fault: Fault) {
        let told = matches!(fault, Fault::Tls(_) | Fault::PlainHttp | Fault::UnrecognizedName);
        self.proxy.handle_fault(c, fault, self.now);
        if let Some(f) = self.live(c).filter(|_| told) {
            f.set(READABLE | WRITABLE);
        }
    }

    /// The core does not read on while it has a whole request to serve: that the peer has closed its
    /// direction is told to it all the same.
    fn note_closing<W: World>(&mut self, c: ConnId, closed: bool, w: &mut W) {
        let unread = |f: &&mut Flags| {
            f.bits & (READABLE | CONNECTING | HANDSHAKING) == READABLE && f.fault().is_none()
        };
        if self.live(c).filter(unread).is_none() {
            return;
        }
        match if closed { Ok(true) } else { w.at_end(c) } {
            Ok(true) => self.proxy.handle_peer_closing(c, self.now),
            Err(e) if !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                self.socket_broke(c, fault_of(&e));
            }
            Ok(false) | Err(_) => {}
        }
    }

    /// The world lost a socket for a reason of its own.
    pub fn fault<W: World>(&mut self, c: ConnId, fault: Fault, w: &mut W) {
        if self.live(c).is_some() {
            self.report_fault(c, fault);
        }
        self.settle(w);
    }

    /// Closes a connection behind the core's back, after a panic that left the core in no state for an input.
    pub fn abandon<W: World>(&mut self, c: ConnId, w: &mut W) {
        self.serving = None;
        if self.forget(c) {
            w.close(c);
        }
    }

    /// A lookup ended.
    pub fn lookup_done<W: World>(&mut self, l: LookupId, result: LookupResult, w: &mut W) {
        self.proxy.handle_lookup(l, result, self.now);
        self.settle(w);
    }

    /// A new configuration. Exchanges under way keep theirs, and no connection is closed.
    pub fn handle_config<W: World>(&mut self, config: Arc<Config>, w: &mut W) {
        self.proxy.handle_config(config, self.now);
        self.settle(w);
    }

    /// Another shard nudged this one.
    pub fn nudged<W: World>(&mut self, w: &mut W) {
        self.proxy.handle_shared(self.now);
        self.settle(w);
    }

    /// The wall clock, at most once a second.
    pub fn wall<W: World>(&mut self, wall: Wall, w: &mut W) {
        self.proxy.handle_wall(wall);
        self.settle(w);
    }

    /// Lets the core's timers expire if one is due.
    pub fn tick<W: World>(&mut self, w: &mut W) {
        if self.proxy.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
            self.proxy.handle_timeout(self.now);
            self.settle(w);
        }
    }

    /// Begins a drain.
    pub fn drain<W: World>(&mut self, until: Instant, w: &mut W) {
        self.proxy.drain(until, self.now);
        self.settle(w);
    }

    /// Whether a drain has ended: the core has nothing left.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// Goes on with connections that had used up their rounds in an earlier turn.
    pub fn resume<W: World>(&mut self, w: &mut W) {
        for _ in 0..self.backlog.len() {
            let Some(c) = self.backlog.pop_front() else { break };
            let Some(f) = self.live(c) else { continue };
            f.clear(QUEUED);
            self.serve(c, w);
            self.settle(w);
        }
    }

    /// Sends what connections have gathered. At the end of a turn.
    pub fn send_gathered<W: World>(&mut self, w: &mut W) {
        let mut place = 0;
        // They grow while they are served; none has more than its rounds of this turn.
        while let Some(&c) = self.gathering.get(place) {
            place += 1;
            self.serve(c, w);
            self.settle(w);
        }
        self.gathering.clear();
    }

    /// Drains the core's two lists until both are empty.
    pub fn settle<W: World>(&mut self, w: &mut W) {
        loop {
            if let Some(Ready { conn, send, gathers }) = self.proxy.poll_conn() {
                if let Some(f) = self.live(conn) {
                    let waits = f.has(LISTED);
                    f.bits |= if send { LISTED } else { 0 };
                    if gathers && f.bits & (READABLE | SHUT) == 0 && f.fault().is_none() {
                        // One that has been listed is gathering, or waits for room.
                        if f.has(LISTED) && !waits {
                            self.gathering.push(conn);
                        }
                    } else if f.bits & (LISTED | READABLE | SHUT) != 0 || f.fault().is_some() {
                        self.serve(conn, w);
                    }
                }
            } else if let Some(e) = self.proxy.poll_effect() {
                self.effect(e, w);
            } else {
                return;
            }
        }
    }

    fn effect<W: World>(&mut self, e: Effect, w: &mut W) {
        match e {
            Effect::Connect { conn, to, tls: None } => {
                self.remember(conn, OPEN | CONNECTING);
                if let Err(e) = w.connect(conn, &to) {
                    self.report_fault(conn, fault_of(&e));
                }
            }
            Effect::Connect { conn, to, tls: Some(target) } => {
                self.remember(conn, OPEN | CONNECTING | HANDSHAKING);
                if let Err(e) = w.connect_tls(conn, &to, &target) {
                    self.report_fault(conn, fault_of(&e));
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
            Effect::Drained => {
                debug_assert!(!self.drained, "a drain ends once");
                self.drained = true;
            }
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
        let live = |f: &&mut Flags| f.epoch == c.epoch && f.bits & (OPEN | CONNECTING | HANDSHAKING) == OPEN;
        let Some(f) = self.flags.get_mut(c.slot as usize).filter(live) else { return };
        self.served += 1;
        if self.served >= SERVED_PER_CLOCK {
            self.served = 0;
            self.now = self.now.max(w.now());
        }
        f.begin(self.turn);
        let mut io = ConnIo { proxy: &mut self.proxy, f, c, now: self.now };
        while io.can_progress() {
            if io.f.rounds() >= MAX_ROUNDS {
                // The rest is for the next turn.
                if !io.f.has(QUEUED) {
                    io.f.set(QUEUED);
                    self.backlog.push_back(c);
                }
                return;
            }
            let mut progress = io.can_write() && io.write(w);
            // Writing may have broken the socket, so look again.
            if io.f.has(READABLE) {
                progress |= io.read(w, &mut self.reads);
            }
            if !progress {
                break;
            }
            io.f.rounds_fault += 1;
        }
        if io.f.has_pending() {
            io.finish_pending(w);
        }
    }

    /// A connection that is open.
    fn conn_io(&mut self, c: ConnId) -> Option<ConnIo<'_, P>> {
        let now = self.now;
        let f = self.flags.get_mut(c.slot as usize).filter(|f| f.has(OPEN) && f.epoch == c.epoch)?;
        Some(ConnIo { proxy: &mut self.proxy, f, c, now })
    }

    fn socket_broke(&mut self, c: ConnId, fault: Fault) {
        if let Some(mut io) = self.conn_io(c) {
            io.socket_broke(fault);
        }
    }

    fn report_fault(&mut self, c: ConnId, fault: Fault) {
        match self.conn_io(c) {
            Some(mut io) => io.report_fault(fault),
            None => self.proxy.handle_fault(c, fault, self.now),
        }
    }

    /// Checks, between inputs, that no connection is forgotten that could be written to, or whose fault is to
    /// be reported. For tests.
    ///
    /// # Panics
    /// If one is.
    pub fn check(&self) {
        for (slot, f) in self.flags.iter().enumerate().filter(|(_, f)| f.has(OPEN)) {
            let c = ConnId { slot: slot as u32, epoch: f.epoch };
            let wants = self.proxy.wants(c);
            let waits = f.has(QUEUED) || self.gathering.contains(&c);
            assert!(waits || !(wants.send && f.has(WRITABLE)), "{c:?} wants to send and could");
            assert!(
                f.has(QUEUED) || f.fault().is_none() || wants.recv,
                "{c:?} is broken, and no fault was reported"
            );
            assert_eq!(f.has(QUEUED), self.backlog.contains(&c), "{c:?} and the backlog disagree");
        }
    }
}

#[cfg(test)]
mod tests;
