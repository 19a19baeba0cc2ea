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

/// For each pair of states and both flags, the states once no rule of [`JOINT`] fits any more.
static SETTLED: [[[(State, State); 4]; STATES]; STATES] = {
    let mut table = [[[(S::Idle, S::Idle); 4]; STATES]; STATES];
    let mut c = 0;
    while c < STATES {
        let mut s = 0;
        while s < STATES {
            let mut flags = 0;
            while flags < 4 {
                table[c][s][flags] = settle(ANY[c], ANY[s], flags & 1 != 0, flags & 2 != 0);
                flags += 1;
            }
            s += 1;
        }
        c += 1;
    }
    table
};

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

/// The states of both sides of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageStates {
    client: State,
    server: State,
    /// The connection ends with this exchange.
    closing: bool,
    /// The client asked for an upgrade and has no final response yet.
    proposed: bool,
}

impl MessageStates {
    /// The states on a new connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { client: S::Idle, server: S::Idle, closing: false, proposed: false }
    }

    /// Applies what a side did.
    ///
    /// # Errors
    /// An event that the state does not allow; it changes nothing.
    // Side and event are constants wherever this is called: inlined, little of it is left.
    #[inline(always)]
    pub fn apply(&mut self, side: Side, event: Event) -> Result<(), IllegalEvent> {
        let state = self.state(side);
        let broken = IllegalEvent { side, state, event };
        let then = match event {
            E::Next if self.is_reusable() => {
                *self = Self::new();
                return Ok(());
            }
            E::Next => return Err(broken),
            E::Switch if !self.proposed => return Err(broken),
            E::NoKeepAlive => state,
            E::Fail => S::Error,
            _ => TABLE[side as usize][state as usize][event as usize].ok_or(broken)?,
        };
        match side {
            Client => self.client = then,
            Server => self.server = then,
        }
        self.closing |= event as u8 == E::NoKeepAlive as u8;
        self.proposed |= event as u8 == E::HeadUpgrade as u8;
        let flags = usize::from(self.proposed) | usize::from(self.closing) << 1;
        (self.client, self.server) = SETTLED[self.client as usize][self.server as usize][flags];
        self.proposed &= bits(RESPONDED) & bit(self.server) == 0;
        Ok(())
    }

    /// The state of a side.
    #[must_use]
    pub const fn state(self, side: Side) -> State {
        match side {
            Client => self.client,
            Server => self.server,
        }
    }

    /// Whether the next request may be read from a client or sent to a backend.
    #[must_use]
    pub const fn may_request(self) -> bool {
        matches!((self.client, self.server), (S::Idle, S::Idle))
    }

    /// Whether both messages have ended and another exchange may follow: then apply [`Event::Next`].
    #[must_use]
    pub const fn is_reusable(self) -> bool {
        matches!((self.client, self.server), (S::Done, S::Done))
    }

    /// Whether a side speaks another protocol, so that its bytes are passed on as they are. The client does
    /// so once its request has ended.
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        matches!(self.server, S::Switched) || matches!(self.client, S::Switched)
    }
}

impl Default for MessageStates {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{ANY, Client, E, Event, IllegalEvent, MessageStates, S, Server, Side, State};
    use std::fmt::Write;

    const EVENTS: [Event; super::EVENTS] =
        [E::Head, E::HeadUpgrade, E::Interim, E::Switch, E::End, E::NoKeepAlive, E::Next, E::Close, E::Fail];

    fn name(m: MessageStates) -> String {
        let flags = [(m.closing, " closing"), (m.proposed, " proposed")];
        let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        format!("{:?}/{:?}{flags}", m.client, m.server)
    }

    /// Every side, state and event by itself, then every pair of states that can be reached and what each
    /// event changes it to.
    fn snapshot() -> String {
        let mut text = String::from("# side state event -> state, with the other side out of the way\n");
        for side in [Client, Server] {
            for state in ANY {
                for event in EVENTS {
                    let then = super::TABLE[side as usize][*state as usize][event as usize];
                    let then = match event {
                        E::Fail => "Error".to_owned(),
                        E::NoKeepAlive => format!("{state:?}"),
                        E::Next => if *state == S::Done { "Idle" } else { "-" }.to_owned(),
                        _ => then.map_or("-".to_owned(), |s| format!("{s:?}")),
                    };
                    writeln!(text, "{side:?} {state:?} {event:?} -> {then}").unwrap();
                }
            }
        }
        text.push_str("\n# client/server: side event -> client/server; what is not listed is refused\n");
        let mut reached = vec![MessageStates::new()];
        let mut next = 0;
        while next < reached.len() {
            let before = reached[next];
            next += 1;
            writeln!(text, "{}", name(before)).unwrap();
            for side in [Client, Server] {
                for event in EVENTS {
                    let mut after = before;
                    match after.apply(side, event) {
                        Ok(()) => {
                            writeln!(text, "  {side:?} {event:?} -> {}", name(after)).unwrap();
                            if !reached.contains(&after) {
                                reached.push(after);
                            }
                        }
                        Err(broken) => {
                            assert_eq!(after, before, "what is refused changes nothing");
                            assert_eq!(broken, IllegalEvent { side, state: before.state(side), event });
                        }
                    }
                }
            }
        }
        text
    }

