//! `https://` backends: what they choose of what they are offered.

use ruststrom_core::Cause;
use ruststrom_core::h2::Reason;
use ruststrom_core::http::Violation;

use crate::two_wires::{Rig, Speaks};
use crate::{OK, get, nothing_left, post, records, rig_of};

fn rig(pool: &str, clients: Speaks, chooses: Option<&'static str>) -> Rig {
    let pool = format!("addresses = [\"https://127.0.0.1:443\"]\n{pool}");
    let mut rig = rig_of("", &pool, (clients, Speaks::Http1));
    rig.backend_alpn = chooses;
    rig
}

/// So many requests of as many clients, before a connection is there.
fn crowd(rig: &mut Rig, n: usize) -> Vec<crate::two_wires::Far> {
    rig.connects_wait = true;
    let all = (0..n)
        .map(|n| {
            let c = rig.client();
            rig.ask(c, &post(&format!("/{n}"), 0), true)
        })
        .collect();
    rig.decide_connects();
    all
}

#[test]
fn one_connection_is_made_for_all_who_wait() {
    for chooses in [Some("h2"), Some("http/1.1"), None] {
        let mut rig = rig("", Speaks::Http1, chooses);
        let all = crowd(&mut rig, 20);
        let http2 = chooses == Some("h2");
        assert_eq!(rig.backend_conns.len(), if http2 { 1 } else { 20 }, "{chooses:?}");
        assert_eq!(rig.asked().len(), 20);
        for leg in rig.asked() {
            rig.respond(leg, OK, b"ok");
        }
        assert!(all.iter().all(|far| rig.message(*far).body == b"ok"));
        // Nobody has failed, though nineteen had to ask for a connection again.
        assert_eq!(rig.proxy.observer_mut().attempts, [1; 20], "{chooses:?}");
        assert_eq!(records(&mut rig), [(200, None); 20]);
        nothing_left(&rig);
        // It is remembered: nobody waits for another's connection in vain.
        let made = rig.backend_conns.len();
        let more = crowd(&mut rig, 30);
        assert_eq!(rig.backend_conns.len() - made, if http2 { 0 } else { 10 }, "twenty lie idle");
        assert_eq!(more.len(), 30);
    }
}

#[test]
fn a_backend_may_change_its_mind() {
    let mut rig = rig("client = { pool_max_idle_per_host = 0 }", Speaks::Http1, Some("http/1.1"));
    let c = rig.client();
    for (chooses, http2) in [("http/1.1", false), ("h2", true), ("http/1.1", false), ("h2", true)] {
        rig.backend_alpn = Some(chooses);
        let far = rig.ask(c, &get("/"), true);
        let leg = *rig.asked().last().expect("asked");
        assert_eq!(leg.1 != 0, http2, "{chooses}");
        rig.respond(leg, OK, b"ok");
        assert_eq!(rig.message(far).body, b"ok");
        rig.forget(far);
        rig.forget(leg);
        assert_eq!(records(&mut rig), [(200, None)]);
        if http2 {
            rig.lose(leg.0);
        }
        nothing_left(&rig);
    }
}

#[test]
fn what_needs_http1_is_offered_that_alone() {
    let upgrade = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let ntlm = "GET / HTTP/1.1\r\nHost: a.test\r\nAuthorization: NTLM abc\r\n\r\n";
    for head in [upgrade, ntlm] {
        let mut rig = rig("", Speaks::Http1, Some("h2"));
        let c = rig.client();
        rig.ask(c, &get("/"), true);
        let leg = rig.asked()[0];
        assert_ne!(leg.1, 0, "HTTP/2");
        rig.respond(leg, OK, b"ok");
        rig.backend_alpn = Some("http/1.1");
        rig.ask(c, head, true);
        let leg = *rig.asked().last().expect("asked");
        assert_eq!(leg.1, 0, "HTTP/1.1, though there is a connection of HTTP/2");
        // That one is used further.
        rig.backend_alpn = Some("h2");
        let other = rig.client();
        rig.ask(other, &get("/"), true);
        assert_eq!(rig.backend_conns.len(), 2);
    }
}

#[test]
fn a_backend_may_ask_for_http1() {
    let mut rig = rig("retries = 0", Speaks::Http2, Some("h2"));
    let c = rig.client();
    let far = rig.ask(c, &post("/", 3), false);
    rig.send_all(far, b"abc");
    rig.end(far, "");
    let leg = rig.asked()[0];
    rig.backend_alpn = Some("http/1.1");
    rig.http2(leg.0).wire.reset(leg.1, Reason::HTTP_1_1_REQUIRED);
    rig.run();
    let again = *rig.asked().last().expect("asked again");
    assert!(again.0 != leg.0 && again.1 == 0);
    assert_eq!(rig.message(again).body, b"abc");
    rig.respond(again, OK, b"ok");
    assert_eq!(rig.message(far).body, b"ok");
    assert_eq!(rig.proxy.observer_mut().attempts, [1]);
    assert_eq!(records(&mut rig), [(200, None)]);
    nothing_left(&rig);
}

#[test]
fn one_protocol_is_the_only_one() {
    let one = |name: &str| format!("tls = {{ alpn = [\"{name}\"] }}\nretries = 0");
    let mut rig = rig(&one("h2"), Speaks::Http1, None);
    let c = rig.client();
    let far = rig.ask(c, &get("/"), true);
    assert_eq!(records(&mut rig), [(502, Some(Cause::BadResponse(Violation::NotHttp2)))]);
    assert!(rig.message(far).head.starts_with("HTTP/1.1 502 "));
    nothing_left(&rig);

    let mut rig = self::rig(&one("http/1.1"), Speaks::Http1, Some("h2"));
    let c = rig.client();
    rig.ask(c, &get("/"), true);
    assert_eq!(rig.asked()[0].1, 0);
}

// Credentials of a connection never go on one that others share, even if nothing else is spoken.
#[test]
fn credentials_of_a_connection_have_one_to_themselves() {
    let mut rig = rig_of("", "", (Speaks::Http1, Speaks::Http2));
    let (c, other) = (rig.client(), rig.client());
    rig.ask(c, &get("/"), true);
    let leg = rig.asked()[0];
    rig.respond(leg, OK, b"ok");
    rig.ask(c, "GET / HTTP/1.1\r\nHost: a.test\r\nAuthorization: NTLM abc\r\n\r\n", true);
    let own = *rig.asked().last().expect("asked");
    assert_ne!(own.0, leg.0);
    rig.ask(other, &get("/"), true);
    assert_eq!(
        rig.asked().last().expect("asked").0,
        own.0.max(leg.0).min(rig.asked().last().expect("asked").0)
    );
    assert_eq!(rig.backend_conns.len(), 2, "the other one is shared");
    rig.respond(own, OK, b"ok");
    assert!(rig.is_closed(own.0));
}
