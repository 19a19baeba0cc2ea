//! The names of keys that more than one reader needs: besides checking a table's own keys, an unknown key is
//! compared with these, because it may only stand in the wrong table.

/// Keys of the top of the file.
pub(super) const FILE: &[&str] = &[
    "http_address",
    "https_address",
    "metrics_address",
    "prometheus_metrics_address",
    "health_interval",
    "listeners",
    "backend_pools",
    "middlewares",
    "certificates",
    "timeouts",
    "limits",
    "http2",
    "trusted_proxies",
    "workers",
    "via",
    "driver",
    "user",
    "group",
    "access_log",
    "watch",
];

/// Keys of `[[backend_pools]]`.
pub(super) const POOL: &[&str] = &[
    "name",
    "listeners",
    "matcher",
    "addresses",
    "schemes",
    "strategy",
    "health_config",
    "client",
    "tls",
    "timeouts",
    "limits",
    "retries",
    "retries_on_timeout",
    "lenient",
    "middlewares",
];

/// Keys of a certificate that stand beside `Local`, `ACME` or `type`.
pub(super) const CERTIFICATE: &[&str] = &["default", "client_ca", "client_auth"];

/// Keys of the file whose values are lists of tables, written `[[key]]`.
pub(super) const LISTS: &[&str] = &["backend_pools", "listeners"];
