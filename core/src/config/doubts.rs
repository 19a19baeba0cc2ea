//! What a file may say but can't mean: the warnings that need more than one key to be seen.

use std::collections::BTreeMap;

use super::matcher::{Matcher, Pattern};
use super::model::{Middleware, Strategy};
use super::pool::Read;
use super::reader::{Report, Section};
use super::suggest;

/// What the top of the file says.
pub(super) struct Listening<'f, 'd> {
    pub(super) file: &'f Section<'d>,
    pub(super) http: bool,
    pub(super) https: bool,
    pub(super) has_certificate: bool,
}

/// Looks at the whole; pools with errors are `None`.
pub(super) fn look(pools: &[Option<&Read>], listening: &Listening<'_, '_>, report: &mut Report<'_>) {
    schemes(pools, listening, report);
    shadows(pools, report);
    for read in pools.iter().flatten() {
        backends(read, report);
        patterns(&read.pool.matcher, read, report);
        error_pages(read, report);
    }
}

fn schemes(pools: &[Option<&Read>], listening: &Listening<'_, '_>, report: &mut Report<'_>) {
    let file = listening.file;
    if pools.is_empty() && file.get("backend_pools").is_none_or(|v| v.get_ref().as_array().is_some()) {
        report.warning(0..0, "there are no [[backend_pools]]: every request is answered 404");
    }
    match (file.get("https_address"), listening.has_certificate) {
        (Some(value), false) => {
            *report.warning(value.span(), "there is no certificate, so nothing listens on `https_address`") =
                Some("add [certificates.\"example.com\"]".into());
        }
        (None, true) => {
            *report.warning(
                file.key_span("certificates"),
                "there are certificates, but nothing listens for HTTPS",
            ) = Some("add https_address = \"[::]:443\"".into());
        }
        _ => {}
    }
    for read in pools.iter().flatten() {
        let pool = &read.pool;
        // Both schemes are the default: only a pool that can be reached by none is worth a word.
        let reachable = (pool.http && listening.http) || (pool.https && listening.https);
        if !reachable && (pool.http != pool.https) {
            let (scheme, why) = match pool.https {
                false => ("HTTP", "there is no `http_address`"),
                true if !listening.has_certificate => ("HTTPS", "there is no certificate"),
                true => ("HTTPS", "there is no `https_address`"),
            };
            report.warning(
                read.schemes.clone(),
                format!("pool \"{}\" takes only {scheme}, but {why}", suggest::clip(&pool.name)),
            );
        }
        if let Strategy::StickyCookie(cookie) = &pool.strategy
            && cookie.secure
            && !pool.https
        {
            *report.warning(
                read.strategy.clone(),
                "a secure cookie never comes back over plain HTTP, so nothing sticks",
            ) = Some("set `secure = false`, or take HTTPS too".into());
        }
        for (middleware, span) in pool.middlewares.iter().zip(&read.middlewares) {
            if matches!(middleware, Middleware::HttpsRedirector) && !pool.http {
                report.warning(
                    span.clone(),
                    "HttpsRedirector has nothing to do in a pool that takes only HTTPS",
                );
            }
        }
    }
}

