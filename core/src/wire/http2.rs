//! HTTP/2 as a wire of many streams. Heads come as what they say, and go as fields: which, is said by the
//! code that all wires share.

use super::{Multiplexed, Received, StreamEvent};
use crate::config::Http2;
use crate::h1::HeadLimits;
use crate::h2::conn::BlockWriter;
use crate::h2::head::CONNECTION_SPECIFIC;
use crate::h2::hpack::FIELD_OVERHEAD;
use crate::h2::priority::Priority;
use crate::h2::settings::{DEFAULT_WINDOW, MAX_WINDOW};
use crate::h2::{Conn, Limits, Reason, Role};
use crate::http::forward::{self, HeadSink, RequestForward, ResponseForward};
use crate::http::{Fields, HeaderKind, Method, RequestHead, ResponseHead, StatusCode, websocket};
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
        extended_connect: http2.extended_connect,
    };
    Box::new(Conn::new(Role::Server, limits, now))
}

/// A connection to a backend, which may send `window` bytes of a response before any have been sent on.
/// `secure`: over TLS.
pub(crate) fn client(limits: &HeadLimits, window: u32, secure: bool, now: Instant) -> Box<dyn Multiplexed> {
    let conn = Conn::new(Role::Client, to_backend(limits, window), now);
    Box::new(if secure { conn.over_tls() } else { conn })
}

/// A connection to a backend that makes one request: `request` is what one of HTTP/1.1 would be.
pub(crate) fn check(limits: &HeadLimits, request: &[u8], secure: bool, now: Instant) -> Box<dyn Multiplexed> {
    let conn = Conn::new(Role::Client, to_backend(limits, Limits::default().stream_window), now);
    let mut conn = if secure { conn.over_tls() } else { conn };
    let head = memchr::memmem::find(request, b"\r\n\r\n").map_or(request.len(), |end| end + 4);
    let (head, content) = request.split_at(head);
    let end = memchr::memmem::find(head, b"\r\n").unwrap_or(head.len());
    let (line, text) = (&head[..end], head.get(end + 2..).unwrap_or_default());
    let mut words = line.split(|b| *b == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if let Some(stream) = conn.open() {
        conn.send_head(stream, content.is_empty(), method == b"HEAD", |w| {
            w.pseudo(b":method", method);
            w.scheme();
            w.pseudo(b":path", target);
            if let Some((_, host, _)) = lines(text).find(|(_, _, kind)| *kind == HeaderKind::Host) {
                w.pseudo(b":authority", host);
            }
            w.lines(text);
        });
        if !content.is_empty() {
            // It is a few hundred bytes at most, which any peer takes.
            conn.send_data(stream, content);
            conn.send_end(stream);
        }
    }
    Box::new(conn)
}

fn to_backend(limits: &HeadLimits, window: u32) -> Limits {
    let list_bytes = (limits.head_bytes + limits.fields * FIELD_OVERHEAD).min(usize::from(u16::MAX));
    let Limits { streams, .. } = Limits::default();
    // The streams are those of many clients: however many of those read nothing, the others go on.
    let connection_window = u64::from(streams) * u64::from(window) + u64::from(DEFAULT_WINDOW);
    Limits {
        stream_window: window,
        connection_window: connection_window.min(u64::from(MAX_WINDOW)) as u32,
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

/// What no message of HTTP/2 has, or has as a pseudo-header field.
const LEFT_OUT: u64 = CONNECTION_SPECIFIC | HeaderKind::set(&[HeaderKind::Host]);

impl HeadSink for BlockWriter<'_> {
    const ENDS_STREAMS: bool = true;

    /// A WebSocket is asked for by extended CONNECT, which has no key (RFC 8441 §5).
    fn request(&mut self, request: &RequestHead, host: &[u8], mut pass: u64) {
        if request.opens_websocket() {
            self.method(&Method::CONNECT);
            self.pseudo(b":protocol", websocket::PROTOCOL);
            pass &= !HeaderKind::set(&[HeaderKind::SecWebSocketKey]);
        } else {
            self.method(request.method());
        }
        self.scheme();
        self.pseudo(b":path", request.target());
        if !host.is_empty() {
            self.pseudo(b":authority", host);
        }
        self.pass(request.fields(), pass);
    }

    /// There is no 101 (RFC 9113 §8.6): what a tunnel is asked for by succeeds (RFC 8441 §5).
    fn status(&mut self, response: &ResponseHead, _: bool) {
        let status = match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => StatusCode::OK,
            other => other,
        };
        BlockWriter::status(self, status);
    }

    fn fields(&mut self, response: &ResponseHead, _: bool, mut pass: u64) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            pass &= !HeaderKind::set(&[HeaderKind::SecWebSocketAccept]);
        }
        self.pass(response.fields(), pass);
    }

    fn begin_field(&mut self, kind: HeaderKind, name: &[u8]) {
        self.begin(kind, name);
    }

    fn value(&mut self, piece: &[u8]) {
        BlockWriter::value(self, piece);
    }

    fn end_field(&mut self) {
        BlockWriter::end(self);
    }

    fn field(&mut self, kind: HeaderKind, name: &[u8], value: &[u8]) {
        BlockWriter::field(self, name, value, kind, false);
    }

    fn lines(&mut self, text: &[u8]) {
        for (name, value, kind) in lines(text).filter(|(_, _, kind)| !kind.in_set(LEFT_OUT)) {
            BlockWriter::field(self, name, value, kind, false);
        }
    }

    /// A stream ends by itself.
    fn chunked(&mut self) {}

    /// Nothing is said of a connection but what its client can take (RFC 9113 §8.2.2).
    fn request_connection(&mut self, request: &RequestHead) {
        if request.te_trailers {
            BlockWriter::field(self, b"te", b"trailers", HeaderKind::Te, false);
        }
    }

    fn response_connection(&mut self, _: &ResponseHead, _: &ResponseForward<'_>) {}

    fn forwarded(&mut self, host: &[u8], f: &RequestForward<'_>) {
        forward::forwarded_fields(self, host, f);
    }

    fn end(&mut self) {}
}

