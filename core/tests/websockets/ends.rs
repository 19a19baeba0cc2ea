//! How tunnels end: by halves, at once, and with the connections and the process that carry them.

use std::time::Duration;

use ruststrom_core::Cause;
use ruststrom_core::h2::Reason;

use crate::two_wires::{Far, Rig, Speaks};
use crate::{
    GET, OK, PAIRS, asked, asked_early, breaks, bytes_at, ends, head_of, is_broken, is_ended, nothing_left,
    opened, records, rig, status_for, switch,
};

#[test]
fn each_direction_ends_by_itself() {
    for pair in PAIRS {
        for client_first in [true, false] {
            let mut rig = rig(pair);
            let c = rig.client();
            let (client, backend) = opened(&mut rig, c);
            let (first, second) = if client_first { (client, backend) } else { (backend, client) };
            rig.send_all(first, b"that is all");
            ends(&mut rig, first);
            assert_eq!(bytes_at(&rig, second), b"that is all", "{pair:?}");
            assert!(is_ended(&rig, second) && !is_ended(&rig, first), "{pair:?} {client_first}");
            // The other one goes on for long.
            for _ in 0..40 {
                rig.send_all(second, &[b'.'; 1000]);
            }
            assert_eq!(bytes_at(&rig, first).len(), 40_000, "{pair:?} {client_first}");
            assert_eq!(rig.proxy.counts().exchanges, 1);
            ends(&mut rig, second);
            assert!(is_ended(&rig, first), "{pair:?} {client_first}");
            assert_eq!(records(&mut rig), [(status_for(pair.0), None)]);
            nothing_left(&rig);
            goes_on(&mut rig, pair, client, backend);
        }
    }
}

/// A connection that has carried a tunnel on a stream carries requests.
fn goes_on(rig: &mut Rig, pair: (Speaks, Speaks), client: Far, backend: Far) {
    if pair.0 == Speaks::Http2 {
        assert_eq!(rig.http2(client.0).wire.open_streams(), 0, "{pair:?}");
    }
    if pair.1 == Speaks::Http2 {
        assert_eq!(rig.http2(backend.0).wire.open_streams(), 0, "{pair:?}");
    }
    let c = if pair.0 == Speaks::Http2 { client.0 } else { rig.client() };
    let next = rig.ask(c, GET, true);
    let asked = *rig.asked().last().expect("asked");
    assert_eq!(asked.0 == backend.0, pair.1 == Speaks::Http2, "{pair:?}");
    rig.respond(asked, OK, b"ok");
    assert_eq!(rig.message(next).body, b"ok", "{pair:?}");
}

#[test]
fn a_reset_passes() {
    for pair in PAIRS {
        for by_client in [true, false] {
            let mut rig = rig(pair);
            let c = rig.client();
            let (client, backend) = opened(&mut rig, c);
            rig.send_all(client, b"abc");
            let (breaker, other, cause) = if by_client {
                (client, backend, Cause::ClientClosed)
            } else {
                (backend, client, Cause::BackendReset)
            };
            breaks(&mut rig, breaker);
            assert!(is_broken(&mut rig, other), "{pair:?} {by_client}");
            assert_eq!(records(&mut rig), [(status_for(pair.0), Some(cause))], "{pair:?} {by_client}");
            nothing_left(&rig);
            if !by_client || pair.0 == Speaks::Http2 {
                let alive = pair.1 == Speaks::Http2 || by_client;
                if alive {
                    goes_on(&mut rig, pair, client, backend);
                }
            }
        }
    }
}

// A connection of streams takes every tunnel with it.
#[test]
fn a_connection_that_breaks_takes_its_tunnels_along() {
    for pair in PAIRS {
        for by_client in [true, false] {
            let mut rig = rig(pair);
            let c = rig.client();
            let (client, backend) = opened(&mut rig, c);
            let (breaker, other) = if by_client { (client, backend) } else { (backend, client) };
            rig.lose(breaker.0);
            assert!(is_broken(&mut rig, other), "{pair:?} {by_client}");
            let cause = if by_client { Cause::ClientClosed } else { Cause::BackendReset };
            assert_eq!(records(&mut rig), [(status_for(pair.0), Some(cause))], "{pair:?} {by_client}");
            nothing_left(&rig);
        }
    }
}

// A client of HTTP/2 that closes its connection has closed all of it.
#[test]
fn a_client_of_streams_that_leaves_is_gone() {
    for backends in [Speaks::Http1, Speaks::Http2] {
        let mut rig = rig((Speaks::Http2, backends));
        let c = rig.client();
        let (_, backend) = opened(&mut rig, c);
        rig.close(c);
        assert!(is_broken(&mut rig, backend), "{backends:?}");
        assert_eq!(records(&mut rig), [(200, Some(Cause::ClientClosed))]);
        nothing_left(&rig);
    }
}

#[test]
fn who_leaves_before_the_answer_is_gone() {
    for pair in PAIRS {
        let mut rig = rig(pair);
        let c = rig.client();
        let (client, backend) = asked_early(&mut rig, c, b"early", pair.0);
        breaks(&mut rig, client);
        assert_eq!(records(&mut rig), [(499, Some(Cause::ClientClosed))], "{pair:?}");
        match backend.1 {
            0 => assert!(rig.is_closed(backend.0), "{pair:?}"),
            _ => assert!(is_broken(&mut rig, backend), "{pair:?}"),
        }
        nothing_left(&rig);
    }
}

