//! What can happen, and when: discrete events in the order of their time, those of one instant in the order
//! in which they were asked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ruststrom_core::{LookupId, LookupResult};

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Turn(usize),
    Arrive { sock: usize, up: bool, n: usize },
    Fin { sock: usize, up: bool },
    Rst { sock: usize, up: bool },
    Peer(usize),
    Edge(usize),
    Connected(usize),
    ConnectFails(usize, i32),
    Client(usize),
    Nudge(usize),
    Found(usize, LookupId, Box<LookupResult>),
    Reload,
    ReloadShard(usize),
    Flap,
    Drain,
}

/// Events to come.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// When, in which order, and at which place: one number, because comparing such is most of the work
    /// here.
    heap: BinaryHeap<Reverse<u128>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    seq: u64,
}

/// Events at once, and 2^40 in a run.
const PLACE_BITS: u32 = 24;

impl Queue {
    pub(super) fn push(&mut self, when: u64, event: Event) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                self.events.len() - 1
            }
        };
        self.seq += 1;
        self.heap.push(Reverse(u128::from(when) << 64 | u128::from(self.seq << PLACE_BITS | place as u64)));
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse(key) = self.heap.pop()?;
        let place = key as usize & ((1 << PLACE_BITS) - 1);
        self.free.push(place);
        Some(((key >> 64) as u64, self.events[place].take()?))
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(key)| (key >> 64) as u64)
    }
}
