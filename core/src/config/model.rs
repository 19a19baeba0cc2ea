//! The checked configuration: plain data that [`config::parse`](super::parse) makes and the rest of the core
//! reads. Every value is within the range that its documentation states, and a key that the file leaves out
//! has its default. A timeout of 0 in the file is [`Duration::MAX`] here: it never expires.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::http2::Http2;
use super::matcher::Matcher;
use super::middleware_settings::Middleware;
use super::tls_target::{Alpn, TlsTarget};

/// A whole configuration, already checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Those of `http_address`, of `https_address`, of `[[listeners]]`, then the admin listener. Those of
    /// HTTPS are absent without a certificate. At most 1025.
    pub listeners: Vec<Listener>,
    /// In the order of the file: the first whose scheme and matcher fit takes the request. At most 65535.
    ///
    /// Each by itself: whoever uses one keeps it over reloads, and not all of the configuration.
    pub pools: Vec<Arc<Pool>>,
    /// `[certificates]` in the order of the file. At most 65535.
    pub certificates: Vec<Certificate>,
    /// Clients whose `X-Forwarded-*` and `X-Request-ID` are believed; default none.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether requests say in `Via` that they have passed here (RFC 9110 §7.6.3); default false.
    pub via: bool,
    /// Timeouts that hold before a pool is chosen; each pool has a copy with its overrides.
    pub timeouts: Timeouts,
    /// Limits that hold before a pool is chosen; each pool has a copy with its overrides.
    pub limits: Limits,
    /// HTTP/2 to clients.
    pub http2: Http2,
    /// Worker threads, 1..=1024; `None`, the default: one for each core.
    pub workers: Option<u16>,
    /// Which driver runs the core; default [`Driver::Mio`].
    pub driver: Driver,
    /// The user that the process becomes once everything is open: a name, or a number as text; `None`, the
    /// default: it stays who it is.
    pub user: Option<Box<str>>,
    /// The group, likewise; `None`, the default: the user's.
    pub group: Option<Box<str>>,
    /// Whether, how and where requests are logged.
    pub access_log: AccessLog,
    /// Whether the file, and those that it names, are read again when they have changed; default true.
    pub watch: bool,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name of its table in `[[listeners]]`, or else `http`, `https` or `admin`: 1 to 100 bytes.
    /// Listeners that were written as one list share it.
    pub name: Box<str>,
    /// Where to listen: port 0 is any free one, and `[::]` takes IPv4 too.
    pub address: SocketAddr,
    /// What is served there.
    pub kind: ListenerKind,
    /// The address is written in the file: then it is an error if the port is taken, otherwise a warning.
    pub explicit: bool,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// An admin listener (`metrics_address`): `/healthz` and `/readyz`.
    Admin,
}

impl ListenerKind {
    /// As one word, for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Admin => "admin",
        }
    }
}

/// A backend pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// `name`, or else `pool-N` with N counted from 1 in the order of the file: unique, 1 to 100 bytes. The
    /// label of metrics and logs, and the pool's identity over reloads.
    pub name: Box<str>,
    /// Places in [`Config::listeners`] of those whose requests the pool takes; `None`, the default: of all.
    pub listeners: Option<Vec<u16>>,
    /// Which requests the pool takes; default [`Matcher::Any`].
    pub matcher: Matcher,
    /// Whether requests of plain HTTP listeners are taken; default true. One of `http` and `https` is true.
    pub http: bool,
    /// Whether requests of HTTPS listeners are taken; default true.
    pub https: bool,
    /// How a backend is chosen; default [`Strategy::RoundRobin`].
    pub strategy: Strategy,
    /// In the order of the file, each address once, at most 65535. If there are none (a warning), every
    /// request is answered 503.
    pub backends: Vec<Backend>,
    /// Health checks, and when a backend counts as slow or unhealthy.
    pub health: Health,
    /// Idle connections to backends.
    pub client: ClientPool,
    /// The file's timeouts with this pool's overrides.
    pub timeouts: Timeouts,
    /// The file's limits with this pool's overrides.
    pub limits: Limits,
    /// Attempts on other backends after the first failed, 0..=20; default 1.
    pub retries: u8,
    /// A request whose backend let its time go by is sent to another one, if it may be repeated at all; each
    /// attempt has the whole of `timeouts.backend_head`.
    pub retries_on_timeout: bool,
    /// Responses that break rules which others forgive are taken, rewritten to the strict form.
    pub lenient: bool,
    /// In the order of the file: the first sees a request first and its response last.
    pub middlewares: Vec<Middleware>,
}

