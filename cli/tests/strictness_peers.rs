//! RustStrom is at least as strict as HAProxy and nginx: every request of the corpus goes through both, in
//! front of a backend that counts bytes. What either of them rejects without having sent a byte to the
//! backend, RustStrom has to reject too, or the case has a `right` line with the clause that says why
//! forwarding is right.

#[path = "support/address.rs"]
mod address;
#[allow(dead_code, reason = "only the requests of the corpus matter here")]
#[path = "../../core/tests/corpus/format.rs"]
mod format;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use format::{Case, Side, Step, Verdict};

/// Cases in parallel through each proxy: each lane has a listener and a backend of its own.
const LANES: usize = 12;
/// A proxy that sends nothing for this long waits for more of the request.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(400);

/// The backend of one lane: responds to whatever looks like a complete head, and counts every byte.
struct Backend {
    address: SocketAddr,
    /// Bytes received so far.
    received: Arc<AtomicUsize>,
    /// Connections open now.
    open: Arc<AtomicUsize>,
}

impl Backend {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (received, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (received_by, open_by) = (received.clone(), open.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (received, open) = (received_by.clone(), open_by.clone());
                open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    respond(stream, &received);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, received, open }
    }
}

fn respond(mut stream: TcpStream, received: &AtomicUsize) {
    let mut all = Vec::new();
    let mut buf = [0; 4096];
    stream.set_read_timeout(Some(2 * RESPONSE_TIMEOUT)).expect("a timeout");
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        received.fetch_add(n, Ordering::SeqCst);
        all.extend_from_slice(&buf[..n]);
        if all.windows(4).any(|w| w == b"\r\n\r\n") {
            // The proxy may have closed the connection already.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            let _ = stream.shutdown(Shutdown::Write);
            stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        }
    }
}

