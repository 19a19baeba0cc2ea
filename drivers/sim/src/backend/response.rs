//! What a backend sends back, right or wrong.

use std::fmt::Write as _;

use super::{AfterResponse, BackendConn, ReadState, Segment};
use crate::codings;
use crate::coverage::Mark;
use crate::exchanges::{ExchangeEntry, ResponsePlan, response_body_len};
use crate::fields::{self, Field};
use crate::http1::{self, BodyChecker, BodyFraming};
use crate::identities;
use crate::net::{BackendMode, Net};
use crate::payload::{self, PayloadKind};
use crate::scenario::MS;
use crate::websockets;

/// So many interim responses the proxy takes (README).
pub(super) const MAX_INTERIMS: u64 = 32;

/// How a backend responds to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseKind {
    Correct,
    Truncated,
    /// More bytes follow the response.
    ExtraBytes,
    Resets,
    Closes,
    Never,
    Delayed,
    /// Stops in the middle, and goes on later.
    Stalls,
    /// Many interim responses come first.
    InterimStorm,
    Garbage,
    /// A 101 that nobody asked for.
    UnrequestedUpgrade,
}

impl BackendConn {
    /// Draws how the backend responds to a request.
    pub(super) fn draw_response_kind(&mut self, net: &mut Net) -> ResponseKind {
        let faults = net.scenario.backend.clone();
        if net.faults_on && net.backend_modes[self.backend] == BackendMode::FailingTraffic {
            net.mark(Mark::FailingTraffic);
            return net.rng.pick(&[ResponseKind::Closes, ResponseKind::Resets, ResponseKind::Garbage]);
        }
        let table = [
            (faults.truncates, Mark::Truncated, ResponseKind::Truncated),
            (faults.extra_bytes, Mark::ExtraBytes, ResponseKind::ExtraBytes),
            (faults.resets, Mark::BackendResets, ResponseKind::Resets),
            (faults.closes, Mark::BackendCloses, ResponseKind::Closes),
            (faults.never, Mark::NoResponse, ResponseKind::Never),
            (faults.slow, Mark::SlowResponse, ResponseKind::Delayed),
            (faults.stalls, Mark::Stalled, ResponseKind::Stalls),
            (faults.interim_storm, Mark::InterimStorm, ResponseKind::InterimStorm),
            (faults.garbage, Mark::Garbage, ResponseKind::Garbage),
            (faults.unrequested_upgrade, Mark::UnrequestedUpgrade, ResponseKind::UnrequestedUpgrade),
        ];
        let start = net.rng.below(table.len() as u64) as usize;
        for at in 0..table.len() {
            let (permille, mark, kind) = table[(start + at) % table.len()];
            if net.fault(permille / 2, mark) {
                return kind;
            }
        }
        ResponseKind::Correct
    }

    /// Puts bytes into the output, to be sent at `not_before` or later.
    pub(super) fn send(&mut self, bytes: Vec<u8>, not_before: u64) {
        let response_end = bytes.len();
        self.output.push_back(Segment { bytes, sent: 0, not_before, response_end });
    }

    /// Puts the response to a request into the output, and decides what follows it.
    pub(super) fn respond(&mut self, net: &mut Net, entry: &ExchangeEntry, kind: ResponseKind) {
        net.trace(25, || format!("backend {} responds to {}: {kind:?}", self.backend, entry.id));
        self.response_queued = true;
        let max_delay = if kind == ResponseKind::Delayed { 4_000 * MS } else { MS };
        let begins = net.now + net.rng.below(max_delay);
        match kind {
            ResponseKind::Closes => self.after_response = AfterResponse::Close,
            ResponseKind::Resets => self.after_response = AfterResponse::Reset,
            ResponseKind::Never => self.never_responds = true,
            ResponseKind::Garbage => {
                let n = 1 + net.rng.size(2_000);
                let bytes = (0..n).map(|_| net.rng.below(256) as u8).collect();
                net.violates(self.socket);
                self.send(bytes, begins);
                self.after_response = self.draw_end(net);
            }
            ResponseKind::UnrequestedUpgrade => {
                let fields =
                    if net.rng.below(2) == 0 { "Upgrade: other\r\nConnection: upgrade\r\n" } else { "" };
                let head = format!("HTTP/1.1 101 Switching\r\nX-Sim: {}\r\n{fields}\r\n", entry.id);
                net.violates(self.socket);
                self.send(head.into_bytes(), begins);
                self.after_response = AfterResponse::Close;
            }
            _ => self.send_response(net, entry, kind, begins),
        }
        if self.after_response == AfterResponse::KeepOpen && kind == ResponseKind::Correct {
            let faults = net.scenario.backend.clone();
            self.closes_on_reuse = net.faults_on && net.rng.chance(faults.closes_on_reuse);
            if net.faults_on && net.rng.chance(faults.closes_idle) {
                self.after_response = AfterResponse::CloseWhenIdle(net.rng.size(2_000 * MS));
            }
        }
    }

