//! The requests of a client: drawn, entered into the ledger and written down before the client connects.

use std::fmt::Write as _;

use super::streams::{request_fields, section_bytes};
use super::{Client, Segment, SendCondition};
use crate::chains::Chain;
use crate::choices::{self, NO_COOKIE};
use crate::coverage::Mark;
use crate::exchanges::{ClientResult, ExchangeEntry};
use crate::fields::{self, Fate, Field};
use crate::http1::{self, BodyFraming};
use crate::http2::HTTP_2;
use crate::identities::{self, Authentication};
use crate::net::Net;
use crate::payload::{self, PayloadKind};
use crate::random::{SplitMix64, mix};
use crate::scenario::{MS, PoolSpec};
use crate::websockets;

/// What all requests of a client have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestStyle {
    /// Sent without waiting for the response to the one before.
    pub(super) pipelined: bool,
    /// No upgrades, and none that no pool takes.
    pub(super) well_behaved: bool,
}

impl Client {
    /// Draws a request and the response to it. `last`: no other one follows on the connection.
    pub(super) fn draw_request(&mut self, net: &mut Net, last: bool, style: RequestStyle) -> u64 {
        let RequestStyle { pipelined, well_behaved } = style;
        let id = net.ledger.entries.len() as u64 + 1;
        let fault_free = net.scenario.fault_free;
        let max_body = net.scenario.max_body;
        let names: Vec<&'static str> = net.scenario.pools.iter().map(|p| p.name).collect();
        let catch_all = net.scenario.has_catch_all;
        let rng = &mut net.rng;
        let version = if rng.below(10) == 0 { 10 } else { 11 };
        let version = if self.http2.is_some() { HTTP_2 } else { version };
        let mut method = rng.pick(&["GET", "GET", "GET", "POST", "POST", "PATCH", "PUT", "HEAD", "DELETE"]);
        let upgrade = last && version == 11 && !well_behaved && rng.below(6) == 0;
        let with_body = matches!(method, "POST" | "PUT" | "PATCH") || rng.below(12) == 0;
        let len = if with_body && !upgrade { rng.size(max_body) } else { 0 };
        let framing = match (with_body && !upgrade, version, rng.below(2)) {
            (false, ..) => BodyFraming::None,
            (_, 11 | HTTP_2, 0) => BodyFraming::Chunked,
            _ => BodyFraming::Length(len),
        };
        if upgrade {
            method = "GET";
        }
        let websocket = (upgrade || version == HTTP_2 && !well_behaved)
            && net.scenario.is_websocket(id, version == HTTP_2);
        let no_pool = !fault_free && !well_behaved && !catch_all && rng.below(10) == 0;
        let prefix = if no_pool { "none" } else { rng.pick(&names) };
        let fallback = if catch_all { names.last().copied() } else { None };
        let pool = names.iter().copied().find(|n| *n == prefix).or(fallback);
        let status = if rng.below(12) == 0 { rng.pick(&[204, 304, 404, 500]) } else { 200 };
        let response_len = rng.size(max_body);
        let response_framing = rng.pick(&[
            BodyFraming::Length(0),
            BodyFraming::Length(0),
            BodyFraming::Chunked,
            BodyFraming::Close,
        ]);
        let close = draw_close(rng, version, last) && (last || !pipelined) && version != HTTP_2;
        let expect = framing != BodyFraming::None && len > 0 && version != 10 && rng.below(4) == 0;
        let padding = if rng.below(5) == 0 { rng.size(5_000) } else { 0 };
        let tunnel = (rng.size(max_body), rng.size(max_body));
        let trailer = framing == BodyFraming::Chunked && rng.below(3) == 0;
        // What is drawn for others stays the same.
        let streams = websocket && version == HTTP_2;
        let upgrade = upgrade || streams;
        let (method, len, framing) =
            if streams { ("GET", 0, BodyFraming::None) } else { (method, len, framing) };
        let (expect, trailer) = (expect && !streams, trailer && !streams);
        // Another 2xx would be a WebSocket that is there.
        let status = if websocket { 403 + u16::from(status == 200) } else { status };
        let (host, misdirected) = net.scenario.host_of(self.index, id, well_behaved || fault_free);
        let pool = pool.filter(|_| !misdirected);
        net.ledger.entries.push(ExchangeEntry {
            id,
            client: self.index,
            pool,
            method,
            target: format!("/{prefix}/r{id}{}", fields::query(id)),
            host,
            misdirected,
            version,
            framing,
            len,
            padding,
            fill: 0,
            head_fields: 0,
            section: 0,
            expect,
            upgrade,
            websocket,
            close: close && !upgrade,
            trailer,
            authentication: Authentication::None,
            sends_cookie: false,
            status,
            response_len,
            response_framing,
            tunnel,
            early: 0,
            head_end: 0,
            head_len: 0,
            attempts: Vec::new(),
            sendings: Vec::new(),
            connections: Vec::new(),
            reused: Vec::new(),
            tunnelled: None,
            request_end: 0,
            cookie: None,
            chosen: None,
            waited_behind: None,
            reply_cause: None,
            reply_len: 0,
            limited: Vec::new(),
            chain: 0,
            entered: false,
            content_changes: false,
            answered_by: None,
            answered_on_stream: false,
            down: 0,
            record: None,
            recorded_at: 0,
            result: ClientResult::Pending,
            tunnel_half_closed: false,
            switched: false,
            given_up: false,
            cut: false,
            refused: false,
        });
        let changes = Chain::of(&net.scenario, net.ledger.get(id)).changes_content();
        net.ledger.get_mut(id).content_changes = changes;
        // With a name and a password in the request there is no place for others.
        if self.authenticates && !net.scenario.authenticates(pool) {
            let authentication = Authentication::draw(&mut net.rng, upgrade);
            let websocket = net.ledger.get(id).websocket;
            let authentication = if websocket { Authentication::None } else { authentication };
            let entry = net.ledger.get_mut(id);
            entry.authentication = authentication;
            if authentication == Authentication::Challenge {
                entry.status = identities::challenge_status(id);
            }
        }
        let sticky = |p: &PoolSpec| Some(p.name) == pool && p.sticky;
        net.ledger.get_mut(id).sends_cookie = self.keeps_cookies && net.scenario.pools.iter().any(sticky);
        self.requests.push(id);
        id
    }

