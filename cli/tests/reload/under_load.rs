//! Two hundred reloads while everything is in use: no request fails, and nothing that runs is cut.

use std::io::{BufRead, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::address::reserve;
use crate::client::{Client, connect};
use crate::daemon::Daemon;
use crate::nginx::{output, program};
use crate::scripted_backend::{Backend, Peer};
use crate::site::{ask, start};

on_each_driver!(nothing_fails_and_nothing_is_cut);

const RELOADS: usize = 200;
/// Bytes of the upload, which goes on for as long as there are reloads.
const UPLOAD: usize = 64 << 20;

/// An event stream, an echo behind an upgrade, an upload that is counted, or a few bytes.
fn serve(mut peer: Peer) {
    while let Some(head) = peer.head() {
        let more = if head.starts_with("get /events ") {
            peer.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            ) && (0..).all(|n| {
                std::thread::sleep(Duration::from_millis(5));
                let event = format!("data: {n}\n\n");
                peer.send(format!("{:x}\r\n{event}\r\n", event.len()))
            })
        } else if head.starts_with("get /echo ") {
            peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
            while let Some(byte) = peer.byte()
                && peer.send([byte])
            {}
            false
        } else if head.starts_with("put ") {
            peer.body(UPLOAD).is_some() && peer.send("HTTP/1.1 204 No Content\r\n\r\n")
        } else {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        };
        if !more {
            return;
        }
    }
}

/// Only HUP reloads: a watcher may read a file that is being written.
fn config(http: SocketAddr, more: SocketAddr, backends: &[SocketAddr], nth: usize) -> String {
    let addresses: Vec<String> = backends.iter().map(|a| format!("\"{a}\"")).collect();
    let strategy = ["RoundRobin", "Random", "LeastConnection", "IPHash"][nth % 4];
    let listener = match nth % 3 {
        0 => String::new(),
        _ => format!("[[listeners]]\nname = \"more\"\naddress = \"{more}\"\nkind = \"http\"\n"),
    };
    format!(
        "http_address = \"{http}\"\nwatch = false\nmetrics_address = false\nhealth_interval = {{ check_every = 0 }}\n{listener}\
         [[backend_pools]]\nname = \"pool-{}\"\nstrategy = \"{strategy}\"\nretries = {}\naddresses = [{}]\n",
        nth % 2,
        nth % 5,
        addresses.join(", ")
    )
}

/// Writes the file in one of the ways that programs do.
fn write(folder: &Path, text: &str, nth: usize) {
    let file = folder.join("config.toml");
    let put = |path: &Path, text: &str| std::fs::write(path, text).expect("written");
    match nth % 3 {
        0 => put(&file, text),
        1 => {
            put(&folder.join("config.new"), text);
            std::fs::rename(folder.join("config.new"), &file).expect("renamed");
        }
        _ => {
            std::fs::remove_file(&file).expect("removed");
            put(&file, text);
        }
    }
}

