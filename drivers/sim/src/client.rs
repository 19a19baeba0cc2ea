//! Clients: what they send and when, and what they do wrong. How they read and check responses is in
//! `responses`, what they ask for in `requests`; connections with many streams are in `streams`.

mod admin;
mod content;
mod requests;
mod responses;
mod stranger;
mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use self::requests::RequestStyle;
use self::responses::ReadState;
use self::streams::StreamsConn;
use crate::choices::{self, NO_COOKIE};
use crate::coverage::Mark;
use crate::exchanges::ClientResult;
use crate::http1::HeadReader;
use crate::invalid_requests;
use crate::net::Net;
use crate::scenario::{ClientTls, MS, SEC, Stranger, client_address};

pub(crate) use self::requests::arrival_times;

/// When a segment may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendCondition {
    Immediately,
    /// After so many complete responses.
    Responses(usize),
    /// After the 100 (continue) for the request at this position, or after the client's timeout for it.
    Continue(usize),
}

/// Bytes to send: a head, or what follows one.
#[derive(Debug)]
struct Segment {
    bytes: Vec<u8>,
    sent: usize,
    condition: SendCondition,
    is_head: bool,
    /// The request whose sticky cookie is put in when it is sent.
    cookie_of: Option<u64>,
}

/// How a client gives up before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AbortKind {
    Reset,
    Close,
}

/// One client, which has one connection.
#[derive(Debug)]
pub(crate) struct Client {
    /// The number of the client.
    pub(crate) index: usize,
    pub(crate) address: SocketAddr,
    /// `None`: not accepted yet.
    pub(crate) socket: Option<usize>,
    /// Ids of its requests.
    requests: Vec<u64>,
    /// How many complete responses have come.
    responses: usize,
    /// One more than the position of the newest request for which a 100 (continue) has come.
    continued: usize,
    output: VecDeque<Segment>,
    read_state: ReadState,
    head_reader: HeadReader,
    /// Bytes of one read, and the time between two, of a slow reader.
    slow_reader: Option<(usize, u64)>,
    slow_head: bool,
    slow_body: bool,
    /// Gives up after so many bytes in both directions.
    abort_after: Option<(u64, AbortKind)>,
    half_closes: bool,
    /// Ends its half of a tunnel only after the backend has ended the other.
    ends_tunnel_second: bool,
    /// Sends a request that must be refused after all others.
    invalid_request: bool,
    /// Some of its requests authenticate their connection.
    authenticates: bool,
    /// It sends back the sticky cookies that it gets.
    keeps_cookies: bool,
    /// The newest of them, by pool.
    cookies: BTreeMap<&'static str, String>,
    /// How long it waits for a 100 (continue); `None`: as long as it takes.
    continue_timeout: Option<u64>,
    /// Since when it waits for a 100 (continue); 0: it does not.
    continue_wait_since: u64,
    /// The request whose upgrade has succeeded.
    tunnel: Option<u64>,
    /// A response said that the connection ends with it.
    last_response_seen: bool,
    /// It neither reads nor writes any more.
    pub(crate) done: bool,
    /// A slow client reads and writes not before these times.
    read_at: u64,
    write_at: u64,
    /// How it speaks TLS, if it does.
    pub(crate) tls: Option<Box<ClientTls>>,
    /// What it asks the admin listener for, if it does.
    pub(crate) admin: Option<usize>,
    /// One that never sends a request over TLS has said something, and has read this.
    greeted: bool,
    reply: Vec<u8>,
    /// Its connection, if it speaks HTTP/2.
    http2: Option<Box<StreamsConn>>,
}

impl Client {
    /// A client without requests or faults, which is not connected.
    fn blank(index: usize) -> Self {
        Self {
            index,
            address: client_address(index),
            socket: None,
            requests: Vec::new(),
            responses: 0,
            continued: 0,
            output: VecDeque::new(),
            read_state: ReadState::Head,
            head_reader: HeadReader::default(),
            slow_reader: None,
            slow_head: false,
            slow_body: false,
            abort_after: None,
            half_closes: false,
            ends_tunnel_second: false,
            invalid_request: false,
            authenticates: false,
            keeps_cookies: false,
            cookies: BTreeMap::new(),
            continue_timeout: None,
            continue_wait_since: 0,
            tunnel: None,
            last_response_seen: false,
            done: false,
            read_at: 0,
            write_at: 0,
            tls: None,
            admin: None,
            greeted: false,
            reply: Vec::new(),
            http2: None,
        }
    }

