//! A hierarchical timing wheel: at most one timer for each connection and one for each exchange, filed by
//! its slot. Setting, moving and clearing a timer are O(1); finding the next moment is a few bit operations.
//! Nothing is allocated once each table has grown to the highest slot in use.

use crate::time::Instant;

/// Bits of a tick that one level resolves.
const LEVEL_BITS: u32 = 6;
/// Lists of one level.
const LISTS: usize = 1 << LEVEL_BITS;
const LEVELS: usize = 7;
const NONE: u32 = u32::MAX;
/// One tick is 2^20 ns, about a millisecond: a timer fires at most that much late and never early.
const TICK_BITS: u32 = 20;

/// Whose timer it is, by its slot in the table of connections or of exchanges (below `u32::MAX / 2`, which
/// [`Slab`](crate::slab::Slab) guarantees). Both kinds are separate: a connection and an exchange with the
/// same slot number have one timer each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKey {
    /// A connection's.
    Conn(u32),
    /// An exchange's.
    Exchange(u32),
}

/// A [`TimerKey`] in one word, as lists link it: the top bit is its kind, the others its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link(u32);

impl Link {
    const NONE: Self = Self(NONE);
    const EXCHANGE: u32 = 1 << 31;

    const fn of(key: TimerKey) -> Self {
        match key {
            TimerKey::Conn(slot) => Self(slot),
            TimerKey::Exchange(slot) => Self(slot | Self::EXCHANGE),
        }
    }

    const fn key(self) -> TimerKey {
        match self.kind() {
            0 => TimerKey::Conn(self.0),
            _ => TimerKey::Exchange(self.0 & !Self::EXCHANGE),
        }
    }

    const fn kind(self) -> usize {
        (self.0 >> 31) as usize
    }

    const fn slot(self) -> usize {
        (self.0 & !Self::EXCHANGE) as usize
    }
}

/// Each connection has one: 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Node {
    prev: Link,
    next: Link,
    /// Low half of the tick.
    tick: u32,
    /// The next 16 bits of it: ticks last for thousands of years.
    tick_high: u16,
    /// `level * LISTS + list of the level`, or [`UNFILED`].
    list: u16,
}

/// The list of a node that is in none.
const UNFILED: u16 = u16::MAX;

impl Node {
    const EMPTY: Self = Self { prev: Link::NONE, next: Link::NONE, tick: 0, tick_high: 0, list: UNFILED };

    #[inline]
    fn tick(self) -> u64 {
        u64::from(self.tick_high) << 32 | u64::from(self.tick)
    }

    #[inline]
    fn set_tick(&mut self, tick: u64) {
        (self.tick, self.tick_high) = (tick as u32, (tick >> 32) as u16);
    }
}

/// Timers by [`TimerKey`].
#[derive(Debug)]
pub struct Wheel {
    /// By kind and slot; two tables, because there are far fewer exchanges than idle connections.
    nodes: [Vec<Node>; 2],
    heads: Box<[Link; LISTS * LEVELS]>,
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
            nodes: [Vec::new(), Vec::new()],
            heads: Box::new([Link::NONE; LISTS * LEVELS]),
            occupied: [0; LEVELS],
            now: 0,
            filed: 0,
            next: u64::MAX,
        }
    }
}

impl Wheel {
    /// How many timers are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filed
    }

    /// Whether no timer is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filed == 0
    }

    /// Sets the timer of `key` to `at`, moving it if it was set before. [`Instant::NEVER`] clears it.
    ///
    /// # Panics
    /// In debug builds, if the slot is not below `u32::MAX / 2`.
    #[inline]
    pub fn set(&mut self, key: TimerKey, at: Instant) {
        if at == Instant::NEVER {
            return self.clear(key);
        }
        let link = Link::of(key);
        debug_assert!(link != Link::NONE && link.key() == key, "{key:?}: the slot is too large");
        let nodes = &mut self.nodes[link.kind()];
        if nodes.len() <= link.slot() {
            nodes.resize(link.slot() + 1, Node::EMPTY);
        }
        self.clear(key);
        // Rounded up: never early.
        let tick = (at.as_nanos() >> TICK_BITS) + u64::from(at.as_nanos() & ((1 << TICK_BITS) - 1) != 0);
        let tick = tick.max(self.now);
        self.node(link).set_tick(tick);
        self.link(link);
        self.filed += 1;
    }

    /// Clears the timer of `key` if it is set.
    pub fn clear(&mut self, key: TimerKey) {
        let link = Link::of(key);
        if self.nodes[link.kind()].get(link.slot()).is_some_and(|node| node.list != UNFILED) {
            self.unlink(link);
            self.filed -= 1;
        }
    }

    /// When to call [`Wheel::expire`] again; may be before any timer is due (timers that are far off are then
    /// filed again, more finely), never after.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        (self.next != u64::MAX).then(|| Instant::from_nanos(self.next << TICK_BITS))
    }

    /// The next timer that is due at `now`; it is no longer set. Call it until there is none.
    pub fn expire(&mut self, now: Instant) -> Option<TimerKey> {
        let now = now.as_nanos() >> TICK_BITS;
        while self.next <= now {
            self.now = self.next;
            let (level, list) = self.earliest()?;
            if level == 0 {
                let link = self.heads[list];
                self.unlink(link);
                self.filed -= 1;
                return Some(link.key());
            }
            // The time of a coarse list has begun: each of its timers moves to a finer level.
            while self.heads[list] != Link::NONE {
                let link = self.heads[list];
                self.unlink(link);
                self.link(link);
            }
        }
        self.now = self.now.max(now);
        None
    }

    #[inline]
    fn node(&mut self, link: Link) -> &mut Node {
        &mut self.nodes[link.kind()][link.slot()]
    }

    fn link(&mut self, link: Link) {
        let tick = self.node(link).tick();
        let level = self.level(tick);
        let list = level * LISTS + (tick >> (LEVEL_BITS * level as u32)) as usize % LISTS;
        let head = self.heads[list];
        let node = self.node(link);
        (node.prev, node.next, node.list) = (Link::NONE, head, list as u16);
        if head != Link::NONE {
            self.node(head).prev = link;
        }
        self.heads[list] = link;
        self.occupied[level] |= 1 << (list % LISTS);
        self.next = self.next.min(start(tick, level).max(self.now));
    }

    fn unlink(&mut self, link: Link) {
        let Node { prev, next, list, .. } = *self.node(link);
        let at = usize::from(list);
        if prev == Link::NONE {
            self.heads[at] = next;
        } else {
            self.node(prev).next = next;
        }
        if next != Link::NONE {
            self.node(next).prev = prev;
        }
        self.node(link).list = UNFILED;
        if self.heads[at] == Link::NONE {
            let (level, bit) = (at / LISTS, at % LISTS);
            self.occupied[level] &= !(1 << bit);
            self.next = match self.earliest() {
                Some((1.., _)) if crate::planted::planted!(71) => u64::MAX,
                Some((level, list)) => start(self.node(self.heads[list]).tick(), level).max(self.now),
                None => u64::MAX,
            };
        }
    }

    /// The level at which `tick` is filed: the one of the highest bit in which it differs from now.
    fn level(&self, tick: u64) -> usize {
        let differing = (tick ^ self.now) | (LISTS as u64 - 1);
        (((63 - differing.leading_zeros()) / LEVEL_BITS) as usize).min(LEVELS - 1)
    }

    /// The earliest non-empty list, with its level: all of a lower level is before all of a higher one.
    fn earliest(&self) -> Option<(usize, usize)> {
        (0..LEVELS).find(|&level| self.occupied[level] != 0).map(|level| {
            let from = (self.now >> (LEVEL_BITS * level as u32)) as u32 % LISTS as u32;
            let ahead = self.occupied[level].rotate_right(from).trailing_zeros();
            (level, level * LISTS + ((from + ahead) as usize) % LISTS)
        })
    }
}

