//! Trailer sections (RFC 9112 §7.1.2): found, read and filtered.

use super::head::HeadLimits;
use crate::http::{Field, Violation};

/// The most trailer fields a message can have.
pub const MAX_TRAILERS: usize = 64;

/// Room for the fields of a trailer section.
pub struct TrailerStore<'b> {
    _headers: [httparse::Header<'b>; MAX_TRAILERS],
}

impl TrailerStore<'_> {
    /// Empty room.
    #[must_use]
    pub fn new() -> Self {
        Self { _headers: [httparse::EMPTY_HEADER; MAX_TRAILERS] }
    }
}

impl Default for TrailerStore<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// A trailer section, or the wait for one.
#[derive(Clone, Copy, Debug)]
pub enum Trailers<'a> {
    /// Not all of it is there.
    Partial,
    /// All of it.
    Done {
        /// Bytes with the empty line.
        len: usize,
        /// The fields that may pass.
        fields: TrailerFields<'a>,
    },
}

/// The fields of a trailer section that may pass (RFC 9110 §6.5.1): none that frame, route, authenticate or describe the content.
#[derive(Clone, Copy, Debug)]
pub struct TrailerFields<'a> {
    headers: &'a [httparse::Header<'a>],
}

impl<'a> TrailerFields<'a> {
    /// Them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let headers = self.headers;
        headers.iter().map(|h| Field { name: h.name.as_bytes(), value: h.value, known: crate::http::Known::Other })
    }
}

/// Reads a trailer section that begins at `buf[0]` and of which `from` bytes were already looked at.
pub fn trailers<'s, 'b: 's>(
    _buf: &'b [u8],
    _from: usize,
    _store: &'s mut TrailerStore<'b>,
    _limits: &HeadLimits,
) -> Result<Trailers<'s>, Violation> {
    todo!()
}
