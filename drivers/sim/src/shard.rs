//! A simulated worker: the event loop that the drivers run too, over the sockets of the simulation. What is
//! simulated here is when it has its turns, and in which order its poller reports what has happened.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ruststrom_core::config::{Config, ListenerKind};
use ruststrom_core::{Instant, ListenerId, Proxy};
use ruststrom_driver::acceptor::ListenerSlot;
use ruststrom_driver::event::Event;
use ruststrom_driver::mailbox::{Command, Mailbox};
use ruststrom_driver::observer::WorkerObserver;
use ruststrom_driver::stop::Stage;
use ruststrom_driver::tls::TlsWorld;
use ruststrom_driver::turn::EventLoop;

use crate::coverage::Mark;
use crate::net::{ClientSource, ListenerHandle, Net, PlaintextWorld, ShardWorld, SimListener};
use crate::random::mix;
use crate::scenario::MS;
use crate::tls::{SessionStatus, SimLayer};

/// More turns in one millisecond mean that the event loop spins.
const MAX_TURNS_PER_MS: u64 = 20_000;
/// How long a turn takes that is followed by another one at once, in nanoseconds.
const TURN_TIME: u64 = 1_000;

/// A listener of a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListenerPlace {
    pub(crate) id: ListenerId,
    pub(crate) kind: ListenerKind,
    pub(crate) address: SocketAddr,
}

impl ListenerPlace {
    /// It, with its number in a shard.
    pub(crate) fn slot(&self, number: usize) -> ListenerSlot<ListenerHandle> {
        let Self { id, kind, address } = *self;
        ListenerSlot { id, kind, address, listener: ListenerHandle(number) }
    }
}

/// One shard.
pub(crate) struct Shard<O: WorkerObserver> {
    pub(crate) event_loop: EventLoop<O, ListenerHandle, ListenerHandle>,
    /// All that it ever had, by their number.
    listeners: Vec<SimListener>,
    /// The security of its connections, which a turn puts around the sockets.
    tls: Option<TlsWorld<(), SimLayer>>,
    newest: Rc<RefCell<Rc<SessionStatus>>>,
    mailbox: Mailbox<ListenerHandle>,
    /// Commands were posted since the last turn.
    mail: bool,
    number: usize,
    /// A millisecond, and the turns in it so far.
    turns_per_ms: (u64, u64),
}

impl<O: WorkerObserver> Shard<O> {
    /// A shard with these listeners, around a fresh proxy that was made from `config`.
    pub(crate) fn new(
        proxy: Proxy<O>,
        config: Arc<Config>,
        number: usize,
        listeners: &[ListenerPlace],
        net: &Net,
    ) -> Self {
        let numbered = || listeners.iter().enumerate();
        let slots = numbered().map(|(at, place)| place.slot(at)).collect();
        let listeners = numbered().map(|(at, l)| SimListener::new(l.kind, l.address, Some(at))).collect();
        let now = Instant::from_nanos(net.now);
        let layer = SimLayer::new(mix(net.scenario.seed ^ number as u64), net.scenario.tls.served());
        let newest = layer.newest();
        // What limits the descriptors is the simulated kernel.
        let mut event_loop = EventLoop::new(proxy, config, slots, usize::MAX, now);
        event_loop.check_each_event(net.scenario.check_each_input);
        Self {
            event_loop,
            listeners,
            tls: Some(TlsWorld::new((), layer)),
            newest,
            // Who posts a command also schedules the turn.
            mailbox: Mailbox::new(Box::new(|| {})),
            mail: false,
            number,
            turns_per_ms: (0, 0),
        }
    }

    pub(crate) fn proxy(&self) -> &Proxy<O> {
        self.event_loop.pump().proxy()
    }

    /// Whether it accepts clients no more.
    pub(crate) fn is_closed(&self) -> bool {
        self.listeners.iter().all(SimListener::is_closed)
    }