    /// Puts a request into the output. `nth`: its position on the connection; `written`: how many bytes come
    /// before it, to which its own are added.
    pub(super) fn queue_request(
        &mut self,
        net: &mut Net,
        id: u64,
        nth: usize,
        pipelined: bool,
        written: &mut u64,
    ) {
        let head = self.draw_head(net, id);
        let entry = net.ledger.get(id).clone();
        let mut body = Vec::new();
        match entry.framing {
            BodyFraming::Length(_) => payload::fill(id, PayloadKind::Request, 0, entry.len, &mut body),
            BodyFraming::Chunked => http1::write_chunked(
                id,
                PayloadKind::Request,
                entry.len,
                &if entry.trailer { fields::trailers(id) } else { Vec::new() },
                &mut net.rng,
                &mut body,
            ),
            BodyFraming::None | BodyFraming::Close => {}
        }
        *written += head.len() as u64;
        let entry_written = net.ledger.get_mut(id);
        (entry_written.head_end, entry_written.head_len) = (*written, head.len() as u64);
        *written += body.len() as u64;
        net.ledger.get_mut(id).request_end = *written;
        let condition =
            if pipelined || nth == 0 { SendCondition::Immediately } else { SendCondition::Responses(nth) };
        let cookie_of = entry.sends_cookie.then_some(id);
        self.output.push_back(Segment { bytes: head, sent: 0, condition, is_head: true, cookie_of });
        if !body.is_empty() {
            let condition =
                if entry.expect { SendCondition::Continue(nth) } else { SendCondition::Immediately };
            self.output.push_back(Segment {
                bytes: body,
                sent: 0,
                condition,
                is_head: false,
                cookie_of: None,
            });
        }
        let rng = &mut SplitMix64::new(mix(net.scenario.seed ^ mix(id ^ 0xea51)));
        if entry.upgrade && entry.tunnel.0 > 0 && rng.below(3) == 0 {
            let early = 1 + rng.size(entry.tunnel.0 - 1);
            net.ledger.get_mut(id).early = early;
            net.mark(Mark::EarlyTunnelBytes);
            let mut bytes = Vec::new();
            payload::fill(id, PayloadKind::TunnelUp, 0, early, &mut bytes);
            let condition = SendCondition::Immediately;
            self.output.push_back(Segment { bytes, sent: 0, condition, is_head: false, cookie_of: None });
        }
        if entry.expect && net.rng.below(2) == 0 {
            self.continue_timeout = Some(net.rng.between(MS, 300 * MS));
        }
        if pipelined && nth > 0 {
            net.mark(Mark::Pipelined);
        }
    }

