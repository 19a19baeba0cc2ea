//! What became ready, for the next turn of a worker.
//!
//! A waker of the reactor says only that it was woken, so each thing that a worker waits for has a waker of
//! its own ([`TaskWaker`]), which puts a [`WakeReason`] into the worker's [`ReadyQueue`]. One turn handles
//! all that are in there. Whichever thread drives the reactor calls the wakers, so the queue is behind a
//! lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use ruststrom_core::ConnId;
use ruststrom_driver::event::Readiness;

/// Why a worker was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakeReason {
    /// A socket may be read from.
    Readable(ConnId),
    /// A socket may be written to.
    Writable(ConnId),
    /// A socket broke while nobody waited for its readiness.
    Failed(ConnId, Readiness),
    /// There may be connections to accept; by the listener's place among those of this worker.
    Listener(usize),
    /// Another thread has put something into the mailbox.
    Mailbox,
}

/// The reasons of one worker since its last turn.
#[derive(Default)]
pub(crate) struct ReadyQueue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reasons: Vec<WakeReason>,
    /// The worker's waker, until the first push after its last look.
    worker: Option<Waker>,
}

impl ReadyQueue {
    /// Adds a reason, and wakes the worker unless another one has done so since its last look.
    pub(crate) fn push(&self, reason: WakeReason) {
        let mut state = self.lock();
        state.reasons.push(reason);
        let worker = state.worker.take();
        drop(state);
        if let Some(worker) = worker {
            worker.wake();
        }
    }

    /// Moves all reasons into the empty `reasons`; the next push wakes `worker`.
    pub(crate) fn take(&self, reasons: &mut Vec<WakeReason>, worker: &Waker) {
        let mut state = self.lock();
        std::mem::swap(&mut state.reasons, reasons);
        if state.worker.is_none() {
            state.worker = Some(worker.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Both fields are valid between any two of their methods: a panic elsewhere does not matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The waker of one thing that a worker waits for.
struct TaskWaker {
    queue: Arc<ReadyQueue>,
    reason: WakeReason,
}

/// A waker that pushes `reason`. Cloning it allocates nothing.
pub(crate) fn task_waker(queue: &Arc<ReadyQueue>, reason: WakeReason) -> Waker {
    Waker::from(Arc::new(TaskWaker { queue: queue.clone(), reason }))
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue.push(self.reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_worker_is_woken_once_for_all_reasons_until_it_looks() {
        let (queue, count) = (Arc::<ReadyQueue>::default(), Arc::<Count>::default());
        let (worker, mut reasons) = (Waker::from(count.clone()), Vec::new());
        let readable = task_waker(&queue, WakeReason::Readable(ConnId { slot: 3, epoch: 1 }));
        // Before its first look there is nobody to wake.
        queue.push(WakeReason::Mailbox);
        queue.take(&mut reasons, &worker);
        assert_eq!(
            (reasons.as_slice(), count.0.load(Ordering::SeqCst)),
            ([WakeReason::Mailbox].as_slice(), 0)
        );
        for round in 1..3 {
            reasons.clear();
            readable.wake_by_ref();
            queue.push(WakeReason::Listener(0));
            assert_eq!(count.0.load(Ordering::SeqCst), round);
            queue.take(&mut reasons, &worker);
            assert_eq!(
                reasons,
                [WakeReason::Readable(ConnId { slot: 3, epoch: 1 }), WakeReason::Listener(0)]
            );
        }
        // A look at an empty queue leaves the waker in place.
        reasons.clear();
        queue.take(&mut reasons, &worker);
        assert!(reasons.is_empty());
        readable.wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 3);
    }
}
