//! Which backend gets what: turns over shards, backups, cookies, probes, and names.

use std::collections::BTreeMap;

use ruststrom_core::observe::HealthState::{self, Healthy, Slow, Unhealthy, Unknown};
use ruststrom_core::{Cause, Fault, ListenerId, LookupResult};

use crate::world::{Open, Reply, Sock, World, addr, config, endpoint, get, ok, one_pool};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";
const THREE: &str = "addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\", \"10.0.0.3:80\"]";

fn probed(every: u32, pool: &str) -> String {
    format!(
        "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = {every}\n[[backend_pools]]\n{pool}\n"
    )
}

fn ask(w: &mut World) -> (u16, String) {
    let c = w.client_sends(&get("/"));
    w.end(c);
    let exchanges = w.exchanges();
    (exchanges[0].status, exchanges[0].backend.clone())
}

/// Backends of the next `n` requests, counted.
fn count(w: &mut World, n: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        *counts.entry(ask(w).1).or_default() += 1;
    }
    counts
}

fn counts(all: &[(&str, usize)]) -> BTreeMap<String, usize> {
    all.iter().map(|(at, n)| ((*at).to_owned(), *n)).collect()
}

/// Exact over all shards, whoever of them a request comes to, by weight.
#[test]
fn in_turn_over_shards() {
    let weighted = "addresses = [{ address = \"10.0.0.1:80\", weight = 3 }, { address = \"10.0.0.2:80\", weight = 2 }, \"10.0.0.3:80\"]";
    for (pool, shares) in [(THREE, [1, 1, 1]), (weighted, [3, 2, 1])] {
        let mut w = World::of(&config(&one_pool(pool)), 3);
        let clients: Vec<Sock> = (0..3).map(|n| w.client_at(n)).collect();
        let round: usize = shares.iter().sum();
        for n in 0..10 * round {
            // By no pattern that the turns could hide behind.
            let c = clients[(n * n + n / 4) % 3];
            assert_eq!(w.ask(c, "/"), [200]);
            if (n + 1) % round == 0 {
                for (at, share) in [A, B, C].iter().zip(shares) {
                    let served = w.served.iter().filter(|(to, _)| *to == endpoint(at)).count();
                    assert_eq!(served, share * (n + 1) / round, "{at} after {n}");
                }
            }
        }
        w.finish();
    }
}

#[test]
fn backups_stand_in() {
    let pool = "addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\", { address = \"10.0.0.3:80\", backup = true }]\nretries = 0";
    let mut w = World::new(&one_pool(pool));
    assert_eq!(count(&mut w, 4), counts(&[(A, 2), (B, 2)]));
    // Three refusals in a row, and it gets nothing more.
    w.backend(A).open = Open::Fails(Fault::Refused);
    for at in [A, B] {
        for c in w.to(at) {
            w.end(c);
        }
    }
    let all: Vec<(u16, String)> = (0..10).map(|_| ask(&mut w)).collect();
    assert_eq!(all.iter().filter(|(status, _)| *status == 502).count(), 3, "{all:?}");
    assert!(all[6..].iter().all(|(_, at)| at == B), "{all:?}");
    assert_eq!(w.health(), [(A.to_owned(), Unknown, Unhealthy)]);
    w.backend(B).open = Open::Fails(Fault::Unreachable);
    for c in w.to(B) {
        w.end(c);
    }
    let all: Vec<(u16, String)> = (0..6).map(|_| ask(&mut w)).collect();
    assert_eq!(all[3..], [(200, C.to_owned()), (200, C.to_owned()), (200, C.to_owned())], "{all:?}");
    w.health();
    // Without probes each is tried by one real request after a pause, and is back with the first connection.
    w.backend(B).open = Open::Take;
    w.advance_ms(1_200);
    let all: Vec<(u16, String)> = (0..4).map(|_| ask(&mut w)).collect();
    assert_eq!(all.iter().filter(|(status, at)| *status == 502 && at == A).count(), 1, "{all:?}");
    assert!(w.health().contains(&(B.to_owned(), Unhealthy, Healthy)));
    assert_eq!(count(&mut w, 5), counts(&[(B, 5)]));
    w.finish();
}

