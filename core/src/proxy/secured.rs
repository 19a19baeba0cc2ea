//! What TLS has agreed on with clients, and what follows from it: whose requests a connection may carry, and
//! what backends and the log are told.

use super::Proxy;
use crate::cause::Cause;
use crate::config::ListenerKind;
use crate::conn::Role;
use crate::event::{Fault, Negotiated};
use crate::h1::ClientCertificate;
use crate::http::Violation;
use crate::id::{ConnId, ExchangeId};
use crate::observe::{Observer, Step, Tls};
use crate::planted::planted;
use crate::time::Instant;

/// What was agreed on with one client.
#[derive(Debug)]
pub(super) struct Secured {
    server_name: Box<str>,
    version: &'static str,
    cipher: &'static str,
    resumed: bool,
    /// Name of the certificate that the client was shown: its identity over reloads.
    certificate: Box<str>,
    /// Its place in the configuration of this generation; `None`: it is not there.
    place: Option<u16>,
    generation: u32,
    /// The last host that was found to be served under that configuration: mostly it is the next one too.
    host: Vec<u8>,
    /// Whose certificate the client has shown; empty: none.
    subject: Box<str>,
    /// Clients are asked for a certificate.
    asks: bool,
}

impl Secured {
    /// For the log.
    pub(super) fn told(&self) -> Tls<'_> {
        Tls {
            version: self.version,
            cipher: self.cipher,
            server_name: &self.server_name,
            resumed: self.resumed,
            client_subject: &self.subject,
        }
    }

    /// For backends.
    pub(super) fn client_certificate(&self) -> Option<ClientCertificate<'_>> {
        self.asks.then_some(ClientCertificate {
            verify: if self.subject.is_empty() { "NONE" } else { "SUCCESS" },
            subject: self.subject.as_bytes(),
        })
    }
}

/// What was agreed on with each client, by the slot of its connection.
#[derive(Debug, Default)]
pub(super) struct SecuredClients {
    by_slot: Vec<Option<Box<Secured>>>,
    /// Handshakes that have failed.
    pub(super) failed: u64,
}

impl SecuredClients {
    /// Nothing yet, or a connection without TLS.
    #[inline]
    pub(super) fn get(&self, c: ConnId) -> Option<&Secured> {
        self.by_slot.get(c.slot as usize)?.as_deref()
    }

    #[inline]
    fn get_mut(&mut self, c: ConnId) -> Option<&mut Secured> {
        self.by_slot.get_mut(c.slot as usize)?.as_deref_mut()
    }

    fn set(&mut self, c: ConnId, secured: Secured) {
        let slot = c.slot as usize;
        if slot >= self.by_slot.len() {
            self.by_slot.resize_with(slot + 1, || None);
        }
        self.by_slot[slot] = Some(Box::new(secured));
    }

    pub(super) fn remove(&mut self, c: ConnId) {
        if let Some(entry) = self.by_slot.get_mut(c.slot as usize) {
            *entry = None;
        }
    }
}

impl<O: Observer> Proxy<O> {
    /// The security layer of a connection has finished its handshake; bytes that come from now on are those
    /// of the protocol it agreed on. HTTP/1.1 is what is spoken where it did not say. A connection to a
    /// backend is connected by this.
    pub fn handle_negotiated(&mut self, c: ConnId, n: &Negotiated<'_>, now: Instant) {
        self.timers.now = now;
        let Some(conn) = self.tables.conns.get(c) else { return };
        // Which of the two versions it is each request says itself.
        let http2 = n.alpn == Some(b"h2");
        let known = http2 || n.alpn.is_none_or(|protocol| matches!(protocol, b"http/1.1" | b"http/1.0"));
        match &conn.role {
            // Nothing else has been offered.
            Role::Client(_) if !known && !conn.is_busy() => self.close(c),
            Role::Client(client) if client.kind == ListenerKind::Https => {
                if http2 && !client.lingering {
                    self.begin_http2(c, &[], now);
                }
                self.secured(c, n, now);
            }
            Role::Client(_) => {}
            Role::Backend(_) => {
                self.step(c, Step::Negotiated { tls: told(n) });
                if self.backend_chose(c, http2, now) {
                    self.connected(c, now);
                }
            }
            Role::Probe(_) => {
                self.step(c, Step::Negotiated { tls: told(n) });
                if self.probe_chose(c, http2, now) {
                    self.connected(c, now);
                }
            }
        }
        self.settle(now);
    }

