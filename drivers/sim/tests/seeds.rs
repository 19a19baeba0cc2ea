//! What every test run plays: the seeds that once failed, and 256 others, each twice.

use ruststrom_sim::{Mark, run_twice};

fn clean(seed: u64) -> u64 {
    let outcome = run_twice(seed);
    if let Some(v) = &outcome.violation {
        panic!(
            "{seed:#x} {} {}: {}\nreplay: cargo run --profile sim -p ruststrom-sim -- --seed {seed:#x}",
            outcome.events, v.invariant, v.text
        );
    }
    outcome.coverage.of(Mark::Exchange)
}

#[test]
fn seeds_that_once_failed() {
    let text = include_str!("../../../testdata/seeds/h1.txt");
    let mut played = 0;
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let (seed, why) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}: a seed and why"));
        assert!(!why.trim().is_empty(), "{seed}: why?");
        let digits = seed.strip_prefix("0x").unwrap_or_else(|| panic!("{seed}: hexadecimal"));
        clean(u64::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("{seed}: {e}")));
        played += 1;
    }
    assert!(played > 0);
}

#[test]
fn two_hundred_and_fifty_six_seeds() {
    let exchanges: u64 = (1..=256).map(clean).sum();
    assert!(exchanges > 2_000, "{exchanges} exchanges only: the swarm has gone quiet");
}
