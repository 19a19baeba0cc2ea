//! HPACK (RFC 7541), for both directions: the decoder takes what is allowed and nothing else, the encoder
//! uses every form there is.

use std::collections::VecDeque;

use super::huffman;
use crate::random::SplitMix64;

/// Names and values, in their order.
pub(crate) type FieldPairs = Vec<(String, String)>;

/// The size of a table as long as nothing else is said.
pub(crate) const MAX_TABLE: usize = 4096;
/// What a field takes beside its bytes.
const OVERHEAD: usize = 32;

const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// A dynamic table, newest first.
#[derive(Debug)]
struct Table {
    entries: VecDeque<(String, String)>,
    size: usize,
    max: usize,
}

impl Table {
    fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, max: MAX_TABLE }
    }

    fn get(&self, index: usize) -> Option<(&str, &str)> {
        let dynamic = |at: usize| self.entries.get(at).map(|(name, value)| (&**name, &**value));
        STATIC.get(index.checked_sub(1)?).copied().or_else(|| dynamic(index.checked_sub(STATIC.len() + 1)?))
    }

    fn add(&mut self, name: &str, value: &str) {
        self.size += name.len() + value.len() + OVERHEAD;
        self.entries.push_front((name.to_owned(), value.to_owned()));
        self.resize(self.max);
    }

    fn resize(&mut self, max: usize) {
        self.max = max;
        while self.size > self.max {
            let Some((name, value)) = self.entries.pop_back() else { return };
            self.size -= name.len() + value.len() + OVERHEAD;
        }
    }

    /// An index with this name, and with this value too if there is one.
    fn find(&self, name: &str, value: &str) -> Option<(usize, bool)> {
        let dynamic = self.entries.iter().map(|(n, v)| (&**n, &**v));
        let all = || STATIC.iter().copied().chain(dynamic.clone()).zip(1..);
        let whole = all().find(|(field, _)| *field == (name, value)).map(|(_, at)| (at, true));
        whole.or_else(|| all().find(|((n, _), _)| *n == name).map(|(_, at)| (at, false)))
    }
}

/// Decodes what the proxy sends.
#[derive(Debug)]
pub(crate) struct HpackDecoder {
    table: Table,
    /// The largest table that our settings allow.
    pub(crate) allowed: usize,
    /// A setting made the table smaller: the next block has to begin with an update.
    pub(crate) update_due: bool,
}

impl HpackDecoder {
    pub(crate) fn new() -> Self {
        Self { table: Table::new(), allowed: MAX_TABLE, update_due: false }
    }

    /// The proxy has acknowledged a setting for the table.
    pub(crate) fn set_allowed(&mut self, allowed: usize) {
        self.allowed = allowed;
        self.update_due |= self.table.max > allowed;
    }

    /// The fields of a block. `Err`: it is none.
    pub(crate) fn decode(&mut self, mut block: &[u8]) -> Result<FieldPairs, String> {
        let mut fields = FieldPairs::new();
        while let Some(first) = block.first().copied() {
            if self.update_due && first >> 5 != 0b001 {
                return Err("no update of the table where one is due".into());
            }
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                let (name, value) = self.table.get(index).ok_or_else(|| format!("index {index}"))?;
                fields.push((name.to_owned(), value.to_owned()));
            } else if first >> 5 == 0b001 {
                let max = integer(&mut block, 5)?;
                if !fields.is_empty() || max > self.allowed {
                    return Err(format!("a table of {max}, {} allowed", self.allowed));
                }
                self.table.resize(max);
                self.update_due = false;
            } else {
                let adds = first & 0x40 != 0;
                let index = integer(&mut block, if adds { 6 } else { 4 })?;
                let name = if index == 0 {
                    string(&mut block)?
                } else {
                    self.table.get(index).ok_or_else(|| format!("index {index}"))?.0.to_owned()
                };
                let value = string(&mut block)?;
                if adds {
                    self.table.add(&name, &value);
                }
                fields.push((name, value));
            }
        }
        Ok(fields)
    }
}

/// Encodes what a peer sends.
#[derive(Debug)]
pub(crate) struct HpackEncoder {
    table: Table,
    /// The largest table that the proxy allows.
    pub(crate) allowed: usize,
    /// Never indexes: then nothing depends on what came before.
    pub(crate) plain: bool,
}

impl HpackEncoder {
    pub(crate) fn new() -> Self {
        Self { table: Table::new(), allowed: MAX_TABLE, plain: false }
    }

