//! Handshakes with real servers over memory, and what is said of files.

use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, version};
use ruststrom_core::TlsFault::{
    self, BadCertificate, ClientCertificate, Expired, NotTls, NotYetValid, Protocol, Refused, UnknownCa,
    WrongName,
};
use ruststrom_core::config;

use super::*;
use crate::tls::test_files::{Ca, Folder, Made, params};

/// A pool of this name.
fn pool(name: &str, addresses: &str, tls: &str) -> String {
    format!(
        "[[backend_pools]]\nname = \"{name}\"\naddresses = [{addresses}]\nmatcher = \"Path('/{name}')\"\n[backend_pools.tls]\n{tls}\n"
    )
}

fn parse(pools: &str) -> Config {
    let text = format!("http_address = \"127.0.0.1:1\"\n{pools}");
    let parsed = config::parse(&text);
    parsed.config.unwrap_or_else(|| panic!("{}", config::render(&parsed.diagnostics, "f", &text)))
}

fn loaded(config: &Config, folder: &Folder, previous: Option<&ClientTls>) -> ClientTls {
    let Loaded { client, problems } = ClientTls::load(config, folder.path(), previous);
    client.unwrap_or_else(|| panic!("{problems:?}"))
}

fn target(config: &Config, pool: usize) -> Arc<TlsTarget> {
    config.pools[pool].backends[0].protocol.tls().expect("TLS").clone()
}

/// One backend, and what connects to it.
fn one(folder: &Folder, address: &str, tls: &str) -> (ClientTls, Arc<TlsTarget>) {
    let config = parse(&pool("p", &format!("\"{address}\""), tls));
    (loaded(&config, folder, None), target(&config, 0))
}

fn key(made: &Made) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(made.certificate.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("certificates");
    (chain, PrivateKeyDer::from_pem_slice(made.key.as_bytes()).expect("a key"))
}

fn server_of_versions(
    made: &Made,
    versions: &[&'static rustls::SupportedProtocolVersion],
    clients: Option<&Ca>,
) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions);
    let builder = builder.expect("suites");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(ca.der.clone()).expect("a CA");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let (chain, key) = key(made);
    let mut server = builder.with_single_cert(chain, key).expect("a certificate");
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    server
}

fn server(made: &Made) -> Arc<ServerConfig> {
    server_of_versions(made, rustls::ALL_VERSIONS, None).into()
}

/// What both sides know once a handshake is over, and a word has gone each way.
#[derive(Debug)]
struct Spoken {
    client: ClientConnection,
    server: ServerConnection,
}

impl Spoken {
    fn resumed(&self) -> bool {
        self.client.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// Carries bytes both ways until there are none, or the client has an error.
fn carry(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
    loop {
        let mut moved = false;
        while client.wants_write() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).expect("memory");
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest).expect("memory");
                // Its alert is what the client hears of an error.
                let _ = server.process_new_packets();
            }
            moved = true;
        }
        while server.wants_write() {
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).expect("memory");
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).expect("memory");
                client.process_new_packets()?;
            }
            moved = true;
        }
        if !moved {
            return Ok(());
        }
    }
}

/// A handshake, then a word in each direction: a server of TLS 1.3 refuses a client only after it.
fn speak(tls: &ClientTls, target: &TlsTarget, server: &Arc<ServerConfig>) -> Result<Spoken, TlsFault> {
    use std::io::{Read as _, Write as _};
    let mut client = tls.connection(target)?;
    let mut server = ServerConnection::new(server.clone()).expect("a server");
    carry(&mut client, &mut server).map_err(|error| fault_of_tls(&error))?;
    assert!(!client.is_handshaking() && !server.is_handshaking());
    client.writer().write_all(b"ping").expect("memory");
    server.writer().write_all(b"pong").expect("memory");
    carry(&mut client, &mut server).map_err(|error| fault_of_tls(&error))?;
    let (mut ping, mut pong) = ([0; 4], [0; 4]);
    server.reader().read_exact(&mut ping).expect("it has come");
    client.reader().read_exact(&mut pong).expect("it has come");
    assert_eq!((&ping, &pong), (b"ping", b"pong"));
    Ok(Spoken { client, server })
}

