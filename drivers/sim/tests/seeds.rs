//! The seeds that every test run includes: those that once failed, and 256 others, each twice.

use ruststrom_sim::{Mark, run_twice};

/// Runs a seed, which must be clean, and returns how many complete responses of backends there were.
fn clean(seed: u64) -> u64 {
    let report = run_twice(seed);
    if let Some(violation) = &report.violation {
        panic!(
            "{seed:#x} {} {violation}\nreplay: cargo run --profile sim -p ruststrom-sim -- --seed {seed:#x}",
            report.events
        );
    }
    report.coverage.of(Mark::BackendResponse)
}

#[test]
fn seeds_that_once_failed() {
    let text = include_str!("../../../testdata/seeds/h1.txt");
    let mut run = 0;
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let (seed, why) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}: a seed and why"));
        assert!(!why.trim().is_empty(), "{seed}: why?");
        let digits = seed.strip_prefix("0x").unwrap_or_else(|| panic!("{seed}: hexadecimal"));
        clean(u64::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("{seed}: {e}")));
        run += 1;
    }
    assert!(run > 0);
}

#[test]
fn two_hundred_and_fifty_six_seeds() {
    let responses: u64 = (1..=256).map(clean).sum();
    assert!(responses > 2_000, "only {responses} responses: the scenarios have too little traffic");
}
