//! Bugs on purpose: the core has them only when built for this, one at a time.

/// Runs each planted bug until it is caught; true if all were.
pub fn check(say: &mut dyn FnMut(&str)) -> bool {
    say("built without planted bugs: use --features planted");
    false
}
