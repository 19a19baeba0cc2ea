//! Variables of the environment in a configuration file.

use ruststrom_core::config::{self, Address, Parsed, render};

fn parse(text: &str) -> Parsed {
    config::parse_in(text, &|name| match name {
        "PORT" => Some("8080".to_owned()),
        "HOST" => Some("app.example".to_owned()),
        "QUOTED" => Some("a\"\nworkers = 7 #".to_owned()),
        "NONSENSE" => Some("???".to_owned()),
        _ => None,
    })
}

#[test]
fn every_string_may_have_them() {
    let text = "http_address = \"127.0.0.1:${PORT}\"\n[[backend_pools]]\nname = \"${QUOTED}\"\n";
    let named =
        "matcher = \"Host('${HOST}')\"\naddresses = ['${HOST}:${PORT}', \"b.example:${OTHER:-81}\"]\n";
    let text = format!("{}{named}", text.replace("${QUOTED}", "${HOST}"));
    let Parsed { config, diagnostics, .. } = parse(&text);
    let config = config.unwrap_or_else(|| panic!("{diagnostics:#?}"));
    assert_eq!(config.listeners[0].address.port(), 8080);
    let pool = &config.pools[0];
    assert_eq!(&*pool.name, "app.example");
    let expected = [("app.example", 8080), ("b.example", 81)];
    let expected = expected.map(|(host, port)| Address::Name { host: host.into(), port });
    assert!(pool.backends.iter().map(|b| &b.address).eq(&expected), "{:?}", pool.backends);
}

/// What a variable holds is a text, and never TOML.
#[test]
fn a_value_cannot_add_keys() {
    let text = "http_address = \"127.0.0.1:1\"\n[[backend_pools]]\naddresses = [\"127.0.0.1:2\"]\n\
                health_config = { path = \"/${QUOTED}\" }\n";
    let parsed = parse(text);
    assert!(parsed.config.is_none_or(|config| config.workers.is_none()));
}

#[test]
fn what_is_missing_is_said_where_it_is_written() {
    let rest = "[[backend_pools]]\naddresses = [\"127.0.0.1:2\"]\n";
    // (line, what is reported, what is marked)
    for (line, message, marked) in [
        ("http_address = \"127.0.0.1:${NO}\"", "there is no variable NO in the environment", "${NO}"),
        ("http_address = '127.0.0.1:${NO}'", "there is no variable NO in the environment", "${NO}"),
        // Where it can't be worked out the whole text is marked.
        (
            "http_address = \"\"\"127.0.0.1:\\\n${NO}\"\"\"",
            "there is no variable NO in the environment",
            "\"\"\"127.0.0.1:\\\n${NO}\"\"\"",
        ),
        ("http_address = \"${NONSENSE}\"", "bad address \"???\" for `http_address`", "\"${NONSENSE}\""),
        ("http_address = \"127.0.0.1:1\"\nuser = \"${NO}\"", "there is no variable NO", "${NO}"),
        ("http_address = \"127.0.0.1:$PORT\"", "variables are not written so", "\"127.0.0.1:$PORT\""),
    ] {
        let text = format!("{line}\n{rest}");
        let Parsed { config, diagnostics, .. } = parse(&text);
        assert!(config.is_none(), "{line}");
        let [only] = &diagnostics[..] else { panic!("{line}: {}", render(&diagnostics, "f", &text)) };
        assert!(only.message.contains(message), "{line}: {}", only.message);
        assert_eq!(&text[only.span.clone()], marked, "{line}");
    }
    let two = format!("http_address = \"${{A}}:${{B}}\"\n{rest}");
    let found: Vec<_> = parse(&two).diagnostics.iter().map(|d| d.span.clone()).collect();
    assert_eq!(found, [16..20, 21..25]);
}
