//! What a seed draws of TLS: who speaks it, with which certificates, and what goes wrong with it. All of it
//! is drawn from numbers of its own: a seed without TLS is the run that it would be if there were none.

use std::fmt::Write as _;
use std::rc::Rc;

use super::{MS, Scenario};
use crate::random::{SplitMix64, mix};
use crate::tls::{Alpn, ClientHello, ClientSide, Served, alert};

/// The name that all backends of a pool are verified for, if the configuration says so.
pub(crate) const SERVER_NAME: &str = "pool.test";
/// Hosts that requests may be for.
const HOSTS: &[&str] = &["a.test", "x.w.test", "c.test", "b.w.test", "nobody.test"];

/// What a seed draws of TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsDraw {
    /// Thousandths of the clients that speak TLS.
    pub(crate) clients: u32,
    /// A bit for each backend that does.
    backends: u64,
    /// The certificate of `a.test` is the default.
    default: bool,
    /// Who asks for `c.test` needs a certificate.
    required: bool,
    /// All backends are verified for [`SERVER_NAME`].
    pub(crate) server_name: bool,
    /// Backends are verified.
    pub(crate) verify: bool,
    /// Backends that ask for a certificate get one.
    pub(crate) shows: bool,
    /// Of the connections, in thousandths.
    pub(crate) strangers: u32,
    pub(crate) trickles: u32,
    pub(crate) tampers: u32,
    pub(crate) corrupts: u32,
    pub(crate) omits_end: u32,
    pub(crate) keeps_stream: u32,
    pub(crate) misdirected: u32,
    pub(crate) forges: u32,
    pub(crate) bad_handshakes: u32,
    /// Of the writes.
    pub(crate) updates: u32,
    /// What the proxy reads goes through small pages only.
    pub(crate) big_records: bool,
}

/// How one client speaks TLS.
#[derive(Clone, Debug)]
pub(crate) struct ClientTls {
    pub(crate) side: ClientSide,
    /// Place of the certificate that it gets, and whether that asks for one of its own.
    pub(crate) certificate: usize,
    pub(crate) asks: bool,
    /// The host of its requests.
    pub(crate) host: &'static str,
    pub(crate) stranger: Option<Stranger>,
    pub(crate) trickle: Option<(usize, u64)>,
    pub(crate) tampers: bool,
    pub(crate) corrupts: Option<u32>,
    pub(crate) updates: u32,
    pub(crate) omits_end: bool,
    pub(crate) keeps_stream: bool,
    pub(crate) fragment: usize,
    pub(crate) record: usize,
    /// For whatever else is drawn for it.
    pub(crate) seed: u64,
}

/// A client that never sends a request over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// It speaks HTTP without TLS.
    PlainHttp,
    /// It sends what is neither.
    Garbage,
    /// It stops somewhere in the handshake, and waits.
    Stalls,
    /// It ends its stream somewhere in the handshake.
    Cuts,
    Resets,
    /// It asks for a name that nobody has a certificate for.
    UnknownName,
    /// It offers protocols that nobody speaks.
    OtherProtocols,
    /// It has no certificate where one is required.
    NoCertificate,
    /// It does not believe the server.
    Refuses,
    /// Its first message does not end.
    HugeHello,
    /// Every byte of its handshake takes long.
    Trickles,
}

impl Stranger {
    const ALL: [Self; 11] = [
        Self::PlainHttp,
        Self::Garbage,
        Self::Stalls,
        Self::Cuts,
        Self::Resets,
        Self::UnknownName,
        Self::OtherProtocols,
        Self::NoCertificate,
        Self::Refuses,
        Self::HugeHello,
        Self::Trickles,
    ];

    /// The alert that it has to get.
    pub(crate) fn alert(self) -> Option<u8> {
        match self {
            Self::UnknownName => Some(alert::UNRECOGNIZED_NAME),
            Self::OtherProtocols => Some(alert::NO_APPLICATION_PROTOCOL),
            Self::NoCertificate => Some(alert::CERTIFICATE_REQUIRED),
            Self::Garbage | Self::HugeHello => Some(alert::UNEXPECTED_MESSAGE),
            _ => None,
        }
    }
}

/// How likely something is, in thousandths: off in half of the runs, else up to `max`. There are fewer
/// connections with TLS than calls of a socket, so it is not mostly little.
fn often(rng: &mut SplitMix64, max: u64) -> u32 {
    if rng.below(2) == 0 { 0 } else { rng.between(20, max) as u32 }
}

impl TlsDraw {
    /// Whether this backend speaks TLS.
    pub(crate) fn is_backend(&self, backend: usize) -> bool {
        self.backends >> (backend & 63) & 1 == 1
    }

