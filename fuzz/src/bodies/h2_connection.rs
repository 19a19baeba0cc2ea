//! One connection of HTTP/2, as a server and as a client, whose peer sends anything: bytes, frames of any
//! shape, and good ones, in any pieces. What it sends is held against the rules by [`FarEnd`]; what it hands
//! out, against what was sent to it: the same content, nothing behind an end, no more than may be. It has
//! no more in memory than it should, and the windows come out even. The whole input once more, cut elsewhere,
//! gives the same events.

use std::collections::BTreeMap;
use std::time::Duration;

use ruststrom_core::Instant;
use ruststrom_core::h2::conn::STREAM_CREDIT;
use ruststrom_core::h2::frame::PREFACE;
use ruststrom_core::h2::{Conn, Event, Limits, Reason, Received, Role};
use ruststrom_core::http::Framing;

use super::far_end::FarEnd;
use super::frames::Writer;
use super::input::{Input, cuts};

/// Bytes that a connection may have to send: as much as stops it from reading, and the answers to one input.
const MOST_OUT: usize = 160 * 1024;
/// Before our SETTINGS are known.
const FIRST_WINDOW: u32 = 65_535;

fn limits(choice: u8) -> Limits {
    let base = Limits { streams: 6, list_bytes: 4096, fields: 24, target_bytes: 256, ..Limits::default() };
    match choice % 4 {
        0 => base,
        1 => Limits { stream_window: 100, frame_bytes: 20_000, header_table_bytes: 0, ..base },
        2 => Limits { stream_window: 200_000, connection_window: 300_000, ..base },
        _ => Limits { connection_window: FIRST_WINDOW, header_table_bytes: 200, streams: 1, ..base },
    }
}

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let limits = limits(choice >> 1);
    let piece = [usize::MAX, 1, 7, 100][usize::from(choice >> 3) % 4];
    let mut world = World::new(role, limits, piece);
    if choice & 0x80 == 0 {
        world.begin();
    }
    let cut = input.byte();
    while !input.is_empty() && world.budget > 0 {
        world.step(&mut input);
        world.check();
    }
    world.settle();
    world.release_all();
    world.settle();
    assert_same_when_cut(role, limits, &world.told, cut);
}

/// A stream as whoever uses the connection knows it.
#[derive(Debug, Default)]
struct Message {
    /// Bytes of content that were handed out, and not yet released.
    got: usize,
    owed: u32,
    head: bool,
    length: Option<u64>,
    ended: bool,
    /// It has been reset by either side.
    gone: bool,
    sent_head: bool,
    sent_end: bool,
}

struct World {
    conn: Conn,
    role: Role,
    limits: Limits,
    received: Received,
    now: Instant,
    writer: Writer,
    far: FarEnd,
    /// On its way to the connection.
    wire: Vec<u8>,
    /// So much of it at once.
    piece: usize,
    /// All that the connection has got.
    told: Vec<u8>,
    /// What was lent by the last `transmit`, less what has been sent.
    lent: Vec<u8>,
    messages: BTreeMap<u32, Message>,
    broken: bool,
    budget: usize,
    polls: usize,
    steps: usize,
    base: u32,
    /// Bytes of heads that its user has sent, whatever waits.
    heads: usize,
}

impl World {
    fn new(role: Role, limits: Limits, piece: usize) -> Self {
        let now = Instant::from_millis(1000);
        Self {
            conn: Conn::new(role, limits, now),
            role,
            limits,
            received: Received::default(),
            now,
            writer: Writer::default(),
            far: FarEnd::of(role == Role::Server),
            wire: Vec::new(),
            piece,
            told: Vec::new(),
            lent: Vec::new(),
            messages: BTreeMap::new(),
            broken: false,
            budget: 120_000,
            polls: 0,
            steps: 0,
            base: 0,
            heads: 0,
        }
    }

