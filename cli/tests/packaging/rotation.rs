//! logrotate with its file as it is installed, but for the folder, the user and the process.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{Client, WAIT};
use crate::daemon::Daemon;
use crate::scripted_backend::Backend;
use crate::{read, run, text};

#[test]
fn logrotate_rotates_the_access_log() {
    let backend = Backend::good("here");
    let daemon = Daemon::start(
        &format!(
            "http_address = \"127.0.0.1:0\"\nmetrics_address = false\naccess_log = {{ path = \"access.log\" }}\n\
             health_interval = {{ check_every = 0 }}\n[[backend_pools]]\naddresses = [\"{}\"]\n",
            backend.address
        ),
        &[],
    );
    let mut client = Client::to(daemon.address());
    let folder = daemon.directory.0.clone();
    // It refuses folders that others may write.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("our folder");
    let name = |flag: &str| text(&run(Command::new("id").arg(flag), "coreutils")).trim().to_owned();
    let ours = format!("{} {}", name("-un"), name("-gn"));
    let installed = read("logrotate/rust-strom");
    let mut here = installed.clone();
    for (written, instead) in [
        ("/var/log/rust-strom/*.log", format!("{}/*.log", folder.display())),
        ("rust-strom rust-strom", ours),
        ("pkill -USR1 -x rust-strom", format!("kill -USR1 {}", daemon.id())),
    ] {
        assert!(here.contains(written), "{installed}");
        here = here.replace(written, &instead);
    }
    let file = daemon.directory.write("logrotate", here);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("our file");
    let rotate = |arguments: &[&str]| {
        let mut command = Command::new("logrotate");
        command.args(arguments).arg("--state").arg(folder.join("state")).arg(&file);
        // Debian has it where only root looks for programs.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = run(&mut command, "logrotate");
        assert!(output.status.success() && !text(&output).contains("error:"), "{}", text(&output));
    };
    let lines = |file: &str| {
        let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        text.lines().filter_map(|l| Some(l.split("\"GET ").nth(1)?.split(' ').next()?.to_owned())).collect()
    };
    let wait_for = |file: &str, expected: &[&str]| {
        let begun = Instant::now();
        loop {
            let found: Vec<String> = lines(file);
            if found == expected {
                return;
            }
            assert!(begun.elapsed() < WAIT, "{file}: {found:?}, not {expected:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    rotate(&["--debug"]);
    client.get("/before").expect("served");
    wait_for("access.log", &["/before"]);
    rotate(&["--force"]);
    daemon.wait_for("access.log was opened anew");
    client.get("/after").expect("served");
    wait_for("access.log", &["/after"]);
    wait_for("access.log.1", &["/before"]);
    let mode = folder.join("access.log").metadata().expect("a log").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    daemon.stop();
}
