//! Pages: the only memory that holds bytes on their way between clients and backends. They are lent, counted
//! and capped.

use std::num::NonZeroU32;

/// A page that has been lent. It is not `Clone`, so that it is given back exactly once. Its last bit is that
/// of a large page, the others are the place of its memory in [`Pages`], where place 0 is no page's.
#[derive(Debug, PartialEq, Eq)]
pub struct PageId(NonZeroU32);

/// Bytes of a small page. A response's head and a body of 16 KiB fit into one. Not a multiple of 4 KiB, so
/// that the starts of pages do not all compete for the same cache lines.
pub const SMALL_BYTES: usize = 17 * 1024 + 576;
/// Bytes of a large page, for bodies that are known to be long and for heads that need it: the longest head,
/// 64 KiB, fits with what the proxy adds to it.
pub const LARGE_BYTES: usize = 66 * 1024;

/// How many small pages that were given back keep their memory; that of more goes back to the allocator.
const MAX_KEPT_SMALL: usize = 512;
/// How many large pages that were given back keep their memory.
const MAX_KEPT_LARGE: usize = 64;

/// The free pages of one size.
#[derive(Debug, Default)]
struct FreePages {
    /// Those that have memory, most recently used last: the memory that is likeliest in the cache is used
    /// first.
    warm: Vec<u32>,
    /// Those whose memory has gone back to the allocator.
    cold: Vec<u32>,
}

/// The pages of one shard.
#[derive(Debug)]
pub struct Pages {
    /// The memory of each page; empty for pages whose memory has gone back to the allocator.
    memory: Vec<Box<[u8]>>,
    small: FreePages,
    large: FreePages,
    lent_bytes: u64,
    /// Bytes on their way that lie in other memory.
    outside_bytes: u64,
    /// Small pages that will be needed and have not been lent yet.
    promised: usize,
    cap_bytes: u64,
    /// Nine tenths of the cap.
    scarce_bytes: u64,
}

impl Pages {
    /// No pages yet; at most `cap_bytes` will be lent at once.
    #[must_use]
    pub fn new(cap_bytes: u64) -> Self {
        let (small, large) = (FreePages::default(), FreePages::default());
        let memory = vec![Box::default()];
        let mut pages = Self {
            memory,
            small,
            large,
            lent_bytes: 0,
            outside_bytes: 0,
            promised: 0,
            cap_bytes,
            scarce_bytes: 0,
        };
        pages.set_cap(cap_bytes);
        pages
    }

    /// Sets a new cap; pages that are lent beyond it stay lent.
    pub fn set_cap(&mut self, cap_bytes: u64) {
        self.cap_bytes = cap_bytes;
        self.scarce_bytes = cap_bytes - cap_bytes / 10;
    }

    /// Bytes lent now.
    #[inline]
    #[must_use]
    pub fn lent_bytes(&self) -> u64 {
        self.lent_bytes
    }

