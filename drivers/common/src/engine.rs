//! What a driver brings along: how it waits, and its sockets. Everything else of a worker is the same for all
//! of them.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use ruststrom_core::ConnId;

use crate::errands::Errands;
use crate::pump::{Readiness, World};
use crate::watch::Watch;
use crate::worker::{Outcome, Worker};

/// Wakes a worker, from any thread.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// How a worker waits. There is one of it for each worker, made before any thread starts.
pub trait Engine: Sized + Send + 'static {
    /// Its sockets.
    type Sockets: Sockets;

    /// Everything that can fail.
    fn new() -> io::Result<Self>;
    /// What gives the worker an [`Event::Inbox`].
    fn wake(&self) -> io::Result<Wake>;
    /// The sockets of this worker; they live on its thread.
    fn sockets(&self, errands: Errands) -> io::Result<Self::Sockets>;
    /// Calls [`Worker::turn`] with what has happened, and again when [`Worker::due`] says so at the latest,
    /// until that says how it ended.
    fn run<O: Watch, F: Fn() -> O>(self, worker: Worker<Self::Sockets, O, F>) -> io::Result<Outcome>;
}

/// The sockets of one worker.
pub trait Sockets: World {
    /// A listener, listened to.
    type Listener: AsFd;
    /// What the engine found, before it is looked at.
    type Found;
    /// An accepted socket that has bytes is an event by itself, without a read that would have blocked.
    const TELLS: bool;

    /// Waits for the connections of a listener, which is the one at `place` from now on.
    fn listen(&mut self, place: usize, listener: TcpListener) -> io::Result<Self::Listener>;
    /// Accepting from it would block: from now on a connection is an event again.
    fn listener_blocks(&mut self, place: usize, listener: &Self::Listener);
    /// Takes an accepted socket, which does not block, and waits for its events.
    fn insert(&mut self, c: ConnId, socket: TcpStream) -> io::Result<()>;
    /// What the engine found; `None` if it is about something that is gone.
    fn event(&mut self, found: Self::Found) -> Option<Event>;
    /// A turn has ended: the time to wait for what would have blocked in it.
    fn turn_ended(&mut self);
    /// How many sockets are open.
    fn open(&self) -> usize;
    /// Closes everything, for a proxy that is given up.
    fn close_all(&mut self);
    /// What goes to other threads, and what the core said last.
    fn errands(&mut self) -> &mut Errands;
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// To a connection.
    Conn(ConnId, Readiness),
    /// There may be connections to accept from the listener at this place.
    Listener(usize),
    /// Somebody has put something into the inbox.
    Inbox,
}
