//! A world without sockets for several shards on one thread: it does what drivers do (the contract of the facade) in virtual time, plays the
//! backends by script, and remembers everything that came out. After each input every structural invariant is checked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::{self, Config};
use ruststrom_core::observe::{HealthChange, HealthState, Level, Record};
use ruststrom_core::proxy::Counts;
use ruststrom_core::rng::Rng;
use ruststrom_core::{
    Accepted, Answer, Cause, ConnId, Effect, Fault, Instant, ListenerId, LookupId, Observer, Proxy, Question, Refused, Shared, Wants,
};

/// One record of the observer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) cause: Option<Cause>,
    pub(crate) attempts: u8,
    pub(crate) backend: String,
    pub(crate) reused: bool,
    pub(crate) target: String,
    pub(crate) client: SocketAddr,
    pub(crate) bytes: (u64, u64),
    pub(crate) total: Duration,
}

/// What the proxy told.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) told: Vec<Told>,
    /// Backend, before, after.
    pub(crate) health: Vec<(String, HealthState, HealthState)>,
    pub(crate) notes: Vec<String>,
}

impl Observer for Log {
    fn wants_texts(&self) -> bool {
        true
    }
    fn exchange(&mut self, r: &Record<'_>) {
        self.told.push(Told {
            status: r.status,
            cause: r.cause,
            attempts: r.attempts,
            backend: r.backend.to_owned(),
            reused: r.reused,
            target: String::from_utf8_lossy(r.target).into_owned(),
            client: r.client,
            bytes: (r.bytes_in, r.bytes_out),
            total: r.timings.total,
        });
    }
    fn health(&mut self, c: &HealthChange<'_>) {
        self.health.push((c.backend.to_owned(), c.from, c.to));
    }
    fn note(&mut self, _: Level, text: &str) {
        self.notes.push(text.to_owned());
    }
}

/// What becomes of a connection to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    Take,
    Fails(Fault),
    /// Neither yes nor no.
    Silent,
}

/// What a backend does with a whole request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Nothing: the test speaks for it.
    Hold,
    Bytes(Vec<u8>),
    BytesThenClose(Vec<u8>),
    Close,
    Reset,
    /// Made of the request; true: and then closed.
    Made(fn(&str) -> (Vec<u8>, bool)),
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Self::Bytes(text.into())
    }
}

/// How a backend behaves. What is first in a list comes first, then the rest of the time what stands beside it.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) opens: VecDeque<Open>,
    pub(crate) open: Open,
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) reply: Reply,
    /// To probes.
    pub(crate) probe: Reply,
    /// What a probe's connection meets; `None`: the same as everyone's.
    pub(crate) probe_open: Option<Open>,
}

/// A good answer with a body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

impl Default for Script {
    fn default() -> Self {
        Self {
            opens: VecDeque::new(),
            open: Open::Take,
            replies: VecDeque::new(),
            reply: Reply::from(&*ok("")),
            probe: Reply::from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            probe_open: None,
        }
    }
}

/// Names a socket of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sock(usize);

/// One connection as the far end sees it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) shard: usize,
    conn: ConnId,
    /// Where a backend's lies; `None`: a client.
    pub(crate) to: Option<SocketAddr>,
    pub(crate) probe: bool,
    /// On its way to the proxy.
    inbox: VecDeque<u8>,
    ending: bool,
    ended: bool,
    breaking: Option<Fault>,
    /// Taken from the proxy and not yet looked at.
    pub(crate) received: Vec<u8>,
    pub(crate) connected: bool,
    /// It takes so many more bytes.
    pub(crate) room: usize,
    pub(crate) shut: bool,
    pub(crate) closed: bool,
    pub(crate) cut: bool,
    known: Wants,
    /// It found no page to be read into.
    starving: bool,
}

#[derive(Debug)]
enum Event {
    Connected(Sock),
    Failed(Sock, Fault),
    Nudged(usize),
}

/// Several shards and everything around them.
pub(crate) struct World {
    pub(crate) shards: Vec<Proxy<Log>>,
    pub(crate) now: Instant,
    pub(crate) peers: Vec<Peer>,
    open: BTreeSet<Sock>,
    socks: BTreeMap<(usize, ConnId), Sock>,
    scripts: BTreeMap<SocketAddr, Script>,
    /// Whole requests that backends got, probes not among them.
    pub(crate) served: Vec<(SocketAddr, String)>,
    /// Requests that nobody has answered yet, in the order of their coming.
    pub(crate) arrived: Vec<(Sock, String)>,
    /// Whole probes, and when.
    pub(crate) probed: Vec<(SocketAddr, Instant)>,
    pub(crate) lookups: Vec<(usize, LookupId, String)>,
    pub(crate) drained: Vec<usize>,
    pub(crate) nudges: usize,
    events: VecDeque<Event>,
    /// Order and sizes are drawn from it; without it everything is whole and in order.
    pub(crate) chaos: Option<Rng>,
    /// Most exchanges in flight at once, by backend as the world sees it.
    pub(crate) busiest: BTreeMap<SocketAddr, usize>,
    next_peer: u16,
}

