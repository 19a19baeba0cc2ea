//! Clients that do not want a connection, or cannot make one: messages that are cut, too long, too slow or no
//! TLS at all, and thousands of them. What they cost is bounded, and nobody else waits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use crate::authority::Authority;
use crate::client::{Client, WAIT, connect};
use crate::client_hello::{X25519, client_hello, records};
use crate::nginx::program;
use crate::proxy::{Proxy, field};
use crate::python;
use crate::scripted_backend::Backend;

on_each_driver!(
    a_first_message_may_come_in_any_pieces,
    a_first_message_that_is_too_long_is_refused,
    a_handshake_that_trickles_is_over_in_time,
    what_is_no_tls_is_told_or_closed,
    thousands_of_idle_handshakes_cost_little_and_delay_nobody,
    the_longest_first_messages_cost_what_they_are_long,
    clients_that_do_not_read_cost_little,
    an_upload_that_is_cut_is_not_taken_for_whole,
    a_backend_hears_nothing_of_what_was_tampered_with,
);

/// A proxy for `a.test` with these timeouts.
fn proxy(driver: &str, authority: &Authority, backend: SocketAddr, timeouts: &str) -> Proxy {
    let pair = authority.sign("a", &["a.test"]);
    let pool = format!("[[backend_pools]]\naddresses = [\"{backend}\"]\n");
    Proxy::start(driver, &format!("timeouts = {{ {timeouts} }}"), &[("a.test", &pair, "")], &pool)
}

/// All that comes up to the end of the connection, however it ends.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut buf) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        all.extend_from_slice(&buf[..n]);
    }
    all
}

fn a_first_message_may_come_in_any_pieces(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), Backend::good("here"));
    let proxy = proxy(driver, &authority, backend.address, "handshake = \"15s\"");
    let script = "
ca, port = sys.argv[1:]
def run(version, send):
    w = Wire(('127.0.0.1', int(port)), context(ca, version), 'a.test')
    send(w.socket, w.first_flight())
    w.handshake()
    w.send(b'GET / HTTP/1.1\\r\\nHost: a.test\\r\\nConnection: close\\r\\n\\r\\n')
    assert w.rest().endswith(b'here')
def byte_by_byte(s, hello):
    for i in range(len(hello)):
        s.sendall(hello[i:i + 1])
        time.sleep(0.0002)
def records(n):
    def send(s, hello):
        header, body = hello[:3], hello[5:]
        parts = [body[i:i + n] for i in range(0, len(body), n)]
        s.sendall(b''.join(header + struct.pack('>H', len(part)) + part for part in parts))
    return send
for version in ('2', '3'):
    run(version, byte_by_byte)
    for n in (1, 3, 100):
        run(version, records(n))
print('ok')
";
    let ca = authority.file().display().to_string();
    assert_eq!(python::run(script, &[&*ca, &proxy.port().to_string()]), "ok\n");
    proxy.stop();
}

fn a_first_message_that_is_too_long_is_refused(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), Backend::good("here"));
    let proxy = proxy(driver, &authority, backend.address, "handshake = \"15s\"");
    // Up to 64 KiB: the answer is a `HelloRetryRequest`.
    for padding in [0, 16_384, 32_768, 60_000] {
        for most in [16_384, 1000] {
            let mut stream = connect(proxy.address);
            let hello = client_hello("a.test", &[X25519], padding);
            stream.write_all(&records(&hello, most)).expect("sent");
            let mut kind = [0; 6];
            stream.read_exact(&mut kind).unwrap_or_else(|e| panic!("{padding} in {most}: {e}"));
            assert_eq!((kind[0], kind[5]), (22, 2), "{padding} bytes in records of {most}");
        }
    }
    // What says to be longer, or is without an end, gets `decode_error`.
    let mut endless = b"\x01\x00\xff\xf0".to_vec();
    endless.resize(300_000, 0);
    let mut announced = b"\x01\x01\x00\x00".to_vec();
    announced.resize(70_000, 0);
    for (name, message) in [("endless", endless), ("announced", announced)] {
        let mut stream = connect(proxy.address);
        // It may close before it has read all of it.
        let _ = stream.write_all(&records(&message, 16_384));
        assert_eq!(rest(&mut stream), [21, 3, 3, 0, 2, 2, 50], "{name}");
    }
    assert_eq!(proxy.steps("it gets the alert decode_error", 2).len(), 2);
    proxy.stop();
}

