//! What a client reads, and whether it is the response to its request, byte for byte.

use super::content::check_content;
use super::{Client, Segment, SendCondition};
use crate::chains::{Chain, Message};
use crate::codings;
use crate::coverage::Mark;
use crate::exchanges::{ClientResult, ExchangeEntry, response_body_len};
use crate::fields::{self, Fate};
use crate::http1::{BodyChecker, BodyFraming, ParsedHead};
use crate::http2::{HTTP_2, reason_phrase};
use crate::identities;
use crate::judges;
use crate::net::{Net, Peer, PeerRead};
use crate::payload::{self, PayloadKind};
use crate::scenario::{MiddlewareSpec, RESPOND_TEXT};
use crate::websockets;

/// Fields of a response that the proxy sets itself, and those that the check of the head looks at.
const OWN_FIELDS: &[&str] =
    &["x-sim", "x-backend", "x-wire", "connection", "content-length", "transfer-encoding", "date", "via"];

/// Fields that the proxy gives its own responses, which have checks of their own.
const REPLY_FIELDS: &[&str] = &[
    "content-length",
    "transfer-encoding",
    "connection",
    "date",
    "proxy-status",
    "retry-after",
    "location",
    "www-authenticate",
];
/// The media type of the proxy's own responses.
const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");

/// Who has made a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Backend,
    /// The proxy, which tells of a cause.
    Proxy,
    Middleware,
}

/// What a client reads next.
#[derive(Debug)]
pub(super) enum ReadState {
    Head,
    Body(ResponseBody),
    Tunnel(BodyChecker),
}

/// A final response whose head has come.
#[derive(Debug)]
pub(super) struct ResponseBody {
    body: BodyChecker,
    maker: Maker,
    /// What its content is, if that is not what the maker has sent.
    changed: Option<Box<Message>>,
    status: u16,
    pub(super) until_close: bool,
    /// Its backend speaks HTTP/2.
    streams: bool,
    /// It says that the connection ends with it.
    last: bool,
}

/// What the head of a response says for every kind of response.
struct ResponseStart {
    status: u16,
    maker: Maker,
    last: bool,
    streams: bool,
}

impl Client {
    pub(super) fn read(&mut self, net: &mut Net, socket: usize) {
        let mut bytes = std::mem::take(&mut net.read_buffer);
        self.read_into(&mut bytes, net, socket);
        net.read_buffer = bytes;
    }

    fn read_into(&mut self, bytes: &mut Vec<u8>, net: &mut Net, socket: usize) {
        loop {
            let slow = self.slow_reader.filter(|_| net.faults_on);
            if slow.is_some() && net.now < self.read_at {
                return net.wake_peer(socket, self.read_at);
            }
            bytes.clear();
            let found = net.peer_read(socket, slow.map_or(65_536, |(n, _)| n), bytes);
            if let Some((_, wait)) = slow {
                self.read_at = net.now + wait;
            }
            match found {
                PeerRead::Bytes => self.received(net, bytes),
                PeerRead::WouldBlock => return,
                PeerRead::End => return self.ended(net),
                PeerRead::Reset => {
                    net.trace(13, || format!("client {} is reset", self.index));
                    net.mark(Mark::IncompleteResponse);
                    if net.scenario.fault_free {
                        net.ledger.fail("fault-free", format!("client {} is reset", self.index));
                    }
                    return self.finish(net);
                }
            }
            if self.done {
                return;
            }
        }
    }

    /// The proxy sends no more.
    fn ended(&mut self, net: &mut Net) {
        net.trace(14, || format!("client {} reads the end", self.index));
        match &self.read_state {
            ReadState::Head => self.check_end_between_responses(net),
            ReadState::Body(response) if response.until_close => self.response_complete(net),
            ReadState::Body(_) => net.ledger.fail(
                "response-incomplete",
                format!("client {}: an end in the middle of a body", self.index),
            ),
            ReadState::Tunnel(_) => {
                self.tunnel_ended(net);
                if !self.output.is_empty() {
                    // The other direction goes on.
                    self.read_state = ReadState::Head;
                    self.requests.clear();
                    self.responses = 0;
                    let socket = self.socket.expect("connected");
                    self.write(net, socket);
                    if !self.output.is_empty() {
                        return;
                    }
                }
            }
        }
        self.finish(net);
    }

