//! Which pool takes a request: the first in file order whose listeners, scheme and matcher fit.
//!
//! With many pools, those that need one of a few known hosts are found by a table of hosts, so that a request
//! is matched only against pools that may take it. Routing allocates nothing.

mod certificate_names;
mod evaluate;
mod hosts;
mod listener_ids;
mod verdict;

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;

use crate::config::Pool;
use crate::config::matcher::Matcher;
use crate::http::RequestHead;
use crate::id::ListenerId;
pub use certificate_names::CertificateNames;
use evaluate::{MatchInput, matches};
use hosts::Hosts;
pub use listener_ids::ListenerIds;
pub use verdict::{PoolVerdict, TermVerdict};

/// What routing needs to know of a request.
#[derive(Clone, Copy)]
pub struct RouteInput<'a> {
    /// Whether it came over TLS.
    pub https: bool,
    /// The listener that accepted its connection.
    pub listener: ListenerId,
    /// `Host` or `:authority`; may carry a port.
    pub host: &'a [u8],
    /// The normalised path, without the query.
    pub path: &'a [u8],
    /// The query: what follows the `?`.
    pub query: Option<&'a [u8]>,
    /// The method, as sent.
    pub method: &'a [u8],
    /// The client's address, after `trusted_proxies`.
    pub client: IpAddr,
    /// The header fields.
    pub fields: &'a dyn FieldLookup,
}

impl fmt::Debug for RouteInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteInput")
            .field("listener", &self.listener)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// The header fields of a request, whatever stores them.
pub trait FieldLookup {
    /// Whether `test` is true for the value of any field with this name (given in lower case; names are
    /// compared in any case).
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

impl FieldLookup for RequestHead {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.fields().named(name).any(test)
    }
}

/// Up to this many pools and hosts, trying all pools one after the other is faster than a table.
const MAX_WITHOUT_TABLE: usize = 8;

/// The pools of a configuration, ready to be chosen from. One for each shard: regular expressions keep
/// scratch memory.
#[derive(Debug)]
pub struct Router {
    rules: Vec<Rule>,
    /// `None` if there are few pools.
    table: Option<Table>,
}

#[derive(Debug)]
struct Rule {
    http: bool,
    https: bool,
    /// The listeners whose requests the pool takes; `None`: all.
    listeners: Option<Box<[ListenerId]>>,
    matcher: Matcher,
    /// The matcher consists of hosts only: a pool found in the table matches.
    only_hosts: bool,
}

#[derive(Debug)]
struct Table {
    hosts: Hosts,
    /// Pools that may take any host, in file order.
    rest: Vec<u16>,
}

impl Router {
    /// A router for these pools; only the first 65536 can be chosen, and a checked configuration has fewer.
    /// Listeners have their places in the configuration as ids.
    #[must_use]
    pub fn new<P: Borrow<Pool>>(pools: &[P]) -> Self {
        Self::with_listeners(pools, &|place| ListenerId(place))
    }

    /// [`Router::new`] where `id` gives the id of the listener at a place of the configuration.
    #[must_use]
    pub fn with_listeners<P: Borrow<Pool>>(pools: &[P], id: &dyn Fn(u16) -> ListenerId) -> Self {
        let mut known: Vec<(&str, u16)> = Vec::new();
        let mut rest = Vec::new();
        let mut rules = Vec::new();
        for (index, pool) in (0..=u16::MAX).zip(pools) {
            let pool = pool.borrow();
            match needed_hosts(&pool.matcher) {
                Some(hosts) => known.extend(hosts.into_iter().map(|host| (host, index))),
                None => rest.push(index),
            }
            let only_hosts = only_hosts(&pool.matcher);
            rules.push(Rule {
                http: pool.http,
                https: pool.https,
                listeners: pool.listeners.as_ref().map(|places| places.iter().map(|&p| id(p)).collect()),
                matcher: pool.matcher.clone(),
                only_hosts,
            });
        }
        let many = rules.len() > MAX_WITHOUT_TABLE || known.len() > MAX_WITHOUT_TABLE;
        let table = many.then(|| Table { hosts: Hosts::new(known), rest });
        Self { rules, table }
    }

