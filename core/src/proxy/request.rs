//! The way in: from a client's bytes to a head ready for a backend.

use super::admin;
use super::exchange::{Exchange, Leg, MessagePipe, Phase};
use super::{LookupResult, Proxy};
use crate::balance::Tried;
use crate::cause::Cause;
use crate::config::{Limits, ListenerKind};
use crate::conn::Client;
use crate::h1::{
    Event, ForwardedHeaders, HeadLimits, ParsedRequest, RequestForward, RequestId, Side, Writer,
    find_request_end, forward_request, parse_request, parse_request_prefix,
};
use crate::http::{HeaderKind, Scheme, Version, Violation};
use crate::id::{ConnId, ExchangeId};
use crate::middleware::Verdict;
use crate::observe::{Head, Kept, Named, Observer, Timings};
use crate::route::{self, Ask};
use crate::shared::Shared;
use crate::time::Instant;

/// A body longer than this cannot stay here for a retry.
const BODY_STAYS_BYTES: u64 = crate::page::SMALL_BYTES as u64;

/// What a head turned out to be.
enum Outcome {
    /// It lies rewritten in the exchange's page.
    RequestForward,
    Refuse(Cause),
    /// One of our own pages.
    Own {
        status: u16,
        body: &'static [u8],
    },
    Ask(super::Query),
}

pub(super) fn head_limits(limits: &Limits) -> HeadLimits {
    HeadLimits {
        head_bytes: limits.head_bytes as usize,
        fields: limits.fields as usize,
        target_bytes: limits.target_bytes as usize,
    }
}

impl<O: Observer> Proxy<O> {
    /// Looks for the head of the next request in what lies there.
    pub(super) fn read_request(&mut self, c: ConnId, now: Instant) {
        let conn = &mut self.conns[c];
        if conn.inbox.raw_len() == 0 {
            return;
        }
        if conn.inbox.scanned == 0 && self.take_whole(c, now) {
            return;
        }
        let conn = &mut self.conns[c];
        let page = conn.inbox.page.as_ref().expect("bytes lie in a page");
        let raw = &self.pages.bytes(page)[conn.inbox.raw as usize..conn.inbox.end as usize];
        match find_request_end(raw, conn.inbox.scanned as usize) {
            Ok(Some(len)) => {
                let x = self.begin(c, now);
                self.take_head(x, len, None, now);
            }
            Ok(None) => {
                conn.inbox.scanned = raw.len() as u32;
                let config = &self.routing.config;
                if conn.recv_ended {
                    // The rest of it will never come.
                    return self.close(c);
                }
                if raw.len() >= config.limits.head_bytes as usize {
                    // Without a line end it is the target that never ends (RFC 9112 §3).
                    let violation =
                        if raw.contains(&b'\n') { Violation::HeadTooLarge } else { Violation::TargetTooLong };
                    return self.reject(c, Cause::BadRequest(violation), now);
                }
                if conn.window_start == Instant::NEVER {
                    conn.window_start = now;
                }
                let at = conn.window_start + config.timeouts.head;
                self.set_deadline(c, at);
                self.list(c);
            }
            Err(violation) => self.reject(c, Cause::BadRequest(violation), now),
        }
    }

    /// Most heads come whole and are as they should be: those are read in one pass. `false` for all others:
    /// they are looked at more closely.
    fn take_whole(&mut self, c: ConnId, now: Instant) -> bool {
        let inbox = &mut self.conns[c].inbox;
        let (start, end) = (inbox.raw as usize, inbox.end as usize);
        let page = inbox.page.take().expect("bytes lie in a page");
        let memory = self.pages.detach(&page);
        let (mut scratch, mut store) = (std::mem::take(&mut self.scratch), std::mem::take(&mut self.store));
        let limits = head_limits(&self.routing.config.limits);
        let taken = match parse_request_prefix(&memory[start..end], &mut store, &limits, &mut scratch) {
            Ok(Some((request, len))) => {
                let x = self.begin(c, now);
                Some((x, len, self.take_request(x, &request, None, now)))
            }
            _ => None,
        };
        (self.scratch, self.store) = (scratch, store);
        self.pages.restore(&page, memory);
        self.conns[c].inbox.page = Some(page);
        let Some((x, len, outcome)) = taken else { return false };
        self.act(x, len, outcome, now);
        true
    }

