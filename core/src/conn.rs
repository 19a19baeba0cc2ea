//! One socket's state, without the socket.

use std::net::SocketAddr;

use crate::config::ListenerKind;
use crate::h1::machine::MessageStates;
use crate::health::Target;
use crate::http::ip::IpText;
use crate::id::ExchangeId;
use crate::page::{PageId, Pages};
use crate::planted::planted;
use crate::proxy::Wants;
use crate::time::Instant;

/// A connection of a shard.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) role: Role,
    /// What HTTP/1.1 allows next, on both sides of this connection.
    pub(crate) machine: MessageStates,
    pub(crate) inbox: Inbox,
    /// The exchange it serves now.
    pub(crate) exchange: Option<ExchangeId>,
    /// When something must have happened; what it is for follows from the state.
    pub(crate) deadline: Instant,
    /// Where the wheel has it: never later than `deadline`.
    pub(crate) filed: Instant,
    /// Bytes moved in the running minimum-rate window, and when it began.
    pub(crate) window_bytes: u64,
    pub(crate) window_start: Instant,
    /// Whether and why it stands in the list behind `poll_conn`.
    pub(crate) listed: u8,
    /// It found no page to read into and stands in the list of the starved.
    pub(crate) starved: bool,
    /// What `poll_conn` last let the driver see; only compared with, never acted on.
    pub(crate) handed: Wants,
    /// The peer will send nothing more.
    pub(crate) recv_ended: bool,
    /// The socket is of no use any more; what has been received is.
    pub(crate) broken: bool,
}

/// Which side of the proxy it is on.
#[derive(Debug)]
pub(crate) enum Role {
    /// Accepted.
    Client(Client),
    /// Opened by us for requests.
    Backend(Backend),
    /// Opened by us to see how a backend is.
    Probe(Probe),
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    /// Its address as text, which every request tells.
    pub(crate) peer_text: IpText,
    pub(crate) local_port: u16,
    /// Kept from accepting: after a reload the same place may be another listener's.
    pub(crate) kind: ListenerKind,
    /// Among those that `connections_per_ip` counts.
    pub(crate) counted: bool,
    pub(crate) requests: u32,
    /// The peer is one of `trusted_proxies`.
    pub(crate) trusted: bool,
    /// Nothing more is answered: bytes are read and dropped, so that the last answer is not lost to a reset
    /// (RFC 9112 §9.6).
    pub(crate) lingering: bool,
}

#[derive(Debug)]
pub(crate) struct Backend {
    /// Place in the shard's table of backends.
    pub(crate) local: u32,
    /// Which of its addresses.
    pub(crate) place: u8,
    pub(crate) connected: bool,
    /// Lies in the idle list.
    pub(crate) idle: bool,
    /// Exchanges it has carried.
    pub(crate) uses: u32,
    /// How long the backend says it keeps an idle connection, in seconds.
    pub(crate) keep_alive_secs: u32,
}

#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) target: Target,
    pub(crate) runtime: u32,
    pub(crate) connected: bool,
    /// Which of the backend's addresses.
    pub(crate) place: u8,
    pub(crate) started: Instant,
    pub(crate) sent: u32,
}

/// Received bytes that are still needed: `[pay.0, pay.1)` is decoded payload, `[raw, end)` is not yet
/// understood. `pay.0 <= pay.1 <= raw <= end`; what lies between is free.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) page: Option<PageId>,
    pub(crate) pay: (u32, u32),
    pub(crate) raw: u32,
    pub(crate) end: u32,
    /// How much of `raw..` has been searched for the end of a head.
    pub(crate) scanned: u32,
}

impl Inbox {
    /// Nothing in it is needed.
    pub(crate) fn is_empty(&self) -> bool {
        self.pay.0 == self.pay.1 && self.raw == self.end
    }

    pub(crate) fn payload_len(&self) -> usize {
        (self.pay.1 - self.pay.0) as usize
    }

    pub(crate) fn raw_len(&self) -> usize {
        (self.end - self.raw) as usize
    }

    /// Whether more could be read into it, perhaps after moving what is there.
    pub(crate) fn has_room(&self) -> bool {
        match &self.page {
            None => true,
            Some(page) => (self.end as usize) < Pages::size(page) || self.movable(Pages::size(page)),
        }
    }

    /// Moving costs a copy. Payload moves only if that gains half a page, so each byte is moved once at most,
    /// on average; the beginning of a head has to move to have room for its end, and does so once.
    fn movable(&self, size: usize) -> bool {
        let (from, _) = self.needed();
        from > 0 && (from as usize * 2 >= size || self.pay.0 == self.pay.1) || self.is_empty()
    }

    /// First needed byte, and how many are needed.
    fn needed(&self) -> (u32, u32) {
        let from = if self.pay.0 == self.pay.1 { self.raw } else { self.pay.0 };
        (from, self.end - from)
    }

    /// Gives the page back if nothing in it is needed.
    #[inline]
    pub(crate) fn trim(&mut self, pages: &mut Pages) {
        if self.page.is_some() && self.is_empty() {
            self.clear(pages);
        }
    }

    /// Drops everything.
    #[inline(always)]
    pub(crate) fn clear(&mut self, pages: &mut Pages) {
        if let Some(page) = self.page.take()
            && !planted!(1)
        {
            pages.give_back(page);
        }
        *self = Self::default();
    }

    /// Makes the room at the end as large as it can be.
    pub(crate) fn make_room(&mut self, pages: &mut Pages) {
        let Some(page) = &self.page else { return };
        if self.is_empty() {
            (self.pay, self.raw, self.end, self.scanned) = ((0, 0), 0, 0, 0);
        } else if self.end as usize == Pages::size(page) && self.movable(Pages::size(page)) {
            let (from, len) = self.needed();
            pages.bytes_mut(page).copy_within(from as usize..(from + len) as usize, 0);
            if self.pay.0 == self.pay.1 {
                self.pay = (0, 0);
            } else {
                self.pay = (0, self.pay.1 - from);
            }
            self.raw -= from;
            self.end -= from;
        }
    }

    /// The first `n` bytes of the payload are needed no more.
    pub(crate) fn release(&mut self, n: usize) {
        self.pay.0 += n as u32;
        debug_assert!(self.pay.0 <= self.pay.1);
        if self.pay.0 == self.pay.1 {
            self.pay = (self.raw, self.raw);
        }
    }

    /// The first `n` raw bytes have been understood.
    pub(crate) fn consume_raw(&mut self, n: usize) {
        self.raw += n as u32;
        self.scanned = 0;
        debug_assert!(self.raw <= self.end);
        if self.pay.0 == self.pay.1 {
            self.pay = (self.raw, self.raw);
        }
    }

    pub(crate) fn check(&self) {
        assert!(self.pay.0 <= self.pay.1 && self.pay.1 <= self.raw && self.raw <= self.end);
        assert!(self.page.as_ref().map_or(self.end == 0, |p| self.end as usize <= Pages::size(p)));
    }
}
