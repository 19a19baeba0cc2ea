//! How clients and backends speak TLS over their end of a socket, and what they do wrong with it: they
//! trickle, stop or cut at any byte, damage records, ask for new keys, and leave the end out.

use super::{Net, PeerRead, SimEvent};
use crate::coverage::Mark;
use crate::random::SplitMix64;
use crate::tls::{Endpoint, Failure, MAX_CONTENT};

/// Ciphertext waits here for room in the socket up to so many bytes.
const MAX_OUTPUT: usize = 32 * 1024;

/// What a peer does at some byte of what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tamper {
    /// It sends nothing more.
    Stall,
    /// It ends its stream.
    Cut,
    Reset,
    /// It goes on with what is no record, and ends its stream.
    Garbage,
}

/// The TLS of one peer on one connection.
#[derive(Debug)]
pub(crate) struct PeerTls {
    pub(crate) endpoint: Endpoint,
    pub(crate) rng: SplitMix64,
    /// In a handshake: bytes of a write at most, and the time from one to the next.
    pub(crate) trickle: Option<(usize, u64)>,
    /// Behind so many bytes.
    pub(crate) tamper: Option<(u64, Tamper)>,
    /// In thousandths of the writes: the key is changed before.
    pub(crate) updates: u32,
    /// It leaves `close_notify` out.
    pub(crate) omits_end: bool,
    /// The end of its half is a `close_notify` alone: the stream goes on.
    pub(crate) keeps_stream: bool,
    write_at: u64,
    /// Bytes that went into the socket.
    written: u64,
    /// The stream is to be ended, and has been.
    fin: bool,
    fin_sent: bool,
    closing: bool,
    stalled: bool,
    tampered: bool,
}

impl PeerTls {
    pub(crate) fn new(endpoint: Endpoint, seed: u64) -> Self {
        Self {
            endpoint,
            rng: SplitMix64::new(seed),
            trickle: None,
            tamper: None,
            updates: 0,
            omits_end: false,
            keeps_stream: false,
            write_at: 0,
            written: 0,
            fin: false,
            fin_sent: false,
            closing: false,
            stalled: false,
            tampered: false,
        }
    }

    /// It sends nothing more, and does not say so.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// It has done something wrong: what the proxy makes of that is judged elsewhere.
    pub(crate) fn has_tampered(&self) -> bool {
        self.tampered || self.endpoint.has_corrupted()
    }
}

impl Net {
    /// The peer of a connection speaks TLS from now on.
    pub(crate) fn secure_peer(&mut self, socket: usize, tls: PeerTls) {
        let marks = [
            (tls.trickle.is_some_and(|(most, _)| most == 1), Mark::TrickledHandshake),
            (tls.endpoint.fragment <= 100, Mark::TinyHandshakeRecords),
            (tls.endpoint.record <= 100, Mark::TinyRecords),
            (tls.endpoint.record == MAX_CONTENT, Mark::BigRecords),
        ];
        marks.iter().filter(|(is, _)| *is).for_each(|(_, mark)| self.mark(*mark));
        self.sockets[socket].tls = Some(Box::new(tls));
        self.tls_turn(socket);
    }

    /// A peer sends what it has to.
    pub(crate) fn tls_turn(&mut self, socket: usize) {
        if let Some(mut tls) = self.sockets[socket].tls.take() {
            self.tls_output(socket, &mut tls);
            self.sockets[socket].tls = Some(tls);
        }
    }

    /// The handshake of a peer goes on, or would.
    pub(crate) fn is_peer_stalled(&self, socket: usize) -> bool {
        self.sockets[socket].tls.as_ref().is_some_and(|tls| tls.is_stalled())
    }

    /// The handshake of a peer is over, and all of it has gone.
    pub(crate) fn has_shaken_hands(&self, socket: usize) -> bool {
        let tls = self.sockets[socket].tls.as_ref();
        tls.is_some_and(|tls| tls.endpoint.is_done() && tls.endpoint.output_len() == 0)
    }

