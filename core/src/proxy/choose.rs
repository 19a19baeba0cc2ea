//! From a request to a connection: a backend is chosen, a connection found or opened, and another one tried
//! when that fails.

use super::exchange::{Leg, Phase};
use super::{Effect, Fault, Proxy};
use crate::balance::{Choice, SelectionInput, WaitingShards};
use crate::cause::Cause;
use crate::conn::{Backend, Conn, Role};
use crate::h1::{Event, Side};
use crate::id::{ConnId, ExchangeId};
use crate::observe::Observer;
use crate::planted::planted;
use crate::time::Instant;

/// Stale idle connections that one exchange may meet before it counts as failing.
const MOST_REPLAYS: u8 = 3;
/// Exchanges at the front of a queue that may be passed over, since each waits for a backend of its own.
const MOST_PASSED: usize = 128;

impl<O: Observer> Proxy<O> {
    /// Chooses a backend for an exchange that has none.
    pub(super) fn choose(&mut self, x: ExchangeId, now: Instant) {
        match self.try_choose(x, now) {
            Choice::Backend(_) => self.attach(x, true, now),
            Choice::None => {
                let cause = self.exchanges[x.0].first_failure.unwrap_or(Cause::NoBackend);
                self.refuse(x, cause);
            }
            Choice::Full => self.enqueue(x, now),
        }
    }

    fn try_choose(&mut self, x: ExchangeId, now: Instant) -> Choice {
        let e = &mut self.exchanges[x.0];
        let client = self.conns[e.client.conn].client().peer.ip();
        let rt = self.runtimes[e.runtime.expect("routed") as usize].as_mut().expect("a runtime in use");
        let choice =
            rt.balancer.choose(&SelectionInput { client, sticky: e.asked_sticky, tried: &e.tried }, now);
        if let Choice::Backend(b) = choice {
            e.choice = Some(b);
            e.holds_slot = true;
            e.times.chosen = e.times.chosen.min(now);
        }
        choice
    }

    /// Waits for a backend below its `max_connections`.
    fn enqueue(&mut self, x: ExchangeId, now: Instant) {
        let shard = self.shard;
        let e = &mut self.exchanges[x.0];
        let (c, runtime) = (e.client.conn, e.runtime.expect("routed"));
        let rt = self.runtimes[runtime as usize].as_mut().expect("a runtime in use");
        if rt.waiting >= rt.pool().limits.queue {
            return self.refuse_waiting(x, Cause::QueueFull);
        }
        (e.phase, e.queued) = (Phase::Choosing, true);
        // Who has left it is still in it: then and now those go, so that each costs O(1).
        if rt.queue.len() > 2 * rt.waiting as usize + 32 {
            let exchanges = &self.exchanges;
            rt.queue.retain(|q| exchanges.get(q.0).is_some_and(|e| e.queued && *q != x));
        }
        rt.waiting += 1;
        rt.queue.push_back(x);
        rt.state.wait(shard);
        let until = now + rt.pool().timeouts.queue;
        self.set_deadline(c, until);
        // A slot that came free just before nudges nobody.
        self.to_serve.push(runtime);
    }

    /// No backend for an exchange that may have tried some: the first error is the one reported.
    pub(super) fn refuse_waiting(&mut self, x: ExchangeId, cause: Cause) {
        let cause = self.exchanges[x.0].first_failure.unwrap_or(cause);
        self.refuse(x, cause);
    }

    /// Slots may have come free for everyone who waits here. Several runtimes may run one pool: a reload
    /// leaves the older ones to those who wait in them.
    pub(super) fn serve_soon(&mut self) {
        let waiting =
            self.runtimes.iter().enumerate().filter(|(_, rt)| rt.as_ref().is_some_and(|rt| rt.waiting > 0));
        self.to_serve.extend(waiting.map(|(at, _)| at as u32));
    }

    /// Serves every queue that is to be served.
    pub(super) fn serve_queues(&mut self, now: Instant) {
        while let Some(runtime) = self.to_serve.pop() {
            self.serve_queue(runtime, now);
        }
    }

