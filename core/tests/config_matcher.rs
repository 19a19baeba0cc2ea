//! The matcher language: what is accepted, what is refused and where, and that a printed tree reads back as
//! the same tree.

use proptest::prelude::*;
use ruststrom_core::config::Matcher;
use ruststrom_core::config::matcher::{MAX_BYTES, MAX_DEPTH};

#[test]
fn reads() {
    // (as written, as printed)
    let cases = [
        ("Host('example.com')", "Host('example.com')"),
        (" Host ( \"Example.COM\" ) ", "Host('example.com')"),
        ("Host('example.com.')", "Host('example.com')"),
        ("Host('127.0.0.1')", "Host('127.0.0.1')"),
        ("Host('::1')", "Host('[::1]')"),
        ("Host('[0:0::1]')", "Host('[::1]')"),
        ("HostRegexp('^[a-z]+\\.example\\.com$')", "HostRegexp('^[a-z]+\\\\.example\\\\.com$')"),
        ("Path('/a%7eb%2fc%c3%a4')", "Path('/a~b%2Fc%C3%A4')"),
        ("PathPrefix('/')", "PathPrefix('/')"),
        ("PathRegexp('^/v\\d+/')", "PathRegexp('^/v\\\\d+/')"),
        ("Method('POST')", "Method('POST')"),
        ("Header('X-API-Key','secret')", "Header('x-api-key', 'secret')"),
        ("Header('x', '')", "Header('x', '')"),
        ("HeaderRegexp('User-Agent', '(?i)bot')", "HeaderRegexp('user-agent', '(?i)bot')"),
        ("Query('k', 'it\\'s \\\\ \\\"')", "Query('k', 'it\\'s \\\\ \"')"),
        ("Query('k', 'ä')", "Query('k', 'ä')"),
        ("ClientIP('10.1.2.3/8')", "ClientIP('10.0.0.0/8')"),
        ("ClientIP('::ffff:10.0.0.1')", "ClientIP('10.0.0.1/32')"),
        // `&&` binds closer than `||`, `!` closest.
        ("Path('/a') || Path('/b') && Path('/c')", "Path('/a') || Path('/b') && Path('/c')"),
        ("(Path('/a') || Path('/b')) && Path('/c')", "(Path('/a') || Path('/b')) && Path('/c')"),
        ("Path('/a')||(Path('/b')&&Path('/c'))", "Path('/a') || Path('/b') && Path('/c')"),
        ("((Path('/a') && (Path('/b') && Path('/c'))))", "Path('/a') && Path('/b') && Path('/c')"),
        ("!Path('/a') && Path('/b')", "!Path('/a') && Path('/b')"),
        ("!(Path('/a') && Path('/b'))", "!(Path('/a') && Path('/b'))"),
        ("!!Path('/a')", "Path('/a')"),
        ("!(!Path('/a'))", "Path('/a')"),
        ("! ! !\tPath('/a')\r\n", "!Path('/a')"),
    ];
    for (text, expected) in cases {
        let tree = Matcher::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert_eq!(tree.to_string(), expected, "{text}");
        assert_eq!(Matcher::parse(expected).as_ref(), Ok(&tree), "{expected}");
    }
}

