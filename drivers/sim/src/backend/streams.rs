//! Connections of backends that speak HTTP/2: many streams, of many clients, each of which carries one
//! request. How what comes is read is in `input`, what is sent in `output`, what a request is answered with
//! in `answer`, and the parts of that in `piece`, what no backend may do in `offence`, how a connection is
//! left in `leaving`, and how fields become heads in `head`.

mod answer;
mod head;
mod input;
mod leaving;
mod offence;
mod output;
mod piece;

use std::collections::{BTreeMap, VecDeque};

use self::leaving::Departure;
use self::offence::Offence;
use self::piece::Piece;
use super::BackendConn;
use crate::coverage::Mark;
use crate::http1::BodyChecker;
use crate::http2::{FrameReader, Grants, HpackDecoder, HpackEncoder, MAX_FRAME, Windows};
use crate::net::{Net, PeerRead};
use crate::random::SplitMix64;
use crate::scenario::BackendHttp2;

/// The connection of a backend that speaks HTTP/2.
#[derive(Debug)]
pub(super) struct StreamsConn {
    draw: BackendHttp2,
    rng: SplitMix64,
    /// Bytes of the preface that have come.
    preface: usize,
    begun: bool,
    /// Every stream, by its number.
    streams: BTreeMap<u32, Stream>,
    /// The highest that the proxy has opened.
    last_stream: u32,
    /// Frames that wait to be written, and how many bytes came before those.
    out: Vec<u8>,
    written: u64,
    write_at: u64,
    reader: FrameReader,
    decoder: HpackDecoder,
    encoder: HpackEncoder,
    /// Field blocks whose end has not come: its stream, whether that ends with it, and the bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    /// What the proxy may send.
    up: Grants,
    /// What we may send.
    down: Windows,
    /// By the proxy's settings.
    max_frame: u32,
    has_settings: bool,
    settings_taken: bool,
    /// How many streams it may have open, by the newest setting that it has acknowledged.
    max_streams: Option<u32>,
    /// Of our settings that it has not: the table of its encoder, and how many streams.
    unacknowledged: VecDeque<(Option<u32>, Option<u32>)>,
    /// When SETTINGS of the proxy are taken and acknowledged.
    acks_due: VecDeque<(u64, Vec<(u16, u32)>)>,
    pings: VecDeque<Ping>,
    pings_sent: u64,
    /// Credit is given back not before this time, and all streams were given some last at that.
    grant_at: u64,
    credit_since: u64,
    departure: Departure,
    /// Where it freezes is in the middle of content.
    freezes_in_frame: bool,
    /// It has done what no backend may do: nothing else follows.
    offence: Option<Offence>,
    /// How many frames nobody had asked for.
    extras: u32,
    /// Nothing has been under way since the PING that asks for it was sent.
    rests: bool,
    /// How many requests have come.
    served: usize,
    /// When it closes if it is idle; `u64::MAX`: it does not.
    idle_until: u64,
}

/// A PING that is not answered.
#[derive(Debug)]
struct Ping {
    payload: [u8; 8],
    /// Streams that we had reset before it.
    reset: Vec<u32>,
    resting: bool,
}

/// One stream.
#[derive(Debug)]
struct Stream {
    /// 0: a probe.
    exchange: u64,
    /// Reads the content of the request.
    body: BodyChecker,
    got_end: bool,
    got_reset: bool,
    sent_end: bool,
    sent_reset: bool,
    /// The proxy knows that we have.
    known_reset: bool,
    /// It is for a WebSocket, and that is there. It has a head, at least.
    websocket: bool,
    switched: bool,
    sent_head: bool,
    /// It ends its half of a tunnel only after the client has ended the other.
    ends_second: bool,
    /// It is above the last stream that is taken: nothing of it is looked at.
    ignored: bool,
    /// What it is still answered with, and not before when.
    pieces: VecDeque<Piece>,
    not_before: u64,
    /// The same, whatever happens.
    thinks_until: u64,
    /// An answer has been decided on.
    answered: bool,
    /// The content of the response, and how much of it has been sent.
    content: Vec<u8>,
    at: usize,
    /// No credit is given for its request up to this time; 0: it always is.
    stalls_until: u64,
    /// When it was given credit last.
    credit_since: u64,
}

