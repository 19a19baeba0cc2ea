//! Which backend a request may be sent to, by the configuration and the health at that time.

use super::{Net, Socket};
use crate::exchanges::ExchangeEntry;
use crate::scenario::PoolSpec;

impl Net {
    /// When the proxy wrote the byte at `offset` of a connection to a backend.
    pub(crate) fn written_at(&self, socket: usize, offset: u64) -> u64 {
        let writes = &self.sockets[socket].writes;
        writes[writes.partition_point(|(from, _)| *from <= offset) - 1].1
    }

    /// When the proxy read the first byte at or behind `offset` from a backend; `None`: not yet.
    pub(crate) fn read_at(&self, socket: usize, offset: u64) -> Option<u64> {
        let s = &self.sockets[socket];
        if s.to_proxy.read_total <= offset {
            return None;
        }
        Some(s.reads[s.reads.partition_point(|(from, _)| *from <= offset) - 1].1)
    }

    /// The configuration that its shard had when the head of a request was read: the exchange uses that one,
    /// or a later one.
    pub(crate) fn version_at_head(&self, entry: &ExchangeEntry) -> usize {
        let Some(client) = self.sockets.get(self.client_sockets[entry.client]) else { return 0 };
        let mut reloads = client.read_at_reload.iter().rev();
        reloads.find(|(read, _)| *read < entry.head_end).map_or(0, |(_, version)| *version)
    }

    /// Why a request should not have been sent to this backend, if so. `served`: how many requests have come
    /// on the connection before it.
    pub(crate) fn backend_choice_error(
        &self,
        socket: usize,
        backend: usize,
        entry: &ExchangeEntry,
        served: u32,
    ) -> Option<String> {
        let s = &self.sockets[socket];
        if s.suspect && served == 0 && !self.was_there(s, entry) && !self.had_no_room(s) {
            return Some("the backend was known to be unhealthy".into());
        }
        let Some(pool) = entry.pool else { return Some("no pool takes it".into()) };
        let began = self.version_at_head(entry);
        let names_backend = |version: &Vec<PoolSpec>| {
            version.iter().any(|p| p.name == pool && p.backends.iter().any(|b| b.backend == backend))
        };
        let versions = &self.config_versions[began..=self.shard_version[s.shard]];
        (!versions.iter().any(names_backend)).then(|| {
            format!("not in pool {pool} in configurations {began}..={}", self.shard_version[s.shard])
        })
    }

    /// Whether a connection was opened because the one that the request had waited for had just turned out to
    /// speak HTTP/1.1: its backend is there, whatever others know of it.
    fn was_there(&self, s: &Socket, entry: &ExchangeEntry) -> bool {
        let Some(at) = entry.connections.iter().rposition(|conn| *conn == s.conn) else { return false };
        let before = at.checked_sub(1).map(|before| entry.connections[before]);
        self.sockets.iter().any(|other| {
            Some(other.conn) == before
                && (other.shard, other.peer) == (s.shard, s.peer)
                && other.times.secured == Some(s.times.opened)
        })
    }

    /// Whether a connection was opened because the backend's SETTINGS, which a WebSocket had waited for on
    /// another one, had just left it no room there: whatever others know, the backend has said something.
    fn had_no_room(&self, s: &Socket) -> bool {
        let spoke = |other: &Socket| {
            (other.shard, other.peer) == (s.shard, s.peer)
                && other.streams.is_some()
                && other.reads.iter().any(|(_, at)| *at == s.times.opened)
        };
        let left = |entry: &ExchangeEntry| {
            let at = entry.connections.iter().rposition(|conn| *conn == s.conn);
            let before = at.and_then(|at| Some(entry.connections[at.checked_sub(1)?]));
            self.sockets.iter().any(|other| Some(other.conn) == before && spoke(other))
        };
        self.ledger.entries.iter().any(|entry| entry.websocket && left(entry))
    }

    /// Whether every pool that names a backend has known since an earlier turn that it is unhealthy.
    pub(super) fn known_unhealthy(&self, backend: usize) -> bool {
        let mut all = self.config_versions.iter().flatten().flat_map(|pool| &pool.backends);
        if self.scenario.check_every_ms == 0
            || (self.unhealthy.is_empty() && all.any(|b| b.backend == backend))
        {
            return false;
        }
        let labels = |pool: &PoolSpec| {
            pool.backends
                .iter()
                .filter(|b| b.backend == backend)
                .map(|b| (pool.name.to_owned(), b.label().to_owned()))
                .collect::<Vec<_>>()
        };
        let names: Vec<_> = self.config_versions.iter().flatten().flat_map(labels).collect();
        let unhealthy = |name: &(String, String)| {
            !self.reload_changed.contains(&name.1)
                && self.unhealthy.get(name).is_some_and(|since| *since < self.turn)
        };
        names.iter().all(unhealthy)
    }
}
