//! The state that shards share, in every order in which the steps of two shards can interleave:
//! `RUSTFLAGS="--cfg loom" cargo test -p ruststrom-core --test loom`.
//!
//! `pairs` runs each operation of a shared type beside each other one. The tests in this file take several
//! operations: a shard that waits is nudged, a choice sees the last change, a reload carries all state over.
#![cfg(loom)]

#[path = "loom/orders.rs"]
mod orders;
#[path = "loom/pairs.rs"]
mod pairs;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use orders::both_ways;
use ruststrom_core::balance::{Balancer, Choice, PoolState, SelectionInput, Tried};
use ruststrom_core::cause::Cause;
use ruststrom_core::config::{self, Config, Strategy};
use ruststrom_core::health::ProbeOutcome;
use ruststrom_core::observe::HealthState;
use ruststrom_core::{Instant, Shared};

const NOW: Instant = Instant::from_millis(1_000);
/// When the pause of a backend that became Unhealthy at [`NOW`] is over.
const LATER: Instant = Instant::from_millis(3_000);
const GOOD: ProbeOutcome = ProbeOutcome::Good { status: 200, after: Duration::ZERO };
const SLOW: ProbeOutcome = ProbeOutcome::Good { status: 200, after: Duration::from_secs(1) };
const BAD: ProbeOutcome = ProbeOutcome::Failed { why: Cause::ConnectRefused };

const ONE: &str = "\"10.0.0.1:80\"";
const TWO: &str = "\"10.0.0.1:80\", \"10.0.0.2:80\"";
const NAMED: &str = "\"b.test:80\"";

/// A configuration with probes, two of which change the state.
fn config(backends: &str) -> Config {
    with_checks(1, backends)
}

/// A configuration without probes: real requests try Unhealthy backends.
fn unchecked(backends: &str) -> Config {
    with_checks(0, backends)
}

fn with_checks(every: u32, backends: &str) -> Config {
    let text = format!(
        "http_address = \"192.0.2.1:80\"\n[[backend_pools]]\naddresses = [{backends}]\n\
         [backend_pools.health_config]\ncheck_every = {every}\nrise = 2\nfall = 2\n"
    );
    config::parse(&text).config.expect("a good text")
}

