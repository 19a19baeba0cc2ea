//! Everything that a page says, at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use ruststrom_core::config::{self, Config, Middleware};
use ruststrom_core::observe::HealthState;
use ruststrom_core::proxy::Counts;
use ruststrom_core::{Instant, Shared, Wall};

use super::counted::Totals;
use super::process::Process;
use crate::mailbox::WorkerReport;

/// What a page is made of.
#[derive(Debug)]
pub struct Facts {
    /// Of the program.
    pub version: &'static str,
    /// The moment, by both clocks.
    pub now: (Instant, Wall),
    /// What was counted under the names that are shown.
    pub totals: Totals,
    /// The pools of the configuration, in its order.
    pub pools: Vec<PoolFacts>,
    /// What all workers have.
    pub counts: Counts,
    /// How many workers there are.
    pub workers: usize,
    /// How many of them did not respond.
    pub unresponsive: usize,
    /// What became of the configuration.
    pub loading: Loading,
    /// The name of each certificate, and its end in seconds since 1970; `None`: it is not there yet.
    pub certificates: Vec<(Box<str>, Option<i64>)>,
    /// Lines of all logs that were dropped.
    pub dropped_lines: u64,
    /// What the kernel says of the process.
    pub process: Option<Process>,
    /// `starting`, `ready` or `leaving`.
    pub readiness: &'static str,
}

/// What became of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loading {
    /// The first configuration is 1.
    pub generation: u64,
    /// When it was taken into use.
    pub at: Wall,
    /// Reloads that have succeeded.
    pub succeeded: u64,
    /// Reloads that have failed.
    pub failed: u64,
    /// Whether the last reload has succeeded; true before the first one.
    pub last_succeeded: bool,
}

/// What is known of a pool.
#[derive(Debug)]
pub struct PoolFacts {
    /// Its name.
    pub name: Box<str>,
    /// Its backends are checked.
    pub checked: bool,
    /// Requests are limited.
    pub limits_rates: bool,
    /// Credentials are asked for.
    pub asks_credentials: bool,
    /// The codings that responses may be compressed by.
    pub codings: Vec<&'static str>,
    /// Exchanges that wait for a backend.
    pub waiting: u64,
    /// Its backends, in the order of the configuration.
    pub backends: Vec<BackendFacts>,
}

/// What is known of a backend.
#[derive(Debug)]
pub struct BackendFacts {
    /// Its label.
    pub label: Box<str>,
    /// The scheme of its address: `http`, `https` or `h2c`.
    pub scheme: &'static str,
    /// As configured.
    pub weight: u32,
    /// As configured.
    pub backup: bool,
    /// Its health.
    pub state: HealthState,
    /// Exchanges in flight.
    pub in_flight: u32,
}

/// What is known of each pool of a configuration, whose exchanges wait as workers have reported.
#[must_use]
pub fn pools(config: &Config, shared: &Shared, reports: &[Option<WorkerReport>]) -> Vec<PoolFacts> {
    let mut waiting: BTreeMap<&str, u64> = BTreeMap::new();
    for (pool, exchanges) in reports.iter().flatten().flat_map(|report| &report.queues) {
        *waiting.entry(pool).or_default() += u64::from(*exchanges);
    }
    let states = shared.pools();
    let states: BTreeMap<&str, _> = states.iter().map(|state| (state.name(), state)).collect();
    let pool_facts = |pool: &Arc<config::Pool>| {
        let state = states.get(&*pool.name);
        let known = state.map(|state| state.backends()).unwrap_or_default();
        // Nearly always they are at the same places.
        let known = |place: usize, label: &str| {
            let same = known.get(place).filter(|known| known.label() == label);
            same.or_else(|| known.iter().find(|known| known.label() == label))
        };
        let backends = pool.backends.iter().enumerate().map(|(place, backend)| {
            let known = known(place, &backend.label);
            BackendFacts {
                label: backend.label.clone(),
                scheme: backend.protocol.scheme(),
                weight: backend.weight,
                backup: backend.backup,
                state: known.map_or(HealthState::Unknown, |known| known.health().state()),
                in_flight: known.map_or(0, |known| known.in_flight()),
            }
        });
        let mut facts = PoolFacts {
            name: pool.name.clone(),
            checked: !pool.health.check_every.is_zero(),
            limits_rates: false,
            asks_credentials: false,
            codings: Vec::new(),
            waiting: waiting.get(&*pool.name).copied().unwrap_or_default(),
            backends: backends.collect(),
        };
        for middleware in &pool.middlewares {
            match middleware {
                Middleware::RateLimiter { .. } => facts.limits_rates = true,
                Middleware::Authentication(_) | Middleware::BasicAuth { .. } => facts.asks_credentials = true,
                Middleware::Compression(settings) => {
                    facts.codings.extend(settings.algorithms.iter().map(|coding| coding.name()));
                }
                _ => {}
            }
        }
        facts.codings.sort_unstable();
        facts.codings.dedup();
        facts
    };
    config.pools.iter().map(pool_facts).collect()
}

/// What all workers have, as they have reported.
#[must_use]
pub fn counts(reports: &[Option<WorkerReport>]) -> Counts {
    let mut all = Counts::default();
    for Counts { clients, admin_clients, backends_busy, backends_idle, exchanges, .. } in
        reports.iter().flatten().map(|report| report.counts)
    {
        all.clients += clients;
        all.admin_clients += admin_clients;
        all.backends_busy += backends_busy;
        all.backends_idle += backends_idle;
        all.exchanges += exchanges;
    }
    all
}

/// The names that series of this configuration have.
pub fn names(config: &Config) -> impl Iterator<Item = Arc<super::counted::Names>> + '_ {
    let name = |pool: &str, backend: &str| {
        Arc::new(super::counted::Names { pool: pool.into(), backend: backend.into() })
    };
    let of_pool = move |pool: &'_ Arc<config::Pool>| {
        let backends = pool.backends.iter().map(|backend| name(&pool.name, &backend.label));
        std::iter::once(name(&pool.name, "")).chain(backends).collect::<Vec<_>>()
    };
    std::iter::once(name("", "")).chain(config.pools.iter().flat_map(of_pool))
}
