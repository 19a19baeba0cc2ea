//! The workers of a process: one thread, one [`Proxy`](ruststrom_core::Proxy) and one SO_REUSEPORT socket of
//! each listener per worker.
//!
//! [`start`] takes listeners that are bound already, so nothing can go wrong halfway.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use ruststrom_core::{Config, Shared};

use crate::engine::Engine;
use crate::errands::Errands;
use crate::inbox::Inbox;
use crate::listen::Bound;
use crate::lookup::Lookups;
use crate::stop::{Stage, Stop};
use crate::watch::Watch;
use crate::worker::{Census, Outcome, Plan, Worker};

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

/// Workers that run.
pub struct Running {
    threads: Vec<JoinHandle<Outcome>>,
    inboxes: Arc<[Inbox]>,
}

/// Starts one worker thread for each shard. `observer` makes each worker's observer, on that worker's thread.
pub fn start<E, O, F>(setup: Setup, observer: F) -> io::Result<Running>
where
    E: Engine,
    O: Watch + 'static,
    F: Fn(u16) -> O + Send + Sync + 'static,
{
    let shards = setup.shared.shards().max(1);
    // Everything that can fail comes before the first thread.
    let files = setup.files.saturating_sub(OWN_FILES) / usize::from(shards);
    if files < LEAST_FILES {
        let (limit, s) = (setup.files, if shards == 1 { "" } else { "s" });
        let todo = "raise it (ulimit -n, LimitNOFILE=) or use fewer workers";
        return Err(io::Error::other(format!(
            "a limit of {limit} open files is too low for {shards} worker{s}; {todo}"
        )));
    }
    let engines = (0..shards).map(|_| E::new()).collect::<io::Result<Vec<_>>>()?;
    let inboxes: Arc<[Inbox]> =
        engines.iter().map(|e| e.wake().map(Inbox::new)).collect::<io::Result<Vec<_>>>()?.into();
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
    for (shard, (engine, listeners)) in (0..shards).zip(engines.into_iter().zip(sockets)) {
        let errands = Errands::new(inboxes.clone(), shard, setup.lookups.clone());
        let plan = Plan {
            config: setup.config.clone(),
            shared: setup.shared.clone(),
            shard,
            // A golden-ratio step apart, so that no two workers draw alike.
            seed: setup.seed.wrapping_add(u64::from(shard).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            files,
            stop: setup.stop.clone(),
            inboxes: inboxes.clone(),
            unready: unready.clone(),
        };
        let (observer, stop) = (observer.clone(), setup.stop.clone());
        let serve = move || {
            let sockets = engine.sockets(errands)?;
            engine.run(Worker::new(plan, sockets, listeners, move || observer(shard))?)
        };
        let run = move || {
            serve().unwrap_or_else(|e| {
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
    /// Asks every worker how much of everything it has, between two of its turns. One that does not answer
    /// within `patience`, because it has ended or is stuck, is left out. A debug build checks every
    /// structural invariant on this occasion.
    #[must_use]
    pub fn census(&self, patience: Duration) -> Vec<Census> {
        let (whom, responses) = mpsc::channel();
        for inbox in self.inboxes.iter() {
            inbox.ask(whom.clone());
        }
        self.inboxes.iter().map_while(|_| responses.recv_timeout(patience).ok()).collect()
    }

    /// Waits until all workers have ended; the worst of their outcomes.
    #[must_use]
    pub fn join(self) -> Outcome {
        self.threads
            .into_iter()
            .map(|t| t.join().unwrap_or(Outcome::Failed))
            .max()
            .unwrap_or(Outcome::Finished)
    }
}
