//! Backends: they check that what reaches them is exactly what a client sent, and answer as their faults
//! allow.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::coverage::Mark;
use crate::draw::MS;
use crate::ledger::{Attempt, Request, body_of};
use crate::net::{Far, Mode, Net, Read};
use crate::wire::{self, Body, Frame, Head, Lane, Scanner};

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    sent: usize,
    not_before: u64,
    /// An answer ends here; what lies behind it is surplus.
    response_end: usize,
}

/// What follows the last piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Stay,
    Close,
    Reset,
    /// Close once it has lain idle so long.
    Idle(u64),
    /// Only the sending half.
    End,
}

#[derive(Debug)]
enum Rx {
    Head,
    Body { id: u64, body: Body },
    Tunnel { id: u64, body: Body },
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Well,
    Truncated,
    Surplus,
    Resets,
    Closes,
    Never,
    Slowly,
    StopsMidway,
    Storm,
    Garbage,
    Switch,
}

/// One connection of a machine.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) sock: usize,
    machine: usize,
    scanner: Scanner,
    rx: Rx,
    out: VecDeque<Piece>,
    then: Then,
    served: u32,
    responding: bool,
    /// The answer to the current request is written, or never will be.
    responded: bool,
    pub(crate) current: u64,
    /// Closes as soon as it is used again.
    closes_on_reuse: bool,
    stops_reading: bool,
    /// Healed: what never came comes now.
    hung: bool,
    idle_until: u64,
    pub(crate) closed: bool,
    /// Bytes taken so far, and those before the current head.
    taken: u64,
    head_at: u64,
}

impl Server {
    pub(crate) fn new(sock: usize, net: &mut Net) -> Self {
        let Far::Machine(machine) = net.socks[sock].far else { unreachable!("a machine's connection") };
        Self {
            sock,
            machine,
            scanner: Scanner::default(),
            rx: Rx::Head,
            out: VecDeque::new(),
            then: Then::Stay,
            served: 0,
            responding: false,
            responded: false,
            current: 0,
            closes_on_reuse: false,
            stops_reading: false,
            hung: false,
            idle_until: u64::MAX,
            closed: false,
            taken: 0,
            head_at: 0,
        }
    }

    /// Reads and writes what it can.
    pub(crate) fn turn(&mut self, net: &mut Net) {
        if self.closed {
            return;
        }
        if self.idle_until <= net.now
            && !self.responding
            && self.out.is_empty()
            && matches!(self.rx, Rx::Head)
        {
            net.mark(Mark::ClosedIdle);
            net.say(21, || format!("machine {} closes {} idle", self.machine, self.sock));
            return self.close(net, false);
        }
        self.read(net);
        self.write(net);
    }

    fn close(&mut self, net: &mut Net, reset: bool) {
        self.closed = true;
        if reset { net.far_abort(self.sock) } else { net.far_close(self.sock) }
    }

    fn read(&mut self, net: &mut Net) {
        let mut bytes = std::mem::take(&mut net.room);
        self.read_into(&mut bytes, net);
        net.room = bytes;
    }

    fn read_into(&mut self, bytes: &mut Vec<u8>, net: &mut Net) {
        while !self.closed {
            if self.stops_reading && net.faults {
                return;
            }
            bytes.clear();
            match net.far_read(self.sock, 65_536, bytes) {
                Read::Bytes => self.take(net, bytes),
                Read::Nothing => return,
                Read::End => return self.ended(net),
                Read::Reset => return self.close(net, true),
            }
        }
    }

