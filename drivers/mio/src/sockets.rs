//! The sockets of one worker, waited for edge triggered.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use ruststrom_core::{ConnId, Endpoint, Instant, LookupId, Query, Wall};
use ruststrom_driver::clock;
use ruststrom_driver::event::{Event, Readiness};
use ruststrom_driver::services::WorkerServices;
use ruststrom_driver::socket_table::{self, SocketTable};
use ruststrom_driver::sockets::Sockets;
use ruststrom_driver::world::{Received, Sent, World};

use crate::token::EventSource;

/// A worker's sockets; nothing but a file descriptor is kept of each.
pub(crate) struct MioSockets {
    registry: Registry,
    table: SocketTable<OwnedFd>,
    services: WorkerServices,
}

/// What the poller said in one event.
pub(crate) struct PolledEvent {
    source: EventSource,
    readiness: Readiness,
}

impl PolledEvent {
    pub(crate) fn new(event: &mio::event::Event) -> Self {
        let readiness = Readiness {
            readable: event.is_readable(),
            writable: event.is_writable(),
            closed: event.is_read_closed(),
            error: event.is_error(),
        };
        Self { source: EventSource::from_token(event.token()), readiness }
    }
}

impl MioSockets {
    pub(crate) fn new(registry: Registry, services: WorkerServices) -> Self {
        Self { registry, table: SocketTable::default(), services }
    }

    fn register(&self, fd: RawFd, source: EventSource, interest: Interest) -> io::Result<()> {
        self.registry.register(&mut SourceFd(&fd), source.token(), interest)
    }
}

impl World for MioSockets {
    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<Received> {
        self.table.recv(c, buf)
    }

    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        self.table.send(c, slices)
    }

    fn connect(&mut self, c: ConnId, to: &Endpoint) -> io::Result<()> {
        let socket = socket_table::connect(to)?;
        self.insert(c, socket)
    }

    fn take_error(&mut self, c: ConnId) -> Option<io::Error> {
        self.table.take_error(c)
    }

    fn shutdown(&mut self, c: ConnId) {
        self.table.shutdown(c);
    }

    fn close(&mut self, c: ConnId) {
        self.table.close(c);
    }

    fn reset(&mut self, c: ConnId) {
        self.table.reset(c);
    }

    fn lookup(&mut self, id: LookupId, q: Query) {
        self.services.lookup(id, q);
    }

    fn nudge(&mut self, shard: u16) {
        self.services.nudge(shard);
    }

    fn now(&mut self) -> Instant {
        clock::now()
    }
}

impl Sockets for MioSockets {
    type Bound = TcpListener;
    type Listener = TcpListener;
    type Accepted = OwnedFd;
    type RawEvent = PolledEvent;
    const READY_ON_INSERT: bool = true;

    fn listen(&mut self, place: usize, listener: TcpListener) -> io::Result<TcpListener> {
        self.register(listener.as_raw_fd(), EventSource::Listener(place), Interest::READABLE)?;
        Ok(listener)
    }

    fn lend(&self, listener: &TcpListener) -> io::Result<OwnedFd> {
        listener.as_fd().try_clone_to_owned()
    }

    fn accept(&mut self, _: usize, listener: &TcpListener) -> io::Result<(OwnedFd, SocketAddr)> {
        socket_table::accept(listener.as_fd())
    }

    fn listener_blocks(&mut self, _: usize, _: &TcpListener) {}

    fn close_listener(&mut self, _: usize, listener: TcpListener) {
        // While another worker or another process has the same socket, closing it here would leave it in our
        // poller (epoll(7)): each connection to the others would be an event.
        let _ = self.registry.deregister(&mut SourceFd(&listener.as_raw_fd()));
    }

    fn insert(&mut self, c: ConnId, socket: OwnedFd) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.register(socket.as_raw_fd(), EventSource::Conn(c), interest)?;
        self.table.insert(c, socket);
        Ok(())
    }

    fn event(&mut self, event: PolledEvent) -> Option<Event> {
        Some(match event.source {
            EventSource::Conn(c) => {
                self.table.note(c, event.readiness);
                Event::Conn(c, event.readiness)
            }
            EventSource::Listener(place) => Event::Listener(place),
            EventSource::Mailbox => Event::Mailbox,
        })
    }

    fn turn_ended(&mut self) {}

    fn open(&self) -> usize {
        self.table.open()
    }

    fn close_all(&mut self) {
        self.table.clear();
        self.services.next_generation();
    }

    fn generation(&self) -> u32 {
        self.services.generation()
    }

    fn wall(&mut self) -> Wall {
        clock::wall()
    }
}
