//! Backends that break off, stall or violate HTTP: what the client receives, which cause is recorded, and
//! whether a retry on a second backend hides the fault.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ruststrom_core::config::Driver;
use ruststrom_driver::lookup::Lookups;

use crate::client::{Client, Response, WAIT};
use crate::harness::{Harness, SHORT_TIMEOUTS, UnaffectedClient, pool};
use crate::scripted_backend::{Backend, Peer, ok};

on_each_driver!(
    each_fault_of_a_backend_has_its_response,
    a_backend_that_refuses_is_passed_over,
    idle_connections_that_close_on_reuse_cause_no_errors,
    a_name_of_several_addresses_is_up_while_one_of_them_is,
    what_is_not_idempotent_is_sent_once,
    early_responses_reach_clients_that_still_send,
);

/// The expected result of a request.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// A complete response with this status, and one of these causes if it is a local reply.
    Complete(u16, &'static [&'static str]),
    /// The connection broke in the middle of the response, for this cause.
    Broken(&'static str),
}
use Expected::{Broken, Complete};

struct Case {
    name: &'static str,
    serve: fn(Peer),
    expected: Expected,
    /// With a good backend in the same pool, a retry hides the fault from every client.
    retried: bool,
}

const GET: &str = "HTTP/1.1\r\nHost: localhost\r\n\r\n";
const BODY: usize = 1 << 20;
/// The client has the head and a part of the body by then, even on a machine that is busy; below `stall`.
const HEAD_PASSES: Duration = Duration::from_millis(600);
/// The case whose backend sends as slowly as it does for another reason than to be timed out.
const BYTE_BY_BYTE: &str = "one byte at a time";

/// Reads each request, then calls `respond`, until either fails.
fn each(mut peer: Peer, mut respond: impl FnMut(&mut Peer) -> bool) {
    while peer.request().is_some() && respond(&mut peer) {}
}

fn early_hints(n: usize) -> String {
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(n)
}

