//! TLS to clients: which certificate, and under which rules.
//!
//! There is one `rustls::ServerConfig` for each certificate of the configuration, for TLS 1.2 and 1.3 with
//! AEAD suites only. None of them takes early data (RFC 8446 §8), keeps sessions in memory or renegotiates.
//!
//! A certificate of ACME has its place and its rules from the start, and its key whenever there is one:
//! [`ServerTls::with_certificate`].

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ResolvesServerCert, ResolvesServerCertUsingSni, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use ruststrom_core::config::{Certificate, CertificateSource, ClientAuth, Severity};

use super::authority::Authority;
use super::certificate::{self, LoadedCertificate};
use super::problem::{Flaw, Part, Problem};
use super::provider::provider;
use super::tickets::{ClientPolicy, TicketKeys};

/// What can be spoken once the handshake is over (RFC 7301), the best first. The first may be turned off.
pub const ALPN: &[&[u8]] = &[b"h2", b"http/1.1", b"http/1.0"];

/// Tickets for each new TLS 1.3 session: a client may use each once, and opens several connections.
const TICKETS: usize = 2;

/// A record with the fatal alert `unrecognized_name` (RFC 6066 §3), for a client for whose name there is no
/// certificate: it is sent instead of a `ServerHello`, when nothing is encrypted yet.
pub const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Longest name of a host, in bytes, without its final dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;

/// What a client offers, and nothing else, that comes to see a [`Challenge`] (RFC 8737 §4).
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// Everything that handshakes with clients need. It never changes: a reload, or a certificate of ACME, makes
/// another one. The default has no certificate.
#[derive(Clone, Debug, Default)]
pub struct ServerTls {
    /// By name.
    exact: HashMap<Box<str>, u16>,
    /// By what follows `*.` in the name.
    wildcard: HashMap<Box<str>, u16>,
    /// For every other name.
    default: Option<u16>,
    /// For clients that name no server.
    nameless: Option<u16>,
    /// In the order of the configuration; `None` for certificates that are not there yet.
    configs: Vec<Option<Arc<ServerConfig>>>,
    /// When each of them ends, in seconds since 1970.
    ends: Vec<Option<i64>>,
    /// The rules of each certificate of ACME, without a key.
    without_key: HashMap<u16, Arc<ServerConfig>>,
    /// By the name that is to be proven.
    challenges: HashMap<Box<str>, Arc<ServerConfig>>,
    tickets: TicketKeys,
}

/// What an authority is shown that wants to know whether a name leads here (TLS-ALPN-01, RFC 8737).
#[derive(Clone, Debug)]
pub struct Challenge {
    /// The name that is to be proven, in lower case.
    pub name: Box<str>,
    /// A certificate for this name alone with the proof in it.
    pub key: Arc<CertifiedKey>,
}

/// The certificate for a client.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'s> {
    /// What the handshake goes on with.
    pub config: &'s Arc<ServerConfig>,
    /// The certificate's place in [`Config::certificates`](ruststrom_core::Config::certificates).
    pub certificate: u16,
}

/// What the files of all certificates have in them.
#[derive(Debug)]
pub struct Loaded {
    /// `None` if there is an error among the problems.
    pub server: Option<ServerTls>,
    /// For each certificate the DNS names that it is for: [`Certificate::sans`]. Empty where there was an
    /// error.
    pub sans: Vec<Vec<Box<str>>>,
    /// What is wrong, certificate by certificate.
    pub problems: Vec<Problem>,
}

impl ServerTls {
    /// Reads the files of all certificates; relative paths start at `folder`. Sessions that began under
    /// `previous` go on, as far as clients have to show the same as before. A certificate of ACME is not
    /// read here: nothing is served with it before [`ServerTls::with_certificate`]. `http2`: clients are
    /// offered it.
    #[must_use]
    pub fn load(
        certificates: &[Certificate],
        http2: bool,
        folder: &Path,
        previous: Option<&ServerTls>,
    ) -> Loaded {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let loader = Loader {
            alpn: if http2 { ALPN } else { &ALPN[1..] },
            folder,
            now: i64::try_from(now).unwrap_or(i64::MAX),
            provider: provider(),
            previous: previous.map(|p| &p.tickets),
            tickets: TicketKeys::default(),
            authorities: HashMap::new(),
            verifiers: HashMap::new(),
        };
        loader.load(certificates)
    }

