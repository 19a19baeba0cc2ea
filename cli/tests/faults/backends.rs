//! Backends that misbehave: what a client sees of it, what the log says, and whether a second backend saves
//! the request.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ruststrom_driver::lookup::Lookups;

use crate::scripted::{Backend, Peer, ok};
use crate::stand::{Bystander, QUICK, Stand, pool};
use crate::talk::{Client, LookupResult, WAIT};

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// A whole answer with this status, and one of these causes if we made it.
    Whole(u16, &'static [&'static str]),
    /// The connection broke in the middle of the answer, for this cause.
    Broken(&'static str),
}
use Want::{Broken, Whole};

struct Case {
    name: &'static str,
    serve: fn(Peer),
    want: Want,
    /// With a good backend beside it no client sees anything of it.
    saved: bool,
}

const GET: &str = "HTTP/1.1\r\nHost: localhost\r\n\r\n";
const BODY: usize = 1 << 20;

/// Serves each request by `answer`.
fn each(mut peer: Peer, mut response: impl FnMut(&mut Peer) -> bool) {
    while peer.request().is_some() && response(&mut peer) {}
}

fn hint(n: usize) -> String {
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(n)
}

const CASES: &[Case] = &[
    Case {
        name: "never answers",
        serve: |mut p| p.wait_for_the_end(),
        want: Whole(504, &["backend_timeout"]),
        saved: true,
    },
    Case {
        name: "closes as soon as it has accepted",
        serve: drop,
        want: Whole(502, &["backend_closed", "backend_reset", "connect_refused"]),
        saved: true,
    },
    Case {
        name: "reads the request and closes",
        serve: |mut p| drop(p.request()),
        want: Whole(502, &["backend_closed"]),
        saved: true,
    },
    Case {
        name: "reads the request and resets",
        serve: |mut p| {
            p.request();
            p.reset();
        },
        want: Whole(502, &["backend_reset"]),
        saved: true,
    },
    Case {
        name: "reads the request and ends its direction",
        serve: |mut p| {
            p.request();
            p.finish();
            p.wait_for_the_end();
        },
        want: Whole(502, &["backend_closed"]),
        saved: true,
    },
    Case {
        name: "garbage",
        serve: |p| each(p, |p| p.send(b"\0\x01\x02 nonsense\r\n\r\n")),
        want: Whole(502, &["bad_status_line"]),
        saved: false,
    },
    Case {
        name: "endless garbage",
        serve: |mut p| {
            p.request();
            while p.send([b'x'; 4096]) {}
        },
        want: Whole(502, &["head_too_large", "bad_status_line"]),
        saved: false,
    },
    Case {
        name: "one byte at a time",
        serve: |p| each(p, |p| p.trickle(ok("slowly"), Duration::from_millis(3))),
        want: Whole(200, &[]),
        saved: true,
    },
    Case {
        name: "a body slower than all timeouts together, but never still",
        serve: |p| {
            each(p, |p| {
                p.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
                    && p.trickle("0123456789", Duration::from_millis(250))
            })
        },
        want: Whole(200, &[]),
        saved: true,
    },
    Case {
        name: "a head that trickles for longer than backend_head",
        serve: |p| each(p, |p| p.trickle(ok("never"), Duration::from_millis(100))),
        want: Whole(504, &["backend_timeout"]),
        saved: false,
    },
    Case {
        name: "thirty interim answers",
        serve: |p| each(p, |p| p.send(hint(30) + &ok("hinted"))),
        want: Whole(200, &[]),
        saved: true,
    },
    Case {
        name: "a storm of interim answers",
        serve: |p| each(p, |p| p.send(hint(2000) + &ok("hinted"))),
        want: Whole(502, &["too_many_interims"]),
        saved: false,
    },
    Case {
        name: "interim answers now and then, and nothing else",
        serve: |mut p| {
            p.request();
            while p.send(hint(1)) {
                std::thread::sleep(Duration::from_millis(100));
            }
        },
        want: Whole(504, &["backend_timeout"]),
        saved: false,
    },
    Case {
        name: "a head cut short",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\nContent-Len");
        },
        want: Whole(502, &["backend_closed"]),
        saved: false,
    },
    Case {
        name: "a body cut short",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            std::thread::sleep(Duration::from_millis(200));
        },
        want: Broken("answer_truncated"),
        saved: false,
    },
    Case {
        name: "chunks cut short",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
            std::thread::sleep(Duration::from_millis(200));
        },
        want: Broken("answer_truncated"),
        saved: false,
    },
    Case {
        name: "a chunk with a bad size",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
            // So that the first chunk has reached the client.
            std::thread::sleep(Duration::from_millis(200));
            p.send("nonsense\r\n");
            p.wait_for_the_end();
        },
        want: Broken("bad_chunk_size"),
        saved: false,
    },
    Case {
        name: "a body until the end that ends by a reset",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\n\r\nhalf");
            std::thread::sleep(Duration::from_millis(100));
            p.reset();
        },
        want: Broken("answer_truncated"),
        saved: false,
    },
    Case {
        name: "a body that stops",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            p.wait_for_the_end();
        },
        want: Broken("backend_stalled"),
        saved: false,
    },
    Case {
        name: "a body until the end",
        serve: |mut p| {
            p.request();
            p.send("HTTP/1.0 200 OK\r\n\r\nall of it");
        },
        want: Whole(200, &[]),
        saved: true,
    },
    Case {
        name: "too much",
        serve: |p| each(p, |p| p.send(ok("enough") + "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsurplus")),
        want: Whole(200, &[]),
        saved: true,
    },
    Case {
        name: "too much, later",
        serve: |p| {
            each(p, |p| {
                p.send(ok("enough"));
                std::thread::sleep(Duration::from_millis(20));
                p.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsurplus")
            });
        },
        want: Whole(200, &[]),
        saved: true,
    },
    Case {
        name: "answers and ends its direction",
        serve: |mut p| {
            p.request();
            p.send(ok("last words"));
            p.finish();
            p.wait_for_the_end();
        },
        want: Whole(200, &[]),
        saved: true,
    },
];

