//! The bytes of another process's snapshot, whatever they are: in pieces they say the same as at once,
//! nothing is known of more than there is, and what is known then can be handed on in turn.

use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::{self, Config};
use ruststrom_core::health::ProbeOutcome;
use ruststrom_core::observe::HealthState;
use ruststrom_core::shared::{Extent, HeldLimiters, Restore, Restored};
use ruststrom_core::{Cause, Instant, Shared};

use super::input::{Input, cuts};

const TEXT: &str = "http_address = \"127.0.0.1:8080\"\n\
    [[backend_pools]]\nname = \"web\"\nmatcher = \"Host('a')\"\n\
    addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n\
    [backend_pools.health_config]\npath = \"/up\"\nrise = 2\nfall = 2\n\
    [backend_pools.middlewares.RateLimiter]\nlimit = 20\nwindow_sec = 60\n\
    [[backend_pools]]\nname = \"unchecked\"\naddresses = [\"10.0.0.3:80\"]\n\
    [backend_pools.health_config]\ncheck_every = 0\n";
const TAKEN: Instant = Instant::from_millis(50_000);
const MOST: usize = 1 << 20;
const CLIENTS: u8 = 2;

/// A process that has the configuration.
struct Process {
    shared: Shared,
    _limiters: HeldLimiters,
}

impl Process {
    fn new(config: &Arc<Config>) -> Self {
        let shared = Shared::new("host", 2);
        drop(shared.prepare(config));
        let limiters = shared.hold_limiters([3, 4]);
        Self { shared, _limiters: limiters }
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut snapshot = self.shared.snapshot(Extent::Everything, TAKEN, 77, MOST);
        let mut bytes = Vec::new();
        while snapshot.next_part(&mut bytes) {}
        assert!(snapshot.is_complete());
        bytes
    }

    fn restore(&self, bytes: &[u8], ends: &[usize], now: Instant) -> Restored {
        let mut restore = Restore::new(&self.shared, TAKEN, now);
        let mut from = 0;
        for end in ends {
            restore.take(&bytes[from..*end]);
            from = *end;
        }
        restore.finish()
    }

    fn states(&self) -> Vec<HealthState> {
        let pools = self.shared.pools();
        pools.iter().flat_map(|pool| pool.backends()).map(|backend| backend.health().state()).collect()
    }
}

/// Each record of a snapshot of a process that knows something of each backend, and its end.
fn records(config: &Arc<Config>) -> Vec<Vec<u8>> {
    let old = Process::new(config);
    let bad = ProbeOutcome::Failed { why: Cause::ConnectRefused };
    for pool in old.shared.pools() {
        for place in 0..pool.backends().len() as u16 {
            let at = TAKEN - Duration::from_secs(9);
            pool.probed(place, &bad, at);
            pool.connect_failed(place, at);
        }
    }
    let bytes = old.snapshot();
    let mut rest = &bytes[Restore::HEAD..];
    let mut records = Vec::new();
    while let Some(length) = rest.get(1..5).and_then(|four| four.try_into().ok()) {
        let (one, others) = rest.split_at(5 + u32::from_le_bytes(length) as usize);
        records.push(one.to_vec());
        rest = others;
    }
    assert!(rest.is_empty() && records.len() == 4);
    records
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32).to_le_bytes(), body].concat()
}

/// What the choices make: bytes of any kind, records of any kind, true ones with some bytes changed, and
/// clients of the limit that there is.
fn made(input: &mut Input<'_>, config: &Arc<Config>) -> Vec<u8> {
    let records = records(config);
    let mut bytes = Vec::new();
    while !input.is_empty() {
        match input.byte() % 4 {
            0 => bytes.extend_from_slice(input.piece()),
            1 => bytes.extend(record(input.byte(), input.piece())),
            2 => {
                let mut record = records[input.below(records.len())].clone();
                for _ in 0..input.below(4) {
                    let at = input.below(record.len());
                    record[at] ^= input.byte();
                }
                bytes.extend(record);
            }
            _ => {
                let nth = u16::from(input.below(2) as u8).to_le_bytes();
                bytes.extend(record(CLIENTS, &[b"\x03\0web", &nth[..], input.piece()].concat()));
            }
        }
    }
    bytes
}

pub(super) fn run(data: &[u8]) {
    if let Some(head) = data.first_chunk() {
        assert_eq!(Restore::head(head).is_some(), head.starts_with(b"RSTR\r\n\x1aS\x01\0\0\0"));
    }
    let parsed = config::parse(TEXT);
    let config = Arc::new(parsed.config.expect("a good configuration"));
    let mut input = Input(data);
    let seed = input.byte();
    let now = TAKEN + Duration::from_millis(u64::from(input.byte()) * 500);
    let bytes = made(&mut input, &config);
    let (whole, parts) = (Process::new(&config), Process::new(&config));
    let restored = whole.restore(&bytes, &[bytes.len()], now);
    assert_eq!(parts.restore(&bytes, &cuts(seed, bytes.len()), now), restored);
    let states = whole.states();
    assert_eq!(parts.states(), states);
    let known = states.iter().filter(|state| **state != HealthState::Unknown).count();
    assert!(known <= restored.backends && restored.unhealthy <= restored.backends);
    // No record is shorter than its head, and no client than what stands for one.
    assert!(restored.backends + restored.invalid <= bytes.len() / 5 + bytes.len() / 13 + 1);
    assert!(restored.clients + restored.no_place <= bytes.len() / 13);
    // What we say of it ourselves is right, and everything.
    let next = Process::new(&config);
    let snapshot = whole.snapshot();
    // Clients may have been seen until now.
    let told = next.restore(&snapshot[Restore::HEAD..], &[snapshot.len() - Restore::HEAD], now);
    assert!(told.complete && told.invalid == 0, "{told:?} of {restored:?}");
    assert!(told.clients <= restored.clients, "{told:?} of {restored:?}");
}
