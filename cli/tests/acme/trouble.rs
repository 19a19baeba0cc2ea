//! What goes wrong is said, noted, and tried again; what there is is served.

use std::time::{Duration, Instant};

use crate::address::reserve;
use crate::client::WAIT;
use crate::daemon::Daemon;
use crate::pebble::{Oddities, Pebble};
use crate::site::{Site, shown};
use crate::together::together;

#[test]
fn authorities_names_and_disks() {
    together([
        ("not here", a_name_that_does_not_lead_here),
        ("down", an_authority_that_is_down_at_first),
        ("another", an_authority_that_is_not_there_or_is_another_one),
        ("full", a_full_disk),
    ]);
}

fn a_name_that_does_not_lead_here() {
    let pebble = Pebble::start(Oddities::default());
    // The name leads to where nobody listens.
    let site = Site { http: Some(reserve()), https: Some(reserve()), ..Site::of(&pebble) };
    let daemon = site.start();
    let said = daemon.wait_for("WARN  a.example: ");
    assert!(said.contains("there is no certificate yet"), "{said}");
    let said = daemon.wait_for("a.example: port 80 of a.example was not reached from 127.");
    assert!(said.contains("connection refused") && said.contains("next attempt in 5 seconds"), "{said}");
    // The other challenge is tried next.
    let said = daemon.wait_for("ERROR a.example: ");
    assert!(said.contains("port 443 of a.example") && said.contains("next attempt in"), "{said}");
    assert!(shown(site.https.expect("HTTPS"), "a.example").contains("no certificate yet"));
    // It is saved behind the line.
    let begun = Instant::now();
    let words = ["\"http-01\"", "\"tls-alpn-01\"", "\"validate\"", "connection"];
    while !site.file("ledger.json").is_some_and(|ledger| words.iter().all(|word| ledger.contains(word))) {
        assert!(begun.elapsed() < WAIT, "{:?}", site.file("ledger.json"));
        std::thread::sleep(Duration::from_millis(10));
    }
    daemon.stop();
    // A restart does not ask again before it is time.
    let orders = pebble.count("POST /order-plz");
    assert_eq!(orders, 2);
    let daemon = site.start();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(pebble.count("POST /order-plz"), orders);
    daemon.stop();
    // And people can look it up.
    let status = site.run(&["cert", "status"]);
    let table = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success(), "{status:?}");
    let row = table.lines().nth(1).expect("a row");
    assert!(row.starts_with("a.example  ACME 127.") && row.contains(" validate: unauthorized: "), "{table}");
}

fn an_authority_that_is_down_at_first() {
    let mut pebble = Pebble::stopped(Oddities::default());
    let site = Site::of(&pebble);
    let begun = Instant::now();
    let daemon = site.start();
    assert!(begun.elapsed() < Duration::from_secs(5), "start-up waits for nobody");
    assert!(shown(pebble.https, "a.example").contains("no certificate yet"));
    std::thread::sleep(Duration::from_millis(1200));
    pebble.run();
    pebble.wait_until_trusted("a.example", &daemon);
    daemon.stop();
    // What is on disk is served whether it is up or not.
    pebble.stop();
    let daemon = site.start();
    assert!(pebble.trusts("a.example"), "{}", daemon.output());
    daemon.stop();
}

fn an_authority_that_is_not_there_or_is_another_one() {
    let absent = Pebble::stopped(Oddities::default());
    let site = Site::of(&absent);
    let first = site.start();
    // Whoever answers here is not the one that was to be trusted.
    let present = Pebble::start(Oddities::default());
    let file = |ca: &str| ca.split_once("ca_file = ").map(|(_, file)| file.to_owned()).expect("a file");
    let ca = present.keys().replace(&file(&present.keys()), &file(&absent.keys()));
    let other = Site { ca, ..Site::of(&present) };
    let second = other.start();
    let said = first.wait_for("ERROR a.example: ");
    assert!(said.contains(" does not answer (account): ") && said.contains("onnection refused"), "{said}");
    let said = second.wait_for("ERROR a.example: ");
    assert!(said.contains("cannot be trusted") && said.contains("`ca_file`"), "{said}");
    assert_eq!(present.count("GET /dir"), 0, "nothing was said to it");
    first.stop();
    second.stop();
}

