//! One proxy between clients and backends that speak HTTP/1.1 or the toy protocol of many streams, byte
//! buffers for sockets and a clock that only moves when it is told to.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::{self, Config, ListenerKind, Protocol, TlsTarget};
use ruststrom_core::h2::{self, Reason};
use ruststrom_core::http::{HeaderKind, RequestHead, ResponseHead};
use ruststrom_core::middleware::Counter;
use ruststrom_core::observe::{HealthChange, Level, Record, Step};
use ruststrom_core::wire::{Multiplexed, Received};
use ruststrom_core::{
    Accepted, Cause, ConnId, Effect, Fault, Instant, ListenerId, LookupId, LookupResult, Negotiated,
    Observer, Proxy, Query, Shared,
};

use crate::toy_wire::{ToyEvent, ToyWire};

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

/// A message as one end of a stream, or of a connection of HTTP/1.1, has received it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Start line and field lines, with the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
    pub(crate) ended: bool,
    pub(crate) reset: bool,
}

/// The far end of a connection.
#[derive(Debug)]
enum Peer {
    Http1 { received: Vec<u8>, closed: bool },
    Toy { wire: ToyWire, messages: BTreeMap<u32, Message> },
    Http2(Box<Http2>),
}

/// The far end of a connection of HTTP/2.
#[derive(Debug)]
pub(crate) struct Http2 {
    pub(crate) wire: h2::Conn,
    received: Received,
    messages: BTreeMap<u32, Message>,
    /// All that has come.
    pub(crate) events: Vec<h2::Event>,
    /// It is a backend.
    serves: bool,
    /// It takes bytes, and sends none.
    pub(crate) deaf: bool,
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
            Effect::Shutdown(_) | Effect::Nudge(_) => {}
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

/// Bytes come to the far end of a connection of many streams: it takes everything at once, and gives credit
/// for it where the stream is not `held`.
fn hear(
    wire: &mut ToyWire,
    messages: &mut BTreeMap<u32, Message>,
    mut bytes: &[u8],
    held: impl Fn(u32) -> bool,
) {
    while !bytes.is_empty() {
        let room = wire.recv_buf();
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
        wire.handle_recv(n);
        bytes = &bytes[n..];
    }
    while let Some(event) = wire.next_event() {
        match event {
            ToyEvent::Head(stream, head, ended) => {
                let message = messages.entry(stream).or_default();
                message.head.push_str(&String::from_utf8(head).expect("text"));
                message.ended = ended;
            }
            ToyEvent::Data(stream, data) => {
                messages.entry(stream).or_default().body.extend_from_slice(&data);
                if !held(stream) {
                    wire.release(stream, data.len());
                }
            }
            ToyEvent::End(stream, trailers) => {
                let message = messages.entry(stream).or_default();
                (message.trailers, message.ended) = (String::from_utf8(trailers).expect("text"), true);
            }
            ToyEvent::Reset(stream) => messages.entry(stream).or_default().reset = true,
            ToyEvent::Writable(_) => {}
            ToyEvent::Broken => panic!("the proxy broke the toy protocol"),
        }
    }
}

/// Sends the head of a request or a response that is written as HTTP/1.1 has it.
fn send_head_text(wire: &mut h2::Conn, stream: u32, head: &str) -> bool {
    let mut lines = head.split("\r\n").take_while(|line| !line.is_empty());
    let line: Vec<&str> = lines.next().expect("a start line").split(' ').collect();
    let fields: Vec<(&str, &str)> = lines.map(|line| line.split_once(':').expect("a field")).collect();
    let is_host = |name: &str| name.eq_ignore_ascii_case("host");
    wire.send_head(stream, false, line[0] == "HEAD", |w| {
        if line[0].starts_with("HTTP/") {
            w.pseudo(b":status", line[1].as_bytes());
        } else {
            w.pseudo(b":method", line[0].as_bytes());
            w.pseudo(b":scheme", b"http");
            w.pseudo(b":path", line[1].as_bytes());
        }
        for (_, host) in fields.iter().filter(|(name, _)| is_host(name)) {
            w.pseudo(b":authority", host.trim().as_bytes());
        }
        let other = |name: &str| !is_host(name) && !["connection", "transfer-encoding"].contains(&name);
        for (name, value) in fields.iter().filter(|(name, _)| other(&name.to_ascii_lowercase())) {
            w.field(name.as_bytes(), value.trim().as_bytes(), HeaderKind::of(name.as_bytes()), false);
        }
    })
}

impl Http2 {
    /// Bytes come: as [`hear`] does it.
    fn hear(&mut self, mut bytes: &[u8], held: impl Fn(u32) -> bool) {
        while !bytes.is_empty() {
            let room = self.wire.recv_buf();
            let n = room.len().min(bytes.len());
            assert!(n > 0, "there is room for a frame");
            room[..n].copy_from_slice(&bytes[..n]);
            self.wire.handle_recv(n);
            bytes = &bytes[n..];
            while let Some(event) = self.wire.poll_event(&mut self.received, Instant::ZERO) {
                self.event(event, &held);
            }
        }
    }

