//! Where the pages of the admin listener are made: on a thread of its own, which asks the workers.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ruststrom_core::{Config, LookupResult, Query, Shared};

use super::departed::Departed;
use super::facts::{self, Facts, Loading};
use super::ledger::Ledger;
use super::process::Process;
use super::text_format::{self, OPEN_METRICS, TEXT};
use super::worker::WorkerMetrics;
use super::{page, status};
use crate::clock;
use crate::lookup::{AdminPages, DeliverPage};
use crate::mailbox::{Command, Mailbox, WorkerReport};
use crate::stop::{Stage, Stop};
use crate::tls::shared_server::SharedServer;
use crate::workers::Workers;

/// All workers together have this long to respond.
const PATIENCE: Duration = Duration::from_secs(1);
/// One that has not responded is asked again after this long, in case that the question was lost.
const ASKED_AGAIN: Duration = Duration::from_secs(60);
/// Pages that are asked for at once; any beyond fail immediately.
const MAX_WAITING: usize = 256;
/// Media type of `/status`.
const JSON: &str = "application/json";

/// What the pages tell of besides the workers.
pub struct Sources {
    /// Of the program.
    pub version: &'static str,
    /// What the workers share.
    pub shared: Arc<Shared>,
    /// Says whether they are to stop.
    pub stop: Arc<Stop>,
    /// The certificates of the moment.
    pub server: SharedServer,
    /// Says how many lines of logs were dropped up to now.
    pub dropped_lines: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// The configuration, and what became of others.
struct Loaded {
    config: Arc<Config>,
    loading: Loading,
}

struct Inner {
    sources: Sources,
    ledger: Arc<Ledger>,
    loaded: Mutex<Loaded>,
    to: SyncSender<Task>,
}

/// What the thread is asked for.
enum Task {
    Page(Query, DeliverPage),
    /// There is another configuration.
    Reloaded,
}

/// Everything that is counted, and what makes pages of it. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

/// Pages that are asked for, before there is a thread that makes them.
pub struct Waiting(Receiver<Task>);

impl Hub {
    /// For a process that serves by this configuration. Pages are made once [`Hub::start`] has been called.
    #[must_use]
    pub fn new(sources: Sources, config: Arc<Config>) -> (Self, Waiting) {
        let (to, tasks) = mpsc::sync_channel(MAX_WAITING);
        let loading =
            Loading { generation: 1, at: clock::wall(), succeeded: 0, failed: 0, last_succeeded: true };
        let loaded = Mutex::new(Loaded { config, loading });
        (Self(Arc::new(Inner { sources, ledger: Arc::default(), loaded, to })), Waiting(tasks))
    }

    /// What a worker counts with, for as long as it has the same proxy.
    #[must_use]
    pub fn worker(&self) -> WorkerMetrics {
        WorkerMetrics::new(&self.0.ledger)
    }

    /// Makes pages from now on, by what these workers say.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(&self, waiting: Waiting, workers: &Workers) -> io::Result<()> {
        let mailboxes = workers.mailboxes().clone();
        let (to, from) = mpsc::channel();
        let maker = PageMaker {
            hub: self.0.clone(),
            reports: mailboxes.iter().map(|_| None).collect(),
            asked: mailboxes.iter().map(|_| None).collect(),
            mailboxes,
            to,
            from,
            departed: Departed::default(),
        };
        let run = move || maker.run(&waiting.0);
        std::thread::Builder::new().name("admin".into()).spawn(run).map(drop)
    }

    /// The configuration has been replaced by this one.
    pub fn reloaded(&self, config: Arc<Config>) {
        let mut loaded = self.0.loaded();
        loaded.config = config;
        let loading = &mut loaded.loading;
        loading.generation += 1;
        loading.succeeded += 1;
        (loading.at, loading.last_succeeded) = (clock::wall(), true);
        drop(loaded);
        // If that many pages are waited for, one of them will look.
        let _ = self.0.to.try_send(Task::Reloaded);
    }

    /// A reload has failed.
    pub fn reload_failed(&self) {
        let loading = &mut self.0.loaded().loading;
        loading.failed += 1;
        loading.last_succeeded = false;
    }
}

impl AdminPages for Hub {
    fn ask(&self, query: Query, deliver: DeliverPage) {
        let failed = |why: &str| LookupResult::Failed(why.into());
        match self.0.to.try_send(Task::Page(query, deliver)) {
            Err(TrySendError::Full(Task::Page(_, deliver))) => {
                deliver(failed("too many pages are waited for"))
            }
            Err(TrySendError::Disconnected(Task::Page(_, deliver))) => {
                deliver(failed("there is nobody who makes pages"));
            }
            _ => {}
        }
    }
}

impl Inner {
    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it all is called at this moment.
    fn readiness(&self) -> &'static str {
        match () {
            () if self.sources.stop.stage() != Stage::Run => "leaving",
            () if self.sources.shared.all_ready() => "ready",
            () => "starting",
        }
    }
}

