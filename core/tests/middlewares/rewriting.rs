//! Other paths, redirects and responses of the proxy's own, as configured, over both wires.

use std::sync::Arc;

use proptest::prelude::*;
use ruststrom_core::Shared;
use ruststrom_core::config::{self, ListenerKind, RespondContent};

use crate::hooks::{get, nothing_left};
use crate::two_wires::{PAIRS, Rig, Speaks, config};

const HTTP1: (Speaks, Speaks) = (Speaks::Http1, Speaks::Http1);

/// A rig whose pool has these middlewares.
fn rig_with(pair: (Speaks, Speaks), top: &str, middlewares: &str) -> Rig {
    let config = config(top, &format!("retries = 0\n{middlewares}"));
    Rig::new(config, Arc::new(Shared::new("lb", 1)), pair)
}

/// Of a head: the target of the request, or the rest of a status line.
fn second_word(head: &str) -> &str {
    head.split(' ').nth(1).expect("a start line")
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find_map(|(n, value)| n.eq_ignore_ascii_case(name).then_some(value))
}

/// What becomes of a target: what the backend gets, or the status of a refusal.
fn rewritten(rig: &mut Rig, target: &str) -> Result<(String, Option<String>), u16> {
    let c = rig.client();
    let far = rig.ask(c, &get(target), true);
    let Some(&asked) = rig.asked().last() else {
        return Err(second_word(&rig.message(far).head).parse().expect("a status"));
    };
    let head = rig.message(asked).head;
    rig.respond_at_once(asked, "HTTP/1.1 204 No Content\r\n\r\n", b"");
    assert!(rig.message(far).head.starts_with("HTTP/1.1 204 "), "{head}");
    rig.forget(asked);
    Ok((second_word(&head).to_owned(), field(&head, "X-Forwarded-Prefix").map(str::to_owned)))
}

#[test]
fn prefixes_are_stripped_by_whole_segments() {
    let strip = "[backend_pools.middlewares.StripPrefix]\nprefixes = [\"/api\", \"/api/v1/\", \"/x\"]";
    let table = [
        ("/api", "/", Some("/api")),
        ("/api/", "/", Some("/api")),
        ("/api?a=/api", "/?a=/api", Some("/api")),
        ("/api/x/y?z", "/x/y?z", Some("/api")),
        ("/apix", "/apix", None),
        ("/API/x", "/API/x", None),
        ("/%61pi/x", "/x", Some("/api")),
        ("/a/../api/x", "/x", Some("/api")),
        ("/api/v1/u", "/u", Some("/api/v1")),
        ("/api//b", "/b", Some("/api")),
        ("/other", "/other", None),
    ];
    for pair in PAIRS {
        let mut rig = rig_with(pair, "", strip);
        for (target, expected, prefix) in table {
            let expected = (expected.to_owned(), prefix.map(str::to_owned));
            assert_eq!(rewritten(&mut rig, target), Ok(expected), "{pair:?} {target}");
        }
        nothing_left(&mut rig);
    }
}

#[test]
fn what_was_stripped_before_comes_first() {
    let strip = "middlewares = [\"a\", \"b\"]\n[middlewares.a.StripPrefix]\nprefixes = \"/a\"\n\
                 [middlewares.b.StripPrefix]\nprefixes = \"/b\"";
    let head = "GET /a/b/c HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Prefix: /outer/\r\n\r\n";
    for pair in PAIRS {
        for (top, expected) in [("", "/a/b"), ("trusted_proxies = \"192.0.2.0/24\"", "/outer/a/b")] {
            let mut rig = rig_with(pair, top, strip);
            let c = rig.client();
            rig.ask(c, head, true);
            let asked = rig.asked()[0];
            let head = rig.message(asked).head;
            assert_eq!(second_word(&head), "/c", "{pair:?}");
            assert_eq!(field(&head, "X-Forwarded-Prefix"), Some(expected), "{pair:?}: {head}");
        }
    }
}

