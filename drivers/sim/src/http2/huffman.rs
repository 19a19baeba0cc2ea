//! The Huffman code of RFC 7541, appendix B, bit by bit.

use std::sync::OnceLock;

/// How many bits the code of each symbol has; the last one is EOS. Codes of one length follow each other.
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

const LONGEST: usize = 30;

struct Code {
    codes: [u32; 257],
    /// For each length: its first code, and the symbols of that length.
    first: [u32; LONGEST + 1],
    symbols: [Vec<u16>; LONGEST + 1],
}

fn code() -> &'static Code {
    static CODE: OnceLock<Code> = OnceLock::new();
    CODE.get_or_init(|| {
        let mut made = Code { codes: [0; 257], first: [0; LONGEST + 1], symbols: Default::default() };
        let mut next = 0;
        for len in 1..=LONGEST {
            next <<= 1;
            made.first[len] = next;
            for symbol in (0..257_u16).filter(|s| usize::from(LENGTHS[usize::from(*s)]) == len) {
                made.codes[usize::from(symbol)] = next;
                made.symbols[len].push(symbol);
                next += 1;
            }
        }
        made
    })
}

/// The text that a coded string stands for; `None`: it is none.
pub(super) fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    let table = code();
    let mut text = Vec::with_capacity(coded.len() * 2);
    let (mut bits, mut len) = (0_u32, 0);
    for byte in coded {
        for at in (0..8).rev() {
            (bits, len) = (bits << 1 | u32::from(byte >> at & 1), len + 1);
            let nth = bits.wrapping_sub(table.first[len]) as usize;
            if bits >= table.first[len]
                && let Some(symbol) = table.symbols[len].get(nth)
            {
                text.push(u8::try_from(*symbol).ok()?);
                (bits, len) = (0, 0);
            } else if len == LONGEST {
                return None;
            }
        }
    }
    // Padding is ones, and less than a byte.
    (len < 8 && bits == (1 << len) - 1).then_some(text)
}

/// Appends the code of a text.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let table = code();
    let (mut bits, mut count) = (0_u64, 0);
    for byte in text {
        let len = u32::from(LENGTHS[usize::from(*byte)]);
        bits = bits << len | u64::from(table.codes[usize::from(*byte)]);
        count += len;
        while count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    if count > 0 {
        out.push((bits << (8 - count)) as u8 | (0xff >> count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        // RFC 7541, appendix C.4.1.
        let mut coded = Vec::new();
        encode(b"www.example.com", &mut coded);
        assert_eq!(coded, [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]);
        let all: Vec<u8> = (0..=255).collect();
        for text in [&all[..], b"", b"a", b"no-cache"] {
            let mut coded = Vec::new();
            encode(text, &mut coded);
            assert_eq!(decode(&coded).as_deref(), Some(text));
        }
        assert_eq!(decode(&[0xff]), None, "a byte of padding");
    }
}
