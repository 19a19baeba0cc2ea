//! What a process has found out goes along in an upgrade: windows of limits, and the health of backends.
//! Programs that know nothing of that are replaced all the same, and take the place of others.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;

use crate::address::reserve;
use crate::client::{Client, WAIT, connect_from};
use crate::daemon::{Daemon, TempDir};
use crate::scripted_backend::{Backend, ok};
use crate::succession::Succession;

on_each_driver!(
    a_used_limit_stays_used,
    what_comes_while_the_new_one_starts_counts_too,
    an_ill_backend_is_not_tried,
    a_broken_circuit_stays_broken,
    after_a_process_that_passes_nothing,
);

const LIMIT: &str = "[backend_pools.middlewares.RateLimiter]\nlimit = 20\nwindow_sec = 600\n";

fn config(addresses: &[SocketAddr], more: &str) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n[[backend_pools]]\nname = \"web\"\n\
         addresses = {addresses:?}\n{more}"
    )
}

/// How many of `n` requests from this address are answered with 200; the others with 429.
fn admitted(from: &str, to: SocketAddr, n: usize) -> usize {
    let get = || {
        let from = from.parse().expect("an address");
        Client::over(connect_from(from, to)).get("/").expect("a response").status
    };
    let statuses: Vec<_> = (0..n).map(|_| get()).collect();
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

fn a_used_limit_stays_used(driver: &str) {
    let backend = Backend::good("here");
    let arguments = ["--driver", driver, "--workers", "2"];
    let mut succession = Succession::start(&config(&[backend.address], LIMIT), &arguments);
    let address = succession.address();
    assert_eq!(admitted("127.0.0.1", address, 25), 20);
    assert_eq!(admitted("127.0.0.2", address, 5), 5);
    for nth in 0..2 {
        succession.upgrade();
        succession.wait_for_the_old();
        assert_eq!(admitted("127.0.0.1", address, 10), 0, "of 20, after upgrade {nth}");
        assert_eq!(admitted("127.0.0.2", address, 5), 5, "of 15 and 10, after upgrade {nth}");
        succession.wait_for_nth("what 2 clients of RateLimiter had", nth);
    }
    assert_eq!(admitted("127.0.0.2", address, 30), 5);
    assert_eq!(admitted("127.0.0.3", address, 30), 20, "another client has a window of its own");
    let output = succession.daemon.output();
    assert!(!output.contains("cannot be used"), "{output}");
    succession.stop();
}

/// Most of what goes along does so when the new process starts; it takes a while until that is ready.
fn what_comes_while_the_new_one_starts_counts_too(driver: &str) {
    let backend = Backend::start(|mut peer| {
        while let Some(head) = peer.request() {
            if head.starts_with("get /slow ") {
                std::thread::sleep(Duration::from_millis(4_000));
            }
            if !peer.send(ok("here")) {
                return;
            }
        }
    });
    let checks = "[backend_pools.health_config]\npath = \"/slow\"\ntimeout = 15000\nslow_threshold = 0\n";
    let config = config(&[backend.address], &format!("{checks}{LIMIT}"));
    let mut succession = Succession::start(&config, &["--driver", driver, "--workers", "2"]);
    let address = succession.address();
    assert_eq!(admitted("127.0.0.1", address, 25), 20);
    assert_eq!(admitted("127.0.0.2", address, 5), 5);
    // So long that only the first time that it goes along it has these in it.
    std::thread::sleep(Duration::from_millis(1_200));
    succession.signal(Signal::USR2);
    succession.wait_for_nth("what 2 clients of RateLimiter had", 0);
    assert_eq!(admitted("127.0.0.2", address, 5), 5);
    assert_eq!(admitted("127.0.0.3", address, 25), 20);
    assert_eq!(succession.daemon.output().matches("upgraded: process").count(), 0, "too slow to tell");
    succession.is_upgraded();
    succession.wait_for_the_old();
    assert_eq!(admitted("127.0.0.1", address, 5), 0);
    assert_eq!(admitted("127.0.0.2", address, 25), 10);
    assert_eq!(admitted("127.0.0.3", address, 5), 0);
    succession.wait_for_nth("what 2 clients of RateLimiter had", 1);
    succession.stop();
}

/// Its first check is good, and one is not enough.
fn an_ill_backend_is_not_tried(driver: &str) {
    let is_well = Arc::new(AtomicBool::new(false));
    let (good, well) = (Backend::good("good"), is_well.clone());
    let ill = Backend::start(move |mut peer| {
        let answer = |well: bool| if well { ok("ill") } else { ok("ill").replace("200 OK", "500 No") };
        while peer.request().is_some() && peer.send(answer(well.load(Ordering::SeqCst))) {}
    });
    let checks = "[backend_pools.health_config]\ncheck_every = 3600\nrise = 2\n\
                  timeout = 5000\nslow_threshold = 0\n";
    let config = config(&[good.address, ill.address], checks);
    let mut succession = Succession::start(&config, &["--driver", driver]);
    let address = succession.address();
    succession.daemon.wait_for("is unhealthy (check: HTTP 500)");
    is_well.store(true, Ordering::SeqCst);
    succession.upgrade();
    succession.wait_for_the_old();
    let mut client = Client::to(address);
    for nth in 0..20 {
        assert_eq!(client.get("/").expect("a response").text(), "good", "{nth}");
    }
    assert_eq!(ill.stats.requests.load(Ordering::SeqCst), 2, "the first check of each process");
    drop(client);
    succession.wait_for_nth("the health of 2 backends, 1 unhealthy", 0);
    // The next one's check is the second good one in a row.
    succession.upgrade();
    succession.wait_for_nth("is healthy", 0);
    succession.stop();
}

/// Without checks it is requests that find out, one at a time and ever more seldom.
fn a_broken_circuit_stays_broken(driver: &str) {
    let (good, away) = (Backend::good("good"), reserve());
    let checks = "[backend_pools.health_config]\ncheck_every = 0\nramp_up = 0\n";
    let mut succession = Succession::start(&config(&[good.address, away], checks), &["--driver", driver]);
    let address = succession.address();
    let get = || {
        let response = Client::to(address).get("/").expect("a response");
        assert_eq!(response.status, 200);
        response.text()
    };
    let begun = Instant::now();
    // Two attempts after about one and three seconds: the third comes after seven.
    while begun.elapsed() < Duration::from_millis(3_700) {
        get();
        std::thread::sleep(Duration::from_millis(10));
    }
    succession.daemon.wait_for("is unhealthy");
    let listener = TcpListener::bind(away).expect("nobody else has it");
    let back = Backend::on(listener, |mut peer| while peer.request().is_some() && peer.send(ok("back")) {});
    succession.upgrade();
    // On a machine that is so slow that the third may be due nothing can be told.
    let is_early = || begun.elapsed() < Duration::from_millis(6_000);
    for _ in 0..20 {
        assert!(get() == "good" || !is_early());
    }
    let tried = back.stats.connections.load(Ordering::SeqCst);
    assert!(tried == 0 || !is_early(), "it has been tried");
    // When the pause is over it is.
    while get() != "back" {
        assert!(begun.elapsed() < WAIT, "it is not tried: {}", succession.daemon.output());
        std::thread::sleep(Duration::from_millis(10));
    }
    succession.stop();
}

/// One that speaks as programs did before there was anything to pass.
const OLDER: &str = r#"#!/usr/bin/env python3
import array, json, select, socket, struct
link = socket.socket(fileno=0)
def read(n):
    got = b""
    while len(got) < n:
        got += link.recv(n - len(got)) or exit("gone")
    return got
hear = lambda: json.loads(read(struct.unpack(">I", read(4))[0]))
def say(what):
    text = json.dumps(what).encode()
    link.sendall(struct.pack(">I", len(text)) + text)
estate = hear()
assert sorted(estate) == ["access_log", "listeners"], estate
_, [(_, _, passed)], _, _ = link.recvmsg(1, 1024)
sockets = array.array("i", passed)
assert len(sockets) == len(estate["listeners"]) == 1, estate
say("Ready")
assert hear() == "Go"
say("Serving")
# What is set for this socket is set for the old process, too: it must not wait in accept.
listener = socket.socket(fileno=sockets[0])
listener.settimeout(0)
while True:
    select.select([listener], [], [])
    try:
        client, _ = listener.accept()
    except BlockingIOError:
        continue
    client.settimeout(20)
    client.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nolder")
    client.close()
"#;

#[test]
fn a_program_that_takes_nothing_takes_the_place() {
    let backend = Backend::good("here");
    let folder = TempDir::new("program");
    let link = folder.0.join("rust-strom");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rust-strom"), &link).expect("a link");
    let config = config(&[backend.address], LIMIT);
    let mut succession = Succession::start_program(link.clone(), &config, &["--workers", "1"]);
    let address = succession.address();
    assert_eq!(admitted("127.0.0.1", address, 25), 20);
    let older = folder.write("older", OLDER);
    std::fs::set_permissions(&older, PermissionsExt::from_mode(0o755)).expect("ours");
    std::fs::remove_file(&link).expect("there");
    std::os::unix::fs::symlink(older, link).expect("a link");
    succession.upgrade();
    succession.wait_for_the_old();
    assert_eq!(Client::to(address).get("/").expect("a response").text(), "older");
}

/// What the old process of an upgrade says, and what it passes.
struct Older {
    link: UnixStream,
    daemon: Daemon,
    address: SocketAddr,
}

impl Older {
    /// Starts a process that is to take its place.
    fn start(driver: &str, config: &str, with_estate: Option<&OwnedFd>) -> Self {
        let (link, theirs) = UnixStream::pair().expect("sockets");
        link.set_read_timeout(Some(WAIT)).expect("a socket");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        listener.set_nonblocking(true).expect("a socket");
        let config = config.replace("127.0.0.1:0", &address.to_string());
        let program = env!("CARGO_BIN_EXE_rust-strom");
        let daemon =
            Daemon::start_program(program, &config, &["--driver", driver, "--workers", "1"], |command, _| {
                command.stdin(OwnedFd::from(theirs)).env("RUST_STROM_UPGRADE", "stdin");
            });
        let mut older = Self { link, daemon, address };
        older.say(r#"{"listeners":["http"],"access_log":null}"#, with_estate);
        older.send(b".", Some(listener.as_fd()));
        older
    }

    fn send(&mut self, bytes: &[u8], with: Option<BorrowedFd<'_>>) {
        let Some(with) = with else { return self.link.write_all(bytes).expect("sent") };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let with = [with];
        assert!(control.push(SendAncillaryMessage::ScmRights(&with)));
        let sent = sendmsg(&self.link, &[IoSlice::new(bytes)], &mut control, SendFlags::empty());
        assert_eq!(sent.expect("sent"), bytes.len());
    }

    fn say(&mut self, text: &str, with: Option<&OwnedFd>) {
        let bytes = [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
        self.send(&bytes, with.map(AsFd::as_fd));
    }

    fn hear(&mut self) -> String {
        let mut length = [0; 4];
        self.link.read_exact(&mut length).expect("said");
        let mut text = vec![0; u32::from_be_bytes(length) as usize];
        self.link.read_exact(&mut text).expect("said");
        String::from_utf8(text).expect("text")
    }
}

fn after_a_process_that_passes_nothing(driver: &str) {
    let backend = Backend::good("here");
    let config = config(&[backend.address], LIMIT);
    let memory = |bytes: &[u8]| {
        let memory = memfd_create("x", MemfdFlags::CLOEXEC).expect("memory");
        File::from(memory.try_clone().expect("a descriptor")).write_all(bytes).expect("room");
        memory
    };
    // Nothing, or what means nothing.
    let cases =
        [None, Some(memory(b"")), Some(memory(&[7; 5_000])), Some(File::open("/").expect("/").into())];
    for passed in &cases {
        let mut older = Older::start(driver, &config, passed.as_ref());
        assert_eq!(older.hear(), "\"Ready\"");
        older.say("\"Go\"", passed.as_ref());
        assert_eq!(older.hear(), "\"Serving\"");
        assert_eq!(admitted("127.0.0.1", older.address, 25), 20);
        let told = || older.daemon.output().matches("has found out cannot be used: ").count();
        let (begun, expected) = (Instant::now(), if passed.is_some() { 2 } else { 0 });
        while told() < expected && begun.elapsed() < WAIT {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(told(), expected, "{}", older.daemon.output());
        older.daemon.stop();
    }
}

/// What goes along, and how: memory that nobody can change any more.
#[test]
fn nothing_is_left_open() {
    let backend = Backend::good("here");
    let mut succession = Succession::start(&config(&[backend.address], LIMIT), &[]);
    assert_eq!(admitted("127.0.0.1", succession.address(), 3), 3);
    succession.upgrade();
    succession.wait_for_the_old();
    let folder = format!("/proc/{}/fd", succession.serving().as_raw_nonzero());
    let open = std::fs::read_dir(folder).expect("it runs");
    let targets: Vec<_> = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()).collect();
    assert!(targets.iter().all(|target| !target.to_string_lossy().contains("memfd")), "{targets:?}");
    succession.signal(Signal::HUP);
    succession.wait_for_nth("it says the same", 0);
    assert_eq!(admitted("127.0.0.1", succession.address(), 30), 17, "a reload changes nothing of it");
    succession.stop();
}
