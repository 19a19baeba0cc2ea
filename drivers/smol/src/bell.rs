//! Wakers that say who woke: they ring at their worker's board, and the worker looks at all that rang in one
//! turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use ruststrom_core::ConnId;
use ruststrom_driver::event::Readiness;

/// What a waker is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rang {
    Readable(ConnId),
    Writable(ConnId),
    /// The alarm has heard something.
    Alarm,
    /// What the alarm has heard.
    Broken(ConnId, Readiness),
    /// By its place among this worker's listeners.
    Listener(usize),
    Mailbox,
}

/// Where all wakers of a worker ring, from whatever thread is in the reactor.
#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rang: Vec<Rang>,
    /// The worker's own, while nothing has rung since it looked.
    worker: Option<Waker>,
}

impl Board {
    pub(crate) fn ring(&self, what: Rang) {
        let mut state = self.lock();
        state.rang.push(what);
        let worker = state.worker.take();
        drop(state);
        if let Some(worker) = worker {
            worker.wake();
        }
    }

    /// All that rang since the last time, into the empty `rang`; whatever rings from now on wakes `worker`.
    pub(crate) fn take(&self, rang: &mut Vec<Rang>, worker: &Waker) {
        let mut state = self.lock();
        std::mem::swap(&mut state.rang, rang);
        if state.worker.is_none() {
            state.worker = Some(worker.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A list is whole between any two of its methods.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waker.
struct Bell {
    board: Arc<Board>,
    what: Rang,
}

/// A waker that rings `what`.
pub(crate) fn bell(board: &Arc<Board>, what: Rang) -> Waker {
    Waker::from(Arc::new(Bell { board: board.clone(), what }))
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.board.ring(self.what);
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
    fn the_worker_is_woken_once_for_all_that_rings_before_it_looks() {
        let (board, count) = (Arc::<Board>::default(), Arc::<Count>::default());
        let (worker, mut rang) = (Waker::from(count.clone()), Vec::new());
        let readable = bell(&board, Rang::Readable(ConnId { slot: 3, epoch: 1 }));
        // Before it ever looked there is nobody to wake.
        board.ring(Rang::Mailbox);
        board.take(&mut rang, &worker);
        assert_eq!((rang.as_slice(), count.0.load(Ordering::SeqCst)), ([Rang::Mailbox].as_slice(), 0));
        for round in 1..3 {
            rang.clear();
            readable.wake_by_ref();
            board.ring(Rang::Listener(0));
            assert_eq!(count.0.load(Ordering::SeqCst), round);
            board.take(&mut rang, &worker);
            assert_eq!(rang, [Rang::Readable(ConnId { slot: 3, epoch: 1 }), Rang::Listener(0)]);
        }
        // Looking again does not forget that it wants to be woken.
        rang.clear();
        board.take(&mut rang, &worker);
        assert!(rang.is_empty());
        readable.wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 3);
    }
}
