//! `cargo run --release -p ruststrom-benches --bin reload_cost -- 10000`: what a reload of so many pools
//! costs a worker, when one pool changes and when none does, beside making everything anew.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::Arc;
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

fn settle(proxy: &mut Proxy<ExchangeCounts>) {
    while proxy.poll_effect().is_some() || proxy.poll_conn().is_some() {}
}

fn main() {
    let pools = std::env::args().nth(1).map_or(10_000, |n| n.parse().expect("how many pools"));
    let ms = |spent: Duration| spent.as_secs_f64() * 1000.0;
    let begun = Clock::now();
    let mut config = Arc::new(read(pools, 1));
    println!("reading {pools} pools: {:.2} ms", ms(begun.elapsed()));
    let shared = Arc::new(Shared::new("host", SHARDS));
    let mut proxies: Vec<_> = (0..SHARDS)
        .map(|shard| {
            let begun = Clock::now();
            let mut proxy = Proxy::new(
                config.clone(),
                shared.clone(),
                shard,
                1,
                ExchangeCounts::default(),
                Instant::ZERO,
            );
            println!("making the proxy of shard {shard}: {:.2} ms", ms(begun.elapsed()));
            settle(&mut proxy);
            proxy
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
            let old = std::mem::replace(&mut config, next);
            drop(old);
            let turns = proxies.iter_mut().map(|proxy| {
                let begun = Clock::now();
                proxy.handle_config(config.clone(), Instant::ZERO);
                let spent = begun.elapsed();
                settle(proxy);
                spent
            });
            longest.push((turns.max().expect("a shard"), difference + prepared));
        }
        longest.sort();
        let (turn, difference) = longest[ROUNDS / 2];
        println!("{name}: a turn of {:.2} ms, off the workers {:.2} ms", ms(turn), ms(difference));
    }
}
