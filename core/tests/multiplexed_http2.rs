//! The cases of `multiplexed.rs` with clients that speak HTTP/2.

#[path = "multiplexed/cases.rs"]
mod cases;
mod toy_wire;
mod two_wires;

use two_wires::Speaks;

/// What clients and backends speak where both have many streams.
const BOTH: (Speaks, Speaks) = (Speaks::Http2, Speaks::Toy);

// The window that every client knows of is larger than what is taken of a stream at once.
#[test]
fn content_that_comes_before_the_settings_are_known() {
    for backends in [Speaks::Http1, Speaks::Toy] {
        for most in [usize::MAX, 5000, 100] {
            let shared = std::sync::Arc::new(ruststrom_core::Shared::new("lb", 1));
            let mut rig = two_wires::Rig::new(two_wires::config("", ""), shared, (Speaks::Http2, backends));
            rig.most = most;
            rig.connects_wait = true;
            let c = rig.silent_client();
            let body: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
            let head = format!("PUT /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len());
            let (client, sent) = rig.ask_at_once(c, &head, &body);
            assert!(sent > 60_000, "{sent} bytes");
            rig.decide_connects();
            rig.send_all(client, &body[sent..]);
            rig.end(client, "");
            let backend = rig.asked()[0];
            let got = rig.message(backend);
            assert!(got.ended && got.body == body, "{backends:?} by {most}: {} bytes", got.body.len());
            rig.respond(backend, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok");
            let got = rig.message(client);
            assert!(got.ended && got.body == b"ok", "{got:?}");
        }
    }
}
