//! What each strategy does: shares, order, disruption on loss, ties, over one and several
//! shards.

#[path = "balance/harness.rs"]
mod harness;
#[path = "balance/sticky.rs"]
mod sticky;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use harness::{Harness, backend, chi_square, chi_square_bound, client, equal, pool, weighted};
use proptest::prelude::*;
use ruststrom_core::Endpoint;
use ruststrom_core::balance::{Choice, Tried};
use ruststrom_core::config::{Address, Backend, Strategy as Config};

// ---- round robin

proptest! {
    /// Of N choices in a row each of N backends gets one, whichever shards make them.
    #[test]
    fn round_robin_is_exact_over_all_shards(
        count in 1usize..40,
        shards in prop::collection::vec(0usize..4, 1..300),
    ) {
        let mut harness = Harness::new(4, pool(Config::RoundRobin, equal(count)));
        let chosen: Vec<_> = shards.into_iter().map(|shard| harness.once(shard).expect("usable")).collect();
        for (turn, &chosen) in chosen.iter().enumerate() {
            prop_assert_eq!(usize::from(chosen), turn % count);
        }
    }

    #[test]
    fn round_robin_by_weight_is_within_one_at_every_moment(
        weights in prop::collection::vec(1u32..=20, 2..20),
        slow in 0u16..20,
        shards in prop::collection::vec(0usize..3, 200),
    ) {
        let mut harness = Harness::new(3, pool(Config::RoundRobin, weighted(&weights)));
        let slow = slow % weights.len() as u16;
        harness.slow(slow);
        let part = |index| if index == usize::from(slow) { 0.25 } else { 1.0 };
        let exact: Vec<f64> =
            weights.iter().enumerate().map(|(index, &weight)| f64::from(weight) * part(index)).collect();
        let whole: f64 = exact.iter().sum();
        let mut got = vec![0f64; weights.len()];
        for (turn, shard) in shards.into_iter().enumerate() {
            got[usize::from(harness.once(shard).expect("usable"))] += 1.0;
            for (got, exact) in got.iter().zip(&exact) {
                let off = got - exact / whole * (turn + 1) as f64;
                prop_assert!(off.abs() < 1.0, "off by {off} after {turn}");
            }
        }
    }

    /// When the set of backends changes, the order is circular again at once and leaves no backend out.
    #[test]
    fn round_robin_goes_on_after_changes(
        changes in prop::collection::vec((0u16..6, any::<bool>(), 1usize..15), 1..30),
    ) {
        let mut harness = Harness::new(2, pool(Config::RoundRobin, equal(6)));
        let mut usable: BTreeSet<u16> = (0..6).collect();
        let mut last = 5u16;
        for (backend, up, turns) in changes {
            if up { harness.good(backend) } else { harness.bad(backend) }
            if up { usable.insert(backend); } else { usable.remove(&backend); }
            // Past all ramps, which have a test of their own.
            harness.pass(20_000);
            for turn in 0..turns {
                let expected = usable.range(last + 1..).chain(&usable).next().copied();
                prop_assert_eq!(harness.once(turn % 2), expected);
                last = expected.unwrap_or(last);
            }
        }
    }
}

#[test]
fn round_robin_over_a_thousand() {
    let mut harness = Harness::new(2, pool(Config::RoundRobin, equal(1000)));
    assert_eq!(harness.shares(3000), vec![3; 1000]);
}

#[test]
fn round_robin_shares() {
    // The weights, which backends are slow, and how many of how many choices each gets.
    let table: &[(&[u32], &[u16], &[usize])] = &[
        (&[1, 1, 1], &[], &[100, 100, 100]),
        (&[3, 1], &[], &[300, 100]),
        (&[1, 1], &[1], &[400, 100]),
        (&[2, 1, 1], &[0], &[100, 200, 200]),
        (&[1, 1], &[0, 1], &[100, 100]),
        (&[1, 0, 1], &[], &[100, 0, 100]),
        (&[1000, 1], &[], &[1000, 1]),
    ];
    for (weights, slow, expected) in table {
        let mut harness = Harness::new(3, pool(Config::RoundRobin, weighted(weights)));
        slow.iter().for_each(|&backend| harness.slow(backend));
        assert_eq!(harness.shares(expected.iter().sum()), *expected, "{weights:?} slow {slow:?}");
    }
}

