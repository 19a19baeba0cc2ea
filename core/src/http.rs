//! The vocabulary that HTTP/1.1 and, later, HTTP/2 share: fields and what they are, request targets, dates,
//! and the rules a message can break. Nothing here knows how bytes are framed on a connection.

pub mod date;
pub(crate) mod decimal;
pub mod fields;
pub mod ip;
pub mod target;
mod violation;

pub use fields::{Field, Fields, HeaderKind};
pub use target::{Form, Host, Scheme, Target};
pub use violation::Violation;

/// How long a message's content is, as its head declares it (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No content, and nothing said about it.
    None,
    /// `Content-Length`, in bytes, 0..=2^63-1.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the connection closes; answers only.
    Close,
}

impl Framing {
    /// Whether not a byte of content follows.
    #[must_use]
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}
