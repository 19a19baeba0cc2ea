//! The far ends of the proxy's connections: what each speaks, and how its messages are read as HTTP/1.1.

use std::collections::BTreeMap;

use ruststrom_core::Instant;
use ruststrom_core::h2;
use ruststrom_core::http::{HeaderKind, RequestHead, ResponseHead};
use ruststrom_core::wire::{Multiplexed, Received};

use crate::toy_wire::{ToyEvent, ToyWire};

/// A message as one end of a stream, or of a connection of HTTP/1.1, has received it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Start line and field lines, with the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
    pub(crate) ended: bool,
    pub(crate) reset: bool,
}

/// The far end of a connection.
#[derive(Debug)]
pub(super) enum Peer {
    Http1 { received: Vec<u8>, closed: bool },
    Toy { wire: ToyWire, messages: BTreeMap<u32, Message> },
    Http2(Box<Http2>),
}

/// The far end of a connection of HTTP/2.
#[derive(Debug)]
pub(crate) struct Http2 {
    pub(crate) wire: h2::Conn,
    pub(super) received: Received,
    pub(super) messages: BTreeMap<u32, Message>,
    /// All that has come.
    pub(crate) events: Vec<h2::Event>,
    /// Bytes of streams for which no credit was given.
    pub(super) owed: BTreeMap<u32, u32>,
    /// It is a backend.
    pub(super) serves: bool,
    /// It takes bytes, and sends none.
    pub(crate) deaf: bool,
}
/// Bytes come to the far end of a connection of many streams: it takes everything at once, and gives credit
/// for it where the stream is not `held`.
pub(super) fn hear(
    wire: &mut ToyWire,
    messages: &mut BTreeMap<u32, Message>,
    mut bytes: &[u8],
    held: impl Fn(u32) -> bool,
) {
    while !bytes.is_empty() {
        let room = wire.recv_buf();
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
        wire.handle_recv(n);
        bytes = &bytes[n..];
    }
    while let Some(event) = wire.next_event() {
        match event {
            ToyEvent::Head(stream, head, ended) => {
                let message = messages.entry(stream).or_default();
                message.head.push_str(&String::from_utf8(head).expect("text"));
                message.ended = ended;
            }
            ToyEvent::Data(stream, data) => {
                messages.entry(stream).or_default().body.extend_from_slice(&data);
                if !held(stream) {
                    wire.release(stream, data.len());
                }
            }
            ToyEvent::End(stream, trailers) => {
                let message = messages.entry(stream).or_default();
                (message.trailers, message.ended) = (String::from_utf8(trailers).expect("text"), true);
            }
            ToyEvent::Reset(stream) => messages.entry(stream).or_default().reset = true,
            ToyEvent::Writable(_) => {}
            ToyEvent::Broken => panic!("the proxy broke the toy protocol"),
        }
    }
}

/// Sends the head of a request or a response that is written as HTTP/1.1 has it. A WebSocket is asked for,
/// and there, as RFC 8441 has it.
pub(super) fn send_head_text(wire: &mut h2::Conn, stream: u32, head: &str) -> bool {
    let mut lines = head.split("\r\n").take_while(|line| !line.is_empty());
    let line: Vec<&str> = lines.next().expect("a start line").split(' ').collect();
    let fields: Vec<(&str, &str)> = lines.map(|line| line.split_once(':').expect("a field")).collect();
    let is_host = |name: &str| name.eq_ignore_ascii_case("host");
    let asks = !line[0].starts_with("HTTP/");
    let protocol =
        fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("upgrade")).map(|(_, to)| to.trim());
    let put = |w: &mut h2::conn::BlockWriter<'_>| {
        if !asks {
            w.pseudo(b":status", if protocol.is_some() { b"200" } else { line[1].as_bytes() });
        } else {
            match protocol {
                None => w.pseudo(b":method", line[0].as_bytes()),
                Some(protocol) => {
                    w.pseudo(b":method", b"CONNECT");
                    w.pseudo(b":protocol", protocol.as_bytes());
                }
            }
            w.pseudo(b":scheme", b"http");
            w.pseudo(b":path", line[1].as_bytes());
        }
        for (_, host) in fields.iter().filter(|(name, _)| is_host(name)) {
            w.pseudo(b":authority", host.trim().as_bytes());
        }
        let of_http1 =
            ["connection", "transfer-encoding", "upgrade", "sec-websocket-key", "sec-websocket-accept"];
        let other = |name: &str| !is_host(name) && !of_http1.contains(&name);
        for (name, value) in fields.iter().filter(|(name, _)| other(&name.to_ascii_lowercase())) {
            w.field(name.as_bytes(), value.trim().as_bytes(), HeaderKind::of(name.as_bytes()), false);
        }
    };
    if asks && protocol.is_some() {
        wire.send_connect(stream, put)
    } else {
        wire.send_head(stream, false, line[0] == "HEAD", put)
    }
}

impl Http2 {
    /// Bytes come: as [`hear`] does it.
    pub(super) fn hear(&mut self, mut bytes: &[u8], held: impl Fn(u32) -> bool) {
        while !bytes.is_empty() {
            let room = self.wire.recv_buf();
            let n = room.len().min(bytes.len());
            assert!(n > 0, "there is room for a frame");
            room[..n].copy_from_slice(&bytes[..n]);
            self.wire.handle_recv(n);
            bytes = &bytes[n..];
            while let Some(event) = self.wire.poll_event(&mut self.received, Instant::ZERO) {
                self.event(event, &held);
            }
        }
    }

