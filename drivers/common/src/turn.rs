//! One turn of a worker: events, commands, connections to accept, what earlier turns have left over, timers,
//! and the order in which a drain closes everything. The drivers and the simulator run this same code on
//! sockets of their own.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use ruststrom_core::{Config, Instant, Proxy};

use crate::acceptor::{Acceptor, ListenerSlot};
use crate::event::Event;
use crate::mailbox::{Command, Mailbox, WorkerReport, WorkerStats};
use crate::observer::WorkerObserver;
use crate::pump::Pump;
use crate::sockets::Sockets;
use crate::stop::Stage;

/// Log lines that could not be handed over are tried again after this long.
const LOG_RETRY: Duration = Duration::from_millis(2);
/// A drain that the core does not end is ended this long after its deadline.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainEnd {
    /// Everything that ran was finished.
    Finished,
    /// The deadline has cut something.
    Cut,
}

/// The event loop of one worker: what it keeps between its turns. `L` is a listener that it has, `B` one that
/// it is given.
pub struct EventLoop<O: WorkerObserver, L, B = TcpListener> {
    pump: Pump<Proxy<O>>,
    acceptor: Acceptor<L>,
    /// The newest configuration.
    config: Arc<Config>,
    /// When the wall clock is read again: at its next full second, or later.
    next_wall: Instant,
    /// When the drain begins, once a stop has been announced.
    drain_from: Option<Instant>,
    /// The drain's deadline once it has begun.
    drain_until: Option<Instant>,
    /// The observer could not hand over its lines.
    log_pending: bool,
    /// Commands that were taken from the mailbox and not carried out yet.
    commands: VecDeque<Command<B>>,
    /// Who waits for [`WorkerStats`].
    stats_for: Vec<Sender<WorkerStats>>,
    /// Who waits for a [`WorkerReport`] of the worker with this number.
    reports_for: Vec<(u16, Sender<WorkerReport>)>,
    /// The rest of the batch is about connections of a proxy that is gone.
    stale_batch: bool,
    /// Check all invariants after each event.
    check_each_event: bool,
}

impl<O: WorkerObserver, L, B> EventLoop<O, L, B> {
    /// An event loop around a fresh proxy that was made from `config`. `files` is this worker's share of the
    /// descriptors; it keeps a quarter of them, 1024 at most, for connections to backends.
    #[must_use]
    pub fn new(
        proxy: Proxy<O>,
        config: Arc<Config>,
        listeners: Vec<ListenerSlot<L>>,
        files: usize,
        now: Instant,
    ) -> Self {
        Self {
            pump: Pump::new(proxy, now),
            acceptor: Acceptor::new(listeners, files),
            config,
            next_wall: Instant::ZERO,
            drain_from: None,
            drain_until: None,
            log_pending: false,
            commands: VecDeque::new(),
            stats_for: Vec::new(),
            reports_for: Vec::new(),
            stale_batch: false,
            check_each_event: false,
        }
    }

    /// One turn with all that has happened since the last one. The first comes before anything has: the proxy
    /// has things to do, probes and lookups. A stop that `stage` wants is begun by this turn unless an
    /// earlier one did.
    ///
    /// After a panic, call it again with the rest of the events.
    pub fn turn<S: Sockets<Listener = L, Bound = B>>(
        &mut self,
        events: &mut impl Iterator<Item = S::RawEvent>,
        stage: Stage,
        mailbox: &Mailbox<B>,
        sockets: &mut S,
    ) {
        let now = sockets.now();
        self.pump.begin(now);
        self.pump.proxy_mut().observer_mut().turn(now);
        if now >= self.next_wall {
            let wall = sockets.wall();
            self.next_wall = now + Duration::from_millis(1000 - u64::from(wall.millis.min(999)));
            self.pump.proxy_mut().observer_mut().wall(wall, now);
            self.pump.wall(wall, sockets);
        }
        // A panic may have left some.
        self.carry_out(sockets);
        // Bytes before timers: what came in time is in time, however late the turn is.
        for raw in events {
            match sockets.event(raw) {
                Some(Event::Conn(..)) if self.stale_batch => {}
                Some(Event::Conn(c, readiness)) => self.pump.ready(c, readiness, sockets),
                Some(Event::Listener(place)) => self.acceptor.ready(place),
                Some(Event::Mailbox) => {
                    mailbox.take(&mut self.commands);
                    self.carry_out(sockets);
                }
                None => {}
            }
            if cfg!(debug_assertions) && self.check_each_event {
                self.check();
            }
        }
        self.stale_batch = false;
        self.pump.resume(sockets);
        let drains = self.drain_until.is_none() && self.is_to_drain(stage);
        self.acceptor.accept(drains, &mut self.pump, sockets);
        self.pump.tick(sockets);
        self.pump.settle(sockets);
        if drains {
            self.drain(sockets);
        }
        self.pump.send_gathered(sockets);
        sockets.turn_ended();
        self.log_pending = self.pump.proxy_mut().observer_mut().turn_ended();
        if !self.stats_for.is_empty() {
            self.report_stats(sockets);
        }
        if !self.reports_for.is_empty() {
            self.report();
        }
    }

    /// Whether the time to drain has come. A stop that is announced only is told to whoever asks.
    fn is_to_drain(&mut self, stage: Stage) -> bool {
        match stage {
            Stage::Run => false,
            Stage::Notice => {
                self.pump.proxy_mut().announce_drain();
                let now = self.pump.now();
                now >= *self.drain_from.get_or_insert(now + self.config.timeouts.shutdown_delay)
            }
            Stage::Drain | Stage::Now => true,
        }
    }

