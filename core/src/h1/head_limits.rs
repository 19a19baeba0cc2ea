//! What parsing a head needs: its limits, and room for where its field lines lie.

use crate::http::FieldLine;
use crate::planted::planted;

/// The most field lines that a head can have, whatever [`HeadLimits::fields`] says.
pub const MAX_FIELDS: usize = 256;

/// Limits of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of a whole head, its empty line included. Heads of 64 KiB and more are never accepted.
    pub head_bytes: usize,
    /// Field lines, at most [`MAX_FIELDS`].
    pub fields: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
}

/// Where the field lines of a head lie: written by the parse functions and borrowed by what they return. It
/// takes 2.5 KiB, so one of them is kept and lent for each head.
#[derive(Debug, Default)]
pub struct FieldIndex {
    /// Allocated by the first use.
    lines: Option<Box<[FieldLine; MAX_FIELDS]>>,
}

impl FieldIndex {
    /// An empty index; it allocates when it is first used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for as many lines as the limits allow.
    #[inline]
    pub(super) fn room(&mut self, limits: &HeadLimits) -> &mut [FieldLine] {
        let lines = self.lines.get_or_insert_with(|| Box::new([FieldLine::EMPTY; MAX_FIELDS]));
        let most = if planted!(157) { limits.fields + 1 } else { limits.fields };
        &mut lines[..most.min(MAX_FIELDS)]
    }
}

/// What is known of the request that a response belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseContext {
    /// The method was HEAD.
    pub head: bool,
    /// An `Upgrade` was forwarded.
    pub upgrade: bool,
}
