//! Basic use: requests, uploads and downloads with curl and Python, round robin under load, the demo, name
//! lookups, and the admin listener.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, WAIT};
use crate::daemon::{Daemon, TempDir};
use crate::nginx::{Nginx, output, program, quick_start};
use crate::scripted_backend::{Backend, ok};

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

fn three_backends() -> Vec<Nginx> {
    NAMES.map(Nginx::start).into()
}

fn addresses(all: &[Nginx]) -> Vec<SocketAddr> {
    all.iter().map(|n| n.address).collect()
}

fn v4(address: SocketAddr) -> String {
    format!("127.0.0.1:{}", address.port())
}

/// curl, silent, with the host that the quick start matches.
fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new(program("curl", "curl"));
    command.args(["-sS", "-m", "20", "-H", "Host: example.com"]).args(arguments);
    output(&mut command)
}

/// Pseudo-random bytes.
fn random_bytes(len: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let step = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    std::iter::repeat_with(step).flat_map(u64::to_le_bytes).take(len).collect()
}

#[test]
fn curl_requests_go_to_the_backends_in_turn() {
    let backends = three_backends();
    let daemon = Daemon::start(&quick_start(&addresses(&backends), "", ""), &["--workers", "2"]);
    let url = format!("http://{}", v4(daemon.address()));
    // The three backends in turn, over one client connection.
    let stdout = curl(&["-w", " %{http_code} %{num_connects} %{http_version}\n", &format!("{url}/?[1-6]")]);
    let mut lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 6, "{stdout}");
    assert!(
        lines[0].ends_with(" 200 1 1.1") && lines[1..].iter().all(|l| l.ends_with(" 200 0 1.1")),
        "{stdout}"
    );
    assert_eq!(
        lines[..3].iter().map(|l| l.split(' ').next()).collect::<Vec<_>>(),
        lines[3..].iter().map(|l| l.split(' ').next()).collect::<Vec<_>>()
    );
    lines.truncate(3);
    lines.sort_unstable();
    assert!(lines.iter().zip(NAMES).all(|(l, name)| l.starts_with(name)), "{stdout}");

    let head = curl(&["-I", &format!("{url}/")]);
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n")
            && head.contains("X-Backend: ")
            && head.contains("Content-Length: "),
        "{head}"
    );

    // HTTP/1.0 with and without keep-alive.
    let stdout = curl(&["--http1.0", "-w", " %{num_connects}\n", &format!("{url}/?[1-2]")]);
    assert!(stdout.lines().all(|l| l.ends_with(" 1")), "{stdout}");
    let stdout = curl(&[
        "--http1.0",
        "-H",
        "Connection: keep-alive",
        "-w",
        " %{num_connects}\n",
        &format!("{url}/?[1-2]"),
    ]);
    assert!(stdout.lines().nth(1).is_some_and(|l| l.ends_with(" 0")), "{stdout}");
    // A host that no pool takes: `curl` above would send another one.
    let mut command = Command::new(program("curl", "curl"));
    assert_eq!(
        output(command.args([
            "-sS",
            "-m",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &format!("{url}/")
        ])),
        "404"
    );
    daemon.stop();
}

#[test]
fn curl_uploads_arrive_unchanged() {
    let backends = three_backends();
    let daemon = Daemon::start(&quick_start(&addresses(&backends), "", ""), &["--workers", "2"]);
    let url = format!("http://{}", v4(daemon.address()));
    let files = TempDir::new("curl");
    let small = random_bytes(1_000_000);
    let upload = files.write("upload", &small).display().to_string();

    // curl would send the body without the 100 after 15 seconds: that it took less shows that the 100 came.
    let upload_ways: [(&str, &[&str]); 4] = [
        ("expects 100", &["-H", "Expect: 100-continue", "--expect100-timeout", "15"]),
        ("by length", &["-H", "Expect:"]),
        ("chunked", &["-H", "Transfer-Encoding: chunked", "-H", "Expect:"]),
        (
            "chunked, expects 100",
            &["-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue", "--expect100-timeout", "15"],
        ),
    ];
    for (i, (name, arguments)) in upload_ways.into_iter().enumerate() {
        let begun = Instant::now();
        let data = format!("@{upload}");
        let stdout = curl(
            &[
                arguments,
                &["-X", "POST", "--data-binary", &data, "-w", " %{http_code}", &format!("{url}/post")],
            ]
            .concat(),
        );
        assert!(NAMES.iter().any(|n| stdout == format!("{n} 200")), "{name}: {stdout}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: no 100 came");
        let target = format!("{url}/kept/{i}");
        let stdout = curl(
            &[
                arguments,
                &["-T", &upload, "-o", "/dev/null", "-w", "%{http_code} %header{x-backend}", &target],
            ]
            .concat(),
        );
        let (status, at) = stdout.split_once(' ').expect("two words");
        let backend = backends.iter().find(|b| b.name == at).expect("one of them");
        assert_eq!(status, "201", "{name}");
        let kept = std::fs::read(backend.folder.0.join(format!("kept/{i}"))).expect("a stored file");
        assert!(kept == small, "{name}: the stored bytes differ");
    }
    // Each posted body is stored by one of the backends, byte for byte.
    let posted = backends.iter().flat_map(|b| std::fs::read_dir(b.folder.0.join("body")).expect("a folder"));
    let posted: Vec<Vec<u8>> =
        posted.map(|f| std::fs::read(f.expect("an entry").path()).expect("a file")).collect();
    assert!(posted.len() == 4 && posted.iter().all(|p| *p == small), "{} files", posted.len());
    daemon.stop();
}