fn with(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = params(names);
    change(&mut params);
    params
}

fn self_signed(params: &CertificateParams) -> Made {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    Made { certificate: certificate.pem(), key: key.serialize_pem() }
}

const APP: &str = "https://app.test:443";
const CA: &str = "ca_file = \"ca.pem\"";

#[test]
fn whom_a_certificate_is_believed() {
    let (folder, ca, other) = (Folder::new(), Ca::new("ca"), Ca::new("other"));
    folder.write("ca.pem", &ca.pem);
    folder.write("both.pem", other.pem.clone() + &ca.pem);
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("ASCII"));
    let usage = |purpose| with(&["app.test"], |p| p.extended_key_usages = vec![purpose]);
    let old = with(&["app.test"], |p| {
        (p.not_before, p.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    let new = with(&["app.test"], |p| {
        (p.not_before, p.not_after) = (date_time_ymd(2900, 1, 1), date_time_ymd(2901, 1, 1));
    });
    let in_common_name = with(&["app.test"], |p| p.subject_alt_names.clear());
    let ip_as_name = with(&["x.test"], |p| p.subject_alt_names.push(dns("10.0.0.1")));
    type Row = (&'static str, Made, &'static str, &'static str, Result<(), TlsFault>);
    let rows: Vec<Row> = vec![
        ("right", ca.sign(&["app.test"]), APP, CA, Ok(())),
        ("one of several CAs", ca.sign(&["app.test"]), APP, "ca_file = \"both.pem\"", Ok(())),
        ("one of several names", ca.sign(&["x.test", "app.test"]), APP, CA, Ok(())),
        ("letter case", ca.sign(&["app.test"]), "https://APP.test.:443", CA, Ok(())),
        ("another CA", other.sign(&["app.test"]), APP, CA, Err(UnknownCa)),
        ("not one of the system's", ca.sign(&["app.test"]), APP, "", Err(UnknownCa)),
        ("self-signed", self_signed(&params(&["app.test"])), APP, CA, Err(UnknownCa)),
        (
            "an intermediate that is not sent",
            ca.intermediate("i").sign(&["app.test"]),
            APP,
            CA,
            Err(UnknownCa),
        ),
        ("another name", ca.sign(&["b.test"]), APP, CA, Err(WrongName)),
        ("a part of it", ca.sign(&["test"]), APP, CA, Err(WrongName)),
        ("a name below", ca.sign(&["x.app.test"]), APP, CA, Err(WrongName)),
        ("common name only", ca.sign_with(in_common_name), APP, CA, Err(WrongName)),
        ("wildcard", ca.sign(&["*.app.test"]), "https://a.app.test:443", CA, Ok(())),
        ("wildcard for two", ca.sign(&["*.app.test"]), "https://a.b.app.test:443", CA, Err(WrongName)),
        ("wildcard for none", ca.sign(&["*.app.test"]), APP, CA, Err(WrongName)),
        ("IPv4", ca.sign(&["10.0.0.1"]), "https://10.0.0.1:443", CA, Ok(())),
        ("IPv6", ca.sign(&["2001:db8::1"]), "https://[2001:db8::1]:443", CA, Ok(())),
        ("IPv4 in IPv6", ca.sign(&["10.0.0.1"]), "https://[::ffff:10.0.0.1]:443", CA, Ok(())),
        ("another IP", ca.sign(&["10.0.0.2"]), "https://10.0.0.1:443", CA, Err(WrongName)),
        ("no IP", ca.sign(&["app.test"]), "https://10.0.0.1:443", CA, Err(WrongName)),
        ("IP as a DNS name", ca.sign_with(ip_as_name), "https://10.0.0.1:443", CA, Err(WrongName)),
        ("expired", ca.sign_with(old), APP, CA, Err(Expired)),
        ("not yet valid", ca.sign_with(new), APP, CA, Err(NotYetValid)),
        (
            "for clients",
            ca.sign_with(usage(ExtendedKeyUsagePurpose::ClientAuth)),
            APP,
            CA,
            Err(BadCertificate),
        ),
        ("for servers", ca.sign_with(usage(ExtendedKeyUsagePurpose::ServerAuth)), APP, CA, Ok(())),
        (
            "server_name",
            ca.sign(&["api.internal"]),
            "https://10.0.0.1:443",
            "ca_file = \"ca.pem\"\nserver_name = \"api.internal\"",
            Ok(()),
        ),
        (
            "the host, but not server_name",
            ca.sign(&["app.test"]),
            APP,
            "ca_file = \"ca.pem\"\nserver_name = \"api.internal\"",
            Err(WrongName),
        ),
        (
            "server_name is an address",
            ca.sign(&["10.0.0.9"]),
            APP,
            "ca_file = \"ca.pem\"\nserver_name = \"10.0.0.9\"",
            Ok(()),
        ),
    ];
    for (what, made, address, tls, expected) in rows {
        let (client, target) = one(&folder, address, tls);
        for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
            let server = server_of_versions(&made, versions, None).into();
            let spoken = speak(&client, &target, &server);
            assert_eq!(spoken.as_ref().map(|_| ()).map_err(|fault| *fault), expected, "{what}");
            let Ok(spoken) = spoken else { continue };
            let asked = match &target.name {
                TlsName::Dns(name) => Some(&**name),
                TlsName::Ip(_) => None,
            };
            assert_eq!(spoken.server.server_name(), asked, "{what}");
            assert_eq!(spoken.client.alpn_protocol(), Some(&b"h2"[..]), "{what}");
            // Connections that are not to speak HTTP/2 are verified alike.
            let server = server_of_versions(&made, versions, None).into();
            let spoken =
                speak(&client, target.for_http1(), &server).unwrap_or_else(|e| panic!("{what}: {e:?}"));
            assert_eq!(spoken.client.alpn_protocol(), Some(&b"http/1.1"[..]), "{what}");
        }
        // Whatever it is, without verification it will do.
        let (client, target) = one(&folder, address, "verify = false");
        let spoken = speak(&client, &target, &server(&made)).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert_eq!(spoken.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    }
}

#[test]
fn a_certificate_that_signed_itself() {
    let folder = Folder::new();
    let (made, other) = (self_signed(&params(&["app.test"])), self_signed(&params(&["app.test"])));
    folder.write("ca.pem", &made.certificate);
    let (client, target) = one(&folder, APP, CA);
    assert!(speak(&client, &target, &server(&made)).is_ok());
    assert_eq!(speak(&client, &target, &server(&other)).err(), Some(UnknownCa), "the same name, another key");
    // The usual one says that it is an authority's; it is believed if it is this very certificate.
    let authority = |change: fn(&mut CertificateParams)| {
        self_signed(&with(&["app.test"], |p| {
            p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            change(p);
        }))
    };
    type Row = (&'static str, fn(&mut CertificateParams), &'static str, Option<TlsFault>);
    let rows: [Row; 6] = [
        ("all is well", |_| {}, APP, None),
        ("another name", |_| {}, "https://b.test:443", Some(WrongName)),
        ("an address", |_| {}, "https://10.0.0.1:443", Some(WrongName)),
        ("expired", |p| p.not_after = date_time_ymd(2021, 1, 1), APP, Some(Expired)),
        ("not yet valid", |p| p.not_before = date_time_ymd(2900, 1, 1), APP, Some(NotYetValid)),
        (
            "for clients",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            APP,
            Some(BadCertificate),
        ),
    ];
    for (what, change, address, fault) in rows {
        let made = authority(change);
        folder.write("ca.pem", &made.certificate);
        let (client, target) = one(&folder, address, CA);
        assert_eq!(speak(&client, &target, &server(&made)).err(), fault, "{what}");
    }
    let (client, target) = one(&folder, APP, CA);
    let other = authority(|_| {});
    assert_eq!(speak(&client, &target, &server(&other)).err(), Some(BadCertificate), "not this one");
}

/// The command of the documentation makes a certificate that is accepted.
#[test]
fn the_documented_command() {
    let page = include_str!("../../../../../cli/docs/tls.md");
    let (_, section) = page.split_once("## To backends").expect("the section");
    let (_, command) = section.split_once("```sh\nopenssl ").expect("a command");
    let (command, _) = command.split_once("```").expect("its end");
    let folder = Folder::new();
    let out = std::process::Command::new("sh")
        .args(["-c", &format!("openssl {command}")])
        .current_dir(folder.path())
        .output()
        .expect("a shell");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let made = Made { certificate: folder.read("backend.crt"), key: folder.read("backend.key") };
    for (address, tls) in [
        ("https://127.0.0.1:8443", "ca_file = \"backend.crt\""),
        ("https://10.0.0.1:8443", "ca_file = \"backend.crt\"\nserver_name = \"api.internal\""),
    ] {
        let (client, target) = one(&folder, address, tls);
        assert!(speak(&client, &target, &server(&made)).is_ok(), "{address}");
    }
}

/// Anyone may show a certificate that is not verified, but not without its private key.
#[test]
fn a_certificate_without_its_key() {
    let (folder, ca) = (Folder::new(), Ca::new("ca"));
    folder.write("ca.pem", &ca.pem);
    let (chain, _) = key(&ca.sign(&["app.test"]));
    let (_, wrong) = key(&ca.sign(&["app.test"]));
    let wrong = provider().key_provider.load_private_key(wrong).expect("a key");
    for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions);
        let shown = SingleCertAndKey::from(CertifiedKey::new(chain.clone(), wrong.clone()));
        let server =
            Arc::new(builder.expect("suites").with_no_client_auth().with_cert_resolver(Arc::new(shown)));
        for tls in [CA, "verify = false"] {
            let (client, target) = one(&folder, APP, tls);
            assert_eq!(speak(&client, &target, &server).err(), Some(BadCertificate), "{tls}");
        }
    }
}

#[test]
fn backends_that_want_a_certificate() {
    let (folder, ca, clients, others) = (Folder::new(), Ca::new("ca"), Ca::new("clients"), Ca::new("others"));
    folder.write("ca.pem", &ca.pem);
    let usage = |p: &mut CertificateParams| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (name, ca) in [("good", &clients), ("bad", &others)] {
        let made = ca.sign_with(with(&["lb.test"], usage));
        folder.write(&format!("{name}.crt"), &made.certificate);
        folder.write(&format!("{name}.key"), &made.key);
    }
    let certificate =
        |name: &str| format!("{CA}\nclient_certificate = \"{name}.crt\"\nclient_key = \"{name}.key\"");
    let backend = ca.sign(&["app.test"]);
    let cases = [
        (&version::TLS13, CA.to_owned(), Some(ClientCertificate)),
        (&version::TLS12, CA.to_owned(), Some(ClientCertificate)),
        (&version::TLS13, certificate("bad"), Some(ClientCertificate)),
        (&version::TLS12, certificate("bad"), Some(ClientCertificate)),
        (&version::TLS13, certificate("good"), None),
        (&version::TLS12, certificate("good"), None),
    ];
    for (version, tls, fault) in cases {
        let server = Arc::new(server_of_versions(&backend, &[version], Some(&clients)));
        let (client, target) = one(&folder, APP, &tls);
        let spoken = speak(&client, &target, &server);
        assert_eq!(spoken.as_ref().err(), fault.as_ref(), "{version:?} {tls}");
        if let Ok(spoken) = spoken {
            let shown = spoken.server.peer_certificates().expect("a certificate");
            let der = CertificateDer::from_pem_slice(folder.read("good.crt").as_bytes()).expect("PEM");
            assert_eq!(shown, [der]);
        }
    }
    // Who does not ask gets none.
    let (client, target) = one(&folder, APP, &certificate("good"));
    let spoken = speak(&client, &target, &server(&backend)).expect("a good certificate");
    assert!(spoken.server.peer_certificates().is_none());
}

/// What a backend may send instead of its part of a handshake.
#[test]
fn answers_that_are_no_handshake() {
    let alert = |code: u8| vec![21, 3, 3, 0, 2, 2, code];
    // A `ServerHello` of TLS 1.1 (RFC 4346 §7.4.1.3).
    let mut old = vec![22, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
    old.extend([7; 32]);
    old.extend([0, 0, 0x2f, 0]);
    let cases = [
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(), NotTls),
        ("SMTP", b"220 mail.test ESMTP\r\n".to_vec(), NotTls),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), NotTls),
        ("zeros", vec![0; 64], NotTls),
        ("handshake_failure", alert(40), Refused),
        ("protocol_version", alert(70), Refused),
        ("unrecognized_name", alert(112), Refused),
        ("certificate_required", alert(116), ClientCertificate),
        ("TLS 1.1", old, Protocol),
        ("data at once", vec![23, 3, 3, 0, 1, 0], Protocol),
        ("a record too long", vec![22, 3, 3, 255, 255, 2], Protocol),
        ("a handshake too long", vec![22, 3, 3, 0, 4, 2, 255, 255, 255], Protocol),
    ];
    let (client, target) = one(&Folder::new(), APP, "verify = false");
    for (what, bytes, fault) in cases {
        for step in [1, bytes.len()] {
            let mut connection = client.connection(&target).expect("known");
            let answer = bytes.chunks(step).find_map(|mut piece| {
                connection.read_tls(&mut piece).expect("memory");
                connection.process_new_packets().err()
            });
            let answer = answer.unwrap_or_else(|| panic!("{what}: no error"));
            assert_eq!(fault_of_tls(&answer), fault, "{what}, {step} bytes at once: {answer}");
        }
    }
}

