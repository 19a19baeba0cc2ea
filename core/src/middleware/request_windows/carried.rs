//! Clients of a [`RequestWindows`] on their way to another process, whose clock is another one, whose hash
//! has other keys and whose limit may be another one.
//!
//! Of a client there are the key, how long before a common moment it was seen last, and for each cell how
//! long before that it was used last, and how many requests it has. Times are rounded so that they come out
//! later, never earlier: nothing is forgotten too early.

use std::sync::PoisonError;

use super::{BUCKET, CELLS, Client, HashKeys, RequestLimit, RequestWindows, SLACK_MS, Stripe};
use crate::time::Instant;

/// Buckets that are copied under one hold of a lock: a few microseconds.
const AT_ONCE: usize = 16;
/// Clients are seen up to so long after the moment to which times relate: while they are copied.
const AHEAD_MS: u64 = 60_000;

/// A client and its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CarriedClient {
    key: u64,
    seen_ms: u64,
    /// As in a stripe.
    cells: [u64; CELLS],
}

/// How far clients have been copied.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    stripe: usize,
    bucket: usize,
}

/// What became of a client that came from another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is known now.
    Known,
    /// It has been quiet for a window.
    Over,
    /// No process can have counted that.
    Invalid,
    /// There is no place for it.
    NoPlace,
}

impl RequestWindows {
    /// Copies some of the clients that are behind `position`, which moves on; false if there were none. Those
    /// that have been quiet for a window are left out, and those that have not been seen since the moment
    /// `since`, but for as much as clocks are apart. A client may come twice, the later time as it was later.
    pub(crate) fn copy_some(
        &self,
        position: &mut Position,
        limit: &RequestLimit,
        (since, now): (Instant, Instant),
        into: &mut Vec<CarriedClient>,
    ) -> bool {
        let Some(stripe) = self.stripes.get(position.stripe) else { return false };
        // Nothing is allocated while requests wait.
        into.reserve(AT_ONCE * BUCKET);
        let [since_ms, now_ms] = [since, now].map(|time| time.as_nanos() / 1_000_000);
        let stripe = stripe.0.lock().unwrap_or_else(PoisonError::into_inner);
        // If buckets are added meanwhile, clients move on to later ones.
        let until = (position.bucket + AT_ONCE).min(stripe.buckets());
        for at in position.bucket * BUCKET..until * BUCKET {
            let (key, seen_ms) = (stripe.keys[at], stripe.seen[at]);
            if key != 0 && seen_ms + SLACK_MS >= since_ms && now_ms < stripe.free_at(at, limit) {
                into.push(CarriedClient { key, seen_ms, cells: stripe.cells[at] });
            }
        }
        *position = match until == stripe.buckets() {
            true => Position { stripe: position.stripe + 1, bucket: 0 },
            false => Position { bucket: until, ..*position },
        };
        true
    }

    /// Takes a client that another process has counted, unless it is known already and was seen later.
    pub(crate) fn put(&self, client: &CarriedClient, limit: &RequestLimit, now: Instant) -> Put {
        let now_ms = now.as_nanos() / 1_000_000;
        if client.key == 0 || client.seen_ms > now_ms + SLACK_MS {
            return Put::Invalid;
        }
        if now_ms >= client.seen_ms + 1 + limit.window_ms + SLACK_MS {
            return Put::Over;
        }
        let Some(cells) = client.valid_cells(limit) else { return Put::Invalid };
        if cells[0] == 0 {
            return Put::Over;
        }
        let known = Client::new(client.key, &self.keys);
        let stripe = &self.stripes[known.stripe()].0;
        let mut stripe = stripe.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = stripe.place_of(&known, &self.keys, limit, now_ms) else { return Put::NoPlace };
        if stripe.keys[at] != client.key || stripe.seen[at] <= client.seen_ms {
            (stripe.keys[at], stripe.seen[at], stripe.cells[at]) = (client.key, client.seen_ms, cells);
        }
        Put::Known
    }
}

impl Stripe {
    /// The place of a client, or one that it can have; `None`: there is none.
    fn place_of(
        &mut self,
        client: &Client,
        keys: &HashKeys,
        limit: &RequestLimit,
        now_ms: u64,
    ) -> Option<usize> {
        let own = if self.keys.is_empty() { None } else { Some(client.buckets(self.buckets())) };
        let known = own.into_iter().flatten().find_map(|bucket| self.find(bucket, client.key));
        known.or_else(|| self.find_place(client, keys, limit, now_ms).ok())
    }
}

impl CarriedClient {
    /// The cells that still count when the client was seen last; `None`: they are not in order.
    fn valid_cells(&self, limit: &RequestLimit) -> Option<[u64; CELLS]> {
        let (mut cells, mut used, mut previous) = ([0; CELLS], 0, u32::MAX);
        for cell in self.cells.iter().copied().take_while(|cell| *cell != 0) {
            let before = self.before(cell);
            if cell as u32 == 0 || before > previous || u64::from(before) > self.seen_ms + 1 {
                return None;
            }
            previous = before;
            if u64::from(before) <= limit.window_ms {
                cells[used] = cell;
                used += 1;
            }
        }
        Some(cells)
    }

    /// How many milliseconds before the latest possible one a cell was used last.
    fn before(&self, cell: u64) -> u32 {
        (self.seen_ms as u32).wrapping_add(1).wrapping_sub((cell >> 32) as u32)
    }

    /// Appends it as bytes: its times relate to the moment `taken`.
    pub(crate) fn write(&self, taken: Instant, into: &mut Vec<u8>) {
        let moment = taken.as_nanos() / 1_000_000 + AHEAD_MS;
        // No window is as long as 32 bits of milliseconds.
        let ago = u32::try_from(moment.saturating_sub(self.seen_ms)).unwrap_or(u32::MAX);
        into.extend_from_slice(&self.key.to_le_bytes());
        into.extend_from_slice(&ago.to_le_bytes());
        let used = self.cells.iter().take_while(|cell| **cell != 0);
        into.push(used.clone().count() as u8);
        for cell in used {
            into.extend_from_slice(&self.before(*cell).to_le_bytes());
            into.extend_from_slice(&(*cell as u32).to_le_bytes());
        }
    }

    /// Reads what [`CarriedClient::write`] has written from the beginning of `from`; `taken` is the same
    /// moment on the clock of this process. `None`: the bytes are something else.
    pub(crate) fn read(from: &mut &[u8], taken: Instant) -> Option<Self> {
        let moment = taken.as_nanos().div_ceil(1_000_000) + AHEAD_MS;
        let key = u64::from_le_bytes(chunk(from)?);
        let seen_ms = moment.saturating_sub(u64::from(u32::from_le_bytes(chunk(from)?)));
        let [used] = chunk(from)?;
        let mut cells = [0; CELLS];
        for cell in cells.get_mut(..usize::from(used))? {
            let before = u32::from_le_bytes(chunk(from)?);
            let requests = u32::from_le_bytes(chunk(from)?);
            let time = (seen_ms as u32).wrapping_add(1).wrapping_sub(before);
            *cell = u64::from(time) << 32 | u64::from(requests);
        }
        Some(Self { key, seen_ms, cells })
    }
}

/// The first `N` bytes, which are taken away.
pub(crate) fn chunk<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*first)
}

#[cfg(test)]
mod tests;
