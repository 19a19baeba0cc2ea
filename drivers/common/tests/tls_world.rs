//! TLS between a world of sockets and whoever is behind it, with rustls as the peer, over memory: every way
//! in which the bytes can be cut.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};

use std::sync::{Arc, LazyLock};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, ServerConfig,
    ServerConnection,
};
use ruststrom_core::config::{self, Certificate};
use ruststrom_core::{ConnId, Endpoint, Fault, Instant, LookupId, Query, TlsFault};
use ruststrom_driver::pump::fault_of;
use ruststrom_driver::tls::TlsWorld;
use ruststrom_driver::tls::client::ClientTls;
use ruststrom_driver::tls::server::{ACME_TLS_ALPN, Challenge, ServerTls};
use ruststrom_driver::tls::session::RustlsLayer;
use ruststrom_driver::tls::shared_client::SharedClient;
use ruststrom_driver::tls::shared_server::SharedServer;
use ruststrom_driver::world::{Received, Sent, World};

const C: ConnId = ConnId { slot: 3, epoch: 7 };

/// One socket.
struct Wire {
    inbound: VecDeque<u8>,
    /// Bytes that one read gives at most.
    piece: usize,
    fin: bool,
    outbound: Vec<u8>,
    /// Bytes that may still be written.
    room: usize,
    shut: bool,
    closed: bool,
}

impl Wire {
    fn new() -> Self {
        Self {
            inbound: VecDeque::new(),
            piece: usize::MAX,
            fin: false,
            outbound: Vec::new(),
            room: usize::MAX,
            shut: false,
            closed: false,
        }
    }
}

impl World for Wire {
    fn recv(&mut self, _: ConnId, buf: &mut [u8]) -> io::Result<Received> {
        let n = buf.len().min(self.piece).min(self.inbound.len());
        match n {
            0 if self.fin => return Ok(Received { bytes: 0, drained: true }),
            0 => return Err(io::ErrorKind::WouldBlock.into()),
            _ => {}
        }
        buf.iter_mut().zip(self.inbound.drain(..n)).for_each(|(to, byte)| *to = byte);
        Ok(Received { bytes: n, drained: self.inbound.is_empty() && !self.fin })
    }

    fn send(&mut self, _: ConnId, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        assert!(!self.shut, "nothing is written behind the end");
        let before = self.outbound.len();
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        for slice in slices {
            let n = slice.len().min(self.room);
            self.outbound.extend_from_slice(&slice[..n]);
            self.room -= n;
        }
        match self.outbound.len() - before {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            bytes => Ok(Sent { bytes, blocked: bytes < total }),
        }
    }

    fn connect(&mut self, _: ConnId, _: &Endpoint) -> io::Result<()> {
        Ok(())
    }
    fn take_error(&mut self, _: ConnId) -> Option<io::Error> {
        None
    }
    fn shutdown(&mut self, _: ConnId) {
        self.shut = true;
    }
    fn close(&mut self, _: ConnId) {
        self.closed = true;
    }
    fn reset(&mut self, _: ConnId) {
        self.closed = true;
    }
    fn lookup(&mut self, _: LookupId, _: Query) {}
    fn nudge(&mut self, _: u16) {}
    fn now(&mut self) -> Instant {
        Instant::ZERO
    }
}

/// Certificates for `a.example`, and what clients trust.
struct Identity {
    server: SharedServer,
    root: CertificateDer<'static>,
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
    let folder = std::env::temp_dir().join(format!("ruststrom-tls-world-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("c.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.join("k.pem"), made.signing_key.serialize_pem()).expect("written");
    let loaded = ServerTls::load(&certificates(), true, &folder, None);
    std::fs::remove_dir_all(&folder).expect("removed");
    let server = SharedServer::new(loaded.server.unwrap_or_else(|| panic!("{:?}", loaded.problems)));
    Identity { server, root: made.cert.der().clone() }
});

fn certificates() -> Vec<Certificate> {
    let text = "https_address = \"127.0.0.1:443\"\n\
        [certificates.\"a.example\"]\nLocal = { certificate_path = \"c.pem\", private_key_path = \"k.pem\" }\n\
        [[backend_pools]]\naddresses = [\"127.0.0.1:1\"]\n";
    config::parse(text).config.expect("a good configuration").certificates
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn client_config(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(IDENTITY.root.clone()).expect("a root");
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions);
    builder.expect("versions").with_root_certificates(roots).with_no_client_auth()
}

