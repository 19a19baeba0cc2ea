//! Why an exchange failed: one closed set, shared by the log, the metrics and the error response itself.

use crate::event::TlsFault;
use crate::http::Violation;

/// Why a local reply was sent instead of a backend's response, or why an exchange was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The request violates HTTP.
    BadRequest(Violation),
    /// No pool's matcher fits the request.
    NoRoute,
    /// The pool has no usable backend.
    NoBackend,
    /// Every usable backend is at its `max_connections` and the queue is full.
    QueueFull,
    /// The request waited too long for a backend below its `max_connections`.
    QueueTimeout,
    /// A lookup that a middleware needed failed or took too long.
    LookupFailed,
    /// All buffers that `limits.buffer_bytes` allows are in use.
    NoPages,
    /// The backend refused the connection.
    ConnectRefused,
    /// The backend's host or network is unreachable.
    ConnectUnreachable,
    /// The backend did not accept the connection in time.
    ConnectTimeout,
    /// There is no Unix socket at the backend's path.
    ConnectNoSocket,
    /// This process may not connect to the backend: its Unix socket belongs to others.
    ConnectDenied,
    /// The backend does not accept connections as fast as they come: its Unix socket's queue is full.
    ConnectBacklogFull,
    /// Connecting failed for a local reason: no file descriptor, no free port.
    ConnectFailed,
    /// TLS with the backend failed.
    BackendTls(TlsFault),
    /// The backend closed the connection before the head of its response was complete.
    BackendClosed,
    /// The backend reset the connection before the head of its response was complete.
    BackendReset,
    /// The backend's connection of HTTP/2 is dead: neither a PING nor SETTINGS were acknowledged in time.
    BackendLost,
    /// The backend speaks HTTP/2 alone and has not announced that it takes WebSockets (RFC 8441 §3).
    NoWebSockets,
    /// The backend's response violates HTTP.
    BadResponse(Violation),
    /// The head of the response did not come in time.
    BackendTimeout,
    /// The backend stopped in the middle of its response.
    ResponseTruncated,
    /// The backend sent or took nothing for too long in the middle of a body.
    BackendStalled,
    /// The head of the request did not come in time.
    HeadTimeout,
    /// The client sent or took nothing for too long, or less than the minimum rate.
    ClientStalled,
    /// The client closed or reset its connection before the exchange had ended.
    ClientClosed,
    /// An upgraded connection carried nothing for too long.
    TunnelTimeout,
    /// The exchange was still running at the end of a drain and was cut.
    Drained,
    /// A call of gRPC took longer than its client gives it (`grpc-timeout`).
    DeadlineExceeded,
}

impl Cause {
    /// Every cause but the violations, of which [`Violation::ALL`] is the list.
    pub const WITHOUT_VIOLATIONS: &[Self] = &[
        Self::NoRoute,
        Self::NoBackend,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::LookupFailed,
        Self::NoPages,
        Self::ConnectRefused,
        Self::ConnectUnreachable,
        Self::ConnectTimeout,
        Self::ConnectNoSocket,
        Self::ConnectDenied,
        Self::ConnectBacklogFull,
        Self::ConnectFailed,
        Self::BackendTls(TlsFault::UnknownCa),
        Self::BackendTls(TlsFault::WrongName),
        Self::BackendTls(TlsFault::Expired),
        Self::BackendTls(TlsFault::NotYetValid),
        Self::BackendTls(TlsFault::BadCertificate),
        Self::BackendTls(TlsFault::ClientCertificate),
        Self::BackendTls(TlsFault::Refused),
        Self::BackendTls(TlsFault::NotTls),
        Self::BackendTls(TlsFault::Closed),
        Self::BackendTls(TlsFault::Protocol),
        Self::BackendClosed,
        Self::BackendReset,
        Self::BackendLost,
        Self::NoWebSockets,
        Self::BackendTimeout,
        Self::ResponseTruncated,
        Self::BackendStalled,
        Self::HeadTimeout,
        Self::ClientStalled,
        Self::ClientClosed,
        Self::TunnelTimeout,
        Self::Drained,
        Self::DeadlineExceeded,
    ];

