//! Host names to addresses, on threads of their own: the system's resolver blocks, sometimes for half a
//! minute.
//!
//! Each name is asked once at a time, however many workers wait for it, and by a thread of its own while
//! there are few enough: a dead name holds up nobody else's. Who waits gets an answer within [`PATIENCE`] in
//! any case.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ruststrom_core::{LookupId, LookupResult, Query};

/// The longest wait for an answer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Threads at most, that is names asked at once.
const THREADS: usize = 64;
/// A thread without work ends after this long.
const LINGER: Duration = Duration::from_secs(10);
/// Questions that may be open at once.
const QUESTIONS: usize = 4096;
/// Addresses of one name that are used.
const ADDRESSES: usize = 256;

/// Takes an answer to the worker that asked. Called on a lookup thread.
pub type Deliver = Box<dyn FnOnce(LookupId, LookupResult) + Send>;
type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

struct Waiting {
    id: LookupId,
    until: Instant,
    deliver: Deliver,
}

struct Name {
    host: Box<str>,
    port: u16,
    /// Empty once all who asked have been told that it takes too long; the thread may still hang in it.
    waiting: Vec<Waiting>,
    running: bool,
}

#[derive(Default)]
struct State {
    names: Vec<Name>,
    /// Names that no thread has yet.
    queue: VecDeque<(Box<str>, u16)>,
    open: usize,
    threads: usize,
    idle: usize,
    timekeeper: bool,
}

struct Inner {
    state: Mutex<State>,
    work: Condvar,
    time: Condvar,
    resolve: Box<Resolve>,
    patience: Duration,
}

/// The lookup threads of a process. Cheap to clone; threads start when asked and end when idle.
#[derive(Clone)]
pub struct Lookups(Arc<Inner>);

impl Default for Lookups {
    fn default() -> Self {
        Self::with(PATIENCE, |host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }
}

impl Lookups {
    /// With a resolver of one's own.
    pub fn with(
        patience: Duration,
        resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let (work, time) = (Condvar::new(), Condvar::new());
        Self(Arc::new(Inner { state: Mutex::default(), work, time, resolve: Box::new(resolve), patience }))
    }

    /// Asks; `deliver` is called exactly once, never from here unless there are too many questions.
    pub fn ask(&self, id: LookupId, query: Query, deliver: Deliver) {
        let Query::Resolve { host, port } = query;
        let waiting = Waiting { id, until: Instant::now() + self.0.patience, deliver };
        let mut s = self.0.lock();
        if s.open >= QUESTIONS {
            drop(s);
            return (waiting.deliver)(id, LookupResult::Failed("too many lookups are waiting".into()));
        }
        s.open += 1;
        if let Some(n) = s.names.iter_mut().find(|n| n.port == port && n.host == host) {
            n.waiting.push(waiting);
        } else {
            s.queue.push_back((host.clone(), port));
            s.names.push(Name { host, port, waiting: vec![waiting], running: false });
            // `idle` counts threads asleep, and each queued name will wake one of them.
            if s.idle >= s.queue.len() {
                self.0.work.notify_one();
            } else if s.threads < THREADS {
                s.threads += 1;
                let inner = self.0.clone();
                if std::thread::Builder::new().name("lookup".into()).spawn(move || inner.work()).is_err() {
                    // The name stays queued for another thread, or its patience ends.
                    s.threads -= 1;
                }
            }
        }
        if s.timekeeper {
            self.0.time.notify_one();
        } else {
            let inner = self.0.clone();
            s.timekeeper = std::thread::Builder::new()
                .name("lookup-time".into())
                .spawn(move || inner.keep_time())
                .is_ok();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lookup thread.
    fn work(&self) {
        let mut s = self.lock();
        loop {
            let Some((host, port)) = s.queue.pop_front() else {
                s.idle += 1;
                let (guard, timeout) =
                    self.work.wait_timeout(s, LINGER).unwrap_or_else(PoisonError::into_inner);
                s = guard;
                s.idle -= 1;
                if timeout.timed_out() && s.queue.is_empty() {
                    s.threads -= 1;
                    return;
                }
                continue;
            };
            // Nobody may be waiting any more, after a long time in the queue.
            let Some(place) = s.names.iter().position(|n| n.port == port && n.host == host) else { continue };
            if s.names[place].waiting.is_empty() {
                s.names.swap_remove(place);
                continue;
            }
            if s.names[place].running {
                continue;
            }
            s.names[place].running = true;
            drop(s);
            let found =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.resolve)(&host, port)));
            let response = match found {
                Ok(Ok(mut addresses)) => {
                    addresses.truncate(ADDRESSES);
                    if addresses.is_empty() {
                        LookupResult::Failed("the name has no address".into())
                    } else {
                        LookupResult::Addresses(addresses)
                    }
                }
                Ok(Err(e)) => LookupResult::Failed(e.to_string().into()),
                Err(_) => LookupResult::Failed("the resolver failed".into()),
            };
            s = self.lock();
            if let Some(place) = s.names.iter().position(|n| n.port == port && n.host == host) {
                let told = s.names.swap_remove(place).waiting;
                s.open -= told.len();
                drop(s);
                for w in told {
                    (w.deliver)(w.id, response.clone());
                }
                s = self.lock();
            }
        }
    }

