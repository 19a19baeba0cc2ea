//! What a wrong or doubtful argument was probably meant to be: a term to write instead of it, in the habits
//! of other programs. Each of these terms is valid.

use std::net::Ipv6Addr;

use super::{Pattern, Quoted, path};
use crate::config::address::host_name;

/// A text in quotes of this kind, as the grammar reads it back.
pub(super) fn quoted(text: &str, quote: char) -> String {
    let single = Quoted(text).to_string();
    // The text of a pattern is written as usual where the grammar takes its backslashes literally.
    let is_escape = |next: Option<char>| matches!(next, None | Some('\\' | '\'' | '"'));
    let mut chars = text.chars().peekable();
    let mut out = String::from(quote);
    while let Some(c) = chars.next() {
        if c == quote || (c == '\\' && is_escape(chars.peek().copied())) {
            out.push('\\');
        }
        out.push(c);
    }
    out.push(quote);
    if quote == '\'' && single.len() < out.len() { single } else { out }
}

/// `name('a')`
pub(super) fn term(name: &str, text: &str, quote: char) -> String {
    format!("{name}({})", quoted(text, quote))
}

/// `(name('a') || name('b'))`, or the term alone.
pub(super) fn any_of(name: &str, texts: &[&str], quote: char) -> String {
    let terms: Vec<String> = texts.iter().map(|text| term(name, text, quote)).collect();
    if terms.len() == 1 { terms.concat() } else { format!("({})", terms.join(" || ")) }
}

/// The term for the argument of `Path`, `PathPrefix` or `PathRegexp` if it is a pattern or has a query;
/// `None` for a plain path.
pub(super) fn by_path(name: &str, text: &str, quote: char) -> Option<String> {
    let text = text.trim();
    let (text, marked) = match text.strip_prefix("~*").or(text.strip_prefix('~')) {
        Some(rest) => (rest.trim(), true),
        None => (text, false),
    };
    if marked || is_regexp(text) {
        let pattern = if text.starts_with('/') { format!("^{text}") } else { text.to_owned() };
        return Pattern::new(&pattern, false).ok().map(|_| term("PathRegexp", &pattern, quote));
    }
    if text.contains(['*', '{']) {
        return by_glob(name, text, quote);
    }
    let (before, query) = text.split_once('?')?;
    let (key, value) = query.split_once('=')?;
    let is_plain =
        |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let valid = path::normalise(before).is_ok() && is_plain(key) && is_plain(value);
    valid.then(|| {
        let query = format!("Query({}, {})", quoted(key, quote), quoted(value, quote));
        format!("({} && {query})", term(name, before, quote))
    })
}

/// A path with `*`, or with parts like `{id}`.
fn by_glob(name: &str, text: &str, quote: char) -> Option<String> {
    if let Some(stem) = text.strip_suffix("/**").or(text.strip_suffix("/*")) {
        let stem = if stem.is_empty() { "/" } else { stem };
        if !stem.contains(['*', '{', '}']) && path::normalise(stem).is_ok() {
            return Some(term("PathPrefix", stem, quote));
        }
    }
    let mut pattern = String::from(if text.starts_with('/') { "^" } else { "" });
    let mut rest = if text.starts_with('/') { text } else { text.trim_start_matches('*') };
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '*' if rest.starts_with('*') => {
                rest = rest.trim_start_matches('*');
                pattern.push_str(".*");
            }
            '*' => pattern.push_str("[^/]*"),
            '{' => {
                rest = &rest[rest.find('}')? + 1..];
                pattern.push_str("[^/]+");
            }
            c => push_literally(&mut pattern, c),
        }
    }
    pattern.push_str(if name == "PathPrefix" { "(/|$)" } else { "$" });
    Pattern::new(&pattern, false).ok().map(|_| term("PathRegexp", &pattern, quote))
}

/// The term for the argument of `Host` or `HostRegexp` if it is no host name; `None` if that isn't known.
pub(super) fn by_host(text: &str, quote: char) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix("~*").or(text.strip_prefix('~')).unwrap_or(text).trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest.split('/').next().unwrap_or_default());
    let names: Vec<&str> = text.split([',', ' ', '|']).filter(|name| !name.is_empty()).collect();
    if !names.is_empty() && names.iter().all(|name| is_host(name)) {
        return Some(any_of("Host", &names, quote));
    }
    let literal = |name: &str| {
        let mut out = String::new();
        name.chars().for_each(|c| push_literally(&mut out, c));
        out
    };
    if let Some(rest) = text.strip_prefix("*.").filter(|rest| host_name(rest).is_ok()) {
        return Some(term("HostRegexp", &format!("^[^.]+\\.{}$", literal(rest)), quote));
    }
    if let Some(rest) = text.strip_prefix('.').filter(|rest| host_name(rest).is_ok()) {
        return Some(term("HostRegexp", &format!("^(.+\\.)?{}$", literal(rest)), quote));
    }
    if let Some((name, port)) = text.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
        && is_host(name)
    {
        return Some(term("Host", name, quote));
    }
    let pattern = anchored(text, true);
    (is_regexp(text) && Pattern::new(&pattern, true).is_ok()).then(|| term("HostRegexp", &pattern, quote))
}

/// A matcher that is only a host name or a path, without any term.
pub(super) fn by_bare(text: &str) -> Option<String> {
    let text = text.trim();
    if text.contains(['\'', '"', '(', ')', '&', '|', '!', '`', ' ']) {
        return None;
    }
    if text.starts_with('/') {
        let plain = || path::normalise(text).ok().map(|_| term("PathPrefix", text, '\''));
        return by_path("PathPrefix", text, '\'').or_else(plain);
    }
    // A single word is more likely the name of a term.
    if text.contains('.') { by_host(text, '\'') } else { None }
}

