//! Upgrades of a process that was started as root, and has become somebody else.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::client::Client;
use crate::daemon::TempDir;
use crate::scripted_backend::Backend;
use crate::succession::Succession;

on_each_driver!(ports_and_logs_of_root_go_along);

/// The user who serves could neither open the port, nor the log, nor make a PID file.
fn ports_and_logs_of_root_go_along(driver: &str) {
    if !rustix::process::geteuid().is_root() {
        // Somebody else cannot open that port in the first place.
        return;
    }
    let mode = |path: &PathBuf, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("ours");
    };
    let (programs, files) = (TempDir::new("program"), TempDir::new("of-root"));
    // Where the build lies nobody may have no access to.
    mode(&programs.0, 0o755);
    let program = programs.0.join("rust-strom");
    // By another process: a thread that forks while this one writes would hold the copy open for writing, and
    // it could not be started.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_rust-strom")).arg(&program).status();
    assert!(copied.expect("cp starts").success());
    let log = files.0.join("access.log");
    mode(&files.0, 0o700);
    let run = TempDir::new("run");
    mode(&run.0, 0o755);
    let pid_file = run.0.join("pid");
    let backend = Backend::good("here");
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let range = if driver == "mio" { 600..800 } else { 800..1000 };
    let port = range.clone().find(is_free).expect("a free port below 1024");
    let text = format!(
        "http_address = \"127.0.0.1:{port}\"\nmetrics_address = false\nuser = \"nobody\"\ndriver = \"{driver}\"\n\
         workers = 2\n[access_log]\npath = \"{}\"\n[[backend_pools]]\naddresses = [\"{}\"]\n\
         health_config = {{ timeout = 5000, slow_threshold = 0 }}\n",
        log.display(),
        backend.address
    );
    let mut succession =
        Succession::start_program(program, &text, &["--pid-file", pid_file.to_str().expect("a name")]);
    mode(&succession.daemon.directory.0.clone(), 0o755);
    let address = succession.address();
    for nth in 0..3 {
        let target = format!("/{nth}");
        assert_eq!(Client::to(address).get(&target).expect("a response").text(), "here");
        let id = succession.serving().as_raw_nonzero().to_string();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
        assert_eq!(std::fs::read_to_string(&pid_file).expect("there").trim(), id);
        if nth < 2 {
            succession.upgrade();
            succession.wait_for_the_old();
        }
    }
    succession.stop();
    let lines = std::fs::read_to_string(&log).expect("a log");
    let targets: Vec<_> = lines.lines().filter_map(|l| l.split("\"GET ").nth(1)?.split(' ').next()).collect();
    assert_eq!(targets, ["/0", "/1", "/2"]);
    // It cannot be removed by that user, but names nobody.
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap_or_default(), "");
}