    /// The backend has ended its half of a tunnel, as far as the proxy says: it has said all.
    pub(super) fn tunnel_ended(&mut self, net: &mut Net) {
        let ReadState::Tunnel(body) = &self.read_state else { return };
        let id = self.requests[self.responses];
        let entry = net.ledger.get(id);
        let want = entry.tunnel.1;
        let status = if entry.version == HTTP_2 { 200 } else { 101 };
        if net.is_tunnel_cut(entry) {
            let details = format!("client {}: the backend's end was none", self.index);
            net.ledger.fail("cut-is-no-end", details);
        }
        if body.received != want {
            net.ledger.fail(
                "tunnel-incomplete",
                format!("client {}: {} of {want} bytes, then an end", self.index, body.received),
            );
        }
        net.mark(Mark::TunnelHalfClose);
        net.ledger.get_mut(id).result = ClientResult::Response(status);
        self.responses += 1;
    }

    /// An end while the client waits for a head: a request that the proxy has read whole must not be lost.
    fn check_end_between_responses(&self, net: &mut Net) {
        if !self.head_reader.is_empty() {
            net.ledger.fail(
                "response-incomplete",
                format!("client {}: an end in the middle of a head", self.index),
            );
        }
        let Some(&id) = self.requests.get(self.responses).filter(|_| !self.last_response_seen) else {
            return;
        };
        let socket = self.socket.expect("connected");
        let read = net.sockets[socket].to_proxy.read_total >= net.ledger.get(id).head_end;
        let nobody_gave_up = !net.scenario.system.drains
            && net.faults_on
            && self.abort_after.is_none()
            && !self.invalid_request;
        if net.scenario.fault_free || (read && nobody_gave_up) {
            net.ledger
                .fail("response-missing", format!("client {}: request {id} has no response", self.index));
        }
    }

    pub(super) fn received(&mut self, net: &mut Net, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.done {
            match &mut self.read_state {
                ReadState::Head => {
                    let (n, head) = self.head_reader.read(bytes);
                    bytes = &bytes[n..];
                    if let Some(head) = head
                        && let Err(why) = self.head_received(net, &head)
                    {
                        net.ledger.fail(
                            "right-response",
                            format!("client {}: {why}: {:?}", self.index, String::from_utf8_lossy(&head)),
                        );
                    }
                }
                ReadState::Body(ResponseBody { body, .. }) | ReadState::Tunnel(body) => {
                    match body.read(bytes) {
                        Ok(0) => {
                            return net.ledger.fail(
                                "extra-bytes",
                                format!("client {}: {} bytes too many", self.index, bytes.len()),
                            );
                        }
                        Ok(n) => {
                            bytes = &bytes[n..];
                            if let Some(&id) = self.requests.get(self.responses) {
                                net.ledger.get_mut(id).down = body.received;
                            }
                        }
                        Err(why) => {
                            return net.ledger.fail("right-bytes", format!("client {}: {why}", self.index));
                        }
                    }
                }
            }
            if let ReadState::Body(response) = &self.read_state
                && response.body.is_complete()
            {
                self.response_complete(net);
            }
        }
    }

