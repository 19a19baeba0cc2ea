//! The pages of the admin listener: methods, formats, and when the daemon is ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, WAIT};
use crate::daemon::Daemon;
use crate::scripted_backend::{Backend, ok};
use crate::site::{Metrics, TOP, page, pool, start};

on_each_driver!(
    pages_by_method_and_format,
    backends_of_one_address_are_told_apart,
    ready_after_the_first_checks,
    many_scrapes_at_once
);

fn pages_by_method_and_format(driver: &str) {
    let backend = Backend::good("here");
    let daemon = start(driver, &[TOP, &pool("api", &[backend.address], "")].concat());
    let mut client = Client::to(daemon.listens("admin"));
    let mut ask = |method: &str, path: &str, accept: &str| {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n{accept}\r\n")).expect("sent");
        client.response(method == "HEAD").expect("a response")
    };
    let open = "Accept: application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n";
    for (path, accept, content_type) in [
        ("/metrics", "", "text/plain; version=0.0.4; charset=utf-8"),
        ("/metrics", open, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("/status", "", "application/json"),
        ("/healthz", "", "text/plain; charset=utf-8"),
        ("/readyz", "", "text/plain; charset=utf-8"),
    ] {
        let got = ask("GET", path, accept);
        assert_eq!((got.status, got.field("Content-Type")), (200, Some(content_type)), "{path}");
        assert!(!got.body.is_empty());
        let head = ask("HEAD", path, accept);
        assert_eq!((head.status, head.field("Content-Type"), head.body.len()), (200, Some(content_type), 0));
        assert!(head.field("Content-Length").is_some(), "{}", head.head);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            let got = ask(method, path, accept);
            assert_eq!((got.status, got.field("Allow")), (405, Some("GET, HEAD")), "{method} {path}");
        }
    }
    for path in ["/", "/metrics/", "/Metrics", "/api"] {
        assert_eq!(ask("GET", path, "").status, 404, "{path}");
    }
    assert_eq!(ask("GET", "/metrics?name=x", "").status, 200);
    // The same samples in both formats.
    let (text, open) = (ask("GET", "/metrics", "").text(), ask("GET", "/metrics", open).text());
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE ruststrom_requests counter\n"), "{open}");
    assert!(text.contains("# TYPE ruststrom_requests_total counter\n") && !text.contains("# EOF"), "{text}");
    assert_eq!(Metrics::parse(text).series(), Metrics::parse(open).series());
    daemon.stop();
}

/// Where HTTP/1.1 and HTTP/2 are spoken on one port, each in a pool of its own.
fn backends_of_one_address_are_told_apart(driver: &str) {
    let address = Backend::refusing();
    let pools: String = ["", "http://", "h2c://", "https://"]
        .iter()
        .enumerate()
        .map(|(n, scheme)| {
            format!(
                "[[backend_pools]]\nname = \"p{n}\"\nmatcher = \"PathPrefix('/{n}')\"\n\
                 addresses = [\"{scheme}{address}\"]\n"
            )
        })
        .collect();
    let daemon = start(driver, &[TOP, &*pools].concat());
    let text = page(&daemon, "/status").text();
    let schemes: Vec<&str> = text
        .split(&format!("\"address\": \"{address}\""))
        .skip(1)
        .map(|rest| rest.split("\"scheme\": \"").nth(1).and_then(|at| at.split('"').next()).unwrap_or(""))
        .collect();
    assert_eq!(schemes, ["http", "http", "h2c", "https"], "{text}");
    daemon.stop();
}

fn ready_after_the_first_checks(driver: &str) {
    let released = Arc::new(AtomicBool::new(false));
    let seen = released.clone();
    let backend = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            while !seen.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(2));
            }
            peer.send(ok("late"));
        }
    });
    let text = [TOP, &pool("api", &[backend.address], "health_config = { timeout = 20000 }")].concat();
    let daemon = Daemon::start(&text, &["--driver", driver, "--workers", "2"]);
    let got = page(&daemon, "/readyz");
    assert_eq!((got.status, got.text()), (503, "not ready\n".into()));
    assert!(page(&daemon, "/status").text().contains("\"state\": \"starting\""));
    assert_eq!(page(&daemon, "/healthz").status, 200);
    released.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    while page(&daemon, "/readyz").status != 200 {
        assert!(begun.elapsed() < WAIT, "{}", daemon.output());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(page(&daemon, "/status").text().contains("\"state\": \"ready\""));
    daemon.stop();
}

fn many_scrapes_at_once(driver: &str) {
    let pools: Vec<String> = (0..50).map(|n| pool(&format!("pool{n}"), &[Backend::refusing()], "")).collect();
    let daemon = start(driver, &[&TOP.replace("= 60", "= 0"), &*pools.concat()].concat());
    let admin = daemon.listens("admin");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(move || {
                let mut client = Client::to(admin);
                for _ in 0..5 {
                    let got = client.get("/metrics").expect("a page");
                    assert_eq!(got.status, 200);
                    let metrics = Metrics::parse(got.text());
                    assert_eq!(metrics.of("ruststrom_retries_total{pool=\"pool49\"}"), 0.0);
                }
            });
        }
    });
    daemon.stop();
}
