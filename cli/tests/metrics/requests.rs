//! What requests, checks, middlewares, reloads and certificates count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::authority::Authority;
use crate::client::Client;
use crate::scripted_backend::{Backend, ok};
use crate::site::{self, TOP, check_metrics, pool, scrape, scrape_until, start};

on_each_driver!(
    every_request_is_counted_once,
    what_is_under_way_is_shown,
    health_and_checks,
    what_middlewares_count,
    counts_outlive_reloads_and_pools_that_are_gone_do_not,
);

fn every_request_is_counted_once(driver: &str) {
    let answers = Backend::start(|mut peer| {
        while let Some(head) = peer.request() {
            let answer = match () {
                () if head.contains("/api/missing") => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                () if head.contains("/api/torn") => return,
                () => &ok("hello"),
            };
            if !peer.send(answer) {
                return;
            }
        }
    });
    let (good, refusing) = (answers.address, Backend::refusing());
    let text = [
        TOP,
        &pool("api", &[good], "retries = 0"),
        // Each begins at the one that refuses: the second attempt takes the turn of the other.
        &pool(
            "half",
            &[refusing, good],
            "health_config = { path = \"/\", timeout = 5000, slow_threshold = 0 }\nretries = 2",
        ),
        &pool("none", &[refusing], "retries = 0"),
    ]
    .concat();
    let daemon = start(driver, &text.replace("check_every = 60", "check_every = 0"));
    let api = good.to_string();
    let before = scrape(&daemon);
    assert_eq!(before.all_requests(), 0.0, "requests to the admin listener do not count");
    for status in ["200", "500", "502", "503", "504"] {
        assert_eq!(before.requests("api", &api, status), 0.0, "there from the start");
    }
    assert_eq!(before.requests("api", "", "503") + before.requests("", "", "404"), 0.0);
    assert_eq!(before.of("ruststrom_retries_total{pool=\"half\"}"), 0.0);

    let mut client = Client::to(daemon.listens("http"));
    let mut ask = |request: &str, status: u16| {
        client.send(request).expect("sent");
        let got = client.response(request.starts_with("HEAD ")).expect("a response");
        assert_eq!(got.status, status, "{request}");
        if got.field("Connection") == Some("close") {
            client = Client::to(daemon.listens("http"));
        }
    };
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    for _ in 0..3 {
        ask(&get("/api/"), 200);
    }
    ask("HEAD /api/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 200);
    ask("POST /api/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n0123456789", 200);
    ask(&get("/api/missing"), 404);
    // It is sent once more, since the connection had been idle.
    ask(&get("/api/torn"), 502);
    for _ in 0..2 {
        ask(&get("/half/"), 200);
    }
    ask(&get("/none/"), 502);
    ask(&get("/elsewhere"), 404);
    ask("GET /api/ HTTP/1.1\r\n\r\n", 400);

    let metrics = scrape_until(&daemon, "all of them", |metrics| metrics.all_requests() >= 12.0);
    assert_eq!(metrics.all_requests(), 12.0, "{}", metrics.text);
    for (pool, backend, status, n) in [
        ("api", &*api, "200", 5.0),
        ("api", &*api, "404", 1.0),
        ("api", &*api, "502", 1.0),
        ("half", &*api, "200", 2.0),
        ("half", &*refusing.to_string(), "200", 0.0),
        ("none", &*refusing.to_string(), "502", 1.0),
        ("", "", "404", 1.0),
        ("", "", "400", 1.0),
    ] {
        assert_eq!(metrics.requests(pool, backend, status), n, "{pool} {backend} {status}");
    }
    for (series, n) in [
        ("ruststrom_failures_total{pool=\"api\",cause=\"backend_closed\"}", 1.0),
        ("ruststrom_failures_total{pool=\"none\",cause=\"connect_refused\"}", 1.0),
        ("ruststrom_failures_total{pool=\"\",cause=\"no_route\"}", 1.0),
        ("ruststrom_bytes_total{pool=\"api\",direction=\"in\"}", 10.0),
        ("ruststrom_bytes_total{pool=\"half\",direction=\"out\"}", 10.0),
        ("ruststrom_retries_total{pool=\"half\"}", 2.0),
        ("ruststrom_retries_total{pool=\"api\"}", 1.0),
        ("ruststrom_log_lines_dropped_total", 0.0),
        ("ruststrom_last_reload_success", 1.0),
        ("ruststrom_unresponsive_workers", 0.0),
    ] {
        assert_eq!(metrics.of(series), n, "{series}");
    }
    let count = |name: &str| metrics.of(&format!("{name}_count{{pool=\"api\",backend=\"{api}\"}}"));
    assert_eq!(count("ruststrom_request_duration_seconds"), 7.0);
    assert_eq!(count("ruststrom_backend_wait_seconds"), 6.0, "those that were answered");
    assert!(metrics.of("ruststrom_memory_bytes") > 1e6 && metrics.of("process_open_fds") > 5.0);
    assert!(metrics.of("process_cpu_seconds_total") >= 0.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let started = metrics.of("process_start_time_seconds");
    assert!(started <= now.as_secs_f64() + 1.0 && started > now.as_secs_f64() - 600.0, "{started}");
    assert_eq!(check_metrics(&metrics.text), "", "promtool finds nothing wrong");
    daemon.stop();
}

fn what_is_under_way_is_shown(driver: &str) {
    let released = Arc::new(AtomicBool::new(false));
    let seen = released.clone();
    let backend = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            while !seen.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(2));
            }
            if !peer.send(ok("late")) {
                return;
            }
        }
    });
    let address = backend.address;
    let one = format!(
        "[[backend_pools]]\nname = \"api\"\naddresses = [{{ address = \"{address}\", max_connections = 1 }}]\nschemes = [\"HTTP\"]\n"
    );
    let daemon = start(driver, &[&TOP.replace("= 60", "= 0"), &*one].concat());
    let mut clients: Vec<Client> = (0..3).map(|_| Client::to(daemon.listens("http"))).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("sent");
    }
    let active = format!("ruststrom_active_connections{{pool=\"api\",backend=\"{address}\"}}");
    let queue = "ruststrom_queue_length{pool=\"api\"}";
    let metrics = scrape_until(&daemon, "one at the backend, two wait", |metrics| {
        metrics.of(queue) == 2.0 && metrics.of(&active) == 1.0
    });
    assert_eq!(metrics.of("ruststrom_client_connections"), 3.0, "without those of the admin listener");
    let status = site::page(&daemon, "/status").text();
    for part in
        ["\"queue\": 2", "\"in_flight\": 1", "\"clients\": 3", "\"generation\": 1", "\"state\": \"ready\""]
    {
        assert!(status.contains(part), "{part}: {status}");
    }
    released.store(true, Ordering::SeqCst);
    for client in &mut clients {
        assert_eq!(client.response(false).expect("a response").text(), "late");
    }
    drop(clients);
    let all_done = |metrics: &site::Metrics| {
        metrics.of(queue) == 0.0
            && metrics.of(&active) == 0.0
            && metrics.of("ruststrom_client_connections") == 0.0
    };
    scrape_until(&daemon, "nothing is under way", all_done);
    daemon.stop();
}

