//! A configuration with a certificate of ACME, and what a client sees of it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::client::WAIT;
use crate::daemon::{Daemon, TempDir};
use crate::pebble::Pebble;

/// Where a daemon listens, what its folder is, and what it wants of its CA.
pub(crate) struct Site {
    pub(crate) http: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
    /// Keys of `ACME` that lead to the CA.
    pub(crate) ca: String,
    /// More keys of `ACME`.
    pub(crate) more: String,
    pub(crate) folder: TempDir,
    /// Further keys of the configuration.
    pub(crate) top: &'static str,
}

impl Site {
    /// `a.example`, on the addresses that the CA asks.
    pub(crate) fn of(pebble: &Pebble) -> Self {
        Self {
            http: Some(pebble.http),
            https: Some(pebble.https),
            ca: pebble.keys(),
            more: String::new(),
            folder: TempDir::new("acme"),
            top: "",
        }
    }

    pub(crate) fn config(&self) -> String {
        let listen = |key: &str, at: Option<SocketAddr>| match at {
            Some(at) => format!("{key} = \"{at}\"\n"),
            None => String::new(),
        };
        format!(
            "{}{}{}metrics_address = false\nhealth_interval = {{ check_every = 0 }}\n\
             [certificates.\"a.example\"]\n\
             ACME = {{ email = \"admin@a.example\", persist_dir = \"{}\", {}{} }}\n\
             [[backend_pools]]\naddresses = [\"127.0.0.1:9\"]\n",
            self.top,
            listen("http_address", self.http),
            listen("https_address", self.https),
            self.folder.0.join("acme").display(),
            self.ca,
            self.more,
        )
    }

    /// A daemon that serves.
    pub(crate) fn start(&self) -> Daemon {
        let daemon = Daemon::start(&self.config(), &[]);
        daemon.wait_for("INFO  ready");
        daemon
    }

    /// Runs `rust-strom --config F` with more arguments.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let file = self.folder.write("config.toml", self.config());
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
        command.args(arguments).arg("--config").arg(file).env_remove("RUST_LOG");
        command.output().expect("it starts")
    }

    /// A file of the folder.
    pub(crate) fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.0.join("acme").join(name)).ok()
    }

    /// The names of the folder's files; they and the folder are their owner's alone.
    pub(crate) fn files(&self) -> Vec<String> {
        let folder = self.folder.0.join("acme");
        let mode = |path: &std::path::Path| Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o7777);
        assert_eq!(mode(&folder), Some(0o700));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            // A file may be renamed or removed meanwhile.
            let Some(mode) = mode(&entry.path()) else { continue };
            assert_eq!(mode, 0o600, "{entry:?}");
            names.push(entry.file_name().into_string().expect("UTF-8"));
        }
        names.sort();
        names
    }

    /// The folder after an order: account, certificate, ledger, lock, and nothing else.
    pub(crate) fn assert_nothing_is_left_over(&self) {
        let begun = Instant::now();
        loop {
            let names = self.files();
            if let [certificate, account, ledger, lock] = &*names
                && account.starts_with("account-127.")
                && account.ends_with("-admin@a.example.json")
                && (&**certificate, &**ledger, &**lock) == ("a.example.pem", "ledger.json", "lock")
            {
                return;
            }
            assert!(begun.elapsed() < WAIT, "{names:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What a client that takes any certificate is shown for a name: subject, issuer, serial number and names, as
/// openssl prints them.
pub(crate) fn shown(https: SocketAddr, name: &str) -> String {
    let script = format!(
        "openssl s_client -connect {https} -servername {name} < /dev/null 2> /dev/null |
         openssl x509 -noout -issuer -serial -ext subjectAltName"
    );
    let out = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Waits until a client is shown something else.
pub(crate) fn wait_for_another(https: SocketAddr, name: &str, before: &str, daemon: &Daemon) -> String {
    let begun = Instant::now();
    loop {
        let now = shown(https, name);
        if now != before && !now.is_empty() {
            return now;
        }
        assert!(begun.elapsed() < WAIT, "still {before}: {}", daemon.output());
        std::thread::sleep(Duration::from_millis(100));
    }
}
