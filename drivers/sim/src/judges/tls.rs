//! What TLS has to look like from outside: when handshakes end, and that nothing is left lying.

use ruststrom_core::Fault;

use crate::coverage::Mark;
use crate::exchanges::{ClientResult, ExchangeEntry};
use crate::http1::BodyFraming;
use crate::net::{HANDSHAKE_FAILED, Net, Peer};

impl Net {
    /// The proxy knows how a handshake has ended.
    pub(crate) fn handshake_over(&mut self, socket: usize, fault: Option<Fault>) {
        let now = self.now;
        let s = &mut self.sockets[socket];
        let client = matches!(s.peer, Peer::Client(_));
        self.trace(42, || format!("the handshake of {socket} is over: {fault:?}"));
        let s = &mut self.sockets[socket];
        match fault {
            None => {
                s.times.secured.get_or_insert(now);
                self.mark(if client { Mark::SecuredClient } else { Mark::SecuredBackend });
            }
            Some(fault) => {
                s.times.unsecured.get_or_insert(now);
                if !client {
                    s.times.failed.get_or_insert((now, HANDSHAKE_FAILED));
                }
                // From here on it is one without TLS.
                s.secure &= fault != Fault::PlainHttp;
                self.mark(if client { Mark::ClientHandshakeFailed } else { Mark::BackendHandshakeFailed });
            }
        }
    }

    /// The proxy closes a connection: that of a client in its handshake not before its time is over.
    pub(crate) fn judge_handshake_closed(&mut self, socket: usize) {
        let s = &self.sockets[socket];
        if !s.secure || !matches!(s.peer, Peer::Client(_)) || s.times.secured.is_some() {
            return;
        }
        let timeout = self.scenario.timeouts.handshake;
        let over = timeout > 0 && self.now >= s.times.opened + timeout;
        if over {
            self.mark(Mark::HandshakeTimeout);
        }
        let s = &self.sockets[socket];
        let broke = s.broken || s.times.fin.is_some() || s.times.unsecured.is_some();
        if !over && !broke && !self.drains() {
            let details = format!("socket {socket}, opened at {}: {timeout} is allowed", s.times.opened);
            self.ledger.fail("handshake-early", details);
        }
    }

    /// The run is over: what ends with its connection, and was cut with TLS, has not come to its end.
    pub(crate) fn judge_cuts(&mut self) {
        let whole = |entry: &ExchangeEntry| {
            let ends_with_connection = entry.response_framing == BodyFraming::Close
                && entry.method != "HEAD"
                && !matches!(entry.status, 204 | 304 | 101)
                // Nobody waits for the end of an error that a page replaces.
                && !(entry.status >= 400 && self.scenario.has_error_pages(entry.pool));
            let complete = matches!(entry.result, ClientResult::Response(status) if status == entry.status);
            let last = entry.sendings.last().map(|at| &self.sockets[self.sendings[*at].socket]);
            ends_with_connection && complete && last.is_some_and(|s| s.cut && s.secure && s.streams.is_none())
        };
        if let Some(entry) = self.ledger.entries.iter().find(|entry| whole(entry)) {
            let details = format!("exchange {} is whole: {:?}", entry.id, entry.record);
            self.ledger.fail("cut-is-no-end", details);
        }
    }

    /// A shard's turn is over: what a session has to send waits for room, and for nothing else.
    pub(crate) fn judge_sessions(&mut self, shard: usize) {
        let forgotten = self.open_by_shard[shard].iter().copied().find(|socket| {
            let s = &self.sockets[*socket];
            let output = s.session.as_ref().map_or(0, |session| session.output.get());
            let may_send = !s.connecting && !s.broken && !s.from_proxy.ended;
            output > 0 && may_send && !s.write_blocked
        });
        if let Some(socket) = forgotten {
            self.ledger.fail("session-flushed", format!("socket {socket} has room"));
        }
        let untold = self.open_by_shard[shard].iter().copied().find(|socket| {
            let s = &self.sockets[*socket];
            s.secure && s.send_blocked && !s.write_blocked && !s.broken
        });
        if let Some(socket) = untold {
            self.ledger.fail("room-is-told", format!("socket {socket} has room, and no event will say so"));
        }
    }
}
