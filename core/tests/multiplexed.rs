//! Many exchanges over one connection: what ends, stalls or waits on one stream concerns no other. Played
//! over a toy protocol, so that it holds for any wire of many streams.

mod toy_wire;
mod two_wires;

use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::{Cause, Shared};
use two_wires::{PAIRS, Rig, Speaks, config};

const BOTH: (Speaks, Speaks) = (Speaks::Toy, Speaks::Toy);

fn rig(pool: &str, pair: (Speaks, Speaks)) -> Rig {
    Rig::new(config("", pool), Arc::new(Shared::new("lb", 1)), pair)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

fn ok(len: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n")
}

fn nothing_left(rig: &mut Rig) {
    let counts = rig.proxy.counts();
    assert_eq!((counts.exchanges, counts.pages, counts.in_flight, counts.lookups), (0, 0, 0, 0));
}

#[test]
fn a_request_passes_between_any_two_wires() {
    for pair in PAIRS {
        for most in [usize::MAX, 1000, 7] {
            let mut rig = rig("", pair);
            rig.most = most;
            let c = rig.client();
            let body: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
            let head =
                format!("PUT /up?x=1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len());
            let client = rig.ask(c, &head, false);
            rig.send_all(client, &body);
            rig.end(client, "");
            let backend = rig.asked()[0];
            let got = rig.message(backend);
            assert!(
                got.head.starts_with("PUT /up?x=1 HTTP/1.1\r\nHost: a.test\r\n"),
                "{pair:?}: {}",
                got.head
            );
            assert!(got.ended && got.body == body, "{pair:?} by {most}: {} bytes", got.body.len());
            let answer: Vec<u8> = (0..60_000u32).map(|i| (i % 249) as u8).collect();
            rig.respond(backend, &ok(answer.len()), &answer);
            let got = rig.message(client);
            assert!(got.head.starts_with("HTTP/1.1 200 OK\r\n") && got.ended, "{pair:?}: {got:?}");
            assert!(got.body == answer, "{pair:?} by {most}: {} bytes", got.body.len());
            assert_eq!(rig.proxy.observer_mut().records, [(200, None)]);
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn responses_interleave_and_trailers_pass() {
    let mut rig = rig("", BOTH);
    let c = rig.client();
    let (one, two) = (rig.ask(c, &get("/1"), true), rig.ask(c, &get("/2"), true));
    let asked = rig.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].0, asked[1].0, "one connection carries both");
    let head = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\n\r\n";
    rig.respond_head(asked[1], head);
    rig.respond_head(asked[0], head);
    for part in 0..4u8 {
        rig.send(asked[0], &[b'a' + part; 1000]);
        rig.send(asked[1], &[b'A' + part; 1000]);
    }
    rig.end(asked[1], "X-Sum: 2\r\n\r\n");
    assert!(rig.message(two).ended && !rig.message(one).ended, "each ends by itself");
    rig.end(asked[0], "X-Sum: 1\r\n\r\n");
    for (far, first, sum) in [(one, b'a', "X-Sum: 1"), (two, b'A', "X-Sum: 2")] {
        let got = rig.message(far);
        let expected: Vec<u8> = (0..4u8).flat_map(|part| [first + part; 1000]).collect();
        assert!(got.ended && got.body == expected && got.trailers.starts_with(sum), "{got:?}");
    }
    nothing_left(&mut rig);
}

#[test]
fn a_reset_stream_ends_alone() {
    // By the client, and by the backend in the middle of its response.
    for by_client in [true, false] {
        let mut rig = rig("retries = 0", BOTH);
        let c = rig.client();
        let (one, two) = (rig.ask(c, &get("/1"), true), rig.ask(c, &get("/2"), true));
        let asked = rig.asked();
        for far in &asked {
            rig.respond_head(*far, &ok(4));
            rig.send(*far, b"ab");
        }
        rig.reset(if by_client { one } else { asked[0] });
        assert!(rig.message(if by_client { asked[0] } else { one }).reset, "the other side hears of it");
        rig.send(asked[1], b"cd");
        rig.end(asked[1], "");
        let got = rig.message(two);
        assert!(got.ended && got.body == b"abcd" && !got.reset, "{got:?}");
        let cause = if by_client { Cause::ClientGone } else { Cause::ResponseTruncated };
        assert_eq!(rig.proxy.observer_mut().records, [(200, Some(cause)), (200, None)]);
        nothing_left(&mut rig);
        let three = rig.ask(c, &get("/3"), true);
        let again = *rig.asked().last().expect("asked");
        rig.respond(again, &ok(1), b"x");
        assert_eq!(rig.message(three).body, b"x", "the connections go on");
    }
}

#[test]
fn a_stalled_stream_holds_up_no_other() {
    let mut rig = rig("", BOTH);
    let c = rig.client();
    let (one, two) = (rig.ask(c, &get("/1"), true), rig.ask(c, &get("/2"), true));
    let asked = rig.asked();
    rig.hold(one);
    rig.respond_head(asked[0], "HTTP/1.1 200 OK\r\n\r\n");
    let mut taken = 0;
    for _ in 0..200 {
        taken += rig.send(asked[0], &[b'x'; 1000]);
    }
    assert!(taken < 150_000, "what a client does not take is not read without end: {taken}");
    rig.respond(asked[1], &ok(100_000), &vec![b'y'; 100_000]);
    let got = rig.message(two);
    assert!(got.ended && got.body.len() == 100_000, "{} bytes", got.body.len());
    assert!(!rig.message(one).ended);
    // Whoever takes nothing for too long is cut, and only he.
    for _ in 0..4 {
        rig.advance(Duration::from_secs(31));
    }
    assert!(rig.message(one).reset && rig.message(asked[0]).reset);
    assert_eq!(rig.proxy.observer_mut().records, [(200, None), (200, Some(Cause::ClientStalled))]);
    nothing_left(&mut rig);
}

#[test]
fn two_wait_in_the_queue_with_deadlines_of_their_own() {
    let mut config = config("", "[backend_pools.timeouts]\nqueue = 5");
    config.pools[0].backends[0].max_connections = Some(1);
    let mut rig = Rig::new(config, Arc::new(Shared::new("lb", 1)), BOTH);
    let c = rig.client();
    let first = rig.ask(c, &get("/1"), true);
    let second = rig.ask(c, &get("/2"), true);
    rig.advance(Duration::from_secs(3));
    let third = rig.ask(c, &get("/3"), true);
    assert_eq!((rig.asked().len(), rig.proxy.counts().queued), (1, 2));
    rig.advance(Duration::from_millis(2_100));
    let got = rig.message(second);
    assert!(got.head.starts_with("HTTP/1.1 503 ") && got.ended, "its five seconds are over: {got:?}");
    assert!(rig.message(third).head.is_empty(), "the third has two seconds more");
    let busy = rig.asked()[0];
    rig.respond(busy, &ok(1), b"1");
    assert_eq!(rig.message(first).body, b"1");
    let next = *rig.asked().last().expect("asked");
    rig.respond(next, &ok(1), b"3");
    assert_eq!(rig.message(third).body, b"3");
    assert_eq!(
        rig.proxy.observer_mut().records,
        [(503, Some(Cause::QueueTimeout)), (200, None), (200, None)]
    );
    nothing_left(&mut rig);
}

#[test]
fn a_lost_connection_to_a_backend_is_everybodys_own_matter() {
    let mut rig = rig("retries = 1", BOTH);
    let c = rig.client();
    let (one, two) = (rig.ask(c, &get("/1"), true), rig.ask(c, &get("/2"), true));
    let asked = rig.asked();
    rig.respond_head(asked[0], &ok(4));
    rig.send(asked[0], b"ab");
    let lost = asked[0].0;
    rig.lose(lost);
    assert!(rig.message(one).reset, "half a response is no whole one");
    let again: Vec<_> = rig.asked().into_iter().filter(|far| far.0 != lost).collect();
    assert_eq!(again.len(), 1, "nothing of the second response had come: it is asked for again");
    rig.respond(again[0], &ok(2), b"ok");
    assert_eq!(rig.message(two).body, b"ok");
    nothing_left(&mut rig);
}

#[test]
fn a_client_that_leaves_takes_all_its_streams_along() {
    let mut rig = rig("", BOTH);
    let (c, other) = (rig.client(), rig.client());
    for path in ["/1", "/2", "/3"] {
        rig.ask(c, &get(path), true);
    }
    let kept = rig.ask(other, &get("/4"), true);
    rig.lose(c);
    let asked = rig.asked();
    assert_eq!(asked.iter().filter(|far| rig.message(**far).reset).count(), 3);
    let last = *asked.iter().find(|far| !rig.message(**far).reset).expect("one goes on");
    rig.respond(last, &ok(1), b"4");
    assert_eq!(rig.message(kept).body, b"4");
    nothing_left(&mut rig);
}
