//! The listener of a shard: clients that have connected and wait to be accepted. It does not know what plays
//! them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ruststrom_core::ConnId;

use super::Net;

/// Clients, as a shard that accepts them sees them: by number.
pub(crate) trait ClientSource {
    /// Where a client connects from.
    fn address(&self, client: usize) -> SocketAddr;
    /// Which of a shard's listeners it connects to, by its place.
    fn listener(&self, client: usize) -> usize {
        let _ = client;
        0
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
#[derive(Debug, Default)]
pub(crate) struct SimListener {
    pub(super) waiting: VecDeque<usize>,
    pub(super) closed: bool,
    /// Somebody has connected since the poller reported it.
    pub(super) edge: bool,
}

impl SimListener {
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

    /// Whether the poller reports it now.
    pub(crate) fn take_edge(&mut self) -> bool {
        std::mem::take(&mut self.edge)
    }
}
