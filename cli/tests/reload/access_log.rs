//! The access log goes where the newest configuration says, as it says, and no line is lost on the way.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::address::reserve;
use crate::client::{Client, WAIT};
use crate::daemon::Daemon;
use crate::scripted_backend::{Backend, Peer, ok};
use crate::site::{reload, start};

on_each_driver!(it_moves_while_it_is_in_use, what_cannot_be_opened_is_refused, no_line_is_lost);

/// It tells of each request of `/held`, and its response to one waits for the other end of `let_go`.
fn holding(came: Sender<()>, let_go: Receiver<()>) -> Backend {
    let let_go = Mutex::new(let_go);
    Backend::start(move |mut peer: Peer| {
        while let Some(head) = peer.head() {
            if head.starts_with("get /held ") {
                came.send(()).expect("somebody waits for it");
                let_go.lock().expect("no panic").recv().expect("let go");
            }
            if !peer.send(ok("")) {
                return;
            }
        }
    })
}

fn config(http: SocketAddr, backend: &Backend, access_log: &str) -> String {
    format!(
        "http_address = \"{http}\"\nmetrics_address = false\nhealth_interval = {{ check_every = 0 }}\n\
         watch = false\n{access_log}\n[[backend_pools]]\naddresses = [\"{}\"]\n",
        backend.address
    )
}

fn wait_until(what: &str, daemon: &Daemon, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < WAIT, "{what}: {}", daemon.output());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Requests a target until its line is in this text. Not every worker may have the configuration yet.
fn is_logged(what: &str, daemon: &Daemon, http: SocketAddr, log: &dyn Fn() -> String) -> String {
    let mut nth = 0;
    let mut found = None;
    wait_until(what, daemon, || {
        nth += 1;
        let target = format!("/{what}/{nth}/");
        assert_eq!(Client::to(http).get(&target).expect("a response").status, 200);
        std::thread::sleep(Duration::from_millis(100));
        let text = log();
        found = text.lines().find(|line| line.contains(&format!("/{what}/"))).map(str::to_owned);
        found.is_some()
    });
    found.expect("found")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Whether the process has a file with this end open.
fn holds(daemon: &Daemon, end: &str) -> bool {
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.id())).expect("it runs");
    let target = |file: std::fs::DirEntry| std::fs::read_link(file.path()).ok();
    open.flatten().filter_map(target).any(|path| path.to_string_lossy().ends_with(end))
}

fn it_moves_while_it_is_in_use(driver: &str) {
    let (came, held_came) = mpsc::channel();
    let (go, let_go) = mpsc::channel();
    let backend = holding(came, let_go);
    let http = reserve();
    let daemon = start(driver, &config(http, &backend, ""));
    let at = |name: &str| daemon.directory.0.join(name);
    is_logged("stdout", &daemon, http, &|| daemon.output());
    let mut held = Client::to(http);
    held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    // A head that is read after the reload would be kept in the new format.
    held_came.recv_timeout(WAIT).expect("it is under way");
    // From standard output into a file, in another format, which is also that of the daemon's own log.
    let json = "[access_log]\npath = \"one.log\"\nformat = \"json\"";
    let line = reload(&daemon, &config(http, &backend, json));
    assert!(line.contains("settings: access_log"), "{line}");
    let line = is_logged("first", &daemon, http, &|| read(&at("one.log")));
    assert!(line.starts_with("{\"") && line.ends_with('}'), "{line}");
    // Another file: the old one is closed.
    reload(&daemon, &config(http, &backend, "[access_log]\npath = \"two.log\""));
    let line = is_logged("second", &daemon, http, &|| read(&at("two.log")));
    assert!(!line.starts_with('{'), "{line}");
    // Both workers have turns.
    wait_until("the old file is closed", &daemon, || !holds(&daemon, "one.log"));
    // Before it, one that had not had its turn may still have written to the old one.
    is_logged("third", &daemon, http, &|| read(&at("two.log")));
    assert!(!read(&at("one.log")).contains("third"));
    // A request that began under another format is one whole line in it.
    go.send(()).expect("it waits");
    assert_eq!(held.response(false).expect("a response").status, 200);
    wait_until("the line of /held", &daemon, || {
        read(&at("two.log")).contains("\"GET /held HTTP/1.1\" 200 in=")
    });
    // USR1 opens the file anew that is in use now.
    std::fs::rename(at("two.log"), at("two.log.1")).expect("moved");
    daemon.signal(Signal::USR1);
    is_logged("rotated", &daemon, http, &|| read(&at("two.log")));
    reload(&daemon, &config(http, &backend, "[access_log]\nenabled = false"));
    wait_until("no log", &daemon, || !holds(&daemon, "two.log"));
    let before = daemon.output().len();
    reload(&daemon, &config(http, &backend, ""));
    is_logged("back", &daemon, http, &|| daemon.output()[before..].to_owned());
    assert!(!read(&at("two.log")).contains("/back/"));
    daemon.stop();
}

fn what_cannot_be_opened_is_refused(driver: &str) {
    let backend = Backend::good("one");
    let http = reserve();
    let daemon = start(driver, &config(http, &backend, "[access_log]\npath = \"one.log\""));
    let line =
        reload(&daemon, &config(http, &backend, "via = true\n[access_log]\npath = \"missing/two.log\""));
    assert!(line.contains("not reloaded") && line.contains("cannot write the access log"), "{line}");
    is_logged("still", &daemon, http, &|| read(&daemon.directory.0.join("one.log")));
    let line = reload(&daemon, &config(http, &backend, "via = true\n[access_log]\npath = \"one.log\""));
    assert!(line.ends_with("settings: via"), "nothing of the refused one was taken: {line}");
    daemon.stop();
}

/// Each request is in exactly one of the files, whole.
fn no_line_is_lost(driver: &str) {
    const REQUESTS: usize = 2000;
    let backend = Backend::good("one");
    let http = reserve();
    let text = |n: usize| {
        let format = ["text", "json"][n / 2 % 2];
        let log = format!("[access_log]\npath = \"{}.log\"\nformat = \"{format}\"", n % 3);
        config(http, &backend, &log)
    };
    let daemon = start(driver, &text(0));
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut clients = [Client::to(http), Client::to(http)];
            for n in 0..REQUESTS {
                let response = clients[n % 2].get(&format!("/request/{n}/")).expect("a response");
                assert_eq!(response.status, 200);
            }
        });
        for n in 1.. {
            if clients.is_finished() {
                break;
            }
            assert!(reload(&daemon, &text(n)).contains("settings: access_log"));
        }
    });
    let folder = &daemon.directory.0;
    let all = || (0..3).map(|n| read(&folder.join(format!("{n}.log")))).collect::<String>();
    daemon.signal(Signal::TERM);
    wait_until("every line", &daemon, || all().matches("/request/").count() >= REQUESTS);
    let text = all();
    for n in 0..REQUESTS {
        assert_eq!(text.matches(&format!("/request/{n}/")).count(), 1, "{n}");
    }
    for line in text.lines() {
        assert!(
            line.ends_with('"') && line.starts_with("20") || line.starts_with("{\"") && line.ends_with('}'),
            "{line}"
        );
    }
}