    /// Carries out the commands that were taken from the mailbox.
    fn carry_out<S: Sockets<Listener = L, Bound = B>>(&mut self, sockets: &mut S) {
        while let Some(command) = self.commands.pop_front() {
            match command {
                Command::Config(config) => {
                    self.config = config.clone();
                    self.pump.handle_config(config, sockets);
                    self.pump.proxy_mut().observer_mut().reconfigured();
                }
                Command::Listeners(config, listeners) => {
                    self.config = config.clone();
                    // A drain has closed them all.
                    if self.drain_until.is_none() {
                        self.acceptor.replace(listeners, &mut self.pump, sockets);
                    }
                    self.pump.handle_config(config, sockets);
                    self.pump.proxy_mut().observer_mut().reconfigured();
                }
                Command::LookupDone { generation, id, result } => {
                    if generation == sockets.generation() {
                        self.pump.lookup_done(id, result, sockets);
                    }
                }
                Command::Nudge => self.pump.nudged(sockets),
                Command::Stats(to) => self.stats_for.push(to),
                Command::Report { worker, to } => self.reports_for.push((worker, to)),
                Command::Forget(names) => self.pump.proxy_mut().observer_mut().forget(&names),
                // Whoever asked may not wait any more.
                Command::Pulse(to) => _ = to.send(()),
                Command::Lend(to) => _ = to.send(self.acceptor.lend(&*sockets)),
            }
        }
    }

    /// At the end of a turn, when everything has settled. A debug build checks every structural invariant on
    /// this occasion.
    #[cold]
    fn report_stats<S: Sockets<Listener = L>>(&mut self, sockets: &S) {
        if cfg!(debug_assertions) {
            self.check();
        }
        let stats = WorkerStats { counts: self.pump.proxy().counts(), sockets: sockets.open() };
        for to in self.stats_for.drain(..) {
            // Whoever asked may not wait any more.
            let _ = to.send(stats);
        }
    }

    /// At the end of a turn, when everything has settled.
    #[cold]
    fn report(&mut self) {
        for (worker, to) in std::mem::take(&mut self.reports_for) {
            let proxy = self.pump.proxy_mut();
            let counted = proxy.observer_mut().snapshot();
            let queues = proxy.queues().map(|(pool, waiting)| (pool.into(), waiting)).collect();
            // Whoever asked may not wait any more.
            let _ = to.send(WorkerReport { worker, counts: proxy.counts(), queues, counted });
        }
    }

    /// Begins a drain: whoever has connected is taken, then the listeners are closed, then the core ends what
    /// runs.
    fn drain<S: Sockets<Listener = L>>(&mut self, sockets: &mut S) {
        let until = self.pump.now() + self.config.timeouts.drain;
        self.drain_until = Some(until);
        self.acceptor.close(&mut self.pump, sockets);
        self.pump.drain(until, sockets);
    }

    /// Cuts everything that runs, and has it logged. After that there is no other turn.
    pub fn cut<S: Sockets<Listener = L>>(&mut self, sockets: &mut S) {
        let now = sockets.now();
        self.pump.begin(now);
        self.pump.proxy_mut().observer_mut().turn(now);
        self.pump.drain(now, sockets);
        self.pump.tick(sockets);
        self.pump.send_gathered(sockets);
        self.pump.proxy_mut().observer_mut().turn_ended();
    }

    /// How the drain ended, once it has, or could not be ended long after its deadline. After that there is
    /// no other turn.
    #[must_use]
    pub fn drain_end(&self) -> Option<DrainEnd> {
        let (now, until) = (self.pump.now(), self.drain_until?);
        match self.pump.is_drained() {
            true if now < until => Some(DrainEnd::Finished),
            true => Some(DrainEnd::Cut),
            false => (now >= until + DRAIN_GRACE).then_some(DrainEnd::Cut),
        }
    }

    /// When the next turn is due whatever happens: not after [`EventLoop::now`] if at once, never if there is
    /// nothing to wait for.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        if self.pump.has_backlog() || self.acceptor.has_more(&self.pump) {
            return Some(self.pump.now());
        }
        let log = self.log_pending.then(|| self.pump.now() + LOG_RETRY);
        let give_up = match self.drain_until {
            Some(until) => Some(until + DRAIN_GRACE),
            None => self.drain_from,
        };
        let next = [self.pump.poll_timeout(), self.acceptor.paused_until(), log, give_up];
        let next = next.into_iter().flatten().filter(|t| *t != Instant::NEVER).min();
        if crate::planted::planted!(75) {
            return next.map(|at| at + std::time::Duration::from_millis(200));
        }
        next
    }

    /// The time of the last turn.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.pump.now()
    }

    /// The newest configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The pump, and the core behind it.
    #[must_use]
    pub fn pump(&self) -> &Pump<Proxy<O>> {
        &self.pump
    }

    /// The pump, and the core behind it, for what is no input of a turn.
    pub fn pump_mut(&mut self) -> &mut Pump<Proxy<O>> {
        &mut self.pump
    }

    /// Checks every structural invariant of the core and the pump, between turns. For tests.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        self.pump.check();
        self.pump.proxy().check();
    }

    /// Whether a debug build checks every structural invariant after each event too. For tests: it is slow.
    pub fn check_each_event(&mut self, on: bool) {
        self.check_each_event = on;
    }

    /// Puts a fresh proxy in the place of one that is given up, behind the same listeners; a drain begins
    /// anew. The caller has closed all connections. Returns the old pump.
    pub(crate) fn replace_proxy(&mut self, proxy: Proxy<O>, now: Instant) -> Pump<Proxy<O>> {
        self.stale_batch = true;
        self.next_wall = Instant::ZERO;
        self.drain_until = None;
        std::mem::replace(&mut self.pump, Pump::new(proxy, now))
    }
}
