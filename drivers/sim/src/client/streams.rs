//! Clients that speak HTTP/2: one connection with many streams, each of which carries one request. How what
//! comes is read is in `input`, what is sent in `output`, how requests become fields in `head`.

mod head;
mod input;
mod invalid;
mod output;

use std::collections::{BTreeMap, VecDeque};

use super::Client;
use super::responses::ReadState;
use crate::coverage::Mark;
use crate::http2::{FrameReader, Grants, HpackDecoder, HpackEncoder, MAX_FRAME, Windows};
use crate::net::{Net, PeerRead};
use crate::random::SplitMix64;
use crate::scenario::{ClientHttp2, MS, SEC};

pub(super) use self::head::{request_fields, section_bytes};
use self::invalid::Violation;

/// The connection of a client that speaks HTTP/2.
#[derive(Debug)]
pub(super) struct StreamsConn {
    draw: ClientHttp2,
    rng: SplitMix64,
    /// Requests that have not been sent, with their heads as text.
    todo: VecDeque<(u64, Vec<u8>)>,
    /// Every stream, by its number.
    streams: BTreeMap<u32, Stream>,
    next_stream: u32,
    begun: bool,
    /// Frames that wait to be written, and how many bytes came before those.
    out: Vec<u8>,
    written: u64,
    reader: FrameReader,
    decoder: HpackDecoder,
    encoder: HpackEncoder,
    /// Field blocks whose end has not come: its stream, whether that ends with it, and the bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    /// What we may send.
    up: Windows,
    /// What the proxy may send.
    down: Grants,
    /// By the proxy's settings.
    max_frame: u32,
    max_streams: u64,
    has_settings: bool,
    settings_taken: bool,
    /// It lets us ask for WebSockets.
    may_connect: bool,
    /// The table of the proxy's encoder, by each of our settings that it has not acknowledged.
    settings_table: VecDeque<Option<u32>>,
    /// When SETTINGS of the proxy are taken and acknowledged.
    acks_due: VecDeque<(u64, Vec<(u16, u32)>)>,
    /// Streams were opened before these were known: there may be too many.
    opened_early: bool,
    /// The proxy knows by these which of our streams have ended.
    pings: VecDeque<Ping>,
    pings_sent: u64,
    /// Credit is given back not before this time.
    grant_at: u64,
    /// The proxy takes no streams above this one.
    last_taken: Option<u32>,
    /// We have said that we go.
    going: bool,
    /// It has done what no client may do, and is to be told so.
    violation: Option<Violation>,
    /// Everything is over, and the proxy was asked whether it has said all.
    resting: bool,
    rested: bool,
    /// How many frames nobody had asked for.
    extras: u32,
}

/// A PING that is not answered.
#[derive(Debug)]
struct Ping {
    payload: [u8; 8],
    /// Streams that had ended on our side before it, and whether we had reset them.
    ended: Vec<(u32, bool)>,
    resting: bool,
}

/// One stream.
#[derive(Debug)]
struct Stream {
    exchange: u64,
    /// Reads its response.
    reader: Box<Client>,
    /// What is left of the content, and of it, what has been sent.
    body: Vec<u8>,
    at: usize,
    trailer: bool,
    /// It is for a WebSocket: then it ends, and sends what is not early, when that is there, or refused.
    websocket: bool,
    /// So much of its content may be sent, and its end.
    limit: usize,
    may_end: bool,
    /// It ends its half of a tunnel only after the backend has ended the other.
    ends_second: bool,
    /// Its content waits for a 100 (continue), at most up to this time.
    continue_by: Option<u64>,
    /// It is reset after so many bytes in both directions.
    reset_after: Option<u64>,
    moved: u64,
    sent_end: bool,
    sent_reset: bool,
    /// The proxy knows that nothing more comes from us, and that it has been reset.
    known_end: bool,
    known_reset: bool,
    has_head: bool,
    got_end: bool,
    got_reset: bool,
    /// Bytes of content that came, and how many were announced.
    received: u64,
    announced: Option<u64>,
    /// Nothing is granted on it until all others are over, at most up to this time.
    stalls_until: u64,
}

impl Stream {
    /// Nothing more is to come on it, in either direction.
    fn is_over(&self) -> bool {
        self.sent_reset || self.got_reset || self.sent_end && self.got_end
    }

    /// Its end may be sent, behind all of its content. `faults`: some wait for the other end of a tunnel.
    fn ends_now(&self, faults: bool) -> bool {
        let waits = self.ends_second && faults && self.reader.tunnel.is_some() && !self.got_end;
        self.at == self.body.len() && self.may_end && !waits
    }

