//! The core on mio: one thread and one event loop per worker.
//!
//! [`start`] is all there is to call. `sockets` registers the sockets of a worker with its poller; everything
//! else of it is shared with the other drivers.
#![forbid(unsafe_code)]

mod sockets;
mod token;

use std::io;
use std::net::TcpListener;

use mio::{Events, Poll, Waker};
use ruststrom_driver::engine::Engine;
use ruststrom_driver::mailbox::Wake;
use ruststrom_driver::observer::WorkerObserver;
use ruststrom_driver::services::WorkerServices;
use ruststrom_driver::sockets::Sockets;
use ruststrom_driver::worker::{Worker, WorkerExit};
use ruststrom_driver::workers::{self, Running, Setup};

use sockets::{MioSockets, PolledEvent};
use token::EventSource;

/// Events fetched with one call.
const MAX_EVENTS: usize = 1024;

/// Starts one worker thread for each shard. `observer` makes each worker's observer, on that worker's thread.
///
/// # Errors
/// As of [`workers::start`].
pub fn start<O, F>(setup: Setup, observer: F) -> io::Result<Running>
where
    O: WorkerObserver + 'static,
    F: Fn(u16) -> O + Send + Sync + 'static,
{
    workers::start::<MioEngine, O, F>(setup, observer)
}

/// The poller of one worker.
struct MioEngine {
    poll: Poll,
}

impl Engine for MioEngine {
    type Sockets = MioSockets;

    fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()? })
    }

    fn wake(&self) -> io::Result<Wake> {
        let waker = Waker::new(self.poll.registry(), EventSource::Mailbox.token())?;
        Ok(Box::new(move || {
            // Writing to an eventfd fails only if its counter is full, and then a wake-up is under way.
            let _ = waker.wake();
        }))
    }

    fn sockets(&self, services: WorkerServices) -> io::Result<MioSockets> {
        Ok(MioSockets::new(self.poll.registry().try_clone()?, services))
    }

    fn run<S, O, F>(mut self, mut worker: Worker<S, O, F>) -> io::Result<WorkerExit>
    where
        S: Sockets<RawEvent = PolledEvent, Bound = TcpListener>,
        O: WorkerObserver,
        F: Fn() -> O,
    {
        let mut events = Events::with_capacity(MAX_EVENTS);
        loop {
            if let Some(exit) = worker.turn(events.iter().map(PolledEvent::new)) {
                return Ok(exit);
            }
            if let Err(e) = self.poll.poll(&mut events, worker.timeout()) {
                events.clear();
                if e.kind() != io::ErrorKind::Interrupted {
                    return Err(e);
                }
            }
        }
    }
}
