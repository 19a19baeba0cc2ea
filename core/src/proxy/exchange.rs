//! An exchange: one request, its answer, and the two legs they travel on.

use crate::balance::Tried;
use crate::cause::Cause;
use crate::conn::Inbox;
use crate::h1::{
    BodyProgress, BodyReader, ChunkEncoder, HeadLimits, TrailerIndex, Trailers, Writer, forward_trailers,
};
use crate::http::{Framing, Violation};
use crate::id::{ConnId, LookupId};
use crate::middleware::Transform;
use crate::observe::{Kept, Timings};
use crate::page::{PageId, Pages};
use crate::planted::planted;
use crate::time::Instant;

/// One end of an exchange: a stream of a connection. HTTP/1 connections have the one stream 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leg {
    pub(crate) conn: ConnId,
    pub(crate) stream: u32,
}

impl Leg {
    pub(crate) fn h1(conn: ConnId) -> Self {
        Self { conn, stream: 0 }
    }
}

/// Where an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A stage waits for a lookup; the head still lies in the client's page.
    Asking(LookupId),
    /// No backend yet: every usable one is at its `max_connections`.
    Choosing,
    /// A connection is being opened.
    Connecting,
    /// The request goes out; no answer yet (interim ones may have passed).
    Sending,
    /// The head of the final answer is there.
    Responding,
    /// Bytes pass both ways (RFC 9110 §7.8).
    Tunnel,
    /// The answer is our own.
    Own,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) client: Leg,
    pub(crate) backend: Option<Leg>,
    pub(crate) phase: Phase,
    /// Runtime of the pool; `None` before routing.
    pub(crate) runtime: Option<u32>,
    /// Place of the chosen backend in the pool.
    pub(crate) choice: Option<u16>,
    /// It waits in its pool's queue.
    pub(crate) queued: bool,
    /// An in-flight slot of the chosen backend is held.
    pub(crate) holds_slot: bool,
    pub(crate) request: MessagePipe,
    pub(crate) response: MessagePipe,

    pub(crate) tried: Tried,
    pub(crate) asked_sticky: Option<u16>,
    pub(crate) attempts: u8,
    pub(crate) retries_left: u8,
    /// Stale connections replaced so far: each costs nothing, but their number is bounded.
    pub(crate) replays: u8,
    /// The last attempt used an idle connection.
    pub(crate) reused: bool,
    /// All of the request that was received is still here.
    pub(crate) retained: bool,
    /// A byte of the backend's answer has been seen.
    pub(crate) response_seen: bool,
    pub(crate) first_failure: Option<Cause>,

    pub(crate) head_only: bool,
    pub(crate) idempotent: bool,
    pub(crate) version: u8,
    pub(crate) keep_alive: bool,
    /// The client wants its connection to end with this exchange.
    pub(crate) asked_close: bool,
    pub(crate) upgrade: bool,
    /// The client holds its content back until the backend says 100 (RFC 9110 §10.1.1).
    pub(crate) awaits_continue: bool,
    pub(crate) interims: u8,
    /// The whole request has gone to the backend.
    pub(crate) request_gone: bool,
    /// Bytes of the final answer have gone.
    pub(crate) response_begun: bool,
    /// It stands in the list of those whose deadlines are to be looked at.
    pub(crate) touched: bool,
    /// Payload sent to the client.
    pub(crate) bytes_out: u64,
    /// The next stage of the chain to ask.
    pub(crate) stage: u8,
    pub(crate) shut_backend: bool,
    pub(crate) shut_client: bool,

    pub(crate) status: u16,
    pub(crate) cause: Option<Cause>,
    pub(crate) times: Timings,
    /// An answer of our own, and how much of it is body.
    pub(crate) own: Vec<u8>,
    pub(crate) own_body: u32,
    /// What the observer wants of the head.
    pub(crate) kept: Kept,
}

/// A payload up to this length is copied behind its head: the copy costs less than a second slice.
const JOINED_BYTES: usize = 2048;

/// One direction of an exchange: from the inbox of its source to the socket of its sink.
#[derive(Debug)]
pub(crate) struct MessagePipe {
    /// The rewritten head.
    pub(crate) head: Option<PageId>,
    pub(crate) head_len: u32,
    pub(crate) head_sent: u32,
    pub(crate) reader: BodyReader,
    pub(crate) sink: Sink,
    pub(crate) pipe: Pipe,
    /// The source's message is over: nothing comes after what lies here.
    pub(crate) ended: bool,
    /// The sink's framing has been told so.
    framed: bool,
    /// A trailer section, ready to send.
    trailers: Vec<u8>,
    pub(crate) trailers_pass: bool,
    /// Payload received.
    pub(crate) payload_bytes: u64,
}

