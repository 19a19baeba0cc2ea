//! How connections live and end: idle ones, early responses, tunnels, scarce pages, drains and reloads.

use std::time::Duration;

use ruststrom_core::config::ListenerKind;
use ruststrom_core::http::Violation;
use ruststrom_core::page::{LARGE_BYTES, SMALL_BYTES};
use ruststrom_core::proxy::Counts;
use ruststrom_core::{Cause, Fault, ListenerId, Refused};

use crate::world::{Open, Reply, Sock, World, addr, config, endpoint, get, ok, one_pool};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const ONE: &str = "addresses = [\"10.0.0.1:80\"]";
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";

fn held(pool: &str) -> World {
    let mut w = World::new(&one_pool(pool));
    w.backend(A).reply = Reply::Hold;
    w.backend(B).reply = Reply::Hold;
    w
}

#[test]
fn a_thousand_requests_behind_each_other() {
    let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]"));
    let all: String = (0..1_000).map(|n| get(&format!("/{n}"))).collect();
    let c = w.client_sends(&all);
    assert_eq!(w.statuses(c), [200; 1_000]);
    let targets: Vec<String> = w.exchanges().into_iter().map(|t| t.target).collect();
    assert_eq!(targets, (0..1_000).map(|n| format!("/{n}")).collect::<Vec<_>>());
    assert_eq!((w.made_to(A), w.made_to(B)), (1, 1));
    w.finish();
}

/// How many connections lie idle after so many at once, by what the file and the backend say, and a moment
/// later.
#[test]
fn idle_connections() {
    let table = [
        ("", "", 40, 32, 32),
        ("pool_max_idle_per_host = 2", "", 5, 2, 2),
        ("pool_max_idle_per_host = 0", "", 5, 0, 0),
        ("pool_idle_timeout = 1", "", 3, 3, 0),
        ("", "Keep-Alive: timeout=3\r\n", 3, 3, 0),
        ("", "Keep-Alive: timeout=9\r\n", 3, 3, 3),
        ("pool_idle_timeout = 9", "Keep-Alive: timeout=90\r\n", 3, 3, 3),
        ("", "Keep-Alive: timeout=1\r\n", 3, 0, 0),
        ("", "Keep-Alive: timeout=0\r\n", 3, 0, 0),
        ("", "Connection: close\r\n", 3, 0, 0),
    ];
    for (setting, says, clients, idle, later) in table {
        let mut w = held(&format!("{ONE}\n[backend_pools.client]\n{setting}"));
        for _ in 0..clients {
            w.send_from_new_client(&get("/"));
        }
        for b in w.to(A) {
            w.send(b, format!("HTTP/1.1 200 OK\r\n{says}Content-Length: 0\r\n\r\n"));
        }
        w.advance_ms(2);
        assert_eq!(w.counts().backends_idle, idle, "{setting} {says}");
        w.advance_ms(2_500);
        assert_eq!(w.counts().backends_idle, later, "{setting} {says}");
        w.finish();
    }
}

/// The one that has lain for the shortest time is taken, whoever the client is.
#[test]
fn idle_connections_are_everyones() {
    let mut w = held(ONE);
    let clients: Vec<Sock> = (0..3).map(|_| w.client_sends(&get("/"))).collect();
    let all = w.to(A);
    for b in [1, 0, 2] {
        w.send(all[b], ok(""));
        w.got(all[b]);
    }
    w.send(clients[0], get("/again"));
    assert!(w.got(all[2]).starts_with("GET /again "));
    assert_eq!(w.made_to(A), 3);
    w.finish();
}

