//! The daemon: everything that can fail is done first, then the workers run until a signal stops them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ruststrom_core::Shared;
use ruststrom_core::config::{Config, Driver, ListenerKind};
use ruststrom_driver::access_log::LogObserver;
use ruststrom_driver::access_target::SharedAccessTarget;
use ruststrom_driver::daemon_observer::DaemonObserver;
use ruststrom_driver::inherited::{Inherited, take_over};
use ruststrom_driver::listen::{BoundListener, ListenError, bind_others};
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::metrics::hub::{Hub, Sources};
use ruststrom_driver::stop::Stop;
use ruststrom_driver::tls::session::RustlsLayer;
use ruststrom_driver::tls::shared_client::SharedClient;
use ruststrom_driver::tls::shared_server::SharedServer;
use ruststrom_driver::watch::Contents;
use ruststrom_driver::worker::WorkerExit;
use ruststrom_driver::workers::Setup;
use ruststrom_driver::{clock, limits};
use signal_hook::iterator::Signals;

use crate::load::Loaded;
use crate::notify::Notifier;
use crate::pid_file::PidFile;
use crate::predecessor::{Predecessor, Turn};
use crate::privileges::Identity;
use crate::reload::{self, CERTIFICATES_TIMEOUT, Daemon, Open, Reload};
use crate::upgrade::{self, Program, Successor, Upgrade};
use crate::{FAILED, FORCED, access_file, activation, daemon_log, knowledge, privileges, signals};

