//! `rust-strom explain`: what it says is what a running daemon does with the same configuration.

#[path = "support/address.rs"]
mod address;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "process.rs uses the rest")]
mod daemon;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod scripted_backend;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use client::{Client, connect_from};
use daemon::{Daemon, TempDir};
use scripted_backend::Backend;
use serde_json::Value;

fn explain(config: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rust-strom"))
        .args(["explain", "--config"])
        .arg(config)
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("it starts")
}

/// The same as JSON, for a request with these fields.
fn explained(config: &Path, request: &Request) -> Value {
    let url = format!("http://{}{}", request.host, request.target);
    let mut arguments = vec!["--json", "--client-ip", request.from, "--listener", request.listener];
    request.fields.iter().for_each(|line| arguments.extend(["-H", line]));
    arguments.extend([request.method, &url]);
    let output = explain(config, &arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A request, and who sends it where.
struct Request {
    listener: &'static str,
    from: &'static str,
    method: &'static str,
    host: &'static str,
    target: &'static str,
    fields: &'static [&'static str],
}

const fn get(host: &'static str, target: &'static str, fields: &'static [&'static str]) -> Request {
    Request { listener: "http", from: "127.0.0.1", method: "GET", host, target, fields }
}

/// The heads that backends have got.
type Heads = Arc<Mutex<Vec<String>>>;

/// A backend that answers as `explain` takes one to answer.
fn backend(heads: &Heads) -> Backend {
    let heads = heads.clone();
    let content = "x".repeat(16_384);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 16384\r\n\r\n{content}"
    );
    Backend::start(move |mut peer| {
        while let Some(head) = peer.head() {
            heads.lock().expect("no panic").push(head);
            if !peer.send(&answer) {
                return;
            }
        }
    })
}

/// Lines in lower case, without those that no two requests have in common, or that have the port, which is
/// another one in the configuration.
fn comparable<'l>(lines: impl Iterator<Item = &'l str>) -> Vec<String> {
    let lines = lines.map(str::to_ascii_lowercase).filter(|line| !line.is_empty());
    lines
        .filter(|l| !["date:", "x-request-id:", "x-forwarded-port:"].iter().any(|n| l.starts_with(n)))
        .collect()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().expect("a list").iter().map(|line| line.as_str().expect("a line"))
}

const POOLS: &str = r#"
[[backend_pools]]
name = "inside"
listeners = ["internal"]
addresses = ["A"]

[[backend_pools]]
name = "admin"
matcher = "Host('admin.test') && ClientIP('127.0.0.64/26')"
addresses = ["B"]

[[backend_pools]]
name = "api"
matcher = "PathPrefix('/api') && !Header('X-Debug', '1')"
addresses = ["A", { address = "B", weight = 3 }]
[backend_pools.middlewares.RateLimiter]
limit = 100
window_sec = 60
[backend_pools.middlewares.StripPrefix]
prefixes = ["/api"]
[backend_pools.middlewares.Headers]
request = { set = { X-Client = "{client_ip}" }, remove = ["X-Old"] }
security = true
[backend_pools.middlewares.Compression]

[[backend_pools]]
name = "hashed"
matcher = "Path('/hashed')"
addresses = ["A", "B"]
strategy = "IPHash"

[[backend_pools]]
name = "sticky"
matcher = "Query('pool', 'sticky')"
addresses = ["A", "B"]
strategy = { StickyCookie = { cookie_name = "S", secure = false, inner = "IPHash" } }

[[backend_pools]]
name = "filtered"
matcher = "Path('/filtered')"
addresses = ["A"]
[backend_pools.middlewares.IpDeny]
ranges = ["127.0.0.66"]
[backend_pools.middlewares.MaxBodySize]
limit = 10

[[backend_pools]]
name = "moved"
matcher = "Path('/moved')"
addresses = ["A"]
[backend_pools.middlewares.Redirect]
regex = "^http://([^/]+)/moved"
replacement = "http://$1/new"
status = 308

[[backend_pools]]
name = "least"
matcher = "Path('/least')"
addresses = ["A", "B"]
strategy = "LeastConnection"
"#;

