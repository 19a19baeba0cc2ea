//! Content that middlewares put in the place of a response's, and `CustomErrorPages`, which does just that.

use std::sync::Arc;

use http::StatusCode;
use ruststrom_core::Shared;
use ruststrom_core::config::{self, Config};
use ruststrom_core::local_reply::{Body, LocalReply};
use ruststrom_core::middleware::factory::{BuiltIn, MiddlewareFactory, Place};
use ruststrom_core::middleware::{Action, Middleware};

use crate::hooks::{Hooks, Replace, Twice, get, letters, nothing_left, rig};
use crate::two_wires::{PAIRS, Rig, Speaks, config as plain_config};

const PAGE: &[u8] = b"<h1>Not here</h1>\n";

/// A configuration with pages for 401, 404, 413, 500 and 502 in its one pool.
fn with_pages(pool: &str) -> Config {
    let pages = "[backend_pools.middlewares.CustomErrorPages]\n401 = \"a.html\"\n404 = \"a.html\"\n\
                 413 = \"a.html\"\n500 = \"e.json\"\n502 = \"e.txt\"\n";
    let mut config = plain_config("", &format!("retries = 0\n{pool}\n{pages}"));
    for file in Arc::make_mut(&mut config.pools[0]).middlewares[0].files_mut() {
        file.content = PAGE.into();
    }
    config
}

fn rig_with(pair: (Speaks, Speaks), config: Config) -> Rig {
    Rig::new(config, Arc::new(Shared::new("lb", 1)), pair)
}

/// The value of a field.
fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find_map(|(n, value)| n.eq_ignore_ascii_case(name).then_some(value))
}

#[test]
fn a_backends_error_gets_the_page_and_keeps_what_is_not_about_its_content() {
    let head = "HTTP/1.1 404 Nope\r\nContent-Type: text/plain\r\nContent-Length: 9\r\nContent-Encoding: gzip\r\n\
        ETag: \"x\"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n\
        Content-Range: bytes */9\r\nContent-Digest: sha-256=:AA==:\r\nDigest: a\r\nRetry-After: 7\r\n\
        Set-Cookie: a=b\r\nAllow: GET\r\nCache-Control: no-store\r\nX-Own: 1\r\n\r\n";
    for pair in PAIRS {
        let mut rig = rig_with(pair, with_pages(""));
        let c = rig.client();
        for round in 0..3 {
            let far = rig.ask(c, &get("/"), true);
            let asked = rig.asked()[0];
            rig.respond_at_once(asked, head, b"some gzip");
            let got = rig.message(far);
            assert!(got.head.starts_with("HTTP/1.1 404 "), "{pair:?}: {}", got.head);
            assert!(got.ended && got.body == PAGE, "{pair:?}: {got:?}");
            let length = PAGE.len().to_string();
            for (name, value) in [
                ("Content-Type", "text/html; charset=utf-8"),
                ("Content-Length", &length),
                ("Retry-After", "7"),
                ("Set-Cookie", "a=b"),
                ("Allow", "GET"),
                ("Cache-Control", "no-store"),
                ("X-Own", "1"),
            ] {
                assert_eq!(field(&got.head, name), Some(value), "{pair:?} {name}: {}", got.head);
                let count = got.head.lines().filter(|l| l.to_lowercase().starts_with(&name.to_lowercase()));
                assert_eq!(count.count(), 1, "{pair:?} {name}: {}", got.head);
            }
            for name in [
                "Content-Encoding",
                "ETag",
                "Last-Modified",
                "Accept-Ranges",
                "Content-Range",
                "Content-Digest",
                "Digest",
            ] {
                assert_eq!(field(&got.head, name), None, "{pair:?}: {}", got.head);
            }
            rig.forget(far);
            rig.forget(asked);
            if pair.1 == Speaks::Http1 {
                assert_eq!(rig.backend_conns.len(), 1, "{pair:?}: the connection goes on, round {round}");
            }
        }
        assert_eq!(rig.proxy.observer_mut().records, [(404, None); 3]);
        nothing_left(&mut rig);
    }
}

#[test]
fn other_statuses_and_interim_responses_pass_as_they_are() {
    for pair in PAIRS {
        let mut rig = rig_with(pair, with_pages(""));
        let c = rig.client();
        for status in ["200 OK", "403 No", "503 Later"] {
            let far = rig.ask(c, &get("/"), true);
            let asked = rig.asked()[0];
            let head = format!("HTTP/1.1 {status}\r\nETag: \"x\"\r\nContent-Length: 4\r\n\r\n");
            rig.respond_at_once(asked, &head, b"body");
            let got = rig.message(far);
            assert!(got.head.starts_with(&format!("HTTP/1.1 {}", &status[..3])), "{pair:?}: {}", got.head);
            assert_eq!((&got.body[..], field(&got.head, "etag")), (&b"body"[..], Some("\"x\"")), "{pair:?}");
            rig.forget(far);
            rig.forget(asked);
        }
        nothing_left(&mut rig);
    }
}

