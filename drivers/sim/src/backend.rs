//! Backends: one connection of theirs each, which checks that what reaches it is exactly what a client sent.
//! What is sent back is in `response`.

mod request;
mod response;
mod secured;
mod streams;

use std::collections::VecDeque;

use self::request::check_request_head;
use self::response::ResponseKind;
use self::streams::StreamsConn;
use crate::chains::Chain;
use crate::coverage::Mark;
use crate::exchanges::{Attempt, ExchangeEntry};
use crate::fields;
use crate::http1::{BodyChecker, BodyFraming, HeadReader, ParsedHead};
use crate::http2::HTTP_2;
use crate::net::{BackendMode, Net, Peer, PeerRead, SimEvent};
use crate::payload::PayloadKind;
use crate::scenario::MS;

/// Bytes to send.
#[derive(Debug)]
struct Segment {
    bytes: Vec<u8>,
    sent: usize,
    not_before: u64,
    /// Where the response ends; what follows is surplus.
    response_end: usize,
}

/// What the backend does once everything is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterResponse {
    KeepOpen,
    Close,
    Reset,
    /// Closes when it has been idle so long.
    CloseWhenIdle(u64),
    /// Closes the sending half only.
    Shutdown,
}

/// What the backend reads next.
#[derive(Debug)]
enum ReadState {
    Head,
    Body { id: u64, body: BodyChecker },
    Tunnel { id: u64, body: BodyChecker },
}

/// One connection between the proxy and a backend, at the backend's end.
#[derive(Debug)]
pub(crate) struct BackendConn {
    pub(crate) socket: usize,
    /// The number of the backend.
    backend: usize,
    head_reader: HeadReader,
    read_state: ReadState,
    output: VecDeque<Segment>,
    after_response: AfterResponse,
    /// How many requests have come, without probes.
    served: u32,
    /// A request has come and its response is not sent yet.
    responding: bool,
    /// The response to the current request is in the output, or there will be none.
    response_queued: bool,
    /// The id of the newest request; 0: none has come.
    current: u64,
    /// Closes as soon as it is used again.
    closes_on_reuse: bool,
    stops_reading: bool,
    /// Never responds to the current request: resets when the run heals.
    never_responds: bool,
    /// When it closes if it is idle.
    idle_until: u64,
    pub(crate) closed: bool,
    /// Bytes read so far, without those of tunnels.
    read_bytes: u64,
    /// How many of them came before the current head.
    head_offset: u64,
    /// It does not speak the TLS that is spoken to it.
    speaks_plainly: bool,
    /// The key of the current request, if it has one.
    websocket_key: String,
    /// What it speaks HTTP/2 with, if it does.
    http2: Option<Box<StreamsConn>>,
}

impl BackendConn {
    /// A backend accepts a connection.
    pub(crate) fn new(socket: usize, net: &mut Net) -> Self {
        let Peer::Backend(backend) = net.sockets[socket].peer else { unreachable!("a backend's connection") };
        let mut conn = Self {
            socket,
            backend,
            head_reader: HeadReader::default(),
            read_state: ReadState::Head,
            output: VecDeque::new(),
            after_response: AfterResponse::KeepOpen,
            served: 0,
            responding: false,
            response_queued: false,
            current: 0,
            closes_on_reuse: false,
            stops_reading: false,
            never_responds: false,
            idle_until: u64::MAX,
            closed: false,
            read_bytes: 0,
            head_offset: 0,
            speaks_plainly: false,
            websocket_key: String::new(),
            http2: None,
        };
        conn.secure(net);
        conn
    }

    /// Reads and writes what it can.
    pub(crate) fn turn(&mut self, net: &mut Net) {
        if self.closed {
            return;
        }
        self.begin_streams(net);
        if self.http2.is_some() {
            return self.streams_turn(net);
        }
        let idle = !self.responding && self.output.is_empty() && matches!(self.read_state, ReadState::Head);
        if self.idle_until <= net.now && idle {
            net.mark(Mark::ClosedIdle);
            net.trace(21, || format!("backend {} closes {} idle", self.backend, self.socket));
            return self.close(net, false);
        }
        self.read(net);
        self.write(net);
    }

