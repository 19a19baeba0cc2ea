//! `[[backend_pools]]`: each pool with its parts, and the names of all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::diagnostic::{Diagnostic, clip};
use super::duration::{self, Unit};
use super::listeners::{self, Listeners};
use super::literal::{self, Literal};
use super::matcher::{Matcher, SyntaxError};
use super::middleware_settings::Middleware;
use super::middlewares::Named;
use super::model::{ClientPool, Limits, Pool, Strategy, Timeouts};
use super::reader::{self, Section};
use super::report::{Report, Span, Value};
use super::settings::{self, Scope};
use super::{backend_tls, backends, health, keys, middlewares, strategy};

/// What the top of the file sets for every pool.
pub(super) struct Defaults {
    pub(super) listeners: Listeners,
    pub(super) check_every: Duration,
    pub(super) timeouts: Timeouts,
    pub(super) limits: Limits,
}

/// A pool, and where the file has its parts. The span of a part that isn't written is the pool's header.
pub(super) struct LocatedPool {
    pub(super) pool: Pool,
    pub(super) header: Span,
    pub(super) matcher: Span,
    /// Of `listeners`, or else of `schemes`.
    pub(super) schemes: Span,
    pub(super) addresses: Span,
    /// The name of each middleware, in the order of [`Pool::middlewares`]: its kind, or its name in a list.
    pub(super) middlewares: Vec<Span>,
    pub(super) strategy: Span,
    /// The value of `secure` of a sticky cookie, if it is written.
    pub(super) cookie_secure: Option<Span>,
    /// Empty if the pool has no `health_config`.
    pub(super) slow_threshold: Span,
}

/// Every pool in the order of the file; `None` for one with an error.
pub(super) fn read_all(
    file: &Section<'_>,
    defaults: &Defaults,
    named: &mut Named,
    report: &mut Report<'_>,
) -> Vec<Option<LocatedPool>> {
    let items = reader::tables(file, "backend_pools", report);
    if items.len() > usize::from(u16::MAX) {
        report.error(file.key_span("backend_pools"), "there are more than 65535 pools");
        return Vec::new();
    }
    let mut indexes: BTreeMap<Box<str>, usize> = BTreeMap::new();
    let mut pools = Vec::with_capacity(items.len());
    let mut names = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(section) = Section::new(item, "a backend pool", keys::POOL, report) else {
            pools.push(None);
            continue;
        };
        let given = section
            .get("name")
            .and_then(|v| Some((Box::<str>::from(reader::label(v, "`name`", report)?), v.span())));
        if let Some((name, span)) = &given {
            if let Some(first) = indexes.insert(name.clone(), index) {
                let message = format!("pool {} is already named \"{}\"", first + 1, clip(name));
                report.error(span.clone(), message);
            }
            names.push((index, name.clone(), span.clone()));
        }
        let name = given.map_or_else(|| format!("pool-{}", index + 1).into(), |(name, _)| name);
        pools.push(read_one(&section, name, defaults, named, report));
    }
    let is_named: Vec<bool> = items
        .iter()
        .map(|item| item.get_ref().as_table().is_none_or(|table| table.contains_key("name")))
        .collect();
    check_generated_names(&names, &is_named, report);
    pools
}

/// A pool without a name is called `pool-N`: no other pool may be named so. `names` are those that are
/// written, each with the index of its pool.
fn check_generated_names(names: &[(usize, Box<str>, Span)], is_named: &[bool], report: &mut Report<'_>) {
    for (index, name, span) in names {
        let number = name
            .strip_prefix("pool-")
            .and_then(|n| n.parse::<usize>().ok())
            .filter(|&n| n > 0 && n != index + 1 && format!("pool-{n}") == **name);
        if let Some(n) = number
            && is_named.get(n - 1) == Some(&false)
        {
            let message = format!("\"{name}\" is what pool {n} is called, which has no name of its own");
            report.error(span.clone(), message);
        }
    }
}

fn read_one(
    section: &Section<'_>,
    name: Box<str>,
    defaults: &Defaults,
    named: &mut Named,
    report: &mut Report<'_>,
) -> Option<LocatedPool> {
    // Every part is read before any error ends this, so that all errors are reported.
    let matcher = match section.get("matcher") {
        None => Some(Matcher::Any),
        Some(value) => matcher(value, report),
    };
    let tls = backend_tls::read(section, report);
    let (middlewares, middleware_spans): (Vec<_>, Vec<_>) = section
        .get("middlewares")
        .map(|v| middlewares::of_pool(v, named, report))
        .unwrap_or_default()
        .into_iter()
        .unzip();
    let responds = middlewares.iter().any(|m| matches!(m, Middleware::Respond(_)))
        || section.get("middlewares").is_some_and(middlewares::has_respond);
    let backends = match section.get("addresses") {
        None if responds => Some(Vec::new()),
        _ => backends::read(section, &tls.settings, report),
    };
    if let Some(backends) = &backends {
        backend_tls::check(tls, &name, backends, &section.value_span("addresses"), report);
    }
    let schemes = match section.get("schemes") {
        None => Some((true, true)),
        Some(value) => schemes(value, report),
    };
    let listeners = match (section.get("listeners"), schemes) {
        (None, _) => Some(None),
        // Names are checked also if the schemes have an error.
        (Some(value), schemes) => {
            let schemes = schemes.unwrap_or((true, true));
            listeners::of_pool(value, schemes, &defaults.listeners, report).map(Some)
        }
    };
    let strategy = match section.get("strategy") {
        None => Some(Strategy::RoundRobin),
        Some(value) => strategy::read(value, report),
    };
    let (health, slow_threshold) =
        health::read(section, defaults.check_every, backends.as_deref().unwrap_or_default(), report);
    let client = client(section, report);
    let timeouts = settings::timeouts(section, Scope::Pool, defaults.timeouts, report);
    let limits = settings::limits(section, Scope::Pool, defaults.limits, report);
    let retries = section.integer_u32("retries", 0..=20, 1, report);
    let (http, https) = schemes?;
    let listed = section.get("listeners").is_some();
    let pool = Pool {
        name,
        listeners: listeners?,
        matcher: matcher?,
        http,
        https,
        strategy: strategy?,
        backends: backends?,
        health,
        client,
        timeouts,
        limits,
        retries: retries as u8,
        lenient: section.boolean("lenient", false, report),
        retries_on_timeout: section.boolean("retries_on_timeout", false, report),
        middlewares,
    };
    Some(LocatedPool {
        pool,
        header: section.span.clone(),
        matcher: section.value_span("matcher"),
        schemes: section.value_span(if listed { "listeners" } else { "schemes" }),
        addresses: section.value_span("addresses"),
        middlewares: middleware_spans,
        strategy: section.value_span("strategy"),
        cookie_secure: section.get("strategy").and_then(strategy::secure_span),
        slow_threshold,
    })
}

