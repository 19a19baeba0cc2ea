//! One certificate: does what its manager in the core says, one action after the other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::UnixSecs;
use ruststrom_core::acme::{Action, Manager, Outcome, Problem, ProblemKind, STEP_SECS, Settings, Stored};
use ruststrom_core::config::ExternalAccount;
use ruststrom_core::observe::Level;
use smol::channel::Receiver;
use smol::future::FutureExt;

use super::ca::Ca;
use super::ca_http::CaHttp;
use super::certificate_file::CertificateFile;
use super::challenges::Board;
use super::folder::Folder;
use super::keeper::Keeper;
use super::trust::Trust;
use crate::clock;
use crate::tls::shared_server::SharedServer;

/// The wall clock is looked at again after so long at the latest: it may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What may have happened to a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// Nobody has its lease any more.
    LeaseFree,
    /// It has another certificate.
    Changed,
}

/// A certificate that is to be had.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    /// Its place in the configuration.
    pub(super) place: u16,
    pub(super) settings: Settings,
    pub(super) folder: Folder,
    pub(super) eab: Option<ExternalAccount>,
    pub(super) trust: Trust,
}

impl Wanted {
    /// Its keeper, which shows answers to challenges on `board`.
    pub(super) fn keeper(&self, board: Option<Arc<Board>>) -> Keeper {
        Keeper::new(self.folder.clone(), &self.settings.primary, board)
    }

    /// The external account that is used.
    pub(super) fn kid(&self) -> Option<&str> {
        self.eab.as_ref().map(|eab| &*eab.kid)
    }
}

/// A certificate and what is under way to have it.
pub(super) struct Runner {
    wanted: Wanted,
    pub(super) manager: Manager,
    keeper: Keeper,
    /// While the lease is held: authorities and addresses are looked up anew for each order.
    ca: Option<Ca>,
    server: SharedServer,
    /// What was read or downloaded last.
    latest: Option<CertificateFile>,
}

impl Runner {
    /// For a certificate whose folder has `stored`, which is served already.
    pub(super) fn new(wanted: Wanted, stored: Stored, board: Arc<Board>, server: SharedServer) -> Self {
        let manager = Manager::new(wanted.settings.clone(), stored, now(), clock::entropy());
        let keeper = wanted.keeper(Some(board));
        Self { wanted, manager, keeper, ca: None, server, latest: None }
    }

    /// Does what there is to do, for as long as this is polled.
    pub(super) async fn run(mut self, wakes: Receiver<Wake>) {
        loop {
            let until = self.until_wait().await;
            self.wait(until, &wakes).await;
        }
    }

    /// Does what there is to do now; when there will be more.
    pub(super) async fn until_wait(&mut self) -> UnixSecs {
        loop {
            let action = self.manager.poll(now());
            for note in self.manager.notes() {
                log::log!(target: "acme", level(note.level), "{}", note.text);
            }
            if let Action::Wait(until) = action {
                return until;
            }
            log::debug!(target: "acme", "{}: {action:?}", self.wanted.settings.primary);
            let acting = AssertUnwindSafe(self.act(&action)).catch_unwind().await;
            let outcome = acting.unwrap_or_else(|_| {
                Outcome::Failed(Problem::new(ProblemKind::BadAnswer, "this program has a bug: it panicked"))
            });
            if let Outcome::Failed(problem) = &outcome {
                log::debug!(target: "acme", "{}: {problem:?}", self.wanted.settings.primary);
            }
            self.manager.handle(now(), outcome);
        }
    }

    /// Waits until then, or until something happens to the folder.
    pub(super) async fn wait(&mut self, until: UnixSecs, wakes: &Receiver<Wake>) {
        let wall = clock::wall();
        let wait = until.saturating_mul(1000).saturating_sub(wall.unix_secs * 1000 + u64::from(wall.millis));
        let wait = Duration::from_millis(wait).min(LONGEST_SLEEP);
        let slept = async {
            smol::Timer::after(wait).await;
            None
        };
        match slept.or(async { wakes.recv().await.ok() }).await {
            Some(Wake::LeaseFree) => self.manager.lease_released(),
            Some(Wake::Changed) => self.manager.folder_changed(),
            None => {}
        }
    }

    async fn act(&mut self, action: &Action) -> Outcome {
        let done = |done: Result<(), Problem>| done.map_or_else(Outcome::Failed, |()| Outcome::Done);
        match action {
            // It is never acted on.
            Action::Wait(_) => Outcome::Done,
            Action::Look => self.stored().map_or_else(Outcome::Failed, Outcome::Stored),
            Action::TakeLease => match self.keeper.take_lease(now()) {
                Ok(None) => Outcome::LeaseHeld,
                Ok(Some(until)) => match self.stored() {
                    Ok(stored) => Outcome::Leased { until, stored },
                    Err(problem) => {
                        // The core does not know that it has it.
                        let released = self.keeper.release_lease();
                        Outcome::Failed(released.err().unwrap_or(problem))
                    }
                },
                Err(problem) => Outcome::Failed(problem),
            },
            Action::RenewLease => match self.keeper.renew_lease(now()) {
                Ok(until) => Outcome::Renewed { until },
                Err(problem) => Outcome::Failed(problem),
            },
            Action::Save => done(self.keeper.save(self.manager.ledger())),
            Action::Step(step) => {
                let wanted = &self.wanted;
                let new = || Ca::new(CaHttp::new(&wanted.trust.roots()), wanted.eab.clone());
                let ca = self.ca.get_or_insert_with(new);
                let timeout = async {
                    smol::Timer::after(Duration::from_secs(STEP_SECS)).await;
                    let text = format!("it took more than {STEP_SECS} seconds");
                    Outcome::Failed(Problem::new(ProblemKind::Unreachable, text))
                };
                let outcome = ca.step(step, &wanted.settings, &mut self.keeper).or(timeout).await;
                if let Outcome::Certificate { key_fits: true, .. } = outcome {
                    self.latest = ca.downloaded.clone();
                }
                outcome
            }
            Action::Store => match &self.latest {
                Some(file) => done(self.keeper.store(file)),
                None => Outcome::Failed(Problem::new(ProblemKind::BadAnswer, "there is no certificate")),
            },
            Action::Serve => {
                let Some(file) = &self.latest else {
                    return Outcome::Failed(Problem::new(ProblemKind::BadAnswer, "there is no certificate"));
                };
                self.server.change(|server| server.with_certificate(self.wanted.place, file.key.clone()));
                let names = file.known.names.join(", ");
                log::info!(target: "acme", "{names}: new connections get the certificate from now on");
                Outcome::Done
            }
            Action::ReleaseLease => {
                self.ca = None;
                done(self.keeper.release_lease())
            }
        }
    }

    fn stored(&mut self) -> Result<Stored, Problem> {
        let found = self.keeper.stored(&self.wanted.settings, self.wanted.kid())?;
        self.latest = found.file;
        Ok(found.stored)
    }
}

fn now() -> UnixSecs {
    clock::wall().unix_secs
}

fn level(level: Level) -> log::Level {
    match level {
        Level::Error => log::Level::Error,
        Level::Warning => log::Level::Warn,
        Level::Info => log::Level::Info,
        Level::Debug => log::Level::Debug,
    }
}
