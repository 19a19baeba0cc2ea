//! Frames of the proxy to a backend: whether they may come, and what they are of.

use std::collections::VecDeque;

use super::head::request_text;
use super::piece::Piece;
use super::{BackendConn, Stream, StreamsConn};
use crate::backend::request::check_request_head;
use crate::chains::Chain;
use crate::coverage::Mark;
use crate::http1::{BodyChecker, BodyFraming, ParsedHead};
use crate::http2::{HTTP_2, PREFACE, RawFrame, check_regular, flag, kind, setting, settings_of};
use crate::net::Net;
use crate::payload::PayloadKind;

/// An invariant that does not hold, and what there is instead.
type Judged = Result<(), (&'static str, String)>;

const FRAMES: &str = "http2-frames";
const CREDIT: &str = "http2-credit";

/// What the proxy lets a backend send on one stream, and on all of them together: 100 streams of a page, and
/// what one that knows nothing of windows may send.
const STREAM_WINDOW: i64 = 16 * 1024;
pub(super) const CONNECTION_WINDOW: i64 = 100 * STREAM_WINDOW + 65_535;

fn frames(why: impl Into<String>) -> (&'static str, String) {
    (FRAMES, why.into())
}

impl BackendConn {
    pub(super) fn stream_bytes(&mut self, conn: &mut StreamsConn, net: &mut Net, bytes: &[u8]) {
        let n = (PREFACE.len() - conn.preface).min(bytes.len());
        let (preface, rest) = bytes.split_at(n);
        if PREFACE[conn.preface..conn.preface + n] != *preface {
            return net.ledger.fail(FRAMES, format!("backend {}: no preface", self.backend));
        }
        conn.preface += n;
        conn.reader.received(rest);
        while let Some(frame) = conn.reader.next() {
            if self.closed || net.ledger.violation.is_some() {
                return;
            }
            if let Err((invariant, why)) = self.stream_frame(conn, net, &frame) {
                let (kind, flags, stream) = (frame.kind, frame.flags, frame.stream);
                let details = format!(
                    "backend {} on {}: {why}: {kind:?} {flags:#x} of {stream}",
                    self.backend, self.socket
                );
                net.ledger.fail(invariant, details);
            }
        }
    }

    fn stream_frame(&mut self, conn: &mut StreamsConn, net: &mut Net, frame: &RawFrame) -> Judged {
        let len = frame.payload.len();
        net.trace(46 << 8 | u64::from(frame.kind), || {
            let (kind, flags, stream) = (frame.kind, frame.flags, frame.stream);
            format!("backend {} gets frame {kind} {flags:#x} of {stream}, {len} bytes", self.backend)
        });
        if conn.offence.is_some() {
            return conn.told(net, frame);
        }
        if len > conn.up.max_frame() as usize {
            return Err(frames(format!("{len} bytes, {} allowed", conn.up.max_frame())));
        }
        if !conn.has_settings && frame.kind != kind::SETTINGS {
            return Err(frames("SETTINGS do not come first"));
        }
        let inside = conn.block.as_ref().map(|(stream, ..)| *stream);
        if inside.is_some_and(|stream| (frame.kind, frame.stream) != (kind::CONTINUATION, stream)) {
            return Err(frames("inside a field block"));
        }
        let of_connection = matches!(frame.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        if of_connection != (frame.stream == 0) && frame.kind != kind::WINDOW_UPDATE {
            return Err(frames("on the wrong stream"));
        }
        if frame.stream > 0 {
            conn.may_come(frame)?;
        }
        match frame.kind {
            kind::DATA => self.stream_data(conn, net, frame),
            kind::HEADERS => {
                if frame.has(flag::PADDED | flag::PRIORITY) {
                    return Err(frames("padding or priority of a proxy"));
                }
                conn.block = Some((frame.stream, frame.has(flag::END_STREAM), frame.payload.clone()));
                self.stream_block(conn, net, frame)
            }
            kind::CONTINUATION => {
                let Some((_, _, block)) = &mut conn.block else { return Err(frames("without a block")) };
                block.extend_from_slice(&frame.payload);
                self.stream_block(conn, net, frame)
            }
            kind::RST_STREAM => conn.reset_received(net, frame),
            kind::SETTINGS => conn.settings_received(net, frame),
            kind::PING => conn.ping_received(net, frame),
            // A proxy that leaves, or that something has disturbed.
            kind::GOAWAY => Err(frames(format!("GOAWAY with code {:?}", frame.number(4)))),
            kind::WINDOW_UPDATE => conn.window_received(frame),
            _ => Err(frames("a frame that no proxy sends")),
        }
    }

    fn stream_data(&mut self, conn: &mut StreamsConn, net: &mut Net, frame: &RawFrame) -> Judged {
        let (number, len) = (frame.stream, frame.payload.len() as u64);
        if frame.has(flag::PADDED) {
            return Err(frames("padding of a proxy"));
        }
        conn.up.windows.sent(number, len).map_err(|why| (CREDIT, why))?;
        let Some(stream) = conn.streams.get_mut(&number) else { return Ok(()) };
        if stream.sent_reset || stream.ignored {
            return Ok(());
        }
        let id = stream.exchange;
        let end = frame.has(flag::END_STREAM);
        if stream.websocket && !stream.sent_head && (len > 0 || end) {
            return Err(("tunnel-waits", format!("{len} bytes of {id} before the 200")));
        }
        stream.body.read(&frame.payload).map_err(|why| ("right-request-bytes", why))?;
        if id > 0 {
            let entry = net.ledger.get(id);
            let most = if stream.switched { entry.tunnel.0 } else { entry.len };
            if stream.body.received > most {
                return Err(("right-request-bytes", format!("more than the {most} bytes of {id}")));
            }
            net.ledger.received_up(id, (self.socket, number), stream.body.received);
        }
        if end {
            self.stream_request_ended(conn, net, number, &[])?;
        }
        Ok(())
    }

    /// A part of a field block has come.
    fn stream_block(&mut self, conn: &mut StreamsConn, net: &mut Net, frame: &RawFrame) -> Judged {
        if !frame.has(flag::END_HEADERS) {
            return Ok(());
        }
        let Some((number, end, block)) = conn.block.take() else { return Ok(()) };
        let fields = conn.decoder.decode(&block).map_err(|why| ("http2-hpack", why))?;
        if let Some(stream) = conn.streams.get(&number) {
            if stream.sent_reset || stream.ignored {
                return Ok(());
            }
            if !end || stream.websocket {
                return Err(frames("a second head, or trailers of a tunnel"));
            }
            check_regular(&fields).map_err(frames)?;
            let trailers: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            return self.stream_request_ended(conn, net, number, &trailers);
        }
        self.stream_opened(conn, net, number)?;
        if conn.streams[&number].ignored {
            return Ok(());
        }
        let secure = net.sockets[self.socket].secure;
        let text = request_text(&fields, secure).map_err(|why| ("right-request", why))?;
        let taken = self.stream_head(conn, net, number, end, &text);
        taken.map_err(|why| ("right-request", format!("{why}: {:?}", String::from_utf8_lossy(&text))))
    }

    /// The proxy opens a stream.
    fn stream_opened(&mut self, conn: &mut StreamsConn, net: &mut Net, number: u32) -> Judged {
        if number.is_multiple_of(2) || number <= conn.last_stream {
            return Err(frames(format!("a new stream behind {}", conn.last_stream)));
        }
        let open = conn.open_streams().count() as u64;
        if let Some(most) = conn.most_streams()
            && open >= u64::from(most)
        {
            let why = format!("stream {number} is one of {}, {most} allowed", open + 1);
            return Err(("http2-max-streams", why));
        }
        if conn.most_streams() == Some(open as u32 + 1) && open > 0 {
            net.mark(Mark::Http2MostStreams);
        }
        if open > 0 {
            net.mark(Mark::Http2SharedBackend);
        }
        conn.last_stream = number;
        conn.rests = false;
        conn.up.windows.open(number);
        conn.down.open(number);
        let ignored = conn.departure.ignores(number);
        let body = BodyChecker::new(0, PayloadKind::Request, false, BodyFraming::Close);
        conn.streams.insert(
            number,
            Stream {
                exchange: 0,
                body,
                got_end: false,
                got_reset: false,
                sent_end: false,
                sent_reset: false,
                known_reset: false,
                websocket: false,
                switched: false,
                sent_head: false,
                ends_second: false,
                ignored,
                pieces: VecDeque::new(),
                not_before: 0,
                thinks_until: 0,
                answered: false,
                content: Vec::new(),
                at: 0,
                stalls_until: 0,
                credit_since: net.now,
            },
        );
        Ok(())
    }

    /// The head of a request has come on a new stream. `Err`: it is not what the proxy has to make of the
    /// client's.
    fn stream_head(
        &mut self,
        conn: &mut StreamsConn,
        net: &mut Net,
        number: u32,
        end: bool,
        text: &[u8],
    ) -> Result<(), String> {
        let head = ParsedHead::parse(text).ok_or("no head")?;
        if head.start == "GET /probe HTTP/1.1" {
            self.stream_probed(conn, net, number);
            return Ok(());
        }
        let id = head.number("x-sim")?.ok_or("a request that no client sent")?;
        let entry = net.ledger.find(id).ok_or("an unknown id")?.clone();
        if let Some(why) = Chain::of(&net.scenario, &entry).kept_out() {
            net.ledger.fail("kept-out", format!("backend {}, request {id}: {why}", self.backend));
        }
        net.scenario.judge_head_limits(&entry, None)?;
        check_request_head(&head, &entry, net, true)?;
        let sent_at = net.ledger.get(id).sendings.iter().map(|at| net.sendings[*at]);
        let sent_at = sent_at.filter(|s| (s.socket, s.stream) == (self.socket, number));
        // Over TLS the proxy may not know yet that all of it has gone.
        let sent_at = sent_at.map(|s| s.began).next().unwrap_or(net.now);
        self.add_attempt(net, &entry, number, sent_at)?;
        if conn.served > 0 {
            net.mark(Mark::Reused);
        }
        conn.served += 1;
        self.served = conn.served as u32;
        let Some(stream) = conn.streams.get_mut(&number) else { return Ok(()) };
        stream.exchange = id;
        let body = if entry.websocket { PayloadKind::TunnelUp } else { PayloadKind::Request };
        stream.body = BodyChecker::new(id, body, true, BodyFraming::Close);
        stream.websocket = entry.websocket;
        if entry.websocket && (end || !conn.draw.websockets) {
            return Err("a WebSocket that ends with its head, or was not announced".into());
        }
        if self.stream_served(conn, net, number, &entry) {
            return Ok(());
        }
        if entry.websocket {
            self.websocket_asked(conn, net, number, &entry);
            return Ok(());
        }
        if end {
            return self
                .stream_request_ended(conn, net, number, &[])
                .map_err(|(invariant, why)| format!("{invariant}: {why}"));
        }
        self.stream_awaits_content(conn, net, number, &entry, head.get("expect")?.is_some());
        Ok(())
    }

    /// A request is whole.
    fn stream_request_ended(
        &mut self,
        conn: &mut StreamsConn,
        net: &mut Net,
        number: u32,
        trailers: &[String],
    ) -> Judged {
        let Some(stream) = conn.streams.get_mut(&number) else { return Ok(()) };
        stream.got_end = true;
        let (id, received) = (stream.exchange, stream.body.received);
        if id == 0 {
            return Ok(());
        }
        if stream.websocket {
            return Self::tunnel_ended(stream, net, self.socket);
        }
        let entry = net.ledger.get(id).clone();
        if received != entry.len {
            let why = format!("{received} of {} bytes of {id}, then the end of its stream", entry.len);
            return Err(("right-request-end", why));
        }
        self.check_trailers(net, id, trailers, true);
        if Chain::of(&net.scenario, &entry).is_too_large() {
            let why = format!("backend {} has all {} bytes of request {id}", self.backend, entry.len);
            return Err(("body-limited", why));
        }
        if let Some(pool) = entry.pool {
            *net.ledger.executed.entry((pool, self.backend)).or_default() += 1;
        }
        let answered = stream.answered;
        if conn.open_streams().any(|(other, s)| *other < number && !s.got_end) {
            net.mark(Mark::Http2RequestOvertaken);
        }
        if conn.open_streams().any(|(_, s)| !s.got_end && s.stalls_until > net.now) {
            net.mark(Mark::Http2BesideStalled);
        }
        if !answered {
            self.answer(conn, net, number, &entry);
        }
        Ok(())
    }

    /// The client has ended its half of a tunnel, as far as the proxy says; or the WebSocket was refused.
    fn tunnel_ended(stream: &mut Stream, net: &mut Net, socket: usize) -> Judged {
        let (id, received) = (stream.exchange, stream.body.received);
        let entry = net.ledger.get(id);
        if !stream.switched {
            return Ok(());
        }
        let client = &net.sockets[net.client_sockets[entry.client]];
        let client_goes_on = match entry.version {
            HTTP_2 => !entry.tunnel_half_closed,
            _ => !client.to_proxy.ended || client.cut,
        };
        if entry.switched && client_goes_on {
            return Err(("cut-is-no-end", format!("the client's end of {id} was none")));
        }
        if received != entry.tunnel.0 && entry.tunnel_half_closed {
            let why = format!("{received} of {} bytes of {id}, then an end", entry.tunnel.0);
            return Err(("tunnel-incomplete", why));
        }
        if stream.ends_second {
            stream.pieces.push_back(Piece::End);
            net.wake_peer(socket, net.now);
        }
        Ok(())
    }

    /// A health check has come.
    fn stream_probed(&mut self, conn: &mut StreamsConn, net: &mut Net, number: u32) {
        net.mark(Mark::Http2Probe);
        let (status, at) = self.probe_answer(net);
        let Some(stream) = conn.streams.get_mut(&number) else { return };
        stream.got_end = true;
        conn.answer_probe(number, status, at);
    }
}

impl StreamsConn {
    /// How many streams the proxy may have open, by what it has acknowledged and by what it may not know yet;
    /// `None`: any number.
    fn most_streams(&self) -> Option<u32> {
        let mut newest = self.max_streams;
        let mut most = newest;
        for (_, setting) in &self.unacknowledged {
            newest = setting.or(newest);
            most = most.zip(newest).map(|(a, b)| a.max(b));
        }
        most
    }

    /// Whether a frame may come on its stream at all (RFC 9113 §5.1).
    fn may_come(&self, frame: &RawFrame) -> Judged {
        let Some(stream) = self.streams.get(&frame.stream) else {
            return if frame.kind == kind::HEADERS || self.block.is_some() {
                Ok(())
            } else {
                Err(frames("on a stream that the proxy has not opened"))
            };
        };
        if stream.got_reset {
            return Err(frames("behind RST_STREAM"));
        }
        if stream.known_reset {
            return Err(frames("on a stream that the proxy knows to be reset"));
        }
        if stream.got_end && !matches!(frame.kind, kind::WINDOW_UPDATE | kind::RST_STREAM) {
            return Err(frames("behind END_STREAM"));
        }
        Ok(())
    }

    fn reset_received(&mut self, net: &mut Net, frame: &RawFrame) -> Judged {
        let code = frame.number(0).filter(|_| frame.payload.len() == 4).ok_or_else(|| frames("its size"))?;
        let Some(stream) = self.streams.get_mut(&frame.stream) else { return Ok(()) };
        stream.got_reset = true;
        stream.pieces.clear();
        net.trace(47, || format!("stream {} is given up: {code}", frame.stream));
        self.up.windows.close(frame.stream);
        self.down.close(frame.stream);
        net.mark(Mark::Http2GivenUp);
        Ok(())
    }

    fn settings_received(&mut self, net: &mut Net, frame: &RawFrame) -> Judged {
        if frame.has(flag::ACK) {
            let due = self.has_settings && frame.payload.is_empty() && self.up.acknowledge();
            let Some((table, streams)) = self.unacknowledged.pop_front().filter(|_| due) else {
                return Err(frames("an acknowledgement of nothing"));
            };
            if let Some(table) = table {
                self.decoder.set_allowed(table as usize);
            }
            self.max_streams = streams.or(self.max_streams);
            return Ok(());
        }
        self.has_settings = true;
        let settings = settings_of(&frame.payload).ok_or_else(|| frames("its size"))?;
        let server = [setting::MAX_CONCURRENT_STREAMS, 8];
        if settings
            .iter()
            .any(|(id, value)| server.contains(id) || (*id, *value) == (setting::ENABLE_PUSH, 1))
        {
            return Err(frames(format!("{settings:?} of a proxy that asks")));
        }
        let due = net.now + self.rng.below(self.draw.ack_delay + 1);
        self.acks_due.push_back((due, settings));
        Ok(())
    }

    fn ping_received(&mut self, net: &mut Net, frame: &RawFrame) -> Judged {
        if frame.payload.len() != 8 {
            return Err(frames("its size"));
        }
        if !frame.has(flag::ACK) {
            net.mark(Mark::Http2Asked);
            self.answer_ping(&frame.payload);
            return Ok(());
        }
        let Some(ping) = self.pings.pop_front().filter(|ping| ping.payload[..] == frame.payload) else {
            return Err(frames("an answer to another PING"));
        };
        for number in ping.reset {
            if let Some(stream) = self.streams.get_mut(&number) {
                stream.known_reset = true;
            }
        }
        if ping.resting && self.rests {
            self.rests = false;
            net.mark(Mark::Http2BackendAtRest);
            let missing = CONNECTION_WINDOW - self.down.connection;
            if missing > CONNECTION_WINDOW / 2 {
                return Err((CREDIT, format!("{missing} bytes have not come back")));
            }
        }
        Ok(())
    }

    fn window_received(&mut self, frame: &RawFrame) -> Judged {
        let more = frame.number(0).filter(|n| *n > 0 && frame.payload.len() == 4);
        let more = more.ok_or_else(|| frames("its size, or no credit at all"))?;
        let most = if frame.stream == 0 { CONNECTION_WINDOW } else { self.down.initial };
        match self.down.granted(frame.stream, more) {
            Some(window) if window > most => {
                Err((CREDIT, format!("{more} bytes more are {window}, {most} were to be had")))
            }
            _ => Ok(()),
        }
    }
}
