//! Requests of one connection that repeat each other, byte for byte or nearly: each is what its fields say by
//! the tables as they are then, whatever came before it.

use proptest::prelude::*;
use ruststrom_core::Instant;
use ruststrom_core::h2::frame::{FrameHeader, PREFACE, flag, kind};
use ruststrom_core::h2::{Conn, Event, Limits, Reason, Received, Role};
use ruststrom_core::http::Framing;

type Field = (&'static str, &'static str);

/// Where a field of the static table lies, by name and value, for those that are used here.
const STATIC: [(Field, u8); 5] = [
    ((":method", "GET"), 2),
    ((":path", "/"), 4),
    ((":path", "/index.html"), 5),
    ((":scheme", "http"), 6),
    ((":scheme", "https"), 7),
];

/// The encoder of a client: it names a field that lies in a table, if it is to.
struct Encoder {
    /// The newest is the first.
    entries: Vec<Field>,
    max: usize,
}

/// How a field is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// As a place in a table, or if there is none, as a literal that is added.
    Short,
    Added,
    NotAdded,
}

impl Encoder {
    fn evict(&mut self) {
        let size = |(name, value): &Field| name.len() + value.len() + 32;
        while self.entries.iter().map(size).sum::<usize>() > self.max {
            self.entries.pop();
        }
    }

    fn resize(&mut self, max: u8, block: &mut Vec<u8>) {
        // 31 and more take further bytes.
        match max {
            0..31 => block.push(0x20 | max),
            _ => block.extend([0x3f, max - 31]),
        }
        assert!(max < 31 + 128);
        self.max = usize::from(max);
        self.evict();
    }

    fn field(&mut self, field: Field, form: Form, block: &mut Vec<u8>) {
        let known = STATIC.iter().find(|(known, _)| *known == field).map(|(_, at)| *at);
        let place = self.entries.iter().position(|known| *known == field).map(|at| at + 62);
        // Those in one byte.
        let place = place.filter(|at| *at < 127).map(|at| at as u8);
        if let (Form::Short, Some(at)) = (form, known.or(place)) {
            return block.push(0x80 | at);
        }
        let (name, value) = field;
        block.push(if matches!(form, Form::NotAdded) { 0 } else { 0x40 });
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.bytes());
        }
        if !matches!(form, Form::NotAdded) {
            self.entries.insert(0, field);
            self.evict();
        }
    }
}

struct Server {
    conn: Conn,
    received: Received,
    stream: u32,
}

impl Server {
    fn new() -> Self {
        let conn = Conn::new(Role::Server, Limits::default(), Instant::ZERO);
        let mut server = Self { conn, received: Received::default(), stream: 1 };
        let settings = |flags| FrameHeader { len: 0, kind: kind::SETTINGS, flags, stream: 0 }.bytes();
        let greeting = [&PREFACE[..], &settings(0), &settings(flag::ACK)].concat();
        assert_eq!(server.feed(&greeting), []);
        server
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.conn.recv_buf()[..bytes.len()].copy_from_slice(bytes);
        self.conn.handle_recv(bytes.len());
        let event = std::iter::from_fn(|| self.conn.poll_event(&mut self.received, Instant::ZERO));
        let events = event.collect();
        self.conn.handle_sent(self.conn.transmit().len());
        events
    }

    /// What comes of a head on the next stream, which is reset then.
    fn head(&mut self, block: &[u8], ended: bool) -> Vec<Event> {
        let flags = flag::END_HEADERS | if ended { flag::END_STREAM } else { 0 };
        let (len, stream) = (block.len() as u32, self.stream);
        let header = FrameHeader { len, kind: kind::HEADERS, flags, stream };
        let events = self.feed(&[&header.bytes(), block].concat());
        self.conn.reset(stream, Reason::CANCEL);
        self.stream += 2;
        events
    }

    /// The request that was read last, as it was sent.
    fn request(&self) -> Vec<(String, String)> {
        let head = &self.received.request;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
        let mut fields = vec![(":method".to_owned(), head.method().to_string())];
        fields.push((":path".to_owned(), text(head.target())));
        fields.push((":authority".to_owned(), text(head.host())));
        let regular = head.fields();
        fields.extend(regular.iter().skip(1).map(|field| (text(field.name), text(field.value))));
        fields
    }
}

const PATHS: [&str; 3] = ["/", "/index.html", "/a"];
const FIELDS: [Field; 5] =
    [("a", "1"), ("a", "2"), ("cookie", "c=d"), ("priority", "u=1"), ("te", "trailers")];

