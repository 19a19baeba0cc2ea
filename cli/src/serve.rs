//! The daemon: everything that can fail is done first, then the workers run until a signal stops them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ruststrom_core::Shared;
use ruststrom_core::config::{Config, Driver, ListenerKind};
use ruststrom_core::shared::HeldLimiters;
use ruststrom_driver::access_log::LogObserver;
use ruststrom_driver::access_target::SharedAccessTarget;
use ruststrom_driver::acme::Acme;
use ruststrom_driver::daemon_observer::DaemonObserver;
use ruststrom_driver::inherited::{Inherited, take_over};
use ruststrom_driver::listen::{BoundListener, ListenError, bind_others};
use ruststrom_driver::log_writer::LogWriter;
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::metrics::hub::{Hub, Sources};
use ruststrom_driver::stop::Stop;
use ruststrom_driver::tls::session::RustlsLayer;
use ruststrom_driver::tls::shared_client::SharedClient;
use ruststrom_driver::tls::shared_server::SharedServer;
use ruststrom_driver::watch::{Contents, Watch};
use ruststrom_driver::worker::WorkerExit;
use ruststrom_driver::workers::{Reloader, Running, Setup};
use ruststrom_driver::{clock, limits};
use signal_hook::iterator::Signals;

use crate::load::Loaded;
use crate::notify::Notifier;
use crate::pid_file::PidFile;
use crate::predecessor::{Predecessor, Turn};
use crate::privileges::Identity;
use crate::reload::{self, CERTIFICATES_TIMEOUT, Certificates, Daemon, Open, Reload};
use crate::upgrade::{self, Program, Successor, Upgrade};
use crate::{FAILED, FORCED, access_file, activation, daemon_log, privileges, signals, state_transfer};

/// The longest wait for a slow log at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Workers wait for connections within this time, or do not at all.
const LISTENING_WITHIN: Duration = Duration::from_secs(10);
/// Workers if there are more cores.
const MAX_WORKERS: u16 = 1024;

/// What to serve.
pub(crate) struct Start<'p> {
    pub(crate) loaded: Loaded,
    /// What the configuration was read from, and is read from again, and what all its files had in them;
    /// `None`: it is from no file.
    pub(crate) file: Option<(PathBuf, Contents)>,
    /// Relative paths of the configuration start here.
    pub(crate) folder: PathBuf,
    /// Overrules the configuration.
    pub(crate) workers: Option<u16>,
    /// Overrules the configuration.
    pub(crate) driver: Option<Driver>,
    /// Where this process's id goes.
    pub(crate) pid_file: Option<PathBuf>,
    /// Signals that have come, or come before they are handled.
    pub(crate) signals: Signals,
    /// Whose place this process takes.
    pub(crate) predecessor: Option<&'p mut Predecessor>,
}

