//! The folder as one manager uses it: it reads whenever it likes, and writes while it has the lease.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

use ruststrom_core::UnixSecs;
use ruststrom_core::acme::{Kept, Ledger, Problem, ProblemKind, Settings, Stored};
use serde::{Deserialize, Serialize};

use super::account_file::{self, AccountFile};
use super::certificate_file::{self, CertificateFile};
use super::challenges::{self, Answer, Board};
use super::folder::{Folder, Locked, name_of};
use super::lease::Lease;

const LEDGER: &str = "ledger.json";
/// Answers to challenges are shown for so many seconds if nobody takes them away: longer than any order is
/// under way.
const SHOWN_SECS: u64 = 600;

type Done<T> = Result<T, Problem>;

/// The key of an order, as its file has it.
#[derive(Serialize, Deserialize)]
struct OrderKey {
    /// The order's URL.
    order: String,
    /// In PKCS#8, as PEM.
    key: String,
}

/// What a folder has for one certificate.
pub(super) struct Found {
    pub(super) stored: Stored,
    /// The certificate, if it is whole.
    pub(super) file: Option<CertificateFile>,
}

/// The folder as one manager uses it.
pub(super) struct Keeper {
    folder: Folder,
    certificate: Box<str>,
    lease: Lease,
    /// The lease may be ours.
    leased: bool,
    board: Option<Arc<Board>>,
}

impl Keeper {
    /// For the certificate of this table. Answers to challenges are shown on `board` too.
    pub(super) fn new(folder: Folder, certificate: &str, board: Option<Arc<Board>>) -> Self {
        Self { folder, certificate: certificate.into(), lease: Lease::new(certificate), leased: false, board }
    }

