//! Encoding field sections (RFC 7541 §6). Fields that come again and again go into the table at once; of the
//! others only those that come a second time, so that one-off values don't push out what repeats. Credentials
//! and cookies go into no table (RFC 7541 §7.1).

use super::table::Table;
use super::{DEFAULT_TABLE_BYTES, huffman, integer, static_table};
use crate::http::HeaderKind;

/// Slots of each index, a power of two.
const SLOTS: usize = 64;
/// A shorter cookie could be guessed by trying what compresses; of a longer one it is said that it may be
/// forwarded either way.
const SHORT_COOKIE: usize = 20;

/// Encodes the field blocks of one connection, in the order in which they are sent.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// By hash of name and value: the number of the field in the table that was added last, if it is still
    /// there. Fields that compete for a slot only cost bytes.
    fields: Box<[u32; SLOTS]>,
    /// The same by hash of the name.
    names: Box<[u32; SLOTS]>,
    /// Hashes of fields that were sent once.
    seen: Box<[u16; SLOTS]>,
    /// `name: value CRLF` of the field at hand.
    text: Vec<u8>,
    /// The largest table that we use, in bytes.
    most: u32,
    /// The smallest size, in bytes, since the peer was last told one, and whether there is anything to tell.
    lowest: u32,
    update_due: bool,
}

/// How a field is sent that is not in the table as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Indexing {
    /// It goes into the table.
    AtOnce,
    /// It goes into the table when it comes again.
    Again,
    /// Not into ours.
    No,
    /// Into no table, at no hop (RFC 7541 §6.2.3).
    Never,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new(DEFAULT_TABLE_BYTES)
    }
}

impl Encoder {
    /// With a table of at most so many bytes, even if the peer allows more.
    #[must_use]
    pub fn new(most: u32) -> Self {
        let mut encoder = Self {
            table: Table::new(DEFAULT_TABLE_BYTES),
            fields: Box::new([0; SLOTS]),
            names: Box::new([0; SLOTS]),
            seen: Box::new([0; SLOTS]),
            text: Vec::new(),
            most,
            lowest: DEFAULT_TABLE_BYTES,
            update_due: false,
        };
        encoder.set_allowed(DEFAULT_TABLE_BYTES);
        encoder
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE, in bytes: it is told what we make of it by the next block.
    pub fn set_allowed(&mut self, bytes: u32) {
        let bytes = bytes.min(self.most);
        if bytes == self.table.max() {
            return;
        }
        self.table.set_max(bytes);
        self.lowest = if self.update_due { self.lowest.min(bytes) } else { bytes };
        self.update_due = true;
    }

    /// Begins a block: the fields follow.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.update_due) {
            return;
        }
        // The peer has to know of the smallest table in between, too (RFC 7541 §4.2).
        if self.lowest < self.table.max() {
            integer::encode(self.lowest, 5, 0b0010_0000, out);
        }
        integer::encode(self.table.max(), 5, 0b0010_0000, out);
    }

    /// Appends a field; capitals of its name become lower case. `kind` is that of its name, and `never` says
    /// that it came as one that no table may have.
    pub fn field(&mut self, name: &[u8], value: &[u8], kind: HeaderKind, never: bool, out: &mut Vec<u8>) {
        self.text.clear();
        self.text.extend(name.iter().map(u8::to_ascii_lowercase));
        let name_len = name.len();
        for piece in [b": ", value, b"\r\n"] {
            self.text.extend_from_slice(piece);
        }
        let (name, value) = (&self.text[..name_len], &self.text[name_len + 2..self.text.len() - 2]);
        let indexing = if never { Indexing::Never } else { indexing(name, value, kind) };
        let known = static_table::find(name, value);
        if let Some((index, true)) = known
            && indexing != Indexing::Never
        {
            return integer::encode(index, 7, 0b1000_0000, out);
        }
        let name_hash = hash(0, name);
        let field_hash = hash(name_hash, value);
        let is_indexed = matches!(indexing, Indexing::AtOnce | Indexing::Again);
        if is_indexed
            && let Some((back, stored)) = self.table.numbered(self.fields[slot(field_hash)])
            && stored.text == self.text
        {
            return integer::encode(FIRST_DYNAMIC + back, 7, 0b1000_0000, out);
        }
        let known_name = known.map(|(index, _)| index).or_else(|| {
            let (back, stored) = self.table.numbered(self.names[slot(name_hash)])?;
            (stored.name() == name).then_some(FIRST_DYNAMIC + back)
        });
        let fits = self.text.len() - 4 + super::FIELD_OVERHEAD <= self.table.max() as usize / 2;
        let adds = match indexing {
            Indexing::AtOnce => fits,
            Indexing::Again => {
                let tag = (field_hash >> 32) as u16 | 1;
                fits && std::mem::replace(&mut self.seen[slot(field_hash)], tag) == tag
            }
            Indexing::No | Indexing::Never => false,
        };
        let (prefix, high) = match indexing {
            _ if adds => (6, 0b0100_0000),
            Indexing::Never => (4, 0b0001_0000),
            _ => (4, 0),
        };
        integer::encode(known_name.unwrap_or(0), prefix, high, out);
        if known_name.is_none() {
            string(name, out);
        }
        string(value, out);
        if adds {
            let number = self.table.added();
            self.table.add(&self.text, name_len, super::mark::Mark::regular(kind));
            self.fields[slot(field_hash)] = number;
            self.names[slot(name_hash)] = number;
        }
    }
}

