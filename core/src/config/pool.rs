//! `[[backend_pools]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toml::de::DeValue;

use super::duration::Unit;
use super::matcher::Matcher;
use super::model::{
    Address, Backend, ClientPool, Health, Limits, Middleware, Pool, Protocol, Strategy, Timeouts,
};
use super::reader::{self, Report, Section, Span, Value};
use super::{address, duration, middlewares, strategy, suggest};

pub(super) const KEYS: &[&str] = &[
    "name",
    "matcher",
    "addresses",
    "schemes",
    "strategy",
    "health_config",
    "client",
    "timeouts",
    "limits",
    "retries",
    "middlewares",
];

/// What the top of the file says for every pool.
pub(super) struct Defaults {
    pub(super) check_every: Duration,
    pub(super) timeouts: Timeouts,
    pub(super) limits: Limits,
}

/// A pool and where its parts are written.
pub(super) struct Read {
    pub(super) pool: Pool,
    pub(super) header: Span,
    pub(super) matcher: Span,
    pub(super) schemes: Span,
    pub(super) addresses: Span,
    /// As many as the pool has middlewares.
    pub(super) middlewares: Vec<Span>,
    pub(super) strategy: Span,
    pub(super) slow_threshold: Span,
}

/// Every pool in the order of the file; `None` for one with an error.
pub(super) fn read_all(
    file: &Section<'_>,
    defaults: &Defaults,
    report: &mut Report<'_>,
) -> Vec<Option<Read>> {
    let Some(value) = file.get("backend_pools") else { return Vec::new() };
    let Some(items) = value.get_ref().as_array() else {
        let found = reader::type_name(value);
        *report.error(
            file.key_span("backend_pools"),
            format!("`backend_pools` must be a list of tables, found {found}"),
        ) = Some("write [[backend_pools]] with two brackets on each side".into());
        return Vec::new();
    };
    if items.len() > usize::from(u16::MAX) {
        report.error(file.key_span("backend_pools"), "there are more than 65535 pools");
        return Vec::new();
    }
    let mut names: BTreeMap<Box<str>, usize> = BTreeMap::new();
    let mut pools = Vec::with_capacity(items.len());
    let mut explicit = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(section) = Section::new(item, "a backend pool", KEYS, report) else {
            pools.push(None);
            continue;
        };
        let given = section.get("name").and_then(|v| Some((name(v, report)?, v.span())));
        if let Some((name, span)) = &given {
            if let Some(first) = names.insert(name.clone(), index) {
                report.error(
                    span.clone(),
                    format!("pool {} is already named \"{}\"", first + 1, suggest::clip(name)),
                );
            }
            explicit.push((index, name.clone(), span.clone()));
        }
        let name = given.map_or_else(|| format!("pool-{}", index + 1).into(), |(name, _)| name);
        pools.push(one(&section, name, defaults, report));
    }
    for (index, name, span) in explicit {
        let number = name
            .strip_prefix("pool-")
            .and_then(|n| n.parse::<usize>().ok())
            .filter(|&n| format!("pool-{n}") == *name);
        if let Some(n) = number
            && n != index + 1
            && (1..=items.len()).contains(&n)
            && items
                .get(n - 1)
                .is_some_and(|other| other.get_ref().as_table().is_some_and(|t| !t.contains_key("name")))
        {
            report
                .error(span, format!("\"{name}\" is what pool {n} is called, which has no name of its own"));
        }
    }
    pools
}

fn name(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let name = reader::filled(value, "`name`", report)?;
    if name.len() > 100 || name.chars().any(char::is_control) {
        report.error(value.span(), "`name` must have at most 100 bytes and no control characters");
        return None;
    }
    Some(name.into())
}

