//! `cargo bench -p ruststrom-benches`: the cost of the core without sockets. A word after `--` runs only the
//! benchmarks with that word in their name.
#![forbid(unsafe_code)]

#[path = "core/chunked.rs"]
mod chunked;
#[path = "core/exchanges.rs"]
mod exchanges;
#[path = "core/heads.rs"]
mod heads;
#[path = "core/hpack.rs"]
mod hpack;
#[path = "core/rate_limiter.rs"]
mod rate_limiter;
#[path = "core/routing.rs"]
mod routing;
#[path = "core/simulator.rs"]
mod simulator;
#[path = "core/strategies.rs"]
mod strategies;
#[path = "core/wheel.rs"]
mod wheel;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    // Longer measurements are not more precise: most of the variation comes from the machine.
    let short = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    let mut criterion = short.configure_from_args();
    let benches = [
        exchanges::bench,
        heads::bench,
        chunked::bench,
        hpack::bench,
        routing::bench,
        strategies::bench,
        rate_limiter::bench,
        wheel::bench,
        simulator::bench,
    ];
    for bench in benches {
        bench(&mut criterion);
    }
    criterion.final_summary();
}
