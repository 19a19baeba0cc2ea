//! Middlewares in configuration files: names that the file gives them, and mistakes in the table of each
//! kind.

use ruststrom_core::config::{Middleware, Parsed, Severity, parse};

/// A valid file with `rest` from line 4 on, within a pool.
fn in_pool(rest: &str) -> String {
    format!("http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [\"a:1\"]\n{rest}\n")
}

/// Line, column and message of every diagnostic of this severity.
fn found(text: &str, severity: Severity) -> Vec<(usize, usize, String)> {
    let Parsed { config, diagnostics, .. } = parse(text);
    assert_eq!(config.is_none(), diagnostics.iter().any(|d| d.severity == Severity::Error), "{text}");
    let diagnostics = diagnostics.into_iter().filter(|d| d.severity == severity);
    diagnostics.map(|d| (d.line, d.column, d.message)).collect()
}

/// The help of the first diagnostic.
fn help(text: &str) -> String {
    parse(text).diagnostics.into_iter().next().and_then(|d| d.help).expect("a diagnostic with a help")
}

/// Names in the pool's list, and tables behind the pools.
fn named(list: &str, tables: &str) -> String {
    format!("{}{tables}\n", in_pool(&format!("middlewares = {list}")))
}

#[test]
fn named_middlewares_join_the_chain_of_every_pool_that_lists_them() {
    let text = "http_address = \"[::]:80\"\n\
        [middlewares.limits]\nMaxBodySize = { limit = 5 }\nRateLimiter = { limit = 1, window_sec = 1 }\n\
        [middlewares.\"web pages\".MaxBodySize]\nlimit = 7\n[middlewares.\"web pages\".Compression]\n\
        [[backend_pools]]\nmatcher = \"Host('a')\"\naddresses = [\"a:1\"]\nmiddlewares = [\"web pages\", \"limits\"]\n\
        [[backend_pools]]\nmatcher = \"Host('b')\"\naddresses = [\"a:1\"]\nmiddlewares = [\"limits\"]\n\
        [[backend_pools]]\naddresses = [\"a:1\"]\nmiddlewares = []\n";
    let parsed = parse(text);
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    let config = parsed.config.expect("valid");
    let names = |pool: usize| {
        let chain = &config.pools[pool].middlewares;
        chain.iter().map(Middleware::name).collect::<Vec<_>>()
    };
    assert_eq!(names(0), ["MaxBodySize", "Compression", "MaxBodySize", "RateLimiter"]);
    assert_eq!(names(1), ["MaxBodySize", "RateLimiter"]);
    assert!(names(2).is_empty());
    assert_eq!(config.pools[0].middlewares[2], config.pools[1].middlewares[0]);
    assert_ne!(config.pools[0].middlewares[0], config.pools[0].middlewares[2]);
}

#[test]
fn mistakes_in_names_are_errors_at_their_place() {
    let web = "[middlewares.web.HttpsRedirector]";
    let cases = [
        (named("[\"wbe\"]", web), 4, 16, "there are no middlewares named \"wbe\"", "did you mean \"web\"?"),
        (named("[\"zzzzzz\"]", web), 4, 16, "there are no middlewares named \"zzzzzz\"", "there are web"),
        (
            named("[\"x\"]", ""),
            4,
            16,
            "there are no middlewares named \"x\"",
            "they are in tables of the file: [middlewares.NAME.Compression]",
        ),
        (
            named("[\"HttpsRedirector\"]", ""),
            4,
            16,
            "there are no middlewares named \"HttpsRedirector\"",
            "it is a kind of middleware: write [backend_pools.middlewares.HttpsRedirector] instead of the list",
        ),
        (named("[\"web\", \"web\"]", web), 4, 23, "\"web\" stands in this list already", "remove it"),
        (
            named("\"web\"", web),
            4,
            15,
            "`middlewares` must be a table, or a list of names, found a string",
            "write [\"web\"]",
        ),
        (
            named("[]", "[middlewares.RateLimiter]\nlimit = 1\nwindow_sec = 1"),
            5,
            14,
            "\"RateLimiter\" is a kind of middleware: it needs a name here",
            "write [middlewares.NAME.RateLimiter], or [backend_pools.middlewares.RateLimiter] in a pool",
        ),
        (
            named("[\"web\"]", "[middlewares.web.HttpsRedirecter]"),
            5,
            18,
            "unknown middleware \"HttpsRedirecter\"",
            "did you mean \"HttpsRedirector\"?",
        ),
    ];
    for (text, line, column, message, expected) in cases {
        assert_eq!(found(&text, Severity::Error), [(line, column, message.to_owned())], "{text}");
        assert_eq!(help(&text), expected, "{text}");
    }
    let odd = named("[1, \"web\"]", web);
    assert_eq!(
        found(&odd, Severity::Error),
        [(4, 16, "each of `middlewares` must be a string, found an integer".to_owned())]
    );
    let table = named("[]", "[middlewares]\nweb = 1");
    let message = "`middlewares` must be a table, found an integer".to_owned();
    assert_eq!(found(&table, Severity::Error), [(6, 7, message)]);
}

