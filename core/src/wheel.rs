//! A hierarchical timing wheel: one entry for each connection, filed by its slot.
//! Filing, moving and removing are O(1); finding the next moment is a few bit operations.

use crate::time::Instant;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 7;
const NONE: u32 = u32::MAX;
/// One tick is 2^20 ns, about a millisecond: a deadline fires at most that much late and never early.
const TICK_BITS: u32 = 20;

#[derive(Clone, Copy, Debug)]
struct Node {
    tick: u64,
    prev: u32,
    next: u32,
    /// `level * SLOTS + slot`, or [`NONE`] when not filed.
    list: u32,
}

/// Deadlines by slot number.
#[derive(Debug)]
pub struct Wheel {
    nodes: Vec<Node>,
    heads: Box<[u32; SLOTS * LEVELS]>,
    occupied: [u64; LEVELS],
    /// Every tick before this one has been served.
    now: u64,
    filed: usize,
    /// Tick of the earliest non-empty list, `u64::MAX` when there is none; kept exact.
    next: u64,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            heads: Box::new([NONE; SLOTS * LEVELS]),
            occupied: [0; LEVELS],
            now: 0,
            filed: 0,
            next: u64::MAX,
        }
    }
}

impl Wheel {
    /// How many entries are filed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filed
    }

    /// Whether none is filed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filed == 0
    }

    /// Files `slot` for `at`, moving it if it was filed before. [`Instant::NEVER`] removes it.
    pub fn set(&mut self, slot: u32, at: Instant) {
        if at == Instant::NEVER {
            return self.clear(slot);
        }
        if self.nodes.len() <= slot as usize {
            self.nodes.resize(slot as usize + 1, Node { tick: 0, prev: NONE, next: NONE, list: NONE });
        }
        self.clear(slot);
        // Rounded up: never early.
        let tick = (at.as_nanos() >> TICK_BITS) + u64::from(at.as_nanos() & ((1 << TICK_BITS) - 1) != 0);
        self.nodes[slot as usize].tick = tick.max(self.now);
        self.link(slot);
        self.filed += 1;
    }

    /// Removes `slot` if it is filed.
    pub fn clear(&mut self, slot: u32) {
        if self.nodes.get(slot as usize).is_some_and(|n| n.list != NONE) {
            self.unlink(slot);
            self.filed -= 1;
        }
    }

    /// When to look again; may be early (a coarse entry is then re-filed finer), never late.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        (self.next != u64::MAX).then(|| Instant::from_nanos(self.next << TICK_BITS))
    }

    /// The next slot whose time has come; it is no longer filed.
    pub fn expire(&mut self, now: Instant) -> Option<u32> {
        let now = now.as_nanos() >> TICK_BITS;
        while self.next <= now {
            self.now = self.next;
            let (level, list) = self.earliest()?;
            if level == 0 {
                let slot = self.heads[list];
                self.unlink(slot);
                self.filed -= 1;
                return Some(slot);
            }
            // A coarse list has come into reach: each of its entries gets a finer place.
            while self.heads[list] != NONE {
                let slot = self.heads[list];
                self.unlink(slot);
                self.link(slot);
            }
        }
        self.now = self.now.max(now);
        None
    }

    fn link(&mut self, slot: u32) {
        let tick = self.nodes[slot as usize].tick;
        let level = self.level(tick);
        let list = level * SLOTS + (tick >> (BITS * level as u32)) as usize % SLOTS;
        let head = self.heads[list];
        let node = &mut self.nodes[slot as usize];
        (node.prev, node.next, node.list) = (NONE, head, list as u32);
        if head != NONE {
            self.nodes[head as usize].prev = slot;
        }
        self.heads[list] = slot;
        self.occupied[level] |= 1 << (list % SLOTS);
        self.next = self.next.min(start(tick, level).max(self.now));
    }

    fn unlink(&mut self, slot: u32) {
        let Node { prev, next, list, .. } = self.nodes[slot as usize];
        if prev == NONE {
            self.heads[list as usize] = next;
        } else {
            self.nodes[prev as usize].next = next;
        }
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        self.nodes[slot as usize].list = NONE;
        if self.heads[list as usize] == NONE {
            let (level, bit) = (list as usize / SLOTS, list as usize % SLOTS);
            self.occupied[level] &= !(1 << bit);
            self.next = match self.earliest() {
                Some((level, list)) => start(self.nodes[self.heads[list] as usize].tick, level).max(self.now),
                None => u64::MAX,
            };
        }
    }

    /// The level at which `tick` and now differ first, seen from the top.
    fn level(&self, tick: u64) -> usize {
        let differing = (tick ^ self.now) | (SLOTS as u64 - 1);
        (((63 - differing.leading_zeros()) / BITS) as usize).min(LEVELS - 1)
    }

    /// The earliest non-empty list: lower levels lie wholly before higher ones.
    fn earliest(&self) -> Option<(usize, usize)> {
        (0..LEVELS).find(|&level| self.occupied[level] != 0).map(|level| {
            let from = (self.now >> (BITS * level as u32)) as u32 % SLOTS as u32;
            let ahead = self.occupied[level].rotate_right(from).trailing_zeros();
            (level, level * SLOTS + ((from + ahead) as usize) % SLOTS)
        })
    }
}

