//! Requests that wait for what the driver finds out: once, several times, in vain; and the admin listener's
//! pages, which come the same way.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use ruststrom_core::config::{CredentialSource, ListenerKind, UserList};
use ruststrom_core::local_reply::LocalReply;
use ruststrom_core::middleware::Action;
use ruststrom_core::{Cause, LookupResult, Query, Secret, Waiting};

use crate::hooks::{Hooks, Trace, config, get, letters, nothing_left, ok, rig, shared, tracing};
use crate::two_wires::{Far, PAIRS, Rig, Speaks};

fn resolve(host: &str) -> Query {
    Query::Resolve { host: host.into(), port: 389 }
}

fn authenticate() -> Query {
    let list = UserList::of_file(format!("ada:$6$salt${}", "x".repeat(86)).as_bytes()).unwrap();
    let source = Arc::new(CredentialSource::Users(list));
    let (_, wanted) = Waiting::new();
    Query::Authenticate { source, user: "ada".into(), password: Secret("love".into()), wanted }
}

fn addresses() -> LookupResult {
    LookupResult::Addresses(vec!["192.0.2.9:389".parse().unwrap()])
}

/// Looks up a directory, then asks it; whom it does not know is sent away.
fn asks_twice() -> Hooks {
    Hooks::new().request(|_| Action::look_up(resolve("ldap.test"))).lookup(|ctx, result| match result {
        LookupResult::Addresses(_) => {
            *ctx.state::<u32>() += 1;
            Action::look_up(authenticate())
        }
        LookupResult::Authenticated(true) => {
            assert_eq!(*ctx.state::<u32>(), 1, "what it kept over the lookups");
            ctx.request.set_field(b"X-User", b"ada").unwrap();
            Action::Continue
        }
        LookupResult::Authenticated(false) => {
            Action::reply(LocalReply::text(StatusCode::UNAUTHORIZED, b"who?\n"))
        }
        _ => Action::reply(LocalReply::error(Cause::LookupFailed)),
    })
}

fn post(rig: &mut Rig) -> Far {
    let c = rig.client();
    let far = rig.ask(c, "POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n", false);
    rig.send(far, b"hello");
    rig.end(far, "");
    far
}

#[test]
fn a_request_waits_for_two_lookups_of_one_middleware_and_goes_on_as_it_was() {
    for pair in PAIRS {
        let trace = Trace::default();
        let chain = vec![tracing("a", &trace), asks_twice(), tracing("b", &trace)];
        let mut rig = rig(pair, chain);
        let far = post(&mut rig);
        for (query, result) in
            [(resolve("ldap.test"), addresses()), (authenticate(), LookupResult::Authenticated(true))]
        {
            assert_eq!(rig.lookups.len(), 1);
            let (id, asked) = rig.lookups[0].clone();
            assert_eq!(asked, query);
            assert_eq!(
                trace.take().len(),
                usize::from(query == resolve("ldap.test")),
                "no further than here"
            );
            assert!(rig.backend_conns.is_empty(), "nothing happens meanwhile");
            if pair.0 == Speaks::Http1 {
                assert!(!rig.proxy.wants(far.0).recv);
            }
            rig.answer_lookup(result.clone());
            // What comes again, or too late, changes nothing.
            rig.proxy.handle_lookup(id, result, rig.now);
            rig.run();
        }
        assert!(rig.lookups.is_empty());
        if pair.0 == Speaks::Http1 {
            rig.send(far, b"hello");
        }
        let backend = rig.asked()[0];
        let got = rig.message(backend);
        assert!(got.head.starts_with("POST /a HTTP/1.1\r\nHost: a.test\r\n"), "{pair:?}: {}", got.head);
        assert!(
            got.head.contains("X-User: ada\r\n") && got.head.contains("Content-Length: 5\r\n"),
            "{}",
            got.head
        );
        assert!(got.ended && got.body == b"hello", "{pair:?}: {got:?}");
        assert_eq!(trace.take(), ["b in"]);
        rig.respond(backend, &ok(1), b"x");
        assert_eq!(rig.message(far).body, b"x");
        assert_eq!(rig.proxy.observer_mut().records, [(200, None)]);
        nothing_left(&mut rig);
    }
}

#[test]
fn middlewares_ask_one_after_the_other() {
    for pair in PAIRS {
        let asking = |host: &'static str| Hooks::new().request(move |_| Action::look_up(resolve(host)));
        let mut rig = rig(pair, vec![asking("one.test"), asking("two.test")]);
        let far = post(&mut rig);
        for host in ["one.test", "two.test"] {
            assert_eq!(rig.lookups.len(), 1);
            assert_eq!(rig.lookups[0].1, resolve(host));
            rig.answer_lookup(addresses());
        }
        if pair.0 == Speaks::Http1 {
            rig.send(far, b"hello");
        }
        let got = rig.message(rig.asked()[0]);
        assert!(got.ended && got.body == b"hello", "{pair:?}: {got:?}");
    }
}