/// A pause that doubles, from a second to a minute, while a backend refuses; one request pays for each.
#[test]
fn trials_without_probes() {
    let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\nretries = 0"));
    w.backend(A).open = Open::Fails(Fault::Refused);
    let statuses: Vec<u16> = (0..8).map(|_| ask(&mut w).0).collect();
    assert_eq!(statuses, [502, 200, 502, 200, 502, 200, 200, 200]);
    let mut pauses = Vec::new();
    let mut since = w.now;
    while pauses.len() < 9 {
        w.advance_ms(100);
        if ask(&mut w).0 == 502 {
            pauses.push(w.now.since(since).as_secs_f64());
            since = w.now;
        }
        assert!(w.now.since(since).as_secs() < 100);
    }
    // A connect that may take 5 s leaves so long to the trial that runs.
    for (pause, expected) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]) {
        assert!((expected * 0.85..expected * 1.15 + 0.2).contains(pause), "{pauses:?}");
    }
    w.backend(A).open = Open::Take;
    w.advance_ms(70_000);
    assert_eq!((0..3).map(|_| ask(&mut w).0).collect::<Vec<_>>(), [200; 3]);
    w.finish();
}

/// Requests alone never empty a pool: what only they have found to be away is tried while there is nothing
/// better, and a connection brings it back. Once a check has failed it is not tried any more.
#[test]
fn the_last_resort() {
    for check_every in [0, 10] {
        let mut w =
            World::new(&probed(check_every, "addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\nretries = 1"));
        w.advance_ms(0);
        w.health();
        for at in [A, B] {
            // Checks pass all the same: they see another listener of it, say.
            w.backend(at).open = Open::Fails(Fault::Refused);
        }
        let statuses: Vec<(u16, usize)> = (0..8)
            .map(|_| {
                let before = w.made_to(A) + w.made_to(B);
                (ask(&mut w).0, w.made_to(A) + w.made_to(B) - before)
            })
            .collect();
        assert_eq!(statuses, [(502, 2); 8], "each tries both, checks {check_every}");
        assert_eq!(w.health().len(), 2, "both are unhealthy");
        w.backend(A).open = Open::Take;
        assert_eq!((0..3).map(|_| ask(&mut w).0).collect::<Vec<_>>(), [200; 3]);
        assert!(w.health().contains(&(A.to_owned(), Unhealthy, Healthy)));
        w.finish();
    }
}

/// A backend that requests found to be away is checked at once, and again after 250 ms, 500 ms and so on: if
/// it was away for a second it is back in less than another one.
#[test]
fn checks_that_follow_a_failure_of_requests() {
    let text =
        probed(30, "addresses = [\"10.0.0.1:80\"]\nretries = 0\n[backend_pools.health_config]\nramp_up = 0");
    // The owner of the check is nudged by the shard that noticed.
    for shards in [1, 3] {
        let mut w = World::of(&config(&text), shards);
        w.advance_ms(100);
        w.health();
        let checks = |w: &World| w.probed.len() + w.peers_to(A) - w.made_to(A);
        w.backend(A).open = Open::Fails(Fault::Refused);
        let began = (w.now, checks(&w));
        for shard in (0..3).map(|n| n % usize::from(shards)) {
            let c = w.client_at(shard);
            w.send(c, get("/"));
            w.end(c);
        }
        w.exchanges();
        w.advance_ms(0);
        assert!(checks(&w) > began.1, "at once, {shards} shards");
        assert_eq!(ask(&mut w).0, 503, "the check has failed: nothing is left");
        w.advance_ms(1_000);
        w.backend(A).open = Open::Take;
        w.advance_ms(800);
        assert_eq!(ask(&mut w).0, 200, "{shards} shards");
        // From then on at the usual pace.
        let before = checks(&w);
        w.advance_ms(20_000);
        assert_eq!(checks(&w), before);
        w.finish();
    }
}

