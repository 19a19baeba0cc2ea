//! A world of sockets with security on some of them.
//!
//! Ciphertext is read into one buffer of the worker and decrypted into the room that the core lends; what the
//! core lends to be sent becomes ciphertext that goes to the socket at once. Nothing is kept for a connection
//! but its [`Session`], and what that holds is bounded: by one record and one read on the way in, by what the
//! core offered in one call on the way out.
//!
//! **What is sent.** The core may forget a byte once it is told that it has been sent. Ciphertext that the
//! socket does not take stays in the session; so of what was offered the last byte is not told to have been
//! sent before all of it has gone to the socket. The core offers it again, it still has something to send,
//! and so its deadlines, its orderly ends and its closing wait for the ciphertext as they do for any byte.
//!
//! **What is closed.** The `close_notify` of a connection that the core closes goes if there is room for it
//! at that moment, and is dropped otherwise. All data has gone before; but a peer for whom the end says that
//! a message is whole may take that for a cut. It needs a socket that its last data has filled to the last
//! byte. A half that is shut down waits for the room.
//!
//! **What is read.** Plaintext in the session counts as readable: [`Received::drained`] is false while there
//! is any. The end of a socket without `close_notify` is no end of the stream but a break.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use ruststrom_core::config::TlsTarget;
use ruststrom_core::observe::Name;
use ruststrom_core::{ConnId, Endpoint, Fault, Instant, LookupId, Negotiated, Query, TlsFault, Wall};

use super::layer::{Layer, Session};
use crate::event::Event;
use crate::planted::planted;
use crate::sockets::Sockets;
use crate::world::{Received, SecurityError, Sent, World};

/// Ciphertext is read in pieces of at most so many bytes: a full record fits.
const SCRATCH_BYTES: usize = 17 * 1024;
/// At least so many are read at once, however little room there is for plaintext: a session takes that much.
const LEAST_READ: usize = 4096;

/// A world around another one that secures the connections that are to be.
pub struct TlsWorld<W, L: Layer> {
    inner: W,
    layer: L,
    /// For names in the log.
    worker: u16,
    /// By slot; as long as the last one that has a session.
    secured: Vec<Option<Box<Secured<L::Session>>>>,
    scratch: Vec<u8>,
}

/// A connection with a session.
struct Secured<S> {
    session: S,
    epoch: u32,
    /// The socket has not been connected yet.
    connecting: bool,
    handshaking: bool,
    /// The last byte that was offered has been secured, and has not been told to have been sent.
    held_back: bool,
    /// The socket has taken less than it was given: it will say when there is room.
    blocked: bool,
    /// The sending half is to be shut down once everything has gone.
    shut: bool,
    /// Nothing more will be sent: `close_notify` has been.
    ended: bool,
    /// The sending half has been shut down: there is no way for an answer to the peer any more.
    closed: bool,
    /// Why there is nothing more to read.
    failed: Option<Fault>,
    /// Ciphertext that the session had no room for.
    rest: Vec<u8>,
}

fn error(fault: Fault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, SecurityError(fault))
}

/// The peer cut the connection: something is missing.
fn cut() -> io::Error {
    error(Fault::Tls(TlsFault::Closed))
}

impl<W, L: Layer> TlsWorld<W, L> {
    /// A world around `inner`.
    pub fn new(inner: W, layer: L) -> Self {
        Self { inner, layer, worker: 0, secured: Vec::new(), scratch: Vec::new() }
    }

    /// That of the worker with this number, as the log names it.
    #[must_use]
    pub fn of_worker(self, worker: u16) -> Self {
        Self { worker, ..self }
    }

    /// The world inside.
    pub fn inner(&self) -> &W {
        &self.inner
    }

