//! Which backends of HTTP/2 are asked for WebSockets, and when.

use std::time::Duration;

use ruststrom_core::Cause;
use ruststrom_core::h2;

use crate::two_wires::{Rig, Speaks};
use crate::{
    ASK, GET, OK, asked, bytes_at, field, head_of, nothing_left, opened, records, rig_of, status_for, switch,
};

const CLIENTS: [Speaks; 2] = [Speaks::Http1, Speaks::Http2];

fn silent() -> h2::Limits {
    h2::Limits { extended_connect: false, ..h2::Limits::default() }
}

fn https(clients: Speaks, chooses: &'static str) -> Rig {
    let mut rig = rig_of("", "addresses = [\"https://127.0.0.1:443\"]", (clients, Speaks::Http1));
    rig.backend_alpn = Some(chooses);
    rig
}

#[test]
fn who_has_announced_nothing_gets_none() {
    let two = "addresses = [\"127.0.0.1:81\", \"127.0.0.1:82\"]\nretries = 1";
    for (pool, attempts) in [("retries = 0", 1), (two, 2)] {
        for clients in CLIENTS {
            let mut rig = rig_of("", pool, (clients, Speaks::Http2));
            rig.backend_limits = silent();
            let c = rig.client();
            let client = rig.ask(c, ASK, false);
            let got = rig.message(client);
            assert!(got.head.starts_with("HTTP/1.1 502 ") && got.ended, "{clients:?}: {got:?}");
            assert!(String::from_utf8_lossy(&got.body).contains("websocket_not_announced"), "{got:?}");
            assert_eq!(
                field(&got.head, "Proxy-Status").map(|s| s.contains("http_upgrade_failed")),
                Some(true)
            );
            assert_eq!(records(&mut rig), [(502, Some(Cause::NoWebSockets))]);
            assert_eq!(rig.proxy.observer_mut().attempts, [attempts]);
            assert!(rig.asked().is_empty(), "no backend has heard of it");
            nothing_left(&rig);
            // Other requests are served, on the same connection.
            let made = rig.backend_conns.len();
            rig.forget(client);
            let client = rig.ask(c, GET, true);
            let backend = rig.asked()[0];
            rig.respond(backend, OK, b"ok");
            assert_eq!((rig.message(client).body, rig.backend_conns.len()), (b"ok".to_vec(), made));
        }
    }
}

// Nothing is known before the backend's SETTINGS have come; requests that need to know nothing go first.
#[test]
fn what_a_backend_takes_is_waited_for() {
    for clients in CLIENTS {
        for takes in [true, false] {
            let mut rig = rig_of("", "retries = 0", (clients, Speaks::Http2));
            rig.backend_limits = if takes { h2::Limits::default() } else { silent() };
            rig.connects_wait = true;
            let (one, two, three) = (rig.client(), rig.client(), rig.client());
            let first = rig.ask(one, ASK, false);
            rig.decide_connects_deaf();
            let second = rig.ask(two, GET, true);
            let third = rig.ask(three, ASK, false);
            let heard = rig.asked();
            assert_eq!(heard.len(), 1, "{clients:?}");
            assert!(head_of(&rig, heard[0]).starts_with("GET / "), "{clients:?}");
            rig.advance(Duration::from_secs(5));
            rig.http2(heard[0].0).deaf = false;
            rig.run();
            rig.respond(heard[0], OK, b"ok");
            assert_eq!(rig.message(second).body, b"ok", "{clients:?}");
            assert_eq!(rig.backend_conns.len(), 1);
            if !takes {
                for client in [first, third] {
                    assert!(rig.message(client).head.starts_with("HTTP/1.1 502 "), "{clients:?}");
                }
                nothing_left(&rig);
                continue;
            }
            let legs: Vec<_> = rig.asked().into_iter().filter(|far| *far != heard[0]).collect();
            assert_eq!(legs.len(), 2, "{clients:?}");
            for (client, backend) in [first, third].into_iter().zip(legs) {
                let head = head_of(&rig, backend);
                rig.respond_head(backend, &switch(&head));
                rig.send_all(client, b"ping");
                assert_eq!(bytes_at(&rig, backend), b"ping", "{clients:?}");
                let head = head_of(&rig, client);
                assert!(head.starts_with(&format!("HTTP/1.1 {} ", status_for(clients))), "{head}");
            }
        }
    }
}

