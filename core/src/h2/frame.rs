//! Frames (RFC 9113 §4 and §6, RFC 9218 §7.1): from bytes to meaning. Each frame is checked here for what can
//! be said of it alone: its length, its stream, its padding, and that nothing comes between the frames of one
//! field block. What may come when is the business of the machine.

use super::reason::Reason;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 9;
/// The payload that every endpoint takes, in bytes (RFC 9113 §4.2).
pub const MIN_MAX_FRAME_BYTES: u32 = 16_384;
/// The largest payload that a setting may allow, in bytes.
pub const MAX_MAX_FRAME_BYTES: u32 = (1 << 24) - 1;
/// What a client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
pub mod kind {
    #![expect(missing_docs, reason = "each is named after its frame")]
    pub const DATA: u8 = 0x0;
    pub const HEADERS: u8 = 0x1;
    pub const PRIORITY: u8 = 0x2;
    pub const RST_STREAM: u8 = 0x3;
    pub const SETTINGS: u8 = 0x4;
    pub const PUSH_PROMISE: u8 = 0x5;
    pub const PING: u8 = 0x6;
    pub const GOAWAY: u8 = 0x7;
    pub const WINDOW_UPDATE: u8 = 0x8;
    pub const CONTINUATION: u8 = 0x9;
    pub const PRIORITY_UPDATE: u8 = 0x10;
}

/// Flags of frames.
pub mod flag {
    /// DATA, HEADERS: the last one of its direction of the stream.
    pub const END_STREAM: u8 = 0x1;
    /// SETTINGS, PING: the answer to one.
    pub const ACK: u8 = 0x1;
    /// HEADERS, CONTINUATION: the field block ends here.
    pub const END_HEADERS: u8 = 0x4;
    /// DATA, HEADERS: padded.
    pub const PADDED: u8 = 0x8;
    /// HEADERS: with a priority of RFC 7540.
    pub const PRIORITY: u8 = 0x20;
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the payload, 24 bits.
    pub len: u32,
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// The stream, 31 bits; 0 for the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads it; the reserved bit is ignored.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        let len = u32::from_be_bytes([0, a, b, c]);
        Self { len, kind, flags, stream: u32::from_be_bytes(stream) & MAX_STREAM }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; HEADER_BYTES] {
        let [_, a, b, c] = self.len.to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The largest id of a stream.
pub const MAX_STREAM: u32 = (1 << 31) - 1;

/// What a frame says. Of DATA, pieces are handed out as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A DATA frame begins that counts so many bytes against the windows: its payload, padding included.
    DataBegins {
        /// Not 0.
        stream: u32,
        /// Bytes against the windows.
        counts: u32,
        /// Bytes of padding in `counts`, with its length.
        padding: u32,
        /// END_STREAM.
        end_stream: bool,
    },
    /// Bytes of the DATA frame that has begun.
    Data {
        /// As in `DataBegins`.
        stream: u32,
        /// None, if the frame has none.
        bytes: &'a [u8],
        /// END_STREAM, and these are its last bytes.
        end_stream: bool,
    },
    /// HEADERS.
    Headers {
        /// Not 0.
        stream: u32,
        /// The first part of the field block.
        block: &'a [u8],
        /// It is the whole field block.
        end_headers: bool,
        /// END_STREAM.
        end_stream: bool,
        /// It has a priority of RFC 7540 that makes the stream depend on itself.
        depends_on_itself: bool,
    },
    /// CONTINUATION.
    Continuation {
        /// That of the HEADERS.
        stream: u32,
        /// The next part of the field block.
        block: &'a [u8],
        /// It is the last one.
        end_headers: bool,
    },
    /// PRIORITY of RFC 7540.
    Priority {
        /// Not 0.
        stream: u32,
        /// The stream would depend on itself.
        depends_on_itself: bool,
    },
    /// RST_STREAM.
    Reset {
        /// Not 0.
        stream: u32,
        /// Why.
        reason: Reason,
    },
    /// SETTINGS.
    Settings(Settings<'a>),
    /// SETTINGS that answer ours.
    SettingsAck,
    /// PING.
    Ping {
        /// It answers ours.
        ack: bool,
        /// Opaque.
        data: [u8; 8],
    },
    /// GOAWAY.
    GoAway {
        /// Streams above this one were not processed.
        last_stream: u32,
        /// Why.
        reason: Reason,
    },
    /// WINDOW_UPDATE.
    WindowUpdate {
        /// 0: that of the connection.
        stream: u32,
        /// Bytes; 0 is an error of its stream.
        increment: u32,
    },
    /// PRIORITY_UPDATE of RFC 9218.
    PriorityUpdate {
        /// Not 0.
        stream: u32,
        /// A `priority` field's value.
        value: &'a [u8],
    },
    /// A frame of a type that nobody knows: ignored (RFC 9113 §4.1).
    Unknown,
    /// A frame with an error that ends its stream only (RFC 9113 §5.4.2).
    StreamError {
        /// Not 0.
        stream: u32,
        /// What to reset it with.
        reason: Reason,
    },
}

/// The payload of a SETTINGS frame: a whole number of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings<'a>(&'a [u8]);

impl<'a> Settings<'a> {
    /// Of bytes whose number is a multiple of six.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    /// Identifier and value of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u32)> + use<'a> {
        self.0
            .as_chunks::<6>()
            .0
            .iter()
            .map(|&[a, b, c, d, e, f]| (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])))
    }
}

