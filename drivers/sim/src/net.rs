//! Sockets without a kernel: each a pair of byte queues with a window and a delay, edge triggered as epoll is. Whatever a kernel may do at any call
//! it does here when the dice say so, and tells of it later, as a kernel would.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io::{self, IoSlice};
use std::net::SocketAddr;

use ruststrom_core::{Answer, ConnId, Instant, LookupId, Question};
use ruststrom_driver::pump::{Readiness, World};

use crate::coverage::{Coverage, Mark};
use crate::dice::{Dice, mix};
use crate::draw::{Draw, MS, PoolDef, machine_address, machine_at};
use crate::ledger::{Ledger, Request};

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Turn(usize),
    Arrive { sock: usize, up: bool, n: usize },
    Fin { sock: usize, up: bool },
    Rst { sock: usize, up: bool },
    Peer(usize),
    Edge(usize),
    Connected(usize),
    ConnectFails(usize, i32),
    Client(usize),
    Nudge(usize),
    Found(usize, LookupId, Answer),
    Reload,
    ReloadShard(usize),
    Flap,
    Drain,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    /// How many of them have arrived.
    pub(crate) arrived: usize,
    last_at: u64,
    /// The writer has ended; nothing more is written.
    pub(crate) ended: bool,
    pub(crate) fin: bool,
    /// What is under way is lost.
    dead: bool,
    pub(crate) read_total: u64,
    pub(crate) written_total: u64,
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
    queued: bool,
    short: bool,
    error: Option<i32>,
    broken: bool,
    far_wake: u64,
    /// When it was asked for, and by which turn.
    /// A machine's: each write to it, and each read from it, as (bytes before, when).
    writes: Vec<(u64, u64)>,
    reads: Vec<(u64, u64)>,
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

/// Everything but the proxies and the scripts of the far ends.
pub(crate) struct Net {
    pub(crate) draw: Draw,
    pub(crate) dice: Dice,
    pub(crate) now: u64,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    seq: u64,
    pub(crate) socks: Vec<Sock>,
    /// By shard and slot.
    table: Vec<Vec<Option<usize>>>,
    pub(crate) open: Vec<usize>,
    pub(crate) ready: Vec<Vec<usize>>,
    turn_at: Vec<u64>,
    pub(crate) nudged: Vec<bool>,
    pub(crate) found: Vec<Vec<(LookupId, Answer)>>,
    pub(crate) drained: Vec<bool>,
    pub(crate) machines: Vec<Mode>,
    pub(crate) faults: bool,
    pub(crate) ledger: Ledger,
    pub(crate) coverage: Coverage,
    pub(crate) hash: u64,
    pub(crate) count: u64,
    pub(crate) trace: Option<VecDeque<String>>,
    /// Every set of pools so far, and where each shard is.
    pub(crate) versions: Vec<Vec<PoolDef>>,
    pub(crate) version_of: Vec<usize>,
    /// Turns of all shards.
    pub(crate) turn: u64,
    /// Unhealthy since that turn, by pool and label.
    pub(crate) unhealthy: BTreeMap<(String, String), u64>,
    /// Backends that a reload took away once: their health begins anew.
    pub(crate) tainted: BTreeSet<String>,
    /// Sockets that this turn asked for to machines that were unhealthy before it.
    pub(crate) suspects: Vec<usize>,
    /// A used connection to a machine went away in this turn of a shard: a replay may follow.
    excuse: (u64, usize, usize),
    /// Lookups that got no answer, asked again by nobody: answered when all heals.
    pub(crate) holes: Vec<usize>,
    pub(crate) client_socks: Vec<usize>,
}

/// How a machine is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Up,
    Refuses,
    BlackHole,
    ProbeFine,
    ProbeBad,
}

impl Net {
    pub(crate) fn new(draw: Draw, traced: bool) -> Self {
        let shards = usize::from(draw.shards);
        let machines = vec![Mode::Up; draw.machines + 2];
        Self {
            dice: Dice::new(mix(draw.seed ^ 0xfeed)),
            now: MS,
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            seq: 0,
            socks: Vec::new(),
            table: vec![Vec::new(); shards],
            open: vec![0; shards],
            ready: vec![Vec::new(); shards],
            turn_at: vec![u64::MAX; shards],
            nudged: vec![false; shards],
            found: vec![Vec::new(); shards],
            drained: vec![false; shards],
            machines,
            faults: !draw.fault_free,
            ledger: Ledger::default(),
            coverage: Coverage::default(),
            hash: draw.seed,
            count: 0,
            trace: traced.then(VecDeque::new),
            holes: Vec::new(),
            client_socks: Vec::new(),
            versions: vec![draw.pools.clone()],
            version_of: vec![0; shards],
            turn: 0,
            unhealthy: BTreeMap::new(),
            tainted: BTreeSet::new(),
            suspects: Vec::new(),
            excuse: (0, 0, 0),
            draw,
        }
    }

