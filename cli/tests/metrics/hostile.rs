//! Clients and backends that mean harm make no series.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::Client;
use crate::scripted_backend::Backend;
use crate::site::{Metrics, TOP, check_metrics, pool, scrape, scrape_until, start};

on_each_driver!(what_clients_send_makes_no_series, a_backend_has_so_many_statuses_and_no_more);

/// All series, without the labels that are words of closed sets.
fn open_labels(metrics: &Metrics) -> BTreeSet<String> {
    let series = metrics.series();
    let closed = |label: &&str| !label.starts_with("status=") && !label.starts_with("cause=");
    let rest = |series: &&str| {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        format!(
            "{name} {}",
            labels.trim_end_matches('}').split(',').filter(closed).collect::<Vec<_>>().join(",")
        )
    };
    // A pool has failures from its first one on.
    series.iter().filter(|series| !series.starts_with("ruststrom_failures_total")).map(rest).collect()
}

fn what_clients_send_makes_no_series(driver: &str) {
    let backend = Backend::good("here");
    let daemon = start(driver, &[TOP, &pool("api", &[backend.address], "")].concat());
    let before = open_labels(&scrape(&daemon));
    let mut sent = 0.0;
    let mut send = |request: String| {
        let mut client = Client::to(daemon.listens("http"));
        client.send(request).expect("sent");
        let _ = client.response(false);
        sent += 1.0;
    };
    for n in 0..150 {
        send(format!("GET /api/{n} HTTP/1.1\r\nHost: host{n}.test\r\nX-Pool: p{n}\r\n\r\n"));
        send(format!("M{n} /api HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        send(format!("GET /{n}?pool={n} HTTP/1.1\r\nHost: a\"b{n}\\.test\r\n\r\n"));
        send(format!("GET /api HTTP/1.1\r\nHost: a.test\r\nUpgrade: {n}\r\nTransfer-Encoding: {n}\r\n\r\n"));
        send(format!("\x16\x03\x01{n}\r\n\r\n"));
    }
    let metrics = scrape_until(&daemon, "all of them", |metrics| metrics.all_requests() >= sent);
    assert_eq!(metrics.all_requests(), sent, "each of them once");
    assert_eq!(open_labels(&metrics), before);
    assert_eq!(check_metrics(&metrics.text), "");
    daemon.stop();
}

fn a_backend_has_so_many_statuses_and_no_more(driver: &str) {
    let nth = AtomicUsize::new(0);
    let backend = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            let status = 200 + nth.fetch_add(1, Ordering::SeqCst) % 800;
            if !peer.send(format!("HTTP/1.1 {status} Of\r\nContent-Length: 0\r\n\r\n")) {
                return;
            }
        }
    });
    let daemon = start(
        driver,
        &[&TOP.replace("= 60", "= 0"), &*pool("api", &[backend.address], "retries = 0")].concat(),
    );
    let mut client = Client::to(daemon.listens("http"));
    for _ in 0..850 {
        if client.get("/api").is_err() {
            client = Client::to(daemon.listens("http"));
        }
    }
    let metrics = scrape_until(&daemon, "all of them", |metrics| metrics.all_requests() >= 850.0);
    let address = backend.address.to_string();
    let statuses: BTreeSet<&str> = metrics
        .series()
        .into_iter()
        .filter_map(|series| series.strip_prefix("ruststrom_requests_total{")?.split_once("status=\""))
        .map(|(_, rest)| rest.trim_end_matches("\"}"))
        .collect();
    let three_digits = |status: &&str| status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit());
    assert!(statuses.iter().all(three_digits), "{statuses:?}");
    assert!(statuses.iter().all(|status| **status < *"600"), "{statuses:?}");
    assert!(statuses.len() <= 501 && statuses.len() > 300, "{}", statuses.len());
    assert_eq!(metrics.requests("api", &address, "418"), 1.0);
    assert_eq!(check_metrics(&metrics.text), "");
    daemon.stop();
}
