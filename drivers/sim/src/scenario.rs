//! What a seed draws before a run begins: which faults there are (each of them is off in about half of the
//! runs, so that every combination is met), how many clients and backends, and how the proxy is configured.

mod admin;
mod config;
mod http2;
mod listeners;
mod middlewares;
mod rewriting;
mod settings;
mod steady;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use ruststrom_core::Endpoint;

use crate::random::SplitMix64;

pub(crate) use self::admin::{ADMIN_PAGE, ADMIN_REQUESTS};
pub(crate) use self::http2::{BackendHttp2, ClientHttp2, Http2Draw, Leaving};
pub(crate) use self::listeners::ListenPorts;
pub(crate) use self::middlewares::{FieldChanges, MiddlewareSpec, RESPOND_TEXT, error_page, is_let_in};
pub(crate) use self::rewriting::{Moved, PathRewrite};
pub(crate) use self::settings::{Limits, PoolSettings, Timeouts};
pub(crate) use self::steady::KnownProbes;
pub(crate) use self::tls::{ClientTls, SERVER_NAME, Stranger, TlsDraw};

/// Nanoseconds of simulated time in a second.
pub(crate) const SEC: u64 = 1_000_000_000;
/// Nanoseconds of simulated time in a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// How sockets and timers behave. Faults are in thousandths of the calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct SocketFaults {
    pub(crate) short_read: u32,
    pub(crate) short_write: u32,
    pub(crate) recv_blocks: u32,
    pub(crate) send_blocks: u32,
    pub(crate) interrupted: u32,
    /// The longest time that bytes are under way, in nanoseconds.
    pub(crate) delay: u64,
    /// How many bytes fit into a socket, each way.
    pub(crate) window: u64,
    /// The window is smaller than any head.
    pub(crate) tiny: bool,
    /// What a peer writes arrives in one piece.
    pub(crate) whole: bool,
    pub(crate) late_timer: u32,
}

/// What clients do wrong, in thousandths of the connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientFaults {
    pub(crate) slow_head: u32,
    pub(crate) slow_body: u32,
    pub(crate) slow_reader: u32,
    pub(crate) resets: u32,
    pub(crate) closes: u32,
    pub(crate) half_closes: u32,
    pub(crate) invalid_request: u32,
}

/// What backends do wrong, in thousandths of the connections or requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackendFaults {
    pub(crate) refuses: u32,
    pub(crate) unresponsive: u32,
    pub(crate) unreachable: u32,
    pub(crate) early: u32,
    pub(crate) truncates: u32,
    pub(crate) extra_bytes: u32,
    pub(crate) closes_on_reuse: u32,
    pub(crate) closes_idle: u32,
    pub(crate) resets: u32,
    pub(crate) closes: u32,
    pub(crate) never: u32,
    pub(crate) slow: u32,
    pub(crate) stalls: u32,
    pub(crate) stops_reading: u32,
    pub(crate) interim_storm: u32,
    pub(crate) garbage: u32,
    pub(crate) unrequested_upgrade: u32,
    /// How often in the run some backend changes its `BackendMode`.
    pub(crate) mode_changes: u32,
}

/// Faults of lookups and of messages between shards in thousandths, and what the operator does meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct SystemFaults {
    pub(crate) slow_lookup: u32,
    pub(crate) lost_lookup: u32,
    pub(crate) double_lookup: u32,
    pub(crate) failed_lookup: u32,
    pub(crate) delayed_nudge: u32,
    /// How many reloads there are in the run.
    pub(crate) reloads: u32,
    /// A drain begins while there is traffic.
    pub(crate) drains: bool,
    /// How many descriptors a shard has; 0: enough.
    pub(crate) files: u32,
}

/// How a pool names a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressKind {
    /// By its IP address.
    Ip,
    /// By a name that is looked up.
    Name,
    /// By the path of a Unix socket.
    Unix,
}