    /// A complete head has come. `Err`: it is not what the client has to get.
    fn head_received(&mut self, net: &mut Net, bytes: &[u8]) -> Result<(), String> {
        let head = ParsedHead::parse(bytes).ok_or("no head")?;
        let status = head
            .start
            .strip_prefix("HTTP/1.1 ")
            .and_then(|s| s.get(..3)?.parse::<u16>().ok())
            .ok_or("no status line")?;
        let maker = if head.get("proxy-status")?.is_some() {
            Maker::Proxy
        } else if head.get("x-sim")?.is_none() && status >= 200 {
            Maker::Middleware
        } else {
            Maker::Backend
        };
        let Some(&id) = self.requests.get(self.responses) else {
            // The invalid request behind all others is refused.
            if self.invalid_request && maker != Maker::Backend {
                let framing = head.framing(BodyFraming::Close)?;
                self.read_state = ReadState::Body(ResponseBody {
                    body: BodyChecker::new(0, PayloadKind::Response, false, framing),
                    maker,
                    changed: None,
                    status,
                    until_close: false,
                    streams: false,
                    last: true,
                });
                return Ok(());
            }
            return Err("a response without a request".into());
        };
        let entry = net.ledger.get(id).clone();
        if status < 200 && status != 101 {
            return self.interim_received(net, &entry, status, maker);
        }
        let cause = head.get("proxy-status")?.map(judges::named_cause).transpose()?;
        net.scenario.judge_head_limits(&entry, cause)?;
        let last = head.lists("connection", "close");
        let streams = head.get("x-wire")?.is_some();
        let start = ResponseStart { status, maker, last, streams };
        match maker {
            Maker::Proxy => return self.local_reply_received(net, &entry, &head, start),
            Maker::Middleware => return self.middleware_reply_received(net, &entry, &head, start),
            Maker::Backend => {}
        }
        net.ledger.get_mut(id).answered_by = head.number("x-backend")?;
        net.ledger.get_mut(id).answered_on_stream = streams;
        if head.number("x-sim")? != Some(id) {
            return Err(format!("not the response to {id}"));
        }
        if head.get("date")?.is_none() {
            return Err("no Date".into());
        }
        let switches = match entry.version {
            HTTP_2 => entry.websocket && status == 200,
            _ => entry.upgrade && status == 101,
        };
        if switches {
            return self.tunnel_begins(net, &entry, &head);
        }
        self.response_received(net, &entry, &head, start)
    }

    fn interim_received(
        &mut self,
        net: &mut Net,
        entry: &ExchangeEntry,
        status: u16,
        maker: Maker,
    ) -> Result<(), String> {
        if maker != Maker::Backend {
            return Err("an interim response of the proxy itself".into());
        }
        if entry.version == 10 {
            return Err("an interim response for HTTP/1.0".into());
        }
        net.mark(if status == 100 { Mark::Expected100 } else { Mark::Interim });
        if status == 100 {
            self.continued = self.responses + 1;
        }
        Ok(())
    }

    fn tunnel_begins(
        &mut self,
        net: &mut Net,
        entry: &ExchangeEntry,
        head: &ParsedHead<'_>,
    ) -> Result<(), String> {
        let (id, streams) = (entry.id, entry.version == HTTP_2);
        let (socket, stream) = entry.tunnelled.ok_or("a tunnel that no backend has opened")?;
        if Peer::Backend(head.number("x-backend")?.ok_or("no backend")? as usize) != net.sockets[socket].peer
        {
            return Err("another backend has opened the tunnel".into());
        }
        let accept = (entry.websocket && !streams).then(|| websockets::accept(&websockets::key(id)));
        if head.get("sec-websocket-accept")? != accept.as_deref() || head.get("sec-websocket-key")?.is_some()
        {
            return Err(format!("not the answer to the key, {accept:?}"));
        }
        let protocol = if entry.websocket { websockets::PROTOCOL } else { "sim" };
        if head.get("upgrade")? != (!streams).then_some(protocol)
            || head.lists("connection", "upgrade") == streams
        {
            return Err("not switched to what was asked for".into());
        }
        net.mark(match (entry.websocket, streams, stream > 0) {
            (false, ..) => Mark::Tunnel,
            (_, false, false) => Mark::WebSocketHttp1,
            (_, false, true) => Mark::WebSocketToHttp2,
            (_, true, false) => Mark::WebSocketToHttp1,
            (_, true, true) => Mark::WebSocketHttp2,
        });
        net.trace(15, || format!("client {} switches for {id}", self.index));
        if !streams {
            let mut bytes = Vec::new();
            payload::fill(id, PayloadKind::TunnelUp, entry.early, entry.tunnel.0 - entry.early, &mut bytes);
            let condition = SendCondition::Immediately;
            self.output.push_back(Segment { bytes, sent: 0, condition, is_head: false, cookie_of: None });
        }
        self.tunnel = Some(id);
        net.ledger.get_mut(id).switched = true;
        let body = BodyChecker::new(id, PayloadKind::TunnelDown, true, BodyFraming::Close);
        self.read_state = ReadState::Tunnel(body);
        Ok(())
    }

