//! Where access lines go, for all workers: another target can take its place while they run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ruststrom_core::config::LogFormat;

use crate::log_writer::LogWriter;

/// Where access lines go, and what they look like.
#[derive(Clone)]
pub struct AccessTarget {
    /// The layout of a line.
    pub format: LogFormat,
    /// Who writes them.
    pub writer: LogWriter,
    /// The writer is for access lines only, and writes to a file.
    pub own_file: bool,
}

/// The target of all workers; `None`: there are no access lines. Cheap to clone.
#[derive(Clone, Default)]
pub struct SharedAccessTarget(Arc<Mutex<Targets>>);

#[derive(Default)]
struct Targets {
    now: Option<AccessTarget>,
    /// Files that workers may still have lines for.
    closing: Vec<LogWriter>,
    /// Lines that files have dropped which are closed.
    dropped: u64,
}

impl SharedAccessTarget {
    /// With this target.
    #[must_use]
    pub fn new(target: Option<AccessTarget>) -> Self {
        Self(Arc::new(Mutex::new(Targets { now: target, closing: Vec::new(), dropped: 0 })))
    }

    /// The target now.
    #[must_use]
    pub fn get(&self) -> Option<AccessTarget> {
        self.lock().now.clone()
    }

    /// Another target. A worker's lines go there once it has the configuration that says so. A file that is
    /// not the target any more is written on until the last worker has left it, then it is closed.
    pub fn replace(&self, target: Option<AccessTarget>) {
        let targets = &mut *self.lock();
        let old = std::mem::replace(&mut targets.now, target);
        let stays = |old: &AccessTarget| {
            targets.now.as_ref().is_some_and(|new| new.writer.is_same(&old.writer)) || !old.own_file
        };
        let closed = targets.closing.extract_if(.., |writer| writer.is_closed());
        targets.dropped += closed.map(|writer| writer.dropped()).sum::<u64>();
        if let Some(old) = old.filter(|old| !stays(old)) {
            old.writer.close();
            targets.closing.push(old.writer);
        }
    }

    /// Closes the file of a target that is not to be used after all, unless it is the one in use.
    pub fn discard(&self, target: Option<AccessTarget>) {
        let now = self.get();
        if let Some(target) = target.filter(|target| target.own_file)
            && now.is_none_or(|now| !now.writer.is_same(&target.writer))
        {
            target.writer.close();
        }
    }

    /// Lines that files of access lines have dropped up to now.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let targets = self.lock();
        let now = targets.now.as_ref().filter(|target| target.own_file).map(|target| &target.writer);
        targets.dropped + now.into_iter().chain(&targets.closing).map(LogWriter::dropped).sum::<u64>()
    }

    /// Opens the file anew, if it is one; whether it is.
    #[must_use]
    pub fn reopen(&self) -> bool {
        let target = self.get().filter(|target| target.own_file);
        target.map(|target| target.writer.reopen()).is_some()
    }

    /// Waits until all that was handed over before has been written, but no longer than `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let closing = self.lock().closing.clone();
        for writer in self.get().map(|target| target.writer).iter().chain(&closing) {
            writer.flush(timeout);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Targets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
