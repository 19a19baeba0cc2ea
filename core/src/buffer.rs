//! What has been received on a connection and is still needed: one page, and what of it is what.

use crate::page::{LARGE_BYTES, PageId, Pages};
use crate::planted::planted;

/// Received bytes: `[payload.0, payload.1)` is decoded payload, `[unparsed, end)` is not yet understood.
/// `payload.0 <= payload.1 <= unparsed <= end`; what lies between is free.
#[derive(Debug, Default)]
pub(crate) struct ReceiveBuffer {
    page: Option<PageId>,
    payload: (u32, u32),
    unparsed: u32,
    end: u32,
    /// How much of `unparsed..` has been searched for the end of a head or of a trailer section.
    searched: u32,
}

impl ReceiveBuffer {
    /// It holds a page.
    #[inline]
    pub(crate) fn has_page(&self) -> bool {
        self.page.is_some()
    }

    /// Begins to use a page.
    pub(crate) fn set_page(&mut self, page: PageId) {
        // Afresh: a panic may have lost the page before it.
        *self = Self { page: Some(page), ..Self::default() };
    }

    /// Nothing in it is needed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.payload.0 == self.payload.1 && self.unparsed == self.end
    }

    #[inline]
    pub(crate) fn payload_len(&self) -> usize {
        (self.payload.1 - self.payload.0) as usize
    }

    #[inline]
    pub(crate) fn unparsed_len(&self) -> usize {
        (self.end - self.unparsed) as usize
    }

    /// How much of the unparsed bytes has been searched already.
    #[inline]
    pub(crate) fn searched(&self) -> usize {
        self.searched as usize
    }

    /// All unparsed bytes have been searched.
    #[inline]
    pub(crate) fn all_searched(&mut self) {
        self.searched = self.end - self.unparsed;
    }

    /// The payload.
    #[inline]
    pub(crate) fn payload<'a>(&self, pages: &'a Pages) -> &'a [u8] {
        match &self.page {
            Some(page) => &pages.bytes(page)[self.payload.0 as usize..self.payload.1 as usize],
            None => &[],
        }
    }

    /// The unparsed bytes.
    #[inline]
    pub(crate) fn unparsed<'a>(&self, pages: &'a Pages) -> &'a [u8] {
        match &self.page {
            Some(page) => &pages.bytes(page)[self.unparsed as usize..self.end as usize],
            None => &[],
        }
    }

    /// The unparsed bytes, to be decoded in place.
    pub(crate) fn unparsed_mut<'a>(&self, pages: &'a mut Pages) -> &'a mut [u8] {
        match &self.page {
            Some(page) => &mut pages.bytes_mut(page)[self.unparsed as usize..self.end as usize],
            None => &mut [],
        }
    }

    /// Room behind what is there, made as large as it can be. Only with a page.
    #[inline]
    pub(crate) fn room<'a>(&mut self, pages: &'a mut Pages) -> &'a mut [u8] {
        let page = self.page.as_ref().expect("a page to read into");
        if self.is_empty() {
            (self.payload, self.unparsed, self.end, self.searched) = ((0, 0), 0, 0, 0);
        } else if self.end as usize == Pages::size(page) {
            self.move_to_front(pages);
        }
        let page = self.page.as_ref().expect("still there");
        &mut pages.bytes_mut(page)[self.end as usize..]
    }

    /// `n` bytes were read into the room.
    #[inline]
    pub(crate) fn received(&mut self, n: usize) {
        self.end += n as u32;
    }

    /// What was read last has filled the room that there was.
    pub(crate) fn is_full(&self) -> bool {
        self.page.as_ref().is_some_and(|page| self.end as usize == Pages::size(page))
    }

    /// Whether more could be read into it, perhaps after moving what is there.
    pub(crate) fn has_room(&self) -> bool {
        match &self.page {
            None => true,
            Some(page) => (self.end as usize) < Pages::size(page) || self.movable(Pages::size(page)),
        }
    }

    /// Takes a large page in the place of a small one, with what is needed. False if there is none, or if it
    /// is large already.
    #[cold]
    pub(crate) fn grow(&mut self, pages: &mut Pages) -> bool {
        let Some(small) = self.page.take_if(|page| Pages::size(page) < LARGE_BYTES) else { return false };
        let Some(large) = pages.lend_large() else {
            self.page = Some(small);
            return false;
        };
        let (from, len) = self.needed();
        let before = pages.detach(&small);
        let needed = &before[from as usize..(from + len) as usize];
        pages.bytes_mut(&large)[..len as usize].copy_from_slice(needed);
        pages.restore(&small, before);
        pages.give_back(small);
        self.moved_to_front(from);
        self.page = Some(large);
        true
    }

    /// Moving costs a copy. Payload moves only if that gains half a page, so each byte is moved once at most,
    /// on average; the beginning of a head has to move to have room for its end, and does so once.
    fn movable(&self, size: usize) -> bool {
        let (from, _) = self.needed();
        from > 0 && (from as usize * 2 >= size || self.payload.0 == self.payload.1) || self.is_empty()
    }

    /// First needed byte, and how many are needed.
    fn needed(&self) -> (u32, u32) {
        let from = if self.payload.0 == self.payload.1 { self.unparsed } else { self.payload.0 };
        (from, self.end - from)
    }

    /// Gives the page back if nothing in it is needed.
    #[inline(always)]
    pub(crate) fn trim(&mut self, pages: &mut Pages) {
        if self.page.is_some() && self.is_empty() {
            self.clear(pages);
        }
    }

    /// Drops everything.
    #[inline(always)]
    pub(crate) fn clear(&mut self, pages: &mut Pages) {
        if let Some(page) = self.page.take()
            && !planted!(1)
        {
            pages.give_back(page);
        }
        *self = Self::default();
    }

    /// What is needed moves to the front of the page, if that is worth it.
    #[cold]
    fn move_to_front(&mut self, pages: &mut Pages) {
        let Some(page) = &self.page else { return };
        if !self.movable(Pages::size(page)) {
            return;
        }
        let (from, len) = self.needed();
        pages.bytes_mut(page).copy_within(from as usize..(from + len) as usize, 0);
        self.moved_to_front(from);
    }

    /// What is needed began at `from`, and begins at 0 now.
    fn moved_to_front(&mut self, from: u32) {
        if self.payload.0 == self.payload.1 {
            self.payload = (0, 0);
        } else {
            self.payload = (0, self.payload.1 - from);
        }
        self.unparsed -= from;
        self.end -= from;
    }

    /// Drops the payload.
    pub(crate) fn drop_payload(&mut self) {
        self.payload = (self.unparsed, self.unparsed);
    }

    /// The first `n` bytes of the payload are needed no more.
    #[inline]
    pub(crate) fn release(&mut self, n: usize) {
        self.payload.0 += n as u32;
        debug_assert!(self.payload.0 <= self.payload.1);
        if self.payload.0 == self.payload.1 {
            self.payload = (self.unparsed, self.unparsed);
        }
    }

    /// The first `n` unparsed bytes have been understood and are needed no more.
    #[inline]
    pub(crate) fn consume(&mut self, n: usize) {
        self.unparsed += n as u32;
        self.searched = 0;
        debug_assert!(self.unparsed <= self.end);
        if self.payload.0 == self.payload.1 {
            self.payload = (self.unparsed, self.unparsed);
        }
    }

    /// The first `consumed` unparsed bytes have been decoded, and the first `payload` of them are payload
    /// now.
    #[inline]
    pub(crate) fn decoded(&mut self, payload: usize, consumed: usize) {
        if self.payload.0 == self.payload.1 {
            self.payload = (self.unparsed, self.unparsed);
        }
        debug_assert_eq!(self.payload.1, self.unparsed);
        self.payload.1 += payload as u32;
        self.unparsed += consumed as u32;
        self.searched = 0;
        if self.unparsed == self.end {
            (self.unparsed, self.end) = (self.payload.1, self.payload.1);
        }
    }

    /// Pages that it holds.
    pub(crate) fn pages(&self) -> usize {
        usize::from(self.page.is_some())
    }

    /// Its invariants; for tests and debug builds.
    pub(crate) fn check(&self) {
        assert!(
            self.payload.0 <= self.payload.1 && self.payload.1 <= self.unparsed && self.unparsed <= self.end
        );
        assert!(self.page.as_ref().map_or(self.end == 0, |p| self.end as usize <= Pages::size(p)));
    }
}
