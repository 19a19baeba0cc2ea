//! What one worker counts, in plain cells: no lock, no atomic step, and no allocation once every pool and
//! backend has been seen.
//!
//! Each pool, each of its backends, and requests without a pool have a slot, which is found by the identity
//! that the core gives them. A request is counted once, in the slot of the backend that was tried last, else
//! of its pool. What is counted for nearly every request lies in [`Cells`]; the rest lies in [`Columns`].

use std::collections::BTreeMap;
use std::sync::Arc;

use ruststrom_core::middleware::Counter;
use ruststrom_core::observe::{Check, HealthChange, HealthState, Record};
use ruststrom_core::{Cause, Instant};

use super::columns::Columns;
use super::histogram::Histogram;
use super::slots::Slots;

/// The identity of requests without a pool. Those of pools and backends begin at 1.
const NO_POOL: u64 = 0;

/// The status of requests that got no response: `000`.
const NO_RESPONSE: u16 = 0;
/// The status of responses beyond 599, which RFC 9110 §15 calls invalid: one label for all of them.
const INVALID_STATUS: u16 = 599;
/// Statuses are less than this.
const STATUSES: usize = 1000;
/// No request of this worker has had that status yet.
const UNSEEN: u16 = u16::MAX;

/// The labels of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Names {
    /// Pool name; empty: requests without one.
    pub pool: Box<str>,
    /// Backend label; empty: those of the pool for which no backend was tried.
    pub backend: Box<str>,
}

/// What most requests count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cells {
    /// Content from clients, in bytes.
    pub bytes_in: u64,
    /// Content to clients, in bytes.
    pub bytes_out: u64,
    /// From the first byte of a request to the last one of its response.
    pub duration: Histogram,
    /// From the end of a request to its backend to the head of the response.
    pub wait: Histogram,
    /// The same of health checks that have passed, with connecting.
    pub check: Histogram,
}

/// What is counted now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A request was sent once more.
    Retried,
    /// A health check has passed.
    CheckPassed,
    /// A health check has failed.
    CheckFailed,
    /// A request was refused by a rate limit.
    RateLimited,
    /// Credentials were wrong.
    AuthFailed,
    /// Bytes before this coding.
    Original(&'static str),
    /// Bytes after this coding.
    Compressed(&'static str),
}

/// What was last found wrong with a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: Instant,
    /// Why, as one stable word.
    pub reason: Box<str>,
    /// What was seen, in a few words.
    pub seen: Box<str>,
}

/// What one worker has counted: for each slot its names and its counts.
#[derive(Clone, Debug, Default)]
pub struct Sheet {
    /// `None`: the slot is free.
    names: Vec<Option<Arc<Names>>>,
    cells: Vec<Cells>,
    statuses: Columns<u16>,
    causes: Columns<Cause>,
    events: Columns<Event>,
    failures: BTreeMap<usize, Failure>,
}

/// The counts of one worker, and where they are.
#[derive(Debug)]
pub struct Counted {
    sheet: Sheet,
    slots: Slots,
    /// The slot of each name, and the identity that it is known by.
    by_names: BTreeMap<Arc<Names>, (u32, u64)>,
    /// Slots that nobody has.
    free: Vec<u32>,
    /// The column of each status.
    column_of_status: Box<[u16; STATUSES]>,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            sheet: Sheet::default(),
            slots: Slots::default(),
            by_names: BTreeMap::new(),
            free: Vec::new(),
            column_of_status: Box::new([UNSEEN; STATUSES]),
        }
    }
}

impl Counted {
    /// Counts a request that has ended.
    #[inline]
    pub fn exchange(&mut self, r: &Record<'_>) {
        let identity = r.backend_identity.or(r.pool_identity).unwrap_or(NO_POOL);
        let slot = match self.slots.get(identity) {
            Some(slot) => slot,
            None => self.new_slot(identity, r.pool, r.backend),
        };
        let status = usize::from(r.status).min(STATUSES - 1);
        let mut column = self.column_of_status[status];
        if column == UNSEEN {
            column = self.new_status(status);
        }
        self.sheet.statuses.add_at(usize::from(column), slot, 1);
        let cells = &mut self.sheet.cells[slot];
        cells.bytes_in += r.bytes_in;
        cells.bytes_out += r.bytes_out;
        let t = r.timings;
        cells.duration.observe(t.ended.nanos_since(t.started));
        if t.responded != Instant::NEVER && t.sent <= t.responded {
            cells.wait.observe(t.responded.nanos_since(t.sent));
        }
        if r.cause.is_some() || r.attempts > 1 {
            self.troubled(slot, r);
        }
    }

    #[cold]
    fn troubled(&mut self, slot: usize, r: &Record<'_>) {
        if let Some(cause) = r.cause {
            self.sheet.causes.add(cause, slot, 1);
        }
        if r.attempts > 1 {
            self.sheet.events.add(Event::Retried, slot, u64::from(r.attempts - 1));
        }
    }

    /// Counts what a middleware has counted.
    pub fn count(&mut self, pool: &str, identity: u64, counter: Counter) {
        let slot = self.slot(identity, pool, "");
        match counter {
            Counter::RateLimitExceeded => self.sheet.events.add(Event::RateLimited, slot, 1),
            Counter::AuthFailure => self.sheet.events.add(Event::AuthFailed, slot, 1),
            Counter::Compressed { encoding, original, compressed } => {
                self.sheet.events.add(Event::Original(encoding), slot, original);
                self.sheet.events.add(Event::Compressed(encoding), slot, compressed);
            }
        }
    }

