//! The built binary as a process: it serves, stops on signals, and survives what its limits and peers do.

#[path = "support/address.rs"]
mod address;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs and peers.rs use the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "faults.rs and peers.rs use the rest")]
mod daemon;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "faults.rs and peers.rs use the rest")]
mod scripted_backend;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use client::{Client, Response};
use daemon::{Daemon, TempDir};
use scripted_backend::{Backend, ok};

/// A backend that answers each request with `body` after `delay`, and a health check at once.
fn backend(body: &'static str, delay: Duration) -> Backend {
    Backend::start(move |mut peer| {
        while let Some(head) = peer.request() {
            if !head.contains(" /health ") {
                std::thread::sleep(delay);
            }
            if !peer.send(ok(body)) {
                return;
            }
        }
    })
}

fn config(backends: &[SocketAddr], more: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n{more}\n[[backend_pools]]\naddresses = [{}]\nschemes = [\"HTTP\"]\n\
         strategy = {{ RoundRobin = {{}} }}\n[backend_pools.health_config]\npath = \"/health\"\n\
         timeout = 5000\nslow_threshold = 0\n",
        backends.join(", ")
    )
}

fn get(client: &mut Client, target: &str) -> Response {
    client.get(target).unwrap_or_else(|e| panic!("{target}: {e}"))
}

fn response(client: &mut Client) -> Response {
    client.response(false).expect("a response")
}