#[test]
fn refuses() {
    // (as written, the spans' texts, the messages); several are separated by `;`
    let cases = [
        ("", "", "matcher is empty"),
        ("  ", "  ", "matcher is empty"),
        ("Host", "Host", "expected `(` after `Host`"),
        ("Host(", "", "expected a text in quotes"),
        ("Host()", "Host()", "Host takes one text, found 0"),
        ("Host('a', 'b')", "Host('a', 'b')", "Host takes one text, found 2"),
        ("Header('a')", "Header('a')", "Header takes two texts, found 1"),
        ("Host(a)", "a", "expected a text in quotes"),
        ("Host('a'", "", "expected `,` or `)` after this text"),
        ("Host('a' 'b')", "'", "expected `,` or `)` after this text"),
        ("Host('a)", "'", "this quote is never closed"),
        ("Hots('a')", "Hots", "unknown matcher \"Hots\""),
        ("Host('a') && ", "", "expected a term after this"),
        ("Host('a') Host('b')", "Host", "expected `&&` or `||` between two terms"),
        ("Host('a') & Host('b')", "&", "expected `&&` or `||` between two terms"),
        ("Host('a') and Host('b')", "and", "expected `&&` or `||` between two terms"),
        ("Host('a') || || Host('b')", "|", "expected a term"),
        ("not Host('a')", "not", "expected `(` after `not`"),
        ("(Host('a')", "(", "this `(` is never closed"),
        ("(Host('a') Host('b'))", "Host", "expected `&&` or `||` between two terms"),
        ("Host('a'))", ")", "this `)` closes nothing"),
        ("'a'", "'", "expected a term, found a text"),
        ("ä('a')", "ä", "unknown matcher \"ä\""),
        ("Host('a') && §", "§", "expected a term"),
        (
            "Host('a b')",
            "'a b'",
            "\"a b\" is not a host name: only letters, digits, `-`, `_` and `.` are allowed",
        ),
        (
            "Host('a:80')",
            "'a:80'",
            "Host takes a name without a port: the port of a request is not looked at",
        ),
        ("Host('*.a')", "'*.a'", "Host takes one name, no wildcard"),
        ("HostRegexp('(')", "'('", "bad regular expression: unclosed group"),
        ("PathRegexp('a{1000}{1000}')", "'a{1000}{1000}'", "regular expression is too big"),
        ("Path('a')", "'a'", "a path begins with `/`"),
        ("Path('/a?b')", "?", "a path ends before `?` and `#`: Query('key', 'value') is for the query"),
        ("Path('/a b')", " ", "this character is escaped in a path"),
        ("Path('/ä')", "ä", "this character is escaped in a path"),
        ("Path('/%4')", "%", "`%` needs two hexadecimal digits"),
        ("Path('/a/../b')", "'/a/../b'", "`.` and `..` are resolved before matching, so this never matches"),
        ("Method('GE T')", "'GE T'", "\"GE T\" is not a method"),
        ("Header('a b', 'c')", "'a b'", "\"a b\" is not the name of a header field"),
        (
            "Header('a', ' c')",
            "' c'",
            "a header field's value neither begins nor ends with a blank, so this never matches",
        ),
        (
            "ClientIP('10.0.0.0/33')",
            "'10.0.0.0/33'",
            "\"10.0.0.0/33\" is not an address or a network: the prefix must be from 0 to 32",
        ),
        ("Hosst('a') || Path('b')", "Hosst;'b'", "unknown matcher \"Hosst\";a path begins with `/`"),
    ];
    for (text, place, message) in cases {
        let errors = Matcher::parse(text).expect_err(text);
        let places: Vec<&str> = errors.iter().map(|e| &text[e.span.clone()]).collect();
        let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!((places.join(";").as_str(), messages.join(";").as_str()), (place, message), "{text}");
    }
}

#[test]
fn helps() {
    let cases = [
        ("Hots('a')", "did you mean \"Host\"?"),
        ("host('a')", "did you mean \"Host\"?"),
        ("PathRegex('a')", "did you mean \"PathRegexp\"?"),
        (
            "Xyzzy('a')",
            "there are Host, HostRegexp, Path, PathPrefix, PathRegexp, Method, Header, HeaderRegexp, Query, ClientIP",
        ),
        ("Host('a') & Host('b')", "write `&&`"),
        ("Host('a') OR Host('b')", "write `||`"),
        ("not Host('a')", "write `!`"),
        ("Host('a:80')", "write Host('a')"),
        ("Host('*.a.b')", "write HostRegexp('^[^.]+\\.a\\.b$')"),
        ("Path('a')", "write '/a'"),
        ("Path('/a b')", "write '/a%20b'"),
        ("Path('^/x$')", "write PathRegexp('^/x$')"),
        ("Header('a')", "for example Header('a', 'value')"),
        ("Host", "for example Host('example.com')"),
        (" ", "leave `matcher` out to take every request"),
    ];
    for (text, help) in cases {
        let errors = Matcher::parse(text).expect_err(text);
        assert_eq!(errors[0].help.as_deref(), Some(help), "{text}");
    }
}

