//! Bytes of tunnels, both ways.

use std::time::Duration;

use ruststrom_core::Cause;

use crate::two_wires::Speaks;
use crate::{
    GET, OK, PAIRS, asked, asked_early, bytes_at, ends, head_of, is_broken, is_ended, nothing_left, opened,
    pattern, records, rig, rig_of, status_for, switch,
};

#[test]
fn bytes_pass_both_ways() {
    for pair in PAIRS {
        for most in [usize::MAX, 1000, 7] {
            let mut rig = rig(pair);
            rig.most = most;
            let c = rig.client();
            let (client, backend) = opened(&mut rig, c);
            let (up, down) = (pattern(50_000, 251), pattern(60_000, 249));
            for (up, down) in up.chunks(9000).zip(down.chunks(10_800)) {
                rig.send_all(client, up);
                rig.send_all(backend, down);
            }
            assert!(bytes_at(&rig, backend) == up, "{pair:?} by {most}");
            assert!(bytes_at(&rig, client) == down, "{pair:?} by {most}");
            assert_eq!(rig.proxy.counts().pages, 0, "a quiet tunnel holds no page");
            ends(&mut rig, client);
            assert!(is_ended(&rig, backend) && !is_ended(&rig, client), "{pair:?}");
            ends(&mut rig, backend);
            assert!(is_ended(&rig, client), "{pair:?}");
            assert_eq!(records(&mut rig), [(status_for(pair.0), None)]);
            assert_eq!(rig.proxy.observer_mut().bytes, [(50_000, 60_000)], "{pair:?} by {most}");
            nothing_left(&rig);
        }
    }
}

// What a client sends before it has its answer waits, and so does the end of it.
#[test]
fn early_bytes_wait() {
    for pair in PAIRS {
        for end in [false, true] {
            let mut rig = rig(pair);
            let c = rig.client();
            let (client, backend) = asked_early(&mut rig, c, b"early", pair.0);
            let head = head_of(&rig, backend);
            if end && client.1 != 0 {
                ends(&mut rig, client);
            }
            assert_eq!(bytes_at(&rig, backend), b"", "{pair:?}");
            assert!(!is_ended(&rig, backend), "{pair:?}");
            rig.respond_at_once_open(backend, &switch(&head), b"as early");
            assert_eq!(bytes_at(&rig, backend), b"early", "{pair:?}");
            assert_eq!(bytes_at(&rig, client), b"as early", "{pair:?}");
            if !end || client.1 == 0 {
                rig.send_all(client, b" and late");
                assert_eq!(bytes_at(&rig, backend), b"early and late", "{pair:?}");
                ends(&mut rig, client);
            }
            assert!(is_ended(&rig, backend), "{pair:?}");
            rig.send_all(backend, b"!");
            ends(&mut rig, backend);
            assert_eq!(bytes_at(&rig, client), b"as early!", "{pair:?}");
            assert!(is_ended(&rig, client), "{pair:?}");
            assert_eq!(records(&mut rig), [(status_for(pair.0), None)]);
            nothing_left(&rig);
        }
    }
}

// A client of HTTP/2 may send its window before it has heard anything; more is not taken.
#[test]
fn early_bytes_are_few() {
    for backends in [Speaks::Http1, Speaks::Http2] {
        let mut rig = rig((Speaks::Http2, backends));
        let c = rig.client();
        let (client, backend) = asked(&mut rig, c);
        let head = head_of(&rig, backend);
        let up = pattern(200_000, 251);
        let mut sent = 0;
        loop {
            match rig.send(client, &up[sent..]) {
                0 => break,
                n => sent += n,
            }
        }
        assert_eq!(sent, 65_536, "the window");
        assert_eq!(bytes_at(&rig, backend), b"");
        rig.respond_head(backend, &switch(&head));
        rig.send_all(client, &up[sent..]);
        assert!(bytes_at(&rig, backend) == up);
    }
}

