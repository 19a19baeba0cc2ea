//! What happens on a connection after its handshake, and between connections: resumed sessions, early data,
//! renegotiation, new keys, and how each direction ends.

use std::time::{Duration, Instant};

use crate::authority::Authority;
use crate::openssl::{self, Client};
use crate::proxy::{Proxy, field};
use crate::python;
use crate::scripted_backend::{Backend, ok};

on_each_driver!(
    sessions_are_resumed_by_all_workers_and_by_nobody_else,
    early_data_is_not_taken,
    nobody_renegotiates,
    keys_are_updated_in_both_directions,
    each_direction_ends_by_itself,
    connections_that_the_proxy_ends_are_told_so,
    tunnels_pass_bytes_and_ends,
);

fn sessions_are_resumed_by_all_workers_and_by_nobody_else(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), Backend::good("here"));
    let (a, b) = (authority.sign("a", &["a.test"]), authority.sign("b", &["b.test", "c.test"]));
    let ca = format!("client_ca = \"{}\"\nclient_auth = \"optional\"", authority.file().display());
    let certificates = [("a.test", &a, ""), ("b.test", &b, ""), ("c.test", &b, &*ca)];
    let proxy = Proxy::to(driver, &certificates, backend.address);
    let script = "
ca, port, version = sys.argv[1:]
def connect(name, session):
    c = context(ca, version)
    s = contexts.setdefault('', c).wrap_socket(socket.create_connection(('127.0.0.1', int(port)), timeout=15),
        server_hostname=name, session=session)
    s.sendall(b'GET /%s HTTP/1.1\\r\\nHost: %s\\r\\nConnection: close\\r\\n\\r\\n' % (
        b'with' if session else b'without', name.encode()))
    data = b''
    while True:
        part = s.recv(65536)
        if not part: break
        data += part
    assert data.startswith(b'HTTP/1.1 200 '), data
    return s
contexts = {}
first = connect('a.test', None)
assert not first.session_reused
assert first.session.has_ticket
session = first.session
for i in range(24):
    s = connect('a.test', session)
    assert s.session_reused, i
    # Tickets of TLS 1.3 are there to be used once each.
    session = s.session or session
for name in ('b.test', 'c.test'):
    s = connect(name, session)
    assert not s.session_reused, name
print('ok')
";
    for version in ["2", "3"] {
        let ca = authority.file().display().to_string();
        assert_eq!(python::run(script, &[&*ca, &proxy.port().to_string(), version]), "ok\n", "{version}");
    }
    let logged = proxy.logged("\"tls_resumed\":true", 2 * 24);
    assert_eq!(logged.len(), 2 * 24);
    for line in &logged {
        assert_eq!((field(line, "sni"), field(line, "target")), ("a.test", "/with"), "{line}");
    }
    for version in ["TLSv1.2", "TLSv1.3"] {
        let resumed: Vec<String> = proxy
            .steps("resumed, for a.test", 2 * 24)
            .into_iter()
            .filter(|l| l.contains(&format!(": {version} with")))
            .collect();
        for worker in [0, 1] {
            let name = format!("connection {worker}.");
            assert!(resumed.iter().any(|l| l.contains(&name)), "{version}: worker {worker}: {resumed:?}");
        }
    }
    proxy.stop();
}

fn early_data_is_not_taken(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), Backend::good("here"));
    let a = authority.sign("a", &["a.test"]);
    let proxy = Proxy::to(driver, &[("a.test", &a, "")], backend.address);
    let session = authority.folder.0.join("session").display().to_string();
    let request = b"GET /early HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let early = authority.folder.write("early", request).display().to_string();
    let first =
        openssl::request(proxy.address, "a.test", &authority.file(), &["-tls1_3", "-sess_out", &session]);
    assert!(first.contains("Max Early Data: 0"), "{first}");
    let arguments = ["-tls1_3", "-sess_in", &session, "-early_data", &early];
    let second = openssl::request(proxy.address, "a.test", &authority.file(), &arguments);
    assert!(second.contains("Reused, TLSv1.3"), "{second}");
    assert!(second.contains("Early data was not sent") && second.contains("here"), "{second}");
    assert_eq!(proxy.logged("\"method\":\"GET\"", 2).len(), 2);
    assert!(proxy.logged("/early", 0).is_empty());
    proxy.stop();
}

