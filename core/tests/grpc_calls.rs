//! Calls of gRPC by clients of HTTP/2: errors of our own are statuses of gRPC, and the deadline of a call
//! holds. Over HTTP/1.1, and for other requests, nothing is different.

mod toy_wire;
mod two_wires;

use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::grpc::Status;
use ruststrom_core::{Cause, ConnId, Shared};
use two_wires::{Message, Rig, Speaks, config};

const PAIRS: [(Speaks, Speaks); 2] = [(Speaks::Http2, Speaks::Http1), (Speaks::Http2, Speaks::Toy)];
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n";

fn rig(top: &str, pool: &str, pair: (Speaks, Speaks)) -> Rig {
    Rig::new(config(top, pool), Arc::new(Shared::new("lb", 1)), pair)
}

fn call(more: &str) -> String {
    format!(
        "POST /a.B/C HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc+proto\r\n\
         TE: trailers\r\n{more}\r\n"
    )
}

fn field<'m>(got: &'m Message, name: &str) -> Option<&'m str> {
    let named = |line: &&str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
    let mut found = got.head.lines().filter(named);
    let value = found.next()?.split_once(": ").map(|(_, value)| value);
    assert!(found.next().is_none(), "{name} twice: {}", got.head);
    value
}

/// It is a head and nothing else, with this status and text.
fn is_error(got: &Message, status: &str, text: &str, case: &str) {
    assert!(got.head.starts_with("HTTP/1.1 200 OK\r\n"), "{case}: {got:?}");
    assert!(got.ended && got.body.is_empty() && got.trailers.is_empty(), "{case}: {got:?}");
    assert_eq!(field(got, "content-type"), Some("application/grpc"), "{case}");
    assert_eq!(field(got, "grpc-status"), Some(status), "{case}");
    assert_eq!(field(got, "grpc-message"), Some(text), "{case}");
    assert_eq!((field(got, "content-encoding"), field(got, "content-length")), (None, None), "{case}");
}

/// Further lines of the configuration's top and of its pool.
type Settings<'a> = (&'a str, &'a str);
/// Breaks a call: its client asks it, and what else happens does.
type Play = fn(&mut Rig, ConnId) -> two_wires::Far;

