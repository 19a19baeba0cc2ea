//! The heads that one connection sends: written in whole, sent as the socket takes them.

use super::write::Writer;
use crate::cause::Cause;
use crate::http::Violation;
use crate::page::{LARGE_BYTES, PageId, Pages};

/// Heads that have been written and not wholly sent: a final one, maybe interim ones before it.
#[derive(Debug, Default)]
pub(crate) struct RenderedHeads {
    memory: Memory,
    len: u32,
    sent: u32,
}

/// Where the heads lie.
#[derive(Debug, Default)]
enum Memory {
    #[default]
    None,
    Page(PageId),
    /// The head of a reply of our own: it has to be sent when no page is free, too.
    Heap(Box<HeapHeads>),
}

/// Behind one thin pointer, because nearly no connection has it.
#[derive(Debug)]
struct HeapHeads {
    bytes: Box<[u8]>,
}

impl RenderedHeads {
    /// What has not been sent.
    #[inline]
    pub(crate) fn pending<'a>(&'a self, pages: &'a Pages) -> &'a [u8] {
        if self.is_done() { &[] } else { &self.bytes(pages)[self.sent as usize..self.len as usize] }
    }

    #[inline]
    fn bytes<'a>(&'a self, pages: &'a Pages) -> &'a [u8] {
        match &self.memory {
            Memory::Page(page) => pages.bytes(page),
            Memory::Heap(heap) => &heap.bytes,
            Memory::None => &[],
        }
    }

    /// All of them have been sent.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.sent == self.len
    }

    /// `n` bytes have been sent; returns how many were not of heads.
    #[inline]
    pub(crate) fn advance(&mut self, n: usize) -> usize {
        let of_heads = n.min((self.len - self.sent) as usize);
        self.sent += of_heads as u32;
        n - of_heads
    }

    /// Writes behind what of earlier heads has not been sent yet.
    pub(super) fn write(&mut self, pages: &mut Pages, write: impl Fn(&mut Writer<'_>)) -> Result<(), Cause> {
        if self.is_done() {
            (self.len, self.sent) = (0, 0);
        }
        let page = match &mut self.memory {
            Memory::Page(page) => page,
            other => {
                *other = Memory::Page(pages.lend().ok_or(Cause::NoPages)?);
                let Memory::Page(page) = other else { unreachable!("just lent") };
                page
            }
        };
        let mut w = Writer::new(&mut pages.bytes_mut(page)[self.len as usize..]);
        write(&mut w);
        match w.finish() {
            Some(written) => self.len += written as u32,
            None => self.write_to_large(pages, write)?,
        }
        Ok(())
    }

    /// As [`Self::write`], when the small page is too small.
    #[cold]
    fn write_to_large(&mut self, pages: &mut Pages, write: impl Fn(&mut Writer<'_>)) -> Result<(), Cause> {
        let too_large = Cause::BadResponse(Violation::HeadTooLarge);
        let Memory::Page(small) = &self.memory else { return Err(too_large) };
        if Pages::size(small) == LARGE_BYTES {
            return Err(too_large);
        }
        let large = pages.lend_large().ok_or(Cause::NoPages)?;
        let before = pages.detach(small);
        let len = self.len as usize;
        pages.bytes_mut(&large)[..len].copy_from_slice(&before[..len]);
        pages.restore(small, before);
        let mut w = Writer::new(&mut pages.bytes_mut(&large)[len..]);
        write(&mut w);
        let written = w.finish();
        if let Memory::Page(small) = std::mem::replace(&mut self.memory, Memory::Page(large)) {
            pages.give_back(small);
        }
        self.len += written.ok_or(too_large)? as u32;
        Ok(())
    }

    /// As [`Self::write`], but without a page; heads of which nothing has been sent move there.
    #[cold]
    pub(super) fn write_to_heap(
        &mut self,
        pages: &mut Pages,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), Cause> {
        let mut heap = self.pending(pages).to_vec();
        let mut room = [0; crate::page::SMALL_BYTES];
        let mut w = Writer::new(&mut room);
        write(&mut w);
        let written = w.finish().ok_or(Cause::BadResponse(Violation::HeadTooLarge))?;
        heap.extend_from_slice(&room[..written]);
        self.clear(pages);
        self.len = heap.len() as u32;
        self.memory = Memory::Heap(Box::new(HeapHeads { bytes: heap.into() }));
        Ok(())
    }

    /// Forgets all of them and gives their memory back.
    #[inline]
    pub(crate) fn clear(&mut self, pages: &mut Pages) {
        if let Memory::Page(page) = std::mem::take(&mut self.memory) {
            pages.give_back(page);
        }
        (self.len, self.sent) = (0, 0);
    }

    /// Pages in use.
    pub(crate) fn pages(&self) -> usize {
        usize::from(matches!(self.memory, Memory::Page(_)))
    }

    /// Bytes of them have been sent.
    #[inline]
    pub(super) fn has_sent(&self) -> bool {
        self.sent > 0
    }

    /// Forgets heads of which nothing has been sent; their memory stays for others.
    pub(super) fn withdraw(&mut self) {
        debug_assert_eq!(self.sent, 0, "nothing of it has been sent");
        self.len = 0;
    }

    /// Copies a payload behind them. False if something has been sent, or if there is no room.
    pub(super) fn join(&mut self, payload: &[u8], pages: &mut Pages) -> bool {
        let (Memory::Page(page), 0) = (&self.memory, self.sent) else { return false };
        let start = self.len as usize;
        let end = start + payload.len();
        let Some(room) = pages.bytes_mut(page).get_mut(start..end) else { return false };
        room.copy_from_slice(payload);
        self.len = end as u32;
        true
    }

    /// Gives its page away, if all has been sent.
    #[inline]
    pub(super) fn take_page(&mut self) -> Option<PageId> {
        if !self.is_done() {
            return None;
        }
        (self.len, self.sent) = (0, 0);
        match std::mem::take(&mut self.memory) {
            Memory::Page(page) => Some(page),
            Memory::None | Memory::Heap(_) => None,
        }
    }

    /// Takes over a page, unless it has one.
    #[inline]
    pub(super) fn give_page(&mut self, page: PageId, pages: &mut Pages) {
        if matches!(self.memory, Memory::None) {
            self.memory = Memory::Page(page);
        } else {
            pages.give_back(page);
        }
    }
}