fn a_handshake_that_trickles_is_over_in_time(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), Backend::good("here"));
    let proxy = proxy(driver, &authority, backend.address, "handshake = \"700ms\"");
    let hello = records(&client_hello("a.test", &[X25519], 500), 16_384);
    let address = proxy.address;
    // One that says nothing, one that goes on and on, one that stops, one that waits behind its whole
    // message.
    let pieces: [(usize, usize); 4] = [(0, 0), (1, hello.len()), (100, 100), (hello.len(), hello.len())];
    let threads = pieces.map(|(piece, total)| {
        let hello = hello.clone();
        std::thread::spawn(move || {
            let begun = Instant::now();
            let mut stream = connect(address);
            if piece > 0 {
                for part in hello[..total].chunks(piece) {
                    if stream.write_all(part).is_err() || begun.elapsed() > WAIT {
                        break;
                    }
                    sleep(Duration::from_millis(10));
                }
            }
            rest(&mut stream);
            begun.elapsed()
        })
    });
    for (thread, (piece, _)) in threads.into_iter().zip(pieces) {
        let took = thread.join().expect("no panic");
        assert!(took > Duration::from_millis(650) && took < Duration::from_secs(4), "{piece}: {took:?}");
    }
    assert_eq!(proxy.steps("the handshake failed: timed out", 4).len(), 4);
    proxy.stop();
}

fn what_is_no_tls_is_told_or_closed(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), Backend::good("here"));
    let proxy = proxy(driver, &authority, backend.address, "handshake = \"15s\"");
    for request in ["GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "POST", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = Client::to(proxy.address);
        client.send(request).expect("sent");
        let response = client.response(false).expect("a response that can be read");
        assert_eq!(response.status, 400, "{request}: {response:?}");
        assert!(response.text().contains("plain_http_on_tls_port"), "{response:?}");
        assert!(client.is_closed());
    }
    let logged = proxy.logged("plain_http_on_tls_port", 3);
    assert!(logged.iter().all(|l| field(l, "status") == "400"), "{logged:?}");

    let random: Vec<u8> = (0..4000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    // SSL 2, SSH, bytes of no protocol, an alert and data where a handshake has to begin.
    let closed: [&[u8]; 6] = [
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x03\x00\x80\x07\x00\xc0",
        b"\x00SSH-2.0-OpenSSH_9.2p1\r\n",
        &[&[200], &random[..]].concat(),
        b"\x15\x03\x03\x00\x02\x01\x00",
        b"\x17\x03\x03\x00\x10aaaaaaaaaaaaaaaa",
        b"get / http/1.1\r\n\r\n",
    ];
    for bytes in closed {
        let mut stream = connect(proxy.address);
        stream.write_all(bytes).expect("sent");
        assert_eq!(rest(&mut stream), b"", "{:?}", &bytes[..4]);
    }
    // What begins like a handshake and is none hears of it.
    let told: [&[u8]; 5] = [
        &[b"\x16", &random[..]].concat(),
        &[&b"\x16\x03\x01"[..], &[0; 4000]].concat(),
        &[&b"\x16\x03\x01\x02\x00"[..], &random[..512]].concat(),
        // Empty records; a message of another kind.
        &b"\x16\x03\x01\x00\x00".repeat(1000),
        &records(b"\x02\x00\x00\x04abcd", 100),
    ];
    for bytes in told {
        let mut stream = connect(proxy.address);
        stream.write_all(bytes).expect("sent");
        let answer = rest(&mut stream);
        assert!(answer.len() == 7 && answer[0] == 21 && answer[5] == 2, "{:?}: {answer:?}", &bytes[..6]);
    }
    assert_eq!(backend.stats.connections.load(Ordering::SeqCst), 0);
    assert!(!proxy.daemon.output().contains("WARN"), "{}", proxy.daemon.output());
    proxy.stop();
}

/// Connections in a process of their own, which has a limit of open files of its own.
struct Idle(Child);