fn health_and_checks(driver: &str) {
    let (well, slow) = (
        Arc::new(AtomicBool::new(true)),
        Backend::start(|mut peer| {
            while peer.request().is_some() {
                std::thread::sleep(Duration::from_millis(1200));
                if !peer.send(ok("slow")) {
                    return;
                }
            }
        }),
    );
    let is_well = well.clone();
    let sick = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            let answer = match is_well.load(Ordering::SeqCst) {
                true => &ok("well"),
                false => "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
            };
            if !peer.send(answer) {
                return;
            }
        }
    });
    let (s, t) = (slow.address, sick.address);
    let text = [
        &TOP.replace("= 60", "= 1"),
        &*pool("api", &[s, t], "health_config = { slow_threshold = 1000, timeout = 5000 }"),
    ];
    let daemon = start(driver, &text.concat());
    let health = |backend, state| {
        format!("ruststrom_backend_health{{pool=\"api\",backend=\"{backend}\",state=\"{state}\"}}")
    };
    let checks = |backend, result| {
        format!("ruststrom_health_checks_total{{pool=\"api\",backend=\"{backend}\",result=\"{result}\"}}")
    };
    let metrics = scrape_until(&daemon, "the first checks", |metrics| {
        metrics.of(&checks(s, "success")) >= 1.0 && metrics.of(&checks(t, "success")) >= 1.0
    });
    assert_eq!((metrics.of(&health(s, "slow")), metrics.of(&health(t, "healthy"))), (1.0, 1.0));
    assert_eq!(metrics.of(&checks(t, "failure")), 0.0, "there from the start");
    let states =
        metrics.series().iter().filter(|series| series.starts_with("ruststrom_backend_health{")).count();
    assert_eq!(states, 2, "only the state that each is in");
    let time = |le: &str| {
        format!("ruststrom_backend_response_time_bucket{{le=\"{le}\",pool=\"api\",backend=\"{s}\"}}")
    };
    assert_eq!(metrics.of(&time("0.1")), 0.0, "{}", metrics.text);
    assert!(metrics.of(&time("+Inf")) >= 1.0);
    well.store(false, Ordering::SeqCst);
    let metrics =
        scrape_until(&daemon, "unhealthy", |metrics| metrics.find(&health(t, "unhealthy")) == Some(1.0));
    assert!(metrics.find(&health(t, "healthy")).is_none());
    assert!(metrics.of(&checks(t, "failure")) >= 1.0);
    let status = site::page(&daemon, "/status").text();
    for part in [
        "\"reason\": \"check_status\"",
        "\"seen\": \"HTTP 500\"",
        "\"state\": \"unhealthy\"",
        "\"state\": \"slow\"",
    ] {
        assert!(status.contains(part), "{part}: {status}");
    }
    well.store(true, Ordering::SeqCst);
    scrape_until(&daemon, "well again", |metrics| metrics.find(&health(t, "healthy")) == Some(1.0));
    daemon.stop();
}

