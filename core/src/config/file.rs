//! The top of the file: listeners, global settings, and the order in which all is read.

use std::net::SocketAddr;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Lines};
use super::duration::Unit;
use super::model::{AccessLog, Config, Driver, Listener, ListenerKind, LogFormat};
use super::reader::{self, Report, Section, Span, Value};
use super::{address, certificates, doubts, pool, suggest};

/// What a file says.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// `None` if there is any error among the diagnostics.
    pub config: Option<Config>,
    /// Errors and warnings in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// What the file rightly asks for and we can't serve yet, as errors in the order of the file: a start
    /// has to refuse, by name.
    pub not_built: Vec<Diagnostic>,
}

pub(super) const KEYS: &[&str] = &[
    "http_address",
    "https_address",
    "metrics_address",
    "prometheus_metrics_address",
    "health_interval",
    "backend_pools",
    "certificates",
    "timeouts",
    "limits",
    "trusted_proxies",
    "workers",
    "driver",
    "access_log",
];

/// Where the metrics page is unless the file says otherwise.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);

/// Reads a file.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut report = Report::new(text);
    let broken = !errors.is_empty();
    if broken {
        report.set_broken();
    }
    let config = read(root.get_ref(), &mut report);
    let config = config.filter(|_| !broken && !report.has_errors());
    let (mut diagnostics, not_built) = report.finish();
    if broken {
        diagnostics = with_syntax(text, diagnostics, &errors);
    }
    Parsed { config, diagnostics, not_built }
}

/// Adds the errors of the TOML itself, and takes away what is only their echo: a value that was made up in
/// place of an unreadable one has an empty place, or stands on the same line.
fn with_syntax(text: &str, mut diagnostics: Vec<Diagnostic>, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
    let lines = Lines::new(text);
    let mut syntax = Report::new(text);
    for error in errors {
        syntax.error(error.span().unwrap_or(0..0), error.message());
    }
    let (mut syntax, _) = syntax.finish();
    // An unreadable value makes the parser complain again about what follows it on the line, an unclosed list
    // about every line.
    let in_list = |d: &Diagnostic| {
        d.message.starts_with("missing comma between array") || d.message.contains(" in array")
    };
    syntax.dedup_by(|later, d| later.line == d.line || (in_list(later) && in_list(d)));
    for d in syntax.iter_mut().filter(|d| in_list(d)) {
        d.help = Some("is the list above closed with `]`?".into());
    }
    let mut broken_lines: Vec<usize> = Vec::new();
    for d in &syntax {
        let last = lines.index(d.span.end);
        // Sorted by their starts, so each line is noted once however the places overlap.
        let noted = broken_lines.last().copied().unwrap_or_default();
        broken_lines.extend(d.line.max(noted + 1)..=last + 1);
        // What follows a lost header was read into the table before it.
        if lines.line(last).trim_start().starts_with('[') {
            let own = ((last + 1).max(noted)..lines.count())
                .take_while(|&i| !lines.line(i).trim_start().starts_with('['));
            broken_lines.extend(own.map(|i| i + 1));
        }
    }
    diagnostics.retain(|d| !d.span.is_empty() && broken_lines.binary_search(&d.line).is_err());
    diagnostics.append(&mut syntax);
    lines.place(&mut diagnostics);
    diagnostics
}

fn read<'d>(root: &'d DeTable<'d>, report: &mut Report<'_>) -> Option<Config> {
    let file = Section::root(root, KEYS, report);

    let http = listeners(&file, "http_address", ListenerKind::Http, report);
    let https = listeners(&file, "https_address", ListenerKind::Https, report);
    if file.get("http_address").is_none()
        && file.get("https_address").is_none()
        && let Some(help) =
            report.missing(0..0, "there is nothing to listen on: neither `http_address` nor `https_address`")
    {
        *help = Some("add http_address = \"[::]:80\"".into());
    }
    let certificates = certificates::read(file.get("certificates"), report);
    // One with an error is still one: it will be there once the error is mended.
    let has_certificate = !certificates.is_empty();
    let (listeners, open) = all_listeners(&file, http, https, has_certificate, report);

    let defaults = pool::Defaults {
        check_every: match file
            .get("health_interval")
            .map(|v| Section::new(v, "`health_interval`", &["check_every"], report))
        {
            Some(Some(s)) => {
                s.duration("check_every", Unit::Seconds, super::model::Health::default().check_every, report)
            }
            _ => super::model::Health::default().check_every,
        },
        timeouts: pool::timeouts(&file, pool::Scope::File, Default::default(), report),
        limits: pool::limits(&file, pool::Scope::File, Default::default(), report),
    };
    let pools = pool::read_all(&file, &defaults, report);
    let trusted_proxies = trusted_proxies(&file, report);
    let workers = file.integer("workers", 0..=1024, 0, report);
    let driver =
        file.one_of("driver", "driver", &[("mio", Driver::Mio), ("smol", Driver::Smol)], Driver::Mio, report);
    let access_log = access_log(&file, report);

    let all_pools = pools.iter().map(|p| p.as_ref()).collect::<Vec<_>>();
    let listening = doubts::Listening { file: &file, http: open.http, https: open.https, has_certificate };
    doubts::look(&all_pools, &listening, report);

    if report.has_errors() {
        return None;
    }
    Some(Config {
        listeners,
        pools: pools.into_iter().map(|p| Some(p?.pool)).collect::<Option<_>>()?,
        certificates: certificates.into_iter().collect::<Option<_>>()?,
        trusted_proxies,
        timeouts: defaults.timeouts,
        limits: defaults.limits,
        workers: u16::try_from(workers).ok().filter(|&n| n > 0),
        driver,
        access_log,
    })
}

