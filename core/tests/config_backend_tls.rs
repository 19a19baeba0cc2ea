//! `https://` backends and `[backend_pools.tls]`: what is read, what is wrong with it, and what it warns of.

mod feed_back;

use std::net::IpAddr;
use std::sync::Arc;

use ruststrom_core::config::{
    Alpn, BackendTls, ClientCertificate, Config, Http2Use, Parsed, Severity, TlsName, TlsTarget, parse,
    render,
};

/// A file with `rest` from line 4 on, in a pool whose backends are `addresses`.
fn file(addresses: &str, rest: &str) -> String {
    format!("http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [{addresses}]\n{rest}\n")
}

fn valid(text: &str) -> Config {
    let Parsed { config, diagnostics, .. } = parse(text);
    config.unwrap_or_else(|| panic!("{}", render(&diagnostics, "f", text)))
}

/// What is spoken TLS with to each backend of the only pool.
fn targets(text: &str) -> Vec<Option<Arc<TlsTarget>>> {
    valid(text).pools[0].backends.iter().map(|b| b.protocol.tls().cloned()).collect()
}

fn dns(name: &str) -> TlsName {
    TlsName::Dns(name.into())
}

fn ip(text: &str) -> TlsName {
    TlsName::Ip(text.parse::<IpAddr>().expect("an address"))
}

#[test]
fn whom_a_certificate_has_to_be_for() {
    let cases = [
        ("https://app.example.com:443", dns("app.example.com")),
        ("HTTPS://App.Example.com.:8443", dns("app.example.com")),
        ("https://my_app:443", dns("my_app")),
        ("https://xn--bcher-kva.example:443", dns("xn--bcher-kva.example")),
        ("https://10.0.0.1:443", ip("10.0.0.1")),
        ("https://[2001:db8::1]:443", ip("2001:db8::1")),
        ("https://[::ffff:10.0.0.1]:443", ip("10.0.0.1")),
        // It is resolved like a name, but it is none.
        ("https://10.0.0.1.:443", ip("10.0.0.1")),
    ];
    for (address, name) in cases {
        let found = targets(&file(&format!("\"{address}\""), ""));
        let [Some(target)] = &found[..] else { panic!("{address}: {found:?}") };
        assert_eq!((&target.name, &*target.settings), (&name, &BackendTls::default()), "{address}");
        assert_eq!(*target.label, address[8..], "{address}");
    }
    assert_eq!(targets(&file("\"a:443\", \"http://b:443\"", "")), [None, None]);
}

#[test]
fn all_keys() {
    let rest = "[backend_pools.tls]\nca_file = \"ca.pem\"\nserver_name = \"API.internal.\"\nverify = true\n\
                client_certificate = \"lb.crt\"\nclient_key = \"lb.key\"";
    let text = file("\"https://10.0.0.1:1\", \"a:1\", { address = \"https://b:1\", weight = 2 }", rest);
    let found = targets(&text);
    let [Some(first), None, Some(last)] = &found[..] else { panic!("{found:?}") };
    let client = ClientCertificate { certificate: "lb.crt".into(), key: "lb.key".into() };
    let expected = BackendTls {
        ca_file: Some("ca.pem".into()),
        server_name: Some(dns("api.internal")),
        verify: true,
        client: Some(client),
        alpn: Alpn::Http2First,
    };
    assert_eq!((&*first.settings, &first.name), (&expected, &dns("api.internal")));
    assert!(Arc::ptr_eq(&first.settings, &last.settings), "one value for the pool");
    assert_eq!((&last.name, &*first.label, &*last.label), (&first.name, "10.0.0.1:1", "b:1"));
    assert_ne!(first, last, "sessions of one backend are not for another");
    assert_eq!(parse(&text).diagnostics, []);

    // The driver looks at the files: here is where they are written.
    let places = parse(&text).places.backend_tls;
    let [place] = &places[..] else { panic!("{places:?}") };
    let spans = [&place.ca_file, &place.client_certificate, &place.client_key];
    let texts = spans.map(|span| &text[span.clone().expect("written")]);
    assert_eq!((&*place.pool, texts), ("pool-1", ["\"ca.pem\"", "\"lb.crt\"", "\"lb.key\""]));
    assert!(text[place.addresses.clone()].starts_with("[\"https://10.0.0.1:1\""));

    for (written, name) in [("10.0.0.7", ip("10.0.0.7")), ("2001:DB8::1", ip("2001:db8::1"))] {
        let text = file("\"https://a:1\"", &format!("tls = {{ server_name = \"{written}\" }}"));
        assert_eq!(targets(&text)[0].as_ref().expect("TLS").name, name);
    }
}

