//! Suggestions of `--check`: each is put in place of the wrong text, and must be accepted.

mod feed_back;

use proptest::prelude::*;
use ruststrom_core::config::{Parsed, parse, render};

/// A file with `top` at its top and `rest` within its pool.
fn file(top: &str, rest: &str) -> String {
    format!(
        "http_address = \"[::]:80\"\n{top}\n[[backend_pools]]\naddresses = [\"127.0.0.1:8080\"]\n{rest}\n"
    )
}

/// Follows the first suggestion of each diagnostic, one after the other, until there is none; the last text.
fn corrected(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..50 {
        let Parsed { diagnostics, .. } = parse(&text);
        let Some(first) = diagnostics.iter().find_map(|d| d.suggestions.first()) else { return text };
        text = feed_back::followed(&text, first);
    }
    panic!("suggestions never end: {text}");
}

/// Follows every suggestion; at the end the file is accepted without a warning.
fn accepted(text: &str) -> String {
    assert!(feed_back::every_suggestion(text) > 0, "no suggestion: {text}\n{:#?}", parse(text).diagnostics);
    let text = corrected(text);
    let Parsed { diagnostics, config, .. } = parse(&text);
    assert!(config.is_some() && diagnostics.is_empty(), "{}", render(&diagnostics, "f", &text));
    text
}

#[test]
fn of_the_top() {
    // (the wrong line, what is right)
    let cases = [
        ("https_address = 8443", "https_address = \"[::]:8443\""),
        ("workres = 2", "workers = 2"),
        ("threads = 2", "workers = 2"),
        ("workers = \"2\"", "workers = 2"),
        ("driver = \"Smol\"", "driver = \"smol\""),
        ("driver = \"epoll\"", "driver = \"mio\""),
        ("metrics_address = \":9090\"", "metrics_address = \"[::]:9090\""),
        ("metrics_address = true", "metrics_address = \"127.0.0.1:9090\""),
        ("metrics_address = \"::1:8080\"", "metrics_address = \"[::1]:8080\""),
        ("metrics_address = \"http://localhost:9100/metrics\"", "metrics_address = \"127.0.0.1:9100\""),
        ("trusted_proxies = \"10.*\"", "trusted_proxies = \"10.0.0.0/8\""),
        ("trusted_proxies = [\"10.0.0.0/255.0.0.0\"]", "trusted_proxies = [\"10.0.0.0/8\"]"),
        ("trusted_proxies = [\"proxy\"]", "trusted_proxies = [\"10.0.0.0/8\"]"),
        ("timeouts.head = \"1 minute\"", "timeouts.head = \"1m\""),
        ("timeouts.head = \"1m30s\"", "timeouts.head = \"90s\""),
        ("timeouts.head = \"30\"", "timeouts.head = \"30s\""),
        ("timeouts.head = 30000", "timeouts.head = \"30000ms\""),
        ("timeouts.haed = 3", "timeouts.head = 3"),
        ("access_log.enabled = \"off\"", "access_log.enabled = false"),
        ("access_log.enabled = 1", "access_log.enabled = true"),
        ("access_log = \"/tmp/a.log\"", "access_log = { path = \"/tmp/a.log\" }"),
        ("limits.head_bytes = \"8k\"", "limits.head_bytes = 8192"),
        ("limits.buffer_bytes = \"64 MB\"", "limits.buffer_bytes = 67108864"),
        ("timeouts.client = 7", "timeouts.idle = 7"),
        ("http2 = false", "http2 = { enabled = false }"),
        ("http2.initial_windw = 65536", "http2.initial_window = 65536"),
        ("http2.initial_window = \"64k\"", "http2.initial_window = 65536"),
        ("http2.max_concurent_streams = 7", "http2.max_concurrent_streams = 7"),
        ("http2.keepalive = 60000", "http2.keepalive = \"60000ms\""),
        (
            "http2 = { initial_window = 131072, connection_window = 65535 }",
            "http2 = { initial_window = 65535, connection_window = 65535 }",
        ),
        ("[[timeouts]]\nhead = 3", "[timeouts]\nhead = 3"),
        ("access_log.format = \"JSON\"", "access_log.format = \"json\""),
        ("limits.max_conns = 7", "limits.max_conns = 7"),
    ];
    for (wrong, right) in cases {
        let text = file(wrong, "");
        if wrong == right {
            assert_eq!(corrected(&text), text, "nothing is known to be meant");
            continue;
        }
        // Without a certificate a listener of HTTPS is doubtful, whatever its address.
        if wrong.starts_with("https") {
            assert_eq!(corrected(&text), file(right, ""));
        } else {
            assert_eq!(accepted(&text), file(right, ""));
        }
    }
    for (wrong, right) in [
        ("http_adress = \"[::]:80\"", "http_address = \"[::]:80\""),
        ("listen = \"[::]:80\"", "http_address = \"[::]:80\""),
        ("http_address = 80", "http_address = \"[::]:80\""),
        ("http_address = \"::1:8080\"", "http_address = \"[::1]:8080\""),
        ("http_address = \"*:80\"", "http_address = \"[::]:80\""),
        ("workers = 1", "http_address = \"[::]:80\"\nworkers = 1"),
    ] {
        let pool = "\n[[backend_pools]]\naddresses = [\"127.0.0.1:8080\"]\n";
        assert_eq!(accepted(&format!("{wrong}{pool}")), format!("{right}{pool}"));
    }
}