fn what_middlewares_count(driver: &str) {
    let body: &'static str = "what can be compressed, ".repeat(200).leak();
    let backend = Backend::start(move |mut peer| {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
        while peer.request().is_some() && peer.send(format!("{head}{body}")) {}
    });
    let line = include_str!("../../../drivers/common/src/auth/password_hash/users.htpasswd");
    let line = line.lines().find(|line| line.starts_with("rounds:")).expect("a user");
    let text = [
        TOP,
        &pool("small", &[backend.address], "[backend_pools.middlewares.Compression]\n"),
        &pool(
            "limited",
            &[backend.address],
            "[backend_pools.middlewares.RateLimiter]\nlimit = 2\nwindow_sec = 3600\n",
        ),
        &pool(
            "closed",
            &[backend.address],
            &format!("[backend_pools.middlewares.BasicAuth]\nusers = [\"{line}\"]\n"),
        ),
        &pool("plain", &[backend.address], ""),
    ];
    let daemon = start(driver, &text.concat());
    let before = scrape(&daemon);
    for (series, n) in [
        ("ruststrom_compression_ratio{pool=\"small\",encoding=\"gzip\"}", Some(1.0)),
        ("ruststrom_compression_ratio{pool=\"plain\",encoding=\"gzip\"}", None),
        ("ruststrom_rate_limit_exceeded_total{pool=\"limited\"}", Some(0.0)),
        ("ruststrom_rate_limit_exceeded_total{pool=\"plain\"}", None),
        ("ruststrom_auth_failures_total{pool=\"closed\"}", Some(0.0)),
        ("ruststrom_auth_failures_total{pool=\"plain\"}", None),
    ] {
        assert_eq!(before.find(series), n, "{series}");
    }
    let ask = |target: &str, fields: &str| {
        let mut client = Client::to(daemon.listens("http"));
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).expect("sent");
        client.response(false).expect("a response")
    };
    let mut compressed = 0.0;
    for _ in 0..3 {
        let got = ask("/small", "Accept-Encoding: gzip\r\n");
        assert_eq!(got.field("Content-Encoding"), Some("gzip"), "{}", got.head);
        compressed += got.body.len() as f64;
    }
    for status in [200, 200, 429, 429, 429] {
        assert_eq!(ask("/limited", "").status, status);
    }
    // "rounds:love", "rounds:hate", and none.
    for (credentials, status) in [
        ("Authorization: Basic cm91bmRzOmxvdmU=\r\n", 200),
        ("Authorization: Basic cm91bmRzOmhhdGU=\r\n", 401),
        ("", 401),
    ] {
        assert_eq!(ask("/closed", credentials).status, status);
    }
    let metrics = scrape_until(&daemon, "all of them", |metrics| metrics.all_requests() >= 11.0);
    let ratio = metrics.of("ruststrom_compression_ratio{pool=\"small\",encoding=\"gzip\"}");
    let expected = compressed / (3.0 * body.len() as f64);
    assert!((ratio - expected).abs() < 1e-9, "{ratio} {expected}");
    assert_eq!(metrics.of("ruststrom_rate_limit_exceeded_total{pool=\"limited\"}"), 3.0);
    assert_eq!(metrics.requests("limited", "", "429"), 3.0, "our own replies have no backend");
    assert_eq!(metrics.of("ruststrom_auth_failures_total{pool=\"closed\"}"), 1.0, "wrong ones only");
    assert_eq!(metrics.requests("closed", "", "401"), 2.0);
    assert_eq!(check_metrics(&metrics.text), "");
    daemon.stop();
}

