//! The observer of a worker of the daemon: what the log is told, and what is counted.

use std::sync::Arc;

use ruststrom_core::middleware::Counter;
use ruststrom_core::observe::{Check, Head, HealthChange, Kept, Level, Observer, Record, Step};
use ruststrom_core::{ConnId, Instant, Wall};

use crate::access_log::LogObserver;
use crate::metrics::counted::Names;
use crate::metrics::worker::{Snapshot, WorkerMetrics};
use crate::observer::WorkerObserver;

/// The log of a worker, and its counts.
pub struct DaemonObserver {
    log: LogObserver,
    metrics: WorkerMetrics,
}

impl DaemonObserver {
    /// Both of one worker.
    #[must_use]
    pub fn new(log: LogObserver, metrics: WorkerMetrics) -> Self {
        Self { log, metrics }
    }
}

impl Observer for DaemonObserver {
    // Requests are counted whether they are logged or not.
    #[inline]
    fn wants_records(&self) -> bool {
        true
    }

    #[inline]
    fn wants_heads(&self) -> bool {
        self.log.wants_records()
    }

    #[inline]
    fn head(&mut self, head: &Head<'_>, kept: &mut Kept) {
        self.log.head(head, kept);
    }

    #[inline]
    fn exchange(&mut self, record: &Record<'_>) {
        self.metrics.exchange(record);
        self.log.exchange(record);
    }

    fn health(&mut self, change: &HealthChange<'_>) {
        self.metrics.health(change);
        self.log.health(change);
    }

    fn count(&mut self, pool: &str, identity: u64, counter: Counter) {
        self.metrics.count(pool, identity, counter);
    }

    fn check(&mut self, check: &Check<'_>) {
        self.metrics.check(check);
    }

    #[inline]
    fn wants_steps(&self) -> bool {
        self.log.wants_steps()
    }

    #[inline]
    fn wants_bytes(&self) -> bool {
        self.log.wants_bytes()
    }

    #[cold]
    fn step(&mut self, conn: ConnId, step: &Step<'_>) {
        self.log.step(conn, step);
    }

    fn note(&mut self, level: Level, text: &str) {
        self.log.note(level, text);
    }
}

impl WorkerObserver for DaemonObserver {
    fn turn(&mut self, now: Instant) {
        self.metrics.turn(now);
        self.log.turn(now);
    }

    fn wall(&mut self, wall: Wall, now: Instant) {
        self.log.wall(wall, now);
    }

    fn turn_ended(&mut self) -> bool {
        self.log.turn_ended()
    }

    fn reconfigured(&mut self) {
        self.log.reconfigured();
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(self.metrics.snapshot())
    }

    fn forget(&mut self, names: &[Arc<Names>]) {
        self.metrics.forget(names);
    }
}
