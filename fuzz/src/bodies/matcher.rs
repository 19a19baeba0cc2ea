//! Matchers: read, printed, read again; and the answer of the router is that of a plain walk over the tree.
//!
//! An input is lines: a matcher, a host, a target, a method, a client's address, and fields as `name: value`.

use std::net::IpAddr;
use std::sync::OnceLock;

use ruststrom_core::config::{self, Matcher, Pool};
use ruststrom_core::route::{Ask, Fields, Router};

struct List(Vec<(Vec<u8>, Vec<u8>)>);

impl Fields for List {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && test(v))
    }
}

fn plain_pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let parsed = config::parse("http_address = \"192.0.2.1:80\"\n[[backend_pools]]\naddresses = [\"192.0.2.20:80\"]\n");
        parsed.config.expect("a good text").pools.swap_remove(0)
    })
}

pub(super) fn run(data: &[u8]) {
    let mut lines = data.split(|&b| b == b'\n');
    let Ok(text) = std::str::from_utf8(lines.next().unwrap_or_default()) else { return };
    let tree = match Matcher::parse(text) {
        Ok(tree) => tree,
        Err(problems) => {
            assert!(!problems.is_empty());
            for p in problems {
                assert!(text.get(p.at.clone()).is_some() && !p.message.is_empty(), "{p:?}");
            }
            return;
        }
    };
    let printed = tree.to_string();
    let again = Matcher::parse(&printed);
    assert_eq!(again.as_ref(), Ok(&tree), "{printed}");
    assert_eq!(again.map(|t| t.to_string()).as_ref(), Ok(&printed));

    let host = lines.next().unwrap_or_default();
    let target = lines.next().unwrap_or(b"/");
    let method = lines.next().unwrap_or(b"GET");
    let client = lines.next().and_then(|l| std::str::from_utf8(l).ok()?.parse().ok()).unwrap_or(IpAddr::from([192, 0, 2, 7]));
    let mark = target.iter().position(|&b| b == b'?');
    let fields = lines.filter_map(|l| {
        let colon = l.iter().position(|&b| b == b':')?;
        Some((l[..colon].to_vec(), l[colon + 1..].trim_ascii().to_vec()))
    });
    let fields = List(fields.collect());
    let ask = Ask {
        https: false,
        host,
        path: &target[..mark.unwrap_or(target.len())],
        query: mark.map(|at| &target[at + 1..]),
        method,
        client,
        fields: &fields,
    };
    let expected = naive(&tree, &ask, &fields);
    let pool = |matcher: &Matcher| Pool { matcher: matcher.clone(), ..plain_pool().clone() };
    let alone = Router::new(&[pool(&tree)]);
    assert_eq!(alone.route(&ask).is_some(), expected, "{printed}");
    // Among many, where hosts are looked up in a table: the places before it are other hosts' and its own negation's.
    let mut many: Vec<Pool> = (0..10).map(|n| pool(&Matcher::Host(format!("other-{n}.invalid").into()))).collect();
    many.push(pool(&tree));
    many.push(pool(&Matcher::Any));
    let other = many[..10].iter().position(|p| naive(&p.matcher, &ask, &fields));
    let wanted = other.unwrap_or(if expected { 10 } else { 11 });
    assert_eq!(Router::new(&many).route(&ask), Some(wanted as u16), "{printed}");
}

/// The host without port and final dot, as text would be cut by hand.
fn bare(host: &[u8]) -> Vec<u8> {
    let mut host = host.to_vec();
    if let Some(colon) = host.iter().rposition(|&b| b == b':')
        && host[colon + 1..].iter().all(u8::is_ascii_digit)
    {
        host.truncate(colon);
    }
    if host.last() == Some(&b'.') {
        host.pop();
    }
    host
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let hex = text.get(at + 1..at + 3).filter(|h| h.iter().all(u8::is_ascii_hexdigit));
        match (text[at], hex) {
            (b'%', Some(hex)) => {
                out.push(u8::from_str_radix(std::str::from_utf8(hex).expect("ASCII"), 16).expect("hex"));
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (b, _) => out.push(b),
        }
        at += 1;
    }
    out
}

fn naive(tree: &Matcher, ask: &Ask<'_>, fields: &List) -> bool {
    let said = |name: &str| -> Vec<&Vec<u8>> {
        fields.0.iter().filter(|(n, _)| n.to_ascii_lowercase() == name.to_ascii_lowercase().as_bytes()).map(|(_, v)| v).collect()
    };
    match tree {
        Matcher::Any => true,
        Matcher::Host(host) => bare(ask.host).to_ascii_lowercase() == host.as_bytes(),
        Matcher::HostRegexp(p) => p.is_match(&bare(ask.host)),
        Matcher::Path(path) => ask.path == path.as_bytes(),
        Matcher::PathPrefix(prefix) => {
            let below = if prefix.ends_with('/') { prefix.to_string() } else { format!("{prefix}/") };
            &**prefix == "/" || ask.path == prefix.as_bytes() || ask.path.starts_with(below.as_bytes())
        }
        Matcher::PathRegexp(p) => p.is_match(ask.path),
        Matcher::Method(m) => ask.method == m.as_bytes(),
        Matcher::Header(k, v) => said(k).iter().any(|found| found[..] == *v.as_bytes()),
        Matcher::HeaderRegexp(k, p) => said(k).iter().any(|found| p.is_match(found)),
        Matcher::Query(k, v) => ask.query.is_some_and(|query| {
            query.split(|&b| b == b'&').any(|pair| {
                let mut parts = pair.splitn(2, |&b| b == b'=');
                let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                decoded(name) == k.as_bytes() && decoded(value) == v.as_bytes()
            })
        }),
        Matcher::ClientIp(net) => match (net.addr(), ask.client.to_canonical()) {
            (IpAddr::V4(net_ip), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(net.prefix_len());
                u64::from(net_ip.to_bits()) >> shift == u64::from(ip.to_bits()) >> shift
            }
            (IpAddr::V6(net_ip), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(net.prefix_len());
                net_ip.to_bits().checked_shr(shift) == ip.to_bits().checked_shr(shift)
            }
            _ => false,
        },
        Matcher::Not(inner) => !naive(inner, ask, fields),
        Matcher::And(terms) => terms.iter().map(|t| naive(t, ask, fields)).filter(|good| !good).count() == 0,
        Matcher::Or(terms) => terms.iter().map(|t| naive(t, ask, fields)).filter(|good| *good).count() > 0,
    }
}
