//! Lints: warnings about what a file may say but can't mean, where more than one key has to be seen.

use std::collections::BTreeMap;
use std::time::Duration;

use super::diagnostic::clip;
use super::matcher::{Matcher, Pattern};
use super::model::{Middleware, Strategy};
use super::pool::LocatedPool;
use super::reader::Section;
use super::report::Report;

/// What the top of the file says.
pub(super) struct Context<'f, 'd> {
    pub(super) file: &'f Section<'d>,
    pub(super) listens_http: bool,
    pub(super) listens_https: bool,
    pub(super) has_certificate: bool,
}

/// Adds a warning for everything doubtful. A pool with an error is `None` and is not looked at.
pub(super) fn check(pools: &[Option<LocatedPool>], context: &Context<'_, '_>, report: &mut Report<'_>) {
    whole_file(pools.is_empty(), context, report);
    shadowed_pools(pools, report);
    for located in pools.iter().flatten() {
        unreachable_scheme(located, context, report);
        cookie_over_http(located, report);
        redirect_of_https(located, report);
        no_usable_backend(located, report);
        slow_threshold(located, report);
        patterns(&located.pool.matcher, located, report);
        error_pages(located, report);
    }
}

fn whole_file(no_pools: bool, context: &Context<'_, '_>, report: &mut Report<'_>) {
    let file = context.file;
    if no_pools && file.get("backend_pools").is_none_or(|v| v.get_ref().as_array().is_some()) {
        report.warning(0..0, "there are no [[backend_pools]]: every request is answered 404");
    }
    match (file.get("https_address"), context.has_certificate) {
        (Some(value), false) => {
            let message = "there is no certificate, so nothing listens on `https_address`";
            report.warning(value.span(), message).help = Some("add [certificates.\"example.com\"]".into());
        }
        (None, true) => {
            let message = "there are certificates, but nothing listens for HTTPS";
            report.warning(file.key_span("certificates"), message).help =
                Some("add https_address = \"[::]:443\"".into());
        }
        _ => {}
    }
}

/// A pool that takes only requests over a scheme that nothing listens for. A pool of both schemes is the
/// default and no reason for a warning.
fn unreachable_scheme(located: &LocatedPool, context: &Context<'_, '_>, report: &mut Report<'_>) {
    let pool = &located.pool;
    let reachable = (pool.http && context.listens_http) || (pool.https && context.listens_https);
    if reachable || pool.http == pool.https {
        return;
    }
    let (scheme, why) = match pool.https {
        false => ("HTTP", "there is no `http_address`"),
        true if !context.has_certificate => ("HTTPS", "there is no certificate"),
        true => ("HTTPS", "there is no `https_address`"),
    };
    let message = format!("pool \"{}\" takes only {scheme}, but {why}", clip(&pool.name));
    report.warning(located.schemes.clone(), message);
}

fn cookie_over_http(located: &LocatedPool, report: &mut Report<'_>) {
    if let Strategy::StickyCookie(cookie) = &located.pool.strategy
        && cookie.secure
        && !located.pool.https
    {
        let message = "a secure cookie never comes back over plain HTTP, so nothing sticks";
        report.warning(located.strategy.clone(), message).help =
            Some("set `secure = false`, or take HTTPS too".into());
    }
}

fn redirect_of_https(located: &LocatedPool, report: &mut Report<'_>) {
    for (middleware, span) in located.pool.middlewares.iter().zip(&located.middlewares) {
        if matches!(middleware, Middleware::HttpsRedirector) && !located.pool.http {
            let message = "HttpsRedirector has nothing to do in a pool that takes only HTTPS";
            report.warning(span.clone(), message);
        }
    }
}

