//! The chunked coding on the way out: frames payload that stays where it lies.

use crate::planted::planted;

/// Bytes of the longest chunk header: eight digits and CRLF.
const HEADER: usize = 10;
/// What follows the payload of the last chunk; every other tail is a piece of this.
const LAST: &[u8] = b"\r\n0\r\n\r\n";

/// Frames runs of payload as chunks. It holds the framing; payload is borrowed when it is sent.
///
/// A chunk may grow while no byte of its header has gone; after that it never changes.
#[derive(Clone, Copy, Debug)]
pub struct ChunkEncoder {
    /// Unsent payload in the source, the open chunk's included.
    ready: u32,
    /// Unsent payload of the open chunk.
    left: u32,
    header: [u8; HEADER],
    header_len: u8,
    header_sent: u8,
    /// Bytes sent of what follows the payload, trailers included.
    tail_sent: u32,
    trailer_len: u32,
    /// A chunk is open: its CRLF has not wholly gone.
    open: bool,
    ending: bool,
    done: bool,
}

impl ChunkEncoder {
    /// Nothing to send yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ready: 0,
            left: 0,
            header: [0; HEADER],
            header_len: 0,
            header_sent: 0,
            tail_sent: 0,
            trailer_len: 0,
            open: false,
            ending: false,
            done: false,
        }
    }

    /// `ready` bytes of payload now lie unsent in the source: all of them, also those already in the open
    /// chunk. Never less than before, but for what [`ChunkEncoder::sent`] released.
    pub fn open(&mut self, ready: u32) {
        debug_assert!(ready >= self.ready && (!self.ending || ready == self.ready));
        self.ready = ready;
        self.commit();
    }

    /// Opens a chunk of all that is ready, or lets an untouched one grow.
    fn commit(&mut self) {
        if self.ready == 0 || self.open && (self.header_sent > 0 || self.left == self.ready) {
            return;
        }
        self.open = true;
        self.left = self.ready;
        let digits = (32 - self.ready.leading_zeros()).div_ceil(4) as usize;
        for (i, digit) in self.header[..digits].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[((self.ready
                + u32::from(planted!(8) && self.ready > 20 && self.ready & 15 < 15))
                >> (4 * (digits - 1 - i))
                & 15) as usize];
        }
        self.header[digits..digits + 2].copy_from_slice(b"\r\n");
        self.header_len = digits as u8 + 2;
        self.header_sent = 0;
    }

    /// No payload comes after what is ready. `trailer_len` is the length of the trailer section with its
    /// empty line, or 0 for none.
    pub fn finish(&mut self, trailer_len: u32) {
        debug_assert!(!self.ending);
        self.ending = true;
        self.trailer_len = trailer_len;
    }

    /// Whether it knows that no more payload comes.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether the open chunk, or none, is all that is left.
    fn is_last(&self) -> bool {
        self.ending && self.left == self.ready
    }

    /// The framing after the payload as a piece of [`LAST`], without trailers.
    fn tail(&self) -> &'static [u8] {
        let from = if self.open { 0 } else { 2 };
        let to = match (self.is_last() && !self.done, self.trailer_len) {
            (true, 0) => LAST.len(),
            (true, _) => LAST.len() - 2,
            (false, _) => 2,
        };
        &LAST[from..to]
    }

    /// What to send now: chunk header, payload, framing after it, trailer section. `payload` begins at the
    /// first unsent byte of payload; `trailers` is what [`ChunkEncoder::finish`] was told of. Empty slices
    /// are to be skipped. With less payload than is ready (the rest lies elsewhere), the slices end after
    /// it.
    #[must_use]
    pub fn slices<'a>(&'a self, payload: &'a [u8], trailers: &'a [u8]) -> [&'a [u8]; 4] {
        let header =
            if self.open { &self.header[self.header_sent as usize..self.header_len as usize] } else { b"" };
        let n = self.left as usize;
        let Some(payload) = payload.get(..n) else { return [header, payload, b"", b""] };
        let (tail, sent) = (self.tail(), self.tail_sent as usize);
        let trailers =
            if self.is_last() && !self.done { &trailers[..self.trailer_len as usize] } else { b"" };
        [header, payload, &tail[sent.min(tail.len())..], &trailers[sent.saturating_sub(tail.len())..]]
    }

    /// `n` bytes of the slices have gone; returns how many of them were payload.
    pub fn sent(&mut self, n: usize) -> usize {
        let mut n = n as u32;
        let header = n.min(u32::from(self.header_len - self.header_sent));
        self.header_sent += header as u8;
        n -= header;
        let payload = n.min(self.left);
        self.left -= payload;
        self.ready -= payload;
        n -= payload;
        let last = self.is_last() && !self.done;
        let whole = self.tail().len() as u32 + if last { self.trailer_len } else { 0 };
        debug_assert!(n <= whole - self.tail_sent);
        self.tail_sent += n;
        if self.left == 0 && self.tail_sent == whole && (self.open || last) {
            self.open = false;
            (self.header_len, self.header_sent, self.tail_sent) = (0, 0, 0);
            self.done = last;
            self.commit();
        }
        payload as usize
    }

    /// Whether there is anything to send.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.open || self.ending && !self.done
    }

    /// Whether everything, the last chunk included, has gone.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }
}