/// A request and what came of it.
fn ask(client: &mut Client, target: &str) -> Result<LookupResult, String> {
    client.send(format!("GET {target} {GET}"))?;
    client.response(false)
}

fn holds(name: &str, want: Want, got: &Result<LookupResult, String>) {
    match (want, got) {
        (Whole(status, _), Ok(response)) => assert_eq!(response.status, status, "{name}: {response:?}"),
        (Broken(_), Err(_)) => {}
        _ => panic!("{name}: wanted {want:?}, got {got:?}"),
    }
}

fn run(case: &Case) {
    let name = case.name;
    let (bad, good) = (Backend::start(case.serve), Backend::good("good"));
    let pools = [
        pool("alone", &[bad.address], ""),
        pool("pair", &[bad.address, good.address], ""),
        pool("good", &[good.address], ""),
    ]
    .concat();
    let stand = Stand::start(&format!("{QUICK}{pools}"), 1);
    let bystander = Bystander::start(stand.address, "/good", "good");
    for _ in 0..2 {
        holds(name, case.want, &ask(&mut stand.client(), "/alone"));
    }
    let mut failed = 0;
    for _ in 0..4 {
        let got = ask(&mut stand.client(), "/pair");
        if !got.as_ref().is_ok_and(|a| a.status == 200) {
            holds(name, case.want, &got);
            failed += 1;
        }
    }
    assert_eq!(failed, if case.saved { 0 } else { 2 }, "{name}: failures beside a good backend");
    bystander.end();
    let told = stand.end();
    let alone: Vec<_> = told.iter().filter(|t| t.target == "/alone").collect();
    assert_eq!(alone.len(), 2, "{name}: each exchange is told of once: {told:?}");
    for t in alone {
        match (case.want, t.cause) {
            (Whole(_, []), None) => {}
            (Whole(_, causes), Some(cause)) if causes.contains(&cause) => {}
            (Broken(cause), Some(told)) if cause == told => {}
            (want, _) => panic!("{name}: wanted {want:?}, told {t:?}"),
        }
    }
}

/// Rows side by side: they wait more than they work.
fn side_by_side<T: Sync>(rows: &[T], run: impl Fn(&T) + Sync) {
    for rows in rows.chunks(16) {
        std::thread::scope(|s| rows.iter().for_each(|row| drop(s.spawn(|| run(row)))));
    }
}

#[test]
fn each_fault_of_a_backend_has_its_response() {
    side_by_side(CASES, run);
}

