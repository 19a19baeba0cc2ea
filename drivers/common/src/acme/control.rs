//! All certificates of a configuration that are obtained by themselves.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ruststrom_core::acme::{Settings, Stored};
use ruststrom_core::config::{CertificateSource, Severity};
use ruststrom_core::{Config, Shared, UnixSecs};
use smol::channel::{Receiver, Sender};

use super::certificate_file;
use super::challenges::{self, Answer, Board};
use super::folder::{Folder, Version};
use super::lease;
use super::runner::{Runner, Wake, Wanted};
use super::self_signed::self_signed;
use super::trust::Trust;
use crate::clock;
use crate::stop::Stop;
use crate::tls::problem::{Part, Problem};
use crate::tls::roots;
use crate::tls::server::ServerTls;
use crate::tls::shared_server::SharedServer;

/// A folder is looked at so often for what other processes have put there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Certificates that are obtained by themselves.
pub struct Acme {
    pub(super) wanted: Vec<Wanted>,
    /// For each of them what its folder has, once [`Acme::serve_stored`] has looked.
    stored: Vec<Stored>,
}

/// What a configuration has of them.
pub struct Loaded {
    /// `None` if there is an error among the problems.
    pub acme: Option<Acme>,
    /// What is wrong with the files that it names.
    pub problems: Vec<Problem>,
}

impl Acme {
    /// Those of a configuration; relative paths start at `folder`. Files of authorities are read here, while
    /// the process may still have the rights of root; folders are not looked at.
    #[must_use]
    pub fn load(config: &Config, folder: &Path) -> Loaded {
        let now = i64::try_from(clock::wall().unix_secs).unwrap_or(i64::MAX);
        let (mut wanted, mut problems) = (Vec::new(), Vec::new());
        for (place, certificate) in (0..=u16::MAX).zip(&config.certificates) {
            let CertificateSource::Acme(acme) = &certificate.source else { continue };
            let Some(settings) = Settings::of(certificate, config) else { continue };
            let mut flaws = Vec::new();
            let trust = match acme.ca_file.as_deref() {
                None => Some(Trust::System),
                Some(file) => {
                    let roots = roots::of_file(&folder.join(file), now, &mut flaws);
                    roots.map(|roots| Trust::File(roots.named))
                }
            };
            problems
                .extend(flaws.into_iter().map(|flaw| Problem { part: Part::AcmeCaFile, ..flaw.of(place) }));
            wanted.extend(trust.map(|trust| Wanted {
                place,
                settings,
                folder: Folder::at(folder.join(&*acme.persist_dir)),
                eab: acme.eab.clone(),
                trust,
            }));
        }
        let failed = problems.iter().any(|p| p.severity == Severity::Error);
        Loaded { acme: (!failed).then(|| Self { wanted, stored: Vec::new() }), problems }
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether there is one of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.wanted.iter().any(|wanted| *wanted.settings.primary == *name)
    }

    /// Makes the folders that are not there yet. With the rights of root they can be made for another user
    /// and group, `owner`, whom the process becomes afterwards.
    ///
    /// # Errors
    /// A message, if one cannot be made.
    pub fn make_folders(&self, owner: Option<(u32, u32)>) -> Result<(), String> {
        for folder in self.folders() {
            let path = folder.path().display();
            folder.make(owner).map_err(|e| {
                format!("cannot make the folder {path} for certificates: {e}; choose another persist_dir")
            })?;
        }
        Ok(())
    }

    /// Each folder once.
    fn folders(&self) -> Vec<&Folder> {
        let mut folders: Vec<&Folder> = Vec::new();
        for wanted in &self.wanted {
            if !folders.contains(&&wanted.folder) {
                folders.push(&wanted.folder);
            }
        }
        folders
    }

    /// The same certificates, with those that the folders have, and others that sign themselves in the place
    /// of those that have not come yet. Never waits for an authority.
    ///
    /// # Errors
    /// A message, if one that signs itself cannot be made.
    pub fn serve_stored(&mut self, mut server: ServerTls) -> Result<ServerTls, String> {
        for folder in self.folders().into_iter().filter(|folder| folder.is_open_to_others()) {
            let path = folder.path().display();
            log::warn!(target: "acme", "others can put files into {path}: chmod 700 {path}");
        }
        self.stored.clear();
        for wanted in &self.wanted {
            let names = wanted.settings.names.join(", ");
            let found = wanted.keeper(None).stored(&wanted.settings, wanted.kid());
            let (stored, file) = match found {
                Ok(found) => (found.stored, found.file),
                Err(problem) => {
                    let user = "let the user that this program runs as read and write it";
                    log::error!(target: "acme", "{names}: {}; {user}", problem.text);
                    (Stored::default(), None)
                }
            };
            let key = match file {
                Some(file) => file.key,
                None => {
                    let made = self_signed(&wanted.settings.names);
                    let key = made.map_err(|e| format!("no certificate can be made for {names}: {e}"))?;
                    log::warn!(
                        target: "acme",
                        "{names}: there is no certificate yet; until one has come clients get one that signs \
                         itself, which they refuse or warn of"
                    );
                    key
                }
            };
            server = server.with_certificate(wanted.place, key);
            self.stored.push(stored);
        }
        Ok(server)
    }

