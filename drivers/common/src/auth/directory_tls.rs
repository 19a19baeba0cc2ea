//! TLS to directories: verified, always.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use ruststrom_core::config::Directory;

use crate::tls::provider;
use crate::tls::roots;

/// The authorities of a file in PEM.
///
/// # Errors
/// Why it cannot be used, as the end of a sentence that begins with its path.
pub(super) fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let mut refused = None;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| format!("is damaged: {e}"))?;
        if let Err(e) = roots.add(certificate) {
            refused = Some(e);
        }
    }
    match refused {
        _ if !roots.is_empty() => Ok(roots),
        Some(e) => Err(format!("has no certificate that can be used: {e}")),
        None => Err("has no certificate".into()),
    }
}

/// What connections to this directory trust.
///
/// # Errors
/// Why there cannot be any.
pub(super) fn client_config(directory: &Directory) -> Result<Arc<ClientConfig>, String> {
    let roots = match &directory.ca_file {
        Some(file) => authorities(&file.content).map_err(|why| format!("{} {why}", file.path))?.into(),
        None => roots::of_system().map_err(|flaw| flaw.message)?.store,
    };
    let config = ClientConfig::builder_with_provider(provider::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
