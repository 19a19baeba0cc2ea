//! What a socket speaks. To the rest of the core a connection is legs of exchanges: heads, data, ends and
//! resets come from them and go to them, and how that is framed is the wire's business alone.
//!
//! HTTP/1.1 has one leg at a time; a tunnel is what becomes of it after a 101. A wire that carries many
//! streams at once implements [`Multiplexed`].

use std::fmt::Debug;
use std::time::Duration;

use crate::buffer::ReceiveBuffer;
use crate::h1::conn::Conn as H1;
use crate::h1::rendered_heads::RenderedHeads;
use crate::h2::Reason;
use crate::h2::keepalive::{Keepalive, Patience};
use crate::h2::priority::Priority;
use crate::h2::schedule::Schedule;
use crate::http::forward::{RequestForward, ResponseForward};
use crate::http::{RequestHead, ResponseHead};
use crate::id::ExchangeId;
use crate::page::Pages;
use crate::time::Instant;

mod http2;

pub use crate::h2::{Event as StreamEvent, Received};
pub(crate) use http2::{check as http2_check, client as http2_client, server as http2_server};

/// The protocol of one connection, and all that it has to remember.
#[derive(Debug)]
pub(crate) enum Wire {
    /// HTTP/1.1 (RFC 9112).
    H1(H1),
    /// Bytes just pass, after a 101.
    Tunnel(Tunnel),
    /// Many streams.
    Multiplexed(Streams),
}

/// A connection after its upgrade.
#[derive(Debug, Default)]
pub(crate) struct Tunnel {
    buffer: ReceiveBuffer,
    /// The head of the 101, as long as it has not been sent.
    heads: RenderedHeads,
    /// The sending half has been shut down.
    pub(crate) shut: bool,
}

/// A connection of many streams, and whose they are.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) protocol: Box<dyn Multiplexed>,
    /// Which exchange each open stream serves, by stream: they are opened in the order of their ids.
    pub(crate) exchanges: Vec<(u32, ExchangeId)>,
    /// Every stream is through, but not all of what they had to say has been sent.
    pub(crate) flushing: bool,
    /// Streams that have more to send than was taken.
    pub(crate) schedule: Box<Schedule>,
    /// Bytes that it holds, as the pages know of them.
    pub(crate) charged: usize,
    /// Whether the peer still answers.
    pub(crate) keepalive: Box<Keepalive>,
    /// Streams that a backend has last been seen to take; it may have said more.
    pub(crate) most: u32,
    /// Of a connection to a backend.
    pub(crate) life: Option<Box<Life>>,
}

/// How long a connection of many streams to a backend is kept.
#[derive(Debug)]
pub(crate) struct Life {
    /// Since when it carries no stream.
    pub(crate) idle_since: Instant,
    /// How long it may lie idle, as the pool says that used it last.
    pub(crate) idle_timeout: Duration,
    /// What the backend takes is known.
    pub(crate) announced: bool,
}

