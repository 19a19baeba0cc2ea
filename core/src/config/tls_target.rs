//! What a backend that speaks TLS is connected to with.

use std::net::IpAddr;
use std::sync::Arc;

/// What a TLS connection to a backend needs to know of it. Two are equal if and only if a connection of one
/// may serve the other: sessions are resumed for an equal target alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsTarget {
    /// The label of the backend.
    pub label: Box<str>,
    /// Whom the certificate has to be for.
    pub name: TlsName,
    /// How that is verified; the same value for all backends of a pool.
    pub settings: Arc<BackendTls>,
    /// The same for connections that must not speak HTTP/2, where others may; `None`: there is no other
    /// choice.
    pub http1: Option<Arc<Self>>,
}

/// The protocols that are offered to a backend, the first one preferred (RFC 7301).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `["h2", "http/1.1"]`
    #[default]
    Http2First,
    /// `["http/1.1", "h2"]`
    Http1First,
    /// `["h2"]`: nothing else is spoken.
    Http2,
    /// `["http/1.1"]`
    Http1,
}

/// A name that a backend's certificate has to have among its subject alternative names (RFC 9110 §4.3.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsName {
    /// A host name in lower case, without a final dot. It is sent as the server name (RFC 6066 §3).
    Dns(Box<str>),
    /// An address, never an IPv4-mapped one. No server name is sent.
    Ip(IpAddr),
}

/// `[backend_pools.tls]`: TLS to the `https://` backends of a pool. Paths are relative to the configuration's
/// folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendTls {
    /// The authorities that are trusted, as PEM, instead of those of the system; `None`, the default: those
    /// of the system.
    pub ca_file: Option<Box<str>>,
    /// Stands for the host of every backend, for the server name and the certificate; `None`, the default:
    /// each backend's own host.
    pub server_name: Option<TlsName>,
    /// Whether certificates are verified; default true. If not, anyone is taken for the backend.
    pub verify: bool,
    /// Shown to backends that ask for a certificate; `None`, the default: they get none.
    pub client: Option<ClientCertificate>,
    /// What is offered to be spoken; default HTTP/2 before HTTP/1.1.
    pub alpn: Alpn,
}

/// A certificate that is shown to backends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// The chain, as PEM.
    pub certificate: Box<str>,
    /// The private key, as PEM.
    pub key: Box<str>,
}

impl Alpn {
    /// The names of the protocols (RFC 7301 §6, RFC 9113 §3.2).
    #[must_use]
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Http2First => &["h2", "http/1.1"],
            Self::Http1First => &["http/1.1", "h2"],
            Self::Http2 => &["h2"],
            Self::Http1 => &["http/1.1"],
        }
    }

    /// HTTP/2 is offered.
    #[must_use]
    pub fn offers_http2(self) -> bool {
        self != Self::Http1
    }
}

impl TlsTarget {
    /// To speak HTTP/1.1 with.
    #[must_use]
    pub fn for_http1(self: &Arc<Self>) -> &Arc<Self> {
        self.http1.as_ref().unwrap_or(self)
    }
}

impl TlsName {
    /// What the certificate of a backend at this host has to have; the host is in lower case.
    pub(super) fn of_host(host: &str) -> Self {
        let host = host.strip_suffix('.').unwrap_or(host);
        match host.parse::<IpAddr>() {
            Ok(ip) => Self::Ip(ip.to_canonical()),
            Err(_) => Self::Dns(host.into()),
        }
    }
}

impl Default for BackendTls {
    fn default() -> Self {
        Self { ca_file: None, server_name: None, verify: true, client: None, alpn: Alpn::default() }
    }
}