    /// A listener of a newer configuration is bound: clients may connect there before the shard knows of it.
    /// Its number.
    pub(crate) fn bind(&mut self, place: &ListenerPlace) -> usize {
        self.listeners.push(SimListener::new(place.kind, place.address, None));
        self.listeners.len() - 1
    }

    /// A client connects.
    pub(crate) fn client_connects(&mut self, client: usize, clients: &mut impl ClientSource, net: &mut Net) {
        let kind = clients.kind(client);
        let mut open: Vec<_> =
            self.listeners.iter_mut().filter(|l| l.kind == kind && !l.is_closed()).collect();
        let among = open.len().max(1);
        let connected = open.get_mut(client % among).is_some_and(|listener| listener.connect(client));
        if connected {
            let soon = net.now + net.delay();
            net.wake(self.number, soon);
        } else {
            clients.refused(client, net);
        }
    }

    /// Another thread posts a command.
    pub(crate) fn post(&mut self, command: Command<ListenerHandle>, net: &mut Net) {
        self.mailbox.post(command);
        self.mail = true;
        net.wake(self.number, 0);
    }

    /// One turn of the event loop, at a stage of a stop.
    pub(crate) fn turn(&mut self, stage: Stage, clients: &mut impl ClientSource, net: &mut Net) {
        let shard = self.number;
        net.turn += 1;
        let events = self.poll(net);
        net.trace(30 << 40 | (shard as u64) << 20 | events.len() as u64, || {
            format!("shard {shard} turns: {events:?}")
        });
        let sockets = ShardWorld { net: &mut *net, shard, clients, listeners: &mut self.listeners };
        let tls = self.tls.take().expect("it is back behind each turn");
        let mut world = PlaintextWorld::new(tls, self.newest.clone(), sockets);
        self.event_loop.turn(&mut events.into_iter(), stage, &self.mailbox, &mut world);
        self.tls = Some(world.into_tls());
        net.taken(shard);
        if !self.listeners.iter().any(SimListener::is_waited_for) {
            // It drains. Those that it does not know of yet come too late.
            for listener in self.listeners.iter_mut().filter(|l| !l.is_closed()) {
                listener.close().into_iter().for_each(|client| clients.refused(client, net));
            }
        }
        net.judge_sessions(shard);
        net.drained[shard] = self.event_loop.pump().is_drained();
    }

    /// What the poller reports: a whole batch at once, in any order. What happens meanwhile makes some of it
    /// stale.
    fn poll(&mut self, net: &mut Net) -> Vec<Event> {
        let mut events = Vec::new();
        for socket in std::mem::take(&mut net.ready[self.number]) {
            if net.sockets[socket].open {
                events.push(Event::Conn(net.sockets[socket].conn, net.readiness(socket)));
            }
        }
        events.extend(self.listeners.iter_mut().filter_map(SimListener::take_edge).map(Event::Listener));
        if std::mem::take(&mut self.mail) {
            events.push(Event::Mailbox);
        }
        for i in (1..events.len()).rev() {
            events.swap(i, net.rng.below(i as u64 + 1) as usize);
        }
        events
    }

    /// Schedules the next turn, after a turn.
    pub(crate) fn schedule(&mut self, net: &mut Net) {
        let shard = self.number;
        if net.drained[shard] {
            return;
        }
        let ms = net.now / MS;
        self.turns_per_ms = if self.turns_per_ms.0 == ms { (ms, self.turns_per_ms.1 + 1) } else { (ms, 0) };
        if self.turns_per_ms.1 > MAX_TURNS_PER_MS {
            net.ledger.fail("spins", format!("shard {shard} turns and turns"));
        }
        let Some(due) = self.event_loop.due() else { return };
        if due <= self.event_loop.now() {
            if self.event_loop.pump().has_backlog() {
                net.mark(Mark::Backlogged);
            }
            return net.wake(shard, net.now + TURN_TIME);
        }
        let mut at = due.as_nanos();
        if net.rng.chance(net.scenario.sockets.late_timer) {
            net.mark(Mark::LateTimer);
            at += net.rng.size(50 * MS);
        }
        net.wake(shard, at);
    }
}
