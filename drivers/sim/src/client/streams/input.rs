//! Frames of the proxy: whether they may come, and what they are of.

use super::StreamsConn;
use super::head::response_text;
use crate::client::Client;
use crate::coverage::Mark;
use crate::http1::ParsedHead;
use crate::http2::{RawFrame, check_regular, code, flag, kind, setting, settings_of};
use crate::net::Net;

/// An invariant that does not hold, and what there is instead.
type Judged = Result<(), (&'static str, String)>;

const FRAMES: &str = "http2-frames";
const CREDIT: &str = "http2-credit";
const GOAWAY: &str = "http2-goaway";

fn frames(why: impl Into<String>) -> (&'static str, String) {
    (FRAMES, why.into())
}

impl Client {
    pub(super) fn frame_received(
        &mut self,
        conn: &mut StreamsConn,
        net: &mut Net,
        frame: &RawFrame,
    ) -> Judged {
        let len = frame.payload.len();
        net.trace(27 << 8 | u64::from(frame.kind), || {
            let (kind, flags, stream) = (frame.kind, frame.flags, frame.stream);
            let first: Vec<u8> = frame.payload.iter().take(8).copied().collect();
            format!("client {} gets frame {kind} {flags:#x} of {stream}, {len} bytes: {first:x?}", self.index)
        });
        if len > conn.down.max_frame() as usize {
            return Err(frames(format!("{len} bytes, {} allowed", conn.down.max_frame())));
        }
        if !conn.has_settings && frame.kind != kind::SETTINGS {
            return Err(frames("SETTINGS do not come first"));
        }
        if conn
            .block
            .as_ref()
            .is_some_and(|(stream, ..)| (frame.kind, frame.stream) != (kind::CONTINUATION, *stream))
        {
            return Err(frames("inside a field block"));
        }
        let of_connection = matches!(frame.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        if of_connection != (frame.stream == 0) && frame.kind != kind::WINDOW_UPDATE {
            return Err(frames("on the wrong stream"));
        }
        if frame.stream > 0 {
            Self::may_come(conn, frame)?;
        }
        match frame.kind {
            kind::DATA => self.data_received(conn, net, frame),
            kind::HEADERS => {
                if frame.has(flag::PADDED | flag::PRIORITY) {
                    return Err(frames("padding or priority of a proxy"));
                }
                let end = frame.has(flag::END_STREAM);
                conn.block = Some((frame.stream, end, frame.payload.clone()));
                self.block_received(conn, net, frame)
            }
            kind::CONTINUATION => {
                let Some((_, _, block)) = &mut conn.block else { return Err(frames("without a block")) };
                block.extend_from_slice(&frame.payload);
                self.block_received(conn, net, frame)
            }
            kind::RST_STREAM => self.reset_received(conn, net, frame),
            kind::SETTINGS => Self::settings_received(conn, net, frame),
            kind::PING => Self::ping_received(conn, net, frame),
            kind::GOAWAY => self.goaway_received(conn, net, frame),
            kind::WINDOW_UPDATE => Self::window_received(conn, net, frame),
            _ => Err(frames("a frame that no proxy sends")),
        }
    }

    /// Whether a frame may come on its stream at all (RFC 9113 §5.1).
    fn may_come(conn: &mut StreamsConn, frame: &RawFrame) -> Judged {
        let Some(stream) = conn.streams.get(&frame.stream) else {
            if conn.is_told(frame) {
                return Ok(());
            }
            return Err(frames("on a stream that nobody has opened"));
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
        if stream.known_end && frame.kind == kind::WINDOW_UPDATE {
            return Err(frames("credit for a stream that the proxy knows to have ended"));
        }
        if stream.known_end && stream.got_end && frame.kind == kind::RST_STREAM {
            return Err(frames("RST_STREAM on a stream that has ended both ways"));
        }
        Ok(())
    }

    fn data_received(&mut self, conn: &mut StreamsConn, net: &mut Net, frame: &RawFrame) -> Judged {
        let (number, len) = (frame.stream, frame.payload.len() as u64);
        if frame.has(flag::PADDED) {
            return Err(frames("padding of a proxy"));
        }
        conn.down.windows.sent(number, len).map_err(|why| (CREDIT, why))?;
        let Some(stream) = conn.streams.get_mut(&number) else { return Ok(()) };
        if !stream.has_head {
            return Err(frames("data before the head of a response"));
        }
        stream.received += len;
        stream.moved += len;
        if stream.sent_reset {
            return Ok(());
        }
        if len > 0 && !stream.reader.done {
            // The rest is compared with what was sent.
            stream.reader.received(net, &frame.payload);
        } else if len > 0 {
            return Err(("extra-bytes", format!("{len} bytes behind the response")));
        }
        if frame.has(flag::END_STREAM) {
            self.stream_ended(conn, net, number, Vec::new())?;
        }
        Ok(())
    }

    /// A part of a field block has come.
    fn block_received(&mut self, conn: &mut StreamsConn, net: &mut Net, frame: &RawFrame) -> Judged {
        if !frame.has(flag::END_HEADERS) {
            return Ok(());
        }
        let Some((number, end, block)) = conn.block.take() else { return Ok(()) };
        let fields = conn.decoder.decode(&block).map_err(|why| ("http2-hpack", why))?;
        let Some(stream) = conn.streams.get_mut(&number) else { return Ok(()) };
        if stream.sent_reset {
            stream.has_head = true;
            return Ok(());
        }
        if stream.has_head {
            if !end {
                return Err(frames("a second head"));
            }
            if stream.reader.tunnel.is_some() {
                return Err(frames("trailers of a tunnel"));
            }
            check_regular(&fields).map_err(frames)?;
            let trailers = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            return self.stream_ended(conn, net, number, trailers);
        }
        let (status, text) = response_text(&fields).map_err(|why| ("right-response", why))?;
        if status < 200 && end {
            return Err(frames("an interim response that ends the stream"));
        }
        if status >= 200 {
            stream.has_head = true;
            let head = ParsedHead::parse(&text);
            stream.announced = head.and_then(|head| head.number("content-length").ok().flatten());
            let to_head = net.ledger.get(stream.exchange).method == "HEAD";
            if to_head || matches!(status, 204 | 304) {
                stream.announced = Some(0);
            }
        }
        stream.reader.received(net, &text);
        if stream.websocket && status >= 200 {
            stream.settled();
        }
        let cookies = std::mem::take(&mut stream.reader.cookies);
        self.cookies.extend(cookies);
        if end {
            self.stream_ended(conn, net, number, Vec::new())?;
        }
        Ok(())
    }

    /// The proxy has ended its side of a stream.
    fn stream_ended(
        &mut self,
        conn: &mut StreamsConn,
        net: &mut Net,
        number: u32,
        trailers: Vec<String>,
    ) -> Judged {
        let Some(stream) = conn.streams.get_mut(&number) else { return Ok(()) };
        stream.got_end = true;
        if !stream.has_head {
            return Err(("response-incomplete", "the end of a stream without a response".into()));
        }
        if stream.announced.is_some_and(|announced| announced != stream.received) {
            let why = format!("{} bytes, {:?} announced", stream.received, stream.announced);
            return Err(("right-length", why));
        }
        if stream.reader.tunnel.is_some() {
            stream.reader.tunnel_ended(net);
            stream.reader.finish(net);
        } else if stream.reader.reads_until_end() {
            stream.reader.end_of_stream(net, trailers);
        } else if !trailers.is_empty() {
            return Err(("right-trailers", format!("{trailers:?} behind no content")));
        }
        if !stream.reader.done {
            return Err(("response-incomplete", "the end of a stream in the middle".into()));
        }
        net.mark(Mark::Http2Response);
        if conn.open_streams().any(|(other, s)| *other < number && !s.got_end) {
            net.mark(Mark::Http2Overtaken);
        }
        self.responses += 1;
        Ok(())
    }

    fn reset_received(&mut self, conn: &mut StreamsConn, net: &mut Net, frame: &RawFrame) -> Judged {
        let code = frame.number(0).filter(|_| frame.payload.len() == 4).ok_or_else(|| frames("its size"))?;
        let fault_free = net.scenario.fault_free;
        let Some(stream) = conn.streams.get_mut(&frame.stream) else { return Ok(()) };
        if code == code::REFUSED_STREAM {
            net.mark(Mark::Http2Refused);
        }
        stream.got_reset = true;
        conn.down.windows.close(frame.stream);
        conn.up.close(frame.stream);
        if stream.sent_reset {
            return Ok(());
        }
        let id = stream.exchange;
        net.trace(18 << 20 | id, || format!("stream {} with {id} is reset: {code}", frame.stream));
        let tunnel = stream.reader.tunnel.is_some();
        if tunnel && ![code::CANCEL, code::NO_ERROR].contains(&code) {
            return Err(frames(format!("code {code} for a tunnel")));
        }
        if stream.got_end && !(tunnel && code == code::CANCEL) {
            // There is no need for the rest of the request.
            if code != code::NO_ERROR {
                return Err(frames(format!("code {code} behind a whole response")));
            }
            net.mark(Mark::Http2RestRefused);
            return Ok(());
        }
        let refused = code == code::REFUSED_STREAM && conn.opened_early;
        if fault_free && !refused {
            return Err(("fault-free", format!("request {id} is reset: {code}")));
        }
        if code == code::NO_ERROR {
            return Err(frames("NO_ERROR without a whole response"));
        }
        stream.reader.finish(net);
        net.mark(Mark::Http2Cut);
        let entry = net.ledger.get_mut(id);
        entry.cut = true;
        if code == code::REFUSED_STREAM {
            entry.refused = true;
        }
        self.responses += usize::from(!stream.got_end);
        Ok(())
    }

    fn settings_received(conn: &mut StreamsConn, net: &mut Net, frame: &RawFrame) -> Judged {
        if frame.has(flag::ACK) {
            let due = conn.has_settings && frame.payload.is_empty() && conn.down.acknowledge();
            let table = conn.settings_table.pop_front();
            if let Some(Some(table)) = table {
                conn.decoder.set_allowed(table as usize);
            }
            return if due { Ok(()) } else { Err(frames("an acknowledgement of nothing")) };
        }
        conn.has_settings = true;
        let settings = settings_of(&frame.payload).ok_or_else(|| frames("its size"))?;
        if settings.iter().any(|(id, _)| *id == setting::ENABLE_PUSH) {
            return Err(frames("ENABLE_PUSH of a server"));
        }
        conn.may_connect |= settings.contains(&(setting::ENABLE_CONNECT_PROTOCOL, 1));
        if !conn.may_connect {
            return Err(("websocket-announced", format!("SETTINGS {settings:?}")));
        }
        let due = net.now + conn.rng.below(conn.draw.ack_delay + 1);
        conn.acks_due.push_back((due, settings));
        Ok(())
    }

    fn ping_received(conn: &mut StreamsConn, net: &mut Net, frame: &RawFrame) -> Judged {
        if frame.payload.len() != 8 {
            return Err(frames("its size"));
        }
        if !frame.has(flag::ACK) {
            conn.answer_ping(&frame.payload);
            return Ok(());
        }
        let Some(ping) = conn.pings.pop_front().filter(|ping| ping.payload[..] == frame.payload) else {
            return Err(frames("an answer to another PING"));
        };
        net.mark(Mark::Http2Ping);
        for (number, reset) in ping.ended {
            if let Some(stream) = conn.streams.get_mut(&number) {
                (stream.known_end, stream.known_reset) = (true, reset);
            }
        }
        if ping.resting {
            conn.rested = true;
            conn.check_credit_at_rest(net)?;
            conn.violate(net);
        }
        Ok(())
    }

    fn goaway_received(&mut self, conn: &mut StreamsConn, net: &mut Net, frame: &RawFrame) -> Judged {
        let (Some(last), Some(code)) = (frame.number(0), frame.number(4)) else {
            return Err(frames("its size"));
        };
        if code != code::NO_ERROR {
            if conn.is_told(frame) {
                net.mark(Mark::Http2Told);
                return Ok(());
            }
            return Err((GOAWAY, format!("code {code}")));
        }
        if conn.last_taken.is_some_and(|before| last > before) {
            return Err((GOAWAY, format!("{last} after {:?}", conn.last_taken)));
        }
        net.trace(19, || format!("client {} is told to go, {last} is the last", self.index));
        net.mark(if last < 1 << 30 { Mark::Http2LastStream } else { Mark::Http2Goaway });
        conn.last_taken = Some(last);
        let above: Vec<u32> = conn.streams.range(last + 1..).map(|(number, _)| *number).collect();
        for number in above {
            let Some(stream) = conn.streams.get_mut(&number) else { continue };
            if stream.has_head {
                return Err((GOAWAY, format!("stream {number} has a response, {last} is the last")));
            }
            if stream.sent_reset {
                continue;
            }
            stream.got_reset = true;
            stream.reader.finish(net);
            net.mark(Mark::Http2TooLate);
            net.ledger.get_mut(stream.exchange).refused = true;
        }
        Ok(())
    }

    fn window_received(conn: &mut StreamsConn, net: &Net, frame: &RawFrame) -> Judged {
        let more = frame.number(0).filter(|n| *n > 0 && frame.payload.len() == 4);
        let more = more.ok_or_else(|| frames("its size, or no credit at all"))?;
        let whole = i64::from(net.scenario.http2.connection_window);
        let most = if frame.stream == 0 { whole } else { conn.up.initial };
        match conn.up.granted(frame.stream, more) {
            Some(window) if window > most => {
                Err((CREDIT, format!("{more} bytes more are {window}, {most} were to be had")))
            }
            _ => Ok(()),
        }
    }
}

impl StreamsConn {
    /// Nothing is under way any more: all credit has come back, but for less than half of the window, of
    /// which nobody needs to be told.
    fn check_credit_at_rest(&self, net: &mut Net) -> Judged {
        net.mark(Mark::Http2AtRest);
        let whole = i64::from(net.scenario.http2.connection_window);
        let missing = whole - self.up.connection;
        if missing > whole / 2 {
            return Err((CREDIT, format!("{missing} bytes have not come back")));
        }
        Ok(())
    }
}
