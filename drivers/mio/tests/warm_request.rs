//! What a warm request costs a worker on a connection that is used again, by HTTP/1.1 or HTTP/2, access log
//! and metrics on: no allocation at all. A test of its own process, since it counts them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ruststrom_core::config::{self, LogFormat};
use ruststrom_core::h2::{Conn, Event, Limits, Received, Role};
use ruststrom_core::http::HeaderKind;
use ruststrom_core::{Config, Instant, Shared};
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
/// Each second's date is one more field in a table of HTTP/2, which grows a few times until it is full.
const DATED: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 5\r\n\
      Server: test\r\n\r\nhello";

fn backend(response: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut buf = [0; 4096];
                // One read finds one head here: the proxy sends it with one write.
                while stream.read(&mut buf).is_ok_and(|n| n > 0) {
                    if stream.write_all(response).is_err() {
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

/// A request: its path, and the value of each field of which the log wants some.
struct Request {
    path: String,
    host: String,
    text: String,
}

/// A client, and the one connection that it has.
enum Client {
    Http1(TcpStream),
    Http2(Box<Http2>),
}

struct Http2 {
    stream: TcpStream,
    wire: Conn,
    received: Received,
}

impl Client {
    fn new(address: SocketAddr, http2: bool) -> Self {
        let stream = TcpStream::connect(address).expect("listening");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        if !http2 {
            return Self::Http1(stream);
        }
        let wire = Conn::new(Role::Client, Limits::default(), Instant::ZERO);
        Self::Http2(Box::new(Http2 { stream, wire, received: Received::default() }))
    }

    /// Sends the requests, and waits for the response of each; over HTTP/2 they are under way at once.
    fn exchange(&mut self, requests: &[Request]) {
        match self {
            Self::Http1(stream) => requests.iter().for_each(|request| exchange(stream, request)),
            Self::Http2(client) => client.exchange(requests),
        }
    }
}

fn exchange(stream: &mut TcpStream, request: &Request) {
    let Request { path, host, text } = request;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {text}\r\nAccept: */*\r\nReferer: {text}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let (mut buf, mut got) = ([0; 4096], 0);
    while !buf[..got].ends_with(b"hello") {
        let n = stream.read(&mut buf[got..]).expect("in time");
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&buf[..got]));
        got += n;
    }
    assert!(buf.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

impl Http2 {
    fn exchange(&mut self, requests: &[Request]) {
        for Request { path, host, text } in requests {
            let stream = self.wire.open().expect("a free stream");
            self.wire.send_head(stream, true, false, |w| {
                w.pseudo(b":method", b"GET");
                w.pseudo(b":scheme", b"http");
                w.pseudo(b":path", path.as_bytes());
                w.pseudo(b":authority", host.as_bytes());
                w.field(b"user-agent", text.as_bytes(), HeaderKind::UserAgent, false);
                w.field(b"accept", b"*/*", HeaderKind::Accept, false);
                w.field(b"referer", text.as_bytes(), HeaderKind::Referer, false);
            });
        }
        let mut ended = 0;
        while ended < requests.len() {
            while self.wire.has_output() {
                let n = self.stream.write(self.wire.transmit()).expect("sent");
                self.wire.handle_sent(n);
            }
            let n = self.stream.read(self.wire.recv_buf()).expect("in time");
            assert!(n > 0, "closed");
            self.wire.handle_recv(n);
            while let Some(event) = self.wire.poll_event(&mut self.received, Instant::ZERO) {
                match event {
                    Event::Response { ended: false, .. } => {
                        assert_eq!(self.received.response.status().as_u16(), 200);
                    }
                    Event::Data { stream } => {
                        let data = self.wire.data();
                        assert_eq!(data, b"hello");
                        let len = data.len() as u32;
                        self.wire.release(stream, len);
                    }
                    Event::End { .. } => ended += 1,
                    Event::Writable { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }
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
        for http2 in [false, true] {
            serve_without_allocations(middlewares, http2);
        }
    }
}

fn serve_without_allocations(middlewares: &str, http2: bool) {
    let response = if http2 { DATED } else { RESPONSE };
    let config = configuration(&[backend(response), backend(response), backend(response)], middlewares);
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
    // The second has all texts that the log wants as long as it takes them.
    let requests = [
        Request { path: "/some/path?a=b".into(), host: "localhost".into(), text: "test/1.0".into() },
        Request { path: format!("/{}", "p".repeat(2000)), host: "t".repeat(300), text: "t".repeat(300) },
    ];
    let mut clients: Vec<Client> = (0..8).map(|_| Client::new(address, http2)).collect();
    let mut rounds = |n: usize| {
        for _ in 0..n {
            for client in &mut clients {
                client.exchange(&requests);
                client.exchange(&requests[..1]);
            }
        }
    };
    let before = COUNT.load(Ordering::SeqCst);
    // Every client over every backend, and every buffer once around.
    rounds(100);
    let warm = COUNT.load(Ordering::SeqCst);
    assert!(warm > before, "starting allocates: the counter counts");
    rounds(250);
    let allocations = COUNT.load(Ordering::SeqCst) - warm;
    assert_eq!(allocations, 0, "allocations in 6000 requests, HTTP/2 {http2}, with {middlewares:?}");
    stop.advance(Stage::Drain);
    drop(clients);
    assert_eq!(running.join(), WorkerExit::Finished);
}