#[test]
fn errors_have_places_and_suggestions() {
    // (from line 4 on, line, column, message, what is written instead if that is known)
    type Row = (&'static str, usize, usize, &'static str, Option<&'static str>);
    let cases: &[Row] = &[
        ("tls = true", 4, 7, "`tls` must be a table, found a boolean", None),
        ("tls = \"ca.pem\"", 4, 7, "`tls` must be a table, found a string", None),
        (
            "tls = { ca_fil = \"x\" }",
            4,
            9,
            "unknown key \"ca_fil\" in `tls`",
            Some("tls = { ca_file = \"x\" }"),
        ),
        (
            "tls = { alpn = \"h2\" }",
            4,
            16,
            "`alpn` must be a list like [\"h2\", \"http/1.1\"], found a string",
            Some("tls = { alpn = [\"h2\"] }"),
        ),
        ("tls = { alpn = [] }", 4, 16, "`alpn` is an empty list", None),
        (
            "tls = { alpn = [\"h2\", \"http/1\"] }",
            4,
            23,
            "unknown protocol \"http/1\"",
            Some("tls = { alpn = [\"h2\", \"http/1.1\"] }"),
        ),
        ("tls = { alpn = [\"h2\", \"h2\"] }", 4, 23, "\"h2\" is already in this list", None),
        (
            "tls = { alpn = [\"http/1.1\", \"http/1.1\"] }",
            4,
            29,
            "\"http/1.1\" is already in this list",
            None,
        ),
        ("tls = { insecure = true }", 4, 9, "unknown key \"insecure\" in `tls`", None),
        ("tls = { ca_file = \" \" }", 4, 19, "`ca_file` must not be empty", None),
        ("tls = { ca_file = [\"x\"] }", 4, 19, "`ca_file` must be a string, found a list", None),
        (
            "tls = { verify = \"on\" }",
            4,
            18,
            "`verify` must be true or false, found a string",
            Some("tls = { verify = true }"),
        ),
        (
            "[backend_pools.tls]\nclient_certificate = \"c\"",
            4,
            1,
            "missing `client_key` in `tls`",
            Some("[backend_pools.tls]\nclient_key = \"certs/client.key\"\nclient_certificate = \"c\""),
        ),
        (
            "tls = { client_key = \"k\" }",
            4,
            7,
            "missing `client_certificate` in `tls`",
            Some("tls = { client_certificate = \"certs/client.crt\", client_key = \"k\" }"),
        ),
        (
            "tls = { server_name = \"*.a.example\" }",
            4,
            23,
            "bad `server_name` \"*.a.example\": it has to be one name; the certificate may have a wildcard that covers it",
            None,
        ),
        ("tls = { server_name = \"\" }", 4, 23, "bad `server_name` \"\": it is empty", None),
        (
            "tls = { server_name = \"a.example:443\" }",
            4,
            23,
            "bad `server_name` \"a.example:443\": it has no port",
            Some("tls = { server_name = \"a.example\" }"),
        ),
        (
            "tls = { server_name = \"https://a.example/x\" }",
            4,
            23,
            "bad `server_name` \"https://a.example/x\": it has a scheme",
            Some("tls = { server_name = \"a.example\" }"),
        ),
        (
            "tls = { server_name = \"[::1]:443\" }",
            4,
            23,
            "bad `server_name` \"[::1]:443\": only letters, digits, `-`, `_` and `.` are allowed",
            Some("tls = { server_name = \"::1\" }"),
        ),
        (
            "tls = { server_name = \"bücher.example\" }",
            4,
            23,
            "bad `server_name` \"bücher.example\": it is not ASCII: write the `xn--` form",
            None,
        ),
    ];
    for (rest, line, column, message, instead) in cases {
        let text = file("\"https://a:1\"", rest);
        let suggested = feed_back::every_suggestion(&text);
        let Parsed { config, diagnostics, .. } = parse(&text);
        let [found] = &diagnostics[..] else { panic!("{rest}: {diagnostics:#?}") };
        assert_eq!((found.line, found.column, &*found.message), (*line, *column, *message), "{rest}");
        assert!(config.is_none() && found.severity == Severity::Error, "{rest}");
        assert_eq!(suggested > 0, instead.is_some(), "{rest}: {:?}", found.help);
        if let Some(instead) = instead {
            let text = feed_back::followed(&text, &found.suggestions[0]);
            assert_eq!(text, file("\"https://a:1\"", instead));
            assert_eq!(parse(&text).diagnostics, [], "{text}");
        }
    }
    let text = "http_address = \"[::]:80\"\n[tls]\nca_file = \"x\"\n[[backend_pools]]\naddresses = [\"https://a:1\"]\n";
    let help = parse(text).diagnostics[0].help.clone();
    assert_eq!(
        help.as_deref(),
        Some("it belongs to a pool: write [backend_pools.tls] below [[backend_pools]]")
    );
}

#[test]
fn warnings() {
    const OPEN: &str = "certificates are not verified: whoever can get between here and these backends can read and change everything";
    const IDLE: &str = "`tls` does nothing: no backend of pool \"pool-1\" has https://";
    const CA: &str = "`ca_file` does nothing with `verify = false`";
    // (addresses, from line 4 on, its warnings)
    type Row = (&'static str, &'static str, &'static [(usize, usize, &'static str)]);
    let cases: [Row; 8] = [
        ("\"https://a:1\"", "tls = { verify = true }", &[]),
        ("\"https://a:1\"", "tls = {}", &[]),
        ("\"https://a:1\", \"b:1\"", "tls = { verify = false }", &[(4, 18, OPEN)]),
        (
            "\"https://a:1\"",
            "[backend_pools.tls]\nverify = false\nca_file = \"x\"",
            &[(5, 10, OPEN), (6, 11, CA)],
        ),
        ("\"a:1\"", "[backend_pools.tls]\nca_file = \"x\"", &[(4, 1, IDLE)]),
        ("\"a:1\"", "tls = { verify = false }", &[(4, 7, IDLE)]),
        ("\"h2c://a:1\"", "tls = { verify = true }", &[(4, 7, IDLE)]),
        ("", "tls = { verify = true }", &[(3, 13, "pool \"pool-1\" has no backends: it answers 503")]),
    ];
    for (addresses, rest, expected) in cases {
        let text = file(addresses, rest);
        let Parsed { config, diagnostics, .. } = parse(&text);
        let found: Vec<_> = diagnostics.iter().map(|d| (d.line, d.column, &*d.message)).collect();
        assert_eq!(found, expected, "{text}");
        assert!(config.is_some() && diagnostics.iter().all(|d| d.severity == Severity::Warning), "{text}");
    }
}

