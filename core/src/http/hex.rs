//! Hexadecimal digits, read and written.

/// The byte that two hexadecimal digits, in any case, stand for.
pub(crate) fn byte(digits: &[u8]) -> Option<u8> {
    let &[high, low] = digits else { return None };
    let value = |digit: u8| char::from(digit).to_digit(16);
    Some((value(high)? << 4 | value(low)?) as u8)
}

/// The digits of `n`, lower case and without leading zeros, in `room`.
pub(crate) fn digits(mut n: u64, room: &mut [u8; 16]) -> &[u8] {
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
        if n == 0 {
            return &room[at..];
        }
    }
}

/// The two digits of a byte, upper case.
pub(crate) fn upper(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    #[test]
    fn read_and_written() {
        for n in [0, 1, 15, 16, 255, 4096, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(super::digits(n, &mut [0; 16]), format!("{n:x}").as_bytes());
        }
        for n in 0..=255_u8 {
            assert_eq!(super::upper(n), format!("{n:02X}").as_bytes());
            assert_eq!(super::byte(&super::upper(n)), Some(n));
            assert_eq!(super::byte(format!("{n:02x}").as_bytes()), Some(n));
        }
        for text in ["", "0", "000", "g0", "0g", " 1", "+1", "1\u{e4}"] {
            assert_eq!(super::byte(text.as_bytes()), None, "{text:?}");
        }
    }
}