const CASES: &[Case] = &[
    Case {
        name: "never responds",
        serve: |mut p| p.wait_for_close(),
        expected: Complete(504, &["backend_timeout"]),
        retried: false,
    },
    Case {
        name: "closes right after accepting",
        serve: drop,
        expected: Complete(502, &["backend_closed", "backend_reset", "connect_refused"]),
        retried: true,
    },
    Case {
        name: "reads the request and closes",
        serve: |mut p| drop(p.request()),
        expected: Complete(502, &["backend_closed"]),
        retried: true,
    },
    Case {
        name: "reads the request and resets",
        serve: |mut p| {
            p.request();
            p.reset();
        },
        expected: Complete(502, &["backend_reset"]),
        retried: true,
    },
    Case {
        name: "reads the request and shuts down its direction",
        serve: |mut p| {
            p.request();
            p.shut_down();
            p.wait_for_close();
        },
        expected: Complete(502, &["backend_closed"]),
        retried: true,
    },
    Case {
        name: "garbage",
        serve: |p| each(p, |p| p.send(b"\0\x01\x02 nonsense\r\n\r\n")),
        expected: Complete(502, &["bad_status_line"]),
        retried: false,
    },
    Case {
        name: "endless garbage",
        serve: |mut p| {
            p.request();
            while p.send([b'x'; 4096]) {}
        },
        expected: Complete(502, &["head_too_large", "bad_status_line"]),
        retried: false,
    },
    Case {
        name: BYTE_BY_BYTE,
        serve: |p| each(p, |p| p.trickle(ok("slowly"), Duration::from_millis(3))),
        expected: Complete(200, &[]),
        retried: true,
    },
    Case {
        name: "a body that takes longer than every timeout, but never stalls",
        serve: |p| {
            each(p, |p| {
                p.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
                    && p.trickle("0123456789", Duration::from_millis(250))
            })
        },
        expected: Complete(200, &[]),
        retried: true,
    },
    Case {
        name: "a head that trickles for longer than backend_head",
        serve: |p| each(p, |p| p.trickle(ok("never"), Duration::from_millis(100))),
        expected: Complete(504, &["backend_timeout"]),
        retried: false,
    },
    Case {
        name: "thirty interim responses",
        serve: |p| each(p, |p| p.send(early_hints(30) + &ok("hinted"))),
        expected: Complete(200, &[]),
        retried: true,
    },
    Case {
        name: "two thousand interim responses",
        serve: |p| each(p, |p| p.send(early_hints(2000) + &ok("hinted"))),
        expected: Complete(502, &["too_many_interims"]),
        retried: false,
    },
    Case {
        // Each gives it more time, but there are only so many.
        name: "an interim response now and then, and nothing else",
        serve: |mut p| {
            p.request();
            while p.send(early_hints(1)) {
                std::thread::sleep(Duration::from_millis(100));
            }
        },
        expected: Complete(502, &["too_many_interims"]),
        retried: false,
    },
    Case {
        name: "a truncated head",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\nContent-Len");
        },
        expected: Complete(502, &["backend_closed"]),
        retried: false,
    },
    Case {
        name: "a truncated body",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            std::thread::sleep(HEAD_PASSES);
        },
        expected: Broken("response_truncated"),
        retried: false,
    },
    Case {
        name: "truncated chunks",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
            std::thread::sleep(HEAD_PASSES);
        },
        expected: Broken("response_truncated"),
        retried: false,
    },
    Case {
        name: "a chunk with a bad size",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
            std::thread::sleep(HEAD_PASSES);
            p.send("nonsense\r\n");
            p.wait_for_close();
        },
        expected: Broken("bad_chunk_size"),
        retried: false,
    },
    Case {
        name: "a close-delimited body that ends with a reset",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\n\r\nhalf");
            std::thread::sleep(HEAD_PASSES);
            p.reset();
        },
        expected: Broken("response_truncated"),
        retried: false,
    },
    Case {
        name: "a body that stops",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            p.wait_for_close();
        },
        expected: Broken("backend_stalled"),
        retried: false,
    },
    Case {
        name: "a close-delimited body",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.0 200 OK\r\n\r\nall of it");
        },
        expected: Complete(200, &[]),
        retried: true,
    },
    Case {
        name: "bytes after the response",
        serve: |p| each(p, |p| p.send(ok("enough") + "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsurplus")),
        expected: Complete(200, &[]),
        retried: true,
    },
    Case {
        name: "bytes after the response, a little later",
        serve: |p| {
            each(p, |p| {
                p.send(ok("enough"));
                std::thread::sleep(Duration::from_millis(20));
                p.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsurplus")
            });
        },
        expected: Complete(200, &[]),
        retried: true,
    },
    Case {
        name: "responds and shuts down its direction",
        serve: |mut p| {
            p.request();
            p.send(ok("last words"));
            p.shut_down();
            p.wait_for_close();
        },
        expected: Complete(200, &[]),
        retried: true,
    },
];

/// Sends a GET request and reads the response.
fn get(client: &mut Client, target: &str) -> Result<Response, String> {
    client.send(format!("GET {target} {GET}"))?;
    client.response(false)
}

fn assert_result(name: &str, expected: Expected, got: &Result<Response, String>) {
    match (expected, got) {
        (Complete(status, _), Ok(response)) => assert_eq!(response.status, status, "{name}: {response:?}"),
        (Broken(_), Err(_)) => {}
        _ => panic!("{name}: expected {expected:?}, got {got:?}"),
    }
}

fn run(driver: Driver, case: &Case) {
    let name = case.name;
    let (bad, good) = (Backend::start(case.serve), Backend::good("good"));
    let more = if name == BYTE_BY_BYTE { "timeouts = { backend_head = 15 }\n" } else { "" };
    let pools = [
        pool("alone", &[bad.address], more),
        pool("pair", &[bad.address, good.address], more),
        pool("good", &[good.address], ""),
    ]
    .concat();
    let harness = Harness::start(driver, &format!("{SHORT_TIMEOUTS}{pools}"), 1);
    let unaffected = UnaffectedClient::start(harness.address, "/good", "good");
    for _ in 0..2 {
        assert_result(name, case.expected, &get(&mut harness.client(), "/alone"));
    }
    let mut failed = 0;
    for _ in 0..4 {
        let got = get(&mut harness.client(), "/pair");
        if !got.as_ref().is_ok_and(|a| a.status == 200) {
            assert_result(name, case.expected, &got);
            failed += 1;
        }
    }
    assert_eq!(failed, if case.retried { 0 } else { 2 }, "{name}: failures beside a good backend");
    unaffected.end();
    let records = harness.end();
    let alone: Vec<_> = records.iter().filter(|t| t.target == "/alone").collect();
    assert_eq!(alone.len(), 2, "{name}: each exchange is recorded once: {records:?}");
    for t in alone {
        match (case.expected, t.cause) {
            (Complete(_, []), None) => {}
            (Complete(_, causes), Some(cause)) if causes.contains(&cause) => {}
            (Broken(cause), Some(recorded)) if cause == recorded => {}
            (expected, _) => panic!("{name}: expected {expected:?}, recorded {t:?}"),
        }
    }
}