    /// The socket of a connection that [`Effect::Connect`](crate::Effect::Connect) asked TLS for is there,
    /// and the handshake begins: its address is none that swallows connections.
    pub fn handle_handshaking(&mut self, c: ConnId, now: Instant) {
        self.timers.now = now;
        if let Some(conn) = self.tables.conns.get(c)
            && matches!(conn.role, Role::Backend(_))
            && let Some(whole) = self.connect_until(c)
        {
            let until = if planted!(133) { Instant::NEVER } else { whole };
            self.set_deadline(c, until);
        }
        self.settle(now);
    }

    /// Handshakes with clients that have failed so far.
    #[must_use]
    pub fn handshakes_failed(&self) -> u64 {
        self.secured.failed
    }

    fn secured(&mut self, c: ConnId, n: &Negotiated<'_>, now: Instant) {
        self.step(c, Step::Negotiated { tls: told(n) });
        let config = &self.pools.config;
        let certificate = n.certificate.and_then(|place| config.certificates.get(usize::from(place)));
        self.secured.set(
            c,
            Secured {
                server_name: n.server_name.unwrap_or_default().into(),
                version: n.version,
                cipher: n.cipher,
                resumed: n.resumed,
                certificate: certificate.map_or("", |certificate| &certificate.name).into(),
                place: n.certificate,
                generation: self.pools.generation,
                host: Vec::new(),
                subject: n.client_subject.unwrap_or_default().into(),
                asks: certificate.is_some_and(|certificate| certificate.client_ca.is_some()),
            },
        );
        let until = now + config.timeouts.head;
        if !planted!(136) {
            self.set_deadline(c, until);
        }
        self.mark_ready(c);
    }

    /// A handshake with a client is not over.
    pub(super) fn is_handshaking(&self, c: ConnId) -> bool {
        self.tables.conns.get(c).is_some_and(|conn| {
            matches!(&conn.role, Role::Client(client)
                if client.kind == ListenerKind::Https && !client.lingering)
        }) && self.secured.get(c).is_none()
    }

    /// A handshake with a client failed. It is told so, by an alert that has been sent already or in plain
    /// HTTP, which must not be lost to a reset.
    #[cold]
    pub(super) fn handshake_failed(&mut self, c: ConnId, fault: Fault, now: Instant) {
        self.secured.failed += 1;
        self.step(c, Step::HandshakeFailed { why: fault.name() });
        match fault {
            Fault::PlainHttp if planted!(129) => self.close(c),
            Fault::PlainHttp => {
                self.scratch.request.reset();
                self.reject(c, Cause::BadRequest(Violation::PlainHttpOnTls), now);
            }
            Fault::Tls(_) | Fault::UnrecognizedName => self.linger(c, now),
            _ => self.close(c),
        }
    }

    /// Whether the request is for a host that its client's certificate is not for (RFC 9110 §7.4).
    pub(super) fn is_misdirected(&mut self, x: ExchangeId) -> bool {
        let e = &self.tables.exchanges[x];
        let Some(secured) = self.secured.get_mut(e.client.conn) else { return false };
        let host = e.head.host();
        if secured.generation == self.pools.generation && secured.host == host && !host.is_empty() {
            return false;
        }
        if secured.generation != self.pools.generation {
            secured.generation = self.pools.generation;
            secured.place = (0..)
                .zip(&self.pools.config.certificates)
                .find(|(_, certificate)| certificate.name == secured.certificate)
                .map(|(place, _)| place);
        }
        // A certificate that is gone covers nothing any more.
        let served = secured.place.is_some_and(|place| self.pools.certificate_names.serves(place, host));
        secured.host.clear();
        if served {
            secured.host.extend_from_slice(host);
        }
        !served && !planted!(127)
    }
}

fn told<'a>(n: &Negotiated<'a>) -> Tls<'a> {
    Tls {
        version: n.version,
        cipher: n.cipher,
        server_name: n.server_name.unwrap_or_default(),
        resumed: n.resumed,
        client_subject: n.client_subject.unwrap_or_default(),
    }
}