    #[test]
    fn every_transition_is_as_written_down() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/h1-machine.txt");
        let found = snapshot();
        if option_env!("RUSTSTROM_REWRITE").is_some() {
            std::fs::write(path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(path).unwrap();
        for (n, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
            assert_eq!(found, expected, "line {}; rebuild with RUSTSTROM_REWRITE=1 to accept", n + 1);
        }
        assert_eq!(found, expected);
    }

    type Steps<'a> = &'a [(Side, Event)];

    fn run(events: Steps<'_>) -> MessageStates {
        let mut m = MessageStates::new();
        for &(side, event) in events {
            m.apply(side, event).unwrap_or_else(|broken| panic!("{events:?}: {broken:?}"));
        }
        m
    }

    #[test]
    fn sequences() {
        let (c, s) = (Client, Server);
        let table: &[(&str, Steps, State, State)] = &[
            ("plain", &[(c, E::Head), (c, E::End), (s, E::Head), (s, E::End)], S::Done, S::Done),
            ("early response", &[(c, E::Head), (s, E::Head), (s, E::End)], S::Body, S::Done),
            (
                "early response, then the rest",
                &[(c, E::Head), (s, E::Head), (s, E::End), (c, E::End)],
                S::Done,
                S::Done,
            ),
            (
                "again",
                &[(c, E::Head), (c, E::End), (s, E::Head), (s, E::End), (c, E::Next)],
                S::Idle,
                S::Idle,
            ),
            (
                "interim",
                &[(c, E::Head), (s, E::Interim), (s, E::Interim), (c, E::End), (s, E::Head)],
                S::Done,
                S::Body,
            ),
            (
                "close",
                &[(c, E::Head), (c, E::NoKeepAlive), (c, E::End), (s, E::Head), (s, E::End)],
                S::MustClose,
                S::MustClose,
            ),
            (
                "server closes",
                &[(c, E::Head), (c, E::End), (s, E::Head), (s, E::NoKeepAlive), (s, E::End)],
                S::MustClose,
                S::MustClose,
            ),
            (
                "half-close",
                &[(c, E::Head), (c, E::End), (c, E::Close), (s, E::Head), (s, E::End)],
                S::Closed,
                S::MustClose,
            ),
            ("bad request", &[(c, E::Fail), (s, E::Head), (s, E::End)], S::Error, S::MustClose),
            ("error response while idle", &[(s, E::Head), (s, E::End)], S::MustClose, S::MustClose),
            (
                "last one of a drain",
                &[(s, E::NoKeepAlive), (c, E::Head), (c, E::End), (s, E::Head), (s, E::End)],
                S::MustClose,
                S::MustClose,
            ),
            ("closed idle", &[(c, E::Close)], S::Closed, S::MustClose),
            ("backend closed idle", &[(s, E::Close)], S::MustClose, S::Closed),
            (
                "truncated response",
                &[(c, E::Head), (c, E::End), (s, E::Head), (s, E::Close)],
                S::MustClose,
                S::Error,
            ),
            ("upgrade", &[(c, E::HeadUpgrade), (c, E::End)], S::MightSwitch, S::Due),
            ("upgraded", &[(c, E::HeadUpgrade), (c, E::End), (s, E::Switch)], S::Switched, S::Switched),
            ("upgraded early", &[(c, E::HeadUpgrade), (s, E::Switch)], S::Body, S::Switched),
            (
                "upgraded early, then the rest",
                &[(c, E::HeadUpgrade), (s, E::Switch), (c, E::End)],
                S::Switched,
                S::Switched,
            ),
            (
                "interim, then upgraded",
                &[(c, E::HeadUpgrade), (c, E::End), (s, E::Interim), (s, E::Switch)],
                S::Switched,
                S::Switched,
            ),
            (
                "upgrade refused",
                &[(c, E::HeadUpgrade), (c, E::End), (s, E::Head), (s, E::End)],
                S::Done,
                S::Done,
            ),
            (
                "upgrade refused early",
                &[(c, E::HeadUpgrade), (s, E::Head), (c, E::End), (s, E::End)],
                S::Done,
                S::Done,
            ),
            (
                "upgrade with close",
                &[(c, E::HeadUpgrade), (c, E::NoKeepAlive), (c, E::End)],
                S::MightSwitch,
                S::Due,
            ),
            (
                "tunnel half-closed",
                &[(c, E::HeadUpgrade), (c, E::End), (s, E::Switch), (c, E::Close)],
                S::Closed,
                S::Switched,
            ),
        ];
        for (what, events, client, server) in table {
            let m = run(events);
            assert_eq!((m.client, m.server), (*client, *server), "{what}");
        }
    }

    #[test]
    fn refusals() {
        let (c, s) = (Client, Server);
        // The events so far, and an event that is not allowed then.
        let table: &[(Steps, Side, Event)] = &[
            (&[], s, E::Switch),
            (&[], s, E::Interim),
            (&[], s, E::End),
            (&[], c, E::End),
            (&[], c, E::Next),
            (&[(c, E::Head)], c, E::Head),
            (&[(c, E::Head), (c, E::End)], c, E::Head),
            (&[(c, E::Head), (c, E::End)], s, E::Switch),
            (&[(c, E::Head), (c, E::End)], c, E::Next),
            (&[(c, E::Head), (s, E::Head)], s, E::Head),
            (&[(c, E::Head), (s, E::Head)], s, E::Interim),
            (&[(c, E::HeadUpgrade), (s, E::Head)], s, E::Switch),
            (&[(c, E::HeadUpgrade), (c, E::End)], c, E::Head),
            (&[(c, E::HeadUpgrade), (c, E::End), (s, E::Switch)], s, E::Head),
            (&[(c, E::Head), (c, E::NoKeepAlive), (c, E::End), (s, E::Head), (s, E::End)], c, E::Next),
            (&[(c, E::Close)], s, E::Head),
            (&[(s, E::Head)], c, E::Head),
            (&[(s, E::Head), (s, E::End)], c, E::Head),
        ];
        for (events, side, event) in table {
            assert!(run(events).apply(*side, *event).is_err(), "{events:?} {side:?} {event:?}");
        }
    }

    #[test]
    fn the_states_are_small() {
        assert!(size_of::<MessageStates>() <= 4);
    }
}
