//! The cases of `multiplexed.rs` with clients that speak HTTP/2.

#[path = "multiplexed/cases.rs"]
mod cases;
mod toy_wire;
mod two_wires;

use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::Shared;
use two_wires::{Rig, Speaks, config};

/// What clients and backends speak where both have many streams.
const BOTH: (Speaks, Speaks) = (Speaks::Http2, Speaks::Toy);

// The window that every client knows of is larger than what is taken of a stream at once.
#[test]
fn content_that_comes_before_the_settings_are_known() {
    for backends in [Speaks::Http1, Speaks::Toy] {
        for most in [usize::MAX, 5000, 100] {
            let shared = Arc::new(Shared::new("lb", 1));
            let mut rig = Rig::new(config("", ""), shared, (Speaks::Http2, backends));
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

fn rig(top: &str) -> Rig {
    Rig::new(config(top, ""), Arc::new(Shared::new("lb", 1)), (Speaks::Http2, Speaks::Http1))
}

// The connection came long before, and its last input too.
#[test]
fn what_is_answered_at_once_is_answered_now() {
    let mut rig = rig("");
    let c = rig.client();
    rig.advance(Duration::from_secs(5));
    let client = rig.ask(c, "GET / HTTP/1.1\r\nHost: a.test\r\nExpect: more\r\n\r\n", true);
    assert!(rig.message(client).head.contains("417"), "{:?}", rig.message(client));
    let now = rig.now;
    assert_eq!(rig.proxy.observer_mut().times, [(now, now)]);
}

// The preface was no part of a request.
#[test]
fn a_request_begins_with_its_own_first_byte() {
    let mut rig = rig("");
    rig.most = 10;
    let c = rig.client();
    rig.advance(Duration::from_secs(5));
    let client = rig.ask(c, "GET / HTTP/1.1\r\nHost: a.test\r\nExpect: more\r\n\r\n", true);
    assert!(rig.message(client).ended);
    let now = rig.now;
    assert_eq!(rig.proxy.observer_mut().times, [(now, now)]);
}

#[test]
fn the_end_of_a_request_comes_behind_its_content() {
    let mut rig = rig("");
    let c = rig.client();
    for n in 1..=3 {
        let head = "POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\n";
        let client = rig.ask(c, head, false);
        rig.send_all(client, b"abcd");
        rig.end(client, "");
        let backend = *rig.asked().last().expect("a request");
        assert_eq!(rig.message(backend).body, b"abcd");
        rig.respond(backend, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"");
        assert!(rig.message(client).ended);
        // The request was complete: its connection serves the next one.
        assert_eq!((rig.backend_conns.len(), rig.proxy.counts().backends_idle), (1, 1), "request {n}");
        rig.forget(backend);
    }
}

#[test]
fn a_client_that_has_no_content_says_so_to_the_backend() {
    let mut rig = rig("");
    let c = rig.client();
    let client = rig.ask(c, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n", true);
    let backend = rig.asked()[0];
    let got = rig.message(backend);
    assert!(got.ended && got.head.contains("Content-Length: 0\r\n"), "{got:?}");
    rig.respond(backend, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"");
    assert!(rig.message(client).ended);
}

// An exchange is over when its response lies with the connection; the client has not read it yet.
#[test]
fn a_response_that_a_slow_client_has_not_read_is_not_idle() {
    for reads in [true, false] {
        let mut rig = rig("[timeouts]\nidle = \"1s\"\nstall = \"5s\"");
        let c = rig.client();
        rig.slow_down(c);
        let client = rig.ask(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", true);
        let backend = rig.asked()[0];
        rig.respond(backend, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok");
        assert_eq!(rig.proxy.observer_mut().records.len(), 1);
        rig.advance(Duration::from_secs(4));
        assert_eq!(rig.proxy.counts().clients, 1, "it has time to read");
        if !reads {
            rig.advance(Duration::from_secs(6));
            assert_eq!(rig.proxy.counts().clients, 0, "and no more than that");
            continue;
        }
        while rig.take_once(c) {}
        assert!(rig.message(client).ended);
        rig.advance(Duration::from_millis(900));
        assert_eq!(rig.proxy.counts().clients, 1);
        // It was idle, and is told so before it ends.
        rig.advance(Duration::from_millis(200));
        rig.advance(Duration::from_secs(3));
        assert_eq!(rig.proxy.counts().clients, 0);
    }
}

// What has been sent of each stays for a retry, but not so long that none of them can go on.
#[test]
fn uploads_do_not_wait_for_the_credit_that_others_keep() {
    let mut rig = rig("[http2]\nconnection_window = 65535\ninitial_window = 16384");
    let c = rig.client();
    let head = "PUT /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 12000\r\n\r\n";
    let all: Vec<_> = (0..8).map(|_| rig.ask(c, head, false)).collect();
    for client in &all {
        rig.send_all(*client, &[b'x'; 8000]);
    }
    for client in &all {
        rig.send_all(*client, &[b'y'; 4000]);
        rig.end(*client, "");
    }
    for backend in rig.asked() {
        let got = rig.message(backend);
        assert!(got.ended && got.body.len() == 12_000, "{} bytes", got.body.len());
    }
}
