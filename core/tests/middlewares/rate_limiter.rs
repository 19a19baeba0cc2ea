//! `RateLimiter` over shards, connections and reloads.

use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::Shared;
use ruststrom_core::config::{Config, Middleware};
use ruststrom_core::middleware::Counter;

use crate::hooks::{get, nothing_left, ok};
use crate::two_wires::{PAIRS, Rig, Speaks, config as plain_config};

fn limited(top: &str, limit: u32, secs: u64) -> Config {
    let mut config = plain_config(top, "");
    Arc::make_mut(&mut config.pools[0]).middlewares =
        vec![Middleware::RateLimiter { limit, window: Duration::from_secs(secs) }];
    config
}

/// The seconds after which a refused request may come again; `None`: it was admitted, and is answered.
fn ask(rig: &mut Rig, fields: &str) -> Option<u64> {
    let c = rig.client();
    let head = get("/").replace("\r\n\r\n", &format!("\r\n{fields}\r\n"));
    let far = rig.ask(c, &head, true);
    let got = rig.message(far);
    if got.ended {
        assert!(got.head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{got:?}");
        let retry = got.head.lines().find_map(|line| line.strip_prefix("Retry-After: "));
        nothing_left(rig);
        return Some(retry.expect("it says when").parse().unwrap());
    }
    let backend = *rig.asked().last().expect("a backend is asked");
    rig.respond(backend, &ok(1), b"x");
    assert_eq!(rig.message(far).body, b"x");
    rig.forget(backend);
    nothing_left(rig);
    None
}

#[test]
fn shards_admit_as_many_together_as_one_would() {
    for pair in PAIRS {
        let shared = Arc::new(Shared::new("lb", 3));
        let config = limited("", 5, 60);
        let mut shards: Vec<_> =
            (0..3).map(|shard| Rig::on_shard(shard, config.clone(), shared.clone(), pair)).collect();
        for n in 0..5 {
            let shard = &mut shards[n % 3];
            assert_eq!(ask(shard, ""), None, "{pair:?}: {n}");
        }
        for shard in &mut shards {
            assert_eq!(ask(shard, ""), Some(60), "{pair:?}");
            assert_eq!(shard.proxy.observer_mut().counters, [("api".to_owned(), Counter::RateLimitExceeded)]);
        }
        shards.iter_mut().for_each(|shard| shard.advance(Duration::from_millis(59_999)));
        for shard in &mut shards {
            assert_eq!(ask(shard, ""), Some(1), "{pair:?}: refused requests do not count");
        }
        shards.iter_mut().for_each(|shard| shard.advance(Duration::from_millis(1)));
        for n in 0..5 {
            assert_eq!(ask(&mut shards[n % 3], ""), None, "{pair:?}: {n}");
        }
        assert_eq!(ask(&mut shards[0], ""), Some(60), "{pair:?}");
    }
}

#[test]
fn a_retry_succeeds_when_it_was_said() {
    let mut rig = Rig::new(limited("", 30, 7), Arc::new(Shared::new("lb", 1)), PAIRS[0]);
    let (mut admitted, mut refused) = (0, 0);
    for n in 0..400 {
        match ask(&mut rig, "") {
            None => admitted += 1,
            Some(secs) => {
                refused += 1;
                assert!((1..=7).contains(&secs), "{secs}");
                rig.advance(Duration::from_secs(secs));
                assert_eq!(ask(&mut rig, ""), None, "after {secs} s");
            }
        }
        rig.advance(Duration::from_millis(n % 90));
    }
    assert!(admitted > 100 && refused > 5, "{admitted} {refused}");
}

#[test]
fn a_client_is_who_trusted_proxies_say() {
    let trusting = "trusted_proxies = [\"192.0.2.7\"]";
    // Whether two requests with these fields are of one client.
    let table = [
        ("", "X-Forwarded-For: 203.0.113.5\r\n", "X-Forwarded-For: 203.0.113.6\r\n", true),
        (trusting, "X-Forwarded-For: 203.0.113.5\r\n", "X-Forwarded-For: 203.0.113.6\r\n", false),
        (trusting, "X-Forwarded-For: 203.0.113.5\r\n", "X-Forwarded-For: ::ffff:203.0.113.5\r\n", true),
        (
            trusting,
            "X-Forwarded-For: 1.1.1.1, 203.0.113.5\r\n",
            "X-Forwarded-For: 2.2.2.2, 203.0.113.5\r\n",
            true,
        ),
        (trusting, "X-Forwarded-For: 2001:db8::1\r\n", "X-Forwarded-For: 2001:db8::2:1\r\n", true),
        (trusting, "X-Forwarded-For: 2001:db8::1\r\n", "X-Forwarded-For: 2001:db8:0:1::1\r\n", false),
        (trusting, "X-Forwarded-For: nonsense\r\n", "", true),
    ];
    for (top, first, second, same) in table {
        let mut rig = Rig::new(limited(top, 1, 60), Arc::new(Shared::new("lb", 1)), PAIRS[0]);
        assert_eq!(ask(&mut rig, first), None);
        assert_eq!(ask(&mut rig, second).is_some(), same, "{top}: {first:?} {second:?}");
    }
}

#[test]
fn a_changed_limit_keeps_the_history_and_another_pool_has_its_own() {
    let mut rig =
        Rig::new(limited("", 3, 60), Arc::new(Shared::new("lb", 1)), (Speaks::Http1, Speaks::Http1));
    for _ in 0..3 {
        assert_eq!(ask(&mut rig, ""), None);
    }
    rig.advance(Duration::from_secs(10));
    rig.reload(limited("", 5, 60));
    for expected in [None, None, Some(50)] {
        assert_eq!(ask(&mut rig, ""), expected);
    }
    rig.reload(limited("", 2, 60));
    rig.advance(Duration::from_secs(50));
    assert_eq!(ask(&mut rig, ""), Some(10), "the two of the larger limit");
    let mut other = limited("", 1, 60);
    Arc::make_mut(&mut other.pools[0]).name = "web".into();
    rig.reload(other);
    assert_eq!((ask(&mut rig, ""), ask(&mut rig, "")), (None, Some(60)));
    // Nothing is kept of a pool that was gone.
    rig.reload(limited("", 1, 60));
    assert_eq!((ask(&mut rig, ""), ask(&mut rig, "")), (None, Some(60)));
}
