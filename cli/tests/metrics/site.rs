//! A daemon with an admin listener, and its pages.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Client, Response, WAIT};
use crate::daemon::Daemon;
use crate::nginx::program;

/// The top of a configuration: free ports, no access log, checks that are seldom. What is written and
/// followed by HUP is not read by the watcher before.
pub(crate) const TOP: &str = "http_address = \"127.0.0.1:0\"\nmetrics_address = \"127.0.0.1:0\"\n\
    watch = false\naccess_log = { enabled = false }\nhealth_interval = { check_every = 60 }\n";

/// A pool with this name for all paths below `/name`, and more keys of its own.
pub(crate) fn pool(name: &str, backends: &[SocketAddr], more: &str) -> String {
    let addresses: Vec<String> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    // A late answer is not what these tests are about.
    let health = match more.contains("health_config") {
        true => "",
        false => "health_config = { timeout = 5000, slow_threshold = 0 }\n",
    };
    format!(
        "[[backend_pools]]\nname = \"{name}\"\nmatcher = \"PathPrefix('/{name}')\"\n\
         addresses = [{}]\nschemes = [\"HTTP\"]\n{health}{more}\n",
        addresses.join(", ")
    )
}

/// Starts a daemon with two workers, and waits until it is ready.
pub(crate) fn start(driver: &str, text: &str) -> Daemon {
    let daemon = Daemon::start(text, &["--driver", driver, "--workers", "2"]);
    daemon.wait_for("ready");
    daemon
}

/// A page of the admin listener.
pub(crate) fn page(daemon: &Daemon, path: &str) -> Response {
    Client::to(daemon.listens("admin")).get(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The samples of `/metrics`, by series as the page has them.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) text: String,
    samples: BTreeMap<String, f64>,
}

pub(crate) fn scrape(daemon: &Daemon) -> Metrics {
    let got = page(daemon, "/metrics");
    assert_eq!(got.status, 200, "{}", got.text());
    Metrics::parse(got.text())
}

impl Metrics {
    pub(crate) fn parse(text: String) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        };
        let samples: BTreeMap<_, _> = lines.clone().map(sample).collect();
        assert_eq!(samples.len(), lines.count(), "each series once: {text}");
        Self { text, samples }
    }

    /// The value of a series; panics if there is none.
    pub(crate) fn of(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("no {series}:\n{}", self.text))
    }

    pub(crate) fn find(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// Requests of a backend with this status.
    pub(crate) fn requests(&self, pool: &str, backend: &str, status: &str) -> f64 {
        self.of(&format!(
            "ruststrom_requests_total{{pool=\"{pool}\",backend=\"{backend}\",status=\"{status}\"}}"
        ))
    }

    /// All requests that have been counted.
    pub(crate) fn all_requests(&self) -> f64 {
        let all = self.samples.iter().filter(|(series, _)| series.starts_with("ruststrom_requests_total{"));
        all.map(|(_, n)| n).sum()
    }

    /// The names of all metrics that have a type.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let types = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.filter_map(|line| line.split(' ').next()).collect()
    }

    /// Every series.
    pub(crate) fn series(&self) -> BTreeSet<&str> {
        self.samples.keys().map(|series| &**series).collect()
    }
}

/// Scrapes until the page is as wanted: what an exchange counts is there a moment after its client has the
/// response.
pub(crate) fn scrape_until(daemon: &Daemon, what: &str, is: impl Fn(&Metrics) -> bool) -> Metrics {
    let begun = Instant::now();
    loop {
        let metrics = scrape(daemon);
        if is(&metrics) {
            return metrics;
        }
        assert!(begun.elapsed() < WAIT, "not in time: {what}\n{}", metrics.text);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What `promtool check metrics` says of a page, which is nothing if it is clean.
pub(crate) fn check_metrics(text: &str) -> String {
    let mut command = Command::new(program("promtool", "prometheus"));
    command.args(["check", "metrics"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let out = child.wait_with_output().expect("it ends");
    let said = [out.stdout, out.stderr].concat();
    format!("{}{}", String::from_utf8_lossy(&said), if out.status.success() { "" } else { "failed" })
}
