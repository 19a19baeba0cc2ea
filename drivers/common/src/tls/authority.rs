//! The file of the authorities that sign the certificates of clients.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

use super::certificate::date;
use super::pem::Pem;
use super::problem::{Flaw, Part};
use super::subject;

/// Who signs the certificates of clients.
#[derive(Clone)]
pub(super) struct Authority {
    pub(super) roots: Arc<RootCertStore>,
    /// The certificates in DER, one after the other: two files that say the same have the same.
    pub(super) der: Arc<[u8]>,
}

impl Authority {
    /// Reads a file, and appends what is wrong with it. `now` is in seconds since 1970. `None` after an
    /// error.
    pub(super) fn read(path: &Path, now: i64, flaws: &mut Vec<Flaw>) -> Option<Self> {
        const PART: Part = Part::ClientCa;
        let found = Pem::read(path, PART, "client CA").and_then(|pem| Ok((pem.certificates(PART)?, pem)));
        let (all, pem) = match found {
            Ok(found) => found,
            Err(flaw) => {
                flaws.push(flaw);
                return None;
            }
        };
        let name = &pem.name;
        if all.is_empty() {
            let message = format!("there is no certificate in the client CA {name}, but {}", pem.content());
            flaws.push(Flaw::error(PART, message, "give the certificate of the CA that signs clients"));
            return None;
        }
        let mut roots = RootCertStore::empty();
        for (number, der) in (1..).zip(&all) {
            let damaged = |reason: &str| {
                let message = format!("certificate {number} in the client CA {name} is damaged: {reason}");
                Flaw::error(PART, message, "copy the file again")
            };
            let Ok((rest, parsed)) = parse_x509_certificate(der) else {
                flaws.push(damaged("it is not X.509"));
                return None;
            };
            if !rest.is_empty() {
                flaws.push(damaged("something follows it"));
                return None;
            }
            if !parsed.is_ca() {
                let subject = subject::line(parsed.subject());
                let message =
                    format!("certificate {number} in the client CA {name} is not that of a CA: {subject}");
                let help = "give the certificate that signed the clients' certificates, not a client's own";
                flaws.push(Flaw::error(PART, message, help));
                return None;
            }
            let end = parsed.validity().not_after;
            if end.timestamp() < now {
                let message =
                    format!("certificate {number} in the client CA {name} expired on {}", date(end));
                let help = "clients that it signed are accepted still; renew it";
                flaws.push(Flaw::warning(PART, message, help));
            }
            if let Err(error) = roots.add(CertificateDer::from_slice(der)) {
                flaws.push(damaged(&error.to_string()));
                return None;
            }
        }
        Some(Self { roots: Arc::new(roots), der: all.concat().into() })
    }
}