/// Sessions are resumed with the same backend under the same settings, and with nobody else.
#[test]
fn sessions() {
    let (folder, ca) = (Folder::new(), Ca::new("ca"));
    folder.write("ca.pem", &ca.pem);
    folder.write("same.pem", &ca.pem);
    let made = ca.sign(&["app.test"]);
    let pools = [
        pool("a", "\"https://app.test:443\"", CA),
        pool("b", "\"https://app.test:443\"", CA),
        pool("c", "\"https://app.test:8443\"", CA),
        pool("d", "\"https://app.test:443\"", "verify = false"),
        pool("e", "\"https://app.test:443\"", "ca_file = \"same.pem\""),
        pool("f", "\"https://10.0.0.1:443\"", &format!("{CA}\nserver_name = \"app.test\"")),
    ];
    let config = parse(&pools.concat());
    for version in [&version::TLS12, &version::TLS13] {
        let tls = loaded(&config, &folder, None);
        let mut server = server_of_versions(&made, &[version], None);
        server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("random bytes");
        let server = Arc::new(server);
        let resumed = |pool: usize| speak(&tls, &target(&config, pool), &server).expect("good").resumed();
        assert!(!resumed(0), "the first one");
        for other in [2, 3, 4, 5] {
            assert!(!resumed(other), "pool {other} has sessions of its own");
        }
        assert!(resumed(0) && resumed(0), "{version:?}");
        assert!(resumed(1), "the same backend under the same settings, in another pool");
        // More at once than there are tickets.
        let many: Vec<_> = (0..20).map(|_| tls.connection(&target(&config, 0)).expect("known")).collect();
        assert_eq!(many.len(), 20);
        assert!(
            matches!(speak(&tls, &target(&config, 0), &server), Ok(spoken) if !spoken.client.is_handshaking())
        );

        // A backend that has forgotten, with another certificate: a whole handshake, verified anew.
        let renewed = Arc::new(server_of_versions(&ca.sign(&["app.test"]), &[version], None));
        assert!(!speak(&tls, &target(&config, 0), &renewed).expect("good").resumed());
        let moved = Arc::new(server_of_versions(&Ca::new("x").sign(&["app.test"]), &[version], None));
        assert_eq!(speak(&tls, &target(&config, 0), &moved).err(), Some(UnknownCa));
    }
}

