//! What backends are asked, and what clients are told.

use std::sync::Arc;

use ruststrom_core::http::Violation;
use ruststrom_core::shared::HttpChallenge;
use ruststrom_core::{Cause, Shared};

use crate::two_wires::{Rig, Speaks, config};
use crate::{
    ACCEPT, ASK, GET, OK, PAIRS, accept, asked, bytes_at, field, head_of, is_ended, nothing_left, opened,
    records, rig, rig_of, status_for, switch,
};

#[test]
fn each_wire_has_its_own_handshake() {
    for pair in PAIRS {
        let mut rig = rig(pair);
        let c = rig.client();
        let (client, backend) = asked(&mut rig, c);
        let head = head_of(&rig, backend);
        let what = format!("{pair:?}: {head}");
        assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\nHost: a.test\r\n"), "{what}");
        assert_eq!(field(&head, "Upgrade"), Some("websocket"), "{what}");
        assert_eq!(field(&head, "Sec-WebSocket-Version"), Some("13"), "{what}");
        assert_eq!(field(&head, "Sec-WebSocket-Protocol"), Some("one, two"), "{what}");
        assert!(field(&head, "X-Request-ID").is_some() && field(&head, "Content-Length").is_none(), "{what}");
        let http1 = pair.1 == Speaks::Http1;
        assert_eq!(field(&head, "Connection").is_some(), http1, "{what}");
        let key = field(&head, "Sec-WebSocket-Key");
        match pair {
            (_, Speaks::Http2) => assert_eq!(key, None, "{what}"),
            (Speaks::Http1, _) => assert_eq!(key, Some("dGhlIHNhbXBsZSBub25jZQ=="), "{what}"),
            _ => assert!(key.is_some_and(|key| key.len() == 24), "{what}"),
        }

        rig.respond_head(backend, &switch(&head));
        let head = head_of(&rig, client);
        let what = format!("{pair:?}: {head}");
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", status_for(pair.0))), "{what}");
        assert_eq!(field(&head, "Sec-WebSocket-Protocol"), Some("two"), "{what}");
        assert!(field(&head, "Date").is_some() && field(&head, "Content-Length").is_none(), "{what}");
        let told = pair.0 == Speaks::Http1;
        assert_eq!(field(&head, "Sec-WebSocket-Accept"), told.then_some(ACCEPT), "{what}");
        assert_eq!(field(&head, "Upgrade"), told.then_some("websocket"), "{what}");
        assert_eq!(field(&head, "Connection"), told.then_some("upgrade"), "{what}");
        assert!(!is_ended(&rig, client) && !is_ended(&rig, backend), "{pair:?}");
        assert_eq!(rig.proxy.counts().exchanges, 1);
        assert_eq!(rig.proxy.counts().pages, 0, "a quiet tunnel holds no page");
    }
}

#[test]
fn keys_are_made_up_anew() {
    let mut rig = rig((Speaks::Http2, Speaks::Http1));
    let c = rig.client();
    let mut keys = Vec::new();
    for _ in 0..20 {
        let (_, backend) = asked(&mut rig, c);
        keys.push(field(&head_of(&rig, backend), "Sec-WebSocket-Key").expect("a key").to_owned());
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 20);
}

