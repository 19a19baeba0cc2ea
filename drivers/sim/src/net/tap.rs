//! What the proxy sends to backends, as requests: read at the proxy's end of the connection, so that the
//! judges know when it sent what, whether or not the backend has read it yet.

use std::io::IoSlice;

use super::Net;
use crate::http1::{BodyChecker, BodyFraming, HeadReader, ParsedHead};
use crate::payload::PayloadKind;

/// A request, or the beginning of one, that the proxy has sent on one connection to a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) id: u64,
    pub(crate) socket: usize,
    /// 0: the connection carries one request at a time.
    pub(crate) stream: u32,
    /// The number of the simulated backend.
    pub(crate) backend: usize,
    /// When its first byte was written.
    pub(crate) began: u64,
    /// When its last byte was written; `None`: not yet.
    pub(crate) complete: Option<u64>,
    /// Bytes of content so far.
    pub(crate) body: u64,
    /// On a stream: when some of it was written last, and when the proxy has reset that.
    pub(crate) moved: u64,
    pub(crate) given_up: Option<u64>,
    /// How many requests came before it on the connection.
    pub(crate) nth: u32,
    /// From it on, or from before, the connection is its client's alone.
    pub(crate) owned: bool,
}

/// Reads requests as they are written.
#[derive(Debug, Default)]
pub(crate) struct RequestTap {
    head: HeadReader,
    state: TapState,
    requests: u32,
    /// When the head that is being written began.
    began: u64,
}

impl RequestTap {
    /// A head has been written in part.
    pub(crate) fn head_begun(&self) -> bool {
        !self.head.is_empty()
    }
}

#[derive(Debug, Default)]
enum TapState {
    #[default]
    Head,
    /// Of the sending with this number.
    Body(usize, Box<BodyChecker>),
    /// Bytes of a tunnel, or nothing that the peers understand: the backend says so.
    Opaque,
}

impl Net {
    /// The proxy writes the first `n` bytes of these to a backend.
    pub(super) fn tap_written(&mut self, socket: usize, slices: &[IoSlice<'_>], n: usize) {
        let mut left = n;
        let mut tap = std::mem::take(&mut self.sockets[socket].tap);
        for slice in slices {
            let mut bytes = &slice[..slice.len().min(left)];
            left -= bytes.len();
            if self.sockets[socket].streams.is_some() {
                self.tap_streams(socket, bytes);
                continue;
            }
            while !bytes.is_empty() {
                let n = self.tap_piece(&mut tap, socket, bytes);
                bytes = &bytes[n..];
            }
        }
        self.sockets[socket].tap = tap;
    }

    fn tap_piece(&mut self, tap: &mut RequestTap, socket: usize, bytes: &[u8]) -> usize {
        match &mut tap.state {
            TapState::Opaque => bytes.len(),
            TapState::Body(sending, body) => {
                let Ok(n) = body.read(bytes) else {
                    tap.state = TapState::Opaque;
                    return bytes.len();
                };
                self.sendings[*sending].body = body.received;
                if body.is_complete() {
                    self.sendings[*sending].complete = Some(self.now);
                    tap.state = TapState::Head;
                }
                n
            }
            TapState::Head => {
                if tap.head.is_empty() {
                    tap.began = self.now;
                }
                let last = self.sockets[socket].sendings.last().map(|at| self.sendings[*at].id);
                if last.is_some_and(|id| self.ledger.get(id).tunnelled == Some((socket, 0))) {
                    tap.state = TapState::Opaque;
                    return bytes.len();
                }
                let (n, head) = tap.head.read(bytes);
                if let Some(head) = head {
                    self.tap_head(tap, socket, &head);
                }
                n
            }
        }
    }

    fn tap_head(&mut self, tap: &mut RequestTap, socket: usize, head: &[u8]) {
        tap.state = TapState::Opaque;
        let super::Peer::Backend(backend) = self.sockets[socket].peer else { return };
        let Some(head) = ParsedHead::parse(head) else { return };
        if head.start == "GET /probe HTTP/1.1" {
            self.sockets[socket].probe = true;
            return;
        }
        let id = head.number("x-sim").ok().flatten().filter(|id| self.ledger.find(*id).is_some());
        let (Some(id), Ok(framing)) = (id, head.framing(BodyFraming::None)) else { return };
        let body = BodyChecker::new(id, PayloadKind::Request, false, framing);
        let complete = body.is_complete().then_some(self.now);
        let owned = self.judge_identity(socket, id);
        let at = self.sendings.len();
        let (began, nth) = (tap.began, tap.requests);
        let (stream, moved, given_up) = (0, self.now, None);
        self.sendings.push(Sending {
            id,
            socket,
            stream,
            backend,
            began,
            complete,
            body: 0,
            moved,
            given_up,
            nth,
            owned,
        });
        self.ledger.get_mut(id).sendings.push(at);
        self.sockets[socket].sendings.push(at);
        self.judge_sent_again(at);
        tap.requests += 1;
        tap.state = if complete.is_some() { TapState::Head } else { TapState::Body(at, Box::new(body)) };
    }
}
