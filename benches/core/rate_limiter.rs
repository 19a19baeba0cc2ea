//! Decisions of a rate limiter: of a client again and again, of many clients at random, and refusals.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use ruststrom_core::Instant;
use ruststrom_core::middleware::request_windows::{RequestLimit, RequestWindows};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rate limiter");
    group.throughput(Throughput::Elements(1));
    for clients in [1_u32, 1_000, 500_000] {
        for (name, requests) in [("admit", u32::MAX), ("mostly refuse", 1)] {
            let windows = RequestWindows::new([1, 2]);
            let limit = RequestLimit::new(requests, Duration::from_secs(60));
            let (mut now, mut client) = (Instant::from_millis(1_000), 0_u32);
            let address = |n: u32| IpAddr::V4((0x0a00_0000 + n).into());
            for n in 0..clients {
                windows.admit(address(n), &limit, now);
            }
            group.bench_function(BenchmarkId::new(name, clients), |b| {
                b.iter(|| {
                    client = client.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    now = now + Duration::from_micros(1);
                    let place = ((u64::from(client) * u64::from(clients)) >> 32) as u32;
                    black_box(windows.admit(address(place), &limit, now))
                });
            });
        }
    }
    group.finish();
}
