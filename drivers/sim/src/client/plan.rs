//! What a client is to send, drawn before it comes.

use super::{Client, Gate, Piece};
use crate::coverage::Mark;
use crate::dice::Dice;
use crate::draw::MS;
use crate::ledger::{Request, Seen};
use crate::net::Net;
use crate::wire::{self, Frame, Lane};

impl Client {
    /// Draws a request.
    pub(super) fn plan(&mut self, net: &mut Net, last: bool, pipelines: bool, tame: bool) -> u64 {
        let id = net.ledger.requests.len() as u64 + 1;
        let fault_free = net.draw.fault_free;
        let most = net.draw.largest_body;
        let names: Vec<&'static str> = net.draw.pools.iter().map(|p| p.name).collect();
        let catch_all = net.draw.has_catch_all;
        let d = &mut net.dice;
        let version = if d.below(10) == 0 { 10 } else { 11 };
        let mut method = d.one(&["GET", "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE"]);
        let upgrade = last && version == 11 && !tame && d.below(6) == 0;
        let with_body = matches!(method, "POST" | "PUT") || d.below(12) == 0;
        let len = if with_body && !upgrade { d.size(most) } else { 0 };
        let frame = match (with_body && !upgrade, version, d.below(2)) {
            (false, ..) => Frame::None,
            (_, 11, 0) => Frame::Chunked,
            _ => Frame::Length(len),
        };
        if upgrade {
            method = "GET";
        }
        let prefix =
            if !fault_free && !tame && !catch_all && d.below(10) == 0 { "none" } else { d.one(&names) };
        let pool = names.iter().copied().find(|n| *n == prefix).or(if catch_all {
            names.last().copied()
        } else {
            None
        });
        let status = if d.below(12) == 0 { d.one(&[204, 304, 404, 500]) } else { 200 };
        let response_len = d.size(most);
        let response_frame = d.one(&[Frame::Length(0), Frame::Length(0), Frame::Chunked, Frame::Close]);
        // Who knows that its connection ends says so only sometimes.
        let close = match version {
            10 => last || d.below(2) == 0,
            _ => last && d.below(2) == 0 || d.below(30) == 0,
        } && (last || !pipelines);
        let expect = frame != Frame::None && len > 0 && version == 11 && d.below(4) == 0;
        let padding = if d.below(5) == 0 { d.size(5_000) } else { 0 };
        let tunnel = (d.size(most), d.size(most));
        let trailer = frame == Frame::Chunked && d.below(3) == 0;
        net.ledger.requests.push(Request {
            id,
            client: self.index,
            pool,
            method,
            target: format!("/{prefix}/r{id}"),
            version,
            frame,
            len,
            padding,
            expect,
            upgrade,
            close: close && !upgrade,
            trailer,
            status,
            response_len,
            response_frame,
            tunnel,
            head_end: 0,
            attempts: Vec::new(),
            told: None,
            told_at: 0,
            seen: Seen::Nothing,
            up_ended: false,
            switched: false,
        });
        self.requests.push(id);
        id
    }

    pub(super) fn write_request(
        &mut self,
        net: &mut Net,
        id: u64,
        nth: usize,
        pipelines: bool,
        stream: &mut u64,
    ) {
        let r = net.ledger.get(id).clone();
        let head = wire::request_head(&r).into_bytes();
        let mut body = Vec::new();
        match r.frame {
            Frame::Length(_) => wire::fill(id, Lane::Request, 0, r.len, &mut body),
            Frame::Chunked => wire::chunk(id, Lane::Request, r.len, r.trailer, &mut net.dice, &mut body),
            Frame::None | Frame::Close => {}
        }
        *stream += head.len() as u64;
        net.ledger.at(id).expect("just made").head_end = *stream;
        *stream += body.len() as u64;
        let gate = if pipelines || nth == 0 { Gate::Now } else { Gate::Responses(nth) };
        self.out.push_back(Piece { bytes: head, sent: 0, gate, head: true });
        if !body.is_empty() {
            let gate = if r.expect { Gate::Continue(nth) } else { Gate::Now };
            self.out.push_back(Piece { bytes: body, sent: 0, gate, head: false });
        }
        if r.expect && net.dice.below(2) == 0 {
            self.patience = Some(net.dice.between(MS, 300 * MS));
        }
        let marks = [
            (r.version == 10, Mark::Http10),
            (r.method == "HEAD", Mark::Head),
            (matches!(r.frame, Frame::Length(_)), Mark::LengthBody),
            (r.frame == Frame::Chunked, Mark::ChunkedBody),
            (pipelines && nth > 0, Mark::Pipelined),
            (r.len > 18_000, Mark::LongBody),
        ];
        marks.iter().filter(|(is, _)| *is).for_each(|(_, mark)| net.mark(*mark));
    }
}

/// Draws when clients come: in bursts and alone.
pub(crate) fn forwarded_headers(d: &mut Dice, count: usize) -> Vec<u64> {
    // Names have been found by then.
    let mut at = 20 * MS;
    (0..count)
        .map(|_| {
            if d.below(3) > 0 {
                at += d.size(400 * MS);
            }
            at
        })
        .collect()
}
