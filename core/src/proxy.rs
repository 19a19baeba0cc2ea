//! The facade: the inputs and outputs of one worker shard. What happens between them is in `proxy/`.

mod accept;
mod admin;
mod backend_streams;
mod bound;
mod buffer_waiters;
mod chain;
mod check;
mod choose;
mod end;
mod exchange;
mod grpc;
mod lookup;
mod pipe;
mod probe;
mod probe_streams;
mod request;
mod response;
mod secured;
mod shard_pool;
mod steps;
mod streams;
mod timers;
mod transfer;
mod tunnel;
mod websockets;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::cause::Cause;
use crate::config::{Config, ListenerKind};
use crate::conn::{Conn, InReadyQueue, Role};
use crate::event::{Effect, Fault, Ready, TlsFault, Transmit, Wants};
use crate::h1::conn::HeadParser;
use crate::h1::{ForwardedHeaders, RequestId};
use crate::h2::keepalive::Patience;
use crate::health::Schedule;
use crate::http::ip::IpText;
use crate::http::{RequestHead, ResponseHead, date};
use crate::id::{ConnId, ExchangeId};
use crate::observe::{Observer, Step};
use crate::page::{Pages, SMALL_BYTES};
use crate::planted::planted;
use crate::rng::Rng;
use crate::route::ListenerIds;
use crate::shared::Shared;
use crate::slab::Slab;
use crate::time::{Instant, Wall};
use crate::wheel::Wheel;
use crate::wire::{Multiplexed, Received, Streams, Wire};

pub use check::Counts;
use exchange::{Exchange, Phase};
use pipe::MessagePipe;
use shard_pool::PoolTable;

/// One worker shard: every connection it holds and what to do next with each.
///
/// Verbs follow one grammar: `handle_*` takes what the world did, `poll_*` hands out what to do, plain names
/// are getters. **One input; then drain [`Proxy::poll_conn`] and [`Proxy::poll_effect`] until both are empty;
/// then read [`Proxy::poll_timeout`].**
pub struct Proxy<O: Observer> {
    observer: O,
    identity: Identity,
    tables: Tables,
    pools: PoolTable,
    signals: Signals,
    timers: Timers,
    /// When each backend is checked next.
    checks: Schedule,
    bound: bound::BoundConns,
    secured: secured::SecuredClients,
    /// How many backends requests had found to be away when this shard last looked.
    marked_down: u64,
    /// Checks under way.
    probe_rounds: probe::ProbeRounds,
    lookups: lookup::Lookups,
    scratch: Scratch,
    drain: Drain,
    /// When refused connections were last noted.
    refusing_noted: Option<Instant>,
    /// What backends speak, if not HTTP/1.1.
    backend_protocol: Option<fn() -> Box<dyn Multiplexed>>,
}

/// Which shard this is, and what it names things by.
struct Identity {
    shared: Arc<Shared>,
    shard: u16,
    rng: Rng,
    /// Sixteen seeded digits and as many of a counter make a request id.
    last_id: RequestId,
    date: [u8; 29],
    /// By listener: few.
    forwarded_headers: Vec<ForwardedHeaders>,
}

/// Everything that has an id, and the memory of what is under way.
struct Tables {
    conns: Slab<ConnId, Conn>,
    exchanges: Slab<ExchangeId, Exchange>,
    pages: Pages,
    clients: usize,
}

/// What is left to do once an input has been dealt with.
#[derive(Default)]
struct Signals {
    /// Connections whose wants may have changed, last first.
    ready: Vec<ConnId>,
    effects: VecDeque<Effect>,
    /// Exchanges whose deadlines are to be set anew.
    dirty: Vec<ExchangeId>,
    /// Pools whose queues may be served now.
    to_serve: Vec<u32>,
    waiters: buffer_waiters::BufferWaiters,
    /// Connections of many streams that have events although nothing has come.
    resumed: Vec<ConnId>,
}

/// Deadlines of connections and of exchanges.
struct Timers {
    wheel: Wheel,
    /// Where the wheel has the exchange of each slot. An entry outlives its exchange: the next one in that
    /// slot makes use of it.
    exchange_filed: Vec<Instant>,
    /// When the last input came.
    now: Instant,
}

/// Memory that is used again and again.
#[derive(Default)]
struct Scratch {
    parser: HeadParser,
    /// The head that is being read; an exchange that begins takes it.
    request: Box<RequestHead>,
    response: ResponseHead,
    /// What came on a stream.
    received: Received,
    line: Vec<u8>,
    /// A client that a trusted proxy speaks for.
    client_text: IpText,
    /// Of exchanges that have ended, for those to come.
    #[expect(clippy::vec_box, reason = "heads move between here and exchanges: a pointer each")]
    spare_heads: Vec<Box<RequestHead>>,
    spare_kept: Vec<Vec<u8>>,
}

