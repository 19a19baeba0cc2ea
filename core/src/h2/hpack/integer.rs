//! Integers with a prefix (RFC 7541 §5.1): up to 32 bits in up to five bytes behind the prefix.

use super::HpackError;

/// Bytes behind the prefix: five hold 32 bits, with room for zeros at the end.
const MAX_CONTINUATION: u32 = 5;

/// Reads the integer whose prefix is the low `prefix` bits of `bytes[*at]`, and moves `at` behind it.
///
/// # Errors
/// If the bytes end inside it, or it is too large.
#[inline(always)]
pub(super) fn decode(bytes: &[u8], at: &mut usize, prefix: u32) -> Result<u32, HpackError> {
    let mask = (1_u32 << prefix) - 1;
    let first = u32::from(*bytes.get(*at).ok_or(HpackError::Truncated)?) & mask;
    *at += 1;
    if first < mask { Ok(first) } else { decode_rest(bytes, at, mask) }
}

#[inline]
fn decode_rest(bytes: &[u8], at: &mut usize, first: u32) -> Result<u32, HpackError> {
    let mut value = u64::from(first);
    for n in 0..MAX_CONTINUATION {
        let byte = *bytes.get(*at).ok_or(HpackError::Truncated)?;
        *at += 1;
        value += u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| HpackError::Integer);
        }
    }
    Err(HpackError::Integer)
}

/// Writes an integer whose prefix has `prefix` bits; `high` is what stands in the bits above them.
#[inline]
pub(super) fn encode(value: u32, prefix: u32, high: u8, out: &mut Vec<u8>) {
    let mask = (1_u32 << prefix) - 1;
    if value < mask {
        return out.push(high | value as u8);
    }
    out.push(high | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(bytes: &[u8], prefix: u32) -> Result<u32, HpackError> {
        let mut at = 0;
        let value = decode(bytes, &mut at, prefix)?;
        assert_eq!(at, bytes.len());
        Ok(value)
    }

    // RFC 7541 §C.1, and what is too long or too large.
    #[test]
    fn examples_and_bounds() {
        let table: &[(&[u8], u32, Result<u32, HpackError>)] = &[
            (&[0b1110_1010], 5, Ok(10)),
            (&[0b0001_1111, 0b1001_1010, 0b0000_1010], 5, Ok(1337)),
            (&[42], 8, Ok(42)),
            (&[0xff, 0], 7, Ok(127)),
            (&[0x7f, 0x80, 0x80, 0x80, 0x80, 0], 7, Ok(127)),
            (&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0], 7, Err(HpackError::Integer)),
            (&[0x7f, 0x80, 0xff, 0xff, 0xff, 0x0f], 7, Ok(u32::MAX)),
            (&[0x7f, 0x81, 0xff, 0xff, 0xff, 0x0f], 7, Err(HpackError::Integer)),
            (&[0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f], 7, Err(HpackError::Integer)),
            (&[0x7f, 0xff, 0xff], 7, Err(HpackError::Truncated)),
            (&[0x0f], 4, Err(HpackError::Truncated)),
            (&[], 7, Err(HpackError::Truncated)),
        ];
        for (bytes, prefix, expected) in table {
            assert_eq!(whole(bytes, *prefix), *expected, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(value: u32, small in 0..2000_u32, prefix in 4..=8_u32) {
            for value in [value, small] {
                let mut out = Vec::new();
                let high = if prefix == 8 { 0 } else { 0xff << prefix };
                encode(value, prefix, high as u8, &mut out);
                prop_assert_eq!(whole(&out, prefix), Ok(value));
            }
        }
    }
}
