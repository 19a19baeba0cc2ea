use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::observe::HealthState::{self, Healthy, Slow, Unhealthy, Unknown};

const RULES: Rules = Rules {
    check_every: Duration::from_secs(10),
    slow_threshold: Duration::from_millis(300),
    rise: 1,
    fall: 1,
    ramp_up: Duration::from_secs(10),
    slow_permille: 250,
    connect: Duration::from_secs(5),
};
const NO_PROBES: Rules = Rules { check_every: Duration::ZERO, ..RULES };
const START: Instant = Instant::from_millis(1_000_000);

const fn responded(status: u16, after_ms: u64) -> Input {
    Input::Probe(match status {
        200..=399 => ProbeOutcome::Good { status, after: Duration::from_millis(after_ms) },
        _ => ProbeOutcome::UnexpectedStatus { status },
    })
}

#[derive(Clone, Copy, Debug)]
enum Input {
    Probe(ProbeOutcome),
    ConnectFailed,
    Connected,
}

const GOOD: Input = responded(200, 10);
const SLOW: Input = responded(200, 300);
const BAD: Input = responded(500, 10);
const SILENT: Input =
    Input::Probe(ProbeOutcome::TimedOut { limit: Duration::from_millis(500), reached: Reached::Connection });

fn give(health: &Health, input: Input, rules: &Rules, now: Instant) -> Option<Change> {
    match input {
        Input::Probe(probe) => health.probed(&probe, rules, now),
        Input::ConnectFailed => health.connect_failed(rules, now),
        Input::Connected => health.connected(rules, now),
    }
}

fn give_all(health: &Health, inputs: &[Input], rules: &Rules) {
    for &input in inputs {
        give(health, input, rules, START);
    }
}

/// In `state`, reached by probes long before [`START`].
fn in_state(state: HealthState) -> Health {
    let health = Health::new(7);
    let way = match state {
        Unknown => None,
        Healthy => Some(GOOD),
        Slow => Some(SLOW),
        Unhealthy => Some(BAD),
    };
    way.map(|input| give(&health, input, &RULES, Instant::ZERO));
    assert_eq!(health.state(), state);
    health
}

#[test]
fn the_better_of_two_outcomes() {
    let good = |ms| ProbeOutcome::Good { status: 200, after: Duration::from_millis(ms) };
    let other = ProbeOutcome::Good { status: 204, after: Duration::from_millis(20) };
    let (bad, worse) =
        (ProbeOutcome::UnexpectedStatus { status: 500 }, ProbeOutcome::UnexpectedStatus { status: 501 });
    let table = [
        (good(10), good(20), good(10)),
        (good(20), good(10), good(10)),
        (good(20), other, good(20)),
        (other, good(20), other),
        (good(20), bad, good(20)),
        (bad, good(20), good(20)),
        (bad, worse, bad),
    ];
    for (earlier, later, better) in table {
        assert_eq!(earlier.better(later), better, "{earlier:?} {later:?}");
    }
}

/// The first number of SplitMix64 with the seed 0, as published with it.
#[test]
fn jitter_is_mixed_well() {
    assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
}

#[test]
fn what_counts_as_what() {
    let table = [
        (responded(200, 299), Healthy),
        (responded(200, 300), Slow),
        (responded(399, 0), Healthy),
        (responded(399, 9999), Slow),
        (responded(199, 0), Unhealthy),
        (responded(400, 0), Unhealthy),
        (responded(101, 0), Unhealthy),
        (responded(503, 400), Unhealthy),
        (SILENT, Unhealthy),
    ];
    for (input, expected) in table {
        let health = in_state(Unknown);
        give(&health, input, &RULES, START);
        assert_eq!(health.state(), expected, "{input:?}");
    }
}