    /// Answers a client whose head could not be read.
    pub(super) fn reject(&mut self, c: ConnId, cause: Cause, now: Instant) {
        let x = self.begin(c, now);
        self.exchanges[x.0].keep_alive = false;
        let conn = &self.conns[c];
        let (from, to) = (conn.inbox.raw as usize, conn.inbox.end as usize);
        let raw = conn.inbox.page.as_ref().map_or(&b""[..], |page| &self.pages.bytes(page)[from..to]);
        tell_unread(&mut self.observer, &mut self.exchanges[x.0].kept, conn.client(), raw);
        self.refuse(x, cause);
    }

    /// An exchange begins.
    fn begin(&mut self, c: ConnId, now: Instant) -> ExchangeId {
        let conn = &mut self.conns[c];
        let started = if conn.window_start == Instant::NEVER { now } else { conn.window_start };
        let first = conn.client().requests == 0;
        conn.client_mut().requests += 1;
        conn.window_start = Instant::NEVER;
        let (kept, own) =
            (Kept::recycled(self.spare.pop().unwrap_or_default()), self.spare.pop().unwrap_or_default());
        let x = self.exchanges.insert_with(|| Exchange {
            client: Leg::h1(c),
            backend: None,
            phase: Phase::Choosing,
            runtime: None,
            choice: None,
            queued: false,
            holds_slot: false,
            request: MessagePipe::new(),
            response: MessagePipe::new(),
            tried: Tried::new(),
            asked_sticky: None,
            attempts: 0,
            retries_left: 0,
            replays: 0,
            reused: false,
            retained: true,
            response_seen: false,
            first_failure: None,
            head_only: false,
            idempotent: false,
            version: 0,
            keep_alive: true,
            asked_close: false,
            upgrade: false,
            awaits_continue: false,
            interims: 0,
            request_gone: false,
            response_begun: false,
            bytes_out: 0,
            touched: false,
            stage: 0,
            shut_backend: false,
            shut_client: false,
            status: 0,
            cause: None,
            // A first request's time begins with its first byte too, not when its connection was made.
            times: Timings::new(if first { now } else { started }),
            own_body: 0,
            own,
            kept,
        });
        let x = ExchangeId(x);
        self.conns[c].exchange = Some(x);
        x
    }

    /// A whole head of `len` bytes lies in the client's inbox. `answer` is that of a lookup which a stage
    /// waited for.
    pub(super) fn take_head(
        &mut self,
        x: ExchangeId,
        len: usize,
        response: Option<&LookupResult>,
        now: Instant,
    ) {
        let c = self.exchanges[x.0].client.conn;
        let conn = &mut self.conns[c];
        let start = conn.inbox.raw as usize;
        // The page is taken out meanwhile: its bytes are read while other pages are written.
        let page = conn.inbox.page.take().expect("a head lies in a page");
        let memory = self.pages.detach(&page);
        let outcome = self.read_head(x, &memory[start..start + len], response, now);
        self.pages.restore(&page, memory);
        self.conns[c].inbox.page = Some(page);
        self.act(x, len, outcome, now);
    }

    /// Goes on with what a head of `len` bytes turned out to be.
    fn act(&mut self, x: ExchangeId, len: usize, outcome: Outcome, now: Instant) {
        let c = self.exchanges[x.0].client.conn;
        let conn = &mut self.conns[c];
        match outcome {
            Outcome::Ask(query) => {
                conn.inbox.scanned = len as u32;
                self.ask(x, query, now);
            }
            Outcome::Refuse(cause) => {
                conn.inbox.consume_raw(len);
                self.refuse(x, cause);
            }
            Outcome::Own { status, body } => {
                conn.inbox.consume_raw(len);
                self.own_response(x, status, None, body);
            }
            Outcome::RequestForward => {
                conn.inbox.consume_raw(len);
                let e = &mut self.exchanges[x.0];
                // A body that cannot all stay here makes the first attempt the last.
                if e.request.reader.remaining().is_some_and(|n| n > BODY_STAYS_BYTES) {
                    e.retained = false;
                }
                if !self.receive_request(x, now) {
                    return;
                }
                if !self.exchanges[x.0].request.ended {
                    // Its body may come while it waits for a backend.
                    self.list_recv(c);
                }
                // Those who wait come first.
                self.serve_queues(now);
                self.choose(x, now);
            }
        }
    }