/// First tick of the list that holds `tick` on `level`.
fn start(tick: u64, level: usize) -> u64 {
    let shift = BITS * level as u32;
    tick >> shift << shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Instant {
        Instant::from_nanos(ms << TICK_BITS)
    }

    #[test]
    fn fires_in_order_never_early_and_once() {
        let mut wheel = Wheel::default();
        for (slot, at) in [(0, 5), (1, 70), (2, 5000), (3, 64), (4, 300_000), (5, 5)] {
            wheel.set(slot, ms(at));
        }
        wheel.set(5, ms(4097));
        wheel.clear(3);
        let mut fired = Vec::new();
        let mut now = 0;
        while let Some(next) = wheel.next() {
            assert!(next >= ms(now), "time runs forward");
            now = next.as_nanos() >> TICK_BITS;
            while let Some(slot) = wheel.expire(ms(now)) {
                fired.push((slot, now));
            }
        }
        assert_eq!(fired, [(0, 5), (1, 70), (5, 4097), (2, 5000), (4, 300_000)]);
        assert!(wheel.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, u64),
        Clear(u32),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let far = prop_oneof![0..100u64, 0..10_000u64, 0..10_000_000u64];
        prop_oneof![
            3 => (0..20u32, far.clone()).prop_map(|(s, t)| Step::Set(s, t)),
            1 => (0..20u32).prop_map(Step::Clear),
            2 => far.prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_list(steps in prop::collection::vec(step(), 1..120)) {
            let (mut wheel, mut naive, mut now) = (Wheel::default(), std::collections::BTreeMap::<u32, u64>::new(), 0u64);
            for s in steps {
                match s {
                    Step::Set(slot, t) => { wheel.set(slot, ms(now + t)); naive.insert(slot, now + t); }
                    Step::Clear(slot) => { wheel.clear(slot); naive.remove(&slot); }
                    Step::Pass(t) => {
                        now += t;
                        let mut fired: Vec<u32> = std::iter::from_fn(|| wheel.expire(ms(now))).collect();
                        fired.sort_unstable();
                        let due: Vec<u32> = naive.iter().filter(|(_, at)| **at <= now).map(|(s, _)| *s).collect();
                        prop_assert_eq!(&fired, &due);
                        naive.retain(|_, at| *at > now);
                    }
                }
                prop_assert_eq!(wheel.len(), naive.len());
                let earliest = naive.values().min().copied();
                prop_assert_eq!(wheel.next().is_some(), earliest.is_some());
                prop_assert!(wheel.next().is_none_or(|n| n <= ms(earliest.unwrap())));
            }
        }
    }
}
