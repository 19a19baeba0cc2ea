//! The streams of a connection: those that are open, and how those ended that were not long ago.

use std::collections::VecDeque;

use super::flow::{RecvWindow, SendWindow};
use super::head::Asked;
use super::machine::State;
use super::priority::Priority;
use super::reason::Reason;

/// One open stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) state: State,
    pub(super) recv: RecvWindow,
    pub(super) send: SendWindow,
    /// Bytes that were handed out and have not been released.
    pub(super) handed: u32,
    /// Bytes beyond what may be handed out at once.
    pub(super) held: Held,
    /// The message has ended behind them, with these trailers.
    pub(super) held_end: Option<Vec<u8>>,
    /// It was reset behind that end.
    pub(super) reset: Option<Reason>,
    /// What `Content-Length` leaves to come, in bytes.
    pub(super) length_left: Option<u64>,
    /// The head of the peer's message has come; an interim one is none.
    pub(super) has_head: bool,
    /// What the request is, as far as its response depends on it. [`Asked::Tunnel`] no longer if it is
    /// refused.
    pub(super) asked: Asked,
    pub(super) priority: Priority,
}

/// Bytes that wait, first in, first out.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// The first that waits.
    at: usize,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        // What has been taken makes room once it is half of all: no byte is moved more than once for each
        // that is taken.
        if self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first `n`, of which there are as many.
    pub(super) fn take(&mut self, n: usize) -> Vec<u8> {
        let end = self.at + n;
        let taken = self.bytes[self.at..end].to_vec();
        self.at = end;
        if end == self.bytes.len() {
            *self = Self::default();
        }
        taken
    }
}

/// How many ended streams are remembered: frames that crossed the end are told from those that break a rule.
const MAX_ENDED: usize = 64;

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// By id.
    open: Vec<Stream>,
    ended: VecDeque<(u32, State)>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn place(&self, id: u32) -> Result<usize, usize> {
        // The newest is asked for most.
        match self.open.last() {
            Some(last) if last.id == id => Ok(self.open.len() - 1),
            Some(last) if last.id < id => Err(self.open.len()),
            _ => self.open.binary_search_by_key(&id, |stream| stream.id),
        }
    }

    pub(super) fn get(&self, id: u32) -> Option<&Stream> {
        self.place(id).ok().map(|at| &self.open[at])
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.place(id).ok().map(|at| &mut self.open[at])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.open.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.open.iter_mut()
    }

    /// Adds a stream that is not there.
    pub(super) fn insert(&mut self, stream: Stream) {
        let at = self.place(stream.id).unwrap_or_else(|at| at);
        self.open.insert(at, stream);
    }

    /// Removes a stream that has ended in this state.
    pub(super) fn remove(&mut self, id: u32, state: State) -> Option<Stream> {
        let at = self.place(id).ok()?;
        self.remember(id, state);
        Some(self.open.remove(at))
    }

    /// A stream has ended in this state; it may be one that was never added.
    pub(super) fn remember(&mut self, id: u32, state: State) {
        if self.ended.len() == MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back((id, state));
    }

    /// How a stream ended, if that was not long ago.
    pub(super) fn how_ended(&self, id: u32) -> Option<State> {
        self.ended.iter().rev().find(|(ended, _)| *ended == id).map(|(_, state)| *state)
    }
}
