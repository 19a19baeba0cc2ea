//! One socket's state, without the socket.

use std::net::{IpAddr, SocketAddr};

use crate::config::ListenerKind;
use crate::health::ProbeTarget;
use crate::health::check::Search;
use crate::http::ip::IpText;
use crate::id::{ExchangeId, ListenerId};
use crate::time::Instant;
use crate::wire::Wire;

/// A connection of a shard.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) role: Role,
    pub(crate) wire: Wire,
    /// The exchange that it serves now, if it serves one at a time.
    pub(crate) exchange: Option<ExchangeId>,
    /// When something of the connection itself must have happened; what it is for follows from the state.
    pub(crate) deadline: Instant,
    /// Where the wheel has it: never later than `deadline`.
    pub(crate) filed: Instant,
    /// When the first byte of the head that is coming came; [`Instant::NEVER`] if none has, or all has.
    pub(crate) head_started: Instant,
    /// Whether and why it stands in the ready queue.
    pub(crate) ready: InReadyQueue,
    /// It found no page to read into and stands among the buffer waiters.
    pub(crate) waits_for_page: bool,
    /// What the driver was last shown; only compared with, never acted on.
    #[cfg(debug_assertions)]
    pub(crate) shown: crate::event::Wants,
    /// The peer will send nothing more.
    pub(crate) recv_ended: bool,
    /// The peer has closed its direction, and what it has sent before may not have been read.
    pub(crate) peer_closing: bool,
    /// The socket is of no use any more; what has been received is.
    pub(crate) broken: bool,
}

/// How a connection stands in the queue behind `poll_conn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InReadyQueue {
    No,
    /// It may want to read.
    Recv,
    /// It may want to send something new, or to read.
    Send,
}

/// Which side of the proxy it is on.
#[derive(Debug)]
pub(crate) enum Role {
    /// Accepted.
    Client(Client),
    /// Opened for requests.
    Backend(Backend),
    /// Opened to check a backend's health.
    Probe(Probe),
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    /// The peer's address as text, which every request tells.
    pub(crate) peer_text: IpText,
    pub(crate) kind: ListenerKind,
    pub(crate) listener: ListenerId,
    /// Place of what backends are told of its listener.
    pub(crate) forwarded_headers: u16,
    /// Among those that `connections_per_ip` counts.
    pub(crate) counted: bool,
    pub(crate) requests: u32,
    /// The peer is one of `trusted_proxies`.
    pub(crate) trusted: bool,
    /// Nothing more is answered: bytes are read and dropped, so that the last response is not lost to a
    /// reset (RFC 9112 §9.6).
    pub(crate) lingering: bool,
}

/// A connection to a backend.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Place in the shard's table of backends.
    pub(crate) backend: u32,
    /// The address that it leads to; `None`: its backend's Unix socket.
    pub(crate) to: Option<SocketAddr>,
    /// The backend's epoch when it was opened, or last found to be good.
    pub(crate) epoch: u32,
    pub(crate) connected: bool,
    /// Stands in the idle list.
    pub(crate) idle: bool,
    /// Lies idle for one client alone.
    pub(crate) bound: bool,
    /// Exchanges that it has carried.
    pub(crate) uses: u32,
    /// How long the backend says it keeps an idle connection, in seconds.
    pub(crate) keep_alive_secs: u32,
}

/// A health check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) target: ProbeTarget,
    /// Slot of the pool in the shard's table.
    pub(crate) pool: u32,
    pub(crate) connected: bool,
    /// The round that it belongs to, and which of its addresses.
    pub(crate) round: u32,
    pub(crate) address: u8,
    pub(crate) started: Instant,
    /// Of the response, once its head is there and its content is looked at; 0 before.
    pub(crate) status: u16,
    pub(crate) search: Search,
}

impl Client {
    /// The peer. (Kept in parts: a `SocketAddr` takes more room, and there may be a million of them.)
    pub(crate) fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

impl Conn {
    pub(crate) fn new(role: Role, wire: Wire) -> Self {
        Self {
            role,
            wire,
            exchange: None,
            deadline: Instant::NEVER,
            filed: Instant::NEVER,
            head_started: Instant::NEVER,
            ready: InReadyQueue::No,
            waits_for_page: false,
            #[cfg(debug_assertions)]
            shown: crate::event::Wants::default(),
            recv_ended: false,
            peer_closing: false,
            broken: false,
        }
    }

    /// Of an accepted connection.
    pub(crate) fn client(&self) -> &Client {
        match &self.role {
            Role::Client(client) => client,
            _ => unreachable!("a client connection"),
        }
    }

    /// Of an accepted connection.
    pub(crate) fn client_mut(&mut self) -> &mut Client {
        match &mut self.role {
            Role::Client(client) => client,
            _ => unreachable!("a client connection"),
        }
    }

    /// Whether it serves an exchange, or more.
    pub(crate) fn is_busy(&self) -> bool {
        self.exchange.is_some() || self.wire.streams().is_some_and(|streams| !streams.exchanges.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::{Client, Conn};
    use crate::wire::Wire;

    /// There may be a million idle connections: their memory is theirs alone.
    #[test]
    fn a_connection_takes_few_bytes() {
        // A debug build remembers for its checks what the driver was shown.
        let debug = if cfg!(debug_assertions) { 8 } else { 0 };
        let sizes = [size_of::<Conn>(), size_of::<Wire>(), size_of::<Client>()];
        assert_eq!(sizes, [200 + debug, 104, 56], "connection, wire, client");
    }
}
