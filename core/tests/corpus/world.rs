//! A world without sockets: it does what a driver does (the contract of the facade), one byte stream for each
//! connection, and remembers what came out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::observe::{HealthChange, Level, Record};
use ruststrom_core::proxy::Counts;
use ruststrom_core::{
    Accepted, Config, ConnId, Effect, Fault, Instant, Listed, ListenerId, Observer, Proxy, Shared, Wall,
    Wants,
};

use crate::format::Side;

/// Counts what ended: one record for each exchange.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) exchanges: u32,
}

impl Observer for Ended {
    fn exchange(&mut self, _record: &Record<'_>) {
        self.exchanges += 1;
    }
    fn health(&mut self, _change: &HealthChange<'_>) {}
    fn note(&mut self, _level: Level, _text: &str) {}
}

/// One connection as the far end sees it.
#[derive(Debug)]
pub(crate) struct Peer {
    conn: ConnId,
    /// Sent to the proxy and not yet read by it.
    inbox: VecDeque<u8>,
    ending: bool,
    ended: bool,
    /// Received from the proxy since the last question.
    pub(crate) received: Vec<u8>,
    /// The proxy sends no more.
    pub(crate) shut: bool,
    /// The proxy has closed.
    pub(crate) closed: bool,
    /// And by a reset.
    pub(crate) cut: bool,
}

impl Peer {
    fn new(conn: ConnId) -> Self {
        Self {
            conn,
            inbox: VecDeque::new(),
            ending: false,
            ended: false,
            received: Vec::new(),
            shut: false,
            closed: false,
            cut: false,
        }
    }
}

/// The proxy and everything around it.
pub(crate) struct World {
    proxy: Proxy<Ended>,
    now: Instant,
    pub(crate) peers: BTreeMap<Side, Peer>,
    sides: BTreeMap<ConnId, Side>,
    /// What each connection wanted when the proxy last pointed at it, or when we last dealt with it: all
    /// that a driver knows.
    known: BTreeMap<ConnId, Wants>,
    /// The connection that the last input was about.
    acted: Option<ConnId>,
    /// At most so many bytes are taken from the proxy at once.
    take: usize,
    /// The next connection to the backend is refused.
    pub(crate) refuse_next: bool,
    /// Those that were refused and not yet given up by the proxy.
    refused: BTreeSet<ConnId>,
    /// Asked for and not opened yet.
    connecting: VecDeque<ConnId>,
    pub(crate) connections: u8,
}

const CLIENT: &str = "192.0.2.7:50000";
const LOCAL: &str = "192.0.2.1:80";
const BACKEND: &str = "192.0.2.20:80";
/// Tue, 15 Nov 2022 08:12:31 GMT, the `DATE` of the format.
const WALL: Wall = Wall { unix_secs: 1_668_499_951, millis: 250 };
/// Far more turns than any case needs: the proxy and the world are chasing each other.
const TURNS: u32 = 200_000;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl World {
    pub(crate) fn new(config: &Arc<Config>, take: usize) -> Self {
        let now = Instant::from_millis(1_000);
        let shared = Arc::new(Shared::new("lb.test", 1));
        let mut proxy = Proxy::new(config.clone(), shared, 0, 7, Ended::default(), now);
        proxy.handle_wall(WALL);
        let mut world = Self {
            proxy,
            now,
            peers: BTreeMap::new(),
            sides: BTreeMap::new(),
            known: BTreeMap::new(),
            acted: None,
            take,
            refuse_next: false,
            refused: BTreeSet::new(),
            connecting: VecDeque::new(),
            connections: 0,
        };
        world.settle();
        world
    }

    /// A client connects.
    pub(crate) fn accept(&mut self, side: Side) {
        let accepted = Accepted { listener: ListenerId(0), peer: address(CLIENT), local: address(LOCAL) };
        assert!(self.proxy.accepting(ListenerId(0)), "the listener is open");
        let conn = self.proxy.handle_accept(&accepted, self.now).expect("the proxy takes a client");
        self.sides.insert(conn, side);
        self.peers.insert(side, Peer::new(conn));
        self.acted = Some(conn);
        self.settle();
    }

    /// Bytes arrive from a peer. Those after our close fall on the floor, as they do in a kernel.
    pub(crate) fn send(&mut self, side: Side, bytes: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&side).filter(|p| !p.closed) {
            peer.inbox.extend(bytes);
        }
        self.settle();
    }

    /// The peer sends no more.
    pub(crate) fn end(&mut self, side: Side) {
        if let Some(peer) = self.peers.get_mut(&side) {
            peer.ending = true;
        }
        self.settle();
    }

    /// The connection breaks.
    pub(crate) fn reset(&mut self, side: Side) {
        if let Some(peer) = self.peers.get_mut(&side).filter(|p| !p.closed) {
            peer.inbox.clear();
            peer.ended = true;
            let conn = peer.conn;
            self.proxy.handle_fault(conn, Fault::Reset, self.now);
        }
        self.settle();
    }

    /// Time passes, timer by timer.
    pub(crate) fn wait(&mut self, by: Duration) {
        let until = self.now + by;
        for _ in 0..TURNS {
            match self.proxy.poll_timeout().filter(|&t| t <= until) {
                Some(t) => self.now = self.now.max(t),
                None => {
                    self.now = until;
                    self.proxy.handle_timeout(until);
                    return self.settle();
                }
            }
            self.proxy.handle_timeout(self.now);
            self.settle();
        }
        panic!("timers that never stop");
    }