fn pool(config: &Config) -> Arc<PoolState> {
    Shared::new("lb.test", 2).adopt(config).swap_remove(0)
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn balancer(config: &Config, pool: &Arc<PoolState>) -> Balancer {
    Balancer::new(&config.pools[0], pool.clone(), 1)
}

fn choose(balancer: &mut Balancer, now: Instant) -> Choice {
    balancer.choose(
        &SelectionInput { client: IpAddr::from([192, 0, 2, 7]), sticky: None, tried: &Tried::new() },
        now,
    )
}

// ---- slots

/// Takes a slot of the only backend as an exchange on `shard` does: it tries once more after it has set the
/// mark, before it waits.
fn start_or_wait(pool: &PoolState, shard: u16) -> bool {
    pool.backends()[0].try_start(Some(1)) || {
        pool.wait(shard);
        pool.backends()[0].try_start(Some(1))
    }
}

#[test]
fn whoever_waits_is_nudged_or_has_its_slot() {
    let config = config(ONE);
    both_ways(move |order| {
        let pool = pool(&config);
        assert!(pool.backends()[0].try_start(Some(1)));
        let other = pool.clone();
        let finishing = order.spawn(move || other.finish(0).collect::<Vec<u16>>());
        let got = start_or_wait(&pool, 1);
        let nudged = finishing.join().unwrap();
        assert!(got || nudged.contains(&1), "a lost wake-up");
        // A mark that is left over only costs a nudge, but no slot may be taken twice.
        assert_eq!(pool.backends()[0].in_flight(), u32::from(got));
    });
}

#[test]
fn of_two_shards_that_wait_none_is_missed() {
    let config = config(ONE);
    both_ways(move |order| {
        let pool = pool(&config);
        assert!(pool.backends()[0].try_start(Some(1)));
        let (finisher, waiter) = (pool.clone(), pool.clone());
        let finishing = order.spawn(move || finisher.finish(0).collect::<Vec<u16>>());
        let waiting = order.spawn(move || start_or_wait(&waiter, 1));
        let first = start_or_wait(&pool, 0);
        let (nudged, second) = (finishing.join().unwrap(), waiting.join().unwrap());
        assert!(!(first && second));
        if first || second {
            // The slot is given back, and a shard that has not been nudged yet is nudged then.
            let then: Vec<u16> = pool.finish(0).collect();
            let loser = u16::from(first);
            assert!(nudged.contains(&loser) || then.contains(&loser), "a lost wake-up");
        } else {
            assert_eq!(nudged, [0, 1], "a lost wake-up");
        }
    });
}

/// The marks of many shards lie in several words: each is still given out once.
#[test]
fn of_two_slots_that_come_free_one_nudges_each_that_waits() {
    let config = config(ONE);
    both_ways(move |order| {
        let pool = Shared::new("lb.test", 100).adopt(&config).swap_remove(0);
        assert!(pool.backends()[0].try_start(None) && pool.backends()[0].try_start(None));
        [3, 70].iter().for_each(|&shard| pool.wait(shard));
        let other = pool.clone();
        let t = order.spawn(move || other.finish(0).collect::<Vec<u16>>());
        let mut nudged: Vec<u16> = pool.finish(0).collect();
        nudged.extend(t.join().unwrap());
        nudged.sort_unstable();
        assert_eq!(nudged, [3, 70]);
        assert!(pool.take_waiting().is_empty());
    });
}

// ---- choices

#[test]
fn turns_are_taken_once() {
    let config = config(TWO);
    both_ways(move |order| {
        let pool = pool(&config);
        let (mut other, mut mine) = (balancer(&config, &pool), balancer(&config, &pool));
        let t = order.spawn(move || choose(&mut other, NOW));
        let mine = choose(&mut mine, NOW);
        let theirs = t.join().unwrap();
        assert!(matches!(
            (mine, theirs),
            (Choice::Backend(0), Choice::Backend(1)) | (Choice::Backend(1), Choice::Backend(0))
        ));
    });
}

/// If both shards see the same backend as the least loaded and it has one slot, the later one takes the next
/// backend.
#[test]
fn the_last_slot_of_the_least_loaded_goes_to_one() {
    let mut config = config(TWO);
    let only = Arc::make_mut(&mut config.pools[0]);
    only.strategy = Strategy::LeastConnection;
    only.backends.iter_mut().for_each(|backend| backend.max_connections = Some(1));
    both_ways(move |order| {
        let pool = pool(&config);
        let (mut other, mut mine) = (balancer(&config, &pool), balancer(&config, &pool));
        let t = order.spawn(move || choose(&mut other, NOW));
        let mine = choose(&mut mine, NOW);
        let theirs = t.join().unwrap();
        assert!(matches!(
            (mine, theirs),
            (Choice::Backend(0), Choice::Backend(1)) | (Choice::Backend(1), Choice::Backend(0))
        ));
    });
}

/// While one shard makes the plan that another will follow, `change` happens. At their next choice, both see
/// it.
fn nobody_keeps_an_outdated_plan(
    config: Config,
    before: fn(&PoolState),
    change: fn(&PoolState),
    at: Instant,
    expected: &'static [u16],
) {
    both_ways(move |order| {
        let pool = pool(&config);
        before(&pool);
        let (mut mine, mut late) = (balancer(&config, &pool), balancer(&config, &pool));
        let other = pool.clone();
        let t = order.spawn(move || change(&other));
        choose(&mut mine, at);
        t.join().unwrap();
        for balancer in [&mut mine, &mut late] {
            let mut met: Vec<u16> = (0..2)
                .filter_map(|_| match choose(balancer, at) {
                    Choice::Backend(backend) => Some(backend),
                    Choice::Full | Choice::None => None,
                })
                .collect();
            met.sort_unstable();
            assert_eq!(met, expected);
        }
    });
}

#[test]
fn a_choice_beside_a_bad_probe() {
    let fail = |pool: &PoolState| assert!(pool.probed(0, &BAD, NOW).is_some());
    nobody_keeps_an_outdated_plan(config(TWO), |_| (), fail, NOW, &[1, 1]);
}

#[test]
fn a_choice_beside_a_good_probe() {
    let two_failed = |pool: &PoolState| {
        assert!(
            pool.probed(0, &BAD, NOW).is_some()
                && pool.probed(1, &BAD, NOW).is_some()
                && pool.probed(1, &GOOD, NOW).is_none()
        );
    };
    nobody_keeps_an_outdated_plan(
        config(TWO),
        two_failed,
        |pool| assert!(pool.probed(1, &GOOD, NOW).is_some()),
        NOW,
        &[1, 1],
    );
}

#[test]
fn a_choice_beside_the_third_failed_connect() {
    let two = |pool: &PoolState| assert!((0..2).all(|_| pool.connect_failed(1, NOW).is_none()));
    nobody_keeps_an_outdated_plan(
        config(TWO),
        two,
        |pool| assert!(pool.connect_failed(1, NOW).is_some()),
        NOW,
        &[0, 0],
    );
}

#[test]
fn a_choice_beside_the_connect_of_a_half_open_attempt() {
    let down = |pool: &PoolState| {
        assert_eq!((0..3).filter_map(|_| pool.connect_failed(0, NOW)).count(), 1);
        assert!(pool.backends()[0].health().try_half_open(pool.rules(), LATER));
    };
    nobody_keeps_an_outdated_plan(
        unchecked(ONE),
        down,
        |pool| assert!(pool.connected(0, LATER).is_some()),
        LATER,
        &[0, 0],
    );
}

#[test]
fn a_choice_beside_the_first_lookup() {
    let found = |pool: &PoolState| assert!(pool.resolved(0, &[address("10.0.0.1:80")]));
    nobody_keeps_an_outdated_plan(config(NAMED), |_| (), found, NOW, &[0, 0]);
}

/// Shares grow, so the plan expires by itself just when something changes.
#[test]
fn a_choice_by_a_plan_that_runs_out_beside_a_change() {
    let config = config(TWO);
    both_ways(move |order| {
        let pool = pool(&config);
        assert!(pool.probed(0, &BAD, NOW).is_some());
        assert!(pool.probed(0, &GOOD, NOW).is_none() && pool.probed(0, &GOOD, NOW).is_some());
        assert!((0..2).all(|_| pool.connect_failed(1, NOW).is_none()));
        let (mut mine, mut theirs) = (balancer(&config, &pool), balancer(&config, &pool));
        assert!(
            [&mut mine, &mut theirs]
                .into_iter()
                .all(|balancer| matches!(choose(balancer, NOW), Choice::Backend(_)))
        );
        let other = pool.clone();
        let t = order.spawn(move || assert!(other.connect_failed(1, LATER).is_some()));
        choose(&mut mine, LATER);
        t.join().unwrap();
        assert_eq!([choose(&mut mine, LATER), choose(&mut theirs, LATER)], [Choice::Backend(0); 2]);
    });
}

/// One exchange of all shards tries an Unhealthy backend; the others get another one.
#[test]
fn a_half_open_attempt_is_one_request() {
    let config = unchecked(TWO);
    both_ways(move |order| {
        let pool = pool(&config);
        assert_eq!((0..3).filter_map(|_| pool.connect_failed(0, NOW)).count(), 1);
        let (mut other, mut mine) = (balancer(&config, &pool), balancer(&config, &pool));
        let t = order.spawn(move || choose(&mut other, LATER));
        let mine = choose(&mut mine, LATER);
        let theirs = t.join().unwrap();
        assert!(matches!(
            (mine, theirs),
            (Choice::Backend(0), Choice::Backend(1)) | (Choice::Backend(1), Choice::Backend(0))
        ));
        assert_eq!(pool.backends()[0].in_flight(), 1);
    });
}

// ---- health

#[test]
fn the_third_failure_is_reported_once() {
    let config = config(ONE);
    both_ways(move |order| {
        let pool = pool(&config);
        assert_eq!(pool.connect_failed(0, NOW), None);
        let before = pool.version();
        let other = pool.clone();
        let t = order.spawn(move || other.connect_failed(0, NOW).is_some());
        let mine = pool.connect_failed(0, NOW).is_some();
        assert!(mine ^ t.join().unwrap(), "a failure was lost, or told twice");
        assert_eq!(pool.backends()[0].health().state(), HealthState::Unhealthy);
        assert_eq!(pool.version(), before + 1);
    });
}

/// Whoever reads that all shards are ready sees the health that each of them has found.
#[test]
fn all_are_ready_only_when_health_is_known() {
    let config = config(TWO);
    both_ways(move |order| {
        let shared = Arc::new(Shared::new("lb.test", 2));
        let pool = shared.adopt(&config).swap_remove(0);
        let shards = [0, 1].map(|shard: u16| {
            let (shared, pool) = (shared.clone(), pool.clone());
            order.spawn(move || {
                assert!(pool.probed(shard, &GOOD, NOW).is_some());
                shared.set_ready(shard);
            })
        });
        let known = || pool.backends().iter().all(|backend| backend.health().state() == HealthState::Healthy);
        let ready = shared.all_ready();
        assert!(!ready || known(), "ready before the first round was over");
        for shard in shards {
            shard.join().unwrap();
        }
        assert!(shared.all_ready() && known());
    });
}

// ---- addresses

/// Once a name counts as resolved, it has an address.
#[test]
fn a_resolved_name_has_an_address() {
    let config = config(NAMED);
    both_ways(move |order| {
        let pool = pool(&config);
        let other = pool.clone();
        let t = order.spawn(move || {
            let first = other.resolved(0, &[address("10.0.0.1:80")]);
            (first, other.resolved(0, &[address("10.0.0.2:80"), address("10.0.0.3:80")]))
        });
        let backend = &pool.backends()[0];
        if backend.resolved() {
            assert!(backend.pick(1).is_some_and(|found| {
                ["10.0.0.1:80", "10.0.0.3:80"].map(|a| address(a).into()).contains(&found)
            }));
        }
        assert_eq!(t.join().unwrap(), (true, false));
    });
}

// ---- clients

/// Whoever sees that a client has left can be admitted in its place, in total and from its address.
#[test]
fn a_client_leaves_both_counts() {
    let ip = IpAddr::from([192, 0, 2, 7]);
    both_ways(move |order| {
        let shared = Arc::new(Shared::new("lb.test", 2));
        assert_eq!(shared.admit(ip, 9, 1), Ok(()));
        let other = shared.clone();
        let t = order.spawn(move || other.leave(ip, true));
        if shared.connections() == 0 {
            assert_eq!(shared.admit(ip, 9, 1), Ok(()));
        }
        t.join().unwrap();
    });
}

// ---- reloads

/// Pool `a` before and after a reload: another weight, another place, one backend more.
fn reload() -> &'static [Config; 2] {
    static BOTH: OnceLock<[Config; 2]> = OnceLock::new();
    BOTH.get_or_init(|| [config(ONE), config("\"10.0.0.2:80\", { address = \"10.0.0.1:80\", weight = 2 }")])
}