    /// The content of a file; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read(&self, name: &str) -> Done<Option<Vec<u8>>> {
        self.folder.read(name).map_err(|e| self.disk(Some(name), "read", &e))
    }

    /// Writes a file.
    ///
    /// # Errors
    /// If it cannot be written, or another one has the lease.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Done<()> {
        self.with_lease(|locked| locked.write(name, bytes).map_err(|e| self.disk(Some(name), "write", &e)))
    }

    fn with_lease<T>(&self, change: impl FnOnce(&Locked<'_>) -> Done<T>) -> Done<T> {
        let locked = self.lock()?;
        match self.lease.is_ours(&self.folder) {
            Ok(true) => change(&locked),
            Ok(false) => Err(Problem::new(ProblemKind::LeaseLost, "another instance has the lease")),
            Err(e) => Err(self.disk(None, "read the lease in", &e)),
        }
    }

    fn lock(&self) -> Done<Locked<'_>> {
        self.folder.lock().map_err(|e| self.disk(None, "write to", &e))
    }

    /// A problem with a file, or with the folder itself.
    fn disk(&self, name: Option<&str>, what: &str, error: &dyn Display) -> Problem {
        let path = name.map_or_else(|| self.folder.path().to_owned(), |name| self.folder.path().join(name));
        Problem::new(ProblemKind::Disk, format!("cannot {what} {}: {error}", path.display()))
    }

    /// Takes the lease; until when. `None`: another one has it.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(super) fn take_lease(&mut self, now: UnixSecs) -> Done<Option<UnixSecs>> {
        let locked = self.folder.lock().map_err(|e| self.disk(None, "write to", &e))?;
        let taken = self.lease.take(&locked, now);
        // What a dead process has left to be shown goes.
        let cleared = taken.and_then(|taken| match taken {
            Ok(until) => locked.remove(challenges::FILE).map(|()| Some(until)),
            Err(_) => Ok(None),
        });
        drop(locked);
        let until = cleared.map_err(|e| self.disk(None, "write to", &e))?;
        self.leased |= until.is_some();
        Ok(until)
    }

    /// Lengthens the lease; until when.
    ///
    /// # Errors
    /// If another one has it, or the folder cannot be written.
    pub(super) fn renew_lease(&mut self, now: UnixSecs) -> Done<UnixSecs> {
        let locked = self.folder.lock().map_err(|e| self.disk(None, "write to", &e))?;
        let renewed = self.lease.renew(&locked, now);
        drop(locked);
        let until = renewed.map_err(|e| self.disk(None, "write to", &e))?;
        until.map_err(|_| Problem::new(ProblemKind::LeaseLost, "another instance has the lease"))
    }

    /// Takes down the answers to challenges and gives the lease back; nothing happens without it.
    ///
    /// # Errors
    /// If the folder cannot be written. The lease ends by itself then.
    pub(super) fn release_lease(&mut self) -> Done<()> {
        if !std::mem::take(&mut self.leased) {
            return Ok(());
        }
        if let Some(board) = &self.board {
            // Nothing is made for no answers.
            let _ = board.show(&self.folder, Vec::new());
        }
        let locked = self.folder.lock().map_err(|e| self.disk(None, "write to", &e))?;
        let released = match self.lease.is_ours(&self.folder) {
            Ok(true) => locked.remove(challenges::FILE).and_then(|()| self.lease.release(&locked)),
            Ok(false) => Ok(()),
            Err(e) => Err(e),
        };
        drop(locked);
        released.map_err(|e| self.disk(None, "give back the lease of", &e))
    }

    /// Answers challenges: here, and by every other process that shares the folder.
    ///
    /// # Errors
    /// If that cannot be written, or another one has the lease.
    pub(super) fn share(&self, answers: Vec<Answer>) -> Done<()> {
        let until = crate::clock::wall().unix_secs + SHOWN_SECS;
        self.with_lease(|locked| {
            let written = challenges::write(locked, &answers, until);
            written.map_err(|e| self.disk(Some(challenges::FILE), "write", &e))
        })?;
        match &self.board {
            Some(board) => {
                board.show(&self.folder, answers).map_err(|text| Problem::new(ProblemKind::BadAnswer, text))
            }
            None => Ok(()),
        }
    }

    fn order_file(&self) -> String {
        name_of(&self.certificate, ".order.json")
    }

    /// Where the key of the unfinished order is.
    pub(super) fn order_key_path(&self) -> PathBuf {
        self.folder.path().join(self.order_file())
    }

    /// The key of an order, as PEM; `None` if the folder has none for it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn order_key(&self, order: &str) -> Done<Option<String>> {
        let read = self.read(&self.order_file())?;
        let found = read.and_then(|bytes| serde_json::from_slice::<OrderKey>(&bytes).ok());
        Ok(found.filter(|found| found.order == order).map(|found| found.key))
    }

    /// Keeps the key of an order.
    ///
    /// # Errors
    /// If it cannot be written, or another one has the lease.
    pub(super) fn set_order_key(&self, order: &str, key: &str) -> Done<()> {
        let text = serde_json::to_vec_pretty(&OrderKey { order: order.to_owned(), key: key.to_owned() });
        let text = text.map_err(|e| self.disk(Some(&self.order_file()), "write", &e))?;
        self.write(&self.order_file(), &text)
    }

    /// Keeps a certificate with its key, which is that of no order any more.
    ///
    /// # Errors
    /// If it cannot be written, or another one has the lease.
    pub(super) fn store(&self, file: &CertificateFile) -> Done<()> {
        let name = certificate_file::file_name(&self.certificate);
        self.with_lease(|locked| {
            let stored = locked.write(&name, file.text.as_bytes());
            stored.map_err(|e| self.disk(Some(&name), "write", &e))?;
            // The next order overwrites it.
            let _ = locked.remove(&self.order_file());
            Ok(())
        })
    }

    /// Keeps the ledger.
    ///
    /// # Errors
    /// If it cannot be written, or another one has the lease.
    pub(super) fn save(&self, ledger: &Ledger) -> Done<()> {
        let text = serde_json::to_vec_pretty(ledger).map_err(|e| self.disk(Some(LEDGER), "write", &e))?;
        self.write(LEDGER, &text)
    }

    /// What the folder has. `kid`: the external account that is used.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn stored(&self, settings: &Settings, kid: Option<&str>) -> Done<Found> {
        let name = certificate_file::file_name(&self.certificate);
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let (certificate, file) = match self.read(&name)? {
            None => (Kept::Nothing, None),
            Some(bytes) => match CertificateFile::read(&bytes) {
                Ok(file) => (Kept::Whole(file.known.clone()), Some(file)),
                Err(e) => (Kept::Damaged(format!("{}: {e}", path(&name))), None),
            },
        };
        let ledger = match self.read(LEDGER)? {
            None => Kept::Nothing,
            Some(bytes) => match serde_json::from_slice(&bytes) {
                Ok(ledger) => Kept::Whole(ledger),
                Err(e) => Kept::Damaged(format!("{}: it is no ledger: {e}", path(LEDGER))),
            },
        };
        let account = self.read(&account_file::file_name(settings))?;
        let account = account.is_some_and(|bytes| AccountFile::read(&bytes, settings, kid).is_some());
        Ok(Found { stored: Stored { certificate, ledger, account }, file })
    }
}

