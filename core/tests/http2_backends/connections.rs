//! Which connections there are: shared, as few as will do, and kept as long as they are of use.

use std::time::Duration;

use ruststrom_core::h2::{Event, Limits, Reason};
use ruststrom_core::{Cause, ConnId, http::Violation};

use crate::two_wires::{self, Far, Rig, Speaks};
use crate::{OK, TWO, get, nothing_left, post, records, rig, rig_of};

#[test]
fn many_clients_share_one_connection() {
    for clients in [Speaks::Http1, Speaks::Http2] {
        let mut rig = rig_of("", "", (clients, Speaks::Http2));
        rig.connects_wait = true;
        let asked: Vec<_> = (0..50)
            .map(|n| {
                let c = rig.client();
                rig.ask(c, &get(&format!("/{n}")), true)
            })
            .collect();
        rig.decide_connects();
        assert_eq!(rig.backend_conns.len(), 1, "one connection is made for all who wait");
        assert_eq!(rig.proxy.observer_mut().joined, 49);
        let legs = rig.asked();
        assert_eq!(legs.len(), 50);
        for leg in legs.iter().rev() {
            let head = rig.message(*leg).head;
            let path = head.split(' ').nth(1).expect("a path").to_owned();
            rig.respond(
                *leg,
                &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", path.len()),
                path.as_bytes(),
            );
        }
        for (n, far) in asked.iter().enumerate() {
            assert_eq!(rig.message(*far).body, format!("/{n}").as_bytes(), "{clients:?}");
        }
        nothing_left(&rig);
        let counts = rig.proxy.counts();
        assert_eq!((counts.backends_busy, counts.backends_idle), (0, 1));
    }
}

#[test]
fn a_further_connection_is_opened_beyond_what_the_backend_takes() {
    let mut rig = rig("");
    rig.backend_limits = Limits { streams: 3, ..Limits::default() };
    let c = rig.client();
    let first = rig.ask(c, &get("/0"), true);
    let all: Vec<_> = (1..8).map(|n| rig.ask(c, &get(&format!("/{n}")), true)).collect();
    assert_eq!(rig.backend_conns.len(), 3, "three, three and two");
    let legs = rig.asked();
    let of = |b| legs.iter().filter(|leg| leg.0 == b).count();
    assert_eq!(rig.backend_conns.iter().map(|b| of(*b)).collect::<Vec<_>>(), [3, 3, 2]);
    for leg in &legs {
        rig.respond(*leg, OK, b"ok");
    }
    assert!(all.iter().chain([&first]).all(|far| rig.message(*far).body == b"ok"));
    assert_eq!(records(&mut rig), [(200, None); 8]);
    rig.ask(c, &get("/again"), true);
    assert_eq!(rig.backend_conns.len(), 3, "those that are there are used again");
}

// Before its SETTINGS have come nobody knows how many streams a backend takes.
#[test]
fn streams_that_are_refused_go_elsewhere_whatever_the_method() {
    let mut rig = rig("retries = 0");
    rig.backend_limits = Limits { streams: 4, ..Limits::default() };
    rig.connects_wait = true;
    let c = rig.client();
    let all: Vec<_> = (0..10)
        .map(|n| {
            let far = rig.ask(c, &post(&format!("/{n}"), 3), false);
            rig.send_all(far, b"abc");
            rig.end(far, "");
            far
        })
        .collect();
    rig.decide_connects();
    for _ in 0..4 {
        for leg in rig.asked() {
            if rig.message(leg).ended && !rig.message(leg).reset {
                assert_eq!(rig.message(leg).body, b"abc");
                rig.respond(leg, OK, b"ok");
                rig.forget(leg);
            }
        }
    }
    for far in &all {
        assert_eq!(rig.message(*far).body, b"ok");
    }
    assert_eq!(records(&mut rig), [(200, None); 10]);
    assert!(rig.backend_conns.len() <= 4, "{} connections", rig.backend_conns.len());
    nothing_left(&rig);
}

