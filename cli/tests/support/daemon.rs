//! The built binary as a process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::client::WAIT;

/// A temporary directory, removed when dropped.
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        static NTH: AtomicUsize = AtomicUsize::new(0);
        let nth = NTH.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("rust-strom-{name}-{}-{nth}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    /// Writes a file; its path.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a temporary file");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running `rust-strom` process and its output, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    output: Arc<Mutex<String>>,
    pub(crate) directory: TempDir,
}

impl Daemon {
    /// Starts it with a configuration and more arguments.
    pub(crate) fn start(config: &str, arguments: &[&str]) -> Self {
        Self::start_limited(config, arguments, None)
    }

    /// Starts it under a limit of open files, if one is given.
    pub(crate) fn start_limited(config: &str, arguments: &[&str], files: Option<u32>) -> Self {
        let directory = TempDir::new("daemon");
        let file = directory.write("config.toml", config);
        let binary = env!("CARGO_BIN_EXE_rust-strom");
        let mut command = match files {
            None => Command::new(binary),
            Some(n) => {
                let mut c = Command::new("sh");
                c.args(["-c", &format!("ulimit -n {n} && exec \"$0\" \"$@\""), binary]);
                c
            }
        };
        command.arg("--config").arg(file).args(arguments);
        Self::spawn(command, directory)
    }

    /// Starts `program` with a configuration, more arguments, and whatever `prepare` sets.
    pub(crate) fn start_program(
        program: impl AsRef<std::ffi::OsStr>,
        config: &str,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command, &std::path::Path),
    ) -> Self {
        let directory = TempDir::new("daemon");
        let file = directory.write("config.toml", config);
        let mut command = Command::new(program);
        command.arg("--config").arg(file).args(arguments);
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        prepare(&mut command, &directory.0);
        Self::spawn_prepared(command, directory)
    }

    /// Starts it from a shell that has done this before: `ulimit -f 8`.
    pub(crate) fn start_after(prelude: &str, config: &str) -> Self {
        let directory = TempDir::new("daemon");
        let file = directory.write("config.toml", config);
        let mut command = Command::new("sh");
        let binary = env!("CARGO_BIN_EXE_rust-strom");
        command.args(["-c", &format!("{prelude} && exec \"$0\" \"$@\""), binary, "--config"]).arg(file);
        Self::spawn(command, directory)
    }

    /// Starts `rust-strom demo` with more arguments.
    pub(crate) fn demo(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
        command.arg("demo").args(arguments);
        Self::spawn(command, TempDir::new("demo"))
    }

    /// Starts it with a configuration and this value of `RUST_LOG`.
    pub(crate) fn start_logging(config: &str, levels: &str) -> Self {
        let directory = TempDir::new("daemon");
        let file = directory.write("config.toml", config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
        command.arg("--config").arg(file).env("RUST_LOG", levels);
        Self::spawn_as_it_is(command, directory)
    }

    fn spawn(mut command: Command, directory: TempDir) -> Self {
        command.env_remove("RUST_LOG");
        Self::spawn_as_it_is(command, directory)
    }

    fn spawn_as_it_is(mut command: Command, directory: TempDir) -> Self {
        command.stdin(Stdio::null());
        Self::spawn_prepared(command, directory)
    }

    fn spawn_prepared(mut command: Command, directory: TempDir) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::run(command, directory)
    }

    /// Runs a command as it is; its output is what it has piped.
    pub(crate) fn run(mut command: Command, directory: TempDir) -> Self {
        let mut child = command.spawn().expect("it starts");
        let output = Arc::<Mutex<String>>::default();
        let out = child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>);
        let err = child.stderr.take().map(|err| Box::new(err) as Box<dyn Read + Send>);
        for stream in out.into_iter().chain(err) {
            let output = output.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut output = output.lock().expect("no panic");
                    output.push_str(&line);
                    output.push('\n');
                }
            });
        }
        Self { child, output, directory }
    }

    /// Standard output and standard error so far.
    pub(crate) fn output(&self) -> String {
        self.output_from(0)
    }

    /// The same without its first bytes, which end with a line.
    pub(crate) fn output_from(&self, from: usize) -> String {
        self.output.lock().expect("no panic")[from..].to_owned()
    }

    /// Waits for a line that contains `start`; the rest of that line.
    pub(crate) fn wait_for(&self, start: &str) -> String {
        self.wait_for_any(&[start])
    }

    /// Waits for a line that contains one of `starts`; the rest of that line.
    fn wait_for_any(&self, starts: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let output = self.output();
            let rest =
                |line: &str| starts.iter().find_map(|start| Some(line.split_once(start)?.1.to_owned()));
            if let Some(rest) = output.lines().find_map(rest) {
                return rest;
            }
            assert!(begun.elapsed() < WAIT, "no line with {starts:?}: {output}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// The address of a listener, by the name that the log gives it (`http`, `admin`), once it is open.
    pub(crate) fn listens(&self, what: &str) -> SocketAddr {
        let begun = Instant::now();
        loop {
            let output = self.output();
            let mut lines =
                output.lines().filter_map(|l| l.split_once("listening on ")).map(|(_, rest)| rest);
            if let Some(line) = lines.find(|l| l.contains(&format!("({what})"))) {
                return line.split(' ').next().and_then(|a| a.parse().ok()).expect("an address");
            }
            assert!(begun.elapsed() < WAIT, "no {what} listener: {output}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// The address of the HTTP listener, once the log says `ready`.
    pub(crate) fn address(&self) -> SocketAddr {
        // The text format of the log, or its JSON format.
        self.wait_for_any(&["INFO  ready", "\"message\":\"ready"]);
        self.listens("http")
    }

    /// The id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for the process to exit, and for its last lines; not for long, as its successor in an upgrade
    /// keeps the pipes open.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                let exited = Instant::now();
                while Arc::strong_count(&self.output) > 1 && exited.elapsed().as_millis() < 500 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                return status;
            }
            assert!(begun.elapsed() < 2 * WAIT, "the process does not exit: {}", self.output());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Stops it with TERM; panics unless everything was finished.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{}", self.output());
    }

    /// Whether the process is running.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// User and system time so far, in clock ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let rest = stat.rsplit_once(')').expect("a name").1;
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        words[11].parse::<u64>().expect("utime") + words[12].parse::<u64>().expect("stime")
    }

    /// `/proc/PID/task/TID/status` of every thread.
    pub(crate) fn thread_statuses(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let status = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("status")).ok()
        };
        tasks.filter_map(status).collect()
    }

    /// The names of its threads.
    pub(crate) fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
        tasks.map_while(Result::ok).filter_map(name).map(|n| n.trim_end().to_owned()).collect()
    }

    /// How many file descriptors are open.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            assert!(!self.output().contains("panic"), "{}", self.output());
        }
    }
}