#[test]
fn a_stalled_tunnel_holds_up_no_other() {
    for pair in PAIRS {
        for by_client in [true, false] {
            let mut rig = rig(pair);
            let (c, other) = (rig.client(), rig.client());
            let (client, backend) = opened(&mut rig, c);
            let (stalls, sends) = if by_client { (client, backend) } else { (backend, client) };
            // It takes nothing more.
            match stalls.1 {
                0 => rig.slow_down(stalls.0),
                _ => rig.hold(stalls),
            }
            let bytes = pattern(1 << 20, 251);
            let mut sent = 0;
            loop {
                match rig.send(sends, &bytes[sent..]) {
                    0 => break,
                    n => sent += n,
                }
            }
            assert!(sent < 300_000, "{pair:?} {by_client}: {sent} bytes are taken");
            // Others are served meanwhile, on the same connections where those are shared.
            let same = if pair.0 == Speaks::Http2 { c } else { other };
            for _ in 0..3 {
                let next = rig.ask(same, GET, true);
                let asked = *rig.asked().iter().rfind(|far| **far != backend).expect("asked");
                let answer = pattern(100_000, 241);
                rig.respond(asked, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", &answer);
                assert!(rig.message(next).body == answer, "{pair:?} {by_client}");
                rig.forget(next);
                rig.forget(asked);
            }
            let shared = pair.1 == Speaks::Http2;
            assert_eq!(rig.backend_conns.len(), if shared { 1 } else { 2 }, "{pair:?}");
            // The other direction of it goes on, too.
            rig.send_all(stalls, b"I am here");
            assert!(bytes_at(&rig, sends).ends_with(b"I am here"), "{pair:?} {by_client}");
            // It wakes up.
            match stalls.1 {
                0 => while rig.take_once(stalls.0) {},
                stream => rig.unhold((stalls.0, stream)),
            }
            while sent < bytes.len() {
                let n = rig.send(sends, &bytes[sent..]);
                sent += n;
                let took = stalls.1 == 0 && rig.take_once(stalls.0);
                assert!(n > 0 || took, "{pair:?} {by_client}: stuck at {sent}");
            }
            if stalls.1 == 0 {
                while rig.take_once(stalls.0) {}
            }
            assert!(bytes_at(&rig, stalls).ends_with(&bytes), "{pair:?} {by_client}");
        }
    }
}

#[test]
fn a_quiet_tunnel_ends_in_time() {
    for pair in PAIRS {
        let mut rig = rig_of("[timeouts]\ntunnel = 20\nstall = 5\nbackend_head = 5\nidle = 5", "", pair);
        let c = rig.client();
        let (client, backend) = opened(&mut rig, c);
        for _ in 0..10 {
            rig.advance(Duration::from_secs(15));
            rig.send_all(client, b"ping");
            rig.advance(Duration::from_secs(15));
            rig.send_all(backend, b"pong");
        }
        rig.advance(Duration::from_secs(19));
        assert_eq!(rig.proxy.counts().exchanges, 1, "{pair:?}");
        rig.advance(Duration::from_secs(2));
        assert_eq!(records(&mut rig), [(status_for(pair.0), Some(Cause::TunnelTimeout))], "{pair:?}");
        assert!(is_broken(&mut rig, client) && is_broken(&mut rig, backend), "{pair:?}");
        nothing_left(&rig);
    }
}

// Bytes that have waited for credit move when it comes, as others do when they come.
#[test]
fn credit_keeps_a_tunnel_alive() {
    let top = "[timeouts]\ntunnel = 20\nstall = 5\n[http2]\ninitial_window = 16384";
    for pair in PAIRS {
        for by_client in [true, false] {
            let mut rig = rig_of(top, "", pair);
            let c = rig.client();
            let (client, backend) = opened(&mut rig, c);
            let (stalls, sends) = if by_client { (client, backend) } else { (backend, client) };
            if stalls.1 == 0 {
                continue;
            }
            rig.hold(stalls);
            rig.send_what_is_taken(sends, &pattern(1 << 20, 251));
            let before = bytes_at(&rig, stalls).len();
            rig.advance(Duration::from_secs(15));
            rig.unhold(stalls);
            rig.hold(stalls);
            assert!(bytes_at(&rig, stalls).len() > before, "{pair:?} {by_client}");
            rig.advance(Duration::from_secs(15));
            assert_eq!(rig.proxy.counts().exchanges, 1, "{pair:?} {by_client}");
            rig.advance(Duration::from_secs(6));
            let cause = Some(Cause::TunnelTimeout);
            assert_eq!(records(&mut rig), [(status_for(pair.0), cause)], "{pair:?} {by_client}");
            nothing_left(&rig);
        }
    }
}

// A tunnel is over when the last that has waited for credit has gone, whoever has ended first.
#[test]
fn a_tunnel_ends_with_what_has_waited_for_credit() {
    for pair in PAIRS {
        for by_client in [true, false] {
            let mut rig = rig(pair);
            let c = rig.client();
            let (client, backend) = opened(&mut rig, c);
            let (stalls, sends) = if by_client { (client, backend) } else { (backend, client) };
            if stalls.1 == 0 {
                continue;
            }
            rig.hold(stalls);
            let bytes = pattern(100_000, 251);
            let sent = rig.send_what_is_taken(sends, &bytes);
            ends(&mut rig, stalls);
            ends(&mut rig, sends);
            assert_eq!(rig.proxy.counts().exchanges, 1, "{pair:?} {by_client}");
            while rig.proxy.counts().exchanges > 0 {
                let before = bytes_at(&rig, stalls).len();
                rig.unhold(stalls);
                rig.hold(stalls);
                let over = bytes_at(&rig, stalls).len() == before;
                assert!(!over || rig.proxy.counts().exchanges == 0, "{pair:?} {by_client}: it has no end");
            }
            assert_eq!(bytes_at(&rig, stalls), bytes[..sent], "{pair:?} {by_client}");
            assert_eq!(records(&mut rig), [(status_for(pair.0), None)], "{pair:?} {by_client}");
            nothing_left(&rig);
        }
    }
}

// What limits content is not for tunnels.
#[test]
fn limits_of_content_are_not_for_tunnels() {
    for pair in PAIRS {
        let mut rig = rig_of("", "[backend_pools.middlewares.MaxBodySize]\nlimit = 10", pair);
        let c = rig.client();
        let (client, backend) = asked_early(&mut rig, c, &[b'x'; 100], pair.0);
        let head = head_of(&rig, backend);
        rig.respond_head(backend, &switch(&head));
        rig.send_all(client, &[b'y'; 100]);
        assert_eq!(bytes_at(&rig, backend).len(), 200, "{pair:?}");
    }
}

// Many of one client, each with its own bytes.
#[test]
fn many_at_once() {
    for pair in PAIRS {
        let mut rig = rig(pair);
        let one = rig.client();
        let tunnels: Vec<_> = (0..20)
            .map(|_| {
                let c = if pair.0 == Speaks::Http2 { one } else { rig.client() };
                opened(&mut rig, c)
            })
            .collect();
        for round in 0..3u8 {
            for (n, (client, backend)) in (0u8..).zip(&tunnels) {
                rig.send_all(*client, &[n, round]);
                rig.send_all(*backend, &[round, n]);
            }
        }
        for (n, (client, backend)) in (0u8..).zip(&tunnels) {
            assert_eq!(bytes_at(&rig, *backend), [n, 0, n, 1, n, 2], "{pair:?}");
            assert_eq!(bytes_at(&rig, *client), [0, n, 1, n, 2, n], "{pair:?}");
        }
        let next = if pair.0 == Speaks::Http2 { one } else { rig.client() };
        let next = rig.ask(next, GET, true);
        let backend = *rig.asked().iter().rfind(|far| tunnels.iter().all(|(_, b)| b != *far)).expect("asked");
        rig.respond(backend, OK, b"ok");
        assert_eq!(rig.message(next).body, b"ok");
    }
}
