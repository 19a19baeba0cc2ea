//! What goes wrong: backends that are killed, that leave, and that speak something else.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::nginx::program;
use crate::proxy::{Proxy, field};
use crate::servers::{Server, curl, h2c, load};

on_each_driver!(
    a_backend_is_killed_under_load,
    connections_end_under_load,
    http1_where_http2_is_to_be_spoken,
    health_checks_over_http2,
);

/// Requests that read are repeated: whoever kills a backend cuts what it has half said, and nothing else.
fn a_backend_is_killed_under_load(driver: &str) {
    let (mut one, two) = (Server::nginx(None, ""), Server::nginx(None, ""));
    let health = "retries = 2\n[backend_pools.health_config]\npath = \"/health\"\ncheck_every = 1\ntimeout = 5000\nslow_threshold = 0";
    let top = "[health_interval]\ncheck_every = 1\n";
    let proxy = Proxy::start(driver, top, &[], &h2c(&[&one, &two], health));
    let mut h2load = Command::new(program("h2load", "nghttp2-client"));
    let url = format!("http://{}/load", proxy.address);
    let child = h2load
        .args(["-D", "4", "-c", "32", "-t", "1", "-m", "4", &url])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    std::thread::sleep(Duration::from_millis(1200));
    one.kill();
    std::thread::sleep(Duration::from_millis(1000));
    one.restart();
    let out = child.wait_with_output().expect("our child");
    let stdout = String::from_utf8_lossy(&out.stdout);
    let status = stdout.lines().find(|l| l.starts_with("status codes:")).expect("a summary").to_owned();
    let good: u32 = status.split(' ').nth(2).and_then(|n| n.parse().ok()).expect("a number");
    assert!(good > 500, "{stdout}");
    assert!(status.contains(" 0 3xx, 0 4xx, 0 5xx"), "{stdout}");
    // What was under way when h2load's time was over has been cancelled by it.
    let output = proxy.daemon.output();
    let ours = |l: &&str| l.contains("\"cause\":\"") && !l.contains("\"cause\":\"client_closed\"");
    let cut = output.lines().filter(ours).count();
    assert!(cut <= 32 * 4, "{cut} responses were cut: more than were under way");
    // It is found to be well again, and used.
    let before = one.log().len();
    let begun = std::time::Instant::now();
    while one.log().len() < before + 20 {
        assert!(begun.elapsed() < crate::client::WAIT, "{}", proxy.daemon.output());
        load(&url, 100, false);
    }
    proxy.stop();
}

/// nginx says GOAWAY after so many requests: nobody notices.
fn connections_end_under_load(driver: &str) {
    let server = Server::nginx(None, "keepalive_requests 50;");
    let proxy = Proxy::start(driver, "", &[], &h2c(&[&server], "retries = 0"));
    let url = format!("http://{}/many", proxy.address);
    for http1 in [true, false] {
        load(&url, 3000, http1);
    }
    let log = server.logged("/many", 6000);
    let connections = log.iter().map(|line| &line[0]).collect::<BTreeSet<_>>().len();
    assert!(log.len() == 6000 && connections >= 50, "{} requests, {connections} connections", log.len());
    let output = proxy.daemon.output();
    // A client of HTTP/1.1 leaves once it has all that Content-Length says, perhaps before nginx ends the
    // stream.
    let ours = |l: &&str| l.contains("\"cause\":\"") && !l.contains("\"cause\":\"client_closed\"");
    let failed: Vec<&str> = output.lines().filter(ours).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    proxy.stop();
}

fn http1_where_http2_is_to_be_spoken(driver: &str) {
    let server = Server::nginx_of_http1();
    let proxy = Proxy::start(driver, "", &[], &h2c(&[&server], ""));
    let url = format!("http://{}/", proxy.address);
    for http2 in [false, true] {
        let got = curl(http2, &["-w", " %{http_code}", &url]);
        assert!(got.contains("not_http2") && got.ends_with(" 502"), "{got}");
    }
    let lines = proxy.logged("\"status\":502", 2);
    assert!(lines.iter().all(|line| field(line, "cause") == "not_http2"), "{lines:?}");
    let told = format!("backend {}: it answers in HTTP/1, where HTTP/2 is to be spoken", server.address);
    proxy.daemon.wait_for(&told);
    proxy.stop();
}

/// Checks are HTTP/2 where that is all that is spoken, and find out what is away.
fn health_checks_over_http2(driver: &str) {
    let mut servers = [Server::nginx(None, ""), Server::nghttpd(None, 100, &[])];
    servers[1].keep("health", b"all is well\n");
    servers[0].keep("files/health", b"all is well\n");
    for (at, path) in [(0, "/files/health"), (1, "/health")] {
        let health = format!(
            "[backend_pools.health_config]\npath = \"{path}\"\ncheck_every = 1\ntimeout = 5000\nslow_threshold = 0\nbody_contains = \"is well\""
        );
        let top = "[health_interval]\ncheck_every = 1\n";
        let proxy = Proxy::start(driver, top, &[], &h2c(&[&servers[at]], &health));
        let healthy = format!("\"backend\":\"{}\"", servers[at].address);
        let wait = |word: &str| {
            let begun = std::time::Instant::now();
            loop {
                let output = proxy.daemon.output();
                let mut lines = output.lines().filter(|l| l.contains(&healthy) || l.contains("health"));
                if lines.any(|l| l.to_lowercase().contains(word)) {
                    return;
                }
                assert!(begun.elapsed() < crate::client::WAIT, "{word}: {output}");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        wait("is healthy");
        servers[at].kill();
        wait("unhealthy");
        proxy.stop();
    }
}
