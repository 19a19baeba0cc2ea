//! Pages by what workers say that are threads of the test.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use ruststrom_core::config;
use ruststrom_core::middleware::Counter;
use ruststrom_core::observe::{FailedAttempts, Kept, Record, Timings};
use ruststrom_core::proxy::Counts;
use ruststrom_core::{Cause, Instant as CoreInstant};

use super::*;

const WAIT: Duration = Duration::from_secs(20);

fn configuration(pools: &[&str]) -> Arc<Config> {
    let mut text = "http_address = \"127.0.0.1:80\"\nmetrics_address = false\n".to_owned();
    for (n, pool) in pools.iter().enumerate() {
        text.push_str(&format!(
            "[[backend_pools]]\nname = \"{pool}\"\nmatcher = \"Path('/{pool}')\"\naddresses = [\"10.0.0.{n}:80\"]\n\
             [backend_pools.middlewares.RateLimiter]\nlimit = 1\nwindow_sec = 1\n"
        ));
    }
    Arc::new(config::parse(&text).config.expect("a good configuration"))
}

/// A request of a pool that took 3 ms.
fn request(metrics: &mut WorkerMetrics, (pool, backend): (&str, &str), identity: u64, status: u16) {
    let ms = CoreInstant::from_millis;
    let timings = Timings { sent: ms(10), responded: ms(12), ended: ms(13), ..Timings::new(ms(10)) };
    metrics.exchange(&Record {
        kept: &Kept::default(),
        client: ([192, 0, 2, 1], 5000).into(),
        pool,
        backend,
        pool_identity: (!pool.is_empty()).then_some(identity),
        backend_identity: (!backend.is_empty()).then_some(identity),
        user: "",
        status,
        cause: (status >= 500).then_some(Cause::BackendReset),
        attempts: if status >= 500 { 2 } else { 1 },
        failed: FailedAttempts::default(),
        reused: true,
        bytes_in: 10,
        bytes_out: 100,
        timings: &timings,
    });
}

/// A hub, and the mailboxes of workers of which each lets the test see what it counts.
struct Rig {
    hub: Hub,
    mailboxes: Arc<[Mailbox]>,
    /// Commands that are not carried out yet.
    queues: Vec<VecDeque<Command>>,
    workers: Vec<WorkerMetrics>,
}

impl Rig {
    fn new(workers: u16, config: Arc<Config>) -> Self {
        let shared = Arc::new(Shared::new("host", workers));
        let _states = shared.adopt(&config);
        let sources = Sources {
            version: "1.2.3",
            shared,
            stop: Arc::default(),
            server: SharedServer::default(),
            dropped_lines: Box::new(|| 5),
        };
        let (hub, waiting) = Hub::new(sources, config);
        let mailboxes: Arc<[Mailbox]> = (0..workers).map(|_| Mailbox::new(Box::new(|| {}))).collect();
        hub.start(waiting, &Workers::new(mailboxes.clone())).expect("a thread");
        let workers = mailboxes.iter().map(|_| hub.worker()).collect();
        let queues = mailboxes.iter().map(|_| VecDeque::new()).collect();
        Self { hub, mailboxes, queues, workers }
    }

    /// Carries out the commands of these workers until the page is there.
    fn page(&mut self, query: Query, responding: &[usize]) -> String {
        let (done, page) = mpsc::channel();
        self.hub.ask(query, Box::new(move |result| done.send(result).expect("the test waits")));
        let until = Instant::now() + WAIT;
        loop {
            for worker in responding {
                self.carry_out(*worker);
            }
            match page.recv_timeout(Duration::from_millis(1)) {
                Ok(LookupResult::Page { body, .. }) => return String::from_utf8_lossy(&body).into_owned(),
                Ok(other) => panic!("{other:?}"),
                Err(_) => assert!(Instant::now() < until, "a page in time"),
            }
        }
    }

    fn metrics(&mut self, responding: &[usize]) -> String {
        self.page(Query::Metrics { open_metrics: false }, responding)
    }

