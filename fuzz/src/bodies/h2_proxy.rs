//! The whole proxy between clients of HTTP/2 and backends of HTTP/1.1. Clients send frames of any shape and
//! bytes of any kind, backends anything. Nothing that comes over HTTP/2 becomes a request that nobody sent:
//! each request at a backend is whole, belongs to one stream, has the content of that, and comes once on a
//! connection. What clients get keeps every rule of HTTP/2. In the end nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ruststrom_core::h2::frame::PREFACE;
use ruststrom_core::{Config, config};

use super::connection::everybody_goes;
use super::far_end::FarEnd;
use super::frames::Writer;
use super::input::Input;
use super::received;
use crate::format::Side;
use crate::wire::World;

/// Clients and backend connections that an input can name.
const SIDES: u8 = 3;

const RESPONSES: [&[u8]; 16] = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nConnection: close, x\r\nX: y\r\nKeep-Alive: 5\r\nContent-Length: 300\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nx_Y: \x80\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 1\r\n\r\nz",
    b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n",
    b"HTTP/1.1 503 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
    b"hello",
];

fn settings() -> &'static Arc<Config> {
    static CONFIG: OnceLock<Arc<Config>> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let text = "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\n\
                    addresses = [\"192.0.2.20:80\"]\n[limits]\nhead_bytes = 2048\nfields = 32\n\
                    target_bytes = 512\n";
        let parsed = config::parse(text);
        Arc::new(
            parsed.config.unwrap_or_else(|| panic!("{}", config::render(&parsed.diagnostics, "fuzz", text))),
        )
    })
}

/// A client, and what it knows of its connection.
struct Client {
    writer: Writer,
    far: FarEnd,
    /// Bytes of what it has received that have been looked at.
    heard: usize,
    base: u32,
}

impl Client {
    fn new(number: u8) -> Self {
        let mark = Some(format!("{number}-").into_bytes());
        let writer = Writer { mark, ..Writer::default() };
        Self { writer, far: FarEnd::of(true), heard: 0, base: 0 }
    }
}

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let mut world = World::new(settings(), [usize::MAX, 1, 7, 100][usize::from(choice % 4)]);
    let mut clients = BTreeMap::new();
    let mut budget = 40_000_usize;
    while !input.is_empty() && budget > 0 {
        let (what, who) = (input.byte(), input.byte());
        let (client, backend) = (Side::Client(who % SIDES + 1), Side::Backend(who / SIDES % SIDES + 1));
        let (sort, stream) = (what & 31, what >> 5);
        let known = clients.entry(client).or_insert_with(|| {
            let mut known = Client::new(who % SIDES + 1);
            world.accept(client);
            if choice & 0x80 == 0 {
                let hello = [PREFACE, &b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0"[..]].concat();
                known.far.tell(&hello);
                world.send(client, &hello);
            }
            known
        });
        budget = budget.saturating_sub(20);
        match sort {
            0..=12 => {
                let mut bytes = Vec::new();
                let stream = 2 * u32::from(stream) + 1 + known.base;
                match sort {
                    0 => bytes.extend_from_slice(input.piece()),
                    10.. => known.writer.any(2 + sort % 2, stream, true, &mut input, &mut bytes),
                    sort => known.writer.any(sort, stream, true, &mut input, &mut bytes),
                }
                budget = budget.saturating_sub(bytes.len());
                let one_by_one = choice & 16 != 0 && bytes.len() < 300;
                for piece in bytes.chunks(if one_by_one { 1 } else { usize::MAX }) {
                    known.far.tell(piece);
                    world.send(client, piece);
                }
            }
            13..=18 => world.send(backend, RESPONSES[usize::from(input.byte()) % RESPONSES.len()]),
            19 => {
                let n = usize::from(input.byte()) * 100;
                budget = budget.saturating_sub(n);
                world.send(backend, &vec![b'r'; n]);
            }
            20 => world.send(backend, input.piece()),
            21 => world.end(backend),
            22 => world.reset(backend),
            23 => world.end(client),
            24 => world.reset(client),
            25 => world.refuse_next = true,
            26 => known.base += 16,
            _ => world.wait(Duration::from_millis(100 * u64::from(input.byte()))),
        }
        for (side, client) in &mut clients {
            let received = &world.peers[side].received;
            client.far.hear(&received[client.heard..]);
            client.heard = received.len();
        }
    }
    judge(&world, &clients);
    everybody_goes(&mut world);
}

/// What backends got is what clients asked.
fn judge(world: &World, clients: &BTreeMap<Side, Client>) {
    let streams = |client: &Client| client.far.streams.values().filter(|half| half.asked).count();
    let asked: usize = clients.values().map(streams).sum();
    let (mut unmarked, mut seen) = (0, BTreeMap::<Vec<u8>, usize>::new());
    for (side, peer) in &world.peers {
        let Side::Backend(_) = side else { continue };
        let mut here = BTreeSet::new();
        for got in received::requests(&peer.received) {
            let marks: Vec<&Vec<u8>> = got
                .head
                .fields
                .iter()
                .filter(|(name, _)| name == b"x-stream")
                .map(|(_, mark)| mark)
                .collect();
            let of = |mark: &Vec<u8>| {
                let (client, stream) = std::str::from_utf8(mark).ok()?.split_once('-')?;
                let client = clients.get(&Side::Client(client.parse().ok()?))?;
                Some((client, client.far.streams.get(&stream.parse().ok()?)?))
            };
            let Some((_, stream)) = marks.first().and_then(|mark| of(mark)) else {
                // Made by hand of bytes.
                unmarked += 1;
                continue;
            };
            let again = !here.insert(marks[0].clone());
            assert!(
                !again || marks.len() > 1,
                "one stream twice on a connection: {}",
                marks[0].escape_ascii()
            );
            *seen.entry(marks[0].clone()).or_default() += 1;
            assert!(stream.asked, "a stream that nobody opened");
            assert!(stream.content.starts_with(&got.content), "content of {}", marks[0].escape_ascii());
            if got.whole && got.head.framing == ruststrom_core::http::Framing::Chunked {
                assert!(stream.whole && stream.content == got.content, "a request that ends too early");
            }
        }
    }
    assert!(unmarked + seen.len() <= asked, "{unmarked} and {} requests of {asked} streams", seen.len());
}
