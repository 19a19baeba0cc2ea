//! The facade: the inputs and outputs of one worker shard. What happens between them is in `proxy/`.

mod accept;
mod admin;
mod check;
mod choose;
mod end;
mod exchange;
mod lookup;
mod probe;
mod request;
mod response;
mod runtime;
mod starved;
mod timers;
mod transfer;
mod tunnel;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::cause::Cause;
use crate::config::{Config, ListenerKind};
use crate::conn::{Conn, Inbox, Role};
use crate::h1::{FieldIndex, ForwardedHeaders, RequestId};
use crate::health::Schedule;
use crate::http::date;
use crate::id::{ConnId, ExchangeId, ListenerId, LookupId};
use crate::observe::Observer;
use crate::page::Pages;
use crate::planted::planted;
use crate::pool::IdleLinks;
use crate::rng::Rng;
use crate::route::Router;
use crate::shared::Shared;
use crate::slab::Slab;
use crate::time::{Instant, Wall};
use crate::wheel::Wheel;

pub use check::Counts;
use exchange::{Exchange, MessagePipe};
use runtime::{Routing, ShardBackend, ShardPool};

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

/// A connection to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub conn: ConnId,
    /// Its wish to send may have changed too, not only its wish to read: a hint that saves a driver a look.
    pub send: bool,
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
    fn new() -> Self {
        Self { slices: [IoSlice::new(&[]); 8], used: 0 }
    }

    fn push(&mut self, bytes: &'a [u8]) {
        if !bytes.is_empty() {
            self.slices[self.used] = IoSlice::new(bytes);
            self.used += 1;
        }
    }

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
    /// The same, but by a reset, so that the peer cannot take what it has for the whole. The id is already
    /// stale.
    Reset(ConnId),
    /// Find out something; answer with `handle_answer`.
    Lookup {
        /// Names the question.
        id: LookupId,
        /// The question.
        query: Query,
    },
    /// Let that shard's driver call `handle_shared` soon.
    Nudge(u16),
    /// A drain has ended: nothing is left.
    Drained,
}

/// What a lookup asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
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
pub enum LookupResult {
    /// Addresses of a name; never empty.
    Addresses(Vec<SocketAddr>),
    /// Nothing, with a few words why.
    Failed(Box<str>),
}

/// One worker shard: every connection it holds and what to do next with each.
///
/// Verbs follow one grammar: `handle_*` takes what the world did, `poll_*` hands out what to do, plain names
/// are getters. **One input; then drain [`Proxy::poll_conn`] and [`Proxy::poll_effect`] until both are empty;
/// then read [`Proxy::poll_timeout`].**
pub struct Proxy<O: Observer> {
    observer: O,
    shared: Arc<Shared>,
    shard: u16,
    rng: Rng,
    routing: Routing,
    runtimes: Vec<Option<ShardPool>>,
    locals: Vec<ShardBackend>,
    links: IdleLinks,
    conns: Slab<ConnId, Conn>,
    exchanges: Slab<ConnId, Exchange>,
    clients: usize,
    pages: Pages,
    wheel: Wheel,
    /// Connections whose wants may have changed, last first.
    listed: Vec<ConnId>,
    starved: starved::Starved,
    effects: VecDeque<Effect>,
    schedule: Schedule,
    lookups: lookup::Lookups,
    date: [u8; 29],
    /// Sixteen seeded digits and as many of a counter make a request id.
    last_id: RequestId,
    /// By listener: few.
    forwarded_headers: Vec<ForwardedHeaders>,
    /// Buffers of exchanges that have ended, for those to come.
    spare: Vec<Vec<u8>>,
    scratch: Vec<u8>,
    /// Room for the fields of the head that is being read.
    store: FieldIndex,
    /// Runtimes whose queues may be served now.
    to_serve: Vec<u32>,
    drain: Option<Instant>,
    drained: bool,
    /// When the last input came.
    now: Instant,
    touched: Vec<ExchangeId>,
    /// When refused connections were last told of.
    refusing_noted: Option<Instant>,
}

