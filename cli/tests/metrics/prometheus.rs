//! A real Prometheus scrapes a daemon through an outage, and evaluates the queries and alert rules of the
//! specification.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::address;
use crate::client::{Client, WAIT};
use crate::daemon::TempDir;
use crate::monitoring::{dashboard_expressions, monitoring};
use crate::nginx::{output, program};
use crate::scripted_backend::{Backend, ok};
use crate::site::{TOP, start};

/// A running Prometheus, killed when dropped.
struct Prometheus {
    address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes an address five times a second, with the alert rules of `cli/monitoring`, of
    /// which each has to hold for a second only.
    fn start(target: SocketAddr) -> Self {
        let folder = TempDir::new("prometheus");
        let rules = std::fs::read_to_string(monitoring("alerts.yml")).expect("rules");
        let sooner = |line: &str| match line.trim_start().starts_with("for: ") {
            true => "        for: 1s\n".to_owned(),
            false => format!("{line}\n"),
        };
        folder.write("alerts.yml", rules.lines().map(sooner).collect::<String>());
        let config = folder.write(
            "prometheus.yml",
            format!(
                "global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  evaluation_interval: 200ms\n\
                 rule_files: [alerts.yml]\nscrape_configs:\n  - job_name: ruststrom\n    static_configs:\n      - targets: [\"{target}\"]\n"
            ),
        );
        let address = address::reserve();
        let mut command = Command::new(program("prometheus", "prometheus"));
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.0.join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let begun = Instant::now();
        // It listens before it can be asked.
        let ready = format!("http://{address}/-/ready");
        let is_ready = || {
            let mut curl = Command::new(program("curl", "curl"));
            curl.args(["-sf", "--max-time", "5", "-o", "/dev/null", &ready]);
            curl.status().expect("it starts").success()
        };
        while !is_ready() {
            assert!(begun.elapsed() < WAIT, "Prometheus is not ready");
            assert!(child.try_wait().expect("our child").is_none(), "Prometheus has ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { address, child, _folder: folder }
    }

    fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut curl = Command::new(program("curl", "curl"));
        curl.args(["-sS", "-G", "--max-time", "20"]);
        for (name, value) in parameters {
            curl.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        let said = output(curl.arg(format!("http://{}/api/v1/{path}", self.address)));
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{path}: {e}: {said}"));
        assert_eq!(said["status"], "success", "{path} {parameters:?}: {said}");
        said["data"].clone()
    }

    /// The labels and the value of each sample of a query.
    fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let found = self.api("query", &[("query", query)]);
        let samples = found["result"].as_array().expect("a vector").iter();
        let value = |sample: &Value| sample["value"][1].as_str().expect("a text").parse().expect("a number");
        samples.map(|sample| (sample["metric"].clone(), value(sample))).collect()
    }

    /// Waits until a query is as wanted.
    fn query_until(&self, query: &str, is: impl Fn(&[(Value, f64)]) -> bool) -> Vec<(Value, f64)> {
        let begun = Instant::now();
        loop {
            let found = self.query(query);
            if is(&found) {
                return found;
            }
            assert!(begun.elapsed() < 2 * WAIT, "{query}: {found:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The alerts that fire.
    fn firing(&self) -> Vec<Value> {
        let alerts = self.api("alerts", &[]);
        let all = alerts["alerts"].as_array().expect("a list").clone();
        all.into_iter().filter(|alert| alert["state"] == "firing").collect()
    }

    /// Waits until these alerts fire, and no other; those alerts.
    fn firing_until(&self, names: &[&str]) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let firing = self.firing();
            let mut found: Vec<&str> =
                firing.iter().filter_map(|a| a["labels"]["alertname"].as_str()).collect();
            found.sort_unstable();
            found.dedup();
            if found == names {
                return firing;
            }
            assert!(begun.elapsed() < 3 * WAIT, "{names:?}: {firing:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A backend that is well, that fails, or that is slow.
fn backend(mood: &Arc<AtomicU8>) -> Backend {
    let mood = mood.clone();
    Backend::start(move |mut peer| {
        while let Some(head) = peer.request() {
            let (is_check, mood) = (head.contains(" /health "), mood.load(Ordering::SeqCst));
            let answer = match mood {
                FAILS => "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_owned(),
                _ => ok("here"),
            };
            if mood == SLOW && !is_check {
                std::thread::sleep(Duration::from_millis(1300));
            }
            if !peer.send(answer) {
                return;
            }
        }
    })
}

/// Moods besides 0, which is well.
const FAILS: u8 = 1;
const SLOW: u8 = 2;

#[test]
fn the_queries_and_alert_rules_of_the_specification_are_right_in_an_outage() {
    let moods: [Arc<AtomicU8>; 2] = Default::default();
    let backends = moods.each_ref().map(backend);
    let [a, b] = [backends[0].address, backends[1].address].map(|address| address.to_string());
    let text = format!(
        "{}[[backend_pools]]\nname = \"api\"\naddresses = [\"{a}\", \"{b}\"]\nschemes = [\"HTTP\"]\nstrategy = \"RoundRobin\"\n\
         health_config = {{ path = \"/health\", timeout = 5000, slow_threshold = 4000, ramp_up = 0 }}\n",
        TOP.replace("= 60", "= 1")
    );
    let daemon = start("mio", &text);
    let prometheus = Prometheus::start(daemon.listens("admin"));
    let http = daemon.listens("http");
    let ask = |n: usize| {
        let mut client = Client::to(http);
        (0..n).map(|_| client.get("/").expect("a response").status).collect::<Vec<_>>()
    };
    let healthy = "count(ruststrom_backend_health{state=\"healthy\"})";
    prometheus.query_until(healthy, |found| found.iter().map(|(_, n)| *n).eq([2.0]));
    assert!(ask(40).iter().all(|status| *status == 200));

    // All is well: every query of the specification and of the dashboard is understood, and says so.
    let rates = prometheus.query_until("rate(ruststrom_requests_total[5m])", |found| {
        let served = found.iter().filter(|(labels, rate)| labels["status"] == "200" && *rate > 0.0);
        served.count() == 2
    });
    assert!(rates.iter().all(|(labels, rate)| labels["status"] == "200" || *rate == 0.0), "{rates:?}");
    let p95 = "histogram_quantile(0.95, rate(ruststrom_request_duration_seconds_bucket[5m]))";
    let found = prometheus.query_until(p95, |found| found.iter().filter(|(_, p95)| *p95 > 0.0).count() == 2);
    assert!(found.iter().all(|(_, p95)| p95.is_nan() || *p95 < 1.0), "{found:?}");
    let errors = prometheus.query("rate(ruststrom_requests_total{status=~\"5..\"}[5m])");
    assert!(errors.len() >= 9 && errors.iter().all(|(_, rate)| *rate == 0.0), "{errors:?}");
    // A scrape that comes too late leaves a gap in what is asked for as it is now.
    prometheus.query_until("sum(ruststrom_active_connections) by (backend)", |found| found.len() == 2);
    for expression in dashboard_expressions() {
        prometheus.query(&expression);
    }
    prometheus.firing_until(&[]);
    let rules = prometheus.api("rules", &[]);
    let rules = rules["groups"][0]["rules"].as_array().expect("rules").clone();
    assert!(rules.len() >= 10 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:#?}");

    // One backend fails, and then the other one too.
    moods[0].store(FAILS, Ordering::SeqCst);
    let down = prometheus.firing_until(&["BackendDown"]);
    assert_eq!((&down[0]["labels"]["backend"], down.len()), (&Value::from(&*a), 1));
    assert_eq!(down[0]["annotations"]["summary"], format!("Backend {a} is unhealthy"));
    prometheus.query_until(healthy, |found| found.iter().map(|(_, n)| *n).eq([1.0]));
    assert!(ask(20).iter().all(|status| *status == 200));
    moods[1].store(FAILS, Ordering::SeqCst);
    prometheus.firing_until(&["BackendDown", "PoolDown"]);
    assert!(prometheus.query(healthy).is_empty());
    assert!(ask(60).iter().all(|status| *status == 503));
    let firing = prometheus.firing_until(&["BackendDown", "HighErrorRate", "PoolDown"]);
    let errors: Vec<_> = firing.iter().filter(|a| a["labels"]["alertname"] == "HighErrorRate").collect();
    assert_eq!((errors.len(), &errors[0]["labels"]["status"]), (1, &Value::from("503")), "{errors:#?}");
    assert_eq!(errors[0]["labels"]["pool"], "api");

    // Both are well again, but slow.
    moods.iter().for_each(|mood| mood.store(SLOW, Ordering::SeqCst));
    prometheus.query_until(healthy, |found| found.iter().map(|(_, n)| *n).eq([2.0]));
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| assert_eq!(ask(1), [200]));
        }
    });
    // The errors are still within the five minutes that are looked at.
    let firing = prometheus.firing_until(&["HighErrorRate", "HighLatency"]);
    let slow: Vec<_> = firing.iter().filter(|a| a["labels"]["alertname"] == "HighLatency").collect();
    assert_eq!(slow.len(), 2, "{slow:#?}");
    drop(prometheus);
    daemon.stop();
}
