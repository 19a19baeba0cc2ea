//! Taking connections: a bounded number in each turn, none while there are no descriptors or the core wants
//! none, and every waiting one before the listeners close.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use ruststrom_core::config::ListenerKind;
use ruststrom_core::{Accepted, Fault, Instant, ListenerId};

use crate::pump::{ProxyApi, Pump};
use crate::sockets::Sockets;

/// Connections taken from one listener in one turn: those that are served already wait no longer than that.
const MAX_ACCEPTS: usize = 32;
/// Connections taken from one listener when it closes: more than may wait there.
const MAX_LAST_ACCEPTS: usize = 65_536;
/// Pause after running out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// A pause is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// A listener to accept from.
#[derive(Debug)]
pub struct ListenerSlot<L> {
    /// Its id, which is its place in the first configuration, and for one that came later as
    /// [`ListenerIds`](ruststrom_core::route::ListenerIds) says.
    pub id: ListenerId,
    /// What arrives there.
    pub kind: ListenerKind,
    /// Where it listens.
    pub address: SocketAddr,
    /// The listener itself.
    pub listener: L,
}

/// The socket of a listener, once more.
#[derive(Debug)]
pub struct LentSocket {
    /// What arrives there.
    pub kind: ListenerKind,
    /// Where it listens.
    pub address: SocketAddr,
    /// The same socket as the worker's.
    pub socket: OwnedFd,
}

/// A listener of a configuration; `B` is what is bound and does not belong to a worker yet.
#[derive(Debug)]
pub enum Placed<B = TcpListener> {
    /// The worker has it.
    Kept(ListenerId),
    /// It is new.
    Bound(ListenerSlot<B>),
}

struct Listening<L> {
    slot: ListenerSlot<L>,
    /// There may be connections until accepting would block.
    ready: bool,
    /// No configuration names it any more: it closes as soon as nobody waits there.
    leaving: bool,
}

impl<L> Listening<L> {
    fn new(slot: ListenerSlot<L>) -> Self {
        Self { slot, ready: true, leaving: false }
    }
}

/// The listeners of one worker, and when to accept from them.
pub(crate) struct Acceptor<L> {
    /// The place of each is its place in events; a reload leaves gaps.
    listeners: Vec<Option<Listening<L>>>,
    /// Descriptors at which clients are no longer taken: the rest is for connections to backends and for the
    /// admin listener.
    max_open: usize,
    paused_until: Option<Instant>,
    pause_logged: Option<Instant>,
    eager_read: EagerRead,
}

/// Whether to read from a connection at once when it is accepted. If the request lies there already that
/// saves an event; if not the read is wasted, and the event comes all the same. Which of both happens depends
/// on the clients and on the load, so the results of the last reads decide.
struct EagerRead {
    /// Reads at once that may still be wasted before they are given up; 0 to [`EagerRead::MAX_SCORE`].
    score: u32,
    since_tried: u32,
}

impl EagerRead {
    const MAX_SCORE: u32 = 16;
    /// At score 0 one of so many connections is read at once.
    const SAMPLE: u32 = 16;

    fn new() -> Self {
        Self { score: Self::MAX_SCORE, since_tried: 0 }
    }

    fn should_read(&mut self) -> bool {
        self.since_tried += 1;
        self.score > 0 || self.since_tried >= Self::SAMPLE
    }

    fn tried(&mut self, found_bytes: bool) {
        self.since_tried = 0;
        self.score =
            if found_bytes { (self.score + 4).min(Self::MAX_SCORE) } else { self.score.saturating_sub(1) };
    }
}

impl<L> Acceptor<L> {
    /// Accepts from `listeners`; the place of each in the list is its place in events. `files` is this
    /// worker's share of the descriptors.
    pub(crate) fn new(listeners: Vec<ListenerSlot<L>>, files: usize) -> Self {
        Self {
            listeners: listeners.into_iter().map(|slot| Some(Listening::new(slot))).collect(),
            max_open: files - (files / 4).min(1024),
            paused_until: None,
            pause_logged: None,
            eager_read: EagerRead::new(),
        }
    }

