//! Looks up what the core asks for. Credentials are for [`auth`](crate::auth); host names are looked up here,
//! without blocking a worker: the system's resolver blocks, sometimes for half a minute.
//!
//! Resolver calls run on the threads of [`smol::unblock`], at most 64 at once. Its pool is one for the whole
//! process and grows up to 500 threads (`BLOCKING_MAX_THREADS` in the environment changes that): with fewer
//! than 64, names that hang can delay others. Its threads end when idle, and the process does not wait for
//! them when it exits.
//!
//! Equal lookups (same host and port) share one resolver call. A lookup gets its result within
//! [`LOOKUP_TIMEOUT`] even if the resolver hangs; what the resolver says later is dropped. A control thread,
//! which exists while anybody waits, starts the resolver calls and watches over these deadlines. It is no
//! task of an executor because that would start smol's reactor under the mio driver too, and under the smol
//! driver it would compete with the workers for it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ruststrom_core::{LookupId, LookupResult, Query};

use crate::auth::Authenticators;

/// A lookup without a result for this long fails.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Resolver calls at once; each occupies a thread.
const MAX_CONCURRENT: usize = 64;
/// Lookups that wait for their result at once; any beyond fail immediately.
const MAX_PENDING: usize = 4096;
/// Addresses of one name that are used.
const MAX_ADDRESSES: usize = 256;

/// Delivers the result to the worker that asked. Called on another thread, so it must only hand it over.
pub type Deliver = Box<dyn FnOnce(LookupId, LookupResult) + Send>;
type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// One lookup that waits for its result.
struct Waiter {
    id: LookupId,
    deadline: Instant,
    deliver: Deliver,
}

impl Waiter {
    fn finish(self, result: LookupResult) {
        (self.deliver)(self.id, result);
    }
}

/// A name that is looked up, for everybody who asked for it.
struct Name {
    host: Arc<str>,
    port: u16,
    /// Empty once all of them have timed out; the resolver call may still hang.
    waiters: Vec<Waiter>,
    /// Its resolver call has been started.
    started: bool,
}

#[derive(Default)]
struct State {
    /// In the order in which they were asked for.
    names: Vec<Name>,
    /// Waiters of all names.
    pending: usize,
    /// Resolver calls that have not returned.
    resolving: usize,
    /// The control thread runs.
    controlled: bool,
}

struct Inner {
    state: Mutex<State>,
    /// Something changed that the control thread has to look at.
    changed: Condvar,
    resolve: Box<Resolve>,
    timeout: Duration,
    authenticators: Authenticators,
}

/// Makes the pages of the admin listener that need more than the core knows.
pub trait AdminPages: Send + Sync {
    /// Answers [`Query::Metrics`] or [`Query::Status`] by calling `deliver` once, from whatever thread. It
    /// must not block.
    fn ask(&self, query: Query, deliver: DeliverPage);
}

/// Delivers a page of the admin listener, or why there is none.
pub type DeliverPage = Box<dyn FnOnce(LookupResult) + Send>;

/// The lookups of a process. Cheap to clone.
#[derive(Clone)]
pub struct Lookups(Arc<Inner>, Option<Arc<dyn AdminPages>>);

impl Default for Lookups {
    /// With the system's resolver and [`LOOKUP_TIMEOUT`].
    fn default() -> Self {
        Self::with(LOOKUP_TIMEOUT, |host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }
}

impl Lookups {
    /// With a `resolve` of the caller's own, which may block and panic.
    pub fn with(
        timeout: Duration,
        resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let authenticators = Authenticators::default();
        Self(Arc::new(Inner { state, changed, resolve: Box::new(resolve), timeout, authenticators }), None)
    }

    /// The same, with pages for the admin listener.
    #[must_use]
    pub fn with_pages(self, pages: Arc<dyn AdminPages>) -> Self {
        Self(self.0, Some(pages))
    }

    /// Starts a lookup and returns at once. `deliver` is called exactly once: on another thread, or from here
    /// if too many lookups wait already or the control thread cannot be started.
    pub fn ask(&self, id: LookupId, query: Query, deliver: Deliver) {
        let (host, port) = match query {
            Query::Resolve { host, port } => (host, port),
            Query::Authenticate { source, user, password, wanted } => {
                let done = Box::new(move |result| deliver(id, result));
                return self.0.authenticators.ask(source, user, password, wanted, done);
            }
            Query::Metrics { .. } | Query::Status => {
                let done: DeliverPage = Box::new(move |result| deliver(id, result));
                return match &self.1 {
                    Some(pages) => pages.ask(query, done),
                    None => done(LookupResult::Failed("there is no such page here".into())),
                };
            }
        };
        let waiter = Waiter { id, deadline: Instant::now() + self.0.timeout, deliver };
        let mut s = self.0.lock();
        if s.pending >= MAX_PENDING {
            drop(s);
            return waiter.finish(LookupResult::Failed("too many lookups are waiting".into()));
        }
        if !s.controlled {
            let inner = self.0.clone();
            if let Err(e) = std::thread::Builder::new().name("lookups".into()).spawn(move || inner.control())
            {
                drop(s);
                let why = format!("no thread for lookups can be started: {e}");
                return waiter.finish(LookupResult::Failed(why.into()));
            }
            s.controlled = true;
        }
        s.pending += 1;
        match s.position(&host, port) {
            Some(place) => s.names[place].waiters.push(waiter),
            None => s.names.push(Name { host: host.into(), port, waiters: vec![waiter], started: false }),
        }
        drop(s);
        self.0.changed.notify_one();
    }
}

impl State {
    fn position(&self, host: &str, port: u16) -> Option<usize> {
        self.names.iter().position(|n| n.port == port && *n.host == *host)
    }

