//! A connection to a backend that a client has authenticated is that client's alone: its later requests go
//! over it and nobody else's do, nothing on it is sent again elsewhere, and it is closed with its client's.

use crate::coverage::Mark;
use crate::exchanges::ExchangeEntry;
use crate::identities::Authentication;
use crate::net::{Net, Peer, Socket};

impl Net {
    /// The client that a connection to a backend belongs to, if it is not everybody's.
    pub(crate) fn owner(&self, s: &Socket) -> Option<usize> {
        s.owner.or_else(|| {
            // Who asks for credentials on a stream asks nobody else.
            let last = *s.sendings.last().filter(|_| s.streams.is_none())?;
            let entry = self.ledger.get(self.sendings[last].id);
            let asked = entry.authentication == Authentication::Challenge
                && self.response_head_read(entry, self.sendings[last].socket).is_some();
            asked.then_some(entry.client)
        })
    }

    /// Whether the newest request on a connection went over it because it is its client's alone: no limit of
    /// its backend holds such a request up.
    pub(crate) fn is_reused_by_owner(&self, socket: usize) -> bool {
        let s = &self.sockets[socket];
        s.owner.is_some() && s.sendings.last().is_some_and(|at| self.sendings[*at].nth > 0)
    }

    /// The head of a request has been written to a connection. True if nothing else may carry the request.
    pub(crate) fn judge_identity(&mut self, socket: usize, id: u64) -> bool {
        if !self.scenario.identities {
            return false;
        }
        let entry = self.ledger.get(id);
        let client = entry.client;
        let has_credentials = entry.authentication == Authentication::Credentials;
        let owner = self.owner(&self.sockets[socket]);
        if self.sockets[socket].streams.is_some() {
            return self.judge_identity_on_stream(socket, id, owner.is_some() || has_credentials);
        }
        let left = owner.is_none().then(|| self.left_for(socket, entry)).flatten();
        let shared = owner
            .filter(|owner| *owner != client)
            .map(|owner| ("identity-shared", format!("it is client {owner}'s alone")));
        let before = self.sendings_of(entry).find(|s| s.owned).map(|s| s.socket);
        let replayed = before.map(|before| ("identity-replayed", format!("it was sent on {before} before")));
        if let Some((invariant, why)) = shared.or(replayed) {
            let details = format!("request {id} of client {client} on socket {socket}: {why}");
            self.ledger.fail(invariant, details);
        }
        // One that is not trusted any more is closed in this turn.
        self.left_connections.extend(left.map(|other| (id, other)));
        if owner == Some(client) {
            self.mark(Mark::OwnConnection);
        }
        if owner.is_some() || has_credentials {
            self.sockets[socket].owner = Some(client);
        }
        owner.is_some() || has_credentials
    }

    /// Credentials that might authenticate a connection go on one that carries nothing else, before or after.
    fn judge_identity_on_stream(&mut self, socket: usize, id: u64, alone: bool) -> bool {
        let client = self.ledger.get(id).client;
        if alone && !self.sockets[socket].sendings.is_empty() {
            let details = format!("request {id} of client {client} on socket {socket} is not alone there");
            self.ledger.fail("identity-shared", details);
        }
        if alone {
            self.mark(Mark::Http2Alone);
            self.sockets[socket].owner = Some(client);
        }
        // Nor is it said there that the connection is authenticated.
        false
    }

    /// The connection over which a request should have gone instead of this one.
    fn left_for(&self, socket: usize, entry: &ExchangeEntry) -> Option<usize> {
        let own = |at: &&usize| {
            let s = &self.sockets[**at];
            let last = s.sendings.last().filter(|_| s.streams.is_none());
            let last = last.map(|last| self.ledger.get(self.sendings[*last].id));
            // It lies idle, and is of the same pool.
            let fits = last.is_some_and(|last| last.record.is_some() && last.pool == entry.pool);
            **at != socket && fits && self.owner(s) == Some(entry.client)
        };
        // A reload may have taken its backend out of the pool.
        let shard = self.sockets[socket].shard;
        let open = self.open_by_shard[shard].iter().filter(|_| self.config_versions.len() == 1);
        open.clone().find(own).copied()
    }

    /// A shard's turn is over: connections of clients that have gone went with them.
    pub(crate) fn judge_owners(&mut self, shard: usize) {
        if !self.scenario.identities {
            return;
        }
        for (id, other) in std::mem::take(&mut self.left_connections) {
            if self.sockets[other].open {
                let details = format!("request {id} did not go over socket {other}, its client's own");
                return self.ledger.fail("identity-left", details);
            }
        }
        let gone = |at: &&usize| {
            let s = &self.sockets[**at];
            // What goes on a stream ends by itself.
            let (Peer::Backend(_), None) = (s.peer, &s.streams) else { return false };
            self.owner(s).is_some_and(|client| !self.sockets[self.client_sockets[client]].open)
        };
        if let Some(at) = self.open_by_shard[shard].iter().find(gone) {
            let details = format!("socket {at} of client {:?} is open", self.owner(&self.sockets[*at]));
            self.ledger.fail("identity-closed", details);
        }
    }
}