    /// Exchanges that wait get the slots that came free, oldest first.
    pub(super) fn serve_queue(&mut self, runtime: u32, now: Instant) {
        let shard = self.shard;
        let mut at = 0;
        if let Some(rt) = self.runtimes[runtime as usize].as_mut().filter(|rt| rt.waiting > 0) {
            // Before looking: a slot that comes free from now on nudges.
            rt.state.wait(shard);
        }
        while let Some(rt) = self.runtimes[runtime as usize].as_mut() {
            let Some(&x) = rt.queue.get(at) else { return };
            if !self.exchanges.get(x.0).is_some_and(|e| e.queued) {
                if at == 0 {
                    rt.queue.pop_front();
                } else {
                    at += 1;
                }
                continue;
            }
            match self.try_choose(x, now) {
                // It may wait for one backend alone (by its cookie, its address, or what it has tried): the
                // next may have another.
                Choice::Full if at < MOST_PASSED && self.is_choosy(x) => at += 1,
                Choice::Full => return,
                choice => {
                    let rt = self.rt_mut(runtime);
                    rt.queue.remove(at);
                    rt.waiting -= 1;
                    let e = &mut self.exchanges[x.0];
                    (e.phase, e.queued) = (Phase::Connecting, false);
                    let c = e.client.conn;
                    self.set_deadline(c, Instant::NEVER);
                    match choice {
                        Choice::None => self.refuse_waiting(x, Cause::NoBackend),
                        _ => self.attach(x, true, now),
                    }
                }
            }
        }
    }

    /// Whether another exchange might get a backend where this one gets none.
    fn is_choosy(&self, x: ExchangeId) -> bool {
        let e = &self.exchanges[x.0];
        e.asked_sticky.is_some()
            || !e.tried.is_empty()
            || self.rt(e.runtime.expect("routed")).balancer.is_by_client()
    }

    /// Leaves the queue, if the exchange is in it.
    pub(super) fn leave_queue(&mut self, x: ExchangeId) {
        let e = &mut self.exchanges[x.0];
        if std::mem::replace(&mut e.queued, false) {
            let runtime = e.runtime.expect("routed");
            self.rt_mut(runtime).waiting -= 1;
        }
    }

    /// Finds or opens a connection to the chosen backend.
    fn attach(&mut self, x: ExchangeId, reuse: bool, now: Instant) {
        let e = &mut self.exchanges[x.0];
        let rt = self.runtimes[e.runtime.expect("routed") as usize].as_ref().expect("a runtime in use");
        let local = rt.locals[e.choice.expect("chosen") as usize];
        let connect = rt.pool().timeouts.connect;
        let of = &mut self.locals[local as usize];
        e.attempts = e.attempts.saturating_add(1);
        // Only a connection that comes about says that a backend on trial is well.
        let idle = if reuse && of.state.health().usable() {
            of.idle.newest().and_then(|slot| self.conns.at(slot))
        } else {
            None
        };
        if let Some(b) = idle {
            of.idle.remove(&mut self.links, b.slot);
            let conn = &mut self.conns[b];
            let Role::Backend(role) = &mut conn.role else {
                unreachable!("idle connections lead to backends")
            };
            role.idle = false;
            conn.exchange = Some(x);
            conn.window_start = Instant::NEVER;
            e.reused = true;
            e.backend = Some(Leg::h1(b));
            self.start_sending(x, now);
            return;
        }
        e.reused = false;
        of.turn = of.turn.wrapping_add(1);
        let Some((place, to)) = of.state.pick(of.turn) else {
            return self.attempt_failed(x, Cause::ConnectUnreachable, now);
        };
        let mut conn = Conn::new(Role::Backend(Backend {
            local,
            place,
            connected: false,
            idle: false,
            uses: 0,
            keep_alive_secs: u32::MAX,
        }));
        conn.exchange = Some(x);
        let b = self.conns.insert(conn);
        e.backend = Some(Leg::h1(b));
        e.phase = Phase::Connecting;
        self.set_deadline(b, now + connect);
        self.effects.push_back(Effect::Connect { conn: b, to });
        self.touch(x);
    }

    /// A backend took our connection.
    pub(super) fn backend_connected(&mut self, b: ConnId, now: Instant) {
        let Some(x) = self.conns[b].exchange else { return };
        let e = &self.exchanges[x.0];
        let (runtime, choice) = (e.runtime.expect("routed"), e.choice.expect("chosen"));
        if let Some(change) = self.rt(runtime).state.connected(choice, now) {
            self.health_changed(runtime, choice, change, "a connection was taken");
        }
        self.start_sending(x, now);
    }

    /// The request goes out on the exchange's connection.
    fn start_sending(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.exchanges[x.0];
        let leg = e.backend.expect("attached");
        e.phase = Phase::Sending;
        e.times.connected = e.times.connected.min(now);
        let conn = &mut self.conns[leg.conn];
        let applied =
            conn.machine.apply(Side::Client, if e.upgrade { Event::HeadUpgrade } else { Event::Head });
        debug_assert!(applied.is_ok(), "a connection that carries an exchange may carry one");
        self.push_request(x);
        self.touch(x);
    }

