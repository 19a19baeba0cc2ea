//! The sockets of one worker by slot, and which readiness of each is asked for.
//!
//! The pump remembers a readiness until a call would block or falls short. Those calls are made here, so it
//! is known here which readiness has to be asked for again. The reactor is asked at the end of the turn, once
//! for each socket and direction, because each time costs a system call.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Waker};

use ruststrom_core::{ConnId, Endpoint, Instant, LookupId, Query, Wall};
use ruststrom_driver::clock;
use ruststrom_driver::event::{Event, Readiness};
use ruststrom_driver::services::WorkerServices;
use ruststrom_driver::socket_table::{self, SocketTable};
use ruststrom_driver::sockets::Sockets;
use ruststrom_driver::world::{Received, Sent, World};
use smol::Async;
use smol::channel::Sender;

use crate::error_poller::ErrorPoller;
use crate::interest::{ask_readable, ask_writable};
use crate::listener::{Listener, ListenerTask};
use crate::ready_queue::{ReadyQueue, WakeReason, task_waker};

/// Reading would block: readiness to read is to be asked for.
const WANT_READ: u8 = 1;
/// Writing would block: readiness to write is to be asked for.
const WANT_WRITE: u8 = 1 << 1;
/// Readiness to read is asked for.
const READ_ASKED: u8 = 1 << 2;
/// Readiness to write is asked for.
const WRITE_ASKED: u8 = 1 << 3;
/// Not connected yet.
const CONNECTING: u8 = 1 << 4;
/// The error poller watches it.
const WATCHED: u8 = 1 << 5;
/// In [`SmolSockets::changed`].
const CHANGED: u8 = 1 << 6;

/// A socket and what is asked for.
struct Entry {
    bits: u8,
    /// Why it could not be connected, until the pump takes it.
    error: Option<io::Error>,
    socket: Async<OwnedFd>,
    readable: Waker,
    /// Made when it is first needed: most sockets always have room.
    writable: Option<Waker>,
}

impl AsFd for Entry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The sockets of one worker.
pub(crate) struct SmolSockets {
    table: SocketTable<Box<Entry>>,
    /// Those whose bits changed in this turn.
    changed: Vec<ConnId>,
    queue: Arc<ReadyQueue>,
    errors: Arc<ErrorPoller>,
    /// To the executor.
    tasks: Sender<ListenerTask>,
    services: WorkerServices,
}

impl SmolSockets {
    /// The executor runs what comes by `tasks`.
    pub(crate) fn new(
        queue: Arc<ReadyQueue>,
        errors: Arc<ErrorPoller>,
        tasks: Sender<ListenerTask>,
        services: WorkerServices,
    ) -> Self {
        Self { table: SocketTable::default(), changed: Vec::new(), queue, errors, tasks, services }
    }

    /// Takes a socket that does not block.
    fn keep(&mut self, c: ConnId, socket: OwnedFd, bits: u8) -> io::Result<()> {
        let socket = Async::new_nonblocking(socket)?;
        let readable = task_waker(&self.queue, WakeReason::Readable(c));
        self.table.insert(c, Box::new(Entry { bits, error: None, socket, readable, writable: None }));
        self.mark(c, 0);
        Ok(())
    }

    /// Something about `c` changed in this turn; `bits` are added.
    fn mark(&mut self, c: ConnId, bits: u8) {
        let Some(entry) = self.table.get_mut(c) else { return };
        if entry.bits & CHANGED == 0 {
            self.changed.push(c);
        }
        entry.bits |= CHANGED | bits;
    }

    fn readable(&mut self, c: ConnId) -> Option<Event> {
        self.table.get_mut(c)?.bits &= !READ_ASKED;
        self.mark(c, 0);
        Some(Event::Conn(c, Readiness { readable: true, ..Readiness::default() }))
    }

    /// It can be written to; one that was connecting is connected, or has failed to.
    fn writable(&mut self, c: ConnId) -> Option<Event> {
        let entry = self.table.get_mut(c)?;
        entry.bits &= !WRITE_ASKED;
        let mut readiness = Readiness { writable: true, ..Readiness::default() };
        if entry.bits & CONNECTING != 0 {
            entry.bits &= !CONNECTING;
            let error = self.table.take_error(c);
            readiness.error = error.is_some();
            self.table.get_mut(c)?.error = error;
            self.table.note(c, readiness);
            // No read has been tried yet, so none has said that it would block.
            self.mark(c, WANT_READ);
        }
        Some(Event::Conn(c, readiness))
    }
}

