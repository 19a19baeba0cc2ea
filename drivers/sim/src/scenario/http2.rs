//! What a seed draws of HTTP/2: which clients and backends speak it, and what they do with it. All of it is
//! drawn from numbers of its own: a seed without HTTP/2 is the run that it would be if there were none.

use std::fmt::Write as _;

use super::{MS, Scenario};
use crate::random::{SplitMix64, mix};

/// What a seed draws of HTTP/2.
#[derive(Clone, Debug, Default)]
pub(crate) struct Http2Draw {
    /// Thousandths of the clients that speak it.
    pub(crate) clients: u32,
    /// Of the streams, in thousandths.
    pub(crate) resets: u32,
    pub(crate) stalls: u32,
    /// Of the connections.
    goaways: u32,
    invalid: u32,
    /// Of the chances to send a frame that nobody waits for.
    pub(crate) pings: u32,
    pub(crate) settings: u32,
    pub(crate) priorities: u32,
    pub(crate) unknown: u32,
    /// Of the frames that can have it.
    pub(crate) padding: u32,
    pub(crate) splits: u32,
    /// Of the configuration: what all streams of a connection may have under way to the proxy, and how many
    /// there may be.
    pub(crate) connection_window: u32,
    pub(crate) max_streams: u32,
    pub(crate) backends: BackendsHttp2,
    /// Of the requests over HTTP/2, and of the upgrades over HTTP/1.1, in thousandths: those for WebSockets.
    websockets: (u32, u32),
}

/// What a seed draws of backends that speak HTTP/2.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackendsHttp2 {
    /// A bit for each backend that does.
    backends: u64,
    /// Of the streams, in thousandths: refused before they are looked at, reset, given no credit, answered by
    /// what is no response.
    pub(crate) refuses: u32,
    pub(crate) resets: u32,
    pub(crate) stalls: u32,
    pub(crate) malformed: u32,
    /// A bit for each backend that takes WebSockets, and how many connections say something else, in
    /// thousandths.
    websockets: u64,
    websockets_change: u32,
    /// Of the connections.
    goaways: u32,
    freezes: u32,
    deaf: u32,
    cuts: u32,
    slow: u32,
    offences: u32,
    /// Of the chances to send a frame that nobody waits for.
    pub(crate) pings: u32,
    pub(crate) settings: u32,
    pub(crate) unknown: u32,
    /// Of the frames that can have it.
    pub(crate) padding: u32,
    pub(crate) splits: u32,
}

impl BackendsHttp2 {
    /// Whether this backend speaks HTTP/2, where it is not connected to by a Unix socket.
    pub(crate) fn is_backend(&self, backend: usize) -> bool {
        self.backends >> (backend & 63) & 1 == 1
    }

    /// Some may not take WebSockets.
    pub(crate) fn refuses_websockets(&self) -> bool {
        self.websockets != u64::MAX || self.websockets_change > 0
    }
}

/// More bytes than any connection carries.
const IN_A_FRAME: u64 = 1 << 40;

/// How a backend leaves a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It says that it will tell the last stream, and tells it later.
    Gracefully,
    /// It takes no further stream at once.
    AtOnce,
}

/// How a backend speaks HTTP/2 on one connection.
#[derive(Clone, Debug)]
pub(crate) struct BackendHttp2 {
    /// For whatever else is drawn for it.
    pub(crate) seed: u64,
    /// `None`: it does not say.
    pub(crate) max_streams: Option<u32>,
    pub(crate) table: Option<u32>,
    /// What streams begin with, and what they are given room for again and again.
    pub(crate) initial_window: u32,
    pub(crate) stream_target: i64,
    pub(crate) connection_target: i64,
    /// The longest time from one time that it gives credit back to the next.
    pub(crate) grant_delay: u64,
    /// The longest time that it takes for the acknowledgement of SETTINGS.
    pub(crate) ack_delay: u64,
    pub(crate) max_frame: u32,
    pub(crate) plain_blocks: bool,
    /// It leaves behind so many streams.
    pub(crate) leaves: Option<(usize, Leaving)>,
    /// It neither reads nor writes behind so many bytes that it has written, or in the middle of a frame that
    /// takes all the credit of its stream.
    pub(crate) freezes: Option<u64>,
    /// It never acknowledges SETTINGS.
    pub(crate) deaf: bool,
    /// It ends the connection behind so many bytes; true: by a reset.
    pub(crate) cut: Option<(u64, bool)>,
    /// Bytes of one write, and the time between two.
    pub(crate) slow: Option<(usize, u64)>,
    /// It does what no backend may do behind so many streams.
    pub(crate) offends: Option<usize>,
    /// It announces that it takes WebSockets.
    pub(crate) websockets: bool,
}

