//! Messages between HTTP/1.1 and HTTP/2 in all four pairings: what passes, and what does not.

use std::time::Duration;

use ruststrom_core::Cause;
use ruststrom_core::http::Violation;

use crate::two_wires::{self, Rig, Speaks};
use crate::{get, nothing_left, post, records, rig_of};

const PAIRINGS: [(Speaks, Speaks); 4] = [
    (Speaks::Http1, Speaks::Http1),
    (Speaks::Http1, Speaks::Http2),
    (Speaks::Http2, Speaks::Http1),
    (Speaks::Http2, Speaks::Http2),
];

fn rig(pair: (Speaks, Speaks)) -> Rig {
    rig_of("", "retries = 0", pair)
}

#[test]
fn trailers_pass_both_ways() {
    for pair in PAIRINGS {
        let mut rig = rig(pair);
        let c = rig.client();
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Up\r\n\r\n";
        let far = rig.ask(c, head, false);
        match pair.0 {
            Speaks::Http1 => {
                rig.send_all(far, b"3\r\nabc\r\n0\r\nX-Up: 1\r\n\r\n");
            }
            _ => {
                rig.send_all(far, b"abc");
                rig.end(far, "X-Up: 1\r\n\r\n");
            }
        }
        let leg = rig.asked()[0];
        let got = rig.message(leg);
        assert!(got.ended && got.body == b"abc", "{pair:?}: {got:?}");
        assert!(got.trailers.eq_ignore_ascii_case("X-Up: 1\r\n\r\n"), "{pair:?}: {got:?}");
        match pair.1 {
            Speaks::Http1 => {
                let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Down\r\n\r\n";
                rig.respond_head(leg, answer);
                rig.send_all(leg, b"2\r\nok\r\n0\r\nX-Down: 2\r\n\r\n");
            }
            _ => {
                rig.respond_head(leg, "HTTP/1.1 200 OK\r\nTrailer: X-Down\r\n\r\n");
                rig.send_all(leg, b"ok");
                rig.end(leg, "X-Down: 2\r\n\r\n");
            }
        }
        let got = rig.message(far);
        assert!(got.ended && got.body == b"ok", "{pair:?}: {got:?}");
        assert!(got.trailers.eq_ignore_ascii_case("X-Down: 2\r\n\r\n"), "{pair:?}: {got:?}");
        assert_eq!(records(&mut rig), [(200, None)], "{pair:?}");
        nothing_left(&rig);
    }
}

