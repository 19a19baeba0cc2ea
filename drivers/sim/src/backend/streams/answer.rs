//! What a backend answers a request on a stream with, right or wrong.

use super::head::{pair, response_fields, switch_fields, trailer_fields};
use super::offence::malformed;
use super::piece::Piece;
use super::{BackendConn, StreamsConn};
use crate::backend::response::MAX_INTERIMS;
use crate::coverage::Mark;
use crate::exchanges::{ExchangeEntry, response_body_len};
use crate::fields;
use crate::http1::BodyFraming;
use crate::http2::code;
use crate::net::{BackendMode, Net};
use crate::payload::{self, PayloadKind};
use crate::scenario::MS;

/// How a request on a stream is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Correct,
    /// A part of it, and then the end of something.
    Truncated,
    Malformed,
    Resets,
    /// The connection ends.
    Closes,
    Never,
    Delayed,
    /// It takes longer than anybody keeps silent without being asked whether he is there.
    Thinks,
    /// Stops in the middle, and goes on later.
    Stalls,
    InterimStorm,
}

/// Thousandths of the requests whose backend takes long, where nothing ends that.
const THINKS: u32 = 10;

/// Codes that a stream may be reset with once its request has been looked at (RFC 9113 §7).
const CODES: [u32; 9] = [
    code::NO_ERROR,
    code::PROTOCOL_ERROR,
    code::INTERNAL_ERROR,
    code::FLOW_CONTROL_ERROR,
    code::STREAM_CLOSED,
    code::FRAME_SIZE_ERROR,
    code::CANCEL,
    code::COMPRESSION_ERROR,
    code::ENHANCE_YOUR_CALM,
];

impl BackendConn {
    /// The head of a request has come: whether the backend looks at it no further.
    pub(super) fn stream_served(
        &mut self,
        conn: &mut StreamsConn,
        net: &mut Net,
        number: u32,
        entry: &ExchangeEntry,
    ) -> bool {
        let reuse = net.scenario.backend.closes_on_reuse / 8;
        if conn.served > 1 && net.fault(reuse, Mark::ClosedOnReuse) {
            net.trace(22, || format!("backend {} closes {} as it is reused", self.backend, self.socket));
            let reset = conn.rng.below(2) == 0;
            self.close(net, reset);
            return true;
        }
        if net.faults_on && conn.draw.offends.is_some_and(|after| conn.served > after) {
            conn.offend(net, self.socket);
            return true;
        }
        if net.faults_on
            && let Some((after, how)) = conn.draw.leaves
            && conn.served > after
            && conn.leave(net, self.socket, number, how)
        {
            return true;
        }
        // More than it takes, as the proxy could not know, or more than it likes.
        let open = conn.open_streams().count() as u64;
        let said = conn.newest_max_streams().is_some_and(|most| open > u64::from(most));
        let refuses = net.scenario.http2.backends.refuses;
        if net.faults_on && (said && conn.rng.below(2) == 0 || conn.rng.chance(refuses)) {
            net.mark(Mark::Http2RefusedByBackend);
            net.trace(48, || format!("backend {} refuses {} on stream {number}", self.backend, entry.id));
            conn.reset_stream(net, self.socket, number, code::REFUSED_STREAM);
            return true;
        }
        if net.faults_on && net.sockets[self.socket].secure && conn.rng.chance(refuses / 4) {
            net.mark(Mark::Http11Required);
            conn.reset_stream(net, self.socket, number, code::HTTP_1_1_REQUIRED);
            return true;
        }
        false
    }

    /// A WebSocket is asked for.
    pub(super) fn websocket_asked(
        &mut self,
        conn: &mut StreamsConn,
        net: &mut Net,
        number: u32,
        entry: &ExchangeEntry,
    ) {
        if let Some(pool) = entry.pool {
            *net.ledger.executed.entry((pool, self.backend)).or_default() += 1;
        }
        conn.stall_some(net, number, Mark::TunnelStalled);
        self.answer(conn, net, number, entry);
    }