/// How one client speaks HTTP/2.
#[derive(Clone, Debug)]
pub(crate) struct ClientHttp2 {
    /// For whatever else is drawn for it.
    pub(crate) seed: u64,
    /// Streams that it has open at once, at most.
    pub(crate) concurrency: usize,
    /// What streams begin with, and what they are given room for again and again.
    pub(crate) initial_window: u32,
    pub(crate) stream_target: i64,
    pub(crate) connection_target: i64,
    /// The longest time from one time that it gives credit back to the next.
    pub(crate) grant_delay: u64,
    /// The longest time that it takes for the acknowledgement of SETTINGS.
    pub(crate) ack_delay: u64,
    pub(crate) max_frame: u32,
    /// It waits for the proxy's SETTINGS before its first request.
    pub(crate) waits_for_settings: bool,
    /// It opens streams until it knows for which it is too late.
    pub(crate) opens_in_drain: bool,
    /// Its field blocks depend on nothing that came before.
    pub(crate) plain_blocks: bool,
    /// Once it has all responses it does something that no client may do.
    pub(crate) invalid: bool,
    /// It tells the proxy that it goes after so many streams.
    pub(crate) goes_after: Option<usize>,
}

impl Scenario {
    /// Draws which clients speak HTTP/2: in a third of the runs somebody does.
    pub(super) fn draw_http2(&mut self) {
        let rng = &mut SplitMix64::new(mix(self.seed ^ 0x42));
        if rng.below(3) > 0 {
            return;
        }
        let often =
            |rng: &mut SplitMix64, max: u64| if rng.below(2) == 0 { 0 } else { rng.between(10, max) as u32 };
        let draw = &mut self.http2;
        draw.clients = rng.pick(&[300, 700, 1000]);
        draw.stalls = often(rng, 500);
        draw.pings = often(rng, 300);
        draw.settings = often(rng, 100);
        draw.priorities = often(rng, 500);
        draw.unknown = often(rng, 200);
        draw.padding = often(rng, 500);
        draw.splits = often(rng, 500);
        if !self.fault_free {
            draw.resets = often(rng, 400);
            draw.goaways = often(rng, 300);
            draw.invalid = often(rng, 500);
        }
    }

    /// Draws who opens WebSockets, and which backends of HTTP/2 take them.
    pub(super) fn draw_websockets(&mut self) {
        let rng = &mut SplitMix64::new(mix(self.seed ^ 0x6455));
        self.http2.websockets = (rng.pick(&[0, 100, 400]), rng.pick(&[0, 500, 1000]));
        let draw = &mut self.http2.backends;
        draw.websockets = rng.pick(&[u64::MAX, u64::MAX, 0, rng.clone().next_u64()]);
        if !self.fault_free {
            draw.websockets_change = rng.pick(&[0, 0, 100]);
        }
    }

    /// Whether a request that can be one is for a WebSocket. The same whenever it is asked.
    pub(crate) fn is_websocket(&self, id: u64, streams: bool) -> bool {
        let (over_http2, over_http1) = self.http2.websockets;
        let rng = &mut SplitMix64::new(mix(self.seed ^ mix(0x6456 ^ id << 8)));
        rng.chance(if streams { over_http2 } else { over_http1 })
    }

    /// Draws which backends speak HTTP/2: in a third of the runs some do.
    pub(super) fn draw_http2_backends(&mut self) {
        let rng = &mut SplitMix64::new(mix(self.seed ^ 0x4244));
        if rng.below(3) > 0 {
            return;
        }
        let often =
            |rng: &mut SplitMix64, max: u64| if rng.below(2) == 0 { 0 } else { rng.between(10, max) as u32 };
        let draw = &mut self.http2.backends;
        draw.backends = rng.pick(&[u64::MAX, u64::MAX, rng.clone().next_u64() | 1]);
        draw.stalls = rng.pick(&[0, 200, 500]);
        draw.pings = often(rng, 200);
        draw.settings = often(rng, 100);
        draw.unknown = often(rng, 100);
        draw.padding = often(rng, 500);
        draw.splits = often(rng, 500);
        // Every check of health is a connection of HTTP/2: byte by byte that would be more events than a run
        // may have.
        self.sockets.window = self.sockets.window.max(8);
        if !self.fault_free {
            draw.refuses = often(rng, 300);
            draw.resets = often(rng, 300);
            draw.malformed = often(rng, 300);
            draw.goaways = rng.pick(&[0, 300, 700]);
            draw.freezes = rng.pick(&[0, 100, 400]);
            draw.deaf = often(rng, 200);
            draw.cuts = often(rng, 400);
            draw.slow = often(rng, 400);
            draw.offences = often(rng, 400);
        }
    }

