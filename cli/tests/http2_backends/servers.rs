//! Servers of HTTP/2 as backends, each with a directory of its own.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::address;
use crate::authority::Pair;
use crate::client::WAIT;
use crate::daemon::TempDir;
use crate::nginx::{output, program};

/// A running server, killed when dropped.
pub(crate) struct Server {
    child: Child,
    command: Command,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
}

impl Server {
    /// nginx that serves files below `/files/`, stores what is uploaded below `/kept/`, says at `/who` how it
    /// is spoken to, and logs the number of the connection of each request. Without a certificate it speaks
    /// HTTP/2 alone.
    pub(crate) fn nginx(tls: Option<&Pair>, more: &str) -> Self {
        let bind = match tls {
            None => "http2;".to_owned(),
            Some(pair) => format!(
                "ssl http2; ssl_certificate {}; ssl_certificate_key {};",
                pair.certificate.display(),
                pair.key.display()
            ),
        };
        Self::nginx_at(&bind, more)
    }

    /// nginx that speaks HTTP/1.1.
    pub(crate) fn nginx_of_http1() -> Self {
        Self::nginx_at(";", "")
    }

    fn nginx_at(bind: &str, more: &str) -> Self {
        let (folder, address) = (TempDir::new("nginx-h2"), address::reserve());
        let here = folder.0.display();
        let config = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;
events {{ worker_connections 500; }}
http {{
  client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;
  log_format conn '$connection $server_protocol $request_method $request_uri $status';
  access_log {here}/access.log conn;
  client_max_body_size 100m; default_type text/plain; {more}
  server {{
    listen {address} {bind}
    location / {{ return 200 fine; }}
    location = /health {{ access_log off; return 200 fine; }}
    location = /who {{ return 200 '$server_protocol $scheme $http_host $http_x_forwarded_for $http_cookie'; }}
    location /files/ {{ root {here}; }}
    location /kept/ {{ root {here}; dav_methods PUT; create_full_put_path on; client_body_temp_path {here}/kept-body; }}
  }}
}}
"
        );
        let file = folder.write("nginx.conf", config);
        let mut command = Command::new(program("nginx", "nginx-light"));
        command.arg("-c").arg(file).arg("-e").arg(folder.0.join("error.log"));
        Self::spawn(command, folder, address)
    }

    /// HAProxy that speaks HTTP/2 here and HTTP/1.1 to a server behind it, and says how many connections it
    /// has had at `/connections`.
    pub(crate) fn haproxy(tls: Option<&Pair>, behind: SocketAddr) -> Self {
        let (folder, address) = (TempDir::new("haproxy-h2"), address::reserve());
        let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
        let bind = match tls {
            None => "proto h2".to_owned(),
            Some(pair) => {
                let both = folder.write("both.pem", read(&pair.certificate) + &read(&pair.key));
                format!("ssl crt {} alpn h2,http/1.1", both.display())
            }
        };
        let config = format!(
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout client 20s\n  timeout server 20s\n  timeout connect 5s\n\
             frontend f\n  bind {address} {bind}\n  \
             http-request return status 200 content-type text/plain lf-string \"%[fc_http_major] %[fe_conn] %[ssl_fc]\" if {{ path /connections }}\n  \
             default_backend b\nbackend b\n  server s {behind}\n"
        );
        let file = folder.write("haproxy.cfg", config);
        let mut command = Command::new(program("haproxy", "haproxy"));
        command.arg("-f").arg(file);
        Self::spawn(command, folder, address)
    }

    /// HAProxy that speaks HTTP/1.1 here and HTTP/2 to a server behind it.
    pub(crate) fn haproxy_to(behind: SocketAddr) -> Self {
        let (folder, address) = (TempDir::new("haproxy-to-h2"), address::reserve());
        let timeouts = ["client", "server", "connect"].map(|what| format!("  timeout {what} 20s\n")).concat();
        let proxy = format!("listen all\n  bind {address}\n  server s {behind} proto h2\n");
        let config = format!("global\n  nbthread 1\ndefaults\n  mode http\n{timeouts}{proxy}");
        let file = folder.write("haproxy.cfg", config);
        let mut command = Command::new(program("haproxy", "haproxy"));
        command.arg("-f").arg(file);
        Self::spawn(command, folder, address)
    }

    /// nghttpd, which serves its directory, by `streams` streams on a connection.
    pub(crate) fn nghttpd(tls: Option<&Pair>, streams: u32, more: &[&str]) -> Self {
        let (folder, address) = (TempDir::new("nghttpd"), address::reserve());
        let mut command = Command::new(program("nghttpd", "nghttp2-server"));
        let (ip, streams) = (address.ip().to_string(), streams.to_string());
        command.args(["-a", &ip, "-m", &streams, "-d"]).arg(&folder.0).args(more);
        command.arg(address.port().to_string());
        match tls {
            None => _ = command.arg("--no-tls"),
            Some(pair) => _ = command.arg(&pair.key).arg(&pair.certificate),
        }
        Self::spawn(command, folder, address)
    }

    fn spawn(mut command: Command, folder: TempDir, address: SocketAddr) -> Self {
        let output = std::fs::File::create(folder.0.join("output")).expect("a file");
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        let child = command.spawn().expect("it starts");
        let mut server = Self { child, command, address, folder };
        server.await_listening();
        server
    }

    fn await_listening(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let gone = self.child.try_wait().expect("our child").is_some();
            let said = || std::fs::read_to_string(self.folder.0.join("output")).unwrap_or_default();
            assert!(!gone && begun.elapsed() < WAIT, "it does not start: {}", said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A file that it serves.
    pub(crate) fn keep(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("our child");
    }

    /// Starts it again on the same address.
    pub(crate) fn restart(&mut self) {
        self.child = self.command.spawn().expect("it starts");
        self.await_listening();
    }

    /// What nginx has logged: connection, protocol, method, target and status of each request.
    pub(crate) fn log(&self) -> Vec<[String; 5]> {
        let log = std::fs::read_to_string(self.folder.0.join("access.log")).unwrap_or_default();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        log.lines().filter_map(|line| words(line).try_into().ok()).collect()
    }

    /// What it has logged of requests for `target`, once there are `count`: nginx logs after it has sent.
    pub(crate) fn logged(&self, target: &str, count: usize) -> Vec<[String; 5]> {
        let begun = Instant::now();
        loop {
            let mut log = self.log();
            log.retain(|line| line[3] == target);
            if log.len() >= count || begun.elapsed() > WAIT {
                return log;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pool of `h2c://` backends.
pub(crate) fn h2c(servers: &[&Server], more: &str) -> String {
    let addresses: Vec<String> = servers.iter().map(|s| format!("\"h2c://{}\"", s.address)).collect();
    format!("[[backend_pools]]\naddresses = [{}]\n{more}\n", addresses.join(", "))
}

/// Bytes that do not repeat soon.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// `n` requests of 32 clients, over HTTP/2 or HTTP/1.1; all have to succeed.
pub(crate) fn load(url: &str, n: u32, http1: bool) {
    let mut command = Command::new(program("h2load", "nghttp2-client"));
    let each = if http1 { &["--h1"][..] } else { &["-m", "8"] };
    let stdout = output(command.args(["-n", &n.to_string(), "-c", "32", "-t", "2"]).args(each).arg(url));
    let good = format!("{n} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(stdout.contains(&good) && stdout.contains(&format!("status codes: {n} 2xx")), "{stdout}");
}

/// What curl gets, by HTTP/1.1 or by HTTP/2.
pub(crate) fn curl(http2: bool, arguments: &[&str]) -> String {
    let mut command = Command::new(program("curl", "curl"));
    let protocol = if http2 { "--http2-prior-knowledge" } else { "--http1.1" };
    output(command.args(["-sS", "-m", "30", protocol]).args(arguments))
}