#[test]
fn errors_of_our_own_are_statuses_of_grpc() {
    let ask: Play = |rig, c| rig.ask(c, &call(""), true);
    let basic_auth = format!(
        "[backend_pools.middlewares.BasicAuth]\nusers = {{ ada = \"$6$salt${}\" }}\n",
        "x".repeat(86)
    );
    let table: &[(Settings<'_>, Play, &str, &str)] = &[
        (("", "matcher = \"Host('b.test')\""), ask, "12", "404 Not Found: no_route"),
        (("", "addresses = []"), ask, "14", "503 Service Unavailable: no_backend"),
        (
            ("", "retries = 0"),
            |rig, c| {
                rig.refused = 1;
                rig.ask(c, &call(""), true)
            },
            "14",
            "502 Bad Gateway: connect_refused",
        ),
        (
            ("", "retries = 0"),
            |rig, c| {
                let far = rig.ask(c, &call(""), true);
                rig.advance(Duration::from_secs(31));
                far
            },
            "14",
            "504 Gateway Timeout: backend_timeout",
        ),
        (
            ("[timeouts]\nstall = 5", ""),
            |rig, c| {
                let far = rig.ask(c, &call(""), false);
                rig.advance(Duration::from_secs(6));
                far
            },
            "4",
            "408 Request Timeout: client_stalled",
        ),
        (
            ("", "[backend_pools.middlewares.MaxBodySize]\nlimit = 3"),
            |rig, c| {
                let far = rig.ask(c, &call(""), false);
                rig.send(far, b"\0\0\0\0\x01x");
                far
            },
            "8",
            "413 Content Too Large: content_too_large",
        ),
        (
            ("", "[backend_pools.middlewares.RateLimiter]\nlimit = 1\nwindow_sec = 60"),
            |rig, c| {
                rig.ask(c, &call(""), true);
                rig.ask(c, &call(""), true)
            },
            "8",
            "429 Too Many Requests",
        ),
        (("", &basic_auth), ask, "16", "401 Unauthorized"),
        (
            ("", "[backend_pools.middlewares]\nIpDeny = { ranges = [\"192.0.2.7\"] }"),
            ask,
            "7",
            "403 Forbidden",
        ),
    ];
    for pair in PAIRS {
        for ((top, pool), play, status, text) in table.iter() {
            let case = format!("{pair:?} {top} {pool}");
            let mut rig = rig(top, pool, pair);
            let c = rig.client();
            let far = play(&mut rig, c);
            is_error(&rig.message(far), status, text, &case);
            let (logged, cause) = rig.proxy.observer_mut().records.pop().expect("a record");
            assert_eq!(logged, 200, "{case}: as the client has got it");
            let named = text.split(": ").nth(1);
            assert_eq!(cause.map(Cause::name), named, "{case}");
        }
    }
}

#[test]
fn every_status_has_one() {
    use Status as S;
    let table: [(&[u16], Status); 8] = [
        (&[400, 500], S::Internal),
        (&[401], S::Unauthenticated),
        (&[403], S::PermissionDenied),
        (&[404, 501], S::Unimplemented),
        (&[408], S::DeadlineExceeded),
        (&[413, 414, 429, 431], S::ResourceExhausted),
        (&[502, 503, 504], S::Unavailable),
        (&[301, 302, 402, 405, 407, 411, 415, 417, 421, 499, 505, 511], S::Unknown),
    ];
    for (http, expected) in table {
        for http in http {
            assert_eq!(Status::of(*http, None), expected, "{http}");
            assert_eq!(Status::of(*http, Some(Cause::DeadlineExceeded)), S::DeadlineExceeded);
        }
    }
}

// Other requests get what they have always got, and so does who speaks HTTP/1.1.
#[test]
fn only_calls_over_http2_are_answered_so() {
    let table = [
        ((Speaks::Http2, Speaks::Http1), "application/grpc", true),
        ((Speaks::Http2, Speaks::Http1), "Application/GRPC;a=b", true),
        ((Speaks::Http2, Speaks::Http1), "application/grpc+json", true),
        ((Speaks::Http2, Speaks::Http1), "application/grpc-web", false),
        ((Speaks::Http2, Speaks::Http1), "application/grpc-web+proto", false),
        ((Speaks::Http2, Speaks::Http1), "application/grpcx", false),
        ((Speaks::Http2, Speaks::Http1), "application/json", false),
        ((Speaks::Http1, Speaks::Http1), "application/grpc", false),
    ];
    for (pair, media_type, is_call) in table {
        let mut rig = rig("", "addresses = []", pair);
        let c = rig.client();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nContent-Type: {media_type}\r\n\r\n"
        );
        let far = rig.ask(c, &head, true);
        let got = rig.message(far);
        if is_call {
            is_error(&got, "14", "503 Service Unavailable: no_backend", media_type);
        } else {
            assert!(got.head.starts_with("HTTP/1.1 503 "), "{media_type}: {got:?}");
            assert_eq!(got.body, b"503 Service Unavailable: no_backend\n", "{media_type}");
            assert_eq!(field(&got, "grpc-status"), None);
        }
    }
}

