//! rustls as the security layer.

use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use rustls::server::{Acceptor, ClientHello};
use rustls::{
    AlertDescription, Connection, Error, HandshakeKind, InvalidMessage, ProtocolVersion, ServerConfig,
};
use ruststrom_core::config::TlsTarget;
use ruststrom_core::{Fault, Negotiated, TlsFault};

use super::alert::{self, DECODE_ERROR};
use super::client::fault_of_tls;
use super::layer::{Layer, Session};
use super::server::{ACME_TLS_ALPN, ServerTls, UNRECOGNIZED_NAME};
use super::shared_client::SharedClient;
use super::shared_server::SharedServer;
use super::subject;

/// First byte of every record of a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// The first bytes of an answer go in records of this size: a client can use each as soon as it has arrived,
/// and not only when many packets have.
const FIRST_RECORD_BYTES: usize = 4 * 1024;
/// So many bytes of an answer go in small records.
const SMALL_RECORDS_BYTES: usize = 16 * 1024;

/// What the sessions of one worker are made from. The default has no certificates, and no backends.
#[derive(Clone, Default)]
pub struct RustlsLayer {
    server: SharedServer,
    client: SharedClient,
}

impl RustlsLayer {
    /// With these certificates for clients, which may be replaced while sessions are made, and these settings
    /// for backends.
    #[must_use]
    pub fn new(server: SharedServer, client: SharedClient) -> Self {
        Self { server, client }
    }
}

impl Layer for RustlsLayer {
    type Session = RustlsSession;

    fn accept(&mut self) -> RustlsSession {
        RustlsSession::new(State::Accepted(self.server.get()))
    }

    fn connect(&mut self, target: &TlsTarget) -> Result<RustlsSession, Fault> {
        let connection = self.client.get().connection(target).map_err(Fault::Tls)?;
        Ok(RustlsSession::new(State::open(connection.into())))
    }
}

/// The TLS of one connection.
pub struct RustlsSession {
    state: State,
    /// Place of the certificate that a client was shown.
    certificate: Option<u16>,
    /// The subject of the client's certificate, if it has been verified.
    subject: Option<Box<str>>,
    /// Bytes of plaintext in `state`.
    plaintext: usize,
    /// The peer sends nothing more.
    ended: bool,
    /// Bytes that may still go in small records.
    small: usize,
    /// An alert from before there was a connection.
    alert: Vec<u8>,
    /// More about what went wrong.
    failure: Option<Box<str>>,
}

enum State {
    /// The client has said nothing yet, which takes no memory.
    Accepted(Arc<ServerTls>),
    /// A part of its first message is here.
    Hello(Box<Acceptor>, Arc<ServerTls>),
    Open(Box<Connection>),
    /// There never was a connection.
    Failed,
}

impl State {
    fn open(mut connection: Connection) -> Self {
        // What is written is never taken in part: the caller offers no more than may be held.
        connection.set_buffer_limit(None);
        Self::Open(Box::new(connection))
    }
}

impl RustlsSession {
    fn new(state: State) -> Self {
        Self {
            state,
            certificate: None,
            subject: None,
            plaintext: 0,
            ended: false,
            small: SMALL_RECORDS_BYTES,
            alert: Vec::new(),
            failure: None,
        }
    }

    /// Keeps what to tell the log of a failure. `alert` is sent because of it, if that is known.
    #[cold]
    fn explain(&mut self, text: impl FnOnce() -> String, alert: Option<AlertDescription>) {
        // Formatting is for whoever looks at the log only: anybody can make handshakes fail.
        if log::log_enabled!(target: "proxy", log::Level::Debug) {
            let mut text = text();
            if let Some(alert) = alert {
                text.push_str("; it gets the alert ");
                text.push_str(alert::name(alert));
            }
            self.failure = Some(text.into());
        }
    }

    /// The fault that an error is. `alert` is sent because of it, if that is known.
    #[cold]
    fn fail(&mut self, error: &Error, alert: Option<AlertDescription>) -> Fault {
        let text = || match error {
            Error::AlertReceived(alert) => format!("the peer sent the alert {}", alert::name(*alert)),
            other => other.to_string(),
        };
        self.explain(text, alert);
        Fault::Tls(fault_of_tls(error))
    }

