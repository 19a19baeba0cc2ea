//! `HttpsRedirector` in a pool of its own making: what is redirected, where to, and what passes.

use std::sync::Arc;

use proptest::prelude::*;
use ruststrom_core::Shared;
use ruststrom_core::config::{self as model, Config, ListenerKind};
use ruststrom_core::shared::HttpChallenge;

use crate::hooks::nothing_left;
use crate::two_wires::{PAIRS, Rig, Speaks, config as plain_config};

const HTTP1: (Speaks, Speaks) = (Speaks::Http1, Speaks::Http1);

fn redirecting(top: &str, pool: &str) -> Config {
    let mut config = plain_config(top, pool);
    Arc::make_mut(&mut config.pools[0]).middlewares = vec![model::Middleware::HttpsRedirector];
    config
}

fn rig(pair: (Speaks, Speaks), config: Config) -> Rig {
    Rig::new(config, Arc::new(Shared::new("lb", 1)), pair)
}

/// An HTTPS listener with this name and port.
fn https(config: &mut Config, name: &str, port: u16) {
    let listener = model::Listener {
        name: name.into(),
        address: ([127, 0, 0, 1], port).into(),
        kind: ListenerKind::Https,
        explicit: true,
    };
    config.listeners.push(listener);
}

/// Status and `Location` of the response to one head.
fn answer(rig: &mut Rig, head: &str) -> (String, Option<String>) {
    let c = rig.client();
    let far = rig.ask(c, head, true);
    let got = rig.message(far).head;
    let location = got.lines().find_map(|line| line.strip_prefix("Location: ")).map(str::to_owned);
    (got.split(' ').nth(1).unwrap_or_default().to_owned(), location)
}

#[test]
fn requests_of_plain_http_are_sent_to_the_same_place() {
    let table: &[(&str, &str, &str)] = &[
        ("GET / HTTP/1.1\r\nHost: a.test", "301", "https://a.test/"),
        ("HEAD /x HTTP/1.1\r\nHost: A.test:80", "301", "https://A.test/x"),
        (
            "GET /%7Ea/%2e%2E/b/./c?d=%7E&../e HTTP/1.1\r\nHost: a.test:8080",
            "301",
            "https://a.test/%7Ea/%2e%2E/b/./c?d=%7E&../e",
        ),
        ("GET //evil.test/%5c HTTP/1.1\r\nHost: a.test", "301", "https://a.test//evil.test/%5c"),
        ("GET /? HTTP/1.1\r\nHost: [2001:db8::1]:80", "301", "https://[2001:db8::1]/?"),
        ("GET http://b.test:80/x/../y?z HTTP/1.1\r\nHost: a.test", "301", "https://b.test/x/../y?z"),
        ("GET http://b.test?q HTTP/1.1\r\nHost: b.test", "301", "https://b.test/?q"),
        ("GET /x HTTP/1.0\r\nHost: a.test", "301", "https://a.test/x"),
        ("POST /x HTTP/1.1\r\nHost: a.test", "308", "https://a.test/x"),
        ("DELETE /x HTTP/1.1\r\nHost: a.test", "308", "https://a.test/x"),
        ("get /x HTTP/1.1\r\nHost: a.test", "308", "https://a.test/x"),
        ("OPTIONS * HTTP/1.1\r\nHost: a.test", "308", "https://a.test"),
        ("OPTIONS http://b.test HTTP/1.1\r\nHost: b.test", "308", "https://b.test"),
        // From nobody who is trusted.
        ("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: https", "301", "https://a.test/"),
    ];
    for (head, status, location) in table {
        let mut rig = rig(HTTP1, redirecting("", ""));
        let got = answer(&mut rig, &format!("{head}\r\n\r\n"));
        assert_eq!(got, ((*status).to_owned(), Some((*location).to_owned())), "{head}");
        assert!(rig.backend_conns.is_empty(), "no backend hears of it");
        nothing_left(&mut rig);
    }
}

#[test]
fn both_wires_redirect_and_a_body_is_not_waited_for() {
    for pair in PAIRS {
        let mut rig = rig(pair, redirecting("", ""));
        let c = rig.client();
        let head = "POST /up?%41 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n";
        let far = rig.ask(c, head, false);
        let got = rig.message(far);
        assert!(got.ended && got.head.starts_with("HTTP/1.1 308 "), "{pair:?}: {got:?}");
        assert!(got.head.contains("Location: https://a.test/up?%41\r\n"), "{pair:?}: {}", got.head);
        nothing_left(&mut rig);
    }
}

#[test]
fn challenges_are_answered_and_not_redirected() {
    let shared = Arc::new(Shared::new("lb", 1));
    shared
        .set_http_challenges(vec![HttpChallenge { token: "token".into(), answer: Arc::from(&b"proof"[..]) }]);
    let mut rig = Rig::new(redirecting("", ""), shared, HTTP1);
    let c = rig.client();
    let ask =
        |token: &str| format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let far = rig.ask(c, &ask("token"), true);
    let got = rig.message(far);
    assert!(got.head.starts_with("HTTP/1.1 200 ") && got.body == b"proof", "{got:?}");
    // One that nobody has set is a path like any other.
    let (status, _) = answer(&mut rig, &ask("other"));
    assert_eq!(status, "301");
}

