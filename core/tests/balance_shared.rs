//! The state that shards share: the same for all, carried over reloads, exact also when shards run at the
//! same time.

#[path = "balance/harness.rs"]
mod harness;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use harness::{Harness, START, backend, client, config, equal, pool};
use ruststrom_core::Shared;
use ruststrom_core::balance::{Balancer, Choice, SelectionInput, Tried};
use ruststrom_core::config::{Backend, Pool, Strategy};
use ruststrom_core::health::{ProbeOutcome, Schedule};
use ruststrom_core::observe::HealthState;
use ruststrom_core::shared::TooMany;

fn named(name: &str, strategy: Strategy, backends: Vec<Backend>) -> Pool {
    Pool { name: name.into(), ..pool(strategy, backends) }
}

#[test]
fn all_shards_get_the_same_states() {
    let shared = Shared::new("host", 4);
    let one =
        config(vec![named("a", Strategy::RoundRobin, equal(3)), named("b", Strategy::Random, equal(3))]);
    let states = shared.adopt(&one);
    // A configuration that is parsed again counts as the same.
    for again in [shared.adopt(&one), shared.adopt(&one.clone())] {
        assert!(states.iter().zip(&again).all(|(a, b)| Arc::ptr_eq(a, b)));
    }
    // Backends with the same label in two pools are two backends.
    assert_ne!(states[0].backends()[0].identity(), states[1].backends()[0].identity());
    assert_eq!((shared.hostname(), shared.shards()), ("host", 4));
}

#[test]
fn a_reload_carries_state_over() {
    let shared = Shared::new("host", 2);
    let old = shared.adopt(&config(vec![named("a", Strategy::RoundRobin, equal(3))]));
    let slow = ProbeOutcome::Good { status: 200, after: Duration::from_secs(1) };
    assert!(old[0].probed(2, &slow, START).is_some());
    assert!(old[0].backends()[2].try_start(None));

    // b2 comes first now, b0 is gone, c is new; another pool stands before it.
    let backends = vec![Backend { weight: 5, ..backend("b2") }, backend("c"), backend("b1")];
    let new =
        config(vec![named("z", Strategy::Random, equal(1)), named("a", Strategy::LeastConnection, backends)]);
    let states = shared.adopt(&new);
    let (b2, c) = (&states[1].backends()[0], &states[1].backends()[1]);
    assert!(Arc::ptr_eq(b2, &old[0].backends()[2]));
    assert_eq!((b2.health().state(), b2.in_flight()), (HealthState::Slow, 1));
    assert_eq!((c.health().state(), c.in_flight()), (HealthState::Unknown, 0));

    // A shard that still has the old configuration gives back its slot and reports health: shards with the
    // new one see it.
    let version = states[1].version();
    old[0].finish(2);
    assert!(old[0].connect_failed(2, START).is_none());
    assert_eq!((b2.in_flight(), states[1].version()), (0, version));
    old[0].wait(1);
    assert!(old[0].connect_failed(2, START).is_none() && old[0].connect_failed(2, START).is_some());
    assert_ne!(states[1].version(), version);
    assert_eq!(states[1].take_waiting().collect::<Vec<_>>(), [1]);

    // A late shard adopts the old configuration once more, then the new one: it gets the same states as the
    // others.
    assert!(Arc::ptr_eq(
        &shared.adopt(&config(vec![named("a", Strategy::RoundRobin, equal(3))]))[0],
        &old[0]
    ));
    assert!(Arc::ptr_eq(&shared.adopt(&new)[1], &states[1]));

    // Another address under the same label is another backend. The state of a removed backend is dropped with
    // its last user.
    let mut moved = backend("b2");
    moved.address = backend("elsewhere").address;
    let other = shared.adopt(&config(vec![named("a", Strategy::RoundRobin, vec![moved])]));
    assert_eq!(other[0].backends()[0].health().state(), HealthState::Unknown);
    drop((old, states, other));
    drop(shared.adopt(&config(vec![])));
    let fresh = shared.adopt(&new);
    assert_eq!(fresh[1].backends()[0].health().state(), HealthState::Unknown);
}