/// How payload is framed on its way out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sink {
    /// By length, or until the end of the connection.
    Plain,
    /// RFC 9112 §7.1.
    Chunked(ChunkEncoder),
}

impl Exchange {
    /// The client need not hold its content back any more. The time for the answer begins when all of that
    /// has gone.
    pub(crate) fn expectation_met(&mut self) {
        // One whose content is empty may have gone before anything was said.
        if std::mem::replace(&mut self.awaits_continue, false) && !self.request_gone {
            self.times.sent = Instant::NEVER;
        }
    }
}

impl Sink {
    pub(crate) fn new(framing: Framing) -> Self {
        if framing == Framing::Chunked { Self::Chunked(ChunkEncoder::new()) } else { Self::Plain }
    }
}

/// Where the payload lies that is to be sent next.
#[derive(Debug)]
pub(crate) enum Pipe {
    /// In the page it was read into. The first `kept` bytes have been sent, and stay for a retry.
    Lent { kept: u32 },
    /// In a page of the exchange's own, behind a transform.
    Own(Box<Own>),
}

#[derive(Debug)]
pub(crate) struct Own {
    page: PageId,
    start: u32,
    end: u32,
    transform: Box<dyn Transform>,
    done: bool,
}

impl MessagePipe {
    pub(crate) fn new() -> Self {
        Self {
            head: None,
            head_len: 0,
            head_sent: 0,
            reader: BodyReader::new(Framing::None),
            sink: Sink::Plain,
            pipe: Pipe::Lent { kept: 0 },
            ended: false,
            framed: false,
            trailers: Vec::new(),
            trailers_pass: true,
            payload_bytes: 0,
        }
    }

    /// A body begins, framed so by its source and so for its sink.
    pub(crate) fn begin(&mut self, from: Framing, to: Framing) {
        self.reader = BodyReader::new(from);
        self.sink = Sink::new(to);
        self.ended = self.reader.progress() == BodyProgress::Done;
    }

    /// Puts a transform into the way, with a page of its own.
    pub(crate) fn transform(&mut self, page: PageId, transform: Box<dyn Transform>) {
        self.pipe = Pipe::Own(Box::new(Own { page, start: 0, end: 0, transform, done: false }));
    }

    /// Bytes pass as they come from now on.
    pub(crate) fn tunnel(&mut self) {
        self.reader = BodyReader::new(Framing::Close);
        self.sink = Sink::Plain;
        self.ended = false;
        self.framed = false;
    }

    /// Everything goes out once more, from the start.
    pub(crate) fn rewind(&mut self) {
        self.head_sent = 0;
        self.framed = false;
        if let Pipe::Lent { kept } = &mut self.pipe {
            *kept = 0;
        }
        if let Sink::Chunked(w) = &mut self.sink {
            *w = if planted!(13) { *w } else { ChunkEncoder::new() };
        }
    }

