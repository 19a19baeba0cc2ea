//! The configuration of a scenario: drawn as the text of a file, and read by the same parser as a user's.

use std::fmt::Write as _;
use std::sync::Arc;

use ruststrom_core::config::{self, Config};
use ruststrom_core::page::SMALL_BYTES;

use super::middlewares::{self, error_page};
use super::{Limits, ListenPorts, MS, PoolSettings, PoolSpec, SEC, Scenario, Timeouts, client_ip};
use crate::random::{SplitMix64, mix};
use crate::stages::{COPY, LOOKUP, witness};

impl Scenario {
    /// Draws the settings before the pools.
    pub(super) fn draw_settings(&mut self, rng: &mut SplitMix64) {
        let fault_free = self.fault_free;
        // 0 is off.
        let ms = |rng: &mut SplitMix64, from: u64, to: u64| {
            if fault_free || rng.below(10) == 0 { 0 } else { rng.between(from, to) }
        };
        // With few pages, exchanges may wait for pages of each other: only a timeout ends that.
        let few_pages = self.page_limit > 0;
        let always_on = |rng: &mut SplitMix64, from: u64, to: u64| {
            if few_pages { rng.between(from, to) } else { ms(rng, from, to) }
        };
        let timeouts = [
            ("head", ms(rng, 200, 4_000)),
            ("idle", ms(rng, 100, 5_000)),
            ("connect", ms(rng, 100, 2_000)),
            ("backend_head", always_on(rng, 200, 3_000)),
            ("stall", always_on(rng, 300, 3_000)),
            ("tunnel", ms(rng, 300, 4_000)),
            ("queue", always_on(rng, 50, 1_500)),
        ];
        let [head, idle, connect, backend_head, stall, tunnel, queue] = timeouts.map(|(_, ms)| ms * MS);
        self.timeouts = Timeouts { head, idle, handshake: 0, connect, backend_head, stall, tunnel, queue };
        let mut text = String::from("[timeouts]\n");
        for (name, ms) in timeouts {
            writeln!(text, "{name} = \"{ms}ms\"").expect("memory");
        }
        // Clients that half-close here wait for their responses, however long that takes.
        text.push_str("client_fin = 0\n");
        let drain = rng.between(50, 5_000);
        // Not drawn: other settings stay what they were for each seed.
        let delay = if mix(self.seed).is_multiple_of(2) { mix(self.seed.wrapping_add(1)) % 1_500 } else { 0 };
        writeln!(text, "drain = \"{drain}ms\"\nshutdown_delay = \"{delay}ms\"\n[limits]").expect("memory");
        if !fault_free {
            if rng.below(5) == 0 {
                self.limits.connections = rng.between(2, 20);
                writeln!(text, "connections = {}", self.limits.connections).expect("memory");
            }
            if rng.below(5) == 0 {
                self.limits.connections_per_ip = rng.between(1, 6);
                writeln!(text, "connections_per_ip = {}", self.limits.connections_per_ip).expect("memory");
            }
            if rng.below(3) == 0 {
                let queue = rng.below(4);
                self.limits.queue = Some(queue);
                writeln!(text, "queue = {queue}").expect("memory");
            }
            writeln!(text, "requests_per_connection = {}", self.requests_per_connection).expect("memory");
        }
        text.push_str(&self.draw_head_limits());
        self.limits.min_rate = 100;
        if fault_free || rng.below(3) == 0 {
            self.limits.min_rate = 0;
            text.push_str("min_upload_rate = 0\nmin_download_rate = 0\n");
        }
        if !fault_free && !self.is_about_scarcity() && mix(self.seed ^ 0xdefa).is_multiple_of(12) {
            text = self.take_defaults();
        }
        writeln!(text, "[health_interval]\ncheck_every = \"{}ms\"", self.check_every_ms).expect("memory");
        self.settings = text;
    }

    /// Whether the run is about what many clients or few pages do.
    fn is_about_scarcity(&self) -> bool {
        self.crowd || self.page_limit > 0
    }

    /// Leaves all timeouts and limits at their defaults, as far as clients of a run can bear them.
    fn take_defaults(&mut self) -> String {
        self.defaults = true;
        self.requests_per_connection = 0;
        self.limits = Limits { min_rate: 100, ..Limits::default() };
        self.timeouts = Timeouts {
            head: 10 * SEC,
            idle: 75 * SEC,
            handshake: 0,
            connect: 5 * SEC,
            backend_head: 30 * SEC,
            stall: 30 * SEC,
            tunnel: 3_600 * SEC,
            queue: 5 * SEC,
        };
        // Clients that half-close here wait for their responses.
        "[timeouts]\nclient_fin = 0\n".to_owned()
    }

    /// Draws the limits of heads, in a quarter of the runs, and writes them down.
    fn draw_head_limits(&mut self) -> String {
        let rng = &mut SplitMix64::new(mix(self.seed ^ 0x4ead));
        let mut text = String::new();
        if rng.below(4) > 0 {
            return text;
        }
        let limits = [
            ("head_bytes", &mut self.limits.head_bytes, 1_200, 6_000),
            ("fields", &mut self.limits.fields, 20, 60),
            ("target_bytes", &mut self.limits.target_bytes, 64, 1_000),
        ];
        for (name, limit, from, to) in limits {
            if rng.below(2) == 0 {
                *limit = rng.between(from, to);
                writeln!(text, "{name} = {limit}").expect("memory");
            }
        }
        text
    }

