//! Decoding chunked content in place.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use ruststrom_benches::messages;
use ruststrom_core::h1::{BodyProgress, BodyReader};
use ruststrom_core::http::Framing;

const SIZE: usize = 64 << 10;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunked decode of 64 KiB");
    group.throughput(Throughput::Bytes(SIZE as u64));
    for chunk in [16, 1024, 16384] {
        let wire = messages::chunks(SIZE, chunk);
        group.bench_function(BenchmarkId::new("chunks of", chunk), |b| {
            // A fresh copy each time: the payload is moved to its front.
            b.iter_batched_ref(
                || wire.clone(),
                |wire| {
                    let mut reader = BodyReader::new(Framing::Chunked);
                    let (mut at, mut payload) = (0, 0);
                    while reader.progress() == BodyProgress::More {
                        let got = reader.receive(&mut wire[at..]).expect("good chunks");
                        at += got.consumed;
                        payload += got.payload;
                    }
                    assert_eq!(payload, SIZE);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}
