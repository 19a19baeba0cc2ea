//! What is known of every certificate of a configuration, as its files have it: no daemon is asked.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ruststrom_core::acme::{Failure, Manager, StoredCertificate};
use ruststrom_core::config::{Certificate, CertificateSource};
use ruststrom_core::{Config, UnixSecs};

use super::certificate_file::known;
use super::control::Acme;
use crate::clock;

/// What is known of one certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The names that clients get it for, the table's first.
    pub names: Vec<Box<str>>,
    /// The URL of the authority's directory; `None`: it is from files.
    pub directory: Option<Box<str>>,
    /// The certificate; `None` if there is none, or it cannot be read.
    pub certificate: Option<StoredCertificate>,
    /// When it is to be renewed; `None` if it is from files.
    pub renews_at: Option<UnixSecs>,
    /// What is wrong with the files.
    pub problem: Option<String>,
    /// Why the last order failed, if none has succeeded since then.
    pub failure: Option<Failure>,
}

/// What is known of every certificate, in the order of the configuration. Relative paths start at `folder`.
#[must_use]
pub fn of_all(config: &Config, acme: &Acme, folder: &Path) -> Vec<Status> {
    let of = |(place, certificate): (u16, &Certificate)| {
        let names = certificate.served_names().map(Into::into).collect();
        let empty = Status {
            names,
            directory: None,
            certificate: None,
            renews_at: None,
            problem: None,
            failure: None,
        };
        match &certificate.source {
            CertificateSource::Local { certificate_path, .. } => {
                match of_file(&folder.join(&**certificate_path)) {
                    Ok(certificate) => Status { certificate: Some(certificate), ..empty },
                    Err(problem) => Status { problem: Some(problem), ..empty },
                }
            }
            CertificateSource::Acme(_) => of_acme(acme, place, empty),
        }
    };
    (0..=u16::MAX).zip(&config.certificates).map(of).collect()
}

fn of_file(path: &Path) -> Result<StoredCertificate, String> {
    let name = path.display();
    let leaf = CertificateDer::from_pem_file(path).map_err(|e| format!("cannot read {name}: {e}"))?;
    known(&leaf).ok_or_else(|| format!("{name} is no certificate"))
}

fn of_acme(acme: &Acme, place: u16, empty: Status) -> Status {
    let Some(wanted) = acme.wanted.iter().find(|wanted| wanted.place == place) else { return empty };
    let directory = Some(wanted.settings.directory.clone());
    let stored = match wanted.keeper(None).stored(&wanted.settings, wanted.kid()) {
        Ok(found) => found.stored,
        Err(problem) => return Status { directory, problem: Some(problem.text), ..empty },
    };
    let now = clock::wall().unix_secs;
    let mut manager = Manager::new(wanted.settings.clone(), stored, now, clock::entropy());
    let damage: Vec<String> = manager.notes().map(|note| note.text).collect();
    Status {
        directory,
        certificate: manager.certificate().cloned(),
        renews_at: Some(manager.renews_at().max(manager.next_attempt())),
        problem: (!damage.is_empty()).then(|| damage.join("; ")),
        failure: manager.ledger().last_failure(&wanted.settings).cloned(),
        ..empty
    }
}
