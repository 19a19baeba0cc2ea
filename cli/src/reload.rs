//! Another configuration for a daemon that runs, as HUP asks for, or a change of its files. It is read and
//! everything that it needs is made before anything changes: one that cannot be used changes nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use ruststrom_core::config::{self, Driver};
use ruststrom_core::route::ListenerIds;
use ruststrom_core::{Config, ListenerId, Shared};
use ruststrom_driver::access_target::SharedAccessTarget;
use ruststrom_driver::acme;
use ruststrom_driver::listen::{BoundListener, bind_others, takes_both};
use ruststrom_driver::log_writer::LogWriter;
use ruststrom_driver::logger;
use ruststrom_driver::metrics::hub::Hub;
use ruststrom_driver::stop::{Stage, Stop};
use ruststrom_driver::tls::shared_client::SharedClient;
use ruststrom_driver::tls::shared_server::SharedServer;
use ruststrom_driver::watch::{Contents, Watch};
use ruststrom_driver::workers::Reloader;

use crate::access_file;
use crate::load::{self, Loaded, Previous};
use crate::notify::Notifier;
use crate::privileges::Identity;

/// The longest wait for the thread that obtains certificates.
pub(crate) const CERTIFICATES_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks for reloads; one that waits already is enough.
#[derive(Clone)]
pub(crate) struct Ask {
    to: SyncSender<()>,
    always: Arc<AtomicBool>,
}

/// The other end of [`Ask`].
pub(crate) struct Requests {
    from: Receiver<()>,
    always: Arc<AtomicBool>,
}

/// Where requests for reloads go, and where they come from.
pub(crate) fn requests() -> (Ask, Requests) {
    let (to, from) = mpsc::sync_channel(1);
    let always = Arc::<AtomicBool>::default();
    (Ask { to, always: always.clone() }, Requests { from, always })
}

impl Ask {
    /// Whatever the files have in them.
    pub(crate) fn always(&self) {
        self.always.store(true, Ordering::SeqCst);
        self.if_changed();
    }

    /// If the files have something else in them than what was loaded.
    fn if_changed(&self) {
        // One that waits already will see what is in the files now.
        let _ = self.to.try_send(());
    }

    /// What asks when files that it follows change.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub(crate) fn on_changes(self) -> io::Result<Watch> {
        Watch::start(move || self.if_changed())
    }
}

impl Requests {
    /// Waits for the next one: whether it is whatever the files have in them. `None`: nobody asks any more.
    fn next(&self) -> Option<bool> {
        self.from.recv().ok()?;
        Some(self.always.swap(false, Ordering::SeqCst))
    }
}

/// The thread that obtains certificates, while there is one.
pub(crate) type Certificates = Arc<Mutex<Option<acme::control::Running>>>;

/// A listener that is open.
pub(crate) struct Open {
    id: ListenerId,
    /// With the port that was chosen for port 0.
    address: SocketAddr,
    /// [`BoundListener::dual`].
    dual: bool,
}

impl Open {
    pub(crate) fn of(listener: &BoundListener) -> Self {
        Self { id: listener.id, address: listener.address, dual: listener.dual }
    }
}

/// What a reload reads, and what it changes.
pub(crate) struct Daemon {
    pub(crate) file: PathBuf,
    /// Relative paths of the configuration start here.
    pub(crate) folder: PathBuf,
    /// As the process has them, whatever its configuration says.
    pub(crate) workers: u16,
    pub(crate) driver: Driver,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) server: SharedServer,
    pub(crate) client: SharedClient,
    pub(crate) certificates: Certificates,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) reloader: Reloader,
    pub(crate) watch: Watch,
    pub(crate) access: SharedAccessTarget,
    /// Where the daemon's own log goes.
    pub(crate) stdout: LogWriter,
    pub(crate) metrics: Hub,
}

/// The daemon, and what it has been told last.
pub(crate) struct Reload {
    daemon: Daemon,
    /// What the daemon was started with: some of it stays.
    started: Arc<Config>,
    config: Arc<Config>,
    /// What its files had in them, or those of a newer one that was refused.
    contents: Contents,
    ids: ListenerIds,
    open: Vec<Open>,
}

impl Reload {
    /// Of a daemon that has been started with this configuration, and has these listeners.
    pub(crate) fn new(daemon: Daemon, config: Arc<Config>, open: Vec<Open>, contents: Contents) -> Self {
        let ids = ListenerIds::new(&config.listeners);
        Self { daemon, started: config.clone(), config, contents, ids, open }
    }

