//! A switch that stops all workers, from any thread, and whether the process may be sent requests: it may
//! from the first round of probes on, and no more from the first moment of a stop.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

/// How far a stop has gone. It only ever goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serving.
    Run,
    /// Serving everything, and telling whoever asks that there will soon be an end: after
    /// [`Timeouts::shutdown_delay`](ruststrom_core::config::Timeouts::shutdown_delay) the workers go on by
    /// themselves, as by [`Stage::Drain`].
    Notice,
    /// Take nothing new, end what runs.
    Drain,
    /// Cut everything.
    Now,
}

type Wake = Box<dyn Fn() + Send + Sync>;
type Once = Box<dyn FnOnce() + Send>;

/// The switch. Workers read it when woken, and register what wakes them.
#[derive(Default)]
pub struct Stop {
    stage: AtomicU8,
    wakers: Mutex<Vec<Wake>>,
    probed: AtomicBool,
    /// Who waits for the first round of probes.
    for_probed: Mutex<Vec<Once>>,
}

impl Stop {
    /// How far it has gone.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Run,
            1 => Stage::Notice,
            2 => Stage::Drain,
            _ => Stage::Now,
        }
    }

    /// Moves on to `stage`, never back, and wakes every worker.
    pub fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
        for wake in self.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            wake();
        }
    }

    /// Calls `wake` at every later step; a step taken before is seen by [`Stop::stage`].
    pub fn on_advance(&self, wake: Wake) {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(wake);
    }

    /// Whether the process may be sent requests: every worker has finished its first round of probes, and no
    /// stop has begun. What `/readyz` and the service manager are told.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.probed.load(Ordering::Acquire) && self.stage() == Stage::Run
    }

    /// Calls `ready` once when the first round of probes has ended, or at once if it has: on a worker's
    /// thread, which it must not hold up.
    pub fn on_probed(&self, ready: Once) {
        let mut waiting = self.for_probed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.probed.load(Ordering::Acquire) {
            drop(waiting);
            return ready();
        }
        waiting.push(ready);
    }

    /// The first round of probes has ended.
    pub(crate) fn probed(&self) {
        let waiting = {
            let mut waiting = self.for_probed.lock().unwrap_or_else(PoisonError::into_inner);
            self.probed.store(true, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        waiting.into_iter().for_each(|ready| ready());
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

    #[test]
    fn ready_from_the_probes_to_the_first_moment_of_a_stop() {
        let stop = Stop::default();
        let told = Arc::new(AtomicUsize::new(0));
        let tell = || -> Once {
            let told = told.clone();
            Box::new(move || _ = told.fetch_add(1, Ordering::Relaxed))
        };
        stop.on_probed(tell());
        assert_eq!((stop.is_ready(), told.load(Ordering::Relaxed)), (false, 0));
        stop.probed();
        assert_eq!((stop.is_ready(), told.load(Ordering::Relaxed)), (true, 1));
        stop.on_probed(tell());
        assert_eq!(told.load(Ordering::Relaxed), 2);
        for stage in [Stage::Notice, Stage::Drain, Stage::Now] {
            stop.advance(stage);
            assert_eq!((stop.stage(), stop.is_ready()), (stage, false));
        }
    }
}
