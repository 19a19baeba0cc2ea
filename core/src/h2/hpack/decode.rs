//! Decoding field blocks (RFC 7541 §3, §6).

use super::block::FieldBlock;
use super::mark::Mark;
use super::table::{Stored, Table};
use super::{
    DEFAULT_TABLE_BYTES, FIELD_OVERHEAD, HpackError, MAX_TABLE_BYTES, huffman, integer, static_table,
};

/// What a field section may come to. What is beyond the first two is not kept, but read on, so that the table
/// stays in step with the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// Bytes of all names and values, and [`FIELD_OVERHEAD`] for each field (RFC 9113 §6.5.2); up to 65 535.
    pub list_bytes: u32,
    /// Number of fields, each crumb of a cookie counted.
    pub fields: u32,
    /// Beyond so many bytes, counted as `list_bytes`, the block is not read on: that ends the connection.
    pub hard_bytes: u32,
}

/// Whether a field section kept the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// All its fields are there.
    Whole,
    /// Its first fields are there, as many as the limits allow.
    TooLarge,
}

/// Decodes the field blocks of one connection, in the order in which they came.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// The largest table that our setting allows the peer, in bytes.
    allowed: u32,
    /// The setting became smaller than the peer's table: it has to say that it knows.
    update_due: bool,
    version: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// What the fields of a block have come to so far.
struct Count {
    bytes: u64,
    fields: u32,
    over: bool,
}

impl Decoder {
    /// With a table of [`DEFAULT_TABLE_BYTES`].
    #[must_use]
    pub fn new() -> Self {
        let table = Table::new(DEFAULT_TABLE_BYTES);
        Self { table, allowed: DEFAULT_TABLE_BYTES, update_due: false, version: 0 }
    }

    /// As long as it is the same a block means the same. It never is again what it was.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The peer has acknowledged our SETTINGS_HEADER_TABLE_SIZE of so many bytes, up to [`MAX_TABLE_BYTES`].
    pub fn set_allowed(&mut self, bytes: u32) {
        self.allowed = bytes.min(MAX_TABLE_BYTES);
        self.update_due |= self.table.max() > self.allowed;
        self.version += 1;
    }

    /// Decodes a whole block; its fields take the place of those in `into`.
    ///
    /// # Errors
    /// If it is broken; no other block can be decoded then.
    pub fn decode(
        &mut self,
        block: &[u8],
        limits: &BlockLimits,
        into: &mut FieldBlock,
    ) -> Result<Fit, HpackError> {
        into.clear();
        let mut at = 0;
        while let Some(&first) = block.get(at)
            && first & 0b1110_0000 == 0b0010_0000
        {
            self.size_update(integer::decode(block, &mut at, 5)?)?;
        }
        if self.update_due && at < block.len() {
            return Err(HpackError::MissingSizeUpdate);
        }
        let mut count = Count { bytes: 0, fields: 0, over: false };
        while let Some(&first) = block.get(at) {
            if first & 0b1000_0000 != 0 {
                let index = integer::decode(block, &mut at, 7)?;
                self.indexed(index, limits, &mut count, into)?;
            } else if first & 0b0100_0000 != 0 {
                let (start, name_len, mark) = self.literal(block, &mut at, 6, into)?;
                self.table.add(into.text_from(start), name_len, mark);
                self.version += 1;
                count.keep(start, name_len, mark, limits, into)?;
            } else if first & 0b0010_0000 != 0 {
                return Err(HpackError::SizeUpdate);
            } else {
                let never = first & 0b0001_0000 != 0;
                let (start, name_len, mark) = self.literal(block, &mut at, 4, into)?;
                count.keep(start, name_len, mark.never_indexed(never), limits, into)?;
            }
        }
        Ok(if count.over { Fit::TooLarge } else { Fit::Whole })
    }