fn one(section: &Section<'_>, name: Box<str>, defaults: &Defaults, report: &mut Report<'_>) -> Option<Read> {
    let place = |key: &str| section.get(key).map_or(section.span.clone(), |v| v.span());
    let matcher = match section.get("matcher") {
        None => Some(Matcher::Any),
        Some(value) => matcher(value, report),
    };
    let backends = backends(section, report);
    let schemes = match section.get("schemes") {
        None => Some((true, true)),
        Some(value) => schemes(value, report),
    };
    let strategy = match section.get("strategy") {
        None => Some(Strategy::RoundRobin),
        Some(value) => strategy::read(value, report),
    };
    let (health, slow_threshold) = health(section, defaults.check_every, report);
    let client = client(section, report);
    let timeouts = timeouts(section, Scope::Pool, defaults.timeouts, report);
    let limits = limits(section, Scope::Pool, defaults.limits, report);
    let retries = section.small("retries", 0..=20, 1, report);
    let (middlewares, spans): (Vec<Middleware>, Vec<Span>) = section
        .get("middlewares")
        .map(|v| middlewares::read(v, report))
        .unwrap_or_default()
        .into_iter()
        .unzip();
    let (http, https) = schemes?;
    let pool = Pool {
        name,
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
        middlewares,
    };
    Some(Read {
        pool,
        header: section.span.clone(),
        matcher: place("matcher"),
        schemes: place("schemes"),
        addresses: place("addresses"),
        middlewares: spans,
        strategy: place("strategy"),
        slow_threshold,
    })
}

fn matcher(value: &Value<'_>, report: &mut Report<'_>) -> Option<Matcher> {
    let text = reader::string(value, "`matcher`", report)?;
    match Matcher::parse(text) {
        Ok(matcher) => Some(matcher),
        Err(problems) => {
            let places = Places::new(report.text, value.span(), text);
            for problem in problems {
                let at = if text.is_empty() { value.span() } else { places.of(problem.at) };
                *report.error(at, format!("bad matcher: {}", problem.message)) = problem.help;
            }
            None
        }
    }
}

/// From places in a TOML string's value to places in the file.
struct Places {
    whole: Span,
    /// Where each byte of the value is written, and the end; `None` if that isn't known.
    at: Option<Vec<usize>>,
}

impl Places {
    fn new(file: &str, whole: Span, value: &str) -> Self {
        let at = file.get(whole.clone()).and_then(|source| written_at(source, value));
        Self { at: at.map(|at| at.into_iter().map(|i| i + whole.start).collect()), whole }
    }

    fn of(&self, place: Span) -> Span {
        let at = |i: usize| self.at.as_ref().and_then(|at| at.get(i)).copied();
        match (at(place.start), at(place.end)) {
            (Some(start), Some(end)) => start..end,
            _ => self.whole.clone(),
        }
    }
}

/// For each byte of `value`, and its end, the byte of `source` (a TOML string with its quotes) that it comes
/// from.
fn written_at(source: &str, value: &str) -> Option<Vec<usize>> {
    for quotes in ["\"\"\"", "'''", "\"", "'"] {
        let Some(inner) = source.strip_prefix(quotes).and_then(|s| s.strip_suffix(quotes)) else { continue };
        let start = quotes.len();
        // TOML drops the first line end of a multi-line string.
        let dropped = if quotes.len() == 1 {
            0
        } else {
            inner.len() - inner.strip_prefix("\r\n").or(inner.strip_prefix('\n')).unwrap_or(inner).len()
        };
        if &inner[dropped..] == value {
            let start = start + dropped;
            return Some((start..=start + value.len()).collect());
        }
        if quotes != "\"" {
            return None;
        }
        let mut at = Vec::with_capacity(value.len() + 1);
        let mut chars = inner.char_indices();
        while let Some((i, c)) = chars.next() {
            let c = match c {
                '\\' => match chars.next()?.1 {
                    'b' => '\u{8}',
                    't' => '\t',
                    'n' => '\n',
                    'f' => '\u{c}',
                    'r' => '\r',
                    'e' => '\u{1b}',
                    c @ ('"' | '\\') => c,
                    digits @ ('x' | 'u' | 'U') => {
                        let len = match digits {
                            'x' => 2,
                            'u' => 4,
                            _ => 8,
                        };
                        let code = u32::from_str_radix(inner.get(i + 2..i + 2 + len)?, 16).ok()?;
                        chars.nth(len - 1);
                        char::from_u32(code)?
                    }
                    _ => return None,
                },
                c => c,
            };
            at.extend(std::iter::repeat_n(start + i, c.len_utf8()));
        }
        at.push(start + inner.len());
        return Some(at).filter(|at| at.len() == value.len() + 1);
    }
    None
}

