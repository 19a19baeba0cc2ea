//! Several processes with one folder.

use std::time::Duration;

use crate::address::reserve;
use crate::pebble::{Oddities, Pebble};
use crate::site::{Site, shown, wait_for_another};

/// The name leads to one machine, and another one orders.
#[test]
fn one_orders_and_all_answer_and_serve() {
    // The CA is there when the one that it asks is: the other one was first to look for it.
    let mut pebble = Pebble::stopped(Oddities::default());
    let front = Site::of(&pebble);
    let folder = crate::daemon::TempDir(front.folder.0.clone());
    let back = Site { http: Some(reserve()), https: Some(reserve()), folder, ..Site::of(&pebble) };
    let orders = back.start();
    let answers = front.start();
    pebble.run();
    pebble.wait_until_trusted("a.example", &answers);
    assert_eq!(pebble.count("POST /order-plz"), 1, "one order for both");
    let there = shown(pebble.https, "a.example");
    let here = back.https.expect("HTTPS");
    if shown(here, "a.example") != there {
        let before = shown(here, "a.example");
        assert_eq!(wait_for_another(here, "a.example", &before, &orders), there);
    }
    front.assert_nothing_is_left_over();
    orders.stop();
    answers.stop();
    std::mem::forget(back.folder);
}

/// `cert renew` beside the daemon, which answers the challenges and takes the new certificate; and without
/// it.
#[test]
fn renewed_by_hand() {
    let pebble = Pebble::start(Oddities { authorizations_reused: 50, ..Oddities::default() });
    let site = Site::of(&pebble);
    // From nothing, without a daemon.
    let renewed = site.run(&["cert", "renew", "a.example"]);
    let said = String::from_utf8_lossy(&renewed.stdout).into_owned();
    assert_eq!(renewed.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&renewed.stderr));
    assert!(
        said.lines().last().is_some_and(|l| l.starts_with("a.example: renewed, valid until 20")),
        "{said}"
    );
    site.assert_nothing_is_left_over();
    let daemon = site.start();
    assert!(pebble.trusts("a.example"), "{}", daemon.output());
    let first = shown(pebble.https, "a.example");
    for nth in 2..=3 {
        let before = shown(pebble.https, "a.example");
        let renewed = site.run(&["cert", "renew", "a.example"]);
        let said = String::from_utf8_lossy(&renewed.stdout).into_owned();
        assert_eq!(renewed.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&renewed.stderr));
        assert!(said.contains("is in use: the daemon there answers"), "{said}");
        assert_ne!(wait_for_another(pebble.https, "a.example", &before, &daemon), first);
        assert_eq!(pebble.count("POST /order-plz"), nth);
    }
    assert!(pebble.trusts("a.example"));
    let table = String::from_utf8_lossy(&site.run(&["cert", "status"]).stdout).into_owned();
    assert!(table.contains("Pebble Intermediate CA") && table.lines().count() == 2, "{table}");
    daemon.stop();

    let unknown = site.run(&["cert", "renew", "b.example"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no certificate \"b.example\" with ACME"));
}

/// A name is added, and taken away again.
#[test]
fn names_come_and_go() {
    let pebble = Pebble::start(Oddities::default());
    let mut site = Site::of(&pebble);
    let daemon = site.start();
    pebble.wait_until_trusted("a.example", &daemon);
    site.assert_nothing_is_left_over();
    daemon.stop();
    site.more = ", names = [\"b.example\"]".into();
    let daemon = site.start();
    // The one before is used meanwhile.
    assert!(pebble.trusts("a.example"), "{}", daemon.output());
    pebble.wait_until_trusted("b.example", &daemon);
    site.assert_nothing_is_left_over();
    daemon.stop();
    site.more = String::new();
    let daemon = site.start();
    assert!(pebble.trusts("a.example"));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(pebble.count("POST /order-plz"), 2, "a name that goes needs no order");
    daemon.stop();
}
