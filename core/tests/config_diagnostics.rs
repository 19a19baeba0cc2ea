//! Diagnostics of configuration files: all of them at once, each with its place, its message and its help.

mod feed_back;

use proptest::prelude::*;
use ruststrom_core::config::{Parsed, Severity, parse, render};

/// The diagnostics of a text as `--check` prints them.
fn rendered(text: &str) -> String {
    let Parsed { config, diagnostics, .. } = parse(text);
    assert_eq!(config.is_none(), diagnostics.iter().any(|d| d.severity == Severity::Error), "{text}");
    render(&diagnostics, "f", text)
}

/// A valid file with `rest` from line 4 on, within a pool.
fn in_pool(rest: &str) -> String {
    format!("http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [\"a:1\"]\n{rest}\n")
}

/// A valid file with `rest` from line 2 on, at the top.
fn in_file(rest: &str) -> String {
    format!("http_address = \"[::]:80\"\n{rest}\n[[backend_pools]]\naddresses = [\"a:1\"]\n")
}

#[test]
fn all_errors_are_reported_at_once() {
    let path = format!("{}/../testdata/configs/bad/many-mistakes", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(format!("{path}.toml")).unwrap();
    let expected = std::fs::read_to_string(format!("{path}.txt")).unwrap();
    assert!(feed_back::every_suggestion(&text) >= 15);
    let parsed = parse(&text);
    assert!(parsed.config.is_none());
    assert_eq!(render(&parsed.diagnostics, "many-mistakes.toml", &text), expected);
    assert!(parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error).count() >= 30);
}

