//! HTTP/2 on the wire (RFC 9113): frames, field compression (RFC 7541), what may follow what, flow control,
//! and budgets for what costs a peer less than it costs us. No sockets, no clock, no pages: bytes in, meaning
//! out.
//!
//! | module | what it is |
//! |---|---|
//! | [`conn`] | one connection, of either side |
//! | [`machine`] | what may follow what on a stream, in one table |
//! | [`flow`], [`abuse`] | windows; budgets |
//! | [`priority`], [`schedule`] | how urgent a stream is; which one is served next |
//! | [`keepalive`] | whether a peer still answers |
//! | [`head`] | requests, responses and trailers from decoded fields, and which are malformed |
//! | [`hpack`] | field sections as bytes, and back |
//! | [`frame`], [`mod@write`] | frames: from bytes to meaning, and back |
//! | [`settings`], [`Reason`] | what one side lets the other do; why something ends |

pub mod abuse;
pub mod conn;
pub mod flow;
pub mod frame;
pub mod head;
pub mod hpack;
pub mod keepalive;
pub mod machine;
pub mod priority;
mod reason;
pub mod schedule;
pub mod settings;
mod stream;
pub mod write;

pub use conn::{Conn, Event, Limits, Received, Role};
pub use reason::Reason;
