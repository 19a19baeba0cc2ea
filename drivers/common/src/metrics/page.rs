//! The page of metrics, as OpenMetrics 1.0.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use ruststrom_core::observe::HealthState;

use super::counted::{Event, Names, Series};
use super::facts::{BackendFacts, Facts, PoolFacts};
use super::histogram::{EDGES_NS, Histogram};

/// Statuses that are shown for a backend before there are any, so that a first failure is seen as a change.
const OF_BACKENDS: &[u16] = &[200, 500, 502, 503, 504];
/// The same for what a pool replies without a backend.
const OF_POOLS: &[u16] = &[503];
/// The same for requests without a pool.
const OF_NO_POOL: &[u16] = &[400, 404];

/// The page.
///
/// # Panics
/// Never: a text takes whatever is written to it.
#[must_use]
pub fn open_metrics(facts: &Arc<Facts>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Samples(facts.clone())));
    let mut page = String::with_capacity(64 << 10);
    text::encode(&mut page, &registry).expect("a text takes everything");
    page
}

/// Every sample of the page.
#[derive(Debug)]
struct Samples(Arc<Facts>);

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let facts = &*self.0;
        requests(facts, &mut encoder)?;
        health(facts, &mut encoder)?;
        middlewares(facts, &mut encoder)?;
        pools(facts, &mut encoder)?;
        connections(facts, &mut encoder)?;
        configuration(facts, &mut encoder)?;
        process(facts, &mut encoder)
    }
}

fn counters<L: EncodeLabelSet, N: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    samples: impl IntoIterator<Item = (L, N)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
    }
    Ok(())
}

fn gauges<L: EncodeLabelSet, N: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    samples: impl IntoIterator<Item = (L, N)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn histograms<'f, L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    samples: impl IntoIterator<Item = (L, &'f Histogram)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    let edges = EDGES_NS.iter().map(|ns| *ns as f64 / 1e9).chain([f64::INFINITY]);
    let edges: Vec<f64> = edges.collect();
    for (labels, histogram) in samples {
        let buckets: Vec<_> = edges.iter().copied().zip(histogram.buckets().iter().copied()).collect();
        let mut metric = metric.encode_family(&labels)?;
        metric.encode_histogram::<NoLabelSet>(histogram.sum_secs(), histogram.count(), &buckets, None)?;
    }
    Ok(())
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    value: impl EncodeCounterValue,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn of_backend(names: &Names) -> [(&str, &str); 2] {
    [("pool", &names.pool), ("backend", &names.backend)]
}

/// The pool and backend of each, and what is known of them.
fn backends(facts: &Facts) -> impl Iterator<Item = (&PoolFacts, &BackendFacts)> {
    facts.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
}

/// The sum of what the series of each pool say. Series are sorted by their pools.
fn by_pool(facts: &Facts, of: impl Fn(&Series) -> u64) -> Vec<(&str, u64)> {
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for (names, series) in &facts.totals {
        match sums.last_mut() {
            Some((pool, sum)) if **pool == *names.pool => *sum += of(series),
            _ => sums.push((&names.pool, of(series))),
        }
    }
    sums
}

fn requests(facts: &Facts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let statuses = |names: &Names, series: &Series| {
        let shown = match (&*names.pool, &*names.backend) {
            ("", _) => OF_NO_POOL,
            (_, "") => OF_POOLS,
            _ => OF_BACKENDS,
        };
        let mut statuses = series.statuses.clone();
        for status in shown {
            statuses.entry(*status).or_default();
        }
        statuses
    };
    let samples = facts.totals.iter().flat_map(|(names, series)| {
        let [pool, backend] = of_backend(names).map(|(name, value)| (name, Cow::Borrowed(value)));
        let of_status = move |(status, n): (u16, u64)| {
            ([pool.clone(), backend.clone(), ("status", format!("{status:03}").into())], n)
        };
        statuses(names, series).into_iter().map(of_status)
    });
    counters(
        encoder,
        ("ruststrom_requests", "Requests that have ended, by the status of the response"),
        samples,
    )?;
    let durations = facts.totals.iter().map(|(names, series)| (of_backend(names), &series.cells.duration));
    histograms(
        encoder,
        (
            "ruststrom_request_duration_seconds",
            "From the first byte of a request to the last one of its response",
        ),
        durations,
    )?;
    let with_backend = facts.totals.iter().filter(|(names, _)| !names.backend.is_empty());
    histograms(
        encoder,
        (
            "ruststrom_backend_wait_seconds",
            "From the end of a request, as a backend got it, to the head of its response",
        ),
        with_backend.map(|(names, series)| (of_backend(names), &series.cells.wait)),
    )?;
    let in_flight = backends(facts).map(|(pool, backend)| {
        ([("pool", &*pool.name), ("backend", &*backend.label)], u64::from(backend.in_flight))
    });
    gauges(encoder, ("ruststrom_active_connections", "Requests that a backend is serving"), in_flight)
}