    /// Draws the settings that all pools share.
    pub(super) fn draw_pool_settings(&mut self, rng: &mut SplitMix64) {
        let fault_free = self.fault_free;
        let mut text = String::new();
        let retries = if fault_free { 1 } else { rng.below(4) };
        writeln!(text, "retries = {retries}").expect("memory");
        let (timeout, slow) = if fault_free {
            (600_000, if self.has_good_probes_only() { 0 } else { 300 })
        } else {
            (rng.between(50, 500), rng.pick(&[0, 2, 20, 300]))
        };
        writeln!(
            text,
            "[backend_pools.health_config]\npath = \"/probe\"\ntimeout = {timeout}\nslow_threshold = {slow}"
        )
        .expect("memory");
        let (rise, fall, ramp_up) = (rng.between(1, 3), rng.between(1, 3), rng.pick(&[0, 1, 10]));
        writeln!(text, "rise = {rise}\nfall = {fall}\nramp_up = {ramp_up}").expect("memory");
        let idle = if fault_free { 0 } else { rng.pick(&[0, 1, 5, 90]) };
        writeln!(text, "[backend_pools.client]\npool_idle_timeout = {idle}").expect("memory");
        let max_idle = rng.pick(&[0, 1, 2, 32, 32]);
        writeln!(text, "pool_max_idle_per_host = {max_idle}").expect("memory");
        self.pool = PoolSettings {
            retries,
            probe_timeout: timeout * MS,
            slow_threshold: slow * MS,
            rise,
            fall,
            ramp_up: ramp_up * SEC,
            idle: idle * SEC,
            max_idle,
        };
        self.pool_settings = text;
    }

    /// The text of the configuration file with these pools and listeners.
    #[must_use]
    fn config_text(&self, pools: &[PoolSpec], ports: &ListenPorts) -> String {
        let mut text = format!("http_address = {}\n", ListenPorts::list(&ports.http));
        text.push_str("metrics_address = \"127.0.0.1:9090\"\n");
        if !ports.https.is_empty() {
            writeln!(text, "https_address = {}", ListenPorts::list(&ports.https)).expect("memory");
        }
        if self.trusts_first {
            writeln!(text, "trusted_proxies = [\"{}\"]", client_ip(0)).expect("memory");
        }
        text.push_str(&self.settings);
        for pool in pools {
            text.push_str(&middlewares::tables(pool.name, &pool.middlewares));
        }
        let last = pools.len() - 1;
        for (i, pool) in pools.iter().enumerate() {
            writeln!(text, "[[backend_pools]]\nname = \"{}\"", pool.name).expect("memory");
            if i < last || !self.has_catch_all {
                writeln!(text, "matcher = \"PathPrefix('/{}/')\"", pool.name).expect("memory");
            }
            text.push_str("addresses = [");
            for b in &pool.backends {
                let scheme = match (b.tls, b.http2) {
                    (true, _) => "https://",
                    (false, true) => "h2c://",
                    (false, false) => "",
                };
                let address = format!("{scheme}{}", b.label());
                write!(
                    text,
                    "{{ address = \"{address}\", weight = {}, max_connections = {}, backup = {} }}, ",
                    b.weight, b.max_connections, b.backup
                )
                .expect("memory");
            }
            text.push_str("]\n");
            if pool.sticky {
                writeln!(
                    text,
                    "strategy = {{ StickyCookie = {{ cookie_name = \"S\", inner = \"{}\" }} }}",
                    pool.strategy
                )
                .expect("memory");
            } else {
                writeln!(text, "strategy = \"{}\"", pool.strategy).expect("memory");
            }
            if !pool.middlewares.is_empty() {
                text.push_str(&middlewares::list(pool.name, &pool.middlewares));
            }
            text.push_str(&self.pool_settings);
            if pool.backends.iter().any(|b| b.tls) {
                text.push_str(&self.backend_tls_text());
            }
        }
        text
    }

    /// The checked configuration with these pools and listeners.
    ///
    /// # Panics
    /// If the parser refuses what was drawn.
    #[must_use]
    pub(crate) fn config(&self, pools: &[PoolSpec], ports: &ListenPorts) -> Arc<Config> {
        let text = self.config_text(pools, ports);
        let parsed = config::parse(&text);
        let Some(mut config) = parsed.config else {
            panic!("{}", config::render(&parsed.diagnostics, "drawn", &text))
        };
        if self.page_limit > 0 {
            // Less than the least that a file may ask for.
            config.limits.buffer_bytes = self.page_limit * SMALL_BYTES as u64;
        }
        for file in config
            .pools
            .iter_mut()
            .flat_map(|p| &mut Arc::make_mut(p).middlewares)
            .flat_map(|m| m.files_mut())
        {
            let status = file.path.split_once('.').and_then(|(status, _)| status.parse().ok());
            file.content = error_page(status.expect("drawn")).into();
        }
        let chain = [(self.lookup_stage, LOOKUP), (self.transform_stage, COPY)];
        for (pool, spec) in config.pools.iter_mut().zip(pools) {
            let witness = (!spec.chains.is_empty()).then(|| witness(spec.chain));
            let stand_ins = chain.iter().filter(|(drawn, _)| *drawn).map(|(_, m)| m.clone());
            let stand_ins = witness.into_iter().chain(stand_ins);
            let middlewares = &mut Arc::make_mut(pool).middlewares;
            let built_in = std::mem::take(middlewares);
            *middlewares = stand_ins.chain(built_in).collect();
        }
        Arc::new(config)
    }
}
