//! One request through a real proxy whose sockets are byte buffers: time stands still, every connection comes
//! about, every name has an address, every password is right, and a backend responds 200.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::asked::Sent;
use super::witness::{Deed, Deeds, Witnessed, Witnesses};
use crate::config::{Alpn, Config, Http2Use, ListenerKind, Protocol, TlsTarget};
use crate::event::{Accepted, Effect, Fault, LookupResult, Negotiated, Query};
use crate::id::{ConnId, ListenerId, LookupId};
use crate::proxy::Proxy;
use crate::route::Router;
use crate::shared::Shared;
use crate::time::Instant;

const NOW: Instant = Instant::from_millis(1_000);
/// Inputs after which a rehearsal is over, whatever is missing; a request needs a few dozen.
const MAX_INPUTS: usize = 100_000;
/// What names resolve to (RFC 5737).
pub(super) const SOME_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Bytes of content that the backend sends.
const CONTENT: usize = 16_384;
/// The head of its response.
pub(super) const RESPONSE: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 16384\r\n\r\n";

/// The proxy, and both ends of its connections.
pub(super) struct Rehearsal {
    proxy: Proxy<Witnesses>,
    deeds: Deeds,
    effects: Vec<Effect>,
    client: End,
    backend: Option<End>,
    inputs: usize,
    /// The handshake of TLS has failed: there is no certificate for the server's name.
    no_certificate: bool,
}

/// The far end of a connection.
struct End {
    conn: ConnId,
    /// On its way to the proxy.
    sends: Vec<u8>,
    sent: usize,
    got: Vec<u8>,
    /// It sends nothing before it has got a head.
    responds: bool,
}

/// What was seen.
pub(super) struct Seen {
    pub(super) witnesses: Witnesses,
    pub(super) deeds: Vec<Deed>,
    pub(super) to_backend: Option<Vec<u8>>,
    pub(super) to_client: Vec<u8>,
    pub(super) no_certificate: bool,
}

/// The same backend, if it spoke HTTP/1.1.
fn in_http1(protocol: &Protocol) -> Protocol {
    match protocol {
        Protocol::Https(target) => {
            let mut target = TlsTarget::clone(target);
            Arc::make_mut(&mut target.settings).alpn = Alpn::Http1;
            Protocol::Https(Arc::new(target))
        }
        Protocol::Http1 | Protocol::H2c => Protocol::Http1,
    }
}

impl Rehearsal {
    /// A proxy with this configuration, to which the request's client is connected.
    pub(super) fn of(config: &Config, sent: &Sent<'_>) -> Self {
        let mut config = config.clone();
        for pool in &mut config.pools {
            let pool = Arc::make_mut(pool);
            // Checks are no part of a request's way.
            pool.health.check_every = Duration::ZERO;
            // Heads are shown as those of HTTP/1.1, whatever is spoken.
            for backend in pool.backends.iter_mut().filter(|b| b.protocol.http2() == Http2Use::Always) {
                backend.protocol = in_http1(&backend.protocol);
            }
        }
        let deeds = Deeds::default();
        let factory = Arc::new(Witnessed(deeds.clone()));
        let shared = Arc::new(Shared::with_middlewares(sent.asked.hostname, 1, factory));
        let witnesses = Witnesses::new(Router::new(&config.pools));
        let listener = &config.listeners[usize::from(sent.listener)];
        let accepted = Accepted {
            listener: ListenerId(sent.listener),
            kind: listener.kind,
            peer: SocketAddr::new(sent.asked.peer, 50_000),
            local: listener.address,
        };
        let mut proxy = Proxy::new(Arc::new(config), shared, 0, 1, witnesses, NOW);
        proxy.handle_wall(sent.asked.wall);
        // A fresh proxy refuses nobody: every limit of connections is one at least.
        let conn = proxy.handle_accept(&accepted, NOW).unwrap_or(ConnId { slot: u32::MAX, epoch: 0 });
        let client = End { conn, sends: sent.bytes.clone(), sent: 0, got: Vec::new(), responds: false };
        let mut this = Self {
            proxy,
            deeds,
            effects: Vec::new(),
            client,
            backend: None,
            inputs: 0,
            no_certificate: false,
        };
        this.settle();
        if accepted.kind == ListenerKind::Https {
            this.shake_hands(sent);
        }
        this
    }