/// Pools that an earlier one leaves nothing, as far as that can be told by looking: an earlier pool takes
/// everything, has the same matcher, or its matcher is one of those that the later one joins by `&&`.
fn shadows(pools: &[Option<&Read>], report: &mut Report<'_>) {
    // For each matcher's text, the first pool that has it: by HTTP, by HTTPS.
    let mut first: BTreeMap<String, [Option<usize>; 2]> = BTreeMap::new();
    let mut everything: [Option<usize>; 2] = [None; 2];
    for (index, read) in pools.iter().enumerate() {
        let Some(read) = read else { continue };
        let pool = &read.pool;
        let takes = [pool.http, pool.https];
        let whole = pool.matcher.to_string();
        // Of a long `&&` each part once, and the text of each only once: linear in the file.
        let mut parts = vec![&whole];
        let parts_of_and: Vec<String> = match &pool.matcher {
            Matcher::And(terms) => terms.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        parts.extend(&parts_of_and);
        let shadow = |scheme: usize| {
            let same = parts.iter().filter_map(|&part| first.get(part).and_then(|by| by[scheme]));
            everything[scheme].into_iter().chain(same).min()
        };
        let shadowed: Vec<Option<usize>> = (0..2).filter(|&s| takes[s]).map(shadow).collect();
        if let Some(by) = shadowed.iter().copied().collect::<Option<Vec<usize>>>().filter(|by| !by.is_empty())
        {
            let earlier = by.iter().copied().max().unwrap_or_default();
            let name = pools[earlier].map_or("", |p| &p.pool.name);
            let message = format!(
                "pool \"{}\" never gets a request: pool \"{}\", earlier in the file, takes them all",
                suggest::clip(&pool.name),
                suggest::clip(name)
            );
            *report.warning(read.matcher.clone(), message) =
                Some("pools are tried in the order of the file: put this one first".into());
            continue;
        }
        let all = takes_everything(&pool.matcher);
        for scheme in (0..2).filter(|&s| takes[s]) {
            if all {
                everything[scheme].get_or_insert(index);
            }
            first.entry(whole.clone()).or_default()[scheme].get_or_insert(index);
        }
    }
}

fn takes_everything(matcher: &Matcher) -> bool {
    match matcher {
        Matcher::Any => true,
        Matcher::PathPrefix(path) => &**path == "/",
        Matcher::Or(terms) => terms.iter().any(takes_everything),
        _ => false,
    }
}

fn backends(read: &Read, report: &mut Report<'_>) {
    let pool = &read.pool;
    if pool.backends.is_empty() {
        report.warning(
            read.addresses.clone(),
            format!("pool \"{}\" has no backends: it answers 503", suggest::clip(&pool.name)),
        );
    } else if pool.backends.iter().all(|b| b.weight == 0) {
        let message = format!(
            "every backend of pool \"{}\" has weight 0: none takes new requests",
            suggest::clip(&pool.name)
        );
        report.warning(read.addresses.clone(), message);
    }
    let health = &pool.health;
    if !health.check_every.is_zero()
        && health.slow_threshold > health.timeout
        && health.slow_threshold != std::time::Duration::MAX
    {
        let span =
            if read.slow_threshold.is_empty() { read.header.clone() } else { read.slow_threshold.clone() };
        let message = "`slow_threshold` is above `timeout`: a backend is unhealthy before it is slow";
        report.warning(span, message);
    }
}

/// Regular expressions that find more than they seem to.
fn patterns(matcher: &Matcher, read: &Read, report: &mut Report<'_>) {
    match matcher {
        Matcher::HostRegexp(p) if !(anchored_front(p) && anchored_back(p)) => {
            let message =
                format!("HostRegexp('{}') also matches within longer names", suggest::clip(p.as_str()));
            *report.warning(read.matcher.clone(), message) = Some("anchor it with `^` and `$`".into());
        }
        Matcher::PathRegexp(p) if !anchored_front(p) => {
            let message =
                format!("PathRegexp('{}') also matches in the middle of a path", suggest::clip(p.as_str()));
            *report.warning(read.matcher.clone(), message) = Some("anchor it with `^`".into());
        }
        Matcher::Method(m) if m.bytes().any(|b| b.is_ascii_lowercase()) => {
            let message = format!(
                "Method('{}') is not Method('{}'): methods are case-sensitive",
                m,
                m.to_ascii_uppercase()
            );
            report.warning(read.matcher.clone(), message);
        }
        Matcher::Not(inner) => patterns(inner, read, report),
        Matcher::And(terms) | Matcher::Or(terms) => {
            terms.iter().for_each(|term| patterns(term, read, report))
        }
        _ => {}
    }
}

fn anchored_front(pattern: &Pattern) -> bool {
    let p = pattern.as_str();
    let p = p.strip_prefix("(?i)").unwrap_or(p);
    (p.starts_with('^') || p.starts_with("\\A")) && !alternates(p)
}

fn anchored_back(pattern: &Pattern) -> bool {
    let p = pattern.as_str();
    let escaped = p.len() > 1 && p[..p.len() - 1].bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1;
    ((p.ends_with('$') && !escaped) || p.ends_with("\\z")) && !alternates(p)
}

/// A `|` outside of every group and class: an anchor beside it holds one side only.
fn alternates(pattern: &str) -> bool {
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

/// The first in the file sees the answer last, so pages rewrite only the errors of what stands after them.
fn error_pages(read: &Read, report: &mut Report<'_>) {
    let all = &read.pool.middlewares;
    let Some(at) = all.iter().position(|m| matches!(m, Middleware::CustomErrorPages { .. })) else { return };
    // Compression makes no errors, so it may stand where it likes.
    let missed: Vec<&str> =
        all[..at].iter().filter(|m| !matches!(m, Middleware::Compression)).map(Middleware::name).collect();
    if !missed.is_empty() {
        let message =
            format!("CustomErrorPages does not see what {} before it in the file answers", missed.join(", "));
        *report.warning(read.middlewares[at].clone(), message) = Some("put it before them".into());
    }
}