    /// What every peer begins with.
    fn begin(&mut self) {
        if self.role == Role::Server {
            self.wire.extend_from_slice(PREFACE);
        }
        self.wire.extend_from_slice(b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0");
        self.writer.encoder.set_allowed(self.limits.header_table_bytes);
    }

    /// One of eight streams: after a while of eight others.
    fn stream(&self, choice: u8) -> u32 {
        2 * u32::from(choice % 8) + 1 + self.base
    }

    fn step(&mut self, input: &mut Input<'_>) {
        self.steps += 1;
        self.budget = self.budget.saturating_sub(20);
        let what = input.byte();
        let stream = self.stream(what >> 5);
        match what & 31 {
            0..=9 => {
                let before = self.wire.len();
                match what & 31 {
                    0 => self.wire.extend_from_slice(input.piece()),
                    n => self.writer.any(n, stream, self.role == Role::Server, input, &mut self.wire),
                }
                self.budget = self.budget.saturating_sub(self.wire.len() - before);
                self.feed();
            }
            10 => self.poll(1),
            11..=13 => self.poll(usize::MAX),
            14 => self.release(stream, u32::MAX),
            15 => self.release(stream, u32::from(input.byte())),
            16 | 17 => self.send_head(stream, input.byte()),
            18 | 19 => self.send_data(stream, usize::from(input.byte()) * 300),
            20 => self.send_end(stream, input.byte()),
            21 => {
                self.conn.reset(stream, Reason::CANCEL);
                self.forget(stream);
            }
            22 => self.sent(usize::from(input.byte()) * 64),
            23 => self.sent(usize::MAX),
            24 => self.now = self.now + Duration::from_millis(u64::from(input.byte()) * 20),
            25 => self.open(),
            26 => self.conn.drain(),
            27 => self.conn.ping(),
            28 if !self.conn.has_events() => {
                self.conn.rest(&mut self.received);
                self.conn.wake(&mut self.received);
            }
            29 => {
                self.settle();
                self.base += 16;
            }
            _ => self.release_all(),
        }
        self.look_at_output();
    }

    // Input.

    fn feed(&mut self) {
        let mut rounds = 0;
        while !self.wire.is_empty() && !self.broken {
            let room = self.conn.recv_buf();
            let n = room.len().min(self.wire.len()).min(self.piece);
            if n == 0 {
                rounds += 1;
                assert!(rounds < 1000, "it neither reads nor says why");
                self.poll(usize::MAX);
                self.sent(usize::MAX);
                continue;
            }
            room[..n].copy_from_slice(&self.wire[..n]);
            self.conn.handle_recv(n);
            self.far.tell(&self.wire[..n]);
            self.told.extend_from_slice(&self.wire[..n]);
            self.wire.drain(..n);
            if self.piece < 100 {
                self.poll(usize::MAX);
            }
        }
        self.wire.clear();
    }

    fn poll(&mut self, most: usize) {
        for _ in 0..most {
            self.polls += 1;
            assert!(self.polls <= 3 * self.told.len() + 100 * self.steps + 1000, "{} events", self.polls);
            let event = self.conn.poll_event(&mut self.received, self.now);
            self.conn.check();
            match event {
                Some(event) => self.event(event),
                None => return,
            }
        }
    }

    fn event(&mut self, event: Event) {
        assert!(!self.broken, "{event:?} behind the end of the connection");
        let server = self.role == Role::Server;
        match event {
            Event::Request { stream, ended } | Event::Rejected { stream, ended, .. } if server => {
                assert!(self.far.streams[&stream].asked && stream % 2 == 1);
                let mut message = Message { head: true, ended, ..Message::default() };
                if let (Event::Request { .. }, Framing::Length(n)) = (event, self.received.request.framing())
                {
                    message.length = Some(if ended { 0 } else { n });
                }
                assert!(self.messages.insert(stream, message).is_none(), "two requests on {stream}");
            }
            Event::Request { .. } => panic!("a client gets no requests"),
            // It may have been answered, and go on wrongly.
            Event::Rejected { stream, .. } => {
                assert!(!self.messages[&stream].gone, "{stream} is gone");
                self.conn.reset(stream, Reason::PROTOCOL_ERROR);
                self.forget(stream);
            }
            Event::Response { stream, ended } => {
                assert!(!server);
                let response = &self.received.response;
                let interim = response.status().is_informational();
                let framing = response.framing();
                let message = self.message(stream);
                assert!(!message.head, "a second response on {stream}");
                assert!(!interim || !ended, "an interim response ends nothing");
                (message.head, message.ended) = (!interim, ended);
                if let (false, Framing::Length(n)) = (ended, framing) {
                    message.length = Some(n);
                }
            }
            Event::Data { stream } => {
                let bytes = self.conn.data().to_vec();
                let content = &self.far.streams[&stream].content;
                let message = self.messages.get_mut(&stream).expect("a message");
                assert!(message.head && !message.ended && !message.gone, "data of {stream}: {message:?}");
                assert!(!bytes.is_empty() && content[message.got..].starts_with(&bytes), "{stream}");
                message.got += bytes.len();
                message.owed += bytes.len() as u32;
                assert!(message.owed <= STREAM_CREDIT);
            }
            Event::End { stream } => {
                let content = self.far.streams[&stream].content.len();
                let trailers = self.received.trailers.clone();
                let message = self.message(stream);
                assert!(message.head && message.got == content, "{stream} ends too early: {message:?}");
                assert!(message.length.is_none_or(|length| length == content as u64), "{message:?}");
                assert!(trailers.is_empty() || trailers.ends_with(b"\r\n\r\n"));
                message.ended = true;
            }
            Event::Reset { stream, .. } => {
                let message = self.messages.get_mut(&stream).expect("a message");
                assert!(!message.gone, "{stream} is gone twice");
                self.forget(stream);
            }
            Event::Writable { stream: 0 } | Event::GoingAway => {}
            Event::Writable { stream } => assert!(self.conn.can_send(stream)),
            Event::Broken(_) => {
                self.broken = true;
                assert!(self.conn.is_broken() && self.conn.recv_buf().is_empty());
                assert!(!self.conn.has_events());
            }
        }
    }

    /// One that has not ended.
    fn message(&mut self, stream: u32) -> &mut Message {
        let message = self.messages.get_mut(&stream).expect("a message");
        assert!(!message.ended && !message.gone, "something behind the end of {stream}: {message:?}");
        message
    }

    fn forget(&mut self, stream: u32) {
        if let Some(message) = self.messages.get_mut(&stream) {
            message.gone = true;
            message.owed = 0;
        }
    }

    // Its user.

    fn open(&mut self) {
        let before = self.conn.open_streams();
        if let Some(stream) = self.conn.open() {
            assert!(self.role == Role::Client && before < self.limits.streams as usize);
            assert!(self.conn.peer_streams().is_none_or(|most| before < most as usize));
            assert!(self.messages.insert(stream, Message::default()).is_none());
        }
    }

    fn release(&mut self, stream: u32, most: u32) {
        if let Some(message) = self.messages.get_mut(&stream) {
            let n = message.owed.min(most);
            message.owed -= n;
            self.conn.release(stream, n);
        }
    }

    fn release_all(&mut self) {
        let streams: Vec<u32> = self.messages.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.release(stream, u32::MAX));
    }

