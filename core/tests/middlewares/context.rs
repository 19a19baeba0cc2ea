//! What a middleware sees and may change: the request's head, the client, the time, state of the exchange and
//! of all shards, counters; and what becomes of a chain when the configuration changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use ruststrom_core::config::{self as model, ListenerKind};
use ruststrom_core::local_reply::{Body, LocalReply};
use ruststrom_core::middleware::factory::Place;
use ruststrom_core::middleware::{Action, Counter};
use ruststrom_core::{Instant, Shared};

use crate::hooks::{Factory, Hooks, Trace, config, get, nothing_left, ok, rig, shared, stand_in, tracing};
use crate::two_wires::{PAIRS, Rig, Speaks, config as plain_config};

const TOY: (Speaks, Speaks) = (Speaks::Toy, Speaks::Toy);

/// Replies with what a closure says.
fn says(text: impl Fn(&mut ruststrom_core::middleware::Ctx<'_>) -> String + Send + Sync + 'static) -> Hooks {
    Hooks::new().request(move |ctx| {
        let body = Body::Owned(text(ctx).into_bytes());
        Action::reply(LocalReply { body, ..LocalReply::new(StatusCode::OK) })
    })
}

/// What the first middleware of a rig says to a request of this head.
fn said(rig: &mut Rig, kind: ListenerKind, head: &str) -> String {
    let c = rig.client_of(kind);
    let far = rig.ask(c, head, true);
    String::from_utf8(rig.message(far).body).unwrap()
}

const WITH_BACKUP: &str =
    "addresses = [\"127.0.0.1:81\", { address = \"127.0.0.1:82\", backup = true }]\nretries = 1";

#[test]
fn a_middleware_rewrites_path_and_fields_on_both_ways() {
    let trace = Trace::default();
    let seen = trace.clone();
    let rewriting = Hooks::new()
        .request(|ctx| {
            assert_eq!((ctx.request.path(), ctx.request.query()), (&b"/old"[..], Some(&b"a=1"[..])));
            assert_eq!(ctx.request.fields().named(b"x-old").count(), 2);
            ctx.request.set_target(b"/new/place?b=2&c");
            ctx.request.set_field(b"X-Old", b"one").unwrap();
            ctx.request.add_field(b"X-More", b"1").unwrap();
            ctx.request.add_field(b"X-More", b"2").unwrap();
            ctx.request.remove_field(b"authorization");
            ctx.request.remove_field(b"X-Secret");
            Action::Continue
        })
        .response(move |ctx, head| {
            seen.add(String::from_utf8_lossy(ctx.request.target()));
            head.remove_field(b"x-powered-by");
            head.set_field(b"Server", b"ours").unwrap();
            head.add_field(b"X-From", b"a").unwrap();
            head.set_status(StatusCode::ACCEPTED);
        });
    let next = trace.clone();
    let looking = Hooks::new().request(move |ctx| {
        next.add(String::from_utf8_lossy(ctx.request.path()));
        Action::Continue
    });
    for pair in PAIRS {
        let mut rig =
            Rig::new(config("", WITH_BACKUP, 2), shared(1, vec![rewriting.clone(), looking.clone()]), pair);
        let c = rig.client();
        let head = "GET /old?a=1 HTTP/1.1\r\nHost: a.test\r\nX-Old: 1\r\nAuthorization: Basic YTpi\r\n\
                    X-Old: 2\r\nAccept: text/html\r\nX-SECRET: s\r\n\r\n";
        let far = rig.ask(c, head, true);
        assert_eq!(trace.take(), ["/new/place"], "the next one sees what has been changed");
        // A second attempt sends the same, and passes no middleware again.
        for _ in 0..2 {
            let backend = *rig.asked().last().unwrap();
            let got = rig.message(backend);
            assert!(
                got.ended && got.head.starts_with("GET /new/place?b=2&c HTTP/1.1\r\n"),
                "{pair:?}: {got:?}"
            );
            let lines: Vec<_> = got
                .head
                .lines()
                .filter(|line| line.starts_with("X-Old") || line.starts_with("X-More"))
                .collect();
            assert_eq!(lines, ["X-Old: one", "X-More: 1", "X-More: 2"], "{pair:?}");
            assert!(got.head.contains("Accept: text/html\r\n") && got.head.contains("Host: a.test\r\n"));
            let lower = got.head.to_ascii_lowercase();
            assert!(
                !lower.contains("authorization") && !lower.contains("x-secret"),
                "{pair:?}: {}",
                got.head
            );
            assert_eq!(trace.take(), [""; 0]);
            if rig.backend_conns.len() == 1 {
                rig.lose(backend.0);
            }
        }
        let backend = *rig.asked().last().unwrap();
        rig.respond(
            backend,
            "HTTP/1.1 200 OK\r\nServer: theirs\r\nX-Powered-By: magic\r\nContent-Length: 2\r\nETag: 1\r\n\r\n",
            b"ok",
        );
        let got = rig.message(far);
        assert!(got.head.starts_with("HTTP/1.1 202 Accepted\r\n"), "{pair:?}: {}", got.head);
        assert!(got.ended && got.body == b"ok");
        for line in ["Server: ours\r\n", "X-From: a\r\n", "ETag: 1\r\n", "Content-Length: 2\r\n"] {
            assert!(got.head.contains(line), "{pair:?}: {}", got.head);
        }
        assert!(!got.head.contains("theirs") && !got.head.contains("magic"), "{}", got.head);
        assert_eq!(trace.take(), ["/new/place?b=2&c"], "what was sent to the backend");
        assert_eq!(rig.proxy.observer_mut().records, [(202, None)]);
        nothing_left(&mut rig);
    }
}

#[test]
fn the_client_is_whom_trusted_proxies_name() {
    let trusting = "trusted_proxies = [\"192.0.2.0/24\", \"2001:db8:1::/48\"]";
    let table: &[(&str, &[&str], &str)] = &[
        (trusting, &[], "192.0.2.7"),
        (trusting, &["203.0.113.5"], "203.0.113.5"),
        (trusting, &["198.51.100.1, 203.0.113.5"], "203.0.113.5"),
        (trusting, &["198.51.100.1, 203.0.113.5, 192.0.2.8"], "203.0.113.5"),
        (trusting, &["198.51.100.1", "203.0.113.5,192.0.2.8", "192.0.2.9"], "203.0.113.5"),
        (trusting, &["2001:db8:2::1, 2001:db8:1::1"], "2001:db8:2::1"),
        (trusting, &["::ffff:203.0.113.5"], "203.0.113.5"),
        // All of them are trusted: the first is the farthest that is known.
        (trusting, &["192.0.2.8, 192.0.2.9"], "192.0.2.8"),
        // What is no address ends the list.
        (trusting, &["nonsense"], "192.0.2.7"),
        (trusting, &[""], "192.0.2.7"),
        (trusting, &["203.0.113.5, unknown"], "192.0.2.7"),
        (trusting, &["203.0.113.5, _hidden, 192.0.2.8"], "192.0.2.8"),
        (trusting, &["203.0.113.5,"], "192.0.2.7"),
        // A stranger is who he is.
        ("", &["203.0.113.5"], "192.0.2.7"),
        ("trusted_proxies = [\"192.0.2.8\"]", &["203.0.113.5"], "192.0.2.7"),
    ];
    for pair in [PAIRS[0], PAIRS[1]] {
        for (top, lists, client) in table {
            let chain = vec![says(|ctx| ctx.client.to_string())];
            let mut rig = Rig::new(config(top, "", 1), shared(1, chain), pair);
            let fields: String = lists.iter().map(|list| format!("X-Forwarded-For: {list}\r\n")).collect();
            let head = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
            assert_eq!(said(&mut rig, ListenerKind::Http, &head), *client, "{pair:?}: {top} {lists:?}");
        }
    }
}

#[test]
fn a_middleware_knows_the_connection_and_the_time() {
    for pair in [PAIRS[0], PAIRS[1]] {
        let chain = || {
            vec![says(|ctx| {
                let since = ctx.now.micros_since(Instant::from_millis(1000));
                format!("{} {} {since}", ctx.connection.secure, ctx.connection.port)
            })]
        };
        let mut rig = rig(pair, chain());
        assert_eq!(said(&mut rig, ListenerKind::Http, &get("/")), "false 80 0");
        rig.advance(Duration::from_millis(2500));
        assert_eq!(said(&mut rig, ListenerKind::Https, &get("/")), "true 443 2500000");
    }
}

/// Counts its calls for each exchange, and says how many there were.
fn counting(step: u32) -> Hooks {
    Hooks::new()
        .request(move |ctx| {
            *ctx.state::<u32>() += step;
            Action::look_up(ruststrom_core::Query::Status)
        })
        .lookup(move |ctx, _| {
            *ctx.state::<u32>() += step;
            Action::Continue
        })
        .response(move |ctx, head| {
            *ctx.state::<u32>() += step;
            let calls = ctx.state::<u32>().to_string();
            head.add_field(b"X-Calls", calls.as_bytes()).unwrap();
        })
}

#[test]
fn each_exchange_has_a_state_for_each_middleware() {
    for pair in PAIRS {
        let mut rig = rig(pair, vec![counting(1), counting(10)]);
        let (c, d) = (rig.client(), rig.client());
        let second = if pair.0 != Speaks::Http1 { c } else { d };
        let fars = [rig.ask(c, &get("/1"), true), rig.ask(second, &get("/2"), true)];
        for _ in 0..4 {
            rig.answer_lookup(ruststrom_core::LookupResult::Failed("no matter".into()));
        }
        let asked = rig.asked();
        assert_eq!(asked.len(), 2);
        for far in asked {
            rig.respond(far, &ok(1), b"x");
        }
        for far in fars {
            let head = rig.message(far).head;
            let calls: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("X-Calls: ")).collect();
            assert_eq!(calls, ["30", "3"], "{pair:?}: of the inner one first");
        }
    }
}