#[test]
fn a_recovered_backend_gets_its_share_step_by_step() {
    for per_step in [1, 7, 50] {
        let mut harness = Harness::new(2, pool(Config::RoundRobin, equal(3)));
        harness.bad(1);
        assert_eq!(harness.shares(4), [2, 0, 2]);
        harness.good(1);
        let (mut got, mut exact, mut worst) = (0.0, 0.0, 0f64);
        // The ramp of 10 s, and a little more.
        for step in 0..110 {
            let grown = (f64::from(step) / 100.0).min(1.0);
            got += harness.shares(per_step)[1] as f64;
            exact += per_step as f64 * grown / (2.0 + grown);
            worst = worst.max((got - exact).abs());
            harness.pass(100);
        }
        assert!(worst < 2.5, "{worst} at {per_step} a step");
        assert_eq!(harness.shares(300), [100, 100, 100]);
    }
}

#[test]
fn full_backends_are_skipped() {
    for strategy in [Config::RoundRobin, Config::Random, Config::LeastConnection] {
        let mut backends = equal(200);
        backends.iter_mut().for_each(|backend| backend.max_connections = Some(1));
        backends[150].max_connections = Some(100);
        let mut harness = Harness::new(2, pool(strategy.clone(), backends));
        let mut in_flight = vec![0; 200];
        for turn in 0..299 {
            match harness.start(turn % 2) {
                Choice::Backend(chosen) => in_flight[usize::from(chosen)] += 1,
                other => panic!("{strategy:?}: {other:?} although there is room, turn {turn}"),
            }
        }
        assert!(
            in_flight
                .iter()
                .enumerate()
                .all(|(backend, &count)| count == if backend == 150 { 100 } else { 1 }),
            "{strategy:?}"
        );
        assert_eq!(harness.start(0), Choice::Full, "{strategy:?}");
        harness.state.finish(7);
        assert_eq!(harness.start(1), Choice::Backend(7), "{strategy:?}");
        assert_eq!(harness.start(1), Choice::Full, "{strategy:?}");
        (0..200).for_each(|backend| harness.bad(backend));
        assert_eq!(harness.start(1), Choice::None, "{strategy:?}");
    }
}

// ---- random

#[test]
fn random_shares() {
    let table: &[&[u32]] = &[&[1, 1], &[1; 10], &[1, 2, 3, 4], &[100, 1, 1], &[7; 50]];
    for weights in table {
        for seed in 0..5 {
            let mut harness = Harness::new(3, pool(Config::Random, weighted(weights)));
            // With other seeds than the harness has.
            harness.shards.iter_mut().enumerate().for_each(|(shard, balancer)| {
                *balancer = ruststrom_core::balance::Balancer::new(
                    &harness.pool,
                    std::sync::Arc::clone(&harness.state),
                    seed * 100 + shard as u64,
                );
            });
            let shares = harness.shares(20_000);
            let chi = chi_square(&shares, weights);
            assert!(chi < chi_square_bound(weights.len()), "{chi} for {weights:?}: {shares:?}");
        }
    }
}

#[test]
fn random_is_not_a_cycle() {
    let mut harness = Harness::new(1, pool(Config::Random, equal(4)));
    let chosen: Vec<_> = (0..4000).map(|_| harness.once(0).expect("usable")).collect();
    let mut pairs = vec![0; 16];
    chosen.windows(2).for_each(|pair| pairs[usize::from(pair[0] * 4 + pair[1])] += 1);
    assert!(chi_square(&pairs, &[1; 16]) < chi_square_bound(16), "{pairs:?}");
}

// ---- client hash

fn backend_of_each(harness: &mut Harness, clients: u32) -> Vec<u16> {
    let home = |number| {
        harness.client = client(number);
        let shard = number as usize % harness.shards.len();
        harness.once(shard).expect("usable")
    };
    (0..clients).map(home).collect()
}

