//! A table whose places are used again, and whose epochs tell an old id from a new one.

use crate::id::ConnId;
use crate::planted::planted;

/// Values by [`ConnId`]: O(1) insert, look-up and removal; nothing is allocated once the table has grown.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: u32,
    len: u32,
}

#[derive(Debug)]
struct Place<T> {
    epoch: u32,
    next_free: u32,
    value: Option<T>,
}

const NONE: u32 = u32::MAX;

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: NONE, len: 0 }
    }
}

impl<T> Slab<T> {
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

    /// Puts a value in; its id differs from every id given out before.
    pub fn insert(&mut self, value: T) -> ConnId {
        self.insert_with(|| value)
    }

    /// The same for a large value, which is made where it is to lie.
    #[inline(always)]
    pub fn insert_with(&mut self, value: impl FnOnce() -> T) -> ConnId {
        if self.free == NONE {
            self.grow();
        }
        self.len += 1;
        let slot = self.free;
        let place = &mut self.places[slot as usize];
        self.free = place.next_free;
        place.value.get_or_insert_with(value);
        ConnId { slot, epoch: place.epoch }
    }

    /// One place more.
    #[cold]
    fn grow(&mut self) {
        let slot = u32::try_from(self.places.len()).unwrap_or(NONE);
        assert!(slot != NONE, "four thousand million connections");
        self.places.push(Place { epoch: 0, next_free: NONE, value: None });
        self.free = slot;
    }

    /// The value, unless the id is stale.
    #[inline]
    #[must_use]
    pub fn get(&self, id: ConnId) -> Option<&T> {
        match self.places.get(id.slot as usize) {
            Some(p) if p.epoch == id.epoch || planted!(5) => p.value.as_ref(),
            _ => None,
        }
    }

    /// The value, unless the id is stale.
    #[inline]
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        match self.places.get_mut(id.slot as usize) {
            Some(p) if p.epoch == id.epoch || planted!(5) => p.value.as_mut(),
            _ => None,
        }
    }

    /// Takes a value out; its id is stale from now on.
    pub fn remove(&mut self, id: ConnId) -> Option<T> {
        let place = self.places.get_mut(id.slot as usize).filter(|p| p.epoch == id.epoch)?;
        let value = place.value.take()?;
        // The epoch u32::MAX is the drivers' own (listeners, wakers), so it is never given out.
        place.epoch = if place.epoch == u32::MAX - 1 { 0 } else { place.epoch + 1 };
        place.next_free = self.free;
        self.free = id.slot;
        self.len -= 1;
        Some(value)
    }

    /// Drops a value where it lies; its id is stale from now on. For large values cheaper than
    /// [`Slab::remove`], which moves them out.
    pub fn discard(&mut self, id: ConnId) {
        let Some(place) =
            self.places.get_mut(id.slot as usize).filter(|p| p.epoch == id.epoch && p.value.is_some())
        else {
            return;
        };
        place.value = None;
        place.epoch = if place.epoch == u32::MAX - 1 { 0 } else { place.epoch + 1 };
        place.next_free = self.free;
        self.free = id.slot;
        self.len -= 1;
    }

    /// The id that now has this slot.
    #[must_use]
    pub fn at(&self, slot: u32) -> Option<ConnId> {
        self.places.get(slot as usize).filter(|p| p.value.is_some()).map(|p| ConnId { slot, epoch: p.epoch })
    }

    /// Every value with its id.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        self.places.iter().enumerate().filter_map(|(slot, p)| {
            p.value.as_ref().map(|v| (ConnId { slot: slot as u32, epoch: p.epoch }, v))
        })
    }
}

impl<T> std::ops::Index<ConnId> for Slab<T> {
    type Output = T;
    #[inline]
    fn index(&self, id: ConnId) -> &T {
        self.get(id).expect("a live id")
    }
}

impl<T> std::ops::IndexMut<ConnId> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, id: ConnId) -> &mut T {
        self.get_mut(id).expect("a live id")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_map_from_ids_never_seen_before(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200)) {
            let (mut slab, mut live, mut dead) = (Slab::default(), Vec::<(ConnId, usize)>::new(), Vec::<ConnId>::new());
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
                prop_assert!(live.iter().all(|(id, v)| slab.get(*id) == Some(v) && slab.at(id.slot) == Some(*id)));
                prop_assert!(dead.iter().all(|id| slab.get(*id).is_none()));
                prop_assert_eq!(slab.iter().count(), live.len());
            }
        }
    }
}
