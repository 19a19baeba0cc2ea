use std::io::{Read, Write};

use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::Acceptor;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, NamedGroup, RootCertStore,
    ServerConnection, SupportedProtocolVersion,
};

use super::*;
use crate::tls::subject;
use crate::tls::test_files::{Ca, Folder, Made, entry};

const TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;
const TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;
const BOTH: [&SupportedProtocolVersion; 2] = [TLS12, TLS13];

/// The files of certificates, and the authority that signed them.
struct Site {
    folder: Folder,
    ca: Ca,
    certificates: Vec<Certificate>,
}

impl Site {
    fn new(names: &[&str]) -> Self {
        let mut site = Self { folder: Folder::new(), ca: Ca::new("root"), certificates: Vec::new() };
        for (number, name) in names.iter().enumerate() {
            let file = format!("c{number}");
            let Made { certificate, key } = site.ca.sign(&[name]);
            site.folder.write(&format!("{file}.crt"), certificate);
            site.folder.write(&format!("{file}.key"), key);
            site.certificates.push(entry(name, &file));
        }
        site
    }

    fn with_default(mut self, place: usize) -> Self {
        self.certificates[place].default = true;
        self
    }

    fn with_clients(mut self, place: usize, ca: &Ca, auth: ClientAuth) -> Self {
        self.folder.write("clients.pem", &ca.pem);
        self.certificates[place].client_ca = Some("clients.pem".into());
        self.certificates[place].client_auth = auth;
        self
    }

    fn load(&self, previous: Option<&ServerTls>) -> ServerTls {
        let loaded = ServerTls::load(&self.certificates, true, self.folder.path(), previous);
        assert_eq!(loaded.problems, []);
        loaded.server.expect("no problems")
    }

    /// A client that trusts the authority, with or without a certificate of its own.
    fn client(&self, versions: &[&'static SupportedProtocolVersion], own: Option<&Made>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der.clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        match own {
            None => builder.with_no_client_auth(),
            Some(made) => {
                let chain = vec![CertificateDer::from_pem_slice(made.certificate.as_bytes()).expect("PEM")];
                let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("a key of its own")
            }
        }
    }
}

/// A handshake that has succeeded.
struct Done {
    client: ClientConnection,
    server: ServerConnection,
    certificate: u16,
}

impl Done {
    fn kinds(&self) -> (Option<HandshakeKind>, Option<HandshakeKind>) {
        (self.client.handshake_kind(), self.server.handshake_kind())
    }

    fn is_resumed(&self) -> bool {
        let resumed = Some(HandshakeKind::Resumed);
        let (client, server) = self.kinds();
        assert_eq!(client == resumed, server == resumed);
        client == resumed
    }

    fn client_subject(&self) -> Option<String> {
        self.server.peer_certificates().and_then(|chain| subject::of_certificate(&chain[0]))
    }
}

/// Why a handshake failed, and on which side it was seen first.
#[derive(Debug)]
enum Failed {
    Client(Error),
    Server(Error),
}

/// Carries bytes from one side to the other; whether there were any.
fn carry(
    write: &mut dyn FnMut(&mut Vec<u8>),
    read: &mut dyn FnMut(&mut &[u8]) -> Result<(), Error>,
) -> Result<bool, Error> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    let (mut rest, any) = (&*bytes, !bytes.is_empty());
    while !rest.is_empty() {
        read(&mut rest)?;
    }
    Ok(any)
}

fn named(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).expect("a name")
}

/// The server name of a first flight, as the server is to see it, and the rest of the handshake.
fn accept(hello: &[u8]) -> rustls::server::Accepted {
    let mut acceptor = Acceptor::default();
    let mut rest = hello;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).expect("bytes");
        if let Some(accepted) = acceptor.accept().map_err(|(e, _)| e).expect("a hello") {
            assert!(rest.is_empty());
            return accepted;
        }
    }
    panic!("not a whole hello");
}

