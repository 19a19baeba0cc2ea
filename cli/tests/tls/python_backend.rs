//! Backends by Python's `ssl`, each on a port of its own, with one process for all of them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::authority::Pair;
use crate::nginx::program;

/// What one of them does once it has read a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Says what it knows of the connection: the version, the server name, whether the session was resumed,
    /// and the subject of the client's certificate.
    Tells,
    /// A body whose end is that of the connection, told by `close_notify`.
    Ends,
    /// The same, cut.
    Cuts,
    /// A body of half its length, and `close_notify`.
    Halves,
    /// Bytes that are no record.
    Garbage,
    /// Nothing: the connection is cut.
    Silent,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Listener<'l> {
    pub(crate) manner: Manner,
    pub(crate) pair: &'l Pair,
    /// Who has to have signed the certificates of clients, if they have to show one.
    pub(crate) clients: Option<&'l Path>,
    /// `2` or `3`; empty for both.
    pub(crate) version: &'static str,
}

impl<'l> Listener<'l> {
    pub(crate) fn new(manner: Manner, pair: &'l Pair) -> Self {
        Self { manner, pair, clients: None, version: "" }
    }
}

const SCRIPT: &str = r"
import os, socket, ssl, sys, threading

def serve(listener, manner, certificate, key, clients, version):
    def context():
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        c.load_cert_chain(certificate, key)
        if clients:
            c.load_verify_locations(clients)
            c.verify_mode = ssl.CERT_REQUIRED
        if version:
            c.minimum_version = c.maximum_version = getattr(ssl.TLSVersion, 'TLSv1_' + version)
        c.sni_callback = lambda s, name, _: names.__setitem__(id(s), name)
        return c, os.stat(certificate).st_mtime_ns
    names = {}
    now = context()
    while True:
        s, _ = listener.accept()
        # A certificate that was replaced is another server: it knows no sessions of this one.
        if os.stat(certificate).st_mtime_ns != now[1]:
            now = context()
        threading.Thread(target=connection, args=(s, now[0], manner, names), daemon=True).start()

def connection(s, context, manner, names):
    try:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.settimeout(60)
        s = context.wrap_socket(s, server_side=True)
        while request(s, manner, names.get(id(s))):
            pass
    except (OSError, ssl.SSLError):
        pass
    finally:
        s.close()

def request(s, manner, name):
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        part = s.recv(1)
        if not part:
            return False
        head += part
    if manner == 'Tells':
        subject = ','.join(v for rdn in (s.getpeercert() or {}).get('subject', ()) for k, v in rdn)
        text = f'{s.version()} {name} resumed={s.session_reused} subject={subject}'.encode()
        s.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s' % (len(text), text))
        return True
    if manner in ('Ends', 'Cuts'):
        s.sendall(b'HTTP/1.1 200 OK\r\n\r\n' + b'z' * 20000)
    elif manner == 'Halves':
        s.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n' + b'z' * 20000)
    elif manner == 'Garbage':
        os.write(s.fileno(), b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno!')
    if manner in ('Ends', 'Halves'):
        s.unwrap()
    return False

ports = []
for words in sys.argv[1:]:
    listener = socket.create_server(('127.0.0.1', 0), backlog=100)
    ports.append(listener.getsockname()[1])
    threading.Thread(target=serve, args=(listener, *words.split(',')), daemon=True).start()
print(*ports, flush=True)
sys.stdin.read()
";

/// The running process, killed when dropped.
pub(crate) struct PythonBackends {
    child: Child,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl PythonBackends {
    pub(crate) fn start(listeners: &[Listener<'_>]) -> Self {
        let mut command = Command::new(program("python3", "python3"));
        command.args(["-c", SCRIPT]);
        for Listener { manner, pair, clients, version } in listeners {
            let (certificate, key) = (pair.certificate.display(), pair.key.display());
            let clients = clients.map(|c| c.display().to_string()).unwrap_or_default();
            command.arg(format!("{manner:?},{certificate},{key},{clients},{version}"));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let _ = BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line);
        let address = |port: &str| SocketAddr::new([127, 0, 0, 1].into(), port.parse().expect("a port"));
        let started = Self { child, addresses: line.split_whitespace().map(address).collect() };
        assert_eq!(started.addresses.len(), listeners.len(), "the backends do not start: {line:?}");
        started
    }
}

impl Drop for PythonBackends {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
