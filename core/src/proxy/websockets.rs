//! WebSockets on streams of backends (RFC 8441): only to those that have announced that they take them,
//! which nobody knows before their SETTINGS have come.

use super::Proxy;
use super::choose::Loss;
use super::exchange::{Leg, Phase};
use crate::cause::Cause;
use crate::conn::Role;
use crate::h2::Reason;
use crate::id::{ConnId, ExchangeId};
use crate::observe::Observer;
use crate::planted::planted;
use crate::time::Instant;

impl<O: Observer> Proxy<O> {
    /// Whether the request may be sent now: it is for no WebSocket, or its backend takes those. Else it
    /// waits, or goes elsewhere.
    #[inline]
    pub(super) fn may_be_sent(&mut self, x: ExchangeId, now: Instant) -> bool {
        !self.tables.exchanges[x].head.opens_websocket() || self.may_open_websocket(x, now)
    }

    /// Whether a backend has last announced that it takes them, and is to get them so.
    #[inline]
    pub(super) fn takes_websockets(&self, at: u32) -> bool {
        self.pools.config.http2.extended_connect && self.pools.backends[at as usize].websockets
    }

    #[cold]
    fn may_open_websocket(&mut self, x: ExchangeId, now: Instant) -> bool {
        let leg = self.tables.exchanges[x].backend.expect("attached");
        let Some(streams) = self.tables.conns[leg.conn].wire.streams() else { return true };
        let known = if self.pools.config.http2.extended_connect {
            streams.protocol.takes_websockets()
        } else {
            Some(false)
        };
        match known {
            Some(true) => true,
            _ if planted!(193) => true,
            Some(false) => {
                self.detach_backend(x);
                if self.may_speak_http1(x) {
                    self.tables.exchanges[x].http1_only = true;
                    self.attempt_unprocessed(x, Cause::NoWebSockets, true, now);
                } else {
                    self.attempt_over(x, Cause::NoWebSockets, Loss::Stream, now);
                }
                false
            }
            // Whoever says nothing is given up with its connection.
            None => {
                self.tables.exchanges[x].phase = Phase::Connecting;
                self.mark_dirty(x);
                false
            }
        }
    }

    /// A backend has said on a new connection what it takes: those that have waited for that are sent.
    #[cold]
    pub(super) fn backend_announced(&mut self, b: ConnId, now: Instant) {
        let conn = &self.tables.conns[b];
        let (Role::Backend(role), Some(streams)) = (&conn.role, conn.wire.streams()) else { return };
        let websockets = streams.protocol.takes_websockets() == Some(true);
        self.pools.backends[role.backend as usize].websockets = websockets;
        for x in self.exchanges_of(b) {
            if self.tables.exchanges.get(x).is_some_and(|e| e.phase == Phase::Connecting) {
                self.reopen_stream(x, now);
            }
        }
    }

    /// Streams are used in the order of their ids, and others have been meanwhile: the exchange gets a new
    /// one.
    fn reopen_stream(&mut self, x: ExchangeId, now: Instant) {
        let Some(leg) = self.tables.exchanges[x].backend else { return };
        let Some(streams) = self.tables.conns[leg.conn].wire.streams_mut() else { return };
        // Nothing has been sent on it: nobody is told.
        streams.protocol.reset(leg.stream, Reason::CANCEL);
        streams.forget(leg.stream);
        match streams.open(u32::MAX) {
            Some(stream) => {
                streams.exchanges.push((stream, x));
                self.tables.exchanges[x].backend = Some(Leg { stream, ..leg });
                self.start_sending(x, now);
            }
            None => {
                self.tables.exchanges[x].backend = None;
                self.attempt_unprocessed(x, Cause::ConnectFailed, true, now);
            }
        }
    }
}
