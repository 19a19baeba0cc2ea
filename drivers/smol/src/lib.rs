//! The core on async-io, the reactor of smol: each worker thread is an executor of its own.
//!
//! async-io has one reactor for the process, and whichever thread has nothing else to do waits in it. It
//! tells of a thing once and has to be asked again for the next time. So each direction of each socket has a
//! waker: `bell` is where the wakers ring, `sockets` asks again for what would have blocked, and `alarm`
//! hears of connections that break while nobody asks. The worker itself is one future, polled once for all
//! that rang.
#![forbid(unsafe_code)]

mod alarm;
mod bell;
mod sockets;

use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_io::{Async, Timer};
use ruststrom_core::Instant;
use ruststrom_driver::engine::Engine;
use ruststrom_driver::mailbox::Wake;
use ruststrom_driver::observer::WorkerObserver;
use ruststrom_driver::services::WorkerServices;
use ruststrom_driver::worker::{Worker, WorkerExit};
use ruststrom_driver::workers::{self, Running, Setup};

use alarm::Alarm;
use bell::{Board, Rang};
use sockets::Sockets;

/// Starts one worker thread for each shard. `observer` makes each worker's observer, on that worker's thread.
pub fn start<O, F>(setup: Setup, observer: F) -> io::Result<Running>
where
    O: WorkerObserver + 'static,
    F: Fn(u16) -> O + Send + Sync + 'static,
{
    workers::start::<Executor, O, F>(setup, observer)
}

/// The executor of one worker.
struct Executor {
    board: Arc<Board>,
    alarm: Arc<Alarm>,
}

impl Engine for Executor {
    type Sockets = Sockets;

    fn new() -> io::Result<Self> {
        Ok(Self { board: Arc::default(), alarm: Arc::new(Alarm::new()?) })
    }

    fn wake(&self) -> io::Result<Wake> {
        let board = self.board.clone();
        Ok(Box::new(move || board.ring(Rang::Mailbox)))
    }

    fn sockets(&self, services: WorkerServices) -> io::Result<Sockets> {
        Sockets::new(self.board.clone(), self.alarm.clone(), services)
    }

    fn listen(
        &self,
        sockets: &mut Sockets,
        place: usize,
        listener: TcpListener,
    ) -> io::Result<Async<TcpListener>> {
        sockets.listen(place, listener)
    }

    fn run<O: WorkerObserver, F: Fn() -> O>(
        self,
        mut worker: Worker<Sockets, O, F>,
    ) -> io::Result<WorkerExit> {
        let mut rang = Vec::new();
        let mut timer = Deadline { timer: Timer::never(), at: Instant::NEVER };
        Ok(async_io::block_on(poll_fn(|cx| {
            self.board.take(&mut rang, cx.waker());
            if let Some(outcome) = worker.turn(rang.drain(..)) {
                return Poll::Ready(outcome);
            }
            match worker.due() {
                Some(due) if due <= worker.now() => cx.waker().wake_by_ref(),
                Some(due) => timer.wait(due, worker.now(), cx),
                None => {}
            }
            Poll::Pending
        })))
    }
}

/// The worker's one timer. Deadlines move on with nearly every request: one that is waited for too early
/// costs a turn in vain, setting the timer each time would cost much more.
struct Deadline {
    timer: Timer,
    /// When it goes off; never, or past, if it is not set.
    at: Instant,
}

impl Deadline {
    /// Another turn comes at `due` or before.
    fn wait(&mut self, due: Instant, now: Instant, cx: &mut Context<'_>) {
        if now < self.at && self.at <= due {
            return;
        }
        self.at = due;
        self.timer.set_after(due.since(now));
        if Pin::new(&mut self.timer).poll(cx).is_ready() {
            self.at = now;
            cx.waker().wake_by_ref();
        }
    }
}