#[test]
fn any_number_of_terms_and_no_deep_recursion() {
    let terms: Vec<String> = (0..10_000).map(|i| format!("Path('/{i}')")).collect();
    for operator in [" && ", " || "] {
        let text = terms.join(operator);
        let tree = Matcher::parse(&text).unwrap();
        assert_eq!(tree.to_string(), text);
    }
    let not = format!("{}Path('/a')", "!".repeat(100_001));
    assert_eq!(Matcher::parse(&not).unwrap().to_string(), "!Path('/a')");

    let nested = |depth: usize| format!("{}Path('/a'){}", "!(".repeat(depth), ")".repeat(depth));
    assert!(Matcher::parse(&nested(MAX_DEPTH)).is_ok());
    for depth in [MAX_DEPTH + 1, 100_000] {
        let errors = Matcher::parse(&nested(depth)).unwrap_err();
        assert_eq!(errors[0].message, "more than 64 parentheses within each other");
        assert_eq!(errors[0].span, MAX_DEPTH * 2 + 1..MAX_DEPTH * 2 + 2);
    }
    let long = "x".repeat(MAX_BYTES + 1);
    assert_eq!(Matcher::parse(&long).unwrap_err()[0].message, "matcher is longer than 1048576 bytes");
}

fn leaf() -> impl Strategy<Value = Matcher> {
    let text = "[a-z'\"\\\\ äß&|()!,]{0,8}";
    let quoted = |s: &str| format!("'{}'", s.replace('\\', "\\\\").replace('\'', "\\'"));
    let source = prop_oneof![
        "[a-zA-Z][a-zA-Z0-9]{0,8}(\\.[a-z]{1,5}){0,2}".prop_map(|h| format!("Host('{h}')")),
        text.prop_map(move |t| format!("HostRegexp({})", quoted(&regex_escaped(&t)))),
        "(/[a-zA-Z0-9~%]{0,4}){1,3}".prop_map(|p| format!("Path('{}')", p.replace('%', "%2f"))),
        "(/[a-z.]{2,4}x){1,3}".prop_map(|p| format!("PathPrefix('{p}')")),
        text.prop_map(move |t| format!("PathRegexp({})", quoted(&regex_escaped(&t)))),
        "[A-Z]{1,7}".prop_map(|m| format!("Method('{m}')")),
        ("[a-zA-Z-]{1,6}", text).prop_map(move |(k, v)| format!("Header('{k}', {})", quoted(v.trim()))),
        ("[a-zA-Z-]{1,6}", text)
            .prop_map(move |(k, v)| format!("HeaderRegexp('{k}', {})", quoted(&regex_escaped(&v)))),
        (text, text).prop_map(move |(k, v)| format!("Query({}, {})", quoted(&k), quoted(&v))),
        (any::<[u8; 4]>(), 0..=32_u8)
            .prop_map(|([a, b, c, d], p)| format!("ClientIP('{a}.{b}.{c}.{d}/{p}')")),
        (any::<u128>(), 0..=128_u8)
            .prop_map(|(a, p)| format!("ClientIP('{}/{p}')", std::net::Ipv6Addr::from_bits(a))),
    ];
    source.prop_map(|text| Matcher::parse(&text).unwrap_or_else(|e| panic!("{text}: {e:?}")))
}

fn regex_escaped(text: &str) -> String {
    text.chars().flat_map(|c| if "\\()|".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

/// Trees as parsing makes them: no `And` within an `And`, no `Or` within an `Or`, no double negation.
fn tree() -> impl Strategy<Value = Matcher> {
    leaf().prop_recursive(5, 40, 5, |inner| {
        let several = proptest::collection::vec(inner.clone(), 2..5);
        prop_oneof![
            inner.prop_map(|m| match m {
                Matcher::Not(m) => *m,
                m => Matcher::Not(Box::new(m)),
            }),
            several.clone().prop_map(|terms| {
                let flat = terms.into_iter().flat_map(|t| if let Matcher::And(t) = t { t } else { vec![t] });
                Matcher::And(flat.collect())
            }),
            several.prop_map(|terms| {
                let flat = terms.into_iter().flat_map(|t| if let Matcher::Or(t) = t { t } else { vec![t] });
                Matcher::Or(flat.collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn printed_trees_read_back(tree in tree()) {
        let text = tree.to_string();
        prop_assert_eq!(Matcher::parse(&text), Ok(tree), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused_in_place(text in "(Host|Path|Query|Header|Method|'|\"|\\\\|\\(|\\)|,|!|&&|\\|\\||&|/| |a|ä|\u{0}|%){0,30}") {
        match Matcher::parse(&text) {
            Ok(tree) => prop_assert_eq!(Matcher::parse(&tree.to_string()), Ok(tree)),
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for e in errors {
                    prop_assert!(text.get(e.span.clone()).is_some(), "{:?}", e);
                }
            }
        }
    }
}
