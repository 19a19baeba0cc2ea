//! Field lines with the bytes they lie in: what a message's head owns. Lines that were added or changed lie
//! behind the text that was received.

use super::{FieldLine, Fields, HeaderKind};

/// More bytes than a head's 16-bit offsets can reach, or more lines than may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadFull;

impl std::fmt::Display for HeadFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the head has no room for more fields")
    }
}

impl std::error::Error for HeadFull {}

/// A place in a head's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part`, a slice of `whole`, lies in it; the beginning for a slice of anything else, and perhaps
    /// for an empty one.
    #[inline(always)]
    pub(crate) fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        if start >= whole.len() {
            return Self::default();
        }
        Self { start: start as u32, end: (start + part.len()) as u32 }
    }

    /// The part of it from one place to another, counted from its start.
    pub(crate) fn part(self, from: usize, to: usize) -> Self {
        Self { start: self.start + from as u32, end: self.start + to as u32 }
    }

    pub(crate) fn get(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// A field as it is written, for heads that it is added to again and again.
#[derive(Clone, Debug)]
pub(crate) struct WrittenField {
    /// The line with its CRLF.
    text: Box<[u8]>,
    name_len: u16,
    kind: HeaderKind,
}

impl WrittenField {
    /// `None` if it is longer than a head can be.
    pub(crate) fn new(name: &[u8], value: &[u8]) -> Option<Self> {
        let text = [name, b": ", value, b"\r\n"].concat();
        u16::try_from(text.len()).ok()?;
        Some(Self { text: text.into(), name_len: name.len() as u16, kind: kind_of_added(name) })
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.text[..usize::from(self.name_len)]
    }
}

/// What a field is to us that we add ourselves.
#[inline]
fn kind_of_added(name: &[u8]) -> HeaderKind {
    match HeaderKind::of(name) {
        // It is said here, and not by a hop before.
        HeaderKind::HopClaim => HeaderKind::Other,
        kind => kind,
    }
}

/// The text of a head, and where its field lines lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldList {
    pub(crate) bytes: Vec<u8>,
    lines: Vec<FieldLine>,
    /// The start line with its CRLF.
    line_len: u32,
    /// The head as it was received, with its empty line.
    received_len: u32,
    /// The kinds of the fields that are there.
    kinds: u64,
    /// The lines are those that were received and, right behind them and up to `added_end`, those that were
    /// added; each is written as it is forwarded.
    plain: bool,
    added_end: u32,
}

/// Field lines that a head may have: as many as any limit allows, and some that are added here.
const MAX_LINES: usize = 512;

impl FieldList {
    /// Takes a copy of the fields that were parsed, and of the head that they lie in.
    #[inline]
    pub(crate) fn assign(&mut self, parsed: &Fields<'_>) {
        let (received, lines) = (parsed.raw(), parsed.lines());
        self.bytes.clear();
        self.bytes.extend_from_slice(received);
        self.lines.clear();
        self.lines.extend_from_slice(lines);
        self.line_len = lines.first().map_or(received.len() as u32 - 2, |line| u32::from(line.name));
        self.received_len = received.len() as u32;
        self.added_end = self.received_len;
        (self.kinds, self.plain) = (parsed.kinds(), parsed.is_plain());
    }