    /// An event of a listener.
    pub(crate) fn ready(&mut self, place: usize) {
        if let Some(Some(l)) = self.listeners.get_mut(place) {
            l.ready = true;
        }
    }

    /// More could be taken in another turn at once.
    pub(crate) fn has_more<P: ProxyApi>(&self, pump: &Pump<P>) -> bool {
        let mut listeners = self.listeners.iter().flatten();
        self.paused_until.is_none() && listeners.any(|l| l.ready && pump.accepting(l.slot.kind))
    }

    /// When to try again after a pause.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Takes what this turn may take. `last`: it is the last turn before the listeners close.
    pub(crate) fn accept<P: ProxyApi, S: Sockets<Listener = L>>(
        &mut self,
        last: bool,
        pump: &mut Pump<P>,
        sockets: &mut S,
    ) {
        if self.paused_until.is_some_and(|until| until > pump.now() || crate::planted::planted!(76)) {
            return;
        }
        self.paused_until = None;
        for place in 0..self.listeners.len() {
            let Some(l) = &self.listeners[place] else { continue };
            if l.leaving {
                self.leave(place, pump, sockets);
            } else if l.ready && pump.accepting(l.slot.kind) {
                self.accept_from(place, MAX_ACCEPTS, last, pump, sockets);
            }
        }
    }

    /// The sockets of all listeners once more.
    pub(crate) fn lend<S: Sockets<Listener = L>>(&self, sockets: &S) -> io::Result<Vec<LentSocket>> {
        let lent = |l: &Listening<L>| {
            let socket = sockets.lend(&l.slot.listener)?;
            Ok(LentSocket { kind: l.slot.kind, address: l.slot.address, socket })
        };
        self.listeners.iter().flatten().filter(|l| !l.leaving).map(lent).collect()
    }

    /// Takes everybody who waits, then closes the listeners: whoever had connected is served.
    pub(crate) fn close<P: ProxyApi, S: Sockets<Listener = L>>(
        &mut self,
        pump: &mut Pump<P>,
        sockets: &mut S,
    ) {
        for place in 0..self.listeners.len() {
            self.accept_from(place, MAX_LAST_ACCEPTS, true, pump, sockets);
        }
        for (place, l) in std::mem::take(&mut self.listeners).into_iter().enumerate() {
            if let Some(l) = l {
                sockets.close_listener(place, l.slot.listener);
            }
        }
        self.paused_until = None;
    }

    /// From now on there are these listeners. Whoever had connected to another one is taken, then it is
    /// closed; if descriptors are missing for that, once there are some.
    pub(crate) fn replace<P: ProxyApi, S: Sockets<Listener = L>>(
        &mut self,
        listeners: Vec<Placed<S::Bound>>,
        pump: &mut Pump<P>,
        sockets: &mut S,
    ) {
        let kept = |id| listeners.iter().any(|l| matches!(l, Placed::Kept(kept) if *kept == id));
        for place in 0..self.listeners.len() {
            if let Some(l) = self.listeners[place].as_mut().filter(|l| !kept(l.slot.id)) {
                l.leaving = true;
                // An event of the last connections may be under way.
                l.ready = !crate::planted::planted!(153);
                self.leave(place, pump, sockets);
            }
        }
        for placed in listeners {
            let Placed::Bound(ListenerSlot { id, kind, address, listener }) = placed else { continue };
            let place = self.listeners.iter().position(Option::is_none).unwrap_or(self.listeners.len());
            match sockets.listen(place, listener) {
                Ok(listener) => {
                    let slot = ListenerSlot { id, kind, address, listener };
                    let new = Some(Listening::new(slot));
                    match self.listeners.get_mut(place) {
                        Some(gap) => *gap = new,
                        None => self.listeners.push(new),
                    }
                }
                // Its socket is closed: the other workers get its share.
                Err(e) => log::error!("cannot wait for connections to {address}: {e}"),
            }
        }
        self.paused_until = None;
    }