fn nobody_renegotiates(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), Backend::good("here"));
    let a = authority.sign("a", &["a.test"]);
    let proxy = Proxy::to(driver, &[("a.test", &a, "")], backend.address);
    let mut client = Client::connect(proxy.address, "a.test", &authority.file(), &["-tls1_2"]);
    client.wait_for("Verify return code: 0 (ok)");
    client.send("R\n");
    let output = client.end();
    assert!(output.contains("RENEGOTIATING") && output.contains("no renegotiation"), "{output}");
    // Whoever begs and insists is no better off, and costs the log no line.
    for _ in 0..3 {
        let mut client = Client::connect(proxy.address, "a.test", &authority.file(), &["-tls1_2"]);
        client.wait_for("Verify return code: 0 (ok)");
        client.send("GET /before HTTP/1.1\r\nHost: a.test\r\n\r\n");
        client.wait_for("here");
        client.send("R\n");
        client.end();
    }
    assert!(!proxy.daemon.output().contains("WARN"), "{}", proxy.daemon.output());
    proxy.stop();
}

fn keys_are_updated_in_both_directions(driver: &str) {
    let big = "0123456789".repeat(10_000);
    let body = big.clone();
    let backend = Backend::start(move |mut peer| while peer.request().is_some() && peer.send(ok(&body)) {});
    let authority = Authority::new("ca");
    let a = authority.sign("a", &["a.test"]);
    let proxy = Proxy::to(driver, &[("a.test", &a, "")], backend.address);
    let mut client = Client::connect(proxy.address, "a.test", &authority.file(), &["-tls1_3"]);
    client.wait_for("Verify return code: 0 (ok)");
    let until = |client: &Client, part: &str, count: usize| {
        let begun = Instant::now();
        while client.output().matches(part).count() < count {
            assert!(begun.elapsed() < Duration::from_secs(10), "{}", client.output());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    // Its own keys, then those of both, again and again. What it sends comes in pieces of their own.
    for (i, command) in ["k\n", "K\n", "k\n", "K\n", "K\n", "k\n"].into_iter().enumerate() {
        client.send(command);
        until(&client, "KEYUPDATE", i + 1);
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        until(&client, &big, i + 1);
    }
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    let output = client.end();
    assert_eq!(output.matches("200 OK").count(), 7, "{output}");
    assert_eq!(output.matches(&big).count(), 7, "the bodies are whole");
    assert!(!output.contains("unexpected eof"), "{output}");
    proxy.stop();
}

fn each_direction_ends_by_itself(driver: &str) {
    // It answers once the whole request is there, and a little later than it could.
    let backend = Backend::start(|mut peer| {
        while peer.request().is_some() {
            std::thread::sleep(Duration::from_millis(30));
            if !peer.send(ok(&"x".repeat(50_000))) {
                return;
            }
        }
    });
    let authority = Authority::new("ca");
    let a = authority.sign("a", &["a.test"]);
    let proxy = Proxy::to(driver, &[("a.test", &a, "")], backend.address);
    let script = "
ca, port, version = sys.argv[1:]
address = ('127.0.0.1', int(port))
def connect():
    return Wire(address, context(ca, version), 'a.test').handshake()
upload = b'POST /%s HTTP/1.1\\r\\nHost: a.test\\r\\nContent-Length: 100\\r\\n\\r\\n'
# The end of a whole request is no reason not to answer it: with the end of TCP and without.
for fin in (True, False):
    w = connect()
    w.send(upload % b'whole' + b'y' * 100)
    w.close_notify()
    if fin:
        w.socket.shutdown(socket.SHUT_WR)
    data = w.rest()
    assert data.startswith(b'HTTP/1.1 200 ') and data.endswith(b'x' * 50000), (fin, data[:200])
# Bytes behind close_notify do not count.
w = connect()
w.send(upload % b'whole' + b'y' * 100)
w.close_notify()
w.socket.sendall(b'anything')
assert w.rest().endswith(b'x' * 50000)
# The end of half a request is told so.
w = connect()
w.send(upload % b'half' + b'y' * 50)
w.close_notify()
data = w.rest()
assert data.startswith(b'HTTP/1.1 499 '), data
# Ends of connections that carry no request, in every state.
w = connect()
w.close_notify()
assert w.rest() == b''
w = connect()
w.send(b'GET /half-a-head HTTP/1.1\\r\\nHos')
w.close_notify()
assert w.rest() == b''
# The server says close_notify where only the end of the connection ends the body.
w = connect()
w.send(b'GET / HTTP/1.0\\r\\nHost: a.test\\r\\n\\r\\n')
assert w.rest().endswith(b'x' * 50000)
print('ok')
";
    for version in ["2", "3"] {
        let ca = authority.file().display().to_string();
        assert_eq!(python::run(script, &[&*ca, &proxy.port().to_string(), version]), "ok\n", "{version}");
    }
    for line in proxy.logged("\"target\":\"/half\"", 2) {
        assert_eq!((field(&line, "status"), field(&line, "bytes_in")), ("499", "50"), "{line}");
    }
    proxy.stop();
}

fn connections_that_the_proxy_ends_are_told_so(driver: &str) {
    // It answers `/slow` only when everything else is over.
    let backend = Backend::start(|mut peer| {
        while let Some(head) = peer.request() {
            if head.contains("/slow") {
                std::thread::sleep(Duration::from_millis(500));
            }
            if !peer.send(ok("here")) {
                return;
            }
        }
    });
    let authority = Authority::new("ca");
    let a = authority.sign("a", &["a.test"]);
    let pool = format!("[[backend_pools]]\naddresses = [\"{}\"]\n", backend.address);
    let ca = authority.file().display().to_string();
    // An end without `close_notify` is an error in `rest`.
    let script = "
ca, port, version, what = sys.argv[1:]
w = Wire(('127.0.0.1', int(port)), context(ca, version), 'a.test').handshake()
w.send(b'GET /%s HTTP/1.1\\r\\nHost: a.test\\r\\n\\r\\n' % what.encode())
data = w.rest()
assert data.startswith(b'HTTP/1.1 200 ') and data.endswith(b'here'), data
print('ok')
";
    let idle = "timeouts = { idle = \"300ms\" }";
    let proxy = Proxy::start(driver, idle, &[("a.test", &a, "")], &pool);
    for version in ["2", "3"] {
        assert_eq!(python::run(script, &[&*ca, &proxy.port().to_string(), version, "idle"]), "ok\n");
    }
    proxy.stop();

    let proxy = Proxy::start(driver, "", &[("a.test", &a, "")], &pool);
    let clients = ["2", "3"].map(|version| {
        ["quick", "slow"].map(|what| {
            let (ca, port) = (ca.clone(), proxy.port().to_string());
            std::thread::spawn(move || python::run(script, &[&*ca, &*port, version, what]))
        })
    });
    proxy.logged("/quick", 2);
    proxy.steps("GET /slow", 2);
    // Those that are idle end, those that wait for a response get it, and then the process ends.
    proxy.stop();
    for client in clients.into_iter().flatten() {
        assert_eq!(client.join().expect("no panic"), "ok\n");
    }
}

fn tunnels_pass_bytes_and_ends(driver: &str) {
    // It sends back all that comes, and a word when that is over.
    let backend = Backend::start(|mut peer| {
        if peer.head().is_none() {
            return;
        }
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        if let Some(all) = peer.rest() {
            peer.send(all);
            peer.send("over");
        }
    });
    let authority = Authority::new("ca");
    let a = authority.sign("a", &["a.test"]);
    let proxy = Proxy::to(driver, &[("a.test", &a, "")], backend.address);
    let script = "
ca, port, version = sys.argv[1:]
address = ('127.0.0.1', int(port))
def connect():
    w = Wire(address, context(ca, version), 'a.test').handshake()
    w.send(b'GET / HTTP/1.1\\r\\nHost: a.test\\r\\nConnection: upgrade\\r\\nUpgrade: echo\\r\\n\\r\\n')
    head = b''
    while not head.endswith(b'\\r\\n\\r\\n'):
        head += w.run(lambda: w.tls.read(1))
    assert head.startswith(b'HTTP/1.1 101 '), head
    return w
data = bytes(i * 7 % 256 for i in range(300000))
w = connect()
for i in range(0, len(data), 50000):
    w.send(data[i:i + 50000])
# The end of this direction is told to the backend; the other one goes on.
w.close_notify()
assert w.rest() == data + b'over'
# A cut is told as one, and is no end.
w = connect()
w.send(b'half')
w.socket.shutdown(socket.SHUT_WR)
try:
    rest = w.rest()
    raise Exception('a whole end: %r' % rest)
except (ssl.SSLError, ConnectionResetError):
    pass
print('ok')
";
    for version in ["2", "3"] {
        let ca = authority.file().display().to_string();
        assert_eq!(python::run(script, &[&*ca, &proxy.port().to_string(), version]), "ok\n", "{version}");
    }
    proxy.stop();
}
