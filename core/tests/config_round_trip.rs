//! Random pools written as a file and parsed: what was written is read, and what was left out has its
//! default.

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use ruststrom_core::config::{
    self, Backend, ClientPool, Health, Limits, Matcher, Protocol, Strategy as Choosing, Timeouts,
};

/// A backend: last byte of its address, port, `weight`, `max_connections`, `backup`.
type WrittenBackend = (u8, u16, Option<u32>, Option<u32>, bool);

/// What is written of a pool; `None` for a key that is left out.
#[derive(Clone, Debug)]
struct WrittenPool {
    strategy: Choosing,
    retries: Option<u8>,
    matcher: Option<&'static str>,
    backends: Vec<WrittenBackend>,
    rise_and_fall: Option<(u32, u32)>,
    idle: Option<(u64, u32)>,
    connect: Option<u64>,
    /// `head_bytes`, `fields`.
    limits: Option<(u32, u32)>,
}

const MATCHERS: &[&str] = &[
    "Host('a.example')",
    "PathPrefix('/x') && !Method('POST')",
    "Query('a', 'b\\'c') || HeaderRegexp('x-y', '^\\d+\\.')",
];

fn pool() -> impl Strategy<Value = WrittenPool> {
    let strategy = prop_oneof![
        Just(Choosing::RoundRobin),
        Just(Choosing::Random),
        Just(Choosing::IpHash),
        Just(Choosing::LeastConnection)
    ];
    let backend = (
        any::<u8>(),
        1..=u16::MAX,
        proptest::option::of(0..=1000_u32),
        proptest::option::of(0..100_000_u32),
        any::<bool>(),
    );
    // Each address once: a repeated one is an error.
    let backends = proptest::collection::vec(backend, 1..6).prop_map(|mut all| {
        all.sort();
        all.dedup_by_key(|b| (b.0, b.1));
        all
    });
    (
        strategy,
        proptest::option::of(0..=10_u8),
        proptest::option::of(proptest::sample::select(MATCHERS)),
        backends,
        proptest::option::of((1..=100_u32, 1..=100_u32)),
        proptest::option::of((0..10_000_u64, 0..1000_u32)),
        proptest::option::of(0..1000_u64),
        proptest::option::of((1024..=16_384_u32, 8..=256_u32)),
    )
        .prop_map(|(strategy, retries, matcher, backends, rise_and_fall, idle, connect, limits)| {
            WrittenPool { strategy, retries, matcher, backends, rise_and_fall, idle, connect, limits }
        })
}

/// The text of a file.
fn write_file(pools: &[WrittenPool], connect: Option<u64>) -> String {
    let mut text = "http_address = '192.0.2.1:80'\n".to_owned();
    let mut put = |line: String| writeln!(text, "{line}").expect("memory");
    if let Some(connect) = connect {
        put(format!("timeouts = {{ connect = {connect} }}"));
    }
    for (n, p) in pools.iter().enumerate() {
        put(format!(
            "[[backend_pools]]\nname = \"p{n}\"\nstrategy = \"{}\"",
            match p.strategy {
                Choosing::RoundRobin => "RoundRobin",
                Choosing::Random => "Random",
                Choosing::IpHash => "IPHash",
                _ => "LeastConnection",
            }
        ));
        if let Some(retries) = p.retries {
            put(format!("retries = {retries}"));
        }
        if let Some(matcher) = p.matcher {
            put(format!("matcher = '''{matcher}'''"));
        }
        put("addresses = [".into());
        for (ip, port, weight, cap, backup) in &p.backends {
            let more =
                [weight.map(|w| format!(", weight = {w}")), cap.map(|c| format!(", max_connections = {c}"))];
            let more: String = more.into_iter().flatten().collect();
            put(format!("  {{ address = \"10.0.0.{ip}:{port}\"{more}, backup = {backup} }},"));
        }
        put("]".into());
        if let Some((rise, fall)) = p.rise_and_fall {
            put(format!("[backend_pools.health_config]\nrise = {rise}\nfall = {fall}"));
        }
        if let Some((seconds, max_idle)) = p.idle {
            put(format!(
                "[backend_pools.client]\npool_idle_timeout = {seconds}\npool_max_idle_per_host = {max_idle}"
            ));
        }
        if let Some(connect) = p.connect {
            put(format!("[backend_pools.timeouts]\nconnect = {connect}"));
        }
        if let Some((head_bytes, fields)) = p.limits {
            put(format!("[backend_pools.limits]\nhead_bytes = {head_bytes}\nfields = {fields}"));
        }
    }
    text
}

/// A timeout as the file writes it: 0 turns it off.
fn seconds(n: u64) -> Duration {
    if n == 0 { Duration::MAX } else { Duration::from_secs(n) }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        pools in proptest::collection::vec(pool(), 1..5),
        connect in proptest::option::of(0..1000_u64),
    ) {
        let text = write_file(&pools, connect);
        let parsed = config::parse(&text);
        let Some(read) = parsed.config else { panic!("{}\n{text}", config::render(&parsed.diagnostics, "f", &text)) };
        let connect = connect.map_or(Timeouts::default().connect, seconds);
        let base = Timeouts { connect, ..Timeouts::default() };
        let expected = (base, Limits::default(), pools.len());
        prop_assert_eq!((read.timeouts, read.limits, read.pools.len()), expected);
        for (n, (read, p)) in read.pools.iter().zip(&pools).enumerate() {
            prop_assert_eq!((&*read.name, read.http, read.https), (&*format!("p{n}"), true, true));
            prop_assert_eq!((&read.strategy, read.retries), (&p.strategy, p.retries.unwrap_or(1)));
            let matcher = p.matcher.map_or(Matcher::Any, |m| Matcher::parse(m).expect("a good matcher"));
            prop_assert_eq!(&read.matcher, &matcher);
            let backends: Vec<Backend> = p.backends.iter().map(|&(ip, port, weight, cap, backup)| {
                let label = format!("10.0.0.{ip}:{port}");
                Backend {
                    address: config::Address::Ip(label.parse().expect("an address")),
                    host: label.as_str().into(),
                    label: label.into(),
                    protocol: Protocol::Http1,
                    weight: weight.unwrap_or(1),
                    max_connections: cap.filter(|&cap| cap > 0),
                    backup,
                }
            }).collect();
            prop_assert_eq!(&read.backends, &backends);
            let (rise, fall) = p.rise_and_fall.unwrap_or((1, 1));
            prop_assert_eq!(&read.health, &Health { rise, fall, ..Health::default() });
            let client = p.idle.map_or(ClientPool::default(), |(time, max_idle_per_host)| ClientPool {
                idle_timeout: seconds(time),
                max_idle_per_host,
            });
            prop_assert_eq!(read.client, client);
            let connect = p.connect.map_or(base.connect, seconds);
            prop_assert_eq!(read.timeouts, Timeouts { connect, ..base });
            let usual = (Limits::default().head_bytes, Limits::default().fields);
            let (head_bytes, fields) = p.limits.unwrap_or(usual);
            prop_assert_eq!(read.limits, Limits { head_bytes, fields, ..Limits::default() });
            prop_assert!(read.middlewares.is_empty());
        }
    }
}
