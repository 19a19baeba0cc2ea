//! The world of one worker: its sockets by slot, its peers and its lookups.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry};
use rustix::net::{RecvFlags, SendFlags};
use ruststrom_core::{ConnId, Instant, LookupId, Question};
use ruststrom_driver::clock;
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::pump::World;

use crate::inbox::Inbox;
use crate::token::About;

pub(crate) struct Sockets {
    registry: Registry,
    /// By slot; nothing but a file descriptor each.
    table: Vec<Option<TcpStream>>,
    open: usize,
    shard: u16,
    inboxes: Arc<[Inbox]>,
    lookups: Lookups,
    /// Answers to a proxy that is gone are not for its successor.
    pub(crate) generation: u32,
    pub(crate) drained: bool,
}

impl Sockets {
    pub(crate) fn new(registry: Registry, shard: u16, inboxes: Arc<[Inbox]>, lookups: Lookups) -> Self {
        Self { registry, table: Vec::new(), open: 0, shard, inboxes, lookups, generation: 0, drained: false }
    }

    /// How many sockets are open.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Takes a socket and waits for its events.
    pub(crate) fn insert(&mut self, c: ConnId, mut socket: TcpStream) -> io::Result<()> {
        self.registry.register(&mut socket, About::Conn(c).token(), Interest::READABLE | Interest::WRITABLE)?;
        let slot = c.slot as usize;
        if slot >= self.table.len() {
            self.table.resize_with(slot + 1, || None);
        }
        if self.table[slot].replace(socket).is_none() {
            self.open += 1;
        }
        Ok(())
    }

    /// Closes everything, for a proxy that is given up.
    pub(crate) fn close_all(&mut self) {
        self.table.clear();
        self.open = 0;
        self.generation += 1;
    }

    fn socket(&self, c: ConnId) -> io::Result<&TcpStream> {
        self.table.get(c.slot as usize).and_then(Option::as_ref).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl World for Sockets {
    // By rustix, which makes the system call itself: libc's functions are cancellation points, which costs two atomic steps each.
    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self.socket(c)?, buf, RecvFlags::empty())?.0)
    }

    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = self.socket(c)?;
        Ok(match slices {
            [one] => rustix::net::send(socket, one, SendFlags::NOSIGNAL)?,
            many => rustix::io::writev(socket, many)?,
        })
    }

    fn connect(&mut self, c: ConnId, to: SocketAddr) -> io::Result<()> {
        let socket = TcpStream::connect(to)?;
        // Not worth a failed connection.
        let _ = socket.set_nodelay(true);
        self.insert(c, socket)
    }

    fn take_error(&mut self, c: ConnId) -> Option<io::Error> {
        self.socket(c).ok()?.take_error().ok()?
    }

    fn shutdown(&mut self, c: ConnId) {
        if let Ok(socket) = self.socket(c) {
            // Fails if the peer has gone already; its event says so.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, c: ConnId) {
        // Closing takes it out of the poller as well.
        if self.table.get_mut(c.slot as usize).and_then(Option::take).is_some() {
            self.open -= 1;
        }
    }

    fn reset(&mut self, c: ConnId) {
        if let Ok(socket) = self.socket(c) {
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
        self.close(c);
    }

    fn lookup(&mut self, id: LookupId, q: Question) {
        let (inboxes, shard, generation) = (self.inboxes.clone(), usize::from(self.shard), self.generation);
        self.lookups.ask(id, q, Box::new(move |id, answer| inboxes[shard].answer(generation, id, answer)));
    }

    fn nudge(&mut self, shard: u16) {
        if let Some(inbox) = self.inboxes.get(usize::from(shard)) {
            inbox.nudge();
        }
    }

    fn drained(&mut self) {
        self.drained = true;
    }

    fn now(&mut self) -> Instant {
        clock::now()
    }
}

#[cfg(all(test, not(debug_assertions)))]
mod tests {
    #[test]
    fn a_socket_is_a_file_descriptor() {
        assert_eq!(size_of::<Option<mio::net::TcpStream>>(), 4);
    }
}