    /// The certificate for a client that named this server (RFC 6066 §3): the one for the name, else the one
    /// for `*.` and all but its first label, else the default. Letter case and a final dot don't count. A
    /// client that named none, as with an address for a URL's host, gets the default, or the only certificate
    /// there is.
    ///
    /// `None`: the caller ends the handshake by [`UNRECOGNIZED_NAME`].
    #[must_use]
    pub fn choose(&self, server_name: Option<&str>) -> Option<Choice<'_>> {
        let certificate = self.place(server_name)?;
        let config = self.configs.get(usize::from(certificate))?.as_ref()?;
        Some(Choice { config, certificate })
    }

    /// The place in the configuration of the certificate that [`ServerTls::choose`] looks for, whether there
    /// is anything to be shown for it yet or not.
    #[must_use]
    pub fn place(&self, server_name: Option<&str>) -> Option<u16> {
        match server_name {
            Some(name) => self.by_name(name).or(self.default),
            None => self.nameless,
        }
    }

    fn by_name(&self, name: &str) -> Option<u16> {
        let mut buffer = [0; MAX_NAME];
        let name = lower(name, &mut buffer)?;
        self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1)).copied()
    }

    /// The same, but for a certificate of ACME, which is this one from now on. Nothing changes if the
    /// certificate at `place` is none of ACME.
    #[must_use]
    pub fn with_certificate(&self, place: u16, key: Arc<CertifiedKey>) -> Self {
        let mut changed = self.clone();
        if let Some(rules) = changed.without_key.get(&place)
            && let Some(config) = changed.configs.get_mut(usize::from(place))
        {
            let end = certificate::end(&key);
            *config = Some(Arc::new(with_key(rules, key)));
            if let Some(known) = changed.ends.get_mut(usize::from(place)) {
                *known = end;
            }
        }
        changed
    }

    /// When each certificate ends, in seconds since 1970 and in the order of the configuration; `None` for
    /// those that are not there yet.
    #[must_use]
    pub fn ends(&self) -> &[Option<i64>] {
        &self.ends
    }

    /// The same, with the challenges of another one, which it takes the place of.
    #[must_use]
    pub fn with_challenges_of(self, other: &Self) -> Self {
        Self { challenges: other.challenges.clone(), ..self }
    }

    /// The same, but for the challenges: there are these, and no others.
    ///
    /// # Errors
    /// If the provider does not support TLS 1.2 and 1.3.
    pub fn with_challenges(&self, challenges: &[Challenge]) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(no_key());
        config.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let config_of = |c: &Challenge| (c.name.clone(), Arc::new(with_key(&config, c.key.clone())));
        Ok(Self { challenges: challenges.iter().map(config_of).collect(), ..self.clone() })
    }

    /// What a client is shown that offers [`ACME_TLS_ALPN`] alone and asks for this name; `None`: there is no
    /// such challenge.
    #[must_use]
    pub fn challenge(&self, server_name: &str) -> Option<&Arc<ServerConfig>> {
        if self.challenges.is_empty() {
            return None;
        }
        self.challenges.get(lower(server_name, &mut [0; MAX_NAME])?)
    }
}

/// A name as keys have it: in lower case, without a final dot. `None` for what is longer than any.
fn lower<'b>(name: &str, buffer: &'b mut [u8; MAX_NAME]) -> Option<&'b str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).ok()
}

/// Finds no certificate: in the place of one that is to come.
fn no_key() -> Arc<dyn ResolvesServerCert> {
    Arc::new(ResolvesServerCertUsingSni::new())
}

fn with_key(rules: &ServerConfig, key: Arc<CertifiedKey>) -> ServerConfig {
    let mut config = rules.clone();
    config.cert_resolver = Arc::new(SingleCertAndKey::from(key));
    config
}

/// One certificate.
struct Served {
    config: Arc<ServerConfig>,
    /// The DNS names that it is for.
    sans: Vec<Box<str>>,
    /// In seconds since 1970.
    end: Option<i64>,
}

struct Loader<'l> {
    alpn: &'static [&'static [u8]],
    folder: &'l Path,
    /// In seconds since 1970.
    now: i64,
    provider: Arc<CryptoProvider>,
    previous: Option<&'l TicketKeys>,
    tickets: TicketKeys,
    /// Each file of a `client_ca` is read once; `None` for one with an error.
    authorities: HashMap<&'l str, Option<Authority>>,
    verifiers: HashMap<ClientPolicy, Arc<dyn ClientCertVerifier>>,
}