impl<O: Observer> Proxy<O> {
    /// A shard without connections. `seed` must be unpredictable to clients: it keys hashes, random choices
    /// and request ids.
    pub fn new(
        config: Arc<Config>,
        shared: Arc<Shared>,
        shard: u16,
        seed: u64,
        observer: O,
        now: Instant,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let mut last_id = [b'0'; 32];
        for (place, digit) in last_id.iter_mut().zip(format!("{:016x}", rng.next_u64()).bytes()) {
            *place = digit;
        }
        let schedule = Schedule::new(rng.next_u64());
        let mut proxy = Self {
            observer,
            shared,
            shard,
            rng,
            routing: Routing { config: config.clone(), router: Router::new(&[]), runtimes: Box::new([]) },
            runtimes: Vec::new(),
            locals: Vec::new(),
            links: IdleLinks::default(),
            conns: Slab::default(),
            exchanges: Slab::default(),
            clients: 0,
            pages: Pages::new(config.limits.buffer_bytes),
            wheel: Wheel::default(),
            listed: Vec::new(),
            starved: starved::Starved::default(),
            effects: VecDeque::new(),
            schedule,
            lookups: lookup::Lookups::default(),
            date: [b'0'; 29],
            last_id,
            forwarded_headers: Vec::new(),
            spare: Vec::new(),
            scratch: Vec::new(),
            store: FieldIndex::new(),
            to_serve: Vec::new(),
            drain: None,
            drained: false,
            now,
            touched: Vec::new(),
            refusing_noted: None,
        };
        proxy.handle_wall(Wall::default());
        proxy.adopt(config, now);
        proxy
    }

    /// The observer, for what the driver tells it (the wall clock, say).
    pub fn observer_mut(&mut self) -> &mut O {
        &mut self.observer
    }

    /// A connection asked for by [`Effect::Connect`] is there.
    pub fn handle_connected(&mut self, c: ConnId, now: Instant) {
        match self.conns.get_mut(c).map(|conn| &mut conn.role) {
            Some(Role::Backend(b)) => {
                b.connected = true;
                self.backend_connected(c, now);
            }
            Some(Role::Probe(p)) => {
                p.connected = true;
                self.list(c);
            }
            _ => {}
        }
        self.settle(now);
    }

    /// Room lent for reading; empty: do not read now. What is read is told to [`Proxy::handle_recv`] before
    /// anything else is said of this connection.
    pub fn recv_buf(&mut self, c: ConnId) -> &mut [u8] {
        let Some(conn) = self.conns.get_mut(c) else { return &mut [] };
        let x = conn.exchange.map(|x| &self.exchanges[x.0]);
        if !wants_recv(conn, x) {
            return &mut [];
        }
        if conn.inbox.page.is_none() {
            let page = starved::lend(&mut self.pages, conn.begins(), wants_large(conn, x));
            let Some(page) = page else { return self.starve(c) };
            // Afresh: a panic may have lost the page before it.
            conn.inbox = Inbox::default();
            return self.pages.bytes_mut(conn.inbox.page.insert(page));
        }
        conn.inbox.make_room(&mut self.pages);
        let page = conn.inbox.page.as_ref().expect("it has one");
        &mut self.pages.bytes_mut(page)[conn.inbox.end as usize..]
    }

    /// `n` bytes were read into the room; 0 gives it back.
    pub fn handle_recv(&mut self, c: ConnId, n: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(c) else { return };
        if n == 0 {
            conn.inbox.trim(&mut self.pages);
            self.settle(now);
            return;
        }
        conn.inbox.end += n as u32;
        conn.window_bytes += n as u64;
        match &conn.role {
            Role::Client(client) if client.lingering => conn.inbox.clear(&mut self.pages),
            Role::Client(_) => match conn.exchange {
                None => self.read_request(c, now),
                Some(x) => self.request_body(x, now),
            },
            Role::Backend(_) => match conn.exchange {
                // Whatever comes on an idle connection is no answer to anything.
                None => self.close(c),
                Some(x) => self.backend_input(x, c, now),
            },
            Role::Probe(_) => self.probe_input(c, now),
        }
        self.settle(now);
    }

    /// End of stream, after every byte before it.
    pub fn handle_recv_end(&mut self, c: ConnId, now: Instant) {
        let Some(conn) = self.conns.get_mut(c) else { return };
        if std::mem::replace(&mut conn.recv_ended, true) {
            return;
        }
        conn.inbox.trim(&mut self.pages);
        match &conn.role {
            Role::Client(client) if client.lingering => self.close(c),
            Role::Client(_) => self.client_ended(c, now),
            Role::Backend(_) => self.backend_ended(c, now),
            Role::Probe(_) => self.probe_failed(c, Cause::BackendClosed, now),
        }
        self.settle(now);
    }

    /// `n` bytes of [`Proxy::transmit`] have gone.
    pub fn handle_sent(&mut self, c: ConnId, n: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(c) else { return };
        conn.window_bytes += n as u64;
        match (&mut conn.role, conn.exchange) {
            (Role::Client(_), Some(x)) => self.client_sent(x, n, now),
            (Role::Backend(_), Some(x)) => self.backend_sent(x, c, n, now),
            (Role::Probe(p), _) => p.sent += n as u32,
            (_, None) => {}
        }
        self.settle(now);
    }

