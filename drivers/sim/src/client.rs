//! Clients: what they send, how badly they behave, and whether what comes back is theirs.

mod plan;

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::coverage::Mark;
use crate::draw::{MS, SEC};
use crate::ledger::{Request, Seen, body_of};
use crate::net::{Net, Read};
use crate::smuggle;
use crate::wire::{self, Body, Frame, Head, Lane, Scanner};

pub(crate) use self::plan::forwarded_headers;

/// When a piece may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Now,
    /// So many answers have come whole.
    Responses(usize),
    /// The 100 for that request has come, or its patience is over.
    Continue(usize),
}

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    sent: usize,
    gate: Gate,
    head: bool,
}

/// How a client breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Reset,
    Close,
}

#[derive(Debug)]
enum Rx {
    Head,
    Body { body: Body, own: Option<u16>, status: u16, until_close: bool, last: bool },
    Tunnel(Body),
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) address: SocketAddr,
    pub(crate) sock: Option<usize>,
    requests: Vec<u64>,
    /// Answers that have come whole.
    responses: usize,
    continued: usize,
    out: VecDeque<Piece>,
    rx: Rx,
    scanner: Scanner,
    /// Bytes read at once, and between reads, if it is slow.
    slow_reader: Option<(usize, u64)>,
    slow_head: bool,
    slow_body: bool,
    breaks: Option<(u64, Break)>,
    half_closes: bool,
    /// Ends its half of a tunnel after the other only.
    lazy: bool,
    /// What it sends must be refused.
    smuggles: bool,
    patience: Option<u64>,
    gated_since: u64,
    tunnel: Option<u64>,
    /// An answer said that it is the last.
    last: bool,
    pub(crate) done: bool,
    read_at: u64,
    write_at: u64,
}

impl Client {
    /// A client with requests of its own. `tame`: none of the faults.
    pub(crate) fn new(index: usize, net: &mut Net, tame: bool, at_most: u64) -> Self {
        let peer = SocketAddr::from(([198, 51, 100, (index % 7) as u8 + 1], 2_000 + index as u16));
        let mut client = Self {
            index,
            address: peer,
            sock: None,
            requests: Vec::new(),
            responses: 0,
            continued: 0,
            out: VecDeque::new(),
            rx: Rx::Head,
            scanner: Scanner::default(),
            slow_reader: None,
            slow_head: false,
            slow_body: false,
            breaks: None,
            half_closes: false,
            lazy: false,
            smuggles: false,
            patience: None,
            gated_since: 0,
            tunnel: None,
            last: false,
            done: false,
            read_at: 0,
            write_at: 0,
        };
        let draw = net.draw.client.clone();
        if !tame {
            if net.fault(draw.slow_reader, Mark::SlowReader) {
                client.slow_reader =
                    Some((1 + net.dice.size(3_000) as usize, net.dice.between(MS, 400 * MS)));
            }
            client.slow_head = net.fault(draw.slow_head, Mark::SlowHead);
            client.slow_body = net.fault(draw.slow_body, Mark::SlowBody);
            if net.fault(draw.resets, Mark::ClientReset) {
                client.breaks = Some((net.dice.size(20_000), Break::Reset));
            } else if net.fault(draw.closes, Mark::ClientCloses) {
                client.breaks = Some((net.dice.size(20_000), Break::Close));
            }
            client.half_closes = net.fault(draw.half_closes, Mark::HalfClose);
            client.lazy = net.faults && net.dice.below(3) == 0;
            client.smuggles = net.fault(draw.smuggles, Mark::Smuggling);
        }
        let count = 1 + net.dice.below(at_most);
        let pipelines = net.dice.below(3) == 0;
        let mut stream = 0;
        for nth in 0..count as usize {
            let last = nth + 1 == count as usize;
            let id = client.plan(net, last && !client.smuggles, pipelines, tame);
            client.write_request(net, id, nth, pipelines, &mut stream);
        }
        if client.smuggles {
            let case = smuggle::pick(&mut net.dice);
            let gate =
                if net.dice.below(2) == 0 { Gate::Now } else { Gate::Responses(client.requests.len()) };
            client.out.push_back(Piece { bytes: case.to_vec(), sent: 0, gate, head: false });
        }
        client
    }

    /// Whether the script has come to its end: bytes come and go no more.
    fn finish(&mut self, net: &mut Net, seen: Seen) {
        self.done = true;
        for id in &self.requests[self.responses.min(self.requests.len())..] {
            let r = net.ledger.at(*id).expect("known");
            if r.seen == Seen::Nothing {
                r.seen = seen;
            }
        }
        if let Some(sock) = self.sock {
            net.far_close(sock);
        }
    }