    fn shake_hands(&mut self, sent: &Sent<'_>) {
        // No address is a server's name (RFC 6066 §3).
        let is_address = sent.server.starts_with('[') || sent.server.parse::<Ipv4Addr>().is_ok();
        let server_name = (!is_address && !sent.server.is_empty()).then_some(sent.server);
        let certificate = (sent.asked.certificate)(server_name);
        self.no_certificate = certificate.is_none();
        if self.no_certificate {
            self.proxy.handle_fault(self.client.conn, Fault::UnrecognizedName, NOW);
        } else {
            let agreed = Negotiated {
                server_name,
                alpn: None,
                certificate,
                version: "TLSv1.3",
                cipher: "TLS_AES_256_GCM_SHA384",
                resumed: false,
                client_subject: None,
            };
            self.proxy.handle_negotiated(self.client.conn, &agreed, NOW);
        }
        self.settle();
    }

    /// Lets everything happen that happens by itself.
    pub(super) fn run(mut self) -> Seen {
        while self.inputs < MAX_INPUTS && self.step() {}
        let witnesses = std::mem::replace(
            self.proxy.observer_mut(),
            Witnesses::new(Router::new::<crate::config::Pool>(&[])),
        );
        Seen {
            witnesses,
            deeds: self.deeds.all(),
            to_backend: self.backend.map(|end| end.got),
            to_client: self.client.got,
            no_certificate: self.no_certificate,
        }
    }

    /// One thing that is due; false if nothing is.
    fn step(&mut self) -> bool {
        self.inputs += 1;
        if !self.effects.is_empty() {
            let effect = self.effects.remove(0);
            self.obey(effect);
            self.settle();
            return true;
        }
        let proxy = &mut self.proxy;
        let moved = self.client.pass(proxy) || self.backend.as_mut().is_some_and(|end| end.pass(proxy));
        if moved {
            self.settle();
        }
        moved
    }

    fn settle(&mut self) {
        while self.proxy.poll_conn().is_some() {}
        self.effects.extend(std::iter::from_fn(|| self.proxy.poll_effect()));
    }

    fn obey(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { conn, .. } => {
                let sends = [RESPONSE.as_bytes(), &vec![b'x'; CONTENT]].concat();
                self.backend = Some(End { conn, sends, sent: 0, got: Vec::new(), responds: true });
                self.proxy.handle_connected(conn, NOW);
            }
            Effect::Lookup { id, query } => self.look_up(id, &query),
            Effect::Shutdown(_)
            | Effect::Close(_)
            | Effect::Reset(_)
            | Effect::Nudge(_)
            | Effect::Drained => {}
        }
    }

    fn look_up(&mut self, id: LookupId, query: &Query) {
        let result = match query {
            Query::Resolve { port, .. } => {
                LookupResult::Addresses(vec![SocketAddr::new(SOME_ADDRESS, *port)])
            }
            Query::Authenticate { .. } => LookupResult::Authenticated(true),
            Query::Metrics { .. } | Query::Status => {
                LookupResult::Failed("there are no such pages here".into())
            }
        };
        self.proxy.handle_lookup(id, result, NOW);
    }
}

impl End {
    /// Gives or takes bytes; false if there is nothing to be done.
    fn pass(&mut self, proxy: &mut Proxy<Witnesses>) -> bool {
        self.give(proxy) || self.take(proxy)
    }

    /// Gives the proxy as much as it takes now; false if it takes nothing.
    fn give(&mut self, proxy: &mut Proxy<Witnesses>) -> bool {
        let waits = self.responds && !self.has_head();
        if waits || self.sent == self.sends.len() || !proxy.wants(self.conn).recv {
            return false;
        }
        let room = proxy.recv_buf(self.conn);
        let n = room.len().min(self.sends.len() - self.sent);
        if n == 0 {
            return false;
        }
        room[..n].copy_from_slice(&self.sends[self.sent..self.sent + n]);
        self.sent += n;
        proxy.handle_recv(self.conn, n, NOW);
        true
    }

    fn has_head(&self) -> bool {
        memchr::memmem::find(&self.got, b"\r\n\r\n").is_some()
    }

    /// Takes what the proxy has to send; false if there is nothing.
    fn take(&mut self, proxy: &mut Proxy<Witnesses>) -> bool {
        let before = self.got.len();
        for slice in proxy.transmit(self.conn).slices() {
            self.got.extend_from_slice(slice);
        }
        let n = self.got.len() - before;
        if n > 0 {
            proxy.handle_sent(self.conn, n, NOW);
        }
        n > 0
    }
}
