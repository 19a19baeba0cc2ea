//! What everybody does with a load balancer on the first day.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::daemon::{Daemon, Folder};
use crate::nginx::{Nginx, output, program, quick_start};
use crate::scripted::{Backend, ok};
use crate::talk::{Client, WAIT};

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

fn three() -> Vec<Nginx> {
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

/// Bytes that do not repeat soon.
fn noise(len: usize) -> Vec<u8> {
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
fn curl_gets_posts_uploads_and_downloads() {
    let backends = three();
    let daemon = Daemon::start(&quick_start(&addresses(&backends), "", ""), &["--workers", "2"]);
    let url = format!("http://{}", v4(daemon.address()));
    let files = Folder::new("curl");
    let (small, big) = (noise(1_000_000), noise(100 << 20));
    let upload = files.write("upload", &small);
    let (upload, got) = (upload.display().to_string(), files.0.join("got").display().to_string());
    for b in &backends {
        std::fs::create_dir_all(b.folder.0.join("files")).expect("a folder");
        std::fs::write(b.folder.0.join("files/big"), &big).expect("a file");
    }

    // Three names in turn, on one connection.
    let said = curl(&["-w", " %{http_code} %{num_connects} %{http_version}\n", &format!("{url}/?[1-6]")]);
    let mut lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 6, "{said}");
    assert!(
        lines[0].ends_with(" 200 1 1.1") && lines[1..].iter().all(|l| l.ends_with(" 200 0 1.1")),
        "{said}"
    );
    assert_eq!(
        lines[..3].iter().map(|l| l.split(' ').next()).collect::<Vec<_>>(),
        lines[3..].iter().map(|l| l.split(' ').next()).collect::<Vec<_>>()
    );
    lines.truncate(3);
    lines.sort_unstable();
    assert!(lines.iter().zip(NAMES).all(|(l, name)| l.starts_with(name)), "{said}");

    let head = curl(&["-I", &format!("{url}/")]);
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n")
            && head.contains("X-Backend: ")
            && head.contains("Content-Length: "),
        "{head}"
    );

    // curl expects 100-continue for a body of this size; `-w` shows that none was missed, or it would have
    // waited for a second.
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
        let said = curl(
            &[
                arguments,
                &["-X", "POST", "--data-binary", &data, "-w", " %{http_code}", &format!("{url}/post")],
            ]
            .concat(),
        );
        assert!(NAMES.iter().any(|n| said == format!("{n} 200")), "{name}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: it waited in vain for the 100");
        let target = format!("{url}/kept/{i}");
        let said = curl(
            &[
                arguments,
                &["-T", &upload, "-o", "/dev/null", "-w", "%{http_code} %header{x-backend}", &target],
            ]
            .concat(),
        );
        let (status, at) = said.split_once(' ').expect("two words");
        let backend = backends.iter().find(|b| b.name == at).expect("one of them");
        assert_eq!(status, "201", "{name}");
        let kept = std::fs::read(backend.folder.0.join(format!("kept/{i}"))).expect("kept");
        assert!(kept == small, "{name}: other bytes came");
    }
    // What was posted lies with one of them, byte for byte.
    let posted = backends.iter().flat_map(|b| std::fs::read_dir(b.folder.0.join("body")).expect("a folder"));
    let posted: Vec<Vec<u8>> =
        posted.map(|f| std::fs::read(f.expect("an entry").path()).expect("a file")).collect();
    assert!(posted.len() == 4 && posted.iter().all(|p| *p == small), "{} files", posted.len());

    for arguments in
        [&["--http1.1"][..], &["--http1.0"], &["--limit-rate", "150M"], &["-H", "Connection: close"]]
    {
        let said =
            curl(&[arguments, &["-o", &got, "-w", "%{http_code}", &format!("{url}/files/big")]].concat());
        assert_eq!(said, "200", "{arguments:?}");
        assert!(std::fs::read(&got).expect("a file") == big, "{arguments:?}: other bytes came");
    }
    let said = curl(&["-o", &got, "-r", "1000-1999", "-w", "%{http_code}", &format!("{url}/files/big")]);
    assert!(said == "206" && std::fs::read(&got).expect("a file") == big[1000..2000]);

    // HTTP/1.0 with and without keep-alive; an unknown host; a HEAD of a download.
    let said = curl(&["--http1.0", "-w", " %{num_connects}\n", &format!("{url}/?[1-2]")]);
    assert!(said.lines().all(|l| l.ends_with(" 1")), "{said}");
    let said = curl(&[
        "--http1.0",
        "-H",
        "Connection: keep-alive",
        "-w",
        " %{num_connects}\n",
        &format!("{url}/?[1-2]"),
    ]);
    assert!(said.lines().nth(1).is_some_and(|l| l.ends_with(" 0")), "{said}");
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
    let head = curl(&["-I", &format!("{url}/files/big")]);
    assert!(head.contains(&format!("Content-Length: {}\r\n", big.len())), "{head}");
    daemon.stop();
}