    /// Whether any does.
    pub(crate) fn has_backends(&self) -> bool {
        self.backends > 0
    }

    /// The certificates that clients choose from, in the order of the configuration.
    pub(crate) fn served(&self) -> Rc<[Served]> {
        let of = |name: &str, default, asks, requires| Served { name: name.into(), default, asks, requires };
        if self.clients == 0 {
            return [].into();
        }
        [
            of("a.test", self.default, false, false),
            of("*.w.test", false, false, false),
            of("c.test", false, true, self.required),
        ]
        .into()
    }

    /// Whether a connection with the certificate at this place may carry a request for a host.
    pub(crate) fn serves(&self, certificate: usize, host: &str) -> bool {
        match host {
            "a.test" => certificate == 0,
            "c.test" => certificate == 2,
            _ if host.ends_with(".w.test") => certificate == 1,
            _ => self.default && certificate == 0,
        }
    }
}

impl Scenario {
    /// Draws who speaks TLS: in a third of the runs somebody.
    pub(super) fn draw_tls(&mut self) {
        let rng = &mut SplitMix64::new(mix(self.seed ^ 0x715));
        if rng.below(3) > 0 {
            return;
        }
        let (clients, backends) = rng.pick(&[(true, true), (true, false), (true, false), (false, true)]);
        let tls = &mut self.tls;
        tls.clients = if clients { rng.pick(&[300, 700, 1000]) } else { 0 };
        tls.backends = if backends { rng.pick(&[u64::MAX, u64::MAX, rng.clone().next_u64() | 1]) } else { 0 };
        if backends {
            // Every health check shakes hands: byte by byte that would be more events than a run may have.
            self.sockets.window = self.sockets.window.max(8);
        }
        tls.default = rng.below(2) == 0;
        tls.required = rng.below(2) == 0;
        tls.server_name = rng.below(3) == 0;
        tls.verify = self.fault_free || rng.below(6) > 0;
        tls.shows = rng.below(2) == 0;
        tls.updates = often(rng, 600);
        tls.big_records = rng.below(2) == 0;
        if !self.fault_free {
            tls.strangers = often(rng, 500);
            tls.trickles = often(rng, 300);
            tls.tampers = often(rng, 300);
            tls.corrupts = often(rng, 200);
            tls.omits_end = often(rng, 600);
            tls.keeps_stream = often(rng, 600);
            tls.misdirected = often(rng, 300);
            tls.forges = often(rng, 600);
            tls.bad_handshakes = often(rng, 400);
        }
    }

    /// Draws the time for a handshake.
    pub(super) fn draw_handshake_timeout(&mut self) {
        if self.tls.clients == 0 {
            return;
        }
        let rng = &mut SplitMix64::new(mix(self.seed ^ 0x715_0001));
        let ms = if self.fault_free || rng.below(10) == 0 { 0 } else { rng.between(200, 4_000) };
        self.timeouts.handshake = ms * MS;
        let line = format!("[timeouts]\nhandshake = \"{ms}ms\"\n");
        self.settings = self.settings.replacen("[timeouts]\n", &line, 1);
        for served in &*self.tls.served() {
            let name = &served.name;
            writeln!(self.settings, "[certificates.\"{name}\"]").expect("memory");
            if served.default {
                self.settings.push_str("default = true\n");
            }
            if served.asks {
                let auth = if served.requires { "required" } else { "optional" };
                writeln!(self.settings, "client_ca = \"ca.pem\"\nclient_auth = \"{auth}\"").expect("memory");
            }
            self.settings
                .push_str("Local = { certificate_path = \"c.pem\", private_key_path = \"k.pem\" }\n");
        }
    }

    /// `[backend_pools.tls]` of a pool.
    pub(super) fn backend_tls_text(&self) -> String {
        let tls = &self.tls;
        let mut text = String::new();
        if tls.has_backends() && (tls.server_name || !tls.verify || tls.shows) {
            writeln!(text, "[backend_pools.tls]\nverify = {}", tls.verify).expect("memory");
            if tls.server_name {
                writeln!(text, "server_name = \"{SERVER_NAME}\"").expect("memory");
            }
            if tls.shows {
                text.push_str("client_certificate = \"proxy.pem\"\nclient_key = \"proxy.key\"\n");
            }
        }
        text
    }

