//! One worker on its thread: the turns of its [`EventLoop`], whether it is ready, how it ends, and what a
//! panic costs.
//!
//! **A panic** must not end the process. It unwinds to the turn, which goes on with the next event; the
//! connection that was being served is given up like one whose socket broke, or just closed if the proxy
//! panics again at that fault. After many panics within seconds the proxy is taken for broken: all its
//! connections are closed and a fresh one takes its place behind the same listeners.

use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ruststrom_core::{Config, Fault, Instant, Proxy, Shared};

use crate::acceptor::ListenerSlot;
use crate::clock;
use crate::mailbox::{Command, Mailbox};
use crate::observer::WorkerObserver;
use crate::sockets::Sockets;
use crate::stop::{Stage, Stop};
use crate::turn::{DrainEnd, EventLoop};

/// So many panics within [`PANIC_WINDOW`] and the proxy is made anew.
const MAX_PANICS: u32 = 8;
const PANIC_WINDOW: Duration = Duration::from_secs(10);

/// How a worker, or all of them, ended: the later one is the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerExit {
    /// Everything that ran was finished.
    Finished,
    /// The deadline, or [`Stage::Now`], cut something.
    Cut,
    /// Events could not be waited for, which stops all workers.
    Failed,
}

/// What a worker is made from.
pub(crate) struct WorkerSetup {
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) shard: u16,
    pub(crate) seed: u64,
    /// Its share of the descriptors.
    pub(crate) files: usize,
    pub(crate) stop: Arc<Stop>,
    pub(crate) mailboxes: Arc<[Mailbox]>,
    /// Workers that have not finished their first round of probes.
    pub(crate) unready: Arc<AtomicUsize>,
}

/// A worker, on its thread.
pub struct Worker<S: Sockets<Bound = TcpListener>, O: WorkerObserver, F: Fn() -> O> {
    shared: Arc<Shared>,
    shard: u16,
    seed: u64,
    stop: Arc<Stop>,
    mailboxes: Arc<[Mailbox]>,
    unready: Arc<AtomicUsize>,
    observer: F,
    event_loop: EventLoop<O, S::Listener>,
    sockets: S,
    ready: bool,
    panics: u32,
    last_panic: Instant,
}

impl<S: Sockets<Bound = TcpListener>, O: WorkerObserver, F: Fn() -> O> Worker<S, O, F> {
    pub(crate) fn new(
        setup: WorkerSetup,
        sockets: S,
        listeners: Vec<ListenerSlot<S::Listener>>,
        observer: F,
    ) -> Self {
        let WorkerSetup { config, shared, shard, seed, files, stop, mailboxes, unready } = setup;
        let now = clock::now();
        let proxy = Proxy::new(config.clone(), shared.clone(), shard, seed, observer(), now);
        Self {
            shared,
            shard,
            seed,
            stop,
            mailboxes,
            unready,
            observer,
            event_loop: EventLoop::new(proxy, config, listeners, files, now),
            sockets,
            ready: false,
            panics: 0,
            last_panic: Instant::ZERO,
        }
    }

    /// One turn with all that has happened since the last one; the first comes before anything has. Once it
    /// says how the worker ended, there is no other.
    pub fn turn(&mut self, events: impl IntoIterator<Item = S::RawEvent>) -> Option<WorkerExit> {
        let mut events = events.into_iter();
        // A turn that panicked goes on behind the event at which it did.
        while catch_unwind(AssertUnwindSafe(|| self.attempt(&mut events))).is_err() {
            self.panicked();
        }
        match self.event_loop.drain_end() {
            Some(DrainEnd::Finished) => Some(WorkerExit::Finished),
            Some(DrainEnd::Cut) => Some(WorkerExit::Cut),
            None if self.stop.stage() == Stage::Now => {
                // Whatever comes of it, it is the last that this worker does.
                let _ = catch_unwind(AssertUnwindSafe(|| self.event_loop.cut(&mut self.sockets)));
                Some(WorkerExit::Cut)
            }
            None => None,
        }
    }

    fn attempt(&mut self, events: &mut impl Iterator<Item = S::RawEvent>) {
        let stage = self.stop.stage();
        let mailbox = &self.mailboxes[usize::from(self.shard)];
        self.event_loop.turn(events, stage, mailbox, &mut self.sockets);
        if !self.ready && self.event_loop.pump().proxy().is_ready() {
            self.ready = true;
            if self.unready.fetch_sub(1, Ordering::AcqRel) == 1 {
                log::info!("ready");
                self.stop.probed();
            }
        }
    }

    /// When the next turn is due whatever happens: not after [`Worker::now`] if at once, never if there is
    /// nothing to wait for.
    pub fn due(&self) -> Option<Instant> {
        self.event_loop.due()
    }

    /// The time of the last turn.
    pub fn now(&self) -> Instant {
        self.event_loop.now()
    }

    /// The longest time until the next turn; `None`: there is no limit.
    pub fn timeout(&self) -> Option<Duration> {
        Some(self.due()?.since(self.now()))
    }

    #[cold]
    fn panicked(&mut self) {
        let now = clock::now();
        self.panics = if now.since(self.last_panic) < PANIC_WINDOW { self.panics + 1 } else { 1 };
        self.last_panic = now;
        let (pump, sockets) = (self.event_loop.pump_mut(), &mut self.sockets);
        let serving = pump.serving();
        log::error!(
            "worker {}: a panic while serving {serving:?}, see standard error; please report it",
            self.shard
        );
        if let Some(c) = serving {
            let reported = catch_unwind(AssertUnwindSafe(|| pump.fault(c, Fault::Other, sockets)));
            if reported.is_err() {
                pump.abandon(c, sockets);
            }
        }
        if self.panics >= MAX_PANICS {
            self.start_afresh(now);
        }
    }

    /// A fresh proxy behind the same listeners.
    fn start_afresh(&mut self, now: Instant) {
        log::error!(
            "worker {}: too many panics, closing its {} connections and starting afresh",
            self.shard,
            self.sockets.open()
        );
        self.panics = 0;
        self.sockets.close_all();
        let config = self.event_loop.config().clone();
        let ids = self.event_loop.pump().proxy().listener_ids().clone();
        let seed = self.seed ^ clock::entropy();
        let mut proxy = Proxy::new(config, self.shared.clone(), self.shard, seed, (self.observer)(), now);
        proxy.keep_listener_ids(ids);
        let old = self.event_loop.replace_proxy(proxy, now);
        // Dropping it may meet what is broken in it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
        // Others may have waited for what it held.
        self.mailboxes.iter().for_each(|mailbox| mailbox.post(Command::Nudge));
    }
}
