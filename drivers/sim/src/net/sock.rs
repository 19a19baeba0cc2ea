//! The kernel's half of a connection: two byte queues with a window and a delay, edge triggered as epoll is.
//! Nothing here decides what is sent.

use std::collections::VecDeque;

use ruststrom_core::ConnId;
use ruststrom_driver::pump::Readiness;

use super::{Event, Net};

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    /// How many of them have arrived.
    pub(crate) arrived: usize,
    pub(super) last_at: u64,
    /// The writer has ended; nothing more is written.
    pub(crate) ended: bool,
    pub(crate) fin: bool,
    /// What is under way is lost.
    pub(super) dead: bool,
    pub(crate) read_total: u64,
    pub(crate) written_total: u64,
}

impl Pipe {
    /// Bytes leave at this end, in two pieces at most.
    pub(super) fn take(&mut self, n: usize, mut each: impl FnMut(&[u8])) {
        let (a, b) = self.bytes.as_slices();
        let of_a = n.min(a.len());
        each(&a[..of_a]);
        each(&b[..n - of_a]);
        self.bytes.drain(..n);
        self.arrived -= n;
        self.read_total += n as u64;
    }
}

/// Who is at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Far {
    Client(usize),
    Machine(usize),
}

/// A connection between the proxy and a far end. `up` leads to the proxy.
#[derive(Debug)]
pub(crate) struct Sock {
    pub(crate) shard: usize,
    pub(crate) conn: ConnId,
    pub(crate) far: Far,
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    /// The proxy has not closed it.
    pub(crate) open: bool,
    pub(crate) far_open: bool,
    pub(crate) connecting: bool,
    /// A reset has arrived at the far end.
    pub(crate) far_reset: bool,
    pub(super) queued: bool,
    pub(super) short: bool,
    pub(super) error: Option<i32>,
    pub(super) broken: bool,
    pub(super) far_wake: u64,
    /// A machine's: each write to it, and each read from it, as (bytes before, when).
    pub(super) writes: Vec<(u64, u64)>,
    pub(super) reads: Vec<(u64, u64)>,
    /// Asked for although its machine was known to be unhealthy; fine for a probe only.
    pub(crate) suspect: bool,
    /// A client's: how much of it had been read at each reload of its shard.
    pub(crate) read_at_reload: Vec<(u64, usize)>,
}

/// The name of a socket that the proxy has not accepted yet.
const NOBODYS: ConnId = ConnId { slot: u32::MAX, epoch: u32::MAX };

/// What a far end finds when it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Bytes,
    Nothing,
    End,
    Reset,
}

impl Net {
    pub(super) fn space(&self, pipe: &Pipe) -> usize {
        (self.draw.net.window as usize).saturating_sub(pipe.bytes.len())
    }

    /// A connection, accepted or asked for.
    pub(crate) fn insert(&mut self, shard: usize, conn: ConnId, far: Far, connecting: bool) -> usize {
        let sock = self.open_sock(far, connecting);
        self.adopt(sock, shard, conn);
        sock
    }

    /// A connection that the proxy has no name for yet: what comes meanwhile waits.
    pub(crate) fn open_sock(&mut self, far: Far, connecting: bool) -> usize {
        let sock = self.socks.len();
        self.socks.push(Sock {
            shard: 0,
            conn: NOBODYS,
            far,
            up: Pipe::default(),
            down: Pipe::default(),
            open: true,
            far_open: true,
            connecting,
            far_reset: false,
            queued: false,
            short: false,
            error: None,
            broken: false,
            far_wake: u64::MAX,
            writes: Vec::new(),
            reads: Vec::new(),
            suspect: false,
            read_at_reload: Vec::new(),
        });
        sock
    }

    /// The proxy's end of a socket that a client had opened before gets its name.
    pub(crate) fn adopt(&mut self, sock: usize, shard: usize, conn: ConnId) {
        (self.socks[sock].shard, self.socks[sock].conn) = (shard, conn);
        let table = &mut self.table[shard];
        if table.len() <= conn.slot as usize {
            table.resize(conn.slot as usize + 1, None);
        }
        if let Some(old) = table[conn.slot as usize].replace(sock)
            && self.socks[old].open
        {
            self.ledger.fail("slot-reused-while-open", format!("{conn:?} of shard {shard}"));
        }
        self.open[shard] += 1;
    }

    pub(crate) fn sock_of(&self, shard: usize, c: ConnId) -> Option<usize> {
        let sock = (*self.table[shard].get(c.slot as usize)?)?;
        (self.socks[sock].conn == c && self.socks[sock].open).then_some(sock)
    }

    /// An edge: the proxy's poller tells of this socket at its next turn.
    pub(crate) fn edge(&mut self, sock: usize) {
        let s = &mut self.socks[sock];
        if s.open && !s.connecting && !s.queued && s.conn != NOBODYS {
            s.queued = true;
            let shard = s.shard;
            self.ready[shard].push(sock);
            let latency = self.dice.below(20_000);
            self.wake(shard, self.now + latency);
        }
    }

