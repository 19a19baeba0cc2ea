//! Evaluates a matcher for a request. Recursion is as deep as the grammar's parentheses, which are bounded.

use super::RouteInput;
use crate::config::matcher::Matcher;

/// A request with its host as matchers compare it, worked out once.
pub(super) struct MatchInput<'s, 'a> {
    pub(super) request: &'s RouteInput<'a>,
    /// Without port and final dot.
    pub(super) host: &'a [u8],
}

/// Whether `input` matches; the two commonest matchers are inlined.
#[inline]
pub(super) fn matches(matcher: &Matcher, input: &MatchInput<'_, '_>) -> bool {
    match matcher {
        Matcher::Any => true,
        Matcher::Host(host) => is_host(host.as_bytes(), input.host),
        other => evaluate(other, input),
    }
}

fn evaluate(matcher: &Matcher, input: &MatchInput<'_, '_>) -> bool {
    let request = input.request;
    match matcher {
        Matcher::Any => true,
        Matcher::Host(host) => is_host(host.as_bytes(), input.host),
        Matcher::HostRegexp(pattern) => pattern.is_match(input.host),
        Matcher::Path(path) => path.as_bytes() == request.path,
        Matcher::PathPrefix(prefix) => is_below(request.path, prefix.as_bytes()),
        Matcher::PathRegexp(pattern) => pattern.is_match(request.path),
        Matcher::Method(method) => method.as_bytes() == request.method,
        Matcher::Header(name, value) => {
            request.fields.any(name.as_bytes(), &mut |found| found == value.as_bytes())
        }
        Matcher::HeaderRegexp(name, pattern) => {
            request.fields.any(name.as_bytes(), &mut |found| pattern.is_match(found))
        }
        Matcher::Query(name, value) => {
            request.query.is_some_and(|query| has_pair(query, name.as_bytes(), value.as_bytes()))
        }
        Matcher::ClientIp(net) => net.contains(&request.client.to_canonical()),
        Matcher::Not(inner) => !matches(inner, input),
        Matcher::And(terms) => terms.iter().all(|term| matches(term, input)),
        Matcher::Or(terms) => terms.iter().any(|term| matches(term, input)),
    }
}

/// Whether `host`, in any case, is `known`, in lower case. Nearly every client sends lower case: comparing
/// the bytes first takes a tenth of the instructions.
#[inline]
pub(super) fn is_host(known: &[u8], host: &[u8]) -> bool {
    known == host || (known.len() == host.len() && known.eq_ignore_ascii_case(host))
}

/// Whether `path` lies below `prefix`, by segments: `/a` has `/a` and `/a/b` below it but not `/ab`; `/a/`
/// has only `/a/…`; `/` has everything, also the `*` of OPTIONS.
fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    if prefix == b"/" {
        return true;
    }
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest[0] == b'/' || prefix.ends_with(b"/"),
        None => false,
    }
}

/// Whether `name=value` is among the pairs of a query; a pair without `=` has an empty value.
fn has_pair(query: &[u8], name: &[u8], value: &[u8]) -> bool {
    query.split(|&b| b == b'&').any(|pair| {
        let (n, v) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        };
        decodes_to(n, name) && decodes_to(v, value)
    })
}

/// Whether `text` is `plain` once `%XX` and `+` are decoded. A `%` without two hexadecimal digits stands for
/// itself.
fn decodes_to(text: &[u8], plain: &[u8]) -> bool {
    let digit = |b: Option<&u8>| b.and_then(|&b| char::from(b).to_digit(16));
    let (mut i, mut plain) = (0, plain.iter());
    while i < text.len() {
        let byte = match text[i] {
            b'+' => b' ',
            b'%' => match (digit(text.get(i + 1)), digit(text.get(i + 2))) {
                (Some(high), Some(low)) => {
                    i += 2;
                    (high << 4 | low) as u8
                }
                _ => b'%',
            },
            other => other,
        };
        if plain.next() != Some(&byte) {
            return false;
        }
        i += 1;
    }
    plain.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_by_segment() {
        let cases = [
            ("/a", "/a", true),
            ("/a/", "/a", true),
            ("/a/b", "/a", true),
            ("/ab", "/a", false),
            ("/", "/a", false),
            ("/a", "/a/", false),
            ("/a/", "/a/", true),
            ("/a/b", "/a/", true),
            ("/anything", "/", true),
            ("*", "/", true),
            ("*", "/a", false),
        ];
        for (path, prefix, wanted) in cases {
            assert_eq!(is_below(path.as_bytes(), prefix.as_bytes()), wanted, "{path} {prefix}");
        }
    }

    #[test]
    fn query_pairs() {
        let cases = [
            ("k=v", "k", "v", true),
            ("a=b&k=v", "k", "v", true),
            ("k=x&k=v", "k", "v", true),
            ("k=vv", "k", "v", false),
            ("kk=v", "k", "v", false),
            ("k", "k", "", true),
            ("k=", "k", "", true),
            ("", "k", "v", false),
            ("", "", "", true),
            ("k=a%20b", "k", "a b", true),
            ("k=a+b", "k", "a b", true),
            ("%6B=%c3%A4", "k", "ä", true),
            ("k=%", "k", "%", true),
            ("k=%4", "k", "%4", true),
            ("k=%zz", "k", "%zz", true),
            ("k=a=b", "k", "a=b", true),
            ("K=v", "k", "v", false),
        ];
        for (query, name, value, wanted) in cases {
            assert_eq!(has_pair(query.as_bytes(), name.as_bytes(), value.as_bytes()), wanted, "{query}");
        }
    }
}