// RFC 8441 §5: a key that a client sends all the same means nothing, nor does an answer of a backend.
#[test]
fn keys_of_others_do_not_pass() {
    for backends in [Speaks::Http1, Speaks::Http2] {
        let mut rig = rig((Speaks::Http2, backends));
        let c = rig.client();
        let wire = &mut rig.http2(c).wire;
        let stream = wire.open().expect("a free stream");
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let fields =
            [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/")];
        let more = [(":authority", "a.test"), ("sec-websocket-key", key), ("sec-websocket-key", key)];
        wire.send_connect(stream, |w| {
            let all = fields.iter().chain(&more);
            all.for_each(|(name, value)| w.pseudo(name.as_bytes(), value.as_bytes()));
        });
        rig.run();
        let backend = rig.asked()[0];
        let head = head_of(&rig, backend);
        let keys = head.to_ascii_lowercase().matches("sec-websocket-key: ").count();
        assert_eq!(keys, usize::from(backends == Speaks::Http1), "{head}");
        assert!(!head.contains(key), "{head}");
        rig.respond_head(backend, &switch(&head));
        assert_eq!(field(&head_of(&rig, (c, stream)), "Sec-WebSocket-Accept"), None);
    }
    let mut rig = rig((Speaks::Http1, Speaks::Http2));
    let c = rig.client();
    let (client, backend) = asked(&mut rig, c);
    let wire = &mut rig.http2(backend.0).wire;
    wire.send_head(backend.1, false, false, |w| {
        w.pseudo(b":status", b"201");
        w.pseudo(b"sec-websocket-accept", b"mine");
        w.pseudo(b"content-length", b"0");
    });
    rig.run();
    let head = head_of(&rig, client);
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert_eq!((head.matches("Accept").count(), field(&head, "Content-Length")), (1, None), "{head}");
    assert_eq!(field(&head, "Sec-WebSocket-Accept"), Some(ACCEPT));
}

#[test]
fn refusals_pass_as_they_are() {
    for pair in PAIRS {
        let mut rig = rig(pair);
        let c = rig.client();
        for (status, body) in [(403, &b"not you"[..]), (302, b""), (426, b"no")] {
            let (client, backend) = asked(&mut rig, c);
            let head =
                format!("HTTP/1.1 {status} No\r\nX-Why: because\r\nContent-Length: {}\r\n\r\n", body.len());
            rig.respond(backend, &head, body);
            let got = rig.message(client);
            let what = format!("{pair:?}: {got:?}");
            assert!(got.head.starts_with(&format!("HTTP/1.1 {status} ")), "{what}");
            assert!(got.ended && got.body == body && !got.reset, "{what}");
            assert_eq!(field(&got.head, "X-Why"), Some("because"), "{what}");
            assert_eq!(records(&mut rig), [(status, None)], "{pair:?}");
            if pair.1 == Speaks::Http2 {
                assert!(rig.message(backend).ended, "{pair:?}: the stream of the backend is through");
                assert_eq!(rig.http2(backend.0).wire.open_streams(), 0);
            }
            if pair.0 == Speaks::Http2 {
                // Whatever the client still sends is not wanted.
                assert_eq!(rig.http2(c).wire.open_streams(), 0, "{pair:?}");
            }
            rig.forget(client);
            rig.forget(backend);
        }
        nothing_left(&rig);
        // Connections go on.
        let client = rig.ask(c, GET, true);
        let backend = *rig.asked().last().expect("asked");
        rig.respond(backend, OK, b"ok");
        assert_eq!(rig.message(client).body, b"ok", "{pair:?}");
        assert_eq!(rig.backend_conns.len(), 1, "{pair:?}");
    }
}

// A client that does not wait for its answer: what it has sent goes to nobody.
#[test]
fn what_came_early_is_dropped_by_a_refusal() {
    for pair in [(Speaks::Http2, Speaks::Http1), (Speaks::Http2, Speaks::Http2)] {
        for ends in [true, false] {
            let mut rig = rig(pair);
            let c = rig.client();
            let (client, backend) = asked(&mut rig, c);
            rig.send(client, &[b'x'; 5000]);
            if ends {
                rig.end(client, "");
            }
            rig.respond_head(backend, "HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\n");
            if !ends {
                for _ in 0..20 {
                    rig.send(client, &[b'y'; 5000]);
                }
            }
            assert_eq!(bytes_at(&rig, backend), b"", "{pair:?}");
            rig.send_all(backend, b"away");
            rig.end(backend, "");
            let got = rig.message(client);
            assert!(got.ended && got.body == b"away", "{pair:?}: {got:?}");
            assert_eq!(bytes_at(&rig, backend), b"", "{pair:?}");
            assert_eq!(records(&mut rig), [(403, None)], "{pair:?}");
            assert_eq!(rig.http2(c).wire.open_streams(), 0);
            nothing_left(&rig);
        }
    }
}

// To a client of HTTP/2 any success would say that the WebSocket is there.
#[test]
fn no_success_but_a_101_is_one() {
    for clients in [Speaks::Http1, Speaks::Http2] {
        let mut rig = rig((clients, Speaks::Http1));
        let c = rig.client();
        let (client, backend) = asked(&mut rig, c);
        rig.respond_at_once(backend, OK, b"ok");
        let got = rig.message(client);
        if clients == Speaks::Http1 {
            assert!(got.head.starts_with("HTTP/1.1 200 ") && got.body == b"ok", "{got:?}");
            assert_eq!(records(&mut rig), [(200, None)]);
        } else {
            assert!(got.head.starts_with("HTTP/1.1 502 ") && got.ended, "{got:?}");
            assert_eq!(records(&mut rig), [(502, Some(Cause::BadResponse(Violation::NotSwitched)))]);
        }
        nothing_left(&rig);
    }
}

#[test]
fn an_answer_that_does_not_fit_the_key_is_none() {
    // `{}` is the right one.
    let table = [
        ("right", "Sec-WebSocket-Accept: {}\r\n".to_owned()),
        ("missing", String::new()),
        ("another's", format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")),
        ("twice", "Sec-WebSocket-Accept: {}\r\n".repeat(2)),
        ("longer", "Sec-WebSocket-Accept: {}=\r\n".to_owned()),
    ];
    for (what, line) in table {
        let mut rig = rig((Speaks::Http2, Speaks::Http1));
        let c = rig.client();
        let (client, backend) = asked(&mut rig, c);
        let line = line.replace("{}", &accept(&head_of(&rig, backend)));
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{line}\r\n"
        );
        rig.respond_head(backend, &head);
        let got = head_of(&rig, client);
        if what == "right" {
            assert!(got.starts_with("HTTP/1.1 200 "), "{what}: {got}");
            continue;
        }
        assert!(got.starts_with("HTTP/1.1 502 "), "{what}: {got}");
        assert_eq!(
            records(&mut rig),
            [(502, Some(Cause::BadResponse(Violation::WebSocketAccept)))],
            "{what}"
        );
        nothing_left(&rig);
    }
}

#[test]
fn other_protocols_are_not_served() {
    let table = [
        (Some("connect-udp"), "501", Violation::Protocol),
        (Some("h2c"), "501", Violation::Protocol),
        (Some(""), "501", Violation::Protocol),
        (None, "501", Violation::Connect),
    ];
    let mut rig = rig((Speaks::Http2, Speaks::Http1));
    let c = rig.client();
    for (protocol, status, violation) in table {
        let wire = &mut rig.http2(c).wire;
        let stream = wire.open().expect("a free stream");
        wire.send_connect(stream, |w| {
            w.pseudo(b":method", b"CONNECT");
            if let Some(protocol) = protocol {
                w.pseudo(b":protocol", protocol.as_bytes());
                w.pseudo(b":scheme", b"http");
                w.pseudo(b":path", b"/");
            }
            w.pseudo(b":authority", b"a.test:80");
        });
        rig.run();
        let got = rig.message((c, stream));
        assert!(got.head.starts_with(&format!("HTTP/1.1 {status} ")) && got.ended, "{protocol:?}: {got:?}");
        let (logged, cause) = records(&mut rig)[0];
        assert_eq!((logged.to_string().as_str(), cause), (status, Some(Cause::BadRequest(violation))));
        assert!(rig.asked().is_empty());
    }
    nothing_left(&rig);
}

// What is no handshake of a WebSocket is not made one: HTTP/2 has no other upgrades.
#[test]
fn upgrades_that_are_no_websockets_are_not_offered_over_http2() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let table = [
        ("GET", "websocket", "".to_owned()),
        ("GET", "websocket", key.repeat(2)),
        ("GET", "websocket", "Sec-WebSocket-Key: short\r\n".to_owned()),
        ("GET", "other", key.to_owned()),
        ("POST", "websocket", format!("{key}Content-Length: 0\r\n")),
        ("GET", "websocket", format!("{key}Transfer-Encoding: chunked\r\n")),
    ];
    for (method, protocol, more) in table {
        let mut rig = rig((Speaks::Http1, Speaks::Http2));
        let c = rig.client();
        let head = format!(
            "{method} / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{more}\r\n"
        );
        let client = rig.ask(c, &head, true);
        if more.contains("chunked") {
            rig.send(client, b"0\r\n\r\n");
        }
        let backend = rig.asked()[0];
        let got = rig.message(backend);
        assert!(got.head.starts_with(&format!("{method} / HTTP/1.1\r\n")) && got.ended, "{head}: {got:?}");
        assert_eq!(field(&got.head, "Upgrade"), None);
        rig.respond(backend, OK, b"ok");
        assert_eq!(rig.message(client).body, b"ok", "{head}");
        nothing_left(&rig);
    }
}

