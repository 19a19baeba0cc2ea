//! The swarm: each seed draws which faults there are (about half of them none at all), how the world is made,
//! and how the proxy is configured.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use ruststrom_core::config::{self, Config};
use ruststrom_core::page::SMALL_BYTES;

use crate::dice::Dice;

/// A second of virtual time.
pub(crate) const SEC: u64 = 1_000_000_000;
/// A millisecond of virtual time.
pub(crate) const MS: u64 = 1_000_000;

/// What is wrong with the network, each in thousandths of the calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct NetDraw {
    pub(crate) short_read: u32,
    pub(crate) short_write: u32,
    pub(crate) recv_blocks: u32,
    pub(crate) send_blocks: u32,
    pub(crate) interrupted: u32,
    /// Longest way, in nanoseconds.
    pub(crate) delay: u64,
    /// Bytes that lie in a socket at most, each way.
    pub(crate) window: u64,
    pub(crate) tiny: bool,
    /// What a far end writes arrives in one piece.
    pub(crate) whole: bool,
    pub(crate) late_timer: u32,
}

/// What is wrong with clients, in thousandths of the connections or requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientDraw {
    pub(crate) slow_head: u32,
    pub(crate) slow_body: u32,
    pub(crate) slow_reader: u32,
    pub(crate) resets: u32,
    pub(crate) closes: u32,
    pub(crate) half_closes: u32,
    pub(crate) smuggles: u32,
}

/// What is wrong with backends, in thousandths of the connections or requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackendDraw {
    pub(crate) refuses: u32,
    pub(crate) black_hole: u32,
    pub(crate) unreachable: u32,
    pub(crate) early: u32,
    pub(crate) truncates: u32,
    pub(crate) surplus: u32,
    pub(crate) closes_on_reuse: u32,
    pub(crate) closes_idle: u32,
    pub(crate) resets: u32,
    pub(crate) closes: u32,
    pub(crate) never: u32,
    pub(crate) slow: u32,
    pub(crate) stops_midway: u32,
    pub(crate) stops_reading: u32,
    pub(crate) storm: u32,
    pub(crate) garbage: u32,
    pub(crate) unasked_switch: u32,
    /// Changes of a backend's whole state in a run.
    pub(crate) flaps: u32,
}

/// What is wrong with the rest of the world.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorldDraw {
    pub(crate) slow_lookup: u32,
    pub(crate) lost_lookup: u32,
    pub(crate) double_lookup: u32,
    pub(crate) failed_lookup: u32,
    pub(crate) delayed_nudge: u32,
    /// Reloads in a run.
    pub(crate) reloads: u32,
    /// A drain begins while there is traffic.
    pub(crate) drains: bool,
    /// Descriptors of a shard; 0: enough.
    pub(crate) files: u32,
}

/// One backend as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendDef {
    /// Its machine.
    pub(crate) at: usize,
    pub(crate) named: bool,
    pub(crate) weight: u32,
    pub(crate) cap: u32,
    pub(crate) backup: bool,
}

impl BackendDef {
    /// Its label, as the configuration writes it.
    pub(crate) fn label(&self) -> String {
        if self.named {
            format!("m{}.test:8000", self.at)
        } else {
            machine_address(self.at, false).to_string()
        }
    }
}

/// One pool as configured.
#[derive(Clone, Debug)]
pub(crate) struct PoolDef {
    pub(crate) name: &'static str,
    pub(crate) backends: Vec<BackendDef>,
    pub(crate) strategy: &'static str,
    pub(crate) sticky: bool,
}

/// What a seed has drawn.
#[derive(Clone, Debug)]
pub struct Draw {
    /// Of the run.
    pub seed: u64,
    /// No faults, no timeouts: any error is a bug.
    pub fault_free: bool,
    pub(crate) shards: u16,
    pub(crate) clients: usize,
    pub(crate) most_requests: u64,
    pub(crate) largest_body: u64,
    pub(crate) pages: u64,
    pub(crate) machines: usize,
    pub(crate) pools: Vec<PoolDef>,
    pub(crate) settings: String,
    pub(crate) pool_settings: String,
    pub(crate) check_every_ms: u64,
    pub(crate) has_catch_all: bool,
    /// A stage asks a lookup for each request; a transform stands in every answer's way.
    pub(crate) asks: bool,
    pub(crate) transforms: bool,
    /// Check every invariant after each input, not only after each turn.
    pub(crate) check_often: bool,
    pub(crate) requests_per_connection: u64,
    pub(crate) net: NetDraw,
    pub(crate) client: ClientDraw,
    pub(crate) backend: BackendDraw,
    pub(crate) world: WorldDraw,
}