    /// Reads a head, routes it, asks the stages, and writes what the backend will see.
    fn read_head(
        &mut self,
        x: ExchangeId,
        raw: &[u8],
        response: Option<&LookupResult>,
        now: Instant,
    ) -> Outcome {
        let config = self.routing.config.clone();
        let (mut scratch, mut store) = (std::mem::take(&mut self.scratch), std::mem::take(&mut self.store));
        let outcome = match parse_request(raw, &mut store, &head_limits(&config.limits), &mut scratch) {
            Err(violation) => {
                let e = &mut self.exchanges[x.0];
                (e.keep_alive, e.head_only) = (false, raw.starts_with(b"HEAD "));
                tell_unread(&mut self.observer, &mut e.kept, self.conns[e.client.conn].client(), raw);
                Outcome::Refuse(Cause::BadRequest(violation))
            }
            Ok(request) => self.take_request(x, &request, response, now),
        };
        scratch.clear();
        (self.scratch, self.store) = (scratch, store);
        outcome
    }

    fn take_request(
        &mut self,
        x: ExchangeId,
        request: &ParsedRequest<'_>,
        response: Option<&LookupResult>,
        now: Instant,
    ) -> Outcome {
        let config = &self.routing.config;
        let e = &mut self.exchanges[x.0];
        let conn = &mut self.conns[e.client.conn];
        if response.is_none() {
            let upgrade = request.upgrade.is_some();
            let applied =
                conn.machine.apply(Side::Client, if upgrade { Event::HeadUpgrade } else { Event::Head });
            debug_assert!(applied.is_ok(), "a request is read only when one may come");
            if !request.keep_alive {
                let _ = conn.machine.apply(Side::Client, Event::NoKeepAlive);
            }
        }
        e.head_only = request.is_head;
        e.idempotent = request.method.is_idempotent();
        e.version = version_number(request.version);
        e.upgrade = request.upgrade.is_some();
        e.asked_close = !request.keep_alive;
        e.times.head = now;
        e.request.trailers_pass = !request.lists_fields;
        e.request.begin(request.framing, request.framing);
        e.awaits_continue = request.expect_continue && !e.request.ended;
        if e.request.ended && response.is_none() {
            let _ = conn.machine.apply(Side::Client, Event::End);
        }
        let client = conn.client();
        let most = config.limits.requests_per_connection;
        e.keep_alive = request.keep_alive && self.drain.is_none() && (most == 0 || client.requests < most);
        let kind = client.kind;
        let own_id = next_id(&mut self.last_id);
        if self.observer.wants_records() {
            tell(&mut self.observer, &mut e.kept, client, request, &own_id);
        }
        if kind == ListenerKind::Admin {
            let (status, body) = admin::page(request, self.shared.all_ready() && self.drain.is_none());
            return Outcome::Own { status, body };
        }
        // RFC 9110 §7.4: what is to be secured is not served over a connection that is not, unless a proxy of
        // ours has ended the TLS.
        if request.target.scheme == Some(Scheme::Https) && kind == ListenerKind::Http && !client.trusted {
            e.keep_alive = false;
            return Outcome::Refuse(Cause::BadRequest(Violation::HttpsOverHttp));
        }
        if request.max_forwards == Some(0) {
            return Outcome::Own { status: 200, body: b"" };
        }

        let runtime = match e.runtime {
            Some(runtime) => runtime,
            None => {
                let ask = Ask {
                    https: kind == ListenerKind::Https,
                    host: request.host,
                    path: request.target.path,
                    query: request.target.query,
                    method: request.method.as_str().as_bytes(),
                    client: client.peer.ip(),
                    fields: &RequestFields(request),
                };
                let Some(pool) = self.routing.router.route(&ask) else {
                    return Outcome::Refuse(Cause::NoRoute);
                };
                let runtime = self.routing.runtimes[pool as usize];
                let rt = self.runtimes[runtime as usize].as_mut().expect("a current runtime");
                rt.exchanges += 1;
                rt.count_request();
                e.runtime = Some(runtime);
                e.retries_left = rt.pool().retries;
                runtime
            }
        };
        let rt = self.runtimes[runtime as usize].as_ref().expect("a runtime in use");
        if !rt.chain.is_empty() {
            let mut verdict = response.map(|a| rt.chain[e.stage as usize].responded(request, a));
            loop {
                match verdict {
                    Some(Verdict::Refuse(cause)) => return Outcome::Refuse(cause),
                    Some(Verdict::Ask(query)) => return Outcome::Ask(query),
                    Some(Verdict::Pass) => e.stage += 1,
                    None => {}
                }
                let Some(stage) = rt.chain.get(e.stage as usize) else { break };
                verdict = Some(stage.request(request));
            }
        }
        if let Some(sticky) = rt.balancer.sticky() {
            e.asked_sticky = request
                .fields
                .iter()
                .filter(|f| f.kind == HeaderKind::Cookie)
                .find_map(|f| sticky.find(f.value));
        }

        let Some(page) = self.pages.lend() else { return Outcome::Refuse(Cause::NoPages) };
        let backend = rt.pool().backends.first().map_or(&b""[..], |b| b.label.as_bytes());
        let forward = RequestForward {
            peer: &client.peer_text,
            forwarded_headers: forwarded_headers(
                &mut self.forwarded_headers,
                &self.shared,
                kind,
                client.local_port,
            ),
            request_id: &own_id,
            trusted: client.trusted,
            keep_expect: e.awaits_continue,
            own_body: None,
            default_host: backend,
        };
        let mut w = Writer::new(self.pages.bytes_mut(&page));
        forward_request(&mut w, request, &forward);
        let written = w.finish();
        e.request.head = Some(page);
        match written {
            Some(len) => {
                e.request.head_len = len as u32;
                Outcome::RequestForward
            }
            None => Outcome::Refuse(Cause::BadRequest(Violation::HeadTooLarge)),
        }
    }

