//! The authorities that certificates of backends have to be signed by.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

use super::pem::Pem;
use super::problem::{Flaw, Part};

/// Who is trusted.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    pub(crate) store: Arc<RootCertStore>,
    /// The certificates of a file as they are; none of the system's.
    pub(crate) named: Arc<[CertificateDer<'static>]>,
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.store.roots == other.store.roots && self.named == other.named
    }
}

/// What names the file of authorities.
const PART: Part = Part::ClientCa;

/// Those that the system trusts: where OpenSSL looks for them, `SSL_CERT_FILE` and `SSL_CERT_DIR` included.
///
/// # Errors
///
/// There are none. What cannot be used beside others that can is passed over, as everywhere.
pub(crate) fn of_system() -> Result<Roots, Flaw> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(Roots { store: Arc::new(roots), named: Arc::new([]) });
    }
    let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
    Err(Flaw::error(
        Part::Table,
        format!("this system trusts no certificate authority{why}"),
        "install ca-certificates, or name the authority of these backends in `ca_file` of [backend_pools.tls]",
    ))
}

/// Those of a file. What is odd about it is appended to `flaws`; `None` after an error. `now` is in seconds
/// since 1970.
pub(crate) fn of_file(path: &Path, now: i64, flaws: &mut Vec<Flaw>) -> Option<Roots> {
    let read = Pem::read(path, PART, "CA file").and_then(|pem| Ok((pem.certificates(PART)?, pem)));
    let (all, pem) = match read {
        Ok(read) => read,
        Err(flaw) => {
            flaws.push(flaw);
            return None;
        }
    };
    let name = &pem.name;
    let mut roots = RootCertStore::empty();
    let (mut refused, mut in_date) = (None, false);
    for (number, der) in (1..).zip(&all) {
        match roots.add(CertificateDer::from_slice(der)) {
            Ok(()) => {
                let expired = parse_x509_certificate(der)
                    .is_ok_and(|(_, parsed)| parsed.validity().not_after.timestamp() < now);
                in_date |= !expired;
            }
            Err(error) if refused.is_none() => refused = Some((number, error)),
            Err(_) => {}
        }
    }
    if roots.is_empty() {
        let message = match refused {
            Some((number, error)) => {
                format!("certificate {number} in the CA file {name} cannot be used: {error}")
            }
            None => format!("there is no certificate in the CA file {name}, but {}", pem.content()),
        };
        let help = "give the certificates of the authorities that are to be trusted";
        flaws.push(Flaw::error(PART, message, help));
        return None;
    }
    if let Some((number, error)) = refused {
        let message = format!("certificate {number} in the CA file {name} is passed over: {error}");
        flaws.push(Flaw::warning(PART, message, "remove it, or copy the file again"));
    }
    if !in_date {
        let message = format!("every certificate in the CA file {name} has expired");
        flaws.push(Flaw::warning(PART, message, "what they signed is accepted still: renew them"));
    }
    let named = all.into_iter().map(CertificateDer::from).collect();
    Some(Roots { store: Arc::new(roots), named })
}
