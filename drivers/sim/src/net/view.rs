//! The world as one shard's pump sees it. Whatever a kernel may do at any call it does here when the dice say
//! so, and tells of it later, as a kernel would.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use ruststrom_core::{ConnId, Instant, LookupId, LookupResult, Query};
use ruststrom_driver::pump::World;

use super::{Event, Far, Mode, Net};
use crate::coverage::Mark;
use crate::draw::{MS, machine_address, machine_at};

/// The world as one shard's pump sees it.
pub(crate) struct View<'a> {
    pub(crate) net: &'a mut Net,
    pub(crate) shard: usize,
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl World for View<'_> {
    fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<usize> {
        let net = &mut *self.net;
        let sock = net.sock_of(self.shard, c).ok_or_else(|| errno(libc::ENOTCONN))?;
        if net.socks[sock].connecting {
            net.ledger.fail("read-while-connecting", format!("{sock}"));
        }
        if net.quirk(net.draw.net.interrupted, Mark::Interrupted) {
            return Err(errno(libc::EINTR));
        }
        let s = &mut net.socks[sock];
        if s.up.arrived == 0 {
            return match s.error.take() {
                Some(code) => Err(errno(code)),
                None if s.up.fin || s.broken => Ok(0),
                None => Err(errno(libc::EAGAIN)),
            };
        }
        if net.quirk(net.draw.net.recv_blocks, Mark::RecvBlocked) {
            let later = net.now + net.delay();
            net.at(later, Event::Edge(sock));
            return Err(errno(libc::EAGAIN));
        }
        let mut n = net.socks[sock].up.arrived.min(buf.len());
        if n > 1 && net.quirk(net.draw.net.short_read, Mark::ShortRead) {
            n = 1 + net.dice.below(n as u64 - 1) as usize;
            let later = net.now + net.delay();
            net.at(later, Event::Edge(sock));
        }
        let s = &mut net.socks[sock];
        if matches!(s.far, Far::Machine(_)) {
            s.reads.push((s.up.read_total, net.now));
        }
        let mut filled = 0;
        s.up.take(n, |bytes| {
            buf[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        });
        net.wake_far(sock, net.now + 1 + net.draw.net.delay / 2);
        net.say(1 << 40 | (sock as u64) << 20 | n as u64, || format!("read {n} of {sock}"));
        Ok(n)
    }

    fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let net = &mut *self.net;
        let sock = net.sock_of(self.shard, c).ok_or_else(|| errno(libc::ENOTCONN))?;
        let s = &mut net.socks[sock];
        if s.connecting {
            net.ledger.fail("write-while-connecting", format!("{sock}"));
            return Err(errno(libc::ENOTCONN));
        }
        if let Some(code) = s.error.take() {
            return Err(errno(code));
        }
        if s.broken {
            return Err(errno(libc::EPIPE));
        }
        if s.down.ended {
            net.ledger.fail("write-after-shutdown", format!("{sock}"));
            return Err(errno(libc::EPIPE));
        }
        if net.quirk(net.draw.net.interrupted, Mark::Interrupted) {
            return Err(errno(libc::EINTR));
        }
        let sum: usize = slices.iter().map(|s| s.len()).sum();
        if slices.is_empty() || slices.len() > 8 || slices.iter().any(|s| s.is_empty()) {
            net.ledger.fail("slices", format!("{} slices of {sum} bytes", slices.len()));
        }
        let space = net.space(&net.socks[sock].down);
        if space == 0 {
            net.socks[sock].short = true;
            return Err(errno(libc::EAGAIN));
        }
        if net.quirk(net.draw.net.send_blocks, Mark::SendBlocked) {
            net.socks[sock].short = true;
            let later = net.now + net.delay();
            net.at(later, Event::Edge(sock));
            return Err(errno(libc::EAGAIN));
        }
        let mut n = sum.min(space);
        if n > 1 && net.quirk(net.draw.net.short_write, Mark::ShortWrite) {
            n = 1 + net.dice.below(n as u64 - 1) as usize;
            let later = net.now + net.delay();
            net.at(later, Event::Edge(sock));
        }
        net.socks[sock].short = n < sum;
        let s = &mut net.socks[sock];
        if matches!(s.far, Far::Machine(_)) {
            s.writes.push((s.down.written_total, net.now));
        }
        net.send_off(sock, false, slices.iter().map(|slice| &**slice), n);
        net.say(2 << 40 | (sock as u64) << 20 | n as u64, || {
            format!("wrote {n} to {sock}: {}", peek(slices, n))
        });
        Ok(n)
    }

    fn connect(&mut self, c: ConnId, to: SocketAddr) -> io::Result<()> {
        let net = &mut *self.net;
        let files = net.draw.world.files as usize;
        if net.faults && files > 0 && net.open[self.shard] >= files {
            net.mark(Mark::FewFiles);
            return Err(errno(libc::EMFILE));
        }
        let Some(machine) = machine_at(to).filter(|m| *m < net.machines.len()) else {
            net.ledger.fail("connects-to-nobody", to.to_string());
            return Err(errno(libc::ENETUNREACH));
        };
        if net.fault(net.draw.backend.unreachable / 2, Mark::Unreachable) {
            return Err(errno(libc::ENETUNREACH));
        }
        let sock = net.insert(self.shard, c, Far::Machine(machine), true);
        if net.known_bad(machine) && net.excuse != (net.turn, self.shard, machine) {
            net.socks[sock].suspect = true;
            net.suspects.push(sock);
        }
        net.say(3 << 40 | (sock as u64) << 20 | machine as u64, || {
            format!("shard connects {sock} to machine {machine}")
        });
        let later = net.now + net.delay() + net.delay();
        let mode = if net.faults { net.machines[machine] } else { Mode::Up };
        if mode == Mode::Refuses || net.fault(net.draw.backend.refuses, Mark::NoConnectionLeft) {
            net.at(later, Event::ConnectFails(sock, libc::ECONNREFUSED));
        } else if mode == Mode::BlackHole || net.fault(net.draw.backend.black_hole, Mark::BlackHole) {
            net.holes.push(sock);
        } else if net.fault(net.draw.backend.unreachable / 2, Mark::Unreachable) {
            let code = net.dice.one(&[libc::EHOSTUNREACH, libc::ETIMEDOUT]);
            net.at(later, Event::ConnectFails(sock, code));
        } else {
            net.at(later, Event::Connected(sock));
        }
        Ok(())
    }

    fn take_error(&mut self, c: ConnId) -> Option<io::Error> {
        let sock = self.net.sock_of(self.shard, c)?;
        self.net.socks[sock].error.take().map(errno)
    }

    fn shutdown(&mut self, c: ConnId) {
        let net = &mut *self.net;
        if let Some(sock) = net.sock_of(self.shard, c)
            && !net.socks[sock].down.ended
            && !net.socks[sock].broken
        {
            net.say(4 << 40 | sock as u64, || format!("shuts {sock} down"));
            net.end_off(sock, false, Event::Fin { sock, up: false });
        }
    }

    fn close(&mut self, c: ConnId) {
        self.net.leave(self.shard, c, false);
    }

    fn reset(&mut self, c: ConnId) {
        self.net.leave(self.shard, c, true);
    }

    fn lookup(&mut self, id: LookupId, q: Query) {
        let net = &mut *self.net;
        let Query::Resolve { host, .. } = q;
        let machine =
            host.strip_prefix('m').and_then(|h| h.split('.').next()).and_then(|n| n.parse::<usize>().ok());
        net.say(5 << 40 | id.0, || format!("asks for {host}"));
        let later = if net.fault(net.draw.world.slow_lookup, Mark::SlowLookup) {
            net.now + net.dice.between(10 * MS, 25_000 * MS)
        } else {
            net.now + net.dice.below(5 * MS)
        };
        if net.fault(net.draw.world.lost_lookup, Mark::LostLookup) {
            return;
        }
        let response = if net.fault(net.draw.world.failed_lookup, Mark::FailedLookup) {
            LookupResult::Failed("NXDOMAIN".into())
        } else {
            let machine = machine.unwrap_or(0);
            let two = net.dice.below(2) == 0;
            LookupResult::Addresses(
                (0..=usize::from(two)).map(|second| machine_address(machine, second == 1)).collect(),
            )
        };
        if net.fault(net.draw.world.double_lookup, Mark::DoubleLookup) {
            let again = later + net.dice.below(50 * MS);
            net.at(again, Event::Found(self.shard, id, Box::new(response.clone())));
        }
        net.at(later, Event::Found(self.shard, id, Box::new(response)));
    }

    fn nudge(&mut self, shard: u16) {
        let net = &mut *self.net;
        net.mark(Mark::Nudged);
        let later = if net.fault(net.draw.world.delayed_nudge, Mark::DelayedNudge) {
            net.now + net.dice.below(300 * MS)
        } else {
            net.now + net.dice.below(50_000)
        };
        net.at(later, Event::Nudge(usize::from(shard)));
    }

    fn drained(&mut self) {
        let again = std::mem::replace(&mut self.net.drained[self.shard], true);
        if again {
            self.net.ledger.fail("drained-once", format!("shard {}", self.shard));
        }
    }

    fn now(&mut self) -> Instant {
        Instant::from_nanos(self.net.now)
    }
}

/// The beginning of some bytes for the trace.
fn peek(slices: &[IoSlice<'_>], n: usize) -> String {
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(n.min(60)).collect();
    String::from_utf8_lossy(&bytes).escape_debug().to_string()
}
