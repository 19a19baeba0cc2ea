//! The proxy on its driver in the test's own process, so that the core's own counters can be asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ruststrom_core::config::{self, Driver};
use ruststrom_core::observe::{Head, HealthChange, Kept, Level, Observer, Record};
use ruststrom_core::{Shared, Wall};
use ruststrom_driver::clock;
use ruststrom_driver::crew::{Running, Setup};
use ruststrom_driver::listen::bind_all;
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::stop::{Stage, Stop};
use ruststrom_driver::watch::Watch;
use ruststrom_driver::worker::{Census, Outcome};

use crate::talk::{Client, WAIT};

/// Short times, no probes. A test adds pools, and overrules by writing keys of its own first.
pub(crate) const QUICK: &str = "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n\
    health_interval = { check_every = 0 }\n\
    timeouts = { head = \"700ms\", idle = \"1500ms\", connect = \"700ms\", backend_head = \"700ms\", stall = \"1s\", queue = \"700ms\", \
    tunnel = \"1500ms\", drain = \"3s\" }\n";

/// A pool of backends, taken by the path's first segment.
pub(crate) fn pool(name: &str, backends: &[SocketAddr], more: &str) -> String {
    let addresses: Vec<String> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    format!(
        "[[backend_pools]]\nname = \"{name}\"\nmatcher = \"PathPrefix('/{name}')\"\naddresses = [{}]\nschemes = [\"HTTP\"]\n{more}\n",
        addresses.join(", ")
    )
}

/// What the observer heard of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) target: String,
    pub(crate) status: u16,
    pub(crate) cause: Option<&'static str>,
    pub(crate) attempts: u8,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {} tries={}", self.target, self.status, self.cause.unwrap_or("-"), self.attempts)
    }
}

/// Writes down what it hears.
pub(crate) struct Recorder(pub(crate) Arc<Mutex<Vec<Told>>>);

impl Observer for Recorder {
    fn head(&mut self, head: &Head<'_>, kept: &mut Kept) {
        kept.copy(head.target);
    }
    fn exchange(&mut self, r: &Record<'_>) {
        let target = String::from_utf8_lossy(r.kept.bytes()).into_owned();
        let told = Told {
            target,
            status: r.status,
            cause: r.cause.map(ruststrom_core::Cause::name),
            attempts: r.attempts,
        };
        self.0.lock().expect("no panic").push(told);
    }
    fn health(&mut self, _: &HealthChange<'_>) {}
    fn note(&mut self, _: Level, _: &str) {}
}

impl Watch for Recorder {
    fn turn(&mut self, _: ruststrom_core::Instant) {}
    fn wall(&mut self, _: Wall, _: ruststrom_core::Instant) {}
    fn turn_ended(&mut self) -> bool {
        false
    }
}

/// A running proxy.
pub(crate) struct Stand {
    pub(crate) address: SocketAddr,
    running: Option<Running>,
    stop: Arc<Stop>,
    shared: Arc<Shared>,
    told: Arc<Mutex<Vec<Told>>>,
    workers: u16,
}

impl Stand {
    /// On the driver that these tests are about.
    pub(crate) fn start(text: &str, workers: u16) -> Self {
        Self::start_with(text, workers, Lookups::default())
    }

    /// With names of a test's own.
    pub(crate) fn start_with(text: &str, workers: u16, lookups: Lookups) -> Self {
        Self::seeded(crate::DRIVER, text, workers, lookups, clock::entropy())
    }

    pub(crate) fn seeded(driver: Driver, text: &str, workers: u16, lookups: Lookups, seed: u64) -> Self {
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
        };
        let told = Arc::<Mutex<Vec<Told>>>::default();
        let heard = told.clone();
        let observer = move |_| Recorder(heard.clone());
        let running = match driver {
            Driver::Mio => ruststrom_mio::start(setup, observer),
            Driver::Smol => ruststrom_smol::start(setup, observer),
        };
        let running = running.expect("workers");
        Self { address, running: Some(running), stop, shared, told, workers }
    }

    pub(crate) fn client(&self) -> Client {
        Client::to(self.address)
    }

    /// What was told of exchanges so far.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().expect("no panic").clone()
    }

    pub(crate) fn census(&self) -> Vec<Census> {
        self.running.as_ref().expect("it runs").census(WAIT)
    }

    /// Waits until `enough` says so.
    pub(crate) fn wait_until(&self, what: &str, enough: impl Fn(&[Census]) -> bool) {
        let begun = Instant::now();
        loop {
            let census = self.census();
            assert_eq!(
                census.len(),
                usize::from(self.workers),
                "a worker is gone, stuck, or broke a rule of its own"
            );
            if enough(&census) {
                return;
            }
            assert!(begun.elapsed() < WAIT, "{what}: never so: {census:?}\n{:?}", self.told());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until nothing is left of any client: no page, connection, timer, socket or place in flight.
    pub(crate) fn wait_until_clean(&self) {
        self.wait_until("nothing is left", |all| {
            all.iter().all(|Census { counts: c, sockets }| {
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
        assert_eq!(self.shared.connections(), 0, "the count that limits.connections compares with");
    }

    /// Begins a graceful stop.
    pub(crate) fn drain(&self) {
        self.stop.advance(Stage::Drain);
    }

    /// Stops gracefully, whatever is left; how it ended.
    pub(crate) fn finish(mut self) -> (Outcome, Vec<Told>) {
        self.drain();
        let outcome = self.running.take().expect("it runs").join();
        (outcome, self.told())
    }

    /// Nothing is left, and it stops as it should.
    pub(crate) fn end(mut self) -> Vec<Told> {
        self.wait_until_clean();
        self.stop.advance(Stage::Drain);
        assert_eq!(self.running.take().expect("it runs").join(), Outcome::Finished);
        self.told()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.stop.advance(Stage::Now);
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

/// Somebody who is served all the time: asks for `target` again and again, on one connection and on fresh
/// ones.
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Bystander {
    /// The longest that it may have to wait for one answer, with tests beside it on few cores.
    const PATIENCE: Duration = Duration::from_secs(3);

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
                    if begun.elapsed() > Self::PATIENCE {
                        return Err(format!("served only after {:?}", begun.elapsed()));
                    }
                    serves.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            Ok(())
        });
        Self { stop, served, thread: Some(thread) }
    }

    /// It was served all the time.
    pub(crate) fn end(mut self) {
        // Also while this was going on, however short that was.
        let before = self.served.load(Ordering::SeqCst);
        let begun = Instant::now();
        let thread = self.thread.take().expect("it runs");
        while self.served.load(Ordering::SeqCst) == before && !thread.is_finished() {
            assert!(begun.elapsed() < WAIT, "the bystander waits in vain");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.stop.store(true, Ordering::SeqCst);
        if let Err(e) = thread.join().expect("no panic") {
            panic!("the bystander: {e}");
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
