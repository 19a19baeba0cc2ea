//! A switch that stops all workers, from any thread.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

/// How far a stop has gone. It only ever goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serving.
    Run,
    /// Take nothing new, end what runs.
    Drain,
    /// Cut everything.
    Now,
}

type Wake = Box<dyn Fn() + Send + Sync>;

/// The switch. Workers read it when woken, and register what wakes them.
#[derive(Default)]
pub struct Stop {
    stage: AtomicU8,
    wakers: Mutex<Vec<Wake>>,
}

impl Stop {
    /// How far it has gone.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Run,
            1 => Stage::Drain,
            _ => Stage::Now,
        }
    }

    /// Moves on to `stage`, never back, and wakes every worker.
    pub fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
        for wake in self.wakers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
            wake();
        }
    }

    /// Calls `wake` at every later step; a step taken before is seen by [`Stop::stage`].
    pub fn on_advance(&self, wake: Wake) {
        self.wakers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn stages_only_go_on_and_wake() {
        let stop = Stop::default();
        let woken = Arc::new(AtomicUsize::new(0));
        let w = woken.clone();
        stop.on_advance(Box::new(move || {
            w.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(stop.stage(), Stage::Run);
        stop.advance(Stage::Now);
        stop.advance(Stage::Drain);
        assert_eq!(stop.stage(), Stage::Now);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }
}