// All of it has come from the backend, which has nothing to hear either: that its connection ends is no
// loss.
#[test]
fn what_is_complete_outlives_its_backend() {
    for clients in [Speaks::Http1, Speaks::Http2] {
        let mut rig = rig((clients, Speaks::Http2));
        let c = rig.client();
        let (client, backend) = opened(&mut rig, c);
        rig.send_all(client, b"bye");
        ends(&mut rig, client);
        rig.slow_down(c);
        rig.send_all(backend, &[b'x'; 10_000]);
        ends(&mut rig, backend);
        rig.lose(backend.0);
        assert_eq!(rig.proxy.counts().exchanges, 1 - usize::from(clients == Speaks::Http2), "{clients:?}");
        while rig.take_once(c) {}
        assert_eq!(bytes_at(&rig, client).len(), 10_000, "{clients:?}");
        assert!(is_ended(&rig, client), "{clients:?}");
        assert_eq!(records(&mut rig), [(status_for(clients), None)]);
        nothing_left(&rig);
    }
}

// A backend that has ended its direction and then resets the stream has closed both, as HAProxy does it.
#[test]
fn a_backend_may_close_both_directions() {
    for clients in [Speaks::Http1, Speaks::Http2] {
        for (reason, clean) in
            [(Reason::NO_ERROR, true), (Reason::CANCEL, true), (Reason::INTERNAL_ERROR, false)]
        {
            for slow in [false, true] {
                let mut rig = rig((clients, Speaks::Http2));
                let c = rig.client();
                let (client, backend) = opened(&mut rig, c);
                rig.send_all(client, b"bye");
                if slow {
                    rig.slow_down(c);
                }
                rig.send_all(backend, &[b'x'; 10_000]);
                rig.end(backend, "");
                rig.http2(backend.0).wire.reset(backend.1, reason);
                rig.run();
                let what = format!("{clients:?} {reason} {slow}");
                if slow && clean {
                    // Nobody listens any more.
                    rig.send(client, &[b'?'; 20_000]);
                }
                if clean {
                    while slow && rig.take_once(c) {}
                    assert_eq!(bytes_at(&rig, client).len(), 10_000, "{what}");
                    assert!(is_ended(&rig, client) && !is_broken(&mut rig, client), "{what}");
                    assert_eq!(records(&mut rig), [(status_for(clients), None)], "{what}");
                } else {
                    while slow && rig.take_once(c) {}
                    assert!(is_broken(&mut rig, client), "{what}");
                    let cause = Some(Cause::BackendReset);
                    assert_eq!(records(&mut rig), [(status_for(clients), cause)], "{what}");
                }
                if clients == Speaks::Http2 {
                    assert_eq!(rig.http2(c).wire.open_streams(), 0, "{what}");
                }
                nothing_left(&rig);
            }
        }
    }
}

// A stop cuts no tunnel before its time.
#[test]
fn a_drain_leaves_tunnels_their_time() {
    for pair in PAIRS {
        for cut in [false, true] {
            let mut rig = rig(pair);
            let c = rig.client();
            let (client, backend) = opened(&mut rig, c);
            let until = rig.now + Duration::from_secs(30);
            rig.proxy.drain(until, rig.now);
            rig.run();
            if pair.0 == Speaks::Http2 {
                assert!(rig.is_told_to_leave(c));
            }
            rig.advance(Duration::from_secs(20));
            rig.send_all(client, b"ping");
            rig.send_all(backend, b"pong");
            assert_eq!(
                (bytes_at(&rig, backend), bytes_at(&rig, client)),
                (b"ping".to_vec(), b"pong".to_vec())
            );
            assert!(!rig.drained);
            if cut {
                rig.advance(Duration::from_secs(10));
                assert_eq!(records(&mut rig), [(status_for(pair.0), Some(Cause::Drained))], "{pair:?}");
            } else {
                ends(&mut rig, client);
                ends(&mut rig, backend);
                assert_eq!(records(&mut rig), [(status_for(pair.0), None)], "{pair:?}");
                rig.advance(Duration::from_secs(3));
            }
            assert!(rig.drained, "{pair:?} {cut}");
            nothing_left(&rig);
        }
    }
}

// A backend that says that it leaves lets the streams that it has come to their end.
#[test]
fn a_backend_that_leaves_keeps_its_tunnels() {
    for clients in [Speaks::Http1, Speaks::Http2] {
        let mut rig = rig((clients, Speaks::Http2));
        let c = rig.client();
        let (client, backend) = opened(&mut rig, c);
        rig.http2(backend.0).wire.drain();
        rig.run();
        rig.send_all(client, b"ping");
        rig.send_all(backend, b"pong");
        assert_eq!((bytes_at(&rig, backend), bytes_at(&rig, client)), (b"ping".to_vec(), b"pong".to_vec()));
        let other = rig.client();
        let (_, next) = asked(&mut rig, other);
        assert_ne!(next.0, backend.0, "new ones go on another connection");
        ends(&mut rig, backend);
        ends(&mut rig, client);
        assert_eq!(records(&mut rig), [(status_for(clients), None)]);
        assert!(rig.is_closed(backend.0));
    }
}

// It may be asked for again where nobody has looked at it.
#[test]
fn a_refused_stream_is_asked_for_again() {
    for clients in [Speaks::Http1, Speaks::Http2] {
        let mut rig = rig((clients, Speaks::Http2));
        let c = rig.client();
        let (client, backend) = asked_early(&mut rig, c, b"early", clients);
        rig.http2(backend.0).wire.reset(backend.1, Reason::REFUSED_STREAM);
        rig.run();
        let again = *rig.asked().last().expect("asked");
        assert_ne!(again, backend);
        let head = head_of(&rig, again);
        rig.respond_head(again, &switch(&head));
        assert_eq!(bytes_at(&rig, again), b"early", "{clients:?}");
        rig.send_all(again, b"hello");
        assert_eq!(bytes_at(&rig, client), b"hello", "{clients:?}");
    }
}