// What a backend takes is remembered: a crowd is refused once, and not again and again.
#[test]
fn a_crowd_is_refused_once() {
    let mut rig = rig("retries = 0");
    rig.backend_limits = Limits { streams: 5, ..Limits::default() };
    rig.connects_wait = true;
    let clients: Vec<_> = (0..3).map(|_| rig.client()).collect();
    let all: Vec<_> = (0..250).map(|n| rig.ask(clients[n % 3], &get(&format!("/{n}")), true)).collect();
    rig.decide_connects();
    let mut answered = 0;
    while answered < 250 {
        let legs: Vec<_> = rig.asked().into_iter().filter(|leg| !rig.message(*leg).reset).collect();
        assert!(!legs.is_empty(), "{answered} of 250");
        for leg in legs {
            rig.respond(leg, OK, b"ok");
            rig.forget(leg);
            answered += 1;
        }
    }
    assert!(all.iter().all(|far| rig.message(*far).body == b"ok"));
    assert!(rig.proxy.observer_mut().attempts.iter().all(|n| *n <= 2));
    assert_eq!(records(&mut rig), [(200, None); 250]);
    nothing_left(&rig);
}

#[test]
fn an_idle_connection_is_closed_when_its_time_is_over() {
    let mut rig = rig("client = { pool_idle_timeout = 20 }");
    let c = rig.client();
    let _far = rig.ask(c, &get("/"), true);
    let leg = rig.asked()[0];
    rig.advance(Duration::from_secs(15));
    rig.respond(leg, OK, b"ok");
    rig.advance(Duration::from_secs(19));
    assert!(!rig.is_closed(leg.0));
    let _far = rig.ask(c, &get("/2"), true);
    let second = *rig.asked().last().expect("asked");
    assert_eq!(second.0, leg.0);
    rig.advance(Duration::from_secs(19));
    rig.respond(second, OK, b"ok");
    rig.advance(Duration::from_millis(19_900));
    assert!(!rig.is_closed(leg.0), "its time began anew");
    rig.advance(Duration::from_millis(200));
    assert!(rig.is_closed(leg.0));
    assert_eq!(rig.proxy.counts().backends_idle, 0);
}

#[test]
fn a_silent_connection_is_asked_and_left() {
    for answers in [true, false] {
        let pool = format!("{TWO}\n[backend_pools.timeouts]\nbackend_head = 300");
        let mut rig = rig(&pool);
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let other = rig.ask(c, &post("/", 0), true);
        let leg = rig.asked()[0];
        rig.http2(leg.0).deaf = !answers;
        rig.advance(Duration::from_millis(29_900));
        let before = rig.http2(leg.0).wire.transmit().len();
        rig.advance(Duration::from_millis(200));
        if answers {
            // The answer has come, and the silence begins anew.
            rig.advance(Duration::from_secs(29));
            rig.respond(leg, OK, b"ok");
            assert_eq!(rig.message(far).body, b"ok");
            assert!(!rig.is_closed(leg.0));
            continue;
        }
        assert_eq!(rig.http2(leg.0).wire.transmit().len() - before, 17, "an answer to a PING waits");
        rig.advance(Duration::from_millis(9_700));
        assert!(!rig.is_closed(leg.0));
        rig.advance(Duration::from_millis(500));
        assert!(rig.is_closed(leg.0), "nobody has answered");
        // What may be repeated is, on another backend; what may not gets an error.
        assert_eq!(records(&mut rig), [(504, Some(Cause::BackendLost))]);
        assert!(rig.message(other).head.starts_with("HTTP/1.1 504 "));
        let again = *rig.asked().last().expect("asked again");
        assert_ne!(again.0, leg.0);
        rig.respond(again, OK, b"ok");
        assert_eq!(rig.message(far).body, b"ok");
        nothing_left(&rig);
    }
}