/// The thread that makes pages.
struct PageMaker {
    hub: Arc<Inner>,
    mailboxes: Arc<[Mailbox]>,
    /// What each worker has reported last. What it has counted lies in the ledger.
    reports: Vec<Option<WorkerReport>>,
    /// Workers that have not responded yet, and when they were asked.
    asked: Vec<Option<Instant>>,
    to: Sender<WorkerReport>,
    from: Receiver<WorkerReport>,
    departed: Departed,
}

impl PageMaker {
    fn run(mut self, tasks: &Receiver<Task>) {
        while let Ok(first) = tasks.recv() {
            // All that wait get pages of the same moment.
            let all = std::iter::once(first).chain(tasks.try_iter());
            let pages: Vec<_> = all
                .filter_map(|task| match task {
                    Task::Page(query, deliver) => Some((query, deliver)),
                    Task::Reloaded => None,
                })
                .collect();
            let shows = pages.iter().any(|(query, _)| matches!(query, Query::Metrics { .. }));
            let facts = catch_unwind(AssertUnwindSafe(|| self.facts(shows))).ok().map(Arc::new);
            for (query, deliver) in pages {
                deliver(answer(facts.as_ref(), &query));
            }
        }
    }

    /// Asks every worker, and waits until all have responded or it takes too long. How many have not.
    fn ask(&mut self) -> usize {
        let now = Instant::now();
        for (worker, (mailbox, asked)) in (0..).zip(self.mailboxes.iter().zip(&mut self.asked)) {
            // A worker that is stuck must not find a thousand questions when it goes on.
            if asked.is_none_or(|at| now.duration_since(at) > ASKED_AGAIN) {
                *asked = Some(now);
                mailbox.post(Command::Report { worker, to: self.to.clone() });
            }
        }
        let until = now + PATIENCE;
        while self.asked.iter().any(Option::is_some) {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(mut report) = self.from.recv_timeout(left) else { break };
            let worker = usize::from(report.worker);
            if let Some(snapshot) = report.counted.take() {
                self.hub.ledger.report(snapshot.account, snapshot.sheet);
            }
            self.asked[worker] = None;
            self.reports[worker] = Some(report);
        }
        for (worker, _) in self.asked.iter().enumerate().filter(|(_, asked)| **asked == Some(now)) {
            log::warn!("worker {worker} does not say what it has counted: pages have what it said last");
        }
        self.asked.iter().flatten().count()
    }

    /// How everything is now. `shows`: for a page of metrics.
    fn facts(&mut self, shows: bool) -> Facts {
        let unresponsive = self.ask();
        let (config, loading) = {
            let loaded = self.hub.loaded();
            (loaded.config.clone(), loaded.loading)
        };
        let sources = &self.hub.sources;
        let mut totals = self.hub.ledger.totals();
        let configured: BTreeSet<_> = facts::names(&config).collect();
        let verdict = self.departed.look(&totals, configured.clone(), clock::now(), shows);
        if !verdict.forgotten.is_empty() {
            let names: Arc<[_]> = verdict.forgotten.into();
            self.hub.ledger.forget(&names);
            self.mailboxes.iter().for_each(|mailbox| mailbox.post(Command::Forget(names.clone())));
        }
        totals.retain(|names, _| configured.contains(names) || verdict.shown.contains(names));
        for names in configured {
            totals.entry(names).or_default();
        }
        let server = sources.server.get();
        let ends = server.ends().iter().copied().chain(std::iter::repeat(None));
        let certificates = config.certificates.iter().zip(ends);
        Facts {
            version: sources.version,
            now: (clock::now(), clock::wall()),
            totals,
            pools: facts::pools(&config, &sources.shared, &self.reports),
            counts: facts::counts(&self.reports),
            workers: self.mailboxes.len(),
            unresponsive,
            loading,
            certificates: certificates.map(|(certificate, end)| (certificate.name.clone(), end)).collect(),
            dropped_lines: (sources.dropped_lines)(),
            process: Process::read(),
            readiness: self.hub.readiness(),
        }
    }
}

/// The page that is asked for, if there are facts to make it of.
fn answer(facts: Option<&Arc<Facts>>, query: &Query) -> LookupResult {
    let page = facts.and_then(|facts| catch_unwind(AssertUnwindSafe(|| made(facts, query))).ok());
    page.unwrap_or_else(|| LookupResult::Failed("the page could not be made".into()))
}

fn made(facts: &Arc<Facts>, query: &Query) -> LookupResult {
    let (content_type, text) = match query {
        Query::Metrics { open_metrics: true } => (OPEN_METRICS, page::open_metrics(facts)),
        Query::Metrics { open_metrics: false } => {
            (TEXT, text_format::from_open_metrics(&page::open_metrics(facts)))
        }
        _ => (JSON, status::json(facts)),
    };
    LookupResult::Page { content_type, body: text.into_bytes().into() }
}

#[cfg(test)]
mod tests;
