//! The far end of one connection of HTTP/2 that believes nothing: it knows every byte that was sent to the
//! side under test (whose frames may be anything), and holds every frame of that side against RFC 9113: its
//! form, the windows and settings that it was given, the states of streams, field compression, what it
//! answers.

use std::collections::{BTreeMap, VecDeque};

use ruststrom_core::h2::frame::{PREFACE, flag, kind};
use ruststrom_core::h2::hpack::{BlockLimits, Decoder, FieldBlock, Fit, Pseudo};
use ruststrom_core::h2::settings::id;

const WIDE: BlockLimits = BlockLimits { list_bytes: 65_535, fields: u32::MAX, hard_bytes: 1 << 20 };
const WINDOW: i64 = 65_535;
const MAX_WINDOW: i64 = (1 << 31) - 1;

/// What is known of one connection.
pub(super) struct FarEnd {
    /// The side under test is a server.
    server: bool,
    /// Sent to it, and not yet whole; of DATA, what is still to come of the frame.
    told: Frames,
    data: Option<Data>,
    /// Received from it, and not yet whole.
    heard: Frames,
    /// SETTINGS that it has not acknowledged.
    unacknowledged: VecDeque<Vec<(u16, u32)>>,
    /// PINGs that it has not answered.
    pings: VecDeque<[u8; 8]>,
    /// As far as it has acknowledged them.
    initial_window: i64,
    max_frame: usize,
    /// Its SETTINGS have come.
    has_settings: bool,
    decoder: Decoder,
    /// A block that is to be continued: its stream, and whether it ends that.
    block: Option<(u32, bool, Vec<u8>)>,
    /// Why it has given the connection up.
    pub(super) failed: Option<u32>,
    /// The last stream that it takes, by its last GOAWAY.
    last: u32,
    /// Of the connection as a whole.
    pub(super) whole: Half,
    pub(super) streams: BTreeMap<u32, Half>,
}

/// One stream, as far as both know it.
#[derive(Debug, Default)]
pub(super) struct Half {
    /// What it was told that it may send, beyond the first window, and what it has sent.
    may_send: i64,
    sent: i64,
    /// What it has told that it takes, beyond the first window, and what was sent to it.
    may_receive: i64,
    counted: i64,
    /// A head was sent to it; the message was ended.
    pub(super) asked: bool,
    pub(super) whole: bool,
    /// It was told that the stream is reset.
    pub(super) was_reset: bool,
    /// The content that was sent to it up to the end.
    pub(super) content: Vec<u8>,
    /// Its final head has come; its message has ended; it has reset the stream.
    head: bool,
    pub(super) ended: bool,
    pub(super) reset: bool,
}

impl Half {
    /// What may still be sent to it, if its first window is this large.
    pub(super) fn credit(&self, first: u32) -> i64 {
        i64::from(first) + self.may_receive - self.counted
    }

    /// Its client has opened it.
    fn is_open(&self, server: bool) -> bool {
        if server { self.asked } else { self.head }
    }
}

/// A DATA frame of which not all has been sent: payload and padding, in bytes.
struct Data {
    stream: u32,
    payload: usize,
    padding: usize,
    /// Its stream had not ended before.
    counts: bool,
}

/// Bytes cut into frames, as far as they are there.
#[derive(Default)]
struct Frames {
    preface: usize,
    bytes: Vec<u8>,
}

struct RawFrame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frames {
    /// What is there, behind the preface.
    fn start(&mut self) -> &[u8] {
        let skip = self.preface.min(self.bytes.len());
        self.preface -= skip;
        self.bytes.drain(..skip);
        &self.bytes
    }

    /// The next frame, once it is whole.
    fn next(&mut self) -> Option<RawFrame> {
        self.start();
        let &[a, b, c, kind, flags, d, e, f, g, ..] = &self.bytes[..] else { return None };
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = self.bytes.get(9..9 + len)?.to_vec();
        self.bytes.drain(..9 + len);
        Some(RawFrame { kind, flags, stream: u32::from_be_bytes([d & 0x7f, e, f, g]), payload })
    }
}

impl RawFrame {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    fn settings(&self) -> Vec<(u16, u32)> {
        let pair = |six: &[u8]| {
            (u16::from_be_bytes([six[0], six[1]]), u32::from_be_bytes([six[2], six[3], six[4], six[5]]))
        };
        self.payload.chunks_exact(6).map(pair).collect()
    }
}

impl FarEnd {
    /// Of a server, or a client.
    pub(super) fn of(server: bool) -> Self {
        let preface =
            |there: bool| Frames { preface: if there { PREFACE.len() } else { 0 }, bytes: Vec::new() };
        Self {
            server,
            told: preface(server),
            data: None,
            heard: preface(!server),
            unacknowledged: VecDeque::new(),
            pings: VecDeque::new(),
            initial_window: WINDOW,
            max_frame: 16_384,
            has_settings: false,
            decoder: Decoder::new(),
            block: None,
            failed: None,
            last: u32::MAX,
            whole: Half::default(),
            streams: BTreeMap::new(),
        }
    }

