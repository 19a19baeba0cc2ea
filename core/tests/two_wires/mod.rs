//! One proxy between clients and backends that speak HTTP/1.1 or the toy protocol of many streams, byte
//! buffers for sockets and a clock that only moves when it is told to.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::{self, Config, ListenerKind, Protocol, TlsTarget};
use ruststrom_core::h2::{self, Reason};
use ruststrom_core::middleware::Counter;
use ruststrom_core::observe::{HealthChange, Level, Record, Step};
use ruststrom_core::wire::{Multiplexed, Received};
use ruststrom_core::{
    Accepted, Cause, ConnId, Effect, Fault, Instant, ListenerId, LookupId, LookupResult, Negotiated,
    Observer, Proxy, Query, Shared,
};

use crate::toy_wire::ToyWire;

mod far_end;

pub(crate) use far_end::{Http2, Message, in_title_case};
use far_end::{Peer, hear, read_http1, send_head_text};

/// What a side of the proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    /// By prior knowledge.
    Http2,
    Toy,
}

/// Every pair of client and backend.
pub(crate) const PAIRS: [(Speaks, Speaks); 9] = [
    (Speaks::Http1, Speaks::Http1),
    (Speaks::Toy, Speaks::Http1),
    (Speaks::Http1, Speaks::Toy),
    (Speaks::Toy, Speaks::Toy),
    (Speaks::Http1, Speaks::Http2),
    (Speaks::Toy, Speaks::Http2),
    (Speaks::Http2, Speaks::Http1),
    (Speaks::Http2, Speaks::Toy),
    (Speaks::Http2, Speaks::Http2),
];

/// What has been observed.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// Status and cause of each exchange that has ended.
    pub(crate) records: Vec<(u16, Option<Cause>)>,
    /// Connections to backends that each has asked for.
    pub(crate) attempts: Vec<u8>,
    /// Bytes of content, or of a tunnel, from the client and to it.
    pub(crate) bytes: Vec<(u64, u64)>,
    pub(crate) notes: Vec<String>,
    /// When each began, and ended.
    pub(crate) times: Vec<(Instant, Instant)>,
    /// Whose request each was.
    pub(crate) users: Vec<String>,
    pub(crate) counters: Vec<(String, Counter)>,
    /// How often an exchange joined those that wait for a connection.
    pub(crate) joined: usize,
}

impl Observer for Observed {
    fn exchange(&mut self, r: &Record<'_>) {
        self.records.push((r.status, r.cause));
        self.attempts.push(r.attempts);
        self.bytes.push((r.bytes_in, r.bytes_out));
        self.times.push((r.timings.started, r.timings.ended));
        self.users.push(r.user.to_owned());
    }
    fn count(&mut self, pool: &str, identity: u64, counter: Counter) {
        assert_ne!(identity, 0, "every pool has one");
        self.counters.push((pool.to_owned(), counter));
    }
    fn health(&mut self, _: &HealthChange<'_>) {}
    fn wants_steps(&self) -> bool {
        true
    }
    fn step(&mut self, _: ConnId, step: &Step<'_>) {
        self.joined += usize::from(matches!(step, Step::Joined { .. }));
    }
    fn note(&mut self, _: Level, text: &str) {
        self.notes.push(text.to_owned());
    }
}

/// A leg at the far end; HTTP/1.1 has the one stream 0.
pub(crate) type Far = (ConnId, u32);

/// The proxy and the far ends of its connections.
pub(crate) struct Rig {
    pub(crate) proxy: Proxy<Observed>,
    pub(crate) now: Instant,
    clients: Speaks,
    backends: Speaks,
    peers: BTreeMap<ConnId, Peer>,
    /// Connections to backends, in the order of their making.
    pub(crate) backend_conns: Vec<ConnId>,
    pub(crate) lookups: Vec<(LookupId, Query)>,
    /// Most bytes that a socket takes from the proxy at once.
    pub(crate) most: usize,
    /// Streams whose far end gives no credit.
    held: Vec<Far>,
    /// Connections whose far end takes bytes only by [`Rig::take_once`].
    slow: Vec<ConnId>,
    /// So many of the next connections to backends are refused.
    pub(crate) refused: usize,
    /// Backends take or refuse connections only in [`Rig::decide_connects`].
    pub(crate) connects_wait: bool,
    connecting: Vec<(ConnId, Option<Arc<TlsTarget>>)>,
    closed: BTreeSet<ConnId>,
    /// Connections whose sending half the proxy has shut down.
    pub(crate) shut: BTreeSet<ConnId>,
    /// Connections that the proxy has reset.
    pub(crate) torn: BTreeSet<ConnId>,
    /// What backends of HTTP/2 let the proxy do.
    pub(crate) backend_limits: h2::Limits,
    /// What backends choose by TLS, as far as it is offered.
    pub(crate) backend_alpn: Option<&'static str>,
    /// The drain is over.
    pub(crate) drained: bool,
}

/// One pool with one backend and no health checks; `pool` and `top` are further lines.
pub(crate) fn config(top: &str, pool: &str) -> Config {
    let addresses = if pool.contains("addresses") { "" } else { "addresses = [\"127.0.0.1:81\"]\n" };
    let text = format!(
        "http_address = \"127.0.0.1:80\"\n{top}\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\n\
         name = \"api\"\n{addresses}{pool}\n"
    );
    config::parse(&text).config.unwrap_or_else(|| panic!("a good configuration: {text}"))
}

/// The same with backends that speak this, if they are not spoken to over TLS.
fn spoken_to(mut config: Config, backends: Speaks) -> Config {
    if backends == Speaks::Http2 {
        let all = config.pools.iter_mut().flat_map(|pool| &mut Arc::make_mut(pool).backends);
        all.filter(|backend| backend.protocol == Protocol::Http1)
            .for_each(|backend| backend.protocol = Protocol::H2c);
    }
    config
}

impl Rig {
    pub(crate) fn new(config: Config, shared: Arc<Shared>, pair: (Speaks, Speaks)) -> Self {
        Self::on_shard(0, config, shared, pair)
    }