#[test]
fn one_owner_probes_each_backend() {
    for shards in [1, 2, 3, 8] {
        let shared = Shared::new("host", shards);
        let mut unprobed = named("b", Strategy::Random, equal(5));
        unprobed.health.check_every = Duration::ZERO;
        let states = shared.adopt(&config(vec![
            named("a", Strategy::Random, equal(400)),
            unprobed,
            named("c", Strategy::Random, equal(3)),
        ]));
        let all: Vec<_> = (0..shards).map(|shard| shared.probes(&states, shard)).collect();
        assert!(all.iter().all(|own| own.len() > 200 / usize::from(shards)), "unevenly spread");
        let mut met: Vec<_> =
            all.concat().into_iter().map(|item| (item.target.pool, item.target.backend)).collect();
        met.sort_unstable();
        let expected: Vec<_> =
            (0..400).map(|backend| (0, backend)).chain((0..3).map(|backend| (2, backend))).collect();
        assert_eq!(met, expected);
        let mut schedule = Schedule::new(1);
        schedule.adopt(&all[0], START);
        assert_eq!(std::iter::from_fn(|| schedule.due(START)).count(), all[0].len());
    }
}

#[test]
fn waiting_shards() {
    for (shards, marks, expected) in [
        (1, vec![], vec![]),
        (1, vec![0], vec![0]),
        (8, vec![3, 5, 3], vec![3, 5]),
        (256, vec![255, 0, 64, 63], vec![0, 63, 64, 255]),
        // With more than 256 shards some share a mark: a shard may be nudged needlessly, but none is missed.
        (300, vec![299], vec![43, 299]),
        (300, vec![100, 43], vec![43, 299, 100]),
    ] {
        let harness = Harness::new(shards, pool(Strategy::RoundRobin, equal(1)));
        marks.iter().for_each(|&shard| harness.state.wait(shard));
        assert!(harness.state.backends()[0].try_start(None));
        let waiting = harness.state.finish(0);
        assert_eq!(waiting.is_empty(), expected.is_empty());
        assert_eq!(waiting.collect::<Vec<_>>(), expected, "{shards} {marks:?}");
        assert!(harness.state.take_waiting().is_empty(), "the marks are gone");
    }
}

#[test]
fn client_caps() {
    let shared = Shared::new("host", 2);
    let (a, b) = (client(1), client(2));
    assert_eq!([shared.admit(a, 2, 1), shared.admit(a, 2, 1)], [Ok(()), Err(TooMany::FromAddress)]);
    assert_eq!([shared.admit(b, 2, 1), shared.admit(client(3), 2, 1)], [Ok(()), Err(TooMany::Total)]);
    shared.leave(a, true);
    assert_eq!((shared.connections(), shared.admit(a, 2, 1)), (1, Ok(())));
}

// ---- several shards at once

fn input(tried: &Tried) -> SelectionInput<'_> {
    SelectionInput { client: IpAddr::V4(Ipv4Addr::LOCALHOST), sticky: None, tried }
}

#[test]
fn round_robin_is_exact_while_shards_run() {
    const SHARDS: u64 = 4;
    const EACH: u32 = 3_000;
    for count in [3, 7, 64] {
        let harness = Harness::new(SHARDS as u16, pool(Strategy::RoundRobin, equal(count)));
        let got: Vec<_> = (0..count).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for seed in 0..SHARDS {
                let mut balancer = Balancer::new(&harness.pool, Arc::clone(&harness.state), seed);
                let got = &got;
                scope.spawn(move || {
                    for _ in 0..EACH {
                        let Choice::Backend(chosen) = balancer.choose(&input(&Tried::new()), START) else {
                            panic!("one is usable")
                        };
                        got[usize::from(chosen)].fetch_add(1, Ordering::Relaxed);
                        balancer.state().finish(chosen);
                    }
                });
            }
        });
        let all = SHARDS as u32 * EACH;
        for (place, got) in got.iter().map(|got| got.load(Ordering::Relaxed)).enumerate() {
            assert_eq!(got, all / count as u32 + u32::from((place as u32) < all % count as u32));
        }
    }
}

