//! The workers of a process: one thread, one [`Proxy`](ruststrom_core::Proxy) and one SO_REUSEPORT socket of
//! each listener per worker.
//!
//! [`start`] takes listeners that are bound already, so nothing can go wrong halfway.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ruststrom_core::{Config, ListenerId, Shared};

use crate::acceptor::{LentSocket, ListenerSlot, Placed};
use crate::engine::Engine;
use crate::listen::BoundListener;
use crate::lookup::Lookups;
use crate::mailbox::{Command, Mailbox, WorkerStats};
use crate::observer::WorkerObserver;
use crate::services::WorkerServices;
use crate::sockets::Sockets;
use crate::stop::{Stage, Stop};
use crate::tls::TlsWorld;
use crate::tls::session::RustlsLayer;
use crate::worker::{Worker, WorkerExit, WorkerSetup};

/// Descriptors that are not for connections: pollers, listeners, logs, lookups.
const OTHER_FILES: usize = 64;
/// The fewest descriptors for each worker: with fewer no client would be served beside its backends.
const MIN_FILES: usize = 8;

/// Everything that workers need.
pub struct Setup {
    /// What to serve.
    pub config: Arc<Config>,
    /// What the workers share; its number of shards is the number of workers.
    pub shared: Arc<Shared>,
    /// Bound listeners with a socket for each worker, or more.
    pub listeners: Vec<BoundListener>,
    /// Unpredictable: it keys hashes, random choices and request ids.
    pub seed: u64,
    /// Open files that the process may have.
    pub files: usize,
    /// The switch that stops the workers.
    pub stop: Arc<Stop>,
    /// Where names are looked up.
    pub lookups: Lookups,
    /// Certificates for clients, and what is to be known of backends that speak TLS.
    pub tls: RustlsLayer,
}

/// Workers that run.
pub struct Running {
    threads: Vec<JoinHandle<WorkerExit>>,
    mailboxes: Arc<[Mailbox]>,
}

/// Starts one worker thread for each shard. `observer` makes each worker's observer, on that worker's thread.
///
/// # Errors
/// If the limit of open files is too low for that many workers, or a poller or a thread cannot be made.
pub fn start<E, O, F>(setup: Setup, observer: F) -> io::Result<Running>
where
    E: Engine,
    O: WorkerObserver + 'static,
    F: Fn(u16) -> O + Send + Sync + 'static,
{
    let shards = setup.shared.shards().max(1);
    // Everything that can fail comes before the first thread.
    let files = setup.files.saturating_sub(OTHER_FILES) / usize::from(shards);
    if files < MIN_FILES {
        let (limit, s) = (setup.files, if shards == 1 { "" } else { "s" });
        let todo = "raise it (ulimit -n, LimitNOFILE=) or use fewer workers";
        return Err(io::Error::other(format!(
            "a limit of {limit} open files is too low for {shards} worker{s}; {todo}"
        )));
    }
    let engines = (0..shards).map(|_| E::new()).collect::<io::Result<Vec<_>>>()?;
    let mailboxes: Arc<[Mailbox]> =
        engines.iter().map(|e| e.wake().map(Mailbox::new)).collect::<io::Result<Vec<_>>>()?.into();
    let mut sockets: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    for bound in setup.listeners {
        for (nth, socket) in bound.sockets.into_iter().enumerate() {
            sockets[nth % usize::from(shards)].push((bound.id, bound.kind, bound.address, socket));
        }
    }
    for shard in 0..shards {
        let mailboxes = mailboxes.clone();
        setup.stop.on_advance(Box::new(move || mailboxes[usize::from(shard)].wake()));
    }
    let observer = Arc::new(observer);
    let unready = Arc::new(AtomicUsize::new(usize::from(shards)));
    let mut threads = Vec::with_capacity(usize::from(shards));
    for (shard, (engine, listeners)) in (0..shards).zip(engines.into_iter().zip(sockets)) {
        let services = WorkerServices::new(mailboxes.clone(), shard, setup.lookups.clone());
        let worker_setup = WorkerSetup {
            config: setup.config.clone(),
            shared: setup.shared.clone(),
            shard,
            // A golden-ratio step apart, so that no two workers draw alike.
            seed: setup.seed.wrapping_add(u64::from(shard).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            files,
            stop: setup.stop.clone(),
            mailboxes: mailboxes.clone(),
            unready: unready.clone(),
        };
        let (observer, stop, tls) = (observer.clone(), setup.stop.clone(), setup.tls.clone());
        let serve = move || {
            let mut sockets = engine.sockets(services)?;
            let mut slots = Vec::with_capacity(listeners.len());
            for (place, (id, kind, address, listener)) in listeners.into_iter().enumerate() {
                let listener = sockets.listen(place, listener)?;
                slots.push(ListenerSlot { id, kind, address, listener });
            }
            let sockets = TlsWorld::new(sockets, tls).of_worker(shard);
            engine.run(Worker::new(worker_setup, sockets, slots, move || observer(shard)))
        };
        let mailbox = CloseAtEnd(mailboxes.clone(), shard);
        let run = move || {
            let _mailbox = mailbox;
            serve().unwrap_or_else(|e| {
                log::error!("worker {shard} failed: {e}");
                stop.advance(Stage::Drain);
                WorkerExit::Failed
            })
        };
        threads.push(std::thread::Builder::new().name(format!("worker-{shard}")).spawn(run)?);
    }
    Ok(Running { threads, mailboxes })
}

/// Closes a worker's mailbox when its thread ends, however it does.
struct CloseAtEnd(Arc<[Mailbox]>, u16);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0[usize::from(self.1)].close();
    }
}