/// A graceful stop.
#[derive(Default)]
struct Drain {
    /// It will begin soon: the process should be sent nothing any more.
    announced: bool,
    until: Option<Instant>,
    ended: bool,
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
        last_id[..16].copy_from_slice(format!("{:016x}", rng.next_u64()).as_bytes());
        let checks = Schedule::new(rng.next_u64());
        let mut proxy = Self {
            observer,
            identity: Identity {
                shared,
                shard,
                rng,
                last_id,
                date: [b'0'; 29],
                forwarded_headers: Vec::new(),
            },
            tables: Tables {
                conns: Slab::with_capacity(1024),
                exchanges: Slab::default(),
                pages: Pages::new(config.limits.buffer_bytes),
                clients: 0,
            },
            pools: PoolTable::new(config.clone()),
            signals: Signals::default(),
            timers: Timers { wheel: Wheel::default(), exchange_filed: Vec::new(), now },
            checks,
            bound: bound::BoundConns::default(),
            secured: secured::SecuredClients::default(),
            marked_down: 0,
            probe_rounds: probe::ProbeRounds::default(),
            lookups: lookup::Lookups::default(),
            scratch: Scratch::default(),
            drain: Drain::default(),
            refusing_noted: None,
            backend_protocol: None,
        };
        proxy.handle_wall(Wall::default());
        proxy.adopt(&config, now);
        proxy
    }

    /// The observer, for what the driver tells it (the wall clock, say).
    pub fn observer_mut(&mut self) -> &mut O {
        &mut self.observer
    }

    /// A connection asked for by [`Effect::Connect`] is there. If it speaks TLS nothing is known of what was
    /// agreed on: [`Proxy::handle_negotiated`] says more.
    pub fn handle_connected(&mut self, c: ConnId, now: Instant) {
        self.timers.now = now;
        if self.chose_http1(c, now) {
            self.connected(c, now);
        }
        self.settle(now);
    }

    fn connected(&mut self, c: ConnId, now: Instant) {
        match self.tables.conns.get_mut(c).map(|conn| &mut conn.role) {
            Some(Role::Backend(b)) => {
                b.connected = true;
                self.backend_connected(c, now);
            }
            Some(Role::Probe(p)) => {
                p.connected = true;
                self.step(c, Step::Connected);
                self.mark_ready(c);
            }
            _ => {}
        }
    }

    /// Room lent for reading; empty: do not read now. What is read is told to [`Proxy::handle_recv`] before
    /// anything else is said of this connection.
    pub fn recv_buf(&mut self, c: ConnId) -> &mut [u8] {
        let Some(conn) = self.tables.conns.get_mut(c) else { return &mut [] };
        let x = conn.exchange.map(|x| &self.tables.exchanges[x]);
        if !wants_recv(conn, x) {
            return &mut [];
        }
        if conn.wire.needs_page() {
            let large = expects_much(conn, x);
            let pages = &mut self.tables.pages;
            match buffer_waiters::lend(pages, conn.begins_exchange(), large) {
                Some(page) => conn.wire.give_page(page, pages),
                None => return self.wait_for_page(c),
            }
        }
        self.tables.conns[c].wire.room(&mut self.tables.pages, &mut self.scratch.received)
    }

    /// `n` bytes were read into the room; 0 gives it back.
    pub fn handle_recv(&mut self, c: ConnId, n: usize, now: Instant) {
        self.timers.now = now;
        if n > 0 {
            self.step_bytes(c, Step::Received { bytes: n });
        }
        let Some(conn) = self.tables.conns.get_mut(c) else { return };
        if n == 0 {
            conn.wire.trim(&mut self.tables.pages);
            if let Wire::Multiplexed(streams) = &mut conn.wire {
                streams.protocol.rest(&mut self.scratch.received);
            }
            if let (Role::Backend(_), Some(x)) = (&conn.role, conn.exchange)
                && self.tables.exchanges[x].response.more_follows
            {
                self.response_pauses(x, now);
            }
            self.settle(now);
            return;
        }
        conn.wire.received(n);
        match (&conn.role, conn.exchange) {
            (Role::Client(client), _) if client.lingering => {
                conn.wire.drop_received(&mut self.tables.pages);
            }
            (Role::Client(_), Some(x)) => self.request_data(x, n, now),
            (Role::Backend(_), Some(x)) => self.backend_input(x, c, n, now),
            (Role::Probe(_), _) => self.probe_input(c, now),
            _ if conn.wire.streams().is_some() => self.streams_input(c, now),
            (Role::Client(_), None) => self.read_request(c, now),
            // Whatever comes on an idle connection is no response to anything.
            (Role::Backend(_), None) => self.close(c),
        }
        self.settle(now);
    }

    /// End of stream, after every byte before it.
    pub fn handle_recv_end(&mut self, c: ConnId, now: Instant) {
        self.timers.now = now;
        let Some(conn) = self.tables.conns.get_mut(c) else { return };
        if std::mem::replace(&mut conn.recv_ended, true) {
            return;
        }
        conn.wire.trim(&mut self.tables.pages);
        match &conn.role {
            Role::Client(client) if client.lingering => self.close(c),
            Role::Probe(_) => self.probe_stream_ended(c, now),
            _ if conn.wire.streams().is_some() => self.streams_lost(c, false, now),
            Role::Client(_) => self.client_ended(c, now),
            Role::Backend(_) => self.backend_ended(c, now),
        }
        self.settle(now);
    }

    /// The peer has closed its direction, as the poller says; what it sent before may not have been read, as
    /// long as that is not wanted. After it [`Proxy::handle_recv_end`] comes once all has been read.
    pub fn handle_peer_closing(&mut self, c: ConnId, now: Instant) {
        self.timers.now = now;
        let Some(conn) = self.tables.conns.get_mut(c) else { return };
        if matches!(conn.role, Role::Client(_)) && !std::mem::replace(&mut conn.peer_closing, true) {
            self.client_closing(c, now);
        }
        self.settle(now);
    }

    /// `n` bytes of [`Proxy::transmit`] have been sent.
    pub fn handle_sent(&mut self, c: ConnId, n: usize, now: Instant) {
        self.timers.now = now;
        self.step_bytes(c, Step::Sent { bytes: n });
        let Some(conn) = self.tables.conns.get_mut(c) else { return };
        match (&conn.role, conn.exchange) {
            (Role::Client(_), Some(x)) => self.client_sent(x, c, n, now),
            (Role::Backend(_), Some(x)) => self.backend_sent(x, c, n, now),
            _ => {
                conn.wire.sent(n);
                match &mut conn.wire {
                    Wire::H1(h1) => h1.drop_sent_heads(&mut self.tables.pages),
                    Wire::Tunnel(_) => {}
                    Wire::Multiplexed(_) => self.streams_sent(c, now),
                }
            }
        }
        self.settle(now);
    }

    /// The socket broke.
    pub fn handle_fault(&mut self, c: ConnId, f: Fault, now: Instant) {
        self.timers.now = now;
        match self.tables.conns.get(c).map(|conn| (&conn.role, conn.wire.streams().is_some())) {
            Some((Role::Client(_), true)) => self.streams_lost(c, true, now),
            Some((Role::Client(_), false)) if self.is_handshaking(c) => self.handshake_failed(c, f, now),
            Some((Role::Client(_), false)) => self.client_lost(c, now),
            Some((Role::Backend(_), _)) => self.backend_fault(c, f, now),
            Some((Role::Probe(p), _)) => {
                let why = socket_cause(f, p.connected);
                self.probe_failed(c, why, now);
            }
            None => {}
        }
        self.settle(now);
    }

    /// A new configuration. Exchanges under way keep theirs, no connection is cut.
    pub fn handle_config(&mut self, config: Arc<Config>, now: Instant) {
        self.timers.now = now;
        self.adopt(&config, now);
        self.settle(now);
    }

    /// The ids of all listeners that there have been.
    #[must_use]
    pub fn listener_ids(&self) -> &ListenerIds {
        &self.pools.listeners
    }

    /// Makes a proxy that takes the place of another one know the listeners by the ids that they had there.
    pub fn keep_listener_ids(&mut self, ids: ListenerIds) {
        self.pools.keep_listener_ids(ids);
    }

    /// Another shard changed something shared: health, addresses, or a slot that an exchange here waits for.
    pub fn handle_shared(&mut self, now: Instant) {
        self.timers.now = now;
        self.recheck_by_traffic(now);
        for pool in 0..self.pools.len() {
            self.serve_queue(pool, now);
        }
        self.settle(now);
    }

    /// The wall clock, about once a second.
    pub fn handle_wall(&mut self, w: Wall) {
        date::write_date(w.unix_secs, &mut self.identity.date);
    }

    /// A connection whose wants may have changed.
    pub fn poll_conn(&mut self) -> Option<Ready> {
        while let Some(c) = self.signals.ready.pop() {
            if let Some(conn) = self.tables.conns.get_mut(c) {
                let gathers = conn.wire.gathers();
                let ready = Ready { conn: c, send: conn.ready == InReadyQueue::Send, gathers };
                conn.ready = InReadyQueue::No;
                #[cfg(debug_assertions)]
                {
                    let wants = self.wants(c);
                    self.tables.conns[c].shown = wants;
                }
                return Some(ready);
            }
        }
        self.rearm_dirty();
        None
    }

    /// What it wants now: derived, never stored. Nothing for an id that is stale.
    #[must_use]
    pub fn wants(&self, c: ConnId) -> Wants {
        match self.tables.conns.get(c) {
            Some(conn) => Wants {
                recv: wants_recv(conn, conn.exchange.map(|x| &self.tables.exchanges[x])),
                send: self.wants_send(conn),
            },
            None => Wants::default(),
        }
    }

    fn wants_send(&self, conn: &Conn) -> bool {
        conn.may_send()
            && conn.wire.has_output(self.outgoing(conn).map_or(0, |(pipe, source)| pipe.ready_len(source)))
    }

    /// What it has to send: borrowed where the bytes lie.
    #[must_use]
    pub fn transmit(&self, c: ConnId) -> Transmit<'_> {
        let mut out = Transmit::new();
        let Some(conn) = self.tables.conns.get(c).filter(|conn| conn.may_send()) else { return out };
        let pages = &self.tables.pages;
        let (payload, trailers) = match self.outgoing(conn) {
            Some((pipe, source)) => (pipe.ready(source, pages), &pipe.trailers[..]),
            None => (&[][..], &[][..]),
        };
        for slice in conn.wire.slices(payload, trailers, pages) {
            out.push(slice);
        }
        out
    }

    /// [`Proxy::transmit`] for a caller that needs the slices only for a call: it moves less about.
    #[inline]
    pub fn with_transmit<R>(&self, c: ConnId, f: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        let pages = &self.tables.pages;
        if let Some(conn) = self.tables.conns.get(c)
            && let Wire::H1(h1) = &conn.wire
            && h1.sends_plain()
            && conn.may_send()
        {
            let heads = h1.pending_heads(pages);
            let payload = self.outgoing(conn).map_or(&[][..], |(pipe, source)| pipe.ready(source, pages));
            return match (heads.is_empty(), payload.is_empty()) {
                (true, true) => f(&[]),
                (false, true) => f(&[IoSlice::new(heads)]),
                (true, false) => f(&[IoSlice::new(payload)]),
                (false, false) => f(&[IoSlice::new(heads), IoSlice::new(payload)]),
            };
        }
        f(self.transmit(c).slices())
    }

    /// The direction of its exchange that a connection sends, and the wire that it comes from.
    #[inline]
    fn outgoing(&self, conn: &Conn) -> Option<(&MessagePipe, Option<&Wire>)> {
        let x = &self.tables.exchanges[conn.exchange?];
        let (pipe, from) = match &conn.role {
            Role::Client(_) => (&x.response, x.backend),
            _ => (&x.request, Some(x.client)),
        };
        Some((pipe, from.and_then(|leg| self.tables.conns.get(leg.conn)).map(|conn| &conn.wire)))
    }

    /// What the driver has to do next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.signals.effects.pop_front()
    }

    /// Whether to accept on a listener of this kind now.
    #[must_use]
    pub fn accepting(&self, kind: ListenerKind) -> bool {
        self.drain.until.is_none() && (kind == ListenerKind::Admin || !self.tables.pages.scarce())
    }

    /// Whether every backend has been probed once (or none is to be): traffic may be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.checks.first_round_done()
    }

    /// Lets an accepted connection, on which nothing has been received, carry many streams.
    #[doc(hidden)]
    pub fn set_client_protocol(&mut self, c: ConnId, protocol: Box<dyn Multiplexed>) {
        if let Some(conn) = self.tables.conns.get_mut(c) {
            conn.wire = Wire::Multiplexed(Streams::new(protocol, Patience::ENDLESS, self.timers.now));
        }
    }

    /// What connections to backends speak from now on, if not HTTP/1.1.
    #[doc(hidden)]
    pub fn set_backend_protocol(&mut self, make: fn() -> Box<dyn Multiplexed>) {
        self.backend_protocol = Some(make);
    }

    /// Puts a connection into the ready queue: it may want to read or to send.
    fn mark_ready(&mut self, c: ConnId) {
        if let Some(conn) = self.tables.conns.get_mut(c) {
            self.signals.mark_ready(c, conn);
        }
    }

    /// Puts a connection into the ready queue that has nothing new to send, but may want to read.
    fn mark_readable(&mut self, c: ConnId) {
        if let Some(conn) = self.tables.conns.get_mut(c) {
            self.signals.mark_readable(c, conn);
        }
    }

    /// What an input may have left to do for others: slots and pages have come free.
    fn settle(&mut self, now: Instant) {
        self.timers.now = now;
        while let Some(c) = self.signals.resumed.pop() {
            self.streams_input(c, now);
        }
        self.serve_queues(now);
        if !planted!(4) {
            self.wake_buffer_waiters();
        }
    }
}

