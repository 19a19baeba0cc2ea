//! Backends at Unix sockets: what the built binary does as they come, go, refuse and come back.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use ruststrom_core::config::Driver;

use crate::client::{Client, WAIT};
use crate::daemon::{Daemon, TempDir};
use crate::driver_name;
use crate::scripted_backend::ok;

on_each_driver!(
    requests_share_a_connection_and_are_logged,
    a_socket_that_is_removed_and_comes_back,
    each_reason_to_take_no_connection_has_its_cause,
    a_response_of_many_bytes_comes_whole,
);

/// An HTTP server at a path; it and its connections end when it is dropped, and its file is left.
struct UnixBackend {
    path: PathBuf,
    served: Arc<Served>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Served {
    stopped: AtomicBool,
    /// Connections that carried requests of clients.
    connections: AtomicUsize,
    /// Heads of checks, in lower case.
    checks: Mutex<Vec<String>>,
    heads: Mutex<Vec<String>>,
    open: Mutex<Vec<UnixStream>>,
}

impl UnixBackend {
    fn start(path: &Path, body: &str) -> Self {
        Self::over(UnixListener::bind(path).expect("a free path"), path, body)
    }

    fn over(listener: UnixListener, path: &Path, body: &str) -> Self {
        let served = Arc::<Served>::default();
        let (all, body) = (served.clone(), body.to_owned());
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if all.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.expect("a connection");
                all.open.lock().expect("no panic").push(stream.try_clone().expect("a descriptor"));
                let (all, body) = (all.clone(), body.clone());
                std::thread::spawn(move || all.serve(stream, &body));
            }
        });
        Self { path: path.to_owned(), served, accepting: Some(accepting) }
    }

    fn connections(&self) -> usize {
        self.served.connections.load(Ordering::SeqCst)
    }
}

impl Served {
    fn serve(&self, stream: UnixStream, body: &str) {
        let mut stream = BufReader::new(stream);
        let mut known = false;
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if !stream.read_line(&mut head).is_ok_and(|n| n > 0) {
                    return;
                }
            }
            let head = head.to_ascii_lowercase();
            if head.contains("user-agent: rust-strom-health") {
                self.checks.lock().expect("no panic").push(head);
            } else {
                self.heads.lock().expect("no panic").push(head);
                if !std::mem::replace(&mut known, true) {
                    self.connections.fetch_add(1, Ordering::SeqCst);
                }
            }
            if stream.get_mut().write_all(ok(body).as_bytes()).is_err() {
                return;
            }
        }
    }
}

