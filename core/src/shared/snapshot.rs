//! What a process knows and its successor would have to learn anew, as bytes: the health of backends, and
//! what the clients of `RateLimiter` have had. [`restore`](super::restore) reads them.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | [`VERSION`]; whoever reads another one leaves all of it |
//! | 8 | the moment to which all times relate, on a clock that both processes have, in nanoseconds |
//! | … | records: kind (1), length of the rest (4), the rest |
//!
//! | kind | the rest |
//! |---|---|
//! | 0 | nothing: the end |
//! | 1 | a backend: pool, label, what it was checked by (8), health (4), its stamp in ms (8, signed) |
//! | 2 | clients of a `RateLimiter`: pool, its place among those of the pool (2), clients |
//!
//! Stamps count from the moment. Numbers are little-endian. A name has its length before it (2). A record of
//! another kind is passed over.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::vec;

use siphasher::sip::SipHasher13;

use super::Shared;
use crate::config::{self, Config, Middleware};
use crate::middleware::request_windows::carried::{CarriedClient, Position};
use crate::middleware::request_windows::{RequestLimit, RequestWindows};
use crate::time::Instant;

pub(super) const MAGIC: &[u8; 8] = b"RSTR\r\n\x1aS";
/// Of the bytes. They may get more kinds of records without another one.
pub(super) const VERSION: u32 = 1;
/// Bytes before the first record.
pub(super) const HEAD: usize = 20;

pub(super) const END: u8 = 0;
pub(super) const BACKEND: u8 = 1;
pub(super) const CLIENTS: u8 = 2;

/// Whose windows are to be in a snapshot; the health of all backends always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Of all clients: up to 109 bytes for each.
    Everything,
    /// Of those that have been seen since an earlier snapshot of everything was taken.
    Since(Instant),
}

/// What a process knows, a part at a time. Nobody waits for it longer than for a copy of a few hundred
/// clients.
#[derive(Debug)]
pub struct Snapshot {
    taken: Instant,
    /// Clients that have not been seen since then are left out.
    since: Instant,
    /// Bytes that may still be written.
    left: usize,
    first: Vec<u8>,
    limiters: vec::IntoIter<Limiter>,
    current: Option<(Limiter, Position)>,
    copied: Vec<CarriedClient>,
    clients: usize,
    complete: bool,
    ended: bool,
}

/// A `RateLimiter` of a configuration, whatever its shard.
#[derive(Debug)]
pub(super) struct Limiter {
    pub(super) pool: Box<str>,
    /// Its place among those of its pool.
    pub(super) nth: u16,
    pub(super) limit: RequestLimit,
    pub(super) windows: Arc<RequestWindows>,
}

impl Shared {
    /// What is known at `taken`, which is now, in `most` bytes or a few more. `common_ns` is the same moment
    /// on a clock that the process has, too, that reads it.
    #[must_use]
    pub fn snapshot(&self, extent: Extent, taken: Instant, common_ns: u64, most: usize) -> Snapshot {
        let mut first = Vec::new();
        first.extend_from_slice(MAGIC);
        first.extend_from_slice(&VERSION.to_le_bytes());
        first.extend_from_slice(&common_ns.to_le_bytes());
        let prepared = self.registry().prepared.clone();
        let mut limiters = Vec::new();
        if let Some(prepared) = &prepared {
            let taken_ms = taken.as_nanos() / 1_000_000;
            for (pool, state) in prepared.config.pools.iter().zip(&prepared.states) {
                for (backend, known) in pool.backends.iter().zip(state.backends()) {
                    let Some((bits, stamp_ms)) = known.health().carried() else { continue };
                    record(&mut first, BACKEND, |body| {
                        name(body, &pool.name);
                        name(body, &backend.label);
                        body.extend_from_slice(&checked_by(pool, backend).to_le_bytes());
                        body.extend_from_slice(&bits.to_le_bytes());
                        body.extend_from_slice(&stamp_ms.wrapping_sub(taken_ms).to_le_bytes());
                    });
                }
            }
            limiters = self.limiters(&prepared.config);
        }
        let since = match extent {
            Extent::Everything => Instant::ZERO,
            Extent::Since(since) => since,
        };
        Snapshot {
            taken,
            since,
            left: most.saturating_sub(first.len()),
            first,
            limiters: limiters.into_iter(),
            current: None,
            copied: Vec::new(),
            clients: 0,
            complete: true,
            ended: false,
        }
    }

