//! HPACK (RFC 7541): field sections as bytes, and back. Everything is bounded inside the loop that reads: the
//! integers, the strings, what a section expands to and how often; see [`BlockLimits`].

mod block;
mod decode;
mod encode;
mod error;
mod huffman;
mod integer;
mod mark;
mod static_table;
mod table;

pub use block::{BlockField, FieldBlock};
pub use decode::{BlockLimits, Decoder, Fit};
pub use encode::Encoder;
pub use error::HpackError;
pub use mark::Pseudo;

/// Bytes that each field counts beyond its name and value (RFC 7541 §4.1, RFC 9113 §6.5.2).
pub const FIELD_OVERHEAD: usize = 32;
/// The size of the dynamic table, in bytes, as long as no setting says otherwise (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE_BYTES: u32 = 4096;
/// The largest dynamic table that we keep, in bytes, whatever a setting says.
pub const MAX_TABLE_BYTES: u32 = 65_536;