/// Reads frames. Payload of DATA, padding and frames that nobody knows need not be there whole; all others
/// are handed out once they are.
#[derive(Debug)]
pub struct FrameReader {
    state: State,
    /// The stream whose field block has begun and not ended.
    block_of: Option<u32>,
    /// What our SETTINGS_MAX_FRAME_SIZE allows the peer, in bytes.
    max_frame: u32,
}

#[derive(Debug)]
enum State {
    /// Bytes of the preface that have come.
    Preface(usize),
    /// A header comes next.
    Header,
    /// The rest of a DATA frame.
    Data { stream: u32, left: u32, padding: u32, end_stream: bool },
    /// Bytes that mean nothing.
    Skip(u32),
}

/// What was read: how many bytes of the input, and what they mean, if they are enough.
pub type Read<'a> = (usize, Option<Frame<'a>>);

impl FrameReader {
    /// Of a server: the preface comes first.
    #[must_use]
    pub fn server(max_frame: u32) -> Self {
        Self { state: State::Preface(0), block_of: None, max_frame }
    }

    /// Of a client.
    #[must_use]
    pub fn client(max_frame: u32) -> Self {
        Self { state: State::Header, block_of: None, max_frame }
    }

    /// The stream whose DATA frame has begun, and has not come whole.
    #[must_use]
    pub fn data_of(&self) -> Option<u32> {
        match self.state {
            State::Data { stream, .. } => Some(stream),
            _ => None,
        }
    }

    /// Reads the next frame of the input, or the next bytes of one. Nothing read and no frame: there has to
    /// be more.
    ///
    /// # Errors
    /// An error of the connection (RFC 9113 §5.4.1).
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Read<'a>, Reason> {
        match self.state {
            State::Header => self.frame(input),
            State::Data { stream, left, padding, end_stream } => {
                Ok(self.data(input, stream, left, padding, end_stream))
            }
            State::Skip(left) => {
                let n = input.len().min(left as usize);
                self.skip(left - n as u32);
                Ok((n, None))
            }
            State::Preface(seen) => {
                let n = input.len().min(PREFACE.len() - seen);
                if input[..n] != PREFACE[seen..seen + n] {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                let done = seen + n == PREFACE.len();
                self.state = if done { State::Header } else { State::Preface(seen + n) };
                Ok((n, None))
            }
        }
    }

