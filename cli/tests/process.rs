//! The built binary as a process: it serves, it stops as it should, and it stays up.

#[path = "support/address.rs"]
mod address;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const WAIT: Duration = Duration::from_secs(20);

/// A running `rust-strom` and everything it says.
struct Daemon {
    child: Child,
    said: Arc<Mutex<String>>,
    folder: PathBuf,
}

impl Daemon {
    /// With a configuration in a folder of its own, under a limit of open files if one is given.
    fn start(name: &str, config: &str, files: Option<u32>) -> Self {
        Self::start_with(name, config, files, &[])
    }

    fn start_with(name: &str, config: &str, files: Option<u32>, arguments: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("rust-strom-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let file = folder.join("config.toml");
        std::fs::write(&file, config).expect("a temporary file");
        let binary = env!("CARGO_BIN_EXE_rust-strom");
        let mut command = match files {
            None => Command::new(binary),
            Some(n) => {
                let mut c = Command::new("sh");
                c.args(["-c", &format!("ulimit -n {n} && exec \"$0\" \"$@\""), binary]);
                c
            }
        };
        command.arg("--config").arg(file).args(arguments);
        Self::spawn(command, folder)
    }

    fn demo() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
        command.args(["demo", "--workers", "2"]);
        Self::spawn(command, PathBuf::new())
    }

    fn spawn(mut command: Command, folder: PathBuf) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_LOG");
        let mut child = command.spawn().expect("it starts");
        let said = Arc::<Mutex<String>>::default();
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("piped"));
        let err: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("piped"));
        for stream in [out, err] {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut said = said.lock().expect("no panic");
                    said.push_str(&line);
                    said.push('\n');
                }
            });
        }
        Self { child, said, folder }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// The rest of the first line behind `start`, once it is there.
    fn wait_for(&self, start: &str) -> String {
        let begun = Instant::now();
        loop {
            let said = self.said();
            if let Some(rest) = said.lines().find_map(|l| l.split_once(start)) {
                return rest.1.to_owned();
            }
            assert!(begun.elapsed() < WAIT, "never said {start:?}: {said}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it listens for HTTP, once it is ready.
    fn address(&self) -> SocketAddr {
        let line = self.wait_for("listening on ");
        self.wait_for(if self.said().starts_with('{') { "\"message\":\"ready" } else { "INFO  ready" });
        line.split(' ').next().and_then(|a| a.parse().ok()).expect("an address")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(begun.elapsed() < WAIT, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.folder.file_name().is_some() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        if !std::thread::panicking() {
            assert!(!self.said().contains("panic"), "{}", self.said());
        }
    }
}

/// A backend that answers each request with its name after `delay`. A probe (`/health`) is answered at once.
fn backend(name: &'static str, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
                let mut stream = stream;
                let mut head = String::new();
                while reader.read_line(&mut head).is_ok_and(|n| n > 0) {
                    if !head.ends_with("\r\n\r\n") {
                        continue;
                    }
                    if !head.contains(" /health ") {
                        std::thread::sleep(delay);
                    }
                    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                    if stream.write_all(response.as_bytes()).is_err() {
                        return;
                    }
                    head.clear();
                }
            });
        }
    });
    address
}

fn config(backends: &[SocketAddr], more: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n{more}\n[[backend_pools]]\naddresses = [{}]\nschemes = [\"HTTP\"]\n\
         strategy = {{ RoundRobin = {{}} }}\n[backend_pools.health_config]\npath = \"/health\"\n",
        backends.join(", ")
    )
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("listening");
    stream.set_read_timeout(Some(WAIT)).expect("a socket");
    stream
}

/// One answer: its head and its body, by Content-Length.
fn response(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(
            stream.read(&mut byte).expect("in time"),
            1,
            "closed after {:?}",
            String::from_utf8_lossy(&head)
        );
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("Content-Length: "))
        .and_then(|n| n.parse().ok())
        .expect("a length");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("in time");
    (head, String::from_utf8(body).expect("text"))
}

fn get(stream: &mut TcpStream, target: &str) -> (String, String) {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).expect("sent");
    response(stream)
}

fn closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