#[test]
fn a_length_of_nothing_is_not_passed_on() {
    let mut rig = rig((Speaks::Http1, Speaks::Http2));
    let c = rig.client();
    rig.ask(c, &ASK.replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"), false);
    let head = head_of(&rig, rig.asked()[0]);
    assert_eq!(
        (field(&head, "Upgrade"), field(&head, "Content-Length")),
        (Some("websocket"), None),
        "{head}"
    );
}

#[test]
fn interim_responses_pass() {
    for pair in PAIRS {
        let mut rig = rig(pair);
        let c = rig.client();
        let (client, backend) = asked(&mut rig, c);
        let head = head_of(&rig, backend);
        rig.respond_head(backend, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        rig.respond_head(backend, &switch(&head));
        let got = match client.1 {
            0 => String::from_utf8_lossy(rig.received(c)).into_owned(),
            _ => rig.message(client).head,
        };
        assert!(got.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{pair:?}: {got}");
        assert!(got.contains(&format!("HTTP/1.1 {} ", status_for(pair.0))), "{pair:?}: {got}");
    }
}

// Success of our own is none either, whatever it has to say.
#[test]
fn replies_of_our_own_open_no_tunnel() {
    let shared = Arc::new(Shared::new("lb", 1));
    shared.set_http_challenges(vec![HttpChallenge { token: "one".into(), answer: b"one.print"[..].into() }]);
    let mut rig = Rig::new(config("", ""), shared, (Speaks::Http2, Speaks::Http1));
    let c = rig.client();
    let client = rig.ask(c, &ASK.replace("/chat?room=1", "/.well-known/acme-challenge/one"), false);
    let got = rig.message(client);
    assert!(got.head.starts_with("HTTP/1.1 501 ") && got.ended, "{got:?}");
    assert_eq!(records(&mut rig), [(501, None)]);
    nothing_left(&rig);
}

// Rules, limits and middlewares are those of a GET.
#[test]
fn what_holds_for_requests_holds_for_websockets() {
    let deny = "[backend_pools.middlewares.IpDeny]\nranges = [\"192.0.2.0/24\"]";
    let table = [
        ("", "matcher = \"Method('POST')\"", "404"),
        ("", deny, "403"),
        ("[limits]\ntarget_bytes = 100", "", "414"),
    ];
    for (top, pool, status) in table {
        for clients in [Speaks::Http1, Speaks::Http2] {
            let mut rig = rig_of(top, pool, (clients, Speaks::Http1));
            let c = rig.client();
            let long = format!("/chat?{}", "x".repeat(if status == "414" { 100 } else { 1 }));
            let client = rig.ask(c, &ASK.replace("/chat?room=1", &long), false);
            assert!(
                head_of(&rig, client).starts_with(&format!("HTTP/1.1 {status} ")),
                "{clients:?} {status}"
            );
            assert_eq!(records(&mut rig)[0].0.to_string(), status);
            assert!(rig.asked().is_empty());
            nothing_left(&rig);
        }
    }
    let fields = "[backend_pools.middlewares.Headers]\nresponse = { set = { X-Added = \"yes\" } }\n\
        request = { set = { X-Asked = \"yes\" } }";
    for pair in PAIRS {
        let pool = format!("matcher = \"Method('GET') && Header('Upgrade', 'websocket')\"\n{fields}");
        let mut rig = rig_of("", &pool, pair);
        let c = rig.client();
        let (client, backend) = opened(&mut rig, c);
        assert_eq!(field(&head_of(&rig, backend), "X-Asked"), Some("yes"), "{pair:?}");
        assert_eq!(field(&head_of(&rig, client), "X-Added"), Some("yes"), "{pair:?}");
    }
}