const REQUESTS: &[Request] = &[
    Request { listener: "internal", ..get("a.test", "/", &[]) },
    Request { from: "127.0.0.65", ..get("admin.test:8000", "/x?y", &[]) },
    Request { from: "127.0.0.3", ..get("admin.test", "/", &["X-Forwarded-For: 127.0.0.65"]) },
    get("admin.test", "/", &["X-Forwarded-For: 127.0.0.65"]),
    get("a.test", "/x/../api/u?a=%41", &["Accept-Encoding: gzip, br;q=0.5", "X-Old: 1"]),
    get("a.test", "/api", &["X-Debug: 1"]),
    get("a.test", "/hashed", &[]),
    Request { from: "127.0.0.77", ..get("a.test", "/hashed", &[]) },
    Request { from: "127.0.0.3", ..get("a.test", "/hashed", &["X-Forwarded-For: 2001:db8::9"]) },
    get("a.test", "/?pool=sticky", &[]),
    get("a.test", "/?pool=sticky", &["Cookie: S=0000000000000000"]),
    Request { from: "127.0.0.66", ..get("a.test", "/filtered", &[]) },
    get("a.test", "/filtered", &[]),
    Request { method: "POST", ..get("a.test", "/filtered", &["Content-Length: 11"]) },
    get("a.test", "/moved?q", &[]),
    get("a.test", "/least", &[]),
    get("a.test", "/nothing", &[]),
    get("a.test", "/%zz", &[]),
    get("a.test", "/", &["Host: b.test", "Host: c.test"]),
    Request { method: "CONNECT", ..get("a.test", "/", &[]) },
];

/// Head for head, on both sides; and pool and backend as the access log has them.
#[test]
fn a_daemon_does_what_is_explained() {
    for driver in ["mio", "smol"] {
        let heads = Heads::default();
        let (a, b) = (backend(&heads), backend(&heads));
        let pools = POOLS.replace("\"A\"", &format!("\"{}\"", a.address));
        let pools = pools.replace("\"B\"", &format!("\"{}\"", b.address));
        let daemon = Daemon::start(
            &format!(
                "http_address = \"127.0.0.1:0\"\nmetrics_address = false\ndriver = \"{driver}\"\nworkers = 2\n\
                 trusted_proxies = [\"127.0.0.3\"]\naccess_log = {{ format = \"json\", path = \"access.log\" }}\n\
                 health_interval = {{ check_every = 0 }}\n[[listeners]]\nname = \"internal\"\n\
                 address = \"127.0.0.1:0\"\n{pools}"
            ),
            &[],
        );
        daemon.address();
        let file = daemon.directory.0.join("config.toml");
        let mut seen = Vec::new();
        for request in REQUESTS {
            let told = explained(&file, request);
            heads.lock().expect("no panic").clear();
            let response = sent(&daemon, request);
            let about = format!("{} {} {:?}: {told:#}", request.method, request.target, request.fields);
            assert_eq!(comparable(response.lines()), comparable(strings(&told["to_client"])), "{about}");
            let got = heads.lock().expect("no panic").first().cloned().unwrap_or_default();
            assert_eq!(comparable(got.lines()), comparable(strings(&told["to_backend"])), "{about}");
            let backend = told["choice"]["backend"].as_str().unwrap_or_default().to_owned();
            assert_eq!(backend.is_empty(), got.is_empty(), "{about}");
            seen.push((told["pool"].as_str().unwrap_or_default().to_owned(), backend));
        }
        let directory = daemon.directory.0.clone();
        // Each worker writes in its own order.
        let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let mut logged: Vec<_> = stopped(daemon, &directory)
            .iter()
            .map(|line| (field(line, "pool"), field(line, "backend")))
            .collect();
        logged.sort();
        seen.sort();
        assert_eq!(logged, seen);
    }
}

/// Sends a request on a connection of its own; the head of the response.
fn sent(daemon: &Daemon, request: &Request) -> String {
    let from = request.from.parse().expect("an address");
    let mut client = Client::over(connect_from(
        from,
        daemon.listens(match request.listener {
            "internal" => "internal, http",
            kind => kind,
        }),
    ));
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    if !request.fields.iter().any(|line| line.starts_with("Host:")) {
        text.push_str(&format!("Host: {}\r\n", request.host));
    }
    request.fields.iter().for_each(|line| text.push_str(&format!("{line}\r\n")));
    client.send(format!("{text}\r\n")).expect("sent");
    client.response(false).expect("a response").head
}

