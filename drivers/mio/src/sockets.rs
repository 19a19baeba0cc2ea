//! The world of one worker: its sockets by slot, waited for edge triggered.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::net::{RecvFlags, SendFlags};
use ruststrom_core::{ConnId, Instant, LookupId, Query};
use ruststrom_driver::clock;
use ruststrom_driver::engine::{self, Event};
use ruststrom_driver::errands::Errands;
use ruststrom_driver::pump::{Readiness, World};

use crate::token::About;

pub(crate) struct Sockets {
    registry: Registry,
    /// By slot; nothing but a file descriptor each.
    table: Vec<Option<TcpStream>>,
    open: usize,
    errands: Errands,
}

/// What an event is about.
pub(crate) fn found(event: &mio::event::Event) -> Event {
    let readiness = || Readiness {
        readable: event.is_readable(),
        writable: event.is_writable(),
        closed: event.is_read_closed(),
        error: event.is_error(),
    };
    match About::of(event.token()) {
        About::Conn(c) => Event::Conn(c, readiness()),
        About::Listener(place) => Event::Listener(place),
        About::Inbox => Event::Inbox,
    }
}

impl Sockets {
    pub(crate) fn new(registry: Registry, errands: Errands) -> Self {
        Self { registry, table: Vec::new(), open: 0, errands }
    }

    fn keep(&mut self, c: ConnId, mut socket: TcpStream) -> io::Result<()> {
        self.registry.register(
            &mut socket,
            About::Conn(c).token(),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let slot = c.slot as usize;
        if slot >= self.table.len() {
            self.table.resize_with(slot + 1, || None);
        }
        if self.table[slot].replace(socket).is_none() {
            self.open += 1;
        }
        Ok(())
    }

    fn socket(&self, c: ConnId) -> io::Result<&TcpStream> {
        self.table
            .get(c.slot as usize)
            .and_then(Option::as_ref)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl World for Sockets {
    // By rustix, which makes the system call itself: libc's functions are cancellation points, which costs
    // two atomic steps each.
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
        self.keep(c, socket)
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

    fn lookup(&mut self, id: LookupId, q: Query) {
        self.errands.lookup(id, q);
    }

    fn nudge(&mut self, shard: u16) {
        self.errands.nudge(shard);
    }

    fn drained(&mut self) {
        self.errands.drained();
    }

    fn now(&mut self) -> Instant {
        clock::now()
    }
}

impl engine::Sockets for Sockets {
    type Listener = TcpListener;
    type Found = Event;
    const TELLS: bool = true;

    fn listen(&mut self, place: usize, listener: TcpListener) -> io::Result<TcpListener> {
        self.registry.register(
            &mut SourceFd(&listener.as_raw_fd()),
            About::Listener(place).token(),
            Interest::READABLE,
        )?;
        Ok(listener)
    }

    fn listener_blocks(&mut self, _: usize, _: &TcpListener) {}

    fn insert(&mut self, c: ConnId, socket: std::net::TcpStream) -> io::Result<()> {
        self.keep(c, TcpStream::from_std(socket))
    }

    fn event(&mut self, found: Event) -> Option<Event> {
        Some(found)
    }

    fn turn_ended(&mut self) {}

    fn open(&self) -> usize {
        self.open
    }

    fn close_all(&mut self) {
        self.table.clear();
        self.open = 0;
    }

    fn errands(&mut self) -> &mut Errands {
        &mut self.errands
    }
}

#[cfg(all(test, not(debug_assertions)))]
mod tests {
    #[test]
    fn a_socket_is_a_file_descriptor() {
        assert_eq!(size_of::<Option<mio::net::TcpStream>>(), 4);
    }
}