#[test]
fn cookies() {
    let pool = format!(
        "{THREE}\nstrategy = {{ StickyCookie = {{ cookie_name = \"s\", http_only = true, secure = true, same_site = \"Strict\", inner = {{ \
         RoundRobin = {{}} }} }} }}\nretries = 1"
    );
    let mut w = World::new(&one_pool(&pool));
    let c = w.client();
    let cookie_of = |w: &mut World, c: Sock, request: &str| {
        w.send(c, request);
        let got = w.got(c);
        got.split("\r\nSet-Cookie: ").nth(1).and_then(|line| line.split("\r\n").next()).map(str::to_owned)
    };
    let cookie = cookie_of(&mut w, c, &get("/")).expect("set");
    assert!(cookie.ends_with("; Path=/; HttpOnly; Secure; SameSite=Strict"), "{cookie}");
    let at = w.exchanges()[0].backend.clone();
    let value = cookie.split(';').next().expect("a value").to_owned();
    let with = |value: &str| format!("GET / HTTP/1.1\r\nHost: a.test\r\nCookie: x=y; {value}\r\n\r\n");
    // Kept.
    for _ in 0..5 {
        assert_eq!(cookie_of(&mut w, c, &with(&value)), None);
    }
    assert!(w.exchanges().iter().all(|t| t.backend == at));
    // Nobody's: a new one.
    for wrong in ["s=0123456789abcdef", "s=", "s=zz", "t=1"] {
        assert!(cookie_of(&mut w, c, &with(wrong)).is_some(), "{wrong}");
    }
    w.exchanges();
    // Its backend fails: another, and a new cookie for that one.
    for b in w.to(&at) {
        w.end(b);
    }
    w.backend(&at).open = Open::Fails(Fault::Refused);
    let other = cookie_of(&mut w, c, &with(&value)).expect("another");
    let exchanges = w.exchanges();
    assert!(
        exchanges[0].attempts == 2 && exchanges[0].backend != at && !other.starts_with(&value),
        "{exchanges:?}"
    );
    w.finish();
}