    /// Whether the input ends between two frames.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header) && self.block_of.is_none()
    }

    fn skip(&mut self, left: u32) {
        self.state = if left == 0 { State::Header } else { State::Skip(left) };
    }

    fn data<'a>(
        &mut self,
        input: &'a [u8],
        stream: u32,
        left: u32,
        padding: u32,
        end_stream: bool,
    ) -> Read<'a> {
        let n = input.len().min(left as usize);
        if n == 0 && left > 0 {
            return (0, None);
        }
        let left = left - n as u32;
        if left == 0 {
            self.skip(padding);
        } else {
            self.state = State::Data { stream, left, padding, end_stream };
        }
        (n, Some(Frame::Data { stream, bytes: &input[..n], end_stream: end_stream && left == 0 }))
    }

    fn frame<'a>(&mut self, input: &'a [u8]) -> Result<Read<'a>, Reason> {
        let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else { return Ok((0, None)) };
        let header = FrameHeader::parse(header);
        self.check(header)?;
        if header.kind == kind::DATA {
            return self.data_begins(header, rest);
        }
        if !is_known(header.kind) {
            self.skip(header.len);
            return Ok((HEADER_BYTES, Some(Frame::Unknown)));
        }
        let Some(payload) = rest.get(..header.len as usize) else { return Ok((0, None)) };
        let frame = match header.kind {
            kind::HEADERS => headers(header, payload)?,
            kind::CONTINUATION => Frame::Continuation {
                stream: header.stream,
                block: payload,
                end_headers: header.has(flag::END_HEADERS),
            },
            _ => fixed(header, payload)?,
        };
        if let Frame::Headers { stream, end_headers, .. } | Frame::Continuation { stream, end_headers, .. } =
            frame
        {
            self.block_of = (!end_headers).then_some(stream);
        }
        Ok((HEADER_BYTES + payload.len(), Some(frame)))
    }

    /// What a header has to keep, as soon as it is there.
    fn check(&self, header: FrameHeader) -> Result<(), Reason> {
        // A field block is one piece (RFC 9113 §4.3).
        match self.block_of {
            Some(stream) if header.kind != kind::CONTINUATION || header.stream != stream => {
                return Err(Reason::PROTOCOL_ERROR);
            }
            None if header.kind == kind::CONTINUATION => return Err(Reason::PROTOCOL_ERROR),
            _ => {}
        }
        if header.len > self.max_frame {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        let on_connection = header.stream == 0;
        match header.kind {
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM if on_connection => {
                Err(Reason::PROTOCOL_ERROR)
            }
            kind::SETTINGS | kind::PING | kind::GOAWAY | kind::PRIORITY_UPDATE if !on_connection => {
                Err(Reason::PROTOCOL_ERROR)
            }
            // A server gets none, and we as a client allow none.
            kind::PUSH_PROMISE => Err(Reason::PROTOCOL_ERROR),
            kind::RST_STREAM | kind::WINDOW_UPDATE if header.len != 4 => Err(Reason::FRAME_SIZE_ERROR),
            kind::PING if header.len != 8 => Err(Reason::FRAME_SIZE_ERROR),
            kind::GOAWAY if header.len < 8 => Err(Reason::FRAME_SIZE_ERROR),
            kind::PRIORITY_UPDATE if header.len < 4 => Err(Reason::FRAME_SIZE_ERROR),
            kind::SETTINGS if header.has(flag::ACK) && header.len != 0 => Err(Reason::FRAME_SIZE_ERROR),
            kind::SETTINGS if !header.len.is_multiple_of(6) => Err(Reason::FRAME_SIZE_ERROR),
            _ => Ok(()),
        }
    }

    fn data_begins<'a>(&mut self, header: FrameHeader, rest: &'a [u8]) -> Result<Read<'a>, Reason> {
        let (mut read, mut padding) = (HEADER_BYTES, 0);
        if header.has(flag::PADDED) {
            if header.len == 0 {
                return Err(Reason::FRAME_SIZE_ERROR);
            }
            let Some(&pad) = rest.first() else { return Ok((0, None)) };
            padding = u32::from(pad);
            // All of it padding is too much (RFC 9113 §6.1).
            if padding >= header.len {
                return Err(Reason::PROTOCOL_ERROR);
            }
            read += 1;
        }
        let (stream, end_stream) = (header.stream, header.has(flag::END_STREAM));
        let prefix = (read - HEADER_BYTES) as u32;
        self.state = State::Data { stream, left: header.len - padding - prefix, padding, end_stream };
        let padding = padding + prefix;
        Ok((read, Some(Frame::DataBegins { stream, counts: header.len, padding, end_stream })))
    }
}