#[test]
fn reloads() {
    let (folder, ca, later) = (Folder::new(), Ca::new("ca"), Ca::new("later"));
    folder.write("ca.pem", &ca.pem);
    let server = server(&ca.sign(&["app.test"]));
    let old = parse(&(pool("a", "\"https://app.test:443\"", CA) + &pool("b", "\"https://app.test:1\"", CA)));
    let first = loaded(&old, &folder, None);
    let speak = |tls: &ClientTls, pool| speak(tls, &target(&old, pool), &server).map(|s| s.resumed());
    assert_eq!([speak(&first, 0), speak(&first, 1)], [Ok(false); 2]);

    let only_a = parse(&pool("a", "\"https://app.test:443\"", CA));
    let second = loaded(&only_a, &folder, Some(&first));
    assert_eq!(speak(&second, 0), Ok(true), "nothing has changed");
    assert_eq!(speak(&second, 1), Ok(true), "who began under the older file goes on");
    let third = loaded(&only_a, &folder, Some(&second));
    assert_eq!(speak(&third, 1), Err(Protocol), "but not for ever");

    folder.write("ca.pem", later.pem.clone() + &ca.pem);
    let fourth = loaded(&only_a, &folder, Some(&third));
    assert_eq!([speak(&fourth, 0), speak(&fourth, 0)], [Ok(false), Ok(true)], "the file says something else");
    folder.write("ca.pem", &later.pem);
    let fifth = loaded(&only_a, &folder, Some(&fourth));
    assert_eq!(speak(&fifth, 0), Err(UnknownCa), "no session saves who is trusted no more");
}

