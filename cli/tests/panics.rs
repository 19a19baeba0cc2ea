//! A panic closes the connection that was being served, not the process; a worker that panics many times
//! restarts with a new proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::{self, Driver};
use ruststrom_core::observe::{Head, HealthChange, Kept, Level, Observer, Record};
use ruststrom_core::{Instant, Shared, Wall};
use ruststrom_driver::clock;
use ruststrom_driver::listen::bind_all;
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::observer::WorkerObserver;
use ruststrom_driver::stop::{Stage, Stop};
use ruststrom_driver::tls::session::RustlsLayer;
use ruststrom_driver::worker::WorkerExit;
use ruststrom_driver::workers::Setup;

/// An observer that panics, inside a call of the core, when the record of a request for `/panic` comes.
struct PanickingObserver;

impl Observer for PanickingObserver {
    fn head(&mut self, head: &Head<'_>, kept: &mut Kept) {
        kept.copy(head.target);
    }
    fn exchange(&mut self, record: &Record<'_>) {
        assert!(record.kept.bytes() != b"/panic", "this panic belongs to the test");
    }
    fn health(&mut self, _: &HealthChange<'_>) {}
    fn note(&mut self, _: Level, _: &str) {}
}

impl WorkerObserver for PanickingObserver {
    fn turn(&mut self, _: Instant) {}
    fn wall(&mut self, _: Wall, _: Instant) {}
    fn turn_ended(&mut self) -> bool {
        false
    }
}

fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut buf = [0; 4096];
                while stream.read(&mut buf).is_ok_and(|n| n > 0) {
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("listening");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    stream
}

/// Whether a complete response came.
fn get(stream: &mut TcpStream, target: &str) -> bool {
    let mut got = Vec::new();
    let mut buf = [0; 1024];
    if stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).is_err() {
        return false;
    }
    while !got.ends_with(b"hello") {
        match stream.read(&mut buf) {
            Ok(n) if n > 0 => got.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("neither a response to {target} nor the end of the connection")
            }
            _ => return false,
        }
    }
    true
}

#[test]
fn a_panic_closes_one_connection_and_many_restart_the_worker() {
    for driver in [Driver::Mio, Driver::Smol] {
        panic_repeatedly(driver);
    }
}

fn panic_repeatedly(driver: Driver) {
    let text = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\ntimeouts = {{ drain = \"1s\" }}\nlimits = {{ connections = 24 }}\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\naddresses = [\"{}\"]\n\
         schemes = [\"HTTP\"]\n",
        backend()
    );
    let config = config::parse(&text).config.expect("a good configuration");
    let (listeners, _) = bind_all(&config.listeners, 1).expect("free ports");
    let address = listeners[0].address;
    let stop = Arc::new(Stop::default());
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
    let running = match driver {
        Driver::Mio => ruststrom_mio::start(setup, |_| PanickingObserver),
        Driver::Smol => ruststrom_smol::start(setup, |_| PanickingObserver),
    };
    let running = running.expect("workers");
    let mut unaffected = connect(address);
    assert!(get(&mut unaffected, "/"));
    get(&mut connect(address), "/panic");
    assert!(get(&mut unaffected, "/"), "one panic does not affect other connections");
    assert!(get(&mut connect(address), "/"));
    // After many panics within seconds the worker gets a new proxy, and new clients are served. The old proxy
    // has to give back its part of the shared counts, or its connections would still count against
    // `limits.connections`.
    for _ in 0..40 {
        get(&mut connect(address), "/panic");
    }
    let begun = std::time::Instant::now();
    while !get(&mut connect(address), "/") {
        assert!(begun.elapsed() < Duration::from_secs(20), "new clients are not served again");
    }
    for _ in 0..20 {
        assert!(get(&mut connect(address), "/"));
    }
    stop.advance(Stage::Drain);
    // Exchanges that the panics interrupted may delay the stop until its deadline, but no longer.
    assert_ne!(running.join(), WorkerExit::Failed);
}