impl Signals {
    /// Puts a connection into the ready queue: it may want to read or to send.
    #[inline]
    fn mark_ready(&mut self, c: ConnId, conn: &mut Conn) {
        if std::mem::replace(&mut conn.ready, InReadyQueue::Send) == InReadyQueue::No {
            self.ready.push(c);
        }
    }

    /// Puts a connection into the ready queue that has nothing new to send, but may want to read.
    #[inline]
    fn mark_readable(&mut self, c: ConnId, conn: &mut Conn) {
        if conn.ready == InReadyQueue::No {
            conn.ready = InReadyQueue::Recv;
            self.ready.push(c);
        }
    }

    /// Something about an exchange has changed: its deadlines are set anew once everything has settled.
    #[inline]
    fn mark_dirty(&mut self, x: ExchangeId, e: &mut Exchange) {
        if !std::mem::replace(&mut e.dirty, true) {
            self.dirty.push(x);
        }
    }
}

/// What all shards share outlives one that is given up: its clients and its slots are given back. Who drops
/// it nudges the others: they may have waited for those.
impl<O: Observer> Drop for Proxy<O> {
    fn drop(&mut self) {
        for (_, conn) in self.tables.conns.iter() {
            if let Role::Client(client) = &conn.role {
                self.identity.shared.leave(client.ip, client.counted);
            }
        }
        for (_, e) in self.tables.exchanges.iter().filter(|(_, e)| e.holds_slot) {
            if let (Some(pool), Some(choice)) = (e.pool, e.choice) {
                self.pools.get(pool).state.finish(choice);
            }
        }
    }
}