impl Drop for UnixBackend {
    fn drop(&mut self) {
        self.served.stopped.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for stream in self.served.open.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A folder that everybody may enter.
fn folder() -> TempDir {
    let folder = TempDir::new("unix");
    std::fs::set_permissions(&folder.0, PermissionsExt::from_mode(0o755)).expect("ours");
    folder
}

fn start(driver: Driver, top: &str, pools: &str) -> Daemon {
    let config = format!("http_address = \"127.0.0.1:0\"\nmetrics_address = false\n{top}\n{pools}");
    Daemon::start(&config, &["--workers", "1", "--driver", driver_name(driver)])
}

fn unchecked(path: &Path) -> String {
    format!(
        "[[backend_pools]]\nretries = 0\naddresses = [\"unix:{}\"]\nhealth_config = {{ check_every = 0 }}\n",
        path.display()
    )
}

fn requests_share_a_connection_and_are_logged(driver: Driver) {
    let folder = folder();
    let (path, spare) = (folder.0.join("app.sock"), folder.0.join("spare.sock"));
    let backend = UnixBackend::start(&path, "here");
    let _spare = UnixBackend::start(&spare, "there");
    let pool = format!(
        "[[backend_pools]]\naddresses = [{{ address = \"unix:{}\", weight = 2, max_connections = 7 }}, \
         {{ address = \"unix:{}\", backup = true }}]\nhealth_config = {{ timeout = 5000, slow_threshold = 0 }}\n",
        path.display(),
        spare.display()
    );
    let daemon = start(driver, "", &pool);
    let mut client = Client::to(daemon.address());
    for _ in 0..5 {
        let response = client.get("/x").expect("a response");
        assert_eq!((response.status, response.text().as_str()), (200, "here"), "{}", daemon.output());
    }
    assert_eq!(backend.connections(), 1, "it is used again");
    daemon.wait_for(&format!(" backend=\"unix:{}\" ", path.display()));
    let checks = backend.served.checks.lock().expect("no panic").clone();
    assert!(checks.iter().all(|head| head.contains("\r\nhost: localhost\r\n")), "{checks:?}");
    assert_eq!(checks.len(), 1);
    let head = backend.served.heads.lock().expect("no panic")[0].clone();
    for field in ["x-forwarded-for: 127.0.0.1", "x-real-ip: 127.0.0.1", "host: localhost"] {
        assert!(head.contains(&format!("\r\n{field}\r\n")), "{head}");
    }
    daemon.stop();
}

fn a_socket_that_is_removed_and_comes_back(driver: Driver) {
    let folder = folder();
    let path = folder.0.join("app.sock");
    let backend = UnixBackend::start(&path, "first");
    let pool = format!(
        "[[backend_pools]]\nname = \"app\"\nretries = 0\naddresses = [\"unix:{}\"]\n\
         health_config = {{ check_every = \"200ms\", timeout = 5000, slow_threshold = 0, ramp_up = 0 }}\n",
        path.display()
    );
    let daemon = start(driver, "", &pool);
    let mut client = Client::to(daemon.address());
    assert_eq!(client.get("/").map(|r| r.text()), Ok("first".into()));
    drop(backend);
    std::fs::remove_file(&path).expect("its file");
    let label = format!("pool app: backend unix:{} is ", path.display());
    let seen = daemon.wait_for(&format!("{label}unhealthy ("));
    assert!(seen.contains(": connect_no_socket), 0 of 1 backends usable, pool empty"), "{seen}");
    let response = client.get("/").expect("a response");
    assert!(matches!(response.status, 502 | 503), "{response:?}");
    // Whether a check has failed by now or only requests have: once one has, nobody is sent there.
    let begun = Instant::now();
    while client.get("/").expect("a response").field("Proxy-Status")
        != Some("rust-strom; error=destination_unavailable; details=\"no_backend\"")
    {
        assert!(begun.elapsed() < WAIT, "{}", daemon.output());
        std::thread::sleep(Duration::from_millis(20));
    }
    let _backend = UnixBackend::start(&path, "second");
    let healthy = || daemon.output().matches(&format!("{label}healthy (check: HTTP 200")).count();
    let begun = Instant::now();
    while healthy() < 2 {
        assert!(begun.elapsed() < WAIT, "{}", daemon.output());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.get("/").map(|r| r.text()), Ok("second".into()), "{}", daemon.output());
    daemon.stop();
}

fn each_reason_to_take_no_connection_has_its_cause(driver: Driver) {
    let folder = folder();
    let path = folder.0.join("app.sock");
    // Root may connect to every socket: the process becomes somebody else then.
    let top = if rustix::process::geteuid().is_root() { "user = \"nobody\"" } else { "" };
    let daemon = start(driver, top, &unchecked(&path));
    let address = daemon.address();
    let ask = || {
        let begun = Instant::now();
        let response = Client::to(address).get("/").expect("a response");
        assert!(begun.elapsed() < Duration::from_secs(5), "it fails at once: {:?}", begun.elapsed());
        (response.status, response.text())
    };
    let fails = |cause: &str| {
        assert_eq!(ask(), (502, format!("502 Bad Gateway: {cause}\n")), "{}", daemon.output());
        daemon.wait_for(&format!("cause={cause} tried=[unix:{}:{cause}] ", path.display()));
    };
    let works = |mode: u32, body: &str| {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("ours");
        assert_eq!(ask(), (200, body.to_owned()), "{}", daemon.output());
    };
    fails("connect_no_socket");
    let backend = UnixBackend::start(&path, "a");
    works(0o777, "a");
    drop(backend);
    fails("connect_refused");
    std::fs::remove_file(&path).expect("its file");
    let backend = UnixBackend::start(&path, "b");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).expect("ours");
    fails("connect_denied");
    works(0o777, "b");
    drop(backend);
    std::fs::remove_file(&path).expect("its file");
    // Nobody accepts, and its queue is full.
    let slow = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    rustix::net::bind(&slow, &SocketAddrUnix::new(&path).expect("short")).expect("bound");
    rustix::net::listen(&slow, 0).expect("listens");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("ours");
    let waiting = UnixStream::connect(&path).expect("room for one");
    fails("connect_backlog_full");
    drop(waiting);
    let _backend = UnixBackend::over(UnixListener::from(slow), &path, "c");
    let begun = Instant::now();
    // Until it has accepted those that waited.
    while ask().0 != 200 {
        assert!(begun.elapsed() < WAIT, "{}", daemon.output());
        std::thread::sleep(Duration::from_millis(10));
    }
    works(0o777, "c");
    daemon.stop();
}

/// More than any buffer on the way: writes are short, and reads would block.
fn a_response_of_many_bytes_comes_whole(driver: Driver) {
    let folder = folder();
    let path = folder.0.join("app.sock");
    let body: String = (0..400_000).map(|n| format!("{n:07}\n")).collect();
    let _backend = UnixBackend::start(&path, &body);
    let daemon = start(driver, "", &unchecked(&path));
    let mut client = Client::to(daemon.address());
    for _ in 0..3 {
        let response = client.get("/").expect("a response");
        assert_eq!(response.status, 200);
        assert!(response.text() == body, "{} bytes of {}", response.body.len(), body.len());
    }
    daemon.stop();
}