/// A whole handshake and what follows it, over memory.
fn connect(tls: &ServerTls, client: &Arc<ClientConfig>, name: &str) -> Result<Done, Failed> {
    let mut client = ClientConnection::new(client.clone(), named(name)).map_err(Failed::Client)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory");
    let accepted = accept(&hello);
    let choice = tls.choose(accepted.client_hello().server_name());
    let Some(Choice { config, certificate }) = choice else {
        client.read_tls(&mut &UNRECOGNIZED_NAME[..]).expect("memory");
        return Err(Failed::Client(client.process_new_packets().expect_err("an alert")));
    };
    let mut server = accepted.into_connection(config.clone()).map_err(|(e, _)| Failed::Server(e))?;
    loop {
        let down = carry(&mut |out| while server.write_tls(out).expect("memory") > 0 {}, &mut |bytes| {
            client.read_tls(bytes).expect("memory");
            client.process_new_packets().map(drop)
        });
        let down = down.map_err(Failed::Client)?;
        let up = carry(&mut |out| while client.write_tls(out).expect("memory") > 0 {}, &mut |bytes| {
            server.read_tls(bytes).expect("memory");
            server.process_new_packets().map(drop)
        });
        if !up.map_err(Failed::Server)? && !down {
            break;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Done { client, server, certificate })
}

fn connected(tls: &ServerTls, client: &Arc<ClientConfig>, name: &str) -> Done {
    connect(tls, client, name).unwrap_or_else(|e| panic!("{name}: {e:?}"))
}

/// Keeps one session, and offers it to every server: a client that wants to go on with it elsewhere.
#[derive(Debug)]
struct OneSession(ClientSessionMemoryCache);

impl OneSession {
    fn resumption() -> Resumption {
        Resumption::store(Arc::new(Self(ClientSessionMemoryCache::new(8))))
    }

    fn everywhere() -> ServerName<'static> {
        named("everywhere.example")
    }
}

impl ClientSessionStore for OneSession {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::everywhere(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::everywhere())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::everywhere(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::everywhere())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::everywhere());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::everywhere(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::everywhere())
    }
}

#[test]
fn the_certificate_for_a_name() {
    let names = ["a.example", "*.a.example", "b.a.example", "*.example"];
    let site = Site::new(&names);
    let tls = site.load(None);
    let with_default = site.with_default(1).load(None);
    let long = format!("{}.example", "x.".repeat(130));
    // (what the client names, the place, the place if number 1 is the default)
    let table = [
        (Some("a.example"), Some(0), Some(0)),
        (Some("A.eXAMPLE"), Some(0), Some(0)),
        (Some("a.example."), Some(0), Some(0)),
        (Some("A.EXAMPLE."), Some(0), Some(0)),
        (Some("x.a.example"), Some(1), Some(1)),
        (Some("X.A.Example."), Some(1), Some(1)),
        (Some("b.a.example"), Some(2), Some(2)),
        (Some("c.example"), Some(3), Some(3)),
        // A wildcard stands for one label, and never for none.
        (Some("x.y.a.example"), None, Some(1)),
        (Some("example"), None, Some(1)),
        (Some("a.example.."), None, Some(1)),
        (Some(".a.example"), Some(1), Some(1)),
        (Some("*.a.example"), Some(1), Some(1)),
        (Some("a.example.org"), None, Some(1)),
        (Some("org"), None, Some(1)),
        (Some(""), None, Some(1)),
        (Some("."), None, Some(1)),
        (Some("ä.org"), None, Some(1)),
        (Some(&long), None, Some(1)),
        // With several certificates a client that names none gets the default only.
        (None, None, Some(1)),
    ];
    for (name, place, place_with_default) in table {
        let place_of = |tls: &ServerTls| tls.choose(name).map(|c| c.certificate);
        assert_eq!((place_of(&tls), place_of(&with_default)), (place, place_with_default), "{name:?}");
    }
}

