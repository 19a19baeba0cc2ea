//! How exchanges end: answered, refused, broken or cut. Each ends once and is told of once.

use super::Proxy;
use super::exchange::{MessagePipe, Phase};
use crate::cause::Cause;
use crate::config::ListenerKind;
use crate::conn::Role;
use crate::h1::{Event, Side};
use crate::id::ExchangeId;
use crate::local_reply::{self, Own};
use crate::observe::{Observer, Record};
use crate::planted::planted;
use crate::time::Instant;

/// Buffers kept for exchanges to come; two are used by each.
const KEEP_BUFFERS: usize = 1024;
/// Longer ones are not kept: it is enough for the longest texts of a head with what a log line has between
/// them.
const KEEP_BYTES: usize = 2304;

impl<O: Observer> Proxy<O> {
    /// Answers with an error of our own.
    pub(super) fn refuse(&mut self, x: ExchangeId, cause: Cause) {
        self.own_response(x, cause.status(), Some(cause), b"");
    }

    /// Answers without a backend.
    pub(super) fn own_response(&mut self, x: ExchangeId, status: u16, cause: Option<Cause>, body: &[u8]) {
        self.leave_phase(x);
        self.detach_backend(x);
        self.release_slot(x);
        let draining = self.drain.is_some();
        let e = &mut self.exchanges[x.0];
        e.phase = Phase::Own;
        e.keep_alive = e.keep_alive && (e.request.ended || planted!(26)) && e.version != 0 && !draining;
        e.request.drop_pages(&mut self.pages);
        e.response.drop_pages(&mut self.pages);
        (e.status, e.cause) = (status, cause);
        if !planted!(11) {
            e.own.clear();
        }
        let own = Own {
            status,
            cause,
            body,
            head_only: e.head_only,
            keep_alive: e.keep_alive,
            version: e.version,
            date: &self.date,
        };
        e.own_body = local_reply::write(&own, &mut e.own) as u32;
        e.response = MessagePipe::new();
        e.response.head_len = e.own.len() as u32;
        e.response.ended = true;
        let c = e.client.conn;
        let keep_alive = e.keep_alive;
        let conn = &mut self.conns[c];
        conn.inbox.pay = (conn.inbox.raw, conn.inbox.raw);
        // A client that was too slow with its body has its whole time for the answer that tells it so.
        conn.window_start = Instant::NEVER;
        let _ = conn.machine.apply(Side::Server, Event::Head);
        if !keep_alive {
            let _ = conn.machine.apply(Side::Server, Event::NoKeepAlive);
        }
        self.list(c);
        self.touch(x);
    }

    /// An exchange cannot go on. If the client has not seen anything of an answer yet it gets an error, else
    /// its connection is cut: half an answer must not look like a whole one.
    pub(super) fn break_exchange(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        let e = &self.exchanges[x.0];
        // An interim answer may have gone, but not half of one.
        if e.phase != Phase::Own && !e.response_begun && e.response.head_sent == 0 {
            return self.refuse(x, cause);
        }
        self.abort(x, cause, now);
    }

    /// Cuts both connections of an exchange.
    pub(super) fn abort(&mut self, x: ExchangeId, cause: Cause, now: Instant) {
        self.leave_phase(x);
        let c = self.exchanges[x.0].client.conn;
        self.exchanges[x.0].cause.get_or_insert(cause);
        self.detach_backend(x);
        self.end(x, now);
        self.conns[c].exchange = None;
        self.reset(c);
    }

