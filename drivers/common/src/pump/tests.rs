//! The pump between a relay in place of the core and sockets made of byte queues.

mod fake_world;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;

use ruststrom_core::config::TlsTarget;
use ruststrom_core::{ListenerId, Negotiated, TimeoutReason, Wants};

use self::fake_world::{FakeWorld, Socket};
use super::*;

/// An input to the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Input {
    Connected(u32),
    Handshaking(u32),
    Negotiated(u32),
    Recv(u32, usize),
    End(u32),
    Closing(u32),
    Sent(u32, usize),
    Fault(u32, Fault),
    Timeout,
}

#[derive(Default)]
struct End {
    epoch: u32,
    peer: u32,
    out: VecDeque<u8>,
    ended: bool,
    gone: bool,
}

/// Passes bytes between pairs of connections with bounded room, like the core does with pages.
struct Relay {
    ends: Vec<End>,
    room: Vec<u8>,
    cap: usize,
    listed: VecDeque<ConnId>,
    effects: VecDeque<Effect>,
    inputs: Vec<Input>,
    timeout: Option<Instant>,
    no_pages: bool,
    /// Connections that gather what they have to send.
    gathering: Vec<u32>,
}

fn id(slot: u32) -> ConnId {
    ConnId { slot, epoch: 7 }
}

impl Relay {
    fn new(pairs: u32, room: usize, cap: usize) -> Self {
        let ends = (0..pairs * 2).map(|slot| End { epoch: 7, peer: slot ^ 1, ..End::default() }).collect();
        Self {
            ends,
            room: vec![0; room],
            cap,
            listed: VecDeque::new(),
            effects: VecDeque::new(),
            inputs: Vec::new(),
            timeout: None,
            no_pages: false,
            gathering: Vec::new(),
        }
    }
    fn end(&self, c: ConnId) -> Option<&End> {
        self.ends.get(c.slot as usize).filter(|e| e.epoch == c.epoch && !e.gone)
    }
    fn list(&mut self, slot: u32) {
        self.listed.push_back(id(slot));
        self.listed.push_back(id(slot ^ 1));
    }
    fn close_ended(&mut self, slot: u32) {
        if [slot, slot ^ 1]
            .iter()
            .all(|s| self.ends[*s as usize].ended && self.ends[*s as usize].out.is_empty())
        {
            self.close_pair(slot);
        }
    }
    fn close_pair(&mut self, slot: u32) {
        for s in [slot, slot ^ 1] {
            if !self.ends[s as usize].gone {
                self.ends[s as usize].gone = true;
                self.effects.push_back(Effect::Close(id(s)));
            }
        }
    }
}

