//! Lints: warnings about what a file may say but can't mean, where more than one key has to be seen.

use std::collections::BTreeMap;
use std::time::Duration;

use super::diagnostic::clip;
use super::matcher::Matcher;
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
        cookie_over_http(located, context, report);
        redirect_of_https(located, report);
        no_usable_backend(located, report);
        slow_threshold(located, report);
        error_pages(located, report);
    }
}

fn whole_file(no_pools: bool, context: &Context<'_, '_>, report: &mut Report<'_>) {
    let file = context.file;
    let missing = file.get("backend_pools").is_none_or(|v| v.get_ref().as_array().is_some());
    if no_pools && missing && report.is_whole() && !file.has_misspelt("backend_pools") {
        report.warning(0..0, "there are no [[backend_pools]]: every request is answered 404");
    }
    match (file.get("https_address"), context.has_certificate) {
        (Some(value), false) => {
            let message = "there is no certificate, so nothing listens on `https_address`";
            report.warning(value.span(), message).help =
                Some("a certificate is a table [certificates.\"example.com\"] with `Local` or `ACME`".into());
        }
        (None, true) => {
            let message = "there are certificates, but nothing listens for HTTPS";
            let line = "https_address = \"[::]:443\"";
            let place = report.insertion(&(0..0), line);
            let warning = report.warning(file.key_span("certificates"), message);
            if let Some((at, text)) = place {
                warning.suggest(format!("add {line}"), at..at, text);
            }
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

fn cookie_over_http(located: &LocatedPool, context: &Context<'_, '_>, report: &mut Report<'_>) {
    let pool = &located.pool;
    if let Strategy::StickyCookie(cookie) = &pool.strategy
        && cookie.secure
        && !(pool.https && context.listens_https)
    {
        let message = "a secure cookie never comes back over plain HTTP, so nothing sticks";
        let span = located.strategy.clone();
        let warning = report.warning(span, message);
        match &located.cookie_secure {
            Some(written) => warning.suggest("write false, or take HTTPS too", written.clone(), "false"),
            None => {
                warning.help = Some("set `secure = false` in StickyCookie, or take HTTPS too".into());
                warning
            }
        };
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

/// Why a pool never gets a request.
enum Shadow {
    /// An earlier pool takes everything.
    CatchAll,
    /// An earlier pool has the same matcher.
    Same,
    /// An earlier pool takes more.
    Wider,
}

/// Pools that never get a request because of an earlier pool. Only simple cases are found: the earlier pool
/// takes everything, has the same matcher, or its matcher is one of those that the later pool joins by `&&`.
fn shadowed_pools(pools: &[Option<LocatedPool>], report: &mut Report<'_>) {
    // The pools that each catch-all hides.
    let mut hidden: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (later, earlier) in shadows(pools) {
        let (Some(located), Some(first)) = (&pools[later], &pools[earlier]) else { continue };
        let (name, first_name) = (&located.pool.name, &first.pool.name);
        let shadow = match () {
            () if located.pool.matcher == first.pool.matcher => Shadow::Same,
            () if takes_everything(&first.pool.matcher) => Shadow::CatchAll,
            () => Shadow::Wider,
        };
        let (why, help) = match shadow {
            Shadow::CatchAll => {
                hidden.entry(earlier).or_default().push(name);
                continue;
            }
            Shadow::Same => (
                "has the same matcher",
                "join their addresses in one pool, or give one of them another matcher".to_owned(),
            ),
            Shadow::Wider => (
                "takes them all",
                format!(
                    "pools are tried in the order of the file: put it before pool \"{}\"",
                    clip(first_name)
                ),
            ),
        };
        let message = format!(
            "pool \"{}\" never gets a request: pool \"{}\", earlier in the file, {why}",
            clip(name),
            clip(first_name)
        );
        report.warning(located.matcher.clone(), message).help = Some(help);
    }
    for (earlier, names) in hidden {
        let Some(first) = &pools[earlier] else { continue };
        let shown: Vec<String> = names.iter().take(5).map(|name| format!("\"{}\"", clip(name))).collect();
        let more = if names.len() > shown.len() { " and others" } else { "" };
        let message = format!(
            "pool \"{}\" takes every request, so that pools after it get none: {}{more}",
            clip(&first.pool.name),
            shown.join(", ")
        );
        report.warning(first.matcher.clone(), message).help =
            Some("pools are tried in the order of the file: move this one to its end".into());
    }
}

/// Each pool that never gets a request, with an earlier one that takes all of its requests.
fn shadows(pools: &[Option<LocatedPool>]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
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
            found.push((index, earlier));
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
    found
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