    /// Puts a response that is at least well-formed at its beginning into the output.
    fn send_response(&mut self, net: &mut Net, entry: &ExchangeEntry, kind: ResponseKind, begins: u64) {
        let mut bytes = Vec::new();
        let interims = if kind == ResponseKind::InterimStorm {
            net.rng.between(1, 50)
        } else {
            u64::from(net.rng.below(10) == 0)
        };
        for _ in 0..interims {
            bytes.extend(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        }
        if entry.upgrade && kind == ResponseKind::Correct && net.rng.below(3) > 0 {
            return self.begin_tunnel(net, entry, bytes, begins);
        }
        let bodiless = matches!(entry.status, 204 | 304);
        let framing = if bodiless { BodyFraming::None } else { entry.response_framing };
        let says_close = framing != BodyFraming::Close && net.rng.below(20) == 0;
        let compressed = net.scenario.compresses(entry.pool);
        let media_type = codings::media_type(entry.id).filter(|_| compressed);
        bytes.extend(self.response_head(entry, framing, says_close, media_type).bytes());
        let head_len = bytes.len();
        let response_begins = self.output_end(net);
        if response_body_len(entry) > 0 || (framing == BodyFraming::Chunked && entry.method != "HEAD") {
            let (id, len) = (entry.id, entry.response_len);
            if framing == BodyFraming::Chunked {
                let has = fields::response_has_trailers(id);
                let trailers = if has { fields::trailers(id) } else { Vec::new() };
                http1::write_chunked(id, PayloadKind::Response, len, &trailers, &mut net.rng, &mut bytes);
            } else {
                payload::fill(id, PayloadKind::Response, 0, len, &mut bytes);
            }
        }
        if framing == BodyFraming::Close || says_close {
            self.after_response = AfterResponse::Close;
        }
        let (head_end, end) = (response_begins + head_len as u64, response_begins + bytes.len() as u64);
        self.plan_response(net, ResponsePlan { head_end, end });
        // A 100 (continue) counts too.
        if interims + u64::from(entry.expect) > MAX_INTERIMS {
            net.violates(self.socket);
        }
        match kind {
            ResponseKind::Truncated => {
                let keep = net.rng.below(bytes.len() as u64);
                // A body until close is complete wherever the connection is closed: only a reset truncates
                // it.
                let looks_complete = framing == BodyFraming::Close && keep >= head_len as u64;
                bytes.truncate(keep as usize);
                self.after_response = if looks_complete { AfterResponse::Reset } else { self.draw_end(net) };
            }
            ResponseKind::ExtraBytes if framing != BodyFraming::Close => {
                let response_end = bytes.len();
                net.violates(self.socket);
                bytes.extend((0..net.rng.between(1, 300)).map(|i| i as u8));
                return self.output.push_back(Segment { bytes, sent: 0, not_before: begins, response_end });
            }
            ResponseKind::Stalls => {
                let keep = net.rng.below(bytes.len() as u64) as usize;
                let rest = bytes.split_off(keep);
                self.send(bytes, begins);
                let later = begins + net.rng.between(100, 6_000) * MS;
                return self.send(rest, later);
            }
            _ => {}
        }
        self.send(bytes, begins);
    }

    /// How many bytes the connection carries up to the end of what is in the output.
    fn output_end(&self, net: &Net) -> u64 {
        let unsent: usize = self.output.iter().map(|segment| segment.bytes.len() - segment.sent).sum();
        net.sockets[self.socket].to_proxy.written_total + unsent as u64
    }

    /// Enters into the ledger where the response to the current request lies.
    fn plan_response(&self, net: &mut Net, plan: ResponsePlan) {
        if let Some(attempt) = net.ledger.get_mut(self.current).attempt_at((self.socket, 0)) {
            attempt.response = Some(plan);
        }
    }

    fn response_head(
        &self,
        entry: &ExchangeEntry,
        framing: BodyFraming,
        says_close: bool,
        media_type: Option<&str>,
    ) -> String {
        let mut head =
            format!("HTTP/1.1 {} X\r\nX-Sim: {}\r\nX-Backend: {}\r\n", entry.status, entry.id, self.backend);
        let challenge = identities::of_response(entry.id, entry.authentication, entry.status);
        for Field { name, value, .. } in fields::of_response(entry.id).into_iter().chain(challenge) {
            write!(head, "{name}: {value}\r\n").expect("memory");
        }
        if let Some(media_type) = media_type {
            write!(head, "Content-Type: {media_type}\r\n").expect("memory");
        }
        match framing {
            BodyFraming::Length(_) => {
                write!(head, "Content-Length: {}\r\n", entry.response_len).expect("memory");
            }
            BodyFraming::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            BodyFraming::Close => head.push_str("Connection: close\r\n"),
            BodyFraming::None => {}
        }
        if says_close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        head
    }

    /// Accepts an upgrade: the 101 and all bytes of the tunnel follow what is in `bytes`.
    fn begin_tunnel(&mut self, net: &mut Net, entry: &ExchangeEntry, mut bytes: Vec<u8>, begins: u64) {
        let id = entry.id;
        let fields = match entry.websocket {
            false => "Upgrade: sim\r\nConnection: upgrade".to_owned(),
            true => format!(
                "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {}",
                websockets::accept(&self.websocket_key)
            ),
        };
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nX-Sim: {id}\r\nX-Backend: {}\r\n{fields}\r\n\r\n",
            self.backend
        );
        bytes.extend(head.bytes());
        let head_end = self.output_end(net) + bytes.len() as u64;
        self.plan_response(net, ResponsePlan { head_end, end: head_end + entry.tunnel.1 });
        net.ledger.get_mut(id).tunnelled = Some((self.socket, 0));
        payload::fill(id, PayloadKind::TunnelDown, 0, entry.tunnel.1, &mut bytes);
        self.send(bytes, begins);
        let body = BodyChecker::new(id, PayloadKind::TunnelUp, true, BodyFraming::Close);
        self.read_state = ReadState::Tunnel { id, body };
        // Some end their half at once, some when the client has ended its half.
        let ends_second = net.rng.below(3) == 0;
        self.after_response = if ends_second { AfterResponse::KeepOpen } else { AfterResponse::Shutdown };
    }
}