fn schemes(value: &Value<'_>, report: &mut Report<'_>) -> Option<(bool, bool)> {
    let DeValue::Array(items) = value.get_ref() else {
        report.mistyped(value, "`schemes`", "a list like [\"HTTP\", \"HTTPS\"]");
        return None;
    };
    if items.is_empty() {
        *report.error(value.span(), "`schemes` is an empty list") =
            Some("leave it out for both \"HTTP\" and \"HTTPS\"".into());
        return None;
    }
    let (mut http, mut https, mut good) = (false, false, true);
    for item in items {
        match reader::one_of(item, "scheme", &[("HTTP", false), ("HTTPS", true)], report) {
            Some(true) => https = true,
            Some(false) => http = true,
            None => good = false,
        }
    }
    good.then_some((http, https))
}

const BACKEND_KEYS: &[&str] = &["address", "weight", "max_connections", "backup"];

fn backends(section: &Section<'_>, report: &mut Report<'_>) -> Option<Vec<Backend>> {
    let value = section.required("addresses", "[\"127.0.0.1:8080\"]", report)?;
    let DeValue::Array(items) = value.get_ref() else {
        report.mistyped(value, "`addresses`", "a list like [\"127.0.0.1:8080\"]");
        return None;
    };
    if items.len() > usize::from(u16::MAX) {
        report.error(value.span(), "a pool has at most 65535 backends");
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut found = Vec::with_capacity(items.len());
    let mut good = true;
    for item in items {
        let Some((backend, span)) = backend(item, report) else {
            good = false;
            continue;
        };
        let place = match &backend.address {
            Address::Ip(ip) => (ip.ip().to_canonical().to_string(), ip.port()),
            Address::Name { host, port } => (host.trim_end_matches('.').to_owned(), *port),
        };
        if seen.insert(place) {
            found.push(backend);
        } else {
            let message = format!("\"{}\" is already in this pool", suggest::clip(&backend.label));
            *report.error(span, message) =
                Some("give it a `weight` if it should get more than the others".into());
        }
    }
    good.then_some(found)
}

fn backend(item: &Value<'_>, report: &mut Report<'_>) -> Option<(Backend, Span)> {
    let (text, span, section) = match item.get_ref() {
        DeValue::String(text) => (text.as_ref(), item.span(), None),
        DeValue::Table(_) => {
            let section = Section::new(item, "a backend", BACKEND_KEYS, report)?;
            let value = section.required("address", "\"127.0.0.1:8080\"", report);
            let text = value.and_then(|v| Some((reader::string(v, "`address`", report)?, v.span())));
            // The other keys are still looked at.
            let (text, span) = text.unwrap_or(("", 0..0));
            (text, span, Some(section))
        }
        _ => {
            report.mistyped(item, "each of `addresses`", "a string like \"127.0.0.1:8080\" or a table");
            return None;
        }
    };
    let weight = section.as_ref().map_or(1, |s| s.small("weight", 0..=1000, 1, report));
    let max_connections =
        section.as_ref().map_or(0, |s| s.small("max_connections", 0..=10_000_000, 0, report));
    let backup = section.as_ref().is_some_and(|s| s.boolean("backup", false, report));
    if span.is_empty() {
        return None;
    }
    match address::backend(text) {
        Ok((label, address, protocol)) => {
            match protocol {
                Protocol::Http1 => {}
                Protocol::Https => report.not_built(span.clone(), "`https://` backends are"),
                Protocol::H2c => report.not_built(span.clone(), "`h2c://` backends are"),
            }
            let max_connections = Some(max_connections).filter(|&n| n > 0);
            Some((Backend { label, address, protocol, weight, max_connections, backup }, span))
        }
        Err(wrong) => {
            *report.error(span, format!("bad address \"{}\": {}", suggest::clip(text), wrong.why)) =
                wrong.help;
            None
        }
    }
}

const HEALTH_KEYS: &[&str] =
    &["check_every", "path", "timeout", "slow_threshold", "rise", "fall", "ramp_up", "slow_weight"];

fn health(pool: &Section<'_>, check_every: Duration, report: &mut Report<'_>) -> (Health, Span) {
    let default = Health { check_every, ..Health::default() };
    let Some(s) =
        pool.get("health_config").and_then(|v| Section::new(v, "`health_config`", HEALTH_KEYS, report))
    else {
        return (default, 0..0);
    };
    let path = s.get("path").and_then(|value| {
        let path = reader::string(value, "`path`", report)?;
        let visible = |b: u8| (0x21..=0x7e).contains(&b) && b != b'#';
        if path.starts_with('/') && path.bytes().all(visible) && path.len() <= 2048 {
            return Some(Box::<str>::from(path));
        }
        let help = "write it like \"/health\", blanks and other characters as %XX".to_owned();
        *report.error(value.span(), format!("\"{}\" is not the path of a request", suggest::clip(path))) =
            Some(help);
        None
    });
    let timeout = s.duration("timeout", Unit::Milliseconds, default.timeout, report);
    if timeout < Duration::from_millis(1)
        && let Some(value) = s.get("timeout")
    {
        *report.error(value.span(), "`timeout` of a health check must be at least 1 ms") =
            Some("`check_every = 0` turns checks off".into());
    }
    let slow_weight = s.get("slow_weight").and_then(|value| share(value, report));
    let health = Health {
        check_every: s.duration("check_every", Unit::Seconds, default.check_every, report),
        path: path.unwrap_or(default.path),
        timeout,
        slow_threshold: s.timeout("slow_threshold", Unit::Milliseconds, default.slow_threshold, report),
        rise: s.small("rise", 1..=1000, default.rise, report),
        fall: s.small("fall", 1..=1000, default.fall, report),
        ramp_up: s.duration("ramp_up", Unit::Seconds, default.ramp_up, report),
        slow_weight_permille: slow_weight.unwrap_or(default.slow_weight_permille),
    };
    (health, s.get("slow_threshold").map_or(s.span.clone(), |v| v.span()))
}

/// A number above 0 and up to 1, in thousandths.
fn share(value: &Value<'_>, report: &mut Report<'_>) -> Option<u32> {
    let number = match value.get_ref() {
        DeValue::Float(f) => f.as_str().parse::<f64>().ok(),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n as f64),
        _ => {
            report.mistyped(value, "`slow_weight`", "a number");
            return None;
        }
    };
    // Whole thousandths; `as` saturates, and NaN becomes 0.
    let found = number.map(|n| (n * 1000.0).round() as i64).filter(|n| (1..=1000).contains(n));
    if found.is_none() {
        report.error(value.span(), "`slow_weight` must be from 0.001 to 1");
    }
    found.and_then(|n| u32::try_from(n).ok())
}

