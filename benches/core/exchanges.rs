//! Whole exchanges through `Proxy`: heads read and made anew, a pool and a backend chosen, timers filed, a record made.

use criterion::{BenchmarkId, Criterion, Throughput};
use ruststrom_benches::{Rig, messages};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("exchange");
    let kept = [
        ("small", messages::SMALL_REQUEST.to_vec(), messages::small_answer()),
        ("browser", messages::BROWSER_REQUEST.to_vec(), messages::browser_answer()),
    ];
    for (name, request, answer) in &kept {
        let mut rig = Rig::new("");
        rig.connect();
        group.throughput(Throughput::Elements(1));
        group.bench_function(*name, |b| b.iter(|| rig.exchange(request, answer)));
    }
    let mut rig = Rig::new("");
    group.bench_function("small, on a connection of its own", |b| {
        b.iter(|| {
            rig.connect();
            rig.exchange(messages::SMALL_REQUEST, &kept[0].2);
            rig.disconnect();
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("body");
    for size in [16 << 10, 1 << 20] {
        let table = [
            ("answer", messages::SMALL_REQUEST.to_vec(), messages::answer(size)),
            ("answer in chunks of 4 KiB", messages::SMALL_REQUEST.to_vec(), messages::chunked_answer(size, 4096)),
            ("upload", messages::upload(size), messages::small_answer()),
        ];
        group.throughput(Throughput::Bytes(size as u64));
        for (name, request, answer) in &table {
            let mut rig = Rig::new("");
            rig.connect();
            group.bench_function(BenchmarkId::new(*name, size), |b| b.iter(|| rig.exchange(request, answer)));
        }
    }
    group.finish();
}