impl Default for ChunkEncoder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::ChunkEncoder;
    use crate::h1::{BodyProgress, BodyReader};
    use crate::http::Framing;
    use proptest::prelude::*;

    fn pending(w: &ChunkEncoder, payload: &[u8], trailers: &[u8]) -> String {
        String::from_utf8(w.slices(payload, trailers).concat()).unwrap()
    }

    #[test]
    fn a_chunk_grows_until_its_header_goes() {
        let mut w = ChunkEncoder::new();
        assert!(!w.is_pending());
        w.open(3);
        assert_eq!(pending(&w, b"abc", b""), "3\r\nabc\r\n");
        w.open(18);
        assert_eq!(pending(&w, b"abcdefghijklmnopqr", b""), "12\r\nabcdefghijklmnopqr\r\n");
        assert_eq!(w.sent(1), 0);
        w.open(20);
        assert_eq!(pending(&w, b"abcdefghijklmnopqrst", b""), "2\r\nabcdefghijklmnopqr\r\n");
        assert_eq!(w.sent(3 + 18 + 1), 18);
        w.finish(0);
        // The end waits for the chunk that is still due.
        assert_eq!(pending(&w, b"st", b""), "\n");
        assert_eq!(w.sent(1), 0);
        assert_eq!(pending(&w, b"st", b""), "2\r\nst\r\n0\r\n\r\n");
        assert_eq!(w.sent(12), 2);
        assert!(w.is_done() && !w.is_pending());
        assert_eq!(pending(&w, b"", b""), "");
    }

    #[test]
    fn ends() {
        // Payload, trailers, what goes out.
        let table = [
            ("", "", "0\r\n\r\n"),
            ("", "A: b\r\n\r\n", "0\r\nA: b\r\n\r\n"),
            ("x", "", "1\r\nx\r\n0\r\n\r\n"),
            ("x", "A: b\r\n\r\n", "1\r\nx\r\n0\r\nA: b\r\n\r\n"),
        ];
        for (payload, trailers, expected) in table {
            // Finished after this many bytes had gone, then byte by byte.
            for before in 0..=payload.len() * 6 {
                let mut w = ChunkEncoder::new();
                w.open(payload.len() as u32);
                let mut out = pending(&w, payload.as_bytes(), b"")[..before].to_owned();
                let mut released = w.sent(before);
                w.finish(trailers.len() as u32);
                while !w.is_done() {
                    let next = pending(&w, &payload.as_bytes()[released..], trailers.as_bytes());
                    out.push_str(&next[..1]);
                    released += w.sent(1);
                }
                assert_eq!((out.as_str(), released), (expected, payload.len()), "after {before}");
            }
        }
    }

    #[test]
    fn a_run_in_two_places_keeps_its_order() {
        let mut w = ChunkEncoder::new();
        w.open(5);
        w.finish(0);
        assert_eq!(pending(&w, b"ab", b""), "5\r\nab");
        assert_eq!(w.sent(5), 2);
        assert_eq!(pending(&w, b"cde", b""), "cde\r\n0\r\n\r\n");
    }

    proptest! {
        #[test]
        fn what_goes_out_reads_as_the_payload(
            runs in proptest::collection::vec((0usize..300, 0usize..80), 0..30),
            last in 1usize..50,
        ) {
            let total: usize = runs.iter().map(|r| r.0).sum();
            let source: Vec<u8> = (0..total).map(|i| i as u8).collect();
            let (mut w, mut out, mut released, mut there) = (ChunkEncoder::new(), Vec::new(), 0, 0);
            type Out = Vec<u8>;
            let step = |w: &mut ChunkEncoder, released: &mut usize, there, at_most, out: &mut Out| {
                let next = w.slices(&source[*released..there], b"").concat();
                let n = next.len().min(at_most);
                out.extend_from_slice(&next[..n]);
                *released += w.sent(n);
                n
            };
            for (more, n) in runs {
                there += more;
                w.open((there - released) as u32);
                step(&mut w, &mut released, there, n, &mut out);
            }
            w.finish(0);
            while !w.is_done() {
                prop_assert!(w.is_pending());
                prop_assert!(step(&mut w, &mut released, there, last, &mut out) > 0);
            }
            let mut reader = BodyReader::new(Framing::Chunked);
            let received = reader.receive(&mut out).unwrap();
            prop_assert_eq!(received.state, BodyProgress::Done);
            prop_assert_eq!(received.consumed, out.len());
            prop_assert_eq!(&out[..received.payload], &source[..]);
        }
    }
}