#[test]
fn every_state_and_input() {
    const INPUTS: [Input; 6] = [GOOD, SLOW, BAD, SILENT, Input::ConnectFailed, Input::Connected];
    let slow_to_change = Rules { rise: 2, fall: 2, ..RULES };
    #[rustfmt::skip]
    let table = [
        // rules, from,         good     slow     bad        silent     failed     connected
        (RULES, Unknown,   [Healthy, Slow, Unhealthy, Unhealthy, Unknown, Unknown]),
        (RULES, Healthy,   [Healthy, Slow, Unhealthy, Unhealthy, Healthy, Healthy]),
        (RULES, Slow,      [Healthy, Slow, Unhealthy, Unhealthy, Slow, Slow]),
        (RULES, Unhealthy, [Healthy, Slow, Unhealthy, Unhealthy, Unhealthy, Unhealthy]),
        (slow_to_change, Unknown,   [Healthy, Slow, Unhealthy, Unhealthy, Unknown, Unknown]),
        (slow_to_change, Healthy,   [Healthy, Slow, Healthy, Healthy, Healthy, Healthy]),
        (slow_to_change, Slow,      [Healthy, Slow, Slow, Slow, Slow, Slow]),
        (slow_to_change, Unhealthy, [Unhealthy, Unhealthy, Unhealthy, Unhealthy, Unhealthy, Unhealthy]),
        (NO_PROBES, Unknown,   [Healthy, Slow, Unhealthy, Unhealthy, Unknown, Unknown]),
        (NO_PROBES, Healthy,   [Healthy, Slow, Unhealthy, Unhealthy, Healthy, Healthy]),
        (NO_PROBES, Slow,      [Healthy, Slow, Unhealthy, Unhealthy, Slow, Slow]),
        (NO_PROBES, Unhealthy, [Healthy, Slow, Unhealthy, Unhealthy, Unhealthy, Healthy]),
    ];
    for (rules, from, expected) in table {
        for (input, to) in INPUTS.into_iter().zip(expected) {
            let health = in_state(from);
            let change = give(&health, input, &rules, START);
            assert_eq!(health.state(), to, "{from:?} {input:?}");
            assert_eq!(change, (from != to).then_some(Change { from, to }), "{from:?} {input:?}");
            // Only leaving Unhealthy begins a ramp.
            let ramps = from == Unhealthy && to != Unhealthy;
            assert_eq!(health.ramp_end(&rules, START).is_some(), ramps, "{from:?} {input:?}");
        }
    }
}

#[test]
fn streaks_are_in_a_row() {
    let rules = Rules { rise: 3, fall: 2, ..RULES };
    let table: &[(&[Input], HealthState)] = &[
        (&[GOOD, BAD], Healthy),
        (&[GOOD, BAD, GOOD, BAD], Healthy),
        (&[GOOD, BAD, BAD], Unhealthy),
        (&[GOOD, SLOW, BAD, SILENT], Unhealthy),
        (&[BAD, GOOD, GOOD], Unhealthy),
        (&[BAD, GOOD, GOOD, BAD, GOOD, GOOD], Unhealthy),
        (&[BAD, GOOD, SLOW, GOOD], Healthy),
        (&[BAD, GOOD, GOOD, SLOW], Slow),
        // The streak that made it Unhealthy doesn't count for or against what follows.
        (&[GOOD, BAD, BAD, GOOD, GOOD, GOOD, BAD], Healthy),
    ];
    for (inputs, expected) in table {
        let health = Health::new(1);
        give_all(&health, inputs, &rules);
        assert_eq!(health.state(), *expected, "{inputs:?}");
    }
}

#[test]
fn three_failed_connects_in_a_row() {
    use Input::{ConnectFailed as Failed, Connected};
    let table: &[(HealthState, &[Input], HealthState)] = &[
        (Healthy, &[Failed, Failed], Healthy),
        (Healthy, &[Failed, Failed, Failed], Unhealthy),
        (Slow, &[Failed, Failed, Failed], Unhealthy),
        (Unknown, &[Failed, Failed, Failed], Unhealthy),
        (Healthy, &[Failed, Failed, Connected, Failed, Failed], Healthy),
        // A probe that goes well says nothing about the traffic.
        (Healthy, &[Failed, Failed, GOOD, Failed], Unhealthy),
        // The next good probe brings it back, and three more failures are needed.
        (Healthy, &[Failed, Failed, Failed, GOOD, Failed, Failed], Healthy),
    ];
    for rules in [RULES, NO_PROBES] {
        for (from, inputs, expected) in table {
            let health = in_state(*from);
            give_all(&health, inputs, &rules);
            assert_eq!(health.state(), *expected, "{from:?} {inputs:?}");
        }
    }
}

