//! `Authentication` against Debian's slapd, and against directories that are away or say nothing.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::authority::Authority;
use crate::client::{Client, WAIT};
use crate::nginx::{output, program};
use crate::proxy::{config, start};
use crate::scripted_backend::{Backend, ok};
use crate::slapd::{Slapd, Wanted};

on_each_driver!(
    users_of_a_directory_pass_and_nobody_else,
    a_directory_that_shows_its_entries_to_one_reader,
    tls_to_directories_is_verified,
    a_directory_that_says_nothing_costs_its_own_requests_their_timeout,
    successes_are_believed_while_the_directory_is_away,
    a_directory_that_comes_back_is_asked_again
);

/// As README.md has it.
const EXAMPLE: &str = "[backend_pools.middlewares.Authentication]
ldap_address = \"ldap://ldap.example.com:389\"
user_directory = \"ou=users,dc=example,dc=com\"
rdn_identifier = \"uid\"
recursive = true
";

fn at(address: SocketAddr) -> String {
    EXAMPLE.replace("ldap.example.com:389", &address.to_string())
}

/// A backend whose responses have the head of the request, in lower case, as their body.
fn echo() -> Backend {
    Backend::start(|mut peer| while peer.request().is_some_and(|head| peer.send(ok(&head))) {})
}

/// What curl gets: the status, and the body.
fn curl(address: SocketAddr, path: &str, user: Option<&str>) -> (u16, String) {
    let mut curl = Command::new(program("curl", "curl"));
    curl.args(["-sS", "-m", "20", "-w", "\n%{http_code}", "-H", "X-Remote-User: root"]);
    if let Some(user) = user {
        curl.args(["-u", user]);
    }
    let text = output(curl.arg(format!("http://{address}{path}")));
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.parse().expect("a status"), body.to_owned())
}

fn status(address: SocketAddr, user: &str) -> u16 {
    curl(address, "/", Some(user)).0
}

fn users_of_a_directory_pass_and_nobody_else(driver: &str) {
    let (slapd, backend) = (Slapd::start(&Wanted::default()), echo());
    let (daemon, address) = start(&config(driver, "", backend.address, &at(slapd.plain)));
    for _ in 0..2 {
        let (status, told) = curl(address, "/", Some("ada:love"));
        assert_eq!(status, 200, "{told}\n{}", daemon.output());
        assert!(told.contains("x-remote-user: ada\r\n"), "{told}");
        assert!(!told.contains("authorization") && !told.contains("root"), "{told}");
    }
    assert_eq!(status(address, "bob:hope"), 200, "further below");
    assert_eq!(status(address, "\u{e4}da:\u{fc}nl\u{f6}s"), 200);
    assert_eq!(curl(address, "/", None).0, 401);
    let before = backend.stats.requests.load(std::sync::atomic::Ordering::SeqCst);
    for wrong in [
        "ada:hate",
        "ada:hope",
        "ada:",
        ":love",
        "nobody:love",
        "*)(uid=*:love",
        "a*:love",
        "ada)(cn=ada:love",
        "\\61da:love",
        "uid=ada,ou=users,dc=example,dc=com:love",
        "users:love",
    ] {
        assert_eq!(status(address, wrong), 401, "{wrong}");
    }
    // Nobody can tell which of the two it is.
    assert_eq!(status(address, "twin:love"), 503);
    assert_eq!(backend.stats.requests.load(std::sync::atomic::Ordering::SeqCst), before);
    let mut client = Client::to(address);
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("sent");
    let got = client.response(false).expect("a response");
    assert_eq!(got.field("WWW-Authenticate"), Some("Basic realm=\"Restricted\", charset=\"UTF-8\""));
    let twice = "Authorization: Basic YWRhOmxvdmU=\r\n".repeat(2);
    client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{twice}\r\n")).expect("sent");
    assert_eq!(client.response(false).expect("a response").status, 400);
    daemon.wait_for("\"user\":\"ada\"");
    daemon.wait_for("\"user\":\"\u{e4}da\"");
    daemon.stop();

    let (daemon, address) = start(&config(
        driver,
        "",
        backend.address,
        &at(slapd.plain).replace("recursive = true", "recursive = false\nforward_authorization = true"),
    ));
    let (found, told) = curl(address, "/", Some("ada:love"));
    assert!(found == 200 && told.contains("authorization: basic ywrhomxvdmu="), "{told}");
    assert_eq!(status(address, "bob:hope"), 401, "not directly below");
    assert_eq!(status(address, "twin:love"), 200, "only one of them is directly below");
    daemon.stop();
}