    /// Appends a block of these fields.
    pub(crate) fn encode(&mut self, fields: &FieldPairs, rng: &mut SplitMix64, out: &mut Vec<u8>) {
        if self.table.max > self.allowed || rng.below(16) == 0 {
            if rng.below(4) == 0 {
                // Everything out, then room again.
                self.resize(0, out);
            }
            let max = rng.below(self.allowed as u64 + 1) as usize;
            self.resize(if rng.below(2) == 0 { self.allowed } else { max }, out);
        }
        for (name, value) in fields {
            self.field(name, value, rng, out);
        }
    }

    fn resize(&mut self, max: usize, out: &mut Vec<u8>) {
        self.table.resize(max);
        put_integer(out, 0b0010_0000, 5, max);
    }

    fn field(&mut self, name: &str, value: &str, rng: &mut SplitMix64, out: &mut Vec<u8>) {
        let found = self.table.find(name, value);
        let form = if self.plain { 1 + rng.below(2) } else { rng.below(8) };
        if let Some((index, true)) = found
            && form > 1
            && !self.plain
        {
            return put_integer(out, 0x80, 7, index);
        }
        let index = found.filter(|_| rng.below(4) > 0).map_or(0, |(index, _)| index);
        match form {
            // Never indexed, or not indexed.
            0 => put_integer(out, 0x10, 4, index),
            1 | 2 => put_integer(out, 0, 4, index),
            _ => put_integer(out, 0x40, 6, index),
        }
        if index == 0 {
            put_string(out, name, rng);
        }
        put_string(out, value, rng);
        if form > 2 {
            self.table.add(name, value);
        }
    }
}

fn integer(block: &mut &[u8], bits: u32) -> Result<usize, String> {
    let (first, mut rest) = block.split_first().ok_or("an integer is cut")?;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        for shift in (0..).step_by(7) {
            let (byte, behind) = rest.split_first().ok_or("an integer is cut")?;
            rest = behind;
            if shift > 28 {
                return Err("an integer that is too long".into());
            }
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(value)
}

fn string(block: &mut &[u8]) -> Result<String, String> {
    let coded = block.first().ok_or("a string is cut")? & 0x80 != 0;
    let len = integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(len).ok_or("a string is cut")?;
    *block = rest;
    let bytes = if coded { huffman::decode(bytes).ok_or("a Huffman code")? } else { bytes.to_vec() };
    String::from_utf8(bytes).map_err(|_| "a string that is no text".into())
}

fn put_integer(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    let mut left = value - most;
    while left >= 0x80 {
        out.push(0x80 | left as u8);
        left >>= 7;
    }
    out.push(left as u8);
}

fn put_string(out: &mut Vec<u8>, text: &str, rng: &mut SplitMix64) {
    if rng.below(2) == 0 {
        put_integer(out, 0, 7, text.len());
        return out.extend_from_slice(text.as_bytes());
    }
    let mut coded = Vec::new();
    huffman::encode(text.as_bytes(), &mut coded);
    put_integer(out, 0x80, 7, coded.len());
    out.extend_from_slice(&coded);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let rng = &mut SplitMix64::new(4);
        let (mut encoder, mut decoder) = (HpackEncoder::new(), HpackDecoder::new());
        for n in 0..2_000 {
            let name =
                |n: u64| ["x-a", "cookie", ":path", "x-long-name-of-a-field"][n as usize % 4].to_owned();
            let field = |n: u64| (name(n), format!("value {}", n % 90));
            let fields: FieldPairs = (0..rng.below(9)).map(|_| field(rng.next_u64())).collect();
            let mut block = Vec::new();
            encoder.encode(&fields, rng, &mut block);
            assert_eq!(decoder.decode(&block), Ok(fields), "block {n}");
        }
    }

    #[test]
    fn what_is_wrong_is_found() {
        for wrong in [&[0x80][..], &[0xff], &[0xbe], &[0x40, 1], &[0x3f, 0xff, 0xff], &[0x82, 0x20]] {
            assert!(HpackDecoder::new().decode(wrong).is_err(), "{wrong:x?}");
        }
        // RFC 7541, appendix C.3.1.
        let block = b"\x82\x86\x84\x41\x0fwww.example.com";
        let mut decoder = HpackDecoder::new();
        let fields = decoder.decode(block).expect("a block");
        assert_eq!(fields[3], (":authority".to_owned(), "www.example.com".to_owned()));
        assert_eq!(decoder.decode(&[0xbe]), Ok(vec![fields[3].clone()]));
        decoder.set_allowed(0);
        assert!(decoder.decode(&[0x82]).is_err());
    }
}