// After how long, says the configuration that held when the connection was made.
#[test]
fn when_a_silent_connection_is_asked_can_be_set() {
    let pool = "retries = 0\n[backend_pools.timeouts]\nbackend_head = 0";
    // What is set, when it is asked, and when it is given up, in ms.
    let table = [
        ("", 30_000, 40_000),
        ("[http2]\nbackend_keepalive = 4", 4_000, 8_000),
        ("[http2]\nbackend_keepalive = 100", 100_000, 110_000),
        ("[http2]\nkeepalive = 5", 30_000, 40_000),
    ];
    for (top, asked, lost) in table {
        let mut rig = rig_of(top, pool, (Speaks::Http1, Speaks::Http2));
        let c = rig.client();
        rig.ask(c, &get("/"), true);
        rig.reload(two_wires::config("[http2]\nbackend_keepalive = 1", pool));
        let leg = rig.asked()[0];
        rig.http2(leg.0).deaf = true;
        let said = |rig: &mut Rig| rig.http2(leg.0).wire.transmit().len();
        let before = said(&mut rig);
        rig.advance(Duration::from_millis(asked - 100));
        assert_eq!(said(&mut rig), before, "{top}");
        rig.advance(Duration::from_millis(200));
        assert_eq!(said(&mut rig) - before, 17, "{top}: an answer to a PING waits");
        rig.advance(Duration::from_millis(lost - asked - 200));
        assert!(!rig.is_closed(leg.0), "{top}");
        rig.advance(Duration::from_millis(300));
        assert!(rig.is_closed(leg.0), "{top}");
        assert_eq!(records(&mut rig), [(504, Some(Cause::BackendLost))]);
        nothing_left(&rig);
    }
    let mut rig = rig_of("[http2]\nbackend_keepalive = 0", pool, (Speaks::Http1, Speaks::Http2));
    let c = rig.client();
    rig.ask(c, &get("/"), true);
    let leg = rig.asked()[0];
    rig.http2(leg.0).deaf = true;
    rig.advance(Duration::from_secs(100_000));
    assert!(!rig.is_closed(leg.0) && rig.proxy.counts().exchanges == 1, "nobody is asked");
}

/// A client's request, and the connection to a backend that takes everything and says nothing.
fn deaf_backend() -> (Rig, Far, ConnId) {
    let mut rig = rig("retries = 0");
    rig.connects_wait = true;
    let c = rig.client();
    let far = rig.ask(c, &get("/"), true);
    rig.decide_connects_deaf();
    let b = rig.backend_conns[0];
    (rig, far, b)
}

#[test]
fn settings_have_to_be_acknowledged() {
    let (mut rig, far, b) = deaf_backend();
    rig.advance(Duration::from_millis(9_900));
    assert!(!rig.is_closed(b));
    rig.advance(Duration::from_millis(200));
    assert!(rig.is_closed(b));
    assert!(rig.message(far).head.starts_with("HTTP/1.1 504 "), "{:?}", rig.message(far));
    assert_eq!(records(&mut rig), [(504, Some(Cause::BackendLost))]);
    nothing_left(&rig);
}

#[test]
fn a_broken_connection_breaks_no_other() {
    let mut rig = rig("retries = 0");
    rig.backend_limits = Limits { streams: 1, ..Limits::default() };
    let c = rig.client();
    let one = rig.ask(c, &get("/1"), true);
    let two = rig.ask(c, &get("/2"), true);
    let legs = rig.asked();
    assert_ne!(legs[0].0, legs[1].0);
    // A frame of 17 000 bytes, which we do not take.
    rig.send_bytes(legs[0].0, &[0, 0x42, 0x68, 0, 0, 0, 0, 0, 1]);
    let cause = Cause::BadResponse(Violation::Http2Connection);
    assert_eq!(records(&mut rig), [(502, Some(cause))]);
    assert!(rig.message(one).head.contains("502 Bad Gateway"));
    assert!(rig.is_closed(legs[0].0) && !rig.is_closed(legs[1].0));
    let events = &rig.http2(legs[0].0).events;
    assert!(events.contains(&Event::GoingAway), "it is told why: {events:?}");
    rig.respond(legs[1], OK, b"ok");
    assert_eq!(rig.message(two).body, b"ok");
    let notes = rig.proxy.observer_mut().notes.join("\n");
    assert!(notes.contains("127.0.0.1:81") && notes.contains("FRAME_SIZE_ERROR"), "{notes}");
    nothing_left(&rig);
}

