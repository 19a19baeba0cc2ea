//! What can happen, and when: discrete events in the order of their time, those of one instant in the order in which they were asked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ruststrom_core::{Answer, LookupId};

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
    Found(usize, LookupId, Answer),
    Reload,
    ReloadShard(usize),
    Flap,
    Drain,
}

/// Events to come.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    seq: u64,
}

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
        self.heap.push(Reverse((when, self.seq << 24 | place as u64)));
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse((when, key)) = self.heap.pop()?;
        let place = (key & 0xff_ffff) as usize;
        self.free.push(place);
        Some((when, self.events[place].take()?))
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((when, _))| *when)
    }
}