#[test]
fn of_a_certificate() {
    let local = "Local = { certificate_path = \"c\", private_key_path = \"k\" }";
    for (wrong, right) in [
        ("ca_file = \"ca\"", "client_ca = \"ca\""),
        ("ssl_client_certificate = \"ca\"", "client_ca = \"ca\""),
        (
            "client_ca = \"ca\"\nssl_verify_client = \"optional\"",
            "client_ca = \"ca\"\nclient_auth = \"optional\"",
        ),
        ("client_ca = \"ca\"\nclient_auth = \"Optional\"", "client_ca = \"ca\"\nclient_auth = \"optional\""),
        ("client_auth = \"optional\"", "client_ca = \"certs/clients-ca.pem\"\nclient_auth = \"optional\""),
    ] {
        let text = |lines: &str| {
            file("https_address = \"[::]:443\"", &format!("\n[certificates.\"a.example\"]\n{lines}\n{local}"))
        };
        assert_eq!(accepted(&text(wrong)), text(right), "{wrong}");
    }
}

#[test]
fn of_an_authority() {
    for (wrong, right) in [
        ("directory_url = \"ca.example/dir\"", "directory_url = \"https://ca.example/dir\""),
        ("directory_url = \"http://ca.example/dir\"", "directory_url = \"https://ca.example/dir\""),
        ("acme_server = \"https://ca.example/dir\"", "directory_url = \"https://ca.example/dir\""),
        (
            "directory_url = \"https://ca.example/dir\", staging = true",
            "directory_url = \"https://ca.example/dir\", staging = false",
        ),
        ("eab = { kid = \"k\", hmac_key = \"a+/b\" }", "eab = { kid = \"k\", hmac_key = \"a-_b\" }"),
        ("eab = { kid = \"k\", hmac = \"ab-_\" }", "eab = { kid = \"k\", hmac_key = \"ab-_\" }"),
        ("names = [\"https://www.a.example/\"]", "names = [\"www.a.example\"]"),
        ("names = [\"www.a.example:443\"]", "names = [\"www.a.example\"]"),
        ("domains = [\"www.a.example\"]", "names = [\"www.a.example\"]"),
        ("key_type = \"p256\"", "key_type = \"P-256\""),
        ("key_type = \"RSA\"", "key_type = \"P-256\""),
        ("key_type = \"rsa2048\"", "key_type = \"RSA-2048\""),
        ("staging = \"yes\"", "staging = true"),
    ] {
        let text = |inline: &str| {
            let acme = format!("ACME = {{ email = \"a@b\", persist_dir = \"p\", {inline} }}");
            file("https_address = \"[::]:443\"", &format!("\n[certificates.\"a.example\"]\n{acme}"))
        };
        assert_eq!(accepted(&text(wrong)), text(right), "{wrong}");
    }
    let flat = |email: &str| {
        let lines = format!("type = \"ACME\"\nemail = \"{email}\"\npersist_dir = \"p\"");
        file("https_address = \"[::]:443\"", &format!("\n[certificates.\"a.example\"]\n{lines}"))
    };
    assert_eq!(accepted(&flat("mailto:a@b.example")), flat("a@b.example"));
}

