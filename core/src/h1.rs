//! HTTP/1.1 on the wire: heads, bodies, what may follow what, and writing. No sockets, no time, no pages: bytes in, meaning out.

pub mod body;
mod chunked;
mod diagnose;
pub mod head;
pub mod machine;
pub mod rechunk;
mod scan;
mod seen;
pub mod trailers;
mod upgrade;
pub mod write;

pub use body::{BodyReader, Progress, Received};
pub use head::{
    AnswerHead, Asked, HeadLimits, Request, Stopped, Store, answer, answer_before, find_answer_end, find_end, request, request_before,
    too_large,
};
pub use machine::{Broken, Event, Machine, Side, State};
pub use rechunk::ChunkWriter;
pub use trailers::{TrailerStore, Trailers, trailers};
pub use upgrade::was_offered;
pub use write::{
    AnswerForward, Arrival, Forward, RequestId, Writer, client_framing, forward_answer, forward_interim, forward_request, forward_trailers,
};