/// A protocol that carries many streams over one connection.
///
/// It owns its buffers. Bytes go in by [`Multiplexed::recv_buf`] and [`Multiplexed::handle_recv`] and become
/// events; what is sent to streams becomes bytes of [`Multiplexed::transmit`]. It keeps the flow control of
/// each stream: it never hands out more data of a stream than [`STREAM_CREDIT`] that has not been given back
/// by [`Multiplexed::release`], and takes only what the peer has room for.
pub trait Multiplexed: Debug + Send {
    /// Room to read into; empty: do not read now.
    fn recv_buf(&mut self) -> &mut [u8];
    /// Whether there is room to read into.
    fn has_room(&self) -> bool;
    /// Before it reads: takes memory that others have left in `received`, if it has none.
    fn wake(&mut self, _received: &mut Received) {}
    /// If it has nothing to do it leaves its memory there.
    fn rest(&mut self, _received: &mut Received) {}
    /// `n` bytes were read into it.
    fn handle_recv(&mut self, n: usize);
    /// The next thing that came; heads and trailers are in `received` then.
    fn poll_event(&mut self, received: &mut Received, now: Instant) -> Option<StreamEvent>;
    /// Whether there are events that wait for no input.
    fn has_events(&self) -> bool {
        false
    }
    /// The data of the last event.
    fn data(&self) -> &[u8];
    /// Opens a stream to the peer, unless it has as many as it takes.
    fn open(&mut self) -> Option<u32>;
    /// Sends the head of a request. False if the stream takes none any more.
    fn send_request(&mut self, stream: u32, head: &RequestHead, forward: &RequestForward<'_>) -> bool;
    /// Sends an interim response (1xx). False if the stream takes none any more.
    fn send_interim(&mut self, stream: u32, head: &ResponseHead) -> bool;
    /// Sends the head of a final response. False if the stream takes none any more.
    fn send_response(&mut self, stream: u32, head: &ResponseHead, forward: &ResponseForward<'_>) -> bool;
    /// Sends as much of the data as the peer and the send buffer have room for; returns how much that was.
    fn send_data(&mut self, stream: u32, data: &[u8]) -> usize;
    /// The message is complete; `trailers` are field lines with an empty line at the end, or nothing.
    fn send_end(&mut self, stream: u32, trailers: &[u8]);
    /// Ends a stream at once, in both directions.
    fn reset(&mut self, stream: u32, reason: Reason);
    /// Data of a stream has been sent on: the peer may send as much again.
    fn release(&mut self, stream: u32, bytes: usize);
    /// A stream could take data now: flow control is no hindrance.
    fn can_send(&self, stream: u32) -> bool;
    /// Bytes that the peer may send on a stream, as far as it has been told; 0: on all of them together.
    fn credit(&self, _stream: u32) -> u32 {
        u32::MAX
    }
    /// Data of a stream is under way that the peer needs no more credit for.
    fn is_receiving(&self, _stream: u32) -> bool {
        false
    }
    /// Bytes that it holds beyond what it may hand out: they are memory of its own.
    fn held_bytes(&self) -> usize {
        0
    }
    /// The stream that holds most of them.
    fn holds_most(&self) -> Option<u32> {
        None
    }
    /// Its invariants; for tests and debug builds.
    fn check(&self) {}
    /// Asks the peer to show that it is there: by anything that it sends.
    fn ping(&mut self) {}
    /// Which of the streams that can send comes first.
    fn priority(&self, _stream: u32) -> Priority {
        Priority::UNSAID
    }
    /// What is to be sent.
    fn transmit(&self) -> &[u8];
    /// How much that is, in bytes.
    fn pending_bytes(&self) -> usize;
    /// Whether there is anything to send.
    fn has_output(&self) -> bool {
        self.pending_bytes() > 0
    }
    /// `n` bytes of it have been sent.
    fn handle_sent(&mut self, n: usize);
    /// The peer is told that no new streams are taken; those that are open go on.
    fn drain(&mut self) {}
    /// The peer knows that, and no stream is left.
    fn is_drained(&self) -> bool {
        false
    }
    /// No new streams are taken, and the peer has been told so, or the other way round.
    fn is_leaving(&self) -> bool {
        false
    }
    /// It is of no use any more: the peer is told why, and nothing more is read.
    fn give_up(&mut self, _reason: Reason) {}
    /// It is of no use any more. What is left to be sent says why.
    fn is_broken(&self) -> bool {
        false
    }
    /// It is of no use because the peer speaks another protocol.
    fn is_foreign(&self) -> bool {
        false
    }
    /// How many streams the peer takes at once, if it has said what it takes.
    fn peer_streams(&self) -> Option<u32> {
        Some(u32::MAX)
    }
    /// Whether the peer takes requests for WebSockets, if it has said what it takes.
    fn takes_websockets(&self) -> Option<bool> {
        Some(false)
    }
    /// The peer has acknowledged what we told it first.
    fn is_settled(&self) -> bool {
        true
    }
}

/// So many bytes of a connection of many streams are not kept back: they fill a record of TLS.
const WRITE_BYTES: usize = 16 * 1024;

/// Bytes of a stream that may be under way to the core at once; they fit into one page.
pub const STREAM_CREDIT: usize = crate::h2::conn::STREAM_CREDIT as usize;

impl Wire {
    /// HTTP/1.1, or nothing if it is another wire.
    #[inline]
    pub(crate) fn h1(&self) -> Option<&H1> {
        match self {
            Self::H1(h1) => Some(h1),
            _ => None,
        }
    }

    /// The streams, if it carries many.
    pub(crate) fn streams_mut(&mut self) -> Option<&mut Streams> {
        match self {
            Self::Multiplexed(streams) => Some(streams),
            _ => None,
        }
    }

    /// The streams, if it carries many.
    pub(crate) fn streams(&self) -> Option<&Streams> {
        match self {
            Self::Multiplexed(streams) => Some(streams),
            _ => None,
        }
    }

    /// What has been received and is still needed; a wire of many streams has buffers of its own.
    #[inline]
    fn buffer(&self) -> Option<&ReceiveBuffer> {
        match self {
            Self::H1(h1) => Some(h1.buffer()),
            Self::Tunnel(tunnel) => Some(&tunnel.buffer),
            Self::Multiplexed(_) => None,
        }
    }

    #[inline]
    fn buffer_mut(&mut self) -> Option<&mut ReceiveBuffer> {
        match self {
            Self::H1(h1) => Some(h1.buffer_mut()),
            Self::Tunnel(tunnel) => Some(&mut tunnel.buffer),
            Self::Multiplexed(_) => None,
        }
    }

    /// Payload of the one leg that this wire has, received and not yet released.
    #[inline]
    pub(crate) fn payload<'a>(&self, pages: &'a Pages) -> &'a [u8] {
        self.buffer().map_or(&[], |buffer| buffer.payload(pages))
    }

