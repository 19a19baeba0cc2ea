//! The unit of systemd, judged by systemd itself.

use std::process::Command;

use crate::daemon::TempDir;
use crate::{package, read, run, text};

/// Tenths of systemd's exposure level, from 0 (none) to 100.
const MAX_EXPOSURE: &str = "--threshold=20";

#[test]
fn the_unit_is_hardened() {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", MAX_EXPOSURE]);
    let judged = run(command.arg(package().join("rust-strom.service")), "systemd");
    assert!(judged.status.success(), "{}", text(&judged));
    assert!(text(&judged).contains("Overall exposure level"), "{}", text(&judged));
}

/// systemd understands every line; one before 253 says that it does not know notify-reload, and keeps notify.
#[test]
fn systemd_understands_the_unit() {
    let directory = TempDir::new("unit");
    let unit = read("rust-strom.service");
    let file = directory
        .write("rust-strom.service", unit.replace("/usr/bin/rust-strom", env!("CARGO_BIN_EXE_rust-strom")));
    let verified = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file), "systemd");
    let said = text(&verified);
    let unknown = "Failed to parse service type, ignoring: notify-reload";
    let mine = said.lines().filter(|line| line.contains("rust-strom.service") && !line.contains(unknown));
    assert_eq!(mine.collect::<Vec<_>>(), [""; 0], "{said}");
    assert!(verified.status.success(), "{said}");
}

/// A bad file fails a reload: it is checked before anything is sent.
#[test]
fn a_reload_begins_with_a_check() {
    let unit = read("rust-strom.service");
    let values = |key: &str| -> Vec<&str> {
        unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
    };
    let [start] = values("ExecStart")[..] else { panic!("one command") };
    assert_eq!(values("ExecReload"), [&format!("{start} --check"), "/bin/kill -HUP $MAINPID"]);
    assert_eq!(values("Type"), ["notify", "notify-reload"]);
    // What those commands do: exit code 1 for a bad file, and 0 for a good one.
    let directory = TempDir::new("unit-check");
    for (config, code) in [("http_adress = 1\n", 1), (include_str!("../../examples/quick-start.toml"), 0)] {
        let file = directory.write("config.toml", config);
        let line = start.replace("/usr/bin/rust-strom", env!("CARGO_BIN_EXE_rust-strom"));
        let line = line.replace("/etc/rust-strom/config.toml", file.to_str().expect("UTF-8"));
        let checked = run(Command::new("sh").args(["-c", &format!("{line} --check")]), "dash");
        assert_eq!(checked.status.code(), Some(code), "{}", text(&checked));
    }
}
