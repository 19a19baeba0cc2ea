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
/// One look-up finds the codes in so many bits: one, or two of the short ones that nearly all text has.
const FAST_BITS: u32 = 12;

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
    /// By the next [`FAST_BITS`] bits.
    fast: [Fast; 1 << FAST_BITS],
}

/// What one look-up finds. From the low byte on: bits of the codes; bits of the symbols, eight each; one or
/// two symbols. All zero: the code is longer.
#[derive(Clone, Copy)]
struct Fast(u32);

impl Fast {
    const NONE: Self = Self(0);

    const fn new(symbols: u32, used: u32, number: u32) -> Self {
        Self(used | (8 * number) << 8 | symbols << 16)
    }

    fn is_none(self) -> bool {
        self.0 == 0
    }

    fn symbols(self) -> u32 {
        self.0 >> 16
    }

    /// Bits of the codes, below 64; what is above the low byte is to be ignored.
    fn used(self) -> u32 {
        self.0
    }

    /// Both numbers of bits, in a byte each.
    fn bits(self) -> u32 {
        self.0 & 0xffff
    }
}

static CODE: Code = make();

const fn make() -> Code {
    let mut made = Code {
        codes: [0; 257],
        symbols: [0; 257],
        first: [0; LONGEST + 1],
        limit: [0; LONGEST + 1],
        rank: [0; LONGEST + 1],
        fast: [Fast::NONE; 1 << FAST_BITS],
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
                code += 1;
                rank += 1;
            }
            symbol += 1;
        }
        made.limit[len] = (code as u64) << (32 - len as u32);
        code <<= 1;
        len += 1;
    }
    // Codes are short in the order of their ranks: those that are too long are behind all others.
    let mut first = 0;
    while LENGTHS[made.symbols[first] as usize] as u32 <= FAST_BITS {
        let a = made.symbols[first] as usize;
        let spare = FAST_BITS - LENGTHS[a] as u32;
        fill(&mut made.fast, made.codes[a] << spare, spare, Fast::new(a as u32, LENGTHS[a] as u32, 1));
        let mut second = 0;
        while LENGTHS[made.symbols[second] as usize] as u32 <= spare {
            let b = made.symbols[second] as usize;
            let used = (LENGTHS[a] + LENGTHS[b]) as u32;
            let code = (made.codes[a] << LENGTHS[b] | made.codes[b]) << (FAST_BITS - used);
            fill(&mut made.fast, code, FAST_BITS - used, Fast::new((a | b << 8) as u32, used, 2));
            second += 1;
        }
        first += 1;
    }
    made
}

/// The entries from `code` on, whatever their last `spare` bits are.
const fn fill(fast: &mut [Fast; 1 << FAST_BITS], code: u32, spare: u32, entry: Fast) {
    let mut i = 0;
    while i < 1 << spare {
        fast[code as usize + i] = entry;
        i += 1;
    }
}

/// So many look-ups need no more bits than are there after more have been read.
const ROUND: u32 = 4;
/// Bytes that those can make; they are written at once.
const ROUND_BYTES: usize = 2 * ROUND as usize;

/// The room that [`decode`] needs for `coded` bytes: what they can stand for, and what is written at once.
#[inline]
pub(super) fn room_for(coded: usize) -> usize {
    coded * 8 / SHORTEST + ROUND_BYTES
}

/// Decodes a string into `out`, which has [`room_for`] it; returns how long it is.
///
/// # Errors
/// If it holds EOS, or does not end with less than eight bits of padding, all ones.
#[inline]
pub(super) fn decode(coded: &[u8], out: &mut [u8]) -> Result<usize, HpackError> {
    // The next bits, from the highest on, and how many of them count, less than 64. What is behind those is
    // zero, or what comes next: to read it again changes nothing.
    let (mut bits, mut count) = (0_u64, 0_u32);
    let (mut rest, mut len) = (coded, 0);
    loop {
        if let Some((eight, _)) = rest.split_first_chunk::<8>() {
            bits |= u64::from_be_bytes(*eight) >> count;
            rest = &rest[((63 - count) / 8) as usize..];
            // As many whole bytes as there is room for: 56 to 63 bits are there.
            count |= 56;
        } else if !rest.is_empty() {
            bits |= last_bytes(coded, rest.len()) >> count;
            let bytes = rest.len().min((63 - count) as usize / 8);
            (rest, count) = (&rest[bytes..], count + 8 * bytes as u32);
        }
        let room = out.get_mut(len..).and_then(<[u8]>::first_chunk_mut::<ROUND_BYTES>);
        let room = room.ok_or(HpackError::Huffman)?;
        // Bits of codes and of symbols: neither sum leaves its byte.
        let (mut sums, mut symbols) = (0, 0_u64);
        for _ in 0..(count / FAST_BITS).min(ROUND) {
            let fast = CODE.fast[(bits >> (64 - FAST_BITS)) as usize];
            if fast.is_none() {
                break;
            }
            symbols |= u64::from(fast.symbols()) << (sums >> 8 & 63);
            sums += fast.bits();
            bits <<= fast.used() & 63;
        }
        *room = symbols.to_le_bytes();
        len += sums as usize >> 11;
        count -= sums & 0xff;
        if sums > 0 {
            continue;
        }
        // A long code, or the last bits. What is behind them counts as padding, all ones: so no code that
        // they end in the middle of seems to be whole.
        let padded = bits | u64::MAX >> count;
        let fast = CODE.fast[(padded >> (64 - FAST_BITS)) as usize];
        let used = if !fast.is_none() {
            room[..2].copy_from_slice(&(fast.symbols() as u16).to_le_bytes());
            len += fast.bits() as usize >> 11;
            fast.bits() & 0xff
        } else if padded == u64::MAX && count < 8 {
            return Ok(len);
        } else {
            let (symbol, used) = long(padded)?;
            room[0] = symbol;
            len += 1;
            used
        };
        count = count.checked_sub(used).ok_or(HpackError::Huffman)?;
        bits <<= used;
    }
}

/// The last `n` bytes, less than eight, from the highest bit on.
#[inline]
fn last_bytes(coded: &[u8], n: usize) -> u64 {
    let word = match coded.last_chunk::<8>() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => coded.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    word << (64 - 8 * n)
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
        let mut out = vec![0; room_for(coded.len())];
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
