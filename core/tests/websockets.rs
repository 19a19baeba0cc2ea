//! WebSockets between any two of HTTP/1.1 and HTTP/2 (RFC 6455, RFC 8441): how they are asked for and
//! refused, bytes both ways, how they end, and what becomes of them in a drain.

#[path = "websockets/accept.rs"]
mod accept;
#[path = "websockets/backends.rs"]
mod backends;
#[path = "websockets/ends.rs"]
mod ends;
#[path = "websockets/handshakes.rs"]
mod handshakes;
mod toy_wire;
#[path = "websockets/traffic.rs"]
mod traffic;
#[path = "websockets/turned_off.rs"]
mod turned_off;
mod two_wires;

use std::sync::Arc;

use accept::{accept, field};
use ruststrom_core::h2::{self, Reason};
use ruststrom_core::{Cause, ConnId, Shared};
use two_wires::{Far, Rig, Speaks};

/// Every pair of client and backend.
const PAIRS: [(Speaks, Speaks); 4] = [
    (Speaks::Http1, Speaks::Http1),
    (Speaks::Http2, Speaks::Http1),
    (Speaks::Http1, Speaks::Http2),
    (Speaks::Http2, Speaks::Http2),
];

/// Asks for a WebSocket; a client of HTTP/2 does it by extended CONNECT, without the key.
const ASK: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: one, two\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// The answer to that key.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";

fn rig_of(top: &str, pool: &str, pair: (Speaks, Speaks)) -> Rig {
    Rig::new(two_wires::config(top, pool), Arc::new(Shared::new("lb", 1)), pair)
}

fn rig(pair: (Speaks, Speaks)) -> Rig {
    rig_of("", "", pair)
}

/// What the client is told of a WebSocket that is there: 101, or what says so in HTTP/2.
fn status_for(clients: Speaks) -> u16 {
    if clients == Speaks::Http1 { 101 } else { 200 }
}

/// The head of a 101 that answers the request with this head.
fn switch(head: &str) -> String {
    let accept = if field(head, "Sec-WebSocket-Key").is_some() { accept(head) } else { String::new() };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: two\r\n\r\n"
    )
}

/// Asks for a WebSocket; the client's leg and the backend's.
fn asked(rig: &mut Rig, c: ConnId) -> (Far, Far) {
    let client = rig.ask(c, ASK, false);
    (client, *rig.asked().last().expect("a backend is asked"))
}

/// The same of a client that does not wait for its answer. One of HTTP/1.1 sends all in one piece: what
/// comes later is not read before.
fn asked_early(rig: &mut Rig, c: ConnId, bytes: &[u8], clients: Speaks) -> (Far, Far) {
    let client = match clients {
        Speaks::Http1 => {
            let early = String::from_utf8(bytes.to_vec()).expect("text");
            rig.ask(c, &format!("{ASK}{early}"), false)
        }
        _ => {
            let client = rig.ask(c, ASK, false);
            rig.send_all(client, bytes);
            client
        }
    };
    (client, *rig.asked().last().expect("a backend is asked"))
}

/// Opens a WebSocket: the client's leg and the backend's, which have forgotten the handshake.
fn opened(rig: &mut Rig, c: ConnId) -> (Far, Far) {
    let (client, backend) = asked(rig, c);
    let head = head_of(rig, backend);
    rig.respond_head(backend, &switch(&head));
    (client, backend)
}

/// The head that a far end has received.
fn head_of(rig: &Rig, far: Far) -> String {
    match far.1 {
        0 => {
            let raw = rig.received(far.0);
            let end = raw.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
            String::from_utf8(raw[..end].to_vec()).expect("text")
        }
        _ => rig.message(far).head,
    }
}

/// What a far end has received behind the head.
fn bytes_at(rig: &Rig, far: Far) -> Vec<u8> {
    match far.1 {
        0 => {
            let raw = rig.received(far.0);
            raw.windows(4).position(|w| w == b"\r\n\r\n").map_or(Vec::new(), |at| raw[at + 4..].to_vec())
        }
        _ => rig.message(far).body,
    }
}

/// A far end has nothing more to say.
fn ends(rig: &mut Rig, far: Far) {
    match far.1 {
        0 => rig.close(far.0),
        _ => rig.end(far, ""),
    }
}

/// A far end has been told that nothing more comes.
fn is_ended(rig: &Rig, far: Far) -> bool {
    match far.1 {
        0 => rig.shut.contains(&far.0) || (rig.is_closed(far.0) && !rig.torn.contains(&far.0)),
        _ => rig.message(far).ended,
    }
}

/// A far end breaks its leg.
fn breaks(rig: &mut Rig, far: Far) {
    match far.1 {
        0 => rig.lose(far.0),
        _ => rig.reset(far),
    }
}

/// The proxy has broken the leg of a far end, over HTTP/2 as RFC 8441 §5 has it.
fn is_broken(rig: &mut Rig, far: Far) -> bool {
    match far.1 {
        0 => rig.torn.contains(&far.0),
        stream => {
            let cancelled = |event: &h2::Event| match event {
                h2::Event::Reset { stream: reset, reason, .. } => {
                    (*reset, *reason) == (stream, Reason::CANCEL)
                }
                _ => false,
            };
            rig.http2(far.0).events.iter().any(cancelled)
        }
    }
}

/// Status and cause of all that has ended since the last time.
fn records(rig: &mut Rig) -> Vec<(u16, Option<Cause>)> {
    std::mem::take(&mut rig.proxy.observer_mut().records)
}

fn nothing_left(rig: &Rig) {
    let counts = rig.proxy.counts();
    assert_eq!((counts.exchanges, counts.pages, counts.in_flight, counts.lookups), (0, 0, 0, 0));
}

fn pattern(len: usize, of: usize) -> Vec<u8> {
    (0..len).map(|i| (i % of) as u8).collect()
}
