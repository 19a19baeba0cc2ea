//! Transforms: several in a row on either body, one that refuses a request's body at a limit, and slow peers.

use std::sync::Arc;

use http::StatusCode;
use ruststrom_core::local_reply::LocalReply;
use ruststrom_core::middleware::Action;
use ruststrom_core::{Cause, config as model};

use crate::hooks::{Hooks, Limit, Twice, config, get, letters, nothing_left, ok, rig, shared};
use crate::two_wires::{PAIRS, Rig, Speaks};

/// Doubles every letter of the response, and ends it with `tail`.
fn doubles_response(tail: u8) -> Hooks {
    Hooks::new().response(move |ctx, _| ctx.transform(Twice::boxed(tail)))
}

/// Doubles every letter of the request, and ends it with `tail`.
fn doubles_request(tail: u8) -> Hooks {
    Hooks::new().request(move |ctx| {
        ctx.transform(Twice::boxed(tail));
        Action::Continue
    })
}

/// Refuses requests with more content than this.
fn limits_request(bytes: usize) -> Hooks {
    Hooks::new().request(move |ctx| {
        let reply = LocalReply::text(StatusCode::PAYLOAD_TOO_LARGE, b"too much\n");
        ctx.transform(Box::new(Limit { left: bytes, reply }));
        Action::Continue
    })
}

/// The head of a request whose content is framed by its length or by chunks.
pub(crate) fn put(body: &[u8], chunked: bool) -> String {
    let framing =
        if chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {}", body.len()) };
    format!("PUT / HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n")
}

