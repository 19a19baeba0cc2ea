//! Connections between the proxy and its peers: two byte streams with a window and a delay, reported to the
//! proxy by edges, as epoll does. What is sent is decided elsewhere.

use std::collections::VecDeque;
use std::rc::Rc;

use ruststrom_core::ConnId;
use ruststrom_driver::event::Readiness;

use super::peer_tls::PeerTls;
use super::stream_log::StreamLog;
use super::tap::RequestTap;
use super::{Net, SimEvent};
use crate::tls::SessionStatus;

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct ByteStream {
    /// Written and not yet read.
    pub(super) bytes: VecDeque<u8>,
    /// How many of them have arrived.
    pub(crate) arrived: usize,
    /// When the newest of them arrives: what is written later does not arrive before.
    pub(super) last_at: u64,
    /// The writer has ended it or reset the connection; nothing more is written.
    pub(crate) ended: bool,
    /// The end has arrived at the reader.
    pub(crate) fin: bool,
    /// Reset or closed: what is under way is lost.
    pub(super) dead: bool,
    /// Bytes that the reader has read, and the writer has written, as those above TLS count them.
    pub(crate) read_total: u64,
    pub(crate) written_total: u64,
}

impl ByteStream {
    /// Removes the first `n` bytes, and gives them to `each` in at most two slices. Who reads them counts
    /// them.
    pub(super) fn take(&mut self, n: usize, mut each: impl FnMut(&[u8])) {
        let (a, b) = self.bytes.as_slices();
        let of_a = n.min(a.len());
        each(&a[..of_a]);
        each(&b[..n - of_a]);
        self.bytes.drain(..n);
        self.arrived -= n;
    }
}

/// Who is at the other end of a connection of the proxy, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Client(usize),
    Backend(usize),
}

/// A connection between the proxy and a peer, with the state of both ends.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) shard: usize,
    pub(crate) conn: ConnId,
    pub(crate) peer: Peer,
    pub(crate) to_proxy: ByteStream,
    pub(crate) from_proxy: ByteStream,
    /// The proxy has not closed its end.
    pub(crate) open: bool,
    /// The peer has not closed its end.
    pub(crate) peer_open: bool,
    /// The backend has neither accepted nor refused it yet.
    pub(crate) connecting: bool,
    /// A reset has arrived at the peer.
    pub(crate) peer_got_reset: bool,
    /// The poller of the proxy will report it at the next turn.
    pub(super) queued: bool,
    /// The proxy's last write did not fit: room has to be reported.
    pub(crate) write_blocked: bool,
    /// The `errno` that the proxy has not been given yet.
    pub(super) error: Option<i32>,
    /// Reset, or never connected.
    pub(crate) broken: bool,
    /// The proxy knows that the peer sends no more: a short read is not the last one.
    pub(super) read_closed: bool,
    /// When the peer's next turn is due.
    pub(super) peer_wake_at: u64,
    /// Each write of the proxy, as (bytes before it, time).
    pub(crate) writes: Vec<(u64, u64)>,
    /// Each read of the proxy, as (bytes before it, time).
    pub(crate) reads: Vec<(u64, u64)>,
    /// When what happened to it: for the judges.
    pub(crate) times: SocketTimes,
    /// Of a connection to a backend: it is a health probe.
    pub(crate) probe: bool,
    /// The status that a backend gives to a probe, and how many bytes its head has.
    pub(crate) probe_reply: Option<(u16, u64)>,
    /// Of a connection to a backend: the requests on it, by their numbers in `Net::sendings`.
    pub(crate) sendings: Vec<usize>,
    /// Of a connection to a backend that speaks HTTP/2.
    pub(crate) streams: Option<Box<StreamLog>>,
    /// Of a connection to a backend: the client that has authenticated it.
    pub(crate) owner: Option<usize>,
    /// Of a connection to a backend: what the proxy has written, as requests.
    pub(crate) tap: RequestTap,
    /// Opened although the backend was known to be unhealthy: fine for a probe only.
    pub(crate) suspect: bool,
    /// The proxy speaks TLS on it.
    pub(crate) secure: bool,
    /// What its peer speaks TLS with.
    pub(crate) tls: Option<Box<PeerTls>>,
    /// The proxy's session.
    pub(crate) session: Option<Rc<SessionStatus>>,
    /// With TLS: its event loop knows that it has something to write, and no room.
    pub(crate) send_blocked: bool,
    /// The proxy closed it while a write would have blocked.
    pub(crate) closed_blocked: bool,
    /// Its peer has ended the stream without saying so: with TLS that is no end.
    pub(crate) cut: bool,
    /// Causes that what its peer did wrong with TLS gives reason for.
    pub(crate) blame: Vec<&'static str>,
    /// For a client: how much the proxy had read of it at each reload of its shard, and the new version.
    pub(crate) read_at_reload: Vec<(u64, usize)>,
}

