//! The facade: the inputs and outputs of one worker shard. What happens between them is in `proxy/`.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::id::{ConnId, ListenerId, LookupId};
use crate::observe::Observer;
use crate::shared::Shared;
use crate::time::{Instant, Wall};

/// A connection that a listener accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Which listener.
    pub listener: ListenerId,
    /// The other side.
    pub peer: SocketAddr,
    /// Our side.
    pub local: SocketAddr,
}

/// Why a connection was not taken: the driver closes the socket at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `limits.connections`.
    TooManyConnections,
    /// `limits.connections_per_ip`.
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
    /// EMFILE, ENFILE, ENOBUFS, EADDRNOTAVAIL: our side has none left.
    NoResources,
    /// Anything else.
    Other,
}

/// What a connection wants of its socket now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Bytes would be read.
    pub recv: bool,
    /// There are bytes to send.
    pub send: bool,
}

/// At most eight slices, borrowed where the bytes lie.
pub struct Transmit<'a> {
    slices: [IoSlice<'a>; 8],
    used: usize,
}

impl<'a> Transmit<'a> {
    /// The slices, none of them empty.
    #[must_use]
    pub fn slices(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.used]
    }
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open a connection; answer with `handle_connected` or `handle_fault`.
    Connect {
        /// Its id from now on.
        conn: ConnId,
        /// Where to.
        to: SocketAddr,
    },
    /// Nothing more will be sent: shut down the sending half once all before it has gone.
    Shutdown(ConnId),
    /// Close the socket. The id is already stale. What had not been sent is dropped.
    Close(ConnId),
    /// Find out something; answer with `handle_answer`.
    Lookup {
        /// Names the question.
        id: LookupId,
        /// The question.
        question: Question,
    },
    /// Let that shard's driver call `handle_shared` soon.
    Nudge(u16),
    /// A drain has ended: nothing is left.
    Drained,
}

/// What a lookup asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The addresses of a host name, with this port.
    Resolve {
        /// Name.
        host: Box<str>,
        /// Port.
        port: u16,
    },
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses of a name; never empty.
    Addresses(Vec<SocketAddr>),
    /// Nothing, with a few words why.
    Failed(Box<str>),
}

/// One worker shard: every connection it holds and what to do next with each.
pub struct Proxy<O: Observer> {
    observer: O,
}

impl<O: Observer> Proxy<O> {
    /// A shard without connections.
    pub fn new(_config: Arc<Config>, _shared: Arc<Shared>, _shard: u16, _seed: u64, observer: O, _now: Instant) -> Self {
        Self { observer }
    }
    /// The observer.
    pub fn observer_mut(&mut self) -> &mut O {
        &mut self.observer
    }
    /// A connection was accepted.
    pub fn handle_accept(&mut self, _a: &Accepted, _now: Instant) -> Result<ConnId, Refused> {
        Err(Refused::Draining)
    }
    /// A connection asked for by [`Effect::Connect`] is there.
    pub fn handle_connected(&mut self, _c: ConnId, _now: Instant) {}
    /// Room lent for reading; empty: do not read now.
    pub fn recv_buf(&mut self, _c: ConnId) -> &mut [u8] {
        &mut []
    }
    /// `n` bytes were read into the room; 0 gives it back.
    pub fn handle_recv(&mut self, _c: ConnId, _n: usize, _now: Instant) {}
    /// End of stream, after every byte before it.
    pub fn handle_recv_end(&mut self, _c: ConnId, _now: Instant) {}
    /// `n` bytes of [`Proxy::transmit`] have gone.
    pub fn handle_sent(&mut self, _c: ConnId, _n: usize, _now: Instant) {}
    /// The socket broke.
    pub fn handle_fault(&mut self, _c: ConnId, _f: Fault, _now: Instant) {}
    /// A lookup ended.
    pub fn handle_answer(&mut self, _l: LookupId, _a: Answer, _now: Instant) {}
    /// A new configuration.
    pub fn handle_config(&mut self, _c: Arc<Config>, _now: Instant) {}
    /// Another shard changed something shared.
    pub fn handle_shared(&mut self, _now: Instant) {}
    /// The wall clock, about once a second.
    pub fn handle_wall(&mut self, _w: Wall) {}
    /// Time has passed; late or repeated calls do nothing.
    pub fn handle_timeout(&mut self, _now: Instant) {}
    /// Take nothing new, end what runs, cut what is left at `until`.
    pub fn drain(&mut self, _until: Instant, _now: Instant) {}
    /// A connection whose wants may have changed.
    pub fn poll_conn(&mut self) -> Option<ConnId> {
        None
    }
    /// What it wants.
    pub fn wants(&self, _c: ConnId) -> Wants {
        Wants::default()
    }
    /// What it has to send.
    pub fn transmit(&self, _c: ConnId) -> Transmit<'_> {
        Transmit { slices: [IoSlice::new(&[]); 8], used: 0 }
    }
    /// What the driver has to do next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        None
    }
    /// Whether to accept on a listener.
    pub fn accepting(&self, _l: ListenerId) -> bool {
        true
    }
    /// When to call `handle_timeout` at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    /// Every structural invariant; panics when one is broken. For tests.
    pub fn check(&self) {}
}