    /// What a WebSocket has become of is known.
    fn settled(&mut self) {
        (self.limit, self.may_end) = (usize::MAX, true);
        if self.reader.tunnel.is_none() {
            // What was sent early has gone in vain.
            self.body.truncate(self.at);
        }
    }
}

impl StreamsConn {
    pub(super) fn new(draw: ClientHttp2) -> Self {
        let mut encoder = HpackEncoder::new();
        encoder.plain = draw.plain_blocks;
        Self {
            rng: SplitMix64::new(draw.seed),
            todo: VecDeque::new(),
            streams: BTreeMap::new(),
            next_stream: 1,
            begun: false,
            out: Vec::new(),
            written: 0,
            reader: FrameReader::default(),
            decoder: HpackDecoder::new(),
            encoder,
            block: None,
            up: Windows::new(),
            down: Grants::new(MAX_FRAME),
            max_frame: MAX_FRAME,
            max_streams: u64::MAX,
            has_settings: false,
            settings_taken: false,
            may_connect: false,
            settings_table: VecDeque::new(),
            acks_due: VecDeque::new(),
            opened_early: false,
            pings: VecDeque::new(),
            pings_sent: 0,
            grant_at: 0,
            last_taken: None,
            going: false,
            violation: None,
            resting: false,
            rested: false,
            extras: 0,
            draw,
        }
    }

    /// How many bytes the connection has carried to the proxy when all that waits is written.
    fn offset(&self) -> u64 {
        self.written + self.out.len() as u64
    }

    fn open_streams(&self) -> impl Iterator<Item = (&u32, &Stream)> {
        self.streams.iter().filter(|(_, stream)| !stream.is_over())
    }

    /// No more streams are opened.
    fn is_leaving(&self) -> bool {
        self.going || self.last_taken.is_some_and(|last| !self.draw.opens_in_drain || last < self.next_stream)
    }

    /// All that was to be sent has been, and every stream is over.
    fn is_through(&self) -> bool {
        (self.todo.is_empty() || self.is_leaving()) && self.open_streams().next().is_none()
    }

    fn fail(&self, net: &mut Net, invariant: &str, details: &str) {
        let client = self.streams.values().next().map_or(usize::MAX, |stream| stream.reader.index);
        net.ledger.fail(invariant, format!("client {client}: {details}"));
    }
}