    /// The world inside.
    pub fn inner_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// The same connections around another world, and the world that was inside: for one that is made anew
    /// for each turn. Connections of both have the same ids.
    pub fn replace_inner<V>(self, inner: V) -> (TlsWorld<V, L>, W) {
        let Self { inner: before, layer, secured, scratch, worker } = self;
        (TlsWorld { inner, layer, secured, scratch, worker }, before)
    }

    /// Sessions to come are made by this one.
    pub fn set_layer(&mut self, layer: L) {
        self.layer = layer;
    }
}

impl<W: World, L: Layer> TlsWorld<W, L> {
    fn secure(&mut self, c: ConnId, session: L::Session, connecting: bool) {
        let slot = c.slot as usize;
        if slot >= self.secured.len() {
            self.secured.resize_with(slot + 1, || None);
        }
        if self.scratch.is_empty() {
            self.scratch = vec![0; SCRATCH_BYTES];
        }
        self.secured[slot] = Some(Box::new(Secured {
            session,
            epoch: c.epoch,
            connecting,
            handshaking: true,
            held_back: false,
            blocked: false,
            shut: false,
            ended: false,
            closed: false,
            failed: None,
            rest: Vec::new(),
        }));
    }

    /// A connection with its session, beside the rest of this world.
    #[inline]
    fn parts(&mut self, c: ConnId) -> Option<Parts<'_, W, L::Session>> {
        let secured = self.secured.get_mut(c.slot as usize)?.as_deref_mut().filter(|s| s.epoch == c.epoch)?;
        Some(Parts { secured, inner: &mut self.inner, scratch: &mut self.scratch, worker: self.worker, c })
    }

    /// Takes the session of a connection that ends.
    fn forget(&mut self, c: ConnId) -> Option<Box<Secured<L::Session>>> {
        self.secured.get_mut(c.slot as usize)?.take_if(|s| s.epoch == c.epoch)
    }
}

/// A secured connection and its world.
struct Parts<'a, W, S> {
    secured: &'a mut Secured<S>,
    inner: &'a mut W,
    scratch: &'a mut [u8],
    worker: u16,
    c: ConnId,
}

/// What came of reading from the socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrived {
    /// Some bytes; there may be more.
    Bytes,
    /// Some bytes, and there are no more.
    Drained,
    Nothing,
    End,
}