fn client_for(name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    ClientConnection::new(Arc::new(client_config(rustls::ALL_VERSIONS)), name).expect("a client")
}

type Secure = TlsWorld<Wire, RustlsLayer>;

/// A world with an accepted connection that is to speak TLS.
fn accepted() -> Secure {
    accepted_by(&IDENTITY.server)
}

fn accepted_by(server: &SharedServer) -> Secure {
    let layer = RustlsLayer::new(server.clone(), SharedClient::default());
    let mut world = TlsWorld::new(Wire::new(), layer);
    world.accept_tls(C);
    world
}

/// What the client has to say goes to the socket, and the other way round.
fn exchange_bytes(client: &mut ClientConnection, world: &mut Secure) {
    let mut to_server = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut to_server).expect("memory");
    }
    world.inner_mut().inbound.extend(to_server);
    let sent = std::mem::take(&mut world.inner_mut().outbound);
    let mut rest = &sent[..];
    while !rest.is_empty() {
        client.read_tls(&mut rest).expect("room");
        client.process_new_packets().expect("good TLS");
    }
}

/// Ends the handshake; `room` is how much may be written between two looks.
fn shake_hands(client: &mut ClientConnection, world: &mut Secure, room: usize) {
    let mut over = false;
    for _ in 0..100_000 {
        exchange_bytes(client, world);
        world.inner_mut().room = room;
        if !over {
            over = world.handshake(C).expect("a handshake").is_some();
        } else if !client.is_handshaking() && !client.wants_write() {
            break;
        }
    }
    assert!(over && !client.is_handshaking());
    // What the server says behind its handshake (tickets) goes when there is room.
    world.inner_mut().room = usize::MAX;
}

fn shaken() -> (ClientConnection, Secure) {
    let (mut client, mut world) = (client_for("a.example"), accepted());
    shake_hands(&mut client, &mut world, usize::MAX);
    (client, world)
}