#[test]
fn losing_one_moves_only_its_clients_and_they_come_back() {
    const CLIENTS: u32 = 6000;
    let mut harness = Harness::new(2, pool(Config::IpHash, equal(6)));
    let before = backend_of_each(&mut harness, CLIENTS);
    let mut shares = [0; 6];
    before.iter().for_each(|&home| shares[usize::from(home)] += 1);
    assert!(chi_square(&shares, &[1; 6]) < 4.0 * chi_square_bound(6), "{shares:?}");
    for lost in 0..6 {
        harness.bad(lost);
        let after = backend_of_each(&mut harness, CLIENTS);
        let mut to = [0; 6];
        for (&before, &after) in before.iter().zip(&after) {
            assert!(if before == lost { after != lost } else { after == before });
            if before == lost {
                to[usize::from(after)] += 1;
            }
        }
        // The clients of the lost backend are spread over all the others.
        let fifth = to.iter().sum::<usize>() / 5;
        assert!(
            (0..6).all(|other| other == usize::from(lost) || (fifth / 2..fifth * 2).contains(&to[other])),
            "{to:?}"
        );
        // A second loss moves only the clients of the second backend.
        let second = (lost + 1) % 6;
        harness.bad(second);
        let both = backend_of_each(&mut harness, CLIENTS);
        assert!(after.iter().zip(&both).all(|(after, both)| if *after == second {
            ![lost, second].contains(both)
        } else {
            after == both
        }));
        harness.good(lost);
        harness.good(second);
        // They come back at once: while the share still grows, and when the backend is slow.
        assert_eq!(backend_of_each(&mut harness, CLIENTS), before);
        harness.slow(lost);
        assert_eq!(backend_of_each(&mut harness, CLIENTS), before);
        harness.good(lost);
    }
}

#[test]
fn configured_changes_move_few_clients() {
    const CLIENTS: u32 = 4000;
    for count in [1, 2, 5, 20, 100] {
        let before = backend_of_each(&mut Harness::new(1, pool(Config::IpHash, equal(count))), CLIENTS);
        let after = backend_of_each(&mut Harness::new(2, pool(Config::IpHash, equal(count + 1))), CLIENTS);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(
            before.iter().zip(&after).all(|(before, after)| before == after || usize::from(*after) == count),
            "moved between old ones"
        );
        assert!(
            moved as f64 <= 1.5 * f64::from(CLIENTS) / (count + 1) as f64,
            "{moved} of {CLIENTS} at {count}"
        );
        assert!(moved > 0);
    }
}

#[test]
fn the_client_hash_counts_weights_and_knows_one_address_by_two_names() {
    let mut harness = Harness::new(1, pool(Config::IpHash, weighted(&[1, 2, 5])));
    let mut shares = [0; 3];
    backend_of_each(&mut harness, 16_000).into_iter().for_each(|home| shares[usize::from(home)] += 1);
    for (share, expected) in shares.into_iter().zip([2_000, 4_000, 10_000]) {
        assert!((share as f64 / f64::from(expected) - 1.0).abs() < 0.08, "{shares:?}");
    }
    for number in 0..200 {
        let IpAddr::V4(v4) = client(number) else { unreachable!() };
        harness.client = v4.into();
        let home = harness.once(0);
        harness.client = v4.to_ipv6_mapped().into();
        assert_eq!(harness.once(0), home);
    }
}

#[test]
fn the_client_hash_is_the_same_in_every_process() {
    // Fixed values: if they change, clients move to other backends on an upgrade.
    let mut harness = Harness::new(1, pool(Config::IpHash, equal(5)));
    assert_eq!(backend_of_each(&mut harness, 12), HOMES);
    let mut harness = Harness::new(3, pool(Config::IpHash, equal(5)));
    assert_eq!(backend_of_each(&mut harness, 12), HOMES);
}

const HOMES: [u16; 12] = [2, 2, 0, 2, 1, 1, 0, 2, 3, 3, 1, 4];

