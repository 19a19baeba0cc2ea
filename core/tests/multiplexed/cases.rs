//! The cases, with clients and backends of many streams as the binary has it.

use std::sync::Arc;
use std::time::Duration;

use crate::BOTH;
use crate::two_wires::{Far, PAIRS, Rig, Speaks, config};
use ruststrom_core::config::Middleware;
use ruststrom_core::http::Violation;
use ruststrom_core::middleware::factory::{MiddlewareFactory, Place};
use ruststrom_core::middleware::{self, Action, Ctx};
use ruststrom_core::rng::Rng;
use ruststrom_core::{Cause, ConnId, LookupResult, Query, Shared};

const WITH_BACKUP: &str =
    "addresses = [\"127.0.0.1:81\", { address = \"127.0.0.1:82\", backup = true }]\nretries = 1";

fn rig(pool: &str, pair: (Speaks, Speaks)) -> Rig {
    Rig::new(config("", pool), Arc::new(Shared::new("lb", 1)), pair)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

fn ok(len: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n")
}

fn nothing_left(rig: &mut Rig) {
    let counts = rig.proxy.counts();
    assert_eq!((counts.exchanges, counts.pages, counts.in_flight, counts.lookups), (0, 0, 0, 0));
}

#[test]
fn a_request_passes_between_any_two_wires() {
    for pair in PAIRS {
        for most in [usize::MAX, 1000, 7] {
            let mut rig = rig("", pair);
            rig.most = most;
            let c = rig.client();
            let body: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
            let head =
                format!("PUT /up?x=1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len());
            let client = rig.ask(c, &head, false);
            rig.send_all(client, &body);
            rig.end(client, "");
            let backend = rig.asked()[0];
            let got = rig.message(backend);
            assert!(
                got.head.starts_with("PUT /up?x=1 HTTP/1.1\r\nHost: a.test\r\n"),
                "{pair:?}: {}",
                got.head
            );
            assert!(got.ended && got.body == body, "{pair:?} by {most}: {} bytes", got.body.len());
            let answer: Vec<u8> = (0..60_000u32).map(|i| (i % 249) as u8).collect();
            rig.respond(backend, &ok(answer.len()), &answer);
            let got = rig.message(client);
            assert!(got.head.starts_with("HTTP/1.1 200 OK\r\n") && got.ended, "{pair:?}: {got:?}");
            assert!(got.body == answer, "{pair:?} by {most}: {} bytes", got.body.len());
            assert_eq!(rig.proxy.observer_mut().records, [(200, None)]);
            nothing_left(&mut rig);
        }
    }
}

// However its content is framed, a response that has passed leaves its connection to the next request.
#[test]
fn a_connection_to_a_backend_is_used_again() {
    for (clients, _) in PAIRS.into_iter().chain([BOTH]) {
        let mut rig = rig("", (clients, Speaks::Http1));
        let c = rig.client();
        let heads = ["Content-Length: 3", "Transfer-Encoding: chunked", "Content-Length: 0"];
        for (n, framing) in heads.into_iter().cycle().take(7).enumerate() {
            let client = rig.ask(c, &get("/"), true);
            let b = (rig.backend_conns[0], 0);
            let body: &[u8] = match framing {
                "Content-Length: 3" => b"abc",
                "Content-Length: 0" => b"",
                _ => b"3\r\nabc\r\n0\r\n\r\n",
            };
            rig.respond_at_once(b, &format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"), body);
            let got = rig.message(client);
            assert!(got.ended && !got.reset, "{clients:?} {n}: {got:?}");
            rig.forget(client);
            rig.forget(b);
        }
        assert_eq!(rig.backend_conns.len(), 1, "{clients:?}");
    }
}

#[test]
fn responses_interleave_and_trailers_pass() {
    let mut rig = rig("", BOTH);
    let c = rig.client();
    let (one, two) = (rig.ask(c, &get("/1"), true), rig.ask(c, &get("/2"), true));
    let asked = rig.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].0, asked[1].0, "one connection carries both");
    let head = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\n\r\n";
    rig.respond_head(asked[1], head);
    rig.respond_head(asked[0], head);
    for part in 0..4u8 {
        rig.send(asked[0], &[b'a' + part; 1000]);
        rig.send(asked[1], &[b'A' + part; 1000]);
    }
    rig.end(asked[1], "X-Sum: 2\r\n\r\n");
    assert!(rig.message(two).ended && !rig.message(one).ended, "each ends by itself");
    rig.end(asked[0], "X-Sum: 1\r\n\r\n");
    for (far, first, sum) in [(one, b'a', "X-Sum: 1"), (two, b'A', "X-Sum: 2")] {
        let got = rig.message(far);
        let expected: Vec<u8> = (0..4u8).flat_map(|part| [first + part; 1000]).collect();
        assert!(got.ended && got.body == expected && got.trailers.starts_with(sum), "{got:?}");
    }
    nothing_left(&mut rig);
}

#[test]
fn a_reset_stream_ends_alone() {
    // By the client, and by the backend in the middle of its response.
    for by_client in [true, false] {
        let mut rig = rig("retries = 0", BOTH);
        let c = rig.client();
        let (one, two) = (rig.ask(c, &get("/1"), true), rig.ask(c, &get("/2"), true));
        let asked = rig.asked();
        for far in &asked {
            rig.respond_head(*far, &ok(4));
            rig.send(*far, b"ab");
        }
        rig.reset(if by_client { one } else { asked[0] });
        assert!(rig.message(if by_client { asked[0] } else { one }).reset, "the other side hears of it");
        rig.send(asked[1], b"cd");
        rig.end(asked[1], "");
        let got = rig.message(two);
        assert!(got.ended && got.body == b"abcd" && !got.reset, "{got:?}");
        let cause = if by_client { Cause::ClientClosed } else { Cause::ResponseTruncated };
        assert_eq!(rig.proxy.observer_mut().records, [(200, Some(cause)), (200, None)]);
        nothing_left(&mut rig);
        let three = rig.ask(c, &get("/3"), true);
        let again = *rig.asked().last().expect("asked");
        rig.respond(again, &ok(1), b"x");
        assert_eq!(rig.message(three).body, b"x", "the connections go on");
    }
}

#[test]
fn a_stalled_stream_holds_up_no_other() {
    let mut rig = rig("", BOTH);
    let c = rig.client();
    let (one, two) = (rig.ask(c, &get("/1"), true), rig.ask(c, &get("/2"), true));
    let asked = rig.asked();
    rig.hold(one);
    rig.respond_head(asked[0], "HTTP/1.1 200 OK\r\n\r\n");
    let mut taken = 0;
    for _ in 0..200 {
        taken += rig.send(asked[0], &[b'x'; 1000]);
    }
    assert!(taken < 150_000, "what a client does not take is not read without end: {taken}");
    rig.respond(asked[1], &ok(100_000), &vec![b'y'; 100_000]);
    let got = rig.message(two);
    assert!(got.ended && got.body.len() == 100_000, "{} bytes", got.body.len());
    assert!(!rig.message(one).ended);
    // Whoever takes nothing for too long is cut, and only he.
    for _ in 0..4 {
        rig.advance(Duration::from_secs(31));
    }
    assert!(rig.message(one).reset && rig.message(asked[0]).reset);
    assert_eq!(rig.proxy.observer_mut().records, [(200, None), (200, Some(Cause::ClientStalled))]);
    nothing_left(&mut rig);
}

/// A backend that stops in the middle of a stream's response is given up, and only that stream.
#[test]
fn a_backend_stalls_on_one_stream() {
    for pair in PAIRS.into_iter().filter(|pair| pair.1 != Speaks::Http1) {
        let mut rig = rig("retries = 0", pair);
        let (c, other) = (rig.client(), rig.client());
        let (one, two) = (rig.ask(c, &get("/1"), true), rig.ask(other, &get("/2"), true));
        let asked = rig.asked();
        for far in &asked {
            rig.respond_head(*far, &ok(4));
        }
        for _ in 0..4 {
            rig.send(asked[1], b"x");
            rig.advance(Duration::from_millis(15_100));
        }
        assert!(rig.message(one).reset && rig.message(asked[0]).reset, "{pair:?}");
        assert_eq!(rig.proxy.observer_mut().records, [(200, Some(Cause::BackendStalled))], "{pair:?}");
        rig.end(asked[1], "");
        assert!(rig.message(two).ended && rig.message(two).body == b"xxxx", "{pair:?}");
        nothing_left(&mut rig);
    }
}

/// While the client takes nothing there is no room for more of the response: that is not the backend's delay.
#[test]
fn a_backend_that_may_not_send_does_not_stall() {
    for pair in PAIRS.into_iter().filter(|pair| pair.1 != Speaks::Http1 && pair.0 == Speaks::Http1) {
        let config = config("[limits]\nmin_download_rate = 0", "retries = 0");
        let mut rig = Rig::new(config, Arc::new(Shared::new("lb", 1)), pair);
        rig.most = 4000;
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let backend = rig.asked()[0];
        rig.slow_down(c);
        let body = pattern(1, 100_000);
        rig.respond_head(backend, &ok(body.len()));
        let mut given = 0;
        let mut fill = |rig: &mut Rig| {
            loop {
                match rig.send(backend, &body[given..]) {
                    0 => return given,
                    n => given += n,
                }
            }
        };
        fill(&mut rig);
        rig.advance(Duration::from_millis(29_900));
        assert!(rig.take_once(c));
        fill(&mut rig);
        rig.advance(Duration::from_millis(200));
        rig.advance(Duration::from_millis(29_800));
        assert!(rig.take_once(c), "just in time");
        rig.advance(Duration::from_millis(300));
        assert_eq!(rig.proxy.observer_mut().records, [], "the backend has had room for 0.3 s only");
        while fill(&mut rig) < body.len() || rig.take_once(c) {
            rig.take_once(c);
        }
        rig.end(backend, "");
        while rig.take_once(c) {}
        let got = rig.message(far);
        assert!(got.ended && got.body == body, "{} bytes", got.body.len());
        assert_eq!(rig.proxy.observer_mut().records, [(200, None)]);
        nothing_left(&mut rig);
    }
}

/// No stream can become a tunnel: a 101 is no response there, though one was asked for.
#[test]
fn a_stream_does_not_switch() {
    let mut rig = rig("retries = 0", (Speaks::Http1, Speaks::Toy));
    let c = rig.client();
    let upgrade = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let far = rig.ask(c, upgrade, true);
    let backend = rig.asked()[0];
    rig.respond_head(
        backend,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    );
    let got = rig.message(far);
    assert!(got.head.starts_with("HTTP/1.1 502 ") && rig.message(backend).reset, "{got:?}");
    let cause = Cause::BadResponse(Violation::UnexpectedSwitch);
    assert_eq!(rig.proxy.observer_mut().records, [(502, Some(cause))]);
    nothing_left(&mut rig);
}

#[test]
fn two_wait_in_the_queue_with_deadlines_of_their_own() {
    let mut config = config("", "[backend_pools.timeouts]\nqueue = 5");
    Arc::make_mut(&mut config.pools[0]).backends[0].max_connections = Some(1);
    let mut rig = Rig::new(config, Arc::new(Shared::new("lb", 1)), BOTH);
    let c = rig.client();
    let first = rig.ask(c, &get("/1"), true);
    let second = rig.ask(c, &get("/2"), true);
    rig.advance(Duration::from_secs(3));
    let third = rig.ask(c, &get("/3"), true);
    assert_eq!((rig.asked().len(), rig.proxy.counts().queued), (1, 2));
    rig.advance(Duration::from_millis(2_100));
    let got = rig.message(second);
    assert!(got.head.starts_with("HTTP/1.1 503 ") && got.ended, "its five seconds are over: {got:?}");
    assert!(rig.message(third).head.is_empty(), "the third has two seconds more");
    let busy = rig.asked()[0];
    rig.respond(busy, &ok(1), b"1");
    assert_eq!(rig.message(first).body, b"1");
    let next = *rig.asked().last().expect("asked");
    rig.respond(next, &ok(1), b"3");
    assert_eq!(rig.message(third).body, b"3");
    assert_eq!(
        rig.proxy.observer_mut().records,
        [(503, Some(Cause::QueueTimeout)), (200, None), (200, None)]
    );
    nothing_left(&mut rig);
}

#[test]
fn a_lost_connection_to_a_backend_is_everybodys_own_matter() {
    let mut rig = rig(WITH_BACKUP, BOTH);
    let c = rig.client();
    let (one, two) = (rig.ask(c, &get("/1"), true), rig.ask(c, &get("/2"), true));
    let asked = rig.asked();
    rig.respond_head(asked[0], &ok(4));
    rig.send(asked[0], b"ab");
    let lost = asked[0].0;
    rig.lose(lost);
    assert!(rig.message(one).reset, "half a response is no whole one");
    let again: Vec<_> = rig.asked().into_iter().filter(|far| far.0 != lost).collect();
    assert_eq!(again.len(), 1, "nothing of the second response had come: the backup is asked");
    rig.respond(again[0], &ok(2), b"ok");
    assert_eq!(rig.message(two).body, b"ok");
    nothing_left(&mut rig);
}

#[test]
fn a_client_that_leaves_takes_all_its_streams_along() {
    let mut rig = rig("", BOTH);
    let (c, other) = (rig.client(), rig.client());
    for path in ["/1", "/2", "/3"] {
        rig.ask(c, &get(path), true);
    }
    let kept = rig.ask(other, &get("/4"), true);
    rig.lose(c);
    let asked = rig.asked();
    assert_eq!(asked.iter().filter(|far| rig.message(**far).reset).count(), 3);
    let last = *asked.iter().find(|far| !rig.message(**far).reset).expect("one goes on");
    rig.respond(last, &ok(1), b"4");
    assert_eq!(rig.message(kept).body, b"4");
    nothing_left(&mut rig);
}

#[test]
fn two_lookups_are_outstanding_at_once_and_come_back_in_any_order() {
    let mut config = config("", "");
    Arc::make_mut(&mut config.pools[0]).middlewares = vec![Middleware::Compression(Default::default())];
    let shared = Shared::with_middlewares("lb", 1, Arc::new(LookupFactory));
    let mut rig = Rig::new(config, Arc::new(shared), BOTH);
    let c = rig.client();
    let (one, two) = (rig.ask(c, &get("/1"), true), rig.ask(c, &get("/2"), true));
    assert_eq!((rig.lookups.len(), rig.asked().len()), (2, 0));
    let third = rig.ask(c, &get("/3"), true);
    rig.lookups.swap(0, 1);
    rig.answer_lookup(found());
    let got = rig.message(rig.asked()[0]);
    assert!(got.head.starts_with("GET /2 "), "the second was answered first: {}", got.head);
    rig.reset(third);
    rig.answer_lookup(found());
    rig.answer_lookup(found());
    assert_eq!(rig.asked().len(), 2, "nobody waits for the third any more");
    for far in rig.asked() {
        let path = rig.message(far).head.as_bytes()[5];
        rig.respond(far, &ok(1), &[path]);
    }
    assert_eq!((rig.message(one).body, rig.message(two).body), (b"1".to_vec(), b"2".to_vec()));
    nothing_left(&mut rig);
}

fn found() -> LookupResult {
    LookupResult::Addresses(vec!["192.0.2.9:80".parse().unwrap()])
}

/// Looks something up for every request.
#[derive(Debug)]
struct LookupFactory;

#[derive(Debug)]
struct Lookup;

impl MiddlewareFactory for LookupFactory {
    fn make(&self, _: &Middleware, _: &Place<'_>) -> Option<Box<dyn middleware::Middleware>> {
        Some(Box::new(Lookup))
    }
}

impl middleware::Middleware for Lookup {
    fn on_request(&self, _: &mut Ctx<'_>) -> Action {
        Action::look_up(Query::Resolve { host: "known.test".into(), port: 80 })
    }
}

/// One request of a random run, as both of its far ends know it.
struct Stream {
    id: usize,
    client: Far,
    body: usize,
    sent: usize,
    /// It was reset by one side.
    reset: bool,
    backend: Option<Backend>,
}

struct Backend {
    far: Far,
    len: usize,
    sent: usize,
    has_head: bool,
}

fn pattern(id: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (id * 31 + at * 7) as u8).collect()
}

