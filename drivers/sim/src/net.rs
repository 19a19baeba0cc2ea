//! Sockets without a kernel, and all else that is neither a proxy nor the script of a far end: time, dice,
//! events, and what the judges know.

mod allowed;
mod far;
mod queue;
mod sock;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ruststrom_core::{LookupId, LookupResult};

use self::queue::Queue;
use crate::coverage::{Coverage, Mark};
use crate::dice::{Dice, mix};
use crate::draw::{Draw, MS, PoolDef};
use crate::ledger::Ledger;

pub(crate) use self::queue::Event;
pub(crate) use self::sock::{Far, Read, Sock};
pub(crate) use self::view::View;

/// Everything but the proxies and the scripts of the far ends.
pub(crate) struct Net {
    pub(crate) draw: Draw,
    pub(crate) dice: Dice,
    pub(crate) now: u64,
    queue: Queue,
    pub(crate) socks: Vec<Sock>,
    /// By shard and slot.
    table: Vec<Vec<Option<usize>>>,
    pub(crate) open: Vec<usize>,
    pub(crate) ready: Vec<Vec<usize>>,
    turn_at: Vec<u64>,
    pub(crate) nudged: Vec<bool>,
    pub(crate) found: Vec<Vec<(LookupId, LookupResult)>>,
    pub(crate) drained: Vec<bool>,
    pub(crate) machines: Vec<Mode>,
    pub(crate) faults: bool,
    pub(crate) ledger: Ledger,
    pub(crate) coverage: Coverage,
    pub(crate) hash: u64,
    pub(crate) count: u64,
    pub(crate) trace: Option<VecDeque<String>>,
    /// Every set of pools so far, and where each shard is.
    pub(crate) versions: Vec<Vec<PoolDef>>,
    pub(crate) version_of: Vec<usize>,
    /// Turns of all shards.
    pub(crate) turn: u64,
    /// Unhealthy since that turn, by pool and label.
    pub(crate) unhealthy: BTreeMap<(String, String), u64>,
    /// Backends that a reload took away once: their health begins anew.
    pub(crate) tainted: BTreeSet<String>,
    /// Sockets that this turn asked for to machines that were unhealthy before it.
    pub(crate) suspects: Vec<usize>,
    /// A used connection to a machine went away in this turn of a shard: a replay may follow.
    excuse: (u64, usize, usize),
    /// Lookups that got no answer, asked again by nobody: answered when all heals.
    pub(crate) holes: Vec<usize>,
    pub(crate) client_socks: Vec<usize>,
    /// Lent to whichever far end reads.
    pub(crate) room: Vec<u8>,
}

/// How a machine is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Up,
    Refuses,
    BlackHole,
    ProbeFine,
    ProbeBad,
}

impl Net {
    pub(crate) fn new(draw: Draw, traced: bool) -> Self {
        let shards = usize::from(draw.shards);
        let machines = vec![Mode::Up; draw.machines + 2];
        Self {
            dice: Dice::new(mix(draw.seed ^ 0xfeed)),
            now: MS,
            queue: Queue::default(),
            socks: Vec::new(),
            table: vec![Vec::new(); shards],
            open: vec![0; shards],
            ready: vec![Vec::new(); shards],
            turn_at: vec![u64::MAX; shards],
            nudged: vec![false; shards],
            found: vec![Vec::new(); shards],
            drained: vec![false; shards],
            machines,
            faults: !draw.fault_free,
            ledger: Ledger::default(),
            coverage: Coverage::default(),
            hash: draw.seed,
            count: 0,
            trace: traced.then(VecDeque::new),
            holes: Vec::new(),
            client_socks: Vec::new(),
            room: Vec::new(),
            versions: vec![draw.pools.clone()],
            version_of: vec![0; shards],
            turn: 0,
            unhealthy: BTreeMap::new(),
            tainted: BTreeSet::new(),
            suspects: Vec::new(),
            excuse: (0, 0, 0),
            draw,
        }
    }

    /// A line of the trace; the text is made only if somebody wants it.
    pub(crate) fn say(&mut self, what: u64, text: impl FnOnce() -> String) {
        self.hash = mix(self.hash ^ what ^ self.now.rotate_left(32));
        if let Some(trace) = &mut self.trace {
            let line = format!("{:>6} {:>12.6} {}", self.count, self.now as f64 / 1e9, text());
            trace.push_back(line);
            if trace.len() > 100_000 {
                trace.pop_front();
            }
        }
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        self.coverage.mark(mark);
    }

    /// Whether a fault of this weight happens now. After healing none does.
    pub(crate) fn fault(&mut self, permille: u32, mark: Mark) -> bool {
        let hit = self.faults && self.dice.hits(permille);
        if hit {
            self.mark(mark);
        }
        hit
    }

    /// What sockets may always do, in fault-free runs too.
    fn quirk(&mut self, permille: u32, mark: Mark) -> bool {
        let hit = self.dice.hits(permille);
        if hit {
            self.mark(mark);
        }
        hit
    }

    pub(crate) fn at(&mut self, when: u64, event: Event) {
        self.queue.push(when.max(self.now + 1), event);
    }

    /// The next thing to happen; time moves on to it.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let (when, event) = self.queue.pop()?;
        self.now = when;
        self.count += 1;
        Some(event)
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.queue.next_at()
    }

    pub(crate) fn delay(&mut self) -> u64 {
        let most = self.draw.net.delay;
        1 + self.dice.below(most + 1)
    }

    /// A shard's loop turns at `when` at the latest.
    pub(crate) fn wake(&mut self, shard: usize, when: u64) {
        let when = when.max(self.now + 1);
        if when < self.turn_at[shard] {
            self.turn_at[shard] = when;
            self.at(when, Event::Turn(shard));
        }
    }

    /// Whether this turn is the one that was asked for last.
    pub(crate) fn turns(&mut self, shard: usize) -> bool {
        if self.turn_at[shard] != self.now {
            return false;
        }
        self.turn_at[shard] = u64::MAX;
        true
    }
}
