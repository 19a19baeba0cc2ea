//! HTTP/2 on the wire (RFC 9113): frames, field compression (RFC 7541), what may follow what, flow control,
//! and budgets for what costs a peer less than it costs us. No sockets, no clock, no pages: bytes in, meaning
//! out.
//!
//! | module | what it is |
//! |---|---|
//! | [`hpack`] | field sections as bytes, and back |
//! | [`frame`], [`write`] | frames: from bytes to meaning, and back |
//! | [`settings`], [`Reason`] | what one side lets the other do; why something ends |

pub mod frame;
pub mod hpack;
mod reason;
pub mod settings;
pub mod write;

pub use reason::Reason;
