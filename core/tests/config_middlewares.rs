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