    /// Accepts a WebSocket: all bytes of the tunnel follow, or a part of them and the end of something.
    fn accept_websocket(
        &self,
        conn: &mut StreamsConn,
        net: &mut Net,
        number: u32,
        entry: &ExchangeEntry,
        answer: Answer,
    ) {
        let (id, len) = (entry.id, entry.tunnel.1);
        let Some(stream) = conn.streams.get_mut(&number) else { return };
        net.ledger.get_mut(id).tunnelled = Some((self.socket, number));
        payload::fill(id, PayloadKind::TunnelDown, 0, len, &mut stream.content);
        stream.pieces.push_back(Piece::Head { fields: switch_fields(id, self.backend), good: true });
        if answer == Answer::Stalls {
            stream.pieces.push_back(Piece::Data(conn.rng.below(len + 1) as usize));
            stream.pieces.push_back(Piece::Pause(conn.rng.between(100, 6_000) * MS));
        }
        if answer == Answer::Truncated || net.faults_on && conn.rng.below(8) == 0 {
            net.mark(Mark::TunnelResetByBackend);
            stream.pieces.push_back(Piece::Data(conn.rng.below(len + 1) as usize));
            return stream.pieces.push_back(Piece::Reset(conn.rng.pick(&CODES)));
        }
        stream.pieces.push_back(Piece::Data(len as usize));
        // Some end their half at once, some when the client has ended its half.
        stream.ends_second = conn.rng.below(3) == 0;
        if stream.ends_second {
            return;
        }
        stream.pieces.push_back(Piece::End);
        if net.faults_on && conn.rng.below(6) == 0 {
            net.mark(Mark::TunnelClosedByBackend);
            let code = conn.rng.pick(&[code::NO_ERROR, code::CANCEL, code::INTERNAL_ERROR]);
            stream.pieces.push_back(Piece::Reset(code));
        }
    }

    /// The content of a request is still to come.
    pub(super) fn stream_awaits_content(
        &mut self,
        conn: &mut StreamsConn,
        net: &mut Net,
        number: u32,
        entry: &ExchangeEntry,
        expects: bool,
    ) {
        conn.stall_some(net, number, Mark::Http2StalledRequest);
        if net.fault(net.scenario.backend.early, Mark::EarlyResponse) {
            self.queue_answer(conn, net, number, entry, Answer::Correct);
            let Some(stream) = conn.streams.get_mut(&number) else { return };
            // The rest of the request is not wanted (RFC 9113 §8.1), or more is wrong than that.
            match conn.rng.below(4) {
                0 | 1 => stream.pieces.push_back(Piece::Reset(code::NO_ERROR)),
                2 => stream.pieces.push_back(Piece::Reset(code::CANCEL)),
                _ => {}
            }
        } else if expects && let Some(stream) = conn.streams.get_mut(&number) {
            stream.pieces.push_back(Piece::Interim(vec![pair(":status", "100")]));
        }
    }

    /// Answers a request that is whole.
    pub(super) fn answer(
        &mut self,
        conn: &mut StreamsConn,
        net: &mut Net,
        number: u32,
        entry: &ExchangeEntry,
    ) {
        let timeouts = &net.scenario.timeouts;
        let patient = timeouts.backend_head == 0 && timeouts.stall == 0;
        let thinks = patient && conn.rng.chance(THINKS);
        let answer = if thinks { Answer::Thinks } else { self.draw_answer(net) };
        self.queue_answer(conn, net, number, entry, answer);
    }

    fn draw_answer(&mut self, net: &mut Net) -> Answer {
        let faults = net.scenario.backend.clone();
        let http2 = net.scenario.http2.backends.clone();
        if net.faults_on && net.backend_modes[self.backend] == BackendMode::FailingTraffic {
            net.mark(Mark::FailingTraffic);
            return net.rng.pick(&[Answer::Closes, Answer::Resets, Answer::Malformed]);
        }
        let table = [
            (faults.truncates / 2, Mark::Truncated, Answer::Truncated),
            (faults.closes / 6, Mark::BackendCloses, Answer::Closes),
            (faults.never / 2, Mark::NoResponse, Answer::Never),
            (faults.slow / 2, Mark::SlowResponse, Answer::Delayed),
            (faults.stalls / 2, Mark::Stalled, Answer::Stalls),
            (faults.interim_storm / 2, Mark::InterimStorm, Answer::InterimStorm),
            (http2.resets, Mark::Http2ResetByBackend, Answer::Resets),
            (http2.malformed, Mark::Http2Malformed, Answer::Malformed),
        ];
        let start = net.rng.below(table.len() as u64) as usize;
        for at in 0..table.len() {
            let (permille, mark, answer) = table[(start + at) % table.len()];
            if net.fault(permille, mark) {
                return answer;
            }
        }
        Answer::Correct
    }

