//! The answer of a server of WebSocket to the key of a request (RFC 6455 §4.2.2).

use sha1::{Digest as _, Sha1};

/// The value of a field in a head.
pub(crate) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// What a server of WebSocket answers to the key in this head.
pub(crate) fn accept(head: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let key = field(head, "Sec-WebSocket-Key").expect("a key");
    let digest = Sha1::digest(format!("{key}{GUID}"));
    let bits: Vec<u8> = digest.iter().flat_map(|b| (0..8).rev().map(move |at| b >> at & 1)).collect();
    let digit =
        |bits: &[u8]| DIGITS[(0..6).fold(0, |n, at| n << 1 | usize::from(*bits.get(at).unwrap_or(&0)))];
    bits.chunks(6).map(|bits| char::from(digit(bits))).chain(['=']).collect()
}