    /// How much of it there is, in bytes.
    #[inline]
    pub(crate) fn payload_len(&self) -> usize {
        self.buffer().map_or(0, ReceiveBuffer::payload_len)
    }

    /// The first `n` bytes of the payload are needed no more.
    #[inline]
    pub(crate) fn release(&mut self, n: usize) {
        if let Some(buffer) = self.buffer_mut() {
            buffer.release(n);
        }
    }

    /// Drops the payload: nobody will read it.
    pub(crate) fn drop_payload(&mut self) {
        if let Some(buffer) = self.buffer_mut() {
            buffer.drop_payload();
        }
    }

    /// Bytes that have been received and not yet been understood.
    #[inline]
    pub(crate) fn unparsed_len(&self) -> usize {
        self.buffer().map_or(0, ReceiveBuffer::unparsed_len)
    }

    /// Nothing that has been received is needed any more.
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.buffer().is_none_or(ReceiveBuffer::is_empty)
    }

    /// Whether more could be read.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::H1(h1) => h1.buffer().has_room(),
            Self::Tunnel(tunnel) => tunnel.buffer.has_room(),
            Self::Multiplexed(streams) => streams.protocol.has_room(),
        }
    }

    /// It needs a page to read into and has none.
    #[inline]
    pub(crate) fn needs_page(&self) -> bool {
        self.buffer().is_some_and(|buffer| !buffer.has_page())
    }

    /// Takes a page to read into.
    #[inline]
    pub(crate) fn give_page(&mut self, page: crate::page::PageId, pages: &mut Pages) {
        match self.buffer_mut() {
            Some(buffer) => buffer.set_page(page),
            None => pages.give_back(page),
        }
    }

    /// Room to read into.
    #[inline]
    pub(crate) fn room<'a>(&'a mut self, pages: &'a mut Pages, received: &mut Received) -> &'a mut [u8] {
        match self {
            Self::H1(h1) => h1.buffer_mut().room(pages),
            Self::Tunnel(tunnel) => tunnel.buffer.room(pages),
            Self::Multiplexed(streams) => {
                streams.protocol.wake(received);
                streams.protocol.recv_buf()
            }
        }
    }

    /// `n` bytes were read into the room.
    #[inline]
    pub(crate) fn received(&mut self, n: usize) {
        match self {
            Self::H1(h1) => h1.buffer_mut().received(n),
            Self::Tunnel(tunnel) => tunnel.buffer.received(n),
            Self::Multiplexed(streams) => streams.protocol.handle_recv(n),
        }
    }

    /// Gives back the page that has been read into, if nothing in it is needed.
    #[inline]
    pub(crate) fn trim(&mut self, pages: &mut Pages) {
        if let Some(buffer) = self.buffer_mut() {
            buffer.trim(pages);
        }
    }

    /// Forgets what has been received.
    #[inline]
    pub(crate) fn drop_received(&mut self, pages: &mut Pages) {
        if let Some(buffer) = self.buffer_mut() {
            buffer.clear(pages);
        }
    }

    /// Gives back every page. A wire of many streams is of no use any more.
    #[inline]
    pub(crate) fn clear(&mut self, pages: &mut Pages) {
        match self {
            Self::H1(h1) => h1.clear(pages),
            Self::Tunnel(tunnel) => {
                tunnel.buffer.clear(pages);
                tunnel.heads.clear(pages);
            }
            Self::Multiplexed(streams) => {
                pages.recount_outside(std::mem::take(&mut streams.charged), 0);
            }
        }
    }

    /// Pages that it holds.
    pub(crate) fn pages(&self) -> usize {
        match self {
            Self::H1(h1) => h1.pages(),
            Self::Tunnel(tunnel) => tunnel.buffer.pages() + tunnel.heads.pages(),
            Self::Multiplexed(_) => 0,
        }
    }

    /// After a 101 has been read or written on it: bytes just pass from now on.
    pub(crate) fn switch(&mut self) {
        if let Self::H1(h1) = self {
            let (mut buffer, heads) = h1.take_for_tunnel();
            // What came behind the head is the tunnel's already.
            let n = buffer.unparsed_len();
            if n > 0 {
                buffer.drop_payload();
                buffer.decoded(n, n);
            }
            *self = Self::Tunnel(Tunnel { buffer, heads, shut: false });
        }
    }

    /// What to send on it now; `payload` is what lies ready for its one leg, with these trailers behind it.
    #[inline]
    pub(crate) fn slices<'a>(
        &'a self,
        payload: &'a [u8],
        trailers: &'a [u8],
        pages: &'a Pages,
    ) -> [&'a [u8]; 5] {
        match self {
            Self::H1(h1) => h1.slices(payload, trailers, pages),
            Self::Tunnel(tunnel) => [tunnel.heads.pending(pages), payload, &[], &[], &[]],
            Self::Multiplexed(streams) => [streams.protocol.transmit(), &[], &[], &[], &[]],
        }
    }

    /// Whether there is anything to send. `ready`: bytes that lie ready for its one leg.
    #[inline]
    pub(crate) fn has_output(&self, ready: usize) -> bool {
        match self {
            Self::H1(h1) => h1.has_output(ready),
            Self::Tunnel(tunnel) => ready > 0 || !tunnel.heads.is_done(),
            Self::Multiplexed(streams) => streams.protocol.has_output(),
        }
    }

    /// More may come to what is to be sent before it is worth a write.
    #[inline]
    pub(crate) fn gathers(&self) -> bool {
        match self {
            Self::H1(_) | Self::Tunnel(_) => false,
            Self::Multiplexed(streams) => streams.protocol.pending_bytes() < WRITE_BYTES,
        }
    }

    /// `n` bytes have been sent; returns how many of them were payload of its one leg.
    #[inline]
    pub(crate) fn sent(&mut self, n: usize) -> usize {
        match self {
            Self::H1(h1) => h1.sent(n),
            Self::Tunnel(tunnel) => tunnel.heads.advance(n),
            Self::Multiplexed(streams) => {
                streams.protocol.handle_sent(n);
                0
            }
        }
    }

    /// Whether the message to its one leg has been sent whole. `ready`: bytes that lie ready, `last`: there
    /// will be no more.
    #[inline]
    pub(crate) fn is_message_sent(&self, ready: usize, last: bool) -> bool {
        match self {
            Self::H1(h1) => h1.is_message_sent(ready, last),
            Self::Tunnel(tunnel) => last && ready == 0 && tunnel.heads.is_done(),
            // Streams are told of their end when all before it has been taken.
            Self::Multiplexed(_) => false,
        }
    }

    /// What comes from now on is read and dropped.
    pub(crate) fn deafen(&mut self, pages: &mut Pages) {
        self.clear(pages);
        if matches!(self, Self::Multiplexed(_)) {
            *self = Self::Tunnel(Tunnel::default());
        }
    }

    /// Its invariants; for tests and debug builds.
    pub(crate) fn check(&self) {
        if let Some(buffer) = self.buffer() {
            buffer.check();
        }
        if let Some(streams) = self.streams() {
            streams.protocol.check();
        }
    }
}

