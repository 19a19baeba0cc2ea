//! The counts of a worker, for as long as it has the same proxy.

use std::sync::Arc;

use ruststrom_core::Instant;
use ruststrom_core::middleware::Counter;
use ruststrom_core::observe::{Check, HealthChange, Record};

use super::counted::{Counted, Names, Sheet};
use super::ledger::Ledger;

/// What a worker counts. When it is dropped, with a proxy that has ended or was given up, its counts stay in
/// the ledger.
#[derive(Debug)]
pub struct WorkerMetrics {
    counted: Counted,
    ledger: Arc<Ledger>,
    account: u64,
    now: Instant,
}

/// What a worker has counted up to now.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whose it is, in the ledger.
    pub account: u64,
    /// The counts.
    pub sheet: Sheet,
}

impl WorkerMetrics {
    /// Counts that begin at zero.
    #[must_use]
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        let (counted, account) = (Counted::default(), ledger.open());
        Self { counted, ledger: ledger.clone(), account, now: Instant::ZERO }
    }

    /// A turn begins.
    #[inline]
    pub fn turn(&mut self, now: Instant) {
        self.now = now;
    }

    /// Counts a request that has ended.
    #[inline]
    pub fn exchange(&mut self, record: &Record<'_>) {
        self.counted.exchange(record);
    }

    /// Counts what a middleware has counted.
    pub fn count(&mut self, pool: &str, identity: u64, counter: Counter) {
        self.counted.count(pool, identity, counter);
    }

    /// Counts a health check.
    pub fn check(&mut self, check: &Check<'_>) {
        self.counted.check(check, self.now);
    }

    /// Keeps why a backend has become Unhealthy.
    pub fn health(&mut self, change: &HealthChange<'_>) {
        self.counted.health(change, self.now);
    }

    /// What has been counted up to now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { account: self.account, sheet: self.counted.sheet().clone() }
    }

    /// Forgets what was counted under these names.
    pub fn forget(&mut self, names: &[Arc<Names>]) {
        self.counted.forget(names);
    }
}

impl Drop for WorkerMetrics {
    fn drop(&mut self) {
        self.ledger.close(self.account, self.counted.sheet());
    }
}
