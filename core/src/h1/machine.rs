//! What may follow what on an HTTP/1.1 connection: every transition, for both sides, in one place. It does
//! not depend on which side the proxy is: the server to its clients, the client of its backends.
//!
//! ```text
//!   client                                    server
//!
//!   Idle ──Head, HeadUpgrade──▶ Body          Idle ──(client has a head)──▶ Due ◀─┐
//!                                │             │                            │ │   │ Interim
//!                               End            └──Head (error, unasked)─┐   │ └───┘
//!                                ▼                                     ▼   │
//!   Idle ◀──Next (both Done)── Done           Idle ◀──Next── Done ◀─End─ Body ◀─Head─┤
//!                                │                                                  │
//!          (asked to upgrade)    │                                                Switch
//!                                ▼                                                  ▼
//!   Switched ◀─(server)── MightSwitch                                           Switched
//!                 └──(server: final response)──▶ Done
//!
//!   Done ──(no keep-alive, or the other side is finished)──▶ MustClose ──Close──▶ Closed
//!   any ──Fail, or Close with a message unfinished──▶ Error
//! ```
//!
//! Arrows in brackets follow from the state of the other side (`JOINT`); the others are what a side does by
//! itself (`ALONE`).

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sends requests.
    Client,
    /// Sends responses.
    Server,
}

/// The state of a side.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has sent nothing of this exchange. The server: nor has the client.
    Idle,
    /// Server only: a request has begun and its final response has not; interim ones may have.
    Due,
    /// Its head was sent, its message has not ended.
    Body,
    /// Its message has ended.
    Done,
    /// Client only: its message has ended, and what follows depends on the response to its `Upgrade`.
    MightSwitch,
    /// It speaks another protocol.
    Switched,
    /// Its message has ended, and nothing may follow but the end of the connection.
    MustClose,
    /// It has closed its direction.
    Closed,
    /// It broke a rule, or its connection ended too early.
    Error,
}

/// Something that a side did.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Client: the head of a request. Server: the head of a final response.
    Head,
    /// Client: the head of a request that asks for an upgrade.
    HeadUpgrade,
    /// Server: an interim response, 1xx other than 101.
    Interim,
    /// Server: a 101. Only if the client asked for it.
    Switch,
    /// Its message has ended, also one without content. With content that ends with the connection this comes
    /// before [`Event::Close`].
    End,
    /// It announced that the connection ends with this exchange, or its content ends with the connection.
    NoKeepAlive,
    /// The next exchange begins; for either side, once [`MessageStates::is_reusable`].
    Next,
    /// It closed its direction.
    Close,
    /// It broke a rule or its connection broke.
    Fail,
}

/// An event that the state of its side does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalEvent {
    /// The side that it came from.
    pub side: Side,
    /// The state that the side was in, and is still in.
    pub state: State,
    /// The event.
    pub event: Event,
}

impl std::error::Error for IllegalEvent {}

impl std::fmt::Display for IllegalEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of the {:?} in state {:?}", self.event, self.side, self.state)
    }
}

use Event as E;
use Side::{Client, Server};
use State as S;

const STATES: usize = 9;
const EVENTS: usize = 9;

/// What a side does by itself. `Next`, `NoKeepAlive` and `Fail` do not depend on the state, see
/// [`MessageStates::apply`].
const ALONE: &[(Side, State, Event, State)] = &[
    (Client, S::Idle, E::Head, S::Body),
    (Client, S::Idle, E::HeadUpgrade, S::Body),
    (Client, S::Idle, E::Close, S::Closed),
    (Client, S::Body, E::End, S::Done),
    (Client, S::Body, E::Close, S::Error),
    // Half-closed after its request: it still gets its response.
    (Client, S::Done, E::Close, S::Closed),
    (Client, S::MightSwitch, E::Close, S::Closed),
    (Client, S::Switched, E::Close, S::Closed),
    (Client, S::MustClose, E::Close, S::Closed),
    (Client, S::Closed, E::Close, S::Closed),
    (Client, S::Error, E::Close, S::Error),
    // An error in response to bytes that never became a request: 400, 408, 431.
    (Server, S::Idle, E::Head, S::Body),
    (Server, S::Idle, E::Close, S::Closed),
    (Server, S::Due, E::Interim, S::Due),
    (Server, S::Due, E::Switch, S::Switched),
    (Server, S::Due, E::Head, S::Body),
    (Server, S::Due, E::Close, S::Error),
    (Server, S::Body, E::End, S::Done),
    (Server, S::Body, E::Close, S::Error),
    (Server, S::Done, E::Close, S::Closed),
    (Server, S::Switched, E::Close, S::Closed),
    (Server, S::MustClose, E::Close, S::Closed),
    (Server, S::Closed, E::Close, S::Closed),
    (Server, S::Error, E::Close, S::Error),
];

