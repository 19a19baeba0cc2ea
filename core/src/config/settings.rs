//! `[timeouts]` and `[limits]`: of the file, where they hold for everything, or of a pool, where some of them
//! can be overridden. And `[http2]`, which only the file has.

use std::time::Duration;

use super::duration::{self, Unit};
use super::http2::Http2;
use super::model::{Limits, Timeouts};
use super::reader::Section;
use super::report::Report;

/// Whose settings are read: a pool can't override what has happened before a pool is chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    File,
    Pool,
}

/// Opens the table `key`. Its known keys are `all`, of which a pool may have those `in_pool`.
fn table<'d>(
    section: &Section<'d>,
    key: &'static str,
    what: &'static str,
    (all, in_pool): (&[&'static str], &[&str]),
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
                report.error(name.span(), message).help = Some(format!("set it in [{key}] of the file"));
            }
        }
    }
    Some(s)
}

const TIMEOUT_KEYS: &[&str] = &[
    "head",
    "idle",
    "connect",
    "backend_head",
    "stall",
    "tunnel",
    "client_fin",
    "queue",
    "handshake",
    "drain",
    "shutdown_delay",
];
const POOL_TIMEOUT_KEYS: &[&str] = &["connect", "backend_head", "stall", "tunnel", "queue"];

/// Reads `[timeouts]`; an absent key keeps its value of `default`.
pub(super) fn timeouts(
    section: &Section<'_>,
    scope: Scope,
    default: Timeouts,
    report: &mut Report<'_>,
) -> Timeouts {
    let keys = (TIMEOUT_KEYS, POOL_TIMEOUT_KEYS);
    let Some(s) = table(section, "timeouts", "`timeouts`", keys, scope, report) else { return default };
    // A tunnel may well be idle for hours.
    for key in TIMEOUT_KEYS.iter().filter(|&&key| key != "tunnel") {
        many_seconds(&s, key, report);
    }
    let mut get = |key: &str, default| s.timeout(key, Unit::Seconds, default, report);
    Timeouts {
        head: get("head", default.head),
        idle: get("idle", default.idle),
        connect: get("connect", default.connect),
        backend_head: get("backend_head", default.backend_head),
        stall: get("stall", default.stall),
        tunnel: get("tunnel", default.tunnel),
        client_fin: get("client_fin", default.client_fin),
        queue: get("queue", default.queue),
        handshake: get("handshake", default.handshake),
        drain: get("drain", default.drain),
        shutdown_delay: s.duration("shutdown_delay", Unit::Seconds, default.shutdown_delay, report),
    }
}

/// Warns of a number without a unit that was probably meant in milliseconds, as in HAProxy's files.
fn many_seconds(s: &Section<'_>, key: &str, report: &mut Report<'_>) {
    let number =
        s.get(key).and_then(|v| Some((v.get_ref().as_integer()?.as_str().parse::<u64>().ok()?, v.span())));
    if let Some((n, span)) = number.filter(|(n, _)| (1000..=duration::MAX_SECS).contains(n)) {
        let message = format!("`{key} = {n}` is {n} s: a number without a unit counts seconds here");
        report.warning(span, message).write(format!("\"{n}ms\""));
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
/// A pool may limit the heads of its backends' responses.
const POOL_LIMIT_KEYS: &[&str] = &["head_bytes", "fields", "queue", "min_upload_rate", "min_download_rate"];

/// Reads `[limits]`; an absent key keeps its value of `default`.
pub(super) fn limits(
    section: &Section<'_>,
    scope: Scope,
    default: Limits,
    report: &mut Report<'_>,
) -> Limits {
    let keys = (LIMIT_KEYS, POOL_LIMIT_KEYS);
    let Some(s) = table(section, "limits", "`limits`", keys, scope, report) else { return default };
    let mut get = |key: &str, bounds, default| s.integer_u32(key, bounds, default, report);
    let any = 0..=u32::MAX;
    Limits {
        head_bytes: get("head_bytes", 1024..=65_536, default.head_bytes),
        fields: get("fields", 8..=256, default.fields),
        target_bytes: get("target_bytes", 64..=16_000, default.target_bytes),
        connections: get("connections", 1..=10_000_000, default.connections),
        connections_per_ip: get("connections_per_ip", any.clone(), default.connections_per_ip),
        queue: get("queue", 0..=1_000_000, default.queue),
        requests_per_connection: get("requests_per_connection", any.clone(), default.requests_per_connection),
        min_upload_rate: get("min_upload_rate", any.clone(), default.min_upload_rate),
        min_download_rate: get("min_download_rate", any, default.min_download_rate),
        buffer_bytes: s.integer("buffer_bytes", 1 << 20..=1 << 40, default.buffer_bytes, report),
    }
}

const HTTP2_KEYS: &[&str] = &[
    "enabled",
    "extended_connect",
    "initial_window",
    "connection_window",
    "max_concurrent_streams",
    "max_frame_size",
    "header_table_size",
    "backend_window",
    "keepalive",
    "backend_keepalive",
];

/// Reads `[http2]`; an absent key has its default.
pub(super) fn http2(file: &Section<'_>, report: &mut Report<'_>) -> Http2 {
    let default = Http2::default();
    let Some(s) = file.get("http2").and_then(|value| {
        if let Some(on) = value.get_ref().as_bool() {
            report.mistyped(value, "`http2`", "a table").write(format!("{{ enabled = {on} }}"));
            return None;
        }
        Section::new(value, "`http2`", HTTP2_KEYS, report)
    }) else {
        return default;
    };
    let mut get = |key: &str, bounds, default| s.integer_u32(key, bounds, default, report);
    let initial_window = get("initial_window", Http2::INITIAL_WINDOW, default.initial_window);
    let connection_window = get("connection_window", Http2::CONNECTION_WINDOW, default.connection_window);
    let max_concurrent_streams =
        get("max_concurrent_streams", Http2::STREAMS, default.max_concurrent_streams);
    let max_frame_size = get("max_frame_size", Http2::FRAME_SIZE, default.max_frame_size);
    let table = 0..=Http2::MAX_HEADER_TABLE;
    let header_table_size = get("header_table_size", table, default.header_table_size);
    let backend_window = get("backend_window", Http2::INITIAL_WINDOW, default.backend_window);
    if initial_window > connection_window && s.get("initial_window").is_some() {
        let message =
            format!("no stream can use more than `connection_window`, which is {connection_window}");
        report.warning(s.value_span("initial_window"), message).write(connection_window.to_string());
    }
    Http2 {
        enabled: s.boolean("enabled", default.enabled, report),
        extended_connect: s.boolean("extended_connect", default.extended_connect, report),
        initial_window,
        connection_window,
        max_concurrent_streams,
        max_frame_size,
        header_table_size,
        backend_window,
        keepalive: keepalive(&s, "keepalive", default.keepalive, report),
        backend_keepalive: keepalive(&s, "backend_keepalive", default.backend_keepalive, report),
    }
}

/// Nobody owes an answer more often.
const LEAST_KEEPALIVE: Duration = Duration::from_secs(1);

/// The silence before a PING.
fn keepalive(s: &Section<'_>, key: &'static str, default: Duration, report: &mut Report<'_>) -> Duration {
    many_seconds(s, key, report);
    let found = s.timeout(key, Unit::Seconds, default, report);
    if found >= LEAST_KEEPALIVE {
        return found;
    }
    let message = format!("`{key}` must be at least 1 s, or 0");
    report.error(s.value_span(key), message).help = Some("0 turns it off".into());
    default
}