    /// Gives credit for what has come on a stream.
    pub(super) fn pay(&mut self, stream: u32) {
        if let Some(owed) = self.owed.remove(&stream) {
            self.wire.release(stream, owed);
        }
        while let Some(event) = self.wire.poll_event(&mut self.received, Instant::ZERO) {
            self.event(event, |_| false);
        }
    }

    pub(super) fn event(&mut self, event: h2::Event, held: impl Fn(u32) -> bool) {
        self.events.push(event);
        match event {
            h2::Event::Request { stream, ended } => {
                let message = self.messages.entry(stream).or_default();
                message.head = request_as_http1(&self.received.request);
                message.ended = ended;
            }
            h2::Event::Response { stream, ended } => {
                let message = self.messages.entry(stream).or_default();
                message.head.push_str(&as_http1(&self.received.response));
                message.ended = ended;
            }
            h2::Event::Data { stream } => {
                let data = self.wire.data();
                let len = data.len() as u32;
                self.messages.entry(stream).or_default().body.extend_from_slice(data);
                if held(stream) {
                    *self.owed.entry(stream).or_default() += len;
                } else {
                    self.wire.release(stream, len);
                }
            }
            h2::Event::End { stream } => {
                let message = self.messages.entry(stream).or_default();
                message.trailers = String::from_utf8_lossy(&self.received.trailers).into_owned();
                message.ended = true;
            }
            // A reset behind a whole response only says that the rest of the request is not wanted.
            h2::Event::Reset { stream, .. } => {
                let message = self.messages.entry(stream).or_default();
                message.reset |= !message.ended || self.serves;
            }
            h2::Event::Writable { .. } | h2::Event::GoingAway => {}
            other => panic!("the proxy broke the protocol: {other:?}"),
        }
    }
}

/// The head of a request as one of HTTP/1.1.
pub(super) fn request_as_http1(head: &RequestHead) -> String {
    let mut text = format!("{} {} HTTP/1.1\r\n", head.method(), String::from_utf8_lossy(head.target()));
    for field in head.fields().iter() {
        let (name, value) = (String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value));
        assert!(!name.bytes().any(|b| b.is_ascii_uppercase()), "{name}");
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    in_title_case(&(text + "\r\n"))
}

/// A head as one of HTTP/1.1.
pub(super) fn as_http1(head: &ResponseHead) -> String {
    let status = head.status();
    let reason = match status.as_u16() {
        413 => "Content Too Large",
        _ => status.canonical_reason().unwrap_or_default(),
    };
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16());
    for field in head.fields().iter() {
        let (name, value) = (String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value));
        assert!(!name.bytes().any(|b| b.is_ascii_uppercase()), "{name}");
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

/// The names of fields as HTTP/1.1 has them mostly.
pub(crate) fn in_title_case(text: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some((name, value)) => {
            let mut begins = true;
            let name: String = name
                .chars()
                .map(|c| {
                    let c = if begins { c.to_ascii_uppercase() } else { c };
                    begins = c == '-';
                    c
                })
                .collect();
            let known = ["WWW-Authenticate", "ETag", "Content-MD5", "X-Request-ID", "X-Real-IP", "TE"];
            let name =
                known.iter().find(|known| known.eq_ignore_ascii_case(&name)).map_or(&*name, |known| known);
            format!("{name}: {value}")
        }
        None => line.to_owned(),
    };
    text.split("\r\n").map(line).collect::<Vec<_>>().join("\r\n")
}

/// One message of HTTP/1.1, by its length or its chunks; without either it has no content.
pub(super) fn read_http1(raw: &[u8], closed: bool) -> Message {
    let Some(end) = raw.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Message { reset: closed, ..Message::default() };
    };
    let head = String::from_utf8(raw[..end + 4].to_vec()).expect("text");
    let rest = &raw[end + 4..];
    let lower = head.to_ascii_lowercase();
    let mut message = Message { head, ..Message::default() };
    if lower.contains("transfer-encoding: chunked") {
        read_chunks(rest, &mut message);
    } else {
        let len = lower
            .split("content-length: ")
            .nth(1)
            .and_then(|at| at.split("\r\n").next()?.parse::<usize>().ok())
            .unwrap_or(0);
        message.body = rest[..rest.len().min(len)].to_vec();
        message.ended = message.body.len() == len;
    }
    message.reset = closed && !message.ended;
    message
}

pub(super) fn read_chunks(mut rest: &[u8], message: &mut Message) {
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..at]).expect("a chunk size");
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        rest = &rest[at + 2..];
        if size == 0 {
            message.ended = rest.ends_with(b"\r\n");
            message.trailers = String::from_utf8(rest.to_vec()).expect("text");
            return;
        }
        let Some(chunk) = rest.get(..size + 2) else {
            message.body.extend_from_slice(&rest[..rest.len().min(size)]);
            return;
        };
        message.body.extend_from_slice(&chunk[..size]);
        rest = &rest[size + 2..];
    }
}