/// What other threads can ask of workers that run.
#[derive(Clone)]
pub struct Workers {
    mailboxes: Arc<[Mailbox]>,
}

impl Workers {
    /// Those that take commands from these queues.
    pub(crate) fn new(mailboxes: Arc<[Mailbox]>) -> Self {
        Self { mailboxes }
    }

    /// The queues of their commands, in their order.
    pub(crate) fn mailboxes(&self) -> &Arc<[Mailbox]> {
        &self.mailboxes
    }

    /// Whether every worker has had a turn within `timeout`; those that have ended are not waited for. Idle
    /// ones are woken for it.
    #[must_use]
    pub fn all_turn(&self, timeout: Duration) -> bool {
        self.ask(timeout, Command::Pulse).is_some()
    }

    /// The sockets of all listeners of all workers once more, for another process. They stay open until both
    /// have closed them.
    ///
    /// # Errors
    /// If no descriptors are left, or a worker does not respond within `timeout`.
    pub fn lend(&self, timeout: Duration) -> io::Result<Vec<LentSocket>> {
        let lent = self.ask(timeout, Command::Lend);
        let lent = lent.ok_or_else(|| io::Error::other("a worker does not respond"))?;
        Ok(lent.into_iter().collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// The responses of all workers that have not ended; `None` if one does not come in time.
    fn ask<T>(&self, timeout: Duration, command: impl Fn(mpsc::Sender<T>) -> Command) -> Option<Vec<T>> {
        let until = Instant::now() + timeout;
        let asked: Vec<_> = self
            .mailboxes
            .iter()
            .map(|mailbox| {
                let (to, response) = mpsc::channel();
                mailbox.post(command(to));
                response
            })
            .collect();
        let mut responses = Vec::with_capacity(asked.len());
        for response in asked {
            match response.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(response) => responses.push(response),
                Err(mpsc::RecvTimeoutError::Disconnected) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => return None,
            }
        }
        Some(responses)
    }
}

/// Gives workers that run new configurations, from any thread.
#[derive(Clone)]
pub struct Reloader {
    mailboxes: Arc<[Mailbox]>,
}

impl Reloader {
    /// Every worker serves by this configuration from its next turn on. Exchanges under way keep the one that
    /// they began with, and no connection is closed. Its listeners are those of `kept`, and `bound`, each
    /// with a socket for every worker, or more; one that is neither is closed when whoever had connected
    /// there has been taken.
    pub fn reload(&self, config: &Arc<Config>, kept: &[ListenerId], bound: Vec<BoundListener>) {
        let all_kept = || kept.iter().map(|id| Placed::Kept(*id)).collect();
        let mut placed: Vec<Vec<Placed>> = self.mailboxes.iter().map(|_| all_kept()).collect();
        for BoundListener { id, kind, address, sockets, .. } in bound {
            for (nth, listener) in sockets.into_iter().enumerate() {
                let nth = nth % placed.len();
                placed[nth].push(Placed::Bound(ListenerSlot { id, kind, address, listener }));
            }
        }
        for (mailbox, placed) in self.mailboxes.iter().zip(placed) {
            mailbox.post(Command::Listeners(config.clone(), placed));
        }
    }
}

impl Running {
    /// What gives the workers new configurations.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader { mailboxes: self.mailboxes.clone() }
    }

    /// What other threads can ask of the workers.
    #[must_use]
    pub fn workers(&self) -> Workers {
        Workers::new(self.mailboxes.clone())
    }

    /// Asks every worker how much of everything it has, between two of its turns. One that does not respond
    /// within `timeout`, because it has ended or is stuck, is left out. A debug build checks every structural
    /// invariant on this occasion.
    #[must_use]
    pub fn stats(&self, timeout: Duration) -> Vec<WorkerStats> {
        let (to, stats) = mpsc::channel();
        for mailbox in self.mailboxes.iter() {
            mailbox.post(Command::Stats(to.clone()));
        }
        self.mailboxes.iter().map_while(|_| stats.recv_timeout(timeout).ok()).collect()
    }

    /// Waits until all workers have ended; the worst of their exits.
    #[must_use]
    pub fn join(self) -> WorkerExit {
        self.threads
            .into_iter()
            .map(|t| t.join().unwrap_or(WorkerExit::Failed))
            .max()
            .unwrap_or(WorkerExit::Finished)
    }
}