/// A string or a list of strings: every element, and whether all of them were.
pub(super) fn strings<'v, 'd>(
    value: &'v Value<'d>,
    what: &str,
    report: &mut Report<'_>,
) -> Vec<(&'v str, Span)> {
    match value.get_ref() {
        DeValue::String(text) => vec![(text.as_ref(), value.span())],
        DeValue::Array(items) => items
            .iter()
            .filter_map(|item| Some((reader::string(item, &format!("each of {what}"), report)?, item.span())))
            .collect(),
        _ => {
            report.mistyped(value, what, "a string or a list of strings");
            Vec::new()
        }
    }
}

fn listeners(
    file: &Section<'_>,
    key: &str,
    kind: ListenerKind,
    report: &mut Report<'_>,
) -> Vec<(Listener, Span)> {
    let Some(value) = file.get(key) else { return Vec::new() };
    if value.get_ref().as_array().is_some_and(|items| items.is_empty()) {
        *report.error(value.span(), format!("`{key}` is an empty list")) = Some("leave the key out".into());
    }
    let mut found = Vec::new();
    for (text, span) in strings(value, &format!("`{key}`"), report) {
        if let Some(address) = listener_address(text, key, &span, report) {
            found.push((Listener { address, kind, explicit: true }, span));
        }
    }
    found
}

fn listener_address(text: &str, key: &str, span: &Span, report: &mut Report<'_>) -> Option<SocketAddr> {
    match address::listener(text) {
        Ok(address) => Some(address),
        Err(wrong) => {
            let message = format!("bad address \"{}\" for `{key}`: {}", suggest::clip(text), wrong.why);
            *report.error(span.clone(), message) = wrong.help;
            None
        }
    }
}

/// Whether anything listens for each scheme.
struct Open {
    http: bool,
    https: bool,
}

/// All listeners in their order, with the metrics page added.
fn all_listeners(
    file: &Section<'_>,
    http: Vec<(Listener, Span)>,
    https: Vec<(Listener, Span)>,
    has_certificate: bool,
    report: &mut Report<'_>,
) -> (Vec<Listener>, Open) {
    let open = Open { http: !http.is_empty(), https: !https.is_empty() && has_certificate };
    let mut all: Vec<(Listener, Span)> = http.into_iter().chain(https).collect();
    let key = match (file.get("metrics_address"), file.get("prometheus_metrics_address")) {
        (Some(_), Some(_)) => {
            let span = file.key_span("prometheus_metrics_address");
            report.error(
                span,
                "`prometheus_metrics_address` is another name of `metrics_address`: give one of them",
            );
            "metrics_address"
        }
        (None, Some(_)) => "prometheus_metrics_address",
        _ => "metrics_address",
    };
    let mut default_page = false;
    match file.get(key) {
        None => default_page = true,
        Some(value) => {
            match value.get_ref() {
                DeValue::Boolean(false) => {}
                DeValue::String(text) if text.is_empty() => {}
                DeValue::String(text) => {
                    let span = value.span();
                    let address = listener_address(text, key, &span, report);
                    all.extend(address.map(|address| {
                        (Listener { address, kind: ListenerKind::Admin, explicit: true }, span)
                    }));
                }
                _ => report.mistyped(value, &format!("`{key}`"), "an address, or false for no page"),
            }
        }
    }
    // Sorted by address, equal ones by place: each but the first of its kind is one too many.
    let mut order: Vec<usize> = (0..all.len()).filter(|&i| all[i].0.address.port() != 0).collect();
    order.sort_by_key(|&i| (all[i].0.address, i));
    for pair in order.windows(2) {
        let ((first, _), (second, span)) = (&all[pair[0]], &all[pair[1]]);
        if first.address == second.address {
            report.error(span.clone(), format!("\"{}\" is already listened on", second.address));
        }
    }
    if default_page {
        let clash = all.iter().find(|(l, _)| {
            let ip = l.address.ip().to_canonical();
            l.address.port() == METRICS.port() && (ip == METRICS.ip() || ip.is_unspecified())
        });
        match clash {
            // Two listeners of one process may share a port without an error, and each would then get some of
            // the other's clients.
            Some((_, span)) => {
                *report.warning(
                    span.clone(),
                    format!("no metrics page: its default address {METRICS} is taken by this listener"),
                ) = Some("set `metrics_address` to another address, or to false".into());
            }
            None => {
                all.push((Listener { address: METRICS, kind: ListenerKind::Admin, explicit: false }, 0..0))
            }
        }
    }
    // Without a certificate no handshake can succeed; `doubts` says so.
    let listeners = all
        .into_iter()
        .map(|(l, _)| l)
        .filter(|l| l.kind != ListenerKind::Https || has_certificate)
        .collect();
    (listeners, open)
}

fn trusted_proxies(file: &Section<'_>, report: &mut Report<'_>) -> Vec<ipnet::IpNet> {
    let Some(value) = file.get("trusted_proxies") else { return Vec::new() };
    let mut found = Vec::new();
    for (text, span) in strings(value, "`trusted_proxies`", report) {
        match address::network(text) {
            Ok(net) => found.push(net),
            Err(why) => {
                let message = format!("\"{}\" is not an address or a network: {why}", suggest::clip(text));
                *report.error(span, message) = Some("for example \"10.0.0.0/8\"".into());
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
        .and_then(|v| reader::filled(v, "`path`", report))
        .filter(|&path| path != "-")
        .map(Into::into);
    AccessLog {
        enabled: section.boolean("enabled", default.enabled, report),
        format: section.one_of(
            "format",
            "format",
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            default.format,
            report,
        ),
        path,
    }
}
