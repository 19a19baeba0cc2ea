//! The sockets and the services that the pump works on, as one trait.
//!
//! The drivers implement [`World`] on kernel sockets, the simulator on its own. Whatever sits between a
//! socket and the core is a `World` around another one: [`TlsWorld`](crate::tls::TlsWorld) is one.

use std::io::{self, IoSlice};

use ruststrom_core::config::TlsTarget;
use ruststrom_core::{ConnId, Endpoint, Fault, Instant, LookupId, Negotiated, Query};

/// What one [`World::recv`] read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer; 0 is the end of the stream.
    pub bytes: usize,
    /// Nothing is left to read: whatever comes later is a new readable event. If false, the next call may
    /// find more, the end, or that it would block.
    pub drained: bool,
}

/// What one [`World::send`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Bytes taken from the front of the slices.
    pub bytes: usize,
    /// Not all of the slices were taken, and another call would block: room is a new writable event. If
    /// false, all of them were taken.
    pub blocked: bool,
}

/// Why a secured connection is of no use any more; the source of an [`io::Error`].
#[derive(Clone, Copy, Debug)]
pub struct SecurityError(pub Fault);

impl std::fmt::Display for SecurityError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

impl std::error::Error for SecurityError {}

/// The sockets of one worker, and what else of the outside world the core needs. None of the calls blocks.
pub trait World {
    /// Reads into `buf`, which is not empty.
    ///
    /// # Errors
    /// `WouldBlock`: nothing is there, a readable event follows. `Interrupted`: call again. Anything else:
    /// the socket is broken.
    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<Received>;
    /// Whether a read would find the end of the stream. For a poller whose events do not say so
    /// ([`Readiness::closed`](crate::event::Readiness::closed)).
    ///
    /// # Errors
    /// As of [`World::recv`]; a broken socket may have lost its error by that.
    fn at_end(&mut self, c: ConnId) -> io::Result<bool> {
        let _ = c;
        Ok(false)
    }
    /// Writes `slices`, none of which is empty.
    ///
    /// # Errors
    /// `WouldBlock`: there is no room, a writable event follows. `Interrupted`: call again. Anything else:
    /// the socket is broken; bytes that came before may still be read.
    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<Sent>;
    /// Starts connecting; a writable or an error event follows.
    ///
    /// # Errors
    /// If it failed at once, and no event follows. `WouldBlock`: the queue of a Unix socket's listener is
    /// full.
    fn connect(&mut self, c: ConnId, to: &Endpoint) -> io::Result<()>;
    /// Starts connecting to a backend that speaks TLS; a writable or an error event follows, and then
    /// [`World::handshake`] is to be called.
    ///
    /// # Errors
    /// If it failed at once, or if this world knows no TLS.
    fn connect_tls(&mut self, c: ConnId, to: &Endpoint, target: &TlsTarget) -> io::Result<()> {
        let _ = (c, to, target);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// The client of this connection, whose socket has just been put here, speaks TLS: nothing is read from
    /// it or written to it before [`World::handshake`] has ended.
    fn accept_tls(&mut self, c: ConnId) {
        let _ = c;
    }
    /// Goes on with a handshake as far as possible; `None` if it is not over: a readable or a writable event
    /// follows.
    ///
    /// # Errors
    /// Why it failed. After [`Fault::PlainHttp`] the connection is one
    /// without TLS; after anything else it is of no use.
    fn handshake(&mut self, c: ConnId) -> Result<Option<Negotiated<'_>>, Fault> {
        let _ = c;
        Err(Fault::Other)
    }
    /// Why an error event came; `None` if the socket has no reason, or has given it before.
    fn take_error(&mut self, c: ConnId) -> Option<io::Error>;
    /// Shuts the sending half down.
    fn shutdown(&mut self, c: ConnId);
    /// Closes and forgets the socket, if there is one.
    fn close(&mut self, c: ConnId);
    /// Closes and forgets the socket, if there is one, and resets the connection.
    fn reset(&mut self, c: ConnId);
    /// Starts a lookup; its result comes as a command in the worker's mailbox.
    fn lookup(&mut self, id: LookupId, q: Query);
    /// Tells another worker that something shared has changed.
    fn nudge(&mut self, shard: u16);
    /// The monotonic time.
    fn now(&mut self) -> Instant;
}
