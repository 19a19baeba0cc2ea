//! Backends that leave, and backends that are left: GOAWAY, a reload, a drain.

use std::time::Duration;

use ruststrom_core::Cause;
use ruststrom_core::h2::{Reason, write};

use crate::two_wires::{self, Speaks};
use crate::{OK, TWO, get, nothing_left, post, records, rig, rig_of};

/// Sends GOAWAY from a backend as it is.
fn go_away(rig: &mut two_wires::Rig, b: ruststrom_core::ConnId, last: u32, reason: Reason) {
    let mut frame = Vec::new();
    write::go_away(&mut frame, last, reason);
    rig.send_bytes(b, &frame);
}

#[test]
fn a_backend_that_leaves_ends_what_it_has() {
    let mut rig = rig("");
    let c = rig.client();
    let one = rig.ask(c, &get("/1"), true);
    let leg = rig.asked()[0];
    go_away(&mut rig, leg.0, (1 << 31) - 1, Reason::NO_ERROR);
    let two = rig.ask(c, &get("/2"), true);
    let other = *rig.asked().last().expect("asked");
    assert_ne!(other.0, leg.0, "no new streams");
    go_away(&mut rig, leg.0, leg.1, Reason::NO_ERROR);
    assert!(!rig.is_closed(leg.0));
    rig.respond(leg, OK, b"ok");
    assert_eq!(rig.message(one).body, b"ok");
    assert!(rig.is_closed(leg.0), "with its last stream");
    rig.respond(other, OK, b"ok");
    assert_eq!(rig.message(two).body, b"ok");
    assert_eq!(records(&mut rig), [(200, None); 2]);
    nothing_left(&rig);
    // One that has none goes at once.
    go_away(&mut rig, other.0, other.1, Reason::NO_ERROR);
    assert!(rig.is_closed(other.0));
}

// Its backend had taken a connection in time: that this is long ago says nothing of the next one.
#[test]
fn who_is_left_behind_has_all_of_its_time_to_connect() {
    let mut rig = rig("retries = 0\n[backend_pools.timeouts]\nconnect = 5\nbackend_head = 60");
    let c = rig.client();
    let far = rig.ask(c, &get("/"), true);
    let leg = rig.asked()[0];
    rig.advance(Duration::from_secs(10));
    rig.connects_wait = true;
    go_away(&mut rig, leg.0, 0, Reason::NO_ERROR);
    rig.advance(Duration::from_secs(4));
    assert!(records(&mut rig).is_empty());
    rig.decide_connects();
    let again = *rig.asked().last().expect("asked again");
    rig.respond(again, OK, b"ok");
    assert_eq!(rig.message(far).body, b"ok");
    assert_eq!(rig.proxy.observer_mut().attempts, [1]);
    assert_eq!(records(&mut rig), [(200, None)]);
    nothing_left(&rig);
}

#[test]
fn streams_above_the_last_one_go_elsewhere_whatever_the_method() {
    let mut rig = rig("retries = 0");
    let c = rig.client();
    let mut all = Vec::new();
    for n in 0..3 {
        let far = rig.ask(c, &post(&format!("/{n}"), 3), false);
        rig.send_all(far, b"abc");
        rig.end(far, "");
        all.push(far);
    }
    let legs = rig.asked();
    go_away(&mut rig, legs[0].0, legs[0].1, Reason::NO_ERROR);
    let again: Vec<_> = rig.asked().into_iter().filter(|leg| leg.0 != legs[0].0).collect();
    assert_eq!(again.len(), 2);
    for leg in again.iter().chain([&legs[0]]) {
        let got = rig.message(*leg);
        assert!(got.ended && got.body == b"abc", "{got:?}");
        rig.respond(*leg, OK, b"ok");
    }
    assert!(all.iter().all(|far| rig.message(*far).body == b"ok"));
    // It is no attempt that failed.
    assert_eq!(rig.proxy.observer_mut().attempts, [1, 1, 1]);
    assert_eq!(records(&mut rig), [(200, None); 3]);
    nothing_left(&rig);
}

// What of the request has been let go of cannot be sent again.
#[test]
fn a_long_request_is_sent_once() {
    let mut rig = rig("retries = 3");
    let c = rig.client();
    let far = rig.ask(c, &post("/", 200_000), false);
    rig.send_all(far, &[b'x'; 100_000]);
    let leg = rig.asked()[0];
    go_away(&mut rig, leg.0, 0, Reason::NO_ERROR);
    assert_eq!(records(&mut rig), [(502, Some(Cause::BackendReset))]);
    assert_eq!(rig.backend_conns.len(), 1);
    nothing_left(&rig);
}

#[test]
fn a_connection_that_breaks_takes_its_streams_along() {
    let mut rig = rig(&format!("{TWO}\nretries = 1"));
    let c = rig.client();
    let read = rig.ask(c, &get("/"), true);
    let write = rig.ask(c, &post("/", 0), true);
    let begun = rig.ask(c, &get("/begun"), true);
    let legs = rig.asked();
    rig.respond_head(legs[2], OK);
    rig.send(legs[2], b"o");
    rig.lose(legs[0].0);
    assert!(rig.message(write).head.starts_with("HTTP/1.1 502 "), "it may have been done");
    assert!(rig.message(begun).reset, "half a response is none");
    let again = *rig.asked().last().expect("asked again");
    rig.respond(again, OK, b"ok");
    assert_eq!(rig.message(read).body, b"ok");
    let mut found = records(&mut rig);
    found.sort_by_key(|(status, cause)| (*status, cause.is_some()));
    let (reset, cut) = (Some(Cause::BackendReset), Some(Cause::ResponseTruncated));
    assert_eq!(found, [(200, None), (200, cut), (502, reset)]);
    nothing_left(&rig);
}

