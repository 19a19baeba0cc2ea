//! How clients and backends, the peers of the proxy, use their end of a socket.

use super::{Net, PeerRead, SimEvent};

impl Net {
    /// The script of the peer has a turn at `when` at the latest.
    pub(crate) fn wake_peer(&mut self, socket: usize, when: u64) {
        let when = when.max(self.now + 1);
        let s = &mut self.sockets[socket];
        if when < s.peer_wake_at {
            s.peer_wake_at = when;
            self.schedule(when, SimEvent::PeerTurn(socket));
        }
    }

    /// Whether the peer's turn is due now; an event for a turn that was moved forward is not.
    pub(crate) fn peer_due(&mut self, socket: usize) -> bool {
        let s = &mut self.sockets[socket];
        if s.peer_wake_at > self.now {
            return false;
        }
        s.peer_wake_at = u64::MAX;
        true
    }

    /// The peer writes; returns for how many bytes there was room. What can no longer arrive counts as
    /// written.
    pub(crate) fn peer_write(&mut self, socket: usize, bytes: &[u8]) -> usize {
        let s = &self.sockets[socket];
        if s.tls.is_some() {
            return self.tls_write(socket, bytes);
        }
        if s.to_proxy.ended || s.to_proxy.dead || s.peer_got_reset {
            return bytes.len();
        }
        let n = self.space(&s.to_proxy).min(bytes.len());
        if n > 0 {
            self.send_bytes(socket, true, std::iter::once(bytes), n);
            self.sockets[socket].to_proxy.written_total += n as u64;
        }
        n
    }

    /// The peer reads up to `max` bytes, which are appended to `into`.
    pub(crate) fn peer_read(&mut self, socket: usize, max: usize, into: &mut Vec<u8>) -> PeerRead {
        if self.sockets[socket].tls.is_some() {
            return self.tls_read(socket, max, into);
        }
        let n = self.peer_take(socket, max, into);
        let s = &mut self.sockets[socket];
        s.from_proxy.read_total += n as u64;
        if n == 0 {
            // The end of the stream came before the reset, so it is read before it.
            return if s.from_proxy.fin {
                PeerRead::End
            } else if s.peer_got_reset {
                PeerRead::Reset
            } else {
                PeerRead::WouldBlock
            };
        }
        PeerRead::Bytes
    }

    /// Takes up to `max` bytes out of the socket; returns how many.
    pub(super) fn peer_take(&mut self, socket: usize, max: usize, into: &mut Vec<u8>) -> usize {
        let window = self.scenario.sockets.window as usize;
        let s = &mut self.sockets[socket];
        let n = s.from_proxy.arrived.min(max);
        s.from_proxy.take(n, |bytes| into.extend_from_slice(bytes));
        if n > 0 && s.write_blocked && (window - s.from_proxy.bytes.len().min(window)) * 3 >= window {
            s.write_blocked = false;
            self.edge(socket);
        }
        n
    }

    /// The peer sends no more.
    pub(crate) fn peer_shutdown(&mut self, socket: usize) {
        if self.sockets[socket].tls.is_some() {
            self.tls_shutdown(socket);
        } else if !self.sockets[socket].to_proxy.ended {
            self.send_end(socket, true, SimEvent::Fin { socket, to_proxy: true });
        }
    }

    /// The peer closes: with a reset if it leaves anything unread, as kernels do.
    pub(crate) fn peer_close(&mut self, socket: usize) {
        if self.sockets[socket].tls.is_some() {
            return self.tls_close(socket);
        }
        self.close_peer_end(socket);
    }

    /// The peer's end is closed.
    pub(super) fn close_peer_end(&mut self, socket: usize) {
        if !std::mem::replace(&mut self.sockets[socket].peer_open, false) {
            return;
        }
        if self.sockets[socket].from_proxy.arrived > 0 {
            self.send_end(socket, true, SimEvent::Rst { socket, to_proxy: true });
        } else if !self.sockets[socket].to_proxy.ended {
            self.send_end(socket, true, SimEvent::Fin { socket, to_proxy: true });
        }
    }

    /// The peer resets the connection.
    pub(crate) fn peer_reset(&mut self, socket: usize) {
        if std::mem::replace(&mut self.sockets[socket].peer_open, false) {
            self.send_end(socket, true, SimEvent::Rst { socket, to_proxy: true });
        }
    }
}
