//! Takes what another process has known, from the bytes of a [`snapshot`](super::snapshot). They are another
//! program's: whatever is wrong with them, the worst is that nothing is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Shared;
use super::snapshot::{BACKEND, CLIENTS, END, HEAD, Limiter, MAGIC, VERSION, checked_by};
use crate::balance::PoolState;
use crate::middleware::request_windows::carried::{CarriedClient, Put, chunk};
use crate::observe::HealthState;
use crate::time::Instant;

/// The longest record that is read; none that is written is nearly as long.
const MAX_RECORD: usize = 1 << 18;

/// What has been taken over, and what has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Backends whose health is known now by what the other process knew.
    pub backends: usize,
    /// Those of them that are unhealthy.
    pub unhealthy: usize,
    /// Clients whose requests count on.
    pub clients: usize,
    /// Clients that found no place: they are as those that nobody knows.
    pub no_place: usize,
    /// Records and clients that are not as they should be.
    pub invalid: usize,
    /// Everything has been read, to the end.
    pub complete: bool,
}

/// Takes the bytes of a snapshot, piece by piece.
#[derive(Debug)]
pub struct Restore {
    /// Each backend by pool and label.
    backends: BTreeMap<(Box<str>, Box<str>), Backend>,
    limiters: BTreeMap<(Box<str>, u16), Limiter>,
    taken: Instant,
    now: Instant,
    /// What has come of a record whose end has not; no longer than [`MAX_RECORD`].
    pending: Vec<u8>,
    /// Nothing more is read.
    ended: bool,
    restored: Restored,
}

/// A backend of the configuration.
#[derive(Debug)]
struct Backend {
    pool: Arc<PoolState>,
    /// Its place in the pool.
    place: u16,
    checked_by: u64,
}

impl Restore {
    /// How many bytes come before the first record.
    pub const HEAD: usize = HEAD;

    /// What the first [`Restore::HEAD`] bytes say: the moment to which times relate, in nanoseconds of the
    /// clock that both processes have. `None`: this is no snapshot, or one of another version.
    #[must_use]
    pub fn head(bytes: &[u8; HEAD]) -> Option<u64> {
        let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
        Some(u64::from_le_bytes(rest.try_into().ok()?))
    }

    /// Takes records of a snapshot into the configuration that was prepared last
    /// ([`Shared::prepare`]). `taken` is the moment to which its times relate, on the clock of this process,
    /// and not after `now`. Clients are counted where a shard has made the middleware, or
    /// [`Shared::hold_limiters`] has made what it counts with.
    #[must_use]
    pub fn new(shared: &Shared, taken: Instant, now: Instant) -> Self {
        let (mut backends, mut limiters) = (BTreeMap::new(), BTreeMap::new());
        let prepared = shared.registry().prepared.clone();
        if let Some(prepared) = prepared {
            for (pool, state) in prepared.config.pools.iter().zip(&prepared.states) {
                for (place, backend) in (0..).zip(&pool.backends) {
                    let checked_by = checked_by(pool, backend);
                    let known = Backend { pool: state.clone(), place, checked_by };
                    backends.insert((pool.name.clone(), backend.label.clone()), known);
                }
            }
            let all = shared.limiters(&prepared.config).into_iter();
            limiters = all.map(|limiter| ((limiter.pool.clone(), limiter.nth), limiter)).collect();
        }
        let (pending, restored) = (Vec::new(), Restored::default());
        Self { backends, limiters, taken, now, pending, ended: false, restored }
    }

    /// Takes the next bytes behind the head.
    pub fn take(&mut self, bytes: &[u8]) {
        let mut pending = std::mem::take(&mut self.pending);
        let mut rest = bytes;
        // What is left of the piece before, if anything is, gets as much as makes it a record.
        while !pending.is_empty() && !self.ended && !rest.is_empty() {
            let wanted = match length(&pending) {
                None => 5 - pending.len(),
                Some(length) => 5 + length - pending.len(),
            };
            let (some, others) = rest.split_at(wanted.min(rest.len()));
            pending.extend_from_slice(some);
            rest = others;
            if self.records(&pending) == pending.len() {
                pending.clear();
            }
        }
        if pending.is_empty() && !self.ended {
            let done = self.records(rest);
            pending.extend_from_slice(&rest[done..]);
        }
        self.pending = if self.ended { Vec::new() } else { pending };
    }

    /// Takes the records that `bytes` has as a whole; how long they are.
    fn records(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(length) = length(&bytes[done..])
            && !self.ended
        {
            if length > MAX_RECORD {
                (self.ended, self.restored.invalid) = (true, self.restored.invalid + 1);
                break;
            }
            let Some(body) = bytes.get(done + 5..done + 5 + length) else { break };
            self.record(bytes[done], body);
            done += 5 + length;
        }
        done
    }

    fn record(&mut self, kind: u8, body: &[u8]) {
        let valid = match kind {
            END => {
                (self.ended, self.restored.complete) = (true, true);
                Some(())
            }
            BACKEND => self.backend(body),
            CLIENTS => self.clients(body),
            // Of a later build.
            _ => Some(()),
        };
        self.restored.invalid += usize::from(valid.is_none());
    }

    /// A backend that the configuration does not have, or has as another one, is passed over.
    fn backend(&mut self, mut body: &[u8]) -> Option<()> {
        let from = &mut body;
        let key = (name(from)?.into(), name(from)?.into());
        let checked_by = u64::from_le_bytes(chunk(from)?);
        let bits = u32::from_le_bytes(chunk(from)?);
        let after_ms = i64::from_le_bytes(chunk(from)?);
        let known = self.backends.get(&key).filter(|known| known.checked_by == checked_by);
        let Some(Backend { pool, place, .. }) = known else { return Some(()) };
        let taken_ms = self.taken.as_nanos().div_ceil(1_000_000);
        // What was before the epoch of this clock was in the beginning.
        let stamp_ms = taken_ms.saturating_add_signed(after_ms);
        if let Some(known) = pool.restore(*place, (bits, stamp_ms), self.now) {
            self.restored.backends += 1;
            self.restored.unhealthy += usize::from(known == HealthState::Unhealthy);
        }
        Some(())
    }

    /// Clients of a middleware that there is no more are passed over.
    fn clients(&mut self, mut body: &[u8]) -> Option<()> {
        let from = &mut body;
        let key = (name(from)?.into(), u16::from_le_bytes(chunk(from)?));
        let Some(Limiter { limit, windows, .. }) = self.limiters.get(&key) else { return Some(()) };
        while !from.is_empty() {
            let client = CarriedClient::read(from, self.taken)?;
            match windows.put(&client, limit, self.now) {
                Put::Known => self.restored.clients += 1,
                Put::Over => {}
                Put::Invalid => self.restored.invalid += 1,
                Put::NoPlace => self.restored.no_place += 1,
            }
        }
        Some(())
    }

    /// What has become of it.
    #[must_use]
    pub fn finish(self) -> Restored {
        self.restored
    }
}

/// How long the rest of a record is that begins with these bytes; `None`: not enough of it is there.
fn length(record: &[u8]) -> Option<usize> {
    let length = record.get(1..5)?;
    Some(u32::from_le_bytes(length.try_into().ok()?) as usize)
}

/// The name at the beginning, which is taken away.
fn name<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(u16::from_le_bytes(chunk(from)?));
    let (name, rest) = from.split_at_checked(length)?;
    *from = rest;
    std::str::from_utf8(name).ok()
}

#[cfg(test)]
mod tests;