    /// Draws a client with up to `max_requests` requests. `well_behaved`: it has no faults.
    pub(crate) fn new(index: usize, net: &mut Net, well_behaved: bool, max_requests: u64) -> Self {
        let admin = net.scenario.admin_request(index);
        let mut client = Self {
            authenticates: net.scenario.identities && net.rng.below(2) == 0,
            keeps_cookies: net.rng.below(4) > 0,
            tls: net.scenario.client_tls(index).filter(|_| admin.is_none()).map(Box::new),
            admin,
            http2: net.scenario.client_http2(index).map(|draw| Box::new(StreamsConn::new(draw))),
            ..Self::blank(index)
        };
        // They authenticate requests, not connections.
        client.authenticates &= !client.speaks_http2();
        if let Some(which) = admin {
            client.queue_admin_request(which);
        }
        if client.stranger().is_some() || admin.is_some() {
            net.client_requests.push(Vec::new());
            return client;
        }
        if !well_behaved {
            client.draw_faults(net);
        }
        let count = 1 + net.rng.below(if client.speaks_http2() { 2 * max_requests } else { max_requests });
        let style = RequestStyle { pipelined: net.rng.below(3) == 0, well_behaved };
        let mut written = 0;
        for nth in 0..count as usize {
            let last = nth + 1 == count as usize;
            let id = client.draw_request(net, last && !client.invalid_request, style);
            if client.speaks_http2() {
                client.queue_stream(net, id);
            } else {
                client.queue_request(net, id, nth, style.pipelined, &mut written);
            }
        }
        net.client_requests.push(client.requests.clone());
        if client.invalid_request && !client.speaks_http2() {
            let mut bytes = invalid_requests::pick(&mut net.rng);
            // A trusted proxy may ask for what was secured up to it.
            let secured = net.scenario.is_trusted(index) || client.tls.is_some();
            while secured && bytes.windows(8).any(|w| w == b"https://") {
                bytes = invalid_requests::pick(&mut net.rng);
            }
            let bytes = bytes.to_vec();
            let condition = if net.rng.below(2) == 0 {
                SendCondition::Immediately
            } else {
                SendCondition::Responses(client.requests.len())
            };
            client.output.push_back(Segment { bytes, sent: 0, condition, is_head: false, cookie_of: None });
        }
        client
    }

    fn draw_faults(&mut self, net: &mut Net) {
        let faults = net.scenario.client.clone();
        if net.fault(faults.slow_reader, Mark::SlowReader) {
            self.slow_reader = Some((1 + net.rng.size(3_000) as usize, net.rng.between(MS, 400 * MS)));
        }
        self.slow_head = net.fault(faults.slow_head, Mark::SlowHead);
        if self.slow_head && net.rng.below(2) == 0 {
            // It says nothing for a while.
            self.write_at = net.rng.between(1, 6) * SEC;
        }
        self.slow_body = net.fault(faults.slow_body, Mark::SlowBody);
        if net.fault(faults.resets, Mark::ClientReset) {
            self.abort_after = Some((net.rng.size(20_000), AbortKind::Reset));
        } else if net.fault(faults.closes, Mark::ClientCloses) {
            self.abort_after = Some((net.rng.size(20_000), AbortKind::Close));
        }
        self.half_closes = net.fault(faults.half_closes, Mark::HalfClose);
        self.ends_tunnel_second = net.faults_on && net.rng.below(3) == 0;
        self.invalid_request = net.fault(faults.invalid_request, Mark::InvalidRequest);
    }

    /// The client is done: it closes, and what has no complete response will never have one.
    fn finish(&mut self, net: &mut Net) {
        self.done = true;
        for id in &self.requests {
            let entry = net.ledger.get_mut(*id);
            if entry.result == ClientResult::Pending {
                entry.result = ClientResult::Incomplete;
            }
        }
        if let Some(socket) = self.socket {
            net.peer_close(socket);
        }
    }

    /// The core has refused the connection, or nobody listens any more.
    pub(crate) fn refused(&mut self, net: &mut Net) {
        self.finish(net);
    }

    /// Reads and writes what it can.
    pub(crate) fn turn(&mut self, net: &mut Net) {
        let Some(socket) = self.socket else { return };
        if self.done || self.aborts(net, socket) {
            return;
        }
        if let Some(which) = self.admin {
            return self.admin_turn(net, socket, which);
        }
        if let Some(stranger) = self.stranger() {
            return self.stranger_turn(net, socket, stranger);
        }
        if self.speaks_http2() {
            return self.streams_turn(net, socket);
        }
        self.write(net, socket);
        self.read(net, socket);
        if !self.done {
            self.write(net, socket);
        }
    }

    /// Gives up if it is time for that.
    fn aborts(&mut self, net: &mut Net, socket: usize) -> bool {
        let Some((after, kind)) = self.abort_after.filter(|_| net.faults_on) else { return false };
        let s = &net.sockets[socket];
        if s.to_proxy.written_total + s.from_proxy.read_total < after {
            return false;
        }
        net.trace(11, || format!("client {} gives up: {kind:?}", self.index));
        if kind == AbortKind::Reset {
            net.peer_reset(socket);
        }
        self.finish(net);
        true
    }

    /// What it is if it never sends a request over TLS.
    fn stranger(&self) -> Option<Stranger> {
        self.tls.as_ref()?.stranger
    }

    /// It has been accepted.
    pub(crate) fn secure(&mut self, net: &mut Net, socket: usize) {
        if let Some(peer) = self.tls.as_ref().and_then(|tls| stranger::peer_tls(tls)) {
            net.secure_peer(socket, peer);
        }
    }

