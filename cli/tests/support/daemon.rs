//! The built binary as a process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::talk::WAIT;

/// A folder of its own, gone when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static NTH: AtomicUsize = AtomicUsize::new(0);
        let nth = NTH.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("rust-strom-{name}-{}-{nth}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    /// Writes a file; where it is.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a temporary file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running `rust-strom` and everything it says.
pub(crate) struct Daemon {
    child: Child,
    said: Arc<Mutex<String>>,
    _folder: Folder,
}

impl Daemon {
    /// With a configuration, and more arguments.
    pub(crate) fn start(config: &str, arguments: &[&str]) -> Self {
        Self::start_limited(config, arguments, None)
    }

    /// Under a limit of open files.
    pub(crate) fn start_limited(config: &str, arguments: &[&str], files: Option<u32>) -> Self {
        let folder = Folder::new("daemon");
        let file = folder.write("config.toml", config);
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
        Self::spawn(command, folder)
    }

    pub(crate) fn demo() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
        command.arg("demo");
        Self::spawn(command, Folder::new("demo"))
    }

    fn spawn(mut command: Command, folder: Folder) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_LOG");
        let mut child = command.spawn().expect("it starts");
        let said = Arc::<Mutex<String>>::default();
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("piped"));
        let err: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("piped"));
        for stream in [out, err] {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut said = said.lock().expect("no panic");
                    said.push_str(&line);
                    said.push('\n');
                }
            });
        }
        Self { child, said, _folder: folder }
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// The rest of the first line behind `start`, once it is there.
    pub(crate) fn wait_for(&self, start: &str) -> String {
        let begun = Instant::now();
        loop {
            let said = self.said();
            if let Some(rest) = said.lines().find_map(|l| l.split_once(start)) {
                return rest.1.to_owned();
            }
            assert!(begun.elapsed() < WAIT, "never said {start:?}: {said}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Where it listens (`http`, `own page`), once it does.
    pub(crate) fn listens(&self, what: &str) -> SocketAddr {
        let begun = Instant::now();
        loop {
            let said = self.said();
            let mut lines = said.lines().filter_map(|l| l.split_once("listening on ")).map(|(_, rest)| rest);
            if let Some(line) = lines.find(|l| l.contains(&format!("({what})"))) {
                return line.split(' ').next().and_then(|a| a.parse().ok()).expect("an address");
            }
            assert!(begun.elapsed() < WAIT, "never listens: {said}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Where it listens for HTTP, once it is ready.
    pub(crate) fn address(&self) -> SocketAddr {
        self.wait_for("INFO  ready");
        self.listens("http")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    pub(crate) fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(begun.elapsed() < 2 * WAIT, "it does not end: {}", self.said());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// It stops by TERM with everything finished.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.end();
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// User and system time so far, in clock ticks (hundredths of a second).
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let rest = stat.rsplit_once(')').expect("a name").1;
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        words[11].parse::<u64>().expect("utime") + words[12].parse::<u64>().expect("stime")
    }

    /// Open file descriptors.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            assert!(!self.said().contains("panic"), "{}", self.said());
        }
    }
}
