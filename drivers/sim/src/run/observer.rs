//! The observer of a run: keeps what the core records until the next check of the invariants.

use ruststrom_core::observe::{Head, HealthChange, HealthState, Kept, Level, Record};
use ruststrom_core::{Instant, Observer, Wall};
use ruststrom_driver::observer::WorkerObserver;

use crate::coverage::cause_name;
use crate::exchanges::ObservedRecord;

/// What the core has recorded since the last check.
#[derive(Debug, Default)]
pub(crate) struct RunObserver {
    pub(super) records: Vec<ExchangeRecord>,
    /// Pool, backend and new state.
    pub(super) health: Vec<(String, String, HealthState)>,
}

/// The record of one exchange.
#[derive(Debug)]
pub(super) struct ExchangeRecord {
    pub(super) target: String,
    pub(super) record: ObservedRecord,
    /// It had to wait for a backend.
    pub(super) waited: bool,
}

impl Observer for RunObserver {
    fn head(&mut self, head: &Head<'_>, kept: &mut Kept) {
        kept.copy(head.target);
    }

    fn exchange(&mut self, r: &Record<'_>) {
        let record = ObservedRecord {
            status: r.status,
            cause: r.cause.map(cause_name),
            bytes_in: r.bytes_in,
            bytes_out: r.bytes_out,
            attempts: r.attempts,
        };
        let waited = r.timings.chosen != Instant::NEVER && r.timings.chosen > r.timings.head;
        let target = String::from_utf8_lossy(r.kept.bytes()).into_owned();
        self.records.push(ExchangeRecord { target, record, waited });
    }

    fn health(&mut self, c: &HealthChange<'_>) {
        self.health.push((c.pool.to_owned(), c.backend.to_owned(), c.to));
    }

    fn note(&mut self, _: Level, _: &str) {}
}

impl WorkerObserver for RunObserver {
    fn turn(&mut self, _: Instant) {}

    fn wall(&mut self, _: Wall, _: Instant) {}

    fn turn_ended(&mut self) -> bool {
        false
    }
}