/// A rule about both sides: their states, and the state that one of them changes to. Applied until none fits.
struct Joint {
    client: &'static [State],
    server: &'static [State],
    /// Applies only if the client asked for an upgrade.
    proposed: bool,
    /// Applies only if the connection ends with this exchange.
    closing: bool,
    then: (Side, State),
}

/// States in which a side sends nothing more on this connection.
const FINISHED: &[State] = &[S::MustClose, S::Closed, S::Error];
const ANY: &[State] =
    &[S::Idle, S::Due, S::Body, S::Done, S::MightSwitch, S::Switched, S::MustClose, S::Closed, S::Error];
/// States in which a final response other than 101 has begun.
const RESPONDED: &[State] = &[S::Body, S::Done, S::MustClose, S::Closed, S::Error];

const JOINT: &[Joint] = &[
    // A request has begun: its response is due.
    Joint { client: &[S::Body], server: &[S::Idle], proposed: false, closing: false, then: (Server, S::Due) },
    // The request has ended, but which protocol the client speaks next is the server's decision
    // (RFC 9110 §7.8).
    Joint {
        client: &[S::Done],
        server: &[S::Due, S::Switched],
        proposed: true,
        closing: false,
        then: (Client, S::MightSwitch),
    },
    // The client speaks the other protocol only once its request has ended.
    Joint {
        client: &[S::MightSwitch],
        server: &[S::Switched],
        proposed: false,
        closing: false,
        then: (Client, S::Switched),
    },
    // A final response refuses the upgrade.
    Joint {
        client: &[S::MightSwitch],
        server: RESPONDED,
        proposed: false,
        closing: false,
        then: (Client, S::Done),
    },
    // No keep-alive: a side whose message has ended sends no other (RFC 9112 §9.6).
    Joint { client: &[S::Done], server: ANY, proposed: false, closing: true, then: (Client, S::MustClose) },
    Joint { client: ANY, server: &[S::Done], proposed: false, closing: true, then: (Server, S::MustClose) },
    // One side sends nothing more: the other has nothing to wait for once its message has ended.
    Joint {
        client: &[S::Done],
        server: FINISHED,
        proposed: false,
        closing: false,
        then: (Client, S::MustClose),
    },
    Joint {
        client: FINISHED,
        server: &[S::Done],
        proposed: false,
        closing: false,
        then: (Server, S::MustClose),
    },
    // The server responded without a request, or closed: no request may follow, or the response would be
    // taken for its own.
    Joint {
        client: &[S::Idle],
        server: RESPONDED,
        proposed: false,
        closing: false,
        then: (Client, S::MustClose),
    },
    // A client that failed still gets an error response; one that closed does not.
    Joint {
        client: &[S::MustClose, S::Closed],
        server: &[S::Idle],
        proposed: false,
        closing: false,
        then: (Server, S::MustClose),
    },
];

/// [`ALONE`], looked up by side, state and event.
static TABLE: [[[Option<State>; EVENTS]; STATES]; 2] = {
    let mut table = [[[None; EVENTS]; STATES]; 2];
    let mut i = 0;
    while i < ALONE.len() {
        let (side, state, event, then) = ALONE[i];
        table[side as usize][state as usize][event as usize] = Some(then);
        i += 1;
    }
    table
};

const fn bit(state: State) -> u16 {
    1 << state as u16
}

const fn bits(states: &[State]) -> u16 {
    let mut set = 0;
    let mut i = 0;
    while i < states.len() {
        set |= bit(states[i]);
        i += 1;
    }
    set
}

const fn settle(mut client: State, mut server: State, proposed: bool, closing: bool) -> (State, State) {
    let mut i = 0;
    while i < JOINT.len() {
        let rule = &JOINT[i];
        // With a final response the upgrade is decided.
        let proposed = proposed && bits(RESPONDED) & bit(server) == 0;
        let fits = bits(rule.client) & bit(client) != 0
            && bits(rule.server) & bit(server) != 0
            && (proposed || !rule.proposed)
            && (closing || !rule.closing);
        if fits {
            match rule.then {
                (Client, state) => client = state,
                (Server, state) => server = state,
            }
            i = 0;
        } else {
            i += 1;
        }
    }
    (client, server)
}

/// The states of both sides of one connection: one number, by which `NEXT` is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MessageStates(u16);

/// The client asked for an upgrade and has no final response yet.
const PROPOSED: u16 = 1;
/// The connection ends with this exchange.
const CLOSING: u16 = 2;
/// Where the state of the server begins; it has four bits.
const SERVER_SHIFT: u32 = 2;
/// Where the state of the client begins.
const CLIENT_SHIFT: u32 = 6;
/// Every number of [`MessageStates`] is below this one.
const NUMBERS: usize = STATES << CLIENT_SHIFT;
/// In [`NEXT`]: the state does not allow the event.
const REFUSED: u16 = u16::MAX;