    fn carry_out(&mut self, worker: usize) {
        self.mailboxes[worker].take(&mut self.queues[worker]);
        let metrics = &mut self.workers[worker];
        for command in self.queues[worker].drain(..) {
            match command {
                Command::Report { worker, to } => {
                    let queues = vec![("api".into(), 2)];
                    let counts = Counts { clients: 3, admin_clients: 1, ..Counts::default() };
                    let counted = Some(metrics.snapshot());
                    to.send(WorkerReport { worker, counts, queues, counted }).expect("the hub lives");
                }
                Command::Forget(names) => metrics.forget(&names),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn sample(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(series) && line[series.len()..].starts_with(' '))?;
    line[series.len()..].trim().parse().ok()
}

#[test]
fn what_all_workers_have_counted_is_added_up() {
    let mut rig = Rig::new(2, configuration(&["api", "web"]));
    let api = ("api", "10.0.0.0:80");
    for worker in 0..2 {
        for status in [200, 200, 0, 418, 600, 999, 502] {
            request(&mut rig.workers[worker], api, 7, status);
        }
        request(&mut rig.workers[worker], ("api", ""), 3, 429);
        request(&mut rig.workers[worker], ("", ""), 0, 404);
        rig.workers[worker].count("api", 3, Counter::RateLimitExceeded);
        let compressed = Counter::Compressed { encoding: "br", original: 100, compressed: 20 };
        rig.workers[worker].count("api", 3, compressed);
    }
    let page = rig.metrics(&[0, 1]);
    let by_status = |backend: &str, status: &str| {
        let labels = format!("{{pool=\"api\",backend=\"{backend}\",status=\"{status}\"}}");
        sample(&page, &format!("ruststrom_requests_total{labels}"))
    };
    for (status, n) in [("200", 4.0), ("000", 2.0), ("418", 2.0), ("599", 4.0), ("502", 2.0), ("500", 0.0)] {
        assert_eq!(by_status("10.0.0.0:80", status), Some(n), "{status}");
    }
    assert_eq!((by_status("", "429"), by_status("", "503")), (Some(2.0), Some(0.0)));
    for (series, expected) in [
        ("ruststrom_requests_total{pool=\"\",backend=\"\",status=\"404\"}", 2.0),
        ("ruststrom_requests_total{pool=\"web\",backend=\"10.0.0.1:80\",status=\"200\"}", 0.0),
        ("ruststrom_request_duration_seconds_count{pool=\"api\",backend=\"10.0.0.0:80\"}", 14.0),
        ("ruststrom_request_duration_seconds_sum{pool=\"api\",backend=\"10.0.0.0:80\"}", 0.042),
        (
            "ruststrom_request_duration_seconds_bucket{le=\"0.0025\",pool=\"api\",backend=\"10.0.0.0:80\"}",
            0.0,
        ),
        (
            "ruststrom_request_duration_seconds_bucket{le=\"0.005\",pool=\"api\",backend=\"10.0.0.0:80\"}",
            14.0,
        ),
        ("ruststrom_backend_wait_seconds_sum{pool=\"api\",backend=\"10.0.0.0:80\"}", 0.028),
        ("ruststrom_failures_total{pool=\"api\",cause=\"backend_reset\"}", 6.0),
        ("ruststrom_retries_total{pool=\"api\"}", 6.0),
        ("ruststrom_retries_total{pool=\"web\"}", 0.0),
        ("ruststrom_bytes_total{pool=\"api\",direction=\"in\"}", 160.0),
        ("ruststrom_bytes_total{pool=\"api\",direction=\"out\"}", 1600.0),
        ("ruststrom_rate_limit_exceeded_total{pool=\"api\"}", 2.0),
        ("ruststrom_rate_limit_exceeded_total{pool=\"web\"}", 0.0),
        ("ruststrom_compression_ratio{pool=\"api\",encoding=\"br\"}", 0.2),
        ("ruststrom_queue_length{pool=\"api\"}", 4.0),
        ("ruststrom_queue_length{pool=\"web\"}", 0.0),
        ("ruststrom_client_connections", 4.0),
        ("ruststrom_unresponsive_workers", 0.0),
        ("ruststrom_log_lines_dropped_total", 5.0),
        ("ruststrom_build_info{version=\"1.2.3\"}", 1.0),
    ] {
        assert_eq!(sample(&page, series), Some(expected), "{series}");
    }
}

#[test]
fn a_worker_that_is_stuck_is_left_with_what_it_said_last() {
    let mut rig = Rig::new(2, configuration(&["api"]));
    let api = ("api", "10.0.0.0:80");
    let series = "ruststrom_requests_total{pool=\"api\",backend=\"10.0.0.0:80\",status=\"200\"}";
    request(&mut rig.workers[0], api, 7, 200);
    request(&mut rig.workers[1], api, 7, 200);
    assert_eq!(sample(&rig.metrics(&[0, 1]), series), Some(2.0));
    for n in [3.0, 4.0, 5.0] {
        request(&mut rig.workers[0], api, 7, 200);
        request(&mut rig.workers[1], api, 7, 200);
        let page = rig.metrics(&[0]);
        assert_eq!(sample(&page, series), Some(n), "counters never go back");
        assert_eq!(sample(&page, "ruststrom_unresponsive_workers"), Some(1.0));
    }
    let mut waiting = VecDeque::new();
    rig.mailboxes[1].take(&mut waiting);
    assert_eq!(waiting.len(), 1, "it is asked once: {waiting:?}");
    rig.queues[1] = waiting;
    let page = rig.metrics(&[0, 1]);
    assert_eq!(
        (sample(&page, series), sample(&page, "ruststrom_unresponsive_workers")),
        (Some(8.0), Some(0.0))
    );
}

#[test]
fn counts_outlive_the_proxy_that_has_made_them() {
    let mut rig = Rig::new(1, configuration(&["api"]));
    let api = ("api", "10.0.0.0:80");
    let series = "ruststrom_requests_total{pool=\"api\",backend=\"10.0.0.0:80\",status=\"200\"}";
    for n in 1..4 {
        request(&mut rig.workers[0], api, 7, 200);
        assert_eq!(sample(&rig.metrics(&[0]), series), Some(f64::from(2 * n - 1)));
        request(&mut rig.workers[0], api, 7, 200);
        // A fresh one is made first, then the old one is dropped.
        rig.workers[0] = rig.hub.worker();
    }
    assert_eq!(sample(&rig.metrics(&[0]), series), Some(6.0));
}

#[test]
fn counts_go_by_labels_whatever_the_identities() {
    let mut rig = Rig::new(1, configuration(&["api"]));
    let api = ("api", "10.0.0.0:80");
    for identity in [7, 8, 7, 9, 9, 100, 8] {
        request(&mut rig.workers[0], api, identity, 200);
    }
    let page = rig.metrics(&[0]);
    let series = "ruststrom_requests_total{pool=\"api\",backend=\"10.0.0.0:80\",status=\"200\"}";
    assert_eq!(sample(&page, series), Some(7.0));
    assert_eq!(page.lines().filter(|line| line.starts_with(series)).count(), 1);
}

#[test]
fn a_pool_that_is_gone_is_shown_once_more() {
    let mut rig = Rig::new(1, configuration(&["api", "old"]));
    let series = "ruststrom_requests_total{pool=\"old\",backend=\"10.0.0.1:80\",status=\"200\"}";
    let old = ("old", "10.0.0.1:80");
    request(&mut rig.workers[0], old, 7, 200);
    assert_eq!(sample(&rig.metrics(&[0]), series), Some(1.0));
    request(&mut rig.workers[0], old, 7, 200);
    rig.hub.reloaded(configuration(&["api"]));
    let page = rig.metrics(&[0]);
    assert_eq!(sample(&page, series), Some(2.0), "the last of it is seen");
    assert_eq!(sample(&page, "ruststrom_reloads_total{result=\"success\"}"), Some(1.0));
    let page = rig.metrics(&[0]);
    assert!(!page.contains("old"), "{page}");
    // The end of a long request.
    rig.carry_out(0);
    request(&mut rig.workers[0], old, 7, 200);
    assert!(!rig.metrics(&[0]).contains("old"));
    rig.carry_out(0);
    rig.hub.reloaded(configuration(&["api", "old"]));
    assert_eq!(sample(&rig.metrics(&[0]), series), Some(0.0), "it begins anew");
}

#[test]
fn failed_reloads_are_counted() {
    let mut rig = Rig::new(1, configuration(&["api"]));
    rig.hub.reload_failed();
    rig.hub.reload_failed();
    let page = rig.metrics(&[0]);
    assert_eq!(sample(&page, "ruststrom_reloads_total{result=\"failure\"}"), Some(2.0));
    assert_eq!(sample(&page, "ruststrom_last_reload_success"), Some(0.0));
    rig.hub.reloaded(configuration(&["api"]));
    let page = rig.metrics(&[0]);
    assert_eq!(sample(&page, "ruststrom_last_reload_success"), Some(1.0));
    let status = rig.page(Query::Status, &[0]);
    for part in
        ["\"generation\": 2", "\"failure\": 2", "\"success\": 1", "\"queue\": 2", "\"state\": \"unknown\""]
    {
        assert!(status.contains(part), "{part}: {status}");
    }
}

#[test]
fn more_pages_than_can_wait_are_refused() {
    let shared = Arc::new(Shared::new("host", 1));
    let sources = Sources {
        version: "1",
        shared,
        stop: Arc::default(),
        server: SharedServer::default(),
        dropped_lines: Box::new(|| 5),
    };
    // Nobody makes them.
    let (hub, waiting) = Hub::new(sources, configuration(&["api"]));
    let refused = Arc::new(AtomicBool::new(false));
    for n in 0..=MAX_WAITING {
        let noted = refused.clone();
        hub.ask(
            Query::Status,
            Box::new(move |result| {
                assert_eq!(result, LookupResult::Failed("too many pages are waited for".into()));
                noted.store(true, Ordering::SeqCst);
            }),
        );
        assert_eq!(refused.load(Ordering::SeqCst), n == MAX_WAITING);
    }
    drop(waiting);
}
