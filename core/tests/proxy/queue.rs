//! `max_connections` and the queue before it, over two shards.

use std::collections::BTreeSet;

use ruststrom_core::Cause;
use ruststrom_core::Fault;
use ruststrom_core::rng::Rng;

use crate::world::{EndedExchange, Event, Open, Reply, Sock, World, config, endpoint, get, ok, one_pool};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";

fn capped(max: u32, more: &str) -> String {
    one_pool(&format!("addresses = [{{ address = \"10.0.0.1:80\", max_connections = {max} }}]\n{more}"))
}

fn two_shards(text: &str) -> World {
    World::of(&config(text), 2)
}

/// Answers the request that has lain at a backend for the longest time, and says which.
fn response_one(w: &mut World, at: &str) -> Option<String> {
    let at = w.arrived.iter().position(|(sock, _)| w.peer(*sock).to == Some(endpoint(at)))?;
    let (sock, target) = w.arrived.remove(at);
    w.reply(sock, ok(&target));
    Some(target)
}

#[test]
fn never_more_and_in_order() {
    let mut w = two_shards(&capped(2, ""));
    w.backend(A).reply = Reply::Hold;
    let clients: Vec<Sock> = (0..8).map(|n| w.client_at(n % 2)).collect();
    for (n, c) in clients.iter().enumerate() {
        w.send(*c, get(&format!("/{n}")));
    }
    assert_eq!(w.shards.iter().map(|s| s.counts().queued).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(w.shards[0].counts().in_flight, 2);
    let mut order = Vec::new();
    while let Some(target) = response_one(&mut w, A) {
        order.push(target);
        assert!(w.shards[0].counts().in_flight <= 2);
    }
    // Each shard's own are served in their order.
    for shard in 0..2 {
        let own: Vec<usize> =
            order.iter().map(|t| t[1..].parse().expect("a number")).filter(|n| n % 2 == shard).collect();
        assert!(own.is_sorted() && own.len() == 4, "{order:?}");
    }
    for (n, c) in clients.iter().enumerate() {
        assert!(w.got(*c).ends_with(&format!("/{n}")), "the right answer");
    }
    assert!(w.nudges > 0);
    assert!(w.exchanges().iter().all(|t| (t.status, t.cause) == (200, None)));
    w.finish();
}

/// Who has looked for free slots and has nobody waiting is told of none.
#[test]
fn nobody_is_nudged_in_vain() {
    let mut w = two_shards(&capped(1, ""));
    w.backend(A).reply = Reply::Hold;
    let (first, second) = (w.client_at(0), w.client_at(1));
    w.send(first, get("/1"));
    w.send(second, get("/2"));
    assert_eq!((response_one(&mut w, A), w.nudges), (Some("/1".to_owned()), 1), "the other shard waits");
    assert_eq!((response_one(&mut w, A), w.nudges), (Some("/2".to_owned()), 1));
    for n in 3..6 {
        w.events.push_back(Event::Nudged(1));
        w.settle();
        w.send(first, get(&format!("/{n}")));
        assert_eq!((response_one(&mut w, A), w.nudges), (Some(format!("/{n}")), 1));
    }
    w.finish();
}

/// A client that sends one request behind the other does not overtake those that wait.
#[test]
fn nobody_is_overtaken() {
    let mut w = World::new(&capped(1, ""));
    w.backend(A).reply = Reply::Hold;
    let greedy = w.client_sends(&format!("{}{}{}", get("/g1"), get("/g2"), get("/g3")));
    let patient = w.client_sends(&get("/p1"));
    let order: Vec<String> = std::iter::from_fn(|| response_one(&mut w, A)).collect();
    assert_eq!(order, ["/g1", "/p1", "/g2", "/g3"]);
    assert_eq!((w.statuses(greedy), w.statuses(patient)), (vec![200; 3], vec![200]));
    w.finish();
}

#[test]
fn full_late_and_gone() {
    let mut w = World::new(&capped(1, "[backend_pools.limits]\nqueue = 2"));
    w.backend(A).reply = Reply::Hold;
    let first = w.client_sends(&get("/1"));
    let second = w.client_sends(&get("/2"));
    let third = w.client_sends(&get("/3"));
    let fourth = w.client_sends(&get("/4"));
    assert_eq!((w.statuses(fourth), w.one()), (vec![503], (503, Some(Cause::QueueFull), 0)));
    // One that waits goes away: there is room for another.
    w.fault(second, Fault::Reset);
    assert_eq!((w.one(), w.counts().queued), ((499, Some(Cause::ClientClosed), 0), 1));
    w.advance_ms(1_000);
    let fifth = w.client_sends(&get("/5"));
    assert_eq!(w.counts().queued, 2);
    w.advance_ms(4_010);
    assert_eq!((w.statuses(third), w.one()), (vec![503], (503, Some(Cause::QueueTimeout), 0)));
    let order: Vec<String> = std::iter::from_fn(|| response_one(&mut w, A)).collect();
    assert_eq!(
        (order, w.statuses(first), w.statuses(fifth)),
        (vec!["/1".to_owned(), "/5".to_owned()], vec![200], vec![200])
    );
    w.finish();
}

/// Thousands that come and go while the first waits: the queue holds those who wait, and no more.
#[test]
fn many_come_and_go() {
    let mut w = World::new(&capped(1, ""));
    w.backend(A).reply = Reply::Hold;
    let first = w.client_sends(&get("/1"));
    let second = w.client_sends(&get("/2"));
    for _ in 0..3_000 {
        let c = w.client_sends(&get("/x"));
        w.fault(c, Fault::Reset);
    }
    assert_eq!(w.counts().queued, 1);
    assert_eq!((response_one(&mut w, A), response_one(&mut w, A)), (Some("/1".into()), Some("/2".into())));
    assert_eq!((w.statuses(first), w.statuses(second)), (vec![200], vec![200]));
    w.finish();
}

/// Whoever waits for one backend alone does not keep others from theirs.
#[test]
fn one_that_is_choosy_does_not_block() {
    let pool = "addresses = [{ address = \"10.0.0.1:80\", max_connections = 1 }, { address = \"10.0.0.2:80\", max_connections = 1 }]\n\
                strategy = { StickyCookie = { cookie_name = \"s\", http_only = true, secure = false, same_site = \"Lax\", inner = { RoundRobin = {} } } }";
    let mut w = World::new(&one_pool(pool));
    for at in [A, B] {
        w.backend(at).reply = Reply::Hold;
    }
    let mut cookies = Vec::new();
    for _ in 0..2 {
        let c = w.client_sends(&get("/"));
        while response_one(&mut w, A).or_else(|| response_one(&mut w, B)).is_some() {}
        let got = w.got(c);
        cookies.push(
            got.split("Set-Cookie: ").nth(1).and_then(|s| s.split(';').next()).expect("a cookie").to_owned(),
        );
    }
    assert_ne!(cookies[0], cookies[1]);
    let with = |cookie: &str, target: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nCookie: {cookie}\r\n\r\n")
    };
    // Both are busy; two wait for the first, one for the second, one for any.
    let clients: Vec<Sock> = ["/0", "/1", "/2", "/3", "/4", "/5"]
        .iter()
        .zip([0, 1, 0, 0, 1, 9])
        .map(|(target, which)| w.client_sends(&cookies.get(which).map_or(get(target), |c| with(c, target))))
        .collect();
    assert_eq!(w.counts().queued, 4);
    // Only the second backend answers: whoever can use it gets it, though older ones wait for the first.
    let (first, second) =
        if w.to(A).iter().any(|b| String::from_utf8_lossy(&w.peer(*b).received).contains("/0 ")) {
            (A, B)
        } else {
            (B, A)
        };
    let order: Vec<String> = std::iter::from_fn(|| response_one(&mut w, second)).collect();
    assert_eq!(order, ["/1", "/4", "/5"]);
    let order: Vec<String> = std::iter::from_fn(|| response_one(&mut w, first)).collect();
    assert_eq!(order, ["/0", "/2", "/3"]);
    for c in clients {
        assert_eq!(w.statuses(c), [200]);
    }
    w.finish();
}

