//! The sockets, listener, lookups and clock that the event loop of one shard works with. Whatever a kernel
//! may do at a call it does here too, as often as the scenario says: short calls, calls that would block,
//! interrupted ones, no descriptors.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use ruststrom_core::{ConnId, Endpoint, Instant, LookupId, LookupResult, Query, Wall};
use ruststrom_driver::event::Event;
use ruststrom_driver::sockets::Sockets;
use ruststrom_driver::world::{Received, Sent, World};

use super::listener::{ClientSource, SimListener};
use super::{BackendMode, Net, Peer, SimEvent};
use crate::coverage::Mark;
use crate::credentials::GOOD_PASSWORD;
use crate::scenario::{ADMIN_PAGE, MS, SEC, backend_address, backend_at};

/// The clock on the wall when a run begins, in seconds since 1970.
const WALL_BEGIN: u64 = 1_700_000_000;

/// Everything outside of one shard's event loop.
pub(crate) struct ShardWorld<'a, C> {
    pub(crate) net: &'a mut Net,
    pub(crate) shard: usize,
    pub(crate) clients: &'a mut C,
    /// By their number.
    pub(crate) listeners: &'a mut [SimListener],
}

/// A shard's listener as its event loop holds it: its number among all that the shard ever had.
#[derive(Debug)]
pub(crate) struct ListenerHandle(pub(crate) usize);

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Net {
    /// Why a Unix socket takes no connection: it fails at once, or never.
    fn unix_error(&mut self, mode: BackendMode) -> Option<i32> {
        let faults = &self.scenario.backend;
        let (refuses, unresponsive) = (faults.refuses, faults.unresponsive);
        let code = if mode == BackendMode::Refusing || self.fault(refuses, Mark::UnixRefused) {
            self.rng.pick(&[libc::ECONNREFUSED, libc::ENOENT, libc::EACCES])
        } else if mode == BackendMode::Unresponsive || self.fault(unresponsive, Mark::UnixRefused) {
            libc::EAGAIN
        } else {
            return None;
        };
        Some(code)
    }
}

