//! Many clients, two shards, every byte in any order and any piece, faults at any moment: each client gets
//! its own responses, whole or not at all, nothing is done twice that may be done once only, and nothing is
//! left.

use std::collections::BTreeMap;

use ruststrom_core::Fault;
use ruststrom_core::rng::Rng;

use crate::world::{Open, Reply, Sock, World, config};

const BACKENDS: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];

/// `len` bytes that belong to nobody but `id`.
fn pattern(id: usize, len: usize) -> String {
    format!("{id};").chars().cycle().take(len).collect()
}

struct Request {
    id: usize,
    /// Of the response.
    len: usize,
    bytes: String,
    head: bool,
    once: bool,
}

fn request(id: usize, rng: &mut Rng) -> Request {
    let method = ["GET", "GET", "PUT", "POST", "POST", "HEAD"][rng.below(6) as usize];
    let sizes = [0, 1, 10, 3_000, 20_000, 70_000];
    let len = sizes[rng.below(6) as usize];
    let body = if matches!(method, "PUT" | "POST") {
        pattern(id, sizes[rng.below(6) as usize])
    } else {
        String::new()
    };
    let form = rng.below(5);
    let target = format!("/{id}/{len}/{}", rng.below(5));
    let bytes = match (body.is_empty(), rng.below(2)) {
        (true, _) => format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        (false, 0) => {
            let expect = if form == 0 { "Expect: 100-continue\r\n" } else { "" };
            format!(
                "{method} {target} HTTP/1.1\r\nHost: a.test\r\n{expect}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        }
        (false, _) => {
            let mut text =
                format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
            let mut rest = &*body;
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(1 + rng.below(9_000) as usize));
                text += &format!("{:x}\r\n{piece}\r\n", piece.len());
                rest = after;
            }
            text + "0\r\n\r\n"
        }
    };
    Request { id, len, bytes, head: method == "HEAD", once: method == "POST" }
}

/// The content of a request or a response whose head is `head`; `None` if it is not all there. With it, what
/// follows.
fn content<'a>(head: &str, rest: &'a str) -> Option<(String, &'a str)> {
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        let (mut body, mut rest) = (String::new(), rest);
        loop {
            let (size, after) = rest.split_once("\r\n")?;
            let size = usize::from_str_radix(size, 16).expect("a chunk size");
            if size == 0 {
                return Some((body, after.strip_prefix("\r\n")?));
            }
            body += after.get(..size)?;
            rest = after.get(size..)?.strip_prefix("\r\n")?;
        }
    }
    let len = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))
        .map_or(0, |n| n.parse().expect("a length"));
    Some((rest.get(..len)?.to_owned(), &rest[len..]))
}

/// What a backend makes of a request: it looks whether all of it is right, too.
fn response(request: &str) -> (Vec<u8>, bool) {
    let (head, rest) = request.split_once("\r\n\r\n").expect("a head");
    let target = head.split(' ').nth(1).expect("a target");
    let mut parts = target.split('/').skip(1).map(|n| n.parse::<usize>().expect("a number"));
    let (id, len, form) =
        (parts.next().expect("id"), parts.next().expect("len"), parts.next().expect("form"));
    let (body, after) = content(head, rest).expect("a whole request");
    assert_eq!((body.as_str(), after), (&*pattern(id, body.len()), ""), "another's bytes in {target}");
    let body = pattern(id, len);
    let head_only = head.starts_with("HEAD ");
    let sent = if head_only { "" } else { &*body };
    let text = match form {
        0 | 1 => format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {len}\r\n\r\n{sent}"),
        2 => format!(
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {len}\r\n\r\n{sent}"
        ),
        3 if !head_only => {
            let (one, two) = body.split_at(len / 3);
            let chunk =
                |s: &str| if s.is_empty() { String::new() } else { format!("{:x};x=y\r\n{s}\r\n", s.len()) };
            format!(
                "HTTP/1.1 200 OK\r\nX-Id: {id}\r\nTransfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
                chunk(one),
                chunk(two)
            )
        }
        _ => format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nConnection: close\r\n\r\n{sent}"),
    };
    (text.into_bytes(), form >= 4)
}

