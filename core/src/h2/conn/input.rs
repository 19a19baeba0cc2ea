//! What comes: frames, one after the other, and what they mean for streams and connection.

use super::leaving::{DRAIN_PING, Drain};
use super::{Assembly, Conn, Data, Event, KEEPALIVE_PING, LastRequest, Received, Role, STREAM_CREDIT};
use crate::h2::abuse::Abuse;
use crate::h2::frame::{Frame, MAX_STREAM, Settings};
use crate::h2::head::{self, Asked, HeadError};
use crate::h2::hpack::{BlockLimits, Fit, HpackError};
use crate::h2::machine::{Event as Step, Fault, State};
use crate::h2::priority::Priority;
use crate::h2::reason::Reason;
use crate::h2::settings::id;
use crate::h2::write;
use crate::http::{Framing, Violation};
use crate::planted::planted;
use crate::time::Instant;

/// Frames of one field block.
const MAX_PARTS: u32 = 32;
/// Priorities that are kept for streams that have not been opened.
const MAX_EARLY: usize = 16;

/// An event, none for now, or an error of the connection.
type Handled = Result<Option<Event>, Reason>;

/// A field block that is whole.
struct Block<'a> {
    stream: u32,
    bytes: &'a [u8],
    end_stream: bool,
    depends_on_itself: bool,
}

/// What is known of the fields of a block.
#[derive(Clone, Copy)]
enum Read {
    /// They are in [`Received::block`], as far as they keep the limits. `version`: that of the decoder before
    /// it.
    Fields { fit: Fit, version: u64 },
    /// It is a request that has come before.
    Repeated,
}

impl Conn {
    /// The next thing that came; what belongs to it is in `received`.
    pub fn poll_event(&mut self, received: &mut Received, now: Instant) -> Option<Event> {
        self.data = Data::None;
        while !self.failed {
            if let Some(event) = self.pending.pop_front() {
                received.trailers.clear();
                if let Event::End { stream } = event {
                    self.end_if_closed(stream);
                }
                return Some(event);
            }
            if let Some(event) = self.hand_out_held(received) {
                return Some(event);
            }
            // Taken out, so that a frame can lie in it while it is handled.
            let input = std::mem::take(&mut self.input);
            let read = self.reader.next(&input[self.at..self.end]);
            let handled = match read {
                Err(reason) => Err(reason),
                Ok((0, None)) => {
                    self.input = input;
                    return None;
                }
                Ok((n, frame)) => {
                    let from = self.at;
                    self.at += n;
                    match frame {
                        Some(frame) => self.frame(frame, from, received, now),
                        None => Ok(None),
                    }
                }
            };
            self.input = input;
            match handled {
                Ok(None) => {}
                Ok(Some(event)) => return Some(event),
                Err(reason) => return Some(self.fail(reason)),
            }
        }
        None
    }

    /// Data that could not be handed out at once, as far as some was released.
    fn hand_out_held(&mut self, received: &mut Received) -> Option<Event> {
        while let Some(&stream) = self.resumed.last() {
            let Some(found) = self.streams.get_mut(stream) else {
                self.resumed.pop();
                continue;
            };
            let n = found.held.len().min((STREAM_CREDIT - found.handed.min(STREAM_CREDIT)) as usize);
            if n > 0 {
                self.data = Data::Held(found.held.take(n));
                found.handed += n as u32;
                self.held_bytes -= n;
                return Some(Event::Data { stream });
            }
            self.resumed.pop();
            if found.held.is_empty()
                && let Some(trailers) = found.held_end.take()
            {
                received.trailers = trailers;
                if let Some(reason) = found.reset {
                    self.pending.push_back(Event::Reset { stream, reason, unprocessed: false });
                }
                self.end_if_closed(stream);
                return Some(Event::End { stream });
            }
        }
        None
    }

