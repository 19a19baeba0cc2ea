//! What a reload says has changed.

use ruststrom_core::Config;
use ruststrom_core::config::{self, difference};

fn parse(text: &str) -> Config {
    let parsed = config::parse(text);
    parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

#[test]
fn in_words() {
    let base = "http_address = \"127.0.0.1:80\"\n\
                [[backend_pools]]\nname = \"web\"\nmatcher = \"Host('a.example')\"\naddresses = [\"10.0.0.1:1\", \"10.0.0.2:1\"]\n\
                [[backend_pools]]\nname = \"old\"\naddresses = [\"10.0.0.9:1\"]\n";
    let top = |line: &str| format!("{line}\n{base}");
    // (the newer file, what is said)
    for (after, said) in [
        (base.to_owned(), &[][..]),
        (format!("# a comment\n{base}"), &[]),
        (
            top("via = true\ntimeouts.head = 3"),
            &["settings: timeouts, via", "pools: ~web (timeouts), ~old (timeouts)"],
        ),
        (
            base.replace("\"10.0.0.1:1\", ", "\"10.0.0.3:1\", \"10.0.0.4:1\", "),
            &["pools: ~web (2 backends added, 1 backend removed)"],
        ),
        (base.replace("name = \"old\"", "name = \"new\"\nretries = 3"), &["pools: +new, -old"]),
        (
            base.replace("addresses = [\"10.0.0.9", "strategy = \"Random\"\naddresses = [\"10.0.0.9"),
            &["pools: ~old (strategy)"],
        ),
        (
            base.replace("\"10.0.0.2:1\"", "{ address = \"10.0.0.2:1\", weight = 7 }"),
            &["pools: ~web (1 backend changed)"],
        ),
        (
            base.replace("127.0.0.1:80", "127.0.0.1:81"),
            &["listeners: +127.0.0.1:81 (http), -127.0.0.1:80 (http)"],
        ),
        (
            {
                let (top, pools) = base.split_at(base.find("[[").expect("a pool"));
                let (web, old) = pools.split_at(pools.rfind("[[").expect("a pool"));
                format!("{top}{}{web}", old.replace("addresses", "matcher = \"Path('/x')\"\naddresses"))
            },
            &["pools: ~old (matcher), another order"],
        ),
    ] {
        assert_eq!(difference(&parse(base), &parse(&after)), said, "{after}");
    }
}

/// A pool that takes from some listeners only has the same ones, though their places in the file differ.
#[test]
fn places_do_not_count() {
    let file = |more: &str| {
        parse(&format!(
            "{more}[[listeners]]\nname = \"b\"\naddress = \"127.0.0.1:82\"\n\
             [[backend_pools]]\nname = \"web\"\nlisteners = [\"b\"]\naddresses = [\"10.0.0.1:1\"]\n"
        ))
    };
    let said = difference(&file(""), &file("http_address = \"127.0.0.1:81\"\n"));
    assert_eq!(said, ["listeners: +127.0.0.1:81 (http)"]);
}