/// Stops it; the lines of its access log.
fn stopped(daemon: Daemon, directory: &Path) -> Vec<Value> {
    let log = directory.join("access.log");
    let kept = TempDir::new("explain-log");
    let copy = kept.0.join("access.log");
    // The directory goes with the daemon; the file is written until the end.
    std::fs::hard_link(&log, &copy).expect("one file system");
    daemon.stop();
    let text = std::fs::read_to_string(copy).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Text by default, and errors with what to do.
#[test]
fn arguments() {
    let directory = TempDir::new("explain");
    let file = directory.write(
        "c.toml",
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n[[backend_pools]]\naddresses = [\"127.0.0.1:9\"]\n",
    );
    let cases: [(&[&str], i32, &str); 6] = [
        (&["GET", "http://a.test/"], 0, "127.0.0.1:9 by RoundRobin"),
        (&["GET", "http://a.test/", "--client-ip", "2001:db8::1"], 0, "from 2001:db8::1\n"),
        (&["GET", "https://a.test/"], 1, "no listener serves https"),
        (&["GET", "a.test"], 1, "is no URL"),
        (&["GET", "http://a.test/", "-H", "X"], 1, "is no field"),
        (&["GET"], 1, "<URL>"),
    ];
    for (arguments, code, part) in cases {
        let output = explain(&file, arguments);
        let text = [&output.stdout[..], &output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    let bad = directory.write("bad.toml", "http_adress = 1\n");
    let output = explain(&bad, &["GET", "/"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean"), "{output:?}");
}

/// Over TLS: by the certificate that a client gets, and by no connection if there is none.
#[test]
fn certificates_decide_too() {
    let directory = TempDir::new("explain-tls");
    let made = rcgen::generate_simple_self_signed(["example.com".to_owned()]).expect("a certificate");
    directory.write("c.pem", made.cert.pem());
    directory.write("k.pem", made.signing_key.serialize_pem());
    let file = directory.write(
        "c.toml",
        "http_address = \"127.0.0.1:8000\"\nhttps_address = \"127.0.0.1:8443\"\nmetrics_address = false\n\
         [certificates.\"example.com\"]\nLocal = { certificate_path = \"c.pem\", private_key_path = \"k.pem\" }\n\
         [[backend_pools]]\nname = \"secure\"\nschemes = [\"HTTPS\"]\naddresses = [\"127.0.0.1:9\"]\n\
         [[backend_pools]]\nname = \"plain\"\naddresses = [\"127.0.0.1:9\"]\n\
         [backend_pools.middlewares.HttpsRedirector]\n",
    );
    let cases: [(&[&str], &str); 5] = [
        (&["GET", "https://example.com/"], "  secure: takes the request"),
        (&["GET", "https://EXAMPLE.com:8443/"], "by https on listener \"https\" (127.0.0.1:8443)"),
        (
            &["GET", "https://other.test/"],
            "no backend is asked: no response. There is no certificate for this name",
        ),
        (&["GET", "https://example.com/", "-H", "Host: other.test"], "421 misdirected_request"),
        (&["GET", "http://example.com/a?b"], "Location: https://example.com:8443/a?b"),
    ];
    for (arguments, part) in cases {
        let output = explain(&file, arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
}

/// The example of cli/docs/explain.md, as it stands there; and the one of README.md runs.
#[test]
fn the_examples_of_the_documentation() {
    let page = include_str!("../docs/explain.md");
    let block = |page: &str, kind: &str| {
        let rest = page.split(&format!("```{kind}\n")).nth(1).expect("a block");
        rest.split("```").next().expect("its end").to_owned()
    };
    let directory = TempDir::new("explain-docs");
    directory.write("balancer.toml", block(page, "toml"));
    let run = |command: &str| {
        let binary = format!("\"{}\" explain", env!("CARGO_BIN_EXE_rust-strom"));
        let command = command.replacen("rust-strom explain", &binary, 1);
        let output = Command::new("sh").args(["-ec", &command]).current_dir(&directory.0).output();
        let output = output.expect("a shell");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let (command, shown) = (block(page, "sh"), block(page, "text"));
    let printed = run(&command);
    assert!(printed.contains(&shown), "{printed}");
    let readme = include_str!("../../README.md");
    let command = readme.lines().find(|line| line.starts_with("rust-strom explain")).expect("an example");
    assert!(run(command).contains("request\n  GET /hello"), "{command}");
}
