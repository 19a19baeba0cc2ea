//! Who asks the same again, as with calls of one method or requests of one page, sends the same few bytes:
//! they name fields of tables that have not changed. The head is copied then, not decoded and checked anew.

use crate::h2::priority::Priority;
use crate::http::RequestHead;

/// The longest field block that is remembered, in bytes: longer ones have texts in them, which differ.
const MAX_BLOCK_BYTES: usize = 64;
/// The longest head that is remembered, in bytes: a connection keeps it while it rests.
const MAX_HEAD_BYTES: usize = 1024;

/// The last request of a connection.
#[derive(Debug, Default)]
pub(super) struct LastRequest {
    block: Vec<u8>,
    /// It has no content.
    ended: bool,
    /// [`crate::h2::hpack::Decoder::version`] before and behind it.
    version: u64,
    /// What it is, once it has come twice.
    repeated: bool,
    head: RequestHead,
    priority: Option<Priority>,
}

impl LastRequest {
    /// Whether a request is the one that has come twice.
    #[inline]
    pub(super) fn is(&self, block: &[u8], ended: bool, version: u64) -> bool {
        self.repeated && self.version == version && self.ended == ended && self.block == block
    }

    /// The priority that this request asks for.
    #[inline]
    pub(super) fn priority(&self) -> Option<Priority> {
        self.priority
    }

    /// Copies this request.
    #[inline]
    pub(super) fn copy_to(&self, head: &mut RequestHead) {
        head.copy_from(&self.head);
    }

    /// Whether a block is one that may come again.
    #[inline]
    pub(super) fn may_be(block: &[u8]) -> bool {
        block.len() <= MAX_BLOCK_BYTES
    }

    /// A request was read. `version`: the decoder's, which it has not changed.
    pub(super) fn note(
        &mut self,
        block: &[u8],
        ended: bool,
        version: u64,
        head: &RequestHead,
        priority: Option<Priority>,
    ) {
        if self.version == version && self.ended == ended && self.block == block {
            if head.fields.bytes.len() <= MAX_HEAD_BYTES {
                self.head.copy_from(head);
                (self.priority, self.repeated) = (priority, true);
            }
            return;
        }
        self.block.clear();
        self.block.extend_from_slice(block);
        (self.ended, self.version, self.repeated) = (ended, version, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_from_the_third_time_on() {
        let (mut last, head) = (LastRequest::default(), RequestHead::default());
        for _ in 0..2 {
            assert!(!last.is(b"a", true, 7));
            last.note(b"a", true, 7, &head, Some(Priority::UNSAID));
        }
        assert!(last.is(b"a", true, 7));
        assert_eq!(last.priority(), Some(Priority::UNSAID));
        assert!(!last.is(b"a", false, 7) && !last.is(b"a", true, 8) && !last.is(b"b", true, 7));
        last.note(b"b", true, 7, &head, None);
        assert!(!last.is(b"a", true, 7) && !last.is(b"b", true, 7));
    }

    #[test]
    fn long_ones_are_not_kept() {
        assert!(LastRequest::may_be(&[0x82; MAX_BLOCK_BYTES]));
        assert!(!LastRequest::may_be(&[0x82; MAX_BLOCK_BYTES + 1]));
        let (mut last, mut head) = (LastRequest::default(), RequestHead::default());
        head.add_field(b"a", &[b'x'; MAX_HEAD_BYTES]).expect("room");
        for _ in 0..3 {
            last.note(b"a", true, 0, &head, None);
        }
        assert!(!last.repeated);
    }
}
