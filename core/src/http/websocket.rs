//! The handshake of WebSocket, as far as a gateway takes part in it (RFC 6455 §4, RFC 8441 §5): HTTP/1.1
//! has a key in it and an answer to the key, HTTP/2 has neither. Who leads from one to the other makes the
//! key up, or answers it.

use base64ct::{Base64, Encoding as _};
use sha1::{Digest as _, Sha1};

use super::{Fields, HeaderKind};

/// The name of the protocol, in `Upgrade` and in `:protocol`.
pub(crate) const PROTOCOL: &[u8] = b"websocket";
/// The field of a request with its key.
pub(crate) const KEY_FIELD: &[u8] = b"Sec-WebSocket-Key";
/// The field of a 101 that answers a key.
pub(crate) const ACCEPT_FIELD: &[u8] = b"Sec-WebSocket-Accept";

/// Behind the key, what only a server of WebSocket answers with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key: 16 bytes in base64.
pub(crate) type Key = [u8; 24];

/// The key of these bytes, which should be unpredictable.
pub(crate) fn key(bytes: [u8; 16]) -> Key {
    let mut key = [0; 24];
    Base64::encode(&bytes, &mut key).expect("as long as 16 bytes become");
    key
}

/// Whether a request has one key, of the right form.
pub(crate) fn has_key(request: Fields<'_>) -> bool {
    single(request, HeaderKind::SecWebSocketKey).is_some_and(is_key)
}

/// The answer to the key of a request, for `Sec-WebSocket-Accept` (RFC 6455 §4.2.2); `None` if it has
/// none, or more than one.
pub(crate) fn accept(request: Fields<'_>) -> Option<[u8; 28]> {
    let key = single(request, HeaderKind::SecWebSocketKey)?;
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    Base64::encode(&digest, &mut accept).expect("as long as a digest becomes");
    Some(accept)
}

/// Whether a 101 answers the key of its request.
pub(crate) fn is_accepted(request: Fields<'_>, response: Fields<'_>) -> bool {
    let said = single(response, HeaderKind::SecWebSocketAccept);
    said.is_some() && said == accept(request).as_ref().map(|accept| &accept[..])
}

/// The value of the one field of this kind.
fn single(fields: Fields<'_>, kind: HeaderKind) -> Option<&[u8]> {
    let mut values = fields.iter().filter(|field| field.kind == kind).map(|field| field.value);
    values.next().filter(|_| values.next().is_none())
}

/// 22 digits, of which the last stands for two bits, and the padding (RFC 4648 §4).
fn is_key(text: &[u8]) -> bool {
    let Some((digits, b"==")) = text.split_at_checked(22) else { return false };
    let is_digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    digits.iter().all(is_digit) && matches!(digits[21], b'A' | b'Q' | b'g' | b'w')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::RequestHead;

    fn with_keys(keys: &[&str]) -> RequestHead {
        let mut head = RequestHead::default();
        keys.iter().for_each(|key| head.add_field(KEY_FIELD, key.as_bytes()).expect("room"));
        head
    }

    // RFC 6455 §1.3 and §4.1 have both in their text.
    #[test]
    fn as_in_the_rfc() {
        let head = with_keys(&["dGhlIHNhbXBsZSBub25jZQ=="]);
        assert_eq!(accept(head.fields()).as_ref(), Some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(&key(*b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(&key((1..=16).collect::<Vec<_>>().try_into().expect("16")), b"AQIDBAUGBwgJCgsMDQ4PEA==");
        assert!(has_key(with_keys(&["AQIDBAUGBwgJCgsMDQ4PEA=="]).fields()));
    }

    #[test]
    fn keys_that_are_none() {
        let good = "AQIDBAUGBwgJCgsMDQ4PEA==";
        let table: [&[&str]; 7] = [
            &[],
            &[""],
            &[good, good],
            &["AQIDBAUGBwgJCgsMDQ4PEA="],
            &["AQIDBAUGBwgJCgsMDQ4PEB=="],
            &["AQIDBAUGBwgJCgsMDQ4P-A=="],
            &["AQIDBAUGBwgJCgsMDQ4PEA==AQID"],
        ];
        for keys in table {
            assert!(!has_key(with_keys(keys).fields()), "{keys:?}");
        }
        assert_eq!(accept(with_keys(&[good, good]).fields()), None);
    }

    #[test]
    fn an_answer_has_to_fit() {
        let request = with_keys(&["dGhlIHNhbXBsZSBub25jZQ=="]);
        let (good, other) = ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo");
        let table: [(&[&str], bool); 5] =
            [(&[good], true), (&[], false), (&[other], false), (&[good, good], false), (&[""], false)];
        for (said, fits) in table {
            let mut response = RequestHead::default();
            said.iter().for_each(|said| response.add_field(ACCEPT_FIELD, said.as_bytes()).expect("room"));
            assert_eq!(is_accepted(request.fields(), response.fields()), fits, "{said:?}");
        }
        assert!(!is_accepted(with_keys(&[]).fields(), RequestHead::default().fields()), "neither has one");
    }
}
