//! What passes: many requests over few connections, and content of many megabytes both ways.

use std::collections::BTreeSet;

use crate::authority::Authority;
use crate::daemon::TempDir;
use crate::proxy::{Proxy, field};
use crate::servers::{Server, curl, h2c, load, pattern};

on_each_driver!(
    nginx_by_prior_knowledge,
    nginx_over_tls,
    haproxy_by_prior_knowledge_and_over_tls,
    nghttpd_by_prior_knowledge_and_over_tls,
    a_pool_chooses_what_is_offered,
);

fn url(proxy: &Proxy, path: &str) -> String {
    format!("http://{}{path}", proxy.address)
}

/// A thousand requests of 32 clients; the connections that nginx has seen.
fn thousand(proxy: &Proxy, server: &Server) -> usize {
    for http1 in [true, false] {
        load(&url(proxy, "/many"), 1000, http1);
    }
    let many = server.logged("/many", 2000);
    assert_eq!(many.len(), 2000);
    assert!(many.iter().all(|line| line[1] == "HTTP/2.0"), "{:?}", many[0]);
    many.iter().map(|line| &line[0]).collect::<BTreeSet<_>>().len()
}

/// 10 MB down and 4 MB up, from a server that serves `/files/big` and keeps `/kept/up` as nginx does.
fn megabytes(proxy: &Proxy, server: &Server) {
    let (big, up) = (pattern(10_000_000), pattern(4_000_000));
    server.keep("files/big", &big);
    let files = TempDir::new("http2-content");
    let (upload, got) = (files.write("up", &up).display().to_string(), files.0.join("got"));
    for http2 in [false, true] {
        for limit in ["1000M", "40M"] {
            let target = url(proxy, "/files/big");
            let to = got.display().to_string();
            let status = curl(http2, &["--limit-rate", limit, "-o", &to, "-w", "%{http_code}", &target]);
            assert_eq!(status, "200");
            assert!(std::fs::read(&got).expect("a file") == big, "HTTP/2 {http2}: the bytes differ");
        }
        for more in [&["-H", "Expect:"][..], &["-H", "Expect: 100-continue"]] {
            let target = url(proxy, "/kept/up");
            let put = ["-T", &upload, "-o", "/dev/null", "-w", "%{http_code}", &target];
            let status = curl(http2, &[more, &put].concat());
            assert!(["201", "204"].contains(&&*status), "{status}");
            let kept = std::fs::read(server.folder.0.join("kept/up")).expect("a stored file");
            assert!(kept == up, "HTTP/2 {http2}: the stored bytes differ");
        }
    }
}

fn nginx_by_prior_knowledge(driver: &str) {
    let server = Server::nginx(None, "");
    let proxy = Proxy::start(driver, "", &[], &h2c(&[&server], ""));
    let connections = thousand(&proxy, &server);
    assert!(connections <= 8, "{connections} connections for 2000 requests of 64 clients and two workers");
    megabytes(&proxy, &server);
    for http2 in [false, true] {
        let who = curl(http2, &["-H", "Host: a.test:81", "-b", "a=1; b=2", &url(&proxy, "/who")]);
        assert_eq!(who, "HTTP/2.0 http a.test:81 127.0.0.1 a=1; b=2");
        let head = curl(http2, &["-I", &url(&proxy, "/files/big")]).to_lowercase();
        assert!(head.contains(" 200") && head.contains("content-length: 10000000"), "{head}");
        let same = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag").to_owned();
        let condition = format!("If-None-Match: {same}");
        let arguments = ["-o", "/dev/null", "-w", "%{http_code} %{size_download}", "-H", &condition];
        assert_eq!(curl(http2, &[&arguments[..], &[&url(&proxy, "/files/big")]].concat()), "304 0");
    }
    let logged = proxy.logged("/many", 2000);
    let reused = logged.iter().filter(|line| field(line, "reused") == "true").count();
    assert!(reused >= 1900, "{reused} of 2000 found a connection");
    proxy.stop();
}