impl ProxyApi for Relay {
    fn handle_accept(&mut self, a: &Accepted, _: Instant) -> Result<ConnId, Refused> {
        if a.peer.port() == 1 { Err(Refused::TooManyConnections) } else { Ok(id(u32::from(a.listener.0))) }
    }
    fn handle_connected(&mut self, c: ConnId, _: Instant) {
        self.inputs.push(Input::Connected(c.slot));
        self.list(c.slot);
    }
    fn handle_peer_closing(&mut self, c: ConnId, _: Instant) {
        self.inputs.push(Input::Closing(c.slot));
    }
    fn handle_negotiated(&mut self, c: ConnId, _: &Negotiated<'_>, _: Instant) {
        self.inputs.push(Input::Negotiated(c.slot));
        self.list(c.slot);
    }
    fn handle_handshaking(&mut self, c: ConnId, _: Instant) {
        self.inputs.push(Input::Handshaking(c.slot));
    }
    fn recv_buf(&mut self, c: ConnId) -> &mut [u8] {
        if self.no_pages || !self.wants(c).recv { &mut [] } else { &mut self.room }
    }
    fn handle_recv(&mut self, c: ConnId, n: usize, _: Instant) {
        self.inputs.push(Input::Recv(c.slot, n));
        let peer = self.ends[c.slot as usize].peer as usize;
        let bytes: Vec<u8> = self.room[..n].to_vec();
        self.ends[peer].out.extend(bytes);
        self.list(c.slot);
    }
    fn handle_recv_end(&mut self, c: ConnId, _: Instant) {
        self.inputs.push(Input::End(c.slot));
        self.ends[c.slot as usize].ended = true;
        self.effects.push_back(Effect::Shutdown(id(c.slot ^ 1)));
        self.close_ended(c.slot);
    }
    fn handle_sent(&mut self, c: ConnId, n: usize, _: Instant) {
        self.inputs.push(Input::Sent(c.slot, n));
        self.ends[c.slot as usize].out.drain(..n);
        self.list(c.slot);
        self.close_ended(c.slot);
    }
    fn handle_fault(&mut self, c: ConnId, f: Fault, _: Instant) {
        self.inputs.push(Input::Fault(c.slot, f));
        self.close_pair(c.slot);
    }
    fn handle_lookup(&mut self, _: LookupId, _: LookupResult, _: Instant) {}
    fn handle_config(&mut self, _: Arc<Config>, _: Instant) {}
    fn handle_shared(&mut self, _: Instant) {}
    fn handle_wall(&mut self, _: Wall) {}
    fn handle_timeout(&mut self, _: Instant) {
        self.timeout = None;
        self.inputs.push(Input::Timeout);
    }
    fn drain(&mut self, _: Instant, _: Instant) {
        self.effects.push_back(Effect::Drained);
    }
    fn poll_conn(&mut self) -> Option<Ready> {
        let conn = self.listed.pop_front()?;
        Some(Ready { conn, send: true, gathers: self.gathering.contains(&conn.slot) })
    }
    fn wants(&self, c: ConnId) -> Wants {
        let Some(e) = self.end(c) else { return Wants::default() };
        let room_left = self.ends[e.peer as usize].out.len() < self.cap;
        Wants { recv: !e.ended && room_left, send: !e.out.is_empty() }
    }
    fn with_slices<R>(&self, c: ConnId, f: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        let empty = VecDeque::new();
        let (a, b) = self.end(c).map_or(&empty, |e| &e.out).as_slices();
        let both = [IoSlice::new(a), IoSlice::new(b)];
        f(&both[..usize::from(!a.is_empty()) + usize::from(!b.is_empty())])
    }
    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
    fn accepting(&self, _: ListenerKind) -> bool {
        true
    }
    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        self.timeout.map(|at| (at, TimeoutReason::Deadline))
    }
}

const READ: Readiness = Readiness { readable: true, writable: false, closed: false, error: false };
const WRITE: Readiness = Readiness { readable: false, writable: true, closed: false, error: false };
const FIN: Readiness = Readiness { readable: true, writable: true, closed: true, error: false };
const ERROR: Readiness = Readiness { readable: true, writable: true, closed: true, error: true };

/// `pairs` pairs of connections, all accepted, writable and found without bytes.
fn relay(pairs: u32, room: usize, cap: usize) -> (Pump<Relay>, FakeWorld) {
    let mut pump = Pump::new(Relay::new(pairs, room, cap), Instant::ZERO);
    let mut world = FakeWorld::default();
    for slot in 0..pairs * 2 {
        let a = Accepted {
            listener: ListenerId(slot as u16),
            kind: ListenerKind::Http,
            peer: SocketAddr::from(([127, 0, 0, 1], 9)),
            local: SocketAddr::from(([127, 0, 0, 1], 80)),
        };
        let c = pump.accept(&a).expect("taken");
        world.sockets.insert(c.slot, Socket { room: 1 << 30, ..Socket::default() });
        pump.opened(c, true, &mut world);
    }
    world.calls.clear();
    pump.proxy.inputs.clear();
    (pump, world)
}