/// Serves until a signal stops it; the exit code. `bound` is called with the listeners as soon as they are
/// open.
///
/// # Errors
/// A message if the daemon cannot start.
pub(crate) fn serve(start: Start<'_>, bound: impl FnOnce(&[BoundListener])) -> Result<ExitCode, String> {
    let Start { loaded, file, folder, workers, driver, pid_file, signals, mut predecessor } = start;
    let program = Program::of_this_process();
    let (notifier, problem) = Notifier::from_environment();
    let workers = workers.or(loaded.config.workers).unwrap_or_else(cores);
    let driver = driver.unwrap_or(loaded.config.driver);
    let files = limits::raise_files();
    let mut opened = open(&loaded, workers, &folder, pid_file.as_deref(), predecessor.as_deref_mut())?;
    let Loaded { config, tls, mut acme, backend_tls, warnings, .. } = loaded;
    let stdout = daemon_log::start(config.access_log.format)?;
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    problem.iter().chain(&opened.problems).for_each(|problem| log::error!("{problem}"));
    let access = SharedAccessTarget::new(access_file::target(&config, opened.access_file, &stdout)?);
    log::debug!("open files: {files:?}");
    warn_of_listeners(&opened.listeners, &opened.left_out);
    let stop = Arc::new(Stop::default());
    let (ask, requests) = reload::requests();
    let (ask_upgrade, upgrades) = upgrade::requests();
    let asks = file.is_some().then(|| (ask.clone(), ask_upgrade));
    signals::listen(signals, stop.clone(), stdout.clone(), access.clone(), asks)
        .map_err(|e| format!("cannot handle signals: {e}"))?;
    bound(&opened.listeners);
    log_listeners(&opened.listeners, &config, workers);
    let open = opened.listeners.iter().map(Open::of).collect();
    let shared = Arc::new(Shared::new(&clock::hostname(), workers));
    let server = SharedServer::new(acme.serve_stored(tls)?);
    let certificates = obtain(acme, &shared, &server, &stop)?;
    let (config, client) = (Arc::new(config), SharedClient::new(backend_tls));
    let parts = Parts { config, shared, stop, server, client, certificates, notifier, access, stdout };
    let known = predecessor.as_deref_mut().and_then(Predecessor::take_state);
    let held = known.map(|known| parts.take_over(known));
    // While another process serves nobody is accepted: what becomes of this one is not known yet.
    let (now, later) = match predecessor {
        Some(_) => (Vec::new(), opened.listeners),
        None => (opened.listeners, Vec::new()),
    };
    let (running, metrics) = parts.start_workers(driver, now, files.files())?;
    if let Some(predecessor) = &predecessor {
        opened.pid_file = parts.succeed(predecessor, &running, later, pid_file.as_deref())?;
    }
    drop(held);
    let watched = parts.notifier.start(&parts.stop, parts.shared.clone(), running.workers());
    watched.map_err(no_thread("that tells the service manager"))?;
    let mut successor = Successor::default();
    if let Some((file, contents)) = file {
        let upgrade = parts.upgrade(program, &running, ask.clone(), pid_file);
        let watch = ask.on_changes().map_err(no_thread("that watches files"))?;
        let daemon = parts.daemon((file, folder), (workers, driver), running.reloader(), watch, metrics);
        let reload = Reload::new(daemon, parts.config.clone(), open, contents);
        reload.listen(requests).map_err(no_thread("for reloads"))?;
        successor = upgrade.listen(upgrades).map_err(no_thread("for upgrades"))?;
    }
    let exit = running.join();
    successor.give_up();
    let code = parts.end(exit);
    drop(opened.pid_file);
    parts.access.flush(FLUSH_TIMEOUT);
    parts.stdout.flush(FLUSH_TIMEOUT);
    Ok(code)
}

/// What is open before root's rights are given up.
struct Opened {
    listeners: Vec<BoundListener>,
    /// What could not be bound, and need not be.
    left_out: Vec<ListenError>,
    access_file: access_file::Opened,
    pid_file: Option<PidFile>,
    /// For the log, once there is one.
    problems: Vec<String>,
}

/// Opens what may need root: that comes first, before any thread is started, and then root's rights are given
/// up.
fn open(
    loaded: &Loaded,
    workers: u16,
    folder: &Path,
    pid_file: Option<&Path>,
    mut predecessor: Option<&mut Predecessor>,
) -> Result<Opened, String> {
    let mut problems = Vec::new();
    let config = &loaded.config;
    let (listeners, left_out) = listen(config, workers, predecessor.as_deref_mut(), &mut problems)?;
    // Root's rights may be gone; the file that the process before this one has open is not.
    let lent = |path: &Path| predecessor.as_deref_mut().and_then(|p| p.take_access_log(path));
    let access_file = access_file::open(config, folder, lent)?;
    let owner = loaded.identity.as_ref().map(Identity::owner);
    let pid_file = match (pid_file, &predecessor) {
        (Some(path), None) => Some(PidFile::write(path, owner)?),
        _ => None,
    };
    loaded.acme.make_folders(owner)?;
    if let Some(identity) = &loaded.identity {
        privileges::drop_to(identity)?;
    }
    Ok(Opened { listeners, left_out, access_file, pid_file, problems })
}

/// Obtains certificates, if the configuration has any that are.
fn obtain(
    acme: Acme,
    shared: &Arc<Shared>,
    server: &SharedServer,
    stop: &Stop,
) -> Result<Certificates, String> {
    let running = (!acme.is_empty()).then(|| acme.start(shared.clone(), server, stop)).transpose();
    Ok(Arc::new(Mutex::new(running.map_err(no_thread("that obtains certificates"))?)))
}

