//! Compresses responses in a coding that the client takes. The rest of a response's head is made to fit: what
//! spoke of the content as it was is changed or goes.

mod encoder;
mod encoders;
mod response;

use std::sync::Arc;

use super::{Action, Counter, Ctx, Middleware, Transform, TransformProgress};
use crate::config;
use crate::http::{ContentCoding, HeaderKind, MediaRange, Method, ResponseHead, StatusCode};
use crate::local_reply::LocalReply;
use crate::planted::planted;
use encoder::{Kind, Operation};
pub(super) use encoders::Encoders;
use encoders::Lent;
use response::Described;

/// No content up to this length, in bytes, is compressed, whatever the configuration says: it would grow.
const MAX_TINY_BYTES: u64 = 64;

/// What is text: the media types that are compressed where the configuration names none.
const TEXT: &[&str] = &[
    "text/*",
    "*/*+json",
    "*/*+xml",
    "*/*+yaml",
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/xml",
    "application/xml-dtd",
    "application/yaml",
    "application/x-yaml",
    "application/toml",
    "application/sql",
    "application/graphql",
    "application/ndjson",
    "application/x-ndjson",
    "application/jsonl",
    "application/json-seq",
    "application/rtf",
    "application/wgsl",
    "application/x-sh",
    "application/x-www-form-urlencoded",
    "application/vnd.apple.mpegurl",
];

/// Compresses responses.
#[derive(Debug)]
pub(super) struct Compression {
    algorithms: Vec<ContentCoding>,
    level: Option<u8>,
    min_bytes: u64,
    types: Vec<MediaRange>,
    encoders: Arc<Encoders>,
}

/// What the client said when its request passed: another middleware may remove the field from what goes to
/// the backend.
#[derive(Clone, Copy, Debug, Default)]
struct Negotiated(Option<ContentCoding>);

impl Compression {
    /// `encoders`: those of the process.
    pub(super) fn new(configured: &config::Compression, encoders: Arc<Encoders>) -> Self {
        let text = || TEXT.iter().filter_map(|text| MediaRange::parse(text)).collect();
        Self {
            algorithms: configured.algorithms.clone(),
            level: configured.level,
            min_bytes: configured.min_bytes.max(MAX_TINY_BYTES + 1),
            types: configured.types.clone().unwrap_or_else(text),
            encoders,
        }
    }

    /// The coding that the client wants most, of those that are allowed for its request.
    fn negotiate(&self, ctx: &Ctx<'_>) -> Option<ContentCoding> {
        let fields = ctx.request.fields();
        if !fields.has(HeaderKind::AcceptEncoding)
            || *ctx.request.method() == Method::HEAD
            || response::forbids_transform(fields)
        {
            return None;
        }
        let lines = fields.iter().filter(|field| field.kind == HeaderKind::AcceptEncoding);
        ContentCoding::negotiate(lines.map(|field| field.value), &self.algorithms)
    }

    fn is_compressible(&self, head: &ResponseHead) -> bool {
        let media_type = head.field(HeaderKind::ContentType);
        media_type.is_some_and(|media_type| self.types.iter().any(|range| range.matches(media_type)))
    }
}

impl Middleware for Compression {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        // Nothing is kept for a client that takes none.
        if let Some(coding) = self.negotiate(ctx) {
            ctx.state::<Negotiated>().0 = Some(coding);
        }
        Action::Continue
    }

    fn on_response(&self, ctx: &mut Ctx<'_>, head: &mut ResponseHead) {
        let described = Described::by(head);
        if head.status() == StatusCode::NOT_MODIFIED {
            let stored = ctx.request.fields();
            return response::revalidate(head, &described, stored);
        }
        if !may_be_compressed(head) || !self.is_compressible(head) {
            return;
        }
        if !described.varies && head.add_field(b"Vary", b"Accept-Encoding").is_err() {
            return;
        }
        let Some(coding) = ctx.kept::<Negotiated>().and_then(|negotiated| negotiated.0) else { return };
        let len = head.content_length;
        if described.is_part
            || head.status() == StatusCode::PARTIAL_CONTENT
            || len.is_some_and(|len| len < self.min_bytes)
        {
            return;
        }
        let Some(encoder) = self.encoders.lend(Kind::new(coding, self.level, len), len) else { return };
        if head.add_field(b"Content-Encoding", coding.name().as_bytes()).is_err() {
            return;
        }
        response::describe_compressed(head, &described);
        ctx.transform(Box::new(CompressBody::new(encoder, coding)));
    }
}

/// Whether content follows that nobody has encoded yet, and that may be changed (RFC 9110 §7.7).
fn may_be_compressed(head: &ResponseHead) -> bool {
    let status = head.status();
    let empty = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    !empty && !head.fields().has(HeaderKind::ContentEncoding) && !response::forbids_transform(head.fields())
}

/// Compresses a body on its way.
#[derive(Debug)]
struct CompressBody {
    /// Gone once the body has ended.
    encoder: Option<Lent>,
    coding: ContentCoding,
    original: u64,
    compressed: u64,
    /// Something has been taken and not been flushed.
    holds_back: bool,
    /// A flush has begun, and more of it comes.
    flushing: bool,
}

impl CompressBody {
    fn new(encoder: Lent, coding: ContentCoding) -> Self {
        Self {
            encoder: Some(encoder),
            coding,
            original: 0,
            compressed: 0,
            holds_back: false,
            flushing: false,
        }
    }

    fn encode(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        operation: Operation,
    ) -> Result<TransformProgress, Box<LocalReply>> {
        let failed = || Box::new(LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR));
        let encoder = self.encoder.as_mut().ok_or_else(failed)?.encoder();
        let encoded = encoder.run(input, output, operation).map_err(|_| failed())?;
        self.original += encoded.taken as u64;
        self.compressed += encoded.put as u64;
        Ok(TransformProgress { taken: encoded.taken, put: encoded.put, done: encoded.done })
    }
}

impl Transform for CompressBody {
    fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        ended: bool,
    ) -> Result<TransformProgress, Box<LocalReply>> {
        let flushed = if self.flushing { self.flush(output)? } else { 0 };
        let output = &mut output[flushed..];
        if self.flushing || output.is_empty() || (input.is_empty() && !ended) {
            return Ok(TransformProgress { taken: 0, put: flushed, done: false });
        }
        let finishes = ended && !planted!(149);
        let operation = if finishes { Operation::Finish } else { Operation::Process };
        let mut progress = self.encode(input, output, operation)?;
        self.holds_back |= progress.taken > 0;
        progress.done |= ended && !finishes && progress.taken == input.len();
        if progress.done {
            // It can be of use to another body while this one is still on its way.
            self.encoder = None;
        }
        progress.put += flushed;
        Ok(progress)
    }

    fn flush(&mut self, output: &mut [u8]) -> Result<usize, Box<LocalReply>> {
        if !self.holds_back {
            return Ok(0);
        }
        let progress = self.encode(&[], output, Operation::Flush)?;
        self.flushing = !progress.done;
        self.holds_back = !progress.done;
        Ok(progress.put)
    }

    fn counter(&self) -> Option<Counter> {
        Some(Counter::Compressed {
            encoding: self.coding.name(),
            original: self.original,
            compressed: self.compressed,
        })
    }
}

#[cfg(test)]
mod tests;