#[test]
fn the_demo_takes_turns_over_all_workers_and_ends_on_int() {
    let mut demo = Daemon::demo();
    let said = demo.wait_for("curl http://");
    let address: SocketAddr = said.split('/').next().and_then(|a| a.parse().ok()).expect("an address");
    demo.wait_for("INFO  ready");
    let mut names = Vec::new();
    for i in 0..12 {
        // Every other request on a connection of its own, so that both workers have a part.
        let mut stream = connect(address);
        for _ in 0..1 + i % 2 {
            let (head, body) = get(&mut stream, "/hello?a=1");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            let (name, rest) = body.split_once(' ').expect("a name");
            assert_eq!(rest, "answers GET /hello?a=1\n");
            names.push(name.to_owned());
        }
    }
    for turn in names.windows(3) {
        let mut turn = turn.to_vec();
        turn.sort_unstable();
        assert_eq!(turn, ["alpha", "beta", "gamma"], "{names:?}");
    }
    assert!(demo.said().contains("http_address = \"127.0.0.1:"), "the configuration is shown");
    demo.signal(Signal::INT);
    assert_eq!(demo.end().code(), Some(0), "{}", demo.said());
}

#[test]
fn a_graceful_stop_finishes_what_runs_and_closes_what_does_not() {
    for (signal, driver) in
        [(Signal::TERM, "mio"), (Signal::TERM, "smol"), (Signal::QUIT, "mio"), (Signal::INT, "mio")]
    {
        let slow = backend("slow", Duration::from_millis(700));
        let config = config(&[slow], &format!("workers = 2\ndriver = \"{driver}\""));
        let mut daemon = Daemon::start(&format!("graceful{}{driver}", signal.as_raw()), &config, None);
        let address = daemon.address();
        let mut idle = connect(address);
        get(&mut idle, "/first");
        let mut busy = connect(address);
        busy.write_all(b"GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        std::thread::sleep(Duration::from_millis(200));
        daemon.signal(signal);
        daemon.wait_for("stopping");
        assert!(closed(&mut idle), "idle connections are closed");
        let (head, body) = response(&mut busy);
        assert_eq!(body, "slow");
        assert!(head.contains("Connection: close\r\n"), "{head}");
        assert!(closed(&mut busy));
        assert_eq!(daemon.end().code(), Some(0), "{}", daemon.said());
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }
}

#[test]
fn who_has_asked_before_a_stop_is_responded_although_clients_were_slow_to_ask() {
    for driver in ["mio", "smol"] {
        let config =
            config(&[backend("here", Duration::ZERO)], &format!("workers = 1\ndriver = \"{driver}\""));
        let mut daemon = Daemon::start(&format!("asked{driver}"), &config, None);
        let address = daemon.address();
        // Connections whose requests come a moment later: reading at once is given up.
        for _ in 0..24 {
            let mut late = connect(address);
            std::thread::sleep(Duration::from_millis(10));
            get(&mut late, "/late");
        }
        daemon.signal(Signal::STOP);
        let mut clients: Vec<_> = (0..300).map(|_| connect(address)).collect();
        for client in &mut clients {
            client.write_all(b"GET /asked HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        }
        daemon.signal(Signal::TERM);
        daemon.signal(Signal::CONT);
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(response(client).1, "here", "{driver}: client {n}");
        }
        assert_eq!(daemon.end().code(), Some(0), "{}", daemon.said());
    }
}

#[test]
fn the_deadline_and_a_second_int_cut() {
    let hangs = backend("hangs", Duration::from_secs(60));
    for (name, more, signals) in [
        ("deadline", "timeouts = { drain = \"1s\" }", &[Signal::TERM][..]),
        ("deadline-smol", "timeouts = { drain = \"1s\" }\ndriver = \"smol\"", &[Signal::TERM]),
        ("twice", "", &[Signal::INT, Signal::INT]),
        ("term-int", "", &[Signal::TERM, Signal::INT]),
    ] {
        let mut daemon = Daemon::start(name, &config(&[hangs], more), None);
        let mut busy = connect(daemon.address());
        busy.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        std::thread::sleep(Duration::from_millis(200));
        for signal in signals {
            daemon.signal(*signal);
            daemon.wait_for("stopping");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(daemon.end().code(), Some(2), "{name}: {}", daemon.said());
    }
}

#[test]
fn the_driver_is_the_files_unless_an_argument_says_otherwise() {
    let backend = backend("here", Duration::ZERO);
    // What the file says, what is said behind it, and whether smol's reactor runs then.
    for (file, argument, smol) in [
        ("", "mio", false),
        ("", "smol", true),
        ("driver = \"smol\"", "mio", false),
        ("driver = \"smol\"", "", true),
        ("", "", false),
    ] {
        let arguments: &[&str] = if argument.is_empty() { &[] } else { &["--driver", argument] };
        let daemon = Daemon::start_with("driver", &config(&[backend], file), None, arguments);
        assert_eq!(get(&mut connect(daemon.address()), "/").1, "here");
        let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.child.id()))
            .expect("it runs")
            .map_while(Result::ok);
        let names = threads.map(|t| std::fs::read_to_string(t.path().join("comm")).unwrap_or_default());
        assert_eq!(names.collect::<Vec<_>>().contains(&"async-io\n".to_owned()), smol, "{file} {argument}");
    }
}

#[test]
fn signals_that_mean_nothing_yet_do_not_kill() {
    let mut daemon = Daemon::start("hup", &config(&[backend("here", Duration::ZERO)], ""), None);
    let address = daemon.address();
    for (signal, said) in [
        (Signal::HUP, "HUP changes nothing"),
        (Signal::USR1, "USR1 and USR2"),
        (Signal::USR2, "USR1 and USR2"),
    ] {
        daemon.signal(signal);
        daemon.wait_for(said);
    }
    assert!(daemon.runs());
    assert_eq!(get(&mut connect(address), "/").1, "here");
}

#[test]
fn the_access_log_has_one_line_for_each_request() {
    let more = "access_log = { format = \"json\", path = \"access.log\" }";
    let mut daemon = Daemon::start("access", &config(&[backend("here", Duration::ZERO)], more), None);
    let mut stream = connect(daemon.address());
    for i in 0..50 {
        get(&mut stream, &format!("/n{i}"));
    }
    drop(stream);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().code(), Some(0), "{}", daemon.said());
    let log =
        std::fs::read_to_string(daemon.folder.join("access.log")).expect("in the configuration's folder");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 50, "{log}");
    for (i, line) in lines.iter().enumerate() {
        for part in [
            &format!("\"target\":\"/n{i}\"") as &str,
            "\"status\":200",
            "\"cause\":null",
            "\"bytes_out\":4",
            "\"host\":\"localhost\"",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(line.contains(&format!("\"reused\":{}", i > 0)) || i == 0, "{line}");
        assert!(line.starts_with("{\"time\":\"20") && line.ends_with('}'), "{line}");
    }
}