/// A target, and what the backend gets or the status of a refusal.
type Case = (&'static str, Result<&'static str, u16>);

#[test]
fn paths_are_replaced_and_checked_again() {
    let table: &[(&str, &[Case])] = &[
        (
            "[backend_pools.middlewares.AddPrefix]\nprefix = \"/v1/\"",
            &[("/", Ok("/v1/")), ("/a?b", Ok("/v1/a?b")), ("//a", Ok("/v1//a"))],
        ),
        (
            "[backend_pools.middlewares.ReplacePath]\npath = \"/index.html\"",
            &[("/", Ok("/index.html")), ("/a/b?c=d", Ok("/index.html?c=d"))],
        ),
        (
            "[backend_pools.middlewares.ReplacePathRegex]\nregex = '^/old/(?P<rest>.*)$'\nreplacement = '/new/${rest}'",
            &[
                ("/old/a?b=1", Ok("/new/a?b=1")),
                ("/other?/old/", Ok("/other?/old/")),
                ("/old/%2F", Ok("/new/%2F")),
            ],
        ),
        // What a client puts there must not lead out of where the rule leads.
        (
            "[backend_pools.middlewares.ReplacePathRegex]\nregex = '^/x(.*)$'\nreplacement = '/static/$1'",
            &[
                ("/x../secret", Err(400)),
                ("/x./a", Err(400)),
                ("/x..", Err(400)),
                ("/x..a", Ok("/static/..a")),
            ],
        ),
        (
            "[backend_pools.middlewares.ReplacePathRegex]\nregex = '^/x(.*)$'\nreplacement = '/%$1'",
            &[("/x2e2e/a", Err(400)), ("/xzz", Err(400)), ("/x2Fa", Ok("/%2Fa")), ("/x00", Err(400))],
        ),
        (
            "[backend_pools.middlewares.ReplacePathRegex]\nregex = '^/(.*)$'\nreplacement = '$1'",
            &[("/a", Err(500)), ("//a", Ok("/a")), ("/", Err(500)), ("/http://b/", Err(500))],
        ),
        (
            "[backend_pools.middlewares.ReplacePathRegex]\nregex = '^(.*)$'\nreplacement = '$1$1$1$1'",
            &[("/a", Ok("/a/a/a/a"))],
        ),
    ];
    for (middlewares, cases) in table {
        for pair in PAIRS {
            let mut rig = rig_with(pair, "", middlewares);
            for (target, expected) in *cases {
                let found = rewritten(&mut rig, target).map(|(target, _)| target);
                assert_eq!(found, expected.map(str::to_owned), "{pair:?} {middlewares} {target}");
            }
            nothing_left(&mut rig);
        }
    }
    let long = format!("/{}", "a".repeat(7000));
    let mut rig = rig_with(HTTP1, "", table.last().unwrap().0);
    assert_eq!(rewritten(&mut rig, &long), Err(414));
}

#[test]
fn options_of_the_server_have_no_path_to_rewrite() {
    let middlewares = "[backend_pools.middlewares]\nAddPrefix = { prefix = \"/v1\" }\nReplacePath = { path = \"/a\" }\n\
        StripPrefix = { prefixes = \"/b\" }\nReplacePathRegex = { regex = \".*\", replacement = \"/c\" }";
    for pair in PAIRS {
        let mut rig = rig_with(pair, "", middlewares);
        let c = rig.client();
        rig.ask(c, "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", true);
        assert_eq!(second_word(&rig.message(rig.asked()[0]).head), "*", "{pair:?}");
    }
}

