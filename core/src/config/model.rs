//! The checked configuration: what is left when every question about a file's meaning has been answered.
//! Everything here is plain data; `config::parse` makes it, the machines read it.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::matcher::Matcher;

/// A whole configuration, already checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `http_address`, then `https_address`, then the metrics page, in this order.
    pub listeners: Vec<Listener>,
    /// Pools in file order: the first that matches takes the request.
    pub pools: Vec<Pool>,
    /// `[certificates]` in file order.
    pub certificates: Vec<Certificate>,
    /// Peers whose `X-Forwarded-*` and `X-Request-ID` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Timeouts that hold before a pool is known; a pool has its own copy with its overrides.
    pub timeouts: Timeouts,
    /// Limits that hold before a pool is known.
    pub limits: Limits,
    /// Worker threads; `None`: one for each core.
    pub workers: Option<u16>,
    /// Which driver runs the core.
    pub driver: Driver,
    /// The access log.
    pub access_log: AccessLog,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where to listen; `[::]` is dual stack.
    pub address: SocketAddr,
    /// What arrives there.
    pub kind: ListenerKind,
    /// Written in the file (a port that is taken is then an error) rather than a default (a warning).
    pub explicit: bool,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// Our own `/healthz`, `/readyz` and, later, `/metrics`.
    Admin,
}

/// A backend pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// `name`, else `pool-N` with N counted from 1 in file order. The metric label.
    pub name: Box<str>,
    /// Which requests are its own.
    pub matcher: Matcher,
    /// Taken from plain HTTP listeners.
    pub http: bool,
    /// Taken from TLS listeners.
    pub https: bool,
    /// How a backend is chosen.
    pub strategy: Strategy,
    /// In file order. May be empty (a warning): every request is then answered 503.
    pub backends: Vec<Backend>,
    /// Probing and the three states.
    pub health: Health,
    /// Idle backend connections.
    pub client: ClientPool,
    /// Global timeouts with this pool's overrides.
    pub timeouts: Timeouts,
    /// Global limits with this pool's overrides.
    pub limits: Limits,
    /// Attempts on other backends after the first failed, default 1.
    pub retries: u8,
    /// In file order: the first sees the request first and the answer last.
    pub middlewares: Vec<Middleware>,
}

/// One backend of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// As written, without the scheme: the metric and log label and the identity over reloads.
    pub label: Box<str>,
    /// Where it is.
    pub address: Address,
    /// What it speaks.
    pub protocol: Protocol,
    /// Share among its pool, 1..=1000, default 1. 0 takes no new requests.
    pub weight: u32,
    /// Exchanges in flight at once, over all workers; `None`: no cap.
    pub max_connections: Option<u32>,
    /// Used only while no other backend is usable.
    pub backup: bool,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A host name, resolved again and again in the background.
    Name {
        /// The name, lower case.
        host: Box<str>,
        /// The port.
        port: u16,
    },
}

/// What is spoken to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 in the clear.
    Http1,
    /// `https://`: not built yet, refused at start by name.
    Https,
    /// `h2c://`: not built yet, refused at start by name.
    H2c,
}

/// Which of a pool's backends gets a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Exact circular order, by weight.
    RoundRobin,
    /// Random by weight.
    Random,
    /// Consistent hash of the client's address.
    IpHash,
    /// Fewest exchanges in flight.
    LeastConnection,
    /// A cookie names the backend; `inner` chooses for new clients.
    StickyCookie(StickyCookie),
}

/// The attributes of a sticky cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// A token (RFC 6265 §4.1.1).
    pub cookie_name: Box<str>,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `Secure`.
    pub secure: bool,
    /// `SameSite`.
    pub same_site: SameSite,
    /// Chooses when the cookie is absent, invalid or its backend unusable; never itself a sticky cookie.
    pub inner: Box<Strategy>,
}

/// `SameSite` of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `Strict`
    Strict,
    /// `Lax`
    Lax,
    /// `None`
    None,
}

/// Health checks of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `[health_interval] check_every`; zero: no probes.
    pub check_every: Duration,
    /// `path`, default `/`: an origin-form target.
    pub path: Box<str>,
    /// One total time for connect, request and answer; default 500 ms.
    pub timeout: Duration,
    /// At or above it the backend is slow; default 300 ms.
    pub slow_threshold: Duration,
    /// Good probes in a row that make an unhealthy backend usable; default 1.
    pub rise: u32,
    /// Bad probes in a row that make a backend unhealthy; default 1.
    pub fall: u32,
    /// Share grows linearly from nothing to whole over this time after recovery; default 10 s.
    pub ramp_up: Duration,
    /// Share of a slow backend in thousandths of its weight; default 250 (0.25). 1..=1000.
    pub slow_weight_permille: u32,
}