#[test]
fn shares() {
    let ms = |ms| START + Duration::from_millis(ms);
    for (state, expected) in [(Unknown, 1000), (Healthy, 1000), (Slow, 250), (Unhealthy, 0)] {
        assert_eq!(in_state(state).weight_permille(&RULES, START), expected, "{state:?}");
    }
    for (input, table) in [
        (
            GOOD,
            [
                (0, 1),
                (10, 1),
                (100, 10),
                (2_500, 250),
                (5_000, 500),
                (9_999, 999),
                (10_000, 1000),
                (99_999, 1000),
            ],
        ),
        (
            SLOW,
            [
                (0, 1),
                (10, 1),
                (100, 2),
                (2_500, 62),
                (5_000, 125),
                (9_999, 249),
                (10_000, 250),
                (99_999, 250),
            ],
        ),
    ] {
        let health = in_state(Unhealthy);
        give(&health, input, &RULES, START);
        for (after, expected) in table {
            assert_eq!(health.weight_permille(&RULES, ms(after)), expected, "{input:?} after {after} ms");
            assert_eq!(health.ramp_end(&RULES, ms(after)), (after < 10_000).then_some(ms(10_000)));
        }
        // A shard whose clock is a little behind.
        assert_eq!(health.weight_permille(&RULES, START - Duration::from_millis(3)), 1);
        let at_once = Rules { ramp_up: Duration::ZERO, ..RULES };
        assert_eq!(
            health.weight_permille(&at_once, START - Duration::from_millis(3)),
            if matches!(health.state(), Slow) { 250 } else { 1000 }
        );
    }
    // The ramp goes on when the state changes meanwhile.
    let health = in_state(Unhealthy);
    give(&health, SLOW, &RULES, START);
    give(&health, GOOD, &RULES, ms(5_000));
    assert_eq!(health.weight_permille(&RULES, ms(5_000)), 500);
}

fn fail(health: &Health, now: Instant) {
    for _ in 0..CONNECT_FAILURES {
        health.connect_failed(&NO_PROBES, now);
    }
    assert_eq!(health.state(), Unhealthy);
}

#[test]
fn one_half_open_attempt_after_each_growing_pause() {
    let health = in_state(Healthy);
    let mut now = START;
    fail(&health, now);
    for expected_s in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        let at = health.half_open_at(&NO_PROBES).expect("unhealthy and no probes");
        let pause = at.since(now).as_millis() as u64;
        assert!((expected_s * 899..=expected_s * 1_101).contains(&pause), "{pause} ms for {expected_s} s");
        assert!(!health.try_half_open(&NO_PROBES, at - Duration::from_millis(1)), "too early");
        assert!(!health.try_half_open(&RULES, at), "probes are on");
        assert!(health.try_half_open(&NO_PROBES, at));
        assert!(!health.try_half_open(&NO_PROBES, at), "only one");
        // While its connect may still be under way no other attempt begins.
        assert!(!health.try_half_open(&NO_PROBES, at + NO_PROBES.connect));
        now = at + Duration::from_millis(900);
        assert_eq!(health.connect_failed(&NO_PROBES, now), None);
    }
    // An attempt that never ended is followed by another.
    let at = health.half_open_at(&NO_PROBES).expect("still unhealthy");
    assert!(health.try_half_open(&NO_PROBES, at));
    let next = health.half_open_at(&NO_PROBES).expect("still unhealthy");
    assert!(next.since(at) <= Duration::from_secs(66) && health.try_half_open(&NO_PROBES, next));
    assert_eq!(health.connected(&NO_PROBES, next), Some(Change { from: Unhealthy, to: Healthy }));
    assert_eq!(health.weight_permille(&NO_PROBES, next + Duration::from_secs(5)), 500);
    // Unhealthy again: pauses start anew.
    fail(&health, next);
    let pause = health.half_open_at(&NO_PROBES).expect("unhealthy").since(next);
    assert!(pause <= Duration::from_millis(1_101), "{pause:?}");
}