    /// The whole answer has gone.
    pub(super) fn finish(&mut self, x: ExchangeId, now: Instant) {
        let e = &self.exchanges[x.0];
        let c = e.client.conn;
        let (keep_alive, request_ended, tunnel, asked_close) =
            (e.keep_alive, e.request.ended, e.phase == Phase::Tunnel, e.asked_close);
        self.free_backend(x, now);
        self.end(x, now);
        let conn = &mut self.conns[c];
        conn.exchange = None;
        conn.inbox.pay = (conn.inbox.raw, conn.inbox.raw);
        conn.window_start = Instant::NEVER;
        if tunnel {
            return self.close(c);
        }
        let _ = conn.machine.apply(Side::Server, Event::End);
        if keep_alive && conn.machine.is_reusable() {
            let _ = conn.machine.apply(Side::Client, Event::Next);
            let idle = self.routing.config.timeouts.idle;
            self.set_deadline(c, now + idle);
            let conn = &mut self.conns[c];
            if conn.inbox.raw_len() > 0 {
                return self.read_request(c, now);
            }
            conn.inbox.trim(&mut self.pages);
            if conn.recv_ended || self.drain.is_some() {
                return self.close(c);
            }
            return self.list_recv(c);
        }
        // A client that asked for the end has nothing more to say; anyone else might, and its words must not
        // reset our last ones.
        if request_ended && conn.inbox.raw_len() == 0 && asked_close {
            self.close(c)
        } else {
            self.linger(c, now)
        }
    }

    /// Lets go of a backend connection whose exchange is over: idle if it can be used again.
    fn free_backend(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.exchanges[x.0];
        let Some(leg) = e.backend.take() else { return };
        let b = leg.conn;
        let client = self.runtimes[e.runtime.expect("routed") as usize]
            .as_ref()
            .expect("a runtime in use")
            .pool()
            .client;
        let conn = &mut self.conns[b];
        conn.exchange = None;
        conn.window_start = Instant::NEVER;
        let clean = conn.machine.is_reusable() && (conn.inbox.is_empty() || planted!(10)) && !conn.recv_ended;
        let Role::Backend(role) = &mut conn.role else { unreachable!("a backend's connection") };
        let local = &mut self.locals[role.local as usize];
        if !clean || self.drain.is_some() || local.retired || client.max_idle_per_host == 0 {
            return self.close(b);
        }
        let _ = conn.machine.apply(Side::Client, Event::Next);
        role.uses += 1;
        role.idle = true;
        conn.inbox.trim(&mut self.pages);
        // A backend that says how long it keeps an idle connection will not be met in the act of closing it.
        let said = std::time::Duration::from_secs(u64::from(role.keep_alive_secs))
            .saturating_sub(std::time::Duration::from_secs(1));
        local.idle.push(&mut self.links, b.slot);
        let full = local.idle.len() > client.max_idle_per_host;
        let at = role.local;
        self.set_deadline(b, now + client.idle_timeout.min(said));
        self.list_recv(b);
        if full {
            self.close_oldest_idle(at);
        }
    }

    /// Closes the connection that has been idle for the longest time.
    pub(super) fn close_oldest_idle(&mut self, local: u32) {
        if let Some(b) = self.locals[local as usize].idle.oldest().and_then(|slot| self.conns.at(slot)) {
            self.close(b);
        }
    }

    /// Closes the backend's connection of an exchange that does not need it any more. In a tunnel nothing
    /// else says that something is missing.
    fn detach_backend(&mut self, x: ExchangeId) {
        let e = &mut self.exchanges[x.0];
        let tunnel = e.phase == Phase::Tunnel;
        if let Some(leg) = e.backend.take() {
            self.conns[leg.conn].exchange = None;
            if tunnel && !planted!(21) { self.reset(leg.conn) } else { self.close(leg.conn) }
        }
    }

    /// Takes an exchange out of every table and tells of it.
    fn end(&mut self, x: ExchangeId, now: Instant) {
        self.release_slot(x);
        if self.observer.wants_records() {
            self.tell(x, now);
        }
        if planted!(18) {
            self.tell(x, now);
        }
        let e = &mut self.exchanges[x.0];
        e.request.drop_pages(&mut self.pages);
        e.response.drop_pages(&mut self.pages);
        let runtime = e.runtime;
        if self.spare.len() < KEEP_BUFFERS {
            for buffer in [std::mem::take(&mut e.own), std::mem::take(&mut e.kept).into_bytes()] {
                // Who wants long ones has them made.
                self.spare.push(if buffer.capacity() <= KEEP_BYTES { buffer } else { Vec::new() });
            }
        }
        self.exchanges.discard(x.0);
        if let Some(runtime) = runtime {
            self.rt_mut(runtime).exchanges -= 1;
            self.retire(runtime);
        }
    }