#[test]
fn of_a_pool() {
    let cases = [
        ("schems = [\"HTTP\"]", "schemes = [\"HTTP\"]"),
        ("schemes = [\"http\"]", "schemes = [\"HTTP\"]"),
        ("schemes = \"HTTP\"", "schemes = [\"HTTP\"]"),
        ("schemes = \"http\"", "schemes = [\"HTTP\"]"),
        ("rule = \"Host('a')\"", "matcher = \"Host('a')\""),
        ("strategy = \"round_robin\"", "strategy = \"RoundRobin\""),
        ("strategy = \"least_conn\"", "strategy = \"LeastConnection\""),
        ("strategy = \"weighted\"", "strategy = \"RoundRobin\""),
        ("strategy = { ip_hash = {} }", "strategy = { IPHash = {} }"),
        ("[backend_pools.health]\npath = \"/\"", "[backend_pools.health_config]\npath = \"/\""),
        ("health_config.path = \"health\"", "health_config.path = \"/health\""),
        ("health_config.path = \"http://a/b c\"", "health_config.path = \"/b%20c\""),
        ("health_config.path = \"GET /health\"", "health_config.path = \"/health\""),
        ("health_config.timeout = 2", "health_config.timeout = \"2s\""),
        (
            "health_config = { timeout = 2000, slow_threshold = 1 }",
            "health_config = { timeout = 2000, slow_threshold = \"1s\" }",
        ),
        ("health_config.interval = 5", "health_config.check_every = 5"),
        ("health_config.slow_weight = 25", "health_config.slow_weight = 0.025"),
        ("retries = \"2\"", "retries = 2"),
        (
            "strategy.StickyCookie = { name = \"s\", secure = false }",
            "strategy.StickyCookie = { cookie_name = \"s\", secure = false }",
        ),
        (
            "strategy.StickyCookie = { cookie_name = \"s\", secure = true }",
            "strategy.StickyCookie = { cookie_name = \"s\", secure = false }",
        ),
        (
            "strategy.StickyCookie = { secure = false }",
            "strategy.StickyCookie = { cookie_name = \"RUSTSTROM_SESSION\", secure = false }",
        ),
        (
            "[backend_pools.middlewares.RateLimiter]\nlimit = 5",
            "[backend_pools.middlewares.RateLimiter]\nwindow_sec = 60\nlimit = 5",
        ),
        ("[backend_pools.middlewares.gzip]", "[backend_pools.middlewares.Compression]"),
        ("[health_config]\npath = \"/\"", "[backend_pools.health_config]\npath = \"/\""),
        (
            "[strategy.StickyCookie]\ncookie_name = \"s\"\nsecure = false",
            "[backend_pools.strategy.StickyCookie]\ncookie_name = \"s\"\nsecure = false",
        ),
    ];
    for (wrong, right) in cases {
        let right = right.replace("0.025", "0.25");
        assert_eq!(accepted(&file("", wrong)), file("", &right));
    }
    let only = "http_address = \"[::]:80\"\n";
    for (wrong, right) in [
        ("[[backend_pools]]\nadresses = [\"a:1\"]", "[[backend_pools]]\naddresses = [\"a:1\"]"),
        ("[[backend_pools]]\nservers = [\"a:1\"]", "[[backend_pools]]\naddresses = [\"a:1\"]"),
        ("[[backend_pools]]\naddresses = \"a:1\"", "[[backend_pools]]\naddresses = [\"a:1\"]"),
        (
            "[[backend_pools]]\nname = \"x\"",
            "[[backend_pools]]\naddresses = [\"127.0.0.1:8080\"]\nname = \"x\"",
        ),
        ("[[backend_pool]]\naddresses = [\"a:1\"]", "[[backend_pools]]\naddresses = [\"a:1\"]"),
        ("[backend_pools]\naddresses = [\"a:1\"]", "[[backend_pools]]\naddresses = [\"a:1\"]"),
        (
            "[[backend_pools]]\naddresses = [\"https://a/x\", { address = \"::1:8080\" }]",
            "[[backend_pools]]\naddresses = [\"https://a:443\", { address = \"[::1]:8080\" }]",
        ),
        (
            "[[backend_pools]]\naddresses = [{ addres = \"a:1\" }, { weight = 2 }]",
            "[[backend_pools]]\naddresses = [{ address = \"a:1\" }, { address = \"127.0.0.1:8080\", weight = 2 }]",
        ),
    ] {
        assert_eq!(accepted(&format!("{only}{wrong}\n")), format!("{only}{right}\n"));
    }
}