#[test]
fn interim_responses_and_expectations_pass() {
    for pair in PAIRINGS {
        let mut rig = rig(pair);
        let c = rig.client();
        let head = "PUT / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        let far = rig.ask(c, head, false);
        let leg = rig.asked()[0];
        let got = rig.message(leg).head;
        assert!(got.to_ascii_lowercase().contains("\r\nexpect: 100-continue\r\n"), "{pair:?}: {got}");
        rig.respond_head(leg, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        rig.respond_head(leg, "HTTP/1.1 100 Continue\r\n\r\n");
        let interim = match pair.0 {
            Speaks::Http1 => String::from_utf8_lossy(rig.received(c)).into_owned(),
            _ => rig.message(far).head,
        };
        assert!(
            interim.contains("HTTP/1.1 103 Early Hints") && interim.contains("HTTP/1.1 100 Continue"),
            "{pair:?}: {interim}"
        );
        rig.forget_if_http1(far);
        rig.send_all(far, b"abc");
        rig.end(far, "");
        assert_eq!(rig.message(leg).body, b"abc", "{pair:?}");
        rig.respond(leg, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", b"");
        let got = rig.message(far);
        assert!(got.head.contains("HTTP/1.1 201 Created\r\n") && got.ended, "{pair:?}: {got:?}");
        assert_eq!(records(&mut rig), [(201, None)], "{pair:?}");
        nothing_left(&rig);
    }
}

#[test]
fn responses_without_content_have_none() {
    for pair in PAIRINGS {
        let cases = [
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
            ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"),
            ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
        ];
        for (method, head) in cases {
            let mut rig = rig(pair);
            let c = rig.client();
            let far = rig.ask(c, &format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n"), true);
            let leg = rig.asked()[0];
            assert!(rig.message(leg).head.starts_with(&format!("{method} / ")), "{pair:?}");
            rig.respond_head(leg, head);
            rig.end(leg, "");
            let status = head[9..12].parse::<u16>().expect("a status");
            assert_eq!(records(&mut rig), [(status, None)], "{pair:?}: {head}");
            let got = match pair.0 {
                Speaks::Http1 => String::from_utf8_lossy(rig.received(c)).into_owned(),
                _ => {
                    assert!(rig.message(far).ended && rig.message(far).body.is_empty(), "{pair:?}");
                    rig.message(far).head
                }
            };
            assert!(got.starts_with(&head[..14]) && got.ends_with("\r\n\r\n"), "{pair:?}: {got}");
            let length = head.split_once("Content-Length").map(|(_, rest)| &rest[..4]);
            let told = got.split_once("Content-Length").map(|(_, rest)| &rest[..4]);
            assert!(status == 304 || told == length, "{pair:?}: {got}");
            // The connection can be used again.
            let next = rig.ask(c, &get("/next"), true);
            let _ = next;
            assert_eq!(rig.backend_conns.len(), 1, "{pair:?}");
        }
    }
}

#[test]
fn lengths_that_lie_are_found_out() {
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    for pair in PAIRINGS.into_iter().filter(|pair| pair.1 == Speaks::Http2) {
        // Too little, and too much, before any of it was seen and after.
        for (first, rest) in [(&b"abc"[..], &b""[..]), (b"abcdefg", b""), (b"abc", b"defg")] {
            let mut rig = rig(pair);
            let (c, other) = (rig.client(), rig.client());
            let far = rig.ask(c, &get("/"), true);
            let well = rig.ask(other, &get("/well"), true);
            let legs = rig.asked();
            rig.respond_head(legs[0], long);
            rig.send(legs[0], first);
            if !rest.is_empty() {
                rig.send(legs[0], rest);
            }
            rig.end(legs[0], "");
            assert!(!rig.message(far).ended || rig.message(far).head.contains(" 502 "), "{pair:?} {first:?}");
            let found = records(&mut rig);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].1, Some(Cause::BadResponse(Violation::Http2Stream)), "{pair:?}");
            rig.respond(legs[1], "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok");
            assert_eq!(rig.message(well).body, b"ok", "others go on");
            nothing_left(&rig);
        }
    }
}

#[test]
fn content_of_unknown_length_passes() {
    for pair in PAIRINGS {
        let mut rig = rig(pair);
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let leg = rig.asked()[0];
        match pair.1 {
            Speaks::Http1 => {
                rig.respond_head(leg, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                rig.send_all(leg, b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
            }
            _ => {
                rig.respond_head(leg, "HTTP/1.1 200 OK\r\n\r\n");
                rig.send_all(leg, b"abc");
                rig.send_all(leg, b"defg");
                rig.end(leg, "");
            }
        }
        let got = rig.message(far);
        assert!(got.ended && got.body == b"abcdefg", "{pair:?}: {got:?}");
        assert_eq!(got.head.contains("chunked"), pair.0 == Speaks::Http1, "{pair:?}: {got:?}");
        nothing_left(&rig);
    }
}

#[test]
fn fields_of_a_connection_stay_there() {
    for pair in PAIRINGS {
        let mut rig = rig(pair);
        let c = rig.client();
        let own = match pair.0 {
            Speaks::Http1 => "Connection: x-own, keep-alive, TE\r\nX-Own: 1\r\nKeep-Alive: timeout=5\r\n",
            _ => "",
        };
        let head = format!(
            "GET /p?q=1 HTTP/1.1\r\nHost: a.test:8080\r\n{own}TE: trailers\r\nCookie: a=1\r\nCookie: b=2\r\nX-Kept: 1\r\n\r\n"
        );
        let far = rig.ask(c, &head, true);
        let leg = rig.asked()[0];
        let got = rig.message(leg).head;
        let lower = got.to_ascii_lowercase();
        assert!(got.starts_with("GET /p?q=1 HTTP/1.1\r\nHost: a.test:8080\r\n"), "{pair:?}: {got}");
        assert_eq!(lower.matches("\r\nhost:").count(), 1, "{pair:?}: {got}");
        assert!(lower.contains("\r\nx-kept: 1\r\n"), "{pair:?}: {got}");
        assert!(!lower.contains("x-own") && !lower.contains("keep-alive"), "{pair:?}: {got}");
        if pair.1 == Speaks::Http2 {
            assert!(!lower.contains("\r\nconnection:"), "{pair:?}: {got}");
            assert!(lower.contains("\r\nte: trailers\r\n"), "{pair:?}: {got}");
        }
        if pair == (Speaks::Http2, Speaks::Http1) {
            assert!(lower.contains("\r\ncookie: a=1; b=2\r\n"), "{pair:?}: {got}");
        }
        let own = match pair.1 {
            Speaks::Http1 => "Connection: x-mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n",
            _ => "",
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{own}X-Kept: 2\r\nContent-Length: 2\r\n\r\n");
        rig.respond(leg, &answer, b"ok");
        let got = rig.message(far).head.to_ascii_lowercase();
        assert!(got.contains("\r\nx-kept: 2\r\n") && !got.contains("x-mine"), "{pair:?}: {got}");
        assert!(!got.contains("timeout=5"), "{pair:?}: {got}");
        nothing_left(&rig);
    }
}

#[test]
fn uploads_and_downloads_pass_whole() {
    for pair in PAIRINGS {
        for most in [usize::MAX, 3_000] {
            let mut rig = rig(pair);
            rig.most = most;
            let c = rig.client();
            let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 253) as u8).collect();
            let far = rig.ask(c, &post("/", body.len()), false);
            rig.send_all(far, &body);
            rig.end(far, "");
            let leg = rig.asked()[0];
            assert!(rig.message(leg).body == body, "{pair:?}");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            rig.respond(leg, &head, &body);
            assert!(rig.message(far).body == body, "{pair:?}");
            nothing_left(&rig);
        }
    }
}

// A client that holds its content back waits for a backend that says nothing no longer than any other.
#[test]
fn a_backend_that_never_says_100_has_no_more_time_than_others() {
    for pair in PAIRINGS {
        let mut rig = rig_of("", "retries = 0\n[backend_pools.timeouts]\nbackend_head = 7", pair);
        let c = rig.client();
        let expects = post("/", 9).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
        let far = rig.ask(c, &expects, false);
        rig.advance(Duration::from_millis(6_900));
        assert!(records(&mut rig).is_empty(), "{pair:?}");
        rig.advance(Duration::from_millis(200));
        assert_eq!(records(&mut rig), [(504, Some(Cause::BackendTimeout))], "{pair:?}");
        assert!(rig.message(far).head.starts_with("HTTP/1.1 504 "), "{pair:?}");
        nothing_left(&rig);
    }
}

// The time for the response begins when the last of a request has gone, however long the rest of it had to
// wait before.
#[test]
fn a_request_that_had_to_wait_for_credit_leaves_the_response_all_of_its_time() {
    for pair in PAIRINGS.into_iter().filter(|pair| pair.1 == Speaks::Http2) {
        let timeouts = "retries = 0\n[backend_pools.timeouts]\nbackend_head = 20\nstall = 10";
        let mut rig = rig_of("", timeouts, pair);
        let c = rig.client();
        let far = rig.ask(c, &post("/", 20_000), false);
        let leg = rig.asked()[0];
        rig.hold(leg);
        rig.send_all(far, &[b'x'; 20_000]);
        rig.advance(Duration::from_secs(6));
        assert_eq!(rig.message(leg).body.len(), 16_384, "{pair:?}");
        rig.unhold(leg);
        assert_eq!(rig.message(leg).body.len(), 20_000, "{pair:?}");
        rig.advance(Duration::from_secs(19));
        assert!(records(&mut rig).is_empty(), "{pair:?}");
        rig.respond(leg, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok");
        assert_eq!(rig.message(far).body, b"ok", "{pair:?}");
        assert_eq!(records(&mut rig), [(200, None)], "{pair:?}");
        nothing_left(&rig);
    }
}

/// The beginning of a DATA frame that takes all credit of its stream.
fn half_a_frame(stream: u32) -> Vec<u8> {
    let mut bytes = vec![0, 0x40, 0, 0, 0];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[b'x'; 100]);
    bytes
}

// What a frame has announced needs no more credit: whoever stops in the middle of it is waited for as long as
// anybody else.
#[test]
fn whoever_stops_in_the_middle_of_a_frame_is_given_up() {
    let top = "[http2]\ninitial_window = 16384\n[timeouts]\nstall = 10\n[limits]\nmin_upload_rate = 1";
    for backend in [true, false] {
        let mut rig = rig_of(top, "retries = 0", (Speaks::Http2, Speaks::Http2));
        let c = rig.client();
        let head = if backend { get("/") } else { post("/", 16_384) };
        let far = rig.ask(c, &head, backend);
        let leg = rig.asked()[0];
        if backend {
            rig.respond_head(leg, "HTTP/1.1 200 OK\r\nContent-Length: 16384\r\n\r\n");
        }
        let (conn, stream) = if backend { leg } else { far };
        rig.send_bytes(conn, &half_a_frame(stream));
        rig.advance(Duration::from_millis(10_100));
        assert!(records(&mut rig).is_empty(), "something has come in that time");
        rig.advance(Duration::from_millis(10_100));
        let cause = if backend { Cause::BackendStalled } else { Cause::ClientStalled };
        let found = records(&mut rig);
        assert!(matches!(found[..], [(_, Some(found))] if found == cause), "{found:?}");
        nothing_left(&rig);
    }
}

/// How much of a long response a backend may send of which a client takes nothing, and whether all of it
/// arrives once the client does.
fn taken(http2: &str, len: usize) -> usize {
    let mut rig = rig_of(http2, "retries = 0", (Speaks::Http1, Speaks::Http2));
    let c = rig.client();
    let far = rig.ask(c, &get("/"), true);
    let leg = rig.asked()[0];
    rig.slow_down(c);
    rig.respond_head(leg, &format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n"));
    let body: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    let taken = rig.send_what_is_taken(leg, &body);
    let mut sent = taken;
    while sent < len && rig.take_once(c) {
        sent += rig.send_what_is_taken(leg, &body[sent..]);
    }
    rig.end(leg, "");
    while rig.take_once(c) {}
    let got = rig.message(far);
    assert!(got.ended && got.body == body, "{} of {len} bytes", got.body.len());
    assert_eq!(records(&mut rig), [(200, None)]);
    nothing_left(&rig);
    taken
}

#[test]
fn the_window_of_backends_is_that_of_the_configuration() {
    let table = [
        ("", 16_384),
        // That of clients is another.
        ("[http2]\ninitial_window = 100000", 16_384),
        ("[http2]\nbackend_window = 65536", 65_536),
        // All streams of a connection together have at most what HTTP/2 can say.
        ("[http2]\nbackend_window = 1000000", 1_000_000),
    ];
    for (http2, expected) in table {
        assert_eq!(taken(http2, 1_500_000), expected, "{http2}");
    }
}

// A connection to a backend has the window that held when it was made.
#[test]
fn a_reload_changes_the_window_of_connections_to_come() {
    let window = |rig: &mut Rig| {
        let c = rig.client();
        rig.ask(c, &get("/"), true);
        let leg = *rig.asked().last().expect("a request");
        rig.slow_down(c);
        rig.respond_head(leg, "HTTP/1.1 200 OK\r\n\r\n");
        (leg, rig.send_what_is_taken(leg, &[b'x'; 50_000]))
    };
    let mut rig = rig_of("", "retries = 0", (Speaks::Http1, Speaks::Http2));
    let (first, sent) = window(&mut rig);
    assert_eq!(sent, 16_384);
    rig.reload(two_wires::config("[http2]\nbackend_window = 40000", "retries = 0"));
    let (second, sent) = window(&mut rig);
    assert_eq!((second.0, sent), (first.0, 16_384), "the same connection");
    rig.lose(first.0);
    let (third, sent) = window(&mut rig);
    assert!(third.0 != first.0);
    assert_eq!(sent, 40_000);
}