impl<C: ClientSource> World for ShardWorld<'_, C> {
    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<Received> {
        let net = &mut *self.net;
        let socket = net.socket_of(self.shard, c).ok_or_else(|| errno(libc::ENOTCONN))?;
        if net.sockets[socket].connecting {
            net.ledger.fail("read-while-connecting", format!("{socket}"));
        }
        if net.kernel_quirk(net.scenario.sockets.interrupted, Mark::Interrupted) {
            return Err(errno(libc::EINTR));
        }
        let s = &mut net.sockets[socket];
        if s.to_proxy.arrived == 0 {
            return match s.error.take() {
                Some(code) => Err(errno(code)),
                None if s.to_proxy.fin || s.broken => Ok(Received { bytes: 0, drained: false }),
                None => Err(errno(libc::EAGAIN)),
            };
        }
        if net.kernel_quirk(net.scenario.sockets.recv_blocks, Mark::RecvBlocked) {
            let later = net.now + net.delay();
            net.schedule(later, SimEvent::ReadinessEdge(socket));
            return Err(errno(libc::EAGAIN));
        }
        let mut n = net.sockets[socket].to_proxy.arrived.min(buf.len());
        if n > 1 && net.kernel_quirk(net.scenario.sockets.short_read, Mark::ShortRead) {
            n = 1 + net.rng.below(n as u64 - 1) as usize;
            let later = net.now + net.delay();
            net.schedule(later, SimEvent::ReadinessEdge(socket));
        }
        let s = &mut net.sockets[socket];
        let (mut filled, read_closed) = (0, s.read_closed);
        s.to_proxy.take(n, |bytes| {
            buf[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        });
        net.wake_peer(socket, net.now + 1 + net.scenario.sockets.delay / 2);
        net.trace(1 << 40 | (socket as u64) << 20 | n as u64, || format!("read {n} of {socket}"));
        Ok(Received { bytes: n, drained: n < buf.len() && !read_closed })
    }

    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let net = &mut *self.net;
        let socket = net.socket_of(self.shard, c).ok_or_else(|| errno(libc::ENOTCONN))?;
        let s = &mut net.sockets[socket];
        if s.connecting {
            net.ledger.fail("write-while-connecting", format!("{socket}"));
            return Err(errno(libc::ENOTCONN));
        }
        if s.broken {
            // No event follows any more, but what had arrived before can still be read.
            s.read_closed = true;
            return Err(errno(s.error.take().unwrap_or(libc::EPIPE)));
        }
        if s.from_proxy.ended {
            net.ledger.fail("write-after-shutdown", format!("{socket}"));
            return Err(errno(libc::EPIPE));
        }
        if net.kernel_quirk(net.scenario.sockets.interrupted, Mark::Interrupted) {
            return Err(errno(libc::EINTR));
        }
        let sum: usize = slices.iter().map(|s| s.len()).sum();
        if slices.is_empty() || slices.len() > 8 || slices.iter().any(|s| s.is_empty()) {
            net.ledger.fail("slices", format!("{} slices of {sum} bytes", slices.len()));
        }
        let space = net.space(&net.sockets[socket].from_proxy);
        if space == 0 {
            net.sockets[socket].write_blocked = true;
            return Err(errno(libc::EAGAIN));
        }
        if net.kernel_quirk(net.scenario.sockets.send_blocks, Mark::SendBlocked) {
            net.sockets[socket].write_blocked = true;
            let later = net.now + net.delay();
            net.schedule(later, SimEvent::ReadinessEdge(socket));
            return Err(errno(libc::EAGAIN));
        }
        let mut n = sum.min(space);
        if n > 1 && net.kernel_quirk(net.scenario.sockets.short_write, Mark::ShortWrite) {
            n = 1 + net.rng.below(n as u64 - 1) as usize;
            let later = net.now + net.delay();
            net.schedule(later, SimEvent::ReadinessEdge(socket));
        }
        net.sockets[socket].write_blocked = n < sum;
        net.send_bytes(socket, false, slices.iter().map(|slice| &**slice), n);
        net.trace(2 << 40 | (socket as u64) << 20 | n as u64, || {
            format!("wrote {n} to {socket}: {}", excerpt(slices, n))
        });
        Ok(Sent { bytes: n, blocked: n < sum })
    }

    fn connect(&mut self, c: ConnId, to: &Endpoint) -> io::Result<()> {
        let net = &mut *self.net;
        let files = net.scenario.system.files as usize;
        if net.faults_on && files > 0 && net.open_sockets[self.shard] >= files {
            net.mark(Mark::NoDescriptor);
            net.connect_error(self.shard, c, to, libc::EMFILE);
            return Err(errno(libc::EMFILE));
        }
        let Some(backend) = backend_at(to).filter(|backend| *backend < net.backend_modes.len()) else {
            net.ledger.fail("known-address", to.to_string());
            return Err(errno(libc::ENETUNREACH));
        };
        if matches!(to, Endpoint::Ip(SocketAddr::V6(_))) {
            net.mark(Mark::Ipv6Backend);
        }
        let mode = if net.faults_on { net.backend_modes[backend] } else { BackendMode::Healthy };
        let is_unix = matches!(to, Endpoint::Unix(_));
        let failed = if is_unix {
            net.unix_error(mode)
        } else {
            let unreachable = net.fault(net.scenario.backend.unreachable / 2, Mark::Unreachable);
            unreachable.then_some(libc::ENETUNREACH)
        };
        if let Some(code) = failed {
            net.connect_error(self.shard, c, to, code);
            return Err(errno(code));
        }
        let socket = net.insert(self.shard, c, Peer::Backend(backend), true);
        let scenario = &net.scenario;
        if !is_unix && scenario.http2.backends.is_backend(backend) && !scenario.tls.is_backend(backend) {
            net.carries_streams(socket);
        }
        if net.known_unhealthy(backend)
            && net.replay_allowed != (net.turn, self.shard, backend)
            && !net.is_left_now(self.shard, backend)
        {
            net.sockets[socket].suspect = true;
            net.suspect_connects.push(socket);
        }
        net.trace(3 << 40 | (socket as u64) << 20 | backend as u64, || {
            format!("connects {socket} to backend {backend}")
        });
        let later = net.now + net.delay() + net.delay();
        if is_unix {
            // It is connected already, and the poller says so.
            net.mark(Mark::UnixConnected);
            net.schedule(net.now, SimEvent::Connected(socket));
        } else if mode == BackendMode::Refusing
            || net.fault(net.scenario.backend.refuses, Mark::ConnectRefused)
        {
            net.schedule(later, SimEvent::ConnectFailed(socket, libc::ECONNREFUSED));
        } else if mode == BackendMode::Unresponsive
            || net.fault(net.scenario.backend.unresponsive, Mark::Unresponsive)
        {
            net.unanswered_connects.push(socket);
        } else if net.fault(net.scenario.backend.unreachable / 2, Mark::Unreachable) {
            let code = net.rng.pick(&[libc::EHOSTUNREACH, libc::ETIMEDOUT]);
            net.schedule(later, SimEvent::ConnectFailed(socket, code));
        } else {
            net.schedule(later, SimEvent::Connected(socket));
        }
        Ok(())
    }

    fn take_error(&mut self, c: ConnId) -> Option<io::Error> {
        let socket = self.net.socket_of(self.shard, c)?;
        self.net.sockets[socket].error.take().map(errno)
    }

    fn shutdown(&mut self, c: ConnId) {
        let net = &mut *self.net;
        if let Some(socket) = net.socket_of(self.shard, c)
            && !net.sockets[socket].from_proxy.ended
            && !net.sockets[socket].broken
        {
            net.trace(4 << 40 | socket as u64, || format!("shuts {socket} down"));
            net.send_end(socket, false, SimEvent::Fin { socket, to_proxy: false });
        }
    }

    fn close(&mut self, c: ConnId) {
        self.net.close_conn(self.shard, c, false);
    }

    fn reset(&mut self, c: ConnId) {
        self.net.close_conn(self.shard, c, true);
    }

    fn lookup(&mut self, id: LookupId, q: Query) {
        let net = &mut *self.net;
        let asks_page = matches!(q, Query::Metrics { .. } | Query::Status);
        let (host, good) = match q {
            Query::Resolve { host, .. } => (host, None),
            Query::Authenticate { user, password, .. } => (user, Some(*password.0 == *GOOD_PASSWORD)),
            Query::Metrics { .. } | Query::Status => ("page".into(), None),
        };
        let backend =
            host.strip_prefix('m').and_then(|h| h.split('.').next()).and_then(|n| n.parse::<usize>().ok());
        net.trace(5 << 40 | id.0, || format!("looks {host} up"));
        let later = if net.fault(net.scenario.system.slow_lookup, Mark::SlowLookup) {
            net.now + net.rng.between(10 * MS, 25_000 * MS)
        } else {
            net.now + net.rng.below(5 * MS)
        };
        if net.fault(net.scenario.system.lost_lookup, Mark::LostLookup) {
            return;
        }
        let response = if net.fault(net.scenario.system.failed_lookup, Mark::FailedLookup) {
            LookupResult::Failed("NXDOMAIN".into())
        } else if asks_page {
            LookupResult::Page { content_type: "text/plain", body: ADMIN_PAGE.as_bytes().into() }
        } else if let Some(good) = good {
            LookupResult::Authenticated(good)
        } else {
            let backend = backend.unwrap_or(0);
            // A name may have one address or two.
            let two = net.rng.below(2) == 0;
            LookupResult::Addresses(
                (0..=usize::from(two)).map(|second| backend_address(backend, second == 1)).collect(),
            )
        };
        if net.fault(net.scenario.system.double_lookup, Mark::DoubleLookup) {
            let again = later + net.rng.below(50 * MS);
            net.schedule(again, SimEvent::LookupDone(self.shard, id, Box::new(response.clone())));
        }
        net.schedule(later, SimEvent::LookupDone(self.shard, id, Box::new(response)));
    }

    fn nudge(&mut self, shard: u16) {
        let net = &mut *self.net;
        net.mark(Mark::Nudged);
        net.nudged.insert(usize::from(shard));
        let later = if net.fault(net.scenario.system.delayed_nudge, Mark::DelayedNudge) {
            net.now + net.rng.below(300 * MS)
        } else {
            net.now + net.rng.below(50_000)
        };
        net.schedule(later, SimEvent::Nudge(usize::from(shard)));
    }

    fn now(&mut self) -> Instant {
        Instant::from_nanos(self.net.now)
    }
}