    pub(crate) fn on_shard(
        shard: u16,
        config: Config,
        shared: Arc<Shared>,
        (clients, backends): (Speaks, Speaks),
    ) -> Self {
        let now = Instant::from_millis(1000);
        let config = spoken_to(config, backends);
        let mut proxy = Proxy::new(Arc::new(config), shared, shard, 1, Observed::default(), now);
        if backends == Speaks::Toy {
            proxy.set_backend_protocol(ToyWire::boxed);
        }
        let mut rig = Self {
            proxy,
            now,
            clients,
            backends,
            peers: BTreeMap::new(),
            backend_conns: Vec::new(),
            lookups: Vec::new(),
            most: usize::MAX,
            held: Vec::new(),
            slow: Vec::new(),
            refused: 0,
            connects_wait: false,
            connecting: Vec::new(),
            closed: BTreeSet::new(),
            shut: BTreeSet::new(),
            torn: BTreeSet::new(),
            backend_limits: h2::Limits::default(),
            backend_alpn: None,
            drained: false,
        };
        rig.run();
        rig
    }

    fn peer(speaks: Speaks, role: h2::Role, limits: h2::Limits) -> Peer {
        match speaks {
            Speaks::Http1 => Peer::Http1 { received: Vec::new(), closed: false },
            Speaks::Toy => Peer::Toy { wire: ToyWire::new(100), messages: BTreeMap::new() },
            Speaks::Http2 => Peer::Http2(Box::new(Http2 {
                wire: h2::Conn::new(role, limits, Instant::ZERO),
                received: Received::default(),
                messages: BTreeMap::new(),
                events: Vec::new(),
                owed: BTreeMap::new(),
                serves: role == h2::Role::Server,
                deaf: false,
            })),
        }
    }

    fn client_peer(speaks: Speaks) -> Peer {
        Self::peer(speaks, h2::Role::Client, h2::Limits { streams: u32::MAX, ..h2::Limits::default() })
    }

    pub(crate) fn client(&mut self) -> ConnId {
        self.client_of(ListenerKind::Http)
    }

    pub(crate) fn client_of(&mut self, kind: ListenerKind) -> ConnId {
        let peer = "192.0.2.7:5000".parse().unwrap();
        let local = if kind == ListenerKind::Https { "192.0.2.1:443" } else { "192.0.2.1:80" };
        let local = local.parse().unwrap();
        let accepted = Accepted { listener: ListenerId(0), kind, peer, local };
        let c = self.proxy.handle_accept(&accepted, self.now).expect("room for a client");
        if self.clients == Speaks::Toy {
            self.proxy.set_client_protocol(c, Box::new(ToyWire::new(100)));
        }
        self.peers.insert(c, Self::client_peer(self.clients));
        self.run();
        c
    }

