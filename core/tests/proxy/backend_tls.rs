//! Backends that are spoken to over TLS: what a driver is told of them, and what becomes of a handshake that
//! fails. To the core it is a connection that does not come about.

use std::net::IpAddr;

use ruststrom_core::config::TlsName;
use ruststrom_core::observe::HealthState::{Healthy, Unhealthy, Unknown};
use ruststrom_core::{Cause, Fault, LookupResult, TlsFault};

use crate::world::{Open, Reply, World, addr, config, endpoint, get, ok, one_pool};

const A: &str = "10.0.0.1:443";
const B: &str = "10.0.0.2:443";
const TWO: &str = "addresses = [\"https://10.0.0.1:443\", \"https://10.0.0.2:443\"]";
const ONE: &str = "addresses = [\"https://10.0.0.1:443\"]";
const POST: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";

fn fails(fault: TlsFault) -> Open {
    Open::Fails(Fault::Tls(fault))
}

/// Each fault with the word for it and the error type of RFC 9209 §2.3.
const FAULTS: [(TlsFault, &str, &str); 10] = [
    (TlsFault::UnknownCa, "backend_tls_unknown_ca", "tls_certificate_error"),
    (TlsFault::WrongName, "backend_tls_wrong_name", "tls_certificate_error"),
    (TlsFault::Expired, "backend_tls_expired", "tls_certificate_error"),
    (TlsFault::NotYetValid, "backend_tls_not_yet_valid", "tls_certificate_error"),
    (TlsFault::BadCertificate, "backend_tls_bad_certificate", "tls_certificate_error"),
    (TlsFault::ClientCertificate, "backend_tls_client_certificate", "tls_alert_received"),
    (TlsFault::Refused, "backend_tls_refused", "tls_alert_received"),
    (TlsFault::NotTls, "backend_tls_not_tls", "tls_protocol_error"),
    (TlsFault::Closed, "backend_tls_closed", "connection_terminated"),
    (TlsFault::Protocol, "backend_tls_protocol", "tls_protocol_error"),
];

