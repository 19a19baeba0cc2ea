//! What is tried again, where, and how often.

use ruststrom_core::config::Strategy;
use ruststrom_core::http::Violation;
use ruststrom_core::{Cause, Fault};

use crate::world::{EndedExchange, Open, Reply, World, get, ok, one_pool};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";
const POST: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";

fn pool(retries: u8) -> String {
    one_pool(&format!("addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\nretries = {retries}"))
}

fn pool_of_three(retries: u8) -> String {
    one_pool(&format!("addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\", \"10.0.0.3:80\"]\nretries = {retries}"))
}

/// How the first attempts fail, what is asked, and how it ends: status, cause, attempts, the last backend.
#[test]
fn tries() {
    use Cause::{BackendClosed, BackendReset, ConnectFailed, ConnectRefused};
    enum Fails {
        Open(Fault),
        Reply(Reply),
    }
    type Row = (&'static str, u8, Vec<Fails>, String, (u16, Option<Cause>, u8, &'static str));
    use Fails::{Open as O, Reply as R};
    let refused = || O(Fault::Refused);
    let closed = || R(Reply::Close);
    let begun = || R(Reply::BytesThenClose(b"HTTP/1.1 2".to_vec()));
    let long = |method: &str, n: usize| {
        format!("{method} / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {n}\r\n\r\n{}", "x".repeat(n))
    };
    let chunked = |method: &str| {
        format!(
            "{method} / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;a=b\r\nde\r\n0\r\n\r\n"
        )
    };
    let table: Vec<Row> = vec![
        ("unsent: any method", 1, vec![refused()], POST.into(), (200, None, 2, B)),
        ("no retries", 0, vec![refused()], POST.into(), (502, Some(ConnectRefused), 1, A)),
        ("two", 2, vec![refused(), refused()], get("/"), (200, None, 3, C)),
        (
            "never the same twice",
            3,
            vec![refused(), refused(), refused()],
            get("/"),
            (502, Some(ConnectRefused), 3, C),
        ),
        (
            "too few; the last error is told",
            1,
            vec![refused(), closed()],
            get("/"),
            (502, Some(BackendClosed), 2, B),
        ),
        (
            "the same the other way round",
            1,
            vec![closed(), refused()],
            get("/"),
            (502, Some(ConnectRefused), 2, B),
        ),
        (
            "a response that breaks the rules ends it",
            1,
            vec![refused(), R("HTTP/9 200\r\n\r\n".into())],
            get("/"),
            (502, Some(Cause::BadResponse(Violation::Version)), 2, B),
        ),
        ("our own shortage", 1, vec![O(Fault::NoResources)], POST.into(), (200, None, 2, B)),
        (
            "our own shortage twice",
            1,
            vec![O(Fault::NoResources), O(Fault::NoResources)],
            POST.into(),
            (502, Some(ConnectFailed), 2, B),
        ),
        ("sent, idempotent", 1, vec![closed()], get("/"), (200, None, 2, B)),
        ("sent, reset", 1, vec![R(Reply::Reset)], get("/"), (200, None, 2, B)),
        ("sent, not idempotent", 1, vec![closed()], POST.into(), (502, Some(BackendClosed), 1, A)),
        ("a response has begun", 1, vec![begun()], get("/"), (502, Some(BackendClosed), 1, A)),
        ("a body that fits stays", 1, vec![closed()], long("PUT", 15_000), (200, None, 2, B)),
        (
            "a body too long does not",
            1,
            vec![R(Reply::Reset)],
            long("PUT", 40_000),
            (502, Some(BackendReset), 1, A),
        ),
        ("unsent, however long", 1, vec![refused()], long("POST", 400_000), (200, None, 2, B)),
        ("chunks are made anew", 1, vec![closed()], chunked("PUT"), (200, None, 2, B)),
        ("chunks, unsent", 1, vec![refused()], chunked("POST"), (200, None, 2, B)),
    ];
    for (what, retries, fails, request, expected) in table {
        let mut w = World::new(&pool_of_three(retries));
        // Round robin: the attempts go to one after the other.
        for (n, fail) in fails.into_iter().enumerate() {
            let script = w.backend([A, B, C][n]);
            match fail {
                O(fault) => script.opens.push_back(Open::Fails(fault)),
                R(reply) => script.replies.push_back(reply),
            }
        }
        let c = w.client();
        // In pieces, or a long body would never be seen to wait.
        for piece in request.as_bytes().chunks(7_000) {
            w.send(c, piece);
        }
        let exchanges = w.exchanges();
        assert_eq!(exchanges.len(), 1, "{what}");
        let EndedExchange { status, cause, attempts, backend, failed, .. } = &exchanges[0];
        assert_eq!((*status, *cause, *attempts, &**backend), expected, "{what}");
        // Every attempt but a good one is told, in order; the last one is what status and cause are about.
        assert_eq!(failed.len(), usize::from(*attempts) - usize::from(cause.is_none()), "{what}: {failed:?}");
        let turns = failed.iter().enumerate().all(|(n, (at, _))| at == [A, B, C][n]);
        assert!(turns, "{what}: {failed:?}");
        let last = failed.last().map(|(at, cause)| (&**at, *cause));
        assert!(cause.is_none() || last == cause.map(|cause| (&**backend, cause)), "{what}: {failed:?}");
        if *status == 200 {
            let sent = request.split_once("\r\n\r\n").expect("a head").1;
            let (_, served) = w.served.last().expect("served");
            let served = served.split_once("\r\n\r\n").expect("a head").1;
            let plain = |body: &str| body.replace("3\r\nabc\r\n2;a=b\r\nde\r\n", "5\r\nabcde\r\n");
            assert_eq!(plain(served), plain(sent), "{what}: what the last one got");
        }
        w.finish();
    }
}

