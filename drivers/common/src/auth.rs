//! Finds out whether names and passwords are good, without ever making a worker wait: LDAP servers are asked,
//! and hashes computed, on threads of their own, which end when there is nothing to do.
//!
//! Each directory has its own threads and its own queue, so that one that says nothing delays nobody but
//! those who ask it; each of these has a result when the directory's `timeout` is over. Lists of hashes share
//! a few threads, and take turns: what costs there is the processor.

mod directory;
mod directory_tls;
mod job_queue;
mod password_hash;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ruststrom_core::config::{Config, CredentialSource, FileFault, FileRef, Middleware};
use ruststrom_core::{LookupResult, Secret, Wanted};

use job_queue::{Job, JobQueue, Limits};

/// Threads for one directory: so many of its requests wait for it at once.
const DIRECTORY_THREADS: usize = 8;
/// Most threads that compute hashes.
const MAX_HASH_THREADS: usize = 4;
/// Requests to one directory or list that wait for a thread; any beyond fail at once.
const MAX_WAITING: usize = 1024;
/// A thread without work ends after this.
const IDLE: Duration = Duration::from_secs(30);
/// For the check of a hashed password, if it has to wait for others.
const HASH_TIMEOUT: Duration = Duration::from_secs(5);
/// Directories whose threads are kept; older ones are those of configurations before.
const MAX_DIRECTORIES: usize = 256;

/// Hands a result over. Called on another thread, or at once.
pub type Done = Box<dyn FnOnce(LookupResult) + Send>;

/// Those who find out, of a process. Cheap to clone.
#[derive(Clone)]
pub struct Authenticators(Arc<Inner>);

struct Inner {
    /// In the order in which they were asked first.
    directories: Mutex<Vec<(Arc<CredentialSource>, JobQueue)>>,
    lists: JobQueue,
}

impl Default for Authenticators {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let limits = Limits { threads: cores.min(MAX_HASH_THREADS), waiting: MAX_WAITING, idle: IDLE };
        let lists = JobQueue::new("passwords", limits, || Box::new(password_hash::check));
        Self(Arc::new(Inner { directories: Mutex::default(), lists }))
    }
}

impl Authenticators {
    /// Finds out whether a name and a password are good, as long as that is wanted; returns at once. `done`
    /// is called exactly once.
    pub fn ask(
        &self,
        source: Arc<CredentialSource>,
        user: Box<str>,
        password: Secret,
        wanted: Wanted,
        done: Done,
    ) {
        match &*source {
            CredentialSource::Users(_) => {
                self.0.lists.push(Job::new(source, user, password, wanted, HASH_TIMEOUT, done));
            }
            CredentialSource::Directory(directory) => {
                let timeout = directory.timeout;
                self.queue_of(&source).push(Job::new(source, user, password, wanted, timeout, done));
            }
        }
    }

    fn queue_of(&self, source: &Arc<CredentialSource>) -> JobQueue {
        let mut known = self.0.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, queue)) = known.iter().find(|(s, _)| Arc::ptr_eq(s, source) || s == source) {
            return queue.clone();
        }
        if known.len() >= MAX_DIRECTORIES {
            known.remove(0);
        }
        let (asked, log) = (source.clone(), Arc::new(directory::Outages::default()));
        let limits = Limits { threads: DIRECTORY_THREADS, waiting: MAX_WAITING, idle: IDLE };
        let queue = JobQueue::new("directory", limits, move || {
            let mut session = directory::Session::new(asked.clone(), log.clone());
            Box::new(move |job: &Job| session.check(job))
        });
        known.push((source.clone(), queue.clone()));
        queue
    }
}

/// What is wrong with the authorities that directories' certificates have to be signed by.
#[must_use]
pub fn file_faults(config: &Config) -> Vec<FileFault> {
    let middlewares = config.pools.iter().flat_map(|pool| &pool.middlewares);
    let files = middlewares.filter_map(|middleware| match middleware {
        Middleware::Authentication(settings) => settings.directory.ca_file.as_ref(),
        _ => None,
    });
    let fault = |file: &FileRef| {
        let why = directory_tls::authorities(&file.content).err()?;
        Some(FileFault::new(file, why))
    };
    files.filter_map(fault).collect()
}
