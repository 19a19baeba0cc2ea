//! The built binary with a listener for HTTPS, and its access log.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::authority::Pair;
use crate::client::WAIT;
use crate::daemon::Daemon;

/// A running proxy that logs what each connection goes through.
pub(crate) struct Proxy {
    pub(crate) daemon: Daemon,
    /// Where it speaks HTTPS, or HTTP if it has no certificates.
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// Starts it with two workers. `top` are more keys at the top of its configuration; certificates and
    /// pools follow.
    pub(crate) fn start(driver: &str, top: &str, certificates: &[(&str, &Pair, &str)], pools: &str) -> Self {
        Self::start_logging("info,proxy=debug", driver, top, certificates, pools)
    }

    /// The same with this value of `RUST_LOG`.
    pub(crate) fn start_logging(
        levels: &str,
        driver: &str,
        top: &str,
        certificates: &[(&str, &Pair, &str)],
        pools: &str,
    ) -> Self {
        let (kind, key) =
            if certificates.is_empty() { ("http", "http_address") } else { ("https", "https_address") };
        let tables: String = certificates
            .iter()
            .map(|(name, pair, more)| format!("[certificates.\"{name}\"]\n{}{more}\n", pair.local()))
            .collect();
        let health =
            if top.contains("health_interval") { "" } else { "health_interval = { check_every = 0 }\n" };
        let config = format!(
            "{key} = \"127.0.0.1:0\"\nmetrics_address = false\ndriver = \"{driver}\"\nworkers = 2\n\
             access_log = {{ format = \"json\" }}\n{health}{top}\n{tables}{pools}"
        );
        let daemon = Daemon::start_logging(&config, levels);
        daemon.wait_for("\"message\":\"ready");
        let address = daemon.listens(kind);
        Self { daemon, address }
    }

    /// Starts it with one pool, that takes everything.
    pub(crate) fn to(driver: &str, certificates: &[(&str, &Pair, &str)], backend: SocketAddr) -> Self {
        Self::start(driver, "", certificates, &format!("[[backend_pools]]\naddresses = [\"{backend}\"]\n"))
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Waits until the access log has `n` lines that contain `part`; all of those.
    pub(crate) fn logged(&self, part: &str, n: usize) -> Vec<String> {
        self.lines(|line| line.contains("\"request_id\":") && line.contains(part), n)
    }

    /// Waits until the log has `n` lines about connections that contain `part`; all of those.
    pub(crate) fn steps(&self, part: &str, n: usize) -> Vec<String> {
        self.lines(|line| line.contains("\"target\":\"proxy\"") && line.contains(part), n)
    }

    fn lines(&self, wanted: impl Fn(&str) -> bool, n: usize) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let output = self.daemon.output();
            let lines: Vec<String> = output.lines().filter(|l| wanted(l)).map(str::to_owned).collect();
            if lines.len() >= n {
                return lines;
            }
            assert!(begun.elapsed() < WAIT, "{} lines of {n}: {output}", lines.len());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn stop(self) {
        self.daemon.stop();
    }
}

/// The value of a field of a line of the log, as it stands there, without the quotes.
pub(crate) fn field<'l>(line: &'l str, name: &str) -> &'l str {
    let Some((_, rest)) = line.split_once(&format!("\"{name}\":")) else { return "" };
    match rest.strip_prefix('"') {
        Some(text) => text.split('"').next().unwrap_or_default(),
        None => rest.split([',', '}']).next().unwrap_or_default(),
    }
}
