//! TLS to backends by `openssl s_server`, by Python's `ssl`, and by those that do something else: who is
//! believed, and which cause it has if nobody is.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::authority::Authority;
use crate::client::{Client, Response, WAIT};
use crate::nginx::Nginx;
use crate::openssl::Server;
use crate::proxy::{Proxy, field};
use crate::python_backend::{Listener, Manner, PythonBackends};
use crate::scripted_backend::Backend;

on_each_driver!(
    certificates_that_are_believed_and_those_that_are_not,
    what_is_no_good_tls_has_a_cause_of_its_own,
    only_a_whole_response_looks_whole,
    versions_of_openssl,
    another_backend_is_tried_first,
    a_certificate_may_be_replaced_at_any_time,
    health_checks_say_why_tls_fails,
);

/// A pool for the path prefix `/name`.
fn pool(name: &str, backends: &[SocketAddr], tls: &str) -> String {
    let addresses: Vec<String> = backends.iter().map(|b| format!("\"https://{b}\"")).collect();
    format!(
        "[[backend_pools]]\nname = \"{name}\"\nmatcher = \"PathPrefix('/{name}')\"\naddresses = [{}]\n\
         [backend_pools.tls]\n{tls}\n",
        addresses.join(", ")
    )
}

/// The settings of TLS with this authority and more.
fn trusting(ca: &Path, more: &str) -> String {
    format!("ca_file = \"{}\"\n{more}", ca.display())
}

fn get(proxy: &Proxy, target: &str) -> Response {
    Client::to(proxy.address).get(target).unwrap_or_else(|e| panic!("{target}: {e}"))
}

/// The status of a response, and the cause that its body names.
fn outcome(response: &Response) -> (u16, String) {
    (response.status, response.text().trim().rsplit(' ').next().unwrap_or_default().to_owned())
}

/// What it is, its addresses, the settings of TLS, and what comes of a request: the body or a cause.
type Case<'a> = (&'a str, &'a [SocketAddr], &'a str, Result<&'a str, &'a str>);

fn certificates_that_are_believed_and_those_that_are_not(driver: &str) {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let by_name = ca.sign("by-name", &["a.test", "*.wild.test"]);
    let by_address = ca.sign("by-address", &["127.0.0.1"]);
    let common_name_only = ca.sign("a.test", &[]);
    let expired = ca.sign_expired("expired", &["a.test"]);
    let unknown = other.sign("unknown", &["a.test"]);
    let itself = other.self_signed("itself", &["a.test"]);
    let for_clients = ca.sign_client("for-clients");
    let alice = ca.sign_client("alice");
    let tells = |pair| Listener::new(Manner::Tells, pair);
    let file = ca.file();
    let demands = |version| Listener { clients: Some(&file), version, ..tells(&by_name) };
    let backends = PythonBackends::start(&[
        tells(&by_name),
        tells(&by_address),
        tells(&common_name_only),
        tells(&expired),
        tells(&unknown),
        tells(&itself),
        tells(&for_clients),
        demands("2"),
        demands("3"),
    ]);
    let at = |n: usize| &backends.addresses[n..=n];
    let named = trusting(&file, "server_name = \"a.test\"");
    let with_alice = format!(
        "{named}\nclient_certificate = \"{}\"\nclient_key = \"{}\"",
        alice.certificate.display(),
        alice.key.display()
    );
    let wild = trusting(&file, "server_name = \"B.wild.test\"");
    let two_labels = trusting(&file, "server_name = \"a.b.wild.test\"");
    let elsewhere = trusting(&file, "server_name = \"127.0.0.2\"");
    let of_itself = trusting(&itself.certificate, "server_name = \"a.test\"");
    let cases: [Case<'_>; 16] = [
        ("name", at(0), &named, Ok("TLSv1.3 a.test resumed=False subject=")),
        ("wild", at(0), &wild, Ok("TLSv1.3 b.wild.test")),
        ("address", at(1), &trusting(&file, ""), Ok("TLSv1.3 None")),
        ("demanded-2", at(7), &with_alice, Ok("TLSv1.2 a.test resumed=False subject=alice")),
        ("demanded-3", at(8), &with_alice, Ok("TLSv1.3 a.test resumed=False subject=alice")),
        ("pinned", at(5), &of_itself, Ok("TLSv1.3 a.test")),
        ("unverified", at(3), "verify = false", Ok("TLSv1.3 None")),
        ("two-labels", at(0), &two_labels, Err("backend_tls_wrong_name")),
        ("no-address", at(0), &trusting(&file, ""), Err("backend_tls_wrong_name")),
        ("elsewhere", at(1), &elsewhere, Err("backend_tls_wrong_name")),
        ("common-name", at(2), &named, Err("backend_tls_wrong_name")),
        ("expired", at(3), &named, Err("backend_tls_expired")),
        ("unknown", at(4), &named, Err("backend_tls_unknown_ca")),
        ("itself", at(5), &named, Err("backend_tls_unknown_ca")),
        ("for-clients", at(6), &named, Err("backend_tls_bad_certificate")),
        // TLS 1.2 has no alert of its own for it.
        ("nothing-shown", at(7), &named, Err("backend_tls_refused")),
    ];
    let pools: String = cases.iter().map(|(name, at, tls, _)| pool(name, at, tls)).collect();
    let pools = format!("{pools}{}", pool("not-shown", at(8), &named));
    let proxy = Proxy::start(driver, "", &[], &pools);
    for (name, _, _, expected) in cases {
        let response = get(&proxy, &format!("/{name}"));
        match expected {
            Ok(text) => {
                assert_eq!(response.status, 200, "{name}: {response:?}");
                assert!(response.text().starts_with(text), "{name}: {}", response.text());
            }
            Err(cause) => {
                assert_eq!(outcome(&response), (502, cause.to_owned()), "{name}");
                let status = response.field("Proxy-Status").expect("why");
                assert!(status.contains(&format!("details=\"{cause}\"")), "{name}: {status}");
                let line = &proxy.logged(&format!("\"target\":\"/{name}\""), 1)[0];
                assert_eq!(field(line, "cause"), cause, "{line}");
            }
        }
    }
    // In TLS 1.3 a client is done before the server has looked at its certificate: the request may be sent
    // then, and the alert comes in front of a reset.
    for _ in 0..20 {
        let response = get(&proxy, "/not-shown");
        assert_eq!(outcome(&response), (502, "backend_tls_client_certificate".into()));
    }
    // The log has the reasons themselves.
    proxy.steps("it gets the alert certificate_expired", 1);
    proxy.steps("it gets the alert unknown_ca", 2);
    proxy.steps("the peer sent the alert handshake_failure", 1);
    proxy.steps("the peer sent the alert certificate_required", 1);
    proxy.stop();
}