#[derive(Clone, Debug)]
struct Request {
    path: usize,
    fields: Vec<usize>,
    forms: Vec<Form>,
    ended: bool,
    resize: Option<u8>,
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let form = prop_oneof![8 => Just(Form::Short), 1 => Just(Form::Added), 1 => Just(Form::NotAdded)];
    let new = (0..PATHS.len(), prop::collection::vec(0..FIELDS.len(), 0..3), prop::collection::vec(form, 6));
    let pool = prop::collection::vec(new, 1..4);
    // The same few again and again, and now and then a table that changes.
    let resize = prop::option::weighted(0.05, 0_u8..150);
    let drawn = (any::<prop::sample::Index>(), prop::bool::weighted(0.9), resize);
    (pool, prop::collection::vec(drawn, 1..60)).prop_map(|(pool, drawn)| {
        let request = |(at, ended, resize): (prop::sample::Index, bool, Option<u8>)| {
            let (path, fields, forms) = pool[at.index(pool.len())].clone();
            Request { path, fields, forms, ended, resize }
        };
        drawn.into_iter().map(request).collect()
    })
}

proptest! {
    #[test]
    fn each_is_what_its_fields_say(requests in requests()) {
        let mut server = Server::new();
        let mut encoder = Encoder { entries: vec![], max: 4096 };
        for request in requests {
            let mut block = vec![];
            if let Some(max) = request.resize {
                encoder.resize(max, &mut block);
            }
            let pseudo = [
                (":method", "GET"), (":scheme", "http"), (":path", PATHS[request.path]), (":authority", "h"),
            ];
            let regular = request.fields.iter().map(|at| FIELDS[*at]);
            let fields: Vec<Field> = pseudo.into_iter().chain(regular).collect();
            for (n, field) in fields.iter().enumerate() {
                encoder.field(*field, request.forms[n], &mut block);
            }
            let stream = server.stream;
            prop_assert_eq!(
                server.head(&block, request.ended),
                [Event::Request { stream, ended: request.ended }]
            );
            // Crumbs of cookies become one.
            let crumbs = fields.iter().filter(|(name, _)| *name == "cookie").count();
            let mut wanted: Vec<(String, String)> = fields
                .iter()
                .filter(|(name, _)| *name != ":scheme")
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            if crumbs > 1 {
                let first = wanted.iter().position(|(name, _)| name == "cookie").expect("one");
                wanted[first].1 = ["c=d"].repeat(crumbs).join("; ");
                let mut nth = 0;
                wanted.retain(|(name, _)| {
                    nth += usize::from(name == "cookie");
                    name != "cookie" || nth == 1
                });
            }
            prop_assert_eq!(server.request(), wanted);
            let framing = if request.ended { Framing::None } else { Framing::Chunked };
            prop_assert_eq!(server.received.request.framing(), framing);
        }
    }
}

/// `:method GET`, `:scheme http`, the path and the newest field of the dynamic table as `:authority`.
const NEWEST: &[u8] = b"\x82\x86\x84\xbe";

fn authority(server: &mut Server, name: &str) {
    let block = [b"\x82\x86\x84\x41", &[name.len() as u8][..], name.as_bytes()].concat();
    assert_eq!(server.head(&block, true).len(), 1);
}

#[test]
fn the_same_bytes_are_another_request_once_the_table_has_changed() {
    let mut server = Server::new();
    for name in ["one", "two"] {
        authority(&mut server, name);
        for _ in 0..4 {
            let stream = server.stream;
            assert_eq!(server.head(NEWEST, true), [Event::Request { stream, ended: true }]);
            assert_eq!(server.received.request.host(), name.as_bytes());
        }
    }
}

#[test]
fn the_same_bytes_are_an_error_once_their_fields_are_gone() {
    let mut server = Server::new();
    authority(&mut server, "one");
    for _ in 0..4 {
        assert_eq!(server.head(NEWEST, true).len(), 1);
    }
    // The table becomes empty: by a request that needs none of it.
    let stream = server.stream;
    assert_eq!(server.head(b"\x20\x82\x86\x84\x01\x01h", true), [Event::Request { stream, ended: true }]);
    assert_eq!(server.head(NEWEST, true), [Event::Broken(Reason::COMPRESSION_ERROR)]);
}

/// Trailers are none because a request in the same bytes was one.
#[test]
fn the_head_of_a_request_is_no_trailer_section() {
    let mut server = Server::new();
    authority(&mut server, "one");
    for _ in 0..4 {
        assert_eq!(server.head(NEWEST, true).len(), 1);
    }
    let stream = server.stream;
    let head = |flags| {
        let flags = flags | flag::END_HEADERS;
        let header = FrameHeader { len: NEWEST.len() as u32, kind: kind::HEADERS, flags, stream };
        [&header.bytes(), NEWEST].concat()
    };
    assert_eq!(server.feed(&head(0)), [Event::Request { stream, ended: false }]);
    let reset = Event::Reset { stream, reason: Reason::PROTOCOL_ERROR, unprocessed: false };
    assert_eq!(server.feed(&head(flag::END_STREAM)), [reset]);
}
