use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::snapshot::Extent;
use super::*;
use crate::cause::Cause;
use crate::config::{self, Config};
use crate::health::ProbeOutcome;
use crate::middleware::Chain;
use crate::middleware::request_windows::{Decision, RequestLimit};

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const TAKEN: Instant = Instant::from_millis(50_000);
const MOST: usize = 1 << 20;
const BAD: ProbeOutcome = ProbeOutcome::Failed { why: Cause::ConnectRefused };
const GOOD: ProbeOutcome = ProbeOutcome::Good { status: 200, after: Duration::from_millis(1) };

/// A pool `web` with three backends and a limit, and one without checks.
const TEXT: &str = "http_address = \"127.0.0.1:8080\"\n\
    [[backend_pools]]\nname = \"web\"\nmatcher = \"Host('a')\"\n\
    addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\", \"10.0.0.3:80\"]\n\
    [backend_pools.health_config]\npath = \"/up\"\nrise = 2\nfall = 2\n\
    [backend_pools.middlewares.RateLimiter]\nlimit = 20\nwindow_sec = 60\n\
    [[backend_pools]]\nname = \"unchecked\"\naddresses = [\"10.0.0.4:80\"]\n\
    [backend_pools.health_config]\ncheck_every = 0\n";

/// A process that has this configuration.
struct Process {
    shared: Shared,
    config: Arc<Config>,
    _chains: Vec<Chain>,
}

impl Process {
    fn new(text: &str) -> Self {
        let parsed = config::parse(text);
        let config = Arc::new(parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics)));
        let shared = Shared::new("host", 2);
        drop(shared.prepare(&config));
        let chains = config.pools.iter().map(|pool| shared.chain(&config, pool, [3, 4])).collect();
        Self { shared, config, _chains: chains }
    }

    fn pool(&self, name: &str) -> Arc<PoolState> {
        self.shared.pools().into_iter().find(|pool| pool.name() == name).expect("a pool")
    }

    fn states(&self, pool: &str) -> Vec<HealthState> {
        self.pool(pool).backends().iter().map(|backend| backend.health().state()).collect()
    }

    fn admitted(&self, at: Instant, n: usize) -> usize {
        let windows = self.shared.middlewares.request_windows("web", 0).expect("made");
        let limit = RequestLimit::new(20, Duration::from_secs(60));
        (0..n).filter(|_| windows.admit(CLIENT, &limit, at) == Decision::Admitted).count()
    }

    fn snapshot(&self, extent: Extent) -> Vec<u8> {
        let mut snapshot = self.shared.snapshot(extent, TAKEN, 77, MOST);
        let mut bytes = Vec::new();
        while snapshot.next_part(&mut bytes) {}
        assert!(snapshot.is_complete());
        bytes
    }

    /// Takes a snapshot in pieces of this size.
    fn restore(&self, bytes: &[u8], piece: usize, taken: Instant, now: Instant) -> Restored {
        let mut restore = Restore::new(&self.shared, taken, now);
        bytes.chunks(piece).for_each(|piece| restore.take(piece));
        assert!(restore.pending.len() <= MAX_RECORD + 5);
        restore.finish()
    }
}

/// One backend is ill, one recovers, one is well, and one is ill that is not checked; a client has used up
/// most of its limit.
fn old() -> Process {
    let old = Process::new(TEXT);
    let web = old.pool("web");
    web.probed(0, &BAD, TAKEN - Duration::from_secs(9));
    web.probed(1, &BAD, TAKEN - Duration::from_secs(9));
    web.probed(1, &GOOD, TAKEN - Duration::from_secs(8));
    web.probed(2, &GOOD, TAKEN);
    web.probed(2, &BAD, TAKEN);
    let unchecked = old.pool("unchecked");
    for _ in 0..3 {
        unchecked.connect_failed(0, TAKEN - Duration::from_millis(300));
    }
    assert_eq!(old.admitted(TAKEN - Duration::from_secs(9), 18), 18);
    old
}

#[test]
fn health_and_windows_go_on() {
    use HealthState::{Healthy, Unhealthy};
    let bytes = old().snapshot(Extent::Everything);
    let head = bytes.first_chunk().expect("a head");
    assert_eq!(Restore::head(head), Some(77));
    for piece in [1, 3, 4, 5, 6, 17, 1000] {
        let new = Process::new(TEXT);
        let taken = Instant::from_millis(1_000_000);
        let now = taken + Duration::from_millis(100);
        let restored = new.restore(&bytes[HEAD..], piece, taken, now);
        let expected =
            Restored { backends: 4, unhealthy: 3, clients: 1, complete: true, ..Restored::default() };
        assert_eq!(restored, expected, "{piece}");
        assert_eq!(new.states("web"), [Unhealthy, Unhealthy, Healthy]);
        // What it was a probe away from, it is still.
        let web = new.pool("web");
        assert!(web.probed(0, &GOOD, now).is_none());
        assert_eq!(web.probed(1, &GOOD, now).map(|change| change.to), Some(Healthy));
        assert_eq!(web.probed(2, &BAD, now).map(|change| change.to), Some(Unhealthy));
        assert_eq!(new.states("unchecked"), [Unhealthy]);
        let unchecked = new.pool("unchecked");
        let rules = unchecked.rules();
        let due = unchecked.backends()[0].health().half_open_at(rules).expect("there are no checks");
        let pause = due.since(taken).as_millis();
        assert!((600..=801).contains(&pause), "0.3 s of about one second are over: {pause}");
        assert_eq!(new.admitted(now, 5), 2, "of 20");
        assert_eq!(new.admitted(taken + Duration::from_secs(52), 50), 18);
    }
}

