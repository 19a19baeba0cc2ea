//! Idle backend connections of one shard, shared by all its clients: for each backend a list that links the
//! slots of its connections.

const NONE: u32 = u32::MAX;

/// The links of all lists of a shard, by slot.
#[derive(Debug, Default)]
pub struct IdleLinks {
    /// The next newer and the next older connection of each slot.
    links: Vec<[u32; 2]>,
}

/// The idle connections of one backend, newest first.
#[derive(Clone, Copy, Debug)]
pub struct IdleList {
    newest: u32,
    oldest: u32,
    len: u32,
}

impl Default for IdleList {
    fn default() -> Self {
        Self { newest: NONE, oldest: NONE, len: 0 }
    }
}

impl IdleList {
    /// How many connections are in the list.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Slot of the connection that has been idle for the shortest time: the one most likely still open.
    #[must_use]
    pub fn newest(&self) -> Option<u32> {
        (self.newest != NONE).then_some(self.newest)
    }

    /// Slots of all connections, newest first.
    pub fn iter(self, links: &IdleLinks) -> impl Iterator<Item = u32> + '_ {
        let linked = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(linked(self.newest), move |slot| linked(links.links[*slot as usize][1]))
    }

    /// Slot of the connection that has been idle for the longest time.
    #[must_use]
    pub fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Adds a connection as the newest.
    pub fn push(&mut self, links: &mut IdleLinks, slot: u32) {
        let all = &mut links.links;
        if all.len() <= slot as usize {
            all.resize(slot as usize + 1, [NONE; 2]);
        }
        all[slot as usize] = [NONE, self.newest];
        match self.newest {
            NONE => self.oldest = slot,
            newest => all[newest as usize][0] = slot,
        }
        self.newest = slot;
        self.len += 1;
    }

    /// Takes out a connection that is in this list.
    pub fn remove(&mut self, links: &mut IdleLinks, slot: u32) {
        let [newer, older] = links.links[slot as usize];
        match newer {
            NONE => self.newest = older,
            newer => links.links[newer as usize][1] = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => links.links[older as usize][0] = newer,
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_list(steps in prop::collection::vec((0..4u8, any::<prop::sample::Index>()), 1..100)) {
            let (mut links, mut list) = (IdleLinks::default(), IdleList::default());
            let mut naive = Vec::<u32>::new();
            for (what, which) in steps {
                if what < 2 || naive.is_empty() {
                    let slot = (0..).find(|s| !naive.contains(s)).unwrap();
                    list.push(&mut links, slot);
                    naive.push(slot);
                } else {
                    let slot = match what {
                        2 => naive.remove(which.index(naive.len())),
                        _ => naive.pop().unwrap(),
                    };
                    list.remove(&mut links, slot);
                }
                prop_assert_eq!(list.len() as usize, naive.len());
                prop_assert_eq!(list.oldest(), naive.first().copied());
                prop_assert_eq!(list.newest(), naive.last().copied());
                prop_assert!(list.iter(&links).eq(naive.iter().rev().copied()));
            }
        }
    }
}
