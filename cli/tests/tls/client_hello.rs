//! First messages of clients, made byte by byte (RFC 8446 §4.1.2): those that no TLS library would send.

/// Groups for key exchange, by their numbers.
pub(crate) const X25519: u16 = 29;
pub(crate) const X25519_MLKEM768: u16 = 0x11ec;

/// A message for this server name, from a client that speaks TLS 1.2 and 1.3, knows these groups and sends no
/// key for any of them: it is answered by a `HelloRetryRequest`. It is made longer by an extension that
/// nobody knows, of `padding` bytes.
pub(crate) fn client_hello(name: &str, groups: &[u16], padding: usize) -> Vec<u8> {
    let numbers = |numbers: &[u16]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    let mut extensions = Vec::new();
    let mut extension = |number: u16, content: Vec<u8>| {
        extensions.extend(number.to_be_bytes());
        extensions.extend(with_length::<2>(&content));
    };
    let entry = [vec![0], with_length::<2>(name.as_bytes())].concat();
    extension(0, with_length::<2>(&entry));
    extension(10, with_length::<2>(&numbers(groups)));
    // ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256
    extension(13, with_length::<2>(&numbers(&[0x0403, 0x0804])));
    // Versions 1.3 and 1.2.
    extension(43, with_length::<1>(&numbers(&[0x0304, 0x0303])));
    // No keys.
    extension(51, with_length::<2>(&[]));
    if padding > 0 {
        extension(0xfafa, vec![0; padding]);
    }
    let mut body = numbers(&[0x0303]);
    // Random bytes, and the id of a session.
    body.extend([7; 32]);
    body.extend(with_length::<1>(&[9; 32]));
    // TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    body.extend(with_length::<2>(&numbers(&[0x1301, 0xc02b])));
    // No compression.
    body.extend(with_length::<1>(&[0]));
    body.extend(with_length::<2>(&extensions));
    [vec![1], with_length::<3>(&body)].concat()
}

/// A handshake message as records of at most `most` bytes each.
pub(crate) fn records(message: &[u8], most: usize) -> Vec<u8> {
    message.chunks(most).flat_map(|part| [vec![22, 3, 1], with_length::<2>(part)].concat()).collect()
}

/// Bytes behind their number, in `N` bytes.
fn with_length<const N: usize>(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len().to_be_bytes();
    assert!(length[..length.len() - N].iter().all(|b| *b == 0), "{} bytes are too many", bytes.len());
    [&length[length.len() - N..], bytes].concat()
}

/// The group that a `HelloRetryRequest` asks for, in the first record of a server; an alert is an error.
pub(crate) fn group_asked_for(answer: &[u8]) -> Result<u16, String> {
    // SHA-256 of "HelloRetryRequest" stands in place of the random bytes.
    const RETRY: [u8; 4] = [0xcf, 0x21, 0xad, 0x74];
    match answer {
        [22, 3, _, _, _, 2, _, _, _, 3, 3, rest @ ..] if rest.starts_with(&RETRY) => {
            let asks = |window: &[u8]| window[..4] == [0, 51, 0, 2];
            let found = rest.windows(6).find(|w| asks(w)).ok_or("no group is asked for")?;
            Ok(u16::from_be_bytes([found[4], found[5]]))
        }
        [21, _, _, _, _, 2, alert, ..] => Err(format!("alert {alert}")),
        other => Err(format!("neither: {:?}", &other[..other.len().min(16)])),
    }
}