    /// Starts the thread that obtains and renews them. `server` has what [`Acme::serve_stored`] made; new
    /// certificates are put there. The thread ends when `stop` advances.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(self, shared: Arc<Shared>, server: &SharedServer, stop: &Stop) -> io::Result<Running> {
        let (stopper, stopped) = smol::channel::bounded(1);
        let (ending, ended) = mpsc::channel();
        let board = Arc::new(Board::new(shared, server.clone()));
        let server = server.clone();
        let wanted = self.wanted.clone();
        let run = move || {
            self.run(&board, &server, &stopped);
            drop(ending);
        };
        let thread = std::thread::Builder::new().name("acme".into()).spawn(run)?;
        let stopping = stopper.clone();
        stop.on_advance(Box::new(move || {
            // If it is full, it stops already.
            let _ = stopping.try_send(());
        }));
        Ok(Running { wanted, stopper, ended: Mutex::new(ended), thread })
    }

    fn run(self, board: &Arc<Board>, server: &SharedServer, stopped: &Receiver<()>) {
        let executor = smol::LocalExecutor::new();
        let mut watches: Vec<Watch> = Vec::new();
        for (n, wanted) in self.wanted.into_iter().enumerate() {
            let stored = self.stored.get(n).cloned().unwrap_or_default();
            let (wake, wakes) = smol::channel::bounded(8);
            let file = certificate_file::file_name(&wanted.settings.primary);
            let watched = watches.iter_mut().find(|watch| watch.folder == wanted.folder);
            match watched {
                Some(watch) => watch.certificates.push((file, wake)),
                None => watches.push(Watch::new(&wanted.folder, (file, wake), board)),
            }
            executor.spawn(Runner::new(wanted, stored, board.clone(), server.clone()).run(wakes)).detach();
        }
        for watch in watches {
            executor.spawn(watch.run()).detach();
        }
        smol::block_on(executor.run(async {
            // An error means that nobody can stop it any more, which is a stop too.
            let _ = stopped.recv().await;
        }));
        // With the tasks go their leases.
    }
}

/// The thread of [`Acme::start`].
pub struct Running {
    wanted: Vec<Wanted>,
    stopper: Sender<()>,
    ended: Mutex<mpsc::Receiver<()>>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Whether it obtains just these.
    #[must_use]
    pub fn obtains(&self, acme: &Acme) -> bool {
        self.wanted == acme.wanted
    }

    /// Stops it. What is under way is given up, and can be gone on with. A request that is being waited for
    /// may go on, unheard, until the process ends; if the thread does not end within `timeout` it is left
    /// alone.
    pub fn stop(self, timeout: Duration) {
        let _ = self.stopper.try_send(());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(timeout);
        if ended == Err(mpsc::RecvTimeoutError::Disconnected) && self.thread.join().is_err() {
            log::error!(target: "acme", "the thread that obtains certificates has panicked");
        }
    }
}

/// Looks at a folder for what other processes put there: answers to challenges, certificates, and the end of
/// a lease.
pub(super) struct Watch {
    folder: Folder,
    /// The file of each certificate, and who wants to know of it.
    certificates: Vec<(String, Sender<Wake>)>,
    board: Arc<Board>,
}

impl Watch {
    fn new(folder: &Folder, certificate: (String, Sender<Wake>), board: &Arc<Board>) -> Self {
        Self { folder: folder.clone(), certificates: vec![certificate], board: board.clone() }
    }

    async fn run(self) {
        let version = |file: &str| self.folder.version(file);
        let mut files: Vec<Option<Version>> =
            self.certificates.iter().map(|(file, _)| version(file)).collect();
        let (mut leased, mut answers) = (version(lease::FILE).is_some(), None);
        let mut shown: Vec<Answer> = Vec::new();
        loop {
            let now: UnixSecs = clock::wall().unix_secs;
            let found = version(challenges::FILE);
            if found != answers || !shown.is_empty() {
                answers = found;
                shown = challenges::read(&self.folder, now);
                if let Err(e) = self.board.show(&self.folder, shown.clone()) {
                    log::error!(target: "acme", "{e}");
                }
            }
            for ((file, wake), before) in self.certificates.iter().zip(&mut files) {
                let found = version(file);
                if found != *before {
                    *before = found;
                    // Who has not heard the last ones will look anyway.
                    let _ = wake.try_send(Wake::Changed);
                }
            }
            let was_leased = std::mem::replace(&mut leased, version(lease::FILE).is_some());
            if was_leased && !leased {
                for (_, wake) in &self.certificates {
                    let _ = wake.try_send(Wake::LeaseFree);
                }
            }
            smol::Timer::after(LOOK_EVERY).await;
        }
    }
}
