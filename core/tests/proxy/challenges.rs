//! HTTP-01 (RFC 8555 §8.3): what authorities ask for before they make a certificate.

use ruststrom_core::config::Config;
use ruststrom_core::shared::HttpChallenge;

use std::sync::Arc;

use crate::world::{World, config};

const A: &str = "10.0.0.1:80";

/// The only pool is for `a.test`, over HTTP and HTTPS.
fn world() -> World {
    let mut config = Config::clone(&config(&format!(
        "http_address = \"192.0.2.1:80\"\nhttps_address = \"192.0.2.1:443\"\n\
         [health_interval]\ncheck_every = 0\n\
         [certificates.\"a.test\"]\nLocal = {{ certificate_path = \"c\", private_key_path = \"k\" }}\n\
         [[backend_pools]]\nmatcher = \"Host('a.test')\"\naddresses = [\"{A}\"]\n"
    )));
    config.certificates[0].sans = vec!["a.test".into()];
    World::of(&Arc::new(config), 1)
}

fn set(w: &World, answers: &[(&str, &str)]) {
    let challenge = |(token, answer): &(&str, &str)| HttpChallenge {
        token: (*token).into(),
        answer: answer.as_bytes().into(),
    };
    w.shared.set_http_challenges(answers.iter().map(challenge).collect());
}

/// Method, target and host of a request; what it gets.
fn ask(w: &mut World, method: &str, target: &str, host: &str) -> String {
    let c = w.client();
    w.send(c, format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"));
    w.got(c)
}

#[test]
fn our_tokens_are_answered_before_routing_and_others_are_routed() {
    let mut w = world();
    let path = |token: &str| format!("/.well-known/acme-challenge/{token}");
    // There are none: everything is routed.
    assert!(ask(&mut w, "GET", &path("one"), "a.test").starts_with("HTTP/1.1 200 OK"));
    assert_eq!(w.served.len(), 1);
    set(&w, &[("one", "one.print"), ("two", "two.print")]);
    // No pool is for this host; the port is that of the authority's request.
    for host in ["a.test", "unknown.test", "a.test:80", "192.0.2.1"] {
        let got = ask(&mut w, "GET", &path("one"), host);
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\none.print"), "{got}");
        assert!(got.contains("Content-Type: application/octet-stream\r\n"), "{got}");
    }
    assert!(ask(&mut w, "GET", &path("two"), "a.test").ends_with("\r\n\r\ntwo.print"));
    assert!(ask(&mut w, "GET", &path("two?x=1"), "a.test").ends_with("\r\n\r\ntwo.print"));
    let head = ask(&mut w, "HEAD", &path("one"), "a.test");
    assert!(head.contains("Content-Length: 9\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(w.served.len(), 1, "no backend has heard of it");
    // What is not ours is a request like any other.
    let routed = ["/.well-known/acme-challenge/", &path("on"), &path("onee"), &path("one/"), "/one"];
    for (n, target) in (2..).zip(routed) {
        assert!(ask(&mut w, "GET", target, "a.test").starts_with("HTTP/1.1 200 OK"), "{target}");
        assert_eq!(w.served.len(), n, "{target}");
        assert!(ask(&mut w, "GET", target, "unknown.test").starts_with("HTTP/1.1 404"), "{target}");
    }
    let before = w.served.len();
    ask(&mut w, "POST", &path("one"), "a.test");
    assert_eq!(w.served.len(), before + 1, "authorities ask by GET");
    // And then it is over.
    set(&w, &[]);
    ask(&mut w, "GET", &path("one"), "a.test");
    assert_eq!(w.served.len(), before + 2);
    w.finish();
}

#[test]
fn the_connection_goes_on_and_the_log_has_it() {
    let mut w = world();
    set(&w, &[("one", "one.print")]);
    let c = w.client();
    let request = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    w.send(c, request("/.well-known/acme-challenge/one") + &request("/next"));
    assert_eq!(w.statuses(c), [200, 200]);
    assert_eq!(w.served.len(), 1);
    assert!(w.heads()[0].contains("/.well-known/acme-challenge/one"));
    let ended: Vec<_> = w.exchanges().iter().map(|e| (e.status, e.cause, e.attempts)).collect();
    assert_eq!(ended, [(200, None, 0), (200, None, 1)]);
    w.finish();
}

#[test]
fn requests_over_tls_are_routed() {
    let mut w = world();
    set(&w, &[("one", "one.print")]);
    let c = w.tls_client();
    w.negotiated(
        c,
        &ruststrom_core::Negotiated {
            server_name: Some("a.test"),
            alpn: None,
            certificate: Some(0),
            version: "TLSv1.3",
            cipher: "",
            resumed: false,
            client_subject: None,
        },
    );
    w.send(c, "GET /.well-known/acme-challenge/one HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(w.statuses(c), [200]);
    assert_eq!(w.served.len(), 1, "a backend may have an authority of its own");
    w.finish();
}

/// TLS-ALPN-01 (RFC 8737 §3): who came to see a certificate only is let go.
#[test]
fn a_connection_that_speaks_acme_is_closed_after_its_handshake() {
    let mut w = world();
    let c = w.tls_client();
    w.negotiated(
        c,
        &ruststrom_core::Negotiated {
            server_name: Some("a.test"),
            alpn: Some(b"acme-tls/1"),
            certificate: None,
            version: "TLSv1.3",
            cipher: "",
            resumed: false,
            client_subject: None,
        },
    );
    assert!(!w.open.contains(&c));
    assert!(w.exchanges().is_empty());
    w.finish();
}