fn client(pool: &Section<'_>, report: &mut Report<'_>) -> ClientPool {
    let default = ClientPool::default();
    let keys = &["pool_idle_timeout", "pool_max_idle_per_host"];
    let Some(s) = pool.get("client").and_then(|v| Section::new(v, "`client`", keys, report)) else {
        return default;
    };
    let idle = s.get("pool_idle_timeout").and_then(|value| {
        if value.get_ref().as_table().is_none() {
            return duration::read(value, "`pool_idle_timeout`", Unit::Seconds, report);
        }
        let s = Section::new(value, "`pool_idle_timeout`", &["secs", "nanos"], report)?;
        s.required("secs", "90", report)?;
        let secs = s.integer("secs", 0..=366 * 24 * 3600, 90, report);
        let nanos = s.small("nanos", 0..=999_999_999, 0, report);
        Some(Duration::new(secs, nanos))
    });
    ClientPool {
        idle_timeout: match idle {
            Some(Duration::ZERO) => Duration::MAX,
            some => some.unwrap_or(default.idle_timeout),
        },
        max_idle_per_host: s.small(
            "pool_max_idle_per_host",
            0..=1_000_000,
            default.max_idle_per_host,
            report,
        ),
    }
}

/// Whose settings are read: a pool can't change what is over before a pool is chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    File,
    Pool,
}

/// Opens a table of settings of which only some may stand in a pool.
fn settings<'d>(
    section: &Section<'d>,
    key: &'static str,
    what: &'static str,
    (all, in_pool): (&[&str], &[&str]),
    scope: Scope,
    report: &mut Report<'_>,
) -> Option<Section<'d>> {
    let s = Section::new(section.get(key)?, what, all, report)?;
    if scope == Scope::Pool {
        for (name, _) in s.entries().filter(|(name, _)| all.contains(&name.get_ref().as_ref())) {
            if !in_pool.contains(&name.get_ref().as_ref()) {
                let message = format!(
                    "`{}` can't be set for one pool: it matters before a pool is chosen",
                    name.get_ref()
                );
                *report.error(name.span(), message) = Some(format!("set it in [{key}] of the file"));
            }
        }
    }
    Some(s)
}

