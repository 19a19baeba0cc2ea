//! Frames as they are on the wire (RFC 9113 §4).

/// What a client sends first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest payload as long as nothing else is said.
pub(crate) const MAX_FRAME: u32 = 16_384;

/// Types of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
    /// RFC 9218.
    pub(crate) const PRIORITY_UPDATE: u8 = 0x10;
    /// Nobody knows it.
    pub(crate) const UNKNOWN: u8 = 0xfa;
}

/// Flags of frames.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawFrame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl RawFrame {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The number at a place of the payload; `None`: it is too short.
    pub(crate) fn number(&self, at: usize) -> Option<u32> {
        let four = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(four.try_into().expect("four bytes")))
    }
}

/// Puts frames together from bytes, in whatever pieces they come.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    bytes: Vec<u8>,
    at: usize,
}

impl FrameReader {
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether no byte of the next frame has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The next frame that is complete.
    pub(crate) fn next(&mut self) -> Option<RawFrame> {
        let rest = &self.bytes[self.at..];
        let head = rest.first_chunk::<9>()?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = rest.get(9..9 + len)?.to_vec();
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        self.at += 9 + len;
        Some(RawFrame { kind: head[3], flags: head[4], stream, payload })
    }
}

/// Appends a frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_pieces() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, kind::DATA, flag::END_STREAM, 7, b"abc");
        put_frame(&mut bytes, kind::PING, flag::ACK, 0, &[0, 0, 1, 2, 0, 0, 0, 5]);
        let mut reader = FrameReader::default();
        let mut frames = Vec::new();
        for byte in bytes {
            reader.received(&[byte]);
            frames.extend(reader.next());
        }
        let [data, ping] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!((data.kind, data.stream, &data.payload[..]), (kind::DATA, 7, &b"abc"[..]));
        assert!(data.has(flag::END_STREAM));
        assert_eq!((ping.number(0), ping.number(4), ping.number(5)), (Some(258), Some(5), None));
    }
}