/// A long body that came whole before anything was sent waits for its backend; another attempt gets all of
/// it.
#[test]
fn a_long_body_begins_again_where_it_was_not_begun() {
    let mut w = World::new(&pool(1));
    w.backend(A).open = Open::Silent;
    let c = w.client();
    let body = "x".repeat(300_000);
    w.send(c, format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    w.advance_ms(5_010);
    assert_eq!(w.statuses(c), [200]);
    assert_eq!(w.served[0].1.split_once("\r\n\r\n").map(|(_, b)| b.len()), Some(body.len()));
    w.finish();
}

/// A reused connection that turns out to be closed is replaced by a fresh one to the same backend, at no
/// cost.
#[test]
fn stale_connections() {
    // What is asked; how many idle connections are stale; retries; the end.
    let table = [
        (get("/"), 1, 0, (200, None, 2)),
        (get("/"), 3, 0, (200, None, 2)),
        // Sent, and perhaps served: not again.
        (POST.to_owned(), 1, 1, (502, Some(Cause::BackendReset), 1)),
    ];
    for (request, stale, retries, expected) in table {
        let mut w = World::new(&one_pool(&format!("addresses = [\"10.0.0.1:80\"]\nretries = {retries}")));
        w.backend(A).reply = Reply::Hold;
        let clients: Vec<_> = (0..stale).map(|_| w.client_sends(&get("/"))).collect();
        for b in w.to(A) {
            w.send(b, ok(""));
        }
        assert_eq!((w.counts().backends_idle, clients.len()), (stale, stale));
        w.exchanges();
        w.backend(A).reply = ok("").as_str().into();
        w.backend(A).replies = [Reply::Reset].into();
        for b in w.to(A) {
            w.got(b);
        }
        let c = w.client_sends(&request);
        assert_eq!(w.one(), expected, "{request} {stale}");
        _ = c;
        w.finish();
    }
}

/// A connection that is lost before a byte of the request has gone: any method is safe, and the fresh one is
/// to the same backend.
#[test]
fn stale_before_anything_was_sent() {
    let mut w = World::new(&pool(0));
    let c = w.client();
    assert_eq!((w.ask(c, "/1"), w.ask(c, "/2")), (vec![200], vec![200]));
    w.exchanges();
    for at in [A, B] {
        let b = w.to(at)[0];
        // The backend takes nothing any more: the request waits, then the reset is noticed.
        w.room(b, 0);
    }
    w.send(c, POST);
    let busy = if w.peer(w.to(A)[0]).room == 0 && w.counts().backends_busy == 1 { A } else { B };
    let b = w.to(busy)[0];
    w.fault(b, Fault::Reset);
    let exchanges = w.exchanges();
    assert_eq!(
        (exchanges[0].status, exchanges[0].cause, exchanges[0].attempts, exchanges[0].reused),
        (200, None, 2, false)
    );
    assert_eq!(exchanges[0].backend, busy);
    w.finish();
}

/// Bytes that come before any request are no response to it.
#[test]
fn what_lies_on_an_idle_connection() {
    let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:80\"]"));
    let c = w.client();
    assert_eq!(w.ask(c, "/"), [200]);
    let b = w.to(A)[0];
    w.send(b, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    assert!(w.peer(b).closed);
    assert_eq!(w.ask(c, "/"), [200]);
    // It arrives while the next request is about to go.
    let b = w.to(A)[0];
    w.room(b, 0);
    w.send(c, get("/"));
    w.put(b, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    w.settle();
    let got = w.got(c);
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && !got.contains("poison"), "{got}");
    w.finish();
}

