//! A daemon and those that take its place.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};

use crate::client::WAIT;
use crate::daemon::Daemon;

/// Processes, of which the last one serves.
pub(crate) struct Succession {
    /// The first one; its output is that of all.
    pub(crate) daemon: Daemon,
    later: Vec<Pid>,
    ended: usize,
}

impl Succession {
    /// Starts the first one.
    pub(crate) fn start(config: &str, arguments: &[&str]) -> Self {
        Self::start_program(env!("CARGO_BIN_EXE_rust-strom").into(), config, arguments)
    }

    /// Starts the first one, of this program.
    pub(crate) fn start_program(program: PathBuf, config: &str, arguments: &[&str]) -> Self {
        // Those whose parent has ended are ours to wait for.
        set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
        let daemon = Daemon::start_program(program, config, arguments, |_, _| ());
        daemon.wait_for("INFO  ready");
        Self { daemon, later: Vec::new(), ended: 0 }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.daemon.address()
    }

    /// The process that serves.
    pub(crate) fn serving(&self) -> Pid {
        let first = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw).expect("an id");
        self.later.last().copied().unwrap_or(first)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.serving(), signal).expect("it runs");
    }

    /// Waits for the `nth` line with these words, counted from 0.
    pub(crate) fn wait_for_nth(&self, words: &str, nth: usize) -> String {
        let begun = Instant::now();
        loop {
            let output = self.daemon.output();
            if let Some(line) = output.lines().filter(|line| line.contains(words)).nth(nth) {
                return line.to_owned();
            }
            assert!(begun.elapsed() < WAIT, "no {words:?} ({nth}): {output}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// One more takes the place of the last one.
    pub(crate) fn upgrade(&mut self) {
        self.signal(Signal::USR2);
        self.is_upgraded();
    }

    /// Waits until another one has taken the place of the last one.
    pub(crate) fn is_upgraded(&mut self) {
        let line = self.wait_for_nth("upgraded: process ", self.later.len());
        let id = line.split("process ").nth(1).and_then(|rest| rest.split(' ').next());
        let id = id.and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        self.later.push(id.unwrap_or_else(|| panic!("an id: {line}")));
    }

    /// Waits for the end of every process but the one that serves; each has cut nothing.
    pub(crate) fn wait_for_the_old(&mut self) {
        while self.ended < self.later.len() {
            self.wait_for_the_next();
        }
    }

    fn wait_for_the_next(&mut self) {
        let code = match self.ended {
            0 => self.daemon.wait().code(),
            nth => wait(self.later[nth - 1]),
        };
        assert_eq!(code, Some(0), "process {}: {}", self.ended, self.daemon.output());
        self.ended += 1;
    }

    /// Waits for the end of the one that serves, which has been told to stop.
    pub(crate) fn wait_for_the_last(&mut self) {
        self.wait_for_the_old();
        self.wait_for_the_next();
    }

    /// Stops the one that serves: it, too, has cut nothing.
    pub(crate) fn stop(mut self) {
        self.wait_for_the_old();
        self.signal(Signal::TERM);
        self.wait_for_the_next();
    }
}

impl Drop for Succession {
    fn drop(&mut self) {
        for id in &self.later[self.ended.saturating_sub(1).min(self.later.len())..] {
            // It may have ended.
            let _ = kill_process(*id, Signal::KILL);
        }
    }
}

/// The exit code of a process that was left to us.
fn wait(id: Pid) -> Option<i32> {
    let begun = Instant::now();
    loop {
        // Until its parent has ended it is not ours.
        if let Ok(Some((_, status))) = waitpid(Some(id), WaitOptions::NOHANG) {
            return status.exit_status();
        }
        assert!(begun.elapsed() < 2 * WAIT, "{id:?} does not exit");
        std::thread::sleep(Duration::from_millis(5));
    }
}
