//! An environment without sockets: it calls the proxy as a driver does, with a byte stream for each
//! connection, and records what the proxy sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::ListenerKind;
use ruststrom_core::observe::{HealthChange, Level, Record};
use ruststrom_core::proxy::Counts;
use ruststrom_core::{
    Accepted, Config, ConnId, Effect, Fault, Instant, ListenerId, Observer, Proxy, Ready, Shared, Wall, Wants,
};

use crate::format::Side;

/// Counts the records of exchanges.
#[derive(Debug, Default)]
pub(crate) struct ExchangeCounter {
    pub(crate) exchanges: u32,
}

impl Observer for ExchangeCounter {
    fn exchange(&mut self, _record: &Record<'_>) {
        self.exchanges += 1;
    }
    fn health(&mut self, _change: &HealthChange<'_>) {}
    fn note(&mut self, _level: Level, _text: &str) {}
}

/// The far end of one connection.
#[derive(Debug)]
pub(crate) struct Peer {
    conn: ConnId,
    /// Sent to the proxy and not yet read by it.
    inbox: VecDeque<u8>,
    ending: bool,
    ended: bool,
    /// Received from the proxy since a step last took it.
    pub(crate) received: Vec<u8>,
    /// The proxy has shut down its direction.
    pub(crate) shut: bool,
    /// The proxy has closed the connection, perhaps by a reset.
    pub(crate) closed: bool,
    /// The proxy has reset the connection.
    pub(crate) reset: bool,
    /// Of a connection to the second backend, which stands in where the first one has failed.
    pub(crate) to_backup: bool,
}

impl Peer {
    fn new(conn: ConnId, to_backup: bool) -> Self {
        Self {
            to_backup,
            conn,
            inbox: VecDeque::new(),
            ending: false,
            ended: false,
            received: Vec::new(),
            shut: false,
            closed: false,
            reset: false,
        }
    }
}

/// The proxy and its peers.
pub(crate) struct World {
    proxy: Proxy<ExchangeCounter>,
    now: Instant,
    pub(crate) peers: BTreeMap<Side, Peer>,
    sides: BTreeMap<ConnId, Side>,
    /// What each connection wanted when `poll_conn` last returned it or an input was last about it: all that
    /// a driver knows.
    known: BTreeMap<ConnId, Wants>,
    /// The connection that the last input was about.
    acted: Option<ConnId>,
    /// The most bytes that are taken from the proxy at once.
    max_write: usize,
    /// The next connection to the backend is refused.
    pub(crate) refuse_next: bool,
    /// Refused connections that the proxy has not closed yet.
    refused: BTreeSet<ConnId>,
    /// Connections that the proxy has requested and that are not open yet.
    connecting: VecDeque<(ConnId, bool)>,
    pub(crate) connections: u8,
}

const CLIENT: &str = "192.0.2.7:50000";
const LOCAL: &str = "192.0.2.1:80";
const BACKENDS: [&str; 2] = ["192.0.2.20:80", "192.0.2.21:80"];
/// Tue, 15 Nov 2022 08:12:31 GMT, the `DATE` of the format.
const WALL: Wall = Wall { unix_secs: 1_668_499_951, millis: 250 };
/// Far more turns than any case needs: above it, proxy and peers keep each other busy for ever.
const TURNS: u32 = 200_000;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl World {
    pub(crate) fn new(config: &Arc<Config>, max_write: usize) -> Self {
        let now = Instant::from_millis(1_000);
        let shared = Arc::new(Shared::new("lb.test", 1));
        let mut proxy = Proxy::new(config.clone(), shared, 0, 7, ExchangeCounter::default(), now);
        proxy.handle_wall(WALL);
        let mut world = Self {
            proxy,
            now,
            peers: BTreeMap::new(),
            sides: BTreeMap::new(),
            known: BTreeMap::new(),
            acted: None,
            max_write,
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
        let accepted = Accepted {
            listener: ListenerId(0),
            kind: ListenerKind::Http,
            peer: address(CLIENT),
            local: address(LOCAL),
        };
        assert!(self.proxy.accepting(ListenerKind::Http), "the listener is open");
        let conn = self.proxy.handle_accept(&accepted, self.now).expect("the proxy takes a client");
        self.sides.insert(conn, side);
        self.peers.insert(side, Peer::new(conn, false));
        self.acted = Some(conn);
        self.settle();
    }

    /// Sends bytes from a peer. After the proxy has closed, they are dropped, as a kernel does.
    pub(crate) fn send(&mut self, side: Side, bytes: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&side).filter(|p| !p.closed) {
            peer.inbox.extend(bytes);
        }
        self.settle();
    }

    /// Shuts down the peer's direction.
    pub(crate) fn end(&mut self, side: Side) {
        if let Some(peer) = self.peers.get_mut(&side) {
            peer.ending = true;
        }
        self.settle();
    }

    /// Resets the connection from the peer's side.
    pub(crate) fn reset(&mut self, side: Side) {
        if let Some(peer) = self.peers.get_mut(&side).filter(|p| !p.closed) {
            peer.inbox.clear();
            peer.ended = true;
            let conn = peer.conn;
            self.proxy.handle_fault(conn, Fault::Reset, self.now);
        }
        self.settle();
    }

    /// Lets time pass, timer by timer.
    pub(crate) fn wait(&mut self, by: Duration) {
        let until = self.now + by;
        for _ in 0..TURNS {
            match self.proxy.poll_timeout().map(|(at, _)| at).filter(|&t| t <= until) {
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

    /// Gives inputs to the proxy until there are none without time passing or a new step.
    fn settle(&mut self) {
        for _ in 0..TURNS {
            self.proxy.check();
            if !self.turn() {
                return;
            }
        }
        panic!("the proxy never settles");
    }

    /// Handles the proxy's outputs, then gives it one input if there is any; false if there is none.
    fn turn(&mut self) -> bool {
        loop {
            let conn = self.proxy.poll_conn();
            if let Some(Ready { conn, send, .. }) = conn {
                let wants = self.proxy.wants(conn);
                let known = self.known.insert(conn, wants).unwrap_or_default();
                assert!(
                    send || known.send || !wants.send,
                    "{conn:?} has bytes to send, but poll_conn said it has none"
                );
            }
            let effect = self.proxy.poll_effect();
            if conn.is_none() && effect.is_none() {
                break;
            }
            match effect {
                Some(Effect::Connect { conn, to, .. }) => {
                    let backend = BACKENDS.iter().position(|backend| to == address(backend).into());
                    self.connecting.push_back((conn, backend.expect("one of the backends") == 1));
                    assert!(
                        self.connecting.len() <= self.proxy.counts().exchanges,
                        "one exchange asks for one connection at once"
                    );
                }
                Some(Effect::Shutdown(conn)) => self.peer_of(conn).shut = true,
                Some(Effect::Close(conn) | Effect::Reset(conn)) if self.refused.remove(&conn) => {}
                Some(Effect::Close(conn) | Effect::Reset(conn))
                    if self.connecting.iter().any(|(c, _)| *c == conn) =>
                {
                    self.connecting.retain(|(c, _)| *c != conn);
                }
                Some(effect @ (Effect::Close(conn) | Effect::Reset(conn))) => {
                    let peer = self.peer_of(conn);
                    (peer.closed, peer.reset) = (true, matches!(effect, Effect::Reset(_)));
                    peer.inbox.clear();
                    self.sides.remove(&conn);
                }
                Some(other) => panic!("unexpected effect: {other:?}"),
                None => {}
            }
        }
        if let Some(conn) = self.acted.take() {
            self.known.insert(conn, self.proxy.wants(conn));
        }
        // A driver would never serve a want that poll_conn did not return.
        for (conn, side) in &self.sides {
            let (now, known) = (self.proxy.wants(*conn), self.known.get(conn).copied().unwrap_or_default());
            assert!(
                (!now.recv || known.recv) && (!now.send || known.send),
                "{side:?} wants {now:?}, but the driver knows {known:?}"
            );
        }
        if let Some((conn, to_backup)) = self.connecting.pop_front() {
            if std::mem::take(&mut self.refuse_next) {
                self.refused.insert(conn);
                self.proxy.handle_fault(conn, Fault::Refused, self.now);
            } else {
                self.connections += 1;
                let side = Side::Backend(self.connections);
                self.sides.insert(conn, side);
                self.peers.insert(side, Peer::new(conn, to_backup));
                self.acted = Some(conn);
                self.proxy.handle_connected(conn, self.now);
            }
            return true;
        }
        self.take_one() || self.give_one()
    }

    fn peer_of(&mut self, conn: ConnId) -> &mut Peer {
        let side = self.sides.get(&conn).unwrap_or_else(|| panic!("{conn:?} is not a connection"));
        self.peers.get_mut(side).expect("a peer for each side")
    }

    /// Takes bytes from the first connection that has bytes to send; false if there is none.
    fn take_one(&mut self) -> bool {
        for peer in self.peers.values_mut().filter(|p| !p.closed) {
            if !self.proxy.wants(peer.conn).send {
                continue;
            }
            assert!(!peer.shut, "nothing is sent after the end");
            let mut took = 0;
            for slice in self.proxy.transmit(peer.conn).slices() {
                let n = slice.len().min(self.max_write - took);
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

    /// Gives bytes, or the end, to the first connection that wants to read; false if there is none.
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

    /// The proxy's counts of everything it holds.
    pub(crate) fn counts(&self) -> Counts {
        self.proxy.counts()
    }

    /// Number of exchanges recorded so far.
    pub(crate) fn exchanges(&mut self) -> u32 {
        self.proxy.observer_mut().exchanges
    }
}
