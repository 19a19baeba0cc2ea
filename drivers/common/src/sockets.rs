//! What a worker's turn needs of its driver: listeners, connections, the wall clock. The simulator is a
//! driver too, so nothing in here is bound to a kernel.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use ruststrom_core::{ConnId, Wall};

use crate::event::Event;
use crate::world::World;

/// The sockets of one worker.
pub trait Sockets: World {
    /// A listener that is bound, and whose connections nobody waits for yet. Dropping it closes it.
    type Bound;
    /// A listener whose connections are waited for. Dropping it closes it.
    type Listener;
    /// An accepted connection that has no id yet. Dropping it closes it.
    type Accepted;
    /// What the poller found, before [`Sockets::event`] has looked at it.
    type RawEvent;
    /// A connection that has bytes when it is inserted is an event by itself, so that not each of them has to
    /// be read at once.
    const READY_ON_INSERT: bool;

    /// Waits for the connections of a bound listener, which is the one at `place` from now on.
    ///
    /// # Errors
    /// If they cannot be waited for.
    fn listen(&mut self, place: usize, listener: Self::Bound) -> io::Result<Self::Listener>;
    /// The socket of a listener once more, for another process.
    ///
    /// # Errors
    /// If no descriptor is left; `Unsupported` where there are no sockets of a kernel.
    fn lend(&self, listener: &Self::Listener) -> io::Result<OwnedFd> {
        let _ = listener;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Takes a connection from the listener at `place`.
    ///
    /// # Errors
    /// `WouldBlock`: none waits. EMFILE, ENFILE, ENOBUFS, ENOMEM: no descriptor or no memory is left, another
    /// try may succeed later. Anything else concerns that connection only.
    fn accept(&mut self, place: usize, listener: &Self::Listener)
    -> io::Result<(Self::Accepted, SocketAddr)>;
    /// Accepting would block: from now on a connection is an event again.
    fn listener_blocks(&mut self, place: usize, listener: &Self::Listener);
    /// Keeps an accepted connection under its id and waits for its events.
    ///
    /// # Errors
    /// If its events cannot be waited for.
    fn insert(&mut self, c: ConnId, accepted: Self::Accepted) -> io::Result<()>;
    /// The core refuses an accepted connection: closes it.
    fn refuse(&mut self, accepted: Self::Accepted) {
        drop(accepted);
    }
    /// Closes a listener. Whoever waits there is reset.
    fn close_listener(&mut self, place: usize, listener: Self::Listener) {
        let _ = place;
        drop(listener);
    }
    /// What the poller found; `None` if it is about something that is gone.
    fn event(&mut self, raw: Self::RawEvent) -> Option<Event>;
    /// A turn has ended: the time to wait for what would have blocked in it.
    fn turn_ended(&mut self);
    /// How many connections are open.
    fn open(&self) -> usize;
    /// Closes all connections, for a proxy that is given up; results of the lookups it has started are
    /// dropped.
    fn close_all(&mut self);
    /// Counts the calls of [`Sockets::close_all`]: lookup results of another generation are not delivered.
    fn generation(&self) -> u32;
    /// The wall-clock time.
    fn wall(&mut self) -> Wall;
}
