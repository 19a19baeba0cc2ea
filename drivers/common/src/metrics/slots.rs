//! Which slot has the counts of which identity: a table with open addressing. Identities are numbers in a
//! row, so they are their own hashes.

/// No identity is this one.
const FREE: u64 = u64::MAX;
const SMALLEST: usize = 16;

/// Slots by identity.
#[derive(Clone, Debug)]
pub struct Slots {
    /// A power of two of them; three quarters at most are in use.
    entries: Vec<(u64, u32)>,
    used: usize,
}

impl Default for Slots {
    fn default() -> Self {
        Self { entries: vec![(FREE, 0); SMALLEST], used: 0 }
    }
}

impl Slots {
    /// The slot of an identity.
    #[inline]
    pub fn get(&self, identity: u64) -> Option<usize> {
        let mask = self.entries.len() - 1;
        let mut at = identity as usize & mask;
        loop {
            let (known, slot) = self.entries[at & mask];
            if known == identity {
                return Some(slot as usize);
            }
            if known == FREE {
                return None;
            }
            at += 1;
        }
    }

    /// Gives an identity that is not known yet a slot.
    pub fn insert(&mut self, identity: u64, slot: u32) {
        debug_assert!(identity != FREE && self.get(identity).is_none());
        if (self.used + 1) * 4 > self.entries.len() * 3 {
            let twice = vec![(FREE, 0); self.entries.len() * 2];
            let before = std::mem::replace(&mut self.entries, twice);
            before.into_iter().filter(|(known, _)| *known != FREE).for_each(|entry| self.put(entry));
        }
        self.put((identity, slot));
        self.used += 1;
    }

    fn put(&mut self, entry: (u64, u32)) {
        let mask = self.entries.len() - 1;
        let mut at = entry.0 as usize & mask;
        while self.entries[at].0 != FREE {
            at = (at + 1) & mask;
        }
        self.entries[at] = entry;
    }

    /// Forgets an identity.
    pub fn remove(&mut self, identity: u64) {
        let mask = self.entries.len() - 1;
        let mut hole = identity as usize & mask;
        while self.entries[hole].0 != identity {
            if self.entries[hole].0 == FREE {
                return;
            }
            hole = (hole + 1) & mask;
        }
        self.used -= 1;
        let mut next = hole;
        loop {
            next = (next + 1) & mask;
            let known = self.entries[next].0;
            if known == FREE {
                break;
            }
            // What lies behind the hole because its place was taken moves up, so that it is found.
            let home = known as usize & mask;
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.entries[hole] = self.entries[next];
                hole = next;
            }
        }
        self.entries[hole] = (FREE, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_found_whatever_their_order() {
        let mut slots = Slots::default();
        // In a row, with gaps, and those that begin at the same place.
        let identities: Vec<u64> =
            (0..100).chain((1..50).map(|n| n * 1024)).chain([1 << 40, u64::MAX - 1]).collect();
        let distinct: std::collections::BTreeSet<u64> = identities.iter().copied().collect();
        for (slot, identity) in (0..).zip(&distinct) {
            assert_eq!(slots.get(*identity), None);
            slots.insert(*identity, slot);
        }
        for (slot, identity) in distinct.iter().enumerate() {
            assert_eq!(slots.get(*identity), Some(slot), "{identity}");
        }
        for (_, identity) in distinct.iter().enumerate().filter(|(slot, _)| slot % 3 != 0) {
            slots.remove(*identity);
            slots.remove(*identity);
        }
        for (slot, identity) in distinct.iter().enumerate() {
            assert_eq!(slots.get(*identity), (slot % 3 == 0).then_some(slot), "{identity}");
        }
    }
}