    /// Writes the head of a request, and marks what is in it.
    pub(super) fn draw_head(&self, net: &mut Net, id: u64) -> Vec<u8> {
        let head = write_head(net, id);
        let entry = net.ledger.get(id).clone();
        let drawn = fields::of_request(id, entry.version);
        let has = |name: &str| drawn.iter().any(|f| f.name == name);
        let marks = [
            (has("Cookie"), Mark::Cookie),
            (has("X-Nominated"), Mark::Nominated),
            (has("TE"), Mark::Te),
            (has("Keep-Alive"), Mark::KeepAliveField),
            (drawn.iter().any(|f| f.fate == Fate::Forwarding), Mark::ForwardingField),
            (entry.trailer, Mark::RequestTrailers),
            (entry.authentication == Authentication::Credentials, Mark::Credentials),
            (entry.authentication == Authentication::Challenge, Mark::Challenge),
            (entry.version == 10, Mark::Http10),
            (entry.method == "HEAD", Mark::Head),
            (entry.method == "PATCH", Mark::Patch),
            (matches!(entry.framing, BodyFraming::Length(_)), Mark::LengthBody),
            (entry.framing == BodyFraming::Chunked, Mark::ChunkedBody),
            (entry.len > 18_000, Mark::LongBody),
            (entry.misdirected, Mark::Misdirected),
            (entry.target.contains('?'), Mark::Query),
        ];
        marks.iter().filter(|(is, _)| *is).for_each(|(_, mark)| net.mark(*mark));
        head
    }
}

/// Writes the head of a request. Where heads are limited it may be made as long as allowed, or too long by
/// one.
fn write_head(net: &mut Net, id: u64) -> Vec<u8> {
    let write = |net: &Net| {
        let entry = net.ledger.get(id);
        let forges = net.scenario.forges(id);
        let (credentials, codes) =
            (net.scenario.authenticates(entry.pool), net.scenario.compresses(entry.pool));
        request_head(entry, forges, credentials, codes).into_bytes()
    };
    let count = |head: &[u8]| head.iter().filter(|b| **b == b'\n').count() as u64 - 2;
    let limits = net.scenario.limits.clone();
    let mut head = write(net);
    let rng = &mut SplitMix64::new(mix(net.scenario.seed ^ mix(id ^ 0x11317)));
    // What the response to HEAD has behind its head depends on whether the method could be read.
    let entry = net.ledger.get_mut(id);
    let above = if entry.method == "HEAD" { 0 } else { 1 };
    let text = entry.version != HTTP_2;
    if limits.target_bytes > 0 && rng.below(6) == 0 {
        let want = limits.target_bytes + rng.below(1 + above);
        let more = want.saturating_sub(entry.target.len() as u64);
        if more > 0 {
            let joint = if entry.target.contains('?') { '&' } else { '?' };
            entry.target.push(joint);
            entry.target.extend(std::iter::repeat_n('t', more as usize - 1));
        }
        head = write(net);
    }
    if limits.fields > 0 && rng.below(6) == 0 && text {
        let want = limits.fields + rng.below(1 + above);
        net.ledger.get_mut(id).fill = want.saturating_sub(count(&head));
        head = write(net);
    }
    if limits.head_bytes > 0 && rng.below(6) == 0 && text {
        let want = limits.head_bytes + rng.below(1 + above);
        let entry = net.ledger.get_mut(id);
        entry.padding = entry.padding.max(1);
        head = write(net);
        net.ledger.get_mut(id).padding += want.saturating_sub(head.len() as u64);
        head = write(net);
    }
    let entry = net.ledger.get_mut(id);
    (entry.head_len, entry.head_fields) = (head.len() as u64, count(&head));
    if entry.version == HTTP_2 {
        let fields = request_fields(&head, id, "http");
        (entry.section, entry.head_fields) = (section_bytes(&fields), fields.len() as u64);
    }
    let entry = net.ledger.get(id);
    if entry.method == "HEAD" && !net.scenario.above_limits(entry).is_empty() {
        // By what it had to say anyway: then it asks for all of it.
        net.ledger.get_mut(id).method = "GET";
        return write_head(net, id);
    }
    let at = |limit: u64, is: u64| limit > 0 && limit == is;
    let entry = net.ledger.get(id);
    let marks = [
        (text && at(limits.head_bytes, entry.head_len), Mark::LongestHead),
        (text && at(limits.fields, entry.head_fields), Mark::MostFields),
        (at(limits.target_bytes, entry.target.len() as u64), Mark::LongestTarget),
    ];
    marks.iter().filter(|(is, _)| *is).for_each(|(_, mark)| net.mark(*mark));
    head
}

