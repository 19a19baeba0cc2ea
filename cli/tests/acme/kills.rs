//! A process that is killed at any moment.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::pebble::{Oddities, Pebble};
use crate::site::Site;

#[test]
fn killed_at_twenty_moments() {
    let pebble = Pebble::start(Oddities::default());
    let site = Site::of(&pebble);
    // An order takes about three seconds, of which most are pauses: kills come at any part of it, and around
    // the start.
    let mut random = u64::from(std::process::id());
    let mut moments = Vec::new();
    for _ in 0..20 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        moments.push(Duration::from_millis((random >> 33) % 1000));
    }
    for moment in &moments {
        let mut daemon = Daemon::start(&site.config(), &[]);
        std::thread::sleep(*moment);
        if daemon.runs() {
            daemon.signal(Signal::KILL);
        }
        daemon.wait();
        // Whatever there is is whole, or not there.
        for name in ["ledger.json", "a.example.pem"] {
            if let Some(text) = site.file(name) {
                let end = if name.ends_with("json") { "}" } else { "-----END CERTIFICATE-----" };
                assert!(text.trim_end().ends_with(end), "{moment:?}: {name}: {text}");
            }
        }
    }
    let begun = Instant::now();
    let daemon = site.start();
    pebble.wait_until_trusted("a.example", &daemon);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}: {moments:?}", begun.elapsed());
    site.assert_nothing_is_left_over();
    // A kill between a request and the note of its answer costs an order, and the others go on.
    let orders = pebble.count("POST /order-plz");
    assert!(orders <= 6, "{orders} orders: {moments:?}");
    let certificates = pebble.count("Issued certificate serial");
    assert!(certificates <= 2, "{certificates} certificates: {moments:?}");
    assert_eq!(pebble.count("There are now 2 accounts in memory"), 0, "{moments:?}");
    daemon.stop();
}