impl<W: World, S: Session> Parts<'_, W, S> {
    /// Sends what the session has to say; whether all of it has gone.
    fn flush(&mut self) -> io::Result<bool> {
        if self.secured.failed.is_some() && planted!(132) {
            return Ok(true);
        }
        while self.secured.session.has_output() && (!self.secured.closed || planted!(131)) {
            let (inner, c, mut blocked) = (&mut *self.inner, self.c, false);
            let sent = self.secured.session.flush(&mut |slices| match inner.send(c, slices) {
                Ok(sent) => {
                    blocked = sent.blocked;
                    Ok(sent.bytes)
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
                Err(e) => Err(e),
            });
            match sent {
                Ok(()) if !blocked => continue,
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            self.secured.blocked = true;
            return Ok(false);
        }
        self.secured.blocked = false;
        Ok(true)
    }

    /// Sends what there is because of what was received. A socket that broke says so when it is read; one
    /// that is to say when there is room is left alone until then, as whoever wants to write waits for that
    /// too.
    fn respond(&mut self) {
        if !self.secured.blocked || planted!(139) {
            let _ = self.flush();
        }
    }

    /// Reads ciphertext once, at most `limit` bytes of it, and lets the session have it; plaintext that comes
    /// of it goes to `buf` behind the `filled` bytes there.
    fn receive(&mut self, limit: usize, buf: &mut [u8], filled: &mut usize) -> io::Result<Arrived> {
        if let Some(fault) = self.secured.failed {
            return Err(error(fault));
        }
        if !self.secured.rest.is_empty() {
            let rest = std::mem::take(&mut self.secured.rest);
            self.take(&rest, buf, filled)?;
            return Ok(Arrived::Bytes);
        }
        let limit = limit.clamp(LEAST_READ, self.scratch.len());
        let scratch = std::mem::take(&mut self.scratch);
        let received = match self.inner.recv(self.c, &mut scratch[..limit]) {
            Ok(Received { bytes: 0, .. }) => Ok(Arrived::End),
            Ok(Received { bytes, drained }) => self
                .take(&scratch[..bytes], buf, filled)
                .map(|()| if drained { Arrived::Drained } else { Arrived::Bytes }),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Arrived::Nothing),
            Err(e) => Err(e),
        };
        self.scratch = scratch;
        received
    }

    /// Lets the session have ciphertext. An error behind plaintext is kept until that has been read; before
    /// the end of the handshake there is none.
    fn take(&mut self, mut bytes: &[u8], buf: &mut [u8], filled: &mut usize) -> io::Result<()> {
        while !bytes.is_empty() {
            let session = &mut self.secured.session;
            match session.receive(bytes) {
                Ok(0) => {
                    self.secured.rest = if planted!(128) { Vec::new() } else { bytes.to_vec() };
                    break;
                }
                Ok(n) => bytes = &bytes[n..],
                Err(fault) => {
                    *filled += session.read(&mut buf[*filled..]);
                    if let Some(failure) = session.failure() {
                        log::debug!(target: "proxy", "connection {}.{}: {failure}", self.worker, Name(self.c));
                    }
                    let over = session.negotiated().is_some();
                    self.secured.failed = Some(fault);
                    self.respond();
                    if over && (*filled > 0 || self.secured.session.has_plaintext()) {
                        return Ok(());
                    }
                    return Err(error(fault));
                }
            }
            *filled += session.read(&mut buf[*filled..]);
        }
        if self.secured.session.has_output() {
            self.respond();
        }
        Ok(())
    }

    /// Reads and drops what a client sends that has been told why its handshake failed.
    #[cold]
    fn discard(&mut self) -> io::Result<Received> {
        match self.inner.recv(self.c, self.scratch)? {
            Received { bytes: 0, .. } => Ok(Received { bytes: 0, drained: true }),
            Received { drained: true, .. } => Err(io::ErrorKind::WouldBlock.into()),
            Received { .. } => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    fn recv(&mut self, buf: &mut [u8]) -> io::Result<Received> {
        if self.secured.handshaking && self.secured.failed.is_some() {
            return self.discard();
        }
        let mut filled = self.secured.session.read(buf);
        while filled == 0 {
            if self.secured.session.is_ended() {
                return Ok(Received { bytes: 0, drained: true });
            }
            match self.receive(buf.len(), buf, &mut filled)? {
                Arrived::Bytes => {}
                Arrived::Drained if filled > 0 => {
                    let held = self.secured.session.has_plaintext()
                        || self.secured.session.is_ended()
                        || !self.secured.rest.is_empty()
                        || self.secured.failed.is_some();
                    // Room that is full to the last byte may hide more, as a socket's does.
                    let drained = !held && filled < buf.len();
                    return Ok(Received { bytes: filled, drained: drained || planted!(120) });
                }
                Arrived::Drained if self.secured.session.is_ended() => {}
                Arrived::Drained if self.secured.failed.is_some() => {}
                Arrived::Drained | Arrived::Nothing => return Err(io::ErrorKind::WouldBlock.into()),
                Arrived::End if planted!(121) => return Ok(Received { bytes: 0, drained: true }),
                Arrived::End => return Err(cut()),
            }
        }
        Ok(Received { bytes: filled, drained: planted!(120) })
    }

    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        if self.secured.ended {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        if !self.flush()? {
            return Ok(Sent { bytes: 0, blocked: true });
        }
        // The core still has the byte that was held back, as the first one.
        let skip = usize::from(std::mem::take(&mut self.secured.held_back) && !planted!(130));
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total > skip {
            self.write(slices, skip);
            if !self.flush()? {
                if planted!(122) {
                    return Ok(Sent { bytes: total, blocked: true });
                }
                self.secured.held_back = true;
                return Ok(Sent { bytes: total - 1, blocked: true });
            }
        }
        Ok(Sent { bytes: total, blocked: false })
    }

    /// Secures what is offered but for its first `skip` bytes: one at most.
    fn write(&mut self, slices: &[IoSlice<'_>], skip: usize) {
        match slices {
            _ if skip == 0 => self.secured.session.write(slices),
            [first, rest @ ..] => {
                if first.len() > skip {
                    self.secured.session.write(&[IoSlice::new(&first[skip..])]);
                }
                if !rest.is_empty() {
                    self.secured.session.write(rest);
                }
            }
            [] => {}
        }
    }

    /// Says that nothing more will be sent, once.
    fn end(&mut self) {
        if !std::mem::replace(&mut self.secured.ended, true) && !self.secured.handshaking && !planted!(126) {
            self.secured.session.end();
        }
    }

    fn shutdown(&mut self) {
        self.end();
        match self.flush() {
            Ok(false) => self.secured.shut = true,
            // It broke: its event says so.
            Ok(true) | Err(_) => self.close_half(),
        }
    }

    fn close_half(&mut self) {
        self.secured.closed = true;
        self.inner.shutdown(self.c);
    }

    /// There is room for what the session has to say by itself.
    fn writable(&mut self) {
        if planted!(125) {
            return;
        }
        if !self.secured.connecting && self.secured.session.has_output() && self.flush().is_ok_and(|all| all)
        {
            self.flushed();
        }
    }

    fn flushed(&mut self) {
        if std::mem::take(&mut self.secured.shut) {
            self.close_half();
        }
    }

    /// Goes on with the handshake; whether it is over.
    fn handshake(&mut self) -> Result<bool, Fault> {
        self.secured.connecting = false;
        let broken = |e: &io::Error| match crate::pump::fault_of(e) {
            Fault::Reset => Fault::Tls(TlsFault::Closed),
            other => other,
        };
        loop {
            self.flush().map_err(|e| broken(&e))?;
            if self.secured.session.negotiated().is_some() {
                self.secured.handshaking = false;
                return Ok(true);
            }
            match self.receive(LEAST_READ, &mut [], &mut 0) {
                Ok(Arrived::Bytes) => {}
                Ok(Arrived::Drained) if self.secured.session.negotiated().is_some() => {}
                Ok(Arrived::Drained | Arrived::Nothing) => return Ok(false),
                Ok(Arrived::End) => return Err(Fault::Tls(TlsFault::Closed)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(broken(&e)),
            }
        }
    }
}

impl<W: World, L: Layer> World for TlsWorld<W, L> {
    #[inline]
    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<Received> {
        if let Some(mut parts) = self.parts(c) {
            return parts.recv(buf);
        }
        self.inner.recv(c, buf)
    }

    fn at_end(&mut self, c: ConnId) -> io::Result<bool> {
        let Some(mut parts) = self.parts(c) else { return self.inner.at_end(c) };
        // What is found lies in the session until it is read.
        while !parts.secured.session.has_plaintext()
            && !parts.secured.session.is_ended()
            && parts.secured.failed.is_none()
        {
            match parts.receive(LEAST_READ, &mut [], &mut 0)? {
                Arrived::Bytes => {}
                Arrived::Drained => break,
                Arrived::Nothing => return Err(io::ErrorKind::WouldBlock.into()),
                Arrived::End => return Ok(true),
            }
        }
        Ok(parts.secured.session.is_ended() && !parts.secured.session.has_plaintext())
    }

    #[inline]
    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        if let Some(mut parts) = self.parts(c) {
            return parts.send(slices);
        }
        self.inner.send(c, slices)
    }

    fn connect(&mut self, c: ConnId, to: &Endpoint) -> io::Result<()> {
        self.inner.connect(c, to)
    }

    fn connect_tls(&mut self, c: ConnId, to: &Endpoint, target: &TlsTarget) -> io::Result<()> {
        let session = self.layer.connect(target).map_err(error)?;
        self.inner.connect(c, to)?;
        self.secure(c, session, true);
        Ok(())
    }

    fn accept_tls(&mut self, c: ConnId) {
        let session = self.layer.accept();
        self.secure(c, session, false);
    }

    fn handshake(&mut self, c: ConnId) -> Result<Option<Negotiated<'_>>, Fault> {
        let Some(mut parts) = self.parts(c) else { return Err(Fault::Other) };
        match parts.handshake() {
            Ok(false) => Ok(None),
            Ok(true) => Ok(self.parts(c).and_then(|parts| parts.secured.session.negotiated())),
            Err(fault) => {
                if fault == Fault::PlainHttp {
                    // It is told so in words that it understands.
                    self.forget(c);
                }
                Err(fault)
            }
        }
    }

    fn take_error(&mut self, c: ConnId) -> Option<io::Error> {
        self.inner.take_error(c)
    }

    fn shutdown(&mut self, c: ConnId) {
        match self.parts(c) {
            Some(mut parts) => parts.shutdown(),
            None => self.inner.shutdown(c),
        }
    }

    fn close(&mut self, c: ConnId) {
        if let Some(mut parts) = self.parts(c)
            && !parts.secured.connecting
            && !planted!(123)
        {
            parts.end();
            let _ = parts.flush();
        }
        self.forget(c);
        self.inner.close(c);
    }

    fn reset(&mut self, c: ConnId) {
        self.forget(c);
        self.inner.reset(c);
    }

    fn lookup(&mut self, id: LookupId, q: Query) {
        self.inner.lookup(id, q);
    }

    fn nudge(&mut self, shard: u16) {
        self.inner.nudge(shard);
    }

    fn now(&mut self) -> Instant {
        self.inner.now()
    }
}

impl<W: Sockets, L: Layer> Sockets for TlsWorld<W, L> {
    type Bound = W::Bound;
    type Listener = W::Listener;
    type Accepted = W::Accepted;
    type RawEvent = W::RawEvent;
    const READY_ON_INSERT: bool = W::READY_ON_INSERT;

    fn listen(&mut self, place: usize, listener: W::Bound) -> io::Result<W::Listener> {
        self.inner.listen(place, listener)
    }

    fn lend(&self, listener: &W::Listener) -> io::Result<OwnedFd> {
        self.inner.lend(listener)
    }

    fn accept(&mut self, place: usize, listener: &W::Listener) -> io::Result<(W::Accepted, SocketAddr)> {
        self.inner.accept(place, listener)
    }

    fn listener_blocks(&mut self, place: usize, listener: &W::Listener) {
        self.inner.listener_blocks(place, listener);
    }

    fn insert(&mut self, c: ConnId, accepted: W::Accepted) -> io::Result<()> {
        self.inner.insert(c, accepted)
    }

    fn refuse(&mut self, accepted: W::Accepted) {
        self.inner.refuse(accepted);
    }

    fn close_listener(&mut self, place: usize, listener: W::Listener) {
        self.inner.close_listener(place, listener);
    }

    fn event(&mut self, raw: W::RawEvent) -> Option<Event> {
        let event = self.inner.event(raw)?;
        if let Event::Conn(c, readiness) = event
            && readiness.writable
            && let Some(mut parts) = self.parts(c)
        {
            parts.writable();
        }
        Some(event)
    }

    fn turn_ended(&mut self) {
        self.inner.turn_ended();
    }

    fn open(&self) -> usize {
        self.inner.open()
    }

    fn close_all(&mut self) {
        self.secured.clear();
        self.inner.close_all();
    }

    fn generation(&self) -> u32 {
        self.inner.generation()
    }

    fn wall(&mut self) -> Wall {
        self.inner.wall()
    }
}