    /// Reads what has come into the source's inbox.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        inbox: &mut Inbox,
        pages: &mut Pages,
        limits: &HeadLimits,
    ) -> Result<(), Violation> {
        if self.ended || inbox.raw == inbox.end { Ok(()) } else { self.receive_raw(inbox, pages, limits) }
    }

    fn receive_raw(
        &mut self,
        inbox: &mut Inbox,
        pages: &mut Pages,
        limits: &HeadLimits,
    ) -> Result<(), Violation> {
        let Some(page) = &inbox.page else { return Ok(()) };
        let got = match self.reader.progress() {
            BodyProgress::More => {
                let raw = &mut pages.bytes_mut(page)[inbox.raw as usize..inbox.end as usize];
                self.reader.receive(raw)?
            }
            state => crate::h1::Received { payload: 0, consumed: 0, state },
        };
        if got.consumed > 0 {
            if inbox.pay.0 == inbox.pay.1 {
                inbox.pay = (inbox.raw, inbox.raw);
            }
            debug_assert_eq!(inbox.pay.1, inbox.raw);
            inbox.pay.1 += got.payload as u32;
            inbox.raw += got.consumed as u32;
            inbox.scanned = 0;
            if inbox.raw == inbox.end {
                (inbox.raw, inbox.end) = (inbox.pay.1, inbox.pay.1);
            }
            self.payload_bytes += got.payload as u64;
        }
        match got.state {
            BodyProgress::More => {}
            BodyProgress::Done => self.ended = true,
            BodyProgress::Trailers => self.receive_trailers(inbox, pages, limits)?,
        }
        Ok(())
    }

    fn receive_trailers(
        &mut self,
        inbox: &mut Inbox,
        pages: &Pages,
        limits: &HeadLimits,
    ) -> Result<(), Violation> {
        let Some(page) = &inbox.page else { return Ok(()) };
        let raw = &pages.bytes(page)[inbox.raw as usize..inbox.end as usize];
        let mut store = TrailerIndex::new();
        match crate::h1::parse_trailers(raw, inbox.scanned as usize, &mut store, limits)? {
            Trailers::Partial => inbox.scanned = raw.len() as u32,
            Trailers::Done { len, fields } => {
                if self.trailers_pass
                    && matches!(self.sink, Sink::Chunked(_))
                    && fields.iter().next().is_some()
                {
                    // Each field may gain a blank after its colon.
                    self.trailers.resize(len + 2 * crate::h1::trailers::MAX_TRAILERS + 2, 0);
                    let mut w = Writer::new(&mut self.trailers);
                    forward_trailers(&mut w, &fields);
                    let written = w.finish().unwrap_or(0);
                    self.trailers.truncate(written);
                }
                self.reader.trailers_done();
                self.ended = true;
                inbox.consume_raw(len);
            }
        }
        Ok(())
    }

    /// Whether no payload comes after what lies ready.
    fn is_last(&self) -> bool {
        match &self.pipe {
            Pipe::Lent { .. } => self.ended,
            Pipe::Own(own) => own.done,
        }
    }

    /// Payload that lies ready and has not been sent.
    pub(crate) fn unsent(&self, inbox: Option<&Inbox>) -> usize {
        match &self.pipe {
            Pipe::Lent { kept } => inbox.map_or(0, |i| i.payload_len() - *kept as usize),
            Pipe::Own(own) => (own.end - own.start) as usize,
        }
    }

    /// Gets ready to send what can be sent: runs the transform, frames what lies ready.
    #[inline]
    pub(crate) fn frame(&mut self, inbox: Option<&mut Inbox>, pages: &mut Pages) {
        if !matches!((&self.pipe, &self.sink), (Pipe::Lent { .. }, Sink::Plain)) {
            self.frame_anew(inbox, pages);
        }
    }

    fn frame_anew(&mut self, inbox: Option<&mut Inbox>, pages: &mut Pages) {
        let ended = self.ended;
        let unsent = match (&mut self.pipe, inbox) {
            (Pipe::Lent { kept }, inbox) => inbox.map_or(0, |i| i.payload_len() - *kept as usize),
            (Pipe::Own(own), inbox) => {
                own.run(inbox, pages, ended);
                (own.end - own.start) as usize
            }
        };
        let last = self.is_last();
        if let Sink::Chunked(w) = &mut self.sink {
            w.open(unsent as u64);
            if last && !self.framed {
                self.framed = true;
                w.finish(self.trailers.len() as u32);
            }
        }
    }

    /// Whether payload goes out as it is.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.sink, Sink::Plain)
    }

    /// Head and payload to send now.
    #[inline(always)]
    pub(crate) fn plain_slices<'a>(
        &'a self,
        own: &'a [u8],
        inbox: Option<&'a Inbox>,
        pages: &'a Pages,
    ) -> [&'a [u8]; 2] {
        let head = if self.head_sent == self.head_len {
            &[]
        } else {
            &self.head.as_ref().map_or(own, |p| pages.bytes(p))
                [self.head_sent as usize..self.head_len as usize]
        };
        let payload: &[u8] = match (&self.pipe, inbox) {
            (Pipe::Lent { kept }, Some(Inbox { page: Some(page), pay, .. })) if pay.0 + kept < pay.1 => {
                &pages.bytes(page)[(pay.0 + kept) as usize..pay.1 as usize]
            }
            (Pipe::Own(o), _) => &pages.bytes(&o.page)[o.start as usize..o.end as usize],
            _ => &[],
        };
        [head, payload]
    }

    /// What to send now, in order.
    pub(crate) fn slices<'a>(
        &'a self,
        own: &'a [u8],
        inbox: Option<&'a Inbox>,
        pages: &'a Pages,
    ) -> [&'a [u8]; 5] {
        let [head, payload] = self.plain_slices(own, inbox, pages);
        match &self.sink {
            Sink::Plain => [head, payload, &[], &[], &[]],
            Sink::Chunked(w) => {
                let [a, b, c, d] = w.slices(payload, &self.trailers);
                [head, a, b, c, d]
            }
        }
    }

    /// A short and complete payload joins its head, if none of either has gone: one piece is cheaper to send
    /// than two. Returns its length.
    pub(crate) fn join(&mut self, inbox: &mut Inbox, pages: &mut Pages) -> usize {
        let len = inbox.payload_len();
        let (Some(head), Sink::Plain, Pipe::Lent { kept: 0 }, true, 0) =
            (&self.head, &self.sink, &self.pipe, self.ended, self.head_sent)
        else {
            return 0;
        };
        let end = self.head_len as usize + len;
        if len == 0 || len > JOINED_BYTES || end > Pages::size(head) {
            return 0;
        }
        let from = inbox.page.as_ref().expect("payload lies in a page");
        let source = pages.detach(from);
        pages.bytes_mut(head)[self.head_len as usize..end]
            .copy_from_slice(&source[inbox.pay.0 as usize..inbox.pay.1 as usize]);
        pages.restore(from, source);
        self.head_len = end as u32;
        inbox.release(len);
        len
    }

    /// Whether there is a head and nothing else, now and later: no payload to frame, to keep or to let go of.
    #[inline]
    pub(crate) fn is_bare(&self, inbox: &Inbox) -> bool {
        self.ended
            && inbox.payload_len() == 0
            && matches!((&self.pipe, &self.sink), (Pipe::Lent { .. }, Sink::Plain))
    }

    /// Whether there is anything to send.
    pub(crate) fn has_output(&self, inbox: Option<&Inbox>) -> bool {
        self.head_sent < self.head_len
            || match &self.sink {
                Sink::Plain => self.unsent(inbox) > 0,
                Sink::Chunked(w) => w.is_pending(),
            }
    }

    /// `n` bytes of [`Flow::slices`] have gone; returns how many of them were payload.
    #[inline]
    pub(crate) fn sent(&mut self, n: usize) -> usize {
        let of_head = n.min((self.head_len - self.head_sent) as usize);
        self.head_sent += of_head as u32;
        let n = n - of_head;
        let payload = match &mut self.sink {
            Sink::Plain => n,
            Sink::Chunked(w) if n > 0 => w.sent(n),
            Sink::Chunked(_) => 0,
        };
        match &mut self.pipe {
            Pipe::Lent { kept } => *kept += payload as u32,
            Pipe::Own(own) => own.start += payload as u32,
        }
        payload
    }

    /// What has been sent is needed no more.
    pub(crate) fn release(&mut self, inbox: &mut Inbox) {
        if let Pipe::Lent { kept } = &mut self.pipe {
            inbox.release(*kept as usize);
            *kept = 0;
        }
    }

    /// Everything that came has gone, and nothing comes any more.
    pub(crate) fn is_done(&self, inbox: Option<&Inbox>) -> bool {
        self.head_sent == self.head_len
            && self.is_last()
            && match &self.sink {
                Sink::Plain => self.unsent(inbox) == 0,
                Sink::Chunked(w) => w.is_done(),
            }
    }

    /// Gives back the page of the head, once it is needed no more.
    #[inline(always)]
    pub(crate) fn drop_head(&mut self, pages: &mut Pages) {
        if let Some(page) = self.head.take() {
            pages.give_back(page);
        }
        (self.head_len, self.head_sent) = (0, 0);
    }

    /// Gives back every page of its own.
    #[inline]
    pub(crate) fn drop_pages(&mut self, pages: &mut Pages) {
        self.drop_head(pages);
        match &mut self.pipe {
            Pipe::Lent { kept } => *kept = 0,
            Pipe::Own(_) => self.drop_own(pages),
        }
    }

    #[cold]
    fn drop_own(&mut self, pages: &mut Pages) {
        if let Pipe::Own(own) = std::mem::replace(&mut self.pipe, Pipe::Lent { kept: 0 }) {
            pages.give_back(own.page);
        }
    }

    /// Pages of its own.
    pub(crate) fn pages(&self) -> usize {
        usize::from(self.head.is_some()) + usize::from(matches!(self.pipe, Pipe::Own(_)))
    }
}

impl Own {
    fn run(&mut self, inbox: Option<&mut Inbox>, pages: &mut Pages, ended: bool) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.done || self.end as usize == Pages::size(&self.page) {
            return;
        }
        let mut out = pages.detach(&self.page);
        let mut none = Inbox::default();
        let inbox = inbox.unwrap_or(&mut none);
        loop {
            let input: &[u8] = match &inbox.page {
                Some(page) => &pages.bytes(page)[inbox.pay.0 as usize..inbox.pay.1 as usize],
                None => &[],
            };
            let did = self.transform.run(input, &mut out[self.end as usize..], ended);
            inbox.release(did.taken);
            self.end += did.put as u32;
            self.done = did.done;
            if did.done || (did.taken == 0 && did.put == 0) || self.end as usize == out.len() {
                break;
            }
        }
        pages.restore(&self.page, out);
    }
}
