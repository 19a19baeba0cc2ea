//! Plays the corpus of HTTP/1.1 in `testdata/h1` through the whole core. Each case is sent in one piece, byte
//! by byte, and split in two at every byte of everything that is sent.

#[path = "corpus/format.rs"]
mod format;
#[path = "corpus/play.rs"]
mod play;
#[path = "corpus/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use format::{Case, Step, Verdict};
use ruststrom_core::Config;
use ruststrom_core::config as model;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/h1").join(name)
}

/// One listener, one pool for every request, one backend, no health checks, small limits.
fn config() -> Arc<Config> {
    let timeouts = model::Timeouts {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        connect: Duration::from_secs(5),
        backend_head: Duration::from_secs(30),
        stall: Duration::from_secs(30),
        tunnel: Duration::from_secs(3600),
        client_fin: Duration::from_millis(250),
        queue: Duration::from_secs(5),
        handshake: Duration::from_secs(10),
        drain: Duration::from_secs(30),
        shutdown_delay: Duration::ZERO,
    };
    let limits = model::Limits {
        head_bytes: 2048,
        fields: 32,
        target_bytes: 512,
        connections: 100,
        connections_per_ip: 0,
        buffer_bytes: 16 << 20,
        queue: 16,
        requests_per_connection: 0,
        min_upload_rate: 100,
        min_download_rate: 100,
    };
    Arc::new(Config {
        listeners: vec![model::Listener {
            name: "http".into(),
            address: "192.0.2.1:80".parse().expect("an address"),
            kind: model::ListenerKind::Http,
            explicit: true,
        }],
        pools: vec![Arc::new(model::Pool {
            name: "pool-1".into(),
            listeners: None,
            matcher: model::matcher::Matcher::Any,
            http: true,
            https: true,
            strategy: model::Strategy::RoundRobin,
            // What the first does not take goes to the second.
            backends: vec![backend("192.0.2.20:80", false), backend("192.0.2.21:80", true)],
            health: model::Health { check_every: Duration::ZERO, ..model::Health::default() },
            client: model::ClientPool { idle_timeout: Duration::from_secs(90), max_idle_per_host: 32 },
            timeouts,
            limits,
            retries: 1,
            retries_on_timeout: false,
            lenient: false,
            middlewares: vec![],
        })],
        certificates: vec![],
        trusted_proxies: vec![],
        via: true,
        timeouts,
        limits,
        workers: Some(1),
        driver: model::Driver::Mio,
        user: None,
        group: None,
        access_log: model::AccessLog { enabled: false, format: model::LogFormat::Text, path: None },
        http2: model::Http2::default(),
        watch: false,
    })
}

fn backend(address: &str, backup: bool) -> model::Backend {
    model::Backend {
        label: address.into(),
        host: address.into(),
        address: model::Address::Ip(address.parse().expect("an address")),
        protocol: model::Protocol::Http1,
        weight: 1,
        max_connections: None,
        backup,
    }
}