/// Reads all that is there into pages of this size.
fn read_all(world: &mut Secure, page: usize) -> (Vec<u8>, io::Result<()>) {
    let (mut all, mut buf) = (Vec::new(), vec![0; page]);
    loop {
        match world.recv(C, &mut buf) {
            Ok(Received { bytes: 0, .. }) => return (all, Ok(())),
            Ok(received) => {
                all.extend_from_slice(&buf[..received.bytes]);
                if received.drained {
                    assert_eq!(
                        world.recv(C, &mut buf).expect_err("drained").kind(),
                        io::ErrorKind::WouldBlock,
                        "no event would tell of what is left"
                    );
                    return (all, Err(io::ErrorKind::WouldBlock.into()));
                }
            }
            Err(e) => return (all, Err(e)),
        }
    }
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn a_handshake_survives_every_cut() {
    for (piece, room) in [(1, usize::MAX), (usize::MAX, 1), (1, 1), (7, 13), (usize::MAX, usize::MAX)] {
        let (mut client, mut world) = (client_for("A.example"), accepted());
        world.inner_mut().piece = piece;
        shake_hands(&mut client, &mut world, room);
        let negotiated = world.handshake(C).expect("it is over").expect("it is over");
        assert_eq!(negotiated.server_name, Some("a.example"));
        assert_eq!(negotiated.version, "TLSv1.3");
        assert!(negotiated.cipher.starts_with("TLS_"), "{}", negotiated.cipher);
        assert_eq!((negotiated.certificate, negotiated.resumed), (Some(0), false));
        client.writer().write_all(b"GET / HTTP/1.1\r\n\r\n").expect("room");
        exchange_bytes(&mut client, &mut world);
        let (read, end) = read_all(&mut world, 16);
        assert_eq!(read, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(end.expect_err("no end").kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn the_first_flight_survives_a_cut_at_every_byte() {
    let whole = {
        let mut client = client_for("a.example");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("memory");
        hello.len()
    };
    for at in 1..whole {
        let (mut client, mut world) = (client_for("a.example"), accepted());
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("memory");
        world.inner_mut().inbound.extend(&hello[..at]);
        assert!(world.handshake(C).expect("more follows").is_none(), "{at}");
        world.inner_mut().inbound.extend(&hello[at..]);
        shake_hands(&mut client, &mut world, usize::MAX);
    }
}

#[test]
fn records_survive_a_cut_at_every_byte() {
    let message = pattern(300);
    for at in 0..400 {
        let (mut client, mut world) = shaken();
        client.writer().write_all(&message[..100]).expect("room");
        client.writer().write_all(&message[100..]).expect("room");
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("memory");
        }
        let at = at.min(bytes.len());
        world.inner_mut().inbound.extend(&bytes[..at]);
        let (mut read, _) = read_all(&mut world, 64);
        world.inner_mut().inbound.extend(&bytes[at..]);
        read.extend(read_all(&mut world, 64).0);
        assert_eq!(read, message, "cut at {at}");
    }
}

#[test]
fn plaintext_that_is_held_counts_as_readable() {
    let message = pattern(60_000);
    for page in [1, 100, 4096, 16_384, 70_000] {
        let (mut client, mut world) = shaken();
        client.set_buffer_limit(None);
        client.writer().write_all(&message).expect("room");
        client.send_close_notify();
        exchange_bytes(&mut client, &mut world);
        let (mut read, mut buf) = (Vec::new(), vec![0; page]);
        loop {
            let received = world.recv(C, &mut buf).expect("readable");
            if received.bytes == 0 {
                break;
            }
            assert!(!received.drained || read.len() + received.bytes == message.len());
            read.extend_from_slice(&buf[..received.bytes]);
        }
        assert_eq!(read, message, "pages of {page} bytes");
    }
}

/// As of a socket: who is told that nothing is left may have something to do then.
#[test]
fn room_that_is_full_to_its_end_may_hide_more() {
    for (room, drained) in [(299, false), (300, false), (301, true)] {
        let (mut client, mut world) = shaken();
        client.writer().write_all(&pattern(300)).expect("room");
        exchange_bytes(&mut client, &mut world);
        let received = world.recv(C, &mut vec![0; room]).expect("readable");
        assert_eq!((received.bytes, received.drained), (room.min(300), drained), "{room}");
    }
}

/// Sends `message` as the core does, offering what has not been told to have gone, with so much room between
/// two calls; returns what arrived.
fn send_all(client: &mut ClientConnection, world: &mut Secure, message: &[u8], room: usize) -> Vec<u8> {
    client.set_buffer_limit(None);
    let (mut from, mut got) = (0, Vec::new());
    for _ in 0..1_000_000 {
        world.inner_mut().room = room;
        if from < message.len() {
            let middle = from + (message.len() - from) / 3;
            let slices: Vec<IoSlice<'_>> = [&message[from..middle], &message[middle..]]
                .into_iter()
                .filter(|slice| !slice.is_empty())
                .map(IoSlice::new)
                .collect();
            let sent = world.send(C, &slices).unwrap_or(Sent { bytes: 0, blocked: true });
            from += sent.bytes;
            assert!(sent.blocked || from == message.len(), "what is taken in part blocks");
            if from == message.len() {
                let mut all = got.clone();
                all.extend(arrived(client, world));
                assert!(all == message, "all has been told to have gone and has not");
                return all;
            }
        }
        got.extend(arrived(client, world));
    }
    panic!("it never ends");
}

/// What the client gets of what has been written.
fn arrived(client: &mut ClientConnection, world: &mut Secure) -> Vec<u8> {
    let sent = std::mem::take(&mut world.inner_mut().outbound);
    let (mut rest, mut got) = (&sent[..], Vec::new());
    while !rest.is_empty() {
        client.read_tls(&mut rest).expect("room");
        client.process_new_packets().expect("good TLS");
        let _ = client.reader().read_to_end(&mut got);
    }
    got
}

#[test]
fn what_is_sent_has_gone_to_the_socket_to_its_last_byte() {
    for (len, room) in [(1, 1), (2, 1), (100, 1), (100, 3), (5000, 97), (70_000, 1500), (70_000, usize::MAX)]
    {
        let (mut client, mut world) = shaken();
        let message = pattern(len);
        let got = send_all(&mut client, &mut world, &message, room);
        assert_eq!(got, message, "{len} bytes, room for {room}");
        // The next message is not mixed up with the last byte of this one.
        let next = pattern(321);
        assert_eq!(send_all(&mut client, &mut world, &next, 17), next);
    }
}

/// The other side of a connection to a backend, and a world in which it is open.
fn backend() -> (ServerConnection, Secure) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let folder = std::env::temp_dir().join(format!("ruststrom-tls-backend-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("ca.pem"), made.cert.pem()).expect("written");
    let text = "http_address = \"127.0.0.1:80\"\n[[backend_pools]]\naddresses = [\"https://127.0.0.1:1\"]\n\
        [backend_pools.tls]\nca_file = \"ca.pem\"\n";
    let config = config::parse(text).config.expect("a good configuration");
    let loaded = ClientTls::load(&config, &folder, None);
    std::fs::remove_dir_all(&folder).expect("removed");
    let client = SharedClient::new(loaded.client.unwrap_or_else(|| panic!("{:?}", loaded.problems)));
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(rustls::ALL_VERSIONS);
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let server = builder.expect("versions").with_no_client_auth();
    let server = server.with_single_cert(vec![made.cert.der().clone()], key).expect("a certificate");
    let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
    let mut world = TlsWorld::new(Wire::new(), RustlsLayer::new(SharedServer::default(), client));
    let target = config.pools[0].backends[0].protocol.tls().expect("TLS").clone();
    world.connect_tls(C, &Endpoint::Ip(([127, 0, 0, 1], 1).into()), &target).expect("a session");
    while world.handshake(C).expect("a handshake").is_none() {
        let sent = std::mem::take(&mut world.inner_mut().outbound);
        server.read_tls(&mut &sent[..]).expect("room");
        server.process_new_packets().expect("good TLS");
        let mut to_us = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut to_us).expect("memory");
        }
        world.inner_mut().inbound.extend(to_us);
    }
    (server, world)
}

#[test]
fn a_backend_gets_all_that_is_offered_at_once() {
    for len in [1, 65_536, 65_537, 67_584, 300_000] {
        let (mut server, mut world) = backend();
        let message = pattern(len);
        let slices: Vec<IoSlice<'_>> = message.chunks(50_000).map(IoSlice::new).collect();
        let sent = world.send(C, &slices).expect("room");
        assert_eq!(sent, Sent { bytes: len, blocked: false });
        let (ciphertext, mut got) = (std::mem::take(&mut world.inner_mut().outbound), Vec::new());
        let mut rest = &ciphertext[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("room");
            server.process_new_packets().expect("good TLS");
            let _ = server.reader().read_to_end(&mut got);
        }
        assert!(got == message, "{} bytes of {len} arrived", got.len());
    }
}

#[test]
fn reading_does_not_write_what_a_writable_event_is_to_come_for() {
    let (mut client, mut world) = shaken();
    world.inner_mut().room = 3;
    let message = pattern(2000);
    assert!(world.send(C, &[IoSlice::new(&message)]).expect("some room").blocked);
    let before = world.inner().outbound.len();
    client.writer().write_all(b"meanwhile").expect("room");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory");
    world.inner_mut().inbound.extend(bytes);
    world.inner_mut().room = usize::MAX;
    assert_eq!(read_all(&mut world, 64).0, b"meanwhile");
    assert_eq!(world.inner().outbound.len(), before, "whoever was told to wait would wait in vain");
    assert_eq!(
        world.send(C, &[IoSlice::new(&message[1999..])]).expect("room"),
        Sent { bytes: 1, blocked: false }
    );
    assert_eq!(arrived(&mut client, &mut world), message);
}

#[test]
fn an_answer_begins_with_small_records() {
    let (mut client, mut world) = shaken();
    client.writer().write_all(b"?").expect("room");
    exchange_bytes(&mut client, &mut world);
    assert_eq!(read_all(&mut world, 64).0, b"?");
    let message = pattern(60_000);
    world.send(C, &[IoSlice::new(&message)]).expect("room");
    let mut lengths = Vec::new();
    let mut rest = &world.inner().outbound[..];
    while let [23, 3, 3, high, low, ..] = rest {
        let length = usize::from(*high) << 8 | usize::from(*low);
        lengths.push(length);
        rest = &rest[5 + length..];
    }
    assert!(rest.is_empty());
    assert!(lengths[..4].iter().all(|n| *n < 4200), "{lengths:?}");
    assert!(lengths[4..lengths.len() - 1].iter().all(|n| *n > 16_000), "{lengths:?}");
}

#[test]
fn an_end_is_told_from_a_cut() {
    for ends in [true, false] {
        for page in [3, 4096] {
            let (mut client, mut world) = shaken();
            client.writer().write_all(b"the last words").expect("room");
            if ends {
                client.send_close_notify();
            }
            exchange_bytes(&mut client, &mut world);
            world.inner_mut().fin = true;
            let (read, end) = read_all(&mut world, page);
            assert_eq!(read, b"the last words");
            match end {
                Ok(()) => assert!(ends),
                Err(e) => {
                    assert!(!ends);
                    assert_eq!(fault_of(&e), Fault::Tls(TlsFault::Closed));
                }
            }
        }
    }
}

#[test]
fn the_end_of_what_we_send_is_told_before_the_socket_is_shut() {
    let (mut client, mut world) = shaken();
    world.inner_mut().room = 3;
    let message = pattern(2000);
    let sent = world.send(C, &[IoSlice::new(&message)]).expect("some room");
    assert_eq!(sent, Sent { bytes: 1999, blocked: true });
    world.inner_mut().room = usize::MAX;
    assert_eq!(world.send(C, &[IoSlice::new(&message[1999..])]).expect("room").bytes, 1);
    world.inner_mut().room = 0;
    world.shutdown(C);
    assert!(!world.inner().shut, "close_notify has not gone");
    world.inner_mut().room = usize::MAX;
    assert_eq!(arrived(&mut client, &mut world), message);
    // The peer may still speak.
    client.writer().write_all(b"late").expect("room");
    exchange_bytes(&mut client, &mut world);
    assert_eq!(read_all(&mut world, 64).0, b"late");
    world.close(C);
    assert!(world.inner().closed);
    let state = {
        let sent = std::mem::take(&mut world.inner_mut().outbound);
        client.read_tls(&mut &sent[..]).expect("room");
        client.process_new_packets().expect("good TLS")
    };
    assert!(state.peer_has_closed(), "close_notify came");
}

#[test]
fn a_peer_that_leaves_is_noticed_while_nothing_is_read() {
    let (mut client, mut world) = shaken();
    assert_eq!(world.at_end(C).expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
    client.send_close_notify();
    exchange_bytes(&mut client, &mut world);
    assert!(world.at_end(C).expect("readable"));
    assert_eq!(world.recv(C, &mut [0; 8]).expect("the end").bytes, 0);
    // Not while it has sent something that is still to be read.
    let (mut client, mut world) = shaken();
    client.writer().write_all(b"more").expect("room");
    client.send_close_notify();
    exchange_bytes(&mut client, &mut world);
    assert!(!world.at_end(C).expect("readable"));
    assert_eq!(read_all(&mut world, 8).0, b"more");
}

#[test]
fn handshakes_that_fail_say_why() {
    let table: [(&[u8], Fault); 4] = [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::PlainHttp),
        (b"\x80\x2e\x01\x00\x02", Fault::Tls(TlsFault::NotTls)),
        (b"\0\0\0\0", Fault::Tls(TlsFault::NotTls)),
        (b"\x16\x03\x01\xff\xff\x01", Fault::Tls(TlsFault::Protocol)),
    ];
    for (bytes, fault) in table {
        let mut world = accepted();
        assert!(world.handshake(C).expect("nothing came yet").is_none());
        world.inner_mut().inbound.extend(bytes);
        assert_eq!(world.handshake(C).expect_err("no handshake"), fault);
        if fault == Fault::PlainHttp {
            world.send(C, &[IoSlice::new(b"plain")]).expect("room");
            assert_eq!(world.inner().outbound, b"plain", "it is told in plain text");
        }
    }
    // Cut in its middle.
    let (mut client, mut world) = (client_for("a.example"), accepted());
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory");
    world.inner_mut().inbound.extend(&hello[..100]);
    world.inner_mut().fin = true;
    assert_eq!(world.handshake(C).expect_err("cut"), Fault::Tls(TlsFault::Closed));
    // Another name; what it sends afterwards is read and dropped.
    let (mut client, mut world) = (client_for("b.example"), accepted());
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory");
    world.inner_mut().inbound.extend(&hello);
    assert_eq!(world.handshake(C).expect_err("no certificate"), Fault::UnrecognizedName);
    let alert = std::mem::take(&mut world.inner_mut().outbound);
    client.read_tls(&mut &alert[..]).expect("room");
    assert_eq!(
        client.process_new_packets().expect_err("an alert"),
        rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)
    );
    world.inner_mut().inbound.extend([0; 50_000]);
    world.inner_mut().fin = true;
    let mut reads = 0;
    while world.recv(C, &mut [0; 64]).map_or_else(|e| e.kind() == io::ErrorKind::Interrupted, |r| r.bytes > 0)
    {
        reads += 1;
        assert!(reads < 10);
    }
    assert_eq!(world.recv(C, &mut [0; 64]).expect("the end").bytes, 0);
}

/// A client that sends nothing more, and does not close either, is not waited for.
#[test]
fn a_handshake_that_fails_behind_the_first_flight_ends_at_once() {
    for piece in [1, 11, usize::MAX] {
        let (mut client, mut world) = (client_for("a.example"), accepted());
        world.inner_mut().piece = piece;
        exchange_bytes(&mut client, &mut world);
        assert!(world.handshake(C).expect("half of it").is_none());
        world.inner_mut().inbound.extend(b"\x17\x03\x03\x00\x20this is no record of the session");
        assert_eq!(world.handshake(C).expect_err("no record"), Fault::Tls(TlsFault::Protocol), "{piece}");
    }
}

#[test]
fn a_first_message_of_more_than_64_kib_is_refused_with_an_alert() {
    let mut world = accepted();
    let mut message = b"\x01\x03\x00\x00".to_vec();
    message.resize(100_000, b'x');
    for part in message.chunks(16_000) {
        let [high, low] = u16::try_from(part.len()).expect("a short part").to_be_bytes();
        world.inner_mut().inbound.extend([22, 3, 1, high, low]);
        world.inner_mut().inbound.extend(part);
    }
    assert_eq!(world.handshake(C).expect_err("too long"), Fault::Tls(TlsFault::Protocol));
    assert!(world.inner().inbound.len() > 30_000, "it is refused before all of it is there");
    assert_eq!(world.inner().outbound, [21, 3, 3, 0, 2, 2, 50]);
}

#[test]
fn garbage_behind_good_records_breaks_the_connection_after_them() {
    let (mut client, mut world) = shaken();
    client.writer().write_all(b"good").expect("room");
    exchange_bytes(&mut client, &mut world);
    world.inner_mut().inbound.extend(b"\x17\x03\x03\x00\x20this is no record of the session");
    let (read, end) = read_all(&mut world, 64);
    assert_eq!(read, b"good");
    assert_eq!(fault_of(&end.expect_err("broken")), Fault::Tls(TlsFault::Protocol));
}

#[test]
fn tls_1_2_is_spoken_too() {
    let name = ServerName::try_from("a.example").expect("a name");
    let config = Arc::new(client_config(&[&rustls::version::TLS12]));
    let (mut client, mut world) = (ClientConnection::new(config, name).expect("a client"), accepted());
    shake_hands(&mut client, &mut world, usize::MAX);
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(world.handshake(C).expect("over").expect("over").version, "TLSv1.2");
    let message = pattern(40_000);
    assert_eq!(send_all(&mut client, &mut world, &message, 1000), message);
}

#[test]
fn a_connection_without_tls_is_left_alone() {
    let other = ConnId { slot: 9, epoch: 1 };
    let mut world = accepted();
    world.inner_mut().inbound.extend(b"plain");
    let mut buf = [0; 8];
    assert_eq!(world.recv(other, &mut buf).expect("bytes").bytes, 5);
    world.send(other, &[IoSlice::new(b"too")]).expect("room");
    assert_eq!((&buf[..5], &world.inner().outbound[..]), (&b"plain"[..], &b"too"[..]));
    // A stale id reaches no session.
    assert!(world.handshake(ConnId { epoch: 6, ..C }).is_err());
}

/// Certificates that are not in files: there is a place for that of `a.example`.
fn without_key() -> ServerTls {
    let text = "https_address = \"127.0.0.1:443\"\n\
        [certificates.\"a.example\"]\nACME = { email = \"a@a.example\", persist_dir = \"acme\" }\n\
        [[backend_pools]]\naddresses = [\"127.0.0.1:1\"]\n";
    let parsed = config::parse(text).config.expect("a good configuration");
    ServerTls::load(&parsed.certificates, true, std::path::Path::new(""), None).server.expect("no problems")
}

/// A certificate that signs itself, and its key.
fn made(name: &str) -> (CertificateDer<'static>, Arc<CertifiedKey>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let der = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    (der.clone(), Arc::new(CertifiedKey::from_der(vec![der], key, &provider()).expect("they fit")))
}

/// A client that takes any certificate of these, and offers these protocols.
fn client_of(roots: &[CertificateDer<'static>], name: &str, alpn: &[&[u8]]) -> ClientConnection {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a client")
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    let ((first, first_key), (second, second_key)) = (made("a.example"), made("a.example"));
    let server = SharedServer::new(without_key());
    let both = [first.clone(), second.clone()];
    let shown = |world: &mut Secure| {
        let mut client = client_of(&both, "a.example", &[]);
        shake_hands(&mut client, world, usize::MAX);
        client.peer_certificates().expect("a certificate")[0].clone()
    };
    // There is none yet: the client is told by an alert.
    let (mut early, mut none) = (client_of(&both, "a.example", &[]), accepted_by(&server));
    early.write_tls(&mut none.inner_mut().inbound).expect("memory");
    assert!(matches!(none.handshake(C), Err(Fault::UnrecognizedName)));

    assert_eq!(server.get().ends(), [None]);
    server.change(|tls| tls.with_certificate(0, first_key.clone()));
    // 4096-01-01, which is as good as never.
    assert_eq!(server.get().ends(), [Some(67_090_118_400)]);
    let mut begun = accepted_by(&server);
    server.change(|tls| tls.with_certificate(0, second_key.clone()));
    assert_eq!(shown(&mut begun), first, "it had been accepted before");
    assert_eq!(shown(&mut accepted_by(&server)), second);
    // There is no such place.
    server.change(|tls| tls.with_certificate(1, first_key.clone()));
    assert_eq!(shown(&mut accepted_by(&server)), second);
    // A certificate of files stays what it is.
    let local = (*IDENTITY.server.get()).clone().with_certificate(0, first_key.clone());
    assert_eq!(local.ends(), IDENTITY.server.get().ends());
    let mut client = client_of(std::slice::from_ref(&IDENTITY.root), "a.example", &[]);
    shake_hands(&mut client, &mut accepted_by(&SharedServer::new(local)), usize::MAX);
}

#[test]
fn a_challenge_is_shown_to_those_who_offer_nothing_else() {
    let ((usual, key), (proof, proof_key)) = (made("a.example"), made("a.example"));
    let challenge = Challenge { name: "a.example".into(), key: proof_key };
    let tls = without_key().with_certificate(0, key);
    let server = SharedServer::new(tls.with_challenges(&[challenge]).expect("a configuration"));
    let both = [usual.clone(), proof.clone()];
    let table: [(&str, &[&[u8]], _); 4] = [
        ("a.example", &[ACME_TLS_ALPN], &proof),
        ("A.EXAMPLE", &[ACME_TLS_ALPN], &proof),
        ("a.example", &[b"http/1.1", ACME_TLS_ALPN], &usual),
        ("a.example", &[], &usual),
    ];
    for (name, alpn, expected) in table {
        let (mut client, mut world) = (client_of(&both, name, alpn), accepted_by(&server));
        shake_hands(&mut client, &mut world, usize::MAX);
        assert_eq!(&client.peer_certificates().expect("a certificate")[0], expected, "{name} {alpn:?}");
        let negotiated = world.handshake(C).expect("over").expect("over");
        assert_eq!(negotiated.certificate, (expected == &usual).then_some(0));
        assert_eq!(negotiated.alpn, alpn.first().copied());
    }
    // Without the challenge, such a client gets an alert and nothing else.
    server.change(|tls| tls.with_challenges(&[]).expect("a configuration"));
    let (mut client, mut world) = (client_of(&both, "a.example", &[ACME_TLS_ALPN]), accepted_by(&server));
    client.write_tls(&mut world.inner_mut().inbound).expect("memory");
    assert!(world.handshake(C).is_err());
    let sent = std::mem::take(&mut world.inner_mut().outbound);
    client.read_tls(&mut &sent[..]).expect("room");
    let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    assert_eq!(client.process_new_packets().expect_err("an alert"), alert);
}
