//! The value of `Authorization`: credentials are taken only in the one form that says them.

use ruststrom_core::middleware::basic_credentials::Offered;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 (RFC 4648 §4), bit by bit.
fn encode(bytes: &[u8]) -> Vec<u8> {
    let bits: Vec<bool> = bytes.iter().flat_map(|b| (0..8).rev().map(move |n| b >> n & 1 == 1)).collect();
    let digit = |six: &[bool]| {
        let value = (0..6).fold(0, |n, at| n << 1 | usize::from(six.get(at).copied().unwrap_or(false)));
        DIGITS[value]
    };
    let mut text: Vec<u8> = bits.chunks(6).map(digit).collect();
    text.resize(text.len().next_multiple_of(4), b'=');
    text
}

/// Whether it is Basic, by hand.
fn is_basic(value: &[u8]) -> bool {
    let scheme = value.split(|b| *b == b' ').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"basic")
}

pub(super) fn run(data: &[u8]) {
    play(data);
    // As a whole value, and as what its base64 would say.
    play(&[b"Basic ", &encode(data)[..]].concat());
}

fn play(value: &[u8]) {
    let offered = Offered::of_value(value);
    match &offered {
        Offered::Nothing => assert!(!is_basic(value)),
        Offered::Repeated => panic!("one field is not two"),
        Offered::Malformed | Offered::Empty => assert!(is_basic(value)),
        Offered::Credentials { user, password } => {
            assert!(!user.is_empty() && !password.0.is_empty() && !user.contains(':'));
            assert!(!user.chars().chain(password.0.chars()).any(char::is_control));
            let said = encode([user.as_bytes(), b":", password.0.as_bytes()].concat().as_slice());
            assert_eq!(value[5..].trim_ascii(), said, "{offered:?}");
        }
    }
    if let Some(text) = value.strip_prefix(b"Basic ").map(<[u8]>::trim_ascii)
        && let Some((user, password)) = plain(text)
        && user.len() <= 256
        && password.len() <= 1024
    {
        let expected = (!user.is_empty() && !password.is_empty()).then_some((&*user, &*password));
        let found = match &offered {
            Offered::Credentials { user, password } => Some((&**user, &*password.0)),
            other => {
                assert_eq!(*other, Offered::Empty);
                None
            }
        };
        assert_eq!(found, expected);
    }
}

/// The name and the password that base64 says, found by trying what encodes to it.
fn plain(text: &[u8]) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    for four in text.chunks(4) {
        let value = |b: &u8| DIGITS.iter().position(|d| d == b);
        let known: Vec<usize> = four.iter().map_while(value).collect();
        let n = known.iter().fold(0, |n, v| n << 6 | v) << (6 * (4 - known.len()));
        let all = (n as u32).to_be_bytes();
        bytes.extend_from_slice(&all[1..][..known.len() * 6 / 8]);
    }
    if encode(&bytes) != text {
        return None;
    }
    let said = String::from_utf8(bytes).ok()?;
    let (user, password) = said.split_once(':')?;
    let clean = !said.chars().any(char::is_control);
    clean.then(|| (user.to_owned(), password.to_owned()))
}