impl BlockWriter<'_> {
    fn pass(&mut self, fields: Fields<'_>, pass: u64) {
        let pass = pass & !LEFT_OUT;
        for field in fields.iter().filter(|field| field.kind.in_set(pass)) {
            self.field(field.name, field.value, field.kind, false);
        }
    }
}

impl Multiplexed for Conn {
    fn recv_buf(&mut self) -> &mut [u8] {
        self.recv_buf()
    }

    fn has_room(&self) -> bool {
        self.has_room()
    }

    fn wake(&mut self, received: &mut Received) {
        self.wake(received);
    }

    fn rest(&mut self, received: &mut Received) {
        self.rest(received);
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

    fn send_request(&mut self, stream: u32, head: &RequestHead, forward: &RequestForward<'_>) -> bool {
        if head.opens_websocket() {
            return self.send_connect(stream, |w| forward::pass_request(w, head, forward));
        }
        let to_head = *head.method() == Method::HEAD;
        self.send_head(stream, false, to_head, |w| forward::pass_request(w, head, forward))
    }

    fn send_interim(&mut self, stream: u32, head: &ResponseHead) -> bool {
        self.send_head(stream, false, false, |w| forward::pass_interim(w, head))
    }

    fn send_response(&mut self, stream: u32, head: &ResponseHead, forward: &ResponseForward<'_>) -> bool {
        self.send_head(stream, false, false, |w| forward::pass_response(w, head, forward))
    }

    fn send_data(&mut self, stream: u32, data: &[u8]) -> usize {
        self.send_data(stream, data)
    }

    fn send_end(&mut self, stream: u32, trailers: &[u8]) {
        if trailers.is_empty() {
            self.send_end(stream);
        } else {
            self.send_trailers(stream, |w| w.lines(trailers));
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

    fn credit(&self, stream: u32) -> u32 {
        self.credit(stream)
    }

    fn is_receiving(&self, stream: u32) -> bool {
        self.is_receiving(stream)
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes()
    }

    fn holds_most(&self) -> Option<u32> {
        self.holds_most()
    }

    fn check(&self) {
        self.check();
    }

    fn ping(&mut self) {
        self.ping();
    }

    fn priority(&self, stream: u32) -> Priority {
        self.priority(stream)
    }

    fn transmit(&self) -> &[u8] {
        self.transmit()
    }

    fn pending_bytes(&self) -> usize {
        self.pending_bytes()
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

    fn give_up(&mut self, reason: Reason) {
        self.give_up(reason);
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

    fn takes_websockets(&self) -> Option<bool> {
        self.may_connect()
    }

    fn is_settled(&self) -> bool {
        self.is_settled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2::Event;
    use crate::h2::frame::{FrameHeader, flag, kind};

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        [&FrameHeader { len: payload.len() as u32, kind, flags, stream }.bytes()[..], payload].concat()
    }

    /// Feeds bytes of a backend; how many bytes of data came by that, none of which is released.
    fn feed(conn: &mut Conn, received: &mut Received, bytes: &[u8]) -> usize {
        let mut data = 0;
        for part in bytes.chunks(4096) {
            conn.recv_buf()[..part.len()].copy_from_slice(part);
            conn.handle_recv(part.len());
            while let Some(event) = conn.poll_event(received, Instant::ZERO) {
                assert!(!matches!(event, Event::Broken(_)), "{event:?}");
                data += conn.data().len();
            }
        }
        data
    }

    #[test]
    fn clients_that_read_nothing_hold_up_no_other_on_the_connection_to_their_backend() {
        let heads = HeadLimits { head_bytes: 16 * 1024, fields: 100, target_bytes: 8 * 1024 };
        let limits = to_backend(&heads, Limits::default().stream_window);
        let (mut conn, mut received) = (Conn::new(Role::Client, limits, Instant::ZERO), Received::default());
        feed(
            &mut conn,
            &mut received,
            &[frame(kind::SETTINGS, 0, 0, b""), frame(kind::SETTINGS, 1, 0, b"")].concat(),
        );
        let mut streams = 0;
        while let Some(stream) = conn.open() {
            streams += 1;
            conn.send_head(stream, true, false, |w| w.pseudo(b":method", b"GET"));
            let head = frame(kind::HEADERS, flag::END_HEADERS, stream, b"\x88");
            let content = frame(kind::DATA, 0, stream, &vec![b'x'; conn.credit(stream) as usize]);
            assert!(
                conn.credit(stream).min(conn.credit(0)) > 0,
                "stream {streams} has to wait for the others"
            );
            assert_eq!(feed(&mut conn, &mut received, &[head, content].concat()), 16 * 1024);
            // One goes on, and what it needs no more comes back.
            let before = conn.credit(0);
            conn.release(stream, 16 * 1024);
            let content = frame(kind::DATA, 0, stream, &[b'x'; 16 * 1024]);
            feed(&mut conn, &mut received, &content);
            assert!(conn.credit(0) >= before.min(16 * 1024), "stream {streams} can go on but once");
        }
        assert_eq!(streams, limits.streams);
    }
}