/// A body as HTTP/1.1 sends it in chunks.
pub(crate) fn chunks(body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for chunk in body.chunks(3000) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

#[test]
fn a_transformed_response_is_framed_anew_and_waits_for_a_slow_client() {
    let body = letters(100_000);
    for pair in PAIRS {
        for most in [usize::MAX, 1000, 7] {
            let mut rig = rig(pair, vec![doubles_response(b'!')]);
            rig.most = most;
            let c = rig.client();
            let far = rig.ask(c, &get("/"), true);
            let backend = rig.asked()[0];
            rig.slow_down(c);
            rig.respond_head(backend, &ok(body.len()));
            let mut given = 0;
            let mut at_first = 0;
            while given < body.len() {
                given += rig.send(backend, &body[given..]);
                at_first = if at_first == 0 { given } else { at_first };
                rig.take_once(c);
            }
            assert!(at_first < 80_000, "{pair:?}: {at_first} bytes are read though the client takes none");
            rig.end(backend, "");
            while rig.take_once(c) {}
            let got = rig.message(far);
            assert!(!got.head.contains("Content-Length"), "{}", got.head);
            assert_eq!(got.head.contains("Transfer-Encoding: chunked"), pair.0 == Speaks::Http1);
            assert!(
                got.ended && got.body == Twice::of(&body, b'!'),
                "{pair:?} by {most}: {}",
                got.body.len()
            );
            assert_eq!(rig.proxy.observer_mut().records, [(200, None)]);
            nothing_left(&mut rig);
            if pair.1 == Speaks::Http1 {
                assert_eq!(rig.proxy.counts().backends_idle, 1, "the connection is kept");
            }
        }
    }
}

#[test]
fn two_transforms_in_a_row_work_on_a_response_and_on_a_request() {
    // The shorter one has been taken whole while most of it still lies between the two.
    for len in [20_000, 16_000] {
        two_in_a_row(&letters(len));
    }
}

fn two_in_a_row(body: &[u8]) {
    let chain = || {
        vec![
            Hooks::new()
                .request(|ctx| {
                    ctx.transform(Twice::boxed(b'1'));
                    Action::Continue
                })
                .response(|ctx, _| ctx.transform(Twice::boxed(b'1'))),
            doubles_request(b'2'),
            doubles_response(b'3'),
        ]
    };
    for pair in PAIRS {
        for (chunked, most) in [(false, usize::MAX), (true, 1000), (false, 7)] {
            let mut rig = rig(pair, chain());
            rig.most = most;
            let c = rig.client();
            let far = rig.ask(c, &put(body, chunked), false);
            let framed = if chunked && pair.0 == Speaks::Http1 { chunks(body) } else { body.to_vec() };
            rig.send_all(far, &framed);
            rig.end(far, "");
            let backend = rig.asked()[0];
            let got = rig.message(backend);
            assert!(!got.head.contains("Content-Length"), "{}", got.head);
            assert_eq!(got.head.contains("Transfer-Encoding: chunked"), pair.1 == Speaks::Http1);
            assert!(got.ended && got.body == Twice::of(&Twice::of(body, b'1'), b'2'), "{pair:?} by {most}");
            rig.respond(backend, &ok(body.len()), body);
            let got = rig.message(far);
            assert!(got.ended && got.body == Twice::of(&Twice::of(body, b'3'), b'1'), "{pair:?} by {most}");
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn a_response_that_ends_with_its_connection_is_transformed_to_its_end() {
    let body = letters(30_000);
    for pair in [PAIRS[0], PAIRS[1]] {
        let mut rig = rig(pair, vec![doubles_response(b'!')]);
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let backend = rig.asked()[0];
        rig.respond(backend, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &body);
        assert!(!rig.message(far).ended);
        rig.close(backend.0);
        let got = rig.message(far);
        assert!(got.ended && got.body == Twice::of(&body, b'!'), "{pair:?}: {}", got.body.len());
        nothing_left(&mut rig);
    }
}

#[test]
fn a_request_without_content_is_not_transformed_and_may_be_sent_again() {
    for pair in PAIRS {
        let config = config("", "retries = 1", 1);
        let mut rig = Rig::new(two_backends(config), shared(1, vec![doubles_request(b'!')]), pair);
        let c = rig.client();
        rig.ask(c, &get("/"), true);
        let lost = rig.asked()[0].0;
        rig.lose(lost);
        let again: Vec<_> = rig.asked().into_iter().filter(|far| far.0 != lost).collect();
        let got = rig.message(again[0]);
        assert!(got.ended && got.body.is_empty() && !got.head.contains("chunked"), "{pair:?}: {got:?}");
    }
}

/// A second backend for the one pool.
pub(crate) fn two_backends(mut config: model::Config) -> model::Config {
    let one = &config.pools[0].backends[0];
    let other = model::Backend {
        address: model::Address::Ip("127.0.0.1:82".parse().unwrap()),
        label: "127.0.0.1:82".into(),
        ..one.clone()
    };
    Arc::make_mut(&mut config.pools[0]).backends.push(other);
    config
}

#[test]
fn a_transformed_body_goes_to_another_backend_if_nothing_of_it_was_sent() {
    let body = letters(50_000);
    for pair in PAIRS {
        let config = config("", "retries = 1", 1);
        let mut rig = Rig::new(two_backends(config), shared(1, vec![doubles_request(b'!')]), pair);
        (rig.refused, rig.connects_wait) = (1, true);
        let c = rig.client();
        let far = rig.ask(c, &put(&body, false), false);
        // The first part of it is transformed before the first backend refuses the connection.
        let first = rig.send(far, &body[..3000]);
        assert_eq!(first, 3000);
        rig.decide_connects();
        rig.send_all(far, &body[first..]);
        rig.end(far, "");
        let backend = rig.asked()[0];
        assert_eq!(rig.refused, 0);
        let got = rig.message(backend);
        assert!(got.ended && got.body == Twice::of(&body, b'!'), "{pair:?}: {}", got.body.len());
        rig.respond(backend, &ok(1), b"x");
        assert_eq!(rig.message(far).body, b"x");
        assert_eq!(rig.proxy.observer_mut().records, [(200, None)]);
        nothing_left(&mut rig);
    }
}

#[test]
fn a_transformed_body_of_which_something_was_sent_is_not_sent_again() {
    for pair in PAIRS {
        let config = config("", "retries = 1", 1);
        let mut rig = Rig::new(two_backends(config), shared(1, vec![doubles_request(b'!')]), pair);
        let c = rig.client();
        let body = letters(1000);
        let far = rig.ask(c, &put(&body, false), false);
        rig.send_all(far, &body);
        rig.end(far, "");
        let asked = rig.asked();
        rig.lose(asked[0].0);
        assert_eq!(rig.backend_conns.len(), 1, "no other backend is asked");
        assert!(rig.message(far).head.starts_with("HTTP/1.1 502 "), "{pair:?}");
        nothing_left(&mut rig);
    }
}

#[test]
fn a_body_up_to_the_limit_passes_and_a_longer_one_is_refused() {
    const LIMIT: usize = 40_000;
    for pair in PAIRS {
        for chunked in [false, true] {
            for len in [0, 1, LIMIT, LIMIT + 1, 2 * LIMIT] {
                let body = letters(len);
                let mut rig = rig(pair, vec![limits_request(LIMIT)]);
                let c = rig.client();
                let far = rig.ask(c, &put(&body, chunked), false);
                let framed = if chunked && pair.0 == Speaks::Http1 { chunks(&body) } else { body.clone() };
                let taken = rig.send(far, &framed);
                if len <= LIMIT {
                    rig.send_all(far, &framed[taken..]);
                    rig.end(far, "");
                    let backend = rig.asked()[0];
                    let got = rig.message(backend);
                    assert!(got.ended && got.body == body, "{pair:?}: {} of {len}", got.body.len());
                    rig.respond(backend, &ok(1), b"x");
                    assert_eq!(rig.message(far).body, b"x");
                    assert_eq!(rig.proxy.observer_mut().records, [(200, None)]);
                } else {
                    // What is left of it is not waited for.
                    let mut given = taken;
                    while given < framed.len() && !rig.message(far).ended {
                        given += rig.send(far, &framed[given..]);
                    }
                    let got = rig.message(far);
                    assert!(got.head.starts_with("HTTP/1.1 413 Content Too Large\r\n"), "{pair:?}: {got:?}");
                    assert!(got.ended && got.body == b"too much\n", "{pair:?}: {got:?}");
                    let backend = rig.asked()[0];
                    let got = rig.message(backend);
                    assert!(got.reset && !got.ended, "{pair:?}: the backend takes no part for the whole");
                    assert!(got.body.len() <= LIMIT, "{}", got.body.len());
                    assert_eq!(rig.proxy.observer_mut().records, [(413, None)]);
                }
                nothing_left(&mut rig);
            }
        }
    }
}

#[test]
fn a_body_beyond_the_limit_cuts_a_response_that_has_begun() {
    for pair in PAIRS {
        for chunked in [false, true] {
            let body = letters(20_000);
            let mut rig = rig(pair, vec![limits_request(10_000)]);
            let c = rig.client();
            let far = rig.ask(c, &put(&body, chunked), false);
            let framed = if chunked && pair.0 == Speaks::Http1 { chunks(&body) } else { body };
            rig.send_all(far, &framed[..5000]);
            let backend = rig.asked()[0];
            rig.respond_head(backend, &ok(10));
            rig.send(backend, b"early");
            assert_eq!(rig.message(far).body, b"early");
            rig.send(far, &framed[5000..]);
            rig.send(far, &framed[10_000..]);
            let got = rig.message(far);
            assert!(got.head.starts_with("HTTP/1.1 200 ") && got.body == b"early", "{pair:?}: {got:?}");
            assert!(got.reset && !got.ended, "{pair:?}: {got:?}");
            assert!(rig.message(backend).reset);
            assert_eq!(rig.proxy.observer_mut().records, [(200, Some(Cause::ClientClosed))]);
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn a_response_that_its_transform_refuses_is_replaced_or_cut() {
    for pair in PAIRS {
        for limit in [0, 50_000] {
            let refusing = Hooks::new().response(move |ctx, head| {
                if head.status() == StatusCode::OK {
                    let reply = LocalReply::error(Cause::ResponseTruncated);
                    ctx.transform(Box::new(Limit { left: limit, reply }));
                }
            });
            let mut rig = rig(pair, vec![refusing]);
            let c = rig.client();
            let far = rig.ask(c, &get("/"), true);
            let backend = rig.asked()[0];
            // Over HTTP/1.1 the head and the first of the content come at once, so that nothing has been
            // sent.
            rig.respond_at_once(backend, &ok(60_000), &letters(60_000));
            let got = rig.message(far);
            if limit == 0 && pair.0 == Speaks::Http1 && pair.1 == Speaks::Http1 {
                assert!(got.head.starts_with("HTTP/1.1 502 ") && got.ended, "{pair:?}: {got:?}");
                assert_eq!(rig.proxy.observer_mut().records, [(502, Some(Cause::ResponseTruncated))]);
            } else {
                assert!(got.head.starts_with("HTTP/1.1 200 ") && got.reset, "{pair:?}: {}", got.head);
                assert_eq!(rig.proxy.observer_mut().records, [(200, Some(Cause::ResponseTruncated))]);
            }
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn trailers_pass_behind_a_transformed_body() {
    for pair in PAIRS {
        let mut rig = rig(pair, vec![doubles_request(b'1'), doubles_response(b'2')]);
        let c = rig.client();
        let far = rig.ask(c, &put(b"", true), false);
        let trailers = "X-Sum: 7\r\n\r\n";
        let chunked = b"3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n";
        let send = |rig: &mut Rig, far, speaks| {
            rig.send_all(far, if speaks == Speaks::Http1 { chunked } else { b"abc" });
            rig.end(far, trailers);
        };
        send(&mut rig, far, pair.0);
        let backend = rig.asked()[0];
        let got = rig.message(backend);
        assert!(got.ended && got.body == b"aAbBcC1" && got.trailers == trailers, "{pair:?}: {got:?}");
        rig.respond_head(backend, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
        send(&mut rig, backend, pair.1);
        let got = rig.message(far);
        assert!(got.ended && got.body == b"aAbBcC2" && got.trailers == trailers, "{pair:?}: {got:?}");
        nothing_left(&mut rig);
    }
}
