//! The places where middlewares plug in, made real by one transform and one lookup: a body that lies in a
//! page of the exchange's own, and a request that waits for an answer of the driver's.

use std::sync::Arc;

use ruststrom_core::h1::{ParsedRequest, ParsedResponse};
use ruststrom_core::middleware::{Progress, Stage, Transform, Verdict};
use ruststrom_core::observe::{HealthChange, Level, Record};
use ruststrom_core::{
    Accepted, Cause, ConnId, Effect, Fault, Instant, ListenerId, LookupId, LookupResult, Observer, Proxy,
    Query, Shared, config,
};

/// Every letter twice, the second time as a capital: longer than what came in, so output must wait for room.
#[derive(Debug)]
struct Echoing;

impl Stage for Echoing {
    fn request(&self, _: &ParsedRequest<'_>) -> Verdict {
        Verdict::Pass
    }
    fn response(&self, _: &ParsedResponse<'_>) -> Option<Box<dyn Transform>> {
        Some(Box::new(Twice { tail: false }))
    }
}

#[derive(Debug)]
struct Twice {
    tail: bool,
}

impl Transform for Twice {
    fn run(&mut self, input: &[u8], output: &mut [u8], ended: bool) -> Progress {
        let n = input.len().min(output.len() / 2);
        for (i, b) in input[..n].iter().enumerate() {
            (output[2 * i], output[2 * i + 1]) = (*b, b.to_ascii_uppercase());
        }
        // A last word of its own, as a compressor has.
        let finish = ended && n == input.len() && output.len() > 2 * n;
        if finish && !self.tail {
            output[2 * n] = b'!';
            self.tail = true;
            return Progress { taken: n, put: 2 * n + 1, done: true };
        }
        Progress { taken: n, put: 2 * n, done: self.tail }
    }
}

/// Lets a request pass if its host's name resolves.
#[derive(Debug)]
struct Asking;

impl Stage for Asking {
    fn request(&self, request: &ParsedRequest<'_>) -> Verdict {
        let host = String::from_utf8_lossy(request.host).into();
        Verdict::Ask(Query::Resolve { host, port: 80 })
    }
    fn responded(&self, _: &ParsedRequest<'_>, response: &LookupResult) -> Verdict {
        match response {
            LookupResult::Addresses(_) => Verdict::Pass,
            LookupResult::Failed(_) => Verdict::Refuse(Cause::LookupFailed),
        }
    }
}

#[derive(Default)]
struct Told(Vec<(u16, Option<Cause>)>);

impl Observer for Told {
    fn exchange(&mut self, r: &Record<'_>) {
        self.0.push((r.status, r.cause));
    }
    fn health(&mut self, _: &HealthChange<'_>) {}
    fn note(&mut self, _: Level, _: &str) {}
}

struct Rig {
    proxy: Proxy<Told>,
    client: ConnId,
    backend: Option<ConnId>,
    lookup: Option<LookupId>,
    closed: Vec<ConnId>,
}

const NOW: Instant = Instant::from_millis(1000);

impl Rig {
    fn new(chain: Vec<Box<dyn Stage>>) -> Self {
        let text = "http_address = \"127.0.0.1:80\"\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\naddresses = [\"127.0.0.1:81\"]\n";
        let config = Arc::new(config::parse(text).config.expect("a good configuration"));
        let mut proxy = Proxy::new(config, Arc::new(Shared::new("lb", 1)), 0, 1, Told::default(), NOW);
        proxy.set_chain(0, chain);
        let (peer, local) = ("192.0.2.7:5000".parse().unwrap(), "192.0.2.1:80".parse().unwrap());
        let client = proxy.handle_accept(&Accepted { listener: ListenerId(0), peer, local }, NOW).unwrap();
        let mut rig = Self { proxy, client, backend: None, lookup: None, closed: Vec::new() };
        rig.drain();
        rig
    }

    fn drain(&mut self) {
        loop {
            let conn = self.proxy.poll_conn();
            match self.proxy.poll_effect() {
                Some(Effect::Connect { conn, .. }) => {
                    self.backend = Some(conn);
                    self.proxy.handle_connected(conn, NOW);
                }
                Some(Effect::Lookup { id, .. }) => self.lookup = Some(id),
                Some(Effect::Close(c) | Effect::Reset(c)) => self.closed.push(c),
                Some(_) => {}
                None if conn.is_none() => break,
                None => {}
            }
        }
        self.proxy.check();
    }

    fn give(&mut self, to: ConnId, bytes: &[u8]) -> usize {
        let room = self.proxy.recv_buf(to);
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
        if n > 0 {
            self.proxy.handle_recv(to, n, NOW);
        }
        self.drain();
        n
    }