#[test]
fn a_state_of_another_type_begins_anew() {
    let chain = vec![says(|ctx| {
        *ctx.state::<u32>() = 7;
        ctx.state::<String>().push('x');
        let text = ctx.state::<String>().clone();
        format!("{text} {}", ctx.state::<u32>())
    })];
    let mut rig = rig(TOY, chain);
    assert_eq!(said(&mut rig, ListenerKind::Http, &get("/")), "x 0");
}

/// Says how often it has been asked, over all shards and reloads.
fn counted(place: &Place<'_>) -> Hooks {
    let (count, name) = (place.shared(AtomicU32::default), format!("{} {}", place.pool, place.nth));
    says(move |_| format!("{name}: {}", count.fetch_add(1, Ordering::Relaxed) + 1))
}

#[test]
fn shared_state_is_that_of_all_shards_and_outlives_reloads() {
    let factory = Factory(|_: &model::Middleware, place: &Place<'_>| Some(counted(place)));
    let shared = Arc::new(Shared::with_middlewares("lb", 2, Arc::new(factory)));
    let mut shards: Vec<_> =
        (0..2).map(|shard| Rig::on_shard(shard, config("", "", 1), shared.clone(), TOY)).collect();
    let ask = |rig: &mut Rig| said(rig, ListenerKind::Http, &get("/"));
    assert_eq!(ask(&mut shards[0]), "api 0: 1");
    assert_eq!(ask(&mut shards[1]), "api 0: 2");
    // Other backends, another limit: the middleware is what it was.
    let mut changed = config("", "retries = 0", 1);
    Arc::make_mut(&mut changed.pools[0]).middlewares = vec![stand_in(5)];
    shards[0].reload(changed);
    assert_eq!(ask(&mut shards[0]), "api 0: 3");
    assert_eq!(ask(&mut shards[1]), "api 0: 4");
    // Another kind, another pool: another state.
    let mut other_kind = config("", "", 1);
    Arc::make_mut(&mut other_kind.pools[0]).middlewares =
        vec![model::Middleware::Compression(model::Compression::default())];
    shards[0].reload(other_kind);
    assert_eq!(ask(&mut shards[0]), "api 0: 1");
    let mut other_pool = config("", "", 1);
    Arc::make_mut(&mut other_pool.pools[0]).name = "web".into();
    shards[0].reload(other_pool);
    assert_eq!(ask(&mut shards[0]), "web 0: 1");
    // And back: it has not been forgotten.
    shards[0].reload(config("", "", 1));
    assert_eq!(ask(&mut shards[0]), "api 0: 5");
}

#[test]
fn two_of_a_kind_have_states_of_their_own() {
    let factory = Factory(|configured: &model::Middleware, place: &Place<'_>| {
        let count = place.shared(AtomicU32::default);
        let (name, nth) = (configured.name(), place.nth);
        Some(Hooks::new().response(move |_, head| {
            let value = format!("{name} {nth} {}", count.fetch_add(1, Ordering::Relaxed));
            head.add_field(b"X-Count", value.as_bytes()).unwrap();
        }))
    });
    let shared = Arc::new(Shared::with_middlewares("lb", 1, Arc::new(factory)));
    let mut config = plain_config("", "");
    Arc::make_mut(&mut config.pools[0]).middlewares =
        vec![stand_in(0), model::Middleware::Compression(model::Compression::default()), stand_in(1)];
    let mut rig = Rig::new(config, shared, TOY);
    let c = rig.client();
    for round in 0..2 {
        let far = rig.ask(c, &get("/"), true);
        let backend = *rig.asked().last().unwrap();
        rig.respond(backend, &ok(0), b"");
        let head = rig.message(far).head;
        let counts: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("X-Count: ")).collect();
        assert_eq!(
            counts,
            [
                format!("MaxBodySize 1 {round}"),
                format!("Compression 0 {round}"),
                format!("MaxBodySize 0 {round}")
            ]
        );
    }
}

