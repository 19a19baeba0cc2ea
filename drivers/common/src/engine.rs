//! What a driver brings along: how a worker waits, and its sockets. Everything else of a worker is the same
//! for all drivers.

use std::io;
use std::net::TcpListener;

use crate::mailbox::Wake;
use crate::observer::WorkerObserver;
use crate::services::WorkerServices;
use crate::sockets::Sockets;
use crate::worker::{Worker, WorkerExit};

/// How a worker waits. There is one for each worker, made before any thread starts.
pub trait Engine: Sized + Send + 'static {
    /// The worker's sockets.
    type Sockets: Sockets<Bound = TcpListener>;

    /// A new one.
    ///
    /// # Errors
    /// If the operating system refuses what it needs: no later call should have a reason to fail.
    fn new() -> io::Result<Self>;
    /// What gives the worker an [`Event::Mailbox`](crate::event::Event::Mailbox).
    ///
    /// # Errors
    /// If the operating system refuses what it needs.
    fn wake(&self) -> io::Result<Wake>;
    /// The sockets of this worker; they live on its thread.
    ///
    /// # Errors
    /// If the operating system refuses what they need.
    fn sockets(&self, services: WorkerServices) -> io::Result<Self::Sockets>;
    /// Calls [`Worker::turn`] with what has happened, and again when [`Worker::due`] says so at the latest,
    /// until that says how it ended. The worker's sockets are those of [`Engine::sockets`], or something
    /// around them.
    ///
    /// # Errors
    /// If events can no longer be waited for.
    fn run<S, O, F>(self, worker: Worker<S, O, F>) -> io::Result<WorkerExit>
    where
        S: Sockets<RawEvent = <Self::Sockets as Sockets>::RawEvent, Bound = TcpListener>,
        O: WorkerObserver,
        F: Fn() -> O;
}