const TIMEOUT_KEYS: &[&str] =
    &["head", "idle", "connect", "backend_head", "stall", "tunnel", "queue", "handshake", "drain"];
const POOL_TIMEOUT_KEYS: &[&str] = &["connect", "backend_head", "stall", "tunnel", "queue"];

/// `[timeouts]`, of the file or of a pool.
pub(super) fn timeouts(
    section: &Section<'_>,
    scope: Scope,
    default: Timeouts,
    report: &mut Report<'_>,
) -> Timeouts {
    let keys = (TIMEOUT_KEYS, POOL_TIMEOUT_KEYS);
    let Some(s) = settings(section, "timeouts", "`timeouts`", keys, scope, report) else { return default };
    let mut get = |key: &str, default| s.timeout(key, Unit::Seconds, default, report);
    Timeouts {
        head: get("head", default.head),
        idle: get("idle", default.idle),
        connect: get("connect", default.connect),
        backend_head: get("backend_head", default.backend_head),
        stall: get("stall", default.stall),
        tunnel: get("tunnel", default.tunnel),
        queue: get("queue", default.queue),
        handshake: get("handshake", default.handshake),
        drain: get("drain", default.drain),
    }
}

const LIMIT_KEYS: &[&str] = &[
    "head_bytes",
    "fields",
    "target_bytes",
    "connections",
    "connections_per_ip",
    "buffer_bytes",
    "queue",
    "requests_per_connection",
    "min_upload_rate",
    "min_download_rate",
];
/// Heads of answers belong to a pool, so it may limit them.
const POOL_LIMIT_KEYS: &[&str] = &["head_bytes", "fields", "queue", "min_upload_rate", "min_download_rate"];

/// `[limits]`, of the file or of a pool.
pub(super) fn limits(
    section: &Section<'_>,
    scope: Scope,
    default: Limits,
    report: &mut Report<'_>,
) -> Limits {
    let keys = (LIMIT_KEYS, POOL_LIMIT_KEYS);
    let Some(s) = settings(section, "limits", "`limits`", keys, scope, report) else { return default };
    let any = 0..=u32::MAX;
    Limits {
        head_bytes: s.small("head_bytes", 1024..=16_384, default.head_bytes, report),
        fields: s.small("fields", 8..=256, default.fields, report),
        target_bytes: s.small("target_bytes", 64..=16_000, default.target_bytes, report),
        connections: s.small("connections", 1..=10_000_000, default.connections, report),
        connections_per_ip: s.small("connections_per_ip", any.clone(), default.connections_per_ip, report),
        buffer_bytes: s.integer("buffer_bytes", 1 << 20..=1 << 40, default.buffer_bytes, report),
        queue: s.small("queue", 0..=1_000_000, default.queue, report),
        requests_per_connection: s.small(
            "requests_per_connection",
            any.clone(),
            default.requests_per_connection,
            report,
        ),
        min_upload_rate: s.small("min_upload_rate", any.clone(), default.min_upload_rate, report),
        min_download_rate: s.small("min_download_rate", any, default.min_download_rate, report),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_strings() {
        // (as written in the file, the byte of the value, the byte of the source)
        let cases = [
            ("\"abc\"", 1, Some(2)),
            ("'abc'", 0, Some(1)),
            ("'''\nabc'''", 0, Some(4)),
            ("\"\"\"\r\nabc\"\"\"", 2, Some(7)),
            ("\"a\\\"c\"", 1, Some(2)),
            ("\"a\\\"c\"", 2, Some(4)),
            ("\"\\u00e4b\"", 2, Some(7)),
            ("\"\\x41b\"", 1, Some(5)),
            ("\"äb\"", 2, Some(3)),
            ("\"\"\"a\\tb\"\"\"", 1, None),
        ];
        for (source, byte, wanted) in cases {
            let file = format!("x = {source}");
            let table = toml::de::DeTable::parse(&file).unwrap();
            let value = table.get_ref().get("x").unwrap();
            let found = written_at(&file[value.span()], value.get_ref().as_str().unwrap());
            assert_eq!(found.map(|at| at[byte]), wanted, "{source}");
        }
    }
}
