//! What may follow what on an HTTP/1.1 connection: every transition, for both sides, in one place.

/// Who: `Client` asks, `Server` answers. We are the server to our clients and the client of our backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sends requests.
    Client,
    /// Sends answers.
    Server,
}

/// Where a side is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing of this exchange was sent. For the server: no request yet either.
    Idle,
    /// Server only: a request is there, its answer is due (interim ones may have gone).
    Due,
    /// The head has gone, content follows.
    Body,
    /// Its message is over.
    Done,
    /// Client only: its message is over, and what follows depends on the answer to its `Upgrade`.
    MightSwitch,
    /// Speaks another protocol.
    Switched,
    /// Its message is over and nothing may follow but the end of the connection.
    MustClose,
    /// It has closed.
    Closed,
    /// It broke the rules or was cut.
    Error,
}

/// What a side did.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Client: the head of a request. Server: the head of a final answer.
    Head,
    /// Client: the head of a request that asks for an upgrade.
    HeadUpgrade,
    /// Server: a 1xx other than 101.
    Interim,
    /// Server: a 101.
    Switch,
    /// Its message is over.
    End,
    /// It said that the connection ends with this exchange, or its content ends with the connection.
    NoKeepAlive,
    /// The next exchange begins.
    Next,
    /// It closed its direction.
    Close,
    /// It broke a rule or its connection broke.
    Fail,
}

/// An event that this state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Who.
    pub side: Side,
    /// Where it was.
    pub state: State,
    /// What it did.
    pub event: Event,
}

/// Both sides of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    client: State,
    server: State,
    close: bool,
    proposed: bool,
}

impl Machine {
    /// A fresh connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { client: State::Idle, server: State::Idle, close: false, proposed: false }
    }

    /// A side did something. An event that is not allowed changes nothing.
    pub fn apply(&mut self, _side: Side, _event: Event) -> Result<(), Broken> {
        todo!()
    }

    /// Where a side is.
    #[must_use]
    pub const fn state(self, side: Side) -> State {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    /// Whether the next request may be read (or, to a backend, sent).
    #[must_use]
    pub fn may_request(self) -> bool {
        todo!()
    }

    /// Whether both messages are over and another exchange may follow: call [`Event::Next`] on either side.
    #[must_use]
    pub fn is_reusable(self) -> bool {
        todo!()
    }

    /// Whether the connection has to end once what is on its way has gone.
    #[must_use]
    pub fn must_close(self) -> bool {
        todo!()
    }

    /// Whether both sides speak another protocol: bytes just pass.
    #[must_use]
    pub fn is_tunnel(self) -> bool {
        todo!()
    }

    /// Whether an answer is still due, or under way.
    #[must_use]
    pub fn answer_due(self) -> bool {
        todo!()
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}
