//! HTTP/1.1 on the wire: heads, bodies, what may follow what, and writing. No sockets, no clock, no pages:
//! bytes in, meaning out.

pub mod body;
pub mod chunk_encoder;
mod chunked;
mod diagnose;
mod field_lines;
mod framing_fields;
mod head;
mod head_end;
pub mod machine;
mod parsed;
pub mod trailers;
mod upgrade;
pub mod write;

pub use body::{BodyProgress, BodyReader, Received};
pub use chunk_encoder::ChunkEncoder;
pub use head::{ParseError, parse_request, parse_request_prefix, parse_response, parse_response_prefix};
pub use head_end::{find_request_end, find_response_end, too_large};
pub use machine::{Event, IllegalEvent, MessageStates, Side, State};
pub use parsed::{FieldIndex, HeadLimits, MAX_FIELDS, ParsedRequest, ParsedResponse, ResponseContext};
pub use trailers::{TrailerIndex, Trailers, parse_trailers};
pub use upgrade::was_offered;
pub use write::{
    ForwardedHeaders, RequestForward, RequestId, ResponseForward, Writer, client_framing, forward_interim,
    forward_request, forward_response, forward_trailers,
};