impl Idle {
    fn start(address: SocketAddr, count: usize, first: &[u8]) -> Self {
        let script = "
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
first = sys.stdin.buffer.read(int(sys.argv[3]))
kept = []
for i in range(int(sys.argv[2])):
    s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=15)
    s.sendall(first)
    kept.append(s)
print('connected', flush=True)
sys.stdin.read()
";
        let mut command = Command::new(program("python3", "python3"));
        command.args([
            "-c",
            script,
            &address.port().to_string(),
            &count.to_string(),
            &first.len().to_string(),
        ]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        child.stdin.as_mut().expect("piped").write_all(first).expect("it reads");
        let mut line = String::new();
        let _ = BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line);
        let idle = Self(child);
        assert_eq!(line, "connected\n");
        idle
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kilobytes of memory that the proxy has in use.
fn resident(proxy: &Proxy) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.daemon.id())).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The longest time that one of so many requests took, each on a new connection, until the end of it.
fn longest_request(proxy: &Proxy, authority: &Authority) -> Duration {
    let script = "
ca, port = sys.argv[1:]
longest = 0
for i in range(20):
    begun = time.monotonic()
    w = Wire(('127.0.0.1', int(port)), context(ca), 'a.test').handshake()
    w.send(b'GET / HTTP/1.1\\r\\nHost: a.test\\r\\nConnection: close\\r\\n\\r\\n')
    assert w.rest().endswith(b'here')
    longest = max(longest, time.monotonic() - begun)
print(int(longest * 1000))
";
    let ca = authority.file().display().to_string();
    let printed = python::run(script, &[&*ca, &proxy.port().to_string()]);
    Duration::from_millis(printed.trim().parse().expect("a number"))
}

/// Bytes of memory for each of so many handshakes that have sent this and no more.
fn cost_of_idle(driver: &str, count: usize, first: &[u8]) -> usize {
    /// The longest that a request may take, with other tests running on the same few cores.
    const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
    let (authority, backend) = (Authority::new("ca"), Backend::good("here"));
    let pair = authority.sign("a", &["a.test"]);
    let pool = format!("[[backend_pools]]\naddresses = [\"{}\"]\n", backend.address);
    let top = "timeouts = { handshake = \"60s\", drain = \"100ms\" }";
    let mut proxy = Proxy::start_logging("info", driver, top, &[("a.test", &pair, "")], &pool);
    assert!(longest_request(&proxy, &authority) < RESPONSE_TIMEOUT);
    let before = resident(&proxy);
    let idle = Idle::start(proxy.address, count, first);
    let took = longest_request(&proxy, &authority);
    let cost = resident(&proxy).saturating_sub(before) * 1024 / count;
    assert!(took < RESPONSE_TIMEOUT, "{took:?} with {count} idle handshakes");
    drop(idle);
    assert!(longest_request(&proxy, &authority) < RESPONSE_TIMEOUT);
    assert!(proxy.daemon.runs());
    proxy.stop();
    cost
}

fn thousands_of_idle_handshakes_cost_little_and_delay_nobody(driver: &str) {
    // As many as this machine lets one process have.
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    assert!(files >= 3000, "this test needs 3000 open files");
    let count = if files >= 15_000 { 10_000 } else { 2000 };
    // Half a first message: what there is of it has to be kept.
    let hello = records(&client_hello("a.test", &[X25519], 600), 16_384);
    let cost = cost_of_idle(driver, count, &hello[..hello.len() / 2]);
    assert!(cost < 12 * 1024, "{cost} bytes for each of {count} half messages");
}

/// The longest that is taken, but for its last byte: nobody can make the proxy keep more.
fn the_longest_first_messages_cost_what_they_are_long(driver: &str) {
    let hello = records(&client_hello("a.test", &[X25519], 65_000), 16_384);
    let cost = cost_of_idle(driver, 500, &hello[..hello.len() - 1]);
    assert!(cost > 50_000, "{cost} bytes: they have not arrived");
    assert!(cost < 100_000, "{cost} bytes for each of them");
}

fn clients_that_do_not_read_cost_little(driver: &str) {
    const COUNT: usize = 100;
    let body: &'static str = "z".repeat(5_000_000).leak();
    let (authority, backend) = (Authority::new("ca"), Backend::good(body));
    let pair = authority.sign("a", &["a.test"]);
    let pool = format!("[[backend_pools]]\naddresses = [\"{}\"]\n", backend.address);
    let proxy = Proxy::start_logging("info", driver, "", &[("a.test", &pair, "")], &pool);
    let script = "
ca, port, pid, count = sys.argv[1:]
def resident():
    with open('/proc/%s/status' % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith('VmRSS'))
def connect():
    w = Wire(('127.0.0.1', int(port)), context(ca), 'a.test').handshake()
    w.send(b'GET / HTTP/1.1\\r\\nHost: a.test\\r\\nConnection: close\\r\\n\\r\\n')
    return w
assert connect().rest().endswith(b'z')
before = resident()
stalled = [connect() for i in range(int(count))]
time.sleep(0.5)
cost = (resident() - before) * 1024 // int(count)
assert cost < 300000, cost
# It is served for all that as soon as it reads, and so is anybody else.
for w in (stalled[0], stalled[-1], connect()):
    assert len(w.rest().split(b'\\r\\n\\r\\n', 1)[1]) == 5000000
print('ok')
";
    let arguments = [
        authority.file().display().to_string(),
        proxy.port().to_string(),
        proxy.daemon.id().to_string(),
        COUNT.to_string(),
    ];
    assert_eq!(python::run(script, &arguments), "ok\n");
    proxy.stop();
}