    fn send_head(&mut self, stream: u32, choice: u8) {
        let Some(message) = self.messages.get_mut(&stream) else { return };
        if message.sent_head || self.heads > 50_000 {
            return;
        }
        let (end, to_head, server) = (choice & 1 == 1, choice & 2 != 0, self.role == Role::Server);
        let interim = server && choice & 12 == 12;
        let before = self.conn.pending_bytes();
        let sent = self.conn.send_head(stream, end && !interim, to_head, |w| {
            if server {
                w.pseudo(b":status", if interim { b"103" } else { b"200" });
            } else {
                let method: &[u8] = if to_head { b"HEAD" } else { b"PUT" };
                w.pseudo(b":method", method);
                w.scheme();
                w.pseudo(b":authority", b"a.test");
                w.pseudo(b":path", b"/");
            }
            for n in 0..choice >> 4 {
                let value = [b'a' + (n % 3); 40];
                w.pseudo(if n % 2 == 0 { b"x-one" } else { b"x-two" }, &value[..usize::from(choice) % 40]);
            }
        });
        self.heads += self.conn.pending_bytes() - before;
        if sent {
            message.sent_head = !interim;
            message.sent_end = end && !interim;
        } else {
            assert_eq!(before, self.conn.pending_bytes());
        }
    }

    fn send_data(&mut self, stream: u32, len: usize) {
        let Some(message) = self.messages.get(&stream) else { return };
        if !message.sent_head || message.sent_end || message.gone {
            return;
        }
        let sent = self.conn.send_data(stream, &vec![stream as u8; len]);
        assert!(sent <= len);
    }

    fn send_end(&mut self, stream: u32, choice: u8) {
        let Some(message) = self.messages.get_mut(&stream) else { return };
        if !message.sent_head || message.sent_end || message.gone {
            return;
        }
        message.sent_end = true;
        if choice & 1 == 0 {
            self.conn.send_end(stream);
        } else {
            self.conn
                .send_trailers(stream, |w| w.pseudo(b"x-trailer", &[b't'; 30][..usize::from(choice) % 30]));
            self.heads += 200;
        }
    }

    // Output.

    /// What has been lent never changes.
    fn look_at_output(&mut self) {
        let now = self.conn.transmit();
        assert!(now.starts_with(&self.lent), "what was lent has changed");
        self.lent = now.to_vec();
    }

    fn sent(&mut self, most: usize) {
        self.look_at_output();
        let n = self.lent.len().min(most);
        self.far.hear(&self.lent[..n]);
        self.lent.drain(..n);
        self.conn.handle_sent(n);
    }