#[test]
fn a_warm_exchange_is_two_reads_and_two_writes() {
    let (mut pump, mut world) = relay(1, 64, 64);
    for _ in 0..3 {
        pump.begin(Instant::from_millis(1));
        world.at(0).inbound.extend(b"GET");
        pump.ready(id(0), READ, &mut world);
        world.at(1).inbound.extend(b"200 OK");
        pump.ready(id(1), READ, &mut world);
        assert_eq!(world.calls(), "r0 w1 r1 w0");
    }
    assert_eq!(world.at(1).outbound, b"GETGETGET");
    assert_eq!(world.at(0).outbound, b"200 OK200 OK200 OK");
    pump.check();
}

#[test]
fn reading_goes_on_until_the_world_says_that_the_socket_is_drained() {
    let table: &[(&str, usize, bool, Readiness, &str)] = &[
        // what arrives, room, FIN behind it, event, calls
        ("abc", 8, false, READ, "r0 w1"),
        ("abcdefgh", 8, false, READ, "r0 r0 w1"),
        ("abcdefghij", 8, false, READ, "r0 r0 w1"),
        ("abc", 8, true, FIN, "r0 r0 w1 s1"),
        ("", 8, true, FIN, "r0 s1"),
        ("", 8, false, READ, "r0"),
    ];
    for &(bytes, room, fin, event, calls) in table {
        let (mut pump, mut world) = relay(1, room, 1 << 20);
        world.at(0).inbound.extend(bytes.as_bytes());
        world.at(0).fin = fin;
        pump.begin(Instant::from_millis(1));
        pump.ready(id(0), event, &mut world);
        assert_eq!(world.calls(), calls, "{bytes:?} {event:?}");
        assert_eq!(world.at(1).outbound, bytes.as_bytes());
        pump.check();
    }
}

#[test]
fn writing_stops_when_the_world_says_that_more_would_block() {
    let (mut pump, mut world) = relay(1, 64, 64);
    world.at(1).room = 2;
    world.at(0).inbound.extend(b"abcdef");
    pump.begin(Instant::from_millis(1));
    pump.ready(id(0), READ, &mut world);
    assert_eq!(world.calls(), "r0 w1");
    // A readable event says nothing about room.
    pump.ready(id(1), READ, &mut world);
    assert_eq!(world.calls(), "r1");
    world.at(1).room = 100;
    pump.ready(id(1), WRITE, &mut world);
    assert_eq!(world.calls(), "w1");
    assert_eq!(world.at(1).outbound, b"abcdef");
}

#[test]
fn what_is_gathered_goes_in_one_write_at_the_end_of_the_turn() {
    let (mut pump, mut world) = relay(2, 64, 64);
    // As if both pairs had one client.
    pump.proxy.ends[3].peer = 0;
    pump.proxy.gathering = vec![0];
    for turn in 1..=3 {
        pump.begin(Instant::from_millis(turn));
        for (backend, bytes) in [(1, b"ab"), (3, b"cd"), (1, b"ef")] {
            world.at(backend).inbound.extend(bytes);
            pump.ready(id(backend), READ, &mut world);
            pump.check();
        }
        assert_eq!(world.calls(), "r1 r3 r1");
        pump.send_gathered(&mut world);
        assert_eq!(world.calls(), "w0");
        pump.check();
    }
    assert_eq!(world.at(0).outbound, b"abcdef".repeat(3));
    // What it wants to read does not wait, and takes along what there is to send.
    world.at(1).inbound.extend(b"gh");
    pump.ready(id(1), READ, &mut world);
    world.at(0).inbound.extend(b"x");
    pump.ready(id(0), READ, &mut world);
    assert_eq!(world.calls(), "r1 w0 r0 w1");
    pump.send_gathered(&mut world);
    assert_eq!(world.calls(), "");
    // Without room it waits for the event, not for the end of a turn.
    world.at(0).room = 1;
    world.at(1).inbound.extend(b"ij");
    pump.ready(id(1), READ, &mut world);
    pump.send_gathered(&mut world);
    world.at(1).inbound.extend(b"kl");
    pump.ready(id(1), READ, &mut world);
    pump.send_gathered(&mut world);
    assert_eq!(world.calls(), "r1 w0 r1");
    world.at(0).room = 100;
    pump.ready(id(0), WRITE, &mut world);
    assert_eq!(world.calls(), "w0");
    assert!(world.at(0).outbound.ends_with(b"ghijkl"));
}

