//! Texts made of words: bytes choose from what the languages know, so that most inputs get past the reader.
//! Those that a fuzzer makes letter by letter seldom do.

use std::fmt::Write as _;

use super::input::Input;

fn word<'w>(input: &mut Input<'_>, words: &[&'w str]) -> &'w str {
    words[input.below(words.len())]
}

// ---- matchers and requests

const HOSTS: [&str; 8] = [
    "a.example",
    "b.example",
    "x.a.example",
    "[2001:db8::1]",
    "192.0.2.1",
    "A.Example",
    "other-3.invalid",
    "a",
];
const ASKED_HOSTS: [&str; 12] = [
    "a.example",
    "A.EXAMPLE:80",
    "b.example.",
    "a.example.:8080",
    "[2001:db8::1]:443",
    "[2001:db8::1]",
    "x.a.example",
    "192.0.2.1:1",
    "other-3.invalid",
    "a",
    "",
    "a.example:",
];
const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/b", "/ab", "/A", "/%20", "/a//b"];
const PATTERNS: [&str; 12] = [
    "^/a",
    "b$",
    "a|b",
    "(?i)^a",
    "[0-9]+",
    "\\.",
    "^$",
    ".",
    "^(one|two)$",
    "\\bexample\\b",
    "(a)(b)?",
    "^[^.]+\\.[^.]+$",
];
const METHODS: [&str; 4] = ["GET", "get", "POST", "M-SEARCH"];
const FIELDS: [&str; 4] = ["X-Key", "x-key", "Accept", "x_key"];
const VALUES: [&str; 6] = ["one", "two", "One", "one, two", "a b", "a"];
const QUERIES: [&str; 10] =
    ["k=v", "k", "k=", "k=v&k=w", "%6b=%76", "k=+x", "K=v", "a=b&&k=v&", "=v", "k=v=w"];
const QUERY_KEYS: [&str; 4] = ["k", "K", "a", "%6b"];
const QUERY_VALUES: [&str; 6] = ["v", "w", " x", "b", "v=w", "V"];
const NETS: [&str; 10] = [
    "10.0.0.0/8",
    "0.0.0.0/0",
    "::/0",
    "10.1.2.3",
    "10.1.2.3/32",
    "2001:db8::/32",
    "2001:db8::5",
    "::ffff:10.0.0.0/104",
    "10.128.0.0/9",
    "2001:db8::/127",
];
const CLIENTS: [&str; 7] =
    ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::5", "192.0.2.7", "::", "10.200.0.1", "2001:db8::1"];

/// A matcher that keeps the rules.
pub(super) fn matcher(input: &mut Input<'_>, depth: usize, out: &mut String) {
    let what = input.byte() % 16;
    match what {
        0 | 1 if depth > 0 => {
            out.push_str("!(");
            matcher(input, depth - 1, out);
            out.push(')');
        }
        2..=5 if depth > 0 => {
            let between = if what < 4 { " && " } else { "||" };
            out.push('(');
            matcher(input, depth - 1, out);
            for _ in 0..=input.below(3) {
                out.push_str(between);
                matcher(input, depth - 1, out);
            }
            out.push(')');
        }
        _ => term(input, out),
    }
}

fn term(input: &mut Input<'_>, out: &mut String) {
    // Writing to a String can't fail.
    let _ = match input.byte() % 12 {
        0 | 1 => write!(out, "Host('{}')", word(input, &HOSTS)),
        2 => write!(out, "HostRegexp('{}')", word(input, &PATTERNS)),
        3 => write!(out, "Path(\"{}\")", word(input, &PATHS)),
        4 | 5 => write!(out, "PathPrefix('{}')", word(input, &PATHS)),
        6 => write!(out, "PathRegexp('{}')", word(input, &PATTERNS)),
        7 => write!(out, "Method('{}')", word(input, &METHODS)),
        8 => write!(out, "Header( '{}' , \"{}\" )", word(input, &FIELDS), word(input, &VALUES)),
        9 => write!(out, "HeaderRegexp('{}','{}')", word(input, &FIELDS), word(input, &PATTERNS)),
        10 => write!(out, "Query('{}', '{}')", word(input, &QUERY_KEYS), word(input, &QUERY_VALUES)),
        _ => write!(out, "ClientIP('{}')", word(input, &NETS)),
    };
}

/// Lines as the matcher's body has them: host, target, method, client, fields.
pub(super) fn asked(input: &mut Input<'_>) -> String {
    let (host, path) = (word(input, &ASKED_HOSTS), word(input, &PATHS));
    let query = if input.byte() & 1 == 0 { String::new() } else { format!("?{}", word(input, &QUERIES)) };
    let mut out = format!("{host}\n{path}{query}\n{}\n{}", word(input, &METHODS), word(input, &CLIENTS));
    for _ in 0..input.below(4) {
        // Writing to a String can't fail.
        let _ = write!(out, "\n{}: {}", word(input, &FIELDS), word(input, &VALUES));
    }
    out
}

// ---- configurations

const SECTIONS: [(&str, &[&str]); 24] = [
    (
        "",
        &[
            "http_address",
            "https_address",
            "metrics_address",
            "prometheus_metrics_address",
            "workers",
            "driver",
            "trusted_proxies",
        ],
    ),
    ("[health_interval]", &["check_every"]),
    (
        "[timeouts]",
        &["head", "idle", "connect", "backend_head", "stall", "tunnel", "queue", "handshake", "drain"],
    ),
    (
        "[limits]",
        &[
            "head_bytes",
            "fields",
            "target_bytes",
            "connections",
            "connections_per_ip",
            "buffer_bytes",
            "queue",
            "requests_per_connection",
            "min_upload_rate",
            "min_download_rate",
        ],
    ),
    ("[access_log]", &["enabled", "format", "path"]),
    ("[[backend_pools]]", &["name", "matcher", "addresses", "schemes", "strategy", "retries", "middlewares"]),
    ("[[backend_pools]]", &["matcher", "addresses", "strategy", "name"]),
    (
        "[backend_pools.health_config]",
        &["check_every", "path", "timeout", "slow_threshold", "rise", "fall", "ramp_up", "slow_weight"],
    ),
    ("[backend_pools.client]", &["pool_idle_timeout", "pool_max_idle_per_host"]),
    (
        "[backend_pools.tls]",
        &["ca_file", "server_name", "verify", "client_certificate", "client_key", "alpn"],
    ),
    ("[backend_pools.timeouts]", &["connect", "backend_head", "stall", "tunnel", "queue", "head"]),
    (
        "[backend_pools.limits]",
        &["head_bytes", "fields", "queue", "min_upload_rate", "min_download_rate", "connections"],
    ),
    ("[backend_pools.strategy.StickyCookie]", &["cookie_name", "http_only", "secure", "same_site", "inner"]),
    ("[backend_pools.strategy]", &["RoundRobin", "Random", "IPHash", "LeastConnection"]),
    ("[backend_pools.middlewares.CustomErrorPages]", &["404", "location", "errors", "500"]),
    ("[backend_pools.middlewares.HttpsRedirector]", &[]),
    ("[backend_pools.middlewares.RateLimiter]", &["limit", "window_sec"]),
    ("[backend_pools.middlewares.MaxBodySize]", &["limit"]),
    (
        "[backend_pools.middlewares.Authentication]",
        &[
            "ldap_address",
            "user_directory",
            "rdn_identifier",
            "recursive",
            "cache_time",
            "timeout",
            "starttls",
            "ca_file",
            "bind_dn",
            "bind_password",
            "bind_password_file",
            "realm",
            "forward_authorization",
        ],
    ),
    ("[backend_pools.middlewares.Compression]", &["algorithms", "level", "min_bytes", "types"]),
    ("[backend_pools.middlewares.BasicAuth]", &["users", "users_file", "realm"]),
    ("[certificates.\"www.example.com\"]", &["default", "client_ca", "client_auth", "Local", "ACME"]),
    ("[certificates.\"*.example.com\".Local]", &["certificate_path", "private_key_path"]),
    ("[certificates.\"a.example\".ACME]", &["staging", "email", "persist_dir"]),
];

const SETTINGS: [&str; 64] = [
    "0",
    "1",
    "2",
    "10",
    "64",
    "100",
    "404",
    "1000",
    "1024",
    "16384",
    "268435456",
    "-1",
    "9223372036854775807",
    "0.25",
    "1.0",
    "1e300",
    "nan",
    "true",
    "false",
    "\"\"",
    "\"-\"",
    "\"/\"",
    "\"500ms\"",
    "\"10s\"",
    "\"1h\"",
    "\"1d\"",
    "\"99999999999d\"",
    "\"1.5 s\"",
    "{ secs = 90, nanos = 0 }",
    "{ secs = 1, nanos = 1000000000 }",
    "\"[::]:80\"",
    "\"192.0.2.1:80\"",
    "\"[::1]:443\"",
    "\"127.0.0.1:9090\"",
    "\"10.0.0.1:8080\"",
    "\"b.test:80\"",
    "\"https://b.test:443\"",
    "\"h2c://10.0.0.2:80\"",
    "\"http://[2001:db8::1]:80\"",
    "\"b.test\"",
    "\"10.0.0.0/8\"",
    "[\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 3 }]",
    "[{ address = \"b.test:80\", max_connections = 1, backup = true }]",
    "[\"10.0.0.1:80\", \"10.0.0.1:80\"]",
    "[\"HTTP\", \"HTTPS\"]",
    "[\"HTTP\"]",
    "\"RoundRobin\"",
    "\"Random\"",
    "\"IPHash\"",
    "\"LeastConnection\"",
    "{ Random = {} }",
    "{ StickyCookie = { cookie_name = \"SID\", inner = \"Random\" } }",
    "{ StickyCookie = { cookie_name = \"SID\", inner = { StickyCookie = {} } } }",
    "{}",
    "\"Host('a.example') && PathPrefix('/a')\"",
    "'''Header(\"X\", \"y\") || ClientIP('10.0.0.0/8')'''",
    "\"Host('a\"",
    "\"mio\"",
    "\"smol\"",
    "\"json\"",
    "\"Lax\"",
    "\"ldaps://ldap.example.com:636\"",
    "\"pages/404.html\"",
    "[404, 500, 99]",
];

/// A configuration: sections of this schema with keys of theirs, or others', and values that may fit.
pub(super) fn config(input: &mut Input<'_>) -> String {
    let mut out = String::new();
    let choice = input.byte();
    if choice & 1 == 0 {
        out.push_str("http_address = \"192.0.2.1:80\"\n");
    }
    let mut keys = SECTIONS[0].1;
    while !input.is_empty() && out.len() < 4096 {
        let what = input.byte();
        // Writing to a String can't fail.
        let _ = match what % 8 {
            0 | 1 => {
                let (section, its) = SECTIONS[input.below(SECTIONS.len())];
                keys = its;
                let addresses = if section == "[[backend_pools]]" && choice & 2 == 0 {
                    "\naddresses = [\"10.0.0.1:80\"]"
                } else {
                    ""
                };
                writeln!(out, "{section}{addresses}")
            }
            2..=5 if !keys.is_empty() => writeln!(out, "{} = {}", word(input, keys), word(input, &SETTINGS)),
            6 => {
                let (a, b) = (word(input, &SETTINGS), word(input, &SETTINGS));
                let (_, others) = SECTIONS[input.below(SECTIONS.len())];
                let key = if others.is_empty() { "x" } else { word(input, others) };
                match what / 8 % 3 {
                    0 => writeln!(out, "{key} = [{a}, {b}]"),
                    1 => writeln!(out, "{key} = {{ {} = {a}, x = {b} }}", word(input, SECTIONS[5].1)),
                    _ => writeln!(out, "{key} = {a}"),
                }
            }
            _ => {
                let n = input.below(24).min(input.0.len());
                let (raw, rest) = input.0.split_at(n);
                input.0 = rest;
                write!(out, "{}", String::from_utf8_lossy(raw))
            }
        };
    }
    out
}