fn matcher(value: &Value<'_>, report: &mut Report<'_>) -> Option<Matcher> {
    let text = reader::string(value, "`matcher`", report)?;
    let literal = Literal::new(report.text, value.span(), text);
    let (read, doubts) = Matcher::read(text);
    for doubt in doubts {
        let warning = report.warning(literal.span_of(doubt.span.clone()), doubt.message.clone());
        explain(&doubt, text, &literal, value.span(), warning);
    }
    match read {
        Ok(matcher) => Some(matcher),
        Err(errors) => {
            for found in errors {
                let span = if text.is_empty() { value.span() } else { literal.span_of(found.span.clone()) };
                let error = report.error(span, format!("bad matcher: {found}"));
                explain(&found, text, &literal, value.span(), error);
            }
            None
        }
    }
}

/// Sets the help of a diagnostic for a part of the matcher `text`. What is suggested is written as the
/// matcher's TOML string needs it: `\` is doubled in `"…"`.
fn explain(found: &SyntaxError, text: &str, literal: &Literal, whole: Span, diagnostic: &mut Diagnostic) {
    diagnostic.help.clone_from(&found.help);
    let Some(suggestion) = &found.suggestion else { return };
    let part = literal.span_of(suggestion.span.clone());
    match literal.encode(&suggestion.text).filter(|_| part != whole) {
        Some(encoded) => {
            let help = found.help.as_deref().unwrap_or_default().replace(&suggestion.text, &encoded);
            diagnostic.suggest(help, part, encoded);
        }
        // This kind of string can't hold it, so the whole string becomes another one.
        None => {
            let mut matcher = text.to_owned();
            matcher.replace_range(suggestion.span.clone(), &suggestion.text);
            let matcher = literal::quote_verbatim(&matcher);
            diagnostic.suggest(format!("write {matcher}"), whole, matcher);
        }
    }
}

/// Whether the pool takes requests over HTTP, and over HTTPS.
fn schemes(value: &Value<'_>, report: &mut Report<'_>) -> Option<(bool, bool)> {
    let DeValue::Array(items) = value.get_ref() else {
        let error = report.mistyped(value, "`schemes`", "a list like [\"HTTP\", \"HTTPS\"]");
        let name = value.get_ref().as_str().map(str::to_uppercase);
        if let Some(name @ ("HTTP" | "HTTPS")) = name.as_deref() {
            error.write(format!("[\"{name}\"]"));
        }
        return None;
    };
    if items.is_empty() {
        report.error(value.span(), "`schemes` is an empty list").help =
            Some("leave it out for both \"HTTP\" and \"HTTPS\"".into());
        return None;
    }
    let (mut http, mut https, mut valid) = (false, false, true);
    for item in items {
        match reader::one_of(item, "scheme", &[("HTTP", false), ("HTTPS", true)], report) {
            Some(true) => https = true,
            Some(false) => http = true,
            None => valid = false,
        }
    }
    valid.then_some((http, https))
}

/// `client`: how many idle connections to a backend are kept, and for how long.
fn client(pool: &Section<'_>, report: &mut Report<'_>) -> ClientPool {
    let default = ClientPool::default();
    let keys = &["pool_idle_timeout", "pool_max_idle_per_host"];
    let Some(s) = pool.get("client").and_then(|v| Section::new(v, "`client`", keys, report)) else {
        return default;
    };
    let idle_timeout = match s.get("pool_idle_timeout").and_then(|value| idle_timeout(value, report)) {
        None => default.idle_timeout,
        Some(Duration::ZERO) => Duration::MAX,
        Some(timeout) => timeout,
    };
    let max_idle_per_host =
        s.integer_u32("pool_max_idle_per_host", 0..=1_000_000, default.max_idle_per_host, report);
    ClientPool { idle_timeout, max_idle_per_host }
}

/// A duration, also as `{ secs = 90, nanos = 0 }`.
fn idle_timeout(value: &Value<'_>, report: &mut Report<'_>) -> Option<Duration> {
    if value.get_ref().as_table().is_none() {
        return duration::read(value, "`pool_idle_timeout`", Unit::Seconds, report);
    }
    let s = Section::new(value, "`pool_idle_timeout`", &["secs", "nanos"], report)?;
    s.required("secs", "90", report)?;
    let secs = s.integer("secs", 0..=duration::MAX_SECS, 90, report);
    let nanos = s.integer_u32("nanos", 0..=999_999_999, 0, report);
    Some(Duration::new(secs, nanos))
}