#[test]
fn a_connection_gets_sixteen_rounds_a_turn_and_the_others_get_theirs() {
    let (mut pump, mut world) = relay(2, 4, 8);
    let endless: Vec<u8> = (0..1000).map(|i| i as u8).collect();
    world.at(0).inbound.extend(&endless);
    world.at(2).inbound.extend(b"short");
    let mut turns = 0;
    pump.begin(Instant::from_millis(1));
    pump.ready(id(0), READ, &mut world);
    let reads = world.calls.iter().filter(|c| **c == ('r', 0)).count();
    assert_eq!(
        reads,
        usize::from(MAX_ROUNDS),
        "rounds are counted over the whole turn, however often the core lists the pair"
    );
    assert!(pump.has_backlog());
    pump.ready(id(2), READ, &mut world);
    assert_eq!(world.at(3).outbound, b"short", "the other pair is served in the same turn");
    while pump.has_backlog() {
        turns += 1;
        assert!(turns < 100, "the backlog gets on");
        pump.begin(Instant::from_millis(turns));
        pump.resume(&mut world);
        pump.check();
    }
    assert_eq!(world.at(1).outbound, endless);
    assert!(turns >= 1000 / 4 / u64::from(MAX_ROUNDS) - 1);
}

#[test]
fn an_early_response_before_a_reset_is_read_before_the_fault_is_reported() {
    let table: &[(Readiness, Option<i32>, &[Input])] = &[
        // The write fails first.
        (WRITE, Some(libc::EPIPE), &[Input::Recv(1, 6), Input::Fault(1, Fault::Reset)]),
        // The event comes first.
        (ERROR, None, &[Input::Recv(1, 6), Input::Fault(1, Fault::Reset)]),
    ];
    for (event, send_error, expected) in table {
        let (mut pump, mut world) = relay(1, 64, 64);
        world.at(1).send_error = *send_error;
        world.at(1).room = 0;
        world.at(1).inbound.extend(b"413 no");
        world.at(1).fin = true;
        world.at(1).so_error = Some(libc::ECONNRESET);
        if send_error.is_some() {
            // Something to send.
            world.at(0).inbound.extend(b"body");
            pump.begin(Instant::from_millis(1));
            pump.ready(id(0), READ, &mut world);
        } else {
            pump.begin(Instant::from_millis(1));
            pump.ready(id(1), *event, &mut world);
        }
        let of_backend: Vec<Input> = pump
            .proxy
            .inputs
            .iter()
            .filter(|t| matches!(t, Input::Recv(1, _) | Input::Fault(..) | Input::End(_)))
            .cloned()
            .collect();
        assert_eq!(of_backend, *expected);
        assert!(world.sockets.is_empty(), "both closed");
    }
}

/// In TLS 1.3 a backend that does not like a client's certificate says so by an alert behind the handshake,
/// and closes with the request unread.
#[test]
fn what_the_peer_said_before_a_reset_is_the_reason() {
    use ruststrom_core::TlsFault;
    let refused = Fault::Tls(TlsFault::ClientCertificate);
    // That it was cut says less than how.
    for (behind, expected) in [(refused, refused), (Fault::Tls(TlsFault::Closed), Fault::Reset)] {
        for event_first in [false, true] {
            let (mut pump, mut world) = relay(1, 64, 64);
            world.at(1).insecure = Some(behind);
            world.at(1).so_error = Some(libc::ECONNRESET);
            pump.begin(Instant::from_millis(1));
            if event_first {
                pump.ready(id(1), ERROR, &mut world);
            } else {
                world.at(1).send_error = Some(libc::EPIPE);
                world.at(0).inbound.extend(b"body");
                pump.ready(id(0), READ, &mut world);
            }
            let told: Vec<&Input> =
                pump.proxy.inputs.iter().filter(|i| matches!(i, Input::Fault(..))).collect();
            assert_eq!(told, [&Input::Fault(1, expected)], "event first: {event_first}");
        }
    }
}