/// When what happened to a connection; `None`: it did not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketTimes {
    /// The proxy accepted it, or began to connect.
    pub(crate) opened: u64,
    /// The backend took it.
    pub(crate) connected: Option<u64>,
    /// With TLS: the proxy knows that the handshake is over.
    pub(crate) secured: Option<u64>,
    /// With TLS: the proxy knows that the handshake has failed.
    pub(crate) unsecured: Option<u64>,
    /// It could not be connected, for this `errno`.
    pub(crate) failed: Option<(u64, i32)>,
    /// The peer's end of its stream reached the proxy.
    pub(crate) fin: Option<u64>,
    /// A reset reached the proxy.
    pub(crate) reset: Option<u64>,
    /// The proxy closed it.
    pub(crate) closed: Option<u64>,
    /// A backend began to send what violates HTTP, or what nobody asked for.
    pub(crate) violated: Option<u64>,
}

/// Stands for the id of a connection that the proxy has not accepted yet.
const NOT_ACCEPTED: ConnId = ConnId { slot: u32::MAX, epoch: u32::MAX };

/// What a peer finds when it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerRead {
    Bytes,
    WouldBlock,
    End,
    Reset,
}

impl SocketTimes {
    /// When requests could be sent on a connection to a backend.
    pub(crate) fn established(&self, secure: bool) -> Option<u64> {
        if secure { self.secured } else { self.connected }
    }
}

impl Net {
    /// How many bytes a writer may add to a stream.
    pub(super) fn space(&self, stream: &ByteStream) -> usize {
        (self.scenario.sockets.window as usize).saturating_sub(stream.bytes.len())
    }

    /// Whether nothing is under way on a connection, in either direction.
    pub(crate) fn is_quiet(&self, socket: usize) -> bool {
        let s = &self.sockets[socket];
        s.to_proxy.bytes.is_empty() && s.from_proxy.bytes.is_empty() && !s.write_blocked && !s.secure
    }

    /// Whether the poller would say that the proxy may write.
    pub(crate) fn is_writable(&self, s: &Socket) -> bool {
        self.space(&s.from_proxy) * 3 >= self.scenario.sockets.window as usize
    }

    /// Opens a connection that has an id of the core: accepted, or being made to a backend.
    pub(crate) fn insert(&mut self, shard: usize, conn: ConnId, peer: Peer, connecting: bool) -> usize {
        let socket = self.open_socket(peer, connecting);
        self.adopt(socket, shard, conn);
        socket
    }

    /// Opens a connection that the proxy has not accepted yet: what arrives meanwhile waits.
    pub(crate) fn open_socket(&mut self, peer: Peer, connecting: bool) -> usize {
        let socket = self.sockets.len();
        self.sockets.push(Socket {
            shard: 0,
            conn: NOT_ACCEPTED,
            peer,
            to_proxy: ByteStream::default(),
            from_proxy: ByteStream::default(),
            open: true,
            peer_open: true,
            connecting,
            peer_got_reset: false,
            queued: false,
            write_blocked: false,
            error: None,
            broken: false,
            read_closed: false,
            peer_wake_at: u64::MAX,
            writes: Vec::new(),
            reads: Vec::new(),
            times: SocketTimes { opened: self.now, ..SocketTimes::default() },
            probe: false,
            probe_reply: None,
            sendings: Vec::new(),
            streams: None,
            owner: None,
            tap: RequestTap::default(),
            suspect: false,
            secure: false,
            tls: None,
            session: None,
            send_blocked: false,
            closed_blocked: false,
            cut: false,
            blame: Vec::new(),
            read_at_reload: Vec::new(),
        });
        socket
    }

