//! Frames (RFC 9113 §4 and §6): what is read of bytes, whole, byte by byte and split at every byte; what is
//! written; and that every size, stream and padding that a frame may not have is refused.

use proptest::prelude::*;
use ruststrom_core::h2::frame::{Frame, FrameHeader, FrameReader, MAX_STREAM, PREFACE, flag, kind};
use ruststrom_core::h2::settings::{PeerSettings, id};
use ruststrom_core::h2::{Reason, write};

const MAX: u32 = 16_384;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { len: payload.len() as u32, kind, flags, stream };
    [&header.bytes(), payload].concat()
}

/// What was read, as text; pieces of DATA that follow each other are joined.
fn read(bytes: &[u8], cuts: &[usize]) -> (Vec<String>, Option<Reason>) {
    let (mut reader, mut held, mut at) = (FrameReader::client(MAX), Vec::new(), 0);
    let (mut seen, mut data): (Vec<String>, Option<(u32, Vec<u8>)>) = (Vec::new(), None);
    for &cut in cuts.iter().chain([&bytes.len()]) {
        held.extend_from_slice(&bytes[at..cut]);
        at = cut;
        loop {
            let (n, frame) = match reader.next(&held) {
                Ok(read) => read,
                Err(reason) => return (seen, Some(reason)),
            };
            match frame {
                Some(Frame::Data { stream, bytes, end_stream }) => {
                    let joined = data.get_or_insert_with(|| (stream, Vec::new()));
                    joined.1.extend_from_slice(bytes);
                    if end_stream {
                        seen.push(format!("{:?} ends", data.take()));
                    }
                }
                Some(frame) => {
                    seen.extend(data.take().map(|data| format!("{data:?}")));
                    seen.push(format!("{frame:?}"));
                }
                None if n == 0 => break,
                None => {}
            }
            held.drain(..n);
        }
    }
    seen.extend(data.map(|data| format!("{data:?}")));
    (seen, None)
}

fn read_in_every_way(bytes: &[u8]) -> (Vec<String>, Option<Reason>) {
    let whole = read(bytes, &[]);
    assert_eq!(read(bytes, &(1..bytes.len()).collect::<Vec<_>>()), whole, "byte by byte");
    for cut in 1..bytes.len() {
        assert_eq!(read(bytes, &[cut]), whole, "cut at {cut}");
    }
    whole
}

#[test]
fn frames_are_read() {
    let priority = [0x80, 0, 0, 5, 16];
    let table: &[(Vec<u8>, &[&str])] = &[
        (
            frame(kind::DATA, 0, 1, b"abc"),
            &["DataBegins { stream: 1, counts: 3, padding: 0, end_stream: false }", "(1, [97, 98, 99])"],
        ),
        (
            frame(kind::DATA, flag::PADDED | flag::END_STREAM, 3, b"\x02a\0\0"),
            &["DataBegins { stream: 3, counts: 4, padding: 3, end_stream: true }", "Some((3, [97])) ends"],
        ),
        (
            frame(kind::DATA, flag::END_STREAM, MAX_STREAM, b""),
            &[
                "DataBegins { stream: 2147483647, counts: 0, padding: 0, end_stream: true }",
                "Some((2147483647, [])) ends",
            ],
        ),
        (
            [
                frame(
                    kind::HEADERS,
                    flag::PADDED | flag::PRIORITY,
                    5,
                    &[&[1][..], &priority, b"x\0"].concat(),
                ),
                frame(kind::CONTINUATION, 0, 5, b"y"),
                frame(kind::CONTINUATION, flag::END_HEADERS, 5, b""),
            ]
            .concat(),
            &[
                "Headers { stream: 5, block: [120], end_headers: false, end_stream: false, \
                 depends_on_itself: true }",
                "Continuation { stream: 5, block: [121], end_headers: false }",
                "Continuation { stream: 5, block: [], end_headers: true }",
            ],
        ),
        (frame(kind::PRIORITY, 0, 3, &priority), &["Priority { stream: 3, depends_on_itself: false }"]),
        (frame(kind::PRIORITY, 0, 5, &priority), &["Priority { stream: 5, depends_on_itself: true }"]),
        (frame(kind::PRIORITY, 0, 5, b"four"), &["StreamError { stream: 5, reason: FRAME_SIZE_ERROR }"]),
        (frame(kind::RST_STREAM, 0xff, 5, &[0, 0, 0, 8]), &["Reset { stream: 5, reason: CANCEL }"]),
        (frame(kind::RST_STREAM, 0, 5, &[1, 0, 0, 8]), &["Reset { stream: 5, reason: 0x1000008 }"]),
        (frame(kind::SETTINGS, 0, 0, b""), &["Settings(Settings([]))"]),
        (frame(kind::SETTINGS, flag::ACK, 0, b""), &["SettingsAck"]),
        (frame(kind::PING, 0, 0, &[7; 8]), &["Ping { ack: false, data: [7, 7, 7, 7, 7, 7, 7, 7] }"]),
        (
            frame(kind::GOAWAY, 0, 0, b"\xff\xff\xff\xff\0\0\0\x0bwhy"),
            &["GoAway { last_stream: 2147483647, reason: ENHANCE_YOUR_CALM }"],
        ),
        (frame(kind::WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 0]), &["WindowUpdate { stream: 0, increment: 0 }"]),
        (
            frame(kind::PRIORITY_UPDATE, 0, 0, b"\0\0\0\x05u=1"),
            &["PriorityUpdate { stream: 5, value: [117, 61, 49] }"],
        ),
        (
            [frame(0xfa, 0xff, 7, b"whatever"), frame(kind::SETTINGS, 1, 0, b"")].concat(),
            &["Unknown", "SettingsAck"],
        ),
    ];
    for (bytes, expected) in table {
        let (seen, error) = read_in_every_way(bytes);
        assert_eq!((seen, error), (expected.iter().map(|e| (*e).to_owned()).collect(), None));
    }
}