#[test]
fn curl_downloads_arrive_unchanged() {
    let backends = three_backends();
    let daemon = Daemon::start(&quick_start(&addresses(&backends), "", ""), &["--workers", "2"]);
    let url = format!("http://{}", v4(daemon.address()));
    let files = TempDir::new("curl");
    let big = random_bytes(100 << 20);
    let got = files.0.join("got").display().to_string();
    for b in &backends {
        std::fs::create_dir_all(b.folder.0.join("files")).expect("a folder");
        std::fs::write(b.folder.0.join("files/big"), &big).expect("a file");
    }

    for arguments in
        [&["--http1.1"][..], &["--http1.0"], &["--limit-rate", "150M"], &["-H", "Connection: close"]]
    {
        let stdout =
            curl(&[arguments, &["-o", &got, "-w", "%{http_code}", &format!("{url}/files/big")]].concat());
        assert_eq!(stdout, "200", "{arguments:?}");
        assert!(std::fs::read(&got).expect("a file") == big, "{arguments:?}: the bytes differ");
    }
    let stdout = curl(&["-o", &got, "-r", "1000-1999", "-w", "%{http_code}", &format!("{url}/files/big")]);
    assert!(stdout == "206" && std::fs::read(&got).expect("a file") == big[1000..2000]);
    let head = curl(&["-I", &format!("{url}/files/big")]);
    assert!(head.contains(&format!("Content-Length: {}\r\n", big.len())), "{head}");
    daemon.stop();
}

#[test]
fn round_robin_is_exact_over_all_workers() {
    let backends = three_backends();
    let daemon = Daemon::start(&quick_start(&addresses(&backends), "", ""), &["--workers", "2"]);
    let url = format!("http://{}/", v4(daemon.address()));
    let mut command = Command::new(program("h2load", "nghttp2-client"));
    let stdout = output(command.args([
        "--h1",
        "-n",
        "3000",
        "-c",
        "30",
        "-t",
        "2",
        "-H",
        ":authority: example.com",
        &url,
    ]));
    assert!(
        stdout.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout")
            && stdout.contains("status codes: 3000 2xx"),
        "{stdout}"
    );
    let counts = || backends.iter().map(|b| b.requests().len()).collect::<Vec<_>>();
    // nginx logs a request after the response was sent: the client may have it before.
    let begun = Instant::now();
    while counts().iter().sum::<usize>() < 3000 && begun.elapsed() < WAIT {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(counts(), [1000; 3]);
    // wrk sends an unknown number of requests, and at its end aborts one on each connection.
    let mut command = Command::new(program("wrk", "wrk"));
    let stdout = output(command.args(["-t", "2", "-c", "24", "-d", "2s", "-H", "Host: example.com", &url]));
    assert!(
        stdout.contains("requests in") && !stdout.contains("Non-2xx") && !stdout.contains("Socket errors"),
        "{stdout}"
    );
    // New connections, so that both workers take part in each cycle.
    let mut names = BTreeMap::<String, usize>::new();
    for _ in 0..90 {
        let mut client = Client::to(SocketAddr::new([127, 0, 0, 1].into(), daemon.address().port()));
        client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").expect("sent");
        *names.entry(client.response(false).expect("a response").text()).or_default() += 1;
    }
    assert_eq!(names.into_values().collect::<Vec<_>>(), [30; 3]);
    let counts = counts();
    let (least, most) = (counts.iter().min().expect("three"), counts.iter().max().expect("three"));
    // nginx does not log the requests that wrk aborted: at most one on each of 24 connections.
    assert!(most - least <= 24, "{counts:?}");
    daemon.stop();
}

#[test]
fn python_http_client_works() {
    let backends = three_backends();
    let daemon = Daemon::start(&quick_start(&addresses(&backends), "", ""), &["--workers", "2"]);
    let script = "
import http.client, sys
c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=15)
h = {'Host': 'example.com'}
names = []
for i in range(6):
    c.request('GET', '/%d' % i, headers=h)
    r = c.getresponse()
    assert r.status == 200 and r.version == 11, r.status
    names.append(r.read().decode())
assert names[:3] == names[3:] and len(set(names)) == 3, names
sock = c.sock
c.request('HEAD', '/', headers=h)
r = c.getresponse()
assert (r.status, r.read()) == (200, b'') and int(r.headers['Content-Length']) > 0
c.request('PUT', '/kept/python', body=(b'x' * 10000 for _ in range(100)), headers=h, encode_chunked=True)
r = c.getresponse()
assert r.status == 201, r.status
r.read()
c.request('POST', '/post', body=b'y' * 1000000, headers=h)
r = c.getresponse()
assert r.status == 200 and r.read().decode() in names
c.request('OPTIONS', '*', headers=h)
r = c.getresponse()
r.read()
assert c.sock is sock, 'the connection was not kept'
c.request('GET', '/', headers={'Host': 'example.com', 'Connection': 'close'})
r = c.getresponse()
assert r.status == 200 and r.will_close
r.read()
print('ok')
";
    let mut command = Command::new(program("python3", "python3"));
    let stdout = output(command.args(["-c", script, &daemon.address().port().to_string()]));
    assert_eq!(stdout, "ok\n");
    let kept = backends
        .iter()
        .find_map(|b| std::fs::read(b.folder.0.join("kept/python")).ok())
        .expect("stored by one of them");
    assert!(kept == vec![b'x'; 1_000_000]);
    daemon.stop();
}