    /// The head of a backend's final response has come.
    fn response_received(
        &mut self,
        net: &mut Net,
        entry: &ExchangeEntry,
        head: &ParsedHead<'_>,
        start: ResponseStart,
    ) -> Result<(), String> {
        let status = start.status;
        // Over HTTP/2 there is none: it gets that of its status.
        let streams = start.streams;
        let reason = if streams && entry.version != HTTP_2 { reason_phrase(status) } else { "X" };
        if head.start.get(13..) != Some(reason) {
            return Err("another reason phrase".into());
        }
        let want: Vec<_> = fields::of_response(entry.id)
            .into_iter()
            .chain(identities::of_response(entry.id, entry.authentication, entry.status))
            .filter(|f| f.fate == Fate::Passes)
            .map(|f| (f.name, f.value))
            .collect();
        let set_cookie = if entry.version == HTTP_2 { "set-cookie" } else { "Set-Cookie" };
        let is_sticky = |(name, value): &(&str, &str)| *name == set_cookie && value.starts_with("S=");
        let others: Vec<_> = head.fields.iter().filter(|f| !is_sticky(f)).copied().collect();
        let compressed = net.scenario.compresses(entry.pool);
        let media_type = codings::media_type(entry.id).filter(|_| compressed);
        let announced = matches!(entry.response_framing, BodyFraming::Length(_));
        // A backend whose response is none may announce what it does not have.
        let told = head.number("content-length").ok().flatten().filter(|_| streams);
        let sent = Message {
            status: entry.status,
            fields: want.into_iter().chain(media_type.map(|is| ("Content-Type", is.to_owned()))).collect(),
            len: announced.then_some(entry.response_len).or(told),
            ..Message::default()
        };
        let message = Chain::of(&net.scenario, entry).response(&others, OWN_FIELDS, sent, streams)?;
        let served_by = head.get("x-served-by")?.map(judges::backend_of);
        if served_by
            .is_some_and(|served_by| served_by.map(|n| n as u64) != head.number("x-backend").ok().flatten())
        {
            return Err("another backend's name".into());
        }
        let set = head.fields.iter().filter(|f| is_sticky(f)).map(|(_, value)| *value);
        let set: Vec<&str> = set.collect();
        if let (Some(kept), Some(pool)) = (net.judge_cookies(entry, &set)?, entry.pool) {
            self.cookies.insert(pool, kept);
        }
        if status != entry.status {
            return Err(format!("status {status}, not {}", entry.status));
        }
        let framing = if entry.method == "HEAD" || matches!(status, 204 | 304) {
            BodyFraming::None
        } else {
            head.framing(BodyFraming::Close)?
        };
        let len = match (&message.page, message.coding) {
            (_, Some(_)) => None,
            (Some(page), None) => Some(page.len() as u64),
            (None, None) => Some(entry.response_len),
        };
        let is_known = entry.method == "HEAD" && message.page.is_some() && !net.scenario.transform_stage;
        if is_known && head.number("content-length")? != len {
            return Err(format!("not the length of the page, {len:?}"));
        }
        match framing {
            BodyFraming::Length(n) if Some(n) != len && !(message.page.is_some() && len.is_none()) => {
                return Err(format!("{n} bytes announced, not {len:?}"));
            }
            BodyFraming::Chunked if entry.version == 10 => return Err("chunks for HTTP/1.0".into()),
            BodyFraming::Chunked => net.mark(Mark::ChunkedResponse),
            BodyFraming::Close => net.mark(Mark::CloseDelimited),
            _ => {}
        }
        if framing == BodyFraming::Close && !start.last && entry.version == 11 {
            return Err("a body until close without `Connection: close`".into());
        }
        self.last_response_seen |= start.last || framing == BodyFraming::Close;
        let framing = as_carried(entry, framing);
        let body = BodyChecker::new(entry.id, PayloadKind::Response, true, framing);
        self.body_begins(net, body, framing, start, message);
        Ok(())
    }