    /// Pages lent now.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.memory.len() - 1 - self.small.len() - self.large.len()
    }

    /// How many small pages can still be lent.
    #[must_use]
    pub fn free(&self) -> usize {
        usize::try_from(self.cap_bytes.saturating_sub(self.taken_bytes()) / SMALL_BYTES as u64)
            .unwrap_or(usize::MAX)
    }

    /// Bytes of the cap that are taken.
    #[inline]
    fn taken_bytes(&self) -> u64 {
        self.lent_bytes + self.outside_bytes
    }

    /// So many bytes lie in other memory now, and `before` did: they count as if they were lent. False if
    /// that is more than the cap allows.
    pub fn recount_outside(&mut self, before: usize, now: usize) -> bool {
        self.outside_bytes = self.outside_bytes + now as u64 - before as u64;
        now <= before || self.taken_bytes() <= self.cap_bytes
    }

    /// Bytes in other memory.
    #[must_use]
    pub fn outside_bytes(&self) -> u64 {
        self.outside_bytes
    }

    /// Bytes taken now, and those of pages that are promised.
    #[inline]
    fn claimed_bytes(&self) -> u64 {
        self.taken_bytes() + self.promised as u64 * SMALL_BYTES as u64
    }

    /// Whether less than a tenth of the cap is left, so that new connections should wait.
    #[inline]
    #[must_use]
    pub fn scarce(&self) -> bool {
        self.claimed_bytes() > self.scarce_bytes
    }

    /// How many small pages can be lent until less than a tenth of the cap is left.
    #[must_use]
    pub fn free_until_scarce(&self) -> usize {
        let left = self.scarce_bytes.checked_sub(self.claimed_bytes());
        left.map_or(0, |left| usize::try_from(left / SMALL_BYTES as u64).unwrap_or(usize::MAX - 1) + 1)
    }

    /// A small page will be needed later: it is scarce as if it were lent, until [`Pages::redeem`]. It may
    /// still be refused then.
    pub fn promise(&mut self) {
        self.promised += 1;
    }

    /// A promised page is asked for now, or not needed after all.
    pub fn redeem(&mut self) {
        self.promised -= 1;
    }

    /// Pages that are promised.
    #[must_use]
    pub fn promised(&self) -> usize {
        self.promised
    }

    /// Lends a page of [`SMALL_BYTES`], unless the cap is reached.
    #[inline]
    pub fn lend(&mut self) -> Option<PageId> {
        if self.taken_bytes() + SMALL_BYTES as u64 > self.cap_bytes {
            return None;
        }
        self.lent_bytes += SMALL_BYTES as u64;
        let place = self.small.warm.pop().unwrap_or_else(|| self.make(false));
        NonZeroU32::new(place << 1).map(PageId)
    }

    /// Lends a page of [`LARGE_BYTES`], unless half of the cap would be exceeded: long bodies must leave
    /// memory for the rest.
    pub fn lend_large(&mut self) -> Option<PageId> {
        if self.taken_bytes() + LARGE_BYTES as u64 > self.cap_bytes / 2 {
            return None;
        }
        self.lent_bytes += LARGE_BYTES as u64;
        let place = self.large.warm.pop().unwrap_or_else(|| self.make(true));
        NonZeroU32::new(place << 1 | 1).map(PageId)
    }

    /// Makes memory for one more page, and says at which place.
    #[cold]
    fn make(&mut self, large: bool) -> u32 {
        let (free, bytes) =
            if large { (&mut self.large, LARGE_BYTES) } else { (&mut self.small, SMALL_BYTES) };
        let memory = vec![0; bytes].into_boxed_slice();
        if let Some(place) = free.cold.pop() {
            self.memory[place as usize] = memory;
            return place;
        }
        self.memory.push(memory);
        (self.memory.len() - 1) as u32
    }

    /// Takes a page back.
    pub fn give_back(&mut self, page: PageId) {
        let place = page.0.get() >> 1;
        if !page.is_large() && self.small.warm.len() < MAX_KEPT_SMALL {
            self.lent_bytes -= SMALL_BYTES as u64;
            return self.small.warm.push(place);
        }
        self.lent_bytes -= Self::size(&page) as u64;
        if page.is_large() && self.large.warm.len() < MAX_KEPT_LARGE {
            return self.large.warm.push(place);
        }
        self.memory[page.place()] = Box::default();
        let free = if page.is_large() { &mut self.large } else { &mut self.small };
        free.cold.push(place);
    }

    /// The bytes of the page, all of them.
    #[inline]
    #[must_use]
    pub fn bytes(&self, page: &PageId) -> &[u8] {
        &self.memory[page.place()]
    }

    /// The bytes of the page, all of them, for writing.
    #[inline]
    pub fn bytes_mut(&mut self, page: &PageId) -> &mut [u8] {
        &mut self.memory[page.place()]
    }

    /// Takes a page's memory out, so that two pages can be used at once; [`Pages::restore`] puts it back.
    pub fn detach(&mut self, page: &PageId) -> Box<[u8]> {
        std::mem::take(&mut self.memory[page.place()])
    }

    /// Puts back what [`Pages::detach`] took.
    pub fn restore(&mut self, page: &PageId, memory: Box<[u8]>) {
        self.memory[page.place()] = memory;
    }

    /// The size of a page in bytes.
    #[inline]
    #[must_use]
    pub fn size(page: &PageId) -> usize {
        if page.is_large() { LARGE_BYTES } else { SMALL_BYTES }
    }
}

impl PageId {
    #[inline]
    fn is_large(&self) -> bool {
        self.0.get() & 1 == 1
    }

    #[inline]
    fn place(&self) -> usize {
        (self.0.get() >> 1) as usize
    }
}

