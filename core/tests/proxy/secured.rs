//! Clients that speak TLS: what their handshakes are worth, and what follows from what they agreed on.

use ruststrom_core::config::Config;
use ruststrom_core::http::Violation;
use ruststrom_core::{Cause, Fault, Negotiated, TlsFault};

use std::sync::Arc;

use crate::world::{Sock, World, config, get};

const A: &str = "10.0.0.1:80";

/// `a.test` is the default, `b.test` asks its clients for a certificate, `*.c.test` covers `also.test` too.
fn certificates() -> Arc<Config> {
    let local = "Local = { certificate_path = \"c\", private_key_path = \"k\" }";
    let mut config = Config::clone(&config(&format!(
        "http_address = \"192.0.2.1:80\"\nhttps_address = \"192.0.2.1:443\"\n\
         [timeouts]\nhandshake = 3\nhead = 7\n[health_interval]\ncheck_every = 0\n\
         [certificates.\"a.test\"]\n{local}\ndefault = true\n\
         [certificates.\"b.test\"]\n{local}\nclient_ca = \"ca\"\nclient_auth = \"optional\"\n\
         [certificates.\"*.c.test\"]\n{local}\n\
         [[backend_pools]]\naddresses = [\"{A}\"]\n"
    )));
    config.certificates[2].sans = vec!["*.c.test".into(), "also.test".into()];
    Arc::new(config)
}

fn world() -> World {
    World::of(&certificates(), 1)
}

fn agreed(certificate: u16) -> Negotiated<'static> {
    Negotiated {
        server_name: Some("a.test"),
        alpn: Some(b"http/1.1"),
        certificate: Some(certificate),
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        resumed: false,
        client_subject: None,
    }
}

/// A client that was shown this certificate.
fn client(w: &mut World, certificate: u16) -> Sock {
    let c = w.tls_client();
    w.negotiated(c, &agreed(certificate));
    c
}

