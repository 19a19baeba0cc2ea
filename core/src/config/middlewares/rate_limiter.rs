//! `RateLimiter`: how many requests of a client in which time.

use std::time::Duration;

use super::super::middleware_settings::Middleware;
use super::super::reader::{self, Section};
use super::super::report::{Report, Value};

/// Longest window, about a month. Memory doesn't depend on it, but more is a mistake.
const MAX_WINDOW_SECS: u64 = 31 * 24 * 3600;

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::new(value, "`RateLimiter`", &["limit", "window_sec"], report)?;
    let limit = section
        .required("limit", "100", report)
        .and_then(|value| reader::integer(value, "`limit`", 1..=u64::from(u32::MAX), report));
    let window = section
        .required("window_sec", "60", report)
        .and_then(|value| reader::integer(value, "`window_sec`", 1..=MAX_WINDOW_SECS, report));
    Some(Middleware::RateLimiter { limit: u32::try_from(limit?).ok()?, window: Duration::from_secs(window?) })
}