impl Conn {
    /// Whether its socket takes bytes at all.
    #[inline]
    fn may_send(&self) -> bool {
        match &self.role {
            Role::Client(_) => true,
            Role::Backend(b) => b.connected && !self.broken,
            Role::Probe(p) => p.connected,
        }
    }
}

/// Whether a connection wants to read. `x`: its exchange.
#[inline]
fn wants_recv(conn: &Conn, x: Option<&Exchange>) -> bool {
    let open = match (&conn.role, x) {
        (Role::Client(_), None) => true,
        (Role::Client(client), Some(x)) => !client.lingering && !x.request.ended && x.takes_request_body(),
        (Role::Backend(b), x) => b.connected && x.is_none_or(|x| !x.response.ended),
        (Role::Probe(p), _) => p.connected,
    };
    open && !conn.recv_ended && conn.wire.has_room()
}

/// Whether what comes is known to be much more than a page. `x`: its exchange.
#[inline]
fn expects_much(conn: &Conn, x: Option<&Exchange>) -> bool {
    let body = match (&conn.role, x) {
        (Role::Client(_), Some(_)) => true,
        (Role::Backend(_), Some(x)) => x.phase == Phase::Responding,
        _ => false,
    };
    body && conn.wire.h1().is_some_and(|h1| h1.expects_at_least(2 * SMALL_BYTES as u64))
}

/// What a broken socket means for a connection to a backend, which was there or was being opened.
fn socket_cause(f: Fault, connected: bool) -> Cause {
    match f {
        // Then it is what it would be without TLS.
        Fault::Tls(TlsFault::Closed) if connected => Cause::BackendClosed,
        // A refusal may come late: in TLS 1.3 a server sees the client's certificate last.
        Fault::Tls(TlsFault::WrongName) if planted!(138) => Cause::BackendTls(TlsFault::UnknownCa),
        Fault::Tls(fault) => Cause::BackendTls(fault),
        _ if connected => Cause::BackendReset,
        Fault::Refused | Fault::Reset => Cause::ConnectRefused,
        Fault::Unreachable => Cause::ConnectUnreachable,
        Fault::TimedOut => Cause::ConnectTimeout,
        Fault::NoSocket => Cause::ConnectNoSocket,
        Fault::Denied => Cause::ConnectDenied,
        Fault::BacklogFull => Cause::ConnectBacklogFull,
        // The two before the last are of clients alone.
        Fault::NoResources | Fault::PlainHttp | Fault::UnrecognizedName | Fault::Other => {
            Cause::ConnectFailed
        }
    }
}
