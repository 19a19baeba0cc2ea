//! `[http2] extended_connect = false`: WebSockets go over HTTP/1.1 alone.

use ruststrom_core::Cause;
use ruststrom_core::h2::{Event, Reason};

use crate::two_wires::{self, Rig, Speaks};
use crate::{ASK, GET, OK, bytes_at, head_of, nothing_left, opened, records, rig_of, switch};

const OFF: &str = "[http2]\nextended_connect = false";
const HTTPS: &str = "addresses = [\"https://127.0.0.1:443\"]";

// A client that asks all the same gets what any server gives that knows nothing of it (RFC 8441 §3).
#[test]
fn clients_are_told_nothing_of_it() {
    for (top, takes) in [("", true), (OFF, false)] {
        let mut rig = rig_of(top, "", (Speaks::Http2, Speaks::Http1));
        let c = rig.client();
        assert_eq!(rig.http2(c).wire.may_connect(), Some(takes));
        let client = rig.ask(c, ASK, false);
        assert_eq!(rig.asked().len(), usize::from(takes));
        if takes {
            continue;
        }
        let reset = Event::Reset { stream: client.1, reason: Reason::PROTOCOL_ERROR, unprocessed: false };
        assert!(rig.http2(c).events.contains(&reset), "{:?}", rig.http2(c).events);
        assert_eq!(records(&mut rig), []);
        // It costs the connection nothing.
        let client = rig.ask(c, GET, true);
        let backend = rig.asked()[0];
        rig.respond(backend, OK, b"ok");
        assert_eq!(rig.message(client).body, b"ok");
        nothing_left(&rig);
    }
}

#[test]
fn backends_of_http2_alone_get_none_whatever_they_announce() {
    let mut rig = rig_of(OFF, "retries = 0", (Speaks::Http1, Speaks::Http2));
    // What it says is not waited for.
    rig.connects_wait = true;
    let c = rig.client();
    let client = rig.ask(c, ASK, false);
    rig.decide_connects_deaf();
    let got = rig.message(client);
    assert!(got.head.starts_with("HTTP/1.1 502 ") && got.ended, "{got:?}");
    assert_eq!(records(&mut rig), [(502, Some(Cause::NoWebSockets))]);
    assert!(rig.asked().is_empty());
    nothing_left(&rig);
}

/// A client of HTTP/1.1 asks for a WebSocket: whether it goes over HTTP/2.
fn goes_over_http2(rig: &mut Rig) -> bool {
    let c = rig.client();
    let before = rig.asked();
    let client = rig.ask(c, ASK, false);
    let backend = *rig.asked().iter().find(|far| !before.contains(far)).expect("asked");
    let head = head_of(rig, backend);
    rig.respond_head(backend, &switch(&head));
    rig.send_all(client, b"ping");
    assert_eq!(bytes_at(rig, backend), b"ping");
    backend.1 != 0
}

// From one reload to the next, on the connections that there are.
#[test]
fn backends_that_choose_get_them_over_http1() {
    let mut rig = rig_of("", HTTPS, (Speaks::Http1, Speaks::Http1));
    rig.backend_alpn = Some("h2");
    let c = rig.client();
    rig.ask(c, GET, true);
    let backend = rig.asked()[0];
    rig.respond(backend, OK, b"ok");
    for (top, over_http2) in [("", true), (OFF, false), ("", true)] {
        rig.reload(two_wires::config(top, HTTPS));
        rig.backend_alpn = Some(if over_http2 { "h2" } else { "http/1.1" });
        assert_eq!(goes_over_http2(&mut rig), over_http2, "{top}");
    }
}

#[test]
fn http1_on_both_sides_is_as_ever() {
    let mut rig = rig_of(OFF, "", (Speaks::Http1, Speaks::Http1));
    let c = rig.client();
    let (client, backend) = opened(&mut rig, c);
    rig.send_all(client, b"ping");
    assert_eq!(bytes_at(&rig, backend), b"ping");
}