#[test]
fn whoever_speaks_http1_is_named() {
    let (mut rig, far, b) = deaf_backend();
    rig.send_bytes(b, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    assert_eq!(records(&mut rig), [(502, Some(Cause::BadResponse(Violation::NotHttp2)))]);
    let got = rig.message(far);
    assert!(String::from_utf8_lossy(&got.body).contains("not_http2"), "{got:?}");
    assert!(rig.is_closed(b));
    let notes = rig.proxy.observer_mut().notes.join("\n");
    assert!(notes.contains("127.0.0.1:81: it answers in HTTP/1, where HTTP/2 is to be spoken"), "{notes}");
}

#[test]
fn a_client_that_leaves_cancels_its_stream_alone() {
    let mut rig = rig("");
    let c = rig.client();
    let one = rig.ask(c, &get("/1"), true);
    let two = rig.ask(c, &get("/2"), true);
    let legs = rig.asked();
    rig.reset(one);
    let events = &rig.http2(legs[0].0).events;
    let cancelled = Event::Reset { stream: legs[0].1, reason: Reason::CANCEL, unprocessed: false };
    assert!(events.contains(&cancelled), "{events:?}");
    rig.respond(legs[1], OK, b"ok");
    assert_eq!(rig.message(two).body, b"ok");
    assert_eq!(records(&mut rig), [(499, Some(Cause::ClientClosed)), (200, None)]);
    nothing_left(&rig);
}

#[test]
fn a_connection_that_nobody_waits_for_has_no_more_time_than_others() {
    for joins in [false, true] {
        let mut rig = rig("[backend_pools.timeouts]\nconnect = \"300ms\"");
        rig.connects_wait = true;
        let c = rig.client();
        let far = rig.ask(c, &get("/1"), true);
        rig.reset(far);
        rig.advance(Duration::from_millis(250));
        assert_eq!(rig.proxy.counts().backends_idle, 1, "who comes next finds it under way");
        if joins {
            rig.ask(c, &get("/2"), true);
        }
        rig.advance(Duration::from_millis(100));
        let counts = rig.proxy.counts();
        assert_eq!(counts.exchanges_on_backends, usize::from(joins));
        assert_eq!(counts.backends_busy + counts.backends_idle, usize::from(joins), "its time is over");
        rig.advance(Duration::from_millis(250));
        assert_eq!(rig.proxy.counts().exchanges_on_backends, 0, "and that of whoever has joined");
    }
}

// One connection that does not come about is one failure, however many wait for it.
#[test]
fn all_who_wait_for_a_connection_are_told_that_there_is_none() {
    let mut rig = rig(&format!("{TWO}\nretries = 1"));
    rig.connects_wait = true;
    rig.refused = 1;
    let c = rig.client();
    let all: Vec<_> = (0..20).map(|n| rig.ask(c, &post(&format!("/{n}"), 0), true)).collect();
    rig.decide_connects();
    for leg in rig.asked() {
        rig.respond(leg, OK, b"ok");
    }
    assert!(all.iter().all(|far| rig.message(*far).body == b"ok"), "the other backend serves them");
    assert_eq!(rig.backend_conns.len(), 1);
    nothing_left(&rig);
}

// A dead connection is found out by the first who waits for it in vain, and not by all who come after.
#[test]
fn a_connection_that_has_said_nothing_gets_no_further_requests() {
    for dead in [true, false] {
        let mut rig = rig("retries = 0\n[backend_pools.timeouts]\nbackend_head = 7");
        let c = rig.client();
        let slow = rig.ask(c, &get("/slow"), true);
        let first = rig.asked()[0];
        rig.http2(first.0).deaf = dead;
        rig.advance(Duration::from_secs(3));
        if !dead {
            // It answers others, just not this one.
            let _other = rig.ask(c, &get("/other"), true);
            let leg = *rig.asked().last().expect("asked");
            rig.respond(leg, OK, b"ok");
        }
        rig.advance(Duration::from_millis(4_200));
        assert!(rig.message(slow).head.starts_with("HTTP/1.1 504 "), "{:?}", rig.message(slow));
        let far = rig.ask(c, &get("/next"), true);
        let leg = *rig.asked().last().expect("asked");
        assert_eq!(leg.0 != first.0, dead, "the same connection only if something has come on it");
        rig.respond(leg, OK, b"ok");
        assert_eq!(rig.message(far).body, b"ok");
        rig.advance(Duration::from_secs(3));
        assert_eq!(rig.is_closed(first.0), dead);
        nothing_left(&rig);
    }
}
