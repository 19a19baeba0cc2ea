//! Where a request may be, and since when: what the network knows and the judges ask it for.

use super::Net;
use crate::draw::PoolDef;
use crate::ledger::Request;

impl Net {
    /// When the byte at `offset` was written to a machine, and when the first byte behind `answer` was read
    /// from it.
    pub(crate) fn written_at(&self, sock: usize, offset: u64) -> u64 {
        let writes = &self.socks[sock].writes;
        writes[writes.partition_point(|(from, _)| *from <= offset) - 1].1
    }

    pub(crate) fn read_at(&self, sock: usize, response: u64) -> Option<u64> {
        let s = &self.socks[sock];
        if s.up.read_total <= response {
            return None;
        }
        Some(s.reads[s.reads.partition_point(|(from, _)| *from <= response) - 1].1)
    }

    /// Why a request may not be at this machine, if so.
    pub(crate) fn allowed(&self, sock: usize, machine: usize, r: &Request, served: u32) -> Option<String> {
        let s = &self.socks[sock];
        if s.suspect && served == 0 {
            return Some("the machine was known to be unhealthy".into());
        }
        let Some(pool) = r.pool else { return Some("no pool takes it".into()) };
        let client = self.client_socks.get(r.client).map(|c| &self.socks[*c])?;
        // It began with the configuration in use when its head had been read, or with a later one.
        let began = client
            .read_at_reload
            .iter()
            .rev()
            .find(|(read, _)| *read < r.head_end)
            .map_or(0, |(_, version)| *version);
        let of = |version: &Vec<PoolDef>| {
            version.iter().any(|p| p.name == pool && p.backends.iter().any(|b| b.at == machine))
        };
        let versions = &self.versions[began..=self.version_of[s.shard]];
        (!versions.iter().any(of))
            .then(|| format!("not in pool {pool} in versions {began}..={}", self.version_of[s.shard]))
    }

    /// Whether every pool that names a machine has known it to be unhealthy since an earlier turn.
    pub(super) fn known_bad(&self, machine: usize) -> bool {
        let mut all = self.versions.iter().flatten().flat_map(|pool| &pool.backends);
        if self.draw.check_every_ms == 0 || (self.unhealthy.is_empty() && all.any(|b| b.at == machine)) {
            return false;
        }
        let named = |pool: &PoolDef| {
            pool.backends
                .iter()
                .filter(|b| b.at == machine)
                .map(|b| (pool.name.to_owned(), b.label()))
                .collect::<Vec<_>>()
        };
        let names: Vec<_> = self.versions.iter().flatten().flat_map(named).collect();
        let bad = |name: &(String, String)| {
            !self.tainted.contains(&name.1)
                && self.unhealthy.get(name).is_some_and(|since| *since < self.turn)
        };
        names.iter().all(bad)
    }
}