impl FreePages {
    fn len(&self) -> usize {
        self.warm.len() + self.cold.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // Against a list of what is lent: caps hold, no two pages share memory, nobody else's bytes change,
        // memory kept is bounded.
        #[test]
        fn behaves_as_a_list(
            steps in prop::collection::vec((0..8u8, any::<prop::sample::Index>()), 1..120),
            cap in 1..40_u64,
        ) {
            let mut cap = cap * SMALL_BYTES as u64;
            let mut pages = Pages::new(cap);
            let mut lent: Vec<(PageId, bool, u8)> = Vec::new();
            let size = |large| if large { LARGE_BYTES } else { SMALL_BYTES };
            let bytes = |lent: &[(PageId, bool, u8)]| -> u64 {
                lent.iter().map(|(_, large, _)| size(*large) as u64).sum()
            };
            for (n, (what, which)) in steps.into_iter().enumerate() {
                let mark = n as u8;
                match what {
                    0..=4 => {
                        let large = what >= 3;
                        let fits = bytes(&lent) + size(large) as u64 <= if large { cap / 2 } else { cap };
                        let page = if large { pages.lend_large() } else { pages.lend() };
                        prop_assert_eq!(page.is_some(), fits);
                        if let Some(page) = page {
                            // Marks at both ends are enough to see writes by another page.
                            let memory = pages.bytes_mut(&page);
                            prop_assert_eq!(memory.len(), size(large));
                            let last = memory.len() - 1;
                            (memory[0], memory[last]) = (mark, mark);
                            lent.push((page, large, mark));
                        }
                    }
                    5 | 6 if !lent.is_empty() => {
                        let (page, ..) = lent.swap_remove(which.index(lent.len()));
                        pages.give_back(page);
                    }
                    _ => {
                        cap = (1 + which.index(40) as u64) * SMALL_BYTES as u64;
                        pages.set_cap(cap);
                    }
                }
                prop_assert_eq!((pages.lent(), pages.lent_bytes()), (lent.len(), bytes(&lent)));
                prop_assert_eq!(pages.free() as u64, cap.saturating_sub(bytes(&lent)) / SMALL_BYTES as u64);
                for (page, large, mark) in &lent {
                    let memory = pages.bytes(page);
                    prop_assert_eq!(Pages::size(page), size(*large));
                    prop_assert_eq!((memory[0], memory[memory.len() - 1]), (*mark, *mark));
                }
            }
        }
    }

    #[test]
    fn what_is_promised_is_scarce_too() {
        let mut pages = Pages::new(20 * SMALL_BYTES as u64);
        for claimed in 0..30_usize {
            // Up to 18 are not scarce: so that many, and one more, can be claimed.
            assert_eq!(
                (pages.free_until_scarce(), pages.scarce()),
                (19_usize.saturating_sub(claimed), claimed > 18)
            );
            pages.promise();
        }
        assert_eq!((pages.promised(), pages.lent(), pages.free()), (30, 0, 20), "none of them is lent");
        let page = pages.lend().expect("a page");
        (0..30).for_each(|_| pages.redeem());
        assert_eq!((pages.promised(), pages.free_until_scarce()), (0, 18));
        pages.give_back(page);
    }

    #[test]
    fn lends_up_to_the_cap_and_counts() {
        let mut pages = Pages::new(3 * SMALL_BYTES as u64);
        let lent: Vec<_> = std::iter::from_fn(|| pages.lend()).collect();
        assert_eq!((lent.len(), pages.lent(), pages.lent_bytes()), (3, 3, 3 * SMALL_BYTES as u64));
        assert!(pages.scarce());
        for page in lent {
            pages.give_back(page);
        }
        assert_eq!((pages.lent(), pages.lent_bytes()), (0, 0));
        assert!(!pages.scarce());
    }

    #[test]
    fn the_warmest_page_comes_first_and_pages_do_not_overlap() {
        let mut pages = Pages::new(1 << 30);
        let (a, b, c) = (pages.lend().unwrap(), pages.lend().unwrap(), pages.lend_large().unwrap());
        for (page, with) in [(&a, 1), (&b, 2), (&c, 3)] {
            pages.bytes_mut(page).fill(with);
        }
        assert!([(&a, 1, SMALL_BYTES), (&b, 2, SMALL_BYTES), (&c, 3, LARGE_BYTES)].iter().all(
            |(p, with, size)| pages.bytes(p).len() == *size
                && Pages::size(p) == *size
                && pages.bytes(p).iter().all(|x| x == with)
        ));
        let memory = pages.detach(&a);
        assert!(pages.bytes(&a).is_empty() && memory[0] == 1);
        pages.restore(&a, memory);
        pages.give_back(a);
        pages.give_back(b);
        let again = pages.lend().unwrap();
        assert_eq!(pages.bytes(&again)[0], 2);
    }

    #[test]
    fn memory_of_a_burst_is_given_back() {
        let mut pages = Pages::new(1 << 30);
        let lent: Vec<_> = (0..MAX_KEPT_SMALL + 100).map(|_| pages.lend().unwrap()).collect();
        for page in lent {
            pages.give_back(page);
        }
        assert_eq!(pages.memory.iter().filter(|m| !m.is_empty()).count(), MAX_KEPT_SMALL);
        let lent: Vec<_> = (0..MAX_KEPT_SMALL + 50).map(|_| pages.lend().unwrap()).collect();
        assert!(lent.iter().all(|p| pages.bytes(p).len() == SMALL_BYTES));
    }
}
