//! Bodies in pieces of any length, with flushes between them, through room of any length.

use std::io::Read;

use proptest::prelude::*;
use zstd::zstd_safe::CCtx;

use super::*;

fn body_of(
    coding: ContentCoding,
    level: Option<u8>,
    len: Option<u64>,
    encoders: &Arc<Encoders>,
) -> CompressBody {
    CompressBody::new(encoders.lend(Kind::new(coding, level, len), len).expect("memory"), coding)
}

/// What a decoder makes of it, and whether it came to the end of the format.
fn decode(coding: ContentCoding, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut decoder: Box<dyn Read + '_> = match coding {
        ContentCoding::Br => Box::new(brotli::Decompressor::new(bytes, 4096)),
        ContentCoding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).expect("a decoder")),
        ContentCoding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        ContentCoding::Deflate => Box::new(flate2::read::ZlibDecoder::new(bytes)),
    };
    let (mut decoded, mut room) = (Vec::new(), [0; 1000]);
    loop {
        match decoder.read(&mut room) {
            Ok(0) => return (decoded, true),
            Ok(n) => decoded.extend_from_slice(&room[..n]),
            Err(_) => return (decoded, false),
        }
    }
}

/// Gives a body to a transform in pieces, as a pipe does.
struct Feed {
    body: CompressBody,
    out: Vec<u8>,
    rooms: Vec<usize>,
    turn: usize,
}

impl Feed {
    fn new(body: CompressBody, rooms: &[usize]) -> Self {
        Self { body, out: Vec::new(), rooms: rooms.to_vec(), turn: 0 }
    }

    fn room(&mut self) -> Vec<u8> {
        self.turn += 1;
        vec![0; self.rooms[self.turn % self.rooms.len()]]
    }

    fn give(&mut self, mut input: &[u8], ended: bool) {
        loop {
            let mut room = self.room();
            let progress = self.body.run(input, &mut room, ended).expect("it compresses");
            assert!(!progress.done || ended);
            self.out.extend_from_slice(&room[..progress.put]);
            input = &input[progress.taken..];
            if progress.done || (!ended && progress.taken == 0 && progress.put == 0) {
                assert!(input.is_empty());
                return;
            }
        }
    }

    /// `some`: only as often, so that the rest of it comes with the next input.
    fn flush(&mut self, some: usize) {
        for _ in 0..some {
            let mut room = self.room();
            let put = self.body.flush(&mut room).expect("it flushes");
            self.out.extend_from_slice(&room[..put]);
            if put == 0 {
                return;
            }
        }
    }
}

fn codings() -> impl Strategy<Value = ContentCoding> {
    prop::sample::select(ContentCoding::ALL.to_vec())
}

/// Pieces of text, of noise, and of one letter.
fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(prop::sample::select(b"{\"name\": 1}\n".to_vec()), 0..3000),
        (any::<u8>(), 0..20_000_usize).prop_map(|(b, n)| vec![b; n]),
    ];
    prop::collection::vec(piece, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn what_is_flushed_can_be_decoded_and_the_whole_is_what_was_put_in(
        coding in codings(),
        // Brotli's tables are large above 4: a few tests are enough.
        level in prop::option::of(prop_oneof![19 => 1_u8..=4, 1 => 5_u8..=9]),
        pieces in pieces(),
        rooms in prop_oneof![
            4 => prop::collection::vec(1_usize..2000, 1..6),
            1 => prop::collection::vec(1_usize..40, 1..3),
        ],
        says_its_length in any::<bool>(),
        flushes in prop::collection::vec(prop::sample::select(vec![0, 1, 2, usize::MAX]), 8),
    ) {
        let encoders = Arc::new(Encoders::default());
        let whole = pieces.concat();
        let len = says_its_length.then_some(whole.len() as u64);
        // The second one is an encoder that has been used before, and was left in the middle of a body.
        for _ in 0..2 {
            let mut feed = Feed::new(body_of(coding, level, len, &encoders), &rooms);
            let mut given = 0;
            for (piece, flush) in pieces.iter().zip(&flushes) {
                feed.give(piece, false);
                given += piece.len();
                feed.flush(*flush);
                if *flush == usize::MAX {
                    prop_assert_eq!(&decode(coding, &feed.out).0, &whole[..given]);
                    let before = feed.out.len();
                    feed.flush(9);
                    prop_assert_eq!(feed.out.len(), before, "there is nothing more to flush");
                }
            }
            feed.give(b"", true);
            prop_assert!(decode(coding, &feed.out) == (whole.clone(), true));
            let counter = feed.body.counter();
            let (original, compressed) = (whole.len() as u64, feed.out.len() as u64);
            let counted = Counter::Compressed { encoding: coding.name(), original, compressed };
            prop_assert_eq!(counter, Some(counted));
            let mut left = Feed::new(body_of(coding, level, None, &encoders), &rooms);
            left.give(&whole, false);
            left.flush(1);
        }
    }
}

