//! One connection of HTTP/2, as a server to a client or as a client of a backend. It owns its buffers: bytes
//! go in by [`Conn::recv_buf`] and [`Conn::handle_recv`] and come out as [`Event`]s; what is sent to streams
//! becomes the bytes of [`Conn::transmit`].
//!
//! Nothing in it grows without bound: not the input (one frame), the field block that is put together, the
//! data of a stream that nobody has released, what waits to be sent, or the streams.

use std::cell::Cell;
use std::collections::VecDeque;

use super::abuse::{Abuse, Budgets, UsedUp};
use super::flow::{RecvWindow, SendWindow};
use super::frame::{FrameReader, MAX_STREAM, MIN_MAX_FRAME_BYTES, PREFACE};
use super::head::{Asked, HeadRoom};
use super::hpack::{DEFAULT_TABLE_BYTES, Decoder, Encoder, FieldBlock};
use super::machine::{self, State};
use super::priority::Priority;
use super::reason::Reason;
use super::settings::{DEFAULT_WINDOW, PeerSettings, id};
use super::stream::{Held, Stream, Streams};
use super::write;
use crate::http::{RequestHead, ResponseHead, Violation};
use crate::planted::planted;
use crate::time::Instant;

mod buffers;
mod input;
mod leaving;
mod output;
mod repeated;

use buffers::Spare;
use leaving::Drain;
pub use output::BlockWriter;
use repeated::LastRequest;

/// What we are to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sends requests.
    Server,
    /// It sends responses.
    Client,
}

/// What we let the peer do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams that may be open at once.
    pub streams: u32,
    /// Bytes of one stream that may be under way to us.
    pub stream_window: u32,
    /// Bytes of all streams together; [`DEFAULT_WINDOW`] or more.
    pub connection_window: u32,
    /// The longest frame of the peer, in bytes; [`MIN_MAX_FRAME_BYTES`] or more.
    pub frame_bytes: u32,
    /// The dynamic table of what we receive, in bytes.
    pub header_table_bytes: u32,
    /// A field section, in bytes as RFC 9113 §6.5.2 counts them; up to 65 535.
    pub list_bytes: u32,
    /// Fields of a section.
    pub fields: u32,
    /// Bytes of a request's target.
    pub target_bytes: usize,
    /// A server takes extended CONNECT (RFC 8441).
    pub extended_connect: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 100,
            stream_window: 16 * 1024,
            connection_window: 1 << 20,
            frame_bytes: MIN_MAX_FRAME_BYTES,
            header_table_bytes: DEFAULT_TABLE_BYTES,
            list_bytes: 32 * 1024,
            fields: 100,
            target_bytes: 8 * 1024,
            extended_connect: true,
        }
    }
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request, in [`Received::request`]. `ended`: it is complete.
    Request {
        /// Its stream.
        stream: u32,
        /// Nothing follows.
        ended: bool,
    },
    /// A request that breaks a rule of HTTP, and is to be answered; or a response that does, whose stream is
    /// to be reset.
    Rejected {
        /// Its stream.
        stream: u32,
        /// The rule.
        violation: Violation,
        /// Nothing follows.
        ended: bool,
    },
    /// A response, interim or final, in [`Received::response`].
    Response {
        /// The stream of its request.
        stream: u32,
        /// Nothing follows.
        ended: bool,
    },
    /// Data: [`Conn::data`], until the next call of anything else. It is owed until [`Conn::release`].
    Data {
        /// Its stream.
        stream: u32,
    },
    /// The message is complete, with the trailers in [`Received::trailers`], or none.
    End {
        /// Its stream.
        stream: u32,
    },
    /// The stream is gone.
    Reset {
        /// Which.
        stream: u32,
        /// Why.
        reason: Reason,
        /// The peer says that it has not looked at the request: it may be sent again, whatever it is.
        unprocessed: bool,
    },
    /// A stream may take data again; 0: any of them.
    Writable {
        /// Which.
        stream: u32,
    },
    /// The peer takes no new streams.
    GoingAway,
    /// The connection is of no use any more. What is left to be sent says why.
    Broken(Reason),
}

/// Memory for what [`Conn::poll_event`] hands out, lent to one connection after the other.
#[derive(Debug, Default)]
pub struct Received {
    /// With [`Event::Request`].
    pub request: RequestHead,
    /// With [`Event::Response`].
    pub response: ResponseHead,
    /// With [`Event::End`]: field lines with an empty line behind them, or nothing.
    pub trailers: Vec<u8>,
    block: FieldBlock,
    room: HeadRoom,
    spare: Spare,
}

