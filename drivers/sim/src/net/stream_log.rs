//! What has happened to the streams of a connection to a backend that speaks HTTP/2: what the backend has
//! said, by where that lies in what it has written, and what the proxy has sent, read at its own end.

use std::collections::BTreeMap;

use super::{Net, Sending};
use crate::exchanges::ExchangeEntry;
use crate::http2::{FieldPairs, FrameReader, HpackDecoder, PREFACE, RawFrame, flag, kind};

/// See the file's head.
#[derive(Debug)]
pub(crate) struct StreamLog {
    /// What the backend has said on each stream.
    pub(crate) said: BTreeMap<u32, SaidOnStream>,
    /// Where its GOAWAYs end, and the last stream of each.
    pub(crate) goaways: Vec<(u64, u32)>,
    /// Where its first acknowledgement of SETTINGS ends.
    pub(crate) settled: Option<u64>,
    /// Where the SETTINGS end by which it announces that it takes WebSockets.
    pub(crate) websockets: Option<u64>,
    /// It neither reads nor writes from then on.
    pub(crate) frozen: Option<u64>,
    /// When somebody had waited in vain for it, while nothing at all came.
    pub(crate) distrusted: Option<u64>,
    /// Taken out while it reads.
    tap: Option<Box<StreamTap>>,
}

/// What a backend has said on one stream.
#[derive(Debug, Default)]
pub(crate) struct SaidOnStream {
    /// Where each of its heads ends, and the content of each frame.
    pub(crate) frames: Vec<u64>,
    /// Where its RST_STREAM ends, and the code.
    pub(crate) reset: Option<(u64, u32)>,
    /// When it began to send what is no response.
    pub(crate) violated: Option<u64>,
}

/// Reads the frames that the proxy writes.
#[derive(Debug)]
struct StreamTap {
    /// Bytes of the preface that are still to come.
    preface: usize,
    reader: FrameReader,
    decoder: HpackDecoder,
    /// The field block that is being written: when it began, its stream, whether that ends with it.
    block: Option<(u64, u32, bool, Vec<u8>)>,
    /// When the frame that is being written began.
    began: u64,
    /// The request on each stream, by its number in `Net::sendings`.
    sendings: BTreeMap<u32, usize>,
    requests: u32,
}

impl StreamLog {
    pub(crate) fn new() -> Self {
        let mut decoder = HpackDecoder::new();
        // The backend looks at that.
        decoder.allowed = usize::MAX;
        Self {
            said: BTreeMap::new(),
            goaways: Vec::new(),
            settled: None,
            websockets: None,
            frozen: None,
            distrusted: None,
            tap: Some(Box::new(StreamTap {
                preface: PREFACE.len(),
                reader: FrameReader::default(),
                decoder,
                block: None,
                began: 0,
                sendings: BTreeMap::new(),
                requests: 0,
            })),
        }
    }

    pub(crate) fn on(&mut self, stream: u32) -> &mut SaidOnStream {
        self.said.entry(stream).or_default()
    }
}

impl Net {
    /// The connection to a backend speaks HTTP/2.
    pub(crate) fn carries_streams(&mut self, socket: usize) {
        self.sockets[socket].streams.get_or_insert_with(|| Box::new(StreamLog::new()));
    }

    /// What the backend has said on the stream of a request; `None`: nothing, or it speaks HTTP/1.1.
    pub(crate) fn said_on(&self, socket: usize, stream: u32) -> Option<&SaidOnStream> {
        self.sockets[socket].streams.as_ref()?.said.get(&stream)
    }

    /// When the proxy read the last byte before this offset; `None`: not yet.
    pub(crate) fn read_up_to(&self, socket: usize, offset: u64) -> Option<u64> {
        self.read_at(socket, offset.saturating_sub(1))
    }

    /// When the proxy read that a backend has reset a stream; `None`: it has not.
    pub(crate) fn reset_read(&self, socket: usize, stream: u32) -> Option<u64> {
        let (end, _) = self.said_on(socket, stream)?.reset?;
        self.read_up_to(socket, end)
    }

    /// When the proxy read that the backend has not looked at a request, and will not; `None`: nothing says
    /// so.
    pub(crate) fn unprocessed_since(&self, socket: usize, stream: u32) -> Option<u64> {
        use crate::http2::code::{HTTP_1_1_REQUIRED, REFUSED_STREAM};
        let log = self.sockets[socket].streams.as_ref()?;
        let reset = log.said.get(&stream).and_then(|said| said.reset);
        let refused = reset.filter(|(_, code)| [REFUSED_STREAM, HTTP_1_1_REQUIRED].contains(code));
        let left = log.goaways.iter().find(|(_, last)| stream > *last);
        let refused = refused.and_then(|(end, _)| self.read_up_to(socket, end));
        let left = left.and_then(|(end, _)| self.read_up_to(socket, *end));
        [refused, left].into_iter().flatten().min()
    }

    /// Whether a shard has just read that a backend has not looked at some request, or has lost a connection
    /// with requests: those may be sent there again, healthy or not.
    pub(super) fn is_left_now(&self, shard: usize, backend: usize) -> bool {
        let its = |s: &&super::Socket| s.shard == shard && s.peer == super::Peer::Backend(backend);
        let open = |s: &&super::Socket| s.times.closed.is_none_or(|at| at == self.now);
        let mut sockets = self.sockets.iter().filter(its).filter(open);
        let left = |at: &usize| {
            let sending = &self.sendings[*at];
            self.unprocessed_since(sending.socket, sending.stream) == Some(self.now)
        };
        // One that is lost is closed behind what becomes of its requests.
        let lost = |s: &super::Socket| s.times.fin.or(s.times.reset).or(s.times.violated).is_some();
        sockets.any(|s| s.streams.is_some() && (s.sendings.iter().any(left) || lost(s)))
    }

