//! `HttpsRedirector`: curl follows it from plain HTTP to HTTPS, with what it sends.

use std::process::Command;

use crate::address;
use crate::authority::Authority;
use crate::client::Client;
use crate::nginx::{output, program};
use crate::proxy::{config, start};
use crate::scripted_backend::{Backend, ok};

on_each_driver!(curl_follows_to_https, a_trusted_proxy_vouches_for_https);

const REDIRECTOR: &str = "[backend_pools.middlewares.HttpsRedirector]\n";

/// A backend whose responses have the first line of the request, as it came, as their body.
fn echo() -> Backend {
    Backend::start(|mut peer| {
        while let Some(head) = peer.request() {
            if !peer.send(ok(head.lines().next().unwrap_or_default())) {
                return;
            }
        }
    })
}

fn curl_follows_to_https(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), echo());
    let pair = authority.sign("a", &["a.test"]);
    let (http, https) = (address::reserve(), address::reserve());
    let top = format!("http_address = \"{http}\"\nhttps_address = \"{https}\"\n");
    let pools = format!("{REDIRECTOR}[certificates.\"a.test\"]\n{}", pair.local());
    let (daemon, _) = start(&config(driver, &top, backend.address, &pools));
    let target = "/%7Ea//b?c=%7e&d=/../e";
    let url = format!("http://a.test:{}{target}", http.port());
    let curl = |more: &[&str]| {
        let mut command = Command::new(program("curl", "curl"));
        command.args(["-sS", "-m", "20", "--path-as-is", "--cacert"]).arg(authority.file());
        for to in [http, https] {
            command.args(["--resolve", &format!("a.test:{}:{}", to.port(), to.ip())]);
        }
        output(command.args(more).arg(&url))
    };
    let format = "%{http_code} %{redirect_url}";
    let expected = format!("https://a.test:{}{target}", https.port());
    assert_eq!(curl(&["-o", "/dev/null", "-w", format]), format!("301 {expected}"));
    assert_eq!(curl(&["-X", "POST", "-d", "x", "-o", "/dev/null", "-w", format]), format!("308 {expected}"));
    assert_eq!(backend.stats.requests.load(std::sync::atomic::Ordering::SeqCst), 0, "no backend hears of it");
    // What the backend gets is normalised, as of every request.
    let forwarded = "/~a//b?c=%7e&d=/../e";
    let followed = ["-L", "-w", "\n%{http_code} %{num_redirects} %{scheme}"];
    let lines = |method: &str| format!("{method} {forwarded} http/1.1\n200 1 HTTPS");
    assert_eq!(curl(&followed), lines("get"));
    let posted = curl(&[&followed[..], &["-d", "name=value"]].concat());
    assert_eq!(posted, lines("post"), "the method stays");
    assert_eq!(backend.stats.body_bytes.load(std::sync::atomic::Ordering::SeqCst), "name=value".len());
    daemon.stop();
}

fn a_trusted_proxy_vouches_for_https(driver: &str) {
    let backend = echo();
    let text = config(driver, "trusted_proxies = [\"127.0.0.1\"]", backend.address, REDIRECTOR);
    let (daemon, address) = start(&text);
    let mut client = Client::to(address);
    for (fields, status) in
        [("X-Forwarded-Proto: https\r\n", 200), ("X-Forwarded-Proto: http\r\n", 301), ("", 301)]
    {
        client.send(format!("GET /x HTTP/1.1\r\nHost: a.test:8080\r\n{fields}\r\n")).expect("sent");
        let got = client.response(false).expect("a response");
        assert_eq!(got.status, status, "{fields}: {}", got.head);
        assert_eq!(got.field("Location"), (status == 301).then_some("https://a.test/x"), "{}", got.head);
    }
    client.send("GET /x HTTP/1.0\r\n\r\n").expect("sent");
    assert_eq!(client.response(false).expect("a response").status, 400);
    daemon.stop();
}