impl<'l> Loader<'l> {
    fn load(mut self, certificates: &'l [Certificate]) -> Loaded {
        let (mut configs, mut all_sans, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        let (mut without_key, mut ends) = (HashMap::new(), Vec::new());
        for (place, certificate) in (0..=u16::MAX).zip(certificates) {
            let mut flaws = Vec::new();
            let served = self.certificate(certificate, &mut flaws);
            ends.push(served.as_ref().and_then(|served| served.end));
            let (config, sans) = served.map(|served| (served.config, served.sans)).unzip();
            configs.push(match certificate.source {
                CertificateSource::Local { .. } => config,
                CertificateSource::Acme { .. } => {
                    without_key.extend(config.map(|config| (place, config)));
                    None
                }
            });
            all_sans.push(sans.unwrap_or_default());
            problems.extend(flaws.into_iter().map(|flaw| flaw.of(place)));
        }
        let server = problems
            .iter()
            .all(|p| p.severity == Severity::Warning)
            .then(|| server(certificates, (configs, ends), without_key, self.tickets));
        Loaded { server, sans: all_sans, problems }
    }

    /// How one certificate is served; `None` after an error. There is neither key nor end for a certificate
    /// of ACME.
    fn certificate(&mut self, certificate: &'l Certificate, flaws: &mut Vec<Flaw>) -> Option<Served> {
        let policy = self.policy(certificate, flaws);
        let (key, sans, end): (Arc<dyn ResolvesServerCert>, _, _) = match &certificate.source {
            CertificateSource::Local { certificate_path, private_key_path } => {
                let files = (self.folder.join(&**certificate_path), self.folder.join(&**private_key_path));
                let files = (&*files.0, &*files.1);
                let LoadedCertificate { key, sans } =
                    certificate::load(&certificate.name, files, self.now, &self.provider, flaws)?;
                let end = certificate::end(&key);
                (Arc::new(SingleCertAndKey::from(key)), sans, end)
            }
            CertificateSource::Acme { .. } => {
                (no_key(), certificate.served_names().map(Into::into).collect(), None)
            }
        };
        match self.config(key, policy?) {
            Ok(config) => Some(Served { config, sans, end }),
            Err(error) => {
                let message = format!("TLS for \"{}\" cannot be set up: {error}", certificate.name);
                flaws.push(Flaw::error(Part::Table, message, "see the reason"));
                None
            }
        }
    }

    /// What clients have to show; `None` after an error.
    fn policy(&mut self, certificate: &'l Certificate, flaws: &mut Vec<Flaw>) -> Option<ClientPolicy> {
        let Some(path) = certificate.client_ca.as_deref() else { return Some(ClientPolicy(None)) };
        let authority = match self.authorities.get(path) {
            Some(known) => known.clone(),
            None => {
                let read = Authority::read(&self.folder.join(path), self.now, flaws);
                self.authorities.insert(path, read.clone());
                read
            }
        }?;
        let policy = ClientPolicy(Some((authority.der.clone(), certificate.client_auth)));
        if !self.verifiers.contains_key(&policy) {
            let builder = WebPkiClientVerifier::builder_with_provider(authority.roots, self.provider.clone());
            let builder = match certificate.client_auth {
                ClientAuth::Required => builder,
                ClientAuth::Optional => builder.allow_unauthenticated(),
            };
            match builder.build() {
                Ok(verifier) => self.verifiers.insert(policy.clone(), verifier),
                Err(error) => {
                    let message = format!("the client CA {path} cannot be used: {error}");
                    flaws.push(Flaw::error(Part::ClientCa, message, "give another file"));
                    return None;
                }
            };
        }
        Some(policy)
    }

    fn config(
        &mut self,
        key: Arc<dyn ResolvesServerCert>,
        policy: ClientPolicy,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = match self.verifiers.get(&policy) {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(key);
        config.alpn_protocols = self.alpn.iter().map(|p| p.to_vec()).collect();
        // What is best is for the server to say: a client's list may be anything.
        config.ignore_client_order = true;
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = self.tickets.of(&policy, self.previous)?;
        config.send_tls13_tickets = TICKETS;
        Ok(Arc::new(config))
    }
}

fn server(
    certificates: &[Certificate],
    (configs, ends): (Vec<Option<Arc<ServerConfig>>>, Vec<Option<i64>>),
    without_key: HashMap<u16, Arc<ServerConfig>>,
    tickets: TicketKeys,
) -> ServerTls {
    let (mut exact, mut wildcard, mut default) = (HashMap::new(), HashMap::new(), None);
    for (place, certificate) in (0..=u16::MAX).zip(certificates) {
        for name in certificate.served_names() {
            match name.strip_prefix("*.") {
                Some(parent) => wildcard.insert(Box::from(parent), place),
                None => exact.insert(Box::from(name), place),
            };
        }
        if certificate.default {
            default = Some(place);
        }
    }
    let only = (certificates.len() == 1).then_some(0);
    let nameless = default.or(only);
    ServerTls {
        exact,
        wildcard,
        default,
        nameless,
        configs,
        ends,
        without_key,
        challenges: HashMap::new(),
        tickets,
    }
}

#[cfg(test)]
mod tests;
