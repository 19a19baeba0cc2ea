//! What a reload changes, one thing at a time.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::address::reserve;
use crate::authority::Authority;
use crate::client::Client;
use crate::daemon::Daemon;
use crate::scripted_backend::Backend;
use crate::site::{ask, reload, start};

on_each_driver!(
    pools,
    a_bad_file_changes_nothing,
    listeners,
    a_port_that_changes_its_kind,
    certificates,
    middlewares,
    what_needs_a_restart,
);

/// The watcher is off: a reload is what HUP has caused.
fn config(http: SocketAddr, pools: &str) -> String {
    format!(
        "http_address = \"{http}\"\nwatch = false\nmetrics_address = false\n\
         health_interval = {{ check_every = 0 }}\n{pools}"
    )
}

fn pool(name: &str, backend: &Backend, more: &str) -> String {
    format!("[[backend_pools]]\nname = \"{name}\"\naddresses = [\"{}\"]\n{more}", backend.address)
}

fn body(client: &mut Client) -> String {
    client.get("/").expect("a response").text()
}

fn pools(driver: &str) {
    let (one, two) = (Backend::good("one"), Backend::good("two"));
    let http = reserve();
    let daemon = start(driver, &config(http, &pool("web", &one, "")));
    let mut kept = Client::to(http);
    assert_eq!(body(&mut kept), "one");
    let line = reload(&daemon, &config(http, &pool("web", &two, "retries = 0\n")));
    assert!(line.ends_with(": pools: ~web (retries, 1 backend added, 1 backend removed)"), "{line}");
    // A worker that has not had its turn yet may serve one more by the old one.
    let begun = std::time::Instant::now();
    while body(&mut kept) != "two" {
        assert!(begun.elapsed() < crate::client::WAIT);
    }
    for _ in 0..10 {
        assert_eq!(body(&mut Client::to(http)), "two");
    }
    // The connection that was idle for the backend that left is closed.
    let begun = std::time::Instant::now();
    while one.stats.open.load(std::sync::atomic::Ordering::SeqCst) > 0 {
        assert!(begun.elapsed() < crate::client::WAIT);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let line = ask(&daemon);
    assert!(line.contains("it says the same"), "{line}");
    daemon.stop();
}

fn a_bad_file_changes_nothing(driver: &str) {
    let one = Backend::good("one");
    let http = reserve();
    let daemon = start(driver, &config(http, &pool("web", &one, "")));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("bound");
    let holder = std::net::TcpListener::bind(taken);
    let mut kept = Client::to(http);
    // (the file, a word of what is said)
    for (text, said) in [
        ("nonsense", "config.toml cannot be used"),
        ("", "config.toml cannot be used"),
        (&config(http, &pool("web", &one, "strategy = \"Fastest\"\n")), "unknown strategy"),
        (&config(taken, &pool("web", &one, "")), "cannot listen on"),
    ] {
        let line = reload(&daemon, text);
        assert!(line.contains("not reloaded, what was served is served on"), "{line}");
        assert!(daemon.output().contains(said), "{said}: {}", daemon.output());
        assert_eq!(body(&mut kept), "one");
        assert_eq!(body(&mut Client::to(http)), "one");
    }
    drop(holder);
    std::fs::remove_file(daemon.directory.0.join("config.toml")).expect("removed");
    assert!(ask(&daemon).contains("cannot read"));
    let line = reload(&daemon, &config(http, &pool("better", &one, "")));
    assert!(line.ends_with("pools: +better, -web"), "{line}");
    assert_eq!(body(&mut kept), "one");
    daemon.stop();
}

fn listens(to: SocketAddr) -> bool {
    TcpStream::connect(to).is_ok()
}

fn listeners(driver: &str) {
    let (one, two) = (Backend::good("one"), Backend::good("two"));
    let [first, second, third] = [reserve(), reserve(), reserve()];
    let text = |listeners: &[(&str, SocketAddr)], pools: String| {
        let tables = listeners.iter().map(|(name, at)| {
            format!("[[listeners]]\nname = \"{name}\"\naddress = \"{at}\"\nkind = \"http\"\n")
        });
        let top = "watch = false\nmetrics_address = false\nhealth_interval = { check_every = 0 }\n";
        format!("{top}{}{pools}", tables.collect::<String>())
    };
    let by_listener = pool("a", &one, "listeners = [\"a\"]\n") + &pool("rest", &two, "");
    let daemon = start(driver, &text(&[("a", first), ("b", second)], by_listener.clone()));
    let (mut on_first, mut on_second) = (Client::to(first), Client::to(second));
    assert_eq!((body(&mut on_first), body(&mut on_second)), ("one".to_owned(), "two".to_owned()));
    // One goes, one comes, and the order is another: connections are still those of their listener.
    let line = reload(&daemon, &text(&[("c", third), ("a", first)], by_listener.clone()));
    assert!(line.ends_with(&format!("listeners: +{third} (http), -{second} (http)")), "{line}");
    let begun = std::time::Instant::now();
    while !listens(third) || listens(second) {
        assert!(begun.elapsed() < crate::client::WAIT, "{}", daemon.output());
    }
    for _ in 0..10 {
        assert_eq!(body(&mut Client::to(third)), "two");
        assert_eq!(body(&mut Client::to(first)), "one");
        assert_eq!(body(&mut on_first), "one");
        assert_eq!(body(&mut on_second), "two", "its listener is gone, and it is not");
    }
    // And back again.
    reload(&daemon, &text(&[("a", first), ("b", second)], by_listener));
    let begun = std::time::Instant::now();
    while listens(third) || !listens(second) {
        assert!(begun.elapsed() < crate::client::WAIT, "{}", daemon.output());
    }
    for _ in 0..10 {
        assert_eq!(body(&mut Client::to(first)), "one");
        assert_eq!(body(&mut Client::to(second)), "two");
        assert_eq!(body(&mut on_second), "two");
    }
    daemon.stop();
}

/// The response to a request over TLS, and the common name of the server's certificate.
pub(crate) fn over_tls(to: SocketAddr) -> (String, String) {
    let (url, resolved) =
        (format!("https://a.example:{}/", to.port()), format!("a.example:{}:{}", to.port(), to.ip()));
    let arguments = ["-skv", "--max-time", "10", "--resolve", &resolved, &url];
    let out = Command::new("curl").args(arguments).output().expect("curl");
    let trace = String::from_utf8_lossy(&out.stderr).into_owned();
    let subject =
        trace.lines().find_map(|line| line.split_once("subject: ")).map(|(_, name)| name.to_owned());
    (String::from_utf8_lossy(&out.stdout).into_owned(), subject.unwrap_or_default())
}

fn a_port_that_changes_its_kind(driver: &str) {
    let one = Backend::good("one");
    let port = reserve();
    let authority = Authority::new("ours");
    let pair = authority.self_signed("first", &["a.example"]);
    let daemon = start(driver, &config(port, &pool("web", &one, "")));
    let mut kept = Client::to(port);
    assert_eq!(body(&mut kept), "one");
    let https = config(port, "").replace("http_address", "https_address");
    let text = format!("{https}[certificates.\"a.example\"]\n{}{}", pair.local(), pool("web", &one, ""));
    let line = reload(&daemon, &text);
    assert!(line.contains(&format!("listeners: +{port} (https), -{port} (http)")), "{line}");
    let begun = std::time::Instant::now();
    while over_tls(port).0 != "one" {
        assert!(begun.elapsed() < crate::client::WAIT, "{}", daemon.output());
    }
    assert_eq!(body(&mut kept), "one", "a connection stays what it was");
    daemon.stop();
}

fn certificates(driver: &str) {
    let one = Backend::good("one");
    let port = reserve();
    let authority = Authority::new("ours");
    let (first, second) =
        (authority.self_signed("first", &["a.example"]), authority.self_signed("second", &["a.example"]));
    let folder = crate::daemon::TempDir::new("certificates");
    let put = |pair: &crate::authority::Pair| {
        for (name, from) in [("a.crt", &pair.certificate), ("a.key", &pair.key)] {
            folder.write(name, std::fs::read(from).expect("a file"));
        }
    };
    put(&first);
    let text = format!(
        "{}[certificates.\"a.example\"]\nLocal = {{ certificate_path = \"{2}/a.crt\", private_key_path = \"{2}/a.key\" }}\n{1}",
        config(port, "").replace("http_address", "https_address"),
        pool("web", &one, ""),
        folder.0.display()
    );
    let daemon = start(driver, &text);
    assert_eq!(over_tls(port), ("one".to_owned(), "CN=first".to_owned()));
    put(&second);
    let line = ask(&daemon);
    assert!(line.contains("files that it names were read again"), "{line}");
    assert_eq!(over_tls(port), ("one".to_owned(), "CN=second".to_owned()));
    // A key that does not belong to it is refused.
    folder.write("a.key", std::fs::read(&first.key).expect("a file"));
    assert!(ask(&daemon).contains("not reloaded"));
    assert_eq!(over_tls(port), ("one".to_owned(), "CN=second".to_owned()));
    daemon.stop();
}

/// What a middleware has counted stays, and the files that it reads are read again.
fn middlewares(driver: &str) {
    let one = Backend::good("one");
    let http = reserve();
    let chain = |limit: usize| {
        let limiter =
            format!("[backend_pools.middlewares.RateLimiter]\nlimit = {limit}\nwindow_sec = 3600\n");
        let pages = "[backend_pools.middlewares.CustomErrorPages]\n\"429\" = \"busy.txt\"\n";
        config(http, &pool("web", &one, &format!("{pages}{limiter}")))
    };
    let folder = crate::daemon::TempDir::new("pages");
    let page = folder.write("busy.txt", "first");
    let chain = |limit| chain(limit).replace("busy.txt", &page.display().to_string());
    let daemon = start(driver, &chain(3));
    let statuses = |n: usize| {
        let mut client = Client::to(http);
        (0..n).map(|_| client.get("/").expect("a response")).map(|r| (r.status, r.text())).collect::<Vec<_>>()
    };
    let good = (200, "one".to_owned());
    assert_eq!(statuses(4), [good.clone(), good.clone(), good.clone(), (429, "first".to_owned())]);
    folder.write("busy.txt", "second");
    let line = reload(&daemon, &chain(4));
    assert!(line.ends_with(": pools: ~web (middlewares)"), "{line}");
    let begun = std::time::Instant::now();
    let mut found = statuses(1);
    while found == [(429, "first".to_owned())] {
        assert!(begun.elapsed() < crate::client::WAIT);
        found = statuses(1);
    }
    // Three of four had been let in before.
    assert_eq!(found, [good]);
    assert_eq!(statuses(2), [(429, "second".to_owned()), (429, "second".to_owned())]);
    daemon.stop();
}

fn what_needs_a_restart(driver: &str) {
    let one = Backend::good("one");
    let http = reserve();
    let daemon: Daemon = start(driver, &config(http, &pool("web", &one, "")));
    reload(&daemon, &format!("workers = 7\n{}", config(http, &pool("web", &one, ""))));
    daemon.wait_for("`workers` differs from what it was at the start: that needs an upgrade");
    assert_eq!(body(&mut Client::to(http)), "one");
    daemon.stop();
}
