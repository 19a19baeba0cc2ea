//! The example of README.md, as it is written there.

use std::time::Duration;

use crate::daemon::Daemon;
use crate::pebble::{Oddities, Pebble};

/// But for the addresses, which are not free everywhere, and the authority, which is not Let's Encrypt.
#[test]
fn the_example_of_the_readme_works_with_another_authority() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
    let readme = readme.expect("README.md");
    let blocks = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let example = blocks.into_iter().find(|block| block.contains("ACME = {")).expect("an example");
    let pebble = Pebble::start(Oddities::default());
    let mut text = example.to_owned();
    for (written, here) in [
        ("\"[::]:80\"", format!("\"{}\"", pebble.http)),
        ("\"[::]:443\"", format!("\"{}\"\nmetrics_address = false", pebble.https)),
        ("persist_dir = \"acme-cache\"\n", format!("persist_dir = \"acme-cache\", {}\n", pebble.keys())),
    ] {
        assert_eq!(text.matches(written).count(), 1, "{written}: {text}");
        text = text.replace(written, &here);
    }
    let daemon = Daemon::start(&text, &[]);
    pebble.wait_until_trusted("example.com", &daemon);
    daemon.wait_for("example.com: a certificate of ");
    // The directory is beside the configuration.
    std::thread::sleep(Duration::from_millis(200));
    assert!(daemon.directory.0.join("acme-cache/example.com.pem").is_file());
    daemon.stop();
}