/// What the encoders make to end a flush is some bytes long: room for fewer must not have it made again.
#[test]
fn a_flush_ends_in_room_of_any_length() {
    let content = b"data: 1\n\n".repeat(3);
    for (coding, room) in ContentCoding::ALL.into_iter().flat_map(|coding| (1..=70).map(move |n| (coding, n)))
    {
        let encoders = Arc::new(Encoders::default());
        let mut feed = Feed::new(body_of(coding, None, None, &encoders), &[room]);
        let mut given = 0;
        for _ in 0..3 {
            feed.give(&content, false);
            given += 1;
            let before = feed.out.len();
            feed.flush(100);
            assert!(feed.out.len() - before < 60, "{coding:?}, room for {room}");
            assert_eq!(decode(coding, &feed.out).0, content.repeat(given), "{coding:?}, room for {room}");
        }
    }
}

/// At level 1 zlib-rs loses bytes where output has to wait for room.
#[test]
fn level_1_of_gzip_and_deflate_means_2() {
    for coding in [ContentCoding::Gzip, ContentCoding::Deflate] {
        let [one, two, three] = [1, 2, 3].map(|level| Kind::new(coding, Some(level), None));
        assert!(one == two && two != three, "{coding:?}");
    }
    for coding in [ContentCoding::Br, ContentCoding::Zstd] {
        assert_ne!(Kind::new(coding, Some(1), None), Kind::new(coding, Some(2), None));
    }
}

/// zstd says itself how much it uses; a test with a counting allocator measures the others.
#[test]
fn zstd_uses_no_more_memory_than_is_counted_and_its_windows_fit_every_client() {
    let mut state = 1_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as u8 & 0x3f
    };
    let body: Vec<u8> = (0..3 << 20).map(|_| noise()).collect();
    for level in 1..=9 {
        let kind = Kind::new(ContentCoding::Zstd, Some(level), None);
        let mut zstd: CCtx<'static> = encoder::zstd(kind).expect("an encoder");
        let mut room = vec![0; 17_000];
        let (mut given, mut window) = (0, None);
        while given < body.len() {
            let piece = &body[given..body.len().min(given + 60_000)];
            let encoded =
                encoder::run_zstd(&mut zstd, piece, &mut room, Operation::Process).expect("it works");
            given += encoded.taken;
            if window.is_none() && encoded.put > 6 {
                // RFC 8878 §3.1.1: no single segment, so the window's descriptor follows.
                assert!(room[..4] == [0x28, 0xb5, 0x2f, 0xfd] && room[4] & 0x20 == 0);
                window = Some(1_u64 << (10 + (room[5] >> 3)));
            }
        }
        assert!(window.is_some_and(|window| window <= 8 << 20), "{window:?}");
        let (used, counted) = (zstd.sizeof() as u64, kind.bytes());
        assert!(used <= counted, "level {level}: {used} of {counted}");
    }
}
