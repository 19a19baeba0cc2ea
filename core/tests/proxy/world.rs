//! A world without sockets for several shards on one thread: it does what drivers do (the contract of the
//! facade) in virtual time, plays the backends by script, and remembers everything that came out. Each time
//! that a shard has nothing left to say every structural invariant is checked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::{Config, ListenerKind, TlsTarget};
use ruststrom_core::observe::HealthState;
use ruststrom_core::proxy::Counts;
use ruststrom_core::rng::Rng;
use ruststrom_core::{
    Accepted, Cause, ConnId, Endpoint, Fault, Instant, ListenerId, LookupId, LookupResult, Negotiated, Proxy,
    Refused, Shared,
};

pub(crate) use crate::observer::{EndedExchange, Log};
pub(crate) use crate::script::{Open, Reply, Script, addr, config, endpoint, get, ok, one_pool, whole};
use crate::serve::Served;

/// Names a socket of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sock(pub(crate) usize);

/// One connection as the far end sees it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) shard: usize,
    pub(crate) conn: ConnId,
    /// Where a backend's lies; `None`: a client.
    pub(crate) to: Option<Endpoint>,
    pub(crate) probe: bool,
    /// On its way to the proxy.
    pub(crate) inbox: VecDeque<u8>,
    pub(crate) ending: bool,
    pub(crate) ended: bool,
    /// It breaks once everything sent before has been read.
    pub(crate) breaking: Option<Fault>,
    /// Taken from the proxy and not yet looked at.
    pub(crate) received: Vec<u8>,
    pub(crate) connected: bool,
    /// It takes so many more bytes.
    pub(crate) room: usize,
    pub(crate) shut: bool,
    pub(crate) closed: bool,
    pub(crate) cut: bool,
    pub(crate) served: Served,
}

#[derive(Debug)]
pub(crate) enum Event {
    Connected(Sock),
    Failed(Sock, Fault),
    Nudged(usize),
}

/// Several shards and everything around them.
pub(crate) struct World {
    pub(crate) shards: Vec<Proxy<Log>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) now: Instant,
    pub(crate) peers: Vec<Peer>,
    pub(crate) open: BTreeSet<Sock>,
    pub(crate) socks: BTreeMap<(usize, ConnId), Sock>,
    pub(crate) scripts: BTreeMap<Endpoint, Script>,
    /// Every connection that a shard has asked for, and whether TLS is to be spoken there.
    pub(crate) secured: Vec<(Endpoint, Option<Arc<TlsTarget>>)>,
    /// Whole requests that backends got, probes not among them.
    pub(crate) served: Vec<(Endpoint, String)>,
    /// Requests that nobody has answered yet, in the order of their coming.
    pub(crate) arrived: Vec<(Sock, String)>,
    /// Whole probes, and when.
    pub(crate) probed: Vec<(Endpoint, Instant)>,
    pub(crate) lookups: Vec<(usize, LookupId, String)>,
    pub(crate) drained: Vec<usize>,
    pub(crate) nudges: usize,
    pub(crate) events: VecDeque<Event>,
    /// Of the event loops: rounds of a connection are counted in each anew.
    pub(crate) turn: usize,
    /// Who has used up its rounds.
    pub(crate) backlog: VecDeque<Sock>,
    /// Order and sizes are drawn from it; without it everything is whole and in order.
    pub(crate) chaos: Option<Rng>,
    /// Most exchanges in flight at once, by backend as the world sees it.
    pub(crate) busiest: BTreeMap<Endpoint, usize>,
    pub(crate) next_peer: u16,
}

const LOCAL: &str = "192.0.2.1:80";
pub(crate) const TURNS: u32 = 2_000_000;

impl Peer {
    /// Bytes that the proxy has not read yet.
    pub(crate) fn unread(&self) -> usize {
        self.inbox.len()
    }
}

impl World {
    /// One shard.
    pub(crate) fn new(text: &str) -> Self {
        Self::of(&config(text), 1)
    }