#[test]
fn caps_hold_and_no_waiter_is_missed() {
    const SHARDS: u16 = 4;
    for strategy in [Strategy::RoundRobin, Strategy::Random, Strategy::LeastConnection, Strategy::IpHash] {
        let mut backends = equal(2);
        backends.iter_mut().for_each(|backend| backend.max_connections = Some(1));
        let harness = Harness::new(SHARDS, pool(strategy, backends));
        let running = [AtomicU32::new(0), AtomicU32::new(0)];
        let (senders, receivers): (Vec<Sender<()>>, Vec<Receiver<()>>) =
            (0..SHARDS).map(|_| channel()).unzip();
        std::thread::scope(|scope| {
            for (shard, receiver) in receivers.into_iter().enumerate() {
                let mut balancer = Balancer::new(&harness.pool, Arc::clone(&harness.state), shard as u64);
                let (senders, running) = (senders.clone(), &running);
                scope.spawn(move || {
                    let tried = Tried::new();
                    for _ in 0..1_000 {
                        let chosen = loop {
                            if let Choice::Backend(chosen) = balancer.choose(&input(&tried), START) {
                                break chosen;
                            }
                            balancer.state().wait(shard as u16);
                            if let Choice::Backend(chosen) = balancer.choose(&input(&tried), START) {
                                break chosen;
                            }
                            receiver.recv_timeout(Duration::from_secs(20)).expect("a nudge");
                        };
                        let running = &running[usize::from(chosen)];
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "more than max_connections");
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        for waiting in balancer.state().finish(chosen) {
                            // A thread that has done its part takes no more nudges.
                            senders[usize::from(waiting)].send(()).unwrap_or_default();
                        }
                    }
                });
            }
        });
        assert!(harness.state.backends().iter().all(|backend| backend.in_flight() == 0));
    }
}

#[test]
fn one_half_open_attempt_over_all_shards() {
    let mut one = pool(Strategy::RoundRobin, equal(2));
    one.health.check_every = Duration::ZERO;
    let harness = Harness::new(4, one);
    for round in 0..50u64 {
        let now = START + Duration::from_secs(1_000) * round as u32;
        (0..3).for_each(|_| {
            assert!(
                harness.state.connect_failed(1, now).is_none_or(|change| change.to == HealthState::Unhealthy)
            )
        });
        let due = now + Duration::from_secs(100);
        let trials = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let mut balancer = Balancer::new(&harness.pool, Arc::clone(&harness.state), seed);
                let trials = &trials;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let Choice::Backend(chosen) = balancer.choose(&input(&Tried::new()), due) else {
                            panic!("one is usable")
                        };
                        trials.fetch_add(u32::from(chosen), Ordering::Relaxed);
                        balancer.state().finish(chosen);
                    }
                });
            }
        });
        assert_eq!(trials.into_inner(), 1, "round {round}");
        assert!(harness.state.connected(1, due).is_some());
    }
}

#[test]
fn many_clients_at_once_never_exceed_their_caps() {
    let shared = Shared::new("host", 4);
    let peak = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (shared, peak) = (&shared, &peak);
            scope.spawn(move || {
                for turn in 0..3_000 {
                    let ip = client((thread + turn) % 3);
                    if shared.admit(ip, 3, 1).is_ok() {
                        peak.fetch_max(shared.connections(), Ordering::Relaxed);
                        shared.leave(ip, true);
                    }
                }
            });
        }
    });
    assert_eq!(shared.connections(), 0);
    assert!((1..=3).contains(&peak.into_inner()));
    // No count is left behind: every address is admitted again.
    (0..3).for_each(|number| assert_eq!(shared.admit(client(number), 3, 1), Ok(())));
}
