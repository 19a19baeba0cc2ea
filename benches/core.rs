//! `cargo bench -p ruststrom-benches`: what the core costs where no kernel takes its share. A word after `--`
//! runs what has it in its name.
#![forbid(unsafe_code)]

#[path = "core/chunked.rs"]
mod chunked;
#[path = "core/exchanges.rs"]
mod exchanges;
#[path = "core/heads.rs"]
mod heads;
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
    // Nothing here needs longer: what varies is the machine.
    let quick = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    let mut criterion = quick.configure_from_args();
    let benches = [
        exchanges::bench,
        heads::bench,
        chunked::bench,
        routing::bench,
        strategies::bench,
        wheel::bench,
        simulator::bench,
    ];
    for bench in benches {
        bench(&mut criterion);
    }
    criterion.final_summary();
}