/// Runs `run` for every row, 16 rows at a time in threads of their own: they wait more than they compute.
fn in_parallel<T: Sync>(rows: &[T], run: impl Fn(&T) + Sync) {
    for rows in rows.chunks(16) {
        std::thread::scope(|s| rows.iter().for_each(|row| drop(s.spawn(|| run(row)))));
    }
}

fn each_fault_of_a_backend_has_its_response(driver: Driver) {
    in_parallel(CASES, |case| run(driver, case));
}

fn a_backend_that_refuses_is_passed_over(driver: Driver) {
    let good = Backend::good("good");
    let refusing = Backend::refusing();
    let pools = [pool("alone", &[refusing], ""), pool("pair", &[refusing, good.address], "")].concat();
    let harness = Harness::start(driver, &format!("{SHORT_TIMEOUTS}{pools}"), 1);
    for _ in 0..3 {
        // It is the pool's only backend: each request tries it once.
        assert_eq!(harness.client().get("/alone").expect("a response").status, 502);
    }
    for _ in 0..10 {
        assert_eq!(harness.client().get("/pair").expect("a response").text(), "good");
    }
    // After three failed connects in a row the backend is unhealthy; where it is all that there is, it is
    // tried all the same.
    assert_eq!(harness.client().get("/alone").expect("a response").status, 502);
    let records = harness.end();
    assert_eq!(records[0].cause, Some("connect_refused"));
    assert_eq!(records.last().and_then(|t| t.cause), Some("connect_refused"));
}

/// A backend that ends its connection after a response.
struct ReuseCase {
    name: &'static str,
    serve: fn(Peer),
    pause_ms: u64,
    clients: usize,
    /// Whether a client waits before each request until the proxy has closed the connection.
    waits_for_close: bool,
}

const REUSE_CASES: &[ReuseCase] = &[
    ReuseCase {
        name: "closes after each response without Connection: close",
        serve: |mut p| {
            p.request();
            p.send(ok("fine"));
        },
        pause_ms: 0,
        clients: 4,
        waits_for_close: false,
    },
    ReuseCase {
        name: "resets after each response",
        serve: |mut p| {
            p.request();
            p.send(ok("fine"));
            std::thread::sleep(Duration::from_millis(1));
            p.reset();
        },
        pause_ms: 2,
        clients: 4,
        waits_for_close: false,
    },
    ReuseCase {
        name: "closes when the second request has arrived",
        serve: |mut p| {
            p.request();
            p.send(ok("fine"));
            p.request();
        },
        pause_ms: 0,
        clients: 4,
        waits_for_close: false,
    },
    ReuseCase {
        name: "resets when the second request has arrived",
        serve: |mut p| {
            p.request();
            p.send(ok("fine"));
            p.request();
            p.reset();
        },
        pause_ms: 0,
        clients: 4,
        waits_for_close: false,
    },
    ReuseCase {
        name: "closes an idle connection after 20 ms",
        serve: |mut p| {
            p.request();
            p.send(ok("fine"));
            std::thread::sleep(Duration::from_millis(20));
        },
        pause_ms: 19,
        clients: 4,
        waits_for_close: false,
    },
    ReuseCase {
        name: "sends a 408 on an idle connection",
        serve: |mut p| {
            while p.request().is_some() && p.send(ok("fine")) {
                std::thread::sleep(Duration::from_millis(10));
                p.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
            }
        },
        pause_ms: 0,
        waits_for_close: true,
        // With more clients, the 408 could arrive between another client's request and its response.
        clients: 1,
    },
];

