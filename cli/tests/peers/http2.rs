//! HTTP/2 to clients by prior knowledge, on the plain listener: curl, nghttp and h2load, with nginx as
//! backends.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, WAIT};
use crate::daemon::{Daemon, TempDir};
use crate::nginx::{Nginx, output, program, quick_start};

struct Site {
    backends: Vec<Nginx>,
    daemon: Daemon,
    url: String,
}

fn site() -> Site {
    let backends: Vec<Nginx> = ["alpha", "beta"].map(Nginx::start).into();
    let addresses: Vec<SocketAddr> = backends.iter().map(|b| b.address).collect();
    let daemon = Daemon::start(&quick_start(&addresses, "", ""), &["--workers", "2"]);
    let url = format!("http://127.0.0.1:{}", daemon.address().port());
    Site { backends, daemon, url }
}

fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new(program("curl", "curl"));
    command.args(["-sS", "-m", "30", "--http2-prior-knowledge", "-H", "Host: example.com"]).args(arguments);
    output(&mut command)
}

#[test]
fn curl_speaks_http2_by_prior_knowledge() {
    let Site { backends, daemon, url } = site();
    // The backends take turns. (A second request on the connection is nghttp's: curl 7.88 breaks its own
    // framing then, with every server.)
    let answers: Vec<String> =
        (0..4).map(|n| curl(&["-w", " %{http_code} %{http_version}", &format!("{url}/?{n}")])).collect();
    assert!(answers.iter().all(|answer| answer.ends_with(" 200 2")), "{answers:?}");
    assert!(answers[0] != answers[1] && answers[0] == answers[2] && answers[1] == answers[3], "{answers:?}");
    let head = curl(&["-I", &format!("{url}/")]);
    assert!(head.starts_with("HTTP/2 200 ") && head.contains("x-backend: "), "{head}");
    assert!(head.contains("content-length: ") && !head.to_lowercase().contains("connection"), "{head}");
    // The backend sees a request of HTTP/1.1.
    let who = curl(&["-b", "a=1; b=2", &format!("{url}/who")]);
    assert_eq!(who, "example.com 127.0.0.1 http example.com");
    let mut other = Command::new(program("curl", "curl"));
    let missing = ["-sS", "-m", "30", "--http2-prior-knowledge", "-o", "/dev/null", "-H", "Host: other.test"];
    let stdout = output(other.args(missing).args(["-w", "%{http_code} %{http_version}", &url]));
    assert_eq!(stdout, "404 2");
    // The same listener speaks HTTP/1.1, and leaves what asks for an upgrade to it.
    let mut plain = Command::new(program("curl", "curl"));
    let upgrade = ["-sS", "-m", "30", "--http2", "-o", "/dev/null", "-H", "Host: example.com"];
    let stdout = output(plain.args(upgrade).args(["-w", "%{http_code} %{http_version}", &url]));
    assert_eq!(stdout, "200 1.1");
    drop(backends);
    daemon.stop();
}

#[test]
fn content_passes_unchanged_both_ways() {
    let Site { backends, daemon, url } = site();
    let files = TempDir::new("http2");
    let big: Vec<u8> = (0..5_000_000_u32).map(|n| (n ^ n >> 9) as u8).collect();
    let upload = files.write("upload", &big).display().to_string();
    let got = files.0.join("got").display().to_string();
    for b in &backends {
        std::fs::create_dir_all(b.folder.0.join("files")).expect("a folder");
        std::fs::write(b.folder.0.join("files/big"), &big).expect("a file");
    }
    for way in [&[][..], &["--limit-rate", "20M"], &["-H", "Expect: 100-continue"]] {
        let down = curl(
            &[way, &["-o", &got, "-w", "%{http_code} %{http_version}", &format!("{url}/files/big")]].concat(),
        );
        assert_eq!(down, "200 2", "{way:?}");
        assert!(std::fs::read(&got).expect("a file") == big, "{way:?}: the bytes differ");
        let target = format!("{url}/kept/up");
        let ask = [
            "-T",
            &upload,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{http_version} %header{x-backend}",
            &target,
        ];
        let stdout = curl(&[way, &ask].concat());
        let at = stdout
            .strip_prefix("201 2 ")
            .or(stdout.strip_prefix("204 2 "))
            .unwrap_or_else(|| panic!("{stdout}"));
        let backend = backends.iter().find(|b| b.name == at).expect("one of them");
        let kept = std::fs::read(backend.folder.0.join("kept/up")).expect("a stored file");
        assert!(kept == big, "{way:?}: the stored bytes differ");
    }
    daemon.stop();
}