#[test]
fn the_demo_uses_round_robin_over_all_workers_and_stops_on_int() {
    let mut demo = Daemon::demo(&["--workers", "2"]);
    let line = demo.wait_for("curl http://");
    let address: SocketAddr = line.split('/').next().and_then(|a| a.parse().ok()).expect("an address");
    demo.wait_for("INFO  ready");
    let mut names = Vec::new();
    for i in 0..12 {
        // Many connections, so that both workers take part.
        let mut client = Client::to(address);
        for _ in 0..1 + i % 2 {
            let response = get(&mut client, "/hello?a=1");
            assert_eq!(response.status, 200, "{response:?}");
            let body = response.text();
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
    assert!(demo.output().contains("http_address = \"127.0.0.1:"), "the configuration is printed");
    demo.signal(Signal::INT);
    assert_eq!(demo.wait().code(), Some(0), "{}", demo.output());
}

#[test]
fn a_graceful_stop_finishes_requests_and_closes_idle_connections() {
    for (signal, driver) in
        [(Signal::TERM, "mio"), (Signal::TERM, "smol"), (Signal::QUIT, "mio"), (Signal::INT, "mio")]
    {
        // The response to /busy waits for the end of what happens meanwhile.
        let (came, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (comes, is_open) = (came.clone(), open.clone());
        let slow = Backend::start(move |mut peer| {
            while let Some(head) = peer.request() {
                if head.contains(" /busy ") {
                    comes.store(true, Ordering::SeqCst);
                    while !is_open.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
                if !peer.send(ok("slow")) {
                    return;
                }
            }
        });
        let config = config(&[slow.address], &format!("workers = 2\ndriver = \"{driver}\""));
        let mut daemon = Daemon::start(&config, &[]);
        let address = daemon.address();
        let mut idle = Client::to(address);
        get(&mut idle, "/first");
        let mut busy = Client::to(address);
        busy.send("GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let begun = std::time::Instant::now();
        while !came.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < client::WAIT, "{}", daemon.output());
            std::thread::sleep(Duration::from_millis(2));
        }
        daemon.signal(signal);
        daemon.wait_for("stopping");
        assert!(idle.is_closed(), "idle connections are closed");
        open.store(true, Ordering::SeqCst);
        let response = response(&mut busy);
        assert_eq!((response.text().as_str(), response.field("Connection")), ("slow", Some("close")));
        assert!(busy.is_closed());
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.output());
        assert!(TcpStream::connect(address).is_err(), "the listener is closed");
    }
}

/// A stop with a delay: `/readyz` says so from its first moment on, everybody is served until it begins, and
/// a second INT does not wait for it.
#[test]
fn a_stop_is_announced_before_it_begins() {
    for driver in ["mio", "smol"] {
        let backend = backend("here", Duration::ZERO);
        let config = config(
            &[backend.address],
            &format!("workers = 2\ndriver = \"{driver}\"\ntimeouts = {{ shutdown_delay = \"5s\" }}"),
        )
        .replace("metrics_address = false", "metrics_address = \"127.0.0.1:0\"");
        let mut daemon = Daemon::start(&config, &[]);
        let address = daemon.address();
        let admin = daemon.listens("admin");
        let mut probe = Client::to(admin);
        assert_eq!(get(&mut probe, "/readyz").status, 200);
        let began = std::time::Instant::now();
        daemon.signal(Signal::TERM);
        daemon.wait_for("INFO  stopping: ");
        while get(&mut Client::to(admin), "/readyz").status != 503 {
            assert!(began.elapsed() < Duration::from_secs(5), "the probe is told");
        }
        daemon.signal(Signal::HUP);
        daemon.wait_for("not reloaded: stopping already");
        let mut kept = Client::to(address);
        while began.elapsed() < Duration::from_millis(1_500) {
            for client in [&mut kept, &mut Client::to(address)] {
                let response = get(client, "/");
                assert_eq!((response.status, response.field("Connection")), (200, None), "{response:?}");
            }
        }
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.output());
        assert!(began.elapsed() >= Duration::from_secs(5));

        let mut daemon = Daemon::start(&config.replace("\"5s\"", "\"1h\""), &[]);
        let address = daemon.address();
        daemon.signal(Signal::INT);
        daemon.wait_for("INFO  stopping: ");
        let mut cut = Client::to(address);
        assert_eq!(get(&mut cut, "/").status, 200);
        daemon.signal(Signal::INT);
        assert_eq!(daemon.wait().code(), Some(2), "{}", daemon.output());
    }
}

#[test]
fn requests_sent_before_a_stop_get_responses_although_earlier_clients_were_slow() {
    for driver in ["mio", "smol"] {
        let backend = backend("here", Duration::ZERO);
        let config = config(&[backend.address], &format!("workers = 1\ndriver = \"{driver}\""));
        let mut daemon = Daemon::start(&config, &[]);
        let address = daemon.address();
        // After many connections whose first request comes late, workers no longer read right after
        // accepting.
        for _ in 0..24 {
            let mut late = Client::to(address);
            std::thread::sleep(Duration::from_millis(10));
            get(&mut late, "/late");
        }
        daemon.signal(Signal::STOP);
        let mut clients: Vec<_> = (0..300).map(|_| Client::to(address)).collect();
        for client in &mut clients {
            client.send("GET /sent HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        }
        daemon.signal(Signal::TERM);
        daemon.signal(Signal::CONT);
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(response(client).text(), "here", "{driver}: client {n}");
        }
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.output());
    }
}

#[test]
fn the_drain_deadline_and_a_second_int_cut_connections_off() {
    let hangs = backend("hangs", Duration::from_secs(60));
    for (name, more, signals) in [
        ("deadline", "timeouts = { drain = \"1s\" }", &[Signal::TERM][..]),
        ("deadline-smol", "timeouts = { drain = \"1s\" }\ndriver = \"smol\"", &[Signal::TERM]),
        ("twice", "", &[Signal::INT, Signal::INT]),
        ("term-int", "", &[Signal::TERM, Signal::INT]),
    ] {
        let mut daemon = Daemon::start(&config(&[hangs.address], more), &[]);
        let mut busy = Client::to(daemon.address());
        busy.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        std::thread::sleep(Duration::from_millis(200));
        for signal in signals {
            daemon.signal(*signal);
            daemon.wait_for("stopping");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(daemon.wait().code(), Some(2), "{name}: {}", daemon.output());
    }
}

#[test]
fn the_driver_argument_overrides_the_configuration() {
    let backend = backend("here", Duration::ZERO);
    // The file's driver, the argument's driver, and whether smol's reactor thread runs then.
    for (file, argument, smol) in [
        ("", "mio", false),
        ("", "smol", true),
        ("driver = \"smol\"", "mio", false),
        ("driver = \"smol\"", "", true),
        ("", "", false),
    ] {
        let arguments: &[&str] = if argument.is_empty() { &[] } else { &["--driver", argument] };
        let daemon = Daemon::start(&config(&[backend.address], file), arguments);
        assert_eq!(get(&mut Client::to(daemon.address()), "/").text(), "here");
        assert_eq!(daemon.threads().contains(&"async-io".to_owned()), smol, "{file} {argument}");
    }
}

#[test]
fn usr1_without_a_log_file_does_nothing() {
    let backend = backend("here", Duration::ZERO);
    let mut daemon = Daemon::start(&config(&[backend.address], ""), &[]);
    let address = daemon.address();
    daemon.signal(Signal::USR1);
    daemon.wait_for("USR1: no log goes to a file");
    assert!(daemon.runs());
    assert_eq!(get(&mut Client::to(address), "/").text(), "here");
}

/// What asks a daemon for something does not end one that only starts.
#[test]
fn signals_during_a_start() {
    let backend = backend("here", Duration::ZERO);
    let directory = TempDir::new("start");
    let file = directory.0.join("config.toml");
    // It is read from a pipe, so that the start lasts until there is something in it.
    assert!(Command::new("mkfifo").arg(&file).status().expect("coreutils").success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
    command.arg("--config").arg(&file).env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(Stdio::null());
    let daemon = Daemon::run(command, directory);
    let mut pipe = std::fs::OpenOptions::new().write(true).open(&file).expect("it has a reader");
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        daemon.signal(signal);
    }
    pipe.write_all(config(&[backend.address], "").as_bytes()).expect("it reads");
    drop(pipe);
    assert_eq!(get(&mut Client::to(daemon.address()), "/").text(), "here");
    daemon.wait_for("HUP: the file is read again after");
    daemon.wait_for("USR1: no log goes to a file");
    daemon.wait_for("USR2: an upgrade, or the start, is under way already");
    daemon.stop();
}

/// `RUST_LOG` shows what a connection goes through, and a bad value ends the start.
#[test]
fn rust_log() {
    let backend = backend("here", Duration::ZERO);
    let config = config(&[backend.address], "workers = 1");
    // Level, what is there, what is not.
    let accepted = "accepted 127.0.0.1:";
    let table: [(&str, &[&str], &[&str]); 3] = [
        ("info", &[], &[accepted, " bytes"]),
        (
            "debug",
            &[
                accepted,
                "pool pool-1, which takes everything",
                "by new connection",
                ": connected",
                "exchange ended: 200",
            ],
            &["received "],
        ),
        ("info,proxy=trace", &[accepted, "received 35 bytes", "sent "], &[]),
    ];
    for (levels, there, absent) in table {
        let mut daemon = Daemon::start_logging(&config, levels);
        let mut client = Client::to(daemon.address());
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        assert_eq!(response(&mut client).text(), "here");
        drop(client);
        for line in there {
            daemon.wait_for(line);
        }
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.output());
        let output = daemon.output();
        assert!(absent.iter().all(|line| !output.contains(line)), "{levels}: {output}");
    }
    let mut daemon = Daemon::start_logging(&config, "info,proxy=debgu");
    assert_eq!(daemon.wait().code(), Some(1));
    daemon.wait_for("rust-strom: RUST_LOG: \"proxy=debgu\" is neither a level");
}

/// Signals during a graceful stop say what they do, and what is cut is logged.
#[test]
fn signals_during_a_stop() {
    for driver in ["mio", "smol"] {
        let silent = Backend::start(|mut peer| peer.wait_for_close());
        let config = config(
            &[silent.address],
            &format!("workers = 2\ndriver = \"{driver}\"\nhealth_interval = {{ check_every = 0 }}"),
        );
        let mut daemon = Daemon::start(&config, &[]);
        let address = daemon.address();
        let mut clients: Vec<Client> = (0..4).map(|_| Client::to(address)).collect();
        for client in &mut clients {
            client.send("GET /cut HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        }
        std::thread::sleep(Duration::from_millis(200));
        daemon.signal(Signal::TERM);
        daemon.wait_for("INFO  stopping: ");
        daemon.signal(Signal::TERM);
        daemon.wait_for("TERM again: stopping already");
        assert!(daemon.runs());
        daemon.signal(Signal::INT);
        daemon.wait_for("INT again: everything that still runs is cut now");
        assert_eq!(daemon.wait().code(), Some(2), "{}", daemon.output());
        daemon.wait_for("stopped: what was left was cut");
        let output = daemon.output();
        let cut =
            output.lines().filter(|l| l.contains("\"GET /cut HTTP/1.1\" 0 ") && l.contains("cause=drained"));
        assert_eq!(cut.count(), 4, "{output}");
        for client in &mut clients {
            assert!(client.response(false).is_err(), "{driver}: reset");
        }
    }
}

/// A client that speaks TLS to the plain port is told of in words.
#[test]
fn tls_on_the_plain_port() {
    let backend = backend("here", Duration::ZERO);
    let daemon = Daemon::start(&config(&[backend.address], ""), &[]);
    let mut client = Client::to(daemon.address());
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").expect("sent");
    assert_eq!(response(&mut client).status, 400);
    daemon.wait_for("\" TLS on a plain port -\" 400 in=0");
}

/// What logrotate's file has: its directives, and the script behind `postrotate`.
fn logrotate_file() -> (Vec<String>, String) {
    let file = include_str!("../logrotate/rust-strom");
    let stanza = file.split_once("/*.log {\n").expect("a stanza").1;
    let stanza = stanza.split_once("\n}").expect("its end").0;
    let (directives, script) = stanza.split_once("postrotate\n").expect("a script");
    let script = script.split_once("endscript").expect("its end").0;
    (directives.lines().map(|l| l.trim().to_owned()).collect(), script.trim().to_owned())
}

/// Rotating the access log as logrotate does loses no line.
#[test]
fn the_access_log_rotates() {
    let (directives, script) = logrotate_file();
    // With these logrotate would leave our descriptor at the old file, or cut it under us.
    assert!(!directives.iter().any(|d| d == "copytruncate" || d == "nocreate"), "{directives:?}");
    // The old file may get lines for a moment.
    assert!(directives.iter().any(|d| d == "delaycompress"), "{directives:?}");
    let backend = backend("here", Duration::ZERO);
    for driver in ["mio", "smol"] {
        let more = format!("access_log = {{ path = \"access.log\" }}\ndriver = \"{driver}\"");
        let mut daemon = Daemon::start(&config(&[backend.address], &more), &[]);
        let mut client = Client::to(daemon.address());
        let (log, old) = (daemon.directory.0.join("access.log"), daemon.directory.0.join("access.log.1"));
        let targets = |path: &std::path::Path| -> Vec<String> {
            let text = std::fs::read_to_string(path).expect("a log");
            text.lines()
                .filter_map(|l| Some(l.split("\"GET ").nth(1)?.split(' ').next()?.to_owned()))
                .collect()
        };
        get(&mut client, "/before");
        std::fs::rename(&log, &old).expect("a log");
        get(&mut client, "/between");
        // The log's thread writes when it gets to it.
        let begun = std::time::Instant::now();
        while targets(&old).len() < 2 {
            assert!(begun.elapsed() < client::WAIT, "{:?}", targets(&old));
            std::thread::sleep(Duration::from_millis(5));
        }
        // The script as it stands there, but for this process alone.
        let ours = script.replace("pkill -USR1 -x rust-strom", &format!("kill -USR1 {}", daemon.id()));
        assert_ne!(ours, script, "the script signals the process by its name");
        let ran = std::process::Command::new("sh").args(["-c", &ours]).status().expect("a shell");
        assert!(ran.success(), "{ours}");
        daemon.wait_for("access.log was opened anew");
        get(&mut client, "/after");
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.output());
        assert_eq!(
            (targets(&old), targets(&log)),
            (vec!["/before".into(), "/between".into()], vec!["/after".into()])
        );
    }
}

#[test]
fn the_access_log_has_one_line_for_each_request() {
    let more = "access_log = { format = \"json\", path = \"access.log\" }";
    let backend = backend("here", Duration::ZERO);
    let mut daemon = Daemon::start(&config(&[backend.address], more), &[]);
    let mut client = Client::to(daemon.address());
    for i in 0..50 {
        get(&mut client, &format!("/n{i}"));
    }
    drop(client);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.output());
    let log = std::fs::read_to_string(daemon.directory.0.join("access.log"))
        .expect("a log in the directory of the configuration");
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
fn without_descriptors_open_connections_are_served_and_new_ones_wait() {
    for driver in ["mio", "smol"] {
        run_out_of_descriptors(driver);
    }
}

fn run_out_of_descriptors(driver: &str) {
    let backend = backend("here", Duration::ZERO);
    let config = config(&[backend.address], &format!("workers = 1\ndriver = \"{driver}\""));
    let mut daemon = Daemon::start_limited(&config, &[], Some(128));
    let address = daemon.address();
    let mut clients: Vec<Client> = (0..150).map(|_| Client::to(address)).collect();
    daemon.wait_for("accepting is paused");
    // Accepted clients are served, over connections to the backend that can still be opened.
    for client in clients.iter_mut().take(20) {
        assert_eq!(get(client, "/").text(), "here");
    }
    // The process does not spin while clients wait in the listener's queue, and serves them as others close.
    let before = daemon.cpu_ticks();
    std::thread::sleep(Duration::from_millis(500));
    assert!(daemon.cpu_ticks() - before < 20, "accepting spins");
    let mut last = clients.pop().expect("150");
    last.send("GET /last HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    drop(clients);
    assert_eq!(response(&mut last).text(), "here");
    assert!(daemon.runs());
    assert_eq!(daemon.output().matches("accepting is paused").count(), 1, "logged once");
}

/// The access log names every attempt that failed, also before a success.
#[test]
fn every_failed_attempt_is_in_the_access_log() {
    let refusing = Backend::refusing();
    let silent = Backend::start(|mut peer| peer.wait_for_close());
    let good = backend("here", Duration::ZERO);
    let pools: String =
        [("/slow", silent.address, "timeouts = { backend_head = \"100ms\" }\n"), ("/good", good.address, "")]
            .map(|(path, second, more)| {
                format!(
                    "[[backend_pools]]\nmatcher = \"Path('{path}')\"\n\
                 addresses = [\"{refusing}\", {{ address = \"{second}\", backup = true }}]\n{more}"
                )
            })
            .concat();
    let config = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n\
         health_interval = {{ check_every = 0 }}\n{pools}"
    );
    let daemon = Daemon::start(&config, &[]);
    let mut client = Client::to(daemon.address());
    assert_eq!(get(&mut client, "/slow").status, 504);
    let second = silent.address;
    daemon.wait_for(&format!("backend=\"{second}\" tries=2 fresh"));
    daemon.wait_for(&format!(
        "cause=backend_timeout tried=[{refusing}:connect_refused, {second}:backend_timeout] http "
    ));
    assert_eq!(get(&mut client, "/good").text(), "here");
    daemon.wait_for(&format!("cause=- tried=[{refusing}:connect_refused] http "));
}

#[test]
fn a_refusing_backend_and_clients_that_reset_affect_no_other_client() {
    let (refusing, backend) = (Backend::refusing(), backend("here", Duration::ZERO));
    let mut daemon = Daemon::start(&config(&[refusing, backend.address], ""), &[]);
    let address = daemon.address();
    daemon.wait_for(&format!("backend {refusing} is unhealthy"));
    for _ in 0..200 {
        // Closing with the response unread or under way resets the connection.
        let mut client = Client::to(address);
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    }
    let mut client = Client::to(address);
    for _ in 0..20 {
        assert_eq!(get(&mut client, "/").text(), "here");
    }
    assert!(daemon.runs());
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.output());
}
