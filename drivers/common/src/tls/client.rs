//! TLS to backends: whom a backend's certificate has to be for, and who has to have signed it.
//!
//! There is one `rustls::ClientConfig` for each [`TlsTarget`], for TLS 1.2 and 1.3 with AEAD suites only.
//! Targets under the same settings share what is read from files; each has a store of sessions of its own, so
//! that a session is resumed only with its backend. There is no early data and no renegotiation.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection};
use ruststrom_core::config::{Alpn, BackendTls, Severity, TlsName, TlsTarget};
use ruststrom_core::{Config, TlsFault};

use super::problem::{Flaw, Part};
use super::provider::provider;
use super::roots::Roots;
use super::unverified::AnyCertificate;
use super::verify::Verifier;
use super::{certificate, roots};

pub use super::fault::fault_of_tls;

/// Sessions that are kept for each target: so many TLS 1.3 tickets, each of which is used once, and one TLS
/// 1.2 session.
const SESSIONS: usize = 8;

/// Everything that handshakes with backends need. It never changes: a reload makes another one.
#[derive(Debug, Default)]
pub struct ClientTls {
    targets: HashMap<Arc<TlsTarget>, Target>,
    /// Those of the configuration before that this one does not have: exchanges that began under it still
    /// connect to them.
    former: HashMap<Arc<TlsTarget>, Target>,
}

/// A backend, ready to be connected to.
#[derive(Clone, Debug)]
struct Target {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    material: Arc<Material>,
}

/// What was read from files for some settings. Sessions outlive a reload as long as it stays.
#[derive(Debug)]
struct Material {
    /// `None`: certificates are not verified.
    roots: Option<Roots>,
    client: Option<Arc<CertifiedKey>>,
}

/// What the files of all pools have in them.
#[derive(Debug)]
pub struct Loaded {
    /// `None` if there is an error among the problems.
    pub client: Option<ClientTls>,
    /// What is wrong, pool by pool.
    pub problems: Vec<Problem>,
}

/// Something wrong with what a pool's TLS needs of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The pool's name.
    pub pool: Box<str>,
    /// The key of the configuration that is meant.
    pub key: Key,
    /// With an error the pool cannot be served.
    pub severity: Severity,
    /// One line that names the file.
    pub message: String,
    /// What to do about it, one line.
    pub help: String,
}

/// A key of a pool, or of its `tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `addresses`: what is wrong is not in a file of the configuration.
    Addresses,
    /// `ca_file`
    CaFile,
    /// `client_certificate`
    ClientCertificate,
    /// `client_key`
    ClientKey,
}

impl ClientTls {
    /// Reads the files of all pools with `https://` backends; relative paths start at `folder`. The system's
    /// authorities are looked up only if a pool needs them. Sessions that began under `previous` are resumed
    /// where nothing has changed, and connections to its targets can be made still.
    #[must_use]
    pub fn load(config: &Config, folder: &Path, previous: Option<&Self>) -> Loaded {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut loader = Loader {
            folder,
            now: i64::try_from(now).unwrap_or(i64::MAX),
            provider: provider(),
            previous,
            of_system: None,
            read: HashMap::new(),
        };
        let mut client = Self::default();
        let mut problems = Vec::new();
        for pool in &config.pools {
            let https = || pool.backends.iter().filter_map(|backend| backend.protocol.tls());
            // What is read from files is the same for connections that are not to speak HTTP/2.
            let targets = || https().chain(https().filter_map(|target| target.http1.as_ref()));
            let Some(first) = targets().next() else { continue };
            let (material, mut flaws) = loader.read(&first.settings);
            if let Some(material) = material {
                for target in targets() {
                    match loader.target(target, &material) {
                        Ok(found) => _ = client.targets.entry(target.clone()).or_insert(found),
                        Err(flaw) => flaws.push(flaw),
                    }
                }
            }
            problems.extend(flaws.into_iter().map(|flaw| problem(flaw, &pool.name)));
        }
        if let Some(previous) = previous {
            let gone = previous.targets.iter().filter(|(target, _)| !client.targets.contains_key(*target));
            client.former = gone.map(|(target, found)| (target.clone(), found.clone())).collect();
        }
        let failed = problems.iter().any(|p| p.severity == Severity::Error);
        Loaded { client: (!failed).then_some(client), problems }
    }

