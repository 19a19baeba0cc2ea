//! From an empty folder to a certificate that clients trust.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::pebble::{Oddities, Pebble};
use crate::site::{Site, shown};
use crate::together::together;

#[test]
fn from_an_empty_folder_to_a_certificate_by_http() {
    let pebble = Pebble::start(Oddities::default());
    let site = Site::of(&pebble);
    let begun = Instant::now();
    let daemon = site.start();
    // Start-up does not wait: there is something to be served at once.
    assert!(daemon.output().contains("a.example: there is no certificate yet"), "{}", daemon.output());
    assert!(shown(pebble.https, "a.example").contains("RustStrom: no certificate yet"));
    pebble.wait_until_trusted("a.example", &daemon);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    daemon.wait_for("a.example: a certificate of \"Pebble Intermediate CA");
    site.assert_nothing_is_left_over();
    assert_eq!(pebble.count("Attempting to validate w/ HTTP"), 3, "it asks each challenge three times");
    assert_eq!(pebble.count("Pulled a task from the Tasks queue"), 1);
    // Over HTTP the tokens are ours no more: such requests are routed.
    let asked = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"])
        .arg(format!("http://{}/.well-known/acme-challenge/any", pebble.http))
        .output()
        .expect("curl is installed");
    assert_eq!(String::from_utf8_lossy(&asked.stdout), "502");
    // Whoever runs this, it is not a worker.
    assert!(daemon.threads().contains(&"acme".to_owned()), "{:?}", daemon.threads());
    daemon.stop();
    // What is on disk is served at once, and nothing is ordered again.
    let daemon = site.start();
    assert!(pebble.trusts("a.example"), "{}", daemon.output());
    assert!(!daemon.output().contains("there is no certificate yet"));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(pebble.count("POST /order-plz"), 1);
    daemon.stop();
}

#[test]
fn other_ways_to_a_certificate() {
    together([
        ("by TLS", from_an_empty_folder_to_a_certificate_by_tls),
        ("two names", two_names_in_one_certificate),
        ("nonces", a_third_of_all_nonces_is_refused),
        ("slow", an_authority_that_takes_its_time),
        ("user", as_somebody_else),
    ]);
}

/// Without a plain listener the proof is a certificate.
fn from_an_empty_folder_to_a_certificate_by_tls() {
    let pebble = Pebble::start(Oddities::default());
    let site = Site { http: None, ..Site::of(&pebble) };
    let daemon = site.start();
    pebble.wait_until_trusted("a.example", &daemon);
    site.assert_nothing_is_left_over();
    assert_eq!(pebble.count("Attempting to validate w/ HTTP"), 0);
    assert_eq!(pebble.count("Pulled a task from the Tasks queue"), 1);
    // A client that offers acme-tls/1 alone is not shown the usual certificate, nor anything else.
    let out = Command::new("sh")
        .args([
            "-c",
            &format!(
                "openssl s_client -connect {} -servername a.example -alpn acme-tls/1 < /dev/null 2>&1",
                pebble.https
            ),
        ])
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("no application protocol") && !said.contains("BEGIN CERTIFICATE"), "{said}");
    daemon.stop();
}

/// On smol, with two names and a key of another kind.
fn two_names_in_one_certificate() {
    let pebble = Pebble::start(Oddities::default());
    let site = Site { more: ", names = \"B.example.\", key_type = \"P-384\"".into(), ..Site::of(&pebble) };
    let daemon = Daemon::start(&site.config(), &["--driver", "smol"]);
    for name in ["a.example", "b.example"] {
        pebble.wait_until_trusted(name, &daemon);
    }
    assert_eq!(shown(pebble.https, "a.example"), shown(pebble.https, "b.example"));
    assert_eq!(pebble.count("POST /order-plz"), 1);
    site.assert_nothing_is_left_over();
    let key = Command::new("openssl")
        .args(["pkey", "-noout", "-text", "-in"])
        .arg(site.folder.0.join("acme/a.example.pem"))
        .output()
        .expect("openssl is installed");
    assert!(String::from_utf8_lossy(&key.stdout).contains("P-384"), "{key:?}");
    daemon.stop();
}

#[test]
fn an_external_account() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let external = vec![("kid-1", KEY)];
    let pebble = Pebble::start(Oddities { external, ..Oddities::default() });
    // Without it there is no account, and the log says what is missing.
    let site = Site::of(&pebble);
    let daemon = site.start();
    let said = daemon.wait_for("ERROR a.example: ");
    assert!(said.contains("set `eab`"), "{said}");
    daemon.stop();
    let more = format!(", eab = {{ kid = \"kid-1\", hmac_key = \"{KEY}\" }}");
    let site = Site { more, ..Site::of(&pebble) };
    let daemon = site.start();
    pebble.wait_until_trusted("a.example", &daemon);
    site.assert_nothing_is_left_over();
    daemon.stop();
    assert!(!site.file("ledger.json").expect("a ledger").contains(KEY), "it is a secret");
}

fn a_third_of_all_nonces_is_refused() {
    let pebble = Pebble::start(Oddities { nonces_refused: 30, ..Oddities::default() });
    let site = Site::of(&pebble);
    let daemon = site.start();
    pebble.wait_until_trusted("a.example", &daemon);
    site.assert_nothing_is_left_over();
    daemon.stop();
}

fn an_authority_that_takes_its_time() {
    let pebble = Pebble::start(Oddities { slow: 4, ..Oddities::default() });
    let site = Site::of(&pebble);
    let daemon = site.start();
    pebble.wait_until_trusted("a.example", &daemon);
    daemon.stop();
}

/// The folder is made by root, for whom the process becomes. Whoever runs this and is not root cannot become
/// anybody else.
fn as_somebody_else() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let pebble = Pebble::start(Oddities::default());
    let site = Site { top: "user = \"nobody\"\n", ..Site::of(&pebble) };
    let daemon = site.start();
    pebble.wait_until_trusted("a.example", &daemon);
    site.assert_nothing_is_left_over();
    daemon.stop();
    let owner = |path: &str| std::fs::metadata(site.folder.0.join(path)).expect("there").uid();
    assert_ne!(owner("acme"), 0);
    assert_eq!(owner("acme/a.example.pem"), owner("acme"));
    // By hand, as root: they do not become root's.
    let renewed = site.run(&["cert", "renew", "a.example"]);
    assert!(renewed.status.success(), "{renewed:?}");
    assert_eq!(owner("acme/a.example.pem"), owner("acme"));
}
