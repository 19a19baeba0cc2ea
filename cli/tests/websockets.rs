//! WebSockets over HTTP/2 with real peers: Python's `websockets` at both ends, its `h2` as a client, and
//! HAProxy, which speaks HTTP/1.1 on one side and HTTP/2 on the other, before the proxy and behind it. If a
//! peer is not installed its tests fail with the name of its Debian package.
//!
//! A test is a function of the driver; [`on_each_driver!`] makes two tests of it, one for each driver.

#[path = "support/on_each_driver.rs"]
#[macro_use]
mod on_each_driver;

#[path = "support/address.rs"]
mod address;
#[path = "tls/authority.rs"]
#[allow(dead_code, reason = "tls.rs uses the rest")]
mod authority;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "process.rs uses the rest")]
mod daemon;
#[path = "support/nginx.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod nginx;
#[path = "tls/proxy.rs"]
#[allow(dead_code, reason = "tls.rs uses the rest")]
mod proxy;
#[path = "http2_backends/servers.rs"]
#[allow(dead_code, reason = "http2_backends.rs uses the rest")]
mod servers;
#[path = "support/websocket_server.rs"]
mod websocket_server;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use authority::Authority;
use daemon::TempDir;
use nginx::output;
use proxy::{Proxy, field};
use rustix::process::Signal;
use servers::Server;
use websocket_server::{WebSocketServer, python};

/// Twelve WebSocket clients at once. Arguments: a URL, the address and port to connect to, and for TLS an
/// authority.
const CLIENT: &str = include_str!("peers/websocket_client.py");
/// WebSockets on streams. Arguments: the port of the proxy, what to do, and for TLS an authority.
const STREAMS: &str = include_str!("websockets/streams.py");

on_each_driver!(
    between_any_two_protocols,
    on_streams_of_one_connection,
    over_tls_by_either_protocol,
    a_stop_leaves_them_their_time
);

/// A pool of one backend, by HTTP/1.1 or by HTTP/2 from the first byte.
fn pool(scheme: &str, backend: SocketAddr) -> String {
    format!("[[backend_pools]]\naddresses = [\"{scheme}://{backend}\"]\n")
}

/// The clients' own script, whatever is between them and the server.
fn between_any_two_protocols(driver: &str) {
    let folder = TempDir::new("websockets");
    let script = folder.write("client.py", CLIENT);
    let server = WebSocketServer::start(&folder, "here");
    for (http2_clients, http2_backends) in [(true, false), (false, true), (true, true)] {
        let behind = http2_backends.then(|| Server::haproxy(None, server.address));
        let pool = match &behind {
            Some(haproxy) => pool("h2c", haproxy.address),
            None => pool("http", server.address),
        };
        // HAProxy says of every request that its scheme is https: from a trusted proxy that is taken.
        let proxy = Proxy::start(driver, "trusted_proxies = [\"127.0.0.0/8\"]", &[], &pool);
        let before = http2_clients.then(|| Server::haproxy_to(proxy.address));
        let address = before.as_ref().map_or(proxy.address, |haproxy| haproxy.address);
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let url = format!("ws://example.com:{port}/chat?room=1");
        let mut command = Command::new(python("websockets"));
        let said = output(command.arg(&script).args([&url, &ip, &port]));
        assert_eq!(said.trim(), ["here"; 12].join(" "), "{http2_clients} {http2_backends}");
        let (status, version) = if http2_clients { ("200", "2.0") } else { ("101", "1.1") };
        let lines = proxy.logged("/chat", 12);
        for line in &lines {
            let logged = ["status", "version", "method", "cause"].map(|name| field(line, name));
            assert_eq!(logged, [status, version, "GET", "null"], "{line}");
        }
        proxy.stop();
    }
}

/// What a client of HTTP/2 does with them, and what it is told.
fn on_streams_of_one_connection(driver: &str) {
    let folder = TempDir::new("websocket-streams");
    let script = folder.write("streams.py", STREAMS);
    let server = WebSocketServer::start(&folder, "here");
    let haproxy = Server::haproxy(None, server.address);
    for pool in [pool("http", server.address), pool("h2c", haproxy.address)] {
        let proxy = Proxy::start(driver, "", &[], &pool);
        for what in ["many", "stalled", "ends", "refused"] {
            if what == "refused" && pool.contains("h2c") {
                // What HAProxy makes of a server's success is its own.
                continue;
            }
            let mut command = Command::new(python("h2"));
            let said = output(command.arg(&script).arg(proxy.port().to_string()).arg(what));
            assert_eq!(said.trim(), "done", "{what}");
        }
        proxy.stop();
    }
}

/// `wss://` with HTTP/1.1, and on streams of a connection that has chosen HTTP/2, to a plain backend.
fn over_tls_by_either_protocol(driver: &str) {
    let (authority, folder) = (Authority::new("ca"), TempDir::new("websockets-tls"));
    let pair = authority.sign("front", &["example.com"]);
    let (client, streams) = (folder.write("client.py", CLIENT), folder.write("streams.py", STREAMS));
    let server = WebSocketServer::start(&folder, "here");
    let certificates = [("example.com", &pair, "")];
    let proxy = Proxy::start(driver, "", &certificates, &pool("http", server.address));
    let (ip, port) = (proxy.address.ip().to_string(), proxy.port().to_string());
    let url = format!("wss://example.com:{port}/chat?room=1");
    let mut command = Command::new(python("websockets"));
    let said = output(command.arg(client).args([&url, &ip, &port]).arg(authority.file()));
    assert_eq!(said.trim(), ["here"; 12].join(" "));
    for line in proxy.logged("/chat", 12) {
        let logged = ["status", "version", "method", "cause"].map(|name| field(&line, name));
        assert_eq!(logged, ["101", "1.1", "GET", "null"], "{line}");
    }
    for what in ["many", "stalled", "ends", "refused"] {
        let mut command = Command::new(python("h2"));
        let said = output(command.arg(&streams).args([&port, what]).arg(authority.file()));
        assert_eq!(said.trim(), "done", "{what}");
    }
    let opened = |line: &&String| field(line, "status") == "200" && field(line, "version") == "2.0";
    assert!(proxy.logged("/chat", 32).iter().filter(opened).count() >= 20);
    proxy.stop();
}

/// A stop ends the connection once its WebSockets have ended.
fn a_stop_leaves_them_their_time(driver: &str) {
    let folder = TempDir::new("websocket-stop");
    let script = folder.write("streams.py", STREAMS);
    let server = WebSocketServer::start(&folder, "here");
    let mut proxy = Proxy::start(driver, "", &[], &pool("http", server.address));
    let mut command = Command::new(python("h2"));
    command.arg(&script).arg(proxy.port().to_string()).arg("drained").stdout(Stdio::piped());
    let mut client = command.spawn().expect("it starts");
    let mut said = BufReader::new(client.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert_eq!(said.next().as_deref(), Some("open"));
    proxy.daemon.signal(Signal::TERM);
    assert_eq!(said.next().as_deref(), Some("done"));
    assert!(client.wait().expect("our child").success());
    assert!(proxy.daemon.wait().success(), "{}", proxy.daemon.output());
    let lines = proxy.logged("/chat", 1);
    assert!(lines.iter().all(|line| field(line, "cause") == "null"), "{lines:?}");
}