/// A regular expression with the anchors that it lacks: `^`, and `$` if `at_end`.
pub(super) fn anchored(pattern: &str, at_end: bool) -> String {
    let (flags, inner) = pattern.strip_prefix("(?i)").map_or(("", pattern), |rest| ("(?i)", rest));
    if has_alternatives(inner) {
        return format!("{flags}^(?:{inner}){}", if at_end { "$" } else { "" });
    }
    let start = if anchored_at_start(inner) { "" } else { "^" };
    let end = if at_end && !anchored_at_end(inner) { "$" } else { "" };
    format!("{flags}{start}{inner}{end}")
}

pub(super) fn anchored_at_start(pattern: &str) -> bool {
    let p = pattern.strip_prefix("(?i)").unwrap_or(pattern);
    (p.starts_with('^') || p.starts_with("\\A")) && !has_alternatives(p)
}

pub(super) fn anchored_at_end(p: &str) -> bool {
    let escaped =
        p.len() > 1 && p.as_bytes()[..p.len() - 1].iter().rev().take_while(|&&b| b == b'\\').count() % 2 == 1;
    ((p.ends_with('$') && !escaped) || p.ends_with("\\z")) && !has_alternatives(p)
}

/// A `|` outside of every group and class: an anchor then holds for one side of it only.
fn has_alternatives(pattern: &str) -> bool {
    let (mut depth, mut class, mut escaped) = (0_u32, false, false);
    for b in pattern.bytes() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'[' => class = true,
            b']' => class = false,
            _ if class => {}
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

/// Whether a text is more likely a regular expression than a name or a path.
fn is_regexp(text: &str) -> bool {
    let inside = [".*", ".+", "\\", "[", "|", "(?", ")?", ")+", ")*"];
    text.starts_with('^') || text.ends_with('$') || inside.iter().any(|part| text.contains(part))
}

fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(text);
    bare.parse::<Ipv6Addr>().is_ok() || host_name(text).is_ok()
}

/// Adds a character that stands for itself in a regular expression.
fn push_literally(pattern: &mut String, c: char) {
    if ".+*?()|[]{}^$\\".contains(c) {
        pattern.push('\\');
    }
    pattern.push(c);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Matcher;

    #[test]
    fn paths() {
        let cases = [
            ("Path", "^/x$", Some("PathRegexp('^/x$')")),
            ("Path", "/static/*", Some("PathPrefix('/static')")),
            ("Path", "/static/**", Some("PathPrefix('/static')")),
            ("PathPrefix", "/static/*", Some("PathPrefix('/static')")),
            ("Path", "/*", Some("PathPrefix('/')")),
            ("Path", "/api/*/x", Some("PathRegexp('^/api/[^/]*/x$')")),
            ("Path", "/a.b/**/x", Some("PathRegexp('^/a\\.b/.*/x$')")),
            ("Path", "*.php", Some("PathRegexp('\\.php$')")),
            ("Path", "/user/{id}", Some("PathRegexp('^/user/[^/]+$')")),
            ("PathPrefix", "/user/{id}", Some("PathRegexp('^/user/[^/]+(/|$)')")),
            ("Path", "/user/{id", None),
            ("Path", "/a/.*", Some("PathRegexp('^/a/.*')")),
            ("Path", "~ ^/a/(b|c)$", Some("PathRegexp('^/a/(b|c)$')")),
            ("Path", "\\.php$", Some("PathRegexp('\\.php$')")),
            ("Path", "^/a(", None),
            ("Path", "/a?b=c", Some("(Path('/a') && Query('b', 'c'))")),
            ("Path", "/a?b", None),
            ("Path", "/a", None),
            ("Path", "a", None),
        ];
        for (name, text, expected) in cases {
            let found = by_path(name, text, '\'');
            assert_eq!(found.as_deref(), expected, "{text}");
            assert!(found.is_none_or(|term| Matcher::parse(&term).is_ok()), "{text}");
        }
    }

    #[test]
    fn hosts() {
        let cases = [
            ("*.a.b", Some("HostRegexp('^[^.]+\\.a\\.b$')")),
            (".a.b", Some("HostRegexp('^(.+\\.)?a\\.b$')")),
            ("a.b:80", Some("Host('a.b')")),
            ("https://a.b:80/x", Some("Host('a.b')")),
            ("a.b, c.d", Some("(Host('a.b') || Host('c.d'))")),
            ("a.b|c.d", Some("(Host('a.b') || Host('c.d'))")),
            ("^a\\.b$", Some("HostRegexp('^a\\.b$')")),
            ("~^(a|b)\\.c$", Some("HostRegexp('^(a|b)\\.c$')")),
            ("[a-z]+.x", Some("HostRegexp('^[a-z]+.x$')")),
            ("[::1]:80", Some("Host('[::1]')")),
            ("*", None),
            ("", None),
            ("a..b", None),
        ];
        for (text, expected) in cases {
            let found = by_host(text, '\'');
            assert_eq!(found.as_deref(), expected, "{text}");
            let (read, doubts) =
                found.as_deref().map(Matcher::read).unwrap_or((Ok(Matcher::Any), Vec::new()));
            assert!(read.is_ok() && doubts.is_empty(), "{text}: {doubts:?}");
        }
    }

    #[test]
    fn quotes() {
        for text in ["", "a", "it's", "\\.a", "\\\\", "\\", "a\\'b", "\"", "ä\\\"'"] {
            for quote in ['\'', '"'] {
                let source = format!("Query({}, 'x')", quoted(text, quote));
                let Ok(Matcher::Query(found, _)) = Matcher::parse(&source) else { panic!("{source}") };
                assert_eq!(&*found, text, "{source}");
            }
        }
    }
}