/// For each side, event and [`MessageStates`], what they change to.
static NEXT: [[[u16; NUMBERS]; EVENTS]; 2] = {
    let mut table = [[[REFUSED; NUMBERS]; EVENTS]; 2];
    let mut c = 0;
    while c < STATES {
        let mut s = 0;
        while s < STATES {
            let mut flags = 0;
            while flags < 4 {
                let before = MessageStates::from_parts(ANY[c], ANY[s], flags);
                let mut e = 0;
                while e < EVENTS {
                    table[Client as usize][e][before.0 as usize] = next(before, Client, ALL_EVENTS[e]);
                    table[Server as usize][e][before.0 as usize] = next(before, Server, ALL_EVENTS[e]);
                    e += 1;
                }
                flags += 1;
            }
            s += 1;
        }
        c += 1;
    }
    table
};

const ALL_EVENTS: [Event; EVENTS] =
    [E::Head, E::HeadUpgrade, E::Interim, E::Switch, E::End, E::NoKeepAlive, E::Next, E::Close, E::Fail];

/// An entry of [`NEXT`].
const fn next(before: MessageStates, side: Side, event: Event) -> u16 {
    let proposed = before.0 & PROPOSED != 0;
    let closing = before.0 & CLOSING != 0;
    let state = before.state(side);
    let then = match event {
        E::Next if before.is_reusable() => return MessageStates::new().0,
        E::Next => return REFUSED,
        E::Switch if !proposed => return REFUSED,
        E::NoKeepAlive => state,
        E::Fail => S::Error,
        _ => match TABLE[side as usize][state as usize][event as usize] {
            Some(then) => then,
            None => return REFUSED,
        },
    };
    let (client, server) = match side {
        Client => (then, before.state(Server)),
        Server => (before.state(Client), then),
    };
    let closing = closing || matches!(event, E::NoKeepAlive);
    let proposed = proposed || matches!(event, E::HeadUpgrade);
    let (client, server) = settle(client, server, proposed, closing);
    let mut flags = 0;
    if closing {
        flags |= CLOSING;
    }
    if proposed && bits(RESPONDED) & bit(server) == 0 {
        flags |= PROPOSED;
    }
    MessageStates::from_parts(client, server, flags).0
}

impl MessageStates {
    /// The states on a new connection.
    #[must_use]
    pub const fn new() -> Self {
        Self::from_parts(S::Idle, S::Idle, 0)
    }

    const fn from_parts(client: State, server: State, flags: u16) -> Self {
        Self((client as u16) << CLIENT_SHIFT | (server as u16) << SERVER_SHIFT | flags)
    }

    /// Applies what a side did.
    ///
    /// # Errors
    /// An event that the state does not allow; it changes nothing.
    // Side and event are constants wherever this is called: inlined, little of it is left.
    #[inline(always)]
    pub fn apply(&mut self, side: Side, event: Event) -> Result<(), IllegalEvent> {
        match NEXT[side as usize][event as usize].get(usize::from(self.0)) {
            Some(&next) if next != REFUSED => {
                self.0 = next;
                Ok(())
            }
            _ => Err(IllegalEvent { side, state: self.state(side), event }),
        }
    }

    /// The head of a final response that was written will not be sent after all: a response is due again.
    /// False if none was written.
    pub(crate) fn withdraw_response(&mut self) -> bool {
        let written = self.state(Server) == S::Body;
        if written {
            *self = Self::from_parts(self.state(Client), S::Due, self.0 & (CLOSING | PROPOSED));
        }
        written
    }

    /// Where a side is.
    #[inline]
    #[must_use]
    pub const fn state(self, side: Side) -> State {
        let shift = match side {
            Client => CLIENT_SHIFT,
            Server => SERVER_SHIFT,
        };
        ANY[(self.0 >> shift & 0xf) as usize]
    }

    /// Whether both sides are in this state.
    const fn are_both(self, state: State) -> bool {
        self.0 & !(CLOSING | PROPOSED) == Self::from_parts(state, state, 0).0
    }

    /// Whether the next request may be read from a client or sent to a backend.
    #[inline]
    #[must_use]
    pub const fn may_request(self) -> bool {
        self.are_both(S::Idle)
    }

    /// Whether both messages have ended and another exchange may follow: then apply [`Event::Next`].
    #[inline]
    #[must_use]
    pub const fn is_reusable(self) -> bool {
        self.are_both(S::Done)
    }

    /// Whether a side speaks another protocol, so that its bytes are passed on as they are. The client does
    /// so once its request has ended.
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        matches!(self.state(Server), S::Switched) || matches!(self.state(Client), S::Switched)
    }
}

impl std::fmt::Debug for MessageStates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageStates")
            .field("client", &self.state(Client))
            .field("server", &self.state(Server))
            .field("closing", &(self.0 & CLOSING != 0))
            .field("proposed", &(self.0 & PROPOSED != 0))
            .finish()
    }
}

impl Default for MessageStates {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