/// The head of a request as the client writes it.
/// `credentials`: names and passwords are asked for. `codes`: its response may be compressed.
fn request_head(entry: &ExchangeEntry, forges: bool, credentials: bool, codes: bool) -> String {
    let mut head = String::new();
    let version = if entry.version == 10 { "1.0" } else { "1.1" };
    write!(
        head,
        "{} {} HTTP/{version}\r\nHost: {}\r\nX-Sim: {}\r\n",
        entry.method, entry.target, entry.host, entry.id
    )
    .expect("memory");
    if entry.padding > 0 {
        write!(head, "X-Pad: {}\r\n", payload::padding(entry.id, entry.padding)).expect("memory");
    }
    for nth in 0..entry.fill {
        write!(head, "X-Fill: {nth}\r\n").expect("memory");
    }
    if entry.sends_cookie {
        write!(head, "Cookie: {}\r\n", choices::cookie_field(NO_COOKIE)).expect("memory");
    }
    let of_middlewares = fields::for_middlewares(entry.id, credentials, codes);
    let all = fields::of_request(entry.id, entry.version)
        .into_iter()
        .filter(|f| !credentials || f.name != "Authorization")
        .chain(identities::of_request(entry.id, entry.authentication))
        .chain(of_middlewares);
    for Field { name, value, .. } in all {
        write!(head, "{name}: {value}\r\n").expect("memory");
    }
    if forges {
        head.push_str("X-Client-Subject: CN=forged\r\nx_client_verify: SUCCESS\r\n");
    }
    if entry.expect {
        head.push_str("Expect: 100-continue\r\n");
    }
    if entry.websocket {
        let key = websockets::key(entry.id);
        write!(head, "Connection: upgrade\r\nUpgrade: {}\r\n", websockets::PROTOCOL).expect("memory");
        write!(head, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n").expect("memory");
    } else if entry.upgrade {
        head.push_str("Connection: upgrade\r\nUpgrade: sim\r\n");
    } else if entry.close && entry.version == 11 {
        head.push_str("Connection: close\r\n");
    } else if !entry.close && entry.version == 10 {
        head.push_str("Connection: keep-alive\r\n");
    }
    match entry.framing {
        BodyFraming::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        BodyFraming::Length(n) => write!(head, "Content-Length: {n}\r\n").expect("memory"),
        BodyFraming::None | BodyFraming::Close => {}
    }
    head.push_str("\r\n");
    head
}

/// Draws whether a request closes the connection. A client that sends no more may say so or not.
fn draw_close(rng: &mut SplitMix64, version: u8, last: bool) -> bool {
    match version {
        10 => last || rng.below(2) == 0,
        _ => last && rng.below(2) == 0 || rng.below(30) == 0,
    }
}

/// Draws when clients connect: alone or several at once.
pub(crate) fn arrival_times(rng: &mut SplitMix64, count: usize) -> Vec<u64> {
    // Enough for the first lookups of backends.
    let mut at = 20 * MS;
    (0..count)
        .map(|_| {
            if rng.below(3) > 0 {
                at += rng.size(400 * MS);
            }
            at
        })
        .collect()
}