#[test]
fn the_curl_commands_that_the_demo_prints_work() {
    for arguments in [&[][..], &["--tls"]] {
        let mut demo = Daemon::demo(arguments);
        demo.wait_for("Ctrl-C");
        let printed = demo.output();
        let commands: Vec<&str> = printed
            .lines()
            .filter_map(|line| line.split_once("    curl ").map(|(_, rest)| rest.trim()))
            .collect();
        assert_eq!(commands.len(), 1 + arguments.len(), "{printed}");
        for command in commands {
            let curl = || {
                output(
                    Command::new(program("curl", "curl")).args(["-sS", "-m", "20"]).args(command.split(' ')),
                )
            };
            let responses = [curl(), curl(), curl()];
            let mut names: Vec<&str> = responses.iter().filter_map(|a| a.split(' ').next()).collect();
            names.sort_unstable();
            assert_eq!(names, NAMES, "{command}");
        }
        demo.signal(Signal::INT);
        assert_eq!(demo.wait().code(), Some(0), "{}", demo.output());
    }
}

#[test]
fn one_listener_accepts_ipv4_and_ipv6() {
    let backends = three_backends();
    let daemon = Daemon::start(&quick_start(&addresses(&backends), "", ""), &["--workers", "2"]);
    let address = daemon.address();
    assert_eq!(address.ip().to_string(), "::", "the quick start listens on [::]");
    for (host, client) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let stdout = curl(&[&format!("http://{host}:{}/who", address.port())]);
        assert_eq!(stdout, format!("example.com {client} http example.com"));
    }
    daemon.stop();
}

#[test]
fn a_name_that_does_not_resolve_delays_no_other_pool() {
    let backend = Backend::good("named");
    let pool = |matcher: &str, address: &str| {
        format!(
            "[[backend_pools]]\nmatcher = \"{matcher}\"\naddresses = [\"{address}\"]\nschemes = [\"HTTP\"]\n\
             health_config = {{ path = \"/health\", timeout = 5000, slow_threshold = 0 }}\n"
        )
    };
    let config = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n{}{}",
        pool("PathPrefix('/nowhere')", "no-such-name.invalid:80"),
        pool("PathPrefix('/')", &format!("localhost:{}", backend.address.port()))
    );
    let daemon = Daemon::start(&config, &["--workers", "2"]);
    let address = daemon.address();
    daemon.wait_for("no-such-name.invalid:80: the name does not resolve");
    let begun = Instant::now();
    for _ in 0..10 {
        let mut client = Client::to(address);
        let response = client.get("/nowhere").expect("a response");
        assert_eq!((response.status, response.field("Retry-After").is_some()), (503, true), "{response:?}");
        let response = client.get("/").expect("a response");
        assert_eq!((response.status, response.text().as_str()), (200, "named"), "{response:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(daemon.output().matches("does not resolve").count(), 1, "logged once: {}", daemon.output());
    daemon.stop();
}

#[test]
fn the_admin_listener_reports_liveness_and_readiness() {
    // The first health check gets its response only when the test opens the gate.
    let gate = std::sync::Arc::new(std::sync::Barrier::new(2));
    let (held, once) = (gate.clone(), std::sync::Once::new());
    let backend = Backend::start(move |mut p| {
        while p.request().is_some() {
            once.call_once(|| {
                held.wait();
            });
            if !p.send(ok("here")) {
                return;
            }
        }
    });
    let config = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = \"127.0.0.1:0\"\n[[backend_pools]]\naddresses = [\"{}\"]\nschemes = [\"HTTP\"]\n\
         health_config = {{ timeout = 15000, slow_threshold = 0 }}\n",
        backend.address
    );
    let daemon = Daemon::start(&config, &["--workers", "2"]);
    let admin = daemon.listens("admin");
    let status = |target: &str| Client::to(admin).get(target).map(|a| a.status).expect("a response");
    assert_eq!((status("/healthz"), status("/readyz"), status("/else")), (200, 503, 404));
    gate.wait();
    let begun = Instant::now();
    // Eight connections, so that each worker is asked.
    let ready = || (0..8).all(|_| status("/readyz") == 200);
    while !ready() {
        assert!(begun.elapsed() < WAIT, "never ready: {}", daemon.output());
        std::thread::sleep(Duration::from_millis(10));
    }
    daemon.address();
    daemon.stop();
}
