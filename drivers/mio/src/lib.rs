//! The core on mio: one thread and one event loop per worker.
//!
//! [`start`] is all there is to call. `sockets` is the [`World`](ruststrom_driver::pump::World) of a worker,
//! everything else of it is shared with the other drivers.
#![forbid(unsafe_code)]

mod sockets;
mod token;

use std::io;

use mio::{Events, Poll, Waker};
use ruststrom_driver::crew::{self, Running, Setup};
use ruststrom_driver::engine::{Engine, Wake};
use ruststrom_driver::errands::Errands;
use ruststrom_driver::watch::Watch;
use ruststrom_driver::worker::{Outcome, Worker};

use sockets::{Sockets, found};
use token::About;

/// Events fetched with one call.
const EVENTS: usize = 1024;

/// Starts one worker thread for each shard. `observer` makes each worker's observer, on that worker's thread.
pub fn start<O, F>(setup: Setup, observer: F) -> io::Result<Running>
where
    O: Watch + 'static,
    F: Fn(u16) -> O + Send + Sync + 'static,
{
    crew::start::<Loop, O, F>(setup, observer)
}

/// The event loop of one worker.
struct Loop {
    poll: Poll,
}

impl Engine for Loop {
    type Sockets = Sockets;

    fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()? })
    }

    fn wake(&self) -> io::Result<Wake> {
        let waker = Waker::new(self.poll.registry(), About::Inbox.token())?;
        Ok(Box::new(move || {
            // An eventfd write fails only if its counter is full, and then a wake-up is under way.
            let _ = waker.wake();
        }))
    }

    fn sockets(&self, errands: Errands) -> io::Result<Sockets> {
        Ok(Sockets::new(self.poll.registry().try_clone()?, errands))
    }

    fn run<O: Watch, F: Fn() -> O>(mut self, mut worker: Worker<Sockets, O, F>) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            if let Some(outcome) = worker.turn(events.iter().map(found)) {
                return Ok(outcome);
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