    /// The listener is gone or the proxy took nobody.
    pub(crate) fn refused(&mut self, net: &mut Net) {
        self.finish(net, Seen::Cut);
    }

    /// Reads and writes what it can.
    pub(crate) fn turn(&mut self, net: &mut Net) {
        let Some(sock) = self.sock else { return };
        if self.done {
            return;
        }
        if let Some((after, how)) = self.breaks.filter(|_| net.faults) {
            let s = &net.socks[sock];
            if s.up.written_total + s.down.read_total >= after {
                self.done = true;
                net.say(11, || format!("client {} breaks off: {how:?}", self.index));
                self.finish(net, Seen::Cut);
                match how {
                    Break::Reset => net.far_abort(sock),
                    Break::Close => net.far_close(sock),
                }
                return;
            }
        }
        self.write(net, sock);
        self.read(net, sock);
        if !self.done {
            self.write(net, sock);
        }
    }

    fn write(&mut self, net: &mut Net, sock: usize) {
        while let Some(piece) = self.out.front_mut() {
            let open = match piece.gate {
                Gate::Now => true,
                Gate::Responses(n) => self.responses >= n,
                Gate::Continue(n) => {
                    if self.gated_since == 0 {
                        self.gated_since = net.now;
                    }
                    let over = self.patience.is_some_and(|p| net.now >= self.gated_since + p);
                    if let Some(p) = self.patience.filter(|_| !over) {
                        net.wake_far(sock, self.gated_since + p);
                    }
                    self.continued > n || over
                }
            };
            if !open || self.last {
                return;
            }
            if matches!(piece.gate, Gate::Continue(_)) {
                self.gated_since = 0;
                piece.gate = Gate::Now;
            }
            let slow = net.faults && if piece.head { self.slow_head } else { self.slow_body };
            if slow && net.now < self.write_at {
                return net.wake_far(sock, self.write_at);
            }
            let left = &piece.bytes[piece.sent..];
            let most = if slow { 1 + net.dice.size(200) as usize } else { left.len() };
            let n = net.far_write(sock, &left[..most.min(left.len())]);
            piece.sent += n;
            if piece.sent == piece.bytes.len() {
                self.out.pop_front();
            } else if !slow {
                return;
            }
            if slow {
                self.write_at = net.now + net.dice.between(MS, 900 * MS);
                return net.wake_far(sock, self.write_at);
            }
        }
        if let Some(id) = self.tunnel {
            if self.lazy && net.faults {
                return;
            }
            // All of its half has gone.
            let r = net.ledger.at(id).expect("known");
            if !net.socks[sock].up.ended {
                r.up_ended = true;
                net.far_end(sock);
            }
        } else if self.half_closes && !net.socks[sock].up.ended && !self.upgrades(net) {
            net.say(12, || format!("client {} half-closes", self.index));
            net.far_end(sock);
        }
    }

    fn upgrades(&self, net: &Net) -> bool {
        self.requests.last().is_some_and(|id| net.ledger.get(*id).upgrade)
    }

    fn read(&mut self, net: &mut Net, sock: usize) {
        let mut bytes = std::mem::take(&mut net.room);
        self.read_into(&mut bytes, net, sock);
        net.room = bytes;
    }

    fn read_into(&mut self, bytes: &mut Vec<u8>, net: &mut Net, sock: usize) {
        loop {
            let slow = self.slow_reader.filter(|_| net.faults);
            if slow.is_some() && net.now < self.read_at {
                return net.wake_far(sock, self.read_at);
            }
            bytes.clear();
            let got = net.far_read(sock, slow.map_or(65_536, |(n, _)| n), bytes);
            if let Some((_, wait)) = slow {
                self.read_at = net.now + wait;
            }
            match got {
                Read::Bytes => self.take(net, bytes),
                Read::Nothing => return,
                Read::End => return self.ended(net),
                Read::Reset => {
                    net.say(13, || format!("client {} is reset", self.index));
                    net.mark(Mark::CutResponse);
                    if net.draw.fault_free {
                        net.ledger.fail("fault-free", format!("client {} is reset", self.index));
                    }
                    return self.finish(net, Seen::Cut);
                }
            }
            if self.done {
                return;
            }
        }
    }