/// One backend of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The address as written, without the scheme. The label of metrics and logs, and the backend's identity
    /// over reloads.
    pub label: Box<str>,
    /// `Host` of health checks, and of requests that name none: the address as written, or `localhost` for a
    /// Unix socket, as nginx has it.
    pub host: Box<str>,
    /// Where the backend listens.
    pub address: Address,
    /// Which protocol the backend speaks; default [`Protocol::Http1`].
    pub protocol: Protocol,
    /// Share of the pool's requests relative to its other backends, 0..=1000; default 1. With 0 the backend
    /// takes no new requests.
    pub weight: u32,
    /// Most exchanges at once over all workers, 1..=10000000; `None`, the default: no limit.
    pub max_connections: Option<u32>,
    /// The backend is used only while no other one of the pool is usable; default false.
    pub backup: bool,
}

/// Where a backend listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port from 1 to 65535; the address is not unspecified.
    Ip(SocketAddr),
    /// A host name, which is resolved periodically in the background.
    Name {
        /// In lower case, at most 253 bytes; a final dot is kept.
        host: Box<str>,
        /// From 1 to 65535.
        port: u16,
    },
    /// A Unix stream socket at an absolute path: 2 to 107 bytes without blanks and control characters.
    Unix(Arc<str>),
}

/// The protocol that is spoken to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1 without TLS.
    Http1,
    /// `https://`: HTTP/2 or HTTP/1.1 over TLS, as the backend chooses of what it is offered.
    Https(Arc<TlsTarget>),
    /// `h2c://`, HTTP/2 without TLS, by prior knowledge (RFC 9113 §3.3).
    H2c,
}

/// Whether HTTP/2 is spoken to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Use {
    /// HTTP/1.1 is.
    Never,
    /// If the backend chooses it (RFC 7301).
    Offered,
    /// Nothing else is.
    Always,
}

impl Protocol {
    /// Whether HTTP/2 is spoken.
    #[must_use]
    pub fn http2(&self) -> Http2Use {
        match self {
            Self::Http1 => Http2Use::Never,
            Self::H2c => Http2Use::Always,
            Self::Https(target) if target.settings.alpn == Alpn::Http2 => Http2Use::Always,
            Self::Https(target) if target.settings.alpn.offers_http2() => Http2Use::Offered,
            Self::Https(_) => Http2Use::Never,
        }
    }

    /// What stands before `://` in a backend's address: `http`, `https` or `h2c`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Http1 => "http",
            Self::Https(_) => "https",
            Self::H2c => "h2c",
        }
    }

    /// What TLS is spoken with; `None`: there is none.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<TlsTarget>> {
        match self {
            Self::Https(target) => Some(target),
            Self::Http1 | Self::H2c => None,
        }
    }
}

/// How a pool chooses the backend of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// One after the other, in proportion to their weights; exact over all workers.
    RoundRobin,
    /// At random, in proportion to their weights.
    Random,
    /// By a consistent hash of the client's address.
    IpHash,
    /// The backend with the fewest exchanges in flight relative to its weight.
    LeastConnection,
    /// A cookie names the backend; another strategy chooses for new clients.
    StickyCookie(StickyCookie),
}

