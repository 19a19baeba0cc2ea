//! Upgrades that come to nothing: the old process serves on, and says why.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::client::Client;
use crate::daemon::{Daemon, TempDir};
use crate::scripted_backend::Backend;
use crate::succession::Succession;

on_each_driver!(the_old_one_serves_on);

fn config(backend: &Backend) -> String {
    format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n[[backend_pools]]\naddresses = [\"{}\"]\n\
         health_config = {{ timeout = 5000, slow_threshold = 0 }}\n",
        backend.address
    )
}

/// A folder with a link to the program, whose target can be changed.
struct Installed {
    folder: TempDir,
}

impl Installed {
    fn new() -> Self {
        let installed = Self { folder: TempDir::new("program") };
        installed.becomes(env!("CARGO_BIN_EXE_rust-strom").into());
        installed
    }

    fn path(&self) -> PathBuf {
        self.folder.0.join("rust-strom")
    }

    fn becomes(&self, target: PathBuf) {
        let new = self.folder.0.join("new");
        std::os::unix::fs::symlink(target, &new).expect("a link");
        std::fs::rename(new, self.path()).expect("renamed");
    }

    fn becomes_script(&self, name: &str, text: &str) {
        let script = self.folder.write(name, format!("#!/bin/sh\n{text}\n"));
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("ours");
        self.becomes(script);
    }
}

fn the_old_one_serves_on(driver: &str) {
    let backend = Backend::good("here");
    let good = config(&backend);
    let installed = Installed::new();
    let mut succession = Succession::start_program(installed.path(), &good, &["--driver", driver]);
    let address = succession.address();
    let serves = |succession: &Succession| {
        assert_eq!(Client::to(address).get("/").expect("a response").text(), "here");
        assert!(succession.daemon.output().matches("upgraded: process").count() == 0);
    };
    let refused = |succession: &Succession, nth: usize| {
        let line = succession.wait_for_nth("not upgraded, this process serves on: ", nth);
        serves(succession);
        line
    };
    // The configuration is bad.
    succession.daemon.directory.write("config.toml", "via = 7\n");
    succession.signal(Signal::USR2);
    let line = refused(&succession, 0);
    assert!(line.contains("cannot serve: ") && line.contains("cannot be used"), "{line}");
    succession.daemon.directory.write("config.toml", &good);
    // The program dies at once, is none, or is not there.
    installed.becomes_script("dies", "exit 3");
    succession.signal(Signal::USR2);
    let line = refused(&succession, 1);
    assert!(
        line.contains("has ended (exit status: 3)") || line.contains("does not take the sockets"),
        "{line}"
    );
    std::fs::remove_file(installed.path()).expect("there");
    succession.signal(Signal::USR2);
    let line = refused(&succession, 2);
    assert!(line.contains("cannot start ") && line.contains("No such file"), "{line}");
    // One that says nothing is waited for; nothing else is begun meanwhile, and a stop ends it.
    installed.becomes_script("hangs", "exec sleep 600");
    succession.signal(Signal::USR2);
    succession.wait_for_nth("upgrading: process ", 2);
    succession.signal(Signal::USR2);
    succession.wait_for_nth("USR2: an upgrade, or the start, is under way already", 0);
    succession.signal(Signal::HUP);
    succession.wait_for_nth("HUP: the file is read again after the upgrade", 0);
    serves(&succession);
    let hanging = succession.wait_for_nth("upgrading: process ", 2);
    let id: u32 =
        hanging.split("process ").nth(1).and_then(|l| l.split(' ').next()?.parse().ok()).expect("an id");
    rustix::process::kill_process(rustix::process::Pid::from_raw(id as i32).expect("an id"), Signal::KILL)
        .expect("it runs");
    let line = refused(&succession, 3);
    assert!(line.contains("has ended (signal: 9"), "{line}");
    // The reload comes now.
    succession.wait_for_nth("it says the same", 0);
    // The program is back, by another name.
    installed.becomes(env!("CARGO_BIN_EXE_rust-strom").into());
    succession.upgrade();
    assert_eq!(Client::to(address).get("/").expect("a response").text(), "here");
    succession.wait_for_the_old();
    // In a stop there is no upgrade.
    let mut busy = Client::to(address);
    busy.send("GET / HTTP/1.1\r\n").expect("sent");
    succession.signal(Signal::TERM);
    succession.wait_for_nth("INFO  stopping: ", 0);
    succession.signal(Signal::USR2);
    succession.wait_for_nth("USR2: stopping already", 0);
    busy.send("Host: localhost\r\n\r\n").expect("sent");
    assert_eq!(busy.response(false).expect("a response").status, 200);
    drop(busy);
    succession.wait_for_the_last();
}