#[test]
fn redirects_go_by_the_whole_url() {
    let redirect = "[backend_pools.middlewares.Redirect]\nregex = '^(https?)://old\\.test(:\\d+)?/(.*)$'\n\
                    replacement = '$1://new.test/$3'\n";
    for pair in PAIRS {
        for (status, expected) in [("", "302"), ("status = 308", "308")] {
            let mut rig = rig_with(pair, "", &format!("{redirect}{status}"));
            for (kind, scheme) in [(ListenerKind::Http, "http"), (ListenerKind::Https, "https")] {
                if (pair.0, kind) == (Speaks::Http2, ListenerKind::Https) {
                    // It needs a certificate there.
                    continue;
                }
                for method in ["GET", "HEAD", "POST"] {
                    let c = rig.client_of(kind);
                    let head = format!("{method} /a/b?c=%7E&d HTTP/1.1\r\nHost: old.test:8080\r\n\r\n");
                    let far = rig.ask(c, &head, true);
                    let got = rig.message(far).head;
                    assert_eq!(second_word(&got), expected, "{pair:?}: {got}");
                    let location = format!("{scheme}://new.test/a/b?c=%7E&d");
                    assert_eq!(field(&got, "Location"), Some(&*location), "{pair:?}: {got}");
                }
            }
            assert!(rig.asked().is_empty());
            let c = rig.client();
            rig.ask(c, &get("/"), true);
            assert_eq!(rig.asked().len(), 1, "another host is not redirected");
        }
    }
}

#[test]
fn respond_says_what_is_configured() {
    let table = [
        ("", "200", "0", "", None),
        (
            "status = 503\nbody = \"later\\n\"\nheaders = { Retry-After = \"60\", X-Host = \"{host}\" }",
            "503",
            "6",
            "later\n",
            Some("text/plain; charset=utf-8"),
        ),
        ("body = \"{}\"\ncontent_type = \"application/json\"", "200", "2", "{}", Some("application/json")),
        ("file = \"robots.txt\"\nstatus = 404", "404", "8", "the file", Some("text/plain; charset=utf-8")),
        ("file = \"logo.bin\"", "200", "8", "the file", Some("application/octet-stream")),
    ];
    for pair in PAIRS {
        for (keys, status, length, body, content_type) in table {
            let mut config =
                config("", &format!("addresses = []\n[backend_pools.middlewares.Respond]\n{keys}"));
            for file in Arc::make_mut(&mut config.pools[0]).middlewares[0].files_mut() {
                file.content = b"the file".as_slice().into();
            }
            let mut rig = Rig::new(config, Arc::new(Shared::new("lb", 1)), pair);
            let c = rig.client();
            for method in ["GET", "HEAD", "GET"] {
                let far = rig.ask(c, &get("/").replacen("GET", method, 1), true);
                let got = rig.message(far);
                assert_eq!(second_word(&got.head), status, "{pair:?}: {}", got.head);
                assert_eq!(field(&got.head, "Content-Length"), Some(length), "{pair:?}: {}", got.head);
                assert_eq!(field(&got.head, "Content-Type"), content_type, "{pair:?}: {}", got.head);
                assert_eq!(got.body, if method == "GET" { body.as_bytes() } else { b"" });
                if keys.contains("Retry-After") {
                    assert_eq!(field(&got.head, "Retry-After"), Some("60"), "{}", got.head);
                    assert_eq!(field(&got.head, "X-Host"), Some("a.test"), "{}", got.head);
                }
                rig.forget(far);
            }
            nothing_left(&mut rig);
        }
    }
}

