//! The timing wheel with the deadlines of ten thousand connections.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use ruststrom_core::Instant;
use ruststrom_core::wheel::{TimerKey, Wheel};

const CONNECTIONS: u32 = 10_000;

/// Deadlines between one second and a little over a minute from `now`, as the timeouts of a proxy are.
fn deadline(slot: u32, now: Instant) -> Instant {
    now + Duration::from_millis(1_000 + u64::from(slot.wrapping_mul(2_654_435_761) >> 16))
}

fn full(now: Instant) -> Wheel {
    let mut wheel = Wheel::default();
    for slot in 0..CONNECTIONS {
        wheel.set(TimerKey::Conn(slot), deadline(slot, now));
    }
    wheel
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let start = Instant::from_millis(1_000);
    let mut group = criterion.benchmark_group("wheel of 10000");
    group.throughput(Throughput::Elements(1));

    // What a request does to the wheel: its connection's deadline moves on, and the driver asks for the next
    // moment.
    let (mut wheel, mut now, mut slot) = (full(start), start, 0);
    group.bench_function("move one", |b| {
        b.iter(|| {
            slot = (slot + 7919) % CONNECTIONS;
            now = now + Duration::from_nanos(100);
            wheel.set(TimerKey::Conn(slot), deadline(slot, now));
            wheel.next()
        });
    });

    let mut wheel = full(start);
    group.bench_function("remove one and file it again", |b| {
        b.iter(|| {
            slot = (slot + 7919) % CONNECTIONS;
            wheel.clear(TimerKey::Conn(slot));
            wheel.set(TimerKey::Conn(slot), deadline(slot, start));
            wheel.len()
        });
    });

    // No deadline moves: timers come due one after the other, through every level that they were filed in.
    let (mut wheel, mut now) = (full(start), start);
    group.bench_function("wait for the next and file it again", |b| {
        b.iter(|| {
            loop {
                if let Some(TimerKey::Conn(slot)) = wheel.expire(now) {
                    wheel.set(TimerKey::Conn(slot), deadline(slot, now));
                    return slot;
                }
                now = wheel.next().expect("all are filed");
            }
        });
    });
    group.finish();
}
