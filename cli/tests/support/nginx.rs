//! Real backends: Debian's nginx, each a single process, so that a signal reaches all of it.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::address;
use crate::client::WAIT;
use crate::daemon::TempDir;

/// The path of a program that a test needs; panics with the name of its Debian package if it is missing.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    // Debian's own program and not the first one in PATH: Debian's modules are installed for that one.
    let places = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(|folder| Path::new(folder).join(name));
    let found = places.into_iter().find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is missing and this test needs it: install the Debian package {package}")
    })
}

/// The standard output of a client program; panics unless it succeeds.
pub(crate) fn output(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let out = command.stdin(Stdio::null()).output().expect("it starts");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    );
    assert!(out.status.success(), "{shown}: {}\n{stdout}\n{stderr}", out.status);
    stdout
}

/// A running nginx, killed when dropped.
pub(crate) struct Nginx {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    child: Child,
}

impl Nginx {
    /// Starts one that answers `/` with its name, serves files of its directory below `/files/`, and stores
    /// what is uploaded below `/kept/`.
    pub(crate) fn start(name: &'static str) -> Self {
        let folder = TempDir::new(name);
        let address = address::reserve();
        let child = spawn(name, &folder.0, address);
        Self { name, address, folder, child }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("our child");
    }

    /// Starts it again on the same address.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.name, &self.folder.0, self.address);
    }

    /// Method and target of each request that it has answered, health checks excepted.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.0.join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(name: &str, folder: &Path, address: SocketAddr) -> Child {
    let here = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;
events {{ worker_connections 2000; }}
http {{
  client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;
  log_format short '$request_method $request_uri';
  access_log {here}/access.log short;
  keepalive_requests 1000000; client_max_body_size 100m; default_type text/plain;
  add_header X-Backend {name} always;
  server {{
    listen {address} backlog=4096;
    location / {{ return 200 {name}; }}
    location = /health {{ access_log off; return 200 fine; }}
    location = /who {{ return 200 '$http_host $http_x_forwarded_for $http_x_forwarded_proto $http_x_forwarded_host'; }}
    location /files/ {{ root {here}; }}
    location /kept/ {{ root {here}; dav_methods PUT; create_full_put_path on; client_body_temp_path {here}/kept-body; }}
    location /post {{ client_body_in_file_only on; proxy_pass http://{address}/posted; }}
    location = /posted {{ access_log off; return 200 {name}; }}
  }}
}}
"
    );
    std::fs::write(folder.join("nginx.conf"), config).expect("a temporary file");
    let mut command = Command::new(program("nginx", "nginx-light"));
    command.arg("-c").arg(folder.join("nginx.conf")).arg("-e").arg(folder.join("error.log"));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        if child.try_wait().expect("our child").is_some() || begun.elapsed() > WAIT {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "nginx does not start: {}",
                std::fs::read_to_string(folder.join("error.log")).unwrap_or_default()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// The quick-start configuration for these backends, with more top-level keys and more keys of the health
/// check. Only addresses and times are replaced.
pub(crate) fn quick_start(backends: &[SocketAddr], top: &str, of_health: &str) -> String {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/configs/quick-start.toml"),
    )
    .expect("the text");
    let addresses: Vec<String> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    let mut out = format!("metrics_address = \"127.0.0.1:0\"\n{top}\n{text}");
    for (from, to) in [
        ("http_address = \"[::]:80\"", "http_address = \"[::]:0\"".to_owned()),
        ("https_address = \"[::]:443\"", String::new()),
        (
            "addresses = [\"127.0.0.1:8080\", \"127.0.0.1:8081\"]",
            // A frozen backend must not be seen by clients.
            format!("addresses = [{}]\nretries_on_timeout = true", addresses.join(", ")),
        ),
        // On a machine that is busy with other tests no backend must become slow or unhealthy for it.
        (
            "timeout = 500",
            if of_health.is_empty() { "timeout = 5000".to_owned() } else { "timeout = 500".to_owned() },
        ),
        ("slow_threshold = 300", "slow_threshold = 0".to_owned()),
        ("path = \"/\"", format!("path = \"/health\"\n{of_health}")),
    ] {
        assert!(out.contains(from), "the quick start has no {from}");
        out = out.replace(from, &to);
    }
    out
}
