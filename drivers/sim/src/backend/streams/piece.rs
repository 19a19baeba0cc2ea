//! The parts of what a stream is answered with.

use crate::http2::FieldPairs;

/// A part of what a stream is answered with.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// Nothing for so long.
    Pause(u64),
    Interim(FieldPairs),
    /// The head of the final response. `good`: it is one.
    Head {
        fields: FieldPairs,
        good: bool,
    },
    /// The content up to this place.
    Data(usize),
    /// Trailers, which end the stream.
    Trailers(FieldPairs),
    /// The end of the stream.
    End,
    /// RST_STREAM with this code.
    Reset(u32),
}
