//! Every timeout and every limit: nothing a moment before it, or a byte below it.

use std::time::Duration;

use ruststrom_core::{Cause, Fault};

use crate::causes::{HALF, TWO, all_open, all_reply, ms};
use crate::world::{Open, Reply, World, addr, config, get, ok, one_pool};

const A: &str = "10.0.0.1:80";

/// Every time limit: nothing happens a moment before, and it does a moment after.
#[test]
fn every_timeout() {
    /// What leads there, when it is due, how the clients' and backends' connections stand before and after it
    /// (open: true).
    struct Row {
        what: &'static str,
        before: fn(&mut World),
        due: u64,
        record: Option<(u16, Cause)>,
        backends_closed: bool,
    }
    let table = [
        Row {
            what: "a client that says nothing",
            before: |w| _ = w.client(),
            due: 1_000,
            record: None,
            backends_closed: false,
        },
        Row {
            what: "half a head, from accept",
            before: |w| {
                let c = w.client();
                w.advance(ms(900));
                w.send(c, "GET");
            },
            due: 100,
            record: Some((408, Cause::HeadTimeout)),
            backends_closed: false,
        },
        Row {
            what: "half a head of a second request, from its first byte",
            before: |w| {
                let c = w.client_sends(&get("/"));
                w.exchanges();
                w.advance(ms(1_500));
                w.send(c, "GET");
                w.advance(ms(900));
                w.send(c, " ");
            },
            due: 100,
            record: Some((408, Cause::HeadTimeout)),
            backends_closed: false,
        },
        Row {
            what: "idle between requests",
            before: |w| {
                w.client_sends(&get("/"));
                w.exchanges();
            },
            due: 2_000,
            record: None,
            backends_closed: false,
        },
        Row {
            what: "connecting",
            before: |w| {
                all_open(w, Open::Silent);
                w.client_sends(&get("/"));
            },
            due: 3_000,
            record: Some((504, Cause::ConnectTimeout)),
            backends_closed: true,
        },
        Row {
            what: "the head of the response",
            before: |w| {
                all_reply(w, Reply::Hold);
                let c = w.client_sends(HALF);
                w.advance(ms(2_000));
                w.send(c, "dy");
            },
            due: 4_000,
            record: Some((504, Cause::BackendTimeout)),
            backends_closed: true,
        },
        Row {
            what: "the head of the response, which trickles",
            before: |w| {
                all_reply(w, Reply::Hold);
                w.client_sends(&get("/"));
                let b = w.to(A)[0];
                w.send(b, "HTTP/1.1 200 OK\r\n");
                w.advance(ms(3_000));
                w.send(b, "X: y\r\n");
            },
            due: 1_000,
            record: Some((504, Cause::BackendTimeout)),
            backends_closed: true,
        },
        Row {
            what: "the head of the response, after an interim one",
            before: |w| {
                all_reply(w, Reply::Hold);
                w.client_sends(&get("/"));
                w.advance(ms(3_000));
                let b = w.to(A)[0];
                w.send(b, "HTTP/1.1 103 X\r\n\r\n");
            },
            due: 4_000,
            record: Some((504, Cause::BackendTimeout)),
            backends_closed: true,
        },
        Row {
            what: "an expectation that nobody meets",
            before: |w| {
                all_reply(w, Reply::Hold);
                w.client_sends(
                    "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
                );
            },
            due: 4_000,
            record: Some((504, Cause::BackendTimeout)),
            backends_closed: true,
        },
        Row {
            what: "an expectation that was met: the response's time begins with the end of the body",
            before: |w| {
                all_reply(w, Reply::Hold);
                let c = w.client_sends(
                    "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
                );
                w.advance(ms(3_000));
                let b = w.to(A)[0];
                w.send(b, "HTTP/1.1 100 Continue\r\n\r\n");
                w.advance(ms(3_000));
                w.send(c, "bo");
                w.advance(ms(3_000));
                w.send(c, "dy");
            },
            due: 4_000,
            record: Some((504, Cause::BackendTimeout)),
            backends_closed: true,
        },
        Row {
            what: "an expectation that is met when there is nothing to send any more",
            before: |w| {
                all_reply(w, Reply::Hold);
                w.client_sends("POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
                let b = w.to(A)[0];
                w.send(b, "HTTP/1.1 100 Continue\r\n\r\n");
            },
            due: 4_000,
            record: Some((504, Cause::BackendTimeout)),
            backends_closed: true,
        },
        Row {
            what: "the same without waiting for the 100",
            before: |w| {
                all_reply(w, Reply::Hold);
                let c = w.client_sends(
                    "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
                );
                w.advance(ms(3_000));
                w.send(c, "bo");
                w.advance(ms(3_000));
                w.send(c, "dy");
            },
            due: 4_000,
            record: Some((504, Cause::BackendTimeout)),
            backends_closed: true,
        },
        Row {
            what: "a response instead of a 100: the client has nothing to send",
            before: |w| {
                all_reply(w, Reply::Hold);
                w.client_sends(
                    "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
                );
                let b = w.to(A)[0];
                w.send(b, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n");
                for _ in 0..8 {
                    assert_eq!(w.exchanges(), []);
                    w.advance(ms(1_000));
                    w.send(b, "a");
                }
                w.client_sends(HALF);
            },
            due: 700,
            record: Some((503, Cause::QueueTimeout)),
            backends_closed: false,
        },
        Row {
            what: "a body that stops",
            before: |w| {
                let c = w.client_sends(HALF);
                w.advance(ms(4_900));
                w.send(c, "d");
                // One byte in that time is too little to be more than a stall, but enough not to be one.
            },
            due: 5_100,
            record: Some((408, Cause::ClientStalled)),
            backends_closed: true,
        },
        Row {
            what: "a request that the backend does not take",
            before: |w| {
                w.backend(A).open = Open::Silent;
                w.client_sends(&get("/"));
                let b = w.to(A)[0];
                w.room(b, 0);
                w.opened(b);
            },
            due: 5_000,
            record: Some((504, Cause::BackendStalled)),
            backends_closed: true,
        },
        Row {
            what: "a response that stops",
            before: |w| {
                all_reply(w, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc");
                w.client_sends(&get("/"));
            },
            due: 5_000,
            record: Some((200, Cause::BackendStalled)),
            backends_closed: true,
        },
        Row {
            what: "a response that nobody takes",
            before: |w| {
                all_reply(w, &*ok(&"x".repeat(5000)));
                let c = w.client();
                w.room(c, 0);
                w.send(c, get("/"));
            },
            due: 5_000,
            record: Some((200, Cause::ClientStalled)),
            backends_closed: true,
        },
        Row {
            what: "a tunnel, from its last byte",
            before: |w| {
                all_reply(w, "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
                let c = w.client_sends(
                    "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
                );
                w.advance(ms(5_900));
                w.send(c, "x");
                w.advance(ms(5_900));
                let b = w.to(A)[0];
                w.send(b, "y");
            },
            due: 6_000,
            record: Some((101, Cause::TunnelTimeout)),
            backends_closed: true,
        },
        Row {
            what: "the queue",
            before: |w| {
                all_reply(w, Reply::Hold);
                w.client_sends(&get("/"));
                w.advance(ms(1_000));
                w.client_sends(&get("/"));
            },
            due: 700,
            record: Some((503, Cause::QueueTimeout)),
            backends_closed: false,
        },
        Row {
            what: "a drain",
            before: |w| {
                all_reply(w, Reply::Hold);
                w.client_sends(&get("/"));
                w.drain(ms(1_234));
            },
            due: 1_234,
            record: Some((0, Cause::Drained)),
            backends_closed: true,
        },
        Row {
            what: "after our last word",
            before: |w| {
                w.client_sends("x:\r\n\r\n");
                w.exchanges();
            },
            due: 2_000,
            record: None,
            backends_closed: false,
        },
        Row {
            what: "an idle connection to a backend",
            before: |w| {
                w.client_sends(&get("/"));
                w.exchanges();
                w.advance(ms(1_900));
                let c = w.client_sends(&get("/"));
                w.exchanges();
                w.advance(ms(3_000));
                w.end(c);
            },
            due: 4_000,
            record: None,
            backends_closed: true,
        },
    ];
    let text = "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[timeouts]\nhead = 1\nidle = 2\nconnect = 3\nbackend_head = 4\n\
                stall = 5\ntunnel = 6\nqueue = \"700ms\"\n[limits]\nmin_upload_rate = 0\nmin_download_rate = 0\n[[backend_pools]]\n\
                addresses = [{ address = \"10.0.0.1:80\", max_connections = 1 }]\nretries = 0\n[backend_pools.client]\npool_idle_timeout = 7\n";
    for Row { what, before, due, record, backends_closed } in table {
        let mut w = World::new(text);
        before(&mut w);
        assert_eq!(w.exchanges(), [], "{what}: too early");
        let state = |w: &World| (w.to(A).len(), w.counts().clients);
        let at_first = state(&w);
        w.advance(ms(due) - ms(1));
        assert_eq!((w.exchanges(), state(&w)), (vec![], at_first), "{what}: too early");
        w.advance(ms(3));
        let exchanges: Vec<_> = w.exchanges().iter().map(|t| (t.status, t.cause)).collect();
        assert_eq!(
            exchanges,
            record.map(|(status, cause)| (status, Some(cause))).into_iter().collect::<Vec<_>>(),
            "{what}"
        );
        assert_eq!(
            w.to(A).is_empty(),
            backends_closed || at_first.0 == 0,
            "{what}: the backend's connection"
        );
        if record.is_none() && !backends_closed {
            assert!(state(&w).1 < at_first.1, "{what}: nobody was closed");
        }
        w.finish();
    }
}

/// A backend has all of `backend_head` to think: none of the short times around it ends that, whatever the
/// client's connection and the backend's have seen before.
#[test]
fn a_backend_may_think() {
    let text = |backend_head: u64| {
        format!(
            "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[timeouts]\nhead = 1\nidle = 1\nconnect = 1\n\
             backend_head = {backend_head}\nstall = 1\ntunnel = 1\nqueue = 1\nclient_fin = 1\n[[backend_pools]]\n\
             addresses = [\"10.0.0.1:80\"]\nretries = 0\n[backend_pools.client]\npool_idle_timeout = 1\n"
        )
    };
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";
    for request in [get("/"), post.to_owned()] {
        for connection_is_reused in [false, true] {
            for earlier_requests in [0, 1, 3] {
                for pieces in [1, 2] {
                    for late in [false, true] {
                        let what = format!(
                            "{request:?}, reused {connection_is_reused}, {earlier_requests} before, {pieces} pieces"
                        );
                        let mut w = World::new(&text(50));
                        let c = w.client();
                        for _ in 0..earlier_requests {
                            assert_eq!(w.ask(c, "/"), [200]);
                            w.advance_ms(500);
                        }
                        if connection_is_reused {
                            w.send_from_new_client(&get("/"));
                        } else if earlier_requests > 0 {
                            let idle = w.to(A)[0];
                            w.fault(idle, Fault::Reset);
                        }
                        w.exchanges();
                        w.backend(A).reply = Reply::Hold;
                        let (first, second) = request.split_at(request.len() * (pieces - 1) / 2);
                        w.send(c, first);
                        w.advance_ms(if pieces > 1 { 300 } else { 0 });
                        w.send(c, second);
                        let b = w.to(A)[0];
                        assert!(!w.peer(b).received.is_empty(), "{what}: it has been sent");
                        w.advance_ms(49_998);
                        assert_eq!((w.exchanges(), w.peer(b).closed), (vec![], false), "{what}: too early");
                        if late {
                            w.advance_ms(4);
                            assert_eq!(w.statuses(c), [504], "{what}");
                        } else {
                            w.reply(b, ok("x"));
                            assert_eq!(w.statuses(c), [200], "{what}");
                            assert!(w.exchanges()[0].reused == connection_is_reused, "{what}");
                        }
                        w.finish();
                    }
                }
            }
        }
    }
}

/// The time for a head is over when its response has been made, whether that is taken or not.
#[test]
fn a_bad_head_is_answered_once() {
    let mut w = World::new(
        &"http_address = \"192.0.2.1:80\"\n[timeouts]\nhead = 1\nidle = 1\nstall = 9\n".add_pool(TWO),
    );
    for requests_before in [0, 1] {
        let c = w.client();
        for _ in 0..requests_before {
            assert_eq!(w.ask(c, "/"), [200]);
        }
        w.exchanges();
        w.room(c, 0);
        w.send(c, "nonsense\r\n\r\n");
        w.advance_ms(5_000);
        assert_eq!(w.exchanges(), [], "nobody has taken it yet");
        w.room(c, usize::MAX);
        assert_eq!((w.statuses(c), w.exchanges().len()), (vec![400], 1));
    }
    w.finish();
}

/// Bytes a second over the time of `stall`: just enough passes, just too little does not.
#[test]
fn the_slowest_that_is_borne() {
    // Upload; bytes in each second; whether it lives.
    for (upload, bytes, lives) in
        [(true, 100, true), (true, 99, false), (false, 100, true), (false, 99, false)]
    {
        let mut w = World::new(&one_pool(TWO));
        all_reply(&mut w, Reply::Hold);
        let c = w.client();
        if upload {
            w.send(c, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n");
        } else {
            w.send(c, get("/"));
            w.room(c, 0);
            let b = w.to(A)[0];
            w.send(b, ok(&"x".repeat(100_000)));
        }
        for _ in 0..70 {
            w.advance_ms(999);
            if upload {
                w.send(c, vec![b'x'; bytes]);
            } else if !w.peer(c).closed {
                w.room(c, bytes);
            }
            w.advance_ms(1);
        }
        assert_eq!(w.exchanges().is_empty(), lives, "{upload} {bytes}");
        w.finish();
    }
}

/// A timeout of 0 is none.
#[test]
fn no_timeouts() {
    let text = "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[timeouts]\nhead = 0\nidle = 0\nconnect = 0\nbackend_head = 0\n\
                stall = 0\ntunnel = 0\nqueue = 0\n"
        .add_pool("addresses = [{ address = \"10.0.0.1:80\", max_connections = 2 }]");
    let mut w = World::new(&text);
    w.backend(A).reply = Reply::Hold;
    w.backend(A).opens = [Open::Silent, Open::Take].into();
    let half = w.client_sends("GET");
    let clients =
        [w.client(), w.client_sends(&get("/")), w.client_sends(&get("/")), w.client_sends(&get("/"))];
    assert_eq!(w.counts().queued, 1);
    w.advance(Duration::from_secs(30 * 24 * 3600));
    assert_eq!((w.exchanges(), w.counts().clients), (vec![], 5));
    for c in clients.into_iter().chain([half]) {
        w.fault(c, Fault::Reset);
    }
    w.finish();
}

#[test]
fn every_limit() {
    // The limit, what a client sends, the status of the response.
    let long = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(n));
    let fields = |n: usize| format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}\r\n", "A: b\r\n".repeat(n));
    let bytes = |n: usize| format!("GET / HTTP/1.1\r\nHost: a.test\r\nA: {}\r\n\r\n", "x".repeat(n - 37));
    assert_eq!(bytes(1024).len(), 1024);
    let table = [
        ("head_bytes = 1024", bytes(1024), 200),
        ("head_bytes = 1024", bytes(1025), 431),
        ("head_bytes = 16384", bytes(16384), 200),
        ("head_bytes = 16384", bytes(16385), 431),
        ("fields = 8", fields(7), 200),
        ("fields = 8", fields(8), 431),
        ("target_bytes = 64", long(63), 200),
        ("target_bytes = 64", long(64), 414),
        ("requests_per_connection = 2", get("/").repeat(2), 200),
    ];
    for (limit, sent, status) in table {
        let text = format!(
            "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[limits]\n{limit}\n"
        );
        let mut w = World::new(&text.add_pool(TWO));
        let c = w.client_sends(&sent);
        let statuses = w.statuses(c);
        assert_eq!(statuses.first(), Some(&status), "{limit} {}", sent.len());
        w.finish();
    }
    // Answers.
    let response = |fields: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
    let table = [
        ("head_bytes = 1024", response(&format!("A: {}\r\n", "x".repeat(1024 - 43))), 200),
        ("head_bytes = 1024", response(&format!("A: {}\r\n", "x".repeat(1025 - 43))), 502),
        ("fields = 8", response(&"A: b\r\n".repeat(7)), 200),
        ("fields = 8", response(&"A: b\r\n".repeat(8)), 502),
    ];
    for (limit, reply, status) in table {
        let mut w = World::new(&one_pool(&format!("{TWO}\n[backend_pools.limits]\n{limit}")));
        all_reply(&mut w, &*reply);
        let c = w.client_sends(&get("/"));
        assert_eq!(w.statuses(c), [status], "{limit} {}", reply.len());
        w.finish();
    }
}

#[test]
fn limits_of_connections() {
    use ruststrom_core::{ListenerId, Refused};
    let limited = |limit: &str| {
        config(
            &format!(
                "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[limits]\n{limit}\n"
            )
            .add_pool(TWO),
        )
    };
    // Over two shards.
    let mut w = World::of(&limited("connections = 3"), 2);
    let accept = |w: &mut World, shard: usize, ip: &str, listener: u16| {
        w.accept(shard, addr(ip), ListenerId(listener))
    };
    let all: Vec<_> = (0..3).map(|n| accept(&mut w, n % 2, "192.0.2.7:1", 0).expect("taken")).collect();
    assert_eq!(accept(&mut w, 0, "192.0.2.8:1", 0), Err(Refused::TooManyConnections));
    // Our own page always answers.
    let admin = accept(&mut w, 0, "192.0.2.8:1", 1).expect("taken");
    w.send(admin, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(w.statuses(admin), [200]);
    w.end(admin);
    w.end(all[1]);
    assert!(accept(&mut w, 1, "192.0.2.8:1", 0).is_ok());
    w.finish();

    let mut w = World::of(&limited("connections_per_ip = 2"), 2);
    let first = accept(&mut w, 0, "192.0.2.7:1", 0).expect("taken");
    accept(&mut w, 1, "192.0.2.7:2", 0).expect("taken");
    assert_eq!(accept(&mut w, 0, "192.0.2.7:3", 0), Err(Refused::TooManyFromAddress));
    assert!(accept(&mut w, 0, "192.0.2.8:1", 0).is_ok());
    // Who only looks at our own page does not make room for others by going.
    let admin = accept(&mut w, 0, "192.0.2.7:4", 1).expect("taken");
    w.end(admin);
    assert_eq!(accept(&mut w, 0, "192.0.2.7:3", 0), Err(Refused::TooManyFromAddress));
    w.end(first);
    assert!(accept(&mut w, 0, "192.0.2.7:3", 0).is_ok());
    assert_eq!(accept(&mut w, 0, "192.0.2.7:5", 0), Err(Refused::TooManyFromAddress));
    w.finish();

    let mut w = World::of(&limited("requests_per_connection = 2"), 1);
    let c = w.client_sends(&get("/").repeat(3));
    let got = w.got(c);
    assert_eq!((got.matches("200 OK").count(), got.matches("Connection: close").count()), (2, 1));
    assert!(w.peer(c).shut);
    w.finish();
}

/// Text of a configuration with a pool behind it.
trait AddPool {
    fn add_pool(&self, pool: &str) -> String;
}

impl AddPool for str {
    fn add_pool(&self, pool: &str) -> String {
        format!("{self}[[backend_pools]]\n{pool}\n")
    }
}

/// Heads of more than 16 KiB where the file allows them: they come in whole or in pieces, and go on with what
/// the proxy adds; one byte too many is refused.
#[test]
fn long_heads() {
    let text = "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[limits]\nhead_bytes = 65536\n\
                [[backend_pools]]\naddresses = [\"10.0.0.1:80\"]\n";
    let padded = |start: &str, end: &str, len: usize| {
        let mut head = start.to_owned();
        while head.len() + end.len() < len {
            let room = len - head.len() - end.len();
            // A line takes 7 bytes beyond its value, and what is left must have room for another one.
            let value = if room < 7_000 { room - 7 } else { 6_000 };
            head += &format!("X-P: {}\r\n", "p".repeat(value));
        }
        head + end
    };
    for len in [16_385, 17_984, 17_985, 20_000, 40_000, 65_000, 65_535] {
        for piece in [usize::MAX, 7_000, 333] {
            let mut w = World::new(text);
            let request = padded("GET / HTTP/1.1\r\nHost: a.test\r\n", "\r\n", len);
            let response = padded("HTTP/1.1 200 OK\r\n", "Content-Length: 2\r\n\r\n", len) + "ok";
            w.backend(A).reply = Reply::Hold;
            let c = w.client();
            for piece in request.as_bytes().chunks(piece.min(len)) {
                w.send(c, piece);
            }
            let (b, _) = w.arrived.pop().expect("forwarded");
            let got = w.got(b);
            assert!(got.contains("X-Request-ID: ") && got.len() > len, "{len}: {} bytes", got.len());
            for piece in response.as_bytes().chunks(piece.min(len)) {
                w.send(b, piece);
            }
            let got = w.got(c);
            assert!(got.ends_with("\r\n\r\nok") && got.len() > len, "{len}: {} bytes", got.len());
            // The same connections carry short ones again.
            w.backend(A).reply = ok("").as_str().into();
            assert_eq!(w.ask(c, "/"), [200]);
            assert_eq!(w.counts().pages, 0, "{len}");
            w.finish();
        }
    }
    let mut w = World::new(text);
    let c = w.client_sends(&padded("GET / HTTP/1.1\r\nHost: a.test\r\n", "\r\n", 65_536));
    assert_eq!(w.statuses(c), [431]);
    w.finish();
}
