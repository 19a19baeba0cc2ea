//! Frames of any bytes: at any cut the same as whole and the same as the RFC has them, read a second time the
//! simple way; no byte of the input read twice, and no more calls than there are bytes and frames.

use ruststrom_core::h2::Reason;
use ruststrom_core::h2::frame::{Frame, FrameReader, PREFACE, flag, kind};

use super::input::{Input, cuts};

const MAX: u32 = 16_384;

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let (seed, server) = (input.byte(), input.byte() & 1 == 1);
    let bytes = &input.0[..input.0.len().min(8192)];
    let whole = read(bytes, server, &[bytes.len()]);
    for cuts in [cuts(seed, bytes.len()), cuts(1, bytes.len().min(600))] {
        let cut = read(&bytes[..cuts.last().copied().unwrap_or(0)], server, &cuts);
        if cuts.last() == Some(&bytes.len()) {
            assert_eq!(cut, whole);
        } else {
            assert!(whole.frames.starts_with(&cut.frames) && whole.data.starts_with(&cut.data));
        }
    }
    assert_eq!(naive(bytes, server), whole);
}

/// What was read: frames, the payload of DATA joined, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    frames: Vec<String>,
    data: Vec<u8>,
    end: Option<Reason>,
}

fn read(bytes: &[u8], server: bool, cuts: &[usize]) -> Seen {
    let mut reader = if server { FrameReader::server(MAX) } else { FrameReader::client(MAX) };
    let (mut seen, mut at, mut due, mut calls) = (Seen::default(), 0, 0_i64, 0);
    for &cut in cuts {
        loop {
            calls += 1;
            let (n, frame) = match reader.next(&bytes[at..cut]) {
                Ok(read) => read,
                Err(reason) => return Seen { end: Some(reason), ..seen },
            };
            assert!(at + n <= cut);
            match frame {
                Some(Frame::Data { bytes: piece, end_stream, .. }) => {
                    seen.data.extend_from_slice(piece);
                    due -= piece.len() as i64;
                    assert!(due >= 0, "more payload than the frame has");
                    if end_stream {
                        assert_eq!(due, 0);
                        seen.frames.push("end".to_owned());
                    }
                }
                Some(frame) => {
                    if let Frame::DataBegins { counts, padding, .. } = frame {
                        due = i64::from(counts) - i64::from(padding);
                    }
                    seen.frames.push(format!("{frame:?}"));
                }
                None if n == 0 => break,
                None => {}
            }
            at += n;
        }
    }
    // Each call reads something but the last one of a cut, and those that end a DATA frame without payload.
    assert!(calls <= bytes.len() + 2 * cuts.len() + seen.frames.len() + 1, "{calls} calls");
    seen
}

/// RFC 9113 §4 and §6, without states: what the whole input holds.
fn naive(bytes: &[u8], server: bool) -> Seen {
    let mut seen = Seen::default();
    let mut rest = bytes;
    if server {
        let n = rest.len().min(PREFACE.len());
        if rest[..n] != PREFACE[..n] {
            return Seen { end: Some(Reason::PROTOCOL_ERROR), ..seen };
        }
        rest = &rest[n..];
    }
    let mut block_of = None;
    while rest.len() >= 9 {
        let len = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let (kind, flags) = (rest[3], rest[4]);
        let stream = u32::from_be_bytes([rest[5] & 0x7f, rest[6], rest[7], rest[8]]);
        let there = &rest[9..rest.len().min(9 + len)];
        let frame = match refused(kind, flags, stream, len, block_of) {
            Some(reason) => Err(reason),
            None if kind == kind::DATA => match data(flags, stream, len, there, &mut seen) {
                None => return seen,
                Some(frame) => frame,
            },
            None if kind > kind::CONTINUATION && kind != kind::PRIORITY_UPDATE => Ok("Unknown".to_owned()),
            None if there.len() < len => return seen,
            None => frame(kind, flags, stream, there),
        };
        match frame {
            Err(reason) => return Seen { end: Some(reason), ..seen },
            Ok(frame) if kind != kind::DATA => seen.frames.push(frame),
            Ok(_) => {}
        }
        if kind == kind::HEADERS || kind == kind::CONTINUATION {
            block_of = (flags & flag::END_HEADERS == 0).then_some(stream);
        }
        rest = &rest[9 + there.len()..];
    }
    seen
}

