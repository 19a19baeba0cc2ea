//! The sockets of one worker by slot, and which readiness of each is asked for.
//!
//! The pump remembers a readiness until a call would block or falls short. Those calls are made here, so it is
//! known here which readiness has to be asked for again. The reactor is asked at the end of the turn, once for
//! each socket and direction, because each time costs a system call.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use ruststrom_core::{ConnId, Instant, LookupId, Query};
use ruststrom_driver::clock;
use ruststrom_driver::engine::{self, Event};
use ruststrom_driver::errands::Errands;
use ruststrom_driver::pump::{Readiness, World};
use smol::Async;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

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
/// In [`Sockets::changed`].
const CHANGED: u8 = 1 << 6;

/// A socket and what is asked for.
struct Entry {
    id: ConnId,
    bits: u8,
    /// Why it could not be connected, until the pump takes it.
    error: Option<io::Error>,
    socket: Async<TcpStream>,
    readable: Waker,
    /// Made when it is first needed: most sockets always have room.
    writable: Option<Waker>,
}

/// The sockets of one worker.
pub(crate) struct Sockets {
    /// By slot.
    table: Vec<Option<Box<Entry>>>,
    open: usize,
    /// Those whose bits changed in this turn.
    changed: Vec<ConnId>,
    queue: Arc<ReadyQueue>,
    errors: Arc<ErrorPoller>,
    listeners: mpsc::Sender<ListenerTask>,
    errands: Errands,
}

impl Sockets {
    /// No sockets yet. The task of each listener goes to `listeners`, for the executor.
    pub(crate) fn new(
        queue: Arc<ReadyQueue>,
        errors: Arc<ErrorPoller>,
        listeners: mpsc::Sender<ListenerTask>,
        errands: Errands,
    ) -> Self {
        Self { table: Vec::new(), open: 0, changed: Vec::new(), queue, errors, listeners, errands }
    }

    fn keep(&mut self, c: ConnId, socket: TcpStream, bits: u8) -> io::Result<()> {
        let socket = Async::new_nonblocking(socket)?;
        let readable = task_waker(&self.queue, WakeReason::Readable(c));
        let slot = c.slot as usize;
        if slot >= self.table.len() {
            self.table.resize_with(slot + 1, || None);
        }
        let entry = Box::new(Entry { id: c, bits, error: None, socket, readable, writable: None });
        if self.table[slot].replace(entry).is_none() {
            self.open += 1;
        }
        self.mark(c, 0);
        Ok(())
    }

    fn entry(&mut self, c: ConnId) -> Option<&mut Entry> {
        self.table.get_mut(c.slot as usize)?.as_deref_mut().filter(|e| e.id == c)
    }

    fn socket(&self, c: ConnId) -> io::Result<&TcpStream> {
        let entry = self.table.get(c.slot as usize).and_then(Option::as_ref).filter(|e| e.id == c);
        entry.map(|e| e.socket.get_ref()).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Something about `c` changed in this turn; `bits` are added.
    fn mark(&mut self, c: ConnId, bits: u8) {
        let Some(entry) = self.table.get_mut(c.slot as usize).and_then(Option::as_mut) else { return };
        if entry.bits & CHANGED == 0 {
            self.changed.push(c);
        }
        entry.bits |= CHANGED | bits;
    }

    /// It can be written to; one that was connecting is connected, or has failed to.
    fn writable(&mut self, c: ConnId) -> Option<Event> {
        let entry = self.entry(c)?;
        entry.bits &= !WRITE_ASKED;
        let mut readiness = Readiness { writable: true, ..Readiness::default() };
        if entry.bits & CONNECTING != 0 {
            entry.bits &= !CONNECTING;
            entry.error = entry.socket.get_ref().take_error().ok().flatten();
            readiness.error = entry.error.is_some();
            // No read has been tried yet, so none has said that it would block.
            self.mark(c, WANT_READ);
        }
        Some(Event::Conn(c, readiness))
    }
}

impl Entry {
    /// Asks the reactor for what it wants; a socket for which nothing is asked is left to the error poller.
    fn ask(&mut self, queue: &Arc<ReadyQueue>, errors: &ErrorPoller) -> io::Result<()> {
        self.bits &= !CHANGED;
        if self.bits & (WANT_READ | READ_ASKED) == WANT_READ {
            ask_readable(&self.socket, &mut Context::from_waker(&self.readable))?;
            self.bits |= READ_ASKED;
        }
        if self.bits & (WANT_WRITE | WRITE_ASKED) == WANT_WRITE {
            let waker = self.writable.get_or_insert_with(|| task_waker(queue, WakeReason::Writable(self.id)));
            ask_writable(&self.socket, &mut Context::from_waker(waker))?;
            self.bits |= WRITE_ASKED;
        }
        self.bits &= !(WANT_READ | WANT_WRITE);
        if self.bits & (READ_ASKED | WRITE_ASKED | WATCHED) == 0 {
            errors.watch(self.id, &self.socket)?;
            self.bits |= WATCHED;
        }
        Ok(())
    }
}

impl World for Sockets {
    // By rustix, which makes the system call itself: libc's functions are cancellation points, which costs
    // two atomic steps each.
    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<usize> {
        let received: io::Result<usize> =
            match rustix::net::recv(self.socket(c)?, &mut *buf, RecvFlags::empty()) {
                Ok((n, _)) => Ok(n),
                Err(e) => Err(e.into()),
            };
        match &received {
            // Full: there may be more. The end: there is never more.
            Ok(n) if *n == buf.len() || *n == 0 => {}
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => {}
            _ => self.mark(c, WANT_READ),
        }
        received
    }

    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = self.socket(c)?;
        let sent: io::Result<usize> = match slices {
            [one] => rustix::net::send(socket, one, SendFlags::NOSIGNAL),
            many => rustix::io::writev(socket, many),
        }
        .map_err(io::Error::from);
        let len: usize = slices.iter().map(|s| s.len()).sum();
        match &sent {
            Ok(n) if *n == len => {}
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => {}
            _ => self.mark(c, WANT_WRITE),
        }
        sent
    }

