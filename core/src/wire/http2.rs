//! HTTP/2 as a wire of many streams. Heads come as what they say; those that are sent are written as text by
//! the code that all wires share, and put into fields here.

use super::{Multiplexed, Received, StreamEvent};
use crate::config::Http2;
use crate::h1::HeadLimits;
use crate::h2::conn::BlockWriter;
use crate::h2::head::CONNECTION_SPECIFIC;
use crate::h2::hpack::FIELD_OVERHEAD;
use crate::h2::priority::Priority;
use crate::h2::{Conn, Limits, Reason, Role};
use crate::http::HeaderKind;
use crate::time::Instant;

/// A connection to a client, whose heads have to keep the limits of any other.
pub(crate) fn server(limits: &HeadLimits, http2: &Http2, now: Instant) -> Box<dyn Multiplexed> {
    let list_bytes = (limits.head_bytes + limits.fields * FIELD_OVERHEAD).min(usize::from(u16::MAX));
    let limits = Limits {
        streams: http2.max_concurrent_streams,
        stream_window: http2.initial_window,
        connection_window: http2.connection_window,
        frame_bytes: http2.max_frame_size,
        header_table_bytes: http2.header_table_size,
        list_bytes: list_bytes as u32,
        fields: limits.fields as u32,
        target_bytes: limits.target_bytes,
    };
    Box::new(Conn::new(Role::Server, limits, now))
}

/// A connection to a backend. `secure`: over TLS.
pub(crate) fn client(limits: &HeadLimits, secure: bool, now: Instant) -> Box<dyn Multiplexed> {
    let conn = Conn::new(Role::Client, of_heads(limits), now);
    Box::new(if secure { conn.over_tls() } else { conn })
}

fn of_heads(limits: &HeadLimits) -> Limits {
    let list_bytes = (limits.head_bytes + limits.fields * FIELD_OVERHEAD).min(usize::from(u16::MAX));
    Limits {
        list_bytes: list_bytes as u32,
        fields: limits.fields as u32,
        target_bytes: limits.target_bytes,
        ..Limits::default()
    }
}

/// Name, value and kind of each field line, up to the empty one.
fn lines(mut text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], HeaderKind)> {
    std::iter::from_fn(move || {
        let end = memchr::memmem::find(text, b"\r\n").filter(|end| *end > 0)?;
        let (line, rest) = (&text[..end], &text[end + 2..]);
        text = rest;
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        Some((name, value, HeaderKind::of(name)))
    })
}

/// Puts a head of HTTP/1.1 into fields.
fn put_head(start_line: &[u8], scheme: &[u8], fields: &[u8], w: &mut BlockWriter<'_>) {
    let mut pseudo = |name: &[u8], value: &[u8]| w.field(name, value, HeaderKind::Other, false);
    let mut words = start_line.split(|b| *b == b' ');
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if first.starts_with(b"HTTP/") {
        pseudo(b":status", second);
    } else {
        pseudo(b":method", first);
        pseudo(b":scheme", scheme);
        pseudo(b":path", second);
        if let Some((_, host, _)) = lines(fields).find(|(_, _, kind)| *kind == HeaderKind::Host) {
            pseudo(b":authority", host);
        }
    }
    put_fields(fields, w);
}

fn put_fields(fields: &[u8], w: &mut BlockWriter<'_>) {
    let left_out = CONNECTION_SPECIFIC | HeaderKind::set(&[HeaderKind::Host]);
    for (name, value, kind) in lines(fields).filter(|(_, _, kind)| !kind.in_set(left_out)) {
        w.field(name, value, kind, false);
    }
}

impl Multiplexed for Conn {
    fn recv_buf(&mut self) -> &mut [u8] {
        self.recv_buf()
    }

    fn has_room(&self) -> bool {
        self.has_room()
    }

    fn handle_recv(&mut self, n: usize) {
        self.handle_recv(n);
    }

    fn poll_event(&mut self, received: &mut Received, now: Instant) -> Option<StreamEvent> {
        self.poll_event(received, now)
    }

    fn has_events(&self) -> bool {
        self.has_events()
    }

    fn data(&self) -> &[u8] {
        self.data()
    }

    fn open(&mut self) -> Option<u32> {
        self.open()
    }

    fn send_head(&mut self, stream: u32, head: &[u8]) -> bool {
        let end = memchr::memmem::find(head, b"\r\n").unwrap_or(head.len());
        let (line, fields) = (&head[..end], head.get(end + 2..).unwrap_or_default());
        let scheme = self.scheme();
        self.send_head(stream, false, line.starts_with(b"HEAD "), |w| put_head(line, scheme, fields, w))
    }

    fn send_data(&mut self, stream: u32, data: &[u8]) -> usize {
        self.send_data(stream, data)
    }

    fn send_end(&mut self, stream: u32, trailers: &[u8]) {
        if trailers.is_empty() {
            self.send_end(stream);
        } else {
            self.send_trailers(stream, |w| put_fields(trailers, w));
        }
    }

    fn reset(&mut self, stream: u32, reason: Reason) {
        self.reset(stream, reason);
    }

    fn release(&mut self, stream: u32, bytes: usize) {
        self.release(stream, bytes as u32);
    }

    fn can_send(&self, stream: u32) -> bool {
        self.can_send(stream)
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes()
    }

    fn holds_most(&self) -> Option<u32> {
        self.holds_most()
    }

    fn ping(&mut self) {
        self.ping();
    }

    fn may_receive(&self, stream: u32) -> bool {
        self.may_receive(stream)
    }

    fn priority(&self, stream: u32) -> Priority {
        self.priority(stream)
    }

    fn transmit(&self) -> &[u8] {
        self.transmit()
    }

    fn has_output(&self) -> bool {
        self.has_output()
    }

    fn handle_sent(&mut self, n: usize) {
        self.handle_sent(n);
    }

    fn drain(&mut self) {
        self.drain();
    }

    fn is_drained(&self) -> bool {
        self.is_drained()
    }

    fn is_leaving(&self) -> bool {
        self.is_leaving()
    }

    fn is_broken(&self) -> bool {
        self.is_broken()
    }

    fn is_foreign(&self) -> bool {
        self.is_foreign()
    }

    fn peer_streams(&self) -> Option<u32> {
        self.peer_streams()
    }

    fn is_settled(&self) -> bool {
        self.is_settled()
    }
}
