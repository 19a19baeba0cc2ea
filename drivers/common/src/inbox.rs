//! How other threads reach a worker: a flag, a list of answers, and a waker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};

use ruststrom_core::{LookupId, LookupResult};

use crate::engine::Wake;
use crate::worker::Census;

/// One worker's.
pub(crate) struct Inbox {
    wake: Wake,
    nudged: AtomicBool,
    /// With the generation of the proxy that asked.
    responses: Mutex<Vec<(u32, LookupId, LookupResult)>>,
    /// Those who asked for a [`Census`] and wait for it.
    asking: Mutex<Vec<Sender<Census>>>,
}

impl Inbox {
    pub(crate) fn new(wake: Wake) -> Self {
        Self { wake, nudged: AtomicBool::new(false), responses: Mutex::default(), asking: Mutex::default() }
    }

    pub(crate) fn wake(&self) {
        (self.wake)();
    }

    /// Something shared changed. Many nudges before the worker looks are one.
    pub(crate) fn nudge(&self) {
        if !self.nudged.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    pub(crate) fn response(&self, generation: u32, id: LookupId, response: LookupResult) {
        self.responses.lock().unwrap_or_else(PoisonError::into_inner).push((generation, id, response));
        self.wake();
    }

    /// Asks for a census; if the worker has ended, nothing ever comes.
    pub(crate) fn ask(&self, whom: Sender<Census>) {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner).push(whom);
        self.wake();
    }

    pub(crate) fn take_asking(&self) -> Vec<Sender<Census>> {
        std::mem::take(&mut *self.asking.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn take_nudge(&self) -> bool {
        self.nudged.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn take_responses(&self) -> Vec<(u32, LookupId, LookupResult)> {
        std::mem::take(&mut *self.responses.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
