//! Requests that wait for a thread, and the threads: a few, started when they are needed. Those of one source
//! wait for each other; sources take turns, so that many requests to one delay no other. What nobody waits
//! for any more is not looked at.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ruststrom_core::config::CredentialSource;
use ruststrom_core::{LookupResult, Secret, Wanted};

use super::Done;

/// A name and a password to look at.
pub(super) struct Job {
    pub(super) source: Arc<CredentialSource>,
    pub(super) user: Box<str>,
    pub(super) password: Secret,
    /// When there must be a result.
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
    wanted: Wanted,
    done: Done,
}

impl Job {
    pub(super) fn new(
        source: Arc<CredentialSource>,
        user: Box<str>,
        password: Secret,
        wanted: Wanted,
        timeout: Duration,
        done: Done,
    ) -> Self {
        Self { source, user, password, deadline: Instant::now() + timeout, timeout, wanted, done }
    }
}

/// How much of everything there may be.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) threads: usize,
    /// Jobs of one source that wait.
    pub(super) waiting: usize,
    /// A thread without work ends after this.
    pub(super) idle: Duration,
}

/// What a thread does with a job; it may keep things from one to the next.
type Work = Box<dyn FnMut(&Job) -> LookupResult>;

struct State {
    /// Those that wait, by their source: the first one's turn is next. None is empty.
    jobs: VecDeque<VecDeque<Job>>,
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

    /// Puts a job behind the others of its source. If there are too many, or no thread can be started, it
    /// fails at once.
    pub(super) fn push(&self, job: Job) {
        let (mut state, mut left) = (self.0.lock(), Vec::new());
        let pushed = state.push(job, self.0.limits.waiting, &mut left);
        let failed = match pushed {
            Err(job) => Some((job, "too many credentials wait to be looked at".into())),
            Ok(()) => self.start_thread(&mut state),
        };
        drop(state);
        for job in left {
            (job.done)(not_wanted());
        }
        match failed {
            Some((job, why)) => (job.done)(LookupResult::Failed(why)),
            None => self.0.more.notify_one(),
        }
    }

    /// Starts a thread if those that there are do not suffice. If there is none at all, the job that would
    /// have been its first fails.
    fn start_thread(&self, state: &mut State) -> Option<(Job, Box<str>)> {
        if state.waiting() <= state.idle || state.threads >= self.0.limits.threads {
            return None;
        }
        state.threads += 1;
        let inner = self.0.clone();
        let started = std::thread::Builder::new().name(self.0.name.into()).spawn(move || inner.run());
        let e = started.err()?;
        state.threads -= 1;
        if state.threads > 0 {
            return None;
        }
        Some((state.pop()?, format!("no thread can be started: {e}").into()))
    }
}

/// For a job whose result nobody waits for.
fn not_wanted() -> LookupResult {
    LookupResult::Failed("whoever asked has gone".into())
}

impl State {
    fn waiting(&self) -> usize {
        self.jobs.iter().map(VecDeque::len).sum()
    }

    /// Puts a job behind the others of its source, unless so many wait there. Those that nobody waits for
    /// make room, and are `left`.
    fn push(&mut self, job: Job, most: usize, left: &mut Vec<Job>) -> Result<(), Job> {
        let same = |jobs: &VecDeque<Job>| {
            jobs.front()
                .is_some_and(|first| Arc::ptr_eq(&first.source, &job.source) || first.source == job.source)
        };
        let Some(at) = self.jobs.iter().position(same) else {
            self.jobs.push_back(VecDeque::from([job]));
            return Ok(());
        };
        let jobs = &mut self.jobs[at];
        if jobs.len() >= most {
            let (stay, go): (_, VecDeque<_>) =
                std::mem::take(jobs).into_iter().partition(|job| job.wanted.get());
            *jobs = stay;
            left.extend(go);
            if jobs.len() >= most {
                return Err(job);
            }
        }
        jobs.push_back(job);
        Ok(())
    }

