//! The encoders of a process: how much memory they use is counted and has a limit, and those that have done
//! their work are kept for others.

use std::sync::{Arc, Mutex, PoisonError};

use super::encoder::{Encoder, Kind};

/// Memory of all encoders of a process together, in bytes: room for some 700 that use gzip, or some 200
/// that use brotli.
const MAX_BYTES: u64 = 256 << 20;
/// Memory of encoders that are kept though nobody uses them, in bytes.
const MAX_IDLE_BYTES: u64 = 16 << 20;

/// Lends encoders.
#[derive(Debug)]
pub(in crate::middleware) struct Encoders {
    max_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Memory of those that are lent and of those that are idle.
    bytes: u64,
    idle_bytes: u64,
    /// The most recently used last: its memory is the likeliest to be in a cache.
    idle: Vec<Encoder>,
}

impl State {
    fn drop_oldest(&mut self) -> Option<Encoder> {
        if self.idle.is_empty() {
            return None;
        }
        let oldest = self.idle.remove(0);
        self.bytes -= oldest.kind().bytes();
        self.idle_bytes -= oldest.kind().bytes();
        Some(oldest)
    }
}

impl Default for Encoders {
    fn default() -> Self {
        Self::new(MAX_BYTES)
    }
}

impl Encoders {
    /// With another limit.
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, state: Mutex::default() }
    }

    /// An encoder for a body of `len` bytes, if that is known. `None` if there is no memory for it.
    pub(super) fn lend(self: &Arc<Self>, kind: Kind, len: Option<u64>) -> Option<Lent> {
        let idle = self.claim(kind)?;
        // What happens to its memory is counted from here on.
        let mut lent = Lent { encoders: self.clone(), kind, encoder: idle };
        match &mut lent.encoder {
            Some(encoder) => encoder.begin(len)?,
            none => *none = Some(Encoder::new(kind, len)?),
        }
        Some(lent)
    }

    /// Counts the memory of an encoder of this kind, and gives an idle one if there is one. Idle ones of
    /// other kinds make room.
    fn claim(&self, kind: Kind) -> Option<Option<Encoder>> {
        // Dropped after the lock.
        let mut dropped = Vec::new();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = state.idle.iter().rposition(|idle| idle.kind() == kind) {
            state.idle_bytes -= kind.bytes();
            return Some(Some(state.idle.remove(at)));
        }
        while state.bytes + kind.bytes() > self.max_bytes
            && let Some(oldest) = state.drop_oldest()
        {
            dropped.push(oldest);
        }
        if state.bytes + kind.bytes() > self.max_bytes {
            return None;
        }
        state.bytes += kind.bytes();
        Some(None)
    }

    /// An encoder is not used any more; `None`: it could not be made.
    fn give_back(&self, kind: Kind, encoder: Option<Encoder>) {
        let mut dropped = Vec::new();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match encoder {
            Some(encoder) if kind.is_reusable() => {
                state.idle_bytes += kind.bytes();
                state.idle.push(encoder);
                while state.idle_bytes > MAX_IDLE_BYTES
                    && let Some(oldest) = state.drop_oldest()
                {
                    dropped.push(oldest);
                }
            }
            other => {
                state.bytes -= kind.bytes();
                dropped.extend(other);
            }
        }
        // Memory goes back to the allocator with nobody waiting for it.
        drop(state);
    }

    /// Memory that is counted now, in bytes, and how many encoders are idle.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (u64, usize) {
        let state = self.state.lock().unwrap();
        (state.bytes, state.idle.len())
    }
}

/// An encoder in use. It is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Lent {
    encoders: Arc<Encoders>,
    kind: Kind,
    /// There is one, once it has been lent.
    encoder: Option<Encoder>,
}

impl Lent {
    pub(super) fn encoder(&mut self) -> &mut Encoder {
        self.encoder.as_mut().expect("lent with one")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.encoders.give_back(self.kind, self.encoder.take());
    }
}

#[cfg(test)]
mod tests;
