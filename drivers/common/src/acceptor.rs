//! Taking connections: a bounded number in each turn, none while there are no descriptors or the core wants none, and every waiting one
//! before the listeners close.

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
    /// Descriptors at which clients are no longer taken: the rest is for connections to backends and for our own page.
    most_open: usize,
    paused: Option<Instant>,
    told: Option<Instant>,
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
        Ok(Self { ears, most_open: files - (files / 4).min(1024), paused: None, told: None })
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

    /// Takes what this turn may take.
    pub(crate) fn accept<O: Watch>(&mut self, pump: &mut Pump<Proxy<O>>, sockets: &mut impl Sockets<Listener = L>) {
        if self.paused.is_some_and(|until| until > pump.now()) {
            return;
        }
        self.paused = None;
        for place in 0..self.ears.len() {
            let ear = &self.ears[place];
            if ear.ready && pump.accepting(ear.id) {
                self.accept_from(place, ACCEPTS, pump, sockets);
            }
        }
    }

    /// Takes everybody who waits, then closes the listeners: whoever had connected is served.
    pub(crate) fn close<O: Watch>(&mut self, pump: &mut Pump<Proxy<O>>, sockets: &mut impl Sockets<Listener = L>) {
        for place in 0..self.ears.len() {
            self.accept_from(place, 65_536, pump, sockets);
        }
        self.ears.clear();
        self.paused = None;
    }

    fn accept_from<O: Watch>(&mut self, place: usize, most: usize, pump: &mut Pump<Proxy<O>>, sockets: &mut impl Sockets<Listener = L>) {
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
                        Ok(()) => pump.opened(c, sockets),
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
            log::error!("accepting is paused: {why}, {open} connections are open; raise the limit of open files (ulimit -n, LimitNOFILE=)");
        }
    }
}

/// Takes a connection; its socket does not block.
fn accept(listener: &impl AsFd) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let peer = peer.and_then(|p| SocketAddr::try_from(p).ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket.into(), peer))
}