    /// The next job: of each source one in turn.
    fn pop(&mut self) -> Option<Job> {
        let mut jobs = self.jobs.pop_front()?;
        let job = jobs.pop_front();
        if !jobs.is_empty() {
            self.jobs.push_back(jobs);
        }
        job
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
            if !job.wanted.get() {
                (job.done)(not_wanted());
                continue;
            }
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
            if let Some(job) = state.pop() {
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

    use ruststrom_core::Waiting;
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
                    "slow" => std::thread::sleep(Duration::from_millis(1000)),
                    _ => {}
                }
                LookupResult::Failed(format!("{} {before}", job.user).into())
            })
        })
    }

    /// A list of users of its own for each letter.
    fn source(letter: char) -> Arc<CredentialSource> {
        let line = format!("{letter}:$6$salt${}", "x".repeat(86));
        Arc::new(CredentialSource::Users(UserList::of_file(line.as_bytes()).expect("a list")))
    }

    fn push_to(
        queue: &JobQueue,
        source: Arc<CredentialSource>,
        user: &str,
        timeout: Duration,
        to: &mpsc::Sender<String>,
    ) -> Waiting {
        let to = to.clone();
        let done: Done = Box::new(move |result| {
            let LookupResult::Failed(why) = result else { panic!("{result:?}") };
            to.send(why.into()).expect("the test listens");
        });
        let (waiting, wanted) = Waiting::new();
        queue.push(Job::new(source, user.into(), Secret("x".into()), wanted, timeout, done));
        waiting
    }

    /// For as long as the test runs somebody waits.
    fn push(queue: &JobQueue, user: &str, timeout: Duration, to: &mpsc::Sender<String>) {
        std::mem::forget(push_to(queue, source('a'), user, timeout, to));
    }

    /// Holds the one thread of the queue until what is returned is sent to.
    fn held_queue(waiting: usize, to: &mpsc::Sender<String>) -> (JobQueue, mpsc::Sender<()>) {
        let (go, held) = mpsc::channel::<()>();
        let held = Mutex::new(Some(held));
        let queue = JobQueue::new("test", Limits { threads: 1, waiting, idle: WAIT }, move || {
            let held = held.lock().expect("one thread").take();
            Box::new(move |job| {
                if &*job.user == "first" {
                    held.as_ref().expect("one thread").recv().expect("the test goes on");
                }
                LookupResult::Failed(job.user.clone())
            })
        });
        push(&queue, "first", WAIT, to);
        while !queue.0.lock().jobs.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        (queue, go)
    }

    #[test]
    fn sources_take_turns() {
        let (to, from) = mpsc::channel();
        let (queue, go) = held_queue(4, &to);
        let sent =
            [('a', "a1"), ('a', "a2"), ('a', "a3"), ('a', "a4"), ('a', "a5"), ('b', "b1"), ('c', "c1")];
        let waiting = sent.map(|(letter, user)| push_to(&queue, source(letter), user, WAIT, &to));
        assert_eq!(from.recv_timeout(WAIT).expect("a result"), "too many credentials wait to be looked at");
        go.send(()).expect("the thread waits");
        let results: Vec<String> = (0..7).map(|_| from.recv_timeout(WAIT).expect("a result")).collect();
        assert_eq!(results, ["first", "a1", "b1", "c1", "a2", "a3", "a4"]);
        drop(waiting);
    }

    #[test]
    fn what_nobody_waits_for_is_not_looked_at_and_makes_room() {
        let (to, from) = mpsc::channel();
        let (queue, go) = held_queue(3, &to);
        let push = |user| push_to(&queue, source('a'), user, WAIT, &to);
        let (gone, stays, gone_too) = (push("gone"), push("stays"), push("gone too"));
        drop((gone, gone_too));
        let comes = push("comes");
        let next = || from.recv_timeout(WAIT).expect("a result");
        assert_eq!([next(), next()], ["whoever asked has gone"; 2], "there was no room");
        drop(push("goes"));
        go.send(()).expect("the thread waits");
        assert_eq!([next(), next(), next(), next()], ["first", "stays", "comes", "whoever asked has gone"]);
        drop((stays, comes));
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
            push(&queue, "late", Duration::from_millis(300), &to);
        }
        push(&queue, "many", WAIT, &to);
        let results: Vec<String> = (0..7).map(|_| from.recv_timeout(WAIT).expect("a result")).collect();
        assert_eq!(results[0], "too many credentials wait to be looked at");
        let late = results.iter().filter(|why| *why == "no thread was free within 0.3 s").count();
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