    /// As [`Net::peer_write`].
    pub(super) fn tls_write(&mut self, socket: usize, bytes: &[u8]) -> usize {
        let s = &mut self.sockets[socket];
        let Some(mut tls) = s.tls.take() else { return bytes.len() };
        let gone = s.to_proxy.ended || s.to_proxy.dead || s.peer_got_reset;
        let n = if gone || tls.endpoint.failure().is_some() {
            bytes.len()
        } else if !tls.endpoint.is_done() {
            0
        } else {
            if !self.faults_on {
                tls.endpoint.corrupt_after = None;
            }
            let most = (self.scenario.sockets.window as usize).clamp(64, MAX_OUTPUT);
            let n = most.saturating_sub(tls.endpoint.output_len()).min(bytes.len());
            if n > 0 {
                if self.faults_on && tls.rng.chance(tls.updates) {
                    self.mark(Mark::KeyUpdate);
                    let wanted = tls.rng.below(2) == 0;
                    tls.endpoint.update_key(wanted);
                }
                tls.endpoint.write(&bytes[..n]);
                self.sockets[socket].to_proxy.written_total += n as u64;
            }
            n
        };
        self.tls_output(socket, &mut tls);
        self.sockets[socket].tls = Some(tls);
        n
    }

    /// As [`Net::peer_read`].
    pub(super) fn tls_read(&mut self, socket: usize, max: usize, into: &mut Vec<u8>) -> PeerRead {
        let Some(mut tls) = self.sockets[socket].tls.take() else { return PeerRead::WouldBlock };
        let read = self.tls_read_with(socket, &mut tls, max, into);
        self.tls_output(socket, &mut tls);
        self.sockets[socket].tls = Some(tls);
        read
    }

