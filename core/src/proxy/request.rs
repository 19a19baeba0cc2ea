//! The way in: from a client's bytes to an exchange that knows its pool.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::admin::{self, Readiness};
use super::exchange::{Exchange, Leg, OwnedHead, Phase, REQUEST, Window};
use super::pipe::MessagePipe;
use super::secured::Secured;
use super::{Identity, Proxy};
use crate::balance::Tried;
use crate::cause::Cause;
use crate::config::ListenerKind;
use crate::conn::{Client, Role};
use crate::h1::conn::HeadRead;
use crate::h1::{ForwardedHeaders, RequestId};
use crate::h2::frame::PREFACE;
use crate::h2::keepalive::Patience;
use crate::http::ip::IpText;
use crate::http::{HeaderKind, RequestHead, Scheme, Violation};
use crate::id::{ConnId, ExchangeId, ListenerId};
use crate::local_reply::{Body, LocalReply};
use crate::observe::{Head, Kept, Named, Observer, Timings, Tls};
use crate::route::RouteInput;
use crate::time::Instant;
use crate::wire::{self, Streams, Wire};

/// Shown in the place of a request line, which bytes of TLS have not.
const TLS_ON_PLAIN_PORT: &[u8] = b"TLS on a plain port";
/// A body longer than this cannot stay here for a retry.
const MAX_RETAINED_BYTES: u64 = crate::page::SMALL_BYTES as u64;

impl<O: Observer> Proxy<O> {
    /// Looks for the head of the next request in what lies there.
    pub(super) fn read_request(&mut self, c: ConnId, now: Instant) {
        let conn = &mut self.tables.conns[c];
        let begins = matches!(&conn.role, Role::Client(client) if client.requests == 0);
        let Wire::H1(h1) = &mut conn.wire else { return };
        if h1.buffer().unparsed_len() == 0 {
            return;
        }
        if begins && h1.buffer().unparsed(&self.tables.pages).starts_with(b"PRI") && self.speaks_http2(c, now)
        {
            return;
        }
        let Wire::H1(h1) = &mut self.tables.conns[c].wire else { return };
        let read = h1.receive_request(
            &self.tables.pages,
            &mut self.scratch.parser,
            &self.pools.head_limits,
            &mut self.scratch.request,
        );
        match read {
            Ok(HeadRead::Whole) => {
                let ended = h1.message_ended();
                let x = self.begin_exchange(Leg::only(c), now);
                let e = &mut self.tables.exchanges[x];
                e.request.ended = ended;
                self.take_request(x, now);
            }
            Ok(HeadRead::Partial) => self.await_head(c, now),
            Err(violation) => self.reject(c, Cause::BadRequest(violation), now),
        }
    }

    /// The first bytes of a connection are those of HTTP/2, or may become them (RFC 9113 §3.3): who begins so
    /// knows that it is spoken here.
    #[cold]
    fn speaks_http2(&mut self, c: ConnId, now: Instant) -> bool {
        let conn = &mut self.tables.conns[c];
        let (Wire::H1(h1), ListenerKind::Http) = (&conn.wire, conn.client().kind) else { return false };
        if !self.pools.config.http2.enabled {
            return false;
        }
        let begun = h1.buffer().unparsed(&self.tables.pages);
        if !begun.starts_with(PREFACE) {
            let may = PREFACE.starts_with(begun);
            if may {
                self.await_head(c, now);
            }
            return may;
        }
        let begun = begun.to_vec();
        self.begin_http2(c, &begun, now);
        true
    }

    /// A client's connection speaks HTTP/2 from its first byte on; `bytes` have come already.
    pub(super) fn begin_http2(&mut self, c: ConnId, mut bytes: &[u8], now: Instant) {
        let conn = &mut self.tables.conns[c];
        conn.wire.clear(&mut self.tables.pages);
        // The preface was the beginning of no request.
        conn.head_started = Instant::NEVER;
        let settings = &self.pools.config.http2;
        let protocol = wire::http2_server(&self.pools.head_limits, settings, now);
        let streams = Streams::new(protocol, Patience::with_client(settings.keepalive), now);
        conn.wire = Wire::Multiplexed(streams);
        let asks = self.keep_alive(c, now);
        self.timers.file_conn(c, &mut self.tables.conns[c], asks);
        self.mark_ready(c);
        while !bytes.is_empty()
            && let Some(streams) = self.tables.conns.get_mut(c).and_then(|conn| conn.wire.streams_mut())
        {
            streams.protocol.wake(&mut self.scratch.received);
            let room = streams.protocol.recv_buf();
            let n = room.len().min(bytes.len());
            if n == 0 {
                return;
            }
            room[..n].copy_from_slice(&bytes[..n]);
            streams.protocol.handle_recv(n);
            bytes = &bytes[n..];
            self.streams_input(c, now);
        }
    }