/// One backend of a pool as configured. Several pools may name the same simulated backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendSpec {
    /// The number of the simulated backend.
    pub(crate) backend: usize,
    pub(crate) address: AddressKind,
    pub(crate) weight: u32,
    /// 0: no limit.
    pub(crate) max_connections: u32,
    pub(crate) backup: bool,
    /// Spoken to over TLS.
    pub(crate) tls: bool,
    /// It speaks HTTP/2: from the first byte on, or over TLS because it chooses that.
    pub(crate) http2: bool,
}

impl BackendSpec {
    /// The address as the configuration writes it behind the scheme, which is also the backend's label in
    /// records.
    pub(crate) fn label(&self) -> &'static str {
        &labels()[self.backend][self.address as usize]
    }

    pub(crate) fn is_named(&self) -> bool {
        self.address == AddressKind::Name
    }
}

/// More backends than any scenario has.
const MAX_BACKENDS: usize = 16;

/// The labels of all backends, by the kind of their address.
fn labels() -> &'static [[String; 3]] {
    static LABELS: OnceLock<Vec<[String; 3]>> = OnceLock::new();
    let of = |n: usize| {
        let ip = backend_address(n, false).to_string();
        [ip, format!("m{n}.test:8000"), format!("unix:{UNIX_PREFIX}{n}")]
    };
    LABELS.get_or_init(|| (0..MAX_BACKENDS).map(of).collect())
}

/// The names of all pools.
const POOLS: &[&str] = &["a", "b"];

/// A name of a pool that the core has told of.
pub(crate) fn known_pool(name: &str) -> Option<&'static str> {
    POOLS.iter().copied().find(|known| *known == name)
}

/// A label that the core has told of. Labels are compared and kept so often that they are made once.
pub(crate) fn known_label(label: &str) -> Option<&'static str> {
    labels().iter().flatten().map(String::as_str).find(|known| *known == label)
}

/// One pool as configured.
#[derive(Clone, Debug)]
pub(crate) struct PoolSpec {
    pub(crate) name: &'static str,
    pub(crate) backends: Vec<BackendSpec>,
    pub(crate) strategy: &'static str,
    pub(crate) sticky: bool,
    /// Those that are built in, in their order.
    pub(crate) middlewares: Vec<MiddlewareSpec>,
    /// What they may be after a reload, but for limits of requests; empty: always the same.
    pub(crate) chains: Vec<Vec<MiddlewareSpec>>,
    /// Which of these they are.
    pub(crate) chain: usize,
}

/// What a seed has drawn for its run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed itself.
    pub seed: u64,
    /// No faults and no timeouts: any error is a bug.
    pub fault_free: bool,
    pub(crate) shards: u16,
    pub(crate) clients: usize,
    /// Requests of one client.
    pub(crate) max_requests: u64,
    /// Bytes of a body.
    pub(crate) max_body: u64,
    /// How many small pages the proxy's buffers may take; 0: the default limit.
    pub(crate) page_limit: u64,
    pub(crate) backend_count: usize,
    pub(crate) pools: Vec<PoolSpec>,
    /// The part of the configuration file before the pools.
    pub(crate) settings: String,
    /// What of it the judges have to know.
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) pool: PoolSettings,
    /// The part of the configuration file that every pool repeats.
    pub(crate) pool_settings: String,
    /// Milliseconds between health probes; 0: none.
    pub(crate) check_every_ms: u64,
    /// The last pool takes every request that no other one takes.
    pub(crate) has_catch_all: bool,
    /// A middleware waits for a lookup before each request.
    pub(crate) lookup_stage: bool,
    /// A middleware passes every response body through a transform.
    pub(crate) transform_stage: bool,
    /// Check the invariants of core and pump after each input, not only after each turn of a worker.
    pub(crate) check_each_input: bool,
    /// Timeouts and limits are the defaults.
    pub(crate) defaults: bool,
    /// Clients from the first address are trusted proxies.
    pub(crate) trusts_first: bool,
    /// How each backend responds to probes in a run without faults.
    pub(crate) known_probes: Vec<KnownProbes>,
    /// Many clients come.
    pub(crate) crowd: bool,
    /// Some clients authenticate connections to backends.
    pub(crate) identities: bool,
    /// 0: no limit.
    pub(crate) requests_per_connection: u64,
    pub(crate) sockets: SocketFaults,
    pub(crate) client: ClientFaults,
    pub(crate) backend: BackendFaults,
    pub(crate) system: SystemFaults,
    pub(crate) tls: TlsDraw,
    pub(crate) http2: Http2Draw,
}

