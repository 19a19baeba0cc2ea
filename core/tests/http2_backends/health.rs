//! Health checks: over HTTP/2 where nothing else is spoken.

use std::time::Duration;

use ruststrom_core::{Cause, http::Violation};

use crate::two_wires::{Far, Rig, Speaks};
use crate::{get, records, rig_of};

const CHECKED: &str =
    "[backend_pools.health_config]\ncheck_every = 10\npath = \"/health\"\nbody_contains = \"well\"";

/// The leg of the check that is under way.
fn check(rig: &mut Rig) -> Far {
    rig.advance(Duration::from_secs(11));
    *rig.asked().last().expect("a check")
}

fn status(rig: &mut Rig) -> u16 {
    let c = rig.client();
    let far = rig.ask(c, &get("/"), true);
    let got = rig.message(far).head;
    rig.reset(far);
    got.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn they_decide_by_status_and_content() {
    let answers: [(&str, &[u8], bool); 4] = [
        ("HTTP/1.1 200 OK\r\n\r\n", b"all is well", true),
        ("HTTP/1.1 200 OK\r\n\r\n", b"all is lost", false),
        ("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\n", b"well", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"well", true),
    ];
    let mut rig = rig_of("", CHECKED, (Speaks::Http2, Speaks::Http2));
    for (head, body, good) in answers {
        let leg = check(&mut rig);
        let asked = rig.message(leg);
        assert!(asked.head.starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:81\r\n"), "{asked:?}");
        assert!(asked.ended, "there is no content");
        rig.respond_head(leg, head);
        if !rig.is_closed(leg.0) {
            rig.send(leg, body);
            rig.end(leg, "");
        }
        assert!(rig.is_closed(leg.0), "each has a connection of its own");
        assert_eq!(status(&mut rig) == 503, !good, "{head}");
        assert_eq!(rig.proxy.counts().probes, 0);
    }
}

#[test]
fn whoever_speaks_something_else_is_unhealthy() {
    let mut rig = rig_of("", CHECKED, (Speaks::Http2, Speaks::Http2));
    let leg = check(&mut rig);
    rig.send_bytes(leg.0, b"");
    rig.respond(leg, "HTTP/1.1 200 OK\r\n\r\n", b"well");
    assert_ne!(status(&mut rig), 503);
    rig.connects_wait = true;
    rig.advance(Duration::from_secs(11));
    rig.decide_connects_deaf();
    let b = *rig.backend_conns.last().expect("a check");
    rig.send_bytes(b, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell");
    assert_eq!(status(&mut rig), 503);
    let _ = records(&mut rig);

    // Over TLS it has to choose HTTP/2 if that is all.
    let pool = format!("addresses = [\"https://a.test:443\"]\ntls = {{ alpn = [\"h2\"] }}\n{CHECKED}");
    let pool = pool.replace("a.test", "127.0.0.1");
    let mut rig = rig_of("", &pool, (Speaks::Http2, Speaks::Http1));
    rig.advance(Duration::from_secs(11));
    assert_eq!(status(&mut rig), 503, "{:?}", Cause::BadResponse(Violation::NotHttp2));
}

#[test]
fn http1_is_enough_where_it_is_spoken() {
    let pool = format!("addresses = [\"https://127.0.0.1:443\"]\n{CHECKED}");
    let mut rig = rig_of("", &pool, (Speaks::Http2, Speaks::Http1));
    rig.backend_alpn = Some("h2");
    let leg = check(&mut rig);
    assert_eq!(leg.1, 0, "HTTP/1.1 was all that was offered");
    rig.respond(leg, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"well");
    let c = rig.client();
    rig.ask(c, &get("/"), true);
    assert_ne!(rig.asked().last().expect("asked").1, 0, "requests go over HTTP/2");
}