    /// Takes everybody who waits at a listener that leaves, and closes it if that was all.
    fn leave<P: ProxyApi, S: Sockets<Listener = L>>(
        &mut self,
        place: usize,
        pump: &mut Pump<P>,
        sockets: &mut S,
    ) {
        if self.listeners[place].as_ref().is_some_and(|l| l.ready) {
            self.accept_from(place, MAX_LAST_ACCEPTS, true, pump, sockets);
        }
        if let Some(l) = self.listeners[place].take_if(|l| !l.ready) {
            sockets.close_listener(place, l.slot.listener);
        }
    }

    fn accept_from<P: ProxyApi, S: Sockets<Listener = L>>(
        &mut self,
        place: usize,
        most: usize,
        last: bool,
        pump: &mut Pump<P>,
        sockets: &mut S,
    ) {
        for _ in 0..most {
            let Some(Listening { slot, .. }) = &self.listeners[place] else { return };
            // The admin listener must respond when everything else is full.
            if sockets.open() >= self.max_open && slot.kind != ListenerKind::Admin {
                return self.pause(pump.now(), sockets.open(), "no descriptors are left for clients");
            }
            match sockets.accept(place, &slot.listener) {
                Ok((socket, peer)) => {
                    let accepted = Accepted { listener: slot.id, kind: slot.kind, peer, local: slot.address };
                    self.take(socket, &accepted, last, pump, sockets);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(l) = &mut self.listeners[place] {
                        l.ready = false;
                        sockets.listener_blocks(place, &l.slot.listener);
                    }
                    return;
                }
                Err(e) => match e.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        return self.pause(pump.now(), sockets.open(), &e.to_string());
                    }
                    // That connection is gone before we took it (accept(2)); the next one may be fine.
                    _ => log::debug!("accept on {}: {e}", slot.address),
                },
            }
        }
    }

    /// Offers an accepted connection to the core, and reads from it at once if that is worth it.
    fn take<P: ProxyApi, S: Sockets<Listener = L>>(
        &mut self,
        socket: S::Accepted,
        accepted: &Accepted,
        last: bool,
        pump: &mut Pump<P>,
        sockets: &mut S,
    ) {
        let c = match pump.accept(accepted) {
            Ok(c) => c,
            Err(why) => {
                log::debug!("connection of {} refused: {why:?}", accepted.peer);
                return sockets.refuse(socket);
            }
        };
        match sockets.insert(c, socket) {
            Ok(()) => {
                // Before the listeners close there is no time for an event: a request that is there is read.
                let read_now = !S::READY_ON_INSERT || last || self.eager_read.should_read();
                let found_bytes = pump.opened(c, read_now, sockets);
                if read_now {
                    self.eager_read.tried(found_bytes);
                }
            }
            Err(e) => {
                log::error!("cannot wait for a connection: {e}");
                pump.fault(c, Fault::NoResources, sockets);
            }
        }
    }

    #[cold]
    fn pause(&mut self, now: Instant, open: usize, why: &str) {
        self.paused_until = Some(now + PAUSE);
        if self.pause_logged.is_none_or(|at| now.since(at) >= LOG_INTERVAL) {
            self.pause_logged = Some(now);
            log::error!(
                "accepting is paused: {why}, {open} connections are open; \
                 raise the limit of open files (ulimit -n, LimitNOFILE=)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::EagerRead;

    #[test]
    fn reads_at_once_are_given_up_and_taken_up_again() {
        let mut eager_read = EagerRead::new();
        let mut tried = |found_bytes: bool, connections: usize| {
            (0..connections)
                .filter(|_| {
                    let reads = eager_read.should_read();
                    if reads {
                        eager_read.tried(found_bytes);
                    }
                    reads
                })
                .count()
        };
        assert_eq!(tried(true, 1000), 1000);
        // Sixteen wasted reads, then one in sixteen connections.
        assert_eq!(tried(false, 16 + 160), 16 + 10);
        // The next one that finds bytes turns them on again.
        assert!(tried(true, 100) >= 85);
    }
}
