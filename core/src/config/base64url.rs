//! Base64 with the alphabet for URLs (RFC 4648 §5).

/// The bytes that a text stands for; it may be padded or not.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if padding > 0 && (padding > 2 || !text.len().is_multiple_of(4)) {
        return Err("there are too many or too few `=`");
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut pending, mut bits) = (0_u32, 0_u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            b'+' | b'/' => return Err("it is in the other alphabet of base64"),
            _ => return Err("it has a character that does not belong there"),
        };
        pending = pending << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((pending >> bits) as u8);
            pending &= (1 << bits) - 1;
        }
    }
    match (bits, pending) {
        (6, _) => Err("a character is missing at its end"),
        (_, 0) => Ok(bytes),
        _ => Err("its last character can't be"),
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn texts_and_their_bytes() {
        let table: [(&str, &[u8]); 9] = [
            ("", b""),
            ("Zg", b"f"),
            ("Zg==", b"f"),
            ("Zm8", b"fo"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmFy", b"foobar"),
            ("-_-_", &[0xfb, 0xff, 0xbf]),
            ("__8", &[0xff, 0xff]),
        ];
        for (text, bytes) in table {
            assert_eq!(decode(text).as_deref(), Ok(bytes), "{text}");
        }
        for text in ["Z", "Zg=", "Zm9v=", "Zm9v====", "=", "Zh", "Zm9", "+/+/", "Zm 9v", "Zg==Zg==", "Zm9vé"]
        {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