/// Bytes of data that are handed out of one stream before any are released: as many as fit into a page.
pub const STREAM_CREDIT: u32 = 16 * 1024;
/// See the file's head.
#[derive(Debug)]
pub struct Conn {
    role: Role,
    limits: Limits,
    reader: FrameReader,
    /// `at..end` has been received and not been understood.
    input: Vec<u8>,
    at: usize,
    end: usize,
    /// Where the data of the last event lies: in the input, or in `held`.
    data: Data,
    /// What is to be sent; the first `sent` bytes have been.
    out: Vec<u8>,
    sent: usize,
    /// Up to here it has been lent: a layer below may have a copy, so it never changes.
    lent: Cell<usize>,
    /// The last frame of a message in `out`: where it begins, and its stream.
    last_frame: Option<(usize, u32)>,
    streams: Streams,
    /// The highest stream that the peer has opened.
    last_peer: u32,
    /// The next stream that we open.
    next_own: u32,
    /// The highest stream that we have sent a head on.
    last_sent: u32,
    peer: PeerSettings,
    has_settings: bool,
    settings_acked: bool,
    /// A PING is under way that asks whether the peer is there.
    pinged: bool,
    decoder: Decoder,
    encoder: Encoder,
    block: Option<Assembly>,
    /// Of a client.
    last_request: Option<Box<LastRequest>>,
    /// Of the DATA frame that is under way nothing is handed out.
    dropping: bool,
    recv: RecvWindow,
    send: SendWindow,
    budgets: Budgets,
    /// Priorities of streams that have not been opened.
    early: VecDeque<(u32, Priority)>,
    /// Streams whose held data may be handed out.
    resumed: Vec<u32>,
    /// Bytes that streams hold and have not handed out.
    held_bytes: usize,
    pending: VecDeque<Event>,
    drain: Drain,
    /// The peer takes no streams above this one.
    peer_last: Option<u32>,
    /// What the peer speaks is not HTTP/2.
    foreign: bool,
    /// TLS is spoken below.
    secure: bool,
    failed: bool,
}

#[derive(Debug)]
enum Data {
    None,
    Input { from: usize, to: usize },
    Held(Vec<u8>),
}

/// A field block whose parts have not all come.
#[derive(Debug)]
struct Assembly {
    bytes: Vec<u8>,
    parts: u32,
    end_stream: bool,
    depends_on_itself: bool,
}

/// Frames without a budget of their own that may cross a reset of ours on their way: head, trailers or end,
/// reset, priority.
const CROSSING: u32 = 4;

/// Of [`Conn::ping`].
const KEEPALIVE_PING: [u8; 8] = *b"are you?";
/// What an answer of HTTP/1 begins with.
const HTTP1: &[u8] = b"HTTP/1.";

impl Conn {
    /// A new connection; our SETTINGS are to be sent.
    #[must_use]
    pub fn new(role: Role, limits: Limits, now: Instant) -> Self {
        let reader = match role {
            Role::Server => FrameReader::server(limits.frame_bytes),
            Role::Client => FrameReader::client(limits.frame_bytes),
        };
        let mut conn = Self {
            role,
            limits,
            reader,
            input: Vec::new(),
            at: 0,
            end: 0,
            data: Data::None,
            out: Vec::new(),
            sent: 0,
            lent: Cell::new(0),
            last_frame: None,
            streams: Streams::default(),
            last_peer: 0,
            next_own: if role == Role::Client { 1 } else { 2 },
            last_sent: 0,
            peer: PeerSettings::default(),
            has_settings: false,
            settings_acked: false,
            pinged: false,
            decoder: Decoder::new(),
            encoder: Encoder::default(),
            block: None,
            last_request: None,
            dropping: false,
            recv: RecvWindow::new(DEFAULT_WINDOW),
            send: SendWindow::new(DEFAULT_WINDOW),
            budgets: Budgets::new(now),
            early: VecDeque::new(),
            resumed: Vec::new(),
            held_bytes: 0,
            pending: VecDeque::new(),
            drain: Drain::No,
            peer_last: None,
            foreign: false,
            secure: false,
            failed: false,
        };
        conn.greet();
        conn
    }

    fn greet(&mut self) {
        if self.role == Role::Client {
            self.out.extend_from_slice(PREFACE);
        }
        let limits = self.limits;
        let mut settings = vec![
            (id::INITIAL_WINDOW_SIZE, limits.stream_window),
            (id::MAX_HEADER_LIST_SIZE, limits.list_bytes),
        ];
        match self.role {
            Role::Server => {
                settings.push((id::MAX_CONCURRENT_STREAMS, limits.streams));
                settings.push((id::NO_RFC7540_PRIORITIES, 1));
                if limits.extended_connect {
                    settings.push((id::ENABLE_CONNECT_PROTOCOL, 1));
                }
            }
            Role::Client => settings.push((id::ENABLE_PUSH, 0)),
        }
        if limits.frame_bytes != MIN_MAX_FRAME_BYTES {
            settings.push((id::MAX_FRAME_SIZE, limits.frame_bytes));
        }
        if limits.header_table_bytes != DEFAULT_TABLE_BYTES {
            settings.push((id::HEADER_TABLE_SIZE, limits.header_table_bytes));
        }
        write::settings(&mut self.out, &settings);
    }

