//! What a warm keep-alive request costs a worker, access log and metrics on: no allocation at all. A
//! test of its own process, since it counts them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ruststrom_core::config::{self, LogFormat};
use ruststrom_core::{Config, Shared};
use ruststrom_driver::access_log::LogObserver;
use ruststrom_driver::clock;
use ruststrom_driver::daemon_observer::DaemonObserver;
use ruststrom_driver::listen::bind_all;
use ruststrom_driver::log_writer::LogWriter;
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::metrics::worker::WorkerMetrics;
use ruststrom_driver::stop::{Stage, Stop};
use ruststrom_driver::tls::session::RustlsLayer;
use ruststrom_driver::worker::WorkerExit;
use ruststrom_driver::workers::Setup;
use ruststrom_mio::start;

/// Counts the allocations of threads that asked for it.
struct Counting;

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}
static COUNT: AtomicU64 = AtomicU64::new(0);

fn count() {
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
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

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: test\r\n\r\nhello";

fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut buf = [0; 4096];
                // One read finds one head here: the proxy sends it with one write.
                while stream.read(&mut buf).is_ok_and(|n| n > 0) {
                    if stream.write_all(RESPONSE).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn configuration(backends: &[SocketAddr], middlewares: &str) -> Config {
    let backends: Vec<String> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    let text = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\naddresses = [{}]\n\
         schemes = [\"HTTP\"]\nstrategy = {{ RoundRobin = {{}} }}\n{middlewares}",
        backends.join(", ")
    );
    let parsed = config::parse(&text);
    parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

fn exchange(stream: &mut TcpStream, request: &[u8], buf: &mut [u8]) {
    stream.write_all(request).expect("sent");
    let mut got = 0;
    while !buf[..got].ends_with(b"hello") {
        let n = stream.read(&mut buf[got..]).expect("in time");
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&buf[..got]));
        got += n;
    }
    assert!(buf.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// `Headers` with what requests and responses can be told.
const HEADERS: &str = "[backend_pools.middlewares.Headers]\n\
    request = { set = { X-Who = \"{client_ip}, {scheme}\", X-Constant = \"1\" }, remove = [\"Referer\"] }\n\
    response = { set = { Server = \"ours\", X-Id = \"{request_id} by {backend}\" } }\nsecurity = true\n";
/// Those that refuse what is too much, or comes from the wrong place.
const LIMITS: &str = "[backend_pools.middlewares.RateLimiter]\nlimit = 100000\nwindow_sec = 60\n\
    [backend_pools.middlewares.MaxBodySize]\nlimit = \"10MB\"\n\
    [backend_pools.middlewares.IpDeny]\nranges = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n";

/// One after the other: every allocation of the workers counts.
#[test]
fn a_warm_request_allocates_nothing() {
    for middlewares in ["", HEADERS, LIMITS, &[HEADERS, LIMITS].concat()] {
        serve_without_allocations(middlewares);
    }
}

fn serve_without_allocations(middlewares: &str) {
    let config = configuration(&[backend(), backend(), backend()], middlewares);
    let (listeners, _) = bind_all(&config.listeners, 1).expect("free ports");
    let address = listeners[0].address;
    let stop = Arc::new(Stop::default());
    let writer = LogWriter::start("nowhere", std::io::sink()).expect("a thread");
    let setup = Setup {
        config: Arc::new(config),
        shared: Arc::new(Shared::new("test", 1)),
        listeners,
        seed: clock::entropy(),
        files: 1024,
        stop: stop.clone(),
        lookups: Lookups::default(),
        tls: RustlsLayer::default(),
    };
    let log = writer.clone();
    let observer = move |_| {
        // Made on the worker's thread: from here on it is counted.
        let log = LogObserver::new(LogFormat::Json, &log);
        let observer = DaemonObserver::new(log, WorkerMetrics::new(&Arc::default()));
        COUNTED.with(|c| c.set(true));
        observer
    };
    let running = start(setup, observer).expect("workers");
    let request =
        b"GET /some/path?a=b HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test/1.0\r\nAccept: */*\r\nReferer: http://localhost/\r\n\r\n";
    // All texts that the log wants as long as it takes them.
    let (path, text) = ("p".repeat(2000), "t".repeat(300));
    let long =
        format!("GET /{path} HTTP/1.1\r\nHost: {text}\r\nUser-Agent: {text}\r\nReferer: {text}\r\n\r\n");
    let mut clients: Vec<TcpStream> = (0..8)
        .map(|_| {
            let c = TcpStream::connect(address).expect("listening");
            c.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            c
        })
        .collect();
    let mut buf = [0; 4096];
    let mut rounds = |n: usize| {
        for _ in 0..n {
            for client in &mut clients {
                exchange(client, request, &mut buf);
                exchange(client, long.as_bytes(), &mut buf);
            }
        }
    };
    let before = COUNT.load(Ordering::SeqCst);
    // Every client over every backend, and every buffer once around.
    rounds(100);
    let warm = COUNT.load(Ordering::SeqCst);
    assert!(warm > before, "starting allocates: the counter counts");
    rounds(250);
    assert_eq!(COUNT.load(Ordering::SeqCst) - warm, 0, "allocations in 4000 requests with {middlewares:?}");
    stop.advance(Stage::Drain);
    drop(clients);
    assert_eq!(running.join(), WorkerExit::Finished);
}
