//! `install.sh`, into a folder of its own.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::daemon::TempDir;
use crate::{package, run, text};

fn install(below: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(package().join("install.sh"));
    command.args(["--binary", env!("CARGO_BIN_EXE_rust-strom")]).args(arguments).env("DESTDIR", below);
    run(&mut command, "dash")
}

/// Every file below a folder, with its mode.
fn files(below: &Path) -> BTreeMap<String, u32> {
    let (mut found, mut open) = (BTreeMap::new(), vec![below.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("a folder") {
            let path = entry.expect("an entry").path();
            let metadata = path.symlink_metadata().expect("it is there");
            if metadata.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(below).expect("below it").to_string_lossy().into_owned();
            found.insert(name, metadata.permissions().mode() & 0o7777);
        }
    }
    found
}

const CONFIG: &str = "etc/rust-strom/config.toml";

#[test]
fn installed_again_and_removed() {
    let directory = TempDir::new("install");
    let below = &directory.0;
    let first = install(below, &["--service", "systemd"]);
    assert!(first.status.success(), "{}", text(&first));
    assert!(text(&first).contains("is installed at /usr/local/bin/rust-strom"), "{}", text(&first));
    let expected = [
        ("etc/logrotate.d/rust-strom", 0o644),
        (CONFIG, 0o640),
        ("etc/systemd/system/rust-strom.service", 0o644),
        ("usr/local/bin/rust-strom", 0o755),
        ("usr/local/share/bash-completion/completions/rust-strom", 0o644),
        ("usr/local/share/fish/vendor_completions.d/rust-strom.fish", 0o644),
        ("usr/local/share/man/man8/rust-strom.8", 0o644),
        ("usr/local/share/zsh/site-functions/_rust-strom", 0o644),
    ];
    let expected: BTreeMap<String, u32> = expected.map(|(name, mode)| (name.to_owned(), mode)).into();
    assert_eq!(files(below), expected);
    for folder in ["etc/rust-strom", "var/lib/rust-strom", "var/log/rust-strom"] {
        let mode = below.join(folder).metadata().expect("a folder").permissions().mode();
        assert_eq!(mode & 0o7777, 0o750, "{folder}");
    }
    let unit = std::fs::read_to_string(below.join("etc/systemd/system/rust-strom.service")).expect("a unit");
    let start = "ExecStart=/usr/local/bin/rust-strom --config /etc/rust-strom/config.toml";
    assert!(unit.contains(start) && !unit.contains("/usr/bin/rust-strom"), "{unit}");

    // Again: the configuration stays as it is, whatever is in it; everything else is new.
    std::fs::write(below.join(CONFIG), "# ours\n").expect("a file");
    std::fs::write(below.join("usr/local/bin/rust-strom"), "old").expect("a file");
    let again = install(below, &["--service", "systemd"]);
    assert!(again.status.success(), "{}", text(&again));
    assert!(text(&again).contains("config.toml is there already, and stays as it is"), "{}", text(&again));
    assert!(text(&again).contains("edit /etc/rust-strom/config.toml"), "{}", text(&again));
    assert_eq!(std::fs::read_to_string(below.join(CONFIG)).expect("a file"), "# ours\n");
    let length = |path: &Path| path.metadata().expect("a file").len();
    let binary = Path::new(env!("CARGO_BIN_EXE_rust-strom"));
    assert_eq!(length(&below.join("usr/local/bin/rust-strom")), length(binary));
    assert_eq!(files(below), expected);

    let removed = install(below, &["--uninstall", "--service", "systemd"]);
    assert!(removed.status.success(), "{}", text(&removed));
    assert_eq!(files(below).into_keys().collect::<Vec<_>>(), [CONFIG]);
    for _ in 0..2 {
        let removed = install(below, &["--uninstall", "--purge", "--service", "systemd"]);
        assert!(removed.status.success(), "{}", text(&removed));
        assert!(files(below).is_empty() && !below.join("var/lib/rust-strom").exists());
    }
}

#[test]
fn elsewhere_and_for_launchd() {
    let directory = TempDir::new("install-launchd");
    let below = &directory.0;
    let done = install(below, &["--service", "launchd", "--prefix", "/opt/strom/"]);
    assert!(done.status.success(), "{}", text(&done));
    let plist = below.join("Library/LaunchDaemons/rust-strom.plist");
    let plist = std::fs::read_to_string(plist).expect("a property list");
    assert!(plist.contains("<string>/opt/strom/bin/rust-strom</string>"), "{plist}");
    assert!(below.join("opt/strom/bin/rust-strom").is_file());
    assert!(!below.join("etc/systemd").exists());
    let removed = install(below, &["--uninstall", "--service", "launchd", "--prefix", "/opt/strom"]);
    assert!(removed.status.success(), "{}", text(&removed));
    assert_eq!(files(below).into_keys().collect::<Vec<_>>(), [CONFIG]);
}

#[test]
fn what_cannot_be_installed() {
    let directory = TempDir::new("install-bad");
    for (arguments, says) in [
        (&["--binary", "/nonexistent"][..], "is no program; build it with"),
        (&["--prefix", "relative"], "has to be an absolute path"),
        (&["--service", "runit"], "systemd, launchd or none"),
        (&["--purge"], "goes with --uninstall"),
        (&["--binary"], "--binary needs a value"),
        (&["--what"], "unknown argument: --what"),
    ] {
        let output = install(&directory.0, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(says), "{arguments:?}: {}", text(&output));
    }
    assert!(files(&directory.0).is_empty());
}