    /// The proxy sends no more on this connection.
    fn ended(&mut self, net: &mut Net) {
        if let Rx::Tunnel { id, body } = &self.rx {
            let (id, got) = (*id, body.got);
            let r = net.ledger.get(id);
            let client = net.client_socks[r.client];
            // An attempt that was given up long ago may be read late.
            let current = r.attempts.iter().max_by_key(|a| a.sent_at).is_some_and(|a| a.sock == self.sock);
            if current && ((r.switched && !net.socks[client].up.ended) || (got != r.tunnel.0 && r.up_ended)) {
                let text =
                    format!("machine {}: {got} of {} bytes of {id}, then an end", self.machine, r.tunnel.0);
                net.ledger.fail("half-a-tunnel", text);
            }
            self.rx = Rx::Head;
            // Its own half goes on.
            if self.then == Then::Stay || !self.out.is_empty() {
                self.then = Then::Close;
                self.responding = false;
                return;
            }
        }
        if self.out.is_empty() || !matches!(self.then, Then::Close | Then::End) {
            self.close(net, false);
        }
    }

    fn take(&mut self, net: &mut Net, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.closed && net.ledger.violation.is_none() {
            match &mut self.rx {
                Rx::Head => {
                    if self.responding && self.then != Then::Close {
                        return net.ledger.fail(
                            "one-request-at-once",
                            format!("machine {}: {} bytes before its answer", self.machine, bytes.len()),
                        );
                    }
                    if self.closes_on_reuse && net.faults && self.served > 0 {
                        net.mark(Mark::ClosedOnReuse);
                        net.say(22, || {
                            format!("machine {} closes {} as it is reused", self.machine, self.sock)
                        });
                        let reset = net.dice.below(2) == 0;
                        return self.close(net, reset);
                    }
                    if self.scanner.is_empty() {
                        self.head_at = self.taken;
                    }
                    let (n, head) = self.scanner.head(bytes);
                    self.taken += n as u64;
                    bytes = &bytes[n..];
                    if let Some(head) = head
                        && let Err(why) = self.head(net, &head)
                    {
                        net.ledger.fail(
                            "right-request",
                            format!("machine {}: {why}: {:?}", self.machine, String::from_utf8_lossy(&head)),
                        );
                    }
                }
                Rx::Body { id, body } => {
                    let id = *id;
                    match body.take(bytes) {
                        Ok(n) => {
                            self.taken += n as u64;
                            bytes = &bytes[n..];
                        }
                        Err(why) => {
                            return net
                                .ledger
                                .fail("right-request-bytes", format!("machine {}: {why}", self.machine));
                        }
                    }
                    if body.done() {
                        self.received(net, id);
                    }
                }
                Rx::Tunnel { body, .. } => match body.take(bytes) {
                    Ok(n) => bytes = &bytes[n..],
                    Err(why) => {
                        return net
                            .ledger
                            .fail("right-tunnel-bytes", format!("machine {}: {why}", self.machine));
                    }
                },
            }
        }
    }