struct Run {
    rig: Rig,
    rng: Rng,
    clients: [ConnId; 2],
    streams: Vec<Stream>,
    resets: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut config = config("", "retries = 0");
        Arc::make_mut(&mut config.pools[0]).backends[0].max_connections =
            [None, Some(2), Some(5)][rng.below(3) as usize];
        let mut rig = Rig::new(config, Arc::new(Shared::new("lb", 1)), BOTH);
        rig.most = [usize::MAX, 4000, 300][rng.below(3) as usize];
        let clients = [rig.client(), rig.client()];
        let resets = rng.below(2) == 0;
        Self { rig, rng, clients, streams: Vec::new(), resets }
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n as u64) as usize
    }

    fn open(&mut self) {
        let (id, c) = (self.streams.len(), self.clients[self.below(2)]);
        let body = if self.below(2) == 0 { 0 } else { 1 + self.below(40_000) };
        let head = if body == 0 {
            get(&format!("/{id}"))
        } else {
            format!("PUT /{id} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {body}\r\n\r\n")
        };
        let client = self.rig.ask(c, &head, body == 0);
        self.streams.push(Stream { id, client, body, sent: 0, reset: false, backend: None });
        self.notice();
    }

    /// Which request each backend leg serves is written in its head.
    fn notice(&mut self) {
        for far in self.rig.asked() {
            let head = self.rig.message(far).head;
            let id: usize = head.split(['/', ' ']).nth(2).and_then(|id| id.parse().ok()).expect("an id");
            let len = self.below(60_000);
            self.streams[id].backend.get_or_insert(Backend { far, len, sent: 0, has_head: false });
        }
    }

    /// A client sends more of its body; false if there is nothing to send.
    fn upload(&mut self, at: usize) -> bool {
        let most = 1 + self.below(9_000);
        let Stream { id, client, body, sent, reset, .. } = self.streams[at];
        if reset || sent == body || self.is_answered(at) {
            return false;
        }
        let data = pattern(id, body);
        let n = self.rig.send(client, &data[sent..body.min(sent + most)]);
        self.streams[at].sent += n;
        if self.streams[at].sent == body {
            self.rig.end(client, "");
        }
        n > 0
    }

    /// A backend sends more of its response, its head first; false if there is nothing to send.
    fn answer(&mut self, at: usize) -> bool {
        let most = 1 + self.below(9_000);
        let Stream { id, reset, backend: Some(Backend { far, len, sent, has_head }), .. } = self.streams[at]
        else {
            return false;
        };
        if reset || (has_head && sent == len) {
            return false;
        }
        let mut n = 0;
        if has_head {
            n = self.rig.send(far, &pattern(id + 1000, len)[sent..len.min(sent + most)]);
        } else {
            self.rig.respond_head(far, &ok(len));
        }
        let backend = self.streams[at].backend.as_mut().expect("just looked at");
        (backend.has_head, backend.sent) = (true, sent + n);
        if sent + n == len {
            self.rig.end(far, "");
        }
        n > 0 || !has_head
    }

    fn is_answered(&self, at: usize) -> bool {
        self.streams[at].backend.as_ref().is_some_and(|b| b.has_head && b.sent == b.len)
    }

    fn reset(&mut self, at: usize) {
        let by_client = self.below(2) == 0;
        let Stream { client, reset, ref backend, .. } = self.streams[at];
        let done = self.is_answered(at) || self.rig.message(client).ended;
        let far = if by_client { Some(client) } else { backend.as_ref().map(|b| b.far) };
        if let (Some(far), false) = (far, reset || done) {
            self.streams[at].reset = true;
            self.rig.reset(far);
        }
    }

    fn step(&mut self) {
        if self.streams.is_empty() || (self.streams.len() < 24 && self.below(6) == 0) {
            return self.open();
        }
        let at = self.below(self.streams.len());
        match self.below(40) {
            0 if self.resets => self.reset(at),
            1 => self.rig.advance(Duration::from_millis(5)),
            2..20 => drop(self.upload(at)),
            _ => drop(self.answer(at)),
        }
        self.notice();
    }

    /// Everybody does what is left to do; then every stream has come whole to its end, or was reset.
    fn finish(mut self, seed: u64) {
        for _ in 0..20_000 {
            let mut moved = false;
            for at in 0..self.streams.len() {
                moved |= self.upload(at) | self.answer(at);
                self.notice();
            }
            if !moved {
                break;
            }
        }
        for s in &self.streams {
            let got = self.rig.message(s.client);
            if s.reset {
                continue;
            }
            let b = s.backend.as_ref().unwrap_or_else(|| panic!("{seed}: {} never got a backend", s.id));
            assert!(got.ended && !got.reset, "{seed}: {} of {} bytes of {}", got.body.len(), b.len, s.id);
            assert!(
                got.body == pattern(s.id + 1000, b.len),
                "{seed}: another response than that of {}",
                s.id
            );
            let up = self.rig.message(b.far);
            let sent = pattern(s.id, s.body);
            assert!(sent.starts_with(&up.body), "{seed}: another request than {}", s.id);
        }
        let counts = self.rig.proxy.counts();
        let left = (counts.exchanges, counts.pages, counts.in_flight, counts.queued);
        assert_eq!(left, (0, 0, 0, 0), "{seed}");
    }
}

#[test]
fn random_streams_neither_mix_nor_wait_for_each_other() {
    for seed in 0..60 {
        let mut run = Run::new(seed);
        for _ in 0..250 {
            run.step();
        }
        run.finish(seed);
    }
}