    /// The same, for an alert from before there was a connection.
    #[cold]
    fn refuse(&mut self, error: &Error, mut alert: rustls::server::AcceptedAlert) -> Fault {
        // Writing to memory does not fail.
        let _ = alert.write_all(&mut self.alert);
        if self.alert.is_empty() {
            // rustls has none for messages that are too long. A bare close would tell the client nothing.
            self.alert.extend_from_slice(&DECODE_ERROR);
        }
        self.fail(error, alert::in_record(&self.alert).or_else(|| alert::answering(error)))
    }

    /// The client's first message, or a part of it.
    fn receive_hello(&mut self, mut bytes: &[u8]) -> Result<usize, Fault> {
        let before = bytes.len();
        let (mut acceptor, server) = match std::mem::replace(&mut self.state, State::Failed) {
            State::Accepted(server) => match bytes.first() {
                Some(&HANDSHAKE) => (Box::<Acceptor>::default(), server),
                Some(first) if first.is_ascii_uppercase() => return Err(Fault::PlainHttp),
                _ => return Err(Fault::Tls(TlsFault::NotTls)),
            },
            State::Hello(acceptor, server) => (acceptor, server),
            State::Open(_) | State::Failed => return Err(Fault::Tls(TlsFault::Protocol)),
        };
        if acceptor.read_tls(&mut bytes).is_err() {
            // It is longer than any that could be taken.
            self.alert.extend_from_slice(&DECODE_ERROR);
            let error = Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge);
            return Err(self.fail(&error, alert::in_record(&self.alert)));
        }
        let took = before - bytes.len();
        match acceptor.accept() {
            Ok(None) => self.state = State::Hello(acceptor, server),
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let config = match (challenge(&server, &hello), server.choose(hello.server_name())) {
                    (Some(config), _) => config.clone(),
                    (None, Some(choice)) => {
                        self.certificate = Some(choice.certificate);
                        choice.config.clone()
                    }
                    (None, None) => {
                        self.alert.extend_from_slice(&UNRECOGNIZED_NAME);
                        let name = || format!("the server name is {}", hello.server_name().unwrap_or("none"));
                        self.explain(name, Some(AlertDescription::UnrecognisedName));
                        return Err(Fault::UnrecognizedName);
                    }
                };
                match accepted.into_connection(config) {
                    Ok(connection) => {
                        self.state = State::open(connection.into());
                        self.process()?;
                    }
                    Err((e, alert)) => return Err(self.refuse(&e, alert)),
                }
            }
            Err((e, alert)) => return Err(self.refuse(&e, alert)),
        }
        Ok(took)
    }

    /// Looks at what has been taken.
    fn process(&mut self) -> Result<(), Fault> {
        let State::Open(connection) = &mut self.state else { return Ok(()) };
        let handshaking = connection.is_handshaking();
        match connection.process_new_packets() {
            Ok(io) => {
                self.plaintext = io.plaintext_bytes_to_read();
                self.ended |= io.peer_has_closed();
                if handshaking && !connection.is_handshaking() {
                    let chain = connection.peer_certificates().filter(|_| self.certificate.is_some());
                    self.subject = chain
                        .and_then(|chain| chain.first())
                        .and_then(|c| subject::of_certificate(c).map(String::into_boxed_str));
                }
                Ok(())
            }
            Err(e) => {
                // Nobody says how much of it there is; reading will tell.
                self.plaintext = usize::MAX;
                Err(self.fail(&e, alert::answering(&e)))
            }
        }
    }
}

impl Session for RustlsSession {
    fn receive(&mut self, mut ciphertext: &[u8]) -> Result<usize, Fault> {
        let State::Open(connection) = &mut self.state else { return self.receive_hello(ciphertext) };
        let before = ciphertext.len();
        match connection.read_tls(&mut ciphertext) {
            // It takes nothing behind a `close_notify`.
            Ok(0) => return Ok(before),
            Ok(_) => {}
            // There is too much plaintext, the only thing that makes reading from memory fail while
            // connections are well.
            Err(_) if self.plaintext > 0 => return Ok(0),
            Err(_) => return Err(Fault::Tls(TlsFault::Protocol)),
        }
        self.process()?;
        self.small = SMALL_RECORDS_BYTES;
        Ok(before - ciphertext.len())
    }

