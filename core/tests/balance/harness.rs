//! A pool without a proxy around it: configurations made by hand and a balancer for each shard.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::balance::PoolState;
use ruststrom_core::balance::{Balancer, Choice, SelectionInput, Tried};
use ruststrom_core::cause::Cause;
use ruststrom_core::config::{self, Address, Backend, Config, Protocol, Strategy, matcher::Matcher};
use ruststrom_core::health::ProbeOutcome;
use ruststrom_core::{Instant, Shared};

pub(crate) const START: Instant = Instant::from_millis(1_000_000);

pub(crate) fn backend(label: &str) -> Backend {
    let place = label.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let address = Address::Ip((Ipv4Addr::from(0x7f00_0000 | place & 0xff_ffff), 80).into());
    Backend {
        label: label.into(),
        host: label.into(),
        address,
        protocol: Protocol::Http1,
        weight: 1,
        max_connections: None,
        backup: false,
    }
}

/// `count` backends of weight 1: `b0`, `b1`, …
pub(crate) fn equal(count: usize) -> Vec<Backend> {
    (0..count).map(|place| backend(&format!("b{place}"))).collect()
}

pub(crate) fn weighted(weights: &[u32]) -> Vec<Backend> {
    equal(weights.len())
        .into_iter()
        .zip(weights)
        .map(|(backend, &weight)| Backend { weight, ..backend })
        .collect()
}

pub(crate) fn pool(strategy: Strategy, backends: Vec<Backend>) -> config::Pool {
    let s = Duration::from_secs;
    config::Pool {
        name: "pool".into(),
        listeners: None,
        matcher: Matcher::Any,
        http: true,
        https: true,
        strategy,
        backends,
        health: config::Health {
            check_every: s(10),
            timeout: Duration::from_millis(500),
            slow_threshold: Duration::from_millis(300),
            rise: 1,
            fall: 1,
            ramp_up: s(10),
            slow_weight_permille: 250,
            ..config::Health::default()
        },
        client: config::ClientPool { idle_timeout: s(90), max_idle_per_host: 32 },
        timeouts: config::Timeouts {
            head: s(10),
            idle: s(75),
            connect: s(5),
            backend_head: s(30),
            stall: s(30),
            tunnel: s(3600),
            client_fin: Duration::from_millis(250),
            queue: s(5),
            handshake: s(10),
            drain: s(30),
            shutdown_delay: Duration::ZERO,
        },
        limits: config::Limits {
            head_bytes: 16384,
            fields: 100,
            target_bytes: 8192,
            connections: 100_000,
            connections_per_ip: 0,
            buffer_bytes: 1 << 28,
            queue: 1024,
            requests_per_connection: 0,
            min_upload_rate: 100,
            min_download_rate: 100,
        },
        retries: 1,
        retries_on_timeout: false,
        lenient: false,
        middlewares: Vec::new(),
    }
}

pub(crate) fn config(pools: Vec<config::Pool>) -> Config {
    let model = pool(Strategy::Random, Vec::new());
    Config {
        listeners: Vec::new(),
        pools: pools.into_iter().map(Arc::new).collect(),
        certificates: Vec::new(),
        trusted_proxies: Vec::new(),
        via: false,
        timeouts: model.timeouts,
        limits: model.limits,
        http2: config::Http2::default(),
        workers: None,
        driver: config::Driver::Mio,
        user: None,
        group: None,
        access_log: config::AccessLog { enabled: false, format: config::LogFormat::Text, path: None },
        watch: false,
    }
}

/// One pool with a balancer for each shard.
pub(crate) struct Harness {
    pub(crate) shared: Shared,
    pub(crate) pool: config::Pool,
    pub(crate) state: Arc<PoolState>,
    pub(crate) shards: Vec<Balancer>,
    pub(crate) now: Instant,
    pub(crate) client: IpAddr,
    pub(crate) sticky: Option<u16>,
    pub(crate) tried: Tried,
}

impl Harness {
    pub(crate) fn new(shards: u16, pool: config::Pool) -> Self {
        let shared = Shared::new("harness", shards);
        let state = shared.adopt(&config(vec![pool.clone()])).remove(0);
        let balancers =
            (0..shards).map(|shard| Balancer::new(&pool, Arc::clone(&state), u64::from(shard))).collect();
        let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        Self { shared, pool, state, shards: balancers, now: START, client, sticky: None, tried: Tried::new() }
    }

    /// Makes a choice whose exchange goes on.
    pub(crate) fn start(&mut self, shard: usize) -> Choice {
        let ask = SelectionInput { client: self.client, sticky: self.sticky, tried: &self.tried };
        self.shards[shard].choose(&ask, self.now)
    }

    /// Makes a choice whose exchange ends at once.
    pub(crate) fn once(&mut self, shard: usize) -> Option<u16> {
        match self.start(shard) {
            Choice::Backend(chosen) => {
                self.state.finish(chosen);
                Some(chosen)
            }
            Choice::Full | Choice::None => None,
        }
    }

    /// How often each backend is chosen by `count` exchanges, one after the other.
    pub(crate) fn shares(&mut self, count: usize) -> Vec<usize> {
        let mut shares = vec![0; self.pool.backends.len()];
        for turn in 0..count {
            let chosen = self.once(turn % self.shards.len()).expect("a usable backend");
            shares[usize::from(chosen)] += 1;
        }
        shares
    }

    pub(crate) fn good(&self, backend: u16) {
        self.state.probed(backend, &ProbeOutcome::Good { status: 200, after: Duration::ZERO }, self.now);
    }

    pub(crate) fn slow(&self, backend: u16) {
        self.state.probed(
            backend,
            &ProbeOutcome::Good { status: 200, after: Duration::from_secs(1) },
            self.now,
        );
    }

    pub(crate) fn bad(&self, backend: u16) {
        self.state.probed(backend, &ProbeOutcome::Failed { why: Cause::ConnectRefused }, self.now);
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
    }
}

pub(crate) fn client(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))
}

/// The chi-square statistic: the sum of squared deviations over the expectations. With k classes about k - 1,
/// seldom above k - 1 + 4 sqrt(2 (k - 1)).
pub(crate) fn chi_square(counts: &[usize], weights: &[u32]) -> f64 {
    let (all, whole) = (counts.iter().sum::<usize>() as f64, f64::from(weights.iter().sum::<u32>()));
    let one = |(&count, &weight): (&usize, &u32)| {
        let expected = all * f64::from(weight) / whole;
        (count as f64 - expected).powi(2) / expected
    };
    counts.iter().zip(weights).map(one).sum()
}

pub(crate) fn chi_square_bound(classes: usize) -> f64 {
    let free = classes as f64 - 1.0;
    free + 4.0 * (2.0 * free).sqrt()
}