impl<C: ClientSource> Sockets for ShardWorld<'_, C> {
    type Bound = ListenerHandle;
    type Listener = ListenerHandle;
    /// The number of a client.
    type Accepted = usize;
    type RawEvent = Event;
    const READY_ON_INSERT: bool = true;

    fn listen(&mut self, place: usize, listener: ListenerHandle) -> io::Result<ListenerHandle> {
        self.listeners[listener.0].place = Some(place);
        Ok(listener)
    }

    fn accept(&mut self, _: usize, listener: &ListenerHandle) -> io::Result<(usize, SocketAddr)> {
        let net = &mut *self.net;
        let files = net.scenario.system.files as usize;
        // As accept(2) does: whether or not somebody waits.
        if net.faults_on && files > 0 && net.open_sockets[self.shard] >= files {
            net.mark(Mark::AcceptPaused);
            return Err(errno(libc::EMFILE));
        }
        let listener = &mut self.listeners[listener.0];
        let client = listener.waiting.pop_front().ok_or_else(|| errno(libc::EAGAIN))?;
        net.accepted_at.insert(client, listener.address);
        Ok((client, self.clients.address(client)))
    }

    fn listener_blocks(&mut self, _: usize, _: &ListenerHandle) {}

    fn insert(&mut self, c: ConnId, client: usize) -> io::Result<()> {
        self.clients.accepted(client, self.shard, c, self.net);
        Ok(())
    }

    fn refuse(&mut self, client: usize) {
        self.net.mark(Mark::Refused);
        self.clients.above_limit(client, self.net);
    }

    fn close_listener(&mut self, _: usize, listener: ListenerHandle) {
        for client in self.listeners[listener.0].close() {
            self.clients.refused(client, self.net);
        }
    }

    fn event(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Conn(c, _) if self.net.socket_of(self.shard, c).is_none() => {
                self.net.mark(Mark::StaleEvent);
            }
            // The commands are read next.
            Event::Mailbox => self.net.take_version(self.shard),
            Event::Conn(..) | Event::Listener(_) => {}
        }
        Some(event)
    }

    fn turn_ended(&mut self) {}

    fn open(&self) -> usize {
        self.net.open_sockets[self.shard]
    }

    fn close_all(&mut self) {
        self.net.close_all(self.shard);
    }

    fn generation(&self) -> u32 {
        // A simulated worker has one proxy all its life.
        0
    }

    fn wall(&mut self) -> Wall {
        let now = self.net.now;
        Wall { unix_secs: WALL_BEGIN + now / SEC, millis: (now % SEC / MS) as u16 }
    }
}

/// The first bytes of some slices, for the trace.
fn excerpt(slices: &[IoSlice<'_>], n: usize) -> String {
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(n.min(60)).collect();
    String::from_utf8_lossy(&bytes).escape_debug().to_string()
}