    /// A head is not complete: waits for the rest of it, within its limits.
    #[cold]
    fn await_head(&mut self, c: ConnId, now: Instant) {
        let conn = &mut self.tables.conns[c];
        if conn.recv_ended {
            // The rest of it will never come.
            return self.close(c);
        }
        let Wire::H1(h1) = &conn.wire else { return };
        let raw = h1.buffer().unparsed(&self.tables.pages);
        if raw.len() >= self.pools.head_limits.head_bytes {
            // Without a line end it is the target that never ends (RFC 9112 §3).
            let violation =
                if raw.contains(&b'\n') { Violation::HeadTooLarge } else { Violation::TargetTooLong };
            self.scratch.request.reset();
            return self.reject(c, Cause::BadRequest(violation), now);
        }
        if let Wire::H1(h1) = &mut conn.wire
            && !h1.buffer().has_room()
            && !h1.buffer_mut().grow(&mut self.tables.pages)
        {
            self.scratch.request.reset();
            return self.reject(c, Cause::NoPages, now);
        }
        if conn.head_started == Instant::NEVER {
            conn.head_started = now;
            // The time for a first head began when the connection was made, and goes on; a drain has made it
            // short for who has said nothing.
            if conn.client().requests > 0 || self.drain.until.is_some() {
                let head = self.pools.config.timeouts.head / (1 + u32::from(crate::planted::planted!(34)));
                let until = now + head;
                self.set_deadline(c, until);
            }
        }
        self.mark_ready(c);
    }

    /// Answers a client whose head could not be read. What was understood of it is in `scratch.request`.
    pub(super) fn reject(&mut self, c: ConnId, cause: Cause, now: Instant) {
        let x = self.begin_exchange(Leg::only(c), now);
        let conn = &self.tables.conns[c];
        let raw = conn.wire.h1().map_or(&[][..], |h1| h1.buffer().unparsed(&self.tables.pages));
        let e = &mut self.tables.exchanges[x];
        e.persist = false;
        record_unread(&mut self.observer, &mut e.kept, conn.client(), raw);
        self.fail_exchange(x, cause);
    }

    /// Tells the observer of a request on a stream that could not be read.
    #[cold]
    pub(super) fn record_rejected(&mut self, x: ExchangeId) {
        let e = &mut self.tables.exchanges[x];
        let client = self.tables.conns[e.client.conn].client();
        if self.observer.wants_records() && self.observer.wants_heads() {
            let (tls, stream) = (self.secured.get(e.client.conn).map(Secured::told), e.client.stream);
            let head = Head { version: Some(http::Version::HTTP_2), stream, tls, ..unread(client) };
            self.observer.head(&head, &mut e.kept);
        }
    }

