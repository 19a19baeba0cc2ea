//! The security layer that the proxy uses: an [`Endpoint`] as a session. How much a session takes at once,
//! how much it keeps and how it cuts what it sends into records is drawn; what it may rely on is checked.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;

use ruststrom_core::config::{TlsName, TlsTarget};
use ruststrom_core::{Fault, Negotiated, TlsFault};
use ruststrom_driver::tls::layer::{Layer, Session};

use super::endpoint::{ClientSide, Endpoint, Failure, Served, ServerSide};
use super::message::{Alpn, ClientHello, ServerHello, alert};
use super::record::MAX_CONTENT;
use crate::random::SplitMix64;

/// A session keeps so much of what it has received at most.
const MAX_HELD: usize = 64 * 1024;

/// What others may know of a session.
#[derive(Debug, Default)]
pub(crate) struct SessionStatus {
    /// Bytes to be sent.
    pub(crate) output: Cell<usize>,
    /// Plaintext to be read.
    pub(crate) plaintext: Cell<usize>,
}

/// Makes the sessions of one shard.
pub(crate) struct SimLayer {
    rng: SplitMix64,
    served: Rc<[Served]>,
    /// That of the session that was made last.
    newest: Rc<RefCell<Rc<SessionStatus>>>,
}

impl SimLayer {
    /// With these certificates for clients. Everything drawn depends on `seed`.
    pub(crate) fn new(seed: u64, served: Rc<[Served]>) -> Self {
        Self { rng: SplitMix64::new(seed), served, newest: Rc::default() }
    }

    /// Where to find the status of the session that was made last.
    pub(crate) fn newest(&self) -> Rc<RefCell<Rc<SessionStatus>>> {
        self.newest.clone()
    }

    fn session(&mut self, mut endpoint: Endpoint) -> SimSession {
        let rng = &mut self.rng;
        endpoint.fragment = rng.pick(&[MAX_CONTENT, MAX_CONTENT, 1, 40]);
        endpoint.record = rng.pick(&[MAX_CONTENT, MAX_CONTENT, 4096, 700, 9]);
        let status = Rc::<SessionStatus>::default();
        *self.newest.borrow_mut() = status.clone();
        let mut session = SimSession {
            endpoint,
            status,
            most_plaintext: rng.pick(&[1, 5_000, 20_000, 40_000]),
            most_at_once: rng.pick(&[usize::MAX, usize::MAX, 3_000, 11]),
        };
        session.tell();
        session
    }
}

impl Layer for SimLayer {
    type Session = SimSession;

    fn accept(&mut self) -> SimSession {
        let hello = ServerHello { random: self.rng.next_u64(), ..ServerHello::default() };
        let tickets = self.rng.below(3);
        let side = ServerSide { served: Some(self.served.clone()), hello, tickets, ..ServerSide::default() };
        self.session(Endpoint::server(side))
    }

    fn connect(&mut self, target: &TlsTarget) -> Result<SimSession, Fault> {
        let (name, expects) = match &target.name {
            TlsName::Dns(name) => (Some(name.to_string()), name.to_string()),
            TlsName::Ip(ip) => (None, ip.to_string()),
        };
        let hello = ClientHello {
            random: self.rng.next_u64(),
            newest: self.rng.below(2) == 0,
            resumes: false,
            alpn: if target.settings.alpn.offers_http2() { Alpn::Http2 } else { Alpn::Http1 },
            name,
            padding: 0,
        };
        let side = ClientSide {
            hello,
            expects: target.settings.verify.then_some(expects),
            subject: target.settings.client.as_ref().map(|c| format!("CN={}", c.certificate)),
            refuses: None,
        };
        let mut endpoint = Endpoint::client(side);
        endpoint.start();
        Ok(self.session(endpoint))
    }
}

/// The security of one connection of the proxy.
pub(crate) struct SimSession {
    endpoint: Endpoint,
    status: Rc<SessionStatus>,
    /// It takes nothing more while it has so much plaintext.
    most_plaintext: usize,
    /// It takes so much at once.
    most_at_once: usize,
}

impl SimSession {
    fn tell(&mut self) {
        self.status.output.set(self.endpoint.output_len());
        self.status.plaintext.set(self.endpoint.plaintext_len());
    }
}

/// What the core is told.
fn fault_of(failure: Failure) -> Fault {
    match failure {
        Failure::Fault(fault) => Fault::Tls(fault),
        Failure::Alert(alert::CERTIFICATE_REQUIRED | alert::BAD_CERTIFICATE) => {
            Fault::Tls(TlsFault::ClientCertificate)
        }
        Failure::Alert(_) => Fault::Tls(TlsFault::Refused),
        Failure::UnrecognizedName => Fault::UnrecognizedName,
        Failure::PlainHttp => Fault::PlainHttp,
    }
}

impl Session for SimSession {
    fn receive(&mut self, ciphertext: &[u8]) -> Result<usize, Fault> {
        assert!(!ciphertext.is_empty(), "nothing is received");
        assert_eq!(self.endpoint.failure(), None, "the first error is the last");
        let mut taken = 0;
        let most = ciphertext.len().min(self.most_at_once);
        while taken < most && self.endpoint.plaintext_len() < self.most_plaintext {
            match self.endpoint.receive(&ciphertext[taken..most]) {
                Ok(n) => taken += n,
                Err(failure) => {
                    self.tell();
                    return Err(fault_of(failure));
                }
            }
        }
        let held = self.endpoint.held() + self.endpoint.plaintext_len();
        assert!(held <= MAX_HELD, "{held} bytes are held");
        self.tell();
        Ok(taken)
    }

    fn read(&mut self, buf: &mut [u8]) -> usize {
        let plaintext = self.endpoint.plaintext();
        let n = buf.len().min(plaintext.len());
        buf.iter_mut().zip(plaintext.drain(..n)).for_each(|(to, byte)| *to = byte);
        self.tell();
        n
    }

    fn has_plaintext(&self) -> bool {
        self.endpoint.plaintext_len() > 0
    }

    fn is_ended(&self) -> bool {
        self.endpoint.is_ended()
    }

    fn write(&mut self, plaintext: &[IoSlice<'_>]) {
        assert!(self.endpoint.is_done(), "data before the end of the handshake");
        assert!(plaintext.iter().all(|slice| !slice.is_empty()), "nothing is to be secured");
        if self.endpoint.failure().is_none() {
            plaintext.iter().for_each(|slice| self.endpoint.write(slice));
        }
        self.tell();
    }

    fn has_output(&self) -> bool {
        self.endpoint.output_len() > 0
    }

    fn flush(&mut self, send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<()> {
        let (a, b) = self.endpoint.output().as_slices();
        let both = [IoSlice::new(a), IoSlice::new(b)];
        let sent = send(if b.is_empty() { &both[..1] } else { &both })?;
        self.endpoint.output().drain(..sent);
        self.tell();
        Ok(())
    }

    fn end(&mut self) {
        self.endpoint.end();
        self.tell();
    }

    fn negotiated(&self) -> Option<Negotiated<'_>> {
        if !self.endpoint.is_done() || self.endpoint.failure().is_some() {
            return None;
        }
        let agreed = self.endpoint.agreed();
        Some(Negotiated {
            server_name: agreed.name.as_deref(),
            alpn: agreed.alpn.protocol(),
            certificate: agreed.certificate,
            version: if agreed.newest { "TLSv1.3" } else { "TLSv1.2" },
            cipher: "TLS_AES_128_GCM_SHA256",
            resumed: agreed.resumed,
            client_subject: agreed.subject.as_deref(),
        })
    }
}
