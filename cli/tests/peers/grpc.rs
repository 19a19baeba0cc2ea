//! gRPC by Python's grpcio, whose C core is what most languages use: how it understands errors of ours.

use std::process::Command;

use crate::daemon::{Daemon, TempDir};
use crate::nginx::{output, program};
use crate::scripted_backend::{Backend, ok};

/// Calls a method that streams both ways, twice, and says how that ended. Arguments: address, messages to send.
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
            "http_address = \"127.0.0.1:0\"\nmetrics_address = false\nhealth_interval = {{ check_every = 0 }}\n\
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
