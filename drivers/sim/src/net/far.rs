//! What clients and machines do with their end of a socket.

use super::{Event, Net, Read};

impl Net {
    /// The far end's script runs soon.
    pub(crate) fn wake_far(&mut self, sock: usize, when: u64) {
        let when = when.max(self.now + 1);
        let s = &mut self.socks[sock];
        if when < s.far_wake {
            s.far_wake = when;
            self.at(when, Event::Peer(sock));
        }
    }

    pub(crate) fn far_turns(&mut self, sock: usize) -> bool {
        let s = &mut self.socks[sock];
        if s.far_wake > self.now {
            return false;
        }
        s.far_wake = u64::MAX;
        true
    }

    /// The far end writes; how much there was room for.
    pub(crate) fn far_write(&mut self, sock: usize, bytes: &[u8]) -> usize {
        let s = &self.socks[sock];
        if s.up.ended || s.up.dead || s.far_reset {
            return bytes.len();
        }
        let n = self.space(&s.up).min(bytes.len());
        if n > 0 {
            self.send_off(sock, true, std::iter::once(bytes), n);
        }
        n
    }

    /// The far end reads up to `most` bytes.
    pub(crate) fn far_read(&mut self, sock: usize, most: usize, into: &mut Vec<u8>) -> Read {
        let window = self.draw.net.window as usize;
        let s = &mut self.socks[sock];
        let n = s.down.arrived.min(most);
        if n == 0 {
            // An end that came before the reset is an end.
            return if s.down.fin {
                Read::End
            } else if s.far_reset {
                Read::Reset
            } else {
                Read::Nothing
            };
        }
        s.down.take(n, |bytes| into.extend_from_slice(bytes));
        if s.short && (window - s.down.bytes.len().min(window)) * 3 >= window {
            s.short = false;
            self.edge(sock);
        }
        Read::Bytes
    }

    /// The far end sends no more.
    pub(crate) fn far_end(&mut self, sock: usize) {
        if !self.socks[sock].up.ended {
            self.end_off(sock, true, Event::Fin { sock, up: true });
        }
    }

    /// The far end closes: a reset if it leaves anything unread.
    pub(crate) fn far_close(&mut self, sock: usize) {
        if !std::mem::replace(&mut self.socks[sock].far_open, false) {
            return;
        }
        if self.socks[sock].down.arrived > 0 {
            self.end_off(sock, true, Event::Rst { sock, up: true });
        } else {
            self.far_end(sock);
        }
    }

    /// The far end resets.
    pub(crate) fn far_abort(&mut self, sock: usize) {
        if std::mem::replace(&mut self.socks[sock].far_open, false) {
            self.end_off(sock, true, Event::Rst { sock, up: true });
        }
    }
}
