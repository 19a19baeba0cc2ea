//! gRPC by Python's grpcio, whose C core is what most languages use: as client and as servers, with the proxy
//! between them, and how it understands errors of ours.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::daemon::{Daemon, TempDir};
use crate::nginx::{output, program};
use crate::scripted_backend::{Backend, ok};

/// Calls a method that streams both ways, twice, and says how that ended. Arguments: address, messages to
/// send.
const CLIENT: &str = r#"
import sys
import grpc

address, count = sys.argv[1], int(sys.argv[2])
same = lambda data: data
options = [("grpc.default_authority", "example.com"), ("grpc.enable_retries", 0)]
with grpc.insecure_channel(address, options=options) as channel:
    method = channel.stream_stream("/test.Echo/Both", request_serializer=same, response_deserializer=same)
    for _ in range(2):
        got = 0
        try:
            for _ in method((b"x" * 100 for _ in range(count)), timeout=20):
                got += 1
            print("OK", got)
        except grpc.RpcError as error:
            print(error.code().name, got, error.details())
"#;

/// Goes through every kind of call. Arguments: address of the proxy, streams to have open at once.
const CALLS: &str = include_str!("grpc_calls.py");
/// Servers, as many as the argument says.
const SERVER: &str = include_str!("grpc_server.py");
/// Makes a server say this of its health. Arguments: its address, the number of the status.
const MOOD: &str = r#"
import sys
import grpc

same = lambda data: data
channel = grpc.insecure_channel(sys.argv[1])
mood = channel.unary_unary("/test.Echo/Mood", request_serializer=same, response_deserializer=same)
mood(sys.argv[2].encode(), timeout=20)
"#;

#[test]
fn grpcio_understands_errors_of_ours() {
    let backend = Backend::start(|mut peer| while peer.request().is_some() && peer.send(ok("not gRPC")) {});
    let refusing = Backend::refusing();
    let (up, down) = (backend.address.to_string(), refusing.to_string());
    let basic_auth = format!(
        "[backend_pools.middlewares.BasicAuth]\nusers = {{ ada = \"$6$salt${}\" }}\n",
        "x".repeat(86)
    );
    let table = [
        (&up, "matcher = \"Host('other.test')\"", 1, "UNIMPLEMENTED 0 404 Not Found: no_route"),
        (&down, "retries = 0", 1, "UNAVAILABLE 0 502 Bad Gateway: connect_refused"),
        (
            &up,
            "[backend_pools.middlewares]\nIpDeny = { ranges = [\"127.0.0.0/8\"] }",
            1,
            "PERMISSION_DENIED 0 403 Forbidden",
        ),
        (&up, &basic_auth, 1, "UNAUTHENTICATED 0 401 Unauthorized"),
        (
            &up,
            "[backend_pools.middlewares]\nMaxBodySize = { limit = 1000 }",
            20,
            "RESOURCE_EXHAUSTED 0 413 Content Too Large: content_too_large",
        ),
        (
            &up,
            "[backend_pools.middlewares]\nRateLimiter = { limit = 1, window_sec = 60 }",
            1,
            "RESOURCE_EXHAUSTED 0 429 Too Many Requests",
        ),
    ];
    let folder = TempDir::new("grpc");
    let script = folder.write("client.py", CLIENT);
    for (address, more, messages, expected) in table {
        let config = format!(
            "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n\
             health_interval = {{ check_every = 0 }}\n\
             [[backend_pools]]\naddresses = [\"{address}\"]\n{more}\n"
        );
        let daemon = Daemon::start(&config, &[]);
        let mut command = Command::new(program("python3", "python3-grpcio"));
        command.arg(&script).arg(daemon.address().to_string()).arg(messages.to_string());
        let said = output(&mut command);
        assert_eq!(said.lines().last(), Some(expected), "{more}: {said}");
        daemon.stop();
    }
}

/// Servers of gRPC by grpcio, killed when dropped.
struct Servers {
    child: Child,
    addresses: Vec<SocketAddr>,
    output: BufReader<ChildStdout>,
    _folder: TempDir,
}