#[test]
fn a_whole_response_is_one_whatever_becomes_of_the_request() {
    let mut rig = rig("retries = 0");
    let c = rig.client();
    let far = rig.ask(c, &post("/", 100_000), false);
    rig.send_all(far, &[b'x'; 1000]);
    let leg = rig.asked()[0];
    rig.respond(leg, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\n", b"no");
    rig.http2(leg.0).wire.reset(leg.1, Reason::NO_ERROR);
    rig.run();
    let got = rig.message(far);
    assert!(got.head.starts_with("HTTP/1.1 413 ") && got.body == b"no" && got.ended, "{got:?}");
    assert_eq!(records(&mut rig), [(413, None)]);
    assert!(!rig.is_closed(leg.0), "the connection goes on");
    nothing_left(&rig);
}

/// A DATA frame as it is, which ends nothing.
fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write::data_header(&mut frame, stream, bytes.len() as u32, false);
    [frame, bytes.to_vec()].concat()
}

// What a backend does wrong behind a response that is whole is no fault of the response (RFC 9113 §8.1),
// however much of it the client has not read yet.
#[test]
fn a_whole_response_is_one_whatever_comes_behind_it() {
    for client in [Speaks::Http1, Speaks::Http2] {
        let mut rig = rig_of("", "retries = 0", (client, Speaks::Http2));
        let (c, other) = (rig.client(), rig.client());
        let far = rig.ask(c, &post("/", 100_000), false);
        rig.send_all(far, &[b'x'; 1000]);
        let well = rig.ask(other, &get("/well"), true);
        let (leg, leg_well) = (rig.asked()[0], rig.asked()[1]);
        let body: Vec<u8> = (0..15_000_u32).map(|n| (n % 251) as u8).collect();
        rig.slow_down(c);
        rig.respond(leg, "HTTP/1.1 403 Forbidden\r\nContent-Length: 15000\r\n\r\n", &body);
        // As much as one takes at once: the rest lies in the proxy.
        rig.most = 100;
        rig.take_once(c);
        rig.send_bytes(leg.0, &data(leg.1, b"more"));
        assert!(rig.message(leg).reset, "{client:?}: the backend hears of it");
        rig.most = usize::MAX;
        while rig.take_once(c) {}
        let got = rig.message(far);
        assert!(got.head.starts_with("HTTP/1.1 403 ") && got.ended && !got.reset, "{client:?}: {got:?}");
        assert!(got.body == body, "{client:?}: {} bytes", got.body.len());
        rig.respond(leg_well, OK, b"ok");
        assert_eq!(rig.message(well).body, b"ok", "others go on");
        assert_eq!(records(&mut rig), [(403, None), (200, None)], "{client:?}");
        assert!(!rig.is_closed(leg.0), "{client:?}");
        nothing_left(&rig);
    }
}

#[test]
fn a_stream_that_is_reset_is_repeated_as_any_attempt() {
    for (method, repeated) in [("GET", true), ("POST", false)] {
        let mut rig = rig(&format!("{TWO}\nretries = 1"));
        let c = rig.client();
        let far = rig.ask(c, &format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n"), true);
        let leg = rig.asked()[0];
        rig.http2(leg.0).wire.reset(leg.1, Reason::INTERNAL_ERROR);
        rig.run();
        if repeated {
            let again = *rig.asked().last().expect("asked again");
            assert_ne!(again.0, leg.0, "another backend");
            rig.respond(again, OK, b"ok");
            assert_eq!(records(&mut rig), [(200, None)]);
        } else {
            assert_eq!(records(&mut rig), [(502, Some(Cause::BackendReset))]);
        }
        assert!(rig.message(far).ended && !rig.is_closed(leg.0));
        nothing_left(&rig);
    }
}

#[test]
fn a_reload_leaves_streams_alone() {
    let mut rig = rig("");
    let c = rig.client();
    let far = rig.ask(c, &get("/"), true);
    let leg = rig.asked()[0];
    rig.reload(two_wires::config("", "addresses = [\"127.0.0.1:99\"]"));
    let next = rig.ask(c, &get("/next"), true);
    let other = *rig.asked().last().expect("asked");
    assert_ne!(other.0, leg.0);
    rig.respond(leg, OK, b"ok");
    assert_eq!(rig.message(far).body, b"ok");
    assert!(rig.is_closed(leg.0), "with its last stream: nobody names that backend any more");
    rig.respond(other, OK, b"ok");
    assert_eq!(rig.message(next).body, b"ok");
    rig.reload(two_wires::config("", "addresses = [\"127.0.0.1:98\"]"));
    assert!(rig.is_closed(other.0), "it was idle");
    nothing_left(&rig);
}

#[test]
fn a_drain_waits_for_the_streams() {
    let mut rig = rig("");
    let c = rig.client();
    let far = rig.ask(c, &get("/"), true);
    let leg = rig.asked()[0];
    rig.proxy.drain(rig.now + Duration::from_secs(30), rig.now);
    rig.run();
    assert!(!rig.is_closed(leg.0));
    rig.respond(leg, OK, b"ok");
    assert_eq!(rig.message(far).body, b"ok");
    assert!(rig.is_closed(leg.0));
}
