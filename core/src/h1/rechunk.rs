//! The chunked coding on the way out: frames payload that stays where it lies.

/// Frames runs of payload as chunks. It holds the framing bytes; payload is borrowed when it is sent.
///
/// A chunk may grow while no byte of its header has gone; after that it never changes.
#[derive(Clone, Copy, Debug)]
pub struct ChunkWriter {
    _todo: u64,
}

impl ChunkWriter {
    /// Nothing to send yet.
    #[must_use]
    pub fn new() -> Self {
        Self { _todo: 0 }
    }

    /// `ready` bytes of payload now lie unsent in the source (all of them, also those already in the open chunk).
    pub fn open(&mut self, _ready: u64) {
        todo!()
    }

    /// No payload comes after what is ready. `trailer_len` is the length of the trailer section with its empty line, or 0 for none.
    pub fn finish(&mut self, _trailer_len: usize) {
        todo!()
    }

    /// What to send now: chunk header, payload, framing after it, trailer section. `payload` begins at the first unsent byte of payload;
    /// `trailers` is what [`ChunkWriter::finish`] was told of. Empty slices are to be skipped.
    #[must_use]
    pub fn slices<'a>(&'a self, _payload: &'a [u8], _trailers: &'a [u8]) -> [&'a [u8]; 4] {
        todo!()
    }

    /// `n` bytes of the slices have gone; returns how many of them were payload.
    pub fn sent(&mut self, _n: usize) -> usize {
        todo!()
    }

    /// Whether there is anything to send.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        todo!()
    }

    /// Whether everything, the last chunk included, has gone.
    #[must_use]
    pub fn is_done(&self) -> bool {
        todo!()
    }
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self::new()
    }
}
