//! What happened to the sockets of a worker, as its poller reports it.

use ruststrom_core::ConnId;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection can be read or written, or broke.
    Conn(ConnId, Readiness),
    /// The listener at this place, counted from 0, may have connections to accept.
    Listener(usize),
    /// There are commands in the mailbox.
    Mailbox,
}

/// What a poller reported of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Bytes, or the end, can be read.
    pub readable: bool,
    /// Bytes can be written.
    pub writable: bool,
    /// The peer will send no more (EPOLLRDHUP, EPOLLHUP).
    pub closed: bool,
    /// The socket has an error (EPOLLERR).
    pub error: bool,
}