    fn size_update(&mut self, bytes: u32) -> Result<(), HpackError> {
        if bytes > self.allowed {
            return Err(HpackError::SizeUpdate);
        }
        self.table.set_max(bytes);
        self.update_due = false;
        self.version += 1;
        Ok(())
    }

    /// A field of one of the tables.
    #[inline]
    fn get(&self, index: u32) -> Result<Stored<'_>, HpackError> {
        let place = (index as usize).checked_sub(1).ok_or(HpackError::Index)?;
        if let Some(known) = static_table::FIELDS.get(place) {
            return Ok(Stored { text: known.text, name_len: known.name_len, mark: known.mark });
        }
        self.table.get(place - static_table::LEN).ok_or(HpackError::Index)
    }

    /// A field that is in a table, name and value (RFC 7541 §6.1).
    #[inline]
    fn indexed(
        &self,
        index: u32,
        limits: &BlockLimits,
        count: &mut Count,
        into: &mut FieldBlock,
    ) -> Result<(), HpackError> {
        let stored = self.get(index)?;
        if count.add(stored.text.len(), limits)? {
            let at = into.text_len();
            into.put(stored.text);
            into.field(at, usize::from(stored.name_len), stored.mark);
        }
        Ok(())
    }

    /// A field whose value, and perhaps name, stands in the block (RFC 7541 §6.2); it is text behind the
    /// other fields then. Returns where it begins, how long its name is, and what it is.
    #[inline]
    fn literal(
        &self,
        block: &[u8],
        at: &mut usize,
        prefix: u32,
        into: &mut FieldBlock,
    ) -> Result<(usize, usize, Mark), HpackError> {
        let start = into.text_len();
        let index = integer::decode(block, at, prefix)?;
        let (name_len, mark) = if index > 0 {
            let stored = self.get(index)?;
            into.put(&stored.text[..usize::from(stored.name_len) + 2]);
            (usize::from(stored.name_len), stored.mark)
        } else {
            string(block, at, into)?;
            let mark = Mark::of_name(into.text_from(start));
            let name_len = into.text_len() - start;
            into.put(b": ");
            (name_len, mark)
        };
        string(block, at, into)?;
        let mark = mark.with_value(into.text_from(start + name_len + 2));
        into.put(b"\r\n");
        Ok((start, name_len, mark))
    }
}

impl Count {
    /// One field more, with so many bytes of text; whether it is to be kept.
    #[inline]
    fn add(&mut self, text_len: usize, limits: &BlockLimits) -> Result<bool, HpackError> {
        self.bytes += (text_len - 4 + FIELD_OVERHEAD) as u64;
        self.fields += 1;
        if self.bytes > u64::from(limits.hard_bytes) {
            return Err(HpackError::TooLarge);
        }
        let most = limits.list_bytes.min(u32::from(u16::MAX));
        self.over |= self.bytes > u64::from(most) || self.fields > limits.fields;
        Ok(!self.over)
    }

    /// The text from `start` on is a field, if there may be one more.
    #[inline]
    fn keep(
        &mut self,
        start: usize,
        name_len: usize,
        mark: Mark,
        limits: &BlockLimits,
        into: &mut FieldBlock,
    ) -> Result<(), HpackError> {
        if self.add(into.text_len() - start, limits)? {
            into.field(start, name_len, mark);
        } else {
            into.truncate(start);
        }
        Ok(())
    }
}

/// Appends a string (RFC 7541 §5.2) to the text.
#[inline]
fn string(block: &[u8], at: &mut usize, into: &mut FieldBlock) -> Result<(), HpackError> {
    let coded = block.get(*at).is_some_and(|first| first & 0x80 != 0);
    let len = integer::decode(block, at, 7)? as usize;
    let bytes = at.checked_add(len).and_then(|end| block.get(*at..end)).ok_or(HpackError::Truncated)?;
    *at += len;
    if coded {
        let decoded = huffman::decode(bytes, into.room(huffman::room_for(len)))?;
        into.wrote(decoded);
    } else {
        into.put(bytes);
    }
    Ok(())
}
