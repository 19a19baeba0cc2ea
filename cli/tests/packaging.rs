//! What comes with the binary: the installer, the unit of systemd, files of launchd, logrotate, Docker and
//! Debian, completions, the manual page, and the examples. A tool that is missing fails its test with the
//! name of its Debian package.

#[path = "support/address.rs"]
mod address;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "process.rs uses the rest")]
mod daemon;
#[path = "packaging/installer.rs"]
mod installer;
#[path = "packaging/rotation.rs"]
mod rotation;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod scripted_backend;
#[path = "packaging/unit.rs"]
mod unit;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use daemon::{Daemon, TempDir};

/// The folder of this package.
fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(package().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Runs a command to its end; `debian` is the package that it is in.
fn run(command: &mut Command, debian: &str) -> Output {
    let name = command.get_program().to_owned();
    command.output().unwrap_or_else(|e| panic!("{}: {e}; it is in {debian}", name.display()))
}

/// Standard output and standard error.
fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn rust_strom(arguments: &[&str]) -> Output {
    run(
        Command::new(env!("CARGO_BIN_EXE_rust-strom")).args(arguments).env_remove("RUST_LOG"),
        "this workspace",
    )
}

/// The examples are good, and nothing in them is doubtful.
#[test]
fn every_example_is_good() {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(package().join("examples")).expect("examples") {
        let path = entry.expect("an entry").path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
        // The name of another container means nothing here.
        command.arg("--config").arg(&path).arg("--check").env("APP_ADDRESS", "127.0.0.1:8080");
        let output = run(&mut command, "this workspace");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert_eq!(text(&output), format!("{}: good\n", path.display()));
        names.insert(path.file_name().expect("a name").to_string_lossy().into_owned());
    }
    let expected = [
        "behind-a-cdn.toml",
        "blue-green.toml",
        "container.toml",
        "grpc.toml",
        "https-acme.toml",
        "pools.toml",
        "quick-start.toml",
        "websockets.toml",
    ];
    assert_eq!(names, expected.map(str::to_owned).into());
}

/// Scripts for three shells, which name every subcommand; and a page for man(1).
#[test]
fn completions_and_the_manual_page() {
    let directory = TempDir::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        let output = rust_strom(&["completions", shell]);
        assert!(output.status.success(), "{}", text(&output));
        let script = text(&output);
        for word in ["explain", "client-ip", "demo", "cert", "check"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        if shell == "bash" {
            let file = directory.write("completions", &script);
            let checked = run(Command::new("bash").arg("-n").arg(file), "bash");
            assert!(checked.status.success(), "{}", text(&checked));
        }
    }
    let page = text(&rust_strom(&["man"]));
    assert!(page.contains(".TH rust-strom 8"), "{page}");
    assert!(page.contains("explain") && page.contains("\\-\\-config"), "{page}");
}

/// `ready` says what the admin listener says, and who does not answer is not ready.
#[test]
fn ready_asks_the_admin_listener() {
    let admin = address::reserve();
    let config = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = \"{admin}\"\nhealth_interval = {{ check_every = 0 }}\n\
         [[backend_pools]]\naddresses = [\"127.0.0.1:9\"]\n"
    );
    let daemon = Daemon::start(&config, &[]);
    daemon.address();
    let file = daemon.directory.0.join("config.toml");
    let ready = || rust_strom(&["ready", "--config", file.to_str().expect("UTF-8")]);
    let output = ready();
    assert_eq!((output.status.code(), &*text(&output)), (Some(0), "ready\n"));
    let copy = TempDir::new("ready");
    let kept = copy.write("config.toml", &config);
    daemon.stop();
    let output = rust_strom(&["ready", "--config", kept.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains(&format!("{admin} does not answer: ")), "{}", text(&output));
    let none = copy.write("none.toml", config.replace(&format!("\"{admin}\""), "false"));
    let output = rust_strom(&["ready", "--config", none.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("set metrics_address"), "{}", text(&output));
}

/// What the package for Debian is made of is there; the binary comes with a release build.
#[test]
fn what_the_debian_package_names_is_there() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let deb = manifest["package"]["metadata"]["deb"].as_table().expect("a table");
    let mut destinations = BTreeSet::new();
    for asset in deb["assets"].as_array().expect("assets") {
        let part = |n: usize| asset[n].as_str().expect("a text");
        destinations.insert(format!("/{}", part(1)));
        if part(0) == "target/release/rust-strom" {
            continue;
        }
        match part(0).split_once('*') {
            None => assert!(package().join(part(0)).is_file(), "{}", part(0)),
            Some((folder, ending)) => {
                let entries = std::fs::read_dir(package().join(folder)).expect("a folder");
                let names = entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"));
                assert!(names.into_iter().any(|name| name.ends_with(ending)), "{}", part(0));
            }
        }
    }
    for file in deb["conf-files"].as_array().expect("a list") {
        let file = file.as_str().expect("a text");
        assert!(destinations.contains(file), "{file} is no asset");
    }
    let units = deb["systemd-units"].as_table().expect("a table");
    let folder = package().join(units["unit-scripts"].as_str().expect("a folder"));
    let name = units["unit-name"].as_str().expect("a name");
    assert!(folder.join(format!("{name}.service")).is_file());
    for script in ["postinst", "postrm"] {
        let path = format!("{}{script}", deb["maintainer-scripts"].as_str().expect("a folder"));
        assert!(read(&path).contains("#DEBHELPER#"), "{path}");
    }
}

/// Every shell script, as shellcheck sees it.
#[test]
fn shell_scripts_are_clean() {
    let scripts =
        ["install.sh", "debian/postinst", "debian/postrm", "../.ci/test", "../.ci/run", "../.ci/fuzz"];
    let scripts = scripts.map(|path| package().join(path));
    let checked = run(Command::new("shellcheck").args(&scripts), "shellcheck");
    assert!(checked.status.success(), "{}", text(&checked));
}

/// launchd's file is a property list, and starts the binary with the configuration of the installer.
#[test]
fn launchd_can_read_its_file() {
    let script = "import plistlib, sys\n\
                  job = plistlib.load(open(sys.argv[1], 'rb'))\n\
                  assert job['Label'] == 'rust-strom', job\n\
                  assert job['ProgramArguments'][1:] == ['--config', '/etc/rust-strom/config.toml'], job\n\
                  assert job['RunAtLoad'] is True and job['KeepAlive'] == {'SuccessfulExit': False}, job\n\
                  assert job['ExitTimeOut'] > 30, job\n";
    let file = package().join("launchd/rust-strom.plist");
    let checked = run(Command::new("python3").args(["-c", script]).arg(file), "python3");
    assert!(checked.status.success(), "{}", text(&checked));
}

/// There is no Docker where tests run: what can be said without it. The image is not root's, checks itself,
/// and what it copies is there.
#[test]
fn the_dockerfile_names_what_is_there() {
    let file = read("Dockerfile");
    let words = |start: &str| -> Vec<Vec<String>> {
        let lines = file.lines().map(str::trim).filter(|line| line.starts_with(start));
        lines.map(|line| line.split_ascii_whitespace().map(str::to_owned).collect()).collect()
    };
    let user = &words("USER ")[0][1];
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    assert!(
        file.contains(
            "CMD [\"/usr/bin/rust-strom\", \"ready\", \"--config\", \"/etc/rust-strom/config.toml\"]"
        )
    );
    let used: Vec<&str> = file.split_ascii_whitespace().filter(|word| word.starts_with("cli/")).collect();
    let paths: Vec<PathBuf> = used.iter().map(|path| package().join("..").join(path)).collect();
    assert!(used.contains(&"cli/examples/container.toml"), "{used:?}");
    assert!(paths.iter().all(|path| path.is_file()), "{used:?}");
    // What the last stage takes has been made by the first.
    for line in words("COPY --from=build") {
        let source = line.iter().find(|word| word.starts_with("/out/")).expect("a source");
        assert!(
            file.contains(&format!("{}/", source.trim_end_matches('/'))) || file.contains(source.as_str())
        );
    }
}
