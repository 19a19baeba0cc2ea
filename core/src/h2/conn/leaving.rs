//! How a connection is left (RFC 9113 §6.8): a server tells its client twice, first that there will be no
//! new streams, and once that is known, which was the last.

use super::{Conn, Role};
use crate::h2::frame::MAX_STREAM;
use crate::h2::reason::Reason;
use crate::h2::write;
use crate::planted::planted;

/// How far we are with leaving (RFC 9113 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    No,
    /// The peer was told that it will be told.
    Announced,
    /// No stream above this one is taken.
    Final(u32),
}

/// The PING behind the first GOAWAY: once it is answered, the peer knows.
pub(super) const DRAIN_PING: [u8; 8] = *b"draining";

impl Conn {
    /// No new streams, as soon as the peer knows; those that are open go on (RFC 9113 §6.8).
    pub fn drain(&mut self) {
        if self.drain != Drain::No || self.failed {
            return;
        }
        if self.role == Role::Client {
            self.drain = Drain::Final(0);
            return write::go_away(&mut self.out, 0, Reason::NO_ERROR);
        }
        self.drain = Drain::Announced;
        write::go_away(&mut self.out, MAX_STREAM, Reason::NO_ERROR);
        write::ping(&mut self.out, false, DRAIN_PING);
    }

    /// The peer knows that we leave: streams from now on are not taken.
    pub(super) fn drained(&mut self) {
        self.drain = Drain::Final(self.last_peer);
        let last = if planted!(164) { self.last_peer.saturating_sub(2) } else { self.last_peer };
        write::go_away(&mut self.out, last, Reason::NO_ERROR);
    }

    /// It has told the peer that it takes no more streams, and none is left.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        matches!(self.drain, Drain::Final(_)) && self.streams.len() == 0
    }

    /// The peer takes no new streams, or we don't.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.failed || self.peer_last.is_some() || self.drain != Drain::No
    }
}
