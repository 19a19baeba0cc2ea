//! The memory of a connection: what comes in and has not been understood, what is to be sent, and how those
//! that rest leave their buffers to others.

use super::{Conn, Received};
use crate::h2::frame::{HEADER_BYTES, MIN_MAX_FRAME_BYTES};

/// Bytes that may wait to be sent before streams are told to wait.
pub(super) const OUT_BYTES: usize = 64 * 1024;
/// Bytes that may wait to be sent before nothing more is read: answers to frames of the peer count, too.
const MAX_OUT_BYTES: usize = 96 * 1024;
/// Bytes of the input: one frame of any kind, unless a setting of ours lets the peer send longer ones.
const INPUT_BYTES: usize = MIN_MAX_FRAME_BYTES as usize + HEADER_BYTES;

/// Buffers of connections that have nothing to do, for those that have.
#[derive(Debug, Default)]
pub(super) struct Spare {
    input: Vec<Vec<u8>>,
    out: Vec<Vec<u8>>,
}

/// So many spare buffers of either kind are kept, and none that is longer than most.
const MAX_SPARE: usize = 32;
const MAX_SPARE_BYTES: usize = 2 * OUT_BYTES;

impl Conn {
    // Input.

    /// Room to read into; empty: do not read now.
    pub fn recv_buf(&mut self) -> &mut [u8] {
        if !self.has_room() {
            return &mut [];
        }
        if self.at == self.end {
            (self.at, self.end) = (0, 0);
        }
        // Only a long frame that has to be there whole needs more.
        let size = if self.end - self.at < INPUT_BYTES { INPUT_BYTES } else { self.most_input() };
        self.input.resize(size.max(self.end), 0);
        if self.end == self.input.len() {
            self.input.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
        }
        &mut self.input[self.end..]
    }

    /// Whether more may be read: there is room, and not too much waits to be sent.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.failed && self.end - self.at < self.most_input() && self.pending_bytes() < MAX_OUT_BYTES
    }

    /// Bytes of the longest frame that the peer may send.
    fn most_input(&self) -> usize {
        self.limits.frame_bytes as usize + HEADER_BYTES
    }

    /// `n` bytes were read into the room.
    pub fn handle_recv(&mut self, n: usize) {
        self.end += n;
    }

    // Output.

    /// What is to be sent.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        self.lent.set(self.out.len());
        &self.out[self.sent..]
    }

    /// Whether there is anything to send.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.sent < self.out.len()
    }

    /// How much that is, in bytes.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.out.len() - self.sent
    }

    /// `n` bytes of it have been sent.
    pub fn handle_sent(&mut self, n: usize) {
        self.sent += n;
        debug_assert!(self.sent <= self.out.len());
        let gone = if self.sent == self.out.len() || self.sent >= OUT_BYTES { self.sent } else { 0 };
        if gone > 0 {
            self.out.drain(..gone);
            self.sent = 0;
            self.lent.set(self.lent.get().saturating_sub(gone));
            self.last_frame =
                self.last_frame.and_then(|(at, stream)| at.checked_sub(gone).map(|at| (at, stream)));
        }
    }

    // Whose it is.

    /// Takes buffers that others have left, if it has none.
    #[inline]
    pub fn wake(&mut self, received: &mut Received) {
        if self.input.is_empty()
            && let Some(input) = received.spare.input.pop()
        {
            self.input = input;
        }
        if self.out.capacity() == 0
            && let Some(out) = received.spare.out.pop()
        {
            self.out = out;
        }
    }

    /// If it has no streams and nothing to do it leaves its buffers to others.
    pub fn rest(&mut self, received: &mut Received) {
        if self.streams.len() > 0 || !self.out.is_empty() || self.at < self.end {
            return;
        }
        (self.at, self.end) = (0, 0);
        let Spare { input, out } = &mut received.spare;
        for (buffer, spare) in [(&mut self.input, input), (&mut self.out, out)] {
            let buffer = std::mem::take(buffer);
            if (1..=MAX_SPARE_BYTES).contains(&buffer.capacity()) && spare.len() < MAX_SPARE {
                spare.push(buffer);
            }
        }
    }
}