/// Nothing is asked that could not be noted.
fn a_full_disk() {
    let pebble = Pebble::start(Oddities::default());
    let site = Site::of(&pebble);
    // Files may have no byte at all.
    let daemon = Daemon::start_after("trap '' XFSZ; ulimit -f 0", &site.config());
    let said = daemon.wait_for("ERROR a.example: ");
    assert!(said.contains("cannot write to ") && said.contains("nothing is ordered"), "{said}");
    assert!(shown(pebble.https, "a.example").contains("no certificate yet"));
    assert_eq!(pebble.count("POST"), 0, "{}", pebble.log());
    daemon.stop();
    assert_eq!(site.files(), ["lock"]);
}

/// Account and ledger can be written, and the certificate cannot: it is served all the same, and found again
/// without another order.
#[test]
fn a_disk_that_is_full_at_the_worst_moment() {
    let pebble = Pebble::start(Oddities::default());
    let site = Site::of(&pebble);
    let daemon = Daemon::start_after("trap '' XFSZ; ulimit -f 4", &site.config());
    let said = daemon.wait_for("ERROR a.example: ");
    assert!(said.contains("cannot write ") && said.contains("a.example.pem: "), "{said}");
    pebble.wait_until_trusted("a.example", &daemon);
    let first = shown(pebble.https, "a.example");
    daemon.stop();
    assert!(site.file("a.example.pem").is_none() && site.file("a.example.pem.new").is_none());
    let daemon = site.start();
    pebble.wait_until_trusted("a.example", &daemon);
    assert_eq!(shown(pebble.https, "a.example"), first);
    assert_eq!(pebble.count("POST /order-plz"), 1);
    site.assert_nothing_is_left_over();
    daemon.stop();
}

#[test]
fn damaged_files() {
    let pebble = Pebble::start(Oddities::default());
    let site = Site::of(&pebble);
    let daemon = site.start();
    pebble.wait_until_trusted("a.example", &daemon);
    site.assert_nothing_is_left_over();
    daemon.stop();
    let path = |name: &str| site.folder.0.join("acme").join(name);
    let whole = site.file("a.example.pem").expect("a certificate");
    std::fs::write(path("a.example.pem"), &whole[..whole.len() / 2]).expect("written");
    let account = site.files().remove(1);
    std::fs::write(path(&account), "{").expect("written");
    let status = site.run(&["cert", "status"]);
    let table = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        table.contains("a.example.pem: a certificate in it is damaged")
            || table.contains("a.example.pem: there is no certificate in it"),
        "{table}"
    );
    let daemon = site.start();
    daemon.wait_for("the certificate is ordered anew");
    pebble.wait_until_trusted("a.example", &daemon);
    site.assert_nothing_is_left_over();
    assert_eq!(pebble.count("There are now 2 accounts in memory"), 1);
    daemon.stop();
    // A ledger that says nothing is begun anew; the certificate is good.
    std::fs::write(path("ledger.json"), "[").expect("written");
    let daemon = site.start();
    daemon.wait_for("ledger.json: it is no ledger");
    assert!(pebble.trusts("a.example"));
    daemon.stop();
}

/// The authority has lost its memory: another account is made, and another order.
#[test]
fn an_account_that_is_not_known_any_more() {
    let mut pebble = Pebble::start(Oddities::default());
    let site = Site::of(&pebble);
    let daemon = site.start();
    pebble.wait_until_trusted("a.example", &daemon);
    site.assert_nothing_is_left_over();
    daemon.stop();
    pebble.stop();
    pebble.run();
    let renewed = site.run(&["cert", "renew", "a.example"]);
    let said = String::from_utf8_lossy(&renewed.stdout).into_owned();
    assert!(renewed.status.success(), "{said}{}", String::from_utf8_lossy(&renewed.stderr));
    assert!(said.contains("does not know the account: another is made"), "{said}");
    let daemon = site.start();
    assert!(pebble.trusts("a.example"), "{}", daemon.output());
    daemon.stop();
}