#[test]
fn a_peer_that_is_gone_is_noticed_though_nothing_is_read() {
    // The pair's room is full, so nothing more is wanted from 0.
    let (mut pump, mut world) = relay(1, 4, 4);
    world.at(1).room = 0;
    world.at(0).inbound.extend(b"abcd");
    pump.begin(Instant::from_millis(1));
    pump.ready(id(0), READ, &mut world);
    assert_eq!(pump.proxy.wants(id(0)), Wants { recv: false, send: false });
    world.calls.clear();
    // An end is remembered until it is wanted; that there is one is told at once ...
    world.at(0).fin = true;
    pump.ready(id(0), FIN, &mut world);
    assert_eq!(world.calls(), "");
    assert_eq!(pump.proxy.inputs.last(), Some(&Input::Closing(0)));
    world.at(1).room = 10;
    pump.ready(id(1), WRITE, &mut world);
    assert_eq!(world.calls(), "w1 r0 s1");
    // ... an error is reported at once.
    world.at(1).so_error = Some(libc::ETIMEDOUT);
    pump.proxy.ends[1].ended = true;
    pump.ready(id(1), Readiness { error: true, ..Readiness::default() }, &mut world);
    assert_eq!(pump.proxy.inputs.last(), Some(&Input::Fault(1, Fault::TimedOut)));
}

#[test]
fn connecting_ends_with_room_or_with_a_reason() {
    let to = SocketAddr::from(([127, 0, 0, 1], 1));
    let table: &[(Option<i32>, Readiness, Option<i32>, Input)] = &[
        // connect fails, event, SO_ERROR, input
        (None, WRITE, None, Input::Connected(0)),
        (None, ERROR, Some(libc::ECONNREFUSED), Input::Fault(0, Fault::Refused)),
        (None, ERROR, Some(libc::EHOSTUNREACH), Input::Fault(0, Fault::Unreachable)),
        (None, ERROR, Some(libc::ETIMEDOUT), Input::Fault(0, Fault::TimedOut)),
        (None, FIN, None, Input::Fault(0, Fault::Refused)),
        (Some(libc::EMFILE), WRITE, None, Input::Fault(0, Fault::NoResources)),
        (Some(libc::EADDRNOTAVAIL), WRITE, None, Input::Fault(0, Fault::NoResources)),
        (Some(libc::ENETUNREACH), WRITE, None, Input::Fault(0, Fault::Unreachable)),
        (Some(libc::EACCES), WRITE, None, Input::Fault(0, Fault::Denied)),
        (Some(libc::EPERM), WRITE, None, Input::Fault(0, Fault::Other)),
        (Some(libc::ENOENT), WRITE, None, Input::Fault(0, Fault::NoSocket)),
        (Some(libc::EPROTOTYPE), WRITE, None, Input::Fault(0, Fault::NoSocket)),
        (Some(libc::EAGAIN), WRITE, None, Input::Fault(0, Fault::BacklogFull)),
    ];
    for (refuse, event, so_error, expected) in table {
        let mut pump = Pump::new(Relay::new(1, 8, 8), Instant::ZERO);
        let mut world = FakeWorld { refuse_connect: *refuse, ..FakeWorld::default() };
        pump.proxy.effects.push_back(Effect::Connect { conn: id(0), to: to.into(), tls: None });
        pump.settle(&mut world);
        if let Some(s) = world.sockets.get_mut(&0) {
            s.so_error = *so_error;
        }
        // Not before the event, and not twice.
        pump.proxy.ends[0].out.extend(b"head");
        pump.proxy.listed.push_back(id(0));
        pump.settle(&mut world);
        pump.ready(id(0), *event, &mut world);
        pump.ready(id(0), Readiness::default(), &mut world);
        let about: Vec<&Input> = pump
            .proxy
            .inputs
            .iter()
            .filter(|t| matches!(t, Input::Connected(_) | Input::Fault(..)))
            .collect();
        assert_eq!(about, [expected]);
        let sent = pump.proxy.inputs.iter().any(|t| matches!(t, Input::Sent(0, 4)));
        assert_eq!(sent, *expected == Input::Connected(0), "{expected:?}");
    }
}

