//! Frames as bytes, appended to what is to be sent.

use super::frame::{FrameHeader, HEADER_BYTES, flag, kind};
use super::reason::Reason;

fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let len = payload.len() as u32;
    out.extend_from_slice(&FrameHeader { len, kind, flags, stream }.bytes());
    out.extend_from_slice(payload);
}

/// SETTINGS.
pub fn settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let len = 6 * settings.len() as u32;
    out.extend_from_slice(&FrameHeader { len, kind: kind::SETTINGS, flags: 0, stream: 0 }.bytes());
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// The answer to SETTINGS.
pub fn settings_ack(out: &mut Vec<u8>) {
    put(out, kind::SETTINGS, flag::ACK, 0, &[]);
}

/// PING, or the answer to one.
pub fn ping(out: &mut Vec<u8>, ack: bool, data: [u8; 8]) {
    put(out, kind::PING, if ack { flag::ACK } else { 0 }, 0, &data);
}

/// GOAWAY.
pub fn go_away(out: &mut Vec<u8>, last_stream: u32, reason: Reason) {
    let [last, why] = [last_stream, reason.0].map(u32::to_be_bytes);
    put(out, kind::GOAWAY, 0, 0, [last, why].as_flattened());
}

/// RST_STREAM.
pub fn reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    put(out, kind::RST_STREAM, 0, stream, &reason.0.to_be_bytes());
}

/// WINDOW_UPDATE; `increment` in bytes, not 0.
pub fn window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put(out, kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

/// The header of a DATA frame; its payload follows.
pub fn data_header(out: &mut Vec<u8>, stream: u32, len: u32, end_stream: bool) {
    let flags = if end_stream { flag::END_STREAM } else { 0 };
    out.extend_from_slice(&FrameHeader { len, kind: kind::DATA, flags, stream }.bytes());
}

/// Makes HEADERS, and CONTINUATION where it is longer than `max_frame` bytes, of a field block that was
/// appended behind `start`, with [`HEADER_BYTES`] bytes left free before it.
pub fn finish_headers(out: &mut Vec<u8>, start: usize, stream: u32, end_stream: bool, max_frame: u32) {
    let (block, max) = (start + HEADER_BYTES, max_frame as usize);
    let len = out.len() - block;
    if len <= max {
        let flags = flag::END_HEADERS | if end_stream { flag::END_STREAM } else { 0 };
        let header = FrameHeader { len: len as u32, kind: kind::HEADERS, flags, stream };
        return out[start..block].copy_from_slice(&header.bytes());
    }
    let more = len.saturating_sub(1) / max;
    // From the last part to the first: each moves behind the headers before it.
    out.resize(out.len() + more * HEADER_BYTES, 0);
    for part in (0..=more).rev() {
        let (from, to) = (part * max, len.min((part + 1) * max));
        let at = block + from + part * HEADER_BYTES;
        out.copy_within(block + from..block + to, at);
        let kind = if part == 0 { kind::HEADERS } else { kind::CONTINUATION };
        let mut flags = if part == more { flag::END_HEADERS } else { 0 };
        if part == 0 && end_stream {
            flags |= flag::END_STREAM;
        }
        let header = FrameHeader { len: (to - from) as u32, kind, flags, stream };
        out[at - HEADER_BYTES..at].copy_from_slice(&header.bytes());
    }
}
