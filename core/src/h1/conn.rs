//! One HTTP/1.1 connection, of a client or to a backend: what has been received and not yet passed on, what
//! may follow what, how the body that comes in is framed and how the one that goes out is.
//!
//! It is role-blind but for one bit: whose messages come in. It knows no exchange and no socket; payload that
//! goes out lies with its source and is lent when it is sent.

use http::{StatusCode, Version};

use super::head::{RequestParts, ResponseParts, parse_request, parse_response};
use super::head_end::{find_request_end, find_response_end};
use super::head_limits::{FieldIndex, HeadLimits, ResponseContext};
use super::lenient::{may_begin, strict_form};
use super::machine::{Event, MessageStates, Side, State};
use super::rendered_heads::RenderedHeads;
use super::trailers::{MAX_TRAILERS, TrailerIndex, Trailers, parse_trailers};
use super::write::{
    Writer, client_framing, forward_interim, forward_request, forward_response, forward_trailers,
};
use super::{BodyProgress, BodyReader, ChunkEncoder};
use crate::buffer::ReceiveBuffer;
use crate::cause::Cause;
use crate::http::forward::{RequestForward, ResponseForward};
use crate::http::{Framing, RequestHead, ResponseHead, Violation};
use crate::http::{ParsedRequest, ParsedResponse};
use crate::page::{PageId, Pages};

/// A payload up to this length is copied behind its head: the copy costs less than a second slice.
pub(crate) const MAX_JOINED_BYTES: usize = 2048;

/// Room that parsing needs for a moment; one for each shard.
#[derive(Debug, Default)]
pub(crate) struct HeadParser {
    index: FieldIndex,
    scratch: Vec<u8>,
    /// The rule that the last response broke and that was forgiven, or would have been.
    pub(crate) forgiven: Option<Violation>,
}

/// A connection that speaks HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Whose messages come in: the client's on an accepted connection, the server's on one to a backend.
    peer: Side,
    states: MessageStates,
    buffer: ReceiveBuffer,
    reader: BodyReader,
    out: RenderedHeads,
    encoder: Encoder,
    /// The version that the peer speaks, as far as it is known.
    peer_version: Version,
    /// The peer asked for the end of the connection after this exchange.
    peer_closes: bool,
    /// Responses that break rules which others forgive are taken.
    lenient: bool,
}

/// How a response is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendResponse<'a> {
    /// That of the payload at its source.
    pub(crate) framing: Framing,
    /// Nothing else speaks against another request on this connection.
    pub(crate) persist: bool,
    /// For `Date`.
    pub(crate) date: &'a [u8; 29],
    /// Whole field lines, each with its CRLF, or nothing.
    pub(crate) extra: &'a [u8],
    /// It is one of our own: it is sent even if no page is free.
    pub(crate) local: bool,
}

/// How payload is framed on its way out.
#[derive(Clone, Copy, Debug)]
enum Encoder {
    /// By length, or until the end of the connection.
    Plain,
    /// RFC 9112 §7.1.
    Chunked(ChunkEncoder),
}

/// What came of reading a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadRead {
    /// It is not complete.
    Partial,
    /// It is there.
    Whole,
}

/// What came of decoding a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyRead {
    /// Bytes of payload that are there now and were not before.
    pub(crate) payload: usize,
    /// The message is complete.
    pub(crate) ended: bool,
}

/// What the end of the peer's stream means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// A body that lasts until the end of the connection is complete.
    Message,
    /// Nothing was under way.
    Idle,
    /// A message was cut, or one that is due will never come.
    Truncated,
}

impl Conn {
    /// A fresh connection. `peer`: whose messages come in.
    pub(crate) fn new(peer: Side) -> Self {
        Self {
            peer,
            states: MessageStates::new(),
            buffer: ReceiveBuffer::default(),
            reader: BodyReader::new(Framing::None),
            out: RenderedHeads::default(),
            encoder: Encoder::Plain,
            peer_version: Version::HTTP_11,
            peer_closes: false,
            lenient: false,
        }
    }

