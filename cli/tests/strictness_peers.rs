//! We are at least as strict as the famous ones: every request of the corpus goes through real HAProxy and
//! real nginx in front of a recording backend. What either refuses without the backend having seen a byte, we
//! refuse too, or the case has a `right` line with the clause that says why accepting is right.

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

/// So many cases at once through each peer.
const LANES: usize = 12;
/// A peer that says nothing for so long waits for more.
const PATIENCE: Duration = Duration::from_millis(400);

/// The recording backend of one lane: answers whatever looks like a whole head, and counts every byte.
struct Backend {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Backend {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (seen, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen_by, open_by) = (seen.clone(), open.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, open) = (seen_by.clone(), open_by.clone());
                open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    response(stream, &seen);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, seen, open }
    }
}

fn response(mut stream: TcpStream, seen: &AtomicUsize) {
    let mut all = Vec::new();
    let mut buf = [0; 4096];
    stream.set_read_timeout(Some(2 * PATIENCE)).expect("a timeout");
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        seen.fetch_add(n, Ordering::SeqCst);
        all.extend_from_slice(&buf[..n]);
        if all.windows(4).any(|w| w == b"\r\n\r\n") {
            // The peer may be gone, or not like it: that is its affair.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            let _ = stream.shutdown(Shutdown::Write);
            stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        }
    }
}

/// A running proxy, stopped when dropped.
struct Peer {
    name: &'static str,
    child: Child,
    folder: PathBuf,
    lanes: Vec<(SocketAddr, Backend)>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = places.map(|p| p.join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is not installed: this test compares us with it (apt-get install {name})")
    })
}

impl Peer {
    fn start(
        name: &'static str,
        config: impl Fn(&Path, &[(SocketAddr, Backend)]) -> String,
        arguments: &[&str],
    ) -> Self {
        let folder = std::env::temp_dir().join(format!("strictness-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for its files");
        let lanes: Vec<_> = (0..LANES).map(|_| (address::lone(), Backend::start())).collect();
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

/// One way to send a case: the blocks of its first client, in order.
fn sendings(case: &Case) -> Vec<Vec<Vec<u8>>> {
    let blocks: Vec<&Vec<Vec<u8>>> = case
        .steps
        .iter()
        .filter_map(|s| match s {
            Step::Send(Side::Client(1), all) => Some(all),
            _ => None,
        })
        .collect();
    let ways = blocks.iter().map(|all| all.len()).max().unwrap_or(0);
    (0..ways).map(|w| blocks.iter().map(|all| all[w.min(all.len() - 1)].clone()).collect()).collect()
}

/// The status with which the peer refused it, if it did and its backend saw nothing.
fn refused(front: SocketAddr, backend: &Backend, blocks: &[Vec<u8>]) -> Option<u16> {
    let before = backend.seen.load(Ordering::SeqCst);
    let mut stream = TcpStream::connect(front).expect("the peer accepts");
    stream.set_nodelay(true).expect("no delay");
    let mut got = Vec::new();
    for (n, block) in blocks.iter().enumerate() {
        // A peer that has refused already may have closed.
        if stream.write_all(block).is_err() {
            break;
        }
        let last = n + 1 == blocks.len();
        stream.set_read_timeout(Some(if last { PATIENCE } else { PATIENCE / 8 })).expect("a timeout");
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
    // The backend is asked after everything that this case may have caused there.
    let until = Instant::now() + Duration::from_secs(3);
    while backend.open.load(Ordering::SeqCst) > 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    let status: u16 =
        got.strip_prefix(b"HTTP/1.")?.get(2..5).and_then(|s| std::str::from_utf8(s).ok())?.parse().ok()?;
    (status >= 400 && backend.seen.load(Ordering::SeqCst) == before).then_some(status)
}

/// Whether we forward anything of a case.
fn we_forward(case: &Case) -> bool {
    case.verdict == Verdict::Forward
        && case.steps.iter().any(|s| matches!(s, Step::Receive(Side::Backend(_), _)))
}

/// What the peer refuses of what we forward, and how many sendings it refused in all.
fn compare(peer: &Peer, cases: &[Case]) -> (Vec<String>, usize, usize) {
    let next = AtomicUsize::new(0);
    let results: Vec<(Vec<String>, usize, usize)> = thread::scope(|scope| {
        let lanes: Vec<_> = peer
            .lanes
            .iter()
            .map(|(front, backend)| {
                let next = &next;
                scope.spawn(move || {
                    let (mut told, mut sent, mut refusals) = (Vec::new(), 0, 0);
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                        for (n, blocks) in sendings(case).iter().enumerate() {
                            sent += 1;
                            let Some(status) = refused(*front, backend, blocks) else { continue };
                            refusals += 1;
                            if we_forward(case) && case.right.is_none() {
                                told.push(format!(
                                    "{} ({}), way {}: {} answers {status}; we forward it ({}: {})",
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
                    (told, sent, refusals)
                })
            })
            .collect();
        lanes.into_iter().map(|l| l.join().expect("a lane ends well")).collect()
    });
    results.into_iter().fold((Vec::new(), 0, 0), |(mut told, sent, refusals), lane| {
        told.extend(lane.0);
        (told, sent + lane.1, refusals + lane.2)
    })
}

#[test]
fn what_others_refuse_we_refuse() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/h1/requests");
    let cases = format::read_folder(&folder);
    let (haproxy, nginx) = (Peer::haproxy(), Peer::nginx());
    let (mut told, mut refusals) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        for run in [&haproxy, &nginx].map(|peer| scope.spawn(|| compare(peer, &cases))) {
            let (of_peer, sent, refused) = run.join().expect("a peer's run ends well");
            told.extend(of_peer);
            assert!(sent >= cases.len(), "every case was sent");
            refusals.push(refused);
        }
    });
    told.sort();
    assert!(
        told.is_empty(),
        "{} ways of the corpus are refused elsewhere and not here:\n{}",
        told.len(),
        told.join("\n")
    );
    // The test can fail: both do refuse, and would be believed.
    assert!(refusals.iter().all(|&n| n > 100), "the peers refused {refusals:?} ways");
}