    /// An exchange begins, with the head that lies in `scratch.request`.
    pub(super) fn begin_exchange(&mut self, client: Leg, now: Instant) -> ExchangeId {
        let conn = &mut self.tables.conns[client.conn];
        let head_started = std::mem::replace(&mut conn.head_started, Instant::NEVER);
        let single = conn.wire.streams().is_none();
        let fin_due = match conn.peer_closing {
            true => now + self.pools.config.timeouts.client_fin,
            false => Instant::NEVER,
        };
        let role = conn.client_mut();
        let client_ip = role.ip;
        role.requests = role.requests.saturating_add(1);
        let most = self.pools.config.limits.requests_per_connection;
        let persist = most == 0 || role.requests < most;
        let started = head_started.min(now);
        let head = self.scratch.spare_heads.pop().unwrap_or_default();
        let head = std::mem::replace(&mut self.scratch.request, head);
        let kept = Kept::recycled(self.scratch.spare_kept.pop().unwrap_or_default());
        let request_id = self.identity.next_request_id();
        let exchange = || Exchange {
            client,
            backend: None,
            phase: Phase::Choosing,
            pool: None,
            choice: None,
            queued: false,
            holds_slot: false,
            trailers_pass: [!head.lists_fields, true],
            head: OwnedHead::new(head),
            client_ip,
            request_id,
            request: if single { MessagePipe::lent() } else { MessagePipe::own() },
            response: MessagePipe::lent(),
            tried: Tried::new(),
            sticky_choice: None,
            attempts: 0,
            retries_left: 0,
            connect_until: Instant::NEVER,
            addresses_failed: 0,
            replays: 0,
            left_behind: 0,
            failed: Vec::new(),
            reused: false,
            binds: false,
            http1_only: false,
            page_promised: false,
            retained: true,
            request_begun: false,
            request_sent: false,
            tunnel_end_sent: false,
            response_seen: false,
            response_begun: false,
            awaits_continue: false,
            interims: 0,
            persist,
            body_limit: u64::MAX,
            stage: 0,
            states: Vec::new(),
            user: None,
            client_window: Window::NONE,
            backend_window: Window::NONE,
            client_due: Instant::NEVER,
            fin_due,
            backend_due: Instant::NEVER,
            call_due: Instant::NEVER,
            waits_since: Instant::NEVER,
            dirty: false,
            status: 0,
            cause: None,
            bytes_out: 0,
            times: Timings::new(started),
            kept,
        };
        let x = self.tables.exchanges.insert_with(exchange);
        match conn.wire.streams_mut() {
            None => conn.exchange = Some(x),
            Some(streams) => streams.exchanges.push((client.stream, x)),
        }
        x
    }

    /// The head of a request is there, and how its body ends is known.
    pub(super) fn take_request(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        let conn = &mut self.tables.conns[e.client.conn];
        conn.deadline = Instant::NEVER;
        // The head is kept elsewhere: without a body its page is free for what the backend gets.
        conn.wire.trim(&mut self.tables.pages);
        let client = conn.client();
        e.times.head = now;
        if client.trusted {
            e.client_ip = super::chain::client_address(&self.pools.config, client, &e.head);
            self.scratch.client_text.assign(e.client_ip);
        }
        e.awaits_continue = e.head.expect_continue && !e.request.ended;
        if client.kind == ListenerKind::Admin {
            return self.admin_request(x, now);
        }
        // Nearly every client that says so makes calls of gRPC.
        if e.head.te_trailers {
            self.set_call_deadline(x, now);
        }
        let e = &mut self.tables.exchanges[x];
        let client = self.tables.conns[e.client.conn].client();
        if self.observer.wants_records() && self.observer.wants_heads() {
            let told = (e.client_ip, &self.scratch.client_text);
            let tls = match client.kind {
                ListenerKind::Https => self.secured.get(e.client.conn).map(Secured::told),
                _ => None,
            };
            let of = (&*e.head, e.client.stream);
            record_head(&mut self.observer, &mut e.kept, client, told, tls, of, &e.request_id);
        }
        if client.kind == ListenerKind::Http
            && let Some(answer) = self.identity.shared.http_challenge(e.head.path())
            && matches!(*e.head.method(), http::Method::GET | http::Method::HEAD)
        {
            return self.respond_locally(x, challenge_reply(answer));
        }
        // RFC 9110 §7.4: what is to be secured is not served over a connection that is not, unless a proxy
        // that is trusted has ended the TLS.
        if e.head.scheme == Some(Scheme::Https) && client.kind == ListenerKind::Http && !client.trusted {
            e.persist = false;
            return self.fail_exchange(x, Cause::BadRequest(Violation::HttpsOverHttp));
        }
        if client.kind == ListenerKind::Https && self.is_misdirected(x) {
            return self.fail_exchange(x, Cause::BadRequest(Violation::Misdirected));
        }
        let e = &mut self.tables.exchanges[x];
        let client = self.tables.conns[e.client.conn].client();
        if e.head.max_forwards == Some(0) {
            return self.respond_locally(x, LocalReply::new(http::StatusCode::OK));
        }
        let listener = self.pools.place_of(client.listener);
        let Some(place) = self.pools.router.route(&route_input(client, listener, e)) else {
            self.step_routed(x, None);
            return self.fail_exchange(x, Cause::NoRoute);
        };
        let slot = self.pools.current[usize::from(place)];
        let pool = self.pools.get_mut(slot);
        pool.users += 1;
        pool.count_request();
        e.pool = Some(slot);
        e.retries_left = pool.pool().retries;
        let no_chain = pool.chain.is_empty();
        self.step_routed(x, Some(place));
        if no_chain || self.pass_request(x, None, now) {
            self.forward(x, now);
        }
    }