/// The backend answers before it has all of the request: what the client gets, whether it may ask again, what
/// the backend still gets.
#[test]
fn early_responses() {
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n01234";
    // The response; what else happens; whether the client's connection stays.
    let whole = "HTTP/1.1 413 X\r\nContent-Length: 2\r\n\r\nno";
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab";

    // Whole: the client's connection ends after it, and what it still sends goes nowhere.
    let mut w = held(ONE);
    let c = w.client_sends(head);
    let b = w.to(A)[0];
    w.send(b, whole);
    assert_eq!(
        (w.statuses(c), w.peer(c).shut, w.peer(c).closed, w.peer(b).closed),
        (vec![413], true, false, true)
    );
    assert_eq!(w.one(), (413, None, 1));
    w.send(c, "56789GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!((w.made_to(A), w.counts().pages), (1, 0));
    w.advance_ms(2_010);
    assert!(w.peer(c).closed && !w.peer(c).cut);
    w.finish();

    // Half: the request goes on, all of it, and the response too; then the connection ends, for the response
    // had said so.
    let mut w = held(ONE);
    let c = w.client_sends(head);
    let b = w.to(A)[0];
    w.send(b, half);
    w.send(c, "56789");
    w.send(b, "cd");
    assert!(w.got(b).ends_with("\r\n\r\n0123456789"));
    let got = w.got(c);
    assert!(got.ends_with("\r\n\r\nabcd") && got.contains("Connection: close\r\n"), "{got}");
    assert!(w.peer(c).shut && !w.peer(b).closed);
    w.finish();

    // Half, and the backend takes nothing more, nor says anything: both are cut.
    let mut w = held(ONE);
    let c = w.client_sends(head);
    let b = w.to(A)[0];
    w.send(b, half);
    w.room(b, 0);
    w.send(c, "56789");
    w.advance_ms(30_010);
    assert_eq!((w.one(), w.peer(c).cut), ((200, Some(Cause::BackendStalled), 1), true));
    w.finish();

    // Whole, and the backend breaks off at once: the response still counts.
    for fault in [false, true] {
        let mut w = held(ONE);
        let c = w.client();
        w.room(c, 0);
        w.send(c, head);
        let b = w.to(A)[0];
        w.send(b, whole);
        if fault {
            w.fault(b, Fault::Reset)
        } else {
            w.end(b)
        }
        w.room(c, usize::MAX);
        assert_eq!((w.statuses(c), w.one()), (vec![413], (413, None, 1)));
        w.finish();
    }

    // Twice: the second is nobody's.
    let mut w = held(ONE);
    let c = w.client_sends(&get("/1"));
    let b = w.to(A)[0];
    w.send(b, format!("{}{}", ok("one"), ok("two")));
    assert!(w.got(c).ends_with("one") && w.peer(b).closed);
    w.backend(A).reply = ok("three").as_str().into();
    w.send(c, get("/2"));
    assert!(w.got(c).ends_with("three"));
    w.finish();
}

#[test]
fn tunnels() {
    // Who ends first; then the other side can still speak.
    for client_first in [true, false] {
        let mut w = held(ONE);
        let c = w.client_sends(UPGRADE);
        let b = w.to(A)[0];
        w.send(b, format!("{SWITCH}early"));
        assert!(w.got(c).ends_with("\r\n\r\nearly"));
        w.got(b);
        assert_eq!(w.counts().pages, 0, "a quiet tunnel holds no page");
        w.send(c, "ping");
        w.send(b, "pong");
        assert_eq!((w.got(b), w.got(c)), ("ping".into(), "pong".into()));
        let (first, second) = if client_first { (c, b) } else { (b, c) };
        w.put(first, "last");
        w.end(first);
        assert!(w.peer(second).shut && !w.peer(second).closed && w.got(second) == "last");
        w.send(second, "answer");
        assert_eq!(w.got(first), "answer");
        assert_eq!(w.exchanges(), []);
        w.end(second);
        let exchanges = w.exchanges();
        assert_eq!(
            (exchanges[0].status, exchanges[0].cause, exchanges[0].bytes),
            (101, None, if client_first { (8, 15) } else { (10, 13) })
        );
        assert!(w.peer(c).closed && w.peer(b).closed);
        w.finish();
    }
    // What lies behind the request is for the other protocol, after all of the request: by length, in chunks,
    // in any piece.
    let bodies = [
        ("Content-Length: 5\r\n\r\nhello", "hello"),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ];
    for (body, passed) in bodies {
        let request =
            format!("POST / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: x\r\n{body}early");
        for cut in 1..request.len() {
            let mut w = held(ONE);
            let c = w.client();
            w.send(c, &request[..cut]);
            w.send(c, &request[cut..]);
            let b = w.to(A)[0];
            w.send(b, SWITCH);
            w.send(c, "!");
            let got = w.got(b);
            let got = got
                .split_once("\r\n\r\n")
                .expect("a head")
                .1
                .replace("3\r\nhel\r\n2\r\nlo\r\n", "5\r\nhello\r\n");
            if body.starts_with("Content") || cut <= request.find("3\r\nhel").unwrap_or(0) {
                assert_eq!(got, format!("{passed}early!"), "{cut}");
            } else {
                assert!(got.ends_with("0\r\n\r\nearly!"), "{cut}: {got}");
            }
            w.finish();
        }
    }
    // Who switches before it has the whole request has not read it.
    let mut w = held(ONE);
    w.send_from_new_client("POST / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n");
    let b = w.to(A)[0];
    w.send(b, SWITCH);
    assert_eq!(w.one(), (502, Some(Cause::BadResponse(Violation::UnexpectedSwitch)), 1));
    w.finish();
    // Either side breaks.
    for client in [true, false] {
        let mut w = held(ONE);
        let c = w.client_sends(UPGRADE);
        let b = w.to(A)[0];
        w.send(b, SWITCH);
        w.fault(if client { c } else { b }, Fault::Reset);
        let cause = if client { Cause::ClientClosed } else { Cause::BackendReset };
        assert_eq!((w.one(), w.peer(c).cut), ((101, Some(cause), 1), true));
        w.finish();
    }
}

fn with_pages(pool: &str, pages: u64) -> World {
    let mut config = (*config(&one_pool(pool))).clone();
    config.limits.buffer_bytes = pages * SMALL_BYTES as u64;
    World::of(&config.into(), 1)
}

/// Far more clients than pages: everyone is served in the end, and no time passes.
#[test]
fn scarce_pages() {
    for pages in [20, 21, 30, 60] {
        let mut w = with_pages(ONE, pages);
        w.backend(A).reply = Reply::Hold;
        let clients: Vec<Sock> = (0..200).map(|_| w.client()).collect();
        assert!(w.shards[0].accepting(ListenerKind::Http));
        for c in &clients {
            w.send(*c, get("/"));
        }
        let counts = w.counts();
        assert!(counts.exchanges < 200 && counts.exchanges as u64 >= pages / 2, "{counts:?}");
        assert!(!w.shards[0].accepting(ListenerKind::Http), "full");
        assert!(w.shards[0].accepting(ListenerKind::Admin), "our own page is always there");
        let admin = w.accept(0, addr("192.0.2.9:1"), ListenerId(1)).expect("taken");
        assert_eq!(w.ask(admin, "/healthz"), [200]);
        w.backend(A).reply = ok(&"x".repeat(SMALL_BYTES)).as_str().into();
        for b in w.to(A) {
            if !w.peer(b).received.is_empty() {
                w.got(b);
                w.send(b, ok(&"x".repeat(SMALL_BYTES)));
            }
        }
        for c in &clients {
            assert_eq!(w.statuses(*c), [200]);
        }
        assert!(w.shards[0].accepting(ListenerKind::Http), "free again");
        assert_eq!(w.counts().pages, 0);
        w.finish();
    }
}

/// A request that waits for a connection, or for a backend, holds no page and will need one: no more of them
/// are read than there will be pages for.
#[test]
fn scarce_pages_and_requests_that_wait() {
    for (what, pool, open) in [
        ("connecting", ONE, Open::Silent),
        ("queued", "addresses = [{ address = \"10.0.0.1:80\", max_connections = 1 }]", Open::Take),
    ] {
        let mut w = with_pages(pool, 20);
        w.backend(A).open = open;
        w.backend(A).reply = Reply::Hold;
        let clients: Vec<Sock> = (0..60).map(|_| w.client_sends(&get("/"))).collect();
        assert_eq!((w.counts().exchanges, w.counts().queued > 0), (19, what == "queued"), "{what}");
        assert!(!w.shards[0].accepting(ListenerKind::Http), "{what}");
        w.backend(A).open = Open::Take;
        w.backend(A).reply = ok(&"x".repeat(SMALL_BYTES)).as_str().into();
        for b in w.to(A) {
            match open {
                Open::Silent => w.opened(b),
                _ => w.reply(b, ok("x")),
            }
        }
        for c in &clients {
            assert_eq!(w.statuses(*c), [200], "{what}");
        }
        assert_eq!(w.counts().pages, 0);
        assert!(w.shards[0].accepting(ListenerKind::Http), "{what}: free again");
        w.finish();
    }
}

/// A body that is known to fill two pages or more is read into a large one, in either direction.
#[test]
fn pages_of_long_bodies() {
    let room = |w: &mut World, sock: Sock| {
        let conn = w.peer(sock).conn;
        let room = w.shards[0].recv_buf(conn).len();
        w.shards[0].handle_recv(conn, 0, w.now);
        room
    };
    for (len, expected) in
        [(0, 0), (1, SMALL_BYTES), (2 * SMALL_BYTES - 1, SMALL_BYTES), (2 * SMALL_BYTES, LARGE_BYTES)]
    {
        let mut w = held(ONE);
        let c = w.client();
        assert_eq!(room(&mut w, c), SMALL_BYTES, "nothing is known of a head");
        w.send(c, format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {len}\r\n\r\n"));
        let b = w.to(A)[0];
        assert_eq!((room(&mut w, c), room(&mut w, b)), (expected, SMALL_BYTES), "{len}: upload");
        w.send(c, vec![b'x'; len]);
        w.send(b, format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n"));
        assert_eq!(room(&mut w, b), expected.max(SMALL_BYTES), "{len}: download");
        w.send(b, vec![b'x'; len]);
        assert_eq!(w.statuses(c), [200], "{len}");
        w.finish();
    }
}

/// The same with uploads, each much longer than what there is.
#[test]
fn scarce_pages_and_uploads() {
    let mut w = with_pages(ONE, 20);
    w.backend(A).reply = Reply::Hold;
    let body = "x".repeat(5 * SMALL_BYTES);
    let clients: Vec<Sock> = (0..40).map(|_| w.client()).collect();
    for c in &clients {
        w.put(*c, format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }
    w.settle();
    let mut responded = 0;
    for _ in 0..100 {
        for b in w.to(A) {
            if crate::world::whole(&w.peer(b).received).is_some() {
                w.got(b);
                w.send(b, ok(""));
                responded += 1;
            }
        }
    }
    assert_eq!(responded, 40);
    for c in &clients {
        assert_eq!(w.statuses(*c), [200]);
    }
    w.finish();
}

/// Whoever waited for a page and needs none any more does not keep it from the next.
#[test]
fn the_next_gets_the_page() {
    let mut w = with_pages(&format!("{ONE}\nretries = 0"), 20);
    w.backend(A).reply = Reply::Hold;
    let c = w.client_sends("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n");
    let its = w.to(A)[0];
    for _ in 0..40 {
        w.send_from_new_client(&get("/"));
    }
    let mut others = w.to(A).into_iter().skip(1);
    while w.counts().pages < 20 {
        let b = others.next().expect("enough");
        w.send(b, "HTTP/1.1 200 OK\r\n");
    }
    w.room(c, 0);
    w.send(c, "0123456789");
    let waiting: Vec<Sock> = others.take(2).collect();
    for b in &waiting {
        w.send(*b, "HTTP/1.1 200 OK\r\n");
    }
    let unread = |w: &World| [c, waiting[0], waiting[1]].map(|sock| w.peer(sock).unread() > 0);
    assert_eq!(unread(&w), [true; 3]);
    // The client is answered and will not be read from again, though it takes nothing yet: the page is for
    // the next.
    w.fault(its, Fault::Reset);
    assert_eq!((unread(&w), w.counts().pages), ([true, false, true], 20));
    w.finish();
}

/// Many long polls: each holds the page of its request's head, for a retry, and nothing once its response has
/// begun.
#[test]
fn who_waits_holds_little() {
    let mut w = held(ONE);
    let clients: Vec<Sock> = (0..50).map(|_| w.client_sends(&get("/"))).collect();
    assert_eq!(w.counts().pages, 50);
    for b in w.to(A) {
        w.send(b, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    }
    assert_eq!(w.counts().pages, 0);
    for b in w.to(A) {
        w.send(b, "6\r\nsecond\r\n0\r\n\r\n");
    }
    for c in clients {
        assert!(w.got(c).ends_with("5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"));
    }
    w.finish();
}

#[test]
fn drains() {
    let mut w = held("addresses = [{ address = \"10.0.0.1:80\", max_connections = 3 }]");
    let idle = w.client_sends(&get("/idle"));
    let b = w.to(A)[0];
    w.reply(b, ok(""));
    w.statuses(idle);
    w.advance_ms(900);
    let [lately, asks] = [(); 2].map(|()| {
        let c = w.client_sends(&get("/lately"));
        let b = w.to(A).into_iter().find(|b| w.arrived.last().is_some_and(|(at, _)| at == b));
        w.reply(b.expect("it is asked"), ok(""));
        w.statuses(c);
        c
    });
    w.advance_ms(101);
    let busy = w.client_sends(&get("/busy"));
    let streaming = w.client_sends(&get("/streaming"));
    let tunnel = w.client_sends(UPGRADE);
    let queued = w.client_sends(&get("/queued"));
    let half = w.client_sends("GET /half HTTP/1.1\r\n");
    let (fresh, silent) = (w.client(), w.client());
    let of = |w: &World, target: &str| w.arrived.iter().find(|(_, t)| t == target).expect("arrived").0;
    let (to_busy, to_streaming, to_tunnel) = (of(&w, "/busy"), of(&w, "/streaming"), of(&w, "/"));
    w.send(to_streaming, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
    w.send(to_tunnel, SWITCH);
    w.exchanges();

    w.drain(Duration::from_secs(20));
    assert_eq!(w.accept(0, addr("192.0.2.9:1"), ListenerId(0)), Err(Refused::Draining));
    assert!(!w.shards[0].accepting(ListenerKind::Http));
    assert!(w.peer(idle).shut && !w.peer(idle).closed, "the end is said, and the other's waited for");
    for c in [busy, streaming, tunnel, queued, half, fresh, silent, lately, asks] {
        assert!(!w.peer(c).shut, "under way, or soon");
    }
    assert_eq!(w.counts().backends_idle, 0);
    w.advance_ms(990);
    // What it asks next was on its way when the drain began.
    w.send(asks, get("/on-its-way"));
    w.advance_ms(20);
    assert!(w.peer(lately).closed && !w.peer(lately).cut && !w.peer(asks).closed);
    w.advance_ms(890);
    // Its request was on its way.
    w.send(fresh, "GET /fresh HTTP/1.1\r\n");
    w.advance_ms(110);
    assert!(w.peer(idle).closed && w.peer(silent).closed && !w.peer(silent).cut && !w.peer(fresh).closed);

    w.reply(to_busy, ok("done"));
    assert!(w.got(busy).contains("Connection: close\r\n") && w.peer(busy).shut);
    w.end(busy);
    // Its slot is free now.
    let to_queued = of(&w, "/queued");
    w.reply(to_queued, ok("done"));
    assert!(w.got(queued).contains("Connection: close\r\n"));
    w.end(queued);
    w.send(half, "Host: a.test\r\n\r\n");
    let to_asks = of(&w, "/on-its-way");
    w.reply(to_asks, ok("done"));
    assert!(w.got(asks).contains("Connection: close\r\n"));
    w.end(asks);
    let to_half = of(&w, "/half");
    w.reply(to_half, ok("done"));
    assert!(w.got(half).contains("Connection: close\r\n"));
    w.end(half);
    w.send(fresh, "Host: a.test\r\n\r\n");
    let to_fresh = of(&w, "/fresh");
    w.reply(to_fresh, ok("done"));
    assert!(w.got(fresh).contains("Connection: close\r\n"));
    w.end(fresh);
    // It had promised to go on before anyone knew of the drain.
    w.send(to_streaming, "cd");
    assert!(w.got(streaming).ends_with("abcd") && w.peer(streaming).closed);
    assert_eq!((w.drained.clone(), w.counts().clients), (vec![], 1));
    w.exchanges();
    w.advance_ms(17_980);
    assert_eq!((w.drained.clone(), w.exchanges()), (vec![], vec![]));
    w.advance_ms(20);
    assert_eq!(
        (w.drained.clone(), w.one(), w.peer(tunnel).cut),
        (vec![0], (101, Some(Cause::Drained), 1), true)
    );
    w.finish();
}

/// A second drain can only be shorter; without clients a drain is over at once.
#[test]
fn drains_of_other_kinds() {
    let mut w = held(ONE);
    let c = w.client_sends(&get("/"));
    w.drain(Duration::from_secs(20));
    w.drain(Duration::from_secs(30));
    w.drain(Duration::from_secs(1));
    w.advance_ms(1_010);
    assert_eq!((w.drained.clone(), w.peer(c).cut), (vec![0], true));
    w.finish();

    let mut w = World::of(&config(&one_pool(ONE)), 3);
    let c = w.client_at(1);
    assert_eq!(w.ask(c, "/"), [200]);
    w.end(c);
    w.drain(Duration::from_secs(20));
    assert_eq!(w.drained, [0, 1, 2]);
    w.finish();
}

/// What backends are told of a client, from nobody, and from a proxy in front of us.
#[test]
fn what_is_forwarded() {
    let said = "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: real.test\r\nX-Forwarded-Port: 8443\r\n\
                X-Real-IP: 203.0.113.5\r\nX-Forwarded-Server: front.test\r\nX-Request-ID: abc-1\r\nx_forwarded_for: 1.1.1.1\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{said}\r\n");
    let table = [
        (
            "192.0.2.66",
            ["For: 192.0.2.66", "Proto: http", "Host: a.test", "Port: 80", "Server: lb.test"],
            "192.0.2.66",
            None,
        ),
        (
            "10.9.9.9",
            [
                "For: 203.0.113.5, 10.9.9.9",
                "Proto: https",
                "Host: real.test",
                "Port: 8443",
                "Server: front.test, lb.test",
            ],
            "203.0.113.5",
            Some("abc-1"),
        ),
        (
            "::ffff:10.9.9.9",
            [
                "For: 203.0.113.5, 10.9.9.9",
                "Proto: https",
                "Host: real.test",
                "Port: 8443",
                "Server: front.test, lb.test",
            ],
            "203.0.113.5",
            Some("abc-1"),
        ),
    ];
    let text = format!("trusted_proxies = [\"10.0.0.0/8\"]\n{}", one_pool(ONE));
    for (from, forwarded, real, id) in table {
        let mut w = World::new(&text);
        let c = w.client_from(from);
        w.send(c, &request);
        let got = w.served[0].1.clone();
        for line in forwarded {
            assert_eq!(got.matches(&format!("\r\nX-Forwarded-{line}\r\n")).count(), 1, "{from}: {got}");
        }
        assert!(got.contains(&format!("\r\nX-Real-IP: {real}\r\n")), "{got}");
        assert_eq!(got.contains("\r\nX-Request-ID: abc-1\r\n"), id.is_some());
        assert!(!got.contains("1.1.1.1"), "{got}");
        // RFC 9110 §7.4: what was secured up to a proxy of ours may come in the clear from there.
        w.send(c, "GET https://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(w.statuses(c), [200, if id.is_some() { 200 } else { 421 }]);
        w.finish();
    }
}

/// Routing, hashing and backends see the client that trusted proxies speak for.
#[test]
fn the_client_behind_trusted_proxies() {
    let text = "trusted_proxies = [\"198.51.100.0/24\"]\nhttp_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n\
                [[backend_pools]]\nmatcher = \"ClientIP('203.0.113.0/24')\"\naddresses = [\"10.0.0.1:80\"]\n\
                [[backend_pools]]\naddresses = [\"10.0.0.2:80\", \"10.0.0.3:80\", \"10.0.0.4:80\"]\nstrategy = { IPHash = {} }\n";
    let ask = |w: &mut World, from: &str, forwarded: &str| {
        let c = w.client_from(from);
        w.send(c, format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: {forwarded}\r\n\r\n"));
        let (at, got) = w.served.last().cloned().expect("served");
        (at.to_string(), got)
    };
    let mut w = World::new(text);
    // From the right, the first who is not trusted.
    let (at, got) = ask(&mut w, "198.51.100.9", "8.8.8.8, 203.0.113.5, 198.51.100.8");
    assert!(at == "10.0.0.1:80" && got.contains("\r\nX-Real-IP: 203.0.113.5\r\n"), "{at} {got}");
    let (at, got) = ask(&mut w, "192.0.2.99", "203.0.113.5");
    assert!(
        at != "10.0.0.1:80" && got.contains("\r\nX-Real-IP: 192.0.2.99\r\n"),
        "nobody's word: {at} {got}"
    );
    // Clients of one proxy spread, and each keeps its backend.
    let places: Vec<String> =
        (0..32).map(|n| ask(&mut w, "198.51.100.9", &format!("10.1.{n}.1")).0).collect();
    assert!(places.iter().any(|at| *at != places[0]), "all went to {}", places[0]);
    for (n, at) in places.iter().enumerate() {
        assert_eq!(ask(&mut w, "198.51.100.77", &format!("10.1.{n}.1")).0, *at, "by another proxy");
    }
    w.finish();
}

/// A reload at any moment: nothing is cut, everything ends by the file it began with, and what is gone is let
/// go.
#[test]
fn reloads() {
    let old = config(&one_pool("name = \"p\"\naddresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\nretries = 1"));
    let new = config(&one_pool("name = \"p\"\naddresses = [\"10.0.0.2:80\"]\nretries = 0"));
    let mut w = World::of(&old, 2);
    w.backend(A).reply = Reply::Hold;
    w.backend(B).reply = Reply::Hold;
    let idle = w.client_sends(&get("/1"));
    let busy = w.client_sends(&get("/2"));
    let (a, b) = (w.to(A)[0], w.to(B)[0]);
    w.reply(a, ok(""));
    let on_old = w.client_sends(&get("/3"));
    assert_eq!(w.to(A), [a], "used again");
    w.reply(a, ok(""));
    assert_eq!((w.counts().backends_idle, w.counts().backends_busy), (1, 1));
    let failing = w.client_sends(&get("/4"));
    w.advance_ms(1);

    w.reconfigure(&new);
    assert_eq!(w.counts().backends_idle, 0, "idle connections of a backend that is gone are closed");
    for c in [idle, busy, on_old, failing] {
        assert!(!w.peer(c).closed);
    }
    // By the older file it has a retry, and a backend to go to that the newer does not know.
    let (_, at) = (0, w.arrived.iter().find(|(_, t)| t == "/4").expect("arrived").0);
    let first = w.peer(at).to.clone();
    w.fault(at, Fault::Reset);
    let again = w.arrived.iter().find(|(_, t)| t == "/4").expect("arrived again").0;
    assert_ne!(w.peer(again).to, first);
    w.reply(again, ok(""));
    w.reply(b, ok(""));
    assert_eq!(w.exchanges().iter().map(|t| t.status).collect::<Vec<_>>(), [200; 4]);
    // What comes now goes by the newer.
    for n in 0..4 {
        let c = [idle, busy, on_old, failing][n];
        w.send(c, get("/new"));
        let (sock, _) = w.arrived.remove(w.arrived.iter().position(|(_, t)| t == "/new").expect("arrived"));
        assert_eq!(w.peer(sock).to, Some(endpoint(B)));
        w.reply(sock, ok(""));
    }
    // Again and again: nothing piles up.
    for n in 0..200 {
        let address = format!("10.0.1.{}:80", n % 250);
        w.reconfigure(&config(&one_pool(&format!("addresses = [\"{address}\"]"))));
        w.backend(&address).reply = ok("").as_str().into();
        w.got(idle);
        assert_eq!(w.ask(idle, "/"), [200]);
    }
    assert_eq!(w.counts().backends_idle, 1);
    w.finish();
}

/// Who came by a listener goes by its pools, also when a newer file has it at another place.
#[test]
fn pools_of_listeners_over_a_reload() {
    let text = "http_address = [\"192.0.2.1:80\", \"192.0.2.1:81\"]\nmetrics_address = false\n\
                [health_interval]\ncheck_every = 0\n\
                [[listeners]]\nname = \"internal\"\naddress = \"192.0.2.1:82\"\n\
                [[backend_pools]]\nname = \"a\"\nlisteners = [\"internal\"]\naddresses = [\"10.0.0.1:80\"]\n\
                [[backend_pools]]\nname = \"b\"\nlisteners = [\"http\"]\naddresses = [\"10.0.0.2:80\"]\n";
    let mut w = World::new(text);
    w.backend(A).reply = ok("").as_str().into();
    w.backend(B).reply = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n".into();
    let internal = w.accept(0, addr("192.0.2.9:1"), ListenerId(2)).expect("taken");
    let public = w.accept(0, addr("192.0.2.9:2"), ListenerId(0)).expect("taken");
    for _ in 0..2 {
        assert_eq!((w.ask(internal, "/"), w.ask(public, "/")), (vec![200], vec![201]));
        w.got(internal);
        w.got(public);
        let fewer = text.replace("[\"192.0.2.1:80\", \"192.0.2.1:81\"]", "\"192.0.2.1:80\"");
        w.reconfigure(&config(&fewer));
    }
    w.finish();
}

/// A listener keeps its kind for those who came by it, wherever the newer file has it.
#[test]
fn listeners_over_a_reload() {
    let mut w = World::new(&one_pool(ONE));
    let admin = w.accept(0, addr("192.0.2.9:1"), ListenerId(1)).expect("taken");
    let plain = w.client();
    w.reconfigure(&config(
        &one_pool(ONE).replace(
            "http_address = \"192.0.2.1:80\"",
            "http_address = [\"192.0.2.1:80\", \"192.0.2.2:80\"]",
        ),
    ));
    assert_eq!((w.ask(admin, "/readyz"), w.ask(plain, "/readyz")), (vec![200], vec![200]));
    assert_eq!(w.served.len(), 1, "our own page is no backend's matter");
    w.finish();
}

/// A backend that speaks before it is asked, on a connection of its own: its words are a response to what was
/// about to be asked, and the connection is not used again.
#[test]
fn who_speaks_first() {
    let mut w = held(ONE);
    w.backend(A).open = Open::Silent;
    let c = w.client_sends(&get("/"));
    let b = w.to(A)[0];
    w.room(b, 0);
    w.opened(b);
    w.send(b, "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((w.statuses(c), w.peer(b).closed), (vec![503], true));
    assert_eq!(w.counts(), Counts { clients: 1, timers: w.counts().timers, ..Counts::default() });
    w.finish();
}

/// A client that closes its direction while it waits: what it asked for, where that stands, and what becomes
/// of it.
#[test]
fn clients_that_leave() {
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi".to_owned();
    let left = (499, Some(Cause::ClientClosed));
    // What is asked, whether the backend takes a connection, and how it ends if it answers after 300 ms.
    let table = [
        ("a GET that is served", get("/"), Open::Take, left),
        ("a GET whose backend cannot be reached", get("/"), Open::Silent, left),
        ("a POST that has been sent", post.clone(), Open::Take, (200, None)),
        ("a POST of which nothing has been sent", post, Open::Silent, left),
    ];
    for (what, request, open, expected) in table {
        let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:80\"]"));
        (w.backend(A).open, w.backend(A).reply) = (open, Reply::Hold);
        let c = w.client_sends(&request);
        w.advance_ms(1_000);
        w.closing(c);
        // What comes in time is served.
        w.advance_ms(249);
        assert_eq!((w.exchanges(), w.to(A).len()), (vec![], 1), "{what}");
        w.advance_ms(2);
        assert_eq!(w.to(A).len(), usize::from(expected.0 == 200), "{what}: the backend's work is cancelled");
        w.advance_ms(49);
        if let Some(&b) = w.to(A).first() {
            w.reply(b, ok("done"));
        }
        let (status, cause, _) = w.one();
        assert_eq!((status, cause), expected, "{what}");
        w.finish();
    }
}

/// One that waits in the queue leaves it, whatever it asked for.
#[test]
fn clients_that_leave_the_queue() {
    let pool = "addresses = [{ address = \"10.0.0.1:80\", max_connections = 1 }]";
    let mut w = World::new(&one_pool(pool));
    w.backend(A).reply = Reply::Hold;
    w.send_from_new_client(&get("/first"));
    let c = w.client_sends("POST /second HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
    w.closing(c);
    w.advance_ms(251);
    assert_eq!((w.one(), w.counts().queued), ((499, Some(Cause::ClientClosed), 0), 0));
    // The first one is as it was; one that closes twice is told of once.
    let b = w.to(A)[0];
    w.reply(b, ok(""));
    assert_eq!(w.one(), (200, None, 1));
    w.finish();
}
