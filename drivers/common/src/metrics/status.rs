//! `/status`: what there is and how it is, as JSON.

use ruststrom_core::observe::HealthState;
use ruststrom_core::{Instant, Wall};
use serde_json::{Value, json};

use super::counted::{Failure, Names};
use super::facts::{BackendFacts, Facts, PoolFacts};
use crate::line::Timestamp;

/// The page.
#[must_use]
pub fn json(facts: &Facts) -> String {
    let page = json!({
        "version": facts.version,
        "state": facts.readiness,
        "time": time(facts.now.1),
        "config": {
            "generation": facts.loading.generation,
            "loaded": time(facts.loading.at),
            "last_reload_succeeded": facts.loading.last_succeeded,
            "reloads": { "success": facts.loading.succeeded, "failure": facts.loading.failed },
        },
        "workers": { "count": facts.workers, "unresponsive": facts.unresponsive },
        "connections": {
            "clients": facts.counts.clients - facts.counts.admin_clients,
            "admin": facts.counts.admin_clients,
            "backends_busy": facts.counts.backends_busy,
            "backends_idle": facts.counts.backends_idle,
        },
        "pools": facts.pools.iter().map(|pool| of_pool(facts, pool)).collect::<Vec<_>>(),
        "certificates": facts.certificates.iter().map(|(name, end)| {
            let end = end.and_then(|end| u64::try_from(end).ok());
            json!({ "name": name, "expires": end.map(|unix_secs| time(Wall { unix_secs, millis: 0 })) })
        }).collect::<Vec<_>>(),
    });
    format!("{page:#}\n")
}

fn of_pool(facts: &Facts, pool: &PoolFacts) -> Value {
    let in_flight: u64 = pool.backends.iter().map(|backend| u64::from(backend.in_flight)).sum();
    json!({
        "name": pool.name,
        "in_flight": in_flight,
        "queue": pool.waiting,
        "backends": pool.backends.iter().map(|backend| of_backend(facts, pool, backend)).collect::<Vec<_>>(),
    })
}

fn of_backend(facts: &Facts, pool: &PoolFacts, backend: &BackendFacts) -> Value {
    let names = Names { pool: pool.name.clone(), backend: backend.label.clone() };
    let failure = facts.totals.get(&names).and_then(|series| series.failure.as_ref());
    json!({
        "address": backend.label,
        "scheme": backend.scheme,
        "state": match backend.state {
            HealthState::Unknown if pool.checked => "unknown",
            // Nobody looks: it is used like a healthy one.
            HealthState::Unknown => "unchecked",
            state => state.name(),
        },
        "in_flight": backend.in_flight,
        "weight": backend.weight,
        "backup": backend.backup,
        "last_failure": failure.map(|failure| of_failure(facts, failure)),
    })
}

fn of_failure(facts: &Facts, failure: &Failure) -> Value {
    json!({
        "time": time(wall_at(failure.at, facts.now)),
        "reason": failure.reason,
        "seen": failure.seen,
    })
}

/// What the wall clock showed then, if nobody has set it since.
fn wall_at(at: Instant, (now, wall): (Instant, Wall)) -> Wall {
    let ms = (wall.unix_secs * 1000 + u64::from(wall.millis)).saturating_sub(now.nanos_since(at) / 1_000_000);
    Wall { unix_secs: ms / 1000, millis: (ms % 1000) as u16 }
}

/// `2026-11-27T01:20:00.000Z`
fn time(wall: Wall) -> String {
    String::from_utf8_lossy(Timestamp::default().at(wall)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_told_by_the_wall_clock() {
        let now = (Instant::from_millis(10_000), Wall { unix_secs: 1_795_000_000, millis: 250 });
        for (at_ms, expected) in [
            (10_000, "2026-11-18T11:06:40.250Z"),
            (9_750, "2026-11-18T11:06:40.000Z"),
            (9_700, "2026-11-18T11:06:39.950Z"),
            // Of another shard, whose turn has begun later.
            (10_500, "2026-11-18T11:06:40.250Z"),
        ] {
            assert_eq!(time(wall_at(Instant::from_millis(at_ms), now)), expected);
        }
    }
}
