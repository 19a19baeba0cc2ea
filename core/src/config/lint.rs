//! Lints: warnings about what a file may say but can't mean, where more than one key has to be seen.

use std::collections::BTreeMap;
use std::time::Duration;

use super::diagnostic::clip;
use super::listeners::Listeners;
use super::matcher::Matcher;
use super::middleware_settings::Middleware;
use super::model::{Listener, ListenerKind, Pool, Strategy};
use super::pool::LocatedPool;
use super::reader::Section;
use super::report::Report;

/// What the top of the file says.
pub(super) struct Context<'f, 'd> {
    pub(super) file: &'f Section<'d>,
    pub(super) listeners: &'f Listeners,
    pub(super) has_certificate: bool,
}

/// Adds a warning for everything doubtful. A pool with an error is `None` and is not looked at.
pub(super) fn check(pools: &[Option<LocatedPool>], context: &Context<'_, '_>, report: &mut Report<'_>) {
    whole_file(pools.is_empty(), context, report);
    shadowed_pools(pools, context, report);
    for located in pools.iter().flatten() {
        unreachable_scheme(located, context, report);
        cookie_over_http(located, context, report);
        redirect_of_https(located, report);
        no_usable_backend(located, report);
        slow_threshold(located, report);
        error_pages(located, report);
        behind_respond(located, report);
    }
}