    fn tls_read_with(
        &mut self,
        socket: usize,
        tls: &mut PeerTls,
        max: usize,
        into: &mut Vec<u8>,
    ) -> PeerRead {
        let mut bytes = Vec::new();
        loop {
            let n = tls.endpoint.plaintext_len().min(max);
            if n > 0 {
                into.extend(tls.endpoint.plaintext().drain(..n));
                self.sockets[socket].from_proxy.read_total += n as u64;
                return PeerRead::Bytes;
            }
            if tls.endpoint.failure().is_some() || !self.sockets[socket].peer_open {
                return PeerRead::Reset;
            }
            if tls.endpoint.is_ended() {
                return PeerRead::End;
            }
            bytes.clear();
            if self.peer_take(socket, max, &mut bytes) == 0 {
                let s = &self.sockets[socket];
                return match (s.from_proxy.fin, s.peer_got_reset) {
                    (true, _) => self.tls_cut(socket, tls),
                    (false, true) => PeerRead::Reset,
                    (false, false) => PeerRead::WouldBlock,
                };
            }
            let due = tls.endpoint.updates_due;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                match tls.endpoint.receive(rest) {
                    Ok(n) => rest = &rest[n..],
                    Err(failure) => {
                        self.tls_failed(socket, tls, failure);
                        break;
                    }
                }
            }
            if tls.endpoint.updates_due < due {
                self.mark(Mark::KeyUpdateAnswered);
            }
        }
    }

    /// The peer cannot go on: only what it has done wrong itself is a reason for that, or a certificate.
    fn tls_failed(&mut self, socket: usize, tls: &PeerTls, failure: Failure) {
        self.trace(40, || format!("the peer of {socket} gives up: {failure:?}"));
        if matches!(failure, Failure::Fault(_)) && !tls.has_tampered() && !tls.endpoint.refuses_clients() {
            self.ledger.fail("tls-records", format!("socket {socket}: {failure:?}"));
        }
    }

    /// The proxy's stream has ended without `close_notify`: whoever reads it cannot tell whether something is
    /// missing.
    fn tls_cut(&mut self, socket: usize, tls: &PeerTls) -> PeerRead {
        if self.sockets[socket].times.secured.is_none() || tls.has_tampered() {
            return PeerRead::Reset;
        }
        if self.sockets[socket].closed_blocked {
            // All data has come, as the core is told of its last byte behind all of them; but there was no
            // room for what says so.
            self.mark(Mark::CloseNotifyLost);
            return PeerRead::End;
        }
        self.ledger.fail("close-notify", format!("socket {socket} ends without it"));
        PeerRead::Reset
    }

    /// The peer sends no more.
    pub(super) fn tls_shutdown(&mut self, socket: usize) {
        let s = &mut self.sockets[socket];
        if std::mem::replace(&mut s.to_proxy.ended, true) {
            return;
        }
        let Some(mut tls) = s.tls.take() else { return };
        if self.faults_on && tls.omits_end {
            self.mark(Mark::NoCloseNotify);
            tls.fin = true;
            self.sockets[socket].cut = true;
        } else {
            let done = tls.endpoint.is_done();
            if done {
                tls.endpoint.end();
            }
            tls.fin = !(done && tls.keeps_stream);
            if !tls.fin {
                self.mark(Mark::CloseNotifyAlone);
            }
        }
        self.tls_output(socket, &mut tls);
        self.sockets[socket].tls = Some(tls);
    }

    /// The peer closes, once all that it has to send has gone.
    pub(super) fn tls_close(&mut self, socket: usize) {
        if !self.sockets[socket].peer_open {
            return;
        }
        self.tls_shutdown(socket);
        if let Some(tls) = &mut self.sockets[socket].tls {
            tls.closing = true;
        }
        self.tls_turn(socket);
    }

    fn tls_output(&mut self, socket: usize, tls: &mut PeerTls) {
        loop {
            let s = &self.sockets[socket];
            if s.to_proxy.dead || s.peer_got_reset || !s.peer_open || tls.stalled || tls.fin_sent {
                tls.endpoint.output().clear();
                break;
            }
            let mut n = self.space(&s.to_proxy).min(tls.endpoint.output_len());
            if let Some((at, tamper)) = tls.tamper.filter(|_| self.faults_on) {
                let left = at.saturating_sub(tls.written) as usize;
                // What it has not begun to say is not cut.
                if left == 0 && tls.endpoint.output_len() > 0 {
                    self.tamper(socket, tls, tamper);
                    continue;
                }
                n = n.min(left);
            }
            if n == 0 {
                break;
            }
            let trickle = tls.trickle.filter(|_| self.faults_on && !tls.endpoint.is_done());
            if let Some((most, wait)) = trickle {
                if self.now < tls.write_at {
                    self.wake_peer(socket, tls.write_at);
                    break;
                }
                n = n.min(most);
                tls.write_at = self.now + wait;
            }
            let bytes: Vec<u8> = tls.endpoint.output().drain(..n).collect();
            self.send_bytes(socket, true, std::iter::once(&bytes[..]), n);
            tls.written += n as u64;
        }
        let gone = tls.endpoint.output_len() == 0;
        if gone && tls.fin && !tls.fin_sent && self.sockets[socket].peer_open {
            tls.fin_sent = true;
            self.send_end(socket, true, SimEvent::Fin { socket, to_proxy: true });
        }
        if gone && tls.closing {
            self.close_peer_end(socket);
            if !tls.fin_sent && self.sockets[socket].from_proxy.arrived == 0 {
                tls.fin_sent = true;
                self.send_end(socket, true, SimEvent::Fin { socket, to_proxy: true });
            }
        }
    }

    /// A peer does what it does wrong.
    fn tamper(&mut self, socket: usize, tls: &mut PeerTls, tamper: Tamper) {
        self.trace(41, || format!("the peer of {socket}: {tamper:?} behind {} bytes", tls.written));
        tls.tamper = None;
        tls.tampered = true;
        let s = &mut self.sockets[socket];
        let handshake = s.times.secured.is_none();
        match tamper {
            Tamper::Stall => {
                tls.stalled = true;
                self.mark(if handshake { Mark::HandshakeStalls } else { Mark::TlsStalls });
            }
            Tamper::Cut => {
                s.cut = true;
                s.blame.push("backend_tls_closed");
                (tls.fin, tls.stalled) = (true, true);
                self.mark(if handshake { Mark::HandshakeCut } else { Mark::TlsCut });
            }
            Tamper::Reset => {
                s.blame.push("backend_tls_closed");
                self.mark(if handshake { Mark::HandshakeReset } else { Mark::TlsReset });
                self.peer_reset(socket);
                self.wake_peer(socket, self.now + 1);
            }
            Tamper::Garbage => {
                s.blame.extend(["backend_tls_protocol", "backend_tls_not_tls"]);
                let mut garbage: Vec<u8> =
                    (0..1 + tls.rng.below(300)).map(|_| tls.rng.below(256) as u8).collect();
                // It is not to look like HTTP.
                garbage[0] |= 0x80;
                let n = self.space(&self.sockets[socket].to_proxy).min(garbage.len());
                if n > 0 {
                    self.send_bytes(socket, true, std::iter::once(&garbage[..]), n);
                }
                self.sockets[socket].cut = true;
                (tls.fin, tls.stalled) = (true, true);
                self.mark(if handshake { Mark::HandshakeGarbage } else { Mark::TlsGarbage });
            }
        }
    }
}
