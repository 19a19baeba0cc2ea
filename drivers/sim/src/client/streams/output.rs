//! What a client sends over HTTP/2, frame by frame, and all that it may send besides.

use super::{Ping, Stream, StreamsConn, request_fields};
use crate::client::Client;
use crate::coverage::Mark;
use crate::fields;
use crate::http1::BodyFraming;
use crate::http2::{
    BlockDraw, FieldPairs, PREFACE, code, flag, kind, put_block, put_frame, setting, settings_payload,
};
use crate::net::Net;
use crate::payload::{self, PayloadKind};
use crate::scenario::{Http2Draw, MS, SEC};

/// No more frames are put together while so many bytes wait to be written.
const ENOUGH_OUT: usize = 8_000;
/// So many frames that nobody has asked for: fewer than a client may send.
const MAX_EXTRAS: u32 = 40;
/// The smallest window that a setting may draw.
const SMALL_WINDOW: u64 = 200_000;

impl Client {
    /// Puts frames together, as many as there is reason for now.
    pub(super) fn produce(&mut self, conn: &mut StreamsConn, net: &mut Net, socket: usize) {
        conn.begin(net);
        while conn.out.len() < ENOUGH_OUT && conn.violation.is_none() {
            conn.acknowledge(net, socket);
            conn.grant(net, socket);
            conn.extras(net);
            let opened = self.open_stream(conn, net);
            let sent = conn.send_some(net, socket);
            if !opened && !sent {
                break;
            }
        }
        conn.reset_some(net);
        conn.rest(net, socket);
    }

    /// Sends the head of the next request, if it is time for that.
    fn open_stream(&mut self, conn: &mut StreamsConn, net: &mut Net) -> bool {
        let open = conn.open_streams().count();
        let most = (conn.draw.concurrency as u64).min(conn.max_streams);
        if conn.todo.is_empty()
            || open as u64 >= most
            || conn.is_leaving()
            || conn.draw.waits_for_settings && !conn.settings_taken
        {
            return false;
        }
        if net.faults_on && conn.draw.goes_after.is_some_and(|after| conn.streams.len() >= after) {
            conn.going = true;
            net.mark(Mark::Http2ClientGoes);
            let payload = [0_u32.to_be_bytes(), code::NO_ERROR.to_be_bytes()].concat();
            put_frame(&mut conn.out, kind::GOAWAY, 0, 0, &payload);
            return false;
        }
        let first = conn.todo.front().map(|(id, _)| net.ledger.get(*id).websocket);
        if first == Some(true) && !conn.may_connect {
            // Nobody asks before he knows (RFC 8441 §3).
            return false;
        }
        let Some((id, mut head)) = conn.todo.pop_front() else { return false };
        if net.ledger.get(id).sends_cookie {
            self.put_cookie(net, id, &mut head);
        }
        let entry = net.ledger.get(id).clone();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let fields = request_fields(&head, id, scheme);
        let number = conn.next_stream;
        conn.next_stream += 2;
        conn.opened_early |= !conn.settings_taken;
        let mut body = Vec::new();
        let websocket = entry.websocket;
        let (kind, len) = match websocket {
            true => (PayloadKind::TunnelUp, entry.tunnel.0),
            false => (PayloadKind::Request, entry.len),
        };
        payload::fill(id, kind, 0, len, &mut body);
        let nothing = match entry.framing {
            BodyFraming::None => !websocket,
            BodyFraming::Length(0) => conn.rng.below(2) == 0,
            _ => false,
        };
        let before = conn.offset();
        conn.put_block(net, number, &fields, nothing);
        let after = conn.offset();
        let entry_sent = net.ledger.get_mut(id);
        (entry_sent.head_end, entry_sent.head_len) = (after, after - before);
        entry_sent.request_end = if nothing { after } else { u64::MAX };
        net.trace(20 << 20 | id, || format!("client {} sends {id} on stream {number}", self.index));
        conn.up.open(number);
        conn.down.windows.open(number);
        let waits = if conn.rng.below(2) == 0 { 3_600 * SEC } else { conn.rng.between(MS, 300 * MS) };
        let resets = net.faults_on && conn.rng.chance(net.scenario.http2.resets);
        let stalls = conn.rng.chance(net.scenario.http2.stalls);
        let early = if websocket { conn.draw_early(net, id) } else { 0 };
        let moves = if websocket { entry.tunnel.0 + entry.tunnel.1 } else { entry.len + entry.response_len };
        let ends_second = websocket && conn.rng.below(3) == 0;
        let resets = resets || websocket && net.faults_on && conn.rng.below(8) == 0;
        if stalls {
            net.mark(Mark::Http2StalledStream);
        }
        // The others may wait for the place that it has at a backend.
        let limited = net.config_versions.iter().flatten().flat_map(|pool| &pool.backends);
        let limited = limited.into_iter().any(|backend| backend.max_connections > 0);
        let stalls_until = match stalls {
            true if limited => net.now + conn.rng.between(MS, 3 * SEC),
            true => u64::MAX,
            false => 0,
        };
        conn.streams.insert(
            number,
            Stream {
                exchange: id,
                reader: self.of_stream(id),
                body,
                at: 0,
                trailer: entry.trailer,
                websocket,
                limit: if websocket { early as usize } else { usize::MAX },
                may_end: !websocket,
                ends_second,
                continue_by: entry.expect.then_some(net.now + waits),
                reset_after: resets.then(|| conn.rng.size(moves)),
                moved: 0,
                sent_end: nothing,
                sent_reset: false,
                known_end: false,
                known_reset: false,
                has_head: false,
                got_end: false,
                got_reset: false,
                received: 0,
                announced: None,
                stalls_until,
            },
        );
        true
    }
}

