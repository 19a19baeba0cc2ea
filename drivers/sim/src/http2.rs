//! A second and naive implementation of HTTP/2 for the peers of the proxy: it shares no code with the core,
//! and accepts only what a proxy should send.

mod blocks;
mod fields;
mod frames;
mod hpack;
mod huffman;
mod windows;

pub(crate) use self::blocks::{BlockDraw, put_block};
pub(crate) use self::fields::{OF_CONNECTION, check_regular};
pub(crate) use self::frames::{FrameReader, MAX_FRAME, PREFACE, RawFrame, flag, kind, put_frame};
pub(crate) use self::hpack::{FieldPairs, HpackDecoder, HpackEncoder};
pub(crate) use self::windows::{Grants, Windows};

/// The version of a request over HTTP/2.
pub(crate) const HTTP_2: u8 = 20;

/// Error codes (RFC 9113 §7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const INTERNAL_ERROR: u32 = 2;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION_ERROR: u32 = 9;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
    pub(crate) const HTTP_1_1_REQUIRED: u32 = 13;
}

/// Identifiers of settings (RFC 9113 §6.5.2).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// The pairs of a SETTINGS frame; `None`: it is none.
pub(crate) fn settings_of(payload: &[u8]) -> Option<Vec<(u16, u32)>> {
    let pair = |six: &[u8]| {
        let value = u32::from_be_bytes(six[2..].try_into().expect("four bytes"));
        (u16::from_be_bytes([six[0], six[1]]), value)
    };
    payload.len().is_multiple_of(6).then(|| payload.chunks_exact(6).map(pair).collect())
}

/// The payload of a SETTINGS frame.
pub(crate) fn settings_payload(settings: &[(u16, u32)]) -> Vec<u8> {
    let bytes = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    settings.iter().flat_map(bytes).collect()
}

/// The reason phrase of a status, which HTTP/2 does not carry, as texts of the proxy have it.
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        _ => "X",
    }
}