    /// More of a request's body came.
    pub(super) fn request_body(&mut self, x: ExchangeId, now: Instant) {
        if self.exchanges[x.0].phase == Phase::Own || !self.receive_request(x, now) {
            return;
        }
        self.push_request(x);
        self.touch(x);
    }

    /// Decodes what lies in the client's inbox; `false` if that ended the exchange.
    pub(super) fn receive_request(&mut self, x: ExchangeId, now: Instant) -> bool {
        let e = &mut self.exchanges[x.0];
        let conn = &mut self.conns[e.client.conn];
        let had_ended = e.request.ended;
        let limits = head_limits(&self.routing.config.limits);
        if let Err(violation) = e.request.receive(&mut conn.inbox, &mut self.pages, &limits) {
            let _ = conn.machine.apply(Side::Client, Event::Fail);
            self.break_exchange(x, Cause::BadRequest(violation), now);
            return false;
        }
        if e.request.payload_bytes > 0 {
            e.expectation_met();
        }
        if e.request.ended && !had_ended {
            let _ = conn.machine.apply(Side::Client, Event::End);
        }
        true
    }

    /// Frames what lies ready for the backend and lets it look.
    pub(super) fn push_request(&mut self, x: ExchangeId) {
        let e = &mut self.exchanges[x.0];
        let client = &mut self.conns[e.client.conn];
        e.request.frame(Some(&mut client.inbox), &mut self.pages);
        // What has been sent stays for a retry only as long as it is not in the way of what comes.
        if e.retained && !e.request.ended && !client.inbox.has_room() {
            e.retained = false;
        }
        if !e.retained {
            e.request.release(&mut client.inbox);
        }
        // While there is nothing to say no page is held: long polls and quiet tunnels must not use up all.
        client.inbox.trim(&mut self.pages);
        let (c, b) = (e.client.conn, e.backend.map(|leg| leg.conn));
        let (output, ended) = (e.request.has_output(Some(&client.inbox)), e.request.ended);
        if let Some(b) = b.filter(|_| output) {
            self.list(b);
        }
        if !ended {
            self.list_recv(c);
        }
    }
}