fn a_directory_that_shows_its_entries_to_one_reader(driver: &str) {
    let slapd = Slapd::start(&Wanted { private: true, ..Wanted::default() });
    let (backend, folder) = (echo(), crate::daemon::TempDir::new("ldap-password"));
    let file = folder.write("password", "search\n");
    let reader = "bind_dn = \"cn=reader,dc=example,dc=com\"\n";
    for (more, good, wrong) in [
        (format!("{reader}bind_password = \"search\"\n"), 200, 401),
        (format!("{reader}bind_password_file = \"{}\"\n", file.display()), 200, 401),
        (format!("{reader}bind_password = \"find\"\n"), 503, 503),
        (String::new(), 503, 503),
    ] {
        let (daemon, address) = start(&config(driver, "", backend.address, &(at(slapd.plain) + &more)));
        for _ in 0..3 {
            assert_eq!(status(address, "ada:love"), good, "{more}: {}", daemon.output());
            assert_eq!(status(address, "ada:hate"), wrong, "{more}");
        }
        // A user's bind does not stay on the connection that searches.
        assert_eq!(status(address, "bob:hope"), good, "{more}");
        let (found, body) = curl(address, "/", Some("nobody:x"));
        assert_eq!(found, wrong, "{more}");
        assert_eq!(body.contains("lookup_failed"), wrong == 503, "{body}");
        daemon.stop();
    }
}