    /// The request has passed all middlewares: a backend is to get it.
    pub(super) fn forward(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        let c = e.client.conn;
        let pool = self.pools.get(e.pool.expect("routed"));
        if let Some(sticky) = pool.balancer.sticky() {
            let fields = e.head.fields();
            let mut cookies = fields.iter().filter(|f| f.kind == HeaderKind::Cookie);
            e.sticky_choice = cookies.find_map(|f| sticky.find(f.value));
        }
        if e.head.fields().has(HeaderKind::Authorization)
            || e.head.fields().has(HeaderKind::ProxyAuthorization)
        {
            e.binds = crate::http::has_connection_credentials(e.head.fields());
        }
        // A body that cannot all stay here makes the first attempt the last.
        if matches!(e.head.framing(), crate::http::Framing::Length(n) if n > MAX_RETAINED_BYTES) {
            e.retained = false;
        }
        if !e.request.ended {
            if !self.receive_request(x, now) {
                return;
            }
            if !self.tables.exchanges[x].request.ended {
                // Its body may come while it waits for a backend.
                self.mark_readable(c);
            }
        }
        // Those who wait come first.
        self.serve_queues(now);
        self.choose(x, now);
    }

    /// A request on the admin listener.
    #[cold]
    fn admin_request(&mut self, x: ExchangeId, now: Instant) {
        let shared = &self.identity.shared;
        let readiness = match () {
            () if self.drain.announced => Readiness::Leaving,
            () if shared.all_ready() => Readiness::Ready,
            () => Readiness::Starting,
        };
        match admin::page(&self.tables.exchanges[x].head, readiness) {
            admin::Page::Reply(reply) => self.respond_locally(x, reply),
            admin::Page::Lookup(query) => self.start_lookup(x, query, now),
        }
    }

    /// `n` bytes more of a request came.
    pub(super) fn request_data(&mut self, x: ExchangeId, n: usize, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        e.client_window.bytes += n as u64;
        if e.phase == Phase::LocalReply || !self.receive_request(x, now) {
            return;
        }
        self.push_request(x, now);
        self.mark_dirty(x);
    }

    /// Decodes what has been received of a request's body; false if that ended the exchange.
    pub(super) fn receive_request(&mut self, x: ExchangeId, now: Instant) -> bool {
        let e = &mut self.tables.exchanges[x];
        let conn = &mut self.tables.conns[e.client.conn];
        let read = match &mut conn.wire {
            Wire::H1(h1) => {
                let trailers = &mut e.request.trailers;
                h1.receive_body(&mut self.tables.pages, &self.pools.head_limits, trailers)
            }
            Wire::Tunnel(tunnel) => {
                e.request.payload_bytes += tunnel.receive() as u64;
                return true;
            }
            Wire::Multiplexed(_) => return true,
        };
        match read {
            Ok(read) => {
                if !crate::planted::planted!(44) || e.request.payload_bytes == 0 {
                    e.request.payload_bytes += read.payload as u64;
                }
                e.request.ended = read.ended;
                if !e.trailers_pass[REQUEST] || crate::planted::planted!(48) {
                    e.request.trailers.clear();
                }
                if e.request.payload_bytes > 0 {
                    e.expectation_met();
                }
                if e.body_too_large() {
                    self.break_exchange(x, Cause::BadRequest(Violation::ContentTooLarge), now);
                    return false;
                }
                true
            }
            Err(violation) => {
                self.break_exchange(x, Cause::BadRequest(violation), now);
                false
            }
        }
    }
}

/// What an authority gets for its token (RFC 8555 §8.3).
#[cold]
fn challenge_reply(answer: Arc<[u8]>) -> LocalReply {
    LocalReply {
        body: Body::Shared(answer),
        content_type: "application/octet-stream",
        ..LocalReply::new(http::StatusCode::OK)
    }
}