    pub(crate) fn of(config: &Arc<Config>, shards: u16) -> Self {
        let now = Instant::from_millis(1_000);
        let shared = Arc::new(Shared::new("lb.test", shards));
        let make = |shard| {
            Proxy::new(config.clone(), shared.clone(), shard, 7 + u64::from(shard), Log::default(), now)
        };
        let mut world = Self {
            shards: (0..shards).map(make).collect(),
            shared,
            now,
            peers: Vec::new(),
            open: BTreeSet::new(),
            socks: BTreeMap::new(),
            scripts: BTreeMap::new(),
            secured: Vec::new(),
            served: Vec::new(),
            arrived: Vec::new(),
            probed: Vec::new(),
            lookups: Vec::new(),
            drained: Vec::new(),
            nudges: 0,
            events: VecDeque::new(),
            turn: 0,
            backlog: VecDeque::new(),
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
        self.scripts.entry(endpoint(at)).or_default()
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

    /// A client that is to speak TLS; nothing is said before [`World::negotiated`].
    pub(crate) fn tls_client(&mut self) -> Sock {
        self.next_peer += 1;
        let peer = SocketAddr::new([198, 51, 100, 7].into(), self.next_peer);
        self.accept(0, peer, ListenerId(2)).expect("the proxy takes a client")
    }

    /// The socket to this backend is connected, and its handshake begins.
    pub(crate) fn handshaking(&mut self, at: &str) {
        let to = Some(endpoint(at));
        let peer = self.peers.iter().find(|peer| peer.to == to).expect("asked for");
        let (shard, conn) = (peer.shard, peer.conn);
        self.shards[shard].handle_handshaking(conn, self.now);
        self.obey(shard);
        self.settle();
    }

    /// Its handshake has failed; the socket is as it was.
    pub(crate) fn handshake_failed(&mut self, sock: Sock, fault: Fault) {
        let (shard, conn) = (self.peers[sock.0].shard, self.peers[sock.0].conn);
        self.shards[shard].handle_fault(conn, fault, self.now);
        self.obey(shard);
        self.settle();
    }

    /// Its handshake is over.
    pub(crate) fn negotiated(&mut self, sock: Sock, n: &Negotiated<'_>) {
        let (shard, conn) = (self.peers[sock.0].shard, self.peers[sock.0].conn);
        self.shards[shard].handle_negotiated(conn, n, self.now);
        self.obey(shard);
        self.settle();
    }

    pub(crate) fn accept(
        &mut self,
        shard: usize,
        peer: SocketAddr,
        listener: ListenerId,
    ) -> Result<Sock, Refused> {
        // The listeners of every configuration here: if there is an admin page, it comes second.
        let kind = match listener.0 {
            1 => ListenerKind::Admin,
            2 => ListenerKind::Https,
            _ => ListenerKind::Http,
        };
        let conn = self.shards[shard]
            .handle_accept(&Accepted { listener, kind, peer, local: addr(LOCAL) }, self.now)?;
        let sock = self.add(shard, conn, None);
        self.is_connected(sock);
        self.obey(shard);
        self.settle();
        Ok(sock)
    }

    pub(crate) fn add(&mut self, shard: usize, conn: ConnId, to: Option<Endpoint>) -> Sock {
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
            served: Served::default(),
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

    /// The poller says that the far end sends no more, which nobody reads as long as a request is served.
    pub(crate) fn closing(&mut self, sock: Sock) {
        let Peer { shard, conn, .. } = self.peers[sock.0];
        self.shards[shard].handle_peer_closing(conn, self.now);
        self.obey(shard);
        self.settle();
    }

    /// The connection breaks.
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
        text.match_indices("HTTP/1.1 ")
            .filter_map(|(at, found)| text.get(at + found.len()..)?.get(..3)?.parse().ok())
            .collect()
    }

    /// A new client sends this.
    pub(crate) fn client_sends(&mut self, bytes: &str) -> Sock {
        let c = self.client();
        self.send(c, bytes);
        c
    }

    /// A new client that nobody needs any more sends this.
    pub(crate) fn send_from_new_client(&mut self, bytes: &str) {
        self.client_sends(bytes);
    }

    /// A client asks and the responses' statuses come back.
    pub(crate) fn ask(&mut self, sock: Sock, target: &str) -> Vec<u16> {
        self.send(sock, get(target));
        self.statuses(sock)
    }

    /// Open connections to a backend, probes not among them.
    pub(crate) fn to(&self, at: &str) -> Vec<Sock> {
        let at = Some(endpoint(at));
        self.open.iter().copied().filter(|s| self.peers[s.0].to == at && !self.peers[s.0].probe).collect()
    }

    /// Open connections of probes.
    pub(crate) fn probes(&self) -> Vec<Sock> {
        self.open.iter().copied().filter(|s| self.peers[s.0].probe).collect()
    }

    /// All connections ever made to a backend, probes among them.
    pub(crate) fn peers_to(&self, at: &str) -> usize {
        let at = Some(endpoint(at));
        self.peers.iter().filter(|p| p.to == at).count()
    }

    /// All connections ever made to a backend, probes not among them.
    pub(crate) fn made_to(&self, at: &str) -> usize {
        let at = Some(endpoint(at));
        self.peers.iter().filter(|p| p.to == at && !p.probe).count()
    }

    /// The last records, taken.
    pub(crate) fn exchanges(&mut self) -> Vec<EndedExchange> {
        self.shards.iter_mut().flat_map(|p| std::mem::take(&mut p.observer_mut().exchanges)).collect()
    }

    /// Status, cause, attempts of the one record since the last question.
    pub(crate) fn one(&mut self) -> (u16, Option<Cause>, u8) {
        let exchanges = self.exchanges();
        assert_eq!(exchanges.len(), 1, "{exchanges:?}");
        (exchanges[0].status, exchanges[0].cause, exchanges[0].attempts)
    }

    pub(crate) fn health(&mut self) -> Vec<(String, HealthState, HealthState)> {
        self.shards.iter_mut().flat_map(|p| std::mem::take(&mut p.observer_mut().health)).collect()
    }

    /// What operators were told, taken.
    pub(crate) fn notes(&mut self) -> Vec<String> {
        self.shards.iter_mut().flat_map(|p| std::mem::take(&mut p.observer_mut().notes)).collect()
    }

    /// Every request as it was told of when it came, taken.
    pub(crate) fn heads(&mut self) -> Vec<String> {
        self.shards.iter_mut().flat_map(|p| std::mem::take(&mut p.observer_mut().heads)).collect()
    }

    /// Pool and identity of each exchange that has ended, taken.
    pub(crate) fn pools(&mut self) -> Vec<(String, Option<u64>)> {
        self.shards.iter_mut().flat_map(|p| std::mem::take(&mut p.observer_mut().pools)).collect()
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

    pub(crate) fn response(&mut self, (shard, id, _): (usize, LookupId, String), response: LookupResult) {
        self.shards[shard].handle_lookup(id, response, self.now);
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
            let next = (0..self.shards.len())
                .filter_map(|s| Some((self.shards[s].poll_timeout()?.0, s)))
                .min()
                .filter(|(t, _)| *t <= until);
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