/// The response to a probe, when it comes, and what the backend is then.
#[test]
fn probes() {
    let response = |status: u16| Reply::from(&*format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"));
    type Row = (&'static str, Option<Open>, Reply, u64, HealthState, &'static str);
    let table: Vec<Row> = vec![
        ("200", None, response(200), 0, Healthy, "HTTP 200 after 0 ms"),
        ("399", None, response(399), 0, Healthy, "HTTP 399 after 0 ms"),
        ("400", None, response(400), 0, Unhealthy, "HTTP 400"),
        ("500", None, response(500), 0, Unhealthy, "HTTP 500"),
        ("just not slow", None, response(200), 299, Healthy, "HTTP 200 after 299 ms"),
        ("slow", None, response(200), 300, Slow, "HTTP 200 after 300 ms"),
        ("just in time", None, response(204), 499, Slow, "HTTP 204 after 499 ms"),
        ("too late", None, response(204), 502, Unhealthy, "no answer in 500 ms"),
        ("refused", Some(Open::Fails(Fault::Refused)), response(200), 0, Unhealthy, "connect_refused"),
        ("no connection", Some(Open::Silent), response(200), 502, Unhealthy, "no connection in 500 ms"),
        ("closed", None, Reply::Close, 0, Unhealthy, "backend_closed"),
        ("reset", None, Reply::Reset, 0, Unhealthy, "backend_reset"),
        ("garbage", None, "220 smtp\r\n".into(), 0, Unhealthy, "bad_status_line"),
        (
            "interims first",
            None,
            "HTTP/1.1 103 X\r\n\r\nHTTP/1.1 200 X\r\n\r\n".into(),
            0,
            Healthy,
            "HTTP 200 after 0 ms",
        ),
        (
            "interims, by the thousand",
            None,
            (&*"HTTP/1.1 100 X\r\n\r\n".repeat(20_000)).into(),
            502,
            Unhealthy,
            "no answer in 500 ms",
        ),
        (
            "a head that never ends",
            None,
            (&*format!("HTTP/1.1 200 X\r\nA: {}", "x".repeat(20_000))).into(),
            0,
            Unhealthy,
            "head_too_large",
        ),
    ];
    for (what, open, reply, after, expected, why) in table {
        let mut w = World::new(&probed(10, "addresses = [\"10.0.0.1:80\"]"));
        assert!(!w.shards[0].is_ready(), "{what}");
        let script = w.backend(A);
        (script.probe_open, script.probe) = (open, if after > 0 { Reply::Hold } else { reply.clone() });
        w.advance_ms(0);
        assert_eq!(w.counts().probes, usize::from(after > 0), "{what}");
        if after > 0 {
            w.advance_ms(after);
            if let (Some(probe), Reply::Bytes(bytes)) = (w.probes().first().copied(), &reply) {
                w.send(probe, bytes);
            }
        }
        w.advance_ms(0);
        let health = w.health();
        assert_eq!(health, [(A.to_owned(), Unknown, expected)], "{what}");
        assert_eq!(w.shards[0].observer_mut().why, why, "{what}");
        assert!(w.shards[0].is_ready() && w.counts().probes == 0 && w.counts().pages == 0, "{what}");
        w.finish();
    }
}

/// The admin listener says whether traffic may come: not before every backend has been checked once, nor when
/// the end has been announced or has begun; everything is served until it begins.
#[test]
fn ready_after_the_first_round() {
    let mut w = World::new(&probed(10, "addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]"));
    w.backend("10.0.0.2:80").probe = Reply::Hold;
    w.advance_ms(0);
    let admin = w.accept(0, addr("192.0.2.9:1"), ListenerId(1)).expect("taken");
    assert_eq!((w.ask(admin, "/readyz"), w.ask(admin, "/healthz")), (vec![503], vec![200]));
    let open = w.probes()[0];
    w.send(open, "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(w.ask(admin, "/readyz"), [200], "checked, whatever came of it");
    w.shards[0].announce_drain();
    assert_eq!((w.ask(admin, "/readyz"), w.ask(admin, "/healthz")), (vec![503], vec![200]));
    assert!(w.shards[0].accepting(ruststrom_core::config::ListenerKind::Http));
    let c = w.client();
    assert_eq!(w.ask(c, "/"), [200]);
    w.end(c);
    w.send(admin, "GET /readyz HTTP/1.1\r\nHost: a.test\r\n");
    w.drain(std::time::Duration::from_secs(1));
    w.send(admin, "\r\n");
    assert_eq!(w.statuses(admin), [503]);
    w.finish();
}

/// What a pool asks of its backends, and what it makes of the response: with these keys of `health_config`.
#[test]
fn probes_by_configuration() {
    let with_body = |framing: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}");
    let length = |body: &str| with_body(&format!("Content-Length: {}", body.len()), body);
    const TEXT: &str = "body_contains = \"all is well\"";
    const MISSING: &str = "HTTP 200 without the text of body_contains";
    let far = format!("{}all is well", "x".repeat(65_526));
    type Row = (&'static str, String, bool, HealthState, &'static str);
    let table: Vec<Row> = vec![
        ("expect = 503", "HTTP/1.1 503 X\r\n\r\n".into(), false, Healthy, "HTTP 503 after 0 ms"),
        ("expect = [204, \"500-502\"]", "HTTP/1.1 200 X\r\n\r\n".into(), false, Unhealthy, "HTTP 200"),
        (
            "method = \"HEAD\"",
            "HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n".into(),
            false,
            Healthy,
            "HTTP 200 after 0 ms",
        ),
        (TEXT, length("yes, all is well."), false, Healthy, "HTTP 200 after 0 ms"),
        (TEXT, length("all is not well"), false, Unhealthy, MISSING),
        (TEXT, length(""), false, Unhealthy, MISSING),
        (
            TEXT,
            "HTTP/1.1 204 X\r\n\r\n".into(),
            false,
            Unhealthy,
            "HTTP 204 without the text of body_contains",
        ),
        (TEXT, "HTTP/1.1 500 X\r\n\r\nall is well".into(), false, Unhealthy, "HTTP 500"),
        (
            TEXT,
            with_body("Transfer-Encoding: chunked", "5\r\nall i\r\n6\r\ns well\r\n0\r\n\r\n"),
            false,
            Healthy,
            "HTTP 200 after 0 ms",
        ),
        (TEXT, with_body("Transfer-Encoding: chunked", "5\r\nall i\r\n0\r\n\r\n"), false, Unhealthy, MISSING),
        (TEXT, with_body("Transfer-Encoding: chunked", "zz\r\n"), false, Unhealthy, "bad_chunk_size"),
        (TEXT, with_body("X: y", "so all is well"), false, Healthy, "HTTP 200 after 0 ms"),
        (TEXT, with_body("X: y", "nothing is well"), true, Unhealthy, MISSING),
        (TEXT, with_body("Content-Length: 99", "all is"), true, Unhealthy, "response_truncated"),
        (TEXT, with_body("X: y", &far), false, Unhealthy, MISSING),
        (TEXT, with_body("X: y", &far[1..]), false, Healthy, "HTTP 200 after 0 ms"),
        (TEXT, with_body("X: y", "all is"), false, Unhealthy, "HTTP 200, but no whole answer in 500 ms"),
    ];
    for (keys, reply, closes, expected, why) in &table {
        for pieces in [false, true] {
            let pool = format!("addresses = [\"10.0.0.1:80\"]\n[backend_pools.health_config]\n{keys}");
            let mut w = World::new(&probed(10, &pool));
            w.backend(A).probe = Reply::Hold;
            w.advance_ms(0);
            let probe = w.probes()[0];
            for piece in reply.as_bytes().chunks(if pieces { 3 } else { usize::MAX }) {
                w.send(probe, piece);
            }
            if *closes {
                w.end(probe);
            }
            if why.ends_with("500 ms") {
                assert_eq!(w.health(), [], "{keys} {reply}");
                w.advance_ms(501);
            }
            assert_eq!(w.health(), [(A.to_owned(), Unknown, *expected)], "{keys} {reply}");
            assert_eq!(w.shards[0].observer_mut().why, *why, "{keys} {reply}");
            assert!(w.counts().probes == 0 && w.counts().pages == 0, "{keys} {reply}");
            w.finish();
        }
    }
}

/// The port that is checked may be another than the one that gets requests.
#[test]
fn probes_of_another_port() {
    let pool = "addresses = [\"10.0.0.1:80\"]\n[backend_pools.health_config]\nport = 9000";
    let mut w = World::new(&probed(10, pool));
    w.backend("10.0.0.1:9000").probe = Reply::Hold;
    w.advance_ms(0);
    let probe = w.probes()[0];
    assert_eq!(w.peer(probe).to, Some(endpoint("10.0.0.1:9000")));
    w.send(probe, ok(""));
    assert_eq!(w.health(), [(A.to_owned(), Unknown, Healthy)]);
    assert_eq!(ask(&mut w), (200, A.to_owned()));
    w.finish();
}

/// Changes of health say who noticed, why, and how much of the pool is left.
#[test]
fn what_is_told_of_changes() {
    let pool = "addresses = [\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 2 }, { address = \"10.0.0.3:80\", backup = true }, \
                { address = \"10.0.0.4:80\", weight = 0 }]\nretries = 0\n[backend_pools.health_config]\ncheck_every = 60";
    let mut w = World::new(&probed(60, pool));
    let bad = || Reply::from("HTTP/1.1 500 X\r\n\r\n");
    w.backend(B).probe = Reply::Hold;
    w.advance_ms(0);
    w.advance_ms(501);
    assert_eq!(
        w.shards[0].observer_mut().health_lines.split_off(0),
        [
            "healthy check check_passed, 2/2 1/1",
            "healthy check check_passed, 2/2 1/1",
            "healthy check check_passed, 2/2 1/1",
            "unhealthy check check_timeout, 1/2 1/1"
        ]
    );
    w.backend(A).open = Open::Fails(Fault::Refused);
    w.backend(A).probe_open = Some(Open::Take);
    w.backend(A).probe = bad();
    for _ in 0..3 {
        ask(&mut w);
    }
    assert_eq!(
        w.shards[0].observer_mut().health_lines.split_off(0),
        ["unhealthy traffic connect_refused, 0/2 1/1"]
    );
    w.backend(C).probe = bad();
    w.advance_ms(61_000);
    assert_eq!(
        w.shards[0].observer_mut().health_lines.split_off(0),
        ["unhealthy check check_status, 0/2 0/1"]
    );
    w.finish();
}

/// A probe has one time for all of it, however it trickles.
#[test]
fn a_probe_that_trickles() {
    let mut w = World::new(&probed(10, "addresses = [\"10.0.0.1:80\"]"));
    w.backend(A).probe = Reply::Hold;
    w.advance_ms(0);
    let probe = w.probes()[0];
    for b in "HTTP/1.1 200 OK\r\n".bytes() {
        w.send(probe, [b]);
        w.advance_ms(29);
    }
    assert_eq!(w.health(), []);
    w.advance_ms(10);
    assert_eq!(w.health(), [(A.to_owned(), Unknown, Unhealthy)]);
    w.finish();
}

/// What probes make of a backend over time, with `fall` and `rise`, and what requests meet meanwhile.
#[test]
fn falls_and_rises() {
    let pool = "addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\nretries = 0\n[backend_pools.health_config]\nfall = 2\nrise = 3\nramp_up = 10";
    let mut w = World::of(&config(&probed(1, pool)), 2);
    w.advance_ms(0);
    assert_eq!(w.probed.len(), 2, "each by one shard, at once");
    assert!(w.shards.iter().all(|s| s.is_ready()));
    w.advance_ms(10_000);
    let of_a: Vec<_> = w.probed.iter().filter(|(at, _)| *at == endpoint(A)).map(|(_, when)| *when).collect();
    assert!((9..=13).contains(&of_a.len()), "{of_a:?}");
    let waits: Vec<u128> = of_a.windows(2).map(|p| p[1].since(p[0]).as_millis()).collect();
    assert!(
        (500..=1_002).contains(&waits[0]) && waits[1..].iter().all(|w| (895..=1_105).contains(w)),
        "{waits:?}"
    );
    w.health();

    let probes_of_a = |w: &World| w.probed.iter().filter(|(at, _)| *at == endpoint(A)).count();
    let wait = |w: &mut World, more: usize| {
        let enough = probes_of_a(w) + more;
        while probes_of_a(w) < enough {
            w.advance_ms(10);
        }
    };
    w.backend(A).probe = Reply::Close;
    wait(&mut w, 1);
    assert_eq!(w.health(), [], "once is not twice");
    wait(&mut w, 1);
    assert_eq!(w.health(), [(A.to_owned(), Healthy, Unhealthy)]);
    assert_eq!(count(&mut w, 4), counts(&[(B, 4)]));
    w.backend(A).probe = ok("").as_str().into();
    wait(&mut w, 2);
    assert_eq!(w.health(), [], "twice is not thrice");
    wait(&mut w, 1);
    assert_eq!(w.health(), [(A.to_owned(), Unhealthy, Healthy)]);
    // From nothing to its whole share in ten seconds.
    let mut shares = Vec::new();
    for _ in 0..12 {
        shares.push(count(&mut w, 100).get(A).copied().unwrap_or(0));
        w.advance_ms(1_000);
    }
    assert!(
        shares[0] <= 12 && (25..=40).contains(&shares[5]) && shares[11] == 50 && shares.is_sorted(),
        "{shares:?}"
    );
    // Slow: a quarter of its weight, at once.
    w.backend(A).probe = Reply::Hold;
    while w.probes().is_empty() {
        w.advance_ms(10);
    }
    w.advance_ms(350);
    let probe = w.probes()[0];
    w.send(probe, ok(""));
    assert_eq!(w.health(), [(A.to_owned(), Healthy, Slow)]);
    assert_eq!(count(&mut w, 100), counts(&[(A, 20), (B, 80)]));
    w.finish();
}

/// Without descriptors of our own nothing is known of a backend, by checks or by requests; once there are
/// some again its check goes on.
#[test]
fn a_shortage_of_our_own() {
    let mut w = World::new(&probed(10, "addresses = [\"10.0.0.1:80\"]\nretries = 0"));
    w.backend(A).open = Open::Fails(Fault::NoResources);
    w.backend(A).probe_open = Some(Open::Fails(Fault::NoResources));
    w.advance_ms(0);
    let all: Vec<u16> = (0..6).map(|_| ask(&mut w).0).collect();
    assert_eq!(all, [502; 6]);
    w.advance_ms(20_000);
    assert_eq!((w.health(), w.counts().probes), (vec![], 0));
    assert!(!w.shards[0].is_ready(), "no check has come about");
    w.backend(A).open = Open::Take;
    w.backend(A).probe_open = None;
    w.advance_ms(21_000);
    assert_eq!(w.health(), [(A.to_owned(), Unknown, Healthy)]);
    assert_eq!(ask(&mut w).0, 200);
    w.finish();
}

/// A check that began before a reload says nothing about who has the place of its backend since.
#[test]
fn a_check_from_before_a_reload() {
    for bad in [true, false] {
        let mut w = World::new(&probed(10, "addresses = [\"10.0.0.1:80\"]"));
        w.backend(A).probe = Reply::Hold;
        w.backend(C).probe = if bad { Reply::from(&*ok("")) } else { Reply::Close };
        w.advance_ms(0);
        let old = w.probes()[0];
        w.reconfigure(&config(&probed(10, "addresses = [\"10.0.0.3:80\"]")));
        w.advance_ms(0);
        let expected = if bad { Healthy } else { Unhealthy };
        assert_eq!(w.health(), [(C.to_owned(), Unknown, expected)], "its own check");
        let late = if bad { "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".to_owned() } else { ok("") };
        w.send(old, late);
        w.advance_ms(0);
        assert!(w.health().iter().all(|(of, ..)| of != C), "the check of another");
        assert_eq!(ask(&mut w).0, if bad { 200 } else { 503 });
        w.finish();
    }
}

/// Real traffic finds out sooner than the next probe, and only a probe brings the backend back.
#[test]
fn real_traffic_finds_out() {
    let mut w =
        World::of(&config(&probed(60, "addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\nretries = 1")), 2);
    w.advance_ms(0);
    w.health();
    w.backend(A).open = Open::Fails(Fault::Refused);
    w.backend(A).probe_open = Some(Open::Take);
    for c in w.to(A) {
        w.end(c);
    }
    let all: Vec<(u16, String)> = (0..12).map(|_| ask(&mut w)).collect();
    assert!(all.iter().all(|one| *one == (200, B.to_owned())), "the retry saves them all");
    assert_eq!(w.health(), [(A.to_owned(), Healthy, Unhealthy)]);
    assert_eq!(w.peers_to(A), 3 + 1, "three were enough, and a probe");
    w.advance_ms(61_000);
    assert!(w.health().contains(&(A.to_owned(), Unhealthy, Healthy)));
    w.finish();
}

/// Who waits for a backend that falls is told so; who waits for one that comes back is served, on every
/// shard.
#[test]
fn health_moves_the_queue() {
    let pool = "addresses = [{ address = \"10.0.0.1:80\", max_connections = 1 }]\nretries = 0\n[backend_pools.timeouts]\nqueue = 100";
    let mut w = World::of(&config(&probed(1, pool)), 2);
    w.advance_ms(0);
    w.backend(A).reply = Reply::Hold;
    let busy = w.client_at(0);
    w.send(busy, get("/"));
    let waiting = [w.client_at(0), w.client_at(1)];
    for c in waiting {
        w.send(c, get("/"));
    }
    w.backend(A).probe = Reply::Close;
    w.advance_ms(1_200);
    for c in waiting {
        assert_eq!(w.statuses(c), [503]);
    }
    assert!(w.exchanges().iter().all(|t| t.cause == Some(Cause::NoBackend)));
    w.finish();
}

#[test]
fn names() {
    let two = |addresses: &[&str]| LookupResult::Addresses(addresses.iter().map(|a| addr(a)).collect());
    let mut w = World::new(&probed(10, "addresses = [\"a.test:80\", \"10.0.0.9:80\"]\nretries = 0"));
    w.advance_ms(0);
    // It is neither healthy nor unhealthy as long as nobody knows where it is; the others serve.
    assert_eq!(w.health(), [("10.0.0.9:80".to_owned(), Unknown, Healthy)]);
    assert!(!w.shards[0].is_ready());
    assert_eq!(count(&mut w, 2), counts(&[("10.0.0.9:80", 2)]));
    let query = w.lookups.pop().expect("asked");
    assert_eq!((query.2.as_str(), w.lookups.len()), ("a.test:80", 0));
    w.response(query.clone(), two(&[A, B]));
    w.advance_ms(0);
    assert_eq!(w.health(), [("a.test:80".to_owned(), Unknown, Healthy)], "at once");
    assert!(w.shards[0].is_ready());
    assert_eq!(count(&mut w, 4), counts(&[("10.0.0.9:80", 2), ("a.test:80", 2)]));
    // A response that comes twice is no response.
    w.response(query, two(&[C]));
    assert_eq!(w.made_to(C), 0);
    // Again after half a minute; its addresses take turns.
    w.advance_ms(29_990);
    assert_eq!(w.lookups.len(), 0);
    w.advance_ms(20);
    let query = w.lookups.pop().expect("asked again");
    w.response(query, LookupResult::Failed("no such name".into()));
    assert_eq!(w.shards[0].observer_mut().notes.len(), 1);
    for at in [A, B] {
        for c in w.to(at) {
            w.end(c);
        }
    }
    let clients: Vec<Sock> = (0..4).map(|_| w.client_sends(&get("/"))).collect();
    assert!(!w.to(A).is_empty() || !w.to(B).is_empty(), "the last good ones are kept");
    assert_eq!(clients.len(), 4);
    w.exchanges();
    // One that is not answered is asked again, and its late response is nobody's.
    w.advance_ms(30_010);
    let late = w.lookups.pop().expect("asked");
    w.advance_ms(20_010);
    let query = w.lookups.pop().expect("asked anew");
    w.response(late, two(&[C]));
    w.response(query, two(&[B]));
    assert_eq!(w.shards[0].observer_mut().notes.len(), 2, "and that it is well again");
    w.lookups.clear();
    w.finish();
}

/// A name that cannot be found is Unhealthy then, asked for every two seconds, and served at once when it is
/// there.
#[test]
fn names_that_come_late() {
    let mut w = World::of(
        &config(&probed(
            60,
            "addresses = [\"a.test:80\"]\nretries = 0\n[backend_pools.health_config]\nramp_up = 1",
        )),
        2,
    );
    w.advance_ms(0);
    assert_eq!(ask(&mut w).0, 503);
    let query = w.lookups.pop().expect("asked");
    w.response(query, LookupResult::Failed("no such name".into()));
    assert!(w.shards.iter().all(|s| s.is_ready()), "nobody waits for it for ever");
    assert_eq!(w.health(), [("a.test:80".to_owned(), Unknown, Unhealthy)]);
    w.advance_ms(1_990);
    assert_eq!(w.lookups.len(), 0);
    w.advance_ms(20);
    let query = w.lookups.pop().expect("asked again");
    w.response(query, LookupResult::Addresses(vec![addr(A)]));
    w.advance_ms(0);
    assert_eq!(w.health(), [("a.test:80".to_owned(), Unhealthy, Healthy)]);
    assert_eq!(ask(&mut w).0, 200);
    w.finish();
}

/// The driver never answers: after a while the probe says what is known.
#[test]
fn names_that_nobody_responses() {
    let mut w = World::new(&probed(10, "addresses = [\"a.test:80\"]"));
    w.advance_ms(19_990);
    assert!(!w.shards[0].is_ready());
    w.advance_ms(25_000);
    assert!(w.shards[0].is_ready());
    assert_eq!(w.health(), [("a.test:80".to_owned(), Unknown, Unhealthy)]);
    w.lookups.clear();
    w.finish();
}

/// A drain ends what is asked of the world, too, and says nothing of a backend.
#[test]
fn probes_and_drains() {
    let mut w = World::new(&probed(1, "addresses = [\"10.0.0.1:80\"]"));
    w.advance_ms(0);
    w.health();
    w.backend(A).reply = Reply::Hold;
    let c = w.client_sends(&get("/"));
    w.backend(A).probe = Reply::Hold;
    w.advance_ms(1_000);
    assert_eq!(w.counts().probes, 1);
    let before = w.probed.len();
    w.drain(std::time::Duration::from_secs(10));
    w.advance_ms(5_000);
    assert_eq!((w.counts().probes, w.probed.len(), w.health()), (0, before, vec![]));
    let b = w.to(A)[0];
    w.reply(b, ok(""));
    assert_eq!(w.statuses(c), [200]);
    w.end(c);
    assert_eq!(w.drained, [0]);
    w.finish();
}
