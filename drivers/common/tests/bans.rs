//! What may not be called is refused by a lint.

use std::path::Path;

/// Both wait on a runtime that is not here, and would panic.
#[test]
fn the_client_of_acme_never_waits_by_itself() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.clippy.toml");
    let bans = std::fs::read_to_string(file).expect("the bans");
    for function in ["poll_ready", "poll_certificate"] {
        assert!(bans.contains(&format!("path = \"instant_acme::Order::{function}\"")), "{function}");
    }
}
