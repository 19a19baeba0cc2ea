//! nginx and HAProxy as backends over TLS: connections are kept, sessions are resumed, and client
//! certificates are shown.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::address;
use crate::authority::{Authority, Pair};
use crate::client::{Client, Response, WAIT};
use crate::curl::curl;
use crate::daemon::TempDir;
use crate::nginx::{output, program};
use crate::proxy::{Proxy, field};

on_each_driver!(
    nginx_resumes_sessions_and_keeps_connections,
    haproxy_resumes_sessions_after_an_idle_close,
    bodies_of_a_megabyte_pass_with_tls_on_both_sides,
    nginx_sees_the_certificate_of_a_pool,
);

/// A running nginx or HAProxy, killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Server {
    /// Starts nginx with this in its `server`, where `FOLDER` stands for a directory of its own.
    fn nginx(pair: &Pair, inside: &str) -> Self {
        let (folder, address) = (TempDir::new("nginx-tls"), address::reserve());
        let (here, certificate, key) = (folder.0.display(), pair.certificate.display(), pair.key.display());
        let config = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/log;
events {{ worker_connections 200; }}
http {{
  client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;
  access_log off; client_max_body_size 100m; default_type text/plain; ssl_session_tickets on;
  server {{
    listen {address} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};
    {}
  }}
}}
",
            inside.replace("FOLDER", &here.to_string())
        );
        let file = folder.write("nginx.conf", config);
        let mut command = Command::new(program("nginx", "nginx-light"));
        command.arg("-c").arg(file).arg("-e").arg(folder.0.join("log"));
        Self::spawn(&mut command, folder, address)
    }

    /// Starts HAProxy, which tells what it knows of a connection, and closes it soon if it is idle.
    fn haproxy(pair: &Pair, bind: &str) -> Self {
        let (folder, address) = (TempDir::new("haproxy-tls"), address::reserve());
        let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
        let both = folder.write("both.pem", read(&pair.certificate) + &read(&pair.key));
        let config = format!(
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout client 20s\n  timeout server 20s\n  \
             timeout connect 5s\n  timeout http-keep-alive 1s\n\
             frontend f\n  bind {address} ssl crt {} {bind}\n  \
             http-request return status 200 content-type text/plain lf-string \
             \"%[ssl_fc_protocol] %[ssl_fc_is_resumed] %[ssl_fc_sni] %[fc_http_major]\"\n",
            both.display()
        );
        let file = folder.write("haproxy.cfg", config);
        let mut command = Command::new(program("haproxy", "haproxy"));
        command.arg("-f").arg(file);
        Self::spawn(&mut command, folder, address)
    }

    fn spawn(command: &mut Command, folder: TempDir, address: SocketAddr) -> Self {
        let output = std::fs::File::create(folder.0.join("output")).expect("a file");
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        let mut server = Self { child: command.spawn().expect("it starts"), address, folder };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            let gone = server.child.try_wait().expect("our child").is_some();
            let said = || std::fs::read_to_string(server.folder.0.join("output")).unwrap_or_default();
            assert!(!gone && begun.elapsed() < WAIT, "it does not start: {}", said());
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pool(server: &Server, ca: &Authority, more: &str) -> String {
    format!(
        "[[backend_pools]]\naddresses = [\"https://{}\"]\n\
         [backend_pools.tls]\nca_file = \"{}\"\nserver_name = \"a.test\"\n{more}\n",
        server.address,
        ca.file().display()
    )
}

/// Eight requests one after another, on one connection of a client: by one worker.
fn eight(proxy: &Proxy) -> Vec<Response> {
    let mut client = Client::to(proxy.address);
    let get = |_| client.get("/").expect("a response");
    (0..8).map(get).collect()
}

/// Each connection takes three requests: those behind the first one resume its session.
fn check(proxy: &Proxy, version: &str, [full, resumed]: [&str; 2]) {
    let responses = eight(proxy);
    let texts: Vec<String> = responses.iter().map(Response::text).collect();
    assert!(texts[..3].iter().all(|t| t.contains(full)), "{version}: {texts:?}");
    assert!(texts[3..].iter().all(|t| t.contains(resumed)), "{version}: {texts:?}");
    assert!(texts.iter().all(|t| t.contains(version) && t.contains("a.test")), "{version}: {texts:?}");
    let kept: Vec<bool> =
        proxy.logged("\"status\":200", 8).iter().map(|l| field(l, "reused") == "true").collect();
    assert_eq!(kept, [false, true, true, false, true, true, false, true], "{version}");
    proxy.steps("connected", 3);
    proxy.steps(&format!("{version} with"), 3);
    proxy.steps("resumed", 2);
}

fn nginx_resumes_sessions_and_keeps_connections(driver: &str) {
    let ca = Authority::new("ca");
    let pair = ca.sign("a", &["a.test"]);
    for version in ["TLSv1.2", "TLSv1.3"] {
        let inside = format!(
            "ssl_protocols {version}; keepalive_requests 3;
             location / {{ return 200 '$ssl_protocol $ssl_session_reused $ssl_server_name'; }}"
        );
        let server = Server::nginx(&pair, &inside);
        let proxy = Proxy::start(driver, "", &[], &pool(&server, &ca, ""));
        check(&proxy, version, [" . ", " r "]);
        proxy.stop();
    }
}

fn haproxy_resumes_sessions_after_an_idle_close(driver: &str) {
    let ca = Authority::new("ca");
    let pair = ca.sign("a", &["a.test"]);
    for version in ["TLSv1.2", "TLSv1.3"] {
        let bind = format!("ssl-min-ver {version} ssl-max-ver {version} alpn h2,http/1.1");
        let server = Server::haproxy(&pair, &bind);
        let proxy = Proxy::start(driver, "", &[], &pool(&server, &ca, ""));
        let mut client = Client::to(proxy.address);
        let mut get = || client.get("/").expect("a response").text();
        let full = format!("{version} 0 a.test 2");
        assert_eq!([get(), get(), get()], [&*full; 3], "{version}");
        // It closes what was idle for this long.
        std::thread::sleep(Duration::from_secs(2));
        let resumed = format!("{version} 1 a.test 2");
        assert_eq!([get(), get()], [&*resumed; 2], "{version}");
        let logged = proxy.logged("\"status\":200", 5);
        let attempts: Vec<&str> = logged.iter().map(|l| field(l, "attempts")).collect();
        assert_eq!(attempts, ["1"; 5], "the end of an idle connection was noticed");
        proxy.steps("connected", 2);
        proxy.stop();
    }
}

fn bodies_of_a_megabyte_pass_with_tls_on_both_sides(driver: &str) {
    let ca = Authority::new("ca");
    let pair = ca.sign("a", &["a.test"]);
    let big: Vec<u8> = (0..1_000_003u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (upload, got) = (ca.folder.write("upload", &big), ca.folder.0.join("got"));
    for version in ["TLSv1.2", "TLSv1.3"] {
        let inside = format!(
            "ssl_protocols {version};
             location / {{ root FOLDER; dav_methods PUT; create_full_put_path on; }}"
        );
        let server = Server::nginx(&pair, &inside);
        let proxy = Proxy::start(driver, "", &[("a.test", &pair, "")], &pool(&server, &ca, ""));
        let url = format!("https://a.test:{}/kept/big", proxy.port());
        for framing in ["Expect:", "Transfer-Encoding: chunked"] {
            let mut command =
                curl(&ca, proxy.address, &["-o", "/dev/null", "-w", "%{http_code}", "-H", framing]);
            let status = output(command.arg("-T").arg(&upload).arg(&url));
            assert!(["201", "204"].contains(&&*status), "{version} {framing}: {status}");
            let kept = std::fs::read(server.folder.0.join("kept/big")).expect("a stored file");
            assert!(kept == big, "{version} {framing}: the stored bytes differ");
        }
        for more in [&["--http1.1"][..], &["--http1.0"], &["--limit-rate", "8M"]] {
            output(curl(&ca, proxy.address, more).arg("-o").arg(&got).arg(&url));
            assert!(std::fs::read(&got).expect("a file") == big, "{version} {more:?}: the bytes differ");
        }
        proxy.stop();
    }
}

fn nginx_sees_the_certificate_of_a_pool(driver: &str) {
    let (ca, clients) = (Authority::new("ca"), Authority::new("clients"));
    let (pair, us) = (ca.sign("a", &["a.test"]), clients.sign_client("balancer"));
    let inside = format!(
        "ssl_client_certificate {}; ssl_verify_client optional;
         location / {{ return 200 '$ssl_client_verify $ssl_client_s_dn'; }}",
        clients.file().display()
    );
    let server = Server::nginx(&pair, &inside);
    let shown = format!(
        "client_certificate = \"{}\"\nclient_key = \"{}\"",
        us.certificate.display(),
        us.key.display()
    );
    for (settings, expected) in [(&*shown, "SUCCESS CN=balancer"), ("", "NONE ")] {
        let proxy = Proxy::start(driver, "", &[], &pool(&server, &ca, settings));
        let response = Client::to(proxy.address).get("/").expect("a response");
        assert_eq!((response.status, &*response.text()), (200, expected));
        proxy.stop();
    }
}
