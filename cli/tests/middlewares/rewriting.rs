//! `StripPrefix`, `AddPrefix`, `ReplacePathRegex`, `Redirect` and `Respond`, with curl and raw connections as
//! clients, and nginx behind them.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{Client, WAIT};
use crate::daemon::{Daemon, TempDir};
use crate::nginx::{Nginx, output, program};
use crate::scripted_backend::{Backend, ok};

on_each_driver!(
    nginx_serves_what_the_rewritten_path_names,
    a_raw_client_cannot_leave_the_rewritten_path,
    redirects_are_followed,
    the_proxy_responds_itself_without_backends,
);

/// The standard output of curl.
fn curl(arguments: &[&str]) -> String {
    let mut curl = Command::new(program("curl", "curl"));
    output(curl.args(["-sS", "-m", "20", "--path-as-is"]).args(arguments)).replace("\r\n", "\n")
}

fn nginx_serves_what_the_rewritten_path_names(driver: &str) {
    let nginx = Nginx::start("alpha");
    std::fs::create_dir_all(nginx.folder.0.join("files")).expect("a folder of nginx");
    std::fs::write(nginx.folder.0.join("files/page.txt"), "the page\n").expect("a file of nginx");
    let config = format!(
        "http_address = \"127.0.0.1:0\"\nhealth_interval = {{ check_every = 0 }}\n\
         [[backend_pools]]\nmatcher = \"PathPrefix('/api')\"\naddresses = [\"{0}\"]\n\
         middlewares.StripPrefix.prefixes = [\"/api\"]\n\
         [[backend_pools]]\nmatcher = \"PathPrefix('/short')\"\naddresses = [\"{0}\"]\n\
         [backend_pools.middlewares]\nStripPrefix.prefixes = [\"/short\"]\nAddPrefix.prefix = \"/files\"\n\
         [[backend_pools]]\nmatcher = \"PathPrefix('/old')\"\naddresses = [\"{0}\"]\n\
         middlewares.ReplacePathRegex = {{ regex = '^/old/(.*)\\.html$', replacement = '/files/$1.txt' }}\n",
        nginx.address
    );
    let daemon = Daemon::start(&config, &["--driver", driver]);
    let base = format!("http://{}", daemon.address());
    for path in ["/api/files/page.txt", "/short/page.txt", "/short/page.txt?a=b", "/old/page.html"] {
        assert_eq!(curl(&[&format!("{base}{path}")]), "the page\n", "{path}");
    }
    // Not a segment of that name: no pool takes it.
    assert!(curl(&["-i", &format!("{base}/apix/files/page.txt")]).starts_with("HTTP/1.1 404 "));
    // nginx logs after it has sent.
    let begun = Instant::now();
    while nginx.requests().iter().filter(|r| r.starts_with("GET /files/")).count() < 4 {
        assert!(begun.elapsed() < WAIT, "{:?}", nginx.requests());
        std::thread::sleep(Duration::from_millis(10));
    }
    let seen = nginx.requests();
    assert_eq!(seen.iter().filter(|r| *r == "GET /files/page.txt").count(), 3, "{seen:?}");
    assert_eq!(seen.iter().filter(|r| *r == "GET /files/page.txt?a=b").count(), 1, "{seen:?}");
    // The log has what was asked for.
    for path in ["/api/files/page.txt", "/old/page.html"] {
        daemon.wait_for(path);
    }
    daemon.stop();
}

fn a_raw_client_cannot_leave_the_rewritten_path(driver: &str) {
    let backend = Backend::start(|mut peer| {
        while peer.request().is_some_and(|head| peer.send(ok(head.lines().next().unwrap_or_default()))) {}
    });
    let config = format!(
        "http_address = \"127.0.0.1:0\"\nhealth_interval = {{ check_every = 0 }}\n\
         [[backend_pools]]\naddresses = [\"{}\"]\n\
         middlewares.ReplacePathRegex = {{ regex = '^/x(.*)$', replacement = '/static/$1' }}\n",
        backend.address
    );
    let daemon = Daemon::start(&config, &["--driver", driver]);
    let mut client = Client::to(daemon.address());
    for (target, status, line) in [
        ("/xa?b", 200, "get /static/a?b http/1.1"),
        ("/x../secret", 400, ""),
        ("/x%2e%2e/secret", 400, ""),
        ("/x..%2Fsecret", 400, ""),
        ("/x/../../secret", 400, ""),
        ("/xb%0d%0aX:1", 200, "get /static/b%0d%0ax:1 http/1.1"),
    ] {
        let got = client.get(target).expect("a response");
        assert_eq!(got.status, status, "{target}: {}", got.head);
        assert!(status != 200 || got.text() == line, "{target}: {}", got.text());
        if got.field("Connection") == Some("close") {
            client = Client::to(daemon.address());
        }
    }
    daemon.stop();
}