#[test]
fn the_only_certificate_is_for_clients_that_name_none() {
    let tls = Site::new(&["a.example"]).load(None);
    let place = |name| tls.choose(name).map(|c| c.certificate);
    assert_eq!((place(None), place(Some("a.example")), place(Some("b.example"))), (Some(0), Some(0), None));
}

#[test]
fn nothing_is_served_without_certificates() {
    let tls = ServerTls::load(&[], true, Path::new(""), None).server.expect("no problems");
    assert!(tls.choose(None).is_none() && tls.choose(Some("a.example")).is_none());
}

#[test]
fn clients_get_the_certificate_that_they_ask_for() {
    let site = Site::new(&["a.example", "*.b.example", "10.0.0.1"]);
    let mut site = site.with_default(2);
    // The name of a certificate is no address: only what it is for.
    site.certificates[2].name = "c.example".into();
    let loaded = ServerTls::load(&site.certificates, true, site.folder.path(), None);
    let tls = loaded.server.expect("no errors");
    for version in BOTH {
        let client = Arc::new(site.client(&[version], None));
        // A client checks the names of what it gets.
        for (name, certificate) in
            [("a.example", 0), ("A.EXAMPLE", 0), ("a.example.", 0), ("X.b.example", 1), ("10.0.0.1", 2)]
        {
            let done = connected(&tls, &client, name);
            assert_eq!(done.certificate, certificate, "{name}");
            assert_eq!(done.server.protocol_version(), Some(version.version));
        }
        // Unknown names get the default.
        let unknown = connect(&tls, &client, "d.example").err().expect("it is not for that name");
        assert!(matches!(unknown, Failed::Client(Error::InvalidCertificate(_))), "{unknown:?}");
    }
}

#[test]
fn an_unknown_name_is_told_by_an_alert() {
    let tls = Site::new(&["a.example", "b.example"]).load(None);
    for version in BOTH {
        let client = Arc::new(Site::new(&[]).client(&[version], None));
        for name in ["c.example", "a.a.example", "10.0.0.1"] {
            let failed = connect(&tls, &client, name).err().expect("no certificate");
            let alert = Error::AlertReceived(AlertDescription::UnrecognisedName);
            assert!(matches!(&failed, Failed::Client(e) if *e == alert), "{failed:?}");
        }
    }
}

#[test]
fn a_final_dot_on_the_wire() {
    let site = Site::new(&["a.example", "b.example"]);
    let tls = site.load(None);
    let mut client =
        ClientConnection::new(Arc::new(site.client(&BOTH, None)), named("a.examplex")).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory");
    // rustls sends no final dot, others do.
    let at = hello.windows(10).position(|w| w == b"a.examplex").expect("the name");
    hello[at + 9] = b'.';
    let accepted = accept(&hello);
    assert_eq!(tls.choose(accepted.client_hello().server_name()).map(|c| c.certificate), Some(0));
}