fn is_known(kind: u8) -> bool {
    kind <= kind::CONTINUATION || kind == kind::PRIORITY_UPDATE
}

fn headers(header: FrameHeader, payload: &[u8]) -> Result<Frame<'_>, Reason> {
    let mut block = payload;
    if header.has(flag::PADDED) {
        let (&padding, behind) = block.split_first().ok_or(Reason::FRAME_SIZE_ERROR)?;
        let len = behind.len().checked_sub(usize::from(padding)).ok_or(Reason::PROTOCOL_ERROR)?;
        block = &behind[..len];
    }
    let mut depends_on_itself = false;
    if header.has(flag::PRIORITY) {
        // With padding that reaches into it, it is the padding that is wrong.
        let wrong = if header.has(flag::PADDED) { Reason::PROTOCOL_ERROR } else { Reason::FRAME_SIZE_ERROR };
        let (priority, behind) = block.split_first_chunk::<5>().ok_or(wrong)?;
        depends_on_itself = dependency(priority) == header.stream;
        block = behind;
    }
    Ok(Frame::Headers {
        stream: header.stream,
        block,
        end_headers: header.has(flag::END_HEADERS),
        end_stream: header.has(flag::END_STREAM),
        depends_on_itself,
    })
}

fn dependency(priority: &[u8; 5]) -> u32 {
    number(&priority[..4]) & MAX_STREAM
}

/// The first four bytes, which are there.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |four| u32::from_be_bytes(*four))
}

/// Frames whose length has been checked, or need not be.
fn fixed(header: FrameHeader, payload: &[u8]) -> Result<Frame<'_>, Reason> {
    let stream = header.stream;
    Ok(match header.kind {
        kind::PRIORITY => match payload.first_chunk::<5>() {
            Some(priority) if payload.len() == 5 => {
                Frame::Priority { stream, depends_on_itself: dependency(priority) == stream }
            }
            _ => Frame::StreamError { stream, reason: Reason::FRAME_SIZE_ERROR },
        },
        kind::RST_STREAM => Frame::Reset { stream, reason: Reason(number(payload)) },
        kind::SETTINGS if header.has(flag::ACK) => Frame::SettingsAck,
        kind::SETTINGS => Frame::Settings(Settings::new(payload)),
        kind::PING => {
            let data = *payload.first_chunk::<8>().ok_or(Reason::FRAME_SIZE_ERROR)?;
            Frame::Ping { ack: header.has(flag::ACK), data }
        }
        kind::GOAWAY => {
            Frame::GoAway { last_stream: number(payload) & MAX_STREAM, reason: Reason(number(&payload[4..])) }
        }
        kind::WINDOW_UPDATE => Frame::WindowUpdate { stream, increment: number(payload) & MAX_STREAM },
        // PRIORITY_UPDATE; the stream is one that can have a priority (RFC 9218 §7.1).
        _ => match number(payload) & MAX_STREAM {
            0 => return Err(Reason::PROTOCOL_ERROR),
            stream => Frame::PriorityUpdate { stream, value: &payload[4..] },
        },
    })
}