    /// Takes those whose time is up, and forgets names that nobody waits for unless their resolver call runs.
    fn take_late(&mut self, now: Instant) -> Vec<Waiter> {
        let mut late = Vec::new();
        for n in &mut self.names {
            late.extend(n.waiters.extract_if(.., |w| w.deadline <= now));
        }
        self.names.retain(|n| n.started || !n.waiters.is_empty());
        self.pending -= late.len();
        late
    }

    /// The next name to resolve, if there is one and a resolver call may be started.
    fn start_next(&mut self) -> Option<(Arc<str>, u16)> {
        if self.resolving >= MAX_CONCURRENT {
            return None;
        }
        let name = self.names.iter_mut().find(|n| !n.started)?;
        name.started = true;
        self.resolving += 1;
        Some((name.host.clone(), name.port))
    }

    /// When the first waiter times out.
    fn next_deadline(&self) -> Option<Instant> {
        self.names.iter().flat_map(|n| &n.waiters).map(|w| w.deadline).min()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The control thread: until nobody waits.
    fn control(self: Arc<Self>) {
        let mut s = self.lock();
        loop {
            let now = Instant::now();
            let late = s.take_late(now);
            let next = s.start_next();
            if !late.is_empty() || next.is_some() {
                drop(s);
                for waiter in late {
                    let why = format!("no result within {} s", self.timeout.as_secs_f32());
                    waiter.finish(LookupResult::Failed(why.into()));
                }
                if let Some((host, port)) = next {
                    let inner = self.clone();
                    smol::unblock(move || inner.resolve(&host, port)).detach();
                }
                s = self.lock();
                continue;
            }
            let Some(deadline) = s.next_deadline() else {
                s.controlled = false;
                return;
            };
            let wait = deadline.saturating_duration_since(now);
            s = self.changed.wait_timeout(s, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Resolves one name and delivers the result to all who wait for it by then.
    fn resolve(&self, host: &str, port: u16) {
        let resolved = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.resolve)(host, port)));
        let result = match resolved {
            Ok(Ok(mut addresses)) => {
                addresses.truncate(MAX_ADDRESSES);
                if addresses.is_empty() {
                    LookupResult::Failed("the name has no address".into())
                } else {
                    LookupResult::Addresses(addresses)
                }
            }
            Ok(Err(e)) => LookupResult::Failed(e.to_string().into()),
            Err(_) => LookupResult::Failed("the resolver failed".into()),
        };
        let mut s = self.lock();
        s.resolving -= 1;
        let waiters = s.position(host, port).map(|place| s.names.remove(place).waiters).unwrap_or_default();
        s.pending -= waiters.len();
        drop(s);
        // Another name may be resolved now.
        self.changed.notify_one();
        for waiter in waiters {
            waiter.finish(result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;

    fn query(host: &str) -> Query {
        Query::Resolve { host: host.into(), port: 80 }
    }

    /// Names that start with `dead` hang until released; `none` has no address; `bad` fails; `mad` panics.
    fn lookups(timeout_ms: u64) -> (Lookups, Arc<AtomicUsize>, Arc<AtomicBool>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let released = Arc::new(AtomicBool::new(false));
        let (count, go) = (asked.clone(), released.clone());
        let l = Lookups::with(Duration::from_millis(timeout_ms), move |host, port| {
            count.fetch_add(1, Ordering::SeqCst);
            match host {
                h if h.starts_with("dead") => {
                    while !go.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(io::Error::other("late"))
                }
                "slow" => {
                    std::thread::sleep(Duration::from_millis(100));
                    Ok(vec![SocketAddr::from(([10, 0, 0, 2], port))])
                }
                "none" => Ok(Vec::new()),
                "bad" => Err(io::Error::other("no such name")),
                "mad" => panic!("as the test wants"),
                _ => Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]),
            }
        });
        (l, asked, released)
    }

    fn ask(l: &Lookups, id: u64, host: &str, to: &mpsc::Sender<(u64, LookupResult)>) {
        let to = to.clone();
        l.ask(
            LookupId(id),
            query(host),
            Box::new(move |id, a| to.send((id.0, a)).expect("the test listens")),
        );
    }

    const WAIT: Duration = Duration::from_secs(20);

    #[test]
    fn results() {
        let (l, ..) = lookups(5000);
        let table: &[(&str, LookupResult)] = &[
            ("one", LookupResult::Addresses(vec!["10.0.0.1:80".parse().expect("an address")])),
            ("none", LookupResult::Failed("the name has no address".into())),
            ("bad", LookupResult::Failed("no such name".into())),
            ("mad", LookupResult::Failed("the resolver failed".into())),
            ("two", LookupResult::Addresses(vec!["10.0.0.1:80".parse().expect("an address")])),
        ];
        for (host, result) in table {
            let (to, from) = mpsc::channel();
            ask(&l, 3, host, &to);
            assert_eq!(from.recv_timeout(WAIT).expect("a result"), (3, result.clone()), "{host}");
        }
    }

    #[test]
    fn names_that_hang_delay_no_others_and_time_out() {
        let (l, asked, released) = lookups(1000);
        let (to, from) = mpsc::channel();
        for i in 0..20 {
            ask(&l, i, &format!("dead{i}"), &to);
        }
        ask(&l, 100, "live", &to);
        assert_eq!(from.recv_timeout(WAIT).expect("a result").0, 100, "the live one has its result first");
        let mut timed_out: Vec<u64> = (0..20)
            .map(|_| {
                let (id, a) = from.recv_timeout(WAIT).expect("a result");
                assert_eq!(a, LookupResult::Failed("no result within 1 s".into()));
                id
            })
            .collect();
        timed_out.sort_unstable();
        assert_eq!(timed_out, (0..20).collect::<Vec<_>>());
        // Asked again while its resolver call still hangs: no second call for the same name, and one result.
        ask(&l, 200, "dead0", &to);
        assert_eq!(from.recv_timeout(WAIT).expect("a result").0, 200);
        assert_eq!(asked.load(Ordering::SeqCst), 21);
        // What the resolver says after all is for nobody, until somebody asks again.
        released.store(true, Ordering::SeqCst);
        assert!(from.recv_timeout(Duration::from_millis(50)).is_err());
        let late = LookupResult::Failed("late".into());
        assert!((0..50).any(|_| {
            ask(&l, 300, "dead0", &to);
            from.recv_timeout(WAIT).expect("a result") == (300, late.clone())
        }));
        assert!(asked.load(Ordering::SeqCst) > 21);
    }

    #[test]
    fn equal_lookups_share_one_resolver_call() {
        let (l, asked, released) = lookups(20_000);
        let (to, from) = mpsc::channel();
        for i in 0..8 {
            ask(&l, i, "dead", &to);
        }
        released.store(true, Ordering::SeqCst);
        let mut ids: Vec<u64> = (0..8).map(|_| from.recv_timeout(WAIT).expect("a result").0).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..8).collect::<Vec<_>>());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        ask(&l, 9, "slow", &to);
        from.recv_timeout(WAIT).expect("a result");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "nothing is cached here");
    }

