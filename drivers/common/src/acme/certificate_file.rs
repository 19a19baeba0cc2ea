//! A certificate and its key in one file, so that no kill can part them: `example.com.pem`, which is a PKCS#8
//! key and the chain behind it, as PEM.

use std::sync::Arc;

use instant_acme::CertificateIdentifier;
use rustls::InconsistentKeys;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ruststrom_core::UnixSecs;
use ruststrom_core::acme::StoredCertificate;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::digest::fingerprint;
use super::folder::name_of;
use crate::tls::provider::provider;

/// A certificate that can be served.
#[derive(Clone, Debug)]
pub(super) struct CertificateFile {
    pub(super) known: StoredCertificate,
    pub(super) key: Arc<CertifiedKey>,
    /// What the file has in it.
    pub(super) text: Arc<str>,
}

/// Why a key and a chain cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// The certificate is for another key.
    OtherKey,
    /// One of them is damaged, in words.
    Damaged(String),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherKey => f.write_str("the certificate is for another key"),
            Self::Damaged(how) => f.write_str(how),
        }
    }
}

/// The file's name for the certificate of a table.
pub(super) fn file_name(certificate: &str) -> String {
    name_of(certificate, ".pem")
}

impl CertificateFile {
    /// Of a key and a chain, each as PEM.
    ///
    /// # Errors
    /// If they cannot be served.
    pub(super) fn new(key: &str, chain: &str) -> Result<Self, Unusable> {
        let line_end = if key.ends_with('\n') { "" } else { "\n" };
        Self::read(format!("{key}{line_end}{chain}").as_bytes())
    }

    /// Of what a file has in it.
    ///
    /// # Errors
    /// If it cannot be served.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unusable> {
        let damaged = |what: &str| Unusable::Damaged(what.to_owned());
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|_| damaged("there is no key in it"))?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(bytes)
            .collect::<Result<_, _>>()
            .map_err(|_| damaged("a certificate in it is damaged"))?;
        let leaf = chain.first().ok_or_else(|| damaged("there is no certificate in it"))?;
        let known = known(leaf).ok_or_else(|| damaged("the certificate in it is damaged"))?;
        let key = provider().key_provider.load_private_key(key);
        let key = CertifiedKey::new(chain, key.map_err(|_| damaged("the key in it is damaged"))?);
        match key.keys_match() {
            Ok(()) => Ok(Self { known, key: Arc::new(key), text: text.into() }),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(Unusable::OtherKey),
            Err(e) => Err(Unusable::Damaged(format!("it cannot be used: {e}"))),
        }
    }
}

/// What is known of a certificate; `None` if it is not X.509.
pub(super) fn known(leaf: &CertificateDer<'_>) -> Option<StoredCertificate> {
    let (_, parsed) = parse_x509_certificate(leaf).ok()?;
    let seconds = |at: i64| UnixSecs::try_from(at).unwrap_or(0);
    Some(StoredCertificate {
        id: fingerprint(leaf).into(),
        ari_id: CertificateIdentifier::try_from(leaf).ok().map(|id| id.to_string().into()),
        names: dns_names(&parsed),
        issuer: issuer(&parsed).into(),
        not_before: seconds(parsed.validity().not_before.timestamp()),
        not_after: seconds(parsed.validity().not_after.timestamp()),
    })
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<Box<str>> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

/// The issuer's common name, else its organization.
fn issuer(certificate: &X509Certificate<'_>) -> String {
    let issuer = certificate.issuer();
    let mut names = issuer.iter_common_name().chain(issuer.iter_organization());
    names.find_map(|name| name.as_str().ok()).unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn made(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "An Authority");
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2026, 4, 2);
        let key = KeyPair::generate().expect("a key");
        (key.serialize_pem(), params.self_signed(&key).expect("a certificate").pem())
    }

    #[test]
    fn what_is_known_of_a_certificate() {
        let (key, chain) = made(&["A.example", "b.example"]);
        let file = CertificateFile::new(&key, &chain).expect("they fit");
        assert_eq!(file.known.names, ["a.example".into(), "b.example".into()]);
        assert_eq!((file.known.not_before, file.known.not_after), (1_767_312_000, 1_775_088_000));
        assert_eq!(&*file.known.issuer, "An Authority");
        assert_eq!(file.known.id.len(), 64);
        assert_eq!(file.known.ari_id, None, "one that signs itself names no authority's key");
        let again = CertificateFile::read(file.text.as_bytes()).expect("what was written");
        assert_eq!(again.known, file.known);
        let (other_key, _) = made(&["a.example"]);
        assert_eq!(CertificateFile::new(&other_key, &chain).err(), Some(Unusable::OtherKey));
    }

    #[test]
    fn a_file_that_was_cut_anywhere_is_damaged() {
        let (key, chain) = made(&["a.example"]);
        let whole = CertificateFile::new(&key, &chain).expect("they fit").text;
        // Without its last line end it is whole.
        for cut in (0..whole.trim_end().len()).step_by(7) {
            let read = CertificateFile::read(&whole.as_bytes()[..cut]);
            assert!(matches!(read, Err(Unusable::Damaged(_))), "{cut}");
        }
        for bytes in [&b"\xff"[..], b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(matches!(CertificateFile::read(bytes), Err(Unusable::Damaged(_))));
        }
    }

    #[test]
    fn the_identifier_of_rfc_9773() {
        use rcgen::{BasicConstraints, IsCa, Issuer, KeyIdMethod, SerialNumber};
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_identifier_method = KeyIdMethod::PreSpecified(vec![0xc0, 0xff, 0xee]);
        let issuer = Issuer::new(ca, KeyPair::generate().expect("a key"));
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).expect("names");
        params.serial_number = Some(SerialNumber::from(vec![0xca, 0xfe]));
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let chain = params.signed_by(&key, &issuer).expect("a certificate").pem();
        let file = CertificateFile::new(&key.serialize_pem(), &chain).expect("they fit");
        // A serial number whose first bit is set has a zero byte before it.
        assert_eq!(file.known.ari_id.as_deref(), Some("wP_u.AMr-"));
    }
}
