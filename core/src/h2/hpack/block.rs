//! A field section as it was decoded: one piece of text, and where its fields lie in it. It is lent to the
//! decoder again and again, and keeps its memory.

use super::Pseudo;
use super::mark::Mark;
use crate::http::HeaderKind;

/// The fields of one block, in order. Each lies in the text as `name: value CRLF`, one behind the other, so
/// that several at once can be copied into a message of HTTP/1.1.
#[derive(Debug, Default)]
pub struct FieldBlock {
    /// Text up to `end`; what lies behind it is room for more.
    text: Vec<u8>,
    end: usize,
    fields: Vec<Line>,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    at: u32,
    name_len: u16,
    value_len: u16,
    mark: Mark,
}

/// Where a field lies in the text.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) at: usize,
    pub(crate) name_len: usize,
    pub(crate) value_len: usize,
    pub(crate) kind: HeaderKind,
}

/// A field that was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockField<'a> {
    /// The name, lower case where it is a good one.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// What the field is to a gateway; [`HeaderKind::Other`] for pseudo-header fields.
    pub kind: HeaderKind,
    /// Which pseudo-header field it is, if its name begins with a colon.
    pub pseudo: Option<Pseudo>,
    /// It may be in no table, here or at any hop that it is passed on to (RFC 7541 §6.2.3).
    pub never_indexed: bool,
    /// The name is a token without capitals, or begins with a colon (RFC 9113 §8.2.1).
    pub good_name: bool,
    /// The value has no control character but tabs inside it, and no blank at an end (RFC 9113 §8.2.1).
    pub good_value: bool,
    /// Where it begins in [`FieldBlock::text`].
    pub at: usize,
}

impl FieldBlock {
    /// An empty block.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes every field; the memory is kept.
    pub fn clear(&mut self) {
        self.end = 0;
        self.fields.clear();
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = BlockField<'_>> {
        self.fields.iter().map(|line| {
            let (name_at, value_at) = (line.at as usize, line.at as usize + usize::from(line.name_len) + 2);
            BlockField {
                name: &self.text[name_at..value_at - 2],
                value: &self.text[value_at..value_at + usize::from(line.value_len)],
                kind: line.mark.kind,
                pseudo: line.mark.pseudo(),
                never_indexed: line.mark.is_never_indexed(),
                good_name: line.mark.has_good_name(),
                good_value: line.mark.has_good_value(),
                at: name_at,
            }
        })
    }

    /// Where the fields that are no pseudo-header fields lie in [`FieldBlock::text`], in order.
    pub(crate) fn regular(&self) -> impl Iterator<Item = Place> {
        let regular = self.fields.iter().filter(|line| line.mark.pseudo().is_none());
        regular.map(|line| Place {
            at: line.at as usize,
            name_len: usize::from(line.name_len),
            value_len: usize::from(line.value_len),
            kind: line.mark.kind,
        })
    }

    /// The value of the first field of this name, of which nobody else knows anything.
    pub(crate) fn other(&self, name: &[u8]) -> Option<&[u8]> {
        let named = |place: &Place| {
            place.kind == HeaderKind::Other
                && place.name_len == name.len()
                && &self.text[place.at..place.at + name.len()] == name
        };
        let Place { at, name_len, value_len, .. } = self.regular().find(named)?;
        Some(&self.text[at + name_len + 2..at + name_len + 2 + value_len])
    }

    /// The text of all fields, each as `name: value CRLF`.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text[..self.end]
    }

    /// Bytes of text.
    #[inline]
    pub(super) fn text_len(&self) -> usize {
        self.end
    }

    /// The text from `from` on.
    #[inline]
    pub(super) fn text_from(&self, from: usize) -> &[u8] {
        &self.text[from..self.end]
    }

    /// Room for `len` bytes behind the text; [`FieldBlock::wrote`] says how much of it is text now.
    #[inline]
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        if self.text.len() - self.end < len {
            self.grow(len);
        }
        &mut self.text[self.end..]
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        let wanted = (self.end + len).max(2 * self.text.len()).max(1024);
        self.text.resize(wanted, 0);
    }

    #[inline]
    pub(super) fn wrote(&mut self, len: usize) {
        self.end += len;
    }

    /// Appends text.
    #[inline]
    pub(super) fn put(&mut self, text: &[u8]) {
        self.room(text.len())[..text.len()].copy_from_slice(text);
        self.end += text.len();
    }

    /// The text behind `at` is needed no more.
    #[inline]
    pub(super) fn truncate(&mut self, at: usize) {
        self.end = at;
    }

    /// The text from `at` on is one more field. It begins below 64 KiB and is no longer than that.
    #[inline]
    pub(super) fn field(&mut self, at: usize, name_len: usize, mark: Mark) {
        let value_len = (self.end - at - name_len - 4) as u16;
        self.fields.push(Line { at: at as u32, name_len: name_len as u16, value_len, mark });
    }
}