/// (The wrong matcher, the right one.)
const MATCHERS: &[(&str, &str)] = &[
    ("Path('^/x$')", "PathRegexp('^/x$')"),
    ("Path('/static/*')", "PathPrefix('/static')"),
    ("PathPrefix('/static/*')", "PathPrefix('/static')"),
    ("Path('*.php')", "PathRegexp('\\.php$')"),
    ("Path('/user/{id}')", "PathRegexp('^/user/[^/]+$')"),
    ("Path('api')", "Path('/api')"),
    ("Path('')", "Path('/')"),
    ("Path('/a b/ä%4')", "Path('/a%20b/%C3%A4%254')"),
    ("Path('/a/./b/../c')", "Path('/a/c')"),
    ("Path('/a/%2e%2E/c/..')", "Path('/')"),
    ("Path('/a?b=c')", "(Path('/a') && Query('b', 'c'))"),
    ("Path('/a?b')", "Path('/a')"),
    ("Path('/a', '/b')", "(Path('/a') || Path('/b'))"),
    ("PathRegexp('/a')", "PathRegexp('^/a')"),
    ("PathRegexp('*.php')", "PathRegexp('\\.php$')"),
    ("Host('*.example.com')", "HostRegexp('^[^.]+\\.example\\.com$')"),
    ("HostRegexp('*.example.com')", "HostRegexp('^[^.]+\\.example\\.com$')"),
    ("HostRegexp('a|b')", "HostRegexp('^(?:a|b)$')"),
    ("Host('example.com:8080')", "Host('example.com')"),
    ("Host('a', 'b')", "(Host('a') || Host('b'))"),
    ("Host('a,b') && Method('GET')", "(Host('a') || Host('b')) && Method('GET')"),
    ("Host(`a`) && PathPrefix(`/b`)", "Host('a') && PathPrefix('/b')"),
    ("Host(example.com)", "Host('example.com')"),
    ("Hots('a') and not Path('/b')", "Host('a') && ! Path('/b')"),
    ("Headers('a', 'b')", "Header('a', 'b')"),
    ("Header('A:', ' b')", "Header('A', 'b')"),
    ("Header('A')", "Header('A', 'value')"),
    ("Method('get')", "Method('GET')"),
    ("Method('GET|POST')", "(Method('GET') || Method('POST'))"),
    ("Method('GET, POST')", "(Method('GET') || Method('POST'))"),
    ("ClientIP('10.0.0.*')", "ClientIP('10.0.0.0/24')"),
    ("ClientIP('x')", "ClientIP('10.0.0.0/8')"),
    ("example.com", "Host('example.com')"),
    ("/api/*", "PathPrefix('/api')"),
    ("/api", "PathPrefix('/api')"),
];

#[test]
fn of_matchers_in_every_kind_of_string() {
    for (wrong, right) in MATCHERS {
        let doubled = |text: &str| text.replace('\\', "\\\\");
        let (basic, expected) = (format!("\"{}\"", doubled(wrong)), format!("\"{}\"", doubled(right)));
        assert_eq!(
            accepted(&file("", &format!("matcher = {basic}"))),
            file("", &format!("matcher = {expected}"))
        );
        let (long, expected) = (format!("'''\n {wrong}\n'''"), format!("'''\n {right}\n'''"));
        let found = accepted(&file("", &format!("matcher = {long}")));
        if wrong.contains('\'') {
            assert_eq!(found, file("", &format!("matcher = {expected}")));
        }
        // In '…' the matcher's own quotes are the double ones.
        let literal = format!("'{}'", wrong.replace('\'', "\""));
        accepted(&file("", &format!("matcher = {literal}")));
        accepted(&file("", &format!("matcher = \"\"\"\n{}\"\"\"", doubled(wrong))));
    }
}

