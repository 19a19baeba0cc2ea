//! Whole exchanges through `Proxy`: heads read and made anew, a pool and a backend chosen, timers filed, a
//! record made.

use criterion::{BenchmarkId, Criterion, Throughput};
use ruststrom_benches::{Harness, messages};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("exchange");
    let kept = [
        ("small", messages::SMALL_REQUEST.to_vec(), messages::small_response()),
        ("browser", messages::BROWSER_REQUEST.to_vec(), messages::browser_response()),
    ];
    for (name, request, response) in &kept {
        let mut harness = Harness::new("");
        harness.connect();
        group.throughput(Throughput::Elements(1));
        group.bench_function(*name, |b| b.iter(|| harness.exchange(request, response)));
    }
    let middlewares = "[backend_pools.middlewares.RateLimiter]\nlimit = 4294967295\nwindow_sec = 1\n\
                       [backend_pools.middlewares.MaxBodySize]\nlimit = \"10MB\"\n";
    let mut harness = Harness::with_pool("", middlewares);
    harness.connect();
    group.bench_function("small, through RateLimiter and MaxBodySize", |b| {
        b.iter(|| harness.exchange(&kept[0].1, &kept[0].2));
    });
    let mut harness = Harness::new("");
    group.bench_function("small, on a connection of its own", |b| {
        b.iter(|| {
            harness.connect();
            harness.exchange(messages::SMALL_REQUEST, &kept[0].2);
            harness.disconnect();
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("body");
    for size in [16 << 10, 1 << 20] {
        let table = [
            ("answer", messages::SMALL_REQUEST.to_vec(), messages::response(size)),
            (
                "answer in chunks of 4 KiB",
                messages::SMALL_REQUEST.to_vec(),
                messages::chunked_response(size, 4096),
            ),
            ("upload", messages::upload(size), messages::small_response()),
        ];
        group.throughput(Throughput::Bytes(size as u64));
        for (name, request, response) in &table {
            let mut harness = Harness::new("");
            harness.connect();
            group.bench_function(BenchmarkId::new(*name, size), |b| {
                b.iter(|| harness.exchange(request, response))
            });
        }
    }
    group.finish();
}
