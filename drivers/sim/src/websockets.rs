//! The handshake of WebSocket as the peers of the proxy take part in it (RFC 6455 §4): keys, and answers to
//! them.

use base64ct::{Base64, Encoding as _};
use sha1::{Digest as _, Sha1};

use crate::random::mix;

/// The name of the protocol.
pub(crate) const PROTOCOL: &str = "websocket";

/// The key that a client sends with a request over HTTP/1.1.
pub(crate) fn key(id: u64) -> String {
    let bytes = [mix(id ^ 0x3eb).to_be_bytes(), mix(id ^ 0x50c3).to_be_bytes()].concat();
    Base64::encode_string(&bytes)
}

/// Whether this is a key: 16 bytes in base64.
pub(crate) fn is_key(text: &str) -> bool {
    Base64::decode_vec(text).is_ok_and(|bytes| bytes.len() == 16)
}

/// What a server answers a key with.
pub(crate) fn accept(key: &str) -> String {
    let digest =
        Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    Base64::encode_string(&digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ==") && is_key(&key(7)) && key(7) != key(8));
        assert!(!is_key("dGhlIHNhbXBsZSBub25jZQ") && !is_key("AAAA"));
    }
}
