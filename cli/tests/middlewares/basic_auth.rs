//! `BasicAuth` with lists that `htpasswd`, `argon2`, `openssl passwd` and crypt(3) have made.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::daemon::TempDir;
use crate::proxy::{config, start};
use crate::scripted_backend::{Backend, ok};

on_each_driver!(users_of_each_kind_of_hash_pass, a_dear_hash_delays_nobody_else);

/// Of each user the password is "love".
const FILE: &str = include_str!("../../../drivers/common/src/auth/password_hash/users.htpasswd");

/// `bcrypt:love`, `argon2id:love`, `sha512crypt:love`, `rounds:love`
const GOOD: [(&str, &str); 4] = [
    ("bcrypt", "YmNyeXB0OmxvdmU="),
    ("argon2id", "YXJnb24yaWQ6bG92ZQ=="),
    ("sha512crypt", "c2hhNTEyY3J5cHQ6bG92ZQ=="),
    ("rounds", "cm91bmRzOmxvdmU="),
];
/// `bcrypt:hate`, `nobody:love`, `bcrypt:`
const BAD: [&str; 3] = ["YmNyeXB0OmhhdGU=", "bm9ib2R5OmxvdmU=", "YmNyeXB0Og=="];

fn get(client: &mut Client, credentials: &str) -> (u16, String) {
    let head = "GET /closed HTTP/1.1\r\nHost: a.test\r\nAuthorization: Basic";
    client.send(format!("{head} {credentials}\r\n\r\n")).expect("sent");
    let got = client.response(false).expect("a response");
    (got.status, got.text())
}

fn users_of_each_kind_of_hash_pass(driver: &str) {
    let backend = Backend::start(|mut peer| while peer.request().is_some_and(|head| peer.send(ok(&head))) {});
    let folder = TempDir::new("users");
    let file = folder.write("users.htpasswd", FILE);
    let lines = FILE.lines().filter(|line| !line.starts_with('#'));
    let pairs: Vec<(&str, &str)> = lines.clone().filter_map(|line| line.split_once(':')).collect();
    let table: Vec<String> = pairs.iter().map(|(name, hash)| format!("{name} = \"{hash}\"")).collect();
    let list: Vec<String> = lines.map(|line| format!("\"{line}\"")).collect();
    for users in [
        format!("users_file = \"{}\"", file.display()),
        format!("users = {{ {} }}", table.join(", ")),
        format!("users = [{}]\nrealm = \"the house\"", list.join(", ")),
    ] {
        let text = format!("[backend_pools.middlewares.BasicAuth]\n{users}\n");
        let (daemon, address) = start(&config(driver, "", backend.address, &text));
        let mut client = Client::to(address);
        for (user, credentials) in GOOD {
            for _ in 0..2 {
                let (status, told) = get(&mut client, credentials);
                assert_eq!(status, 200, "{user}: {told}");
                assert!(told.contains(&format!("x-remote-user: {user}\r\n")), "{told}");
                assert!(!told.contains("authorization"), "{told}");
            }
        }
        for credentials in BAD {
            assert_eq!(get(&mut client, credentials).0, 401, "{credentials}");
        }
        daemon.wait_for("\"user\":\"argon2id\"");
        daemon.stop();
    }
}

/// Files that cannot be used are named, with the line, by `--check` and at the start.
#[test]
fn files_that_cannot_be_used_are_diagnosed() {
    let folder = TempDir::new("bad-files");
    folder.write("users", "# staff\nada:secret\n\neve:$apr1$a$b\n");
    folder.write("none", "\n");
    folder.write("ca.pem", "no certificate\n");
    let ldap = "[backend_pools.middlewares.Authentication]\nldap_address = \"ldaps://ldap.example.com\"\n\
                user_directory = \"dc=example\"\nrdn_identifier = \"uid\"\nrecursive = true\n";
    let list = "[backend_pools.middlewares.BasicAuth]\n";
    let table: [(String, &[&str]); 6] = [
        (
            format!("{list}users_file = \"users\""),
            &[
                "config.toml:5:14: error: ",
                "users: line 2: user \"ada\": its password is not hashed",
                "users: line 4: user \"eve\": its password is hashed by Apache's MD5",
            ],
        ),
        (format!("{list}users_file = \"none\""), &["none: has no users"]),
        (format!("{list}users_file = \"missing\""), &["config.toml:5:14: error: cannot read"]),
        (format!("{ldap}ca_file = \"ca.pem\""), &["config.toml:9:11: error: ", "ca.pem: has no certificate"]),
        (
            format!("{ldap}bind_dn = \"cn=a\"\nbind_password_file = \"none\""),
            &["config.toml:10:22: error: ", "none: has no password"],
        ),
        (format!("{ldap}bind_dn = \"cn=a\"\nbind_password_file = \"no/where\""), &["cannot read"]),
    ];
    for (middleware, expected) in table {
        let pool = "[[backend_pools]]\naddresses = [\"127.0.0.1:9\"]";
        let text = format!("http_address = \"127.0.0.1:0\"\n{pool}\n{middleware}\n");
        let file = folder.write("config.toml", text);
        for check in [true, false] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
            command.arg("--config").arg(&file).args(check.then_some("--check"));
            let out = command.output().expect("it starts");
            assert_eq!(out.status.code(), Some(1), "{middleware}");
            let said = [out.stdout, out.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(expected.iter().all(|words| said.contains(words)), "{middleware}\n{said}");
        }
    }
}

/// Requests with wrong passwords keep the threads that hash busy; those of other pools do not notice.
fn a_dear_hash_delays_nobody_else(driver: &str) {
    let backend = Backend::good("open");
    let hash = "$6$rounds=3000000$saltstring$".to_owned() + &"x".repeat(86);
    let closed = format!(
        "matcher = \"PathPrefix('/closed')\"\n[backend_pools.middlewares.BasicAuth]\nusers = {{ ada = \
         \"{hash}\" }}\n"
    );
    let open = format!("[[backend_pools]]\naddresses = [\"{}\"]\n", backend.address);
    let (daemon, address) = start(&(config(driver, "", backend.address, &closed) + &open));
    let guessing: Vec<_> = (0..6)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::to(address);
                // `ada:hate` and `eve:hate`.
                [get(&mut client, "YWRhOmhhdGU=").0, get(&mut client, "ZXZlOmhhdGU=").0]
            })
        })
        .collect();
    let mut client = Client::to(address);
    let begun = Instant::now();
    let mut served = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(client.get("/open").expect("a response").status, 200);
        served += 1;
    }
    assert!(served > 10, "{served}");
    for thread in guessing {
        for status in thread.join().expect("no panic") {
            assert!(matches!(status, 401 | 503), "{status}");
        }
    }
    daemon.stop();
}