    /// How a client speaks TLS; `None`: it does not. The same whenever it is asked.
    pub(crate) fn client_tls(&self, index: usize) -> Option<ClientTls> {
        let tls = &self.tls;
        let rng = &mut SplitMix64::new(mix(self.seed ^ mix(0xc11e ^ index as u64)));
        if !rng.chance(tls.clients) {
            return None;
        }
        let served = tls.served();
        // Those that come last have to be served.
        let well_behaved = self.fault_free || index >= self.clients;
        let names = [Some("a.test"), Some("a.test"), Some("A.TesT."), Some("x.w.test"), Some("c.test"), None];
        let of_default = if tls.default { names.len() } else { names.len() - 1 };
        let name = names[rng.below(of_default as u64) as usize];
        let (certificate, host) = match name {
            Some("x.w.test") => (1, "x.w.test"),
            Some("c.test") => (2, "c.test"),
            _ => (0, "a.test"),
        };
        let (asks, requires) = (served[certificate].asks, served[certificate].requires);
        let stranger = (!well_behaved && rng.chance(tls.strangers)).then(|| rng.pick(&Stranger::ALL));
        let stranger = stranger.map(|kind| match kind {
            // They would be served.
            Stranger::UnknownName if tls.default => Stranger::OtherProtocols,
            Stranger::NoCertificate if !tls.required => Stranger::OtherProtocols,
            Stranger::HugeHello if self.sockets.tiny => Stranger::Garbage,
            other => other,
        });
        let shown = asks && (requires || rng.below(2) == 0);
        let mut side = ClientSide {
            hello: ClientHello {
                random: rng.next_u64(),
                newest: rng.below(3) > 0,
                resumes: rng.below(4) == 0,
                alpn: rng.pick(&[Alpn::Http1, Alpn::Http1, Alpn::None]),
                name: name.map(str::to_owned),
                padding: rng.below(300) as usize,
            },
            expects: None,
            subject: shown.then(|| format!("CN=client{index}")),
            refuses: None,
        };
        let fault = |rng: &mut SplitMix64, permille: u32| !well_behaved && rng.chance(permille);
        let mut client = ClientTls {
            certificate,
            asks,
            host,
            stranger,
            trickle: fault(rng, tls.trickles)
                .then(|| (1 + rng.size(200) as usize, rng.between(MS, 200 * MS))),
            tampers: fault(rng, tls.tampers),
            corrupts: fault(rng, tls.corrupts).then(|| rng.size(200) as u32),
            updates: tls.updates,
            omits_end: fault(rng, tls.omits_end),
            keeps_stream: fault(rng, tls.keeps_stream),
            fragment: rng.pick(&[16_384, 16_384, 1, 100]),
            record: if tls.big_records { 16_384 } else { rng.pick(&[16_384, 1, 60, 3_000]) },
            seed: rng.next_u64(),
            side: ClientSide::default(),
        };
        match stranger {
            Some(Stranger::UnknownName) => side.hello.name = Some("unknown.test".into()),
            Some(Stranger::OtherProtocols) => side.hello.alpn = Alpn::Others,
            Some(Stranger::NoCertificate) => {
                side.hello.name = Some("c.test".into());
                side.subject = None;
            }
            Some(Stranger::Refuses) => side.refuses = Some(alert::BAD_CERTIFICATE),
            Some(Stranger::HugeHello) => (side.hello.padding, client.fragment) = (60_000, 16_384),
            Some(Stranger::Trickles) => client.trickle = Some((1, rng.between(20 * MS, 400 * MS))),
            _ => {}
        }
        // Through a window of a byte it would take for ever.
        if stranger.is_none() && !self.sockets.tiny && rng.below(8) == 0 {
            (side.hello.padding, client.fragment) = (30_000, 16_384);
        }
        if stranger.is_some() {
            (client.tampers, client.corrupts) = (false, None);
        } else {
            side.expects = Some(host.to_owned());
            if self.draws_http2(index).is_some() {
                side.hello.alpn = Alpn::Http2;
            }
        }
        client.side = side;
        Some(client)
    }

    /// Whether a request claims that its client has shown a certificate.
    pub(crate) fn forges(&self, id: u64) -> bool {
        SplitMix64::new(mix(self.seed ^ mix(0xf0e ^ id))).chance(self.tls.forges)
    }

    /// The host of a request, and whether the certificate of its connection is not for that.
    pub(crate) fn host_of(&self, client: usize, id: u64, well_behaved: bool) -> (&'static str, bool) {
        let Some(tls) = self.client_tls(client) else { return ("a.test", false) };
        let rng = &mut SplitMix64::new(mix(self.seed ^ mix(0x421 ^ id)));
        if well_behaved || !rng.chance(self.tls.misdirected) {
            return (tls.host, false);
        }
        let host = rng.pick(HOSTS);
        (host, !self.tls.serves(tls.certificate, host))
    }
}
