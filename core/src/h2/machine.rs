//! What may follow what on a stream of HTTP/2 (RFC 9113 §5.1): every transition, for both sides, in one
//! place. Nothing is pushed, so the reserved states of the RFC's figure do not occur.
//!
//! ```text
//!                    ┌── head ──▶ Open ── our end ──▶ HalfLocal ──┐ their end
//!   Idle ────────────┤             │                              ├──▶ Ended
//!                    │             └─ their end ──▶ HalfRemote ───┘ our end
//!                    └── head with an end ──▶ HalfLocal, HalfRemote
//!
//!   Open, HalfLocal, HalfRemote ── we reset ──▶ ResetByUs
//!                               ── they reset ─▶ ResetByPeer
//!   ResetByUs                   ── they reset ─▶ ResetByPeer
//! ```
//!
//! An end is END_STREAM, on a head, on data or on trailers.

use super::reason::Reason;

/// The state of a stream.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was sent on it.
    Idle,
    /// Both sides may send.
    Open,
    /// We have ended, the peer has not.
    HalfLocal,
    /// The peer has ended, we have not.
    HalfRemote,
    /// Both have ended.
    Ended,
    /// We have reset it: what the peer sent before it knew is ignored.
    ResetByUs,
    /// The peer has reset it, and sends no more on it, whoever was first.
    ResetByPeer,
}

/// Something that happens to a stream.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// HEADERS from the peer.
    RecvHead,
    /// HEADERS with END_STREAM from the peer.
    RecvHeadEnd,
    /// DATA from the peer.
    RecvData,
    /// DATA with END_STREAM from the peer.
    RecvDataEnd,
    /// RST_STREAM from the peer.
    RecvReset,
    /// WINDOW_UPDATE from the peer.
    RecvWindow,
    /// HEADERS from us.
    SendHead,
    /// HEADERS with END_STREAM from us.
    SendHeadEnd,
    /// DATA from us.
    SendData,
    /// DATA with END_STREAM from us.
    SendDataEnd,
    /// RST_STREAM from us.
    SendReset,
}

/// Why an event may not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer broke the protocol: an error of the connection.
    Connection(Reason),
    /// The peer broke a rule of this stream: an error of it.
    Stream(Reason),
    /// It crossed the end of the stream on its way: it is ignored.
    Ignore,
    /// We may not do that; it changes nothing.
    Ours,
}

/// Every state, in the order of their numbers.
pub const STATES: [State; 7] = [
    State::Idle,
    State::Open,
    State::HalfLocal,
    State::HalfRemote,
    State::Ended,
    State::ResetByUs,
    State::ResetByPeer,
];

/// Every event, in the order of their numbers.
pub const EVENTS: [Event; 11] = [
    Event::RecvHead,
    Event::RecvHeadEnd,
    Event::RecvData,
    Event::RecvDataEnd,
    Event::RecvReset,
    Event::RecvWindow,
    Event::SendHead,
    Event::SendHeadEnd,
    Event::SendData,
    Event::SendDataEnd,
    Event::SendReset,
];

use Event as E;
use State as S;

type Next = Result<State, Fault>;

const PROTOCOL: Next = Err(Fault::Connection(Reason::PROTOCOL_ERROR));
/// It is a fault of the connection: the peer has ended the stream itself.
const CLOSED: Next = Err(Fault::Connection(Reason::STREAM_CLOSED));
const STREAM_CLOSED: Next = Err(Fault::Stream(Reason::STREAM_CLOSED));
const IGNORE: Next = Err(Fault::Ignore);
const OURS: Next = Err(Fault::Ours);

/// The rows are in the order of [`STATES`], the columns in that of [`EVENTS`].
#[rustfmt::skip]
static NEXT: [[Next; EVENTS.len()]; STATES.len()] = [
    // Idle: a head opens it; anything else on it is a fault of the connection.
    [Ok(S::Open), Ok(S::HalfRemote), PROTOCOL, PROTOCOL, PROTOCOL, PROTOCOL,
     Ok(S::Open), Ok(S::HalfLocal), OURS, OURS, OURS],
    // Open
    [Ok(S::Open), Ok(S::HalfRemote), Ok(S::Open), Ok(S::HalfRemote), Ok(S::ResetByPeer), Ok(S::Open),
     Ok(S::Open), Ok(S::HalfLocal), Ok(S::Open), Ok(S::HalfLocal), Ok(S::ResetByUs)],
    // HalfLocal
    [Ok(S::HalfLocal), Ok(S::Ended), Ok(S::HalfLocal), Ok(S::Ended), Ok(S::ResetByPeer), Ok(S::HalfLocal),
     OURS, OURS, OURS, OURS, Ok(S::ResetByUs)],
    // HalfRemote: the peer may still reset it and open its window.
    [STREAM_CLOSED, STREAM_CLOSED, STREAM_CLOSED, STREAM_CLOSED, Ok(S::ResetByPeer), Ok(S::HalfRemote),
     Ok(S::HalfRemote), Ok(S::Ended), Ok(S::HalfRemote), Ok(S::Ended), Ok(S::ResetByUs)],
    // Ended: resets and window updates may have crossed our end.
    [CLOSED, CLOSED, CLOSED, CLOSED, IGNORE, IGNORE, OURS, OURS, OURS, OURS, OURS],
    // ResetByUs: anything may have crossed our reset; behind a reset of its own the peer has no excuse.
    [IGNORE, IGNORE, IGNORE, IGNORE, Ok(S::ResetByPeer), IGNORE, OURS, OURS, OURS, OURS, OURS],
    // ResetByPeer: whoever resets a stream sends no more on it.
    [CLOSED, CLOSED, STREAM_CLOSED, STREAM_CLOSED, IGNORE, IGNORE, OURS, OURS, OURS, OURS, OURS],
];

impl State {
    /// What the stream becomes by an event.
    ///
    /// # Errors
    /// If it may not happen in this state.
    pub fn next(self, event: Event) -> Result<Self, Fault> {
        NEXT[self as usize][event as usize]
    }

    /// Nothing more is sent on it by either side.
    #[must_use]
    pub fn is_closed(self) -> bool {
        matches!(self, S::Ended | S::ResetByUs | S::ResetByPeer)
    }

    /// We may send on it.
    #[must_use]
    pub fn may_send(self) -> bool {
        self.next(E::SendData).is_ok()
    }

    /// The peer may send on it.
    #[must_use]
    pub fn may_receive(self) -> bool {
        matches!(self, S::Open | S::HalfLocal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// `UPDATE_SNAPSHOTS=1` writes `testdata/h2-machine.txt` anew.
    #[test]
    fn every_transition_is_the_one_in_testdata() {
        let mut table = String::from("# state event -> state, or what it is a fault of\n");
        for state in STATES {
            for event in EVENTS {
                let then = match state.next(event) {
                    Ok(state) => format!("{state:?}"),
                    Err(fault) => format!("{fault:?}"),
                };
                writeln!(table, "{state:?} {event:?} -> {then}").expect("a string");
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/h2-machine.txt");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(path, &table).expect("writable");
        }
        assert_eq!(std::fs::read_to_string(path).expect("the snapshot"), table);
    }

    #[test]
    fn numbers_are_places() {
        assert!(STATES.iter().enumerate().all(|(n, state)| *state as usize == n));
        assert!(EVENTS.iter().enumerate().all(|(n, event)| *event as usize == n));
    }
}
