//! The world of one worker: its sockets by slot, and what each of them is waited for.
//!
//! The pump remembers what an event said until a call would block or falls short. Those calls come through
//! here, so here is known what has to be asked for again; it is asked at the end of the turn, once for each
//! socket and direction, because each time costs a system call.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_io::Async;
use ruststrom_core::{ConnId, Instant, LookupId, Query, Wall};
use ruststrom_driver::clock;
use ruststrom_driver::event::{Event, Readiness};
use ruststrom_driver::services::WorkerServices;
use ruststrom_driver::socket_table;
use ruststrom_driver::world::{Received, Sent, World};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::alarm::Alarm;
use crate::bell::{Board, Rang, bell};

/// Reading, or writing, would block: to be asked for.
const WANT_READ: u8 = 1;
const WANT_WRITE: u8 = 1 << 1;
/// It is asked for.
const READ: u8 = 1 << 2;
const WRITE: u8 = 1 << 3;
const CONNECTING: u8 = 1 << 4;
/// The alarm knows it.
const WATCHED: u8 = 1 << 5;
/// To be looked at when the turn ends.
const LISTED: u8 = 1 << 6;
/// It broke: a short read is not the last one.
const READ_CLOSED: u8 = 1 << 7;

struct Entry {
    id: ConnId,
    bits: u8,
    /// Why it could not be connected, until the pump asks.
    error: Option<io::Error>,
    socket: Async<TcpStream>,
    readable: Waker,
    /// Few ever have to wait for room.
    writable: Option<Waker>,
}

pub(crate) struct Sockets {
    table: Vec<Option<Box<Entry>>>,
    open: usize,
    /// Whose bits changed in this turn.
    listed: Vec<ConnId>,
    board: Arc<Board>,
    alarm: Arc<Alarm>,
    alarm_bell: Waker,
    alarm_rang: bool,
    listener_bells: Vec<Waker>,
    services: WorkerServices,
}

impl Sockets {
    pub(crate) fn new(board: Arc<Board>, alarm: Arc<Alarm>, services: WorkerServices) -> io::Result<Self> {
        let alarm_bell = bell(&board, Rang::Alarm);
        alarm.wait(&alarm_bell)?;
        Ok(Self {
            table: Vec::new(),
            open: 0,
            listed: Vec::new(),
            board,
            alarm,
            alarm_bell,
            alarm_rang: false,
            listener_bells: Vec::new(),
            services,
        })
    }

    pub(crate) fn listen(&mut self, place: usize, listener: TcpListener) -> io::Result<Async<TcpListener>> {
        debug_assert_eq!(place, self.listener_bells.len());
        self.listener_bells.push(bell(&self.board, Rang::Listener(place)));
        Async::new_nonblocking(listener)
    }

    fn keep(&mut self, c: ConnId, socket: TcpStream, bits: u8) -> io::Result<()> {
        let socket = Async::new_nonblocking(socket)?;
        let readable = bell(&self.board, Rang::Readable(c));
        let slot = c.slot as usize;
        if slot >= self.table.len() {
            self.table.resize_with(slot + 1, || None);
        }
        let entry = Box::new(Entry { id: c, bits, error: None, socket, readable, writable: None });
        if self.table[slot].replace(entry).is_none() {
            self.open += 1;
        }
        self.note(c, 0);
        Ok(())
    }

    fn entry(&mut self, c: ConnId) -> Option<&mut Entry> {
        self.table.get_mut(c.slot as usize)?.as_deref_mut().filter(|e| e.id == c)
    }

