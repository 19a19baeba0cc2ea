//! What goes into the core and what comes out of it. Everything else in the crate may name these; they name
//! only ids, times and the words of HTTP.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use crate::config::{CredentialSource, ListenerKind, TlsTarget};
use crate::endpoint::Endpoint;
use crate::id::{ConnId, ListenerId, LookupId};
use crate::secret::Secret;

/// A connection that a listener accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Which listener: an identity that the driver gives and that outlives reloads.
    pub listener: ListenerId,
    /// What that listener serves.
    pub kind: ListenerKind,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
}

/// What the security layer of a connection has agreed on, once its handshake is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Negotiated<'a> {
    /// The server name that the client asked for (RFC 6066 §3), if it named one.
    pub server_name: Option<&'a str>,
    /// The application protocol that was agreed on (RFC 7301), if any.
    pub alpn: Option<&'a [u8]>,
    /// Place in [`Config::certificates`](crate::config::Config::certificates) of what the client was shown.
    pub certificate: Option<u16>,
    /// The version, as nginx and OpenSSL write it: `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, as IANA has registered it.
    pub cipher: &'static str,
    /// An earlier session was resumed.
    pub resumed: bool,
    /// Subject of the certificate that the client has shown, if it did, in one line without control
    /// characters; the certificate has been verified.
    pub client_subject: Option<&'a str>,
}

/// Why a connection was not taken: the driver closes the socket at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `limits.connections` is reached.
    TooManyConnections,
    /// `limits.connections_per_ip` is reached.
    TooManyFromAddress,
    /// The process is draining.
    Draining,
}

/// What went wrong with a socket, from the driver's errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// ECONNREFUSED on connect.
    Refused,
    /// ENETUNREACH, EHOSTUNREACH.
    Unreachable,
    /// ECONNRESET, EPIPE.
    Reset,
    /// ETIMEDOUT of the kernel.
    TimedOut,
    /// ENOENT, ENOTDIR, ELOOP, EPROTOTYPE on connect: there is no Unix stream socket at the path.
    NoSocket,
    /// EACCES on connect: this process may not.
    Denied,
    /// EAGAIN on connect: the queue of a Unix socket's listener is full (unix(7)).
    BacklogFull,
    /// TLS failed, in its handshake or later.
    Tls(TlsFault),
    /// A client speaks HTTP without TLS where TLS is expected.
    PlainHttp,
    /// There is no certificate for the server name that a client asks for.
    UnrecognizedName,
    /// EMFILE, ENFILE, ENOBUFS, EADDRNOTAVAIL: this machine has none left.
    NoResources,
    /// Any other errno.
    Other,
}

impl Fault {
    /// In a few words, for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "host unreachable",
            Self::Reset => "connection reset",
            Self::TimedOut => "timed out",
            Self::NoSocket => "no Unix socket at the path",
            Self::Denied => "permission denied",
            Self::BacklogFull => "the queue of the Unix socket is full",
            Self::Tls(fault) => fault.name(),
            Self::PlainHttp => "plain HTTP on a port for TLS",
            Self::UnrecognizedName => "no certificate for that server name",
            Self::NoResources => "out of resources",
            Self::Other => "an unexpected error",
        }
    }
}

/// What went wrong with the TLS of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsFault {
    /// No authority that is trusted has signed its certificate.
    UnknownCa,
    /// Its certificate is for other names.
    WrongName,
    /// Its certificate, or one that signed it, has expired.
    Expired,
    /// Its certificate, or one that signed it, is not valid yet.
    NotYetValid,
    /// Its certificate cannot be used for another reason: malformed, not for servers, a bad signature.
    BadCertificate,
    /// It said by an alert (RFC 8446 §6) that it wants a certificate, or does not take ours.
    ClientCertificate,
    /// It sent another alert: mostly no version or cipher suite suits both.
    Refused,
    /// What it sent is not TLS.
    NotTls,
    /// It closed or reset the connection, without the alert that ends TLS.
    Closed,
    /// It broke the rules of TLS in another way.
    Protocol,
}

impl TlsFault {
    /// Every fault.
    pub const ALL: [Self; 10] = [
        Self::UnknownCa,
        Self::WrongName,
        Self::Expired,
        Self::NotYetValid,
        Self::BadCertificate,
        Self::ClientCertificate,
        Self::Refused,
        Self::NotTls,
        Self::Closed,
        Self::Protocol,
    ];

