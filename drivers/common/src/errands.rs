//! What a worker's world does besides carrying bytes: lookups, nudges to other workers, and remembering that
//! the core has nothing left.

use std::sync::Arc;

use ruststrom_core::{LookupId, Query};

use crate::inbox::Inbox;
use crate::lookup::Lookups;

/// One worker's.
pub struct Errands {
    inboxes: Arc<[Inbox]>,
    shard: u16,
    lookups: Lookups,
    /// Answers to a proxy that is gone are not for its successor.
    pub(crate) generation: u32,
    pub(crate) drained: bool,
}

impl Errands {
    pub(crate) fn new(inboxes: Arc<[Inbox]>, shard: u16, lookups: Lookups) -> Self {
        Self { inboxes, shard, lookups, generation: 0, drained: false }
    }

    /// Starts a lookup, whose answer comes by the inbox.
    pub fn lookup(&mut self, id: LookupId, q: Query) {
        let (inboxes, shard, generation) = (self.inboxes.clone(), usize::from(self.shard), self.generation);
        self.lookups.ask(
            id,
            q,
            Box::new(move |id, response| inboxes[shard].response(generation, id, response)),
        );
    }

    /// Nudges another worker.
    pub fn nudge(&mut self, shard: u16) {
        if let Some(inbox) = self.inboxes.get(usize::from(shard)) {
            inbox.nudge();
        }
    }

    /// The core has nothing left.
    pub fn drained(&mut self) {
        self.drained = true;
    }
}