/// Pools that never get a request because of an earlier pool. Only simple cases are found: the earlier pool
/// takes everything, has the same matcher, or its matcher is one of those that the later pool joins by `&&`.
fn shadowed_pools(pools: &[Option<LocatedPool>], report: &mut Report<'_>) {
    // For each matcher's text, the first pool that has it over HTTP, and over HTTPS.
    let mut first: BTreeMap<String, [Option<usize>; 2]> = BTreeMap::new();
    // The first pool that takes everything over HTTP, and over HTTPS.
    let mut takes_all: [Option<usize>; 2] = [None; 2];
    for (index, located) in pools.iter().enumerate() {
        let Some(located) = located else { continue };
        let pool = &located.pool;
        let schemes = || [pool.http, pool.https].into_iter().enumerate().filter(|&(_, taken)| taken);
        let whole = pool.matcher.to_string();
        // The text of each part of a long `&&` is made only once, so that this is linear in the file.
        let mut texts = vec![&whole];
        let parts: Vec<String> = match &pool.matcher {
            Matcher::And(terms) => terms.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        texts.extend(&parts);
        // For each scheme the earliest pool that takes all of this pool's requests; `None` if one has none.
        let earliest: Option<Vec<usize>> = schemes()
            .map(|(scheme, _)| {
                let same = texts.iter().filter_map(|&text| first.get(text).and_then(|by| by[scheme]));
                takes_all[scheme].into_iter().chain(same).min()
            })
            .collect();
        if let Some(earlier) = earliest.and_then(|by| by.into_iter().max()) {
            let name = pools[earlier].as_ref().map_or("", |p| &p.pool.name);
            let message = format!(
                "pool \"{}\" never gets a request: pool \"{}\", earlier in the file, takes them all",
                clip(&pool.name),
                clip(name)
            );
            report.warning(located.matcher.clone(), message).help =
                Some("pools are tried in the order of the file: put this one first".into());
            continue;
        }
        let all = takes_everything(&pool.matcher);
        for (scheme, _) in schemes() {
            if all {
                takes_all[scheme].get_or_insert(index);
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

fn no_usable_backend(located: &LocatedPool, report: &mut Report<'_>) {
    let pool = &located.pool;
    let message = if pool.backends.is_empty() {
        format!("pool \"{}\" has no backends: it answers 503", clip(&pool.name))
    } else if pool.backends.iter().all(|b| b.weight == 0) {
        format!("every backend of pool \"{}\" has weight 0: none takes new requests", clip(&pool.name))
    } else {
        return;
    };
    report.warning(located.addresses.clone(), message);
}

fn slow_threshold(located: &LocatedPool, report: &mut Report<'_>) {
    let health = &located.pool.health;
    if !health.check_every.is_zero()
        && health.slow_threshold > health.timeout
        && health.slow_threshold != Duration::MAX
    {
        let span = if located.slow_threshold.is_empty() { &located.header } else { &located.slow_threshold };
        let message = "`slow_threshold` is above `timeout`: a backend is unhealthy before it is slow";
        report.warning(span.clone(), message);
    }
}

/// Regular expressions that match more than they seem to, and methods in lower case.
fn patterns(matcher: &Matcher, located: &LocatedPool, report: &mut Report<'_>) {
    match matcher {
        Matcher::HostRegexp(p) if !(anchored_at_start(p) && anchored_at_end(p)) => {
            let message = format!("HostRegexp('{}') also matches within longer names", clip(p.as_str()));
            report.warning(located.matcher.clone(), message).help = Some("anchor it with `^` and `$`".into());
        }
        Matcher::PathRegexp(p) if !anchored_at_start(p) => {
            let message = format!("PathRegexp('{}') also matches in the middle of a path", clip(p.as_str()));
            report.warning(located.matcher.clone(), message).help = Some("anchor it with `^`".into());
        }
        Matcher::Method(m) if m.bytes().any(|b| b.is_ascii_lowercase()) => {
            let message = format!(
                "Method('{}') is not Method('{}'): methods are case-sensitive",
                m,
                m.to_ascii_uppercase()
            );
            report.warning(located.matcher.clone(), message);
        }
        Matcher::Not(inner) => patterns(inner, located, report),
        Matcher::And(terms) | Matcher::Or(terms) => {
            terms.iter().for_each(|term| patterns(term, located, report))
        }
        _ => {}
    }
}

fn anchored_at_start(pattern: &Pattern) -> bool {
    let p = pattern.as_str();
    let p = p.strip_prefix("(?i)").unwrap_or(p);
    (p.starts_with('^') || p.starts_with("\\A")) && !has_alternatives(p)
}

fn anchored_at_end(pattern: &Pattern) -> bool {
    let p = pattern.as_str();
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

/// The first middleware of the file sees a response last, so error pages replace only the errors of the
/// middlewares after them.
fn error_pages(located: &LocatedPool, report: &mut Report<'_>) {
    let all = &located.pool.middlewares;
    let Some(at) = all.iter().position(|m| matches!(m, Middleware::CustomErrorPages { .. })) else { return };
    // Compression makes no errors, so its position doesn't matter.
    let missed: Vec<&str> =
        all[..at].iter().filter(|m| !matches!(m, Middleware::Compression)).map(Middleware::name).collect();
    if !missed.is_empty() {
        let message =
            format!("CustomErrorPages does not see what {} before it in the file answers", missed.join(", "));
        report.warning(located.middlewares[at].clone(), message).help = Some("put it before them".into());
    }
}
