//! Certificates for tests: made anew each time, in a folder of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use ruststrom_core::config::{Certificate, CertificateSource, ClientAuth};

/// A folder that goes when it is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("rust-strom-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), content).expect("a file");
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).expect("a file")
    }

    /// Runs `openssl` in the folder. The file after `-out`, the last argument, may be one that it reads.
    pub(super) fn openssl(&self, arguments: &str) {
        let (rest, written) = arguments.rsplit_once("-out ").expect("a file to write");
        let out = Command::new("openssl")
            .args(rest.split_whitespace().chain(["-out", "new"]))
            .current_dir(&self.0)
            .output()
            .expect("openssl is installed");
        assert!(out.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&out.stderr));
        std::fs::rename(self.0.join("new"), self.0.join(written)).expect("a new file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate authority.
pub(super) struct Ca {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
    pub(super) der: rustls::pki_types::CertificateDer<'static>,
}

/// A certificate and its key, in PEM.
pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Parameters of a certificate for these names; the subject is the first of them.
pub(super) fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).expect("names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("nobody", |n| n));
    params.use_authority_key_identifier_extension = true;
    params
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    /// An authority below this one.
    pub(super) fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    pub(super) fn sign(&self, names: &[&str]) -> Made {
        self.sign_with(params(names))
    }

    pub(super) fn sign_with(&self, params: CertificateParams) -> Made {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Made { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// An entry of the configuration whose files are `FILE.crt` and `FILE.key`.
pub(super) fn entry(name: &str, file: &str) -> Certificate {
    Certificate {
        name: name.into(),
        source: CertificateSource::Local {
            certificate_path: format!("{file}.crt").into(),
            private_key_path: format!("{file}.key").into(),
        },
        default: false,
        client_ca: None,
        client_auth: ClientAuth::Required,
        sans: Vec::new(),
    }
}