/// The client is told; nothing was sent, so every backend is tried, whatever the method.
#[test]
fn every_fault() {
    assert_eq!(FAULTS.map(|(fault, ..)| fault), TlsFault::ALL);
    for (fault, name, error) in FAULTS {
        let mut w = World::new(&one_pool(TWO));
        (w.backend(A).open, w.backend(B).open) = (fails(fault), fails(fault));
        let c = w.client_sends(POST);
        let got = w.got(c);
        assert!(got.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{name}: {got}");
        let status = format!("\r\nProxy-Status: rust-strom; error={error}; details=\"{name}\"\r\n");
        assert!(got.contains(&status), "{name}: {got}");
        assert!(got.ends_with(&format!("\r\n\r\n502 Bad Gateway: {name}\n")), "{name}: {got}");
        let ended = &w.exchanges()[0];
        let cause = Cause::BackendTls(fault);
        assert_eq!((ended.status, ended.cause, ended.attempts), (502, Some(cause), 2), "{name}");
        assert_eq!(ended.failed, [(A.to_owned(), cause), (B.to_owned(), cause)], "{name}");
        assert!(cause.is_of_attempt() && w.served.is_empty(), "{name}");
        w.finish();
    }
}

#[test]
fn another_backend_gets_the_request() {
    let mut w = World::new(&one_pool(TWO));
    w.backend(A).open = fails(TlsFault::Expired);
    w.client_sends(POST);
    let ended = &w.exchanges()[0];
    assert_eq!((ended.status, ended.cause, ended.attempts, &*ended.backend), (200, None, 2, B));
    assert_eq!(ended.failed, [(A.to_owned(), Cause::BackendTls(TlsFault::Expired))]);
    w.finish();
}

/// A name may have an address where the right one answers: that is no further attempt.
#[test]
fn another_address_of_the_name() {
    let named = || {
        let mut w = World::new(&one_pool("addresses = [\"https://a.test:443\"]\nretries = 0"));
        w.advance_ms(0);
        let query = w.lookups.pop().expect("asked");
        w.response(query, LookupResult::Addresses(vec![addr(A), addr(B)]));
        w
    };
    let mut connects = Vec::new();
    for at in [A, B] {
        let mut w = named();
        w.backend(at).open = fails(TlsFault::WrongName);
        w.client_sends(POST);
        let ended = &w.exchanges()[0];
        assert_eq!((ended.status, ended.attempts, ended.failed.len()), (200, 1, 0), "{at}");
        connects.push(w.secured.len());
        w.finish();
    }
    connects.sort_unstable();
    assert_eq!(connects, [1, 2], "one of them was tried first");
    let mut w = named();
    (w.backend(A).open, w.backend(B).open) = (fails(TlsFault::WrongName), fails(TlsFault::WrongName));
    w.client_sends(POST);
    assert_eq!(w.one(), (502, Some(Cause::BackendTls(TlsFault::WrongName)), 1), "and none answers");
    assert_eq!(w.secured.len(), 2);
    w.finish();
}

/// Handshakes that fail count as connections that fail.
#[test]
fn health_by_traffic() {
    let pool = format!("{TWO}\n[backend_pools.health_config]\ncheck_every = 60");
    let mut w = World::new(&one_pool(&pool));
    w.advance_ms(0);
    assert_eq!(w.health().len(), 2, "both are well");
    w.backend(A).open = fails(TlsFault::UnknownCa);
    w.backend(A).probe_open = Some(Open::Take);
    w.shards[0].observer_mut().health_lines.clear();
    for _ in 0..8 {
        w.client_sends(&get("/"));
    }
    assert!(w.exchanges().iter().all(|e| e.status == 200));
    let lines = &w.shards[0].observer_mut().health_lines;
    assert_eq!(lines[0], "unhealthy traffic backend_tls_unknown_ca, 1/2 0/0", "{lines:?}");
    w.finish();
}

/// A check speaks TLS too, and says what was wrong with it.
#[test]
fn health_by_checks() {
    for (fault, name, _) in FAULTS {
        let mut w = World::new(&one_pool(&format!("{ONE}\n[backend_pools.health_config]\ncheck_every = 10")));
        w.backend(A).probe_open = Some(fails(fault));
        w.advance_ms(0);
        assert_eq!(w.health(), [(A.to_owned(), Unknown, Unhealthy)], "{name}");
        assert_eq!(w.shards[0].observer_mut().why, name);
        w.backend(A).probe_open = Some(Open::Take);
        w.advance_ms(30_000);
        assert_eq!(w.health(), [(A.to_owned(), Unhealthy, Healthy)], "{name}");
        let names: Vec<_> = w.secured.iter().map(|(_, tls)| tls.as_ref().map(|t| t.name.clone())).collect();
        assert!(names.len() > 1);
        let ip: IpAddr = [10, 0, 0, 1].into();
        assert!(names.iter().all(|name| *name == Some(TlsName::Ip(ip))), "{names:?}");
        w.finish();
    }
}

/// What breaks once a connection is there. What was refused late was not served; a close is one, whatever
/// should have come before it.
#[test]
fn faults_after_the_handshake() {
    let table = [
        (TlsFault::Closed, &get("/") as &str, (502, Cause::BackendClosed, 2)),
        (TlsFault::Closed, POST, (502, Cause::BackendClosed, 1)),
        (TlsFault::Refused, &get("/"), (502, Cause::BackendTls(TlsFault::Refused), 2)),
        (TlsFault::ClientCertificate, POST, (502, Cause::BackendTls(TlsFault::ClientCertificate), 1)),
        (TlsFault::Protocol, POST, (502, Cause::BackendTls(TlsFault::Protocol), 1)),
    ];
    for (fault, request, (status, cause, attempts)) in table {
        let mut w = World::new(&one_pool(TWO));
        (w.backend(A).reply, w.backend(B).reply) = (Reply::Hold, Reply::Hold);
        w.client_sends(request);
        for at in [A, B] {
            for b in w.to(at) {
                w.fault(b, Fault::Tls(fault));
            }
        }
        assert_eq!(w.one(), (status, Some(cause), attempts), "{fault:?} {request}");
        w.finish();
    }
    // In the middle of a response: it is not whole, even if its end is the end of the connection.
    let mut w = World::new(&one_pool(ONE));
    w.backend(A).reply = Reply::Hold;
    let c = w.client_sends(&get("/"));
    let b = w.to(A)[0];
    w.reply(b, "HTTP/1.1 200 OK\r\n\r\nabc");
    w.fault(b, Fault::Tls(TlsFault::Closed));
    assert_eq!(w.one(), (200, Some(Cause::ResponseTruncated), 1));
    assert!(w.peer(c).cut, "and the client sees that");
    w.finish();
}

/// A connection that was idle and is closed as it is taken is replaced at no cost, as without TLS.
#[test]
fn an_idle_connection_that_closes_without_a_word() {
    let mut w = World::new(&one_pool(&format!("{ONE}\nretries = 0")));
    let c = w.client();
    assert_eq!(w.ask(c, "/1"), [200]);
    w.backend(A).replies.push_back(Reply::Hold);
    w.send(c, get("/2"));
    let b = w.to(A)[0];
    w.fault(b, Fault::Tls(TlsFault::Closed));
    assert_eq!(w.statuses(c), [200]);
    assert_eq!(w.exchanges().iter().map(|e| e.attempts).collect::<Vec<_>>(), [1, 2]);
    w.finish();
}

/// `timeouts.connect` is for the handshake too: the driver says that a connection is there when it is over.
#[test]
fn a_handshake_that_never_ends() {
    let mut w = World::new(&one_pool(TWO));
    (w.backend(A).open, w.backend(B).open) = (Open::Silent, Open::Silent);
    w.client_sends(POST);
    w.advance_ms(10_010);
    assert_eq!(w.one(), (504, Some(Cause::ConnectTimeout), 2));
    w.finish();
}

/// Once the socket is connected, its handshake has all of the time; before that the next address of a name is
/// tried soon.
#[test]
fn an_address_whose_handshake_never_ends() {
    for (scheme, handshaking, after) in [("http", false, 250), ("https", false, 250), ("https", true, 5_000)]
    {
        let mut w = World::new(&one_pool(&format!("addresses = [\"{scheme}://a.test:443\"]\nretries = 0")));
        w.advance_ms(0);
        let query = w.lookups.pop().expect("asked");
        w.response(query, LookupResult::Addresses(vec![addr(A), addr(B)]));
        (w.backend(A).open, w.backend(B).open) = (Open::Silent, Open::Silent);
        w.client_sends(&get("/"));
        let first = w.secured[0].0.clone();
        let other = if first == endpoint(A) { B } else { A };
        w.backend(other).open = Open::Take;
        if handshaking {
            w.handshaking(&first.to_string());
        }
        w.advance_ms(after - 10);
        assert_eq!(w.secured.len(), 1, "{scheme}: too early");
        w.advance_ms(20);
        let expected =
            if handshaking { (1, (504, Some(Cause::ConnectTimeout), 1)) } else { (2, (200, None, 1)) };
        assert_eq!((w.secured.len(), w.one()), expected, "{scheme}");
        w.finish();
    }
}

/// Plain and TLS in one pool: each connection is told apart.
#[test]
fn who_is_spoken_to_how() {
    let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:443\", \"https://10.0.0.2:443\"]"));
    for _ in 0..2 {
        w.client_sends(&get("/"));
    }
    let made: Vec<_> =
        w.secured.iter().map(|(to, tls)| (to.clone(), tls.as_ref().map(|t| &*t.label))).collect();
    assert_eq!(made, [(endpoint(A), None), (endpoint(B), Some(B))]);
    w.finish();
}