#[test]
fn versions_suites_groups_and_protocols() {
    let site = Site::new(&["a.example"]);
    let tls = site.load(None);
    let config = tls.choose(None).expect("a certificate").config;
    assert_eq!(config.max_early_data_size, 0);
    let suites = config.crypto_provider().cipher_suites.iter();
    let names: Vec<String> = suites.map(|s| format!("{:?}", s.suite())).collect();
    let is_aead =
        |n: &String| n.ends_with("GCM_SHA384") || n.ends_with("GCM_SHA256") || n.contains("CHACHA20");
    assert!(names.len() == 9 && names.iter().all(is_aead), "{names:?}");
    let is_forward_secret = |n: &String| n.starts_with("TLS13_") || n.starts_with("TLS_ECDHE_");
    assert!(names.iter().all(is_forward_secret), "{names:?}");
    let groups: Vec<NamedGroup> = config.crypto_provider().kx_groups.iter().map(|g| g.name()).collect();
    let expected =
        [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1];
    assert_eq!(groups, expected);

    for version in BOTH {
        let mut client = site.client(&[version], None);
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let done = connected(&tls, &Arc::new(client), "a.example");
        assert_eq!(done.server.alpn_protocol(), Some(&b"h2"[..]));
        let group = done.server.negotiated_key_exchange_group().map(|g| g.name());
        let expected = if version == TLS13 { NamedGroup::X25519MLKEM768 } else { NamedGroup::X25519 };
        assert_eq!(group, Some(expected));
        // A client that speaks nothing else is told so.
        let mut client = site.client(&[version], None);
        client.alpn_protocols = vec![b"h3".to_vec()];
        let failed = connect(&tls, &Arc::new(client), "a.example").err().expect("no protocol");
        assert!(matches!(failed, Failed::Server(Error::NoApplicationProtocol)), "{failed:?}");
        // One that says nothing speaks HTTP/1.1.
        let client = Arc::new(site.client(&[version], None));
        assert_eq!(connected(&tls, &client, "a.example").server.alpn_protocol(), None);
    }
}

#[test]
fn a_session_goes_on_over_reloads() {
    let site = Site::new(&["a.example"]);
    for version in BOTH {
        let client = Arc::new(site.client(&[version], None));
        let first = site.load(None);
        assert!(!connected(&first, &client, "a.example").is_resumed());
        assert!(connected(&first, &client, "a.example").is_resumed());
        let second = site.load(Some(&first));
        drop(first);
        assert!(connected(&second, &client, "a.example").is_resumed());
        // Even if a reload failed in between, and with a new certificate.
        let Made { certificate, key } = site.ca.sign(&["a.example"]);
        site.folder.write("c0.crt", certificate);
        assert!(
            ServerTls::load(&site.certificates, true, site.folder.path(), Some(&second)).server.is_none()
        );
        site.folder.write("c0.key", key);
        let third = site.load(Some(&second));
        assert!(connected(&third, &client, "a.example").is_resumed());
        // Without what was before, the keys are others.
        assert!(!connected(&site.load(None), &client, "a.example").is_resumed());
    }
}

#[test]
fn there_is_no_early_data_and_no_session_without_a_ticket() {
    let site = Site::new(&["a.example"]);
    let tls = site.load(None);
    let mut client = site.client(&[TLS13], None);
    client.enable_early_data = true;
    let client = Arc::new(client);
    connected(&tls, &client, "a.example");
    let mut again = ClientConnection::new(client.clone(), named("a.example")).expect("a client");
    assert!(again.early_data().is_none(), "no ticket allows early data");
    // A session of TLS 1.2 by its id alone.
    let mut client = site.client(&[TLS12], None);
    client.resumption =
        OneSession::resumption().tls12_resumption(rustls::client::Tls12Resumption::SessionIdOnly);
    let client = Arc::new(client);
    connected(&tls, &client, "a.example");
    assert!(!connected(&tls, &client, "a.example").is_resumed());
}

#[test]
fn no_session_goes_on_under_another_name() {
    let site = Site::new(&["a.example", "b.example", "*.c.example"]).with_default(0);
    let tls = site.load(None);
    for version in BOTH {
        let mut client = site.client(&[version], None);
        client.resumption = OneSession::resumption();
        let client = Arc::new(client);
        assert!(!connected(&tls, &client, "a.example").is_resumed());
        assert!(!connected(&tls, &client, "b.example").is_resumed());
        assert!(connected(&tls, &client, "b.example").is_resumed());
        // Nor under another one that has the same certificate.
        assert!(!connected(&tls, &client, "1.c.example").is_resumed());
        assert!(!connected(&tls, &client, "2.c.example").is_resumed());
        assert!(connected(&tls, &client, "2.C.example").is_resumed());
    }
}

