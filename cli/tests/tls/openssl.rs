//! `openssl s_client` and `s_server`.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::address;
use crate::client::WAIT;
use crate::nginx::program;

fn openssl() -> PathBuf {
    program("openssl", "openssl")
}

/// A running `openssl` and all that it has written so far; killed when dropped.
struct Process {
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let output = Arc::<Mutex<Vec<u8>>>::default();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        let reader = |mut stream: Box<dyn Read + Send>| {
            let output = output.clone();
            std::thread::spawn(move || {
                let mut buf = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buf) {
                    output.lock().expect("no panic").extend_from_slice(&buf[..n]);
                }
            })
        };
        let readers = streams.map(reader).into();
        Self { child, output, readers }
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("no panic")).into_owned()
    }

    fn wait_for(&self, part: &str) {
        let begun = Instant::now();
        while !self.output().contains(part) {
            assert!(begun.elapsed() < WAIT, "no {part:?}: {}", self.output());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client, `openssl s_client`.
pub(crate) struct Client(Process);

impl Client {
    /// Connects with this server name; `ca` is who has to have signed the server's certificate. Of what is
    /// sent later, a piece that begins with `K`, `k`, `Q` or `R` is a command.
    pub(crate) fn connect(to: SocketAddr, name: &str, ca: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(openssl());
        command.args(["s_client", "-connect", &to.to_string(), "-servername", name, "-CAfile"]);
        command.arg(ca).arg("-verify_return_error").args(arguments);
        Self(Process::spawn(&mut command))
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.0.child.stdin.as_mut().expect("piped");
        // It may have ended: what it wrote says why.
        let _ = stdin.write_all(bytes.as_ref()).and_then(|()| stdin.flush());
    }

    pub(crate) fn wait_for(&self, part: &str) {
        self.0.wait_for(part);
    }

    pub(crate) fn output(&self) -> String {
        self.0.output()
    }

    /// Waits until the connection has ended; all that was written.
    pub(crate) fn end(mut self) -> String {
        let begun = Instant::now();
        while self.0.child.try_wait().expect("our child").is_none() {
            assert!(begun.elapsed() < WAIT, "s_client does not end: {}", self.0.output());
            std::thread::sleep(Duration::from_millis(2));
        }
        self.0.readers.drain(..).for_each(|reader| reader.join().expect("no panic"));
        self.0.output()
    }
}

/// Connects, requests `/` on a connection that is to be closed, and returns all that was written.
pub(crate) fn request(to: SocketAddr, name: &str, ca: &Path, arguments: &[&str]) -> String {
    let mut client = Client::connect(to, name, ca, arguments);
    client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"));
    client.end()
}

/// A server, `openssl s_server`.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    process: Process,
}

impl Server {
    /// Starts it in `folder`, whose files it serves if the arguments have `-WWW`.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        let address = address::reserve();
        let mut command = Command::new(openssl());
        command.args(["s_server", "-accept", &address.to_string()]).args(arguments).current_dir(folder);
        let process = Process::spawn(&mut command);
        process.wait_for("ACCEPT");
        Self { address, process }
    }

    /// What it has written so far.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }
}
