//! What `[http2]` says holds for clients, and how their connections end.

mod toy_wire;
mod two_wires;

use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::shared::HttpChallenge;
use ruststrom_core::{Cause, ConnId, Instant, Shared, h2};
use two_wires::{Rig, Speaks, config};

const HTTP2: (Speaks, Speaks) = (Speaks::Http2, Speaks::Http1);
const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";

fn rig(top: &str, pool: &str, pair: (Speaks, Speaks)) -> Rig {
    Rig::new(config(top, pool), Arc::new(Shared::new("lb", 1)), pair)
}

/// A request and its response.
fn served(rig: &mut Rig, c: ConnId) {
    let far = rig.ask(c, GET, true);
    let backend = rig.asked()[0];
    rig.respond(backend, OK, b"ok");
    assert_eq!(rig.message(far).body, b"ok");
    rig.forget(backend);
}

#[test]
fn it_can_be_turned_off() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (enabled, expected) in [(true, ""), (false, "HTTP/1.1 505 ")] {
        let top = format!("[http2]\nenabled = {enabled}");
        let mut rig = rig(&top, "", (Speaks::Http1, Speaks::Http1));
        let c = rig.client();
        rig.ask(c, preface, true);
        let got = String::from_utf8_lossy(rig.received(c)).into_owned();
        if enabled {
            assert!(got.starts_with("\0\0"), "a SETTINGS frame, not {got:?}");
        } else {
            assert!(got.starts_with(expected), "{got:?}");
        }
        assert!(rig.asked().is_empty());
    }
}

#[test]
fn as_many_streams_as_the_configuration_says() {
    for streams in [1, 3, 250] {
        let mut rig = rig(&format!("[http2]\nmax_concurrent_streams = {streams}"), "", HTTP2);
        let c = rig.client();
        for _ in 0..streams {
            rig.ask(c, GET, true);
        }
        assert!(!rig.may_open(c), "{streams}");
    }
}

// A proxy that has ended the TLS passes the scheme on; from anybody else it would be a lie (RFC 9110 §7.4).
#[test]
fn trusted_proxies_may_say_that_the_scheme_is_https() {
    for (trusted, status) in [("203.0.113.0/24", "421"), ("192.0.2.0/24", "200")] {
        let mut rig = rig(&format!("trusted_proxies = [\"{trusted}\"]"), "", HTTP2);
        let c = rig.client();
        let wire = &mut rig.http2(c).wire;
        let stream = wire.open().expect("a free stream");
        wire.send_head(stream, true, false, |w| {
            let fields = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a.test")];
            fields.iter().for_each(|(name, value)| w.pseudo(name.as_bytes(), value.as_bytes()));
        });
        rig.run();
        if let Some(backend) = rig.asked().first() {
            rig.respond(*backend, OK, b"ok");
        }
        let head = rig.message((c, stream)).head;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{trusted}: {head}");
    }
}

