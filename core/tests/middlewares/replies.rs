//! Responses that the proxy makes itself: those of middlewares, and errors, which middlewares may change.

use std::sync::Arc;

use http::StatusCode;
use ruststrom_core::local_reply::{Body, LocalReply};
use ruststrom_core::middleware::Action;
use ruststrom_core::{Cause, Shared};

use crate::hooks::{
    Hooks, Limit, Replace, Trace, Twice, config, get, letters, nothing_left, ok, rig, shared, tracing,
};
use crate::two_wires::{PAIRS, Rig, Speaks, config as plain_config};

const HTTP1: (Speaks, Speaks) = (Speaks::Http1, Speaks::Http1);

/// Replies to every request.
fn replying(reply: LocalReply) -> Hooks {
    Hooks::new().request(move |_| Action::reply(reply.clone()))
}

/// A request without content that is not sent again when its connection breaks.
fn post() -> String {
    get("/").replacen("GET", "POST", 1)
}

/// RFC 9110 §8.6: a 204 has no Content-Length, not even one that is right.
#[test]
fn a_reply_without_content_says_nothing_of_its_length() {
    for pair in PAIRS {
        let mut rig = rig(pair, vec![replying(LocalReply::new(StatusCode::NO_CONTENT))]);
        let c = rig.client();
        for _ in 0..2 {
            let far = rig.ask(c, &get("/"), true);
            let got = rig.message(far);
            assert!(got.head.starts_with("HTTP/1.1 204 No Content\r\n"), "{pair:?}: {}", got.head);
            assert!(!got.head.to_ascii_lowercase().contains("content-length"), "{pair:?}: {}", got.head);
            rig.forget(far);
        }
        nothing_left(&mut rig);
    }
}

