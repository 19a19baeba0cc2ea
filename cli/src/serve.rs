//! The daemon: everything that can fail is done first, then the workers run until a signal ends them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::Shared;
use ruststrom_core::config::{Driver, ListenerKind};
use ruststrom_driver::access_log::Reporter;
use ruststrom_driver::crew::Setup;
use ruststrom_driver::listen::{Bound, bind_all};
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::sink::{Sink, Target};
use ruststrom_driver::stop::Stop;
use ruststrom_driver::worker::Outcome;
use ruststrom_driver::{clock, journal, limits};

use crate::load::Loaded;
use crate::{FAILED, FORCED, signals};

/// The longest wait for a slow log at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What to serve.
pub(crate) struct Start {
    pub(crate) loaded: Loaded,
    /// Relative paths of the configuration start here.
    pub(crate) folder: PathBuf,
    /// Overrules the configuration.
    pub(crate) workers: Option<u16>,
    /// Overrules the configuration.
    pub(crate) driver: Option<Driver>,
}

/// Serves until a signal ends it. `bound` hears of the listeners as soon as they are open.
pub(crate) fn serve(start: Start, bound: impl FnOnce(&[Bound])) -> Result<ExitCode, String> {
    let Start { loaded: Loaded { config, warnings }, folder, workers, driver } = start;
    let format = config.access_log.format;
    let stdout = Sink::open(&Target::Stdout).map_err(|e| format!("cannot start the log's thread: {e}"))?;
    let (levels, bad) = journal::Levels::parse(&std::env::var("RUST_LOG").unwrap_or_default());
    journal::install(levels, format, &stdout);
    for word in bad {
        log::warn!("RUST_LOG: \"{word}\" is neither a level nor module=level; it changes nothing");
    }
    for warning in warnings {
        log::warn!("{warning}");
    }
    let access = if config.access_log.enabled {
        let target =
            config.access_log.path.as_deref().map_or(Target::Stdout, |p| Target::File(folder.join(p)));
        Some(match &target {
            Target::Stdout => stdout.clone(),
            Target::File(path) => {
                let unusable = |e| {
                    format!(
                        "cannot write the access log {}: {e}; choose another access_log.path",
                        path.display()
                    )
                };
                Sink::open(&target).map_err(unusable)?
            }
        })
    } else {
        None
    };
    let files = limits::raise_files();
    log::debug!("open files: {files:?}");
    let cores = || {
        std::thread::available_parallelism()
            .ok()
            .and_then(|n| u16::try_from(n.get()).ok())
            .unwrap_or(1)
            .min(1024)
    };
    let workers = workers.or(config.workers).unwrap_or_else(cores);
    let (listeners, left_out) = bind_all(&config.listeners, workers).map_err(|e| e.to_string())?;
    for e in left_out {
        log::warn!("{e}; going on without that page");
    }
    if !listeners.iter().any(|l| l.kind != ListenerKind::Admin) {
        log::warn!("no listener takes requests: https_address needs a certificate");
    }
    let stop = Arc::new(Stop::default());
    signals::listen(stop.clone(), stdout.clone()).map_err(|e| format!("cannot handle signals: {e}"))?;
    bound(&listeners);
    for l in &listeners {
        let what = match l.kind {
            ListenerKind::Http => "http",
            ListenerKind::Https => "https",
            ListenerKind::Admin => "own page",
        };
        log::info!("listening on {} ({what}), workers: {workers}", l.address);
    }
    let driver = driver.unwrap_or(config.driver);
    let setup = Setup {
        config: Arc::new(config),
        shared: Arc::new(Shared::new(&clock::hostname(), workers)),
        listeners,
        seed: clock::entropy(),
        files: files.files(),
        stop,
        lookups: Lookups::default(),
    };
    let lines = access.clone();
    let observer = move |_| lines.as_ref().map_or_else(Reporter::quiet, |sink| Reporter::new(format, sink));
    let running = match driver {
        Driver::Mio => ruststrom_mio::start(setup, observer),
        Driver::Smol => ruststrom_smol::start(setup, observer),
    };
    let running = running.map_err(|e| format!("cannot start the workers: {e}"))?;
    let outcome = running.join();
    match outcome {
        Outcome::Finished => log::info!("stopped: everything was finished"),
        Outcome::Cut => log::warn!("stopped: what was left at the deadline was cut"),
        Outcome::Failed => log::error!("stopped: a worker failed"),
    }
    for sink in access.iter().chain([&stdout]) {
        sink.flush(LAST_LINES);
    }
    Ok(match outcome {
        Outcome::Finished => ExitCode::SUCCESS,
        Outcome::Cut => ExitCode::from(FORCED),
        Outcome::Failed => ExitCode::from(FAILED),
    })
}