#[test]
fn a_host_that_is_missing_or_bad_is_refused() {
    for head in [
        "GET / HTTP/1.0\r\n",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: \r\n",
        "GET / HTTP/1.1\r\nHost: a.test/\r\n",
        "GET / HTTP/1.1\r\nHost: a@b.test\r\n",
        "GET / HTTP/1.1\r\nHost: a.test%2fb\r\n",
        "GET / HTTP/1.1\r\nHost: a.test,b.test\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n",
        "GET / HTTP/1.1\r\nHost: a.test:http\r\n",
    ] {
        let mut rig = rig(HTTP1, redirecting("", ""));
        let (status, location) = answer(&mut rig, &format!("{head}\r\n"));
        assert_eq!((status.as_str(), location), ("400", None), "{head}");
    }
}

#[test]
fn the_port_is_that_of_the_pools_https_listener() {
    // Listeners of HTTPS, which ones the pool takes, and the port that is named.
    type Row = (&'static [u16], Option<&'static [u16]>, bool, &'static str);
    let table: &[Row] = &[
        (&[], None, true, ""),
        (&[443], None, true, ""),
        (&[8443, 9443], None, true, ":8443"),
        (&[8443, 9443], Some(&[0, 3]), true, ":9443"),
        // A pool of plain HTTP alone sends its clients to wherever there is HTTPS.
        (&[8443, 9443], Some(&[0]), true, ":8443"),
        (&[8443], None, false, ":8443"),
        (&[0], None, true, ""),
    ];
    for (ports, taken, pool_https, expected) in table {
        let mut config = redirecting("", "");
        let admin = config.listeners.iter().filter(|l| l.kind == ListenerKind::Admin).count();
        assert_eq!(config.listeners.len(), 1 + admin);
        config.listeners.truncate(1);
        config.listeners.push(model::Listener { name: "more".into(), ..config.listeners[0].clone() });
        for port in *ports {
            https(&mut config, &format!("https-{port}"), *port);
        }
        Arc::make_mut(&mut config.pools[0]).listeners = taken.map(<[u16]>::to_vec);
        Arc::make_mut(&mut config.pools[0]).https = *pool_https;
        let mut rig = rig(HTTP1, config);
        let (_, location) = answer(&mut rig, "GET /x HTTP/1.1\r\nHost: a.test:80\r\n\r\n");
        assert_eq!(location, Some(format!("https://a.test{expected}/x")), "{ports:?} {taken:?}");
    }
}

#[test]
fn what_came_by_https_passes() {
    let trusting = "trusted_proxies = [\"192.0.2.7\"]";
    // What a trusted proxy says, how it is connected, and where the client is sent.
    let table: &[(ListenerKind, &str, &str, Option<&str>)] = &[
        (ListenerKind::Https, "", "", None),
        (ListenerKind::Https, "", "X-Forwarded-Proto: http\r\n", None),
        (ListenerKind::Http, trusting, "X-Forwarded-Proto: https\r\n", None),
        (ListenerKind::Http, trusting, "X-Forwarded-Proto:  HTTPS \r\n", None),
        (ListenerKind::Http, trusting, "", Some("https://a.test:8443/")),
        (ListenerKind::Http, trusting, "X-Forwarded-Proto: http\r\n", Some("https://a.test/")),
        (ListenerKind::Https, trusting, "X-Forwarded-Proto: http\r\n", Some("https://a.test/")),
        // One of them was the client's own.
        (
            ListenerKind::Http,
            trusting,
            "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n",
            Some("https://a.test/"),
        ),
        (ListenerKind::Http, trusting, "X-Forwarded-Proto: https, http\r\n", Some("https://a.test/")),
        (
            ListenerKind::Http,
            "trusted_proxies = [\"192.0.2.8\"]",
            "X-Forwarded-Proto: https\r\n",
            Some("https://a.test:8443/"),
        ),
    ];
    for (kind, top, fields, expected) in table {
        let mut config = redirecting(top, "");
        https(&mut config, "https", 8443);
        let mut rig = rig(HTTP1, config);
        let c = rig.client_of(*kind);
        let far = rig.ask(c, &format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"), true);
        let head = rig.message(far).head;
        let location = head.lines().find_map(|line| line.strip_prefix("Location: "));
        assert_eq!(location, *expected, "{kind:?} {top} {fields}: {head}");
        assert_eq!(rig.asked().len(), usize::from(expected.is_none()));
    }
}

proptest! {
    /// Whatever host and target are: a location is that host with that target behind it, or there is none.
    #[test]
    fn a_location_has_the_host_and_the_target_that_were_sent(
        host in "[ -~]{0,12}|[a-c.:0-9]{1,12}|[a-c]{1,5}(:[0-9]{0,5})?",
        absolute in prop::option::of("[a-c./:@%]{0,8}"),
        path in "/[!-~]{0,16}|[a-c?/.%]{0,8}",
    ) {
        let target = absolute.as_ref().map_or_else(|| path.clone(), |other| format!("http://{other}{path}"));
        let mut rig = rig(HTTP1, redirecting("", ""));
        let (status, location) = answer(&mut rig, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        prop_assert!(rig.asked().is_empty(), "{} reaches a backend", target);
        let Some(location) = location else {
            prop_assert_eq!(status, "400");
            return Ok(());
        };
        prop_assert_eq!(status, "301");
        let authority = match target.strip_prefix("http://") {
            Some(rest) => &rest[..rest.find(['/', '?']).unwrap_or(rest.len())],
            None => host.trim(),
        };
        let name = authority.split(':').next().unwrap();
        prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{}", name);
        let sent = target.strip_prefix("http://").map_or(&*target, |rest| &rest[authority.len()..]);
        let slash = if sent.starts_with('?') { "/" } else { "" };
        prop_assert_eq!(location, format!("https://{name}{slash}{sent}"));
    }
}