#[test]
fn a_backend_that_refuses_is_passed_over() {
    let good = Backend::good("good");
    let nobody = Backend::nobody();
    let pools = [pool("alone", &[nobody], ""), pool("pair", &[nobody, good.address], "")].concat();
    let stand = Stand::start(&format!("{QUICK}{pools}"), 1);
    for _ in 0..2 {
        // Alone it is tried twice each time.
        assert_eq!(stand.client().get("/alone").expect("an answer").status, 502);
    }
    for _ in 0..10 {
        assert_eq!(stand.client().get("/pair").expect("an answer").text(), "good");
    }
    // Three failures in a row: it is not even tried any more.
    let response = stand.client().get("/alone").expect("an answer");
    assert_eq!((response.status, response.field("Retry-After").is_some()), (503, true), "{response:?}");
    let told = stand.end();
    assert_eq!(told[0].cause, Some("connect_refused"));
    assert_eq!(told.last().and_then(|t| t.cause), Some("no_backend"));
}

/// A connection that is reused, as the backend closes it: every one of many requests in a row has to be
/// answered.
#[test]
fn connections_that_close_as_they_are_reused_hurt_nobody() {
    struct Row {
        name: &'static str,
        serve: fn(Peer),
        pause_ms: u64,
        clients: usize,
    }
    let rows = [
        Row {
            name: "closes behind each answer without a word",
            serve: |mut p| {
                p.request();
                p.send(ok("fine"));
            },
            pause_ms: 0,
            clients: 4,
        },
        Row {
            name: "resets behind each answer",
            serve: |mut p| {
                p.request();
                p.send(ok("fine"));
                std::thread::sleep(Duration::from_millis(1));
                p.reset();
            },
            pause_ms: 2,
            clients: 4,
        },
        Row {
            name: "closes when the second request is there",
            serve: |mut p| {
                p.request();
                p.send(ok("fine"));
                p.request();
            },
            pause_ms: 0,
            clients: 4,
        },
        Row {
            name: "resets when the second request is there",
            serve: |mut p| {
                p.request();
                p.send(ok("fine"));
                p.request();
                p.reset();
            },
            pause_ms: 0,
            clients: 4,
        },
        Row {
            name: "closes after a while",
            serve: |mut p| {
                p.request();
                p.send(ok("fine"));
                std::thread::sleep(Duration::from_millis(20));
            },
            pause_ms: 19,
            clients: 4,
        },
        Row {
            name: "says something on an idle connection",
            serve: |mut p| {
                while p.request().is_some() && p.send(ok("fine")) {
                    std::thread::sleep(Duration::from_millis(10));
                    p.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
                }
            },
            pause_ms: 30,
            // One only, or its words would come between another's request and the answer.
            clients: 1,
        },
    ];
    side_by_side(&rows, |row| {
        let bad = Backend::start(row.serve);
        let stand = Stand::start(&format!("{QUICK}{}", pool("p", &[bad.address], "retries = 0\n")), 2);
        std::thread::scope(|s| {
            for _ in 0..row.clients {
                s.spawn(|| {
                    let mut client = stand.client();
                    for i in 0..40 {
                        std::thread::sleep(Duration::from_millis(row.pause_ms));
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
        let told = stand.end();
        assert_eq!(told.iter().filter(|t| t.cause.is_none()).count(), 40 * row.clients, "{}", row.name);
    });
}

/// `localhost` is ::1 and 127.0.0.1, and most servers listen on one of them.
#[test]
fn a_name_of_several_addresses_is_up_while_one_of_them_is() {
    let (one, other) = (Backend::good("one"), Backend::good("other"));
    let (one, other, nobody) = (one.address, other.address, [Backend::nobody(), Backend::nobody()]);
    // What the name resolves to, and who answers.
    let rows: [(&[SocketAddr], &[&str]); 6] = [
        (&[one], &["one"]),
        (&[nobody[0], one], &["one"]),
        (&[one, nobody[0]], &["one"]),
        (&[nobody[0], nobody[1], one], &["one"]),
        (&[nobody[0], one, nobody[1], other], &["one", "other"]),
        (&[nobody[0], nobody[1]], &[]),
    ];
    let more = "retries = 0\nhealth_config = { check_every = 1, timeout = 500, slow_threshold = 0 }\n";
    let text = format!("{QUICK}{}", pool("p", &[one], more)).replace(&one.to_string(), "several.test:80");
    side_by_side(&rows, |(found, responses)| {
        let found = found.to_vec();
        let lookups = Lookups::with(WAIT, move |_, _| Ok(found.clone()));
        let stand = Stand::start_with(&text, 2, lookups);
        // Not before it has been looked up.
        let begun = Instant::now();
        while stand.client().get("/p").map(|a| a.status) != Ok(200) && !responses.is_empty() {
            assert!(begun.elapsed() < WAIT, "{responses:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut seen = BTreeSet::new();
        for _ in 0..2 {
            // Connections to all of them, for a request each at once.
            let mut clients: Vec<_> = (0..8).map(|_| stand.client()).collect();
            for client in &mut clients {
                client.send("GET /p HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            }
            for client in &mut clients {
                let response = client.response(false).expect("an answer");
                match responses.len() {
                    0 => assert!(matches!(response.status, 502 | 503), "{response:?}"),
                    _ => assert_eq!(response.status, 200, "{response:?}"),
                }
                seen.insert(if response.status == 200 { response.text() } else { String::new() });
            }
            std::thread::sleep(Duration::from_millis(if responses.is_empty() { 0 } else { 1200 }));
        }
        seen.remove("");
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), *responses);
        let told = stand.end();
        assert!(told.iter().all(|t| t.attempts <= 1), "{told:?}");
    });
}

/// What may have been done is not done again: a POST that a closing connection swallowed is answered with an
/// error, and nobody sees it twice.
#[test]
fn what_is_not_idempotent_is_sent_once() {
    let (seen, sees) = std::sync::mpsc::channel();
    let seen = std::sync::Mutex::new(seen);
    let bad = Backend::start(move |mut p| {
        // The first on a connection is answered, the second read and swallowed.
        for responded in [true, false] {
            let Some(head) = p.request() else { return };
            let _ =
                seen.lock().expect("no panic").send(head.split(' ').nth(1).unwrap_or_default().to_owned());
            if responded {
                p.send(ok("done"));
            }
        }
    });
    let stand = Stand::start(&format!("{QUICK}{}", pool("p", &[bad.address], "retries = 5\n")), 1);
    let mut client = stand.client();
    for i in 0..20 {
        client
            .send(format!("POST /p/{i} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"))
            .expect("sent");
        let response = client.response(false).expect("an answer");
        assert_eq!(response.status, if i % 2 == 0 { 200 } else { 502 }, "{i}: {response:?}");
    }
    drop(client);
    let told = stand.end();
    assert!(told.iter().all(|t| t.attempts == 1), "{told:?}");
    drop(bad);
    let seen: Vec<String> = sees.try_iter().collect();
    assert_eq!(seen, (0..20).map(|i| format!("/p/{i}")).collect::<Vec<_>>(), "each once, in turn");
}

/// An answer before the request's body has been read. What the client sends after it is nobody's next
/// request.
#[test]
fn early_responses_reach_clients_that_still_send() {
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
                p.wait_for_the_end();
            },
            status: 413,
        },
        Row { name: "and closes with no answer", serve: |mut p| drop(p.head()), status: 502 },
    ];
    // The body looks like requests: none of them may be served.
    let body = "GET /good/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(BODY / 48);
    let chunk = |c: &[u8]| format!("{:x}\r\n{}\r\n", c.len(), String::from_utf8_lossy(c));
    let chunked = body.as_bytes().chunks(1 << 16).map(chunk).collect::<String>() + "0\r\n\r\n";
    let bodies =
        [(format!("Content-Length: {}", body.len()), &body), ("Transfer-Encoding: chunked".into(), &chunked)];
    let rows: Vec<_> = rows.iter().flat_map(|row| bodies.iter().map(move |body| (row, body))).collect();
    side_by_side(&rows, |(row, (framing, body))| {
        let name = format!("{}: {framing}", row.name);
        let (bad, good) = (Backend::start(row.serve), Backend::good("good"));
        let pools = pool("p", &[bad.address], "") + &pool("good", &[good.address], "");
        let stand = Stand::start(&format!("{QUICK}{pools}"), 1);
        let bystander = Bystander::start(stand.address, "/good", "good");
        let mut client = stand.client();
        client.send(format!("POST /p HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n")).expect("sent");
        // It may be cut off in the middle, but has to see the answer.
        let _ = client.send(body);
        let response = client.response(false).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(response.status, row.status, "{name}");
        assert!(client.is_closed(), "{name}");
        bystander.end();
        let told = stand.end();
        assert!(!told.iter().any(|t| t.target.contains("smuggled")), "{name}: {told:?}");
        assert_eq!(
            good.seen.requests.load(Ordering::SeqCst),
            told.iter().filter(|t| t.target == "/good").count(),
            "{name}"
        );
    });
}