/// What comes in a second snapshot is newer where nothing else says how things are.
#[test]
fn a_second_snapshot_has_what_is_new() {
    let old = old();
    let shared = Shared::new("host", 1);
    drop(shared.prepare(&old.config));
    let held = shared.hold_limiters([5, 6]);
    let mut new = Process { shared, config: old.config.clone(), _chains: Vec::new() };
    let first = new.restore(&old.snapshot(Extent::Everything)[HEAD..], 1000, TAKEN, TAKEN);
    assert_eq!((first.backends, first.clients, first.complete), (4, 1, true));
    // A shard finds what is held.
    new._chains = new.config.pools.iter().map(|pool| new.shared.chain(&new.config, pool, [3, 4])).collect();
    drop(held);
    old.pool("unchecked").connected(0, TAKEN);
    old.pool("web").probed(1, &GOOD, TAKEN);
    let since = Extent::Since(TAKEN);
    let second = new.restore(&old.snapshot(since)[HEAD..], 1000, TAKEN, TAKEN);
    assert_eq!((second.backends, second.unhealthy, second.clients), (1, 0, 0), "the client was quiet");
    assert_eq!(new.states("unchecked"), [HealthState::Healthy]);
    assert_eq!(new.states("web")[1], HealthState::Unhealthy, "its own checks decide");
    assert_eq!(old.admitted(TAKEN, 1), 1);
    let third = new.restore(&old.snapshot(since)[HEAD..], 1000, TAKEN, TAKEN);
    assert_eq!((third.backends, third.clients), (0, 1));
    assert_eq!(new.admitted(TAKEN, 5), 1, "of 20: 18 were in the first, and one in the last");
}

#[test]
fn what_its_own_probes_have_said_stays() {
    let bytes = old().snapshot(Extent::Everything);
    let new = Process::new(TEXT);
    new.pool("web").probed(0, &GOOD, TAKEN);
    new.pool("web").probed(2, &BAD, TAKEN);
    assert_eq!(new.restore(&bytes[HEAD..], 1000, TAKEN, TAKEN).backends, 2);
    assert_eq!(new.states("web"), [HealthState::Healthy, HealthState::Unhealthy, HealthState::Unhealthy]);
}

/// What another configuration says of a backend is not what was found; of a limit it is.
#[test]
fn another_configuration_takes_what_is_of_use_to_it() {
    let bytes = old().snapshot(Extent::Everything);
    for (what, from, to, backends, clients) in [
        ("the same", "/up", "/up", 4, 1),
        ("another check", "/up", "/down", 1, 1),
        ("another address", "10.0.0.2:80", "10.0.0.5:80", 3, 1),
        ("another protocol", "10.0.0.2:80", "https://10.0.0.2:80", 3, 1),
        ("another pool", "\"web\"", "\"site\"", 1, 0),
        ("checks where there were none", "check_every = 0", "check_every = 1", 3, 1),
        ("another order", "\"10.0.0.1:80\", \"10.0.0.2:80\"", "\"10.0.0.2:80\", \"10.0.0.1:80\"", 4, 1),
        ("another limit", "limit = 20\nwindow_sec = 60", "limit = 5\nwindow_sec = 10", 4, 1),
        ("a window that is over", "limit = 20\nwindow_sec = 60", "limit = 5\nwindow_sec = 5", 4, 0),
        ("no limit", "[backend_pools.middlewares.RateLimiter]\nlimit = 20\nwindow_sec = 60\n", "", 4, 0),
    ] {
        let text = TEXT.replace(from, to);
        assert!(text != TEXT || from == to, "{what}");
        let restored = Process::new(&text).restore(&bytes[HEAD..], 1000, TAKEN, TAKEN);
        let got = (restored.backends, restored.clients, restored.invalid, restored.complete);
        assert_eq!(got, (backends, clients, 0, true), "{what}");
    }
}