/// Tells the observer of a head.
#[inline(never)]
fn record_head(
    observer: &mut impl Observer,
    kept: &mut Kept,
    client: &Client,
    (told, told_text): (IpAddr, &IpText),
    tls: Option<Tls<'_>>,
    (request, stream): (&RequestHead, u32),
    own_id: &RequestId,
) {
    let fields = request.fields();
    let field = |kind| fields.get(kind).unwrap_or_default();
    let theirs =
        if client.trusted { fields.get(HeaderKind::XRequestId).filter(|id| !id.is_empty()) } else { None };
    let head = Head {
        method: cut(request.method().as_str().as_bytes(), 32),
        target: cut(request.target(), 1024),
        version: Some(request.version()),
        stream,
        host: cut(request.host(), 255),
        user_agent: cut(field(HeaderKind::UserAgent), 255),
        referer: cut(field(HeaderKind::Referer), 255),
        request_id: theirs.map_or(Named::Ours(own_id), |id| Named::Theirs(cut(id, 128))),
        tls,
        ..unread(client)
    };
    if told != client.ip {
        // The port that it came from is known to the trusted proxy alone.
        return observer.head(&Head { client: SocketAddr::new(told, 0), client_ip: told_text, ..head }, kept);
    }
    observer.head(&head, kept);
}

/// Tells the observer of a head that could not be read: its first line is there, so that a log shows what was
/// refused.
#[cold]
fn record_unread(observer: &mut impl Observer, kept: &mut Kept, client: &Client, raw: &[u8]) {
    let line = match raw {
        // A record of a handshake, of any version (RFC 8446 §5.1).
        [0x16, 3, ..] => TLS_ON_PLAIN_PORT,
        _ => raw.split(|b| matches!(b, b'\r' | b'\n')).find(|line| !line.is_empty()).unwrap_or_default(),
    };
    if observer.wants_records() && observer.wants_heads() && client.kind != ListenerKind::Admin {
        observer.head(&Head { target: cut(line, 1024), ..unread(client) }, kept);
    }
}

/// What there is to tell if no head was understood.
fn unread(client: &Client) -> Head<'_> {
    Head {
        client: client.peer(),
        client_ip: &client.peer_text,
        scheme: if client.kind == ListenerKind::Https { Scheme::Https } else { Scheme::Http },
        method: b"",
        target: b"",
        version: None,
        stream: 0,
        host: b"",
        user_agent: b"",
        referer: b"",
        request_id: Named::Theirs(b""),
        tls: None,
    }
}

fn cut(text: &[u8], most: usize) -> &[u8] {
    &text[..text.len().min(most)]
}

/// What routing looks at; `listener` is the place of the client's in the newest configuration.
#[inline]
pub(super) fn route_input<'e>(client: &Client, listener: ListenerId, e: &'e Exchange) -> RouteInput<'e> {
    let head: &RequestHead = &e.head;
    RouteInput {
        https: client.kind == ListenerKind::Https,
        listener,
        host: head.host(),
        path: head.path(),
        query: head.query(),
        method: head.method().as_str().as_bytes(),
        client: e.client_ip,
        fields: head,
    }
}

impl Identity {
    /// A request id: unlike any other of this shard, and its first half unlike any other shard's. The second
    /// half counts in hexadecimal.
    #[inline]
    fn next_request_id(&mut self) -> RequestId {
        for digit in self.last_id[16..].iter_mut().rev() {
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
        self.last_id
    }

    /// What backends are told of the listener that a client came by.
    #[inline]
    pub(super) fn forwarded_headers(&mut self, kind: ListenerKind, port: u16) -> u16 {
        let proto =
            if kind == ListenerKind::Https && !crate::planted::planted!(134) { "https" } else { "http" };
        let known = self.forwarded_headers.iter().position(|known| known.is_for(proto, port));
        let place = known.unwrap_or_else(|| {
            self.forwarded_headers.push(ForwardedHeaders::new(proto, port, self.shared.hostname()));
            self.forwarded_headers.len() - 1
        });
        u16::try_from(place).expect("fewer listeners than that: each has a file descriptor")
    }
}
