//! How other threads reach a worker: a queue of commands, and a waker.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ruststrom_core::proxy::Counts;
use ruststrom_core::{Config, LookupId, LookupResult};

use crate::acceptor::{LentSocket, Placed};
use crate::metrics::counted::Names;
use crate::metrics::worker::Snapshot;

/// Wakes a worker, from any thread.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// Commands that a mailbox takes before its queue has to grow.
const QUEUED: usize = 16;

/// What a worker is asked to do between two events. `B` is a bound listener.
#[derive(Debug)]
pub enum Command<B = TcpListener> {
    /// Serve by this configuration from now on. Exchanges under way keep theirs, no connection is closed.
    Config(Arc<Config>),
    /// The same, with other listeners: from now on there are these. Whoever had connected to one that is not
    /// among them is taken, then it is closed.
    Listeners(Arc<Config>, Vec<Placed<B>>),
    /// A lookup ended.
    LookupDone {
        /// Which of the worker's proxies asked: one that started afresh does not get the results of the one
        /// before it.
        generation: u32,
        /// Which lookup.
        id: LookupId,
        /// What it found.
        result: LookupResult,
    },
    /// Another worker has changed something shared: health, addresses, limits.
    Nudge,
    /// Report how much of everything there is, once everything of this turn has settled.
    Stats(Sender<WorkerStats>),
    /// Report what has been counted, once everything of this turn has settled.
    Report {
        /// The worker that is asked.
        worker: u16,
        /// Where the report goes.
        to: Sender<WorkerReport>,
    },
    /// Forget what was counted under these names, which are sorted.
    Forget(Arc<[Arc<Names>]>),
    /// Say that you live.
    Pulse(Sender<()>),
    /// Lend the sockets of all listeners to another process.
    Lend(Sender<io::Result<Vec<LentSocket>>>),
}

/// What a worker has counted, and what there is now.
#[derive(Clone, Debug)]
pub struct WorkerReport {
    /// Its number.
    pub worker: u16,
    /// How much of everything there is.
    pub counts: Counts,
    /// Exchanges that wait for a backend, for each pool that has some.
    pub queues: Vec<(Box<str>, u32)>,
    /// What it has counted, if it does.
    pub counted: Option<Snapshot>,
}

/// How much of everything a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerStats {
    /// What its proxy counts.
    pub counts: Counts,
    /// Sockets of connections that are open: clients, backends, probes.
    pub sockets: usize,
}

/// One worker's queue of commands.
pub struct Mailbox<B = TcpListener> {
    wake: Wake,
    nudged: AtomicBool,
    queue: Mutex<VecDeque<Command<B>>>,
    /// The worker has ended.
    closed: AtomicBool,
}

impl<B> Mailbox<B> {
    /// An empty one. `wake` makes the worker read it, by an [`Event::Mailbox`](crate::event::Event::Mailbox).
    #[must_use]
    pub fn new(wake: Wake) -> Self {
        Self {
            wake,
            nudged: AtomicBool::new(false),
            queue: Mutex::new(VecDeque::with_capacity(QUEUED)),
            closed: AtomicBool::new(false),
        }
    }

    /// Leaves a command for the worker and wakes it; never waits for it. If the worker has ended the command
    /// is dropped. Nudges before the worker looks are one and cost no memory.
    pub fn post(&self, command: Command<B>) {
        if matches!(command, Command::Nudge) {
            if !self.nudged.swap(true, Ordering::AcqRel) {
                self.wake();
            }
        } else {
            let mut queue = self.queue();
            if !self.closed.load(Ordering::Acquire) {
                queue.push_back(command);
                drop(queue);
                self.wake();
            }
        }
    }

    /// The worker has ended: what waits here and what comes later is dropped, so that nobody waits for a
    /// response.
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        self.closed.store(true, Ordering::Release);
        queue.clear();
    }

    /// Moves all commands behind those in `commands`, a nudge first, the others in the order in which they
    /// were posted.
    pub(crate) fn take(&self, commands: &mut VecDeque<Command<B>>) {
        if self.nudged.swap(false, Ordering::AcqRel) {
            commands.push_back(Command::Nudge);
        }
        commands.append(&mut self.queue());
    }

    /// Wakes the worker for something that is no command.
    pub(crate) fn wake(&self) {
        (self.wake)();
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Command<B>>> {
        // A queue is whole between any two of its methods.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn nudges_are_one_and_commands_keep_their_order() {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        let mailbox: Mailbox = Mailbox::new(Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        let done = |id| Command::LookupDone {
            generation: 0,
            id: LookupId(id),
            result: LookupResult::Failed("x".into()),
        };
        let mut commands = VecDeque::new();
        for round in 1..3 {
            for _ in 0..5 {
                mailbox.post(Command::Nudge);
            }
            assert_eq!(woken.load(Ordering::SeqCst), round * 3 - 2, "many nudges wake once");
            mailbox.post(done(1));
            mailbox.post(Command::Nudge);
            mailbox.post(done(2));
            mailbox.take(&mut commands);
            let taken: Vec<String> = commands.drain(..).map(|c| format!("{c:?}")).collect();
            assert_eq!(taken, [Command::Nudge, done(1), done(2)].map(|c| format!("{c:?}")));
            mailbox.take(&mut commands);
            assert!(commands.is_empty());
        }
    }
}
