//! One worker: what a turn of its event loop is, however it waits.
//!
//! **A panic** must not take the process along. It unwinds to the turn, which goes on with the next event;
//! the connection that was being served is broken off like one whose socket failed, or just closed if the
//! proxy cannot even be told that. After many panics within seconds the proxy is taken for broken: all its
//! connections are closed and a fresh one takes its place behind the same listeners.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ruststrom_core::config::ListenerKind;
use ruststrom_core::proxy::Counts;
use ruststrom_core::{Config, Fault, Instant, ListenerId, Proxy, Shared};

use crate::acceptor::Acceptor;
use crate::clock;
use crate::engine::{Event, Sockets};
use crate::inbox::Inbox;
use crate::pump::Pump;
use crate::stop::{Stage, Stop};
use crate::watch::Watch;

/// A log that could not be handed over is tried again after this long.
const LOG_RETRY: Duration = Duration::from_millis(2);
/// A drain that the core does not end is ended this long after its deadline.
const GRACE: Duration = Duration::from_secs(2);
/// So many panics within [`STRIKE_TIME`] and the proxy is made anew.
const STRIKES: u32 = 8;
const STRIKE_TIME: Duration = Duration::from_secs(10);

/// How a worker, or all of them, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything that ran was finished.
    Finished,
    /// The deadline, or [`Stage::Now`], cut something.
    Cut,
    /// The event loop failed, which stops all workers.
    Failed,
}

/// How much of everything a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// What its proxy counts.
    pub counts: Counts,
    /// Sockets of connections that are open: clients, backends, probes.
    pub sockets: usize,
}

/// What a worker is made from.
pub(crate) struct Plan {
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) shard: u16,
    pub(crate) seed: u64,
    /// Its share of the descriptors.
    pub(crate) files: usize,
    pub(crate) stop: Arc<Stop>,
    pub(crate) inboxes: Arc<[Inbox]>,
    /// Workers that have not finished their first round of probes.
    pub(crate) unready: Arc<AtomicUsize>,
}

/// A worker, on its thread.
pub struct Worker<S: Sockets, O: Watch, F: Fn() -> O> {
    plan: Plan,
    observer: F,
    pump: Pump<Proxy<O>>,
    sockets: S,
    acceptor: Acceptor<S::Listener>,
    /// When the wall clock is read again: at its next full second, or later.
    wall_at: Instant,
    /// The drain's deadline once it has begun.
    until: Option<Instant>,
    /// The log could not be handed over.
    log_waits: bool,
    /// The inbox was read in this turn, and somebody may have asked there.
    census_asked: bool,
    ready: bool,
    /// The rest of the batch is about connections of a proxy that is gone.
    stale_batch: bool,
    strikes: u32,
    last_strike: Instant,
}

impl<S: Sockets, O: Watch, F: Fn() -> O> Worker<S, O, F> {
    pub(crate) fn new(
        plan: Plan,
        mut sockets: S,
        listeners: Vec<(ListenerId, ListenerKind, SocketAddr, TcpListener)>,
        observer: F,
    ) -> io::Result<Self> {
        let acceptor = Acceptor::new(&mut sockets, listeners, plan.files)?;
        let now = clock::now();
        let proxy =
            Proxy::new(plan.config.clone(), plan.shared.clone(), plan.shard, plan.seed, observer(), now);
        Ok(Self {
            plan,
            observer,
            pump: Pump::new(proxy, now),
            sockets,
            acceptor,
            wall_at: Instant::ZERO,
            until: None,
            log_waits: false,
            census_asked: false,
            ready: false,
            stale_batch: false,
            strikes: 0,
            last_strike: Instant::ZERO,
        })
    }

    /// A turn with all that has happened since the last one. The first comes before anything has: the proxy
    /// has things to do, probes and lookups. Once it says how the worker ended, there is no other.
    pub fn turn(&mut self, found: impl IntoIterator<Item = S::Found>) -> Option<Outcome> {
        // A panic goes on behind the event that it came from.
        let mut found = found.into_iter();
        self.stale_batch = false;
        while catch_unwind(AssertUnwindSafe(|| self.attempt(&mut found))).is_err() {
            self.panicked();
        }
        if self.sockets.errands().drained {
            let cut = self.until.is_some_and(|until| self.pump.now() >= until);
            return Some(if cut { Outcome::Cut } else { Outcome::Finished });
        }
        let forced =
            self.plan.stop.stage() == Stage::Now || self.until.is_some_and(|u| self.pump.now() >= u + GRACE);
        forced.then_some(Outcome::Cut)
    }

