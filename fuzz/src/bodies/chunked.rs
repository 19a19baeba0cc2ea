//! The chunked coding: at any cut the same as whole, the same as the rules have it, and what is encoded again
//! decodes to the same.

use ruststrom_core::h1::{BodyProgress, BodyReader, ChunkEncoder};
use ruststrom_core::http::{Framing, Violation};

use super::input::{Input, cuts};
use super::naive;

struct Decoded {
    content: Vec<u8>,
    consumed: usize,
    state: BodyProgress,
}

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let (seed, sizes) = (input.byte(), input.byte());
    // What fills the extensions' budget is the business of a test of its own.
    let bytes = &input.0[..input.0.len().min(8192)];
    let whole = decode(bytes, &[bytes.len()]);
    let cut = decode(bytes, &cuts(seed, bytes.len()));
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => {
            assert_eq!(
                (&whole.content, whole.consumed, whole.state),
                (&cut.content, cut.consumed, cut.state)
            );
        }
        (Err(whole), Err(cut)) => assert_eq!(whole, cut),
        _ => panic!(
            "whole {:?}, cut {:?}",
            whole.as_ref().map(|d| d.consumed),
            cut.as_ref().map(|d| d.consumed)
        ),
    }
    let expected = naive::chunked(bytes);
    match (&whole, &expected) {
        (Ok(ours), Ok(Some((content, end)))) => {
            assert_eq!(&ours.content, content);
            // Nothing behind the last chunk's line but the empty line of a message without trailers is ours
            // to take.
            let empty = usize::from(bytes[*end..].starts_with(b"\r\n")) * 2;
            assert_eq!(ours.consumed, end + empty);
            assert_eq!(ours.state, if empty > 0 { BodyProgress::Done } else { BodyProgress::Trailers });
        }
        (Ok(ours), Ok(None)) => assert_eq!((ours.state, ours.consumed), (BodyProgress::More, bytes.len())),
        (Ok(ours), Err(())) => panic!("decoded {} bytes against the rules", ours.consumed),
        // A line that does not end may be wrong already.
        (Err(_), Err(()) | Ok(None)) => {}
        (Err(why), Ok(Some(_))) => panic!("{why:?} although the rules are kept"),
    }
    if let Ok(decoded) = whole {
        let wire = encode(&decoded.content, sizes);
        let again = decode(&wire, &cuts(seed, wire.len())).expect("what we encode");
        assert_eq!(
            (again.content, again.consumed, again.state),
            (decoded.content, wire.len(), BodyProgress::Done)
        );
    }
}

fn decode(bytes: &[u8], cuts: &[usize]) -> Result<Decoded, Violation> {
    let mut reader = BodyReader::new(Framing::Chunked);
    let (mut held, mut content, mut consumed, mut at) = (Vec::new(), Vec::new(), 0, 0);
    for &cut in cuts {
        held.extend_from_slice(&bytes[at..cut]);
        at = cut;
        let before = held.clone();
        let received = reader.receive(&mut held)?;
        assert!(received.payload <= received.consumed && received.consumed <= held.len());
        assert_eq!(held[received.consumed..], before[received.consumed..], "what follows is untouched");
        assert_eq!(received.state, reader.progress());
        content.extend_from_slice(&held[..received.payload]);
        consumed += received.consumed;
        held.drain(..received.consumed);
    }
    Ok(Decoded { content, consumed, state: reader.progress() })
}

/// In chunks and writes of sizes drawn from `seed`.
fn encode(content: &[u8], seed: u8) -> Vec<u8> {
    let (mut writer, mut wire, mut released, mut there) = (ChunkEncoder::new(), Vec::new(), 0, 0);
    let mut state = u32::from(seed) | 1;
    let mut draw = |n: usize| {
        state = state.wrapping_mul(0x0001_9660).wrapping_add(0x3c6e_f35f) ^ state >> 7;
        state as usize % n
    };
    let step =
        |writer: &mut ChunkEncoder, there: usize, released: &mut usize, most: usize, wire: &mut Vec<u8>| {
            let next = writer.slices(&content[*released..there], b"").concat();
            let n = next.len().min(most);
            wire.extend_from_slice(&next[..n]);
            *released += writer.sent(n);
            n
        };
    while there < content.len() {
        there += 1 + draw(content.len() - there);
        writer.open((there - released) as u32);
        let most = draw(100);
        step(&mut writer, there, &mut released, most, &mut wire);
    }
    writer.finish(0);
    while !writer.is_done() {
        assert!(writer.is_pending());
        let most = 1 + draw(100);
        assert!(step(&mut writer, there, &mut released, most, &mut wire) > 0, "the writer stalls");
    }
    assert_eq!(released, content.len());
    wire
}
