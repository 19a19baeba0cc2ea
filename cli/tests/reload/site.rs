//! A daemon whose configuration is written anew.

use rustix::process::Signal;

use crate::daemon::Daemon;

/// What a reload came to.
const ENDS: [&str; 2] = ["reloaded /", "not reloaded"];

/// Starts a daemon with this configuration.
pub(crate) fn start(driver: &str, text: &str) -> Daemon {
    let daemon = Daemon::start(text, &["--driver", driver, "--workers", "2"]);
    daemon.wait_for("ready");
    daemon
}

/// Has it read this text; the line of the log that says what came of it.
pub(crate) fn reload(daemon: &Daemon, text: &str) -> String {
    daemon.directory.write("config.toml", text);
    ask(daemon)
}

/// Has it read its file again; the line of the log that says what came of it.
pub(crate) fn ask(daemon: &Daemon) -> String {
    // Of a daemon under load the log is long: only what is new in it is looked at.
    let from = daemon.output().len();
    daemon.signal(Signal::HUP);
    let begun = std::time::Instant::now();
    loop {
        let new = daemon.output_from(from);
        if let Some(line) = new.lines().find(|line| ENDS.iter().any(|end| line.contains(end))) {
            return line.to_owned();
        }
        assert!(begun.elapsed() < crate::client::WAIT, "no reload: {}", daemon.output());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The lines of the log that say what came of reloads.
pub(crate) fn reloads(daemon: &Daemon) -> Vec<String> {
    let output = daemon.output();
    let of_reloads = output.lines().filter(|line| ENDS.iter().any(|end| line.contains(end)));
    of_reloads.map(str::to_owned).collect()
}

/// Waits for what came of a reload, counted from 0.
pub(crate) fn nth_reload(daemon: &Daemon, nth: usize) -> String {
    let begun = std::time::Instant::now();
    loop {
        if let Some(line) = reloads(daemon).into_iter().nth(nth) {
            return line;
        }
        assert!(begun.elapsed() < crate::client::WAIT, "no reload: {}", daemon.output());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