#[test]
fn the_client_hash_waits_for_its_own_backend() {
    let mut backends = equal(3);
    backends.iter_mut().for_each(|backend| backend.max_connections = Some(1));
    let mut harness = Harness::new(2, pool(Config::IpHash, backends));
    let Choice::Backend(home) = harness.start(0) else { panic!() };
    assert_eq!(harness.start(1), Choice::Full);
    harness.tried.add(home);
    let Choice::Backend(next) = harness.start(0) else { panic!() };
    assert_ne!(next, home);
    harness.tried.clear();
    harness.state.finish(home);
    assert_eq!(harness.start(1), Choice::Backend(home));
}

// ---- least connection

proptest! {
    #[test]
    fn least_connection_never_takes_a_busier_one(
        weights in prop::collection::vec(1u32..=4, 1..8),
        caps in prop::collection::vec(prop::option::of(1u32..5), 8),
        steps in prop::collection::vec((0usize..3, any::<bool>(), any::<prop::sample::Index>()), 1..200),
    ) {
        let mut backends = weighted(&weights);
        backends.iter_mut().zip(&caps).for_each(|(backend, cap)| backend.max_connections = *cap);
        let mut harness = Harness::new(3, pool(Config::LeastConnection, backends));
        let mut running: Vec<u16> = Vec::new();
        for (shard, end, which) in steps {
            if end && !running.is_empty() {
                harness.state.finish(running.swap_remove(which.index(running.len())));
                continue;
            }
            let in_flight: Vec<_> =
                harness.state.backends().iter().map(|backend| backend.in_flight()).collect();
            let load = |backend: usize| f64::from(in_flight[backend]) / f64::from(weights[backend]);
            let is_free = |&backend: &usize| caps[backend].is_none_or(|cap| in_flight[backend] < cap);
            let free: Vec<_> = (0..weights.len()).filter(is_free).collect();
            match harness.start(shard) {
                Choice::Backend(chosen) => {
                    prop_assert!(free.contains(&usize::from(chosen)));
                    prop_assert!(free.iter().all(|&other| load(other) >= load(usize::from(chosen)) - 1e-9));
                    running.push(chosen);
                }
                other => {
                    prop_assert_eq!(other, Choice::Full);
                    prop_assert!(free.is_empty());
                }
            }
            for (backend, state) in harness.state.backends().iter().enumerate() {
                let its_running = running.iter().filter(|&&other| usize::from(other) == backend).count();
                prop_assert_eq!(state.in_flight() as usize, its_running);
            }
        }
    }
}

