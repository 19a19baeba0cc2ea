//! Durations: a number that counts the key's own unit, or a string with a unit such as `"500ms"`.

use std::fmt;
use std::time::Duration;

use toml::de::DeValue;

use super::diagnostic::clip;
use super::report::{Report, Value};

/// What a number without a unit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

impl Unit {
    fn nanoseconds(self) -> u128 {
        match self {
            Self::Seconds => 1_000_000_000,
            Self::Milliseconds => 1_000_000,
        }
    }
}

/// The longest duration, 366 days: more than anyone needs and far from any overflow.
pub(super) const MAX_SECS: u64 = 366 * 24 * 3600;

/// Reads a duration of 0 to 366 days; `what` is its key as messages name it.
pub(super) fn read(value: &Value<'_>, what: &str, unit: Unit, report: &mut Report<'_>) -> Option<Duration> {
    let nanoseconds = match value.get_ref() {
        DeValue::Integer(n) => i128::from_str_radix(n.as_str(), n.radix())
            .ok()
            .and_then(|n| u128::try_from(n).ok()?.checked_mul(unit.nanoseconds())),
        DeValue::Float(f) => scaled(f.as_str(), unit.nanoseconds()),
        DeValue::String(text) => match with_unit(text) {
            Ok(nanoseconds) => nanoseconds,
            Err(error) => {
                let reported = report.error(value.span(), format!("{error} {what}"));
                match meant(text, unit) {
                    Some(meant) => reported.write(format!("\"{meant}\"")),
                    None => {
                        reported.help = Some(error.help().into());
                        reported
                    }
                };
                return None;
            }
        },
        _ => {
            report.mistyped(value, what, "a duration");
            return None;
        }
    };
    let duration = nanoseconds
        .and_then(|ns| u64::try_from(ns).ok())
        .map(Duration::from_nanos)
        .filter(|d| d.as_secs() <= MAX_SECS);
    if duration.is_none() {
        report.error(value.span(), format!("{what} must be a duration from 0 to 366 days"));
    }
    duration
}

/// Why a string is no duration. What it prints is followed by the name of the key.
#[derive(Debug)]
enum DurationError<'t> {
    /// The whole string.
    NoUnit(&'t str),
    /// The unit.
    UnknownUnit(&'t str),
}

impl DurationError<'_> {
    fn help(&self) -> &'static str {
        match self {
            Self::NoUnit(_) => "it is a number, or a string with a unit like \"500ms\", \"10s\", \"1h\"",
            Self::UnknownUnit(_) => "units are ms, s, m, h and d",
        }
    }
}

impl fmt::Display for DurationError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUnit(text) => write!(f, "\"{}\" is not a duration for", clip(text)),
            Self::UnknownUnit(name) => write!(f, "unknown unit \"{}\" of", clip(name)),
        }
    }
}

impl std::error::Error for DurationError<'_> {}

/// The duration that a string was probably meant to be: a number without a unit, with another name of its
/// unit, or several like `1m30s`.
fn meant(text: &str, unit: Unit) -> Option<String> {
    let text = text.trim();
    if text.parse::<u32>().is_ok() {
        return Some(format!("{text}{}", if unit == Unit::Seconds { "s" } else { "ms" }));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(at);
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let name = match after[..end].to_lowercase().as_str() {
            "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => "ms",
            "s" | "sec" | "secs" | "second" | "seconds" => "s",
            "m" | "min" | "mins" | "minute" | "minutes" => "m",
            "h" | "hr" | "hour" | "hours" => "h",
            "d" | "day" | "days" => "d",
            _ => return None,
        };
        parts.push((number.parse::<u32>().ok()?, name));
        rest = after[end..].trim_start();
    }
    let found = match parts.as_slice() {
        [(number, name)] => format!("{number}{name}"),
        several => {
            let all = several.iter().map(|(n, name)| with_unit(&format!("{n}{name}")).ok().flatten());
            let total = all.sum::<Option<u128>>()?;
            let seconds = total / 1_000_000_000;
            if total % 1_000_000_000 == 0 {
                format!("{seconds}s")
            } else {
                format!("{}ms", total / 1_000_000)
            }
        }
    };
    with_unit(&found).ok().flatten().filter(|ns| ns / 1_000_000_000 <= u128::from(MAX_SECS)).map(|_| found)
}

/// Nanoseconds of a number with a unit; `None` if the number is no number or out of range.
fn with_unit(text: &str) -> Result<Option<u128>, DurationError<'_>> {
    let trimmed = text.trim();
    let at = trimmed.find(|c: char| c.is_ascii_alphabetic()).ok_or(DurationError::NoUnit(text))?;
    let (number, name) = trimmed.split_at(at);
    let unit_ns = match name {
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return Err(DurationError::UnknownUnit(name)),
    };
    Ok(scaled(number.trim_end(), unit_ns))
}

/// A decimal number times `unit_ns`; `None` unless it is finite and not negative.
fn scaled(number: &str, unit_ns: u128) -> Option<u128> {
    if let Ok(n) = number.parse::<u64>() {
        return u128::from(n).checked_mul(unit_ns);
    }
    let number: f64 = number.parse().ok()?;
    // To the nearest nanosecond; `as` saturates, and the caller checks the range.
    (number.is_finite() && !number.is_sign_negative()).then_some((number * unit_ns as f64).round() as u128)
}
