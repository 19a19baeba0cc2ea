//! Traffic of a WebSocket that has been open for a while allocates nothing, whatever client and backend
//! speak.

#[path = "websockets/accept.rs"]
mod accept;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use accept::accept;
use ruststrom_core::config::{ListenerKind, parse};
use ruststrom_core::h2::{Conn, Event, Limits, Received, Role};
use ruststrom_core::observe::{HealthChange, Level, Record};
use ruststrom_core::{Accepted, ConnId, Effect, Instant, ListenerId, Observer, Proxy, Shared};

struct Counting;

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    if COUNTS.with(Cell::get) {
        COUNT.with(|c| c.set(c.get() + 1));
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator; the counters are thread-locals without
// destructors, so they never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is `System`'s too.
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is `System`'s too.
        unsafe { System.realloc(ptr, layout, size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is `System`'s too.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the proxy allocates in a call of it counts.
fn counted<R>(call: impl FnOnce() -> R) -> R {
    COUNTS.with(|c| c.set(true));
    let result = call();
    COUNTS.with(|c| c.set(false));
    result
}

struct Silent;

impl Observer for Silent {
    fn exchange(&mut self, _: &Record<'_>) {}
    fn health(&mut self, _: &HealthChange<'_>) {}
    fn note(&mut self, _: Level, _: &str) {}
}

/// The far end of a connection.
enum Peer {
    Http1 { received: Vec<u8>, to_send: Vec<u8> },
    Http2 { wire: Box<Conn>, received: Box<Received>, stream: u32, head: String, data: usize },
}

impl Peer {
    fn new(http2: bool, role: Role) -> Self {
        if !http2 {
            return Self::Http1 { received: Vec::new(), to_send: Vec::new() };
        }
        let wire = Box::new(Conn::new(role, Limits::default(), Instant::ZERO));
        Self::Http2 { wire, received: Box::default(), stream: 1, head: String::new(), data: 0 }
    }

    fn hear(&mut self, bytes: &[u8]) {
        match self {
            Self::Http1 { received, .. } => received.extend_from_slice(bytes),
            Self::Http2 { wire, received, stream, head, data } => {
                for part in bytes.chunks(1000) {
                    wire.recv_buf()[..part.len()].copy_from_slice(part);
                    wire.handle_recv(part.len());
                    while let Some(event) = wire.poll_event(received, Instant::ZERO) {
                        match event {
                            Event::Request { stream: asked, .. } => {
                                *stream = asked;
                                head.push_str("asked");
                            }
                            Event::Response { .. } => {
                                head.push_str(received.response.status().as_str());
                            }
                            Event::Data { stream } => {
                                let n = wire.data().len();
                                *data += n;
                                wire.release(stream, n as u32);
                            }
                            Event::Writable { .. } => {}
                            other => panic!("{other:?}"),
                        }
                    }
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Http1 { to_send, .. } => to_send.extend_from_slice(bytes),
            Self::Http2 { wire, stream, .. } => {
                assert_eq!(wire.send_data(*stream, bytes), bytes.len(), "there is credit");
            }
        }
    }

    /// What it has sent to the proxy and what has not been taken yet.
    fn unsent(&self) -> &[u8] {
        match self {
            Self::Http1 { to_send, .. } => to_send,
            Self::Http2 { wire, .. } => wire.transmit(),
        }
    }

    fn sent(&mut self, n: usize) {
        match self {
            Self::Http1 { to_send, .. } => drop(to_send.drain(..n)),
            Self::Http2 { wire, .. } => wire.handle_sent(n),
        }
    }

    /// Bytes of the tunnel that have come since the last time.
    fn took(&mut self) -> usize {
        match self {
            Self::Http1 { received, .. } => std::mem::take(received).len(),
            Self::Http2 { data, .. } => std::mem::take(data),
        }
    }
}

struct Ends {
    proxy: Proxy<Silent>,
    /// Client and backend.
    peers: Vec<(ConnId, Peer)>,
    http2_backend: bool,
    line: Vec<u8>,
}

impl Ends {
    /// Moves bytes until nothing is left to move.
    fn run(&mut self) {
        let now = Instant::ZERO;
        loop {
            let mut moved = false;
            while counted(|| self.proxy.poll_conn()).is_some() {}
            while let Some(effect) = counted(|| self.proxy.poll_effect()) {
                let Effect::Connect { conn, .. } = effect else { panic!("{effect:?}") };
                self.peers.push((conn, Peer::new(self.http2_backend, Role::Server)));
                self.proxy.handle_connected(conn, now);
                moved = true;
            }
            for (c, peer) in &mut self.peers {
                self.line.clear();
                let line = &mut self.line;
                self.proxy.with_transmit(*c, |slices| slices.iter().for_each(|s| line.extend_from_slice(s)));
                if !self.line.is_empty() {
                    counted(|| self.proxy.handle_sent(*c, self.line.len(), now));
                    peer.hear(&self.line);
                    moved = true;
                }
                let unsent = peer.unsent();
                if !unsent.is_empty() {
                    let room = counted(|| self.proxy.recv_buf(*c));
                    let n = room.len().min(unsent.len());
                    room[..n].copy_from_slice(&unsent[..n]);
                    if n > 0 {
                        counted(|| self.proxy.handle_recv(*c, n, now));
                        peer.sent(n);
                        moved = true;
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// With an open WebSocket.
    fn open(http2_client: bool, http2_backend: bool) -> Self {
        let scheme = if http2_backend { "h2c" } else { "http" };
        let text = format!(
            "http_address = \"127.0.0.1:80\"\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\n\
             addresses = [\"{scheme}://127.0.0.1:81\"]\n"
        );
        let config = Arc::new(parse(&text).config.expect("a good configuration"));
        let mut proxy = Proxy::new(config, Arc::new(Shared::new("lb", 1)), 0, 1, Silent, Instant::ZERO);
        let (peer, local) = ("192.0.2.7:5000".parse().unwrap(), "192.0.2.1:80".parse().unwrap());
        let accepted = Accepted { listener: ListenerId(0), kind: ListenerKind::Http, peer, local };
        let c = proxy.handle_accept(&accepted, Instant::ZERO).expect("room");
        let peers = vec![(c, Peer::new(http2_client, Role::Client))];
        let mut ends = Self { proxy, peers, http2_backend, line: Vec::with_capacity(1 << 20) };
        match &mut ends.peers[0].1 {
            Peer::Http1 { to_send, .. } => to_send.extend_from_slice(
                b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            ),
            Peer::Http2 { wire, .. } => {
                let stream = wire.open().expect("the first");
                wire.send_connect(stream, |w| {
                    let fields = [
                        (":method", "CONNECT"),
                        (":protocol", "websocket"),
                        (":scheme", "http"),
                        (":path", "/"),
                    ];
                    fields.iter().for_each(|(name, value)| w.pseudo(name.as_bytes(), value.as_bytes()));
                    w.pseudo(b":authority", b"a.test");
                });
            }
        }
        ends.run();
        match &mut ends.peers[1].1 {
            Peer::Http1 { received, to_send } => {
                let accept = accept(&String::from_utf8_lossy(received));
                to_send.extend_from_slice(
                    format!(
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: {accept}\r\n\r\n"
                    )
                    .as_bytes(),
                );
            }
            Peer::Http2 { wire, stream, head, .. } => {
                assert_eq!(head, "asked");
                assert!(wire.send_head(*stream, false, false, |w| w.pseudo(b":status", b"200")));
            }
        }
        ends.run();
        match &ends.peers[0].1 {
            Peer::Http1 { received, .. } => {
                let got = String::from_utf8_lossy(received);
                assert!(got.starts_with("HTTP/1.1 101 "), "{got}");
            }
            Peer::Http2 { head, .. } => assert_eq!(head, "200"),
        }
        for (_, peer) in &mut ends.peers {
            peer.took();
        }
        ends
    }

    /// Messages both ways, short and long, one after the other and at once.
    fn rounds(&mut self, n: usize) {
        for _ in 0..n {
            for (up, down) in [(6, 0), (0, 6), (100, 100), (4000, 0), (0, 8000), (8000, 8000)] {
                for (at, len) in [(0, up), (1, down)] {
                    if len > 0 {
                        self.peers[at].1.send(&vec![b'x'; len]);
                    }
                }
                self.run();
                assert_eq!((self.peers[1].1.took(), self.peers[0].1.took()), (up, down));
            }
        }
    }
}

#[test]
fn a_warm_websocket_allocates_nothing() {
    for (http2_client, http2_backend) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut ends = Ends::open(http2_client, http2_backend);
        ends.rounds(30);
        let warm = COUNT.with(Cell::get);
        assert!(warm > 0, "the counter counts");
        ends.rounds(200);
        let allocations = COUNT.with(Cell::get) - warm;
        assert_eq!(allocations, 0, "HTTP/2: client {http2_client}, backend {http2_backend}");
    }
}
