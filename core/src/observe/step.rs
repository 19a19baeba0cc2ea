//! What one connection goes through, for whoever has to find out why something is as it is. Nobody makes any
//! of these unless the observer wants them.

use std::fmt;
use std::net::SocketAddr;

use crate::cause::Cause;
use crate::config::{ListenerKind, Matcher};
use crate::endpoint::Endpoint;
use crate::id::ConnId;
use crate::observe::Tls;
use crate::route::RouteInput;

/// A step of a connection. What it prints is a line of a log behind the connection's name.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Step<'a> {
    /// A listener accepted it.
    Accepted {
        /// The peer.
        peer: SocketAddr,
        /// The port that it connected to.
        port: u16,
        /// What is served there.
        kind: ListenerKind,
    },
    /// TLS has agreed on this.
    Negotiated {
        /// All of it.
        tls: Tls<'a>,
    },
    /// The handshake with a client failed.
    HandshakeFailed {
        /// Why.
        why: &'static str,
    },
    /// The head of a request has been read, and pools were looked at in their order.
    Routed {
        /// What they were compared with.
        asked: &'a RouteInput<'a>,
        /// The normalised target.
        target: &'a [u8],
        /// Name and matcher of the pool that takes it; `None`: none does.
        pool: Option<(&'a str, &'a Matcher)>,
        /// How many pools before it do not.
        passed: usize,
    },
    /// A backend was chosen.
    Chosen {
        /// Its label.
        backend: &'a str,
        /// The strategy, or that the client's cookie named it.
        by: &'static str,
    },
    /// Every usable backend is at its `max_connections`.
    Full,
    /// No backend can be chosen.
    NoneLeft {
        /// How many were tried for this request.
        tried: usize,
    },
    /// An idle connection carries the request.
    Reused {
        /// The backend's label.
        backend: &'a str,
        /// The connection.
        conn: ConnId,
        /// Exchanges that it has carried before.
        uses: u32,
    },
    /// A connection is opened for the request.
    Connecting {
        /// The backend's label.
        backend: &'a str,
        /// The connection.
        conn: ConnId,
        /// Where to.
        to: &'a Endpoint,
    },
    /// A connection that is being opened for others will carry the request too.
    Joined {
        /// The backend's label.
        backend: &'a str,
        /// The connection.
        conn: ConnId,
    },
    /// It has come about.
    Connected,
    /// An attempt failed.
    AttemptFailed {
        /// The backend's label.
        backend: &'a str,
        /// Why.
        cause: Cause,
    },
    /// The head of a backend's final response has been read.
    Responded {
        /// The backend's label.
        backend: &'a str,
        /// Its status code.
        status: u16,
    },
    /// An exchange is over.
    Ended {
        /// What the client got.
        status: u16,
        /// Why it is not the backend's response, or not all of it.
        cause: Option<Cause>,
    },
    /// A health check is sent on it.
    Checking {
        /// The backend's label.
        backend: &'a str,
        /// Where to.
        to: &'a Endpoint,
    },
    /// That check has ended.
    Checked {
        /// What was seen.
        seen: &'a str,
    },
    /// The time that it had for something is over.
    Expired,
    /// It is closed.
    Closed {
        /// By a reset.
        reset: bool,
        /// Why.
        why: &'static str,
    },
    /// Bytes were read.
    Received {
        /// How many.
        bytes: usize,
    },
    /// Bytes were sent.
    Sent {
        /// How many.
        bytes: usize,
    },
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Accepted { peer, port, kind } => {
                write!(f, "accepted {peer} on port {port} ({})", kind.name())
            }
            Self::Negotiated { tls } => {
                let how = if tls.resumed { "resumed" } else { "full handshake" };
                write!(f, "{} with {}, {how}", tls.version, tls.cipher)?;
                if tls.server_name.is_empty() { Ok(()) } else { write!(f, ", for {}", tls.server_name) }
            }
            Self::HandshakeFailed { why } => write!(f, "the handshake failed: {why}"),
            Self::Routed { asked, target, pool, passed } => {
                let [method, host, target] = [asked.method, asked.host, target].map(<[u8]>::escape_ascii);
                write!(f, "\"{method} {target}\" for \"{host}\": ")?;
                match pool {
                    Some((name, Matcher::Any)) => write!(f, "pool {name}, which takes everything")?,
                    Some((name, matcher)) => write!(f, "pool {name} by {matcher}")?,
                    None => f.write_str("no pool takes it")?,
                }
                match passed {
                    0 => Ok(()),
                    n => write!(f, "; {n} looked at in vain"),
                }
            }
            Self::Chosen { backend, by } => write!(f, "backend {backend} chosen by {by}"),
            Self::Full => f.write_str("every usable backend is at its max_connections"),
            Self::NoneLeft { tried } => write!(f, "no backend can be chosen, {tried} tried"),
            Self::Reused { backend, conn, uses } => {
                write!(f, "backend {backend} by idle connection {}, used {uses} times", Name(conn))
            }
            Self::Connecting { backend, conn, to } => {
                write!(f, "backend {backend} by new connection {} to {to}", Name(conn))
            }
            Self::Joined { backend, conn } => {
                write!(f, "backend {backend} by connection {}, which is being opened", Name(conn))
            }
            Self::Connected => f.write_str("connected"),
            Self::AttemptFailed { backend, cause } => {
                write!(f, "attempt at backend {backend} failed: {}", cause.name())
            }
            Self::Responded { backend, status } => write!(f, "backend {backend} responded {status}"),
            Self::Ended { status, cause } => {
                write!(f, "exchange ended: {status}")?;
                cause.map_or(Ok(()), |cause| write!(f, " {}", cause.name()))
            }
            Self::Checking { backend, to } => write!(f, "health check of backend {backend} at {to}"),
            Self::Checked { seen } => write!(f, "health check ended: {seen}"),
            Self::Expired => f.write_str("its time is over"),
            Self::Closed { reset: false, why } => write!(f, "closed: {why}"),
            Self::Closed { reset: true, why } => write!(f, "reset: {why}"),
            Self::Received { bytes } => write!(f, "received {bytes} bytes"),
            Self::Sent { bytes } => write!(f, "sent {bytes} bytes"),
        }
    }
}

/// A connection's name in logs: unique in its worker, as long as that lives.
#[derive(Clone, Copy, Debug)]
pub struct Name(pub ConnId);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.slot, self.0.epoch)
    }
}