    fn queue_answer(
        &mut self,
        conn: &mut StreamsConn,
        net: &mut Net,
        number: u32,
        entry: &ExchangeEntry,
        answer: Answer,
    ) {
        let id = entry.id;
        net.trace(49, || format!("backend {} answers {id} on stream {number}: {answer:?}", self.backend));
        let most = if answer == Answer::Delayed { 4_000 * MS } else { MS };
        let begins = net.now + conn.rng.below(most);
        let Some(stream) = conn.streams.get_mut(&number) else { return };
        stream.answered = true;
        stream.not_before = stream.not_before.max(begins);
        if answer == Answer::Thinks {
            net.mark(Mark::Http2LongThought);
            stream.thinks_until = net.now + conn.rng.between(31_000, 45_000) * MS;
            net.wake_peer(self.socket, stream.thinks_until);
        }
        match answer {
            Answer::Never => return,
            Answer::Resets => {
                let code = conn.rng.pick(&CODES);
                return stream.pieces.push_back(Piece::Reset(code));
            }
            Answer::Closes => {
                let reset = conn.rng.below(2) == 0;
                return self.close(net, reset);
            }
            _ => {}
        }
        let storm = answer == Answer::InterimStorm;
        let interims = if storm { conn.rng.between(1, 50) } else { u64::from(conn.rng.below(10) == 0) };
        for _ in 0..interims {
            stream.pieces.push_back(Piece::Interim(vec![pair(":status", "103"), pair("link", "</x>")]));
        }
        // A 100 (continue) counts too.
        let too_many = interims + u64::from(entry.expect) > MAX_INTERIMS;
        if (too_many || answer == Answer::Malformed)
            && let Some(log) = &mut net.sockets[self.socket].streams
        {
            log.on(number).violated.get_or_insert(net.now);
        }
        if entry.websocket && answer != Answer::Malformed && conn.rng.below(3) > 0 {
            return self.accept_websocket(conn, net, number, entry, answer);
        }
        if entry.websocket {
            net.mark(Mark::WebSocketRefused);
        }
        let fields = response_fields(net, entry, self.backend);
        let len = response_body_len(entry);
        payload::fill(id, PayloadKind::Response, 0, len, &mut stream.content);
        if answer == Answer::Malformed {
            net.trace(50, || format!("what it answers {id} with is no response"));
            let pieces = malformed(&mut conn.rng, &fields, len as usize, entry.method == "HEAD");
            stream.pieces.extend(pieces);
            stream.not_before = begins;
        } else {
            stream.pieces.push_back(Piece::Head { fields, good: true });
            let mut to = len as usize;
            if answer == Answer::Truncated {
                to = conn.rng.below(len + 1) as usize;
            }
            if answer == Answer::Stalls {
                let first = conn.rng.below(len + 1) as usize;
                stream.pieces.push_back(Piece::Data(first));
                stream.pieces.push_back(Piece::Pause(conn.rng.between(100, 6_000) * MS));
            }
            stream.pieces.push_back(Piece::Data(to));
            let has_trailers = entry.response_framing == BodyFraming::Chunked
                && entry.method != "HEAD"
                && !matches!(entry.status, 204 | 304)
                && fields::response_has_trailers(id);
            match answer {
                Answer::Truncated => {
                    stream.pieces.push_back(Piece::Reset(conn.rng.pick(&CODES)));
                }
                _ if has_trailers => stream.pieces.push_back(Piece::Trailers(trailer_fields(id))),
                _ => stream.pieces.push_back(Piece::End),
            }
        }
        if net.faults_on && answer == Answer::Correct && net.rng.chance(net.scenario.backend.closes_idle / 4)
        {
            conn.idle_until = net.now + net.rng.size(2_000 * MS);
            net.wake_peer(self.socket, conn.idle_until);
        }
        net.wake_peer(self.socket, begins);
    }
}

impl StreamsConn {
    /// Gives a stream no credit for a while, now and then.
    fn stall_some(&mut self, net: &mut Net, number: u32, mark: Mark) {
        let may = net.faults_on || net.scenario.fault_free;
        if may && self.rng.chance(net.scenario.http2.backends.stalls) {
            net.mark(mark);
            let until = net.now + self.rng.between(MS, 3_000 * MS);
            if let Some(stream) = self.streams.get_mut(&number) {
                stream.stalls_until = until;
            }
        }
    }

    /// Answers a health check, not before `at`.
    pub(super) fn answer_probe(&mut self, number: u32, status: u16, at: u64) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        stream.not_before = at;
        if status == 0 {
            return;
        }
        let mut fields = vec![pair(":status", &status.to_string())];
        stream.content = if status == 200 { b"up\n".to_vec() } else { b"0\r\n\r\n".to_vec() };
        let len = stream.content.len();
        fields.push(pair("content-length", &len.to_string()));
        stream.pieces.push_back(Piece::Head { fields, good: true });
        stream.pieces.push_back(Piece::Data(len));
        stream.pieces.push_back(Piece::End);
    }
}