/// RFC 9110 §8.6, §15.4.5: neither has a length that is not that of a 200.
#[test]
fn respond_without_content_says_no_length() {
    for status in ["204", "304"] {
        for pair in PAIRS {
            let mut rig =
                rig_with(pair, "", &format!("[backend_pools.middlewares.Respond]\nstatus = {status}"));
            let c = rig.client();
            for _ in 0..2 {
                let far = rig.ask(c, &get("/"), true);
                let got = rig.message(far);
                assert_eq!(second_word(&got.head), status, "{pair:?}: {}", got.head);
                assert_eq!(field(&got.head, "Content-Length"), None, "{pair:?}: {}", got.head);
                assert_eq!(field(&got.head, "Transfer-Encoding"), None, "{pair:?}: {}", got.head);
                assert!(got.body.is_empty() && !got.reset);
                rig.forget(far);
            }
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn a_file_belongs_to_its_middleware() {
    let text = "http_address = \"[::]:80\"\n[[backend_pools]]\nmiddlewares.Respond.file = \"a/robots.txt\"\n";
    let parsed = config::parse(text);
    let place = &parsed.places.middleware_files[0];
    assert_eq!((&*place.path, &text[place.span.clone()]), ("a/robots.txt", "\"a/robots.txt\""));
    let mut config = parsed.config.expect("valid");
    let config::Middleware::Respond(respond) = &mut Arc::make_mut(&mut config.pools[0]).middlewares[0] else {
        panic!("Respond")
    };
    assert!(matches!(respond.content, RespondContent::File(_)));
    assert_eq!(Arc::make_mut(&mut config.pools[0]).middlewares[0].files_mut().count(), 1);
}

/// Targets of characters that mean something to some rule.
fn target() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "//", ".", "..", "a", "b", "old", "x", "%2F", "%2e", "%5C", "%", "?", "&", "=", "~", "$1", "{",
        "*", ":", "@", "http://b", "\\",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a client asks for, what comes out of rewriting is a target that begins with `/` and is
    /// normalised, or the request is refused; and a redirect has one line.
    #[test]
    fn no_rewriting_leaves_the_root_or_makes_lines(
        target in target(),
        regex in prop::sample::select(vec!["^/(.*)$", "^/x(.*)$", "(a|b|/)", "^(.*?)/(.*)$", "", "%(.*)", r"\.(.*)"]),
        replacement in prop::sample::select(vec!["/$1", "/s/$1", "$1", "/%$1", "/../$1", "$0$0", "/.$1", "//", ""]),
        kind in 0..4usize,
    ) {
        let rule = format!("regex = '{regex}'\nreplacement = '{replacement}'");
        let groups = regex.matches('(').count();
        prop_assume!(groups > 0 || !replacement.contains("$1"));
        let table = match kind {
            0 => format!("[backend_pools.middlewares.ReplacePathRegex]\n{rule}"),
            1 => "[backend_pools.middlewares.StripPrefix]\nprefixes = [\"/a\", \"/old\", \"/x\"]".to_owned(),
            2 => "[backend_pools.middlewares.AddPrefix]\nprefix = \"/a%2F\"".to_owned(),
            _ => format!("[backend_pools.middlewares.Redirect]\n{rule}"),
        };
        let mut rig = rig_with(HTTP1, "", &table);
        let c = rig.client();
        let far = rig.ask(c, &get(&target), true);
        let own = rig.message(far).head;
        match rig.asked().first() {
            Some(&asked) => {
                let head = rig.message(asked).head;
                let line = head.lines().next().expect("a request line");
                let sent = line.strip_prefix("GET ").and_then(|l| l.strip_suffix(" HTTP/1.1"));
                let sent = sent.expect("a request line of three words");
                prop_assert!(sent.starts_with('/') && !sent.contains([' ', '\r', '\n', '\0', '#']), "{}", sent);
                let path = sent.split('?').next().expect("a path");
                prop_assert!(!path.split('/').any(|s| s == "." || s == ".."), "{} from {}", sent, target);
                prop_assert!(!path.contains("%2e") && !path.contains("%00"), "{}", sent);
            }
            None => {
                let status: u16 = second_word(&own).parse().expect("a status");
                prop_assert!(matches!(status, 302 | 400 | 414 | 500), "{}", own);
                if status == 302 {
                    let location = field(&own, "Location").expect("a location");
                    prop_assert!(location.bytes().all(|b| b.is_ascii_graphic()), "{}", location);
                    prop_assert!(replacement.starts_with("//") || !location.starts_with("//"), "{}", location);
                }
            }
        }
        nothing_left_after(&mut rig);
    }
}

fn nothing_left_after(rig: &mut Rig) {
    if let Some(&asked) = rig.asked().first() {
        rig.respond_at_once(asked, "HTTP/1.1 204 No Content\r\n\r\n", b"");
    }
    nothing_left(rig);
}