#[test]
fn ties_rotate() {
    let mut harness = Harness::new(2, pool(Config::LeastConnection, equal(5)));
    let chosen: Vec<_> = (0..10).map(|turn| harness.once(turn % 2).expect("usable")).collect();
    assert_eq!(chosen, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    // 1, 2 and 4 are busy: the others take turns, whatever their places.
    for busy in [1, 2, 4] {
        assert!(harness.state.backends()[busy].try_start(None));
    }
    assert_eq!(harness.shares(100), [50, 0, 0, 50, 0]);
    // With unequal weights, ties are broken at random.
    let mut harness = Harness::new(2, pool(Config::LeastConnection, weighted(&[1, 2, 5])));
    let shares = harness.shares(8_000);
    assert!(chi_square(&shares, &[1, 2, 5]) < chi_square_bound(3), "{shares:?}");
}

// ---- for all strategies

fn all_strategies() -> Vec<Config> {
    let plain = [Config::RoundRobin, Config::Random, Config::IpHash, Config::LeastConnection];
    plain.iter().cloned().chain(plain.iter().cloned().map(sticky::cookie)).collect()
}

#[test]
fn which_backends_may_be_chosen() {
    let backup = |label| Backend { backup: true, ..backend(label) };
    let drained = |label| Backend { weight: 0, ..backend(label) };
    let named =
        |label: &str| Backend { address: Address::Name { host: label.into(), port: 80 }, ..backend(label) };
    // The backends, the unhealthy ones, the tried ones, and which may be chosen.
    type Row = (Vec<Backend>, &'static [u16], &'static [u16], &'static [u16]);
    let table: Vec<Row> = vec![
        (vec![], &[], &[], &[]),
        (equal(3), &[], &[], &[0, 1, 2]),
        (equal(3), &[1], &[], &[0, 2]),
        (equal(3), &[0, 1, 2], &[], &[]),
        (equal(3), &[], &[0], &[1, 2]),
        (equal(3), &[1], &[0], &[2]),
        (equal(3), &[1, 2], &[0], &[]),
        (equal(3), &[], &[0, 1, 2], &[]),
        (vec![backend("a"), backup("b"), backup("c")], &[], &[], &[0]),
        (vec![backend("a"), backup("b"), backup("c")], &[0], &[], &[1, 2]),
        (vec![backend("a"), backup("b"), backup("c")], &[0, 1], &[], &[2]),
        (vec![backend("a"), backup("b"), backup("c")], &[], &[0], &[1, 2]),
        (vec![backend("a"), backup("b"), backup("c")], &[], &[0, 1], &[2]),
        (vec![backend("a"), backup("b"), backup("c")], &[], &[0, 1, 2], &[]),
        (vec![backend("a"), backup("b"), backup("c")], &[0, 1, 2], &[], &[]),
        (vec![backend("a"), drained("b")], &[], &[], &[0]),
        (vec![backend("a"), drained("b")], &[0], &[], &[]),
        (vec![backend("a"), named("b")], &[], &[], &[0]),
        (vec![named("a"), named("b"), backup("c")], &[], &[], &[2]),
    ];
    for strategy in all_strategies() {
        for (backends, bad, tried, expected) in &table {
            let mut harness = Harness::new(2, pool(strategy.clone(), backends.clone()));
            bad.iter().for_each(|&backend| harness.bad(backend));
            tried.iter().for_each(|&backend| harness.tried.add(backend));
            let mut met = BTreeSet::new();
            for number in 0..200 {
                harness.client = client(number);
                harness.sticky = (number % 2 == 0).then_some((number / 2 % 5) as u16);
                match harness.start(number as usize % 2) {
                    Choice::Backend(chosen) => {
                        met.insert(chosen);
                        harness.state.finish(chosen);
                    }
                    other => assert_eq!(other, Choice::None),
                }
            }
            assert_eq!(
                met.into_iter().collect::<Vec<_>>(),
                *expected,
                "{strategy:?} {backends:?} bad {bad:?} tried {tried:?}"
            );
            assert!(harness.state.backends().iter().all(|backend| backend.in_flight() == 0));
        }
    }
}

#[test]
fn a_name_is_usable_once_resolved() {
    let named = Backend { address: Address::Name { host: "b".into(), port: 80 }, ..backend("b") };
    for strategy in all_strategies() {
        let mut harness = Harness::new(2, pool(strategy, vec![named.clone()]));
        assert_eq!(harness.start(0), Choice::None);
        assert_eq!(harness.state.backends()[0].pick(0), None);
        let found = ["127.0.0.1:80".parse().expect("valid"), "127.0.0.2:80".parse().expect("valid")];
        assert!(!harness.state.resolved(0, &[]));
        assert!(harness.state.resolved(0, &found));
        assert!(!harness.state.resolved(0, &found));
        assert_eq!((harness.once(0), harness.once(1)), (Some(0), Some(0)));
        assert_eq!(
            [0, 1, 2].map(|turn| harness.state.backends()[0].pick(turn)),
            [0, 1, 0].map(|place| Some(Endpoint::Ip(found[place])))
        );
        // Which addresses are picked after something has happened to one of them.
        let backend = &harness.state.backends()[0];
        let met = || [0, 1, 2, 3].map(|turn| backend.pick(turn).expect("resolved").ip());
        let [a, b] = found.map(Some);
        assert!(backend.has_other_than(a) && backend.refused(a));
        assert_eq!(met(), [b, b, b, b], "one that refused is left out");
        assert!(!backend.has_other_than(b));
        backend.connected_to(a);
        assert_eq!(met(), [a, b, a, b], "until it takes a connection");
        assert!(backend.checked(b, false) && !backend.checked(b, false));
        assert_eq!(met(), [a, a, a, a], "one that fails its check is left out");
        harness.state.resolved(0, &[found[1], found[0]]);
        assert_eq!(met(), [a, a, a, a], "another order of addresses changes nothing");
        assert!(!backend.refused(a), "none is left that has not failed");
        assert!(backend.checked(b, true) && !backend.checked(b, true));
        assert_eq!(met(), [a, b, a, b]);
        harness.state.resolved(0, &[]);
        assert_eq!(
            harness.state.backends()[0].pick(0),
            Some(Endpoint::Ip(found[0])),
            "the last good ones are kept"
        );
    }
}

#[test]
fn without_probes_one_real_request_tries_again() {
    for strategy in all_strategies() {
        let others = 2;
        let mut pool = pool(strategy.clone(), equal(1 + others));
        pool.health.check_every = Duration::ZERO;
        let mut harness = Harness::new(3, pool);
        (0..3).for_each(|_| {
            assert!(
                harness.state.connect_failed(0, harness.now).is_none()
                    || harness.state.backends()[0].in_flight() == 0
            )
        });
        let mut trials = Vec::new();
        let begin = harness.now;
        // 100 s of requests, five each 10 ms, from many clients, all shards; half-open attempts fail
        // after 20 ms.
        let mut pending = None;
        for tick in 0..10_000u32 {
            for number in 0..5 {
                harness.client = client(tick * 5 + number);
                match harness.start(number as usize % 3) {
                    Choice::Backend(0) => {
                        trials.push(harness.now.since(begin).as_millis() as u64);
                        assert!(pending.is_none(), "{strategy:?}: two trials at once");
                        pending = Some(harness.now + Duration::from_millis(20));
                        harness.state.finish(0);
                    }
                    Choice::Backend(other) => drop(harness.state.finish(other)),
                    other => assert_eq!((other, others), (Choice::None, 0)),
                }
            }
            if pending.is_some_and(|at| harness.now >= at) {
                assert_eq!(harness.state.connect_failed(0, harness.now), None);
                pending = None;
            }
            harness.pass(10);
        }
        // Attempts after 1, 2, 4, 8, 16, 32 s: give or take a tenth, and the wait for a client of this
        // backend.
        assert_eq!(trials.len(), 6, "{strategy:?}: {trials:?}");
        for (trial, expected) in trials.iter().zip([1_000, 3_000, 7_000, 15_000, 31_000, 63_000]) {
            assert!(
                (expected * 9 / 10..expected * 11 / 10 + 400).contains(trial),
                "{strategy:?}: {trials:?}"
            );
        }
        harness.state.connected(0, harness.now);
        assert!(harness.state.backends()[0].health().usable());
    }
}

#[test]
fn a_retry_makes_no_half_open_attempt_while_others_are_usable() {
    for strategy in all_strategies() {
        let mut pool = pool(strategy.clone(), equal(3));
        pool.health.check_every = Duration::ZERO;
        let mut harness = Harness::new(1, pool);
        harness.bad(0);
        harness.pass(5_000);
        harness.tried.add(1);
        for number in 0..50 {
            harness.client = client(number);
            assert_eq!(harness.once(0), Some(2), "{strategy:?}");
        }
        harness.bad(2);
        harness.bad(1);
        assert_eq!(harness.once(0), Some(0), "{strategy:?}: nothing else is left");
    }
}

#[test]
fn tried_is_a_set_of_any_size() {
    let mut tried = Tried::new();
    assert!(tried.is_empty());
    for backend in (0..100).chain(0..100) {
        tried.add(backend * 3);
    }
    for backend in 0..300 {
        assert_eq!(tried.contains(backend), backend % 3 == 0, "{backend}");
    }
    tried.clear();
    assert!(tried.is_empty() && (0..300).all(|backend| !tried.contains(backend)));
}
