//! Every documented form of the configuration loads: whole files, fragments within a minimal pool, and lists
//! of alternatives one by one. In the test files, lines that begin with `#: ` are what a documented form
//! leaves for its reader to fill in.

use std::time::Duration;

use ruststrom_core::config::{
    Acme, AcmeKeyType, CertificateSource, ClientAuth, Config, Driver, ExternalAccount, ListenerKind,
    LogFormat, Middleware, Parsed, SameSite, Strategy, Timeouts, parse, render,
};

fn read(name: &str) -> String {
    let path = format!("{}/../testdata/configs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn names(folder: &str) -> Vec<String> {
    let path = format!("{}/../testdata/configs/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.ends_with(".toml"))
        .collect();
    names.sort();
    names
}

/// The text with what it leaves for its reader.
fn filled(text: &str) -> String {
    text.replace("#: ", "")
}

const LISTENERS: &str = "http_address = \"[::]:80\"\nhttps_address = \"[::]:443\"\n";
const POOL: &str = "[[backend_pools]]\naddresses = [\"127.0.0.1:8080\"]\n";

/// The smallest file with a fragment.
fn wrapped(fragment: &str) -> String {
    if fragment.contains("[[backend_pools]]") {
        format!("{LISTENERS}{fragment}")
    } else {
        format!("{LISTENERS}{POOL}{fragment}")
    }
}

/// Splits a text where a key or a header is repeated. Each part begins with the header it belongs to.
fn alternatives(text: &str) -> Vec<String> {
    let (mut all, mut seen, mut header) = (vec![String::new()], Vec::new(), String::new());
    for line in text.lines().filter(|l| !l.is_empty()) {
        let key = line.split('=').next().unwrap().trim();
        if seen.contains(&key) {
            let start = if line.starts_with('[') || header.is_empty() {
                String::new()
            } else {
                format!("{header}\n")
            };
            all.push(start);
            seen.clear();
        }
        if line.starts_with('[') {
            header = line.to_owned();
        }
        seen.push(key);
        let last = all.last_mut().unwrap();
        last.push_str(line);
        last.push('\n');
    }
    all
}

/// The configuration of a valid text.
fn valid(name: &str, text: &str) -> (Config, Parsed) {
    let parsed = parse(text);
    match parsed.config.clone() {
        Some(config) => (config, parsed),
        None => panic!("{}", render(&parsed.diagnostics, name, text)),
    }
}

fn fragment(name: &str) -> Config {
    valid(name, &wrapped(&filled(&read(&format!("fragments/{name}.toml"))))).0
}

#[test]
fn whole_files() {
    let all = names("whole");
    assert_eq!(all, ["basic-structure.toml", "network.toml", "v1-metrics.toml"]);
    for name in all {
        let (config, _) = valid(&name, &filled(&read(&format!("whole/{name}"))));
        assert!(!config.listeners.is_empty(), "{name}");
    }
    let (config, _) = valid("v1-metrics", &read("whole/v1-metrics.toml"));
    let listeners: Vec<_> =
        config.listeners.iter().map(|l| (l.address.to_string(), l.kind, l.explicit)).collect();
    assert_eq!(
        listeners,
        [
            ("0.0.0.0:8000".to_owned(), ListenerKind::Http, true),
            ("0.0.0.0:9090".to_owned(), ListenerKind::Admin, true)
        ]
    );
}

#[test]
fn the_quick_start() {
    let (config, _) = valid("quick-start", &read("quick-start.toml"));
    // Nothing listens for HTTPS without a certificate.
    let listeners: Vec<_> =
        config.listeners.iter().map(|l| (l.address.to_string(), l.kind, l.explicit)).collect();
    assert_eq!(
        listeners,
        [
            ("[::]:80".to_owned(), ListenerKind::Http, true),
            ("127.0.0.1:9090".to_owned(), ListenerKind::Admin, false)
        ]
    );
    let pool = &config.pools[0];
    assert_eq!(
        (&*pool.name, pool.http, pool.https, &pool.strategy),
        ("pool-1", true, true, &Strategy::RoundRobin)
    );
    assert_eq!(pool.matcher.to_string(), "Host('example.com')");
    let labels: Vec<&str> = pool.backends.iter().map(|b| &*b.label).collect();
    assert_eq!(labels, ["127.0.0.1:8080", "127.0.0.1:8081"]);
}

#[test]
fn every_fragment() {
    let all = names("fragments");
    assert_eq!(all.len(), 26);
    for name in all {
        let (config, _) = valid(&name, &wrapped(&filled(&read(&format!("fragments/{name}")))));
        assert_eq!(config.pools.len(), 1, "{name}");
    }
}

#[test]
fn what_is_left_to_the_reader_is_reported_as_missing() {
    for (name, expected) in
        [("fragments/health", 1), ("fragments/middleware-order", 6), ("whole/basic-structure", 2)]
    {
        let text = read(&format!("{name}.toml"));
        let text = if name.starts_with("whole") { text } else { wrapped(&text) };
        let parsed = parse(&text);
        let missing = parsed
            .diagnostics
            .iter()
            .filter(|d| d.message.starts_with("missing") || d.message.contains("needs `Local`"))
            .count();
        assert_eq!((parsed.config.is_some(), missing), (false, expected), "{name}");
    }
}

#[test]
fn every_alternative() {
    // (file, what it stands in, how many)
    let cases = [
        ("health-adjusted", "pool", 2),
        ("health-timing", "[backend_pools.health_config]\n", 3),
        ("matchers", "pool", 7),
        ("max-body-size", "[backend_pools.middlewares.MaxBodySize]\n", 4),
        ("network", "whole", 3),
        ("rate-limiter-raised", "pool", 2),
        ("rate-limiter", "pool", 3),
        ("v1-strategy", "pool", 4),
    ];
    let files: Vec<String> = cases.iter().map(|(name, ..)| format!("{name}.toml")).collect();
    assert_eq!(names("alternatives"), files);
    for (name, place, count) in cases {
        let all = alternatives(&read(&format!("alternatives/{name}.toml")));
        assert_eq!(all.len(), count, "{name}");
        for text in all {
            let text = match place {
                "whole" => text,
                "pool" => wrapped(&text),
                header => wrapped(&format!("{header}{text}")),
            };
            valid(name, &text);
        }
    }
}

#[test]
fn strategies() {
    let cookie = |cookie_name: &str| {
        Strategy::StickyCookie(ruststrom_core::config::StickyCookie {
            cookie_name: cookie_name.into(),
            http_only: true,
            secure: true,
            same_site: SameSite::Strict,
            inner: Box::new(Strategy::RoundRobin),
        })
    };
    let files = [
        ("round-robin", Strategy::RoundRobin),
        ("random", Strategy::Random),
        ("ip-hash", Strategy::IpHash),
        ("least-connection", Strategy::LeastConnection),
        ("strategy-table", Strategy::RoundRobin),
        ("sticky-cookie", cookie("RUSTSTROM_SESSION")),
    ];
    for (name, expected) in files {
        assert_eq!(fragment(name).pools[0].strategy, expected, "{name}");
    }
    let texts = [
        ("strategy = \"LeastConnection\"", Strategy::LeastConnection),
        ("[backend_pools.strategy.IPHash]", Strategy::IpHash),
        ("strategy.Random = {}", Strategy::Random),
        ("strategy.StickyCookie = { cookie_name = \"s\", same_site = \"Strict\" }", cookie("s")),
        (
            "[backend_pools.strategy.StickyCookie]\ncookie_name = \"s\"\nsame_site = \"Strict\"\ninner = \"RoundRobin\"",
            cookie("s"),
        ),
        (
            "[backend_pools.strategy.StickyCookie]\ncookie_name = \"s\"\nsame_site = \"Strict\"\n[backend_pools.strategy.StickyCookie.inner.RoundRobin]",
            cookie("s"),
        ),
    ];
    for (text, expected) in texts {
        assert_eq!(valid(text, &wrapped(text)).0.pools[0].strategy, expected, "{text}");
    }
}

#[test]
fn middlewares_keep_the_order_of_the_file() {
    let order = |c: &Config| c.pools[0].middlewares.iter().map(Middleware::name).collect::<Vec<_>>();
    assert_eq!(order(&fragment("middleware-order")), ["RateLimiter", "Authentication", "Compression"]);
    assert_eq!(
        order(&fragment("all-middlewares")),
        [
            "HttpsRedirector",
            "RateLimiter",
            "MaxBodySize",
            "Authentication",
            "Compression",
            "CustomErrorPages"
        ]
    );
    let inline = "middlewares = { MaxBodySize = { limit = 1 }, Compression = {}, HttpsRedirector = {} }";
    assert_eq!(
        order(&valid("inline", &wrapped(inline)).0),
        ["MaxBodySize", "Compression", "HttpsRedirector"]
    );
}

#[test]
fn a_limit_of_bytes_counts_in_powers_of_1024() {
    let table = [
        ("10485760", 10_485_760),
        ("\"10MB\"", 10_485_760),
        ("\"10 mib\"", 10_485_760),
        ("\"64k\"", 65_536),
        ("\"1GB\"", 1 << 30),
        ("\"0\"", 0),
        ("0x10", 16),
    ];
    for (text, limit) in table {
        let text = format!("[backend_pools.middlewares.MaxBodySize]\nlimit = {text}");
        let config = valid(&text, &wrapped(&text)).0;
        assert_eq!(config.pools[0].middlewares, [Middleware::MaxBodySize { limit }], "{text}");
    }
}

#[test]
fn values_of_fragments() {
    let pages = |c: &Config| match &c.pools[0].middlewares[0] {
        Middleware::CustomErrorPages { pages } => {
            pages.iter().map(|(s, p)| (*s, p.path.to_string())).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        pages(&fragment("v1-custom-error-pages")),
        [(404, "../errorpages/404.html".to_owned()), (500, "../errorpages/500.html".to_owned())]
    );
    assert_eq!(pages(&fragment("custom-error-pages"))[3], (503, "/var/www/errors/503.html".to_owned()));

    let local = CertificateSource::Local {
        certificate_path: "certs/example.com.crt".into(),
        private_key_path: "certs/example.com.key".into(),
    };
    let acme = |staging, email: &str, persist_dir: &str| {
        CertificateSource::Acme(Acme { staging, ..Acme::new(email, persist_dir) })
    };
    let sources = [
        ("certificate-local", local.clone()),
        ("v1-certificate-local", local),
        ("certificate-acme", acme(false, "admin@example.com", "acme-cache")),
        ("certificate-acme-staging", acme(true, "admin@example.com", "acme-cache")),
        ("v1-certificate-acme", acme(true, "admin@example.com", "acme-cache")),
        ("certificate-acme-absolute", acme(false, "security@example.com", "/var/lib/rust-strom/acme")),
    ];
    for (name, expected) in sources {
        let config = fragment(name);
        assert_eq!(
            (&*config.certificates[0].name, &config.certificates[0].source),
            ("example.com", &expected),
            "{name}"
        );
        // With a certificate there is an HTTPS listener, between those of HTTP and the admin listener.
        let kinds: Vec<_> = config.listeners.iter().map(|l| l.kind).collect();
        assert_eq!(kinds, [ListenerKind::Http, ListenerKind::Https, ListenerKind::Admin], "{name}");
    }

    let client = fragment("client").pools[0].client;
    assert_eq!((client.idle_timeout, client.max_idle_per_host), (Duration::from_secs(90), 64));
    let health = &fragment("pool").pools[0].health;
    assert_eq!(
        (health.slow_threshold.as_millis(), health.timeout.as_millis(), &*health.path),
        (300, 500, "/")
    );
}

#[test]
fn what_an_authority_is_asked_for() {
    let required = "email = \"a@b.example\"\npersist_dir = \"p\"\n";
    let acme = Acme::new("a@b.example", "p");
    let url = |url: &str| Acme { directory_url: Some(url.into()), ..acme.clone() };
    let key_type = |key_type| Acme { key_type, ..acme.clone() };
    let key = |text: &str, bytes: &[u8]| {
        let eab = ExternalAccount { kid: "k-1".into(), hmac_key: bytes.into() };
        (
            format!("eab = {{ kid = \"k-1\", hmac_key = \"{text}\" }}\n"),
            Acme { eab: Some(eab), ..acme.clone() },
        )
    };
    let names = |names: &[&str]| Acme { names: names.iter().map(|&n| n.into()).collect(), ..acme.clone() };
    let cases = [
        (String::new(), acme.clone()),
        ("staging = true\n".into(), Acme { staging: true, ..acme.clone() }),
        ("directory_url = \"https://ca.example/dir\"\n".into(), url("https://ca.example/dir")),
        (
            "directory_url = \"https://ca.example:14000/dir?x=1\"\n".into(),
            url("https://ca.example:14000/dir?x=1"),
        ),
        ("directory_url = \"https://10.0.0.1\"\n".into(), url("https://10.0.0.1")),
        ("directory_url = \"http://127.0.0.1:4000/dir\"\n".into(), url("http://127.0.0.1:4000/dir")),
        ("directory_url = \"http://[::1]:4000/dir\"\n".into(), url("http://[::1]:4000/dir")),
        ("directory_url = \"http://localhost/dir\"\n".into(), url("http://localhost/dir")),
        (
            "directory_url = \"https://ca.example/dir\"\nca_file = \"ca.pem\"\n".into(),
            Acme { ca_file: Some("ca.pem".into()), ..url("https://ca.example/dir") },
        ),
        key("Zm9vYmFy", b"foobar"),
        key("-_-_Zg", &[0xfb, 0xff, 0xbf, b'f']),
        key("Zg==", b"f"),
        ("names = \"www.a.example\"\n".into(), names(&["www.a.example"])),
        ("names = [\"WWW.a.example.\", \"b.example\"]\n".into(), names(&["www.a.example", "b.example"])),
        ("names = []\n".into(), acme.clone()),
        ("key_type = \"P-256\"\n".into(), acme.clone()),
        ("key_type = \"P-384\"\n".into(), key_type(AcmeKeyType::P384)),
        ("key_type = \"RSA-2048\"\n".into(), key_type(AcmeKeyType::Rsa2048)),
        ("profile = \"shortlived\"\n".into(), Acme { profile: Some("shortlived".into()), ..acme.clone() }),
    ];
    for (lines, expected) in cases {
        let inline = (required.to_owned() + &lines).trim_end().replace('\n', ", ");
        for table in [
            format!("type = \"ACME\"\n{required}{lines}"),
            format!("ACME = {{ {inline} }}\n"),
            format!("[certificates.\"a.example\".ACME]\n{required}{lines}"),
        ] {
            let text = wrapped(&format!("[certificates.\"a.example\"]\ndefault = true\n{table}"));
            let (config, parsed) = valid("ACME", &text);
            let certificate = &config.certificates[0];
            assert_eq!(certificate.source, CertificateSource::Acme(expected.clone()), "{text}");
            assert!(certificate.default && parsed.diagnostics.is_empty(), "{text}\n{:?}", parsed.diagnostics);
            let mut served: Vec<&str> = expected.names.iter().map(|name| &**name).collect();
            served.insert(0, "a.example");
            assert_eq!(certificate.served_names().collect::<Vec<_>>(), served);
            let place = parsed.places.certificates[0].persist_dir.clone();
            assert_eq!(place.map(|place| &text[place]), Some("\"p\""));
        }
    }
    let (_, secret) = key("c2VjcmV0", b"secret");
    assert!(!format!("{secret:?}").contains("115"), "the key is not shown: {secret:?}");
}

#[test]
fn what_clients_have_to_show() {
    use ClientAuth::{Optional, Required};
    let local = "Local = { certificate_path = \"c\", private_key_path = \"k\" }\n";
    let flat = "type = \"Local\"\ncertificate_path = \"c\"\nprivate_key_path = \"k\"\n";
    let acme = "ACME = { email = \"a@b\", persist_dir = \"p\" }\n";
    for source in [local, flat, acme] {
        for (lines, ca, auth) in [
            ("", None, Required),
            ("client_ca = \"ca.pem\"\n", Some("ca.pem"), Required),
            ("client_ca = \"ca.pem\"\nclient_auth = \"required\"\n", Some("ca.pem"), Required),
            ("client_ca = \"ca.pem\"\nclient_auth = \"optional\"\n", Some("ca.pem"), Optional),
        ] {
            let text = wrapped(&format!("[certificates.a]\n{lines}{source}"));
            let (config, _) = valid("client_ca", &text);
            let certificate = &config.certificates[0];
            assert_eq!((certificate.client_ca.as_deref(), certificate.client_auth), (ca, auth), "{text}");
            assert!(certificate.sans.is_empty(), "the core opens no file");
        }
    }
}

#[test]
fn the_files_of_certificates_have_places() {
    let text = wrapped(
        "[certificates.\"a.example\"]\nclient_ca = \"ca.pem\"\nLocal = { private_key_path = \"k.pem\", certificate_path = \"c.pem\" }\n\
         [certificates.\"b.example\"]\ntype = \"Local\"\ncertificate_path = \"d.pem\"\nprivate_key_path = \"l.pem\"\n\
         [certificates.\"c.example\"]\nACME = { email = \"a@b\", persist_dir = \"p\" }\n",
    );
    let (config, parsed) = valid("places", &text);
    let at = |span: &Option<std::ops::Range<usize>>| span.clone().map(|span| &text[span]);
    let places = parsed.places.certificates.iter();
    let found: Vec<_> = places
        .map(|p| (&text[p.name.clone()], at(&p.certificate_path), at(&p.private_key_path), at(&p.client_ca)))
        .collect();
    assert_eq!(
        found,
        [
            ("\"a.example\"", Some("\"c.pem\""), Some("\"k.pem\""), Some("\"ca.pem\"")),
            ("\"b.example\"", Some("\"d.pem\""), Some("\"l.pem\""), None),
            ("\"c.example\"", None, None, None),
        ]
    );
    assert_eq!(found.len(), config.certificates.len());
}

#[test]
fn drivers() {
    for (line, expected) in
        [("", Driver::Mio), ("driver = \"mio\"", Driver::Mio), ("driver = \"smol\"", Driver::Smol)]
    {
        let (config, _) = valid("driver", &format!("{line}\n{}", wrapped("")));
        assert_eq!(config.driver, expected, "{line}");
    }
}

#[test]
fn backends_as_tables() {
    let text = wrapped(
        "[[backend_pools]]\naddresses = [\"a:1\", { address = \"b:2\", weight = 2, max_connections = 100, backup = true }, { address = \"http://[::1]:3\" }]",
    );
    let (config, _) = valid("tables", &text);
    let found: Vec<_> =
        config.pools[0].backends.iter().map(|b| (&*b.label, b.weight, b.max_connections, b.backup)).collect();
    assert_eq!(found, [("a:1", 1, None, false), ("b:2", 2, Some(100), true), ("[::1]:3", 1, None, false)]);
}

#[test]
fn listeners() {
    use ListenerKind::{Admin, Http};
    type Expected = &'static [(&'static str, ListenerKind, bool)];
    let cases: [(&str, Expected); 8] = [
        (
            "http_address = \"127.0.0.1:80\"",
            &[("127.0.0.1:80", Http, true), ("127.0.0.1:9090", Admin, false)],
        ),
        (
            "http_address = [\"127.0.0.1:80\", \"[::1]:80\"]\nmetrics_address = false",
            &[("127.0.0.1:80", Http, true), ("[::1]:80", Http, true)],
        ),
        ("http_address = \"127.0.0.1:80\"\nmetrics_address = \"\"", &[("127.0.0.1:80", Http, true)]),
        (
            "http_address = \"127.0.0.1:80\"\nmetrics_address = \"0.0.0.0:9090\"",
            &[("127.0.0.1:80", Http, true), ("0.0.0.0:9090", Admin, true)],
        ),
        // There is no admin listener at its default address if another listener has that address.
        ("http_address = \"[::]:9090\"", &[("[::]:9090", Http, true)]),
        ("http_address = \"127.0.0.1:9090\"", &[("127.0.0.1:9090", Http, true)]),
        // With port 0 the system chooses another port each time.
        (
            "http_address = [\"127.0.0.1:0\", \"127.0.0.1:0\"]",
            &[("127.0.0.1:0", Http, true), ("127.0.0.1:0", Http, true), ("127.0.0.1:9090", Admin, false)],
        ),
        ("https_address = \"127.0.0.1:443\"", &[("127.0.0.1:9090", Admin, false)]),
    ];
    for (text, expected) in cases {
        let (config, _) = valid(text, &format!("{text}\n{POOL}"));
        let found: Vec<_> =
            config.listeners.iter().map(|l| (l.address.to_string(), l.kind, l.explicit)).collect();
        let expected: Vec<_> = expected.iter().map(|&(a, k, e)| (a.to_owned(), k, e)).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn durations() {
    let cases = [
        ("10", Duration::from_secs(10)),
        ("0.25", Duration::from_millis(250)),
        ("\"500ms\"", Duration::from_millis(500)),
        ("\"1.5s\"", Duration::from_millis(1500)),
        ("\"10 s\"", Duration::from_secs(10)),
        ("\"2m\"", Duration::from_secs(120)),
        ("\"1h\"", Duration::from_secs(3600)),
        ("\"1d\"", Duration::from_secs(86400)),
        ("0x10", Duration::from_secs(16)),
        ("0", Duration::MAX),
        ("\"0s\"", Duration::MAX),
    ];
    for (text, expected) in cases {
        let (config, _) = valid(text, &format!("{LISTENERS}[timeouts]\nhead = {text}\n{POOL}"));
        assert_eq!(config.timeouts.head, expected, "{text}");
    }
    // In health checks a bare number counts milliseconds, and zero seconds of `check_every` are no checks.
    let (config, _) = valid(
        "health",
        &wrapped("[backend_pools.health_config]\ntimeout = 1500.5\nslow_threshold = \"1s\"\ncheck_every = 0"),
    );
    let health = &config.pools[0].health;
    assert_eq!(
        (health.timeout, health.slow_threshold, health.check_every),
        (Duration::from_micros(1_500_500), Duration::from_secs(1), Duration::ZERO)
    );
}

#[test]
fn a_pool_inherits_and_overrides() {
    let text = format!(
        "{LISTENERS}[timeouts]\nconnect = 1\nstall = 2\n[limits]\nqueue = 7\n[health_interval]\ncheck_every = 3\n{POOL}[backend_pools.timeouts]\nstall = 9\n[backend_pools.limits]\nfields = 50\n{POOL}"
    );
    let (config, _) = valid("inherit", &text);
    let [a, b] = config.pools.as_slice() else { panic!("two pools") };
    let seconds = |t: &Timeouts| (t.connect.as_secs(), t.stall.as_secs());
    assert_eq!(
        (seconds(&a.timeouts), seconds(&b.timeouts), seconds(&config.timeouts)),
        ((1, 9), (1, 2), (1, 2))
    );
    assert_eq!(((a.limits.queue, a.limits.fields), (b.limits.queue, b.limits.fields)), ((7, 50), (7, 100)));
    assert_eq!(a.health.check_every, Duration::from_secs(3));
}

#[test]
fn the_reference_states_the_defaults() {
    let (reference, parsed) = valid("reference", &read("reference.toml"));
    assert!(
        parsed.diagnostics.is_empty(),
        "{}",
        render(&parsed.diagnostics, "reference", &read("reference.toml"))
    );
    let (mut bare, _) = valid("bare", &format!("http_address = \"[::]:80\"\n{POOL}"));
    // The reference states the metrics address, which is the only difference.
    assert!(!bare.listeners[1].explicit);
    bare.listeners[1].explicit = true;
    assert_eq!(reference, bare);
    assert_eq!(
        (reference.workers, reference.access_log.format, &reference.access_log.path),
        (None, LogFormat::Text, &None)
    );
}

#[test]
fn the_reference_names_every_key() {
    let text = read("reference.toml");
    let keys = [
        "http_address",
        "https_address",
        "metrics_address",
        "prometheus_metrics_address",
        "check_every",
        "backend_pools",
        "certificates",
        "head",
        "idle",
        "connect",
        "backend_head",
        "stall",
        "tunnel",
        "queue",
        "handshake",
        "drain",
        "shutdown_delay",
        "head_bytes",
        "fields",
        "target_bytes",
        "connections",
        "connections_per_ip",
        "buffer_bytes",
        "requests_per_connection",
        "min_upload_rate",
        "min_download_rate",
        "extended_connect",
        "initial_window",
        "connection_window",
        "max_concurrent_streams",
        "max_frame_size",
        "header_table_size",
        "backend_window",
        "keepalive",
        "backend_keepalive",
        "trusted_proxies",
        "via",
        "workers",
        "driver",
        "enabled",
        "format",
        "path",
        "name",
        "matcher",
        "addresses",
        "schemes",
        "strategy",
        "retries",
        "retries_on_timeout",
        "lenient",
        "address",
        "weight",
        "max_connections",
        "backup",
        "timeout",
        "slow_threshold",
        "rise",
        "fall",
        "ramp_up",
        "slow_weight",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "cookie_name",
        "http_only",
        "secure",
        "same_site",
        "inner",
        "limit",
        "window_sec",
        "ldap_address",
        "user_directory",
        "rdn_identifier",
        "recursive",
        "location",
        "errors",
        "default",
        "certificate_path",
        "private_key_path",
        "client_ca",
        "client_auth",
        "staging",
        "email",
        "persist_dir",
    ];
    for key in keys {
        assert!(text.contains(key), "{key}");
    }
}

#[test]
fn ten_thousand_pools() {
    let mut text = LISTENERS.to_owned();
    for i in 0..10_000 {
        text.push_str(&format!(
            "[[backend_pools]]\nmatcher = \"Host('app-{i}.example.com')\"\naddresses = [\"10.0.0.1:{}\"]\n",
            1000 + i
        ));
    }
    assert_eq!(valid("many", &text).0.pools.len(), 10_000);
}

#[test]
fn as_many_certificates_as_can_be_counted() {
    let line =
        |i: u32| format!("a{i} = {{ Local = {{ certificate_path = \"c\", private_key_path = \"k\" }} }}\n");
    let mut text = wrapped("[certificates]\n");
    text.extend((0..65_535).map(line));
    assert_eq!(valid("many", &text).0.certificates.len(), 65_535);
    text.push_str(&line(65_535));
    let messages: Vec<String> = parse(&text).diagnostics.into_iter().map(|d| d.message).collect();
    assert_eq!(messages, ["there are more than 65535 certificates"]);
}