proptest! {
    /// Against the plainest model there is: a state and three counters.
    #[test]
    fn the_packed_state_does_what_plain_counters_do(
        rise in 1u32..4, fall in 1u32..4, inputs in prop::collection::vec(0usize..5, 0..60), off: bool,
    ) {
        let check_every = if off { Duration::ZERO } else { RULES.check_every };
        let rules = Rules { rise, fall, check_every, ..RULES };
        let health = Health::new(3);
        let (mut state, mut good, mut bad, mut failures) = (Unknown, 0, 0, 0);
        let mut by_traffic = false;
        for (step, input) in inputs.into_iter().enumerate() {
            let now = START + Duration::from_millis(step as u64 * 10);
            let input = [GOOD, SLOW, BAD, Input::ConnectFailed, Input::Connected][input];
            let before = state;
            match input {
                Input::Probe(ProbeOutcome::Good { after, .. }) => {
                    (good, bad) = (good + 1, 0);
                    if state != Unhealthy || good >= rise {
                        if state == Unhealthy { failures = 0; }
                        state = if after < rules.slow_threshold { Healthy } else { Slow };
                    }
                }
                Input::Probe(_) => {
                    (good, bad) = (0, bad + 1);
                    if state == Unknown || bad >= fall { state = Unhealthy; }
                    by_traffic = false;
                }
                Input::ConnectFailed => {
                    if state != Unhealthy { failures += 1; }
                    if failures >= 3 { (state, by_traffic) = (Unhealthy, true); }
                }
                Input::Connected => {
                    if state != Unhealthy { failures = 0; }
                    if state == Unhealthy && (off || by_traffic) { state = Healthy; }
                }
            }
            if before != state && (before == Unhealthy || state == Unhealthy) {
                (good, bad, failures) = (0, 0, 0);
            }
            let change = give(&health, input, &rules, now);
            by_traffic &= state == Unhealthy;
            prop_assert_eq!(health.state(), state);
            prop_assert_eq!(health.is_unhealthy_by_traffic(), by_traffic);
            prop_assert_eq!(change, (before != state).then_some(Change { from: before, to: state }));
        }
    }
}

#[test]
fn outcomes_as_text() {
    let (status, limit) = (200, Duration::from_millis(500));
    let table = [
        (
            ProbeOutcome::Good { status, after: Duration::from_millis(12) },
            "check_passed",
            "HTTP 200 after 12 ms",
        ),
        (ProbeOutcome::UnexpectedStatus { status: 500 }, "check_status", "HTTP 500"),
        (ProbeOutcome::NotServing, "check_grpc", "NOT_SERVING"),
        (ProbeOutcome::CallFailed { status: Some(5) }, "check_grpc", "grpc-status 5"),
        (ProbeOutcome::CallFailed { status: None }, "check_grpc", "no answer of grpc.health.v1"),
        (ProbeOutcome::TextMissing { status }, "check_body", "HTTP 200 without the text of body_contains"),
        (
            ProbeOutcome::TimedOut { limit, reached: Reached::Nothing },
            "check_timeout",
            "no connection in 500 ms",
        ),
        (
            ProbeOutcome::TimedOut { limit, reached: Reached::Connection },
            "check_timeout",
            "no answer in 500 ms",
        ),
        (
            ProbeOutcome::TimedOut { limit, reached: Reached::Head(200) },
            "check_timeout",
            "HTTP 200, but no whole answer in 500 ms",
        ),
        (ProbeOutcome::Failed { why: Cause::ConnectRefused }, "connect_refused", "connect_refused"),
    ];
    for (outcome, reason, text) in table {
        assert_eq!((outcome.reason(), outcome.to_string().as_str()), (reason, text));
        assert_eq!(outcome.is_good(), reason == "check_passed");
    }
}
