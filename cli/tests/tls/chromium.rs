//! Chromium without a display: a page with 100 resources, over HTTP/2 and TLS.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::authority::{Authority, Pair};
use crate::client::WAIT;
use crate::daemon::TempDir;
use crate::nginx::{output, program};
use crate::proxy::{Proxy, field};
use crate::scripted_backend::Backend;

on_each_driver!(a_page_of_100_resources);

const RESOURCES: usize = 100;

/// Chromium in a process group of its own, which is ended with it.
struct Browser {
    child: Child,
    group: Pid,
    folder: TempDir,
}

impl Browser {
    /// Loads a page and prints what it has become. It finds `a.test` at this machine and no other name, and
    /// takes the certificate whose key has this hash.
    fn load(url: &str, key_hash: &str) -> Self {
        let folder = TempDir::new("chromium");
        let home = folder.0.as_path();
        let mut command = Command::new(program("chromium-headless-shell", "chromium-headless-shell"));
        command.args([
            // It refuses to run as root otherwise.
            "--no-sandbox",
            "--no-proxy-server",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-default-apps",
            "--disable-extensions",
            "--disable-sync",
            "--no-first-run",
            "--host-resolver-rules=MAP a.test 127.0.0.1, MAP * ~NOTFOUND",
            &format!("--ignore-certificate-errors-spki-list={key_hash}"),
            &format!("--user-data-dir={}", home.join("profile").display()),
            "--dump-dom",
            url,
        ]);
        for name in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] {
            command.env(name, home);
        }
        let file = |name: &str| std::fs::File::create(home.join(name)).expect("a file");
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let child = command.process_group(0).spawn().expect("it starts");
        let group = Pid::from_child(&child);
        Self { child, group, folder }
    }

    /// Waits until it has ended by itself, and everything that it has started; what it has printed.
    fn printed(&mut self) -> String {
        let begun = Instant::now();
        let shown = |folder: &Path| {
            ["stdout", "stderr"].map(|name| std::fs::read(folder.join(name)).unwrap_or_default())
        };
        loop {
            let ended = self.child.try_wait().expect("our child");
            if let Some(status) = ended
                && test_kill_process_group(self.group).is_err()
            {
                let [stdout, stderr] =
                    shown(&self.folder.0).map(|text| String::from_utf8_lossy(&text).into());
                let stderr: String = stderr;
                assert!(status.success(), "{status}: {stderr}");
                return stdout;
            }
            assert!(
                begun.elapsed() < 4 * WAIT,
                "it does not end: {:?}",
                shown(&self.folder.0).map(|text| String::from_utf8_lossy(&text).into_owned())
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The SHA-256 of a certificate's public key, in base64.
fn key_hash(pair: &Pair) -> String {
    let openssl = program("openssl", "openssl");
    let script = "\"$0\" x509 -in \"$1\" -noout -pubkey | \"$0\" pkey -pubin -outform der | \
                  \"$0\" dgst -sha256 -binary | \"$0\" base64";
    let mut command = Command::new("sh");
    output(command.args(["-c", script]).arg(openssl).arg(&pair.certificate)).trim().to_owned()
}

/// What the page asks for: pictures, styles and scripts of all sizes up to 50 KB.
fn resource(target: &str) -> Option<(&'static str, String)> {
    let (name, kind) = target.strip_prefix('/')?.split_once('.')?;
    let n: usize = name.parse().ok().filter(|n| *n < RESOURCES)?;
    let padding = "x".repeat(n * 500);
    Some(match kind {
        "svg" => (
            "image/svg+xml",
            format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"7\" height=\"7\"><!-- {padding} --></svg>"
            ),
        ),
        "css" => ("text/css", format!("#s{n} {{ width: 77px; }} /* {padding} */")),
        "js" => ("text/javascript", format!("window.scripts += 1; /* {padding} */")),
        _ => return None,
    })
}

/// Counts what has been loaded and understood, and how, once all has been.
const PAGE_SCRIPT: &str = "
window.scripts = 0;
window.onload = () => {
  const images = [...document.images].filter(image => image.naturalWidth === 7).length;
  const styled = [...document.querySelectorAll('i')].filter(i => getComputedStyle(i).width === '77px').length;
  const entries = ['navigation', 'resource'].flatMap(type => performance.getEntriesByType(type));
  const over = entries.filter(entry => entry.nextHopProtocol === 'h2').length;
  document.body.textContent =
    `images=${images} styles=${styled} scripts=${scripts} h2=${over} of ${entries.length}`;
};";

fn page() -> String {
    let (mut head, mut body) = (String::new(), String::new());
    for n in 0..RESOURCES {
        match n % 4 {
            0 => {
                head += &format!("<link rel=stylesheet href=/{n}.css>\n");
                body += &format!("<i id=s{n} style='display: block'></i>\n");
            }
            1 => body += &format!("<script src=/{n}.js></script>\n"),
            _ => body += &format!("<img src=/{n}.svg>\n"),
        }
    }
    format!(
        "<!doctype html><meta charset=utf-8><link rel=icon href=data:,>\n\
         <script>{PAGE_SCRIPT}</script>\n{head}<body>{body}"
    )
}

fn a_page_of_100_resources(driver: &str) {
    let backend = Backend::start(|mut peer| {
        while let Some(head) = peer.request() {
            let target = head.split(' ').nth(1).unwrap_or_default();
            let (kind, body) = match resource(target) {
                Some(found) => found,
                None if target == "/" => ("text/html", page()),
                None => {
                    peer.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
                    continue;
                }
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nCache-Control: no-store\r\n\
                 Content-Length: {}\r\n\r\n",
                body.len()
            );
            if !peer.send(head + &body) {
                return;
            }
        }
    });
    let authority = Authority::new("ca");
    let pair = authority.sign("a", &["a.test"]);
    let proxy = Proxy::to(driver, &[("a.test", &pair, "")], backend.address);
    let url = format!("https://a.test:{}/", proxy.port());
    let shown = Browser::load(&url, &key_hash(&pair)).printed();
    let all = format!("images=50 styles=25 scripts=25 h2={0} of {0}", RESOURCES + 1);
    assert!(shown.contains(&all), "{shown}");

    // One connection carried everything, each request on a stream of its own.
    let lines = proxy.logged("\"host\":\"a.test:", RESOURCES + 1);
    assert_eq!(lines.len(), RESOURCES + 1, "{lines:#?}");
    let targets: BTreeSet<&str> = lines.iter().map(|line| field(line, "target")).collect();
    assert_eq!(targets.len(), RESOURCES + 1, "{targets:?}");
    let streams: BTreeSet<u32> =
        lines.iter().map(|line| field(line, "stream").parse().expect("a stream")).collect();
    assert!(streams.len() == RESOURCES + 1 && streams.iter().all(|id| id % 2 == 1), "{streams:?}");
    for line in &lines {
        assert_eq!((field(line, "version"), field(line, "status")), ("2.0", "200"), "{line}");
        assert_eq!(field(line, "client"), field(&lines[0], "client"), "another connection: {line}");
        assert_eq!((field(line, "scheme"), field(line, "sni")), ("https", "a.test"), "{line}");
    }
    proxy.stop();
}