    fn event(&mut self, event: h2::Event, held: impl Fn(u32) -> bool) {
        self.events.push(event);
        match event {
            h2::Event::Request { stream, ended } => {
                let message = self.messages.entry(stream).or_default();
                message.head = request_as_http1(&self.received.request);
                message.ended = ended;
            }
            h2::Event::Response { stream, ended } => {
                let message = self.messages.entry(stream).or_default();
                message.head.push_str(&as_http1(&self.received.response));
                message.ended = ended;
            }
            h2::Event::Data { stream } => {
                let data = self.wire.data();
                let len = data.len() as u32;
                self.messages.entry(stream).or_default().body.extend_from_slice(data);
                if !held(stream) {
                    self.wire.release(stream, len);
                }
            }
            h2::Event::End { stream } => {
                let message = self.messages.entry(stream).or_default();
                message.trailers = String::from_utf8_lossy(&self.received.trailers).into_owned();
                message.ended = true;
            }
            // A reset behind a whole response only says that the rest of the request is not wanted.
            h2::Event::Reset { stream, .. } => {
                let message = self.messages.entry(stream).or_default();
                message.reset |= !message.ended || self.serves;
            }
            h2::Event::Writable { .. } | h2::Event::GoingAway => {}
            other => panic!("the proxy broke the protocol: {other:?}"),
        }
    }
}

/// The head of a request as one of HTTP/1.1.
fn request_as_http1(head: &RequestHead) -> String {
    let mut text = format!("{} {} HTTP/1.1\r\n", head.method(), String::from_utf8_lossy(head.target()));
    for field in head.fields().iter() {
        let (name, value) = (String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value));
        assert!(!name.bytes().any(|b| b.is_ascii_uppercase()), "{name}");
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    in_title_case(&(text + "\r\n"))
}

/// A head as one of HTTP/1.1.
fn as_http1(head: &ResponseHead) -> String {
    let status = head.status();
    let reason = match status.as_u16() {
        413 => "Content Too Large",
        _ => status.canonical_reason().unwrap_or_default(),
    };
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16());
    for field in head.fields().iter() {
        let (name, value) = (String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value));
        assert!(!name.bytes().any(|b| b.is_ascii_uppercase()), "{name}");
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

/// The names of fields as HTTP/1.1 has them mostly.
pub(crate) fn in_title_case(text: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some((name, value)) => {
            let mut begins = true;
            let name: String = name
                .chars()
                .map(|c| {
                    let c = if begins { c.to_ascii_uppercase() } else { c };
                    begins = c == '-';
                    c
                })
                .collect();
            let known = ["WWW-Authenticate", "ETag", "Content-MD5", "X-Request-ID", "X-Real-IP", "TE"];
            let name =
                known.iter().find(|known| known.eq_ignore_ascii_case(&name)).map_or(&*name, |known| known);
            format!("{name}: {value}")
        }
        None => line.to_owned(),
    };
    text.split("\r\n").map(line).collect::<Vec<_>>().join("\r\n")
}

/// One message of HTTP/1.1, by its length or its chunks; without either it has no content.
fn read_http1(raw: &[u8], closed: bool) -> Message {
    let Some(end) = raw.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Message { reset: closed, ..Message::default() };
    };
    let head = String::from_utf8(raw[..end + 4].to_vec()).expect("text");
    let rest = &raw[end + 4..];
    let lower = head.to_ascii_lowercase();
    let mut message = Message { head, ..Message::default() };
    if lower.contains("transfer-encoding: chunked") {
        read_chunks(rest, &mut message);
    } else {
        let len = lower
            .split("content-length: ")
            .nth(1)
            .and_then(|at| at.split("\r\n").next()?.parse::<usize>().ok())
            .unwrap_or(0);
        message.body = rest[..rest.len().min(len)].to_vec();
        message.ended = message.body.len() == len;
    }
    message.reset = closed && !message.ended;
    message
}

fn read_chunks(mut rest: &[u8], message: &mut Message) {
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..at]).expect("a chunk size");
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        rest = &rest[at + 2..];
        if size == 0 {
            message.ended = rest.ends_with(b"\r\n");
            message.trailers = String::from_utf8(rest.to_vec()).expect("text");
            return;
        }
        let Some(chunk) = rest.get(..size + 2) else {
            message.body.extend_from_slice(&rest[..rest.len().min(size)]);
            return;
        };
        message.body.extend_from_slice(&chunk[..size]);
        rest = &rest[size + 2..];
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
