//! Exchanges through `Proxy` with one of the observers of a daemon, to be counted by an instrument: the
//! difference of two numbers of exchanges is what they cost, that of two observers is what one costs more.
//!
//! ```text
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/observers metrics 20000
//! ```

use std::process::ExitCode;
use std::sync::Arc;

use ruststrom_benches::{Harness, messages};
use ruststrom_core::config::LogFormat;
use ruststrom_driver::access_log::LogObserver;
use ruststrom_driver::daemon_observer::DaemonObserver;
use ruststrom_driver::log_writer::LogWriter;
use ruststrom_driver::metrics::worker::WorkerMetrics;
use ruststrom_driver::observer::WorkerObserver;

/// Exchanges between two ends of turns, when lines are handed over.
const OF_TURN: u32 = 16;

fn exchanges(observer: impl WorkerObserver, n: u32) {
    let mut harness = Harness::with_observer("", "", observer);
    let response = messages::small_response();
    harness.connect();
    for done in 1..=n {
        harness.exchange(messages::SMALL_REQUEST, &response);
        if done.is_multiple_of(OF_TURN) {
            // What cannot be handed over is at the next one.
            let _ = harness.observer().turn_ended();
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, observer, n] = &arguments[..] else { return ExitCode::from(2) };
    let Ok(n) = n.parse() else { return ExitCode::from(2) };
    let metrics = || WorkerMetrics::new(&Arc::default());
    let log = || {
        let writer = LogWriter::start("nowhere", std::io::sink()).expect("a thread");
        LogObserver::new(LogFormat::Text, &writer)
    };
    match &**observer {
        "none" => exchanges(LogObserver::without_access_log(), n),
        "metrics" => exchanges(DaemonObserver::new(LogObserver::without_access_log(), metrics()), n),
        "log" => exchanges(log(), n),
        "both" => exchanges(DaemonObserver::new(log(), metrics()), n),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