    /// Nothing waits for it any more.
    fn leave_phase(&mut self, x: ExchangeId) {
        match self.exchanges[x.0].phase {
            Phase::Choosing => self.leave_queue(x),
            Phase::Asking(id) => {
                self.forget_lookup(id);
                // Its head still lies there, and must not be taken for the next one.
                let c = self.exchanges[x.0].client.conn;
                let inbox = &mut self.conns[c].inbox;
                inbox.consume_raw(inbox.scanned as usize);
            }
            _ => {}
        }
    }

    fn tell(&mut self, x: ExchangeId, now: Instant) {
        if planted!(19) && self.exchanges[x.0].attempts > 1 {
            return;
        }
        let e = &mut self.exchanges[x.0];
        let client = self.conns[e.client.conn].client();
        if client.kind == ListenerKind::Admin {
            return;
        }
        e.times.ended = now;
        let (pool, backend, pool_index, plain_names) = match e.runtime {
            None => ("", "", None, true),
            Some(r) => {
                let rt = self.runtimes[r as usize].as_ref().expect("a runtime in use");
                let pool = rt.pool();
                (
                    &*pool.name,
                    e.choice.map_or("", |b| &*pool.backends[b as usize].label),
                    Some(rt.index),
                    rt.plain_names,
                )
            }
        };
        let record = Record {
            kept: &e.kept,
            client: client.peer,
            pool,
            backend,
            plain_names,
            pool_index,
            backend_index: e.choice,
            status: e.status,
            cause: e.cause,
            attempts: e.attempts,
            reused: e.reused,
            bytes_in: e.request.payload_bytes,
            bytes_out: e.bytes_out,
            timings: &e.times,
        };
        self.observer.exchange(&record);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config;
    use crate::id::ListenerId;
    use crate::observe::{Head, HealthChange, Kept, Level};
    use crate::proxy::Accepted;
    use crate::shared::Shared;

    /// Keeps as many bytes of each request as it says.
    struct Greedy(usize);

    impl Observer for Greedy {
        fn head(&mut self, _: &Head<'_>, kept: &mut Kept) {
            kept.copy(&vec![b'x'; self.0]);
        }
        fn exchange(&mut self, _: &Record<'_>) {}
        fn health(&mut self, _: &HealthChange<'_>) {}
        fn note(&mut self, _: Level, _: &str) {}
    }

    #[test]
    fn buffers_are_used_again_unless_they_are_long() {
        for (wanted, stays) in [(100, true), (KEEP_BYTES, true), (KEEP_BYTES + 1, false), (100_000, false)] {
            let text = "http_address = \"127.0.0.1:80\"\n[[backend_pools]]\nmatcher = \"Path('/there')\"\naddresses = [\"10.0.0.1:80\"]\n";
            let config = Arc::new(config::parse(text).config.expect("a good configuration"));
            let mut proxy =
                Proxy::new(config, Arc::new(Shared::new("host", 1)), 0, 1, Greedy(wanted), Instant::ZERO);
            let (peer, local) =
                ("192.0.2.7:5000".parse().expect("an address"), "192.0.2.1:80".parse().expect("an address"));
            let c = proxy
                .handle_accept(&Accepted { listener: ListenerId(0), peer, local }, Instant::ZERO)
                .expect("room");
            let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
            for _ in 0..3 {
                proxy.recv_buf(c)[..head.len()].copy_from_slice(head);
                proxy.handle_recv(c, head.len(), Instant::ZERO);
                let sent = proxy.with_transmit(c, |slices| slices.iter().map(|s| s.len()).sum());
                proxy.handle_sent(c, sent, Instant::ZERO);
            }
            assert_eq!(proxy.spare.len(), 2, "those of one exchange, again and again");
            assert_eq!(proxy.spare.iter().any(|b| b.capacity() >= wanted), stays, "{wanted}");
            assert!(proxy.spare.iter().all(|b| b.capacity() <= KEEP_BYTES));
        }
    }
}