/// Tells of a head, if it is not for our own page.
#[inline(never)]
fn tell(
    observer: &mut impl Observer,
    kept: &mut Kept,
    client: &Client,
    request: &ParsedRequest<'_>,
    own_id: &RequestId,
) {
    if client.kind == ListenerKind::Admin {
        return;
    }
    let field = |known| request.fields.get(known).unwrap_or_default();
    let theirs = if client.trusted {
        request.fields.get(HeaderKind::XRequestId).filter(|id| !id.is_empty())
    } else {
        None
    };
    let head = Head {
        method: cut(request.method.as_str().as_bytes(), 32),
        target: cut(request.target.normalised, 1024),
        version: version_number(request.version),
        host: cut(request.host, 255),
        user_agent: cut(field(HeaderKind::UserAgent), 255),
        referer: cut(field(HeaderKind::Referer), 255),
        request_id: theirs.map_or(Named::Ours(own_id), |id| Named::Theirs(cut(id, 128))),
        ..unread(client)
    };
    observer.head(&head, kept);
}

/// Tells of a head that could not be read: its first line is there, so that a log shows what was refused.
fn tell_unread(observer: &mut impl Observer, kept: &mut Kept, client: &Client, raw: &[u8]) {
    let line = raw.split(|b| matches!(b, b'\r' | b'\n')).find(|line| !line.is_empty()).unwrap_or_default();
    if observer.wants_records() && client.kind != ListenerKind::Admin {
        observer.head(&Head { target: cut(line, 1024), ..unread(client) }, kept);
    }
}

/// What there is to tell if no head was understood.
fn unread(client: &Client) -> Head<'_> {
    Head {
        client: client.peer,
        client_ip: &client.peer_text,
        scheme: if client.kind == ListenerKind::Https { Scheme::Https } else { Scheme::Http },
        method: b"",
        target: b"",
        version: 0,
        host: b"",
        user_agent: b"",
        referer: b"",
        request_id: Named::Theirs(b""),
    }
}

/// 10 or 11.
fn version_number(version: Version) -> u8 {
    if version == Version::HTTP_11 { 11 } else { 10 }
}

fn cut(text: &[u8], most: usize) -> &[u8] {
    &text[..text.len().min(most)]
}

/// The router asks for fields by name without knowing what a head is.
struct RequestFields<'a, 'b>(&'a ParsedRequest<'b>);

impl route::Fields for RequestFields<'_, '_> {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0.fields.named(name).any(test)
    }
}

/// A request id: unlike any other of this shard, and its first half unlike any other shard's. The second half
/// counts in hexadecimal.
#[inline]
fn next_id(last: &mut RequestId) -> RequestId {
    for digit in last[16..].iter_mut().rev() {
        let next = match *digit {
            b'9' => b'a',
            b'f' => {
                *digit = b'0';
                continue;
            }
            other => other + 1,
        };
        *digit = next;
        break;
    }
    *last
}

/// What backends are told of the listener that a client came by.
#[inline]
fn forwarded_headers<'a>(
    known: &'a mut Vec<ForwardedHeaders>,
    shared: &Shared,
    kind: ListenerKind,
    port: u16,
) -> &'a ForwardedHeaders {
    let proto = if kind == ListenerKind::Https { "https" } else { "http" };
    let at = known.iter().position(|a| a.is(proto, port)).unwrap_or_else(|| {
        known.push(ForwardedHeaders::new(proto, port, shared.hostname()));
        known.len() - 1
    });
    &known[at]
}

impl Exchange {
    /// Whether the rest of the request is read on: not while a lookup runs, nor beside an answer of our own.
    pub(super) fn takes_request_body(&self) -> bool {
        !matches!(self.phase, Phase::Asking(_) | Phase::Own)
    }
}
