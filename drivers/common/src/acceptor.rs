//! Taking connections: a bounded number in each turn, none while there are no descriptors or the core wants
//! none, and every waiting one before the listeners close.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::SocketFlags;
use ruststrom_core::config::ListenerKind;
use ruststrom_core::{Accepted, Fault, Instant, ListenerId, Proxy};

use crate::engine::Sockets;
use crate::pump::Pump;
use crate::watch::Watch;

/// Connections taken from one listener in one turn: those that are served already wait no longer than that.
const ACCEPTS: usize = 64;
/// Pause after running out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Running out is told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(30);

struct Ear<L> {
    id: ListenerId,
    kind: ListenerKind,
    address: SocketAddr,
    listener: L,
    /// There may be connections until accepting would block.
    ready: bool,
}

pub(crate) struct Acceptor<L> {
    ears: Vec<Ear<L>>,
    /// Descriptors at which clients are no longer taken: the rest is for connections to backends and for our
    /// own page.
    most_open: usize,
    paused: Option<Instant>,
    told: Option<Instant>,
    early: Early,
}

/// Whether requests mostly lie there already when their connections are taken. Then a read at once saves the
/// event; else it would block, and the event comes all the same. Which of both it is hangs on the clients and
/// on the load, so the last ones tell.
struct Early {
    /// 0 to [`Early::SURE`].
    hope: u32,
    since_tried: u32,
}

impl Early {
    const SURE: u32 = 16;
    /// Without hope one of so many is tried.
    const EVERY: u32 = 16;

    fn worth_a_read(&mut self) -> bool {
        self.since_tried += 1;
        self.hope > 0 || self.since_tried >= Self::EVERY
    }

    fn tried(&mut self, read: bool) {
        self.since_tried = 0;
        self.hope = if read { (self.hope + 4).min(Self::SURE) } else { self.hope.saturating_sub(1) };
    }
}

impl<L: AsFd> Acceptor<L> {
    /// `files` is this worker's share of the descriptors.
    pub(crate) fn new(
        sockets: &mut impl Sockets<Listener = L>,
        listeners: Vec<(ListenerId, ListenerKind, SocketAddr, TcpListener)>,
        files: usize,
    ) -> io::Result<Self> {
        let mut ears = Vec::with_capacity(listeners.len());
        for (place, (id, kind, address, listener)) in listeners.into_iter().enumerate() {
            let listener = sockets.listen(place, listener)?;
            ears.push(Ear { id, kind, address, listener, ready: true });
        }
        Ok(Self {
            ears,
            most_open: files - (files / 4).min(1024),
            paused: None,
            told: None,
            early: Early { hope: Early::SURE, since_tried: 0 },
        })
    }

    /// An event of a listener.
    pub(crate) fn ready(&mut self, place: usize) {
        if let Some(ear) = self.ears.get_mut(place) {
            ear.ready = true;
        }
    }

    /// More could be taken in another turn at once.
    pub(crate) fn has_more<O: Watch>(&self, pump: &Pump<Proxy<O>>) -> bool {
        self.paused.is_none() && self.ears.iter().any(|e| e.ready && pump.accepting(e.id))
    }

    /// When to try again after a pause.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.paused
    }

    /// Takes what this turn may take. `last`: it is the last turn before a stop.
    pub(crate) fn accept<O: Watch>(
        &mut self,
        last: bool,
        pump: &mut Pump<Proxy<O>>,
        sockets: &mut impl Sockets<Listener = L>,
    ) {
        if self.paused.is_some_and(|until| until > pump.now()) {
            return;
        }
        self.paused = None;
        for place in 0..self.ears.len() {
            let ear = &self.ears[place];
            if ear.ready && pump.accepting(ear.id) {
                self.accept_from(place, ACCEPTS, last, pump, sockets);
            }
        }
    }

    /// Takes everybody who waits, then closes the listeners: whoever had connected is served.
    pub(crate) fn close<O: Watch>(
        &mut self,
        pump: &mut Pump<Proxy<O>>,
        sockets: &mut impl Sockets<Listener = L>,
    ) {
        for place in 0..self.ears.len() {
            self.accept_from(place, 65_536, true, pump, sockets);
        }
        self.ears.clear();
        self.paused = None;
    }

    fn accept_from<O: Watch, S: Sockets<Listener = L>>(
        &mut self,
        place: usize,
        most: usize,
        last: bool,
        pump: &mut Pump<Proxy<O>>,
        sockets: &mut S,
    ) {
        let ear = &mut self.ears[place];
        for _ in 0..most {
            // Our own page must answer when everything else is full.
            if sockets.open() >= self.most_open && ear.kind != ListenerKind::Admin {
                return self.pause(pump.now(), sockets.open(), "no descriptors are left for clients");
            }
            match accept(&ear.listener) {
                Ok((socket, peer)) => {
                    let accepted = Accepted { listener: ear.id, peer, local: ear.address };
                    let c = match pump.accept(&accepted) {
                        Ok(c) => c,
                        Err(why) => {
                            log::debug!("connection of {peer} refused: {why:?}");
                            continue;
                        }
                    };
                    match sockets.insert(c, socket) {
                        Ok(()) => {
                            // A stop leaves no time for an event: what has been asked is asked now.
                            let at_once = !S::TELLS || last || self.early.worth_a_read();
                            let read = pump.opened(c, at_once, sockets);
                            if at_once {
                                self.early.tried(read);
                            }
                        }
                        Err(e) => {
                            log::error!("cannot poll a connection: {e}");
                            pump.fault(c, Fault::NoResources, sockets);
                        }
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ear.ready = false;
                    return sockets.listener_blocks(place, &ear.listener);
                }
                Err(e) => match e.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        return self.pause(pump.now(), sockets.open(), &e.to_string());
                    }
                    // That connection is gone before we took it (accept(2)); the next one may be fine.
                    _ => log::debug!("accept on {}: {e}", ear.address),
                },
            }
        }
    }

    #[cold]
    fn pause(&mut self, now: Instant, open: usize, why: &str) {
        self.paused = Some(now + PAUSE);
        if self.told.is_none_or(|at| now.since(at) >= TELL_EVERY) {
            self.told = Some(now);
            log::error!(
                "accepting is paused: {why}, {open} connections are open; raise the limit of open files (ulimit -n, LimitNOFILE=)"
            );
        }
    }
}

/// Takes a connection; its socket does not block.
fn accept(listener: &impl AsFd) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) =
        rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let peer = peer.and_then(|p| SocketAddr::try_from(p).ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket.into(), peer))
}

#[cfg(test)]
mod tests {
    use super::Early;

    #[test]
    fn reads_at_once_are_given_up_and_taken_up_again() {
        let mut early = Early { hope: Early::SURE, since_tried: 0 };
        let mut tried = |there: bool, times: usize| {
            (0..times)
                .filter(|_| {
                    let tried = early.worth_a_read();
                    if tried {
                        early.tried(there);
                    }
                    tried
                })
                .count()
        };
        assert_eq!(tried(true, 1000), 1000);
        // Sixteen times in vain, then now and then.
        assert_eq!(tried(false, 16 + 160), 16 + 10);
        // The next one that is tried brings hope.
        assert!(tried(true, 100) >= 85);
    }
}