/// Says that it is over when it is dropped.
struct EndsWith<'a>(&'a AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn nothing_fails_and_nothing_is_cut(driver: &str) {
    let backends = [Backend::start(serve), Backend::start(serve), Backend::start(serve)];
    let addresses = backends.each_ref().map(|b| b.address);
    let (http, more) = (reserve(), reserve());
    let daemon = start(driver, &config(http, more, &addresses, 0));
    let (over, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    let memory = || memory_of(&daemon);
    std::thread::scope(|scope| {
        for nth in 0..4 {
            let (over, requests) = (&over, &requests);
            scope.spawn(move || {
                let mut client = Client::to(http);
                while !over.load(Ordering::SeqCst) {
                    let response = client.get("/").unwrap_or_else(|e| panic!("client {nth}: {e}"));
                    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
                    requests.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                    // Some come anew.
                    if nth % 2 == 1 {
                        client = Client::to(http);
                    }
                }
            });
        }
        let stream = scope.spawn(|| events(http, &over));
        let echo = scope.spawn(|| echoes(http, &over));
        let upload = scope.spawn(|| uploads(http, &over));
        let loads = scope.spawn(|| loads_of_http2(http, &over));
        let stream_of_http2 = scope.spawn(|| events_over_http2(http, &over));
        // If something fails here, the clients end too.
        let _clients = EndsWith(&over);
        let mut after_ten = 0;
        for nth in 1..=RELOADS {
            if nth % 10 == 0 {
                write(&daemon.directory.0, &["{", "", "via = 7\n"][nth / 10 % 3].repeat(3), nth);
                assert!(ask(&daemon).contains("not reloaded"));
            }
            write(&daemon.directory.0, &config(http, more, &addresses[..1 + nth % 3], nth), nth);
            let line = ask(&daemon);
            assert!(line.contains(" reloaded "), "{line}: {}", daemon.output());
            if nth == 40 {
                after_ten = memory();
            }
        }
        let (before, after) = (after_ten, memory());
        over.store(true, Ordering::SeqCst);
        assert!(stream.join().expect("the stream was not cut") > 20);
        assert!(echo.join().expect("the tunnel was not cut") > 20);
        upload.join().expect("the upload was not cut");
        assert!(loads.join().expect("no stream failed") > 1);
        assert!(stream_of_http2.join().expect("the stream of HTTP/2 was not cut") > 20);
        assert!(after < before + (8 << 20), "{before} bytes after 40 reloads, {after} after {RELOADS}");
    });
    assert!(requests.load(Ordering::SeqCst) > 100);
    daemon.stop();
}

/// Reads events until `over`; how many. Each follows the one before it.
fn events(http: SocketAddr, over: &AtomicBool) -> usize {
    let mut stream = connect(http);
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let (mut text, mut next) = (String::new(), 0);
    while !over.load(Ordering::SeqCst) {
        let mut buf = [0; 4096];
        let n = stream.read(&mut buf).expect("in time");
        assert!(n > 0, "cut after {next} events");
        text.push_str(std::str::from_utf8(&buf[..n]).expect("text"));
        while let Some(at) = text.find(&format!("data: {next}\n\n")) {
            text.drain(..at);
            next += 1;
        }
    }
    next
}

/// Requests over HTTP/2, many at once on each connection, until `over`; how many times.
fn loads_of_http2(http: SocketAddr, over: &AtomicBool) -> usize {
    let mut times = 0;
    while !over.load(Ordering::SeqCst) {
        let mut command = Command::new(program("h2load", "nghttp2-client"));
        let url = format!("http://{http}/");
        let stdout = output(command.args(["-n", "100", "-c", "2", "-m", "16", "-t", "1"]).arg(url));
        let good = "100 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(stdout.contains(good) && stdout.contains("status codes: 100 2xx"), "{stdout}");
        times += 1;
        std::thread::sleep(Duration::from_millis(250));
    }
    times
}

/// The same as [`events`] on a stream of HTTP/2.
fn events_over_http2(http: SocketAddr, over: &AtomicBool) -> usize {
    let mut command = Command::new(program("curl", "curl"));
    let url = format!("http://{http}/events");
    let mut child = command
        .args(["-sSN", "-m", "300", "--http2-prior-knowledge", &url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut next = 0;
    while !over.load(Ordering::SeqCst) {
        let mut line = String::new();
        lines.read_line(&mut line).expect("text");
        assert_eq!(line, format!("data: {next}\n"), "cut after {next} events");
        lines.read_line(&mut line).expect("text");
        next += 1;
    }
    assert_eq!(child.try_wait().expect("a child"), None, "it still reads");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    next
}

/// Sends bytes through an upgraded connection until `over`; how many came back.
fn echoes(http: SocketAddr, over: &AtomicBool) -> usize {
    let mut client = Client::to(http);
    client
        .send("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        .expect("sent");
    assert_eq!(client.response(false).expect("upgraded").status, 101);
    let mut echoed = 0;
    while !over.load(Ordering::SeqCst) {
        let byte = b'a' + (echoed % 26) as u8;
        client.send([byte]).expect("sent");
        assert_eq!(client.exact(1).expect("not cut"), [byte]);
        echoed += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    echoed
}

/// Sends one upload, the last part of it when it is `over`.
fn uploads(http: SocketAddr, over: &AtomicBool) {
    let mut stream = connect(http);
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let part = vec![b'x'; 64 << 10];
    let mut left = UPLOAD;
    while left > 0 {
        // In time it is half done, whatever the speed of this machine.
        if left <= UPLOAD / 2 && !over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
            stream.write_all(&part[..1024]).expect("not cut");
            left -= 1024;
            continue;
        }
        let n = left.min(part.len());
        stream.write_all(&part[..n]).expect("not cut");
        left -= n;
    }
    assert_eq!(Client::over(stream).response(false).expect("a response").status, 204);
}

/// Resident memory in bytes.
fn memory_of(daemon: &Daemon) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a number");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}