/// A sticky cookie: its attributes (RFC 6265 §4.1), and the strategy for new clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// The cookie's name, a token (RFC 6265 §4.1.1).
    pub cookie_name: Box<str>,
    /// `HttpOnly`: scripts can't read the cookie; default true.
    pub http_only: bool,
    /// `Secure`: the cookie is sent over HTTPS only; default true.
    pub secure: bool,
    /// `SameSite`; default [`SameSite::Lax`].
    pub same_site: SameSite,
    /// Chooses if the cookie is absent or invalid or its backend unusable; default [`Strategy::RoundRobin`],
    /// and never a sticky cookie itself.
    pub inner: Box<Strategy>,
}

/// The `SameSite` attribute of a cookie: when browsers send it with requests from other sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `Strict`: never.
    Strict,
    /// `Lax`: with navigation by a safe method.
    Lax,
    /// `None`: always, if the cookie is secure.
    None,
}

/// Health checks of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Health {
    /// Time from one check of a backend to the next, at most 366 days; default that of `[health_interval]`,
    /// or else 10 s. Zero: no checks.
    pub check_every: Duration,
    /// The target of the check's request in origin form, 1 to 2048 bytes; default `/`.
    pub path: Box<str>,
    /// The method of the check's request; default [`CheckMethod::Get`].
    pub method: CheckMethod,
    /// `Host` of the check's request, `name` or `name:port`; `None`, the default: [`Backend::host`].
    pub host: Option<Box<str>>,
    /// The port that is checked; `None`, the default: the backend's own. Never with a backend at a Unix
    /// socket.
    pub port: Option<u16>,
    /// Further fields of the check's request, at most 32 and 8192 bytes in all. None of them frames the
    /// request or names its host.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// Statuses of a good response, each range within 200..=599; default 200..=399.
    pub expect: Vec<RangeInclusive<u16>>,
    /// What the first 64 KiB of a good response's content have in them, 1 to 1024 bytes; default nothing.
    /// Never with [`CheckMethod::Head`].
    pub body_contains: Option<Box<str>>,
    /// The service that is checked by `grpc.health.v1`, empty for the server as a whole; `None`, the default:
    /// the check is a request of its own. Never with a backend that speaks HTTP/1.1.
    pub grpc: Option<Box<str>>,
    /// Total time for connecting, the request and as much of its response as is looked at, at least 1 ms;
    /// default 500 ms.
    pub timeout: Duration,
    /// A backend whose check takes this long or longer is slow; default 300 ms, [`Duration::MAX`]: never.
    pub slow_threshold: Duration,
    /// Good checks in a row that make an unhealthy backend usable, 1..=1000; default 1.
    pub rise: u32,
    /// Failed checks in a row that make a backend unhealthy, 1..=1000; default 1.
    pub fall: u32,
    /// Time after its recovery over which a backend's share grows linearly from nothing to its weight;
    /// default 10 s.
    pub ramp_up: Duration,
    /// Share of a slow backend in thousandths of its weight, 1..=1000; default 250.
    pub slow_weight_permille: u32,
}

/// The method of a health check: one without effect and without content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckMethod {
    /// GET.
    Get,
    /// HEAD: no content comes back.
    Head,
    /// OPTIONS.
    Options,
}

impl CheckMethod {
    /// As it is sent.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        }
    }
}

/// Idle connections to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPool {
    /// How long a connection may be idle before it is closed; default 90 s.
    pub idle_timeout: Duration,
    /// Most idle connections for each backend and worker, 0..=1000000; default 32.
    pub max_idle_per_host: u32,
}