#[test]
fn two_streams_wait_for_lookups_of_their_own() {
    let pair = (Speaks::Toy, Speaks::Toy);
    let mut rig = rig(pair, vec![asks_twice()]);
    let c = rig.client();
    let (one, two) = (rig.ask(c, &get("/1"), true), rig.ask(c, &get("/2"), true));
    assert_eq!(rig.lookups.len(), 2);
    rig.lookups.swap(0, 1);
    rig.answer_lookup(addresses());
    rig.lookups.swap(0, 1);
    rig.answer_lookup(LookupResult::Authenticated(true));
    assert_eq!(rig.asked().len(), 1, "the second goes on while the first still waits");
    let backend = rig.asked()[0];
    assert!(rig.message(backend).head.starts_with("GET /2 "));
    rig.respond(backend, &ok(1), b"2");
    assert_eq!(rig.message(two).body, b"2");
    rig.answer_lookup(addresses());
    rig.answer_lookup(LookupResult::Authenticated(false));
    assert!(rig.message(one).head.starts_with("HTTP/1.1 401 "));
    assert_eq!(rig.proxy.observer_mut().records, [(200, None), (401, None)]);
    nothing_left(&mut rig);
}

#[test]
fn a_lookup_may_fail_or_never_end() {
    type Then = fn(&mut Rig);
    let table: [Then; 4] = [
        |rig| rig.answer_lookup(LookupResult::Failed("no".into())),
        |rig| rig.advance(Duration::from_millis(20_100)),
        // The second lookup has its whole time, whenever the first one ended.
        |rig| {
            rig.advance(Duration::from_secs(19));
            rig.answer_lookup(addresses());
            rig.advance(Duration::from_secs(19));
            assert_eq!(rig.proxy.counts().lookups, 1);
            rig.advance(Duration::from_millis(1_100));
        },
        |rig| {
            rig.answer_lookup(addresses());
            rig.answer_lookup(LookupResult::Failed("no".into()));
        },
    ];
    for pair in PAIRS {
        for then in table {
            let trace = Trace::default();
            let mut rig = rig(pair, vec![tracing("a", &trace), asks_twice(), tracing("b", &trace)]);
            let c = rig.client();
            let far = rig.ask(c, &get("/"), true);
            let first = rig.lookups[0].0;
            rig.advance(Duration::ZERO);
            assert!(rig.message(far).head.is_empty());
            then(&mut rig);
            let got = rig.message(far);
            assert!(got.head.starts_with("HTTP/1.1 503 ") && got.ended, "{pair:?}: {got:?}");
            assert!(got.head.contains("details=\"lookup_failed\""), "{}", got.head);
            assert_eq!(trace.take(), ["a in", "a out 503"]);
            assert_eq!(rig.proxy.observer_mut().records, [(503, Some(Cause::LookupFailed))]);
            nothing_left(&mut rig);
            rig.proxy.handle_lookup(first, addresses(), rig.now);
            rig.run();
            assert!(rig.backend_conns.is_empty());
        }
    }
}

#[test]
fn a_lookup_may_outlive_its_client() {
    for pair in PAIRS {
        for reset in [false, true] {
            if reset && pair.0 == Speaks::Http1 {
                continue;
            }
            let mut rig = rig(pair, vec![asks_twice()]);
            let c = rig.client();
            let far = rig.ask(c, &get("/"), true);
            if reset {
                rig.reset(far)
            } else {
                rig.lose(c)
            }
            assert_eq!(rig.proxy.observer_mut().records, [(499, Some(Cause::ClientClosed))], "{pair:?}");
            nothing_left(&mut rig);
            rig.answer_lookup(addresses());
            assert!(rig.lookups.is_empty() && rig.backend_conns.is_empty());
        }
    }
}