    /// The proxy sends no more.
    fn ended(&mut self, net: &mut Net) {
        net.say(14, || format!("client {} sees the end", self.index));
        match &self.rx {
            Rx::Head => {
                if !self.scanner.is_empty() {
                    net.ledger.fail(
                        "half-an-answer",
                        format!("client {}: an end in the middle of a head", self.index),
                    );
                }
                let lost = self.requests.get(self.responses).copied();
                let sock = self.sock.expect("connected");
                if let Some(id) = lost
                    && !self.last
                {
                    let read = net.socks[sock].up.read_total >= net.ledger.get(id).head_end;
                    if net.draw.fault_free
                        || (read
                            && !net.draw.world.drains
                            && net.faults
                            && self.breaks.is_none()
                            && !self.smuggles)
                    {
                        net.ledger
                            .fail("no-answer", format!("client {}: request {id} has no answer", self.index));
                    }
                }
            }
            Rx::Body { until_close: true, .. } => self.responded(net),
            Rx::Body { .. } => net
                .ledger
                .fail("half-an-answer", format!("client {}: an end in the middle of a body", self.index)),
            Rx::Tunnel(body) => {
                let id = self.requests[self.responses];
                let want = net.ledger.get(id).tunnel.1;
                if body.got != want {
                    net.ledger.fail(
                        "half-a-tunnel",
                        format!("client {}: {} of {want} bytes, then an end", self.index, body.got),
                    );
                }
                net.mark(Mark::TunnelHalfClose);
                net.ledger.at(id).expect("known").seen = Seen::Responded(101);
                self.responses += 1;
                if !self.out.is_empty() {
                    // The other direction goes on.
                    self.rx = Rx::Head;
                    self.requests.clear();
                    self.responses = 0;
                    let sock = self.sock.expect("connected");
                    self.write(net, sock);
                    if !self.out.is_empty() {
                        return;
                    }
                }
            }
        }
        self.finish(net, Seen::Cut);
    }

    fn take(&mut self, net: &mut Net, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.done {
            match &mut self.rx {
                Rx::Head => {
                    let (n, head) = self.scanner.head(bytes);
                    bytes = &bytes[n..];
                    if let Some(head) = head
                        && let Err(why) = self.head(net, &head)
                    {
                        net.ledger.fail(
                            "right-answer",
                            format!("client {}: {why}: {:?}", self.index, String::from_utf8_lossy(&head)),
                        );
                    }
                }
                Rx::Body { body, .. } | Rx::Tunnel(body) => match body.take(bytes) {
                    Ok(n) => {
                        bytes = &bytes[n..];
                        if n == 0 {
                            return net.ledger.fail(
                                "surplus",
                                format!("client {}: {} bytes too many", self.index, bytes.len()),
                            );
                        }
                    }
                    Err(why) => {
                        return net.ledger.fail("right-bytes", format!("client {}: {why}", self.index));
                    }
                },
            }
            if let Rx::Body { body, .. } = &self.rx
                && body.done()
            {
                self.responded(net);
            }
        }
    }

    /// A whole head has come.
    fn head(&mut self, net: &mut Net, bytes: &[u8]) -> Result<(), String> {
        let head = Head::read(bytes).ok_or("no head")?;
        let status = head
            .start
            .strip_prefix("HTTP/1.1 ")
            .and_then(|s| s.get(..3)?.parse::<u16>().ok())
            .ok_or("no status line")?;
        let own = head.get("proxy-status")?.is_some();
        let Some(&id) = self.requests.get(self.responses) else {
            // What was smuggled in is refused.
            if self.smuggles && own {
                self.rx = Rx::Body {
                    body: Body::new(0, Lane::LookupResult, false, head.frame(Frame::Close)?),
                    own: Some(status),
                    status,
                    until_close: false,
                    last: true,
                };
                return Ok(());
            }
            return Err("an answer nobody asked for".into());
        };
        let r = net.ledger.get(id).clone();
        if status < 200 && status != 101 {
            if own {
                return Err("an interim answer of our own".into());
            }
            if r.version == 10 {
                return Err("an interim answer for HTTP/1.0".into());
            }
            net.mark(if status == 100 { Mark::Expected100 } else { Mark::Interim });
            if status == 100 {
                self.continued = self.responses + 1;
            }
            return Ok(());
        }
        let last = head.get("connection")?.is_some_and(|v| v.eq_ignore_ascii_case("close"));
        if own {
            return self.own_head(net, &r, &head, status, last);
        }
        if head.number("x-sim")? != Some(id) {
            return Err(format!("not the answer to {id}"));
        }
        if head.get("date")?.is_none() {
            return Err("no Date".into());
        }
        if status == 101 && r.upgrade {
            net.mark(Mark::Tunnel);
            net.say(15, || format!("client {} switches for {id}", self.index));
            let mut up = Vec::new();
            wire::fill(id, Lane::TunnelUp, 0, r.tunnel.0, &mut up);
            self.out.push_back(Piece { bytes: up, sent: 0, gate: Gate::Now, head: false });
            self.tunnel = Some(id);
            net.ledger.at(id).expect("known").switched = true;
            self.rx = Rx::Tunnel(Body::new(id, Lane::TunnelDown, true, Frame::Close));
            return Ok(());
        }
        if status != r.status {
            return Err(format!("status {status}, not {}", r.status));
        }
        let frame = if body_of(&r) == 0 && (r.method == "HEAD" || matches!(status, 204 | 304)) {
            Frame::None
        } else {
            head.frame(Frame::Close)?
        };
        match frame {
            Frame::Length(n) if n != r.response_len => {
                return Err(format!("{n} bytes announced, not {}", r.response_len));
            }
            Frame::Chunked if r.version == 10 => return Err("chunks for HTTP/1.0".into()),
            Frame::Chunked => net.mark(Mark::ChunkedResponse),
            Frame::Close => net.mark(Mark::CloseDelimited),
            _ => {}
        }
        if frame == Frame::Close && !last && r.version == 11 {
            return Err("until close without saying so".into());
        }
        self.last |= last || frame == Frame::Close;
        let body = Body::new(id, Lane::LookupResult, true, frame);
        let done = body.done();
        self.rx = Rx::Body { body, own: None, status, until_close: frame == Frame::Close, last };
        if done {
            self.responded(net);
        }
        Ok(())
    }