#[test]
fn syntax_errors_do_not_hide_other_errors() {
    let path = format!("{}/../testdata/configs/bad/broken", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(format!("{path}.toml")).unwrap();
    let expected = std::fs::read_to_string(format!("{path}.txt")).unwrap();
    assert_eq!(render(&parse(&text).diagnostics, "broken.toml", &text), expected);
}

/// The messages of a text's diagnostics.
fn messages(text: &str) -> Vec<String> {
    feed_back::every_suggestion(text);
    parse(text).diagnostics.into_iter().map(|d| d.message).collect()
}

#[test]
fn a_file_in_another_language_has_one_error() {
    let cases = [
        ("{\n  \"http_address\": \"[::]:80\",\n  \"backend_pools\": []\n}\n", "this looks like JSON"),
        ("http_address: '[::]:80'\nbackend_pools:\n  - addresses: ['a:1']\n", "this looks like YAML"),
        ("---\nhttp_address: x\n", "this looks like YAML"),
        (
            "server {\n  listen 80;\n  location / {\n    proxy_pass http://a;\n  }\n}\n",
            "this looks like nginx",
        ),
        (":80\nreverse_proxy a:1\n", "this can't be read"),
        ("frontend web\n  bind *:80\n  default_backend app\n", "this can't be read"),
    ];
    for (text, expected) in cases {
        assert_eq!(messages(text), [expected], "{text}");
    }
}

#[test]
fn a_syntax_error_hides_nothing_in_other_tables() {
    // (what can't be read, its errors); `missing` and the rest are in other tables.
    let cases: [(&str, &[&str]); 9] = [
        ("[access_log]\nformat = json", &["a text stands in quotes"]),
        ("[access_log\nformat = \"text\"", &["a header is `[name]`, or `[[name]]` for an element of a list"]),
        ("[access_log]\npath = \"x", &["this quote is never closed"]),
        ("[access_log]\npath = \"\"\"x", &["this quote is never closed"]),
        ("[access_log]\npath = '''x", &["this quote is never closed"]),
        ("[timeouts]\nhead = [1,", &["this list is never closed by `]`"]),
        ("[timeouts]\nhead = { a = 1\nidle = 2", &["this table is never closed by `}`"]),
        ("[timeouts]\nhead = 1 2", &["a text stands in quotes"]),
        ("[timeouts]\nhead\nidle: 5", &["there is no `=`: an entry is `key = value`"; 2]),
    ];
    for (broken, expected) in cases {
        let text = format!(
            "http_address = \"[::]\"\n{broken}\n[[backend_pools]]\nretries = 50\n[backend_pools.client]\nidle = 1\n\
             [[backend_pools]]\naddresses = [\"a\"]\n[backend_pools.middlewares.RateLimiter]\nlimit = 1\n"
        );
        let mut all = vec!["bad address \"[::]\" for `http_address`: the port is missing"];
        all.extend(expected);
        all.extend([
            "missing `addresses` in a backend pool",
            "`retries` must be from 0 to 20",
            "unknown key \"idle\" in `client`",
            "bad address \"a\": the port is missing",
            "missing `window_sec` in `RateLimiter`",
        ]);
        assert_eq!(messages(&text), all, "{text}");
    }
}

#[test]
fn what_is_not_known_to_be_meant_is_explained() {
    // (within the file, within the pool, what the first diagnostic with a help tells)
    let cases = [
        (
            "log_level = \"debug\"",
            "",
            "the environment variable RUST_LOG sets the level of the log; requests are in [access_log]",
        ),
        (
            "[backend_pools.health_config]\npath = \"/x\"",
            "",
            "its own tables, like [backend_pools.…], stand below [[backend_pools]]",
        ),
        ("matcher = \"Host('a')\"", "", "it is a key of a backend pool: write it below [[backend_pools]]"),
        (
            "",
            "[backend_pools.client]\nretries = 1",
            "it is a key of a backend pool: write it before the pool's first [table]",
        ),
        ("", "workers = 1", "it is a key of the file: write it before the first [table]"),
    ];
    for (top, rest, expected) in cases {
        let text = in_file(top) + rest + "\n";
        feed_back::every_suggestion(&text);
        let help = parse(&text).diagnostics.into_iter().find_map(|d| d.help);
        assert_eq!(help.as_deref(), Some(expected), "{text}");
    }
    for word in ["auto", "null", "none", "default"] {
        let found = errors(&in_file(&format!("workers = {word}")));
        let message = format!("there is no `{word}`: leave the key out to have its default");
        assert_eq!(found, [(2, 11, message)]);
    }
}

#[test]
fn a_misspelt_key_is_one_error() {
    for (text, expected) in [
        (
            "http_adress = \"[::]:80\"\n[[backend_pools]]\naddresses = [\"a:1\"]",
            "unknown key \"http_adress\" in the file",
        ),
        (
            "http_address = \"[::]:80\"\n[[backend_pools]]\nadresses = [\"a:1\"]",
            "unknown key \"adresses\" in a backend pool",
        ),
        (
            "http_address = \"[::]:80\"\n[[backend_pool]]\naddresses = [\"a:1\"]",
            "unknown key \"backend_pool\" in the file",
        ),
    ] {
        assert_eq!(messages(text), [expected], "{text}");
    }
    let unknown =
        parse("http_address = \"[::]:80\"\nzzzzzz = 1\n[[backend_pools]]\naddresses = []\n").diagnostics;
    let help = unknown[0].help.as_deref().expect("a help");
    assert!(help.starts_with("known here: http_address, ") && help.ends_with("access_log, watch"), "{help}");
}

#[test]
fn layout() {
    let cases = [
        (
            in_pool("schems = [\"HTTP\"]"),
            "f:4:1: error: unknown key \"schems\" in a backend pool\n4 | schems = [\"HTTP\"]\n  | ^^^^^^\n  = help: did you mean \"schemes\"?\n",
        ),
        (
            in_pool("\t\tmatcher = \"Hots('ä') || Path('b')\""),
            "f:4:14: error: bad matcher: unknown matcher \"Hots\"\n4 | \t\tmatcher = \"Hots('ä') || Path('b')\"\n  | \t\t           ^^^^\n  = help: did you mean \"Host\"?\n\
             f:4:32: error: bad matcher: a path begins with `/`\n4 | \t\tmatcher = \"Hots('ä') || Path('b')\"\n  | \t\t                             ^^^\n  = help: write '/b'\n",
        ),
        (
            in_pool("matcher = '''\nHost('a') &&\n  Pth('/b')'''"),
            "f:6:3: error: bad matcher: unknown matcher \"Pth\"\n6 |   Pth('/b')'''\n  |   ^^^\n  = help: did you mean \"Path\"?\n",
        ),
        (
            in_pool("matcher = \"Host(\\\"a\\\") && Path(\\\"b\\\")\""),
            "f:4:32: error: bad matcher: a path begins with `/`\n4 | matcher = \"Host(\\\"a\\\") && Path(\\\"b\\\")\"\n  |                                ^^^^^\n  = help: write \\\"/b\\\"\n",
        ),
        (
            "# nothing\n".to_owned(),
            "f:1:1: error: there is nothing to listen on: neither `http_address` nor `https_address`\n1 | # nothing\n  | ^\n  = help: add http_address = \"[::]:80\"\n\
             f:1:1: warning: there are no [[backend_pools]]: every request is answered 404\n1 | # nothing\n  | ^\n",
        ),
        (
            String::new(),
            "f:1:1: error: there is nothing to listen on: neither `http_address` nor `https_address`\n  = help: add http_address = \"[::]:80\"\n\
             f:1:1: warning: there are no [[backend_pools]]: every request is answered 404\n",
        ),
        (
            "\u{feff}http_adress = \"[::]:80\"\r\n[[backend_pools]]\r\naddresses = [\"a:1\"]\r\n".to_owned(),
            "f:1:1: error: unknown key \"http_adress\" in the file\n1 | http_adress = \"[::]:80\"\n  | ^^^^^^^^^^^\n  = help: did you mean \"http_address\"?\n",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(rendered(&text), expected, "{text}");
    }
}

#[test]
fn long_lines_are_cut_around_the_span() {
    let many = (1..200).map(|i| format!("\"a:{i}\"")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [{many}, \"bad\", {}]\n",
        many.replace("a:", "b:")
    );
    let out = rendered(&text);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "f:3:1697: error: bad address \"bad\": the port is missing");
    assert!(
        lines[1].chars().count() < 160 && lines[1].starts_with("3 | …") && lines[1].ends_with('…'),
        "{}",
        lines[1]
    );
    let at = lines[2].chars().position(|c| c == '^').unwrap();
    assert_eq!(lines[1].chars().skip(at).take(5).collect::<String>(), "\"bad\"");
}

/// Line, column and message of each error.
fn errors(text: &str) -> Vec<(usize, usize, String)> {
    feed_back::every_suggestion(text);
    let found = parse(text).diagnostics.into_iter().filter(|d| d.severity == Severity::Error);
    found.map(|d| (d.line, d.column, d.message)).collect()
}

#[test]
fn errors_of_the_file() {
    let cases = [
        ("http_addres = 1", 2, 1, "unknown key \"http_addres\" in the file"),
        (
            "https_address = 443",
            2,
            17,
            "`https_address` must be a string or a list of strings, found an integer",
        ),
        ("https_address = []", 2, 17, "`https_address` is an empty list"),
        ("https_address = \"[::]:80\"", 2, 17, "\"[::]:80\" is already listened on"),
        ("https_address = [443]", 2, 18, "each of `https_address` must be a string, found an integer"),
        (
            "metrics_address = true",
            2,
            19,
            "`metrics_address` must be an address, or false for no page, found a boolean",
        ),
        ("metrics_address = \"[::]:80\"", 2, 19, "\"[::]:80\" is already listened on"),
        (
            "metrics_address = \"9090\"",
            2,
            19,
            "bad address \"9090\" for `metrics_address`: the address before the port is missing",
        ),
        (
            "metrics_address = \"[::]:1\"\nprometheus_metrics_address = \"[::]:2\"",
            3,
            1,
            "`prometheus_metrics_address` is another name of `metrics_address`: give one of them",
        ),
        (
            "trusted_proxies = [\"10.0.0.0/8\", \"proxy\"]",
            2,
            34,
            "\"proxy\" is not an address or a network: it is no IP address",
        ),
        ("workers = 1025", 2, 11, "`workers` must be from 0 to 1024"),
        ("workers = -1", 2, 11, "`workers` must be from 0 to 1024"),
        ("workers = \"4\"", 2, 11, "`workers` must be an integer, found a string"),
        ("driver = \"epoll\"", 2, 10, "unknown driver \"epoll\""),
        ("health_interval = 10", 2, 19, "`health_interval` must be a table, found an integer"),
        ("health_interval = { check_every = [] }", 2, 35, "`check_every` must be a duration, found a list"),
        ("health_interval = { every = 1 }", 2, 21, "unknown key \"every\" in `health_interval`"),
        ("timeouts.head = -1", 2, 17, "`head` must be a duration from 0 to 366 days"),
        ("timeouts.head = nan", 2, 17, "`head` must be a duration from 0 to 366 days"),
        ("timeouts.head = inf", 2, 17, "`head` must be a duration from 0 to 366 days"),
        ("timeouts.head = \"367d\"", 2, 17, "`head` must be a duration from 0 to 366 days"),
        ("timeouts.head = 99999999999999999999999", 2, 17, "`head` must be a duration from 0 to 366 days"),
        ("timeouts.head = \"1 day\"", 2, 17, "unknown unit \"day\" of `head`"),
        ("timeouts.head = \"\"", 2, 17, "\"\" is not a duration for `head`"),
        ("timeouts.head = true", 2, 17, "`head` must be a duration, found a boolean"),
        ("limits.head_bytes = 1023", 2, 21, "`head_bytes` must be from 1024 to 65536"),
        ("limits.fields = 257", 2, 17, "`fields` must be from 8 to 256"),
        ("limits.target_bytes = 63", 2, 23, "`target_bytes` must be from 64 to 16000"),
        ("limits.connections = 0", 2, 22, "`connections` must be from 1 to 10000000"),
        ("limits.buffer_bytes = 1", 2, 23, "`buffer_bytes` must be from 1048576 to 1099511627776"),
        ("http2 = 3", 2, 9, "`http2` must be a table, found an integer"),
        ("http2 = false", 2, 9, "`http2` must be a table, found a boolean"),
        ("http2.enabled = 1", 2, 17, "`enabled` must be true or false, found an integer"),
        (
            "http2.extended_connect = \"off\"",
            2,
            26,
            "`extended_connect` must be true or false, found a string",
        ),
        ("http2.initial_window = 16383", 2, 24, "`initial_window` must be from 16384 to 16777216"),
        ("http2.initial_window = 16777217", 2, 24, "`initial_window` must be from 16384 to 16777216"),
        ("http2.connection_window = 65534", 2, 27, "`connection_window` must be from 65535 to 67108864"),
        ("http2.max_concurrent_streams = 0", 2, 32, "`max_concurrent_streams` must be from 1 to 10000"),
        ("http2.max_frame_size = 16383", 2, 24, "`max_frame_size` must be from 16384 to 262144"),
        ("http2.header_table_size = 65537", 2, 27, "`header_table_size` must be from 0 to 65536"),
        ("http2.backend_window = 16383", 2, 24, "`backend_window` must be from 16384 to 16777216"),
        ("http2.keepalive = \"999ms\"", 2, 19, "`keepalive` must be at least 1 s, or 0"),
        ("http2.backend_keepalive = \"999ms\"", 2, 27, "`backend_keepalive` must be at least 1 s, or 0"),
        ("http2.window = 65536", 2, 7, "unknown key \"window\" in `http2`"),
        ("access_log.format = \"xml\"", 2, 21, "unknown format \"xml\""),
        ("access_log.path = \"\"", 2, 19, "`path` must not be empty"),
        ("access_log.enabled = 1", 2, 22, "`enabled` must be true or false, found an integer"),
        ("certificates = []", 2, 16, "`certificates` must be a table, found a list"),
        (
            "certificates.\"a..b\" = { type = \"ACME\" }",
            2,
            14,
            "\"a..b\" is not the name of a certificate: each part between dots has 1 to 63 characters",
        ),
        (
            "[certificates.\"10.0.0.1\"]\ntype = \"Local\"",
            2,
            15,
            "\"10.0.0.1\" is not the name of a certificate: clients never name an address in a handshake",
        ),
        ("[certificates.a]", 2, 1, "a certificate needs `Local` or `ACME`"),
        ("[certificates.a]\ntype = \"local\"", 3, 8, "unknown type \"local\""),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\" }\nLocal = {}",
            3,
            1,
            "a certificate has either `Local` or `ACME`, not both",
        ),
        (
            "[certificates.a]\nLocal = { certificate_path = \"c\" }",
            3,
            9,
            "missing `private_key_path` in `Local`",
        ),
        (
            "[certificates.a]\nLocal = { certificate_path = \"c\", private_key_path = 1 }",
            3,
            54,
            "`private_key_path` must be a string, found an integer",
        ),
        (
            "[certificates.a]\ntype = \"Local\"\nemail = \"a@b\"\ncertificate_path = \"c\"\nprivate_key_path = \"k\"",
            4,
            1,
            "unknown key \"email\" in a certificate",
        ),
        (
            "[certificates.a]\nLocal = { certificate_path = \"\", private_key_path = \"k\" }",
            3,
            30,
            "`certificate_path` must not be empty",
        ),
        (
            "[certificates.a]\nclient_ca = [\"ca\"]\nLocal = { certificate_path = \"c\", private_key_path = \"k\" }",
            3,
            13,
            "`client_ca` must be a string, found a list",
        ),
        (
            "[certificates.a]\nclient_ca = \"ca\"\nclient_auth = \"on\"\nLocal = { certificate_path = \"c\", private_key_path = \"k\" }",
            4,
            15,
            "unknown client_auth \"on\"",
        ),
        (
            "[certificates.a]\nclient_auth = \"optional\"\nLocal = { certificate_path = \"c\", private_key_path = \"k\" }",
            3,
            1,
            "`client_auth` says how clients are checked, but there is no `client_ca` to check them",
        ),
        (
            "[certificates.a]\nLocal = { certificate_path = \"c\", private_key_path = \"k\", client_ca = \"ca\" }",
            3,
            59,
            "unknown key \"client_ca\" in `Local`",
        ),
        (
            "[certificates.\"*.a\"]\nACME = { email = \"a@b\", persist_dir = \"c\" }",
            2,
            15,
            "ACME can't make a wildcard certificate here: that needs access to the name's DNS",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", directory_url = \"ca.example/dir\" }",
            3,
            60,
            "bad `directory_url` \"ca.example/dir\": it has no https://",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", directory_url = \"http://ca.example/dir\" }",
            3,
            60,
            "bad `directory_url` \"http://ca.example/dir\": without https:// anyone in between could have certificates made",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", directory_url = \"http://127.0.0.1.ca.example\" }",
            3,
            60,
            "bad `directory_url` \"http://127.0.0.1.ca.example\": without https:// anyone in between could have certificates made",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", directory_url = \"ldap://ca.example\" }",
            3,
            60,
            "bad `directory_url` \"ldap://ca.example\": it is spoken to over https:// only",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", directory_url = \"https://\" }",
            3,
            60,
            "bad `directory_url` \"https://\": it is no URL",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", directory_url = \"https://u:p@ca.example/\" }",
            3,
            60,
            "bad `directory_url` \"https://u:p@ca.example/\": names and passwords have no place in it",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", directory_url = \"https://ca.example/#x\" }",
            3,
            60,
            "bad `directory_url` \"https://ca.example/#x\": it has a fragment",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", directory_url = \"https://ca.example:0/\" }",
            3,
            60,
            "bad `directory_url` \"https://ca.example:0/\": the port must be from 1 to 65535",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", directory_url = \"https://ca..example/\" }",
            3,
            60,
            "bad `directory_url` \"https://ca..example/\": each part between dots has 1 to 63 characters",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", directory_url = 1 }",
            3,
            60,
            "`directory_url` must be a string, found an integer",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", staging = true, directory_url = \"https://ca.example/\" }",
            3,
            54,
            "`staging` is the testing service of Let's Encrypt, and `directory_url` another authority",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", ca_file = \"\" }",
            3,
            54,
            "`ca_file` must not be empty",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", eab = \"k\" }",
            3,
            50,
            "`eab` must be a table, found a string",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", eab = { kid = \"k\" } }",
            3,
            50,
            "missing `hmac_key` in `eab`",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", eab = { hmac_key = \"Zg\" } }",
            3,
            50,
            "missing `kid` in `eab`",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", eab = { kid = \"k\", hmac_key = \"Zg\", x = 1 } }",
            3,
            80,
            "unknown key \"x\" in `eab`",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", eab = { kid = \"k\", hmac_key = \"a+/b\" } }",
            3,
            74,
            "`hmac_key` is not base64url: it is in the other alphabet of base64",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", eab = { kid = \"k\", hmac_key = \"a*bc\" } }",
            3,
            74,
            "`hmac_key` is not base64url: it has a character that does not belong there",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", eab = { kid = \"k\", hmac_key = \"abcde\" } }",
            3,
            74,
            "`hmac_key` is not base64url: a character is missing at its end",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", names = [\"*.b\"] }",
            3,
            53,
            "ACME can't make a wildcard certificate here: that needs access to the name's DNS",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", names = [\"b\", \"10.0.0.1\"] }",
            3,
            58,
            "bad name \"10.0.0.1\": clients never name an address in a handshake",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", names = [\"b c\"] }",
            3,
            53,
            "bad name \"b c\": only letters, digits, `-`, `_` and `.` are allowed",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", names = [\"A.\"] }",
            3,
            53,
            "\"a\" is the certificate's own name: remove it",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", names = [\"b\", \"B\"] }",
            3,
            58,
            "\"b\" is there twice: remove one",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", names = 1 }",
            3,
            52,
            "`names` must be a string or a list of strings, found an integer",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", key_type = \"P-521\" }",
            3,
            55,
            "unknown key_type \"P-521\"",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", key_type = 256 }",
            3,
            55,
            "key_type must be one of \"P-256\", \"P-384\" or \"RSA-2048\", found an integer",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", profile = \" \" }",
            3,
            54,
            "`profile` must not be empty",
        ),
        (
            "[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", client_ca = \"x\" }",
            3,
            44,
            "unknown key \"client_ca\" in `ACME`",
        ),
        (
            "[certificates.b]\nACME = { email = \"a@b\", persist_dir = \"c\", names = [\"www.b\"] }\n[certificates.\"www.b\"]\nACME = { email = \"a@b\", persist_dir = \"c\" }",
            4,
            15,
            "there are two certificates for \"www.b\"",
        ),
        (
            "[certificates.b]\nLocal = { certificate_path = \"c\", private_key_path = \"k\" }\n[certificates.a]\nACME = { email = \"a@b\", persist_dir = \"c\", names = \"b\" }",
            5,
            52,
            "there are two certificates for \"b\"",
        ),
        (
            "[certificates.a]\ntype = \"ACME\"\nemail = \"a@b\"",
            2,
            1,
            "missing `persist_dir` in a certificate",
        ),
        (
            "[certificates.a]\ntype = \"ACME\"\nemail = \"mailto:a@b\"\npersist_dir = \"c\"",
            4,
            9,
            "\"mailto:a@b\" is not an address for e-mail",
        ),
        (
            "[certificates.a]\ntype = \"ACME\"\nemail = \"a\"\npersist_dir = \"c\"",
            4,
            9,
            "\"a\" is not an address for e-mail",
        ),
        (
            "[certificates]\nA = { type = \"ACME\", email = \"a@b\", persist_dir = \"c\" }\na = { type = \"ACME\", email = \"a@b\", persist_dir = \"c\" }",
            4,
            1,
            "there are two certificates for \"a\"",
        ),
        (
            "[certificates]\n\"a.\" = { type = \"ACME\", email = \"a@b\", persist_dir = \"c\" }\na = { type = \"ACME\", email = \"a@b\", persist_dir = \"c\" }",
            4,
            1,
            "there are two certificates for \"a\"",
        ),
        (
            "[certificates.\"*.a..\"]\nACME = { email = \"a@b\", persist_dir = \"c\" }",
            2,
            15,
            "\"*.a..\" is not the name of a certificate: each part between dots has 1 to 63 characters",
        ),
        (
            "[certificates]\na = { default = true, type = \"ACME\", email = \"a@b\", persist_dir = \"c\" }\nb = { default = true, type = \"ACME\", email = \"a@b\", persist_dir = \"c\" }",
            4,
            7,
            "only one certificate can be the default",
        ),
    ];
    for (text, line, column, message) in cases {
        let found = errors(&in_file(text));
        assert!(found.contains(&(line, column, message.to_owned())), "{text}\n{found:#?}");
    }
}

#[test]
fn errors_of_a_pool() {
    let cases = [
        ("name = \"\"", 4, 8, "`name` must not be empty"),
        ("name = \"a\\nb\"", 4, 8, "`name` must have at most 100 bytes and no control characters"),
        (
            "name = \"a\"\n[[backend_pools]]\nname = \"a\"\naddresses = []",
            6,
            8,
            "pool 1 is already named \"a\"",
        ),
        (
            "name = \"pool-2\"\n[[backend_pools]]\naddresses = []",
            4,
            8,
            "\"pool-2\" is what pool 2 is called, which has no name of its own",
        ),
        ("matcher = 1", 4, 11, "`matcher` must be a string, found an integer"),
        ("matcher = \"\"", 4, 11, "bad matcher: matcher is empty"),
        ("schemes = \"HTTP\"", 4, 11, "`schemes` must be a list like [\"HTTP\", \"HTTPS\"], found a string"),
        ("schemes = []", 4, 11, "`schemes` is an empty list"),
        ("schemes = [\"http\"]", 4, 12, "unknown scheme \"http\""),
        ("strategy = \"roundrobin\"", 4, 12, "unknown strategy \"roundrobin\""),
        (
            "strategy = 1",
            4,
            12,
            "`strategy` must be a name like \"RoundRobin\" or a table like { RoundRobin = {} }, found an integer",
        ),
        ("strategy = {}", 4, 12, "`strategy` names none"),
        (
            "strategy = { Random = {}, IPHash = {} }",
            4,
            27,
            "a pool has one strategy, and \"Random\" comes first",
        ),
        ("strategy = { Random = { seed = 1 } }", 4, 25, "unknown key \"seed\" in this strategy"),
        ("strategy = { Random = 1 }", 4, 23, "this strategy must be a table, found an integer"),
        ("strategy = \"StickyCookie\"", 4, 12, "StickyCookie needs at least a `cookie_name`"),
        ("strategy = { StickyCookie = {} }", 4, 29, "missing `cookie_name` in `StickyCookie`"),
        (
            "strategy = { StickyCookie = { cookie_name = \"a;b\" } }",
            4,
            45,
            "\"a;b\" is not a cookie name (RFC 6265)",
        ),
        (
            "strategy = { StickyCookie = { cookie_name = \"a\", same_site = \"lax\" } }",
            4,
            62,
            "unknown same_site \"lax\"",
        ),
        (
            "strategy = { StickyCookie = { cookie_name = \"a\", inner = { StickyCookie = { cookie_name = \"b\" } } } }",
            4,
            60,
            "a sticky cookie can't be the `inner` strategy of another",
        ),
        ("retries = 21", 4, 11, "`retries` must be from 0 to 20"),
        ("[backend_pools.health_config]\npath = \"/a b\"", 5, 8, "\"/a b\" is not the path of a request"),
        (
            "[backend_pools.health_config]\ntimeout = 0",
            5,
            11,
            "`timeout` of a health check must be at least 1 ms",
        ),
        (
            "[backend_pools.health_config]\nmethod = \"get\"",
            5,
            10,
            "unknown method of a health check \"get\"",
        ),
        (
            "[backend_pools.health_config]\nmethod = 1",
            5,
            10,
            "method of a health check must be one of \"GET\", \"HEAD\" or \"OPTIONS\", found an integer",
        ),
        (
            "[backend_pools.health_config]\nhost = \"http://a/\"",
            5,
            8,
            "bad `host` \"http://a/\": it has a scheme",
        ),
        (
            "[backend_pools.health_config]\nhost = \"a b\"",
            5,
            8,
            "bad `host` \"a b\": only letters, digits, `-`, `_` and `.` are allowed",
        ),
        (
            "[backend_pools.health_config]\nhost = \"a:x\"",
            5,
            8,
            "bad `host` \"a:x\": \"x\" is not a port from 1 to 65535",
        ),
        (
            "[backend_pools.health_config]\nhost = \"::1\"",
            5,
            8,
            "bad `host` \"::1\": an IPv6 address stands in brackets",
        ),
        ("[backend_pools.health_config]\nport = 0", 5, 8, "`port` must be from 1 to 65535"),
        (
            "[backend_pools.health_config]\nheaders = [\"a\"]",
            5,
            11,
            "`headers` must be a table, found a list",
        ),
        (
            "[backend_pools.health_config]\nheaders = { Host = \"a\" }",
            5,
            13,
            "`Host` is not among the `headers`",
        ),
        (
            "[backend_pools.health_config]\nheaders = { Content-Length = \"0\" }",
            5,
            13,
            "a health check can't have the field `Content-Length`",
        ),
        (
            "[backend_pools.health_config]\nheaders = { \"a b\" = \"0\" }",
            5,
            13,
            "\"a b\" is not the name of a field",
        ),
        (
            "[backend_pools.health_config]\nheaders = { a = \"x\\ny\" }",
            5,
            17,
            "the value of `a` is not the value of a field",
        ),
        (
            "[backend_pools.health_config]\nheaders = { a = 1 }",
            5,
            17,
            "the value of `a` must be a string, found an integer",
        ),
        ("[backend_pools.health_config]\nexpect = 99", 5, 10, "a status of `expect` must be from 200 to 599"),
        ("[backend_pools.health_config]\nexpect = []", 5, 10, "`expect` is an empty list"),
        (
            "[backend_pools.health_config]\nexpect = [200, \"2xx\"]",
            5,
            16,
            "\"2xx\" is neither a status nor a range of statuses",
        ),
        (
            "[backend_pools.health_config]\nexpect = \"399-300\"",
            5,
            10,
            "\"399-300\" is neither a status nor a range of statuses",
        ),
        (
            "[backend_pools.health_config]\nexpect = true",
            5,
            10,
            "`expect` must be statuses like 200 or \"300-399\", found a boolean",
        ),
        (
            "[backend_pools.health_config]\nbody_contains = \"\"",
            5,
            17,
            "`body_contains` must have 1 to 1024 bytes",
        ),
        (
            "[backend_pools.health_config]\nmethod = \"HEAD\"\nbody_contains = \"x\"",
            6,
            17,
            "the response to a HEAD has no body that could contain something",
        ),
        (
            "[backend_pools.health_config]\ngrpc = true",
            5,
            8,
            "`grpc` must be the name of a service, found a boolean",
        ),
        ("[backend_pools.health_config]\ngrpc = \"a b\"", 5, 8, "\"a b\" is not the name of a service"),
        (
            "[backend_pools.health_config]\ngrpc = \"/a.B/Check\"",
            5,
            8,
            "\"/a.B/Check\" is not the name of a service",
        ),
        (
            "[backend_pools.health_config]\ngrpc = \"a.B\"",
            5,
            8,
            "gRPC needs HTTP/2, which is not spoken to backend \"a:1\"",
        ),
        ("[backend_pools.health_config]\nrise = 0", 5, 8, "`rise` must be from 1 to 1000"),
        ("[backend_pools.health_config]\nslow_weight = 0.0", 5, 15, "`slow_weight` must be from 0.001 to 1"),
        ("[backend_pools.health_config]\nslow_weight = 1.5", 5, 15, "`slow_weight` must be from 0.001 to 1"),
        ("[backend_pools.health_config]\nretries = 2", 5, 1, "unknown key \"retries\" in `health_config`"),
        (
            "[backend_pools.client]\npool_idle_timeout = { nanos = 1 }",
            5,
            21,
            "missing `secs` in `pool_idle_timeout`",
        ),
        (
            "[backend_pools.client]\npool_idle_timeout = { secs = 1, nanos = 1000000000 }",
            5,
            41,
            "`nanos` must be from 0 to 999999999",
        ),
        (
            "[backend_pools.timeouts]\nidle = 1",
            5,
            1,
            "`idle` can't be set for one pool: it matters before a pool is chosen",
        ),
        (
            "[backend_pools.limits]\nconnections = 1",
            5,
            1,
            "`connections` can't be set for one pool: it matters before a pool is chosen",
        ),
        ("[backend_pools.middlewares.compression]", 4, 28, "unknown middleware \"compression\""),
        (
            "[backend_pools.middlewares.Compression]\nlevels = 1",
            5,
            1,
            "unknown key \"levels\" in `Compression`",
        ),
        ("[backend_pools.middlewares.Compression]\nlevel = 0", 5, 9, "`level` must be from 1 to 9"),
        ("[backend_pools.middlewares.Compression]\nlevel = 10", 5, 9, "`level` must be from 1 to 9"),
        (
            "[backend_pools.middlewares.Compression]\nlevel = \"fast\"",
            5,
            9,
            "`level` must be an integer, found a string",
        ),
        (
            "[backend_pools.middlewares.Compression]\nmin_bytes = -1",
            5,
            13,
            "`min_bytes` must be from 0 to 1099511627776",
        ),
        (
            "[backend_pools.middlewares.Compression]\nmin_bytes = \"1 KB\"",
            5,
            13,
            "`min_bytes` must be an integer, found a string",
        ),
        (
            "[backend_pools.middlewares.Compression]\nalgorithms = \"gzip\"",
            5,
            14,
            "`algorithms` must be a list of content codings, found a string",
        ),
        ("[backend_pools.middlewares.Compression]\nalgorithms = []", 5, 14, "`algorithms` must not be empty"),
        (
            "[backend_pools.middlewares.Compression]\nalgorithms = [\"br\", \"gzp\"]",
            5,
            21,
            "unknown content coding \"gzp\"",
        ),
        (
            "[backend_pools.middlewares.Compression]\nalgorithms = [\"br\", 1]",
            5,
            21,
            "content coding must be one of \"br\", \"zstd\", \"gzip\" or \"deflate\", found an integer",
        ),
        (
            "[backend_pools.middlewares.Compression]\nalgorithms = [\"br\", \"gzip\", \"br\"]",
            5,
            29,
            "\"br\" is there twice in `algorithms`",
        ),
        ("[backend_pools.middlewares.Compression]\ntypes = []", 5, 9, "`types` must not be empty"),
        (
            "[backend_pools.middlewares.Compression]\ntypes = \"text/html\"",
            5,
            9,
            "`types` must be a list of media types, found a string",
        ),
        (
            "[backend_pools.middlewares.Compression]\ntypes = [\"text/html\", \"html\"]",
            5,
            23,
            "\"html\" is not a media type",
        ),
        (
            "[backend_pools.middlewares.Compression]\ntypes = [\"text/html; charset=utf-8\"]",
            5,
            10,
            "\"text/html; charset=utf-8\" is not a media type",
        ),
        (
            "[backend_pools.middlewares.Compression]\ntypes = [1]",
            5,
            10,
            "a media type in `types` must be a string, found an integer",
        ),
        (
            "[backend_pools.middlewares.RateLimiter]\nlimit = 0\nwindow_sec = 60",
            5,
            9,
            "`limit` must be from 1 to 4294967295",
        ),
        (
            "[backend_pools.middlewares.RateLimiter]\nlimit = 1\nwindow = 60",
            6,
            1,
            "unknown key \"window\" in `RateLimiter`",
        ),
        ("[backend_pools.middlewares.MaxBodySize]", 4, 1, "missing `limit` in `MaxBodySize`"),
        (
            "[backend_pools.middlewares.MaxBodySize]\nlimit = -1",
            5,
            9,
            "`limit` must be from 0 to 18446744073709551615",
        ),
        (
            "[backend_pools.middlewares.MaxBodySize]\nlimit = \"10 miles\"",
            5,
            9,
            "`limit` \"10 miles\" is no number of bytes",
        ),
        (
            "[backend_pools.middlewares.MaxBodySize]\nlimit = true",
            5,
            9,
            "`limit` must be a number of bytes, like 10485760 or \"10MB\", found a boolean",
        ),
        ("[backend_pools.middlewares.IpAllow]", 4, 1, "missing `ranges` in `IpAllow`"),
        ("[backend_pools.middlewares.IpDeny]\nranges = []", 5, 10, "`IpDeny` needs a range at least"),
        (
            "[backend_pools.middlewares.IpDeny]\nranges = [\"10.0.0.0/8\", \"10.0.0.0/33\"]",
            5,
            25,
            "\"10.0.0.0/33\" is not an address or a network: the prefix must be from 0 to 32",
        ),
        (
            "[backend_pools.middlewares.IpAllow]\nranges = \"10.*\"",
            5,
            10,
            "\"10.*\" is not an address or a network: it is no IP address",
        ),
        ("[backend_pools.middlewares.IpAllow]\nrange = \"::1\"", 5, 1, "unknown key \"range\" in `IpAllow`"),
        (
            "[backend_pools.middlewares.Authentication]\nldap_address = \"http://a\"",
            5,
            16,
            "bad address \"http://a\" for `ldap_address`: it begins with neither ldap:// nor ldaps://",
        ),
        (
            "[backend_pools.middlewares.Authentication]\nuser_directory = \"users\"",
            5,
            18,
            "\"users\" is not a distinguished name",
        ),
        (
            "[backend_pools.middlewares.Authentication]\nrdn_identifier = \"u)(d\"",
            5,
            18,
            "\"u)(d\" is not an LDAP attribute",
        ),
        (
            "[backend_pools.middlewares.Authentication]\nldap_address = \"ldap://a:0\"",
            5,
            16,
            "bad address \"ldap://a:0\" for `ldap_address`: its port is not from 1 to 65535",
        ),
        (
            "[backend_pools.middlewares.Authentication]\nldap_address = \"ldaps://a\"\nstarttls = true",
            6,
            12,
            "ldaps:// is TLS from its first byte",
        ),
        (
            "[backend_pools.middlewares.Authentication]\nldap_address = \"ldaps://[::1]\"",
            5,
            16,
            "TLS to an IPv6 address is not built in",
        ),
        (
            "[backend_pools.middlewares.Authentication]\ncache_time = \"2d\"",
            5,
            14,
            "`cache_time` must be from 0 to 1 day",
        ),
        (
            "[backend_pools.middlewares.Authentication]\ntimeout = 0",
            5,
            11,
            "`timeout` must be from 1 ms to 15 s",
        ),
        (
            "[backend_pools.middlewares.Authentication]\ntimeout = 16",
            5,
            11,
            "`timeout` must be from 1 ms to 15 s",
        ),
        (
            "[backend_pools.middlewares.Authentication]\nbind_password = \"x\"",
            4,
            1,
            "`bind_password` without `bind_dn`",
        ),
        (
            "[backend_pools.middlewares.Authentication]\nbind_dn = \"cn=a\"",
            4,
            1,
            "missing `bind_password_file` in `Authentication`",
        ),
        (
            "[backend_pools.middlewares.Authentication]\nbind_dn = \"cn=a\"\nbind_password = \"\"",
            6,
            17,
            "`bind_password` must not be empty",
        ),
        (
            "[backend_pools.middlewares.Authentication]\nbind_dn = \"cn=a\"\nbind_password = \"a\"\nbind_password_file = \"b\"",
            7,
            22,
            "`bind_password` and `bind_password_file` are two passwords",
        ),
        (
            "[backend_pools.middlewares.Authentication]\nrealm = \"\u{fc}\"",
            5,
            9,
            "`realm` must be ASCII: clients do not agree on other characters there",
        ),
        (
            "[backend_pools.middlewares.Authentication]\nldap_adress = \"ldap://a\"",
            5,
            1,
            "unknown key \"ldap_adress\" in `Authentication`",
        ),
        ("[backend_pools.middlewares.BasicAuth]\nrealm = \"a\"", 4, 1, "missing `users_file` in `BasicAuth`"),
        ("[backend_pools.middlewares.BasicAuth]\nusers = []", 5, 9, "`users` has no users"),
        (
            "[backend_pools.middlewares.BasicAuth]\nusers = 1",
            5,
            9,
            "`users` must be a table of hashed passwords, or a list of \"name:hash\", found an integer",
        ),
        (
            "[backend_pools.middlewares.BasicAuth]\nusers = { a = 1 }",
            5,
            15,
            "the hash of a password must be a string, found an integer",
        ),
        (
            "[backend_pools.middlewares.BasicAuth]\nusers = [\"a:b\"]",
            5,
            10,
            "user \"a\": its password is not hashed, or by the DES of crypt(3): use `htpasswd -B`, or bcrypt, argon2id or sha-512-crypt",
        ),
        ("[backend_pools.middlewares.BasicAuth]\nusers = [\":b\"]", 5, 10, "user \"\": its name is empty"),
        (
            "[backend_pools.middlewares.BasicAuth]\nusers_file = \"u\"\nusers = []",
            5,
            1,
            "`users` and `users_file` are two lists",
        ),
        (
            "[backend_pools.middlewares.CustomErrorPages]\n\"200\" = \"ok.html\"",
            5,
            1,
            "\"200\" is not the status of an error",
        ),
        (
            "[backend_pools.middlewares.CustomErrorPages]\n404 = \"\"",
            5,
            7,
            "the path of a page must not be empty",
        ),
        (
            "[backend_pools.middlewares.CustomErrorPages]\nerrors = [404]",
            4,
            1,
            "missing `location` in `CustomErrorPages`",
        ),
        (
            "[backend_pools.middlewares.CustomErrorPages]\nlocation = \"p\"\nerrors = [404, 404]",
            6,
            16,
            "there are two pages for 404",
        ),
        (
            "[backend_pools.middlewares.CustomErrorPages]\nlocation = \"p\"\nerrors = [200, \"x\"]",
            6,
            11,
            "a status in `errors` must be from 400 to 599",
        ),
    ];
    for (text, line, column, message) in cases {
        let found = errors(&in_pool(text));
        assert!(found.contains(&(line, column, message.to_owned())), "{text}\n{found:#?}");
    }
}

/// What the help of an error about a health check says to write is accepted there.
#[test]
fn suggestions_for_health_checks_are_accepted() {
    let table = [
        ("method", "\"get\""),
        ("expect", "\"2xx\""),
        ("expect", "\"300 - 399\""),
        ("expect", "\"399-300\""),
        ("expect", "\"200..=299\""),
        ("expect", "\"204-204\""),
        ("host", "\"http://shop.example/up\""),
        ("host", "\"2001:db8::1\""),
        ("host", "\"https://[2001:db8::1]:8443/\""),
    ];
    for (key, wrong) in table {
        let file = |value: &str| in_pool(&format!("[backend_pools.health_config]\n{key} = {value}"));
        let help = parse(&file(wrong)).diagnostics.remove(0).help.expect("a help");
        let value = help.split('"').nth(1).expect("a text between quotes");
        let parsed = parse(&file(&format!("\"{value}\"")));
        assert!(parsed.config.is_some(), "{key} = {wrong}: {help}: {:?}", parsed.diagnostics);
    }
}

#[test]
fn errors_of_backends() {
    // (the items of `addresses`, column, message)
    let cases = [
        ("\"a:1\", \"A:1\"", 21, "\"A:1\" is already in this pool"),
        ("\"unix:/a\", \"unix:/./a\"", 25, "\"unix:/./a\" is already in this pool"),
        ("\"unix:a\"", 14, "bad address \"unix:a\": its path \"a\" does not begin at `/`"),
        ("\"a:1\", \"https://a:1\"", 21, "\"a:1\" is already in this pool"),
        ("\"[::1]:1\", { address = \"[0:0::1]:1\" }", 37, "\"[0:0::1]:1\" is already in this pool"),
        ("\"127.0.0.1:1\", \"[::ffff:127.0.0.1]:1\"", 29, "\"[::ffff:127.0.0.1]:1\" is already in this pool"),
        (
            "1",
            14,
            "each of `addresses` must be a string like \"127.0.0.1:8080\" or a table, found an integer",
        ),
        ("{ weight = 1 }", 14, "missing `address` in a backend"),
        ("{ address = \"a:1\", weight = 1001 }", 42, "`weight` must be from 0 to 1000"),
        ("{ address = \"a:1\", max_conns = 1 }", 33, "unknown key \"max_conns\" in a backend"),
        ("{ address = \"a\", backup = 1 }", 26, "bad address \"a\": the port is missing"),
        ("{ address = \"a\", backup = 1 }", 40, "`backup` must be true or false, found an integer"),
    ];
    for (list, column, message) in cases {
        let found = errors(&format!("http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [{list}]\n"));
        assert!(found.contains(&(3, column, message.to_owned())), "{list}\n{found:#?}");
    }
    for (text, message) in [
        ("[[backend_pools]]", "missing `addresses` in a backend pool"),
        (
            "[[backend_pools]]\naddresses = \"a:1\"",
            "`addresses` must be a list like [\"127.0.0.1:8080\"], found a string",
        ),
        ("[backend_pools]\naddresses = [\"a:1\"]", "`backend_pools` must be a list of tables, found a table"),
        ("backend_pools = [1]", "a backend pool must be a table, found an integer"),
    ] {
        let found = errors(&format!("http_address = \"[::]:80\"\n{text}\n"));
        assert_eq!(found.iter().map(|(.., m)| &**m).collect::<Vec<_>>(), [message], "{text}");
    }
}

/// What is checked of a Unix socket is that socket: another port would say nothing of it.
#[test]
fn a_unix_socket_has_no_port_to_check() {
    let text = |list: &str, health: &str| {
        format!(
            "http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [{list}]\n[backend_pools.health_config]\n{health}\n"
        )
    };
    for (list, health, expected) in [
        ("\"a:1\"", "port = 9000", None),
        ("\"unix:/run/a\"", "host = \"a:9000\"", None),
        ("{ address = \"unix:/run/a\", weight = 3, max_connections = 2, backup = true }", "rise = 2", None),
        ("\"unix:/run/a\"", "port = 9000", Some("\"unix:/run/a\" has no port that could be checked")),
        (
            "\"a:1\", { address = \"unix:/b\" }",
            "port = 1",
            Some("\"unix:/b\" has no port that could be checked"),
        ),
    ] {
        let text = text(list, health);
        let found = expected.map(|message| (5, 8, message.to_owned()));
        assert_eq!(errors(&text), Vec::from_iter(found), "{text}");
    }
}

#[test]
fn errors_of_listeners() {
    let pool = |line: &str| {
        format!(
            "http_address = \"[::]:80\"\n[[listeners]]\nname = \"internal\"\naddress = \"127.0.0.1:81\"\n\
             [[listeners]]\nname = \"status\"\naddress = \"127.0.0.1:82\"\nkind = \"admin\"\n\
             [[backend_pools]]\naddresses = [\"a:1\"]\n{line}\n"
        )
    };
    assert_eq!(errors(&pool("listeners = [\"internal\", \"http\"]")), []);
    let cases = [
        ("listeners = [\"internl\"]", 11, 14, "there is no listener \"internl\""),
        ("listeners = [\"https\"]", 11, 14, "there is no listener \"https\""),
        ("listeners = []", 11, 13, "`listeners` is an empty list"),
        ("listeners = [1]", 11, 14, "each of `listeners` must be a string, found an integer"),
        ("listeners = 1", 11, 13, "`listeners` must be a string or a list of strings, found an integer"),
        (
            "listeners = [\"status\"]",
            11,
            14,
            "listener \"status\" is an admin listener, which no pool takes requests from",
        ),
        (
            "schemes = [\"HTTPS\"]\nlisteners = [\"internal\"]",
            12,
            14,
            "listener \"internal\" is for plain HTTP, but this pool takes only HTTPS",
        ),
    ];
    for (line, row, column, message) in cases {
        let found = errors(&pool(line));
        assert!(found.contains(&(row, column, message.to_owned())), "{line}\n{found:#?}");
    }
    let listener = |lines: &str| {
        format!(
            "http_address = \"[::]:80\"\n[[listeners]]\n{lines}\n[[backend_pools]]\naddresses = [\"a:1\"]\n"
        )
    };
    let cases = [
        ("address = \"127.0.0.1:81\"", 2, 1, "missing `name` in a listener"),
        ("name = \"x\"", 2, 1, "missing `address` in a listener"),
        (
            "name = \"x\"\naddress = \"::1:81\"",
            4,
            11,
            "bad address \"::1:81\" for `address`: an IPv6 address stands in brackets",
        ),
        ("name = \"x\"\naddress = \"[::]:80\"", 4, 11, "\"[::]:80\" is already listened on"),
        (
            "name = \"http\"\naddress = \"[::]:81\"",
            3,
            8,
            "\"http\" is the name of the listeners of `http_address`",
        ),
        (
            "name = \"admin\"\naddress = \"[::]:81\"",
            3,
            8,
            "\"admin\" is the name of the listeners of `metrics_address`",
        ),
        ("name = \"x\"\naddress = \"[::]:81\"\nkind = \"tcp\"", 5, 8, "unknown kind \"tcp\""),
        (
            "name = \"x\"\naddress = \"[::]:81\"\nprotocol = \"http\"",
            5,
            1,
            "unknown key \"protocol\" in a listener",
        ),
        (
            "name = \"x\"\naddress = \"[::]:81\"\n[[listeners]]\nname = \"x\"\naddress = \"[::]:82\"",
            6,
            8,
            "listener 1 is already named \"x\"",
        ),
    ];
    for (lines, row, column, message) in cases {
        let found = errors(&listener(lines));
        assert!(found.contains(&(row, column, message.to_owned())), "{lines}\n{found:#?}");
    }
    // A listener with another error is known to pools.
    let text = "http_address = \"[::]:80\"\n[[listeners]]\nname = \"x\"\n[[backend_pools]]\nlisteners = [\"x\"]\naddresses = [\"a:1\"]\n";
    assert_eq!(errors(text), [(2, 1, "missing `address` in a listener".to_owned())]);
    let only = |top: &str| errors(&format!("{top}\n[[backend_pools]]\naddresses = [\"a:1\"]\n"));
    let nothing = "there is nothing to listen on: neither `http_address` nor `https_address`";
    assert_eq!(only("[[listeners]]\nname = \"x\"\naddress = \"[::]:80\""), []);
    assert_eq!(only("[[listeners]]\nname = \"x\"\nkind = \"admin\"\naddress = \"[::]:80\"")[0].2, nothing);
    assert_eq!(only("[[listener]]\nname = \"x\"\naddress = \"[::]:80\"").len(), 1);
    assert_eq!(
        only("[listeners]\nname = \"x\"\naddress = \"[::]:80\"")[0].2,
        "`listeners` must be a list of tables, found a table"
    );
}

#[test]
fn lints_of_listeners() {
    let never = |why: &str| {
        format!("pool \"pool-2\" never gets a request: pool \"pool-1\", earlier in the file, {why}")
    };
    let no_certificate = "there is no certificate, so nothing listens on this address".to_owned();
    // (first pool, second pool, warnings)
    let cases = [
        (
            "",
            "listeners = \"a\"\nmatcher = \"Host('x')\"",
            vec![
                "pool \"pool-1\" takes every request, so that pools after it get none: \"pool-2\"".to_owned(),
            ],
        ),
        ("listeners = \"a\"", "", vec![]),
        ("listeners = \"a\"", "listeners = \"b\"", vec![]),
        ("listeners = \"a\"", "listeners = [\"a\", \"b\"]", vec![]),
        ("listeners = [\"a\", \"b\"]", "listeners = \"a\"", vec![never("has the same matcher")]),
        (
            "listeners = \"a\"\nmatcher = \"Host('x')\"",
            "listeners = \"a\"\nmatcher = \"Host('x') && Path('/y')\"",
            vec![never("takes them all")],
        ),
    ];
    for (first, second, expected) in cases {
        let pool = "[[backend_pools]]\naddresses = [\"a:1\"]\n";
        let text = format!(
            "[[listeners]]\nname = \"a\"\naddress = \"[::]:81\"\n[[listeners]]\nname = \"b\"\naddress = \"[::]:82\"\n{pool}{first}\n{pool}{second}\n"
        );
        assert_eq!(warnings(&text), expected, "{text}");
    }
    let of_tls = "http_address = \"[::]:80\"\n[[listeners]]\nname = \"tls\"\nkind = \"https\"\naddress = \"[::]:443\"\n\
                  [[backend_pools]]\naddresses = [\"a:1\"]\nlisteners = [\"tls\"]\n";
    let unreachable = "pool \"pool-1\" takes only HTTPS, but there is no certificate".to_owned();
    assert_eq!(warnings(of_tls), [no_certificate, unreachable]);
    let certificate = "[certificates.a]\ntype = \"ACME\"\nemail = \"a@b\"\npersist_dir = \"c\"\n";
    assert!(warnings(&format!("{of_tls}{certificate}")).is_empty());
    // A secure cookie of a pool that only plain listeners reach.
    let cookie = "strategy.StickyCookie = { cookie_name = \"s\" }\n";
    assert!(warnings(&format!("{of_tls}{cookie}{certificate}")).is_empty());
    let plain = of_tls.replace("[\"tls\"]", "[\"http\"]");
    assert_eq!(
        warnings(&format!("{plain}{cookie}{certificate}")),
        ["a secure cookie never comes back over plain HTTP, so nothing sticks"]
    );
}

fn warnings(text: &str) -> Vec<String> {
    feed_back::every_suggestion(text);
    let parsed = parse(text);
    assert!(parsed.config.is_some(), "{}", render(&parsed.diagnostics, "f", text));
    parsed.diagnostics.into_iter().map(|d| d.message).collect()
}

#[test]
fn a_level_of_compression_that_costs_much_is_warned_of() {
    let costly = "brotli above level 4 needs 8 to 40 MB for each response";
    for (settings, expected) in [
        ("", None),
        ("level = 4", None),
        ("level = 5", Some(costly)),
        ("level = 9\nalgorithms = [\"gzip\", \"br\"]", Some(costly)),
        ("level = 9\nalgorithms = [\"zstd\", \"gzip\", \"deflate\"]", None),
        ("min_bytes = 0\ntypes = [\"text/*\", \"*/*+json\", \"*/*\", \"font/ttf\"]", None),
    ] {
        let text = in_pool(&format!("[backend_pools.middlewares.Compression]\n{settings}"));
        assert_eq!(warnings(&text), expected.into_iter().collect::<Vec<_>>(), "{text}");
    }
}

#[test]
fn lints_of_matchers() {
    let wider =
        Some("pool \"pool-2\" never gets a request: pool \"pool-1\", earlier in the file, takes them all");
    let same = Some(
        "pool \"pool-2\" never gets a request: pool \"pool-1\", earlier in the file, has the same matcher",
    );
    let all = Some("pool \"pool-1\" takes every request, so that pools after it get none: \"pool-2\"");
    // (first pool, second pool, warning)
    let cases = [
        ("", "matcher = \"Host('a')\"", all),
        ("matcher = \"PathPrefix('/')\"", "matcher = \"Host('a')\"", all),
        ("matcher = \"Host('b') || PathPrefix('/')\"", "matcher = \"Host('a')\"", all),
        ("", "", same),
        ("matcher = \"Host('A')\"", "matcher = 'Host(\"a\")'", same),
        ("matcher = \"Host('a')\"", "matcher = \"Path('/b') && Host('a')\"", wider),
        ("matcher = \"Host('a') && Path('/b')\"", "matcher = \"Host('a') && Path('/b')\"", same),
        ("matcher = \"Host('a') && Path('/b')\"", "matcher = \"Host('a')\"", None),
        ("matcher = \"Host('a')\"", "matcher = \"Host('a') || Host('b')\"", None),
        ("matcher = \"Host('a')\"", "", None),
        ("schemes = [\"HTTP\"]", "schemes = [\"HTTP\"]\nmatcher = \"Host('a')\"", all),
        ("schemes = [\"HTTPS\"]", "schemes = [\"HTTP\"]\nmatcher = \"Host('a')\"", None),
        ("schemes = [\"HTTP\"]", "matcher = \"Host('a')\"", None),
    ];
    let certificate = "[certificates.a]\ntype = \"ACME\"\nemail = \"a@b\"\npersist_dir = \"c\"\n";
    for (first, second, expected) in cases {
        let pool = "[[backend_pools]]\naddresses = [\"a:1\"]\n";
        let text = format!(
            "http_address = \"[::]:80\"\nhttps_address = \"[::]:443\"\n{pool}{first}\n{pool}{second}\n{certificate}"
        );
        assert_eq!(warnings(&text), expected.into_iter().collect::<Vec<_>>(), "{text}");
    }
    // What the help tells to do with the order of pools does away with the warning.
    let pool = |name: &str, matcher: &str| {
        format!("[[backend_pools]]\nname = \"{name}\"\naddresses = []\n{matcher}\n")
    };
    let [all, a, b] = [
        pool("all", ""),
        pool("a", "matcher = \"Host('a')\""),
        pool("b", "matcher = \"Host('a') && Path('/b')\""),
    ];
    let messages = |pools: &[&String]| {
        let text: String = pools.iter().map(|pool| pool.as_str()).collect();
        let mut found = warnings(&format!("http_address = \"[::]:80\"\n{text}"));
        found.retain(|message| !message.contains("has no backends"));
        found
    };
    assert_eq!(
        messages(&[&all, &a, &b]),
        ["pool \"all\" takes every request, so that pools after it get none: \"a\", \"b\""]
    );
    assert_eq!(
        messages(&[&a, &b, &all]),
        ["pool \"b\" never gets a request: pool \"a\", earlier in the file, takes them all"]
    );
    assert!(messages(&[&b, &a, &all]).is_empty());
    let anchors = [
        ("HostRegexp('a\\.b')", true),
        ("HostRegexp('^a\\.b')", true),
        ("HostRegexp('^a|b$')", true),
        ("HostRegexp('^a\\$')", true),
        ("HostRegexp('^aä')", true),
        ("HostRegexp('^(a|b)\\.c$')", false),
        ("HostRegexp('^[|]$')", false),
        ("HostRegexp('\\Aa\\z')", false),
        ("PathRegexp('/a')", true),
        ("!PathRegexp('/a')", true),
        ("PathRegexp('^/a')", false),
        ("Method('get')", true),
        ("Method('GET') && Host('a')", false),
        ("Method('GET|POST')", true),
        // Meant for the end, or for the middle.
        ("PathRegexp('\\.php$')", false),
        ("PathRegexp('//|%2F')", false),
        ("Path('/static/*')", true),
        ("PathPrefix('/static/*')", true),
        ("Path('/price$')", true),
        ("Path('/a+b')", false),
    ];
    for (matcher, warned) in anchors {
        assert_eq!(
            warnings(&in_pool(&format!("matcher = '''{matcher}'''"))).len(),
            usize::from(warned),
            "{matcher}"
        );
    }
}

#[test]
fn lints_of_the_rest() {
    let cases = [
        (
            in_pool("[backend_pools.health_config]\nslow_threshold = 600"),
            "`slow_threshold` is above `timeout`: a backend is unhealthy before it is slow",
        ),
        (
            in_pool("[backend_pools.health_config]\ntimeout = 200"),
            "`slow_threshold` is above `timeout`: a backend is unhealthy before it is slow",
        ),
        (in_pool("schemes = [\"HTTPS\"]"), "pool \"pool-1\" takes only HTTPS, but there is no certificate"),
        (
            in_pool("schemes = [\"HTTP\"]\nstrategy.StickyCookie.cookie_name = \"s\""),
            "a secure cookie never comes back over plain HTTP, so nothing sticks",
        ),
        (
            in_pool("strategy.StickyCookie = { cookie_name = \"s\" }"),
            "a secure cookie never comes back over plain HTTP, so nothing sticks",
        ),
        (
            in_pool("[backend_pools.health_config]\ntimeout = 2\nslow_threshold = 0"),
            "`timeout = 2` is 2 ms: a number without a unit counts milliseconds here",
        ),
        (
            in_file("timeouts.connect = 5000"),
            "`connect = 5000` is 5000 s: a number without a unit counts seconds here",
        ),
        (
            in_pool("strategy.StickyCookie = { cookie_name = \"s\", secure = false, same_site = \"None\" }"),
            "browsers drop a cookie with SameSite=None that is not secure",
        ),
        (
            in_pool("strategy.StickyCookie = { cookie_name = \"__Host-s\", secure = false }"),
            "browsers drop a cookie whose name begins like this and that is not secure",
        ),
        (
            in_pool(
                "[backend_pools.middlewares]\nRateLimiter = { limit = 1, window_sec = 1 }\nCompression = {}\nCustomErrorPages = { 404 = \"p.html\" }",
            ),
            "CustomErrorPages does not see what RateLimiter before it in the file answers",
        ),
        (in_pool("[backend_pools.middlewares.CustomErrorPages]"), "CustomErrorPages has no pages"),
        (
            in_file("https_address = \"[::]:443\""),
            "there is no certificate, so nothing listens on `https_address`",
        ),
        (
            in_file("[certificates.a]\ntype = \"ACME\"\nemail = \"a@b\"\npersist_dir = \"c\""),
            "there are certificates, but nothing listens for HTTPS",
        ),
        (
            "http_address = \"[::]:80\"".to_owned(),
            "there are no [[backend_pools]]: every request is answered 404",
        ),
        (
            "http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = []".to_owned(),
            "pool \"pool-1\" has no backends: it answers 503",
        ),
        (
            "http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [{ address = \"a:1\", weight = 0 }]"
                .to_owned(),
            "every backend of pool \"pool-1\" has weight 0: none takes new requests",
        ),
        (
            "http_address = \"0.0.0.0:9090\"\n[[backend_pools]]\naddresses = [\"a:1\"]".to_owned(),
            "no metrics page: its default address 127.0.0.1:9090 is taken by this listener",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(warnings(&text), [expected], "{text}");
    }
    let without_warnings = [
        in_pool(""),
        in_pool("[backend_pools.health_config]\nslow_threshold = 0"),
        in_pool(
            "[backend_pools.middlewares]\nCustomErrorPages = { 404 = \"p.html\" }\nRateLimiter = { limit = 1, window_sec = 1 }",
        ),
        in_pool("[backend_pools.middlewares]\nCompression = {}\nCustomErrorPages = { 404 = \"p.html\" }"),
        in_pool("strategy.StickyCookie = { cookie_name = \"s\", secure = false }"),
        in_pool(
            "strategy.StickyCookie = { cookie_name = \"s\" }\n[certificates.a]\ntype = \"ACME\"\nemail = \"a@b\"\npersist_dir = \"c\"",
        )
        .replace("http_address", "https_address"),
        in_pool("[backend_pools.health_config]\ntimeout = \"2ms\"\nslow_threshold = \"1ms\""),
    ];
    for text in without_warnings {
        assert_eq!(warnings(&text), [""; 0], "{text}");
    }
}

/// Pieces of real files in any order: they reach more code than random characters.
fn file_pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n"),
        Just(" = "),
        Just("[[backend_pools]]\n"),
        Just("[backend_pools.middlewares.RateLimiter]\n"),
        Just("[backend_pools.middlewares.CustomErrorPages]\n"),
        Just("[backend_pools.health_config]\n"),
        Just("[backend_pools.strategy.StickyCookie]\n"),
        Just("[certificates.\"*.a\"]\n"),
        Just("[certificates]\n"),
        Just("[timeouts]\n"),
        Just("[limits]\n"),
        Just("http_address = "),
        Just("metrics_address = "),
        Just("trusted_proxies = "),
        Just("matcher = "),
        Just("addresses = "),
        Just("schemes = "),
        Just("strategy = "),
        Just("inner = "),
        Just("errors = "),
        Just("location = "),
        Just("head = "),
        Just("slow_weight = "),
        Just("name = "),
        Just("\"[::]:80\"\n"),
        Just("\"Host(\\\"a\\\") && Pth('\\u00e4')\"\n"),
        Just("'''\nHost('ä') ||'''\n"),
        Just("[\"HTTP\", \"a:1\"]\n"),
        Just("{ StickyCookie = { inner = {} } }\n"),
        Just("{ address = \"https://[::1]:1\", weight = 9e99 }\n"),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just("\""),
        Just("'''"),
        Just("1"),
        Just("-1.5e300"),
        Just("nan"),
        Just("1979-05-27"),
        Just("\u{feff}"),
        Just("ä"),
        Just("\0"),
        Just("\t"),
        Just("#"),
        Just("\r\n"),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|parts| parts.concat())
}

