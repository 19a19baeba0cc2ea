//! Parsing heads, with all their rules.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use ruststrom_benches::messages;
use ruststrom_core::h1::{
    FieldIndex, HeadLimits, ResponseContext, parse_request_prefix, parse_response_prefix,
};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 16384, fields: 100, target_bytes: 8192 };

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    for (name, head) in
        [("request, small", messages::SMALL_REQUEST), ("request, browser", messages::BROWSER_REQUEST)]
    {
        let mut scratch = Vec::new();
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut store = FieldIndex::new();
                let Ok(Some((request, end))) =
                    parse_request_prefix(black_box(head), &mut store, &LIMITS, &mut scratch)
                else {
                    panic!("a good head");
                };
                black_box(&request);
                end
            });
        });
    }
    for (name, head) in [
        ("response, small", messages::SMALL_RESPONSE_HEAD),
        ("response, browser", messages::BROWSER_RESPONSE_HEAD),
    ] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut store = FieldIndex::new();
                let Ok(Some((response, end))) =
                    parse_response_prefix(black_box(head), &mut store, &LIMITS, ResponseContext::default())
                else {
                    panic!("a good head");
                };
                black_box(&response);
                end
            });
        });
    }
    group.finish();
}
