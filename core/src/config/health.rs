//! `health_config` of a pool.

mod expected;
mod grpc;
mod request;

use std::time::Duration;

use toml::de::DeValue;

use super::diagnostic::clip;
use super::duration::Unit;
use super::literal::quote;
use super::model::{Backend, Health};
use super::reader::{self, Section};
use super::report::{Report, Span, Value};
use super::suggest;

const KEYS: &[&str] = &[
    "check_every",
    "path",
    "method",
    "host",
    "port",
    "headers",
    "expect",
    "body_contains",
    "grpc",
    "timeout",
    "slow_threshold",
    "rise",
    "fall",
    "ramp_up",
    "slow_weight",
];

/// Longest path of a health check, in bytes.
const MAX_PATH_BYTES: usize = 2048;

/// Health checks of a pool, and where the file sets `slow_threshold` (or else the table; empty without one).
/// `check_every` is the default of the whole file, `backends` are those of the pool.
pub(super) fn read(
    pool: &Section<'_>,
    check_every: Duration,
    backends: &[Backend],
    report: &mut Report<'_>,
) -> (Health, Span) {
    let default = Health { check_every, ..Health::default() };
    let Some(s) = pool.get("health_config").and_then(|v| Section::new(v, "`health_config`", KEYS, report))
    else {
        return (default, 0..0);
    };
    let path = s.get("path").and_then(|value| path(value, report));
    let timeout = s.duration("timeout", Unit::Milliseconds, default.timeout, report);
    if timeout < Duration::from_millis(1)
        && let Some(value) = s.get("timeout")
    {
        report.error(value.span(), "`timeout` of a health check must be at least 1 ms").help =
            Some("`check_every = 0` turns checks off".into());
    }
    for key in ["timeout", "slow_threshold"] {
        few_milliseconds(&s, key, report);
    }
    let slow_weight = s.get("slow_weight").and_then(|value| permille(value, report));
    let method = request::method(&s, report);
    let health = Health {
        check_every: s.duration("check_every", Unit::Seconds, default.check_every, report),
        path: path.unwrap_or(default.path),
        method,
        host: s.get("host").and_then(|value| request::host(value, report)),
        port: request::port(&s, backends, report),
        headers: s.get("headers").map(|value| request::headers(value, report)).unwrap_or_default(),
        expect: s.get("expect").and_then(|value| expected::statuses(value, report)).unwrap_or(default.expect),
        body_contains: expected::body_contains(&s, method, report),
        grpc: grpc::service(&s, backends, report),
        timeout,
        slow_threshold: s.timeout("slow_threshold", Unit::Milliseconds, default.slow_threshold, report),
        rise: s.integer_u32("rise", 1..=1000, default.rise, report),
        fall: s.integer_u32("fall", 1..=1000, default.fall, report),
        ramp_up: s.duration("ramp_up", Unit::Seconds, default.ramp_up, report),
        slow_weight_permille: slow_weight.unwrap_or(default.slow_weight_permille),
    };
    (health, s.value_span("slow_threshold"))
}

/// Warns of a number without a unit that was probably meant in seconds.
fn few_milliseconds(s: &Section<'_>, key: &str, report: &mut Report<'_>) {
    let Some(value) = s.get(key) else { return };
    let number = match value.get_ref() {
        DeValue::Integer(n) => n.as_str().parse::<f64>().ok(),
        DeValue::Float(f) => f.as_str().parse::<f64>().ok(),
        _ => None,
    };
    if let Some(n) = number.filter(|&n| n > 0.0 && n < 10.0) {
        let message = format!("`{key} = {n}` is {n} ms: a number without a unit counts milliseconds here");
        report.warning(value.span(), message).write(format!("\"{n}s\""));
    }
}

/// The target of a health check in origin form.
fn path(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let path = reader::string(value, "`path`", report)?;
    let visible = |b: u8| (0x21..=0x7e).contains(&b) && b != b'#';
    if path.starts_with('/') && path.bytes().all(visible) && path.len() <= MAX_PATH_BYTES {
        return Some(path.into());
    }
    let meant = meant_path(path);
    let error = report.error(value.span(), format!("\"{}\" is not the path of a request", clip(path)));
    if suggest::is_variable(path) {
        error.help = Some(suggest::VARIABLES.into());
    } else if meant.len() <= MAX_PATH_BYTES {
        error.write(quote(&meant));
    }
    None
}

/// The path that a text which is none was probably meant to be: of a URL or a request line, and with escapes.
fn meant_path(text: &str) -> String {
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    let is_method = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase());
    let text = text.split_once(' ').filter(|(word, _)| is_method(word)).map_or(text, |(_, rest)| rest);
    let mut path = String::from(if text.starts_with('/') { "" } else { "/" });
    for byte in text.split('#').next().unwrap_or_default().bytes() {
        match byte {
            0x21..=0x7e => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

/// A number above 0 and up to 1, in thousandths.
fn permille(value: &Value<'_>, report: &mut Report<'_>) -> Option<u32> {
    let number = match value.get_ref() {
        DeValue::Float(f) => f.as_str().parse::<f64>().ok(),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n as f64),
        _ => {
            report.mistyped(value, "`slow_weight`", "a number");
            return None;
        }
    };
    // `as` saturates, and NaN becomes 0.
    let found = number.map(|n| (n * 1000.0).round() as i64).filter(|n| (1..=1000).contains(n));
    if found.is_none() {
        let error = report.error(value.span(), "`slow_weight` must be from 0.001 to 1");
        // It may have been meant in per cent.
        if let Some(percent) = number.filter(|n| (5.0..100.0).contains(n)) {
            error.write(format!("{}", (percent * 10.0).round() / 1000.0));
        }
    }
    found.and_then(|n| u32::try_from(n).ok())
}
