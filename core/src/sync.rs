//! Atomics and locks of what shards share: the standard library's, or loom's, which plays every order in
//! which threads can meet (`RUSTFLAGS="--cfg loom"`, `core/tests/loom.rs`).

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

/// A value alone on its cache lines: a shard that writes it does not slow another that reads what lies beside
/// it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// Between two `SeqCst` accesses of one thread. They need nothing more, but loom takes such accesses as
/// `AcqRel` and knows one order of all only from fences.
#[cfg(loom)]
pub(crate) fn in_one_order() {
    loom::sync::atomic::fence(Ordering::SeqCst);
}
#[cfg(not(loom))]
#[inline]
pub(crate) const fn in_one_order() {}
