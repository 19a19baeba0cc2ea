//! Field blocks as frames (RFC 9113 §6.2, §6.10): in one, or in several, with whatever else they may have.

use super::frames::{flag, kind, put_frame};
use crate::random::SplitMix64;

/// What blocks have, in thousandths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockDraw {
    /// They come in several frames of any lengths.
    pub(crate) splits: u32,
    pub(crate) padding: u32,
    /// Priorities, which clients alone send.
    pub(crate) priorities: u32,
}

/// Appends the frames of a block. `end`: the stream ends with it. True if it was split without need.
pub(crate) fn put_block(
    out: &mut Vec<u8>,
    block: &[u8],
    rng: &mut SplitMix64,
    stream: u32,
    end: bool,
    draw: BlockDraw,
) -> bool {
    let end = if end { flag::END_STREAM } else { 0 };
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut rest = block;
    let splits = rng.chance(draw.splits);
    if splits {
        while !rest.is_empty() && parts.len() < 20 {
            let (part, behind) = rest.split_at(rng.below(rest.len() as u64 + 1) as usize);
            parts.push(part);
            rest = behind;
        }
    }
    while parts.is_empty() || !rest.is_empty() {
        let (part, behind) = rest.split_at(rest.len().min(16_000));
        parts.push(part);
        rest = behind;
    }
    let last = parts.len() - 1;
    for (at, part) in parts.into_iter().enumerate() {
        let end_headers = if at == last { flag::END_HEADERS } else { 0 };
        if at > 0 {
            put_frame(out, kind::CONTINUATION, end_headers, stream, part);
            continue;
        }
        let mut flags = end | end_headers;
        let mut payload = Vec::new();
        let padding = if rng.chance(draw.padding) { rng.below(200) as u8 } else { 0 };
        if padding > 0 {
            flags |= flag::PADDED;
            payload.push(padding);
        }
        if rng.chance(draw.priorities) {
            flags |= flag::PRIORITY;
            payload.extend_from_slice(&(stream + 2).to_be_bytes());
            payload.push(rng.below(256) as u8);
        }
        payload.extend_from_slice(part);
        payload.resize(payload.len() + usize::from(padding), 0);
        put_frame(out, kind::HEADERS, flags, stream, &payload);
    }
    splits
}