    /// Counts a health check.
    pub fn check(&mut self, check: &Check<'_>, now: Instant) {
        let slot = self.slot(check.identity, check.pool, check.backend);
        match check.took {
            Some(took) => {
                let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                self.sheet.cells[slot].check.observe(ns);
                self.sheet.events.add(Event::CheckPassed, slot, 1);
            }
            None => {
                self.sheet.events.add(Event::CheckFailed, slot, 1);
                let (reason, seen) = (check.reason.into(), check.seen.to_string().into());
                self.sheet.failures.insert(slot, Failure { at: now, reason, seen });
            }
        }
    }

    /// Keeps why a backend has become Unhealthy.
    pub fn health(&mut self, change: &HealthChange<'_>, now: Instant) {
        let names = Names { pool: change.pool.into(), backend: change.backend.into() };
        if change.to == HealthState::Unhealthy
            && let Some((slot, _)) = self.by_names.get(&names)
        {
            let (reason, seen) = (change.reason.into(), change.seen.into());
            self.sheet.failures.insert(*slot as usize, Failure { at: now, reason, seen });
        }
    }

    fn slot(&mut self, identity: u64, pool: &str, backend: &str) -> usize {
        match self.slots.get(identity) {
            Some(slot) => slot,
            None => self.new_slot(identity, pool, backend),
        }
    }

    /// The slot of what has not been seen by this identity: what has the same names goes on in its slot.
    #[cold]
    fn new_slot(&mut self, identity: u64, pool: &str, backend: &str) -> usize {
        let names = Arc::new(Names { pool: pool.into(), backend: backend.into() });
        let slot = match self.by_names.get(&names) {
            Some((slot, before)) => {
                self.slots.remove(*before);
                *slot
            }
            None => {
                let slot = self.free.pop().unwrap_or_else(|| self.sheet.push());
                self.sheet.names[slot as usize] = Some(names.clone());
                slot
            }
        };
        self.by_names.insert(names, (slot, identity));
        self.slots.insert(identity, slot);
        slot as usize
    }

    #[cold]
    fn new_status(&mut self, status: usize) -> u16 {
        let label = match status {
            0 => NO_RESPONSE,
            100..600 => status as u16,
            _ => INVALID_STATUS,
        };
        let column = self.sheet.statuses.place(label) as u16;
        self.column_of_status[status] = column;
        column
    }

    /// Forgets what was counted under these names. What they still count begins at zero.
    pub fn forget(&mut self, names: &[Arc<Names>]) {
        for names in names {
            if let Some((slot, identity)) = self.by_names.remove(names) {
                self.slots.remove(identity);
                self.sheet.clear(slot as usize);
                self.free.push(slot);
            }
        }
    }

    /// What has been counted.
    #[must_use]
    pub fn sheet(&self) -> &Sheet {
        &self.sheet
    }
}

impl Sheet {
    /// One more slot.
    fn push(&mut self) -> u32 {
        self.names.push(None);
        self.cells.push(Cells::default());
        self.names.len() as u32 - 1
    }

    fn clear(&mut self, slot: usize) {
        self.names[slot] = None;
        self.cells[slot] = Cells::default();
        self.statuses.clear(slot);
        self.causes.clear(slot);
        self.events.clear(slot);
        self.failures.remove(&slot);
    }

    /// Forgets what was counted under these names, which are sorted.
    pub fn forget(&mut self, names: &[Arc<Names>]) {
        for slot in 0..self.names.len() {
            if self.names[slot].as_ref().is_some_and(|known| names.binary_search(known).is_ok()) {
                self.clear(slot);
            }
        }
    }
}

/// Everything that was counted under one name, by one worker or by all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// What most requests count.
    pub cells: Cells,
    /// Requests by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that failed, by the name of the cause.
    pub causes: BTreeMap<&'static str, u64>,
    /// The rest.
    pub events: BTreeMap<Event, u64>,
    /// What was last found wrong with a backend.
    pub failure: Option<Failure>,
}

/// Series by their names.
pub type Totals = BTreeMap<Arc<Names>, Series>;

impl Series {
    /// How often this has happened.
    #[must_use]
    pub fn event(&self, event: Event) -> u64 {
        self.events.get(&event).copied().unwrap_or_default()
    }

    fn add(&mut self, sheet: &Sheet, slot: usize) {
        let more = &sheet.cells[slot];
        self.cells.bytes_in += more.bytes_in;
        self.cells.bytes_out += more.bytes_out;
        self.cells.duration.add(&more.duration);
        self.cells.wait.add(&more.wait);
        self.cells.check.add(&more.check);
        for (status, n) in sheet.statuses.of(slot) {
            *self.statuses.entry(status).or_default() += n;
        }
        for (cause, n) in sheet.causes.of(slot) {
            *self.causes.entry(cause.name()).or_default() += n;
        }
        for (event, n) in sheet.events.of(slot) {
            *self.events.entry(event).or_default() += n;
        }
        if let Some(failure) = sheet.failures.get(&slot)
            && self.failure.as_ref().is_none_or(|known| known.at <= failure.at)
        {
            self.failure = Some(failure.clone());
        }
    }
}

/// Adds what a worker has counted.
pub fn add_up(totals: &mut Totals, sheet: &Sheet) {
    for (slot, names) in sheet.names.iter().enumerate() {
        if let Some(names) = names {
            totals.entry(names.clone()).or_default().add(sheet, slot);
        }
    }
}
