//! What a backend sends over HTTP/2, frame by frame, and all that it may send besides.

use super::piece::Piece;
use super::{Ping, StreamsConn};
use crate::coverage::Mark;
use crate::exchanges::ResponsePlan;
use crate::http2::{
    BlockDraw, FieldPairs, code, flag, kind, put_block, put_frame, setting, settings_payload,
};
use crate::net::Net;

/// No more frames are put together while so many bytes wait to be written.
const ENOUGH_OUT: usize = 8_000;
/// So many frames that nobody has asked for: fewer than a backend may send.
const MAX_EXTRAS: u32 = 40;
/// The largest window that a setting draws in mid-connection.
const SMALL_WINDOW: u64 = 100_000;

impl StreamsConn {
    /// Puts frames together, as many as there is reason for now.
    pub(super) fn produce(&mut self, net: &mut Net, socket: usize) {
        if self.offence.is_some() {
            return;
        }
        self.begin(net, socket);
        while self.out.len() < ENOUGH_OUT {
            self.acknowledge(net, socket);
            self.grant(net, socket);
            self.extras(net);
            if !self.send_piece(net, socket) {
                break;
            }
        }
        self.go_on_leaving(net, socket);
        self.rest();
    }

    /// Our settings come first.
    fn begin(&mut self, net: &mut Net, socket: usize) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let draw = self.draw.clone();
        self.send_settings(draw.initial_window, draw.max_frame, draw.table, draw.max_streams);
        let end = self.offset();
        if let Some(log) = net.sockets[socket].streams.as_mut().filter(|_| draw.websockets) {
            log.websockets = Some(end);
        }
    }

    fn send_settings(&mut self, initial: u32, max_frame: u32, table: Option<u32>, streams: Option<u32>) {
        let mut settings =
            vec![(setting::INITIAL_WINDOW_SIZE, initial), (setting::MAX_FRAME_SIZE, max_frame)];
        settings.extend(table.map(|table| (setting::HEADER_TABLE_SIZE, table)));
        // Once is enough (RFC 8441 §3).
        if self.offset() == 0 && self.draw.websockets {
            settings.push((setting::ENABLE_CONNECT_PROTOCOL, 1));
        }
        settings.extend(streams.map(|streams| (setting::MAX_CONCURRENT_STREAMS, streams)));
        if self.rng.below(4) == 0 {
            settings.push((setting::ENABLE_PUSH, 0));
            settings.push((0x7f7f, self.rng.next_u64() as u32));
        }
        put_frame(&mut self.out, kind::SETTINGS, 0, 0, &settings_payload(&settings));
        self.up.settings(i64::from(initial), max_frame);
        self.unacknowledged.push_back((table, streams));
    }

    /// How many streams the newest setting allows.
    pub(super) fn newest_max_streams(&self) -> Option<u32> {
        self.unacknowledged.iter().rev().find_map(|(_, streams)| *streams).or(self.max_streams)
    }

    /// Acknowledges settings of the proxy, when it is time.
    fn acknowledge(&mut self, net: &mut Net, socket: usize) {
        while let Some((due, _)) = self.acks_due.front() {
            if *due > net.now {
                return net.wake_peer(socket, *due);
            }
            let (_, settings) = self.acks_due.pop_front().unwrap_or_default();
            for (id, value) in settings {
                match id {
                    setting::INITIAL_WINDOW_SIZE => self.down.set_initial(i64::from(value)),
                    setting::MAX_FRAME_SIZE => self.max_frame = value,
                    setting::HEADER_TABLE_SIZE => self.encoder.allowed = value as usize,
                    _ => {}
                }
            }
            self.settings_taken = true;
            if self.draw.deaf {
                net.mark(Mark::Http2Deaf);
                continue;
            }
            put_frame(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
            let end = self.offset();
            if let Some(log) = &mut net.sockets[socket].streams {
                log.settled.get_or_insert(end);
            }
        }
    }

    /// Gives credit back: to each stream what it is to have, but to those that stall.
    fn grant(&mut self, net: &mut Net, socket: usize) {
        if self.grant_at > net.now {
            return net.wake_peer(socket, self.grant_at);
        }
        let connection = (self.draw.connection_target - self.up.windows.connection, 0);
        let mut soonest = u64::MAX;
        let mut due = vec![connection];
        for (number, stream) in self.open_streams().filter(|(_, s)| !s.got_end) {
            if stream.stalls_until > net.now {
                soonest = soonest.min(stream.stalls_until);
            } else if let Some(window) = self.up.windows.streams.get(number) {
                due.push((self.draw.stream_target - window, *number));
            }
        }
        if soonest < u64::MAX && self.out.is_empty() {
            self.judge_others(net, socket);
        }
        let mut granted = false;
        for (missing, number) in due {
            let target = if number == 0 { self.draw.connection_target } else { self.draw.stream_target };
            // At least a fourth of it, so that there are not too many.
            if missing <= 0 || missing < target / 4 {
                continue;
            }
            let more = missing as u32;
            put_frame(&mut self.out, kind::WINDOW_UPDATE, 0, number, &more.to_be_bytes());
            self.up.windows.granted(number, more);
            granted = true;
            match self.streams.get_mut(&number) {
                Some(stream) => stream.credit_since = net.now,
                None => self.credit_since = net.now,
            }
        }
        if soonest < u64::MAX {
            net.wake_peer(socket, soonest);
        }
        if granted && self.draw.grant_delay > 0 {
            self.grant_at = net.now + self.rng.below(self.draw.grant_delay);
        }
    }

    /// Some request is given no credit: others of other clients go on.
    fn judge_others(&self, net: &mut Net, socket: usize) {
        if !self.up.unacknowledged.is_empty() || self.has_said_to_leave() {
            return;
        }
        for (number, stream) in self.open_streams() {
            // Bytes of a tunnel may have to wait until it is there.
            let open =
                stream.exchange > 0 && !stream.websocket && !stream.got_end && stream.stalls_until == 0;
            if open && self.up.windows.left(*number) > 0 {
                let since = stream.credit_since.max(self.credit_since);
                net.judge_independence(stream.exchange, (socket, *number), since);
            }
        }
    }

    /// Frames that nobody has asked for.
    fn extras(&mut self, net: &mut Net) {
        if self.extras >= MAX_EXTRAS || self.rests || self.last_stream == 0 {
            return;
        }
        let draw = net.scenario.http2.backends.clone();
        if self.rng.chance(draw.pings) {
            self.extras += 1;
            self.send_ping(false);
        }
        if self.rng.chance(draw.settings) && self.extras < MAX_EXTRAS {
            self.extras += 5;
            let initial = self.rng.size(SMALL_WINDOW) as u32;
            let max_frame = self.rng.pick(&[16_384, 16_384, 20_000, 100_000]);
            let table = (self.rng.below(2) == 0).then(|| self.rng.size(8_192) as u32);
            // None at all only for a while, which nobody can count on.
            let least = u64::from(net.scenario.fault_free || !net.faults_on);
            let streams = (self.rng.below(2) == 0).then(|| self.rng.between(least, 6) as u32);
            self.send_settings(initial, max_frame, table, streams);
            net.mark(Mark::Http2BackendSettings);
        }
        if self.rng.chance(draw.unknown) {
            self.extras += 1;
            let payload = vec![7; self.rng.size(300) as usize];
            let stream = self.last_stream.saturating_sub(2 * self.rng.below(3) as u32);
            put_frame(&mut self.out, kind::UNKNOWN, 0xff, stream, &payload);
        }
    }

    fn send_ping(&mut self, resting: bool) {
        self.pings_sent += 1;
        let payload = (self.pings_sent << 32 | self.rng.below(1 << 32)).to_be_bytes();
        put_frame(&mut self.out, kind::PING, 0, 0, &payload);
        let reset = self.streams.iter().filter(|(_, s)| s.sent_reset).map(|(number, _)| *number).collect();
        self.pings.push_back(Ping { payload, reset, resting });
    }

    pub(super) fn answer_ping(&mut self, payload: &[u8]) {
        put_frame(&mut self.out, kind::PING, flag::ACK, 0, payload);
    }

    /// Resets a stream.
    pub(super) fn reset_stream(&mut self, net: &mut Net, socket: usize, number: u32, code: u32) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        stream.sent_reset = true;
        stream.pieces.clear();
        put_frame(&mut self.out, kind::RST_STREAM, 0, number, &code.to_be_bytes());
        self.up.windows.close(number);
        self.down.close(number);
        net.trace(53, || format!("the backend of {socket} resets stream {number}: {code}"));
        let end = self.offset();
        if let Some(log) = &mut net.sockets[socket].streams {
            log.on(number).reset = Some((end, code));
        }
    }

    /// The run heals: streams that would never be answered are reset.
    pub(super) fn reset_unanswered(&mut self, net: &mut Net, socket: usize) {
        // A tunnel ends when its client has ended it.
        let unanswered =
            |stream: &super::Stream| stream.answered && stream.pieces.is_empty() && !stream.switched;
        let due: Vec<u32> = self
            .open_streams()
            .filter(|(_, s)| unanswered(s) && !s.sent_end)
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            self.reset_stream(net, socket, number, code::INTERNAL_ERROR);
        }
    }

    /// Sends a part of some answer; false: there is none that can be sent.
    fn send_piece(&mut self, net: &mut Net, socket: usize) -> bool {
        let waits = net.faults_on || net.scenario.fault_free;
        let mut soonest = u64::MAX;
        let mut ready = Vec::new();
        for (number, stream) in &self.streams {
            if stream.sent_reset || stream.got_reset || stream.ignored {
                continue;
            }
            let Some(piece) = stream.pieces.front() else { continue };
            if stream.thinks_until > net.now {
                soonest = soonest.min(stream.thinks_until);
                continue;
            }
            if stream.not_before > net.now && waits {
                soonest = soonest.min(stream.not_before);
                continue;
            }
            let blocked = matches!(piece, Piece::Data(to) if stream.at < *to) && self.down.left(*number) == 0;
            // Nobody answers a proxy whose settings have not come.
            if !blocked && self.settings_taken {
                ready.push(*number);
            }
        }
        if soonest < u64::MAX {
            net.wake_peer(socket, soonest);
        }
        if ready.is_empty() {
            return false;
        }
        let number = self.rng.pick(&ready);
        self.put_piece(net, socket, number);
        true
    }

    fn put_piece(&mut self, net: &mut Net, socket: usize, number: u32) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let Some(piece) = stream.pieces.front().cloned() else { return };
        if !matches!(piece, Piece::Data(_)) {
            stream.pieces.pop_front();
        }
        match piece {
            Piece::Pause(time) => stream.not_before = net.now + time,
            Piece::Interim(fields) => {
                self.put_head(net, number, &fields, false);
                self.said(net, socket, number, None);
            }
            Piece::Head { fields, good } => {
                let probe = stream.exchange == 0;
                stream.sent_head = true;
                stream.switched = stream.websocket && fields[0].1 == "200";
                // Behind nothing at all the end may come with the head.
                let empty = matches!(stream.pieces.front(), Some(Piece::Data(0)));
                if empty {
                    stream.pieces.pop_front();
                }
                let ends =
                    empty && matches!(stream.pieces.front(), Some(Piece::End)) && self.rng.below(2) == 0;
                if ends {
                    stream.pieces.clear();
                    stream.sent_end = true;
                }
                self.put_head(net, number, &fields, ends);
                if let (true, Ok(status)) = (probe, fields[0].1.parse()) {
                    net.sockets[socket].probe_reply = Some((status, self.offset()));
                }
                self.said(net, socket, number, Some((good, ends)));
            }
            Piece::Data(to) => self.put_data(net, socket, number, to),
            Piece::Trailers(fields) => {
                stream.sent_end = true;
                self.put_head(net, number, &fields, true);
                net.mark(Mark::Http2BackendTrailers);
                self.said(net, socket, number, Some((false, true)));
            }
            Piece::End => {
                stream.sent_end = true;
                put_frame(&mut self.out, kind::DATA, flag::END_STREAM, number, &[]);
                self.said(net, socket, number, Some((false, true)));
            }
            Piece::Reset(code) => self.reset_stream(net, socket, number, code),
        }
    }

    fn put_head(&mut self, net: &mut Net, number: u32, fields: &FieldPairs, end: bool) {
        let mut block = Vec::new();
        self.encoder.encode(fields, &mut self.rng, &mut block);
        let draw = &net.scenario.http2.backends;
        let draw = BlockDraw { splits: draw.splits, padding: draw.padding, priorities: 0 };
        if put_block(&mut self.out, &block, &mut self.rng, number, end, draw) {
            net.mark(Mark::Http2SplitBlockOfBackend);
        }
    }

    fn put_data(&mut self, net: &mut Net, socket: usize, number: u32, to: usize) {
        let most = self.down.left(number).min(u64::from(self.max_frame));
        let padding =
            if self.rng.chance(net.scenario.http2.backends.padding) { self.rng.below(256) } else { 0 };
        let drawn = if self.rng.below(4) == 0 { 1 + self.rng.size(16_384) } else { most };
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let to = to.min(stream.content.len());
        let left = to.saturating_sub(stream.at) as u64;
        let n = left.min(drawn).min(most);
        // Padding counts as much as content (RFC 9113 §6.1).
        let padding = padding.min((most - n).saturating_sub(1));
        let mut payload = Vec::new();
        let mut flags = 0;
        if padding > 0 {
            flags |= flag::PADDED;
            payload.push(padding as u8);
        }
        payload.extend_from_slice(&stream.content[stream.at..stream.at + n as usize]);
        payload.resize(payload.len() + padding as usize, 0);
        stream.at += n as usize;
        let mut ends = false;
        if stream.at >= to {
            stream.pieces.pop_front();
            // The end may come behind the content, too.
            ends = n > 0 && matches!(stream.pieces.front(), Some(Piece::End)) && self.rng.below(2) == 0;
            if ends {
                stream.pieces.pop_front();
                stream.sent_end = true;
                flags |= flag::END_STREAM;
            }
        }
        if n == 0 {
            return;
        }
        if self.down.left(number) == payload.len() as u64 && self.draw.freezes.is_some() {
            // It freezes in the middle of a frame that takes all the credit of its stream.
            self.draw.freezes = Some(self.offset() + 9 + self.rng.size(payload.len() as u64 - 1));
            self.freezes_in_frame = true;
        }
        put_frame(&mut self.out, kind::DATA, flags, number, &payload);
        if let Err(why) = self.down.sent(number, payload.len() as u64) {
            net.ledger.fail("simulator", why);
        }
        self.said(net, socket, number, Some((false, ends)));
        // What moves is content: padding behind it is none.
        if let Some(log) = &mut net.sockets[socket].streams
            && let Some(end) = log.on(number).frames.last_mut()
        {
            *end -= padding;
        }
    }

    /// A frame of a response has been put together: enters into the ledger where it lies. `head`: it is the
    /// one of a final response, and a good one; `ends`: it ends the response.
    fn said(&mut self, net: &mut Net, socket: usize, number: u32, what: Option<(bool, bool)>) {
        let end = self.offset();
        if let Some(log) = &mut net.sockets[socket].streams {
            log.on(number).frames.push(end);
        }
        let Some(id) = self.streams.get(&number).map(|stream| stream.exchange).filter(|id| *id > 0) else {
            return;
        };
        let Some(attempt) = net.ledger.get_mut(id).attempt_at((socket, number)) else { return };
        attempt.response_offset = attempt.response_offset.min(end - 1);
        if let Some((head, ends)) = what {
            if head {
                attempt.response = Some(ResponsePlan { head_end: end, end: u64::MAX });
            }
            if let Some(plan) = attempt.response.as_mut().filter(|_| ends) {
                plan.end = end;
            }
        }
    }

    /// When nothing is under way, asks the proxy whether it has said everything.
    fn rest(&mut self) {
        let ready = self.settings_taken && self.acks_due.is_empty() && self.up.unacknowledged.is_empty();
        let idle = self.last_stream > 0 && self.open_streams().next().is_none();
        let asked = self.pings.iter().any(|ping| ping.resting);
        // Whose settings nobody acknowledges gives no more credit than at first.
        let ready = ready && !self.draw.deaf;
        if ready && idle && !self.rests && !asked && self.rng.below(4) == 0 {
            self.rests = true;
            self.send_ping(true);
        }
    }
}
