//! Certificates for tests: made anew each time, as files in a temporary directory.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, date_time_ymd,
};

use crate::daemon::TempDir;

/// An authority, and the directory of everything that it has signed.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) folder: TempDir,
}

/// The files of a certificate and of its key.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    /// As a value for a certificate's table of the configuration.
    pub(crate) fn local(&self) -> String {
        format!(
            "Local = {{ certificate_path = \"{}\", private_key_path = \"{}\" }}\n",
            self.certificate.display(),
            self.key.display()
        )
    }
}

/// Parameters of a certificate whose common name is `subject`, for these subject alternative names: DNS names
/// and addresses.
fn params(subject: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.use_authority_key_identifier_extension = true;
    params
}

impl Authority {
    /// A new one; its own certificate is in [`Authority::file`].
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let folder = TempDir::new("certificates");
        folder.write("ca.crt", certificate.pem());
        Self { issuer: Issuer::new(params, key), folder }
    }

    /// The file of its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.0.join("ca.crt")
    }

    /// A certificate that has signed itself.
    pub(crate) fn self_signed(&self, subject: &str, names: &[&str]) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(subject, names).self_signed(&key).expect("a certificate");
        self.write(subject, &certificate, &key)
    }

    /// Signs a certificate with a P-256 key for these subject alternative names. Its files, and its common
    /// name, are called `subject`.
    pub(crate) fn sign(&self, subject: &str, names: &[&str]) -> Pair {
        self.keep(subject, params(subject, names), &KeyPair::generate().expect("a key"))
    }

    /// The same with an RSA key.
    pub(crate) fn sign_rsa(&self, subject: &str, names: &[&str]) -> Pair {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
        self.keep(subject, params(subject, names), &key)
    }

    /// The same with a P-256 key, for clients.
    pub(crate) fn sign_client(&self, subject: &str) -> Pair {
        let mut params = params(subject, &[]);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        self.keep(subject, params, &KeyPair::generate().expect("a key"))
    }

    /// The same with a P-256 key, for servers only.
    pub(crate) fn sign_server(&self, subject: &str) -> Pair {
        let mut params = params(subject, &[]);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        self.keep(subject, params, &KeyPair::generate().expect("a key"))
    }

    /// The same as [`Authority::sign`], valid up to the year 2020 only.
    pub(crate) fn sign_expired(&self, subject: &str, names: &[&str]) -> Pair {
        let mut params = params(subject, names);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.keep(subject, params, &KeyPair::generate().expect("a key"))
    }

    fn keep(&self, subject: &str, params: CertificateParams, key: &KeyPair) -> Pair {
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        self.write(subject, &certificate, key)
    }

    fn write(&self, subject: &str, certificate: &Certificate, key: &KeyPair) -> Pair {
        Pair {
            certificate: self.folder.write(&format!("{subject}.crt"), certificate.pem()),
            key: self.folder.write(&format!("{subject}.key"), key.serialize_pem()),
        }
    }
}
