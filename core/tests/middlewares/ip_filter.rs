//! `IpAllow` and `IpDeny`: by the client that `trusted_proxies` leave, in both orders.

use std::sync::Arc;

use ruststrom_core::{Shared, config};

use crate::hooks::nothing_left;
use crate::two_wires::{PAIRS, Rig};

const ALLOW: &str = "IpAllow = { ranges = [\"192.0.2.0/24\", \"::ffff:10.0.0.0/104\", \"2001:db8::/32\"] }";
const DENY: &str = "IpDeny = { ranges = [\"192.0.2.7\", \"2001:db8:0:66::/64\"] }";

#[test]
fn clients_pass_by_their_addresses() {
    let trusting = "trusted_proxies = [\"192.0.2.7\"]";
    // Further keys of the file, the pool's middlewares, `X-Forwarded-For`, and whether the client, who is
    // connected from 192.0.2.7, is let in.
    let table: &[(&str, &[&str], &str, bool)] = &[
        ("", &[ALLOW], "", true),
        ("", &[DENY], "", false),
        ("", &[ALLOW, DENY], "", false),
        ("", &[DENY, ALLOW], "", false),
        // A stranger is who it is.
        ("", &[ALLOW], "203.0.113.5", true),
        ("", &[DENY], "203.0.113.5", false),
        // A trusted proxy speaks for its client.
        (trusting, &[ALLOW], "203.0.113.5", false),
        (trusting, &[ALLOW], "10.1.2.3", true),
        (trusting, &[ALLOW], "::ffff:10.1.2.3", true),
        (trusting, &[ALLOW], "10.1.2.3, 203.0.113.5", false),
        (trusting, &[DENY], "203.0.113.5", true),
        (trusting, &[DENY, ALLOW], "2001:db8::1", true),
        (trusting, &[DENY, ALLOW], "2001:db8:0:66::1", false),
        (trusting, &[DENY], "nonsense", false),
    ];
    for pair in PAIRS {
        for (top, middlewares, forwarded, let_in) in table {
            let text = format!(
                "http_address = \"127.0.0.1:80\"\n{top}\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\n\
                 addresses = [\"127.0.0.1:81\"]\nmiddlewares = {{ {} }}\n",
                middlewares.join(", ")
            );
            let parsed = config::parse(&text);
            let config = parsed.config.unwrap_or_else(|| panic!("{text}: {:?}", parsed.diagnostics));
            let mut rig = Rig::new(config, Arc::new(Shared::new("lb", 1)), pair);
            let c = rig.client();
            let field = if forwarded.is_empty() {
                String::new()
            } else {
                format!("X-Forwarded-For: {forwarded}\r\n")
            };
            let far = rig.ask(c, &format!("GET / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n"), true);
            assert_eq!(rig.asked().len(), usize::from(*let_in), "{pair:?} {top} {middlewares:?} {forwarded}");
            if !let_in {
                let got = rig.message(far);
                assert!(got.ended && got.head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{got:?}");
                nothing_left(&mut rig);
            }
        }
    }
}