    /// The head of a local reply has come.
    fn local_reply_received(
        &mut self,
        net: &mut Net,
        entry: &ExchangeEntry,
        head: &ParsedHead<'_>,
        start: ResponseStart,
    ) -> Result<(), String> {
        let too_large = Chain::of(&net.scenario, entry).is_too_large();
        let above_limits = !net.scenario.above_limits(entry).is_empty();
        let cause = judges::named_cause(head.get("proxy-status")?.unwrap_or_default())?;
        let unannounced = entry.websocket && cause == "websocket_not_announced";
        if unannounced {
            net.mark(Mark::WebSocketUnannounced);
        }
        let unannounced = unannounced && net.scenario.http2.backends.refuses_websockets();
        let rightly = above_limits || unannounced || too_large && start.status == 413;
        if net.scenario.fault_free && !rightly {
            net.ledger.fail(
                "fault-free",
                format!(
                    "client {}: request {} gets {}: {:?}",
                    self.index,
                    entry.id,
                    start.status,
                    head.get("proxy-status")
                ),
            );
        }
        let text = judges::reply_text(head, start.status, cause);
        let made = reply_message(start.status, Some(text.len() as u64));
        let message = Chain::of(&net.scenario, entry).reply(&head.fields, REPLY_FIELDS, &made, None)?;
        // Where content would pass a transform, a response to HEAD does not know its length.
        let is_unknown = entry.method == "HEAD" && net.scenario.transform_stage;
        let as_made = message.page.is_none() && message.coding.is_none() && !is_unknown;
        judges::check_local_reply(head, start.status, cause, as_made)?;
        match start.status {
            413 => net.mark(Mark::TooLarge),
            414 => net.mark(Mark::TargetTooLong),
            431 => net.mark(Mark::HeadTooLarge),
            _ => {}
        }
        net.ledger.get_mut(entry.id).reply_cause = Some(cause.to_owned());
        self.reply_begins(net, entry, head, start, message)
    }

    /// The head of a middleware's response has come.
    fn middleware_reply_received(
        &mut self,
        net: &mut Net,
        entry: &ExchangeEntry,
        head: &ParsedHead<'_>,
        start: ResponseStart,
    ) -> Result<(), String> {
        let chain = Chain::of(&net.scenario, entry);
        let passed = chain.maker(start.status, head)?;
        // A few words, or nothing.
        let made = match chain.specs[passed] {
            MiddlewareSpec::HttpsRedirector | MiddlewareSpec::Redirect { .. } => {
                reply_message(start.status, None)
            }
            MiddlewareSpec::Respond { text, .. } => {
                let page = text.then(|| RESPOND_TEXT.as_bytes().to_vec());
                let len = page.as_ref().map(|page| page.len() as u64);
                Message { page, ..reply_message(start.status, len) }
            }
            _ => reply_message(start.status, Some(30)),
        };
        let message = chain.reply(&head.fields, REPLY_FIELDS, &made, Some(passed))?;
        if head.get("date")?.is_none() {
            return Err("no Date".into());
        }
        let mark = match (&chain.specs[passed], start.status) {
            (MiddlewareSpec::Redirect { .. }, _) => Mark::Moved,
            (MiddlewareSpec::Respond { .. }, _) => Mark::Responded,
            (_, 301 | 308) => Mark::Redirected,
            (_, 400 | 401) => Mark::Challenged,
            (_, 403) => Mark::NotLetIn,
            (_, 429) => Mark::RateLimited,
            _ => return Err("a status that no middleware replies with".into()),
        };
        net.mark(mark);
        self.reply_begins(net, entry, head, start, message)
    }

    /// The content of a response of the proxy or of a middleware follows.
    fn reply_begins(
        &mut self,
        net: &mut Net,
        entry: &ExchangeEntry,
        head: &ParsedHead<'_>,
        start: ResponseStart,
        message: Message,
    ) -> Result<(), String> {
        self.last_response_seen |= start.last;
        let framing = if entry.method == "HEAD" || start.status == 204 {
            BodyFraming::None
        } else {
            head.framing(BodyFraming::Close)?
        };
        if framing == BodyFraming::Close && message.coding.is_none() {
            return Err("a local reply without a length".into());
        }
        let framing = as_carried(entry, framing);
        let body = BodyChecker::new(entry.id, PayloadKind::Response, false, framing);
        self.body_begins(net, body, framing, start, message);
        Ok(())
    }