    fn close(&mut self, net: &mut Net, reset: bool) {
        self.closed = true;
        if reset { net.peer_reset(self.socket) } else { net.peer_close(self.socket) }
    }

    fn read(&mut self, net: &mut Net) {
        let mut bytes = std::mem::take(&mut net.read_buffer);
        self.read_into(&mut bytes, net);
        net.read_buffer = bytes;
    }

    fn read_into(&mut self, bytes: &mut Vec<u8>, net: &mut Net) {
        while !self.closed {
            if self.stops_reading && net.faults_on {
                return;
            }
            bytes.clear();
            match net.peer_read(self.socket, 65_536, bytes) {
                PeerRead::Bytes if self.speaks_plainly => return self.answer_plainly(net),
                PeerRead::Bytes => self.received(net, bytes),
                PeerRead::WouldBlock => return,
                PeerRead::End => return self.ended(net),
                PeerRead::Reset => return self.close(net, true),
            }
        }
    }

    /// The proxy sends no more on this connection.
    fn ended(&mut self, net: &mut Net) {
        if let ReadState::Tunnel { id, body } = &self.read_state {
            let (id, received) = (*id, body.received);
            let entry = net.ledger.get(id);
            let client = net.client_sockets[entry.client];
            // A connection that the proxy has given up for another one may be read only now.
            let newest =
                entry.attempts.iter().max_by_key(|a| a.sent_at).is_some_and(|a| a.socket == self.socket);
            let client_goes_on = entry.switched
                && match entry.version {
                    HTTP_2 => !entry.tunnel_half_closed,
                    _ => !net.sockets[client].to_proxy.ended || net.sockets[client].cut,
                };
            if newest && (client_goes_on || (received != entry.tunnel.0 && entry.tunnel_half_closed)) {
                let details = format!(
                    "backend {}: {received} of {} bytes of {id}, then an end",
                    self.backend, entry.tunnel.0
                );
                net.ledger.fail("tunnel-incomplete", details);
            }
            self.read_state = ReadState::Head;
            // The other direction goes on.
            if self.after_response == AfterResponse::KeepOpen || !self.output.is_empty() {
                self.after_response = AfterResponse::Close;
                self.responding = false;
                return;
            }
        }
        let ends_by_itself = matches!(self.after_response, AfterResponse::Close | AfterResponse::Shutdown);
        if self.output.is_empty() || !ends_by_itself {
            self.close(net, false);
        }
    }

    fn received(&mut self, net: &mut Net, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.closed && net.ledger.violation.is_none() {
            match &mut self.read_state {
                ReadState::Head => {
                    let n = self.head_bytes_received(net, bytes);
                    bytes = &bytes[n..];
                }
                ReadState::Body { id, body } => {
                    let id = *id;
                    match body.read(bytes) {
                        Ok(n) => {
                            self.read_bytes += n as u64;
                            bytes = &bytes[n..];
                            net.ledger.received_up(id, (self.socket, 0), body.received);
                        }
                        Err(why) => {
                            return net
                                .ledger
                                .fail("right-request-bytes", format!("backend {}: {why}", self.backend));
                        }
                    }
                    if body.is_complete() {
                        let trailers = std::mem::take(&mut body.trailers);
                        self.check_trailers(net, id, &trailers, false);
                        self.request_complete(net, id);
                    }
                }
                ReadState::Tunnel { id, body } => match body.read(bytes) {
                    Ok(n) => {
                        bytes = &bytes[n..];
                        net.ledger.received_up(*id, (self.socket, 0), body.received);
                    }
                    Err(why) => {
                        return net
                            .ledger
                            .fail("right-tunnel-bytes", format!("backend {}: {why}", self.backend));
                    }
                },
            }
        }
    }