fn redirects_are_followed(driver: &str) {
    let backend = Backend::good("there\n");
    let config = format!(
        "http_address = \"127.0.0.1:0\"\nhealth_interval = {{ check_every = 0 }}\n\
         [[backend_pools]]\naddresses = [\"{}\"]\n\
         [backend_pools.middlewares.Redirect]\n\
         regex = '^http://([^/]*)/old/(.*)$'\nreplacement = 'http://$1/new/$2'\nstatus = 301\n",
        backend.address
    );
    let daemon = Daemon::start(&config, &["--driver", driver]);
    let base = format!("http://{}", daemon.address());
    let format = "%{http_code} %{num_redirects} %{url_effective}\n";
    let got = curl(&["-L", "-w", format, &format!("{base}/old/a/b?c=%7E")]);
    assert_eq!(got, format!("there\n200 1 {base}/new/a/b?c=%7E\n"));
    let got = curl(&["-i", &format!("{base}/old/%0d%0aSet-Cookie:a=b")]);
    assert!(got.starts_with("HTTP/1.1 301 Moved Permanently\n"), "{got}");
    assert!(got.contains(&format!("\nLocation: {base}/new/%0D%0ASet-Cookie:a=b\n")), "{got}");
    assert!(!got.contains("\nSet-Cookie"), "{got}");
    daemon.stop();
}

fn the_proxy_responds_itself_without_backends(driver: &str) {
    let folder = TempDir::new("respond");
    let file = folder.write("maintenance.html", "<h1>Back soon</h1>\n");
    let config = format!(
        "http_address = \"127.0.0.1:0\"\n\
         [[backend_pools]]\nmatcher = \"Path('/robots.txt')\"\n\
         middlewares.Respond.body = \"User-agent: *\\nDisallow: /\\n\"\n\
         [[backend_pools]]\nmatcher = \"Path('/empty')\"\nmiddlewares.Respond.status = 204\n\
         [[backend_pools]]\n[backend_pools.middlewares.Respond]\nstatus = 503\nfile = \"{}\"\n\
         headers = {{ Retry-After = \"120\", Cache-Control = \"no-store\" }}\n",
        file.display()
    );
    let daemon = Daemon::start(&config, &["--driver", driver]);
    let base = format!("http://{}", daemon.address());
    let robots = curl(&["-i", &format!("{base}/robots.txt")]);
    assert!(robots.starts_with("HTTP/1.1 200 OK\n") && robots.ends_with("\n\nUser-agent: *\nDisallow: /\n"));
    assert!(robots.contains("\nContent-Type: text/plain; charset=utf-8\n"), "{robots}");
    let empty = curl(&["-i", &format!("{base}/empty")]);
    assert!(empty.starts_with("HTTP/1.1 204 No Content\n") && empty.ends_with("\n\n"), "{empty}");
    assert!(!empty.contains("Content-Length"), "{empty}");
    for arguments in [&["-i"][..], &["--head"], &["-i", "--data", "a=b"]] {
        let url = format!("{base}/anything?at=all");
        let got = curl(&[arguments, &[&url]].concat());
        assert!(got.starts_with("HTTP/1.1 503 Service Unavailable\n"), "{got}");
        for line in ["Content-Type: text/html; charset=utf-8", "Content-Length: 19", "Retry-After: 120"] {
            assert_eq!(got.lines().filter(|l| *l == line).count(), 1, "{line}: {got}");
        }
        let has_content = got.ends_with("\n\n<h1>Back soon</h1>\n");
        assert_eq!(has_content, arguments != ["--head"], "{got}");
    }
    // Nothing of a response disturbs the next one on its connection.
    let mut client = Client::to(daemon.address());
    for (target, status) in [("/empty", 204), ("/x", 503), ("/empty", 204), ("/robots.txt", 200)] {
        assert_eq!(client.get(target).expect("a response").status, status);
    }
    daemon.stop();
}