/// The index of the dynamic table's newest field.
const FIRST_DYNAMIC: u32 = static_table::LEN as u32 + 1;

/// Kinds whose values come again and again.
const REPEATED: u64 = HeaderKind::set(&[
    HeaderKind::Accept,
    HeaderKind::AcceptEncoding,
    HeaderKind::CacheControl,
    HeaderKind::ContentEncoding,
    HeaderKind::ContentType,
    HeaderKind::Date,
    HeaderKind::Host,
    HeaderKind::Server,
    HeaderKind::Te,
    HeaderKind::UserAgent,
    HeaderKind::Via,
    HeaderKind::XForwardedHost,
    HeaderKind::XForwardedPort,
    HeaderKind::XForwardedProto,
    HeaderKind::XForwardedServer,
]);

fn indexing(name: &[u8], value: &[u8], kind: HeaderKind) -> Indexing {
    match kind {
        HeaderKind::Authorization | HeaderKind::ProxyAuthorization => Indexing::Never,
        HeaderKind::Cookie | HeaderKind::SetCookie if value.len() < SHORT_COOKIE => Indexing::Never,
        HeaderKind::Cookie | HeaderKind::SetCookie | HeaderKind::XRequestId => Indexing::No,
        HeaderKind::Other if matches!(name, b":authority" | b":status" | b":method" | b":scheme") => {
            Indexing::AtOnce
        }
        _ if kind.in_set(REPEATED) => Indexing::AtOnce,
        _ => Indexing::Again,
    }
}

/// Appends a string, by the Huffman code if it is shorter so.
fn string(text: &[u8], out: &mut Vec<u8>) {
    let coded = huffman::encoded_len(text);
    if coded < text.len() {
        integer::encode(coded as u32, 7, 0b1000_0000, out);
        huffman::encode(text, out);
    } else {
        integer::encode(text.len() as u32, 7, 0, out);
        out.extend_from_slice(text);
    }
}

/// Spreads texts over slots. Whoever makes them collide gets larger blocks.
#[inline]
fn hash(seed: u64, text: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let (words, rest) = text.as_chunks::<8>();
    let whole = words.iter().fold(seed ^ text.len() as u64, |h, w| mix(h, u64::from_le_bytes(*w)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(whole, u64::from_le_bytes(last)), 0)
}

fn slot(hash: u64) -> usize {
    (hash >> 20) as usize % SLOTS
}
