//! Clients that come to a port for TLS and never send a request over it. Each has to be told what is wrong,
//! or to be closed in time, and to harm nobody.

use super::Client;
use crate::coverage::Mark;
use crate::http1::ParsedHead;
use crate::net::{Net, PeerRead, PeerTls, Tamper};
use crate::random::SplitMix64;
use crate::scenario::{ClientTls, Stranger};
use crate::tls::{Endpoint, Failure};

/// Bytes of a handshake are about so many: what happens in it happens before.
const HANDSHAKE_BYTES: u64 = 400;

/// The TLS of a client; `None` if it speaks none.
pub(super) fn peer_tls(tls: &ClientTls) -> Option<PeerTls> {
    let mut rng = SplitMix64::new(tls.seed);
    let mut endpoint = Endpoint::client(tls.side.clone());
    (endpoint.fragment, endpoint.record) = (tls.fragment, tls.record);
    endpoint.corrupt_after = tls.corrupts;
    endpoint.start();
    let mut peer = PeerTls::new(endpoint, rng.next_u64());
    (peer.trickle, peer.updates) = (tls.trickle, tls.updates);
    (peer.omits_end, peer.keeps_stream) = (tls.omits_end, tls.keeps_stream);
    let within = rng.below(HANDSHAKE_BYTES + tls.side.hello.padding as u64);
    peer.tamper = match tls.stranger {
        None if tls.tampers => {
            let at = if rng.below(2) == 0 { within } else { rng.size(30_000) };
            Some((at, rng.pick(&[Tamper::Stall, Tamper::Cut, Tamper::Reset, Tamper::Garbage])))
        }
        Some(Stranger::Stalls) => Some((rng.below(within + 1), Tamper::Stall)),
        Some(Stranger::Cuts) => Some((within, Tamper::Cut)),
        Some(Stranger::Resets) => Some((within, Tamper::Reset)),
        Some(Stranger::Garbage) => Some((0, Tamper::Garbage)),
        Some(Stranger::PlainHttp) => return None,
        _ => None,
    };
    Some(peer)
}

impl Client {
    /// A turn of a client that sends no request over TLS.
    pub(super) fn stranger_turn(&mut self, net: &mut Net, socket: usize, stranger: Stranger) {
        if stranger == Stranger::PlainHttp && !std::mem::replace(&mut self.greeted, true) {
            net.peer_write(socket, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        }
        let found = net.peer_read(socket, 65_536, &mut self.reply);
        match found {
            PeerRead::Bytes => net.wake_peer(socket, net.now + 1),
            // Its handshake was over before it did harm: nobody has to end what says nothing.
            PeerRead::WouldBlock if net.has_shaken_hands(socket) => self.finish(net),
            PeerRead::WouldBlock => {}
            PeerRead::End | PeerRead::Reset => {
                self.stranger_ended(net, socket, stranger);
                self.finish(net);
            }
        }
    }

    /// The proxy has ended the connection of a stranger.
    fn stranger_ended(&self, net: &mut Net, socket: usize, stranger: Stranger) {
        net.trace(43, || format!("client {} is gone: {stranger:?}", self.index));
        // What a drain, or the loss of a connection, leaves unsaid.
        let s = &net.sockets[socket];
        let lost = net.drains() || !net.faults_on || s.peer_got_reset || s.closed_blocked;
        let failure = net.sockets[socket].tls.as_ref().and_then(|tls| tls.endpoint.failure());
        let told = match (stranger, stranger.alert()) {
            (Stranger::PlainHttp, _) => is_told_to_use_tls(&self.reply),
            (_, Some(code)) => failure == Some(Failure::Alert(code)),
            (_, None) => true,
        };
        if !self.reply.is_empty() && stranger != Stranger::PlainHttp {
            net.ledger.fail("stranger-gets-nothing", format!("client {}: {stranger:?}", self.index));
        }
        let timeout = net.scenario.timeouts.handshake;
        let late = timeout > 0 && net.now >= net.sockets[socket].times.opened + timeout;
        if told {
            net.mark(match stranger {
                Stranger::PlainHttp => Mark::PlainHttpTold,
                Stranger::HugeHello => Mark::HugeHello,
                _ if stranger.alert().is_some() => Mark::AlertTold,
                _ => Mark::StrangerEnded,
            });
        } else if !lost && !late {
            let details = format!("client {}: {stranger:?}, {failure:?}, {:?}", self.index, self.reply);
            net.ledger.fail("stranger-told", details);
        }
    }
}

/// A whole 400 in plain HTTP that says why.
fn is_told_to_use_tls(reply: &[u8]) -> bool {
    let Some(end) = reply.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let Some(head) = ParsedHead::parse(&reply[..end + 4]) else { return false };
    let length = head.number("content-length").ok().flatten();
    head.start == "HTTP/1.1 400 Bad Request"
        && head.lists("connection", "close")
        && head.get("proxy-status").is_ok_and(|v| v.is_some_and(|v| v.contains("plain_http_on_tls_port")))
        && length == Some((reply.len() - end - 4) as u64)
}