impl Servers {
    fn start(count: usize) -> Self {
        let folder = TempDir::new("grpc-servers");
        let script = folder.write("server.py", SERVER);
        let mut command = Command::new(program("python3", "python3-grpcio"));
        command.arg(&script).arg(count.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut ports = String::new();
        output.read_line(&mut ports).expect("text");
        let address = |port: &str| SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
        let addresses: Vec<_> = ports.split_whitespace().map(address).collect();
        assert_eq!(addresses.len(), count, "{ports}");
        Self { child, addresses, output, _folder: folder }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every kind of call, of a client by grpcio through the proxy to servers by grpcio.
#[test]
fn grpcio_through_the_proxy() {
    let mut servers = Servers::start(3);
    let addresses: Vec<String> = servers.addresses.iter().map(|a| format!("\"h2c://{a}\"")).collect();
    let config = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\nhealth_interval = {{ check_every = 0 }}\n\
         [http2]\nmax_concurrent_streams = 1000\n[[backend_pools]]\naddresses = [{}]\n",
        addresses.join(", ")
    );
    let daemon = Daemon::start(&config, &[]);
    let folder = TempDir::new("grpc-client");
    let script = folder.write("calls.py", CALLS);
    let mut command = Command::new(program("python3", "python3-grpcio"));
    command.arg(&script).arg(daemon.address().to_string()).arg("900");
    let said = output(&mut command);
    let expected = [
        "unary b'hello'",
        "empty b''",
        "server stream True",
        "client stream b'500000'",
        "both ways True",
        "trailers only ('ALREADY_EXISTS', 'gr\u{fc}n 100%', b'\\x00\\xff')",
        "metadata (True, True, 'a b, c')",
        "4 MB True",
        "deadline DEADLINE_EXCEEDED",
        "first of a stream b'first'",
        "balanced [10, 10, 10]",
        "1000 at once True",
        "open at once True",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    // Who does not wait any more is waited for no more.
    let mut gone = Vec::new();
    while gone.len() < 3 {
        let mut line = String::new();
        servers.output.read_line(&mut line).expect("text");
        assert!(line.starts_with("gone after "), "{line:?}");
        gone.push(line.trim().to_owned());
    }
    gone.sort();
    assert_eq!(gone, ["gone after a cancellation", "gone after a cancelled stream", "gone after a deadline"]);
    daemon.stop();
}

/// Checks by `grpc.health.v1`: a server that says NOT_SERVING gets no calls, nor does one that has no such
/// service.
#[test]
fn servers_are_checked_by_their_own_protocol() {
    let servers = Servers::start(2);
    let [sick, well] = servers.addresses[..] else { panic!("two") };
    let folder = TempDir::new("grpc-mood");
    let script = folder.write("mood.py", MOOD);
    let set_mood = |mood: &str| {
        let mut command = Command::new(program("python3", "python3-grpcio"));
        output(command.arg(&script).arg(sick.to_string()).arg(mood))
    };
    let start = |service: &str| {
        let config = format!(
            "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n\
             health_interval = {{ check_every = \"100ms\" }}\n\
             [[backend_pools]]\naddresses = [\"h2c://{sick}\", \"h2c://{well}\"]\n\
             health_config = {{ grpc = \"{service}\", timeout = 5000, slow_threshold = 0 }}\n"
        );
        Daemon::start(&config, &[])
    };
    for service in ["test.Echo", ""] {
        let daemon = start(service);
        daemon.wait_for(&format!("backend h2c://{sick} is healthy"));
        daemon.wait_for(&format!("backend h2c://{well} is healthy"));
        set_mood("2");
        daemon.wait_for(&format!(
            "backend h2c://{sick} is unhealthy (check: NOT_SERVING), 1 of 2 backends usable"
        ));
        set_mood("1");
        daemon.wait_for("2 of 2 backends usable");
        daemon.stop();
    }
    let daemon = start("no.Such");
    daemon.wait_for(&format!("backend h2c://{sick} is unhealthy (check: grpc-status 5)"));
    daemon.stop();
}
