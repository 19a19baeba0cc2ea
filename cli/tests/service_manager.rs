//! What a service manager passes, and what it is told.

#[path = "support/on_each_driver.rs"]
#[macro_use]
mod on_each_driver;

#[path = "support/address.rs"]
mod address;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "process.rs uses the rest")]
mod daemon;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod scripted_backend;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Signal, getpid, set_child_subreaper};
use rustix::time::{ClockId, clock_gettime};

use client::{Client, WAIT};
use daemon::{Daemon, TempDir};
use scripted_backend::Backend;

on_each_driver!(it_is_told, sockets_of_the_manager_are_used);

const PROGRAM: &str = env!("CARGO_BIN_EXE_rust-strom");

fn config(http: &str, backends: &[SocketAddr], more: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    format!(
        "http_address = \"{http}\"\nmetrics_address = false\n{more}\n[[backend_pools]]\naddresses = [{}]\n\
         [backend_pools.health_config]\npath = \"/health\"\ncheck_every = \"1s\"\n\
         timeout = 5000\nslow_threshold = 0\n",
        backends.join(", ")
    )
}

/// A service manager's socket.
struct Manager {
    socket: UnixDatagram,
    _folder: TempDir,
    name: String,
}

impl Manager {
    /// With a name in a folder.
    fn new() -> Self {
        let folder = TempDir::new("notify");
        let path = folder.0.join("socket");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self::of(socket, folder, path.to_str().expect("a name").to_owned())
    }

    #[cfg(target_os = "linux")]
    fn with_abstract_name() -> Self {
        use std::os::linux::net::SocketAddrExt;
        let folder = TempDir::new("notify");
        let name = folder.0.to_str().expect("a name").to_owned();
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Self::of(socket, folder, format!("@{name}"))
    }

    fn of(socket: UnixDatagram, folder: TempDir, name: String) -> Self {
        socket.set_read_timeout(Some(WAIT)).expect("a socket");
        Self { socket, _folder: folder, name }
    }

    /// The next message, signs of life left out.
    fn next(&self) -> String {
        let begun = std::time::Instant::now();
        loop {
            assert!(begun.elapsed() < WAIT, "only signs of life");
            let text = self.any();
            if text != "WATCHDOG=1" {
                return text;
            }
        }
    }

    fn any(&self) -> String {
        let mut bytes = [0; 512];
        let n = self.socket.recv(&mut bytes).expect("a message in time");
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }
}

fn start(driver: &str, manager: &Manager, text: &str, variables: &[(&str, &str)]) -> Daemon {
    Daemon::start_program(PROGRAM, text, &["--driver", driver, "--workers", "2"], |command, _| {
        command.env("NOTIFY_SOCKET", &manager.name).envs(variables.iter().copied());
    })
}

fn now_usec() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

fn it_is_told(driver: &str) {
    let (good, gone) = (Backend::good("here"), Backend::refusing());
    let manager = if driver == "mio" { Manager::new() } else { Manager::with_abstract_name() };
    // The watcher reads nothing before HUP comes.
    let text = config("127.0.0.1:0", &[good.address, gone], "watch = false");
    let mut daemon = start(driver, &manager, &text, &[("WATCHDOG_USEC", "600000")]);
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving 1 pool, 1 of 2 backends usable");
    // Nothing happens, and the workers live.
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        assert_eq!(manager.any(), "WATCHDOG=1");
    }
    assert!(begun.elapsed() < WAIT);
    // A reload, good or bad, ends with the word that all is well.
    let mut words = String::new();
    for text in [&config("127.0.0.1:0", &[good.address], "watch = false"), "{", &text] {
        let before = now_usec();
        daemon.directory.write("config.toml", text);
        daemon.signal(Signal::HUP);
        let reloading = manager.next();
        let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|usec| usec.parse().ok());
        assert!(at.is_some_and(|at| (before..=now_usec()).contains(&at)), "{reloading}");
        words = manager.next();
        assert!(words.starts_with("READY=1\nSTATUS=serving 1 pool, "), "{words}");
    }
    // The new backend is found to be away, perhaps before the reload is over.
    while !words.ends_with("STATUS=serving 1 pool, 1 of 2 backends usable") {
        words = manager.next();
        assert!(words.starts_with("STATUS="), "{words}");
    }
    daemon.signal(Signal::TERM);
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping: what runs is finished");
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.output());
}