#[test]
fn shutting_down_waits_for_the_last_byte_and_stale_ids_are_ignored() {
    let (mut pump, mut world) = relay(1, 64, 64);
    world.at(1).room = 3;
    world.at(0).inbound.extend(b"abcdef");
    world.at(0).fin = true;
    pump.begin(Instant::from_millis(1));
    pump.ready(id(0), FIN, &mut world);
    assert!(!world.at(1).shut);
    world.at(1).room = 3;
    pump.ready(id(1), WRITE, &mut world);
    assert!(world.at(1).shut);
    assert_eq!(world.at(1).outbound, b"abcdef");
    world.calls.clear();
    pump.ready(ConnId { slot: 0, epoch: 6 }, ERROR, &mut world);
    pump.ready(ConnId { slot: 99, epoch: 7 }, ERROR, &mut world);
    pump.fault(ConnId { slot: 0, epoch: 6 }, Fault::Other, &mut world);
    assert_eq!(world.calls(), "");
    // Close, and a late event of the same batch.
    pump.fault(id(0), Fault::Other, &mut world);
    assert!(world.sockets.is_empty());
    world.calls.clear();
    pump.ready(id(0), FIN, &mut world);
    pump.ready(id(1), FIN, &mut world);
    assert_eq!(world.calls(), "");
    // A reset, once.
    let (mut pump, mut world) = relay(1, 64, 64);
    pump.proxy.effects.extend([
        Effect::Reset(id(1)),
        Effect::Reset(id(1)),
        Effect::Close(id(1)),
        Effect::Close(id(0)),
    ]);
    pump.settle(&mut world);
    assert_eq!(world.calls(), "R1 x0");
}

#[test]
fn without_a_page_nothing_is_read_until_the_core_lists_the_connection_again() {
    let (mut pump, mut world) = relay(1, 64, 64);
    world.at(0).inbound.extend(b"abc");
    pump.proxy.no_pages = true;
    pump.begin(Instant::from_millis(1));
    pump.ready(id(0), READ, &mut world);
    assert_eq!(world.calls(), "");
    assert!(!pump.has_backlog(), "waiting for a page does not spin");
    pump.proxy.no_pages = false;
    pump.proxy.listed.push_back(id(0));
    pump.settle(&mut world);
    assert_eq!(world.calls(), "r0 w1");
    // A broken socket does not wait for a page.
    pump.proxy.no_pages = true;
    pump.ready(id(0), ERROR, &mut world);
    assert!(pump.proxy.inputs.contains(&Input::Fault(0, Fault::Reset)));
}

#[test]
fn timers_expire_only_when_due_and_the_clock_is_read_again_in_a_long_turn() {
    let (mut pump, mut world) = relay(1, 1, 1 << 20);
    pump.proxy.timeout = Some(Instant::from_millis(10));
    pump.begin(Instant::from_millis(9));
    pump.tick(&mut world);
    assert_eq!(pump.proxy.inputs, []);
    pump.begin(Instant::from_millis(10));
    pump.tick(&mut world);
    pump.tick(&mut world);
    assert_eq!(pump.proxy.inputs, [Input::Timeout]);
    world.clock = 1000;
    for _ in 0..SERVED_PER_CLOCK {
        pump.ready(id(0), WRITE, &mut world);
    }
    assert!(pump.now() > Instant::from_millis(1000));
    pump.drain(Instant::NEVER, &mut world);
    assert!(pump.is_drained());
}

