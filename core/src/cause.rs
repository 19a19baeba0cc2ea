//! Why an exchange failed: one closed set, shared by the log, the metrics and the answer itself.

use crate::http::Violation;

/// Why we made an answer ourselves, or why an exchange broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The client broke a rule of HTTP.
    BadRequest(Violation),
    /// No pool takes the request.
    NoRoute,
    /// The pool has no usable backend.
    NoBackend,
    /// Every usable backend is at its `max_connections` and the queue is full.
    QueueFull,
    /// Waited too long for a backend below its `max_connections`.
    QueueTimeout,
    /// What a middleware had to know could not be found out.
    LookupFailed,
    /// No memory for bytes under way (`limits.buffer_bytes`).
    NoPages,
    /// The backend refused the connection.
    ConnectRefused,
    /// No way to the backend.
    ConnectUnreachable,
    /// The backend did not take the connection in time.
    ConnectTimeout,
    /// Connecting failed for a reason of our own (files, ports).
    ConnectFailed,
    /// The backend closed the connection before its answer.
    BackendClosed,
    /// The backend reset the connection before its answer.
    BackendReset,
    /// The backend's answer breaks a rule of HTTP.
    BadResponse(Violation),
    /// No head of an answer in time.
    BackendTimeout,
    /// The backend stopped in the middle of its answer.
    ResponseTruncated,
    /// The backend sent or took nothing for too long in the middle of a body.
    BackendStalled,
    /// The client was too slow with its head.
    HeadTimeout,
    /// The client sent or took nothing for too long, or less than the minimum rate.
    ClientStalled,
    /// The client closed or reset its connection before the end.
    ClientGone,
    /// An upgraded connection carried nothing for too long.
    TunnelTimeout,
    /// Cut at the end of a drain.
    Drained,
}

impl Cause {
    /// Short and stable: the metric label and the log's word.
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
            Self::ConnectFailed => "connect_failed",
            Self::BackendClosed => "backend_closed",
            Self::BackendReset => "backend_reset",
            Self::BadResponse(v) => v.name(),
            Self::BackendTimeout => "backend_timeout",
            Self::ResponseTruncated => "response_truncated",
            Self::BackendStalled => "backend_stalled",
            Self::HeadTimeout => "head_timeout",
            Self::ClientStalled => "client_stalled",
            Self::ClientGone => "client_gone",
            Self::TunnelTimeout => "tunnel_timeout",
            Self::Drained => "drained",
        }
    }

    /// The status of the answer we make (RFC 9110 §15.5, §15.6).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest(v) => v.status(),
            Self::NoRoute => 404,
            Self::NoBackend
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::LookupFailed
            | Self::NoPages
            | Self::Drained => 503,
            Self::ConnectTimeout | Self::BackendTimeout | Self::BackendStalled => 504,
            Self::HeadTimeout | Self::ClientStalled => 408,
            Self::ClientGone | Self::TunnelTimeout => 400,
            _ => 502,
        }
    }
}