    fn write(&mut self, net: &mut Net, socket: usize) {
        while !self.output.is_empty() {
            if !self.may_send(net, socket) || self.last_response_seen {
                return;
            }
            self.put_cookie_in(net);
            let Some(segment) = self.output.front_mut() else { return };
            if matches!(segment.condition, SendCondition::Continue(_)) {
                self.continue_wait_since = 0;
                segment.condition = SendCondition::Immediately;
            }
            let slow = net.faults_on && if segment.is_head { self.slow_head } else { self.slow_body };
            if slow && net.now < self.write_at {
                return net.wake_peer(socket, self.write_at);
            }
            let left = &segment.bytes[segment.sent..];
            let max = if slow { 1 + net.rng.size(200) as usize } else { left.len() };
            let n = net.peer_write(socket, &left[..max.min(left.len())]);
            segment.sent += n;
            if segment.sent == segment.bytes.len() {
                self.output.pop_front();
            } else if !slow {
                return;
            }
            if slow {
                self.write_at = net.now + net.rng.between(MS, 900 * MS);
                return net.wake_peer(socket, self.write_at);
            }
        }
        self.end_output(net, socket);
    }

    /// A head that is about to be sent gets the newest cookie for its pool.
    fn put_cookie_in(&mut self, net: &mut Net) {
        let Some(segment) = self.output.front_mut() else { return };
        let Some(id) = segment.cookie_of.take() else { return };
        let mut head = std::mem::take(&mut segment.bytes);
        self.put_cookie(net, id, &mut head);
        if let Some(segment) = self.output.front_mut() {
            segment.bytes = head;
        }
    }

    /// The same for the head of this request.
    fn put_cookie(&self, net: &mut Net, id: u64, head: &mut [u8]) {
        let pool = net.ledger.get(id).pool;
        let own = pool.and_then(|pool| self.cookies.get(pool).cloned());
        let other = if net.rng.below(8) == 0 { net.cookie_of_other_pool(pool) } else { None };
        let value = other.or(own).unwrap_or_else(|| NO_COOKIE.to_owned());
        let (before, after) = (choices::cookie_field(NO_COOKIE), choices::cookie_field(&value));
        let at = head.windows(before.len()).position(|bytes| bytes == before.as_bytes());
        if let Some(at) = at {
            head[at..at + after.len()].copy_from_slice(after.as_bytes());
        }
        net.ledger.get_mut(id).cookie = Some(value);
    }

    /// Whether the condition of the next segment is met.
    fn may_send(&mut self, net: &mut Net, socket: usize) -> bool {
        match self.output.front().map(|segment| segment.condition) {
            None | Some(SendCondition::Immediately) => true,
            Some(SendCondition::Responses(n)) => self.responses >= n,
            Some(SendCondition::Continue(nth)) => {
                if self.continue_wait_since == 0 {
                    self.continue_wait_since = net.now;
                }
                let deadline = self.continue_timeout.map(|timeout| self.continue_wait_since + timeout);
                let over = deadline.is_some_and(|deadline| net.now >= deadline);
                if let Some(deadline) = deadline.filter(|_| !over) {
                    net.wake_peer(socket, deadline);
                }
                self.continued > nth || over
            }
        }
    }

    /// All is sent: ends a tunnel, or half-closes if the client does that.
    fn end_output(&mut self, net: &mut Net, socket: usize) {
        let ended = net.sockets[socket].to_proxy.ended;
        if let Some(id) = self.tunnel {
            let waits_for_end = self.ends_tunnel_second && net.faults_on;
            if !ended && !waits_for_end {
                net.ledger.get_mut(id).tunnel_half_closed = true;
                net.peer_shutdown(socket);
            }
        } else if self.half_closes && !ended && !self.asks_for_upgrade(net) {
            net.trace(12, || format!("client {} half-closes", self.index));
            net.peer_shutdown(socket);
        }
    }

    fn asks_for_upgrade(&self, net: &Net) -> bool {
        self.requests.last().is_some_and(|id| net.ledger.get(*id).upgrade)
    }

    /// The run heals: the client gives up no more, and waits for a 100 (continue) no longer than a second.
    pub(crate) fn heal(&mut self, net: &mut Net) {
        self.abort_after = None;
        if self.continue_timeout.is_none() {
            self.continue_timeout = Some(SEC);
        }
        self.heal_streams(net);
        if let Some(socket) = self.socket {
            if self.stranger().is_some() || net.is_peer_stalled(socket) {
                return self.finish(net);
            }
            net.wake_peer(socket, net.now);
        }
    }

    /// What the client waits for, for the message of a failure.
    pub(crate) fn state(&self) -> String {
        if self.speaks_http2() {
            return self.streams_state();
        }
        format!(
            "client {}: {} of {} responses, {} segments unsent, {:?}",
            self.index,
            self.responses,
            self.requests.len(),
            self.output.len(),
            self.read_state
        )
    }
}
