//! The listener of a shard: clients that have connected and wait to be accepted. It does not know what plays
//! them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ruststrom_core::ConnId;
use ruststrom_core::config::ListenerKind;

use super::Net;

/// Clients, as a shard that accepts them sees them: by number.
pub(crate) trait ClientSource {
    /// Where a client connects from.
    fn address(&self, client: usize) -> SocketAddr;
    /// What it connects to: a listener for HTTPS, or for plain HTTP.
    fn kind(&self, client: usize) -> ListenerKind {
        let _ = client;
        ListenerKind::Http
    }
    /// It was accepted: puts its socket into the net.
    fn accepted(&mut self, client: usize, shard: usize, c: ConnId, net: &mut Net);
    /// The core would not have it.
    fn above_limit(&mut self, client: usize, net: &mut Net) {
        self.refused(client, net);
    }
    /// The listener has closed before it was accepted.
    fn refused(&mut self, client: usize, net: &mut Net);
}

/// A listener and who waits there.
#[derive(Debug)]
pub(crate) struct SimListener {
    pub(crate) kind: ListenerKind,
    pub(crate) address: SocketAddr,
    /// Its place in events; `None`: its worker does not know of it yet, or has closed it.
    pub(super) place: Option<usize>,
    pub(super) waiting: VecDeque<usize>,
    pub(super) closed: bool,
    /// Somebody has connected since the poller reported it.
    pub(super) edge: bool,
}

impl SimListener {
    /// One that is bound. `place`: that of one that is there from the start.
    pub(crate) fn new(kind: ListenerKind, address: SocketAddr, place: Option<usize>) -> Self {
        Self { kind, address, place, waiting: VecDeque::new(), closed: false, edge: false }
    }

    /// A client connects; false if the listener is closed.
    pub(crate) fn connect(&mut self, client: usize) -> bool {
        if !self.closed {
            self.waiting.push_back(client);
            self.edge = true;
        }
        !self.closed
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether its worker waits for connections.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.place.is_some()
    }

    /// Its place, if the poller reports it now.
    pub(crate) fn take_edge(&mut self) -> Option<usize> {
        self.place.filter(|_| std::mem::take(&mut self.edge))
    }

    /// Closes it, and tells who waited there.
    pub(crate) fn close(&mut self) -> VecDeque<usize> {
        (self.closed, self.place) = (true, None);
        std::mem::take(&mut self.waiting)
    }
}