/// Idle connections to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPool {
    /// How long one may lie idle; default 90 s.
    pub idle_timeout: Duration,
    /// How many may lie idle for each backend and worker; default 32.
    pub max_idle_per_host: u32,
}

/// Every timeout. None is off unless the file says 0, which the parser turns into [`Duration::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept, or from the first byte of a later request, to the whole head (408); default 10 s.
    pub head: Duration,
    /// Client connection without a request; default 75 s.
    pub idle: Duration,
    /// Connecting to a backend; default 5 s.
    pub connect: Duration,
    /// From the end of the request to the head of the answer (504); default 30 s.
    pub backend_head: Duration,
    /// No byte moved although one side should have, either direction; default 30 s.
    pub stall: Duration,
    /// An upgraded connection without a byte either way; default 1 h.
    pub tunnel: Duration,
    /// Waiting for a backend below its `max_connections` (503); default 5 s.
    pub queue: Duration,
    /// TLS handshake; default 10 s.
    pub handshake: Duration,
    /// Graceful stop: what is left after this is cut; default 30 s.
    pub drain: Duration,
}

/// Every limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, request or answer, 1024..=16384; default 16384 (431, 502).
    pub head_bytes: u32,
    /// Fields of a head, 8..=256; default 100 (431, 502).
    pub fields: u32,
    /// Bytes of a request target, 64..=16000; default 8192 (414).
    pub target_bytes: u32,
    /// Client connections over all workers; default 100000.
    pub connections: u32,
    /// Client connections of one address over all workers; 0: no limit, the default.
    pub connections_per_ip: u32,
    /// Memory for bytes under way, for each worker; default 256 MiB.
    pub buffer_bytes: u64,
    /// Requests waiting for a backend below its `max_connections`, for each pool and worker; default 1024
    /// (503).
    pub queue: u32,
    /// Requests on one client connection; 0: no limit, the default.
    pub requests_per_connection: u32,
    /// Slowest a client may send a body, bytes a second over a stall period; default 100, 0: none.
    pub min_upload_rate: u32,
    /// Slowest a client may take an answer, bytes a second over a stall period; default 100, 0: none.
    pub min_download_rate: u32,
}

/// A middleware of a pool: parsed and checked, and refused by name at start until it is built.
#[derive(Clone, Debug, PartialEq)]
pub enum Middleware {
    /// Compression.
    Compression,
    /// At most `limit` requests in any `window` for each client.
    RateLimiter {
        /// 1 or more.
        limit: u32,
        /// 1 s or more.
        window: Duration,
    },
    /// To https.
    HttpsRedirector,
    /// Bodies up to `limit` bytes.
    MaxBodySize {
        /// Bytes.
        limit: u64,
    },
    /// Basic against LDAP.
    Authentication {
        /// `ldap://` or `ldaps://`.
        ldap_address: Box<str>,
        /// Base DN.
        user_directory: Box<str>,
        /// Attribute of the user name.
        rdn_identifier: Box<str>,
        /// Below the base DN too.
        recursive: bool,
    },
    /// Pages by status.
    CustomErrorPages {
        /// Status and path (relative to the file's folder).
        pages: Vec<(u16, Box<str>)>,
    },
}

impl Middleware {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Compression => "Compression",
            Self::RateLimiter { .. } => "RateLimiter",
            Self::HttpsRedirector => "HttpsRedirector",
            Self::MaxBodySize { .. } => "MaxBodySize",
            Self::Authentication { .. } => "Authentication",
            Self::CustomErrorPages { .. } => "CustomErrorPages",
        }
    }
}

/// A certificate for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Server name, or `*.example.com`.
    pub name: Box<str>,
    /// Where it comes from.
    pub source: CertificateSource,
    /// Used when no name fits (or no SNI was sent).
    pub default: bool,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Files, relative to the configuration's folder.
    Local {
        /// PEM chain.
        certificate_path: Box<str>,
        /// PEM key.
        private_key_path: Box<str>,
    },
    /// An ACME authority.
    Acme {
        /// Use the authority's testing service.
        staging: bool,
        /// Contact.
        email: Box<str>,
        /// Where account and certificates are kept.
        persist_dir: Box<str>,
    },
}

/// Which driver runs the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// An event loop for each worker; the default.
    Mio,
    /// The reactor of smol, and an executor for each worker.
    Smol,
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// On by default, to standard output.
    pub enabled: bool,
    /// How a line looks.
    pub format: LogFormat,
    /// A file instead of standard output, relative to the configuration's folder.
    pub path: Option<Box<str>>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            check_every: Duration::from_secs(10),
            path: "/".into(),
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
            queue: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            drain: Duration::from_secs(30),
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
