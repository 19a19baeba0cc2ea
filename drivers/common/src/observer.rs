//! What a worker reports to its observer besides what the core does.

use std::sync::Arc;

use ruststrom_core::observe::Observer;
use ruststrom_core::{Instant, Wall};

use crate::metrics::counted::Names;
use crate::metrics::worker::Snapshot;

/// An [`Observer`] that lives in a worker and is told of the worker's turns.
pub trait WorkerObserver: Observer {
    /// A turn begins at `now`.
    fn turn(&mut self, now: Instant);
    /// It is `wall` at `now`; called about once a second while there are turns.
    fn wall(&mut self, wall: Wall, now: Instant);
    /// A turn has ended: hand over what was gathered. True if that could not be done yet, then another turn
    /// should follow soon.
    fn turn_ended(&mut self) -> bool;
    /// A new configuration has been taken.
    fn reconfigured(&mut self) {}
    /// What has been counted up to now, if anything is.
    fn snapshot(&self) -> Option<Snapshot> {
        None
    }
    /// Forget what was counted under these names, which are sorted.
    fn forget(&mut self, names: &[Arc<Names>]) {
        let _ = names;
    }
}
