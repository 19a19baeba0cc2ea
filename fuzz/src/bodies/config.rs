//! Configuration texts: never a panic, always places within the text; what is accepted is accepted again,
//! prints as itself, and can be run.
//!
//! An input is the text; after a zero byte, which no text holds, it chooses words instead.

use std::net::IpAddr;

use ruststrom_core::balance::{Balancer, SelectionInput, Tried};
use ruststrom_core::config::{Config, Matcher, Severity, Strategy, parse, render};
use ruststrom_core::route::Router;
use ruststrom_core::{Instant, Shared};

use super::input::Input;
use super::words;

pub(super) fn run(data: &[u8]) {
    let made;
    let text = match data {
        [0, choices @ ..] => {
            made = words::config(&mut Input(choices));
            &made
        }
        _ => match std::str::from_utf8(data) {
            Ok(text) => text,
            Err(_) => return,
        },
    };
    let parsed = parse(text);
    let shown = render(&parsed.diagnostics, "fuzz.toml", text);
    assert_eq!(shown.is_empty(), parsed.diagnostics.is_empty());
    for d in &parsed.diagnostics {
        assert!(d.span.start <= d.span.end && d.span.end <= text.len(), "{d:?}");
        // Counted by hand; a byte order mark is nothing that an editor counts.
        let before = &text[..d.span.start];
        let line = &before[before.rfind('\n').map_or(0, |at| at + 1)..];
        assert_eq!(d.line, before.matches('\n').count() + 1, "{d:?}");
        assert_eq!(d.column, line.chars().filter(|&c| c != '\u{feff}').count() + 1, "{d:?}");
        assert!(!d.message.is_empty() && !d.message.contains('\n'), "{d:?}");
        assert!(d.help.as_ref().is_none_or(|help| !help.contains(char::is_control)), "{d:?}");
    }
    assert!(
        shown.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')),
        "a terminal is told what to do"
    );
    let errors = parsed.diagnostics.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(parsed.config.is_none(), errors, "no configuration if and only if there is an error");
    // Twice the time: now and then is enough.
    if text.len() % 8 == 0 {
        let again = parse(text);
        assert_eq!(again.config, parsed.config);
        assert_eq!(render(&again.diagnostics, "fuzz.toml", text), shown);
    }
    if let Some(config) = parsed.config {
        accepted(&config);
    }
}

fn accepted(config: &Config) {
    assert!(config.pools.len() < 65_536);
    assert!(config.listeners.len() + config.pools.len() > 0, "a configuration of nothing");
    for (place, pool) in config.pools.iter().enumerate() {
        if pool.matcher != Matcher::Any {
            assert_eq!(
                Matcher::parse(&pool.matcher.to_string()).as_ref(),
                Ok(&pool.matcher),
                "{}",
                pool.matcher
            );
        }
        assert!(pool.backends.iter().all(|b| b.weight <= 1000 && b.max_connections != Some(0)));
        assert!((1..=1000).contains(&pool.health.slow_weight_permille));
        assert!((1024..=16_384).contains(&pool.limits.head_bytes) && (8..=256).contains(&pool.limits.fields));
        assert!(config.pools[..place].iter().all(|other| other.name != pool.name), "two pools of one name");
        let labels = pool.backends.iter().map(|b| &b.label).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(labels.len(), pool.backends.len(), "two backends of one label");
    }
    let _ = Router::new(&config.pools);
    let shared = Shared::new("fuzz", 2);
    // Tables for hashing clients take longer than all the rest.
    let hashes = |strategy: &Strategy| match strategy {
        Strategy::IpHash => true,
        Strategy::StickyCookie(cookie) => *cookie.inner == Strategy::IpHash,
        _ => false,
    };
    if config.pools.iter().any(|pool| hashes(&pool.strategy)) {
        return;
    }
    let ask = SelectionInput { client: IpAddr::from([192, 0, 2, 7]), sticky: Some(0), tried: &Tried::new() };
    for (pool, state) in config.pools.iter().zip(shared.adopt(config)) {
        let mut balancer = Balancer::new(pool, state, 1);
        for _ in 0..4 {
            balancer.choose(&ask, Instant::from_millis(1_000));
        }
    }
}
