//! The message for each change of a backend's health: who noticed it, what was seen, and what is left of the
//! pool. As JSON the same stands in fields of their own.

use ruststrom_core::observe::{HealthChange, HealthState, Usable};

/// Logs a change.
pub fn log_change(c: &HealthChange<'_>) {
    let level = match c.to {
        HealthState::Unhealthy => log::Level::Error,
        HealthState::Slow => log::Level::Warn,
        HealthState::Healthy | HealthState::Unknown => log::Level::Info,
    };
    let left = Left::of(c.left);
    log::log!(
        target: "health",
        level,
        pool = c.pool,
        backend = c.backend,
        scheme = c.scheme,
        state = c.to.name(),
        source = c.source.name(),
        reason = c.reason,
        seen = c.seen,
        usable = left.usable,
        total = left.total,
        pool_state = left.state;
        "{}", message(c)
    );
}

/// What is left of a pool.
struct Left {
    usable: u16,
    total: u16,
    /// What is counted.
    what: &'static str,
    state: &'static str,
    /// The state as the message says it.
    remark: &'static str,
}

impl Left {
    fn of(u: Usable) -> Self {
        let (usable, total, what) = match u.main_total {
            0 => (u.backup, u.backup_total, "backups"),
            _ => (u.main, u.main_total, "backends"),
        };
        let (state, remark) = match (u.main, u.backup) {
            (0, 0) => ("empty", ", pool empty"),
            (0, _) => ("backup_in_use", ", backup in use"),
            _ => ("usable", ""),
        };
        Self { usable, total, what, state, remark }
    }
}

/// "pool web: backend 10.0.0.1:80 is unhealthy (check: HTTP 500), 0 of 2 backends usable, pool empty". The
/// scheme stands before the address as in the file, unless it is `http`.
fn message(c: &HealthChange<'_>) -> String {
    let Left { usable, total, what, remark, .. } = Left::of(c.left);
    let state = if c.to == HealthState::Unknown { "not checked yet" } else { c.to.name() };
    let (pool, backend, source, seen) = (c.pool, c.backend, c.source.name(), c.seen);
    let (scheme, colon) = if c.scheme == "http" { ("", "") } else { (c.scheme, "://") };
    format!(
        "pool {pool}: backend {scheme}{colon}{backend} is {state} ({source}: {seen}), \
         {usable} of {total} {what} usable{remark}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruststrom_core::observe::HealthSource;

    #[test]
    fn messages() {
        use HealthSource::{Check, Traffic};
        use HealthState::{Healthy, Slow, Unhealthy};
        let left = |main, main_total, backup, backup_total| Usable { main, main_total, backup, backup_total };
        let table = [
            (
                (Unhealthy, Check, "HTTP 500", left(1, 2, 0, 0)),
                "pool web: backend b:80 is unhealthy (check: HTTP 500), 1 of 2 backends usable",
            ),
            (
                (Unhealthy, Check, "no answer in 500 ms", left(0, 2, 1, 1)),
                "pool web: backend b:80 is unhealthy (check: no answer in 500 ms), 0 of 2 backends usable, backup in use",
            ),
            (
                (Unhealthy, Traffic, "connect_refused", left(0, 2, 0, 1)),
                "pool web: backend b:80 is unhealthy (traffic: connect_refused), 0 of 2 backends usable, pool empty",
            ),
            (
                (Slow, Check, "HTTP 200 after 400 ms", left(2, 2, 0, 0)),
                "pool web: backend b:80 is slow (check: HTTP 200 after 400 ms), 2 of 2 backends usable",
            ),
            (
                (Healthy, Check, "HTTP 200 after 1 ms", left(0, 0, 1, 2)),
                "pool web: backend b:80 is healthy (check: HTTP 200 after 1 ms), 1 of 2 backups usable, backup in use",
            ),
        ];
        for ((to, source, seen, left), expected) in table {
            for (scheme, backend) in [("http", "b:80"), ("https", "https://b:80"), ("h2c", "h2c://b:80")] {
                let change = HealthChange {
                    pool: "web",
                    backend: "b:80",
                    scheme,
                    from: HealthState::Unknown,
                    to,
                    source,
                    reason: "a_word",
                    seen,
                    left,
                };
                assert_eq!(message(&change), expected.replace("b:80", backend));
            }
        }
    }
}
