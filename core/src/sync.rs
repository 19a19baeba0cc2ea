//! Atomics and locks for the state that shards share: the standard library's, or loom's, which runs a test in
//! every order in which threads can interleave (`RUSTFLAGS="--cfg loom"`, `core/tests/loom.rs`).

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

/// To be called between two `SeqCst` accesses of one thread that rely on the single order of all such
/// accesses. Hardware needs nothing more than the accesses; loom treats them as `AcqRel` and has a single
/// order only for fences.
#[cfg(loom)]
pub(crate) fn in_one_order() {
    loom::sync::atomic::fence(Ordering::SeqCst);
}
#[cfg(not(loom))]
#[inline]
pub(crate) const fn in_one_order() {}