/// After a reload nothing goes over connections that were made under other rules.
#[test]
fn idle_connections_over_a_reload() {
    let pool = |rest: &str| config(&one_pool(&format!("name = \"p\"\n{rest}")));
    let plain = "addresses = [\"10.0.0.1:443\"]";
    let with = |keys: &str| format!("{ONE}\ntls = {{ {keys} }}");
    let (named, open) = (with("server_name = \"a.test\""), with("verify = false"));
    let table = [
        (ONE, ONE, true),
        (ONE, &with("verify = true"), true),
        (plain, ONE, false),
        (ONE, plain, false),
        (ONE, &named, false),
        (&named, &with("server_name = \"b.test\""), false),
        (&open, ONE, false),
        (ONE, &with("ca_file = \"x\""), false),
        (ONE, &with("client_certificate = \"x\", client_key = \"y\""), false),
    ];
    for (before, after, stays) in table {
        let mut w = World::of(&pool(before), 1);
        w.backend(A).reply = ok("").as_str().into();
        let c = w.client();
        assert_eq!(w.ask(c, "/"), [200]);
        w.reconfigure(&pool(after));
        assert_eq!(w.counts().backends_idle, usize::from(stays), "{before} {after}");
        assert_eq!(w.ask(c, "/"), [200]);
        assert_eq!(w.made_to(A), 2 - usize::from(stays), "{before} {after}");
        w.finish();
    }
}