/// What the header alone shows to be wrong.
fn refused(kind: u8, flags: u8, stream: u32, len: usize, block_of: Option<u32>) -> Option<Reason> {
    let continues = kind == kind::CONTINUATION;
    if continues != block_of.is_some() || (continues && block_of != Some(stream)) {
        return Some(Reason::PROTOCOL_ERROR);
    }
    if len > MAX as usize {
        return Some(Reason::FRAME_SIZE_ERROR);
    }
    let sized = match kind {
        // Which sort of stream each is about; `None`: either.
        kind::DATA | kind::HEADERS | kind::PRIORITY if stream == 0 => return Some(Reason::PROTOCOL_ERROR),
        kind::PUSH_PROMISE => return Some(Reason::PROTOCOL_ERROR),
        kind::RST_STREAM if stream == 0 => return Some(Reason::PROTOCOL_ERROR),
        kind::SETTINGS | kind::PING | kind::GOAWAY | kind::PRIORITY_UPDATE if stream != 0 => {
            return Some(Reason::PROTOCOL_ERROR);
        }
        kind::RST_STREAM | kind::WINDOW_UPDATE => len == 4,
        kind::SETTINGS => len.is_multiple_of(6) && (flags & flag::ACK == 0 || len == 0),
        kind::PING => len == 8,
        kind::GOAWAY => len >= 8,
        kind::PRIORITY_UPDATE => len >= 4,
        _ => true,
    };
    (!sized).then_some(Reason::FRAME_SIZE_ERROR)
}

/// A DATA frame, of which `there` has come; nothing if that is not enough to know anything.
fn data(flags: u8, stream: u32, len: usize, there: &[u8], seen: &mut Seen) -> Option<Result<String, Reason>> {
    let end_stream = flags & flag::END_STREAM != 0;
    let padding = match (flags & flag::PADDED != 0, len, there) {
        (false, ..) => 0,
        (true, 0, _) => return Some(Err(Reason::FRAME_SIZE_ERROR)),
        (true, _, []) => return None,
        (true, _, [padding, ..]) => 1 + usize::from(*padding),
    };
    if padding > len {
        return Some(Err(Reason::PROTOCOL_ERROR));
    }
    let begins = Frame::DataBegins { stream, counts: len as u32, padding: padding as u32, end_stream };
    seen.frames.push(format!("{begins:?}"));
    let from = padding.min(1);
    let to = (from + len - padding).min(there.len());
    seen.data.extend_from_slice(&there[from..to]);
    if end_stream && to == from + len - padding {
        seen.frames.push("end".to_owned());
    }
    Some(Ok(String::new()))
}

/// A frame that is there whole and is no DATA.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<String, Reason> {
    let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
    let id = |at: usize| word(at) & 0x7fff_ffff;
    let ack = flags & flag::ACK != 0;
    let end_headers = flags & flag::END_HEADERS != 0;
    let frame = match kind {
        kind::HEADERS => {
            let (padded, has_priority) = (flags & flag::PADDED != 0, flags & flag::PRIORITY != 0);
            if padded && payload.is_empty() {
                return Err(Reason::FRAME_SIZE_ERROR);
            }
            let from = usize::from(padded) + if has_priority { 5 } else { 0 };
            let padding = if padded { usize::from(payload[0]) } else { 0 };
            if from + padding > payload.len() {
                return Err(if padded { Reason::PROTOCOL_ERROR } else { Reason::FRAME_SIZE_ERROR });
            }
            Frame::Headers {
                stream,
                block: &payload[from..payload.len() - padding],
                end_headers,
                end_stream: flags & flag::END_STREAM != 0,
                depends_on_itself: has_priority && id(usize::from(padded)) == stream,
            }
        }
        kind::CONTINUATION => Frame::Continuation { stream, block: payload, end_headers },
        kind::PRIORITY if payload.len() != 5 => {
            Frame::StreamError { stream, reason: Reason::FRAME_SIZE_ERROR }
        }
        kind::PRIORITY => Frame::Priority { stream, depends_on_itself: id(0) == stream },
        kind::RST_STREAM => Frame::Reset { stream, reason: Reason(word(0)) },
        kind::SETTINGS if ack => Frame::SettingsAck,
        kind::SETTINGS => Frame::Settings(ruststrom_core::h2::frame::Settings::new(payload)),
        kind::PING => Frame::Ping { ack, data: payload.try_into().expect("eight bytes") },
        kind::GOAWAY => Frame::GoAway { last_stream: id(0), reason: Reason(word(4)) },
        kind::WINDOW_UPDATE => Frame::WindowUpdate { stream, increment: id(0) },
        _ if id(0) == 0 => return Err(Reason::PROTOCOL_ERROR),
        _ => Frame::PriorityUpdate { stream: id(0), value: &payload[4..] },
    };
    Ok(format!("{frame:?}"))
}