/// Says that it is ready, and finds out that it is not when it is to begin; by then the PID file is its own.
const FINDS_OUT_LATE: &str = r#"#!/usr/bin/env python3
import json, os, socket, struct, sys, time
link = socket.socket(fileno=0)
def read(n):
    got = b""
    while len(got) < n:
        got += link.recv(n - len(got)) or exit("gone")
    return got
hear = lambda: json.loads(read(struct.unpack(">I", read(4))[0]))
def say(what):
    text = json.dumps(what).encode()
    link.sendall(struct.pack(">I", len(text)) + text)
hear()
link.recvmsg(1, 1024)
say("Ready")
assert hear() == "Go"
with open(sys.argv[sys.argv.index("--pid-file") + 1], "w") as file:
    file.write(str(os.getpid()))
say({"Failed": "no worker waits"})
time.sleep(600)
"#;

#[test]
fn one_that_finds_out_late_is_ended() {
    let backend = Backend::good("here");
    let installed = Installed::new();
    let pid_file = installed.folder.0.join("pid");
    let arguments = ["--pid-file", pid_file.to_str().expect("a name")];
    let succession = Succession::start_program(installed.path(), &config(&backend), &arguments);
    let old = std::fs::read_to_string(&pid_file).expect("a PID file");
    let script = installed.folder.write("late", FINDS_OUT_LATE);
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("ours");
    installed.becomes(script);
    succession.signal(Signal::USR2);
    let line = succession.wait_for_nth("not upgraded, this process serves on: ", 0);
    assert!(line.contains("cannot serve: no worker waits (and was ended)"), "{line}");
    assert_eq!(std::fs::read_to_string(&pid_file).expect("a PID file"), old);
    assert_eq!(Client::to(succession.address()).get("/").expect("a response").text(), "here");
    let id = succession.wait_for_nth("upgrading: process ", 0);
    has_ended(id.split("process ").nth(1).and_then(|l| l.split(' ').next()).expect("an id"));
    succession.stop();
}

/// A process with this id, of a program that was to take the place, ends.
fn has_ended(id: &str) {
    let runs = || {
        let called = std::fs::read_to_string(format!("/proc/{id}/cmdline"));
        called.is_ok_and(|c| c.contains("sleep") || c.contains("python"))
    };
    let begun = std::time::Instant::now();
    while runs() {
        assert!(begun.elapsed() < crate::client::WAIT, "process {id} runs on");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// A stop does not wait for a process that may never be ready, and leaves none behind.
#[test]
fn a_stop_ends_an_upgrade() {
    let backend = Backend::good("here");
    let installed = Installed::new();
    let mut succession = Succession::start_program(installed.path(), &config(&backend), &[]);
    installed.becomes_script("hangs", "exec sleep 600");
    succession.signal(Signal::USR2);
    let line = succession.wait_for_nth("upgrading: process ", 0);
    let id = line.split("process ").nth(1).and_then(|l| l.split(' ').next()).expect("an id");
    succession.signal(Signal::TERM);
    succession.wait_for_the_last();
    has_ended(id);
}

/// The demo has no file that another process could serve by.
#[test]
fn the_demo_is_not_upgraded() {
    let demo = Daemon::demo(&[]);
    demo.wait_for("INFO  ready");
    demo.signal(Signal::USR2);
    demo.wait_for("USR2: there is no file that another process could serve by");
    demo.stop();
}

/// The first process of a container takes all others of it along when it ends, the new one too.
#[test]
fn the_first_process_of_a_container_is_not_replaced() {
    let backend = Backend::good("here");
    let directory = TempDir::new("container");
    let file = directory.write("config.toml", config(&backend));
    let mut command = Command::new("unshare");
    // Whoever is not root needs a namespace of users for that.
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_rust-strom"), "--config"]).arg(file);
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut container = Daemon::run(command, directory);
    container.wait_for("INFO  ready");
    let children = format!("/proc/{0}/task/{0}/children", container.id());
    let children = std::fs::read_to_string(children).expect("it runs");
    let first = children.trim().parse().ok().and_then(rustix::process::Pid::from_raw).expect("one child");
    rustix::process::kill_process(first, Signal::USR2).expect("it runs");
    container.wait_for("not upgraded, this process serves on: it is the first process of its container");
    assert_eq!(Client::to(container.address()).get("/").expect("a response").text(), "here");
    rustix::process::kill_process(first, Signal::TERM).expect("it runs");
    assert_eq!(container.wait().code(), Some(0), "{}", container.output());
}