/// One retry for five requests, and a thousand saved up.
#[test]
fn the_budget_of_retries() {
    let mut w = World::new(&pool(1));
    for at in [A, B] {
        w.backend(at).reply = Reply::Close;
    }
    let c = w.client();
    for _ in 0..3_000 {
        assert_eq!(w.ask(c, "/"), [502]);
    }
    let attempts: Vec<u8> = w.exchanges().iter().map(|t| t.attempts).collect();
    let early = attempts[..1_000].iter().filter(|n| **n == 2).count();
    let late = attempts[2_000..].iter().filter(|n| **n == 2).count();
    assert_eq!((early, late), (1_000, 200));
    w.finish();
}

/// What has failed is not asked again, though it were the only one; a backup is another one.
#[test]
fn where_to() {
    let table = [
        ("alone", "addresses = [\"10.0.0.1:80\"]", None),
        ("a backup", "addresses = [\"10.0.0.1:80\", { address = \"10.0.0.2:80\", backup = true }]", Some(B)),
        ("another", "addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]", Some(B)),
        (
            "none that takes nothing",
            "addresses = [\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 0 }]",
            None,
        ),
    ];
    let strategies = [
        ("{ RoundRobin = {} }", Strategy::RoundRobin),
        ("{ LeastConnection = {} }", Strategy::LeastConnection),
        ("{ Random = {} }", Strategy::Random),
        ("{ IPHash = {} }", Strategy::IpHash),
    ];
    for (what, addresses, expected) in table {
        for (name, strategy) in &strategies {
            let text = one_pool(&format!("{addresses}\nstrategy = {name}"));
            assert_eq!(crate::world::config(&text).pools[0].strategy, *strategy);
            let mut w = World::new(&text);
            // Whoever is first fails.
            w.backend(A).replies.push_back(Reply::Close);
            if what == "another" {
                w.backend(B).replies.push_back(Reply::Close);
            }
            w.client_sends(&get("/"));
            let exchanges = w.exchanges();
            if what == "another" {
                let served: Vec<_> = w.served.iter().map(|(at, _)| at.clone()).collect();
                assert_eq!((exchanges[0].status, exchanges[0].attempts), (502, 2), "{what} {name}");
                assert!(served.len() == 2 && served[0] != served[1], "{what} {name}: {served:?}");
            } else {
                let end = expected.map_or((502, 1, A), |other| (200, 2, other));
                let ended = &exchanges[0];
                assert_eq!((ended.status, ended.attempts, &*ended.backend), end, "{what} {name}");
            }
            w.finish();
        }
    }
}

/// A request that timed out is not repeated, unless the pool says so: then each attempt has the whole time.
#[test]
fn timed_out() {
    for (key, gets) in [("", vec![(504, 1, 2_000)]), ("retries_on_timeout = true", vec![(504, 2, 4_000)])] {
        let text = format!(
            "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[timeouts]\nbackend_head = 2\n\
             [[backend_pools]]\naddresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\nretries = 3\n{key}\n"
        );
        for (status, attempts, after_ms) in gets {
            let mut w = World::new(&text);
            for at in [A, B] {
                w.backend(at).reply = Reply::Hold;
            }
            let c = w.client_sends(&get("/"));
            w.advance_ms(after_ms - 10);
            assert_eq!(w.statuses(c), [0; 0], "{key}: too early");
            w.advance_ms(20);
            let ended = w.exchanges();
            assert_eq!((ended[0].status, ended[0].attempts), (status, attempts), "{key}");
            w.finish();
        }
    }
}

/// The time for a response's head is one time for all attempts.
#[test]
fn all_attempts_together() {
    let text = "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[timeouts]\nbackend_head = 2\n\
                [[backend_pools]]\naddresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n";
    let mut w = World::new(text);
    for at in [A, B] {
        w.backend(at).reply = Reply::Hold;
    }
    let c = w.client_sends(&get("/"));
    w.advance_ms(1_500);
    let first = w.to(A)[0];
    w.fault(first, Fault::Reset);
    w.advance_ms(490);
    assert_eq!((w.statuses(c).len(), w.to(B).len()), (0, 1), "the second attempt is under way");
    w.advance_ms(20);
    assert_eq!(w.one(), (504, Some(Cause::BackendTimeout), 2));
    w.finish();
}