    /// These bytes are sent to the side under test.
    pub(super) fn tell(&mut self, bytes: &[u8]) {
        self.told.bytes.extend_from_slice(bytes);
        while self.tell_data() {}
        while self.data.is_none()
            && let Some(frame) = self.told.next()
        {
            match frame.kind {
                kind::SETTINGS if !frame.has(flag::ACK) => self.unacknowledged.push_back(frame.settings()),
                kind::PING if !frame.has(flag::ACK) => {
                    self.pings.extend(<[u8; 8]>::try_from(&frame.payload[..]).ok());
                }
                kind::WINDOW_UPDATE if frame.payload.len() == 4 => {
                    let more = i64::from(frame.word(0) & 0x7fff_ffff);
                    self.half(frame.stream).may_send += more;
                }
                kind::RST_STREAM => self.streams.entry(frame.stream).or_default().was_reset = true,
                kind::HEADERS => {
                    let half = self.streams.entry(frame.stream).or_default();
                    half.asked = true;
                    half.whole |= frame.has(flag::END_STREAM);
                }
                _ => {}
            }
            while self.tell_data() {}
        }
    }

    /// A DATA frame begins, or comes further: it need not be whole.
    fn tell_data(&mut self) -> bool {
        let there = self.told.start();
        if let Some(Data { stream, payload, padding, counts }) = &mut self.data {
            let n = there.len().min(*payload);
            if *counts {
                self.streams.entry(*stream).or_default().content.extend_from_slice(&there[..n]);
            }
            let behind = (there.len() - n).min(*padding);
            *payload -= n;
            *padding -= behind;
            let done = *payload + *padding == 0;
            self.told.bytes.drain(..n + behind);
            if done {
                self.data = None;
            }
            return done;
        }
        let &[a, b, c, kind::DATA, flags, d, e, f, g, ref rest @ ..] = there else { return false };
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        let padded = usize::from(flags & flag::PADDED != 0);
        let padding = match rest.first() {
            Some(padding) if padded == 1 && len > 0 => usize::from(*padding),
            None if padded == 1 && len > 0 => return false,
            _ => 0,
        };
        let stream = u32::from_be_bytes([d & 0x7f, e, f, g]);
        let prefix = padded.min(len);
        self.told.bytes.drain(..9 + prefix);
        self.whole.counted += len as i64;
        let half = self.streams.entry(stream).or_default();
        half.counted += len as i64;
        let counts = !half.whole;
        half.whole |= flags & flag::END_STREAM != 0;
        let padding = padding.min(len - prefix);
        self.data = Some(Data { stream, payload: len - prefix - padding, padding, counts });
        true
    }

    fn half(&mut self, stream: u32) -> &mut Half {
        if stream == 0 { &mut self.whole } else { self.streams.entry(stream).or_default() }
    }