#[test]
fn clients_show_what_is_demanded() {
    let (clients, others) = (Ca::new("clients"), Ca::new("others"));
    let (good, wrong) = (clients.sign(&["alice.example"]), others.sign(&["mallory.example"]));
    // (demanded, the client's, whether it gets in)
    let table = [
        (ClientAuth::Required, Some(&good), Ok(Some("CN=alice.example"))),
        (ClientAuth::Required, None, Err("no certificate")),
        (ClientAuth::Required, Some(&wrong), Err("unknown issuer")),
        (ClientAuth::Optional, Some(&good), Ok(Some("CN=alice.example"))),
        (ClientAuth::Optional, None, Ok(None)),
        (ClientAuth::Optional, Some(&wrong), Err("unknown issuer")),
    ];
    for (auth, own, expected) in table {
        let site = Site::new(&["a.example"]).with_clients(0, &clients, auth);
        let tls = site.load(None);
        for version in BOTH {
            let result = connect(&tls, &Arc::new(site.client(&[version], own)), "a.example");
            match (result, expected) {
                (Ok(done), Ok(subject)) => assert_eq!(done.client_subject().as_deref(), subject),
                (Err(Failed::Server(Error::NoCertificatesPresented)), Err("no certificate")) => {}
                (
                    Err(Failed::Server(Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))),
                    Err("unknown issuer"),
                ) => {}
                (Err(failed), _) => panic!("{auth:?} {version:?} {expected:?}: {failed:?}"),
                (Ok(_), Err(_)) => panic!("{auth:?} {version:?} {expected:?}: it got in"),
            }
        }
    }
}

#[test]
fn a_session_keeps_the_certificate_that_was_shown() {
    let clients = Ca::new("clients");
    let alice = clients.sign(&["alice.example"]);
    let site = Site::new(&["a.example"]).with_clients(0, &clients, ClientAuth::Required);
    for version in BOTH {
        let client = Arc::new(site.client(&[version], Some(&alice)));
        let first = site.load(None);
        connected(&first, &client, "a.example");
        let second = site.load(Some(&first));
        let done = connected(&second, &client, "a.example");
        assert!(done.is_resumed());
        assert_eq!(done.client_subject().as_deref(), Some("CN=alice.example"));
    }
}

#[test]
fn no_session_goes_on_where_clients_have_to_show_something_else() {
    let (ca, other_ca) = (Ca::new("clients"), Ca::new("clients"));
    let alice = ca.sign(&["alice.example"]);
    let open = || Site::new(&["a.example"]);
    type Change = fn(Site, &Ca, &Ca) -> Site;
    // (before, after): the same name, the same client, sessions from before.
    let changes: [(Change, Change); 6] = [
        (|s, _, _| s, |s, ca, _| s.with_clients(0, ca, ClientAuth::Optional)),
        (|s, _, _| s, |s, ca, _| s.with_clients(0, ca, ClientAuth::Required)),
        (
            |s, ca, _| s.with_clients(0, ca, ClientAuth::Optional),
            |s, ca, _| s.with_clients(0, ca, ClientAuth::Required),
        ),
        (
            |s, ca, _| s.with_clients(0, ca, ClientAuth::Required),
            |s, ca, _| s.with_clients(0, ca, ClientAuth::Optional),
        ),
        (
            |s, ca, _| s.with_clients(0, ca, ClientAuth::Required),
            |mut s, _, _| {
                s.certificates[0].client_ca = None;
                s
            },
        ),
        // The same file, path and name of the authority, but another authority in it.
        (
            |s, ca, _| s.with_clients(0, ca, ClientAuth::Optional),
            |s, _, other| s.with_clients(0, other, ClientAuth::Optional),
        ),
    ];
    for (number, (before, after)) in changes.into_iter().enumerate() {
        for version in BOTH {
            let site = before(open(), &ca, &other_ca);
            let first = site.load(None);
            // The case of another authority needs a client without a certificate to get in again.
            let own = (number != 5).then_some(&alice);
            let client = Arc::new(site.client(&[version], own));
            connected(&first, &client, "a.example");
            assert!(connected(&first, &client, "a.example").is_resumed());
            let site = after(site, &ca, &other_ca);
            let second = site.load(Some(&first));
            assert!(!connected(&second, &client, "a.example").is_resumed(), "{number} {version:?}");
        }
    }
}