fn tls_to_directories_is_verified(driver: &str) {
    let (authority, other) = (Authority::new("directories"), Authority::new("others"));
    // One for every address that a directory of this process may get, and one for none of them.
    let [.., high, low] = std::process::id().to_be_bytes();
    let addresses: Vec<String> = (1..=99).map(|nth| format!("127.{nth}.{high}.{low}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(|address| &**address).collect();
    let (named, unnamed) = (authority.sign("named", &addresses), authority.sign("unnamed", &["ldap.test"]));
    let named = Slapd::start(&Wanted { certificate: Some(&named), ..Wanted::default() });
    let unnamed = Slapd::start(&Wanted { certificate: Some(&unnamed), ..Wanted::default() });
    let backend = echo();
    let cases = [
        (named.secure, true, authority.file(), 200),
        (named.plain, false, authority.file(), 200),
        (named.secure, true, other.file(), 503),
        (named.plain, false, other.file(), 503),
        (unnamed.secure, true, authority.file(), 503),
        (unnamed.plain, false, authority.file(), 503),
    ];
    for (directory, secure, ca, expected) in cases {
        let mut text = at(directory) + &format!("ca_file = \"{}\"\n", ca.display());
        if secure {
            text = text.replace("ldap://", "ldaps://");
        } else {
            text += "starttls = true\n";
        }
        let (daemon, address) = start(&config(driver, "", backend.address, &text));
        assert_eq!(status(address, "ada:love"), expected, "{text}{}", daemon.output());
        assert_eq!(status(address, "ada:hate"), if expected == 200 { 401 } else { 503 }, "{text}");
        daemon.stop();
    }
}

/// Two pools: `/open` without a middleware, and everything else with these.
fn two_pools(driver: &str, backend: SocketAddr, middlewares: &str) -> String {
    config(driver, "", backend, &format!("matcher = \"PathPrefix('/closed')\"\n{middlewares}"))
        + &format!("[[backend_pools]]\nmatcher = \"PathPrefix('/open')\"\naddresses = [\"{backend}\"]\n")
}

fn a_directory_that_says_nothing_costs_its_own_requests_their_timeout(driver: &str) {
    // It accepts, by the kernel, and says nothing.
    let frozen = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let directory = frozen.local_addr().expect("bound");
    let backend = echo();
    let text = two_pools(driver, backend.address, &(at(directory) + "timeout = 1\n"));
    let (daemon, address) = start(&text);
    let begun = Instant::now();
    let waiting: Vec<_> = (0..24)
        .map(|n| {
            std::thread::spawn(move || {
                let mut client = Client::to(address);
                // `user0:x` and so on.
                let digits = [b'0' + n / 10, b'0' + n % 10];
                let credentials = encode(&[b"user", &digits[..], b":x"].concat());
                client
                    .send(format!(
                        "GET /closed HTTP/1.1\r\nHost: a.test\r\nAuthorization: Basic {credentials}\r\n\r\n"
                    ))
                    .expect("sent");
                let got = client.response(false).expect("a response");
                assert_eq!(got.field("WWW-Authenticate"), None, "{}", got.head);
                (got.status, begun.elapsed())
            })
        })
        .collect();
    // More than threads that ask: some of them wait for a thread, and the workers for nobody.
    let mut open = Client::to(address);
    let mut slowest = Duration::ZERO;
    while begun.elapsed() < Duration::from_millis(900) {
        let asked = Instant::now();
        assert_eq!(open.get("/open").expect("a response").status, 200);
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < Duration::from_millis(900), "{slowest:?}");
    for thread in waiting {
        let (status, took) = thread.join().expect("no panic");
        assert_eq!(status, 503);
        let least = Duration::from_millis(950);
        assert!(took > least && took < Duration::from_secs(4), "{took:?}");
    }
    daemon.wait_for("nobody can be authenticated: no answer within 1 s");
    assert_eq!(open.get("/open").expect("a response").status, 200);
    daemon.stop();
}

fn successes_are_believed_while_the_directory_is_away(driver: &str) {
    let (mut slapd, backend) = (Slapd::start(&Wanted::default()), echo());
    let text = two_pools(driver, backend.address, &(at(slapd.plain) + "cache_time = \"3s\"\n"));
    let (daemon, address) = start(&text);
    let asked = Instant::now();
    assert_eq!(curl(address, "/closed", Some("ada:love")).0, 200, "{}", daemon.output());
    let known = Instant::now();
    slapd.stop();
    let mut refused = false;
    while !refused {
        assert!(known.elapsed() < WAIT, "it is believed for ever");
        let before = asked.elapsed();
        let (status, _) = curl(address, "/closed", Some("ada:love"));
        if asked.elapsed() < Duration::from_secs(3) {
            assert_eq!(status, 200);
        }
        if before > Duration::from_secs(3) + (known - asked) {
            assert_eq!(status, 503, "use does not prolong it");
            refused = true;
        }
        let begun = Instant::now();
        assert_eq!(curl(address, "/closed", Some("ada:hate")).0, 503);
        assert_eq!(curl(address, "/open", None).0, 200);
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(100));
    }
    daemon.stop();
}

fn a_directory_that_comes_back_is_asked_again(driver: &str) {
    let (mut slapd, backend) = (Slapd::start(&Wanted::default()), echo());
    let (daemon, address) =
        start(&config(driver, "", backend.address, &(at(slapd.plain) + "cache_time = 0\n")));
    assert_eq!(status(address, "ada:love"), 200);
    slapd.restart();
    // The connection on which names are looked for has ended meanwhile: nobody notices.
    assert_eq!(status(address, "ada:love"), 200, "{}", daemon.output());
    slapd.stop();
    assert_eq!(status(address, "ada:love"), 503);
    daemon.wait_for("nobody can be authenticated");
    slapd.restart();
    assert_eq!(status(address, "ada:love"), 200);
    daemon.wait_for("it can be asked again");
    daemon.stop();
}

/// Base64 (RFC 4648 §4).
fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let n = chunk.iter().chain([&0, &0]).take(3).fold(0_u32, |n, b| n << 8 | u32::from(*b));
        let digit = |at: usize| {
            if at > chunk.len() { '=' } else { DIGITS[(n >> (18 - 6 * at)) as usize & 63] as char }
        };
        String::from_iter([digit(0), digit(1), digit(2), digit(3)])
    };
    bytes.chunks(3).map(group).collect()
}