#[test]
fn what_is_offered() {
    let cases = [
        ("", Alpn::Http2First, &["h2", "http/1.1"][..]),
        ("[\"h2\", \"http/1.1\"]", Alpn::Http2First, &["h2", "http/1.1"]),
        ("[\"http/1.1\", \"h2\"]", Alpn::Http1First, &["http/1.1", "h2"]),
        ("[\"h2\"]", Alpn::Http2, &["h2"]),
        ("[\"http/1.1\"]", Alpn::Http1, &["http/1.1"]),
    ];
    for (written, alpn, names) in cases {
        let rest = if written.is_empty() { String::new() } else { format!("tls = {{ alpn = {written} }}") };
        let text = file("\"https://a:1\"", &rest);
        let config = valid(&text);
        let protocol = &config.pools[0].backends[0].protocol;
        let target = protocol.tls().expect("TLS");
        assert_eq!((target.settings.alpn, alpn.names()), (alpn, names), "{written}");
        let expected = match names {
            ["h2"] => Http2Use::Always,
            ["http/1.1"] => Http2Use::Never,
            _ => Http2Use::Offered,
        };
        assert_eq!(protocol.http2(), expected, "{written}");
        // Where there is a choice there is a target that leaves none.
        let single = target.for_http1();
        let chosen = if expected == Http2Use::Always { Alpn::Http2 } else { Alpn::Http1 };
        assert_eq!(single.settings.alpn, chosen, "{written}");
        assert_eq!((&single.label, &single.name), (&target.label, &target.name));
        // It is another identity: connections of before are not used, and health is learnt anew.
        let other = valid(&file("\"https://a:1\"", "tls = { alpn = [\"h2\"] }"));
        let same = other.pools[0].backends[0].protocol == *protocol;
        assert_eq!(same, alpn == Alpn::Http2, "{written}");
    }
    let plain = valid(&file("\"h2c://a:1\", \"b:1\"", ""));
    let spoken: Vec<Http2Use> = plain.pools[0].backends.iter().map(|b| b.protocol.http2()).collect();
    assert_eq!(spoken, [Http2Use::Always, Http2Use::Never]);
}