    fn socket(&self, c: ConnId) -> io::Result<&TcpStream> {
        let entry = self.table.get(c.slot as usize).and_then(Option::as_ref).filter(|e| e.id == c);
        entry.map(|e| e.socket.get_ref()).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Something about `c` changed, and it wants `bits` now.
    fn note(&mut self, c: ConnId, bits: u8) {
        let Some(entry) = self.table.get_mut(c.slot as usize).and_then(Option::as_mut) else { return };
        if entry.bits & LISTED == 0 {
            self.listed.push(c);
        }
        entry.bits |= LISTED | bits;
    }

    fn read_closed(&mut self, c: ConnId) {
        if let Some(entry) = self.entry(c) {
            entry.bits |= READ_CLOSED;
        }
    }

    /// It can be written to; one that was connecting is connected, or failed.
    fn written(&mut self, c: ConnId) -> Option<Event> {
        let entry = self.entry(c)?;
        entry.bits &= !WRITE;
        let mut readiness = Readiness { writable: true, ..Readiness::default() };
        if entry.bits & CONNECTING != 0 {
            entry.bits &= !CONNECTING;
            entry.error = entry.socket.get_ref().take_error().ok().flatten();
            readiness.error = entry.error.is_some();
            // Nobody has read from it yet.
            self.note(c, WANT_READ);
        }
        Some(Event::Conn(c, readiness))
    }

    /// The alarm has rung: what it heard is for the next turn.
    #[cold]
    fn hear(&mut self) {
        self.alarm_rang = true;
        if let Err(e) = self.alarm.hear(|c, readiness| self.board.ring(Rang::Broken(c, readiness))) {
            log::error!("cannot hear of broken connections: {e}");
        }
    }
}

impl Entry {
    /// Asks for what it wants. A socket that nothing is asked of is left to the alarm.
    fn ask(&mut self, board: &Arc<Board>, alarm: &Alarm) -> io::Result<()> {
        self.bits &= !LISTED;
        if self.bits & (WANT_READ | READ) == WANT_READ {
            let mut cx = Context::from_waker(&self.readable);
            // Ready is an old event: what has come since makes the reactor tell at once.
            while let Poll::Ready(asked) = self.socket.poll_readable(&mut cx) {
                asked?;
            }
            self.bits |= READ;
        }
        if self.bits & (WANT_WRITE | WRITE) == WANT_WRITE {
            let waker = self.writable.get_or_insert_with(|| bell(board, Rang::Writable(self.id)));
            let mut cx = Context::from_waker(waker);
            while let Poll::Ready(asked) = self.socket.poll_writable(&mut cx) {
                asked?;
            }
            self.bits |= WRITE;
        }
        self.bits &= !(WANT_READ | WANT_WRITE);
        if self.bits & (READ | WRITE | WATCHED) == 0 {
            alarm.watch(self.id, &self.socket)?;
            self.bits |= WATCHED;
        }
        Ok(())
    }
}

impl World for Sockets {
    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<Received> {
        let mut socket = self.socket(c)?;
        let got = socket.read(buf);
        match &got {
            // Full: there may be more. The end: there is never more.
            Ok(n) if *n == buf.len() || *n == 0 => {}
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => {}
            _ => self.note(c, WANT_READ),
        }
        let bytes = got?;
        let closed = self.entry(c).is_some_and(|e| e.bits & READ_CLOSED != 0);
        Ok(Received { bytes, drained: bytes < buf.len() && !closed })
    }

    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let mut socket = self.socket(c)?;
        let (sent, room) = match slices {
            [one] => (socket.write(one), one.len()),
            many => (socket.write_vectored(many), many.iter().map(|s| s.len()).sum()),
        };
        match &sent {
            Ok(n) if *n == room => {}
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => self.read_closed(c),
            _ => self.note(c, WANT_WRITE),
        }
        let bytes = sent?;
        Ok(Sent { bytes, blocked: bytes < room })
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
        self.services.lookup(id, q);
    }

    fn nudge(&mut self, shard: u16) {
        self.services.nudge(shard);
    }

    fn now(&mut self) -> Instant {
        clock::now()
    }
}

impl ruststrom_driver::sockets::Sockets for Sockets {
    type Listener = Async<TcpListener>;
    type Accepted = OwnedFd;
    type RawEvent = Rang;
    const READY_ON_INSERT: bool = false;

    fn accept(&mut self, _: usize, listener: &Self::Listener) -> io::Result<(OwnedFd, SocketAddr)> {
        socket_table::accept(listener.as_fd())
    }

    fn listener_blocks(&mut self, place: usize, listener: &Self::Listener) {
        let mut cx = Context::from_waker(&self.listener_bells[place]);
        while let Poll::Ready(asked) = listener.poll_readable(&mut cx) {
            if let Err(e) = asked {
                log::error!("cannot wait for connections: {e}");
                // Another try in the next turn.
                return self.board.ring(Rang::Listener(place));
            }
        }
    }

    fn insert(&mut self, c: ConnId, socket: OwnedFd) -> io::Result<()> {
        self.keep(c, socket.into(), 0)
    }

    fn event(&mut self, rang: Rang) -> Option<Event> {
        match rang {
            Rang::Readable(c) => {
                self.entry(c)?.bits &= !READ;
                self.note(c, 0);
                Some(Event::Conn(c, Readiness { readable: true, ..Readiness::default() }))
            }
            Rang::Writable(c) => self.written(c),
            Rang::Broken(c, readiness) => {
                self.read_closed(c);
                Some(Event::Conn(c, readiness))
            }
            Rang::Alarm => {
                self.hear();
                None
            }
            Rang::Listener(place) => Some(Event::Listener(place)),
            Rang::Mailbox => Some(Event::Mailbox),
        }
    }

    fn turn_ended(&mut self) {
        while let Some(c) = self.listed.pop() {
            let Some(entry) =
                self.table.get_mut(c.slot as usize).and_then(Option::as_mut).filter(|e| e.id == c)
            else {
                continue;
            };
            if let Err(e) = entry.ask(&self.board, &self.alarm) {
                log::error!("cannot wait for a connection: {e}");
                self.board.ring(Rang::Broken(c, Readiness { error: true, ..Readiness::default() }));
            }
        }
        if std::mem::take(&mut self.alarm_rang)
            && let Err(e) = self.alarm.wait(&self.alarm_bell)
        {
            log::error!("cannot wait for broken connections: {e}");
        }
    }

    fn open(&self) -> usize {
        self.open
    }

    fn close_all(&mut self) {
        self.table.clear();
        self.listed.clear();
        self.open = 0;
        self.services.next_generation();
    }

    fn generation(&self) -> u32 {
        self.services.generation()
    }

    fn wall(&mut self) -> Wall {
        clock::wall()
    }
}