    fn frame(&mut self, frame: Frame<'_>, from: usize, received: &mut Received, now: Instant) -> Handled {
        // The first frame of either side is SETTINGS (RFC 9113 §3.4).
        if !self.has_settings && !matches!(frame, Frame::Settings(_)) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        match frame {
            Frame::Data { stream, bytes, end_stream } => {
                // It is the end of what was read.
                let to = self.at;
                debug_assert!(to - bytes.len() >= from);
                Ok(self.data_piece(stream, bytes, to, end_stream))
            }
            Frame::DataBegins { stream, counts, padding, end_stream } => {
                self.data_begins(stream, counts, padding, end_stream, now)
            }
            Frame::Headers { stream, block, end_headers, end_stream, depends_on_itself } => {
                if !end_headers {
                    let bytes = block.to_vec();
                    self.block = Some(Assembly { bytes, parts: 1, end_stream, depends_on_itself });
                    return Ok(None);
                }
                self.block(&Block { stream, bytes: block, end_stream, depends_on_itself }, received, now)
            }
            Frame::Continuation { stream, block, end_headers } => {
                self.continuation(stream, block, end_headers, received, now)
            }
            Frame::Priority { stream, depends_on_itself } => {
                self.spend(Abuse::Glitches, now)?;
                if depends_on_itself {
                    self.stream_error(stream, Reason::PROTOCOL_ERROR, now)
                } else {
                    Ok(None)
                }
            }
            Frame::StreamError { stream, reason } => self.stream_error(stream, reason, now),
            Frame::Reset { stream, reason } => self.peer_reset(stream, reason, now),
            Frame::Settings(settings) => self.settings(settings, now),
            Frame::SettingsAck => {
                if std::mem::replace(&mut self.settings_acked, true) {
                    self.spend(Abuse::Glitches, now)?;
                } else {
                    self.settings_are_known();
                }
                Ok(None)
            }
            Frame::Ping { ack, data } => {
                if !ack {
                    self.spend(Abuse::Pings, now)?;
                    write::ping(&mut self.out, true, data);
                } else if data == DRAIN_PING && self.drain == Drain::Announced {
                    self.drained();
                } else if data == KEEPALIVE_PING && self.pinged {
                    self.pinged = false;
                } else {
                    self.spend(Abuse::Glitches, now)?;
                }
                Ok(None)
            }
            Frame::GoAway { last_stream, .. } => Ok(self.go_away(last_stream)),
            Frame::WindowUpdate { stream, increment } => self.window_update(stream, increment, now),
            Frame::PriorityUpdate { stream, value } => {
                self.spend(Abuse::Glitches, now)?;
                self.priority_update(stream, Priority::parse(value))
            }
            Frame::Unknown => self.spend(Abuse::Glitches, now).map(|()| None),
        }
    }

    // Which stream.

    /// Whether nobody has ever opened this stream.
    fn is_idle(&self, stream: u32) -> bool {
        let ours = (stream % 2 == 1) == (self.role == Role::Client);
        if ours { stream > self.last_sent } else { stream > self.last_peer }
    }

    /// What an event does to a stream that is not open.
    fn not_open(&mut self, stream: u32, step: Step, now: Instant) -> Handled {
        if self.is_idle(stream) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        // A backend may be slow to see that we have reset a stream, and some send a head even behind a reset
        // of their own. It carries the requests of others too: what comes of streams that are over is
        // nothing.
        if self.role == Role::Client {
            return Ok(None);
        }
        // Of one that ended long ago nobody knows how.
        let head = matches!(step, Step::RecvHead | Step::RecvHeadEnd);
        let Some(state) = self.streams.how_ended(stream) else {
            return if head {
                Err(Reason::PROTOCOL_ERROR)
            } else {
                self.spend(Abuse::Glitches, now).map(|()| None)
            };
        };
        match state.next(step) {
            Err(Fault::Connection(reason)) => Err(reason),
            Err(Fault::Stream(reason)) => {
                self.spend(Abuse::ResetsCaused, now)?;
                write::reset(&mut self.out, stream, reason);
                Ok(None)
            }
            Ok(state) => {
                self.streams.remember(stream, state);
                self.spend(Abuse::Glitches, now).map(|()| None)
            }
            // However many there are, a window or a budget has counted them.
            _ if matches!(step, Step::RecvData | Step::RecvWindow) => Ok(None),
            _ => self.spend(Abuse::Glitches, now).map(|()| None),
        }
    }