#[test]
fn who_says_nothing_is_given_up() {
    for clients in CLIENTS {
        let mut rig = rig_of("", "retries = 0", (clients, Speaks::Http2));
        rig.connects_wait = true;
        let c = rig.client();
        let client = rig.ask(c, ASK, false);
        rig.decide_connects_deaf();
        rig.advance(Duration::from_secs(9));
        assert_eq!(rig.proxy.counts().exchanges, 1);
        rig.advance(Duration::from_secs(2));
        assert!(head_of(&rig, client).starts_with("HTTP/1.1 504 "), "{clients:?}");
        assert_eq!(records(&mut rig), [(504, Some(Cause::BackendLost))]);
        nothing_left(&rig);
    }
}

// A client that leaves meanwhile, and one whose stream finds no place any more.
#[test]
fn who_waits_may_leave_and_streams_may_be_few() {
    for clients in CLIENTS {
        let mut rig = rig_of("", "retries = 0", (clients, Speaks::Http2));
        rig.backend_limits = h2::Limits { streams: 1, ..h2::Limits::default() };
        rig.connects_wait = true;
        let all: Vec<_> = (0..4).map(|_| rig.client()).collect();
        let waits: Vec<_> = all.iter().map(|c| rig.ask(*c, ASK, false)).collect();
        rig.decide_connects_deaf();
        rig.lose(waits[1].0);
        rig.http2(rig.backend_conns[0]).deaf = false;
        rig.run();
        assert_eq!(records(&mut rig), [(499, Some(Cause::ClientClosed))], "{clients:?}");
        assert_eq!((rig.backend_conns.len(), rig.asked().len()), (3, 3), "{clients:?}: one on each");
        for backend in rig.asked() {
            let head = head_of(&rig, backend);
            rig.respond_head(backend, &switch(&head));
        }
        for client in [waits[0], waits[2], waits[3]] {
            assert!(head_of(&rig, client).starts_with(&format!("HTTP/1.1 {} ", status_for(clients))));
        }
    }
}

// What they need next is another connection, which has its own time to come about.
#[test]
fn who_finds_no_room_after_long_may_connect_again() {
    for clients in CLIENTS {
        let timeouts = "retries = 0\n[backend_pools.timeouts]\nconnect = 3";
        let mut rig = rig_of("", timeouts, (clients, Speaks::Http2));
        rig.backend_limits = h2::Limits { streams: 1, ..h2::Limits::default() };
        rig.connects_wait = true;
        let all: Vec<_> = (0..2).map(|_| rig.client()).collect();
        let waits: Vec<_> = all.iter().map(|c| rig.ask(*c, ASK, false)).collect();
        rig.decide_connects_deaf();
        rig.advance(Duration::from_secs(5));
        rig.connects_wait = true;
        rig.http2(rig.backend_conns[0]).deaf = false;
        rig.run();
        rig.advance(Duration::from_secs(2));
        assert!(records(&mut rig).is_empty(), "{clients:?}");
        rig.decide_connects();
        assert_eq!((rig.backend_conns.len(), rig.asked().len()), (2, 2), "{clients:?}");
        for backend in rig.asked() {
            let head = head_of(&rig, backend);
            rig.respond_head(backend, &switch(&head));
        }
        for client in waits {
            assert!(head_of(&rig, client).starts_with(&format!("HTTP/1.1 {} ", status_for(clients))));
        }
    }
}

// Nobody connects for ever to a backend that takes no streams at all.
#[test]
fn a_backend_without_room_is_given_up() {
    for clients in CLIENTS {
        let mut rig = rig_of("", "retries = 0", (clients, Speaks::Http2));
        rig.backend_limits = h2::Limits { streams: 0, ..h2::Limits::default() };
        let c = rig.client();
        let client = rig.ask(c, ASK, false);
        assert!(head_of(&rig, client).starts_with("HTTP/1.1 502 "), "{clients:?}");
        assert_eq!(records(&mut rig), [(502, Some(Cause::ConnectFailed))], "{clients:?}");
        assert!(rig.backend_conns.len() <= 20, "{clients:?}: {}", rig.backend_conns.len());
        nothing_left(&rig);
    }
}