    fn body_begins(
        &mut self,
        net: &mut Net,
        body: BodyChecker,
        framing: BodyFraming,
        start: ResponseStart,
        message: Message,
    ) {
        let changed = (message.page.is_some() || message.coding.is_some()) && framing != BodyFraming::None;
        let body = if changed { BodyChecker::collecting(framing) } else { body };
        let changed = changed.then(|| Box::new(message));
        let complete = body.is_complete();
        let ResponseStart { status, maker, last, streams } = start;
        let until_close = framing == BodyFraming::Close;
        self.read_state =
            ReadState::Body(ResponseBody { body, maker, changed, status, until_close, streams, last });
        if complete {
            self.response_complete(net);
        }
    }

    /// The stream that carries this response has ended, with these trailers.
    pub(super) fn end_of_stream(&mut self, net: &mut Net, trailers: Vec<String>) {
        if let ReadState::Body(response) = &mut self.read_state {
            response.body.trailers = trailers;
        }
        self.response_complete(net);
    }

    /// A complete final response has come.
    fn response_complete(&mut self, net: &mut Net) {
        let read_state = std::mem::replace(&mut self.read_state, ReadState::Head);
        let ReadState::Body(ResponseBody { body, maker, changed, status, streams, last, .. }) = read_state
        else {
            return;
        };
        let local_reply = maker != Maker::Backend;
        if let Some(&id) = self.requests.get(self.responses) {
            if let Some(message) = &changed
                && let Err(why) = check_content(net, id, !local_reply, message, &body)
            {
                net.ledger.fail("right-content", format!("client {}, response to {id}: {why}", self.index));
            }
            let replaced = changed.as_ref().is_some_and(|message| message.page.is_some());
            let entry = net.ledger.get_mut(id);
            let trailers_due = !local_reply
                && !replaced
                && fields::response_has_trailers(id)
                && entry.response_framing == BodyFraming::Chunked
                && entry.version != 10
                && entry.method != "HEAD"
                && !matches!(status, 204 | 304);
            entry.reply_len = body.received;
            entry.result = match maker {
                Maker::Backend => ClientResult::Response(status),
                Maker::Proxy => ClientResult::LocalReply(status),
                Maker::Middleware => ClientResult::MiddlewareReply(status),
            };
            let want = response_body_len(entry);
            if !local_reply && changed.is_none() && body.received != want {
                net.ledger.fail(
                    "right-length",
                    format!("client {}: {} of {want} bytes for {id}", self.index, body.received),
                );
            }
            // Over HTTP/2 no `Connection` names any of them.
            let named = if streams { Vec::new() } else { fields::of_response(id) };
            let want = if trailers_due { fields::passed_trailers(id, &named) } else { Vec::new() };
            let lower = net.ledger.get(id).version == HTTP_2 || streams;
            if !fields::same_trailers(&body.trailers, &want, lower) {
                let details = format!("client {}: {:?}, not {want:?}", self.index, body.trailers);
                net.ledger.fail("right-trailers", details);
            }
            if trailers_due {
                net.mark(Mark::Trailers);
            }
            net.trace(16 << 8 | u64::from(status), || {
                format!("client {} has the response to {id}: {status}", self.index)
            });
            net.mark(if local_reply { Mark::LocalReply } else { Mark::BackendResponse });
            if self.responses > 0 {
                net.mark(Mark::KeptAlive);
            }
        } else if last {
            return self.finish(net);
        }
        self.responses += 1;
        self.last_response_seen |= last;
        let all_received = self.responses == self.requests.len();
        if self.last_response_seen || (all_received && (!self.invalid_request || !net.faults_on)) {
            self.finish(net);
        }
    }
}

/// What tells where content ends: over HTTP/2 the end of the stream does, whatever the head says.
fn as_carried(entry: &ExchangeEntry, framing: BodyFraming) -> BodyFraming {
    if entry.version == HTTP_2 && framing != BodyFraming::None { BodyFraming::Close } else { framing }
}

/// A response of the proxy itself with this status, as it is made. `len`: of its text, if it has any.
fn reply_message(status: u16, len: Option<u64>) -> Message {
    let fields = len.map(|_| (TEXT.0, TEXT.1.to_owned())).into_iter().collect();
    Message { status, fields, len, ..Message::default() }
}