#[test]
fn what_is_no_snapshot_changes_nothing() {
    let bytes = old().snapshot(Extent::Everything);
    let head: &[u8; HEAD] = bytes.first_chunk().expect("a head");
    for at in 0..12 {
        let mut other = *head;
        other[at] ^= 1;
        assert_eq!(Restore::head(&other), None, "{at}");
    }
    let record = |kind: u8, body: &[u8]| [&[kind], &(body.len() as u32).to_le_bytes()[..], body].concat();
    for (what, bytes, invalid, complete) in [
        ("nothing", Vec::new(), 0, false),
        ("the end", record(END, b""), 0, true),
        ("of a later build", [record(9, b"what?"), record(END, b"")].concat(), 0, true),
        ("more behind the end", [record(END, b""), vec![255; 50]].concat(), 0, true),
        ("too long", vec![255; 50], 1, false),
        ("a short backend", [record(BACKEND, b"\x03\0we"), record(END, b"")].concat(), 1, true),
        ("no text", record(BACKEND, b"\x01\0\xff\x01\0a"), 1, false),
        ("a short client", record(CLIENTS, b"\x03\0web\0\x00123"), 1, false),
        ("an unknown limiter", record(CLIENTS, b"\x03\0web\x07\x00123"), 0, false),
        ("half a record", record(BACKEND, b"\x03\0we")[..6].to_vec(), 0, false),
    ] {
        for piece in [1, 1000] {
            let restored = Process::new(TEXT).restore(&bytes, piece, TAKEN, TAKEN);
            assert_eq!(restored, Restored { invalid, complete, ..Restored::default() }, "{what}");
        }
    }
}

/// A stamp from elsewhere keeps no backend away for longer than a pause.
#[test]
fn no_pause_is_longer_than_any() {
    let old = old();
    let known = config::parse(TEXT).config.expect("good");
    let (pool, backend) = (&known.pools[1], &known.pools[1].backends[0]);
    for (after, most) in [(i64::MAX, 66_001), (i64::MIN, 0), (5_000, 5_000)] {
        let mut body = b"\x09\0unchecked\x0b\0".to_vec();
        body.extend_from_slice(b"10.0.0.4:80");
        body.extend_from_slice(&checked_by(pool, backend).to_le_bytes());
        body.extend_from_slice(&u32::MAX.to_le_bytes());
        body.extend_from_slice(&after.to_le_bytes());
        let record = [&[BACKEND], &(body.len() as u32).to_le_bytes()[..], &body].concat();
        assert_eq!(old.restore(&record, 1000, TAKEN, TAKEN).backends, 1);
        let unchecked = old.pool("unchecked");
        let due = unchecked.backends()[0].health().half_open_at(unchecked.rules()).expect("ill");
        assert_eq!(due.since(TAKEN).as_millis(), most, "{after}");
        assert!(unchecked.backends()[0].health().try_half_open(unchecked.rules(), due));
    }
}

#[test]
fn a_snapshot_has_an_end_however_many_clients_there_are() {
    let old = old();
    let windows = old.shared.middlewares.request_windows("web", 0).expect("made");
    let limit = RequestLimit::new(20, Duration::from_secs(60));
    (0..30_000_u32).for_each(|n| _ = windows.admit(IpAddr::V4(n.into()), &limit, TAKEN));
    for (most, complete) in [(1 << 20, true), (100_000, false), (0, false)] {
        let mut snapshot = old.shared.snapshot(Extent::Everything, TAKEN, 0, most);
        let (mut bytes, mut longest) = (Vec::new(), 0);
        loop {
            let before = bytes.len();
            if !snapshot.next_part(&mut bytes) {
                break;
            }
            longest = longest.max(bytes.len() - before);
        }
        assert_eq!(snapshot.is_complete(), complete);
        assert!(bytes.len() < most + 40_000 && longest < 40_000, "{} {longest}", bytes.len());
        let restored = Process::new(TEXT).restore(&bytes[HEAD..], 4096, TAKEN, TAKEN);
        assert_eq!((restored.clients, restored.complete), (snapshot.clients(), true));
        assert_eq!(restored.backends, 4);
        assert_eq!(restored.clients == 30_001, complete);
    }
}

proptest! {
    /// Bytes of a snapshot of which some are others, and only so many are left.
    #[test]
    fn damaged_snapshots_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end: prop::sample::Index,
        piece in 1..200_usize,
        now_ms in 0..200_000_u64,
    ) {
        let mut bytes = old().snapshot(Extent::Everything).split_off(HEAD);
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        bytes.truncate(end.index(bytes.len() + 1));
        let new = Process::new(TEXT);
        let now = Instant::from_millis(now_ms);
        let restored = new.restore(&bytes, piece, now, now);
        prop_assert!(restored.backends <= 4 && restored.clients <= 1);
        // What was taken can be served by.
        new.admitted(now, 50);
        for pool in new.shared.pools() {
            for place in 0..pool.backends().len() as u16 {
                pool.connect_failed(place, now);
                pool.probed(place, &GOOD, now);
                pool.connected(place, now);
                pool.backends()[usize::from(place)].health().try_half_open(pool.rules(), now);
            }
        }
        prop_assert!(new.config.pools.len() == 2);
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..800), piece in 1..200_usize) {
        let restored = Process::new(TEXT).restore(&bytes, piece, TAKEN, TAKEN);
        prop_assert_eq!((restored.backends, restored.clients), (0, 0));
    }
}