#[test]
fn what_is_no_frame_is_refused() {
    let (protocol, size) = (Reason::PROTOCOL_ERROR, Reason::FRAME_SIZE_ERROR);
    let headers = frame(kind::HEADERS, 0, 1, b"x");
    let interrupted = |by: Vec<u8>| [headers.clone(), by].concat();
    let table = [
        (frame(kind::DATA, 0, 0, b"x"), protocol),
        (frame(kind::DATA, flag::PADDED, 1, b""), size),
        (frame(kind::DATA, flag::PADDED, 1, b"\x01"), protocol),
        (frame(kind::DATA, flag::PADDED, 1, b"\x03ab"), protocol),
        (frame(kind::HEADERS, flag::END_HEADERS, 0, b"x"), protocol),
        (frame(kind::HEADERS, flag::PADDED, 1, b""), size),
        (frame(kind::HEADERS, flag::PADDED, 1, b"\x01"), protocol),
        (frame(kind::HEADERS, flag::PRIORITY, 1, b"four"), size),
        (frame(kind::HEADERS, flag::PRIORITY | flag::PADDED, 1, b"\x01fours"), protocol),
        (frame(kind::PRIORITY, 0, 0, b"fives"), protocol),
        (frame(kind::RST_STREAM, 0, 0, &[0; 4]), protocol),
        (frame(kind::RST_STREAM, 0, 1, &[0; 3]), size),
        (frame(kind::RST_STREAM, 0, 1, &[0; 5]), size),
        (frame(kind::SETTINGS, 0, 1, b""), protocol),
        (frame(kind::SETTINGS, 0, 0, b"seven b"), size),
        (frame(kind::SETTINGS, flag::ACK, 0, b"six by"), size),
        (frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, b"\0\0\0\x02x"), protocol),
        (frame(kind::PING, 0, 1, &[0; 8]), protocol),
        (frame(kind::PING, 0, 0, &[0; 7]), size),
        (frame(kind::PING, flag::ACK, 0, &[0; 9]), size),
        (frame(kind::GOAWAY, 0, 1, &[0; 8]), protocol),
        (frame(kind::GOAWAY, 0, 0, &[0; 7]), size),
        (frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]), size),
        (frame(kind::WINDOW_UPDATE, 0, 1, &[0; 5]), size),
        (frame(kind::CONTINUATION, flag::END_HEADERS, 1, b"x"), protocol),
        (frame(kind::PRIORITY_UPDATE, 0, 1, b"\0\0\0\x01"), protocol),
        (frame(kind::PRIORITY_UPDATE, 0, 0, b"\0\0\0\0u=1"), protocol),
        (frame(kind::PRIORITY_UPDATE, 0, 0, b"\0\0\0"), size),
        (frame(kind::DATA, 0, 1, &vec![0; MAX as usize + 1]), size),
        (interrupted(frame(kind::CONTINUATION, 0, 3, b"x")), protocol),
        (interrupted(frame(kind::HEADERS, flag::END_HEADERS, 1, b"x")), protocol),
        (interrupted(frame(kind::DATA, 0, 1, b"x")), protocol),
        (interrupted(frame(kind::PING, 0, 0, &[0; 8])), protocol),
        (interrupted(frame(0xfa, 0, 1, b"x")), protocol),
        (interrupted(frame(kind::PRIORITY, 0, 1, b"fives")), protocol),
    ];
    for (bytes, expected) in table {
        let shown = bytes[..bytes.len().min(40)].escape_ascii().to_string();
        let error = if bytes.len() > 100 { read(&bytes, &[]).1 } else { read_in_every_way(&bytes).1 };
        assert_eq!(error, Some(expected), "{shown}");
        // The first bytes of a frame tell: nobody has to send the rest of one that is too large.
        if bytes.len() > 100 {
            assert_eq!(read(&bytes[..9], &[]).1, Some(expected));
        }
    }
}

