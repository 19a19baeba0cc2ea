//! A running proxy gets another configuration: no request fails, no connection is closed, and whatever comes
//! after the reload goes to the new backend.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use ruststrom_core::config;
use ruststrom_core::{Config, Shared};
use ruststrom_driver::access_log::LogObserver;
use ruststrom_driver::clock;
use ruststrom_driver::listen::bind_all;
use ruststrom_driver::lookup::Lookups;
use ruststrom_driver::stop::{Stage, Stop};
use ruststrom_driver::tls::session::RustlsLayer;
use ruststrom_driver::worker::WorkerExit;
use ruststrom_driver::workers::Setup;

/// The longest wait for anything.
const WAIT: Duration = Duration::from_secs(20);
const WORKERS: u16 = 2;

/// Starts a backend whose responses are this one letter, each after `delay`.
fn backend(letter: u8, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut buf = [0; 4096];
                while stream.read(&mut buf).is_ok_and(|n| n > 0) {
                    std::thread::sleep(delay);
                    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
                    if stream.write_all(&[&head[..], &[letter]].concat()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn configuration(backend: SocketAddr) -> Arc<Config> {
    let text = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n\
         health_interval = {{ check_every = 0 }}\n\
         [[backend_pools]]\naddresses = [\"{backend}\"]\nschemes = [\"HTTP\"]\n"
    );
    let parsed = config::parse(&text);
    Arc::new(parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics)))
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("listening");
    stream.set_read_timeout(Some(WAIT)).expect("a socket");
    stream
}

/// Sends a request; the letter of the response, which must be complete.
fn get(stream: &mut TcpStream) -> u8 {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let (mut response, mut buf) = (Vec::new(), [0; 1024]);
    loop {
        let n = stream.read(&mut buf).expect("in time");
        assert!(n > 0, "closed after {:?}", response.escape_ascii().to_string());
        response.extend_from_slice(&buf[..n]);
        if let Some(end) = response.windows(4).position(|w| w == b"\r\n\r\n")
            && let Some(letter) = response.get(end + 4)
        {
            assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", response.escape_ascii());
            return *letter;
        }
    }
}

/// Asks again and again, on one connection, until `stopped`; the letters of all responses, of which `last` is
/// the newest.
fn client(address: SocketAddr, stopped: &AtomicBool, last: &AtomicU8) -> Vec<u8> {
    let mut stream = connect(address);
    let mut letters = Vec::new();
    while !stopped.load(Ordering::SeqCst) {
        let letter = get(&mut stream);
        letters.push(letter);
        last.store(letter, Ordering::SeqCst);
    }
    letters
}

/// Waits until the last response of each client has this letter.
fn wait_for(letter: u8, last: &[AtomicU8]) {
    let begun = Instant::now();
    while begun.elapsed() < WAIT && last.iter().any(|last| last.load(Ordering::SeqCst) != letter) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_reload_fails_no_request_and_closes_no_connection() {
    let (old, new) = (backend(b'a', Duration::from_millis(1)), backend(b'b', Duration::ZERO));
    let config = configuration(old);
    let (listeners, _) = bind_all(&config.listeners, WORKERS).expect("free ports");
    let address = listeners[0].address;
    let kept: Vec<_> = listeners.iter().map(|l| l.id).collect();
    let stop = Arc::new(Stop::default());
    let setup = Setup {
        config,
        shared: Arc::new(Shared::new("test", WORKERS)),
        listeners,
        seed: clock::entropy(),
        files: 1024,
        stop: stop.clone(),
        lookups: Lookups::default(),
        tls: RustlsLayer::default(),
    };
    let running = ruststrom_mio::start(setup, |_| LogObserver::without_access_log()).expect("workers");
    let stopped = AtomicBool::new(false);
    let last: [AtomicU8; 6] = Default::default();
    std::thread::scope(|scope| {
        let stopped = &stopped;
        let ask = |last| scope.spawn(move || client(address, stopped, last));
        let clients: Vec<_> = last.iter().map(ask).collect();
        wait_for(b'a', &last);
        assert_eq!(get(&mut connect(address)), b'a');
        running.reloader().reload(&configuration(new), &kept, Vec::new());
        // A worker reads its mailbox before it reports its stats.
        assert_eq!(running.stats(WAIT).len(), usize::from(WORKERS));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(200) {
            assert_eq!(get(&mut connect(address)), b'b', "a connection that came after the reload");
        }
        wait_for(b'b', &last);
        stopped.store(true, Ordering::SeqCst);
        for client in clients {
            let letters = client.join().expect("every request got its response");
            let first_new = letters.iter().position(|l| *l == b'b').expect("its connection was kept");
            assert!(first_new > 0, "it had responses of the old backend before");
            assert!(letters[first_new..].iter().all(|l| *l == b'b'), "no request went back");
        }
    });
    stop.advance(Stage::Drain);
    assert_eq!(running.join(), WorkerExit::Finished);
}
