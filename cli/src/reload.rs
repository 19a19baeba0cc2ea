//! Another configuration for a daemon that runs, as HUP asks for. It is read and everything that it needs is
//! made before anything changes: one that cannot be used changes nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use ruststrom_core::config::{self, Driver};
use ruststrom_core::route::ListenerIds;
use ruststrom_core::{Config, ListenerId, Shared};
use ruststrom_driver::acme;
use ruststrom_driver::listen::{BoundListener, bind_others, takes_both};
use ruststrom_driver::stop::{Stage, Stop};
use ruststrom_driver::tls::shared_client::SharedClient;
use ruststrom_driver::tls::shared_server::SharedServer;
use ruststrom_driver::workers::Reloader;

use crate::load::{self, Loaded, Previous};
use crate::privileges::Identity;

/// The longest wait for the thread that obtains certificates.
const CERTIFICATES_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks for a reload; one that waits already is enough.
pub(crate) type Ask = SyncSender<()>;

/// Where requests for reloads go, and where they come from.
pub(crate) fn requests() -> (Ask, Receiver<()>) {
    mpsc::sync_channel(1)
}

/// The thread that obtains certificates, while there is one.
pub(crate) type Certificates = Arc<Mutex<Option<acme::control::Running>>>;

/// A listener that is open.
struct Open {
    id: ListenerId,
    /// With the port that was chosen for port 0.
    address: SocketAddr,
    /// [`BoundListener::dual`].
    dual: bool,
}

/// What a reload changes, and what it needs for that.
pub(crate) struct Reload {
    file: PathBuf,
    folder: PathBuf,
    /// As the process has them, whatever its configuration says.
    workers: u16,
    driver: Driver,
    config: Arc<Config>,
    ids: ListenerIds,
    open: Vec<Open>,
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    server: SharedServer,
    client: SharedClient,
    certificates: Certificates,
    reloader: Reloader,
}

/// What [`Reload`] is made from: the daemon as it has started.
pub(crate) struct Running<'r> {
    pub(crate) file: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) workers: u16,
    pub(crate) driver: Driver,
    pub(crate) config: Arc<Config>,
    /// Those that are open.
    pub(crate) listeners: &'r [(ListenerId, SocketAddr, bool)],
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) server: SharedServer,
    pub(crate) client: SharedClient,
    pub(crate) certificates: Certificates,
    pub(crate) reloader: Reloader,
}

impl Reload {
    pub(crate) fn new(running: Running<'_>) -> Self {
        let Running {
            file,
            folder,
            workers,
            driver,
            config,
            listeners,
            shared,
            stop,
            server,
            client,
            certificates,
            reloader,
        } = running;
        Self {
            file,
            folder,
            workers,
            driver,
            ids: ListenerIds::new(&config.listeners),
            open: listeners.iter().map(|&(id, address, dual)| Open { id, address, dual }).collect(),
            config,
            shared,
            stop,
            server,
            client,
            certificates,
            reloader,
        }
    }

    /// Reloads whenever it is asked to, on a thread of its own.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn listen(mut self, requests: Receiver<()>) -> io::Result<()> {
        let run = move || {
            while requests.recv().is_ok() {
                if self.stop.stage() != Stage::Run {
                    log::warn!("not reloaded: stopping already");
                    continue;
                }
                if let Err(why) = self.reload() {
                    log::error!("not reloaded, what was served is served on: {why}");
                }
            }
        };
        thread::Builder::new().name("reload".into()).spawn(run)?;
        Ok(())
    }

    fn reload(&mut self) -> Result<(), String> {
        let name = self.file.display().to_string();
        let text = load::read(&self.file)?;
        let (tls, backend_tls) = (self.server.get(), self.client.get());
        let previous = Previous { tls: &tls, backend_tls: &backend_tls };
        let Loaded { config, tls, mut acme, backend_tls, identity, warnings } =
            load::load(&name, &text, &self.folder, Some(previous))?;
        acme.make_folders(identity.as_ref().map(Identity::owner))?;
        let (ids, kept, bound) = self.listeners(&config)?;
        for warning in warnings {
            log::warn!("{warning}");
        }
        self.warn_of_what_stays(&config);
        self.server.try_change(|before| {
            acme.serve_stored(tls.clone()).map(|stored| stored.with_challenges_of(before))
        })?;
        self.client.replace(backend_tls);
        let changes = config::difference(&self.config, &config);
        let config = Arc::new(config);
        let closed = self.open.len() - kept.len();
        let opened: Vec<Open> =
            bound.iter().map(|l| Open { id: l.id, address: l.address, dual: l.dual }).collect();
        if bound.is_empty() && closed == 0 {
            self.reloader.reload(&config);
        } else {
            for l in &bound {
                log::info!("listening on {} ({}), workers: {}", l.address, l.kind.name(), self.workers);
            }
            self.reloader.reload_listeners(&config, &kept, bound);
        }
        self.ids = ids;
        self.open.retain(|l| kept.contains(&l.id));
        self.open.extend(opened);
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
            bind_others(&config.listeners, &held, self.workers, &wanted).map_err(|e| e.to_string())?;
        for e in left_out {
            log::warn!("{e}; going on without that page");
        }
        for listener in &mut bound {
            listener.id = places[usize::from(listener.id.0)];
        }
        let kept = (0..places.len()).filter(|place| is_open(*place)).map(|place| places[place]);
        Ok((ids, kept.collect(), bound))
    }

    /// What only another process can change.
    fn warn_of_what_stays(&self, config: &Config) {
        let old = &*self.config;
        for (key, changed) in [
            ("workers", old.workers != config.workers),
            ("driver", old.driver != config.driver && self.driver != config.driver),
            ("user", old.user != config.user),
            ("group", old.group != config.group),
            ("access_log", old.access_log != config.access_log),
        ] {
            if changed {
                log::warn!("`{key}` has changed: that needs a restart, until then it stays as it was");
            }
        }
    }

    /// Certificates are obtained by the newest configuration. Orders under way go on if they are still
    /// wanted.
    fn obtain(&self, acme: acme::Acme) {
        let mut running = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().map_or(acme.is_empty(), |running| running.obtains(&acme)) {
            return;
        }
        if let Some(running) = running.take() {
            running.stop(CERTIFICATES_TIMEOUT);
        }
        if acme.is_empty() {
            return;
        }
        match acme.start(self.shared.clone(), &self.server, &self.stop) {
            Ok(started) => *running = Some(started),
            Err(e) => log::error!("cannot start the thread that obtains certificates: {e}"),
        }
    }
}
