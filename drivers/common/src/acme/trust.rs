//! Whom an authority's own certificate has to be signed by.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

/// Whom an authority's own certificate has to be signed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// One of those that the system trusts at the moment of an order.
    System,
    /// One of a file.
    File(Arc<[CertificateDer<'static>]>),
}

impl Trust {
    /// Their certificates.
    pub(super) fn roots(&self) -> Vec<CertificateDer<'static>> {
        match self {
            Self::System => rustls_native_certs::load_native_certs().certs,
            Self::File(all) => all.to_vec(),
        }
    }
}