#[test]
fn all_shards_get_the_same_of_a_reload() {
    let [old, new] = reload();
    both_ways(move |order| {
        let shared = Arc::new(Shared::new("lb.test", 2));
        let before = shared.adopt(old);
        let other = shared.clone();
        let t = order.spawn(move || other.adopt(new));
        let mine = shared.adopt(new);
        let theirs = t.join().unwrap();
        assert!(Arc::ptr_eq(&mine[0], &theirs[0]));
        assert!(Arc::ptr_eq(&mine[0].backends()[1], &before[0].backends()[0]));
    });
}

/// A shard that adopts the old configuration late gets the old states, and shards with the new one keep
/// theirs.
#[test]
fn a_late_shard_changes_nothing_for_the_others() {
    let [old, new] = reload();
    both_ways(move |order| {
        let shared = Arc::new(Shared::new("lb.test", 2));
        let before = shared.adopt(old);
        let other = shared.clone();
        let t = order.spawn(move || {
            let late = other.adopt(old);
            (late, other.adopt(new))
        });
        let mine = shared.adopt(new);
        let (late, theirs) = t.join().unwrap();
        assert!(Arc::ptr_eq(&late[0], &before[0]) && Arc::ptr_eq(&mine[0], &theirs[0]));
    });
}

/// The last shard drops the old states while another makes the new ones from them, or before.
#[test]
fn a_reload_forgets_nothing() {
    let [old, new] = reload();
    both_ways(move |order| {
        let shared = Arc::new(Shared::new("lb.test", 2));
        let before = shared.adopt(old);
        assert!(before[0].probed(0, &SLOW, NOW).is_some());
        let other = shared.clone();
        let t = order.spawn(move || other.adopt(new));
        drop(before);
        let after = t.join().unwrap();
        assert_eq!(after[0].backends()[1].health().state(), HealthState::Slow);
    });
}