    fn read(&mut self, buf: &mut [u8]) -> usize {
        let State::Open(connection) = &mut self.state else { return 0 };
        let mut read = 0;
        while self.plaintext > 0 && read < buf.len() {
            let n = io::Read::read(&mut connection.reader(), &mut buf[read..]).unwrap_or(0);
            if n == 0 {
                self.plaintext = 0;
                break;
            }
            read += n;
            self.plaintext -= n;
        }
        read
    }

    fn has_plaintext(&self) -> bool {
        self.plaintext > 0
    }

    fn is_ended(&self) -> bool {
        self.ended
    }

    fn write(&mut self, plaintext: &[IoSlice<'_>]) {
        let State::Open(connection) = &mut self.state else { return };
        let mut writer = connection.writer();
        // What fails here has failed before, as an error of `receive`.
        let total: usize = plaintext.iter().map(|slice| slice.len()).sum();
        if total <= FIRST_RECORD_BYTES || self.small == 0 {
            let taken = writer.write_vectored(plaintext);
            debug_assert!(taken.is_err() || taken.is_ok_and(|n| n == total), "bytes would be lost");
            self.small = self.small.saturating_sub(total);
            return;
        }
        for slice in plaintext {
            let mut rest = &slice[..];
            while !rest.is_empty() {
                let n = if self.small == 0 { rest.len() } else { rest.len().min(FIRST_RECORD_BYTES) };
                let taken = writer.write(&rest[..n]);
                debug_assert!(taken.is_err() || taken.is_ok_and(|taken| taken == n), "bytes would be lost");
                self.small = self.small.saturating_sub(n);
                rest = &rest[n..];
            }
        }
    }

    fn has_output(&self) -> bool {
        match &self.state {
            State::Open(connection) => connection.wants_write(),
            _ => !self.alert.is_empty(),
        }
    }

    fn flush(&mut self, send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<()> {
        match &mut self.state {
            State::Open(connection) => connection.write_tls(&mut Sink(send)).map(|_| ()),
            _ => {
                let sent = send(&[IoSlice::new(&self.alert)])?;
                self.alert.drain(..sent.min(self.alert.len()));
                Ok(())
            }
        }
    }

    fn end(&mut self) {
        if let State::Open(connection) = &mut self.state {
            connection.send_close_notify();
        }
    }

    fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn negotiated(&self) -> Option<Negotiated<'_>> {
        let State::Open(connection) = &self.state else { return None };
        if connection.is_handshaking() {
            return None;
        }
        let server_name = match &**connection {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        };
        Some(Negotiated {
            server_name,
            alpn: connection.alpn_protocol(),
            certificate: self.certificate,
            version: connection.protocol_version().map_or("", version),
            cipher: connection.negotiated_cipher_suite().map_or("", |suite| cipher(suite.suite())),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client_subject: self.subject.as_deref(),
        })
    }
}

/// What a client is shown that only wants to know whether a name leads here (RFC 8737 §3). The core closes
/// its connection after the handshake, as it does with everyone who speaks no HTTP.
fn challenge<'s>(server: &'s ServerTls, hello: &ClientHello<'_>) -> Option<&'s Arc<ServerConfig>> {
    let mut offered = hello.alpn()?;
    if offered.next()? != ACME_TLS_ALPN || offered.next().is_some() {
        return None;
    }
    server.challenge(hello.server_name()?)
}

/// A function as a sink of bytes.
struct Sink<'a>(&'a mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<usize>);

impl Write for Sink<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (self.0)(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (self.0)(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As nginx and OpenSSL write it.
fn version(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "",
    }
}

/// The name that IANA has registered.
fn cipher(suite: rustls::CipherSuite) -> &'static str {
    match suite {
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        rustls::CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or(""),
    }
}