    fn own_head(
        &mut self,
        net: &mut Net,
        r: &Request,
        head: &Head<'_>,
        status: u16,
        last: bool,
    ) -> Result<(), String> {
        if net.draw.fault_free {
            net.ledger.fail(
                "fault-free",
                format!(
                    "client {}: request {} gets {status}: {:?}",
                    self.index,
                    r.id,
                    head.get("proxy-status")
                ),
            );
        }
        self.last |= last;
        let frame = if r.method == "HEAD" { Frame::None } else { head.frame(Frame::Close)? };
        if frame == Frame::Close {
            return Err("an answer of our own without a length".into());
        }
        let body = Body::new(r.id, Lane::LookupResult, false, frame);
        let done = body.done();
        self.rx = Rx::Body { body, own: Some(status), status, until_close: false, last };
        if done {
            self.responded(net);
        }
        Ok(())
    }

    /// An answer has come whole.
    fn responded(&mut self, net: &mut Net) {
        let Rx::Body { body, own, status, last, .. } = std::mem::replace(&mut self.rx, Rx::Head) else {
            return;
        };
        if let Some(&id) = self.requests.get(self.responses) {
            let r = net.ledger.at(id).expect("known");
            r.seen = own.map_or(Seen::Responded(status), Seen::Own);
            let want = body_of(r);
            if own.is_none() && body.got != want {
                net.ledger.fail(
                    "right-length",
                    format!("client {}: {} of {want} bytes for {id}", self.index, body.got),
                );
            }
            if !body.trailers.is_empty() {
                net.mark(Mark::Trailers);
                if body.trailers != [format!("X-Trailer: {id}")] {
                    net.ledger.fail("right-trailers", format!("client {}: {:?}", self.index, body.trailers));
                }
            }
            net.say(16 << 8 | u64::from(status), || {
                format!("client {} has its answer to {id}: {status}", self.index)
            });
            net.mark(if own.is_some() { Mark::OwnResponse } else { Mark::Exchange });
            if self.responses > 0 {
                net.mark(Mark::KeptAlive);
            }
        } else if last {
            return self.finish(net, Seen::Cut);
        }
        self.responses += 1;
        self.last |= last;
        if self.last || (self.responses == self.requests.len() && (!self.smuggles || !net.faults)) {
            self.finish(net, Seen::Cut);
        }
    }

    /// Everything is well again: what was to go slowly goes now, what waited for ever goes on.
    pub(crate) fn heal(&mut self, net: &mut Net) {
        self.breaks = None;
        if self.patience.is_none() {
            self.patience = Some(SEC);
        }
        if let Some(sock) = self.sock {
            net.wake_far(sock, net.now);
        }
    }

    /// What it waits for, for the words of a failure.
    pub(crate) fn state(&self) -> String {
        format!(
            "client {}: {} of {} answers, {} pieces unsent, {:?}",
            self.index,
            self.responses,
            self.requests.len(),
            self.out.len(),
            self.rx
        )
    }
}