fn counts_outlive_reloads_and_pools_that_are_gone_do_not(driver: &str) {
    let backend = Backend::good("here");
    let address = backend.address.to_string();
    let (api, old) = (pool("api", &[backend.address], ""), pool("old", &[backend.address], ""));
    let daemon = start(driver, &[TOP, &api, &old].concat());
    let reload = |text: &str, said: &str| {
        let lines = || daemon.output().lines().filter(|line| line.contains(said)).count();
        let before = lines();
        daemon.directory.write("config.toml", text);
        daemon.signal(Signal::HUP);
        let begun = std::time::Instant::now();
        while lines() == before {
            assert!(begun.elapsed() < crate::client::WAIT, "{}", daemon.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let ask = |target: &str| {
        let got = Client::to(daemon.listens("http")).get(target).expect("a response");
        assert_eq!(got.status, 200);
    };
    for _ in 0..5 {
        ask("/api");
        ask("/old");
    }
    scrape_until(&daemon, "all of them", |metrics| metrics.all_requests() == 10.0);
    // Another strategy, another order: the same pool and backend.
    reload(&[TOP, &old, &api, "strategy = \"Random\"\n"].concat(), " reloaded ");
    ask("/api");
    let metrics =
        scrape_until(&daemon, "one more", |metrics| metrics.requests("api", &address, "200") == 6.0);
    assert_eq!(metrics.of("ruststrom_reloads_total{result=\"success\"}"), 1.0);
    reload("http_address = 1", "not reloaded");
    let metrics = scrape(&daemon);
    assert_eq!(metrics.of("ruststrom_reloads_total{result=\"failure\"}"), 1.0);
    assert_eq!(metrics.of("ruststrom_last_reload_success"), 0.0);
    reload(&[TOP, &api].concat(), " reloaded ");
    let metrics = scrape(&daemon);
    assert_eq!(metrics.of("ruststrom_last_reload_success"), 1.0);
    assert_eq!(metrics.requests("old", &address, "200"), 5.0, "once more");
    let metrics = scrape(&daemon);
    assert!(!metrics.text.contains("pool=\"old\""), "{}", metrics.text);
    assert_eq!(metrics.requests("api", &address, "200"), 6.0);
    reload(&[TOP, &api, &old].concat(), " reloaded ");
    assert_eq!(scrape(&daemon).requests("old", &address, "200"), 0.0, "it begins anew");
    daemon.stop();
}

#[test]
fn certificates_say_when_they_end() {
    let authority = Authority::new("A");
    let pair = authority.sign("a.test", &["a.test"]);
    let backend = Backend::good("here");
    let certificate =
        format!("https_address = \"127.0.0.1:0\"\n{TOP}[certificates.\"a.test\"]\n{}", pair.local());
    let daemon = start("mio", &[&certificate, &*pool("api", &[backend.address], "")].concat());
    let metrics = scrape(&daemon);
    let end = metrics.of("ruststrom_certificate_expiry_seconds{name=\"a.test\"}");
    let command = ["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"];
    let mut openssl = std::process::Command::new(crate::nginx::program("openssl", "openssl"));
    let said = crate::nginx::output(openssl.args(command).arg(&pair.certificate));
    // "notAfter=4096-01-01 00:00:00Z"
    let expected = said.trim().trim_start_matches("notAfter=").replace(' ', "T").replace('Z', ".000Z");
    let status = site::page(&daemon, "/status").text();
    assert!(status.contains(&format!("\"expires\": \"{expected}\"")), "{expected}: {status}");
    assert!(end > 1_700_000_000.0, "{end}");
    daemon.stop();
}
