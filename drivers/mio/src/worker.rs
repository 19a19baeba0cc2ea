//! The event loop of one worker.
//!
//! **A panic** must not take the process along. It unwinds to the turn, which goes on with the next event; the connection that was being served is
//! broken off like one whose socket failed, or just closed if the proxy cannot even be told that. After many panics within seconds the proxy is taken
//! for broken: all its connections are closed and a fresh one takes its place behind the same listeners.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll};
use ruststrom_core::config::ListenerKind;
use ruststrom_core::{Config, Fault, Instant, ListenerId, Proxy, Shared};
use ruststrom_driver::clock;
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::pump::{Pump, Readiness};
use ruststrom_driver::stop::{Stage, Stop};
use ruststrom_driver::watch::Watch;

use crate::acceptor::Acceptor;
use crate::inbox::Inbox;
use crate::sockets::Sockets;
use crate::token::About;
use crate::{Census, Outcome};

/// Events fetched with one call.
const EVENTS: usize = 1024;
/// A log that could not be handed over is tried again after this long.
const LOG_RETRY: Duration = Duration::from_millis(2);
/// A drain that the core does not end is ended this long after its deadline.
const GRACE: Duration = Duration::from_secs(2);
/// So many panics within [`STRIKE_TIME`] and the proxy is made anew.
const STRIKES: u32 = 8;
const STRIKE_TIME: Duration = Duration::from_secs(10);

/// What a worker is made from.
pub(crate) struct Plan {
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) shard: u16,
    pub(crate) seed: u64,
    /// Its share of the descriptors.
    pub(crate) files: usize,
    pub(crate) stop: Arc<Stop>,
    pub(crate) lookups: Lookups,
    pub(crate) inboxes: Arc<[Inbox]>,
    /// Workers that have not finished their first round of probes.
    pub(crate) unready: Arc<AtomicUsize>,
}

pub(crate) struct Worker<O: Watch, F: Fn() -> O> {
    plan: Plan,
    observer: F,
    poll: Poll,
    pump: Pump<Proxy<O>>,
    sockets: Sockets,
    acceptor: Acceptor,
    /// When the wall clock is read again: at its next full second, or later.
    wall_at: Instant,
    /// The drain's deadline once it has begun.
    until: Option<Instant>,
    /// The log could not be handed over.
    log_waits: bool,
    /// The inbox was read in this turn, and somebody may have asked there.
    census_asked: bool,
    ready: bool,
    /// How far the current batch of events is done: a panic goes on behind it.
    next_event: usize,
    /// The rest of the batch is about connections of a proxy that is gone.
    stale_batch: bool,
    strikes: u32,
    last_strike: Instant,
}

impl<O: Watch, F: Fn() -> O> Worker<O, F> {
    pub(crate) fn new(
        plan: Plan,
        poll: Poll,
        listeners: Vec<(ListenerId, ListenerKind, SocketAddr, TcpListener)>,
        observer: F,
    ) -> io::Result<Self> {
        let sockets = Sockets::new(poll.registry().try_clone()?, plan.shard, plan.inboxes.clone(), plan.lookups.clone());
        let acceptor = Acceptor::new(poll.registry(), listeners, plan.files)?;
        let now = clock::now();
        let proxy = Proxy::new(plan.config.clone(), plan.shared.clone(), plan.shard, plan.seed, observer(), now);
        Ok(Self {
            plan,
            observer,
            poll,
            pump: Pump::new(proxy, now),
            sockets,
            acceptor,
            wall_at: Instant::ZERO,
            until: None,
            log_waits: false,
            census_asked: false,
            ready: false,
            next_event: 0,
            stale_batch: false,
            strikes: 0,
            last_strike: Instant::ZERO,
        })
    }

    /// Serves until stopped.
    pub(crate) fn run(mut self) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(EVENTS);
        // The proxy has things to do before anything happens: probes, lookups.
        loop {
            (self.next_event, self.stale_batch) = (0, false);
            while catch_unwind(AssertUnwindSafe(|| self.turn(&events))).is_err() {
                self.panicked();
            }
            if self.sockets.drained {
                let cut = self.until.is_some_and(|until| self.pump.now() >= until);
                return Ok(if cut { Outcome::Cut } else { Outcome::Finished });
            }
            if self.plan.stop.stage() == Stage::Now || self.until.is_some_and(|u| self.pump.now() >= u + GRACE) {
                return Ok(Outcome::Cut);
            }
            let timeout = self.timeout();
            if let Err(e) = self.poll.poll(&mut events, timeout) {
                events.clear();
                if e.kind() != io::ErrorKind::Interrupted {
                    return Err(e);
                }
            }
        }
    }

    /// One turn: what happened, who waits to be accepted, who was put off, what is due.
    fn turn(&mut self, events: &Events) {
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
        for event in events.iter().skip(self.next_event) {
            self.next_event += 1;
            match About::of(event.token()) {
                About::Conn(_) if self.stale_batch => {}
                About::Conn(c) => self.pump.ready(c, readiness(event), &mut self.sockets),
                About::Listener(place) => self.acceptor.ready(place),
                About::Inbox => self.read_inbox(),
            }
        }
        self.pump.resume(&mut self.sockets);
        self.acceptor.accept(&mut self.pump, &mut self.sockets);
        self.pump.tick(&mut self.sockets);
        self.pump.settle(&mut self.sockets);
        if self.until.is_none() && self.plan.stop.stage() != Stage::Run {
            self.drain();
        }
        if !self.ready && self.pump.machine().is_ready() {
            self.ready = true;
            if self.plan.unready.fetch_sub(1, Ordering::AcqRel) == 1 {
                log::info!("ready");
            }
        }
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
        for (generation, id, answer) in inbox.take_answers() {
            if generation == self.sockets.generation {
                self.pump.answer(id, answer, &mut self.sockets);
            }
        }
    }

    fn drain(&mut self) {
        let until = self.pump.now() + self.plan.config.timeouts.drain;
        self.until = Some(until);
        self.acceptor.close(&mut self.pump, &mut self.sockets);
        self.pump.drain(until, &mut self.sockets);
    }

    fn timeout(&self) -> Option<Duration> {
        if self.pump.has_backlog() || self.acceptor.has_more(&self.pump) {
            return Some(Duration::ZERO);
        }
        let log = self.log_waits.then(|| self.pump.now() + LOG_RETRY);
        let give_up = self.until.map(|u| u + GRACE);
        let next = [self.pump.poll_timeout(), self.acceptor.paused_until(), log, give_up];
        let next = next.into_iter().flatten().filter(|t| *t != Instant::NEVER).min()?;
        Some(next.since(self.pump.now()))
    }

    #[cold]
    fn panicked(&mut self) {
        let now = clock::now();
        self.strikes = if now.since(self.last_strike) < STRIKE_TIME { self.strikes + 1 } else { 1 };
        self.last_strike = now;
        let serving = self.pump.serving();
        log::error!("worker {}: a panic while serving {serving:?}, see standard error; please report it", self.plan.shard);
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
        log::error!("worker {}: too many panics, closing its {} connections and starting afresh", self.plan.shard, self.sockets.open());
        self.strikes = 0;
        self.stale_batch = true;
        self.wall_at = Instant::ZERO;
        self.sockets.close_all();
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

fn readiness(event: &Event) -> Readiness {
    Readiness { readable: event.is_readable(), writable: event.is_writable(), closed: event.is_read_closed(), error: event.is_error() }
}
