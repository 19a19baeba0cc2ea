//! Matchers: read, printed, read again; and the response of the router is that of a plain walk over the
//! trees.
//!
//! An input is lines: matchers (a byte of one between them), a host, a target, a method, a client's address,
//! and fields as `name: value`. After a zero byte it chooses words for all of these instead.

use std::net::IpAddr;
use std::sync::OnceLock;

use ruststrom_core::ListenerId;
use ruststrom_core::config::{self, Matcher, Pool};
use ruststrom_core::route::{FieldLookup, RouteInput, Router};

use super::input::Input;
use super::words;

struct List(Vec<(Vec<u8>, Vec<u8>)>);

impl FieldLookup for List {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && test(v))
    }
}

/// More of them than are tried one after the other.
const OTHERS: usize = 10;

fn plain_pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let parsed = config::parse(
            "http_address = \"192.0.2.1:80\"\n[[backend_pools]]\naddresses = [\"192.0.2.20:80\"]\n",
        );
        Pool { backends: Vec::new(), ..Pool::clone(&parsed.config.expect("a good text").pools[0]) }
    })
}

pub(super) fn run(data: &[u8]) {
    let [0, choices @ ..] = data else {
        let end = data.iter().position(|&b| b == b'\n');
        let Ok(texts) = std::str::from_utf8(&data[..end.unwrap_or(data.len())]) else { return };
        play(&texts.split('\u{1}').collect::<Vec<_>>(), end.map_or(&[], |at| &data[at + 1..]), 0);
        return;
    };
    let mut input = Input(choices);
    let schemes = input.byte();
    let texts: Vec<String> = (0..=input.below(6))
        .map(|_| {
            let mut text = String::new();
            words::matcher(&mut input, 4, &mut text);
            text
        })
        .collect();
    let asked = words::asked(&mut input);
    assert!(
        play(&texts.iter().map(|text| &**text).collect::<Vec<_>>(), asked.as_bytes(), schemes),
        "a good matcher is refused: {texts:?}"
    );
}

/// Whether all are matchers. A bit of `schemes` for each: it takes http only.
fn play(texts: &[&str], asked: &[u8], schemes: u8) -> bool {
    let trees: Vec<Matcher> = texts.iter().filter_map(|text| read(text)).collect();
    if trees.len() < texts.len() {
        return false;
    }
    let mut lines = asked.split(|&b| b == b'\n');
    let host = lines.next().unwrap_or_default();
    let target = lines.next().unwrap_or(b"/");
    let method = lines.next().unwrap_or(b"GET");
    let client = lines
        .next()
        .and_then(|l| std::str::from_utf8(l).ok()?.parse().ok())
        .unwrap_or(IpAddr::from([192, 0, 2, 7]));
    let mark = target.iter().position(|&b| b == b'?');
    let fields = lines.filter_map(|l| {
        let colon = l.iter().position(|&b| b == b':')?;
        Some((l[..colon].to_vec(), l[colon + 1..].trim_ascii().to_vec()))
    });
    let fields = List(fields.collect());
    let ask = RouteInput {
        https: schemes & 1 != 0,
        listener: ListenerId(0),
        host,
        path: &target[..mark.unwrap_or(target.len())],
        query: mark.map(|at| &target[at + 1..]),
        method,
        client,
        fields: &fields,
    };
    let pool = |(place, matcher): (usize, &Matcher)| Pool {
        matcher: matcher.clone(),
        https: schemes >> (1 + place % 7) & 1 == 0,
        ..plain_pool().clone()
    };
    let mut pools: Vec<Pool> = trees.iter().enumerate().map(pool).collect();
    let takes = |p: &Pool| (p.https || !ask.https) && naive(&p.matcher, &ask, &fields);
    let expected = pools.iter().position(takes);
    assert_eq!(Router::new(&pools).route(&ask).map(usize::from), expected, "{texts:?}");
    // Among many, where hosts are looked up in a table: other hosts' places before, one that takes everything
    // behind.
    let others = (0..OTHERS).map(|n| Matcher::Host(format!("other-{n}.invalid").into()));
    pools.splice(..0, others.map(|matcher| pool((0, &matcher))));
    pools.push(pool((pools.len(), &Matcher::Any)));
    let wanted = pools.iter().position(takes);
    assert_eq!(Router::new(&pools).route(&ask).map(usize::from), wanted, "{texts:?}");
    true
}

/// A matcher that prints as itself; or problems that lie in the text.
fn read(text: &str) -> Option<Matcher> {
    match Matcher::parse(text) {
        Ok(tree) => {
            let printed = tree.to_string();
            let again = Matcher::parse(&printed);
            assert_eq!(again.as_ref(), Ok(&tree), "{printed}");
            assert_eq!(again.map(|t| t.to_string()).as_ref(), Ok(&printed));
            Some(tree)
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for p in problems {
                assert!(text.get(p.span.clone()).is_some() && !p.message.is_empty(), "{p:?}");
            }
            None
        }
    }
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

fn naive(tree: &Matcher, ask: &RouteInput<'_>, fields: &List) -> bool {
    let said = |name: &str| -> Vec<&Vec<u8>> {
        fields
            .0
            .iter()
            .filter(|(n, _)| n.to_ascii_lowercase() == name.to_ascii_lowercase().as_bytes())
            .map(|(_, v)| v)
            .collect()
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