fn an_upload_that_is_cut_is_not_taken_for_whole(driver: &str) {
    // It says when it has the head, and that it got the whole body if it did.
    let backend = Backend::start(|mut peer| {
        while let Some(head) = peer.head()
            && peer.send("HTTP/1.1 100 Continue\r\n\r\n")
            && peer.content(&head).is_some()
            && peer.send(crate::scripted_backend::ok("got it"))
        {}
    });
    let authority = Authority::new("ca");
    let proxy = proxy(driver, &authority, backend.address, "handshake = \"15s\"");
    let script = "
ca, port, version = sys.argv[1:]
heads = [b'Content-Length: 100000', b'Transfer-Encoding: chunked']
for n, head in enumerate(heads):
    w = Wire(('127.0.0.1', int(port)), context(ca, version), 'a.test').handshake()
    fields = head + b'\\r\\nExpect: 100-continue'
    w.send(b'POST /cut/%d HTTP/1.1\\r\\nHost: a.test\\r\\n%s\\r\\n\\r\\n' % (n, fields))
    # The backend has it.
    got = w.run(lambda: w.tls.read(65536))
    assert got.startswith(b'HTTP/1.1 100'), got
    # Nothing says that these bytes are the last.
    w.send(b'1000\\r\\n' + b'y' * 4096 + b'\\r\\n')
    w.socket.shutdown(socket.SHUT_WR)
    try:
        raw(w.socket)
    except ConnectionResetError:
        pass
print('ok')
";
    for version in ["2", "3"] {
        let ca = authority.file().display().to_string();
        assert_eq!(python::run(script, &[&*ca, &proxy.port().to_string(), version]), "ok\n", "{version}");
    }
    let logged = proxy.logged("/cut/", 4);
    for line in &logged {
        assert_eq!((field(line, "status"), field(line, "cause")), ("499", "client_closed"), "{line}");
        assert_eq!(field(line, "attempts"), "1", "{line}");
    }
    // Four requests have begun, and none was whole; their connections are closed.
    let begun = Instant::now();
    while backend.stats.open.load(Ordering::SeqCst) > 0 {
        assert!(begun.elapsed() < WAIT, "a connection to the backend stays");
        sleep(Duration::from_millis(5));
    }
    assert_eq!(backend.stats.requests.load(Ordering::SeqCst), 4);
    proxy.stop();
}

fn a_backend_hears_nothing_of_what_was_tampered_with(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), Backend::good("here"));
    let proxy = proxy(driver, &authority, backend.address, "handshake = \"15s\"");
    let script = "
ca, port, version = sys.argv[1:]
request = b'GET /whole HTTP/1.1\\r\\nHost: a.test\\r\\n\\r\\n'
def connect():
    return Wire(('127.0.0.1', int(port)), context(ca, version), 'a.test').handshake()
def refused(w, alert):
    try:
        w.rest()
        raise Exception('no alert')
    except ssl.SSLError as e:
        assert alert in str(e).upper(), e
# A bit of a record is another one.
w = connect()
w.tls.write(request)
record = bytearray(w.outbound.read())
record[-1] ^= 1
w.socket.sendall(record)
refused(w, 'BAD RECORD MAC')
# A record comes twice; what came before it is served.
w = connect()
w.tls.write(request)
record = w.outbound.read()
w.socket.sendall(record)
answer = w.run(lambda: w.tls.read(65536))
assert answer.startswith(b'HTTP/1.1 200 '), answer
w.socket.sendall(record)
refused(w, 'BAD RECORD MAC')
# Plaintext in the middle.
w = connect()
w.socket.sendall(b'GET / HTTP/1.1\\r\\nHost: a.test\\r\\n\\r\\n')
refused(w, 'ALERT')
# A record that says to be longer than any.
w = connect()
w.socket.sendall(b'\\x17\\x03\\x03\\xff\\xff' + b'x' * 70000)
refused(w, 'ALERT')
print('ok')
";
    for version in ["2", "3"] {
        let ca = authority.file().display().to_string();
        assert_eq!(python::run(script, &[&*ca, &proxy.port().to_string(), version]), "ok\n", "{version}");
    }
    assert_eq!(backend.stats.requests.load(Ordering::SeqCst), 2);
    assert_eq!(proxy.steps("it gets the alert bad_record_mac", 4).len(), 4);
    proxy.stop();
}