    /// In a few words, for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownCa => "a certificate of an unknown authority",
            Self::WrongName => "a certificate for other names",
            Self::Expired => "an expired certificate",
            Self::NotYetValid => "a certificate that is not valid yet",
            Self::BadCertificate => "an unusable certificate",
            Self::ClientCertificate => "no client certificate that is wanted",
            Self::Refused => "refused by an alert",
            Self::NotTls => "no TLS",
            Self::Closed => "closed without the end of TLS",
            Self::Protocol => "a broken rule of TLS",
        }
    }
}

/// A connection that the driver has to look at: what it wants may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The connection.
    pub conn: ConnId,
    /// It may want to send something new, and not only to read: a hint that saves the driver a look.
    pub send: bool,
    /// It carries many streams: what it has to send may wait for the end of the turn, and goes with what
    /// others have to send by then.
    pub gathers: bool,
}

/// What a connection wants of its socket now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Bytes would be read.
    pub recv: bool,
    /// There are bytes to send.
    pub send: bool,
}

/// At most eight slices to send, borrowed where the bytes lie.
pub struct Transmit<'a> {
    slices: [IoSlice<'a>; 8],
    used: usize,
}

impl<'a> Transmit<'a> {
    pub(crate) fn new() -> Self {
        Self { slices: [IoSlice::new(&[]); 8], used: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &'a [u8]) {
        if !bytes.is_empty() {
            self.slices[self.used] = IoSlice::new(bytes);
            self.used += 1;
        }
    }

    /// The slices in order, none of them empty.
    #[must_use]
    pub fn slices(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.used]
    }
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open a connection; tell how it went by `handle_connected` or `handle_fault`.
    Connect {
        /// Its id from now on.
        conn: ConnId,
        /// Where to connect.
        to: Endpoint,
        /// TLS is to be spoken: then it is `handle_connected` once its handshake is over, or
        /// [`Fault::Tls`].
        tls: Option<Arc<TlsTarget>>,
    },
    /// Shut down the sending half once everything before it has been sent.
    Shutdown(ConnId),
    /// Close the socket. The id is already stale; what has not been sent is dropped.
    Close(ConnId),
    /// Close the socket by a reset, so that the peer cannot take what it has for the whole. The id is already
    /// stale.
    Reset(ConnId),
    /// Find something out; hand the result to `handle_lookup`.
    Lookup {
        /// Names the lookup.
        id: LookupId,
        /// What is to be found out.
        query: Query,
    },
    /// Let that shard's driver call `handle_shared` soon.
    Nudge(u16),
    /// A drain has ended: no connection is left.
    Drained,
}

/// What a lookup is to find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The addresses of a host name, with this port.
    Resolve {
        /// The name.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// Whether these credentials are good.
    Authenticate {
        /// Who knows users and passwords.
        source: Arc<CredentialSource>,
        /// The user; neither empty nor with control characters.
        user: Box<str>,
        /// The password, which is not empty. Never logged.
        password: Secret,
        /// Whether anybody still waits for the result.
        wanted: Wanted,
    },
    /// The page of metrics, for the admin listener.
    Metrics {
        /// As OpenMetrics 1.0, else as the text format 0.0.4 of Prometheus.
        open_metrics: bool,
    },
    /// What there is and how it is, as JSON, for the admin listener.
    Status,
}

/// Somebody waits for the result of a lookup, until this is dropped.
#[derive(Debug)]
pub struct Waiting {
    _alive: Arc<()>,
}

/// Tells whether somebody still waits for the result of a lookup: where that costs much there is no sense in
/// it for a client that has gone.
#[derive(Clone, Debug)]
pub struct Wanted(Weak<()>);

impl Waiting {
    /// Somebody waits.
    #[must_use]
    pub fn new() -> (Self, Wanted) {
        let alive = Arc::new(());
        let wanted = Wanted(Arc::downgrade(&alive));
        (Self { _alive: alive }, wanted)
    }
}

impl Wanted {
    /// Whether somebody waits; once nobody does nobody will.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl PartialEq for Wanted {
    /// Queries are compared by what they ask for, whoever asks.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Wanted {}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// Addresses of a name; never empty.
    Addresses(Vec<SocketAddr>),
    /// Whether the credentials are good. If that could not be found out it is [`LookupResult::Failed`].
    Authenticated(bool),
    /// A page of text, of any length.
    Page {
        /// Its media type.
        content_type: &'static str,
        /// The text.
        body: std::sync::Arc<[u8]>,
    },
    /// Nothing, with a few words why.
    Failed(Box<str>),
}

/// What the next timeout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimeoutReason {
    /// A deadline of a connection or an exchange.
    Deadline,
    /// A health check is due.
    HealthCheck,
    /// A name is to be looked up again.
    Lookup,
    /// The end of a drain.
    DrainEnd,
}