/// In an upgrade the old process says who is the main one, and then nothing more.
#[test]
fn it_is_told_of_an_upgrade() {
    set_child_subreaper(Some(getpid())).expect("a subreaper");
    let backend = Backend::good("here");
    let manager = Manager::new();
    // The time is for the process that is named.
    let mut daemon = start("mio", &manager, &config("127.0.0.1:0", &[backend.address], ""), &[]);
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving 1 pool, 1 of 1 backend usable");
    daemon.signal(Signal::USR2);
    let words = manager.next();
    let id = words.strip_prefix("MAINPID=").and_then(|id| id.parse().ok()).expect("an id");
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving 1 pool, 1 of 1 backend usable");
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.output());
    let id = rustix::process::Pid::from_raw(id).expect("an id");
    rustix::process::kill_process(id, Signal::TERM).expect("it runs");
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping: what runs is finished");
    let (_, status) = rustix::process::waitpid(Some(id), rustix::process::WaitOptions::empty())
        .expect("our child")
        .expect("it ends");
    assert_eq!(status.exit_status(), Some(0), "{}", daemon.output());
}

/// Nothing that is wrong with the manager's socket, or its variables, is felt by anybody else.
#[test]
fn a_manager_that_is_not_there() {
    let backend = Backend::good("here");
    for (name, watchdog) in
        [("/nowhere/socket", "1000000"), ("relative", "x"), ("@", "0"), ("vsock:2:1", "-1")]
    {
        let text = config("127.0.0.1:0", &[backend.address], "");
        let daemon = Daemon::start_program(PROGRAM, &text, &[], |command, _| {
            command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", watchdog);
        });
        assert_eq!(Client::to(daemon.address()).get("/").expect("a response").text(), "here");
        daemon.stop();
    }
}

