//! An access line, and what is counted beside it, cost no allocation once the worker is warm. A test of
//! its own process: it counts every allocation of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::LogFormat;
use ruststrom_core::http::ip::IpText;
use ruststrom_core::http::{Scheme, Version};
use ruststrom_core::observe::{FailedAttempt, FailedAttempts, Head, Kept, Named, Observer, Record, Timings};
use ruststrom_core::{Cause, Instant, Wall};
use ruststrom_driver::access_log::LogObserver;
use ruststrom_driver::daemon_observer::DaemonObserver;
use ruststrom_driver::log_writer::LogWriter;
use ruststrom_driver::metrics::worker::WorkerMetrics;
use ruststrom_driver::observer::WorkerObserver;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = COUNT.try_with(|c| c.set(c.get() + 1));
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn record<'a>(kept: &'a Kept, timings: &'a Timings, failed: &'a [FailedAttempt]) -> Record<'a> {
    Record {
        kept,
        client: "[2001:db8::7]:50312".parse().expect("an address"),
        pool: "web",
        backend: "127.0.0.1:8081",
        pool_identity: Some(1),
        backend_identity: Some(2),
        user: "ada",
        status: 502,
        cause: Some(Cause::BackendReset),
        attempts: 2,
        failed: FailedAttempts::new(&[], failed),
        reused: true,
        bytes_in: 0,
        bytes_out: 1234,
        timings,
    }
}

#[test]
fn a_line_and_its_counts_cost_no_allocation() {
    let client: SocketAddr = "[2001:db8::7]:50312".parse().expect("an address");
    let client_ip = IpText::new(client.ip());
    let head = Head {
        client,
        client_ip: &client_ip,
        scheme: Scheme::Http,
        method: b"GET",
        target: "/a?\"b\"=\u{fc}".as_bytes(),
        version: Some(Version::HTTP_11),
        stream: 0,
        host: b"example.com",
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
        referer: b"http://example.com/",
        request_id: Named::Theirs(b"0123456789abcdef"),
        tls: None,
    };
    let at = |us: u64| Instant::from_nanos(us * 1000);
    let timings = Timings {
        head: at(12),
        chosen: at(15),
        sent: at(40),
        responded: at(1530),
        ended: at(1600),
        ..Timings::new(Instant::ZERO)
    };
    let failed = [FailedAttempt { backend: 0, cause: Cause::ConnectRefused }];
    for format in [LogFormat::Text, LogFormat::Json] {
        let writer = LogWriter::start("nowhere", std::io::sink()).expect("a thread");
        let log = LogObserver::new(format, &writer);
        let mut observer = DaemonObserver::new(log, WorkerMetrics::new(&Arc::default()));
        observer.wall(Wall { unix_secs: 1_795_435_083, millis: 0 }, Instant::ZERO);
        // As the core does: what is kept of one exchange is overwritten by the next.
        let mut kept = Kept::default();
        observer.head(&head, &mut kept);
        // Whatever has been seen once has its cells.
        observer.exchange(&record(&kept, &timings, &failed));
        let before = COUNT.with(Cell::get);
        for turn in 0..5000 {
            observer.turn(Instant::from_millis(turn));
            for _ in 0..10 {
                observer.head(&head, &mut kept);
                observer.exchange(&record(&kept, &timings, &failed));
            }
            observer.turn_ended();
        }
        assert_eq!(COUNT.with(Cell::get) - before, 0, "{format:?}");
        drop(observer);
        assert!(writer.flush(Duration::from_secs(20)));
    }
}