    /// Everything that can happen without time passing or anybody doing anything new.
    fn settle(&mut self) {
        for _ in 0..TURNS {
            self.proxy.check();
            if !self.turn() {
                return;
            }
        }
        panic!("the proxy never settles");
    }

    /// One input to the proxy, if there is anything to be told; first whatever it wants done.
    fn turn(&mut self) -> bool {
        loop {
            let conn = self.proxy.poll_conn();
            if let Some(Listed { conn, send }) = conn {
                let wants = self.proxy.wants(conn);
                let known = self.known.insert(conn, wants).unwrap_or_default();
                assert!(
                    send || known.send || !wants.send,
                    "{conn:?} has something to send, and the hint says no"
                );
            }
            let effect = self.proxy.poll_effect();
            if conn.is_none() && effect.is_none() {
                break;
            }
            match effect {
                Some(Effect::Connect { conn, to }) => {
                    assert_eq!(to, address(BACKEND), "there is one backend");
                    self.connecting.push_back(conn);
                    assert!(
                        self.connecting.len() <= self.proxy.counts().exchanges,
                        "one exchange asks for one connection at once"
                    );
                }
                Some(Effect::Shutdown(conn)) => self.peer_of(conn).shut = true,
                Some(Effect::Close(conn) | Effect::Reset(conn)) if self.refused.remove(&conn) => {}
                Some(Effect::Close(conn) | Effect::Reset(conn)) if self.connecting.contains(&conn) => {
                    self.connecting.retain(|c| *c != conn);
                }
                Some(effect @ (Effect::Close(conn) | Effect::Reset(conn))) => {
                    let peer = self.peer_of(conn);
                    (peer.closed, peer.cut) = (true, matches!(effect, Effect::Reset(_)));
                    peer.inbox.clear();
                    self.sides.remove(&conn);
                }
                Some(other) => panic!("nobody asked for {other:?}"),
                None => {}
            }
        }
        if let Some(conn) = self.acted.take() {
            self.known.insert(conn, self.proxy.wants(conn));
        }
        // A want that nobody pointed at would never be served by a driver.
        for (conn, side) in &self.sides {
            let (now, known) = (self.proxy.wants(*conn), self.known.get(conn).copied().unwrap_or_default());
            assert!(
                (!now.recv || known.recv) && (!now.send || known.send),
                "{side:?} wants {now:?}, and the driver knows of {known:?}"
            );
        }
        if let Some(conn) = self.connecting.pop_front() {
            if std::mem::take(&mut self.refuse_next) {
                self.refused.insert(conn);
                self.proxy.handle_fault(conn, Fault::Refused, self.now);
            } else {
                self.connections += 1;
                let side = Side::Backend(self.connections);
                self.sides.insert(conn, side);
                self.peers.insert(side, Peer::new(conn));
                self.acted = Some(conn);
                self.proxy.handle_connected(conn, self.now);
            }
            return true;
        }
        self.take_one() || self.give_one()
    }

    fn peer_of(&mut self, conn: ConnId) -> &mut Peer {
        let side = self.sides.get(&conn).unwrap_or_else(|| panic!("{conn:?} is no connection"));
        self.peers.get_mut(side).expect("a peer for each side")
    }

    /// Takes bytes from the first connection that has any to send.
    fn take_one(&mut self) -> bool {
        for peer in self.peers.values_mut().filter(|p| !p.closed) {
            if !self.proxy.wants(peer.conn).send {
                continue;
            }
            assert!(!peer.shut, "nothing is sent after the end");
            let mut took = 0;
            for slice in self.proxy.transmit(peer.conn).slices() {
                let n = slice.len().min(self.take - took);
                peer.received.extend_from_slice(&slice[..n]);
                took += n;
            }
            assert!(took > 0, "a connection that wants to send has something to send");
            self.acted = Some(peer.conn);
            self.proxy.handle_sent(peer.conn, took, self.now);
            return true;
        }
        false
    }

    /// Gives bytes, or the end, to the first connection that wants to read.
    fn give_one(&mut self) -> bool {
        for peer in self.peers.values_mut().filter(|p| !p.closed && !p.ended) {
            if !self.proxy.wants(peer.conn).recv {
                continue;
            }
            if !peer.inbox.is_empty() {
                let room = self.proxy.recv_buf(peer.conn);
                if room.is_empty() {
                    continue;
                }
                let n = room.len().min(peer.inbox.len());
                for (to, from) in room.iter_mut().zip(peer.inbox.drain(..n)) {
                    *to = from;
                }
                self.acted = Some(peer.conn);
                self.proxy.handle_recv(peer.conn, n, self.now);
                return true;
            }
            if peer.ending {
                peer.ended = true;
                self.acted = Some(peer.conn);
                self.proxy.handle_recv_end(peer.conn, self.now);
                return true;
            }
        }
        false
    }

    /// How much the proxy still holds of everything.
    pub(crate) fn counts(&self) -> Counts {
        self.proxy.counts()
    }

    /// The proxy told of so many ended exchanges.
    pub(crate) fn exchanges(&mut self) -> u32 {
        self.proxy.observer_mut().exchanges
    }
}
