//! A certificate is replaced before its end, without a restart.

use std::time::{Duration, Instant};

use crate::address::reserve;
use crate::client::WAIT;
use crate::daemon::TempDir;
use crate::mock_ca::MockCa;
use crate::pebble::{Oddities, Pebble};
use crate::site::{Site, shown, wait_for_another};

/// Certificates for fifteen seconds.
#[test]
fn short_lived_certificates() {
    let pebble = Pebble::start(Oddities { validity: Some(15), ..Oddities::default() });
    let site = Site::of(&pebble);
    let daemon = site.start();
    pebble.wait_until_trusted("a.example", &daemon);
    let begun = Instant::now();
    let before = shown(pebble.https, "a.example");
    wait_for_another(pebble.https, "a.example", &before, &daemon);
    assert!(pebble.trusts("a.example"), "{}", daemon.output());
    let took = begun.elapsed();
    assert!(Duration::from_secs(7) < took && took < Duration::from_secs(15), "{took:?}");
    daemon.stop();
}

/// The authority says when (RFC 9773), and is told what is replaced.
#[test]
fn when_the_authority_says_so() {
    let ca = MockCa::start();
    let site = Site {
        http: Some(reserve()),
        https: Some(reserve()),
        ca: format!("directory_url = \"http://{}/dir\"", ca.address),
        more: String::new(),
        folder: TempDir::new("acme"),
        top: "",
    };
    let https = site.https.expect("HTTPS");
    let daemon = site.start();
    let begun = Instant::now();
    while !shown(https, "a.example").contains("serial=02") {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", daemon.output());
        std::thread::sleep(Duration::from_millis(100));
    }
    daemon.wait_for("has something to say about the renewal: https://ca.example/why");
    // The next one is far away, and noted.
    let begun = Instant::now();
    let windows = || {
        let asked = ca.asked.lock().expect("no panic");
        asked.requests.iter().filter(|r| r.starts_with("GET /ari/")).count()
    };
    let is_noted = || site.file("ledger.json").is_some_and(|ledger| ledger.contains("\"window\": ["));
    while windows() < 2 || !is_noted() {
        assert!(begun.elapsed() < WAIT, "{:?}", site.file("ledger.json"));
        std::thread::sleep(Duration::from_millis(20));
    }
    // And no third one comes.
    std::thread::sleep(Duration::from_secs(1));
    let asked = ca.asked.lock().expect("no panic");
    let windows: Vec<&String> = asked.requests.iter().filter(|r| r.starts_with("GET /ari/")).collect();
    assert_eq!(windows.len(), 2, "{:?}", asked.requests);
    let id = windows[0].strip_prefix("GET /ari/").expect("an identifier");
    assert!(id.ends_with(".AQ"), "the serial number of the first is 1: {id}");
    assert_eq!(asked.replaces, [None, Some(id.to_owned())]);
    assert!(ca.root.contains("BEGIN CERTIFICATE"));
    drop(asked);
    daemon.stop();
}