/// Reads what a client got; returns how many final answers there were, and the statuses that are not 200.
fn judge(seed: u64, got: &str, asked: &[Request], over: bool) -> (usize, Vec<u16>) {
    let (mut rest, mut responses, mut others) = (got, 0, Vec::new());
    while !rest.is_empty() {
        let Some((head, after)) = rest.split_once("\r\n\r\n") else {
            assert!(over, "{seed}: half a head on an open connection");
            break;
        };
        let status: u16 = head
            .get(9..12)
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| panic!("{seed}: no response: {head}"));
        if status < 200 {
            rest = after;
            continue;
        }
        let Some(request) = asked.get(responses) else { panic!("{seed}: a response to nothing: {head}") };
        responses += 1;
        if status != 200 {
            others.push(status);
        } else {
            assert!(
                head.contains(&format!("X-Id: {}\r\n", request.id)),
                "{seed}: another's response to {}: {head}",
                request.id
            );
        }
        if request.head {
            rest = after;
            continue;
        }
        match content(head, after) {
            Some((body, next)) => {
                assert!(
                    status != 200 || body == pattern(request.id, request.len),
                    "{seed}: not the body of {}",
                    request.id
                );
                rest = next;
            }
            None => {
                assert!(over, "{seed}: half a body on an open connection");
                if status == 200 && !head.contains("chunked") {
                    assert!(
                        pattern(request.id, request.len).starts_with(after),
                        "{seed}: not the body of {}",
                        request.id
                    );
                }
                break;
            }
        }
    }
    (responses, others)
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let faults = seed % 2 == 1;
    let scarce = seed % 3 == 2;
    let cap = [1, 2, 1000][rng.below(3) as usize];
    let text = format!(
        "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\nretries = {}\naddresses = [\"10.0.0.1:80\", \
         \"10.0.0.2:80\", {{ address = \"10.0.0.3:80\", max_connections = {cap} }}]\nstrategy = {{ {} = {{}} }}\n[backend_pools.client]\n\
         pool_max_idle_per_host = {}\n",
        rng.below(3),
        ["RoundRobin", "Random", "LeastConnection", "IPHash"][rng.below(4) as usize],
        rng.below(4),
    );
    let mut settings = (*config(&text)).clone();
    if scarce {
        settings.limits.buffer_bytes = (8 + rng.below(20)) * ruststrom_core::page::SMALL_BYTES as u64;
    }
    let settings = settings.into();
    let mut w = World::of(&settings, 2);
    w.chaos = Some(Rng::new(seed ^ 0xabcd));
    for at in BACKENDS {
        w.backend(at).reply = Reply::Made(response);
    }
    let mut clients: Vec<(Sock, Vec<Request>, bool)> = Vec::new();
    let mut next_id = 1;
    for n in 0..2 + rng.below(7) as usize {
        let c = w.client_at(n % 2);
        let asked: Vec<Request> =
            (0..1 + rng.below(6) as usize).map(|n| request(next_id + n, &mut rng)).collect();
        next_id += asked.len();
        for r in &asked {
            w.put(c, &r.bytes);
        }
        clients.push((c, asked, false));
    }
    for _ in 0..if faults { 300 } else { 0 } {
        for _ in 0..rng.below(20) {
            w.step();
        }
        let at = BACKENDS[rng.below(3) as usize];
        let any = w.sockets();
        let sock = (!any.is_empty()).then(|| any[rng.below(any.len() as u64) as usize]);
        match (rng.below(40), sock) {
            (0, _) => {
                w.backend(at).open = Open::Fails(
                    [Fault::Refused, Fault::Unreachable, Fault::NoResources][rng.below(3) as usize],
                )
            }
            (1, _) => w.backend(at).open = Open::Silent,
            (2..=5, _) => w.backend(at).open = Open::Take,
            (6, _) => {
                w.backend(at).replies.push_back([Reply::Close, Reply::Reset][rng.below(2) as usize].clone())
            }
            (7, _) => w.backend(at).replies.push_back("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".into()),
            (8, Some(sock)) => {
                w.put_fault(sock, Fault::Reset);
                clients.iter_mut().filter(|(c, ..)| *c == sock).for_each(|(.., broken)| *broken = true);
            }
            (9, Some(sock)) => w.put_end(sock),
            (10 | 11, Some(sock)) => w.put_room(sock, rng.below(5_000) as usize),
            (12..=16, Some(sock)) => w.put_room(sock, usize::MAX),
            (17, _) => w.reconfigure_unsettled(&settings),
            (18, _) => w.advance_unsettled(rng.below(2_000)),
            _ => {}
        }
    }
    // All is well again.
    for at in BACKENDS {
        let script = w.backend(at);
        script.open = Open::Take;
        script.replies.clear();
    }
    for sock in w.sockets() {
        w.put_room(sock, usize::MAX);
    }
    w.settle();
    if faults {
        // Long enough for every timeout, one after the other.
        w.advance_ms(200_000);
    }
    let mut once: BTreeMap<usize, usize> = BTreeMap::new();
    for (_, served) in &w.served {
        let id = served.split('/').nth(1).and_then(|id| id.parse().ok()).expect("an id");
        *once.entry(id).or_default() += 1;
    }
    for (c, asked, broken) in &clients {
        let over = w.peer(*c).closed || w.peer(*c).shut || *broken;
        let got = w.got(*c);
        let (responses, others) = judge(seed, &got, asked, over);
        assert!(
            responses == asked.len() || over,
            "{seed}: {responses} of {} answers, and the connection is open",
            asked.len()
        );
        if !faults {
            assert!(
                responses == asked.len() && (others.is_empty() || scarce),
                "{seed}: nothing was wrong, but {responses} {others:?}"
            );
        }
        for r in asked.iter().filter(|r| r.once) {
            assert!(
                once.get(&r.id).is_none_or(|n| *n == 1),
                "{seed}: {} was done {} times",
                r.id,
                once[&r.id]
            );
        }
    }
    w.finish();
}

#[test]
fn anything_at_any_time() {
    // `SEED=n` plays one seed only.
    let only = std::env::var_os("SEED").and_then(|s| s.to_str()?.parse().ok());
    for seed in only.map_or(0..400, |n: u64| n..n + 1) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
            panic!("SEED={seed}: {}", text.unwrap_or_default());
        }
    }
}