#[test]
fn a_session_without_a_certificate_opens_no_door() {
    let ca = Ca::new("clients");
    let site = Site::new(&["open.example", "closed.example"]).with_clients(1, &ca, ClientAuth::Required);
    let tls = site.load(None);
    for version in BOTH {
        let mut client = site.client(&[version], None);
        client.resumption = OneSession::resumption();
        let client = Arc::new(client);
        connected(&tls, &client, "open.example");
        let failed = connect(&tls, &client, "closed.example").err().expect("no certificate");
        assert!(matches!(failed, Failed::Server(Error::NoCertificatesPresented)), "{failed:?}");
    }
}

#[test]
fn the_same_demands_share_their_keys() {
    let ca = Ca::new("clients");
    let site = Site::new(&["a.example", "b.example", "c.example", "d.example"]);
    let site = site.with_clients(0, &ca, ClientAuth::Required).with_clients(1, &ca, ClientAuth::Required);
    let tls = site.load(None);
    let keys = |name| tls.choose(Some(name)).expect("a certificate").config.ticketer.clone();
    assert!(Arc::ptr_eq(&keys("a.example"), &keys("b.example")));
    assert!(Arc::ptr_eq(&keys("c.example"), &keys("d.example")));
    assert!(!Arc::ptr_eq(&keys("a.example"), &keys("c.example")));
    assert!(keys("a.example").enabled() && keys("a.example").lifetime() <= 12 * 3600);
}

#[test]
fn files_of_client_cas() {
    let ca = Ca::new("clients");
    let alice = ca.sign(&["alice.example"]);
    let old = {
        let mut params = crate::tls::test_files::params(&["old"]);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(2020, 2, 3);
        ca.sign_with(params).certificate
    };
    let ends_well = "give the certificate that signed the clients' certificates, not a client's own";
    // (the file, severity and text)
    type Said = Option<(Severity, String)>;
    let table: [(Option<String>, Said); 7] = [
        (Some(ca.pem.clone()), None),
        (Some(ca.pem.clone() + &Ca::new("others").pem), None),
        (
            None,
            Some((
                Severity::Error,
                "cannot read the client CA clients.pem: No such file or directory (os error 2)".into(),
            )),
        ),
        (
            Some("x".into()),
            Some((Severity::Error, "cannot read the client CA clients.pem: there is no PEM in it".into())),
        ),
        (
            Some(alice.key.clone()),
            Some((
                Severity::Error,
                "there is no certificate in the client CA clients.pem, but a PRIVATE KEY".into(),
            )),
        ),
        (
            Some(ca.pem.clone() + &alice.certificate),
            Some((
                Severity::Error,
                "certificate 2 in the client CA clients.pem is not that of a CA: CN=alice.example".into(),
            )),
        ),
        (
            Some(old),
            Some((
                Severity::Warning,
                "certificate 1 in the client CA clients.pem expired on 2020-02-03 00:00:00 UTC".into(),
            )),
        ),
    ];
    let mut site = Site::new(&["a.example", "b.example"]);
    for certificate in &mut site.certificates {
        certificate.client_ca = Some("clients.pem".into());
    }
    let prefix = format!("{}/", site.folder.path().display());
    for (content, expected) in table {
        let path = site.folder.path().join("clients.pem");
        match content {
            Some(text) => site.folder.write("clients.pem", text),
            None => std::fs::remove_file(path).expect("removed"),
        }
        let loaded = ServerTls::load(&site.certificates, true, site.folder.path(), None);
        let problems: Vec<_> = loaded
            .problems
            .iter()
            .map(|p| (p.certificate, p.part, p.severity, p.message.replace(&prefix, "")))
            .collect();
        // What is wrong with a file is said once, where it is named first.
        let expected: Vec<_> =
            expected.into_iter().map(|(severity, text)| (0, Part::ClientCa, severity, text)).collect();
        assert_eq!(problems, expected);
        let has_error = expected.iter().any(|e| e.2 == Severity::Error);
        assert_eq!(loaded.server.is_none(), has_error);
        for p in loaded.problems.iter().filter(|p| p.message.contains("not that of a CA")) {
            assert_eq!(p.help, ends_well);
        }
    }
}