fn check(text: &str) {
    let parsed = parse(text);
    let shown = render(&parsed.diagnostics, "f", text);
    assert!(shown.lines().count() >= parsed.diagnostics.len());
    let has_errors = parsed.diagnostics.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(parsed.config.is_none(), has_errors);
    for d in &parsed.diagnostics {
        assert!(text.get(d.span.clone()).is_some(), "{d:?}");
        assert!(d.line >= 1 && d.column >= 1 && !d.message.contains('\n'), "{d:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn no_file_like_text_panics(text in file_pieces()) {
        check(&text);
    }

    #[test]
    fn no_cut_or_changed_file_panics(cut in 0..6000_usize, at in 0..6000_usize, c in any::<char>()) {
        let mut text = include_str!("../../testdata/configs/bad/many-mistakes.toml").to_owned();
        let floor = |text: &str, at: usize| {
            (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
        };
        let end = floor(&text, cut % (text.len() + 1));
        text.truncate(end);
        let place = floor(&text, at % (text.len() + 1));
        text.insert(place, c);
        check(&text);
    }
}

#[test]
fn quoted_texts_stay_on_one_line() {
    check("http_address = \'\'\'[[backend_pools]]\n{ address = \"https://[::1]:1\" }\n\'\'\'\n");
    check(
        "http_address = \"\\u001b[2J\\n://\\n\"\n[[backend_pools]]\naddresses = [\"a\\n://b\", \"a\\n:1/\\r\"]\nmatcher = \"Host('\\n')\"\n",
    );
}

#[test]
fn many_mistakes_on_one_line_take_linear_time() {
    // With 50 000 mistakes, quadratic time would be minutes.
    let list = (0..50_000).map(|i| format!("\"x{i}\"")).collect::<Vec<_>>().join(",");
    let text = format!("http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [{list}]\n");
    let parsed = parse(&text);
    assert_eq!(parsed.diagnostics.len(), 50_000);
    assert_eq!(render(&parsed.diagnostics, "f", &text).lines().count(), 200_000);
    // So do errors of the syntax, also where an end is looked for that never comes.
    for line in [
        "workers = x\n",
        "workers = 1\n",
        "a = {\n",
        "a = [\n",
        "a = \"\"\"\n",
        "a = '\n",
        "[[a\n",
        "x\n",
        "a = \"\\.\"\n",
    ] {
        let text = format!("http_address = \"[::]:80\"\n{}", line.repeat(50_000));
        assert!(!parse(&text).diagnostics.is_empty());
    }
}
