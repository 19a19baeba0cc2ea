//! WebSockets with Python's `websockets` on both ends, and tunnels at the level of bytes.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client::Client;
use crate::daemon::{Daemon, TempDir};
use crate::nginx::{output, program, quick_start};
use crate::scripted_backend::Backend;

/// A WebSocket server: echoes, sends its name for `name`, pings for `ping`, closes with 4001 for `close`. It
/// answers health checks.
const SERVER: &str = "
import asyncio, http, sys, websockets
async def echo(ws):
    async for m in ws:
        if m == 'name': await ws.send(sys.argv[1])
        elif m == 'ping': await asyncio.wait_for(await ws.ping(), 10); await ws.send('ponged')
        elif m == 'close': await ws.close(4001, 'as you wish'); return
        else: await ws.send(m)
async def health(path, headers):
    if path == '/health': return http.HTTPStatus.OK, [], b'fine'
async def main():
    async with websockets.serve(lambda ws: echo(ws), '127.0.0.1', 0, process_request=health, max_size=1 << 24) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
";

/// Twelve WebSocket clients at once; prints the names of the servers that they reached.
const CLIENT: &str = "
import asyncio, os, sys, websockets
url = sys.argv[1]
async def one(i):
    async with websockets.connect(url, max_size=1 << 24, subprotocols=None) as ws:
        await ws.send('name')
        name = await ws.recv()
        for n in range(50):
            await ws.send(f'{i} {n}')
            assert await ws.recv() == f'{i} {n}'
        big = os.urandom(1 << 20)
        await ws.send(big)
        assert await ws.recv() == big
        for n in range(200): await ws.send(str(n))
        for n in range(200): assert await ws.recv() == str(n)
        await asyncio.wait_for(await ws.ping(b'are you there'), 10)
        await ws.send('ping')
        assert await ws.recv() == 'ponged'
        if i % 2:
            await ws.send('close')
            try:
                await ws.recv()
                assert False, 'it was not closed'
            except websockets.ConnectionClosed as e:
                assert e.rcvd.code == 4001 and e.rcvd.reason == 'as you wish', e
        return name
async def main():
    names = await asyncio.gather(*(one(i) for i in range(12)))
    print(' '.join(sorted(names)))
asyncio.run(asyncio.wait_for(main(), 40))
";

struct Server(Child, SocketAddr);

impl Server {
    fn start(folder: &TempDir, name: &str) -> Self {
        let script = folder.write("server.py", SERVER);
        let mut command = Command::new(python());
        let mut child = command
            .arg(script)
            .arg(name)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut port = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut port).expect("text");
        let mut server = Self(child, ([127, 0, 0, 1], 0).into());
        server.1.set_port(port.trim().parse().expect("a port"));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's Python, for which Debian's modules are installed.
fn python() -> std::path::PathBuf {
    let python = program("python3", "python3");
    let has = Command::new(&python)
        .args(["-c", "import websockets"])
        .stderr(Stdio::null())
        .status()
        .expect("it starts")
        .success();
    assert!(
        has,
        "the module websockets is missing and this test needs it: install the Debian package python3-websockets"
    );
    python
}

#[test]
fn websockets_pass_through_every_worker() {
    let folder = TempDir::new("websockets");
    let servers = ["left", "right"].map(|name| Server::start(&folder, name));
    let daemon = Daemon::start(&quick_start(&[servers[0].1, servers[1].1], "", ""), &["--workers", "2"]);
    let script = folder.write(
        "client.py",
        CLIENT.replace("websockets.connect(url,", "websockets.connect(url, extra_headers={},"),
    );
    // The quick start's matcher needs this host; the client connects to loopback.
    let url = format!("ws://example.com:{}/chat?room=1", daemon.address().port());
    let script_text = std::fs::read_to_string(&script).expect("just written");
    let script = folder.write(
        "client.py",
        script_text.replace(
            "subprotocols=None",
            &format!(
                "host='127.0.0.1', port={}, subprotocols=['chat', 'superchat']",
                daemon.address().port()
            ),
        ),
    );
    let stdout = output(Command::new(python()).arg(script).arg(url));
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
