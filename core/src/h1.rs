//! HTTP/1.1 on the wire: heads, bodies, what may follow what, and writing. No sockets, no clock, no pages:
//! bytes in, meaning out.

pub mod body;
mod body_progress;
pub mod chunk_encoder;
mod chunked;
pub(crate) mod conn;
mod diagnose;
mod field_lines;
mod framing_fields;
mod head;
mod head_end;
mod head_limits;
pub mod lenient;
mod machine;
pub(crate) mod rendered_heads;
pub mod trailers;
mod upgrade;
pub mod write;

pub use crate::http::forward::{
    ClientCertificate, ForwardedHeaders, RequestForward, RequestId, ResponseForward,
};
pub use crate::http::{ParsedRequest, ParsedResponse};
pub use body::BodyReader;
pub use body_progress::{BodyProgress, Received};
pub use chunk_encoder::ChunkEncoder;
pub use head::{ParseError, parse_request, parse_request_prefix, parse_response, parse_response_prefix};
pub use head_end::{find_request_end, find_response_end, too_large};
pub use head_limits::{FieldIndex, HeadLimits, MAX_FIELDS, ResponseContext};
pub use machine::{Event, IllegalEvent, MessageStates, Side, State};
pub use trailers::{TrailerIndex, Trailers, parse_trailers};
pub use upgrade::was_offered;
pub use write::{
    Writer, client_framing, forward_interim, forward_request, forward_response, forward_trailers,
};
