//! The chunked coding on the way in (RFC 9112 §7.1): strict, in place, linear.

use super::body::{Progress, Received};
use crate::http::Violation;

/// Decodes one chunked message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    _left: u64,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { _left: 0 }
    }
    pub(super) fn progress(self) -> Progress {
        todo!()
    }
    pub(super) fn receive(&mut self, _buf: &mut [u8]) -> Result<Received, Violation> {
        todo!()
    }
    pub(super) fn trailers_done(&mut self) {
        todo!()
    }
}
