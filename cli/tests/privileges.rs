//! `user` and `group`: the process listens and opens its log as root, and serves as somebody else.

#[path = "support/address.rs"]
mod address;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod daemon;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod scripted_backend;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use client::Client;
use daemon::{Daemon, TempDir};
use scripted_backend::Backend;

/// The usual user without any rights.
const NOBODY: u32 = 65534;

fn config(top: &str, backend: SocketAddr) -> String {
    format!(
        "metrics_address = false\n{top}\n[[backend_pools]]\naddresses = [\"{backend}\"]\n\
         schemes = [\"HTTP\"]\nhealth_config = {{ timeout = 5000, slow_threshold = 0 }}\n"
    )
}

/// A free port that only root can listen on.
fn privileged_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (600..1024).find(is_free).expect("a free port below 1024")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The words of a line of `/proc/PID/status`.
fn words<'s>(status: &'s str, name: &str) -> Vec<&'s str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.split_whitespace().collect()
}

#[test]
fn root_listens_and_somebody_else_serves() {
    if !is_root() {
        // `somebody_else_cannot_become_root` tests what is left.
        return;
    }
    let logs = TempDir::new("root-only-logs");
    std::fs::set_permissions(&logs.0, PermissionsExt::from_mode(0o700)).expect("ours");
    let log = logs.0.join("access.log");
    let backend = Backend::good("served");
    for (user, gid, groups) in [
        ("user = \"nobody\"", 65534, "65534"),
        ("user = 65534", 65534, "65534"),
        ("user = \"nobody\"\ngroup = \"daemon\"", 1, "1"),
        ("user = \"4242\"\ngroup = 4343", 4343, "4343"),
    ] {
        let port = privileged_port();
        let top = format!("http_address = \"127.0.0.1:{port}\"\n{user}");
        let text = format!("{}[access_log]\npath = \"{}\"\n", config(&top, backend.address), log.display());
        for driver in ["mio", "smol"] {
            let daemon = Daemon::start(&text, &["--workers", "2", "--driver", driver]);
            assert_eq!(daemon.address().port(), port);
            let mut client = Client::to(daemon.address());
            assert_eq!(client.get("/").expect("a response").text(), "served");
            let statuses = daemon.thread_statuses();
            assert!(statuses.len() >= 3, "workers and the log's thread: {}", statuses.len());
            let uid = if user.contains("4242") { "4242" } else { "65534" };
            for status in statuses {
                assert_eq!(words(&status, "Uid:"), [uid; 4], "{status}");
                assert_eq!(words(&status, "Gid:"), [gid.to_string().as_str(); 4], "{status}");
                assert_eq!(words(&status, "Groups:"), [groups], "{status}");
                assert_eq!(words(&status, "CapEff:"), ["0000000000000000"], "{status}");
                assert_eq!(words(&status, "CapPrm:"), ["0000000000000000"], "{status}");
            }
            drop(client);
            daemon.stop();
        }
    }
    // In a folder that only root can look into.
    let lines = std::fs::read_to_string(&log).expect("opened before the rights were given up");
    assert_eq!(lines.lines().count(), 8, "{lines}");
}

/// Copies the binary by another process: a thread that forks while this one writes would hold the copy open
/// for writing, and it could not be started.
fn copy_program(to: &Path) {
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_rust-strom")).arg(to).status();
    assert!(copied.expect("cp starts").success());
}

/// Runs the binary on a configuration, as `nobody` if this test is root.
fn run_as_nobody(folder: &Path, arguments: &[&str]) -> Output {
    let binary = folder.join("rust-strom");
    // Where the build lies nobody may have no access to.
    copy_program(&binary);
    let mut command = Command::new(&binary);
    command.current_dir(folder).args(arguments).env_remove("RUST_LOG");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().expect("it starts")
}

#[test]
fn somebody_else_cannot_become_root() {
    let folder = TempDir::new("nobody");
    std::fs::set_permissions(&folder.0, PermissionsExt::from_mode(0o755)).expect("ours");
    let backend = SocketAddr::from(([127, 0, 0, 1], 9));
    folder.write("root.toml", config("http_address = \"127.0.0.1:0\"\nuser = \"root\"", backend));
    let out = run_as_nobody(&folder.0, &["--config", "root.toml"]);
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert_eq!(
        err,
        "rust-strom: cannot become user root: only root can; start as root, or leave `user` and `group` out\n"
    );
}

#[test]
fn accounts_that_do_not_exist() {
    let folder = TempDir::new("accounts");
    let backend = SocketAddr::from(([127, 0, 0, 1], 9));
    let table = [
        ("user = \"no-such-user\"", "3:8: error: there is no user \"no-such-user\" in /etc/passwd"),
        (
            "user = \"root\"\ngroup = \"no-such-group\"",
            "4:9: error: there is no group \"no-such-group\" in /etc/group",
        ),
        ("user = 4242", "3:8: error: user 4242 has no entry in /etc/passwd, so its group is not known"),
        ("user = -1", "3:8: error: `user` must be from 0 to 4294967294"),
        ("user = \"a:b\"", "3:8: error: \"a:b\" is not the name of a user"),
        ("group = \"\"", "3:9: error: \"\" is not the name of a group"),
        ("user = [\"root\"]", "3:8: error: `user` must be a name or a number, found a list"),
    ];
    for (top, message) in table {
        let text = config(&format!("http_address = \"127.0.0.1:0\"\n{top}"), backend);
        let file = folder.write("config.toml", text);
        let run = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
            command.arg("--config").arg(&file).args(more).output().expect("it starts")
        };
        let check = run(&["--check"]);
        let stdout = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(check.status.code() == Some(1) && stdout.contains(message), "{top}: {stdout}");
        let start = run(&[]);
        let stderr = String::from_utf8_lossy(&start.stderr).into_owned();
        assert!(start.status.code() == Some(1) && stderr.contains(message), "{top}: {stderr}");
    }
}
