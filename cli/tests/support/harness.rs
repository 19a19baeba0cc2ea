//! The proxy on one of its drivers in the test's own process, so that the core's counters can be read.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ruststrom_core::config::{self, Driver};
use ruststrom_core::observe::{Head, HealthChange, Kept, Level, Observer, Record};
use ruststrom_core::{Shared, Wall};
use ruststrom_driver::clock;
use ruststrom_driver::listen::bind_all;
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::mailbox::WorkerStats;
use ruststrom_driver::observer::WorkerObserver;
use ruststrom_driver::stop::{Stage, Stop};
use ruststrom_driver::tls::session::RustlsLayer;
use ruststrom_driver::worker::WorkerExit;
use ruststrom_driver::workers::{Running, Setup};

use crate::client::{Client, WAIT};

/// The top of a configuration with short timeouts and without health checks. Tests append pools to it, and
/// put their own top-level keys before it.
pub(crate) const SHORT_TIMEOUTS: &str = "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n\
    health_interval = { check_every = 0 }\n\
    timeouts = { head = \"700ms\", idle = \"1500ms\", connect = \"3s\", backend_head = \"700ms\", stall = \"1s\", queue = \"700ms\", \
    tunnel = \"1500ms\", drain = \"3s\" }\n";

/// A pool for the path prefix `/name`, with more keys of its own in `more`. Backends of the pool `good` have
/// as long as an [`UnaffectedClient`] waits, and longer: they may be late on a machine that is busy.
pub(crate) fn pool(name: &str, backends: &[SocketAddr], more: &str) -> String {
    let addresses: Vec<String> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    let timeouts = if name == "good" { "timeouts = { backend_head = 15 }\n" } else { "" };
    format!(
        "[[backend_pools]]\nname = \"{name}\"\nmatcher = \"PathPrefix('/{name}')\"\naddresses = [{}]\nschemes = [\"HTTP\"]\n{timeouts}{more}\n",
        addresses.join(", ")
    )
}

/// What tests look at in the record of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExchangeRecord {
    pub(crate) target: String,
    pub(crate) status: u16,
    pub(crate) cause: Option<&'static str>,
    pub(crate) attempts: u8,
}

impl std::fmt::Display for ExchangeRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {} tries={}", self.target, self.status, self.cause.unwrap_or("-"), self.attempts)
    }
}

/// An observer that keeps the record of each exchange.
pub(crate) struct Recorder(pub(crate) Arc<Mutex<Vec<ExchangeRecord>>>);

impl Observer for Recorder {
    fn head(&mut self, head: &Head<'_>, kept: &mut Kept) {
        kept.copy(head.target);
    }
    fn exchange(&mut self, r: &Record<'_>) {
        let target = String::from_utf8_lossy(r.kept.bytes()).into_owned();
        let record = ExchangeRecord {
            target,
            status: r.status,
            cause: r.cause.map(ruststrom_core::Cause::name),
            attempts: r.attempts,
        };
        self.0.lock().expect("no panic").push(record);
    }
    fn health(&mut self, _: &HealthChange<'_>) {}
    fn note(&mut self, _: Level, _: &str) {}
}

impl WorkerObserver for Recorder {
    fn turn(&mut self, _: ruststrom_core::Instant) {}
    fn wall(&mut self, _: Wall, _: ruststrom_core::Instant) {}
    fn turn_ended(&mut self) -> bool {
        false
    }
}

/// A running proxy.
pub(crate) struct Harness {
    pub(crate) address: SocketAddr,
    running: Option<Running>,
    stop: Arc<Stop>,
    shared: Arc<Shared>,
    records: Arc<Mutex<Vec<ExchangeRecord>>>,
    workers: u16,
}

impl Harness {
    /// Starts the proxy with the configuration `text`.
    pub(crate) fn start(driver: Driver, text: &str, workers: u16) -> Self {
        Self::start_with(driver, text, workers, Lookups::default())
    }

    /// Starts the proxy with name lookups of the test's own.
    pub(crate) fn start_with(driver: Driver, text: &str, workers: u16, lookups: Lookups) -> Self {
        Self::start_seeded(driver, text, workers, lookups, clock::entropy())
    }

