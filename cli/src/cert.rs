//! `cert`: what is known of the certificates of a configuration, and one of them renewed by hand. Neither
//! needs the daemon, and neither is in its way.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::acme::Failure;
use ruststrom_core::config::ListenerKind;
use ruststrom_core::http::date::civil_date;
use ruststrom_core::{Shared, UnixSecs};
use ruststrom_driver::access_log::LogObserver;
use ruststrom_driver::acme::renewal::Renewal;
use ruststrom_driver::acme::status::{self, Status};
use ruststrom_driver::listen::{BoundListener, bind_all};
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::stop::{Stage, Stop};
use ruststrom_driver::tls::session::RustlsLayer;
use ruststrom_driver::tls::shared_client::SharedClient;
use ruststrom_driver::tls::shared_server::SharedServer;
use ruststrom_driver::watch::Contents;
use ruststrom_driver::workers::Setup;
use ruststrom_driver::{clock, limits};

use crate::load::{self, Loaded};
use crate::privileges::Identity;
use crate::{daemon_log, output, privileges};

/// The longest wait for a slow log at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Characters of a last error in the table.
const MAX_ERROR: usize = 120;

/// Prints a table of all certificates.
///
/// # Errors
/// A message, if the configuration cannot be used.
pub(crate) fn status(file: &Path) -> Result<ExitCode, String> {
    let (loaded, folder) = load(file)?;
    let all = status::of_all(&loaded.config, &loaded.acme, &folder);
    output::print(&table(&all, clock::wall().unix_secs))?;
    Ok(ExitCode::SUCCESS)
}

fn load(file: &Path) -> Result<(Loaded, PathBuf), String> {
    let text = load::read(file)?;
    let folder = file.parent().map(PathBuf::from).unwrap_or_default();
    let loaded = load::load(&file.display().to_string(), &text, &folder, None, &mut Contents::default())?;
    Ok((loaded, folder))
}

