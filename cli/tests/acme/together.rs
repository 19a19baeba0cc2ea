//! Tests that wait more than they work, at the same time.

/// Runs all of them; the first that fails is named.
pub(crate) fn together<const N: usize>(tests: [(&'static str, fn()); N]) {
    std::thread::scope(|scope| {
        let threads = tests.map(|(name, test)| {
            let thread = std::thread::Builder::new().name(name.into());
            (name, thread.spawn_scoped(scope, test).expect("a thread"))
        });
        for (name, thread) in threads {
            assert!(thread.join().is_ok(), "{name} has failed");
        }
    });
}