/// Two different configurations arrive at two shards in either order: a backend that both name is one state,
/// a backend that only one names is its own.
#[test]
fn two_reloads_at_once_agree_on_what_they_share() {
    let [old, new] = reload();
    let third = config("\"10.0.0.3:80\", \"10.0.0.1:80\"");
    both_ways(move |order| {
        let shared = Arc::new(Shared::new("lb.test", 2));
        let before = shared.adopt(old);
        let other = shared.clone();
        let t = order.spawn(move || other.adopt(new));
        let mine = shared.adopt(&third);
        let theirs = t.join().unwrap();
        let identities =
            |states: &[Arc<PoolState>]| [0, 1].map(|place| states[0].backends()[place].identity());
        let ([own, same], [others, again]) = (identities(&mine), identities(&theirs));
        assert_eq!((same, again), (before[0].backends()[0].identity(), same));
        assert!(own != others && own != same && others != same, "one identity for two backends");
    });
}

/// A shard that still has the old configuration reports health and waits; a shard with the new one sees both,
/// and gives back a slot taken before.
#[test]
fn a_reload_beside_inputs_to_the_old_states() {
    let [old, new] = reload();
    both_ways(move |order| {
        let shared = Arc::new(Shared::new("lb.test", 2));
        let before = shared.adopt(old).swap_remove(0);
        assert!(before.backends()[0].try_start(None));
        let late = before.clone();
        let t = order.spawn(move || {
            assert!(late.probed(0, &BAD, NOW).is_some());
            late.wait(0);
        });
        let after = shared.adopt(new).swap_remove(0);
        let mut chooser = balancer(new, &after);
        let first = choose(&mut chooser, NOW);
        let nudged: Vec<u16> = after.finish(1).collect();
        t.join().unwrap();
        let left: Vec<u16> = after.take_waiting().collect();
        assert_eq!([nudged, left].concat(), [0], "a mark was lost, or given out twice");
        assert_eq!([0; 3].map(|_| choose(&mut chooser, NOW)), [Choice::Backend(0); 3]);
        let backend = &before.backends()[0];
        assert_eq!(
            (backend.in_flight(), backend.health().usable()),
            (u32::from(first == Choice::Backend(1)), false)
        );
    });
}