fn whole_file(no_pools: bool, context: &Context<'_, '_>, report: &mut Report<'_>) {
    let file = context.file;
    let missing = file.get("backend_pools").is_none_or(|v| v.get_ref().as_array().is_some());
    if no_pools && missing && report.is_whole() && !file.has_misspelt("backend_pools") {
        report.warning(0..0, "there are no [[backend_pools]]: every request is answered 404");
    }
    match (&context.listeners.https, context.has_certificate) {
        (Some(span), false) => {
            let (key, span) = match file.get("https_address") {
                Some(value) => ("`https_address`", value.span()),
                None => ("this address", span.clone()),
            };
            let message = format!("there is no certificate, so nothing listens on {key}");
            report.warning(span, message).help =
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
    if reach(pool, context) != (false, false) {
        return;
    }
    let https_only = match &pool.listeners {
        None if pool.http == pool.https => return,
        None => pool.https,
        // Those for plain HTTP are always there.
        Some(_) => true,
    };
    let (scheme, why) = match https_only {
        false => ("HTTP", "nothing listens for it"),
        true if !context.has_certificate => ("HTTPS", "there is no certificate"),
        true => ("HTTPS", "nothing listens for it"),
    };
    let message = format!("pool \"{}\" takes only {scheme}, but {why}", clip(&pool.name));
    report.warning(located.schemes.clone(), message);
}

/// Whether requests over HTTP, and over HTTPS, can come to a pool.
fn reach(pool: &Pool, context: &Context<'_, '_>) -> (bool, bool) {
    let comes = |kind: ListenerKind| {
        (0..).zip(&context.listeners.all).any(|(place, l): (u16, _)| {
            l.kind == kind && pool.listeners.as_ref().is_none_or(|places| places.contains(&place))
        })
    };
    (pool.http && comes(ListenerKind::Http), pool.https && comes(ListenerKind::Https))
}

fn cookie_over_http(located: &LocatedPool, context: &Context<'_, '_>, report: &mut Report<'_>) {
    let pool = &located.pool;
    if let Strategy::StickyCookie(cookie) = &pool.strategy
        && cookie.secure
        && !reach(pool, context).1
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
fn shadowed_pools(pools: &[Option<LocatedPool>], context: &Context<'_, '_>, report: &mut Report<'_>) {
    // The pools that each catch-all hides.
    let mut hidden: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (later, earlier) in shadows(pools, &context.listeners.all) {
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
fn shadows(pools: &[Option<LocatedPool>], listeners: &[Listener]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    // For each matcher's text, and for all matchers that take everything, the first pool by way.
    let mut first: BTreeMap<String, BTreeMap<usize, usize>> = BTreeMap::new();
    let mut takes_all: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, located) in pools.iter().enumerate() {
        let Some(located) = located else { continue };
        let pool = &located.pool;
        let ways = ways(pool, listeners);
        let whole = pool.matcher.to_string();
        // The text of each part of a long `&&` is made only once, so that this is linear in the file.
        let mut texts = vec![&whole];
        let parts: Vec<String> = match &pool.matcher {
            Matcher::And(terms) => terms.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        texts.extend(&parts);
        // For each way the earliest pool that takes all of this pool's requests; `None` if one has none.
        let earliest: Option<Vec<usize>> = ways
            .iter()
            .map(|way| {
                let same = texts.iter().filter_map(|&text| first.get(text)?.get(way).copied());
                takes_all.get(way).copied().into_iter().chain(same).min()
            })
            .collect();
        // A pool without a way gets no request whatever stands before it.
        if let Some(earlier) = earliest.and_then(|by| by.into_iter().max()) {
            found.push((index, earlier));
            continue;
        }
        let all = takes_everything(&pool.matcher);
        let same = first.entry(whole.clone()).or_default();
        for way in ways {
            if all {
                takes_all.entry(way).or_insert(index);
            }
            same.entry(way).or_insert(index);
        }
    }
    found
}

/// The ways on which requests may come to a pool, as numbers: over HTTP at all, over HTTPS at all, and by
/// each listener. A pool that is bound to listeners takes only from these.
fn ways(pool: &Pool, listeners: &[Listener]) -> Vec<usize> {
    /// With more listeners than this, pools that are bound to some are compared with none.
    const MAX_COMPARED: usize = 64;
    let by_listener = |place: usize| 2 + place;
    if let Some(places) = &pool.listeners {
        let few = listeners.len() <= MAX_COMPARED;
        return places.iter().filter(|_| few).map(|&place| by_listener(usize::from(place))).collect();
    }
    let schemes =
        [pool.http, pool.https].into_iter().enumerate().filter(|&(_, taken)| taken).map(|(way, _)| way);
    let takes = |l: &Listener| match l.kind {
        ListenerKind::Http => pool.http,
        ListenerKind::Https => pool.https,
        ListenerKind::Admin => false,
    };
    let few = &listeners[..if listeners.len() <= MAX_COMPARED { listeners.len() } else { 0 }];
    let all = few.iter().enumerate().filter(|(_, l)| takes(l)).map(|(place, _)| by_listener(place));
    schemes.chain(all).collect()
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
    if pool.middlewares.iter().any(|m| matches!(m, Middleware::Respond(_))) {
        // No request gets as far as to a backend.
        return;
    }
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
    let missed: Vec<&str> = all[..at].iter().filter(|m| !makes_no_errors(m)).map(Middleware::name).collect();
    if !missed.is_empty() {
        let message =
            format!("CustomErrorPages does not see what {} before it in the file answers", missed.join(", "));
        report.warning(located.middlewares[at].clone(), message).help = Some("put it before them".into());
    }
}

/// Where such a middleware stands doesn't matter to error pages.
fn makes_no_errors(middleware: &Middleware) -> bool {
    matches!(
        middleware,
        Middleware::Compression(_)
            | Middleware::Headers(_)
            | Middleware::StripPrefix { .. }
            | Middleware::AddPrefix { .. }
            | Middleware::ReplacePath { .. }
            | Middleware::ReplacePathRegex(_)
            | Middleware::Redirect(_)
    )
}

/// `Respond` responds to every request: what stands after it sees none, and neither do backends.
fn behind_respond(located: &LocatedPool, report: &mut Report<'_>) {
    let pool = &located.pool;
    let Some(at) = pool.middlewares.iter().position(|m| matches!(m, Middleware::Respond(_))) else { return };
    if let (Some(next), Some(span)) = (pool.middlewares.get(at + 1), located.middlewares.get(at + 1)) {
        let message = format!("{} never sees a request: Respond stands before it in the file", next.name());
        report.warning(span.clone(), message).help = Some("put Respond last".into());
    }
    if !pool.backends.is_empty() {
        let message =
            format!("the backends of pool \"{}\" get no request: Respond answers all", clip(&pool.name));
        report.warning(located.addresses.clone(), message).help = Some("leave `addresses` out".into());
    }
}