impl Drop for Keeper {
    /// Others need not wait for the lease to end.
    fn drop(&mut self) {
        if let Err(problem) = self.release_lease() {
            log::warn!(target: "acme", "{}", problem.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::test_folder::TestFolder;
    use rcgen::{CertificateParams, KeyPair};
    use ruststrom_core::acme::Manager;
    use ruststrom_core::config;

    fn settings() -> Settings {
        let text = "http_address = \"127.0.0.1:80\"\n[certificates.\"a.example\"]\n\
            ACME = { email = \"a@a.example\", persist_dir = \"acme\" }\n\
            [[backend_pools]]\naddresses = [\"127.0.0.1:1\"]\n";
        let config = config::parse(text).config.expect("a good text");
        Settings::of(&config.certificates[0], &config).expect("it is one of ACME")
    }

    fn certificate() -> CertificateFile {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["a.example".to_owned()]).expect("names");
        let chain = params.self_signed(&key).expect("a certificate").pem();
        CertificateFile::new(&key.serialize_pem(), &chain).expect("they fit")
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let (test, settings) = (TestFolder::new(), settings());
        let folder = Folder::at(test.path().join("acme"));
        let mut keeper = Keeper::new(folder.clone(), "a.example", None);
        let empty = keeper.stored(&settings, None).expect("readable");
        assert_eq!(empty.stored, Stored::default());
        let now = crate::clock::wall().unix_secs;
        assert!(keeper.take_lease(now).expect("writable").is_some());
        let manager = Manager::new(settings.clone(), Stored::default(), now, 1);
        keeper.save(manager.ledger()).expect("written");
        keeper.set_order_key("https://ca/1", "key").expect("written");
        assert_eq!(keeper.order_key("https://ca/1").expect("readable").as_deref(), Some("key"));
        assert_eq!(keeper.order_key("https://ca/2").expect("readable"), None, "that of another order");
        let file = certificate();
        keeper.store(&file).expect("written");
        assert_eq!(keeper.order_key("https://ca/1").expect("readable"), None, "it is no order's any more");
        let account = AccountFile::new(&settings, None, KeyPair::generate().expect("a key").serialize_pem());
        keeper.write(&account_file::file_name(&settings), &account.text()).expect("written");
        let found = keeper.stored(&settings, None).expect("readable").stored;
        assert_eq!(found.certificate, Kept::Whole(file.known));
        assert_eq!(found.ledger, Kept::Whole(manager.ledger().clone()));
        assert!(found.account);
        assert!(!keeper.stored(&settings, Some("kid")).expect("readable").stored.account);
    }

    #[test]
    fn nothing_is_written_without_the_lease() {
        let (test, file) = (TestFolder::new(), certificate());
        let folder = Folder::at(test.path().join("acme"));
        let mut first = Keeper::new(folder.clone(), "a.example", None);
        let mut second = Keeper::new(folder.clone(), "a.example", None);
        let lost = |done: Done<()>| assert_eq!(done.expect_err("no lease").kind, ProblemKind::LeaseLost);
        lost(first.store(&file));
        let now = crate::clock::wall().unix_secs;
        assert!(first.take_lease(now).expect("writable").is_some());
        assert_eq!(second.take_lease(now).expect("writable"), None);
        lost(second.write("x", b""));
        lost(second.share(Vec::new()));
        assert_eq!(second.renew_lease(now).expect_err("not its own").kind, ProblemKind::LeaseLost);
        // A manager that is dropped gives it back, with what it has shown.
        first.share(Vec::new()).expect("written");
        assert!(folder.version(challenges::FILE).is_some());
        drop(first);
        assert!(folder.version(challenges::FILE).is_none());
        assert!(second.take_lease(now).expect("writable").is_some());
    }

    #[test]
    fn what_is_damaged_is_named() {
        let (test, settings) = (TestFolder::new(), settings());
        let keeper = Keeper::new(Folder::at(test.path().to_owned()), "a.example", None);
        std::fs::write(test.path().join("a.example.pem"), "-----BEGIN").expect("written");
        std::fs::write(test.path().join(LEDGER), "{\"certificates\":1}").expect("written");
        std::fs::write(test.path().join(account_file::file_name(&settings)), "{}").expect("written");
        let found = keeper.stored(&settings, None).expect("readable").stored;
        let Kept::Damaged(certificate) = found.certificate else { panic!("{:?}", found.certificate) };
        assert!(certificate.ends_with("a.example.pem: there is no key in it"), "{certificate}");
        let Kept::Damaged(ledger) = found.ledger else { panic!("{:?}", found.ledger) };
        assert!(ledger.contains("ledger.json: it is no ledger: "), "{ledger}");
        assert!(!found.account);
    }
}
