//! The dynamic table (RFC 7541 §2.3.2): a queue of fields, whose text lies in one piece of memory. What is
//! added comes behind the rest; the text of evicted fields is dropped once the memory is used up.

use std::collections::VecDeque;

use super::mark::Mark;
use super::{FIELD_OVERHEAD, MAX_TABLE_BYTES};

/// A field and where its text lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The first byte of its text, counted from the first one that the table ever had, round 2^32.
    at: u32,
    name_len: u16,
    value_len: u16,
    pub(super) mark: Mark,
}

/// Fields in the order in which they were added. The text of each is `name: value CRLF`: four bytes more than
/// it has, and [`FIELD_OVERHEAD`] that it counts, so all text fits into as many bytes as the table may count.
#[derive(Debug, Default)]
pub(super) struct Table {
    text: Vec<u8>,
    /// Where the first byte of `text` is, counted as [`Entry::at`].
    base: u32,
    /// The oldest is the first.
    entries: VecDeque<Entry>,
    /// How many fields were ever added, round 2^32.
    added: u32,
    /// What the fields count, in bytes; at most `max`.
    size: u32,
    max: u32,
}

/// A field of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'a> {
    /// `name: value CRLF`
    pub(super) text: &'a [u8],
    pub(super) name_len: u16,
    pub(super) mark: Mark,
}

impl Table {
    pub(super) fn new(max: u32) -> Self {
        Self { max: max.min(MAX_TABLE_BYTES), ..Self::default() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn max(&self) -> u32 {
        self.max
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// How many fields were ever added: the number of the next one.
    pub(super) fn added(&self) -> u32 {
        self.added
    }

    /// The number of the oldest field that is there.
    fn oldest(&self) -> u32 {
        self.added.wrapping_sub(self.entries.len() as u32)
    }

    /// The field with this number, and how many were added after it; nothing if it has been evicted.
    pub(super) fn numbered(&self, number: u32) -> Option<(u32, Stored<'_>)> {
        let entry = self.entries.get(number.wrapping_sub(self.oldest()) as usize)?;
        Some((self.added.wrapping_sub(number) - 1, self.stored(entry)))
    }

    /// The field that `back` others have been added after.
    #[inline]
    pub(super) fn get(&self, back: usize) -> Option<Stored<'_>> {
        let nth = self.entries.len().checked_sub(back + 1)?;
        self.entries.get(nth).map(|entry| self.stored(entry))
    }

    #[inline]
    fn stored(&self, entry: &Entry) -> Stored<'_> {
        let at = entry.at.wrapping_sub(self.base) as usize;
        let text = &self.text[at..at + entry.text_len()];
        Stored { text, name_len: entry.name_len, mark: entry.mark }
    }

    /// Changes how much it may count; the oldest fields go if they are too many.
    pub(super) fn set_max(&mut self, max: u32) {
        self.max = max.min(MAX_TABLE_BYTES);
        self.evict(self.max);
    }

    /// Adds a field: `name: value CRLF`. One that is larger than the table empties it, and is not there then.
    #[inline]
    pub(super) fn add(&mut self, text: &[u8], name_len: usize, mark: Mark) {
        self.add_pieces([text], text.len(), name_len, mark);
    }

    /// Adds a field whose text is not there in one piece.
    pub(super) fn add_field(&mut self, name: &[u8], value: &[u8], mark: Mark) {
        let len = name.len() + value.len() + 4;
        self.add_pieces([name, b": ", value, b"\r\n"], len, name.len(), mark);
    }

    #[inline(always)]
    fn add_pieces<const N: usize>(&mut self, pieces: [&[u8]; N], len: usize, name_len: usize, mark: Mark) {
        let counts = len - 4 + FIELD_OVERHEAD;
        if counts > self.max as usize {
            return self.evict(0);
        }
        self.evict(self.max - counts as u32);
        let most = self.max as usize;
        if self.text.len() + len > most {
            self.drop_evicted_text();
        }
        if self.text.capacity() < self.text.len() + len {
            let wanted = (2 * self.text.capacity()).clamp(self.text.len() + len, most.max(256));
            self.text.reserve_exact(wanted - self.text.len());
        }
        let at = self.base.wrapping_add(self.text.len() as u32);
        for piece in pieces {
            self.text.extend_from_slice(piece);
        }
        let value_len = (len - 4 - name_len) as u16;
        self.entries.push_back(Entry { at, name_len: name_len as u16, value_len, mark });
        self.added = self.added.wrapping_add(1);
        self.size += counts as u32;
    }

    /// Removes the oldest fields until the others count `most` bytes at most.
    #[inline]
    fn evict(&mut self, most: u32) {
        while self.size > most {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.size -= (oldest.text_len() - 4 + FIELD_OVERHEAD) as u32;
        }
    }

    /// Moves the text that is needed to the front.
    fn drop_evicted_text(&mut self) {
        let needed = match self.entries.front() {
            Some(oldest) => oldest.at.wrapping_sub(self.base) as usize,
            None => self.text.len(),
        };
        self.text.copy_within(needed.., 0);
        self.text.truncate(self.text.len() - needed);
        self.base = self.base.wrapping_add(needed as u32);
    }
}

impl Entry {
    fn text_len(&self) -> usize {
        usize::from(self.name_len) + usize::from(self.value_len) + 4
    }
}

impl<'a> Stored<'a> {
    pub(super) fn name(&self) -> &'a [u8] {
        &self.text[..usize::from(self.name_len)]
    }

