//! How far a body has been read, however it is framed.

/// What a call of [`BodyReader::receive`](super::BodyReader::receive) found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of payload, now at the front of the buffer.
    pub payload: usize,
    /// Bytes of the buffer that were dealt with, payload included. What follows them is untouched, and may
    /// belong to the next message.
    pub consumed: usize,
    /// What comes next.
    pub state: BodyProgress,
}

/// Where a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyProgress {
    /// More is to come.
    More,
    /// The last chunk is over; gather the trailer section for [`parse_trailers`](super::parse_trailers), then
    /// call [`BodyReader::trailers_done`](super::BodyReader::trailers_done).
    Trailers,
    /// Over.
    Done,
}