#[test]
fn names_without_use_and_without_middlewares_are_doubtful() {
    let cases = [
        (named("[]", "[middlewares.web.HttpsRedirector]"), 14, "no pool uses the middlewares \"web\""),
        (named("[\"web\"]", "[middlewares.web]"), 14, "there are no middlewares in \"web\""),
    ];
    for (text, column, message) in cases {
        assert_eq!(found(&text, Severity::Warning), [(5, column, message.to_owned())], "{text}");
        assert!(parse(&text).config.is_some(), "{text}");
    }
    // A kind may be a name all the same.
    let kind = named("[\"Compression\"]", "[middlewares.Compression.Compression]");
    assert!(parse(&kind).diagnostics.is_empty(), "{:?}", parse(&kind).diagnostics);
}

#[test]
fn a_chain_has_a_longest_length() {
    let tables: String = (0..101).map(|n| format!("[middlewares.n{n}.HttpsRedirector]\n")).collect();
    let list = |n: usize| (0..n).map(|n| format!("\"n{n}\"")).collect::<Vec<_>>().join(", ");
    assert!(parse(&named(&format!("[{}]", list(100)), &tables)).config.is_some());
    let errors = found(&named(&format!("[{}]", list(101)), &tables), Severity::Error);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].2, "a pool has at most 100 middlewares");
}

/// A file whose pool has a middleware of this kind; its keys begin at line 5.
fn kind(name: &str, keys: &str) -> String {
    in_pool(&format!("[backend_pools.middlewares.{name}]\n{keys}"))
}

