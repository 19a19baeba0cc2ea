//! curl: both versions, keep-alive, bodies in both directions, names.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::authority::Authority;
use crate::nginx::{Nginx, output, program};
use crate::proxy::{Proxy, field};
use crate::scripted_backend::{Backend, ok};

on_each_driver!(
    both_versions_keep_connections,
    http2_can_be_turned_off,
    bodies_arrive_unchanged_in_both_directions,
    names_decide_about_certificates_and_requests,
);

const VERSIONS: [(&str, &[&str]); 2] =
    [("TLSv1.2", &["--tlsv1.2", "--tls-max", "1.2"]), ("TLSv1.3", &["--tlsv1.3"])];

/// curl that finds these names at the proxy's address.
pub(crate) fn curl(authority: &Authority, to: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("curl", "curl"));
    command.args(["-sS", "-m", "20", "--cacert"]).arg(authority.file());
    for name in ["a.test", "b.test", "c.test"] {
        command.args(["--resolve", &format!("{name}:{}:127.0.0.1", to.port())]);
    }
    command.args(arguments);
    command
}

/// A backend whose responses have the head of the request as their body.
fn echo() -> Backend {
    Backend::start(|mut peer| while peer.request().is_some_and(|head| peer.send(ok(&head))) {})
}

fn both_versions_keep_connections(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), echo());
    let pair = authority.sign("a", &["a.test"]);
    let proxy = Proxy::to(driver, &[("a.test", &pair, "")], backend.address);
    let url = format!("https://a.test:{}/?[1-3]", proxy.port());
    let format = "num_connects=%{num_connects} version=%{http_version} verified=%{ssl_verify_result}\n";
    for (i, (version, arguments)) in VERSIONS.into_iter().enumerate() {
        // HTTP/2 is what curl asks for first.
        let stdout = output(curl(&authority, proxy.address, arguments).args(["-w", format, &url]));
        let ends: Vec<&str> = stdout.lines().filter(|l| l.contains("num_connects=")).collect();
        assert_eq!(ends[0], "num_connects=1 version=2 verified=0", "{version}: {stdout}");
        assert_eq!(ends[1..], ["num_connects=0 version=2 verified=0"; 2], "{version}: {stdout}");
        let forwarded = |l: &&str| *l == "x-forwarded-proto: https";
        assert_eq!(stdout.lines().filter(forwarded).count(), 3, "{version}: {stdout}");
        let both = [arguments, &["--http1.1"]].concat();
        let stdout = output(curl(&authority, proxy.address, &both).args(["-w", format, &url]));
        let ends: Vec<&str> = stdout.lines().filter(|l| l.contains("num_connects=")).collect();
        assert_eq!(ends[0], "num_connects=1 version=1.1 verified=0", "{version}: {stdout}");
        assert_eq!(ends[1..], ["num_connects=0 version=1.1 verified=0"; 2], "{version}: {stdout}");
        for expected in ["x-forwarded-proto: https", &format!("x-forwarded-port: {}", proxy.port())] {
            assert_eq!(stdout.lines().filter(|l| *l == expected).count(), 3, "{version}: {stdout}");
        }
        assert!(!stdout.contains("x-client-"), "no certificate was asked for: {stdout}");
        let lines = proxy.logged(&format!("\"tls_version\":\"{version}\""), 6);
        let spoken = |http: &str| lines.iter().filter(|line| field(line, "version") == http).count();
        assert_eq!((spoken("2.0"), spoken("1.1")), (3, 3), "{lines:?}");
        for line in &lines {
            assert_eq!((field(line, "scheme"), field(line, "sni")), ("https", "a.test"), "{line}");
            let suite = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"][i];
            assert_eq!((field(line, "tls_cipher"), field(line, "tls_resumed")), (suite, "false"), "{line}");
        }
        // HTTP/1.0, with keep-alive and without.
        for (keep, connects) in [(true, "0"), (false, "1")] {
            let mut command = curl(&authority, proxy.address, arguments);
            command.args(["--http1.0", "-o", "/dev/null", "-o", "/dev/null", "-o", "/dev/null"]);
            if keep {
                command.args(["-H", "Connection: keep-alive"]);
            }
            let stdout = output(command.args(["-w", "%{http_code} %{num_connects}\n", &url]));
            let expected = format!("200 {connects}");
            assert!(stdout.lines().skip(1).all(|l| l == expected), "{version}: {stdout}");
        }
        // Both kinds of lines above have been logged.
        let seen = proxy.logged("\"version\":\"1.0\"", 6 * (i + 1)).len();
        assert_eq!(seen, 6 * (i + 1));
    }
    proxy.stop();
}

fn http2_can_be_turned_off(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), echo());
    let pair = authority.sign("a", &["a.test"]);
    let pool = format!("[[backend_pools]]\naddresses = [\"{}\"]\n", backend.address);
    let certificates = [("a.test", &pair, "")];
    for (enabled, version, stream) in [(false, "1.1", None), (true, "2", Some("1"))] {
        let top = format!("http2 = {{ enabled = {enabled} }}");
        let proxy = Proxy::start(driver, &top, &certificates, &pool);
        let url = format!("https://a.test:{}/", proxy.port());
        let mut curl = curl(&authority, proxy.address, &["-o", "/dev/null", "-w", "%{http_version}", &url]);
        assert_eq!(output(&mut curl), version);
        let line = &proxy.logged("\"status\":200", 1)[0];
        let logged = line.split("\"stream\":").nth(1).and_then(|rest| rest.split(',').next());
        assert_eq!(logged, stream, "{line}");
    }
}