    /// Every `RateLimiter` that this configuration has and a shard has made.
    pub(super) fn limiters(&self, config: &Config) -> Vec<Limiter> {
        limiters(config, |pool, nth| self.middlewares.request_windows(pool, nth))
    }

    /// Makes what every `RateLimiter` of the configuration that was prepared last counts with, before a shard
    /// has made the middleware: it stays for as long as what is returned. `seed` is random.
    #[must_use]
    pub fn hold_limiters(&self, seed: [u64; 2]) -> HeldLimiters {
        let prepared = self.registry().prepared.clone();
        let make = |pool: &str, nth| Some(self.middlewares.make_request_windows(pool, nth, seed));
        HeldLimiters(prepared.map_or_else(Vec::new, |prepared| limiters(&prepared.config, make)))
    }
}

/// What `RateLimiter`s count with stays while this does.
#[derive(Debug)]
pub struct HeldLimiters(#[expect(dead_code, reason = "it is there to be kept")] Vec<Limiter>);

/// The `RateLimiter`s of a configuration for which there is something to count with.
fn limiters(config: &Config, windows: impl Fn(&str, usize) -> Option<Arc<RequestWindows>>) -> Vec<Limiter> {
    let of_pool = |pool: &Arc<config::Pool>| {
        let limits = pool.middlewares.iter().filter_map(|middleware| match middleware {
            Middleware::RateLimiter { limit, window } => Some(RequestLimit::new(*limit, *window)),
            _ => None,
        });
        let limiters = limits.enumerate().filter_map(|(nth, limit)| {
            let windows = windows(&pool.name, nth)?;
            Some(Limiter { pool: pool.name.clone(), nth: u16::try_from(nth).ok()?, limit, windows })
        });
        limiters.collect::<Vec<_>>()
    };
    config.pools.iter().flat_map(of_pool).collect()
}

impl Snapshot {
    /// Appends the next bytes, some ten thousand at most but for the first; false if there were no more.
    pub fn next_part(&mut self, into: &mut Vec<u8>) -> bool {
        if !self.first.is_empty() {
            into.append(&mut self.first);
            return true;
        }
        if self.ended {
            return false;
        }
        if self.current.is_none() {
            self.current = self.limiters.next().map(|limiter| (limiter, Position::default()));
        }
        let Some((limiter, position)) = &mut self.current else {
            self.ended = true;
            record(into, END, |_| ());
            return true;
        };
        self.copied.clear();
        let times = (self.since, self.taken);
        if !limiter.windows.copy_some(position, &limiter.limit, times, &mut self.copied) {
            self.current = None;
        } else if !self.copied.is_empty() {
            let before = into.len();
            record(into, CLIENTS, |body| {
                name(body, &limiter.pool);
                body.extend_from_slice(&limiter.nth.to_le_bytes());
                self.copied.iter().for_each(|client| client.write(self.taken, body));
            });
            self.clients += self.copied.len();
            self.left = self.left.saturating_sub(into.len() - before);
            if self.left == 0 {
                self.complete = false;
                (self.current, self.limiters) = (None, Vec::new().into_iter());
            }
        }
        true
    }

    /// How many clients have been written.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// Whether everything had room; known when there are no more bytes.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

/// A record, whose rest is what `write` appends.
fn record(into: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    into.push(kind);
    let begin = into.len();
    into.extend_from_slice(&[0; 4]);
    write(into);
    let length = (into.len() - begin - 4) as u32;
    into[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
}

/// A name, or as much of it as there is room for: then it is nobody's.
fn name(into: &mut Vec<u8>, name: &str) {
    let name = &name.as_bytes()[..name.len().min(usize::from(u16::MAX))];
    into.extend_from_slice(&(name.len() as u16).to_le_bytes());
    into.extend_from_slice(name);
}

/// What makes a backend that of this name, and what its health was found by: what is known of another one
/// is of no use. The same in every process of one build; where another build finds something else, its own
/// checks decide.
pub(super) fn checked_by(pool: &config::Pool, backend: &config::Backend) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x6865_616c_7468_2061, 0x7320_6974_2077_6173);
    (&backend.address, &backend.protocol, &backend.host, &pool.health).hash(&mut hasher);
    hasher.finish()
}
