//! What is sent: heads, data, ends.

use super::buffers::OUT_BYTES;
use super::{Conn, Role};
use crate::h2::abuse::Abuse;
use crate::h2::frame::{HEADER_BYTES, flag};
use crate::h2::head::Asked;
use crate::h2::hpack::Encoder;
use crate::h2::machine::{Event as Step, State};
use crate::h2::write;
use crate::http::{HeaderKind, Method, StatusCode};
use crate::planted::planted;

/// WINDOW_UPDATEs that the peer has reason for by a DATA frame of ours: of the stream and of the connection,
/// however it counts.
const UPDATES_FOR_DATA: u32 = 4;

/// Takes the fields of one head.
pub struct BlockWriter<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut Vec<u8>,
    scheme: &'static [u8],
}

impl BlockWriter<'_> {
    /// A field; pseudo-header fields first. Capitals of the name become lower case. `never`: no table may
    /// have it, at this hop or any other.
    pub fn field(&mut self, name: &[u8], value: &[u8], kind: HeaderKind, never: bool) {
        self.encoder.field(name, value, kind, never, self.out);
    }

    /// A pseudo-header field.
    pub fn pseudo(&mut self, name: &[u8], value: &[u8]) {
        self.field(name, value, HeaderKind::Other, false);
    }

    /// `:status`
    #[inline]
    pub fn status(&mut self, status: StatusCode) {
        self.encoder.status(status, self.out);
    }

    /// `:scheme`, as the connection has it.
    pub fn scheme(&mut self) {
        self.pseudo(b":scheme", self.scheme);
    }

    /// `:method`
    pub fn method(&mut self, method: &Method) {
        self.pseudo(b":method", method.as_str().as_bytes());
    }

    /// Begins a field whose value comes in pieces.
    pub fn begin(&mut self, kind: HeaderKind, name: &[u8]) {
        self.encoder.begin_field(kind, name);
    }

    /// A piece of the value.
    pub fn value(&mut self, piece: &[u8]) {
        self.encoder.value(piece);
    }

    /// The value is complete.
    pub fn end(&mut self) {
        self.encoder.end_field(self.out);
    }
}

impl Conn {
    /// Sends a head, whose fields `write` puts; `end`: nothing follows. `to_head`: it is a HEAD request.
    /// False if the stream cannot take it any more.
    pub fn send_head(
        &mut self,
        stream: u32,
        end: bool,
        to_head: bool,
        write: impl FnOnce(&mut BlockWriter<'_>),
    ) -> bool {
        self.send_head_of(stream, end, if to_head { Asked::Head } else { Asked::Other }, write)
    }

    /// The same with the head of an extended CONNECT (RFC 8441): nothing but data follows, either way, if
    /// the peer says that it succeeds.
    pub fn send_connect(&mut self, stream: u32, write: impl FnOnce(&mut BlockWriter<'_>)) -> bool {
        self.send_head_of(stream, false, Asked::Tunnel, write)
    }

    fn send_head_of(
        &mut self,
        stream: u32,
        end: bool,
        asked: Asked,
        write: impl FnOnce(&mut BlockWriter<'_>),
    ) -> bool {
        let step = if end { Step::SendHeadEnd } else { Step::SendHead };
        let last_sent = self.last_sent;
        let Some(found) = self.streams.get_mut(stream) else { return false };
        // Streams are opened in the order of their ids (RFC 9113 §5.1.1).
        if self.failed || (found.state == State::Idle && stream < last_sent) {
            return false;
        }
        let Ok(state) = found.state.next(step) else { return false };
        found.state = state;
        if asked != Asked::Other {
            found.asked = asked;
        }
        self.last_sent = last_sent.max(stream);
        self.put_block(stream, end, write);
        self.end_if_closed(stream);
        true
    }

    fn put_block(&mut self, stream: u32, end: bool, write: impl FnOnce(&mut BlockWriter<'_>)) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; HEADER_BYTES]);
        self.encoder.begin(&mut self.out);
        let scheme = self.scheme();
        write(&mut BlockWriter { encoder: &mut self.encoder, out: &mut self.out, scheme });
        let one = self.out.len() - start - HEADER_BYTES <= self.peer.max_frame_bytes as usize;
        write::finish_headers(&mut self.out, start, stream, end, self.peer.max_frame_bytes);
        // Of several frames it is the first that would say so.
        self.last_frame = (!end && one).then_some((start, stream));
    }

    /// Sends as much of the data as the peer and the buffer have room for, one frame at most, so that other
    /// streams have their turn; returns how much that was.
    pub fn send_data(&mut self, stream: u32, data: &[u8]) -> usize {
        let room = OUT_BYTES.saturating_sub(self.pending_bytes());
        let most = (self.peer.max_frame_bytes.min(self.send.left()) as usize).min(room);
        let Some(found) = self.streams.get_mut(stream) else { return data.len() };
        if self.failed || !found.state.may_send() {
            return data.len();
        }
        let n = data.len().min(found.send.left() as usize).min(most);
        if n == 0 {
            return 0;
        }
        found.send.take(n as u32);
        self.send.take(n as u32);
        self.last_frame = Some((self.out.len(), stream));
        write::data_header(&mut self.out, stream, n as u32, false);
        self.out.extend_from_slice(&data[..n]);
        self.budgets.allow(Abuse::WindowUpdates, UPDATES_FOR_DATA);
        self.budgets.allow(Abuse::Pings, 1);
        n
    }

    /// The message is complete, without trailers.
    pub fn send_end(&mut self, stream: u32) {
        if !self.ends(stream) {
            return;
        }
        match self.last_frame.take() {
            // The flag can still be set.
            Some((at, last)) if last == stream && (at >= self.lent.get() || planted!(166)) => {
                if !(planted!(183) && self.role == Role::Client) {
                    self.out[at + 4] |= flag::END_STREAM;
                }
            }
            _ => write::data_header(&mut self.out, stream, 0, true),
        }
        self.end_if_closed(stream);
    }

    /// The message is complete, with trailers that `write` puts.
    pub fn send_trailers(&mut self, stream: u32, write: impl FnOnce(&mut BlockWriter<'_>)) {
        if self.ends(stream) {
            self.put_block(stream, true, write);
            self.end_if_closed(stream);
        }
    }

    fn ends(&mut self, stream: u32) -> bool {
        if self.failed {
            return false;
        }
        let Some(found) = self.streams.get_mut(stream) else { return false };
        let Ok(state) = found.state.next(Step::SendDataEnd) else { return false };
        found.state = state;
        true
    }

    /// Both sides have ended: the stream is gone, unless some of it is yet to be handed out.
    pub(super) fn end_if_closed(&mut self, stream: u32) {
        let over = self.streams.get(stream).is_some_and(|found| {
            found.state.is_closed() && found.held.is_empty() && found.held_end.is_none()
        });
        if over {
            self.remove(stream, State::Ended);
        }
    }

    /// A stream could take data now: neither flow control nor the buffer is a hindrance.
    #[must_use]
    pub fn can_send(&self, stream: u32) -> bool {
        self.send.left() > 0
            && self.pending_bytes() < OUT_BYTES
            && self.streams.get(stream).is_some_and(|found| found.state.may_send() && found.send.left() > 0)
    }
}