#[test]
fn of_the_syntax() {
    let cases = [
        ("workers = 2;", "workers = 2"),
        ("driver = mio", "driver = \"mio\""),
        ("driver = 'mio", "driver = \"mio\""),
        ("driver = 'mio\"", "driver = \"mio\""),
        ("driver = \"mio", "driver = \"mio\""),
        ("driver = “mio”", "driver = \"mio\""),
        ("driver = \"mio\" # c", "driver = \"mio\" # c"),
        ("driver: mio", "driver = \"mio\""),
        ("driver mio;", "driver = \"mio\""),
        ("workers: 2", "workers = 2"),
        ("workers := 2", "workers = 2"),
        ("workers => 2", "workers = 2"),
        ("workers == 2", "workers = 2"),
        ("// a comment", "# a comment"),
        ("; a comment", "# a comment"),
        ("metrics_address = 127.0.0.1:9100", "metrics_address = \"127.0.0.1:9100\""),
        ("metrics_address = [::1]:9100", "metrics_address = [::1]:9100"),
        ("metrics_address = off # none", "metrics_address = false # none"),
        ("access_log.enabled = True", "access_log.enabled = true"),
        ("timeouts.head = 5s", "timeouts.head = \"5s\""),
        ("trusted_proxies = [10.0.0.0/8, \"::1\"]", "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]"),
        ("trusted_proxies = \"10.0.0.0/8\", \"::1\"", "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]"),
        ("health interval = { check_every = 3 }", "health_interval = { check_every = 3 }"),
        ("[timeouts", "[timeouts]"),
        ("[[timeouts]", "[timeouts]"),
    ];
    for (wrong, right) in cases {
        let text = file(wrong, "");
        if wrong == right {
            assert_eq!(corrected(&text), text);
            continue;
        }
        assert_eq!(accepted(&text), file(right, ""));
    }
    for (wrong, right) in [
        ("matcher = \"PathRegexp('\\.php$')\"", "matcher = '''PathRegexp('\\.php$')'''"),
        ("matcher = \"HostRegexp('^[a-z]+\\.a\\d$') || Path('/\\x')\"", ""),
        ("health_config = { path = \"/\\d\" }", "health_config = { path = '/\\d' }"),
        ("[backend_pools.health_config\npath = \"/\"", "[backend_pools.health_config]\npath = \"/\""),
    ] {
        let text = file("", wrong);
        if right.is_empty() {
            assert!(feed_back::every_suggestion(&text) > 0);
            continue;
        }
        assert_eq!(accepted(&text), file("", right));
    }
    let text = "http_address = \"[::]:80\"\n[[backend_pools]\naddresses = [\"a:1\"]\n";
    assert_eq!(accepted(text), text.replace("pools]", "pools]]"));
}

#[test]
fn nothing_is_suggested_that_is_not_known() {
    for (top, rest) in [
        ("", "addresses = [\"unix:$SOCKET\"]"),
        ("", "addresses = [\"$BACKEND\"]"),
        ("metrics_address = \"$LISTEN\"", ""),
        ("metrics_address = \"unix:/run/a\"", ""),
        ("trusted_proxies = \"$NET\"", ""),
        ("driver = \"$DRIVER\"", ""),
        ("workers = \"$N\"", ""),
        ("", "matcher = \"Host('$HOST')\""),
        ("", "matcher = \"Path('/{$X}')\""),
        ("", "matcher = \"$M\""),
        ("", "health_config.path = \"$P\""),
        ("", "strategy = \"$S\""),
    ] {
        let text = file(top, rest).replace("addresses = [\"127.0.0.1:8080\"]\naddresses", "addresses");
        let diagnostics = parse(&text).diagnostics;
        assert_eq!(diagnostics.len(), 1, "{diagnostics:#?}");
        assert!(diagnostics[0].suggestions.is_empty(), "{diagnostics:#?}");
        let is_variable = text.contains('$');
        assert_eq!(
            diagnostics[0]
                .help
                .as_deref()
                .is_some_and(|help| help.starts_with("variables of the environment")),
            is_variable,
            "{diagnostics:#?}"
        );
    }
}

proptest! {
    #[test]
    fn of_any_text_in_a_matcher(
        name in "(Host|HostRegexp|Path|PathPrefix|PathRegexp|Method|Header|ClientIP|Paht)",
        text in "[a-z*.^$/?=|{}()\\[\\]\\\\:~ %,'\"ä0-9]{0,12}",
        doubled in any::<bool>(),
    ) {
        let second = if doubled { ", 'b'" } else { "" };
        let quoted = text.replace('\\', "\\\\").replace('\'', "\\'");
        let matcher = format!("{name}('{quoted}'{second})");
        let basic = matcher.replace('\\', "\\\\").replace('"', "\\\"");
        feed_back::every_suggestion(&file("", &format!("matcher = \"{basic}\"")));
        if !matcher.contains("'''") {
            feed_back::every_suggestion(&file("", &format!("matcher = '''{matcher} '''")));
        }
    }

    #[test]
    fn of_any_address(text in "[a-z:.\\[\\]0-9/@ *$]{0,14}", scheme in "(http://|https://|tcp://|unix:|unix:/|)") {
        feed_back::every_suggestion(&file(&format!("metrics_address = \"x{scheme}{text}\""), ""));
        feed_back::every_suggestion(&file(&format!("metrics_address = \"{text}\""), ""));
        let only = "http_address = \"[::]:80\"\n[[backend_pools]]\n";
        feed_back::every_suggestion(&format!("{only}addresses = [\"{scheme}{text}\"]\n"));
    }

    #[test]
    fn of_any_value(key in "(workers|driver|timeouts.head|trusted_proxies|access_log|metrics_address)",
                    value in "[a-z0-9 .:\"'\\[\\]{}=,;#\\\\-]{0,12}") {
        feed_back::every_suggestion(&file(&format!("{key} = {value}"), ""));
    }
}