impl Tunnel {
    /// What has been received is payload; returns how much is new.
    pub(crate) fn receive(&mut self) -> usize {
        let n = self.buffer.unparsed_len();
        if n > 0 {
            self.buffer.decoded(n, n);
        }
        n
    }

    /// The heads have been sent; their page is needed no more.
    pub(crate) fn drop_sent_heads(&mut self, pages: &mut Pages) {
        if self.heads.is_done() {
            self.heads.clear(pages);
        }
    }
}

impl Streams {
    /// Of a connection to a backend that is opened now, and asked after so long a silence.
    pub(crate) fn to_backend(
        protocol: Box<dyn Multiplexed>,
        keepalive: Duration,
        idle_timeout: Duration,
        now: Instant,
    ) -> Self {
        let life = Some(Box::new(Life { idle_since: now, idle_timeout, announced: false }));
        Self { life, ..Self::new(protocol, Patience::with_backend(keepalive), now) }
    }

    /// Opens a stream, unless the peer has as many as it takes. `expected`: how many that will be, as long as
    /// it has said nothing: it says so too late for those who wait for it.
    pub(crate) fn open(&mut self, expected: u32) -> Option<u32> {
        let said = self.protocol.peer_streams().is_some();
        let most = if said { self.most } else { self.most.min(expected) };
        if self.exchanges.len() >= most as usize { None } else { self.protocol.open() }
    }