impl Client {
    /// Whether it speaks HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        self.http2.is_some()
    }

    /// Puts a request into the output.
    pub(super) fn queue_stream(&mut self, net: &mut Net, id: u64) {
        let head = self.draw_head(net, id);
        if let Some(conn) = &mut self.http2 {
            conn.todo.push_back((id, head));
        }
    }

    /// What reads the response to one request of this client's.
    fn of_stream(&self, id: u64) -> Box<Self> {
        let mut reader = Self::blank(self.index);
        reader.requests.push(id);
        Box::new(reader)
    }

    /// Reads and writes what it can.
    pub(super) fn streams_turn(&mut self, net: &mut Net, socket: usize) {
        let Some(mut conn) = self.http2.take() else { return };
        self.streams_write(&mut conn, net, socket);
        self.streams_read(&mut conn, net, socket);
        if !self.done {
            self.streams_write(&mut conn, net, socket);
        }
        self.http2 = Some(conn);
    }

    fn streams_write(&mut self, conn: &mut StreamsConn, net: &mut Net, socket: usize) {
        loop {
            self.produce(conn, net, socket);
            if conn.out.is_empty() {
                break;
            }
            let slow = net.faults_on && (self.slow_head || self.slow_body);
            if slow && net.now < self.write_at {
                return net.wake_peer(socket, self.write_at);
            }
            let max = if slow { 1 + net.rng.size(400) as usize } else { conn.out.len() };
            let n = net.peer_write(socket, &conn.out[..max.min(conn.out.len())]);
            conn.out.drain(..n);
            conn.written += n as u64;
            if slow {
                self.write_at = net.now + net.rng.between(MS, 300 * MS);
                return net.wake_peer(socket, self.write_at);
            }
            if n == 0 {
                return;
            }
        }
        let told = conn.violation.as_ref().is_none_or(|violation| violation.told);
        if conn.rested && told {
            net.trace(17, || format!("client {} has all it wants", self.index));
            self.finish(net);
        }
    }

    fn streams_read(&mut self, conn: &mut StreamsConn, net: &mut Net, socket: usize) {
        let mut bytes = std::mem::take(&mut net.read_buffer);
        while !self.done && net.ledger.violation.is_none() {
            let slow = self.slow_reader.filter(|_| net.faults_on);
            if slow.is_some() && net.now < self.read_at {
                net.wake_peer(socket, self.read_at);
                break;
            }
            bytes.clear();
            let found = net.peer_read(socket, slow.map_or(65_536, |(n, _)| n), &mut bytes);
            if let Some((_, wait)) = slow {
                self.read_at = net.now + wait;
            }
            match found {
                PeerRead::WouldBlock => break,
                PeerRead::Bytes => {
                    conn.reader.received(&bytes);
                    while let Some(frame) = conn.reader.next()
                        && !self.done
                    {
                        if let Err((invariant, why)) = self.frame_received(conn, net, &frame) {
                            let what =
                                format!("{why}: {:?} {:#x} of {}", frame.kind, frame.flags, frame.stream);
                            conn.fail(net, invariant, &what);
                        }
                    }
                }
                PeerRead::End => {
                    net.trace(14, || format!("client {} reads the end", self.index));
                    self.streams_ended(conn, net, socket);
                }
                PeerRead::Reset => {
                    net.trace(13, || format!("client {} is reset", self.index));
                    net.mark(Mark::IncompleteResponse);
                    if net.scenario.fault_free && !conn.is_through() {
                        conn.fail(net, "fault-free", "it is reset");
                    }
                    self.finish_streams(conn, net);
                }
            }
        }
        net.read_buffer = bytes;
    }

    /// The proxy ends the connection: what it has taken must not be lost.
    fn streams_ended(&mut self, conn: &mut StreamsConn, net: &mut Net, socket: usize) {
        let read = net.sockets[socket].to_proxy.read_total;
        let taken = |id: u64| net.ledger.get(id).head_end <= read;
        let lost = conn.open_streams().find(|(_, s)| taken(s.exchange) && !s.got_end);
        let lost = lost.map(|(number, stream)| (*number, stream.exchange));
        let tampered = net.sockets[socket].tls.as_ref().is_some_and(|tls| tls.has_tampered());
        let gave_up = self.abort_after.is_some() || tampered;
        let nobody_gave_up = !net.scenario.system.drains && net.faults_on && !gave_up;
        if let Some((number, id)) = lost
            && (net.scenario.fault_free || nobody_gave_up)
        {
            let details = format!("an end, and stream {number} with request {id} has no response");
            conn.fail(net, "response-missing", &details);
        }
        conn.judge_violation(net, socket);
        self.finish_streams(conn, net);
    }

    /// Nothing more comes on the connection.
    fn finish_streams(&mut self, conn: &mut StreamsConn, net: &mut Net) {
        for stream in conn.streams.values_mut() {
            stream.reader.finish(net);
        }
        self.finish(net);
    }

    /// The run heals: it waits for a 100 (continue) no longer than a second.
    pub(super) fn heal_streams(&mut self, net: &Net) {
        let Some(conn) = &mut self.http2 else { return };
        for stream in conn.streams.values_mut() {
            stream.reset_after = None;
            if let Some(by) = &mut stream.continue_by {
                *by = (*by).min(net.now + SEC);
            }
        }
        conn.draw.goes_after = None;
        conn.draw.invalid = false;
    }

    /// For the message of a failure.
    pub(super) fn streams_state(&self) -> String {
        let Some(conn) = &self.http2 else { return String::new() };
        let streams: Vec<String> = conn
            .open_streams()
            .map(|(number, s)| {
                let (at, len) = (s.at, s.body.len());
                format!(
                    "{number}: request {}, {at} of {len} up, {} down, ends {} {}, windows {:?} {:?}",
                    s.exchange,
                    s.received,
                    s.sent_end,
                    s.got_end,
                    conn.up.streams.get(number),
                    conn.down.windows.streams.get(number)
                )
            })
            .collect();
        format!(
            "client {}: {} to do, {} bytes unsent, windows {} {}, rests {}, {streams:?}",
            self.index,
            conn.todo.len(),
            conn.out.len(),
            conn.up.connection,
            conn.down.windows.connection,
            conn.resting
        )
    }

    /// The reader of a stream is in the middle of a response that ends with the stream.
    fn reads_until_end(&self) -> bool {
        matches!(&self.read_state, ReadState::Body(response) if response.until_close)
    }
}
