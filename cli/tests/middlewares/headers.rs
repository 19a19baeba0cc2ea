//! `Headers`: what a real backend receives, and what curl sees.

use std::process::Command;

use crate::daemon::Daemon;
use crate::nginx::{output, program};
use crate::scripted_backend::{Backend, ok};

on_each_driver!(fields_are_set_added_and_removed_on_both_ways, named_headers_serve_several_pools);

/// A backend whose responses have the head of the request as their body.
fn echo() -> Backend {
    Backend::start(|mut peer| while peer.request().is_some_and(|head| peer.send(ok(&head))) {})
}

fn fields_are_set_added_and_removed_on_both_ways(driver: &str) {
    let backend = echo();
    let config = format!(
        "http_address = \"127.0.0.1:0\"\n[[backend_pools]]\naddresses = [\"{}\"]\n\
         health_config = {{ timeout = 5000, slow_threshold = 0 }}\n\
         [backend_pools.middlewares.Headers]\n\
         request = {{ set = {{ X-Client = \"{{client_ip}} {{scheme}} {{host}}\" }}, remove = [\"Cookie\"] }}\n\
         response = {{ set = {{ X-Served-By = \"{{backend}}\" }}, add = {{ Link = [\"<a>\", \"<b>\"] }} }}\n\
         security = true\n",
        backend.address
    );
    let daemon = Daemon::start(&config, &["--driver", driver]);
    let address = daemon.address();
    let mut curl = Command::new(program("curl", "curl"));
    curl.args(["-sS", "-i", "-m", "20", "-H", "Cookie: a=b", "-H", "X-Client: forged"]);
    let stdout = output(curl.arg(format!("http://{address}/x")));
    for line in [
        &format!("x-client: 127.0.0.1 http {address}"),
        &format!("X-Served-By: {}", backend.address),
        "Link: <a>",
        "Link: <b>",
        "X-Content-Type-Options: nosniff",
        "X-Frame-Options: SAMEORIGIN",
        "Referrer-Policy: strict-origin-when-cross-origin",
    ] {
        assert_eq!(stdout.lines().filter(|l| *l == line).count(), 1, "{line}: {stdout}");
    }
    assert!(!stdout.contains("cookie") && !stdout.contains("forged"), "{stdout}");
    assert!(!stdout.contains("Strict-Transport"), "not over plain HTTP: {stdout}");
    daemon.stop();
}

fn named_headers_serve_several_pools(driver: &str) {
    let backend = echo();
    let config = format!(
        "http_address = \"127.0.0.1:0\"\n\
         [middlewares.tag.Headers]\nresponse.add.X-Tag = \"tag\"\n\
         [middlewares.more.Headers]\nresponse.add.X-Tag = \"more\"\n\
         [[backend_pools]]\nmatcher = \"Path('/two')\"\naddresses = [\"{0}\"]\nmiddlewares = [\"tag\", \"more\"]\n\
         health_config = {{ timeout = 5000, slow_threshold = 0 }}\n\
         [[backend_pools]]\naddresses = [\"{0}\"]\nmiddlewares = [\"tag\"]\n\
         health_config = {{ timeout = 5000, slow_threshold = 0 }}\n",
        backend.address
    );
    let daemon = Daemon::start(&config, &["--driver", driver]);
    let mut client = crate::client::Client::to(daemon.address());
    // The first of the chain sees the response last.
    for (path, tags) in [("/two", vec!["more", "tag"]), ("/one", vec!["tag"])] {
        let response = client.get(path).expect("a response");
        let found: Vec<_> = response.head.lines().filter_map(|l| l.strip_prefix("X-Tag: ")).collect();
        assert_eq!(found, tags, "{}", response.head);
    }
    daemon.stop();
}