/// How much of a long request a client may send that nobody takes, and whether all of it arrives once it is.
fn taken(http2: &str, len: usize) -> usize {
    let mut rig = rig(http2, "", HTTP2);
    rig.connects_wait = true;
    let c = rig.client();
    let body: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    let far = rig.ask(c, &format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {len}\r\n\r\n"), false);
    let sent = rig.send_what_is_taken(far, &body);
    rig.decide_connects();
    rig.send_all(far, &body[sent..]);
    rig.end(far, "");
    let backend = rig.asked()[0];
    let got = rig.message(backend);
    assert!(got.ended && got.body == body, "{} of {len} bytes", got.body.len());
    rig.respond(backend, OK, b"ok");
    assert_eq!(rig.message(far).body, b"ok");
    let counts = rig.proxy.counts();
    assert_eq!((counts.exchanges, counts.pages), (0, 0));
    sent
}

#[test]
fn windows_are_those_of_the_configuration() {
    let table = [
        ("", 65_536),
        ("[http2]\ninitial_window = 16384", 16_384),
        ("[http2]\ninitial_window = 500000", 500_000),
        ("[http2]\ninitial_window = 500000\nconnection_window = 300000", 300_000),
        (
            "[http2]\ninitial_window = 2000000\nconnection_window = 4000000\nmax_frame_size = 262144",
            1_500_000,
        ),
    ];
    for (http2, expected) in table {
        assert_eq!(taken(http2, 1_500_000), expected, "{http2}");
    }
}

// What waits outside of pages counts as if it lay in them: the cap of all buffers holds.
#[test]
fn what_waits_counts_as_buffers() {
    let top =
        "[http2]\ninitial_window = 1000000\nconnection_window = 4000000\n[limits]\nbuffer_bytes = 1048576";
    let mut rig = rig(top, "retries = 0", HTTP2);
    rig.connects_wait = true;
    let mut taken = 0;
    let clients: Vec<_> = (0..3).map(|_| rig.client()).collect();
    let body = vec![0; 700_000];
    let mut fars = Vec::new();
    for c in &clients {
        let far = rig.ask(*c, "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 700000\r\n\r\n", false);
        let mut sent = 0;
        while sent < body.len() && !rig.message(far).reset {
            match rig.send(far, &body[sent..]) {
                0 => break,
                n => sent += n,
            }
        }
        taken += if rig.message(far).reset { 0 } else { sent };
        fars.push(far);
    }
    let reset = fars.iter().filter(|far| rig.message(**far).reset).count();
    assert!(reset >= 2, "{reset} streams were given up");
    assert!(taken <= 1 << 20, "{taken} bytes");
    let records = &rig.proxy.observer_mut().records;
    assert!(records.iter().all(|(_, cause)| *cause == Some(Cause::NoPages)), "{records:?}");
    for c in clients {
        rig.lose(c);
    }
    let counts = rig.proxy.counts();
    assert_eq!((counts.exchanges, counts.pages), (0, 0));
    // All of it is free again.
    rig.connects_wait = false;
    let c = rig.client();
    served(&mut rig, c);
}

#[test]
fn an_idle_connection_is_told_before_it_ends() {
    let mut rig = rig("[timeouts]\nidle = 20", "", HTTP2);
    let c = rig.client();
    served(&mut rig, c);
    rig.advance(Duration::from_secs(19));
    assert!(!rig.is_told_to_leave(c));
    // It knows at once, and nothing is under way.
    rig.advance(Duration::from_millis(1100));
    assert!(rig.is_told_to_leave(c));
    rig.close(c);
    assert_eq!(rig.proxy.counts().clients, 0);
}

#[test]
fn who_asks_while_it_is_told_is_served() {
    let mut rig = rig("[timeouts]\nidle = 20", "", HTTP2);
    let c = rig.client();
    served(&mut rig, c);
    rig.slow_down(c);
    rig.advance(Duration::from_secs(20));
    // The GOAWAY is still on its way.
    assert!(!rig.is_told_to_leave(c));
    let far = rig.ask(c, GET, true);
    while rig.take_once(c) {}
    assert!(rig.is_told_to_leave(c));
    let backend = rig.asked()[0];
    rig.respond(backend, OK, b"ok");
    while rig.take_once(c) {}
    assert_eq!(rig.message(far).body, b"ok");
    rig.advance(Duration::from_secs(3));
    assert_eq!(rig.proxy.counts().clients, 0);
}

#[test]
fn who_does_not_hear_it_is_closed() {
    let mut rig = rig("[timeouts]\nidle = 20", "", HTTP2);
    let c = rig.client();
    served(&mut rig, c);
    rig.slow_down(c);
    rig.advance(Duration::from_secs(20));
    assert_eq!(rig.proxy.counts().clients, 1);
    rig.advance(Duration::from_secs(3));
    assert_eq!(rig.proxy.counts().clients, 0);
}

#[test]
fn a_silent_client_is_asked_whether_it_is_there() {
    let top = "[http2]\nkeepalive = 10\n[timeouts]\nbackend_head = 0\nstall = 0\nidle = 0";
    for busy in [true, false] {
        let mut rig = rig(top, "", HTTP2);
        let c = rig.client();
        if busy {
            rig.ask(c, GET, true);
        } else {
            served(&mut rig, c);
        }
        // It answers: for hours.
        for _ in 0..1000 {
            rig.advance(Duration::from_secs(7));
        }
        assert_eq!(rig.proxy.counts().clients, 1);
        rig.slow_down(c);
        rig.advance(Duration::from_secs(11));
        let asked: Vec<u8> = rig.proxy.transmit(c).slices().iter().flat_map(|s| s.to_vec()).collect();
        assert!(asked.ends_with(b"\0\0\x08\x06\0\0\0\0\0are you?"), "{}", asked.escape_ascii());
        rig.advance(Duration::from_secs(8));
        assert_eq!(rig.proxy.counts().clients, 1);
        rig.advance(Duration::from_secs(3));
        assert_eq!(rig.proxy.counts().clients, 0);
        let last = rig.proxy.observer_mut().records.pop();
        assert_eq!(last, Some(if busy { (0, Some(Cause::ClientStalled)) } else { (200, None) }));
    }
}

#[test]
fn without_the_setting_nobody_is_asked() {
    let mut rig = rig("[timeouts]\nbackend_head = 0\nstall = 0\nidle = 0", "", HTTP2);
    let c = rig.client();
    rig.ask(c, GET, true);
    rig.slow_down(c);
    rig.advance(Duration::from_secs(100_000));
    assert_eq!(rig.proxy.counts().clients, 1);
    assert!(rig.proxy.transmit(c).slices().is_empty());
}

/// A client of HTTP/2 that never reads what it gets: it acknowledges nothing.
fn deaf() -> h2::Conn {
    h2::Conn::new(h2::Role::Client, h2::Limits::default(), Instant::ZERO)
}

/// What it has to send.
fn said(wire: &mut h2::Conn) -> Vec<u8> {
    let bytes = wire.transmit().to_vec();
    wire.handle_sent(bytes.len());
    bytes
}

/// What it sends for a request, and before that.
fn request(wire: &mut h2::Conn, path: &str) -> Vec<u8> {
    let stream = wire.open().expect("a free stream");
    wire.send_head(stream, true, false, |w| {
        let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a.test")];
        fields.iter().for_each(|(name, value)| w.pseudo(name.as_bytes(), value.as_bytes()));
    });
    said(wire)
}

// RFC 9113 §6.5.3: whoever never acknowledges may not know what it is held to.
#[test]
fn who_never_acknowledges_our_settings_is_told_and_left() {
    let top = "[timeouts]\nhead = 500\nbackend_head = 0\nstall = 0\nidle = 0";
    let pong = b"\0\0\x08\x06\x01\0\0\0\0........";
    for (asks, lost) in [(true, vec![(0, Some(Cause::ClientStalled))]), (false, Vec::new())] {
        let mut rig = rig(top, "", (Speaks::Http1, Speaks::Http1));
        let c = rig.client();
        let first = if asks { request(&mut deaf(), "/") } else { said(&mut deaf()) };
        rig.send_bytes(c, &first);
        assert_eq!(rig.asked().len(), usize::from(asks));
        // What it says meanwhile is no acknowledgement; but that may come behind it, for a while.
        for _ in 0..6 {
            rig.advance(Duration::from_millis(9_900));
            rig.send_bytes(c, pong);
        }
        rig.advance(Duration::from_millis(500));
        let before = rig.received(c).len();
        assert_eq!(rig.proxy.counts().clients, 1, "asks: {asks}");
        rig.advance(Duration::from_millis(200));
        let said = &rig.received(c)[before..];
        let last = [0, 0, 0, u8::from(asks)];
        let go_away = [b"\0\0\x08\x07\0\0\0\0\0", &last[..], b"\0\0\0\x04"].concat();
        assert_eq!(said.escape_ascii().to_string(), go_away.escape_ascii().to_string());
        assert_eq!(rig.proxy.observer_mut().records, lost);
        rig.advance(Duration::from_secs(3));
        assert!(rig.is_closed(c));
        let counts = rig.proxy.counts();
        assert_eq!((counts.clients, counts.exchanges, counts.pages), (0, 0, 0));
    }
}

#[test]
fn who_is_silent_without_an_acknowledgement_is_left_sooner() {
    let mut rig = rig("[timeouts]\nhead = 50\nidle = 0", "", (Speaks::Http1, Speaks::Http1));
    let c = rig.client();
    rig.send_bytes(c, &said(&mut deaf()));
    rig.advance(Duration::from_millis(9_900));
    assert!(!rig.is_told_to_leave(c));
    rig.advance(Duration::from_millis(200));
    rig.advance(Duration::from_secs(3));
    assert!(rig.is_closed(c));
}

// Its error waits for a window when the time for a first request is over.
#[test]
fn a_rejected_request_turns_no_limit_off() {
    let top = "[timeouts]\nhead = 10\nbackend_head = 0\nstall = 0\nidle = 0";
    let mut rig = rig(top, "", (Speaks::Http1, Speaks::Http1));
    let (c, mut wire) = (rig.client(), deaf());
    rig.advance(Duration::from_millis(9_500));
    rig.send_bytes(c, &said(&mut wire));
    let no_window = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    rig.send_bytes(c, no_window);
    rig.send_bytes(c, &request(&mut wire, "x"));
    rig.advance(Duration::from_millis(600));
    rig.send_bytes(c, &request(&mut wire, "/"));
    assert_eq!((rig.asked().len(), rig.proxy.counts().exchanges), (1, 2));
    rig.advance(Duration::from_millis(9_900));
    assert_eq!(rig.proxy.counts().exchanges, 2);
    rig.advance(Duration::from_millis(200));
    rig.advance(Duration::from_secs(3));
    assert!(rig.is_closed(c));
}

#[test]
fn an_acknowledgement_in_time_is_enough() {
    let top = "[timeouts]\nhead = 50\nbackend_head = 0\nstall = 0\nidle = 0";
    let mut rig = rig(top, "", (Speaks::Http1, Speaks::Http1));
    let c = rig.client();
    rig.send_bytes(c, &request(&mut deaf(), "/"));
    rig.advance(Duration::from_millis(9_900));
    rig.send_bytes(c, b"\0\0\0\x04\x01\0\0\0\0");
    rig.advance(Duration::from_secs(100_000));
    assert_eq!((rig.proxy.counts().clients, rig.proxy.counts().exchanges), (1, 1));
}

// A reload holds for connections that come, and closes none.
#[test]
fn a_reload_is_for_new_connections() {
    let mut rig = rig("[http2]\nmax_concurrent_streams = 2", "", HTTP2);
    let old = rig.client();
    rig.ask(old, GET, true);
    rig.reload(config("[http2]\nmax_concurrent_streams = 1", ""));
    rig.ask(old, GET, true);
    assert!(!rig.may_open(old));
    let new = rig.client();
    rig.ask(new, GET, true);
    assert!(!rig.may_open(new));
    assert_eq!(rig.proxy.counts().exchanges, 3);
}

// A stop says that there will be no new streams, then which was the last; what is open is served to its end.
#[test]
fn a_drain_serves_what_is_open_and_ends_what_is_idle() {
    let mut rig = rig("", "", HTTP2);
    let (idle, busy) = (rig.client(), rig.client());
    served(&mut rig, idle);
    let far = rig.ask(busy, GET, true);
    let backend = rig.asked()[0];
    let until = rig.now + Duration::from_secs(30);
    rig.proxy.drain(until, rig.now);
    rig.run();
    for c in [idle, busy] {
        assert!(rig.is_told_to_leave(c) && !rig.may_open(c));
    }
    rig.close(idle);
    assert_eq!((rig.proxy.counts().clients, rig.drained), (1, false));
    rig.respond(backend, OK, b"ok");
    let got = rig.message(far);
    assert!(got.ended && got.body == b"ok", "{got:?}");
    rig.close(busy);
    assert_eq!((rig.proxy.counts().clients, rig.drained), (0, true));
}

// What is still running then is cut, and nothing else is.
#[test]
fn the_end_of_a_drain_cuts_streams() {
    let mut rig = rig("", "", HTTP2);
    let c = rig.client();
    let far = rig.ask(c, GET, true);
    let until = rig.now + Duration::from_secs(10);
    rig.proxy.drain(until, rig.now);
    rig.run();
    rig.advance(Duration::from_secs(9));
    assert!(!rig.message(far).reset);
    rig.advance(Duration::from_secs(2));
    assert!(rig.drained);
    assert_eq!(rig.proxy.observer_mut().records, [(0, Some(Cause::Drained))]);
}

// RFC 8555 §8.3: an authority that speaks HTTP/2 by prior knowledge gets its answer, too.
#[test]
fn challenges_are_answered() {
    let shared = Arc::new(Shared::new("lb", 1));
    let mut rig = Rig::new(config("", ""), shared.clone(), HTTP2);
    shared.set_http_challenges(vec![HttpChallenge { token: "one".into(), answer: b"one.print"[..].into() }]);
    let c = rig.client();
    let get =
        |token: &str| format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: x.test\r\n\r\n");
    let far = rig.ask(c, &get("one"), true);
    let got = rig.message(far);
    assert!(got.head.starts_with("HTTP/1.1 200 ") && got.ended, "{got:?}");
    assert_eq!(got.body, b"one.print");
    assert!(rig.asked().is_empty());
    rig.ask(c, &get("two"), true);
    assert_eq!(rig.asked().len(), 1, "what is not ours is routed");
}

// Limits of requests: each is refused with its status, on its stream alone.
#[test]
fn limits_hold_on_each_stream() {
    let top = "[limits]\ntarget_bytes = 100\nfields = 10\nhead_bytes = 2048\n[timeouts]\nstall = 5";
    let long = "x".repeat(2100);
    let target = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "a".repeat(100));
    let fields = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}\r\n", "a: b\r\n".repeat(10));
    let head = format!("GET / HTTP/1.1\r\nHost: a.test\r\na: {long}\r\nb: {long}\r\n\r\n");
    let slow = "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\n";
    let large = "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 90\r\n\r\n";
    let expect = "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\nExpect: tea\r\n\r\n";
    let table: [(&str, bool, &str, &str); 6] = [
        (&target, true, "414", "target_too_long"),
        (&fields, true, "431", "head_too_large"),
        (&head, true, "431", "head_too_large"),
        (slow, false, "408", "client_stalled"),
        (large, false, "413", "content_too_large"),
        (expect, false, "417", "unknown_expectation"),
    ];
    let pool = "[backend_pools.middlewares.MaxBodySize]\nlimit = 10";
    let mut rig = rig(top, pool, HTTP2);
    let c = rig.client();
    for (request, whole, status, cause) in table {
        let far = rig.ask(c, request, whole);
        if cause == "client_stalled" {
            rig.advance(Duration::from_secs(6));
        }
        let got = rig.message(far);
        assert!(got.head.starts_with(&format!("HTTP/1.1 {status} ")) && got.ended, "{cause}: {got:?}");
        let (logged, named) = rig.proxy.observer_mut().records.pop().expect("a record");
        assert_eq!((logged.to_string().as_str(), named.map(Cause::name)), (status, Some(cause)));
        // The connection goes on.
        let far = rig.ask(c, GET, true);
        let backend = *rig.asked().last().expect("a backend is asked");
        rig.respond(backend, OK, b"ok");
        assert_eq!(rig.message(far).body, b"ok", "{cause}");
        rig.forget(backend);
        rig.proxy.observer_mut().records.clear();
    }
}
