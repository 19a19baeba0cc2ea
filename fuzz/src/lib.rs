//! What the fuzz targets do with their bytes, as plain functions: `core/tests/fuzz_replay.rs` plays the kept
//! inputs through the same bodies on a stable compiler.
#![forbid(unsafe_code)]

mod bodies;

#[path = "../../core/tests/corpus/format.rs"]
#[allow(dead_code, reason = "shared with the corpus test")]
mod format;
#[path = "../../core/tests/proxy/observer.rs"]
#[allow(dead_code, reason = "shared with the tests of the proxy")]
mod observer;
#[path = "../../core/tests/proxy/script.rs"]
#[allow(dead_code, reason = "shared with the tests of the proxy")]
mod script;
#[path = "../../core/tests/proxy/serve.rs"]
mod serve;
#[path = "../../core/tests/proxy/turn.rs"]
mod turn;
#[path = "../../core/tests/corpus/world.rs"]
#[allow(dead_code, reason = "shared with the corpus test")]
mod wire;
#[path = "../../core/tests/proxy/world.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests of the proxy")]
mod world;

/// Plays `data` through the body of a target.
///
/// # Panics
/// If a property is broken, or there is no such target.
pub fn run(target: &str, data: &[u8]) {
    assert!(bodies::TARGETS.contains(&target));
    bodies::run(target, data);
}
