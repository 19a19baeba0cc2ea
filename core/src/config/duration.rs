//! Durations: a number of the key's own unit, or a string with its unit.

use std::time::Duration;

use toml::de::DeValue;

use super::reader::{Report, Value};
use super::suggest;

/// What a bare number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

/// Longer than anything sensible and far from any overflow.
const MAX_SECS: u64 = 366 * 24 * 3600;

/// Reads one; at most 366 days.
pub(super) fn read(value: &Value<'_>, what: &str, unit: Unit, report: &mut Report<'_>) -> Option<Duration> {
    let unit_ns: u128 = match unit {
        Unit::Seconds => 1_000_000_000,
        Unit::Milliseconds => 1_000_000,
    };
    let found = match value.get_ref() {
        DeValue::Integer(n) => i128::from_str_radix(n.as_str(), n.radix())
            .ok()
            .and_then(|n| u128::try_from(n).ok()?.checked_mul(unit_ns)),
        DeValue::Float(f) => scaled(f.as_str(), unit_ns),
        DeValue::String(text) => match text.trim().find(|c: char| c.is_ascii_alphabetic()) {
            Some(at) => {
                let (number, name) = text.trim().split_at(at);
                let unit_ns = match name {
                    "us" => 1_000,
                    "ms" => 1_000_000,
                    "s" => 1_000_000_000,
                    "m" => 60_000_000_000,
                    "h" => 3_600_000_000_000,
                    "d" => 86_400_000_000_000,
                    _ => {
                        let message = format!("unknown unit \"{}\" of {what}", suggest::clip(name));
                        *report.error(value.span(), message) = Some("units are ms, s, m, h and d".into());
                        return None;
                    }
                };
                scaled(number.trim_end(), unit_ns)
            }
            None => {
                let message = format!("\"{}\" is not a duration for {what}", suggest::clip(text));
                *report.error(value.span(), message) =
                    Some("write a number, or a string with a unit like \"500ms\", \"10s\", \"1h\"".into());
                return None;
            }
        },
        _ => {
            report.mistyped(value, what, "a duration");
            return None;
        }
    };
    let duration = found
        .and_then(|ns| u64::try_from(ns).ok())
        .map(Duration::from_nanos)
        .filter(|d| d.as_secs() <= MAX_SECS);
    if duration.is_none() {
        report.error(value.span(), format!("{what} must be a duration from 0 to 366 days"));
    }
    duration
}

/// A decimal number times `unit_ns`; `None` unless it is finite and not negative.
fn scaled(number: &str, unit_ns: u128) -> Option<u128> {
    if let Ok(n) = number.parse::<u64>() {
        return u128::from(n).checked_mul(unit_ns);
    }
    let number: f64 = number.parse().ok()?;
    // To the nearest nanosecond; `as` saturates and the caller bounds it.
    (number.is_finite() && !number.is_sign_negative()).then_some((number * unit_ns as f64).round() as u128)
}