    /// Starts the proxy with a fixed seed for its random choices.
    pub(crate) fn start_seeded(
        driver: Driver,
        text: &str,
        workers: u16,
        lookups: Lookups,
        seed: u64,
    ) -> Self {
        let parsed = config::parse(text);
        let config = parsed.config.unwrap_or_else(|| panic!("{text}\n{:?}", parsed.diagnostics));
        let (listeners, _) = bind_all(&config.listeners, workers).expect("free ports");
        let address = listeners[0].address;
        let (stop, shared) = (Arc::new(Stop::default()), Arc::new(Shared::new("test", workers)));
        let setup = Setup {
            config: Arc::new(config),
            shared: shared.clone(),
            listeners,
            seed,
            files: 10_000,
            stop: stop.clone(),
            lookups,
            tls: RustlsLayer::default(),
        };
        let records = Arc::<Mutex<Vec<ExchangeRecord>>>::default();
        let recorded = records.clone();
        let observer = move |_| Recorder(recorded.clone());
        let running = match driver {
            Driver::Mio => ruststrom_mio::start(setup, observer),
            Driver::Smol => ruststrom_smol::start(setup, observer),
        };
        let running = running.expect("workers");
        Self { address, running: Some(running), stop, shared, records, workers }
    }

    /// A new connection to the proxy.
    pub(crate) fn client(&self) -> Client {
        Client::to(self.address)
    }

    /// The records of the exchanges that have ended so far.
    pub(crate) fn records(&self) -> Vec<ExchangeRecord> {
        self.records.lock().expect("no panic").clone()
    }

    /// The current counters of every worker that reports within [`WAIT`].
    pub(crate) fn stats(&self) -> Vec<WorkerStats> {
        self.running.as_ref().expect("it runs").stats(WAIT)
    }

    /// Waits until the workers' counters meet `condition`; `what` describes it for the message of a failure.
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&[WorkerStats]) -> bool) {
        let begun = Instant::now();
        loop {
            let stats = self.stats();
            assert_eq!(
                stats.len(),
                usize::from(self.workers),
                "a worker has ended, hangs, or failed its own invariants"
            );
            if condition(&stats) {
                return;
            }
            assert!(begun.elapsed() < WAIT, "not within {WAIT:?}: {what}: {stats:?}\n{:?}", self.records());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until nothing of any client is left over: no page, connection, timer, socket or in-flight count.
    pub(crate) fn wait_until_clean(&self) {
        self.wait_until("nothing is left", |all| {
            all.iter().all(|WorkerStats { counts: c, sockets }| {
                let busy = c.clients
                    + c.backends_busy
                    + c.probes
                    + c.exchanges
                    + c.pages
                    + c.in_flight
                    + c.queued
                    + c.lookups;
                // An idle connection to a backend has its socket and one timer.
                busy == 0 && c.timers <= c.backends_idle && *sockets == c.backends_idle
            })
        });
        assert_eq!(self.shared.connections(), 0, "the shared count behind limits.connections");
    }

    /// Begins a graceful stop.
    pub(crate) fn drain(&self) {
        self.stop.advance(Stage::Drain);
    }

    /// Stops gracefully, whatever is left over; the outcome and all records.
    pub(crate) fn finish(mut self) -> (WorkerExit, Vec<ExchangeRecord>) {
        self.drain();
        let outcome = self.running.take().expect("it runs").join();
        (outcome, self.records())
    }

    /// Waits until nothing is left over, and stops gracefully; all records.
    pub(crate) fn end(mut self) -> Vec<ExchangeRecord> {
        self.wait_until_clean();
        self.stop.advance(Stage::Drain);
        assert_eq!(self.running.take().expect("it runs").join(), WorkerExit::Finished);
        self.records()
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.stop.advance(Stage::Now);
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

/// A client that must be served all the time, whatever else the test does: it requests one target again and
/// again, five times on each connection.
pub(crate) struct UnaffectedClient {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl UnaffectedClient {
    /// The longest that one response may take, with other tests running on the same few cores.
    const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

    pub(crate) fn start(address: SocketAddr, target: &'static str, body: &'static str) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, serves) = (stop.clone(), served.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let mut client = Client::to(address);
                for _ in 0..5 {
                    let begun = Instant::now();
                    let response = client.get(target)?;
                    if response.status != 200 || response.text() != body {
                        return Err(format!("{response:?}"));
                    }
                    if begun.elapsed() > Self::RESPONSE_TIMEOUT {
                        return Err(format!("the response took {:?}", begun.elapsed()));
                    }
                    serves.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            Ok(())
        });
        Self { stop, served, thread: Some(thread) }
    }

    /// Stops; panics if any response was wrong or late.
    pub(crate) fn end(mut self) {
        // At least one more response, so that a short test is covered too.
        let before = self.served.load(Ordering::SeqCst);
        let begun = Instant::now();
        let thread = self.thread.take().expect("it runs");
        while self.served.load(Ordering::SeqCst) == before && !thread.is_finished() {
            assert!(begun.elapsed() < WAIT, "the unaffected client gets no response");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.stop.store(true, Ordering::SeqCst);
        if let Err(e) = thread.join().expect("no panic") {
            panic!("the unaffected client: {e}");
        }
    }
}

impl Drop for UnaffectedClient {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