    /// A client of which nothing has come yet.
    pub(crate) fn silent_client(&mut self) -> ConnId {
        let (peer, local) = ("192.0.2.7:5000".parse().unwrap(), "192.0.2.1:80".parse().unwrap());
        let accepted = Accepted { listener: ListenerId(0), kind: ListenerKind::Http, peer, local };
        let c = self.proxy.handle_accept(&accepted, self.now).expect("room for a client");
        self.peers.insert(c, Self::client_peer(self.clients));
        c
    }

    /// A client sends the head of a request, on a stream of its own where there are streams.
    pub(crate) fn ask(&mut self, c: ConnId, head: &str, whole: bool) -> Far {
        let stream = match self.peers.get_mut(&c).expect("an open connection") {
            Peer::Http1 { .. } => {
                self.send_raw(c, head.as_bytes());
                0
            }
            Peer::Toy { wire, .. } => {
                let stream = wire.open().expect("a free stream");
                if whole {
                    wire.send_whole_head(stream, head.as_bytes());
                } else {
                    assert!(wire.send_head(stream, head.as_bytes()));
                }
                stream
            }
            Peer::Http2(http2) => {
                let stream = http2.wire.open().expect("a free stream");
                assert!(send_head_text(&mut http2.wire, stream, head));
                if whole {
                    http2.wire.send_end(stream);
                }
                stream
            }
        };
        self.run();
        (c, stream)
    }

    /// A client of HTTP/2 sends the head of a request and as much of its content as it may before it has
    /// heard of the proxy's settings. Returns how much that was.
    pub(crate) fn ask_at_once(&mut self, c: ConnId, head: &str, body: &[u8]) -> (Far, usize) {
        let Some(Peer::Http2(http2)) = self.peers.get_mut(&c) else { panic!("a client of HTTP/2") };
        let stream = http2.wire.open().expect("a free stream");
        assert!(send_head_text(&mut http2.wire, stream, head));
        let mut sent = 0;
        loop {
            let n = http2.wire.send_data(stream, &body[sent..]);
            if n == 0 {
                break;
            }
            sent += n;
        }
        self.run();
        ((c, stream), sent)
    }

    /// A far end sends a part of a body; over HTTP/1.1 as it is. Returns how much was taken.
    pub(crate) fn send(&mut self, (c, stream): Far, data: &[u8]) -> usize {
        let n = match self.peers.get_mut(&c).expect("an open connection") {
            Peer::Http1 { .. } => return self.send_raw(c, data),
            Peer::Toy { wire, .. } => wire.send_data(stream, data),
            Peer::Http2(http2) => http2.wire.send_data(stream, data),
        };
        self.run();
        n
    }

    /// A far end sends as much of this as is taken without anything else happening; how much that is.
    pub(crate) fn send_what_is_taken(&mut self, far: Far, data: &[u8]) -> usize {
        let mut sent = 0;
        while let n @ 1.. = self.send(far, &data[sent..]) {
            sent += n;
        }
        sent
    }

    /// A far end sends the whole of a body, as the proxy takes it.
    pub(crate) fn send_all(&mut self, far: Far, mut data: &[u8]) {
        while !data.is_empty() {
            let n = self.send(far, data);
            assert!(n > 0, "the proxy takes no more of {far:?}");
            data = &data[n..];
        }
    }

    /// A far end ends its message; over HTTP/1.1 that follows from its framing.
    pub(crate) fn end(&mut self, (c, stream): Far, trailers: &str) {
        match self.peers.get_mut(&c).expect("an open connection") {
            Peer::Http1 { .. } => {}
            Peer::Toy { wire, .. } => wire.send_end(stream, trailers.as_bytes()),
            Peer::Http2(http2) => Multiplexed::send_end(&mut http2.wire, stream, trailers.as_bytes()),
        }
        self.run();
    }

    pub(crate) fn reset(&mut self, (c, stream): Far) {
        match self.peers.get_mut(&c).expect("an open connection") {
            Peer::Http1 { .. } => {}
            Peer::Toy { wire, .. } => wire.reset(stream, Reason::CANCEL),
            Peer::Http2(http2) => http2.wire.reset(stream, Reason::CANCEL),
        }
        self.run();
    }

