//! Certificates of clients: who is let in, and what backends and the log are told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::authority::{Authority, Pair};
use crate::nginx::program;
use crate::openssl;
use crate::proxy::{Proxy, field};
use crate::python;
use crate::scripted_backend::{Backend, ok};

on_each_driver!(
    whoever_has_a_certificate_is_known_by_it,
    a_ticket_stands_for_no_certificate_that_was_never_shown
);

/// A backend whose responses have the head of the request as their body.
fn echo() -> Backend {
    Backend::start(|mut peer| while peer.request().is_some_and(|head| peer.send(ok(&head))) {})
}

/// What curl prints, or what it says about the failure.
fn curl(
    ca: &PathBuf,
    to: SocketAddr,
    name: &str,
    shown: Option<&Pair>,
    more: &[&str],
) -> Result<String, String> {
    let mut command = Command::new(program("curl", "curl"));
    command.args(["-sS", "-m", "20", "--cacert"]).arg(ca).args(more);
    command.args(["--resolve", &format!("{name}:{}:127.0.0.1", to.port())]);
    if let Some(pair) = shown {
        command.arg("--cert").arg(&pair.certificate).arg("--key").arg(&pair.key);
    }
    // What only a client certificate may say.
    for field in ["X-Client-Subject: CN=root", "X-Client-Verify: SUCCESS", "X_Client_Verify: SUCCESS"] {
        command.args(["-H", field]);
    }
    let out = command.arg(format!("https://{name}:{}/", to.port())).stdin(Stdio::null()).output();
    let out = out.expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

fn whoever_has_a_certificate_is_known_by_it(driver: &str) {
    let (server, clients, others) =
        (Authority::new("ca"), Authority::new("clients"), Authority::new("others"));
    let pair = server.sign("server", &["required.test", "optional.test", "open.test"]);
    let (alice, mallory) = (clients.sign_client("alice"), others.sign_client("mallory"));
    let (expired, not_for_clients) =
        (clients.sign_expired("expired", &[]), clients.sign_server("for-servers"));
    let ca = format!("client_ca = \"{}\"", clients.file().display());
    let optional = format!("{ca}\nclient_auth = \"optional\"");
    let certificates =
        [("required.test", &pair, &*ca), ("optional.test", &pair, &optional), ("open.test", &pair, "")];
    let backend = echo();
    let proxy = Proxy::to(driver, &certificates, backend.address);
    let told = |head: &str| -> Vec<String> {
        head.lines()
            .filter(|l| l.starts_with("x-client") || l.starts_with("x_client"))
            .map(str::to_owned)
            .collect()
    };
    for version in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        let run = |name: &str, shown| curl(&server.file(), proxy.address, name, shown, version);
        for name in ["required.test", "optional.test"] {
            let head = run(name, Some(&alice)).expect("she is known");
            assert_eq!(told(&head), ["x-client-verify: success", "x-client-subject: cn=alice"], "{name}");
        }
        let head = run("optional.test", None).expect("nobody is welcome");
        assert_eq!(told(&head), ["x-client-verify: none"]);
        // Where nobody is asked, what the client says of itself is nothing.
        for shown in [None, Some(&alice)] {
            let head = run("open.test", shown).expect("nobody is asked");
            assert_eq!(told(&head), [""; 0]);
        }
        for (shown, name) in [
            (None, "required.test"),
            (Some(&mallory), "required.test"),
            (Some(&mallory), "optional.test"),
            (Some(&expired), "required.test"),
            (Some(&expired), "optional.test"),
            (Some(&not_for_clients), "required.test"),
        ] {
            let refused = run(name, shown).expect_err("refused");
            // curl takes the alert about a time that is over for its own judgement of the server.
            let told = refused.contains("alert") || refused.contains("certificate verification failed");
            assert!(told, "{name} {shown:?}: {refused}");
        }
    }
    for line in proxy.logged("\"sni\":\"required.test\"", 2) {
        assert_eq!(field(&line, "client_subject"), "CN=alice", "{line}");
    }
    let anonymous = proxy.logged("\"sni\":\"optional.test\"", 4).into_iter();
    assert_eq!(anonymous.filter(|l| !l.contains("client_subject")).count(), 2);
    for version in ["-tls1_2", "-tls1_3"] {
        let output = openssl::request(proxy.address, "required.test", &server.file(), &[version]);
        assert!(output.contains("SSL alert number 116"), "{version}: {output}");
    }
    // Each alert for each version, and why.
    for (why, count) in [
        ("peer sent no certificates; it gets the alert certificate_required", 4),
        ("UnknownIssuer; it gets the alert unknown_ca", 4),
        ("it gets the alert certificate_expired", 4),
        ("it gets the alert unsupported_certificate", 2),
    ] {
        assert_eq!(proxy.steps(why, count).len(), count, "{why}");
    }
    // Clients hear who is meant.
    let output = openssl::request(proxy.address, "optional.test", &server.file(), &[]);
    assert!(output.contains("Acceptable client certificate CA names\nCN = clients"), "{output}");
    proxy.stop();
}

fn a_ticket_stands_for_no_certificate_that_was_never_shown(driver: &str) {
    let (server, clients) = (Authority::new("ca"), Authority::new("clients"));
    let pair = server.sign("server", &["open.test", "required.test"]);
    let alice = clients.sign_client("alice");
    let ca = format!("client_ca = \"{}\"", clients.file().display());
    let backend = echo();
    let proxy =
        Proxy::to(driver, &[("open.test", &pair, ""), ("required.test", &pair, &ca)], backend.address);
    let script = "
ca, port, certificate, key, version = sys.argv[1:]
shared = context(ca, version)
def connect(name, session=None):
    s = shared.wrap_socket(socket.create_connection(('127.0.0.1', int(port)), timeout=15), server_hostname=name, session=session)
    s.sendall(b'GET / HTTP/1.1\\r\\nHost: %s\\r\\nConnection: close\\r\\n\\r\\n' % name.encode())
    data = b''
    while True:
        part = s.recv(65536)
        if not part: break
        data += part
    return s, data
s, data = connect('open.test')
assert data.startswith(b'HTTP/1.1 200 ') and b'x-client-' not in data, data
ticket = s.session
try:
    s, data = connect('required.test', ticket)
    raise Exception('let in: %r' % data)
except ssl.SSLError as e:
    assert 'ALERT' in str(e).upper(), e
# One for which a certificate was shown goes on with its identity.
shared.load_cert_chain(certificate, key)
s, data = connect('required.test')
assert b'x-client-subject: cn=alice' in data and not s.session_reused, data
s, data = connect('required.test', s.session)
assert b'x-client-subject: cn=alice' in data and s.session_reused, data
print('ok')
";
    for version in ["2", "3"] {
        let arguments = [
            server.file().display().to_string(),
            proxy.port().to_string(),
            alice.certificate.display().to_string(),
            alice.key.display().to_string(),
            version.to_owned(),
        ];
        assert_eq!(python::run(script, &arguments), "ok\n", "{version}");
    }
    let resumed = proxy.logged("\"tls_resumed\":true", 2);
    assert!(resumed.iter().all(|l| field(l, "client_subject") == "CN=alice"), "{resumed:?}");
    proxy.stop();
}
