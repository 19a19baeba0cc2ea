//! Backends that speak HTTP/2: the cases of `multiplexed.rs` with it on both sides, how connections are made
//! and shared, and what becomes of streams that a backend refuses, resets or leaves behind.

#[path = "multiplexed/cases.rs"]
mod cases;
#[path = "http2_backends/connections.rs"]
mod connections;
#[path = "http2_backends/health.rs"]
mod health;
#[path = "http2_backends/leaving.rs"]
mod leaving;
#[path = "http2_backends/messages.rs"]
mod messages;
#[path = "http2_backends/negotiation.rs"]
mod negotiation;
mod toy_wire;
mod two_wires;

use std::sync::Arc;

use ruststrom_core::{Cause, Shared};
use two_wires::{Rig, Speaks};

/// What clients and backends speak where both have many streams.
const BOTH: (Speaks, Speaks) = (Speaks::Http2, Speaks::Http2);

/// Two backends, the second one for when the first is away.
const TWO: &str = "addresses = [\"127.0.0.1:81\", { address = \"127.0.0.1:82\", backup = true }]";

fn rig_of(top: &str, pool: &str, pair: (Speaks, Speaks)) -> Rig {
    Rig::new(two_wires::config(top, pool), Arc::new(Shared::new("lb", 1)), pair)
}

fn rig(pool: &str) -> Rig {
    rig_of("", pool, BOTH)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

fn post(path: &str, len: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {len}\r\n\r\n")
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";

/// Status and cause of all that has ended since the last time.
fn records(rig: &mut Rig) -> Vec<(u16, Option<Cause>)> {
    std::mem::take(&mut rig.proxy.observer_mut().records)
}

fn nothing_left(rig: &Rig) {
    let counts = rig.proxy.counts();
    assert_eq!((counts.exchanges, counts.pages, counts.in_flight, counts.lookups), (0, 0, 0, 0));
}