#[test]
fn the_admin_listener_gets_its_metrics_by_a_lookup() {
    let page = letters(300_000);
    // That listener speaks HTTP/1.1 alone.
    for pair in PAIRS.into_iter().filter(|pair| pair.0 != Speaks::Http2) {
        for most in [usize::MAX, 1000] {
            let trace = Trace::default();
            let mut rig = rig(pair, vec![tracing("a", &trace)]);
            rig.most = most;
            let c = rig.client_of(ListenerKind::Admin);
            for method in ["GET", "HEAD", "GET"] {
                let far = rig.ask(c, &get("/metrics").replacen("GET", method, 1), true);
                assert_eq!(rig.lookups.len(), 1);
                assert_eq!(rig.lookups[0].1, Query::Metrics { open_metrics: false });
                let (content_type, body) = ("text/plain; version=0.0.4", page.as_slice().into());
                rig.answer_lookup(LookupResult::Page { content_type, body });
                let got = rig.message(far);
                assert!(got.head.starts_with("HTTP/1.1 200 OK\r\n"), "{pair:?}: {}", got.head);
                for line in [
                    "Content-Type: text/plain; version=0.0.4\r\n",
                    "Content-Length: 300000\r\n",
                    "Cache-Control: no-store\r\n",
                ] {
                    assert!(got.head.contains(line), "{}", got.head);
                }
                if method == "HEAD" {
                    assert!(got.body.is_empty());
                } else {
                    assert!(got.ended && got.body == page, "{pair:?} by {most}: {}", got.body.len());
                }
                rig.forget(far);
            }
            assert_eq!(trace.take(), [""; 0], "no pool's middlewares stand before it");
            assert!(rig.proxy.observer_mut().records.is_empty());
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn what_a_scraper_accepts_says_which_text_it_gets() {
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                      application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
    let table = [
        ("", false),
        ("Accept: */*\r\n", false),
        ("Accept: text/html, application/xhtml+xml, */*;q=0.8\r\n", false),
        ("Accept: application/openmetrics-text\r\n", true),
        ("Accept: APPLICATION/OpenMetrics-Text ; version=1.0.0 ; Q=0.5\r\n", true),
        (&format!("Accept: {prometheus}\r\n"), true),
        ("Accept: application/openmetrics-text;q=0.5, text/plain;version=0.0.4\r\n", false),
        ("Accept: text/plain;q=0.3\r\nAccept: application/openmetrics-text;q=0.3\r\n", true),
        ("Accept: application/openmetrics-text;q=0\r\n", false),
        ("Accept: application/openmetrics-text;q=many\r\n", false),
        ("Accept: application/openmetrics-textual\r\n", false),
    ];
    for (line, open_metrics) in table {
        let mut rig = rig(PAIRS[0], vec![]);
        let c = rig.client_of(ListenerKind::Admin);
        rig.ask(c, &get("/metrics").replacen("\r\n\r\n", &format!("\r\n{line}\r\n"), 1), true);
        assert_eq!(rig.lookups[0].1, Query::Metrics { open_metrics }, "{line}");
    }
}

#[test]
fn pages_of_the_admin_listener() {
    let table = [
        ("GET", "/healthz", "HTTP/1.1 200 ", "ok\n"),
        ("GET", "/readyz", "HTTP/1.1 200 ", "ready\n"),
        ("HEAD", "/readyz", "HTTP/1.1 200 ", ""),
        ("GET", "/", "HTTP/1.1 404 ", "not here: try /healthz, /readyz, /metrics or /status\n"),
        ("GET", "/metrics/", "HTTP/1.1 404 ", "not here: try /healthz, /readyz, /metrics or /status\n"),
        ("POST", "/metrics", "HTTP/1.1 405 ", "only GET and HEAD here\n"),
        ("DELETE", "/status", "HTTP/1.1 405 ", "only GET and HEAD here\n"),
    ];
    let shared = shared(1, vec![]);
    let mut rig = Rig::new(config("", "retries = 0", 0), shared.clone(), PAIRS[0]);
    for (method, path, status, body) in table {
        let c = rig.client_of(ListenerKind::Admin);
        let far = rig.ask(c, &get(path).replacen("GET", method, 1), true);
        let got = rig.message(far);
        assert!(got.head.starts_with(status), "{method} {path}: {}", got.head);
        assert_eq!(got.head.contains("Allow: GET, HEAD\r\n"), status.contains("405"), "{}", got.head);
        assert_eq!(String::from_utf8_lossy(&got.body), body, "{method} {path}");
    }
    rig.proxy.announce_drain();
    let c = rig.client_of(ListenerKind::Admin);
    for (path, status, body) in
        [("/healthz", "HTTP/1.1 200 ", "ok\n"), ("/readyz", "HTTP/1.1 503 ", "leaving\n")]
    {
        let far = rig.ask(c, &get(path), true);
        let got = rig.message(far);
        assert!(got.head.starts_with(status), "{path}: {}", got.head);
        assert_eq!(String::from_utf8_lossy(&got.body), body);
        rig.forget(far);
    }
}

#[test]
fn without_metrics_there_is_no_page() {
    type Then = fn(&mut Rig);
    let table: [(Then, &str); 3] = [
        (|rig| rig.answer_lookup(LookupResult::Failed("there are none".into())), "HTTP/1.1 503 "),
        (|rig| rig.answer_lookup(addresses()), "HTTP/1.1 500 "),
        (|rig| rig.advance(Duration::from_millis(20_100)), "HTTP/1.1 503 "),
    ];
    for pair in [PAIRS[0], PAIRS[1]] {
        for (then, status) in table {
            let mut rig = rig(pair, vec![]);
            let c = rig.client_of(ListenerKind::Admin);
            let far = rig.ask(c, &get("/metrics"), true);
            then(&mut rig);
            let got = rig.message(far);
            assert!(got.head.starts_with(status) && got.ended, "{pair:?}: {got:?}");
            nothing_left(&mut rig);
        }
        let mut rig = rig(pair, vec![]);
        let c = rig.client_of(ListenerKind::Admin);
        let far = rig.ask(c, &get("/metrics").replacen("GET", "POST", 1), true);
        assert!(rig.message(far).head.starts_with("HTTP/1.1 405 "));
        assert!(rig.lookups.is_empty());
        let far = rig.ask(c, &get("/metrics/"), true);
        assert!(rig.lookups.is_empty());
        assert!(rig.message(far).ended);
    }
}
