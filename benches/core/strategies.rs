//! Choosing a backend while some exchanges are in flight, and giving its slot back.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use ruststrom_core::balance::{Balancer, Choice, SelectionInput, Tried};
use ruststrom_core::{Instant, Shared, config};

/// How many exchanges are in flight all the time.
const IN_FLIGHT: usize = 64;

/// A name, the strategy as the configuration file has it, and whether clients send their cookie.
const STRATEGIES: &[(&str, &str, bool)] = &[
    ("RoundRobin", "\"RoundRobin\"", false),
    ("Random", "\"Random\"", false),
    ("IPHash", "\"IPHash\"", false),
    ("LeastConnection", "\"LeastConnection\"", false),
    ("StickyCookie, with it", "{ StickyCookie = { cookie_name = \"s\" } }", true),
    ("StickyCookie, without", "{ StickyCookie = { cookie_name = \"s\" } }", false),
];

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("choose");
    for backends in [10_u16, 1000] {
        let addresses: Vec<_> =
            (0..backends).map(|i| format!("\"10.1.{}.{}:80\"", i / 250, 1 + i % 250)).collect();
        for (name, strategy, sticky) in STRATEGIES {
            let text = format!(
                "http_address = \"127.0.0.1:80\"\n[health_interval]\ncheck_every = 0\n\
                 [[backend_pools]]\naddresses = [{}]\nstrategy = {strategy}\n",
                addresses.join(", ")
            );
            let config = config::parse(&text).config.expect("a good configuration");
            let shared = Shared::new("bench", 1);
            let state = shared.adopt(&config).remove(0);
            let mut balancer = Balancer::new(&config.pools[0], Arc::clone(&state), 1);
            let cookies: Vec<String> = match (sticky, balancer.sticky()) {
                // A browser sends back name and value of the line that set the cookie.
                (true, Some(sticky)) => (0..backends)
                    .map(|backend| String::from_utf8_lossy(sticky.set_cookie(backend)).into_owned())
                    .map(|line| {
                        format!(
                            "theme=dark; {}",
                            line["Set-Cookie: ".len()..].split(';').next().expect("a pair")
                        )
                    })
                    .collect(),
                _ => Vec::new(),
            };
            let (tried, mut now, mut client) = (Tried::new(), Instant::from_millis(1_000_000), 0_u32);
            let mut running = VecDeque::with_capacity(IN_FLIGHT + 1);
            group.bench_function(BenchmarkId::new(*name, backends), |b| {
                b.iter(|| {
                    client = client.wrapping_add(1);
                    now = now + std::time::Duration::from_micros(10);
                    let cookie = cookies.get(client as usize % cookies.len().max(1));
                    let sticky = cookie.and_then(|line| balancer.sticky()?.find(line.as_bytes()));
                    let ask = SelectionInput {
                        client: IpAddr::from((0x0a00_0000 | client & 0xffff).to_be_bytes()),
                        sticky,
                        tried: &tried,
                    };
                    let Choice::Backend(chosen) = balancer.choose(&ask, now) else {
                        panic!("all are usable")
                    };
                    running.push_back(chosen);
                    if running.len() > IN_FLIGHT
                        && let Some(ended) = running.pop_front()
                    {
                        state.finish(ended);
                    }
                    chosen
                });
            });
        }
    }
    group.finish();
}