/// What is wrong with files, and where the configuration says so.
#[test]
fn problems() {
    let (folder, ca) = (Folder::new(), Ca::new("ca"));
    let (made, other) = (ca.sign(&["lb.test"]), ca.sign(&["lb.test"]));
    let server_only = ca.sign_with(with(&["lb.test"], |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    }));
    let old_ca = self_signed(&with(&["old.test"], |p| p.not_after = date_time_ymd(2021, 1, 1)));
    folder.write("ca.pem", &ca.pem);
    folder.write("old.pem", &old_ca.certificate);
    folder.write("empty.pem", "");
    folder.write("text.pem", "no PEM\n");
    folder
        .write("odd.pem", ca.pem.clone() + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    folder.write("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    folder.write("long.pem", "#".repeat((1 << 20) + 1));
    for (name, made) in [("a", &made), ("b", &other), ("s", &server_only)] {
        folder.write(&format!("{name}.crt"), &made.certificate);
        folder.write(&format!("{name}.key"), &made.key);
    }
    let client = |certificate: &str, key: &str| {
        format!("{CA}\nclient_certificate = \"{certificate}\"\nclient_key = \"{key}\"")
    };
    use Key::{CaFile, ClientCertificate, ClientKey};
    use Severity::{Error, Warning};
    type Expected = &'static [(Severity, Key, &'static str)];
    let cases: [(String, Expected); 16] = [
        (CA.into(), &[]),
        (client("a.crt", "a.key"), &[]),
        (
            "ca_file = \"none.pem\"".into(),
            &[(Error, CaFile, "cannot read the CA file none.pem: No such file")],
        ),
        ("ca_file = \".\"".into(), &[(Error, CaFile, "it is a folder")]),
        ("ca_file = \"empty.pem\"".into(), &[(Error, CaFile, "it is empty")]),
        ("ca_file = \"text.pem\"".into(), &[(Error, CaFile, "there is no PEM in it")]),
        ("ca_file = \"long.pem\"".into(), &[(Error, CaFile, "it has more than 1048576 bytes")]),
        (
            "ca_file = \"a.key\"".into(),
            &[(Error, CaFile, "there is no certificate in the CA file a.key, but a PRIVATE KEY")],
        ),
        (
            "ca_file = \"damaged.pem\"".into(),
            &[(Error, CaFile, "certificate 1 in the CA file damaged.pem cannot be used: ")],
        ),
        (
            "ca_file = \"odd.pem\"".into(),
            &[(Warning, CaFile, "certificate 2 in the CA file odd.pem is passed over: ")],
        ),
        (
            "ca_file = \"old.pem\"".into(),
            &[(Warning, CaFile, "every certificate in the CA file old.pem has expired")],
        ),
        (
            client("a.crt", "b.key"),
            &[(
                Error,
                ClientKey,
                "the private key b.key is not that of the certificate a.crt, but of another one",
            )],
        ),
        (
            client("a.key", "a.crt"),
            &[
                (Error, ClientCertificate, "there is no certificate in a.key, but a private key"),
                (Error, ClientKey, "there is no private key in a.crt, but a certificate"),
            ],
        ),
        (
            client("none.crt", "none.key"),
            &[
                (Error, ClientCertificate, "cannot read the certificate none.crt: "),
                (Error, ClientKey, "cannot read the private key none.key: "),
            ],
        ),
        (
            client("s.crt", "s.key"),
            &[(
                Warning,
                ClientCertificate,
                "the certificate s.crt is not for clients: its extended key usage says so",
            )],
        ),
        ("ca_file = \"none.pem\"\nverify = false".into(), &[]),
    ];
    for (tls, expected) in cases {
        // The pool before it has the same files: both are told of.
        let text = pool("a", "\"https://app.test:443\"", &tls) + &pool("b", "\"https://10.0.0.1:443\"", &tls);
        let Loaded { client, problems } = ClientTls::load(&parse(&text), folder.path(), None);
        let prefix = format!("{}/", folder.path().display());
        for name in ["a", "b"] {
            let of_pool: Vec<_> = problems.iter().filter(|p| &*p.pool == name).collect();
            assert_eq!(of_pool.len(), expected.len(), "{tls}: {problems:#?}");
            for (problem, (severity, key, part)) in of_pool.iter().zip(expected) {
                assert_eq!((problem.severity, problem.key), (*severity, *key), "{problem:?}");
                let message = problem.message.replace(&prefix, "");
                assert!(message.contains(part) && !problem.help.is_empty(), "{problem:?}");
            }
        }
        let fails = expected.iter().any(|(severity, ..)| *severity == Error);
        assert_eq!(client.is_none(), fails, "{tls}");
    }
    // The words are those of a client.
    let text = pool("a", "\"https://app.test:443\"", &client("a.key", "a.crt"));
    let problems = ClientTls::load(&parse(&text), folder.path(), None).problems;
    assert!(problems.iter().all(|p| p.help == "are `client_certificate` and `client_key` swapped?"));
}

/// A pool whose backends are plain needs nothing of the machine.
#[test]
fn without_tls_nothing_is_read() {
    let text = pool("a", "\"app.test:443\"", "ca_file = \"none.pem\"");
    let Loaded { client, problems } = ClientTls::load(&parse(&text), Folder::new().path(), None);
    assert_eq!(problems, []);
    let client = client.expect("nothing is wrong");
    assert!(client.targets.is_empty());
}
