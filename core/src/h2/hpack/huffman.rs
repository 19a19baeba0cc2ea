//! The Huffman code of RFC 7541, appendix B. It is canonical: codes of one length follow each other in the
//! order of their symbols, and those of the next length after them. So the lengths make the whole table.

use super::HpackError;

const EOS: usize = 256;

/// How many bits the code of each symbol has; the last one is EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

/// Shortest and longest code in bits.
const SHORTEST: usize = 5;
const LONGEST: usize = 30;
/// Codes of so many bits are found by one look-up; they are those of nearly all text.
const FAST_BITS: u32 = 10;

/// What [`LENGTHS`] make.
struct Code {
    /// The code of each symbol, in its low bits.
    codes: [u32; 257],
    /// The symbols in the order of their codes.
    symbols: [u16; 257],
    /// For each length, its first code with zeros behind it up to 32 bits.
    first: [u32; LONGEST + 1],
    /// For each length, the first code that is longer, in the same way.
    limit: [u64; LONGEST + 1],
    /// For each length, which of `symbols` its first code has.
    rank: [u16; LONGEST + 1],
    /// By the next [`FAST_BITS`] bits: the symbol, and above its eight bits the length of its code. Zero: the
    /// code is longer.
    fast: [u16; 1 << FAST_BITS],
}

static CODE: Code = make();

const fn make() -> Code {
    let mut made = Code {
        codes: [0; 257],
        symbols: [0; 257],
        first: [0; LONGEST + 1],
        limit: [0; LONGEST + 1],
        rank: [0; LONGEST + 1],
        fast: [0; 1 << FAST_BITS],
    };
    let (mut code, mut rank, mut len) = (0_u32, 0, SHORTEST);
    while len <= LONGEST {
        made.first[len] = code << (32 - len as u32);
        made.rank[len] = rank as u16;
        let mut symbol = 0;
        while symbol <= EOS {
            if LENGTHS[symbol] as usize == len {
                made.codes[symbol] = code;
                made.symbols[rank] = symbol as u16;
                if len <= FAST_BITS as usize {
                    let spare = FAST_BITS - len as u32;
                    let mut i = 0;
                    while i < 1 << spare {
                        made.fast[(code << spare) as usize + i] = (len as u16) << 8 | symbol as u16;
                        i += 1;
                    }
                }
                code += 1;
                rank += 1;
            }
            symbol += 1;
        }
        made.limit[len] = (code as u64) << (32 - len as u32);
        code <<= 1;
        len += 1;
    }
    made
}

/// Bytes that `coded` bytes can stand for, and that [`decode`] must have room for.
#[inline]
pub(super) fn max_decoded(coded: usize) -> usize {
    coded * 8 / SHORTEST + 1
}

/// Decodes a string into `out`, which has room for [`max_decoded`]; returns how long it is.
///
/// # Errors
/// If it holds EOS, or does not end with less than eight bits of padding, all ones.
#[inline]
pub(super) fn decode(coded: &[u8], out: &mut [u8]) -> Result<usize, HpackError> {
    // The next bits, from the highest on, and how many of them count: those behind are zero.
    let (mut bits, mut count) = (0_u64, 0_u32);
    let (mut rest, mut len) = (coded, 0);
    loop {
        if count < 32 {
            if let Some((eight, _)) = rest.split_first_chunk::<8>() {
                // As many whole bytes as there is room for.
                let bytes = (64 - count) / 8;
                let word = u64::from_be_bytes(*eight) >> (64 - 8 * bytes) << (64 - 8 * bytes);
                bits |= word >> count;
                (rest, count) = (&rest[bytes as usize..], count + 8 * bytes);
            } else {
                while let Some((one, behind)) = rest.split_first()
                    && count <= 56
                {
                    bits |= u64::from(*one) << (56 - count);
                    (rest, count) = (behind, count + 8);
                }
                if count < 8 && bits >> (64 - 8) == 0xff << (8 - count) & 0xff {
                    return Ok(len);
                }
            }
        }
        // Short codes, as most are: three fit into what is there at least, unless the end is near.
        let fast = CODE.fast[(bits >> (64 - FAST_BITS)) as usize];
        let (symbol, used) = if fast != 0 { (fast as u8, u32::from(fast >> 8)) } else { long(bits)? };
        if used > count {
            return Err(HpackError::Huffman);
        }
        *out.get_mut(len).ok_or(HpackError::Huffman)? = symbol;
        len += 1;
        bits <<= used;
        count -= used;
    }
}

/// The symbol of a long code and the length of that.
#[cold]
fn long(bits: u64) -> Result<(u8, u32), HpackError> {
    let next = (bits >> 32) as u32;
    let mut len = FAST_BITS as usize + 1;
    while u64::from(next) >= CODE.limit[len] {
        len += 1;
        if len > LONGEST {
            return Err(HpackError::Huffman);
        }
    }
    let nth = (next - CODE.first[len]) >> (32 - len as u32);
    let symbol = CODE.symbols[usize::from(CODE.rank[len]) + nth as usize];
    u8::try_from(symbol).map(|symbol| (symbol, len as u32)).map_err(|_| HpackError::Huffman)
}