#[test]
fn round_robin_is_exact_over_all_workers() {
    let backends = three();
    let daemon = Daemon::start(&quick_start(&addresses(&backends), "", ""), &["--workers", "2"]);
    let url = format!("http://{}/", v4(daemon.address()));
    let mut command = Command::new(program("h2load", "nghttp2-client"));
    let said = output(command.args([
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
        said.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout")
            && said.contains("status codes: 3000 2xx"),
        "{said}"
    );
    let counts = || backends.iter().map(|b| b.requests().len()).collect::<Vec<_>>();
    // nginx logs a request when its answer has gone, which the client may know first.
    let begun = Instant::now();
    while counts().iter().sum::<usize>() < 3000 && begun.elapsed() < WAIT {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(counts(), [1000; 3]);
    // wrk does not say in advance how many; what was cut off at its end is a connection each.
    let mut command = Command::new(program("wrk", "wrk"));
    let said = output(command.args(["-t", "2", "-c", "24", "-d", "2s", "-H", "Host: example.com", &url]));
    assert!(
        said.contains("requests in") && !said.contains("Non-2xx") && !said.contains("Socket errors"),
        "{said}"
    );
    // Fresh connections, so that both workers have a part in each cycle.
    let mut names = BTreeMap::<String, usize>::new();
    for _ in 0..90 {
        let mut client = Client::to(SocketAddr::new([127, 0, 0, 1].into(), daemon.address().port()));
        client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").expect("sent");
        *names.entry(client.response(false).expect("an answer").text()).or_default() += 1;
    }
    assert_eq!(names.into_values().collect::<Vec<_>>(), [30; 3]);
    let counts = counts();
    let (least, most) = (counts.iter().min().expect("three"), counts.iter().max().expect("three"));
    // nginx leaves out of its log what wrk broke off; 24 connections at most.
    assert!(most - least <= 24, "{counts:?}");
    daemon.stop();
}

#[test]
fn http_client_of_python_is_content() {
    let backends = three();
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
print('content')
";
    let mut command = Command::new(program("python3", "python3"));
    let said = output(command.args(["-c", script, &daemon.address().port().to_string()]));
    assert_eq!(said, "content\n");
    let kept = backends
        .iter()
        .find_map(|b| std::fs::read(b.folder.0.join("kept/python")).ok())
        .expect("kept by one");
    assert!(kept == vec![b'x'; 1_000_000]);
    daemon.stop();
}

#[test]
fn the_demo_as_a_new_user_sees_it() {
    let mut demo = Daemon::demo();
    let line = demo.wait_for("    curl ");
    let responses: Vec<String> = (0..3)
        .map(|_| output(Command::new(program("curl", "curl")).args(["-sS", "-m", "20", line.trim()])))
        .collect();
    let mut names: Vec<&str> = responses.iter().filter_map(|a| a.split(' ').next()).collect();
    names.sort_unstable();
    assert_eq!(names, NAMES);
    demo.signal(Signal::INT);
    assert_eq!(demo.end().code(), Some(0), "{}", demo.said());
}

#[test]
fn both_families_come_to_one_listener() {
    let backends = three();
    let daemon = Daemon::start(&quick_start(&addresses(&backends), "", ""), &["--workers", "2"]);
    let address = daemon.address();
    assert_eq!(address.ip().to_string(), "::", "the quick start listens on [::]");
    for (host, client) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let said = curl(&[&format!("http://{host}:{}/who", address.port())]);
        assert_eq!(said, format!("example.com {client} http example.com"));
    }
    daemon.stop();
}

#[test]
fn names_resolve_and_those_that_do_not_hang_nobody() {
    let backend = Backend::good("named");
    let pool = |matcher: &str, address: &str| {
        format!(
            "[[backend_pools]]\nmatcher = \"{matcher}\"\naddresses = [\"{address}\"]\nschemes = [\"HTTP\"]\nhealth_config = {{ path = \"/health\" }}\n"
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
        let response = client.get("/nowhere").expect("an answer");
        assert_eq!((response.status, response.field("Retry-After").is_some()), (503, true), "{response:?}");
        let response = client.get("/").expect("an answer");
        assert_eq!((response.status, response.text().as_str()), (200, "named"), "{response:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(daemon.said().matches("does not resolve").count(), 1, "told once: {}", daemon.said());
    daemon.stop();
}

#[test]
fn our_own_page_says_when_we_live_and_when_we_are_ready() {
    // Its first probe is answered only when the test says so.
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
    let page = daemon.listens("own page");
    let ask = |target: &str| Client::to(page).get(target).map(|a| a.status).expect("an answer");
    assert_eq!((ask("/healthz"), ask("/readyz"), ask("/else")), (200, 503, 404));
    gate.wait();
    let begun = Instant::now();
    // Whichever worker answers.
    let ready = || (0..8).all(|_| ask("/readyz") == 200);
    while !ready() {
        assert!(begun.elapsed() < WAIT, "never ready: {}", daemon.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    daemon.address();
    daemon.stop();
}