/// A command that runs the program with these sockets as descriptors 3 and 4; `pid` is what `LISTEN_PID`
/// says.
fn activated(folder: &Path, text: &str, arguments: &str, sockets: [OwnedFd; 2], pid: &str) -> Command {
    let file = folder.join("config.toml");
    std::fs::write(&file, text).expect("written");
    let script = format!(
        "exec 3<&0 4>&1 0</dev/null 1>&2; export LISTEN_PID={pid} LISTEN_FDS=2 LISTEN_FDNAMES=web:other; \
         exec \"$0\" --config \"$1\" {arguments}"
    );
    let [first, second] = sockets;
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(PROGRAM).arg(file).env_remove("RUST_LOG");
    command.stdin(Stdio::from(first)).stdout(Stdio::from(second)).stderr(Stdio::piped());
    command
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address::reserve()).expect("free");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// Who connected before the process was there is served; reloads keep the socket, an upgrade hands it on.
fn sockets_of_the_manager_are_used(driver: &str) {
    set_child_subreaper(Some(getpid())).expect("a subreaper");
    let backend = Backend::good("here");
    let (ours, address) = listener();
    let (unused, other) = listener();
    let mut early = Client::to(address);
    early.send("GET /early HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let folder = TempDir::new("activated");
    let text = config(&address.to_string(), &[backend.address], "");
    // The manager keeps its own, as systemd does.
    let kept = ours.try_clone().expect("a descriptor");
    let arguments = format!("--driver {driver} --workers 3");
    let sockets = [OwnedFd::from(ours), unused.into()];
    let command = activated(&folder.0, &text, &arguments, sockets, "$$");
    let mut daemon = Daemon::run(command, folder);
    assert_eq!(early.response(false).expect("a response").text(), "here");
    daemon.wait_for(&format!(
        "nothing of the configuration listens on {other}: that socket of LISTEN_FDS is closed"
    ));
    assert!(TcpStream::connect(other).is_err(), "closed");
    let ask = || {
        for _ in 0..30 {
            assert_eq!(Client::to(address).get("/").expect("a response").text(), "here");
        }
    };
    ask();
    daemon.signal(Signal::HUP);
    daemon.wait_for("it says the same");
    ask();
    daemon.directory.write("config.toml", text.replace("check_every = \"1s\"", "check_every = \"2s\""));
    daemon.signal(Signal::HUP);
    daemon.wait_for("~pool-1 (health)");
    ask();
    daemon.signal(Signal::USR2);
    let line = daemon.wait_for("upgraded: process ");
    let id = line.split(' ').next().and_then(|id| id.parse().ok()).and_then(rustix::process::Pid::from_raw);
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.output());
    ask();
    // The variables are for one process.
    let id = id.expect("an id");
    let environment = std::fs::read(format!("/proc/{}/environ", id.as_raw_nonzero())).expect("it runs");
    assert!(!String::from_utf8_lossy(&environment).contains("LISTEN_"));
    rustix::process::kill_process(id, Signal::TERM).expect("it runs");
    let ended = rustix::process::waitpid(Some(id), rustix::process::WaitOptions::empty());
    assert_eq!(ended.expect("our child").expect("it ends").1.exit_status(), Some(0), "{}", daemon.output());
    // Whoever comes now waits in the manager's socket for the next start.
    let _next = TcpStream::connect(address).expect("it listens");
    kept.set_nonblocking(false).expect("a socket");
    kept.accept().expect("it waits there");
}

/// Sockets that are for another process are left alone, and what does not listen is told of.
#[test]
fn sockets_for_others_and_of_other_kinds() {
    let backend = Backend::good("here");
    let (ours, address) = listener();
    let folder = TempDir::new("activated");
    let text = config("127.0.0.1:0", &[backend.address], "");
    let connected = TcpStream::connect(address).expect("it listens");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("free");
    let command = activated(&folder.0, &text, "", [connected.into(), udp.into()], "$$");
    let daemon = Daemon::run(command, folder);
    daemon.wait_for(
        "cannot use socket 3 (web) of LISTEN_FDS: it is no socket that listens for TCP connections",
    );
    daemon.wait_for("cannot use socket 4 (other) of LISTEN_FDS: ");
    assert_eq!(Client::to(daemon.address()).get("/").expect("a response").text(), "here");
    daemon.stop();

    let folder = TempDir::new("activated");
    let text = config(&address.to_string(), &[backend.address], "");
    let again = ours.try_clone().expect("a descriptor");
    let command = activated(&folder.0, &text, "", [OwnedFd::from(again), OwnedFd::from(ours)], "1");
    let mut daemon = Daemon::run(command, folder);
    assert_eq!(daemon.wait().code(), Some(1));
    daemon.wait_for("the port is taken");
}

/// `ListenStream=80` is a socket of `[::]:80`, which is not what `0.0.0.0:80` is configured for.
#[test]
fn a_socket_of_nearly_the_same_address_is_named() {
    let backend = Backend::good("here");
    let ours = TcpListener::bind("[::]:0").expect("free");
    let (unused, _) = listener();
    let address = ours.local_addr().expect("bound");
    let folder = TempDir::new("activated");
    let text = config(&format!("0.0.0.0:{}", address.port()), &[backend.address], "");
    let command = activated(&folder.0, &text, "", [ours.into(), unused.into()], "$$");
    let mut daemon = Daemon::run(command, folder);
    assert_eq!(daemon.wait().code(), Some(1));
    daemon.wait_for(&format!(
        "LISTEN_FDS has a socket of {address}: to use it, configure exactly that address"
    ));
}