    /// A backend sends a whole response.
    pub(crate) fn respond(&mut self, far: Far, head: &str, body: &[u8]) {
        self.respond_head(far, head);
        self.send_all(far, body);
        self.end(far, "");
    }

    /// The legs at which backends have got the head of a request, in the order of their coming.
    pub(crate) fn asked(&self) -> Vec<Far> {
        let mut found = Vec::new();
        for c in &self.backend_conns {
            match self.peers.get(c) {
                Some(Peer::Http1 { received, .. }) if !received.is_empty() => found.push((*c, 0)),
                Some(Peer::Toy { messages, .. }) => found.extend(messages.keys().map(|stream| (*c, *stream))),
                Some(Peer::Http2(http2)) => {
                    found.extend(http2.messages.keys().map(|stream| (*c, *stream)));
                }
                _ => {}
            }
        }
        found
    }

    /// What a far end has received, with HTTP/1.1's framing undone.
    pub(crate) fn message(&self, (c, stream): Far) -> Message {
        let mut message = self.message_as_it_is((c, stream));
        if self.backends == Speaks::Http2 || self.clients == Speaks::Http2 {
            // HTTP/2 has no capitals in names: they are spelt as they mostly are.
            message.head = in_title_case(&message.head);
            message.trailers = in_title_case(&message.trailers);
        }
        message
    }

    fn message_as_it_is(&self, (c, stream): Far) -> Message {
        match &self.peers[&c] {
            Peer::Http1 { received, closed } => read_http1(received, *closed),
            Peer::Toy { messages, .. } => messages.get(&stream).cloned().unwrap_or_default(),
            Peer::Http2(http2) => http2.messages.get(&stream).cloned().unwrap_or_default(),
        }
    }

    /// What the far end of a connection of HTTP/1.1 has received.
    pub(crate) fn received(&self, c: ConnId) -> &[u8] {
        match &self.peers[&c] {
            Peer::Http1 { received, .. } => received,
            Peer::Toy { .. } | Peer::Http2(_) => &[],
        }
    }

    /// A far end has dealt with what it received.
    pub(crate) fn forget(&mut self, (c, stream): Far) {
        match self.peers.get_mut(&c).expect("an open connection") {
            Peer::Http1 { received, .. } => received.clear(),
            Peer::Toy { messages, .. } => drop(messages.remove(&stream)),
            Peer::Http2(http2) => drop(http2.messages.remove(&stream)),
        }
    }

    pub(crate) fn answer_lookup(&mut self, result: LookupResult) {
        let (id, _) = self.lookups.remove(0);
        self.proxy.handle_lookup(id, result, self.now);
        self.run();
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        self.proxy.handle_timeout(self.now);
        self.run();
    }

    fn send_raw(&mut self, c: ConnId, bytes: &[u8]) -> usize {
        let mut given = 0;
        while given < bytes.len() {
            let room = self.proxy.recv_buf(c);
            let n = room.len().min(bytes.len() - given);
            room[..n].copy_from_slice(&bytes[given..given + n]);
            if n == 0 {
                break;
            }
            self.proxy.handle_recv(c, n, self.now);
            given += n;
            self.run();
        }
        given
    }

    /// Does what a driver does, until nothing is left to do.
    pub(crate) fn run(&mut self) {
        loop {
            let mut moved = false;
            while let Some(ready) = self.proxy.poll_conn() {
                moved = true;
                let _ = ready;
            }
            while let Some(effect) = self.proxy.poll_effect() {
                moved = true;
                self.obey(effect);
            }
            // A driver knows of nothing but what it has been handed.
            self.proxy.check();
            for c in self.peers.keys().copied().collect::<Vec<_>>() {
                moved |= !self.slow.contains(&c) && self.take(c);
                moved |= self.give(c);
            }
            if !moved {
                break;
            }
        }
        self.proxy.check();
    }

