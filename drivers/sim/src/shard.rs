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

/// Where shards listen for HTTPS.
const HTTPS_PORT: u16 = 443;

/// One shard.
pub(crate) struct Shard<O: WorkerObserver> {
    pub(crate) event_loop: EventLoop<O, ListenerHandle>,
    /// By their place: HTTP, and HTTPS if some clients speak that.
    listeners: Vec<SimListener>,
    /// The security of its connections, which a turn puts around the sockets.
    tls: Option<TlsWorld<(), SimLayer>>,
    newest: Rc<RefCell<Rc<SessionStatus>>>,
    mailbox: Mailbox,
    /// Commands were posted since the last turn.
    mail: bool,
    number: usize,
    /// A millisecond, and the turns in it so far.
    turns_per_ms: (u64, u64),
}

impl<O: WorkerObserver> Shard<O> {
    /// A shard that listens on `address`, around a fresh proxy that was made from `config`.
    pub(crate) fn new(
        proxy: Proxy<O>,
        config: Arc<Config>,
        number: usize,
        address: SocketAddr,
        net: &Net,
    ) -> Self {
        let slot = |id, kind, port| {
            let address = SocketAddr::new(address.ip(), port);
            ListenerSlot { id: ListenerId(id), kind, address, listener: ListenerHandle }
        };
        let mut slots = vec![slot(0, ListenerKind::Http, address.port())];
        if net.scenario.tls.clients > 0 {
            slots.push(slot(1, ListenerKind::Https, HTTPS_PORT));
        }
        let listeners = slots.iter().map(|_| SimListener::default()).collect();
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
        self.listeners[0].is_closed()
    }

    /// A client connects.
    pub(crate) fn client_connects(&mut self, client: usize, clients: &mut impl ClientSource, net: &mut Net) {
        if self.listeners[clients.listener(client)].connect(client) {
            let soon = net.now + net.delay();
            net.wake(self.number, soon);
        } else {
            clients.refused(client, net);
        }
    }

    /// Another thread posts a command.
    pub(crate) fn post(&mut self, command: Command, net: &mut Net) {
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
        for (place, listener) in self.listeners.iter_mut().enumerate() {
            if listener.take_edge() {
                events.push(Event::Listener(place));
            }
        }
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