/// What it is to the user that a thread cannot be started.
fn no_thread(which: &'static str) -> impl FnOnce(io::Error) -> String {
    move |e| format!("cannot start the thread {which}: {e}")
}

/// What the threads of a daemon share.
struct Parts {
    config: Arc<Config>,
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    server: SharedServer,
    client: SharedClient,
    certificates: Certificates,
    notifier: Arc<Notifier>,
    access: SharedAccessTarget,
    /// Where the daemon's own log goes.
    stdout: LogWriter,
}

impl Parts {
    /// Starts the workers, and the thread of the admin pages.
    fn start_workers(
        &self,
        driver: Driver,
        listeners: Vec<BoundListener>,
        files: usize,
    ) -> Result<(Running, Hub), String> {
        let (own, target) = (self.stdout.clone(), self.access.clone());
        let sources = Sources {
            version: env!("CARGO_PKG_VERSION"),
            shared: self.shared.clone(),
            stop: self.stop.clone(),
            server: self.server.clone(),
            dropped_lines: Box::new(move || own.dropped() + target.dropped()),
        };
        let (metrics, waiting) = Hub::new(sources, self.config.clone());
        let setup = Setup {
            config: self.config.clone(),
            shared: self.shared.clone(),
            listeners,
            seed: clock::entropy(),
            files,
            stop: self.stop.clone(),
            lookups: Lookups::default().with_pages(Arc::new(metrics.clone())),
            tls: RustlsLayer::new(self.server.clone(), self.client.clone()),
        };
        let (target, counts) = (self.access.clone(), metrics.clone());
        let observer = move |worker| {
            let log = LogObserver::writing_to(target.clone()).of_worker(worker);
            DaemonObserver::new(log, counts.worker())
        };
        let running = match driver {
            Driver::Mio => ruststrom_mio::start(setup, observer),
            Driver::Smol => ruststrom_smol::start(setup, observer),
        };
        let running = running.map_err(|e| format!("cannot start the workers: {e}"))?;
        metrics.start(waiting, &running.workers()).map_err(no_thread("of the admin pages"))?;
        Ok((running, metrics))
    }

    /// Takes over what the process before this one has found out: the first probes go on from there. What
    /// clients had stays for as long as what is returned, or somebody counts with it.
    fn take_over(&self, known: OwnedFd) -> HeldLimiters {
        drop(self.shared.prepare(&self.config));
        let held = self.shared.hold_limiters([clock::entropy(), clock::entropy()]);
        state_transfer::take_over(known, &self.shared);
        held
    }

    /// Waits until the process before this one gives way, and takes whoever comes to these listeners; the PID
    /// file is this process's then. If a stop comes first nothing is done.
    fn succeed(
        &self,
        predecessor: &Predecessor,
        running: &Running,
        listeners: Vec<BoundListener>,
        pid_file: Option<&Path>,
    ) -> Result<Option<PidFile>, String> {
        let Turn::Serve(new) = predecessor.wait(&self.stop)? else { return Ok(None) };
        // Before anybody is accepted, while the process before this one still serves.
        if let Some(new) = new {
            state_transfer::take_over(new, &self.shared);
        }
        // Also before that: if it takes too long nobody is cut.
        let written =
            pid_file.and_then(|path| PidFile::write(path, None).map_err(|e| log::error!("{e}")).ok());
        let wanted: Vec<_> = listeners.iter().map(|l| (l.kind, l.address)).collect();
        running.reloader().reload(&self.config, &[], listeners);
        let lent = running.workers().lend(LISTENING_WITHIN);
        let lent = lent.map_err(|e| format!("the workers do not wait for connections: {e}"))?;
        let served: Vec<_> = lent.into_iter().map(|lent| (lent.kind, lent.address)).collect();
        if let Some((_, address)) = wanted.iter().find(|wanted| !served.contains(wanted)) {
            return Err(format!("no worker can wait for connections to {address}"));
        }
        predecessor.serving();
        log::info!("the process before this one gives way");
        Ok(written)
    }

    /// Upgrades of this daemon.
    fn upgrade(
        &self,
        program: io::Result<Program>,
        running: &Running,
        ask: reload::Ask,
        pid_file: Option<PathBuf>,
    ) -> Upgrade {
        Upgrade {
            program,
            pid_file,
            stop: self.stop.clone(),
            workers: running.workers(),
            shared: self.shared.clone(),
            notifier: self.notifier.clone(),
            access: self.access.clone(),
            reload: Box::new(move || ask.always()),
        }
    }

