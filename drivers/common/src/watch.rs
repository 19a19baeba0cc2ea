//! Watching the files of a configuration, on a thread of its own: whoever follows them is told when they have
//! something else in them than what was loaded.
//!
//! A file is watched where its name is: in its folder, and in the folder of every name and every symbolic
//! link on the way there, for that is what editors, deployments and Kubernetes change. Whatever happens
//! there, contents are compared when it has been quiet for a while, so that a file is not read while it is
//! being written. Where the kernel cannot tell, contents are compared every now and then.
//!
//! | part | what it is for |
//! |---|---|
//! | `content` | what files had in them |
//! | `way` | the folders and names on the way to a file |
//! | `pace` | when to look |
//! | `folders` | the folders that are watched |
//! | `inotify`, `no_events` | events of folders, on Linux and elsewhere |

mod content;
mod folders;
#[cfg(target_os = "linux")]
mod inotify;
#[cfg(not(target_os = "linux"))]
mod no_events;
mod pace;
mod way;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock;
use folders::Folders;
use pace::Pace;

pub use content::Contents;

/// How often contents are compared where the kernel tells of no changes.
pub const POLL: Duration = Duration::from_secs(10);

/// What was loaded, until the thread has seen it. The inner `None`: nothing is to be watched.
type Told = Arc<Mutex<Option<Option<Contents>>>>;

/// The thread that watches. It ends when this is dropped.
pub struct Watch {
    told: Told,
    wake: UnixStream,
}

impl Watch {
    /// Starts the thread, which calls `changed` when files have something else in them than what was loaded.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(changed: impl Fn() + Send + 'static) -> io::Result<Self> {
        Self::start_with(Folders::new(), POLL, changed)
    }

    fn start_with(folders: Folders, poll: Duration, changed: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let told = Told::default();
        let watcher =
            Watcher { told: told.clone(), woken, folders, pace: Pace::new(poll), loaded: None, changed };
        thread::Builder::new().name("watch".into()).spawn(move || watcher.run())?;
        Ok(Self { told, wake })
    }

    /// From now on these files are watched, for other contents than these; `None`: no files.
    pub fn follow(&self, loaded: Option<Contents>) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
        // If it is full, the thread is woken anyway.
        let _ = (&self.wake).write(&[0]);
    }
}

/// The thread's own.
struct Watcher<F> {
    told: Told,
    woken: UnixStream,
    folders: Folders,
    pace: Pace,
    loaded: Option<Contents>,
    changed: F,
}

impl<F: Fn()> Watcher<F> {
    fn run(mut self) {
        loop {
            self.wait();
            let mut bytes = [0; 64];
            // Its other end is gone.
            if matches!((&self.woken).read(&mut bytes), Ok(0)) {
                return;
            }
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(loaded) = told {
                self.loaded = loaded;
                self.pace.begin();
                self.follow();
                if self.loaded.is_some() {
                    // They may have changed before they were watched.
                    self.pace.event(clock::now());
                }
            }
            if self.folders.take_events() && self.loaded.is_some() {
                self.pace.event(clock::now());
            }
            if self.pace.due().is_some_and(|due| due <= clock::now()) {
                // The way to a file may be another one now. What happens from here on is seen.
                self.follow();
                self.look();
            }
        }
    }

    /// Until something has happened, or it is time to look.
    fn wait(&self) {
        let mut files = vec![PollFd::new(&self.woken, PollFlags::IN)];
        files.extend(self.folders.events().map(|events| PollFd::from_borrowed_fd(events, PollFlags::IN)));
        let timeout = self.pace.due().map(|due| due.since(clock::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // It fails when a signal comes, and then nothing is to be done.
        let _ = poll(&mut files, timeout.as_ref());
    }

    /// Watches whatever is on the way to the files now.
    fn follow(&mut self) {
        let paths = self.loaded.iter().flat_map(Contents::paths);
        let found = self.folders.follow(paths);
        self.pace.set_blind(found.blind && self.loaded.is_some(), clock::now());
        if found.stale {
            self.pace.event(clock::now());
        }
    }

    fn look(&mut self) {
        let found = self.loaded.as_ref().and_then(Contents::difference);
        let changed = self.pace.looked(found, clock::now());
        if changed {
            (self.changed)();
        }
    }
}

#[cfg(test)]
mod tests;
