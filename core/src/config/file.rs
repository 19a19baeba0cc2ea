//! The whole file: errors of its TOML syntax, the order in which its parts are read, and the settings at its
//! top.

use std::sync::Arc;

use std::time::Duration;

use toml::de::DeTable;

use super::diagnostic::clip;
use super::duration::Unit;
use super::environment::{self, Environment};
use super::middlewares::Named;
use super::model::{AccessLog, Config, Driver, Health, LogFormat};
use super::reader::{self, Section};
use super::report::{Parsed, Report};
use super::settings::{self, Scope};
use super::syntax::{self, Readable};
use super::{certificates, keys, lint, listeners, literal, pool};

/// Reads a configuration file, as [`parse_in`] does, where there are no variables.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    parse_in(text, &|_| None)
}

/// Reads a configuration file whose strings may have variables of an environment: `${NAME}` and
/// `${NAME:-default}`. It never fails and reports everything that is wrong at once.
#[must_use]
pub fn parse_in(text: &str, environment: &Environment<'_>) -> Parsed {
    let (mut root, errors) = DeTable::parse_recoverable(text);
    let mut report = Report::new(text);
    if errors.is_empty() {
        environment::replace(root.get_mut(), environment, &mut report);
        let config = read(root.get_ref(), &mut report);
        let config = config.filter(|_| !report.has_errors());
        return report.finish(config);
    }
    let Readable { text: readable, broken } = syntax::readable(text, &mut report);
    let (mut root, rest) = DeTable::parse_recoverable(&readable);
    syntax::report_rest(&rest, text, &mut report);
    if !report.has_errors() {
        syntax::report_rest(&errors, text, &mut report);
    }
    report.ignore_missing_keys(broken);
    environment::replace(root.get_mut(), environment, &mut report);
    read(root.get_ref(), &mut report);
    report.finish(None)
}

fn read<'d>(root: &'d DeTable<'d>, report: &mut Report<'_>) -> Option<Config> {
    let file = Section::root(root, keys::FILE, report);
    let certificates = certificates::read(file.get("certificates"), report);
    // A certificate with an error counts: it will be usable once the error is corrected.
    let has_certificate = !certificates.is_empty();
    let listeners = listeners::read(&file, has_certificate, report);
    let defaults = pool::Defaults {
        listeners,
        check_every: check_every(&file, report),
        timeouts: settings::timeouts(&file, Scope::File, Default::default(), report),
        limits: settings::limits(&file, Scope::File, Default::default(), report),
    };
    let http2 = settings::http2(&file, report);
    let mut named = Named::read(&file, report);
    let pools = pool::read_all(&file, &defaults, &mut named, report);
    // Where a part could not be read, one of its pools may use them.
    if report.is_whole() && !file.has_misspelt("backend_pools") {
        named.report_unused(report);
    }
    let trusted_proxies = trusted_proxies(&file, report);
    let via = file.boolean("via", false, report);
    let workers = file.integer("workers", 0..=1024, 0, report);
    let drivers = &[("mio", Driver::Mio), ("smol", Driver::Smol)];
    let driver = file.one_of("driver", "driver", drivers, Driver::Mio, report);
    let user = account(&file, "user", report);
    let group = account(&file, "group", report);
    report.places.user = file.get("user").map(|v| v.span());
    report.places.group = file.get("group").map(|v| v.span());
    let access_log = access_log(&file, report);
    let watch = file.boolean("watch", true, report);

    let listeners = defaults.listeners;
    let context = lint::Context { file: &file, listeners: &listeners, has_certificate };
    lint::check(&pools, &context, report);

    if report.has_errors() {
        return None;
    }
    Some(Config {
        listeners: listeners.all,
        pools: pools.into_iter().map(|p| Some(Arc::new(p?.pool))).collect::<Option<_>>()?,
        certificates: certificates.into_iter().collect::<Option<_>>()?,
        trusted_proxies,
        via,
        timeouts: defaults.timeouts,
        limits: defaults.limits,
        http2,
        workers: u16::try_from(workers).ok().filter(|&n| n > 0),
        driver,
        user,
        group,
        access_log,
        watch,
    })
}

/// `user` or `group`: a name, or a number.
fn account(file: &Section<'_>, key: &str, report: &mut Report<'_>) -> Option<Box<str>> {
    // The highest number means "as it is" to system calls.
    const MAX_ID: u64 = u32::MAX as u64 - 1;
    let value = file.get(key)?;
    let what = format!("`{key}`");
    if value.get_ref().as_integer().is_some() {
        return reader::integer(value, &what, 0..=MAX_ID, report).map(|id| id.to_string().into());
    }
    let Some(name) = value.get_ref().as_str() else {
        report.mistyped(value, &what, "a name or a number");
        return None;
    };
    let is_name = |c: char| !c.is_control() && !c.is_whitespace() && c != ':' && c != ',';
    if name.is_empty() || !name.chars().all(is_name) || name.parse::<u64>().is_ok_and(|id| id > MAX_ID) {
        report.error(value.span(), format!("\"{}\" is not the name of a {key}", clip(name)));
        return None;
    }
    Some(name.into())
}

/// `[health_interval]`: how often every pool checks its backends.
fn check_every(file: &Section<'_>, report: &mut Report<'_>) -> Duration {
    let default = Health::default().check_every;
    file.get("health_interval")
        .and_then(|v| Section::new(v, "`health_interval`", &["check_every"], report))
        .map_or(default, |s| s.duration("check_every", Unit::Seconds, default, report))
}

fn trusted_proxies(file: &Section<'_>, report: &mut Report<'_>) -> Vec<ipnet::IpNet> {
    let Some(value) = file.get("trusted_proxies") else { return Vec::new() };
    reader::networks(value, "`trusted_proxies`", report)
}

fn access_log(file: &Section<'_>, report: &mut Report<'_>) -> AccessLog {
    let default = AccessLog::default();
    let Some(value) = file.get("access_log") else { return default };
    if let Some(path) = value.get_ref().as_str().filter(|path| !path.trim().is_empty()) {
        let table = format!("{{ path = {} }}", literal::quote(path));
        report.mistyped(value, "`access_log`", "a table").write(table);
        return default;
    }
    let Some(section) = Section::new(value, "`access_log`", &["enabled", "format", "path"], report) else {
        return default;
    };
    let path = section
        .get("path")
        .and_then(|v| reader::non_empty_string(v, "`path`", report))
        .filter(|&path| path != "-")
        .map(Into::into);
    if path.is_some() {
        report.places.access_log = section.get("path").map(|v| v.span());
    }
    let formats = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
    AccessLog {
        enabled: section.boolean("enabled", default.enabled, report),
        format: section.one_of("format", "format", formats, default.format, report),
        path,
    }
}