    /// Takes bytes up to the end of a head, and returns how many it has taken.
    fn head_bytes_received(&mut self, net: &mut Net, bytes: &[u8]) -> usize {
        if self.responding && self.after_response != AfterResponse::Close {
            net.ledger.fail(
                "one-request-at-once",
                format!("backend {}: {} bytes before its response", self.backend, bytes.len()),
            );
            return 0;
        }
        if self.closes_on_reuse && net.faults_on && self.served > 0 {
            net.mark(Mark::ClosedOnReuse);
            net.trace(22, || format!("backend {} closes {} as it is reused", self.backend, self.socket));
            let reset = net.rng.below(2) == 0;
            self.close(net, reset);
            return 0;
        }
        if self.head_reader.is_empty() {
            self.head_offset = self.read_bytes;
        }
        let (n, head) = self.head_reader.read(bytes);
        self.read_bytes += n as u64;
        if let Some(head) = head
            && let Err(why) = self.head_received(net, &head)
        {
            net.ledger.fail(
                "right-request",
                format!("backend {}: {why}: {:?}", self.backend, String::from_utf8_lossy(&head)),
            );
        }
        n
    }

    /// A complete head has come. `Err`: it is not what the proxy has to make of the client's.
    fn head_received(&mut self, net: &mut Net, bytes: &[u8]) -> Result<(), String> {
        let head = ParsedHead::parse(bytes).ok_or("no head")?;
        if head.start == "GET /probe HTTP/1.1" {
            self.probed(net);
            return Ok(());
        }
        let id = head.number("x-sim")?.ok_or("a request that no client sent")?;
        let entry = net.ledger.find(id).ok_or("an unknown id")?.clone();
        if let Some(why) = Chain::of(&net.scenario, &entry).kept_out() {
            net.ledger.fail("kept-out", format!("backend {}, request {id}: {why}", self.backend));
        }
        net.scenario.judge_head_limits(&entry, None)?;
        check_request_head(&head, &entry, net, false)?;
        let sent_at = net.written_at(self.socket, self.head_offset);
        self.add_attempt(net, &entry, 0, sent_at)?;
        if self.served > 0 {
            net.mark(Mark::Reused);
        }
        self.served += 1;
        (self.responding, self.response_queued, self.current) = (true, false, id);
        self.websocket_key = head.get("sec-websocket-key")?.unwrap_or_default().to_owned();
        let faults = net.scenario.backend.clone();
        let framing = entry.framing;
        let has_body = framing != BodyFraming::None;
        self.stops_reading = has_body && net.fault(faults.stops_reading, Mark::StopsReading);
        let early = has_body && net.fault(faults.early, Mark::EarlyResponse);
        let body = BodyChecker::new(id, PayloadKind::Request, true, framing);
        let complete = body.is_complete();
        self.read_state = ReadState::Body { id, body };
        if early {
            self.respond(net, &entry, ResponseKind::Correct);
            if self.after_response != AfterResponse::Close {
                self.after_response =
                    if net.rng.below(3) == 0 { AfterResponse::KeepOpen } else { self.draw_end(net) };
            }
        } else if head.get("expect")?.is_some() && !complete {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), net.now);
        }
        if complete {
            self.request_complete(net, id);
        }
        Ok(())
    }

    /// The trailers of a request are those that its client has sent, but for those that must not pass.
    /// `streams`: they have come over HTTP/2.
    fn check_trailers(&self, net: &mut Net, id: u64, trailers: &[String], streams: bool) {
        let version = net.ledger.get(id).version;
        let want = if net.ledger.get(id).trailer {
            fields::passed_trailers(id, &fields::of_request(id, version))
        } else {
            Vec::new()
        };
        if !fields::same_trailers(trailers, &want, version == HTTP_2 || streams) {
            let details = format!("backend {}, request {id}: {trailers:?}, not {want:?}", self.backend);
            net.ledger.fail("right-request-trailers", details);
        }
    }

    fn draw_end(&self, net: &mut Net) -> AfterResponse {
        if net.rng.below(2) == 0 { AfterResponse::Close } else { AfterResponse::Reset }
    }

    /// Enters the request into the ledger as sent to this backend, on this stream. `Err`: it must not be sent
    /// once more.
    fn add_attempt(
        &self,
        net: &mut Net,
        entry: &ExchangeEntry,
        stream: u32,
        sent_at: u64,
    ) -> Result<(), String> {
        if entry.attempts.iter().any(|a| (a.socket, a.stream) == (self.socket, stream)) {
            return Err("twice on one connection".into());
        }
        for other in &entry.attempts {
            if net.unprocessed_since(other.socket, other.stream).is_some() {
                net.mark(Mark::Http2Unprocessed);
                continue;
            }
            if !entry.is_idempotent() {
                return Err(format!("{} {} was sent once more", entry.method, entry.id));
            }
            // Once the proxy has read a byte of a response, it must not send the request again. Attempts may
            // reach their backends in another order than they were sent in.
            let read = net.read_at(other.socket, other.response_offset);
            if other.sent_at < sent_at && read.is_some_and(|at| at < sent_at) {
                return Err(format!(
                    "{} {} was sent once more after a response had begun",
                    entry.method, entry.id
                ));
            }
            net.mark(Mark::Retried);
        }
        let written = net.sockets[self.socket].to_proxy.written_total;
        let response_offset = if stream > 0 { u64::MAX } else { written };
        let socket = self.socket;
        let attempt = Attempt { socket, stream, sent_at, response_offset, response: None, up: 0 };
        if let Some(why) = net.backend_choice_error(self.socket, self.backend, entry, self.served) {
            net.ledger
                .fail("allowed-backend", format!("backend {}, request {}: {why}", self.backend, entry.id));
        }
        net.ledger.get_mut(entry.id).attempts.push(attempt);
        net.trace(23 << 20 | entry.id, || {
            format!("backend {} gets {} {} on {}", self.backend, entry.method, entry.id, self.socket)
        });
        Ok(())
    }

    /// A health probe has come.
    fn probed(&mut self, net: &mut Net) {
        self.read_state = ReadState::Head;
        self.after_response = AfterResponse::Close;
        match self.probe_answer(net) {
            (0, _) => self.after_response = AfterResponse::KeepOpen,
            (200, at) => self.reply_to_probe(net, 200, "3\r\n\r\n", "up\n", at),
            (status, at) => self.reply_to_probe(net, status, "0\r\n\r\n", "", at),
        }
    }

    /// The status that a health check is answered with, and when; 0: with nothing.
    fn probe_answer(&mut self, net: &mut Net) -> (u16, u64) {
        let mode = net.probed_mode(self.backend);
        net.trace(24, || format!("backend {} is probed: {mode:?}", self.backend));
        let at = net.now
            + if net.fault(net.scenario.backend.slow, Mark::SlowResponse) {
                net.rng.below(700 * MS)
            } else {
                0
            };
        let at = if mode == BackendMode::SlowProbes {
            net.mark(Mark::SlowProbes);
            at.max(net.now + net.scenario.pool.slow_threshold)
        } else {
            at
        };
        if at > net.now && net.scenario.system.reloads > 0 && net.rng.below(2) == 0 {
            // The result is of the configuration before.
            net.mark(Mark::ReloadedInProbe);
            let soon = net.now + net.rng.below(at - net.now);
            net.schedule(soon, SimEvent::Reload);
        }
        match mode {
            BackendMode::FailingProbes => {
                net.mark(Mark::FailingProbes);
                (503, at)
            }
            _ if net.fault(net.scenario.backend.never / 4, Mark::NoResponse) => (0, at),
            _ => (200, at),
        }
    }

    fn reply_to_probe(&mut self, net: &mut Net, status: u16, head_end: &str, body: &str, at: u64) {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {head_end}");
        net.sockets[self.socket].probe_reply = Some((status, head.len() as u64));
        self.send((head + body).into_bytes(), at);
    }

    /// A complete request has come.
    fn request_complete(&mut self, net: &mut Net, id: u64) {
        self.read_state = ReadState::Head;
        let entry = net.ledger.get(id).clone();
        if Chain::of(&net.scenario, &entry).is_too_large() {
            let details = format!("backend {} has all {} bytes of request {id}", self.backend, entry.len);
            net.ledger.fail("body-limited", details);
        }
        if let Some(pool) = entry.pool {
            *net.ledger.executed.entry((pool, self.backend)).or_default() += 1;
        }
        if self.response_queued {
            // The response came before the end of the request.
            self.responding = !self.output.is_empty();
            return;
        }
        let kind = self.draw_response_kind(net);
        self.respond(net, &entry, kind);
    }

    fn write(&mut self, net: &mut Net) {
        while let Some(segment) = self.output.front_mut() {
            if self.closed {
                return;
            }
            if segment.not_before > net.now && (net.faults_on || net.scenario.fault_free) {
                return net.wake_peer(self.socket, segment.not_before);
            }
            let left = &segment.bytes[segment.sent..];
            let n = net.peer_write(self.socket, left);
            let before = segment.sent;
            segment.sent += n;
            if segment.sent < segment.bytes.len() {
                // The proxy may send the next request once it has the response, while surplus waits for room.
                let response_sent = before < segment.response_end && segment.sent >= segment.response_end;
                if response_sent && matches!(self.read_state, ReadState::Head) {
                    self.responding = false;
                }
                return;
            }
            self.output.pop_front();
        }
        if !(self.closed || self.never_responds && net.faults_on) {
            self.output_sent(net);
        }
    }

    /// Everything is sent: closes the connection, or is ready for the next request.
    fn output_sent(&mut self, net: &mut Net) {
        let after_response = self.after_response;
        match after_response {
            AfterResponse::KeepOpen => {}
            AfterResponse::Close => {
                // Before the end of the request, some read on and some don't.
                let request_goes_on =
                    matches!(self.read_state, ReadState::Body { .. }) && !self.stops_reading;
                if !(request_goes_on && net.rng.below(2) == 0) {
                    return self.close(net, false);
                }
            }
            AfterResponse::Reset => return self.close(net, true),
            AfterResponse::CloseWhenIdle(after) => {
                self.after_response = AfterResponse::KeepOpen;
                self.idle_until = net.now + after;
                net.wake_peer(self.socket, self.idle_until);
            }
            AfterResponse::Shutdown => net.peer_shutdown(self.socket),
        }
        if matches!(self.read_state, ReadState::Head) && after_response != AfterResponse::Shutdown {
            self.responding = false;
        }
    }

    /// Ids of the requests that it has and that the proxy has not given up.
    pub(crate) fn busy(&self, net: &Net) -> Vec<u64> {
        if self.closed || !net.sockets[self.socket].open {
            return Vec::new();
        }
        match &self.http2 {
            Some(conn) => conn.busy().filter(|id| net.is_in_flight(*id)).collect(),
            None => self.responding.then_some(self.current).into_iter().collect(),
        }
    }

    /// The run heals: requests that would never get a response are reset.
    pub(crate) fn heal(&mut self, net: &mut Net) {
        if self.closed {
            return;
        }
        if self.http2.is_some() {
            return self.heal_streams(net);
        }
        self.closes_on_reuse = false;
        self.idle_until = u64::MAX;
        let tunnel = matches!(self.read_state, ReadState::Tunnel { .. });
        let no_response = self.responding && self.output.is_empty() && !tunnel;
        if self.never_responds
            || net.is_peer_stalled(self.socket)
            || (!net.scenario.fault_free && no_response)
        {
            return self.close(net, true);
        }
        net.wake_peer(self.socket, net.now);
    }
}