#[test]
fn without_descriptors_those_who_are_in_are_served_and_the_others_wait() {
    for driver in ["mio", "smol"] {
        run_out_of_descriptors(driver);
    }
}

fn run_out_of_descriptors(driver: &str) {
    let backend = backend("here", Duration::ZERO);
    let config = config(&[backend], &format!("workers = 1\ndriver = \"{driver}\""));
    let mut daemon = Daemon::start(&format!("files-{driver}"), &config, Some(128));
    let address = daemon.address();
    let mut clients: Vec<TcpStream> = (0..150).map(|_| connect(address)).collect();
    daemon.wait_for("accepting is paused");
    // Those who are in are served, over connections to the backend that still can be opened.
    for client in clients.iter_mut().take(20) {
        assert_eq!(get(client, "/").1, "here");
    }
    // Those who wait are served as the others go, and the process does not spin meanwhile.
    let before = cpu_ticks(daemon.child.id());
    std::thread::sleep(Duration::from_millis(500));
    assert!(cpu_ticks(daemon.child.id()) - before < 20, "accepting spins");
    let mut last = clients.pop().expect("150");
    last.write_all(b"GET /last HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    drop(clients);
    assert_eq!(response(&mut last).1, "here");
    assert!(daemon.runs());
    assert_eq!(daemon.said().matches("accepting is paused").count(), 1, "told once");
}

/// User and system time of a process in clock ticks (hundredths of a second).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let rest = stat.rsplit_once(')').expect("a name").1;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    words[11].parse::<u64>().expect("utime") + words[12].parse::<u64>().expect("stime")
}

#[test]
fn a_backend_that_is_gone_and_a_client_that_resets_hurt_nobody() {
    let gone = address::lone();
    let mut daemon = Daemon::start("gone", &config(&[gone, backend("here", Duration::ZERO)], ""), None);
    let address = daemon.address();
    daemon.wait_for(&format!("backend {gone} is unhealthy"));
    for _ in 0..200 {
        // Closed with the answer unread or on its way: a reset.
        let mut rude = connect(address);
        rude.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    }
    let mut polite = connect(address);
    for _ in 0..20 {
        assert_eq!(get(&mut polite, "/").1, "here");
    }
    assert!(daemon.runs());
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().code(), Some(0), "{}", daemon.said());
}
