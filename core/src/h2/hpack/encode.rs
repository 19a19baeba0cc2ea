//! Encoding field sections (RFC 7541 §6). Fields that come again and again go into the table at once; of the
//! others only those that come a second time, so that one-off values don't push out what repeats. Credentials
//! and cookies go into no table (RFC 7541 §7.1).

use super::table::{Stored, Table};
use super::{DEFAULT_TABLE_BYTES, huffman, integer, static_table};
use crate::http::{HeaderKind, StatusCode};

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
    /// Hashes of fields that were sent once; wide enough that of a million one-off values none passes for one
    /// that came again.
    seen: Box<[u32; SLOTS]>,
    /// Name and value of the field whose value comes in pieces.
    text: Vec<u8>,
    /// The name of the field at hand in lower case, if it is none that everybody knows.
    name: Vec<u8>,
    /// The field whose value comes in pieces: its kind, and the length of its name in `text`.
    pieces: (HeaderKind, usize),
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
            name: Vec::new(),
            pieces: (HeaderKind::Other, 0),
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
        if let Some(known) = static_table::of_kind(kind) {
            let name = static_table::FIELDS[known as usize - 1].name();
            let indexing = if never { Indexing::Never } else { indexing(name, value, kind) };
            let exact = kind == HeaderKind::AcceptEncoding && value == GZIP_DEFLATE;
            if exact && indexing != Indexing::Never {
                return integer::encode(known, 7, 0b1000_0000, out);
            }
            let of_kind = (kind as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let named = Named { name, hash: of_kind, known: Some(known) };
            // The kind is that of one name alone.
            return self.put(named, value, kind, indexing, |stored| stored.mark.kind == kind, out);
        }
        let mut lower = std::mem::take(&mut self.name);
        lower.clear();
        lower.extend_from_slice(name);
        lower.make_ascii_lowercase();
        let indexing = if never { Indexing::Never } else { indexing(&lower, value, kind) };
        match static_table::find(&lower, value) {
            Some((index, true)) if indexing != Indexing::Never => {
                integer::encode(index, 7, 0b1000_0000, out);
            }
            known => {
                let known = known.map(|(index, _)| index);
                let named = Named { name: &lower, hash: hash(0, &lower), known };
                self.put(named, value, kind, indexing, |stored| stored.name() == lower, out);
            }
        }
        self.name = lower;
    }

    /// Appends `:status`.
    #[inline]
    pub fn status(&mut self, status: StatusCode, out: &mut Vec<u8>) {
        let index = match status.as_u16() {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                let value = status.as_str().as_bytes();
                return self.field(b":status", value, HeaderKind::Other, false, out);
            }
        };
        out.push(0b1000_0000 | index);
    }

    /// Begins a field whose value comes in pieces.
    pub fn begin_field(&mut self, kind: HeaderKind, name: &[u8]) {
        self.text.clear();
        self.text.extend_from_slice(name);
        self.pieces = (kind, name.len());
    }

    /// A piece of the value.
    pub fn value(&mut self, piece: &[u8]) {
        self.text.extend_from_slice(piece);
    }

    /// Appends the field.
    pub fn end_field(&mut self, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.text);
        let (kind, name_len) = self.pieces;
        self.field(&text[..name_len], &text[name_len..], kind, false, out);
        self.text = text;
    }

    /// Appends a field that the static table does not have. `has_name`: whether a field of the table has its
    /// name.
    #[inline(always)]
    fn put(
        &mut self,
        named: Named<'_>,
        value: &[u8],
        kind: HeaderKind,
        indexing: Indexing,
        has_name: impl Fn(&Stored<'_>) -> bool,
        out: &mut Vec<u8>,
    ) {
        let is_indexed = matches!(indexing, Indexing::AtOnce | Indexing::Again);
        // What goes into no table is not looked for.
        if !is_indexed {
            return self.put_literal(named, value, kind, indexing, 0, out);
        }
        // Most fields have the value that their name had last.
        let last = self.names[slot(named.hash)];
        let found = |number| {
            let (back, stored) = self.table.numbered(number)?;
            (has_name(&stored) && stored.value() == value).then_some(FIRST_DYNAMIC + back)
        };
        if let Some(index) = found(last) {
            return integer::encode(index, 7, 0b1000_0000, out);
        }
        let field_hash = hash(named.hash, value);
        let number = self.fields[slot(field_hash)];
        if number != last
            && let Some(index) = found(number)
        {
            return integer::encode(index, 7, 0b1000_0000, out);
        }
        self.put_literal(named, value, kind, indexing, field_hash, out);
    }

    /// Appends a field that no table has, and puts it into ours if it is to be there.
    fn put_literal(
        &mut self,
        named: Named<'_>,
        value: &[u8],
        kind: HeaderKind,
        indexing: Indexing,
        field_hash: u64,
        out: &mut Vec<u8>,
    ) {
        let Named { name, hash: name_hash, known } = named;
        let known_name = known.or_else(|| {
            let (back, stored) = self.table.numbered(self.names[slot(name_hash)])?;
            (stored.name() == name).then_some(FIRST_DYNAMIC + back)
        });
        let fits = name.len() + value.len() + super::FIELD_OVERHEAD <= self.table.max() as usize / 2;
        let adds = match indexing {
            Indexing::AtOnce => fits,
            Indexing::Again => {
                let tag = (field_hash >> 32) as u32 | 1;
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
            self.table.add_field(name, value, super::mark::Mark::regular(kind));
            self.fields[slot(field_hash)] = number;
            self.names[slot(name_hash)] = number;
        }
    }
}

/// The name of a field at hand.
struct Named<'a> {
    /// Lower case.
    name: &'a [u8],
    hash: u64,
    /// The index of a field of this name in the static table.
    known: Option<u32>,
}

/// The one value of a field other than the pseudo-header fields that the static table has.
const GZIP_DEFLATE: &[u8] = b"gzip, deflate";

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

#[inline]
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
    let len = text.len();
    let four =
        |at: usize| u64::from(u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]));
    // The last word may have bytes of the one before it, too.
    let last = match (text.last_chunk::<8>(), len) {
        (Some(eight), _) => u64::from_le_bytes(*eight),
        (None, 4..) => four(0) << 32 | four(len - 4),
        (None, 1..) => u64::from(text[0]) << 16 | u64::from(text[len / 2]) << 8 | u64::from(text[len - 1]),
        (None, _) => 0,
    };
    let words = text.as_chunks::<8>().0;
    let whole = words.iter().fold(seed ^ len as u64, |h, w| mix(h, u64::from_le_bytes(*w)));
    mix(mix(whole, last), 0)
}

fn slot(hash: u64) -> usize {
    (hash >> 20) as usize % SLOTS
}