/// The IP address and port of a machine.
pub(crate) fn machine_address(at: usize, second: bool) -> SocketAddr {
    SocketAddr::from(([10, 0, u8::from(second), at as u8 + 1], 8000))
}

/// The machine at an address.
pub(crate) fn machine_at(address: SocketAddr) -> Option<usize> {
    match address {
        SocketAddr::V4(v4) if v4.port() == 8000 => (v4.ip().octets()[3] as usize).checked_sub(1),
        _ => None,
    }
}

impl Draw {
    /// The draw of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let d = &mut dice;
        // One run of eight is without faults.
        let fault_free = d.below(8) == 0;
        let machines = d.between(1, 4) as usize;
        let mut draw = Self {
            seed,
            fault_free,
            shards: d.between(1, 3) as u16,
            clients: d.between(4, 28) as usize,
            most_requests: d.between(1, 8),
            largest_body: d.one(&[300, 3_000, 40_000, 150_000]),
            pages: 0,
            machines,
            pools: Vec::new(),
            settings: String::new(),
            pool_settings: String::new(),
            check_every_ms: d.one(&[0, 0, 100, 400, 2_000]),
            has_catch_all: true,
            asks: d.below(8) == 0,
            transforms: d.below(8) == 0,
            check_often: d.below(4) == 0,
            requests_per_connection: 0,
            net: NetDraw {
                delay: d.one(&[0, 20_000, 300_000, 3 * MS]),
                window: d.one(&[1_500, 20_000, 70_000, 200_000]),
                ..NetDraw::default()
            },
            client: ClientDraw::default(),
            backend: BackendDraw::default(),
            world: WorldDraw::default(),
        };
        draw.draw_net(d);
        if !fault_free {
            draw.draw_faults(d);
        }
        draw.draw_pools(d);
        draw.draw_settings(d);
        draw
    }

    /// For a script, which brings its own faults and configuration. What is drawn is only what nobody may
    /// notice.
    pub(crate) fn scripted(seed: u64, machines: usize) -> Self {
        let mut dice = Dice::new(seed);
        let d = &mut dice;
        let on = |d: &mut Dice, most: u64| if d.below(2) == 0 { 0 } else { d.size(most) as u32 };
        Self {
            seed,
            fault_free: false,
            shards: 1,
            clients: 0,
            most_requests: 0,
            largest_body: 0,
            pages: 0,
            machines,
            pools: Vec::new(),
            settings: String::new(),
            pool_settings: String::new(),
            check_every_ms: 0,
            has_catch_all: false,
            asks: false,
            transforms: false,
            check_often: true,
            requests_per_connection: 0,
            net: NetDraw {
                // How the proxy's writes are cut, nobody sees; how its reads are, chunks that are framed anew
                // show.
                short_read: 0,
                whole: true,
                short_write: on(d, 300),
                recv_blocks: on(d, 200),
                send_blocks: on(d, 200),
                interrupted: on(d, 60),
                delay: d.one(&[0, 20_000, 200_000]),
                window: d.one(&[400_000, 4_000_000]),
                tiny: false,
                late_timer: on(d, 500),
            },
            client: ClientDraw::default(),
            backend: BackendDraw::default(),
            world: WorldDraw::default(),
        }
    }

    fn draw_net(&mut self, d: &mut Dice) {
        // A socket may do all of this to anybody at any time.
        let on = |d: &mut Dice, most: u64| if d.below(2) == 0 { 0 } else { d.size(most) as u32 };
        self.net.short_read = on(d, 300);
        self.net.short_write = on(d, 300);
        self.net.recv_blocks = on(d, 200);
        self.net.send_blocks = on(d, 200);
        self.net.interrupted = on(d, 60);
        if d.below(6) == 0 {
            self.net.tiny = true;
            self.net.window = d.between(1, 200);
            // Byte by byte a long way would be slower than any timeout.
            self.net.delay = self.net.delay.min(20_000);
            self.largest_body = self.largest_body.min(3_000);
        }
        self.net.late_timer = on(d, 500);
    }

    fn draw_faults(&mut self, d: &mut Dice) {
        let on = |d: &mut Dice, most: u64| if d.below(2) == 0 { 0 } else { d.size(most) as u32 };
        self.client = ClientDraw {
            slow_head: on(d, 200),
            slow_body: on(d, 300),
            slow_reader: on(d, 300),
            resets: on(d, 300),
            closes: on(d, 300),
            half_closes: on(d, 500),
            smuggles: on(d, 400),
        };
        self.backend = BackendDraw {
            refuses: on(d, 300),
            black_hole: on(d, 200),
            unreachable: on(d, 200),
            early: on(d, 300),
            truncates: on(d, 300),
            surplus: on(d, 200),
            closes_on_reuse: on(d, 600),
            closes_idle: on(d, 600),
            resets: on(d, 300),
            closes: on(d, 300),
            never: on(d, 150),
            slow: on(d, 400),
            stops_midway: on(d, 150),
            stops_reading: on(d, 150),
            storm: on(d, 150),
            garbage: on(d, 150),
            unasked_switch: on(d, 100),
            flaps: if d.below(2) == 0 { 0 } else { d.between(1, 6) as u32 },
        };
        self.world = WorldDraw {
            slow_lookup: on(d, 500),
            lost_lookup: on(d, 300),
            double_lookup: on(d, 500),
            failed_lookup: on(d, 500),
            delayed_nudge: on(d, 800),
            reloads: if d.below(2) == 0 { 0 } else { d.between(1, 5) as u32 },
            drains: d.below(4) == 0,
            files: if d.below(5) == 0 { d.between(2, 14) as u32 } else { 0 },
        };
        if d.below(3) == 0 {
            self.pages = d.between(4, 16);
        }
        if d.below(5) == 0 {
            self.requests_per_connection = d.between(1, 4);
        }
        self.has_catch_all = d.below(3) > 0;
    }

    fn draw_pools(&mut self, d: &mut Dice) {
        let two = d.below(3) == 0;
        for name in if two { &["a", "b"][..] } else { &["a"][..] } {
            let mut backends = Vec::new();
            // Equals, so that turns can be counted.
            let plain = d.below(3) == 0;
            for at in 0..self.machines {
                if backends.is_empty() || d.below(4) > 0 {
                    let drawn = self.draw_backend(d, at);
                    let equal = BackendDef { at, named: false, weight: 1, cap: 0, backup: false };
                    backends.push(if plain { equal } else { drawn });
                }
            }
            if !self.fault_free && d.below(40) == 0 {
                backends.clear();
            }
            let strategy = d.one(&["RoundRobin", "RoundRobin", "Random", "IPHash", "LeastConnection"]);
            self.pools.push(PoolDef { name, backends, strategy, sticky: d.below(6) == 0 });
        }
    }

    pub(crate) fn draw_backend(&self, d: &mut Dice, at: usize) -> BackendDef {
        BackendDef {
            at,
            named: d.below(5) == 0,
            weight: if d.below(3) == 0 { d.between(1, 5) as u32 } else { 1 },
            cap: if d.below(4) == 0 { d.between(1, 4) as u32 } else { 0 },
            backup: d.below(8) == 0,
        }
    }

    fn draw_settings(&mut self, d: &mut Dice) {
        let mut set = String::new();
        let free = self.fault_free;
        // 0 is off.
        let ms =
            |d: &mut Dice, from: u64, to: u64| if free || d.below(10) == 0 { 0 } else { d.between(from, to) };
        // When pages are few, exchanges may wait for each other's: time has to part them.
        let few = self.pages > 0;
        let sure = |d: &mut Dice, from: u64, to: u64| if few { d.between(from, to) } else { ms(d, from, to) };
        let timeouts = [
            ("head", ms(d, 200, 4_000)),
            ("idle", ms(d, 100, 5_000)),
            ("connect", ms(d, 100, 2_000)),
            ("backend_head", sure(d, 200, 3_000)),
            ("stall", sure(d, 300, 3_000)),
            ("tunnel", ms(d, 300, 4_000)),
            ("queue", sure(d, 50, 1_500)),
        ];
        set.push_str("[timeouts]\n");
        for (name, ms) in timeouts {
            writeln!(set, "{name} = \"{ms}ms\"").expect("memory");
        }
        let drain = d.between(50, 5_000);
        writeln!(set, "drain = \"{drain}ms\"\n[limits]").expect("memory");
        if !free {
            if d.below(5) == 0 {
                writeln!(set, "connections = {}", d.between(2, 20)).expect("memory");
            }
            if d.below(5) == 0 {
                writeln!(set, "connections_per_ip = {}", d.between(1, 6)).expect("memory");
            }
            if d.below(3) == 0 {
                writeln!(set, "queue = {}", d.below(4)).expect("memory");
            }
            writeln!(set, "requests_per_connection = {}", self.requests_per_connection).expect("memory");
        }
        if free || d.below(3) == 0 {
            set.push_str("min_upload_rate = 0\nmin_download_rate = 0\n");
        }
        writeln!(set, "[health_interval]\ncheck_every = \"{}ms\"", self.check_every_ms).expect("memory");
        self.settings = set;

        let mut pool = String::new();
        writeln!(pool, "retries = {}", if free { 1 } else { d.below(4) }).expect("memory");
        let (timeout, slow) = if free { (600_000, 0) } else { (d.between(50, 500), d.one(&[0, 2, 20, 300])) };
        writeln!(
            pool,
            "[backend_pools.health_config]\npath = \"/probe\"\ntimeout = {timeout}\nslow_threshold = {slow}"
        )
        .expect("memory");
        writeln!(
            pool,
            "rise = {}\nfall = {}\nramp_up = {}",
            d.between(1, 3),
            d.between(1, 3),
            d.one(&[0, 1, 10])
        )
        .expect("memory");
        let idle = if free { 0 } else { d.one(&[0, 1, 5, 90]) };
        writeln!(pool, "[backend_pools.client]\npool_idle_timeout = {idle}").expect("memory");
        writeln!(pool, "pool_max_idle_per_host = {}", d.one(&[0, 1, 2, 32, 32])).expect("memory");
        self.pool_settings = pool;
    }

    /// The configuration as a file.
    #[must_use]
    pub(crate) fn text(&self, pools: &[PoolDef]) -> String {
        let mut text =
            String::from("http_address = \"192.0.2.1:80\"\nmetrics_address = \"127.0.0.1:9090\"\n");
        text.push_str(&self.settings);
        let last = pools.len() - 1;
        for (i, pool) in pools.iter().enumerate() {
            writeln!(text, "[[backend_pools]]\nname = \"{}\"", pool.name).expect("memory");
            if i < last || !self.has_catch_all {
                writeln!(text, "matcher = \"PathPrefix('/{}/')\"", pool.name).expect("memory");
            }
            text.push_str("addresses = [");
            for b in &pool.backends {
                let address = b.label();
                write!(
                    text,
                    "{{ address = \"{address}\", weight = {}, max_connections = {}, backup = {} }}, ",
                    b.weight, b.cap, b.backup
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
            text.push_str(&self.pool_settings);
        }
        text
    }

    /// The configuration, checked.
    ///
    /// # Panics
    /// If the parser refuses what was drawn.
    #[must_use]
    pub(crate) fn config(&self, pools: &[PoolDef]) -> Arc<Config> {
        let text = self.text(pools);
        let parsed = config::parse(&text);
        let Some(mut config) = parsed.config else {
            panic!("{}", config::render(&parsed.diagnostics, "drawn", &text))
        };
        if self.pages > 0 {
            // Fewer than a file may ask for.
            config.limits.buffer_bytes = self.pages * SMALL_BYTES as u64;
        }
        Arc::new(config)
    }
}