fn what_is_no_good_tls_has_a_cause_of_its_own(driver: &str) {
    let ca = Authority::new("ca");
    let pair = ca.sign("a", &["127.0.0.1"]);
    let python =
        PythonBackends::start(&[Listener::new(Manner::Garbage, &pair), Listener::new(Manner::Silent, &pair)]);
    let plain = Nginx::start("plain");
    let speaks_first = Backend::start(|mut peer| {
        peer.send("220 mail.test ESMTP\r\n");
        peer.wait_for_close();
    });
    let closes = Backend::start(|mut peer| _ = peer.byte());
    let resets = Backend::start(|mut peer| {
        peer.byte();
        peer.reset();
    });
    let waits = Backend::start(|mut peer| peer.wait_for_close());
    // A record that says to be a `ServerHello`, and nothing more; an alert, and nothing more.
    let half = Backend::start(|mut peer| {
        peer.byte();
        peer.send(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76");
        peer.wait_for_close();
    });
    let broken = Backend::start(|mut peer| {
        peer.byte();
        peer.send(b"\x16\x03\x03\x00\x08\x02\x00\x00\x04abcd");
        peer.wait_for_close();
    });
    let alert = Backend::start(|mut peer| {
        peer.byte();
        peer.send(b"\x15\x03\x03\x00\x02\x02\x28");
        peer.wait_for_close();
    });
    let cases: [(&str, SocketAddr, u16, &str); 10] = [
        ("plain", plain.address, 502, "backend_tls_not_tls"),
        ("speaks-first", speaks_first.address, 502, "backend_tls_not_tls"),
        ("closes", closes.address, 502, "backend_tls_closed"),
        ("resets", resets.address, 502, "backend_tls_closed"),
        ("waits", waits.address, 504, "connect_timeout"),
        ("half", half.address, 504, "connect_timeout"),
        ("broken", broken.address, 502, "backend_tls_protocol"),
        ("alert", alert.address, 502, "backend_tls_refused"),
        ("garbage", python.addresses[0], 502, "backend_tls_not_tls"),
        ("silent", python.addresses[1], 502, "backend_closed"),
    ];
    let settings = trusting(&ca.file(), "");
    let pools = cases.iter().map(|(name, at, status, _)| {
        let pool = pool(name, &[*at], &settings);
        // Only those that are waited for are in a hurry: nobody else has to be waited for.
        let hurry = "[backend_pools.timeouts]\nconnect = \"500ms\"\n";
        if *status == 504 { pool + hurry } else { pool }
    });
    let proxy = Proxy::start(driver, "timeouts = { connect = \"15s\" }", &[], &pools.collect::<String>());
    for (name, _, status, cause) in cases {
        let begun = Instant::now();
        let response = get(&proxy, &format!("/{name}"));
        assert_eq!(outcome(&response), (status, cause.to_owned()), "{name}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {:?}", begun.elapsed());
    }
    let seen = plain.requests();
    assert!(seen.iter().all(|r| !r.contains("/plain")), "the request was sent in plain text: {seen:?}");
    proxy.stop();
}

fn only_a_whole_response_looks_whole(driver: &str) {
    let ca = Authority::new("ca");
    let pair = ca.sign("a", &["127.0.0.1"]);
    let manners = [Manner::Ends, Manner::Cuts, Manner::Halves];
    let listeners: Vec<Listener<'_>> = ["2", "3"]
        .into_iter()
        .flat_map(|version| manners.map(|manner| Listener { version, ..Listener::new(manner, &pair) }))
        .collect();
    let backends = PythonBackends::start(&listeners);
    let settings = trusting(&ca.file(), "");
    let pools: String = (0..6).map(|i| pool(&format!("p{i}"), &[backends.addresses[i]], &settings)).collect();
    let front = ca.sign("front", &["front.test"]);
    let proxy = Proxy::start(driver, "http_address = \"127.0.0.1:0\"", &[("front.test", &front, "")], &pools);
    let http = proxy.daemon.listens("http");
    let body = "z".repeat(20_000);
    for i in 0..6 {
        let run = |version: &str| {
            let mut client = Client::to(http);
            client.send(format!("GET /p{i} HTTP/{version}\r\nHost: front.test\r\n\r\n")).expect("sent");
            client.response(false)
        };
        if i % 3 == 0 {
            for version in ["1.1", "1.0"] {
                let response = run(version).expect("a whole response");
                assert_eq!((response.status, response.text() == body), (200, true), "{i}: {version}");
            }
            continue;
        }
        // In chunks without the last one, or reset: in no case an end that could be one.
        for version in ["1.1", "1.0"] {
            let cut = run(version).expect_err("half a response");
            assert!(cut.contains("chunk") || cut.contains("body") || cut.contains("after"), "{i}: {cut}");
        }
        for line in proxy.logged(&format!("\"target\":\"/p{i}\""), 2) {
            assert_eq!(field(&line, "cause"), "response_truncated", "{i}: {line}");
        }
    }
    proxy.stop();
}

fn versions_of_openssl(driver: &str) {
    let ca = Authority::new("ca");
    let pair = ca.sign("a", &["a.test"]);
    let rsa = ca.sign_rsa("rsa", &["a.test"]);
    ca.folder.write("file.txt", "HTTP/1.0 200 ok\r\nContent-Type: text/plain\r\n\r\nwhat is in the file\n");
    let server = |pair: &crate::authority::Pair, more: &[&str]| {
        let (certificate, key) = (pair.certificate.display().to_string(), pair.key.display().to_string());
        Server::start(&ca.folder.0, &[&["-cert", &certificate, "-key", &key], more].concat())
    };
    let only_2 = server(&pair, &["-www", "-tls1_2"]);
    let only_3 = server(&pair, &["-www", "-tls1_3"]);
    let rsa_2 = server(&rsa, &["-HTTP", "-tls1_2"]);
    let p_384 = server(&pair, &["-www", "-tls1_3", "-groups", "P-384"]);
    let only_1 = server(&rsa, &["-www", "-tls1", "-cipher", "ALL:@SECLEVEL=0"]);
    let old_suite = server(&rsa, &["-www", "-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"]);
    let settings = trusting(&ca.file(), "server_name = \"a.test\"");
    let all = [&only_2, &only_3, &rsa_2, &p_384, &only_1, &old_suite];
    let pools: String =
        all.iter().enumerate().map(|(i, s)| pool(&format!("p{i}"), &[s.address], &settings)).collect();
    // `-HTTP` serves files by the target.
    let pools = format!("{pools}{}", pool("file.txt", &[rsa_2.address], &settings));
    let proxy = Proxy::start(driver, "", &[], &pools);
    for (i, expected) in
        [(0, "New, TLSv1.2, Cipher is ECDHE-ECDSA"), (1, "New, TLSv1.3"), (3, "New, TLSv1.3")]
    {
        let response = get(&proxy, &format!("/p{i}"));
        assert!(response.status == 200 && response.text().contains(expected), "{i}: {}", response.text());
    }
    let response = get(&proxy, "/file.txt");
    assert_eq!((response.status, &*response.text()), (200, "what is in the file\n"), "{}", rsa_2.output());
    for i in [4, 5] {
        assert_eq!(outcome(&get(&proxy, &format!("/p{i}"))), (502, "backend_tls_refused".into()), "{i}");
    }
    proxy.stop();
}

fn another_backend_is_tried_first(driver: &str) {
    let ca = Authority::new("ca");
    let (good, expired) = (ca.sign("good", &["127.0.0.1"]), ca.sign_expired("expired", &["127.0.0.1"]));
    let backends =
        PythonBackends::start(&[Listener::new(Manner::Tells, &expired), Listener::new(Manner::Tells, &good)]);
    let proxy = Proxy::start(driver, "", &[], &pool("both", &backends.addresses, &trusting(&ca.file(), "")));
    // Nothing of a request was sent: the method does not matter.
    for method in ["GET", "DELETE", "PATCH", "GET"] {
        let mut client = Client::to(proxy.address);
        client.send(format!("{method} /both HTTP/1.1\r\nHost: a.test\r\n\r\n")).expect("sent");
        let response = client.response(false).expect("a response");
        assert_eq!(response.status, 200, "{method}: {response:?}");
    }
    let tried = format!("{}\",\"cause\":\"backend_tls_expired\"", backends.addresses[0]);
    for line in proxy.logged(&tried, 1) {
        assert_eq!((field(&line, "status"), field(&line, "attempts")), ("200", "2"), "{line}");
    }
    proxy.stop();
}

fn a_certificate_may_be_replaced_at_any_time(driver: &str) {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let shown = ca.sign("shown", &["127.0.0.1"]);
    let backends = PythonBackends::start(&[Listener::new(Manner::Tells, &shown)]);
    let proxy = Proxy::start(driver, "", &[], &pool("p", &backends.addresses, &trusting(&ca.file(), "")));
    let replace = |by: &crate::authority::Pair| {
        let copy = |from: &Path, to: &Path| {
            std::fs::copy(from, to).expect("a copy");
        };
        copy(&by.key, &shown.key);
        copy(&by.certificate, &shown.certificate);
    };
    // One connection of a client is one worker, and it keeps one connection to the backend.
    let mut client = Client::to(proxy.address);
    let mut get = || client.get("/p").expect("a response");
    assert_eq!(get().status, 200);
    replace(&other.sign("stranger", &["127.0.0.1"]));
    // What is open stays as it was agreed on.
    assert_eq!(get().status, 200);
    let line = &proxy.logged("\"target\":\"/p\"", 2)[1];
    assert_eq!(field(line, "reused"), "true", "{line}");
    // New connections are with somebody else.
    let until = |status: u16, cause: &str| {
        let begun = Instant::now();
        loop {
            let fresh = Client::to(proxy.address).get("/p").expect("a response");
            if (fresh.status, cause.is_empty() || fresh.text().contains(cause)) == (status, true) {
                return;
            }
            assert!(begun.elapsed() < WAIT, "{status} never comes: {fresh:?}");
            sleep(Duration::from_millis(5));
        }
    };
    until(502, "backend_tls_unknown_ca");
    // Another one of an authority that is known.
    replace(&ca.sign("renewed", &["127.0.0.1"]));
    until(200, "");
    proxy.stop();
}

fn health_checks_say_why_tls_fails(driver: &str) {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let shown = ca.sign("shown", &["127.0.0.1"]);
    let expired = ca.sign_expired("expired", &["127.0.0.1"]);
    let unknown = other.sign("unknown", &["127.0.0.1"]);
    let backends = PythonBackends::start(&[
        Listener::new(Manner::Tells, &shown),
        Listener::new(Manner::Tells, &expired),
        Listener::new(Manner::Tells, &unknown),
    ]);
    let plain = Nginx::start("plain");
    let all = [&backends.addresses[..], &[plain.address]].concat();
    let top = "health_interval = { check_every = 1 }";
    let patient = "[backend_pools.health_config]\ntimeout = 5000\nslow_threshold = 0\n";
    let proxy = Proxy::start(driver, top, &[], &pool("p", &all, &trusting(&ca.file(), patient)));
    for (backend, why) in all[1..].iter().zip(["expired", "unknown_ca", "not_tls"]) {
        proxy.daemon.wait_for(&format!("backend https://{backend} is unhealthy (check: backend_tls_{why})"));
    }
    // They get no requests.
    for _ in 0..8 {
        assert_eq!(get(&proxy, "/p").status, 200);
    }
    assert!(proxy.logged("\"target\":\"/p\"", 8).iter().all(|l| field(l, "attempts") == "1"));
    assert!(
        !proxy.daemon.output().contains(&format!("{} is unhealthy", all[0])),
        "{}",
        proxy.daemon.output()
    );
    // One that gets a good certificate is back.
    std::fs::copy(&shown.key, &expired.key).expect("a copy");
    std::fs::copy(&shown.certificate, &expired.certificate).expect("a copy");
    proxy.daemon.wait_for(&format!("backend https://{} is healthy", all[1]));
    proxy.stop();
}