fn run(folder_name: &str) {
    let config = config();
    // `CORPUS_CASE=name` plays one case only.
    let only = std::env::var_os("CORPUS_CASE").map(|o| o.to_string_lossy().into_owned());
    let mut failed = Vec::new();
    let (mut cases, mut runs) = (0, 0);
    for case in format::read_folder(&folder(folder_name)) {
        if only.as_ref().is_some_and(|o| *o != case.name) {
            continue;
        }
        cases += 1;
        let played = std::panic::catch_unwind(|| play::play_all(&case, &config));
        match played {
            Ok(Ok(n)) => runs += n,
            Ok(Err(e)) => failed.push(format!("{e}\n    {}: {}", case.clause, case.rule)),
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
                failed.push(format!("{} ({}): panic: {}", case.name, case.place, text.unwrap_or_default()));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {cases} cases fail\n\n{}\n", failed.len(), failed.join("\n\n"));
    assert!(runs > 0 || only.is_some(), "no case was played");
}

#[test]
fn requests() {
    run("requests");
}

#[test]
fn responses() {
    run("responses");
}

/// The corpus has enough cases, each with a unique name, a clause, a rule and expectations.
#[test]
fn corpus_is_complete() {
    let (requests, responses) =
        (format::read_folder(&folder("requests")), format::read_folder(&folder("responses")));
    assert!(requests.len() >= 250, "{} request cases", requests.len());
    assert!(responses.len() >= 100, "{} response cases", responses.len());
    let mut names = BTreeSet::new();
    let mut sent = BTreeSet::new();
    for case in requests.iter().chain(&responses) {
        assert!(names.insert(&case.name), "{}: the name {} is taken", case.place, case.name);
        assert!(
            case.clause.starts_with("RFC ")
                || case.clause.starts_with("SPEC ")
                || case.clause.starts_with("ANCHORS"),
            "{}: clause",
            case.place
        );
        assert!(case.rule.len() > 10, "{}: rule", case.place);
        assert!(has_expectations(case), "{}: no expectation", case.place);
        assert!(sent.insert(format!("{:?}", case.steps)), "{}: the same as another case", case.place);
    }
    let refused = requests.iter().filter(|c| c.verdict == Verdict::Refuse).count();
    assert!(refused >= 100, "{refused} request cases are refused");
}

fn has_expectations(case: &Case) -> bool {
    let sends = case
        .steps
        .iter()
        .any(|s| matches!(s, Step::Send(..) | Step::End(_) | Step::Reset(_) | Step::Open(_)));
    let expects = case
        .steps
        .iter()
        .any(|s| !matches!(s, Step::Send(..) | Step::End(_) | Step::Reset(_) | Step::Wait(_) | Step::Refuse));
    sends && expects
}

/// What the comparison accepts as the expected bytes, and what not.
#[test]
fn bytes_are_compared_strictly() {
    let atoms = |text: &str| match &format::parse("here", &format!("case c\nB< {text}\n"))[0].steps[0] {
        Step::Receive(_, atoms) => atoms.clone(),
        other => panic!("{other:?}"),
    };
    let table: [(&str, &[u8], bool, Option<usize>); 13] = [
        ("ab\\r\\n", b"ab\r\nc", true, Some(4)),
        ("ab", b"aB", true, None),
        ("ab", b"a", true, None),
        ("{id}\\r\\n", b"0123456789\r\n", true, Some(12)),
        ("{id}\\r\\n", b"\r\n", true, None),
        ("{chunks hello}0\\r\\n", b"5\r\nhello\r\n0\r\n", true, Some(13)),
        ("{chunks hello}0\\r\\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n", true, None),
        ("{chunks hello}0\\r\\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n", false, Some(18)),
        ("{chunks hello}0\\r\\n", b"2\r\nhe\r\n0\r\n\r\n", false, None),
        ("{chunks hello}", b"6\r\nhello!\r\n", false, None),
        ("{chunks hello}", b"5;x\r\nhello\r\n", false, None),
        ("{chunks hello}", b"5\r\nhellx\r\n", false, None),
        ("{chunks hello}", b"5\r\nhello\n", false, None),
    ];
    for (expected, got, exact, len) in table {
        assert_eq!(play::matched(&atoms(expected), got, exact), len, "{expected} {}", got.escape_ascii());
    }
    let prefixes: [(&[u8], bool); 9] = [
        (b"", true),
        (b"a\r", true),
        (b"a\r\n3", true),
        (b"a\r\n3\r\nhe", true),
        (b"a\r\n3\r\nhel\r\n2\r\nlo\r\n", true),
        (b"a\r\n3\r\nhex", false),
        (b"a\r\n0\r\n", false),
        (b"a\r\n5\r\nhello\r\n0\r\n\r\n", false),
        (b"b", false),
    ];
    for (got, good) in prefixes {
        assert_eq!(play::is_prefix(&atoms("a\\r\\n{chunks hello}"), got), good, "{}", got.escape_ascii());
    }
}