fn nginx_over_tls(driver: &str) {
    let ca = Authority::new("ca");
    let server = Server::nginx(Some(&ca.sign("a", &["a.test"])), "");
    let pools = https(&server, &ca, "");
    let proxy = Proxy::start(driver, "", &[], &pools);
    let connections = thousand(&proxy, &server);
    assert!(connections <= 8, "{connections} connections");
    megabytes(&proxy, &server);
    let who = curl(false, &["-H", "Host: a.test", &url(&proxy, "/who")]);
    assert_eq!(who, "HTTP/2.0 https a.test 127.0.0.1 ");
    proxy.stop();
}

/// A pool of one `https://` backend.
fn https(server: &Server, ca: &Authority, more: &str) -> String {
    format!(
        "[[backend_pools]]\naddresses = [\"https://{}\"]\n[backend_pools.tls]\nca_file = \"{}\"\n\
         server_name = \"a.test\"\n{more}\n",
        server.address,
        ca.file().display()
    )
}

fn haproxy_by_prior_knowledge_and_over_tls(driver: &str) {
    let ca = Authority::new("ca");
    let pair = ca.sign("a", &["a.test"]);
    let behind = Server::nginx_of_http1();
    for tls in [None, Some(&pair)] {
        let server = Server::haproxy(tls, behind.address);
        let pools = if tls.is_some() { https(&server, &ca, "") } else { h2c(&[&server], "") };
        let proxy = Proxy::start(driver, "", &[], &pools);
        for http1 in [true, false] {
            load(&url(&proxy, "/many"), 1000, http1);
        }
        let text = curl(false, &[&url(&proxy, "/connections")]);
        let [version, connections, secured] = text.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        assert_eq!((version, secured), ("2", if tls.is_some() { "1" } else { "0" }));
        let connections: u32 = connections.parse().expect("a number");
        assert!(connections <= 8, "{connections} connections");
        megabytes(&proxy, &behind);
        proxy.stop();
    }
}

fn nghttpd_by_prior_knowledge_and_over_tls(driver: &str) {
    let ca = Authority::new("ca");
    let pair = ca.sign("a", &["a.test"]);
    for tls in [None, Some(&pair)] {
        // Fewer streams than there are clients: there will be more connections.
        let server = Server::nghttpd(tls, 5, &["--echo-upload"]);
        let pools = if tls.is_some() { https(&server, &ca, "") } else { h2c(&[&server], "") };
        let proxy = Proxy::start(driver, "", &[], &pools);
        let big = pattern(10_000_000);
        server.keep("big", &big);
        server.keep("many", b"many");
        for http1 in [true, false] {
            load(&url(&proxy, "/many"), 1000, http1);
        }
        let files = TempDir::new("http2-echo");
        let (upload, got) = (files.write("up", &big[..4_000_000]), files.0.join("got"));
        let (upload, to) = (upload.display().to_string(), got.display().to_string());
        for http2 in [false, true] {
            curl(http2, &["-f", "-o", &to, &url(&proxy, "/big")]);
            assert!(std::fs::read(&got).expect("a file") == big, "the bytes differ");
            // It sends back what it gets while it gets it.
            let arguments = ["-f", "-X", "POST", "-T", &upload, "-o", &to, &url(&proxy, "/echo")];
            curl(http2, &arguments);
            assert!(std::fs::read(&got).expect("a file") == big[..4_000_000], "the bytes differ");
        }
        proxy.stop();
    }
}

fn a_pool_chooses_what_is_offered(driver: &str) {
    let ca = Authority::new("ca");
    let server = Server::nginx(Some(&ca.sign("a", &["a.test"])), "");
    for (alpn, version) in [("[\"http/1.1\"]", "1.1"), ("[\"h2\"]", "2.0"), ("[\"http/1.1\", \"h2\"]", "2.0")]
    {
        // nginx prefers HTTP/2, whatever its client does.
        let proxy = Proxy::start(driver, "", &[], &https(&server, &ca, &format!("alpn = {alpn}")));
        let who = curl(false, &[&url(&proxy, "/who")]);
        assert!(who.starts_with(&format!("HTTP/{version} https ")), "{alpn}: {who}");
        proxy.stop();
    }
}
