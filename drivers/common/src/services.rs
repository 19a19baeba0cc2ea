//! What a worker's [`World`](crate::world::World) does besides carrying bytes: lookups, and nudges to other
//! workers.

use std::sync::Arc;

use ruststrom_core::{LookupId, Query};

use crate::lookup::Lookups;
use crate::mailbox::{Command, Mailbox};

/// The services that one worker uses.
pub struct WorkerServices {
    mailboxes: Arc<[Mailbox]>,
    shard: u16,
    lookups: Lookups,
    generation: u32,
}

impl WorkerServices {
    pub(crate) fn new(mailboxes: Arc<[Mailbox]>, shard: u16, lookups: Lookups) -> Self {
        Self { mailboxes, shard, lookups, generation: 0 }
    }

    /// Starts a lookup, whose result comes as a command in the mailbox.
    pub fn lookup(&mut self, id: LookupId, q: Query) {
        let (mailboxes, shard, generation) =
            (self.mailboxes.clone(), usize::from(self.shard), self.generation);
        self.lookups.ask(
            id,
            q,
            Box::new(move |id, result| mailboxes[shard].post(Command::LookupDone { generation, id, result })),
        );
    }

    /// Nudges another worker.
    pub fn nudge(&mut self, shard: u16) {
        if let Some(mailbox) = self.mailboxes.get(usize::from(shard)) {
            mailbox.post(Command::Nudge);
        }
    }

    /// Counts the proxies of this worker that were given up.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The worker's proxy is given up: results of lookups that it has started are not for the next one.
    pub fn next_generation(&mut self) {
        self.generation += 1;
    }
}