impl Entry {
    /// Asks the reactor for what it wants; a socket for which nothing is asked is left to the error poller.
    fn ask(&mut self, c: ConnId, queue: &Arc<ReadyQueue>, errors: &ErrorPoller) -> io::Result<()> {
        self.bits &= !CHANGED;
        if self.bits & (WANT_READ | READ_ASKED) == WANT_READ {
            ask_readable(&self.socket, &mut Context::from_waker(&self.readable))?;
            self.bits |= READ_ASKED;
        }
        if self.bits & (WANT_WRITE | WRITE_ASKED) == WANT_WRITE {
            let waker = self.writable.get_or_insert_with(|| task_waker(queue, WakeReason::Writable(c)));
            ask_writable(&self.socket, &mut Context::from_waker(waker))?;
            self.bits |= WRITE_ASKED;
        }
        self.bits &= !(WANT_READ | WANT_WRITE);
        if self.bits & (READ_ASKED | WRITE_ASKED | WATCHED) == 0 {
            errors.watch(c, &self.socket)?;
            self.bits |= WATCHED;
        }
        Ok(())
    }
}

impl World for SmolSockets {
    fn at_end(&mut self, c: ConnId) -> io::Result<bool> {
        self.table.at_end(c)
    }

    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<Received> {
        let received = self.table.recv(c, buf);
        match &received {
            // There may be more; after the end there never is.
            Ok(r) if !r.drained || r.bytes == 0 => {}
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => {}
            _ => self.mark(c, WANT_READ),
        }
        received
    }

    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let sent = self.table.send(c, slices);
        match &sent {
            Ok(s) if !s.blocked => {}
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => {}
            _ => self.mark(c, WANT_WRITE),
        }
        sent
    }

    fn connect(&mut self, c: ConnId, to: &Endpoint) -> io::Result<()> {
        let socket = socket_table::connect(to)?;
        self.keep(c, socket, CONNECTING | WANT_WRITE)
    }

    fn take_error(&mut self, c: ConnId) -> Option<io::Error> {
        self.table.get_mut(c)?.error.take().or_else(|| self.table.take_error(c))
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

impl Sockets for SmolSockets {
    type Bound = TcpListener;
    type Listener = Listener;
    type Accepted = OwnedFd;
    type RawEvent = WakeReason;
    const READY_ON_INSERT: bool = false;

    fn listen(&mut self, place: usize, listener: TcpListener) -> io::Result<Listener> {
        let (listener, task) = Listener::new(place, listener)?;
        self.tasks.try_send(task).map_err(io::Error::other)?;
        Ok(listener)
    }

    fn lend(&self, listener: &Listener) -> io::Result<OwnedFd> {
        listener.as_fd().try_clone_to_owned()
    }

    fn accept(&mut self, _: usize, listener: &Listener) -> io::Result<(OwnedFd, SocketAddr)> {
        socket_table::accept(listener.as_fd())
    }

    fn listener_blocks(&mut self, _: usize, listener: &Listener) {
        listener.accept_blocks();
    }

    fn insert(&mut self, c: ConnId, accepted: OwnedFd) -> io::Result<()> {
        self.keep(c, accepted, 0)
    }

    fn event(&mut self, reason: WakeReason) -> Option<Event> {
        match reason {
            WakeReason::Readable(c) => self.readable(c),
            WakeReason::Writable(c) => self.writable(c),
            WakeReason::Failed(c, readiness) => {
                self.table.note(c, readiness);
                Some(Event::Conn(c, readiness))
            }
            WakeReason::Listener(place) => Some(Event::Listener(place)),
            WakeReason::Mailbox => Some(Event::Mailbox),
        }
    }

    fn turn_ended(&mut self) {
        while let Some(c) = self.changed.pop() {
            let Some(entry) = self.table.get_mut(c) else { continue };
            if let Err(e) = entry.ask(c, &self.queue, &self.errors) {
                log::error!("cannot wait for a connection: {e}");
                self.queue.push(WakeReason::Failed(c, Readiness { error: true, ..Readiness::default() }));
            }
        }
    }

    fn open(&self) -> usize {
        self.table.open()
    }

    fn close_all(&mut self) {
        self.table.clear();
        self.changed.clear();
        self.services.next_generation();
    }

    fn generation(&self) -> u32 {
        self.services.generation()
    }

    fn wall(&mut self) -> Wall {
        clock::wall()
    }
}