    /// Place of the pool that takes the request; `None` if no pool does.
    #[must_use]
    pub fn route(&self, input: &RouteInput<'_>) -> Option<u16> {
        let matched = MatchInput { request: input, host: bare_host(input.host) };
        let right_way = |rule: &Rule| rule.takes_scheme(input) && rule.takes_listener(input);
        let Some(table) = &self.table else {
            let found =
                self.rules.iter().position(|rule| right_way(rule) && matches(&rule.matcher, &matched));
            return found.and_then(|index| u16::try_from(index).ok());
        };
        // Two sorted lists, merged as they are walked.
        let (mut by_host, mut rest) = (table.hosts.get(matched.host), table.rest.as_slice());
        loop {
            let (index, by_name) = match (by_host.first(), rest.first()) {
                (Some(&a), Some(&b)) if a < b => (take_first(&mut by_host), true),
                (Some(_), None) => (take_first(&mut by_host), true),
                (_, Some(_)) => (take_first(&mut rest), false),
                (None, None) => return None,
            };
            let rule = &self.rules[usize::from(index)];
            if right_way(rule) && ((by_name && rule.only_hosts) || matches(&rule.matcher, &matched)) {
                return Some(index);
            }
        }
    }
}

impl Rule {
    #[inline]
    fn takes_scheme(&self, input: &RouteInput<'_>) -> bool {
        if input.https { self.https } else { self.http }
    }

    #[inline]
    fn takes_listener(&self, input: &RouteInput<'_>) -> bool {
        self.listeners.as_ref().is_none_or(|ids| ids.contains(&input.listener))
    }
}

fn take_first(list: &mut &[u16]) -> u16 {
    let first = list[0];
    *list = &list[1..];
    first
}

/// The hosts of which a request must have one to match; `None` if requests for other hosts may match too.
fn needed_hosts(matcher: &Matcher) -> Option<Vec<&str>> {
    match matcher {
        Matcher::Host(host) => Some(vec![host]),
        // All terms must match, so the hosts of any one of them will do; the fewest keep the table small.
        Matcher::And(terms) => terms.iter().filter_map(needed_hosts).min_by_key(Vec::len),
        Matcher::Or(terms) => {
            let mut all = Vec::new();
            for term in terms {
                all.extend(needed_hosts(term)?);
            }
            Some(all)
        }
        _ => None,
    }
}

fn only_hosts(matcher: &Matcher) -> bool {
    match matcher {
        Matcher::Host(_) => true,
        Matcher::Or(terms) => terms.iter().all(only_hosts),
        _ => false,
    }
}

/// The host without its port and without a final dot. Text of another form is left as it is, and matches no
/// name.
fn bare_host(host: &[u8]) -> &[u8] {
    let mut end = host.len();
    while end > 0 && host[end - 1].is_ascii_digit() {
        end -= 1;
    }
    let host = if end > 0 && host[end - 1] == b':' { &host[..end - 1] } else { host };
    host.strip_suffix(b".").unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_port() {
        let cases = [
            ("example.com", "example.com"),
            ("example.com:80", "example.com"),
            ("example.com:", "example.com"),
            ("example.com.:443", "example.com"),
            ("example.com.", "example.com"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("", ""),
            (":80", ""),
            ("80", "80"),
        ];
        for (text, wanted) in cases {
            assert_eq!(bare_host(text.as_bytes()), wanted.as_bytes(), "{text}");
        }
    }

    #[test]
    fn hosts_that_are_needed() {
        let cases: [(&str, Option<&[&str]>); 9] = [
            ("Host('a')", Some(&["a"])),
            ("Host('a') && Path('/x')", Some(&["a"])),
            ("Host('a') || Host('b')", Some(&["a", "b"])),
            ("(Host('a') || Host('b')) && Host('c')", Some(&["c"])),
            ("(Host('a') && Path('/x')) || (Host('b') && Path('/y'))", Some(&["a", "b"])),
            ("Host('a') || Path('/x')", None),
            ("!Host('a')", None),
            ("Path('/x')", None),
            ("HostRegexp('^a$')", None),
        ];
        for (text, wanted) in cases {
            let matcher = Matcher::parse(text).unwrap();
            assert_eq!(needed_hosts(&matcher).as_deref(), wanted, "{text}");
        }
    }
}
