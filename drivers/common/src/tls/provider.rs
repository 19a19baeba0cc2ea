//! The cryptography of all TLS, in both directions.

use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// AWS-LC: TLS 1.2 with AEAD suites only, TLS 1.3, and the post-quantum group X25519MLKEM768 before all
/// others. One value for the process, which is never made its default.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())).clone()
}