    /// Whether responses that break rules which others forgive are taken.
    #[inline]
    pub(crate) fn set_lenient(&mut self, lenient: bool) {
        self.lenient = lenient;
    }

    /// Whether the body that was read last broke a rule that was forgiven.
    pub(crate) fn has_forgiven(&self) -> bool {
        self.lenient && self.reader.has_forgiven()
    }

    /// Our side.
    fn own(&self) -> Side {
        match self.peer {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    pub(crate) fn buffer(&self) -> &ReceiveBuffer {
        &self.buffer
    }

    pub(crate) fn buffer_mut(&mut self) -> &mut ReceiveBuffer {
        &mut self.buffer
    }

    /// Takes what a tunnel goes on with: what has come behind the heads, and the heads that are on their way.
    pub(crate) fn take_for_tunnel(&mut self) -> (ReceiveBuffer, RenderedHeads) {
        (std::mem::take(&mut self.buffer), std::mem::take(&mut self.out))
    }

    /// Whether what is still to come of the body is known to be `n` bytes or more.
    pub(crate) fn expects_at_least(&self, n: u64) -> bool {
        self.reader.remaining().is_some_and(|left| left >= n)
    }

    /// Whether the peer may send the head of a request (or we, to a backend).
    pub(crate) fn may_request(&self) -> bool {
        self.states.may_request()
    }

    // Receiving.

    /// Reads the head of the next request. `Whole`: it lies in `head`, and its body is read from now on.
    ///
    /// # Errors
    /// If it is none. `head.method()` is HEAD if at least that was understood.
    pub(crate) fn receive_request(
        &mut self,
        pages: &Pages,
        parser: &mut HeadParser,
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<HeadRead, Violation> {
        let raw = self.buffer.unparsed(pages);
        let read = self.parse_request(raw, parser, limits, head);
        if read.is_err() {
            head.reset();
            if raw.starts_with(b"HEAD ") {
                head.method = http::Method::HEAD;
            }
        }
        match read? {
            Some(len) => {
                self.buffer.consume(len);
                Ok(HeadRead::Whole)
            }
            None => {
                self.buffer.all_searched();
                Ok(HeadRead::Partial)
            }
        }
    }

    #[inline(always)]
    fn parse_request(
        &mut self,
        raw: &[u8],
        parser: &mut HeadParser,
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<Option<usize>, Violation> {
        // Most heads come whole and are as they should be: one pass over those, a closer look at all others.
        if self.buffer.searched() == 0
            && let Ok(Some(parts)) = RequestParts::split(raw, &mut parser.index, limits)
        {
            let len = parts.len;
            if let Some(target) = parts.plain_target() {
                if let Ok(parsed) = parts.plain(target) {
                    return self.request_parsed(&parsed, head).map(|()| Some(len));
                }
            } else if let Ok(parsed) = parts.checked(&mut parser.scratch) {
                return self.any_request_parsed(&parsed, head).map(|()| Some(len));
            }
        }
        self.parse_searched_request(raw, parser, limits, head)
    }

    /// Reads a head that came in pieces, or breaks a rule.
    #[cold]
    fn parse_searched_request(
        &mut self,
        raw: &[u8],
        parser: &mut HeadParser,
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<Option<usize>, Violation> {
        let Some(len) = find_request_end(raw, self.buffer.searched())? else { return Ok(None) };
        let parsed = parse_request(&raw[..len], &mut parser.index, limits, &mut parser.scratch)?;
        self.any_request_parsed(&parsed, head)?;
        Ok(Some(len))
    }

    /// [`Conn::request_parsed`], compiled once for all but plain requests.
    #[inline(never)]
    fn any_request_parsed(
        &mut self,
        parsed: &ParsedRequest<'_>,
        head: &mut RequestHead,
    ) -> Result<(), Violation> {
        self.request_parsed(parsed, head)
    }

    #[inline(always)]
    fn request_parsed(
        &mut self,
        parsed: &ParsedRequest<'_>,
        head: &mut RequestHead,
    ) -> Result<(), Violation> {
        let event = if parsed.upgrade.is_some() { Event::HeadUpgrade } else { Event::Head };
        self.states.apply(Side::Client, event).map_err(|_| Violation::StartLine)?;
        self.peer_version = parsed.version;
        self.peer_closes = !parsed.keep_alive;
        head.assign(parsed);
        self.reader = BodyReader::new(parsed.framing);
        if self.reader.progress() == BodyProgress::Done {
            self.states.apply(Side::Client, Event::End).map_err(|_| Violation::StartLine)?;
        }
        if !parsed.keep_alive {
            self.no_keep_alive(Side::Client);
        }
        Ok(())
    }

    /// Reads the head of the next response, an interim one maybe. `Whole`: it lies in `head`.
    ///
    /// # Errors
    /// If it is none, or one that may not come now.
    pub(crate) fn receive_response(
        &mut self,
        pages: &Pages,
        parser: &mut HeadParser,
        limits: &HeadLimits,
        request: &RequestHead,
        head: &mut ResponseHead,
    ) -> Result<HeadRead, Violation> {
        let raw = self.buffer.unparsed(pages);
        let context = ResponseContext {
            head: *request.method() == http::Method::HEAD,
            upgrade: request.upgrade().is_some(),
        };
        parser.forgiven = None;
        let mut read = self.parse_response(raw, parser, limits, context, head);
        if let Err(violation) = read {
            read = self.parse_lenient(raw, parser, limits, context, head, violation);
        }
        match read? {
            Some(len) => {
                self.buffer.consume(len);
                if self.lenient && head.framing() == Framing::Chunked && !self.message_ended() {
                    self.reader = BodyReader::lenient_chunks();
                }
                Ok(HeadRead::Whole)
            }
            None => {
                self.buffer.all_searched();
                Ok(HeadRead::Partial)
            }
        }
    }

    /// Reads a head that has broken a rule, if it is one that is right but for what others forgive. What was
    /// forgiven, or would be, lies in `parser.forgiven`.
    #[cold]
    fn parse_lenient(
        &mut self,
        raw: &[u8],
        parser: &mut HeadParser,
        limits: &HeadLimits,
        context: ResponseContext,
        head: &mut ResponseHead,
        violation: Violation,
    ) -> Result<Option<usize>, Violation> {
        let HeadParser { index, scratch, forgiven } = parser;
        let Some(len) = strict_form(raw, scratch) else {
            let may_come = self.lenient && raw.len() < limits.head_bytes && may_begin(raw);
            return if may_come { Ok(None) } else { Err(violation) };
        };
        let Ok(parsed) = parse_response(scratch, index, limits, context) else { return Err(violation) };
        *forgiven = Some(violation);
        if !self.lenient {
            return Err(violation);
        }
        self.response_parsed(&parsed, head).map(|()| Some(len))
    }

    #[inline(always)]
    fn parse_response(
        &mut self,
        raw: &[u8],
        parser: &mut HeadParser,
        limits: &HeadLimits,
        context: ResponseContext,
        head: &mut ResponseHead,
    ) -> Result<Option<usize>, Violation> {
        if self.buffer.searched() == 0
            && let Ok(Some(parts)) = ResponseParts::split(raw, &mut parser.index, limits)
        {
            let len = parts.len;
            if parts.is_plain(context) {
                if let Ok(parsed) = parts.plain() {
                    return self.final_response_parsed(&parsed, head).map(|()| Some(len));
                }
            } else if let Ok(parsed) = parts.checked(context) {
                return self.response_parsed(&parsed, head).map(|()| Some(len));
            }
        }
        self.parse_searched_response(raw, parser, limits, context, head)
    }

    /// Reads a head that came in pieces, or breaks a rule.
    #[cold]
    fn parse_searched_response(
        &mut self,
        raw: &[u8],
        parser: &mut HeadParser,
        limits: &HeadLimits,
        context: ResponseContext,
        head: &mut ResponseHead,
    ) -> Result<Option<usize>, Violation> {
        match find_response_end(raw, self.buffer.searched())? {
            Some(len) => {
                let parsed = parse_response(&raw[..len], &mut parser.index, limits, context)?;
                self.response_parsed(&parsed, head).map(|()| Some(len))
            }
            None if raw.len() >= limits.head_bytes => Err(Violation::HeadTooLarge),
            None => Ok(None),
        }
    }

    /// Takes over a response, unless it is one that may not come now.
    #[inline(never)]
    fn response_parsed(
        &mut self,
        parsed: &ParsedResponse<'_>,
        head: &mut ResponseHead,
    ) -> Result<(), Violation> {
        let event = match parsed.status {
            StatusCode::SWITCHING_PROTOCOLS => Event::Switch,
            _ if parsed.is_interim() => Event::Interim,
            _ => return self.final_response_parsed(parsed, head),
        };
        head.assign(parsed);
        self.peer_closes = !parsed.keep_alive;
        // Whoever switches before the whole request is there has not read it.
        if event == Event::Switch && self.states.state(Side::Client) == State::Body {
            return Err(Violation::UnexpectedSwitch);
        }
        self.states.apply(Side::Server, event).map_err(|_| Violation::UnexpectedSwitch)
    }

    /// Takes over a final response other than a 101.
    #[inline(always)]
    fn final_response_parsed(
        &mut self,
        parsed: &ParsedResponse<'_>,
        head: &mut ResponseHead,
    ) -> Result<(), Violation> {
        head.assign(parsed);
        self.peer_closes = !parsed.keep_alive || parsed.framing == Framing::Close;
        self.states.apply(Side::Server, Event::Head).map_err(|_| Violation::UnexpectedSwitch)?;
        if self.peer_closes {
            self.no_keep_alive(Side::Server);
        }
        self.reader = BodyReader::new(parsed.framing);
        if self.message_ended() {
            self.states.apply(Side::Server, Event::End).map_err(|_| Violation::UnexpectedSwitch)?;
        }
        Ok(())
    }

    /// Whether the peer's message is complete, as far as its head and body are concerned.
    #[inline]
    pub(crate) fn message_ended(&self) -> bool {
        self.reader.progress() == BodyProgress::Done
    }

    /// Decodes what has been received of the body. A trailer section is written into `trailers`, without what
    /// may not pass.
    ///
    /// # Errors
    /// If its framing is broken.
    #[inline]
    pub(crate) fn receive_body(
        &mut self,
        pages: &mut Pages,
        limits: &HeadLimits,
        trailers: &mut Vec<u8>,
    ) -> Result<BodyRead, Violation> {
        // Most bodies are framed by their length.
        if let Some((payload, ended)) = self.reader.receive_in_place(self.buffer.unparsed_len()) {
            if payload > 0 {
                self.buffer.decoded(payload, payload);
                if ended {
                    self.states.apply(self.peer, Event::End).map_err(|_| Violation::StartLine)?;
                }
            }
            return Ok(BodyRead { payload, ended });
        }
        self.receive_coded_body(pages, limits, trailers)
    }

    /// [`Conn::receive_body`] for any framing.
    fn receive_coded_body(
        &mut self,
        pages: &mut Pages,
        limits: &HeadLimits,
        trailers: &mut Vec<u8>,
    ) -> Result<BodyRead, Violation> {
        if self.buffer.unparsed_len() == 0 || self.message_ended() {
            return Ok(BodyRead { payload: 0, ended: self.message_ended() });
        }
        let read = self.decode_body(pages, limits, trailers);
        match &read {
            Ok(BodyRead { ended: true, .. }) => {
                self.states.apply(self.peer, Event::End).map_err(|_| Violation::StartLine)?;
            }
            Ok(_) => {}
            Err(_) => self.fail(),
        }
        read
    }

    fn decode_body(
        &mut self,
        pages: &mut Pages,
        limits: &HeadLimits,
        trailers: &mut Vec<u8>,
    ) -> Result<BodyRead, Violation> {
        let mut payload = 0;
        let mut progress = self.reader.progress();
        if progress == BodyProgress::More {
            let received = self.reader.receive(self.buffer.unparsed_mut(pages))?;
            payload = received.payload;
            progress = received.state;
            if received.consumed > 0 {
                self.buffer.decoded(received.payload, received.consumed);
            }
        }
        if progress == BodyProgress::Trailers {
            self.receive_trailers(pages, limits, trailers)?;
        }
        Ok(BodyRead { payload, ended: self.message_ended() })
    }

    fn receive_trailers(
        &mut self,
        pages: &Pages,
        limits: &HeadLimits,
        section: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let mut index = TrailerIndex::new();
        let raw = self.buffer.unparsed(pages);
        match parse_trailers(raw, self.buffer.searched(), &mut index, limits)? {
            Trailers::Partial => self.buffer.all_searched(),
            Trailers::Done { len, fields } => {
                if fields.iter().next().is_some() {
                    // Each field may gain a blank after its colon.
                    section.resize(len + 2 * MAX_TRAILERS + 2, 0);
                    let mut w = Writer::new(section);
                    forward_trailers(&mut w, &fields);
                    let written = w.finish().unwrap_or(0);
                    section.truncate(written);
                }
                self.reader.trailers_done();
                self.buffer.consume(len);
            }
        }
        Ok(())
    }

    /// The peer closed its direction.
    pub(crate) fn stream_ended(&mut self) -> StreamEnd {
        let until_close = self.reader.ends_at_close() && self.states.state(self.peer) == State::Body;
        if until_close {
            self.reader = BodyReader::new(Framing::None);
            let ended = self.states.apply(self.peer, Event::End);
            debug_assert!(ended.is_ok(), "a body was under way");
        }
        let idle = self.states.may_request();
        match self.states.apply(self.peer, Event::Close) {
            Ok(()) if until_close => StreamEnd::Message,
            Ok(()) if idle => StreamEnd::Idle,
            _ => StreamEnd::Truncated,
        }
    }

    /// The peer broke a rule, or its connection broke.
    pub(crate) fn fail(&mut self) {
        let failed = self.states.apply(self.peer, Event::Fail);
        debug_assert!(failed.is_ok(), "that may always happen");
    }

    /// The connection ends with this exchange, for a reason of that side.
    fn no_keep_alive(&mut self, side: Side) {
        let ends = self.states.apply(side, Event::NoKeepAlive);
        debug_assert!(ends.is_ok(), "that may always happen");
    }

    // Sending.

    /// Sends the head of a request; its payload follows by [`Conn::frame`].
    ///
    /// # Errors
    /// If there is no page to write it to, or it does not fit into one.
    pub(crate) fn send_request(
        &mut self,
        pages: &mut Pages,
        head: &RequestHead,
        forward: &RequestForward<'_>,
    ) -> Result<(), Cause> {
        self.out.write(pages, |w| forward_request(w, head, forward)).map_err(|cause| match cause {
            Cause::BadResponse(violation) => Cause::BadRequest(violation),
            other => other,
        })?;
        let event = if head.upgrade().is_some() { Event::HeadUpgrade } else { Event::Head };
        let applied = self.states.apply(Side::Client, event);
        debug_assert!(applied.is_ok(), "a connection that gets an exchange may carry one");
        self.encoder = Encoder::new(forward.own_body.unwrap_or(head.framing()));
        Ok(())
    }

    /// Sends bytes that are a whole request already: a health check.
    pub(crate) fn send_probe(&mut self, pages: &mut Pages, request: &[u8]) -> Result<(), Cause> {
        let applied = self.states.apply(Side::Client, Event::Head);
        debug_assert!(applied.is_ok(), "a fresh connection");
        self.out.write(pages, |w| w.put(request))
    }

    /// Sends an interim response; not to a client of HTTP/1.0 (RFC 9110 §15.2).
    pub(crate) fn send_interim(&mut self, pages: &mut Pages, head: &ResponseHead) -> Result<(), Cause> {
        if self.peer_version < Version::HTTP_11 && !crate::planted::planted!(23) {
            return Ok(());
        }
        if self.states.apply(Side::Server, Event::Interim).is_err() {
            return Ok(());
        }
        self.out.write(pages, |w| forward_interim(w, head))
    }

    /// Sends the head of a final response, or a 101; its payload follows by [`Conn::frame`].
    ///
    /// # Errors
    /// If there is no page to write it to, or it does not fit into one.
    pub(crate) fn send_response(
        &mut self,
        pages: &mut Pages,
        head: &ResponseHead,
        how: &SendResponse<'_>,
    ) -> Result<(), Cause> {
        let framing = client_framing(how.framing, self.peer_version);
        let keep_alive = how.persist && self.may_persist() && framing != Framing::Close;
        let forward = ResponseForward {
            date: how.date,
            client_version: self.peer_version,
            framing,
            keep_alive,
            extra: how.extra,
        };
        self.encoder = Encoder::new(framing);
        if how.local {
            self.out.write_to_heap(pages, |w| forward_response(w, head, &forward))?;
        } else {
            self.out.write(pages, |w| forward_response(w, head, &forward))?;
        }
        let switches = head.status() == StatusCode::SWITCHING_PROTOCOLS;
        let event = if switches { Event::Switch } else { Event::Head };
        // To a client that failed, or that is told to go, there may be no response by the table: it gets one.
        if self.states.apply(Side::Server, event).is_err() || !keep_alive {
            self.no_keep_alive(Side::Server);
        }
        Ok(())
    }

    /// A response whose head was written, and of which not a byte has been sent, will not be sent after all:
    /// another one takes its place.
    pub(crate) fn withdraw_response(&mut self) {
        if self.states.withdraw_response() {
            self.out.withdraw();
            self.encoder = Encoder::Plain;
        }
    }

    /// Whether another request may follow as far as the peer is concerned: its request is complete (a
    /// response that overtakes it ends the connection: the rest is not worth reading), and it did not ask
    /// for the end.
    fn may_persist(&self) -> bool {
        let complete = matches!(self.states.state(self.peer), State::Done | State::MightSwitch);
        !self.peer_closes && (complete || crate::planted::planted!(26))
    }

    /// Payload that lies ready with its source: `ready` bytes unsent in all. `last`: none comes after it, but
    /// a trailer section of `trailer_len` bytes.
    #[inline]
    pub(crate) fn frame(&mut self, ready: usize, last: bool, trailer_len: usize) {
        if let Encoder::Chunked(chunks) = &mut self.encoder {
            chunks.open(ready as u32);
            if last && !chunks.is_ending() {
                chunks.finish(trailer_len as u32);
            }
        }
    }

    /// Whether the payload goes out as it is.
    #[inline]
    pub(crate) fn sends_plain(&self) -> bool {
        matches!(self.encoder, Encoder::Plain)
    }

    /// What of the heads has not been sent.
    #[inline]
    pub(crate) fn pending_heads<'a>(&'a self, pages: &'a Pages) -> &'a [u8] {
        self.out.pending(pages)
    }

    /// What to send now, in order: heads, then `payload` in its framing, then trailers.
    pub(crate) fn slices<'a>(
        &'a self,
        payload: &'a [u8],
        trailers: &'a [u8],
        pages: &'a Pages,
    ) -> [&'a [u8]; 5] {
        let heads = self.out.pending(pages);
        match &self.encoder {
            Encoder::Plain => [heads, payload, &[], &[], &[]],
            Encoder::Chunked(chunks) => {
                let [a, b, c, d] = chunks.slices(payload, trailers);
                [heads, a, b, c, d]
            }
        }
    }

    /// Whether there is anything to send. `ready`: unsent payload at the source.
    #[inline]
    pub(crate) fn has_output(&self, ready: usize) -> bool {
        !self.out.is_done()
            || match &self.encoder {
                Encoder::Plain => ready > 0,
                Encoder::Chunked(chunks) => chunks.is_pending(),
            }
    }

    /// `n` bytes of the slices have been sent; returns how many of them were payload.
    #[inline]
    pub(crate) fn sent(&mut self, n: usize) -> usize {
        let n = self.out.advance(n);
        match &mut self.encoder {
            Encoder::Plain => n,
            Encoder::Chunked(chunks) if n > 0 => chunks.sent(n),
            Encoder::Chunked { .. } => 0,
        }
    }

    /// Whether every head has been sent.
    #[inline]
    pub(crate) fn heads_sent(&self) -> bool {
        self.out.is_done()
    }

    /// Whether a byte of the heads has been sent.
    pub(crate) fn has_sent_of_head(&self) -> bool {
        self.out.has_sent()
    }

    /// Whether the whole message has been sent. `ready`: unsent payload at the source, `last`: there will be
    /// no more.
    #[inline]
    pub(crate) fn is_message_sent(&self, ready: usize, last: bool) -> bool {
        self.out.is_done()
            && last
            && match &self.encoder {
                Encoder::Plain => ready == 0,
                Encoder::Chunked(chunks) => chunks.is_done(),
            }
    }

    /// Our message is complete and has been sent.
    pub(crate) fn message_sent(&mut self) {
        let ended = self.states.apply(self.own(), Event::End);
        debug_assert!(ended.is_ok(), "a message was under way: {ended:?}");
    }

    /// A short and complete payload joins its head, if nothing of either has been sent: one piece is cheaper
    /// to send than two. False if it does not.
    pub(crate) fn join(&mut self, payload: &[u8], pages: &mut Pages) -> bool {
        matches!(self.encoder, Encoder::Plain) && self.out.join(payload, pages)
    }

    /// Gives back the page of heads that have been sent.
    #[inline]
    pub(crate) fn drop_sent_heads(&mut self, pages: &mut Pages) {
        if self.out.is_done() {
            self.out.clear(pages);
        }
    }

    /// The page of heads that have been sent goes to another connection: where pages are scarce there might
    /// be no other.
    #[inline]
    pub(crate) fn take_head_page(&mut self) -> Option<PageId> {
        self.out.take_page()
    }

    /// Takes over a page for heads, unless it has one.
    #[inline]
    pub(crate) fn give_head_page(&mut self, page: PageId, pages: &mut Pages) {
        self.out.give_page(page, pages);
    }

    // Between exchanges.

    /// Both messages are over: goes on to the next exchange, if the connection may carry one.
    #[inline]
    pub(crate) fn next_exchange(&mut self) -> bool {
        self.states.apply(Side::Client, Event::Next).is_ok()
    }

    /// The peer said that it will not send another request, or keep the connection.
    pub(crate) fn peer_closes(&self) -> bool {
        self.peer_closes
    }

    /// Gives back every page.
    #[inline]
    pub(crate) fn clear(&mut self, pages: &mut Pages) {
        self.buffer.clear(pages);
        self.out.clear(pages);
    }

    /// Pages that it holds.
    pub(crate) fn pages(&self) -> usize {
        self.buffer.pages() + self.out.pages()
    }
}

impl Encoder {
    #[inline]
    fn new(framing: Framing) -> Self {
        if framing == Framing::Chunked { Self::Chunked(ChunkEncoder::new()) } else { Self::Plain }
    }
}