fn bodies_arrive_unchanged_in_both_directions(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), Nginx::start("alpha"));
    let pair = authority.sign("a", &["a.test"]);
    let proxy = Proxy::to(driver, &[("a.test", &pair, "")], backend.address);
    let base = format!("https://a.test:{}", proxy.port());
    let big: Vec<u8> = (0..1_000_003u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let upload = authority.folder.write("upload", &big).display().to_string();
    std::fs::create_dir_all(backend.folder.0.join("files")).expect("a folder");
    std::fs::write(backend.folder.0.join("files/big"), &big).expect("a file");
    let got = authority.folder.0.join("got").display().to_string();
    for (version, arguments) in VERSIONS {
        // Up, and down again, by length and in chunks.
        let kinds = [
            ("length", "Expect:"),
            ("chunked", "Transfer-Encoding: chunked"),
            ("expected", "Expect: 100-continue"),
        ];
        for (kind, more) in kinds {
            let target = format!("{base}/kept/{version}-{kind}");
            let mut command = curl(&authority, proxy.address, arguments);
            command.args(["-T", &upload, "-H", more, "-o", "/dev/null", "-w", "%{http_code}", &target]);
            assert_eq!(output(&mut command), "201", "{version} {kind}");
            let kept = std::fs::read(backend.folder.0.join(format!("kept/{version}-{kind}")));
            assert!(kept.expect("a stored file") == big, "{version} {kind}: the stored bytes differ");
        }
        for more in
            [&["--http1.1"][..], &["--http1.0"], &["--limit-rate", "8M"], &["-H", "Connection: close"]]
        {
            let target = format!("{base}/files/big");
            let mut command = curl(&authority, proxy.address, arguments);
            command.args(more).args(["-o", &got, "-w", "%{http_code}", &target]);
            assert_eq!(output(&mut command), "200", "{version} {more:?}");
            assert!(std::fs::read(&got).expect("a file") == big, "{version} {more:?}: the bytes differ");
        }
    }
    proxy.stop();
}

/// The status, or what curl says about the failure.
fn outcome(command: &mut Command) -> String {
    let out = command.args(["-o", "/dev/null", "-w", "%{http_code}"]).stdin(Stdio::null()).output();
    let out = out.expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if out.status.success() { stdout.into_owned() } else { stderr.trim().to_owned() }
}

fn names_decide_about_certificates_and_requests(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), echo());
    let (a, b) = (authority.sign("a", &["a.test"]), authority.sign_rsa("b", &["b.test"]));
    let proxy = Proxy::to(driver, &[("a.test", &a, ""), ("b.test", &b, "")], backend.address);
    let run = |name: &str, more: &[&str]| {
        let url = format!("https://{name}:{}/", proxy.port());
        outcome(curl(&authority, proxy.address, more).arg(&url))
    };
    assert_eq!((run("a.test", &[]), run("b.test", &[])), ("200".into(), "200".into()));
    // One with another letter case, and one with a port of its own, are the same.
    assert_eq!(run("a.test", &["-H", "Host: A.TEST"]), "200");
    assert_eq!(run("a.test", &["-H", "Host: a.test:443"]), "200");
    // The connection's certificate is not for these.
    for host in ["b.test", "c.test", "127.0.0.1"] {
        assert_eq!(run("a.test", &["-H", &format!("Host: {host}")]), "421", "{host}");
    }
    let misdirected = proxy.logged("\"status\":421", 3);
    assert!(misdirected.iter().all(|l| field(l, "cause") == "misdirected_request"), "{misdirected:?}");
    // No certificate is for this name, and none for clients that say none.
    for (_, arguments) in VERSIONS {
        let refused = run("c.test", arguments);
        assert!(refused.contains("unrecognized name"), "{refused}");
        let refused = run("127.0.0.1", arguments);
        assert!(refused.contains("unrecognized name"), "{refused}");
    }
    let why = proxy.steps("it gets the alert unrecognized_name", 4);
    assert!(why[0].contains("the server name is c.test") && why[1].contains("is none"), "{why:?}");
    proxy.stop();

    // With a default there is one for everybody; what has one of its own stays with it.
    let proxy = Proxy::to(driver, &[("a.test", &a, "default = true"), ("b.test", &b, "")], backend.address);
    let run = |name: &str, more: &[&str]| {
        let url = format!("https://{name}:{}/", proxy.port());
        outcome(curl(&authority, proxy.address, more).args(["-k", &url]))
    };
    assert_eq!((run("c.test", &[]), run("127.0.0.1", &[])), ("200".into(), "200".into()));
    assert_eq!(run("c.test", &["-H", "Host: d.test"]), "200");
    assert_eq!(run("c.test", &["-H", "Host: b.test"]), "421");
    assert_eq!(run("b.test", &["-H", "Host: c.test"]), "421");
    proxy.stop();
}