    /// The socket broke.
    pub fn handle_fault(&mut self, c: ConnId, f: Fault, now: Instant) {
        match self.conns.get(c).map(|conn| &conn.role) {
            Some(Role::Client(_)) => self.client_gone(c, now),
            Some(Role::Backend(_)) => self.backend_fault(c, f, now),
            Some(Role::Probe(p)) => {
                let why = if p.connected { Cause::BackendReset } else { connect_cause(f) };
                self.probe_failed(c, why, now);
            }
            None => {}
        }
        self.settle(now);
    }

    /// A new configuration. Exchanges under way keep theirs, no connection is cut.
    pub fn handle_config(&mut self, config: Arc<Config>, now: Instant) {
        self.adopt(config, now);
        self.settle(now);
    }

    /// Another shard changed something shared: health, addresses, or a slot that an exchange here waits for.
    pub fn handle_shared(&mut self, now: Instant) {
        for runtime in 0..self.runtimes.len() as u32 {
            self.serve_queue(runtime, now);
        }
        self.settle(now);
    }

    /// The wall clock, about once a second.
    pub fn handle_wall(&mut self, w: Wall) {
        date::write_date(w.unix_secs, &mut self.date);
    }

    /// A connection whose wants may have changed.
    pub fn poll_conn(&mut self) -> Option<Listed> {
        while let Some(c) = self.listed.pop() {
            if let Some(conn) = self.conns.get_mut(c) {
                let listed = Listed { conn: c, send: conn.listed == SEND };
                conn.listed = NOT_LISTED;
                if cfg!(debug_assertions) {
                    let wants = self.wants(c);
                    self.conns[c].handed = wants;
                }
                return Some(listed);
            }
        }
        self.rearm_touched();
        None
    }

    /// What it wants now: derived, never stored. Nothing for an id that is stale.
    #[must_use]
    pub fn wants(&self, c: ConnId) -> Wants {
        match self.conns.get(c) {
            Some(conn) => Wants {
                recv: wants_recv(conn, conn.exchange.map(|x| &self.exchanges[x.0])),
                send: self.wants_send(conn),
            },
            None => Wants::default(),
        }
    }

    fn wants_send(&self, conn: &Conn) -> bool {
        let inbox =
            |leg: Option<exchange::Leg>| leg.and_then(|leg| self.conns.get(leg.conn)).map(|c| &c.inbox);
        match (&conn.role, conn.exchange.map(|x| &self.exchanges[x.0])) {
            (Role::Client(_), Some(x)) => x.response.has_output(inbox(x.backend)),
            (Role::Backend(b), Some(x)) => {
                b.connected && !conn.broken && x.request.has_output(inbox(Some(x.client)))
            }
            (Role::Probe(p), _) => p.connected && (p.sent as usize) < self.probe_bytes(p).len(),
            (_, None) => false,
        }
    }