    /// Becomes like another one, in the memory that it has.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        let (mut bytes, mut lines) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.lines));
        bytes.clone_from(&other.bytes);
        lines.clone_from(&other.lines);
        *self = Self { bytes, lines, ..*other };
    }

    /// Begins a head without fields, whose start line (with its CRLF) is not known here.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
        (self.line_len, self.received_len, self.added_end) = (0, 0, 0);
        (self.kinds, self.plain) = (0, false);
    }

    /// The fields, to look at.
    pub(crate) fn view(&self) -> Fields<'_> {
        Fields::new(&self.bytes, &self.lines, self.kinds, false)
    }

    /// The start line as it was received, without its CRLF.
    pub(crate) fn start_line(&self) -> &[u8] {
        &self.bytes[..(self.line_len as usize).saturating_sub(2)]
    }

    /// Appends bytes that are no field, and says where they lie.
    pub(crate) fn append(&mut self, text: &[u8]) -> Span {
        let start = self.bytes.len() as u32;
        self.make_room(text.len());
        self.bytes.extend_from_slice(text);
        Span { start, end: self.bytes.len() as u32 }
    }

    /// Removes every field of this name, in any case.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        // Most have none, as the lengths of the names show.
        let named = |line: &FieldLine| {
            usize::from(line.name_len) == name.len() && line.name(&self.bytes).eq_ignore_ascii_case(name)
        };
        if self.lines.iter().any(named) {
            self.remove_any(&[name]);
        }
    }

    /// Removes every field that has one of these names, in any case.
    pub(crate) fn remove_any(&mut self, names: &[&[u8]]) {
        let bytes = &self.bytes;
        let before = self.lines.len();
        self.lines.retain(|line| {
            let name = line.name(bytes);
            !names.iter().any(|gone| name.eq_ignore_ascii_case(gone))
        });
        if self.lines.len() != before {
            self.plain = false;
            self.kinds = self.lines.iter().fold(0, |kinds, line| kinds | HeaderKind::set(&[line.kind]));
        }
    }

    /// Adds a field behind the others.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadFull> {
        let start = self.new_line(name.len() + 2 + value.len() + 2)?;
        for piece in [name, b": ", value, b"\r\n"] {
            self.bytes.extend_from_slice(piece);
        }
        self.push_line(start, name.len(), kind_of_added(name));
        Ok(())
    }

    /// Adds a field that was written before.
    #[inline(always)]
    pub(crate) fn add_written(&mut self, field: &WrittenField) -> Result<(), HeadFull> {
        let start = self.new_line(field.text.len())?;
        self.bytes.extend_from_slice(&field.text);
        self.push_line(start, usize::from(field.name_len), field.kind);
        Ok(())
    }

    /// Makes room for a line of `len` bytes, CRLF included; where it begins.
    #[inline]
    fn new_line(&mut self, len: usize) -> Result<usize, HeadFull> {
        let start = self.bytes.len();
        if start + len > usize::from(u16::MAX) || self.lines.len() == MAX_LINES {
            return Err(HeadFull);
        }
        self.make_room(len);
        Ok(start)
    }

    /// The line that begins at `start` has been written.
    #[inline]
    fn push_line(&mut self, start: usize, name_len: usize, kind: HeaderKind) {
        let end = self.bytes.len() - 2;
        self.lines.push(FieldLine {
            name: start as u16,
            name_len: name_len as u16,
            value: (start + name_len + 2) as u16,
            value_end: end as u16,
            kind,
            plain: true,
        });
        // It is not, if something that is no field has been appended in between.
        self.plain &= self.added_end as usize == start;
        self.added_end = self.bytes.len() as u32;
        self.kinds |= HeaderKind::set(&[kind]);
    }

    /// Room for `len` bytes more, and a little beyond: with twice its memory a head would be too large to be
    /// kept for another exchange.
    fn make_room(&mut self, len: usize) {
        if self.bytes.capacity() - self.bytes.len() < len {
            self.bytes.reserve_exact(len.max(256));
        }
    }

    /// Whether the first field is of this kind and its value lies just there.
    pub(crate) fn begins_with(&self, kind: HeaderKind, value: &[u8]) -> bool {
        self.received_len > 0
            && self.lines.first().is_some_and(|line| {
                line.kind == kind
                    && u32::from(line.name) == self.line_len
                    && std::ptr::eq(line.value(&self.bytes), value)
            })
    }

    /// The value of the last field, if it is of this kind.
    pub(crate) fn last(&self, kind: HeaderKind) -> Option<&[u8]> {
        self.lines.last().filter(|line| line.kind == kind).map(|line| line.value(&self.bytes))
    }

    /// Gives every field whose kind is in `set` to `put`, in order, as `Name: value CRLF` in one or more
    /// pieces. Neighbours that were already written so are one piece: most heads are copied in one, two or
    /// three.
    ///
    /// `line`: the start line passes as it is too, and `first`: so does the first field, whatever its kind,
    /// which no other field has.
    pub(crate) fn copy(&self, line: bool, first: bool, set: u64, mut put: impl FnMut(&[u8])) {
        let bytes = &self.bytes[..];
        let line_len = self.line_len as usize;
        let begin = if line { 0 } else { line_len };
        let extra = match &self.lines[..] {
            [one, ..] if first => HeaderKind::set(&[one.kind]),
            _ => 0,
        };
        let set = set | extra;
        if self.plain && self.kinds & !set == 0 {
            let (received, added) = (self.received_len as usize, self.added_end as usize);
            put(&bytes[begin..received - 2]);
            if added > received {
                put(&bytes[received..added]);
            }
            return;
        }
        let mut run = begin..if line { line_len } else { begin };
        for line in &self.lines {
            if !line.kind.in_set(set) {
                continue;
            }
            let at = usize::from(line.name);
            if line.plain {
                if run.end != at {
                    put(&bytes[run]);
                    run = at..at;
                }
                run.end = usize::from(line.value_end) + 2;
            } else {
                put(&bytes[std::mem::take(&mut run)]);
                for piece in [line.name(bytes), b": ", line.value(bytes), b"\r\n"] {
                    put(piece);
                }
            }
        }
        put(&bytes[run]);
    }
}