// What a backend says passes as it is: also an error of HTTP.
#[test]
fn responses_of_backends_are_their_own() {
    for pair in PAIRS {
        let mut rig = rig("", "", pair);
        let c = rig.client();
        let far = rig.ask(c, &call(""), true);
        let backend = rig.asked()[0];
        rig.respond(backend, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n", b"no");
        let got = rig.message(far);
        assert!(got.head.starts_with("HTTP/1.1 503 ") && got.body == b"no", "{got:?}");
    }
}

#[test]
fn the_deadline_of_a_call_holds() {
    // What the client says; when it passes.
    let table = [
        ("grpc-timeout: 2S\r\n", Some(2000)),
        ("grpc-timeout: 1500m\r\n", Some(1500)),
        ("grpc-timeout: 60S\r\n", None),
        // Those are none.
        ("grpc-timeout: 2s\r\n", None),
        ("grpc-timeout: 1S\r\ngrpc-timeout: 2S\r\n", None),
        ("", None),
    ];
    for pair in PAIRS {
        for (said, due_ms) in table {
            let case = format!("{pair:?} {said}");
            let mut rig = rig("", "retries = 3", pair);
            let c = rig.client();
            let far = rig.ask(c, &call(said), true);
            let backend = rig.asked()[0];
            assert_eq!(
                rig.message(backend).head.to_lowercase().matches("grpc-timeout").count(),
                said.matches("grpc-timeout").count()
            );
            let Some(due_ms) = due_ms else {
                rig.advance(Duration::from_secs(29));
                assert_eq!(rig.message(far), Message::default(), "{case}");
                rig.advance(Duration::from_secs(2));
                is_error(&rig.message(far), "14", "504 Gateway Timeout: backend_timeout", &case);
                continue;
            };
            rig.advance(Duration::from_millis(due_ms - 20));
            assert_eq!(rig.message(far), Message::default(), "{case}");
            rig.advance(Duration::from_millis(40));
            is_error(&rig.message(far), "4", "504 Gateway Timeout: deadline_exceeded", &case);
            assert!(rig.message(backend).reset || pair.1 == Speaks::Http1, "{case}: the backend is told");
            let record = rig.proxy.observer_mut().records.pop();
            assert_eq!(record, Some((200, Some(Cause::DeadlineExceeded))), "{case}");
            assert_eq!(rig.proxy.counts().exchanges, 0, "{case}");
            assert_eq!(rig.proxy.counts().in_flight, 0, "{case}");
        }
    }
}

// It holds for the whole call: while it waits for a backend, and while messages pass.
#[test]
fn the_deadline_holds_in_every_phase() {
    for pair in PAIRS {
        // No connection.
        let mut waiting = rig("", "", pair);
        waiting.connects_wait = true;
        let c = waiting.client();
        let far = waiting.ask(c, &call("grpc-timeout: 3S\r\n"), true);
        waiting.advance(Duration::from_millis(3100));
        is_error(&waiting.message(far), "4", "504 Gateway Timeout: deadline_exceeded", "connecting");

        // In a queue.
        let mut queued = rig("", "addresses = [{ address = \"127.0.0.1:81\", max_connections = 1 }]", pair);
        let c = queued.client();
        queued.ask(c, &call(""), true);
        let far = queued.ask(c, &call("grpc-timeout: 3S\r\n"), true);
        assert_eq!(queued.proxy.counts().queued, 1);
        queued.advance(Duration::from_millis(3100));
        is_error(&queued.message(far), "4", "504 Gateway Timeout: deadline_exceeded", "queued");
        assert_eq!(queued.proxy.counts().queued, 0);

        // In the middle of the response: what has come is followed by a status.
        let mut streaming = rig("", "", pair);
        let c = streaming.client();
        let far = streaming.ask(c, &call("grpc-timeout: 3S\r\n"), true);
        let backend = streaming.asked()[0];
        streaming.respond_head(backend, OK);
        let (one, chunk) = (b"\0\0\0\0\x01x", b"6\r\n\0\0\0\0\x01x\r\n");
        streaming.send(backend, if pair.1 == Speaks::Http1 { chunk } else { one });
        assert_eq!(streaming.message(far).body, one);
        streaming.advance(Duration::from_millis(3100));
        let got = streaming.message(far);
        assert_eq!(got.body, one);
        assert!(got.ended && !got.reset, "{got:?}");
        assert_eq!(got.trailers.to_lowercase(), "grpc-status: 4\r\ngrpc-message: deadline_exceeded\r\n\r\n");
        assert_eq!(streaming.proxy.counts().exchanges, 0);
        assert_eq!(streaming.proxy.counts().pages, 0);
        let record = streaming.proxy.observer_mut().records.pop();
        assert_eq!(record, Some((200, Some(Cause::DeadlineExceeded))));
        // The connection goes on.
        let far = streaming.ask(c, &call("grpc-timeout: 0n\r\n"), true);
        streaming.advance(Duration::from_millis(20));
        is_error(&streaming.message(far), "4", "504 Gateway Timeout: deadline_exceeded", "at once");
    }
}