/// The IP address and port of a simulated backend. `second`: the other address that its name may have.
pub(crate) fn backend_address(backend: usize, second: bool) -> SocketAddr {
    let last = backend as u8 + 1;
    if speaks_ipv6(backend, second) {
        return SocketAddr::from(([0x2001, 0xdb8, 0xb, 0, 0, 0, 0, u16::from(last)], 8000));
    }
    SocketAddr::from(([10, 0, u8::from(second), last], 8000))
}

/// Some have an IPv6 address, and some names have one of each kind.
fn speaks_ipv6(backend: usize, second: bool) -> bool {
    backend % 3 == if second { 0 } else { 2 }
}

/// Where the client of this number connects from.
pub(crate) fn client_address(index: usize) -> SocketAddr {
    let port = FIRST_CLIENT_PORT + index as u16;
    let nth = (index % 7) as u16;
    match nth {
        // Two of one network.
        3 | 6 => SocketAddr::from(([0x2001, 0xdb8, 0, 1, 0, 0, 0, nth + 1], port)),
        // As a listener for both kinds has it.
        5 => SocketAddr::from(([0, 0, 0, 0, 0, 0xffff, 0xc633, 0x6400 | (nth + 1)], port)),
        _ => SocketAddr::from(([198, 51, 100, nth as u8 + 1], port)),
    }
}

/// The address that it goes by.
pub(crate) fn client_ip(index: usize) -> IpAddr {
    client_address(index).ip().to_canonical()
}

/// The number of the client at an address; `None`: there is none.
pub(crate) fn client_at(address: SocketAddr) -> Option<usize> {
    address.port().checked_sub(FIRST_CLIENT_PORT).map(usize::from)
}

const FIRST_CLIENT_PORT: u16 = 2_000;

/// The number of the simulated backend at an address.
pub(crate) fn backend_at(address: &Endpoint) -> Option<usize> {
    match address {
        Endpoint::Ip(SocketAddr::V4(v4)) if v4.port() == 8000 => {
            (v4.ip().octets()[3] as usize).checked_sub(1)
        }
        Endpoint::Ip(SocketAddr::V6(v6)) if v6.port() == 8000 => {
            (v6.ip().segments()[7] as usize).checked_sub(1)
        }
        Endpoint::Ip(_) => None,
        Endpoint::Unix(path) => path.strip_prefix(UNIX_PREFIX)?.parse().ok(),
    }
}

/// What the paths of all backends' Unix sockets begin with; their number follows.
pub(crate) const UNIX_PREFIX: &str = "/run/backend-";

