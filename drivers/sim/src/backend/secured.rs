//! How a backend speaks TLS on one connection, and what it does wrong with it.

use super::BackendConn;
use crate::coverage::Mark;
use crate::net::{BackendMode, Net, PeerTls, Tamper};
use crate::random::{SplitMix64, mix};
use crate::scenario::{MS, SERVER_NAME, backend_address};
use crate::tls::{Alpn, CertificateKind, Endpoint, ServerHello, ServerSide, alert};

/// Bytes of a handshake are about so many.
const HANDSHAKE_BYTES: u64 = 300;

/// What a backend does wrong with a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BadHandshake {
    Certificate(CertificateKind),
    WrongName,
    /// It does not like the client.
    Alert,
    /// It wants a certificate.
    Asks,
    /// It says so behind the handshake.
    AsksLate,
    /// It speaks HTTP without TLS.
    PlainHttp,
    Tampers(Tamper),
    Corrupts,
    Trickles,
}

const CERTIFICATES: [BadHandshake; 6] = [
    BadHandshake::WrongName,
    BadHandshake::Certificate(CertificateKind::UnknownCa),
    BadHandshake::Certificate(CertificateKind::Expired),
    BadHandshake::Certificate(CertificateKind::NotYetValid),
    BadHandshake::Certificate(CertificateKind::BadCertificate),
    BadHandshake::WrongName,
];
const OTHERS: [BadHandshake; 10] = [
    BadHandshake::Alert,
    BadHandshake::Asks,
    BadHandshake::AsksLate,
    BadHandshake::PlainHttp,
    BadHandshake::Tampers(Tamper::Stall),
    BadHandshake::Tampers(Tamper::Cut),
    BadHandshake::Tampers(Tamper::Reset),
    BadHandshake::Tampers(Tamper::Garbage),
    BadHandshake::Corrupts,
    BadHandshake::Trickles,
];

impl BackendConn {
    /// The proxy has connected with TLS: draws how the backend speaks it.
    pub(super) fn secure(&mut self, net: &mut Net) {
        if !net.sockets[self.socket].secure {
            return;
        }
        let rng = &mut SplitMix64::new(mix(net.scenario.seed ^ mix(0xbac0 ^ self.socket as u64)));
        let draw = net.scenario.tls.clone();
        let failing = net.faults_on && net.backend_modes[self.backend] == BackendMode::FailingHandshakes;
        let bad = if failing {
            // The same for all its connections: the last part of the number says what.
            let what = (mix(net.scenario.seed) as usize).wrapping_add(self.backend);
            Some(CERTIFICATES[what % CERTIFICATES.len()])
        } else if net.faults_on && rng.chance(draw.bad_handshakes) {
            Some(if rng.below(2) == 0 { rng.pick(&CERTIFICATES) } else { rng.pick(&OTHERS) })
        } else {
            None
        };
        let addresses = [false, true].map(|second| backend_address(self.backend, second).ip().to_string());
        let names = addresses.into_iter().chain([format!("m{}.test", self.backend), SERVER_NAME.to_owned()]);
        let hello = ServerHello {
            random: rng.next_u64(),
            alpn: Alpn::Http1,
            asks: rng.below(3) == 0,
            certificate: CertificateKind::Good,
            names: names.collect(),
        };
        let http1_only = !net.scenario.http2.backends.is_backend(self.backend);
        let mut side = ServerSide { hello, tickets: rng.below(3), http1_only, ..ServerSide::default() };
        let mut tamper = None;
        let mut trickle = None;
        let mut corrupts = None;
        if let Some(bad) = bad {
            net.trace(26, || format!("backend {} on {}: {bad:?}", self.backend, self.socket));
            net.mark(Mark::BadHandshake);
        }
        let blame = &mut net.sockets[self.socket].blame;
        match bad {
            Some(BadHandshake::Certificate(kind)) => {
                side.hello.certificate = kind;
                blame.push(match kind {
                    CertificateKind::Good => "",
                    CertificateKind::UnknownCa => "backend_tls_unknown_ca",
                    CertificateKind::Expired => "backend_tls_expired",
                    CertificateKind::NotYetValid => "backend_tls_not_yet_valid",
                    CertificateKind::BadCertificate => "backend_tls_bad_certificate",
                });
            }
            Some(BadHandshake::WrongName) => {
                side.hello.names = vec!["wrong.test".to_owned()];
                blame.push("backend_tls_wrong_name");
            }
            Some(BadHandshake::Alert) => {
                side.refuses = Some(alert::HANDSHAKE_FAILURE);
                blame.push("backend_tls_refused");
            }
            Some(BadHandshake::Asks | BadHandshake::AsksLate) => {
                side.hello.asks = true;
                side.requires = bad == Some(BadHandshake::Asks);
                side.refuses_late = !side.requires;
                if !draw.shows {
                    blame.push("backend_tls_client_certificate");
                }
            }
            Some(BadHandshake::PlainHttp) => {
                blame.push("backend_tls_not_tls");
                self.speaks_plainly = true;
                return;
            }
            Some(BadHandshake::Tampers(what)) => {
                let at = if rng.below(2) == 0 { rng.below(HANDSHAKE_BYTES) } else { rng.size(30_000) };
                tamper = Some((at, what));
            }
            Some(BadHandshake::Corrupts) => {
                blame.push("backend_tls_protocol");
                corrupts = Some(rng.size(60) as u32);
            }
            Some(BadHandshake::Trickles) => {
                trickle = Some((1 + rng.below(60) as usize, rng.between(MS, 100 * MS)));
            }
            None => {}
        }
        let mut endpoint = Endpoint::server(side);
        endpoint.corrupt_after = corrupts;
        endpoint.fragment = rng.pick(&[16_384, 16_384, 1, 100]);
        endpoint.record = if draw.big_records { 16_384 } else { rng.pick(&[16_384, 16_384, 1, 60, 3_000]) };
        let mut peer = PeerTls::new(endpoint, rng.next_u64());
        (peer.tamper, peer.trickle, peer.updates) = (tamper, trickle, draw.updates);
        peer.omits_end = rng.chance(draw.omits_end);
        peer.keeps_stream = rng.chance(draw.keeps_stream);
        net.secure_peer(self.socket, peer);
    }

    /// It answers the first bytes of a handshake in HTTP.
    pub(super) fn answer_plainly(&mut self, net: &mut Net) {
        net.mark(Mark::BackendWithoutTls);
        let reply = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        net.peer_write(self.socket, reply);
        self.close(net, false);
    }
}
