//! What the event loop sees: the sockets with the security layer around them. What it reads and writes here
//! is what it knows of, whatever is under way below; the judges count this.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;

use ruststrom_core::config::TlsTarget;
use ruststrom_core::{ConnId, Endpoint, Fault, Instant, LookupId, Negotiated, Query, Wall};
use ruststrom_driver::event::Event;
use ruststrom_driver::sockets::Sockets;
use ruststrom_driver::tls::TlsWorld;
use ruststrom_driver::world::{Received, SecurityError, Sent, World};

use super::listener::ClientSource;
use super::shard_world::{ListenerHandle, ShardWorld};
use super::{Net, Peer};
use crate::coverage::Mark;
use crate::scenario::backend_at;
use crate::tls::{Alpn, SessionStatus, SimLayer};

/// Stands for the `errno` of a connect whose handshake has failed.
pub(crate) const HANDSHAKE_FAILED: i32 = libc::EPROTO;
/// Answers to the peer that wait beside data: alerts, keys, tickets.
const MAX_ANSWERS: usize = 16 * 1024;

/// The sockets of one shard, those with TLS among them.
pub(crate) struct PlaintextWorld<'a, C> {
    world: TlsWorld<ShardWorld<'a, C>, SimLayer>,
    newest: Rc<RefCell<Rc<SessionStatus>>>,
    agreed: Agreed,
}

/// What was agreed on last.
#[derive(Default)]
struct Agreed {
    server_name: Option<String>,
    alpn: Option<Vec<u8>>,
    certificate: Option<u16>,
    version: &'static str,
    cipher: &'static str,
    resumed: bool,
    client_subject: Option<String>,
}

impl<'a, C: ClientSource> PlaintextWorld<'a, C> {
    /// Puts the security of a shard around its sockets for a turn.
    pub(crate) fn new(
        tls: TlsWorld<(), SimLayer>,
        newest: Rc<RefCell<Rc<SessionStatus>>>,
        sockets: ShardWorld<'a, C>,
    ) -> Self {
        let (world, ()) = tls.replace_inner(sockets);
        Self { world, newest, agreed: Agreed::default() }
    }

    /// The turn is over.
    pub(crate) fn into_tls(self) -> TlsWorld<(), SimLayer> {
        self.world.replace_inner(()).0
    }

    fn net(&mut self) -> &mut Net {
        self.world.inner_mut().net
    }

    fn socket(&self, c: ConnId) -> Option<usize> {
        let inner = self.world.inner();
        inner.net.socket_of(inner.shard, c)
    }

    /// A session has just been made for this connection.
    fn secured(&mut self, c: ConnId) {
        let status = self.newest.borrow().clone();
        if let Some(socket) = self.socket(c) {
            let s = &mut self.net().sockets[socket];
            (s.secure, s.session) = (true, Some(status));
        }
    }

    /// Ciphertext in the session of a connection.
    fn held(&self, c: ConnId) -> usize {
        let session = self.socket(c).and_then(|at| self.world.inner().net.sockets[at].session.as_ref());
        session.map_or(0, |session| session.output.get())
    }

    /// A client whose handshake is not over is closed: that needs a reason.
    fn judge_close(&mut self, c: ConnId) {
        if let Some(socket) = self.socket(c) {
            self.net().judge_handshake_closed(socket);
        }
    }
}

/// Whether it is the security that broke, and not the socket.
fn is_security(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|e| e.is::<SecurityError>())
}

