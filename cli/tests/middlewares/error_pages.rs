//! `CustomErrorPages`: pages from files, in the place of what nginx, scripted backends and the proxy itself
//! say; and files that cannot be used.

use std::process::Command;

use crate::client::Client;
use crate::daemon::{Daemon, TempDir};
use crate::nginx::{Nginx, output, program};
use crate::scripted_backend::Backend;

on_each_driver!(pages_take_the_place_of_errors, bodies_without_an_end_are_not_waited_for);

const NOT_FOUND: &str = "<h1>Nothing here</h1>\n";
const BAD_GATEWAY: &str = "{\"error\":\"later\"}\n";

/// Pages in a folder of their own, and the table that names them.
fn pages() -> (TempDir, String) {
    let folder = TempDir::new("pages");
    let not_found = folder.write("404.html", NOT_FOUND);
    let bad_gateway = folder.write("502.json", BAD_GATEWAY);
    let table = format!(
        "[backend_pools.middlewares.CustomErrorPages]\n\"404\" = \"{}\"\n\"502\" = \"{}\"\n",
        not_found.display(),
        bad_gateway.display()
    );
    (folder, table)
}

fn pages_take_the_place_of_errors(driver: &str) {
    let nginx = Nginx::start("alpha");
    let (_folder, table) = pages();
    let config = format!(
        "http_address = \"127.0.0.1:0\"\n[health_interval]\ncheck_every = 0\n\
         [[backend_pools]]\nmatcher = \"PathPrefix('/away')\"\naddresses = [\"{}\"]\nretries = 0\n{table}\
         [[backend_pools]]\naddresses = [\"{}\"]\n{table}",
        Backend::refusing(),
        nginx.address
    );
    let daemon = Daemon::start(&config, &["--driver", driver]);
    let address = daemon.address();
    let curl = |arguments: &[&str]| {
        let mut curl = Command::new(program("curl", "curl"));
        output(curl.args(["-sS", "-i", "-m", "20"]).args(arguments)).replace("\r\n", "\n")
    };
    let missing = format!("http://{address}/files/none");
    let got = curl(&["-H", "Accept-Encoding: gzip", &missing]);
    assert!(
        got.starts_with("HTTP/1.1 404 Not Found\n") && got.ends_with(&format!("\n\n{NOT_FOUND}")),
        "{got}"
    );
    for line in ["Content-Type: text/html; charset=utf-8", &format!("Content-Length: {}", NOT_FOUND.len())] {
        assert_eq!(got.lines().filter(|l| l.eq_ignore_ascii_case(line)).count(), 1, "{line}: {got}");
    }
    let head = curl(&["--head", &missing]);
    assert!(head.contains(&format!("Content-Length: {}\n", NOT_FOUND.len())), "{head}");
    assert!(head.ends_with("\n\n"), "{head}");
    let away = curl(&[&format!("http://{address}/away")]);
    assert!(away.starts_with("HTTP/1.1 502 ") && away.ends_with(&format!("\n\n{BAD_GATEWAY}")), "{away}");
    assert!(away.contains("Content-Type: application/json\n"), "{away}");
    assert!(away.contains("Proxy-Status: rust-strom; error=connection_refused"), "{away}");
    // Many in a row over one connection each: everything is framed as it is announced.
    let url = format!("http://{address}/files/none[1-20]");
    let many = curl(&["-w", "%{num_connects}\n", &url]);
    assert_eq!(many.matches(NOT_FOUND).count(), 20, "{many}");
    assert_eq!(many.lines().filter(|l| *l == "0").count(), 19, "{many}");
    daemon.stop();
}

fn bodies_without_an_end_are_not_waited_for(driver: &str) {
    let backend = Backend::start(|mut peer| {
        if peer.request().is_some() {
            let head =
                "HTTP/1.1 404 Nope\r\nTransfer-Encoding: chunked\r\nRetry-After: 5\r\nETag: \"x\"\r\n\r\n";
            let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
            let _ = peer.send(head) && (0..).all(|_: u32| peer.send(&chunk));
        }
    });
    let (_folder, table) = pages();
    let config = format!(
        "http_address = \"127.0.0.1:0\"\n[health_interval]\ncheck_every = 0\n\
         [[backend_pools]]\naddresses = [\"{}\"]\n{table}",
        backend.address
    );
    let daemon = Daemon::start(&config, &["--driver", driver]);
    let mut client = Client::to(daemon.address());
    for _ in 0..5 {
        let got = client.get("/").expect("a response");
        assert_eq!((got.status, got.text().as_str()), (404, NOT_FOUND), "{}", got.head);
        assert_eq!((got.field("Retry-After"), got.field("ETag")), (Some("5"), None), "{}", got.head);
    }
    let begun = std::time::Instant::now();
    while backend.stats.open.load(std::sync::atomic::Ordering::SeqCst) > 0 {
        assert!(begun.elapsed() < crate::client::WAIT, "connections of the backend stay open");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    daemon.stop();
}

#[test]
fn files_that_cannot_be_used_are_errors_where_they_are_named() {
    let folder = TempDir::new("bad-pages");
    std::fs::create_dir(folder.0.join("folder.html")).expect("a folder");
    let fifo = Command::new("mkfifo").arg(folder.0.join("fifo.html")).status().expect("coreutils");
    assert!(fifo.success());
    let long = std::fs::File::create(folder.0.join("long.html")).expect("a file");
    long.set_len((4 << 20) + 1).expect("room");
    let longest = std::fs::File::create(folder.0.join("longest.html")).expect("a file");
    longest.set_len(4 << 20).expect("room");
    std::os::unix::fs::symlink("loop.html", folder.0.join("loop.html")).expect("a link");
    let file = folder.write(
        "config.toml",
        "http_address = \"127.0.0.1:0\"\n\
         [middlewares.pages.CustomErrorPages]\n404 = \"missing.html\"\n500 = \"folder.html\"\n\
         [[backend_pools]]\nmatcher = \"Path('/a')\"\naddresses = [\"127.0.0.1:1\"]\nmiddlewares = [\"pages\"]\n\
         [[backend_pools]]\naddresses = [\"127.0.0.1:1\"]\n\
         [backend_pools.middlewares.CustomErrorPages]\n\
         400 = \"longest.html\"\n404 = \"fifo.html\"\n500 = \"long.html\"\n502 = \"missing.html\"\n503 = \"loop.html\"\n",
    );
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
        command.arg("--config").arg(&file).args(arguments).output().expect("it starts")
    };
    let out = run(&["--check"]);
    assert_eq!(out.status.code(), Some(1));
    let stdout = String::from_utf8_lossy(&out.stdout);
    let found: Vec<_> = stdout
        .lines()
        .filter_map(|line| {
            let (place, message) = line.split_once(": error: cannot read ")?;
            let (_, why) = message.split_once(".html: ")?;
            Some((place.rsplit_once(".toml:")?.1, why))
        })
        .collect();
    let too_long = "it has more than 4 MiB, and would be kept in memory";
    assert_eq!(
        found,
        [
            ("3:7", "No such file or directory (os error 2)"),
            ("4:7", "it is not a regular file"),
            ("13:7", "it is not a regular file"),
            ("14:7", too_long),
            ("15:7", "No such file or directory (os error 2)"),
            ("16:7", "Too many levels of symbolic links (os error 40)"),
        ],
        "{stdout}"
    );
    // A start says the same, and does not begin to serve.
    let out = run(&[]);
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("missing.html"), "{out:?}");
}
