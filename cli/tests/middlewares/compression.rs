//! `Compression`: what it makes is decoded by curl, gzip and Python.

use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::daemon::{Daemon, TempDir};
use crate::nginx::{output, program};
use crate::scripted_backend::Backend;

on_each_driver!(
    curl_decodes_every_coding,
    gzip_and_python_decode_what_is_theirs,
    events_arrive_one_by_one,
    a_backend_that_dies_fails_the_download,
);

const CODINGS: [&str; 4] = ["br", "zstd", "gzip", "deflate"];

/// A daemon with the middleware as the guide has it.
fn daemon(driver: &str, backend: &Backend) -> Daemon {
    let config = format!(
        "driver = \"{driver}\"\nhttp_address = \"127.0.0.1:0\"\n\n\
         [health_interval]\ncheck_every = 0\n\n[[backend_pools]]\naddresses = [\"{}\"]\n\n\
         [backend_pools.middlewares.Compression]\n",
        backend.address
    );
    Daemon::start(&config, &[])
}

/// Text in which something repeats, and something does not.
fn text(len: usize) -> String {
    let mut state = 7_u32;
    let line = |i: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("{{\"id\":{i},\"name\":\"item\",\"value\":{}}},\n", state >> 8)
    };
    let mut text: String = (0..len / 20).map(line).collect();
    text.truncate(len);
    text
}