impl Stream {
    /// Nothing more is to come on it, in either direction.
    fn is_over(&self) -> bool {
        self.sent_reset || self.got_reset || self.ignored || self.sent_end && self.got_end
    }

    /// Its request has come at least in part, and the response has not been sent whole.
    fn is_busy(&self) -> bool {
        self.exchange > 0 && !(self.sent_reset || self.got_reset || self.ignored || self.sent_end)
    }
}

impl StreamsConn {
    pub(super) fn new(draw: BackendHttp2) -> Self {
        let mut encoder = HpackEncoder::new();
        encoder.plain = draw.plain_blocks;
        Self {
            rng: SplitMix64::new(draw.seed),
            preface: 0,
            begun: false,
            streams: BTreeMap::new(),
            last_stream: 0,
            out: Vec::new(),
            written: 0,
            write_at: 0,
            reader: FrameReader::default(),
            decoder: HpackDecoder::new(),
            encoder,
            block: None,
            up: Grants::new(MAX_FRAME),
            down: Windows::new(),
            max_frame: MAX_FRAME,
            has_settings: false,
            settings_taken: false,
            max_streams: None,
            unacknowledged: VecDeque::new(),
            acks_due: VecDeque::new(),
            pings: VecDeque::new(),
            pings_sent: 0,
            grant_at: 0,
            credit_since: 0,
            departure: Departure::No,
            freezes_in_frame: false,
            offence: None,
            extras: 0,
            rests: false,
            served: 0,
            idle_until: u64::MAX,
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

    /// Ids of the requests that are being served.
    pub(super) fn busy(&self) -> impl Iterator<Item = u64> {
        self.streams.values().filter(|stream| stream.is_busy()).map(|stream| stream.exchange)
    }
}

impl BackendConn {
    /// The connection speaks HTTP/2, if the proxy has found out that it does.
    pub(super) fn begin_streams(&mut self, net: &mut Net) {
        if self.http2.is_some() || net.sockets[self.socket].streams.is_none() {
            return;
        }
        let draw = net.scenario.backend_http2(self.backend, self.socket, net.faults_on);
        net.mark(Mark::Http2Backend);
        self.http2 = Some(Box::new(StreamsConn::new(draw)));
    }

    /// Reads and writes what it can.
    pub(super) fn streams_turn(&mut self, net: &mut Net) {
        let Some(mut conn) = self.http2.take() else { return };
        if !self.is_frozen(net) {
            self.streams_idle(&mut conn, net);
            self.streams_write(&mut conn, net);
            self.streams_read(&mut conn, net);
            self.streams_write(&mut conn, net);
        }
        self.http2 = Some(conn);
    }

    /// It neither reads nor writes any more.
    fn is_frozen(&self, net: &Net) -> bool {
        net.sockets[self.socket].streams.as_ref().is_some_and(|log| log.frozen.is_some())
    }

    /// It closes a connection that nobody uses, if it is time for that.
    fn streams_idle(&mut self, conn: &mut StreamsConn, net: &mut Net) {
        if self.closed || conn.idle_until > net.now || conn.open_streams().next().is_some() {
            return;
        }
        net.mark(Mark::ClosedIdle);
        net.trace(21, || format!("backend {} closes {} idle", self.backend, self.socket));
        self.close(net, false);
    }

    fn streams_write(&mut self, conn: &mut StreamsConn, net: &mut Net) {
        while !self.closed && net.ledger.violation.is_none() {
            conn.produce(net, self.socket);
            if conn.out.is_empty() {
                break;
            }
            let slow = conn.draw.slow.filter(|_| net.faults_on);
            if slow.is_some() && net.now < conn.write_at {
                return net.wake_peer(self.socket, conn.write_at);
            }
            let most = slow.map_or(conn.out.len(), |(n, _)| n.min(conn.out.len()));
            let left = self.left_to_write(conn, net);
            if left == Some(0) {
                return self.end_of_writing(conn, net);
            }
            let most = left.map_or(most, |left| most.min(left as usize));
            let n = net.peer_write(self.socket, &conn.out[..most]);
            conn.out.drain(..n);
            conn.written += n as u64;
            if let Some((_, wait)) = slow {
                net.mark(Mark::Http2SlowBackend);
                conn.write_at = net.now + wait;
                return net.wake_peer(self.socket, conn.write_at);
            }
            if n == 0 {
                return;
            }
        }
        if !self.closed && conn.has_left() {
            net.trace(43, || format!("backend {} has left {}", self.backend, self.socket));
            self.close(net, false);
        }
    }

    /// How many bytes it writes before it freezes or cuts the connection; `None`: it does neither.
    fn left_to_write(&self, conn: &StreamsConn, net: &Net) -> Option<u64> {
        let cut = conn.draw.cut.map(|(at, _)| at);
        let ends = [cut, conn.draw.freezes].into_iter().flatten().min().filter(|_| net.faults_on);
        ends.map(|at| at.saturating_sub(conn.written))
    }

    /// It has written as much as it ever will.
    fn end_of_writing(&mut self, conn: &StreamsConn, net: &mut Net) {
        match conn.draw.cut.filter(|(at, _)| *at <= conn.written) {
            Some((at, reset)) => {
                net.mark(Mark::Http2BackendCuts);
                net.trace(44, || format!("backend {} cuts {} behind {at}", self.backend, self.socket));
                self.close(net, reset);
            }
            None => {
                net.mark(if conn.freezes_in_frame { Mark::Http2FrozenInFrame } else { Mark::Http2Frozen });
                net.trace(45, || format!("backend {} freezes {}", self.backend, self.socket));
                let now = net.now;
                if let Some(log) = &mut net.sockets[self.socket].streams {
                    log.frozen = Some(now);
                }
            }
        }
    }

    fn streams_read(&mut self, conn: &mut StreamsConn, net: &mut Net) {
        let mut bytes = std::mem::take(&mut net.read_buffer);
        while !self.closed && net.ledger.violation.is_none() && !self.is_frozen(net) {
            bytes.clear();
            match net.peer_read(self.socket, 65_536, &mut bytes) {
                PeerRead::WouldBlock => break,
                PeerRead::Bytes => self.stream_bytes(conn, net, &bytes),
                // It has been told what it had to be told, or has left by itself.
                PeerRead::End => self.close(net, false),
                PeerRead::Reset => self.close(net, true),
            }
        }
        net.read_buffer = bytes;
    }

    /// The run heals: what would never be answered is reset, and nobody leaves any more. A connection that
    /// is dead stays so as long as somebody waits on it: the proxy has to find out.
    pub(super) fn heal_streams(&mut self, net: &mut Net) {
        let Some(conn) = &mut self.http2 else { return };
        conn.draw.cut = None;
        conn.draw.freezes = None;
        conn.draw.leaves = None;
        conn.draw.offends = None;
        conn.idle_until = u64::MAX;
        let waits = net.sockets[self.socket].sendings.iter().any(|at| {
            let sending = &net.sendings[*at];
            let entry = net.ledger.get(sending.id);
            entry.record.is_none() && entry.sendings.last() == Some(at) && sending.given_up.is_none()
        });
        let dead = net.sockets[self.socket].streams.as_ref().is_some_and(|log| log.frozen.is_some());
        if (dead || conn.draw.deaf) && !waits || net.is_peer_stalled(self.socket) {
            return self.close(net, true);
        }
        conn.reset_unanswered(net, self.socket);
        net.wake_peer(self.socket, net.now);
    }

    /// Nobody may be hindered any more: connections that are dead end.
    pub(crate) fn bury(&mut self, net: &mut Net) {
        let deaf = self.http2.as_ref().is_some_and(|conn| conn.draw.deaf);
        if !self.closed && (deaf || self.is_frozen(net)) {
            self.close(net, true);
        }
    }
}