    /// How a backend speaks HTTP/2 on the connection with this number. The same whenever it is asked.
    /// `faults`: it may do something wrong.
    pub(crate) fn backend_http2(&self, backend: usize, socket: usize, faults: bool) -> BackendHttp2 {
        let draw = &self.http2.backends;
        let rng = &mut SplitMix64::new(mix(self.seed ^ mix(0x4245 ^ socket as u64)));
        let fault = |rng: &mut SplitMix64, permille: u32| rng.chance(permille) && faults;
        let least = (self.max_body / 100).max(64);
        let target = |rng: &mut SplitMix64| {
            let drawn = [least + rng.size(self.max_body), 65_535, 65_535, 200_000, 1 << 20];
            rng.pick(&drawn) as i64
        };
        let changes =
            SplitMix64::new(mix(self.seed ^ mix(0x6457 ^ socket as u64))).chance(draw.websockets_change);
        BackendHttp2 {
            seed: rng.next_u64(),
            max_streams: rng.pick(&[None, None, Some(100), Some(1), Some(2), Some(3), Some(5)]),
            table: rng.pick(&[None, None, Some(0), Some(100), Some(4_096), Some(20_000)]),
            initial_window: rng.pick(&[65_535, 65_535, 0, rng.clone().size(100_000) as u32, 1 << 20]),
            stream_target: target(rng),
            connection_target: target(rng),
            grant_delay: rng.pick(&[0, 0, 2 * MS, 30 * MS]),
            ack_delay: rng.pick(&[0, 0, 20 * MS]),
            max_frame: rng.pick(&[16_384, 16_384, 16_385, 60_000, 1 << 20]),
            plain_blocks: rng.below(4) == 0,
            leaves: fault(rng, draw.goaways).then(|| {
                let how = if rng.below(2) == 0 { Leaving::Gracefully } else { Leaving::AtOnce };
                (rng.below(6) as usize, how)
            }),
            freezes: fault(rng, draw.freezes).then(|| {
                let within = rng.size(20_000);
                if rng.below(2) == 0 { IN_A_FRAME } else { within }
            }),
            deaf: fault(rng, draw.deaf),
            cut: fault(rng, draw.cuts).then(|| (rng.size(50_000), rng.below(2) == 0)),
            slow: fault(rng, draw.slow).then(|| (1 + rng.size(2_000) as usize, rng.between(MS, 100 * MS))),
            offends: fault(rng, draw.offences).then(|| rng.below(6) as usize),
            websockets: (draw.websockets >> (backend & 63) & 1 == 1) != changes,
        }
    }

    /// Draws the settings of HTTP/2.
    pub(super) fn draw_http2_settings(&mut self) {
        let draw = &mut self.http2;
        (draw.connection_window, draw.max_streams) = (1 << 20, 100);
        let rng = &mut SplitMix64::new(mix(self.seed ^ 0x4243));
        if draw.clients == 0 || self.defaults || rng.below(3) == 0 {
            return;
        }
        draw.connection_window = rng.pick(&[65_535, 65_535, 100_000, 1 << 20]);
        draw.max_streams = rng.pick(&[1, 2, 5, 100]);
        let text = &mut self.settings;
        writeln!(text, "[http2]\nconnection_window = {}", draw.connection_window).expect("memory");
        writeln!(text, "max_concurrent_streams = {}", draw.max_streams).expect("memory");
        writeln!(text, "initial_window = {}", rng.pick(&[16_384, 16_384, 65_535, 200_000])).expect("memory");
        writeln!(text, "max_frame_size = {}", rng.pick(&[16_384, 16_384, 50_000])).expect("memory");
        writeln!(text, "header_table_size = {}", rng.pick(&[4_096, 4_096, 0, 300, 10_000])).expect("memory");
    }

    /// What is drawn from for a client that speaks HTTP/2, unless it says nothing at all over TLS.
    pub(super) fn draws_http2(&self, index: usize) -> Option<SplitMix64> {
        let mut rng = SplitMix64::new(mix(self.seed ^ mix(0x4242 ^ index as u64)));
        (rng.chance(self.http2.clients) && self.admin_request(index).is_none()).then_some(rng)
    }

    /// How a client speaks HTTP/2; `None`: it does not. The same whenever it is asked.
    pub(crate) fn client_http2(&self, index: usize) -> Option<ClientHttp2> {
        let draw = &self.http2;
        let rng = &mut self.draws_http2(index)?;
        if self.client_tls(index).is_some_and(|tls| tls.stranger.is_some()) {
            return None;
        }
        // Those that come last have to be served.
        let well_behaved = self.fault_free || index >= self.clients;
        // Few bytes at a time would take more updates than a client may send.
        let least = (self.max_body / 100).max(64);
        let target = |rng: &mut SplitMix64| {
            let drawn = [least + rng.size(self.max_body), 65_535, 65_535, 200_000, 1 << 20];
            rng.pick(&drawn) as i64
        };
        Some(ClientHttp2 {
            seed: rng.next_u64(),
            concurrency: rng.pick(&[1, 3, 8, 16]),
            initial_window: rng.pick(&[65_535, 65_535, rng.clone().size(100_000) as u32, 1 << 20]),
            stream_target: target(rng),
            connection_target: target(rng),
            grant_delay: rng.pick(&[0, 0, 2 * MS, 30 * MS]),
            ack_delay: rng.pick(&[0, 0, 20 * MS]),
            max_frame: rng.pick(&[16_384, 16_384, 16_385, 60_000, 1 << 20]),
            waits_for_settings: rng.below(2) == 0,
            opens_in_drain: rng.below(2) == 0,
            plain_blocks: rng.below(4) == 0,
            invalid: !well_behaved && rng.chance(draw.invalid),
            goes_after: (!well_behaved && rng.chance(draw.goaways)).then(|| rng.below(6) as usize),
        })
    }
}