    /// What reloads read and change.
    fn daemon(
        &self,
        (file, folder): (PathBuf, PathBuf),
        (workers, driver): (u16, Driver),
        reloader: Reloader,
        watch: Watch,
        metrics: Hub,
    ) -> Daemon {
        Daemon {
            file,
            folder,
            workers,
            driver,
            shared: self.shared.clone(),
            stop: self.stop.clone(),
            server: self.server.clone(),
            client: self.client.clone(),
            certificates: self.certificates.clone(),
            notifier: self.notifier.clone(),
            reloader,
            watch,
            access: self.access.clone(),
            stdout: self.stdout.clone(),
            metrics,
        }
    }

    /// All workers have ended: the exit code.
    fn end(&self, exit: WorkerExit) -> ExitCode {
        let obtaining = self.certificates.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(obtaining) = obtaining {
            obtaining.stop(CERTIFICATES_TIMEOUT);
        }
        match exit {
            WorkerExit::Finished => {
                log::info!("stopped: everything was finished");
                ExitCode::SUCCESS
            }
            WorkerExit::Cut => {
                log::warn!("stopped: what was left was cut");
                ExitCode::from(FORCED)
            }
            WorkerExit::Failed => {
                log::error!("stopped: a worker failed");
                ExitCode::from(FAILED)
            }
        }
    }
}

/// Listeners with the sockets that were open before, and new ones where there was none; what could not be
/// bound, and need not be. What could not be used is a line of `problems`.
fn listen(
    config: &Config,
    workers: u16,
    predecessor: Option<&mut Predecessor>,
    problems: &mut Vec<String>,
) -> Result<(Vec<BoundListener>, Vec<ListenError>), String> {
    let upgraded = predecessor.is_some();
    let mut inherited = match predecessor {
        Some(predecessor) => predecessor.take_sockets(),
        None => {
            let (sockets, unusable) = activation::sockets();
            problems.extend(unusable);
            sockets
        }
    };
    let held: Vec<_> = inherited.iter().map(|socket| socket.address).collect();
    let mut listeners = take_over(&config.listeners, &mut inherited, workers)
        .map_err(|e| format!("cannot use the sockets that were open before: {e}"))?;
    if !upgraded {
        for Inherited { address, .. } in &inherited {
            problems.push(format!(
                "nothing of the configuration listens on {address}: that socket of LISTEN_FDS is closed"
            ));
        }
    }
    let taken: Vec<_> = listeners.iter().map(|listener| usize::from(listener.id.0)).collect();
    let wanted = |place: usize| !taken.contains(&place);
    let (bound, left_out) = bind_others(&config.listeners, &held, workers, &wanted).map_err(|e| {
        // Most likely the one was meant for the other.
        let near = inherited.iter().find(|socket| socket.address.port() == e.address.port());
        let near = near.filter(|_| !upgraded).map(|socket| {
            format!(
                ". LISTEN_FDS has a socket of {0}: to use it, configure exactly that address",
                socket.address
            )
        });
        format!("{e}{}", near.unwrap_or_default())
    })?;
    listeners.extend(bound);
    listeners.sort_by_key(|listener| listener.id.0);
    Ok((listeners, left_out))
}

/// One worker for each core.
fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    u16::try_from(cores).unwrap_or(MAX_WORKERS).min(MAX_WORKERS)
}

/// Warns of listeners that there are not.
fn warn_of_listeners(listeners: &[BoundListener], left_out: &[ListenError]) {
    for e in left_out {
        log::warn!("{e}; going on without that page");
    }
    if !listeners.iter().any(|l| l.kind != ListenerKind::Admin) {
        log::warn!("no listener takes requests: https_address needs a certificate");
    }
}

fn log_listeners(listeners: &[BoundListener], config: &Config, workers: u16) {
    for l in listeners {
        let kind = l.kind.name();
        let name = config.listeners.get(usize::from(l.id.0)).map_or(kind, |l| &*l.name);
        let what = if name == kind { kind.to_owned() } else { format!("{name}, {kind}") };
        log::info!("listening on {} ({what}), workers: {workers}", l.address);
    }
}
