//! One open connection while it is served. Nothing in here forgets it: that is an effect, and effects come
//! later. So what is remembered of it stays where it is.

use std::io;

use ruststrom_core::{ConnId, Fault, Instant};

use super::{CONNECTING, Flags, LISTED, Machine, READ_CLOSED, READABLE, SHUT, WRITABLE, World, fault_of};

/// The machine, and what is remembered of the connection.
pub(super) struct Lane<'a, M> {
    pub(super) machine: &'a mut M,
    pub(super) f: &'a mut Flags,
    pub(super) c: ConnId,
    pub(super) now: Instant,
}

impl<M: Machine> Lane<'_, M> {
    /// There may be something to send, and room for it.
    #[inline]
    pub(super) fn could_write(&self) -> bool {
        self.f.has(WRITABLE | LISTED)
    }

    /// A round may move something. Writing comes first in it: it frees pages, and what is read may have to be
    /// answered.
    #[inline]
    pub(super) fn could_move(&self) -> bool {
        self.could_write() || self.f.has(READABLE)
    }

    /// What is left to do with a socket that is broken, or to be shut down, once its bytes have been dealt
    /// with.
    #[cold]
    pub(super) fn part<W: World>(&mut self, w: &mut W) {
        let wants = self.machine.wants(self.c);
        if let Some(fault) = self.f.fault()
            && !wants.recv
        {
            self.break_off(fault);
        } else if self.f.has(SHUT) && !wants.send {
            self.f.clear(SHUT);
            w.shutdown(self.c);
        }
    }

    /// One write; whether anything changed.
    #[inline]
    pub(super) fn write<W: World>(&mut self, w: &mut W) -> bool {
        let c = self.c;
        let (room, sent) = self.machine.with_slices(c, |slices| {
            let room: usize = slices.iter().map(|s| s.len()).sum();
            (room, if room == 0 { Ok(0) } else { w.send(c, slices) })
        });
        match sent {
            Ok(0) if room == 0 => {
                self.f.clear(LISTED);
                false
            }
            Ok(n) => {
                // If there is more by now, the core lists it again.
                self.f.clear(if n < room { WRITABLE } else { LISTED });
                if n > 0 {
                    self.machine.handle_sent(c, n, self.now);
                }
                n > 0
            }
            Err(e) => self.write_failed(&e),
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
                self.broken(fault_of(e));
                true
            }
        }
    }

    /// One read; whether anything changed. `reads` counts those that brought bytes.
    #[inline]
    pub(super) fn read<W: World>(&mut self, w: &mut W, reads: &mut u64) -> bool {
        let room = self.machine.recv_buf(self.c);
        let len = room.len();
        if len == 0 {
            return self.no_room();
        }
        match w.recv(self.c, room) {
            Ok(n) if n > 0 => {
                if n < len && !self.f.has(READ_CLOSED) {
                    self.f.clear(READABLE);
                }
                *reads += 1;
                self.machine.handle_recv(self.c, n, self.now);
                true
            }
            other => self.read_nothing(other.err()),
        }
    }

    /// It does not want to read, or no page is free: the core lists the connection again when it does and
    /// there is. A broken socket does not wait for that.
    fn no_room(&mut self) -> bool {
        if let Some(fault) = self.f.fault() {
            self.break_off(fault);
        }
        false
    }

    /// A read ended, would block, or failed.
    #[cold]
    fn read_nothing(&mut self, e: Option<io::Error>) -> bool {
        let fault = self.f.fault();
        match e {
            None => {
                // A socket that broke reads as ended once its error has been told: that is no end of stream.
                if let Some(fault) = fault {
                    self.break_off(fault);
                } else {
                    self.f.clear(READABLE | READ_CLOSED);
                    self.machine.handle_recv_end(self.c, self.now);
                }
                true
            }
            Some(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.f.clear(READABLE);
                self.machine.handle_recv(self.c, 0, self.now);
                if let Some(fault) = fault {
                    self.break_off(fault);
                }
                false
            }
            Some(e) if e.kind() == io::ErrorKind::Interrupted => {
                self.machine.handle_recv(self.c, 0, self.now);
                true
            }
            Some(e) => {
                self.break_off(fault.unwrap_or_else(|| fault_of(&e)));
                true
            }
        }
    }

    /// The socket broke, but what the peer had sent before may still lie in it: a backend that answers early
    /// and closes with our request unread resets the connection behind its answer. Reads go on until they
    /// fail or are not wanted; then the fault is told.
    pub(super) fn broken(&mut self, fault: Fault) {
        let wants = self.machine.wants(self.c);
        self.f.clear(WRITABLE | SHUT);
        if wants.recv {
            self.f.set(READABLE | READ_CLOSED);
            self.f.set_fault(fault);
        } else {
            self.break_off(fault);
        }
    }

    /// Tells the fault; nothing more is done with the socket but closing it.
    pub(super) fn break_off(&mut self, fault: Fault) {
        self.f.clear(READABLE | WRITABLE | READ_CLOSED | CONNECTING | SHUT);
        self.f.rounds_fault = 0;
        self.machine.handle_fault(self.c, fault, self.now);
    }
}
