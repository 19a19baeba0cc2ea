//! A toy protocol of many streams over one connection, spoken by tests at both ends: frames of a stream's id,
//! a kind and a length. It has what the core needs to know of any such protocol: heads, data under flow
//! control, ends with trailers, resets.

use std::collections::{BTreeMap, VecDeque};

use ruststrom_core::Instant;
use ruststrom_core::h1::{
    self, FieldIndex, HeadLimits, RequestForward, ResponseContext, ResponseForward, Writer,
};
use ruststrom_core::h2::Reason;
use ruststrom_core::http::{RequestHead, ResponseHead, Violation};
use ruststrom_core::wire::{Multiplexed, Received, STREAM_CREDIT, StreamEvent};

/// What came on a stream, heads and trailers as text of HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToyEvent {
    /// A head; the flag says that nothing follows.
    Head(u32, Vec<u8>, bool),
    Data(u32, Vec<u8>),
    /// The message is complete, with these trailers or none.
    End(u32, Vec<u8>),
    Reset(u32),
    Writable(u32),
    /// The peer broke the protocol.
    Broken,
}

/// Stream (32 bits), kind (8), length of the payload (24), little endian.
const HEADER_BYTES: usize = 8;
/// Longest payload of data frames that are made here.
const DATA_BYTES: usize = 4096;
/// Bytes that may wait to be sent before streams are told to wait.
const OUT_BYTES: usize = 16 * 1024;

const HEAD: u8 = 0;
const HEAD_AND_END: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const RESET: u8 = 4;
const CREDIT: u8 = 5;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct ToyWire {
    input: Vec<u8>,
    used: usize,
    events: VecDeque<ToyEvent>,
    /// The data of the last event.
    data: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    streams: BTreeMap<u32, Stream>,
    next_stream: u32,
    max_streams: usize,
}

#[derive(Debug)]
struct Stream {
    /// How much the peer takes.
    credit: usize,
    /// How much of what the peer has sent has not been given back.
    taken: usize,
    send_ended: bool,
    recv_ended: bool,
}

impl Stream {
    fn new() -> Self {
        Self { credit: STREAM_CREDIT, taken: 0, send_ended: false, recv_ended: false }
    }
}

impl ToyWire {
    /// An end that opens at most `max_streams` at once.
    #[must_use]
    pub(crate) fn new(max_streams: usize) -> Self {
        Self {
            input: Vec::new(),
            used: 0,
            events: VecDeque::new(),
            data: Vec::new(),
            out: Vec::new(),
            sent: 0,
            streams: BTreeMap::new(),
            next_stream: 1,
            max_streams,
        }
    }

    /// The end that the core gets for connections to backends.
    #[must_use]
    pub(crate) fn boxed() -> Box<dyn Multiplexed> {
        Box::new(Self::new(4))
    }

    /// Sends a head: start line and field lines as HTTP/1.1 has them, with an empty line at the end.
    pub(crate) fn send_head(&mut self, stream: u32, head: &[u8]) -> bool {
        self.frame(stream, HEAD, head);
        true
    }

    /// Sends a head that is a whole message.
    pub(crate) fn send_whole_head(&mut self, stream: u32, head: &[u8]) {
        self.frame(stream, HEAD_AND_END, head);
        self.ended(stream, true);
    }

    fn frame(&mut self, stream: u32, kind: u8, payload: &[u8]) {
        self.out.extend_from_slice(&stream.to_le_bytes());
        self.out.push(kind);
        self.out.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
        self.out.extend_from_slice(payload);
    }

    /// A direction of a stream has ended; with both the stream is gone.
    fn ended(&mut self, stream: u32, sending: bool) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        if sending {
            state.send_ended = true;
        } else {
            state.recv_ended = true;
        }
        if state.send_ended && state.recv_ended {
            self.streams.remove(&stream);
        }
    }

    /// Takes one whole frame off the input.
    fn next_frame(&mut self) -> Option<(u32, u8, Vec<u8>)> {
        let header = self.input[..self.used].get(..HEADER_BYTES)?;
        let stream = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let len = u32::from_le_bytes([header[5], header[6], header[7], 0]) as usize;
        let kind = header[4];
        let payload = self.input[..self.used].get(HEADER_BYTES..HEADER_BYTES + len)?.to_vec();
        self.input.copy_within(HEADER_BYTES + len..self.used, 0);
        self.used -= HEADER_BYTES + len;
        Some((stream, kind, payload))
    }

    fn take_frame(&mut self, stream: u32, kind: u8, payload: Vec<u8>) {
        let event = match kind {
            HEAD | HEAD_AND_END => {
                self.streams.entry(stream).or_insert_with(Stream::new);
                if kind == HEAD_AND_END {
                    self.ended(stream, false);
                }
                ToyEvent::Head(stream, payload, kind == HEAD_AND_END)
            }
            DATA => {
                let Some(state) = self.streams.get_mut(&stream) else { return };
                state.taken += payload.len();
                if state.taken > STREAM_CREDIT { ToyEvent::Broken } else { ToyEvent::Data(stream, payload) }
            }
            END => {
                self.ended(stream, false);
                ToyEvent::End(stream, payload)
            }
            RESET => {
                self.streams.remove(&stream);
                ToyEvent::Reset(stream)
            }
            CREDIT => {
                let bytes = payload.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
                let Some(state) = self.streams.get_mut(&stream) else { return };
                state.credit += bytes;
                ToyEvent::Writable(stream)
            }
            _ => ToyEvent::Broken,
        };
        self.events.push_back(event);
    }

    /// The next thing that came.
    pub(crate) fn next_event(&mut self) -> Option<ToyEvent> {
        self.events.pop_front()
    }
}