#[test]
fn h2load_and_nghttp() {
    let Site { backends, daemon, url } = site();
    for content in ["/", "/files/some"] {
        for b in &backends {
            std::fs::create_dir_all(b.folder.0.join("files")).expect("a folder");
            std::fs::write(b.folder.0.join("files/some"), vec![b'x'; 100_000]).expect("a file");
        }
        let mut command = Command::new(program("h2load", "nghttp2-client"));
        let target = format!("{url}{content}");
        let load = ["-n", "3000", "-c", "10", "-m", "32", "-t", "2", "-H", ":authority: example.com"];
        let stdout = output(command.args(load).arg(&target));
        let good = "3000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(stdout.contains(good) && stdout.contains("status codes: 3000 2xx"), "{stdout}");
    }
    let mut command = Command::new(program("nghttp", "nghttp2-client"));
    let stdout = output(command.args(["-nv", "-H", ":authority: example.com", "-m", "5", "-p", "3", &url]));
    assert!(stdout.matches(":status: 200").count() == 5, "{stdout}");
    assert!(!stdout.contains("RST_STREAM") && !stdout.contains("PROTOCOL_ERROR"), "{stdout}");
    daemon.stop();
}

// The bytes of an attack end their connection, with a reason, and no other.
#[test]
fn a_broken_protocol_ends_one_connection() {
    let Site { backends, daemon, url } = site();
    let address = SocketAddr::new([127, 0, 0, 1].into(), daemon.address().port());
    let mut client = Client::to(address);
    // SETTINGS, then DATA on a stream that nobody has opened.
    client
        .send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\0\0\0\0\0\x01x")
        .expect("sent");
    let told = client.rest().expect("the connection ends");
    let go_away = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";
    assert!(told.ends_with(go_away), "{}", told.escape_ascii());
    assert_eq!(curl(&["-o", "/dev/null", "-w", "%{http_code}", &url]), "200");
    drop(backends);
    daemon.stop();
}

// A stop leaves a download on a stream the time that it takes, and takes no new connections.
#[test]
fn a_stop_serves_streams_to_their_end() {
    let Site { backends, mut daemon, url } = site();
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ n >> 9) as u8).collect();
    for b in &backends {
        std::fs::create_dir_all(b.folder.0.join("files")).expect("a folder");
        std::fs::write(b.folder.0.join("files/big"), &big).expect("a file");
    }
    let files = TempDir::new("http2-stop");
    let got = files.0.join("got");
    let target = format!("{url}/files/big");
    let mut command = Command::new(program("curl", "curl"));
    command.args(["-sS", "-m", "30", "--http2-prior-knowledge", "-H", "Host: example.com"]);
    command.args(["--limit-rate", "2M", "-w", "%{http_code} %{http_version}", "-o"]).arg(&got).arg(&target);
    let child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let begun = Instant::now();
    while std::fs::metadata(&got).map_or(0, |file| file.len()) == 0 {
        assert!(begun.elapsed() < WAIT, "nothing comes");
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon.signal(Signal::TERM);
    let told = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&told.stdout), "200 2");
    assert!(std::fs::read(&got).expect("a file") == big, "the bytes differ");
    assert!(daemon.wait().success(), "{}", daemon.output());
}

// Each request is counted once, and logged once with its stream.
#[test]
fn requests_are_counted_and_logged_once() {
    let Site { backends, daemon, url } = site();
    let mut command = Command::new(program("h2load", "nghttp2-client"));
    let load = ["-n", "40", "-c", "2", "-m", "5", "-t", "1", "-H", ":authority: example.com"];
    let stdout = output(command.args(load).arg(&url));
    assert!(stdout.contains("40 succeeded"), "{stdout}");
    let admin = daemon.listens("admin");
    let begun = Instant::now();
    let counted = || {
        let page = Client::to(admin).get("/metrics").expect("the page").text();
        let requests = page.lines().filter(|line| line.starts_with("ruststrom_requests_total{"));
        requests.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    while counted() < 40 {
        assert!(begun.elapsed() < WAIT, "{} requests", counted());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(counted(), 40);
    drop(backends);
    daemon.signal(Signal::TERM);
    daemon.wait_for("stopped");
    let output = daemon.output();
    let logged: Vec<&str> = output.lines().filter(|line| line.contains(" HTTP/2.0\" 200 ")).collect();
    assert_eq!(logged.len(), 40, "{output}");
    // Streams of clients are odd, and each is there once on each of both connections.
    for stream in (1..=39).step_by(2) {
        let of = format!(" stream={stream} host=\"example.com\" ");
        assert_eq!(logged.iter().filter(|line| line.contains(&of)).count(), 2, "{stream}: {output}");
    }
}
