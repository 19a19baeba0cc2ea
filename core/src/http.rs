//! The vocabulary that HTTP/1.1 and HTTP/2 share: methods, status codes and versions (those of the `http`
//! crate), fields and what they are, request targets, dates, and the rules a message can break. Nothing here
//! knows how bytes are framed on a connection.

mod connection_credentials;
mod content_coding;
pub mod date;
mod field_list;
mod field_spelling;
pub mod fields;
pub mod forward;
pub(crate) mod hex;
pub mod ip;
mod media_range;
mod parsed;
mod request_head;
mod response_head;
pub mod target;
mod trailer_fields;
mod violation;
pub(crate) mod websocket;

pub use ::http::{Method, StatusCode, Version};
pub(crate) use connection_credentials::{asks_for_connection_credentials, has_connection_credentials};
pub use content_coding::ContentCoding;
pub(crate) use content_coding::weight;
pub use field_list::HeadFull;
pub(crate) use field_list::WrittenField;
pub(crate) use field_spelling::may_be_taken_for;
pub use fields::{Field, FieldLine, Fields, HeaderKind};
pub use media_range::MediaRange;
pub use parsed::{ParsedRequest, ParsedResponse};
pub use request_head::RequestHead;
pub use response_head::ResponseHead;
pub(crate) use response_head::reason_phrase;
pub use target::{Form, Host, RequestTarget, Scheme};
pub(crate) use trailer_fields::may_trail;
pub use violation::Violation;

/// How long a message's content is, as its head declares it (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No content, and no field that says so.
    None,
    /// `Content-Length`, in bytes, 0..=2^63-1.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the connection closes; responses only.
    Close,
}

impl Framing {
    /// Whether no byte of content follows.
    #[must_use]
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}