// An `https://` backend is asked over HTTP/1.1 until it has announced something else.
#[test]
fn http1_is_what_all_take() {
    for clients in CLIENTS {
        for takes in [true, false] {
            let mut rig = https(clients, "h2");
            rig.backend_limits = if takes { h2::Limits::default() } else { silent() };
            // Nobody knows.
            rig.backend_alpn = Some("http/1.1");
            let c = rig.client();
            let (_, backend) = opened(&mut rig, c);
            assert_eq!(backend.1, 0, "{clients:?}");
            // A request shows what is spoken.
            rig.backend_alpn = Some("h2");
            let c = rig.client();
            rig.ask(c, GET, true);
            let asked_on = *rig.asked().iter().rfind(|far| **far != backend).expect("asked");
            assert_ne!(asked_on.1, 0, "{clients:?}: HTTP/2");
            rig.respond(asked_on, OK, b"ok");
            let made = rig.backend_conns.len();
            if !takes {
                rig.backend_alpn = Some("http/1.1");
            }
            let c = rig.client();
            let client = rig.ask(c, ASK, false);
            let all = rig.asked();
            let next = *all
                .iter()
                .find(|far| head_of(&rig, **far).contains("/chat") && **far != backend)
                .expect("asked");
            assert_eq!(
                (next.1 != 0, rig.backend_conns.len() - made),
                (takes, usize::from(!takes)),
                "{clients:?}"
            );
            let head = head_of(&rig, next);
            rig.respond_head(next, &switch(&head));
            rig.send_all(client, b"ping");
            assert_eq!(bytes_at(&rig, next), b"ping", "{clients:?}");
        }
    }
}

// It may take it back with the next connection: then it is HTTP/1.1 again, and no attempt was lost.
#[test]
fn what_was_announced_may_change() {
    for clients in CLIENTS {
        let mut rig = https(clients, "h2");
        let c = rig.client();
        rig.ask(c, GET, true);
        let backend = rig.asked()[0];
        assert_ne!(backend.1, 0);
        rig.respond(backend, OK, b"ok");
        rig.lose(backend.0);
        records(&mut rig);
        rig.proxy.observer_mut().attempts.clear();
        rig.backend_limits = silent();
        rig.connects_wait = true;
        let c = rig.client();
        let client = rig.ask(c, ASK, false);
        rig.decide_connects();
        rig.connects_wait = false;
        rig.backend_alpn = Some("http/1.1");
        rig.run();
        rig.decide_connects();
        let next = *rig.asked().last().expect("asked");
        assert_eq!(next.1, 0, "{clients:?}");
        let head = head_of(&rig, next);
        rig.respond_head(next, &switch(&head));
        rig.send_all(client, b"ping");
        assert_eq!(bytes_at(&rig, next), b"ping", "{clients:?}");
        rig.lose(next.0);
        assert_eq!(rig.proxy.observer_mut().attempts, [1], "{clients:?}");
    }
}

// The connection that was to carry streams turns out to speak HTTP/1.1: so does the WebSocket.
#[test]
fn a_choice_of_http1_is_taken() {
    for clients in CLIENTS {
        let mut rig = https(clients, "h2");
        let c = rig.client();
        rig.ask(c, GET, true);
        let backend = rig.asked()[0];
        rig.respond(backend, OK, b"ok");
        rig.lose(backend.0);
        rig.backend_alpn = Some("http/1.1");
        let c = rig.client();
        let (client, backend) = asked(&mut rig, c);
        assert_eq!(backend.1, 0, "{clients:?}");
        let head = head_of(&rig, backend);
        rig.respond_head(backend, &switch(&head));
        rig.send_all(client, b"ping");
        assert_eq!(bytes_at(&rig, backend), b"ping", "{clients:?}");
    }
}
