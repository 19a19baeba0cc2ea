//! How fast the simulator plays its default swarm: exchanges per CPU second, on one thread.
//!
//! A bench is a release build, without debug assertions and overflow checks: every judge of the simulator and
//! every `check()` of the core looks on, but for what the core asserts in debug builds only (wants handed
//! out, lost wake-ups). So this is the speed of the code, to compare one commit with another. A soak has all
//! assertions, and ends with its own figure: `cargo run --profile sim -p ruststrom-sim`.

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};
use rustix::time::{ClockId, clock_gettime};
use ruststrom_sim::run;

/// Seeds differ a thousandfold in what they cost: as many as make it the usual mixture, and always the same.
const SEEDS: std::ops::RangeInclusive<u64> = 1001..=1256;

/// What this thread has used, so that others on the machine do not count.
fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

fn play() -> u64 {
    let played = SEEDS.map(|seed| run(seed, false));
    played
        .map(|outcome| if outcome.violation.is_none() { outcome.exchanges() } else { panic!("{outcome:?}") })
        .sum()
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("simulator");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .measurement_time(Duration::from_secs(6))
        .throughput(Throughput::Elements(play()));
    group.bench_function("the swarm of 256 seeds", |b| {
        b.iter_custom(|times| {
            let before = cpu_time();
            for _ in 0..times {
                std::hint::black_box(play());
            }
            cpu_time() - before
        });
    });
    group.finish();
}