#[test]
fn counters_reach_the_observer_under_the_name_of_the_pool() {
    let compressed = Counter::Compressed { encoding: "gzip", original: 100, compressed: 40 };
    for pair in PAIRS {
        let chain = vec![
            Hooks::new()
                .request(|ctx| {
                    ctx.count(Counter::RateLimitExceeded);
                    Action::Continue
                })
                .response(move |ctx, _| ctx.count(compressed)),
            Hooks::new().request(|ctx| {
                ctx.count(Counter::AuthFailure);
                Action::reply(LocalReply::new(StatusCode::UNAUTHORIZED))
            }),
        ];
        let mut rig = rig(pair, chain);
        said(&mut rig, ListenerKind::Http, &get("/"));
        let expected = [Counter::RateLimitExceeded, Counter::AuthFailure, compressed];
        assert_eq!(rig.proxy.observer_mut().counters, expected.map(|counter| ("api".to_owned(), counter)));
    }
}

#[test]
fn a_reload_keeps_the_chain_and_exchanges_keep_theirs() {
    for pair in PAIRS {
        let trace = Trace::default();
        let chain = vec![tracing("a", &trace), tracing("b", &trace), tracing("c", &trace)];
        let mut rig = Rig::new(config("", "", 2), shared(1, chain), pair);
        let c = rig.client();
        let before = rig.ask(c, &get("/"), true);
        assert_eq!(trace.take(), ["a in", "b in"]);
        let backend = rig.asked()[0];
        // The same again, then another chain: what has begun ends as it began.
        rig.reload(config("", "", 2));
        let mut changed = config("", "retries = 0", 0);
        Arc::make_mut(&mut changed.pools[0]).middlewares = vec![stand_in(2), stand_in(0)];
        rig.reload(changed);
        rig.respond(backend, &ok(1), b"1");
        assert_eq!(rig.message(before).body, b"1");
        assert_eq!(trace.take(), ["b out 200", "a out 200"], "{pair:?}");
        rig.forget(before);
        rig.forget(backend);

        let after = rig.ask(c, &get("/"), true);
        let backend = *rig.asked().last().unwrap();
        rig.respond(backend, &ok(1), b"2");
        assert_eq!(rig.message(after).body, b"2");
        assert_eq!(trace.take(), ["c in", "a in", "a out 200", "c out 200"], "{pair:?}");
        rig.forget(after);
        rig.forget(backend);

        // A middleware that nobody can make lets nothing through; without it requests pass again.
        let mut unknown = config("", "", 0);
        Arc::make_mut(&mut unknown.pools[0]).middlewares = vec![stand_in(0), stand_in(9)];
        rig.reload(unknown);
        let refused = rig.ask(c, &get("/"), true);
        assert!(rig.message(refused).head.starts_with("HTTP/1.1 500 "), "{pair:?}");
        assert_eq!(trace.take(), ["a in", "a out 500"]);
        rig.forget(refused);
        rig.reload(config("", "", 1));
        rig.ask(c, &get("/"), true);
        assert_eq!(rig.asked().len(), 1, "{pair:?}");
        assert_eq!(trace.take(), ["a in"]);
    }
}

#[test]
fn a_request_that_waits_over_a_reload_goes_on_in_its_old_chain() {
    for pair in PAIRS {
        let trace = Trace::default();
        let asking = Hooks::new().request(|_| Action::look_up(ruststrom_core::Query::Status));
        let mut rig = Rig::new(
            config("", "", 2),
            shared(1, vec![asking, tracing("b", &trace), tracing("c", &trace)]),
            pair,
        );
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let mut changed = config("", "retries = 0", 0);
        Arc::make_mut(&mut changed.pools[0]).middlewares = vec![stand_in(2)];
        rig.reload(changed);
        rig.answer_lookup(ruststrom_core::LookupResult::Failed("no matter".into()));
        assert_eq!(trace.take(), ["b in"]);
        let backend = rig.asked()[0];
        rig.respond(backend, &ok(1), b"x");
        assert_eq!(rig.message(far).body, b"x");
        assert_eq!(trace.take(), ["b out 200"]);
        nothing_left(&mut rig);
    }
}