    /// A connection to a backend, before its handshake.
    ///
    /// # Errors
    ///
    /// [`TlsFault::Protocol`] if the target is neither of this configuration nor of the one before.
    pub fn connection(&self, target: &TlsTarget) -> Result<ClientConnection, TlsFault> {
        let found = self.targets.get(target).or_else(|| self.former.get(target));
        let Target { name, config, .. } = found.ok_or(TlsFault::Protocol)?;
        ClientConnection::new(config.clone(), name.clone()).map_err(|error| fault_of_tls(&error))
    }
}

/// What is in the files of some settings, `None` after an error, and what is wrong with them.
type Read = (Option<Arc<Material>>, Vec<Flaw>);

struct Loader<'l> {
    folder: &'l Path,
    /// In seconds since 1970.
    now: i64,
    provider: Arc<CryptoProvider>,
    previous: Option<&'l ClientTls>,
    of_system: Option<Result<Roots, Flaw>>,
    read: HashMap<Arc<BackendTls>, Read>,
}

impl Loader<'_> {
    /// Each file is read once, however many pools name it under the same settings.
    fn read(&mut self, settings: &Arc<BackendTls>) -> Read {
        if let Some(read) = self.read.get(settings) {
            return read.clone();
        }
        let mut flaws = Vec::new();
        let roots = self.roots(settings, &mut flaws);
        let client = match &settings.client {
            None => Some(None),
            Some(files) => {
                let paths = (self.folder.join(&*files.certificate), self.folder.join(&*files.key));
                let (now, provider) = (self.now, &self.provider);
                certificate::load_of_client((&paths.0, &paths.1), now, provider, &mut flaws).map(Some)
            }
        };
        let material = roots.zip(client).map(|(roots, client)| Arc::new(Material { roots, client }));
        self.read.entry(settings.clone()).insert_entry((material, flaws)).get().clone()
    }

    /// The authorities to trust; `Some(None)` if certificates are not verified, `None` after an error.
    fn roots(&mut self, settings: &BackendTls, flaws: &mut Vec<Flaw>) -> Option<Option<Roots>> {
        if !settings.verify {
            return Some(None);
        }
        if let Some(file) = &settings.ca_file {
            return roots::of_file(&self.folder.join(&**file), self.now, flaws).map(Some);
        }
        match self.of_system.get_or_insert_with(roots::of_system) {
            Ok(roots) => Some(Some(roots.clone())),
            Err(flaw) => {
                flaws.push(flaw.clone());
                None
            }
        }
    }

    fn target(&self, target: &TlsTarget, material: &Arc<Material>) -> Result<Target, Flaw> {
        if let Some(same) = self.previous.and_then(|previous| previous.targets.get(target))
            && same.material.says_the_same(material)
        {
            return Ok(same.clone());
        }
        let name = match &target.name {
            TlsName::Ip(ip) => ServerName::from(*ip),
            TlsName::Dns(name) => ServerName::try_from(String::from(&**name)).map_err(|_| {
                let message = format!("no certificate can be for \"{name}\": it is no DNS name");
                Flaw::error(Part::Table, message, "set `server_name` of [backend_pools.tls]")
            })?,
        };
        let config = Arc::new(self.config(material, target.settings.alpn));
        Ok(Target { name, config, material: material.clone() })
    }

    fn config(&self, material: &Material, alpn: Alpn) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("the provider has suites of both versions");
        let verifier: Arc<dyn ServerCertVerifier> = match &material.roots {
            Some(roots) => Arc::new(Verifier::new(roots, self.provider.clone())),
            None => Arc::new(AnyCertificate(self.provider.clone())),
        };
        // Danger lies in verifiers of one's own.
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match &material.client {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from((**key).clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.names().iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        config
    }
}

impl Material {
    /// Whether a reload has found the same in the files.
    fn says_the_same(&self, other: &Self) -> bool {
        // A key is that of its certificate.
        let chain = |material: &Self| material.client.as_ref().map(|key| key.cert.clone());
        self.roots == other.roots && chain(self) == chain(other)
    }
}

fn problem(flaw: Flaw, pool: &str) -> Problem {
    let Flaw { part, severity, message, help } = flaw;
    let key = match part {
        Part::Table => Key::Addresses,
        Part::ClientCa | Part::AcmeCaFile => Key::CaFile,
        Part::CertificatePath => Key::ClientCertificate,
        Part::PrivateKeyPath => Key::ClientKey,
    };
    Problem { pool: pool.into(), key, severity, message, help }
}

#[cfg(test)]
mod tests;