    /// The proxy has accepted a connection: its socket gets the core's id.
    pub(crate) fn adopt(&mut self, socket: usize, shard: usize, conn: ConnId) {
        (self.sockets[socket].shard, self.sockets[socket].conn) = (shard, conn);
        let table = &mut self.by_slot[shard];
        if table.len() <= conn.slot as usize {
            table.resize(conn.slot as usize + 1, None);
        }
        if let Some(old) = table[conn.slot as usize].replace(socket)
            && self.sockets[old].open
        {
            self.ledger.fail("slot-reused-while-open", format!("{conn:?} of shard {shard}"));
        }
        self.open_sockets[shard] += 1;
        self.open_by_shard[shard].push(socket);
    }

    /// The socket of a connection, unless the id is stale.
    pub(crate) fn socket_of(&self, shard: usize, c: ConnId) -> Option<usize> {
        let socket = (*self.by_slot[shard].get(c.slot as usize)?)?;
        (self.sockets[socket].conn == c && self.sockets[socket].open).then_some(socket)
    }

    /// The readiness of a socket may have changed: the proxy's poller reports it at its next turn.
    pub(crate) fn edge(&mut self, socket: usize) {
        let s = &mut self.sockets[socket];
        if s.open && !s.connecting && !s.queued && s.conn != NOT_ACCEPTED {
            s.queued = true;
            let shard = s.shard;
            self.ready[shard].push(socket);
            let latency = self.rng.below(20_000);
            self.wake(shard, self.now + latency);
        }
    }

    /// What the poller reports of a socket now.
    pub(crate) fn readiness(&mut self, socket: usize) -> Readiness {
        let window = self.scenario.sockets.window as usize;
        let s = &mut self.sockets[socket];
        s.queued = false;
        s.read_closed |= s.to_proxy.fin || s.broken;
        let space = window.saturating_sub(s.from_proxy.bytes.len());
        Readiness {
            readable: s.to_proxy.arrived > 0 || s.to_proxy.fin || s.broken,
            writable: s.broken || space * 3 >= window,
            closed: s.to_proxy.fin || s.broken,
            error: s.error.is_some(),
        }
    }