/// A backend with content of the length that the path says: `/chunked/N` or `/N`.
fn texts() -> Backend {
    Backend::start(|mut peer| {
        while let Some(head) = peer.request() {
            let path = head.split(' ').nth(1).unwrap_or_default();
            let len = path.rsplit('/').next().and_then(|len| len.parse().ok()).unwrap_or(0);
            let body = text(len);
            let typed = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"1\"\r\n";
            let sent = if path.starts_with("/chunked/") {
                let chunks: String = body
                    .as_bytes()
                    .chunks(1500)
                    .map(|c| format!("{:x}\r\n{}\r\n", c.len(), String::from_utf8_lossy(c)))
                    .collect();
                format!("{typed}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
            } else {
                format!("{typed}Content-Length: {len}\r\n\r\n{body}")
            };
            if !peer.send(sent) {
                break;
            }
        }
    })
}

fn curl_decodes_every_coding(driver: &str) {
    let (backend, folder) = (texts(), TempDir::new("compression-curl"));
    let daemon = daemon(driver, &backend);
    let file = folder.0.join("body");
    for version in ["--http1.1", "--http1.0"] {
        for path in ["chunked/30000", "2000", "20480", "1000000"] {
            let len: usize = path.rsplit('/').next().and_then(|len| len.parse().ok()).expect("a length");
            for coding in CODINGS {
                let shown = output(
                    Command::new(program("curl", "curl"))
                        .args(["-sS", "-m", "20", "--compressed", version, "-D", "-", "-o"])
                        .arg(&file)
                        .args(["-H", &format!("Accept-Encoding: {coding}"), "-w", "size=%{size_download}\n"])
                        .arg(format!("http://{}/{path}", daemon.address())),
                );
                let case = format!("{version} {path} {coding}: {shown}");
                assert!(std::fs::read_to_string(&file).expect("a body") == text(len), "{case}");
                for expected in
                    [&*format!("Content-Encoding: {coding}"), "Vary: Accept-Encoding", "ETag: W/\"1\""]
                {
                    assert!(shown.lines().any(|line| line == expected), "{case}");
                }
                let chunked = shown.lines().any(|line| line == "Transfer-Encoding: chunked");
                assert_eq!(chunked, version == "--http1.1", "{case}");
                let size: usize =
                    shown.rsplit("size=").next().and_then(|s| s.trim().parse().ok()).expect("a size");
                assert!(size < len / 3, "{case}");
            }
        }
    }
    // Without curl's own decoder, and what is not compressed.
    for (arguments, len) in [(&["-I"][..], 2000), (&["-H", "Accept-Encoding: gzip"], 1000), (&[], 2000)] {
        let shown = output(
            Command::new(program("curl", "curl"))
                .args(["-sS", "-m", "20", "-D", "-", "-o", "/dev/null"])
                .args(arguments)
                .arg(format!("http://{}/{len}", daemon.address())),
        );
        assert!(shown.contains(&format!("Content-Length: {len}\r\n")), "{shown}");
        assert!(!shown.contains("Content-Encoding"), "{shown}");
    }
    daemon.stop();
}

const PYTHON: &str = "
import gzip, http.client, sys, zlib
host, length = sys.argv[1], int(sys.argv[2])
def get(coding):
    c = http.client.HTTPConnection(host, timeout=20)
    c.request('GET', '/%d' % length, headers={'Accept-Encoding': coding})
    r = c.getresponse()
    assert r.getheader('Content-Encoding') == coding.split(';')[0], r.getheaders()
    return r.read()
one, two = gzip.decompress(get('gzip')), zlib.decompress(get('deflate;q=0.5'))
assert one == two and len(one) == length, (len(one), len(two))
print('the same')
";

fn gzip_and_python_decode_what_is_theirs(driver: &str) {
    let (backend, folder) = (texts(), TempDir::new("compression-gzip"));
    let daemon = daemon(driver, &backend);
    let shown = output(Command::new(program("python3", "python3")).args([
        "-c",
        PYTHON,
        &daemon.address().to_string(),
        "300000",
    ]));
    assert_eq!(shown, "the same\n");
    let file = folder.0.join("body.gz");
    output(
        Command::new(program("curl", "curl"))
            .args(["-sS", "-m", "20", "-H", "Accept-Encoding: gzip", "-o"])
            .arg(&file)
            .arg(format!("http://{}/chunked/100000", daemon.address())),
    );
    let shown = output(Command::new(program("gzip", "gzip")).arg("-dc").arg(&file));
    assert!(shown == text(100_000), "{} bytes", shown.len());
    daemon.stop();
}

/// Reads an event stream and, by a request of its own, asks for the next event once it has decoded one.
const EVENTS: &str = "
import http.client, socket, sys, zlib
host, port = sys.argv[1].rsplit(':', 1)
s = socket.create_connection((host, int(port)), timeout=10)
s.sendall(b'GET /events HTTP/1.1\\r\\nHost: a\\r\\nAccept-Encoding: gzip\\r\\n\\r\\n')
f = s.makefile('rb')
while True:
    line = f.readline()
    assert line, 'no head'
    if line == b'\\r\\n': break
decoder, text, seen = zlib.decompressobj(31), b'', 0
while True:
    size = int(f.readline(), 16)
    if size == 0: break
    text += decoder.decompress(f.read(size))
    f.readline()
    while text.count(b'\\n\\n') > seen:
        seen += 1
        c = http.client.HTTPConnection(sys.argv[1], timeout=10)
        c.request('GET', '/next')
        c.getresponse().read()
assert decoder.eof
print(text.decode(), end='')
";

fn events_arrive_one_by_one(driver: &str) {
    const EVENTS_SENT: usize = 20;
    let (ask, asked) = channel::<()>();
    let (ask, asked) = (Mutex::new(ask), Arc::new(Mutex::new(asked)));
    let backend = Backend::start(move |mut peer| {
        while let Some(head) = peer.request() {
            if head.starts_with("get /next ") {
                let _ = ask.lock().expect("no panic").send(());
                if !peer.send("HTTP/1.1 204 No Content\r\n\r\n") {
                    return;
                }
                continue;
            }
            peer.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            for n in 0..EVENTS_SENT {
                let event = format!("data: {n}\n\n");
                peer.send(format!("{:x}\r\n{event}\r\n", event.len()));
                // Without it the client has not been able to read the event.
                if asked.lock().expect("no panic").recv_timeout(Duration::from_secs(10)).is_err() {
                    return;
                }
            }
            peer.send("0\r\n\r\n");
        }
    });
    let daemon = daemon(driver, &backend);
    let address = daemon.address().to_string();
    let shown = output(Command::new(program("python3", "python3")).args(["-c", EVENTS, &address]));
    let expected: String = (0..EVENTS_SENT).map(|n| format!("data: {n}\n\n")).collect();
    assert_eq!(shown, expected);
    daemon.stop();
}

fn a_backend_that_dies_fails_the_download(driver: &str) {
    let backend = Backend::start(|mut peer| {
        if let Some(head) = peer.request() {
            let framing = if head.contains("/chunked") {
                "Transfer-Encoding: chunked"
            } else {
                "Content-Length: 99999"
            };
            let part = text(5000);
            let part =
                if head.contains("/chunked") { format!("{:x}\r\n{part}\r\n", part.len()) } else { part };
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{framing}\r\n\r\n{part}"));
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let daemon = daemon(driver, &backend);
    let mut cut = 0;
    for version in ["--http1.1", "--http1.0"] {
        for path in ["length", "chunked"] {
            for coding in ["gzip", "br"] {
                // Not decoded: the transfer itself has to fail.
                let out = Command::new(program("curl", "curl"))
                    .args([
                        "-sS",
                        "-m",
                        "20",
                        version,
                        "-o",
                        "/dev/null",
                        "-w",
                        "%{http_code} %{size_download}",
                    ])
                    .args(["-H", &format!("Accept-Encoding: {coding}")])
                    .arg(format!("http://{}/{path}", daemon.address()))
                    .stdin(Stdio::null())
                    .output()
                    .expect("curl runs");
                let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
                let case = format!("{version} {path} {coding}: {} {stdout} {out:?}", out.status);
                if stdout.starts_with("502 ") {
                    // The end came so soon that nothing of the response had been sent.
                    continue;
                }
                // CURLE_PARTIAL_FILE or CURLE_RECV_ERROR.
                assert!(stdout.starts_with("200 ") && matches!(out.status.code(), Some(18 | 56)), "{case}");
                cut += 1;
            }
        }
    }
    assert!(cut > 0, "each of them ended too soon");
    daemon.stop();
}