    /// A line of the trace; the text is made only if somebody wants it.
    pub(crate) fn say(&mut self, what: u64, text: impl FnOnce() -> String) {
        self.hash = mix(self.hash ^ what ^ self.now.rotate_left(32));
        if let Some(trace) = &mut self.trace {
            let line = format!("{:>6} {:>12.6} {}", self.count, self.now as f64 / 1e9, text());
            trace.push_back(line);
            if trace.len() > 100_000 {
                trace.pop_front();
            }
        }
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        self.coverage.mark(mark);
    }

    /// Whether a fault of this weight happens now. After healing none does.
    pub(crate) fn fault(&mut self, permille: u32, mark: Mark) -> bool {
        let hit = self.faults && self.dice.hits(permille);
        if hit {
            self.mark(mark);
        }
        hit
    }

    /// What sockets may always do, in fault-free runs too.
    fn quirk(&mut self, permille: u32, mark: Mark) -> bool {
        let hit = self.dice.hits(permille);
        if hit {
            self.mark(mark);
        }
        hit
    }

    pub(crate) fn at(&mut self, when: u64, event: Event) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                self.events.len() - 1
            }
        };
        self.seq += 1;
        self.heap.push(Reverse((when.max(self.now + 1), self.seq << 24 | place as u64)));
    }

    /// The next thing to happen; time moves on to it.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse((when, key)) = self.heap.pop()?;
        let place = (key & 0xff_ffff) as usize;
        self.now = when;
        self.count += 1;
        self.free.push(place);
        self.events[place].take()
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((when, _))| *when)
    }

    pub(crate) fn delay(&mut self) -> u64 {
        let most = self.draw.net.delay;
        1 + self.dice.below(most + 1)
    }

    /// A shard's loop turns at `when` at the latest.
    pub(crate) fn wake(&mut self, shard: usize, when: u64) {
        let when = when.max(self.now + 1);
        if when < self.turn_at[shard] {
            self.turn_at[shard] = when;
            self.at(when, Event::Turn(shard));
        }
    }

    /// Whether this turn is the one that was asked for last.
    pub(crate) fn turns(&mut self, shard: usize) -> bool {
        if self.turn_at[shard] != self.now {
            return false;
        }
        self.turn_at[shard] = u64::MAX;
        true
    }

    fn space(&self, pipe: &Pipe) -> usize {
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

    /// Puts bytes under way.
    fn send_off(&mut self, sock: usize, up: bool, bytes: &[u8]) {
        let delay = self.delay();
        let split = if bytes.len() > 1 && !(up && self.draw.net.whole) && self.dice.below(6) == 0 {
            1 + self.dice.below(bytes.len() as u64 - 1) as usize
        } else {
            bytes.len()
        };
        let again = self.delay();
        let now = self.now;
        let pipe = if up { &mut self.socks[sock].up } else { &mut self.socks[sock].down };
        pipe.bytes.extend(bytes);
        pipe.written_total += bytes.len() as u64;
        let first = (now + delay).max(pipe.last_at);
        let second = first + again;
        pipe.last_at = if split < bytes.len() { second } else { first };
        self.at(first, Event::Arrive { sock, up, n: split });
        if split < bytes.len() {
            self.at(second, Event::Arrive { sock, up, n: bytes.len() - split });
        }
    }

    fn end_off(&mut self, sock: usize, up: bool, event: Event) {
        let delay = self.delay();
        let now = self.now;
        let pipe = if up { &mut self.socks[sock].up } else { &mut self.socks[sock].down };
        pipe.ended = true;
        pipe.last_at = (now + delay).max(pipe.last_at + 1);
        let at = pipe.last_at;
        self.at(at, event);
    }

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

    /// The far end writes; how much there was room for.
    pub(crate) fn far_write(&mut self, sock: usize, bytes: &[u8]) -> usize {
        let s = &self.socks[sock];
        if s.up.ended || s.up.dead || s.far_reset {
            return bytes.len();
        }
        let n = self.space(&s.up).min(bytes.len());
        if n > 0 {
            self.send_off(sock, true, &bytes[..n]);
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
        into.extend(s.down.bytes.drain(..n));
        s.down.arrived -= n;
        s.down.read_total += n as u64;
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

    /// When the byte at `offset` was written to a machine, and when the first byte behind `answer` was read from it.
    pub(crate) fn written_at(&self, sock: usize, offset: u64) -> u64 {
        let writes = &self.socks[sock].writes;
        writes[writes.partition_point(|(from, _)| *from <= offset) - 1].1
    }

    pub(crate) fn read_at(&self, sock: usize, answer: u64) -> Option<u64> {
        let s = &self.socks[sock];
        if s.up.read_total <= answer {
            return None;
        }
        Some(s.reads[s.reads.partition_point(|(from, _)| *from <= answer) - 1].1)
    }

    /// Why a request may not be at this machine, if so.
    pub(crate) fn allowed(&self, sock: usize, machine: usize, r: &Request, served: u32) -> Option<String> {
        let s = &self.socks[sock];
        if s.suspect && served == 0 {
            return Some("the machine was known to be unhealthy".into());
        }
        let Some(pool) = r.pool else { return Some("no pool takes it".into()) };
        let client = self.client_socks.get(r.client).map(|c| &self.socks[*c])?;
        // It began with the configuration in use when its head had been read, or with a later one.
        let began = client.read_at_reload.iter().rev().find(|(read, _)| *read < r.head_end).map_or(0, |(_, version)| *version);
        let of = |version: &Vec<PoolDef>| version.iter().any(|p| p.name == pool && p.backends.iter().any(|b| b.at == machine));
        let versions = &self.versions[began..=self.version_of[s.shard]];
        (!versions.iter().any(of)).then(|| format!("not in pool {pool} in versions {began}..={}", self.version_of[s.shard]))
    }

    /// Whether every pool that names a machine has known it to be unhealthy since an earlier turn.
    fn known_bad(&self, machine: usize) -> bool {
        let named = |pool: &PoolDef| {
            pool.backends.iter().filter(|b| b.at == machine).map(|b| (pool.name.to_owned(), b.label())).collect::<Vec<_>>()
        };
        let names: Vec<_> = self.versions.iter().flatten().flat_map(named).collect();
        let bad =
            |name: &(String, String)| !self.tainted.contains(&name.1) && self.unhealthy.get(name).is_some_and(|since| *since < self.turn);
        self.draw.check_every_ms > 0 && names.iter().all(bad)
    }

    /// The proxy's end is gone.
    fn leave(&mut self, shard: usize, c: ConnId, reset: bool) {
        let Some(sock) = self.sock_of(shard, c) else { return };
        self.say(7 << 8 | u64::from(reset), || format!("shard {shard} {} {sock}", if reset { "resets" } else { "closes" }));
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
        let (a, b) = s.up.bytes.as_slices();
        let of_a = n.min(a.len());
        buf[..of_a].copy_from_slice(&a[..of_a]);
        buf[of_a..n].copy_from_slice(&b[..n - of_a]);
        s.up.bytes.drain(..n);
        s.up.arrived -= n;
        if matches!(s.far, Far::Machine(_)) {
            s.reads.push((s.up.read_total, net.now));
        }
        s.up.read_total += n as u64;
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
        let mut all = Vec::with_capacity(n);
        for slice in slices {
            let take = slice.len().min(n - all.len());
            all.extend_from_slice(&slice[..take]);
        }
        let s = &mut net.socks[sock];
        if matches!(s.far, Far::Machine(_)) {
            s.writes.push((s.down.written_total, net.now));
        }
        net.send_off(sock, false, &all);
        net.say(2 << 40 | (sock as u64) << 20 | n as u64, || format!("wrote {n} to {sock}: {}", peek(&all)));
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
        net.say(3 << 40 | (sock as u64) << 20 | machine as u64, || format!("shard connects {sock} to machine {machine}"));
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

    fn lookup(&mut self, id: LookupId, q: Question) {
        let net = &mut *self.net;
        let Question::Resolve { host, .. } = q;
        let machine = host.strip_prefix('m').and_then(|h| h.split('.').next()).and_then(|n| n.parse::<usize>().ok());
        net.say(5 << 40 | id.0, || format!("asks for {host}"));
        let later = if net.fault(net.draw.world.slow_lookup, Mark::SlowLookup) {
            net.now + net.dice.between(10 * MS, 25_000 * MS)
        } else {
            net.now + net.dice.below(5 * MS)
        };
        if net.fault(net.draw.world.lost_lookup, Mark::LostLookup) {
            return;
        }
        let answer = if net.fault(net.draw.world.failed_lookup, Mark::FailedLookup) {
            Answer::Failed("NXDOMAIN".into())
        } else {
            let machine = machine.unwrap_or(0);
            let two = net.dice.below(2) == 0;
            Answer::Addresses((0..=usize::from(two)).map(|second| machine_address(machine, second == 1)).collect())
        };
        if net.fault(net.draw.world.double_lookup, Mark::DoubleLookup) {
            let again = later + net.dice.below(50 * MS);
            net.at(again, Event::Found(self.shard, id, answer.clone()));
        }
        net.at(later, Event::Found(self.shard, id, answer));
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
fn peek(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).escape_debug().to_string()
}