fn asks(w: &mut World, c: Sock, host: &str) -> Vec<u16> {
    w.send(c, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    w.statuses(c)
}

#[test]
fn a_handshake_has_its_own_time_and_the_first_request_another() {
    for (wait, closed) in [(2_900, false), (3_100, true)] {
        let mut w = world();
        let c = w.tls_client();
        w.advance_ms(wait);
        assert_eq!(w.peer(c).closed, closed, "{wait}");
        assert_eq!(w.shards[0].handshakes_failed(), u64::from(closed));
        if !closed {
            w.negotiated(c, &agreed(0));
            w.advance_ms(6_900);
            assert!(!w.peer(c).closed);
            w.advance_ms(200);
            assert!(w.peer(c).closed);
        }
        assert_eq!(w.exchanges(), [], "nothing was asked for");
        w.finish();
    }
}

/// A client that has agreed on HTTP/2 is told of it at once; what it sends is taken for nothing else.
#[test]
fn http2_is_spoken_where_it_was_agreed_on() {
    // Those of a request for `/` at a host: HEADERS with END_STREAM and END_HEADERS (RFC 7541 §6).
    let get = |host: &str| {
        let mut block = vec![0x82, 0x87, 0x84, 0x01, host.len() as u8];
        block.extend_from_slice(host.as_bytes());
        [&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1][..], &block].concat()
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for (host, asked) in [("a.test", 1), ("b.test", 0)] {
        let mut w = world();
        let c = w.tls_client();
        w.negotiated(c, &Negotiated { alpn: Some(b"h2"), ..agreed(0) });
        assert_eq!(w.peer(c).received.get(3..5), Some(&[4, 0][..]), "SETTINGS");
        w.send(c, [&preface[..], &get(host)].concat());
        assert_eq!(w.to(A).len(), asked, "{host}: another certificate is for it");
        assert!(!w.peer(c).closed);
    }
    let mut w = world();
    let c = w.tls_client();
    w.negotiated(c, &Negotiated { alpn: Some(b"h2"), ..agreed(0) });
    w.send(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!((w.to(A).len(), w.exchanges()), (0, vec![]));
}

#[test]
fn a_request_is_served_under_a_certificate_that_is_for_its_host() {
    let table = [
        (0, "a.test", 200),
        (0, "A.Test:443", 200),
        (0, "nobody.test", 200),
        (0, "192.0.2.1", 200),
        (0, "b.test", 421),
        (0, "x.c.test", 421),
        (0, "also.test", 200),
        (1, "b.test", 200),
        (1, "a.test", 421),
        (1, "nobody.test", 421),
        (2, "x.c.test:8443", 200),
        (2, "x.y.c.test", 421),
        (2, "also.test", 200),
        (2, "b.test", 421),
    ];
    for (certificate, host, status) in table {
        let mut w = world();
        let c = client(&mut w, certificate);
        assert_eq!(asks(&mut w, c, host), [status], "certificate {certificate}, {host}");
        let cause = (status == 421).then_some(Cause::BadRequest(Violation::Misdirected));
        assert_eq!(w.exchanges()[0].cause, cause);
        w.end(c);
        w.finish();
    }
    // Without TLS there is nothing to be misdirected.
    let mut w = world();
    let c = w.client();
    assert_eq!(asks(&mut w, c, "b.test"), [200]);
    w.end(c);
    w.finish();
}

#[test]
fn a_reload_finds_the_certificate_by_its_name() {
    let mut w = world();
    let (a, c) = (client(&mut w, 0), client(&mut w, 2));
    let mut other = Config::clone(&certificates());
    other.certificates.swap(0, 2);
    w.reconfigure(&Arc::new(other.clone()));
    assert_eq!(asks(&mut w, a, "a.test"), [200]);
    assert_eq!(asks(&mut w, c, "x.c.test"), [200]);
    assert_eq!(asks(&mut w, c, "a.test"), [421]);
    // One that is gone is for nothing any more.
    other.certificates.remove(0);
    w.reconfigure(&Arc::new(other));
    assert_eq!(asks(&mut w, c, "x.c.test"), [421]);
    w.end(a);
    w.end(c);
    w.finish();
}

#[test]
fn backends_and_the_log_are_told() {
    let mut w = world();
    let said = "GET / HTTP/1.1\r\nHost: b.test\r\nX-Client-Verify: SUCCESS\r\nX-Client-Subject: CN=root\r\n\
                X_Client_Subject: CN=root\r\n\r\n";
    let subjects = [Some("CN=alice,O=Example"), None];
    for client_subject in subjects {
        let c = w.tls_client();
        w.negotiated(c, &Negotiated { client_subject, resumed: client_subject.is_none(), ..agreed(1) });
        w.send(c, said);
        assert_eq!(w.statuses(c), [200]);
        w.end(c);
    }
    let heads: Vec<String> = w.served.iter().map(|(_, head)| head.to_ascii_lowercase()).collect();
    assert!(
        heads[0].contains("\r\nx-client-verify: success\r\nx-client-subject: cn=alice,o=example\r\n"),
        "{heads:?}"
    );
    assert!(heads[1].contains("\r\nx-client-verify: none\r\n"), "{heads:?}");
    for head in &heads {
        assert!(!head.contains("cn=root"), "{head}");
        assert!(head.contains("\r\nx-forwarded-proto: https\r\n"), "{head}");
    }
    assert!(!heads[1].contains("subject"));
    let tls = &w.shards[0].observer_mut().tls;
    assert_eq!(
        *tls,
        [
            "TLSv1.3 TLS_AES_128_GCM_SHA256 a.test false CN=alice,O=Example",
            "TLSv1.3 TLS_AES_128_GCM_SHA256 a.test true "
        ]
    );
    // Where nobody is asked for a certificate nothing is said of one, whoever claims to have it.
    let plain = w.client();
    w.send(plain, said);
    let c = client(&mut w, 0);
    w.send(c, said.replace("b.test", "a.test"));
    assert_eq!((w.statuses(plain), w.statuses(c)), (vec![200], vec![200]));
    for (_, head) in &w.served[2..] {
        assert!(!head.to_ascii_lowercase().contains("x-client-") && !head.contains("root"), "{head}");
    }
    w.end(plain);
    w.end(c);
    w.finish();
}

#[test]
fn handshakes_that_fail() {
    let mut w = world();
    // In plain HTTP it is told in plain HTTP.
    let c = w.tls_client();
    w.handshake_failed(c, Fault::PlainHttp);
    let got = w.got(c);
    assert!(got.starts_with("HTTP/1.1 400 ") && got.contains("plain_http_on_tls_port"), "{got}");
    assert_eq!(w.exchanges()[0].cause, Some(Cause::BadRequest(Violation::PlainHttpOnTls)));
    assert!(w.peer(c).shut && !w.peer(c).closed, "what it has sent must not reset the response");
    w.end(c);
    assert!(w.peer(c).closed);
    // Its alert has been sent.
    for fault in [Fault::UnrecognizedName, Fault::Tls(TlsFault::Protocol)] {
        let c = w.tls_client();
        w.handshake_failed(c, fault);
        assert!(w.peer(c).shut && !w.peer(c).closed, "{fault:?}");
        w.advance_ms(2_100);
        assert!(w.peer(c).closed, "{fault:?}");
    }
    let c = w.tls_client();
    w.handshake_failed(c, Fault::Reset);
    assert!(w.peer(c).closed);
    assert_eq!((w.exchanges(), w.shards[0].handshakes_failed()), (vec![], 4));
    // Later it is a client that is gone.
    let c = client(&mut w, 0);
    w.fault(c, Fault::Tls(TlsFault::Closed));
    assert!(w.peer(c).closed);
    assert_eq!(w.shards[0].handshakes_failed(), 4);
    w.finish();
}

#[test]
fn what_was_not_offered_is_not_spoken() {
    let mut w = world();
    let c = w.tls_client();
    w.negotiated(c, &Negotiated { alpn: Some(b"h9"), ..agreed(0) });
    assert!(w.peer(c).closed);
    for alpn in [None, Some(&b"http/1.1"[..]), Some(b"http/1.0")] {
        let c = w.tls_client();
        w.negotiated(c, &Negotiated { alpn, ..agreed(0) });
        w.send(c, get("/"));
        assert_eq!(w.statuses(c), [200]);
        w.end(c);
    }
    w.finish();
}

#[test]
fn a_drain_ends_handshakes() {
    let mut w = world();
    let c = w.tls_client();
    w.drain(std::time::Duration::from_secs(30));
    w.advance_ms(2_100);
    assert!(w.peer(c).closed, "it has a moment");
    assert_eq!(w.drained, [0]);
    w.finish();
}
