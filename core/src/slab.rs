//! A table whose slots are used again; an epoch in each id tells an old id from a new one of the same slot.

use std::marker::PhantomData;

use crate::planted::planted;

/// An id that a [`Slab`] gives out: a slot of the table, and how often that slot had been given out before
/// (its epoch). Each table has its own type of key, so that ids of two tables cannot be mixed up.
pub trait Key: Copy {
    /// From its two halves.
    fn from_parts(slot: u32, epoch: u32) -> Self;
    /// The slot, below `u32::MAX / 2`.
    fn slot(self) -> u32;
    /// The epoch of the slot, never `u32::MAX`.
    fn epoch(self) -> u32;
}

/// Values by key: O(1) insert, look-up and removal; nothing is allocated once the table has grown.
#[derive(Debug)]
pub struct Slab<K, T> {
    places: Vec<Place<T>>,
    free: u32,
    len: u32,
    key: PhantomData<fn() -> K>,
}

#[derive(Debug)]
struct Place<T> {
    epoch: u32,
    next_free: u32,
    value: Option<T>,
}

const NONE: u32 = u32::MAX;

impl<K, T> Default for Slab<K, T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: NONE, len: 0, key: PhantomData }
    }
}

impl<K: Key, T> Slab<K, T> {
    /// Empty, with room for this many values. Memory of that size is reserved, and used as it fills.
    #[must_use]
    pub fn with_capacity(values: usize) -> Self {
        Self { places: Vec::with_capacity(values), ..Self::default() }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a value in; its id differs from every id given out before (until an epoch has come round).
    ///
    /// # Panics
    /// When the table is full: it has `u32::MAX / 2` slots.
    pub fn insert(&mut self, value: T) -> K {
        self.insert_with(|| value)
    }

    /// Puts in a value that is made where it is to lie: for large values cheaper than [`Slab::insert`], which
    /// moves them in.
    ///
    /// # Panics
    /// When the table is full: it has `u32::MAX / 2` slots.
    #[inline(always)]
    pub fn insert_with(&mut self, value: impl FnOnce() -> T) -> K {
        if self.free == NONE {
            self.grow();
        }
        self.len += 1;
        let slot = self.free;
        let place = &mut self.places[slot as usize];
        self.free = place.next_free;
        place.value.get_or_insert_with(value);
        K::from_parts(slot, place.epoch)
    }

    /// Adds one free place.
    #[cold]
    fn grow(&mut self) {
        let slot = u32::try_from(self.places.len()).unwrap_or(NONE);
        // The timing wheel needs one bit of a slot for itself.
        assert!(slot < NONE / 2, "a table of {} slots is full", NONE / 2);
        self.places.push(Place { epoch: 0, next_free: NONE, value: None });
        self.free = slot;
    }

    /// The value, unless the id is stale.
    #[inline]
    #[must_use]
    pub fn get(&self, id: K) -> Option<&T> {
        match self.places.get(id.slot() as usize) {
            Some(p) if p.epoch == id.epoch() || planted!(5) => p.value.as_ref(),
            _ => None,
        }
    }

    /// The value, unless the id is stale.
    #[inline]
    pub fn get_mut(&mut self, id: K) -> Option<&mut T> {
        match self.places.get_mut(id.slot() as usize) {
            Some(p) if p.epoch == id.epoch() || planted!(5) => p.value.as_mut(),
            _ => None,
        }
    }

    /// Two different values, unless an id is stale.
    #[inline]
    pub fn pair_mut(&mut self, a: K, b: K) -> Option<(&mut T, &mut T)> {
        let [first, second] = self.places.get_disjoint_mut([a.slot() as usize, b.slot() as usize]).ok()?;
        if first.epoch != a.epoch() || second.epoch != b.epoch() {
            return None;
        }
        Some((first.value.as_mut()?, second.value.as_mut()?))
    }

    /// Takes a value out; its id is stale from now on.
    pub fn remove(&mut self, id: K) -> Option<T> {
        let place = self.places.get_mut(id.slot() as usize).filter(|p| p.epoch == id.epoch())?;
        let value = place.value.take()?;
        self.release(id.slot());
        Some(value)
    }

    /// Drops a value where it lies; its id is stale from now on. For large values cheaper than
    /// [`Slab::remove`], which moves them out.
    pub fn discard(&mut self, id: K) {
        if let Some(place) = self.places.get_mut(id.slot() as usize)
            && place.epoch == id.epoch()
            && place.value.is_some()
        {
            place.value = None;
            self.release(id.slot());
        }
    }

    /// Makes the place of a value that has gone free again, with the next epoch.
    #[inline]
    fn release(&mut self, slot: u32) {
        let place = &mut self.places[slot as usize];
        // The epoch u32::MAX is the drivers' own (listeners, wakers), so it is never given out.
        place.epoch = if place.epoch == u32::MAX - 1 { 0 } else { place.epoch + 1 };
        place.next_free = self.free;
        self.free = slot;
        self.len -= 1;
    }

    /// The id that now has this slot.
    #[must_use]
    pub fn at(&self, slot: u32) -> Option<K> {
        self.places.get(slot as usize).filter(|p| p.value.is_some()).map(|p| K::from_parts(slot, p.epoch))
    }

    /// Every value with its id.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.places.iter().enumerate().filter_map(|(slot, p)| {
            p.value.as_ref().map(|value| (K::from_parts(slot as u32, p.epoch), value))
        })
    }
}

impl<K: Key, T> std::ops::Index<K> for Slab<K, T> {
    type Output = T;
    #[inline]
    fn index(&self, id: K) -> &T {
        self.get(id).expect("a live id")
    }
}

impl<K: Key, T> std::ops::IndexMut<K> for Slab<K, T> {
    #[inline]
    fn index_mut(&mut self, id: K) -> &mut T {
        self.get_mut(id).expect("a live id")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnId;
    use proptest::prelude::*;

    fn steps() -> impl Strategy<Value = Vec<(bool, prop::sample::Index)>> {
        prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200)
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_from_ids_never_seen_before(steps in steps()) {
            let mut slab = Slab::default();
            let (mut live, mut dead) = (Vec::<(ConnId, usize)>::new(), Vec::<ConnId>::new());
            for (n, (insert, which)) in steps.into_iter().enumerate() {
                if insert || live.is_empty() {
                    let id = slab.insert(n);
                    prop_assert!(!dead.contains(&id) && !live.iter().any(|(l, _)| *l == id));
                    live.push((id, n));
                } else {
                    let (id, value) = live.swap_remove(which.index(live.len()));
                    if n % 3 == 0 {
                        slab.discard(id);
                        slab.discard(id);
                    } else {
                        prop_assert_eq!(slab.remove(id), Some(value));
                    }
                    prop_assert_eq!(slab.remove(id), None);
                    dead.push(id);
                }
                prop_assert_eq!(slab.len(), live.len());
                for (id, value) in &live {
                    prop_assert_eq!((slab.get(*id), slab.at(id.slot)), (Some(value), Some(*id)));
                }
                prop_assert!(dead.iter().all(|id| slab.get(*id).is_none()));
                prop_assert_eq!(slab.iter().count(), live.len());
            }
        }
    }
}
