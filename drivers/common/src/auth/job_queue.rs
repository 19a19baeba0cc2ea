//! Requests that wait for a thread, and the threads: a few, started when they are needed.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ruststrom_core::config::CredentialSource;
use ruststrom_core::{LookupResult, Secret};

use super::Done;

/// A name and a password to look at.
pub(super) struct Job {
    pub(super) source: Arc<CredentialSource>,
    pub(super) user: Box<str>,
    pub(super) password: Secret,
    /// When there must be a result.
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
    done: Done,
}

impl Job {
    pub(super) fn new(
        source: Arc<CredentialSource>,
        user: Box<str>,
        password: Secret,
        timeout: Duration,
        done: Done,
    ) -> Self {
        Self { source, user, password, deadline: Instant::now() + timeout, timeout, done }
    }
}

/// How much of everything there may be.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) threads: usize,
    pub(super) waiting: usize,
    /// A thread without work ends after this.
    pub(super) idle: Duration,
}

/// What a thread does with a job; it may keep things from one to the next.
type Work = Box<dyn FnMut(&Job) -> LookupResult>;

struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
}

struct Inner {
    name: &'static str,
    limits: Limits,
    state: Mutex<State>,
    more: Condvar,
    worker: Box<dyn Fn() -> Work + Send + Sync>,
}

/// The queue, and the threads. Cheap to clone.
#[derive(Clone)]
pub(super) struct JobQueue(Arc<Inner>);

impl JobQueue {
    /// `worker` makes what a thread does; it is called on that thread, and again after a panic.
    pub(super) fn new(
        name: &'static str,
        limits: Limits,
        worker: impl Fn() -> Work + Send + Sync + 'static,
    ) -> Self {
        let state = Mutex::new(State { jobs: VecDeque::new(), threads: 0, idle: 0 });
        Self(Arc::new(Inner { name, limits, state, more: Condvar::new(), worker: Box::new(worker) }))
    }

    /// Puts a job behind the others. If there are too many, or no thread can be started, it fails at once.
    pub(super) fn push(&self, job: Job) {
        let mut state = self.0.lock();
        if state.jobs.len() >= self.0.limits.waiting {
            drop(state);
            return (job.done)(LookupResult::Failed("too many credentials wait to be looked at".into()));
        }
        state.jobs.push_back(job);
        if state.jobs.len() > state.idle && state.threads < self.0.limits.threads {
            state.threads += 1;
            let inner = self.0.clone();
            let started = std::thread::Builder::new().name(self.0.name.into()).spawn(move || inner.run());
            if let Err(e) = started {
                state.threads -= 1;
                let alone = state.threads == 0;
                let job = if alone { state.jobs.pop_back() } else { None };
                drop(state);
                if let Some(job) = job {
                    (job.done)(LookupResult::Failed(format!("no thread can be started: {e}").into()));
                }
                return;
            }
        }
        drop(state);
        self.0.more.notify_one();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread: until there has been nothing to do for a while.
    fn run(&self) {
        let mut work = None;
        while let Some(job) = self.next() {
            if job.deadline <= Instant::now() {
                let why = format!("no thread was free within {} s", job.timeout.as_secs_f32());
                (job.done)(LookupResult::Failed(why.into()));
                continue;
            }
            let result = catch_unwind(AssertUnwindSafe(|| work.get_or_insert_with(|| (self.worker)())(&job)));
            let result = result.unwrap_or_else(|_| {
                work = None;
                LookupResult::Failed("the check of the credentials failed".into())
            });
            (job.done)(result);
        }
    }

    /// The next job; `None` if the thread is to end, which is counted.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        let end = Instant::now() + self.limits.idle;
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            state = self.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use ruststrom_core::config::UserList;

    use super::*;

    const WAIT: Duration = Duration::from_secs(20);

    fn queue(limits: Limits) -> JobQueue {
        JobQueue::new("test", limits, || {
            let mut before = 0;
            Box::new(move |job| {
                before += 1;
                match &*job.user {
                    "mad" => panic!("as the test wants"),
                    "slow" => std::thread::sleep(Duration::from_millis(100)),
                    _ => {}
                }
                LookupResult::Failed(format!("{} {before}", job.user).into())
            })
        })
    }

    fn push(queue: &JobQueue, user: &str, timeout: Duration, to: &mpsc::Sender<String>) {
        let line = format!("a:$6$salt${}", "x".repeat(86));
        let source = CredentialSource::Users(UserList::of_file(line.as_bytes()).expect("a list"));
        let to = to.clone();
        let done: Done = Box::new(move |result| {
            let LookupResult::Failed(why) = result else { panic!("{result:?}") };
            to.send(why.into()).expect("the test listens");
        });
        queue.push(Job::new(Arc::new(source), user.into(), Secret("x".into()), timeout, done));
    }

    #[test]
    fn jobs_have_one_result_each_and_panics_are_theirs() {
        let queue = queue(Limits { threads: 1, waiting: 10, idle: WAIT });
        let (to, from) = mpsc::channel();
        for user in ["one", "two", "mad", "one"] {
            push(&queue, user, WAIT, &to);
        }
        let next = || from.recv_timeout(WAIT).expect("a result");
        assert_eq!(
            [next(), next(), next(), next()],
            ["one 1", "two 2", "the check of the credentials failed", "one 1"]
        );
    }

    #[test]
    fn too_many_fail_at_once_and_those_that_wait_too_long_fail_in_time() {
        let queue = queue(Limits { threads: 2, waiting: 4, idle: WAIT });
        let (to, from) = mpsc::channel();
        for _ in 0..2 {
            push(&queue, "slow", WAIT, &to);
        }
        // Both are taken.
        while !queue.0.lock().jobs.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        for _ in 0..4 {
            push(&queue, "late", Duration::from_millis(20), &to);
        }
        push(&queue, "many", WAIT, &to);
        let results: Vec<String> = (0..7).map(|_| from.recv_timeout(WAIT).expect("a result")).collect();
        assert_eq!(results[0], "too many credentials wait to be looked at");
        let late = results.iter().filter(|why| *why == "no thread was free within 0.02 s").count();
        assert_eq!(late, 4, "{results:?}");
        assert_eq!(queue.0.lock().threads, 2, "no more than that");
    }

    #[test]
    fn threads_end_when_there_is_nothing_to_do() {
        let queue = queue(Limits { threads: 3, waiting: 10, idle: Duration::from_millis(20) });
        let (to, from) = mpsc::channel();
        for round in 0..2 {
            push(&queue, "one", WAIT, &to);
            assert_eq!(from.recv_timeout(WAIT).expect("a result"), "one 1", "{round}");
            let begun = Instant::now();
            while queue.0.lock().threads > 0 {
                assert!(begun.elapsed() < WAIT);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}
