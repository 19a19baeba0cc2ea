//! The core on smol: each worker thread runs a [`LocalExecutor`] of its own.
//!
//! The executor drives the worker's turns as its main future. Its mailbox, its listeners and its error poller
//! are tasks beside that, which put what happened into the worker's `ready_queue`. There is no task per
//! connection: the pump serves all of them, and a socket's readiness reaches the queue by a waker alone.
//!
//! smol has one reactor for the process, and whichever thread has nothing else to do waits in it. It reports
//! a readiness once and has to be asked again for the next one: `sockets` asks again for what would have
//! blocked, and `error_poller` notices connections that break while nobody asks.
#![forbid(unsafe_code)]

mod error_poller;
mod interest;
mod listener;
mod ready_queue;
mod sockets;

use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ruststrom_core::Instant;
use ruststrom_driver::engine::Engine;
use ruststrom_driver::mailbox::Wake;
use ruststrom_driver::observer::WorkerObserver;
use ruststrom_driver::services::WorkerServices;
use ruststrom_driver::sockets::Sockets;
use ruststrom_driver::worker::{Worker, WorkerExit};
use ruststrom_driver::workers::{self, Running, Setup};
use smol::channel::{self, Receiver, Sender};
use smol::{LocalExecutor, Timer};

use error_poller::ErrorPoller;
use listener::ListenerTask;
use ready_queue::{ReadyQueue, WakeReason};
use sockets::SmolSockets;

/// Starts one worker thread for each shard. `observer` makes each worker's observer, on that worker's thread.
///
/// # Errors
/// As of [`workers::start`].
pub fn start<O, F>(setup: Setup, observer: F) -> io::Result<Running>
where
    O: WorkerObserver + 'static,
    F: Fn(u16) -> O + Send + Sync + 'static,
{
    workers::start::<SmolEngine, O, F>(setup, observer)
}

/// What the executor of one worker is made from, on that worker's thread.
struct SmolEngine {
    queue: Arc<ReadyQueue>,
    errors: Arc<ErrorPoller>,
    /// A message means that something is in the mailbox; one is enough.
    mail: (Sender<()>, Receiver<()>),
    /// To the executor, once it runs.
    listeners: (Sender<ListenerTask>, Receiver<ListenerTask>),
}

impl Engine for SmolEngine {
    type Sockets = SmolSockets;

    fn new() -> io::Result<Self> {
        Ok(Self {
            queue: Arc::default(),
            errors: Arc::new(ErrorPoller::new()?),
            mail: channel::bounded(1),
            listeners: channel::unbounded(),
        })
    }

    fn wake(&self) -> io::Result<Wake> {
        let mail = self.mail.0.clone();
        Ok(Box::new(move || {
            // Full: the worker is about to look. Closed: it has ended.
            let _ = mail.try_send(());
        }))
    }

    fn sockets(&self, services: WorkerServices) -> io::Result<SmolSockets> {
        Ok(SmolSockets::new(self.queue.clone(), self.errors.clone(), self.listeners.0.clone(), services))
    }

    fn run<S, O, F>(self, worker: Worker<S, O, F>) -> io::Result<WorkerExit>
    where
        S: Sockets<RawEvent = WakeReason, Bound = TcpListener>,
        O: WorkerObserver,
        F: Fn() -> O,
    {
        let executor = LocalExecutor::new();
        executor.spawn(self.errors.run(self.queue.clone())).detach();
        executor.spawn(read_mail(self.mail.1, self.queue.clone())).detach();
        let listeners = async {
            while let Ok(listener) = self.listeners.1.recv().await {
                executor.spawn(listener.run(self.queue.clone())).detach();
            }
            std::future::pending().await
        };
        Ok(smol::block_on(executor.run(smol::future::or(turns(worker, &self.queue), listeners))))
    }
}

/// The task of the mailbox.
async fn read_mail(mail: Receiver<()>, queue: Arc<ReadyQueue>) {
    while mail.recv().await.is_ok() {
        queue.push(WakeReason::Mailbox);
    }
}

/// The worker's turns until it ends: one whenever something is in the queue or the time for it has come.
/// Between two turns the reactor is polled in any case, so that a worker with much to do notices what is new.
async fn turns<S, O, F>(mut worker: Worker<S, O, F>, queue: &ReadyQueue) -> WorkerExit
where
    S: Sockets<RawEvent = WakeReason, Bound = TcpListener>,
    O: WorkerObserver,
    F: Fn() -> O,
{
    let mut reasons = Vec::new();
    let mut timer = TurnTimer { timer: Timer::never(), at: Instant::NEVER };
    // The first turn comes before anything has happened.
    let mut due_now = true;
    poll_fn(|cx| {
        queue.take(&mut reasons, cx.waker());
        // Other tasks of the executor wake this future too.
        if reasons.is_empty() && !due_now && !timer.has_fired(cx) {
            return Poll::Pending;
        }
        if let Some(exit) = worker.turn(reasons.drain(..)) {
            return Poll::Ready(exit);
        }
        let due = worker.due();
        due_now = due.is_some_and(|due| due <= worker.now());
        if due_now || due.is_some_and(|due| timer.set(due, worker.now(), cx)) {
            due_now = true;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

/// The worker's one timer. Deadlines move later with nearly every request: setting the timer each time would
/// cost much more than the turn without effect that comes of waiting for an old deadline.
struct TurnTimer {
    timer: Timer,
    /// When it fires; never if it is not set.
    at: Instant,
}

impl TurnTimer {
    /// Makes it fire at `due` or before. True if it has fired by now.
    fn set(&mut self, due: Instant, now: Instant, cx: &mut Context<'_>) -> bool {
        if now < self.at && self.at <= due {
            return false;
        }
        self.at = due;
        self.timer.set_after(due.since(now));
        self.has_fired(cx)
    }

    /// Whether it has fired since it was set; if not, `cx` is woken once it does.
    fn has_fired(&mut self, cx: &mut Context<'_>) -> bool {
        let fired = self.at != Instant::NEVER && Pin::new(&mut self.timer).poll(cx).is_ready();
        if fired {
            self.at = Instant::NEVER;
        }
        fired
    }
}
