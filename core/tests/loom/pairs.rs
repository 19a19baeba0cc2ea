//! Every operation of each shared type beside every other one.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ruststrom_core::Shared;
use ruststrom_core::balance::PoolState;
use ruststrom_core::config::Config;

use super::orders::{Op, each_pair_has_an_order};
use super::{BAD, GOOD, LATER, NAMED, NOW, ONE, SLOW, address, config, pool, unchecked};

/// Configurations are parsed once, since a model runs many times.
fn once(cell: &'static OnceLock<Config>, make: fn() -> Config) -> &'static Config {
    cell.get_or_init(make)
}

fn checked_pool() -> Arc<PoolState> {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    pool(once(&CONFIG, || config(ONE)))
}

fn unchecked_pool() -> Arc<PoolState> {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    pool(once(&CONFIG, || unchecked(ONE)))
}

fn named_pool() -> Arc<PoolState> {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    pool(once(&CONFIG, || config(NAMED)))
}

// ---- health

/// Everything that can be read of a backend's health. It is one word, so half of one change and half of
/// another is never seen.
fn health(pool: &Arc<PoolState>) -> String {
    let (health, rules) = (pool.backends()[0].health(), pool.rules());
    format!(
        "{:?} {:?} {:?} {}",
        health.half_open_at(rules),
        health.ramp_end(rules, LATER),
        health.weight_permille(rules, LATER),
        health.usable()
    )
}

const STATE: Op<Arc<PoolState>> = ("state", |pool| format!("{:?}", pool.backends()[0].health().state()));
const USABLE: Op<Arc<PoolState>> = ("usable", |pool| pool.backends()[0].health().usable().to_string());
const WEIGHT: Op<Arc<PoolState>> =
    ("weight_permille", |pool| pool.backends()[0].health().weight_permille(pool.rules(), LATER).to_string());
const RAMP: Op<Arc<PoolState>> =
    ("ramp_end", |pool| format!("{:?}", pool.backends()[0].health().ramp_end(pool.rules(), LATER)));
const TRIAL_AT: Op<Arc<PoolState>> =
    ("half_open_at", |pool| format!("{:?}", pool.backends()[0].health().half_open_at(pool.rules())));
const VERSION: Op<Arc<PoolState>> = ("version", |pool| pool.version().to_string());
const GOOD_PROBE: Op<Arc<PoolState>> = ("a good probe", |pool| format!("{:?}", pool.probed(0, &GOOD, LATER)));
const SLOW_PROBE: Op<Arc<PoolState>> = ("a slow probe", |pool| format!("{:?}", pool.probed(0, &SLOW, LATER)));
const BAD_PROBE: Op<Arc<PoolState>> = ("a bad probe", |pool| format!("{:?}", pool.probed(0, &BAD, LATER)));
const CONNECT_FAILED: Op<Arc<PoolState>> =
    ("connect_failed", |pool| format!("{:?}", pool.connect_failed(0, LATER)));
const CONNECTED: Op<Arc<PoolState>> = ("connected", |pool| format!("{:?}", pool.connected(0, LATER)));
const TRY_TRIAL: Op<Arc<PoolState>> =
    ("try_half_open", |pool| pool.backends()[0].health().try_half_open(pool.rules(), LATER).to_string());

const CHECKED: &[Op<Arc<PoolState>>] = &[
    GOOD_PROBE,
    SLOW_PROBE,
    BAD_PROBE,
    CONNECT_FAILED,
    CONNECTED,
    TRY_TRIAL,
    STATE,
    USABLE,
    WEIGHT,
    RAMP,
    TRIAL_AT,
    VERSION,
];
const UNCHECKED: &[Op<Arc<PoolState>>] =
    &[CONNECT_FAILED, CONNECTED, TRY_TRIAL, STATE, USABLE, WEIGHT, RAMP, TRIAL_AT];

fn seen(pool: &Arc<PoolState>) -> String {
    // Counters that have not led to a change yet show at the next failures.
    let so_far = health(pool);
    let then = [BAD_PROBE, CONNECT_FAILED, GOOD_PROBE].map(|(_, op)| op(pool));
    format!("{so_far} {} {then:?}", pool.version())
}

/// As [`seen`], without the pool's version: two failures at once may move the next half-open attempt twice,
/// which costs the other shards one more look.
fn seen_unchecked(pool: &Arc<PoolState>) -> String {
    let so_far = health(pool);
    format!("{so_far} {:?}", [CONNECT_FAILED, CONNECT_FAILED].map(|(_, op)| op(pool)))
}

#[test]
fn of_health_unknown() {
    each_pair_has_an_order(checked_pool, CHECKED, seen);
}

#[test]
fn of_health_before_the_last_failure() {
    let fresh = || {
        let pool = checked_pool();
        assert!(pool.probed(0, &GOOD, NOW).is_some() && pool.probed(0, &BAD, NOW).is_none());
        assert!((0..2).all(|_| pool.connect_failed(0, NOW).is_none()));
        pool
    };
    each_pair_has_an_order(fresh, CHECKED, seen);
}

#[test]
fn of_health_before_the_last_good_probe() {
    let fresh = || {
        let pool = checked_pool();
        assert!(pool.probed(0, &BAD, NOW).is_some() && pool.probed(0, &GOOD, NOW).is_none());
        pool
    };
    each_pair_has_an_order(fresh, CHECKED, seen);
}

#[test]
fn of_health_while_its_share_grows() {
    let fresh = || {
        let pool = checked_pool();
        assert!(
            pool.probed(0, &BAD, NOW).is_some()
                && pool.probed(0, &GOOD, NOW).is_none()
                && pool.probed(0, &GOOD, NOW).is_some()
        );
        assert!((0..2).all(|_| pool.connect_failed(0, NOW).is_none()));
        pool
    };
    each_pair_has_an_order(fresh, CHECKED, seen);
}

#[test]
fn of_health_without_probes_before_the_last_failure() {
    let fresh = || {
        let pool = unchecked_pool();
        assert!((0..2).all(|_| pool.connect_failed(0, NOW).is_none()));
        pool
    };
    each_pair_has_an_order(fresh, UNCHECKED, seen_unchecked);
}

#[test]
fn of_health_with_a_half_open_attempt_due() {
    let fresh = || {
        let pool = unchecked_pool();
        assert_eq!((0..3).filter_map(|_| pool.connect_failed(0, NOW)).count(), 1);
        pool
    };
    each_pair_has_an_order(fresh, UNCHECKED, seen_unchecked);
}

// ---- slots and marks

#[test]
fn of_slots_and_marks() {
    let fresh = || {
        let pool = checked_pool();
        assert!(pool.backends()[0].try_start(None));
        pool.wait(1);
        pool
    };
    let ops: &[Op<Arc<PoolState>>] = &[
        ("try_start below one", |pool| pool.backends()[0].try_start(Some(1)).to_string()),
        ("try_start below two", |pool| pool.backends()[0].try_start(Some(2)).to_string()),
        ("try_start", |pool| pool.backends()[0].try_start(None).to_string()),
        ("in_flight", |pool| pool.backends()[0].in_flight().to_string()),
        ("wait, the first", |pool| format!("{:?}", pool.wait(0))),
        ("wait, the second", |pool| format!("{:?}", pool.wait(1))),
        ("take_waiting", |pool| format!("{:?}", pool.take_waiting().collect::<Vec<_>>())),
    ];
    let end: fn(&Arc<PoolState>) -> String =
        |pool| format!("{} {:?}", pool.backends()[0].in_flight(), pool.take_waiting().collect::<Vec<_>>());
    each_pair_has_an_order(fresh, ops, end);
    // A slot to give back for each of two operations.
    let two = || {
        let pool = checked_pool();
        assert!(pool.backends()[0].try_start(None) && pool.backends()[0].try_start(None));
        pool.wait(1);
        pool
    };
    let finish: Op<Arc<PoolState>> = ("finish", |pool| format!("{:?}", pool.finish(0).collect::<Vec<_>>()));
    each_pair_has_an_order(two, &[&[finish], ops].concat(), end);
}

// ---- addresses

const ADDRESSES: &[Op<Arc<PoolState>>] = &[
    ("one is found", |pool| pool.resolved(0, &[address("10.0.0.9:80")]).to_string()),
    ("two are found", |pool| pool.resolved(0, &[address("10.0.0.7:80"), address("10.0.0.8:80")]).to_string()),
    ("none is found", |pool| pool.resolved(0, &[]).to_string()),
    ("the first refuses", |pool| pool.backends()[0].refused(Some(address("10.0.0.7:80"))).to_string()),
    ("the second refuses", |pool| pool.backends()[0].refused(Some(address("10.0.0.8:80"))).to_string()),
    ("pick", |pool| format!("{:?}", pool.backends()[0].pick(0))),
    ("pick the second", |pool| format!("{:?}", pool.backends()[0].pick(1))),
    ("resolved", |pool| pool.backends()[0].resolved().to_string()),
];

fn picked(pool: &Arc<PoolState>) -> String {
    format!("{:?} {:?} {}", pool.backends()[0].pick(0), pool.backends()[0].pick(1), pool.version())
}

#[test]
fn of_addresses_not_known_yet() {
    each_pair_has_an_order(named_pool, ADDRESSES, picked);
}

#[test]
fn of_addresses_known() {
    let fresh = || {
        let pool = named_pool();
        assert!(pool.resolved(0, &[address("10.0.0.1:80"), address("10.0.0.2:80")]));
        pool
    };
    each_pair_has_an_order(fresh, ADDRESSES, picked);
}

// ---- clients

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

/// One connection from A that is counted, and one that is not.
fn clients() -> Shared {
    let shared = Shared::new("lb.test", 2);
    assert_eq!([shared.admit(A, 9, 9), shared.admit(A, 9, 0)], [Ok(()); 2]);
    shared
}

/// How many connections there are, and how many more from each address fit below three.
fn counted(shared: &Shared) -> String {
    let more = |ip| (0..).take_while(|_| shared.admit(ip, 99, 3).is_ok()).count();
    format!("{} {} {}", shared.connections(), more(A), more(B))
}

#[test]
fn of_clients() {
    let ops: &[Op<Shared>] = &[
        ("another of A below its cap", |shared| format!("{:?}", shared.admit(A, 4, 2))),
        ("another of A above its cap", |shared| format!("{:?}", shared.admit(A, 3, 1))),
        ("one of B, the last that fits", |shared| format!("{:?}", shared.admit(B, 3, 1))),
        ("one that is not counted", |shared| format!("{:?}", shared.admit(A, 3, 0))),
        ("one that does not fit", |shared| format!("{:?}", shared.admit(B, 2, 1))),
        ("connections", |shared| shared.connections().to_string()),
    ];
    each_pair_has_an_order(clients, ops, counted);
    // The connections that are there leave, each once.
    let leave: Op<Shared> = ("leave", |shared| format!("{:?}", shared.leave(A, true)));
    let leave_uncounted: Op<Shared> =
        ("leave, not counted", |shared| format!("{:?}", shared.leave(A, false)));
    let two = || {
        let shared = clients();
        assert_eq!([shared.admit(A, 9, 9), shared.admit(A, 9, 0)], [Ok(()); 2]);
        shared
    };
    let ops = [
        leave,
        leave_uncounted,
        ("another of A once one has left", |shared: &Shared| format!("{:?}", shared.admit(A, 9, 2))),
        ("one of B once one has left", |shared: &Shared| format!("{:?}", shared.admit(B, 4, 1))),
        ("connections", |shared: &Shared| shared.connections().to_string()),
    ];
    each_pair_has_an_order(two, &ops, counted);
}

// ---- readiness

#[test]
fn of_readiness() {
    let ops: &[Op<Shared>] = &[
        ("the first is ready", |shared| format!("{:?}", shared.set_ready(0))),
        ("the second is ready", |shared| format!("{:?}", shared.set_ready(1))),
        ("all_ready", |shared| shared.all_ready().to_string()),
    ];
    let one = || {
        let shared = Shared::new("lb.test", 2);
        shared.set_ready(1);
        shared
    };
    for fresh in [|| Shared::new("lb.test", 2), one] {
        each_pair_has_an_order(fresh, ops, |shared| shared.all_ready().to_string());
    }
}

// ---- reloads

fn reloads() -> &'static [Config; 3] {
    static ALL: OnceLock<[Config; 3]> = OnceLock::new();
    ALL.get_or_init(|| {
        [
            config(ONE),
            config("\"10.0.0.2:80\", \"10.0.0.1:80\""),
            config("{ address = \"10.0.0.1:80\", weight = 2 }, \"10.0.0.3:80\""),
        ]
    })
}

fn adopted(shared: &Shared, config: &Config) -> String {
    let pool = shared.adopt(config).swap_remove(0);
    let identities: Vec<_> =
        pool.backends().iter().map(|backend| (backend.identity(), backend.health().state())).collect();
    format!("{identities:?}")
}

#[test]
fn of_reloads() {
    struct Held {
        shared: Shared,
        old: Arc<PoolState>,
    }
    let fresh = || {
        let shared = Shared::new("lb.test", 2);
        let old = shared.adopt(&reloads()[0]).swap_remove(0);
        Held { shared, old }
    };
    let ops: &[Op<Held>] = &[
        ("the same again", |held| adopted(&held.shared, &reloads()[0])),
        ("another backend before", |held| adopted(&held.shared, &reloads()[1])),
        ("another backend behind", |held| adopted(&held.shared, &reloads()[2])),
        ("a probe in the old", |held| format!("{:?}", held.old.probed(0, &SLOW, NOW))),
        ("version of the old", |held| held.old.version().to_string()),
    ];
    each_pair_has_an_order(fresh, ops, |held| {
        let all = [0, 1, 2].map(|place| adopted(&held.shared, &reloads()[place]));
        format!("{all:?} {}", held.old.version())
    });
}
