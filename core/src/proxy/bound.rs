//! Connections to backends that belong to one client: NTLM and Negotiate authenticate a connection and not a
//! request (RFC 4559 §6 warns of just that), so whoever is sent on it next has the identity of the one
//! before. From the first sign of them on, a connection is that client's alone and goes with it.

use std::collections::BTreeMap;

use super::Proxy;
use super::exchange::{Leg, Window};
use crate::conn::Role;
use crate::id::{ConnId, ExchangeId};
use crate::observe::Observer;
use crate::planted::planted;
use crate::time::Instant;
use crate::wire::Wire;

/// Connections that lie idle for one client, by that client's connection and the place of the backend in the
/// shard's table.
#[derive(Debug, Default)]
pub(super) struct BoundConns {
    conns: BTreeMap<(ConnId, u32), ConnId>,
    /// The same the other way round: there may be as many as clients, and any of them may be closed.
    owners: BTreeMap<ConnId, (ConnId, u32)>,
}

impl BoundConns {
    pub(super) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    fn insert(&mut self, key: (ConnId, u32), b: ConnId) {
        self.conns.insert(key, b);
        self.owners.insert(b, key);
    }

    /// The connection is nobody's any more.
    fn remove(&mut self, b: ConnId) {
        if let Some(key) = self.owners.remove(&b) {
            self.conns.remove(&key);
        }
    }

    fn of_client(&self, client: ConnId) -> impl Iterator<Item = (u32, ConnId)> + '_ {
        self.conns.range((client, 0)..=(client, u32::MAX)).map(|((_, at), b)| (*at, *b))
    }
}

impl<O: Observer> Proxy<O> {
    /// The request goes over a connection that belongs to its client, if there is one to a backend of its
    /// pool. The choice of a backend has been made with the first request on that connection.
    #[cold]
    pub(super) fn attach_bound(&mut self, x: ExchangeId, now: Instant) -> bool {
        let e = &self.tables.exchanges[x];
        let (client, slot) = (e.client.conn, e.pool.expect("routed"));
        let pool = self.pools.get(slot);
        let found = self.bound.of_client(client).find_map(|(at, b)| {
            let choice = pool.backends.iter().position(|backend| *backend == at)?;
            Some((at, b, choice as u16))
        });
        let Some((at, b, choice)) = found else { return false };
        self.bound.remove(b);
        let state = &self.pools.backends[at as usize].state;
        let conn = &mut self.tables.conns[b];
        let trusted = match &mut conn.role {
            Role::Backend(role) => {
                role.bound = false;
                role.epoch == state.epoch() || state.trusts(role.to, role.epoch)
            }
            _ => false,
        };
        if !trusted {
            conn.exchange = None;
            self.close(b);
            return false;
        }
        // It counts as in flight, but has its connection already: no limit of those holds it up.
        let _ = state.try_start(None);
        (conn.exchange, conn.deadline) = (Some(x), Instant::NEVER);
        let e = &mut self.tables.exchanges[x];
        (e.choice, e.holds_slot, e.binds, e.reused) = (Some(choice), true, true, true);
        e.times.chosen = e.times.chosen.min(now);
        e.attempts = e.attempts.saturating_add(1);
        (e.backend, e.backend_window) = (Some(Leg::only(b)), Window::NONE);
        self.step_attached(x, b, None);
        self.start_sending(x, now);
        true
    }

    /// A connection that can be used again belongs to this client from now on. It is closed if the client
    /// speaks another protocol than HTTP/1.1: many users may share one such connection.
    #[cold]
    pub(super) fn bind(&mut self, client: ConnId, b: ConnId, pool: u32, now: Instant) {
        let idle = self.pools.get(pool).pool().client.idle_timeout;
        let alone = self.tables.conns.get(client).is_some_and(|conn| matches!(conn.wire, Wire::H1(_)));
        let conn = &mut self.tables.conns[b];
        let Role::Backend(role) = &mut conn.role else { return };
        let key = (client, role.backend);
        // The place of a backend that no configuration names any more may become another one's.
        let retired = self.pools.backends[role.backend as usize].retired();
        if !alone || retired || self.drain.until.is_some() || self.bound.conns.contains_key(&key) {
            return self.close(b);
        }
        role.bound = true;
        role.uses = role.uses.saturating_add(1);
        conn.wire.trim(&mut self.tables.pages);
        self.bound.insert(key, b);
        self.set_deadline(b, now + idle);
        self.mark_readable(b);
    }

    /// A connection has gone: of a client all that are bound to it go with it.
    #[cold]
    pub(super) fn unbind(&mut self, c: ConnId) {
        self.bound.remove(c);
        let of_client: Vec<ConnId> = self.bound.of_client(c).map(|(_, b)| b).collect();
        for b in of_client.into_iter().filter(|_| !planted!(80)) {
            self.close(b);
        }
    }

    /// Backends that no configuration names any more keep no connections.
    pub(super) fn close_bound_to_retired(&mut self) {
        let backends = &self.pools.backends;
        let retired = self.bound.conns.iter().filter(|((_, at), _)| backends[*at as usize].retired());
        let retired: Vec<ConnId> = retired.map(|(_, b)| *b).collect();
        for b in retired {
            self.close(b);
        }
    }
}