#[test]
fn a_refused_connection_leaves_nothing() {
    let mut pump = Pump::new(Relay::new(1, 8, 8), Instant::ZERO);
    let local = SocketAddr::from(([127, 0, 0, 1], 80));
    let a = Accepted {
        listener: ListenerId(0),
        kind: ListenerKind::Http,
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        local,
    };
    assert_eq!(pump.accept(&a), Err(Refused::TooManyConnections));
    assert!(pump.flags.is_empty());
}

/// A client that is to speak TLS, just accepted; whether a read was worth it.
fn secured(pump: &mut Pump<Relay>, world: &mut FakeWorld) -> bool {
    let local = SocketAddr::from(([127, 0, 0, 1], 443));
    let peer = SocketAddr::from(([127, 0, 0, 1], 9));
    let a = Accepted { listener: ListenerId(0), kind: ListenerKind::Https, peer, local };
    let c = pump.accept(&a).expect("taken");
    world.sockets.insert(c.slot, Socket { room: 1 << 30, ..Socket::default() });
    pump.opened(c, true, world)
}

#[test]
fn a_client_is_served_once_its_handshake_is_over() {
    let (mut pump, mut world) = (Pump::new(Relay::new(1, 8, 8), Instant::ZERO), FakeWorld::default());
    assert!(!secured(&mut pump, &mut world));
    // Ciphertext is nothing to the core, whatever is to be sent.
    pump.proxy.ends[0].out.extend(b"early");
    pump.proxy.list(0);
    pump.ready(id(0), Readiness { closed: true, ..READ }, &mut world);
    assert_eq!((world.calls().as_str(), &pump.proxy.inputs[..]), ("t0 h0 h0", &[][..]));
    world.handshakes.push_back(Ok(true));
    world.at(0).inbound.extend(b"GET");
    pump.ready(id(0), READ, &mut world);
    // What came with the handshake's last bytes is no event of its own.
    let expected = [Input::Negotiated(0), Input::Sent(0, 5), Input::Recv(0, 3)];
    assert_eq!((world.calls().as_str(), &pump.proxy.inputs[..]), ("h0 w0 r0", &expected[..]));
    // At once, if the handshake was that quick.
    let (mut pump, mut world) = (Pump::new(Relay::new(1, 8, 8), Instant::ZERO), FakeWorld::default());
    world.handshakes.push_back(Ok(true));
    assert!(secured(&mut pump, &mut world));
    assert_eq!(pump.proxy.inputs, [Input::Negotiated(0), Input::Recv(0, 0)]);
}

/// A backend that speaks TLS.
fn target() -> Arc<TlsTarget> {
    let text = "http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [\"https://10.0.0.1:443\"]";
    let config = ruststrom_core::config::parse(text).config.expect("a good configuration");
    config.pools[0].backends[0].protocol.tls().cloned().expect("it speaks TLS")
}

#[test]
fn a_backend_is_connected_once_its_handshake_is_over() {
    let to = SocketAddr::from(([127, 0, 0, 1], 1));
    let (mut pump, mut world) = (Pump::new(Relay::new(1, 8, 8), Instant::ZERO), FakeWorld::default());
    pump.proxy.effects.push_back(Effect::Connect { conn: id(0), to: to.into(), tls: Some(target()) });
    pump.settle(&mut world);
    pump.ready(id(0), WRITE, &mut world);
    pump.ready(id(0), READ, &mut world);
    assert_eq!((world.calls().as_str(), &pump.proxy.inputs[..]), ("c0 h0 h0", &[Input::Handshaking(0)][..]));
    world.handshakes.push_back(Ok(true));
    pump.ready(id(0), READ, &mut world);
    assert_eq!(pump.proxy.inputs[1..], [Input::Negotiated(0), Input::Recv(0, 0)]);
    // A socket that was not connected has no handshake.
    let (mut pump, mut world) = (Pump::new(Relay::new(1, 8, 8), Instant::ZERO), FakeWorld::default());
    pump.proxy.effects.push_back(Effect::Connect { conn: id(0), to: to.into(), tls: Some(target()) });
    pump.settle(&mut world);
    world.at(0).so_error = Some(libc::ECONNREFUSED);
    pump.ready(id(0), ERROR, &mut world);
    assert_eq!(
        (world.calls().as_str(), &pump.proxy.inputs[..]),
        ("c0 x0", &[Input::Fault(0, Fault::Refused)][..])
    );
}