/// (keys, line, column, message, help)
type Mistake = (&'static str, usize, usize, &'static str, &'static str);

/// Each of these keys has this error alone.
fn check_mistakes(name: &str, cases: &[Mistake]) {
    for &(keys, line, column, message, expected) in cases {
        let text = kind(name, keys);
        assert_eq!(found(&text, Severity::Error), [(line, column, message.to_owned())], "{text}");
        let given = parse(&text).diagnostics.remove(0).help.unwrap_or_default();
        assert_eq!(given, expected, "{text}");
    }
}

#[test]
fn mistakes_in_headers() {
    let anew = "every hop makes it anew";
    let hop = |name: &str| format!("\"{name}\" can't be changed: {anew}");
    for name in [
        "Content-Length",
        "transfer-encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "TE",
        "Trailer",
        "Upgrade",
    ] {
        for (side, change) in [("request", "set"), ("response", "add")] {
            let text = kind("Headers", &format!("{side}.{change} = {{ {name} = \"x\" }}"));
            let found = found(&text, Severity::Error);
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(found[0].2, hop(name), "{text}");
        }
    }
    for name in ["X-Forwarded-For", "x-forwarded-proto", "X-Real-IP", "X-Request-ID", "X-Client-Verify"] {
        let text = kind("Headers", &format!("request.set = {{ {name} = \"x\" }}"));
        let message = format!("\"{name}\" can't be changed: the proxy sets it in every request");
        assert_eq!(found(&text, Severity::Error), [(5, 17, message)], "{text}");
        assert!(parse(&text.replace("request", "response")).config.is_some(), "{text}");
    }
    check_mistakes(
        "Headers",
        &[
            (
                "request.set.Host = \"a\"",
                5,
                13,
                "\"Host\" can't be changed: the host stays the one that the client has asked for",
                "",
            ),
            (
                "request.remove = [\"X_Forwarded_For\"]",
                5,
                19,
                "\"X_Forwarded_For\" can't be changed: a field of this name never passes: write it with `-`",
                "",
            ),
            (
                "response.remove = [\"a b\"]",
                5,
                20,
                "\"a b\" is not the name of a field",
                "a name has letters, digits and `-`",
            ),
            (
                "response.set = { X-A = \"1\", x-a = \"2\" }",
                5,
                29,
                "\"x-a\" is set already",
                "names are the same in any case",
            ),
            (
                "response = { set = { X-A = \"1\" }, remove = [\"x-a\"] }",
                5,
                45,
                "\"x-a\" is both set and removed",
                "what is set replaces every field of its name",
            ),
            (
                "request.set.X-B = \"to {backend}\"",
                5,
                23,
                "which backend gets a request is not known yet when its fields are set",
                "{backend} can stand in `response` of Headers",
            ),
            (
                "response.set.X-B = \"{clientip}\"",
                5,
                22,
                "unknown placeholder \"{clientip}\"",
                "did you mean \"{client_ip}\"?",
            ),
            (
                "response.set.X-B = \"{zzz}\"",
                5,
                22,
                "unknown placeholder \"{zzz}\"",
                "there are {client_ip}, {host}, {scheme}, {request_id}, {backend}; {{ is a brace",
            ),
            ("response.set.X-B = \"{\"", 5, 21, "this `{` is never closed", "write {{ for a brace"),
            ("response.set.X-B = \"a } b\"", 5, 23, "nothing has opened this `}`", "write }} for a brace"),
            ("response.set.X-B = \"a\\r\\nSet-Cookie: b\"", 5, 22, "a field has no control characters", ""),
            ("response.set.X-B = \"a\\u0000\"", 5, 22, "a field has no control characters", ""),
            ("response.set.X-B = \" a\"", 5, 21, "a field neither begins nor ends with a blank", ""),
            ("response.set.X-B = 1", 5, 20, "the value of a field must be a string, found an integer", ""),
            (
                "response.sets.X-B = \"1\"",
                5,
                10,
                "unknown key \"sets\" in `response`",
                "did you mean \"set\"?",
            ),
            ("security = 1", 5, 12, "`security` must be true or false, found an integer", "write true"),
        ],
    );
    let nothing = kind("Headers", "");
    assert_eq!(found(&nothing, Severity::Warning)[0].2, "Headers changes nothing");
}

#[test]
fn mistakes_in_error_pages() {
    let text = kind("CustomErrorPages", "404 = \"a.html\"\n500 = \"b.xyz\"\n502 = \"c.JSON\"");
    let message = "the type of \"b.xyz\" is not known".to_owned();
    assert_eq!(found(&text, Severity::Warning), [(6, 7, message)]);
    assert!(parse(&text).config.is_some());
}

#[test]
fn mistakes_in_paths() {
    check_mistakes(
        "StripPrefix",
        &[
            ("", 4, 1, "missing `prefixes` in `StripPrefix`", "add prefixes = [\"/api\"]"),
            ("prefixes = []", 5, 12, "`prefixes` is an empty list", "it is like [\"/api\", \"/v1\"]"),
            ("prefixes = \"api\"", 5, 12, "\"api\" is not a path", "write \"/api\""),
            (
                "prefixes = [\"/a\", \"/%61/../b\"]",
                5,
                19,
                "the path \"/%61/../b\" is not normalised",
                "write \"/b\"",
            ),
            (
                "prefixes = \"/a?b\"",
                5,
                12,
                "\"/a?b\" is not a path",
                "it is like \"/api\": it begins with `/`, and has no query",
            ),
            ("prefixes = \"/\"", 5, 12, "`/` is no prefix to strip: every path begins with it", ""),
            ("prefixes = [\"/a\", \"/a/\"]", 5, 19, "this prefix stands in the list already", ""),
        ],
    );
    check_mistakes(
        "AddPrefix",
        &[
            ("prefix = \"/\"", 5, 10, "`/` is no prefix to add: every path begins with it", ""),
            ("prefix = \"v1\"", 5, 10, "\"v1\" is not a path", "write \"/v1\""),
            (
                "prefixes = \"/v1\"",
                5,
                1,
                "unknown key \"prefixes\" in `AddPrefix`",
                "did you mean \"prefix\"?",
            ),
        ],
    );
    check_mistakes(
        "ReplacePath",
        &[(
            "path = \"/a b\"",
            5,
            8,
            "\"/a b\" is not a path",
            "it is like \"/api\": it begins with `/`, and has no query",
        )],
    );
    check_mistakes(
        "ReplacePathRegex",
        &[
            ("regex = '('\nreplacement = \"/\"", 5, 9, "bad regular expression \"(\": unclosed group", ""),
            (
                "regex = '^/(.*)$'\nreplacement = \"/x$1y\"",
                6,
                18,
                "the expression has no group \"1y\"",
                "write ${1}y",
            ),
            (
                "regex = '^/(.*)$'\nreplacement = \"/?a=$1\"",
                6,
                15,
                "a path has no `?`, `#` and `\\`: what follows `?` in a request stays",
                "",
            ),
            (
                "regex = '^/'",
                4,
                1,
                "missing `replacement` in `ReplacePathRegex`",
                "add replacement = \"/new/$1\"",
            ),
        ],
    );
}

#[test]
fn mistakes_in_redirects_and_responses() {
    check_mistakes(
        "Redirect",
        &[
            (
                "regex = '^http:'\nreplacement = \"https:\"\nstatus = 300",
                7,
                10,
                "300 is not the status of a redirect",
                "there are 301, 302, 303, 307 and 308",
            ),
            (
                "regex = '^http:'\nreplacement = \"https:\\r\\nSet-Cookie:a\"",
                6,
                22,
                "only visible ASCII characters can stand here",
                "write %0D",
            ),
        ],
    );
    check_mistakes(
        "Respond",
        &[
            ("status = 101", 5, 10, "`status` must be from 200 to 599", ""),
            ("body = \"a\"\nfile = \"b\"", 6, 1, "there are both `body` and `file`", "remove one of them"),
            ("status = 204\nbody = \"a\"", 6, 1, "a response of status 204 has no content", ""),
            ("status = 304\nfile = \"a.txt\"", 6, 1, "a response of status 304 has no content", ""),
            (
                "content_type = \"html\"",
                5,
                16,
                "\"html\" is not a media type",
                "it is like \"text/html; charset=utf-8\"",
            ),
            ("headers.TE = \"a\"", 5, 9, "\"TE\" can't be changed: every hop makes it anew", ""),
            (
                "headers.X-A = \"{backend}\"",
                5,
                16,
                "no backend makes this response",
                "{backend} can stand in `response` of Headers",
            ),
        ],
    );
}

#[test]
fn a_pool_that_responds_itself_needs_no_addresses() {
    let pool = |addresses: &str, middlewares: &str| {
        format!("http_address = \"[::]:80\"\n[[backend_pools]]\n{addresses}\n{middlewares}\n")
    };
    let parsed = parse(&pool("", "middlewares.Respond.body = \"User-agent: *\""));
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    assert!(parsed.config.expect("valid").pools[0].backends.is_empty());
    let parsed = parse(&pool("middlewares = [\"robots\"]", "[middlewares.robots.Respond]"));
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    // Its own mistake is the only one.
    let text = pool("", "middlewares.Respond.status = 1");
    assert_eq!(found(&text, Severity::Error).len(), 1, "{text}");
    let text = pool("", "middlewares.Headers.security = true");
    assert_eq!(found(&text, Severity::Error)[0].2, "missing `addresses` in a backend pool");
    let text = pool(
        "addresses = [\"a:1\"]",
        "[backend_pools.middlewares]\nRespond = {}\nHeaders = { security = true }",
    );
    let warnings: Vec<_> =
        found(&text, Severity::Warning).into_iter().map(|(line, _, m)| (line, m)).collect();
    assert_eq!(
        warnings,
        [
            (3, "the backends of pool \"pool-1\" get no request: Respond answers all".to_owned()),
            (6, "Headers never sees a request: Respond stands before it in the file".to_owned()),
        ]
    );
}

#[test]
fn named_groups_are_no_variables() {
    let rule = "regex = '^/(?P<rest>.*)$'\nreplacement = '/new/${rest}'";
    for name in ["ReplacePathRegex", "Redirect"] {
        let text = kind(name, rule);
        let parsed = parse(&text);
        assert!(parsed.diagnostics.is_empty(), "{text}: {:?}", parsed.diagnostics);
    }
}