    fn obey(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { conn, tls, .. } if self.connects_wait => self.connecting.push((conn, tls)),
            Effect::Connect { conn, tls, .. } => self.decide_connect(conn, tls),
            Effect::Lookup { id, query } => self.lookups.push((id, query)),
            Effect::Reset(c) if self.torn.insert(c) => self.obey(Effect::Close(c)),
            Effect::Close(c) | Effect::Reset(c) if !self.closed.insert(c) => panic!("{c:?} is closed twice"),
            Effect::Close(c) | Effect::Reset(c) => match self.peers.get_mut(&c) {
                Some(Peer::Http1 { closed, .. }) => *closed = true,
                Some(Peer::Toy { messages, .. }) => {
                    messages.values_mut().filter(|m| !m.ended).for_each(|m| m.reset = true);
                }
                Some(Peer::Http2(http2)) => {
                    http2.messages.values_mut().filter(|m| !m.ended).for_each(|m| m.reset = true);
                }
                None => {}
            },
            Effect::Drained => self.drained = true,
            Effect::Shutdown(c) => drop(self.shut.insert(c)),
            Effect::Nudge(_) => {}
        }
    }

    fn decide_connect(&mut self, conn: ConnId, tls: Option<Arc<TlsTarget>>) {
        if self.refused > 0 {
            self.refused -= 1;
            return self.proxy.handle_fault(conn, Fault::Refused, self.now);
        }
        let offered = tls.as_ref().map(|target| target.settings.alpn.names());
        let chosen = offered.and_then(|names| {
            let chosen = self.backend_alpn?;
            names.contains(&chosen).then_some(chosen)
        });
        let speaks = match (offered, chosen) {
            (None, _) => self.backends,
            (_, Some("h2")) => Speaks::Http2,
            _ => Speaks::Http1,
        };
        self.peers.insert(conn, Self::peer(speaks, h2::Role::Server, self.backend_limits));
        self.backend_conns.push(conn);
        match tls {
            None => self.proxy.handle_connected(conn, self.now),
            Some(_) => {
                let n = Negotiated { alpn: chosen.map(str::as_bytes), ..Negotiated::default() };
                self.proxy.handle_negotiated(conn, &n, self.now);
            }
        }
    }

    /// A far end takes what the proxy has to send.
    fn take(&mut self, c: ConnId) -> bool {
        let mut got = Vec::new();
        for slice in self.proxy.transmit(c).slices() {
            got.extend_from_slice(&slice[..slice.len().min(self.most - got.len())]);
        }
        if got.is_empty() {
            return false;
        }
        self.proxy.handle_sent(c, got.len(), self.now);
        match self.peers.get_mut(&c) {
            Some(Peer::Http1 { received, .. }) => received.extend_from_slice(&got),
            Some(Peer::Toy { wire, messages }) => {
                let held = |stream| self.held.contains(&(c, stream));
                hear(wire, messages, &got, held);
            }
            Some(Peer::Http2(http2)) => {
                let held = |stream| self.held.contains(&(c, stream));
                http2.hear(&got, held);
            }
            None => {}
        }
        true
    }

    /// A far end of many streams sends what it has.
    fn give(&mut self, c: ConnId) -> bool {
        let wire: &mut dyn Multiplexed = match self.peers.get_mut(&c) {
            Some(Peer::Toy { wire, .. }) => wire,
            Some(Peer::Http2(http2)) if http2.deaf => return false,
            Some(Peer::Http2(http2)) => &mut http2.wire,
            Some(Peer::Http1 { .. }) | None => return false,
        };
        let room = self.proxy.recv_buf(c);
        let n = room.len().min(wire.transmit().len()).min(self.most);
        if n == 0 {
            return false;
        }
        room[..n].copy_from_slice(&wire.transmit()[..n]);
        wire.handle_sent(n);
        self.proxy.handle_recv(c, n, self.now);
        true
    }
}

/// What goes wrong, and what is slow.
impl Rig {
    /// A client of HTTP/2 has been told that no new streams are taken.
    pub(crate) fn is_told_to_leave(&self, c: ConnId) -> bool {
        matches!(&self.peers[&c], Peer::Http2(http2) if http2.wire.is_leaving())
    }

    /// Whether a client of HTTP/2 may open one more stream.
    pub(crate) fn may_open(&mut self, c: ConnId) -> bool {
        match self.peers.get_mut(&c) {
            Some(Peer::Http2(http2)) => http2.wire.open().is_some(),
            _ => false,
        }
    }

    /// From now on the far end of a connection takes bytes only when it is told to.
    pub(crate) fn slow_down(&mut self, c: ConnId) {
        self.slow.push(c);
    }

