//! `MaxBodySize`: what is refused at once, what is cut, and what passes as if there were no limit.

use std::sync::Arc;

use ruststrom_core::http::Violation;
use ruststrom_core::{Cause, Shared, config as model};

use crate::bodies::{chunks, put, two_backends};
use crate::hooks::{letters, nothing_left, ok};
use crate::two_wires::{PAIRS, Rig, Speaks, config as plain_config};

const TOO_LARGE: Cause = Cause::BadRequest(Violation::ContentTooLarge);

/// A proxy whose one pool has a `MaxBodySize` of each of these limits.
fn limited(pair: (Speaks, Speaks), limits: &[u64]) -> Rig {
    let mut config = plain_config("", "retries = 1");
    Arc::make_mut(&mut config.pools[0]).middlewares =
        limits.iter().map(|&limit| model::Middleware::MaxBodySize { limit }).collect();
    Rig::new(two_backends(config), Arc::new(Shared::new("lb", 1)), pair)
}

/// A body as this wire carries it.
fn framed(speaks: Speaks, chunked: bool, body: &[u8]) -> Vec<u8> {
    if chunked && speaks == Speaks::Http1 { chunks(body) } else { body.to_vec() }
}

#[test]
fn content_up_to_the_limit_passes_and_more_is_refused() {
    const LIMIT: usize = 40_000;
    for pair in PAIRS {
        for chunked in [false, true] {
            for len in [0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 2 * LIMIT] {
                let what = format!("{pair:?} {chunked} {len}");
                let body = letters(len);
                // The least of several limits holds.
                let mut rig = limited(pair, &[LIMIT as u64 + 7, LIMIT as u64, u64::MAX]);
                let c = rig.client();
                let far = rig.ask(c, &put(&body, chunked), false);
                let sent = framed(pair.0, chunked, &body);
                let mut given = 0;
                while given < sent.len() && !rig.message(far).ended {
                    let n = rig.send(far, &sent[given..]);
                    assert!(n > 0, "{what}: no more is taken after {given}");
                    given += n;
                }
                if len <= LIMIT {
                    rig.end(far, "");
                    let backend = rig.asked()[0];
                    let got = rig.message(backend);
                    assert!(got.ended && got.body == body, "{what}: {}", got.body.len());
                    let keeps_length = got.head.contains(&format!("Content-Length: {len}\r\n"));
                    assert_eq!(keeps_length, !chunked, "{what}: {}", got.head);
                    rig.respond(backend, &ok(1), b"x");
                    assert_eq!(rig.message(far).body, b"x");
                    assert_eq!(rig.proxy.observer_mut().records, [(200, None)]);
                } else {
                    let got = rig.message(far);
                    assert!(got.head.starts_with("HTTP/1.1 413 Content Too Large\r\n"), "{what}: {got:?}");
                    assert!(got.ended && got.body.ends_with(b": content_too_large\n"), "{what}: {got:?}");
                    assert_eq!(rig.proxy.observer_mut().records, [(413, Some(TOO_LARGE))]);
                    if chunked {
                        let got = rig.message(rig.asked()[0]);
                        assert!(got.reset && !got.ended && got.body.len() <= LIMIT, "{what}: {}", got.head);
                    } else {
                        assert!(rig.backend_conns.is_empty(), "{what}: no backend is asked");
                        assert_eq!(given, 0, "{what}: it is said at once");
                    }
                }
                nothing_left(&mut rig);
            }
        }
    }
}

#[test]
fn too_much_that_comes_with_its_head_reaches_no_backend() {
    let mut rig = limited(PAIRS[0], &[3]);
    let c = rig.client();
    let whole = [put(b"", true).as_bytes(), &chunks(b"four")].concat();
    let far = rig.ask(c, std::str::from_utf8(&whole).unwrap(), false);
    assert!(rig.message(far).head.starts_with("HTTP/1.1 413 "));
    assert!(rig.backend_conns.is_empty());
    nothing_left(&mut rig);
}

#[test]
fn a_client_that_asks_first_is_told_before_it_sends() {
    for pair in PAIRS {
        let mut rig = limited(pair, &[1000]);
        let c = rig.client();
        let head = put(&letters(1001), false).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
        let far = rig.ask(c, &head, false);
        let got = rig.message(far);
        assert!(got.ended && got.head.starts_with("HTTP/1.1 413 "), "{pair:?}: no 100 before it: {got:?}");
        assert!(rig.backend_conns.is_empty());
        nothing_left(&mut rig);
    }
}

/// With a limit or without: no counter can hold it.
#[test]
fn a_length_beyond_every_counter_is_too_large() {
    for limits in [&[][..], &[1000]] {
        for length in ["9223372036854775808", "18446744073709551617", &"9".repeat(100)] {
            let mut rig = limited(PAIRS[0], limits);
            let c = rig.client();
            let far =
                rig.ask(c, &format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"), false);
            assert!(rig.message(far).head.starts_with("HTTP/1.1 413 "), "{length}");
            assert_eq!(rig.proxy.observer_mut().records, [(413, Some(TOO_LARGE))]);
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn a_response_that_has_begun_is_cut() {
    for pair in PAIRS {
        let body = letters(20_000);
        let mut rig = limited(pair, &[10_000]);
        let c = rig.client();
        let far = rig.ask(c, &put(&body, true), false);
        let sent = framed(pair.0, true, &body);
        rig.send_all(far, &sent[..5000]);
        let backend = rig.asked()[0];
        rig.respond_head(backend, &ok(10));
        rig.send(backend, b"early");
        assert_eq!(rig.message(far).body, b"early");
        rig.send(far, &sent[5000..]);
        rig.send(far, &sent[10_000..]);
        let got = rig.message(far);
        assert!(got.head.starts_with("HTTP/1.1 200 ") && got.reset && !got.ended, "{pair:?}: {got:?}");
        assert!(rig.message(backend).reset, "{pair:?}");
        assert_eq!(rig.proxy.observer_mut().records, [(200, Some(TOO_LARGE))]);
        nothing_left(&mut rig);
    }
}

#[test]
fn counted_content_can_be_sent_again() {
    for pair in PAIRS {
        let body = letters(3000);
        let mut rig = limited(pair, &[3000]);
        let c = rig.client();
        let far = rig.ask(c, &put(&body, true), false);
        rig.send_all(far, &framed(pair.0, true, &body));
        rig.end(far, "");
        let lost = rig.asked()[0].0;
        rig.lose(lost);
        let again = rig.asked().into_iter().find(|far| far.0 != lost).expect("another backend is asked");
        let got = rig.message(again);
        assert!(got.ended && got.body == body, "{pair:?}");
        rig.respond(again, &ok(1), b"x");
        assert_eq!(rig.message(far).body, b"x");
        nothing_left(&mut rig);
    }
}
