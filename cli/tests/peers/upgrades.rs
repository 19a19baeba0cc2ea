//! WebSockets with Python's `websockets` on both ends, and tunnels at the level of bytes.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::process::Command;
use std::time::Duration;

use crate::client::Client;
use crate::daemon::{Daemon, TempDir};
use crate::nginx::{output, quick_start};
use crate::scripted_backend::Backend;
use crate::websocket_server::{WebSocketServer, python};

/// Twelve WebSocket clients at once. Arguments: a URL, and the address and port to connect to.
const CLIENT: &str = include_str!("websocket_client.py");

#[test]
fn websockets_pass_through_every_worker() {
    let folder = TempDir::new("websockets");
    let servers = ["left", "right"].map(|name| WebSocketServer::start(&folder, name));
    let daemon =
        Daemon::start(&quick_start(&[servers[0].address, servers[1].address], "", ""), &["--workers", "2"]);
    let script = folder.write("client.py", CLIENT);
    // The quick start's matcher needs this host; the client connects to loopback.
    let port = daemon.address().port().to_string();
    let url = format!("ws://example.com:{port}/chat?room=1");
    let stdout = output(Command::new(python("websockets")).arg(script).args([&url, "127.0.0.1", &port]));
    assert_eq!(stdout.trim(), [["left"; 6], ["right"; 6]].concat().join(" "));
    daemon.stop();
}

const UPGRADE: &str = "GET /t HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n";

#[test]
fn each_direction_of_a_tunnel_ends_by_itself() {
    // Reads until the client shuts down its direction, sends how many bytes that were, and closes.
    let counts = Backend::start(|mut p| {
        while let Some(head) = p.head() {
            if head.contains(" /health ") {
                p.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            p.send(SWITCHED);
            let rest = p.rest().map_or("it broke".into(), |r| r.len().to_string());
            std::thread::sleep(Duration::from_millis(50));
            p.send(rest);
            return;
        }
    });
    let daemon = Daemon::start(&quick_start(&[counts.address], "", ""), &["--workers", "2"]);
    let address = SocketAddr::new([127, 0, 0, 1].into(), daemon.address().port());
    // Bytes sent before the 101 response, and after it.
    for (early, later) in [(0, 5), (5, 0), (0, 0), (3000, 3 << 20)] {
        let mut client = Client::to(address);
        client.send(UPGRADE).expect("sent");
        client.send("x".repeat(early)).expect("sent");
        let response = client.response(false).expect("a response");
        assert_eq!((response.status, response.field("Upgrade")), (101, Some("bytes")));
        client.send("x".repeat(later)).expect("sent");
        client.stream().shutdown(Shutdown::Write).expect("open");
        let rest = client.rest().expect("a clean end");
        assert_eq!(String::from_utf8_lossy(&rest), (early + later).to_string());
    }

    // The backend shuts down its direction first and still receives what the client sends.
    let (sender, received) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let ends_first = Backend::start(move |mut p| {
        while let Some(head) = p.head() {
            if head.contains(" /health ") {
                p.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            p.send(SWITCHED.to_owned() + "all I have to say");
            p.shut_down();
            let _ = sender.lock().expect("no panic").send(p.rest());
            return;
        }
    });
    let daemon2 = Daemon::start(&quick_start(&[ends_first.address], "", ""), &["--workers", "2"]);
    let mut client = Client::to(SocketAddr::new([127, 0, 0, 1].into(), daemon2.address().port()));
    client.send(UPGRADE).expect("sent");
    assert_eq!(client.response(false).map(|a| a.status), Ok(101));
    assert_eq!(client.rest().as_deref(), Ok(&b"all I have to say"[..]));
    let mut stream = client.into_stream();
    stream.write_all(b"and I").expect("the other direction is open");
    stream.shutdown(Shutdown::Write).expect("open");
    assert_eq!(received.recv_timeout(crate::client::WAIT), Ok(Some(b"and I".to_vec())));
    drop(stream);
    daemon.stop();
    daemon2.stop();
}
