//! Reading and writing one open connection. Nothing in here forgets the connection: the core asks for that by
//! an effect, and effects are carried out later. So its [`Flags`] stay where they are.

use std::io;

use ruststrom_core::{ConnId, Fault, Instant, TlsFault};

use super::{CONNECTING, Flags, HANDSHAKING, LISTED, ProxyApi, READABLE, SHUT, WRITABLE, World, fault_of};

/// One connection while it is served: the core, and what the pump remembers of the connection.
pub(super) struct ConnIo<'a, P> {
    pub(super) proxy: &'a mut P,
    pub(super) f: &'a mut Flags,
    pub(super) c: ConnId,
    pub(super) now: Instant,
}

impl<P: ProxyApi> ConnIo<'_, P> {
    /// There may be something to send, and room for it.
    #[inline]
    pub(super) fn can_write(&self) -> bool {
        self.f.has(WRITABLE | LISTED)
    }

    /// A round may move bytes. In each round writing comes first: it frees pages, and what is read may need a
    /// response.
    #[inline]
    pub(super) fn can_progress(&self) -> bool {
        self.can_write() || self.f.has(READABLE)
    }

    /// Reports a fault that was kept until all bytes had been read, or shuts the socket down once all have
    /// been sent.
    #[cold]
    pub(super) fn finish_pending<W: World>(&mut self, w: &mut W) {
        let wants = self.proxy.wants(self.c);
        if let Some(fault) = self.f.fault()
            && !wants.recv
        {
            self.report_fault(fault);
        } else if self.f.has(SHUT) && !wants.send {
            self.f.clear(SHUT);
            w.shutdown(self.c);
        }
    }

    /// One write; whether anything changed.
    #[inline]
    pub(super) fn write<W: World>(&mut self, w: &mut W) -> bool {
        let c = self.c;
        let sent = self.proxy.with_slices(c, |s| if s.is_empty() { None } else { Some(w.send(c, s)) });
        match sent {
            None => {
                self.f.clear(LISTED);
                false
            }
            Some(Ok(sent)) => {
                // If there is more by now, the core lists the connection again.
                self.f.clear(if sent.blocked { WRITABLE } else { LISTED });
                if sent.bytes > 0 {
                    self.proxy.handle_sent(c, sent.bytes, self.now);
                }
                sent.bytes > 0
            }
            Some(Err(e)) => self.write_failed(&e),
        }
    }

    #[cold]
    fn write_failed(&mut self, e: &io::Error) -> bool {
        match e.kind() {
            io::ErrorKind::WouldBlock => {
                self.f.clear(WRITABLE);
                false
            }
            io::ErrorKind::Interrupted => true,
            _ => {
                self.socket_broke(fault_of(e));
                true
            }
        }
    }

    /// One read; whether anything changed. `reads` counts those that brought bytes.
    #[inline]
    pub(super) fn read<W: World>(&mut self, w: &mut W, reads: &mut u64) -> bool {
        let room = self.proxy.recv_buf(self.c);
        if room.is_empty() {
            return self.no_room();
        }
        match w.recv(self.c, room) {
            Ok(received) if received.bytes > 0 => {
                if received.drained {
                    self.f.clear(READABLE);
                }
                *reads += 1;
                self.proxy.handle_recv(self.c, received.bytes, self.now);
                true
            }
            other => self.read_nothing(other.err()),
        }
    }

    /// The core does not want to read, or has no free page: it lists the connection again once it does and
    /// has. A broken socket does not wait for that.
    fn no_room(&mut self) -> bool {
        if let Some(fault) = self.f.fault() {
            self.report_fault(fault);
        }
        false
    }

    /// A read ended, would block, or failed.
    #[cold]
    fn read_nothing(&mut self, e: Option<io::Error>) -> bool {
        let fault = self.f.fault();
        match e {
            None => {
                // A socket whose error was taken reads as ended: that is no end of the stream.
                if let Some(fault) = fault {
                    self.report_fault(fault);
                } else {
                    self.f.clear(READABLE);
                    self.proxy.handle_recv_end(self.c, self.now);
                }
                true
            }
            Some(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.f.clear(READABLE);
                self.proxy.handle_recv(self.c, 0, self.now);
                if let Some(fault) = fault {
                    self.report_fault(fault);
                }
                false
            }
            Some(e) if e.kind() == io::ErrorKind::Interrupted => {
                self.proxy.handle_recv(self.c, 0, self.now);
                true
            }
            Some(e) => {
                self.report_fault(match (fault, fault_of(&e)) {
                    // What the peer said before its socket broke is the reason why it did.
                    (_, said @ Fault::Tls(why)) if why != TlsFault::Closed => said,
                    (Some(first), _) => first,
                    (None, read) => read,
                });
                true
            }
        }
    }

    /// The socket broke, but what the peer had sent before may still lie in it: a backend that responds early
    /// and closes with our request unread resets the connection behind its response. So reads go on until
    /// they fail or are not wanted; then the fault is reported.
    pub(super) fn socket_broke(&mut self, fault: Fault) {
        let wants = self.proxy.wants(self.c);
        self.f.clear(WRITABLE | SHUT);
        if wants.recv {
            self.f.set(READABLE);
            self.f.set_fault(fault);
        } else {
            self.report_fault(fault);
        }
    }

    /// Reports the fault to the core; nothing more is done with the socket but closing it.
    pub(super) fn report_fault(&mut self, fault: Fault) {
        self.f.clear(READABLE | WRITABLE | CONNECTING | HANDSHAKING | SHUT);
        self.f.rounds_fault = 0;
        self.proxy.handle_fault(self.c, fault, self.now);
    }
}