/// A reload does not forget those who wait by the older configuration, nor lets a new one exceed the cap.
#[test]
fn over_a_reload() {
    let (before, after) =
        (capped(1, ""), capped(1, "retries = 2\n[backend_pools.health_config]\nslow_threshold = 299"));
    let mut w = two_shards(&before);
    w.backend(A).reply = Reply::Hold;
    let old = [w.client_at(0), w.client_at(0), w.client_at(1)];
    for (n, c) in old.iter().enumerate() {
        w.send(*c, get(&format!("/old{n}")));
    }
    w.reconfigure(&config(&after));
    let new = [w.client_at(0), w.client_at(1)];
    for (n, c) in new.iter().enumerate() {
        w.send(*c, get(&format!("/new{n}")));
    }
    assert_eq!(w.shards.iter().map(|s| s.counts().queued).sum::<usize>(), 4);
    let order: BTreeSet<String> = std::iter::from_fn(|| {
        assert!(w.shards[0].counts().in_flight <= 1);
        response_one(&mut w, A)
    })
    .collect();
    assert_eq!(order.len(), 5, "{order:?}");
    for c in old.into_iter().chain(new) {
        assert_eq!(w.statuses(c), [200]);
    }
    w.finish();
}

/// The error of the last attempt is the one that is reported, also when the retry ends in the queue.
#[test]
fn the_last_error_is_told() {
    let pool =
        "addresses = [\"10.0.0.1:80\", { address = \"10.0.0.2:80\", max_connections = 1 }]\nretries = 1";
    let mut w = World::new(&one_pool(pool));
    w.backend(A).opens = [Open::Take, Open::Fails(Fault::Refused)].into();
    w.backend(B).reply = Reply::Hold;
    // One for the first, one that stays at the second, one that is refused by the first.
    w.send_from_new_client(&get("/"));
    w.send_from_new_client(&get("/"));
    w.exchanges();
    let a = w.to(A)[0];
    w.end(a);
    let c = w.client_sends(&get("/"));
    assert_eq!(w.counts().queued, 1);
    w.advance_ms(5_010);
    assert_eq!(w.statuses(c), [502]);
    let exchanges = w.exchanges();
    let EndedExchange { cause, attempts, backend, failed, .. } = &exchanges[0];
    assert_eq!((*cause, *attempts, &**backend), (Some(Cause::ConnectRefused), 1, A));
    assert_eq!(*failed, [(A.to_owned(), Cause::ConnectRefused)]);
    w.finish();
}

/// Hundreds of clients on two shards in any order: the cap holds at every moment, and everybody is served.
#[test]
fn in_any_order() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let mut w = two_shards(&capped(3, "[backend_pools.limits]\nqueue = 1000"));
        w.chaos = Some(Rng::new(seed + 1000));
        w.backend(A).reply = Reply::Hold;
        let clients: Vec<Sock> = (0..60).map(|n| w.client_at(n % 2)).collect();
        for (n, c) in clients.iter().enumerate() {
            w.put(*c, get(&format!("/{n}")));
        }
        let mut responded = 0;
        while responded < clients.len() {
            for _ in 0..rng.below(30) {
                w.step();
                assert!(w.shards[0].counts().in_flight <= 3);
            }
            if rng.below(3) == 0 {
                w.settle();
                responded += usize::from(response_one(&mut w, A).is_some());
            }
        }
        w.settle();
        for (n, c) in clients.iter().enumerate() {
            assert!(w.got(*c).ends_with(&format!("\r\n\r\n/{n}")), "{seed}");
        }
        assert!(w.busiest[&endpoint(A)] <= 3 + w.counts().backends_idle, "{seed}");
        w.finish();
    }
}