/// Every timeout, each at most 366 days or [`Duration::MAX`] (off, written 0). The status of the local reply
/// stands in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accepting a connection, or from the first byte of a later request on it, to the end of the head
    /// (408); default 10 s.
    pub head: Duration,
    /// How long a client's connection may be without a request; default 75 s.
    pub idle: Duration,
    /// For connecting to a backend (504); default 5 s.
    pub connect: Duration,
    /// From the end of the request to the end of the response's head (504); default 30 s.
    pub backend_head: Duration,
    /// How long a body may make no progress, in either direction; default 30 s.
    pub stall: Duration,
    /// How long an upgraded connection may be without a byte in either direction; default 1 h.
    pub tunnel: Duration,
    /// How long a client that has closed its direction while it waits for the response to a request without
    /// effect is served on; default 250 ms.
    pub client_fin: Duration,
    /// For waiting until a backend is below its `max_connections` (503); default 5 s.
    pub queue: Duration,
    /// For a TLS handshake; default 10 s.
    pub handshake: Duration,
    /// For exchanges to end when the process stops; what is left then is cut. Default 30 s.
    pub drain: Duration,
    /// For which everything is served on after a stop has been asked for, while `/readyz` says 503 already,
    /// so that whoever sends requests here can learn of it; default 0.
    pub shutdown_delay: Duration,
}

/// Every limit. The status of the local reply to what exceeds it stands in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the head of a request (431) or a response (502), 1024..=65536; default 16384. Where it is
    /// 65536, one less counts.
    pub head_bytes: u32,
    /// Fields of the head of a request (431) or a response (502), 8..=256; default 100.
    pub fields: u32,
    /// Bytes of a request's target (414), 64..=16000; default 8192.
    pub target_bytes: u32,
    /// Client connections over all workers, 1..=10000000; default 100000.
    pub connections: u32,
    /// Client connections of one IP address over all workers; default 0: no limit.
    pub connections_per_ip: u32,
    /// Bytes of buffers for each worker, 1 MiB..=1 TiB; default 256 MiB.
    pub buffer_bytes: u64,
    /// Requests that wait for a backend below its `max_connections` (503), for each pool and worker,
    /// 0..=1000000; default 1024.
    pub queue: u32,
    /// Requests on one client connection; default 0: no limit.
    pub requests_per_connection: u32,
    /// Bytes a second that a client must send of a body, as the mean over [`Timeouts::stall`]; default 100,
    /// 0: no limit.
    pub min_upload_rate: u32,
    /// Bytes a second that a client must read of a response, as the mean over [`Timeouts::stall`]; default
    /// 100, 0: no limit.
    pub min_download_rate: u32,
}

/// A certificate for a server name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// A host name in lower case, or a wildcard for one label such as `*.example.com`.
    pub name: Box<str>,
    /// Where the certificate comes from.
    pub source: CertificateSource,
    /// Whether the certificate is used if no name fits or the client sent none; default false. At most one
    /// certificate is the default.
    pub default: bool,
    /// The file of the authorities, as PEM and relative to the configuration's folder, that sign the
    /// certificates of clients; `None`, the default: clients are not asked for one.
    pub client_ca: Option<Box<str>>,
    /// Whether a client needs a certificate of `client_ca`; default [`ClientAuth::Required`], which means
    /// nothing without `client_ca`.
    pub client_auth: ClientAuth,
    /// The DNS names that the certificate is for (RFC 6125 §6.4): in lower case, without a final dot, each a
    /// host name or a wildcard for one label such as `*.example.com`. Empty as parsed, since the core opens
    /// no file: the driver fills them in.
    pub sans: Vec<Box<str>>,
}

impl Certificate {
    /// The names that clients get it for: its own, and those of [`Acme::names`].
    pub fn served_names(&self) -> impl Iterator<Item = &str> {
        let more = match &self.source {
            CertificateSource::Acme(acme) => &*acme.names,
            CertificateSource::Local { .. } => &[],
        };
        std::iter::once(&*self.name).chain(more.iter().map(|name| &**name))
    }
}

/// Whether clients need a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    /// A handshake without a valid certificate fails.
    #[default]
    Required,
    /// A client may have none; one that is not valid fails all the same.
    Optional,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Files, relative to the configuration's folder.
    Local {
        /// The chain, as PEM.
        certificate_path: Box<str>,
        /// The private key, as PEM.
        private_key_path: Box<str>,
    },
    /// An ACME authority (RFC 8555).
    Acme(Acme),
}