impl StreamsConn {
    /// How much of a tunnel is sent before anybody has said that it is there.
    fn draw_early(&mut self, net: &mut Net, id: u64) -> u64 {
        let all = net.ledger.get(id).tunnel.0;
        if all == 0 || self.rng.below(3) > 0 {
            return 0;
        }
        let early = 1 + self.rng.size(all - 1);
        net.ledger.get_mut(id).early = early;
        net.mark(Mark::EarlyTunnelBytes);
        early
    }

    /// The preface, and our settings.
    fn begin(&mut self, net: &mut Net) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        net.mark(Mark::Http2Client);
        self.out.extend_from_slice(PREFACE);
        let (initial, max_frame) = (self.draw.initial_window, self.draw.max_frame);
        self.send_settings(initial, max_frame, None);
    }

    fn send_settings(&mut self, initial: u32, max_frame: u32, table: Option<u32>) {
        let mut settings =
            vec![(setting::INITIAL_WINDOW_SIZE, initial), (setting::MAX_FRAME_SIZE, max_frame)];
        settings.extend(table.map(|table| (setting::HEADER_TABLE_SIZE, table)));
        if self.rng.below(4) == 0 {
            settings.push((setting::ENABLE_PUSH, 0));
            settings.push((0x7f7f, self.rng.next_u64() as u32));
        }
        put_frame(&mut self.out, kind::SETTINGS, 0, 0, &settings_payload(&settings));
        self.down.settings(i64::from(initial), max_frame);
        self.settings_table.push_back(table);
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
                    setting::INITIAL_WINDOW_SIZE => self.up.set_initial(i64::from(value)),
                    setting::MAX_FRAME_SIZE => self.max_frame = value,
                    setting::MAX_CONCURRENT_STREAMS => self.max_streams = u64::from(value),
                    setting::HEADER_TABLE_SIZE => self.encoder.allowed = value as usize,
                    _ => {}
                }
            }
            self.settings_taken = true;
            net.trace(29, || "a client acknowledges settings".into());
            put_frame(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
        }
    }

    /// Gives credit back: to each stream what it is to have, but to those that stall.
    fn grant(&mut self, net: &mut Net, socket: usize) {
        if self.grant_at > net.now {
            return net.wake_peer(socket, self.grant_at);
        }
        let mut granted = false;
        let stalls = |s: &Stream| s.stalls_until > net.now;
        let more = !self.todo.is_empty() && !self.is_leaving();
        let most = (self.draw.concurrency as u64).min(self.max_streams);
        let more = more && (self.open_streams().count() as u64) < most;
        let others = more || self.open_streams().any(|(_, s)| !stalls(s));
        let soonest = self.open_streams().map(|(_, s)| s.stalls_until).filter(|at| *at > net.now).min();
        let connection = (self.draw.connection_target - self.down.windows.connection, 0);
        let due: Vec<(i64, u32)> = self
            .open_streams()
            .filter(|(_, s)| !(s.got_end || others && stalls(s)))
            .filter_map(|(number, _)| {
                let window = self.down.windows.streams.get(number)?;
                Some((self.draw.stream_target - window, *number))
            })
            .chain([connection])
            .collect();
        for (missing, number) in due {
            let target = if number == 0 { self.draw.connection_target } else { self.draw.stream_target };
            // At least a fourth of it, so that there are not too many.
            if missing <= 0 || missing < target / 4 {
                continue;
            }
            let more = missing as u32;
            put_frame(&mut self.out, kind::WINDOW_UPDATE, 0, number, &more.to_be_bytes());
            self.down.windows.granted(number, more);
            granted = true;
        }
        if let Some(soonest) = soonest.filter(|at| *at < u64::MAX) {
            net.wake_peer(socket, soonest);
        }
        if granted && self.draw.grant_delay > 0 {
            self.grant_at = net.now + self.rng.below(self.draw.grant_delay);
        }
    }

    /// Frames that nobody has asked for.
    fn extras(&mut self, net: &mut Net) {
        if self.extras >= MAX_EXTRAS || self.resting {
            return;
        }
        let draw = net.scenario.http2.clone();
        if self.rng.chance(draw.pings) {
            self.extras += 1;
            self.send_ping(false);
        }
        if self.rng.chance(draw.settings) && self.extras < MAX_EXTRAS {
            self.extras += 5;
            let initial = self.rng.size(SMALL_WINDOW) as u32;
            let max_frame = self.rng.pick(&[16_384, 16_384, 20_000, 100_000]);
            let table = (self.rng.below(2) == 0).then(|| self.rng.size(8_192) as u32);
            self.send_settings(initial, max_frame, table);
            net.mark(Mark::Http2Settings);
        }
        if self.rng.chance(draw.priorities) {
            self.extras += 1;
            self.send_priority();
            net.mark(Mark::Http2Priority);
        }
        if self.rng.chance(draw.unknown) {
            self.extras += 1;
            let payload = vec![7; self.rng.size(300) as usize];
            let stream = self.next_stream.saturating_sub(2 * self.rng.below(3) as u32);
            put_frame(&mut self.out, kind::UNKNOWN, 0xff, stream, &payload);
            net.mark(Mark::Http2UnknownFrame);
        }
    }

    fn send_priority(&mut self) {
        let stream = self.next_stream + 2 * self.rng.below(3) as u32;
        if self.rng.below(2) == 0 {
            let depends = stream + 2;
            let payload = [&depends.to_be_bytes()[..], &[self.rng.below(256) as u8]].concat();
            return put_frame(&mut self.out, kind::PRIORITY, 0, stream, &payload);
        }
        let value = format!("u={}, i", self.rng.below(8));
        let payload = [&stream.to_be_bytes()[..], value.as_bytes()].concat();
        put_frame(&mut self.out, kind::PRIORITY_UPDATE, 0, 0, &payload);
    }

    fn send_ping(&mut self, resting: bool) {
        self.pings_sent += 1;
        let payload = (self.pings_sent << 32 | self.rng.below(1 << 32)).to_be_bytes();
        put_frame(&mut self.out, kind::PING, 0, 0, &payload);
        let ended = self.streams.iter().filter(|(_, s)| s.sent_end || s.sent_reset);
        let ended = ended.map(|(number, s)| (*number, s.sent_reset)).collect();
        self.pings.push_back(Ping { payload, ended, resting });
    }

    pub(super) fn answer_ping(&mut self, payload: &[u8]) {
        put_frame(&mut self.out, kind::PING, flag::ACK, 0, payload);
    }

    /// Sends a field block, in several frames perhaps.
    fn put_block(&mut self, net: &mut Net, stream: u32, fields: &FieldPairs, end: bool) {
        let mut block = Vec::new();
        self.encoder.encode(fields, &mut self.rng, &mut block);
        let Http2Draw { splits, padding, priorities, .. } = net.scenario.http2;
        let draw = BlockDraw { splits, padding, priorities };
        if put_block(&mut self.out, &block, &mut self.rng, stream, end, draw) {
            net.mark(Mark::Http2SplitBlock);
        }
    }

    /// Sends some content of some stream; false: there is none that can be sent.
    fn send_some(&mut self, net: &mut Net, socket: usize) -> bool {
        let now = net.now;
        let mut soonest = u64::MAX;
        let mut ready = Vec::new();
        for (number, stream) in self.streams.iter_mut() {
            if stream.is_over() || stream.sent_end {
                continue;
            }
            if let Some(by) = stream.continue_by {
                if stream.reader.continued == 0 && now < by && !stream.has_head {
                    soonest = soonest.min(by);
                    continue;
                }
                stream.continue_by = None;
            }
            let more = stream.at < stream.body.len().min(stream.limit);
            if stream.ends_now(net.faults_on) || more && self.up.left(*number) > 0 {
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
        self.send_data(net, number);
        true
    }

    fn send_data(&mut self, net: &mut Net, number: u32) {
        let most = self.up.left(number).min(u64::from(self.max_frame));
        let padding = if self.rng.chance(net.scenario.http2.padding) { self.rng.below(256) } else { 0 };
        let small = self.rng.below(4) == 0;
        let drawn = if small { 1 + self.rng.size(16_384) } else { most };
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let id = stream.exchange;
        let left = (stream.body.len().min(stream.limit) - stream.at) as u64;
        let n = left.min(drawn).min(most);
        // Padding counts as much as content (RFC 9113 §6.1).
        let padding = padding.min((most - n).saturating_sub(1));
        let data = &stream.body[stream.at..stream.at + n as usize];
        let mut payload = Vec::with_capacity(data.len() + 256);
        let mut flags = 0;
        if padding > 0 {
            flags |= flag::PADDED;
            payload.push(padding as u8);
        }
        payload.extend_from_slice(data);
        payload.resize(payload.len() + padding as usize, 0);
        stream.at += n as usize;
        stream.moved += n;
        let all = stream.ends_now(net.faults_on);
        // The end may come behind the content, too.
        let ends = all && !stream.trailer && (n == 0 || self.rng.below(2) == 0);
        if ends {
            flags |= flag::END_STREAM;
            stream.sent_end = true;
        }
        let trailer = all && stream.trailer;
        if n > 0 || ends {
            let counts = payload.len() as u64;
            let (most, all) = (self.up.left(number), self.up.connection);
            net.trace(28 << 20 | id, || {
                format!(
                    "{counts} bytes of {id} on stream {number}, flags {flags:#x}, {most} of {all} allowed"
                )
            });
            put_frame(&mut self.out, kind::DATA, flags, number, &payload);
            if let Err(why) = self.up.sent(number, counts) {
                net.ledger.fail("simulator", why);
            }
        }
        if trailer {
            let pair = |line: &String| {
                let (name, value) = line.split_once(": ").unwrap_or_default();
                (name.to_ascii_lowercase(), value.to_owned())
            };
            let fields = fields::trailers(id).iter().map(pair).collect();
            self.put_block(net, number, &fields, true);
            if let Some(stream) = self.streams.get_mut(&number) {
                stream.sent_end = true;
            }
        }
        if self.streams.get(&number).is_some_and(|stream| stream.sent_end) {
            let entry = net.ledger.get_mut(id);
            entry.request_end = self.offset();
            entry.tunnel_half_closed = entry.switched;
        }
    }

    /// Resets streams whose time has come: who gives up, and who needs nothing more.
    fn reset_some(&mut self, net: &mut Net) {
        let mut due = Vec::new();
        for (number, stream) in &self.streams {
            if stream.is_over() {
                continue;
            }
            let gives_up = stream.reset_after.is_some_and(|after| stream.moved >= after) && net.faults_on;
            let tunnel = stream.reader.tunnel.is_some();
            if gives_up || stream.got_end && !tunnel && self.draw.seed & 1 == 0 {
                due.push((*number, gives_up && (tunnel || !stream.got_end)));
            }
        }
        for (number, gives_up) in due {
            let Some(stream) = self.streams.get_mut(&number) else { continue };
            stream.sent_reset = true;
            self.up.close(number);
            self.down.windows.close(number);
            put_frame(&mut self.out, kind::RST_STREAM, 0, number, &code::CANCEL.to_be_bytes());
            if gives_up {
                let id = stream.exchange;
                net.trace(21 << 20 | id, || format!("stream {number} with {id} is given up"));
                net.mark(if stream.reader.tunnel.is_some() { Mark::TunnelReset } else { Mark::Http2Reset });
                net.ledger.get_mut(id).given_up = true;
                stream.reader.finish(net);
            }
        }
    }

    /// When all is over, asks the proxy whether it has said everything.
    fn rest(&mut self, net: &mut Net, socket: usize) {
        let ready = self.has_settings && self.acks_due.is_empty() && self.down.unacknowledged.is_empty();
        if ready && self.is_through() && !self.resting && net.ledger.violation.is_none() {
            // What both sides of a tunnel have said may still be on its way to the backend.
            let passes =
                |s: &Stream| s.reader.tunnel.is_some() && net.ledger.get(s.exchange).record.is_none();
            if net.faults_on && self.streams.values().any(passes) {
                return net.wake_peer(socket, net.now + 10 * MS);
            }
            self.resting = true;
            self.send_ping(true);
        }
    }
}
