//! `cargo run --release -p ruststrom-benches --bin reload_cost -- 10000`: what a reload of so many pools
//! costs a worker, when one pool changes and when none does, beside making everything anew.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant as Clock};

use ruststrom_benches::ExchangeCounts;
use ruststrom_core::{Config, Instant, Proxy, Shared, config};

const ROUNDS: usize = 7;
const SHARDS: u16 = 2;

fn text(pools: usize, weight: usize) -> String {
    let mut text = "http_address = \"127.0.0.1:80\"\n".to_owned();
    for pool in 0..pools {
        let weight = if pool == pools / 2 { weight } else { 1 };
        writeln!(
            text,
            "[[backend_pools]]\nname = \"pool-number-{pool}\"\nmatcher = \"Host('h{pool}.example.com')\"\n\
             addresses = [{{ address = \"10.{}.{}.1:80\", weight = {weight} }}, \"10.{}.{}.2:80\"]\n\
             [backend_pools.middlewares.MaxBodySize]\nlimit = 1000\n",
            pool / 250,
            pool % 250,
            pool / 250,
            pool % 250,
        )
        .expect("memory");
    }
    text
}

fn read(pools: usize, weight: usize) -> Config {
    config::parse(&text(pools, weight)).config.expect("a good configuration")
}

/// A worker: makes its proxy and takes one configuration after the other, on a thread of its own as in the
/// daemon, where the memory that a reload frees is not that of the workers. Tells how long each turn took.
fn work(
    shard: u16,
    shared: &Arc<Shared>,
    config: Arc<Config>,
    configs: &Receiver<Arc<Config>>,
    turns: &Sender<Duration>,
) {
    let begun = Clock::now();
    let counts = ExchangeCounts::default();
    let mut proxy = Proxy::new(config, shared.clone(), shard, 1, counts, Instant::ZERO);
    turns.send(begun.elapsed()).expect("somebody listens");
    while proxy.poll_effect().is_some() || proxy.poll_conn().is_some() {}
    for config in configs {
        let begun = Clock::now();
        proxy.handle_config(config, Instant::ZERO);
        let spent = begun.elapsed();
        while proxy.poll_effect().is_some() || proxy.poll_conn().is_some() {}
        turns.send(spent).expect("somebody listens");
    }
}

fn main() {
    let pools = std::env::args().nth(1).map_or(10_000, |n| n.parse().expect("how many pools"));
    let ms = |spent: Duration| spent.as_secs_f64() * 1000.0;
    let begun = Clock::now();
    let mut config = Arc::new(read(pools, 1));
    println!("reading {pools} pools: {:.2} ms", ms(begun.elapsed()));
    let shared = Arc::new(Shared::new("host", SHARDS));
    let workers: Vec<_> = (0..SHARDS)
        .map(|shard| {
            let (give, configs) = mpsc::channel();
            let (tell, turns) = mpsc::channel();
            let (config, shared) = (config.clone(), shared.clone());
            thread::spawn(move || work(shard, &shared, config, &configs, &tell));
            println!("making the proxy of shard {shard}: {:.2} ms", ms(turns.recv().expect("a worker")));
            (give, turns)
        })
        .collect();
    for (name, step) in [("nothing changes", 0), ("one pool changes", 1)] {
        let mut longest = Vec::new();
        for round in 0..ROUNDS {
            let next = read(pools, 1 + step * (round + 1));
            let begun = Clock::now();
            let lines = config::difference(&config, &next);
            let difference = begun.elapsed();
            assert_eq!(lines.len(), step, "{lines:?}");
            let next = Arc::new(next);
            let begun = Clock::now();
            drop(shared.prepare(&next));
            let prepared = begun.elapsed();
            drop(std::mem::replace(&mut config, next));
            // One after the other: a core that is short is not what is looked at.
            let turns = workers.iter().map(|(give, turns)| {
                give.send(config.clone()).expect("a worker");
                turns.recv().expect("a worker")
            });
            longest.push((turns.max().expect("a shard"), difference + prepared));
        }
        longest.sort();
        let ((turn, difference), (most, _)) = (longest[ROUNDS / 2], longest[ROUNDS - 1]);
        let (turn, most, difference) = (ms(turn), ms(most), ms(difference));
        println!("{name}: a turn of {turn:.2} ms, {most:.2} at most; off the workers {difference:.2} ms");
    }
}