fn health(facts: &Facts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let states = backends(facts).map(|(pool, backend)| {
        let state = match backend.state {
            // It is used like a healthy one.
            HealthState::Unknown | HealthState::Healthy => "healthy",
            HealthState::Slow => "slow",
            HealthState::Unhealthy => "unhealthy",
        };
        ([("pool", &*pool.name), ("backend", &*backend.label), ("state", state)], 1)
    });
    gauges(encoder, ("ruststrom_backend_health", "The state that a backend is in"), states)?;
    let checked: Vec<(&Names, &Series)> = checked(facts).collect();
    let results = checked.iter().flat_map(|(names, series)| {
        [("success", Event::CheckPassed), ("failure", Event::CheckFailed)].map(|(result, event)| {
            let [pool, backend] = of_backend(names);
            ([pool, backend, ("result", result)], series.event(event))
        })
    });
    counters(encoder, ("ruststrom_health_checks", "Health checks that have ended"), results)?;
    let times = checked.iter().map(|(names, series)| (of_backend(names), &series.cells.check));
    histograms(
        encoder,
        ("ruststrom_backend_response_time", "Seconds that passed health checks took, with connecting"),
        times,
    )
}

/// Series of backends that are checked, or have been.
fn checked(facts: &Facts) -> impl Iterator<Item = (&Names, &Series)> {
    let configured: BTreeSet<&str> =
        facts.pools.iter().filter(|pool| pool.checked).map(|pool| &*pool.name).collect();
    let with_backend = facts.totals.iter().filter(|(names, _)| !names.backend.is_empty());
    with_backend.map(|(names, series)| (&**names, series)).filter(move |(names, series)| {
        configured.contains(&*names.pool)
            || series.event(Event::CheckPassed) + series.event(Event::CheckFailed) > 0
    })
}

fn middlewares(facts: &Facts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let of_pools = facts.totals.iter().filter(|(names, _)| names.backend.is_empty());
    let configured: BTreeMap<&str, &PoolFacts> = facts.pools.iter().map(|pool| (&*pool.name, pool)).collect();
    let series: Vec<_> = of_pools
        .map(|(names, series)| (&*names.pool, series, configured.get(&*names.pool).copied()))
        .collect();
    let events = |event: Event, is_on: fn(&PoolFacts) -> bool| {
        let shown =
            series.iter().filter(move |(_, series, pool)| series.event(event) > 0 || pool.is_some_and(is_on));
        shown.map(move |(pool, series, _)| ([("pool", *pool)], series.event(event)))
    };
    counters(
        encoder,
        ("ruststrom_rate_limit_exceeded", "Requests that were refused by a rate limit"),
        events(Event::RateLimited, |pool| pool.limits_rates),
    )?;
    counters(
        encoder,
        ("ruststrom_auth_failures", "Requests with wrong credentials"),
        events(Event::AuthFailed, |pool| pool.asks_credentials),
    )?;
    let ratios = series.iter().flat_map(|(pool, series, configured)| {
        let counted = series.events.keys().filter_map(|event| match event {
            Event::Original(coding) => Some(*coding),
            _ => None,
        });
        let codings = configured.map(|pool| &*pool.codings).unwrap_or_default();
        let all: BTreeSet<&str> = counted.chain(codings.iter().copied()).collect();
        let ratio = |coding: &'static str| {
            let bytes = |event| series.event(event) as f64;
            match bytes(Event::Original(coding)) {
                // Nothing has been saved.
                0.0 => 1.0,
                original => bytes(Event::Compressed(coding)) / original,
            }
        };
        all.into_iter().map(move |coding| ([("pool", *pool), ("encoding", coding)], ratio(coding)))
    });
    gauges(
        encoder,
        ("ruststrom_compression_ratio", "Bytes of compressed bodies, divided by what they were before"),
        ratios,
    )
}