    /// Whether it is known from now on, and was not before, what the peer takes.
    pub(crate) fn has_announced(&mut self) -> bool {
        let Some(life) = self.life.as_mut().filter(|life| !life.announced) else { return false };
        life.announced = self.protocol.peer_streams().is_some();
        life.announced
    }

    /// The peer has refused a stream, which serves no exchange any more: it has as many as it takes.
    pub(crate) fn refused(&mut self) {
        self.most = self.most.min(self.exchanges.len() as u32);
    }

    /// A stream has ended well: the peer may take one more than before.
    pub(crate) fn served(&mut self) {
        self.most = self.most.saturating_add(1);
    }

    pub(crate) fn new(protocol: Box<dyn Multiplexed>, patience: Patience, now: Instant) -> Self {
        Self {
            protocol,
            exchanges: Vec::new(),
            flushing: false,
            schedule: Box::default(),
            charged: 0,
            keepalive: Box::new(Keepalive::new(patience, now)),
            most: u32::MAX,
            life: None,
        }
    }

    /// The peer may send on a stream: it has credit, there and in all, or is in the middle of a frame.
    pub(crate) fn may_receive(&self, stream: u32) -> bool {
        (self.protocol.is_receiving(stream) && !crate::planted::planted!(185))
            || self.protocol.credit(0).min(self.protocol.credit(stream)) > 0
    }

    /// The exchange of a stream.
    pub(crate) fn exchange(&self, stream: u32) -> Option<ExchangeId> {
        let place = self.exchanges.binary_search_by_key(&stream, |(open, _)| *open).ok()?;
        Some(self.exchanges[place].1)
    }

    /// A stream serves no exchange any more.
    pub(crate) fn forget(&mut self, stream: u32) {
        if let Ok(place) = self.exchanges.binary_search_by_key(&stream, |(open, _)| *open) {
            self.exchanges.remove(place);
        }
        self.schedule.remove(stream);
    }

    /// Sends as much of `data` as there is room for; returns how much that was. A stream that is left with
    /// some waits for its turn. `ends`: nothing comes behind the data.
    pub(crate) fn send_data(&mut self, stream: u32, data: &[u8], ends: bool) -> usize {
        let taken = self.protocol.send_data(stream, data);
        if taken == data.len() {
            self.schedule.remove(stream);
        } else {
            let rest = ends.then_some(data.len() - taken);
            self.schedule.wait(stream, self.protocol.priority(stream), rest);
        }
        taken
    }

    /// The stream that is to send next what has waited.
    pub(crate) fn next_waiting(&mut self) -> Option<u32> {
        let Self { protocol, schedule, .. } = self;
        schedule.next(|stream| protocol.can_send(stream))
    }
}