    /// What it has to send: borrowed where the bytes lie.
    #[must_use]
    pub fn transmit(&self, c: ConnId) -> Transmit<'_> {
        let mut out = Transmit::new();
        if let Some((flow, own, inbox)) = self.outgoing(c) {
            for slice in flow.slices(own, inbox, &self.pages) {
                out.push(slice);
            }
        } else if let Some(Role::Probe(p)) = self.conns.get(c).map(|conn| &conn.role)
            && p.connected
        {
            out.push(&self.probe_bytes(p)[p.sent as usize..]);
        }
        out
    }

    /// [`Proxy::transmit`] for a caller that needs the slices only for a call: it moves less about.
    #[inline]
    pub fn with_transmit<R>(&self, c: ConnId, f: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        match self.outgoing(c) {
            Some((flow, own, inbox)) if flow.is_plain() => {
                let [head, payload] = flow.plain_slices(own, inbox, &self.pages);
                match (head.is_empty(), payload.is_empty()) {
                    (true, true) => f(&[]),
                    (false, true) => f(&[IoSlice::new(head)]),
                    (true, false) => f(&[IoSlice::new(payload)]),
                    (false, false) => f(&[IoSlice::new(head), IoSlice::new(payload)]),
                }
            }
            _ => f(self.transmit(c).slices()),
        }
    }

    /// What an exchange's connection sends from: the flow, an answer of our own, and the inbox of its source.
    #[inline]
    fn outgoing(&self, c: ConnId) -> Option<(&MessagePipe, &[u8], Option<&Inbox>)> {
        let conn = self.conns.get(c)?;
        let x = &self.exchanges[conn.exchange?.0];
        let (flow, own, from) = match &conn.role {
            Role::Client(_) => (&x.response, &x.own[..], x.backend.map(|leg| leg.conn)),
            Role::Backend(b) if b.connected && !conn.broken => (&x.request, &[][..], Some(x.client.conn)),
            _ => return None,
        };
        Some((flow, own, from.and_then(|c| self.conns.get(c)).map(|c| &c.inbox)))
    }

    /// What the driver has to do next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether to accept on a listener now.
    #[must_use]
    pub fn accepting(&self, l: ListenerId) -> bool {
        let admin =
            self.routing.config.listeners.get(l.0 as usize).is_some_and(|l| l.kind == ListenerKind::Admin);
        self.drain.is_none() && (admin || !self.pages.scarce())
    }

    /// Whether every backend has been probed once (or none is to be): traffic may be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.schedule.first_round_done()
    }

    /// Puts stages before a pool of the newest configuration: the way in for middlewares.
    pub fn set_chain(&mut self, pool: u16, chain: Vec<Box<dyn crate::middleware::Stage>>) {
        let runtime = self.routing.runtimes[pool as usize];
        self.rt_mut(runtime).chain = chain.into();
    }

    /// Puts a connection into the list behind [`Proxy::poll_conn`]: it may want to read or to send.
    fn list(&mut self, c: ConnId) {
        if let Some(conn) = self.conns.get_mut(c)
            && std::mem::replace(&mut conn.listed, SEND) == NOT_LISTED
        {
            self.listed.push(c);
        }
    }

    /// The same for one that has nothing new to send, but may want to read.
    fn list_recv(&mut self, c: ConnId) {
        if let Some(conn) = self.conns.get_mut(c)
            && conn.listed == NOT_LISTED
        {
            conn.listed = RECV;
            self.listed.push(c);
        }
    }

    /// What an input may have left to do for others: slots and pages have come free.
    fn settle(&mut self, now: Instant) {
        self.now = now;
        self.serve_queues(now);
        if !planted!(4) {
            self.feed_starved();
        }
    }
}

/// What all shards share outlives one that is given up: its clients and its slots are given back. Who drops
/// it nudges the others: they may have waited for those.
impl<O: Observer> Drop for Proxy<O> {
    fn drop(&mut self) {
        for (_, conn) in self.conns.iter() {
            if let Role::Client(client) = &conn.role {
                self.shared.leave(client.peer.ip(), client.counted);
            }
        }
        for (_, e) in self.exchanges.iter().filter(|(_, e)| e.holds_slot) {
            if let (Some(Some(rt)), Some(choice)) =
                (e.runtime.map(|at| self.runtimes[at as usize].as_ref()), e.choice)
            {
                rt.state.finish(choice);
            }
        }
    }
}

/// How a connection stands in the list behind [`Proxy::poll_conn`].
const NOT_LISTED: u8 = 0;
const RECV: u8 = 1;
const SEND: u8 = 2;

/// Whether a connection wants to read. `x`: its exchange.
#[inline]
fn wants_recv(conn: &Conn, x: Option<&Exchange>) -> bool {
    let open = match (&conn.role, x) {
        (Role::Client(_), None) => true,
        (Role::Client(client), Some(x)) => !client.lingering && !x.request.ended && x.takes_request_body(),
        (Role::Backend(b), x) => b.connected && x.is_none_or(|x| !x.response.ended),
        (Role::Probe(p), _) => p.connected,
    };
    open && !conn.recv_ended && conn.inbox.has_room()
}

/// Whether what comes is known to be much more than a page. `x`: its exchange.
#[inline]
fn wants_large(conn: &Conn, x: Option<&Exchange>) -> bool {
    let reader = match (&conn.role, x) {
        (Role::Client(_), Some(x)) => &x.request.reader,
        (Role::Backend(_), Some(x)) if x.phase == exchange::Phase::Responding => &x.response.reader,
        _ => return false,
    };
    reader.remaining().is_some_and(|n| n >= 2 * crate::page::SMALL_BYTES as u64)
}

/// What a broken socket means for a connection that was being opened.
fn connect_cause(f: Fault) -> Cause {
    match f {
        Fault::Refused | Fault::Reset => Cause::ConnectRefused,
        Fault::Unreachable => Cause::ConnectUnreachable,
        Fault::TimedOut => Cause::ConnectTimeout,
        Fault::NoResources | Fault::Other => Cause::ConnectFailed,
    }
}