/// First tick of the list that holds `tick` on `level`.
fn start(tick: u64, level: usize) -> u64 {
    let shift = LEVEL_BITS * level as u32;
    tick >> shift << shift
}

#[cfg(test)]
mod tests {
    use super::TimerKey::{Conn, Exchange};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn ms(ms: u64) -> Instant {
        Instant::from_nanos(ms << TICK_BITS)
    }

    #[test]
    fn fires_in_order_never_early_and_once() {
        let mut wheel = Wheel::default();
        let timers = [
            (Conn(0), 5),
            (Exchange(0), 70),
            (Conn(2), 5000),
            (Conn(3), 64),
            (Exchange(3), 65),
            (Exchange(4), 300_000),
            (Conn(5), 5),
        ];
        for (key, at) in timers {
            wheel.set(key, ms(at));
        }
        wheel.set(Conn(5), ms(4097));
        wheel.clear(Conn(3));
        let mut fired = Vec::new();
        let mut now = 0;
        while let Some(next) = wheel.next() {
            assert!(next >= ms(now), "time runs forward");
            now = next.as_nanos() >> TICK_BITS;
            while let Some(key) = wheel.expire(ms(now)) {
                fired.push((key, now));
            }
        }
        assert_eq!(
            fired,
            [
                (Conn(0), 5),
                (Exchange(3), 65),
                (Exchange(0), 70),
                (Conn(5), 4097),
                (Conn(2), 5000),
                (Exchange(4), 300_000)
            ]
        );
        assert!(wheel.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(TimerKey, u64),
        Clear(TimerKey),
        Pass(u64),
    }

    fn key() -> impl Strategy<Value = TimerKey> {
        prop_oneof![(0..12u32).prop_map(Conn), (0..12u32).prop_map(Exchange)]
    }

    fn step() -> impl Strategy<Value = Step> {
        let far = prop_oneof![0..100u64, 0..10_000u64, 0..10_000_000u64];
        prop_oneof![
            3 => (key(), far.clone()).prop_map(|(key, ms)| Step::Set(key, ms)),
            1 => key().prop_map(Step::Clear),
            2 => far.prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_list(steps in prop::collection::vec(step(), 1..120)) {
            let (mut wheel, mut naive, mut now) = (Wheel::default(), BTreeMap::<TimerKey, u64>::new(), 0u64);
            for step in steps {
                match step {
                    Step::Set(key, t) => {
                        wheel.set(key, ms(now + t));
                        naive.insert(key, now + t);
                    }
                    Step::Clear(key) => {
                        wheel.clear(key);
                        naive.remove(&key);
                    }
                    Step::Pass(t) => {
                        now += t;
                        let mut fired: Vec<_> = std::iter::from_fn(|| wheel.expire(ms(now))).collect();
                        fired.sort_unstable();
                        let due: Vec<_> =
                            naive.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
                        prop_assert_eq!(&fired, &due);
                        naive.retain(|_, at| *at > now);
                    }
                }
                prop_assert_eq!(wheel.len(), naive.len());
                let earliest = naive.values().min().copied();
                prop_assert_eq!(wheel.next().is_some(), earliest.is_some());
                prop_assert!(wheel.next().is_none_or(|next| next <= ms(earliest.unwrap())));
            }
        }
    }
}