const LOCAL: &str = "192.0.2.1:80";
const TURNS: u32 = 2_000_000;

pub(crate) fn config(text: &str) -> Arc<Config> {
    let parsed = config::parse(text);
    match parsed.config {
        Some(config) => Arc::new(config),
        None => panic!("{}", config::render(&parsed.diagnostics, "test", text)),
    }
}

/// A file with one pool of these keys (and tables behind them), no probes.
pub(crate) fn one_pool(pool: &str) -> String {
    format!("http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\n{pool}\n")
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

impl World {
    /// One shard.
    pub(crate) fn new(text: &str) -> Self {
        Self::of(&config(text), 1)
    }

    pub(crate) fn of(config: &Arc<Config>, shards: u16) -> Self {
        let now = Instant::from_millis(1_000);
        let shared = Arc::new(Shared::new("lb.test", shards));
        let make = |shard| Proxy::new(config.clone(), shared.clone(), shard, 7 + u64::from(shard), Log::default(), now);
        let mut world = Self {
            shards: (0..shards).map(make).collect(),
            now,
            peers: Vec::new(),
            open: BTreeSet::new(),
            socks: BTreeMap::new(),
            scripts: BTreeMap::new(),
            served: Vec::new(),
            arrived: Vec::new(),
            probed: Vec::new(),
            lookups: Vec::new(),
            drained: Vec::new(),
            nudges: 0,
            events: VecDeque::new(),
            chaos: None,
            busiest: BTreeMap::new(),
            next_peer: 1024,
        };
        for shard in 0..world.shards.len() {
            world.obey(shard);
        }
        world
    }

    /// How the backend at an address behaves.
    pub(crate) fn backend(&mut self, at: &str) -> &mut Script {
        self.scripts.entry(addr(at)).or_default()
    }

    pub(crate) fn client(&mut self) -> Sock {
        self.client_at(0)
    }

    pub(crate) fn client_at(&mut self, shard: usize) -> Sock {
        self.next_peer += 1;
        let peer = SocketAddr::new([198, 51, 100, 7].into(), self.next_peer);
        self.accept(shard, peer, ListenerId(0)).expect("the proxy takes a client")
    }

    pub(crate) fn client_from(&mut self, ip: &str) -> Sock {
        self.next_peer += 1;
        let peer = SocketAddr::new(ip.parse().expect("an address"), self.next_peer);
        self.accept(0, peer, ListenerId(0)).expect("the proxy takes a client")
    }

    pub(crate) fn accept(&mut self, shard: usize, peer: SocketAddr, listener: ListenerId) -> Result<Sock, Refused> {
        let conn = self.shards[shard].handle_accept(&Accepted { listener, peer, local: addr(LOCAL) }, self.now)?;
        let sock = self.add(shard, conn, None);
        self.peers[sock.0].connected = true;
        self.acted(sock);
        self.obey(shard);
        self.settle();
        Ok(sock)
    }

    fn add(&mut self, shard: usize, conn: ConnId, to: Option<SocketAddr>) -> Sock {
        let sock = Sock(self.peers.len());
        self.peers.push(Peer {
            shard,
            conn,
            to,
            probe: false,
            inbox: VecDeque::new(),
            ending: false,
            ended: false,
            breaking: None,
            received: Vec::new(),
            connected: false,
            room: usize::MAX,
            shut: false,
            closed: false,
            cut: false,
            known: Wants::default(),
            starving: false,
        });
        self.open.insert(sock);
        self.socks.insert((shard, conn), sock);
        sock
    }

    pub(crate) fn peer(&self, sock: Sock) -> &Peer {
        &self.peers[sock.0]
    }

    /// Bytes on their way to the proxy, without waiting for what becomes of them.
    pub(crate) fn put(&mut self, sock: Sock, bytes: impl AsRef<[u8]>) {
        let peer = &mut self.peers[sock.0];
        if !peer.closed {
            peer.inbox.extend(bytes.as_ref());
        }
    }

    pub(crate) fn send(&mut self, sock: Sock, bytes: impl AsRef<[u8]>) {
        self.put(sock, bytes);
        self.settle();
    }

    /// A backend is done with what it has got, and says so.
    pub(crate) fn reply(&mut self, sock: Sock, bytes: impl AsRef<[u8]>) {
        self.peers[sock.0].received.clear();
        self.arrived.retain(|(s, _)| *s != sock);
        self.send(sock, bytes);
    }

    /// The far end sends no more.
    pub(crate) fn end(&mut self, sock: Sock) {
        self.peers[sock.0].ending = true;
        self.settle();
    }

    /// The connection breaks once everything sent before has been read, as a driver sees it.
    pub(crate) fn fault(&mut self, sock: Sock, fault: Fault) {
        self.peers[sock.0].breaking = Some(fault);
        self.settle();
    }

    /// The same three, without waiting for what becomes of them.
    pub(crate) fn put_end(&mut self, sock: Sock) {
        self.peers[sock.0].ending = true;
    }

    pub(crate) fn put_fault(&mut self, sock: Sock, fault: Fault) {
        self.peers[sock.0].breaking = Some(fault);
    }

    pub(crate) fn put_room(&mut self, sock: Sock, n: usize) {
        self.peers[sock.0].room = n;
    }

    /// Everything that is open.
    pub(crate) fn sockets(&self) -> Vec<Sock> {
        self.open.iter().copied().collect()
    }

    /// A connection attempt left [`Open::Silent`] ends.
    pub(crate) fn opened(&mut self, sock: Sock) {
        self.events.push_back(Event::Connected(sock));
        self.settle();
    }

    /// The far end takes `n` more bytes only.
    pub(crate) fn room(&mut self, sock: Sock, n: usize) {
        self.peers[sock.0].room = n;
        self.settle();
    }

    /// What has arrived at a far end.
    pub(crate) fn got(&mut self, sock: Sock) -> String {
        let bytes = std::mem::take(&mut self.peers[sock.0].received);
        String::from_utf8(bytes).expect("text")
    }

    /// The status lines that have arrived at a client, and nothing else of it.
    pub(crate) fn statuses(&mut self, sock: Sock) -> Vec<u16> {
        let text = self.got(sock);
        text.match_indices("HTTP/1.1 ").filter_map(|(at, found)| text.get(at + found.len()..)?.get(..3)?.parse().ok()).collect()
    }

    /// A new client sends this.
    pub(crate) fn client_asks(&mut self, bytes: &str) -> Sock {
        let c = self.client();
        self.send(c, bytes);
        c
    }

    /// A new client that nobody needs any more sends this.
    pub(crate) fn asks(&mut self, bytes: &str) {
        self.client_asks(bytes);
    }

    /// A client asks and the answers' statuses come back.
    pub(crate) fn ask(&mut self, sock: Sock, target: &str) -> Vec<u16> {
        self.send(sock, get(target));
        self.statuses(sock)
    }

    /// Open connections to a backend, probes not among them.
    pub(crate) fn to(&self, at: &str) -> Vec<Sock> {
        let at = addr(at);
        self.open.iter().copied().filter(|s| self.peers[s.0].to == Some(at) && !self.peers[s.0].probe).collect()
    }

    /// All connections ever made to a backend, probes not among them.
    pub(crate) fn made_to(&self, at: &str) -> usize {
        let at = addr(at);
        self.peers.iter().filter(|p| p.to == Some(at) && !p.probe).count()
    }

    /// The last records, taken.
    pub(crate) fn told(&mut self) -> Vec<Told> {
        self.shards.iter_mut().flat_map(|p| std::mem::take(&mut p.observer_mut().told)).collect()
    }

    /// Status, cause, attempts of the one record since the last question.
    pub(crate) fn one(&mut self) -> (u16, Option<Cause>, u8) {
        let told = self.told();
        assert_eq!(told.len(), 1, "{told:?}");
        (told[0].status, told[0].cause, told[0].attempts)
    }

    pub(crate) fn health(&mut self) -> Vec<(String, HealthState, HealthState)> {
        self.shards.iter_mut().flat_map(|p| std::mem::take(&mut p.observer_mut().health)).collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shards[0].counts()
    }

    pub(crate) fn reconfigure(&mut self, config: &Arc<Config>) {
        self.reconfigure_unsettled(config);
        self.settle();
    }

    pub(crate) fn reconfigure_unsettled(&mut self, config: &Arc<Config>) {
        for shard in 0..self.shards.len() {
            self.shards[shard].handle_config(config.clone(), self.now);
            self.obey(shard);
        }
    }

    /// Time passes at once, in the middle of things.
    pub(crate) fn advance_unsettled(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        for shard in 0..self.shards.len() {
            self.shards[shard].handle_timeout(self.now);
            self.obey(shard);
        }
    }

    pub(crate) fn answer(&mut self, (shard, id, _): (usize, LookupId, String), answer: Answer) {
        self.shards[shard].handle_answer(id, answer, self.now);
        self.obey(shard);
        self.settle();
    }

    pub(crate) fn drain(&mut self, within: Duration) {
        for shard in 0..self.shards.len() {
            self.shards[shard].drain(self.now + within, self.now);
            self.obey(shard);
        }
        self.settle();
    }

    /// Time passes, timer by timer.
    pub(crate) fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        for _ in 0..TURNS {
            let next = (0..self.shards.len()).filter_map(|s| Some((self.shards[s].poll_timeout()?, s))).min().filter(|(t, _)| *t <= until);
            let Some((t, shard)) = next else {
                self.now = until;
                for shard in 0..self.shards.len() {
                    self.shards[shard].handle_timeout(until);
                    self.obey(shard);
                }
                return self.settle();
            };
            self.now = self.now.max(t);
            self.shards[shard].handle_timeout(self.now);
            self.obey(shard);
            self.settle();
        }
        panic!("timers that never stop");
    }

    pub(crate) fn advance_ms(&mut self, ms: u64) {
        self.advance(Duration::from_millis(ms));
    }

    /// Everything that can happen without time passing or anyone doing anything new.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS {
            if !self.step() {
                return;
            }
        }
        panic!("the proxy never settles");
    }

    /// One input to one shard; false if there is nothing left to tell.
    pub(crate) fn step(&mut self) -> bool {
        if let Some(event) = self.events.pop_front() {
            self.happen(event);
            return true;
        }
        let all: Vec<Sock> = self.open.iter().copied().collect();
        let start = self.draw(all.len().max(1) as u64) as usize;
        for i in 0..all.len() {
            let sock = all[(start + i) % all.len()];
            let write_first = self.draw(4) != 1;
            if (write_first && self.take(sock)) || self.give(sock) || self.take(sock) {
                return true;
            }
        }
        false
    }

    /// 0 unless there is chaos.
    fn draw(&mut self, below: u64) -> u64 {
        self.chaos.as_mut().map_or(0, |rng| rng.below(below))
    }

    /// At most so many of `n` at once.
    fn piece(&mut self, n: usize) -> usize {
        match self.draw(4) {
            0 => n,
            1 => n.min(1),
            _ => 1 + self.draw(n as u64) as usize,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Nudged(shard) => {
                self.shards[shard].handle_shared(self.now);
                self.obey(shard);
            }
            Event::Connected(sock) if !self.peers[sock.0].closed => {
                self.peers[sock.0].connected = true;
                let Peer { shard, conn, .. } = self.peers[sock.0];
                self.shards[shard].handle_connected(conn, self.now);
                self.acted(sock);
                self.obey(shard);
            }
            Event::Failed(sock, fault) if !self.peers[sock.0].closed => {
                let Peer { shard, conn, .. } = self.peers[sock.0];
                self.peers[sock.0].ended = true;
                self.shards[shard].handle_fault(conn, fault, self.now);
                self.acted(sock);
                self.obey(shard);
            }
            _ => {}
        }
    }

    /// After an input about a connection a driver looks by itself whether it may read.
    fn acted(&mut self, sock: Sock) {
        let peer = &mut self.peers[sock.0];
        let wants = self.shards[peer.shard].wants(peer.conn);
        peer.known = Wants { recv: wants.recv && !peer.starving, send: wants.send && peer.known.send };
    }

    /// Does what a shard asks for, and checks it.
    fn obey(&mut self, shard: usize) {
        loop {
            let conn = self.shards[shard].poll_conn();
            if let Some((&sock, hint)) = conn.and_then(|l| Some((self.socks.get(&(shard, l.conn))?, l.send))) {
                let peer = &mut self.peers[sock.0];
                let wants = self.shards[shard].wants(peer.conn);
                peer.known = Wants { recv: wants.recv, send: wants.send && (hint || peer.known.send) };
                peer.starving = false;
            }
            let Some(effect) = self.shards[shard].poll_effect() else {
                if conn.is_none() {
                    break;
                }
                continue;
            };
            match effect {
                Effect::Connect { conn, to } => self.connect(shard, conn, to),
                Effect::Shutdown(conn) => {
                    let sock = self.socks[&(shard, conn)];
                    self.peers[sock.0].shut = true;
                }
                Effect::Close(conn) | Effect::Reset(conn) => {
                    let sock = self.socks.remove(&(shard, conn)).expect("closed once");
                    let peer = &mut self.peers[sock.0];
                    (peer.closed, peer.cut) = (true, matches!(effect, Effect::Reset(_)));
                    peer.inbox = VecDeque::new();
                    self.open.remove(&sock);
                    self.arrived.retain(|(s, _)| *s != sock);
                }
                Effect::Lookup { id, question: Question::Resolve { host, port } } => {
                    self.lookups.push((shard, id, format!("{host}:{port}")));
                }
                Effect::Nudge(other) => {
                    assert_ne!(usize::from(other), shard, "a shard that nudges itself");
                    self.nudges += 1;
                    self.events.push_back(Event::Nudged(other.into()));
                }
                Effect::Drained => self.drained.push(shard),
            }
        }
        let proxy = &self.shards[shard];
        proxy.check();
        // A want that nobody pointed at would never be served by a driver.
        for sock in &self.open {
            let peer = &self.peers[sock.0];
            if peer.shard == shard {
                let (now, known) = (proxy.wants(peer.conn), peer.known);
                assert!((!now.recv || known.recv || peer.starving) && (!now.send || known.send), "{sock:?} wants {now:?} and nobody knows");
            }
        }
    }

    fn connect(&mut self, shard: usize, conn: ConnId, to: SocketAddr) {
        let sock = self.add(shard, conn, Some(to));
        let probe = self.shards[shard].counts().probes
            > self.open.iter().filter(|s| self.peers[s.0].probe && self.peers[s.0].shard == shard).count();
        self.peers[sock.0].probe = probe;
        let script = self.scripts.entry(to).or_default();
        let open = match script.probe_open.filter(|_| probe) {
            Some(open) => open,
            None => script.opens.pop_front().filter(|_| !probe).unwrap_or(script.open),
        };
        match open {
            Open::Take => self.events.push_back(Event::Connected(sock)),
            Open::Fails(fault) => self.events.push_back(Event::Failed(sock, fault)),
            Open::Silent => {}
        }
        let busy = self.open.iter().filter(|s| self.peers[s.0].to == Some(to) && !self.peers[s.0].probe).count();
        let most = self.busiest.entry(to).or_default();
        *most = busy.max(*most);
    }

    /// Takes bytes from the proxy.
    fn take(&mut self, sock: Sock) -> bool {
        let Peer { shard, conn, room, connected, .. } = self.peers[sock.0];
        if !connected || room == 0 || !self.peers[sock.0].known.send || self.peers[sock.0].breaking.is_some() {
            return false;
        }
        assert!(!self.peers[sock.0].shut, "nothing is sent after the end");
        let whole: usize = self.shards[shard].transmit(conn).slices().iter().map(|s| s.len()).sum();
        assert!(whole > 0, "a connection that wants to send has something to send");
        let n = self.piece(whole).min(room);
        let peer = &mut self.peers[sock.0];
        let mut took = 0;
        for slice in self.shards[shard].transmit(conn).slices() {
            let here = slice.len().min(n - took);
            peer.received.extend_from_slice(&slice[..here]);
            took += here;
        }
        if peer.room != usize::MAX {
            peer.room -= n;
        }
        // Once all has gone a driver waits to be told of more.
        peer.known.send = n < whole;
        self.shards[shard].handle_sent(conn, n, self.now);
        self.acted(sock);
        self.obey(shard);
        if self.peers[sock.0].to.is_some() {
            self.serve(sock);
        }
        true
    }

    /// Gives bytes, or the end, to the proxy.
    fn give(&mut self, sock: Sock) -> bool {
        let peer = &mut self.peers[sock.0];
        let (shard, conn) = (peer.shard, peer.conn);
        if peer.ended || !peer.connected {
            return false;
        }
        if let Some(fault) = peer.breaking.filter(|_| peer.inbox.is_empty() || !peer.known.recv) {
            peer.ended = true;
            self.shards[shard].handle_fault(conn, fault, self.now);
        } else if !peer.known.recv {
            return false;
        } else if !peer.inbox.is_empty() {
            let len = peer.inbox.len();
            let n = self.piece(len);
            let room = self.shards[shard].recv_buf(conn);
            if room.is_empty() {
                // The core lists it again once there is a page.
                let peer = &mut self.peers[sock.0];
                (peer.known.recv, peer.starving) = (false, true);
                self.obey(shard);
                return false;
            }
            let n = n.min(room.len());
            for (to, from) in room.iter_mut().zip(self.peers[sock.0].inbox.drain(..n)) {
                *to = from;
            }
            self.shards[shard].handle_recv(conn, n, self.now);
        } else if peer.ending {
            peer.ended = true;
            self.shards[shard].handle_recv_end(conn, self.now);
        } else {
            return false;
        }
        self.acted(sock);
        self.obey(shard);
        true
    }

    /// A backend looks at what it has.
    fn serve(&mut self, sock: Sock) {
        let Some(to) = self.peers[sock.0].to else { return };
        if self.peers[sock.0].received.windows(17).any(|w| w == b"rust-strom-health") {
            self.peers[sock.0].probe = true;
        }
        let script = self.scripts.entry(to).or_default();
        if let (Reply::Hold, true) = (&script.reply, script.replies.is_empty())
            && !self.peers[sock.0].probe
        {
            let received = &self.peers[sock.0].received;
            if whole(received).is_some() && self.arrived.iter().all(|(s, _)| *s != sock) {
                let target = String::from_utf8_lossy(received).split(' ').nth(1).unwrap_or_default().to_owned();
                self.arrived.push((sock, target));
            }
            return;
        }
        while let Some(len) = whole(&self.peers[sock.0].received) {
            let request: Vec<u8> = self.peers[sock.0].received.drain(..len).collect();
            let request = String::from_utf8(request).expect("text");
            let script = self.scripts.entry(to).or_default();
            let reply = if self.peers[sock.0].probe {
                self.probed.push((to, self.now));
                script.probe.clone()
            } else {
                self.served.push((to, request.clone()));
                script.replies.pop_front().unwrap_or_else(|| script.reply.clone())
            };
            match reply {
                Reply::Hold => return,
                Reply::Bytes(bytes) => self.put(sock, bytes),
                Reply::BytesThenClose(bytes) => {
                    self.put(sock, bytes);
                    self.peers[sock.0].ending = true;
                }
                Reply::Close => self.peers[sock.0].ending = true,
                Reply::Reset => self.peers[sock.0].breaking = Some(Fault::Reset),
                Reply::Made(make) => {
                    let (answer, close) = make(&request);
                    self.put(sock, answer);
                    self.peers[sock.0].ending |= close;
                }
            }
        }
    }

    /// Everybody goes home: then nothing is left.
    pub(crate) fn finish(mut self) {
        self.chaos = None;
        let clients: Vec<Sock> = self.open.iter().copied().filter(|s| self.peers[s.0].to.is_none()).collect();
        for sock in clients {
            if !self.peers[sock.0].closed {
                self.fault(sock, Fault::Reset);
            }
        }
        for shard in &self.shards {
            let counts = shard.counts();
            let idle = Counts {
                backends_idle: counts.backends_idle,
                probes: counts.probes,
                pages: counts.probes.min(counts.pages),
                ..Counts::default()
            };
            assert_eq!(Counts { timers: 0, ..counts }, idle, "left after all clients have gone");
        }
        if self.drained.is_empty() {
            self.drain(Duration::from_secs(3600));
        }
        assert_eq!(self.drained.len(), self.shards.len(), "each shard says once that it is through");
        self.advance(Duration::from_secs(7200));
        assert_eq!(self.drained.len(), self.shards.len(), "and once only");
        for shard in &self.shards {
            assert_eq!(shard.counts(), Counts::default(), "left after the drain");
            assert_eq!(shard.poll_timeout(), None, "a timer is left after the drain");
        }
        assert!(self.open.is_empty(), "a socket is left after the drain");
    }
}

/// Length of the first whole request in `bytes`.
pub(crate) fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("a head of text").to_ascii_lowercase();
    if text.contains("\r\ntransfer-encoding: chunked\r\n") {
        let mut at = head;
        loop {
            let line = bytes[at..].windows(2).position(|w| w == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).expect("hex"), 16).expect("a chunk size");
            at += line + 2;
            if size == 0 {
                // No test sends trailers.
                return (bytes.len() >= at + 2).then_some(at + 2);
            }
            at += size + 2;
            if at > bytes.len() {
                return None;
            }
        }
    }
    let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap_or(0);
    (bytes.len() >= head + length).then_some(head + length)
}