#[test]
fn a_body_that_never_ends_is_not_waited_for() {
    for pair in PAIRS {
        let mut rig = rig_with(pair, with_pages(""));
        let c = rig.client();
        for _ in 0..2 {
            let far = rig.ask(c, &get("/"), true);
            let asked = *rig.asked().last().unwrap();
            rig.respond_head(asked, "HTTP/1.1 404 Nope\r\nTransfer-Encoding: chunked\r\n\r\n");
            let got = rig.message(far);
            assert!(got.ended && got.body == PAGE, "{pair:?}: {got:?}");
            assert_eq!(field(&got.head, "content-length"), Some("18"), "{}", got.head);
            assert_eq!(field(&got.head, "transfer-encoding"), None, "{}", got.head);
            nothing_left(&mut rig);
            rig.forget(far);
            rig.forget(asked);
        }
        if pair.1 == Speaks::Http1 {
            assert_eq!(rig.backend_conns.len(), 2, "{pair:?}: the first one was given up");
        }
    }
}

#[test]
fn errors_of_the_proxy_get_pages_too() {
    for pair in PAIRS {
        let mut rig = rig_with(pair, with_pages(""));
        let c = rig.client();
        for method in ["GET", "HEAD"] {
            rig.refused = 1;
            let far = rig.ask(c, &get("/").replacen("GET", method, 1), true);
            let got = rig.message(far);
            assert!(got.head.starts_with("HTTP/1.1 502 "), "{pair:?}: {}", got.head);
            assert_eq!(field(&got.head, "content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(field(&got.head, "content-length"), Some("18"), "{pair:?} {method}: {}", got.head);
            assert!(field(&got.head, "proxy-status").is_some_and(|why| why.contains("connect_refused")));
            assert_eq!(got.body, if method == "GET" { PAGE } else { b"" }, "{pair:?}");
            rig.forget(far);
        }
        nothing_left(&mut rig);
    }
}

/// RFC 9110 §9.3.2: what a GET would get, without content.
#[test]
fn a_backends_response_to_head_has_the_length_of_the_page() {
    for pair in PAIRS {
        let mut rig = rig_with(pair, with_pages(""));
        let c = rig.client();
        for _ in 0..2 {
            let far = rig.ask(c, &get("/").replacen("GET", "HEAD", 1), true);
            let asked = rig.asked()[0];
            rig.respond_at_once(
                asked,
                "HTTP/1.1 500 Oops\r\nContent-Length: 99999\r\nETag: \"x\"\r\n\r\n",
                b"",
            );
            let got = rig.message(far);
            assert_eq!(field(&got.head, "content-length"), Some("18"), "{pair:?}: {}", got.head);
            assert_eq!(field(&got.head, "content-type"), Some("application/json"), "{}", got.head);
            assert_eq!(field(&got.head, "etag"), None, "{}", got.head);
            assert!(got.body.is_empty() && !got.reset, "{pair:?}: {got:?}");
            rig.forget(far);
            rig.forget(asked);
        }
        nothing_left(&mut rig);
    }
}

#[test]
fn a_client_that_is_still_sending_reads_the_page() {
    for pair in PAIRS {
        let mut rig = rig_with(pair, with_pages(""));
        let c = rig.client();
        let far = rig.ask(c, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 500000\r\n\r\n", false);
        rig.send(far, &letters(1000));
        let asked = rig.asked()[0];
        rig.respond_at_once(asked, "HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\n\r\n", b"no\n");
        let got = rig.message(far);
        assert!(got.head.starts_with("HTTP/1.1 413 "), "{pair:?}: {got:?}");
        assert!(got.ended && got.body == PAGE, "{pair:?}: {got:?}");
        rig.send(far, &letters(1000));
        nothing_left(&mut rig);
    }
}

#[test]
fn a_sticky_cookie_is_set_with_the_page() {
    for pair in PAIRS {
        let strategy = "strategy.StickyCookie = { cookie_name = \"S\", secure = false }";
        let mut rig = rig_with(pair, with_pages(strategy));
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let asked = rig.asked()[0];
        rig.respond_at_once(asked, "HTTP/1.1 404 Nope\r\nContent-Length: 0\r\n\r\n", b"");
        let got = rig.message(far);
        assert_eq!(got.body, PAGE);
        assert!(field(&got.head, "set-cookie").is_some_and(|c| c.starts_with("S=")), "{}", got.head);
    }
}

/// The handshake of NTLM needs its connection, and no browser shows its first two responses.
#[test]
fn challenges_that_belong_to_a_connection_pass() {
    for (challenge, replaced) in [
        ("NTLM", false),
        ("negotiate TlRMTVNTUAAC", false),
        ("Basic realm=\"a\", Negotiate", false),
        ("Basic realm=\"a\"", true),
        ("Negotiator x=\"a\"", true),
    ] {
        let mut rig = rig_with((Speaks::Http1, Speaks::Http1), with_pages(""));
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let asked = rig.asked()[0];
        let head = format!(
            "HTTP/1.1 401 Who\r\nWWW-Authenticate: {challenge}\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n"
        );
        rig.respond_at_once(asked, &head, b"no\n");
        let got = rig.message(far);
        assert_eq!(got.body == PAGE, replaced, "{challenge}: {got:?}");
        assert_eq!(field(&got.head, "www-authenticate"), Some(challenge), "{}", got.head);
    }
}

/// `CustomErrorPages` as built in, and test middlewares for the other kinds in the file.
struct Around(Vec<Hooks>);

impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Around")
    }
}

impl MiddlewareFactory for Around {
    fn make(&self, configured: &config::Middleware, place: &Place<'_>) -> Option<Box<dyn Middleware>> {
        match configured {
            config::Middleware::MaxBodySize { limit } => Some(Box::new(self.0[*limit as usize].clone())),
            other => BuiltIn.make(other, place),
        }
    }
}

#[test]
fn what_stands_after_it_gets_pages_and_what_stands_before_it_sees_them() {
    let refusing = |path: &'static str| {
        Hooks::new().request(move |ctx| match ctx.request.path() == path.as_bytes() {
            true => {
                Action::reply(LocalReply::text(StatusCode::NOT_FOUND, b"own text\n").with_field("X-Own", "1"))
            }
            false => Action::Continue,
        })
    };
    let outer = refusing("/outer").response(|ctx, head| {
        assert!(head.fields().named(b"content-encoding").next().is_none());
        ctx.transform(Twice::boxed(b'!'));
    });
    // What it puts into the way of a body that nobody will see is dropped.
    let inner =
        refusing("/inner").response(|ctx, _| ctx.transform(Replace::boxed(&b"inner".as_slice().into())));
    for pair in PAIRS {
        let mut config = with_pages("");
        let stand_in = |limit| config::Middleware::MaxBodySize { limit };
        Arc::make_mut(&mut config.pools[0]).middlewares.insert(0, stand_in(0));
        Arc::make_mut(&mut config.pools[0]).middlewares.push(stand_in(1));
        let factory = Arc::new(Around(vec![outer.clone(), inner.clone()]));
        let mut rig = Rig::new(config, Arc::new(Shared::with_middlewares("lb", 1, factory)), pair);
        let c = rig.client();
        for (path, expected) in [("/outer", &b"own text\n"[..]), ("/inner", PAGE), ("/backend", PAGE)] {
            let far = rig.ask(c, &get(path), true);
            if path == "/backend" {
                let asked = rig.asked()[0];
                rig.respond_at_once(asked, "HTTP/1.1 404 Nope\r\nContent-Length: 4\r\n\r\n", b"nope");
            }
            let got = rig.message(far);
            let expected = if path == "/outer" { expected.to_vec() } else { Twice::of(expected, b'!') };
            assert_eq!(got.body, expected, "{pair:?} {path}: {}", String::from_utf8_lossy(&got.body));
            assert_eq!(field(&got.head, "x-own").is_some(), path != "/backend", "{}", got.head);
            rig.forget(far);
        }
        nothing_left(&mut rig);
    }
}