    /// The peer knows our settings. Only then may it send more in all than one that knows nothing of windows.
    fn settings_are_known(&mut self) {
        self.decoder.set_allowed(self.limits.header_table_bytes);
        for stream in self.streams.iter_mut() {
            stream.recv.resize(self.limits.stream_window);
            // Half of the window is less now than when the last data was released.
            if stream.state.may_receive()
                && let Some(more) = stream.recv.update()
            {
                write::window_update(&mut self.out, stream.id, more);
            }
        }
        self.recv.grow(self.limits.connection_window.saturating_sub(DEFAULT_WINDOW));
        self.release_connection(0);
    }

    // Receiving.

    /// Whether there are events that wait for no input: data that was held can be handed out now.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.pending.is_empty() || !self.resumed.is_empty()
    }

    /// The data of the last event, if that was [`Event::Data`].
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match &self.data {
            Data::None => &[],
            Data::Input { from, to } => &self.input[*from..*to],
            Data::Held(bytes) => bytes,
        }
    }

    /// `bytes` of a stream's data are needed no more: the peer may send as many again.
    pub fn release(&mut self, stream: u32, bytes: u32) {
        // Of one that has ended all was released at its end.
        let Some(found) = self.streams.get_mut(stream) else { return };
        debug_assert!(bytes <= found.handed, "no more than was handed out");
        found.handed = found.handed.saturating_sub(bytes);
        let holds = !found.held.is_empty() || found.held_end.is_some();
        self.give_back(stream, bytes);
        if holds && !self.resumed.contains(&stream) {
            self.resumed.push(stream);
        }
    }

    /// The peer may send so many bytes again, on the stream and in all.
    fn give_back(&mut self, stream: u32, bytes: u32) {
        if let Some(found) = self.streams.get_mut(stream) {
            found.recv.release(bytes);
            if (found.state.may_receive() || planted!(167))
                && !self.failed
                && let Some(more) = found.recv.update()
            {
                write::window_update(&mut self.out, stream, more);
            }
        }
        self.release_connection(bytes);
    }

    /// Bytes that the peer may send on a stream, as far as it has been told; 0: on all of them together.
    #[must_use]
    pub fn credit(&self, stream: u32) -> u32 {
        if stream == 0 {
            return self.recv.left();
        }
        self.streams.get(stream).map_or(0, |found| found.recv.left())
    }

    /// Data of the stream is under way: a frame of it has begun, which the peer needs no more credit for.
    #[must_use]
    pub fn is_receiving(&self, stream: u32) -> bool {
        self.reader.data_of() == Some(stream)
    }

    fn release_connection(&mut self, bytes: u32) {
        self.recv.release(bytes);
        // Nothing comes behind the last GOAWAY.
        if !self.failed
            && let Some(more) = self.recv.update_shared()
        {
            write::window_update(&mut self.out, 0, if planted!(163) { more + bytes } else { more });
        }
    }

    // Streams.

    /// Opens a stream to the peer, unless it has as many as it takes.
    pub fn open(&mut self) -> Option<u32> {
        let most = self.peer.max_streams.min(self.limits.streams) as usize;
        let closed = self.failed || self.peer_last.is_some() || self.drain != Drain::No;
        let most = most + usize::from(planted!(182));
        if closed || self.role == Role::Server || self.streams.len() >= most || self.next_own > MAX_STREAM {
            return None;
        }
        let stream = self.next_own;
        self.next_own += 2;
        self.streams.insert(self.new_stream(stream));
        Some(stream)
    }

    fn new_stream(&self, id: u32) -> Stream {
        // Whoever doesn't know our setting yet takes the window for the default one.
        let window = if self.settings_acked { self.limits.stream_window } else { DEFAULT_WINDOW };
        Stream {
            id,
            state: State::Idle,
            recv: RecvWindow::new(window),
            send: SendWindow::new(self.peer.initial_window),
            handed: 0,
            held: Held::default(),
            held_end: None,
            reset: None,
            length_left: None,
            has_head: false,
            asked: Asked::Other,
            priority: Priority::UNSAID,
        }
    }

    /// Ends a stream at once, in both directions.
    pub fn reset(&mut self, stream: u32, reason: Reason) {
        let Some(found) = self.streams.get(stream) else { return };
        if found.state.next(machine::Event::SendReset).is_ok() && !self.failed {
            write::reset(&mut self.out, stream, reason);
            // Until the peer knows, it goes on.
            self.budgets.allow(Abuse::Glitches, CROSSING);
        }
        self.remove(stream, State::ResetByUs);
    }

    /// A stream is over: what it holds is the connection's again.
    fn remove(&mut self, stream: u32, state: State) {
        if let Some(gone) = self.streams.remove(stream, state) {
            self.held_bytes -= gone.held.len();
            let forgets = match self.role {
                Role::Client => planted!(180),
                Role::Server => planted!(162),
            };
            let lost = (forgets || planted!(192) && gone.asked == Asked::Tunnel) && state != State::Ended;
            self.release_connection(if lost { 0 } else { gone.handed + gone.held.len() as u32 });
            self.resumed.retain(|id| *id != stream);
        }
    }

    /// Streams that are open.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Bytes that have come and wait in memory of the connection's own until more of their streams is
    /// released. They count against its window.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The stream that holds most of them.
    #[must_use]
    pub fn holds_most(&self) -> Option<u32> {
        let most = self.streams.iter().max_by_key(|stream| stream.held.len());
        most.filter(|stream| !stream.held.is_empty()).map(|stream| stream.id)
    }

    /// Asks the peer to show that it is there.
    pub fn ping(&mut self) {
        if !self.failed && !std::mem::replace(&mut self.pinged, true) {
            write::ping(&mut self.out, false, KEEPALIVE_PING);
        }
    }

    /// How urgent what is sent on a stream is.
    #[must_use]
    pub fn priority(&self, stream: u32) -> Priority {
        self.streams.get(stream).map_or(Priority::UNSAID, |stream| stream.priority)
    }

    /// Whether the peer lets us ask for extended CONNECT (RFC 8441), once its SETTINGS have come.
    #[must_use]
    pub fn may_connect(&self) -> Option<bool> {
        self.has_settings.then_some(self.peer.connect_protocol)
    }

    /// Requests on it are sent over TLS: their `:scheme` says so.
    #[must_use]
    pub fn over_tls(self) -> Self {
        Self { secure: true, ..self }
    }

    /// The `:scheme` of requests.
    #[must_use]
    pub fn scheme(&self) -> &'static [u8] {
        if self.secure { b"https" } else { b"http" }
    }

    // Whether the peer is there.

    /// How many streams the peer takes at once, if its SETTINGS have come.
    #[must_use]
    pub fn peer_streams(&self) -> Option<u32> {
        self.has_settings.then_some(self.peer.max_streams)
    }

    /// The peer has acknowledged our SETTINGS.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settings_acked
    }

    /// It has failed because the peer speaks something else than HTTP/2.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// It has failed: once what is to be sent has been, it can be closed.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.failed
    }

    /// The peer is given up: it is told why, and nothing more is read. What its streams hold is dropped.
    pub fn give_up(&mut self, reason: Reason) {
        if !self.failed {
            self.fail(reason);
        }
    }

    /// The peer broke the protocol: it is told, and nothing more is read.
    fn fail(&mut self, reason: Reason) -> Event {
        self.failed = true;
        self.foreign = !self.has_settings && self.input[..self.end].starts_with(HTTP1);
        // A last stream that was told before only becomes less (RFC 9113 §6.8).
        let last = if let Drain::Final(last) = self.drain { last } else { self.last_peer };
        write::go_away(&mut self.out, last, reason);
        self.pending.clear();
        self.resumed.clear();
        (self.at, self.end) = (0, 0);
        Event::Broken(reason)
    }

    /// Takes tokens of a budget.
    fn spend(&mut self, what: Abuse, now: Instant) -> Result<(), Reason> {
        self.budgets.take(what, 1, now).map_err(|UsedUp(_)| Reason::ENHANCE_YOUR_CALM)
    }

    /// Its invariants; for tests and debug builds.
    pub fn check(&self) {
        assert!(self.at <= self.end && self.end <= self.input.len().max(self.end));
        assert!(self.sent <= self.out.len());
        let held: u64 = self.streams.iter().map(|s| u64::from(s.handed) + s.held.len() as u64).sum();
        let waiting: usize = self.streams.iter().map(|s| s.held.len()).sum();
        assert_eq!(waiting, self.held_bytes, "bytes that are held are miscounted");
        assert!(held <= u64::from(self.recv.held()), "what is held counts against the connection's window");
        // Of a frame that is under way all has been counted at its beginning.
        if self.reader.data_of().is_none() && !self.failed {
            assert_eq!(held, u64::from(self.recv.held()), "credit of the connection is lost");
        }
        for stream in self.streams.iter() {
            assert!(stream.handed <= STREAM_CREDIT);
            assert!(stream.handed + stream.held.len() as u32 <= stream.recv.held());
        }
    }
}