    /// The peer broke a rule of a stream (RFC 9113 §5.4.2). What it has said in full before stays said.
    fn stream_error(&mut self, stream: u32, reason: Reason, now: Instant) -> Handled {
        let state = self.streams.get(stream).map_or(State::Idle, |found| found.state);
        if self.role == Role::Server || state == State::Idle || state.may_receive() {
            return self.malformed(stream, reason, now);
        }
        // A response that is whole is a valid one whatever comes behind it (RFC 9113 §8.1).
        self.spend(Abuse::ResetsCaused, now)?;
        if state.next(Step::SendReset).is_ok() {
            write::reset(&mut self.out, stream, reason);
        }
        Ok(self.end_behind_message(stream, State::ResetByUs, reason))
    }

    /// The peer broke a rule of a stream in a message that is not whole, or by the frame that ends it: there
    /// is no message.
    fn malformed(&mut self, stream: u32, reason: Reason, now: Instant) -> Handled {
        let Some(found) = self.streams.get(stream).filter(|found| found.state != State::Idle) else {
            if self.is_idle(stream) {
                return Err(reason);
            }
            return self.spend(Abuse::Glitches, now).map(|()| None);
        };
        // Nobody knows of a request that has no head yet.
        let known = found.has_head || self.role == Role::Client;
        self.spend(Abuse::ResetsCaused, now)?;
        self.reset(stream, reason);
        Ok(known.then_some(match self.role {
            Role::Server => Event::Reset { stream, reason, unprocessed: false },
            Role::Client => Event::Rejected { stream, violation: Violation::Http2Stream, ended: true },
        }))
    }

    /// A stream was reset behind a whole response: that is known once all of the response has been handed
    /// out.
    fn end_behind_message(&mut self, stream: u32, state: State, reason: Reason) -> Option<Event> {
        if let Some(found) = self.streams.get_mut(stream)
            && found.held_end.is_some()
        {
            found.state = state;
            found.reset.get_or_insert(reason);
            return None;
        }
        self.remove(stream, state);
        Some(Event::Reset { stream, reason, unprocessed: false })
    }

    fn peer_reset(&mut self, stream: u32, reason: Reason, now: Instant) -> Handled {
        let Some(found) = self.streams.get_mut(stream).filter(|found| found.state != State::Idle) else {
            return self.not_open(stream, Step::RecvReset, now);
        };
        debug_assert!(!found.state.is_closed() || !found.held.is_empty());
        if self.role == Role::Server {
            self.spend(Abuse::Resets, now)?;
        } else if found.held_end.is_some() {
            // The response is whole, and the rest of the request is not wanted (RFC 9113 §8.1).
            return Ok(self.end_behind_message(stream, State::ResetByPeer, reason));
        }
        self.remove(stream, State::ResetByPeer);
        let unprocessed = self.role == Role::Client && reason == Reason::REFUSED_STREAM;
        Ok(Some(Event::Reset { stream, reason, unprocessed }))
    }

    // Heads.