    fn connect(&mut self, c: ConnId, to: SocketAddr) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        // Not worth a failed connection.
        let _ = socket.set_tcp_nodelay(true);
        match socket.connect(&to.into()) {
            Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(e),
            _ => self.keep(c, socket.into(), CONNECTING | WANT_WRITE),
        }
    }

    fn take_error(&mut self, c: ConnId) -> Option<io::Error> {
        let entry = self.entry(c)?;
        entry.error.take().or_else(|| entry.socket.get_ref().take_error().ok()?)
    }

    fn shutdown(&mut self, c: ConnId) {
        if let Ok(socket) = self.socket(c) {
            // Fails if the peer has gone already; its event says so.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, c: ConnId) {
        if self.table.get_mut(c.slot as usize).and_then(Option::take).is_some() {
            self.open -= 1;
        }
    }

    fn reset(&mut self, c: ConnId) {
        if let Ok(socket) = self.socket(c) {
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
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
    type Listener = Listener;
    type Found = WakeReason;
    const TELLS: bool = false;

    fn listen(&mut self, place: usize, listener: TcpListener) -> io::Result<Listener> {
        let (listener, task) = Listener::new(place, listener)?;
        self.listeners.send(task).map_err(|_| io::Error::other("the executor has ended"))?;
        Ok(listener)
    }

    fn listener_blocks(&mut self, _: usize, listener: &Listener) {
        listener.accept_blocks();
    }

    fn insert(&mut self, c: ConnId, socket: TcpStream) -> io::Result<()> {
        self.keep(c, socket, 0)
    }

    fn event(&mut self, reason: WakeReason) -> Option<Event> {
        match reason {
            WakeReason::Readable(c) => {
                self.entry(c)?.bits &= !READ_ASKED;
                self.mark(c, 0);
                Some(Event::Conn(c, Readiness { readable: true, ..Readiness::default() }))
            }
            WakeReason::Writable(c) => self.writable(c),
            WakeReason::Failed(c, readiness) => Some(Event::Conn(c, readiness)),
            WakeReason::Listener(place) => Some(Event::Listener(place)),
            WakeReason::Mailbox => Some(Event::Inbox),
        }
    }

    fn turn_ended(&mut self) {
        while let Some(c) = self.changed.pop() {
            let Some(entry) =
                self.table.get_mut(c.slot as usize).and_then(Option::as_mut).filter(|e| e.id == c)
            else {
                continue;
            };
            if let Err(e) = entry.ask(&self.queue, &self.errors) {
                log::error!("cannot wait for a connection: {e}");
                self.queue.push(WakeReason::Failed(c, Readiness { error: true, ..Readiness::default() }));
            }
        }
    }

    fn open(&self) -> usize {
        self.open
    }

    fn close_all(&mut self) {
        self.table.clear();
        self.changed.clear();
        self.open = 0;
    }

    fn errands(&mut self) -> &mut Errands {
        &mut self.errands
    }
}
