//! HTTP/1.1 on the wire: heads, bodies, what may follow what, and writing. No sockets, no time, no pages:
//! bytes in, meaning out.

pub mod body;
pub mod chunk_encoder;
mod chunked;
mod diagnose;
pub mod head;
pub mod machine;
mod scan;
mod seen;
pub mod trailers;
mod upgrade;
pub mod write;

pub use body::{BodyReader, Progress, Received};
pub use chunk_encoder::ChunkEncoder;
pub use head::{
    FieldIndex, HeadLimits, ParseError, Request, ResponseContext, ResponseHead, find_request_end,
    find_response_end, parse_request_prefix, parse_response_prefix, request, response, too_large,
};
pub use machine::{Broken, Event, Machine, Side, State};
pub use trailers::{TrailerIndex, Trailers, trailers};
pub use upgrade::was_offered;
pub use write::{
    ForwardedHeaders, RequestForward, RequestId, ResponseForward, Writer, client_framing, forward_interim,
    forward_request, forward_response, forward_trailers,
};