    /// The side under test has sent these bytes.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        if self.heard.preface > 0 {
            let from = PREFACE.len() - self.heard.preface;
            let n = bytes.len().min(PREFACE.len() - from);
            assert_eq!(bytes[..n], PREFACE[from..from + n], "what a client begins with");
        }
        self.heard.bytes.extend_from_slice(bytes);
        while let Some(frame) = self.heard.next() {
            assert_eq!(self.failed, None, "a frame behind the last GOAWAY");
            assert!(frame.payload.len() <= self.max_frame, "a frame of {} bytes", frame.payload.len());
            assert!(self.has_settings || frame.kind == kind::SETTINGS, "SETTINGS come first");
            let continues = frame.kind == kind::CONTINUATION;
            assert_eq!(continues, self.block.is_some(), "blocks are one piece");
            self.frame(&frame);
        }
    }

    fn frame(&mut self, frame: &RawFrame) {
        let RawFrame { kind, stream, payload, .. } = frame;
        match *kind {
            kind::DATA => self.data(frame),
            kind::HEADERS => {
                assert!(!frame.has(flag::PADDED | flag::PRIORITY));
                self.part(*stream, frame.has(flag::END_STREAM), payload, frame.has(flag::END_HEADERS));
            }
            kind::CONTINUATION => {
                let (of, end_stream, mut block) = self.block.take().expect("a block");
                assert_eq!(of, *stream);
                block.extend_from_slice(payload);
                self.part(of, end_stream, &block, frame.has(flag::END_HEADERS));
            }
            kind::RST_STREAM => {
                assert_eq!(payload.len(), 4);
                let server = self.server;
                let half = self.streams.get_mut(stream).filter(|half| half.is_open(server));
                half.expect("no stream that nobody opened is reset").reset = true;
            }
            kind::SETTINGS if frame.has(flag::ACK) => {
                assert!(payload.is_empty());
                let settings = self.unacknowledged.pop_front().expect("SETTINGS to acknowledge");
                self.acknowledged(&settings);
            }
            kind::SETTINGS => {
                assert!(!std::mem::replace(&mut self.has_settings, true), "it has one set of SETTINGS");
                assert!(*stream == 0 && payload.len() % 6 == 0);
            }
            kind::PING if frame.has(flag::ACK) => {
                assert_eq!(self.pings.pop_front().expect("a PING to answer"), payload[..]);
            }
            kind::PING => assert_eq!(payload.len(), 8),
            kind::GOAWAY => {
                let (last, reason) = (frame.word(0), frame.word(4));
                assert!(last <= self.last, "the last stream only becomes less");
                self.last = last;
                self.failed = (reason != 0).then_some(reason);
            }
            kind::WINDOW_UPDATE => self.window_update(*stream, frame.word(0)),
            other => panic!("a frame of type {other}"),
        }
    }

    fn acknowledged(&mut self, settings: &[(u16, u32)]) {
        for (id, value) in settings {
            match *id {
                id::INITIAL_WINDOW_SIZE => self.initial_window = i64::from(*value),
                id::MAX_FRAME_SIZE => self.max_frame = *value as usize,
                id::HEADER_TABLE_SIZE => self.decoder.set_allowed(*value),
                _ => {}
            }
        }
    }

    fn data(&mut self, frame: &RawFrame) {
        let len = frame.payload.len() as i64;
        assert!(!frame.has(flag::PADDED));
        self.whole.sent += len;
        assert!(len == 0 || self.whole.sent <= WINDOW + self.whole.may_send, "the connection's window");
        let first = self.initial_window;
        let half = self.streams.get_mut(&frame.stream).expect("DATA on a stream that nobody opened");
        assert!(half.head && !half.ended && !half.reset, "DATA on {}: {half:?}", frame.stream);
        half.sent += len;
        assert!(len == 0 || half.sent <= first + half.may_send, "the window of {}", frame.stream);
        half.ended = frame.has(flag::END_STREAM);
    }

    fn window_update(&mut self, stream: u32, more: u32) {
        assert!(more > 0 && i64::from(more) <= MAX_WINDOW);
        let server = self.server;
        let half = self.half(stream);
        half.may_receive += i64::from(more);
        // Ours is at most as large as the first window that a test gives.
        assert!(half.credit(1 << 20) <= MAX_WINDOW);
        assert!(stream == 0 || !half.reset, "more of a stream that it has reset");
        assert!(stream == 0 || half.is_open(server), "more of a stream that nobody opened");
    }

    /// A part of a field block, or all of it.
    fn part(&mut self, stream: u32, end_stream: bool, block: &[u8], end_headers: bool) {
        if !end_headers {
            self.block = Some((stream, end_stream, block.to_vec()));
            return;
        }
        let mut fields = FieldBlock::new();
        assert_eq!(self.decoder.decode(block, &WIDE, &mut fields), Ok(Fit::Whole), "what we encode");
        let has = |pseudo: Pseudo| fields.iter().any(|field| field.pseudo == Some(pseudo));
        let behind = fields.iter().skip_while(|field| field.pseudo.is_some());
        assert!(behind.into_iter().all(|field| field.pseudo.is_none()), "pseudo-header fields come first");
        assert!(fields.iter().all(|field| field.good_name && field.good_value));
        let specific = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
        assert!(fields.iter().all(|field| !specific.iter().any(|name| name.as_bytes() == field.name)));
        let (server, last) = (self.server, self.last);
        let newer = self.streams.range(stream + 1..).any(|(_, half)| half.head);
        let half = self.streams.entry(stream).or_default();
        assert!(!half.ended && !half.reset, "a head on {stream}: {half:?}");
        if server {
            assert!(stream % 2 == 1 && half.asked && stream <= last, "a head on {stream}: {half:?}");
        } else {
            assert!(stream % 2 == 1 && (half.head || !newer), "streams are opened in order");
        }
        let interim = fields.iter().any(|f| f.pseudo == Some(Pseudo::Status) && f.value.starts_with(b"1"));
        if half.head {
            assert!(end_stream && fields.iter().all(|field| field.pseudo.is_none()), "trailers");
        } else {
            assert!(if server { has(Pseudo::Status) } else { has(Pseudo::Method) });
            assert!(!(interim && end_stream), "an interim response ends nothing");
            half.head = !interim;
        }
        half.ended = end_stream;
    }

    /// What was asked of it is answered, as it has read everything.
    pub(super) fn assert_answered(&self) {
        assert!(self.unacknowledged.is_empty(), "SETTINGS that are not acknowledged");
        assert!(self.pings.is_empty(), "PINGs that are not answered");
        assert!(self.heard.bytes.is_empty() && self.block.is_none(), "a frame that does not end");
    }
}

/// Type and stream of each frame but those that update windows.
pub(super) fn kinds(bytes: &[u8]) -> Vec<(u8, u32)> {
    let mut frames = Frames { preface: 0, bytes: bytes.to_vec() };
    let all = std::iter::from_fn(|| frames.next());
    all.filter(|frame| frame.kind != kind::WINDOW_UPDATE).map(|frame| (frame.kind, frame.stream)).collect()
}