    fn continuation(
        &mut self,
        stream: u32,
        part: &[u8],
        end_headers: bool,
        received: &mut Received,
        now: Instant,
    ) -> Handled {
        let Some(mut assembly) = self.block.take() else { return Err(Reason::PROTOCOL_ERROR) };
        assembly.parts += 1;
        // A block can be longer than what it stands for, but not by much.
        let most = 2 * self.limits.list_bytes as usize;
        if assembly.parts > MAX_PARTS || assembly.bytes.len() + part.len() > most {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        assembly.bytes.extend_from_slice(part);
        if !end_headers {
            self.block = Some(assembly);
            return Ok(None);
        }
        let Assembly { bytes, end_stream, depends_on_itself, .. } = assembly;
        self.block(&Block { stream, bytes: &bytes, end_stream, depends_on_itself }, received, now)
    }

    /// A whole field block: it is decoded whatever becomes of it, because later ones build on it.
    fn block(&mut self, block: &Block<'_>, received: &mut Received, now: Instant) -> Handled {
        let Block { stream, bytes, .. } = *block;
        if planted!(165) && stream > self.last_peer && self.streams.len() >= self.limits.streams as usize {
            self.last_peer = stream;
            self.streams.remember(stream, State::ResetByUs);
            write::reset(&mut self.out, stream, Reason::REFUSED_STREAM);
            return Ok(None);
        }
        let version = self.decoder.version();
        let opens = self.role == Role::Server && stream % 2 == 1 && stream > self.last_peer;
        if opens && self.last_request.as_ref().is_some_and(|last| last.is(bytes, block.end_stream, version)) {
            return self.request(block, Read::Repeated, received, now);
        }
        let limits = BlockLimits {
            list_bytes: self.limits.list_bytes,
            fields: self.limits.fields,
            hard_bytes: 16 * self.limits.list_bytes,
        };
        let fit = self.decoder.decode(bytes, &limits, &mut received.block).map_err(|error| match error {
            HpackError::TooLarge => Reason::ENHANCE_YOUR_CALM,
            _ => Reason::COMPRESSION_ERROR,
        })?;
        let step = if block.end_stream { Step::RecvHeadEnd } else { Step::RecvHead };
        let Some(found) = self.streams.get_mut(stream) else {
            return if opens {
                self.request(block, Read::Fields { fit, version }, received, now)
            } else {
                self.not_open(stream, step, now)
            };
        };
        match found.state.next(step) {
            _ if found.state == State::Idle => return Err(Reason::PROTOCOL_ERROR),
            Ok(_) if block.depends_on_itself => {
                return self.stream_error(stream, Reason::PROTOCOL_ERROR, now);
            }
            Ok(state) => found.state = state,
            Err(Fault::Stream(reason)) => return self.stream_error(stream, reason, now),
            Err(_) => return self.not_open(stream, step, now),
        }
        if found.has_head {
            self.trailers(block, fit, received, now)
        } else {
            self.response(block, fit, received, now)
        }
    }

    /// The peer has as many streams open as it may (RFC 9113 §5.1.2). Those that have ended both ways, of
    /// which some waits to be handed out, are not open, but there is no more room for them than for the
    /// others.
    fn has_too_many(&self) -> bool {
        let (all, most) = (self.streams.len(), self.limits.streams as usize);
        let open = || self.streams.iter().filter(|stream| !stream.state.is_closed()).count();
        all >= most && (all >= 2 * most || open() >= most)
    }

    /// The head of a request, on a new stream.
    fn request(&mut self, block: &Block<'_>, read: Read, received: &mut Received, now: Instant) -> Handled {
        let Block { stream, end_stream: ended, depends_on_itself, .. } = *block;
        self.last_peer = stream;
        if let Drain::Final(last) = self.drain
            && stream > last
            && !planted!(170)
        {
            // It was told; what else comes on it is ignored.
            self.streams.remember(stream, State::ResetByUs);
            return Ok(None);
        }
        let step = if ended { Step::RecvHeadEnd } else { Step::RecvHead };
        let mut new = self.new_stream(stream);
        new.state = State::Idle.next(step).map_err(|_| Reason::INTERNAL_ERROR)?;
        let said = match (&self.last_request, read) {
            (Some(last), Read::Repeated) => last.priority(),
            _ => received.block.other(b"priority").map(Priority::parse),
        };
        if let Some(at) = self.early.iter().position(|(id, _)| *id == stream)
            && let Some((_, priority)) = self.early.remove(at)
        {
            new.priority = priority;
        } else if let Some(priority) = said {
            new.priority = priority;
        }
        let refused = self.has_too_many();
        self.streams.insert(new);
        if refused {
            return self.stream_error(stream, Reason::REFUSED_STREAM, now);
        }
        if depends_on_itself {
            return self.stream_error(stream, Reason::PROTOCOL_ERROR, now);
        }
        let read = self.read_request(block, read, said, received);
        let head = &mut received.request;
        let (violation, length, tunnel) = match read {
            Ok(()) => {
                let length = match head.framing() {
                    Framing::Length(n) if !ended => Some(n),
                    _ => None,
                };
                (None, length, head.is_extended_connect())
            }
            Err(HeadError::Violation(violation)) => {
                head.reset();
                (Some(violation), None, false)
            }
            Err(HeadError::Malformed) => return self.stream_error(stream, Reason::PROTOCOL_ERROR, now),
        };
        if tunnel && !self.limits.extended_connect {
            return self.stream_error(stream, Reason::PROTOCOL_ERROR, now);
        }
        if let Some(new) = self.streams.get_mut(stream) {
            (new.has_head, new.length_left) = (true, length);
            if tunnel {
                new.asked = Asked::Tunnel;
            }
        }
        Ok(Some(match violation {
            None => Event::Request { stream, ended },
            Some(violation) => Event::Rejected { stream, violation, ended },
        }))
    }

    /// Puts the head of a request into [`Received::request`]. `said`: the priority that it asks for.
    #[inline]
    fn read_request(
        &mut self,
        block: &Block<'_>,
        read: Read,
        said: Option<Priority>,
        received: &mut Received,
    ) -> Result<(), HeadError> {
        let head = &mut received.request;
        let version = match (read, &self.last_request) {
            (Read::Fields { fit: Fit::Whole, version }, _) => version,
            (Read::Repeated, Some(last)) => {
                last.copy_to(head);
                return Ok(());
            }
            _ => return Err(Violation::HeadTooLarge.into()),
        };
        let (room, ended) = (&mut received.room, block.end_stream);
        head::request(room, &received.block, ended, self.limits.target_bytes, head)?;
        if self.decoder.version() == version && LastRequest::may_be(block.bytes) {
            self.last_request.get_or_insert_default().note(block.bytes, ended, version, head, said);
        }
        Ok(())
    }

    fn response(&mut self, block: &Block<'_>, fit: Fit, received: &mut Received, now: Instant) -> Handled {
        let Block { stream, end_stream: ended, .. } = *block;
        let asked = self.streams.get(stream).map_or(Asked::Other, |found| found.asked);
        let parsed = match fit {
            Fit::Whole => head::response(&mut received.room, &received.block, ended, asked),
            Fit::TooLarge => Err(HeadError::Violation(Violation::HeadTooLarge)),
        };
        let response = match parsed {
            Ok(response) => response,
            Err(HeadError::Malformed) => return self.malformed(stream, Reason::PROTOCOL_ERROR, now),
            Err(HeadError::Violation(violation)) => {
                return Ok(Some(Event::Rejected { stream, violation, ended }));
            }
        };
        let Some(found) = self.streams.get_mut(stream) else { return Ok(None) };
        if !response.is_interim() {
            found.has_head = true;
            if asked == Asked::Tunnel && !response.status.is_success() {
                found.asked = Asked::Other;
            }
            found.length_left = match response.framing {
                Framing::Length(n) => Some(n),
                Framing::None => Some(0),
                Framing::Chunked | Framing::Close => None,
            };
        }
        received.response.assign(&response);
        self.end_if_closed(stream);
        Ok(Some(Event::Response { stream, ended }))
    }

    fn trailers(&mut self, block: &Block<'_>, fit: Fit, received: &mut Received, now: Instant) -> Handled {
        let stream = block.stream;
        let Some(found) = self.streams.get_mut(stream) else { return Ok(None) };
        // A second head that does not end the stream is none, nor is the end of a message that lacks some,
        // and a tunnel has nothing but data (RFC 9113 §8.5).
        let complete = block.end_stream
            && fit == Fit::Whole
            && found.asked != Asked::Tunnel
            && found.length_left.is_none_or(|left| left == 0);
        if !complete || head::trailers(&received.block, &mut received.trailers).is_err() {
            return self.malformed(stream, Reason::PROTOCOL_ERROR, now);
        }
        if !found.held.is_empty() {
            found.held_end = Some(std::mem::take(&mut received.trailers));
            return Ok(None);
        }
        self.end_if_closed(stream);
        Ok(Some(Event::End { stream }))
    }

    // Data.

    fn data_begins(
        &mut self,
        stream: u32,
        counts: u32,
        padding: u32,
        end_stream: bool,
        now: Instant,
    ) -> Handled {
        self.recv.take(counts).map_err(|_| Reason::FLOW_CONTROL_ERROR)?;
        let payload = counts - padding;
        // Small messages are what some backends have to say; nothing at all never is.
        if !end_stream && (self.role == Role::Server || payload == 0) {
            self.budgets.data(payload, now).map_err(|_| Reason::ENHANCE_YOUR_CALM)?;
        }
        let step = if end_stream { Step::RecvDataEnd } else { Step::RecvData };
        self.dropping = true;
        let state = self.streams.get(stream).map(|found| found.state);
        let error = match state.filter(|state| *state != State::Idle) {
            None => {
                self.release_connection(counts);
                return self.not_open(stream, step, now);
            }
            Some(state) => match state.next(step) {
                Err(Fault::Stream(reason) | Fault::Connection(reason)) => Some(reason),
                Err(Fault::Ignore | Fault::Ours) => {
                    self.release_connection(counts);
                    return Ok(None);
                }
                Ok(_) => self.take_data(stream, counts, payload, end_stream).err(),
            },
        };
        if let Some(reason) = error {
            self.release_connection(counts);
            return self.stream_error(stream, reason, now);
        }
        self.dropping = false;
        // Padding is needed by nobody.
        self.give_back(stream, padding);
        Ok(None)
    }

    /// Counts a DATA frame against window and length of its stream.
    fn take_data(&mut self, stream: u32, counts: u32, payload: u32, end: bool) -> Result<(), Reason> {
        let Some(found) = self.streams.get_mut(stream) else { return Ok(()) };
        found.recv.take(counts).map_err(|_| Reason::FLOW_CONTROL_ERROR)?;
        if !found.has_head {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if let Some(left) = &mut found.length_left {
            // More than was declared, or less (RFC 9113 §8.1.1).
            *left = left.checked_sub(u64::from(payload)).ok_or(Reason::PROTOCOL_ERROR)?;
            if end && *left > 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
        }
        Ok(())
    }

    /// Bytes of a DATA frame, which lie before `to` in the input.
    fn data_piece(&mut self, stream: u32, bytes: &[u8], to: usize, end_stream: bool) -> Option<Event> {
        let Some(found) = self.streams.get_mut(stream).filter(|_| !self.dropping) else {
            // The stream is gone since the frame began: what came before was given back with it.
            if !self.dropping {
                self.release_connection(bytes.len() as u32);
            }
            return None;
        };
        if end_stream {
            found.state = found.state.next(Step::RecvDataEnd).unwrap_or(found.state);
        }
        let len = bytes.len() as u32;
        if !found.held.is_empty() || found.handed + len > STREAM_CREDIT {
            found.held.put(bytes);
            self.held_bytes += bytes.len();
            found.held_end = end_stream.then(Vec::new);
            if !self.resumed.contains(&stream) {
                self.resumed.push(stream);
            }
            return None;
        }
        found.handed += len;
        if end_stream {
            self.pending.push_back(Event::End { stream });
        }
        let event = (len > 0).then(|| {
            self.data = Data::Input { from: to - bytes.len(), to };
            Event::Data { stream }
        });
        if end_stream && event.is_none() {
            self.end_if_closed(stream);
        }
        event
    }

    // Everything else.

    fn window_update(&mut self, stream: u32, increment: u32, now: Instant) -> Handled {
        self.spend(Abuse::WindowUpdates, now)?;
        if stream == 0 {
            if increment == 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
            let before = self.send.left();
            self.send.change(i64::from(increment)).map_err(|_| Reason::FLOW_CONTROL_ERROR)?;
            return Ok((before == 0).then_some(Event::Writable { stream: 0 }));
        }
        let Some(found) = self.streams.get_mut(stream).filter(|found| found.state != State::Idle) else {
            return self.not_open(stream, Step::RecvWindow, now);
        };
        if increment == 0 {
            return self.stream_error(stream, Reason::PROTOCOL_ERROR, now);
        }
        let before = found.send.left();
        if found.send.change(i64::from(increment)).is_err() {
            return self.stream_error(stream, Reason::FLOW_CONTROL_ERROR, now);
        }
        Ok((before == 0 && self.can_send(stream)).then_some(Event::Writable { stream }))
    }

    fn settings(&mut self, settings: Settings<'_>, now: Instant) -> Handled {
        self.spend(Abuse::Settings, now)?;
        self.has_settings = true;
        let before = self.peer.initial_window;
        for (id, value) in settings.iter() {
            self.peer.apply(id, value, self.role == Role::Client)?;
            let forgets = match self.role {
                Role::Client => planted!(181),
                Role::Server => planted!(168),
            };
            if id == id::HEADER_TABLE_SIZE && !forgets {
                self.encoder.set_allowed(value);
            }
        }
        let by = i64::from(self.peer.initial_window) - i64::from(before);
        if by != 0 && !planted!(169) {
            for stream in self.streams.iter_mut() {
                stream.send.change(by).map_err(|_| Reason::FLOW_CONTROL_ERROR)?;
            }
        }
        write::settings_ack(&mut self.out);
        Ok((by > 0).then_some(Event::Writable { stream: 0 }))
    }

    /// The peer takes no streams above that one: those have not been processed.
    fn go_away(&mut self, last_stream: u32) -> Option<Event> {
        // Once told, it can only become less.
        let last = self.peer_last.map_or(last_stream, |before| before.min(last_stream));
        self.peer_last = Some(last);
        if self.role == Role::Server {
            return Some(Event::GoingAway);
        }
        let above = |id: &u32| match () {
            () if planted!(177) => false,
            () if planted!(178) => *id >= last,
            () => *id > last,
        };
        let lost: Vec<u32> = self.streams.iter().map(|s| s.id).filter(above).collect();
        for stream in lost {
            self.remove(stream, State::ResetByPeer);
            self.pending.push_back(Event::Reset {
                stream,
                reason: Reason::REFUSED_STREAM,
                unprocessed: true,
            });
        }
        Some(Event::GoingAway)
    }

    fn priority_update(&mut self, stream: u32, priority: Priority) -> Handled {
        // Only clients send it, about their own streams (RFC 9218 §7.1).
        if self.role == Role::Client || stream.is_multiple_of(2) || stream > MAX_STREAM {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if let Some(found) = self.streams.get_mut(stream) {
            found.priority = priority;
        } else if self.is_idle(stream) {
            self.early.retain(|(id, _)| *id != stream);
            if self.early.len() == MAX_EARLY {
                self.early.pop_front();
            }
            self.early.push_back((stream, priority));
        }
        Ok(None)
    }
}