    /// What the poller says of a socket now.
    pub(crate) fn readiness(&mut self, sock: usize) -> Readiness {
        let window = self.draw.net.window as usize;
        let s = &mut self.socks[sock];
        s.queued = false;
        let space = window.saturating_sub(s.down.bytes.len());
        Readiness {
            readable: s.up.arrived > 0 || s.up.fin || s.broken,
            writable: s.broken || space * 3 >= window,
            closed: s.up.fin || s.broken,
            error: s.error.is_some(),
        }
    }

    /// Puts the first `n` bytes of some slices under way.
    pub(super) fn send_off<'a>(
        &mut self,
        sock: usize,
        up: bool,
        slices: impl Iterator<Item = &'a [u8]>,
        n: usize,
    ) {
        let delay = self.delay();
        let whole = n <= 1 || up && self.draw.net.whole || self.dice.below(6) > 0;
        let split = if whole { n } else { 1 + self.dice.below(n as u64 - 1) as usize };
        let again = self.delay();
        let now = self.now;
        let pipe = if up { &mut self.socks[sock].up } else { &mut self.socks[sock].down };
        let mut left = n;
        for slice in slices {
            let these = slice.len().min(left);
            pipe.bytes.extend(&slice[..these]);
            left -= these;
        }
        pipe.written_total += n as u64;
        let first = (now + delay).max(pipe.last_at);
        let second = first + again;
        pipe.last_at = if split < n { second } else { first };
        self.at(first, Event::Arrive { sock, up, n: split });
        if split < n {
            self.at(second, Event::Arrive { sock, up, n: n - split });
        }
    }

    pub(super) fn end_off(&mut self, sock: usize, up: bool, event: Event) {
        let delay = self.delay();
        let now = self.now;
        let pipe = if up { &mut self.socks[sock].up } else { &mut self.socks[sock].down };
        pipe.ended = true;
        pipe.last_at = (now + delay).max(pipe.last_at + 1);
        let at = pipe.last_at;
        self.at(at, event);
    }

    /// Bytes, an end or a reset has arrived.
    pub(crate) fn arrive(&mut self, sock: usize, up: bool, event: &Event) {
        let s = &mut self.socks[sock];
        let (there, pipe) = if up { (s.open, &mut s.up) } else { (s.far_open, &mut s.down) };
        match event {
            Event::Arrive { n, .. } if !pipe.dead => {
                if there {
                    pipe.arrived += n;
                } else {
                    pipe.bytes.drain(..(*n).min(pipe.bytes.len()));
                    // Bytes for nobody are answered with a reset.
                    return self.end_off(sock, !up, Event::Rst { sock, up: !up });
                }
            }
            Event::Fin { .. } => pipe.fin = true,
            Event::Rst { .. } => {
                pipe.dead = true;
                pipe.bytes.truncate(pipe.arrived);
                if up {
                    if s.open && !s.broken {
                        s.broken = true;
                        s.error = Some(if s.up.fin && s.down.ended { libc::EPIPE } else { libc::ECONNRESET });
                        s.connecting = false;
                    }
                } else {
                    s.far_reset = true;
                }
            }
            _ => return,
        }
        if up {
            self.edge(sock);
        } else if self.socks[sock].far_open {
            let delay = self.dice.below(5_000);
            self.wake_far(sock, self.now + delay);
        }
    }

    /// A connection did not come about.
    pub(crate) fn connect_fails(&mut self, sock: usize, code: i32) {
        let s = &mut self.socks[sock];
        if s.open && s.connecting {
            (s.connecting, s.broken, s.error) = (false, true, Some(code));
            self.edge(sock);
        }
    }

    /// The proxy's end is gone.
    pub(super) fn leave(&mut self, shard: usize, c: ConnId, reset: bool) {
        let Some(sock) = self.sock_of(shard, c) else { return };
        self.say(7 << 8 | u64::from(reset), || {
            format!("shard {shard} {} {sock}", if reset { "resets" } else { "closes" })
        });
        self.table[shard][c.slot as usize] = None;
        self.open[shard] -= 1;
        let s = &mut self.socks[sock];
        if let Far::Machine(machine) = s.far
            && s.down.written_total > 0
        {
            self.excuse = (self.turn, shard, machine);
        }
        self.part(sock, reset);
    }

    /// The proxy's end is closed: as a kernel does it, by a reset if anything was left unread.
    pub(crate) fn part(&mut self, sock: usize, reset: bool) {
        let s = &mut self.socks[sock];
        s.open = false;
        let unread = s.up.arrived > 0;
        s.up.bytes.clear();
        s.up.dead = true;
        s.up.arrived = 0;
        if s.connecting || s.broken {
            return;
        }
        let sent_end = s.down.ended;
        if reset || unread {
            self.end_off(sock, false, Event::Rst { sock, up: false });
        } else if !sent_end {
            self.end_off(sock, false, Event::Fin { sock, up: false });
        }
    }
}
