//! Frames of any bytes: at any cut the same as whole, no piece of the input read twice, and nothing handed
//! out that is not in the input.

use ruststrom_core::h2::Reason;
use ruststrom_core::h2::frame::{Frame, FrameReader};

use super::input::{Input, cuts};

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let (seed, server) = (input.byte(), input.byte() & 1 == 1);
    let bytes = &input.0[..input.0.len().min(8192)];
    let whole = read(bytes, server, &[bytes.len()]);
    assert_eq!(read(bytes, server, &cuts(seed, bytes.len())), whole);
}

/// What was read, the payload of DATA joined, and how it ended.
fn read(bytes: &[u8], server: bool, cuts: &[usize]) -> (Vec<String>, Vec<u8>, Option<Reason>) {
    const MAX: u32 = 16_384;
    let mut reader = if server { FrameReader::server(MAX) } else { FrameReader::client(MAX) };
    let (mut seen, mut data, mut at, mut due) = (Vec::new(), Vec::new(), 0, 0_i64);
    for &cut in cuts {
        loop {
            let (n, frame) = match reader.next(&bytes[at..cut]) {
                Ok(read) => read,
                Err(reason) => return (seen, data, Some(reason)),
            };
            assert!(at + n <= cut);
            match frame {
                Some(Frame::Data { bytes: piece, end_stream, .. }) => {
                    data.extend_from_slice(piece);
                    due -= piece.len() as i64;
                    assert!(due >= 0, "more payload than the frame has");
                    if end_stream {
                        assert_eq!(due, 0);
                        seen.push("end".to_owned());
                    }
                }
                Some(frame) => {
                    if let Frame::DataBegins { counts, padding, .. } = frame {
                        due = i64::from(counts) - i64::from(padding);
                    }
                    seen.push(format!("{frame:?}"));
                }
                None if n == 0 => break,
                None => {}
            }
            at += n;
        }
    }
    (seen, data, None)
}