impl<C: ClientSource> World for PlaintextWorld<'_, C> {
    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<Received> {
        let arrived = self.socket(c).map(|s| self.net().sockets[s].to_proxy.arrived);
        let before = self.held(c);
        let blocked = self.socket(c).is_some_and(|s| self.net().sockets[s].write_blocked);
        let received = self.world.recv(c, buf);
        let Some(socket) = self.socket(c) else { return received };
        let held = self.held(c);
        let net = self.net();
        let now = net.now;
        if held < before && blocked {
            net.ledger.fail("room-is-told", format!("reading {socket} has written what waits for room"));
        }
        if held > before && net.sockets[socket].write_blocked {
            net.mark(Mark::AnswerWaits);
        }
        let s = &mut net.sockets[socket];
        match &received {
            Ok(Received { bytes: 0, .. }) if s.secure => {
                s.times.fin.get_or_insert(now);
            }
            Ok(Received { bytes: 0, .. }) => {}
            Ok(Received { bytes, .. }) => {
                s.reads.push((s.to_proxy.read_total, now));
                s.to_proxy.read_total += *bytes as u64;
                if s.secure && arrived == Some(s.to_proxy.arrived) {
                    net.mark(Mark::PlaintextHeld);
                }
            }
            Err(e) if is_security(e) => {
                s.times.reset.get_or_insert(now);
            }
            Err(_) => {}
        }
        received
    }

    fn at_end(&mut self, c: ConnId) -> io::Result<bool> {
        let ended = self.world.at_end(c);
        if let Some(socket) = self.socket(c) {
            let net = self.net();
            let now = net.now;
            let times = &mut net.sockets[socket].times;
            match &ended {
                Ok(true) => _ = times.fin.get_or_insert(now),
                Err(e) if is_security(e) => _ = times.reset.get_or_insert(now),
                Ok(false) | Err(_) => {}
            }
        }
        ended
    }

    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let before = self.held(c);
        let sent = self.world.send(c, slices);
        let Some(socket) = self.socket(c) else { return sent };
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let net = self.net();
        net.sockets[socket].send_blocked = match &sent {
            Ok(sent) => sent.blocked,
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
        };
        if let Ok(Sent { bytes, .. }) = sent
            && bytes > 0
        {
            let s = &mut net.sockets[socket];
            s.writes.push((s.from_proxy.written_total, net.now));
            if matches!(s.peer, Peer::Backend(_)) {
                net.tap_written(socket, slices, bytes);
            }
            net.sockets[socket].from_proxy.written_total += bytes as u64;
        }
        if let Some(session) = &net.sockets[socket].session {
            let held = session.output.get();
            // The smallest records have nine bytes.
            if held > before.max(3 * offered + MAX_ANSWERS) {
                net.ledger.fail("ciphertext-bounded", format!("socket {socket}: {held} of {offered}"));
            } else if held > 0 {
                net.mark(Mark::CiphertextHeld);
            }
        }
        sent
    }

    fn connect(&mut self, c: ConnId, to: &Endpoint) -> io::Result<()> {
        let secure = |b| matches!(to, Endpoint::Ip(_)) && self.net().scenario.tls.is_backend(b);
        if backend_at(to).is_some_and(secure) {
            self.net().ledger.fail("backend-scheme", format!("{to:?} is connected to without TLS"));
        }
        self.world.connect(c, to)
    }

    fn connect_tls(&mut self, c: ConnId, to: &Endpoint, target: &TlsTarget) -> io::Result<()> {
        self.world.connect_tls(c, to, target)?;
        self.secured(c);
        Ok(())
    }

    fn accept_tls(&mut self, c: ConnId) {
        self.world.accept_tls(c);
        self.secured(c);
    }

    fn handshake(&mut self, c: ConnId) -> Result<Option<Negotiated<'_>>, Fault> {
        let result = match self.world.handshake(c) {
            Ok(None) => return Ok(None),
            Ok(Some(n)) => {
                self.agreed = Agreed {
                    server_name: n.server_name.map(str::to_owned),
                    alpn: n.alpn.map(<[u8]>::to_vec),
                    certificate: n.certificate,
                    version: n.version,
                    cipher: n.cipher,
                    resumed: n.resumed,
                    client_subject: n.client_subject.map(str::to_owned),
                };
                Ok(())
            }
            Err(fault) => Err(fault),
        };
        if let Some(socket) = self.socket(c) {
            let streams = result.is_ok() && self.agreed.alpn.as_deref() == Alpn::Http2.protocol();
            let net = self.net();
            net.handshake_over(socket, result.err());
            if streams && matches!(net.sockets[socket].peer, Peer::Backend(_)) {
                net.carries_streams(socket);
            }
        }
        result?;
        let agreed = &self.agreed;
        Ok(Some(Negotiated {
            server_name: agreed.server_name.as_deref(),
            alpn: agreed.alpn.as_deref(),
            certificate: agreed.certificate,
            version: agreed.version,
            cipher: agreed.cipher,
            resumed: agreed.resumed,
            client_subject: agreed.client_subject.as_deref(),
        }))
    }

    fn take_error(&mut self, c: ConnId) -> Option<io::Error> {
        self.world.take_error(c)
    }

    fn shutdown(&mut self, c: ConnId) {
        self.world.shutdown(c);
    }

    fn close(&mut self, c: ConnId) {
        self.judge_close(c);
        self.world.close(c);
    }

    fn reset(&mut self, c: ConnId) {
        self.judge_close(c);
        self.world.reset(c);
    }

    fn lookup(&mut self, id: LookupId, q: Query) {
        self.world.lookup(id, q);
    }

    fn nudge(&mut self, shard: u16) {
        self.world.nudge(shard);
    }

    fn now(&mut self) -> Instant {
        self.world.now()
    }
}

impl<C: ClientSource> Sockets for PlaintextWorld<'_, C> {
    type Bound = ListenerHandle;
    type Listener = ListenerHandle;
    type Accepted = usize;
    type RawEvent = Event;
    const READY_ON_INSERT: bool = true;

    fn listen(&mut self, place: usize, listener: ListenerHandle) -> io::Result<ListenerHandle> {
        self.world.listen(place, listener)
    }

    fn accept(&mut self, place: usize, listener: &ListenerHandle) -> io::Result<(usize, SocketAddr)> {
        self.world.accept(place, listener)
    }

    fn listener_blocks(&mut self, place: usize, listener: &ListenerHandle) {
        self.world.listener_blocks(place, listener);
    }

    fn insert(&mut self, c: ConnId, client: usize) -> io::Result<()> {
        self.world.insert(c, client)
    }

    fn refuse(&mut self, client: usize) {
        self.world.refuse(client);
    }

    fn close_listener(&mut self, place: usize, listener: ListenerHandle) {
        self.world.close_listener(place, listener);
    }

    fn event(&mut self, event: Event) -> Option<Event> {
        if let Event::Conn(c, readiness) = event
            && readiness.writable
            && let Some(socket) = self.socket(c)
        {
            let s = &mut self.net().sockets[socket];
            // Who is told and does not write is not told again.
            s.write_blocked &= !s.secure;
            s.send_blocked = false;
        }
        self.world.event(event)
    }

    fn turn_ended(&mut self) {
        self.world.turn_ended();
    }

    fn open(&self) -> usize {
        self.world.open()
    }

    fn close_all(&mut self) {
        self.world.close_all();
    }

    fn generation(&self) -> u32 {
        self.world.generation()
    }

    fn wall(&mut self) -> Wall {
        self.world.wall()
    }
}