/// Fills in what the core gets of a head.
fn take_head(stream: u32, text: &[u8], ended: bool, received: &mut Received) -> StreamEvent {
    let limits = HeadLimits { head_bytes: 65_000, fields: 200, target_bytes: 60_000 };
    let (mut index, mut scratch) = (FieldIndex::new(), Vec::new());
    if text.starts_with(b"HTTP/") {
        return match h1::parse_response(text, &mut index, &limits, ResponseContext::default()) {
            Ok(parsed) => {
                received.response = ResponseHead::from(&parsed);
                StreamEvent::Response { stream, ended }
            }
            Err(violation) => rejected(stream, violation, ended),
        };
    }
    match h1::parse_request(text, &mut index, &limits, &mut scratch) {
        Ok(parsed) => {
            received.request = RequestHead::from(&parsed);
            StreamEvent::Request { stream, ended }
        }
        Err(violation) => {
            received.request = RequestHead::default();
            rejected(stream, violation, ended)
        }
    }
}

fn rejected(stream: u32, violation: Violation, ended: bool) -> StreamEvent {
    StreamEvent::Rejected { stream, violation, ended }
}

/// A head as HTTP/1.1 has it.
fn as_text(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut text = vec![0; 70_000];
    let mut w = Writer::new(&mut text);
    write(&mut w);
    let len = w.finish().expect("room for every head");
    text.truncate(len);
    text
}

impl Multiplexed for ToyWire {
    fn recv_buf(&mut self) -> &mut [u8] {
        if self.input.len() < self.used + DATA_BYTES {
            self.input.resize(self.used + DATA_BYTES, 0);
        }
        &mut self.input[self.used..]
    }

    fn handle_recv(&mut self, n: usize) {
        self.used += n;
        while let Some((stream, kind, payload)) = self.next_frame() {
            self.take_frame(stream, kind, payload);
        }
    }

    fn has_room(&self) -> bool {
        true
    }

    fn poll_event(&mut self, received: &mut Received, _: Instant) -> Option<StreamEvent> {
        Some(match self.next_event()? {
            ToyEvent::Head(stream, text, ended) => take_head(stream, &text, ended, received),
            ToyEvent::Data(stream, data) => {
                self.data = data;
                StreamEvent::Data { stream }
            }
            ToyEvent::End(stream, trailers) => {
                received.trailers = trailers;
                StreamEvent::End { stream }
            }
            ToyEvent::Reset(stream) => {
                StreamEvent::Reset { stream, reason: Reason::CANCEL, unprocessed: false }
            }
            ToyEvent::Writable(stream) => StreamEvent::Writable { stream },
            ToyEvent::Broken => StreamEvent::Broken(Reason::PROTOCOL_ERROR),
        })
    }

    fn data(&self) -> &[u8] {
        &self.data
    }

    fn pending_bytes(&self) -> usize {
        self.out.len() - self.sent
    }

    fn open(&mut self) -> Option<u32> {
        if self.streams.len() >= self.max_streams {
            return None;
        }
        let stream = self.next_stream;
        self.next_stream += 1;
        self.streams.insert(stream, Stream::new());
        Some(stream)
    }

    fn send_request(&mut self, stream: u32, head: &RequestHead, forward: &RequestForward<'_>) -> bool {
        self.send_head(stream, &as_text(|w| h1::forward_request(w, head, forward)))
    }

    fn send_interim(&mut self, stream: u32, head: &ResponseHead) -> bool {
        self.send_head(stream, &as_text(|w| h1::forward_interim(w, head)))
    }

    fn send_response(&mut self, stream: u32, head: &ResponseHead, forward: &ResponseForward<'_>) -> bool {
        self.send_head(stream, &as_text(|w| h1::forward_response(w, head, forward)))
    }

    fn send_data(&mut self, stream: u32, data: &[u8]) -> usize {
        let room = OUT_BYTES.saturating_sub(self.out.len() - self.sent);
        let Some(state) = self.streams.get_mut(&stream) else { return data.len() };
        let n = data.len().min(state.credit).min(room).min(DATA_BYTES);
        state.credit -= n;
        if n > 0 {
            self.frame(stream, DATA, &data[..n]);
        }
        n
    }

    fn send_end(&mut self, stream: u32, trailers: &[u8]) {
        self.frame(stream, END, trailers);
        self.ended(stream, true);
    }

    fn reset(&mut self, stream: u32, reason: Reason) {
        // It has no word for "the rest is not wanted".
        if reason != Reason::NO_ERROR {
            self.frame(stream, RESET, b"");
        }
        self.streams.remove(&stream);
    }

    fn release(&mut self, stream: u32, bytes: usize) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.taken -= bytes;
            self.frame(stream, CREDIT, &(bytes as u32).to_le_bytes());
        }
    }

    fn can_send(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|state| state.credit > 0)
    }

    fn transmit(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    fn handle_sent(&mut self, n: usize) {
        self.sent += n;
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
    }
}