/// The longest wait for a slow log at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
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
    let Start {
        loaded: Loaded { config, tls, mut acme, backend_tls, identity, warnings },
        file,
        folder,
        workers,
        driver,
        pid_file,
        signals,
        mut predecessor,
    } = start;
    let program = Program::of_this_process();
    let (notifier, problem) = Notifier::from_environment();
    let mut problems: Vec<String> = problem.into_iter().collect();
    let format = config.access_log.format;
    let workers = workers.or(config.workers).unwrap_or_else(cores);
    let files = limits::raise_files();
    // What may need root comes first, before any thread is started: then its rights are given up.
    let (listeners, left_out) = listen(&config, workers, predecessor.as_deref_mut(), &mut problems)?;
    // Root's rights may be gone; the file that the process before this one has open is not.
    let lent = |path: &Path| predecessor.as_deref_mut().and_then(|p| p.take_access_log(path));
    let access_file = access_file::open(&config, &folder, lent)?;
    let owner = identity.as_ref().map(Identity::owner);
    let mut written = match (&pid_file, &predecessor) {
        (Some(path), None) => Some(PidFile::write(path, owner)?),
        _ => None,
    };
    acme.make_folders(owner)?;
    if let Some(identity) = &identity {
        privileges::drop_to(identity)?;
    }
    let stdout = daemon_log::start(format)?;
    for warning in warnings {
        log::warn!("{warning}");
    }
    for problem in problems {
        log::error!("{problem}");
    }
    let access = SharedAccessTarget::new(access_file::target(&config, access_file, &stdout)?);
    log::debug!("open files: {files:?}");
    warn_of_listeners(&listeners, &left_out);
    let stop = Arc::new(Stop::default());
    let (ask, requests) = reload::requests();
    let (upgrade, upgrades) = upgrade::requests();
    let asks = file.is_some().then(|| (ask.clone(), upgrade));
    signals::listen(signals, stop.clone(), stdout.clone(), access.clone(), asks)
        .map_err(|e| format!("cannot handle signals: {e}"))?;
    bound(&listeners);
    log_listeners(&listeners, &config, workers);
    let driver = driver.unwrap_or(config.driver);
    let shared = Arc::new(Shared::new(&clock::hostname(), workers));
    let server = SharedServer::new(acme.serve_stored(tls)?);
    let certificates = (!acme.is_empty()).then(|| acme.start(shared.clone(), &server, &stop)).transpose();
    let certificates =
        certificates.map_err(|e| format!("cannot start the thread that obtains certificates: {e}"))?;
    let certificates = Arc::new(Mutex::new(certificates));
    let client = SharedClient::new(backend_tls);
    let config = Arc::new(config);
    if let Some(health) = predecessor.as_deref_mut().and_then(Predecessor::take_health) {
        // The first probes go on from there.
        drop(shared.prepare(&config));
        knowledge::take_over(health, &shared);
    }
    let open = listeners.iter().map(Open::of).collect();
    let (own, target) = (stdout.clone(), access.clone());
    let sources = Sources {
        version: env!("CARGO_PKG_VERSION"),
        shared: shared.clone(),
        stop: stop.clone(),
        server: server.clone(),
        dropped_lines: Box::new(move || own.dropped() + target.dropped()),
    };
    let (metrics, waiting) = Hub::new(sources, config.clone());
    // While another process serves nobody is accepted: what becomes of this one is not known yet.
    let (listeners, later) =
        if predecessor.is_some() { (Vec::new(), listeners) } else { (listeners, Vec::new()) };
    let setup = Setup {
        config: config.clone(),
        shared: shared.clone(),
        listeners,
        seed: clock::entropy(),
        files: files.files(),
        stop: stop.clone(),
        lookups: Lookups::default().with_pages(Arc::new(metrics.clone())),
        tls: RustlsLayer::new(server.clone(), client.clone()),
    };
    let (target, counts) = (access.clone(), metrics.clone());
    let observer = move |worker| {
        let log = LogObserver::writing_to(target.clone()).of_worker(worker);
        DaemonObserver::new(log, counts.worker())
    };
    let running = match driver {
        Driver::Mio => ruststrom_mio::start(setup, observer),
        Driver::Smol => ruststrom_smol::start(setup, observer),
    };
    let running = running.map_err(|e| format!("cannot start the workers: {e}"))?;
    metrics
        .start(waiting, running.mailboxes())
        .map_err(|e| format!("cannot start the thread of the admin pages: {e}"))?;
    if let Some(predecessor) = &predecessor
        && let Turn::Serve(all) = predecessor.wait(&stop)?
    {
        // Before anybody is accepted, while the process before this one still serves.
        if let Some(all) = all {
            knowledge::take_over(all, &shared);
        }
        running.reloader().reload(&config, &[], later);
        written = pid_file.and_then(|path| PidFile::write(&path, None).map_err(|e| log::error!("{e}")).ok());
        predecessor.serving();
        log::info!("the process before this one gives way");
    }
    notifier
        .start(&stop, shared.clone(), running.workers())
        .map_err(|e| format!("cannot start the thread that tells the service manager: {e}"))?;
    let mut successor = Successor::default();
    if let Some((file, contents)) = file {
        let upgrade = Upgrade {
            program,
            stop: stop.clone(),
            workers: running.workers(),
            shared: shared.clone(),
            notifier: notifier.clone(),
            access: access.clone(),
            reload: Box::new({
                let ask = ask.clone();
                move || ask.always()
            }),
        };
        let watch =
            ask.on_changes().map_err(|e| format!("cannot start the thread that watches files: {e}"))?;
        let daemon = Daemon {
            file,
            folder,
            workers,
            driver,
            shared,
            stop,
            server,
            client,
            certificates: certificates.clone(),
            notifier,
            reloader: running.reloader(),
            watch,
            access: access.clone(),
            stdout: stdout.clone(),
            metrics,
        };
        let reload = Reload::new(daemon, config, open, contents);
        reload.listen(requests).map_err(|e| format!("cannot start the thread for reloads: {e}"))?;
        successor =
            upgrade.listen(upgrades).map_err(|e| format!("cannot start the thread for upgrades: {e}"))?;
    }
    let exit = running.join();
    successor.give_up();
    let obtaining = certificates.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(obtaining) = obtaining {
        obtaining.stop(CERTIFICATES_TIMEOUT);
    }
    let code = match exit {
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
    };
    drop(written);
    access.flush(FLUSH_TIMEOUT);
    stdout.flush(FLUSH_TIMEOUT);
    Ok(code)
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