    /// Puts the first `n` bytes of some slices under way: they arrive after a delay, in one piece or two.
    pub(super) fn send_bytes<'a>(
        &mut self,
        socket: usize,
        to_proxy: bool,
        slices: impl Iterator<Item = &'a [u8]>,
        n: usize,
    ) {
        let delay = self.delay();
        let whole = n <= 1 || to_proxy && self.scenario.sockets.whole || self.rng.below(6) > 0;
        let split = if whole { n } else { 1 + self.rng.below(n as u64 - 1) as usize };
        let again = self.delay();
        let now = self.now;
        let stream =
            if to_proxy { &mut self.sockets[socket].to_proxy } else { &mut self.sockets[socket].from_proxy };
        let mut left = n;
        for slice in slices {
            let these = slice.len().min(left);
            stream.bytes.extend(&slice[..these]);
            left -= these;
        }
        let first = (now + delay).max(stream.last_at);
        let second = first + again;
        stream.last_at = if split < n { second } else { first };
        self.schedule(first, SimEvent::Arrive { socket, to_proxy, n: split });
        if split < n {
            self.schedule(second, SimEvent::Arrive { socket, to_proxy, n: n - split });
        }
    }

    /// Puts the end of a stream, or a reset, under way.
    pub(super) fn send_end(&mut self, socket: usize, to_proxy: bool, event: SimEvent) {
        let delay = self.delay();
        let now = self.now;
        let stream =
            if to_proxy { &mut self.sockets[socket].to_proxy } else { &mut self.sockets[socket].from_proxy };
        stream.ended = true;
        stream.last_at = (now + delay).max(stream.last_at + 1);
        let at = stream.last_at;
        self.schedule(at, event);
    }

    /// Bytes, an end or a reset has arrived.
    pub(crate) fn arrive(&mut self, socket: usize, to_proxy: bool, event: &SimEvent) {
        let s = &mut self.sockets[socket];
        let (open, stream) =
            if to_proxy { (s.open, &mut s.to_proxy) } else { (s.peer_open, &mut s.from_proxy) };
        match event {
            SimEvent::Arrive { n, .. } if !stream.dead => {
                if open {
                    stream.arrived += n;
                } else {
                    stream.bytes.drain(..(*n).min(stream.bytes.len()));
                    // The receiver is gone: its kernel resets the connection.
                    return self.send_end(socket, !to_proxy, SimEvent::Rst { socket, to_proxy: !to_proxy });
                }
            }
            SimEvent::Fin { .. } => {
                stream.fin = true;
                if to_proxy {
                    s.times.fin.get_or_insert(self.now);
                }
            }
            SimEvent::Rst { .. } => {
                stream.dead = true;
                stream.bytes.truncate(stream.arrived);
                if to_proxy {
                    s.times.reset.get_or_insert(self.now);
                    if s.open && !s.broken {
                        s.broken = true;
                        s.error = Some(if s.to_proxy.fin && s.from_proxy.ended {
                            libc::EPIPE
                        } else {
                            libc::ECONNRESET
                        });
                        s.connecting = false;
                    }
                } else {
                    s.peer_got_reset = true;
                }
            }
            _ => return,
        }
        if to_proxy {
            self.edge(socket);
        } else if self.sockets[socket].peer_open {
            let delay = self.rng.below(5_000);
            self.wake_peer(socket, self.now + delay);
        }
    }

    /// A connection to a backend has failed.
    pub(crate) fn connect_failed(&mut self, socket: usize, code: i32) {
        let s = &mut self.sockets[socket];
        if s.open && s.connecting {
            (s.connecting, s.broken, s.error) = (false, true, Some(code));
            s.times.failed = Some((self.now, code));
            self.edge(socket);
        }
    }

    /// The core gives a connection up.
    pub(super) fn close_conn(&mut self, shard: usize, c: ConnId, reset: bool) {
        let Some(socket) = self.socket_of(shard, c) else { return };
        self.trace(7 << 8 | u64::from(reset), || {
            format!("shard {shard} {} {socket}", if reset { "resets" } else { "closes" })
        });
        self.by_slot[shard][c.slot as usize] = None;
        self.open_sockets[shard] -= 1;
        if self.sockets[socket].probe {
            self.ended_probes.push(socket);
        }
        self.open_by_shard[shard].retain(|open| *open != socket);
        let s = &mut self.sockets[socket];
        if let Peer::Backend(backend) = s.peer
            && s.from_proxy.written_total > 0
        {
            self.replay_allowed = (self.turn, shard, backend);
        }
        self.close_proxy_end(socket, reset);
    }

    /// A shard gives all its connections up.
    pub(super) fn close_all(&mut self, shard: usize) {
        for socket in self.by_slot[shard].clone().into_iter().flatten() {
            self.close_conn(shard, self.sockets[socket].conn, false);
        }
    }

    /// The proxy closes its end: with a reset if it leaves anything unread, as kernels do.
    pub(crate) fn close_proxy_end(&mut self, socket: usize, reset: bool) {
        let s = &mut self.sockets[socket];
        s.open = false;
        s.closed_blocked = s.write_blocked;
        s.times.closed = Some(self.now);
        let unread = s.to_proxy.arrived > 0;
        s.to_proxy.bytes.clear();
        s.to_proxy.dead = true;
        s.to_proxy.arrived = 0;
        if s.connecting || s.broken {
            return;
        }
        let sent_end = s.from_proxy.ended;
        if reset || unread {
            self.send_end(socket, false, SimEvent::Rst { socket, to_proxy: false });
        } else if !sent_end {
            self.send_end(socket, false, SimEvent::Fin { socket, to_proxy: false });
        }
    }
}