    /// The thread that ends the patience of those who wait; it lives while anybody waits.
    fn keep_time(&self) {
        let mut s = self.lock();
        loop {
            let now = Instant::now();
            let mut late = Vec::new();
            for n in &mut s.names {
                late.extend(n.waiting.extract_if(.., |w| w.until <= now));
            }
            s.names.retain(|n| n.running || !n.waiting.is_empty());
            s.open -= late.len();
            if !late.is_empty() {
                drop(s);
                for w in late {
                    (w.deliver)(
                        w.id,
                        LookupResult::Failed(
                            format!("no answer within {} s", self.patience.as_secs_f32()).into(),
                        ),
                    );
                }
                s = self.lock();
                continue;
            }
            let Some(next) = s.names.iter().flat_map(|n| &n.waiting).map(|w| w.until).min() else {
                s.timekeeper = false;
                return;
            };
            s = self
                .time
                .wait_timeout(s, next.saturating_duration_since(now))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
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
    fn lookups(patience_ms: u64) -> (Lookups, Arc<AtomicUsize>, Arc<AtomicBool>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let released = Arc::new(AtomicBool::new(false));
        let (count, go) = (asked.clone(), released.clone());
        let l = Lookups::with(Duration::from_millis(patience_ms), move |host, port| {
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
                "mad" => panic!("resolver"),
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
    fn responses() {
        let (l, ..) = lookups(5000);
        let table: &[(&str, LookupResult)] = &[
            ("one", LookupResult::Addresses(vec!["10.0.0.1:80".parse().expect("an address")])),
            ("none", LookupResult::Failed("the name has no address".into())),
            ("bad", LookupResult::Failed("no such name".into())),
            ("mad", LookupResult::Failed("the resolver failed".into())),
            ("two", LookupResult::Addresses(vec!["10.0.0.1:80".parse().expect("an address")])),
        ];
        for (host, response) in table {
            let (to, from) = mpsc::channel();
            ask(&l, 3, host, &to);
            assert_eq!(from.recv_timeout(WAIT).expect("an answer"), (3, response.clone()), "{host}");
        }
    }

    #[test]
    fn dead_names_hold_up_nobody_and_are_given_up() {
        let (l, asked, released) = lookups(1000);
        let (to, from) = mpsc::channel();
        for i in 0..20 {
            ask(&l, i, &format!("dead{i}"), &to);
        }
        ask(&l, 100, "live", &to);
        assert_eq!(from.recv_timeout(WAIT).expect("an answer").0, 100, "the live one is answered first");
        let mut given_up: Vec<u64> = (0..20)
            .map(|_| {
                let (id, a) = from.recv_timeout(WAIT).expect("an answer");
                assert_eq!(a, LookupResult::Failed("no answer within 1 s".into()));
                id
            })
            .collect();
        given_up.sort_unstable();
        assert_eq!(given_up, (0..20).collect::<Vec<_>>());
        // Asked again while its thread still hangs: no second thread for the same name, and still one answer
        // each.
        let before = asked.load(Ordering::SeqCst);
        ask(&l, 200, "dead0", &to);
        assert_eq!(asked.load(Ordering::SeqCst), before);
        assert_eq!(from.recv_timeout(WAIT).expect("an answer").0, 200);
        assert!(from.recv_timeout(Duration::from_millis(50)).is_err());
        released.store(true, Ordering::SeqCst);
    }

    #[test]
    fn workers_that_ask_the_same_share_one_question() {
        let (l, asked, _) = lookups(5000);
        let (to, from) = mpsc::channel();
        for i in 0..8 {
            ask(&l, i, "slow", &to);
        }
        let mut ids: Vec<u64> = (0..8).map(|_| from.recv_timeout(WAIT).expect("an answer").0).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..8).collect::<Vec<_>>());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        ask(&l, 9, "slow", &to);
        from.recv_timeout(WAIT).expect("an answer");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "nothing is cached here");
    }

    #[test]
    fn more_names_than_threads_and_more_questions_than_allowed() {
        let (l, _, released) = lookups(200);
        let (to, from) = mpsc::channel();
        for i in 0..QUESTIONS as u64 + 10 {
            ask(&l, i, &format!("dead{}", i % 100), &to);
        }
        let mut refused = 0;
        for _ in 0..QUESTIONS + 10 {
            let (_, a) = from.recv_timeout(WAIT).expect("an answer");
            refused += usize::from(a == LookupResult::Failed("too many lookups are waiting".into()));
        }
        assert!(refused <= 10 && from.try_recv().is_err());
        // Once the hanging threads are back, names are answered again.
        released.store(true, Ordering::SeqCst);
        let responded = (0..50).any(|_| {
            ask(&l, 1, "live", &to);
            matches!(from.recv_timeout(WAIT).expect("an answer").1, LookupResult::Addresses(_))
        });
        assert!(responded);
    }

    #[test]
    fn the_system_resolver_knows_localhost() {
        let (to, from) = mpsc::channel();
        ask(&Lookups::default(), 1, "localhost", &to);
        match from.recv_timeout(WAIT).expect("an answer").1 {
            LookupResult::Addresses(a) => assert!(a.iter().all(|a| a.ip().is_loopback() && a.port() == 80)),
            LookupResult::Failed(why) => panic!("{why}"),
        }
    }
}