    fn check(&mut self) {
        self.conn.check();
        assert!(self.conn.pending_bytes() <= MOST_OUT + self.heads, "{} bytes", self.conn.pending_bytes());
        assert!(self.conn.open_streams() <= self.limits.streams as usize);
        assert!(self.conn.held_bytes() <= self.limits.connection_window.max(FIRST_WINDOW) as usize);
    }

    /// Everything has been read and sent: the windows are what both sides make of them.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.poll(usize::MAX);
            self.sent(usize::MAX);
        }
        self.check();
        if self.broken {
            assert!(self.far.failed.is_some(), "the peer is told why");
            return;
        }
        assert_eq!(self.far.failed, None);
        self.far.assert_answered();
        assert_eq!(i64::from(self.conn.credit(0)), self.far.whole.credit(FIRST_WINDOW), "the connection's");
        let settled = self.conn.is_settled();
        let size = if settled { self.limits.connection_window } else { FIRST_WINDOW };
        let all_released = self.conn.held_bytes() == 0 && self.messages.values().all(|m| m.owed == 0);
        assert!(!all_released || self.conn.credit(0) > size - size.div_ceil(2), "credit is lost");
        let size = if settled { self.limits.stream_window } else { FIRST_WINDOW };
        for (stream, message) in &self.messages {
            let far = self.far.streams.entry(*stream).or_default();
            let over = message.gone || far.was_reset || (message.ended && message.sent_end);
            let idle = self.role == Role::Client && !message.sent_head;
            if over || idle {
                continue;
            }
            let credit = far.credit(size);
            assert_eq!(i64::from(self.conn.credit(*stream)), credit.max(0), "the window of {stream}");
            // A frame has been counted whole, and may not be there whole.
            let arriving = self.conn.is_receiving(*stream);
            let held = arriving || self.conn.held_bytes() > 0 || message.owed > 0;
            if !message.ended && !held && !far.whole {
                assert!(credit > i64::from(size - size.div_ceil(2)), "credit of {stream} is lost");
            }
        }
    }
}

/// What came out of a connection whose user takes everything at once and answers nothing: its events, with
/// the data of each stream, and what it sent but updates of windows, which follow the pieces.
fn quietly(role: Role, limits: Limits, told: &[u8], cuts: &[usize]) -> (Vec<String>, Vec<(u8, u32)>) {
    let now = Instant::from_millis(1000);
    let (mut conn, mut received) = (Conn::new(role, limits, now), Received::default());
    for _ in 0..4 {
        if let Some(stream) = conn.open() {
            conn.send_head(stream, false, false, |w| w.pseudo(b":method", b"GET"));
        }
    }
    let (mut events, mut data) = (Vec::new(), BTreeMap::<u32, Vec<u8>>::new());
    let (mut sent, mut at) = (Vec::new(), 0);
    for &cut in cuts {
        while at < cut && !conn.is_broken() {
            let room = conn.recv_buf();
            let n = room.len().min(cut - at);
            assert!(n > 0, "it reads on");
            room[..n].copy_from_slice(&told[at..at + n]);
            conn.handle_recv(n);
            at += n;
            while let Some(event) = conn.poll_event(&mut received, now) {
                match event {
                    Event::Data { stream } => {
                        let bytes = conn.data().to_vec();
                        conn.release(stream, bytes.len() as u32);
                        data.entry(stream).or_default().extend(bytes);
                    }
                    Event::End { stream } => {
                        let content = data.remove(&stream);
                        events.push(format!("{event:?} {content:?} {}", received.trailers.escape_ascii()));
                    }
                    event => events.push(format!("{event:?}")),
                }
            }
            sent.extend_from_slice(conn.transmit());
            conn.handle_sent(conn.pending_bytes());
        }
    }
    events.push(format!("{data:?}"));
    if role == Role::Client {
        sent.drain(..PREFACE.len().min(sent.len()));
    }
    (events, super::far_end::kinds(&sent))
}

fn assert_same_when_cut(role: Role, limits: Limits, told: &[u8], seed: u8) {
    let told = &told[..told.len().min(20_000)];
    // When a window is told of depends on the pieces: nobody here sends more than it holds.
    let limits = Limits { stream_window: 1 << 20, connection_window: 1 << 20, ..limits };
    let seed = if seed == 1 && told.len() > 2000 { 2 } else { seed };
    let whole = quietly(role, limits, told, &[told.len()]);
    assert_eq!(quietly(role, limits, told, &cuts(seed, told.len())), whole);
}