#[test]
fn any_middleware_may_replace_content_of_any_length() {
    for len in [0, 1, 5000, 300_000] {
        let page: Arc<[u8]> = letters(len).into();
        let shared = page.clone();
        let replacing = Hooks::new().response(move |ctx, head| {
            ctx.replace_content(head, Body::Shared(shared.clone()), "text/x");
            ctx.transform(Twice::boxed(b'.'));
        });
        for pair in PAIRS {
            for (status, method) in [
                ("200 OK", "GET"),
                ("204 No Content", "GET"),
                ("304 Not Modified", "GET"),
                ("200 OK", "HEAD"),
            ] {
                let mut rig = rig(pair, vec![replacing.clone()]);
                rig.most = 40_000;
                let c = rig.client();
                let far = rig.ask(c, &get("/").replacen("GET", method, 1), true);
                let asked = rig.asked()[0];
                let content = if status == "200 OK" && method == "GET" { &b"four"[..] } else { b"" };
                let length = if status == "200 OK" { "Content-Length: 4\r\n" } else { "" };
                rig.respond_at_once(
                    asked,
                    &format!("HTTP/1.1 {status}\r\n{length}ETag: \"x\"\r\n\r\n"),
                    content,
                );
                let got = rig.message(far);
                let replaced = status == "200 OK";
                assert_eq!(field(&got.head, "etag").is_none(), replaced, "{pair:?}: {}", got.head);
                let expected = if content.is_empty() { Vec::new() } else { Twice::of(&page, b'.') };
                assert!(got.body == expected && !got.reset, "{pair:?} {status} {method}: {}", got.body.len());
                nothing_left(&mut rig);
            }
        }
    }
}
