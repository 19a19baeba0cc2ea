//! What is served before the first certificate has come.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use crate::tls::provider::provider;

/// A certificate for these names that signs itself: clients can tell that it is none, and those that are told
/// to take any can connect.
///
/// # Errors
/// If it cannot be made; in words.
pub(super) fn self_signed(names: &[Box<str>]) -> Result<Arc<CertifiedKey>, String> {
    let text = |e: rcgen::Error| e.to_string();
    let mut params = CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>())
        .map_err(text)?;
    params.distinguished_name.push(DnType::CommonName, "RustStrom: no certificate yet");
    let key = KeyPair::generate().map_err(text)?;
    let certificate = params.self_signed(&key).map_err(text)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let made = CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider());
    made.map(Arc::new).map_err(|e| e.to_string())
}