#[test]
fn the_preface_comes_first() {
    let good = [&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b"")].concat();
    for cut in 0..good.len() {
        let mut reader = FrameReader::server(MAX);
        let mut at = 0;
        for end in [cut, good.len()] {
            while let Ok((n, frame)) = reader.next(&good[at..end])
                && (n > 0 || frame.is_some())
            {
                at += n;
            }
        }
        assert!(at == good.len() && reader.is_between_frames(), "cut at {cut}");
    }
    for wrong in 0..PREFACE.len() {
        let mut bytes = *PREFACE;
        bytes[wrong] ^= 1;
        assert_eq!(FrameReader::server(MAX).next(&bytes), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(FrameReader::server(MAX).next(&bytes[..=wrong]), Err(Reason::PROTOCOL_ERROR));
    }
}

#[test]
fn settings_and_what_they_may_be() {
    let apply = |id, value, server| PeerSettings::default().apply(id, value, server);
    let (protocol, flow) = (Err(Reason::PROTOCOL_ERROR), Err(Reason::FLOW_CONTROL_ERROR));
    let table = [
        (id::ENABLE_PUSH, 1, false, Ok(())),
        (id::ENABLE_PUSH, 1, true, protocol),
        (id::ENABLE_PUSH, 0, true, Ok(())),
        (id::ENABLE_PUSH, 2, false, protocol),
        (id::INITIAL_WINDOW_SIZE, u32::MAX >> 1, true, Ok(())),
        (id::INITIAL_WINDOW_SIZE, 1 << 31, true, flow),
        (id::MAX_FRAME_SIZE, 16_383, true, protocol),
        (id::MAX_FRAME_SIZE, 16_384, true, Ok(())),
        (id::MAX_FRAME_SIZE, (1 << 24) - 1, true, Ok(())),
        (id::MAX_FRAME_SIZE, 1 << 24, true, protocol),
        (id::ENABLE_CONNECT_PROTOCOL, 2, true, protocol),
        (id::NO_RFC7540_PRIORITIES, 2, true, protocol),
        (id::HEADER_TABLE_SIZE, u32::MAX, true, Ok(())),
        (0x7, u32::MAX, true, Ok(())),
        (0xffff, u32::MAX, true, Ok(())),
    ];
    for (id, value, server, expected) in table {
        assert_eq!(apply(id, value, server), expected, "{id:x} {value}");
    }
    let mut settings = PeerSettings::default();
    assert_eq!(settings.apply(id::ENABLE_CONNECT_PROTOCOL, 1, true), Ok(()));
    assert_eq!(settings.apply(id::ENABLE_CONNECT_PROTOCOL, 0, true), protocol, "it can't be taken back");
}

proptest! {
    // What is written is read as it was meant.
    #[test]
    fn written_frames_are_read(
        stream in 1..=MAX_STREAM,
        number: u32,
        data: [u8; 8],
        len in 0..60_000_usize,
        max in 16_384..30_000_u32,
        end: bool,
    ) {
        let mut out = Vec::new();
        write::settings(&mut out, &[(3, number), (5, 77)]);
        write::settings_ack(&mut out);
        write::ping(&mut out, end, data);
        write::go_away(&mut out, stream, Reason(number));
        write::reset(&mut out, stream, Reason(number));
        write::window_update(&mut out, stream, stream);
        write::data_header(&mut out, stream, 3, end);
        out.extend_from_slice(b"abc");
        let start = out.len();
        let block: Vec<u8> = (0..len).map(|n| (n ^ n >> 7) as u8).collect();
        out.extend_from_slice(&[0; 9]);
        out.extend_from_slice(&block);
        write::finish_headers(&mut out, start, stream, end, max);

        let (mut reader, mut at, mut joined, mut frames) = (FrameReader::client(max), 0, Vec::new(), 0);
        while let (n, Some(frame)) = reader.next(&out[at..]).expect("good frames") {
            at += n;
            frames += 1;
            match frame {
                Frame::Settings(settings) => {
                    prop_assert_eq!(settings.iter().collect::<Vec<_>>(), vec![(3, number), (5, 77)]);
                }
                Frame::Ping { ack, data: read } => prop_assert_eq!((ack, read), (end, data)),
                Frame::GoAway { last_stream, reason } => {
                    prop_assert_eq!((last_stream, reason), (stream, Reason(number)));
                }
                Frame::Reset { stream: of, reason } => {
                    prop_assert_eq!((of, reason), (stream, Reason(number)));
                }
                Frame::WindowUpdate { stream: of, increment } => {
                    prop_assert_eq!((of, increment), (stream, stream));
                }
                Frame::DataBegins { counts, padding, end_stream, .. } => {
                    prop_assert_eq!((counts, padding, end_stream), (3, 0, end));
                }
                Frame::Data { bytes, end_stream, .. } => {
                    prop_assert_eq!((bytes, end_stream), (&b"abc"[..], end));
                }
                Frame::Headers { block, end_stream, end_headers, .. } => {
                    prop_assert_eq!((end_stream, end_headers), (end, len <= max as usize));
                    joined.extend_from_slice(block);
                }
                Frame::Continuation { block, .. } => joined.extend_from_slice(block),
                other => prop_assert!(matches!(other, Frame::SettingsAck), "{other:?}"),
            }
        }
        prop_assert!(reader.is_between_frames());
        prop_assert_eq!((at, joined == block), (out.len(), true));
        prop_assert_eq!(frames, 8 + len.div_ceil(max as usize).max(1));
    }
}