fn pools(facts: &Facts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let causes = facts
        .totals
        .iter()
        .flat_map(|(names, series)| series.causes.iter().map(move |(cause, n)| ((&*names.pool, *cause), *n)));
    let mut failures = BTreeMap::new();
    for (labels, n) in causes {
        *failures.entry(labels).or_insert(0) += n;
    }
    counters(
        encoder,
        ("ruststrom_failures", "Requests that failed, by their cause, as the access log has it"),
        failures.into_iter().map(|((pool, cause), n): (_, u64)| ([("pool", pool), ("cause", cause)], n)),
    )?;
    let of_pools = |(pool, n): (_, u64)| (!str::is_empty(pool)).then_some(([("pool", pool)], n));
    let retries = by_pool(facts, |series| series.event(Event::Retried));
    counters(
        encoder,
        ("ruststrom_retries", "Attempts at a backend after the first one of a request"),
        retries.into_iter().filter_map(of_pools),
    )?;
    let directions = [
        ("in", by_pool(facts, |series| series.cells.bytes_in)),
        ("out", by_pool(facts, |series| series.cells.bytes_out)),
    ];
    counters(
        encoder,
        ("ruststrom_bytes", "Bytes of bodies, from clients (in) and to clients (out)"),
        directions.into_iter().flat_map(|(direction, sums)| {
            sums.into_iter().map(move |(pool, n)| ([("pool", pool), ("direction", direction)], n))
        }),
    )?;
    gauges(
        encoder,
        ("ruststrom_queue_length", "Requests that wait for a backend below its max_connections"),
        facts.pools.iter().map(|pool| ([("pool", &*pool.name)], pool.waiting)),
    )
}

fn connections(facts: &Facts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let clients = (facts.counts.clients - facts.counts.admin_clients) as u64;
    gauge(encoder, ("ruststrom_client_connections", "Connections of clients that are open"), clients)
}

fn configuration(facts: &Facts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let loading = facts.loading;
    counters(
        encoder,
        ("ruststrom_reloads", "Reloads of the configuration"),
        [("success", loading.succeeded), ("failure", loading.failed)]
            .map(|(result, n)| ([("result", result)], n)),
    )?;
    gauge(
        encoder,
        (
            "ruststrom_last_reload_success",
            "Whether the last reload has succeeded; 1 while there has been none",
        ),
        u64::from(loading.last_succeeded),
    )?;
    gauges(encoder, ("ruststrom_build_info", "The program"), [([("version", facts.version)], 1)])?;
    let ends = facts.certificates.iter();
    gauges(
        encoder,
        ("ruststrom_certificate_expiry_seconds", "When a certificate ends, in seconds since 1970"),
        ends.filter_map(|(name, end)| Some(([("name", &**name)], (*end)?))),
    )?;
    counter(
        encoder,
        ("ruststrom_log_lines_dropped", "Lines of logs that were written too slowly"),
        facts.dropped_lines,
    )?;
    gauge(
        encoder,
        (
            "ruststrom_unresponsive_workers",
            "Workers that did not say in time what they have counted: the page has what they said last",
        ),
        facts.unresponsive as u64,
    )
}

fn process(facts: &Facts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Some(process) = facts.process else { return Ok(()) };
    gauge(encoder, ("ruststrom_memory_bytes", "Memory in use"), process.resident_bytes)?;
    gauge(encoder, ("process_resident_memory_bytes", "Memory in use"), process.resident_bytes)?;
    gauge(encoder, ("process_open_fds", "Open files"), process.open_files)?;
    gauge(
        encoder,
        ("process_start_time_seconds", "When the process was started, in seconds since 1970"),
        process.started,
    )?;
    counter(encoder, ("process_cpu_seconds", "CPU time, in user space and in the kernel"), process.cpu_secs)
}