/// How a certificate is obtained from an ACME authority (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// Whether it is the testing service of Let's Encrypt; default false. False with `directory_url`.
    pub staging: bool,
    /// The contact address of the account.
    pub email: Box<str>,
    /// The folder where account, certificates and the ledger of orders are kept, relative to the
    /// configuration's folder. Several instances may share it.
    pub persist_dir: Box<str>,
    /// The URL of the authority's directory: `https://`, or `http://` to a loopback address; `None`, the
    /// default: Let's Encrypt.
    pub directory_url: Option<Box<str>>,
    /// The file of the authorities, as PEM and relative to the configuration's folder, that the directory's
    /// own certificate is checked with; `None`, the default: those of the system.
    pub ca_file: Option<Box<str>>,
    /// The account that the authority's customer has elsewhere (RFC 8555 §7.3.4); default `None`.
    pub eab: Option<ExternalAccount>,
    /// More names of the certificate, up to 99: host names in lower case, not the certificate's own name,
    /// each once. Default none.
    pub names: Vec<Box<str>>,
    /// The kind of the certificate's key; default [`AcmeKeyType::P256`].
    pub key_type: AcmeKeyType,
    /// The profile of certificates that the authority is asked for; default `None`: its usual one.
    pub profile: Option<Box<str>>,
}

impl Acme {
    /// With nothing but what is required.
    #[must_use]
    pub fn new(email: &str, persist_dir: &str) -> Self {
        Self {
            staging: false,
            email: email.into(),
            persist_dir: persist_dir.into(),
            directory_url: None,
            ca_file: None,
            eab: None,
            names: Vec::new(),
            key_type: AcmeKeyType::default(),
            profile: None,
        }
    }
}

/// An account that a customer of the authority has elsewhere (RFC 8555 §7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Its identifier.
    pub kid: Box<str>,
    /// The key that shows that it is the customer's, decoded.
    pub hmac_key: Box<[u8]>,
}

/// Without the key.
impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalAccount").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AcmeKeyType {
    /// ECDSA on P-256.
    #[default]
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA with 2048 bits, for clients that are very old.
    Rsa2048,
}

/// Which driver runs the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// An event loop for each worker, on `mio`.
    Mio,
    /// An executor for each worker, on `smol`.
    Smol,
}

/// Settings of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Whether requests are logged; default true.
    pub enabled: bool,
    /// The layout of a line; default [`LogFormat::Text`].
    pub format: LogFormat,
    /// A file, relative to the configuration's folder; `None`, the default: standard output.
    pub path: Option<Box<str>>,
}

/// The layout of a line of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Words and numbers for people to read.
    Text,
    /// A JSON object.
    Json,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            check_every: Duration::from_secs(10),
            path: "/".into(),
            method: CheckMethod::Get,
            host: None,
            port: None,
            headers: Vec::new(),
            expect: vec![200..=399],
            body_contains: None,
            grpc: None,
            timeout: Duration::from_millis(500),
            slow_threshold: Duration::from_millis(300),
            rise: 1,
            fall: 1,
            ramp_up: Duration::from_secs(10),
            slow_weight_permille: 250,
        }
    }
}

impl Default for ClientPool {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(90), max_idle_per_host: 32 }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            connect: Duration::from_secs(5),
            backend_head: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            tunnel: Duration::from_secs(3600),
            client_fin: Duration::from_millis(250),
            queue: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            shutdown_delay: Duration::ZERO,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 16_384,
            fields: 100,
            target_bytes: 8192,
            connections: 100_000,
            connections_per_ip: 0,
            buffer_bytes: 256 << 20,
            queue: 1024,
            requests_per_connection: 0,
            min_upload_rate: 100,
            min_download_rate: 100,
        }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { enabled: true, format: LogFormat::Text, path: None }
    }
}
