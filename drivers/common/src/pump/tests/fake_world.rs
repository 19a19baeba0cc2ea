//! Sockets made of byte queues, which write down the calls on them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};

use ruststrom_core::config::TlsTarget;
use ruststrom_core::{ConnId, Endpoint, Fault, Instant, LookupId, Negotiated, Query};

use crate::world::{Received, SecurityError, Sent, World};

/// One socket: what a read finds, how much a write may take.
#[derive(Default)]
pub(super) struct Socket {
    pub(super) inbound: VecDeque<u8>,
    pub(super) fin: bool,
    pub(super) recv_error: Option<i32>,
    /// Behind the bytes that there are stands what ends TLS.
    pub(super) insecure: Option<Fault>,
    pub(super) outbound: Vec<u8>,
    pub(super) room: usize,
    pub(super) send_error: Option<i32>,
    pub(super) so_error: Option<i32>,
    pub(super) shut: bool,
}

#[derive(Default)]
pub(super) struct FakeWorld {
    pub(super) sockets: BTreeMap<u32, Socket>,
    /// What closed sockets had sent.
    pub(super) left_behind: BTreeMap<u32, Vec<u8>>,
    pub(super) calls: Vec<(char, u32)>,
    pub(super) refuse_connect: Option<i32>,
    /// What comes of each call: the handshake goes on if nothing is said of it.
    pub(super) handshakes: VecDeque<Result<bool, Fault>>,
    pub(super) clock: u64,
}

impl World for FakeWorld {
    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<Received> {
        self.calls.push(('r', c.slot));
        let s = self.sockets.get_mut(&c.slot).expect("reads only open sockets");
        let n = buf.len().min(s.inbound.len());
        for (to, from) in buf.iter_mut().zip(s.inbound.drain(..n)) {
            *to = from;
        }
        if let Some(fault) = s.insecure.filter(|_| n == 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, SecurityError(fault)));
        }
        match (n, s.recv_error) {
            (0, Some(e)) => Err(io::Error::from_raw_os_error(e)),
            (0, None) if s.fin => Ok(Received { bytes: 0, drained: false }),
            (0, None) => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(Received { bytes: n, drained: n < buf.len() && !s.fin }),
        }
    }
    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        self.calls.push(('w', c.slot));
        let s = self.sockets.get_mut(&c.slot).expect("writes only open sockets");
        if let Some(e) = s.send_error {
            return Err(io::Error::from_raw_os_error(e));
        }
        if s.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
        let n = all.len().min(s.room);
        s.outbound.extend(&all[..n]);
        s.room -= n;
        Ok(Sent { bytes: n, blocked: n < all.len() })
    }
    fn connect(&mut self, c: ConnId, _: &Endpoint) -> io::Result<()> {
        self.calls.push(('c', c.slot));
        match self.refuse_connect {
            Some(e) => Err(io::Error::from_raw_os_error(e)),
            None => {
                self.sockets.insert(c.slot, Socket { room: 1 << 20, ..Socket::default() });
                Ok(())
            }
        }
    }
    fn connect_tls(&mut self, c: ConnId, to: &Endpoint, _: &TlsTarget) -> io::Result<()> {
        self.connect(c, to)
    }
    fn accept_tls(&mut self, c: ConnId) {
        self.calls.push(('t', c.slot));
    }
    fn handshake(&mut self, c: ConnId) -> Result<Option<Negotiated<'_>>, Fault> {
        self.calls.push(('h', c.slot));
        let over = self.handshakes.pop_front().unwrap_or(Ok(false))?;
        Ok(over.then(Negotiated::default))
    }
    fn take_error(&mut self, c: ConnId) -> Option<io::Error> {
        self.sockets.get_mut(&c.slot)?.so_error.take().map(io::Error::from_raw_os_error)
    }
    fn shutdown(&mut self, c: ConnId) {
        self.calls.push(('s', c.slot));
        self.sockets.get_mut(&c.slot).expect("shuts only open sockets").shut = true;
    }
    fn close(&mut self, c: ConnId) {
        self.calls.push(('x', c.slot));
        if let Some(s) = self.sockets.remove(&c.slot) {
            self.left_behind.insert(c.slot, s.outbound);
        }
    }
    fn reset(&mut self, c: ConnId) {
        self.calls.push(('R', c.slot));
        self.sockets.remove(&c.slot);
    }
    fn lookup(&mut self, _: LookupId, _: Query) {}
    fn nudge(&mut self, _: u16) {}
    fn now(&mut self) -> Instant {
        self.clock += 1;
        Instant::from_millis(self.clock)
    }
}

impl FakeWorld {
    pub(super) fn calls(&mut self) -> String {
        self.calls
            .drain(..)
            .map(|(what, slot)| format!("{what}{slot} "))
            .collect::<String>()
            .trim_end()
            .to_owned()
    }
    pub(super) fn at(&mut self, slot: u32) -> &mut Socket {
        self.sockets.get_mut(&slot).expect("open")
    }
}