    /// A short and stable name: the label of metrics and the word in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest(v) => v.name(),
            Self::NoRoute => "no_route",
            Self::NoBackend => "no_backend",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::LookupFailed => "lookup_failed",
            Self::NoPages => "no_pages",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectUnreachable => "connect_unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectNoSocket => "connect_no_socket",
            Self::ConnectDenied => "connect_denied",
            Self::ConnectBacklogFull => "connect_backlog_full",
            Self::ConnectFailed => "connect_failed",
            Self::BackendTls(fault) => match fault {
                TlsFault::UnknownCa => "backend_tls_unknown_ca",
                TlsFault::WrongName => "backend_tls_wrong_name",
                TlsFault::Expired => "backend_tls_expired",
                TlsFault::NotYetValid => "backend_tls_not_yet_valid",
                TlsFault::BadCertificate => "backend_tls_bad_certificate",
                TlsFault::ClientCertificate => "backend_tls_client_certificate",
                TlsFault::Refused => "backend_tls_refused",
                TlsFault::NotTls => "backend_tls_not_tls",
                TlsFault::Closed => "backend_tls_closed",
                TlsFault::Protocol => "backend_tls_protocol",
            },
            Self::BackendClosed => "backend_closed",
            Self::BackendReset => "backend_reset",
            Self::BackendLost => "backend_lost",
            Self::NoWebSockets => "websocket_not_announced",
            Self::BadResponse(v) => v.name(),
            Self::BackendTimeout => "backend_timeout",
            Self::ResponseTruncated => "response_truncated",
            Self::BackendStalled => "backend_stalled",
            Self::HeadTimeout => "head_timeout",
            Self::ClientStalled => "client_stalled",
            Self::ClientClosed => "client_closed",
            Self::TunnelTimeout => "tunnel_timeout",
            Self::Drained => "drained",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }

    /// Whether an attempt at a backend failed: another one might not have.
    #[must_use]
    pub fn is_of_attempt(self) -> bool {
        matches!(
            self,
            Self::ConnectRefused
                | Self::ConnectUnreachable
                | Self::ConnectTimeout
                | Self::ConnectNoSocket
                | Self::ConnectDenied
                | Self::ConnectBacklogFull
                | Self::ConnectFailed
                | Self::BackendTls(_)
                | Self::BackendClosed
                | Self::BackendReset
                | Self::BackendLost
                | Self::NoWebSockets
                | Self::BadResponse(_)
                | Self::BackendTimeout
                | Self::ResponseTruncated
                | Self::BackendStalled
        )
    }

    /// The status code of the local reply (RFC 9110 §15.5, §15.6); 0 if there never is one, because the
    /// connection is reset.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest(v) => v.status().as_u16(),
            Self::NoRoute => 404,
            Self::NoBackend | Self::QueueFull | Self::QueueTimeout | Self::LookupFailed | Self::NoPages => {
                503
            }
            Self::ConnectTimeout
            | Self::BackendLost
            | Self::BackendTimeout
            | Self::BackendStalled
            | Self::DeadlineExceeded => 504,
            Self::HeadTimeout | Self::ClientStalled => 408,
            // Not registered, but what nginx has made usual for it.
            Self::ClientClosed => 499,
            // Who is cut gets no response.
            Self::TunnelTimeout | Self::Drained => 0,
            _ => 502,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, TlsFault};

    // Does not compile if a cause is missing here: it belongs into the list, too.
    fn is_in_the_list(cause: Cause) -> bool {
        match cause {
            Cause::BadRequest(_) | Cause::BadResponse(_) => false,
            Cause::NoRoute
            | Cause::NoBackend
            | Cause::QueueFull
            | Cause::QueueTimeout
            | Cause::LookupFailed
            | Cause::NoPages
            | Cause::ConnectRefused
            | Cause::ConnectUnreachable
            | Cause::ConnectTimeout
            | Cause::ConnectNoSocket
            | Cause::ConnectDenied
            | Cause::ConnectBacklogFull
            | Cause::ConnectFailed
            | Cause::BackendTls(_)
            | Cause::BackendClosed
            | Cause::BackendReset
            | Cause::BackendLost
            | Cause::NoWebSockets
            | Cause::BackendTimeout
            | Cause::ResponseTruncated
            | Cause::BackendStalled
            | Cause::HeadTimeout
            | Cause::ClientStalled
            | Cause::ClientClosed
            | Cause::TunnelTimeout
            | Cause::Drained
            | Cause::DeadlineExceeded => true,
        }
    }

    #[test]
    fn the_list_has_no_violations_and_the_order_of_the_variants() {
        let all = Cause::WITHOUT_VIOLATIONS;
        assert!(all.iter().all(|cause| is_in_the_list(*cause)));
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "in the order of the variants");
        let tls: Vec<_> = all.iter().filter(|cause| matches!(cause, Cause::BackendTls(_))).copied().collect();
        assert_eq!(tls, TlsFault::ALL.map(Cause::BackendTls));
        assert_eq!((all.first(), all.last()), (Some(&Cause::NoRoute), Some(&Cause::DeadlineExceeded)));
    }
}