/// The backend closes an idle connection just as the proxy reuses it: every one of many requests in a row has
/// to get its response.
fn idle_connections_that_close_on_reuse_cause_no_errors(driver: Driver) {
    in_parallel(REUSE_CASES, |row| {
        let bad = Backend::start(row.serve);
        let harness = Harness::start(
            driver,
            &format!("{SHORT_TIMEOUTS}{}", pool("p", &[bad.address], "retries = 0\n")),
            2,
        );
        std::thread::scope(|s| {
            for _ in 0..row.clients {
                s.spawn(|| {
                    let mut client = harness.client();
                    for i in 0..40 {
                        std::thread::sleep(Duration::from_millis(row.pause_ms));
                        let begun = Instant::now();
                        while row.waits_for_close && bad.stats.open.load(Ordering::SeqCst) > 0 {
                            assert!(begun.elapsed() < WAIT, "{}: {i} is not closed", row.name);
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        let response =
                            client.get("/p").unwrap_or_else(|e| panic!("{}: request {i}: {e}", row.name));
                        assert_eq!(
                            (response.status, response.text().as_str()),
                            (200, "fine"),
                            "{}: request {i}",
                            row.name
                        );
                    }
                });
            }
        });
        let records = harness.end();
        assert_eq!(records.iter().filter(|t| t.cause.is_none()).count(), 40 * row.clients, "{}", row.name);
    });
}

/// `localhost` is ::1 and 127.0.0.1, and most servers listen on one of them.
fn a_name_of_several_addresses_is_up_while_one_of_them_is(driver: Driver) {
    let (one, other) = (Backend::good("one"), Backend::good("other"));
    let (one, other, refusing) = (one.address, other.address, [Backend::refusing(), Backend::refusing()]);
    // The addresses that the name resolves to, and the backends that respond.
    let rows: [(&[SocketAddr], &[&str]); 6] = [
        (&[one], &["one"]),
        (&[refusing[0], one], &["one"]),
        (&[one, refusing[0]], &["one"]),
        (&[refusing[0], refusing[1], one], &["one"]),
        (&[refusing[0], one, refusing[1], other], &["one", "other"]),
        (&[refusing[0], refusing[1]], &[]),
    ];
    let more = "retries = 0\nhealth_config = { check_every = 1, timeout = 2000, slow_threshold = 0 }\n";
    let text =
        format!("{SHORT_TIMEOUTS}{}", pool("p", &[one], more)).replace(&one.to_string(), "several.test:80");
    in_parallel(&rows, |(found, responses)| {
        let found = found.to_vec();
        let lookups = Lookups::with(WAIT, move |_, _| Ok(found.clone()));
        let harness = Harness::start_with(driver, &text, 2, lookups);
        // The name is looked up in the background: wait for the first success.
        let begun = Instant::now();
        while harness.client().get("/p").map(|a| a.status) != Ok(200) && !responses.is_empty() {
            assert!(begun.elapsed() < WAIT, "{responses:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut bodies = BTreeSet::new();
        for _ in 0..2 {
            // Eight requests at once, so that every address gets a connection.
            let mut clients: Vec<_> = (0..8).map(|_| harness.client()).collect();
            for client in &mut clients {
                client.send("GET /p HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            }
            for client in &mut clients {
                let response = client.response(false).expect("a response");
                match responses.len() {
                    0 => assert!(matches!(response.status, 502 | 503), "{response:?}"),
                    _ => assert_eq!(response.status, 200, "{response:?}"),
                }
                bodies.insert(if response.status == 200 { response.text() } else { String::new() });
            }
            std::thread::sleep(Duration::from_millis(if responses.is_empty() { 0 } else { 1200 }));
        }
        bodies.remove("");
        assert_eq!(bodies.iter().map(String::as_str).collect::<Vec<_>>(), *responses);
        let records = harness.end();
        assert!(records.iter().all(|t| t.attempts <= 1), "{records:?}");
    });
}

/// A request that is not idempotent is not retried once it has been sent: a POST that was read by a closing
/// backend gets a 502, and no backend sees it twice.
fn what_is_not_idempotent_is_sent_once(driver: Driver) {
    let (sender, received) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let bad = Backend::start(move |mut p| {
        // The first request of a connection gets a response, the second is read and dropped.
        for responds in [true, false] {
            let Some(head) = p.request() else { return };
            let _ =
                sender.lock().expect("no panic").send(head.split(' ').nth(1).unwrap_or_default().to_owned());
            if responds {
                p.send(ok("done"));
            }
        }
    });
    let harness =
        Harness::start(driver, &format!("{SHORT_TIMEOUTS}{}", pool("p", &[bad.address], "retries = 5\n")), 1);
    let mut client = harness.client();
    for i in 0..20 {
        client
            .send(format!("POST /p/{i} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"))
            .expect("sent");
        let response = client.response(false).expect("a response");
        assert_eq!(response.status, if i % 2 == 0 { 200 } else { 502 }, "{i}: {response:?}");
    }
    drop(client);
    let records = harness.end();
    assert!(records.iter().all(|t| t.attempts == 1), "{records:?}");
    drop(bad);
    let received: Vec<String> = received.try_iter().collect();
    assert_eq!(received, (0..20).map(|i| format!("/p/{i}")).collect::<Vec<_>>(), "each once, in order");
}

/// A final response that comes before the request's body was read. The rest of that body must not be taken
/// for the client's next request.
fn early_responses_reach_clients_that_still_send(driver: Driver) {
    struct Row {
        name: &'static str,
        serve: fn(Peer),
        status: u16,
    }
    fn refuse(p: &mut Peer) {
        p.head();
        p.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno\n");
    }
    let rows = [
        Row { name: "and closes", serve: |mut p| refuse(&mut p), status: 413 },
        Row {
            name: "and resets a little later",
            serve: |mut p| {
                refuse(&mut p);
                std::thread::sleep(Duration::from_millis(50));
                p.reset();
            },
            status: 413,
        },
        Row {
            name: "and reads nothing",
            serve: |mut p| {
                refuse(&mut p);
                std::thread::sleep(Duration::from_secs(5));
            },
            status: 413,
        },
        Row {
            name: "and reads everything",
            serve: |mut p| {
                refuse(&mut p);
                p.wait_for_close();
            },
            status: 413,
        },
        Row { name: "and closes with no response", serve: |mut p| drop(p.head()), status: 502 },
    ];
    // The body consists of valid requests: none of them may be forwarded.
    let body = "GET /good/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(BODY / 48);
    let chunk = |c: &[u8]| format!("{:x}\r\n{}\r\n", c.len(), String::from_utf8_lossy(c));
    let chunked = body.as_bytes().chunks(1 << 16).map(chunk).collect::<String>() + "0\r\n\r\n";
    let bodies =
        [(format!("Content-Length: {}", body.len()), &body), ("Transfer-Encoding: chunked".into(), &chunked)];
    let rows: Vec<_> = rows.iter().flat_map(|row| bodies.iter().map(move |body| (row, body))).collect();
    in_parallel(&rows, |(row, (framing, body))| {
        let name = format!("{}: {framing}", row.name);
        let (bad, good) = (Backend::start(row.serve), Backend::good("good"));
        let pools = pool("p", &[bad.address], "") + &pool("good", &[good.address], "");
        let harness = Harness::start(driver, &format!("{SHORT_TIMEOUTS}{pools}"), 1);
        let unaffected = UnaffectedClient::start(harness.address, "/good", "good");
        let mut client = harness.client();
        client.send(format!("POST /p HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n")).expect("sent");
        // Sending may fail in the middle, but the client has to get the response.
        let _ = client.send(body);
        let response = client.response(false).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(response.status, row.status, "{name}");
        assert!(client.is_closed(), "{name}");
        unaffected.end();
        let records = harness.end();
        assert!(!records.iter().any(|t| t.target.contains("smuggled")), "{name}: {records:?}");
        assert_eq!(
            good.stats.requests.load(Ordering::SeqCst),
            records.iter().filter(|t| t.target == "/good").count(),
            "{name}"
        );
    });
}