/// One line for each certificate, under a head.
fn table(all: &[Status], now: UnixSecs) -> String {
    let head = ["NAMES", "SOURCE", "ISSUER", "EXPIRES", "NEXT RENEWAL", "LAST ERROR"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(all.iter().map(|s| row(s, now))).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', 2 + width - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(status: &Status, now: UnixSecs) -> [String; 6] {
    let none = || "-".to_owned();
    let source = match status.directory.as_deref() {
        None => "files".to_owned(),
        Some(url) => {
            let host = url.split_once("://").map_or(url, |(_, rest)| rest);
            format!("ACME {}", host.split('/').next().unwrap_or(host))
        }
    };
    let certificate = status.certificate.as_ref();
    let expires = certificate.map(|c| match c.not_after <= now {
        true => format!("{} (expired)", date(c.not_after)),
        false => date(c.not_after),
    });
    let renews = status.renews_at.map(|at| if at <= now { "now".to_owned() } else { date(at) });
    let failure = status.failure.as_ref().map(error);
    let wrong: Vec<String> = status.problem.clone().into_iter().chain(failure).collect();
    [
        status.names.join(", "),
        source,
        certificate.map_or_else(none, |c| c.issuer.to_string()),
        expires.unwrap_or_else(none),
        renews.unwrap_or_else(none),
        if wrong.is_empty() { none() } else { wrong.join("; ") },
    ]
}

/// A failed order, in short.
fn error(failure: &Failure) -> String {
    let text: String = failure.text.chars().take(MAX_ERROR).collect();
    let rest = if text.len() < failure.text.len() { "…" } else { "" };
    format!("{} {}: {text}{rest}", date(failure.at), failure.step)
}

/// `2026-11-26`
fn date(at: UnixSecs) -> String {
    let (year, month, day) = civil_date(at / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-11-26 17:05 UTC`
fn time(at: UnixSecs) -> String {
    format!("{} {:02}:{:02} UTC", date(at), at % 86_400 / 3600, at % 3600 / 60)
}

/// Orders the certificate of a table now. A daemon that runs answers the authority's challenges, since it
/// shares the folder; without one this process does.
///
/// # Errors
/// A message, if there is nothing to be renewed.
pub(crate) fn renew(name: &str, file: &Path) -> Result<ExitCode, String> {
    let (loaded, _) = load(file)?;
    let Loaded { mut config, mut acme, tls, identity, .. } = loaded;
    if !acme.has(name) {
        return Err(format!("there is no certificate \"{name}\" with ACME in {}", file.display()));
    }
    config.listeners.retain(|listener| listener.kind != ListenerKind::Admin);
    // Requests for anything but challenges are for the daemon.
    config.pools.clear();
    let (listeners, taken) = match bind_all(&config.listeners, 1) {
        Ok((listeners, _)) => (listeners, None),
        Err(e) if e.error.kind() == ErrorKind::AddrInUse => (Vec::new(), Some(e.address)),
        Err(e) => return Err(e.to_string()),
    };
    acme.make_folders(identity.as_ref().map(Identity::owner))?;
    if let Some(identity) = &identity {
        privileges::drop_to(identity)?;
    }
    let stdout = daemon_log::start(config.access_log.format)?;
    if let Some(address) = taken {
        log::info!("{address} is in use: the daemon there answers the authority's challenges");
    }
    let shared = Arc::new(Shared::new(&clock::hostname(), 1));
    let server = SharedServer::new(acme.serve_stored(tls)?);
    let challenges = (!listeners.is_empty()).then(|| Challenges::start(config, listeners, &shared, &server));
    let challenges = challenges.transpose()?;
    let renewal = acme.renew(name, shared, &server);
    if let Some(challenges) = challenges {
        challenges.stop();
    }
    stdout.flush(FLUSH_TIMEOUT);
    match renewal {
        Some(Renewal::Renewed(until)) => {
            output::print(&format!("{name}: renewed, valid until {}\n", date(until)))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Renewal::Failed(next)) => {
            let when = if next <= clock::wall().unix_secs { "now".to_owned() } else { time(next) };
            Err(format!("{name}: not renewed; the next attempt by itself is due {when}"))
        }
        Some(Renewal::TimedOut) | None => Err(format!("{name}: not renewed; it took too long")),
    }
}

/// A server that answers challenges, and nothing else.
struct Challenges {
    stop: Arc<Stop>,
    running: ruststrom_driver::workers::Running,
}

impl Challenges {
    fn start(
        config: ruststrom_core::Config,
        listeners: Vec<BoundListener>,
        shared: &Arc<Shared>,
        server: &SharedServer,
    ) -> Result<Self, String> {
        let stop = Arc::new(Stop::default());
        let setup = Setup {
            config: Arc::new(config),
            shared: shared.clone(),
            listeners,
            seed: clock::entropy(),
            files: limits::raise_files().files(),
            stop: stop.clone(),
            lookups: Lookups::default(),
            tls: RustlsLayer::new(server.clone(), SharedClient::default()),
        };
        let observer = |worker| LogObserver::without_access_log().of_worker(worker);
        let running = ruststrom_mio::start(setup, observer);
        Ok(Self { running: running.map_err(|e| format!("cannot start the worker: {e}"))?, stop })
    }

    fn stop(self) {
        self.stop.advance(Stage::Now);
        // Whatever its connections were doing is of no interest.
        let _ = self.running.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruststrom_core::acme::{ProblemKind, StoredCertificate};

    #[test]
    fn a_table_of_certificates() {
        let certificate = |issuer: &str, not_after| StoredCertificate {
            id: "id".into(),
            ari_id: None,
            names: Vec::new(),
            issuer: issuer.into(),
            not_before: 0,
            not_after,
        };
        let failure = Failure {
            at: 1_795_600_000,
            step: "validate".into(),
            kind: ProblemKind::Validation,
            name: None,
            challenge: None,
            text: "connection: refused".into(),
            wait: 60,
        };
        let all = [
            Status {
                names: vec!["a.example".into(), "b.example".into()],
                directory: Some("https://ca.example/dir".into()),
                certificate: Some(certificate("An Authority", 1_800_000_000)),
                renews_at: Some(1_798_000_000),
                problem: None,
                failure: None,
            },
            Status {
                names: vec!["c.example".into()],
                directory: Some("https://ca.example:8443/dir".into()),
                certificate: None,
                renews_at: Some(1_795_600_060),
                problem: None,
                failure: Some(failure),
            },
            Status {
                names: vec!["d.example".into()],
                directory: None,
                certificate: Some(certificate("Own", 1_790_000_000)),
                renews_at: None,
                problem: None,
                failure: None,
            },
        ];
        let expected = "\
NAMES                 SOURCE                ISSUER        EXPIRES               NEXT RENEWAL  LAST ERROR
a.example, b.example  ACME ca.example       An Authority  2027-01-15            2026-12-23    -
c.example             ACME ca.example:8443  -             -                     now           2026-11-25 validate: connection: refused
d.example             files                 Own           2026-09-21 (expired)  -             -
";
        assert_eq!(table(&all, 1_795_700_000), expected);
        assert_eq!(time(1_800_000_000), "2027-01-15 08:00 UTC");
    }
}