    /// One turn: what happened, who waits to be accepted, who was put off, what is due.
    fn attempt(&mut self, found: &mut impl Iterator<Item = S::Found>) {
        let now = clock::now();
        self.pump.begin(now);
        self.pump.machine_mut().observer_mut().turn(now);
        if now >= self.wall_at {
            let wall = clock::wall();
            self.wall_at = now + Duration::from_millis(1000 - u64::from(wall.millis.min(999)));
            self.pump.machine_mut().observer_mut().wall(wall, now);
            self.pump.wall(wall, &mut self.sockets);
        }
        // Bytes before the clock: what came in time is in time, however late the turn is.
        for found in found {
            match self.sockets.event(found) {
                Some(Event::Conn(..)) if self.stale_batch => {}
                Some(Event::Conn(c, readiness)) => self.pump.ready(c, readiness, &mut self.sockets),
                Some(Event::Listener(place)) => self.acceptor.ready(place),
                Some(Event::Inbox) => self.read_inbox(),
                None => {}
            }
        }
        self.pump.resume(&mut self.sockets);
        let stops = self.until.is_none() && self.plan.stop.stage() != Stage::Run;
        self.acceptor.accept(stops, &mut self.pump, &mut self.sockets);
        self.pump.tick(&mut self.sockets);
        self.pump.settle(&mut self.sockets);
        if stops {
            self.drain();
        }
        if !self.ready && self.pump.machine().is_ready() {
            self.ready = true;
            if self.plan.unready.fetch_sub(1, Ordering::AcqRel) == 1 {
                log::info!("ready");
            }
        }
        self.sockets.turn_ended();
        self.log_waits = self.pump.machine_mut().observer_mut().turn_ended();
        if std::mem::take(&mut self.census_asked) {
            self.census();
        }
    }

    /// At the end of a turn, when everything has settled.
    #[cold]
    fn census(&self) {
        if cfg!(debug_assertions) {
            self.pump.check();
            self.pump.machine().check();
        }
        let census = Census { counts: self.pump.machine().counts(), sockets: self.sockets.open() };
        for whom in self.plan.inboxes[usize::from(self.plan.shard)].take_asking() {
            // Whoever asked may not wait any more.
            let _ = whom.send(census);
        }
    }

    fn read_inbox(&mut self) {
        let inboxes = self.plan.inboxes.clone();
        let inbox = &inboxes[usize::from(self.plan.shard)];
        self.census_asked = true;
        if inbox.take_nudge() {
            self.pump.nudged(&mut self.sockets);
        }
        for (generation, id, response) in inbox.take_responses() {
            if generation == self.sockets.errands().generation {
                self.pump.response(id, response, &mut self.sockets);
            }
        }
    }

    fn drain(&mut self) {
        let until = self.pump.now() + self.plan.config.timeouts.drain;
        self.until = Some(until);
        self.acceptor.close(&mut self.pump, &mut self.sockets);
        self.pump.drain(until, &mut self.sockets);
    }

    /// When the next turn is due whatever happens: not after [`Worker::now`] if at once, never if there is
    /// nothing to wait for.
    pub fn due(&self) -> Option<Instant> {
        if self.pump.has_backlog() || self.acceptor.has_more(&self.pump) {
            return Some(self.pump.now());
        }
        let log = self.log_waits.then(|| self.pump.now() + LOG_RETRY);
        let give_up = self.until.map(|u| u + GRACE);
        let next = [self.pump.poll_timeout(), self.acceptor.paused_until(), log, give_up];
        next.into_iter().flatten().filter(|t| *t != Instant::NEVER).min()
    }

    /// The time of the last turn.
    pub fn now(&self) -> Instant {
        self.pump.now()
    }

    /// The longest that the next turn may be put off, if there is a limit to that.
    pub fn timeout(&self) -> Option<Duration> {
        Some(self.due()?.since(self.pump.now()))
    }

    #[cold]
    fn panicked(&mut self) {
        let now = clock::now();
        self.strikes = if now.since(self.last_strike) < STRIKE_TIME { self.strikes + 1 } else { 1 };
        self.last_strike = now;
        let serving = self.pump.serving();
        log::error!(
            "worker {}: a panic while serving {serving:?}, see standard error; please report it",
            self.plan.shard
        );
        if let Some(c) = serving {
            let told = catch_unwind(AssertUnwindSafe(|| self.pump.fault(c, Fault::Other, &mut self.sockets)));
            if told.is_err() {
                self.pump.abandon(c, &mut self.sockets);
            }
        }
        if self.strikes >= STRIKES {
            self.start_afresh(now);
        }
    }

    /// A fresh proxy behind the same listeners.
    fn start_afresh(&mut self, now: Instant) {
        log::error!(
            "worker {}: too many panics, closing its {} connections and starting afresh",
            self.plan.shard,
            self.sockets.open()
        );
        self.strikes = 0;
        self.stale_batch = true;
        self.wall_at = Instant::ZERO;
        self.sockets.close_all();
        self.sockets.errands().generation += 1;
        let (config, shared) = (self.plan.config.clone(), self.plan.shared.clone());
        let seed = self.plan.seed ^ clock::entropy();
        let proxy = Proxy::new(config, shared, self.plan.shard, seed, (self.observer)(), now);
        let old = std::mem::replace(&mut self.pump, Pump::new(proxy, now));
        // Its destructors may meet what is broken in it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
        // Others may have waited for what it held.
        self.plan.inboxes.iter().for_each(Inbox::nudge);
        // A drain that had begun begins again in the next turn.
        self.until = None;
    }
}
