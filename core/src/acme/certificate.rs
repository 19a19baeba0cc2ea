//! What is known of a certificate.

use crate::UnixSecs;

/// What is known of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCertificate {
    /// Different for every two certificates, as is its SHA-256.
    pub id: Box<str>,
    /// The identifier of RFC 9773 §4.1; `None` if it lacks what that is made of.
    pub ari_id: Option<Box<str>>,
    /// Its DNS names, in lower case.
    pub names: Vec<Box<str>>,
    /// Who signed it, for people: the common name.
    pub issuer: Box<str>,
    /// Valid from then on.
    pub not_before: UnixSecs,
    /// Valid until then.
    pub not_after: UnixSecs,
}

/// When the authority wants a certificate renewed (RFC 9773 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalInfo {
    /// From then on,
    pub start: UnixSecs,
    /// until then.
    pub end: UnixSecs,
    /// Seconds until it may be asked again.
    pub retry_after: Option<u64>,
    /// A page for people that says why.
    pub explanation: Option<Box<str>>,
}