/// How likely a fault is, in thousandths: off in half of the runs, else up to `max`.
fn permille(rng: &mut SplitMix64, max: u64) -> u32 {
    if rng.below(2) == 0 { 0 } else { rng.size(max) as u32 }
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let rng = &mut SplitMix64::new(seed);
        // One run of eight is without faults.
        let steady = rng.below(25) == 0;
        let fault_free = steady || rng.below(8) == 0;
        let backend_count = rng.between(1, 4) as usize;
        let mut scenario = Self {
            fault_free,
            shards: rng.between(1, 3) as u16,
            clients: rng.between(4, 28) as usize,
            max_requests: rng.between(1, 8),
            max_body: rng.pick(&[300, 3_000, 40_000, 150_000]),
            check_every_ms: rng.pick(&[0, 0, 100, 400, 2_000]),
            has_catch_all: true,
            lookup_stage: rng.below(8) == 0,
            transform_stage: rng.below(8) == 0,
            check_each_input: rng.below(4) == 0,
            sockets: SocketFaults {
                delay: rng.pick(&[0, 20_000, 300_000, 3 * MS]),
                window: rng.pick(&[1_500, 20_000, 70_000, 200_000]),
                ..SocketFaults::default()
            },
            ..Self::empty(seed, backend_count)
        };
        if !fault_free && rng.below(100) == 0 {
            scenario.draw_crowd(rng);
        }
        scenario.draw_socket_faults(rng);
        if !fault_free {
            scenario.draw_faults(rng);
        }
        if steady {
            scenario.draw_steady(rng);
        } else {
            scenario.draw_tls();
            scenario.draw_http2();
            scenario.draw_http2_backends();
            scenario.draw_websockets();
            scenario.draw_pools(rng);
            scenario.draw_middlewares();
        }
        scenario.draw_settings(rng);
        scenario.draw_http2_settings();
        scenario.draw_handshake_timeout();
        scenario.draw_pool_settings(rng);
        scenario.trusts_first = rng.below(3) == 0;
        scenario.identities = rng.below(4) == 0 && !steady;
        scenario
    }

    /// The scenario of a script, which brings its own peers and configuration: only what no peer may notice
    /// is drawn.
    pub(crate) fn scripted(seed: u64, backend_count: usize) -> Self {
        let rng = &mut SplitMix64::new(seed);
        Self {
            check_each_input: true,
            sockets: SocketFaults {
                // How the proxy's writes are cut no peer can see. How its reads are cut shows in the chunks
                // that it frames anew, so those stay whole.
                short_read: 0,
                whole: true,
                short_write: permille(rng, 300),
                recv_blocks: permille(rng, 200),
                send_blocks: permille(rng, 200),
                interrupted: permille(rng, 60),
                delay: rng.pick(&[0, 20_000, 200_000]),
                window: rng.pick(&[400_000, 4_000_000]),
                tiny: false,
                late_timer: permille(rng, 500),
            },
            ..Self::empty(seed, backend_count)
        }
    }

    /// Nothing drawn yet: one shard, no clients, no faults.
    fn empty(seed: u64, backend_count: usize) -> Self {
        Self {
            seed,
            fault_free: false,
            shards: 1,
            clients: 0,
            max_requests: 0,
            max_body: 0,
            page_limit: 0,
            backend_count,
            pools: Vec::new(),
            settings: String::new(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            pool: PoolSettings::default(),
            pool_settings: String::new(),
            check_every_ms: 0,
            has_catch_all: false,
            lookup_stage: false,
            transform_stage: false,
            check_each_input: false,
            defaults: false,
            trusts_first: false,
            known_probes: Vec::new(),
            crowd: false,
            identities: false,
            requests_per_connection: 0,
            sockets: SocketFaults::default(),
            client: ClientFaults::default(),
            backend: BackendFaults::default(),
            system: SystemFaults::default(),
            tls: TlsDraw::default(),
            http2: Http2Draw::default(),
        }
    }

    /// Whether the peer of this client's connection is a trusted proxy.
    pub(crate) fn is_trusted(&self, client: usize) -> bool {
        self.trusts_first && client_ip(client) == client_ip(0)
    }

    /// What every kernel may do to anybody at any time: in fault-free runs too.
    fn draw_socket_faults(&mut self, rng: &mut SplitMix64) {
        self.sockets.short_read = permille(rng, 300);
        self.sockets.short_write = permille(rng, 300);
        self.sockets.recv_blocks = permille(rng, 200);
        self.sockets.send_blocks = permille(rng, 200);
        self.sockets.interrupted = permille(rng, 60);
        if rng.below(6) == 0 && !self.crowd {
            self.sockets.tiny = true;
            self.sockets.window = rng.between(1, 200);
            // Few bytes at a time over a slow network would take longer than any timeout.
            self.sockets.delay = self.sockets.delay.min(20_000);
            self.max_body = self.max_body.min(3_000);
        }
        self.sockets.late_timer = permille(rng, 500);
    }

    fn draw_faults(&mut self, rng: &mut SplitMix64) {
        self.client = ClientFaults {
            slow_head: permille(rng, 200),
            slow_body: permille(rng, 300),
            slow_reader: permille(rng, 300),
            resets: permille(rng, 300),
            closes: permille(rng, 300),
            half_closes: permille(rng, 500),
            invalid_request: permille(rng, 400),
        };
        self.backend = BackendFaults {
            refuses: permille(rng, 300),
            unresponsive: permille(rng, 200),
            unreachable: permille(rng, 200),
            early: permille(rng, 300),
            truncates: permille(rng, 300),
            extra_bytes: permille(rng, 200),
            closes_on_reuse: permille(rng, 600),
            closes_idle: permille(rng, 600),
            resets: permille(rng, 300),
            closes: permille(rng, 300),
            never: permille(rng, 150),
            slow: permille(rng, 400),
            stalls: permille(rng, 150),
            stops_reading: permille(rng, 150),
            interim_storm: permille(rng, 150),
            garbage: permille(rng, 150),
            unrequested_upgrade: permille(rng, 100),
            mode_changes: if rng.below(2) == 0 { 0 } else { rng.between(1, 6) as u32 },
        };
        self.system = SystemFaults {
            slow_lookup: permille(rng, 500),
            lost_lookup: permille(rng, 300),
            double_lookup: permille(rng, 500),
            failed_lookup: permille(rng, 500),
            delayed_nudge: permille(rng, 800),
            reloads: if rng.below(2) == 0 { 0 } else { rng.between(1, 5) as u32 },
            drains: rng.below(4) == 0,
            files: if rng.below(5) == 0 { rng.between(2, 14) as u32 } else { 0 },
        };
        if rng.below(3) == 0 {
            self.page_limit = rng.between(3, 13);
        }
        if rng.below(5) == 0 {
            self.requests_per_connection = rng.between(1, 4);
        }
        self.has_catch_all = rng.below(3) > 0;
    }

    fn draw_pools(&mut self, rng: &mut SplitMix64) {
        let two = rng.below(3) == 0;
        for name in &POOLS[..1 + usize::from(two)] {
            let mut backends = Vec::new();
            // Backends without any difference: the check of round robin can count their requests.
            let equal = rng.below(3) == 0;
            for backend in 0..self.backend_count {
                if backends.is_empty() || rng.below(4) > 0 {
                    let drawn = self.draw_backend(rng, backend);
                    let plain = BackendSpec {
                        backend,
                        address: AddressKind::Ip,
                        weight: 1,
                        max_connections: 0,
                        backup: false,
                        tls: self.tls.is_backend(backend),
                        http2: self.http2.backends.is_backend(backend),
                    };
                    backends.push(if equal { plain } else { drawn });
                }
            }
            if !self.fault_free && rng.below(40) == 0 {
                backends.clear();
            }
            if let (Some(first), true) = (backends.first().cloned(), backends.iter().all(|b| b.weight == 0)) {
                backends[0] = BackendSpec { weight: 1, ..first };
            }
            let strategy = rng.pick(&["RoundRobin", "RoundRobin", "Random", "IPHash", "LeastConnection"]);
            let (sticky, middlewares) = (rng.below(6) == 0, Vec::new());
            let (chains, chain) = (Vec::new(), 0);
            self.pools.push(PoolSpec { name, backends, strategy, sticky, middlewares, chains, chain });
        }
    }

    /// Draws how a pool configures a backend.
    pub(crate) fn draw_backend(&self, rng: &mut SplitMix64, backend: usize) -> BackendSpec {
        let address = match rng.below(5) {
            0 => AddressKind::Name,
            1 => AddressKind::Unix,
            _ => AddressKind::Ip,
        };
        BackendSpec {
            backend,
            address,
            weight: if rng.below(3) == 0 { rng.below(6) as u32 } else { 1 },
            max_connections: if rng.below(4) == 0 { rng.between(1, 4) as u32 } else { 0 },
            backup: rng.below(8) == 0,
            tls: address != AddressKind::Unix && self.tls.is_backend(backend),
            http2: address != AddressKind::Unix && self.http2.backends.is_backend(backend),
        }
    }
}