    #[test]
    fn more_names_than_threads_and_more_lookups_than_allowed() {
        let (l, asked, released) = lookups(200);
        let (to, from) = mpsc::channel();
        for i in 0..MAX_PENDING as u64 + 10 {
            ask(&l, i, &format!("dead{}", i % 100), &to);
        }
        let mut refused = 0;
        for _ in 0..MAX_PENDING + 10 {
            let (_, a) = from.recv_timeout(WAIT).expect("a result");
            refused += usize::from(a == LookupResult::Failed("too many lookups are waiting".into()));
        }
        assert!(refused <= 10 && from.try_recv().is_err());
        let before = Instant::now();
        while asked.load(Ordering::SeqCst) < MAX_CONCURRENT && before.elapsed() < WAIT {
            std::thread::sleep(Duration::from_millis(2));
        }
        // All calls hang: one more name waits in vain for its turn.
        ask(&l, 1, "live", &to);
        assert_eq!(
            from.recv_timeout(WAIT).expect("a result").1,
            LookupResult::Failed("no result within 0.2 s".into())
        );
        assert_eq!(asked.load(Ordering::SeqCst), MAX_CONCURRENT);
        // Once the hanging calls return, names are resolved again.
        released.store(true, Ordering::SeqCst);
        let resolved = (0..50).any(|_| {
            ask(&l, 1, "live", &to);
            matches!(from.recv_timeout(WAIT).expect("a result").1, LookupResult::Addresses(_))
        });
        assert!(resolved);
    }

    #[test]
    fn the_system_resolver_knows_localhost() {
        let (to, from) = mpsc::channel();
        ask(&Lookups::default(), 1, "localhost", &to);
        match from.recv_timeout(WAIT).expect("a result").1 {
            LookupResult::Addresses(a) => assert!(a.iter().all(|a| a.ip().is_loopback() && a.port() == 80)),
            other => panic!("{other:?}"),
        }
    }
}