/// How many bytes `text` has when it is coded.
#[inline]
pub(super) fn encoded_len(text: &[u8]) -> usize {
    text.iter().map(|&b| usize::from(LENGTHS[usize::from(b)])).sum::<usize>().div_ceil(8)
}

/// Appends the code of `text`.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0_u64, 0_u32);
    for &b in text {
        let len = u32::from(LENGTHS[usize::from(b)]);
        bits = bits << len | u64::from(CODE.codes[usize::from(b)]);
        count += len;
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((bits >> count) as u32).to_be_bytes());
        }
    }
    if count > 0 {
        // The padding is the beginning of EOS: ones.
        let spare = 32 - count;
        let last = ((bits << spare) as u32 | ((1_u64 << spare) - 1) as u32).to_be_bytes();
        out.extend_from_slice(&last[..count.div_ceil(8) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = vec![0; max_decoded(coded.len())];
        let len = decode(coded, &mut out)?;
        out.truncate(len);
        Ok(out)
    }

    #[test]
    fn the_lengths_make_a_complete_code() {
        let sum: u64 = LENGTHS.iter().map(|&len| 1 << (LONGEST as u8 - len)).sum();
        assert_eq!(sum, 1 << LONGEST);
        // RFC 7541, appendix B: symbols of several lengths.
        let table = [
            (b'0' as usize, 0x0, 5),
            (b'a' as usize, 0x3, 5),
            (b'%' as usize, 0x15, 6),
            (b'z' as usize, 0x7b, 7),
            (b'&' as usize, 0xf8, 8),
            (b'!' as usize, 0x3f8, 10),
            (b'{' as usize, 0x7ffe, 15),
            (b'\\' as usize, 0x7_fff0, 19),
            (0, 0x1ff8, 13),
            (10, 0x3fff_fffc, 30),
            (249, 0xfff_fffe, 28),
            (255, 0x3ff_ffee, 26),
            (EOS, 0x3fff_ffff, 30),
        ];
        for (symbol, code, len) in table {
            assert_eq!((CODE.codes[symbol], LENGTHS[symbol]), (code, len), "{symbol}");
        }
    }

    #[test]
    fn padding_and_eos() {
        let bad = Err(HpackError::Huffman);
        type Decoded = Result<Vec<u8>, HpackError>;
        let table: &[(&[u8], Decoded)] = &[
            (&[], Ok(vec![])),
            (&[0b0001_1111], Ok(vec![b'a'])),
            // Padding of seven bits is the longest; eight are none, and zeros are none.
            (&[0b1111_1000, 0xff], bad.clone()),
            (&[0b1111_1000], Ok(vec![b'&'])),
            (&[0xff], bad.clone()),
            (&[0b0001_1110], bad.clone()),
            (&[0b0001_1000], bad.clone()),
            // EOS, alone and behind a symbol.
            (&[0xff, 0xff, 0xff, 0xff], bad.clone()),
            (&[0xff, 0xff, 0xff, 0xfc], bad.clone()),
            (&[0b0001_1111, 0xff, 0xff, 0xff, 0xff], bad.clone()),
            // A long code, whole and cut short.
            (&[0xff, 0xff, 0xff, 0xf3], Ok(vec![10])),
            (&[0xff, 0xff, 0xff], bad.clone()),
        ];
        for (coded, expected) in table {
            assert_eq!(decoded(coded), *expected, "{coded:x?}");
        }
    }

    /// Bit by bit, from the codes alone.
    fn slowly(coded: &[u8]) -> Result<Vec<u8>, HpackError> {
        let (mut out, mut code, mut len) = (Vec::new(), 0_u32, 0_u8);
        for bit in coded.iter().flat_map(|b| (0..8).rev().map(move |n| b >> n & 1)) {
            (code, len) = (code << 1 | u32::from(bit), len + 1);
            match (0..=EOS).find(|&s| LENGTHS[s] == len && CODE.codes[s] == code) {
                Some(EOS) => return Err(HpackError::Huffman),
                Some(symbol) => (out, code, len) = ([out, vec![symbol as u8]].concat(), 0, 0),
                None => {}
            }
        }
        if len < 8 && code + 1 == 1 << len { Ok(out) } else { Err(HpackError::Huffman) }
    }

    proptest! {
        #[test]
        fn there_and_back(
            text in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..80),
                prop::collection::vec(b' '..=b'~', 0..80),
            ],
        ) {
            let mut coded = Vec::new();
            encode(&text, &mut coded);
            prop_assert_eq!(coded.len(), encoded_len(&text));
            prop_assert_eq!(decoded(&coded), Ok(text.clone()));
            prop_assert_eq!(slowly(&coded), Ok(text));
        }

        #[test]
        fn any_bytes_are_decoded_as_bit_by_bit(
            coded in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..24),
                prop::collection::vec(prop_oneof![Just(0xff_u8), any::<u8>()], 0..8),
            ],
        ) {
            prop_assert_eq!(decoded(&coded), slowly(&coded));
        }
    }
}