    /// Reloads whenever it is asked to, on a thread of its own.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn listen(mut self, requests: Requests) -> io::Result<()> {
        let run = move || {
            self.follow();
            while let Some(always) = requests.next() {
                if self.daemon.stop.stage() != Stage::Run {
                    if always {
                        log::warn!("not reloaded: stopping already");
                    }
                } else if always || self.config.watch && self.contents.difference().is_some() {
                    self.daemon.notifier.reloading();
                    // What was refused is not tried again before it changes.
                    let mut contents = Contents::default();
                    contents.add(&self.daemon.file);
                    if let Err(why) = self.reload(&mut contents) {
                        self.daemon.metrics.reload_failed();
                        log::error!("not reloaded, what was served is served on: {why}");
                    }
                    contents.settle();
                    self.contents = contents;
                    self.follow();
                    self.daemon.notifier.ready(&self.daemon.shared);
                }
            }
        };
        thread::Builder::new().name("reload".into()).spawn(run)?;
        Ok(())
    }

    /// Files are watched as the configuration says.
    fn follow(&self) {
        self.daemon.watch.follow(self.config.watch.then(|| self.contents.clone()));
    }

    /// `contents` has the configuration's file, and gets those that it names.
    fn reload(&mut self, contents: &mut Contents) -> Result<(), String> {
        let name = self.daemon.file.display().to_string();
        let text = load::read_again(&self.daemon.file)?;
        let (tls, backend_tls) = (self.daemon.server.get(), self.daemon.client.get());
        let previous = Previous { tls: &tls, backend_tls: &backend_tls };
        let Loaded { config, tls, mut acme, backend_tls, identity, warnings } =
            load::load(&name, &text, &self.daemon.folder, Some(previous), contents)?;
        acme.make_folders(identity.as_ref().map(Identity::owner))?;
        let access = access_file::change(&self.config, &config, &self.daemon.folder)?;
        let (ids, kept, bound) = self.listeners(&config)?;
        let access = access_file::changed(access, &config, &self.daemon.access, &self.daemon.stdout)?;
        for warning in warnings {
            log::warn!("{warning}");
        }
        self.warn_of_what_stays(&config);
        let changed = self.daemon.server.try_change(|before| {
            acme.serve_stored(tls.clone()).map(|stored| stored.with_challenges_of(before))
        });
        if let Err(e) = changed {
            self.daemon.access.discard(access);
            return Err(e);
        }
        self.daemon.access.replace(access);
        logger::set_format(config.access_log.format);
        self.daemon.client.replace(backend_tls);
        let changes = config::difference(&self.config, &config);
        let config = Arc::new(config);
        for l in &bound {
            log::info!("listening on {} ({}), workers: {}", l.address, l.kind.name(), self.daemon.workers);
        }
        self.ids = ids;
        self.open.retain(|l| kept.contains(&l.id));
        self.open.extend(bound.iter().map(Open::of));
        // What is the same for all workers is done here, so that none of their turns is long.
        let prepared = self.daemon.shared.prepare(&config);
        self.daemon.reloader.reload(&config, &kept, bound);
        drop(prepared);
        self.daemon.metrics.reloaded(config.clone());
        self.config = config;
        self.obtain(acme);
        match &changes[..] {
            [] => log::info!("reloaded {name}: it says the same; files that it names were read again"),
            changes => log::info!("reloaded {name}: {}", changes.join("; ")),
        }
        Ok(())
    }

    /// The ids of a configuration's listeners, those that are open already, and the others, bound.
    fn listeners(
        &self,
        config: &Config,
    ) -> Result<(ListenerIds, Vec<ListenerId>, Vec<BoundListener>), String> {
        let mut ids = self.ids.clone();
        let places = ids.adopt(&config.listeners);
        // One that is to take IPv4 too, or no longer, is another one, though its id is the same.
        let is_open = |place: usize| {
            let unspecified = config.listeners[place].address.ip().is_unspecified();
            let dual = takes_both(&config.listeners[place], &config.listeners);
            let same = |open: &&Open| open.id == places[place] && (!unspecified || open.dual == dual);
            self.open.iter().any(|open| same(&open))
        };
        let held: Vec<SocketAddr> = self.open.iter().map(|open| open.address).collect();
        let wanted = |place: usize| !is_open(place);
        let (mut bound, left_out) =
            bind_others(&config.listeners, &held, self.daemon.workers, &wanted).map_err(|e| e.to_string())?;
        for e in left_out {
            log::warn!("{e}; going on without that page");
        }
        for listener in &mut bound {
            listener.id = places[usize::from(listener.id.0)];
        }
        let kept = (0..places.len()).filter(|place| is_open(*place)).map(|place| places[place]);
        Ok((ids, kept.collect(), bound))
    }

    /// What only another process can do otherwise.
    fn warn_of_what_stays(&self, config: &Config) {
        let old = &*self.started;
        for (key, changed) in [
            ("workers", old.workers != config.workers),
            ("driver", old.driver != config.driver && self.daemon.driver != config.driver),
            ("user", old.user != config.user),
            ("group", old.group != config.group),
        ] {
            if changed {
                // Root's rights may be gone.
                let needs = if matches!(key, "user" | "group") { "a restart" } else { "an upgrade (USR2)" };
                log::warn!("`{key}` differs from what it was at the start: that needs {needs}");
            }
        }
    }

    /// Certificates are obtained by the newest configuration. Orders under way go on if they are still
    /// wanted.
    fn obtain(&self, acme: acme::Acme) {
        let mut running = self.daemon.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().map_or(acme.is_empty(), |running| running.obtains(&acme)) {
            return;
        }
        if let Some(running) = running.take() {
            running.stop(CERTIFICATES_TIMEOUT);
        }
        if acme.is_empty() {
            return;
        }
        match acme.start(self.daemon.shared.clone(), &self.daemon.server, &self.daemon.stop) {
            Ok(started) => *running = Some(started),
            Err(e) => log::error!("cannot start the thread that obtains certificates: {e}"),
        }
    }
}