#[test]
fn problems_say_whose_they_are() {
    let mut site = Site::new(&["a.example", "b.example", "c.example"]);
    site.folder.write("c2.key", site.folder.read("c0.key"));
    site.certificates[1].name = "other.example".into();
    let loaded = ServerTls::load(&site.certificates, true, site.folder.path(), None);
    let whose: Vec<_> = loaded.problems.iter().map(|p| (p.certificate, p.part, p.severity)).collect();
    assert_eq!(
        whose,
        [(1, Part::CertificatePath, Severity::Warning), (2, Part::PrivateKeyPath, Severity::Error)]
    );
    assert!(loaded.server.is_none());
    assert_eq!(loaded.sans, [vec!["a.example".into()], vec!["b.example".into()], Vec::<Box<str>>::new()]);
}

#[test]
fn a_certificate_of_acme_has_no_files() {
    let mut site = Site::new(&["a.example", "b.example"]);
    site.certificates[0].source = CertificateSource::Acme(ruststrom_core::config::Acme::new("a@b", "p"));
    let tls = site.load(None);
    assert!(tls.choose(Some("a.example")).is_none());
    assert_eq!(tls.choose(Some("b.example")).map(|c| c.certificate), Some(1));
}

#[test]
fn what_the_documentation_has_clients_made_by_is_accepted() {
    let page = include_str!("../../../../../cli/docs/tls.md");
    let site = Site::new(&["a.example"]);
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    for commands in blocks.filter(|b| b.contains("clients-ca") && b.starts_with("openssl req ")) {
        let ran = std::process::Command::new("sh")
            .args(["-e", "-c", commands])
            .current_dir(site.folder.path())
            .output()
            .expect("a shell");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let made = Made { certificate: site.folder.read("alice.crt"), key: site.folder.read("alice.key") };
    let mut certificates = site.certificates.clone();
    certificates[0].client_ca = Some("clients-ca.crt".into());
    let loaded = ServerTls::load(&certificates, true, site.folder.path(), None);
    let done = connected(
        &loaded.server.expect("no problems"),
        &Arc::new(site.client(&BOTH, Some(&made))),
        "a.example",
    );
    assert_eq!(done.client_subject().as_deref(), Some("CN=alice"));
}

#[test]
fn data_passes_both_ways() {
    let site = Site::new(&["a.example"]);
    let Done { mut client, mut server, .. } =
        connected(&site.load(None), &Arc::new(site.client(&BOTH, None)), "a.example");
    let (mut wire, mut text) = (Vec::new(), [0; 4]);
    client.writer().write_all(b"ping").expect("memory");
    client.write_tls(&mut wire).expect("memory");
    server.read_tls(&mut &*wire).expect("memory");
    server.process_new_packets().expect("a record");
    server.reader().read_exact(&mut text).expect("data");
    assert_eq!(&text, b"ping");
    wire.clear();
    server.writer().write_all(b"pong").expect("memory");
    server.write_tls(&mut wire).expect("memory");
    client.read_tls(&mut &*wire).expect("memory");
    client.process_new_packets().expect("a record");
    client.reader().read_exact(&mut text).expect("data");
    assert_eq!(&text, b"pong");
}
