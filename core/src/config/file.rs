//! The whole file: errors of its TOML syntax, the order in which its parts are read, and the settings at its
//! top.

use std::time::Duration;

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Lines, clip};
use super::duration::Unit;
use super::model::{AccessLog, Config, Driver, Health, LogFormat};
use super::reader::{self, Section};
use super::report::Report;
use super::settings::{self, Scope};
use super::{address, certificates, keys, lint, listeners, pool};

/// The result of reading a configuration file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// `None` if and only if there is an error among the diagnostics.
    pub config: Option<Config>,
    /// Errors and warnings in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// An error for each part of a valid file that can't be served yet, in the order of the file. A start
    /// has to refuse such a file.
    pub not_built: Vec<Diagnostic>,
}

/// Reads a configuration file. It never fails and reports everything that is wrong at once.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    let mut report = Report::new(text);
    if !syntax_errors.is_empty() {
        report.ignore_missing_keys();
    }
    let config = read(root.get_ref(), &mut report);
    let config = config.filter(|_| syntax_errors.is_empty() && !report.has_errors());
    let (mut diagnostics, not_built) = report.finish();
    if !syntax_errors.is_empty() {
        diagnostics = with_syntax_errors(text, diagnostics, &syntax_errors);
    }
    Parsed { config, diagnostics, not_built }
}

/// Adds the errors of the TOML syntax, and removes what only follows from them: the value that the parser
/// substitutes for an unreadable one has an empty span, or is on the same line.
fn with_syntax_errors(
    text: &str,
    mut diagnostics: Vec<Diagnostic>,
    errors: &[toml::de::Error],
) -> Vec<Diagnostic> {
    let lines = Lines::new(text);
    let mut syntax = Report::new(text);
    for error in errors {
        syntax.error(error.span().unwrap_or(0..0), error.message());
    }
    let (mut syntax, _) = syntax.finish();
    // After an unreadable value the parser reports what follows it on the line, too; after an unclosed list,
    // every line.
    let in_list = |d: &Diagnostic| {
        d.message.starts_with("missing comma between array") || d.message.contains(" in array")
    };
    syntax.dedup_by(|later, d| later.line == d.line || (in_list(later) && in_list(d)));
    for d in syntax.iter_mut().filter(|d| in_list(d)) {
        d.help = Some("is the list above closed with `]`?".into());
    }
    let unreadable = unreadable_lines(&lines, &syntax);
    diagnostics.retain(|d| !d.span.is_empty() && unreadable.binary_search(&d.line).is_err());
    diagnostics.append(&mut syntax);
    lines.locate(&mut diagnostics);
    diagnostics
}

/// The lines, counted from 1 and sorted, whose values can't be trusted after these syntax errors.
fn unreadable_lines(lines: &Lines<'_>, syntax: &[Diagnostic]) -> Vec<usize> {
    let mut unreadable: Vec<usize> = Vec::new();
    for d in syntax {
        let last = lines.index(d.span.end);
        // The errors are sorted by their starts, so each line is added once however their spans overlap.
        let added = unreadable.last().copied().unwrap_or_default();
        unreadable.extend(d.line.max(added + 1)..=last + 1);
        // What follows an unreadable header was read into the table before it.
        if lines.line(last).trim_start().starts_with('[') {
            let table = ((last + 1).max(added)..lines.count())
                .take_while(|&i| !lines.line(i).trim_start().starts_with('['));
            unreadable.extend(table.map(|i| i + 1));
        }
    }
    unreadable
}

fn read<'d>(root: &'d DeTable<'d>, report: &mut Report<'_>) -> Option<Config> {
    let file = Section::root(root, keys::FILE, report);
    let certificates = certificates::read(file.get("certificates"), report);
    // A certificate with an error counts: it will be usable once the error is corrected.
    let has_certificate = !certificates.is_empty();
    let listeners = listeners::read(&file, has_certificate, report);
    let defaults = pool::Defaults {
        check_every: check_every(&file, report),
        timeouts: settings::timeouts(&file, Scope::File, Default::default(), report),
        limits: settings::limits(&file, Scope::File, Default::default(), report),
    };
    let pools = pool::read_all(&file, &defaults, report);
    let trusted_proxies = trusted_proxies(&file, report);
    let via = file.boolean("via", false, report);
    let workers = file.integer("workers", 0..=1024, 0, report);
    let drivers = &[("mio", Driver::Mio), ("smol", Driver::Smol)];
    let driver = file.one_of("driver", "driver", drivers, Driver::Mio, report);
    let access_log = access_log(&file, report);

    let context = lint::Context {
        file: &file,
        listens_http: listeners.http,
        listens_https: listeners.https,
        has_certificate,
    };
    lint::check(&pools, &context, report);

    if report.has_errors() {
        return None;
    }
    Some(Config {
        listeners: listeners.all,
        pools: pools.into_iter().map(|p| Some(p?.pool)).collect::<Option<_>>()?,
        certificates: certificates.into_iter().collect::<Option<_>>()?,
        trusted_proxies,
        via,
        timeouts: defaults.timeouts,
        limits: defaults.limits,
        workers: u16::try_from(workers).ok().filter(|&n| n > 0),
        driver,
        access_log,
    })
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
    let mut found = Vec::new();
    for (text, span) in reader::strings(value, "`trusted_proxies`", report) {
        match address::network(text) {
            Ok(net) => found.push(net),
            Err(reason) => {
                let message = format!("\"{}\" is not an address or a network: {reason}", clip(text));
                report.error(span, message).help = Some("for example \"10.0.0.0/8\"".into());
            }
        }
    }
    found
}

fn access_log(file: &Section<'_>, report: &mut Report<'_>) -> AccessLog {
    let default = AccessLog::default();
    let Some(value) = file.get("access_log") else { return default };
    let Some(section) = Section::new(value, "`access_log`", &["enabled", "format", "path"], report) else {
        return default;
    };
    let path = section
        .get("path")
        .and_then(|v| reader::non_empty_string(v, "`path`", report))
        .filter(|&path| path != "-")
        .map(Into::into);
    let formats = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
    AccessLog {
        enabled: section.boolean("enabled", default.enabled, report),
        format: section.one_of("format", "format", formats, default.format, report),
        path,
    }
}
