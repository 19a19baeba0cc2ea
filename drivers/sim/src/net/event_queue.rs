//! What can happen in a run, and when: discrete events in the order of their time, those of the same instant
//! in the order in which they were scheduled.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ruststrom_core::{LookupId, LookupResult};

/// What can happen. Numbers are those of sockets, shards and clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SimEvent {
    /// A shard's event loop has a turn.
    WorkerTurn(usize),
    /// `n` bytes have arrived at one end of a socket.
    Arrive {
        socket: usize,
        to_proxy: bool,
        n: usize,
    },
    /// The end of a stream has arrived.
    Fin {
        socket: usize,
        to_proxy: bool,
    },
    /// A reset has arrived.
    Rst {
        socket: usize,
        to_proxy: bool,
    },
    /// The script of a socket's peer reads and writes what it can.
    PeerTurn(usize),
    /// The poller of the proxy reports a socket again.
    ReadinessEdge(usize),
    /// A backend has accepted a connection.
    Connected(usize),
    /// A connection to a backend has failed with this `errno`.
    ConnectFailed(usize, i32),
    ClientConnects(usize),
    /// A shard hears that shared state has changed.
    Nudge(usize),
    LookupDone(usize, LookupId, Box<LookupResult>),
    /// There is a new configuration.
    Reload,
    /// A shard is given the newest configuration.
    ReloadShard(usize),
    /// Some backend changes its [`BackendMode`](super::BackendMode).
    ChangeBackendMode,
    Drain,
}

/// The events to come.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    /// The time (64 bits), the number of the event in the order of scheduling (40), and its place in
    /// `events` (24): one integer, because comparing these is most of the work of the queue.
    heap: BinaryHeap<Reverse<u128>>,
    events: Vec<Option<SimEvent>>,
    /// Places in `events` that are free.
    free: Vec<usize>,
    /// How many events were scheduled so far.
    seq: u64,
}

/// At most 2^24 events are scheduled at once, and 2^40 in a run.
const PLACE_BITS: u32 = 24;

impl EventQueue {
    /// Schedules an event.
    pub(super) fn push(&mut self, when: u64, event: SimEvent) {
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

    /// The next event and its time.
    pub(super) fn pop(&mut self) -> Option<(u64, SimEvent)> {
        let Reverse(key) = self.heap.pop()?;
        let place = key as usize & ((1 << PLACE_BITS) - 1);
        self.free.push(place);
        Some(((key >> 64) as u64, self.events[place].take()?))
    }

    /// The time of the next event.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(key)| (key >> 64) as u64)
    }
}