    /// When something of the response on a stream was read last, or of the request written.
    pub(crate) fn stream_moved(&self, sending: &Sending) -> u64 {
        let read = self.said_on(sending.socket, sending.stream).and_then(|said| {
            let total = self.sockets[sending.socket].to_proxy.read_total;
            let known = said.frames.partition_point(|end| *end <= total);
            self.read_up_to(sending.socket, *said.frames.get(known.checked_sub(1)?)?)
        });
        sending.moved.max(read.unwrap_or(0))
    }

    /// The proxy has written these bytes on a connection that carries streams.
    pub(super) fn tap_streams(&mut self, socket: usize, bytes: &[u8]) {
        let log = self.sockets[socket].streams.as_mut();
        let Some(mut tap) = log.and_then(|log| log.tap.take()) else { return };
        let rest = &bytes[tap.preface.min(bytes.len())..];
        tap.preface -= bytes.len() - rest.len();
        if tap.reader.is_empty() {
            tap.began = self.now;
        }
        tap.reader.received(rest);
        while let Some(frame) = tap.reader.next() {
            let began = std::mem::replace(&mut tap.began, self.now);
            self.tap_frame(&mut tap, socket, began, &frame);
        }
        if let Some(log) = &mut self.sockets[socket].streams {
            log.tap = Some(tap);
        }
    }

    fn tap_frame(&mut self, tap: &mut StreamTap, socket: usize, began: u64, frame: &RawFrame) {
        let ends = frame.has(flag::END_STREAM);
        match frame.kind {
            kind::HEADERS => tap.block = Some((began, frame.stream, ends, frame.payload.clone())),
            kind::CONTINUATION => {
                if let Some((.., block)) = &mut tap.block {
                    block.extend_from_slice(&frame.payload);
                }
            }
            kind::DATA => {
                let Some(at) = tap.sendings.get(&frame.stream) else { return };
                let sending = &mut self.sendings[*at];
                (sending.body, sending.moved) = (sending.body + frame.payload.len() as u64, self.now);
                if ends {
                    sending.complete = Some(self.now);
                }
            }
            kind::RST_STREAM => {
                if let Some(at) = tap.sendings.get(&frame.stream) {
                    self.sendings[*at].given_up.get_or_insert(self.now);
                }
            }
            _ => {}
        }
        if matches!(frame.kind, kind::HEADERS | kind::CONTINUATION)
            && frame.has(flag::END_HEADERS)
            && let Some((began, stream, ends, block)) = tap.block.take()
            // What is none is judged where it arrives.
            && let Ok(fields) = tap.decoder.decode(&block)
        {
            self.tap_stream_head(tap, socket, began, (stream, ends), &fields);
        }
    }

    /// A WebSocket is asked for: the proxy knows that the backend takes it.
    fn judge_announced(&mut self, socket: usize, stream: u32) {
        let announced = self.sockets[socket].streams.as_ref().and_then(|log| log.websockets);
        if announced.is_none_or(|end| self.sockets[socket].to_proxy.read_total < end) {
            let details = format!("stream {stream} of {socket}: announced at {announced:?}");
            self.ledger.fail("websocket-announced", details);
        }
    }

    /// Whether the other end of a tunnel was cut off at the backend's: an end is none then.
    pub(crate) fn is_tunnel_cut(&self, entry: &ExchangeEntry) -> bool {
        let Some((socket, stream)) = entry.tunnelled else { return false };
        let attempt = entry.attempts.iter().find(|a| (a.socket, a.stream) == (socket, stream));
        match stream {
            0 => self.sockets[socket].cut,
            _ => attempt.and_then(|a| a.response).is_none_or(|plan| plan.end == u64::MAX),
        }
    }

    /// A head has been written on a stream: of a request, or trailers.
    fn tap_stream_head(
        &mut self,
        tap: &mut StreamTap,
        socket: usize,
        began: u64,
        (stream, ends): (u32, bool),
        fields: &FieldPairs,
    ) {
        if let Some(at) = tap.sendings.get(&stream) {
            let sending = &mut self.sendings[*at];
            sending.moved = self.now;
            if ends {
                sending.complete = Some(self.now);
            }
            return;
        }
        let value = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        if value(":path") == Some("/probe") {
            self.sockets[socket].probe = true;
            return;
        }
        let super::Peer::Backend(backend) = self.sockets[socket].peer else { return };
        if value(":method") == Some("CONNECT") {
            self.judge_announced(socket, stream);
        }
        let id = value("x-sim").and_then(|id| id.parse().ok()).filter(|id| self.ledger.find(*id).is_some());
        let Some(id) = id else { return };
        let owned = self.judge_identity(socket, id);
        let (at, nth) = (self.sendings.len(), tap.requests);
        self.sendings.push(Sending {
            id,
            socket,
            stream,
            backend,
            began,
            complete: ends.then_some(self.now),
            body: 0,
            moved: self.now,
            given_up: None,
            nth,
            owned,
        });
        tap.requests += 1;
        tap.sendings.insert(stream, at);
        self.ledger.get_mut(id).sendings.push(at);
        self.sockets[socket].sendings.push(at);
        self.judge_sent_again(at);
    }
}