#[test]
fn a_handshake_that_fails_is_told_once() {
    let closed = Fault::Tls(ruststrom_core::TlsFault::Closed);
    for fault in [closed, Fault::PlainHttp, Fault::UnrecognizedName, Fault::Reset] {
        let (mut pump, mut world) = (Pump::new(Relay::new(1, 8, 8), Instant::ZERO), FakeWorld::default());
        assert!(!secured(&mut pump, &mut world));
        world.handshakes.push_back(Err(fault));
        pump.ready(id(0), READ, &mut world);
        pump.ready(id(0), READ, &mut world);
        let told: Vec<&Input> = pump.proxy.inputs.iter().filter(|i| matches!(i, Input::Fault(..))).collect();
        assert_eq!(told, [&Input::Fault(0, fault)]);
    }
}

#[test]
fn flags_are_eight_bytes() {
    assert_eq!(size_of::<Flags>(), 8);
}

/// Any interleaving of arrivals, room and ends: every byte arrives, in order, and no wake-up is lost.
#[test]
fn bytes_arrive_whatever_the_sockets_do() {
    for seed in 1..400_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = move |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let (room, cap) = (1 + dice(40) as usize, 1 + dice(90) as usize);
        let (mut pump, mut world) = relay(3, room, cap);
        let messages: Vec<Vec<u8>> =
            (0..6).map(|_| (0..dice(3000)).map(|_| dice(256) as u8).collect()).collect();
        let mut given = [0; 6];
        for slot in 0..6 {
            world.at(slot).room = dice(50) as usize;
        }
        let mut arrived = vec![Vec::new(); 6];
        for turn in 0..20_000 {
            pump.begin(Instant::from_millis(turn));
            let slot = dice(6) as u32;
            if world.sockets.contains_key(&slot) {
                let i = slot as usize;
                let mut event = Readiness::default();
                let more = (1 + dice(200) as usize).min(messages[i].len() - given[i]);
                if more > 0 && dice(2) == 0 {
                    world.at(slot).inbound.extend(&messages[i][given[i]..given[i] + more]);
                    given[i] += more;
                    event.readable = true;
                } else if given[i] == messages[i].len() && !world.at(slot).fin {
                    world.at(slot).fin = true;
                    event.readable = true;
                    event.closed = true;
                } else if world.at(slot).room == 0 {
                    // An edge: only a socket that had no room reports some.
                    world.at(slot).room = 1 + dice(100) as usize;
                    event.writable = true;
                }
                pump.ready(id(slot), event, &mut world);
            }
            pump.resume(&mut world);
            pump.check();
            for (s, x) in &mut world.sockets {
                arrived[*s as usize].append(&mut x.outbound);
            }
            for (s, x) in &mut world.left_behind {
                arrived[*s as usize].append(x);
            }
            if arrived.iter().enumerate().all(|(i, got)| got.len() == messages[i ^ 1].len()) {
                break;
            }
        }
        for (i, got) in arrived.iter().enumerate() {
            assert!(
                *got == messages[i ^ 1],
                "seed {seed}: {} of {} bytes at {i}",
                got.len(),
                messages[i ^ 1].len()
            );
        }
    }
}
