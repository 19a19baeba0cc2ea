//! Sticky cookies: their lines, how they are found in a request, and which backend they lead to.

use std::collections::BTreeSet;

use ruststrom_core::balance::Choice;
use ruststrom_core::config::{SameSite, StickyCookie, Strategy as Config};

use crate::harness::{Harness, equal, pool};

pub(crate) fn cookie(inner: Config) -> Config {
    let inner = Box::new(inner);
    Config::StickyCookie(StickyCookie {
        cookie_name: "SESSION".into(),
        http_only: true,
        secure: true,
        same_site: SameSite::Strict,
        inner,
    })
}

fn value(harness: &Harness, backend: u16) -> String {
    let line = harness.shards[0].sticky().expect("sticky").set_cookie(backend);
    let line = std::str::from_utf8(line).expect("text");
    line.strip_prefix("Set-Cookie: SESSION=")
        .and_then(|rest| rest.split(';').next())
        .expect("a value")
        .to_owned()
}

#[test]
fn cookie_lines() {
    let table = [
        (true, true, SameSite::Strict, "; Path=/; HttpOnly; Secure; SameSite=Strict\r\n"),
        (true, false, SameSite::Lax, "; Path=/; HttpOnly; SameSite=Lax\r\n"),
        (false, true, SameSite::None, "; Path=/; Secure; SameSite=None\r\n"),
        (false, false, SameSite::Lax, "; Path=/; SameSite=Lax\r\n"),
    ];
    for (http_only, secure, same_site, expected) in table {
        let inner = Box::new(Config::Random);
        let strategy = Config::StickyCookie(StickyCookie {
            cookie_name: "SESSION".into(),
            http_only,
            secure,
            same_site,
            inner,
        });
        let harness = Harness::new(1, pool(strategy, equal(3)));
        let line = harness.shards[0].sticky().expect("sticky").set_cookie(2).to_owned();
        assert_eq!(
            String::from_utf8(line).expect("text"),
            format!("Set-Cookie: SESSION={}{expected}", value(&harness, 2))
        );
        assert_eq!(harness.shards[0].sticky().expect("sticky").set_cookie(3), b"");
    }
}

#[test]
fn cookies_are_found_by_their_exact_name() {
    let harness = Harness::new(1, pool(cookie(Config::RoundRobin), equal(300)));
    let sticky = harness.shards[0].sticky().expect("sticky");
    let (one, two) = (value(&harness, 1), value(&harness, 2));
    let table = [
        (format!("SESSION={one}"), Some(1)),
        (format!("a=b; SESSION={one}"), Some(1)),
        (format!("a=b;SESSION={one};c=d"), Some(1)),
        (format!("SESSION=\"{two}\""), Some(2)),
        (format!(" SESSION = {two} ;"), Some(2)),
        (format!("SESSION={one}; SESSION={two}"), Some(1)),
        (format!("SESSION=nonsense; SESSION={two}"), Some(2)),
        (format!("session={one}"), None),
        (format!("XSESSION={one}"), None),
        (format!("SESSION2={one}"), None),
        (format!("a=SESSION={one}"), None),
        (format!("SESSION={}", one.to_uppercase()), None),
        (format!("SESSION={one}0"), None),
        (format!("SESSION={}", &one[1..]), None),
        ("SESSION=".into(), None),
        ("SESSION=\"".into(), None),
        ("SESSION".into(), None),
        (";;;=;==;".into(), None),
        (String::new(), None),
    ];
    for (field, expected) in table {
        assert_eq!(sticky.find(field.as_bytes()), expected, "{field:?}");
    }
    // Each backend has its own value, and no value contains a label.
    let values: BTreeSet<_> = (0..300).map(|backend| value(&harness, backend)).collect();
    assert_eq!(values.len(), 300);
    assert!(
        (0..300).all(|backend| sticky.find(format!("SESSION={}", value(&harness, backend)).as_bytes())
            == Some(backend))
    );
}

#[test]
fn cookies_outlive_restarts_and_changes_of_the_file() {
    let one = Harness::new(1, pool(cookie(Config::RoundRobin), equal(4)));
    let mut backends = equal(9);
    backends.reverse();
    let other = Harness::new(3, pool(cookie(Config::Random), backends));
    for backend in 0..4 {
        let field = format!("SESSION={}", value(&one, backend));
        assert_eq!(other.shards[2].sticky().expect("sticky").find(field.as_bytes()), Some(8 - backend));
    }
    assert_eq!(value(&one, 0), COOKIE, "a change here loses the sessions of everyone who upgrades");
    // The cookie of another pool is ignored, even for a backend of the same name.
    let mut pool = pool(cookie(Config::RoundRobin), equal(4));
    pool.name = "another".into();
    let another = Harness::new(1, pool);
    assert_eq!(
        another.shards[0].sticky().expect("sticky").find(format!("SESSION={COOKIE}").as_bytes()),
        None
    );
}

const COOKIE: &str = "baa7111e19976e70";

#[test]
fn sticky_stays_and_falls_back() {
    let mut backends = equal(3);
    backends[1].max_connections = Some(1);
    let mut harness = Harness::new(2, pool(cookie(Config::RoundRobin), backends));
    assert_eq!(harness.shares(6), [2, 2, 2]);
    harness.sticky = Some(1);
    assert_eq!(harness.shares(6), [0, 6, 0]);
    harness.slow(1);
    assert_eq!(harness.shares(6), [0, 6, 0], "slow matters for new clients only");
    assert_eq!(harness.start(0), Choice::Backend(1));
    assert_eq!(harness.start(1), Choice::Full, "it waits for its own");
    harness.state.finish(1);
    harness.tried.add(1);
    assert!(harness.once(0).is_some_and(|other| other != 1), "tried before: another");
    harness.tried.clear();
    harness.bad(1);
    assert_eq!(harness.shares(6), [3, 0, 3]);
    harness.good(1);
    assert_eq!(harness.shares(6), [0, 6, 0], "while its share grows, too");
    // A cookie is ignored without a sticky strategy, and if its value is no backend.
    harness.sticky = Some(99);
    assert!(harness.once(0).is_some());
    let mut plain = Harness::new(1, pool(Config::RoundRobin, equal(3)));
    plain.sticky = Some(2);
    assert_eq!(plain.shares(3), [1, 1, 1]);
}