    fn take(&mut self, from: ConnId, most: usize) -> Vec<u8> {
        let mut got = Vec::new();
        for slice in self.proxy.transmit(from).slices() {
            got.extend_from_slice(&slice[..slice.len().min(most - got.len())]);
        }
        if !got.is_empty() {
            self.proxy.handle_sent(from, got.len(), NOW);
        }
        self.drain();
        got
    }
}

fn unchunk(mut wire: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = wire.windows(2).position(|w| w == b"\r\n").expect("a chunk header");
        let size = usize::from_str_radix(std::str::from_utf8(&wire[..end]).unwrap(), 16).unwrap();
        wire = &wire[end + 2..];
        if size == 0 {
            assert_eq!(wire, b"\r\n");
            return body;
        }
        body.extend_from_slice(&wire[..size]);
        assert_eq!(&wire[size..size + 2], b"\r\n");
        wire = &wire[size + 2..];
    }
}

#[test]
fn a_transformed_body_is_framed_anew_and_waits_for_a_slow_client() {
    for most in [usize::MAX, 1000, 7] {
        let mut rig = Rig::new(vec![Box::new(Echoing)]);
        rig.give(rig.client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let backend = rig.backend.unwrap();
        rig.take(backend, usize::MAX);
        let body: Vec<u8> = (0..100_000u32).map(|i| b'a' + (i % 26) as u8).collect();
        let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        response.extend_from_slice(&body);
        let (mut given, mut got) = (0, Vec::new());
        while given < response.len() || rig.proxy.wants(rig.client).send {
            given += rig.give(backend, &response[given..]);
            got.extend(rig.take(rig.client, most));
        }
        let head_end = got.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&got[..head_end]).into_owned();
        assert!(head.contains("Transfer-Encoding: chunked") && !head.contains("Content-Length"), "{head}");
        let expected: Vec<u8> =
            body.iter().flat_map(|b| [*b, b.to_ascii_uppercase()]).chain([b'!']).collect();
        assert_eq!(unchunk(&got[head_end..]), expected);
        let counts = rig.proxy.counts();
        assert_eq!(
            (counts.pages, counts.exchanges, counts.in_flight, counts.backends_idle),
            (0, 0, 0, 1),
            "nothing is left, and the connection is kept"
        );
        assert_eq!(rig.proxy.observer_mut().0, [(200, None)]);
    }
}

#[test]
fn a_request_waits_for_a_lookup_and_goes_on_as_it_was() {
    let found = LookupResult::Addresses(vec!["192.0.2.9:80".parse().unwrap()]);
    let mut rig = Rig::new(vec![Box::new(Asking), Box::new(Asking)]);
    rig.give(rig.client, b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    for _ in 0..2 {
        assert!(rig.backend.is_none() && !rig.proxy.wants(rig.client).recv, "nothing happens meanwhile");
        let id = rig.lookup.take().expect("each stage asks");
        rig.proxy.handle_lookup(id, found.clone(), NOW);
        rig.proxy.handle_lookup(id, found.clone(), NOW);
        rig.drain();
    }
    let sent = rig.take(rig.backend.unwrap(), usize::MAX);
    assert!(sent.starts_with(b"POST /a HTTP/1.1\r\nHost: a\r\n") && sent.ends_with(b"\r\n\r\nhello"));
    assert_eq!(rig.proxy.counts().lookups, 0);
}

#[test]
fn a_lookup_may_fail_never_end_or_outlive_its_client() {
    type Then = fn(&mut Rig, LookupId);
    let table: [(Then, Option<Cause>); 3] = [
        (
            |rig, id| rig.proxy.handle_lookup(id, LookupResult::Failed("no".into()), NOW),
            Some(Cause::LookupFailed),
        ),
        (
            |rig, _| rig.proxy.handle_timeout(NOW + std::time::Duration::from_secs(21)),
            Some(Cause::LookupFailed),
        ),
        (
            |rig, id| {
                rig.proxy.handle_fault(rig.client, Fault::Reset, NOW);
                rig.drain();
                rig.proxy.handle_lookup(id, LookupResult::Failed("too late".into()), NOW);
            },
            Some(Cause::ClientGone),
        ),
    ];
    for (then, cause) in table {
        let mut rig = Rig::new(vec![Box::new(Asking)]);
        rig.give(rig.client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let id = rig.lookup.take().unwrap();
        then(&mut rig, id);
        rig.drain();
        if cause == Some(Cause::LookupFailed) {
            assert!(rig.take(rig.client, usize::MAX).starts_with(b"HTTP/1.1 503 "));
        }
        assert_eq!(rig.proxy.observer_mut().0.last().map(|r| r.1), Some(cause));
        let counts = rig.proxy.counts();
        assert_eq!((counts.lookups, counts.exchanges, counts.pages), (0, 0, 0));
        assert!(rig.backend.is_none());
    }
}