    /// A slow far end takes what the proxy has to send, at most [`Rig::most`] bytes.
    pub(crate) fn take_once(&mut self, c: ConnId) -> bool {
        let moved = self.take(c);
        self.run();
        moved
    }

    /// A backend sends the head of a response.
    pub(crate) fn respond_head(&mut self, far: Far, head: &str) {
        match self.peers.get_mut(&far.0).expect("an open connection") {
            Peer::Http1 { .. } => drop(self.send_raw(far.0, head.as_bytes())),
            Peer::Toy { wire, .. } => assert!(wire.send_head(far.1, head.as_bytes())),
            Peer::Http2(http2) => assert!(send_head_text(&mut http2.wire, far.1, head)),
        }
        self.run();
    }

    /// The far end of a connection of HTTP/2; afterwards [`Rig::run`] is to be called.
    pub(crate) fn http2(&mut self, c: ConnId) -> &mut Http2 {
        match self.peers.get_mut(&c) {
            Some(Peer::Http2(http2)) => http2,
            other => panic!("{c:?} does not speak HTTP/2: {other:?}"),
        }
    }

    /// The proxy has closed the connection.
    pub(crate) fn is_closed(&self, c: ConnId) -> bool {
        self.closed.contains(&c)
    }

    /// A far end sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, c: ConnId, bytes: &[u8]) {
        self.send_raw(c, bytes);
    }

    /// A far end gives no credit for what comes on this stream any more.
    pub(crate) fn hold(&mut self, (c, stream): Far) {
        self.held.push((c, stream));
    }

    /// It gives credit again, for all that has come, too.
    pub(crate) fn unhold(&mut self, far: Far) {
        self.held.retain(|held| *held != far);
        self.http2(far.0).pay(far.1);
        self.run();
    }

    /// A backend sends the head of a response and what follows it, over HTTP/1.1 in one piece.
    pub(crate) fn respond_at_once_open(&mut self, far: Far, head: &str, body: &[u8]) {
        match self.peers.get(&far.0).expect("an open connection") {
            Peer::Http1 { .. } => drop(self.send_raw(far.0, &[head.as_bytes(), body].concat())),
            Peer::Http2(_) | Peer::Toy { .. } => {
                self.respond_head(far, head);
                self.send_all(far, body);
            }
        }
    }

    /// A backend sends a whole response, as far as it is taken; over HTTP/1.1 its head and the first of its
    /// content come in one piece.
    pub(crate) fn respond_at_once(&mut self, far: Far, head: &str, body: &[u8]) {
        match self.peers.get(&far.0).expect("an open connection") {
            Peer::Http1 { .. } => drop(self.send_raw(far.0, &[head.as_bytes(), body].concat())),
            Peer::Http2(_) | Peer::Toy { .. } => {
                self.respond_head(far, head);
                let mut given = 0;
                while given < body.len() {
                    match self.send(far, &body[given..]) {
                        0 => return,
                        n => given += n,
                    }
                }
                self.end(far, "");
            }
        }
    }

    /// The far end closes its direction, and nothing is missing.
    pub(crate) fn close(&mut self, c: ConnId) {
        self.proxy.handle_recv_end(c, self.now);
        self.run();
    }

    pub(crate) fn reload(&mut self, config: Config) {
        let config = spoken_to(config, self.backends);
        self.proxy.handle_config(Arc::new(config), self.now);
        self.run();
    }

    /// Backends take or refuse the connections that have waited.
    pub(crate) fn decide_connects(&mut self) {
        self.connects_wait = false;
        for (conn, tls) in std::mem::take(&mut self.connecting) {
            self.decide_connect(conn, tls);
        }
        self.run();
    }

    /// The same with backends that send nothing.
    pub(crate) fn decide_connects_deaf(&mut self) {
        self.connects_wait = false;
        for (conn, tls) in std::mem::take(&mut self.connecting) {
            self.decide_connect(conn, tls);
            self.http2(conn).deaf = true;
        }
        self.run();
    }

    /// Interim responses have been read: a client of HTTP/1.1 waits for the final one.
    pub(crate) fn forget_if_http1(&mut self, far: Far) {
        if self.clients == Speaks::Http1 {
            self.forget(far);
        }
    }

    /// A connection breaks.
    pub(crate) fn lose(&mut self, c: ConnId) {
        self.peers.remove(&c);
        self.proxy.handle_fault(c, Fault::Reset, self.now);
        self.run();
    }
}