    pub(super) fn value(&self) -> &'a [u8] {
        &self.text[usize::from(self.name_len) + 2..self.text.len() - 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `(name, value)`, the newest first.
    type Model = Vec<(Vec<u8>, Vec<u8>)>;

    fn counted(model: &Model) -> usize {
        model.iter().map(|(name, value)| name.len() + value.len() + FIELD_OVERHEAD).sum()
    }

    proptest! {
        // Against a list of fields.
        #[test]
        fn behaves_as_a_list(
            steps in prop::collection::vec((0..12_u8, 0..40_usize, 0..90_usize), 1..200),
            base: u32,
        ) {
            let mut table = Table { base, added: base, ..Table::new(300) };
            let (mut model, mut max) = (Model::new(), 300);
            for (n, (what, name_len, value_len)) in steps.into_iter().enumerate() {
                if what == 0 {
                    max = value_len * 6;
                    table.set_max(max as u32);
                } else {
                    let mark = n as u8;
                    let (name, value) = (vec![mark; name_len], vec![mark ^ 0xff; value_len]);
                    let text = [&name[..], b": ", &value, b"\r\n"].concat();
                    table.add(&text, name_len, Mark::of_name(b"x"));
                    model.insert(0, (name, value));
                }
                while counted(&model) > max {
                    model.pop();
                }
                prop_assert_eq!(table.size() as usize, counted(&model));
                prop_assert_eq!(table.len(), model.len());
                for (back, (name, value)) in model.iter().enumerate() {
                    let stored = table.get(back).expect("it is there");
                    prop_assert_eq!((stored.name(), stored.value()), (&name[..], &value[..]));
                    let number = table.added().wrapping_sub(1 + back as u32);
                    let (after, same) = table.numbered(number).expect("it is there");
                    prop_assert_eq!((after as usize, same.text), (back, stored.text));
                }
                prop_assert!(table.get(model.len()).is_none());
                prop_assert!(table.numbered(table.added()).is_none());
                prop_assert!(table.numbered(table.oldest().wrapping_sub(1)).is_none());
                prop_assert!(table.text.capacity() <= 540, "no more than the largest that it was");
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_taken_once() {
        let mut table = Table::new(4096);
        let add = |table: &mut Table, n: usize| {
            let text = format!("name-{n}: {}\r\n", "v".repeat(n % 300));
            table.add(text.as_bytes(), format!("name-{n}").len(), Mark::of_name(b"x"));
        };
        (0..1000).for_each(|n| add(&mut table, n));
        let (memory, places) = (table.text.as_ptr(), table.entries.capacity());
        (0..10_000).for_each(|n| add(&mut table, n));
        assert_eq!((table.text.as_ptr(), table.entries.capacity()), (memory, places));
        assert!(table.text.capacity() <= 4096 && table.size() <= 4096);
        table.set_max(u32::MAX);
        assert_eq!(table.max(), MAX_TABLE_BYTES);
    }
}
