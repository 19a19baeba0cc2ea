//! The core on mio: one thread, one event loop, one [`Proxy`](ruststrom_core::Proxy) and one SO_REUSEPORT socket of each listener per worker.
//!
//! [`start`] takes listeners that are bound already, so nothing can go wrong halfway. `worker` is the loop, `acceptor` takes connections,
//! `sockets` is the [`World`](ruststrom_driver::pump::World) and `inbox` how threads reach a worker.
#![forbid(unsafe_code)]

mod acceptor;
mod inbox;
mod sockets;
mod token;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Poll;
use ruststrom_core::proxy::Counts;
use ruststrom_core::{Config, Shared};
use ruststrom_driver::listen::Bound;
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::stop::{Stage, Stop};
use ruststrom_driver::watch::Watch;

use inbox::Inbox;
use worker::{Plan, Worker};

/// Descriptors that are not for connections: pollers, listeners, logs, lookups.
const OWN_FILES: usize = 64;
/// With fewer for each worker nobody would ever be served: a quarter is kept back from clients.
const LEAST_FILES: usize = 8;

/// Everything that workers need.
pub struct Setup {
    /// What to serve.
    pub config: Arc<Config>,
    /// What the workers share; its number of shards is the number of workers.
    pub shared: Arc<Shared>,
    /// Bound listeners with a socket for each worker.
    pub listeners: Vec<Bound>,
    /// Entropy of the process.
    pub seed: u64,
    /// Open files that the process may have.
    pub files: usize,
    /// The switch that ends it.
    pub stop: Arc<Stop>,
    /// Where names are looked up.
    pub lookups: Lookups,
}

/// How a worker, or all of them, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything that ran was finished.
    Finished,
    /// The deadline, or [`Stage::Now`], cut something.
    Cut,
    /// The event loop failed, which stops all workers.
    Failed,
}

/// How much of everything a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// What its proxy counts.
    pub counts: Counts,
    /// Sockets of connections that are open: clients, backends, probes.
    pub sockets: usize,
}

/// Workers that run.
pub struct Running {
    threads: Vec<JoinHandle<Outcome>>,
    inboxes: Arc<[Inbox]>,
}

/// Starts one worker thread for each shard. `observer` makes each worker's observer, on that worker's thread.
pub fn start<O, F>(setup: Setup, observer: F) -> io::Result<Running>
where
    O: Watch + 'static,
    F: Fn(u16) -> O + Send + Sync + 'static,
{
    let shards = setup.shared.shards().max(1);
    // Everything that can fail comes before the first thread.
    let files = setup.files.saturating_sub(OWN_FILES) / usize::from(shards);
    if files < LEAST_FILES {
        let (limit, s) = (setup.files, if shards == 1 { "" } else { "s" });
        let todo = "raise it (ulimit -n, LimitNOFILE=) or use fewer workers";
        return Err(io::Error::other(format!("a limit of {limit} open files is too low for {shards} worker{s}; {todo}")));
    }
    let polls = (0..shards).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
    let inboxes: Arc<[Inbox]> = polls.iter().map(Inbox::new).collect::<io::Result<Vec<_>>>()?.into();
    let mut sockets: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    for bound in setup.listeners {
        for (shard, socket) in bound.sockets.into_iter().enumerate() {
            sockets[shard].push((bound.id, bound.kind, bound.address, socket));
        }
    }
    for shard in 0..shards {
        let inboxes = inboxes.clone();
        setup.stop.on_advance(Box::new(move || inboxes[usize::from(shard)].wake()));
    }
    let observer = Arc::new(observer);
    let unready = Arc::new(AtomicUsize::new(usize::from(shards)));
    let mut threads = Vec::with_capacity(usize::from(shards));
    for (shard, (poll, listeners)) in (0..shards).zip(polls.into_iter().zip(sockets)) {
        let plan = Plan {
            config: setup.config.clone(),
            shared: setup.shared.clone(),
            shard,
            // A golden-ratio step apart, so that no two workers draw alike.
            seed: setup.seed.wrapping_add(u64::from(shard).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            files,
            stop: setup.stop.clone(),
            lookups: setup.lookups.clone(),
            inboxes: inboxes.clone(),
            unready: unready.clone(),
        };
        let (observer, stop) = (observer.clone(), setup.stop.clone());
        let run = move || {
            let ended = Worker::new(plan, poll, listeners, move || observer(shard)).and_then(Worker::run);
            ended.unwrap_or_else(|e| {
                log::error!("worker {shard} failed: {e}");
                stop.advance(Stage::Drain);
                Outcome::Failed
            })
        };
        threads.push(std::thread::Builder::new().name(format!("worker-{shard}")).spawn(run)?);
    }
    Ok(Running { threads, inboxes })
}

impl Running {
    /// Asks every worker how much of everything it has, between two of its turns. One that does not answer within `patience`, because it has
    /// ended or is stuck, is left out. A debug build checks every structural invariant on this occasion.
    #[must_use]
    pub fn census(&self, patience: Duration) -> Vec<Census> {
        let (whom, answers) = mpsc::channel();
        for inbox in self.inboxes.iter() {
            inbox.ask(whom.clone());
        }
        self.inboxes.iter().map_while(|_| answers.recv_timeout(patience).ok()).collect()
    }

    /// Waits until all workers have ended; the worst of their outcomes.
    #[must_use]
    pub fn join(self) -> Outcome {
        self.threads.into_iter().map(|t| t.join().unwrap_or(Outcome::Failed)).max().unwrap_or(Outcome::Finished)
    }
}