#[test]
fn a_middleware_replies_itself_with_fields_and_a_long_body() {
    let body = letters(100_000);
    let reply = LocalReply { body: Body::Owned(body.clone()), ..LocalReply::new(StatusCode::FORBIDDEN) }
        .with_field("X-Why", "because")
        .with_field("Cache-Control", "no-store");
    for pair in PAIRS {
        for most in [usize::MAX, 1000, 7] {
            let mut rig = rig(pair, vec![replying(reply.clone())]);
            rig.most = most;
            let c = rig.client();
            // Over HTTP/1.1 one after the other on the same connection: the framing of each must be right.
            for method in ["GET", "HEAD", "GET"] {
                let far = rig.ask(c, &get("/").replacen("GET", method, 1), true);
                let got = rig.message(far);
                assert!(got.head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{pair:?}: {}", got.head);
                for line in
                    ["Content-Length: 100000\r\n", "X-Why: because\r\n", "Cache-Control: no-store\r\n"]
                {
                    assert!(got.head.contains(line), "{pair:?} {method}: {}", got.head);
                }
                if method == "HEAD" {
                    assert!(got.body.is_empty() && !got.reset, "{pair:?}: {got:?}");
                } else {
                    assert!(got.ended && got.body == body, "{pair:?} by {most}: {} bytes", got.body.len());
                }
                rig.forget(far);
            }
            assert_eq!(rig.proxy.observer_mut().records, [(403, None); 3]);
            assert!(rig.asked().is_empty() && rig.backend_conns.is_empty(), "no backend hears of it");
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn a_reply_to_an_upload_leaves_its_body_alone() {
    for pair in PAIRS {
        let mut rig =
            rig(pair, vec![replying(LocalReply::text(StatusCode::UNAUTHORIZED, b"who are you?\n"))]);
        let c = rig.client();
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 50000\r\n\r\n";
        let far = rig.ask(c, head, false);
        let got = rig.message(far);
        assert!(got.head.starts_with("HTTP/1.1 401 ") && got.ended, "{pair:?}: {got:?}");
        assert_eq!(got.body, b"who are you?\n");
        rig.send(far, &letters(10_000));
        nothing_left(&mut rig);
        if pair.0 != Speaks::Http1 {
            let far = rig.ask(c, &get("/"), true);
            assert!(rig.message(far).ended, "the connection goes on");
        } else {
            assert!(got.head.contains("Connection: close\r\n"), "{}", got.head);
        }
        assert!(rig.backend_conns.is_empty());
    }
}

#[test]
fn a_reply_passes_only_the_middlewares_outside_of_it() {
    for pair in PAIRS {
        let trace = Trace::default();
        let reply = replying(LocalReply::text(StatusCode::GONE, b"gone\n"));
        let chain = vec![tracing("a", &trace), tracing("b", &trace), reply, tracing("c", &trace)];
        let mut rig = rig(pair, chain);
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        assert_eq!(rig.message(far).body, b"gone\n");
        assert_eq!(trace.take(), ["a in", "b in", "b out 410", "a out 410"]);
    }
}

#[test]
fn responses_and_errors_pass_the_middlewares_in_reverse() {
    for pair in PAIRS {
        let trace = Trace::default();
        let mut rig = rig(pair, vec![tracing("a", &trace), tracing("b", &trace)]);
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let backend = rig.asked()[0];
        rig.respond(backend, &ok(2), b"ok");
        assert_eq!(rig.message(far).body, b"ok");
        assert_eq!(trace.take(), ["a in", "b in", "b out 200", "a out 200"]);

        rig.forget(far);
        rig.forget(backend);
        rig.ask(c, &post(), true);
        let lost = rig.asked()[0].0;
        rig.lose(lost);
        assert_eq!(trace.take(), ["a in", "b in", "b out 502", "a out 502"], "{pair:?}");
        assert_eq!(rig.proxy.observer_mut().records, [(200, None), (502, Some(Cause::BackendReset))]);
        nothing_left(&mut rig);
    }
}

#[test]
fn interim_responses_pass_no_middleware() {
    let trace = Trace::default();
    let mut rig = rig(HTTP1, vec![tracing("a", &trace)]);
    let c = rig.client();
    rig.ask(c, &get("/"), true);
    let backend = rig.asked()[0];
    rig.respond(backend, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", b"");
    assert_eq!(trace.take(), ["a in"]);
    rig.respond(backend, &ok(0), b"");
    assert_eq!(trace.take(), ["a out 200"]);
}

/// Puts a page in the place of errors from 500 on, and says so.
fn error_page(page: &Arc<[u8]>) -> Hooks {
    let page = page.clone();
    Hooks::new().response(move |ctx, head| {
        if head.status().is_server_error() {
            head.set_field(b"Content-Type", b"text/html").unwrap();
            head.set_field(b"X-Was", head.status().as_str().to_owned().as_bytes()).unwrap();
            head.set_status(StatusCode::IM_A_TEAPOT);
            ctx.transform(Replace::boxed(&page));
        }
    })
}

#[test]
fn an_error_page_is_changed_wherever_the_error_comes_from() {
    let page: Arc<[u8]> = letters(40_000).into();
    for pair in PAIRS {
        for most in [usize::MAX, 1000, 7] {
            let trace = Trace::default();
            let chain = vec![tracing("outside", &trace), error_page(&page), tracing("inside", &trace)];
            let mut rig = rig(pair, chain);
            rig.most = most;
            let c = rig.client();
            let far = rig.ask(c, &get("/"), true);
            let backend = rig.asked()[0];
            rig.respond(
                backend,
                "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\n",
                b"oops\n",
            );
            let of_backend = (rig.message(far), trace.take(), "500");
            rig.forget(far);
            rig.forget(backend);
            let far = rig.ask(c, &post(), true);
            let lost = rig.asked()[0].0;
            rig.lose(lost);
            let of_proxy = (rig.message(far), trace.take(), "502");
            for (got, passed, was) in [of_backend, of_proxy] {
                assert!(got.head.starts_with("HTTP/1.1 418 I'm a teapot\r\n"), "{pair:?}: {}", got.head);
                assert!(got.head.contains(&format!("X-Was: {was}\r\n")), "{pair:?}: {}", got.head);
                assert_eq!(got.head.matches("Content-Type:").count(), 1, "{}", got.head);
                // The page of the proxy's own error is made at once: its length is known.
                let of_known_length = got.head.contains("Content-Length: 40000\r\n");
                assert_eq!(of_known_length, was == "502", "{pair:?}: {}", got.head);
                assert!(got.ended && got.body == *page, "{pair:?} by {most}: {} bytes", got.body.len());
                assert_eq!(
                    passed,
                    ["outside in", "inside in", &format!("inside out {was}"), "outside out 418"]
                );
            }
            assert_eq!(
                rig.proxy.observer_mut().records,
                [(418, None), (418, Some(Cause::BackendReset))],
                "the status that the client got, and why"
            );
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn an_error_without_content_gets_its_page_too() {
    let page: Arc<[u8]> = letters(100).into();
    for pair in PAIRS {
        let mut rig = rig(pair, vec![error_page(&page)]);
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let backend = rig.asked()[0];
        rig.respond(backend, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", b"");
        let got = rig.message(far);
        assert!(got.ended && got.body == *page, "{pair:?}: {got:?}");
        nothing_left(&mut rig);
    }
    let chain = vec![error_page(&page), replying(LocalReply::new(StatusCode::NOT_IMPLEMENTED))];
    let mut rig = rig(HTTP1, chain);
    let c = rig.client();
    let far = rig.ask(c, &get("/"), true);
    let got = rig.message(far);
    assert!(got.ended && got.body == *page, "{got:?}");
    // What may have no content gets none.
    rig.forget(far);
    let far = rig.ask(c, &get("/").replacen("GET", "HEAD", 1), true);
    assert!(rig.message(far).body.is_empty());
    rig.forget(far);
    let far = rig.ask(c, &get("/"), true);
    assert_eq!(rig.message(far).body, *page, "the connection goes on");
}

#[test]
fn an_error_page_reaches_a_client_of_http_1_0() {
    let page: Arc<[u8]> = letters(40_000).into();
    let mut rig = rig(HTTP1, vec![error_page(&page)]);
    let c = rig.client();
    let far = rig.ask(c, "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n", true);
    let lost = rig.asked()[0].0;
    rig.lose(lost);
    let raw = rig.received(far.0);
    let (head, body) = raw.split_at(raw.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4);
    let head = String::from_utf8_lossy(head);
    assert!(head.contains("Content-Length: 40000\r\n") && !head.contains("chunked"), "{head}");
    assert_eq!(body, &*page);
    nothing_left(&mut rig);
}

#[test]
fn without_a_backend_the_error_passes_the_middlewares_and_without_a_route_it_does_not() {
    for pair in PAIRS {
        let page: Arc<[u8]> = letters(100).into();
        let trace = Trace::default();
        let chain = vec![tracing("a", &trace), error_page(&page)];
        let mut config = config("", "matcher = \"Path('/here')\"", chain.len());
        Arc::make_mut(&mut config.pools[0]).backends.clear();
        let mut rig = Rig::new(config, shared(1, chain), pair);
        let c = rig.client();
        let far = rig.ask(c, &get("/here"), true);
        let got = rig.message(far);
        assert!(got.head.contains("X-Was: 503\r\n") && got.body == *page, "{pair:?}: {got:?}");
        assert!(got.head.contains("details=\"no_backend\""), "{}", got.head);
        assert_eq!(trace.take(), ["a in", "a out 418"]);
        rig.forget(far);
        let far = rig.ask(c, &get("/elsewhere"), true);
        let got = rig.message(far);
        assert!(got.head.starts_with("HTTP/1.1 404 ") && got.body.ends_with(b"no_route\n"), "{got:?}");
        assert_eq!(trace.take(), [""; 0]);
        nothing_left(&mut rig);
    }
}

#[test]
fn a_reply_passes_the_transforms_outside_of_it() {
    for pair in PAIRS {
        let twice = Hooks::new().response(|ctx, _| ctx.transform(Twice::boxed(b'!')));
        let reply = LocalReply { body: Body::Owned(letters(60_000)), ..LocalReply::new(StatusCode::OK) };
        let mut rig = rig(pair, vec![twice, replying(reply)]);
        rig.most = 1000;
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let got = rig.message(far);
        assert!(got.ended && got.body == Twice::of(&letters(60_000), b'!'), "{pair:?}: {}", got.body.len());
        nothing_left(&mut rig);
    }
}

#[test]
fn a_local_reply_whose_transform_refuses_it_is_cut() {
    for pair in PAIRS {
        let refusing = Hooks::new().response(|ctx, _| {
            let reply = LocalReply::text(StatusCode::BAD_GATEWAY, b"no\n");
            ctx.transform(Box::new(Limit { left: 50_000, reply }));
        });
        let reply = LocalReply { body: Body::Owned(letters(60_000)), ..LocalReply::new(StatusCode::OK) };
        let mut rig = rig(pair, vec![refusing, replying(reply)]);
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let got = rig.message(far);
        assert!(got.reset && !got.ended, "{pair:?}: {} {}", got.head, got.body.len());
        assert_eq!(rig.proxy.observer_mut().records.len(), 1);
        nothing_left(&mut rig);
    }
}

#[test]
fn a_middleware_that_cannot_be_made_lets_nothing_through() {
    let trace = Trace::default();
    // The second of two is not known to the factory.
    for pair in PAIRS {
        let mut rig = Rig::new(config("", "", 2), shared(1, vec![tracing("a", &trace)]), pair);
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let got = rig.message(far);
        assert!(got.head.starts_with("HTTP/1.1 500 ") && got.ended, "{pair:?}: {got:?}");
        assert!(rig.backend_conns.is_empty());
        assert_eq!(trace.take(), ["a in", "a out 500"]);
    }
    let mut rig = Rig::new(plain_config("", ""), Arc::new(Shared::new("lb", 1)), HTTP1);
    let c = rig.client();
    rig.ask(c, &get("/"), true);
    assert_eq!(rig.asked().len(), 1, "a pool without middlewares needs none to be made");
}