/// A running HAProxy or nginx, stopped when dropped.
struct Peer {
    name: &'static str,
    child: Child,
    folder: PathBuf,
    lanes: Vec<(SocketAddr, Backend)>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = places.map(|p| p.join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed; the test needs it (apt-get install {name})"))
}

impl Peer {
    fn start(
        name: &'static str,
        config: impl Fn(&Path, &[(SocketAddr, Backend)]) -> String,
        arguments: &[&str],
    ) -> Self {
        let folder = std::env::temp_dir().join(format!("strictness-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for its files");
        let lanes: Vec<_> = (0..LANES).map(|_| (address::reserve(), Backend::start())).collect();
        let file = folder.join("config");
        std::fs::write(&file, config(&folder, &lanes)).expect("its configuration");
        let mut command = Command::new(program(name));
        for argument in arguments {
            command.arg(argument.replace("FOLDER", &folder.to_string_lossy()));
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut peer = Self { name, child: child.unwrap_or_else(|e| panic!("{name}: {e}")), folder, lanes };
        let until = Instant::now() + Duration::from_secs(10);
        while peer.lanes.iter().any(|(a, _)| TcpStream::connect(a).is_err()) {
            let gone = peer.child.try_wait().expect("its state");
            assert!(gone.is_none() && Instant::now() < until, "{name} does not start: {gone:?}");
            thread::sleep(Duration::from_millis(20));
        }
        peer
    }

    fn haproxy() -> Self {
        Self::start("haproxy", haproxy_config, &["-db", "-f", "FOLDER/config"])
    }

    fn nginx() -> Self {
        Self::start("nginx", nginx_config, &["-p", "FOLDER", "-e", "FOLDER/errors", "-c", "FOLDER/config"])
    }
}

fn haproxy_config(_folder: &Path, lanes: &[(SocketAddr, Backend)]) -> String {
    let mut all = "global\n  maxconn 1000\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 2s\n  timeout server 2s\n  \
                   timeout http-request 300ms\n  timeout http-keep-alive 300ms\n"
        .to_owned();
    for (n, (front, backend)) in lanes.iter().enumerate() {
        all += &format!("listen lane{n}\n  bind {front}\n  server backend {}\n", backend.address);
    }
    all
}

fn nginx_config(folder: &Path, lanes: &[(SocketAddr, Backend)]) -> String {
    let folder = folder.display();
    let mut all = format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/errors;\nevents {{ worker_connections 1000; }}\nhttp {{\n  \
         access_log off;\n  client_header_timeout 1s;\n  client_body_timeout 1s;\n  proxy_http_version 1.1;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        all += &format!("  {kind}_temp_path {folder}/{kind};\n");
    }
    for (front, backend) in lanes {
        all += &format!(
            "  server {{ listen {front}; location / {{ proxy_pass http://{}; }} }}\n",
            backend.address
        );
    }
    all + "}\n"
}

/// The variants of a case (its `or` lines): for each the blocks of bytes that its first client sends, in
/// order.
fn variants(case: &Case) -> Vec<Vec<Vec<u8>>> {
    let blocks: Vec<&Vec<Vec<u8>>> = case
        .steps
        .iter()
        .filter_map(|s| match s {
            Step::Send(Side::Client(1), all) => Some(all),
            _ => None,
        })
        .collect();
    let count = blocks.iter().map(|all| all.len()).max().unwrap_or(0);
    (0..count).map(|n| blocks.iter().map(|all| all[n.min(all.len() - 1)].clone()).collect()).collect()
}

/// The status with which the proxy rejected the request, if it did and its backend received nothing.
/// Being too slow once is this machine, which is asked again; a verdict comes each time.
fn rejection(front: SocketAddr, backend: &Backend, blocks: &[Vec<u8>]) -> Option<u16> {
    for _ in 0..2 {
        let status = rejection_once(front, backend, blocks);
        if !matches!(status, Some(408 | 503 | 504)) {
            return status;
        }
    }
    rejection_once(front, backend, blocks)
}

fn rejection_once(front: SocketAddr, backend: &Backend, blocks: &[Vec<u8>]) -> Option<u16> {
    let before = backend.received.load(Ordering::SeqCst);
    let mut stream = TcpStream::connect(front).expect("the peer accepts");
    stream.set_nodelay(true).expect("no delay");
    let mut got = Vec::new();
    for (n, block) in blocks.iter().enumerate() {
        // A proxy that has rejected the request already may have closed the connection.
        if stream.write_all(block).is_err() {
            break;
        }
        let last = n + 1 == blocks.len();
        stream
            .set_read_timeout(Some(if last { RESPONSE_TIMEOUT } else { RESPONSE_TIMEOUT / 8 }))
            .expect("a timeout");
        let mut buf = [0; 4096];
        match stream.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => got.extend_from_slice(&buf[..n]),
            Err(_) => {}
        }
        if !got.is_empty() {
            break;
        }
    }
    drop(stream);
    // Wait until the backend has received everything that this case may have caused.
    let until = Instant::now() + Duration::from_secs(3);
    while backend.open.load(Ordering::SeqCst) > 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    let status: u16 =
        got.strip_prefix(b"HTTP/1.")?.get(2..5).and_then(|s| std::str::from_utf8(s).ok())?.parse().ok()?;
    (status >= 400 && backend.received.load(Ordering::SeqCst) == before).then_some(status)
}

/// Whether RustStrom forwards anything of a case.
fn is_forwarded(case: &Case) -> bool {
    case.verdict == Verdict::Forward
        && case.steps.iter().any(|s| matches!(s, Step::Receive(Side::Backend(_), _)))
}

/// Messages about what the proxy rejects and RustStrom forwards, how many requests were sent, and how many of
/// them the proxy rejected.
fn compare(peer: &Peer, cases: &[Case]) -> (Vec<String>, usize, usize) {
    let next = AtomicUsize::new(0);
    let results: Vec<(Vec<String>, usize, usize)> = thread::scope(|scope| {
        let lanes: Vec<_> = peer
            .lanes
            .iter()
            .map(|(front, backend)| {
                let next = &next;
                scope.spawn(move || {
                    let (mut mismatches, mut sent, mut rejections) = (Vec::new(), 0, 0);
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                        for (n, blocks) in variants(case).iter().enumerate() {
                            sent += 1;
                            let Some(status) = rejection(*front, backend, blocks) else { continue };
                            rejections += 1;
                            if is_forwarded(case) && case.right.is_none() {
                                mismatches.push(format!(
                                    "{} ({}), variant {}: {} responds with {status}, RustStrom forwards it ({}: {})",
                                    case.name,
                                    case.place,
                                    n + 1,
                                    peer.name,
                                    case.clause,
                                    case.rule
                                ));
                            }
                        }
                    }
                    (mismatches, sent, rejections)
                })
            })
            .collect();
        lanes.into_iter().map(|l| l.join().expect("no panic")).collect()
    });
    results.into_iter().fold((Vec::new(), 0, 0), |(mut mismatches, sent, rejections), lane| {
        mismatches.extend(lane.0);
        (mismatches, sent + lane.1, rejections + lane.2)
    })
}

#[test]
fn what_haproxy_or_nginx_rejects_is_rejected() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/h1/requests");
    let cases = format::read_folder(&folder);
    let (haproxy, nginx) = (Peer::haproxy(), Peer::nginx());
    let (mut mismatches, mut rejections) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        for run in [&haproxy, &nginx].map(|peer| scope.spawn(|| compare(peer, &cases))) {
            let (of_peer, sent, rejected) = run.join().expect("no panic");
            mismatches.extend(of_peer);
            assert!(sent >= cases.len(), "every case was sent");
            rejections.push(rejected);
        }
    });
    mismatches.sort();
    assert!(
        mismatches.is_empty(),
        "{} requests of the corpus are rejected by a peer and not by RustStrom:\n{}",
        mismatches.len(),
        mismatches.join("\n")
    );
    // The comparison means something: both reject many requests.
    assert!(rejections.iter().all(|&n| n > 100), "the peers rejected {rejections:?} requests");
}