    /// A whole head has come.
    fn head(&mut self, net: &mut Net, bytes: &[u8]) -> Result<(), String> {
        let head = Head::read(bytes).ok_or("no head")?;
        if head.start == "GET /probe HTTP/1.1" {
            return self.probe(net);
        }
        let id = head.number("x-sim")?.ok_or("a request that nobody sent")?;
        let r = net.ledger.at(id).ok_or("an unknown id")?.clone();
        let want = format!("{} {} HTTP/1.1", r.method, r.target);
        if head.start != want {
            return Err(format!("not {want:?}"));
        }
        if head.get("host")? != Some("a.test") || !head.fields[0].0.eq_ignore_ascii_case("host") {
            return Err("Host".into());
        }
        if r.padding > 0 && head.get("x-pad")? != Some(wire::padding(id, r.padding).as_str()) {
            return Err("another's padding".into());
        }
        if head.get("x-forwarded-for")?.is_none()
            || head.get("via")?.is_none()
            || head.get("x-request-id")?.is_none()
        {
            return Err("what a proxy adds".into());
        }
        let frame = head.frame(Frame::None)?;
        if frame != r.frame {
            return Err(format!("framed as {frame:?}, not {:?}", r.frame));
        }
        if head.get("connection")?.is_some_and(|c| c.eq_ignore_ascii_case("upgrade")) != r.upgrade {
            return Err("Connection".into());
        }
        self.judge(net, &r)?;
        if self.served > 0 {
            net.mark(Mark::Reused);
        }
        self.served += 1;
        (self.responding, self.responded, self.current) = (true, false, id);
        let draw = net.draw.backend.clone();
        let expects = head.get("expect")?.is_some();
        self.stops_reading = frame != Frame::None && net.fault(draw.stops_reading, Mark::StopsReading);
        let early = frame != Frame::None && net.fault(draw.early, Mark::EarlyResponse);
        let body = Body::new(id, Lane::Request, true, frame);
        let done = body.done();
        self.rx = Rx::Body { id, body };
        if early {
            self.response(net, &r, How::Well);
            if self.then != Then::Close {
                self.then = if net.dice.below(3) == 0 { Then::Stay } else { self.ending(net) };
            }
        } else if expects && !done {
            self.push(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), net.now);
        }
        if done {
            self.received(net, id);
        }
        Ok(())
    }

    fn ending(&self, net: &mut Net) -> Then {
        if net.dice.below(2) == 0 { Then::Close } else { Then::Reset }
    }

    /// A request may come here, and may come now.
    fn judge(&self, net: &mut Net, r: &Request) -> Result<(), String> {
        if r.attempts.iter().any(|a| a.sock == self.sock) {
            return Err("twice on one connection".into());
        }
        let sent_at = net.written_at(self.sock, self.head_at);
        for other in &r.attempts {
            if !r.idempotent() {
                return Err(format!("{} {} was sent once more", r.method, r.id));
            }
            // Whatever the proxy has read of an answer makes the attempt the last. The later one may come
            // first.
            let read = net.read_at(other.sock, other.response_at);
            if other.sent_at < sent_at && read.is_some_and(|at| at < sent_at) {
                return Err(format!("{} {} was sent once more after an answer had begun", r.method, r.id));
            }
            net.mark(Mark::Retried);
        }
        let response_at = net.socks[self.sock].up.written_total;
        let attempt = Attempt { sock: self.sock, sent_at, response_at };
        if let Some(why) = net.allowed(self.sock, self.machine, r, self.served) {
            net.ledger.fail("allowed-backend", format!("machine {}, request {}: {why}", self.machine, r.id));
        }
        net.ledger.at(r.id).expect("known").attempts.push(attempt);
        net.say(23 << 20 | r.id, || {
            format!("machine {} gets {} {} on {}", self.machine, r.method, r.id, self.sock)
        });
        Ok(())
    }

    fn probe(&mut self, net: &mut Net) -> Result<(), String> {
        let mode = if net.faults { net.machines[self.machine] } else { Mode::Up };
        net.say(24, || format!("machine {} is probed: {mode:?}", self.machine));
        self.rx = Rx::Head;
        self.then = Then::Close;
        let at = net.now
            + if net.fault(net.draw.backend.slow, Mark::SlowResponse) { net.dice.below(700 * MS) } else { 0 };
        match mode {
            Mode::ProbeBad => {
                net.mark(Mark::ProbeBadTrafficFine);
                self.push(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec(), at);
            }
            _ if net.fault(net.draw.backend.never / 4, Mark::NeverResponses) => self.then = Then::Stay,
            _ => self.push(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nup\n".to_vec(), at),
        }
        Ok(())
    }

    /// A request is here whole.
    fn received(&mut self, net: &mut Net, id: u64) {
        self.rx = Rx::Head;
        let machine = self.machine;
        let r = net.ledger.get(id).clone();
        if let Some(pool) = r.pool {
            *net.ledger.executed.entry((pool, machine)).or_default() += 1;
        }
        if self.responded {
            // Early.
            self.responding = !self.out.is_empty();
            return;
        }
        let how = self.how(net);
        self.response(net, &r, how);
    }

    fn how(&mut self, net: &mut Net) -> How {
        let b = net.draw.backend.clone();
        if net.faults && net.machines[self.machine] == Mode::ProbeFine {
            net.mark(Mark::ProbeFineTrafficBad);
            return net.dice.one(&[How::Closes, How::Resets, How::Garbage]);
        }
        let table = [
            (b.truncates, Mark::Truncated, How::Truncated),
            (b.surplus, Mark::Surplus, How::Surplus),
            (b.resets, Mark::BackendResets, How::Resets),
            (b.closes, Mark::BackendCloses, How::Closes),
            (b.never, Mark::NeverResponses, How::Never),
            (b.slow, Mark::SlowResponse, How::Slowly),
            (b.stops_midway, Mark::StopsMidway, How::StopsMidway),
            (b.storm, Mark::InterimStorm, How::Storm),
            (b.garbage, Mark::Garbage, How::Garbage),
            (b.unasked_switch, Mark::UnaskedSwitch, How::Switch),
        ];
        let start = net.dice.below(table.len() as u64) as usize;
        for at in 0..table.len() {
            let (weight, mark, how) = table[(start + at) % table.len()];
            if net.fault(weight / 2, mark) {
                return how;
            }
        }
        How::Well
    }

    fn push(&mut self, bytes: Vec<u8>, not_before: u64) {
        let response_end = bytes.len();
        self.out.push_back(Piece { bytes, sent: 0, not_before, response_end });
    }

    fn response(&mut self, net: &mut Net, r: &Request, how: How) {
        net.say(25, || format!("machine {} answers {} {how:?}", self.machine, r.id));
        self.responded = true;
        let now = net.now;
        let begins =
            if how == How::Slowly { now + net.dice.below(4_000 * MS) } else { now + net.dice.below(MS) };
        match how {
            How::Closes => self.then = Then::Close,
            How::Resets => self.then = Then::Reset,
            How::Never => self.hung = true,
            How::Garbage => {
                let n = 1 + net.dice.size(2_000);
                let bytes = (0..n).map(|_| net.dice.below(256) as u8).collect();
                self.push(bytes, begins);
                self.then = self.ending(net);
            }
            How::Switch => {
                let protocol =
                    if net.dice.below(2) == 0 { "Upgrade: other\r\nConnection: upgrade\r\n" } else { "" };
                self.push(
                    format!("HTTP/1.1 101 Switching\r\nX-Sim: {}\r\n{protocol}\r\n", r.id).into_bytes(),
                    begins,
                );
                self.then = Then::Close;
            }
            _ => self.write_response(net, r, how, begins),
        }
        if self.then == Then::Stay && how == How::Well {
            let draw = net.draw.backend.clone();
            self.closes_on_reuse = net.faults && net.dice.hits(draw.closes_on_reuse);
            if net.faults && net.dice.hits(draw.closes_idle) {
                self.then = Then::Idle(net.dice.size(2_000 * MS));
            }
        }
    }

    fn write_response(&mut self, net: &mut Net, r: &Request, how: How, begins: u64) {
        let mut bytes = Vec::new();
        let storm =
            if how == How::Storm { net.dice.between(1, 50) } else { u64::from(net.dice.below(10) == 0) };
        for _ in 0..storm {
            bytes.extend(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        }
        if r.upgrade && how == How::Well && net.dice.below(3) > 0 {
            let id = r.id;
            bytes.extend(format!("HTTP/1.1 101 Switching Protocols\r\nX-Sim: {id}\r\nUpgrade: sim\r\nConnection: upgrade\r\n\r\n").bytes());
            wire::fill(id, Lane::TunnelDown, 0, r.tunnel.1, &mut bytes);
            self.push(bytes, begins);
            self.rx = Rx::Tunnel { id, body: Body::new(id, Lane::TunnelUp, true, Frame::Close) };
            // Some end their half at once, some when the other has ended.
            self.then = match net.dice.below(3) {
                0 => Then::Stay,
                _ => Then::End,
            };
            return;
        }
        let mut head = String::new();
        let none = matches!(r.status, 204 | 304);
        let frame = if none { Frame::None } else { r.response_frame };
        write!(head, "HTTP/1.1 {} X\r\nX-Sim: {}\r\nX-Machine: {}\r\n", r.status, r.id, self.machine)
            .expect("memory");
        match frame {
            Frame::Length(_) => write!(head, "Content-Length: {}\r\n", r.response_len).expect("memory"),
            Frame::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Frame::Close => head.push_str("Connection: close\r\n"),
            Frame::None => {}
        }
        let says_close = frame != Frame::Close && net.dice.below(20) == 0;
        if says_close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        bytes.extend(head.bytes());
        let head_len = bytes.len();
        if body_of(r) > 0 || (frame == Frame::Chunked && r.method != "HEAD") {
            match frame {
                Frame::Chunked => {
                    let trailer = net.dice.below(4) == 0;
                    wire::chunk(r.id, Lane::LookupResult, r.response_len, trailer, &mut net.dice, &mut bytes);
                }
                _ => wire::fill(r.id, Lane::LookupResult, 0, r.response_len, &mut bytes),
            }
        }
        if frame == Frame::Close || says_close {
            self.then = Then::Close;
        }
        match how {
            How::Truncated => {
                let keep = net.dice.below(bytes.len() as u64);
                // The end of an answer until close is where it ends: only a reset truncates it.
                let cut_cleanly = frame == Frame::Close && keep >= head_len as u64;
                bytes.truncate(keep as usize);
                self.then = if cut_cleanly { Then::Reset } else { self.ending(net) };
            }
            How::Surplus if frame != Frame::Close => {
                let response_end = bytes.len();
                bytes.extend((0..net.dice.between(1, 300)).map(|i| i as u8));
                return self.out.push_back(Piece { bytes, sent: 0, not_before: begins, response_end });
            }
            How::StopsMidway => {
                let keep = net.dice.below(bytes.len() as u64) as usize;
                let rest = bytes.split_off(keep);
                self.push(bytes, begins);
                let later = begins + net.dice.between(100, 6_000) * MS;
                return self.push(rest, later);
            }
            _ => {}
        }
        self.push(bytes, begins);
    }

    fn write(&mut self, net: &mut Net) {
        while let Some(piece) = self.out.front_mut() {
            if self.closed {
                return;
            }
            if piece.not_before > net.now && net.faults {
                return net.wake_far(self.sock, piece.not_before);
            }
            let left = &piece.bytes[piece.sent..];
            let n = net.far_write(self.sock, left);
            let before = piece.sent;
            piece.sent += n;
            if piece.sent < piece.bytes.len() {
                // Who has read the answer may ask again before the surplus has found room.
                if before < piece.response_end
                    && piece.sent >= piece.response_end
                    && matches!(self.rx, Rx::Head)
                {
                    self.responding = false;
                }
                return;
            }
            self.out.pop_front();
        }
        if self.closed || self.hung && net.faults {
            return;
        }
        let then = self.then;
        match then {
            Then::Stay => {}
            Then::Close
                if matches!(self.rx, Rx::Body { .. }) && !self.stops_reading && net.dice.below(2) == 0 => {}
            Then::Close => return self.close(net, false),
            Then::Reset => return self.close(net, true),
            Then::Idle(after) => {
                self.then = Then::Stay;
                self.idle_until = net.now + after;
                net.wake_far(self.sock, self.idle_until);
            }
            Then::End => net.far_end(self.sock),
        }
        if matches!(self.rx, Rx::Head) && then != Then::End {
            self.responding = false;
        }
    }

    /// Whether it has a request that the proxy has not let go of.
    pub(crate) fn is_busy(&self, net: &Net) -> bool {
        self.responding && !self.closed && net.socks[self.sock].open
    }

    /// Everything is well again: whoever was never answered sees a reset.
    pub(crate) fn heal(&mut self, net: &mut Net) {
        if self.closed {
            return;
        }
        self.closes_on_reuse = false;
        self.idle_until = u64::MAX;
        let tunnel = matches!(self.rx, Rx::Tunnel { .. });
        if self.hung || (!net.draw.fault_free && self.responding && self.out.is_empty() && !tunnel) {
            return self.close(net, true);
        }
        net.wake_far(self.sock, net.now);
    }
}