    /// The backend's socket broke.
    pub(super) fn backend_fault(&mut self, b: ConnId, f: Fault, now: Instant) {
        let conn = &self.conns[b];
        let (Some(x), Role::Backend(role)) = (conn.exchange, &conn.role) else { return self.close(b) };
        if !role.connected {
            return self.connect_failed(x, super::connect_cause(f), now);
        }
        self.backend_lost(x, Cause::BackendReset, now);
    }

    /// The backend's connection is gone: what that means depends on how far the answer was.
    pub(super) fn backend_lost(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        let e = &self.exchanges[x.0];
        match e.phase {
            Phase::Tunnel => self.abort(x, cause, now),
            Phase::Responding if e.response.ended => {
                // All of the answer is here: it only has to go out. The connection just cannot be used again.
                let b = e.backend.expect("answering").conn;
                let _ = self.conns[b].machine.apply(Side::Server, Event::Fail);
                (self.conns[b].recv_ended, self.conns[b].broken) = (true, true);
            }
            Phase::Responding => self.break_exchange(x, Cause::ResponseTruncated, now),
            _ => self.attempt_failed(x, cause, now),
        }
    }

    /// No connection came about.
    pub(super) fn connect_failed(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        let e = &mut self.exchanges[x.0];
        let (runtime, choice) = (e.runtime.expect("routed"), e.choice.expect("chosen"));
        if matches!(cause, Cause::ConnectRefused | Cause::ConnectUnreachable)
            && e.replays < MOST_REPLAYS
            && let Some(b) = e.backend.map(|leg| leg.conn)
            && let Role::Backend(role) = &self.conns[b].role
            && self.locals[role.local as usize].state.refused(role.place)
        {
            // Another address of its name may be better: that is no further attempt.
            e.backend = None;
            e.attempts -= 1;
            e.replays += 1;
            self.conns[b].exchange = None;
            self.close(b);
            return self.attach(x, false, now);
        }
        // A shortage of our own says nothing about the backend.
        if cause != Cause::ConnectFailed
            && let Some(change) = self.rt(runtime).state.connect_failed(choice, now)
        {
            self.health_changed(runtime, choice, change, cause.name());
        }
        self.attempt_failed(x, cause, now);
    }

    /// An attempt failed before any of its answer reached the client: try again if that is safe, else say
    /// what went wrong first.
    pub(super) fn attempt_failed(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        let e = &mut self.exchanges[x.0];
        let unsent = e.request.head_sent == 0;
        // What has not been sent has not been let go of either.
        let safe =
            (!e.response_seen || planted!(12)) && (unsent || (e.retained && (e.idempotent || planted!(3))));
        let stale = e.reused && matches!(cause, Cause::BackendClosed | Cause::BackendReset);
        if let Some(leg) = e.backend.take() {
            self.conns[leg.conn].exchange = None;
            self.close(leg.conn);
        }
        let e = &mut self.exchanges[x.0];
        if safe && stale && e.replays < MOST_REPLAYS {
            // The backend closed an idle connection as we took it: the request was not served. The same
            // backend, a fresh connection.
            e.replays += 1;
            e.request.rewind();
            e.request_gone = false;
            e.times.sent = Instant::NEVER;
            return self.attach(x, false, now);
        }
        let first = *e.first_failure.get_or_insert(cause);
        let (runtime, choice) = (e.runtime.expect("routed"), e.choice.expect("chosen"));
        let again = safe && e.retries_left > 0 && self.rt_mut(runtime).spend_retry();
        self.release_slot(x);
        let e = &mut self.exchanges[x.0];
        if !again {
            return self.break_exchange(x, first, now);
        }
        e.retries_left -= 1;
        e.tried.add(choice);
        e.request.rewind();
        e.request_gone = false;
        e.times.sent = Instant::NEVER;
        e.phase = Phase::Choosing;
        self.choose(x, now);
    }

    /// Gives back the in-flight slot, and lets those who wait have it.
    pub(super) fn release_slot(&mut self, x: ExchangeId) {
        let e = &mut self.exchanges[x.0];
        if !std::mem::replace(&mut e.holds_slot, false) {
            return;
        }
        let (runtime, choice) = (e.runtime.expect("routed"), e.choice.expect("chosen"));
        let waiting = self.rt(runtime).state.finish(choice);
        if !waiting.is_empty() && !planted!(16) {
            self.call_waiting(waiting);
        }
    }

    /// A slot has come free, and these shards wait for one.
    #[cold]
    fn call_waiting(&mut self, waiting: WaitingShards) {
        for shard in waiting {
            if shard == self.shard {
                self.serve_soon();
            } else if !planted!(17) {
                self.effects.push_back(Effect::Nudge(shard));
            }
        }
    }
}
